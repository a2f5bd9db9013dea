//! The shared vectors; see `vectors/README.md`. Every case is counted, so that none is skipped.

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use rialto_packet::{PacketType, Prepare, Reply};
use serde_json::Value;

use crate::{
    crypto::{Keys, condition, hmac_sha256},
    packet::{CloseCode, Frame, Packet, PacketBuilder},
    receipt::{Receipt, ReceiptSecret},
};

fn cases(json: &str) -> Vec<Value> {
    serde_json::from_str(json).unwrap()
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field} of {case}"))
}

fn number(case: &Value, field: &str) -> u64 {
    text(case, field).parse().unwrap()
}

fn bytes(case: &Value, field: &str) -> Vec<u8> {
    hex::decode(text(case, field)).unwrap()
}

fn array<const N: usize>(case: &Value, field: &str) -> [u8; N] {
    bytes(case, field).try_into().unwrap()
}

fn packet_type(number: &Value) -> PacketType {
    match number.as_u64() {
        Some(12) => PacketType::Prepare,
        Some(13) => PacketType::Fulfill,
        Some(14) => PacketType::Reject,
        _ => panic!("{number}"),
    }
}

/// `name` gives the spelling of a field, `octets` reads bytes.
fn frame<'a>(
    case: &'a Value,
    name: fn(&'static str, &'static str) -> &'static str,
    octets: fn(&str) -> Vec<u8>,
) -> Frame<'a> {
    let uint =
        |snake: &'static str, camel: &'static str| -> u64 { number(case, name(snake, camel)) };
    let octets = |field: &str| -> &'static [u8] { octets(text(case, field)).leak() };
    let close_code = || {
        let code = case[name("error_code", "errorCode")].as_u64().unwrap();
        CloseCode(code.try_into().unwrap())
    };
    let stream_id = || uint("stream_id", "streamId");
    let max_offset = || uint("max_offset", "maxOffset");
    let error_message = text_or_empty(case, name("error_message", "errorMessage"));
    match text(case, "name") {
        "ConnectionClose" => Frame::ConnectionClose {
            error_code: close_code(),
            error_message,
        },
        "ConnectionNewAddress" => Frame::ConnectionNewAddress {
            source_account: text(case, name("source_account", "sourceAccount")),
        },
        "ConnectionMaxData" => Frame::ConnectionMaxData {
            max_offset: max_offset(),
        },
        "ConnectionDataBlocked" => Frame::ConnectionDataBlocked {
            max_offset: max_offset(),
        },
        "ConnectionMaxStreamId" => Frame::ConnectionMaxStreamId {
            max_stream_id: uint("max_stream_id", "maxStreamId"),
        },
        "ConnectionStreamIdBlocked" => Frame::ConnectionStreamIdBlocked {
            max_stream_id: uint("max_stream_id", "maxStreamId"),
        },
        "ConnectionAssetDetails" => Frame::ConnectionAssetDetails {
            source_asset_code: text(case, name("source_asset_code", "sourceAssetCode")),
            source_asset_scale: case[name("source_asset_scale", "sourceAssetScale")]
                .as_u64()
                .unwrap()
                .try_into()
                .unwrap(),
        },
        "StreamClose" => Frame::StreamClose {
            stream_id: stream_id(),
            error_code: close_code(),
            error_message,
        },
        "StreamMoney" => Frame::StreamMoney {
            stream_id: stream_id(),
            shares: uint("shares", "shares"),
        },
        "StreamMaxMoney" => Frame::StreamMaxMoney {
            stream_id: stream_id(),
            receive_max: uint("receive_max", "receiveMax"),
            total_received: uint("total_received", "totalReceived"),
        },
        "StreamMoneyBlocked" => Frame::StreamMoneyBlocked {
            stream_id: stream_id(),
            send_max: uint("send_max", "sendMax"),
            total_sent: uint("total_sent", "totalSent"),
        },
        "StreamData" => Frame::StreamData {
            stream_id: stream_id(),
            offset: uint("offset", "offset"),
            data: octets("data"),
        },
        "StreamMaxData" => Frame::StreamMaxData {
            stream_id: stream_id(),
            max_offset: max_offset(),
        },
        "StreamDataBlocked" => Frame::StreamDataBlocked {
            stream_id: stream_id(),
            max_offset: max_offset(),
        },
        "StreamReceipt" => Frame::StreamReceipt {
            stream_id: stream_id(),
            receipt: octets("receipt"),
        },
        other => panic!("{other}"),
    }
}

fn text_or_empty<'a>(case: &'a Value, field: &str) -> &'a str {
    case[field].as_str().unwrap_or_default()
}

