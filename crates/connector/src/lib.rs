//! The pure core of the node: what happens to a packet.
//!
//! [`Connector::handle`] turns an [`Input`] into [`Effects`]. It never waits, reads no clock, draws no
//! entropy and opens nothing; the shell performs the effects and decides nothing. `forward.rs` is the
//! path of a packet from top to bottom.
//!
//! | File | What |
//! |---|---|
//! | `forward.rs` | the four moments of a packet: prepare, fulfill, reject, expire |
//! | `control.rs` | packets to the node itself: `peer.config`, echo, ping |
//! | `local.rs` | STREAM endpoints: receivers behind payment pointers, outgoing payments |
//! | `command.rs` | what operators change |
//! | `invite.rs` | neighbours that come by invitation |
//! | `settle.rs` | settlement: when, and how an engine is told exactly once |
//! | `hand.rs` | settlements that operators write down, with a second one where it is asked for |
//! | `channels.rs` | settlement channels: one record a step, told until they are answered |
//! | `messages.rs` | messages to and from a peer, as settlement engines exchange |
//! | `refusal.rs` | why a packet was refused: one enum, one table |
//! | `jwt.rs` | tokens that peers make themselves, and ours |
//! | `routes.rs` | the routing table, and routes exchanged with peers (CCP) |
//! | `rates.rs` | conversions between the assets of two accounts |
//! | `quotes.rs`, `market.rs` | prices from a source outside |
//! | `pace.rs` | how fast packets go to a next hop that lets only so many through |
//! | `statement.rs` | statements of accounts: made here, checked anywhere |
//! | `parent.rs` | our own address from our parent |
//! | `pending.rs` | packets in flight and their deadlines |

// The order of a hash table must not show in results: the same seed has to give the same run.
#![warn(clippy::iter_over_hash_type)]

pub mod adjust;
mod channels;
pub mod command;
mod control;
mod forward;
pub mod hand;
mod invite;
mod io;
pub mod jwt;
mod local;
pub mod market;
pub mod messages;
mod pace;
mod parent;
mod pending;
pub mod quotes;
mod rates;
pub mod refusal;
mod routes;
pub mod settle;
pub mod statement;
mod stats;
mod stranger;

use std::collections::{BTreeMap, VecDeque};

use rand_chacha::ChaCha20Rng;
use rand_core::Rng;
use rialto_ledger::{AccountId, Ledger, LedgerError, Lsn, PaymentEnd, Record, Relation};
use rialto_packet::{
    Address,
    money::{Asset, Ratio},
};
use rustc_hash::FxHashMap;

pub use channels::{ChannelNote, ChannelRequest, NOTES_MAX};
pub use invite::{Acceptance, InviteError, routes_of_peer};
pub use io::{
    Action, Asked, Durable, Effect, Effects, EngineAsk, Event, Input, LinkId, Now, Paid, RequestId,
};
pub use local::SpspCredentials;
pub use refusal::{LinkFailure, Reason, Refusal};
pub use rialto_ccp::{ListenerState, Mode as RouteMode, TableId};
pub use rialto_routing::{Loss, Source as RouteSource};
pub use routes::{
    trouble::RouteTrouble,
    view::{PeerRoutes, RouteChange, RouteExplained, RouteLoss, RouteQuote, RouteView},
};
pub use stats::{AccountStats, Stats};
pub use stranger::{PeeringBounds, PeeringStand};

use channels::Channels;
use local::Local;
use market::{Market, MarketSettings};
use messages::Messages;
use pace::Paces;
use parent::Parent;
use pending::Pending;
use rates::Rates;
use routes::Routes;
use settle::Settle;

