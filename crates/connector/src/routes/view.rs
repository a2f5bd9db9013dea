//! The table as operators see it.

use rialto_ccp::{ListenerState, Mode, TableId, message::hops};
use rialto_ledger::AccountId;
use rialto_packet::{Addr, Timestamp};
use rialto_routing::{Candidate, Candidates, Loss, SHARDS, SmolStr, Source};

use super::{is_named, is_vouched, trouble::RouteTrouble};
use crate::{Connector, Reason};

/// One way to go for a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteView {
    /// What it applies to.
    pub prefix: SmolStr,
    /// Where it came from.
    pub source: Source,
    /// The next hop; `None` is the node itself.
    pub account: Option<AccountId>,
    /// Share of the destinations among static routes.
    pub weight: u16,
    /// Nodes after us, as a peer told them.
    pub path: Vec<String>,
    /// Whether packets take it while all is well.
    pub is_active: bool,
}

/// A change of the best route for a prefix: who packets go to, and where that route comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteChange {
    /// When.
    pub at: Timestamp,
    /// What it applies to.
    pub prefix: SmolStr,
    /// Before; `None` where there was none.
    pub before: Option<(AccountId, Source)>,
    /// After; `None` where there is none any more.
    pub after: Option<(AccountId, Source)>,
}

/// A route that a destination could have taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteExplained {
    /// The route.
    pub route: RouteView,
    /// Why it was not taken; `None` for the one that is.
    pub loss: Option<RouteLoss>,
}

/// Why a route was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteLoss {
    /// Another prefix fits more of the destination.
    Shorter,
    /// Another route for the same prefix is preferred.
    Preferred(Loss),
}

/// What an amount becomes on its way through the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteQuote {
    /// Units of the payee's asset for one of the payer's.
    pub rate: String,
    /// Part that is kept of it.
    pub spread: String,
    /// Part that is kept of all that the payer sends, beside it.
    pub account_spread: Option<String>,
    /// What the payee gets of the amount that was asked about.
    pub amount_out: Option<u64>,
}

/// How routes are exchanged with a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerRoutes {
    /// Where asking for its routes stands.
    pub listening: ListenerState,
    /// Whether a request for them is on its way, or about to be.
    pub is_asking: bool,
    /// Its table as far as it is known.
    pub their_table: (TableId, u32),
    /// Milliseconds until its routes no longer hold, if any were told.
    pub holds_ms: Option<u64>,
    /// Routes that were learnt from it.
    pub learnt_count: u32,
    /// Most that are taken.
    pub learnt_max: u32,
    /// Whether it asked to be told.
    pub speaking: Mode,
    /// Our table as far as it was told.
    pub our_table: (TableId, u32),
    /// Updates that were sent to it.
    pub updates_out: u64,
    /// Routes in those.
    pub routes_out: u64,
    /// Updates that came from it.
    pub updates_in: u64,
    /// When the last one was taken in.
    pub updated_at: Option<Timestamp>,
    /// What was wrong with what it told, and how often.
    pub troubles: Vec<(RouteTrouble, u64)>,
}

impl Connector {
    /// Routes from a place on, at least `limit` of them if there are as many, and where to go on: those in
    /// the table, and then those to accounts that are found by their names. Sorted by prefix; pages follow
    /// each other in no order. With `all` those too that are not taken while all is well.
    pub fn routes_page(
        &self,
        from: usize,
        limit: usize,
        all: bool,
    ) -> (Vec<RouteView>, Option<usize>) {
        let mut views = Vec::new();
        let add = |views: &mut Vec<_>, prefix: &SmolStr, known| {
            let Some(candidates) = self.candidates(prefix, known) else {
                return;
            };
            let alive = candidates.all().iter();
            let alive = alive.filter(|one| is_vouched(&self.routes.vouched, one));
            let of_prefix = alive.map(|one| self.route_view(prefix, &candidates, one));
            views.extend(of_prefix.filter(|view| all || view.is_active));
        };
        let mut next = self.routes.table.next_shard(from.min(SHARDS));
        while next < SHARDS && views.len() < limit {
            for (prefix, candidates) in self.routes.table.shard(next) {
                add(&mut views, prefix, Some(candidates));
            }
            next = self.routes.table.next_shard(next + 1);
        }
        let next = match next {
            SHARDS => {
                let after = u32::try_from(from.saturating_sub(SHARDS)).unwrap_or(u32::MAX);
                let mut accounts = self.ledger.accounts_after(AccountId(after)).peekable();
                let mut last = after;
                while let Some(account) = accounts.next_if(|_| views.len() < limit) {
                    last = account.id.0;
                    let address = is_named(account).then(|| self.address_of(account.id));
                    let address = address.flatten().map(SmolStr::from);
                    // Where there is more to choose from, it came with the table.
                    if let Some(address) = address
                        && self.routes.table.get(&address).is_none()
                    {
                        add(&mut views, &address, None);
                    }
                }
                accounts.peek().map(|_| SHARDS + last as usize)
            }
            next => Some(next),
        };
        views.sort_by(|a, b| a.prefix.cmp(&b.prefix).then(b.is_active.cmp(&a.is_active)));
        (views, next)
    }

