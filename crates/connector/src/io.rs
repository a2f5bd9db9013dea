//! What goes into the core and what comes out.

use bytes::{Bytes, BytesMut};
use rialto_channel::ChannelId;
use rialto_ledger::{AccountId, Lsn, PaymentId, Record, SettlementId};
use rialto_packet::{Address, quantity::Quantity};
pub use rialto_stream::Now;

use crate::{
    command::{PingOutcome, QuoteOutcome},
    messages::{MessageAnswer, MessageId, MessageOutcome},
    refusal::{LinkFailure, Reason},
    routes::trouble::RouteTrouble,
    settle::EngineAnswer,
};

/// Where packets come from and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkId {
    /// The STREAM endpoints of this node.
    Local,
    /// Requests to an account's ILP over HTTP endpoint.
    Http(AccountId),
    /// Requests from ILP over HTTP clients that wait on one of the shell's I/O threads.
    Waiting {
        /// Which thread.
        worker: u16,
    },
    /// One authenticated BTP session. A new connection is a new session.
    Session {
        /// The thread that owns its socket.
        worker: u16,
        /// Never used again while the process lives.
        serial: u32,
    },
}

/// Tells the packets in flight on one link apart. Those that the core gives out are never 0 and fit
/// the 32 bits of a BTP request id; those of incoming packets are chosen by the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What a Fulfill costs the account that it is passed back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paid {
    /// Who pays.
    pub account: AccountId,
    /// In its units.
    pub amount: u64,
}

/// Something happened outside.
#[derive(Debug)]
pub enum Input {
    /// A neighbour, authenticated as `account`, asks for something.
    Prepare {
        /// As whom it authenticated.
        account: AccountId,
        /// Where the answer goes.
        link: LinkId,
        /// The link's own name for the request.
        request: RequestId,
        /// The bytes, unchecked.
        packet: BytesMut,
    },
    /// A neighbour answered what [`Action::Forward`] sent.
    Reply {
        /// Where it came in.
        link: LinkId,
        /// The name that the core gave the request.
        request: RequestId,
        /// The bytes, unchecked.
        packet: Bytes,
    },
    /// The link could not deliver, or got something that is no ILP packet.
    Failed {
        /// The link.
        link: LinkId,
        /// The name that the core gave the request.
        request: RequestId,
        /// What went wrong.
        failure: LinkFailure,
    },
    /// The link lost a request that may have arrived: most likely nothing comes back for it. What it
    /// carried is still decided by its reply or its expiry.
    Unanswered {
        /// The link.
        link: LinkId,
        /// The name that the core gave the request.
        request: RequestId,
    },
    /// A BTP session was authenticated.
    LinkUp {
        /// The session.
        link: LinkId,
        /// As whom.
        account: AccountId,
    },
    /// The Fulfill of an [`Action::Answer`] found nobody any more: the books have it, and whoever has
    /// to pay for it does not know.
    Undelivered(Paid),
    /// A BTP session ended.
    LinkDown {
        /// The session.
        link: LinkId,
    },
    /// [`crate::Connector::poll_timeout`] was reached.
    Timeout,
    /// What the engine said to [`EngineAsk::Introduce`], or that it said nothing.
    Introduced {
        /// The account.
        account: AccountId,
        /// What it said.
        answer: EngineAnswer,
    },
    /// What the engine said to [`EngineAsk::Close`], or that it said nothing.
    Closed {
        /// The account.
        account: AccountId,
        /// Base URL of the engine.
        engine_url: String,
        /// What it said.
        answer: EngineAnswer,
    },
    /// What the engine said to [`EngineAsk::Settle`], or that it said nothing.
    Settled {
        /// Which settlement.
        id: SettlementId,
        /// What it said.
        answer: EngineAnswer,
    },
    /// What the engine said to [`EngineAsk::Message`], or that it said nothing.
    MessageAnswered {
        /// Which message.
        id: MessageId,
        /// What it said.
        answer: MessageAnswer,
    },
    /// Every record up to here is on disk.
    Synced(Lsn),
}

/// What the shell is to do.
#[derive(Debug)]
pub enum Action {
    /// Send a Prepare to a neighbour.
    Forward {
        /// Where.
        link: LinkId,
        /// Comes back in [`Input::Reply`], [`Input::Failed`] or [`Input::Unanswered`], or not at all.
        request: RequestId,
        /// The packet, ready to be sent.
        packet: Bytes,
        /// On the monotonic clock: a reply after it is of no use.
        deadline_ns: u64,
    },
    /// Answer a request of [`Input::Prepare`].
    Answer {
        /// Its link.
        link: LinkId,
        /// The link's own name for it.
        request: RequestId,
        /// Fulfill or Reject.
        packet: Bytes,
        /// For a Fulfill. Comes back in [`Input::Undelivered`] when the link is gone.
        paid: Option<Paid>,
    },
    /// Close a BTP session: a newer one took its place, or its account is gone.
    Disconnect {
        /// The session.
        link: LinkId,
    },
    /// Ask something of an account's settlement engine, or of the accounting system whose engine we are.
    Engine {
        /// The account.
        account: AccountId,
        /// Whom.
        asked: Asked,
        /// What.
        ask: EngineAsk,
    },
    /// Something worth a log line.
    Report(Event),
}

