//! Runs every case of the vector files that concern this crate (conventions: `vectors/README.md`).

use std::{fmt::Debug, fs};

use base64::{Engine, engine::general_purpose::STANDARD};
use rialto_packet::{
    Addr, Address, ErrorCode, Fulfill, FulfillBuilder, PEER_CONDITION, PEER_FULFILLMENT,
    PacketType, Prepare, PrepareBuilder, Reject, RejectBuilder, Reply, Timestamp,
    f08::AmountTooLarge,
    ildcp,
    money::Asset,
    oer::{self, OerError, Reader},
    packet_type,
};
use serde_json::Value;

/// One case of a vector file.
struct Case(Value);

impl Case {
    fn find(&self, field: &str) -> Option<&str> {
        self.0[field].as_str()
    }

    fn text(&self, field: &str) -> &str {
        self.find(field)
            .unwrap_or_else(|| panic!("{}: no text {field}", self.0))
    }

    fn name(&self) -> &str {
        self.text("name")
    }

    fn bytes(&self, field: &str) -> Vec<u8> {
        hex::decode(self.text(field)).expect("hex")
    }

    fn base64(&self, field: &str) -> Vec<u8> {
        STANDARD.decode(self.text(field)).expect("base64")
    }

    /// An instant, `2024-01-02T03:04:05.678Z`.
    fn instant(&self, field: &str) -> Timestamp {
        let text = self.text(field);
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_digit).collect();
        let timestamp = Timestamp::parse(&digits.try_into().expect("17 digits")).expect("valid");
        assert_eq!(timestamp.to_string(), text);
        timestamp
    }
}

fn load(file: &str) -> Vec<Case> {
    let path = format!("{}/../../vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).expect("the vector file");
    let cases: Vec<Value> = serde_json::from_str(&text).expect("a JSON array");
    cases.into_iter().map(Case).collect()
}

/// How many cases of a file were run in which way. Together they are all cases of the file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ran {
    /// Read to the listed fields, and written again to the listed bytes.
    canonical: usize,
    /// Read to the listed fields; the canonical form is another.
    not_canonical: usize,
    /// Refused, as they must be.
    refused: usize,
    /// Either is tolerable and we accept.
    lenient_accepted: usize,
    /// Either is tolerable and we refuse.
    lenient_refused: usize,
    /// Cannot be written: the types or the encoder refuse the fields.
    not_encodable: usize,
    /// Well formed; the rule that refuses them is not one of this crate.
    left_to_the_node: usize,
}

/// How a kind of value is run.
struct Codec<T> {
    /// Reads the bytes of a case.
    decode: fn(&Case, &[u8]) -> Option<T>,
    /// The listed fields, unless the types cannot express them.
    fields: fn(&Case) -> Option<T>,
    /// Writes the fields, unless the encoder refuses them.
    encode: fn(&T) -> Option<Vec<u8>>,
    /// Names of cases for [`Ran::left_to_the_node`].
    left_to_the_node: &'static [&'static str],
}

fn run<T: Debug + PartialEq>(file: &str, codec: &Codec<T>) -> Ran {
    let mut ran = Ran::default();
    for case in load(file) {
        let name = case.name();
        let valid = case.0["valid"].as_bool().expect("every case has it");
        if case.find("op") == Some("encode") {
            let written = (codec.fields)(&case).and_then(|fields| (codec.encode)(&fields));
            assert_eq!(written, None, "{name}: must not be encodable");
            ran.not_encodable += 1;
            continue;
        }
        let bytes = case.bytes("hex");
        let decoded = (codec.decode)(&case, &bytes);
        if valid {
            let fields = (codec.fields)(&case).expect("the types express valid fields");
            assert_eq!(decoded.as_ref(), Some(&fields), "{name}: decoded");
            let written = (codec.encode)(&fields).expect("valid fields can be encoded");
            assert_eq!((codec.decode)(&case, &written), decoded, "{name}: again");
            if case.0["canonical"] == Value::Bool(false) {
                assert_ne!(written, bytes, "{name}: should not be canonical");
                ran.not_canonical += 1;
            } else {
                assert_eq!(hex::encode(written), case.text("hex"), "{name}: encoded");
                ran.canonical += 1;
            }
        } else if codec.left_to_the_node.contains(&name) {
            assert!(decoded.is_some(), "{name}: should be well formed");
            ran.left_to_the_node += 1;
        } else if case.find("lenient").is_some() {
            let accepted = decoded.is_some();
            let note = case.find("note").unwrap_or_default();
            assert!(
                accepted || !note.starts_with("recommended: accept"),
                "{name}"
            );
            *(if accepted {
                &mut ran.lenient_accepted
            } else {
                &mut ran.lenient_refused
            }) += 1;
        } else {
            assert_eq!(decoded, None, "{name}: must be refused");
            ran.refused += 1;
        }
    }
    ran
}

