//! The one binary: run a node, operate it through its admin API, pay with it, and see it all at work
//! in `rialto demo`.
//!
//! | File | What |
//! |---|---|
//! | `args.rs` | the command line |
//! | `node.rs`, `init.rs`, `certificate.rs` | `run`, `check`, `config`, `status`; `init`; `certificate` |
//! | `journal.rs`, `backup.rs` | the books without a node: `check --journal`; `backup` |
//! | `accounts.rs`, `peers.rs`, `routes.rs`, `payments.rs` | the client commands |
//! | `connect.rs`, `client.rs` | which node they speak to, and how |
//! | `demo.rs` | three nodes and a payment |
//! | `output.rs`, `failure.rs` | data on stdout, the rest on stderr; exit codes |

mod accounts;
mod args;
mod backup;
mod bench;
mod certificate;
mod channels;
mod client;
mod connect;
mod demo;
mod documents;
mod failure;
mod init;
mod journal;
mod node;
mod output;
mod payments;
mod peers;
mod routes;
mod secret;
mod settlements;
mod statements;
mod strangers;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command, ConfigCommand, StatementCommand};
use failure::{Exit, Failure};

fn main() -> ExitCode {
    match dispatch(&Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::Output::default().note(&format!("rialto: {failure}"));
            failure.exit.into()
        }
    }
}

fn dispatch(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Init(args) => init::init(args),
        Command::Certificate(command) => certificate::certificate(command),
        Command::Run(args) => node::run(args),
        Command::Check(args) => node::check(args),
        Command::Backup(command) => backup::backup(command),
        Command::Config(ConfigCommand::Show(args)) => node::config_show(args),
        Command::Status(args) => block_on(node::status(args)),
        Command::Account(command) => block_on(accounts::account(command)),
        Command::Peer(command) => block_on(peers::peer(command)),
        Command::Route(command) => block_on(routes::route(command)),
        Command::Rate(command) => block_on(routes::rate(command)),
        Command::Balance(args) => block_on(accounts::balance(args)),
        Command::Settle(args) => block_on(settlements::settle(args)),
        Command::Channel(command) => block_on(channels::channel(command)),
        Command::Settlement(command) => block_on(settlements::settlement(command)),
        Command::Statement(StatementCommand::Verify(args)) => statements::verify(args),
        Command::Statement(StatementCommand::Close(args)) => block_on(statements::close(args)),
        Command::Statement(StatementCommand::Show(args)) => block_on(statements::show(args)),
        Command::Reconcile(args) => statements::reconcile(args),
        Command::Quote(args) => block_on(payments::quote(args)),
        Command::Pay(args) => block_on(payments::pay(args)),
        Command::Ping(args) => block_on(payments::ping(args)),
        Command::Bench(command) => block_on(bench::bench(command)),
        Command::Completions(args) => documents::completions(args),
        Command::Man(args) => documents::man(args),
        Command::Demo(args) => block_on(demo::demo(args)),
    }
}

fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Internal, format!("cannot start: {error}")))?
        .block_on(command)
}
