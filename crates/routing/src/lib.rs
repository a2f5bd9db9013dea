//! Longest-prefix routing by address segments.
