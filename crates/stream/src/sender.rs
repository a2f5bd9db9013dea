//! The sending side: one payment over one STREAM connection.
//!
//! ```text
//!             asset and rate known            all paid, or stopped,
//!                                             and nothing in flight
//!   Probing ─────────────────────────▶ Paying ─────────────────────▶ Closing ──▶ Closed
//!      │                                                                ▲
//!      └────────────────────── stopped ─────────────────────────────────┘
//! ```
//!
//! *Probing* sends packets that nobody can fulfill, so no money moves before the receiver's asset and
//! the path's rate are known. *Paying* keeps a window of packets in flight. *Closing* hands out one
//! last packet that tells the receiver. A payment stops for a [`Stop`]; what is in flight then is
//! still waited for, so the amounts in the [`Outcome`] are exact.

use std::collections::BTreeMap;

use rand_core::Rng;
use rialto_packet::{
    Address, ErrorClass, ErrorCode, Fulfill, PacketType, PrepareBuilder, Reject, Reply,
    f08::AmountTooLarge,
    money::{Asset, Conversion, Ratio},
};
use thiserror::Error;

use crate::{
    Now,
    crypto::{Keys, SharedSecret, condition},
    packet::{CloseCode, Frame, Packet, PacketBuilder},
    rate::Rate,
    receipt::Receipt,
};

/// Packets in flight at once unless told otherwise.
pub const IN_FLIGHT_COUNT_MAX: usize = 64;
/// How long a packet may take unless told otherwise.
///
/// Shorter than [`GIVE_UP_MS`], so that a lost packet at the very end is tried again.
pub const PACKET_TIMEOUT_MS: i64 = 20_000;
/// Most that a packet's time is stretched to when a connector asks for more (R02).
pub const PACKET_TIMEOUT_MS_MAX: i64 = 60_000;
/// How long a payment may go without any money arriving unless told otherwise.
pub const GIVE_UP_MS: u64 = 30_000;
/// A connection must be closed before its 2^31st packet, as IVs are random (RFC 29, section 6.1).
const SEQUENCE_MAX: u64 = (1 << 31) - 1;
/// The one stream a payment uses: the client's first.
const STREAM_ID: u64 = 1;

/// Amounts of the first probes, in units of the source asset.
const PROBE_AMOUNTS: [u64; 5] = [1_000_000_000_000, 1_000_000_000, 1_000_000, 1_000, 1];
/// A probe that delivers so many units has measured the rate well enough.
const PROBE_RECEIVED_ENOUGH: u64 = 1_000;
/// Rounds of probes before the best so far has to do.
const PROBE_VOLLEYS_MAX: u32 = 15;
/// Rounds of probes that ask for the receiver's asset before an expected one is believed.
const ASSET_VOLLEYS_MAX: u32 = 3;
/// Told to receivers that share their asset only with those who have an address. It leads nowhere.
const UNREACHABLE_ADDRESS: &str = "private.none";

/// Pauses after temporary errors.
const BACKOFF_MS_MIN: u64 = 10;
const BACKOFF_MS_MAX: u64 = 2_000;
/// A steady window grows by at most this part of itself at once, even if one packet fills it.
const WINDOW_STEP_PART: u64 = 8;
/// How often in a row, without a Fulfill between, the same trouble is met before it counts as final.
const RELATIVE_ROUNDS_MAX: u32 = 8;
const RATE_ROUNDS_MAX: u32 = 8;
const REFUSED_ROUNDS_MAX: u32 = 5;
/// Characters kept of a Reject's message.
const MESSAGE_CHARS_MAX: usize = 200;

/// What a payment is to achieve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// So many units leave.
    Send(u64),
    /// So many units arrive; more only as far as rounding demands.
    Deliver(u64),
    /// No money moves: find out about asset, rate and largest packet. The connection stays open.
    Probe,
}

/// What a payment needs to know. [`SenderConfig::new`] fills in the defaults.
#[derive(Debug, Clone)]
pub struct SenderConfig {
    /// From SPSP.
    pub shared_secret: SharedSecret,
    /// From SPSP.
    pub destination: Address,
    /// What to achieve.
    pub target: Target,
    /// Most units in one packet with money, whatever the path allows.
    pub packet_amount_max: Option<u64>,
    /// Least units at the destination for one unit sent. `None`: the probed rate less `slippage`.
    pub rate_min: Option<Ratio>,
    /// How much worse than probed the rate may get, below 1.
    pub slippage: Ratio,
    /// What is sent, to be told to the receiver.
    pub source_asset: Option<Asset>,
    /// What is expected to arrive; another asset stops the payment before any money moves.
    pub destination_asset: Option<Asset>,
    /// Most packets in flight, at least one.
    pub in_flight_count_max: usize,
    /// How long a packet may take.
    pub packet_timeout_ms: i64,
    /// How long the payment may go without any money arriving.
    pub give_up_ms: u64,
}

impl SenderConfig {
    /// 1 % slippage, any packet size, and the constants of this module.
    pub fn new(shared_secret: SharedSecret, destination: Address, target: Target) -> Self {
        Self {
            shared_secret,
            destination,
            target,
            packet_amount_max: None,
            rate_min: None,
            slippage: Ratio::new(1, 100).expect("100 is not zero"),
            source_asset: None,
            destination_asset: None,
            in_flight_count_max: IN_FLIGHT_COUNT_MAX,
            packet_timeout_ms: PACKET_TIMEOUT_MS,
            give_up_ms: GIVE_UP_MS,
        }
    }
}

/// A packet to be sent; the reply to it goes to [`Sender::handle_reply`] with the same `id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Unique within the payment.
    pub id: u64,
    /// A whole Prepare.
    pub packet: Vec<u8>,
}

