//! `demo`: three nodes on this machine, and a payment through them across currencies.
//!
//! ```text
//!   alice --- BTP ---> hub --- ILP over HTTP ---> bob
//!   USD/9              USD -> EUR                 EUR/6
//! ```
//!
//! Each node is this same program, `rialto run` in a process of its own, with an empty data folder,
//! set up through its admin API as an operator would. However the demo ends, it takes processes and
//! folders with it.

mod delay;
mod process;

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use rialto_packet::money::Asset;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use self::{delay::DelayProxy, process::NodeProcess};
use crate::{
    accounts::{asset_of, position_words, text},
    args::DemoArgs,
    failure::{Exit, Failure},
    init::NewNode,
    output,
    payments::{Money, Packets, Payment, Progress, payment_end, payment_of, random_key},
    secret::Token,
};

/// 1 USD is 2 EUR here. A made-up rate: 1,000 units of USD/9 are 2 of EUR/6, so packets as small as
/// 1,000 units convert without a remainder.
const USD_IN_EUR: u64 = 2;
/// Units of USD/9 that are one unit of EUR/6 at a rate of 1.
const USD_UNITS_PER_EUR_UNIT: u64 = 1_000;
/// Credit is given for this many payments like the one that is made.
const CREDIT_PAYMENTS: u64 = 10;
/// The hub takes no packet larger than this part of the payment, as real paths have a limit that the
/// sender has to find: so there is something to watch.
const PACKETS: u64 = 5_000;
/// Longest wait for alice's connection to the hub.
const LINK_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is looked for.
const LINK_INTERVAL: Duration = Duration::from_millis(20);

/// What `demo --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    sent: Money,
    delivered: Money,
    packets: Packets,
    elapsed_ms: u64,
    nodes: Vec<NodeReport>,
}

#[derive(Debug, Serialize)]
struct NodeReport {
    name: String,
    ilp_address: String,
    accounts: Vec<AccountReport>,
    /// Who owes whom, for people.
    #[serde(skip)]
    words: Vec<String>,
}

/// An account of a node, or its own position in an asset as `exchange:USD/9`: over both, the balances
/// in each asset sum to zero.
#[derive(Debug, Serialize)]
struct AccountReport {
    name: String,
    asset_code: String,
    asset_scale: u8,
    balance: String,
}

/// The three nodes. Dropping them ends their processes.
struct Nodes {
    alice: NodeProcess,
    hub: NodeProcess,
    bob: NodeProcess,
    /// Between hub and bob, when a delay was asked for.
    _delay: Option<DelayProxy>,
}

impl Nodes {
    fn all(&self) -> [&NodeProcess; 3] {
        [&self.alice, &self.hub, &self.bob]
    }
}

