//! `quote`, `pay` and `ping`.

use std::{convert::Infallible, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use rialto_node::secrets::random;
use rialto_packet::money::Asset;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use crate::{
    accounts::{self, asset_of, text, units, units_of},
    args::{PayArgs, PingArgs, QuoteArgs, TransferArgs},
    client::{Client, encoded},
    connect::connect,
    failure::{Exit, Failure},
    output,
};

/// How often a running payment is looked at: as often as a moving bar needs.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How long the node may wait for a payment to end before it answers.
const WAIT_SECONDS: u32 = 30;

/// An amount with its asset, where that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Money {
    pub(crate) amount: String,
    pub(crate) asset_code: Option<String>,
    pub(crate) asset_scale: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PaymentState {
    Running,
    Completed,
    Failed,
}

/// How many packets a payment took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Packets {
    pub(crate) fulfilled: u64,
    pub(crate) rejected: u64,
}

/// A payment, as far as it is shown.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Payment {
    pub(crate) id: String,
    pub(crate) state: PaymentState,
    pub(crate) sent: Money,
    pub(crate) delivered: Money,
    pub(crate) packets: Packets,
    error: Option<PaymentError>,
}

#[derive(Debug, Clone, Deserialize)]
struct PaymentError {
    code: String,
    message: String,
}

impl Money {
    /// `12.50 USD`, or plain units of an unknown asset.
    pub(crate) fn words(&self) -> String {
        let code = self.asset_code.as_deref();
        let asset = code
            .zip(self.asset_scale)
            .and_then(|(code, scale)| Asset::new(code, scale).ok());
        match asset.zip(self.amount.parse().ok()) {
            Some((asset, units)) => format!("{} {}", asset.decimal(units), asset.code()),
            None => format!("{} units", self.amount),
        }
    }

    fn units(&self) -> u64 {
        self.amount.parse().unwrap_or_default()
    }
}

impl Payment {
    /// The failure of a payment that failed, with what it had moved until then.
    pub(crate) fn failure(&self) -> Option<Failure> {
        if self.state != PaymentState::Failed {
            return None;
        }
        let why = self.error.as_ref();
        let why = why.map_or_else(
            || "no reason given".to_owned(),
            |error| format!("{} ({})", error.message, error.code),
        );
        let message = format!(
            "payment {} failed: {why}; until then {} left and {} arrived",
            self.id,
            self.sent.words(),
            self.delivered.words()
        );
        Some(Failure::failed(message))
    }
}

/// How much of what has to move, on a terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// What is counted arrives, rather than leaves.
    delivers: bool,
}

