//! The network of a run: who is connected to whom, in which asset, within which limits.
//!
//! ```text
//!   carol ── alice ══ hub ══ bob ── shop        ══ between nodes, dialled by the left or right one
//!              │       │      │
//!            local  mallory  local              carol, shop: honest; mallory: anything but
//! ```

use std::collections::BTreeMap;

use rialto_connector::Settings;
use rialto_ledger::{AccountId, AccountSettings, Limits, Rate, Relation};
use rialto_packet::money::Asset;

use crate::{mutant::Mutant, rng::Rng};

/// Kept of each packet's life, as the node's default is. Milliseconds.
pub(crate) const WINDOW_MS: i64 = 1_000;
/// Longest time a packet stays out. Milliseconds.
pub(crate) const HOLD_MS_MAX: i64 = 30_000;
/// One dollar in euros, as numerator and denominator.
const RATE: (u128, u128) = (92, 100);

/// Indices of the nodes.
pub(crate) const ALICE: usize = 0;
pub(crate) const HUB: usize = 1;
pub(crate) const BOB: usize = 2;
/// Names of the nodes; their addresses are `g.` and the name.
pub(crate) const NODES: [&str; 3] = ["alice", "hub", "bob"];

/// Who opens a connection to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dialler {
    pub(crate) client: Party,
    /// The account of the server, on a client that is a node.
    pub(crate) account: &'static str,
    /// The node that is dialled.
    pub(crate) server: usize,
    /// The name under which the client is known there.
    pub(crate) username: &'static str,
}

/// An end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    /// One of [`NODES`].
    Node(usize),
    /// One of [`EDGES`].
    Edge(usize),
}

/// Every connection that is kept up.
pub(crate) const DIALLERS: [Dialler; 5] = [
    Dialler {
        client: Party::Node(ALICE),
        account: "hub",
        server: HUB,
        username: "alice",
    },
    Dialler {
        client: Party::Node(BOB),
        account: "hub",
        server: HUB,
        username: "bob",
    },
    Dialler {
        client: Party::Edge(0),
        account: "",
        server: ALICE,
        username: "carol",
    },
    Dialler {
        client: Party::Edge(1),
        account: "",
        server: HUB,
        username: "mallory",
    },
    Dialler {
        client: Party::Edge(2),
        account: "",
        server: BOB,
        username: "shop",
    },
];

/// A scripted neighbour at the edge of the network.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) address: &'static str,
    /// Of its amounts.
    pub(crate) digits_max: u32,
    /// Answers truthfully and in time.
    pub(crate) is_honest: bool,
}

/// All scripted neighbours.
pub(crate) const EDGES: [Edge; 3] = [
    Edge {
        address: "g.alice.carol",
        digits_max: 10,
        is_honest: true,
    },
    Edge {
        address: "g.hub.mallory",
        digits_max: 7,
        is_honest: false,
    },
    Edge {
        address: "g.bob.shop",
        digits_max: 5,
        is_honest: true,
    },
];

/// What the checkers know of an account. What the node is told is made from it.
#[derive(Debug, Clone)]
pub(crate) struct AccountPlan {
    pub(crate) name: &'static str,
    pub(crate) relation: Relation,
    pub(crate) code: &'static str,
    pub(crate) scale: u8,
    pub(crate) address: Option<&'static str>,
    pub(crate) balance_min: i128,
    pub(crate) in_flight_count_max: u32,
    pub(crate) unsynced_max: u64,
}

/// One node.
#[derive(Debug, Clone)]
pub(crate) struct NodePlan {
    /// By number of the account, less one.
    pub(crate) accounts: Vec<AccountPlan>,
    /// Prefix and account.
    pub(crate) routes: Vec<(&'static str, &'static str)>,
    /// Thousandths that the node keeps of each conversion.
    pub(crate) spread: u64,
    pub(crate) strict: bool,
    /// Cap over all accounts of an asset, the same number for each.
    pub(crate) unsynced_max: u64,
}

impl NodePlan {
    /// The plan of an account by its number.
    pub(crate) fn account(&self, id: AccountId) -> &AccountPlan {
        &self.accounts[id.0 as usize - 1]
    }

    /// An account's number by its name.
    pub(crate) fn id(&self, name: &str) -> AccountId {
        let index = self
            .accounts
            .iter()
            .position(|account| account.name == name);
        let index = index.expect("names in plans are those of their accounts");
        AccountId(u32::try_from(index + 1).expect("few accounts"))
    }

