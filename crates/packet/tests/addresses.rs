//! Prefixes on segment boundaries, and the table of error codes.

use rialto_packet::{
    Addr, Address, AddressError, ErrorClass, ErrorCode, Prefix,
    address::{ADDRESS_BYTES_MAX, is_segment},
};

#[test]
fn prefixes_match_on_segment_boundaries() {
    let address = Addr::new("g.acme.alice").unwrap();
    let rest = [
        ("", Some("g.acme.alice")),
        ("g", Some("acme.alice")),
        ("g.acme", Some("alice")),
        ("g.acme.alice", Some("")),
        ("g.ac", None),
        ("g.acme.alic", None),
        ("g.acme.alice.x", None),
        ("g.ACME", None),
        ("test", None),
    ];
    for (prefix, expected) in rest {
        assert_eq!(address.strip_prefix(prefix), expected, "{prefix}");
        assert_eq!(address.starts_with(prefix), expected.is_some(), "{prefix}");
    }
}

#[test]
fn a_prefix_is_an_address_a_scheme_or_everything() {
    let kept = [
        ("", ""),
        ("g", "g"),
        ("g.", "g"),
        ("test3", "test3"),
        ("g.a.b", "g.a.b"),
        ("g.a.", "g.a"),
    ];
    for (text, prefix) in kept {
        assert_eq!(text.parse::<Prefix>().unwrap().as_str(), prefix);
    }
    let refused = [
        (".", AddressError::Scheme),
        ("x", AddressError::Scheme),
        ("G", AddressError::Scheme),
        ("test4.a", AddressError::Scheme),
        ("g..", AddressError::Segment),
        ("g..a", AddressError::Segment),
        ("g.a b", AddressError::Segment),
        ("g.é", AddressError::Segment),
    ];
    for (text, error) in refused {
        assert_eq!(text.parse::<Prefix>(), Err(error), "{text}");
    }
}

#[test]
fn children_stay_addresses() {
    let node: Address = "g.acme".parse().unwrap();
    assert_eq!(node.child("a.b").unwrap().as_str(), "g.acme.a.b");
    for segments in ["", ".", "a.", "a b", "ä"] {
        assert_eq!(
            node.child(segments),
            Err(AddressError::Segment),
            "{segments}"
        );
        assert!(!is_segment(segments), "{segments}");
    }
    let room = ADDRESS_BYTES_MAX - "g.acme.".len();
    assert!(node.child(&"a".repeat(room)).is_ok());
    let too_long = node.child(&"a".repeat(room + 1));
    assert_eq!(too_long, Err(AddressError::TooLong));
    assert!(is_segment("A-Z_a~z-09"));
    assert!(!is_segment("a.b"), "two segments are not one");
}

#[test]
fn every_error_code_has_its_class_and_name() {
    assert_eq!(ErrorCode::ALL.len(), 21);
    for code in ErrorCode::ALL {
        let text = code.to_string();
        let class = match text.as_bytes()[0] {
            b'F' => ErrorClass::Final,
            b'T' => ErrorClass::Temporary,
            b'R' => ErrorClass::Relative,
            other => panic!("unknown class {other}"),
        };
        assert_eq!(code.class(), class, "{text}");
        assert_ne!(code.name(), "Unknown Error", "{text}");
        assert_eq!(ErrorCode::from_bytes(code.to_bytes()), *code);
        assert_eq!(format!("{code:?}"), format!("{text} {}", code.name()));
    }
    let foreign = ErrorCode::from_bytes([b'X', 0, 0xff]);
    assert_eq!(foreign.class(), ErrorClass::Final);
    assert_eq!(foreign.to_string(), r"X\x00\xff");
    assert_eq!(foreign.name(), "Unknown Error");
}
