//! The network of a run: who is connected to whom, in which asset, within which limits.
//!
//! ```text
//!   carol ── n0 ══ n1 ══ n2 ── shop        ══ between nodes, as the topology says
//!            │      │     │                ── to scripted neighbours, honest or not
//!          local mallory local             local: accounts that STREAM payments go between
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use rialto_channel::Kind;
use rialto_connector::Settings;
use rialto_ledger::{
    AccountId, AccountSettings, AccountTerms, ChannelTerms, HttpLink, Limits, Relation,
    RouteExchange, SealedSecret, SettlementTerms,
};
use rialto_packet::money::Asset;

use crate::{
    mutant::Mutant,
    rng::Rng,
    settle::FINEST_SCALE,
    topology::{Topology, diameter, next_hops},
};

/// A name of a node, an account or a scripted neighbour.
pub(crate) type Name = Rc<str>;

/// Kept of each packet's life, as the node's default is. Milliseconds.
const WINDOW_MS: i64 = 1_000;
/// The same where packets pass more than [`HOPS_MAX`] nodes and would not live long enough otherwise.
const WINDOW_SHORT_MS: i64 = 200;
const HOPS_MAX: usize = 8;
/// Longest time a packet stays out. Milliseconds.
pub(crate) const HOLD_MS_MAX: i64 = 30_000;
/// Hundredths of a euro for a dollar, at first.
const RATE_PERCENT: u64 = 92;
/// How many links in a hundred carry ILP over HTTP instead of BTP.
const HTTP_PERCENT: u64 = 25;
/// What accounts are kept in.
const ASSETS: [(&str, u8); 4] = [("USD", 9), ("USD", 6), ("EUR", 6), ("EUR", 4)];
/// The account of a node that pays and is paid by STREAM.
pub(crate) const LOCAL: &str = "local";

/// Who opens a connection to whom.
#[derive(Debug, Clone)]
pub(crate) struct Dialler {
    pub(crate) client: Party,
    /// The account of the server, on a client that is a node.
    pub(crate) account: Name,
    /// The node that is dialled.
    pub(crate) server: usize,
    /// The name under which the client is known there.
    pub(crate) username: Name,
}

/// An end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    /// One of [`Network::nodes`].
    Node(usize),
    /// One of [`Network::edges`].
    Edge(usize),
}

/// A scripted neighbour at the edge of the network.
#[derive(Debug, Clone)]
pub(crate) struct Edge {
    pub(crate) name: Name,
    /// Its one neighbour.
    pub(crate) node: usize,
    /// It is asked, and asks, by HTTP.
    pub(crate) is_http: bool,
    pub(crate) address: String,
    /// Of its amounts.
    pub(crate) digits_max: u32,
    /// Answers truthfully and in time.
    pub(crate) is_honest: bool,
}

/// What the checkers know of an account. What the node is told is made from it.
#[derive(Debug, Clone)]
pub(crate) struct AccountPlan {
    pub(crate) name: Name,
    pub(crate) relation: Relation,
    pub(crate) code: &'static str,
    pub(crate) scale: u8,
    pub(crate) address: Option<String>,
    pub(crate) balance_min: i128,
    pub(crate) in_flight_count_max: u32,
    pub(crate) unsynced_max: u64,
    pub(crate) is_paused: bool,
    /// Who is asked by HTTP.
    pub(crate) http: Option<Party>,
    /// Routes are told to it and learnt from it.
    pub(crate) tells_routes: bool,
    /// How it is settled, where it has an engine or its holder speaks channels.
    pub(crate) terms: Option<Terms>,
}

/// How an account is settled.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) threshold: Option<i128>,
    pub(crate) settle_to: i128,
    pub(crate) every_s: Option<u32>,
    pub(crate) amount_min: u64,
    /// Of the ledger of its engine, where it has one.
    pub(crate) engine_scale: Option<u8>,
    /// Which channels are opened and accepted without an operator.
    pub(crate) channel: Option<ChannelTerms>,
    /// Its holder speaks channels.
    pub(crate) speaks: bool,
}

