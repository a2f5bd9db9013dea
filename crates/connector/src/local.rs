//! STREAM endpoints of this node: receivers behind payment pointers, and outgoing payments.
//!
//! They are neighbours on [`LinkId::Local`]: what they send goes through `forward.rs` like any
//! packet, and what comes back reaches them as an answer. Because they live in the core, a packet's
//! commit and the payment's progress are in one batch of records.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::{Bytes, BytesMut};
use rialto_ledger::{AccountId, PaymentEnd, PaymentId, PaymentProgress, Record};
use rialto_packet::{Address, Prepare, PrepareBuilder, Reply, money::Asset};
use rialto_stream::{
    receipt::ReceiptDetails,
    receiver::{CONNECTIONS_MAX, Credentials, Receiver},
    sender::{Outcome, Sender, SenderConfig, Stop},
};
use rustc_hash::FxHashMap;

use crate::{
    Connector, Durable,
    command::{CommandError, PingOutcome, QuoteOutcome},
    control::PING_CONDITION,
    io::{Action, Effects, Event, LinkId, Now, RequestId},
};

/// Packets that local senders may send in one step; the rest waits for the next, so that other
/// neighbours' packets come in between.
const STEP_PACKETS_MAX: usize = 128;

/// Payments, quotes and pings that run at the same time.
pub(crate) const SENDERS_MAX: usize = 10_000;

/// A ping is given up after this time.
const PING_TIMEOUT_MS: i64 = 10_000;

/// What a sender of STREAM money to a local account needs, and the asset it will arrive in.
#[derive(Debug)]
pub struct SpspCredentials {
    /// Address with a token, and the secret behind it.
    pub credentials: Credentials,
    /// What the account counts.
    pub asset: Asset,
}

/// Why something is being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Purpose {
    Payment(PaymentId),
    Quote(u64),
}

#[derive(Debug)]
struct Running {
    account: AccountId,
    sender: Sender,
    /// Its entry in [`Local::timers`].
    wake_at_ns: Option<u64>,
    /// What the journal knows.
    recorded: PaymentProgress,
}

/// A packet of ours on its way.
#[derive(Debug, Clone, Copy)]
enum Sent {
    Stream { purpose: Purpose, id: u64 },
    Ping { number: u64, sent_at_ns: u64 },
}

/// All endpoints.
pub(crate) struct Local {
    secret: [u8; 32],
    receivers: FxHashMap<AccountId, Receiver>,
    running: BTreeMap<Purpose, Running>,
    /// Those that may have something to send.
    ready: BTreeSet<Purpose>,
    /// When each wants to be woken, earliest first.
    timers: BTreeSet<(u64, Purpose)>,
    /// The one that had the last turn.
    turn: Option<Purpose>,
    sent: FxHashMap<RequestId, Sent>,
    last_request: u64,
    /// Numbers quotes and pings; they are not in the journal.
    last_number: u64,
}

impl Local {
    pub(crate) fn new(secret: [u8; 32]) -> Self {
        Self {
            secret,
            receivers: FxHashMap::default(),
            running: BTreeMap::new(),
            ready: BTreeSet::new(),
            timers: BTreeSet::new(),
            turn: None,
            sent: FxHashMap::default(),
            last_request: 0,
            last_number: 0,
        }
    }

