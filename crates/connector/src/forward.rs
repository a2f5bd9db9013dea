//! The path of a packet: prepare, then fulfill, reject or expire. Nothing else.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::{Bytes, BytesMut};
use rialto_ledger::{AccountId, Hold, Limit, Lsn, Relation};
use rialto_packet::{Address, ErrorCode, Fulfill, Prepare, Reply, Timestamp};

use crate::{
    Connector,
    io::{Action, Durable, Effects, Event, LinkId, Now, Paid, RequestId},
    pending::Entry,
    refusal::{LinkFailure, Reason, Refusal},
};

/// Where a Prepare came from and where its answer goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    pub(crate) account: AccountId,
    pub(crate) link: LinkId,
    pub(crate) request: RequestId,
}

/// What it means when a route leads back to the account that a packet came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Back {
    /// Two nodes would pass a packet to and fro.
    IsLoop,
    /// The response to an echo is a new packet, and nobody echoes a response.
    IsEcho,
}

/// Kept between the end of a strict Fulfill's wait and the moment its answer is of no use.
const STRICT_MARGIN_NS: u64 = 200_000_000;

impl Connector {
    pub(crate) fn handle_prepare(
        &mut self,
        now: Now,
        account: AccountId,
        link: LinkId,
        request: RequestId,
        packet: BytesMut,
        out: &mut Effects,
    ) {
        let from = Source {
            account,
            link,
            request,
        };
        if let Err(refusal) = self.prepare(now, from, packet, out) {
            self.refuse(from, refusal, out);
        }
        self.settle_introduce(account, out);
    }

    /// What happens to one Prepare, top to bottom.
    fn prepare(
        &mut self,
        now: Now,
        from: Source,
        packet: BytesMut,
        out: &mut Effects,
    ) -> Result<(), Refusal> {
        // 1. From an account that may send.
        self.prepare_account(from.account)?;

        // 2. Well-formed and unexpired.
        let packet = Prepare::parse(packet)?;
        if packet.expires_at() <= now.wall {
            return Err(Reason::PacketExpired.into());
        }

        // 3. Within the limits on packets and amounts per minute, and on the size of one packet.
        let amount = packet.amount();
        self.ledger
            .take(from.account, now.mono_ns, amount)
            .map_err(|limit| limit_refusal(limit, amount))?;

        // Refused from here on, it did not use up the amount of this minute.
        self.prepare_route(now, from, Back::IsLoop, packet, out)
            .inspect_err(|_| self.ledger.give_back(from.account, amount))
    }

    /// The half that begins once the account's own limits are passed.
    pub(crate) fn prepare_route(
        &mut self,
        now: Now,
        from: Source,
        back: Back,
        mut packet: Prepare<BytesMut>,
        out: &mut Effects,
    ) -> Result<(), Refusal> {
        // 4. Addressed to us: neighbours' services, echo, ping.
        if packet.destination().starts_with("peer") {
            return self.handle_peer(now, from, &packet, out);
        }

        // 5. Route, by the longest prefix.
        self.prepare_network(&packet)?;
        let hop = self.choose_hop(now.mono_ns, packet.destination());
        let payee = hop.ok_or(Reason::RouteNone)?;
        if payee == AccountId::NODE {
            return self.handle_own(now, from, packet, out);
        }
        self.prepare_hop(from, back, payee)?;
        self.prepare_pace(now, payee)?;

        // 6. Convert, rounding down.
        let amount = packet.amount();
        let amount_out = self.prepare_convert(now.wall, from.account, payee, amount)?;

        // 7. Shorten the expiry, except for our own receivers.
        let link = self.link_of(payee).ok_or(Reason::LinkClosed)?;
        let expires_in = packet.expires_at();
        let expires_at = match link {
            LinkId::Local => expires_in,
            LinkId::Http(_) | LinkId::Waiting { .. } | LinkId::Session { .. } => {
                self.prepare_expiry(now.wall, expires_in)?
            }
        };

        // 8. Promise, within the limits on credit and on what is in flight.
        let hold = self
            .ledger
            .hold(from.account, amount, payee, amount_out)
            .map_err(|limit| limit_refusal(limit, amount))?;

        // 9. Enter it before it leaves.
        let deadline_ns = deadline(now, expires_at);
        let entry = Entry {
            payer: from.account,
            link: from.link,
            request: from.request,
            condition: packet.condition(),
            hold,
            deadline_ns,
            answer_by_ns: deadline(now, expires_in),
        };
        let request = self.pending.open(link, entry);
        self.stats.of(payee).prepares_out += 1;

        // 10. Forward.
        packet.set_amount(amount_out);
        packet.set_expires_at(expires_at);
        if link == LinkId::Local {
            self.deliver(now, payee, request, &packet, out);
            return Ok(());
        }
        let packet = packet.into_inner().freeze();
        out.now(Action::Forward {
            link,
            request,
            packet,
            deadline_ns,
        });
        Ok(())
    }

