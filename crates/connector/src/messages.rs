//! Messages between the two sides of a link, in packets to `peer.settle` that carry no money (RFC 38,
//! Exchanging Messages): how the settlement engines of two peers talk to each other.
//!
//! Of ours: [`Connector::message_send`] sends one over the account's link, whatever it is, and gives
//! its number; `message_done` is told what came of it, once, within [`MESSAGE_MS`].
//!
//! Of the peer's: `handle_message` says whose each is. Whoever has it answers with `message_fulfill` or
//! `message_refuse`, at once or later. It is never forwarded, and has neither hold nor balance.
//!
//! Nothing here is repeated and nothing survives a restart: whoever sends a message and hears nothing
//! sends it again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use rialto_ledger::{AccountId, Relation};
use rialto_packet::{
    Addr, DATA_BYTES_MAX, ErrorCode, FulfillBuilder, PEER_CONDITION, PEER_FULFILLMENT, Prepare,
    PrepareBuilder, RejectBuilder, Reply,
};

use crate::{
    Connector,
    forward::{Source, deadline},
    io::{Action, Asked, Durable, Effects, EngineAsk, Event, LinkId, Now, RequestId},
    pending::OwnRequest,
    refusal::{LinkFailure, Reason, Refusal},
};

/// Where messages go, and who is named as having refused one.
pub(crate) const SETTLE_DESTINATION: &str = "peer.settle";

/// SHA-256 of nothing, which RFC 38 names as the condition of messages although no fulfillment of 32
/// bytes has it. Deployed nodes use that of [`PEER_FULFILLMENT`]; both are taken.
const EMPTY_CONDITION: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
    0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// How long the peer may take to answer. Milliseconds.
pub const MESSAGE_MS: i64 = 30_000;

/// Messages of one account under way, in each direction.
pub const ACCOUNT_MESSAGES_MAX: usize = 16;

/// Messages of all accounts under way, in each direction.
pub const MESSAGES_MAX: usize = 512;

/// Characters of a peer's text that are kept.
const SHOWN_MAX: usize = 200;

/// Tells messages apart while the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// What came of a message of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageOutcome {
    /// The other side answered.
    Answered {
        /// Its answer.
        data: Bytes,
    },
    /// The other side refused it.
    Rejected {
        /// Its ILP error code.
        code: ErrorCode,
        /// Its words.
        message: String,
        /// What came with them.
        data: Bytes,
    },
    /// No answer: it may have arrived or not. [`Reason::ExpiryTimedOut`] when there was none in time.
    Failed {
        /// Why.
        reason: Reason,
    },
}

/// What an engine said to a message of the peer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MessageAnswer {
    /// It answered.
    Answered(Bytes),
    /// The message is wrong; with what the engine says to that.
    Refused(Bytes),
    /// No answer, or that the engine failed.
    Failed,
}

/// A message of ours that was not answered yet.
#[derive(Debug)]
struct Sent {
    account: AccountId,
    /// The packet that carries it; none where the accounting system does whose engine we are.
    packet: Option<(LinkId, RequestId)>,
    deadline_ns: u64,
}

/// Whose message is to be answered, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    pub(crate) account: AccountId,
    answer_to: AnswerTo,
}

#[derive(Debug, Clone, Copy)]
enum AnswerTo {
    /// To the packet that brought it.
    Packet { link: LinkId, request: RequestId },
    /// To the accounting system that brought it, under the number that it got.
    Accounting(MessageId),
}

impl From<Source> for Asker {
    fn from(from: Source) -> Self {
        let (link, request) = (from.link, from.request);
        Self {
            account: from.account,
            answer_to: AnswerTo::Packet { link, request },
        }
    }
}

/// A message of a peer's that an engine has.
#[derive(Debug)]
struct Received {
    from: Source,
    deadline_ns: u64,
}

/// Messages under way.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    last: u64,
    sent: BTreeMap<MessageId, Sent>,
    received: BTreeMap<MessageId, Received>,
    deadlines: BTreeSet<(u64, MessageId)>,
}

