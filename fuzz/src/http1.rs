//! Targets over the HTTP/1.1 of `rialto-links`: none of them may panic on any bytes, and where a
//! message ends must not depend on the pieces it comes in.

use rialto_links::http1::{self, Chunks, ChunksState, HEAD_BYTES_MAX, RequestHead};

/// The body of a target.
pub type Target = fn(&[u8]);

/// Each target by the name of its binary and of its corpus folder.
pub const TARGETS: &[(&str, Target)] = &[
    ("http_request", http_request),
    ("http_response", http_response),
    ("http_chunks", http_chunks),
];

/// Most bytes that chunks may hold here.
const CHUNKS_MAX: usize = 64;

/// The head of a request.
pub fn http_request(bytes: &[u8]) {
    let Ok(Some(RequestHead::Narrow(request))) = http1::request(bytes) else {
        return;
    };
    let head = &bytes[..request.head_len];
    assert!(head.ends_with(b"\r\n\r\n"));
    assert!(head.len() <= HEAD_BYTES_MAX);
    // Whoever takes line feeds for ends of lines sees the same lines, and one end.
    let lines = || head.split(|byte| *byte == b'\n');
    let is_whole = |line: &[u8]| line.ends_with(b"\r");
    assert!(lines().rev().skip(1).all(is_whole));
    let text = head.to_ascii_lowercase();
    let has = |name: &[u8]| {
        let count = text.windows(name.len()).filter(|at| *at == name);
        count.count()
    };
    assert!(has(b"\ntransfer-encoding:") == 0 && has(b"\ncontent-length:") <= 1);
    assert!(!request.path.contains(['?', '#', ' ']));
    let alone = http1::request(head);
    assert_eq!(alone, Ok(Some(RequestHead::Narrow(request))));
    for len in 0..head.len() {
        assert_eq!(http1::request(&head[..len]), Ok(None), "{len}");
    }
}

/// The head of a response.
pub fn http_response(bytes: &[u8]) {
    let Ok(Some(response)) = http1::response(bytes) else {
        return;
    };
    let head = &bytes[..response.head_len];
    assert!(head.len() <= HEAD_BYTES_MAX);
    let alone = http1::response(head);
    assert_eq!(alone, Ok(Some(response)));
    for len in 0..head.len() {
        assert_eq!(http1::response(&head[..len]), Ok(None), "{len}");
    }
}

/// A body in chunks.
pub fn http_chunks(bytes: &[u8]) {
    let whole = Chunks::default().read(bytes, CHUNKS_MAX);
    let mut in_pieces = Chunks::default();
    let mut found = in_pieces.read(&[], CHUNKS_MAX);
    for len in 1..=bytes.len() {
        if found != Ok(ChunksState::Partial) {
            break;
        }
        found = in_pieces.read(&bytes[..len], CHUNKS_MAX);
    }
    assert_eq!(found, whole);
    if let Ok(ChunksState::Complete { body, len }) = whole {
        assert!(body.len() <= CHUNKS_MAX && len <= bytes.len());
    }
}