    /// The account may send, and the node has room.
    fn prepare_account(&mut self, id: AccountId) -> Result<(), Refusal> {
        let Some(account) = self.ledger.account(id) else {
            return Err(Reason::AccountPaused.into()); // deleted since it authenticated
        };
        let paused = account.settings.paused;
        let in_flight_count = account.exposure().in_flight_count as usize;
        self.stats.of(id).prepares_in += 1;
        if paused {
            return Err(Reason::AccountPaused.into());
        }
        if let Some(reason) = self.closed {
            return Err(reason.into());
        }
        if self.address().is_none() {
            return Err(Reason::NoAddress.into());
        }
        if self.pending.len() >= self.settings.pending_max {
            return Err(Reason::Overload.into());
        }
        // One account that holds its packets must leave room for the others.
        if in_flight_count >= self.settings.pending_max.div_ceil(2) {
            return Err(Reason::InFlightLimit.into());
        }
        Ok(())
    }

    /// A live node does not carry test money, nor the other way round (RFC 34, Special Addresses).
    fn prepare_network(&self, packet: &Prepare<BytesMut>) -> Result<(), Refusal> {
        let network = |scheme: &str| scheme == "g" || scheme.starts_with("test");
        let (own, other) = (
            self.own_address().as_ref().scheme(),
            packet.destination().scheme(),
        );
        if network(own) && network(other) && own != other {
            return Err(Reason::RouteNone.into());
        }
        Ok(())
    }

    /// The next hop may be sent to. Two applications of one child, or of one local account, may pay
    /// each other; a packet that goes back to a peer or parent is a loop.
    fn prepare_hop(&self, from: Source, back: Back, payee: AccountId) -> Result<(), Refusal> {
        let account = self.ledger.account(payee).ok_or(Reason::RouteNone)?;
        if account.settings.paused {
            return Err(Reason::AccountPaused.into());
        }
        let is_loop = back == Back::IsLoop && payee == from.account;
        match account.settings.relation {
            Relation::Parent | Relation::Peer if is_loop => Err(Reason::RouteLoop.into()),
            Relation::Parent | Relation::Peer | Relation::Child | Relation::Local => Ok(()),
        }
    }

    /// The next hop's node lets only so many packets through, and this is one of them.
    fn prepare_pace(&mut self, now: Now, payee: AccountId) -> Result<(), Refusal> {
        let account = self.ledger.account(payee).ok_or(Reason::RouteNone)?;
        let Some(per_second) = account.settings.limits.packets_out_per_second else {
            return Ok(());
        };
        match self.paces.take(payee, per_second, now.mono_ns) {
            true => Ok(()),
            false => Err(Reason::LinkPace.into()),
        }
    }

    /// What the payee gets for `amount`: never more than the rate gives.
    fn prepare_convert(
        &mut self,
        now: Timestamp,
        payer: AccountId,
        payee: AccountId,
        amount: u64,
    ) -> Result<u64, Refusal> {
        if amount == 0 {
            return Ok(0);
        }
        let conversion = self
            .rates
            .conversion(now, &self.ledger, &self.market, payer, payee)?;
        match conversion.round_down(amount) {
            Ok(0) => Err(Reason::RoundsToZero.into()),
            Ok(amount_out) => Ok(amount_out),
            Err(_) => {
                let max = conversion.largest_source(u64::MAX);
                Err(Refusal::too_large(Reason::Overflow, amount, max))
            }
        }
    }