impl Progress {
    /// `total` units; nothing is drawn when hidden, or when stderr is no terminal.
    pub(crate) fn new(total: u64, delivers: bool, hidden: bool) -> Result<Self, Failure> {
        let bar = if hidden {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(total)
        };
        let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}")
            .map_err(|error| Failure::new(Exit::Internal, error.to_string()))?;
        bar.set_style(style);
        Ok(Self { bar, delivers })
    }

    fn show(&self, payment: &Payment) {
        let counted = if self.delivers {
            &payment.delivered
        } else {
            &payment.sent
        };
        self.bar.set_position(counted.units());
        let (sent, delivered) = (payment.sent.words(), payment.delivered.words());
        self.bar
            .set_message(format!("{sent} left, {delivered} arrived"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Waits until a payment has ended. Returns it, and as the API shows it.
pub(crate) async fn payment_end(
    client: &Client,
    id: &str,
    progress: &Progress,
) -> Result<(Payment, Value), Failure> {
    let path = format!("/v1/payments/{}", encoded(id));
    let wait = format!("{path}?wait={WAIT_SECONDS}");
    let end = async {
        loop {
            let value: Value = client.get(&wait).await?;
            let payment = payment_of(&value)?;
            if payment.state != PaymentState::Running {
                return Ok((payment, value));
            }
        }
    };
    let progress = async {
        loop {
            sleep(LOOK_INTERVAL).await;
            match client.get::<Value>(&path).await {
                Ok(value) => progress.show(&payment_of(&value)?),
                Err(failure) => return Err::<Infallible, Failure>(failure),
            }
        }
    };
    tokio::select! {
        ended = end => ended,
        Err(failure) = progress => Err(failure),
    }
}

/// A payment as the API shows it.
pub(crate) fn payment_of(value: &Value) -> Result<Payment, Failure> {
    Payment::deserialize(value).map_err(|error| {
        Failure::new(
            Exit::Internal,
            format!("the node's payment cannot be read: {error}"),
        )
    })
}

pub(crate) async fn pay(args: &PayArgs) -> Result<(), Failure> {
    let client = connect(&args.node)?;
    let (mut body, _) = transfer(&client, &args.transfer).await?;
    for (field, value) in [("slippage", &args.slippage), ("rate_min", &args.rate_min)] {
        if let Some(value) = value {
            body.insert(field.to_owned(), json!(value));
        }
    }
    let total = body
        .get("amount")
        .or(body.get("deliver_amount"))
        .and_then(Value::as_str);
    let total = total
        .and_then(|units| units.parse().ok())
        .unwrap_or_default();
    let key = match &args.idempotency_key {
        Some(key) => key.clone(),
        None => random_key(),
    };
    // From here on Ctrl-C stops the payment, once it is known that there is one.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| {
        Failure::new(
            Exit::Internal,
            format!("cannot listen for signals: {error}"),
        )
    })?;
    let created: Value = client
        .post_once("/v1/payments", &body.into(), &key)
        .await
        .map_err(|failure| with_key(failure, &key, MAY_RUN))?;
    let id = payment_of(&created)?.id;

    let output = args.node.output;
    let progress = Progress::new(total, args.transfer.deliver.is_some(), output.quiet)?;
    let ended = tokio::select! {
        ended = payment_end(&client, &id, &progress) => ended,
        _ = interrupt.recv() => {
            output.note("stopping the payment; Ctrl-C again leaves it to the node");
            tokio::select! {
                ended = stop(&client, &id, &progress) => ended,
                _ = interrupt.recv() => Err(Failure::new(Exit::TryAgain, "interrupted")),
            }
        }
    };
    drop(progress);
    let (payment, value) = ended.map_err(|failure| with_key(failure, &key, MAY_RUN))?;
    if output.json {
        output::json(&value)?;
    }
    if let Some(failure) = payment.failure() {
        return Err(failure);
    }
    if !output.json {
        let Packets {
            fulfilled,
            rejected,
        } = payment.packets;
        let (sent, delivered) = (payment.sent.words(), payment.delivered.words());
        let packets = if fulfilled == 1 { "packet" } else { "packets" };
        output::line(&format!(
            "{sent} left, {delivered} arrived, in {fulfilled} {packets} ({rejected} rejected)"
        ))?;
    }
    Ok(())
}

async fn stop(client: &Client, id: &str, progress: &Progress) -> Result<(Payment, Value), Failure> {
    let path = format!("/v1/payments/{}/stop", encoded(id));
    let stopped: Result<Value, Failure> = client.post(&path, &json!({})).await;
    // A payment that ended in the same moment cannot be stopped, and need not be.
    match stopped {
        Err(failure) if failure.exit != Exit::Failed => Err(failure),
        Ok(_) | Err(_) => payment_end(client, id, progress).await,
    }
}

pub(crate) async fn quote(args: &QuoteArgs) -> Result<(), Failure> {
    let client = connect(&args.node)?;
    let (body, asset) = transfer(&client, &args.transfer).await?;
    let quote: Value = client.post("/v1/quotes", &body.into()).await?;
    if args.node.output.json {
        return output::json(&quote);
    }
    let money = |field: &str| {
        Money::deserialize(&quote[field])
            .map(|money| money.words())
            .map_err(|error| {
                Failure::new(
                    Exit::Internal,
                    format!("the node's quote cannot be read: {error}"),
                )
            })
    };
    output::line(&format!("leaves   {}", money("send_amount")?))?;
    output::line(&format!("arrives  {}", money("deliver_amount")?))?;
    output::line(&format!("rate     {}", text(&quote["rate"])))?;
    if let Ok(units) = units_of(&quote["packet_amount_max"]) {
        output::line(&format!(
            "packets  up to {} {}",
            asset.decimal(units),
            asset.code()
        ))?;
    }
    output::line(&format!("at       {}", text(&quote["receiver_url"])))
}

pub(crate) async fn ping(args: &PingArgs) -> Result<(), Failure> {
    let client = connect(&args.node)?;
    let (account, asset) = local_account(&client, args.from.as_deref()).await?;
    let amount = units("--amount", &asset, &args.amount)?;
    let body = json!({
        "account": account,
        "destination": args.destination,
        "amount": amount.to_string(),
    });
    for _ in 0..args.count {
        let ping: Value = client.post("/v1/ping", &body).await?;
        if args.node.output.json {
            output::json(&ping)?;
        }
        let destination = &args.destination;
        if ping["reached"] != true {
            let (code, by) = (text(&ping["code"]), text(&ping["triggered_by"]));
            // Not everyone who rejects says why.
            let why = match text(&ping["message"]) {
                why if why.is_empty() => why,
                why => format!(" {why}"),
            };
            let message = format!("{destination} was not reached: {code}{why}, says {by}");
            return Err(Failure::new(Exit::Unavailable, message));
        }
        if !args.node.output.json {
            let time = text(&ping["round_trip_ms"]);
            output::line(&format!("{destination} answered in {time} ms"))?;
        }
    }
    Ok(())
}

/// A key that nobody else uses.
pub(crate) fn random_key() -> String {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

    BASE64_URL_SAFE_NO_PAD.encode(random::<16>())
}

/// What quotes and payments have in common, as the API takes it, and the asset that leaves.
async fn transfer(
    client: &Client,
    args: &TransferArgs,
) -> Result<(Map<String, Value>, Asset), Failure> {
    let (account, asset) = local_account(client, args.from.as_deref()).await?;
    let mut body = Map::new();
    body.insert("account".to_owned(), json!(account));
    body.insert("receiver".to_owned(), json!(args.receiver));
    if let Some(amount) = &args.amount {
        let units = units("amount", &asset, amount)?;
        body.insert("amount".to_owned(), json!(units.to_string()));
    }
    if let Some(units) = args.deliver {
        body.insert("deliver_amount".to_owned(), json!(units.to_string()));
    }
    if let Some(packet_max) = &args.packet_max {
        let units = units("--packet-max", &asset, packet_max)?;
        body.insert("packet_max".to_owned(), json!(units.to_string()));
    }
    Ok((body, asset))
}

/// The account that pays: the one that was named, or the only local one.
async fn local_account(client: &Client, name: Option<&str>) -> Result<(String, Asset), Failure> {
    if let Some(name) = name {
        let account: Value = client.get(&accounts::path(name)).await?;
        return Ok((name.to_owned(), asset_of(&account)?));
    }
    let mut accounts = accounts::all(client).await?;
    accounts.retain(|account| account["relation"] == "local");
    match accounts.as_slice() {
        [account] => Ok((text(&account["name"]), asset_of(account)?)),
        [] => Err(Failure::failed("the node has no local account to pay from")),
        [..] => {
            let names: Vec<_> = accounts
                .iter()
                .map(|account| text(&account["name"]))
                .collect();
            Err(Failure::usage(format!(
                "say which account with --from: {}",
                names.join(", ")
            )))
        }
    }
}

/// What a lost answer to [`pay`] leaves open.
const MAY_RUN: &str = "the payment may be under way";

/// After a lost answer what was asked for may well have happened: its key tells.
pub(crate) fn with_key(failure: Failure, key: &str, what: &str) -> Failure {
    let may_run = matches!(
        failure.exit,
        Exit::Unavailable | Exit::TryAgain | Exit::Internal
    );
    if !may_run {
        return failure;
    }
    let message = format!(
        "{}; {what}: repeat with --idempotency-key={key} to see it, never to do it twice",
        failure.message
    );
    Failure::new(failure.exit, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payment(state: &str, error: Value) -> Payment {
        payment_of(&json!({
            "id": "7", "state": state, "error": error,
            "sent": {"amount": "1500000000", "asset_code": "USD", "asset_scale": 9},
            "delivered": {"amount": "0", "asset_code": null, "asset_scale": null},
            "packets": {"fulfilled": 3, "rejected": 1},
        }))
        .unwrap()
    }

    #[test]
    fn a_failed_payment_says_what_moved() {
        let error = json!({"code": "no_route", "message": "nobody knows the way"});
        let failure = payment("failed", error).failure().unwrap();
        assert_eq!(
            failure.message,
            "payment 7 failed: nobody knows the way (no_route); until then 1.50 USD left and 0 units arrived"
        );
        assert_eq!(payment("completed", Value::Null).failure(), None);
    }

    #[test]
    fn only_a_lost_answer_asks_to_repeat() {
        let lost = with_key(Failure::new(Exit::Unavailable, "gone"), "k", MAY_RUN);
        assert!(lost.message.contains("--idempotency-key=k"), "{lost}");
        let refused = with_key(Failure::failed("no such account"), "k", MAY_RUN);
        assert_eq!(refused.message, "no such account");
    }
}
