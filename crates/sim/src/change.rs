//! What operators change while packets are under way, and what they set back in the end.

use rialto_connector::{Connector, Effects};
use rialto_ledger::{Rate, Relation};

use crate::{
    check::Checked,
    mutant::Mutant,
    plan::{AccountPlan, Name},
    world::{Event, MS, Work, World, note},
};

/// One command of an operator.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Account(AccountPlan),
    /// Hundredths of a euro for a dollar.
    Rate(u64),
    RoutePut(String, Name),
    RouteDelete(String),
}

impl Change {
    /// Does it. What does not exist cannot be deleted, which is no mistake here.
    pub(crate) fn apply(&self, core: &mut Connector, mutant: Option<Mutant>, out: &mut Effects) {
        let done = match self {
            Self::Account(plan) => core.account_update(plan.settings(mutant), out).map(drop),
            Self::Rate(percent) => {
                let rate = Rate {
                    rate: format!("{}.{:02}", percent / 100, percent % 100),
                    spread: None,
                    valid_until_ms: None,
                    set_at_ms: None,
                };
                core.rate_put("USD", "EUR", rate, out)
            }
            Self::RoutePut(prefix, account) => core.route_put(
                prefix.parse().expect("a prefix"),
                &[(account.to_string(), 1)],
                out,
            ),
            Self::RouteDelete(prefix) => {
                let prefix = prefix.parse().expect("a prefix");
                core.route_delete(&prefix, out).or(Ok(()))
            }
        };
        done.expect("the plan is good");
    }
}

impl World {
    /// An operator changes something, and the next thing later.
    pub(crate) fn change(&mut self) -> Checked {
        if self.is_healed {
            return Ok(());
        }
        let delay_ns = self.rng.between(100, 2_000) * MS;
        self.plan_in(delay_ns, Event::Change);
        let node = self.rng.index(self.nodes.len());
        if self.nodes[node].live.is_none() {
            return Ok(());
        }
        let plan = self.witness.plan(node).clone();
        let peers = plan.accounts.iter();
        let peers = peers.filter(|account| account.relation == Relation::Peer);
        let peers: Vec<_> = peers.map(|account| account.name.clone()).collect();
        let others = (0..self.nodes.len()).filter(|other| *other != node);
        let others: Vec<_> = others.collect();
        let change = match self.rng.below(10) {
            0..5 => {
                let mut account = plan.accounts[self.rng.index(plan.accounts.len())].clone();
                match self.rng.below(3) {
                    0 => account.is_paused = !account.is_paused,
                    _ => account.draw_limits(&mut self.rng),
                }
                Change::Account(account)
            }
            5..8 => Change::Rate(self.rng.pick(&[50, 92, 100, 137])),
            // What an operator sets is above what is learnt, and may lead round.
            8.. if self.network.learns => Change::Rate(self.rng.pick(&[50, 92, 100, 137])),
            of => {
                let other = others[self.rng.index(others.len())];
                let prefix = self.network.nodes[other].address();
                match of {
                    // The way there may lead back: a packet that goes round must come to an end.
                    8 => Change::RoutePut(prefix, peers[self.rng.index(peers.len())].clone()),
                    _ => Change::RouteDelete(prefix),
                }
            }
        };
        note!(self, "{} changes {change:?}", self.name(node));
        self.nodes[node].is_changed = true;
        // What a sync lets go is judged by the limits before.
        self.step(node, Vec::new())?;
        self.step(node, vec![Work::Change(change)])
    }

    /// Everything is set back to what it was.
    pub(crate) fn change_back(&mut self, node: usize) -> Checked {
        if !std::mem::take(&mut self.nodes[node].is_changed) {
            return Ok(());
        }
        let plan = self.network.nodes[node].clone();
        let mut changes = vec![Change::Rate(plan.rate_percent)];
        for other in 0..self.nodes.len() {
            changes.push(Change::RouteDelete(self.network.nodes[other].address()));
        }
        for (prefix, account) in plan.routes {
            changes.push(Change::RoutePut(prefix, account));
        }
        changes.extend(plan.accounts.into_iter().map(Change::Account));
        self.step(node, Vec::new())?;
        self.step(node, changes.into_iter().map(Work::Change).collect())
    }
}
