//! The witness: it sees the bytes that go in and out of every node, keeps naive books of them, and
//! says what does not agree. It uses nothing of the node's own arithmetic.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{SHA256, digest};
use rialto_ccp::{UPDATE_DESTINATION, Update};
use rialto_channel::{Channel, ChannelId, is_ours};
use rialto_connector::{Action, Connector, Durable, Effect, LinkId, RequestId};
use rialto_ledger::{AccountId, ChannelMoney, Commit, Ledger, Record};
use rialto_packet::{PEER_CONDITION, Prepare, Reply, Timestamp};

use crate::{
    change::Change,
    plan::{AccountPlan, HOLD_MS_MAX, NodePlan, Party},
    settle::{Call, Outside, Settled},
    trouble::Troubles,
    trust::Trust,
};

/// Commits, with the numbers of their records.
type Commits = Vec<(u64, Commit)>;

/// What was found to be wrong, in one line.
pub(crate) type Checked = Result<(), String>;

/// One packet on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HopKey {
    pub(crate) connection: u32,
    /// The end that asked.
    pub(crate) end: usize,
    pub(crate) request: u64,
}

/// A node's side of an authenticated connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) connection: u32,
    /// The node's end of it.
    pub(crate) end: usize,
    pub(crate) account: AccountId,
    pub(crate) other: Party,
}

impl Link {
    /// A request that the node sent.
    pub(crate) fn asked(&self, request: u64) -> HopKey {
        let (connection, end) = (self.connection, self.end);
        HopKey {
            connection,
            end,
            request,
        }
    }

    /// A request that the node got.
    pub(crate) fn got(&self, request: u64) -> HopKey {
        let (connection, end) = (self.connection, 1 - self.end);
        HopKey {
            connection,
            end,
            request,
        }
    }
}

/// All links of a node in one life, by how the core names them.
#[derive(Debug, Default)]
pub(crate) struct Links {
    pub(crate) sessions: BTreeMap<u32, Link>,
    /// Neighbours that are asked by HTTP.
    pub(crate) http: BTreeMap<AccountId, Link>,
    /// Requests that came by HTTP.
    pub(crate) waiting: BTreeMap<u64, HopKey>,
}

impl Links {
    /// The way on which the node asks.
    pub(crate) fn asking(&self, link: LinkId) -> Option<Link> {
        match link {
            LinkId::Session { serial, .. } => self.sessions.get(&serial).copied(),
            LinkId::Http(account) => self.http.get(&account).copied(),
            LinkId::Local | LinkId::Waiting { .. } => None,
        }
    }

    /// A request that the node got.
    pub(crate) fn got(&self, link: LinkId, request: RequestId) -> Option<HopKey> {
        match link {
            LinkId::Session { serial, .. } => Some(self.sessions.get(&serial)?.got(request.0)),
            LinkId::Waiting { .. } => self.waiting.get(&request.0).copied(),
            LinkId::Local | LinkId::Http(_) => None,
        }
    }
}

/// All that is known of one packet between two neighbours.
#[derive(Debug, Clone)]
pub(crate) struct Hop {
    from: Party,
    to: Party,
    /// The account of the asking node that is paid, and of the asked node that pays.
    payee: AccountId,
    payer: AccountId,
    amount: u64,
    condition: [u8; 32],
    /// For those whose data is the preimage.
    preimage: Option<[u8; 32]>,
    expires_at: Timestamp,
    /// For a node that asked: until when a Fulfill counts, in simulated time.
    deadline_ns: u64,
    /// The packet that it came from.
    upstream: Option<HopKey>,
    /// Requests that are this one once more.
    copies: Vec<HopKey>,
    is_copy: bool,
    /// Between neighbours, about routes: it moves nothing, and its answer waits for nothing.
    is_talk: bool,
    /// A node that asked still waits.
    is_open: bool,
    /// Which life of the asked node got it.
    arrived: Option<u32>,
    /// What the asked node decided: whether it fulfilled.
    decided: Option<bool>,
    /// What it then sent.
    released: Option<bool>,
    /// Until when a Fulfill waits for the disk, in simulated time.
    waits_until_ns: Option<u64>,
    /// It was to be sent only once its record was on disk.
    is_promised: bool,
    /// The record of the asked node that books it, and whether it was lost after the Fulfill was sent.
    receiver_commit: Option<u64>,
    receiver_lost: bool,
    /// The record of the asking node, and whether it was lost.
    sender_commit: Option<u64>,
    sender_lost: bool,
}

/// What is known of one node.
#[derive(Debug)]
pub(crate) struct Books {
    /// As it was at first.
    first_plan: NodePlan,
    pub(crate) plan: NodePlan,
    /// Rates before the present one, and until when they were in force, in simulated time.
    rates: Vec<(u64, u64)>,
    /// What accounts use of their limits.
    limits: BTreeMap<AccountId, [Limit; 3]>,
    /// All records, the first at 0.
    history: Vec<Entry>,
    /// Sums of the commits.
    recorded: BTreeMap<AccountId, i128>,
    /// Sums of what was seen on the wires.
    seen: BTreeMap<AccountId, i128>,
    in_flight: BTreeMap<AccountId, u128>,
    /// Sums of what packets earned.
    pub(crate) earned: BTreeMap<AccountId, i128>,
    /// Sums of what settlements paid of what they owed.
    pub(crate) repaid: BTreeMap<AccountId, i128>,
    pub(crate) settled: Settled,
    pub(crate) trust: Trust,
    pub(crate) outside: Outside,
    open: BTreeSet<HopKey>,
    /// Counts restarts.
    life: u32,
}

