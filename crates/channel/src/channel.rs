//! One channel as one side sees it.
//!
//! ```text
//!              propose                accept
//!   (opener)  ────────▶  proposed ──────────────▶ open ──── close ───▶ closing ── finals ──▶ closed
//!                            │                     │ ▲                    │
//!   (accepter)           offered ── accept ────────┘ │ pay, credit,       │
//!                            │                       └─change of limits   │
//!                            ▼ decline                                    ▼
//!                         declined        close alone, from any ──▶ closed_alone
//! ```
//!
//! What a side has to tell is a message in its outbox, numbered, told one at a time and again and again
//! until it is answered. The other side takes or refuses each number once and repeats that answer as
//! often as it is asked, so nothing happens twice and nothing is lost, whatever the wire does.
//!
//! A side pays by raising a counter that only it can sign. Counters never fall and nobody waits for the
//! other's, so payments of both at once do not conflict. Each side keeps within a limit by what it *knows*
//! that it was paid, which is never more than what the other side has paid: so whoever is paid always
//! finds the payment within the limit.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    frame::{Answer, Message, Standing},
    sign::{self, ChannelKey, Final, Word, sha256},
    terms::{ChannelId, Digest, Kind, Limits, PublicKey, Side, Signature, Terms, TermsError},
    text,
};

/// Most messages of a channel that wait to be answered.
pub const OUTBOX_MAX: usize = 16;

/// Of them, kept free for what the other side makes us say.
const OUTBOX_RESERVE: usize = 4;

/// Something happens to a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// We pay.
    Pay {
        /// In units of the channel's asset.
        amount: u64,
    },
    /// A payment of ours that was refused is told again.
    PayAgain,
    /// We agree: to the channel that was offered, or to other limits.
    Accept,
    /// We do not.
    Decline {
        /// For the other side.
        reason: String,
    },
    /// We propose other limits.
    Change {
        /// Of the opener's debt.
        opener: u64,
        /// Of the accepter's debt.
        accepter: u64,
    },
    /// We want to end it in agreement.
    Close,
    /// We end it and wait for nobody.
    CloseAlone,
    /// A message came in.
    Received {
        /// Its number.
        sequence: u64,
        /// What it says.
        message: Message,
    },
    /// A message of ours was answered.
    Answered {
        /// Its number.
        sequence: u64,
        /// The last of our messages that they took, as they say.
        acknowledgement: u64,
        /// What became of it.
        answer: Answer,
    },
}

/// What a step asks for, beside that the channel is remembered as it is now. None of it may happen before
/// that is safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Tell them [`Channel::outgoing`].
    Send,
    /// We paid: the amount leaves their balance.
    Debit {
        /// In units of the channel's asset.
        amount: u64,
    },
    /// They paid: the amount is theirs.
    Credit {
        /// In units of the channel's asset.
        amount: u64,
        /// Counts their payments over this channel.
        number: u64,
    },
    /// They took our payment.
    PaymentTaken,
    /// They refused our payment. It stays signed, and theirs: it can be told again, and is taken back only
    /// when both have signed that the channel ends without it.
    PaymentRefused {
        /// Their words.
        reason: String,
    },
    /// Both have signed that the channel ended without the payment that they refused: it was never made.
    PaymentVoid,
    /// The channel ended, and the payment that they refused is signed for good: it counts.
    PaymentStands,
    /// Something that an operator may want to read.
    Note {
        /// A sentence.
        message: String,
    },
}

/// Why something cannot be done with a channel now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ChannelError {
    /// It does not fit where the channel stands.
    #[error("the channel is {word}: {hint}")]
    Phase {
        /// Where it stands.
        word: &'static str,
        /// What to do about it.
        hint: &'static str,
    },
    /// The terms make no channel.
    #[error(transparent)]
    Terms(#[from] TermsError),
    /// A payment of nothing.
    #[error("a payment of 0 pays nothing")]
    Nothing,
    /// More than the limit leaves.
    #[error("{amount} units are more than the {room} that the limit of the channel leaves")]
    Limit {
        /// What was to be paid.
        amount: u64,
        /// What could be.
        room: u64,
    },
    /// One payment at a time.
    #[error("a payment over the channel is still under way")]
    Unanswered,
    /// The counter would wrap.
    #[error("the channel has carried all that its counter can hold: open another")]
    Counter,
    /// The other side is silent.
    #[error("{OUTBOX_MAX} messages wait to be answered by the other side")]
    Outbox,
}

/// Why a message is refused: a sentence for both operators.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Refusal(String);

/// Where a channel stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is", deny_unknown_fields)]
pub enum Phase {
    /// We proposed it.
    Proposed,
    /// They proposed it.
    Offered,
    /// It carries payments.
    Open,
    /// It carries no new payments; the two finals are under way.
    Closing,
    /// Both signed how it ended.
    Closed,
    /// One side ended it.
    ClosedAlone {
        /// Which.
        by: Side,
    },
    /// It never was.
    Declined {
        /// For people.
        reason: String,
    },
}

impl Phase {
    /// Whether it carries no more payments and never will.
    pub fn is_ended(&self) -> bool {
        match self {
            Self::Proposed | Self::Offered | Self::Open | Self::Closing => false,
            Self::Closed | Self::ClosedAlone { .. } | Self::Declined { .. } => true,
        }
    }
}

/// What one side has paid over all time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paid {
    /// How many payments.
    pub count: u64,
    /// Their sum.
    #[serde(with = "text")]
    pub total: u64,
    /// The last one.
    #[serde(with = "text")]
    pub amount: u64,
    /// The terms of the last one.
    pub terms: Option<Digest>,
    /// The payer's under the last one; the keeper of an asymmetrical trustline signs its word instead.
    pub signature: Option<Signature>,
}

/// The signatures under the terms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agreed {
    /// The opener's.
    pub opener: Option<Signature>,
    /// The accepter's.
    pub accepter: Option<Signature>,
}

impl Agreed {
    fn of(opener: Side, signature: Signature) -> Self {
        let mut agreed = Self::default();
        agreed.set(opener, signature);
        agreed
    }

    fn set(&mut self, side: Side, signature: Signature) {
        match side {
            Side::Opener => self.opener = Some(signature),
            Side::Accepter => self.accepter = Some(signature),
        }
    }