/// How far a payment is. Probes do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Units that have left for good.
    pub sent: u64,
    /// Units that have arrived: what the receiver confirmed, or else the least it would have accepted.
    pub delivered: u64,
    /// Units of the source asset whose fate is open.
    pub in_flight: u64,
    /// Packets whose fate is open.
    pub in_flight_count: usize,
    /// Packets with money that were paid.
    pub packets_fulfilled: u64,
    /// Packets with money that were not.
    pub packets_rejected: u64,
}

/// What was learned about the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// In which the receiver counts.
    pub asset: Asset,
    /// Units of the most telling probe, and
    pub probe_sent: u64,
    /// units of it that would have arrived.
    pub probe_received: u64,
    /// Most units in one packet, as far as the path has shown a limit.
    pub packet_amount_max: Option<u64>,
}

impl Path {
    /// Units at the destination for one unit sent, rounded down by less than one unit per probe.
    pub fn rate(&self) -> Ratio {
        Ratio::new(self.probe_received, self.probe_sent).expect("a probe sent something")
    }
}

/// The end of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Exact, with nothing in flight.
    pub progress: Progress,
    /// Why it ended early; `None` when the target was reached. A remainder that would arrive as
    /// nothing is left unsent and counts as reached.
    pub stopped: Option<Stop>,
    /// As far as the probes got.
    pub path: Option<Path>,
    /// The receipt with the largest total, signed for a verifier.
    pub receipt: Option<Vec<u8>>,
}

/// Why a payment ended before its target.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Stop {
    /// No money arrived for [`SenderConfig::give_up_ms`].
    #[error("nothing arrived for too long{}", last_code(.last))]
    NoProgress {
        /// The latest Reject.
        last: Option<ErrorCode>,
    },
    /// A connector or the receiver gave an answer that retrying does not change.
    #[error("rejected with {code} {}{}: {message}", code.name(), by(.triggered_by))]
    Rejected {
        /// Its code.
        code: ErrorCode,
        /// Who rejected.
        triggered_by: Option<Address>,
        /// In the words of whoever rejected, shortened.
        message: String,
    },
    /// The receiver keeps refusing without a reason that can be read.
    #[error("the receiver refuses the money")]
    Refused,
    /// Less would arrive than the least acceptable rate gives.
    #[error("the rate is below the minimum: {received} units arrive for {sent} sent")]
    RateTooLow {
        /// Units of the packet that showed it.
        sent: u64,
        /// What would have arrived of them.
        received: u64,
    },
    /// The receiver does not say in which asset it counts.
    #[error("the receiver does not tell its asset")]
    AssetUnknown,
    /// The receiver counts in another asset than expected, or changed it.
    #[error("the receiver counts in {found}, not in {expected}")]
    AssetChanged {
        /// As configured, or as told first.
        expected: String,
        /// As told now.
        found: String,
    },
    /// The whole amount arrives as nothing.
    #[error("the amount is too small to arrive as anything")]
    RoundsToZero,
    /// Packets of the size the path allows lose more to rounding than the minimum rate permits.
    #[error("packets of at most {packet_amount_max} units lose too much to rounding")]
    PacketsTooSmall {
        /// Most units in one packet.
        packet_amount_max: u64,
    },
    /// The receiver closed the stream or the connection.
    #[error("the receiver closed the connection with code {}", code.0)]
    ClosedByReceiver {
        /// Why.
        code: CloseCode,
    },
    /// Some packet came back with a fulfillment that is not its own.
    #[error("a fulfillment does not match its condition")]
    WrongFulfillment,
    /// The connection has sent as many packets as it may.
    #[error("the connection has used up its packet numbers")]
    SequencesUsedUp,
    /// [`Sender::stop`] was called.
    #[error("cancelled")]
    Cancelled,
}

fn last_code(code: &Option<ErrorCode>) -> String {
    code.map_or(String::new(), |code| {
        format!("; the last answer was {code:?}")
    })
}

fn by(address: &Option<Address>) -> String {
    address
        .as_ref()
        .map_or(String::new(), |address| format!(" by {address}"))
}

/// One payment. See the [crate's example](crate).
#[derive(Debug)]
pub struct Sender {
    config: SenderConfig,
    keys: Keys,
    phase: Phase,
    stopped: Option<Stop>,
    progress: Progress,
    flights: BTreeMap<u64, Flight>,
    /// Most units that what is in flight can bring, by the rate known when it was sent.
    in_flight_received_max: u64,
    /// Of the packet sent last.
    sequence: u64,

    asset: Option<Asset>,
    /// The probe of which most arrived.
    probe: Option<Probe>,
    /// The probe with the best rate, which is the most exact.
    measured: Option<Probe>,
    rate: Option<Rate>,
    minimum: Option<Conversion>,
    /// Most units the path takes in one packet, as far as it has shown.
    path_amount_max: u64,
    /// Fewer units arrive as nothing, as a connector said (R01).
    amount_min: u64,
    /// Measure the rate again before more money is sent.
    rate_doubted: bool,
    receive_max: u64,
    receive_total: u64,
    receipt: Option<(u64, Vec<u8>)>,
    /// The receiver has answered at least once.
    heard: bool,
    closed_by_receiver: bool,

    /// Units that may be in flight at once.
    window: u64,
    /// Below it the window doubles with each round trip, from it on it grows by one packet.
    window_threshold: u64,
    rounds: Rounds,
    packet_timeout_ms: i64,
    backoff_ms: u64,
    resume_at_ns: Option<u64>,
    progress_at_ns: u64,
    last_code: Option<ErrorCode>,
}

#[derive(Debug)]
enum Phase {
    Probing(Probing),
    Paying,
    Closing,
    Closed,
}

