//! Stories: whole nodes, what happens to them, and what comes of it beside each line.
//!
//! ```text
//! node  a [strict]                       address g.a
//! link  a b USD/9 [http]                 peers of each other; the first dials
//! edge  alice a USD/9 [credit N] [cap N] [http]   a neighbour whom the story plays, address g.a.alice
//! link, edge: settles N [ahead N] [on SCALE]   by engines, whose ledger may have a scale of its own
//! link: trustline N | kept N [settles N] [every SECONDS]   over a channel that the first proposes and
//!                                        on which each may owe so much, or only the first, who keeps it
//!
//! alice pays carol 40 for 10s            a packet that lives as long
//! carol fulfills | rejects | lies        answers the oldest packet that it got
//! kill a | power cut a | restart a
//! cut a b                                the connection is lost with what is on it
//! clock a 3600s | clock a -3600s         the wall clock is so much ahead
//! disk a slow | full | failing | sound
//! engine a/alice hangs | fails | refuses | dead | sound
//! engine a/alice receives 40             in units of its ledger
//! engine a/alice repeats [a unit more]   its latest call
//! engine a/alice forgets                 all but its ledger, and reports from it again
//! a settles alice 40 | a retries | a cancels
//! a opens b 100 50 | a limits b 100 50   what a may owe, and what b may, on a symmetrical trustline
//! a accepts b | a closes b | a leaves b  the newest channel with b: in agreement, or alone
//! channels                               where they stand: what was paid, and what came in
//! wait 10s
//! balances                               those that are not 0
//! ```
//!
//! After `->` stands what neighbours get and hear, and what balances are; without it, nothing.
//! The checkers of every other run look on.

use rialto_channel::{ChannelId, Kind};
use rialto_journal::Faults;
use rialto_ledger::{ChannelTerms, Relation};
use rialto_packet::{Prepare, Reply};

use crate::{
    check::{Checked, HopKey},
    edge::{ReplyTo, fulfill, reject},
    engine::{Mood, Settling},
    plan::{AccountPlan, Dialler, Edge, Name, Network, NodePlan, Party, Terms},
    rng::Rng,
    topology::{diameter, next_hops},
    world::{MS, S, World},
};

/// How long a line's consequences may take.
const LINE_NS: u64 = 500 * MS;
/// The same where connections have to be made.
const DIAL_NS: u64 = 5 * S;

/// Plays a story.
///
/// # Errors
/// The line at which something else happened, or a checker complained.
pub fn story(text: &str) -> Result<(), String> {
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let is_setting = |line: &&str| {
        ["node ", "link ", "edge "]
            .iter()
            .any(|of| line.starts_with(of))
    };
    let (setting, acts): (Vec<&str>, Vec<&str>) = lines.partition(is_setting);
    let mut world = World::scripted(network(&setting)?);
    world.start()?;
    world.run_for(DIAL_NS)?;
    for line in acts {
        let (act, expected) = line.split_once("->").unwrap_or((line, ""));
        let happened = world.act(act.trim());
        let happened = happened.map_err(|error| format!("{line}\n  {error}"))?;
        if happened != expected.trim() {
            return Err(format!("{line}\n  but: {happened}"));
        }
    }
    Ok(())
}

