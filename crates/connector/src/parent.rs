//! Our own address from our parent (RFC 31), where the operator gave us none.
//!
//! The question goes out on each connection of the parent's link, and again from time to time: over
//! HTTP there is no connection that could say that something changed. It is a packet without money, so
//! it has no hold and no place among the packets in flight; a question that is lost is asked again.

use bytes::Bytes;
use rialto_ledger::{AccountId, Relation};
use rialto_packet::{Address, PEER_FULFILLMENT, Reply, ildcp};

use crate::{
    Connector,
    forward::deadline,
    io::{Action, Effects, Event, LinkId, Now, RequestId},
    refusal::LinkFailure,
};

/// How long the parent may take. Milliseconds.
const ANSWER_MS: i64 = 30_000;

/// Between a failure and the next question; doubled with each failure. Nanoseconds.
const PAUSE_MIN_NS: u64 = 1_000_000_000;
const PAUSE_MAX_NS: u64 = 60_000_000_000;

/// Between an answer and the next question. Nanoseconds.
const AGAIN_NS: u64 = 60_000_000_000;

/// Characters of a stranger's text that a line shows.
const SHOWN_MAX: usize = 100;

/// Where the question stands.
#[derive(Debug, Default)]
pub(crate) struct Parent {
    asked: Option<Asked>,
    /// When the next question is due, on the monotonic clock.
    next_at_ns: u64,
    failures_in_a_row: u32,
    problem: Option<String>,
    refused_total: u64,
}

/// A question on its way.
#[derive(Debug)]
struct Asked {
    account: AccountId,
    link: LinkId,
    request: RequestId,
    until_ns: u64,
}

impl Parent {
    /// On the monotonic clock.
    pub(crate) fn poll_timeout(&self) -> u64 {
        self.asked
            .as_ref()
            .map_or(self.next_at_ns, |asked| asked.until_ns)
    }

    /// The parent's account or link changed: ask at once.
    pub(crate) fn ask_again(&mut self) {
        self.asked = None;
        self.next_at_ns = 0;
        self.failures_in_a_row = 0;
    }

    /// A session ended, and the question with it.
    pub(crate) fn forget_link(&mut self, link: LinkId) {
        self.asked.take_if(|asked| asked.link == link);
    }
}

impl Connector {
    /// Why the parent gave no address, or not the last time; `None` when it did.
    pub fn address_problem(&self) -> Option<&str> {
        self.parent.problem.as_deref()
    }

    /// Answers of the parent that could not be taken, since the start.
    pub fn addresses_refused_total(&self) -> u64 {
        self.parent.refused_total
    }

    /// Asks when it is time, unless the operator gave us an address.
    pub(crate) fn run_parent(&mut self, now: Now, out: &mut Effects) {
        if !self.settings.asks_parent
            || self.closed.is_some()
            || now.mono_ns < self.parent.poll_timeout()
        {
            return;
        }
        if self.parent.asked.take().is_some() {
            self.parent_failed(now, "the parent does not answer".to_owned(), out);
            return;
        }
        let Some(account) = self.ledger.parent().map(|parent| parent.id) else {
            self.parent_failed(
                now,
                "no account has the relation parent: make one".to_owned(),
                out,
            );
            return;
        };
        let Some(link) = self.link_of(account) else {
            self.parent_failed(now, "the parent is not connected".to_owned(), out);
            return;
        };
        let expires_at = now.wall.plus_ms(ANSWER_MS);
        let request = self.pending.name(link);
        let until_ns = deadline(now, expires_at);
        self.parent.asked = Some(Asked {
            account,
            link,
            request,
            until_ns,
        });
        out.now(Action::Forward {
            link,
            request,
            packet: ildcp::request(expires_at).into(),
            deadline_ns: until_ns,
        });
    }

    /// Whether a reply is to our question; if so, it is taken or refused.
    pub(crate) fn handle_parent_reply(
        &mut self,
        now: Now,
        link: LinkId,
        request: RequestId,
        packet: &Bytes,
        out: &mut Effects,
    ) -> bool {
        let Some(asked) = self.take_question(link, request) else {
            return false;
        };
        match self.parent_address(asked.account, packet) {
            Ok(address) => self.take_address(now, address, out),
            Err(problem) => {
                self.parent.refused_total += 1;
                self.parent_failed(now, problem, out);
            }
        }
        true
    }