    /// At once while something is ready; else when the first sender wants to be woken.
    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        if !self.ready.is_empty() {
            return Some(0);
        }
        self.timers.first().map(|(wake_at_ns, _)| *wake_at_ns)
    }

    /// An account is gone; it has no balance, and so nothing of its receiver is worth keeping.
    pub(crate) fn forget(&mut self, id: AccountId) {
        self.receivers.remove(&id);
    }

    /// Whether one of the account's payments or quotes runs.
    pub(crate) fn is_sending(&self, id: AccountId) -> bool {
        self.running.values().any(|running| running.account == id)
    }

    /// Whether a payment has started and not ended.
    pub(crate) fn is_running(&self, id: PaymentId) -> bool {
        self.running.contains_key(&Purpose::Payment(id))
    }

    /// Whose turn it is to send: those that are ready take turns, so that a payment that always has
    /// something to send does not starve the others.
    fn next_ready(&mut self) -> Option<Purpose> {
        let after = self.turn.and_then(|turn| {
            let later = (Bound::Excluded(turn), Bound::Unbounded);
            self.ready.range(later).next()
        });
        self.turn = after.or_else(|| self.ready.first()).copied();
        self.turn
    }

    /// Notes when a sender wants to be woken, after something happened to it.
    fn set_timer(&mut self, purpose: Purpose) {
        let Some(running) = self.running.get_mut(&purpose) else {
            return;
        };
        let wake_at_ns = running.sender.poll_timeout();
        let old = std::mem::replace(&mut running.wake_at_ns, wake_at_ns);
        self.timers.extend(wake_at_ns.map(|at_ns| (at_ns, purpose)));
        if let Some(at_ns) = old.filter(|_| old != wake_at_ns) {
            self.timers.remove(&(at_ns, purpose));
        }
        assert!(
            self.timers.len() <= self.running.len(),
            "a sender has one timer at most"
        );
    }

    /// The sender of an ended payment or quote goes.
    fn end(&mut self, purpose: Purpose) {
        self.ready.remove(&purpose);
        if let Some(at_ns) = self.running.remove(&purpose).and_then(|r| r.wake_at_ns) {
            self.timers.remove(&(at_ns, purpose));
        }
    }

    fn remember(&mut self, sent: Sent) -> RequestId {
        self.last_request += 1;
        let request = RequestId(self.last_request);
        self.sent.insert(request, sent);
        request
    }
}

impl Connector {
    /// Fresh credentials for one sender to a local account.
    pub fn spsp(
        &mut self,
        name: &str,
        receipt: Option<&ReceiptDetails>,
    ) -> Option<SpspCredentials> {
        let account = self.ledger.account_by_name(name)?;
        if self.link_of(account.id) != Some(LinkId::Local) || account.settings.paused {
            return None;
        }
        let (id, asset) = (account.id, account.settings.asset.clone());
        let address = self.address_of(id)?;
        receiver(&mut self.local.receivers, &self.local.secret, id, &asset);
        let receiver = self.local.receivers.get(&id)?;
        let credentials = receiver
            .credentials(&mut self.rng, &address, receipt)
            .ok()?;
        Some(SpspCredentials { credentials, asset })
    }

    /// Gives a Prepare to the receiver of a local account; it answers at once.
    pub(crate) fn deliver(
        &mut self,
        now: Now,
        payee: AccountId,
        request: RequestId,
        packet: &Prepare<BytesMut>,
        out: &mut Effects,
    ) {
        let account = self
            .ledger
            .account(payee)
            .expect("the route leads to an account");
        let asset = account.settings.asset.clone();
        let address = self
            .address_of(payee)
            .expect("a local account has an address");
        let receiver = receiver(&mut self.local.receivers, &self.local.secret, payee, &asset);
        let answer = receiver.handle_prepare(&mut self.rng, address.as_ref(), packet);
        self.handle_reply(now, LinkId::Local, request, answer.packet.into(), out);
    }

    /// Starts sending; `account` was checked to be local.
    pub(crate) fn start_payment(
        &mut self,
        now: Now,
        id: PaymentId,
        account: AccountId,
        config: SenderConfig,
        out: &mut Effects,
    ) {
        let recorded = PaymentProgress {
            payment: id,
            sent: 0,
            delivered: 0,
            fulfilled: 0,
            rejected: 0,
        };
        self.start(
            now,
            Purpose::Payment(id),
            Running {
                account,
                sender: Sender::new(now, config),
                wake_at_ns: None,
                recorded,
            },
            out,
        );
    }

    /// Starts to probe, and gives the number under which [`Event::QuoteDone`] tells the outcome.
    pub(crate) fn start_quote(
        &mut self,
        now: Now,
        account: AccountId,
        config: SenderConfig,
        out: &mut Effects,
    ) -> Result<u64, CommandError> {
        self.check_senders()?;
        self.local.last_number += 1;
        let number = self.local.last_number;
        let recorded = PaymentProgress {
            payment: PaymentId(0),
            sent: 0,
            delivered: 0,
            fulfilled: 0,
            rejected: 0,
        };
        let sender = Sender::new(now, config);
        self.start(
            now,
            Purpose::Quote(number),
            Running {
                account,
                sender,
                wake_at_ns: None,
                recorded,
            },
            out,
        );
        Ok(number)
    }