    /// One side's.
    pub fn get(&self, side: Side) -> Option<&Signature> {
        match side {
            Side::Opener => self.opener.as_ref(),
            Side::Accepter => self.accepter.as_ref(),
        }
    }
}

/// Other limits that one side proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Who.
    pub by: Side,
    /// Which.
    pub limits: Limits,
    /// Theirs, under the terms with these limits.
    pub signature: Signature,
}

/// A message that waits to be answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queued {
    /// Its number.
    pub sequence: u64,
    /// What it says.
    pub message: Message,
}

/// All that has to be remembered of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Which.
    pub id: ChannelId,
    /// Which side we are.
    pub side: Side,
    /// What was agreed.
    pub terms: Terms,
    /// The limits before the last change, as long as a payment that was made under them may still come.
    pub limits_before: Option<Limits>,
    /// Who signed the terms.
    pub agreed: Agreed,
    /// Where it stands.
    pub phase: Phase,
    /// What we paid.
    pub ours: Paid,
    /// What they paid.
    pub theirs: Paid,
    /// Of what we paid, what they took.
    #[serde(with = "text")]
    pub taken: u64,
    /// What we had paid before the payment that they have not taken yet. It holds again if both sign that
    /// the channel ends without that payment.
    #[serde(default)]
    pub before: Option<Paid>,
    /// The last word of the keeper.
    pub word: Option<Word>,
    /// Other limits that wait for an answer.
    pub change: Option<Change>,
    /// How it ends, signed by us.
    pub our_final: Option<Final>,
    /// How it ends, signed by them.
    pub their_final: Option<Final>,
    /// The last number that we gave to a message.
    pub sent: u64,
    /// Messages that wait to be answered, the oldest first.
    pub outbox: VecDeque<Queued>,
    /// The last message of theirs that was taken or refused.
    pub received: u64,
    /// Of that message.
    pub received_digest: Option<Digest>,
    /// Why that message was refused, if it was.
    pub refused: Option<String>,
}

/// What comes out of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The channel after it.
    pub channel: Channel,
    /// The answer to [`Event::Received`].
    pub answer: Option<Answer>,
    /// What else is to be done.
    pub effects: Vec<Effect>,
}

impl Channel {
    /// Proposes a channel with a fresh random number.
    pub fn propose(id: ChannelId, terms: Terms, key: &ChannelKey) -> Result<Step, ChannelError> {
        terms.check()?;
        let signature = key.sign(&sign::agreement(id, &terms, Side::Opener));
        let mut channel = Self::new(id, Side::Opener, terms.clone(), signature);
        channel.phase = Phase::Proposed;
        let mut step = Step::of(channel);
        step.queue(Message::Propose { terms, signature });
        Ok(step)
    }

    /// Takes a proposal, the first message of a channel that is not known yet.
    pub fn offered(
        id: ChannelId,
        sequence: u64,
        terms: &Terms,
        signature: &Signature,
        key: &ChannelKey,
    ) -> Result<Self, Refusal> {
        if id == ChannelId::NONE {
            return refuse("the number of a channel is random, not zero".to_owned());
        }
        if sequence != 1 {
            return refuse(format!(
                "a proposal with number {sequence} is not a first message"
            ));
        }
        terms.check().map_err(|error| Refusal(error.to_string()))?;
        if terms.accepter != key.public() {
            return refuse("the proposal names another key than ours".to_owned());
        }
        if terms.limits.revision != 0 {
            return refuse("the limits of a proposal have revision 0".to_owned());
        }
        let signed = sign::agreement(id, terms, Side::Opener);
        if !terms.opener.verifies(&signed, signature) {
            return refuse("the signature under the proposal is wrong".to_owned());
        }
        let message = Message::Propose {
            terms: terms.clone(),
            signature: *signature,
        };
        let mut channel = Self::new(id, Side::Accepter, terms.clone(), *signature);
        channel.received = 1;
        channel.received_digest = Some(sha256(&message.bytes()));
        Ok(channel)
    }

    fn new(id: ChannelId, side: Side, terms: Terms, opener: Signature) -> Self {
        Self {
            id,
            side,
            terms,
            limits_before: None,
            agreed: Agreed::of(Side::Opener, opener),
            phase: Phase::Offered,
            ours: Paid::default(),
            theirs: Paid::default(),
            taken: 0,
            before: None,
            word: None,
            change: None,
            our_final: None,
            their_final: None,
            sent: 0,
            outbox: VecDeque::new(),
            received: 0,
            received_digest: None,
            refused: None,
        }
    }

    /// What happens. An error is for whoever asked for it, and changes nothing; what the other side
    /// does wrong is an answer.
    pub fn step(&self, event: Event, key: &ChannelKey) -> Result<Step, ChannelError> {
        let mut step = Step::of(self.clone());
        match event {
            Event::Pay { amount } => step.pay(amount, key)?,
            Event::PayAgain => step.pay_again(key)?,
            Event::Accept => step.accept(key)?,
            Event::Decline { reason } => step.decline(reason)?,
            Event::Change { opener, accepter } => step.change(opener, accepter, key)?,
            Event::Close => step.close(key)?,
            Event::CloseAlone => step.close_alone()?,
            Event::Received { sequence, message } => step.receive(sequence, &message, key),
            Event::Answered {
                sequence,
                acknowledgement,
                answer,
            } => step.answered(sequence, acknowledgement, answer, key),
        }
        step.decide_refused(key);
        Ok(step)
    }

    /// The message to tell them now, until it is answered.
    pub fn outgoing(&self) -> Option<&Queued> {
        self.outbox.front()
    }

    /// Whether it has ended and there is nothing more to tell.
    pub fn is_quiet(&self) -> bool {
        self.phase.is_ended() && self.outbox.is_empty()
    }

    /// Whether a payment of ours was neither taken nor is it on its way: it was refused.
    pub fn is_payment_refused(&self) -> bool {
        self.taken < self.ours.total && !self.outbox.iter().any(|queued| queued.is_payment())
    }

    fn has_final_to_tell(&self) -> bool {
        let mut waiting = self.outbox.iter();
        waiting.any(|queued| matches!(queued.message, Message::Final { .. }))
    }

