//! Properties of the codecs, for any fields and for any bytes.

use proptest::{collection::vec, prelude::*, sample::select};
use rialto_packet::{
    Addr, Address, DATA_BYTES_MAX, ErrorCode, Fulfill, FulfillBuilder, MESSAGE_BYTES_MAX,
    PACKET_BYTES_MAX, PacketError, PacketType, Prepare, PrepareBuilder, Reject, RejectBuilder,
    Reply, Timestamp,
    address::ADDRESS_BYTES_MAX,
    ildcp,
    money::Asset,
    oer::{self, OerError, Reader},
    packet_type,
};

#[path = "../../../fuzz/src/packet.rs"]
pub mod targets;

fn addresses() -> impl Strategy<Value = Address> {
    let schemes = [
        "g", "private", "example", "peer", "self", "test", "test1", "test2", "test3", "local",
    ];
    (select(schemes.to_vec()), vec("[A-Za-z0-9_~-]{1,40}", 1..20)).prop_map(|(scheme, segments)| {
        let text = format!("{scheme}.{}", segments.join("."));
        text.parse().expect("a valid address")
    })
}

fn timestamps() -> impl Strategy<Value = Timestamp> {
    (Timestamp::MIN.unix_ms()..=Timestamp::MAX.unix_ms()).prop_map(Timestamp::from_unix_ms)
}

/// Often near the lengths where a length determinant grows.
fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        7 => vec(any::<u8>(), 0..400),
        1 => select(vec![0, 127, 128, 255, 256, DATA_BYTES_MAX])
            .prop_flat_map(|length| vec(any::<u8>(), length)),
    ]
}

#[derive(Debug, Clone)]
struct PrepareFields {
    amount: u64,
    expires_at: Timestamp,
    condition: [u8; 32],
    destination: Address,
    data: Vec<u8>,
}

impl PrepareFields {
    fn encode(&self) -> Vec<u8> {
        PrepareBuilder {
            amount: self.amount,
            expires_at: self.expires_at,
            condition: self.condition,
            destination: self.destination.as_ref(),
            data: &self.data,
        }
        .encode()
        .expect("not too much data")
    }

    fn check(&self, prepare: &Prepare<impl AsRef<[u8]>>) {
        assert_eq!(prepare.amount(), self.amount);
        assert_eq!(prepare.expires_at(), self.expires_at);
        assert_eq!(prepare.condition(), self.condition);
        assert_eq!(prepare.destination(), self.destination.as_ref());
        assert_eq!(prepare.data(), self.data);
    }
}

fn prepares() -> impl Strategy<Value = PrepareFields> {
    (
        any::<u64>(),
        timestamps(),
        any::<[u8; 32]>(),
        addresses(),
        data(),
    )
        .prop_map(
            |(amount, expires_at, condition, destination, data)| PrepareFields {
                amount,
                expires_at,
                condition,
                destination,
                data,
            },
        )
}

fn fulfills() -> impl Strategy<Value = Vec<u8>> {
    (any::<[u8; 32]>(), data()).prop_map(|(fulfillment, data)| {
        let builder = FulfillBuilder {
            fulfillment,
            data: &data,
        };
        builder.encode().expect("not too much data")
    })
}

fn rejects() -> impl Strategy<Value = Vec<u8>> {
    let fields = (
        any::<[u8; 3]>(),
        proptest::option::of(addresses()),
        ".{0,200}",
        data(),
    );
    fields.prop_map(|(code, triggered_by, message, data)| {
        let builder = RejectBuilder {
            code: ErrorCode::from_bytes(code),
            triggered_by: triggered_by.as_ref().map(Address::as_ref),
            message: &message,
            data: &data,
        };
        builder.encode().expect("not too much data")
    })
}

/// The same packet as others may send it: a longer envelope length where that is tolerable, bytes
/// after the last field, bytes after the packet.
fn loosened(canonical: &[u8], zeros: usize, inside: &[u8], after: &[u8]) -> Vec<u8> {
    let content = Reader::new(&canonical[1..])
        .var_octets()
        .expect("an envelope");
    let content = [content, inside].concat();
    let mut length = Vec::new();
    oer::put_length(&mut length, content.len());
    if length.len() > 1 {
        let digits = length.split_off(1);
        length = vec![0x80 + u8::try_from(digits.len() + zeros).expect("at most 8")];
        length.extend(vec![0; zeros]);
        length.extend(digits);
    }
    [&canonical[..1], &length, &content, after].concat()
}

fn bytes_around() -> impl Strategy<Value = (usize, Vec<u8>, Vec<u8>)> {
    let few_bytes = || vec(any::<u8>(), 0..20);
    (0..=5_usize, few_bytes(), few_bytes())
}

