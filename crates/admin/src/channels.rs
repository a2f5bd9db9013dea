//! Settlement channels: opening, looking, agreeing, ending, and what can be shown of them.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use rialto_channel::{ChannelId, Side};
use rialto_connector::{
    ChannelRequest, Connector,
    command::{CommandError, CommandErrorKind, Made},
};
use rialto_ledger::{AccountChannel, text};
use serde::{Deserialize, Serialize};
use tokio::time;
use utoipa::ToSchema;

use crate::{
    Api, Problem,
    auth::{Allowed, ToPay, ToRead},
    extract,
    page::PageQuery,
    payments::read_key,
    rfc3339,
    shapes::{Amount, SignedAmount},
};

/// How long a new channel waits for the greeting of the other side.
const GREETING_WAIT: Duration = Duration::from_secs(10);

/// How often it looks whether the greeting came.
const GREETING_LOOK: Duration = Duration::from_millis(50);

/// What kind of channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChannelKind {
    /// One side keeps the ledger and may owe; the other holds an account on it.
    Asymmetrical,
    /// Both keep it together, and either may owe.
    Symmetrical,
}

impl From<rialto_channel::Kind> for ChannelKind {
    fn from(kind: rialto_channel::Kind) -> Self {
        match kind {
            rialto_channel::Kind::AsymmetricalTrustline => Self::Asymmetrical,
            rialto_channel::Kind::SymmetricalTrustline => Self::Symmetrical,
        }
    }
}

impl From<ChannelKind> for rialto_channel::Kind {
    fn from(kind: ChannelKind) -> Self {
        match kind {
            ChannelKind::Asymmetrical => Self::AsymmetricalTrustline,
            ChannelKind::Symmetrical => Self::SymmetricalTrustline,
        }
    }
}

/// Which channels are opened and accepted without an operator. Amounts are in units of the account's
/// asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelTerms {
    /// Of what kind.
    pub kind: ChannelKind,
    /// The most that we may owe over it.
    pub limit: Amount,
    /// The most that they may owe over it: one that they offer is accepted up to this.
    pub their_limit: Amount,
    /// Whether we propose one as long as there never was one.
    #[serde(default)]
    pub propose: bool,
}

impl From<rialto_ledger::ChannelTerms> for ChannelTerms {
    fn from(terms: rialto_ledger::ChannelTerms) -> Self {
        Self {
            kind: terms.kind.into(),
            limit: Amount(terms.limit),
            their_limit: Amount(terms.their_limit),
            propose: terms.propose,
        }
    }
}

impl From<ChannelTerms> for rialto_ledger::ChannelTerms {
    fn from(terms: ChannelTerms) -> Self {
        Self {
            kind: terms.kind.into(),
            limit: terms.limit.0,
            their_limit: terms.their_limit.0,
            propose: terms.propose,
        }
    }
}

/// A channel to be proposed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelCreate {
    /// Name of the account.
    #[schema(example = "bob")]
    pub(crate) account: String,
    /// What kind of channel.
    pub(crate) kind: ChannelKind,
    /// The most that we may owe over it.
    pub(crate) limit: Amount,
    /// The most that they may owe over it.
    pub(crate) their_limit: Amount,
}

/// Other limits of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelLimits {
    /// The most that we may owe over it.
    pub(crate) limit: Amount,
    /// The most that they may owe over it.
    pub(crate) their_limit: Amount,
}

/// Why something is declined.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelDecline {
    /// For the other side.
    pub(crate) reason: String,
}

/// How a channel is to end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ChannelClose {
    /// At once, without the other side.
    pub(crate) alone: bool,
}

/// Something that happened to a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ChannelNote {
    /// When.
    #[schema(format = DateTime)]
    pub(crate) at: Option<String>,
    /// A sentence.
    pub(crate) message: String,
}

