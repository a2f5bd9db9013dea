//! The records of the journal: everything that must survive, and its bytes.
//!
//! The two records of the packet path are a tag and fixed-width big-endian integers, and so are those of
//! which a checkpoint may hold very many: accounts and routes. The others, which change when an operator
//! acts, are JSON objects. The first byte tells which. docs/design/journal.md has the bytes.

use rialto_channel::Channel;
use rialto_packet::{Prefix, money::Asset, quantity::Quantity};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    channel::{ChannelMoney, ChannelOpening},
    hand::{HandSettlement, HandState},
    invite::{Invite, InviteUse},
    settings::{
        AccountId, AccountSettings, AccountTerms, IncomingToken, PaymentId, Rate, RouteShare,
        TokenHash,
    },
    settlement::{Credit, Settlement, SettlementId, SettlementState},
    statement::{Period, Statement},
    stranger::PeeringRequest,
    text::{self, is_default},
};

const TAG_COMMIT: u8 = 1;
const TAG_PROGRESS: u8 = 2;
const TAG_TERMS: u8 = 3;
const TAG_ACCOUNT: u8 = 4;
const TAG_ROUTE: u8 = 5;
const TAG_JSON: u8 = b'{';

/// Value that moved. Stands alone: replay needs nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Who pays.
    pub from: AccountId,
    /// In units of the payer's asset.
    pub amount_in: u64,
    /// Who is paid; [`AccountId::NODE`] when the node keeps it.
    pub to: AccountId,
    /// In units of the payee's asset; 0 when the node keeps it.
    pub amount_out: u64,
}

/// Where an outgoing payment stands. Cumulative, so the last one says it all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentProgress {
    /// Which payment.
    pub payment: PaymentId,
    /// Left the payer's account, in its units.
    #[serde(with = "text")]
    pub sent: u64,
    /// Arrived, in the receiver's units.
    #[serde(with = "text")]
    pub delivered: u64,
    /// Packets fulfilled.
    pub fulfilled: u64,
    /// Packets rejected, probes among them.
    pub rejected: u64,
}

/// How a payment ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "end", deny_unknown_fields)]
pub enum PaymentEnd {
    /// All of it was sent or delivered, as asked.
    Completed,
    /// It stopped; `sent` and `delivered` say exactly how far it came.
    Failed {
        /// A stable word for programs, such as `rate_too_low`.
        code: String,
        /// For people.
        message: String,
    },
}

/// An outgoing payment as it was asked for, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payment {
    /// Which payment.
    pub id: PaymentId,
    /// Who pays.
    pub account: AccountId,
    /// The payer's name when it was made, for the history.
    pub account_name: String,
    /// The caller's key: a second request with it is the same payment.
    pub idempotency_key: String,
    /// The request as it came, as canonical JSON: a second request with the same key must equal it.
    pub request: String,
    /// Payment pointer or URL that is paid.
    pub receiver: String,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
    /// Code and scale of what the receiver gets, once known.
    pub destination_asset: Option<(String, u8)>,
    /// Where it stands.
    pub progress: PaymentProgress,
    /// How it ended; `None` while it runs.
    pub end: Option<PaymentEnd>,
}