    /// What they owe us over the channel, or may come to owe once it is accepted, in units of its asset.
    pub fn at_risk(&self) -> u64 {
        let owed = u64::try_from(-self.owed()).unwrap_or(0);
        let takes_payments = match self.phase {
            Phase::Proposed | Phase::Offered | Phase::Open | Phase::Closing => true,
            // What they paid before they knew is taken.
            Phase::ClosedAlone { by } => by == self.side,
            Phase::Closed | Phase::Declined { .. } => false,
        };
        let before = self
            .limits_before
            .map_or(0, |limits| limits.of(self.they()));
        match takes_payments {
            true => owed.max(self.their_limit()).max(before),
            false => owed,
        }
    }

    /// What we owe them over the channel less what they owe us, in units of its asset.
    pub fn owed(&self) -> i128 {
        i128::from(self.ours.total) - i128::from(self.theirs.total)
    }

    /// What we may pay now.
    pub fn room(&self) -> u64 {
        let room = i128::from(self.our_limit()) - self.owed();
        u64::try_from(room.max(0)).unwrap_or(u64::MAX)
    }

    /// The most that we may owe.
    pub fn our_limit(&self) -> u64 {
        self.terms.limits.of(self.side)
    }

    /// The most that they may owe.
    pub fn their_limit(&self) -> u64 {
        self.terms.limits.of(self.side.other())
    }

    /// Their key.
    pub fn their_key(&self) -> &PublicKey {
        self.terms.key_of(self.side.other())
    }

    /// What a greeting says of it.
    pub fn standing(&self) -> Standing {
        Standing {
            channel: self.id,
            paid: self.ours.total,
            received: self.theirs.total,
            sent_sequence: self.sent,
            taken_sequence: self.received,
        }
    }

    /// What their greeting cannot fall short of, from now on.
    pub fn known_standing(&self) -> Standing {
        let waiting = self.outgoing();
        Standing {
            channel: self.id,
            paid: self.theirs.total,
            received: self.taken,
            sent_sequence: self.received,
            taken_sequence: waiting.map_or(self.sent, |queued| queued.sequence - 1),
        }
    }

    /// What differs between what they say and what we have, as sentences, to the unit. `known` is
    /// [`Self::known_standing`] of when they were asked: what they said before anybody asked may have
    /// been overtaken since, and says too little without being wrong.
    pub fn differences(&self, theirs: &Standing, known: Option<&Standing>) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(known) = known {
            if theirs.paid < known.paid {
                found.push(format!(
                    "they say that they paid {}, we have {}: {} units less",
                    theirs.paid,
                    known.paid,
                    known.paid - theirs.paid
                ));
            }
            if theirs.received < known.received {
                found.push(format!(
                    "they say that we paid {}, they had taken {}: {} units less",
                    theirs.received,
                    known.received,
                    known.received - theirs.received
                ));
            }
            if theirs.sent_sequence < known.sent_sequence {
                found.push(format!(
                    "they remember {} messages to us, we took {}: their books are older than ours",
                    theirs.sent_sequence, known.sent_sequence
                ));
            }
        }
        let in_flight_to_us = theirs.sent_sequence > self.received;
        if theirs.paid > self.theirs.total && !in_flight_to_us {
            found.push(format!(
                "they say that they paid {}, we have {}: {} units more",
                theirs.paid,
                self.theirs.total,
                theirs.paid - self.theirs.total
            ));
        }
        if theirs.received > self.ours.total {
            found.push(format!(
                "they say that we paid {}, we have {}: {} units more",
                theirs.received,
                self.ours.total,
                theirs.received - self.ours.total
            ));
        }
        if theirs.taken_sequence > self.sent {
            found.push(format!(
                "they took {} messages of ours, we remember {}: our books are older than theirs",
                theirs.taken_sequence, self.sent
            ));
        }
        found
    }

    /// Where it stands, in one word.
    pub fn state_word(&self) -> &'static str {
        match &self.phase {
            Phase::Proposed => "proposed",
            Phase::Offered => "offered",
            Phase::Open => "open",
            Phase::Closing => "closing",
            Phase::Closed => "closed",
            Phase::ClosedAlone { .. } => "closed_alone",
            Phase::Declined { .. } => "declined",
        }
    }

    /// The same in a sentence.
    pub fn state_sentence(&self) -> String {
        let asset = &self.terms.asset;
        let amount = |units: i128| format!("{} {}", asset.decimal(units), asset.code());
        let owed = match self.owed() {
            0 => "nothing is owed over it".to_owned(),
            owed @ 1.. => format!("we owe them {}", amount(owed)),
            owed => format!("they owe us {}", amount(-owed)),
        };
        let change = match &self.change {
            Some(change) if change.by == self.side => "; other limits wait for their answer",
            Some(_) => "; they propose other limits: accept or decline them",
            None => "",
        };
        match &self.phase {
            Phase::Proposed => "waits for the other side to accept it".to_owned(),
            Phase::Offered => format!(
                "they offer it: we may owe {}, they may owe {}; accept or decline it",
                amount(self.our_limit().into()),
                amount(self.their_limit().into())
            ),
            Phase::Open if self.is_payment_refused() => {
                format!("{owed}; a payment of ours was refused{change}")
            }
            Phase::Open => format!("carries payments; {owed}{change}"),
            Phase::Closing => format!("ends in agreement as soon as both have signed; {owed}"),
            Phase::Closed => format!("ended in agreement; {owed}, to be settled by hand"),
            Phase::ClosedAlone { by } if *by == self.side => {
                format!("we ended it alone; {owed}, to be settled by hand")
            }
            Phase::ClosedAlone { .. } => {
                format!("they ended it alone; {owed}, to be settled by hand")
            }
            Phase::Declined { reason } => format!("never opened: {reason}"),
        }
    }

    fn they(&self) -> Side {
        self.side.other()
    }

    fn are_keeper(&self) -> bool {
        self.terms.keeper() == Some(self.side)
    }

    /// What both sides paid, the opener first, as it is signed in the end: without a payment of ours that
    /// they refused.
    fn totals(&self) -> (u64, u64) {
        let before = self.before.filter(|_| self.is_payment_refused());
        let ours = before.unwrap_or(self.ours).total;
        match self.side {
            Side::Opener => (ours, self.theirs.total),
            Side::Accepter => (self.theirs.total, ours),
        }
    }

    /// Other limits that they proposed are not answered any more; that they agreed to ours may be on its
    /// way, with payments under them behind it.
    fn forget_their_change(&mut self) {
        let ours = self.change.filter(|change| change.by == self.side);
        self.change = ours;
    }

    fn phase_error(&self, hint: &'static str) -> ChannelError {
        ChannelError::Phase {
            word: self.state_word(),
            hint,
        }
    }

    /// The limits of the terms with this digest, if payments under them may still come.
    fn limits_of(&self, digest: Digest) -> Option<Limits> {
        let known = [Some(self.terms.limits), self.limits_before];
        known.into_iter().flatten().find(|limits| {
            let terms = Terms {
                limits: *limits,
                ..self.terms.clone()
            };
            terms.digest() == digest
        })
    }
}