proptest! {
    #[test]
    fn a_prepare_reads_as_it_was_written(fields in prepares(), around in bytes_around()) {
        let bytes = fields.encode();
        prop_assert!(bytes.len() <= PACKET_BYTES_MAX);
        fields.check(&Prepare::parse(&bytes)?);
        let loose = loosened(&bytes, around.0, &around.1, &around.2);
        fields.check(&Prepare::parse(loose)?);
    }

    #[test]
    fn patching_touches_amount_and_expiry_alone(
        fields in prepares(),
        around in bytes_around(),
        amount: u64,
        expires_at in timestamps(),
    ) {
        let original = loosened(&fields.encode(), around.0, &around.1, &around.2);
        let mut prepare = Prepare::parse(original.clone())?;
        prepare.set_amount(amount);
        prepare.set_expires_at(expires_at);
        PrepareFields { amount, expires_at, ..fields.clone() }.check(&prepare);

        // Written by hand rather than found through the reader: the condition follows both fields.
        let condition = original
            .windows(32)
            .position(|window| window == fields.condition)
            .expect("the condition stands in the packet");
        let mut expected = original;
        expected[condition - 25..condition - 17].copy_from_slice(&amount.to_be_bytes());
        expected[condition - 17..condition].copy_from_slice(&expires_at.to_bytes());
        prop_assert_eq!(prepare.into_inner(), expected);
    }

    #[test]
    fn replies_read_as_they_were_written(fulfill in fulfills(), reject in rejects()) {
        prop_assert!(Prepare::parse(&fulfill).is_err() && Prepare::parse(&reject).is_err());
        let Reply::Fulfill(read) = Reply::parse(&fulfill)? else { panic!("a fulfill") };
        let again = FulfillBuilder { fulfillment: read.fulfillment(), data: read.data() };
        prop_assert_eq!(again.encode()?, fulfill.as_slice());
        let Reply::Reject(read) = Reply::parse(&reject)? else { panic!("a reject") };
        let again = RejectBuilder {
            code: read.code(),
            triggered_by: read.triggered_by(),
            message: &read.message(),
            data: read.data(),
        };
        prop_assert_eq!(again.encode()?, reject.as_slice());
    }

    #[test]
    fn a_packet_cut_short_is_refused(
        prepare in prepares(),
        fulfill in fulfills(),
        reject in rejects(),
        at: proptest::sample::Index,
    ) {
        let prepare = prepare.encode();
        prop_assert!(Prepare::parse(&prepare[..at.index(prepare.len())]).is_err());
        prop_assert!(Fulfill::parse(&fulfill[..at.index(fulfill.len())]).is_err());
        prop_assert!(Reject::parse(&reject[..at.index(reject.len())]).is_err());
    }

    #[test]
    fn an_ildcp_response_reads_as_it_was_written(
        client_address in addresses(),
        scale: u8,
        code in ".{1,60}",
    ) {
        let asset = Asset::new(&code, scale)?;
        let response = ildcp::Response { client_address, asset };
        let bytes = response.encode();
        for cut in 0..bytes.len() {
            prop_assert!(ildcp::Response::parse(&bytes[..cut]).is_err());
        }
        prop_assert_eq!(ildcp::Response::parse(&bytes)?, response);
    }

    #[test]
    fn integers_have_one_shortest_form(value: u64, bits in 0..64_u32) {
        let value = value >> bits;
        let mut out = Vec::new();
        oer::put_var_uint(&mut out, value);
        let digits = value.to_be_bytes();
        let kept = digits.iter().position(|byte| *byte != 0).unwrap_or(7);
        prop_assert_eq!(usize::from(out[0]), 8 - kept);
        prop_assert_eq!(&out[1..], &digits[kept..]);
        prop_assert_eq!(out.len(), oer::var_uint_len(value));
        prop_assert_eq!(Reader::new(&out).var_uint(), Ok(value));
    }

    #[test]
    fn lengths_have_one_shortest_form(value: u64, bits in 0..64_u32) {
        let value = usize::try_from(value >> bits).expect("64 bits");
        let mut out = Vec::new();
        oer::put_length(&mut out, value);
        prop_assert_eq!(out.len(), oer::length_len(value));
        prop_assert_eq!(out.len() == 1, value < 128);
        prop_assert!(out.len() == 1 || out[1] != 0);
        prop_assert_eq!(Reader::new(&out).length(), Ok(value));
    }

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..300)) {
        for (_, target) in targets::TARGETS {
            target(&bytes);
        }
    }

    /// Bytes that are almost a packet get further into the decoders than noise.
    #[test]
    fn damaged_packets_are_survived(
        prepare in prepares(),
        fulfill in fulfills(),
        reject in rejects(),
        damage in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for mut bytes in [prepare.encode(), fulfill, reject] {
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            targets::prepare(&bytes);
            targets::fulfill(&bytes);
            targets::reject(&bytes);
        }
    }
}