pub(crate) async fn demo(args: &DemoArgs) -> Result<(), Failure> {
    // Listen before there is anything that a signal could leave behind.
    let listen = |kind| {
        signal(kind).map_err(|error| {
            Failure::new(
                Exit::Internal,
                format!("cannot listen for signals: {error}"),
            )
        })
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hangup = listen(SignalKind::hangup())?;
    let mut kept = false;
    let result = tokio::select! {
        result = story(args, &mut kept) => result,
        _ = interrupt.recv() => Err(Failure::failed("interrupted")),
        _ = terminate.recv() => Err(Failure::failed("terminated")),
        _ = hangup.recv() => Err(Failure::failed("the terminal is gone")),
    };
    // The story was dropped, and with it processes and folders.
    if kept { Ok(()) } else { result }
}

async fn story(args: &DemoArgs, kept: &mut bool) -> Result<(), Failure> {
    let notes = output::Output {
        quiet: args.output.quiet || args.output.json,
        ..args.output
    };
    let folder = tempfile::Builder::new()
        .prefix("rialto-demo-")
        .tempdir()
        .map_err(|error| Failure::failed(format!("cannot make a temporary folder: {error}")))?;
    // Declared after the folder, so dropped before it: nobody writes into it any more.
    let nodes = start(args, folder.path()).await?;
    notes.note("three nodes are up: alice --BTP--> hub --ILP over HTTP--> bob");
    set_up(args, &nodes).await?;

    let (payment, elapsed) = pay(args, &nodes).await?;
    let mut reports = Vec::new();
    for node in nodes.all() {
        reports.push(report(node).await?);
    }
    let report = Report {
        sent: payment.sent,
        delivered: payment.delivered,
        packets: payment.packets,
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        nodes: reports,
    };
    if args.output.json {
        output::json(&report)?;
    } else {
        output::line(summary(&report)?.trim_end())?;
    }
    if args.keep {
        *kept = true;
        let text = addresses(&nodes);
        // In JSON mode stdout holds one object and nothing else.
        if args.output.json {
            args.output.note(&text)
        } else {
            output::line(&text)?
        }
        std::future::pending::<()>().await;
    }
    Ok(())
}

async fn start(args: &DemoArgs, folder: &std::path::Path) -> Result<Nodes, Failure> {
    let start = |name: &'static str, ilp_address, allow_insecure_receivers| {
        NodeProcess::start(
            &folder.join(name),
            &NewNode {
                name,
                ilp_address,
                listen: "127.0.0.1:0",
                admin_listen: "127.0.0.1:0",
                // Bob has no certificate here, so alice pays him over plain HTTP.
                allow_insecure_receivers,
            },
        )
    };
    // All start at once; each is waited for afterwards.
    let mut alice = start("alice", "test.hub.alice", true)?;
    let mut hub = start("hub", "test.hub", false)?;
    let mut bob = start("bob", "test.hub.bob", false)?;
    for node in [&mut alice, &mut hub, &mut bob] {
        node.wait_until_ready().await?;
    }
    let delay = match args.delay_ms {
        0 => None,
        ms => Some(DelayProxy::start(bob.node, Duration::from_millis(ms)).await?),
    };
    Ok(Nodes {
        alice,
        hub,
        bob,
        _delay: delay,
    })
}

/// What operators of the three nodes would do.
async fn set_up(args: &DemoArgs, nodes: &Nodes) -> Result<(), Failure> {
    let Nodes {
        alice,
        hub,
        bob,
        _delay: delay,
    } = nodes;
    let usd = args.amount.saturating_mul(CREDIT_PAYMENTS);
    let eur = (args.amount / USD_UNITS_PER_EUR_UNIT)
        .saturating_mul(USD_IN_EUR * CREDIT_PAYMENTS)
        .max(1);
    // Whole steps of the rate, so that each packet converts without a remainder.
    let packet_max = args.amount.div_ceil(PACKETS * USD_UNITS_PER_EUR_UNIT);
    let packet_max = packet_max * USD_UNITS_PER_EUR_UNIT;
    let alice_to_hub = Token::generate("peer");
    let hub_to_bob = Token::generate("peer");
    let bob_to_hub = Token::generate("peer");
    let bob_address = delay.as_ref().map_or(bob.node, DelayProxy::address);

    let account = "/v1/accounts";
    create(
        hub,
        account,
        json!({
            "name": "alice", "relation": "child", "asset_code": "USD", "asset_scale": 9,
            "limits": {"balance_min": credit(usd), "packet_amount_max": packet_max.to_string()},
            "incoming_token": alice_to_hub.reveal(),
        }),
    )
    .await?;
    create(
        hub,
        account,
        json!({
            "name": "bob", "relation": "child", "asset_code": "EUR", "asset_scale": 6,
            "limits": {"balance_min": credit(eur)},
            "incoming_token": bob_to_hub.reveal(),
            "http": {
                "url": format!("http://{bob_address}/accounts/hub/ilp"),
                "token": hub_to_bob.reveal(),
            },
        }),
    )
    .await?;
    let rate = json!({"from": "USD", "to": "EUR", "rate": USD_IN_EUR.to_string()});
    hub.client
        .put("/v1/rates", &rate)
        .await
        .map_err(|failure| hub.blame(failure))?;

    create(
        bob,
        account,
        json!({
            "name": "hub", "relation": "parent", "asset_code": "EUR", "asset_scale": 6,
            "limits": {"balance_min": credit(eur)},
            "incoming_token": hub_to_bob.reveal(),
            "http": {
                "url": format!("http://{}/accounts/bob/ilp", hub.node),
                "token": bob_to_hub.reveal(),
            },
        }),
    )
    .await?;
    create(
        bob,
        account,
        json!({
            "name": "bob", "relation": "local", "asset_code": "EUR", "asset_scale": 6,
        }),
    )
    .await?;

    create(
        alice,
        account,
        json!({
            "name": "alice", "relation": "local", "asset_code": "USD", "asset_scale": 9,
            "limits": {"balance_min": credit(usd)},
        }),
    )
    .await?;
    create(
        alice,
        account,
        json!({
            "name": "hub", "relation": "parent", "asset_code": "USD", "asset_scale": 9,
            "limits": {"balance_min": credit(usd)},
            "btp": {
                "url": format!("btp+ws://{}/accounts/alice/ilp/btp", hub.node),
                "token": alice_to_hub.reveal(),
            },
        }),
    )
    .await?;
    wait_for_link(alice).await
}