    pub(crate) fn is_local(&self, id: AccountId) -> bool {
        id != AccountId::NODE && self.account(id).relation == Relation::Local
    }

    /// What `amount` becomes between two accounts, by school arithmetic. `None`: more than 64 bits.
    pub(crate) fn converted(&self, from: AccountId, to: AccountId, amount: u64) -> Option<u64> {
        let (from, to) = (self.account(from), self.account(to));
        let ten = |scale: u8| 10_u128.pow(scale.into());
        let (up, down) = match (from.code, to.code) {
            ("USD", "EUR") => RATE,
            ("EUR", "USD") => (RATE.1, RATE.0),
            _ => (1, 1),
        };
        // Same assets have no rate of their own; the spread is taken all the same.
        let up = up * u128::from(1_000 - self.spread) * ten(to.scale);
        let down = down * 1_000 * ten(from.scale);
        // At most 64 bits times 100 * 1000 * 10^9.
        u64::try_from(u128::from(amount) * up / down).ok()
    }

    pub(crate) fn settings(&self, node: usize, mutant: Option<Mutant>) -> Settings {
        let address = format!("g.{}", NODES[node]);
        let cap = match mutant {
            Some(Mutant::CapLifted) => u64::MAX,
            _ => self.unsynced_max,
        };
        let assets = self.accounts.iter().map(|account| (account.asset(), cap));
        Settings {
            min_message_window_ms: WINDOW_MS,
            max_hold_ms: HOLD_MS_MAX,
            spread: format!("0.{:03}", self.spread)
                .parse()
                .expect("a decimal number"),
            strict: self.strict,
            unsynced_max: assets.collect::<BTreeMap<_, _>>(),
            ..Settings::new(address.parse().expect("an address"))
        }
    }
}

impl AccountPlan {
    pub(crate) fn asset(&self) -> Asset {
        Asset::new(self.code, self.scale).expect("codes of plans are good")
    }

    pub(crate) fn settings(&self, mutant: Option<Mutant>) -> AccountSettings {
        let is = |other| mutant == Some(other);
        AccountSettings {
            name: self.name.to_owned(),
            relation: self.relation,
            asset: self.asset(),
            ilp_address: self
                .address
                .map(|address| address.parse().expect("an address")),
            limits: Limits {
                balance_min: self.balance_min - i128::from(is(Mutant::LimitOffByOne)),
                in_flight_count_max: Some(self.in_flight_count_max),
                unsynced_amount_max: (!is(Mutant::CapLifted)).then_some(self.unsynced_max),
                ..Limits::default()
            },
            spread: None,
            incoming_tokens: Vec::new(),
            http: None,
            btp: None,
            paused: false,
        }
    }
}

/// The rate that every node is told.
pub(crate) fn rate() -> Rate {
    Rate {
        rate: "0.92".to_owned(),
        spread: None,
        valid_until_ms: None,
    }
}

/// Draws limits, spreads and durability.
pub(crate) fn draw(rng: &mut Rng) -> Vec<NodePlan> {
    let mut account = |name, relation, code, scale, address| AccountPlan {
        name,
        relation,
        code,
        scale,
        address,
        balance_min: -i128::from(10_u64.pow(u32::from(scale)) * rng.pick(&[1, 10, 1_000])),
        in_flight_count_max: rng.pick(&[5, 50, 1_000]),
        unsynced_max: 10_u64.pow(u32::from(scale)) * rng.pick(&[1, 5, 100]),
    };
    let (peer, child, local) = (Relation::Peer, Relation::Child, Relation::Local);
    let accounts = [
        vec![
            account("hub", peer, "USD", 9, Some("g.hub")),
            account("carol", child, "USD", 9, None),
            account("local", local, "USD", 9, None),
        ],
        vec![
            account("alice", peer, "USD", 9, Some("g.alice")),
            account("bob", peer, "EUR", 6, Some("g.bob")),
            account("mallory", child, "USD", 6, None),
        ],
        vec![
            account("hub", peer, "EUR", 6, Some("g.hub")),
            account("shop", child, "EUR", 4, None),
            account("local", local, "EUR", 6, None),
        ],
    ];
    let routes = [vec![("g.bob", "hub")], vec![], vec![("g.alice", "hub")]];
    let nodes = accounts.into_iter().zip(routes);
    nodes
        .map(|(accounts, routes)| NodePlan {
            accounts,
            routes,
            spread: rng.pick(&[0, 0, 2]),
            strict: rng.percent(25),
            unsynced_max: rng.pick(&[10_000_000, 3_000_000_000, 1_000_000_000_000]),
        })
        .collect()
}