/// One node. Its address is `g.` and its name.
#[derive(Debug, Clone)]
pub(crate) struct NodePlan {
    pub(crate) name: Name,
    /// By number of the account, less one.
    pub(crate) accounts: Vec<AccountPlan>,
    /// Prefix and account.
    pub(crate) routes: Vec<(String, Name)>,
    /// Thousandths that the node keeps of each conversion.
    pub(crate) spread: u64,
    pub(crate) is_strict: bool,
    /// Cap over all accounts of an asset, the same number for each.
    pub(crate) unsynced_max: u64,
    pub(crate) window_ms: i64,
    /// Hundredths of a euro for a dollar.
    pub(crate) rate_percent: u64,
}

/// All that does not change during a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Network {
    pub(crate) nodes: Vec<NodePlan>,
    pub(crate) edges: Vec<Edge>,
    /// Pairs of nodes.
    pub(crate) links: Vec<(usize, usize)>,
    /// Nodes learn their routes from each other.
    pub(crate) learns: bool,
    /// Every connection that is kept up.
    pub(crate) diallers: Vec<Dialler>,
    /// How many links the longest way between two nodes has.
    pub(crate) diameter: usize,
}

impl Network {
    /// Draws nodes, links, scripted neighbours, limits, spreads and durability.
    pub(crate) fn draw(rng: &mut Rng, topology: Topology, learns: bool) -> Self {
        let links = topology.links(rng);
        let next = next_hops(topology.nodes, &links);
        let mut network = Self {
            diameter: diameter(&next),
            links: links.clone(),
            learns,
            ..Self::default()
        };
        let window_ms = match network.diameter > HOPS_MAX {
            true => WINDOW_SHORT_MS,
            false => WINDOW_MS,
        };
        for node in 0..topology.nodes {
            network.nodes.push(NodePlan {
                spread: rng.pick(&[0, 0, 2]),
                is_strict: rng.percent(25),
                unsynced_max: rng.pick(&[10_000_000, 3_000_000_000, 1_000_000_000_000]),
                window_ms,
                ..NodePlan::plain(format!("n{node}").into())
            });
        }
        let settles = Means {
            engines: rng.percent(60),
            channels: rng.percent(50),
        };
        for (a, b) in links {
            let asset = rng.pick(&ASSETS);
            // Either of the two dials.
            let (client, server) = rng.pick(&[(a, b), (b, a)]);
            network.link(rng, asset, client, server, settles);
        }
        network.draw_edges(rng, settles);
        for node in rng.some(topology.nodes, 2 + topology.nodes / 15) {
            let asset = rng.pick(&ASSETS);
            let plan = AccountPlan::draw(rng, LOCAL.into(), Relation::Local, asset);
            network.nodes[node].accounts.push(plan);
        }
        if !learns {
            network.route(&next);
        }
        network
    }