#[test]
fn sizes_are_bounded_on_both_sides() {
    let largest = vec![7; DATA_BYTES_MAX];
    let too_long = vec![7; DATA_BYTES_MAX + 1];
    let refused = PacketError::DataTooLong(DATA_BYTES_MAX + 1);
    let longest_address = format!("g.{}", "a".repeat(ADDRESS_BYTES_MAX - 2));
    let address = Addr::new(&longest_address).unwrap();
    assert!(Addr::new(&format!("{longest_address}a")).is_err());

    let message = "é".repeat(MESSAGE_BYTES_MAX);
    let mut reject = RejectBuilder {
        code: ErrorCode::F00_BAD_REQUEST,
        triggered_by: Some(address),
        message: &message,
        data: &largest,
    };
    let bytes = reject.encode().unwrap();
    // One byte less than the most, as the message is cut between two characters.
    assert_eq!(bytes.len(), PACKET_BYTES_MAX - 1);
    assert_eq!(
        Reject::parse(&bytes).unwrap().message().len(),
        MESSAGE_BYTES_MAX - 1
    );
    reject.data = &too_long;
    assert_eq!(reject.encode(), Err(refused));

    let fulfill = FulfillBuilder {
        fulfillment: [0; 32],
        data: &too_long,
    };
    assert_eq!(fulfill.encode(), Err(refused));

    // What our encoders refuse to make, made by hand.
    let mut content = vec![0; 32];
    oer::put_var_octets(&mut content, &too_long);
    let mut bytes = vec![13];
    oer::put_var_octets(&mut bytes, &content);
    assert_eq!(Fulfill::parse(bytes), Err(refused));

    let mut content = b"F00\0".to_vec();
    oer::put_var_octets(&mut content, &[b'a'; MESSAGE_BYTES_MAX + 1]);
    oer::put_var_octets(&mut content, &[]);
    let mut bytes = vec![14];
    oer::put_var_octets(&mut bytes, &content);
    let refused = PacketError::MessageTooLong(MESSAGE_BYTES_MAX + 1);
    assert_eq!(Reject::parse(bytes), Err(refused));
}

#[test]
fn numbers_of_more_than_64_bits_saturate_only_where_asked() {
    let above = [9, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(
        Reader::new(&above).var_uint(),
        Err(OerError::IntegerTooLarge)
    );
    assert_eq!(Reader::new(&above).var_uint_saturating(), Ok(u64::MAX));
    // Nine bytes, but a small number.
    let padded = [9, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    assert_eq!(Reader::new(&padded).var_uint(), Ok(1));
    assert_eq!(Reader::new(&padded).var_uint_saturating(), Ok(1));
    assert_eq!(
        Reader::new(&[0]).var_uint_saturating(),
        Err(OerError::EmptyInteger)
    );
}

#[test]
fn nothing_at_all_is_not_a_reply() {
    let nothing = OerError::UnexpectedEnd { needed: 1, left: 0 };
    assert_eq!(Reply::parse([]), Err(PacketError::Oer(nothing)));
    assert_eq!(
        Reply::parse([12]),
        Err(PacketError::Type {
            expected: "fulfill or reject",
            found: 12
        })
    );
}

#[test]
fn the_first_byte_is_the_type() {
    let prepare = PrepareBuilder {
        amount: 1,
        expires_at: Timestamp::MAX,
        condition: [1; 32],
        destination: Addr::new("g.a").unwrap(),
        data: &[],
    };
    let mut bytes = prepare.encode().unwrap();
    for first in 0..=u8::MAX {
        bytes[0] = first;
        let known = [PacketType::Prepare, PacketType::Fulfill, PacketType::Reject]
            .into_iter()
            .find(|known| *known as u8 == first);
        assert_eq!(packet_type(&bytes), known);
        assert_eq!(Prepare::parse(&bytes).is_ok(), first == 12, "{first}");
        let wrong_type = |error| matches!(error, PacketError::Type { .. });
        assert_eq!(Fulfill::parse(&bytes).is_err_and(wrong_type), first != 13);
        assert_eq!(Reject::parse(&bytes).is_err_and(wrong_type), first != 14);
    }
    assert_eq!(packet_type(&[]), None);
}
