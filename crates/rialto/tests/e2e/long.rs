//! Long payments through three nodes: they complete, every time, in bounded memory.

use std::time::Duration;

use serde_json::Value;

use crate::{harness::Line, raw::SlowPath};

fn assert_complete(payment: &Value, sent: &str, delivered: &str) {
    assert_eq!(payment["state"], "completed", "{payment}");
    assert_eq!(payment["sent"]["amount"], sent);
    assert_eq!(payment["delivered"]["amount"], delivered);
}

#[test]
fn ten_thousand_packets_complete_ten_times_out_of_ten() {
    let line = Line::start("2", |address| address);
    for round in 0..10 {
        let payment = line.pay(&format!("round-{round}"), 10_000_000, Some(1_000));
        // 1,000 units of USD/9 are a millionth, and buy two millionths of a EUR: 2 units of EUR/6.
        assert_complete(&payment, "10000000", "20000");
    }
    line.assert_agreed();
    assert_eq!(line.bob.balance("shop"), 200_000);
    println!(
        "reliability: payments | 10 payments of 10000 packets each over three nodes, BTP and HTTP | 10 \
         complete, books agree"
    );
}

#[test]
fn they_complete_as_well_with_ten_milliseconds_of_delay() {
    let path = std::sync::Mutex::new(None);
    let line = Line::start("2", |bob| {
        let slow = SlowPath::start(bob, Duration::from_millis(10));
        let address = slow.address;
        *path.lock().unwrap() = Some(slow);
        address
    });
    for round in 0..10 {
        let payment = line.pay(&format!("round-{round}"), 10_000_000, Some(1_000));
        assert_complete(&payment, "10000000", "20000");
    }
    line.assert_agreed();
    println!(
        "reliability: payments | 10 payments of 10000 packets each, 10 ms of delay on the way | 10 \
         complete, books agree"
    );
}

#[test]
fn a_hundred_thousand_packets_stay_under_a_hundred_mebibytes() {
    let line = Line::start("2", |address| address);
    let payment = line.pay("long", 100_000_000, Some(1_000));
    assert_complete(&payment, "100000000", "200000");
    line.assert_agreed();
    let mut most = 0;
    for node in [&line.alice, &line.hub, &line.bob] {
        let kib = node.memory_kib();
        assert!(kib < 100 * 1024, "{}: {kib} KiB", node.name);
        most = most.max(kib);
    }
    println!(
        "reliability: payments | a payment of 100000 packets over three nodes | complete; at most {} MiB \
         of memory, 100 allowed",
        most.div_ceil(1024)
    );
}