    /// Two nodes that are each other's peer.
    fn link(
        &mut self,
        rng: &mut Rng,
        asset: (&'static str, u8),
        client: usize,
        server: usize,
        settles: Means,
    ) {
        let is_http = rng.percent(HTTP_PERCENT);
        let mut terms = Terms::draw_pair(rng, asset, settles);
        for (node, other) in [(client, server), (server, client)] {
            let name = self.nodes[other].name.clone();
            let mut plan = AccountPlan::draw(rng, name, Relation::Peer, asset);
            // What is learnt is not known before.
            plan.address = (!self.learns).then(|| self.nodes[other].address());
            plan.tells_routes = self.learns;
            plan.http = is_http.then_some(Party::Node(other));
            plan.terms = terms.pop_front();
            self.nodes[node].accounts.push(plan);
        }
        if is_http {
            return;
        }
        self.dial_node(client, server);
    }

    /// One node keeps a connection to another.
    pub(crate) fn dial_node(&mut self, client: usize, server: usize) {
        self.diallers.push(Dialler {
            client: Party::Node(client),
            account: self.nodes[server].name.clone(),
            server,
            username: self.nodes[client].name.clone(),
        });
    }

    /// Scripted neighbours: mostly honest, one in three not.
    fn draw_edges(&mut self, rng: &mut Rng, settles: Means) {
        let count = 3 + self.nodes.len() / 10;
        let nodes = rng.some(self.nodes.len(), count);
        for edge in 0..count {
            let node = nodes[edge % nodes.len()];
            let is_honest = edge % 3 != 1;
            let word = if is_honest { "honest" } else { "mallory" };
            let name: Name = format!("{word}{edge}").into();
            let asset = rng.pick(&ASSETS);
            let is_http = rng.percent(HTTP_PERCENT);
            let mut plan = AccountPlan::draw(rng, name.clone(), Relation::Child, asset);
            plan.http = is_http.then_some(Party::Edge(edge));
            plan.terms = Terms::draw_pair(rng, asset, settles).pop_front();
            self.nodes[node].accounts.push(plan);
            self.edges.push(Edge {
                name: name.clone(),
                is_http,
                node,
                address: format!("{}.{name}", self.nodes[node].address()),
                digits_max: u32::from(asset.1) + 1,
                is_honest,
            });
            if !is_http {
                self.diallers.push(Dialler {
                    client: Party::Edge(edge),
                    account: name.clone(),
                    server: node,
                    username: name,
                });
            }
        }
    }

    /// Sets the routes of every node to every other that is not its neighbour.
    pub(crate) fn route(&mut self, next: &[Vec<Option<usize>>]) {
        for (from, next) in next.iter().enumerate() {
            for (to, via) in next.iter().enumerate() {
                if let Some(via) = via.filter(|via| *via != to) {
                    let via = self.nodes[via].name.clone();
                    let prefix = self.nodes[to].address();
                    self.nodes[from].routes.push((prefix, via));
                }
            }
        }
    }

    pub(crate) fn name_of(&self, party: Party) -> Name {
        match party {
            Party::Node(node) => self.nodes[node].name.clone(),
            Party::Edge(edge) => self.edges[edge].name.clone(),
        }
    }

    /// Nodes that have an account for STREAM payments.
    pub(crate) fn locals(&self) -> Vec<usize> {
        let nodes = self.nodes.iter().enumerate();
        let is_local = |plan: &AccountPlan| plan.relation == Relation::Local;
        nodes
            .filter(|(_, plan)| plan.accounts.iter().any(is_local))
            .map(|(node, _)| node)
            .collect()
    }

    /// The longest part of a packet's life that nodes on its way take. Milliseconds.
    pub(crate) fn windows_ms(&self) -> u64 {
        let window_ms = self.nodes.iter().map(|plan| plan.window_ms).max();
        let window_ms = u64::try_from(window_ms.unwrap_or(0)).expect("a length of time");
        window_ms * (self.diameter as u64 + 2)
    }
}

/// By what means accounts are settled.
#[derive(Debug, Clone, Copy)]
struct Means {
    engines: bool,
    channels: bool,
}

/// The scale of the ledger that an account is settled on, coarser or finer than its own, if it is.
fn engine_scale(rng: &mut Rng, (_, scale): (&'static str, u8)) -> Option<u8> {
    let engine_scale = (scale + rng.pick(&[0, 2, 3, 11])).saturating_sub(2);
    rng.percent(60).then_some(engine_scale.min(FINEST_SCALE))
}

/// What the two sides of a peering say of their channel; nothing where operators open each.
fn channel_terms(rng: &mut Rng, scale: u8) -> [Option<ChannelTerms>; 2] {
    let unit = 10_u64.pow(scale.into());
    let kind = rng.pick(&Kind::ALL);
    let mut limits = [0, 0].map(|_| rng.pick(&[unit / 100, unit, 10 * unit, 1_000 * unit]));
    if kind == Kind::AsymmetricalTrustline {
        limits[rng.index(2)] = 0;
    }
    let proposes = rng.pick(&[[true, false], [false, true], [true, true], [false, false]]);
    [0, 1].map(|side: usize| {
        let terms = ChannelTerms {
            kind,
            limit: limits[side],
            their_limit: limits[1 - side],
            propose: proposes[side],
        };
        rng.percent(80).then_some(terms)
    })
}

impl Terms {
    /// Of the two sides of a peering; none where neither engine nor channel is there to settle with.
    fn draw_pair(rng: &mut Rng, asset: (&'static str, u8), means: Means) -> VecDeque<Self> {
        let engine_scale = match means.engines {
            true => engine_scale(rng, asset),
            false => None,
        };
        let channels = match means.channels && rng.percent(60) {
            true => Some(channel_terms(rng, asset.1)),
            false => None,
        };
        if engine_scale.is_none() && channels.is_none() {
            return VecDeque::new();
        }
        let terms = |side: usize| {
            let mut terms = Self::draw(rng, asset.1);
            // Two that pay ahead at the same times go on doing so, and never come to rest.
            if channels.is_some() && terms.every_s.is_some() {
                terms.settle_to = terms.settle_to.max(0);
            }
            terms.channel = channels.and_then(|channels| channels[side]);
            terms.speaks = channels.is_some();
            terms.engine_scale = engine_scale;
            terms
        };
        [0, 1].map(terms).into()
    }

    fn draw(rng: &mut Rng, scale: u8) -> Self {
        let unit = 10_i128.pow(scale.into());
        let threshold = rng.pick(&[None, Some(unit / 1_000), Some(unit / 10), Some(unit)]);
        // What accounts owe at most is never less than a unit.
        let settle_to = rng.pick(&[0, 0, -unit / 2, threshold.unwrap_or(0) / 2]);
        Self {
            threshold,
            settle_to,
            every_s: rng.pick(&[None, Some(1), Some(3)]),
            amount_min: rng.pick(&[0, 1, 10_u64.pow(scale.into()) / 100]),
            engine_scale: None,
            channel: None,
            speaks: false,
        }
    }

    fn settings(&self) -> SettlementTerms {
        SettlementTerms {
            engine_url: self
                .engine_scale
                .map(|_| "http://engine.example".to_owned()),
            threshold: self.threshold,
            settle_to: self.settle_to,
            every_s: self.every_s,
            amount_min: self.amount_min,
            channel: self.channel,
            engine_channels: false,
            accounting_url: None,
        }
    }
}

impl NodePlan {
    /// Without accounts, and with nothing that takes from packets or refuses them.
    pub(crate) fn plain(name: Name) -> Self {
        Self {
            name,
            accounts: Vec::new(),
            routes: Vec::new(),
            spread: 0,
            is_strict: false,
            unsynced_max: u64::MAX,
            window_ms: WINDOW_MS,
            rate_percent: RATE_PERCENT,
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("g.{}", self.name)
    }

    /// The plan of an account by its number.
    pub(crate) fn account(&self, id: AccountId) -> &AccountPlan {
        &self.accounts[id.0 as usize - 1]
    }

    /// An account's number by its name.
    pub(crate) fn id(&self, name: &str) -> AccountId {
        let index = self
            .accounts
            .iter()
            .position(|account| &*account.name == name);
        let index = index.expect("names in plans are those of their accounts");
        AccountId(u32::try_from(index + 1).expect("few accounts"))
    }

    pub(crate) fn is_local(&self, id: AccountId) -> bool {
        id != AccountId::NODE && self.account(id).relation == Relation::Local
    }

    /// What `amount` becomes between two accounts at the present rate.
    pub(crate) fn converted(&self, from: AccountId, to: AccountId, amount: u64) -> Option<u64> {
        self.converted_at(self.rate_percent, from, to, amount)
    }

    /// What it becomes at a rate, by school arithmetic. `None`: more than 64 bits.
    pub(crate) fn converted_at(
        &self,
        rate_percent: u64,
        from: AccountId,
        to: AccountId,
        amount: u64,
    ) -> Option<u64> {
        let (from, to) = (self.account(from), self.account(to));
        let ten = |scale: u8| 10_u128.pow(scale.into());
        let (up, down) = match (from.code, to.code) {
            ("USD", "EUR") => (u128::from(rate_percent), 100),
            ("EUR", "USD") => (100, u128::from(rate_percent)),
            _ => (1, 1),
        };
        // Same assets have no rate of their own; the spread is taken all the same.
        let up = up * u128::from(1_000 - self.spread) * ten(to.scale);
        let down = down * 1_000 * ten(from.scale);
        // At most 64 bits times 100 * 1000 * 10^9.
        u64::try_from(u128::from(amount) * up / down).ok()
    }

    pub(crate) fn settings(&self, mutant: Option<Mutant>) -> Settings {
        let cap = match mutant {
            Some(Mutant::CapLifted) => u64::MAX,
            _ => self.unsynced_max,
        };
        let assets = self.accounts.iter().map(|account| (account.asset(), cap));
        Settings {
            min_message_window_ms: self.window_ms,
            max_hold_ms: HOLD_MS_MAX,
            spread: format!("0.{:03}", self.spread)
                .parse()
                .expect("a decimal number"),
            strict: self.is_strict,
            unsynced_max: assets.collect::<BTreeMap<_, _>>(),
            ..Settings::new(self.address().parse().expect("an address"))
        }
    }
}

impl AccountPlan {
    pub(crate) fn draw(
        rng: &mut Rng,
        name: Name,
        relation: Relation,
        (code, scale): (&'static str, u8),
    ) -> Self {
        let mut plan = Self {
            name,
            relation,
            code,
            scale,
            address: None,
            balance_min: 0,
            in_flight_count_max: 0,
            unsynced_max: 0,
            is_paused: false,
            http: None,
            tells_routes: false,
            terms: None,
        };
        plan.draw_limits(rng);
        plan
    }

    pub(crate) fn draw_limits(&mut self, rng: &mut Rng) {
        let unit = 10_u64.pow(self.scale.into());
        self.balance_min = -i128::from(unit * rng.pick(&[1, 10, 1_000]));
        self.in_flight_count_max = rng.pick(&[5, 50, 1_000]);
        self.unsynced_max = unit * rng.pick(&[1, 5, 100]);
    }

    pub(crate) fn asset(&self) -> Asset {
        Asset::new(self.code, self.scale).expect("codes of plans are good")
    }

    pub(crate) fn settings(&self, mutant: Option<Mutant>) -> AccountSettings {
        let is = |other| mutant == Some(other);
        let address = self.address.as_ref();
        AccountSettings {
            name: self.name.to_string(),
            incoming_tokens: Vec::new(),
            terms: AccountTerms {
                ilp_address: address.map(|address| address.parse().expect("an address")),
                limits: Limits {
                    balance_min: self.balance_min - i128::from(is(Mutant::LimitOffByOne)),
                    in_flight_count_max: Some(self.in_flight_count_max),
                    unsynced_amount_max: (!is(Mutant::CapLifted)).then_some(self.unsynced_max),
                    ..Limits::default()
                },
                // What is in it is for sockets, which there are none of.
                http: self.http.map(|_| HttpLink {
                    jwt: None,
                    callback: false,
                    url: "http://peer.example".to_owned(),
                    token: Some(SealedSecret(String::new())),
                    tls_pins: Vec::new(),
                }),
                paused: self.is_paused,
                routes: RouteExchange {
                    send: self.tells_routes.then_some(true),
                    receive: self.tells_routes.then_some(true),
                    ..RouteExchange::default()
                },
                settlement: self.terms.as_ref().map(Terms::settings).unwrap_or_default(),
                ..AccountTerms::new(self.relation, self.asset())
            }
            .into(),
        }
    }
}