/// What an operator decides about the node as a whole.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our own address; `None` until the parent has given us one.
    pub address: Option<Address>,
    /// The operator gave us no address: the parent is asked for one.
    pub asks_parent: bool,
    /// Taken from a packet's life per hop, so that the answer has time to come back (RFC 27). Milliseconds.
    pub min_message_window_ms: i64,
    /// Longest time a packet may stay out. Milliseconds.
    pub max_hold_ms: i64,
    /// Kept of each conversion where neither pair nor account says otherwise.
    pub spread: Ratio,
    /// A Fulfill waits until its commit is on disk while there is time.
    pub strict: bool,
    /// Packets in flight over all accounts; beyond it new ones are refused.
    pub pending_max: usize,
    /// Per asset: most that may be in flight or not yet safe on disk over all accounts.
    pub unsynced_max: BTreeMap<Asset, u64>,
    /// How prices from outside are taken; `None` when there are only rates set by hand.
    pub market: Option<MarketSettings>,
    /// A settlement by hand waits for a second operator.
    pub second_approver: bool,
}

impl Settings {
    /// The field's usual values.
    pub fn new(address: Address) -> Self {
        Self {
            address: Some(address),
            asks_parent: false,
            ..Self::of_a_child()
        }
    }

    /// The same for a node that asks its parent for its address.
    pub fn of_a_child() -> Self {
        Self {
            address: None,
            asks_parent: true,
            min_message_window_ms: 1_000,
            max_hold_ms: 30_000,
            spread: Ratio::new(0, 1).expect("the denominator is not zero"),
            strict: false,
            pending_max: 1_000_000,
            unsynced_max: BTreeMap::new(),
            market: None,
            second_approver: false,
        }
    }
}

/// The core. One value, one owner at a time.
pub struct Connector {
    settings: Settings,
    ledger: Ledger,
    routes: Routes,
    rates: Rates,
    market: Market,
    parent: Parent,
    paces: Paces,
    pending: Pending,
    settle: Settle,
    messages: Messages,
    channels: Channels,
    /// Authenticated BTP sessions of an account, newest last; only the newest is sent to.
    sessions: FxHashMap<AccountId, Vec<LinkId>>,
    local: Local,
    stats: Stats,
    rng: ChaCha20Rng,
    /// The last record given out.
    lsn: Lsn,
    /// Why no new Prepare is accepted, if none is.
    closed: Option<Reason>,
    /// Local answers that wait for the end of the present step; see `local.rs`.
    local_answers: VecDeque<(RequestId, bytes::Bytes)>,
}

impl Connector {
    /// A node with empty books. `stream_secret` is what its STREAM credentials are derived from and
    /// must stay the same over restarts, as is the key that signs on its channels; `rng` is the only source of randomness.
    pub fn new(settings: Settings, stream_secret: [u8; 32], mut rng: ChaCha20Rng) -> Self {
        let table_key = [rng.next_u64(), rng.next_u64()];
        let ledger = Ledger::new(settings.unsynced_max.clone()).with_name_key(table_key);
        let mut market = Market::default();
        market.configure(settings.market.clone());
        let mut connector = Self {
            rates: Rates::new(settings.spread.clone()),
            market,
            parent: Parent::default(),
            paces: Paces::default(),
            settings,
            ledger,
            routes: Routes::new(table_key),
            pending: Pending::default(),
            settle: Settle::default(),
            messages: Messages::default(),
            channels: Channels::new(&stream_secret),
            sessions: FxHashMap::default(),
            local: Local::new(stream_secret),
            stats: Stats::default(),
            rng,
            lsn: Lsn(0),
            closed: None,
            local_answers: VecDeque::new(),
        };
        connector.rebuild_routes();
        connector
    }

    /// Applies one record of the journal, in order, before anything is handled.
    pub fn recover(&mut self, lsn: Lsn, record: Record) -> Result<(), LedgerError> {
        self.lsn = lsn;
        self.ledger.recover(record)
    }