impl Queued {
    fn is_payment(&self) -> bool {
        self.message.payment_total().is_some()
    }
}

impl Message {
    /// The payer's counter, if it is a payment.
    fn payment_total(&self) -> Option<u64> {
        match self {
            Self::Claim { total, .. } | Self::Order { total, .. } => Some(*total),
            Self::Credit { word, .. } => Some(word.credited),
            Self::Propose { .. }
            | Self::Accept { .. }
            | Self::Decline { .. }
            | Self::Change { .. }
            | Self::ChangeAccept { .. }
            | Self::ChangeDecline { .. }
            | Self::Close
            | Self::Final { .. }
            | Self::CloseAlone => None,
        }
    }
}

fn refuse<T>(reason: String) -> Result<T, Refusal> {
    Err(Refusal(reason))
}

/// What we ask for.
impl Step {
    fn of(channel: Channel) -> Self {
        Self {
            channel,
            answer: None,
            effects: Vec::new(),
        }
    }

    fn queue(&mut self, message: Message) {
        let channel = &mut self.channel;
        channel.sent += 1;
        let sequence = channel.sent;
        channel.outbox.push_back(Queued { sequence, message });
        if channel.outbox.len() == 1 {
            self.effects.push(Effect::Send);
        }
    }

    fn note(&mut self, message: impl Into<String>) {
        let message = message.into();
        self.effects.push(Effect::Note { message });
    }

    fn check_outbox(&self) -> Result<(), ChannelError> {
        if self.channel.outbox.len() >= OUTBOX_MAX - OUTBOX_RESERVE {
            return Err(ChannelError::Outbox);
        }
        Ok(())
    }

    fn pay(&mut self, amount: u64, key: &ChannelKey) -> Result<(), ChannelError> {
        let channel = &mut self.channel;
        if channel.phase != Phase::Open {
            return Err(channel.phase_error("only an open channel carries payments"));
        }
        if amount == 0 {
            return Err(ChannelError::Nothing);
        }
        if channel.taken < channel.ours.total {
            return Err(ChannelError::Unanswered);
        }
        let room = channel.room();
        if amount > room {
            return Err(ChannelError::Limit { amount, room });
        }
        channel.before = Some(channel.ours);
        let total = channel.ours.total.checked_add(amount);
        channel.ours.total = total.ok_or(ChannelError::Counter)?;
        channel.ours.count += 1;
        channel.ours.amount = amount;
        self.check_outbox()?;
        self.pay_tell(key);
        self.effects.push(Effect::Debit { amount });
        Ok(())
    }

    fn pay_again(&mut self, key: &ChannelKey) -> Result<(), ChannelError> {
        let channel = &self.channel;
        if !channel.is_payment_refused() {
            return Err(channel.phase_error("no payment of ours was refused"));
        }
        if channel.phase != Phase::Open {
            return Err(channel.phase_error("how it ends decides on what they refused"));
        }
        self.check_outbox()?;
        self.pay_tell(key);
        Ok(())
    }

    /// Signs our counter under the terms of now and queues it.
    fn pay_tell(&mut self, key: &ChannelKey) {
        let channel = &mut self.channel;
        let (id, terms, digest) = (channel.id, &channel.terms, channel.terms.digest());
        let Paid {
            count: number,
            total,
            amount,
            ..
        } = channel.ours;
        let (message, signature) = match terms.kind {
            Kind::SymmetricalTrustline => {
                let signature = key.sign(&sign::claim(id, terms, digest, channel.side, total));
                let claim = Message::Claim {
                    total,
                    terms: digest,
                    signature,
                };
                (claim, Some(signature))
            }
            Kind::AsymmetricalTrustline if channel.are_keeper() => {
                let word = self.keep_word(key);
                let credit = Message::Credit {
                    number,
                    amount,
                    word,
                };
                (credit, None)
            }
            Kind::AsymmetricalTrustline => {
                let signed = sign::order(id, terms, digest, number, amount, total);
                let signature = key.sign(&signed);
                let order = Message::Order {
                    number,
                    amount,
                    total,
                    terms: digest,
                    signature,
                };
                (order, Some(signature))
            }
        };
        let ours = &mut self.channel.ours;
        ours.terms = Some(digest);
        ours.signature = signature;
        self.queue(message);
    }

    /// As keeper: says where the account stands.
    fn keep_word(&mut self, key: &ChannelKey) -> Word {
        let channel = &mut self.channel;
        let digest = channel.terms.digest();
        let (credited, debited) = (channel.ours.total, channel.theirs.total);
        let signed = sign::word(channel.id, &channel.terms, digest, credited, debited);
        let word = Word {
            credited,
            debited,
            terms: digest,
            signature: key.sign(&signed),
        };
        channel.word = Some(word);
        word
    }

    fn accept(&mut self, key: &ChannelKey) -> Result<(), ChannelError> {
        self.check_outbox()?;
        let channel = &mut self.channel;
        let side = channel.side;
        if channel.phase == Phase::Offered {
            let signature = key.sign(&sign::agreement(channel.id, &channel.terms, side));
            channel.agreed.set(side, signature);
            channel.phase = Phase::Open;
            self.queue(Message::Accept { signature });
            return Ok(());
        }
        let theirs = channel.change.filter(|change| change.by != side);
        let Some(change) = theirs.filter(|_| channel.phase == Phase::Open) else {
            return Err(channel.phase_error("there is nothing to accept"));
        };
        let terms = channel.terms.with(change.limits)?;
        let signature = key.sign(&sign::agreement(channel.id, &terms, side));
        let before = channel.terms.limits;
        self.change_apply(terms, change.signature, signature);
        // They do not know yet.
        self.channel.limits_before = Some(before);
        self.queue(Message::ChangeAccept {
            revision: change.limits.revision,
            signature,
        });
        Ok(())
    }

