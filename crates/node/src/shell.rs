//! The shell around the core: one lock, one journal, one gate, and who performs what.
//!
//! A batch goes through [`Shell::step`] on the thread that read it from its sockets:
//!
//! ```text
//! inputs ─▶ core (locked) ─▶ records appended ─▶ unlock ─▶ one write(2) ─▶ gate ─▶ actions
//! ```

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rialto_btp::BtpUri;
use rialto_connector::{
    Action, Connector, Durable, Effect, Effects, Event, Input, LinkId, Now, Reason,
    jwt::{Signer, Verifier},
    refusal::{Level, Row},
};
use rialto_journal::{Journal, JournalError};
use rialto_ledger::{
    AccountId, AccountSettings, BtpLink, HttpLink, Lsn, Record, SealedSecret, SettlementId,
    SettlementState,
};
use rialto_links::{Account, BtpPeer, Clock, Directory, HttpPeer, Opened};
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tracing::{debug, error, info, warn};
use zeroize::Zeroizing;

use crate::{gate::Gate, secrets::NodeSecret};

/// Events that a slow reader may fall behind before it misses some.
const EVENTS_MAX: usize = 4_096;

/// Shortest time between two warnings about packets that name the same reason.
const WARN_PAUSE_NS: u64 = 10_000_000_000;

/// Actions for another thread's links, or for its timers.
#[derive(Default)]
pub(crate) struct Mailbox {
    actions: Mutex<Vec<Action>>,
    pub(crate) arrived: Notify,
}

impl Mailbox {
    fn put(&self, action: Action) {
        self.actions.lock().push(action);
        self.arrived.notify_one();
    }

    /// Swaps what has arrived into `batch`, which is empty.
    pub(crate) fn take(&self, batch: &mut Vec<Action>) {
        std::mem::swap(&mut *self.actions.lock(), batch);
    }
}

/// What all threads share.
pub(crate) struct Shell {
    pub(crate) clock: Clock,
    core: Mutex<Connector>,
    pub(crate) journal: Journal,
    gate: Mutex<Gate>,
    /// Steps that have decided something and not yet released all of it.
    releasing: AtomicUsize,
    pub(crate) mailboxes: Vec<Mailbox>,
    /// Told whenever accounts change.
    pub(crate) directory: watch::Sender<Arc<Directory>>,
    pub(crate) events: broadcast::Sender<Event>,
    /// The last record that is on disk.
    pub(crate) synced: watch::Sender<Lsn>,
    /// What settlement engines are to be asked: at most one settlement and one introduction per
    /// account, and as many messages as the core lets wait.
    engines: mpsc::UnboundedSender<Action>,
    pub(crate) secret: NodeSecret,
    /// Where the node listener is reached, without a slash at the end.
    public_url: String,
    /// When the timer has to fire next, on the monotonic clock; `u64::MAX` for never.
    timer_at_ns: AtomicU64,
    /// By the number of a reason: when the next refusal for it is worth a warning.
    warn_at_ns: [AtomicU64; Reason::ALL.len()],
    /// When the next late Fulfill is.
    warn_late_at_ns: AtomicU64,
    pub(crate) timer_moved: Notify,
    /// The lives of tokens that we made for peers, in seconds. Locked while the directory is changed.
    made: Mutex<BTreeMap<AccountId, u32>>,
    /// Of a shutdown.
    pub(crate) draining: AtomicBool,
    hurried: AtomicBool,
    failed: AtomicBool,
}

