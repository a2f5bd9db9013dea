//! A real connector with clocks that stand still until they are told to go on. After every step the
//! invariants of the books are checked against what was seen from outside.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::{Bytes, BytesMut};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use rialto_connector::{
    Action, Connector, Durable, Effect, Effects, EngineAsk, Event, Input, LinkId, Now, RequestId,
    Settings,
};
use rialto_ledger::{AccountId, Ledger, Lsn, PaymentEnd, Record, Relation, SettlementId};
use rialto_packet::{PEER_CONDITION, Prepare, Reply, Timestamp};

pub(crate) const MS: u64 = 1_000_000;
/// Where the wall clock starts.
pub(crate) const START: Timestamp = Timestamp::MIN;
/// Steps that the core may ask for at one and the same moment.
const STEPS_MAX: usize = 1_000_000;

const STREAM_SECRET: [u8; 32] = [7; 32];

/// A packet that a neighbour sent and that was not answered yet.
#[derive(Debug)]
struct Asked {
    account: AccountId,
    link: LinkId,
    request: RequestId,
    amount: u64,
    condition: [u8; 32],
    expires_at: Timestamp,
    expires_ns: u64,
}

/// The core, its clocks, and all that is known of it from outside.
pub(crate) struct Node {
    pub(crate) core: Connector,
    pub(crate) settings: Settings,
    pub(crate) now: Now,
    /// Whether limits were lowered below what is used already.
    pub(crate) limits_lowered: bool,
    out: Effects,
    /// The journal.
    pub(crate) records: Vec<Record>,
    /// Books that only ever saw the records.
    replica: Ledger,
    synced: Lsn,
    asked: Vec<Asked>,
    /// The keys that settlements were told with.
    keys: BTreeMap<SettlementId, String>,
    /// The last session's number, and whose each is.
    last_serial: u32,
    sessions: BTreeMap<u32, AccountId>,
}