#[derive(Debug, PartialEq)]
enum OerValue {
    UInt8(u8),
    UInt16(u16),
    UInt32(u32),
    UInt64(u64),
    VarUInt(u64),
    Length(usize),
    VarOctetString(Vec<u8>),
}

fn oer_read(reader: &mut Reader<'_>, kind: &str) -> Result<OerValue, OerError> {
    Ok(match kind {
        "uint8" => OerValue::UInt8(reader.u8()?),
        "uint16" => OerValue::UInt16(reader.u16()?),
        "uint32" => OerValue::UInt32(reader.u32()?),
        "uint64" => OerValue::UInt64(reader.u64()?),
        "var_uint" => OerValue::VarUInt(reader.var_uint()?),
        "length_prefix" => OerValue::Length(reader.length()?),
        "var_octet_string" => OerValue::VarOctetString(reader.var_octets()?.to_vec()),
        kind => panic!("unknown kind {kind}"),
    })
}

#[test]
fn oer() {
    let codec = Codec {
        decode: |case, bytes| {
            let mut reader = Reader::new(bytes);
            let value = oer_read(&mut reader, case.text("kind")).ok()?;
            if let Some(consumed) = case.0["consumed"].as_u64() {
                assert_eq!(reader.position() as u64, consumed, "{}", case.name());
            }
            Some(value)
        },
        fields: |case| {
            let value = case.text("value");
            Some(match case.text("kind") {
                "uint8" => OerValue::UInt8(value.parse().ok()?),
                "uint16" => OerValue::UInt16(value.parse().ok()?),
                "uint32" => OerValue::UInt32(value.parse().ok()?),
                "uint64" => OerValue::UInt64(value.parse().ok()?),
                "var_uint" => OerValue::VarUInt(value.parse().ok()?),
                "length_prefix" => OerValue::Length(value.parse().ok()?),
                "var_octet_string" => OerValue::VarOctetString(case.bytes("value")),
                kind => panic!("unknown kind {kind}"),
            })
        },
        encode: |value| {
            let mut out = Vec::new();
            match value {
                OerValue::UInt8(value) => out.push(*value),
                OerValue::UInt16(value) => out.extend(value.to_be_bytes()),
                OerValue::UInt32(value) => out.extend(value.to_be_bytes()),
                OerValue::UInt64(value) => out.extend(value.to_be_bytes()),
                OerValue::VarUInt(value) => oer::put_var_uint(&mut out, *value),
                OerValue::Length(value) => oer::put_length(&mut out, *value),
                OerValue::VarOctetString(value) => oer::put_var_octets(&mut out, value),
            }
            Some(out)
        },
        left_to_the_node: &[],
    };
    assert_eq!(
        run("oer.json", &codec),
        Ran {
            canonical: 188,
            not_canonical: 16,
            refused: 97,
            lenient_accepted: 44,
            lenient_refused: 40,
            not_encodable: 3,
            left_to_the_node: 0,
        }
    );
}

#[test]
fn addresses() {
    let codec = Codec {
        decode: |case, bytes| {
            let address = Addr::from_bytes(bytes).ok();
            let by_text: Option<Address> = case.text("address").parse().ok();
            assert_eq!(address.map(Addr::to_owned), by_text, "{}", case.name());
            address.map(|address| (address.to_string(), address.scheme().to_owned()))
        },
        fields: |case| Some((case.text("address").into(), case.text("scheme").into())),
        encode: |(address, _)| Some(address.clone().into_bytes()),
        left_to_the_node: &[],
    };
    assert_eq!(
        run("ilp_address.json", &codec),
        Ran {
            canonical: 96,
            refused: 101,
            ..Ran::default()
        }
    );
}

#[derive(Debug, PartialEq)]
enum Packet {
    Prepare {
        amount: u64,
        expires_at: Timestamp,
        condition: [u8; 32],
        destination: String,
        data: Vec<u8>,
    },
    Fulfill {
        fulfillment: [u8; 32],
        data: Vec<u8>,
    },
    Reject {
        code: ErrorCode,
        triggered_by: String,
        message: String,
        data: Vec<u8>,
    },
}