    /// Sends a ping, and gives the number under which [`Event::PingDone`] tells the outcome.
    pub(crate) fn start_ping(
        &mut self,
        now: Now,
        account: AccountId,
        destination: &Address,
        amount: u64,
        out: &mut Effects,
    ) -> Result<u64, CommandError> {
        self.check_senders()?;
        self.local.last_number += 1;
        let number = self.local.last_number;
        let packet = PrepareBuilder {
            amount,
            expires_at: now.wall.plus_ms(PING_TIMEOUT_MS),
            condition: PING_CONDITION,
            destination: destination.as_ref(),
            data: &number.to_be_bytes(),
        };
        let packet = packet.encode().expect("8 bytes of data are not too much");
        let request = self.local.remember(Sent::Ping {
            number,
            sent_at_ns: now.mono_ns,
        });
        self.send(now, account, request, &packet, out);
        self.run_local(now, out);
        Ok(number)
    }

    pub(crate) fn check_senders(&self) -> Result<(), CommandError> {
        if self.local.running.len() + self.local.sent.len() / 64 >= SENDERS_MAX {
            return Err(CommandError::busy("too many payments run at the same time"));
        }
        Ok(())
    }

    /// Asks every payment to stop where it is.
    pub(crate) fn stop_senders(&mut self, now: Now, out: &mut Effects) {
        for (purpose, running) in &mut self.local.running {
            running.sender.stop();
            self.local.ready.insert(*purpose);
        }
        self.run_local(now, out);
    }

    /// Asks a payment to stop where it is.
    pub(crate) fn stop_payment(&mut self, now: Now, id: PaymentId, out: &mut Effects) -> bool {
        let Some(running) = self.local.running.get_mut(&Purpose::Payment(id)) else {
            return false;
        };
        running.sender.stop();
        self.local.ready.insert(Purpose::Payment(id));
        self.run_local(now, out);
        true
    }

    fn start(&mut self, now: Now, purpose: Purpose, running: Running, out: &mut Effects) {
        self.local.running.insert(purpose, running);
        self.local.ready.insert(purpose);
        self.run_local(now, out);
    }

    /// Hands answers to the endpoints that wait for them, and lets them send more, until there is
    /// nothing left to do or it is somebody else's turn.
    pub(crate) fn run_local(&mut self, now: Now, out: &mut Effects) {
        self.wake_local(now);
        let mut budget = STEP_PACKETS_MAX;
        let mut touched = BTreeSet::new();
        loop {
            while let Some((request, packet)) = self.local_answers.pop_front() {
                if let Some(purpose) = self.local_answer(now, request, packet, out) {
                    self.local.ready.insert(purpose);
                    touched.insert(purpose);
                }
            }
            if budget == 0 {
                break;
            }
            let Some(purpose) = self.local.next_ready() else {
                break;
            };
            budget -= 1;
            touched.insert(purpose);
            let Some(running) = self.local.running.get_mut(&purpose) else {
                self.local.ready.remove(&purpose);
                continue;
            };
            let account = running.account;
            match running.sender.poll_transmit(now, &mut self.rng) {
                Some(transmit) => {
                    let request = self.local.remember(Sent::Stream {
                        purpose,
                        id: transmit.id,
                    });
                    self.send(now, account, request, &transmit.packet, out);
                }
                None => {
                    self.local.ready.remove(&purpose);
                }
            }
        }
        for purpose in touched {
            self.local.set_timer(purpose);
            self.note_progress(purpose, out);
        }
    }

    /// Senders whose timers are due.
    fn wake_local(&mut self, now: Now) {
        while let Some((wake_at_ns, purpose)) = self.local.timers.first().copied()
            && wake_at_ns <= now.mono_ns
        {
            self.local.timers.pop_first();
            if let Some(running) = self.local.running.get_mut(&purpose) {
                running.wake_at_ns = None;
                running.sender.handle_timeout(now);
                self.local.ready.insert(purpose);
            }
        }
    }

    fn send(
        &mut self,
        now: Now,
        account: AccountId,
        request: RequestId,
        packet: &[u8],
        out: &mut Effects,
    ) {
        self.handle_prepare(
            now,
            account,
            LinkId::Local,
            request,
            BytesMut::from(packet),
            out,
        );
    }