/// What a packet of the vectors must read as.
fn expected(case: &Value) -> (PacketBuilder<'static>, Vec<Frame<'_>>) {
    let frames = case["frames"].as_array().unwrap();
    let frames = frames
        .iter()
        .map(|it| frame(it, |snake, _| snake, |text| hex::decode(text).unwrap()))
        .collect();
    let fields = PacketBuilder {
        packet_type: packet_type(&case["ilp_packet_type"]),
        sequence: number(case, "sequence"),
        prepare_amount: number(case, "prepare_amount"),
        frames: &[],
    };
    (fields, frames)
}

fn assert_reads_as(plaintext: &[u8], fields: PacketBuilder<'_>, frames: &[Frame<'_>], name: &str) {
    let packet = Packet::parse(plaintext).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(packet.packet_type, fields.packet_type, "{name}");
    assert_eq!(packet.sequence, fields.sequence, "{name}");
    assert_eq!(packet.prepare_amount, fields.prepare_amount, "{name}");
    let read: Result<Vec<_>, _> = packet.frames().collect();
    assert_eq!(read.as_deref(), Ok(frames), "{name}");
}

#[test]
fn stream_packets() {
    let (mut canonical, mut readable, mut refused, mut lenient) = (0, 0, 0, 0);
    for case in cases(include_str!("../../../vectors/stream_packet.json")) {
        let name = text(&case, "name");
        let plaintext = bytes(&case, "hex");
        if case["valid"] == true {
            let (fields, frames) = expected(&case);
            assert_reads_as(&plaintext, fields, &frames, name);
            if case["canonical"] == false {
                readable += 1;
            } else {
                let built = PacketBuilder {
                    frames: &frames,
                    ..fields
                };
                assert_eq!(built.encode(), plaintext, "{name}");
                canonical += 1;
            }
        } else {
            let read = Packet::parse(&plaintext)
                .and_then(|packet| packet.frames().collect::<Result<Vec<_>, _>>());
            if case["lenient"].is_string() {
                lenient += 1;
            } else {
                assert!(read.is_err(), "{name}: {read:?}");
                refused += 1;
            }
        }
    }
    assert_eq!((canonical, readable, refused, lenient), (246, 16, 68, 50));
}

#[test]
fn stream_packets_of_the_javascript_project() {
    let fixtures: serde_json::Map<String, Value> = serde_json::from_str(include_str!(
        "../../../vectors/interledgerjs_stream_packets.json"
    ))
    .unwrap();
    let mut decode_only = 0;
    for (name, case) in &fixtures {
        let packet = &case["packet"];
        let plaintext = BASE64_STANDARD.decode(text(case, "buffer")).unwrap();
        let frames = packet["frames"].as_array().unwrap();
        let frames: Vec<_> = frames
            .iter()
            .map(|it| {
                let octets = |text: &str| BASE64_STANDARD.decode(text).unwrap();
                frame(it, |_, camel| camel, octets)
            })
            .collect();
        let fields = PacketBuilder {
            packet_type: packet_type(&packet["packetType"]),
            sequence: number(packet, "sequence"),
            prepare_amount: number(packet, "amount"),
            frames: &frames,
        };
        assert_reads_as(&plaintext, fields, &frames, name);
        if case["decode_only"] == true {
            decode_only += 1;
        } else {
            assert_eq!(fields.encode(), plaintext, "{name}");
        }
    }
    assert_eq!((fixtures.len(), decode_only), (53, 2));
}

