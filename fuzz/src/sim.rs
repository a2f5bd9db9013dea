//! A target over `rialto-sim`: whatever the bytes decide, no invariant of the nodes breaks.

/// The body of a target.
pub type Target = fn(&[u8]);

/// Each target by the name of its binary and of its corpus folder.
pub const TARGETS: &[(&str, Target)] = &[("sim", sim)];

/// A network, its load and its faults.
pub fn sim(bytes: &[u8]) {
    let options = rialto_sim::Options::default();
    if let Err(failure) = rialto_sim::run_bytes(bytes, &options) {
        panic!("{failure}");
    }
}