fn network(lines: &[&str]) -> Result<Network, String> {
    let (mut network, mut links) = (Network::default(), Vec::new());
    let mut rng = Rng::new(0);
    for line in lines {
        let words: Vec<_> = line.split_whitespace().collect();
        let is = |word| words.contains(&word);
        let number = |word: &str| {
            let at = words.iter().position(|of| *of == word)?;
            words.get(at + 1)?.parse::<u64>().ok()
        };
        let node = |network: &Network, name: &str| {
            let mut nodes = network.nodes.iter();
            let found = nodes.position(|plan| &*plan.name == name);
            found.ok_or_else(|| format!("{line}\n  there is no node {name}"))
        };
        let mut account = |name: Name, relation, asset: &str| {
            let asset = match asset {
                "USD/9" => ("USD", 9),
                "EUR/6" => ("EUR", 6),
                _ => return Err(format!("{line}\n  assets are USD/9 and EUR/6")),
            };
            let mut plan = AccountPlan::draw(&mut rng, name, relation, asset);
            plan.balance_min = -i128::from(number("credit").unwrap_or(1_000_000));
            plan.in_flight_count_max = 1_000;
            plan.unsynced_max = number("cap").unwrap_or(1_000_000);
            let trustline = number("trustline").map(|limit| (limit, limit));
            let speaks = trustline.or(number("kept").map(|limit| (limit, 0)));
            let engine_scale =
                number("on").map_or(asset.1, |scale| u8::try_from(scale).unwrap_or(9));
            let terms = Terms {
                threshold: number("settles").map(i128::from),
                settle_to: number("ahead").map_or(0, |ahead| -i128::from(ahead)),
                every_s: number("every").and_then(|every_s| u32::try_from(every_s).ok()),
                amount_min: 1,
                engine_scale: speaks.is_none().then_some(engine_scale),
                channel: speaks.map(|(limit, their_limit)| ChannelTerms {
                    kind: match trustline {
                        Some(_) => Kind::SymmetricalTrustline,
                        None => Kind::AsymmetricalTrustline,
                    },
                    limit,
                    their_limit,
                    propose: true,
                }),
                speaks: speaks.is_some(),
            };
            plan.terms = (is("settles") || terms.speaks).then_some(terms);
            Ok(plan)
        };
        match words[..] {
            ["node", name, ..] => network.nodes.push(NodePlan {
                is_strict: is("strict"),
                ..NodePlan::plain(name.into())
            }),
            ["link", a, b, asset, ..] => {
                let (a, b) = (node(&network, a)?, node(&network, b)?);
                for (node, other) in [(a, b), (b, a)] {
                    let name = network.nodes[other].name.clone();
                    let mut plan = account(name, Relation::Peer, asset)?;
                    plan.address = Some(network.nodes[other].address());
                    plan.http = is("http").then_some(Party::Node(other));
                    if let Some(channel) = plan.terms.as_mut().and_then(|of| of.channel.as_mut())
                        && node == b
                    {
                        let (ours, theirs) = (channel.limit, channel.their_limit);
                        (channel.limit, channel.their_limit) = (theirs, ours);
                        channel.propose = false;
                    }
                    network.nodes[node].accounts.push(plan);
                }
                if !is("http") {
                    network.dial_node(a, b);
                }
                links.push((a, b));
            }
            ["edge", name, at, asset, ..] => {
                let node = node(&network, at)?;
                let (edge, name): (_, Name) = (network.edges.len(), name.into());
                let mut plan = account(name.clone(), Relation::Child, asset)?;
                plan.http = is("http").then_some(Party::Edge(edge));
                network.nodes[node].accounts.push(plan);
                network.edges.push(Edge {
                    name: name.clone(),
                    node,
                    is_http: is("http"),
                    address: format!("{}.{name}", network.nodes[node].address()),
                    digits_max: 1,
                    is_honest: true,
                });
                if !is("http") {
                    network.diallers.push(Dialler {
                        client: Party::Edge(edge),
                        account: name.clone(),
                        server: node,
                        username: name,
                    });
                }
            }
            _ => return Err(format!("{line}\n  is no node, link or edge")),
        }
    }
    let next = next_hops(network.nodes.len(), &links);
    network.diameter = diameter(&next);
    network.route(&next);
    Ok(network)
}

fn length_ns(text: &str) -> Result<u64, String> {
    let seconds = text
        .strip_suffix('s')
        .and_then(|seconds| seconds.parse::<u64>().ok());
    seconds
        .map(|seconds| seconds * S)
        .ok_or(format!("'{text}' is no length of time, as in 10s"))
}