async fn create(node: &NodeProcess, path: &str, body: Value) -> Result<(), Failure> {
    let created: Result<Value, Failure> = node.client.post(path, &body).await;
    created.map_err(|failure| node.blame(failure))?;
    Ok(())
}

/// The lowest balance that gives this much credit.
fn credit(units: u64) -> String {
    format!("-{units}")
}

async fn wait_for_link(alice: &NodeProcess) -> Result<(), Failure> {
    let started = Instant::now();
    loop {
        let hub: Value = alice.client.get("/v1/accounts/hub").await?;
        if hub["link"] == "up" {
            return Ok(());
        }
        if started.elapsed() > LINK_TIMEOUT {
            let message = "alice's node did not connect to the hub within 20 seconds";
            return Err(alice.blame(Failure::new(Exit::Unavailable, message)));
        }
        sleep(LINK_INTERVAL).await;
    }
}

async fn pay(args: &DemoArgs, nodes: &Nodes) -> Result<(Payment, Duration), Failure> {
    let alice = &nodes.alice;
    let mut body = json!({
        "account": "alice",
        "receiver": format!("http://{}/bob", nodes.bob.node),
        "amount": args.amount.to_string(),
    });
    if let Some(packet_max) = args.packet_max {
        body["packet_max"] = json!(packet_max.to_string());
    }
    let progress = Progress::new(args.amount, false, args.output.quiet)?;
    let started = Instant::now();
    let created: Value = alice
        .client
        .post_once("/v1/payments", &body, &random_key())
        .await?;
    let id = payment_of(&created)?.id;
    let (payment, _) = payment_end(&alice.client, &id, &progress).await?;
    let elapsed = started.elapsed();
    match payment.failure() {
        Some(failure) => Err(failure),
        None => Ok((payment, elapsed)),
    }
}

async fn report(node: &NodeProcess) -> Result<NodeReport, Failure> {
    let status: Value = node.client.get("/v1/status").await?;
    let all = node.client.whole("/v1/balances", "balances").await?;
    let entry = |name: String, entry: &Value, balance: &str| {
        let asset = asset_of(entry)?;
        Ok(AccountReport {
            name,
            asset_code: asset.code().to_owned(),
            asset_scale: asset.scale(),
            balance: text(&entry[balance]),
        })
    };
    let (mut accounts, mut words) = (Vec::new(), Vec::new());
    for balance in all["balances"].as_array().into_iter().flatten() {
        accounts.push(entry(text(&balance["account"]), balance, "balance")?);
        words.push(text(&balance["words"]));
    }
    for position in all["positions"].as_array().into_iter().flatten() {
        let asset = asset_of(position)?;
        let position = entry(format!("exchange:{asset}"), position, "amount")?;
        let units: i128 = position.balance.parse().unwrap_or_default();
        if units != 0 {
            words.push(position_words(&asset, units));
        }
        accounts.push(position);
    }
    let (name, ilp_address) = (text(&status["name"]), text(&status["ilp_address"]));
    Ok(NodeReport {
        name,
        ilp_address,
        accounts,
        words,
    })
}

