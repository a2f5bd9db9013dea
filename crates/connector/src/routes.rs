//! Where packets go: the routing table, what is in it and why.
//!
//! | File | What |
//! |---|---|
//! | `routes.rs` | the table, what changes it, which next hop a packet takes |
//! | `routes/exchange.rs` | routes told by peers and told to them (CCP) |
//! | `routes/trouble.rs` | what can be wrong with what a peer tells |
//! | `routes/view.rs` | the table as operators see it |
//!
//! The packet path only ever looks one prefix up. What touches many routes at once (a peer's table, the
//! routes of a peer that is gone) is done in steps of a few dozen, between which packets pass.

mod exchange;
pub(crate) mod trouble;
pub(crate) mod view;

use std::collections::{BTreeMap, VecDeque};

use rialto_ledger::{AccountId, Relation, RouteShare, by_place};
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

/// Accounts whose routes are entered together when all are, part by part of the table: of a large one only a
/// part is in the caches at a time.
const BATCH_ACCOUNTS: usize = 131_072;

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

/// A route that comes of an account's settings.
struct Derived {
    prefix: SmolStr,
    id: AccountId,
    source: Source,
    kin: Kin,
}

/// The routing table and all that changes it.
pub(crate) struct Routes {
    table: Table<Candidates<AccountId>>,
    /// The addresses of accounts, by their numbers, and the node's own under [`AccountId::NODE`].
    addresses: Vec<Option<SmolStr>>,
    /// The schemes that go to parents, of which there are few.
    schemes: BTreeMap<AccountId, SmolStr>,
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
            addresses: Vec::new(),
            schemes: BTreeMap::new(),
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
        let derived = self.note(id, kin, source, new);
        self.enter(derived);
    }

    /// The first half of [`Self::derive`]: what is given from now on is written down, and what is still to
    /// be entered into the table comes back.
    fn note(
        &mut self,
        id: AccountId,
        kin: Kin,
        source: Source,
        new: Option<SmolStr>,
    ) -> Option<Derived> {
        let old = match (source, &new) {
            (Source::Parent, Some(new)) => self.schemes.insert(id, new.clone()),
            (Source::Parent, None) => self.schemes.remove(&id),
            (Source::Own | Source::Account | Source::Static | Source::Learnt, new) => {
                let at = id.0 as usize;
                if self.addresses.len() <= at {
                    self.addresses.resize(at + 1, None);
                }
                std::mem::replace(&mut self.addresses[at], (*new).clone())
            }
        };
        if let Some(old) = old.filter(|old| Some(old) != new.as_ref()) {
            self.withdraw(&old, id, source);
        }
        Some(Derived {
            prefix: new?,
            id,
            source,
            kin,
        })
    }

    /// The second half.
    fn enter(&mut self, derived: impl IntoIterator<Item = Derived>) {
        for one in derived {
            let new = candidate(one.id, one.source, one.kin);
            self.change(&one.prefix, |all| all.put(new));
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
            chosen.map(|one| one.hop)
        };
        let found = routes.table.longest_match(destination, choose);
        found.map(|(_, hop)| hop)
    }

    /// The accounts whose address this is: at most one, but for what a change of our own address made.
    pub(crate) fn addressees(&self, address: &str) -> impl Iterator<Item = AccountId> {
        let candidates = self.routes.table.get(address);
        let all = candidates.map_or(&[][..], Candidates::all).iter();
        all.filter(|one| one.source == Source::Account)
            .map(|one| one.hop)
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
        let before = self.routes.addresses.first().cloned().flatten();
        let is_moved = before.is_some() && before != own;
        self.routes
            .derive(AccountId::NODE, Kin::Child, Source::Own, own);
        if is_moved {
            self.exchange_anew();
        }
        let statics: Vec<_> = self.ledger.routes().keys().cloned().collect();
        let end = self.ledger.next_account().0;
        let count = self.ledger.accounts().count();
        self.routes.table.reserve(count + statics.len());
        let more = (end as usize).saturating_sub(self.routes.addresses.len());
        self.routes.addresses.reserve_exact(more);
        for first in (1..end).step_by(BATCH_ACCOUNTS) {
            let mut derived = Vec::new();
            for id in (first..end).take(BATCH_ACCOUNTS).map(AccountId) {
                if self.ledger.account(id).is_some() {
                    derived.extend(self.note_account(id).into_iter().flatten());
                    self.exchange_account(id);
                }
            }
            let table = &self.routes.table;
            let shard_of = |one: &Derived| table.shard_of(&one.prefix) as u64;
            self.routes
                .enter(by_place(derived, SHARDS as u64, shard_of));
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
        let derived = self.note_account(id);
        self.routes.enter(derived.into_iter().flatten());
        self.exchange_account(id);
    }

    /// What an account gives, still to be entered into the table.
    fn note_account(&mut self, id: AccountId) -> [Option<Derived>; 2] {
        let account = self.ledger.account(id);
        let relation = account.map(|account| account.settings.relation);
        if relation.is_none() {
            self.routes.health.remove(&id);
        }
        let kin_of = relation.map_or(Kin::Peer, kin);
        let address = self.address_of(id).map(SmolStr::from);
        let own = self.address();
        let own = own.filter(|_| relation == Some(Relation::Parent));
        let scheme = own.map(|own| own.as_ref().scheme().into());
        [(Source::Account, address), (Source::Parent, scheme)]
            .map(|(source, new)| self.routes.note(id, kin_of, source, new))
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
