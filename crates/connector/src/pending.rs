//! Packets in flight. The table is the truth about them: no task or future has to live for a packet
//! to be decided and booked.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use rialto_ledger::{AccountId, Hold};
use rustc_hash::FxHashMap;

use crate::{
    io::{LinkId, RequestId},
    messages::MessageId,
    routes::RouteRequest,
};

/// Packets that were given up and whose late Fulfill could still be told by value.
const GIVEN_UP_MAX: usize = 65_536;

/// A packet that was sent on.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Who sent it to us.
    pub(crate) payer: AccountId,
    /// Where the answer goes.
    pub(crate) link: LinkId,
    /// The link's own name for it.
    pub(crate) request: RequestId,
    /// SHA-256 that the fulfillment must have.
    pub(crate) condition: [u8; 32],
    /// What the books promised.
    pub(crate) hold: Hold,
    /// When it is given up, on the monotonic clock: its outgoing expiry.
    pub(crate) deadline_ns: u64,
    /// Until when an answer is of use to whom we got it from, on the monotonic clock.
    pub(crate) answer_by_ns: u64,
}

/// What is remembered of a packet whose time was over.
#[derive(Debug)]
pub(crate) struct GivenUp {
    /// Who could have been paid.
    pub(crate) payee: AccountId,
    /// In their units.
    pub(crate) amount_out: u64,
    /// SHA-256 that the fulfillment must have: only then did they lose it.
    pub(crate) condition: [u8; 32],
}

/// A request of the node itself to a neighbour that was not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnRequest {
    /// About routes.
    Route(RouteRequest),
    /// Carries a message.
    Message(MessageId),
}

type Key = (LinkId, RequestId);

/// All packets in flight, by outgoing link and request.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    entries: FxHashMap<Key, Entry>,
    /// Deadlines, earliest first; those of answered packets stay until they outnumber the rest.
    deadlines: BinaryHeap<Reverse<(u64, Key)>>,
    next_requests: FxHashMap<LinkId, u32>,
    /// Requests of the node itself, which move no money.
    own: FxHashMap<Key, OwnRequest>,
    given_up: FxHashMap<Key, GivenUp>,
    given_up_order: VecDeque<Key>,
}

impl Pending {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Enters a packet, before it is sent, and names the request. Names are unique on their link for
    /// 2^32 requests and never 0, which BTP sessions use for themselves.
    pub(crate) fn open(&mut self, link: LinkId, entry: Entry) -> RequestId {
        let key = (link, self.name(link));
        self.deadlines.push(Reverse((entry.deadline_ns, key)));
        self.entries.insert(key, entry);
        if self.deadlines.len() > 2 * self.entries.len() + 64 {
            let entries = &self.entries;
            self.deadlines
                .retain(|Reverse((_, key))| entries.contains_key(key));
        }
        key.1
    }

    /// A name for a request that has no entry here.
    pub(crate) fn name(&mut self, link: LinkId) -> RequestId {
        let next = self.next_requests.entry(link).or_default();
        loop {
            *next = next.wrapping_add(1).max(1);
            let request = RequestId(u64::from(*next));
            let key = (link, request);
            if !self.entries.contains_key(&key) && !self.own.contains_key(&key) {
                return request;
            }
        }
    }

    /// Enters a request of the node itself. Whoever does has to take it out when its time is over.
    pub(crate) fn open_own(&mut self, link: LinkId, own: OwnRequest) -> RequestId {
        let key = (link, self.name(link));
        self.own.insert(key, own);
        key.1
    }

    /// Takes out a request of the node itself.
    pub(crate) fn close_own(&mut self, link: LinkId, request: RequestId) -> Option<OwnRequest> {
        self.own.remove(&(link, request))
    }

    /// Takes out the packet that was answered.
    pub(crate) fn close(&mut self, link: LinkId, request: RequestId) -> Option<Entry> {
        self.entries.remove(&(link, request))
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.deadlines
            .peek()
            .map(|Reverse((deadline_ns, _))| *deadline_ns)
    }

    /// Takes out a packet whose time is over, and remembers what a late Fulfill would cost.
    pub(crate) fn pop_expired(&mut self, now_ns: u64) -> Option<Entry> {
        while self.next_deadline()? <= now_ns {
            let Reverse((_, key)) = self.deadlines.pop()?;
            if let Some(entry) = self.entries.remove(&key) {
                let given_up = GivenUp {
                    payee: entry.hold.payee(),
                    amount_out: entry.hold.amount_out(),
                    condition: entry.condition,
                };
                self.give_up(key, given_up);
                return Some(entry);
            }
        }
        None
    }

    /// Whom a late Fulfill would have paid, and how much. Told once.
    pub(crate) fn take_given_up(&mut self, link: LinkId, request: RequestId) -> Option<GivenUp> {
        self.given_up.remove(&(link, request))
    }

    /// Numbers of a link that is gone are not needed any more: none has its name again.
    pub(crate) fn forget_link(&mut self, link: LinkId) {
        self.next_requests.remove(&link);
    }

    fn give_up(&mut self, key: Key, given_up: GivenUp) {
        if self.given_up_order.len() >= GIVEN_UP_MAX
            && let Some(oldest) = self.given_up_order.pop_front()
        {
            self.given_up.remove(&oldest);
        }
        self.given_up.insert(key, given_up);
        self.given_up_order.push_back(key);
    }
}
