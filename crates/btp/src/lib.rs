//! BTP 2.0 frames and one session as a state machine.