/// A round of probes.
#[derive(Debug, Default)]
struct Probing {
    volley: u32,
    queue: Vec<u64>,
    outstanding: usize,
    /// Some answers of this round leave hope.
    temporary: bool,
    /// The smallest amount of this round that a temporary error met.
    temporary_amount_min: Option<u64>,
    /// The largest amount that arrived as nothing.
    zero_amount_max: u64,
    fatal: Option<Stop>,
}

/// What a probe showed.
#[derive(Debug, Clone, Copy)]
struct Probe {
    sent: u64,
    received: u64,
}

/// A packet whose reply is awaited.
#[derive(Debug)]
struct Flight {
    probe: bool,
    amount: u64,
    minimum: u64,
    received_max: u64,
    condition: [u8; 32],
}

/// Troubles since the last Fulfill. All rejects for packets that were in flight together are one round.
#[derive(Debug, Default)]
struct Rounds {
    /// The last packet that belongs to the present round.
    until_id: u64,
    relative: u32,
    rate: u32,
    refused: u32,
}

/// What to do about money now.
#[derive(Debug)]
enum Next {
    Pay {
        amount: u64,
        minimum: u64,
    },
    /// Ask the receiver whether it takes more by now.
    Ask,
    Wait,
    Finish,
    Stop(Stop),
}

/// What a reply says that was made with the connection's keys and for this very packet.
struct Authentic {
    plaintext: Vec<u8>,
    amount: u64,
}

impl Sender {
    /// Starts with probes at the next [`Self::poll_transmit`].
    pub fn new(now: Now, config: SenderConfig) -> Self {
        let mut sender = Self {
            keys: Keys::new(config.shared_secret.as_bytes()),
            phase: Phase::Probing(Probing::default()),
            stopped: None,
            progress: Progress::default(),
            flights: BTreeMap::new(),
            in_flight_received_max: 0,
            sequence: 0,
            asset: None,
            probe: None,
            measured: None,
            rate: None,
            minimum: None,
            path_amount_max: u64::MAX,
            amount_min: 0,
            rate_doubted: false,
            receive_max: u64::MAX,
            receive_total: 0,
            receipt: None,
            heard: false,
            closed_by_receiver: false,
            window: 0,
            window_threshold: u64::MAX,
            rounds: Rounds::default(),
            packet_timeout_ms: config.packet_timeout_ms,
            backoff_ms: 0,
            resume_at_ns: None,
            progress_at_ns: now.mono_ns,
            last_code: None,
            config,
        };
        match sender.config.target {
            Target::Send(0) | Target::Deliver(0) => sender.phase = Phase::Closed,
            Target::Send(_) | Target::Deliver(_) | Target::Probe => {
                sender.phase = Phase::Probing(Probing {
                    queue: sender.probe_amounts(),
                    ..Probing::default()
                });
            }
        }
        sender
    }

    /// The next packet, if one can go out now. To be called until it gives `None`, at the start and
    /// after every other call that changes something.
    pub fn poll_transmit(&mut self, now: Now, rng: &mut impl Rng) -> Option<Transmit> {
        self.handle_timeout(now);
        if self.stopped.is_some() && self.flights.is_empty() {
            self.finish();
        }
        match &mut self.phase {
            Phase::Closed => None,
            Phase::Closing => {
                self.phase = Phase::Closed;
                Some(self.transmit_close(now, rng))
            }
            Phase::Probing(probing) => {
                let full = self.flights.len() >= self.config.in_flight_count_max.max(1);
                if full || self.resume_at_ns.is_some() || self.stopped.is_some() {
                    return None;
                }
                let amount = probing.queue.pop()?;
                probing.outstanding += 1;
                self.transmit_probe(now, rng, amount)
            }
            Phase::Paying => self.transmit_money(now, rng),
        }
    }

    /// The reply to the packet with this `id`: exactly one for each. A packet that could not be sent
    /// or was not answered before its expiry is a Reject too. Unknown ids are ignored.
    pub fn handle_reply<B: AsRef<[u8]>>(&mut self, now: Now, id: u64, reply: &Reply<B>) {
        let Some(flight) = self.flights.remove(&id) else {
            return;
        };
        let in_flight_amount = self.progress.in_flight;
        if !flight.probe {
            self.progress.in_flight -= flight.amount;
            self.in_flight_received_max = self
                .in_flight_received_max
                .saturating_sub(flight.received_max);
        }
        match reply {
            Reply::Fulfill(fulfill) => self.fulfilled(now, id, &flight, fulfill),
            Reply::Reject(reject) => {
                self.last_code = Some(reject.code());
                if !flight.probe && flight.amount > 0 {
                    self.progress.packets_rejected += 1;
                }
                if matches!(self.phase, Phase::Probing(_)) {
                    self.probe_rejected(now, id, &flight, reject);
                } else {
                    self.rejected(
                        now,
                        id,
                        &flight,
                        reject,
                        in_flight_amount.max(flight.amount),
                    );
                }
            }
        }
    }

    /// When to call [`Self::handle_timeout`], on the monotonic clock.
    pub fn poll_timeout(&self) -> Option<u64> {
        if self.stopped.is_some() || matches!(self.phase, Phase::Closing | Phase::Closed) {
            return None;
        }
        let give_up_at_ns = self.give_up_at_ns();
        Some(
            self.resume_at_ns
                .map_or(give_up_at_ns, |at| at.min(give_up_at_ns)),
        )
    }

