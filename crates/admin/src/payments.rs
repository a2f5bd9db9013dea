//! Quotes, payments and pings.

use std::{future::pending, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use rialto_connector::{
    Connector, Event,
    command::{Made, PaymentRequest, PingOutcome, QuoteOutcome},
};
use rialto_ledger::{PaymentEnd, PaymentId, text};
use rialto_packet::{
    Address,
    money::{Asset, Conversion, Ratio},
};
use rialto_stream::{
    pointer,
    sender::{SenderConfig, Target},
};
use serde::Deserialize;
use tokio::{
    sync::{broadcast, broadcast::error::RecvError, oneshot},
    time::timeout,
};

use crate::{
    Api, Problem, ResolvedReceiver,
    auth::{Allowed, ToPay, ToRead},
    extract,
    node::Handle,
    page::PageQuery,
    rfc3339,
    shapes::{
        Amount, Money, Payment, PaymentCreate, PaymentError, PaymentPackets, PaymentState,
        Payments, Ping, PingCreate, Quote, QuoteCreate,
    },
};

/// Longest that `?wait=` waits.
pub const WAIT_SECONDS_MAX: u64 = 60;

/// Payments whose receivers are being resolved at the same time.
pub const RESOLVING_MAX: usize = 1_000;

/// Longest idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 255;
pub(crate) const KEY_HEADER: &str = "Idempotency-Key";

/// How long a quote may go on without learning anything.
const QUOTE_GIVE_UP_MS: u64 = 10_000;
/// How long a packet of a quote may take.
const QUOTE_PACKET_TIMEOUT_MS: i64 = 10_000;
/// How long an outcome that the core owes us is waited for: longer than the core takes to give up.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitQuery {
    /// Seconds to wait for the end of the payment, up to 60.
    #[serde(with = "text::option")]
    #[param(maximum = 60)]
    wait: Option<u64>,
}

impl WaitQuery {
    fn check(&self) -> Result<Duration, Problem> {
        let seconds = self.wait.unwrap_or(0);
        if seconds > WAIT_SECONDS_MAX {
            let detail = format!("must be a number of seconds up to {WAIT_SECONDS_MAX}");
            return Err(Problem::invalid("wait", detail));
        }
        Ok(Duration::from_secs(seconds))
    }
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PaymentsQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Entries on the page, 1 to 200; 50 where it is left out.
    #[serde(with = "text::option")]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Only payments of this account.
    account: Option<String>,
}

