//! Runs seeds: `rialto-sim --seeds N [--from S]`, `--seed S [--trace]`, `--mutants`.

use std::{
    env,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use rialto_sim::{Failure, MUTANT_SEEDS_MAX, Mutant, Options, Tally, catch, position, run};

const USAGE: &str = "usage: rialto-sim --seeds N [--from S]    run N seeds, from 1 or S on
       rialto-sim --seed S [--trace]     run one, and show what happens
       rialto-sim --mutants              put faults into the node and count the seeds until each is caught
";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().ok();
    // A release build cannot catch a panic, so it says first where it happened.
    let hook = std::panic::take_hook();
    if !cfg!(panic = "unwind") {
        std::panic::set_hook(Box::new(move |info| {
            let (seed, step) = position();
            eprintln!("seed {seed} step {step}:");
            hook(info);
        }));
    }
    match arguments[..] {
        ["--seeds", count] => number(count).map(|count| seeds(1, count)),
        ["--seeds", count, "--from", from] => number(count)
            .zip(number(from))
            .map(|(count, from)| seeds(from, count)),
        ["--seed", seed] => number(seed).map(|seed| one(seed, false)),
        ["--seed", seed, "--trace"] => number(seed).map(|seed| one(seed, true)),
        ["--mutants"] => Some(mutants()),
        _ => None,
    }
    .unwrap_or_else(|| {
        eprint!("{USAGE}");
        ExitCode::from(2)
    })
}

fn one(seed: u64, trace: bool) -> ExitCode {
    let options = Options {
        trace,
        mutant: None,
    };
    match run(seed, &options) {
        Ok(report) => {
            println!("seed {seed}: {report:?}");
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
fn seeds(from: u64, count: u64) -> ExitCode {
    let start = Instant::now();
    let (next, end) = (AtomicU64::new(from), from.saturating_add(count));
    let (total, failed) = (Mutex::new(Tally::default()), Mutex::new(None));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            match run(seed, &Options::default()) {
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
            Some(failure) => println!(
                "{:<26} caught by seed {}: {}",
                mutant.word(),
                failure.seed,
                failure.message
            ),
            None => {
                println!(
                    "{:<26} NOT caught by {MUTANT_SEEDS_MAX} seeds",
                    mutant.word()
                );
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