impl Node {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            core: core(&settings, 1),
            replica: Ledger::new(BTreeMap::new()),
            settings,
            now: Now {
                mono_ns: 1_000 * MS,
                wall: Timestamp::from_unix_ms(1_900_000_000_000),
            },
            limits_lowered: false,
            out: Effects::default(),
            records: Vec::new(),
            synced: Lsn(0),
            asked: Vec::new(),
            keys: BTreeMap::new(),
            last_serial: 0,
            sessions: BTreeMap::new(),
        }
    }

    pub(crate) fn id(&self, name: &str) -> AccountId {
        let account = self.core.ledger().account_by_name(name);
        account.unwrap_or_else(|| panic!("no account {name}")).id
    }

    pub(crate) fn name(&self, id: AccountId) -> String {
        let account = self.core.ledger().account(id);
        account.map_or_else(|| format!("#{}", id.0), |a| a.settings.name.clone())
    }

    pub(crate) fn balance(&self, name: &str) -> i128 {
        self.core.ledger().account(self.id(name)).unwrap().balance()
    }

    /// Whose link it is.
    pub(crate) fn account_of(&self, link: LinkId) -> AccountId {
        match link {
            LinkId::Http(id) => id,
            LinkId::Session { serial, .. } => self.sessions[&serial],
            LinkId::Waiting { .. } | LinkId::Local => panic!("{link:?} is nobody's"),
        }
    }

    /// A new BTP session.
    pub(crate) fn link_up(&mut self, account: AccountId) -> (LinkId, Vec<Effect>) {
        self.last_serial += 1;
        self.sessions.insert(self.last_serial, account);
        let link = LinkId::Session {
            worker: 0,
            serial: self.last_serial,
        };
        (link, self.handle(Input::LinkUp { link, account }))
    }

    pub(crate) fn handle(&mut self, input: Input) -> Vec<Effect> {
        if let Input::Synced(lsn) = input {
            self.synced = self.synced.max(lsn);
        }
        if let Input::Prepare {
            account,
            link,
            request,
            packet,
        } = &input
        {
            self.ask(*account, *link, *request, packet);
        }
        self.step(|core, now, out| core.handle(now, input, out)).1
    }

    fn ask(&mut self, account: AccountId, link: LinkId, request: RequestId, packet: &BytesMut) {
        let packet = Prepare::parse(&packet[..]).ok();
        let (amount, condition, expires_at) = packet.map_or((0, [0; 32], START), |packet| {
            (packet.amount(), packet.condition(), packet.expires_at())
        });
        let left_ms = u64::try_from(expires_at.ms_since(self.now.wall)).unwrap_or(0);
        self.asked.push(Asked {
            account,
            link,
            request,
            amount,
            condition,
            expires_at,
            expires_ns: self.now.mono_ns.saturating_add(left_ms.saturating_mul(MS)),
        });
    }

    /// One call of the core. What it gives out is checked and handed on.
    pub(crate) fn step<T>(
        &mut self,
        call: impl FnOnce(&mut Connector, Now, &mut Effects) -> T,
    ) -> (T, Vec<Effect>) {
        let answer = call(&mut self.core, self.now, &mut self.out);
        let new: Vec<_> = self
            .out
            .records()
            .map(|bytes| Record::decode(bytes).unwrap())
            .collect();
        let effects: Vec<_> = self.out.drain().collect();
        for record in &new {
            self.replica.apply(record).unwrap();
        }
        self.records.extend(new.iter().cloned());
        assert_eq!(self.core.lsn().0, self.records.len() as u64);
        for effect in &effects {
            self.check_effect(effect, &new);
        }
        self.check_commits(&new, &effects);
        self.check_books();
        (answer, effects)
    }

    /// Lets the core do what it has to do at this very moment.
    pub(crate) fn settle(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        for _ in 0..STEPS_MAX {
            let due = self.core.poll_timeout();
            if due.is_none_or(|due| due > self.now.mono_ns) {
                return effects;
            }
            effects.extend(self.handle(Input::Timeout));
        }
        panic!("the core is never content");
    }

    /// Both clocks go on, the timer going off whenever it is due.
    pub(crate) fn wait(&mut self, ns: u64) -> Vec<Effect> {
        let until = self.now.mono_ns + ns;
        let mut effects = self.settle();
        while let Some(due) = self.core.poll_timeout()
            && due <= until
        {
            self.go_on_until(due);
            effects.extend(self.settle());
        }
        self.go_on_until(until);
        effects
    }

    /// The clocks go on and nobody notices.
    pub(crate) fn go_on_until(&mut self, mono_ns: u64) {
        let ms = i64::try_from(mono_ns / MS - self.now.mono_ns / MS).unwrap();
        self.now = Now {
            mono_ns,
            wall: self.now.wall.plus_ms(ms),
        };
    }

    /// Every record is on disk.
    pub(crate) fn sync(&mut self) -> Vec<Effect> {
        self.handle(Input::Synced(self.core.lsn()))
    }

    /// The process is killed and starts again from the journal, or from a checkpoint.
    pub(crate) fn restart(&mut self, from_checkpoint: bool) -> Vec<Effect> {
        let before = books(self.core.ledger());
        let checkpoint = self.core.ledger().snapshot();
        self.core = core(&self.settings, 2 + self.records.len() as u64);
        if from_checkpoint {
            for record in checkpoint {
                let mut bytes = Vec::new();
                record.encode(&mut bytes);
                let record = Record::decode(&bytes).unwrap();
                let lsn = Lsn(self.records.len() as u64);
                self.core.recover(lsn, record).unwrap();
            }
        } else {
            for (index, record) in self.records.iter().enumerate() {
                self.core
                    .recover(Lsn(index as u64 + 1), record.clone())
                    .unwrap();
            }
        }
        assert_eq!(
            before,
            books(self.core.ledger()),
            "recovery gives the books"
        );
        self.asked.clear();
        self.sessions.clear();
        self.synced = Lsn(self.records.len() as u64);
        self.step(|core, _, out| core.recovered(out)).1
    }

    /// I3, I4, I6: what leaves follows from what came in.
    fn check_effect(&mut self, effect: &Effect, new: &[Record]) {
        match &effect.action {
            Action::Forward {
                packet,
                deadline_ns,
                ..
            } => {
                let packet = Prepare::parse(&packet[..]).unwrap();
                assert!(*deadline_ns > self.now.mono_ns);
                if packet.destination().starts_with("peer") {
                    assert_eq!((packet.amount(), packet.condition()), (0, PEER_CONDITION));
                    return; // the node's own, which moves nothing
                }
                // The newest request is the one that is forwarded; our own senders have none.
                if let Some(asked) = self.asked.last()
                    && asked.condition == packet.condition()
                {
                    let window_ms = self.settings.min_message_window_ms;
                    assert!(asked.expires_at.ms_since(packet.expires_at()) >= window_ms);
                    let left_ms = packet.expires_at().ms_since(self.now.wall);
                    assert!(left_ms >= window_ms);
                    assert!(left_ms <= self.settings.max_hold_ms);
                }
            }
            Action::Answer {
                link,
                request,
                packet,
                ..
            } => {
                let of = |asked: &Asked| asked.link == *link && asked.request == *request;
                let index = self.asked.iter().position(of);
                let asked = self
                    .asked
                    .remove(index.expect("answered once, and only if asked"));
                if let Reply::Fulfill(fulfill) = Reply::parse(packet.clone()).unwrap() {
                    let hash = digest(&SHA256, &fulfill.fulfillment());
                    let is_service = is_service(asked.condition);
                    assert!(is_service || hash.as_ref() == asked.condition);
                    assert!(self.now.mono_ns < asked.expires_ns, "in time");
                    assert_eq!(is_service, effect.after == Durable::Nothing);
                    let paid = |record: &Record| {
                        matches!(record, Record::Commit(commit)
                            if commit.from == asked.account && commit.amount_in == asked.amount)
                    };
                    assert!(is_service || new.iter().any(paid), "a Fulfill is booked");
                } else {
                    assert_eq!(effect.after, Durable::Nothing);
                }
            }
            Action::Engine {
                ask: EngineAsk::Settle { id, key, quantity },
                ..
            } => {
                let settlement = &self.core.ledger().settlements()[id];
                assert_eq!(quantity.amount(), settlement.amount.to_string());
                assert_eq!(key, &settlement.key);
                // I8: one key for ever, and no other settlement's.
                assert_eq!(key, self.keys.entry(*id).or_insert_with(|| key.clone()));
                assert_eq!(self.keys.values().filter(|other| *other == key).count(), 1);
                assert_eq!(effect.after, Durable::OnDisk(self.core.lsn()));
            }
            Action::Engine { .. } | Action::Disconnect { .. } | Action::Report(_) => {}
        }
    }

    /// I3: Fulfills passed on and commits are the same, one to one.
    fn check_commits(&self, new: &[Record], effects: &[Effect]) {
        let is_local = |id: AccountId| {
            let account = self.core.ledger().account(id);
            account.is_some_and(|account| account.settings.relation == Relation::Local)
        };
        let commits = new
            .iter()
            .filter(|record| matches!(record, Record::Commit(commit) if !is_local(commit.from)));
        let fulfills = effects.iter().filter(|effect| {
            matches!(&effect.action, Action::Answer { packet, .. } if packet[0] == 13)
                && effect.after != Durable::Nothing
        });
        assert_eq!(commits.count(), fulfills.count());
    }

    fn check_books(&self) {
        let ledger = self.core.ledger();
        // I7.
        assert_eq!(
            books(ledger),
            books(&self.replica),
            "replay gives the books"
        );

        // I1.
        for (asset, position, exposure) in ledger.positions() {
            let accounts = || ledger.accounts().filter(|a| a.settings.asset == *asset);
            let sum: i128 = accounts().map(|account| account.balance()).sum();
            let mut settled = ledger.settled();
            let (_, settled) = settled.find(|(of, _)| *of == asset).unwrap();
            assert_eq!(sum + position + settled, 0, "{asset}");
            let count: u32 = accounts().map(|a| a.exposure().in_flight_count).sum();
            let in_flight: u128 = accounts().map(|a| a.exposure().in_flight).sum();
            let unsynced: u128 = accounts().map(|a| a.exposure().unsynced).sum();
            assert_eq!(
                (count, in_flight, unsynced),
                (
                    exposure.in_flight_count,
                    exposure.in_flight,
                    exposure.unsynced
                )
            );
            // I10.
            if let Some(max) = self.settings.unsynced_max.get(asset)
                && !self.limits_lowered
            {
                assert!(in_flight + unsynced <= u128::from(*max), "{asset}");
            }
        }

        // No hold without a packet, no packet without a hold.
        let held: u32 = ledger
            .accounts()
            .map(|a| a.exposure().in_flight_count)
            .sum();
        assert_eq!(held as usize, self.core.in_flight_count());

        let unsynced = self.records.get(self.synced.0 as usize..).unwrap_or(&[]);
        for account in ledger.accounts() {
            let (limits, exposure) = (&account.settings.limits, account.exposure());
            let mut sum = 0;
            for record in unsynced {
                if let Record::Commit(commit) = record
                    && commit.from == account.id
                {
                    sum += u128::from(commit.amount_in);
                }
            }
            assert_eq!(exposure.unsynced, sum, "{}", account.settings.name);
            if account.settings.relation != Relation::Local {
                let asked = || self.asked.iter().filter(|a| a.account == account.id);
                // Services of neighbours move nothing, and may take a few steps.
                let held = || asked().filter(|asked| !is_service(asked.condition));
                let sum: u128 = held().map(|asked| u128::from(asked.amount)).sum();
                assert_eq!(exposure.in_flight, sum, "{}", account.settings.name);
                assert_eq!(exposure.in_flight_count as usize, held().count());
                // Every packet is in flight or has ended once.
                if let Some(stats) = self.core.stats().account(account.id) {
                    let ended = stats.fulfills_out + stats.rejects_out;
                    assert_eq!(stats.prepares_in, ended + asked().count() as u64);
                }
            }
            // I2, I10.
            if !self.limits_lowered {
                assert!(account.available() >= 0, "{}", account.settings.name);
                let below = |max: Option<u64>, amount: u128| max.is_none_or(|m| amount <= m.into());
                assert!(below(limits.in_flight_amount_max, exposure.in_flight));
                assert!(below(
                    limits.unsynced_amount_max,
                    exposure.in_flight + exposure.unsynced
                ));
                let max = limits.in_flight_count_max;
                assert!(max.is_none_or(|max| exposure.in_flight_count <= max));
            }
        }
    }

    /// I12, and the whole journal once more from the start and by way of a checkpoint.
    pub(crate) fn finish(&mut self) {
        // Longest: a packet held as long as may be, or a payment that gives up.
        self.wait(120_000 * MS);
        self.sync();
        assert_eq!(self.core.in_flight_count(), 0, "all holds clear");
        for (asset, _, exposure) in self.core.ledger().positions() {
            assert_eq!(exposure, rialto_ledger::Exposure::default(), "{asset}");
        }
        let mut again = Ledger::new(BTreeMap::new());
        for record in &self.records {
            again.apply(record).unwrap();
        }
        assert_eq!(books(&again), books(self.core.ledger()));
        let mut copy = Ledger::new(BTreeMap::new());
        for record in again.snapshot() {
            copy.apply(&record).unwrap();
        }
        assert_eq!(books(&copy), books(&again));
    }
}