    /// Both agreed to other limits.
    fn change_apply(&mut self, terms: Terms, by_them: Signature, by_us: Signature) {
        let channel = &mut self.channel;
        channel.limits_before = None;
        channel.terms = terms;
        channel.change = None;
        channel.agreed.set(channel.side.other(), by_them);
        channel.agreed.set(channel.side, by_us);
    }

    fn decline(&mut self, reason: String) -> Result<(), ChannelError> {
        self.check_outbox()?;
        let channel = &mut self.channel;
        if channel.phase == Phase::Offered {
            channel.phase = Phase::Declined {
                reason: format!("we declined it: {reason}"),
            };
            self.queue(Message::Decline { reason });
            return Ok(());
        }
        let side = channel.side;
        let Some(change) = channel.change.filter(|change| change.by != side) else {
            return Err(channel.phase_error("there is nothing to decline"));
        };
        channel.change = None;
        let revision = change.limits.revision;
        self.queue(Message::ChangeDecline { revision, reason });
        Ok(())
    }

    fn change(&mut self, opener: u64, accepter: u64, key: &ChannelKey) -> Result<(), ChannelError> {
        self.check_outbox()?;
        let channel = &mut self.channel;
        if channel.phase != Phase::Open {
            return Err(channel.phase_error("only the limits of an open channel change"));
        }
        if channel.change.is_some() {
            return Err(channel.phase_error("other limits are proposed already"));
        }
        let revision = channel.terms.limits.revision.checked_add(1);
        let limits = Limits {
            opener,
            accepter,
            revision: revision.ok_or(ChannelError::Counter)?,
        };
        let terms = channel.terms.with(limits)?;
        let by = channel.side;
        let signature = key.sign(&sign::agreement(channel.id, &terms, by));
        channel.change = Some(Change {
            by,
            limits,
            signature,
        });
        self.queue(Message::Change { limits, signature });
        Ok(())
    }

    fn close(&mut self, key: &ChannelKey) -> Result<(), ChannelError> {
        self.check_outbox()?;
        let channel = &mut self.channel;
        match &channel.phase {
            Phase::Open => {
                channel.phase = Phase::Closing;
                channel.forget_their_change();
                self.queue(Message::Close);
                Ok(())
            }
            Phase::Closing if channel.our_final.is_none() => {
                self.finish(key);
                Ok(())
            }
            Phase::Closing => {
                Err(channel.phase_error("wait for the other side, or close it alone"))
            }
            Phase::Proposed => {
                Err(channel.phase_error("the other side has not answered: close it alone"))
            }
            Phase::Offered => Err(channel.phase_error("decline it instead")),
            Phase::Closed | Phase::ClosedAlone { .. } | Phase::Declined { .. } => {
                Err(channel.phase_error("it has ended"))
            }
        }
    }

    fn close_alone(&mut self) -> Result<(), ChannelError> {
        let channel = &mut self.channel;
        if channel.phase.is_ended() {
            return Err(channel.phase_error("it has ended"));
        }
        channel.phase = Phase::ClosedAlone { by: channel.side };
        channel.forget_their_change();
        self.queue(Message::CloseAlone);
        Ok(())
    }

    /// Signs how it ends, once.
    fn finish(&mut self, key: &ChannelKey) {
        let channel = &mut self.channel;
        let (opener_paid, accepter_paid) = channel.totals();
        let (id, side) = (channel.id, channel.side);
        let signed = sign::ending(id, &channel.terms, side, opener_paid, accepter_paid);
        let ending = Final {
            opener_paid,
            accepter_paid,
            signature: key.sign(&signed),
        };
        channel.our_final = Some(ending);
        if channel
            .their_final
            .is_some_and(|theirs| theirs.fits(&ending))
        {
            channel.phase = Phase::Closed;
        }
        self.queue(Message::Final { ending });
    }

    /// A payment that they refused is decided on when the channel has ended: it is void if their signature
    /// under the end says so, and stands if not, since they have ours under the payment.
    fn decide_refused(&mut self, key: &ChannelKey) {
        let channel = &mut self.channel;
        if !channel.phase.is_ended() || !channel.is_payment_refused() {
            return;
        }
        let Some(before) = channel.before.take() else {
            return;
        };
        let said = channel.their_final.map(|theirs| match channel.side {
            Side::Opener => theirs.opener_paid,
            Side::Accepter => theirs.accepter_paid,
        });
        if channel.phase == Phase::Closed && said == Some(before.total) {
            channel.ours = before;
            if channel.are_keeper() {
                self.keep_word(key);
            }
            self.effects.push(Effect::PaymentVoid);
            self.note("both signed that it ends without the payment that was refused: it is void");
        } else {
            self.effects.push(Effect::PaymentStands);
            self.note(
                "it ended with a payment that was refused: they have our signature, it counts",
            );
        }
    }
}

/// What they ask for.
impl Step {
    fn receive(&mut self, sequence: u64, message: &Message, key: &ChannelKey) {
        let channel = &self.channel;
        let digest = sha256(&message.bytes());
        if sequence == channel.received && channel.received_digest == Some(digest) {
            self.answer = Some(self.outcome());
            return;
        }
        if Some(sequence) != channel.received.checked_add(1) {
            self.answer = Some(Answer::Expected);
            return;
        }
        if channel.outbox.len() >= OUTBOX_MAX {
            self.answer = Some(Answer::Later);
            return;
        }
        let before = channel.clone();
        let refused = self.take(message, key).err().map(|refusal| refusal.0);
        if let Some(reason) = &refused {
            // Nothing of what was done before the refusal stays.
            self.channel = before;
            self.effects.clear();
            self.note(format!("we refused message {sequence}: {reason}"));
        }
        let channel = &mut self.channel;
        channel.received = sequence;
        channel.received_digest = Some(digest);
        channel.refused = refused;
        self.answer = Some(self.outcome());
    }

