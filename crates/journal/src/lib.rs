//! The journal on disk: append, group sync, checkpoint, recover.