fn summary(report: &Report) -> Result<String, Failure> {
    let internal = |_| Failure::new(Exit::Internal, "cannot write the summary");
    let Packets {
        fulfilled,
        rejected,
    } = report.packets;
    let mut text = String::new();
    let mut line = |line: String| writeln!(text, "{line}").map_err(internal);
    line(format!("left alice   {}", report.sent.words()))?;
    line(format!("reached bob  {}", report.delivered.words()))?;
    line(format!(
        "rate         {}",
        rate(&report.sent, &report.delivered)
    ))?;
    line(format!(
        "packets      {fulfilled} fulfilled, {rejected} rejected"
    ))?;
    line(format!(
        "time         {}.{:03} s",
        report.elapsed_ms / 1_000,
        report.elapsed_ms % 1_000
    ))?;
    for node in &report.nodes {
        line(format!("\n{}, {}", node.name, node.ilp_address))?;
        for words in &node.words {
            line(format!("  {words}"))?;
        }
    }
    Ok(text)
}

/// `1 USD = 2.000000 EUR`, rounded down.
fn rate(sent: &Money, delivered: &Money) -> String {
    /// Digits after the point.
    const DIGITS: u8 = 6;
    let parse = |money: &Money| {
        let asset = Asset::new(money.asset_code.as_deref()?, money.asset_scale?).ok()?;
        Some((asset, money.amount.parse::<u128>().ok()?))
    };
    let rate = || {
        let ((from, sent), (to, delivered)) = (parse(sent)?, parse(delivered)?);
        // delivered / 10^to / (sent / 10^from), in millionths.
        let up = 10u128.checked_pow(u32::from(from.scale()) + u32::from(DIGITS))?;
        let down = 10u128.checked_pow(u32::from(to.scale()))?;
        let millionths = delivered
            .checked_mul(up)?
            .checked_div(sent.checked_mul(down)?)?;
        let price = Asset::new(to.code(), DIGITS)
            .ok()?
            .decimal(i128::try_from(millionths).ok()?);
        Some(format!("1 {} = {price} {}", from.code(), to.code()))
    };
    rate().unwrap_or_else(|| "-".to_owned())
}

fn addresses(nodes: &Nodes) -> String {
    let mut text = "\nThe nodes stay up until Ctrl-C.".to_owned();
    for node in nodes.all() {
        let (name, url, admin) = (node.name, node.node, node.client.url());
        let (token_file, token) = (node.token_file.display(), node.token.reveal());
        text.push_str(&format!(
            "\n\n{name}\n  peers and payers  http://{url}\n  admin API         {admin}\n  admin token       {token}\n  try               rialto status --url {admin} --token-file {token_file}"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(amount: &str, code: &str, scale: u8) -> Money {
        Money {
            amount: amount.to_owned(),
            asset_code: Some(code.to_owned()),
            asset_scale: Some(scale),
        }
    }

    #[test]
    fn the_summary_says_what_left_and_what_arrived() {
        let report = Report {
            sent: money("1000000000", "USD", 9),
            delivered: money("2000000", "EUR", 6),
            packets: Packets {
                fulfilled: 12,
                rejected: 1,
            },
            elapsed_ms: 1_042,
            nodes: vec![NodeReport {
                name: "hub".to_owned(),
                ilp_address: "test.hub".to_owned(),
                accounts: Vec::new(),
                words: vec!["alice owes us 1.00 USD, free 9.00".to_owned()],
            }],
        };
        assert_eq!(
            summary(&report).unwrap(),
            "\
left alice   1.00 USD
reached bob  2.00 EUR
rate         1 USD = 2.00 EUR
packets      12 fulfilled, 1 rejected
time         1.042 s

hub, test.hub
  alice owes us 1.00 USD, free 9.00
"
        );
    }

    #[test]
    fn a_rate_is_rounded_down_and_needs_something_sent() {
        assert_eq!(
            rate(&money("3", "A", 0), &money("2", "B", 0)),
            "1 A = 0.666666 B"
        );
        assert_eq!(rate(&money("0", "A", 0), &money("0", "B", 0)), "-");
    }
}
