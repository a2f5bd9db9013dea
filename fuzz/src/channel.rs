//! Targets over `rialto-channel`: none of them may panic on any bytes, and what a decoder accepts has
//! exactly one encoding.

use rialto_channel::{Frame, Statement, is_ours};

/// The body of a target.
pub type Target = fn(&[u8]);

/// Each target by the name of its binary and of its corpus folder.
pub const TARGETS: &[(&str, Target)] = &[
    ("channel_frame", channel_frame),
    ("channel_statement", channel_statement),
];

/// The data of a packet.
pub fn channel_frame(bytes: &[u8]) {
    if let Ok(frame) = Frame::parse(bytes) {
        assert!(is_ours(bytes), "a frame begins with the magic");
        assert_eq!(frame.encode(), bytes);
    }
}

/// A file that somebody shows.
pub fn channel_statement(bytes: &[u8]) {
    if let Ok(statement) = Statement::parse(bytes) {
        let verdict = statement.verify().is_ok();
        let again = Statement::parse(&statement.to_json()).expect("what we write we read");
        assert_eq!(again, statement);
        assert_eq!(again.verify().is_ok(), verdict);
    }
}
