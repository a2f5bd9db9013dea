//! Where packets go: the routing table, what is in it and why.
//!
//! | File | What |
//! |---|---|
//! | `routes.rs` | the table, what changes it, which next hop a packet takes |
//! | `routes/exchange.rs` | routes told by peers and told to them (CCP) |
//! | `routes/trouble.rs` | what can be wrong with what a peer tells |
//! | `routes/view.rs` | the table as operators see it |
//!
//! An account below our own address is no prefix of the table: its name in the address says who it is, and the
//! books find it by that. So a million customers need neither memory here nor time when the node starts.
//!
//! The packet path only ever looks one address up. What touches many routes at once (a peer's table, the
//! routes of a peer that is gone) is done in steps of a few dozen, between which packets pass.

mod exchange;
pub(crate) mod trouble;
pub(crate) mod view;

use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
};

use rialto_ledger::{Account, AccountId, Relation, RouteShare};
use rialto_packet::{Addr, Prefix, Timestamp};
use rialto_routing::{Candidate, Candidates, Health, Kin, SHARDS, SmolStr, Source, Table};
use rustc_hash::FxHashMap;

use crate::{Connector, io::Now};
use exchange::Exchange;
pub(crate) use exchange::RouteRequest;
use view::RouteChange;

/// Changes of routes that are kept for operators.
const LOG_MAX: usize = 1_000;

/// Changes that wait for slow peers; one that falls further behind is told the whole table again.
const CHANGES_MAX: usize = 16_384;

/// Changes that are let go at once.
const TRIM_MAX: usize = 256;

/// Prefixes whose routes change in one step: what bounds how long packets wait meanwhile. A change takes
/// about a microsecond when the table is large and nothing of it is in the caches.
const STEP_ROUTES: usize = 16;

/// Room for the dead routes of one part of the table, which holds some 120 of a million: a kilobyte or more. The
/// allocator puts small pieces that were freed aside, and joins them with their neighbours when the next piece of
/// that size is asked for: those of the step before if each step asks, and 25 milliseconds' worth after a million
/// routes if none does.
const SWEPT_ROOM: usize = 256;

/// What changed, for peers that are told, in order.
#[derive(Debug, Default)]
struct Changes {
    /// The number of the first one that is still here.
    floor: u64,
    prefixes: VecDeque<SmolStr>,
    /// Whether anybody is told.
    is_wanted: bool,
    /// Something was added since this was last looked at.
    is_new: bool,
}

impl Changes {
    fn next(&self) -> u64 {
        self.floor + self.prefixes.len() as u64
    }

    fn push(&mut self, prefix: &SmolStr) {
        if !self.is_wanted && self.prefixes.is_empty() {
            self.floor += 1;
            return;
        }
        if self.prefixes.capacity() == 0 {
            self.prefixes.reserve_exact(CHANGES_MAX); // it never moves while packets wait
        }
        if self.prefixes.len() >= CHANGES_MAX {
            self.prefixes.pop_front();
            self.floor += 1;
        }
        self.prefixes.push_back(prefix.clone());
        self.is_new = true;
    }

    fn get(&self, number: u64) -> Option<&SmolStr> {
        let index = usize::try_from(number.checked_sub(self.floor)?).ok()?;
        self.prefixes.get(index)
    }

    /// Those before `floor` were told to everybody.
    fn trim(&mut self, floor: u64) {
        let count = usize::try_from(floor.saturating_sub(self.floor)).unwrap_or(usize::MAX);
        let count = count.min(self.prefixes.len()).min(TRIM_MAX);
        self.prefixes.drain(..count);
        self.floor += count as u64;
    }
}

/// The routing table and all that changes it.
pub(crate) struct Routes {
    table: Table<Candidates<AccountId>>,
    /// What is in the table because of an account's settings, and our own address under [`AccountId::NODE`].
    derived: BTreeMap<(AccountId, Source), SmolStr>,
    /// For each peer that routes were learnt from: the oldest state of its table that it vouches for.
    vouched: FxHashMap<AccountId, u32>,
    health: FxHashMap<AccountId, Health>,
    changes: Changes,
    /// Newest last.
    log: VecDeque<RouteChange>,
    /// The part that is looked through next for routes that nobody vouches for.
    sweep: Option<usize>,
    /// More such routes came up while it was under way.
    sweep_again: bool,
    exchange: Exchange,
    /// Now, as of the last input.
    now: Now,
}