/// A settlement channel with the holder of an account. Amounts are in units of the account's asset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Channel {
    /// Its number with both sides.
    pub(crate) id: String,
    /// With whom.
    pub(crate) account: Option<String>,
    /// What kind of channel.
    pub(crate) kind: ChannelKind,
    /// Whether we proposed it.
    pub(crate) is_opener: bool,
    /// Where it stands, in one word.
    pub(crate) state: String,
    /// The same in a sentence.
    pub(crate) message: String,
    /// Of what.
    pub(crate) asset_code: String,
    /// The smallest unit is 10^-scale.
    pub(crate) asset_scale: u8,
    /// The most that we may owe over it.
    pub(crate) limit: Amount,
    /// The most that they may owe over it.
    pub(crate) their_limit: Amount,
    /// Other limits that wait for an answer: of ours.
    pub(crate) proposed_limit: Option<Amount>,
    /// The same: of theirs.
    pub(crate) proposed_their_limit: Option<Amount>,
    /// All that we paid over it.
    pub(crate) paid: Amount,
    /// Of that, what they took.
    pub(crate) taken: Amount,
    /// All that they paid over it.
    pub(crate) received: Amount,
    /// What we owe them over it; below zero, what they owe us.
    pub(crate) owed: SignedAmount,
    /// What we may pay now.
    pub(crate) room: Amount,
    /// Our key.
    pub(crate) key: String,
    /// Their key.
    pub(crate) their_key: String,
    /// Messages to them that wait to be answered.
    pub(crate) waiting: usize,
    /// Whether both sides greeted since they connected.
    pub(crate) is_greeted: bool,
    /// Why they could not be told what waits.
    pub(crate) failure: Option<String>,
    /// What happened since the start, the oldest first.
    pub(crate) notes: Vec<ChannelNote>,
}

/// A page of channels, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Channels {
    /// The channels.
    pub(crate) channels: Vec<Channel>,
    /// For the next page; null on the last.
    pub(crate) next_cursor: Option<String>,
}

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ChannelsQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Entries on the page, 1 to 200; 50 where it is left out.
    #[serde(with = "text::option")]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
    /// Only channels with this account.
    account: Option<String>,
}

/// Settlement channels, newest first.
#[utoipa::path(
    get,
    path = "/v1/channels",
    operation_id = "list_channels",
    tag = "channels",
    security(("bearer" = ["read"])),
    params(ChannelsQuery),
    responses(
        (status = 200, description = "A page of channels", body = Channels),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    _: Allowed<ToRead>,
    State(api): State<Api>,
    extract::Query(query): extract::Query<ChannelsQuery>,
) -> Result<Json<Channels>, Problem> {
    let page = PageQuery::new(query.cursor, query.limit).check()?;
    let listed = api.node.read(|connector| {
        let account = query.account.as_deref().map(|name| {
            let account = connector.ledger().account_by_name(name);
            account.ok_or_else(|| Problem::not_found("account", name))
        });
        let account = account.transpose()?.map(|account| account.id);
        let end = page.after.unwrap_or(u64::MAX);
        let mut wanted: Vec<_> = connector
            .ledger()
            .channels()
            .values()
            .filter(|known| known.number < end && account.is_none_or(|id| known.account == id))
            .collect();
        wanted.sort_unstable_by_key(|known| std::cmp::Reverse(known.number));
        let (channels, next_cursor) = page.cut(wanted.into_iter(), |known| known.number);
        let channels = channels
            .into_iter()
            .map(|known| shape(connector, known))
            .collect();
        Ok::<_, Problem>(Channels {
            channels,
            next_cursor,
        })
    })?;
    Ok(Json(listed))
}