    /// Tells whose turn it is after the answer.
    fn local_answer(
        &mut self,
        now: Now,
        request: RequestId,
        packet: Bytes,
        out: &mut Effects,
    ) -> Option<Purpose> {
        let reply = Reply::parse(packet).expect("replies are checked before they become answers");
        match self.local.sent.remove(&request)? {
            Sent::Stream { purpose, id } => {
                let running = self.local.running.get_mut(&purpose)?;
                running.sender.handle_reply(now, id, &reply);
                Some(purpose)
            }
            Sent::Ping { number, sent_at_ns } => {
                let round_trip_ns = now.mono_ns - sent_at_ns;
                let outcome = match reply {
                    Reply::Fulfill(_) => PingOutcome::Reached { round_trip_ns },
                    Reply::Reject(reject) => PingOutcome::Rejected {
                        code: reject.code(),
                        message: reject.message().into_owned(),
                        triggered_by: reject.triggered_by().map(rialto_packet::Addr::to_owned),
                    },
                };
                out.now(Action::Report(Event::PingDone { number, outcome }));
                None
            }
        }
    }

    /// Writes down how far a payment has come, and ends it when its sender has.
    fn note_progress(&mut self, purpose: Purpose, out: &mut Effects) {
        let Some(running) = self.local.running.get_mut(&purpose) else {
            return;
        };
        let progress = running.sender.progress();
        let now_at = PaymentProgress {
            sent: progress.sent,
            delivered: progress.delivered,
            fulfilled: progress.packets_fulfilled,
            rejected: progress.packets_rejected,
            ..running.recorded
        };
        let outcome = running.sender.outcome();
        let moved =
            now_at.sent != running.recorded.sent || now_at.delivered != running.recorded.delivered;
        running.recorded = now_at;
        match purpose {
            Purpose::Payment(id) => {
                if let Some(outcome) = outcome {
                    self.local.end(purpose);
                    self.end_payment(id, now_at, &outcome, out);
                } else if moved {
                    self.record(&Record::Progress(now_at), out);
                }
            }
            Purpose::Quote(number) => {
                if let Some(outcome) = outcome {
                    self.local.end(purpose);
                    let outcome = QuoteOutcome {
                        path: outcome.path,
                        stopped: outcome.stopped,
                    };
                    out.now(Action::Report(Event::QuoteDone {
                        number,
                        outcome: Box::new(outcome),
                    }));
                }
            }
        }
    }

    fn end_payment(
        &mut self,
        id: PaymentId,
        progress: PaymentProgress,
        outcome: &Outcome,
        out: &mut Effects,
    ) {
        let Some(payment) = self.ledger.payments().get(&id) else {
            return;
        };
        let mut payment = Box::new(payment.clone());
        payment.progress = progress;
        if let Some(path) = &outcome.path {
            payment.destination_asset = Some((path.asset.code().to_owned(), path.asset.scale()));
        }
        payment.end = Some(match &outcome.stopped {
            None => PaymentEnd::Completed,
            Some(stop) => PaymentEnd::Failed {
                code: stop_code(stop).to_owned(),
                message: stop.to_string(),
            },
        });
        let lsn = self.record(&Record::PaymentPut { payment }, out);
        out.after(
            Durable::Written(lsn),
            Action::Report(Event::PaymentEnded { id }),
        );
    }
}

/// A word for programs.
fn stop_code(stop: &Stop) -> &'static str {
    match stop {
        Stop::NoProgress { .. } => "no_progress",
        Stop::Rejected { .. } => "rejected",
        Stop::Refused => "refused",
        Stop::RateTooLow { .. } => "rate_too_low",
        Stop::AssetUnknown => "asset_unknown",
        Stop::AssetChanged { .. } => "asset_changed",
        Stop::RoundsToZero => "rounds_to_zero",
        Stop::PacketsTooSmall { .. } => "packets_too_small",
        Stop::ClosedByReceiver { .. } => "closed_by_receiver",
        Stop::WrongFulfillment => "wrong_fulfillment",
        Stop::SequencesUsedUp => "sequences_used_up",
        Stop::Cancelled => "cancelled",
    }
}

/// The receiver of a local account, made when it is first needed.
fn receiver<'a>(
    receivers: &'a mut FxHashMap<AccountId, Receiver>,
    secret: &[u8; 32],
    id: AccountId,
    asset: &Asset,
) -> &'a mut Receiver {
    receivers.entry(id).or_insert_with(|| {
        // A key of its own per account, so that one's tokens mean nothing to another.
        let mut seed = secret.to_vec();
        seed.extend_from_slice(&id.0.to_be_bytes());
        let key = digest(&SHA256, &seed);
        let key = key.as_ref().try_into().expect("SHA-256 gives 32 bytes");
        Receiver::new(&key, asset.clone(), CONNECTIONS_MAX)
    })
}
