//! The shared test vectors, made with the JavaScript implementation.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic like tests")]

#[path = "../../../fuzz/src/ccp.rs"]
pub mod targets;

use rialto_ccp::{
    CONTROL_DESTINATION, MessageError, Mode, Route, RouteControl, TableId, UPDATE_DESTINATION,
    Unchecked, Update, UpdateBuilder, UpdateHead,
    message::{AUTH_BYTES, List, hops},
};
use rialto_packet::{Fulfill, PEER_CONDITION, PEER_FULFILLMENT, Prepare, oer::Reader};
use serde_json::{Value, json};

#[test]
fn the_vectors() {
    let vectors = include_str!("../../../vectors/ccp.json");
    let vectors: Vec<Value> = serde_json::from_str(vectors).unwrap();
    let (mut read, mut refused) = (0, 0);
    for vector in &vectors {
        let name = vector["name"].as_str().unwrap();
        // What the node checks for every packet to `peer.*` is not the codec's matter.
        let is_nodes = matches!(
            vector["error"].as_str(),
            Some("wrong-condition" | "expired" | "non-zero-amount")
        );
        let decoded = match vector["kind"].as_str().unwrap() {
            "control_request" => control(vector),
            "update_request" => update(vector),
            "response" => response(vector),
            other => panic!("{other} is unknown"),
        };
        if vector["valid"] == true {
            let decoded = decoded.unwrap_or_else(|| panic!("{name} was refused"));
            for (field, value) in decoded.as_object().unwrap() {
                assert_eq!(&vector[field], value, "{name}: {field}");
            }
            read += 1;
        } else if vector.get("lenient").is_none() && !is_nodes {
            assert_eq!(decoded, None, "{name} was read");
            refused += 1;
        }
    }
    assert_eq!((read, refused), (217, 107));
}

const PART_BYTES: usize = 1_000;

/// An update that is checked in parts, and how many they were.
fn check_in_parts(bytes: &[u8]) -> (usize, Result<Update<&[u8]>, MessageError>) {
    let mut update = Unchecked::new(bytes).unwrap();
    let mut parts = 1;
    loop {
        match update.check(PART_BYTES) {
            Ok(None) => parts += 1,
            Ok(Some(update)) => return (parts, Ok(update)),
            Err(error) => return (parts, Err(error)),
        }
    }
}

/// Somebody else may have work in between.
#[test]
fn a_long_update_is_checked_in_parts() {
    let mut builder = UpdateBuilder::new();
    let none = List {
        count: 0,
        bytes: &[],
    };
    for number in 0..100 {
        let route = Route {
            prefix: &format!("g.n{number}"),
            path: none,
            auth: [0; AUTH_BYTES],
            properties: none,
        };
        builder.route(None, &route);
        builder.withdraw(&format!("g.gone{number}"));
    }
    let head = UpdateHead {
        table_id: TableId([1; 16]),
        current_epoch: 1,
        from_epoch: 0,
        to_epoch: 1,
        hold_down_ms: 45_000,
    };
    let bytes = builder.finish(&head, "g.speaker");
    let (parts, update) = check_in_parts(&bytes);
    let update = update.unwrap();
    assert_eq!(parts, bytes.len().div_ceil(PART_BYTES));
    assert_eq!(
        (update.routes().left(), update.withdrawn().left()),
        (100, 100)
    );
    let (mut routes, mut withdrawn) = (update.routes(), update.withdrawn());
    for number in 0..100 {
        let route = update.next_route(&mut routes).unwrap();
        assert_eq!(route.prefix, format!("g.n{number}"));
        let prefix = update.next_withdrawn(&mut withdrawn).unwrap();
        assert_eq!(prefix, format!("g.gone{number}"));
    }
    let (parts_cut, cut) = check_in_parts(&bytes[..bytes.len() - 1]);
    assert!(cut.is_err());
    assert_eq!(parts_cut, parts, "the last part is the bad one");
}

fn payload(vector: &Value, destination: &str) -> Option<Vec<u8>> {
    let bytes = hex::decode(vector["hex"].as_str().unwrap()).unwrap();
    let packet = Prepare::parse(&bytes[..]).ok()?;
    if packet.destination().as_str() != destination {
        return None;
    }
    assert!(packet.condition() == PEER_CONDITION || vector["valid"] == false);
    Some(packet.data().to_vec())
}

fn is_canonical(vector: &Value) -> bool {
    vector["valid"] == true && vector.get("canonical").is_none()
}

fn control(vector: &Value) -> Option<Value> {
    let data = payload(vector, CONTROL_DESTINATION)?;
    let control = RouteControl::parse(&data).ok()?;
    if is_canonical(vector) {
        assert_eq!(hex::encode(control.encode()), vector["payload"]);
    }
    let features = control.features.into_iter();
    let features: Option<Vec<_>> = features.map(|word| String::from_utf8(word).ok()).collect();
    Some(json!({
        "mode": match control.mode { Mode::Idle => 0, Mode::Sync => 1 },
        "last_known_routing_table_id": control.table_id.to_string(),
        "last_known_epoch": control.epoch,
        "features": features?,
    }))
}

fn update(vector: &Value) -> Option<Value> {
    let data = payload(vector, UPDATE_DESTINATION)?;
    let update = Update::parse(&data[..]).ok()?;
    if is_canonical(vector) {
        assert_eq!(hex::encode(targets::encode(&update)), vector["payload"]);
    }
    let (head, mut routes, mut withdrawn) = (update.head(), update.routes(), update.withdrawn());
    let routes = std::iter::from_fn(|| update.next_route(&mut routes)).map(|route| {
        json!({
            "prefix": route.prefix,
            "path": hops(route.path.bytes).collect::<Vec<_>>(),
            "auth": hex::encode(route.auth),
            "props": properties(route.properties),
        })
    });
    let withdrawn = std::iter::from_fn(|| update.next_withdrawn(&mut withdrawn));
    Some(json!({
        "routing_table_id": head.table_id.to_string(),
        "current_epoch_index": head.current_epoch,
        "from_epoch_index": head.from_epoch,
        "to_epoch_index": head.to_epoch,
        "hold_down_time": head.hold_down_ms,
        "speaker": update.speaker(),
        "new_routes": routes.collect::<Vec<_>>(),
        "withdrawn_routes": withdrawn.collect::<Vec<_>>(),
    }))
}

fn properties(list: List<'_>) -> Vec<Value> {
    let mut reader = Reader::new(list.bytes);
    let one = |_| {
        let (meta, id) = (reader.u8().unwrap(), reader.u16().unwrap());
        let value = reader.var_octets().unwrap();
        json!({
            "is_optional": meta & 0x80 != 0,
            "is_transitive": meta & 0x40 != 0,
            "is_partial": meta & 0x20 != 0,
            "is_utf8": meta & 0x10 != 0,
            "id": id,
            "value": hex::encode(value),
        })
    };
    (0..list.count).map(one).collect()
}

fn response(vector: &Value) -> Option<Value> {
    let bytes = hex::decode(vector["hex"].as_str().unwrap()).unwrap();
    let fulfill = Fulfill::parse(&bytes[..]).ok()?;
    (fulfill.fulfillment() == PEER_FULFILLMENT).then(|| json!({}))
}