    /// Whether it was our question that could not be delivered.
    pub(crate) fn handle_parent_failed(
        &mut self,
        now: Now,
        link: LinkId,
        request: RequestId,
        failure: LinkFailure,
        out: &mut Effects,
    ) -> bool {
        let is_ours = self.take_question(link, request).is_some();
        if is_ours {
            let row = failure.reason().row();
            self.parent_failed(now, format!("{}: {}", row.word, row.message), out);
        }
        is_ours
    }

    fn take_question(&mut self, link: LinkId, request: RequestId) -> Option<Asked> {
        let asked = &mut self.parent.asked;
        asked.take_if(|asked| asked.link == link && asked.request == request)
    }

    /// What the parent says, if a node can live with it.
    fn parent_address(&self, parent: AccountId, packet: &Bytes) -> Result<Address, String> {
        let fulfill = match Reply::parse(packet.clone()) {
            Ok(Reply::Fulfill(fulfill)) => fulfill,
            Ok(Reply::Reject(reject)) => {
                let message: String = reject.message().chars().take(SHOWN_MAX).collect();
                return Err(format!(
                    "the parent rejects with {}: {message:?}",
                    reject.code()
                ));
            }
            Err(error) => return Err(format!("the parent's answer is no packet: {error}")),
        };
        if fulfill.fulfillment() != PEER_FULFILLMENT {
            return Err("the parent's answer has another fulfillment than ILDCP's".to_owned());
        }
        let told = ildcp::Response::parse(fulfill.data())
            .map_err(|error| format!("the parent's answer: {error}"))?;
        let ours = self.ledger.account(parent).map(|account| &account.settings);
        let ours = ours.ok_or("the parent's account is gone")?;
        if told.asset != ours.asset {
            let (name, told, ours) = (&ours.name, told.asset, &ours.asset);
            return Err(format!(
                "the parent counts in {told}, our account '{name}' in {ours}: make an account in the same asset"
            ));
        }
        self.check_own_address(&told.client_address)?;
        Ok(told.client_address)
    }

    fn check_own_address(&self, address: &Address) -> Result<(), String> {
        let refused = |why: &str| Err(format!("the parent gives us the address {address}, {why}"));
        if address.as_ref().starts_with("peer") {
            return refused("which is nobody's");
        }
        if let Some(present) = self.address()
            && present.as_ref().scheme() != address.as_ref().scheme()
        {
            return refused("of another network than the present one: restart to change it");
        }
        for account in self.ledger.accounts() {
            let settings = &account.settings;
            match (&settings.ilp_address, settings.relation) {
                (Some(theirs), _) if theirs == address => {
                    return refused(&format!("which is that of our account '{}'", settings.name));
                }
                (None, Relation::Child | Relation::Local)
                    if address.child(&settings.name).is_err() =>
                {
                    return refused(&format!("too long for our account '{}'", settings.name));
                }
                (Some(_) | None, _) => {}
            }
        }
        Ok(())
    }

    fn take_address(&mut self, now: Now, address: Address, out: &mut Effects) {
        self.parent.problem = None;
        self.parent.failures_in_a_row = 0;
        self.parent.next_at_ns = now.mono_ns.saturating_add(AGAIN_NS);
        if self.address() == Some(&address) {
            return;
        }
        self.settings.address = Some(address.clone());
        self.rebuild_routes();
        // Whoever got an address beneath the old one, or none, asks again when it has connected again.
        for account in self.ledger.accounts() {
            let settings = &account.settings;
            if settings.relation == Relation::Child && settings.ilp_address.is_none() {
                for link in self.sessions.get(&account.id).into_iter().flatten() {
                    out.now(Action::Disconnect { link: *link });
                }
            }
        }
        out.now(Action::Report(Event::AddressTaken { address }));
    }

    /// What is there stays. Said once, not each time.
    fn parent_failed(&mut self, now: Now, problem: String, out: &mut Effects) {
        let parent = &mut self.parent;
        let pause_ns = PAUSE_MIN_NS << parent.failures_in_a_row.min(6);
        parent.failures_in_a_row = parent.failures_in_a_row.saturating_add(1);
        parent.next_at_ns = now.mono_ns.saturating_add(pause_ns.min(PAUSE_MAX_NS));
        if parent.problem.as_ref() != Some(&problem) {
            parent.problem = Some(problem.clone());
            out.now(Action::Report(Event::AddressProblem { message: problem }));
        }
    }
}