    /// What became of the last message, as often as it is asked.
    fn outcome(&self) -> Answer {
        let channel = &self.channel;
        match &channel.refused {
            Some(reason) => Answer::Refused {
                reason: reason.clone(),
            },
            None => Answer::Taken {
                word: channel.word.filter(|_| channel.are_keeper()),
            },
        }
    }

    fn take(&mut self, message: &Message, key: &ChannelKey) -> Result<(), Refusal> {
        match message {
            Message::Propose { .. } => refuse("the channel exists already".to_owned()),
            Message::Accept { signature } => self.take_accept(signature),
            Message::Decline { reason } => self.take_decline(reason),
            Message::Claim {
                total,
                terms,
                signature,
            } => {
                #[cfg(feature = "mutants")]
                if key.mutant == Some(sign::ChannelMutant::OlderClaimTaken)
                    && *total <= self.channel.theirs.total
                {
                    self.channel.theirs.total = 0;
                }
                self.take_claim(*total, *terms, *signature)
            }
            Message::Order {
                number,
                amount,
                total,
                terms,
                signature,
            } => {
                let order = Paid {
                    count: *number,
                    total: *total,
                    amount: *amount,
                    terms: Some(*terms),
                    signature: Some(*signature),
                };
                self.take_order(order, *terms, signature, key)
            }
            Message::Credit {
                number,
                amount,
                word,
            } => self.take_credit(*number, *amount, word),
            Message::Change { limits, signature } => self.take_change(*limits, *signature),
            Message::ChangeAccept {
                revision,
                signature,
            } => self.take_change_accept(*revision, *signature),
            Message::ChangeDecline { revision, reason } => {
                let ours = self.our_change(*revision)?;
                self.channel.change = None;
                self.note(format!(
                    "they declined other limits (revision {}): {reason}",
                    ours.limits.revision
                ));
                Ok(())
            }
            Message::Close => self.take_close(key),
            Message::Final { ending } => self.take_final(*ending, key),
            Message::CloseAlone => {
                let channel = &mut self.channel;
                // That both have signed they know once they have taken our final, not before.
                let is_known = channel.phase != Phase::Closed || !channel.has_final_to_tell();
                if channel.phase.is_ended() && is_known {
                    return Ok(());
                }
                channel.phase = Phase::ClosedAlone { by: channel.they() };
                channel.change = None;
                self.note("they closed the channel alone");
                Ok(())
            }
        }
    }

    fn take_accept(&mut self, signature: &Signature) -> Result<(), Refusal> {
        let channel = &mut self.channel;
        let theirs = channel.they();
        let is_withdrawn = channel.phase == Phase::ClosedAlone { by: channel.side };
        if channel.side != Side::Opener
            || channel.agreed.get(theirs).is_some()
            || !(channel.phase == Phase::Proposed || is_withdrawn)
        {
            return refuse("there is nothing to accept".to_owned());
        }
        let signed = sign::agreement(channel.id, &channel.terms, theirs);
        if !channel.their_key().verifies(&signed, signature) {
            return refuse("the signature under the terms is wrong".to_owned());
        }
        channel.agreed.set(theirs, *signature);
        if !is_withdrawn {
            channel.phase = Phase::Open;
            self.note("they accepted the channel");
        }
        Ok(())
    }

    fn take_decline(&mut self, reason: &str) -> Result<(), Refusal> {
        let channel = &mut self.channel;
        if channel.phase == Phase::Proposed {
            channel.phase = Phase::Declined {
                reason: format!("they declined it: {reason}"),
            };
        } else if channel.phase != (Phase::ClosedAlone { by: channel.side }) {
            return refuse("there is nothing to decline".to_owned());
        }
        Ok(())
    }

    /// Whether a payment of theirs may come now, and under which limits it was made.
    fn check_payment(&self, terms: Digest) -> Result<Limits, Refusal> {
        let channel = &self.channel;
        let carries = match &channel.phase {
            Phase::Open => true,
            // It was made before they knew.
            Phase::Closing => channel.their_final.is_none(),
            Phase::ClosedAlone { by } => {
                *by == channel.side && channel.agreed.get(channel.they()).is_some()
            }
            Phase::Proposed | Phase::Offered | Phase::Closed | Phase::Declined { .. } => false,
        };
        if !carries {
            return refuse(format!(
                "a payment over a channel that is {}",
                channel.state_word()
            ));
        }
        let known = channel.limits_of(terms);
        known.ok_or_else(|| Refusal("the payment is made under other terms".to_owned()))
    }

    /// `total` is the payer's counter after the payment.
    fn check_limit(&self, limits: &Limits, total: u64) -> Result<(), Refusal> {
        let channel = &self.channel;
        let owed = i128::from(total) - i128::from(channel.ours.total);
        let limit = limits.of(channel.they());
        if owed > i128::from(limit) {
            let above = owed - i128::from(limit);
            return refuse(format!(
                "the payment is above the limit: {owed} units would be owed, {limit} are allowed, {above} too many"
            ));
        }
        Ok(())
    }

    fn check_signature(&self, signed: &[u8], signature: &Signature) -> Result<(), Refusal> {
        if !self.channel.their_key().verifies(signed, signature) {
            return refuse("the signature under the payment is wrong".to_owned());
        }
        Ok(())
    }

    /// One payment of theirs is under way at a time. So the first one after they took our word on other
    /// limits is the last that can have been made under those before.
    fn paid(&mut self, paid: Paid) {
        let channel = &mut self.channel;
        let waits = |queued: &Queued| matches!(queued.message, Message::ChangeAccept { .. });
        if !channel.outbox.iter().any(waits) || paid.terms == Some(channel.terms.digest()) {
            channel.limits_before = None;
        }
        channel.theirs = paid;
        self.effects.push(Effect::Credit {
            amount: paid.amount,
            number: paid.count,
        });
    }