/// A balance as its operator corrected it, against the node's own position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adjustment {
    /// Counted from 1.
    pub id: u64,
    /// Whose balance.
    pub account: AccountId,
    /// The account's name when it was made, for the history.
    pub account_name: String,
    /// What the amount is counted in.
    #[serde(with = "text")]
    pub asset: Asset,
    /// Added to the balance, and taken from the node's position.
    #[serde(with = "text")]
    pub amount: i128,
    /// The operator's words.
    pub reason: String,
    /// The caller's key: a second request with it is the same adjustment.
    pub idempotency_key: String,
    /// Milliseconds since 1970.
    pub created_at_ms: i64,
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case", deny_unknown_fields)]
pub enum Record {
    /// A fulfilled packet. Not in JSON.
    #[serde(skip)]
    Commit(Commit),
    /// A step of a payment. Not in JSON.
    #[serde(skip)]
    Progress(PaymentProgress),
    /// An account was made or changed.
    AccountPut {
        /// Which; a new one has the next free number.
        id: AccountId,
        /// All of its settings.
        settings: Box<AccountSettings>,
    },
    /// Only in checkpoints: terms that accounts after it have. Its first bytes are not JSON.
    #[serde(skip)]
    TermsKept {
        /// Counted from 0.
        number: u32,
        /// All of them.
        terms: Box<AccountTerms>,
    },
    /// Only in checkpoints: an account and its balance. Not in JSON.
    #[serde(skip)]
    AccountKept {
        /// Which.
        id: AccountId,
        /// The number of its terms.
        terms: u32,
        /// Its name.
        name: String,
        /// Tokens, none of them a key.
        tokens: Vec<IncomingToken>,
        /// Positive: we owe them.
        balance: i128,
        /// What of it they paid ahead by settlements.
        prepaid: i128,
        /// What their packets paid us since the last statement. It was not counted at first: where it is
        /// missing, the period begins here.
        sent: Option<u128>,
    },
    /// An account was deleted, with its routes.
    AccountDeleted {
        /// Which.
        id: AccountId,
    },
    /// A static route was set.
    RoutePut {
        /// What it applies to.
        #[serde(with = "text")]
        prefix: Prefix,
        /// Next hop, or the first of several.
        account: AccountId,
        /// All next hops, where there are several.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        shares: Vec<RouteShare>,
    },
    /// A static route was removed.
    RouteDeleted {
        /// What it applied to.
        #[serde(with = "text")]
        prefix: Prefix,
    },
    /// A rate was set.
    RatePut {
        /// Code of the asset that is paid with.
        from: String,
        /// Code of the asset that is bought.
        to: String,
        /// Its price.
        rate: Rate,
    },
    /// A rate was removed.
    RateDeleted {
        /// Code of the asset that was paid with.
        from: String,
        /// Code of the asset that was bought.
        to: String,
    },
    /// A payment was asked for, learnt something, or ended.
    PaymentPut {
        /// All of it.
        payment: Box<Payment>,
    },
    /// An invitation was made.
    InvitePut {
        /// All of it.
        invite: Box<Invite>,
    },
    /// An invitation was accepted: its account and its end, in one.
    InviteAccepted {
        /// Which.
        hash: TokenHash,
        /// How.
        used: InviteUse,
        /// Of the account that was made for it.
        settings: Box<AccountSettings>,
    },
    /// An invitation was revoked, or is not remembered any longer.
    InviteDeleted {
        /// Which.
        hash: TokenHash,
    },
    /// A token that opens nothing is not told of any more.
    CallerBlocked {
        /// Which.
        hash: TokenHash,
    },
    /// It is again.
    CallerUnblocked {
        /// Which.
        hash: TokenHash,
    },
    /// A stranger asked to peer, or the operator said something to it.
    PeeringRequestPut {
        /// All of it.
        request: Box<PeeringRequest>,
    },
    /// Its account was made, or its time is over.
    PeeringRequestDeleted {
        /// Which.
        hash: TokenHash,
    },
    /// A balance was corrected.
    Adjusted {
        /// How.
        adjustment: Box<Adjustment>,
    },
    /// Only in checkpoints: a correction that the balances there already hold.
    AdjustmentKept {
        /// How.
        adjustment: Box<Adjustment>,
    },
    /// A settlement was made: its amount leaves the account's balance, before anybody is told.
    SettlementMade {
        /// All of it.
        settlement: Box<Settlement>,
    },
    /// A settlement got further.
    SettlementMoved {
        /// Which.
        id: SettlementId,
        /// How far it has come.
        state: SettlementState,
    },
    /// A settlement came in: credit, key and what is left, at once.
    SettlementCredited {
        /// All of it.
        credit: Box<Credit>,
    },
    /// The key of an incoming settlement was used again, long after the use that is on record.
    CreditKeyUsed {
        /// The key.
        key: String,
        /// Milliseconds since 1970.
        at_ms: i64,
    },
    /// A step of a settlement channel, with what it does to the books; without money also in checkpoints.
    ChannelPut {
        /// Counts the channels of the node.
        number: u64,
        /// Whose.
        account: AccountId,
        /// All that is remembered of it.
        channel: Box<Channel>,
        /// What it does to the books.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        money: Option<ChannelMoney>,
        /// How an operator asked for it: in its first record, and in checkpoints.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        opening: Option<ChannelOpening>,
    },
    /// An operator wrote down what was paid outside: it moves the balance, or waits for a second one.
    HandSettlementMade {
        /// All of it.
        settlement: Box<HandSettlement>,
    },
    /// A second operator decided: approved, it moves the balance.
    HandSettlementDecided {
        /// Which.
        id: SettlementId,
        /// How.
        state: HandState,
    },
    /// Only in checkpoints: a settlement by hand; the balances there already hold it if it is settled.
    HandSettlementKept {
        /// All of it.
        settlement: Box<HandSettlement>,
    },
    /// Only in checkpoints: a settlement whose amount has left the balance.
    SettlementKept {
        /// All of it.
        settlement: Box<Settlement>,
    },
    /// Only in checkpoints: an incoming settlement that is in the balance.
    CreditKept {
        /// All of it.
        credit: Box<Credit>,
    },
    /// Only in checkpoints: what is left of an account's incoming settlements.
    Leftover {
        /// Whose.
        account: AccountId,
        /// Less than one unit of the account's asset.
        #[serde(with = "text")]
        leftover: Quantity,
    },
    /// A statement was made of an account: its next period begins.
    StatementClosed {
        /// All of it.
        statement: Box<Statement>,
    },
    /// Only in checkpoints: a statement that was made before.
    StatementKept {
        /// All of it.
        statement: Box<Statement>,
    },
    /// Only in checkpoints: what happened on an account since its last statement.
    Period {
        /// Whose.
        account: AccountId,
        /// All of it.
        period: Box<Period>,
    },
    /// Only in checkpoints: an account's balance.
    Balance {
        /// Whose.
        account: AccountId,
        /// Positive: we owe them.
        #[serde(with = "text")]
        balance: i128,
        /// What of it they paid ahead by settlements.
        #[serde(default, with = "text", skip_serializing_if = "is_default")]
        prepaid: i128,
        /// What their packets paid us since the last statement. It was not counted at first: where it
        /// is missing, the period begins here.
        #[serde(
            default,
            with = "text::option",
            skip_serializing_if = "Option::is_none"
        )]
        sent: Option<u128>,
    },
    /// Only in checkpoints: the node's own position in an asset.
    Position {
        /// Code of the asset.
        code: String,
        /// Its scale.
        scale: u8,
        /// Minus the sum of all balances in it and of what was settled.
        #[serde(with = "text")]
        amount: i128,
        /// Paid out less what came in by settlements.
        #[serde(default, with = "text", skip_serializing_if = "is_default")]
        settled: i128,
    },
    /// Only in checkpoints: numbers that go on counting.
    Counters {
        /// The last account number given out.
        last_account: u32,
        /// The last payment number given out.
        last_payment: u64,
        /// The last settlement number given out.
        #[serde(default, skip_serializing_if = "is_default")]
        last_settlement: u64,
    },
}