impl World {
    /// Does what a line says and tells what comes of it.
    fn act(&mut self, line: &str) -> Result<String, String> {
        let words: Vec<_> = line.split_whitespace().collect();
        let mut takes_ns = LINE_NS;
        match words[..] {
            [edge, "pays", to, amount, "for", life] => {
                let to = self.network.edges[self.edge(to)?].address.clone();
                let amount = amount
                    .parse()
                    .map_err(|_| format!("'{amount}' is no amount"))?;
                self.edge_pay(self.edge(edge)?, &to, amount, length_ns(life)? / MS)?;
            }
            [edge, how @ ("fulfills" | "rejects" | "lies")] => {
                let (to, preimage) = self.edge_got(self.edge(edge)?)?;
                let packet = match how {
                    "fulfills" => fulfill(preimage),
                    "rejects" => reject(),
                    _ => fulfill([0; 32]),
                };
                self.edge_reply(to, &packet);
            }
            ["kill", node] => self.crash(self.node(node)?, false),
            ["power", "cut", node] => self.crash(self.node(node)?, true),
            ["restart", node] => {
                takes_ns = DIAL_NS;
                self.open(self.node(node)?)?;
            }
            ["cut", a, b] => {
                takes_ns = DIAL_NS;
                self.cut_between(self.node(a)?, self.node(b)?)?;
            }
            ["clock", node, ahead] => {
                let (is_behind, length) = match ahead.strip_prefix('-') {
                    Some(length) => (true, length),
                    None => (false, ahead),
                };
                let ahead_ms = i64::try_from(length_ns(length)? / MS).expect("hours at most");
                let node = self.node(node)?;
                self.nodes[node].skew_ms = if is_behind { -ahead_ms } else { ahead_ms };
            }
            ["disk", node, how] => {
                let node = self.node(node)?;
                let node = &mut self.nodes[node];
                node.slow_until_ns = if how == "slow" { u64::MAX } else { 0 };
                node.disk.set_faults(match how {
                    "slow" | "sound" => Faults::default(),
                    "failing" => Faults {
                        syncs_fail: true,
                        ..Faults::default()
                    },
                    "full" => Faults {
                        capacity_bytes: Some(0),
                        ..Faults::default()
                    },
                    _ => return Err(format!("no disk is {how}")),
                });
            }
            ["engine", name, how] => {
                let engine = self.engine_named(name)?;
                match how {
                    "repeats" => self.engine_repeats(engine, 0)?,
                    "forgets" => self.engine_forgets(engine),
                    "hangs" => self.engines[engine].mood = Mood::Hangs,
                    "fails" => self.engines[engine].mood = Mood::Fails,
                    "refuses" => self.engines[engine].mood = Mood::Refuses,
                    "dead" => self.engines[engine].mood = Mood::Dead,
                    "sound" => self.engines[engine].mood = Mood::Sound,
                    _ => return Err(format!("no engine {how}")),
                }
            }
            ["engine", name, "repeats", "a", "unit", "more"] => {
                let engine = self.engine_named(name)?;
                self.engine_repeats(engine, 1)?;
            }
            ["engine", name, "receives", amount] => {
                let engine = self.engine_named(name)?;
                let amount = amount
                    .parse()
                    .map_err(|_| format!("'{amount}' is no amount"))?;
                self.engine_receives(engine, amount, MS);
            }
            [node, "settles", account, amount] => {
                let amount = amount
                    .parse()
                    .map_err(|_| format!("'{amount}' is no amount"))?;
                let key = line.to_owned();
                let settling = Settling::Manual(account.into(), Some(amount), key);
                self.settle_operator(self.node(node)?, settling)?;
            }
            [node, how @ ("retries" | "cancels")] => {
                let node = self.node(node)?;
                for id in self.witness.parked(node) {
                    let settling = match how {
                        "retries" => Settling::Retry(id),
                        _ => Settling::Cancel(id),
                    };
                    self.settle_operator(node, settling)?;
                }
            }
            [node, how @ ("opens" | "limits"), account, ours, theirs] => {
                let limits = [ours, theirs].map(|limit| limit.parse().unwrap_or(0));
                let node = self.node(node)?;
                let settling = match how {
                    "opens" => {
                        let kind = Kind::SymmetricalTrustline;
                        Settling::Open(account.into(), kind, limits, line.to_owned())
                    }
                    _ => Settling::Limits(self.channel(node, account)?, limits),
                };
                self.settle_operator(node, settling)?;
            }
            [node, how @ ("accepts" | "closes" | "leaves"), account] => {
                let node = self.node(node)?;
                let channel = self.channel(node, account)?;
                let settling = match how {
                    "accepts" => Settling::Accept(channel),
                    _ => Settling::Close(channel, how == "leaves"),
                };
                self.settle_operator(node, settling)?;
            }
            ["channels"] => return Ok(self.channels()),
            ["wait", length] => takes_ns = length_ns(length)?,
            ["balances"] => return Ok(self.balances()),
            _ => return Err("is nothing that can happen".to_owned()),
        }
        self.run_for(takes_ns)?;
        Ok(std::mem::take(&mut self.heard).join(", "))
    }