/// One channel.
#[utoipa::path(
    get,
    path = "/v1/channels/{id}",
    operation_id = "read_channel",
    tag = "channels",
    security(("bearer" = ["read"])),
    params(("id" = String, Path, description = "Number of the channel, 32 hex digits")),
    responses(
        (status = 200, description = "The channel", body = Channel),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn read(
    _: Allowed<ToRead>,
    State(api): State<Api>,
    extract::Path(id): extract::Path,
) -> Result<Json<Channel>, Problem> {
    let id = read_id(&id)?;
    Ok(Json(api.node.read(|connector| shape_of(connector, id))?))
}

/// Proposes a channel to the holder of an account, once their node greeted ours.
#[utoipa::path(
    post,
    path = "/v1/channels",
    operation_id = "create_channel",
    tag = "channels",
    security(("bearer" = ["pay"])),
    params(
        ("Idempotency-Key" = String, Header, description = "Chosen by the caller, 1 to 255 visible ASCII characters; means the same channel for as long as it is remembered"),
    ),
    request_body = ChannelCreate,
    responses(
        (status = 200, description = "The channel that was made with this key before", body = Channel),
        (status = 201, description = "The channel, which waits for the other side", body = Channel),
        (status = "default", description = "What went wrong; 503 where the other side did not greet in time", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    _: Allowed<ToPay>,
    State(api): State<Api>,
    headers: HeaderMap,
    extract::Json(request): extract::Json<ChannelCreate>,
) -> Result<(StatusCode, Json<Channel>), Problem> {
    let request = ChannelRequest {
        account: request.account,
        kind: request.kind.into(),
        limit: request.limit.0,
        their_limit: request.their_limit.0,
        idempotency_key: read_key(&headers)?,
    };
    let deadline = time::Instant::now() + GREETING_WAIT;
    loop {
        let request = request.clone();
        let made = api.node.execute(move |connector, now, out| {
            let (status, id) = match connector.channel_open(now, request, out)? {
                Made::New(id) => (StatusCode::CREATED, id),
                Made::Existing(id) => (StatusCode::OK, id),
            };
            Ok::<_, CommandError>((status, shape_of(connector, id)))
        });
        match made.await? {
            Ok((status, channel)) => return Ok((status, Json(channel?))),
            Err(error)
                if error.kind == CommandErrorKind::Busy && time::Instant::now() < deadline =>
            {
                time::sleep(GREETING_LOOK).await; // they are being asked to greet
            }
            Err(error) => return Err(Problem::from(error)),
        }
    }
}

/// Accepts a channel that was offered, or other limits of one.
#[utoipa::path(
    post,
    path = "/v1/channels/{id}/accept",
    operation_id = "accept_channel",
    tag = "channels",
    security(("bearer" = ["pay"])),
    params(("id" = String, Path, description = "Number of the channel, 32 hex digits")),
    responses(
        (status = 200, description = "The channel", body = Channel),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn accept(
    _: Allowed<ToPay>,
    State(api): State<Api>,
    extract::Path(id): extract::Path,
) -> Result<Json<Channel>, Problem> {
    let id = read_id(&id)?;
    let done = api.node.execute(move |connector, now, out| {
        connector.channel_accept(now, id, out)?;
        shape_of(connector, id)
    });
    Ok(Json(done.await??))
}

/// Declines a channel that was offered, or other limits of one.
#[utoipa::path(
    post,
    path = "/v1/channels/{id}/decline",
    operation_id = "decline_channel",
    tag = "channels",
    security(("bearer" = ["pay"])),
    params(("id" = String, Path, description = "Number of the channel, 32 hex digits")),
    request_body = ChannelDecline,
    responses(
        (status = 200, description = "The channel", body = Channel),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn decline(
    _: Allowed<ToPay>,
    State(api): State<Api>,
    extract::Path(id): extract::Path,
    extract::Json(request): extract::Json<ChannelDecline>,
) -> Result<Json<Channel>, Problem> {
    let id = read_id(&id)?;
    let done = api.node.execute(move |connector, now, out| {
        connector.channel_decline(now, id, &request.reason, out)?;
        shape_of(connector, id)
    });
    Ok(Json(done.await??))
}

/// Proposes other limits of an open channel.
#[utoipa::path(
    post,
    path = "/v1/channels/{id}/limits",
    operation_id = "change_channel_limits",
    tag = "channels",
    security(("bearer" = ["pay"])),
    params(("id" = String, Path, description = "Number of the channel, 32 hex digits")),
    request_body = ChannelLimits,
    responses(
        (status = 200, description = "The channel", body = Channel),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn limits(
    _: Allowed<ToPay>,
    State(api): State<Api>,
    extract::Path(id): extract::Path,
    extract::Json(request): extract::Json<ChannelLimits>,
) -> Result<Json<Channel>, Problem> {
    let id = read_id(&id)?;
    let done = api.node.execute(move |connector, now, out| {
        connector.channel_limits(now, id, request.limit.0, request.their_limit.0, out)?;
        shape_of(connector, id)
    });
    Ok(Json(done.await??))
}

/// Ends a channel, in agreement or alone.
#[utoipa::path(
    post,
    path = "/v1/channels/{id}/close",
    operation_id = "close_channel",
    tag = "channels",
    security(("bearer" = ["pay"])),
    params(("id" = String, Path, description = "Number of the channel, 32 hex digits")),
    request_body = ChannelClose,
    responses(
        (status = 200, description = "The channel", body = Channel),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn close(
    _: Allowed<ToPay>,
    State(api): State<Api>,
    extract::Path(id): extract::Path,
    extract::Json(request): extract::Json<ChannelClose>,
) -> Result<Json<Channel>, Problem> {
    let id = read_id(&id)?;
    let done = api.node.execute(move |connector, now, out| {
        connector.channel_close(now, id, request.alone, out)?;
        shape_of(connector, id)
    });
    Ok(Json(done.await??))
}

/// What can be shown of a channel: counters, keys, terms and signatures, which anybody can check.
#[utoipa::path(
    get,
    path = "/v1/channels/{id}/statement",
    operation_id = "read_channel_statement",
    tag = "channels",
    security(("bearer" = ["read"])),
    params(("id" = String, Path, description = "Number of the channel, 32 hex digits")),
    responses(
        (status = 200, description = "The statement (docs/design/channels.md)", body = serde_json::Value),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn statement(
    _: Allowed<ToRead>,
    State(api): State<Api>,
    extract::Path(id): extract::Path,
) -> Result<Json<rialto_channel::Statement>, Problem> {
    let id = read_id(&id)?;
    let statement = api.node.read(|connector| connector.channel_statement(id));
    Ok(Json(statement?))
}

fn read_id(text: &str) -> Result<ChannelId, Problem> {
    text.parse()
        .map_err(|_| Problem::not_found("channel", text))
}

fn shape_of(connector: &Connector, id: ChannelId) -> Result<Channel, Problem> {
    let known = connector.ledger().channels().get(&id);
    let known = known.ok_or_else(|| Problem::not_found("channel", &id.to_string()))?;
    Ok(shape(connector, known))
}

fn shape(connector: &Connector, known: &AccountChannel) -> Channel {
    let channel = &known.channel;
    let account = connector.ledger().account(known.account);
    let proposed = channel.change.map(|change| change.limits);
    let asset = &channel.terms.asset;
    let notes = connector.channel_notes(channel.id);
    Channel {
        id: channel.id.to_string(),
        account: account.map(|account| account.settings.name.clone()),
        kind: channel.terms.kind.into(),
        is_opener: channel.side == Side::Opener,
        state: channel.state_word().to_owned(),
        message: channel.state_sentence(),
        asset_code: asset.code().to_owned(),
        asset_scale: asset.scale(),
        limit: Amount(channel.our_limit()),
        their_limit: Amount(channel.their_limit()),
        proposed_limit: proposed.map(|limits| Amount(limits.of(channel.side))),
        proposed_their_limit: proposed.map(|limits| Amount(limits.of(channel.side.other()))),
        paid: Amount(channel.ours.total),
        taken: Amount(channel.taken),
        received: Amount(channel.theirs.total),
        owed: SignedAmount(channel.owed()),
        room: Amount(channel.room()),
        key: channel.terms.key_of(channel.side).to_string(),
        their_key: channel.their_key().to_string(),
        waiting: channel.outbox.len(),
        is_greeted: connector.channel_greeted(known.account),
        failure: connector.channel_failure(channel.id).map(ToOwned::to_owned),
        notes: notes
            .map(|note| ChannelNote {
                at: rfc3339(note.at_ms),
                message: note.message.clone(),
            })
            .collect(),
    }
}
