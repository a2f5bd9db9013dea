//! Targets over `rialto-packet`: none of them may panic on any bytes, and what a decoder accepts has
//! to survive its own encoder.

use rialto_packet::{
    Addr, Address, Fulfill, FulfillBuilder, MESSAGE_BYTES_MAX, Prefix, Prepare, PrepareBuilder,
    Reject, RejectBuilder, Reply, Timestamp,
    f08::AmountTooLarge,
    ildcp,
    money::{Asset, Conversion, Ratio},
    oer::{self, OerError, Reader},
};

/// The body of a target.
pub type Target = fn(&[u8]);

/// Each target by the name of its binary and of its corpus folder.
pub const TARGETS: &[(&str, Target)] = &[
    ("oer", oer),
    ("address", address),
    ("timestamp", timestamp),
    ("prepare", prepare),
    ("fulfill", fulfill),
    ("reject", reject),
    ("f08", f08),
    ("ildcp", ildcp),
    ("decimal", decimal),
];

/// OER values one after the other; the byte before each says what it is read as.
pub fn oer(bytes: &[u8]) {
    let mut reader = Reader::new(bytes);
    while let Ok(kind) = reader.u8() {
        if oer_value(&mut reader, kind).is_err() {
            break;
        }
    }
    assert_eq!(reader.position() + reader.rest().len(), bytes.len());
}

fn oer_value(reader: &mut Reader<'_>, kind: u8) -> Result<(), OerError> {
    let start = reader.position();
    let mut canonical = Vec::new();
    match kind % 8 {
        0 => canonical.push(reader.u8()?),
        1 => canonical.extend(reader.u16()?.to_be_bytes()),
        2 => canonical.extend(reader.u32()?.to_be_bytes()),
        3 => canonical.extend(reader.u64()?.to_be_bytes()),
        4 => {
            let length = reader.length()?;
            oer::put_length(&mut canonical, length);
            assert_eq!(canonical.len(), oer::length_len(length));
            assert_eq!(Reader::new(&canonical).length(), Ok(length));
        }
        5 => {
            let octets = reader.var_octets()?;
            oer::put_var_octets(&mut canonical, octets);
            assert_eq!(Reader::new(&canonical).var_octets(), Ok(octets));
        }
        6 => {
            let mut saturating = *reader;
            let value = reader.var_uint()?;
            assert_eq!(saturating.var_uint_saturating(), Ok(value));
            oer::put_var_uint(&mut canonical, value);
            assert_eq!(canonical.len(), oer::var_uint_len(value));
            assert_eq!(Reader::new(&canonical).var_uint(), Ok(value));
        }
        _ => oer::put_var_uint(&mut canonical, reader.var_uint_saturating()?),
    }
    let consumed = reader.position() - start;
    assert!((1..=consumed).contains(&canonical.len()), "shortest");
    Ok(())
}

/// An address, and the same bytes as a prefix.
pub fn address(bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    if let Ok(prefix) = text.parse::<Prefix>() {
        assert_eq!(prefix.as_str().parse(), Ok(prefix.clone()));
    }
    let Ok(address) = Addr::from_bytes(bytes) else {
        assert!(text.parse::<Address>().is_err());
        return;
    };
    assert_eq!(address.as_str().as_bytes(), bytes);
    assert_eq!(address.strip_prefix(address.as_str()), Some(""));
    let rest = address.strip_prefix(address.scheme());
    assert_eq!(
        rest.map(str::len),
        Some(bytes.len() - address.scheme().len() - 1)
    );
    let prefix: Prefix = address.as_str().parse().expect("an address is a prefix");
    assert_eq!(prefix, Prefix::from(&address.to_owned()));
}

/// The first 17 bytes as an instant.
pub fn timestamp(bytes: &[u8]) {
    let Some(digits) = bytes.first_chunk() else {
        return;
    };
    let Ok(timestamp) = Timestamp::parse(digits) else {
        return;
    };
    assert_eq!(&timestamp.to_bytes(), digits);
    assert!((Timestamp::MIN..=Timestamp::MAX).contains(&timestamp));
    assert_eq!(Timestamp::from_unix_ms(timestamp.unix_ms()), timestamp);
    assert_eq!(timestamp.to_string().len(), 24);
}