    /// After the last record: routes are built, and payments that were cut off are ended where they
    /// stand, so that their keys say for ever how far they came.
    pub fn recovered(&mut self, out: &mut Effects) {
        self.ledger.recovered();
        self.rebuild_routes();
        let running = self
            .ledger
            .payments()
            .values()
            .filter(|payment| payment.end.is_none());
        let cut_off: Vec<_> = running.cloned().collect();
        for mut payment in cut_off {
            payment.end = Some(PaymentEnd::Failed {
                code: "interrupted".to_owned(),
                message: "the node stopped while the payment ran".to_owned(),
            });
            self.record(
                &Record::PaymentPut {
                    payment: Box::new(payment),
                },
                out,
            );
        }
        self.settle_resume(out);
        self.channels_resume();
    }

    /// Turns something that happened into what is to be done.
    pub fn handle(&mut self, now: Now, input: Input, out: &mut Effects) {
        self.routes.tick(now);
        match input {
            Input::Prepare {
                account,
                link,
                request,
                packet,
            } => {
                self.handle_prepare(now, account, link, request, packet, out);
            }
            Input::Reply {
                link,
                request,
                packet,
            } => {
                self.handle_reply(now, link, request, packet, out);
            }
            Input::Failed {
                link,
                request,
                failure,
            } => {
                self.handle_failed(now, link, request, failure, out);
            }
            Input::Unanswered { link, request } => self.handle_unanswered(now, link, request, out),
            Input::LinkUp { link, account } => self.handle_link_up(link, account, out),
            Input::Undelivered(paid) => self.count_undelivered(paid),
            Input::LinkDown { link } => self.handle_link_down(link, out),
            Input::Introduced { account, answer } => self.settle_introduced(now, account, answer),
            Input::Closed {
                account,
                engine_url,
                answer,
            } => self.settle_closed(now, account, engine_url, answer),
            Input::Settled { id, answer } => self.settle_answered(now, id, answer, out),
            Input::MessageAnswered { id, answer } => self.message_engine_answered(id, answer, out),
            Input::Timeout => {
                self.expire(now, out);
                self.step_routes(out);
                self.settle_timeout(now, out);
                self.messages_timeout(now, out);
                self.channels_timeout(now, out);
            }
            Input::Synced(lsn) => self.ledger.synced(lsn),
        }
        self.run_local(now, out);
        self.run_parent(now, out);
        self.after_routes(out);
    }

    /// When [`Input::Timeout`] is due, on the monotonic clock.
    pub fn poll_timeout(&self) -> Option<u64> {
        let asks_parent = self.settings.asks_parent && self.closed.is_none();
        let parent = asks_parent.then(|| self.parent.poll_timeout());
        let others = [
            self.local.poll_timeout(),
            self.routes.poll_timeout(),
            self.settle.poll_timeout(),
            self.messages.poll_timeout(),
            self.channels.poll_timeout(),
            parent,
        ];
        let others = others.into_iter().flatten();
        self.pending.next_deadline().into_iter().chain(others).min()
    }

    /// The books.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Puts a fault into the books on purpose.
    #[cfg(feature = "mutants")]
    pub fn set_mutant(&mut self, mutant: rialto_ledger::LedgerMutant) {
        self.ledger.mutant = Some(mutant);
    }

    /// Puts a fault into the channels on purpose.
    #[cfg(feature = "mutants")]
    pub fn set_channel_mutant(&mut self, mutant: rialto_channel::ChannelMutant) {
        self.channels.key.mutant = Some(mutant);
    }

    /// What was counted since the start.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Prices from outside.
    pub fn market(&self) -> &Market {
        &self.market
    }

    /// The node's settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Our own address; `None` until the parent has given us one.
    pub fn address(&self) -> Option<&Address> {
        self.settings.address.as_ref()
    }

    /// The same where a packet is handled: without an address none is.
    fn own_address(&self) -> &Address {
        let address = self.settings.address.as_ref();
        address.expect("`prepare_account` refuses every packet of a node without an address")
    }

    /// Replaces the settings that may change while the node runs: all but the address.
    pub fn reload(&mut self, settings: Settings) {
        self.rates = Rates::new(settings.spread.clone());
        self.market.configure(settings.market.clone());
        self.ledger.set_unsynced_max(settings.unsynced_max.clone());
        self.settings = Settings {
            address: self.settings.address.clone(),
            asks_parent: self.settings.asks_parent,
            ..settings
        };
    }