fn is_vouched(vouched: &FxHashMap<AccountId, u32>, one: &Candidate<AccountId>) -> bool {
    one.source != Source::Learnt
        || vouched
            .get(&one.hop)
            .is_some_and(|oldest| one.table >= *oldest)
}

pub(crate) fn kin(relation: Relation) -> Kin {
    match relation {
        Relation::Child | Relation::Local => Kin::Child,
        Relation::Peer => Kin::Peer,
        Relation::Parent => Kin::Parent,
    }
}

impl Routes {
    pub(crate) fn new(key: [u64; 2]) -> Self {
        Self {
            table: Table::new(key),
            derived: BTreeMap::new(),
            vouched: FxHashMap::default(),
            health: FxHashMap::default(),
            changes: Changes::default(),
            log: VecDeque::new(),
            sweep: None,
            sweep_again: false,
            exchange: Exchange::default(),
            now: Now {
                mono_ns: 0,
                wall: Timestamp::MIN,
            },
        }
    }

    /// When the present input came.
    pub(crate) fn now(&self) -> Now {
        self.now
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.now.mono_ns
    }

    pub(crate) fn tick(&mut self, now: Now) {
        self.now = now;
    }

    /// Changes the routes of one prefix. Whoever is told routes is told, when another one is best now.
    fn change(
        &mut self,
        prefix: &SmolStr,
        change: impl FnOnce(&mut Candidates<AccountId>) -> bool,
    ) {
        let candidates = self.table.put(prefix, Candidates::default);
        // One that nobody vouches for any more may stand first, until the sweep comes by.
        let before = candidates.all().first().cloned();
        if change(candidates) {
            let after = candidates
                .best(|one| is_vouched(&self.vouched, one))
                .cloned();
            let is_empty = candidates.is_empty();
            if is_empty {
                self.table.remove(prefix);
            }
            self.changed(prefix, before.as_ref(), after.as_ref());
        } else if candidates.is_empty() {
            self.table.remove(prefix);
        }
    }

    fn changed(
        &mut self,
        prefix: &SmolStr,
        before: Option<&Candidate<AccountId>>,
        after: Option<&Candidate<AccountId>>,
    ) {
        if before == after {
            return;
        }
        self.changes.push(prefix);
        let hop = |one: &Candidate<AccountId>| (one.hop, one.source);
        let (before, after) = (before.map(hop), after.map(hop));
        if before != after {
            if self.log.len() >= LOG_MAX {
                self.log.pop_front();
            }
            self.log.push_back(RouteChange {
                at: self.now.wall,
                prefix: prefix.clone(),
                before,
                after,
            });
        }
    }

    /// Takes a route out, if it is there.
    fn withdraw(&mut self, prefix: &SmolStr, hop: AccountId, source: Source) {
        if self.table.get(prefix).is_some() {
            self.change(prefix, |all| {
                all.retain(|one| one.hop != hop || one.source != source)
            });
        }
    }

    /// The next hops that the operator set for a prefix, each with what it is to us.
    pub(crate) fn set_static(&mut self, prefix: &Prefix, hops: &[(RouteShare, Kin)]) {
        let is_kept = |one: &Candidate<AccountId>| {
            one.source != Source::Static || hops.iter().any(|(share, _)| share.account == one.hop)
        };
        self.change(&prefix.as_str().into(), |all| {
            let mut is_changed = all.retain(is_kept);
            for (share, kin) in hops {
                is_changed |= all.put(Candidate {
                    weight: share.weight,
                    ..candidate(share.account, Source::Static, *kin)
                });
            }
            is_changed
        });
    }

    /// What an account's settings give; what they gave before and no longer do is taken out.
    fn derive(&mut self, id: AccountId, kin: Kin, source: Source, new: Option<SmolStr>) {
        let old = match &new {
            Some(new) => self.derived.insert((id, source), new.clone()),
            None => self.derived.remove(&(id, source)),
        };
        if let Some(old) = old.filter(|old| Some(old) != new.as_ref()) {
            self.withdraw(&old, id, source);
        }
        if let Some(prefix) = new {
            self.change(&prefix, |all| all.put(candidate(id, source, kin)));
        }
    }

    /// Routes that nobody vouches for any more have to be looked for.
    fn start_sweep(&mut self) {
        self.sweep_again = self.sweep.is_some();
        self.sweep.get_or_insert(0);
    }

