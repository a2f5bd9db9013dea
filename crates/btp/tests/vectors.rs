//! The shared vectors, every one of them.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

use rialto_btp::{
    ErrorCode,
    frame::{
        Body, ContentType, Entry, Frame, FrameError, NewError, ProtocolData, put_error,
        put_message, put_response, put_transfer,
    },
};
use rialto_packet::{
    Timestamp,
    oer::{OerError, Reader},
};
use serde_json::{Value, json};

/// A frame in the words of the vectors.
fn describe(frame: &Frame<'_>) -> Value {
    let entries = |data: ProtocolData<'_>| -> Value {
        let describe = |entry: Entry<'_>| {
            json!({
                "protocol_name": entry.name,
                "content_type": entry.content_type.0,
                "data": hex::encode(entry.data),
            })
        };
        data.iter().map(describe).collect()
    };
    let mut fields = match frame.body {
        Body::Response(data) => json!({"type": "response", "protocol_data": entries(data)}),
        Body::Message(data) => json!({"type": "message", "protocol_data": entries(data)}),
        Body::Transfer {
            amount,
            protocol_data,
        } => json!({
            "type": "transfer",
            "amount": amount.to_string(),
            "protocol_data": entries(protocol_data),
        }),
        Body::Error(error, data) => json!({
            "type": "error",
            "code": error.code.to_string(),
            "error_name": error.name.escape_ascii().to_string(),
            "triggered_at": error.triggered_at.map(|time| time.to_string()),
            "error_data": hex::encode(error.data),
            "protocol_data": entries(data),
        }),
    };
    fields["request_id"] = frame.request_id.into();
    fields
}

/// The bytes of the frame that the vector's fields, not its bytes, describe. `None` when our types
/// cannot express a field.
fn encode(vector: &Value) -> Option<Vec<u8>> {
    let text = |field: &Value| field.as_str().unwrap().to_owned();
    let request_id = u32::try_from(vector["request_id"].as_u64()?).ok()?;
    let owned: Vec<(String, u64, Vec<u8>)> = vector["protocol_data"]
        .as_array()?
        .iter()
        .map(|entry| {
            (
                text(&entry["protocol_name"]),
                entry["content_type"].as_u64().unwrap(),
                hex::decode(text(&entry["data"])).unwrap(),
            )
        })
        .collect();
    let entries: Vec<Entry<'_>> = owned
        .iter()
        .map(|(name, content_type, data)| Entry {
            name,
            content_type: ContentType(u8::try_from(*content_type).unwrap()),
            data,
        })
        .collect();

    let mut out = Vec::new();
    match vector["type"].as_str()? {
        "message" => put_message(&mut out, request_id, &entries),
        "response" => put_response(&mut out, request_id, &entries),
        "transfer" => {
            let amount = text(&vector["amount"]).parse().ok()?;
            put_transfer(&mut out, request_id, amount, &entries)
        }
        "error" => {
            let digits: Vec<u8> = text(&vector["triggered_at"])
                .bytes()
                .filter(u8::is_ascii_digit)
                .collect();
            let error = NewError {
                code: ErrorCode::from_bytes(text(&vector["code"]).as_bytes().try_into().ok()?),
                name: &text(&vector["error_name"]),
                triggered_at: Timestamp::parse(digits.as_slice().try_into().unwrap()).unwrap(),
                data: &String::from_utf8(hex::decode(text(&vector["error_data"])).unwrap()).ok()?,
            };
            put_error(&mut out, request_id, &error, &entries)
        }
        unknown => panic!("unknown type {unknown}"),
    }
    .unwrap();
    Some(out)
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    canonical: usize,
    not_canonical: usize,
    refused: usize,
    left_to_us: usize,
    not_encodable: usize,
}

#[test]
fn every_vector() {
    let vectors: Value = serde_json::from_str(include_str!("../../../vectors/btp.json")).unwrap();
    let mut counts = Counts::default();
    for vector in vectors.as_array().unwrap() {
        let name = vector["name"].as_str().unwrap();
        if vector["op"] == "encode" {
            assert_eq!(encode(vector), None, "{name}");
            counts.not_encodable += 1;
            continue;
        }
        let bytes = hex::decode(vector["hex"].as_str().unwrap()).unwrap();
        let decoded = Frame::decode(&bytes);
        if vector["valid"] == true {
            let fields = describe(&decoded.expect(name));
            for (key, value) in fields.as_object().unwrap() {
                assert_eq!(value, &vector[key], "{name}: {key}");
            }
            if vector["canonical"] == false {
                counts.not_canonical += 1;
            } else {
                assert_eq!(encode(vector).as_deref(), Some(&*bytes), "{name}");
                counts.canonical += 1;
            }
        } else if vector["lenient"] == "implementation-defined" {
            check_our_choice(name, vector["error"].as_str().unwrap(), &bytes);
            counts.left_to_us += 1;
        } else {
            assert!(decoded.is_err(), "{name}");
            counts.refused += 1;
        }
    }
    let expected = Counts {
        canonical: 265,
        not_canonical: 6,
        refused: 143,
        left_to_us: 44,
        not_encodable: 5,
    };
    assert_eq!(counts, expected);
}

/// What we do where the vectors leave a choice.
fn check_our_choice(name: &str, error: &str, bytes: &[u8]) {
    let decoded = Frame::decode(bytes);
    let refusal = decoded.as_ref().err().map(|unreadable| unreadable.error);
    match error {
        // RFC 30: ignored.
        "trailing-bytes" => assert_eq!(refusal, None, "{name}"),
        // Lengths below 128 have one form.
        "non-canonical-length" => {
            assert_eq!(refusal, Some(FrameError::Oer(OerError::Length)), "{name}");
        }
        // Leading zeros of an integer do no harm; the length in front of them is a length.
        "non-canonical-count" => {
            let mut reader = Reader::new(&bytes[5..]);
            reader.length().unwrap();
            let expected = reader.length().err().map(FrameError::Oer);
            assert_eq!(refusal, expected, "{name}");
        }
        "duplicate-protocol-name" => {
            assert_eq!(refusal, Some(FrameError::DuplicateName), "{name}");
        }
        // The error is never hidden by the way it is written.
        "bad-timestamp" | "bad-code" => {
            let Body::Error(fields, _) = decoded.expect(name).body else {
                panic!("{name} is not an error");
            };
            let readable = name.ends_with("second 60") || error == "bad-code";
            assert_eq!(fields.triggered_at.is_some(), readable, "{name}");
        }
        unknown => panic!("no choice made about {unknown}"),
    }
}