fn core(settings: &Settings, seed: u64) -> Connector {
    let rng = ChaCha20Rng::seed_from_u64(seed);
    Connector::new(settings.clone(), STREAM_SECRET, rng)
}

/// Whether a packet with this condition is between neighbours: RFC 38 has one of its own, which
/// nothing fulfills.
fn is_service(condition: [u8; 32]) -> bool {
    condition == PEER_CONDITION || condition == sha256(b"")
}

/// All that must survive, in one order.
pub(crate) fn books(ledger: &Ledger) -> Vec<String> {
    let mut lines: Vec<_> = ledger
        .snapshot()
        .map(|record| format!("{record:?}"))
        .collect();
    lines.sort();
    lines
}

/// How a payment stands, in words.
pub(crate) fn payment_words(node: &Node, event: &Event) -> Option<String> {
    let Event::PaymentEnded { id } = event else {
        return None;
    };
    let payment = &node.core.ledger().payments()[id];
    let end = match payment.end.as_ref().unwrap() {
        PaymentEnd::Completed => "completed",
        PaymentEnd::Failed { code, .. } => code,
    };
    let progress = payment.progress;
    let (sent, delivered) = (progress.sent, progress.delivered);
    let asset = payment.destination_asset.as_ref();
    let asset = asset.map_or(String::new(), |(code, scale)| {
        format!(" asset {code}/{scale}")
    });
    Some(format!(
        "payment {} {end} sent {sent} delivered {delivered}{asset}",
        id.0
    ))
}

/// The bytes of a Prepare, whatever they say.
pub(crate) fn prepare_bytes(
    amount: u64,
    expires_at: Timestamp,
    condition: [u8; 32],
    destination: &str,
    data: &[u8],
) -> BytesMut {
    use rialto_packet::oer;

    let mut content = amount.to_be_bytes().to_vec();
    content.extend(expires_at.to_bytes());
    content.extend(condition);
    oer::put_var_octets(&mut content, destination.as_bytes());
    oer::put_var_octets(&mut content, data);
    let mut packet = vec![12];
    oer::put_var_octets(&mut packet, &content);
    BytesMut::from(&packet[..])
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

pub(crate) fn reply(bytes: Vec<u8>) -> Bytes {
    Bytes::from(bytes)
}