    /// Every route that is taken while all is well. Sorted by prefix.
    pub fn routes(&self) -> Vec<RouteView> {
        self.routes_page(0, usize::MAX, false).0
    }

    /// Number of prefixes in the table. Accounts that are found by their names need none.
    pub fn route_count(&self) -> usize {
        self.routes.table.len()
    }

    /// Routes that come and go too often and are not used for now.
    pub fn damped_count(&self) -> usize {
        self.routes.exchange.damped_count()
    }

    /// The last changes of routes, oldest first.
    pub fn route_changes(&self) -> impl DoubleEndedIterator<Item = &RouteChange> {
        self.routes.log.iter()
    }

    /// Every route that a destination could take, the one that it takes first.
    pub fn route_explain(&self, destination: Addr<'_>) -> Vec<RouteExplained> {
        let now_ns = self.routes.now.mono_ns;
        let vouched = |one: &Candidate<AccountId>| is_vouched(&self.routes.vouched, one);
        let mut explained = Vec::new();
        let mut is_taken = false;
        let mut prefix = destination.as_str();
        loop {
            let known = self.routes.table.get(prefix);
            if let Some(candidates) = self.candidates(prefix, known) {
                let spread = self.routes.table.spread(destination.as_str());
                let taken = candidates.choose(spread, vouched, |hop| self.is_well(now_ns, hop));
                let taken = taken.filter(|_| !is_taken);
                for one in candidates.all() {
                    let loss = match taken {
                        Some(taken) if taken == one => None,
                        Some(taken) => {
                            let loss = candidates.loss(one, taken, vouched(one));
                            Some(RouteLoss::Preferred(loss))
                        }
                        None if !vouched(one) => Some(RouteLoss::Preferred(Loss::Gone)),
                        None => Some(RouteLoss::Shorter),
                    };
                    let route = self.route_view(&prefix.into(), &candidates, one);
                    explained.push(RouteExplained { route, loss });
                }
                is_taken |= taken.is_some();
            }
            if prefix.is_empty() {
                break;
            }
            prefix = prefix.rfind('.').map_or("", |dot| &prefix[..dot]);
        }
        explained.sort_by_key(|explained| explained.loss.is_some());
        explained
    }

    /// What an amount from one account becomes for another.
    pub fn route_quote(
        &self,
        payer: AccountId,
        payee: AccountId,
        amount: Option<u64>,
    ) -> Result<RouteQuote, Reason> {
        let now = self.routes.now.wall;
        let parts = self
            .rates
            .explain(now, &self.ledger, &self.market, payer, payee)?;
        let account = self.ledger.account(payer).ok_or(Reason::RateNone)?;
        let convert = |amount| match parts.conversion.round_down(amount) {
            Ok(0) if amount > 0 => Err(Reason::RoundsToZero),
            Ok(amount_out) => Ok(amount_out),
            Err(_) => Err(Reason::Overflow),
        };
        Ok(RouteQuote {
            rate: parts.rate.to_string(),
            spread: parts.spread.to_string(),
            account_spread: account.settings.spread.clone(),
            amount_out: amount.map(convert).transpose()?,
        })
    }

    /// How routes are exchanged with an account; `None` where they are not.
    pub fn peer_routes(&self, id: AccountId) -> Option<PeerRoutes> {
        self.routes.exchange.view(id, self.routes.now.mono_ns)
    }

    fn route_view(
        &self,
        prefix: &SmolStr,
        candidates: &Candidates<AccountId>,
        one: &Candidate<AccountId>,
    ) -> RouteView {
        let best = candidates.best(|one| is_vouched(&self.routes.vouched, one));
        let is_share = |best: &Candidate<AccountId>| {
            best.source == Source::Static && one.source == Source::Static && one.weight > 0
        };
        RouteView {
            prefix: prefix.clone(),
            source: one.source,
            account: (one.hop != AccountId::NODE).then_some(one.hop),
            weight: one.weight,
            path: one
                .path
                .iter()
                .flat_map(|path| hops(path))
                .map(str::to_owned)
                .collect(),
            is_active: best.is_some_and(|best| best == one || is_share(best)),
        }
    }
}