impl Messages {
    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        self.deadlines.first().map(|(at_ns, _)| *at_ns)
    }

    fn next(&mut self) -> MessageId {
        self.last += 1;
        MessageId(self.last)
    }

    fn send(
        &mut self,
        id: MessageId,
        account: AccountId,
        packet: Option<(LinkId, RequestId)>,
        deadline_ns: u64,
    ) {
        let sent = Sent {
            account,
            packet,
            deadline_ns,
        };
        self.sent.insert(id, sent);
        self.deadlines.insert((deadline_ns, id));
    }

    fn take_sent(&mut self, id: MessageId) -> Option<Sent> {
        let sent = self.sent.remove(&id)?;
        self.deadlines.remove(&(sent.deadline_ns, id));
        Some(sent)
    }

    fn take_received(&mut self, id: MessageId) -> Option<Received> {
        let received = self.received.remove(&id)?;
        self.deadlines.remove(&(received.deadline_ns, id));
        Some(received)
    }
}

/// Whether there is room for another message of `account`.
fn has_room(account: AccountId, accounts: impl Iterator<Item = AccountId>) -> bool {
    let (mut count, mut of_account) = (0, 0);
    for other in accounts {
        count += 1;
        of_account += usize::from(other == account);
    }
    count < MESSAGES_MAX && of_account < ACCOUNT_MESSAGES_MAX
}

impl Connector {
    /// Sends a message to the peer of `account`. What comes of it is told by its number, once:
    /// [`Event::MessageDone`]. It needs no balance and no address of our own, only a link.
    ///
    /// # Errors
    /// Why none was sent: [`Reason::PacketTooLarge`] above [`rialto_packet::DATA_BYTES_MAX`],
    /// [`Reason::LinkClosed`] without a link, [`Reason::AccountPaused`], [`Reason::EngineBusy`] while
    /// too many are under way, or why the node sends nothing any more.
    pub fn message_send(
        &mut self,
        now: Now,
        account: AccountId,
        data: &[u8],
        out: &mut Effects,
    ) -> Result<MessageId, Reason> {
        self.message_send_after(now, account, data, Durable::Nothing, out)
    }

    /// The same once `after` is safe.
    pub(crate) fn message_send_after(
        &mut self,
        now: Now,
        account: AccountId,
        data: &[u8],
        after: Durable,
        out: &mut Effects,
    ) -> Result<MessageId, Reason> {
        let settings = self
            .ledger
            .account(account)
            .map(|account| &account.settings);
        let settings = settings.filter(|settings| settings.relation != Relation::Local);
        let settings = settings.ok_or(Reason::LinkClosed)?;
        if settings.paused {
            return Err(Reason::AccountPaused);
        }
        let accounting_url = settings.settlement.accounting_url.clone();
        if let Some(reason) = self.closed {
            return Err(reason);
        }
        let accounts = self.messages.sent.values().map(|sent| sent.account);
        if !has_room(account, accounts) {
            return Err(Reason::EngineBusy);
        }
        let expires_at = now.wall.plus_ms(MESSAGE_MS);
        let deadline_ns = deadline(now, expires_at);
        if let Some(account_url) = accounting_url {
            if data.len() > DATA_BYTES_MAX {
                return Err(Reason::PacketTooLarge);
            }
            let id = self.messages.next();
            self.messages.send(id, account, None, deadline_ns);
            let ask = EngineAsk::Message {
                id,
                data: Bytes::copy_from_slice(data),
                deadline_ns,
            };
            let action = Action::Engine {
                account,
                asked: Asked::Accounting(account_url),
                ask,
            };
            out.after(after, action);
            return Ok(id);
        }
        let link = self.link_of(account).ok_or(Reason::LinkClosed)?;
        let packet = PrepareBuilder {
            amount: 0,
            expires_at,
            condition: PEER_CONDITION,
            destination: settle_address(),
            data,
        };
        let packet = packet.encode().map_err(|_| Reason::PacketTooLarge)?;
        let id = self.messages.next();
        let request = self.pending.open_own(link, OwnRequest::Message(id));
        self.messages
            .send(id, account, Some((link, request)), deadline_ns);
        let action = Action::Forward {
            link,
            request,
            packet: packet.into(),
            deadline_ns,
        };
        out.after(after, action);
        Ok(id)
    }