/// Bytes in the journal that no version of the node wrote, or only a later one.
#[derive(Debug, Error)]
pub enum RecordError {
    /// The first byte names no kind of record, or the length does not fit it.
    #[error("record of {len} bytes starting with {first:?} is of no known kind")]
    Unknown {
        /// Its first byte.
        first: Option<u8>,
        /// Its length.
        len: usize,
    },
    /// The JSON is not one of the known records.
    #[error("record is not understood: {0}")]
    Json(#[from] serde_json::Error),
}

impl Record {
    /// Appends the bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Commit(commit) => {
                out.push(TAG_COMMIT);
                out.extend_from_slice(&commit.from.0.to_be_bytes());
                out.extend_from_slice(&commit.amount_in.to_be_bytes());
                out.extend_from_slice(&commit.to.0.to_be_bytes());
                out.extend_from_slice(&commit.amount_out.to_be_bytes());
            }
            Self::Progress(progress) => {
                out.push(TAG_PROGRESS);
                out.extend_from_slice(&progress.payment.0.to_be_bytes());
                out.extend_from_slice(&progress.sent.to_be_bytes());
                out.extend_from_slice(&progress.delivered.to_be_bytes());
                out.extend_from_slice(&progress.fulfilled.to_be_bytes());
                out.extend_from_slice(&progress.rejected.to_be_bytes());
            }
            Self::TermsKept { number, terms } => {
                out.push(TAG_TERMS);
                out.extend_from_slice(&number.to_be_bytes());
                serde_json::to_writer(out, terms)
                    .expect("terms have text keys and a Vec takes every write");
            }
            Self::AccountKept {
                id,
                terms,
                name,
                tokens,
                balance,
                prepaid,
                sent,
            } => {
                let standing = Standing {
                    balance: *balance,
                    prepaid: *prepaid,
                    sent: *sent,
                };
                encode_account(out, *id, *terms, name, tokens, standing);
            }
            Self::RoutePut {
                prefix,
                account,
                shares,
            } if shares.is_empty() => {
                out.push(TAG_ROUTE);
                out.extend_from_slice(&account.0.to_be_bytes());
                let length = u16::try_from(prefix.as_str().len()).expect("at most 1023 bytes");
                out.extend_from_slice(&length.to_be_bytes());
                out.extend_from_slice(prefix.as_str().as_bytes());
            }
            Self::AccountPut { .. }
            | Self::AccountDeleted { .. }
            | Self::RoutePut { .. } // with shares
            | Self::RouteDeleted { .. }
            | Self::RatePut { .. }
            | Self::RateDeleted { .. }
            | Self::PaymentPut { .. }
            | Self::InvitePut { .. }
            | Self::InviteAccepted { .. }
            | Self::InviteDeleted { .. }
            | Self::CallerBlocked { .. }
            | Self::CallerUnblocked { .. }
            | Self::PeeringRequestPut { .. }
            | Self::PeeringRequestDeleted { .. }
            | Self::Adjusted { .. }
            | Self::AdjustmentKept { .. }
            | Self::SettlementMade { .. }
            | Self::SettlementMoved { .. }
            | Self::SettlementCredited { .. }
            | Self::CreditKeyUsed { .. }
            | Self::ChannelPut { .. }
            | Self::HandSettlementMade { .. }
            | Self::HandSettlementDecided { .. }
            | Self::HandSettlementKept { .. }
            | Self::SettlementKept { .. }
            | Self::CreditKept { .. }
            | Self::Leftover { .. }
            | Self::StatementClosed { .. }
            | Self::StatementKept { .. }
            | Self::Period { .. }
            | Self::Balance { .. }
            | Self::Position { .. }
            | Self::Counters { .. } => serde_json::to_writer(out, self)
                .expect("these records have text keys and a Vec takes every write"),
        }
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let unknown = || RecordError::Unknown {
            first: bytes.first().copied(),
            len: bytes.len(),
        };
        match bytes.split_first() {
            Some((&TAG_COMMIT, rest)) => decode_commit(rest).map(Self::Commit).ok_or_else(unknown),
            Some((&TAG_PROGRESS, rest)) => decode_progress(rest)
                .map(Self::Progress)
                .ok_or_else(unknown),
            Some((&TAG_TERMS, rest)) => {
                let (number, terms) = rest.split_first_chunk().ok_or_else(unknown)?;
                Ok(Self::TermsKept {
                    number: u32::from_be_bytes(*number),
                    terms: serde_json::from_slice(terms)?,
                })
            }
            Some((&TAG_ACCOUNT, rest)) => decode_account(rest).ok_or_else(unknown),
            Some((&TAG_ROUTE, rest)) => decode_route(rest).ok_or_else(unknown),
            Some((&TAG_JSON, _)) => Ok(serde_json::from_slice(bytes)?),
            _ => Err(unknown()),
        }
    }
}

