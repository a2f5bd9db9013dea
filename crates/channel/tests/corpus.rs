//! Replays the committed corpora of the fuzz targets over this crate.

#[path = "../../../fuzz/replay.rs"]
pub mod replay;
#[path = "../../../fuzz/src/channel.rs"]
pub mod targets;

#[test]
fn every_target_survives_its_corpus() {
    for (name, target) in targets::TARGETS {
        replay::replay(name, *target);
    }
}