    /// What came back for a message of ours.
    pub(crate) fn message_answered(
        &mut self,
        id: MessageId,
        answer: Result<Bytes, LinkFailure>,
        out: &mut Effects,
    ) {
        let outcome = match answer.map(Reply::parse) {
            Ok(Ok(Reply::Fulfill(fulfill))) if fulfill.fulfillment() == PEER_FULFILLMENT => {
                let data = Bytes::copy_from_slice(fulfill.data());
                MessageOutcome::Answered { data }
            }
            Ok(Ok(Reply::Fulfill(_))) => MessageOutcome::Failed {
                reason: Reason::ConditionMismatch,
            },
            Ok(Ok(Reply::Reject(reject))) => MessageOutcome::Rejected {
                code: reject.code(),
                message: reject.message().chars().take(SHOWN_MAX).collect(),
                data: Bytes::copy_from_slice(reject.data()),
            },
            Ok(Err(_)) => MessageOutcome::Failed {
                reason: Reason::LinkBadReply,
            },
            Err(failure) => MessageOutcome::Failed {
                reason: failure.reason(),
            },
        };
        self.message_done(id, outcome, out);
    }

    /// Tells whoever sent a message what came of it.
    fn message_done(&mut self, id: MessageId, outcome: MessageOutcome, out: &mut Effects) {
        if self.messages.take_sent(id).is_some() && !self.channel_message_done(id, &outcome, out) {
            out.now(Action::Report(Event::MessageDone { id, outcome }));
        }
    }

    /// A session ended: no answer comes on it any more.
    pub(crate) fn messages_link_down(&mut self, link: LinkId, out: &mut Effects) {
        let sent = self.messages.sent.iter();
        let packets = sent.filter_map(|(id, sent)| Some((*id, sent.packet?)));
        let lost: Vec<_> = packets.filter(|(_, (over, _))| *over == link).collect();
        for (id, (_, request)) in lost {
            self.pending.close_own(link, request);
            let reason = Reason::LinkClosed;
            self.message_done(id, MessageOutcome::Failed { reason }, out);
        }
    }

    /// Messages whose time is over.
    pub(crate) fn messages_timeout(&mut self, now: Now, out: &mut Effects) {
        while let Some((at_ns, id)) = self.messages.deadlines.first().copied()
            && at_ns <= now.mono_ns
        {
            if let Some(sent) = self.messages.sent.get(&id) {
                if let Some((link, request)) = sent.packet {
                    self.pending.close_own(link, request);
                }
                let reason = Reason::ExpiryTimedOut;
                self.message_done(id, MessageOutcome::Failed { reason }, out);
            } else {
                self.message_engine_answered(id, MessageAnswer::Failed, out);
            }
        }
    }

    /// A message of a peer's. Whose it is, is told by how it begins; what nobody knows is for the
    /// account's settlement engine, and so are frames of channels where it is the engine that has these.
    pub(crate) fn handle_message(
        &mut self,
        now: Now,
        from: Source,
        packet: &Prepare<BytesMut>,
        out: &mut Effects,
    ) -> Result<(), Refusal> {
        if ![PEER_CONDITION, EMPTY_CONDITION].contains(&packet.condition()) {
            return Err(Reason::PacketMalformed.into());
        }
        if packet.amount() > 0 {
            return Err(Refusal::from(Reason::AddressInvalid).with_code(ErrorCode::F00_BAD_REQUEST));
        }
        if rialto_channel::is_ours(packet.data()) && self.channels_are_ours(from.account) {
            self.channel_frame(now, from.into(), packet.data(), out);
            return Ok(());
        }
        self.message_to_engine(now, from, packet, out)
    }

    /// A message of the other side that the accounting system brings whose engine we are. What comes of
    /// it is told by its number, once: [`Event::MessageDone`].
    pub fn message_received(
        &mut self,
        now: Now,
        account: AccountId,
        data: &[u8],
        out: &mut Effects,
    ) -> MessageId {
        let id = self.messages.next();
        let from = Asker {
            account,
            answer_to: AnswerTo::Accounting(id),
        };
        if let Some(reason) = self.closed {
            self.message_refuse(from, reason, &[], out);
        } else if rialto_channel::is_ours(data) {
            self.channel_frame(now, from, data, out);
        } else {
            self.message_refuse(from, Reason::ChannelFrame, &[], out);
        }
        id
    }