/// A Prepare, read, made again, and patched in place.
pub fn prepare(bytes: &[u8]) {
    let Ok(mut packet) = Prepare::parse(bytes.to_vec()) else {
        return;
    };
    let fields = |packet: &Prepare<&[u8]>| {
        (
            packet.amount(),
            packet.expires_at(),
            packet.condition(),
            packet.destination().to_owned(),
            packet.data().to_vec(),
        )
    };
    let original = Prepare::parse(bytes).expect("the same bytes");
    let canonical = PrepareBuilder {
        amount: packet.amount(),
        expires_at: packet.expires_at(),
        condition: packet.condition(),
        destination: packet.destination(),
        data: packet.data(),
    }
    .encode()
    .expect("what was read can be written");
    assert!(canonical.len() <= bytes.len(), "canonical is shortest");
    let again = Prepare::parse(canonical.as_slice()).expect("the canonical form is valid");
    assert_eq!(fields(&again), fields(&original));

    let mut length = Reader::new(&bytes[1..]);
    length.length().expect("the envelope was read");
    let content = 1 + length.position();
    packet.set_amount(!original.amount());
    packet.set_expires_at(Timestamp::MAX);
    assert_eq!(packet.amount(), !original.amount());
    assert_eq!(packet.expires_at(), Timestamp::MAX);
    let patched = packet.as_bytes();
    assert_eq!(patched[..content], bytes[..content]);
    assert_eq!(patched[content + 25..], bytes[content + 25..]);
    assert!(Prepare::parse(patched).is_ok());
    packet.set_amount(original.amount());
    packet.set_expires_at(original.expires_at());
    assert_eq!(packet.into_inner(), bytes);
}

/// A Fulfill.
pub fn fulfill(bytes: &[u8]) {
    let Ok(packet) = Fulfill::parse(bytes) else {
        assert!(!matches!(Reply::parse(bytes), Ok(Reply::Fulfill(_))));
        return;
    };
    assert_eq!(Reply::parse(bytes), Ok(Reply::Fulfill(packet)));
    let canonical = FulfillBuilder {
        fulfillment: packet.fulfillment(),
        data: packet.data(),
    }
    .encode()
    .expect("what was read can be written");
    assert!(canonical.len() <= bytes.len(), "canonical is shortest");
    let again = Fulfill::parse(canonical.as_slice()).expect("the canonical form is valid");
    assert_eq!(again.fulfillment(), packet.fulfillment());
    assert_eq!(again.data(), packet.data());
}

/// A Reject.
pub fn reject(bytes: &[u8]) {
    let Ok(packet) = Reject::parse(bytes) else {
        assert!(!matches!(Reply::parse(bytes), Ok(Reply::Reject(_))));
        return;
    };
    assert_eq!(Reply::parse(bytes), Ok(Reply::Reject(packet)));
    let code = packet.code();
    assert!(!format!("{code} {code:?} {:?}", code.class()).is_empty());
    let message = packet.message();
    let canonical = RejectBuilder {
        code,
        triggered_by: packet.triggered_by(),
        message: &message,
        data: packet.data(),
    }
    .encode()
    .expect("what was read can be written");
    let again = Reject::parse(canonical.as_slice()).expect("the canonical form is valid");
    assert_eq!(again.code(), code);
    assert_eq!(again.triggered_by(), packet.triggered_by());
    assert_eq!(again.data(), packet.data());
    // Replacement characters can be longer than the bytes they stand for.
    if message.len() <= MESSAGE_BYTES_MAX {
        assert_eq!(again.message(), message);
    } else {
        assert!(message.starts_with(&*again.message()));
    }
}

/// The data of an F08 Reject; what follows is the amount that was sent.
pub fn f08(bytes: &[u8]) {
    let Some(data) = AmountTooLarge::parse(bytes) else {
        assert!(bytes.len() < 16);
        return;
    };
    assert_eq!(data.to_bytes(), bytes[..16]);
    let sent = Reader::new(&bytes[16..]).u64().unwrap_or(u64::MAX);
    match data.sent_amount_max(sent) {
        Some(max) => assert!(max <= sent && data.received_amount > data.maximum_amount),
        None => assert!(data.received_amount <= data.maximum_amount),
    }
}

/// The data of an ILDCP response.
pub fn ildcp(bytes: &[u8]) {
    let Ok(response) = ildcp::Response::parse(bytes) else {
        return;
    };
    let canonical = response.encode();
    assert!(canonical.len() <= bytes.len(), "canonical is shortest");
    assert_eq!(ildcp::Response::parse(&canonical), Ok(response));
}

/// Text as a rate, as an asset, and as an amount of an asset whose scale is the first byte.
pub fn decimal(bytes: &[u8]) {
    let Some((scale, text)) = bytes.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let asset = Asset::new("XYZ", *scale).expect("a valid code");
    if let Some(units) = asset.units(text) {
        let shown = asset.decimal(units.into());
        assert_eq!(asset.units(&shown), Some(units), "{text} shown as {shown}");
    }
    if let Ok(named) = text.parse::<Asset>() {
        assert_eq!(named.to_string().parse(), Ok(named));
    }
    if let Ok(rate) = text.parse::<Ratio>() {
        let shown: Ratio = rate.to_string().parse().expect("a rate shows as a rate");
        assert!(shown <= rate, "cut, never rounded up");
        let unscaled = Asset::new("ABC", 0).expect("a valid code");
        let conversion = Conversion::between(&unscaled, &asset, &rate);
        let source_max = conversion.largest_source(1000);
        assert!(
            conversion
                .round_down(source_max)
                .is_ok_and(|out| out <= 1000)
        );
    }
}