/// One record.
#[derive(Debug)]
struct Entry {
    bytes: Vec<u8>,
    commit: Option<Commit>,
    /// Of a settlement or a channel.
    settlement: Option<Record>,
    /// What an operator asked for, in its first record.
    change: Option<Change>,
}

/// The use of a limit. A limit that is lowered stays exceeded for a while, but not by more.
#[derive(Debug, Clone, Copy)]
struct Limit {
    used: i128,
    allowed: i128,
}

impl Limit {
    fn changed(&mut self, max: i128) {
        self.allowed = self.used.max(max);
    }

    /// Whether `used` is allowed.
    fn check(&mut self, used: i128, max: i128) -> bool {
        let is_allowed = used <= self.allowed;
        self.used = used;
        self.allowed = self.allowed.min(used).max(max);
        is_allowed
    }
}

/// Of an account: credit, amount at risk, count in flight. Those of [`Books::limits`].
fn limits_of(plan: &AccountPlan) -> [i128; 3] {
    [
        -plan.balance_min,
        plan.unsynced_max.into(),
        plan.in_flight_count_max.into(),
    ]
}

/// An input as the witness sees it.
#[derive(Debug)]
pub(crate) enum Seen {
    Prepare {
        key: HopKey,
        packet: Vec<u8>,
    },
    Reply {
        link: Link,
        key: HopKey,
        packet: Vec<u8>,
    },
    Failed {
        key: HopKey,
    },
    Timeout,
    Change(Change),
    /// An engine says that something came in.
    Credit(Call),
    /// An operator decides on settlements.
    Operator,
    Other,
}

/// When something was seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// Simulated time.
    pub(crate) now_ns: u64,
    /// The node's wall clock.
    pub(crate) wall: Timestamp,
    /// What is to be added to the node's monotonic clock to get simulated time.
    pub(crate) boot_ns: i128,
}

/// How a node died.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Death {
    /// The disk lost its unsynced writes too.
    pub(crate) power_cut: bool,
    /// The journal had failed before.
    pub(crate) failed: bool,
    /// The process died within a write.
    pub(crate) written: u64,
    pub(crate) synced: u64,
}

/// What the run came to; sums over the whole network.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Packets between neighbours.
    pub hops: u64,
    /// Of those, requests by HTTP that came twice.
    pub copies: u64,
    /// Commands of operators under load.
    pub changes: u64,
    /// Commits booked.
    pub commits: u64,
    /// Crashes that left what was written.
    pub kills: u64,
    /// Crashes that left what was synced.
    pub power_cuts: u64,
    /// Commits that a power cut or a failed journal took.
    pub lost: u64,
    /// The most of a cap that was lost at once, in thousandths.
    pub lost_of_cap: u64,
    /// Fulfills that the asked node booked and the asking node did not.
    pub undelivered: u64,
    /// The opposite: the asked node lost its record.
    pub forgotten: u64,
    /// Updates that told a route or withdrew one.
    pub updates: u64,
    /// Packets that met a node for a second time while routes changed.
    pub loops: u64,
    /// Settlements that engines took.
    pub settlements: u64,
    /// Incoming settlements that were credited.
    pub credits: u64,
    /// Channels that were opened.
    pub channels: u64,
    /// Payments over them.
    pub claims: u64,
    /// What was forged or bent on purpose.
    pub lies: u64,
    /// What engines and the other sides of channels did, by its kind.
    pub troubles: Troubles,
    /// Of runs that were added up, those in which engines took settlements.
    pub settling: u64,
    /// Of runs that were added up, those in which channels were paid over.
    pub paying: u64,
}

impl Tally {
    /// Adds what another run came to.
    pub fn add(&mut self, other: &Self) {
        self.hops += other.hops;
        self.copies += other.copies;
        self.changes += other.changes;
        self.commits += other.commits;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.lost += other.lost;
        self.lost_of_cap = self.lost_of_cap.max(other.lost_of_cap);
        self.undelivered += other.undelivered;
        self.forgotten += other.forgotten;
        self.updates += other.updates;
        self.loops += other.loops;
        self.settlements += other.settlements;
        self.credits += other.credits;
        self.channels += other.channels;
        self.claims += other.claims;
        self.lies += other.lies;
        self.troubles.add(&other.troubles);
        self.settling += u64::from(other.settlements > 0);
        self.paying += u64::from(other.claims > 0);
    }
}

/// The witness.
#[derive(Debug)]
pub(crate) struct Witness {
    pub(crate) nodes: Vec<Books>,
    /// Channels as scripted neighbours have them, and with which node.
    pub(crate) edge_channels: BTreeMap<ChannelId, (usize, Channel)>,
    hops: BTreeMap<HopKey, Hop>,
    pub(crate) tally: Tally,
    /// When an update last carried anything, in simulated time.
    pub(crate) told_ns: u64,
    /// Routes have had the time to be right.
    pub(crate) is_settled: bool,
}

