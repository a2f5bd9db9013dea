//! Metrics in the Prometheus text format. Labels are account names, assets and reasons: never
//! anything that a stranger can choose.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
};

use axum::{
    extract::State,
    http::{HeaderName, header},
};
use rialto_connector::{AccountStats, Connector, PeerRoutes};
use rialto_ledger::{Account, Relation};
use rialto_packet::money::Asset;

use crate::{
    Api, NodeStatus, Peering, Stage,
    accounts::{peer_state, refused},
    health,
    shapes::Link,
    wall_ms,
};

/// Metrics for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "node",
    responses((status = 200, description = "Text format 0.0.4", body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics(State(api): State<Api>) -> ([(HeaderName, &'static str); 1], String) {
    let peering = api.node.0.peering();
    let mut accounts = SeenAccounts::default();
    let look = |connector: &Connector, account: &Account| {
        accounts.copy(connector, account, peering);
    };
    api.node.each_account(look).await;
    accounts.cut();
    let seen = api.node.read(Seen::copy);
    let text = render(&api.node.0.status(), &seen, &accounts, peering);
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], text)
}

/// Accounts with samples of their own. A scraper takes a few megabytes, not a gigabyte.
const LISTED_MAX: usize = 10_000;

/// The account that the others are added up in; none can be called so.
const OTHERS: &str = "(others)";

/// A counter of each account.
type Counter = (&'static str, &'static str, fn(&AccountStats) -> u128);

const COUNTERS: [Counter; 11] = [
    (
        "rialto_prepares_received_total",
        "Prepares that came from the account.",
        |stats| stats.prepares_in.into(),
    ),
    (
        "rialto_prepares_sent_total",
        "Prepares that were sent to the account.",
        |stats| stats.prepares_out.into(),
    ),
    (
        "rialto_fulfills_sent_total",
        "Fulfills passed back to the account.",
        |stats| stats.fulfills_out.into(),
    ),
    (
        "rialto_units_received_total",
        "Amount of the Fulfills passed back, in units of the account's asset.",
        |stats| stats.amount_in,
    ),
    (
        "rialto_fulfills_received_total",
        "Valid Fulfills that came from the account.",
        |stats| stats.fulfills_in.into(),
    ),
    (
        "rialto_units_sent_total",
        "Amount of the Fulfills that came, in units of the account's asset.",
        |stats| stats.amount_out,
    ),
    (
        "rialto_rejects_sent_total",
        "Rejects passed back to the account.",
        |stats| stats.rejects_out.into(),
    ),
    (
        "rialto_late_fulfills_total",
        "Fulfills that came from the account too late.",
        |stats| stats.late_fulfills.into(),
    ),
    (
        "rialto_late_units_total",
        "Amount of the late Fulfills: what the account's holder lost.",
        |stats| stats.late_amount,
    ),
    (
        "rialto_undelivered_fulfills_total",
        "Fulfills for the account that found its session or request gone.",
        |stats| stats.undelivered_fulfills.into(),
    ),
    (
        "rialto_undelivered_units_total",
        "Amount of the undelivered Fulfills: booked here, and perhaps not in the account's books.",
        |stats| stats.undelivered_amount,
    ),
];

/// A gauge of each account.
type Gauge = (&'static str, &'static str, fn(&Account) -> i128);

const GAUGES: [Gauge; 5] = [
    (
        "rialto_account_balance_units",
        "Positive: we owe the holder. Negative: the holder owes us.",
        |account| account.balance(),
    ),
    (
        "rialto_account_available_units",
        "What the holder may still send.",
        |account| account.available(),
    ),
    (
        "rialto_account_in_flight_units",
        "Amount of packets accepted and not yet answered.",
        |account| crate::balances::signed(account.exposure().in_flight).0,
    ),
    (
        "rialto_account_in_flight_packets",
        "Packets accepted and not yet answered.",
        |account| account.exposure().in_flight_count.into(),
    ),
    (
        "rialto_account_unsynced_units",
        "Amount committed and not yet known to be on disk.",
        |account| crate::balances::signed(account.exposure().unsynced).0,
    ),
];

/// What the text is made of, but for the accounts. The core stands still only while this is copied.
struct Seen {
    positions: Vec<(Asset, i128, i128)>,
    in_flight_count: usize,
    settlements_unended: usize,
    payments_running: usize,
    route_count: usize,
    damped_count: usize,
    rates: Option<SeenRates>,
    addresses_refused: u64,
}

/// Prices from outside.
struct SeenRates {
    taken_total: u64,
    moved_total: u64,
    failed_total: u64,
    age_seconds: i64,
}

/// Accounts with samples of their own are neighbours before customers, and older before younger.
#[derive(Default)]
struct SeenAccounts {
    neighbours: Vec<SeenAccount>,
    customers: Vec<SeenAccount>,
    /// The others, added up: of each asset, as units of different ones do not add up.
    others: BTreeMap<Asset, SeenAccount>,
    others_count: usize,
}

struct SeenAccount {
    name: String,
    asset: Asset,
    scale: String,
    gauges: [i128; GAUGES.len()],
    stats: AccountStats,
    link_up: Option<bool>,
    routes: Option<PeerRoutes>,
    /// How far a neighbour has come, and since when (milliseconds since 1970).
    stage: Option<(Stage, i64)>,
}

impl SeenAccount {
    fn new(name: &str, asset: &Asset) -> Self {
        Self {
            name: name.to_owned(),
            asset: asset.clone(),
            scale: asset.scale().to_string(),
            gauges: [0; GAUGES.len()],
            stats: AccountStats::default(),
            link_up: None,
            routes: None,
            stage: None,
        }
    }

    fn add(&mut self, gauges: [i128; GAUGES.len()], stats: &AccountStats) {
        for (sum, value) in self.gauges.iter_mut().zip(gauges) {
            *sum = sum.saturating_add(value); // what is shown of money, not money
        }
        self.stats.add(stats);
    }

    fn labels_with_asset(&self) -> [(&str, &str); 3] {
        [
            ("account", &self.name),
            ("asset_code", self.asset.code()),
            ("asset_scale", &self.scale),
        ]
    }

    /// An account has one asset, and [`OTHERS`] samples of each.
    fn labels(&self) -> Vec<(&str, &str)> {
        let all = self.labels_with_asset();
        match self.name.as_str() {
            OTHERS => all.to_vec(),
            _ => all[..1].to_vec(),
        }
    }
}

impl SeenAccounts {
    fn copy(&mut self, connector: &Connector, account: &Account, peering: &Peering) {
        let settings = &account.settings;
        let gauges = GAUGES.map(|(_, _, value)| value(account));
        let stats = connector.stats().account(account.id);
        let listed = match settings.relation {
            Relation::Parent | Relation::Peer => &mut self.neighbours,
            Relation::Child | Relation::Local => &mut self.customers,
        };
        if listed.len() == LISTED_MAX {
            self.add(&settings.asset, gauges, stats);
            return;
        }
        let state = peer_state(connector, account, peering);
        listed.push(SeenAccount {
            gauges,
            stats: stats.cloned().unwrap_or_default(),
            link_up: Some(health::link(connector, account.id) != Link::Down),
            routes: connector.peer_routes(account.id),
            stage: state.map(|state| (state.stage, state.since_ms)),
            ..SeenAccount::new(&settings.name, &settings.asset)
        });
    }

    /// Customers for whom neighbours leave no room are others, too.
    fn cut(&mut self) {
        let room = LISTED_MAX - self.neighbours.len();
        for seen in self.customers.split_off(room.min(self.customers.len())) {
            self.add(&seen.asset, seen.gauges, Some(&seen.stats));
        }
    }

    fn add(&mut self, asset: &Asset, gauges: [i128; GAUGES.len()], stats: Option<&AccountStats>) {
        self.others_count += 1;
        let others = self.others.entry(asset.clone());
        let others = others.or_insert_with(|| SeenAccount::new(OTHERS, asset));
        others.add(gauges, stats.unwrap_or(&AccountStats::default()));
    }

    fn listed(&self) -> impl Iterator<Item = &SeenAccount> {
        self.neighbours.iter().chain(&self.customers)
    }

    fn all(&self) -> impl Iterator<Item = &SeenAccount> {
        self.listed().chain(self.others.values())
    }
}

impl Seen {
    fn copy(connector: &Connector) -> Self {
        let ledger = connector.ledger();
        let positions = ledger.positions().zip(ledger.settled());
        Self {
            positions: positions
                .map(|((asset, amount, _), (_, settled))| (asset.clone(), amount, settled))
                .collect(),
            in_flight_count: connector.in_flight_count(),
            settlements_unended: ledger.settlements_unended(),
            payments_running: health::payments_running(connector),
            route_count: connector.route_count(),
            damped_count: connector.damped_count(),
            rates: rates(connector),
            addresses_refused: connector.addresses_refused_total(),
        }
    }
}

fn rates(connector: &Connector) -> Option<SeenRates> {
    let market = connector.market();
    market.settings()?;
    let oldest = market.prices().values().map(|price| price.at).min();
    let age_ms = oldest.map_or(0, |at| wall_ms().saturating_sub(at.unix_ms()).max(0));
    Some(SeenRates {
        taken_total: market.taken_total(),
        moved_total: market.moved_total(),
        failed_total: market.failed_total(),
        age_seconds: age_ms / 1_000,
    })
}

fn render(status: &NodeStatus, seen: &Seen, accounts: &SeenAccounts, peering: &Peering) -> String {
    let mut page = Page::default();
    page.family(
        "rialto_build_info",
        "gauge",
        "Always 1; the label says which version runs.",
    );
    page.sample("rialto_build_info", &[("version", status.version)], 1);
    render_node(&mut page, status, seen);
    let count = accounts.listed().count() + accounts.others_count;
    page.single("rialto_accounts", "gauge", "Accounts.", count);
    page.single(
        "rialto_accounts_added_up",
        "gauge",
        "Those of them that have no samples of their own, but are added up in the account '(others)'.",
        accounts.others_count,
    );

    for (index, (name, help, _)) in GAUGES.iter().enumerate() {
        page.family(name, "gauge", help);
        for account in accounts.all() {
            page.sample(name, &account.labels_with_asset(), account.gauges[index]);
        }
    }
    let name = "rialto_account_link_up";
    page.family(name, "gauge", "Whether packets can be sent to the account.");
    for account in accounts.all() {
        if let Some(up) = account.link_up {
            page.sample(name, &account.labels(), u8::from(up));
        }
    }
    for (name, help, value) in COUNTERS {
        page.family(name, "counter", help);
        for account in accounts.all() {
            page.sample(name, &account.labels(), value(&account.stats));
        }
    }
    let name = "rialto_refused_total";
    page.family(
        name,
        "counter",
        "Packets of the account that were refused here.",
    );
    for account in accounts.all() {
        for (reason, count) in refused(&account.stats) {
            let mut labels = account.labels();
            labels.push(("reason", reason));
            page.sample(name, &labels, count);
        }
    }
    render_routes(&mut page, seen, accounts);
    render_peering(&mut page, peering, accounts);
    page.0
}

/// A number of each peer that routes are exchanged with.
type RouteNumber = (
    &'static str,
    &'static str,
    &'static str,
    fn(&PeerRoutes) -> u64,
);

const ROUTE_NUMBERS: [RouteNumber; 3] = [
    (
        "rialto_routes_learnt",
        "gauge",
        "Routes that were learnt from the account's peer.",
        |peer| peer.learnt_count.into(),
    ),
    (
        "rialto_route_updates_received_total",
        "counter",
        "Route updates that came from the account's peer.",
        |peer| peer.updates_in,
    ),
    (
        "rialto_route_updates_sent_total",
        "counter",
        "Route updates that were sent to the account's peer.",
        |peer| peer.updates_out,
    ),
];

fn render_routes(page: &mut Page, seen: &Seen, accounts: &SeenAccounts) {
    let help = "Prefixes in the table; accounts below the node's own address need none.";
    page.single("rialto_routes", "gauge", help, seen.route_count);
    let help = "Routes that come and go too often and are not used for now.";
    page.single("rialto_routes_damped", "gauge", help, seen.damped_count);
    let peers = || {
        accounts
            .listed()
            .filter_map(|account| Some((account.name.as_str(), account.routes.as_ref()?)))
    };
    for (name, kind, help, value) in ROUTE_NUMBERS {
        page.family(name, kind, help);
        for (account, peer) in peers() {
            page.sample(name, &[("account", account)], value(peer));
        }
    }
    let name = "rialto_route_troubles_total";
    page.family(
        name,
        "counter",
        "What was wrong with routes that the account's peer told.",
    );
    for (account, peer) in peers() {
        for (trouble, count) in &peer.troubles {
            let labels = [("account", account), ("reason", trouble.word())];
            page.sample(name, &labels, *count);
        }
    }
}

fn render_node(page: &mut Page, status: &NodeStatus, seen: &Seen) {
    // Prometheus wants seconds; milliseconds are written as their decimal fraction.
    let uptime = format!(
        "{}.{:03}",
        status.uptime_ms / 1_000,
        status.uptime_ms % 1_000
    );
    page.single("rialto_uptime_seconds", "gauge", "Since the start.", uptime);
    let draining = u8::from(status.draining);
    page.single(
        "rialto_draining",
        "gauge",
        "Whether the node is about to stop.",
        draining,
    );
    let help = "Number of the last journal record handed to the operating system.";
    page.single(
        "rialto_journal_written_lsn",
        "gauge",
        help,
        status.written_lsn,
    );
    let help = "Number of the last journal record known to be on disk.";
    page.single(
        "rialto_journal_synced_lsn",
        "gauge",
        help,
        status.synced_lsn,
    );
    let failed = u8::from(status.journal_failure.is_some());
    let help = "Whether the journal takes no records any more.";
    page.single("rialto_journal_failed", "gauge", help, failed);
    let help = "Connections whose client has not yet authenticated.";
    page.single(
        "rialto_unauthenticated_connections",
        "gauge",
        help,
        status.unauthenticated_connections,
    );
    let help = "Connections that were closed before their client authenticated, to make room.";
    page.single(
        "rialto_displaced_connections_total",
        "counter",
        help,
        status.displaced_connections,
    );
    page.single(
        "rialto_in_flight_packets",
        "gauge",
        "Packets in flight.",
        seen.in_flight_count,
    );
    page.single(
        "rialto_payments_running",
        "gauge",
        "Payments that run.",
        seen.payments_running,
    );

    let position = (
        "rialto_position_units",
        "The node's own position: what it gained by exchange.",
    );
    let settled = (
        "rialto_settled_units",
        "Paid out less what came in by settlements.",
    );
    for (name, help) in [position, settled] {
        page.family(name, "gauge", help);
        for (asset, amount, outside) in &seen.positions {
            let scale = asset.scale().to_string();
            let labels = [
                ("asset_code", asset.code()),
                ("asset_scale", scale.as_str()),
            ];
            let value = if name == settled.0 { outside } else { amount };
            page.sample(name, &labels, value);
        }
    }
    page.single(
        "rialto_addresses_refused_total",
        "counter",
        "Answers of the parent about our address that could not be taken.",
        seen.addresses_refused,
    );
    page.single(
        "rialto_settlements_unended",
        "gauge",
        "Settlements that their engine has not taken yet, or refused.",
        seen.settlements_unended,
    );
    if let Some(rates) = &seen.rates {
        page.single(
            "rialto_rates_taken_total",
            "counter",
            "Tables of prices that were taken from outside.",
            rates.taken_total,
        );
        page.single(
            "rialto_rates_failed_total",
            "counter",
            "Times that the source of prices failed, or sent what cannot be used.",
            rates.failed_total,
        );
        page.single(
            "rialto_rates_moved_total",
            "counter",
            "Prices that moved too far to be taken at once.",
            rates.moved_total,
        );
        page.single(
            "rialto_rates_age_seconds",
            "gauge",
            "Age of the oldest price in force.",
            rates.age_seconds,
        );
    }
    let name = "rialto_unauthenticated_total";
    page.family(
        name,
        "counter",
        "Requests and connections that opened no account.",
    );
    for (reason, count) in &status.unauthenticated {
        page.sample(name, &[("reason", reason.row().word)], count);
    }
    let name = "rialto_callbacks_refused_total";
    page.family(
        name,
        "counter",
        "Requests in callback mode that were refused.",
    );
    for (reason, count) in &status.refused_callbacks {
        page.sample(name, &[("reason", reason)], count);
    }
}

fn render_peering(page: &mut Page, peering: &Peering, accounts: &SeenAccounts) {
    let stages = || {
        accounts
            .listed()
            .filter_map(|account| Some((account.name.as_str(), account.stage?)))
    };
    let name = "rialto_peer_state";
    page.family(name, "gauge", "1 for the state that the neighbour is in.");
    for (account, (stage, _)) in stages() {
        for of in Stage::ALL {
            let labels = [("account", account), ("state", of.word())];
            page.sample(name, &labels, u8::from(of == stage));
        }
    }
    let name = "rialto_peer_state_since_seconds";
    page.family(name, "gauge", "When it came to that state, in Unix time.");
    for (account, (_, since_ms)) in stages() {
        page.sample(name, &[("account", account)], since_ms / 1_000);
    }
    let name = "rialto_invites_refused_total";
    page.family(name, "counter", "Invites that opened no account.");
    for (reason, count) in peering.invites_refused() {
        page.sample(name, &[("reason", reason)], count);
    }
}

/// The text while it is written.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escape(value)))
            .collect();
        let labels = match labels.as_slice() {
            [] => String::new(),
            labels => format!("{{{}}}", labels.join(",")),
        };
        self.line(format_args!("{name}{labels} {value}\n"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.0.write_fmt(line).expect("a String takes every write");
    }
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