    /// Hands a message to the engine of the account that it came from, once.
    fn message_to_engine(
        &mut self,
        now: Now,
        from: Source,
        packet: &Prepare<BytesMut>,
        out: &mut Effects,
    ) -> Result<(), Refusal> {
        let account = self.ledger.account(from.account).ok_or(Reason::Internal)?;
        let Some(engine_url) = account.settings.settlement.engine_url.clone() else {
            self.message_refuse(from.into(), Reason::EngineNone, &[], out);
            return Ok(());
        };
        let received = self.messages.received.values();
        if !has_room(from.account, received.map(|other| other.from.account)) {
            self.message_refuse(from.into(), Reason::EngineBusy, &[], out);
            return Ok(());
        }
        // The answer needs its time on the way back, like that of any packet.
        let answer_by = self.prepare_expiry(now.wall, packet.expires_at())?;
        let deadline_ns = deadline(now, answer_by);
        let id = self.messages.next();
        self.messages
            .received
            .insert(id, Received { from, deadline_ns });
        self.messages.deadlines.insert((deadline_ns, id));
        out.now(Action::Engine {
            account: from.account,
            asked: Asked::Engine(engine_url),
            ask: EngineAsk::Message {
                id,
                data: Bytes::copy_from_slice(packet.data()),
                deadline_ns,
            },
        });
        Ok(())
    }

    /// What the engine said, or the accounting system that took a message of ours. Answers to what was
    /// given up change nothing.
    pub(crate) fn message_engine_answered(
        &mut self,
        id: MessageId,
        answer: MessageAnswer,
        out: &mut Effects,
    ) {
        if self.messages.sent.contains_key(&id) {
            let outcome = match answer {
                MessageAnswer::Answered(data) => MessageOutcome::Answered { data },
                MessageAnswer::Refused(_) | MessageAnswer::Failed => MessageOutcome::Failed {
                    reason: Reason::AccountingFailed,
                },
            };
            self.message_done(id, outcome, out);
            return;
        }
        let Some(Received { from, .. }) = self.messages.take_received(id) else {
            return;
        };
        let from = Asker::from(from);
        match answer {
            MessageAnswer::Answered(data) => {
                self.message_fulfill(from, &data, Durable::Nothing, out);
            }
            MessageAnswer::Refused(data) => {
                self.message_refuse(from, Reason::EngineRefused, &data, out);
            }
            MessageAnswer::Failed => self.message_refuse(from, Reason::EngineFailed, &[], out),
        }
    }

    /// Answers a message of a peer's once `after` is safe. More data than a packet holds is a failure.
    pub(crate) fn message_fulfill(
        &mut self,
        from: Asker,
        data: &[u8],
        after: Durable,
        out: &mut Effects,
    ) {
        let (link, request) = match from.answer_to {
            AnswerTo::Packet { link, request } => (link, request),
            AnswerTo::Accounting(id) => {
                let data = Bytes::copy_from_slice(data);
                let outcome = MessageOutcome::Answered { data };
                out.after(after, Action::Report(Event::MessageDone { id, outcome }));
                return;
            }
        };
        let fulfill = FulfillBuilder {
            fulfillment: PEER_FULFILLMENT,
            data,
        };
        let Ok(packet) = fulfill.encode() else {
            self.message_refuse(from, Reason::EngineFailed, &[], out);
            return;
        };
        if self.ledger.account(from.account).is_some() {
            self.stats.of(from.account).fulfills_out += 1;
        }
        self.answer(after, link, request, packet.into(), None, out);
    }

    /// Refuses a message of a peer's, with what there is to say to it; what is too long is left out.
    pub(crate) fn message_refuse(
        &mut self,
        from: Asker,
        reason: Reason,
        data: &[u8],
        out: &mut Effects,
    ) {
        self.count_refusal(from.account, reason, out);
        let row = reason.row();
        let message = format!("{}: {}", row.word, row.message);
        let (link, request) = match from.answer_to {
            AnswerTo::Packet { link, request } => (link, request),
            AnswerTo::Accounting(id) => {
                let outcome = MessageOutcome::Rejected {
                    code: row.code,
                    message,
                    data: Bytes::copy_from_slice(data),
                };
                out.now(Action::Report(Event::MessageDone { id, outcome }));
                return;
            }
        };
        let reject = |data| RejectBuilder {
            code: row.code,
            triggered_by: Some(settle_address()),
            message: &message,
            data,
        };
        let packet = reject(data).encode().or_else(|_| reject(&[]).encode());
        let packet = packet.expect("a refusal without data is not too much");
        let after = Durable::Nothing;
        self.answer(after, link, request, packet.into(), None, out);
    }
}

fn settle_address() -> Addr<'static> {
    Addr::new(SETTLE_DESTINATION).expect("a valid address")
}
