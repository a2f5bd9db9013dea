//! A shop that sells letters one by one for streamed money, and a customer who pays as they arrive.
//!
//! ```text
//!   customer ── HTTP: letter n, please ──▶ shop
//!      │ pay                                │ what was paid?
//!      ▼                                    ▼
//!   customer's node ══ ILP over BTP ══▶ shop's node
//!         └───────── settlement ─────────┘
//! ```
//!
//! Shop, customer, the two nodes and the bank are processes, and none of them knows how the nodes settle:
//! that is in `account.toml`, `asymmetrical.toml` and `symmetrical.toml`, and nowhere else.

mod bank;
mod customer;
mod http;
mod process;
mod run;
mod shop;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use serde::Serialize;

/// Anything that ends one of the programs, in words.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Debug, Parser)]
#[command(about = "Sells letters for streamed money, once for each way to settle")]
struct Args {
    /// Print one object with all runs, and nothing else, to the standard output
    #[arg(long)]
    json: bool,
    /// Letters to buy in each run
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    letters: u32,
    /// Files that say how to settle, instead of the three of this example
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    #[command(subcommand)]
    program: Option<Program>,
}

/// What the example starts itself, each as a process.
#[derive(Debug, Subcommand)]
enum Program {
    /// A node, as `rialto run`
    #[command(hide = true)]
    Node { config: PathBuf },
    /// The shop
    #[command(hide = true)]
    Shop(http::NodeArgs),
    /// The customer
    #[command(hide = true)]
    Customer(customer::CustomerArgs),
    /// The bank that both nodes settle through
    #[command(hide = true)]
    Bank(bank::BankArgs),
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    runs: Vec<run::Run>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match &args.program {
        None => runtime().and_then(|runtime| runtime.block_on(all(&args))),
        Some(program) => {
            process::exit_when_stdin_closes();
            match program {
                Program::Node { config } => node(config),
                Program::Shop(node) => runtime().and_then(|r| r.block_on(shop::serve(node))),
                Program::Customer(args) => runtime().and_then(|r| r.block_on(customer::buy(args))),
                Program::Bank(args) => runtime().and_then(|r| r.block_on(bank::serve(args))),
            }
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("letter-shop: {error}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    Ok(builder.enable_all().build()?)
}

fn node(config: &std::path::Path) -> Result<()> {
    let loaded = rialto_node::config::load(config, &[])?;
    Ok(rialto_node::run(loaded, &[])?)
}

async fn all(args: &Args) -> Result<()> {
    let configurations = if args.config.is_empty() {
        run::Configuration::of_the_example()?
    } else {
        let read = args
            .config
            .iter()
            .map(|path| run::Configuration::read(path));
        read.collect::<Result<_>>()?
    };
    let mut report = Report { runs: Vec::new() };
    for configuration in &configurations {
        eprintln!("{}:", configuration.settlement);
        let run = run::run(configuration, args.letters).await?;
        if !args.json {
            println!(
                "{:<13} {:>5} letters  {:>8} letters a second  {} units of USD/6 paid",
                run.settlement, run.letters, run.letters_per_second, run.paid
            );
        }
        report.runs.push(run);
    }
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    }
    Ok(())
}
