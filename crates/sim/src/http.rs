//! ILP over HTTP: one request, at most one answer. Requests may be lost or arrive twice, answers may
//! be lost, and an asker hears of a failure or of nothing.

use rialto_connector::{Input, LinkFailure, LinkId, RequestId};
use rialto_ledger::AccountId;

use crate::{
    check::{Checked, HopKey},
    edge::ReplyTo,
    plan::Party,
    world::{Event, MS, World},
};

/// Set in the request number of a copy, which is otherwise that of the request.
const COPY: u64 = 1 << 32;

/// One request on its way, or one more copy of it.
#[derive(Debug)]
pub(crate) struct Exchange {
    asker: Party,
    /// Of the asker: what comes for an earlier one is void.
    life: u32,
    /// The asker's account of the asked.
    account: AccountId,
    key: HopKey,
    asked: Party,
    /// The first copy, which hears the outcome.
    first: u32,
    /// The asked has answered.
    is_answered: bool,
    /// The asker has heard an outcome.
    is_over: bool,
}

/// What the asker hears.
#[derive(Debug)]
pub(crate) enum Outcome {
    Answer(Vec<u8>),
    Failure(LinkFailure),
}

impl World {
    fn http_fails(&mut self, percent: u64) -> bool {
        self.weather.links && !self.is_healed && self.rng.percent(percent)
    }

    /// Sends a request.
    pub(crate) fn http_ask(
        &mut self,
        asker: Party,
        account: AccountId,
        asked: Party,
        key: HopKey,
        packet: &[u8],
    ) {
        let life = match asker {
            Party::Node(node) => self.nodes[node].life,
            Party::Edge(_) => 0,
        };
        let first = self.exchanges.len();
        let copies = 1 + usize::from(self.http_fails(3));
        for copy in 0..copies {
            let mut own = key;
            if copy > 0 {
                own.request |= COPY;
                self.witness.copied(key, own);
            }
            let exchange = u32::try_from(self.exchanges.len()).expect("runs are short");
            self.exchanges.push(Exchange {
                asker,
                life,
                account,
                key: own,
                asked,
                first: u32::try_from(first).expect("runs are short"),
                is_answered: false,
                is_over: false,
            });
            let delay_ns = self.latency_ns();
            if self.http_fails(2) {
                self.http_lose(exchange);
            } else {
                let packet = packet.to_vec();
                self.plan_in(delay_ns, Event::HttpRequest { exchange, packet });
            }
        }
    }

    /// The asker hears that it failed, or it hears nothing.
    pub(crate) fn http_lose(&mut self, exchange: u32) {
        let delay_ns = self.rng.between(1, 2_000) * MS;
        if self.rng.percent(60) {
            let outcome = Outcome::Failure(LinkFailure::Timeout);
            self.plan_in(delay_ns, Event::HttpOutcome { exchange, outcome });
        }
    }

    /// A request arrives.
    pub(crate) fn http_request(&mut self, exchange: u32, packet: &[u8]) {
        let of = &self.exchanges[exchange as usize];
        let (asker, asked, key) = (of.asker, of.asked, of.key);
        let node = match asked {
            Party::Edge(edge) => {
                return self.edge_prepare(edge, ReplyTo::Http { exchange }, packet);
            }
            Party::Node(node) => node,
        };
        let account = self.witness.plan(node).id(&self.network.name_of(asker));
        let is_severed = self.is_severed(asker, asked);
        let live = self.nodes[node].live.as_deref_mut();
        let Some(live) = live.filter(|_| !is_severed) else {
            let outcome = Outcome::Failure(LinkFailure::Connect);
            return self.plan_in(MS, Event::HttpOutcome { exchange, outcome });
        };
        let request = u64::from(exchange);
        live.links.waiting.insert(request, key);
        let input = Input::Prepare {
            account,
            link: LinkId::Waiting { worker: 0 },
            request: RequestId(request),
            packet: packet.into(),
        };
        self.push(node, input);
    }

    /// The asked answers: once.
    pub(crate) fn http_answer(&mut self, exchange: u32, packet: &[u8]) {
        if std::mem::replace(&mut self.exchanges[exchange as usize].is_answered, true) {
            return;
        }
        let delay_ns = self.latency_ns();
        if self.http_fails(2) {
            self.http_lose(exchange);
        } else {
            let outcome = Outcome::Answer(packet.to_vec());
            self.plan_in(delay_ns, Event::HttpOutcome { exchange, outcome });
        }
    }

    /// The asked died: what waited there gets no answer.
    pub(crate) fn http_orphan(&mut self, waiting: impl Iterator<Item = u64>) {
        for request in waiting {
            let exchange = u32::try_from(request).expect("it is the number of an exchange");
            if !std::mem::replace(&mut self.exchanges[exchange as usize].is_answered, true) {
                self.http_lose(exchange);
            }
        }
    }

    /// The asker hears the first outcome of any copy.
    pub(crate) fn http_outcome(&mut self, exchange: u32, outcome: Outcome) -> Checked {
        let first = self.exchanges[exchange as usize].first;
        let first = &mut self.exchanges[first as usize];
        if std::mem::replace(&mut first.is_over, true) {
            return Ok(());
        }
        let (key, life, link) = (first.key, first.life, LinkId::Http(first.account));
        let request = RequestId(key.request);
        match (first.asker, outcome) {
            (Party::Node(node), _) if self.nodes[node].life != life => {}
            (Party::Node(node), Outcome::Answer(packet)) => {
                let packet = packet.into();
                self.push(
                    node,
                    Input::Reply {
                        link,
                        request,
                        packet,
                    },
                );
            }
            (Party::Node(node), Outcome::Failure(failure)) => {
                self.push(
                    node,
                    Input::Failed {
                        link,
                        request,
                        failure,
                    },
                );
            }
            (Party::Edge(edge), Outcome::Answer(packet)) => {
                self.edge_hears(edge, key, &packet)?;
            }
            (Party::Edge(_), Outcome::Failure(_)) => {}
        }
        Ok(())
    }
}
