//! Targets over `rialto-ccp`: none of them may panic on any bytes, and what a decoder accepts has to
//! survive its own encoder.

use rialto_ccp::{RouteControl, Update, UpdateBuilder};

/// The body of a target.
pub type Target = fn(&[u8]);

/// Each target by the name of its binary and of its corpus folder.
pub const TARGETS: &[(&str, Target)] = &[("ccp_control", ccp_control), ("ccp_update", ccp_update)];

/// A route control request.
pub fn ccp_control(bytes: &[u8]) {
    let Ok(control) = RouteControl::parse(bytes) else {
        return;
    };
    let canonical = control.encode();
    assert!(canonical.len() <= bytes.len(), "canonical is shortest");
    assert_eq!(RouteControl::parse(&canonical), Ok(control));
}

/// A route update request.
pub fn ccp_update(bytes: &[u8]) {
    let Ok(update) = Update::parse(bytes) else {
        return;
    };
    let canonical = encode(&update);
    assert!(canonical.len() <= bytes.len(), "canonical is shortest");
    let again = Update::parse(&canonical[..]).expect("the canonical form is valid");
    assert_eq!(again.head(), update.head());
    assert_eq!(again.speaker(), update.speaker());
    assert_eq!(encode(&again), canonical);
    let (mut one, mut two) = (update.routes(), again.routes());
    while let Some(route) = update.next_route(&mut one) {
        assert_eq!(route.hops().count(), route.path.count);
        assert_eq!(again.next_route(&mut two), Some(route));
    }
    let (mut one, mut two) = (update.withdrawn(), again.withdrawn());
    while let Some(prefix) = update.next_withdrawn(&mut one) {
        assert_eq!(again.next_withdrawn(&mut two), Some(prefix));
    }
    assert_eq!((one.left(), two.left()), (0, 0));
}

/// The same update, written by us.
pub fn encode<B: AsRef<[u8]>>(update: &Update<B>) -> Vec<u8> {
    let mut builder = UpdateBuilder::new();
    let mut routes = update.routes();
    while let Some(route) = update.next_route(&mut routes) {
        builder.route(None, &route);
    }
    let mut withdrawn = update.withdrawn();
    while let Some(prefix) = update.next_withdrawn(&mut withdrawn) {
        builder.withdraw(prefix);
    }
    builder.finish(update.head(), update.speaker())
}