fn complain<T>(text: String) -> Result<T, String> {
    Err(text)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest(&SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

/// Whether a packet carries something of a channel.
fn has_frame(packet: &[u8]) -> bool {
    Prepare::parse(packet).is_ok_and(|packet| is_ours(packet.data()))
}

fn preimage<B: AsRef<[u8]>>(packet: &Prepare<B>) -> Option<[u8; 32]> {
    packet.data().try_into().ok()
}

fn add(to: &mut BTreeMap<AccountId, i128>, account: AccountId, amount: i128) {
    *to.entry(account).or_default() += amount;
}

impl Books {
    fn commit(&mut self, commit: &Commit) {
        add(
            &mut self.recorded,
            commit.from,
            -i128::from(commit.amount_in),
        );
        if commit.to != AccountId::NODE {
            add(&mut self.recorded, commit.to, commit.amount_out.into());
            add(&mut self.earned, commit.to, commit.amount_out.into());
        }
    }

    /// A record of a settlement or a channel. Its amounts are those that engines were told, or told.
    fn settle(&mut self, record: &Record) -> Checked {
        self.trust.enter(record)?;
        if let Some((account, amount)) = self.settled.enter(&self.plan, record)? {
            let is_credit = matches!(
                record,
                Record::SettlementCredited { .. }
                    | Record::ChannelPut {
                        money: Some(ChannelMoney::Credited { .. }),
                        ..
                    }
            );
            if is_credit {
                let owed = -self.recorded.get(&account).copied().unwrap_or_default();
                add(&mut self.repaid, account, amount.min(owed.max(0)));
            }
            add(&mut self.recorded, account, amount);
            add(&mut self.seen, account, amount);
        }
        Ok(())
    }

    /// Commits after record `lsn`, by payer.
    fn commits_after(&self, lsn: u64) -> BTreeMap<AccountId, u128> {
        let mut sums = BTreeMap::new();
        let after = usize::try_from(lsn).expect("few records");
        for entry in self.history.iter().skip(after) {
            if let Some(commit) = entry.commit {
                *sums.entry(commit.from).or_default() += u128::from(commit.amount_in);
            }
        }
        sums
    }

    fn is_neighbour(&self, id: AccountId) -> bool {
        id != AccountId::NODE && !self.plan.is_local(id)
    }

    /// What may be lost of an account at present.
    fn cap(&self, id: AccountId) -> u128 {
        let cap = u128::from(self.plan.account(id).unsynced_max);
        let allowed = self.limits.get(&id).map_or(0, |limits| limits[1].allowed);
        cap.max(u128::try_from(allowed).unwrap_or(0))
    }

    /// What an operator changed is in force from its record on.
    fn change(&mut self, now_ns: u64, change: &Change) {
        match change {
            Change::Account(plan) => {
                let id = self.plan.id(&plan.name);
                self.plan.accounts[id.0 as usize - 1] = plan.clone();
                if let Some(limits) = self.limits.get_mut(&id) {
                    for (limit, max) in limits.iter_mut().zip(limits_of(plan)) {
                        limit.changed(max);
                    }
                }
            }
            Change::Rate(percent) => {
                self.rates.push((self.plan.rate_percent, now_ns));
                self.plan.rate_percent = *percent;
            }
            Change::RoutePut(..) | Change::RouteDelete(_) => {}
        }
    }

    /// Whether a packet that is still in flight may have been converted to this.
    fn was_converted(&self, now_ns: u64, commit: &Commit) -> bool {
        let oldest_ns = now_ns.saturating_sub(HOLD_MS_MAX.unsigned_abs() * 1_000_000);
        let before = self
            .rates
            .iter()
            .filter(|(_, until_ns)| *until_ns >= oldest_ns);
        let rates = before
            .map(|(rate, _)| *rate)
            .chain([self.plan.rate_percent]);
        let converted = |rate| {
            self.plan
                .converted_at(rate, commit.from, commit.to, commit.amount_in)
        };
        rates
            .map(converted)
            .any(|amount| amount == Some(commit.amount_out))
    }

    /// Sums per account, each against its cap and per asset against the node's.
    fn check_caps(&self, sums: &BTreeMap<AccountId, u128>, what: &str) -> Checked {
        let mut assets: BTreeMap<_, u128> = BTreeMap::new();
        for (id, sum) in sums {
            let plan = self.plan.account(*id);
            let cap = self.cap(*id);
            if *sum > cap {
                let name = &plan.name;
                return complain(format!(
                    "I10: {what} {sum} of {name} is above its cap {cap}"
                ));
            }
            *assets.entry((plan.code, plan.scale)).or_default() += sum;
        }
        for (asset, sum) in assets {
            if sum > self.plan.unsynced_max.into() {
                let cap = self.plan.unsynced_max;
                return complain(format!(
                    "I10: {what} {sum} in {asset:?} is above the cap {cap}"
                ));
            }
        }
        Ok(())
    }
}

impl Witness {
    pub(crate) fn new(plans: &[NodePlan]) -> Self {
        let books = |plan: &NodePlan| Books {
            first_plan: plan.clone(),
            plan: plan.clone(),
            rates: Vec::new(),
            limits: BTreeMap::new(),
            history: Vec::new(),
            recorded: BTreeMap::new(),
            seen: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            earned: BTreeMap::new(),
            repaid: BTreeMap::new(),
            settled: Settled::default(),
            trust: Trust::default(),
            outside: Outside::default(),
            open: BTreeSet::new(),
            life: 0,
        };
        Self {
            nodes: plans.iter().map(books).collect(),
            edge_channels: BTreeMap::new(),
            hops: BTreeMap::new(),
            tally: Tally::default(),
            told_ns: 0,
            is_settled: false,
        }
    }

    pub(crate) fn plan(&self, node: usize) -> &NodePlan {
        &self.nodes[node].plan
    }

    /// A scripted neighbour sends a Prepare, or what it says is one.
    pub(crate) fn edge_asks(
        &mut self,
        key: HopKey,
        from: Party,
        to: usize,
        payer: AccountId,
        packet: &[u8],
    ) {
        let parsed = Prepare::parse(packet).ok();
        let is_talk = |packet: &Prepare<&[u8]>| {
            packet.condition() == PEER_CONDITION && packet.destination().starts_with("peer")
        };
        let hop = Hop {
            from,
            to: Party::Node(to),
            payee: AccountId::NODE,
            payer,
            amount: parsed.as_ref().map_or(0, Prepare::amount),
            condition: parsed.as_ref().map_or([0; 32], Prepare::condition),
            preimage: parsed.as_ref().and_then(preimage),
            expires_at: parsed.as_ref().map_or(Timestamp::MIN, Prepare::expires_at),
            deadline_ns: 0,
            upstream: None,
            copies: Vec::new(),
            is_copy: false,
            is_talk: parsed.as_ref().is_some_and(is_talk),
            is_open: false,
            arrived: None,
            decided: None,
            released: None,
            waits_until_ns: None,
            is_promised: false,
            receiver_commit: None,
            receiver_lost: false,
            sender_commit: None,
            sender_lost: false,
        };
        self.tally.hops += 1;
        self.hops.insert(key, hop);
    }

    /// A scripted neighbour got an answer.
    pub(crate) fn edge_answered(&mut self, key: HopKey, packet: &[u8]) -> Checked {
        let Some(hop) = self.hops.get(&key) else {
            return complain(format!("an answer to a request that nobody sent: {key:?}"));
        };
        match Reply::parse(packet) {
            Ok(Reply::Fulfill(fulfill)) if sha256(&fulfill.fulfillment()) != hop.condition => {
                complain(format!("I4: a wrong fulfillment was passed on: {key:?}"))
            }
            Ok(Reply::Fulfill(_) | Reply::Reject(_)) => Ok(()),
            Err(error) => complain(format!("an answer that is no packet: {key:?} {error}")),
        }
    }

    /// Whether a scripted neighbour's packet was fulfilled; `None` without an answer.
    pub(crate) fn outcome(&self, key: HopKey) -> Option<bool> {
        self.hops.get(&key)?.released
    }

    /// One input of a node, the records and effects that came of it.
    pub(crate) fn observe(
        &mut self,
        node: usize,
        at: Moment,
        seen: &Seen,
        records: &[Vec<u8>],
        effects: &[Effect],
        links: &Links,
    ) -> Checked {
        let (commits, settled) = self.observe_records(node, at, seen, records)?;
        self.observe_settled(node, seen, &settled, effects)?;
        self.observe_channels(node, &settled, effects)?;
        self.observe_input(node, at, seen, &commits)?;
        let mut fulfilled = 0;
        for effect in effects {
            match &effect.action {
                Action::Answer {
                    link,
                    request,
                    packet,
                    ..
                } => {
                    let key = links.got(*link, *request).ok_or("an answer to no link")?;
                    fulfilled +=
                        self.observe_answer(node, at, key, effect.after, packet, &commits)?;
                }
                Action::Forward {
                    link,
                    request,
                    packet,
                    ..
                } => {
                    let waits = matches!(effect.after, Durable::OnDisk(_));
                    // What is told over a channel has happened, whatever comes.
                    if waits != has_frame(packet) || !waits && effect.after != Durable::Nothing {
                        return complain(format!("a packet waits for {:?}", effect.after));
                    }
                    let link = links.asking(*link).ok_or("a packet to no link")?;
                    self.observe_forward(node, at, seen, link, request.0, packet)?;
                }
                Action::Engine { .. } | Action::Disconnect { .. } | Action::Report(_) => {}
            }
        }
        let books = &self.nodes[node];
        let from_neighbours = commits
            .iter()
            .filter(|(_, commit)| books.is_neighbour(commit.from));
        let count = from_neighbours.count();
        if count != fulfilled {
            return complain(format!(
                "I3: {fulfilled} fulfills were passed upstream for {count} commits"
            ));
        }
        Ok(())
    }

    fn observe_records(
        &mut self,
        node: usize,
        at: Moment,
        seen: &Seen,
        records: &[Vec<u8>],
    ) -> Result<(Commits, Vec<Record>), String> {
        let books = &mut self.nodes[node];
        let mut change = match seen {
            Seen::Change(change) => Some(change.clone()),
            Seen::Prepare { .. }
            | Seen::Reply { .. }
            | Seen::Failed { .. }
            | Seen::Timeout
            | Seen::Credit(_)
            | Seen::Operator
            | Seen::Other => None,
        };
        let (mut commits, mut settlements) = (Vec::new(), Vec::new());
        for bytes in records {
            let record = Record::decode(bytes).map_err(|error| error.to_string())?;
            let mut is_settlement = false;
            let commit = match record {
                Record::Commit(commit) => Some(commit),
                Record::SettlementMade { .. }
                | Record::SettlementMoved { .. }
                | Record::SettlementCredited { .. }
                | Record::ChannelPut { .. } => {
                    is_settlement = true;
                    None
                }
                Record::Progress(_)
                | Record::AccountPut { .. }
                | Record::TermsKept { .. }
                | Record::AccountKept { .. }
                | Record::AccountDeleted { .. }
                | Record::RoutePut { .. }
                | Record::RouteDeleted { .. }
                | Record::RatePut { .. }
                | Record::RateDeleted { .. }
                | Record::PaymentPut { .. }
                | Record::InvitePut { .. }
                | Record::InviteAccepted { .. }
                | Record::InviteDeleted { .. }
                | Record::CallerBlocked { .. }
                | Record::CallerUnblocked { .. }
                | Record::PeeringRequestPut { .. }
                | Record::PeeringRequestDeleted { .. }
                | Record::Adjusted { .. }
                | Record::AdjustmentKept { .. }
                | Record::CreditKeyUsed { .. }
                | Record::HandSettlementMade { .. }
                | Record::HandSettlementDecided { .. }
                | Record::HandSettlementKept { .. }
                | Record::SettlementKept { .. }
                | Record::CreditKept { .. }
                | Record::Leftover { .. }
                | Record::StatementClosed { .. }
                | Record::StatementKept { .. }
                | Record::Period { .. }
                | Record::Balance { .. }
                | Record::Position { .. }
                | Record::Counters { .. } => None,
            };
            let change = change.take();
            if let Some(change) = &change {
                self.tally.changes += 1;
                books.change(at.now_ns, change);
            }
            let settlement = is_settlement.then_some(record);
            if let Some(record) = &settlement {
                books.settle(record)?;
                settlements.push(record.clone());
            }
            books.history.push(Entry {
                bytes: bytes.clone(),
                commit,
                settlement,
                change,
            });
            let Some(commit) = commit else { continue };
            if commit.to != AccountId::NODE && !books.was_converted(at.now_ns, &commit) {
                return complain(format!("I5: {commit:?} is not what the rate gives"));
            }
            books.commit(&commit);
            self.tally.commits += 1;
            commits.push((books.history.len() as u64, commit));
        }
        Ok((commits, settlements))
    }

    /// Packets that end with this input, and the one that a Fulfill pays.
    fn observe_input(
        &mut self,
        node: usize,
        at: Moment,
        seen: &Seen,
        commits: &[(u64, Commit)],
    ) -> Checked {
        let mut paid = None;
        match seen {
            Seen::Prepare { key, .. } => {
                let life = self.nodes[node].life;
                let hop = self.hops.get_mut(key).ok_or("a packet from nowhere")?;
                hop.arrived = Some(life);
            }
            Seen::Reply { link, key, packet } => {
                if let Some(hop) = self.hops.get(key).filter(|hop| hop.is_open)
                    && let Ok(Reply::Fulfill(fulfill)) = Reply::parse(&packet[..])
                    && sha256(&fulfill.fulfillment()) == hop.condition
                    && at.now_ns < hop.deadline_ns
                {
                    paid = Some((*key, link.account, hop.amount));
                }
                self.close(node, *key);
            }
            Seen::Failed { key } => self.close(node, *key),
            Seen::Timeout => {
                let is_due = |key: &&HopKey| self.hops[*key].deadline_ns <= at.now_ns;
                let due: Vec<_> = self.nodes[node]
                    .open
                    .iter()
                    .filter(is_due)
                    .copied()
                    .collect();
                due.into_iter().for_each(|key| self.close(node, key));
            }
            Seen::Change(_) | Seen::Credit(_) | Seen::Operator | Seen::Other => {}
        }
        let books = &mut self.nodes[node];
        let to_neighbours: Vec<_> = commits
            .iter()
            .filter(|(_, commit)| books.is_neighbour(commit.to))
            .collect();
        match (paid, &to_neighbours[..]) {
            (None, []) => Ok(()),
            (Some((key, account, amount)), [(lsn, commit)])
                if (commit.to, commit.amount_out) == (account, amount) =>
            {
                add(&mut books.seen, account, amount.into());
                self.hops
                    .get_mut(&key)
                    .expect("it was looked up")
                    .sender_commit = Some(*lsn);
                Ok(())
            }
            _ => complain(format!(
                "I4: {to_neighbours:?} was booked where {paid:?} was due"
            )),
        }
    }

    fn close(&mut self, node: usize, key: HopKey) {
        let Some(hop) = self.hops.get_mut(&key) else {
            return;
        };
        let books = &mut self.nodes[node];
        if !books.open.remove(&key) {
            return;
        }
        hop.is_open = false;
        let upstream = hop.upstream.and_then(|key| self.hops.get(&key));
        if let Some(upstream) = upstream {
            let in_flight = books.in_flight.entry(upstream.payer).or_default();
            *in_flight -= u128::from(upstream.amount);
        }
    }

    /// Gives 1 for a Fulfill.
    fn observe_answer(
        &mut self,
        node: usize,
        at: Moment,
        key: HopKey,
        after: Durable,
        packet: &[u8],
        commits: &[(u64, Commit)],
    ) -> Result<usize, String> {
        let hop = self.hops.get_mut(&key).ok_or("an answer to nobody")?;
        if hop.to != Party::Node(node) || hop.arrived.is_none() || hop.decided.is_some() {
            return complain(format!("I3: a second end of {key:?}: {hop:?}"));
        }
        let reply = Reply::parse(packet).map_err(|error| error.to_string())?;
        let Reply::Fulfill(fulfill) = reply else {
            hop.decided = Some(false);
            return Ok(0);
        };
        hop.decided = Some(true);
        if hop.is_talk {
            let waits = matches!(after, Durable::OnDisk(_));
            return match waits == is_ours(fulfill.data()) {
                true => Ok(0),
                false => complain(format!("G4: an answer about a channel waits for {after:?}")),
            };
        }
        let lsn = match after {
            Durable::Written(lsn) => lsn,
            Durable::Synced {
                lsn,
                no_later_than_ns,
            } => {
                let until_ns = i128::from(no_later_than_ns) + at.boot_ns;
                hop.waits_until_ns = u64::try_from(until_ns).ok();
                lsn
            }
            Durable::Nothing | Durable::OnDisk(_) => {
                return complain(format!("a fulfill that waits for no record: {key:?}"));
            }
        };
        let commit = commits.iter().find(|(of, _)| *of == lsn.0);
        let is_right = |commit: &Commit| commit.from == hop.payer && commit.amount_in == hop.amount;
        if !commit.is_some_and(|(_, commit)| is_right(commit)) {
            return complain(format!(
                "I3: the fulfill of {key:?} has no commit: {commit:?} for {hop:?}"
            ));
        }
        if sha256(&fulfill.fulfillment()) != hop.condition {
            return complain(format!("I4: a wrong fulfillment: {key:?}"));
        }
        hop.receiver_commit = Some(lsn.0);
        let (payer, amount) = (hop.payer, hop.amount);
        add(&mut self.nodes[node].seen, payer, -i128::from(amount));
        Ok(1)
    }

    fn observe_forward(
        &mut self,
        node: usize,
        at: Moment,
        seen: &Seen,
        link: Link,
        request: u64,
        packet: &[u8],
    ) -> Checked {
        let packet = Prepare::parse(packet).map_err(|error| error.to_string())?;
        let key = link.asked(request);
        let destination = packet.destination();
        let is_talk = destination.as_str().starts_with("peer.");
        if self.hops.get(&key).is_some_and(|hop| hop.is_open) {
            return complain(format!(
                "a request id is used again while it is in use: {key:?}"
            ));
        }
        let expires_at = packet.expires_at();
        if !is_talk && expires_at > at.wall.plus_ms(HOLD_MS_MAX) {
            return complain(format!("I6: {key:?} is held longer than allowed"));
        }
        // What a node sends while it handles a packet is that packet, or its own senders' next.
        let upstream = match seen {
            Seen::Prepare { key, .. }
                if !is_talk && self.hops[key].condition == packet.condition() =>
            {
                Some(*key)
            }
            Seen::Prepare { .. }
            | Seen::Reply { .. }
            | Seen::Failed { .. }
            | Seen::Timeout
            | Seen::Change(_)
            | Seen::Credit(_)
            | Seen::Operator
            | Seen::Other => None,
        };
        if is_talk && packet.amount() > 0 {
            return complain(format!("{key:?} pays for talk"));
        }
        if destination.as_str() == UPDATE_DESTINATION {
            let update = Update::parse(packet.data()).map_err(|error| error.to_string())?;
            if update.routes().left() + update.withdrawn().left() > 0 {
                self.tally.updates += 1;
                self.told_ns = at.now_ns;
            }
        }
        if upstream.is_some_and(|upstream| self.was_at(upstream, link.other)) {
            if self.is_settled {
                return complain(format!("a packet goes round: {key:?} to {destination}"));
            }
            self.tally.loops += 1;
        }
        let books = &mut self.nodes[node];
        if !is_talk && books.plan.account(link.account).is_paused {
            return complain(format!("{key:?} is sent to a paused account"));
        }
        if let Some(from) = upstream {
            let from = &self.hops[&from];
            if books.plan.account(from.payer).is_paused {
                return complain(format!("{key:?} comes from a paused account"));
            }
            if expires_at > from.expires_at.plus_ms(-books.plan.window_ms) {
                return complain(format!("I6: {key:?} expires less than a window earlier"));
            }
            let amount = books.plan.converted(from.payer, link.account, from.amount);
            if amount != Some(packet.amount()) {
                return complain(format!(
                    "I5: {} is passed on where {amount:?} is due: {key:?}",
                    packet.amount()
                ));
            }
            *books.in_flight.entry(from.payer).or_default() += u128::from(from.amount);
        }
        if !is_talk {
            books.open.insert(key);
        }
        let left_ms = u64::try_from(expires_at.ms_since(at.wall)).unwrap_or(0);
        let payer = match link.other {
            Party::Node(other) => {
                let name = &self.nodes[node].plan.name;
                self.nodes[other].plan.id(name)
            }
            Party::Edge(_) => AccountId::NODE,
        };
        let hop = Hop {
            from: Party::Node(node),
            to: link.other,
            payee: link.account,
            payer,
            amount: packet.amount(),
            condition: packet.condition(),
            preimage: preimage(&packet),
            expires_at,
            deadline_ns: at.now_ns + left_ms * 1_000_000,
            upstream,
            copies: Vec::new(),
            is_copy: false,
            is_talk,
            is_open: !is_talk,
            arrived: None,
            decided: None,
            released: None,
            waits_until_ns: None,
            is_promised: false,
            receiver_commit: None,
            receiver_lost: false,
            sender_commit: None,
            sender_lost: false,
        };
        self.tally.hops += 1;
        self.hops.insert(key, hop);
        Ok(())
    }

    /// Whether a packet was sent by somebody before it came here.
    fn was_at(&self, mut key: HopKey, party: Party) -> bool {
        while let Some(hop) = self.hops.get(&key) {
            if hop.from == party {
                return true;
            }
            let Some(upstream) = hop.upstream else { break };
            key = upstream;
        }
        false
    }

    /// An answer leaves a node.
    pub(crate) fn released(&mut self, now_ns: u64, key: HopKey, packet: &[u8]) -> Checked {
        let hop = self.hops.get_mut(&key).ok_or("an answer to nobody left")?;
        let is_fulfill = matches!(Reply::parse(packet), Ok(Reply::Fulfill(_)));
        if hop.released.is_some() || hop.decided != Some(is_fulfill) {
            return complain(format!(
                "I3: what left is not what was decided: {key:?} {hop:?}"
            ));
        }
        hop.released = Some(is_fulfill);
        hop.is_promised = hop.waits_until_ns.is_some_and(|until_ns| now_ns < until_ns);
        Ok(())
    }

    /// A request by HTTP arrives once more.
    pub(crate) fn copied(&mut self, key: HopKey, copy: HopKey) {
        let hop = self.hops.get_mut(&key).expect("it was just sent");
        hop.copies.push(copy);
        self.tally.copies += 1;
        let hop = Hop {
            copies: Vec::new(),
            is_copy: true,
            is_open: false,
            ..hop.clone()
        };
        self.hops.insert(copy, hop);
    }

    /// After each step of a node.
    pub(crate) fn check(&mut self, node: usize, core: &Connector, synced: u64) -> Checked {
        self.check_balances(node, core.ledger())?;
        let books = &mut self.nodes[node];
        if core.in_flight_count() != books.open.len() {
            let (core, seen) = (core.in_flight_count(), books.open.len());
            return complain(format!(
                "I3: {core} packets are in flight where {seen} were seen"
            ));
        }
        let mut at_risk = books.commits_after(synced);
        for account in core.ledger().accounts() {
            let (id, plan) = (account.id, books.plan.account(account.id));
            let in_flight = account.exposure().in_flight;
            let seen = books.in_flight.get(&id).copied().unwrap_or_default();
            if books.is_neighbour(id) && in_flight != seen {
                return complain(format!(
                    "{} has {in_flight} in flight where {seen} was seen",
                    plan.name
                ));
            }
            let risk = at_risk.entry(id).or_default();
            *risk += in_flight;
            let signed = |amount: u128| i128::try_from(amount).expect("bounded by credit");
            let uses = [
                signed(in_flight) - account.balance(),
                signed(*risk),
                account.exposure().in_flight_count.into(),
            ];
            let maxima = limits_of(plan);
            let limits = books.limits.entry(id).or_insert_with(|| {
                let limit = |used: i128, max: i128| Limit {
                    used,
                    allowed: used.max(max),
                };
                std::array::from_fn(|of| limit(uses[of], maxima[of]))
            });
            let words = ["I2: credit", "I10: in flight and unsynced", "in flight"];
            for ((limit, word), (used, max)) in limits
                .iter_mut()
                .zip(words)
                .zip(uses.into_iter().zip(maxima))
            {
                if !limit.check(used, max) {
                    let name = &plan.name;
                    return complain(format!("{word} of {name} is {used}, above {max}"));
                }
            }
        }
        books.check_caps(&at_risk, "what is in flight and unsynced")
    }

    fn check_balances(&self, node: usize, ledger: &Ledger) -> Checked {
        let books = &self.nodes[node];
        let mut sums: BTreeMap<_, i128> = BTreeMap::new();
        for account in ledger.accounts() {
            let name = &books.plan.account(account.id).name;
            let recorded = books.recorded.get(&account.id).copied().unwrap_or_default();
            let seen = books.seen.get(&account.id).copied().unwrap_or_default();
            let balance = account.balance();
            if balance != recorded {
                return complain(format!(
                    "I7: {name} has {balance}, the records say {recorded}"
                ));
            }
            if books.is_neighbour(account.id) && balance != seen {
                return complain(format!(
                    "I11: {name} has {balance}, what was seen says {seen}"
                ));
            }
            *sums.entry(account.settings.asset.clone()).or_default() += balance;
        }
        for ((asset, position, _), (_, settled)) in ledger.positions().zip(ledger.settled()) {
            let sum = sums.get(asset).copied().unwrap_or_default() + position + settled;
            if sum != 0 {
                return complain(format!("I1: the accounts in {asset} sum to {sum}"));
            }
        }
        books.settled.check(&books.plan, ledger)?;
        books.trust.check(ledger)
    }

    /// A record that recovery read must be the one that was appended.
    pub(crate) fn check_replayed(&self, node: usize, lsn: u64, payload: &[u8]) -> Checked {
        let index = usize::try_from(lsn).expect("few records") - 1;
        match self.nodes[node].history.get(index) {
            Some(entry) if entry.bytes == payload => Ok(()),
            _ => complain(format!("I7: record {lsn} came back as another one")),
        }
    }

    /// What the edges put into their packets, for a node that would accept it unseen.
    pub(crate) fn preimage(&self, key: HopKey) -> Option<[u8; 32]> {
        self.hops.get(&key)?.preimage
    }

    /// The commit after record `last`, for a recovery that believes too much.
    pub(crate) fn record_after(&self, node: usize, last: u64) -> Option<Record> {
        let index = usize::try_from(last).ok()?;
        let entry = self.nodes[node].history.get(index)?;
        entry.commit.map(Record::Commit)
    }

    /// A node came back with the records up to `last`.
    pub(crate) fn recovered(
        &mut self,
        node: usize,
        death: Death,
        last: u64,
        ledger: &Ledger,
    ) -> Checked {
        let least = match death.power_cut || death.failed {
            true => death.synced,
            false => death.written,
        };
        let books = &mut self.nodes[node];
        // On a journal that failed, the core's numbers went on without it, so there is no upper end.
        if last < least || last > books.history.len() as u64 {
            let Death {
                power_cut,
                written,
                synced,
                ..
            } = death;
            return complain(format!(
                "recovered {last} of {written} written, {synced} synced; power cut: {power_cut}"
            ));
        }
        let lost = books.commits_after(last);
        books.check_caps(&lost, "G2: what was lost")?;
        for (id, sum) in &lost {
            let of_cap = u64::try_from(sum * 1_000 / books.cap(*id)).expect("at most the cap");
            self.tally.lost_of_cap = self.tally.lost_of_cap.max(of_cap);
        }
        match death.power_cut {
            true => self.tally.power_cuts += 1,
            false => self.tally.kills += 1,
        }
        let keep = usize::try_from(last).expect("few records");
        let gone = books.history.split_off(keep);
        self.tally.lost += gone.iter().filter(|entry| entry.commit.is_some()).count() as u64;
        books.life += 1;
        books.recorded.clear();
        books.earned.clear();
        books.repaid.clear();
        books.settled = Settled::default();
        books.trust = Trust::default();
        books.seen.clear();
        books.plan = books.first_plan.clone();
        for entry in std::mem::take(&mut books.history) {
            if let Some(commit) = &entry.commit {
                books.commit(commit);
            }
            if let Some(record) = &entry.settlement {
                books.settle(record)?;
            }
            if let Some(change) = &entry.change {
                books.change(0, change);
            }
            books.history.push(entry);
        }
        books.rates.clear();
        books.limits.clear();
        books.open.clear();
        books.in_flight.clear();
        self.recovered_hops(node, death, last)?;
        self.check_balances(node, ledger)?;
        let books = &self.nodes[node];
        books.outside.check_recovered(&books.settled)?;
        books.settled.check_all(ledger)?;
        books.trust.check_all(ledger)?;
        self.recovered_channels(node)
    }

    fn recovered_hops(&mut self, node: usize, death: Death, last: u64) -> Checked {
        let mut seen = std::mem::take(&mut self.nodes[node].seen);
        for (key, hop) in &mut self.hops {
            if hop.from == Party::Node(node) {
                hop.is_open = false;
                if hop.sender_commit.is_some_and(|lsn| lsn > last) {
                    hop.sender_commit = None;
                    hop.sender_lost = true;
                }
                if hop.sender_commit.is_some() {
                    add(&mut seen, hop.payee, hop.amount.into());
                }
            }
            if hop.to == Party::Node(node) {
                if hop.receiver_commit.is_some_and(|lsn| lsn > last) {
                    let was_sent = hop.released == Some(true);
                    if was_sent && !death.failed && (!death.power_cut || hop.is_promised) {
                        return complain(format!(
                            "G1: a fulfill was sent and its commit is gone: {key:?} {hop:?}"
                        ));
                    }
                    hop.receiver_commit = None;
                    hop.receiver_lost = was_sent;
                }
                if hop.receiver_commit.is_some() {
                    add(&mut seen, hop.payer, -i128::from(hop.amount));
                }
            }
        }
        self.nodes[node].seen = seen;
        Ok(())
    }

    /// Once all is quiet: nothing is held, every packet has its end, and neighbours agree but for
    /// what a crash or a lost or late answer explains, to the unit.
    pub(crate) fn check_quiet(&mut self, cores: &[&Connector]) -> Checked {
        for (node, core) in cores.iter().enumerate() {
            let name = &self.nodes[node].plan.name;
            if let Some(account) = core.ledger().accounts().find(|account| !account.is_idle()) {
                return complain(format!(
                    "I12: {name} holds {:?} of {}",
                    account.exposure(),
                    account.settings.name
                ));
            }
            self.nodes[node].settled.check_all(core.ledger())?;
            self.nodes[node].trust.check_all(core.ledger())?;
            let mut payments = core.ledger().payments().values();
            if let Some(payment) = payments.find(|payment| payment.end.is_none()) {
                return complain(format!(
                    "I12: payment {} of {name} has no end",
                    payment.id.0
                ));
            }
        }
        let mut differences: BTreeMap<(usize, usize), i128> = BTreeMap::new();
        for (key, hop) in &self.hops {
            if let Party::Node(node) = hop.to
                && !hop.is_talk
                && hop.arrived == Some(self.nodes[node].life)
                && hop.decided.is_none()
            {
                return complain(format!(
                    "I3: {} never answered {key:?} {hop:?}",
                    self.nodes[node].plan.name
                ));
            }
            let (Party::Node(from), Party::Node(to)) = (hop.from, hop.to) else {
                continue;
            };
            if hop.is_copy {
                continue; // looked at with the first
            }
            let difference = differences.entry((from.min(to), from.max(to))).or_default();
            let all = || {
                [key]
                    .into_iter()
                    .chain(&hop.copies)
                    .map(|key| &self.hops[key])
            };
            let charged = all().filter(|hop| hop.receiver_commit.is_some()).count() as u64;
            let paid = u64::from(hop.sender_commit.is_some());
            if charged >= paid {
                self.tally.undelivered += charged - paid;
                *difference -= i128::from(hop.amount) * i128::from(charged - paid);
            } else if all().any(|hop| hop.receiver_lost) {
                self.tally.forgotten += 1;
                *difference += i128::from(hop.amount);
            } else {
                return complain(format!("I9: {key:?} was paid and never charged: {hop:?}"));
            }
        }
        for ((a, b), difference) in differences {
            let balance = |of: usize, with: usize| {
                let account = cores[of]
                    .ledger()
                    .account_by_name(&self.nodes[with].plan.name);
                account.expect("neighbours have accounts").balance()
            };
            let paid = |of: usize, with: usize| {
                let books = &self.nodes[of];
                let account = books.plan.id(&self.nodes[with].plan.name);
                books.settled.paid(account)
            };
            let sum = balance(a, b) + paid(a, b) + balance(b, a) + paid(b, a);
            if sum != difference {
                let (a, b) = (&self.nodes[a].plan.name, &self.nodes[b].plan.name);
                return complain(format!(
                    "I9: {a} and {b} differ by {sum} where {difference} is explained"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_comes_round_is_known() {
        let key = |request| HopKey {
            connection: 1,
            end: 0,
            request,
        };
        let plan = |name: &str| NodePlan::plain(name.into());
        let mut witness = Witness::new(&[plan("a"), plan("b"), plan("c")]);
        for (node, upstream) in [(0, None), (1, Some(key(0))), (2, Some(key(1)))] {
            let own = key(node as u64);
            witness.edge_asks(own, Party::Node(node), (node + 1) % 3, AccountId(1), b"");
            let hop = witness.hops.get_mut(&own).expect("it was just asked");
            hop.upstream = upstream;
        }
        assert!(witness.was_at(key(2), Party::Node(0)));
        assert!(witness.was_at(key(1), Party::Node(1)));
        assert!(
            !witness.was_at(key(1), Party::Node(2)),
            "it was not there yet"
        );
        assert!(!witness.was_at(key(2), Party::Edge(0)));
    }
}