    /// The number of the last record given out.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Packets in flight.
    pub fn in_flight_count(&self) -> usize {
        self.pending.len()
    }

    /// Before a shutdown: new Prepares are refused and our own payments stop where they are; packets
    /// in flight finish.
    pub fn drain(&mut self, now: Now, out: &mut Effects) {
        self.closed.get_or_insert(Reason::Drain);
        self.stop_senders(now, out);
    }

    /// The journal failed: new Prepares are refused, and what is in flight is still decided.
    pub fn journal_failed(&mut self) {
        self.closed = Some(Reason::Internal);
    }

    /// Whether an account could be sent to right now, and how.
    pub fn link_of(&self, id: AccountId) -> Option<LinkId> {
        let account = self.ledger.account(id)?;
        if account.settings.relation == Relation::Local {
            return Some(LinkId::Local);
        }
        if account.settings.http.is_some() {
            return Some(LinkId::Http(id));
        }
        self.sessions.get(&id)?.last().copied()
    }

    /// Whether a BTP session of the account stands, whoever opened it.
    pub fn has_session(&self, id: AccountId) -> bool {
        self.sessions.contains_key(&id)
    }

    /// The account that a packet for this address goes to; `None` where there is none, or for the
    /// node itself.
    pub fn next_hop(&self, address: &Address) -> Option<AccountId> {
        let hop = self.choose_hop(self.routes.now_ns(), address.as_ref())?;
        (hop != AccountId::NODE).then_some(hop)
    }

    /// The address of an account: its own, or ours with its name after it.
    pub fn address_of(&self, id: AccountId) -> Option<Address> {
        let settings = &self.ledger.account(id)?.settings;
        match (&settings.ilp_address, settings.relation) {
            (Some(address), _) => Some(address.clone()),
            (None, Relation::Child | Relation::Local) => self.address()?.child(&settings.name).ok(),
            (None, Relation::Parent | Relation::Peer) => None,
        }
    }

    /// Appends a record to the journal-to-be and gives its number. Live changes that are not part of
    /// the packet path go through here, so that books and journal cannot differ.
    fn record(&mut self, record: &Record, out: &mut Effects) -> Lsn {
        self.ledger
            .apply(record)
            .expect("records are made from what is in the books");
        self.append(record, out)
    }

    /// The same for a record that is already in the books.
    fn append(&mut self, record: &Record, out: &mut Effects) -> Lsn {
        self.lsn.0 += 1;
        out.record(record);
        self.lsn
    }

    fn handle_link_up(&mut self, link: LinkId, account: AccountId, out: &mut Effects) {
        if self.ledger.account(account).is_none() {
            out.now(Action::Disconnect { link }); // deleted while it authenticated
            return;
        }
        let sessions = self.sessions.entry(account).or_default();
        // The newest wins. The older one is told to go; replies that come on it before are taken.
        for redundant in sessions.iter() {
            out.now(Action::Disconnect { link: *redundant });
        }
        sessions.push(link);
        self.hop_answered(account);
        self.exchange_account(account);
        self.settle_introduce(account, out);
        self.channel_link_up(account);
        if self.is_parent(account) {
            self.parent.ask_again();
        }
    }

    fn is_parent(&self, id: AccountId) -> bool {
        let account = self.ledger.account(id);
        account.is_some_and(|account| account.settings.relation == Relation::Parent)
    }

    fn handle_link_down(&mut self, link: LinkId, out: &mut Effects) {
        let mut gone = None;
        self.sessions.retain(|account, sessions| {
            let before = sessions.len();
            sessions.retain(|session| *session != link);
            if sessions.len() < before {
                gone = Some(*account);
            }
            !sessions.is_empty()
        });
        self.pending.forget_link(link);
        self.parent.forget_link(link);
        self.messages_link_down(link, out);
        if let Some(account) = gone {
            self.exchange_account(account);
        }
    }
}