fn decode_commit(bytes: &[u8]) -> Option<Commit> {
    let bytes: &[u8; 24] = bytes.try_into().ok()?;
    let (from, amount_in) = (u32_at(bytes, 0), u64_at(bytes, 4));
    let (to, amount_out) = (u32_at(bytes, 12), u64_at(bytes, 16));
    Some(Commit {
        from: AccountId(from),
        amount_in,
        to: AccountId(to),
        amount_out,
    })
}

fn decode_progress(bytes: &[u8]) -> Option<PaymentProgress> {
    let bytes: &[u8; 40] = bytes.try_into().ok()?;
    Some(PaymentProgress {
        payment: PaymentId(u64_at(bytes, 0)),
        sent: u64_at(bytes, 8),
        delivered: u64_at(bytes, 16),
        fulfilled: u64_at(bytes, 24),
        rejected: u64_at(bytes, 32),
    })
}

/// What an account's record says beside its name and tokens.
const ACCOUNT_HAS_BALANCE: u8 = 1;
const ACCOUNT_HAS_BALANCE_AND_SENT: u8 = 2;

/// What a token's record says behind its hash.
const TOKEN: u8 = 0;
const TOKEN_UNTIL: u8 = 1;
const PIN: u8 = 2;
const PIN_UNTIL: u8 = 3;

/// Where an account stands, as its bytes say it.
#[derive(PartialEq, Eq)]
struct Standing {
    balance: i128,
    prepaid: i128,
    sent: Option<u128>,
}

impl Standing {
    const NEW: Self = Self {
        balance: 0,
        prepaid: 0,
        sent: Some(0),
    };
}

