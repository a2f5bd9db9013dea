//! Wiring: configuration, threads, effect gate, signals.