impl Packet {
    fn decode(bytes: &[u8]) -> Option<Self> {
        if packet_type(bytes) == Some(PacketType::Prepare) {
            return Prepare::parse(bytes).ok().map(|prepare| Self::Prepare {
                amount: prepare.amount(),
                expires_at: prepare.expires_at(),
                condition: prepare.condition(),
                destination: prepare.destination().to_string(),
                data: prepare.data().to_vec(),
            });
        }
        Some(match Reply::parse(bytes).ok()? {
            Reply::Fulfill(fulfill) => Self::Fulfill {
                fulfillment: fulfill.fulfillment(),
                data: fulfill.data().to_vec(),
            },
            Reply::Reject(reject) => Self::Reject {
                code: reject.code(),
                triggered_by: reject.triggered_by().map_or("", Addr::as_str).to_owned(),
                message: reject.message().into_owned(),
                data: reject.data().to_vec(),
            },
        })
    }

    fn encode(&self) -> Option<Vec<u8>> {
        match self {
            Self::Prepare {
                amount,
                expires_at,
                condition,
                destination,
                data,
            } => PrepareBuilder {
                amount: *amount,
                expires_at: *expires_at,
                condition: *condition,
                destination: Addr::new(destination).ok()?,
                data,
            }
            .encode(),
            Self::Fulfill { fulfillment, data } => FulfillBuilder {
                fulfillment: *fulfillment,
                data,
            }
            .encode(),
            Self::Reject {
                code,
                triggered_by,
                message,
                data,
            } => RejectBuilder {
                code: *code,
                triggered_by: match triggered_by.as_str() {
                    "" => None,
                    address => Some(Addr::new(address).ok()?),
                },
                message,
                data,
            }
            .encode(),
        }
        .ok()
    }
}

#[test]
fn packets() {
    let codec = Codec {
        decode: |_, bytes| Packet::decode(bytes),
        fields: |case| {
            let data = case.bytes("data");
            Some(match case.text("type") {
                "prepare" => Packet::Prepare {
                    amount: case.text("amount").parse().ok()?,
                    expires_at: case.instant("expires_at"),
                    condition: case.bytes("condition").try_into().ok()?,
                    destination: case.text("destination").into(),
                    data,
                },
                "fulfill" => Packet::Fulfill {
                    fulfillment: case.bytes("fulfillment").try_into().ok()?,
                    data,
                },
                "reject" => Packet::Reject {
                    code: ErrorCode::from_bytes(case.text("code").as_bytes().try_into().ok()?),
                    triggered_by: case.text("triggered_by").into(),
                    message: case.text("message").into(),
                    data,
                },
                other => panic!("unknown type {other}"),
            })
        },
        encode: Packet::encode,
        left_to_the_node: &[],
    };
    assert_eq!(
        run("ilp_packet.json", &codec),
        Ran {
            canonical: 277,
            not_canonical: 4,
            refused: 211,
            lenient_accepted: 16,
            lenient_refused: 14,
            not_encodable: 9,
            left_to_the_node: 0,
        }
    );
}

#[test]
fn packet_examples_of_the_javascript_project() {
    let cases = load("interledgerjs_ilp_packet_examples.json");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let json = Case(case.0["json"].clone());
        let data = json.base64("data");
        let packet = match case.text("type") {
            "prepare" => Packet::Prepare {
                amount: json.text("amount").parse().expect("an amount"),
                expires_at: json.instant("expiresAt"),
                condition: json.base64("executionCondition").try_into().expect("32"),
                destination: json.text("destination").into(),
                data,
            },
            "fulfill" => Packet::Fulfill {
                fulfillment: json.base64("fulfillment").try_into().expect("32"),
                data,
            },
            "reject" => Packet::Reject {
                code: ErrorCode::F01_INVALID_PACKET,
                triggered_by: json.text("triggeredBy").into(),
                message: json.text("message").into(),
                data,
            },
            other => panic!("unknown type {other}"),
        };
        let bytes = case.bytes("binary");
        assert_eq!(Packet::decode(&bytes), Some(packet), "{}", case.0);
        let again = Packet::decode(&bytes).and_then(|packet| packet.encode());
        assert_eq!(again, Some(bytes), "{}", case.0);
    }
}

