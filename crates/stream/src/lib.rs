//! STREAM and SPSP as state machines.