#[test]
fn stream_crypto() {
    let mut counts = std::collections::BTreeMap::new();
    for case in cases(include_str!("../../../vectors/stream_crypto.json")) {
        let name = text(&case, "name");
        let kind = text(&case, "kind");
        *counts.entry(kind.to_owned()).or_insert(0) += 1;
        let keys = case["shared_secret"]
            .as_str()
            .map(|secret| Keys::new(&hex::decode(secret).unwrap()));
        match (kind, keys) {
            ("keys", Some(_)) => {
                let secret = bytes(&case, "shared_secret");
                assert_eq!(
                    hmac_sha256(&secret, b"ilp_stream_encryption"),
                    array(&case, "encryption_key"),
                    "{name}"
                );
                assert_eq!(
                    hmac_sha256(&secret, b"ilp_stream_fulfillment"),
                    array(&case, "fulfillment_key"),
                    "{name}"
                );
            }
            ("fulfillment", Some(keys)) => {
                let fulfillment = keys.fulfillment(&bytes(&case, "hex"));
                assert_eq!(fulfillment, array(&case, "fulfillment"), "{name}");
                assert_eq!(condition(&fulfillment), array(&case, "condition"), "{name}");
            }
            ("packet", Some(keys)) => {
                let data = bytes(&case, "hex");
                let mut plaintext = bytes(&case, "plaintext");
                if let Some(pad_to) = case["pad_to"].as_u64() {
                    plaintext.resize(usize::try_from(pad_to).unwrap() - 28, 0);
                }
                assert_eq!(
                    keys.seal_with(array(&case, "iv"), &plaintext),
                    data,
                    "{name}"
                );
                assert_eq!(keys.open(&data).as_ref(), Some(&plaintext), "{name}");
                let (fields, frames) = expected(&case["packet"]);
                assert_reads_as(&plaintext, fields, &frames, name);
                let fulfillment = keys.fulfillment(&data);
                assert_eq!(fulfillment, array(&case, "fulfillment"), "{name}");
                assert_eq!(condition(&fulfillment), array(&case, "condition"), "{name}");
            }
            ("raw_decrypt", Some(keys)) => {
                assert_eq!(
                    keys.open(&bytes(&case, "hex")),
                    Some(bytes(&case, "plaintext")),
                    "{name}"
                );
            }
            ("decrypt_invalid", Some(keys)) => {
                assert_eq!(keys.open(&bytes(&case, "hex")), None, "{name}");
            }
            ("receipt", None) => {
                let secret = ReceiptSecret::from_bytes(array(&case, "receipt_secret"));
                let receipt = Receipt {
                    nonce: array(&case, "receipt_nonce"),
                    stream_id: case["stream_id"].as_u64().unwrap().try_into().unwrap(),
                    total_received: number(&case, "total_received"),
                };
                let encoded = receipt.encode(&secret);
                assert_eq!(encoded.as_slice(), bytes(&case, "hex"), "{name}");
                assert_eq!(Receipt::verify(&encoded, &secret), Ok(receipt), "{name}");
            }
            ("receipt_invalid", None) => {
                let secret = ReceiptSecret::from_bytes(array(&case, "receipt_secret"));
                assert!(
                    Receipt::verify(&bytes(&case, "hex"), &secret).is_err(),
                    "{name}"
                );
            }
            ("exchange", Some(keys)) => exchange(&case, &keys),
            // How other servers make their tokens; ours are our own, the secret comes about alike.
            ("token_reference_server" | "token_stateless_receiver", Some(_)) => {
                let token = bytes(&case, "hex");
                assert_eq!(
                    BASE64_URL_SAFE_NO_PAD.encode(&token),
                    text(&case, "token"),
                    "{name}"
                );
                assert_eq!(
                    secret_of_token(&case),
                    array(&case, "shared_secret"),
                    "{name}"
                );
            }
            ("shared_secret_from_token", Some(_)) => {
                assert_eq!(
                    secret_of_token(&case),
                    array(&case, "shared_secret"),
                    "{name}"
                );
            }
            (kind, _) => panic!("{kind}"),
        }
    }
    let counts: Vec<_> = counts
        .iter()
        .map(|(kind, count)| (kind.as_str(), *count))
        .collect();
    assert_eq!(
        counts,
        [
            ("decrypt_invalid", 34),
            ("exchange", 15),
            ("fulfillment", 40),
            ("keys", 42),
            ("packet", 68),
            ("raw_decrypt", 11),
            ("receipt", 45),
            ("receipt_invalid", 16),
            ("shared_secret_from_token", 12),
            ("token_reference_server", 12),
            ("token_stateless_receiver", 12),
        ]
    );
}

fn secret_of_token(case: &Value) -> [u8; 32] {
    let generator = hmac_sha256(&bytes(case, "server_secret"), b"ilp_stream_shared_secret");
    hmac_sha256(&generator, &bytes(case, "hex"))
}

/// A Prepare to a receiver of another implementation, and what it answered.
fn exchange(case: &Value, keys: &Keys) {
    let name = text(case, "name");
    let prepare = Prepare::parse(bytes(case, "hex")).unwrap();
    let reply = Reply::parse(bytes(case, "reply_hex")).unwrap();
    let readable = text(case, "scenario") != "undecryptable";
    let plaintext = keys.open(prepare.data());
    assert_eq!(plaintext.is_some(), readable, "{name}");
    if let Some(plaintext) = plaintext {
        let (fields, frames) = expected(&case["request_packet"]);
        assert_reads_as(&plaintext, fields, &frames, name);
    }
    let data = match &reply {
        Reply::Fulfill(fulfill) => {
            assert_eq!(fulfill.fulfillment(), keys.fulfillment(prepare.data()));
            fulfill.data()
        }
        Reply::Reject(reject) => {
            assert_eq!(reject.code().to_string(), text(case, "reply_code"));
            reject.data()
        }
    };
    if case["reply_packet"].is_null() {
        assert!(data.is_empty(), "{name}");
    } else {
        let (fields, frames) = expected(&case["reply_packet"]);
        assert_reads_as(&keys.open(data).unwrap(), fields, &frames, name);
    }
}
