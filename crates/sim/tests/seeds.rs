//! Seeds that pass, and faults of the node's own that do not.

use rialto_sim::{Mutant, Options, Tally, catch, run};

const SEEDS: u64 = 300;

#[test]
fn every_seed_passes() {
    let mut total = Tally::default();
    for seed in 1..=SEEDS {
        match run(seed, &Options::default()) {
            Ok(report) => total.add(&report.tally),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{SEEDS} seeds: {total:?}");
    // What the bounds are for happens: value is lost to power cuts, and answers to lost connections.
    assert!(total.lost > 0 && total.lost_of_cap > 0, "{total:?}");
    assert!(total.forgotten > 0 && total.undelivered > 0, "{total:?}");
}

#[test]
fn fifty_nodes_of_every_shape_pass() {
    for shape in ["line-50", "ring-50", "star-50", "mesh-50"] {
        let options = Options {
            topology: Some(shape.parse().expect("it is a topology")),
            ..Options::default()
        };
        let report = run(1, &options).unwrap_or_else(|failure| panic!("{failure}"));
        assert!(report.tally.hops > 50, "{shape}: {report:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let run = |seed| run(seed, &Options::default()).expect("the seed passes");
    for seed in [1, 2, 3, 1_000_000] {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(1).trace_hash, run(2).trace_hash);
}

#[test]
fn every_mutant_is_caught() {
    for mutant in Mutant::ALL {
        let caught = catch(*mutant);
        let failure = caught.unwrap_or_else(|| panic!("{} is not caught", mutant.word()));
        println!("{} is caught by seed {}", mutant.word(), failure.seed);
    }
}
