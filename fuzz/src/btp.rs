//! Targets over `rialto-btp`: none of them may panic on any bytes, and what a decoder accepts has to
//! survive its own encoder.

use rialto_btp::{
    BtpUri,
    frame::{
        Body, ERROR_DATA_BYTES_MAX, Entry, ErrorFields, Frame, NewError, put_error, put_message,
        put_response, put_transfer,
    },
};

/// The body of a target.
pub type Target = fn(&[u8]);

/// Each target by the name of its binary and of its corpus folder.
pub const TARGETS: &[(&str, Target)] = &[("btp_frame", btp_frame), ("btp_uri", btp_uri)];

/// What a body says besides its type.
fn parts<'a>(body: &Body<'a>) -> (Option<u64>, Option<ErrorFields<'a>>, Vec<Entry<'a>>) {
    match body {
        Body::Response(data) | Body::Message(data) => (None, None, data.iter().collect()),
        Body::Error(fields, data) => (None, Some(*fields), data.iter().collect()),
        Body::Transfer {
            amount,
            protocol_data,
        } => (Some(*amount), None, protocol_data.iter().collect()),
    }
}

/// One frame.
pub fn btp_frame(bytes: &[u8]) {
    let Ok(frame) = Frame::decode(bytes) else {
        return;
    };
    let id = frame.request_id;
    let (amount, error, entries) = parts(&frame.body);
    let mut out = Vec::new();
    let written = match frame.body {
        Body::Response(data) => {
            assert_eq!(data.primary(), entries.first().copied());
            put_response(&mut out, id, &entries)
        }
        Body::Message(data) => {
            for entry in &entries {
                assert_eq!(data.get(entry.name), Some(*entry), "names are distinct");
            }
            put_message(&mut out, id, &entries)
        }
        Body::Transfer { amount, .. } => put_transfer(&mut out, id, amount, &entries),
        Body::Error(fields, _) => {
            // A received error is taken as it comes; ours are stricter.
            let (Ok(name), Some(triggered_at), Ok(data)) = (
                std::str::from_utf8(fields.name),
                fields.triggered_at,
                std::str::from_utf8(fields.data),
            ) else {
                return;
            };
            if !name.is_ascii() || data.len() > ERROR_DATA_BYTES_MAX {
                return;
            }
            let error = NewError {
                code: fields.code,
                name,
                triggered_at,
                data,
            };
            put_error(&mut out, id, &error, &entries)
        }
    };
    assert_eq!(written, Ok(()), "what was read can be written");
    let again = Frame::decode(&out).expect("the canonical form is valid");
    assert_eq!(out[0], bytes[0], "the same type");
    assert_eq!(again.request_id, id);
    assert_eq!(parts(&again.body), (amount, error, entries));
}

/// A URI. The URL that is dialled is one too, and has no secret.
pub fn btp_uri(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let Ok(uri) = text.parse::<BtpUri>() else {
        return;
    };
    let url = uri.websocket_url();
    let dialled: BtpUri = url.parse().expect("a WebSocket URL is a BTP URI");
    let expected = BtpUri {
        username: String::new(),
        token: String::new(),
        ..uri
    };
    assert_eq!(dialled, expected, "{url}");
}