    fn take_claim(
        &mut self,
        total: u64,
        terms: Digest,
        signature: Signature,
    ) -> Result<(), Refusal> {
        let channel = &self.channel;
        if channel.terms.kind != Kind::SymmetricalTrustline {
            return refuse("a claim belongs on a symmetrical trustline".to_owned());
        }
        let limits = self.check_payment(terms)?;
        let known = channel.theirs.total;
        if total <= known {
            return refuse(format!(
                "the claim's counter is {total}, it must be above {known}, the last one"
            ));
        }
        let they = channel.they();
        let signed = sign::claim(channel.id, &channel.terms, terms, they, total);
        self.check_signature(&signed, &signature)?;
        self.check_limit(&limits, total)?;
        let paid = Paid {
            count: channel.theirs.count + 1,
            total,
            amount: total - known,
            terms: Some(terms),
            signature: Some(signature),
        };
        self.paid(paid);
        Ok(())
    }

    /// A transfer's number, amount and total must follow from the one before.
    fn check_transfer(&self, number: u64, amount: u64, total: u64) -> Result<(), Refusal> {
        let known = &self.channel.theirs;
        if number != known.count + 1 {
            return refuse(format!(
                "the transfer has number {number}, number {} is next",
                known.count + 1
            ));
        }
        if amount == 0 || known.total.checked_add(amount) != Some(total) {
            return refuse(format!(
                "the transfer of {amount} units names a total of {total}, the one before was {}",
                known.total
            ));
        }
        Ok(())
    }

    fn take_order(
        &mut self,
        order: Paid,
        terms: Digest,
        signature: &Signature,
        key: &ChannelKey,
    ) -> Result<(), Refusal> {
        let channel = &self.channel;
        if !channel.are_keeper() {
            return refuse("an order is for the keeper of an asymmetrical trustline".to_owned());
        }
        let limits = self.check_payment(terms)?;
        let (number, amount, total) = (order.count, order.amount, order.total);
        self.check_transfer(number, amount, total)?;
        let signed = sign::order(channel.id, &channel.terms, terms, number, amount, total);
        self.check_signature(&signed, signature)?;
        self.check_limit(&limits, total)?;
        self.paid(order);
        self.keep_word(key);
        Ok(())
    }

    fn take_credit(&mut self, number: u64, amount: u64, word: &Word) -> Result<(), Refusal> {
        let channel = &self.channel;
        if channel.terms.keeper() != Some(channel.they()) {
            return refuse(
                "a credit comes from the keeper of an asymmetrical trustline".to_owned(),
            );
        }
        let limits = self.check_payment(word.terms)?;
        self.check_transfer(number, amount, word.credited)?;
        self.check_word(word)?;
        if word.debited > channel.ours.total {
            return refuse(format!(
                "the keeper's word has {} debited, we ordered {}: {} units more",
                word.debited,
                channel.ours.total,
                word.debited - channel.ours.total
            ));
        }
        self.check_limit(&limits, word.credited)?;
        self.channel.word = Some(*word);
        self.paid(Paid {
            count: number,
            total: word.credited,
            amount,
            terms: Some(word.terms),
            signature: None,
        });
        Ok(())
    }

    fn check_word(&self, word: &Word) -> Result<(), Refusal> {
        let channel = &self.channel;
        let (credited, debited) = (word.credited, word.debited);
        let signed = sign::word(channel.id, &channel.terms, word.terms, credited, debited);
        if !channel.their_key().verifies(&signed, &word.signature) {
            return refuse("the signature under the keeper's word is wrong".to_owned());
        }
        Ok(())
    }

    fn take_change(&mut self, limits: Limits, signature: Signature) -> Result<(), Refusal> {
        let channel = &self.channel;
        if channel.phase != Phase::Open {
            return refuse(format!(
                "other limits for a channel that is {}",
                channel.state_word()
            ));
        }
        match channel.change {
            // Both proposed at once: the opener's stands.
            Some(change) if change.by == channel.side && channel.side == Side::Accepter => {}
            Some(_) => return refuse("other limits are proposed already".to_owned()),
            None => {}
        }
        if channel.terms.limits.revision.checked_add(1) != Some(limits.revision) {
            return refuse(format!(
                "other limits with revision {}, ours is {}",
                limits.revision, channel.terms.limits.revision
            ));
        }
        let terms = channel.terms.with(limits);
        let terms = terms.map_err(|error| Refusal(error.to_string()))?;
        let by = channel.they();
        let signed = sign::agreement(channel.id, &terms, by);
        if !channel.their_key().verifies(&signed, &signature) {
            return refuse("the signature under other limits is wrong".to_owned());
        }
        self.channel.change = Some(Change {
            by,
            limits,
            signature,
        });
        self.note("they propose other limits");
        Ok(())
    }

    fn our_change(&self, revision: u32) -> Result<Change, Refusal> {
        let channel = &self.channel;
        let ours = channel
            .change
            .filter(|change| change.by == channel.side && change.limits.revision == revision);
        ours.ok_or_else(|| Refusal("there is no such proposal of ours".to_owned()))
    }

    fn take_change_accept(&mut self, revision: u32, signature: Signature) -> Result<(), Refusal> {
        let ours = self.our_change(revision)?;
        let channel = &self.channel;
        let terms = channel.terms.with(ours.limits);
        let terms = terms.map_err(|error| Refusal(error.to_string()))?;
        let signed = sign::agreement(channel.id, &terms, channel.they());
        if !channel.their_key().verifies(&signed, &signature) {
            return refuse("the signature under other limits is wrong".to_owned());
        }
        // Messages come in order: what they pay from now on they pay under these.
        self.change_apply(terms, signature, ours.signature);
        self.note("they accepted other limits");
        Ok(())
    }

    fn take_close(&mut self, key: &ChannelKey) -> Result<(), Refusal> {
        let channel = &mut self.channel;
        match &channel.phase {
            Phase::Open | Phase::Closing => {
                channel.phase = Phase::Closing;
                channel.change = None;
                if channel.our_final.is_none() {
                    self.finish(key);
                }
                Ok(())
            }
            Phase::ClosedAlone { .. } => Ok(()),
            Phase::Proposed | Phase::Offered | Phase::Closed | Phase::Declined { .. } => {
                refuse(format!(
                    "there is nothing to close: the channel is {}",
                    channel.state_word()
                ))
            }
        }
    }