#[test]
fn f08_data() {
    let codec = Codec {
        decode: |case, bytes| {
            let data = AmountTooLarge::parse(bytes);
            if let Some(sent) = case.find("sent_amount") {
                let max = data.and_then(|data| data.sent_amount_max(sent.parse().ok()?));
                let expected = case.find("new_max").map(|max| max.parse().expect("u64"));
                assert_eq!(max, expected, "{}", case.name());
            }
            data
        },
        fields: |case| {
            Some(AmountTooLarge {
                received_amount: case.text("received_amount").parse().ok()?,
                maximum_amount: case.text("maximum_amount").parse().ok()?,
            })
        },
        encode: |data| Some(data.to_bytes().to_vec()),
        left_to_the_node: &[],
    };
    assert_eq!(
        run("f08_data.json", &codec),
        Ran {
            canonical: 74,
            not_canonical: 4,
            refused: 9,
            not_encodable: 1,
            ..Ran::default()
        }
    );
}

#[derive(Debug, PartialEq)]
enum Ildcp {
    Request {
        expires_at: Timestamp,
        data: Vec<u8>,
    },
    Response(ildcp::Response),
}

#[test]
fn ildcp_exchanges() {
    let codec = Codec {
        decode: |case, bytes| match case.text("kind") {
            "request" => Prepare::parse(bytes).ok().map(|prepare| Ildcp::Request {
                expires_at: prepare.expires_at(),
                data: prepare.data().to_vec(),
            }),
            "response" => {
                let fulfill = Fulfill::parse(bytes).ok()?;
                let response = ildcp::Response::parse(fulfill.data()).ok();
                if let Some(payload) = case.find("payload") {
                    let payload = hex::decode(payload).expect("hex");
                    let same = ildcp::Response::parse(&payload).ok();
                    assert_eq!(same, response, "{}", case.name());
                }
                response.map(Ildcp::Response)
            }
            other => panic!("unknown kind {other}"),
        },
        fields: |case| {
            Some(match case.text("kind") {
                "request" => Ildcp::Request {
                    expires_at: case.instant("expires_at"),
                    data: case.bytes("data"),
                },
                "response" => {
                    let scale = case.0["asset_scale"].as_u64()?;
                    Ildcp::Response(ildcp::Response {
                        client_address: case.text("client_address").parse().ok()?,
                        asset: Asset::new(case.text("asset_code"), scale.try_into().ok()?).ok()?,
                    })
                }
                other => panic!("unknown kind {other}"),
            })
        },
        encode: |ildcp| match ildcp {
            // Our own requests carry no data; a server ignores that of others.
            Ildcp::Request { expires_at, data } if data.is_empty() => {
                Some(ildcp::request(*expires_at))
            }
            Ildcp::Request { expires_at, data } => PrepareBuilder {
                amount: 0,
                expires_at: *expires_at,
                condition: PEER_CONDITION,
                destination: Addr::new(ildcp::DESTINATION).ok()?,
                data,
            }
            .encode()
            .ok(),
            Ildcp::Response(response) => FulfillBuilder {
                fulfillment: PEER_FULFILLMENT,
                data: &response.encode(),
            }
            .encode()
            .ok(),
        },
        // The node that answers checks these of any `peer.*` packet, the one that asks checks the
        // fulfillment of any reply and whether it wants the address.
        left_to_the_node: &[
            "fixed: request wrong condition",
            "fixed: request zero condition",
            "fixed: request destination peer.config.x",
            "fixed: request expired 1 ms ago",
            "fixed: request expiring right now",
            "fixed: request amount 1000",
            "response with random fulfillment 0",
            "response with random fulfillment 1",
            "response with random fulfillment 2",
        ],
    };
    assert_eq!(
        run("ildcp.json", &codec),
        Ran {
            canonical: 111,
            not_canonical: 3,
            refused: 39,
            lenient_accepted: 1,
            lenient_refused: 3,
            not_encodable: 0,
            left_to_the_node: 9,
        }
    );
}

#[test]
fn a_message_that_is_not_text_is_read_all_the_same() {
    let mut bytes = vec![0x0e, 9];
    bytes.extend(b"F00\x00\x03a\xffb\x00");
    let reject = Reject::parse(bytes.as_slice()).unwrap();
    assert_eq!(reject.message(), "a\u{fffd}b");
    assert_eq!(reject.triggered_by(), None);
}