    /// One message window earlier, and no later than the longest hold; with at least one window left
    /// for the next hop (ilpv4.md, section 4).
    pub(crate) fn prepare_expiry(
        &self,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<Timestamp, Refusal> {
        let window_ms = self.settings.min_message_window_ms;
        let shortened = expires_at
            .plus_ms(-window_ms)
            .min(now.plus_ms(self.settings.max_hold_ms));
        if shortened.ms_since(now) < window_ms {
            return Err(Reason::ExpiryTooSoon.into());
        }
        Ok(shortened)
    }

    /// What came back for a packet.
    pub(crate) fn handle_reply(
        &mut self,
        now: Now,
        link: LinkId,
        request: RequestId,
        packet: Bytes,
        out: &mut Effects,
    ) {
        if let Some(own) = self.pending.close_own(link, request) {
            self.own_answered(own, Ok(packet), out);
            return;
        }
        if self.handle_parent_reply(now, link, request, &packet, out) {
            return;
        }
        let reply = Reply::parse(packet);
        let Some(entry) = self.pending.close(link, request) else {
            if let Ok(Reply::Fulfill(fulfill)) = reply {
                self.fulfill_late(link, request, &fulfill, out);
            }
            return;
        };
        self.hop_answered(entry.hold.payee());
        match reply {
            Ok(Reply::Fulfill(fulfill)) => self.fulfill(now, entry, fulfill, out),
            Ok(Reply::Reject(reject)) => {
                if reject.code() == ErrorCode::T05_RATE_LIMITED {
                    self.paces.slow_down(entry.hold.payee(), now.mono_ns);
                }
                self.reject(entry, reject.into_inner(), out);
            }
            Err(_) => self.give_up(entry, Reason::LinkBadReply, out),
        }
    }

    /// A Fulfill: paid if it proves what was asked for, in time. From here nothing stops it.
    fn fulfill(&mut self, now: Now, entry: Entry, fulfill: Fulfill<Bytes>, out: &mut Effects) {
        if !proves(&fulfill, entry.condition) {
            self.give_up(entry, Reason::ConditionMismatch, out);
            return;
        }
        if now.mono_ns >= entry.deadline_ns {
            let (payee, amount) = (entry.hold.payee(), entry.hold.amount_out());
            self.count_late(payee, amount, out);
            self.give_up(entry, Reason::ExpiryTimedOut, out);
            return;
        }
        let (payee, amount_in, amount_out) = (
            entry.hold.payee(),
            entry.hold.amount_in(),
            entry.hold.amount_out(),
        );
        let lsn = self.commit(entry.hold, out);

        let stats = self.stats.of(entry.payer);
        stats.fulfills_out += 1;
        stats.amount_in += u128::from(amount_in);
        if payee != AccountId::NODE {
            let stats = self.stats.of(payee);
            stats.fulfills_in += 1;
            stats.amount_out += u128::from(amount_out);
            self.settle_after_commit(now, payee, out);
        }

        let after = self.safe(lsn, entry.answer_by_ns);
        let paid = Some(Paid {
            account: entry.payer,
            amount: amount_in,
        });
        let packet = fulfill.into_inner();
        self.answer(after, entry.link, entry.request, packet, paid, out);
    }

    /// What a Fulfill waits for that is of use until `answer_by_ns`.
    pub(crate) fn safe(&self, lsn: Lsn, answer_by_ns: u64) -> Durable {
        if !self.settings.strict {
            return Durable::Written(lsn);
        }
        let no_later_than_ns = answer_by_ns.saturating_sub(STRICT_MARGIN_NS);
        Durable::Synced {
            lsn,
            no_later_than_ns,
        }
    }

    /// Moves what was promised, and gives the number of the record that says so.
    pub(crate) fn commit(&mut self, hold: Hold, out: &mut Effects) -> Lsn {
        let record = self.ledger.commit(hold, Lsn(self.lsn.0 + 1));
        self.append(&record, out)
    }

    /// A Reject: nothing moved, and the bytes go back as they are.
    fn reject(&mut self, entry: Entry, packet: Bytes, out: &mut Effects) {
        self.ledger.release(entry.hold);
        let stats = self.stats.of(entry.payer);
        stats.rejects_out += 1;
        stats.refused[Reason::PeerReject as usize] += 1;
        let after = Durable::Nothing;
        self.answer(after, entry.link, entry.request, packet, None, out);
    }

    /// The link could not deliver it.
    pub(crate) fn handle_failed(
        &mut self,
        now: Now,
        link: LinkId,
        request: RequestId,
        failure: LinkFailure,
        out: &mut Effects,
    ) {
        if self.handle_own_failed(now, link, request, failure, out) {
            return;
        }
        if let Some(entry) = self.pending.close(link, request) {
            self.hop_failed(now.mono_ns, entry.hold.payee());
            self.give_up(entry, failure.reason(), out);
        }
    }

    /// It may have arrived. The next hop may yet have the fulfillment of a packet, so only its expiry
    /// ends that; requests of our own move no money, and whoever made one can make it again.
    pub(crate) fn handle_unanswered(
        &mut self,
        now: Now,
        link: LinkId,
        request: RequestId,
        out: &mut Effects,
    ) {
        self.handle_own_failed(now, link, request, LinkFailure::Closed, out);
    }

    /// Packets whose time is over.
    pub(crate) fn expire(&mut self, now: Now, out: &mut Effects) {
        while let Some(entry) = self.pending.pop_expired(now.mono_ns) {
            self.hop_failed(now.mono_ns, entry.hold.payee());
            self.give_up(entry, Reason::ExpiryTimedOut, out);
        }
    }

    /// Ends a packet without payment for a reason of our own.
    fn give_up(&mut self, entry: Entry, reason: Reason, out: &mut Effects) {
        let from = Source {
            account: entry.payer,
            link: entry.link,
            request: entry.request,
        };
        self.ledger.release(entry.hold);
        self.refuse(from, reason.into(), out);
    }

    /// A Fulfill for a packet that was given up: neither paid nor forgotten.
    fn fulfill_late(
        &mut self,
        link: LinkId,
        request: RequestId,
        fulfill: &Fulfill<Bytes>,
        out: &mut Effects,
    ) {
        let Some(given_up) = self.pending.take_given_up(link, request) else {
            return;
        };
        if proves(fulfill, given_up.condition) {
            self.count_late(given_up.payee, given_up.amount_out, out);
        }
    }

    fn count_late(&mut self, account: AccountId, amount: u64, out: &mut Effects) {
        if self.ledger.account(account).is_some() {
            let stats = self.stats.of(account);
            stats.late_fulfills += 1;
            stats.late_amount += u128::from(amount);
        }
        out.now(Action::Report(Event::LateFulfill { account, amount }));
    }

    /// Neither links nor operators can mend it, but the difference between two books has a name.
    pub(crate) fn count_undelivered(&mut self, paid: Paid) {
        if self.ledger.account(paid.account).is_some() {
            let stats = self.stats.of(paid.account);
            stats.undelivered_fulfills += 1;
            stats.undelivered_amount += u128::from(paid.amount);
        }
    }

    /// Answers a Prepare with our own Reject, and counts it.
    pub(crate) fn refuse(&mut self, from: Source, refusal: Refusal, out: &mut Effects) {
        self.count_refusal(from.account, refusal.reason, out);
        let reject = refusal.reject(self.address().map(Address::as_ref));
        self.answer(
            Durable::Nothing,
            from.link,
            from.request,
            reject.into(),
            None,
            out,
        );
    }

    /// Counts a Prepare that was refused here.
    pub(crate) fn count_refusal(&mut self, account: AccountId, reason: Reason, out: &mut Effects) {
        // An account that was deleted while its client was connected has no counters any more.
        if self.ledger.account(account).is_some() {
            let stats = self.stats.of(account);
            stats.rejects_out += 1;
            stats.refused[reason as usize] += 1;
        }
        out.now(Action::Report(Event::Refused { account, reason }));
    }

    /// Sends an answer back to where the Prepare came from.
    pub(crate) fn answer(
        &mut self,
        after: Durable,
        link: LinkId,
        request: RequestId,
        packet: Bytes,
        paid: Option<Paid>,
        out: &mut Effects,
    ) {
        match link {
            // In the same process, so there is nothing that could have to survive first.
            LinkId::Local => self.local_answers.push_back((request, packet)),
            LinkId::Http(_) | LinkId::Waiting { .. } | LinkId::Session { .. } => {
                out.after(
                    after,
                    Action::Answer {
                        link,
                        request,
                        packet,
                        paid,
                    },
                );
            }
        }
    }
}

/// Whether the fulfillment is what the condition asked for (RFC 27, section on conditions).
fn proves(fulfill: &Fulfill<Bytes>, condition: [u8; 32]) -> bool {
    digest(&SHA256, &fulfill.fulfillment()).as_ref() == condition
}

/// An expiry as a moment of the monotonic clock, so that a stepping wall clock neither kills nor
/// revives packets.
pub(crate) fn deadline(now: Now, expires_at: Timestamp) -> u64 {
    let ms = u64::try_from(expires_at.ms_since(now.wall)).unwrap_or(0);
    now.mono_ns.saturating_add(ms.saturating_mul(1_000_000))
}

pub(crate) fn limit_refusal(limit: Limit, amount: u64) -> Refusal {
    match limit {
        Limit::PacketAmount { max } => Refusal::too_large(Reason::PacketLimit, amount, max),
        Limit::Rate => Reason::RateLimit.into(),
        Limit::AmountRate => Reason::AmountRateLimit.into(),
        Limit::InFlight => Reason::InFlightLimit.into(),
        Limit::Credit => Reason::CreditLimit.into(),
        Limit::Unsynced => Reason::UnsyncedCap.into(),
    }
}