    /// Looks through a part or a few of the table for routes that nobody vouches for any more, and takes
    /// a few of them out.
    fn sweep(&mut self) {
        let Some(from) = self.sweep else { return };
        let mut visited = 0;
        let mut dead = Vec::with_capacity(SWEPT_ROOM);
        let first = self.table.next_shard(from);
        let mut next = first;
        while next < SHARDS && visited < STEP_ROUTES {
            for (prefix, candidates) in self.table.shard(next) {
                visited += 1;
                let all = candidates.all();
                if !all.iter().all(|one| is_vouched(&self.vouched, one)) {
                    dead.push(prefix);
                }
            }
            if dead.len() > STEP_ROUTES {
                next = first; // the rest is for the steps that follow
                break;
            }
            next = self.table.next_shard(next + 1);
        }
        if dead.len() > STEP_ROUTES {
            dead.select_nth_unstable(STEP_ROUTES);
            dead.truncate(STEP_ROUTES);
        }
        let mut dead: Vec<_> = dead.into_iter().cloned().collect();
        // In the order of their names, not of the table: the same on every run.
        dead.sort_unstable();
        for prefix in dead {
            let vouched = std::mem::take(&mut self.vouched);
            if let Some(candidates) = self.table.get_mut(&prefix) {
                let before = candidates.all().first().cloned();
                candidates.retain(|one| is_vouched(&vouched, one));
                let after = candidates.all().first().cloned();
                if candidates.is_empty() {
                    self.table.remove(&prefix);
                }
                self.changed(&prefix, before.as_ref(), after.as_ref());
            }
            self.vouched = vouched;
        }
        self.sweep = (next < SHARDS).then_some(next);
        if self.sweep.is_none() && std::mem::take(&mut self.sweep_again) {
            self.sweep = Some(0);
        }
    }
}

/// Whether the address of an account is its name, below our own.
fn is_named(account: &Account) -> bool {
    let settings = &account.settings;
    settings.ilp_address.is_none() && matches!(settings.relation, Relation::Child | Relation::Local)
}

fn candidate(hop: AccountId, source: Source, kin: Kin) -> Candidate<AccountId> {
    Candidate {
        hop,
        table: 0,
        source,
        kin,
        hop_count: 0,
        weight: 1,
        path: None,
    }
}

impl Connector {
    /// Where a packet goes. [`AccountId::NODE`] is the node itself.
    pub(crate) fn choose_hop(&self, now_ns: u64, destination: Addr<'_>) -> Option<AccountId> {
        let routes = &self.routes;
        let choose = |candidates: &Candidates<AccountId>| {
            let spread = match candidates.all().len() {
                0 | 1 => 0,
                _ => routes.table.spread(destination.as_str()),
            };
            let chosen = candidates.choose(
                spread,
                |one| is_vouched(&routes.vouched, one),
                |hop| self.is_well(now_ns, hop),
            );
            chosen.map(|one| Reverse((one.source, one.kin, one.hop)))
        };
        let found = routes.table.longest_match(destination, choose);
        let found = found.map(|(prefix, one)| (prefix.len(), one));
        let named = self.named(destination.as_str());
        let named = named.map(|(len, account)| {
            let kin = kin(account.settings.relation);
            (len, Reverse((Source::Account, kin, account.id)))
        });
        // The longest fits best; of two for one prefix, the one that `Candidates` would prefer.
        found.max(named).map(|(_, Reverse((_, _, hop)))| hop)
    }

    /// The account that an address names below our own, and how long the address of that is.
    fn named(&self, address: &str) -> Option<(usize, &Account)> {
        let own = self.address()?.as_str();
        let below = address.strip_prefix(own)?.strip_prefix('.')?;
        let name = below.split('.').next()?;
        let account = self.ledger.account_by_name(name)?;
        is_named(account).then_some((own.len() + 1 + name.len(), account))
    }

