//! Routes that nodes tell each other: whether all of them know the shortest ways, and how long it takes.

use std::collections::VecDeque;

use crate::{
    check::Checked,
    plan::Party,
    topology::Topology,
    world::{Failure, MS, Options, S, World},
};

/// Longer than a peer over HTTP is believed without another word of it, and than a step takes from one
/// end of a network to the other.
const QUIET_NS: u64 = 60 * S;

/// Longer than after this long a lost request for routes is sent again, once it was lost for a while.
const QUIET_MENDED_NS: u64 = 300 * S;

/// Simulated time within which all nodes start.
const START_NS: u64 = 20 * S;

/// Simulated time within which routes must have become quiet.
const CONVERGE_NS_MAX: u64 = 1_200 * S;

/// Nodes that die at the same time.
const DEAD: usize = 3;

/// Links that are cut at the same time, while their nodes live.
const SEVERED: usize = 5;

/// How a network came to know its routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phase {
    /// Simulated milliseconds until the last update that told a route or withdrew one.
    pub ms: u64,
    /// Updates that did.
    pub updates: u64,
}

/// What a network went through, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Converged {
    /// Each node started at a time of its own.
    pub started: Phase,
    /// A few lost power at once.
    pub died: Phase,
    /// They came back.
    pub returned: Phase,
    /// A few links were cut, and all nodes lived.
    pub severed: Phase,
    /// Those links stand again.
    pub mended: Phase,
}

/// A network in which nothing is set by hand starts node by node, loses a few nodes at once, and gets them
/// back; and then the same with a few links.
///
/// # Errors
/// A [`Failure`], when it never becomes quiet, or a node then knows a way that is not the shortest, or one
/// that is not there.
pub fn converge(seed: u64, topology: Topology) -> Result<Converged, Box<Failure>> {
    let options = Options {
        topology: Some(topology),
        learn: true,
        ..Options::default()
    };
    let mut world = World::calm(seed, options);
    world.guarded(Some(seed), |world| {
        world.start_apart(START_NS);
        let started = world.settle(QUIET_NS)?;
        let dead = world.rng.some(world.nodes.len(), DEAD);
        for node in &dead {
            world.crash(*node, true);
        }
        let died = world.settle(QUIET_NS)?;
        for node in dead {
            world.open(node)?;
        }
        let returned = world.settle(QUIET_NS)?;
        let links = world.network.links.clone();
        for link in world.rng.some(links.len(), SEVERED) {
            let (a, b) = links[link];
            world.sever(a, b);
        }
        let severed = world.settle(QUIET_NS)?;
        world.mend_all();
        let mended = world.settle(QUIET_MENDED_NS)?;
        Ok(Converged {
            started,
            died,
            returned,
            severed,
            mended,
        })
    })
}

impl World {
    /// Lets time go on until nobody has anything to tell, and looks at what they know.
    fn settle(&mut self, quiet_ns: u64) -> Result<Phase, String> {
        let (start_ns, updates) = (self.now_ns, self.witness.tally.updates);
        self.witness.told_ns = start_ns;
        while self.now_ns < self.witness.told_ns + quiet_ns {
            if self.now_ns > start_ns + CONVERGE_NS_MAX {
                return Err("routes never become quiet".to_owned());
            }
            self.run_for(S)?;
        }
        self.check_routes()?;
        Ok(Phase {
            ms: (self.witness.told_ns - start_ns) / MS,
            updates: self.witness.tally.updates - updates,
        })
    }

    /// Every node that is up knows a shortest way to each that it is connected with, and none to the others.
    /// As each step of it comes nearer, no packet goes round.
    pub(crate) fn check_routes(&self) -> Checked {
        let count = self.nodes.len();
        let is_up = |node: usize| self.nodes[node].live.is_some();
        let mut neighbours = vec![Vec::new(); count];
        for (a, b) in &self.network.links {
            let is_severed = self.is_severed(Party::Node(*a), Party::Node(*b));
            if is_up(*a) && is_up(*b) && !is_severed {
                neighbours[*a].push(*b);
                neighbours[*b].push(*a);
            }
        }
        let far: Vec<_> = (0..count).map(|to| distances(to, &neighbours)).collect();
        for (from, node) in self.nodes.iter().enumerate() {
            let Some(live) = node.live.as_deref() else {
                continue;
            };
            let routes = live.core.routes();
            for to in (0..count).filter(|to| *to != from) {
                let prefix = self.network.nodes[to].address();
                let route = routes.iter().find(|route| route.prefix == prefix);
                let name = |of: usize| &self.network.nodes[of].name;
                let via = route.and_then(|route| {
                    let account = live.core.ledger().account(route.account?)?;
                    neighbours[from]
                        .iter()
                        .find(|of| **name(**of) == *account.settings.name)
                });
                let is_right = match (far[to][from], via) {
                    (Some(far_from_here), Some(via)) => far[to][*via] == Some(far_from_here - 1),
                    (None, None) => route.is_none(),
                    (Some(_), None) | (None, Some(_)) => false,
                };
                if !is_right {
                    return Err(format!(
                        "{} is {:?} links from {} and knows {route:?}",
                        name(to),
                        far[to][from],
                        name(from)
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Links between each node and one of them.
fn distances(to: usize, neighbours: &[Vec<usize>]) -> Vec<Option<usize>> {
    let mut far = vec![None; neighbours.len()];
    far[to] = Some(0);
    let mut next = VecDeque::from([(to, 0)]);
    while let Some((node, links)) = next.pop_front() {
        for other in &neighbours[node] {
            if far[*other].is_none() {
                far[*other] = Some(links + 1);
                next.push_back((*other, links + 1));
            }
        }
    }
    far
}
