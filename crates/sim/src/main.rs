//! Runs seeds, and says how to see one of them again.

use std::{
    fs,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use clap::Parser;
use rialto_sim::{
    Failure, MUTANT_SEEDS_MAX, Mutant, Options, Report, Tally, Topology, catch, run, run_bytes,
};

/// Simulates whole nodes, each run from one seed.
#[derive(Debug, Parser)]
struct Arguments {
    /// Run that many seeds.
    #[arg(long, value_name = "N", group = "what")]
    seeds: Option<u64>,
    /// The first of them.
    #[arg(long, value_name = "S", default_value_t = 1, requires = "seeds")]
    from: u64,
    /// Run one seed.
    #[arg(long, value_name = "S", group = "what")]
    seed: Option<u64>,
    /// Show what happens, a line per event.
    #[arg(long, conflicts_with_all = ["seeds", "mutants"])]
    trace: bool,
    /// Run what the bytes of a file decide, as a fuzzer's do.
    #[arg(long, value_name = "FILE", group = "what")]
    input: Option<PathBuf>,
    /// Put faults into the node, and count the seeds until each is caught.
    #[arg(long, group = "what")]
    mutants: bool,
    /// The network, where it is not for the seed to draw: line-N, ring-N, star-N or mesh-N.
    #[arg(long, value_name = "SHAPE-N", conflicts_with = "mutants")]
    topology: Option<Topology>,
    /// Nodes learn their routes from each other.
    #[arg(long, conflicts_with = "mutants")]
    learn: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        topology: arguments.topology,
        learn: arguments.learn,
        trace: arguments.trace,
        mutant: None,
    };
    if let Some(seed) = arguments.seed {
        return one(run(seed, &options));
    }
    if let Some(file) = arguments.input {
        return match fs::read(&file) {
            Ok(bytes) => one(run_bytes(&bytes, &options)),
            Err(error) => {
                eprintln!("{}: {error}", file.display());
                ExitCode::FAILURE
            }
        };
    }
    match arguments.mutants {
        true => mutants(),
        false => seeds(arguments.from, arguments.seeds.unwrap_or(SEEDS), options),
    }
}

/// What is run when nothing is asked for.
const SEEDS: u64 = 1_000;

fn one(ended: Result<Report, Box<Failure>>) -> ExitCode {
    match ended {
        Ok(report) => {
            println!("{report:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("{failure}");
    ExitCode::FAILURE
}

/// Each run has one thread; there are as many runs at a time as processors.
fn seeds(from: u64, count: u64, options: Options) -> ExitCode {
    let start = Instant::now();
    let (next, end) = (AtomicU64::new(from), from.saturating_add(count));
    let (total, failed) = (Mutex::new(Tally::default()), Mutex::new(None));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            match run(seed, &options) {
                Ok(report) => total.lock().expect("no holder panics").add(&report.tally),
                Err(failure) => {
                    next.store(end, Ordering::Relaxed);
                    let mut failed = failed.lock().expect("no holder panics");
                    failed.get_or_insert(failure);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    if let Some(failure) = failed.into_inner().expect("no holder panics") {
        return fail(&failure);
    }
    let total = total.into_inner().expect("no holder panics");
    println!(
        "{count} seeds from {from} passed in {:.1?}: {total:?}",
        start.elapsed()
    );
    ExitCode::SUCCESS
}

fn mutants() -> ExitCode {
    // What they break may show as a panic of the node, which is caught; its message is not news.
    std::panic::set_hook(Box::new(|_| {}));
    let mut code = ExitCode::SUCCESS;
    for mutant in Mutant::ALL {
        match catch(*mutant) {
            Some((seed, failure)) => {
                // What was noticed is enough; the packet at which it was is in the trace.
                let noticed: String = failure.message.chars().take(72).collect();
                println!("{:<24} {:>4} seeds: {noticed}", mutant.word(), seed);
            }
            None => {
                println!(
                    "{:<24} NOT caught within {MUTANT_SEEDS_MAX} seeds",
                    mutant.word()
                );
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