    fn node(&self, name: &str) -> Result<usize, String> {
        let mut nodes = self.network.nodes.iter();
        let found = nodes.position(|plan| &*plan.name == name);
        found.ok_or_else(|| format!("there is no node {name}"))
    }

    fn edge(&self, name: &str) -> Result<usize, String> {
        let mut edges = self.network.edges.iter();
        let found = edges.position(|plan| &*plan.name == name);
        found.ok_or_else(|| format!("there is no edge {name}"))
    }

    fn edge_got(&mut self, edge: usize) -> Result<(ReplyTo, [u8; 32]), String> {
        let got = self.edges[edge].got.pop_front();
        got.ok_or_else(|| "it got no packet".to_owned())
    }

    /// The newest with the holder of an account.
    fn channel(&self, node: usize, account: &str) -> Result<ChannelId, String> {
        let account = self.witness.plan(node).id(account);
        let known = self.witness.nodes[node].trust.of(account);
        let newest = known.last().map(|channel| channel.id);
        newest.ok_or_else(|| "there is no channel".to_owned())
    }

    fn channels(&self) -> String {
        let mut channels = Vec::new();
        for (node, plan) in self.network.nodes.iter().enumerate() {
            for account in &plan.accounts {
                for of in self.witness.nodes[node].trust.of(plan.id(&account.name)) {
                    let (paid, came_in) = (of.ours.total, of.theirs.total);
                    let (name, word) = (&account.name, of.state_word());
                    channels.push(format!("{}/{name} {word} {paid} {came_in}", plan.name));
                }
            }
        }
        channels.join(", ")
    }

    fn balances(&self) -> String {
        let mut balances = Vec::new();
        for (node, plan) in self.nodes.iter().zip(&self.network.nodes) {
            let accounts = node
                .live
                .iter()
                .flat_map(|live| live.core.ledger().accounts());
            for account in accounts.filter(|account| account.balance() != 0) {
                let (name, balance) = (&account.settings.name, account.balance());
                balances.push(format!("{}/{name} {balance}", plan.name));
            }
        }
        balances.join(", ")
    }

    /// A neighbour that a story plays got a packet.
    pub(crate) fn edge_gets(&mut self, edge: usize, to: ReplyTo, packet: &[u8]) {
        let Ok(prepare) = Prepare::parse(packet) else {
            return;
        };
        let preimage = prepare.data().try_into().unwrap_or([0; 32]);
        self.edges[edge].got.push_back((to, preimage));
        let name = &self.network.edges[edge].name;
        self.heard.push(format!("{name} gets {}", prepare.amount()));
    }

    /// A scripted neighbour got an answer.
    pub(crate) fn edge_hears(&mut self, edge: usize, key: HopKey, packet: &[u8]) -> Checked {
        self.witness.edge_answered(key, packet)?;
        self.speaker_answered(edge, key, packet);
        if self.is_scripted {
            let name = &self.network.edges[edge].name;
            self.heard.push(match Reply::parse(packet) {
                Ok(Reply::Fulfill(_)) => format!("{name} hears fulfill"),
                Ok(Reply::Reject(reject)) => format!("{name} hears {}", reject.code()),
                Err(error) => format!("{name} hears {error}"),
            });
        }
        Ok(())
    }
}