impl Shell {
    pub(crate) fn new(
        connector: Connector,
        journal: Journal,
        secret: NodeSecret,
        workers: u16,
        engines: mpsc::UnboundedSender<Action>,
        public_url: String,
    ) -> Self {
        let synced = Lsn(journal.synced().0);
        Self {
            clock: Clock::new(),
            core: Mutex::new(connector),
            journal,
            gate: Mutex::default(),
            releasing: AtomicUsize::new(0),
            mailboxes: (0..workers).map(|_| Mailbox::default()).collect(),
            directory: watch::Sender::new(Arc::default()),
            events: broadcast::Sender::new(EVENTS_MAX),
            synced: watch::Sender::new(synced),
            engines,
            secret,
            public_url,
            // Once at the start: the core may have something to do before anything happens.
            timer_at_ns: AtomicU64::new(0),
            warn_at_ns: [const { AtomicU64::new(0) }; Reason::ALL.len()],
            warn_late_at_ns: AtomicU64::new(0),
            timer_moved: Notify::new(),
            made: Mutex::default(),
            draining: AtomicBool::new(false),
            hurried: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    /// After the last record of the journal. Payments that were cut off are ended before anything else
    /// happens. What engines are asked again may leave: all of the books is on disk.
    pub(crate) fn recovered(&self) -> Result<(), JournalError> {
        let mut out = Effects::default();
        self.core.lock().recovered(&mut out);
        for record in out.records() {
            self.journal.append(record)?;
        }
        self.journal.write()?;
        self.journal.sync()?;
        self.synced.send_replace(Lsn(self.journal.synced().0));
        for effect in out.drain() {
            if let Action::Engine { .. } = effect.action {
                let _ = self.engines.send(effect.action);
            }
        }
        Ok(())
    }

    /// Reads the core.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Connector) -> T) -> T {
        read(&self.core.lock())
    }

    /// One batch: `decide` changes the core, its records are written, and what may leave leaves.
    /// `perform` takes the actions for links of the calling thread and gives back the others.
    /// Returns what `decide` gave, and the last record.
    pub(crate) fn step<T>(
        &self,
        out: &mut Effects,
        perform: impl FnMut(Action) -> Option<Action>,
        decide: impl FnOnce(&mut Connector, Now, &mut Effects) -> T,
    ) -> (T, Lsn) {
        let mut core = self.core.lock();
        // Read under the lock, so that time never runs backwards for the core.
        let now = self.clock.now();
        let synced = Lsn(self.journal.synced().0);
        core.handle(now, Input::Synced(synced), out);
        if self.has_failed() {
            core.journal_failed();
        }
        let decided = decide(&mut core, now, out);
        let lsn = core.lsn();
        // Appended under the same lock, so that the order of records is the order of decisions.
        self.append(out, lsn);
        let timeout = core.poll_timeout();
        let wants_sync = core.ledger().wants_sync();
        self.releasing.fetch_add(1, Ordering::AcqRel);
        drop(core);

        // Before anything of this batch can leave.
        if let Err(failure) = self.journal.write() {
            self.fail(&failure);
        }
        if wants_sync {
            self.journal.hurry();
        }
        if self.has_failed() {
            self.report_unwritten(out, lsn);
        }
        self.release(out, synced, now.mono_ns, perform);
        self.releasing.fetch_sub(1, Ordering::AcqRel);
        self.set_timer(timeout);
        (decided, lsn)
    }

    /// A failed journal stops the node from accepting anything new. What was accepted is still
    /// decided and answered: a Fulfill is never held back because of a failure of our own.
    fn append(&self, out: &Effects, last: Lsn) {
        if self.has_failed() {
            return; // a journal that ends is worth more than one with a gap
        }
        let mut appended = None;
        for record in out.records() {
            match self.journal.append(record) {
                Ok(lsn) => appended = Some(Lsn(lsn.0)),
                Err(failure) => {
                    self.fail(&failure);
                    return;
                }
            }
        }
        if let Some(lsn) = appended {
            assert_eq!(lsn, last, "core and journal number records alike");
        }
    }

    /// Names what moves money and is not in the journal: its Fulfill leaves all the same, so the
    /// books that come back will lack it. `last` is the number of the last record in `out`.
    fn report_unwritten(&self, out: &Effects, last: Lsn) {
        let written = self.journal.written().0;
        let records: Vec<_> = out.records().collect();
        let first = last.0 + 1 - records.len() as u64;
        for (lsn, bytes) in (first..).zip(records) {
            if lsn > written
                && let Ok(Record::Commit(commit)) = Record::decode(bytes)
            {
                error!(
                    payer = self.name_of(commit.from),
                    amount_in = commit.amount_in,
                    payee = self.name_of(commit.to),
                    amount_out = commit.amount_out,
                    "a fulfill is passed on that the journal did not take: after the restart, \
                     correct both balances with `rialto account adjust`"
                );
            }
        }
    }

    fn release(
        &self,
        out: &mut Effects,
        synced: Lsn,
        now_ns: u64,
        mut perform: impl FnMut(Action) -> Option<Action>,
    ) {
        for effect in out.drain() {
            let action = match effect.after {
                Durable::Nothing | Durable::Written(_) => Some(effect.action),
                Durable::Synced {
                    no_later_than_ns, ..
                } => {
                    let action = self.hold_back(effect, synced, now_ns);
                    self.set_timer(action.is_none().then_some(no_later_than_ns));
                    action
                }
                Durable::OnDisk(_) => self.hold_back(effect, synced, now_ns),
            };
            if let Some(action) = action.and_then(&mut perform) {
                self.dispatch(action);
            }
        }
    }

    fn hold_back(&self, effect: Effect, synced: Lsn, now_ns: u64) -> Option<Action> {
        let mut gate = self.gate.lock();
        // Under the lock, so that a failure is seen here or this action by who releases all of them.
        let action = gate.pass(effect, synced, self.gate_time(now_ns));
        drop(gate);
        if action.is_none() {
            self.journal.hurry();
        }
        // The record may have been synced between the reading of `synced` and the gate.
        self.release_synced();
        action
    }

    /// After a sync: what waited for it leaves.
    pub(crate) fn release_synced(&self) {
        let synced = Lsn(self.journal.synced().0);
        // Under the lock: what has left an empty gate has arrived where it is sent from.
        let mut gate = self.gate.lock();
        for action in gate.synced(synced) {
            self.dispatch(action);
        }
    }

    /// What can wait for the disk no longer leaves.
    pub(crate) fn release_overdue(&self) {
        let mut gate = self.gate.lock();
        for action in gate.overdue(self.gate_time(self.clock.now_ns())) {
            self.dispatch(action);
        }
        self.set_timer(gate.next_overdue());
    }

    /// After a failure of the journal there is nothing left to wait for.
    fn gate_time(&self, now_ns: u64) -> u64 {
        match self.has_failed() {
            true => u64::MAX,
            false => now_ns,
        }
    }

    /// Whether every packet is decided, and its answer with the thread that sends it.
    pub(crate) fn is_quiet(&self) -> bool {
        // In the order in which an answer passes them, so that none slips by.
        self.read(|core| core.in_flight_count() == 0)
            && self.releasing.load(Ordering::Acquire) == 0
            && self.gate.lock().is_empty()
    }

    /// The shutdown waits for nothing any more.
    pub(crate) fn hurry(&self) {
        self.hurried.store(true, Ordering::Relaxed);
    }

    /// Whether it was told so.
    pub(crate) fn is_hurried(&self) -> bool {
        self.hurried.load(Ordering::Relaxed)
    }

    /// Fulfills that did not wait for the disk any longer.
    pub(crate) fn released_early(&self) -> u64 {
        self.gate.lock().released_early
    }

    /// Hands an action to whoever performs it.
    fn dispatch(&self, action: Action) {
        let link = match &action {
            Action::Forward { link, .. }
            | Action::Answer { link, .. }
            | Action::Disconnect { link } => *link,
            Action::Engine { .. } => {
                // Once the node stops nobody asks any more; the books tell what is open.
                let _ = self.engines.send(action);
                return;
            }
            Action::Report(_) => {
                if let Action::Report(event) = action {
                    self.report(event);
                }
                return;
            }
        };
        let worker = match link {
            LinkId::Session { worker, .. } | LinkId::Waiting { worker } => worker,
            LinkId::Http(_) => 0,
            LinkId::Local => unreachable!("the core keeps its own endpoints' packets to itself"),
        };
        self.mailboxes[usize::from(worker)].put(action);
    }

    fn report(&self, event: Event) {
        match &event {
            Event::Refused { account, reason } => self.report_refusal(*account, *reason),
            Event::LateFulfill { account, amount } => self.report_late(*account, *amount),
            Event::RouteTrouble {
                account,
                trouble,
                prefix,
            } => {
                let (account, reason) = (self.name_of(*account), trouble.word());
                warn!(account, reason, prefix, "routes: {}", trouble.message());
            }
            Event::AccountChanged { account } => self.publish(*account),
            Event::AddressTaken { address } => {
                info!(%address, "the parent gave us our address");
            }
            Event::AddressProblem { message } => {
                warn!(%message, "no address from the parent; the node asks again");
            }
            Event::SettlementChanged { id } => self.report_settlement(*id),
            Event::ChannelNote {
                account,
                channel,
                message,
            } => info!(account = account.0, %channel, %message, "settlement channel"),
            Event::PaymentEnded { .. }
            | Event::QuoteDone { .. }
            | Event::PingDone { .. }
            | Event::MessageDone { .. } => {
                // It is no mistake that nobody waits for it.
                let _ = self.events.send(event);
            }
        }
    }

    /// The peer decides how often, so most are lines at debug and a number in the metrics.
    fn report_late(&self, account: AccountId, amount: u64) {
        let account = self.name_of(account);
        debug!(account, amount, "fulfill came too late");
        if self.is_due(&self.warn_late_at_ns) {
            warn!(
                account,
                amount,
                "fulfills come too late: the next hop loses them; `rialto account show NAME` counts them"
            );
        }
    }

    /// Whether to warn again of what can happen with each packet.
    fn is_due(&self, warn_at_ns: &AtomicU64) -> bool {
        let now_ns = self.clock.now_ns();
        let is_due = warn_at_ns.load(Ordering::Relaxed) <= now_ns;
        if is_due {
            warn_at_ns.store(now_ns + WARN_PAUSE_NS, Ordering::Relaxed);
        }
        is_due
    }

    /// A line per refusal at debug; what an operator can mend is a warning now and then.
    fn report_refusal(&self, account: AccountId, reason: Reason) {
        let Row { word, level, .. } = reason.row();
        debug!(
            account = self.name_of(account),
            reason = word,
            "packet refused"
        );
        if level == Level::Warn && self.is_due(&self.warn_at_ns[reason as usize]) {
            warn!(
                account = self.name_of(account),
                reason = word,
                "packets are refused; `rialto account show NAME` counts them"
            );
        }
    }

    fn report_settlement(&self, id: SettlementId) {
        const AGAIN: &str = "`rialto settlement retry` tells it again";
        let settlement = self.read(|core| {
            let settlement = core.ledger().settlements().get(&id).cloned();
            let (failures, last) = core.settle_failures(id);
            settlement.map(|settlement| (settlement, failures, last.map(ToOwned::to_owned)))
        });
        let Some((settlement, failures, last)) = settlement else {
            return;
        };
        let (account, amount) = (self.name_of(settlement.account), settlement.amount);
        // Only what an engine pays can be taken back; see `Connector::settle_cancel`.
        let (by, what_to_do) = match settlement.channel {
            Some(_) => ("the other side of the channel", AGAIN),
            None if settlement.is_report() => ("the accounting system", AGAIN),
            None => (
                "the engine",
                "`rialto settlement retry` tells it again, `cancel` takes it back",
            ),
        };
        let id = id.0;
        match settlement.state {
            SettlementState::Accepted => {
                info!(
                    settlement = id,
                    account, amount, by, "a settlement was taken"
                );
            }
            SettlementState::Cancelled => {
                info!(
                    settlement = id,
                    account, amount, "a settlement was taken back"
                );
            }
            SettlementState::Parked { message } => warn!(
                settlement = id,
                account, amount, by, message, what_to_do, "a settlement was refused"
            ),
            // Each pause is longer than the one before, so this does not fill a log.
            SettlementState::Open => warn!(
                settlement = id,
                account,
                amount,
                by,
                failures,
                last,
                "a settlement was not answered: it is told again"
            ),
        }
    }

    /// For people; accounts are numbers to the core.
    fn name_of(&self, id: AccountId) -> String {
        self.directory.borrow().name_of(id)
    }

    /// The settings of all accounts.
    pub(crate) fn accounts(&self) -> Vec<(AccountId, Arc<AccountSettings>)> {
        self.read(|connector| {
            let accounts = connector.ledger().accounts();
            accounts
                .map(|account| (account.id, Arc::clone(&account.settings)))
                .collect()
        })
    }

    /// Makes the directory from the settings of all accounts.
    pub(crate) fn publish_all(&self, accounts: Vec<(AccountId, Arc<AccountSettings>)>) {
        let mut made = self.made.lock();
        let accounts = accounts
            .into_iter()
            .map(|(id, settings)| self.opened(id, settings, &mut made));
        self.directory.borrow().put_all(accounts);
        self.directory.send_modify(|_| ());
    }

    /// Tells links how an account is now.
    fn publish(&self, id: AccountId) {
        // Held all the while, so that whoever is last has read what is last.
        let mut made = self.made.lock();
        made.remove(&id);
        let settings = self.read(|connector| {
            let account = connector.ledger().account(id);
            account.map(|account| Arc::clone(&account.settings))
        });
        let directory = Arc::clone(&self.directory.borrow());
        match settings {
            Some(settings) => directory.put_all([self.opened(id, settings, &mut made)]),
            None => directory.remove(id),
        }
        self.directory.send_modify(|_| ());
    }

    /// What links need of an account. Notes in `made` how long the token lives that we made for it.
    fn opened(
        &self,
        id: AccountId,
        settings: Arc<AccountSettings>,
        made: &mut BTreeMap<AccountId, u32>,
    ) -> Account {
        let mut opened = Opened::default();
        let unusable = |error: &dyn std::fmt::Display| {
            error!(account = settings.name, %error, "the account's link cannot be used");
        };
        if let Some(http) = &settings.http {
            opened.http = self.opened_http(id, &settings.name, http, made, unusable);
        }
        if let Some(btp) = &settings.btp {
            opened.btp = self.opened_btp(btp, unusable);
        }
        for token in &settings.incoming_tokens {
            let Some(jwt) = &token.jwt else { continue };
            let key = self.secret.open(&jwt.key).inspect_err(|e| unusable(e));
            let Ok(key) = key else { continue };
            let verifier = Verifier::new(jwt.algorithm, &key, jwt.claims.clone());
            if let Ok(verifier) = verifier.inspect_err(|e| unusable(e)) {
                let verifier = (Arc::new(verifier), token.expires_at_ms);
                opened.verifiers.push(verifier);
            }
        }
        let is_empty = opened.http.is_none() && opened.btp.is_none() && opened.verifiers.is_empty();
        Account {
            id,
            settings,
            opened: (!is_empty).then(|| Arc::new(opened)),
        }
    }

    /// The secret of a link, empty where it has none; `None` if it cannot be opened.
    fn opened_secret(
        &self,
        sealed: Option<&SealedSecret>,
        unusable: impl Fn(&dyn std::fmt::Display),
    ) -> Option<Zeroizing<String>> {
        match sealed {
            None => Some(Zeroizing::default()),
            Some(sealed) => self.secret.open(sealed).inspect_err(|e| unusable(e)).ok(),
        }
    }

    fn opened_btp(
        &self,
        btp: &BtpLink,
        unusable: impl Fn(&dyn std::fmt::Display),
    ) -> Option<BtpPeer> {
        let secret = self.opened_secret(btp.token.as_ref(), &unusable)?;
        let uri = btp.url.parse::<BtpUri>().inspect_err(|e| unusable(e));
        let mut uri = uri.ok()?;
        uri.username = btp.username.clone().unwrap_or_default();
        let made = match &btp.jwt {
            None => {
                uri.token = secret.to_string();
                BtpPeer::from(uri)
            }
            Some(jwt) => {
                let made = BtpPeer::from(uri).with_jwt(jwt.clone(), secret.to_string());
                made.inspect_err(|e| unusable(e)).ok()?
            }
        };
        Some(made.with_pins(btp.tls_pins.clone()))
    }

    fn opened_http(
        &self,
        id: AccountId,
        name: &str,
        http: &HttpLink,
        made: &mut BTreeMap<AccountId, u32>,
        unusable: impl Fn(&dyn std::fmt::Display),
    ) -> Option<HttpPeer> {
        let token = self.opened_secret(http.token.as_ref(), &unusable)?;
        let peer = match &http.jwt {
            None => HttpPeer::new(&http.url, &token),
            Some(jwt) => {
                made.insert(id, jwt.lifetime_s);
                let signer = Signer::new(jwt.algorithm, &token).inspect_err(|e| unusable(e));
                let now = self.clock.now().wall;
                let token = signer.ok()?.sign(&jwt.claims, jwt.lifetime_s, now);
                HttpPeer::new(&http.url, &token)
            }
        };
        let peer = peer.map(|peer| peer.with_pins(http.tls_pins.clone()));
        let peer = match http.callback {
            false => peer,
            true => peer.and_then(|peer| {
                let base = &self.public_url;
                peer.with_callback(&format!("{base}/accounts/{name}/ilp/callback"))
            }),
        };
        peer.inspect_err(|e| unusable(e)).ok()
    }

    /// Renews the tokens that we made for peers when most of their life is over, for ever.
    pub(crate) async fn renew_tokens(&self) {
        let mut changes = self.directory.subscribe();
        loop {
            changes.borrow_and_update();
            let shortest_s = self.made.lock().values().min().copied();
            let pause = shortest_s.map_or(Duration::MAX, |life_s| {
                Duration::from_secs(life_s.into()) * 4 / 5
            });
            tokio::select! {
                () = tokio::time::sleep(pause) => {
                    let made: Vec<_> = self.made.lock().keys().copied().collect();
                    made.into_iter().for_each(|id| self.publish(id));
                }
                _ = changes.changed() => {}
            }
        }
    }

    /// The timer fires at `at_ns` or before.
    pub(crate) fn set_timer(&self, at_ns: Option<u64>) {
        let Some(at_ns) = at_ns else { return };
        if self.timer_at_ns.fetch_min(at_ns, Ordering::AcqRel) > at_ns {
            self.timer_moved.notify_one();
        }
    }

    /// When the timer has to fire. Taken when it does: whoever wants another sets it.
    pub(crate) fn timer_at_ns(&self) -> u64 {
        self.timer_at_ns.load(Ordering::Acquire)
    }

    /// The timer fired.
    pub(crate) fn reset_timer(&self) {
        self.timer_at_ns.store(u64::MAX, Ordering::Release);
    }

    /// The journal can no longer be trusted with new records.
    pub(crate) fn fail(&self, failure: &JournalError) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            error!(
                %failure,
                reason = Reason::Internal.row().word,
                "the journal failed: no new packets are accepted; mend the disk and restart"
            );
            // Whoever waits for a sync learns that it will not come.
            self.synced.send_modify(|_| ());
            self.set_timer(Some(0));
        }
    }

    /// Whether the journal failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;
    use rialto_connector::{RequestId, Settings, command::PaymentRequest};
    use rialto_journal::{Options, SimDisk};
    use rialto_ledger::{AccountId, AccountSettings, AccountTerms, Limits, Relation};
    use rialto_packet::PrepareBuilder;

    use super::*;

    /// SHA-256 of the fulfillment that everybody knows, which answers a ping.
    const PING: &[u8; 32] = b"pingpingpingpingpingpingpingping";

    /// A strict node whose journal nobody syncs, with a local account.
    fn shell() -> Shell {
        let settings = Settings {
            strict: true,
            ..Settings::new("test.node".parse().unwrap())
        };
        let connector = Connector::new(settings, [0; 32], ChaCha20Rng::from_seed([0; 32]));
        let journal = Journal::open(Arc::new(SimDisk::new()), Options::default(), |_| {
            Ok::<_, std::io::Error>(())
        });
        let (journal, _) = journal.unwrap();
        let (engines, _) = mpsc::unbounded_channel();
        let shell = Shell::new(
            connector,
            journal,
            NodeSecret::new([0; 32]),
            1,
            engines,
            String::new(),
        );
        let account = AccountSettings {
            name: "alice".to_owned(),
            incoming_tokens: Vec::new(),
            terms: AccountTerms {
                limits: Limits {
                    balance_min: -1_000,
                    ..Limits::default()
                },
                ..AccountTerms::new(Relation::Local, "USD/9".parse().unwrap())
            }
            .into(),
        };
        step(&shell, |core, _, out| {
            core.account_create(account, out).unwrap()
        });
        shell.journal.sync().unwrap();
        shell
    }

    fn step<T>(shell: &Shell, decide: impl FnOnce(&mut Connector, Now, &mut Effects) -> T) -> T {
        shell.step(&mut Effects::default(), Some, decide).0
    }

    /// A packet that is fulfilled by the node itself.
    fn ping(shell: &Shell) {
        step(shell, |core, now, out| {
            let condition = rialto_links::hash_token(PING).0;
            let packet = PrepareBuilder {
                amount: 1,
                expires_at: now.wall.plus_ms(60_000),
                condition,
                destination: core.address().unwrap().as_ref(),
                data: &[],
            };
            let prepare = Input::Prepare {
                account: AccountId(1),
                link: LinkId::Waiting { worker: 0 },
                request: RequestId(7),
                packet: BytesMut::from(&packet.encode().unwrap()[..]),
            };
            core.handle(now, prepare, out);
        });
    }

    fn answered(shell: &Shell) -> usize {
        let mut actions = Vec::new();
        shell.mailboxes[0].take(&mut actions);
        let answers = actions
            .iter()
            .filter(|action| matches!(action, Action::Answer { .. }));
        answers.count()
    }

    #[test]
    fn a_node_is_not_quiet_while_a_fulfill_waits_for_the_disk() {
        let shell = shell();
        assert!(shell.is_quiet());
        ping(&shell);
        assert_eq!(shell.read(Connector::in_flight_count), 0);
        assert_eq!(answered(&shell), 0);
        assert!(!shell.is_quiet());
        shell.journal.sync().unwrap();
        shell.release_synced();
        assert!(shell.is_quiet());
        assert_eq!(answered(&shell), 1);
    }

    #[test]
    fn a_failed_journal_holds_no_fulfill_back_and_takes_no_record() {
        let shell = shell();
        ping(&shell);
        assert_eq!(answered(&shell), 0);
        // Too large for the journal, which is sound otherwise.
        let request = PaymentRequest {
            account: "alice".to_owned(),
            idempotency_key: "key".to_owned(),
            request: String::new(),
            receiver: "x".repeat(2 << 20),
        };
        step(&shell, |core, now, out| {
            core.payment_create(now, request, out).unwrap()
        });
        assert!(shell.has_failed());
        assert_eq!(shell.timer_at_ns(), 0);
        shell.release_overdue();
        assert_eq!(answered(&shell), 1);

        let written = shell.journal.written();
        step(&shell, |core, _, out| {
            core.route_put("test.x".parse().unwrap(), &[("alice".to_owned(), 1)], out)
                .unwrap()
        });
        assert_eq!(shell.journal.written(), written);
        ping(&shell);
        assert_eq!(answered(&shell), 1, "refused");
    }
}