fn encode_account(
    out: &mut Vec<u8>,
    id: AccountId,
    terms: u32,
    name: &str,
    tokens: &[IncomingToken],
    standing: Standing,
) {
    out.push(TAG_ACCOUNT);
    out.extend_from_slice(&id.0.to_be_bytes());
    out.extend_from_slice(&terms.to_be_bytes());
    if standing == Standing::NEW {
        out.push(0);
    } else {
        out.push(match standing.sent {
            None => ACCOUNT_HAS_BALANCE,
            Some(_) => ACCOUNT_HAS_BALANCE_AND_SENT,
        });
        out.extend_from_slice(&standing.balance.to_be_bytes());
        out.extend_from_slice(&standing.prepaid.to_be_bytes());
        out.extend(standing.sent.into_iter().flat_map(u128::to_be_bytes));
    }
    out.push(u8::try_from(name.len()).expect("at most NAME_BYTES_MAX bytes"));
    out.extend_from_slice(name.as_bytes());
    out.push(u8::try_from(tokens.len()).expect("at most TOKENS_MAX tokens"));
    for token in tokens {
        out.extend_from_slice(&token.hash.0);
        out.push(match (token.pin, token.expires_at_ms) {
            (false, None) => TOKEN,
            (false, Some(_)) => TOKEN_UNTIL,
            (true, None) => PIN,
            (true, Some(_)) => PIN_UNTIL,
        });
        out.extend(token.expires_at_ms.into_iter().flat_map(i64::to_be_bytes));
    }
}

fn decode_account(bytes: &[u8]) -> Option<Record> {
    let mut bytes = bytes;
    let id = u32::from_be_bytes(take(&mut bytes)?);
    let terms = u32::from_be_bytes(take(&mut bytes)?);
    let standing = match take(&mut bytes)? {
        [0] => Standing::NEW,
        [has @ (ACCOUNT_HAS_BALANCE | ACCOUNT_HAS_BALANCE_AND_SENT)] => {
            let balance = i128::from_be_bytes(take(&mut bytes)?);
            let prepaid = i128::from_be_bytes(take(&mut bytes)?);
            let sent = match has == ACCOUNT_HAS_BALANCE_AND_SENT {
                true => Some(u128::from_be_bytes(take(&mut bytes)?)),
                false => None,
            };
            let standing = Standing {
                balance,
                prepaid,
                sent,
            };
            (standing != Standing::NEW).then_some(standing)?
        }
        [_] => return None,
    };
    let [length] = take(&mut bytes)?;
    let (name, rest) = bytes.split_at_checked(length.into())?;
    bytes = rest;
    let name = str::from_utf8(name).ok()?.to_owned();
    let [count] = take(&mut bytes)?;
    let mut tokens = Vec::with_capacity(count.into());
    for _ in 0..count {
        let hash = TokenHash(take(&mut bytes)?);
        let (pin, ends) = match take(&mut bytes)? {
            [TOKEN] => (false, false),
            [TOKEN_UNTIL] => (false, true),
            [PIN] => (true, false),
            [PIN_UNTIL] => (true, true),
            [_] => return None,
        };
        let expires_at_ms = match ends {
            true => Some(i64::from_be_bytes(take(&mut bytes)?)),
            false => None,
        };
        tokens.push(IncomingToken {
            hash,
            jwt: None,
            pin,
            expires_at_ms,
        });
    }
    bytes.is_empty().then_some(Record::AccountKept {
        id: AccountId(id),
        terms,
        name,
        tokens,
        balance: standing.balance,
        prepaid: standing.prepaid,
        sent: standing.sent,
    })
}

fn decode_route(bytes: &[u8]) -> Option<Record> {
    let mut bytes = bytes;
    let account = u32::from_be_bytes(take(&mut bytes)?);
    let length = u16::from_be_bytes(take(&mut bytes)?);
    if bytes.len() != usize::from(length) {
        return None;
    }
    Some(Record::RoutePut {
        prefix: str::from_utf8(bytes).ok()?.parse().ok()?,
        account: AccountId(account),
        shares: Vec::new(),
    })
}

/// The next bytes.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

fn u32_at(bytes: &[u8], start: usize) -> u32 {
    u32::from_be_bytes(
        bytes[start..start + 4]
            .try_into()
            .expect("a range of 4 bytes"),
    )
}

fn u64_at(bytes: &[u8], start: usize) -> u64 {
    u64::from_be_bytes(
        bytes[start..start + 8]
            .try_into()
            .expect("a range of 8 bytes"),
    )
}
