//! What holds for all frames and all bytes.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use proptest::{collection, prelude::*};
use rialto_btp::{
    BtpUri, ErrorCode,
    frame::{
        Body, ContentType, Entry, Frame, NewError, ProtocolData, put_error, put_message,
        put_response, put_transfer,
    },
    session::{Event, Session, Settings},
};
use rialto_packet::Timestamp;

#[derive(Debug, Clone)]
struct OwnedEntry(String, u8, Vec<u8>);

impl OwnedEntry {
    fn borrow(&self) -> Entry<'_> {
        Entry {
            name: &self.0,
            content_type: ContentType(self.1),
            data: &self.2,
        }
    }
}

/// Entries whose names differ.
fn entries() -> impl Strategy<Value = Vec<OwnedEntry>> {
    let entry = (
        "ilp|auth|auth_token|auth_username|[ -~]{0,9}",
        any::<u8>(),
        collection::vec(any::<u8>(), 0..300),
    );
    collection::vec(entry, 0..6).prop_map(|entries| {
        let mut distinct: Vec<OwnedEntry> = Vec::new();
        for (name, content_type, data) in entries {
            if distinct.iter().all(|entry| entry.0 != name) {
                distinct.push(OwnedEntry(name, content_type, data));
            }
        }
        distinct
    })
}

fn protocol_data<'a>(body: &Body<'a>) -> ProtocolData<'a> {
    match *body {
        Body::Response(data) | Body::Message(data) | Body::Error(_, data) => data,
        Body::Transfer { protocol_data, .. } => protocol_data,
    }
}

/// Writes a decoded frame again; `None` if it has parts that we never write.
fn rewrite(frame: &Frame<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let entries: Vec<_> = protocol_data(&frame.body).iter().collect();
    match frame.body {
        Body::Response(_) => put_response(&mut out, frame.request_id, &entries),
        Body::Message(_) => put_message(&mut out, frame.request_id, &entries),
        Body::Transfer { amount, .. } => put_transfer(&mut out, frame.request_id, amount, &entries),
        Body::Error(fields, _) => {
            let error = NewError {
                code: fields.code,
                name: std::str::from_utf8(fields.name).ok()?,
                triggered_at: fields.triggered_at?,
                data: std::str::from_utf8(fields.data).ok()?,
            };
            put_error(&mut out, frame.request_id, &error, &entries)
        }
    }
    .ok()?;
    Some(out)
}

/// A frame of any type, with its bytes.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let error = (any::<[u8; 3]>(), "[ -~]{0,9}", "\\PC{0,9}");
    let time = Timestamp::MIN.unix_ms()..=Timestamp::MAX.unix_ms();
    let fields = (0..4, any::<u32>(), any::<u64>(), error, time, entries());
    fields.prop_map(
        |(frame_type, request_id, amount, (code, name, data), time, entries)| {
            let entries: Vec<_> = entries.iter().map(OwnedEntry::borrow).collect();
            let mut out = Vec::new();
            match frame_type {
                0 => put_response(&mut out, request_id, &entries),
                1 => put_message(&mut out, request_id, &entries),
                2 => put_transfer(&mut out, request_id, amount, &entries),
                _ => {
                    let error = NewError {
                        code: ErrorCode::from_bytes(code),
                        name: &name,
                        triggered_at: Timestamp::from_unix_ms(time),
                        data: &data,
                    };
                    put_error(&mut out, request_id, &error, &entries)
                }
            }
            .unwrap();
            out
        },
    )
}

/// Bytes that get past the header more often than random ones would.
fn almost_frames() -> impl Strategy<Value = Vec<u8>> {
    let mutated = (frames(), any::<prop::sample::Index>(), any::<u8>(), 0..3).prop_map(
        |(mut bytes, index, byte, how)| {
            let index = index.index(bytes.len());
            match how {
                0 => bytes[index] = byte,
                1 => bytes.truncate(index),
                _ => bytes.insert(index, byte),
            }
            bytes
        },
    );
    prop_oneof![collection::vec(any::<u8>(), 0..64), mutated, frames()]
}

fn session(established: bool) -> Session {
    let wall = Timestamp::from_unix_ms(0);
    let mut out = Vec::new();
    let mut server = Session::server(Settings::default(), 0, wall, None);
    if established {
        let mut auth = Vec::new();
        Session::client(Settings::default(), 0, wall, "", "shh", &mut auth);
        server.handle_frame(0, &auth, &mut out);
        server.accept(0, &mut out).unwrap();
    }
    server
}

proptest! {
    #[test]
    fn what_was_written_is_read(request_id: u32, entries in entries()) {
        let entries: Vec<_> = entries.iter().map(OwnedEntry::borrow).collect();
        let mut out = Vec::new();
        put_message(&mut out, request_id, &entries).unwrap();
        let frame = Frame::decode(&out).unwrap();
        prop_assert_eq!(frame.request_id, request_id);
        let read: Vec<_> = protocol_data(&frame.body).iter().collect();
        prop_assert_eq!(read, entries);
    }

    #[test]
    fn one_frame_has_one_form(bytes in frames()) {
        prop_assert_eq!(rewrite(&Frame::decode(&bytes).unwrap()), Some(bytes));
    }

    #[test]
    fn a_frame_cut_short_is_no_frame(bytes in frames(), cut: prop::sample::Index) {
        prop_assert!(Frame::decode(&bytes[..cut.index(bytes.len())]).is_err());
    }

    #[test]
    fn any_bytes_read_the_same_after_being_written(bytes in almost_frames()) {
        if let Ok(frame) = Frame::decode(&bytes)
            && let Some(once) = rewrite(&frame)
        {
            prop_assert_eq!(rewrite(&Frame::decode(&once).unwrap()), Some(once));
        }
    }

    #[test]
    fn a_session_answers_any_bytes_with_at_most_one_frame(
        established: bool,
        inputs in collection::vec(almost_frames(), 0..12),
    ) {
        let mut session = session(established);
        for bytes in inputs {
            let mut out = Vec::new();
            let event = session.handle_frame(1, &bytes, &mut out);
            if let Event::Prepare { ilp, .. } | Event::Reply { ilp, .. } = event {
                prop_assert!((12..=14).contains(&bytes[ilp][0]));
            }
            if !out.is_empty() {
                let answer = Frame::decode(&out).unwrap();
                prop_assert_eq!(answer.request_id.to_be_bytes(), &bytes[1..5]);
                prop_assert_eq!(rewrite(&answer), Some(out));
            }
        }
    }

    #[test]
    fn a_websocket_url_is_its_own_uri(text in r"(ws|wss)://([a-z.]{1,9}|\[::1\]):[1-9][0-9]{0,3}/[a-z@:?=]{0,9}") {
        let uri: BtpUri = text.parse().unwrap();
        prop_assert_eq!(uri.websocket_url(), text);
    }

    #[test]
    fn no_text_breaks_the_uri_reader(text in "((btp[+])?wss?://)?\\PC{0,30}") {
        let _: Result<BtpUri, _> = text.parse();
    }
}