/// Who is asked about an account's settlements. Both are told of settlements and of messages in the same
/// words (RFC 38).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The account's settlement engine, by its base URL. It knows the account by our number.
    Engine(String),
    /// The accounting system whose engine we are, by the URL that the account has there.
    Accounting(String),
}

/// What is asked of them; an accounting system only the last two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineAsk {
    /// Open the account. Comes back in [`Input::Introduced`].
    Introduce,
    /// Close the account: it is deleted here, or has another engine. Comes back in [`Input::Closed`].
    Close,
    /// Pay; or hear what came in. Comes back in [`Input::Settled`].
    Settle {
        /// Which settlement.
        id: SettlementId,
        /// The same however often it is asked.
        key: String,
        /// How much.
        quantity: Quantity,
    },
    /// Take a message for the other side, once: it is not repeated. Comes back in
    /// [`Input::MessageAnswered`].
    Message {
        /// Which message.
        id: MessageId,
        /// As it came.
        data: Bytes,
        /// On the monotonic clock: an answer after it is of no use.
        deadline_ns: u64,
    },
}

/// What must be safe before an action may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// Nothing.
    Nothing,
    /// This record was handed to the operating system: it survives the process.
    Written(Lsn),
    /// This record is on disk, or there is no more time to wait for that.
    Synced {
        /// The record.
        lsn: Lsn,
        /// On the monotonic clock: then it happens all the same.
        no_later_than_ns: u64,
    },
    /// This record is on disk; without that it never happens.
    OnDisk(Lsn),
}

/// An action and what has to come before it.
#[derive(Debug)]
pub struct Effect {
    /// What must be safe first.
    pub after: Durable,
    /// What to do then.
    pub action: Action,
}

/// What operators may want to read.
#[derive(Debug, Clone)]
pub enum Event {
    /// A packet was refused here.
    Refused {
        /// Who sent it.
        account: AccountId,
        /// Why.
        reason: Reason,
    },
    /// A Fulfill came after the packet was given up: the next hop lost this much.
    LateFulfill {
        /// The next hop.
        account: AccountId,
        /// In its units.
        amount: u64,
    },
    /// Something is wrong with what a peer tells of its routes. Told at a pace.
    RouteTrouble {
        /// The peer.
        account: AccountId,
        /// What.
        trouble: RouteTrouble,
        /// The prefix, where there is one to blame.
        prefix: String,
    },
    /// An account was made, changed or deleted: whoever keeps a copy has to look again.
    AccountChanged {
        /// Which.
        account: AccountId,
    },
    /// Our parent gave us an address, or another one than before.
    AddressTaken {
        /// Ours from now on.
        address: Address,
    },
    /// Our parent gave us no address, or one that cannot be ours. What we had stays.
    AddressProblem {
        /// Why.
        message: String,
    },
    /// A settlement got further, or its engine did not answer; the books say which.
    SettlementChanged {
        /// Which.
        id: SettlementId,
    },
    /// An outgoing payment ended; the books say how.
    PaymentEnded {
        /// Which.
        id: PaymentId,
    },
    /// A quote is ready.
    QuoteDone {
        /// Which.
        number: u64,
        /// What was found out.
        outcome: Box<QuoteOutcome>,
    },
    /// Something about a settlement channel that an operator may want to know.
    ChannelNote {
        /// With whom.
        account: AccountId,
        /// Which; all zeros where none is known.
        channel: ChannelId,
        /// A sentence.
        message: String,
    },
    /// A message of ours to a peer was answered, or was not; or one that came for us was.
    MessageDone {
        /// Which.
        id: MessageId,
        /// What came of it.
        outcome: MessageOutcome,
    },
    /// A ping came back, or did not.
    PingDone {
        /// Which.
        number: u64,
        /// How it went.
        outcome: PingOutcome,
    },
}

/// What one or more calls of [`crate::Connector::handle`] gave out. Reused from batch to batch.
#[derive(Debug, Default)]
pub struct Effects {
    records: Vec<u8>,
    record_ends: Vec<usize>,
    effects: Vec<Effect>,
}

impl Effects {
    /// The bytes of the new records, in order.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.record_ends);
        starts
            .zip(&self.record_ends)
            .map(|(start, end)| &self.records[*start..*end])
    }

    /// Takes the actions, in order, once the records were appended to the journal.
    pub fn drain(&mut self) -> impl Iterator<Item = Effect> {
        self.records.clear();
        self.record_ends.clear();
        self.effects.drain(..)
    }

    /// Whether nothing came out.
    pub fn is_empty(&self) -> bool {
        self.record_ends.is_empty() && self.effects.is_empty()
    }

    pub(crate) fn record(&mut self, record: &Record) {
        record.encode(&mut self.records);
        self.record_ends.push(self.records.len());
    }

    pub(crate) fn now(&mut self, action: Action) {
        self.after(Durable::Nothing, action);
    }

    pub(crate) fn after(&mut self, after: Durable, action: Action) {
        self.effects.push(Effect { after, action });
    }
}