    /// All routes for exactly this prefix; `known` are those in the table.
    fn candidates<'a>(
        &self,
        prefix: &str,
        known: Option<&'a Candidates<AccountId>>,
    ) -> Option<Cow<'a, Candidates<AccountId>>> {
        let named = self.named(prefix).filter(|(len, _)| *len == prefix.len());
        let Some((_, account)) = named else {
            return known.map(Cow::Borrowed);
        };
        let mut all = known.cloned().unwrap_or_default();
        let kin = kin(account.settings.relation);
        all.put(candidate(account.id, Source::Account, kin));
        Some(Cow::Owned(all))
    }

    /// The accounts whose address this is: at most one, but for what a change of our own address made.
    pub(crate) fn addressees(&self, address: &str) -> impl Iterator<Item = AccountId> {
        let all = self.candidates(address, self.routes.table.get(address));
        let all = all.map(|all| all.all().to_vec()).unwrap_or_default();
        let accounts = all.into_iter().filter(|one| one.source == Source::Account);
        accounts.map(|one| one.hop)
    }

    /// Whether packets should be sent to an account, where there is another way.
    fn is_well(&self, now_ns: u64, id: AccountId) -> bool {
        let is_paused = |id| {
            let account = self.ledger.account(id);
            account.is_none_or(|account| account.settings.paused)
        };
        let health = self.routes.health.get(&id);
        health.is_none_or(|health| health.is_well(now_ns))
            && (id == AccountId::NODE || (self.link_of(id).is_some() && !is_paused(id)))
    }

    /// A packet could not be delivered to the account, or was not answered in time.
    pub(crate) fn hop_failed(&mut self, now_ns: u64, id: AccountId) {
        if self.ledger.account(id).is_some() {
            self.routes.health.entry(id).or_default().failed(now_ns);
        }
    }

    /// The account answered a packet.
    pub(crate) fn hop_answered(&mut self, id: AccountId) {
        if !self.routes.health.is_empty()
            && let Some(health) = self.routes.health.get_mut(&id)
        {
            health.answered();
        }
    }

    /// All routes that are not learnt, after a recovery or when our own address changed.
    pub(crate) fn rebuild_routes(&mut self) {
        let own = self.address().cloned().map(SmolStr::from);
        let before = self.routes.derived.get(&(AccountId::NODE, Source::Own));
        let is_moved = before.is_some() && before != own.as_ref();
        self.routes
            .derive(AccountId::NODE, Kin::Child, Source::Own, own);
        if is_moved {
            self.exchange_anew();
        }
        let ids: Vec<_> = self.ledger.accounts().map(|account| account.id).collect();
        let statics: Vec<_> = self.ledger.routes().keys().cloned().collect();
        self.routes.table.reserve(statics.len());
        for id in ids {
            self.derive_account(id);
        }
        for prefix in statics {
            self.derive_static(&prefix);
        }
    }

    /// What the books say of a static route.
    pub(crate) fn derive_static(&mut self, prefix: &Prefix) {
        let hops = self.ledger.routes().get(prefix);
        let hops = hops.map(|route| route.hops()).unwrap_or_default();
        let with_kin = |share: RouteShare| {
            let account = self.ledger.account(share.account)?;
            Some((share, kin(account.settings.relation)))
        };
        let hops: Vec<_> = hops.into_iter().filter_map(with_kin).collect();
        self.routes.set_static(prefix, &hops);
    }

    /// An account was made, changed or deleted.
    pub(crate) fn derive_account(&mut self, id: AccountId) {
        let account = self.ledger.account(id);
        let relation = account.map(|account| account.settings.relation);
        if relation.is_none() {
            self.routes.health.remove(&id);
        }
        let kin_of = relation.map_or(Kin::Peer, kin);
        let address = account.and_then(|account| account.settings.ilp_address.clone());
        let own = self.address();
        let own = own.filter(|_| relation == Some(Relation::Parent));
        let scheme = own.map(|own| own.as_ref().scheme().into());
        for (source, new) in [
            (Source::Account, address.map(SmolStr::from)),
            (Source::Parent, scheme),
        ] {
            self.routes.derive(id, kin_of, source, new);
        }
        self.exchange_account(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Routes of one part of the table, which is not to be emptied in one go.
    #[test]
    fn a_full_part_is_swept_in_steps() {
        const COUNT: usize = 2 * STEP_ROUTES + 8;
        let mut routes = Routes::new([1, 2]);
        let (gone, stays) = (AccountId(1), AccountId(2));
        for hop in [gone, stays] {
            routes.vouched.insert(hop, 0);
        }
        let part = routes.table.shard_of("g.n0");
        let names = (0..).map(|number| SmolStr::from(format!("g.n{number}")));
        let of_part = names.filter(|name| routes.table.shard_of(name) == part);
        let names: Vec<_> = of_part.take(COUNT).collect();
        for (number, name) in names.iter().enumerate() {
            let hop = if number % 5 == 0 { stays } else { gone };
            routes.change(name, |all| {
                all.put(candidate(hop, Source::Learnt, Kin::Peer))
            });
        }
        routes.vouched.remove(&gone);
        routes.start_sweep();
        let mut taken = Vec::new();
        while routes.sweep.is_some() {
            let before = routes.table.len();
            routes.sweep();
            taken.push(before - routes.table.len());
        }
        assert_eq!(taken, [STEP_ROUTES, COUNT / 5 * 4 - STEP_ROUTES]);
        assert_eq!(routes.table.len(), COUNT / 5);
    }
}