/// Finds out what a payment would deliver. No money moves.
#[utoipa::path(
    post,
    path = "/v1/quotes",
    operation_id = "create_quote",
    tag = "payments",
    security(("bearer" = ["pay"])),
    request_body = QuoteCreate,
    responses(
        (status = 200, description = "The quote", body = Quote),
        (status = 502, description = "The receiver or the way to it does not work", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn quote(
    _: Allowed<ToPay>,
    State(api): State<Api>,
    extract::Json(request): extract::Json<QuoteCreate>,
) -> Result<Json<Quote>, Problem> {
    check_accepting(&api)?;
    let target = target(request.amount, request.deliver_amount)?;
    check_receiver(&request.receiver)?;
    let packet_max = packet_max(request.packet_max)?;
    let source = api
        .node
        .read(|connector| asset_of(connector, &request.account))?;
    let receiver = api.node.0.resolve(&request.receiver).await;
    let receiver =
        receiver.map_err(|error| bad_gateway(error.code, error.message).of_field("receiver"))?;

    let mut config = SenderConfig::new(receiver.shared_secret, receiver.destination, Target::Probe);
    config.source_asset = Some(source.clone());
    config.destination_asset = receiver.asset;
    config.packet_amount_max = packet_max;
    config.give_up_ms = QUOTE_GIVE_UP_MS;
    config.packet_timeout_ms = QUOTE_PACKET_TIMEOUT_MS;
    let mut events = api.node.0.events();
    let number = api
        .node
        .execute(move |connector, now, out| connector.quote(now, &request.account, config, out))
        .await??;
    let outcome = outcome(&mut events, |event| {
        if let Event::QuoteDone {
            number: of,
            outcome,
        } = event
            && of == number
        {
            Some(outcome)
        } else {
            None
        }
    });
    quoted(target, source, receiver.url, *outcome.await?).map(Json)
}

/// Makes a payment. It goes on when the caller goes away; a repeat with the same key is the same
/// payment.
#[utoipa::path(
    post,
    path = "/v1/payments",
    operation_id = "create_payment",
    tag = "payments",
    security(("bearer" = ["pay"])),
    params(
        WaitQuery,
        ("Idempotency-Key" = String, Header, description = "Chosen by the caller, 1 to 255 visible ASCII characters; means the same payment for at least 7 days"),
    ),
    request_body = PaymentCreate,
    responses(
        (status = 200, description = "The payment that was made with this key before", body = Payment),
        (status = 201, description = "The payment, which has ended", body = Payment),
        (status = 202, description = "The payment, which runs", body = Payment),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    _: Allowed<ToPay>,
    State(api): State<Api>,
    headers: HeaderMap,
    extract::Query(query): extract::Query<WaitQuery>,
    extract::Json(request): extract::Json<PaymentCreate>,
) -> Result<(StatusCode, Json<Payment>), Problem> {
    let idempotency_key = read_key(&headers)?;
    let wait = query.check()?;
    let order = Order::check(request, idempotency_key)?;
    let busy = |_| Problem::unavailable("too many payments are being started");
    let permit = Arc::clone(&api.resolving)
        .try_acquire_owned()
        .map_err(busy)?;
    // A task of its own from the start: a caller that goes away changes nothing.
    let (created, result) = oneshot::channel();
    let payment = pay(api.clone(), order, created);
    tokio::spawn(async move {
        payment.await;
        drop(permit);
    });
    let result = result.await;
    let (id, new) = result.map_err(|_| Problem::unavailable("the node is stopping"))??;
    let payment = await_end(&api, id, wait).await?;
    let status = match (new, payment.state) {
        (false, _) => StatusCode::OK,
        (true, PaymentState::Running) => StatusCode::ACCEPTED,
        (true, PaymentState::Completed | PaymentState::Failed) => StatusCode::CREATED,
    };
    Ok((status, Json(payment)))
}

/// Payments, newest first.
#[utoipa::path(
    get,
    path = "/v1/payments",
    operation_id = "list_payments",
    tag = "payments",
    security(("bearer" = ["read"])),
    params(PaymentsQuery),
    responses(
        (status = 200, description = "A page", body = Payments),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    _: Allowed<ToRead>,
    State(api): State<Api>,
    extract::Query(query): extract::Query<PaymentsQuery>,
) -> Result<Json<Payments>, Problem> {
    let page = PageQuery::new(query.cursor, query.limit).check()?;
    let account = query.account;
    Ok(Json(api.node.read(|connector| {
        let end = PaymentId(page.after.unwrap_or(u64::MAX));
        let earlier = connector.ledger().payments().range(..end).rev();
        let wanted = earlier.map(|(_, payment)| payment).filter(|payment| {
            let account = account.as_ref();
            account.is_none_or(|account| payment.account_name == *account)
        });
        let (entries, next_cursor) = page.cut(wanted, |payment| payment.id.0);
        let payments = entries.into_iter();
        Payments {
            payments: payments.map(|payment| shape(connector, payment)).collect(),
            next_cursor,
        }
    })))
}

/// One payment.
#[utoipa::path(
    get,
    path = "/v1/payments/{id}",
    operation_id = "read_payment",
    tag = "payments",
    security(("bearer" = ["read"])),
    params(("id" = String, Path, description = "Names the payment"), WaitQuery),
    responses(
        (status = 200, description = "The payment", body = Payment),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn read(
    _: Allowed<ToRead>,
    State(api): State<Api>,
    extract::Path(id): extract::Path,
    extract::Query(query): extract::Query<WaitQuery>,
) -> Result<Json<Payment>, Problem> {
    let wait = query.check()?;
    await_end(&api, read_id(&id)?, wait).await.map(Json)
}

/// Stops a payment where it is. What is in flight is waited for.
#[utoipa::path(
    post,
    path = "/v1/payments/{id}/stop",
    operation_id = "stop_payment",
    tag = "payments",
    security(("bearer" = ["pay"])),
    params(("id" = String, Path, description = "Names the payment"), WaitQuery),
    responses(
        (status = 200, description = "The payment, which may still run for what is in flight", body = Payment),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn stop(
    _: Allowed<ToPay>,
    State(api): State<Api>,
    extract::Path(id): extract::Path,
    extract::Query(query): extract::Query<WaitQuery>,
) -> Result<Json<Payment>, Problem> {
    let (id, wait) = (read_id(&id)?, query.check()?);
    api.node.read(|connector| find(connector, id))?;
    api.node
        .execute(move |connector, now, out| connector.payment_stop(now, id, out))
        .await??;
    await_end(&api, id, wait).await.map(Json)
}

/// Sends a ping to a node.
#[utoipa::path(
    post,
    path = "/v1/ping",
    operation_id = "ping",
    tag = "payments",
    security(("bearer" = ["pay"])),
    request_body = PingCreate,
    responses(
        (status = 200, description = "How it went", body = Ping),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn ping(
    _: Allowed<ToPay>,
    State(api): State<Api>,
    extract::Json(request): extract::Json<PingCreate>,
) -> Result<Json<Ping>, Problem> {
    check_accepting(&api)?;
    let text = &request.destination;
    let destination: Address = text.parse().map_err(|error: rialto_packet::AddressError| {
        Problem::invalid("destination", format!("'{text}': {error}"))
    })?;
    let mut events = api.node.0.events();
    let number = api
        .node
        .execute(move |connector, now, out| {
            connector.ping(now, &request.account, &destination, request.amount.0, out)
        })
        .await??;
    let outcome = outcome(&mut events, |event| {
        if let Event::PingDone {
            number: of,
            outcome,
        } = event
            && of == number
        {
            Some(outcome)
        } else {
            None
        }
    });
    Ok(Json(match outcome.await? {
        PingOutcome::Reached { round_trip_ns } => Ping {
            reached: true,
            round_trip_ms: Some(milliseconds(round_trip_ns)),
            code: None,
            message: None,
            triggered_by: None,
        },
        PingOutcome::Rejected {
            code,
            message,
            triggered_by,
        } => Ping {
            reached: false,
            round_trip_ms: None,
            code: Some(code.to_string()),
            message: Some(message),
            triggered_by: triggered_by.map(|address| address.to_string()),
        },
    }))
}

/// A payment that was asked for, as far as it can be checked before its receiver is known.
struct Order {
    request: PaymentRequest,
    target: Target,
    packet_max: Option<u64>,
    slippage: Option<Ratio>,
    rate_min: Option<Ratio>,
}

impl Order {
    fn check(request: PaymentCreate, idempotency_key: String) -> Result<Self, Problem> {
        let target = target(request.amount, request.deliver_amount)?;
        check_receiver(&request.receiver)?;
        let packet_max = packet_max(request.packet_max)?;
        let slippage = read_ratio("slippage", request.slippage.as_deref())?;
        if let Some(slippage) = &slippage {
            let rest = Ratio::one().less(slippage);
            rest.map_err(|error| Problem::invalid("slippage", error.to_string()))?;
        }
        let rate_min = read_ratio("rate_min", request.rate_min.as_deref())?;
        if rate_min.is_some() && slippage.is_some() {
            let detail = "stands instead of slippage: give one of both";
            return Err(Problem::invalid("rate_min", detail));
        }
        let canonical = serde_json::to_string(&request).expect("text keys and plain values");
        let request = PaymentRequest {
            account: request.account,
            idempotency_key,
            request: canonical,
            receiver: request.receiver,
        };
        Ok(Self {
            request,
            target,
            packet_max,
            slippage,
            rate_min,
        })
    }

    /// What the sender needs, once the receiver is known; or why it cannot be paid, as a stable word
    /// and in words.
    fn sender(
        self,
        source: Asset,
        receiver: ResolvedReceiver,
    ) -> Result<SenderConfig, (&'static str, String)> {
        let mut config =
            SenderConfig::new(receiver.shared_secret, receiver.destination, self.target);
        if let Some(rate) = self.rate_min {
            let Some(destination) = &receiver.asset else {
                let message = "the receiver does not tell its asset, so rate_min has no meaning";
                return Err(("receiver_asset_unknown", message.to_owned()));
            };
            let units = Conversion::between(&source, destination, &rate);
            config.rate_min = Some(units.ratio().clone());
        }
        if let Some(slippage) = self.slippage {
            config.slippage = slippage;
        }
        config.packet_amount_max = self.packet_max;
        config.source_asset = Some(source);
        config.destination_asset = receiver.asset;
        Ok(config)
    }
}

/// A payment from the record to its start. `created` tells its number, and whether it is new.
async fn pay(api: Api, order: Order, created: oneshot::Sender<Result<(PaymentId, bool), Problem>>) {
    let (id, source) = match pay_create(&api, order.request.clone()).await {
        Ok((id, Some(source))) => {
            // Nobody listens any more: the payment goes on.
            let _ = created.send(Ok((id, true)));
            (id, source)
        }
        Ok((id, None)) => {
            let _ = created.send(Ok((id, false)));
            return;
        }
        Err(problem) => {
            let _ = created.send(Err(problem));
            return;
        }
    };
    let config = match api.node.0.resolve(&order.request.receiver).await {
        Ok(receiver) => order.sender(source, receiver),
        Err(error) => Err((error.code, error.message)),
    };
    let started = api.node.execute(move |connector, now, out| match config {
        Ok(config) => connector.payment_start(now, id, config, out),
        Err((code, message)) => connector.payment_fail(id, code, &message, out),
    });
    match started.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(payment = id.0, error = error.message, "payment not started")
        }
        Err(error) => tracing::warn!(payment = id.0, %error, "payment not started"),
    }
}

/// The payment's number, and the asset to pay in if it is new.
async fn pay_create(
    api: &Api,
    request: PaymentRequest,
) -> Result<(PaymentId, Option<Asset>), Problem> {
    // A repeat is answered at all times, a new payment only while it could run.
    let accepting = check_accepting(api);
    let created = api.node.execute(move |connector, now, out| {
        let known = connector.ledger().payment_by_key(&request.idempotency_key);
        if known.is_none() {
            accepting?;
        }
        let account = request.account.clone();
        match connector.payment_create(now, request, out)? {
            Made::New(id) => Ok((id, Some(asset_of(connector, &account)?))),
            Made::Existing(id) => Ok((id, None)),
        }
    });
    created.await?
}

fn check_accepting(api: &Api) -> Result<(), Problem> {
    if api.node.0.status().draining {
        return Err(Problem::unavailable("the node is about to stop"));
    }
    Ok(())
}

fn asset_of(connector: &Connector, name: &str) -> Result<Asset, Problem> {
    let account = connector.ledger().account_by_name(name);
    account
        .map(|account| account.settings.asset.clone())
        .ok_or_else(|| Problem::invalid("account", format!("there is no account '{name}'")))
}

/// Printable, so that it can be found in logs.
pub(crate) fn read_key(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(key) = headers.get(KEY_HEADER) else {
        let detail =
            "give the request a key of its own, so that repeating it cannot move money twice";
        let problem = Problem::new(StatusCode::BAD_REQUEST, "idempotency_key", detail);
        return Err(problem.of_field(KEY_HEADER));
    };
    let key = key.to_str().unwrap_or_default();
    let visible = key.bytes().all(|byte| byte.is_ascii_graphic());
    if !visible || !(1..=KEY_BYTES_MAX).contains(&key.len()) {
        let detail = format!("must have 1 to {KEY_BYTES_MAX} visible ASCII characters");
        let problem = Problem::new(StatusCode::BAD_REQUEST, "idempotency_key", detail);
        return Err(problem.of_field(KEY_HEADER));
    }
    Ok(key.to_owned())
}

fn read_id(text: &str) -> Result<PaymentId, Problem> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let id = digits.then(|| text.parse().ok()).flatten();
    id.map(PaymentId)
        .ok_or_else(|| Problem::not_found("payment", text))
}

fn target(amount: Option<Amount>, deliver_amount: Option<Amount>) -> Result<Target, Problem> {
    let (field, target) = match (amount, deliver_amount) {
        (Some(amount), None) => ("amount", Target::Send(amount.0)),
        (None, Some(amount)) => ("deliver_amount", Target::Deliver(amount.0)),
        (Some(_), Some(_)) => {
            let detail = "give either amount or deliver_amount";
            return Err(Problem::invalid("deliver_amount", detail));
        }
        (None, None) => {
            let detail = "is missing: give either amount or deliver_amount";
            return Err(Problem::invalid("amount", detail));
        }
    };
    if matches!(target, Target::Send(0) | Target::Deliver(0)) {
        return Err(Problem::invalid(field, "must be greater than zero"));
    }
    Ok(target)
}

fn packet_max(amount: Option<Amount>) -> Result<Option<u64>, Problem> {
    if amount == Some(Amount(0)) {
        return Err(Problem::invalid("packet_max", "must be greater than zero"));
    }
    Ok(amount.map(|amount| amount.0))
}

/// Only the form; what the node permits it decides when it resolves.
fn check_receiver(receiver: &str) -> Result<(), Problem> {
    match pointer::resolve(receiver, true) {
        Ok(_) => Ok(()),
        Err(error) => Err(Problem::invalid(
            "receiver",
            format!("'{receiver}': {error}"),
        )),
    }
}

fn read_ratio(field: &str, text: Option<&str>) -> Result<Option<Ratio>, Problem> {
    let Some(text) = text else { return Ok(None) };
    text.parse()
        .map(Some)
        .map_err(|error: rialto_packet::money::MoneyError| {
            Problem::invalid(field, error.to_string())
        })
}

fn bad_gateway(code: &str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, code, detail)
}

/// What the probes say about the amount.
fn quoted(
    target: Target,
    source: Asset,
    receiver_url: String,
    outcome: QuoteOutcome,
) -> Result<Quote, Problem> {
    let Some(path) = outcome.path else {
        let stop = outcome.stopped;
        let detail = stop.map_or("nothing was found out".to_owned(), |stop| stop.to_string());
        return Err(bad_gateway("path_failed", detail));
    };
    let rate = path.rate();
    let overflow = |_| Problem::invalid("amount", "is more than 64 bits at the present rate");
    let (send, deliver) = match target {
        Target::Send(send) => {
            let conversion = Conversion::of_units(rate.clone());
            (send, conversion.round_down(send).map_err(overflow)?)
        }
        Target::Deliver(deliver) => {
            let inverse = rate.inverse().map_err(|_| {
                bad_gateway(
                    "path_failed",
                    "the amounts that were tried arrive as nothing",
                )
            })?;
            let conversion = Conversion::of_units(inverse);
            (conversion.round_up(deliver).map_err(overflow)?, deliver)
        }
        Target::Probe => (0, 0),
    };
    let whole = Conversion::between(&path.asset, &source, &rate);
    Ok(Quote {
        send_amount: money(send, Some((source.code(), source.scale()))),
        deliver_amount: money(deliver, Some((path.asset.code(), path.asset.scale()))),
        rate: whole.ratio().to_string(),
        packet_amount_max: path.packet_amount_max.map(Amount),
        receiver_url,
    })
}

/// The first event that `pick` takes.
pub(crate) async fn outcome<T>(
    events: &mut broadcast::Receiver<Event>,
    pick: impl Fn(Event) -> Option<T>,
) -> Result<T, Problem> {
    let next = async {
        loop {
            match events.recv().await {
                Ok(event) => {
                    if let Some(picked) = pick(event) {
                        return Ok(picked);
                    }
                }
                Err(RecvError::Lagged(_)) => {
                    return Err(Problem::unavailable("the outcome was lost: try again"));
                }
                Err(RecvError::Closed) => {
                    return Err(Problem::unavailable("the node is stopping"));
                }
            }
        }
    };
    let in_time = timeout(OUTCOME_TIMEOUT, next).await;
    in_time.map_err(|_| Problem::unavailable("no outcome in time: try again"))?
}

/// The payment when it has ended, or after `wait` as it is then.
async fn await_end(api: &Api, id: PaymentId, wait: Duration) -> Result<Payment, Problem> {
    // Before the first look, so that no end is missed.
    let mut events = api.node.0.events();
    let look = |node: &Handle| node.read(|connector| find(connector, id));
    let payment = look(&api.node)?;
    if payment.state != PaymentState::Running || wait.is_zero() {
        return Ok(payment);
    }
    let ended = async {
        loop {
            match events.recv().await {
                Ok(Event::PaymentEnded { id: of }) if of == id => return,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => {
                    if look(&api.node).is_ok_and(|payment| payment.state != PaymentState::Running) {
                        return;
                    }
                }
                Err(RecvError::Closed) => return,
            }
        }
    };
    let mut stopping = api.stopping.clone();
    let stopping = async {
        if stopping.wait_for(|stopping| *stopping).await.is_err() {
            pending::<()>().await; // there is no server that could stop
        }
    };
    tokio::select! {
        _ = timeout(wait, ended) => {}
        () = stopping => {}
    }
    look(&api.node)
}

fn find(connector: &Connector, id: PaymentId) -> Result<Payment, Problem> {
    let payment = connector.ledger().payments().get(&id);
    payment
        .map(|payment| shape(connector, payment))
        .ok_or_else(|| Problem::not_found("payment", &id.0.to_string()))
}

fn shape(connector: &Connector, payment: &rialto_ledger::Payment) -> Payment {
    let account = connector.ledger().account(payment.account);
    let source = account.map(|account| &account.settings.asset);
    let destination = payment.destination_asset.as_ref();
    let (state, error) = match &payment.end {
        None => (PaymentState::Running, None),
        Some(PaymentEnd::Completed) => (PaymentState::Completed, None),
        Some(PaymentEnd::Failed { code, message }) => {
            let (code, message) = (code.clone(), message.clone());
            (PaymentState::Failed, Some(PaymentError { code, message }))
        }
    };
    let progress = &payment.progress;
    Payment {
        id: payment.id.0.to_string(),
        account: payment.account_name.clone(),
        receiver: payment.receiver.clone(),
        state,
        sent: money(
            progress.sent,
            source.map(|asset| (asset.code(), asset.scale())),
        ),
        delivered: money(
            progress.delivered,
            destination.map(|(code, scale)| (code.as_str(), *scale)),
        ),
        packets: PaymentPackets {
            fulfilled: progress.fulfilled,
            rejected: progress.rejected,
        },
        error,
        created_at: rfc3339(payment.created_at_ms).unwrap_or_default(),
    }
}

fn money(amount: u64, asset: Option<(&str, u8)>) -> Money {
    Money {
        amount: Amount(amount),
        asset_code: asset.map(|(code, _)| code.to_owned()),
        asset_scale: asset.map(|(_, scale)| scale),
    }
}

fn milliseconds(ns: u64) -> String {
    format!("{}.{:03}", ns / 1_000_000, ns / 1_000 % 1_000)
}