    /// Time has passed; more packets may be ready afterwards.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.resume_at_ns.is_some_and(|at| at <= now.mono_ns) {
            self.resume_at_ns = None;
        }
        let working = matches!(self.phase, Phase::Probing(_) | Phase::Paying);
        if working && now.mono_ns >= self.give_up_at_ns() {
            let last = self.last_code;
            self.halt(Stop::NoProgress { last });
        }
    }

    /// Sends no more money. What is in flight is still waited for.
    pub fn stop(&mut self) {
        if matches!(self.phase, Phase::Probing(_) | Phase::Paying) {
            self.halt(Stop::Cancelled);
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress {
            in_flight_count: self.flights.values().filter(|flight| !flight.probe).count(),
            ..self.progress
        }
    }

    /// What came of it, once [`Self::poll_transmit`] has given `None` and nothing is in flight.
    pub fn outcome(&self) -> Option<Outcome> {
        if !matches!(self.phase, Phase::Closing | Phase::Closed) {
            return None;
        }
        Some(Outcome {
            progress: self.progress(),
            stopped: self.stopped.clone(),
            path: self.path(),
            receipt: self.receipt.as_ref().map(|(_, bytes)| bytes.clone()),
        })
    }

    /// What the probes have shown so far.
    pub fn path(&self) -> Option<Path> {
        let probe = self.measured.or(self.probe)?;
        Some(Path {
            asset: self.asset.clone()?,
            probe_sent: probe.sent,
            probe_received: probe.received,
            packet_amount_max: (self.path_amount_max < u64::MAX).then_some(self.path_amount_max),
        })
    }

    #[cfg(test)]
    pub(crate) fn use_up_sequences(&mut self) {
        self.sequence = SEQUENCE_MAX - 1;
    }

    fn give_up_at_ns(&self) -> u64 {
        self.progress_at_ns
            .saturating_add(self.config.give_up_ms.saturating_mul(1_000_000))
    }

    /// The first reason counts.
    fn halt(&mut self, why: Stop) {
        self.stopped.get_or_insert(why);
    }

    /// Nothing is in flight and nothing more is to be sent. A quote leaves the connection open for the
    /// payment that may follow; who has never answered, or has closed, needs no word.
    fn finish(&mut self) {
        let silent = self.config.target == Target::Probe || self.closed_by_receiver || !self.heard;
        match self.phase {
            Phase::Closing | Phase::Closed => {}
            Phase::Probing(_) | Phase::Paying if silent => self.phase = Phase::Closed,
            Phase::Probing(_) | Phase::Paying => self.phase = Phase::Closing,
        }
    }

    // ---- Packets out ----

    fn transmit_probe(&mut self, now: Now, rng: &mut impl Rng, amount: u64) -> Option<Transmit> {
        let mut frames = Vec::new();
        let volley = match &self.phase {
            Phase::Probing(probing) => probing.volley,
            Phase::Paying | Phase::Closing | Phase::Closed => 0,
        };
        let source_asset = self.config.source_asset.clone();
        if self.asset.is_none() {
            // Receivers tell their asset when they hear of an address. The reference implementation
            // takes an empty one without trying to reach it, others want one that is well-formed.
            frames.push(Frame::ConnectionNewAddress {
                source_account: if volley.is_multiple_of(2) {
                    ""
                } else {
                    UNREACHABLE_ADDRESS
                },
            });
            frames.extend(
                source_asset
                    .as_ref()
                    .map(|asset| Frame::ConnectionAssetDetails {
                        source_asset_code: asset.code(),
                        source_asset_scale: asset.scale(),
                    }),
            );
        }
        let flight = Flight {
            probe: true,
            amount,
            minimum: 0,
            received_max: 0,
            condition: [0; 32],
        };
        self.transmit(now, rng, flight, &frames)
    }

    fn transmit_money(&mut self, now: Now, rng: &mut impl Rng) -> Option<Transmit> {
        if self.stopped.is_some()
            || self.resume_at_ns.is_some()
            || self.flights.len() >= self.config.in_flight_count_max.max(1)
        {
            return None;
        }
        if self.rate_doubted {
            let probing = self.flights.values().any(|flight| flight.probe);
            let amount = self.probe?.sent.min(self.path_amount_max).min(self.window);
            return if probing {
                None
            } else {
                self.transmit_probe(now, rng, amount)
            };
        }
        let (amount, minimum) = match self.next() {
            Next::Pay { amount, minimum } => (amount, minimum),
            Next::Ask => {
                self.backoff(now);
                (0, 0)
            }
            Next::Wait => return None,
            Next::Finish => {
                self.finish();
                return self.poll_transmit(now, rng);
            }
            Next::Stop(why) => {
                self.halt(why);
                return self.poll_transmit(now, rng);
            }
        };
        let rate = self.rate?;
        let frame = if amount > 0 {
            Frame::StreamMoney {
                stream_id: STREAM_ID,
                shares: amount,
            }
        } else {
            Frame::StreamMoneyBlocked {
                stream_id: STREAM_ID,
                send_max: u64::MAX,
                total_sent: self.progress.sent,
            }
        };
        let flight = Flight {
            probe: false,
            amount,
            minimum,
            received_max: rate.received_max(amount),
            condition: [0; 32],
        };
        self.transmit(now, rng, flight, &[frame])
    }

    /// Seals and registers; the condition is filled in here.
    fn transmit(
        &mut self,
        now: Now,
        rng: &mut impl Rng,
        flight: Flight,
        frames: &[Frame<'_>],
    ) -> Option<Transmit> {
        // One number is kept for closing.
        if self.sequence + 1 >= SEQUENCE_MAX {
            self.halt(Stop::SequencesUsedUp);
            if self.flights.is_empty() {
                return self.poll_transmit(now, rng);
            }
            return None;
        }
        let fulfillable = !flight.probe;
        let (packet, condition) =
            self.prepare(now, rng, flight.amount, flight.minimum, fulfillable, frames);
        if fulfillable {
            self.progress.in_flight += flight.amount;
            self.in_flight_received_max = self
                .in_flight_received_max
                .saturating_add(flight.received_max);
        }
        self.flights.insert(
            self.sequence,
            Flight {
                condition,
                ..flight
            },
        );
        Some(Transmit {
            id: self.sequence,
            packet,
        })
    }

    fn transmit_close(&mut self, now: Now, rng: &mut impl Rng) -> Transmit {
        let error_code = match self.stopped {
            None | Some(Stop::Cancelled) => CloseCode::NO_ERROR,
            Some(Stop::AssetChanged { .. }) => CloseCode::PROTOCOL_VIOLATION,
            Some(_) => CloseCode::APPLICATION_ERROR,
        };
        let stream = (self.progress.packets_fulfilled > 0).then_some(Frame::StreamClose {
            stream_id: STREAM_ID,
            error_code,
            error_message: "",
        });
        let connection = Frame::ConnectionClose {
            error_code,
            error_message: "",
        };
        let frames: Vec<_> = stream.into_iter().chain([connection]).collect();
        let (packet, _) = self.prepare(now, rng, 0, 0, false, &frames);
        Transmit {
            id: self.sequence,
            packet,
        }
    }

    /// A Prepare with the next sequence number, and its condition.
    fn prepare(
        &mut self,
        now: Now,
        rng: &mut impl Rng,
        amount: u64,
        minimum: u64,
        fulfillable: bool,
        frames: &[Frame<'_>],
    ) -> (Vec<u8>, [u8; 32]) {
        self.sequence += 1;
        let plaintext = PacketBuilder {
            packet_type: PacketType::Prepare,
            sequence: self.sequence,
            prepare_amount: minimum,
            frames,
        }
        .encode();
        let data = self.keys.seal(rng, &plaintext);
        let condition = if fulfillable {
            condition(&self.keys.fulfillment(&data))
        } else {
            let mut random = [0; 32];
            rng.fill_bytes(&mut random);
            random
        };
        let packet = PrepareBuilder {
            amount,
            expires_at: now.wall.plus_ms(self.packet_timeout_ms),
            condition,
            destination: self.config.destination.as_ref(),
            data: &data,
        }
        .encode()
        .expect("a few frames are not too much data");
        (packet, condition)
    }

    // ---- How much next ----

    fn next(&self) -> Next {
        let idle = self.flights.is_empty();
        let wait_or = |next: Next| if idle { next } else { Next::Wait };
        let (Some(rate), Some(minimum)) = (self.rate, &self.minimum) else {
            return wait_or(Next::Finish);
        };
        // What one unit at the destination takes.
        let unit = rate.sent_for(1).max(self.amount_min);
        let receivable = self
            .receive_max
            .saturating_sub(self.receive_total.max(self.progress.delivered))
            .saturating_sub(self.in_flight_received_max);
        let packet_max = self
            .config
            .packet_amount_max
            .map_or(self.path_amount_max, |max| max.min(self.path_amount_max));
        let window = self.window.max(unit);
        let receivable_amount = rate.sent_within(receivable);
        let amount_max = packet_max.min(window).min(receivable_amount);
        let too_small = |receivable_amount: u64| {
            if receivable_amount < unit {
                wait_or(Next::Ask)
            } else {
                wait_or(Next::Stop(Stop::PacketsTooSmall {
                    packet_amount_max: packet_max,
                }))
            }
        };

        let (amount, last) = match self.config.target {
            Target::Probe => return wait_or(Next::Finish),
            Target::Send(total) => {
                let left = total - self.progress.sent - self.progress.in_flight;
                if left == 0 {
                    return wait_or(Next::Finish);
                }
                if left < unit {
                    return wait_or(if self.progress.delivered == 0 {
                        Next::Stop(Stop::RoundsToZero)
                    } else {
                        Next::Finish
                    });
                }
                if left <= amount_max {
                    (left, true)
                } else {
                    let whole = rate.aligned(amount_max);
                    let half = rate.aligned(left.div_ceil(2).min(amount_max));
                    // A remainder that would arrive as nothing is shared out over the last two.
                    if left - whole < unit && half >= unit {
                        (half, false)
                    } else {
                        (whole, false)
                    }
                }
            }
            Target::Deliver(total) => {
                let left = total
                    .saturating_sub(self.progress.delivered)
                    .saturating_sub(self.in_flight_received_max);
                if left == 0 {
                    return wait_or(Next::Finish);
                }
                let enough = rate.sent_for(left).max(self.amount_min);
                let fits =
                    rate.received_max(enough) <= left || rate.received_max(enough - 1) < left;
                let careful = rate.aligned(rate.sent_within(left).min(amount_max));
                if enough <= amount_max && (fits || careful < unit) {
                    (enough, true)
                } else {
                    (careful, false)
                }
            }
        };
        if amount < unit {
            return too_small(receivable_amount);
        }
        if !idle && amount > window.saturating_sub(self.progress.in_flight) {
            return Next::Wait;
        }
        let strict = |amount| minimum.round_up(amount).unwrap_or(u64::MAX).max(1);
        if last {
            // Rounding takes a larger part of the last packet, which can be any small amount: one unit
            // less is accepted there, but never nothing.
            let tight = strict(amount) >= rate.received_min(amount);
            let pay = Next::Pay {
                amount,
                minimum: (strict(amount) - u64::from(tight)).max(1),
            };
            return if tight { wait_or(pay) } else { pay };
        }
        if strict(amount) <= rate.received_min(amount) {
            return Next::Pay {
                amount,
                minimum: strict(amount),
            };
        }
        // With packets this small, rounding decides. The least that could bring `received` for the
        // minimum rate is worth a try, as its reply tells more about the rate than any other.
        let received = rate.received_max(amount);
        let cheapest = minimum
            .ratio()
            .inverse()
            .and_then(|price| Conversion::of_units(price).round_down(received))
            .unwrap_or(amount)
            .min(amount);
        if cheapest >= unit && strict(cheapest) <= rate.received_max(cheapest) {
            return Next::Pay {
                amount: cheapest,
                minimum: strict(cheapest),
            };
        }
        too_small(u64::MAX)
    }

    // ---- Replies ----

    /// Decrypts and checks that the reply is for this packet; anything else is as good as no data.
    fn authentic(&self, id: u64, data: &[u8], packet_type: PacketType) -> Option<Authentic> {
        let plaintext = self.keys.open(data)?;
        let packet = Packet::parse(&plaintext).ok()?;
        let fits = packet.packet_type == packet_type && packet.sequence == id;
        let amount = packet.prepare_amount;
        fits.then_some(Authentic { plaintext, amount })
    }

    /// Frames of a reply. Those that cannot be read are passed over.
    fn handle_frames(&mut self, authentic: &Authentic) {
        self.heard = true;
        let Ok(packet) = Packet::parse(&authentic.plaintext) else {
            return;
        };
        for frame in packet.frames().flatten() {
            match frame {
                Frame::ConnectionAssetDetails {
                    source_asset_code,
                    source_asset_scale,
                } => self.asset_told(source_asset_code, source_asset_scale),
                Frame::StreamMaxMoney {
                    stream_id: STREAM_ID,
                    receive_max,
                    total_received,
                } => {
                    // The first limit replaces "unlimited"; replies may overtake each other, so after
                    // that limits only grow.
                    self.receive_max = if self.receive_max == u64::MAX {
                        receive_max
                    } else {
                        self.receive_max.max(receive_max)
                    };
                    self.receive_total = self.receive_total.max(total_received);
                }
                Frame::StreamReceipt {
                    stream_id: STREAM_ID,
                    receipt,
                } => {
                    let known = self.receipt.as_ref().map(|(total, _)| *total);
                    if let Ok(parsed) = Receipt::parse(receipt)
                        && known.is_none_or(|known| parsed.total_received > known)
                    {
                        self.receipt = Some((parsed.total_received, receipt.to_vec()));
                    }
                }
                Frame::ConnectionClose { error_code, .. }
                | Frame::StreamClose {
                    stream_id: STREAM_ID,
                    error_code,
                    ..
                } => {
                    self.closed_by_receiver = true;
                    self.halt(Stop::ClosedByReceiver { code: error_code });
                }
                // This side receives nothing and sends no data.
                Frame::ConnectionNewAddress { .. }
                | Frame::ConnectionMaxData { .. }
                | Frame::ConnectionDataBlocked { .. }
                | Frame::ConnectionMaxStreamId { .. }
                | Frame::ConnectionStreamIdBlocked { .. }
                | Frame::StreamClose { .. }
                | Frame::StreamMoney { .. }
                | Frame::StreamMaxMoney { .. }
                | Frame::StreamMoneyBlocked { .. }
                | Frame::StreamData { .. }
                | Frame::StreamMaxData { .. }
                | Frame::StreamDataBlocked { .. }
                | Frame::StreamReceipt { .. } => {}
            }
        }
    }

    fn asset_told(&mut self, code: &str, scale: u8) {
        let Ok(found) = Asset::new(code, scale) else {
            return;
        };
        let expected = self
            .asset
            .as_ref()
            .or(self.config.destination_asset.as_ref());
        match expected {
            Some(expected) if *expected != found => {
                let expected = expected.to_string();
                self.halt(Stop::AssetChanged {
                    expected,
                    found: found.to_string(),
                });
            }
            Some(_) | None => self.asset = Some(found),
        }
    }

    fn fulfilled<B: AsRef<[u8]>>(
        &mut self,
        now: Now,
        id: u64,
        flight: &Flight,
        fulfill: &Fulfill<B>,
    ) {
        if condition(&fulfill.fulfillment()) != flight.condition {
            self.halt(Stop::WrongFulfillment);
            return;
        }
        let authentic = self.authentic(id, fulfill.data(), PacketType::Fulfill);
        // The money has moved, whatever the data says; a claim below the minimum is not believed.
        let claimed = authentic.as_ref().map_or(0, |it| it.amount);
        self.progress.sent += flight.amount;
        self.progress.delivered = self
            .progress
            .delivered
            .saturating_add(claimed.max(flight.minimum));
        if flight.amount > 0 {
            self.progress.packets_fulfilled += 1;
            self.progress_at_ns = now.mono_ns;
            self.backoff_ms /= 2;
            self.rounds = Rounds {
                until_id: self.rounds.until_id,
                ..Rounds::default()
            };
            if claimed >= flight.minimum {
                self.rate_observed(flight.amount, claimed);
            }
            self.window_grow(flight.amount);
        }
        if let Some(authentic) = authentic {
            self.handle_frames(&authentic);
        }
    }

    fn rejected<B: AsRef<[u8]>>(
        &mut self,
        now: Now,
        id: u64,
        flight: &Flight,
        reject: &Reject<B>,
        in_flight_amount: u64,
    ) {
        let code = reject.code();
        let receive_max = self.receive_max;
        if let Some(authentic) = self.authentic(id, reject.data(), PacketType::Reject) {
            self.handle_frames(&authentic);
            if flight.probe {
                self.rate_measured(now, id, flight.amount, authentic.amount);
            } else if authentic.amount < flight.minimum {
                self.rate_missed(now, id, flight.amount, authentic.amount);
            } else if self.receive_max == receive_max {
                self.refused(now, id, Stop::Refused);
            }
            return;
        }
        let final_answer = Stop::Rejected {
            code,
            triggered_by: reject.triggered_by().map(|address| address.to_owned()),
            message: reject.message().chars().take(MESSAGE_CHARS_MAX).collect(),
        };
        match (code, code.class()) {
            (ErrorCode::F08_AMOUNT_TOO_LARGE, _) => self.amount_too_large(flight.amount, reject),
            (ErrorCode::F99_APPLICATION_ERROR, _) => self.refused(now, id, final_answer),
            (_, ErrorClass::Final) => self.halt(final_answer),
            (_, ErrorClass::Temporary) => self.congested(now, id, in_flight_amount),
            (_, ErrorClass::Relative) => {
                match code {
                    ErrorCode::R01_INSUFFICIENT_SOURCE_AMOUNT => {
                        self.amount_min = self.amount_min.max(flight.amount.saturating_add(1));
                    }
                    ErrorCode::R02_INSUFFICIENT_TIMEOUT => self.packet_timeout_grow(),
                    _ => {}
                }
                if id > self.rounds.until_id {
                    self.rounds.relative += 1;
                    if self.rounds.relative > RELATIVE_ROUNDS_MAX {
                        self.halt(final_answer);
                    }
                }
                self.congested(now, id, in_flight_amount);
            }
        }
    }

    /// The rate was measured again because it seemed to be below the minimum.
    fn rate_measured(&mut self, now: Now, id: u64, sent: u64, received: u64) {
        if received > 0 {
            self.rate = Some(Rate::observed(sent, received));
        }
        self.rate_missed(now, id, sent, received);
    }

    /// Less arrived than the minimum, or the rate was measured. A rate that can still be good enough
    /// is only known better now; one that cannot is measured again until it recovers.
    fn rate_missed(&mut self, now: Now, id: u64, sent: u64, received: u64) {
        self.rate_observed(sent, received);
        self.rate_doubted = received == 0 || self.rate_is_below_minimum();
        if self.round_begins(id) {
            self.rounds.rate += 1;
            if self.rate_doubted {
                self.backoff(now);
            }
        }
        if self.rounds.rate > RATE_ROUNDS_MAX {
            self.halt(Stop::RateTooLow { sent, received });
        }
    }

    fn rate_is_below_minimum(&self) -> bool {
        let minimum = self.minimum.as_ref().map(Conversion::ratio);
        self.rate
            .zip(minimum)
            .is_some_and(|(rate, minimum)| rate.is_below(minimum))
    }

    fn refused(&mut self, now: Now, id: u64, why: Stop) {
        if self.round_begins(id) {
            self.rounds.refused += 1;
            self.backoff(now);
        }
        if self.rounds.refused > REFUSED_ROUNDS_MAX {
            self.halt(why);
        }
    }

    fn rate_observed(&mut self, sent: u64, received: u64) {
        match &mut self.rate {
            Some(rate) => rate.observe(sent, received),
            None if sent > 0 && received > 0 => self.rate = Some(Rate::observed(sent, received)),
            None => {}
        }
    }

    /// Data that makes sense gives the limit exactly; otherwise half is a safe guess.
    fn amount_too_large<B: AsRef<[u8]>>(&mut self, amount: u64, reject: &Reject<B>) {
        let max = AmountTooLarge::parse(reject.data())
            .and_then(|data| data.sent_amount_max(amount))
            .unwrap_or(amount / 2);
        self.path_amount_max = self.path_amount_max.min(max);
        if self.path_amount_max == 0 {
            self.halt(Stop::PacketsTooSmall {
                packet_amount_max: 0,
            });
        }
    }

    fn packet_timeout_grow(&mut self) {
        self.packet_timeout_ms = self
            .packet_timeout_ms
            .saturating_mul(2)
            .min(PACKET_TIMEOUT_MS_MAX.max(self.config.packet_timeout_ms));
    }

    // ---- Pace ----

    /// Whether the reject of packet `id` begins a new round.
    fn round_begins(&mut self, id: u64) -> bool {
        let begins = id > self.rounds.until_id;
        if begins {
            self.rounds.until_id = self.sequence;
        }
        begins
    }

    /// Halves the window and waits, once for each round.
    fn congested(&mut self, now: Now, id: u64, in_flight_amount: u64) {
        if self.round_begins(id) {
            if in_flight_amount > 0 {
                self.window_threshold = (in_flight_amount / 2).max(1);
                self.window = self.window_threshold;
            }
            self.backoff(now);
        }
    }

    fn backoff(&mut self, now: Now) {
        self.backoff_ms = (self.backoff_ms * 2).clamp(BACKOFF_MS_MIN, BACKOFF_MS_MAX);
        self.resume_at_ns = Some(now.mono_ns.saturating_add(self.backoff_ms * 1_000_000));
    }

    fn window_grow(&mut self, amount: u64) {
        let more = if self.window < self.window_threshold {
            amount
        } else {
            let part = u128::from(amount) * u128::from(amount) / u128::from(self.window.max(1));
            u64::try_from(part)
                .unwrap_or(amount)
                .min(self.window / WINDOW_STEP_PART)
                .max(1)
        };
        let count_max = self.config.in_flight_count_max.max(1) as u64;
        self.window = self
            .window
            .saturating_add(more)
            .min(self.path_amount_max.saturating_mul(count_max));
    }

    // ---- Probes ----

    /// Amounts of a first volley, smallest last as the queue is emptied from its end.
    fn probe_amounts(&self) -> Vec<u64> {
        let most = self.probe_amount_max();
        let mut amounts = vec![];
        if let Target::Send(total) = self.config.target
            && total <= PROBE_AMOUNTS[0]
        {
            amounts.push(total.min(most));
        }
        amounts.extend(PROBE_AMOUNTS.into_iter().filter(|amount| *amount < most));
        if amounts.is_empty() {
            amounts.push(most);
        }
        amounts.dedup();
        amounts
    }

    /// Never more than the path takes, nor than is to be sent.
    fn probe_amount_max(&self) -> u64 {
        match self.config.target {
            Target::Send(total) => total.min(self.path_amount_max),
            Target::Deliver(_) | Target::Probe => self.path_amount_max,
        }
    }

    fn probe_rejected<B: AsRef<[u8]>>(
        &mut self,
        now: Now,
        id: u64,
        flight: &Flight,
        reject: &Reject<B>,
    ) {
        let code = reject.code();
        if let Some(authentic) = self.authentic(id, reject.data(), PacketType::Reject) {
            if !self.heard {
                self.progress_at_ns = now.mono_ns;
            }
            self.handle_frames(&authentic);
            let received = authentic.amount;
            self.rate_observed(flight.amount, received);
            if received > 0 && self.probe.is_none_or(|best| received > best.received) {
                self.probe = Some(Probe {
                    sent: flight.amount,
                    received,
                });
            }
            if let Phase::Probing(probing) = &mut self.phase
                && received == 0
            {
                probing.zero_amount_max = probing.zero_amount_max.max(flight.amount);
            }
        } else if code == ErrorCode::F08_AMOUNT_TOO_LARGE {
            self.amount_too_large(flight.amount, reject);
        } else {
            if code == ErrorCode::R02_INSUFFICIENT_TIMEOUT {
                self.packet_timeout_grow();
            }
            let stop = Stop::Rejected {
                code,
                triggered_by: reject.triggered_by().map(|address| address.to_owned()),
                message: reject.message().chars().take(MESSAGE_CHARS_MAX).collect(),
            };
            if let Phase::Probing(probing) = &mut self.phase {
                match code.class() {
                    ErrorClass::Final => probing.fatal = Some(stop),
                    ErrorClass::Relative if code == ErrorCode::R01_INSUFFICIENT_SOURCE_AMOUNT => {
                        probing.zero_amount_max = probing.zero_amount_max.max(flight.amount);
                        self.rate_observed(flight.amount, 0);
                    }
                    ErrorClass::Temporary | ErrorClass::Relative => {
                        probing.temporary = true;
                        let least = probing.temporary_amount_min.unwrap_or(u64::MAX);
                        probing.temporary_amount_min = Some(least.min(flight.amount));
                    }
                }
            }
        }
        let Phase::Probing(probing) = &mut self.phase else {
            return;
        };
        probing.outstanding -= 1;
        if probing.outstanding == 0 && probing.queue.is_empty() && self.stopped.is_none() {
            let probing = std::mem::take(probing);
            self.probe_volley_done(now, probing);
        }
    }

    /// Decides after each volley: pay, probe on, or stop.
    fn probe_volley_done(&mut self, now: Now, done: Probing) {
        let volley = done.volley + 1;
        if self.asset.is_none() && self.heard && volley >= ASSET_VOLLEYS_MAX {
            self.asset = self.config.destination_asset.clone();
            if self.asset.is_none() {
                self.halt(Stop::AssetUnknown);
                return;
            }
        }
        let amount_max = self.probe_amount_max();
        let mut amounts = Vec::new();
        if let Some(best) = self.probe {
            let enough = best.received >= PROBE_RECEIVED_ENOUGH || best.sent >= amount_max;
            if !enough {
                let larger = match done.temporary_amount_min {
                    Some(amount) => amount - amount / 3,
                    None => amount_max,
                }
                .min(amount_max);
                let telling = larger > best.sent && larger < u64::MAX;
                amounts.extend(telling.then_some(larger));
            } else if best.received < PROBE_RECEIVED_ENOUGH
                && let Some(rate) = &self.rate
            {
                // No packet can be larger, but several together tell the rate as well.
                amounts = rate.telling(best.sent, PROBE_RECEIVED_ENOUGH);
            }
            if self.asset.is_none() {
                amounts.push(best.sent);
            }
            if amounts.is_empty() || (volley >= PROBE_VOLLEYS_MAX && self.asset.is_some()) {
                self.pay(now);
                return;
            }
        } else {
            if volley >= PROBE_VOLLEYS_MAX {
                let last = self.last_code;
                self.halt(done.fatal.unwrap_or(Stop::NoProgress { last }));
                return;
            }
            if done.temporary {
                amounts = self.probe_amounts();
            } else if let Some(stop) = done.fatal {
                self.halt(stop);
                return;
            } else if done.zero_amount_max >= amount_max.min(PROBE_AMOUNTS[0]) {
                self.halt(Stop::RoundsToZero);
                return;
            } else {
                // Larger ones were too large, smaller ones came to nothing.
                amounts.push(amount_max);
            }
        }
        if done.temporary {
            self.backoff(now);
        }
        self.phase = Phase::Probing(Probing {
            volley,
            queue: amounts,
            zero_amount_max: done.zero_amount_max,
            ..Probing::default()
        });
    }

    /// The probes have shown enough.
    fn pay(&mut self, now: Now) {
        let (Some(best), Some(rate)) = (self.probe, self.rate) else {
            return;
        };
        let (sent, received) = rate.best();
        self.measured = Some(Probe { sent, received });
        let minimum = match &self.config.rate_min {
            Some(explicit) if rate.is_below(explicit) => None,
            Some(explicit) => Some(explicit.clone()),
            None => Ratio::new(received, sent)
                .and_then(|probed| probed.less(&self.config.slippage))
                .ok(),
        };
        let Some(minimum) = minimum else {
            self.halt(Stop::RateTooLow { sent, received });
            return;
        };
        self.minimum = Some(Conversion::of_units(minimum));
        self.window = best.sent;
        self.progress_at_ns = now.mono_ns;
        self.phase = Phase::Paying;
    }
}