    fn take_final(&mut self, ending: Final, key: &ChannelKey) -> Result<(), Refusal> {
        let channel = &mut self.channel;
        if channel.phase == Phase::Closed && channel.their_final == Some(ending) {
            return Ok(()); // they sign once more what they signed
        }
        // Whoever stopped waiting takes a final that was on its way, if it is to the one they signed.
        let known = channel.totals();
        let ours = channel.our_final;
        let is_ours = ours.is_some_and(|ours| (ours.opener_paid, ours.accepter_paid) == known);
        let is_late = is_ours && channel.phase == (Phase::ClosedAlone { by: channel.side });
        if channel.phase != Phase::Closing && !is_late {
            return refuse(format!(
                "nothing is being closed: the channel is {}",
                channel.state_word()
            ));
        }
        let said = (ending.opener_paid, ending.accepter_paid);
        let signed = sign::ending(channel.id, &channel.terms, channel.they(), said.0, said.1);
        if !channel.their_key().verifies(&signed, &ending.signature) {
            return refuse("the signature under the final statement is wrong".to_owned());
        }
        for (who, said, known) in [("opener", said.0, known.0), ("accepter", said.1, known.1)] {
            if said != known {
                let difference = said.abs_diff(known);
                let word = if said > known { "more" } else { "less" };
                return refuse(format!(
                    "the final statement has {said} paid by the {who}, we have {known}: {difference} units {word}"
                ));
            }
        }
        channel.their_final = Some(ending);
        // Ours may have been signed before the last payments came: then it is refused, and a new one made.
        if is_ours {
            channel.phase = Phase::Closed;
        } else {
            self.finish(key);
        }
        Ok(())
    }

    /// What became of a message of ours. Answers to what is no longer asked change nothing.
    fn answered(&mut self, sequence: u64, acknowledgement: u64, answer: Answer, key: &ChannelKey) {
        let channel = &mut self.channel;
        if channel
            .outgoing()
            .is_none_or(|queued| queued.sequence != sequence)
        {
            return;
        }
        match answer {
            Answer::Taken { word } => {
                let told = channel.outbox.pop_front().expect("it was looked at above");
                self.answered_taken(&told, word);
            }
            Answer::Refused { reason } => {
                let told = channel.outbox.pop_front().expect("it was looked at above");
                self.answered_refused(&told, reason, key);
            }
            Answer::Expected if acknowledgement >= sequence => self.note(format!(
                "they took {acknowledgement} messages of ours, this one has number {sequence}: our books are older than theirs"
            )),
            Answer::Expected => self.note(format!(
                "they remember {acknowledgement} messages of ours, this one has number {sequence}: their books are older than ours"
            )),
            Answer::Unknown { reason } => self.note(format!("they do not know the channel: {reason}")),
            Answer::GreetFirst | Answer::Later => {}
        }
        if !self.channel.outbox.is_empty() {
            self.effects.push(Effect::Send);
        }
    }

    fn answered_taken(&mut self, told: &Queued, word: Option<Word>) {
        let channel = &mut self.channel;
        if let Message::Final { ending } = &told.message
            && channel.phase == (Phase::ClosedAlone { by: channel.they() })
            && channel
                .their_final
                .is_some_and(|theirs| theirs.fits(ending))
        {
            channel.phase = Phase::Closed; // they stopped waiting, and took it all the same
        }
        if let Some(total) = told.message.payment_total() {
            self.channel.taken = total;
            self.channel.before = None;
            self.effects.push(Effect::PaymentTaken);
        }
        let Some(word) = word else {
            return;
        };
        // The keeper's word: it counts, and is compared with what we have.
        let channel = &self.channel;
        if channel.terms.keeper() != Some(channel.they()) {
            return;
        }
        if let Err(refusal) = self.check_word(&word) {
            self.note(refusal.to_string());
            return;
        }
        let taken = channel.taken;
        let known = channel
            .word
            .map_or((0, 0), |word| (word.credited, word.debited));
        let differs = |what, said: u64, known: u64| {
            let more = if said > known { "more" } else { "less" };
            let by = said.abs_diff(known);
            format!("the keeper's word has {said} {what}, we have {known}: {by} units {more}")
        };
        if word.debited != taken {
            self.note(differs("debited", word.debited, taken));
        } else if word.credited < known.0 && word.debited > known.1 {
            // An answer may come after words that were given later; of two words one is older in both.
            self.note(differs("credited", word.credited, known.0));
        }
        // What is credited in it beyond what we took comes with its own message, or we refused it.
        let is_later = word.credited >= known.0 && word.debited >= known.1;
        if is_later && word.credited <= self.channel.theirs.total {
            self.channel.word = Some(word);
        }
    }

    fn answered_refused(&mut self, told: &Queued, reason: String, key: &ChannelKey) {
        let channel = &mut self.channel;
        match &told.message {
            Message::Claim { .. } | Message::Order { .. } | Message::Credit { .. } => {
                // A final that waits behind it was signed with it: they refuse that one, too.
                if channel.phase == Phase::Closing && channel.has_final_to_tell() {
                    self.finish(key);
                }
                self.note(format!("they refused our payment: {reason}"));
                self.effects.push(Effect::PaymentRefused { reason });
                return;
            }
            Message::Propose { .. } => {
                if channel.phase == Phase::Proposed {
                    channel.phase = Phase::Declined {
                        reason: format!("they refused it: {reason}"),
                    };
                }
            }
            Message::Change { limits, .. } => {
                let is_ours = |change: &Change| change.by == channel.side;
                if channel.change.as_ref().is_some_and(is_ours)
                    && channel
                        .change
                        .is_some_and(|change| change.limits == *limits)
                {
                    channel.change = None;
                }
            }
            Message::Final { ending } if channel.our_final == Some(*ending) => {
                if channel.phase == Phase::Closed {
                    channel.phase = Phase::Closing;
                }
                channel.our_final = None;
            }
            Message::Final { .. } => return, // another one is under way
            Message::Accept { .. }
            | Message::Decline { .. }
            | Message::ChangeAccept { .. }
            | Message::ChangeDecline { .. }
            | Message::Close
            | Message::CloseAlone => {}
        }
        self.note(format!(
            "they refused our message {}: {reason}",
            told.sequence
        ));
    }
}
