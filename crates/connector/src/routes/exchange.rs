//! Routes told by peers, and told to them.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use rand_core::Rng;
use rialto_ccp::{
    CONTROL_DESTINATION, HOLD_DOWN_MS, Listener, MESSAGE_EXPIRY_MS, Mode, Reply as CcpReply, Route,
    RouteControl, Speaker, TableId, UPDATE_DESTINATION, Unchecked, Update, UpdateBuilder,
    UpdateHead, Verdict, answer_deadline_ns,
    message::{AUTH_BYTES, Cursor, List, UPDATE_BYTES_MAX, hops},
};
use rialto_ledger::{AccountId, ROUTES_MAX, Relation};
use rialto_packet::{
    Addr, Address, ErrorCode, FulfillBuilder, PEER_CONDITION, PEER_FULFILLMENT, Prefix, Prepare,
    PrepareBuilder, Reply, Timestamp, address::ADDRESS_BYTES_MAX,
};
use rialto_routing::{Candidate, Candidates, Damping, Kin, SHARDS, SmolStr, Source};

use super::{
    Routes, STEP_ROUTES, candidate, is_vouched, kin, trouble::RouteTrouble, view::PeerRoutes,
};
use crate::{
    Connector,
    forward::Source as From,
    io::{Action, Durable, Effects, Event, LinkId, RequestId},
    pending::OwnRequest,
    refusal::{Reason, Refusal},
};

/// Changes, or routes of the table, that are looked at for one update.
const STEP_CHANGES: usize = 128;

/// Bytes of an update that are checked in one step, some fifty routes: an update of hundreds held packets up for
/// longer than all else that is done about routes.
const STEP_BYTES: usize = 4_096;

/// Updates of one peer that wait to be taken in.
const QUEUE_MAX: usize = 4;

/// Most nodes on the path of a learnt route.
const PATH_MAX: usize = 64;

/// Most segments of a learnt prefix.
const SEGMENTS_MAX: usize = 32;

/// Shortest time between two lines about the same trouble with the same peer.
const TROUBLE_PAUSE_NS: u64 = 60_000_000_000;

/// A message about routes to a peer that was not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RouteRequest {
    /// Asks the account's peer for its routes.
    Control(AccountId),
    /// Tells the account's peer ours.
    Update(AccountId),
}

/// How far a peer was told: all parts before `shard`, of that one all prefixes up to `after`, and all
/// changes before `change`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    shard: usize,
    after: Option<SmolStr>,
    change: u64,
}

impl Position {
    /// Whether a prefix, which is in this part, comes only after this position.
    fn is_before(&self, shard: usize, prefix: &SmolStr) -> bool {
        let is_after = || self.after.as_ref().is_none_or(|after| prefix > after);
        shard > self.shard || (shard == self.shard && is_after())
    }
}

/// An update that waits to be taken in, or is being checked. What a bad one says counts for nothing, so all of it
/// is checked before any of it is taken in.
#[derive(Debug)]
struct Waiting {
    from: From,
    update: Unchecked<Bytes>,
}

/// An update that is being taken in.
#[derive(Debug)]
struct Telling {
    from: From,
    update: Update<Bytes>,
    withdrawn: Cursor,
    routes: Cursor,
    /// Nothing of the peer's table is missing after it.
    is_complete: bool,
}

impl Telling {
    /// Routes and withdrawals that are still to be taken in.
    fn left(&self) -> usize {
        self.routes.left() + self.withdrawn.left()
    }
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    link: LinkId,
    request: RequestId,
    deadline_ns: u64,
}

/// What was learnt of a route, while it is damped.
#[derive(Debug)]
struct Learnt {
    table: u32,
    hop_count: u8,
    path: Arc<[u8]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Trouble {
    count: u64,
    told_at_ns: Option<u64>,
}

#[derive(Debug)]
struct Peer {
    kin: Kin,
    address: Option<Address>,
    /// Where its packets go by HTTP: somebody else may be at another URL.
    http_url: Option<String>,
    prefixes: Vec<Prefix>,
    learnt_max: u32,
    is_listening: bool,
    listener: Listener,
    speaker: Speaker<Position>,
    /// Numbers the tables that the peer has had; its routes carry the number.
    table: u32,
    /// Routes of that table.
    learnt_count: u32,
    telling: Option<Telling>,
    /// The first one is being checked, once nothing is being taken in.
    queue: VecDeque<Waiting>,
    /// The path of the route that was taken in last: neighbours in an update often share it.
    last_path: Arc<[u8]>,
    control: Option<Flight>,
    update: Option<Flight>,
    wake_at_ns: Option<u64>,
    updates_in: u64,
    updates_out: u64,
    /// Routes in those.
    routes_out: u64,
    /// When its last update was taken in.
    updated_at: Option<Timestamp>,
    troubles: [Trouble; RouteTrouble::ALL.len()],
}

/// The peers that routes are exchanged with.
#[derive(Default)]
pub(crate) struct Exchange {
    peers: BTreeMap<AccountId, Peer>,
    wake: BTreeSet<(u64, AccountId)>,
    /// Peers with an update to be taken in, whose turn it is first.
    busy: VecDeque<AccountId>,
    damping: Damping<AccountId, Learnt>,
    /// For the shell, which tells the operator.
    events: Vec<Event>,
}

impl Exchange {
    pub(super) fn damped_count(&self) -> usize {
        self.damping.damped_count()
    }

    pub(super) fn view(&self, id: AccountId, now_ns: u64) -> Option<PeerRoutes> {
        let peer = self.peers.get(&id)?;
        let troubles = RouteTrouble::ALL.iter().zip(&peer.troubles);
        let left_ns = |at_ns: u64| at_ns.saturating_sub(now_ns) / 1_000_000;
        Some(PeerRoutes {
            listening: peer.listener.state(),
            is_asking: peer.listener.is_asking(now_ns),
            their_table: peer.listener.known(),
            holds_ms: peer.listener.expires_at_ns().map(left_ns),
            learnt_count: peer.learnt_count,
            learnt_max: peer.learnt_max,
            speaking: peer.speaker.mode(),
            our_table: peer.speaker.told(),
            updates_out: peer.updates_out,
            routes_out: peer.routes_out,
            updates_in: peer.updates_in,
            updated_at: peer.updated_at,
            troubles: troubles
                .filter(|(_, trouble)| trouble.count > 0)
                .map(|(word, trouble)| (*word, trouble.count))
                .collect(),
        })
    }

    fn trouble(&mut self, now_ns: u64, id: AccountId, trouble: RouteTrouble, prefix: &str) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let entry = &mut peer.troubles[trouble as usize];
        entry.count += 1;
        let pause_over = |told_ns| now_ns >= told_ns + TROUBLE_PAUSE_NS;
        if entry.told_at_ns.is_none_or(pause_over) {
            entry.told_at_ns = Some(now_ns);
            self.events.push(Event::RouteTrouble {
                account: id,
                trouble,
                prefix: prefix.to_owned(),
            });
        }
    }

    fn set_wake(&mut self, id: AccountId, at_ns: Option<u64>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if peer.wake_at_ns == at_ns {
            return;
        }
        if let Some(old_ns) = std::mem::replace(&mut peer.wake_at_ns, at_ns) {
            self.wake.remove(&(old_ns, id));
        }
        self.wake.extend(at_ns.map(|at_ns| (at_ns, id)));
    }

    /// When a step is due.
    fn poll_timeout(&self) -> Option<u64> {
        if !self.busy.is_empty() {
            return Some(0);
        }
        let wake = self.wake.first().map(|(at_ns, _)| *at_ns);
        wake.into_iter().chain(self.damping.poll_timeout()).min()
    }
}

impl Peer {
    fn new(kin: Kin, speaker: Speaker<Position>) -> Self {
        Self {
            kin,
            address: None,
            http_url: None,
            prefixes: Vec::new(),
            learnt_max: ROUTES_MAX,
            is_listening: false,
            listener: Listener::default(),
            speaker,
            table: 0,
            learnt_count: 0,
            telling: None,
            queue: VecDeque::new(),
            last_path: Arc::default(),
            control: None,
            update: None,
            wake_at_ns: None,
            updates_in: 0,
            updates_out: 0,
            routes_out: 0,
            updated_at: None,
            troubles: [Trouble::default(); RouteTrouble::ALL.len()],
        }
    }

    /// Whether an update is there that is not wholly taken in.
    fn has_update(&self) -> bool {
        self.telling.is_some() || !self.queue.is_empty()
    }

    /// Lets go of the update that is first now. Says who told it.
    fn drop_update(&mut self) -> Option<From> {
        match self.telling.take() {
            Some(telling) => Some(telling.from),
            None => self.queue.pop_front().map(|waiting| waiting.from),
        }
    }

    /// Whether a route may be used: the peer may tell it, and it does not come back to us.
    fn check(&self, own: Addr<'_>, route: &Route<'_>) -> Result<(), RouteTrouble> {
        let prefix = route.prefix;
        let (scheme, has_more) = prefix
            .split_once('.')
            .map_or((prefix, false), |(scheme, _)| (scheme, true));
        if scheme == "peer" {
            return Err(RouteTrouble::PeerPrefix);
        }
        if prefix.is_empty() || (scheme == own.scheme() && !has_more) {
            return Err(RouteTrouble::TooGeneral);
        }
        if scheme != own.scheme() {
            return Err(RouteTrouble::OtherNetwork);
        }
        if prefix.bytes().filter(|byte| *byte == b'.').count() >= SEGMENTS_MAX {
            return Err(RouteTrouble::TooDeep);
        }
        let is_theirs = || {
            let address = self.address.as_ref();
            address.is_some_and(|address| is_under(prefix, address.as_str()))
        };
        let is_allowed = || {
            let mut prefixes = self.prefixes.iter();
            prefixes.any(|allowed| is_under(prefix, allowed.as_str()))
        };
        let is_child = self.kin == Kin::Child;
        if is_under(prefix, own.as_str()) && !(is_child && is_theirs()) {
            return Err(RouteTrouble::OwnPrefix);
        }
        if is_child && self.prefixes.is_empty() && !is_theirs() {
            return Err(RouteTrouble::NotTheirs);
        }
        if !(self.prefixes.is_empty() || is_allowed() || is_child && is_theirs()) {
            return Err(RouteTrouble::Filtered);
        }
        if route.path.count > PATH_MAX {
            return Err(RouteTrouble::PathTooLong);
        }
        if route.hops().any(|hop| hop == own.as_str()) {
            return Err(RouteTrouble::Loop);
        }
        Ok(())
    }
}

/// By segments.
fn is_under(prefix: &str, above: &str) -> bool {
    let Some(rest) = prefix.strip_prefix(above) else {
        return false;
    };
    above.is_empty() || rest.is_empty() || rest.starts_with('.')
}

impl Routes {
    /// Whether there is nothing to do before [`Self::poll_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<u64> {
        if self.sweep.is_some() {
            return Some(0);
        }
        self.exchange.poll_timeout()
    }

    /// What the peer told is void.
    fn drop_learnt(&mut self, id: AccountId) {
        if let Some(peer) = self.exchange.peers.get_mut(&id) {
            peer.learnt_count = 0;
            peer.table += 1;
        }
        if self.vouched.remove(&id).is_some() {
            self.start_sweep();
        }
    }

    /// Takes a few routes of an update in. Says who told it, once all of it is in.
    fn take_in(&mut self, id: AccountId, own: Addr<'_>) -> Option<From> {
        let peer = self.exchange.peers.get_mut(&id)?;
        let mut telling = peer.telling.take()?;
        for _ in 0..STEP_ROUTES {
            // Withdrawals first: a prefix may be withdrawn and told anew.
            if let Some(prefix) = telling.update.next_withdrawn(&mut telling.withdrawn) {
                self.unlearn(id, prefix);
            } else if let Some(route) = telling.update.next_route(&mut telling.routes) {
                self.learn(id, own, &route);
            } else {
                break;
            }
        }
        if telling.left() == 0 {
            if telling.is_complete {
                self.vouch(id);
            }
            return Some(telling.from);
        }
        if let Some(peer) = self.exchange.peers.get_mut(&id) {
            peer.telling = Some(telling);
        }
        None
    }

    /// The peer's table is known: what it told before it no longer counts.
    fn vouch(&mut self, id: AccountId) {
        let table = self.exchange.peers.get(&id).map_or(0, |peer| peer.table);
        if self
            .vouched
            .insert(id, table)
            .is_some_and(|oldest| oldest < table)
        {
            self.start_sweep();
        }
    }

    fn learn(&mut self, id: AccountId, own: Addr<'_>, route: &Route<'_>) {
        let now_ns = self.now.mono_ns;
        let prefix = SmolStr::new(route.prefix);
        let Some(peer) = self.exchange.peers.get_mut(&id) else {
            return;
        };
        let known = self.table.get(&prefix);
        let known = known
            .and_then(|all| all.get(id, Source::Learnt))
            .map(|one| one.table);
        let is_fresh = known == Some(peer.table);
        let mut checked = peer.check(own, route);
        if checked.is_ok() && !is_fresh && peer.learnt_count >= peer.learnt_max {
            checked = Err(RouteTrouble::TooMany);
        }
        if let Err(trouble) = checked {
            self.exchange.trouble(now_ns, id, trouble, &prefix);
            // What it told of this prefix before, it no longer does.
            if is_fresh {
                self.unlearn(id, &prefix);
            }
            return;
        }
        if *peer.last_path != *route.path.bytes {
            peer.last_path = route.path.bytes.into();
        }
        let learnt = Learnt {
            table: peer.table,
            // Some peers tell their own address with an empty path.
            hop_count: u8::try_from(route.path.count.max(1)).unwrap_or(u8::MAX),
            path: Arc::clone(&peer.last_path),
        };
        match self.exchange.damping.told(id, &prefix, learnt) {
            Some(learnt) => self.put_learnt(id, &prefix, learnt),
            None => self
                .exchange
                .trouble(now_ns, id, RouteTrouble::Flapping, &prefix),
        }
    }

    fn put_learnt(&mut self, id: AccountId, prefix: &SmolStr, learnt: Learnt) {
        let Some(peer) = self.exchange.peers.get_mut(&id) else {
            return;
        };
        let known = self.table.get(prefix);
        let known = known
            .and_then(|all| all.get(id, Source::Learnt))
            .map(|one| one.table);
        if known != Some(peer.table) {
            peer.learnt_count += 1;
        }
        let one = Candidate {
            table: learnt.table,
            hop_count: learnt.hop_count,
            path: Some(learnt.path),
            ..candidate(id, Source::Learnt, peer.kin)
        };
        self.change(prefix, |all| all.put(one));
    }

    fn unlearn(&mut self, id: AccountId, prefix: &str) {
        let (now_ns, prefix) = (self.now.mono_ns, SmolStr::new(prefix));
        let known = self.table.get(&prefix);
        let known = known
            .and_then(|all| all.get(id, Source::Learnt))
            .map(|one| one.table);
        let is_damped = self.exchange.damping.is_damped(id, &prefix);
        if known.is_none() && !is_damped {
            return;
        }
        if let Some(peer) = self.exchange.peers.get_mut(&id)
            && known == Some(peer.table)
        {
            peer.learnt_count -= 1;
        }
        self.withdraw(&prefix, id, Source::Learnt);
        if self.exchange.damping.withdrawn(now_ns, id, &prefix) {
            self.exchange
                .trouble(now_ns, id, RouteTrouble::Flapping, &prefix);
        }
    }

    /// Routes that were held back and have been quiet since.
    fn settle(&mut self) {
        for _ in 0..STEP_ROUTES {
            let Some((id, prefix, held)) = self.exchange.damping.pop_settled(self.now.mono_ns)
            else {
                return;
            };
            let table = self
                .exchange
                .peers
                .get(&id)
                .map(|peer| (peer.table, peer.learnt_count < peer.learnt_max));
            if let Some(learnt) = held
                && table == Some((learnt.table, true))
            {
                self.put_learnt(id, &prefix, learnt);
            }
        }
    }

    /// The route for a prefix that a peer is told, if any.
    fn told<'a>(
        &self,
        id: AccountId,
        peer: &Peer,
        own: Addr<'_>,
        prefix: &str,
        candidates: &'a Candidates<AccountId>,
    ) -> Option<&'a Candidate<AccountId>> {
        let best = candidates.best(|one| is_vouched(&self.vouched, one))?;
        let is_ours = match best.source {
            Source::Parent => return None,
            Source::Own => true,
            Source::Static | Source::Account | Source::Learnt => false,
        };
        // Networks, everything, and what our own address covers, are not told.
        if !is_under(prefix, own.scheme()) || !prefix.contains('.') {
            return None;
        }
        if !is_ours && is_under(prefix, own.as_str()) {
            return None;
        }
        // Not back where it leads.
        let leads_back = |one: &Candidate<AccountId>| one.source == best.source && one.hop == id;
        let is_back = match best.source {
            Source::Static => candidates.all().iter().any(leads_back),
            Source::Own | Source::Account | Source::Parent | Source::Learnt => leads_back(best),
        };
        let peer_address = peer.address.as_ref().map(Address::as_str);
        let is_theirs = peer_address.is_some_and(|address| is_under(prefix, address));
        let path = best.path.as_deref().unwrap_or_default();
        let is_loop = peer_address.is_some_and(|address| hops(path).any(|hop| hop == address));
        if is_back || is_theirs || is_loop {
            return None;
        }
        // Whoever is above us does not go through us to our equals.
        if peer.kin == Kin::Parent && !is_ours && best.kin != Kin::Child {
            return None;
        }
        Some(best)
    }

    /// Puts the next update for a peer together, and says up to where it goes.
    fn compose(&self, id: AccountId, own: &Address, from: Position) -> (UpdateBuilder, Position) {
        let (mut builder, mut position) = (UpdateBuilder::new(), from);
        let Some(peer) = self.exchange.peers.get(&id) else {
            return (builder, position);
        };
        let told =
            |prefix: &SmolStr, candidates| self.told(id, peer, own.as_ref(), prefix, candidates);
        let path = |one: Option<&'_ Candidate<AccountId>>| {
            one.and_then(|one| one.path.as_ref())
                .map_or(0, |path| path.len())
        };
        // Prefix, path and ourselves, each as long as may be.
        let has_room = |builder: &UpdateBuilder, path_len: usize| {
            builder.bytes_len() + path_len + 2 * ADDRESS_BYTES_MAX + 64 < UPDATE_BYTES_MAX
        };

        // Changes first, so that a table that is long to tell is told in spite of them.
        let mut seen = BTreeSet::new();
        let room = match position.shard < SHARDS {
            true => STEP_ROUTES / 2,
            false => STEP_ROUTES,
        };
        for _ in 0..STEP_CHANGES {
            let Some(prefix) = self.changes.get(position.change) else {
                break;
            };
            if position.is_before(self.table.shard_of(prefix), prefix) || seen.contains(prefix) {
                position.change += 1; // its turn is yet to come, or has been
                continue;
            }
            let one = self.table.get(prefix).and_then(|all| told(prefix, all));
            if seen.len() >= room || !has_room(&builder, path(one)) {
                break;
            }
            match one {
                Some(one) => builder.route(Some(own), &as_told(prefix, one)),
                None => builder.withdraw(prefix),
            }
            seen.insert(prefix);
            position.change += 1;
        }

        let mut room = STEP_ROUTES - seen.len();
        let mut visited = 0;
        while position.shard < SHARDS && room > 0 && visited < STEP_CHANGES {
            let part = self.table.shard(position.shard);
            let is_next =
                |prefix: &SmolStr| position.after.as_ref().is_none_or(|after| prefix > after);
            let mut part: Vec<_> = part.filter(|(prefix, _)| is_next(prefix)).collect();
            visited += part.len();
            let is_more = part.len() > STEP_ROUTES;
            if is_more {
                part.select_nth_unstable_by_key(STEP_ROUTES, |(prefix, _)| *prefix);
                part.truncate(STEP_ROUTES);
            }
            part.sort_unstable_by_key(|(prefix, _)| *prefix);
            let mut is_through = !is_more;
            for (prefix, candidates) in part {
                if let Some(one) = told(prefix, candidates) {
                    if room == 0 || !has_room(&builder, path(Some(one))) {
                        (is_through, room) = (false, 0);
                        break;
                    }
                    builder.route(Some(own), &as_told(prefix, one));
                    room -= 1;
                }
                position.after = Some(prefix.clone());
            }
            if is_through {
                position.shard = self.table.next_shard(position.shard + 1);
                position.after = None;
            }
        }
        (builder, position)
    }

    fn is_behind(&self, position: &Position) -> bool {
        position.shard < SHARDS || position.change < self.changes.next()
    }

    fn start(&self) -> Position {
        Position {
            shard: 0,
            after: None,
            change: self.changes.next(),
        }
    }

    /// When the peer wants to be looked after.
    fn reschedule(&mut self, id: AccountId) {
        let Some(peer) = self.exchange.peers.get(&id) else {
            return;
        };
        let flights = [peer.control, peer.update].into_iter().flatten();
        let is_behind = self.is_behind(peer.speaker.position());
        let next_ns = flights
            .map(|flight| flight.deadline_ns)
            .chain(peer.listener.poll_timeout())
            .chain(peer.speaker.poll_timeout(is_behind))
            .min();
        self.exchange.set_wake(id, next_ns);
    }

    /// Whether anybody is told, and which changes nobody needs any more.
    fn count_speakers(&mut self) {
        let told = self.exchange.peers.values().map(|peer| &peer.speaker);
        let told = told.filter(|speaker| speaker.mode() == Mode::Sync);
        let slowest = told.map(|speaker| speaker.position().change).min();
        self.changes.is_wanted = slowest.is_some();
        self.changes.trim(slowest.unwrap_or(u64::MAX));
    }
}

/// Nobody checks authentication, and no property is defined: neither is passed on.
fn as_told<'a>(prefix: &'a str, one: &'a Candidate<AccountId>) -> Route<'a> {
    let bytes = one.path.as_deref().unwrap_or_default();
    Route {
        prefix,
        path: List {
            count: hops(bytes).count(),
            bytes,
        },
        auth: [0; AUTH_BYTES],
        properties: List {
            count: 0,
            bytes: &[],
        },
    }
}

impl Connector {
    /// An account was made, changed or deleted, or its link came up or went.
    pub(crate) fn exchange_account(&mut self, id: AccountId) {
        let now_ns = self.routes.now.mono_ns;
        let is_up = self.link_of(id).is_some() && self.address().is_some();
        let settings = self.ledger.account(id).map(|account| &account.settings);
        let settings = settings.filter(|settings| settings.relation != Relation::Local);
        let (receives, sends) = settings.map_or((false, false), |settings| {
            (settings.receives_routes(), settings.sends_routes())
        });
        let Some(settings) = settings.filter(|_| receives || sends) else {
            self.forget_peer(id);
            return;
        };
        let (kin, address) = (kin(settings.relation), self.address_of(id));
        let http_url = settings.http.as_ref().map(|link| link.url.clone());
        let (prefixes, learnt_max) = (
            settings.routes.prefixes.clone(),
            settings.routes.count_max.unwrap_or(ROUTES_MAX),
        );
        // Children that never ask need no place here.
        if !receives && !self.routes.exchange.peers.contains_key(&id) {
            return;
        }
        let fresh = self.fresh_table();
        let start = self.routes.start();
        let peers = &mut self.routes.exchange.peers;
        let peer = peers
            .entry(id)
            .or_insert_with(|| Peer::new(kin, Speaker::new(fresh, start)));
        let is_other = (peer.kin, &peer.address, &peer.prefixes, peer.learnt_max)
            != (kin, &address, &prefixes, learnt_max)
            || peer.http_url != http_url;
        (peer.kin, peer.address, peer.http_url) = (kin, address, http_url);
        (peer.prefixes, peer.learnt_max) = (prefixes, learnt_max);
        if !sends || !is_up {
            peer.speaker.stop();
        }
        let was_listening = std::mem::replace(&mut peer.is_listening, receives && is_up);
        let is_listening = peer.is_listening;
        if was_listening && (!is_listening || is_other) {
            peer.listener.disconnect();
            if let Some(flight) = peer.control.take() {
                self.pending.close_own(flight.link, flight.request);
            }
            self.routes.drop_learnt(id);
        }
        if !is_up {
            self.drop_flights(id);
        }
        if let Some(peer) = self.routes.exchange.peers.get_mut(&id)
            && is_listening
            && (!was_listening || is_other)
        {
            peer.listener.connect(now_ns);
        }
        self.routes.count_speakers();
        self.routes.reschedule(id);
    }

    /// An operator wants to know now whether the account's peer tells its routes: it is asked, where it
    /// was to be asked later.
    pub fn routes_ask(&mut self, id: AccountId) {
        let now_ns = self.routes.now.mono_ns;
        self.peer_mut(id, |peer| peer.listener.ask_again(now_ns));
        self.routes.reschedule(id);
    }

    /// Messages whose answers are of no use any more.
    fn drop_flights(&mut self, id: AccountId) {
        let peer = self.routes.exchange.peers.get_mut(&id);
        let flights = peer.map(|peer| [peer.control.take(), peer.update.take()]);
        for flight in flights.into_iter().flatten().flatten() {
            self.pending.close_own(flight.link, flight.request);
        }
    }

    /// Nothing is exchanged with the account any more.
    fn forget_peer(&mut self, id: AccountId) {
        if !self.routes.exchange.peers.contains_key(&id) {
            return;
        }
        self.drop_flights(id);
        self.routes.drop_learnt(id);
        self.routes.exchange.set_wake(id, None);
        // What waits to be taken in is refused in the next step, and then there is nothing left.
        let has_update = self.has_update(id);
        if let Some(peer) = self.routes.exchange.peers.get_mut(&id)
            && has_update
        {
            peer.listener.disconnect();
            peer.speaker.stop();
            peer.is_listening = false;
        } else {
            self.routes.exchange.peers.remove(&id);
        }
        self.routes.count_speakers();
    }

    /// Never used before.
    fn fresh_table(&mut self) -> TableId {
        let mut id = [0; 16];
        self.rng.fill_bytes(&mut id);
        // As a random UUID is written (RFC 9562, section 5.4).
        id[6] = id[6] & 0x0f | 0x40;
        id[8] = id[8] & 0x3f | 0x80;
        TableId(id)
    }

    /// The node's own address changed: every peer is told anew.
    pub(crate) fn exchange_anew(&mut self) {
        let ids: Vec<_> = self.routes.exchange.peers.keys().copied().collect();
        for id in ids {
            let (fresh, start) = (self.fresh_table(), self.routes.start());
            if let Some(peer) = self.routes.exchange.peers.get_mut(&id) {
                peer.speaker.restart(fresh, start);
                if peer.is_listening {
                    peer.listener.restart(self.routes.now.mono_ns);
                }
                self.routes.drop_learnt(id);
            }
            self.routes.reschedule(id);
        }
    }

    /// A peer asks for our routes.
    pub(crate) fn handle_route_control(
        &mut self,
        from: From,
        packet: &Prepare<BytesMut>,
        out: &mut Effects,
    ) -> Result<(), Refusal> {
        let id = from.account;
        let account = self.ledger.account(id).ok_or(Reason::Internal)?;
        if !account.settings.sends_routes() || packet.amount() > 0 {
            return Err(not_for_you());
        }
        if !self.routes.exchange.peers.contains_key(&id) {
            self.make_speaker(id);
        }
        let now_ns = self.routes.now.mono_ns;
        let Ok(control) = RouteControl::parse(packet.data()) else {
            self.trouble(id, RouteTrouble::Malformed, "");
            return Err(Reason::RoutesMalformed.into());
        };
        let (fresh, start) = (self.fresh_table(), self.routes.start());
        let is_over_http = self.is_over_http(id);
        let peer = self
            .routes
            .exchange
            .peers
            .get_mut(&id)
            .ok_or(Reason::Internal)?;
        if control.mode == Mode::Sync {
            // One that was started again. Of a session we would know.
            let (told_table, told_epoch) = peer.speaker.told();
            let is_anew = is_over_http && told_epoch > 0 && control.table_id != told_table;
            peer.listener.peer_asked(now_ns, is_anew);
        }
        peer.speaker.handle_control(now_ns, &control, fresh, start);
        if let Some(flight) = peer.update.take() {
            self.pending.close_own(flight.link, flight.request);
        }
        self.routes.count_speakers();
        self.routes.reschedule(id);
        self.fulfill_peer(from, out);
        Ok(())
    }

    /// A place for a peer that asks and is not asked.
    fn make_speaker(&mut self, id: AccountId) {
        let (fresh, start) = (self.fresh_table(), self.routes.start());
        let Some(account) = self.ledger.account(id) else {
            return;
        };
        let peer = Peer::new(kin(account.settings.relation), Speaker::new(fresh, start));
        self.routes.exchange.peers.insert(id, peer);
        self.exchange_account(id);
    }

    /// A peer tells its routes. The answer comes once they are taken in.
    pub(crate) fn handle_route_update(
        &mut self,
        from: From,
        packet: &Prepare<BytesMut>,
        out: &mut Effects,
    ) -> Result<(), Refusal> {
        let id = from.account;
        let account = self.ledger.account(id).ok_or(Reason::Internal)?;
        if !account.settings.receives_routes() || packet.amount() > 0 {
            return Err(not_for_you());
        }
        let peer = self
            .routes
            .exchange
            .peers
            .get_mut(&id)
            .ok_or(Reason::Internal)?;
        if peer.queue.len() + usize::from(peer.telling.is_some()) >= QUEUE_MAX {
            self.trouble(id, RouteTrouble::Busy, "");
            return Err(Reason::Overload.into());
        }
        let Ok(update) = Unchecked::new(Bytes::copy_from_slice(packet.data())) else {
            self.trouble(id, RouteTrouble::Malformed, "");
            return Err(Reason::RoutesMalformed.into());
        };
        let had_update = peer.has_update();
        peer.updates_in += 1;
        peer.queue.push_back(Waiting { from, update });
        // A short one is taken in at once.
        if !had_update {
            self.step_update(id, out);
            if self.tells_little(id) {
                self.step_update(id, out);
            }
            if self.has_update(id) {
                self.routes.exchange.busy.push_back(id);
            }
        }
        Ok(())
    }

    fn has_update(&self, id: AccountId) -> bool {
        let peer = self.routes.exchange.peers.get(&id);
        peer.is_some_and(Peer::has_update)
    }

    /// Whether all that a peer has just told fits one step.
    fn tells_little(&self, id: AccountId) -> bool {
        let peer = self.routes.exchange.peers.get(&id);
        let telling = peer.and_then(|peer| peer.telling.as_ref());
        telling.is_some_and(|telling| telling.left() <= STEP_ROUTES)
    }

    /// Judges an update that was checked: it is taken in next, or answered.
    fn begin_update(
        &mut self,
        id: AccountId,
        from: From,
        update: Update<Bytes>,
        out: &mut Effects,
    ) {
        let now = self.routes.now;
        let Some(peer) = self.routes.exchange.peers.get_mut(&id) else {
            return;
        };
        if !peer.is_listening {
            return self.refuse(from, not_for_you(), out);
        }
        let (trouble, refusal) = match peer.listener.handle_update(now.mono_ns, update.head()) {
            Verdict::Apply {
                new_table,
                complete,
            } => {
                peer.updated_at = Some(now.wall);
                peer.telling = Some(Telling {
                    from,
                    withdrawn: update.withdrawn(),
                    routes: update.routes(),
                    update,
                    is_complete: complete,
                });
                if new_table {
                    peer.table += 1;
                    peer.learnt_count = 0;
                    let table = peer.table;
                    // Where nothing is known yet, what is told counts from now on.
                    self.routes.vouched.entry(id).or_insert(table);
                }
                return self.routes.reschedule(id);
            }
            Verdict::Old => (RouteTrouble::OldEpoch, None),
            Verdict::Gap { foreign_table } => match foreign_table {
                true => (RouteTrouble::ForeignTable, Some(Reason::RoutesGap)),
                false => (RouteTrouble::Gap, Some(Reason::RoutesGap)),
            },
            Verdict::Backwards => (RouteTrouble::Malformed, Some(Reason::RoutesMalformed)),
        };
        self.trouble(id, trouble, "");
        match refusal {
            Some(reason) => self.refuse(from, reason.into(), out),
            None => self.fulfill_peer(from, out),
        }
        self.routes.reschedule(id);
    }

    /// Takes a few routes of an update in, and answers it when all of it is; or checks some of the next one.
    fn step_update(&mut self, id: AccountId, out: &mut Effects) {
        let Some(peer) = self.routes.exchange.peers.get_mut(&id) else {
            return;
        };
        if peer.telling.is_some() {
            let Some(own) = self.address().cloned() else {
                return; // without an address nothing was asked for
            };
            if let Some(from) = self.routes.take_in(id, own.as_ref()) {
                self.fulfill_peer(from, out);
            }
            return;
        }
        let Some(waiting) = peer.queue.front_mut() else {
            return;
        };
        let (from, checked) = (waiting.from, waiting.update.check(STEP_BYTES));
        if !matches!(checked, Ok(None)) {
            peer.queue.pop_front();
        }
        match checked {
            Ok(None) => {}
            Ok(Some(update)) => self.begin_update(id, from, update, out),
            Err(_) => {
                self.trouble(id, RouteTrouble::Malformed, "");
                self.refuse(from, Reason::RoutesMalformed.into(), out);
            }
        }
    }

    fn trouble(&mut self, id: AccountId, trouble: RouteTrouble, prefix: &str) {
        let now_ns = self.routes.now.mono_ns;
        self.routes.exchange.trouble(now_ns, id, trouble, prefix);
    }

    /// Answers a message between neighbours.
    pub(crate) fn fulfill_peer(&mut self, from: From, out: &mut Effects) {
        let fulfill = FulfillBuilder {
            fulfillment: PEER_FULFILLMENT,
            data: &[],
        };
        let packet = fulfill.encode().expect("no data is not too much");
        if self.ledger.account(from.account).is_some() {
            self.stats.of(from.account).fulfills_out += 1;
        }
        self.answer(
            Durable::Nothing,
            from.link,
            from.request,
            packet.into(),
            None,
            out,
        );
    }

    /// One step of what is to be done about routes; [`Routes::poll_timeout`] says whether there is more.
    pub(crate) fn step_routes(&mut self, out: &mut Effects) {
        let now_ns = self.routes.now.mono_ns;
        if let Some(id) = self.routes.exchange.busy.pop_front() {
            self.routes_of_gone(id, out);
            self.step_update(id, out);
            if self.has_update(id) {
                self.routes.exchange.busy.push_back(id);
            }
        } else if self.routes.sweep.is_some() {
            self.routes.sweep();
        } else if let Some((at_ns, id)) = self.routes.exchange.wake.first().copied()
            && at_ns <= now_ns
        {
            self.drive_peer(id, out);
        } else {
            self.routes.settle();
        }
    }

    /// Updates of a peer that is no longer listened to are refused.
    fn routes_of_gone(&mut self, id: AccountId, out: &mut Effects) {
        while let Some(peer) = self.routes.exchange.peers.get_mut(&id)
            && !peer.is_listening
            && let Some(from) = peer.drop_update()
        {
            self.refuse(from, not_for_you(), out);
        }
        if !self.has_update(id) && self.ledger.account(id).is_none() {
            self.routes.exchange.peers.remove(&id);
        }
    }

    /// After each input: what came up for others.
    pub(crate) fn after_routes(&mut self, out: &mut Effects) {
        if std::mem::take(&mut self.routes.changes.is_new) {
            let told = self.routes.exchange.peers.iter();
            let told = told.filter(|(_, peer)| peer.speaker.mode() == Mode::Sync);
            let ids: Vec<_> = told.map(|(id, _)| *id).collect();
            for id in ids {
                self.routes.reschedule(id);
            }
        }
        for event in self.routes.exchange.events.drain(..) {
            out.now(Action::Report(event));
        }
    }

    /// Sends a peer what is due.
    fn drive_peer(&mut self, id: AccountId, out: &mut Effects) {
        let now_ns = self.routes.now.mono_ns;
        self.give_up_flights(id, now_ns);
        let Some(peer) = self.routes.exchange.peers.get_mut(&id) else {
            return;
        };
        if peer.listener.expire(now_ns) {
            self.routes.drop_learnt(id);
            self.trouble(id, RouteTrouble::Expired, "");
        }
        let Some(peer) = self.routes.exchange.peers.get_mut(&id) else {
            return;
        };
        if let Some(control) = peer.listener.poll_control(now_ns) {
            let data = control.encode();
            let own = RouteRequest::Control(id);
            match self.send_own(id, CONTROL_DESTINATION, &data, own, out) {
                Some(flight) => self.peer_mut(id, |peer| peer.control = Some(flight)),
                None => self.control_answered(id, CcpReply::Lost),
            }
        }
        self.speak(id, out);
        self.routes.reschedule(id);
    }

    fn speak(&mut self, id: AccountId, out: &mut Effects) {
        let now_ns = self.routes.now.mono_ns;
        let Some(own) = self.address().cloned() else {
            return;
        };
        let (fresh, start) = (self.fresh_table(), self.routes.start());
        let floor = self.routes.changes.floor;
        let Some(peer) = self.routes.exchange.peers.get_mut(&id) else {
            return;
        };
        // Too many changes while it was told others: it is told everything anew.
        if peer.speaker.position().change < floor {
            peer.speaker.restart(fresh, start);
        }
        let is_behind = |routes: &Routes, position| routes.is_behind(position);
        let Some(peer) = self.routes.exchange.peers.get(&id) else {
            return;
        };
        let was_behind = is_behind(&self.routes, peer.speaker.position());
        let Some(turn) = peer.speaker.poll_update(now_ns, was_behind) else {
            return;
        };
        let (builder, position) = self.routes.compose(id, &own, turn.position);
        let is_last = !is_behind(&self.routes, &position);
        let (is_empty, routes_out) = (builder.is_empty(), builder.route_count());
        if is_empty {
            self.peer_mut(id, |peer| peer.speaker.skip(position.clone()));
            if !is_last {
                return; // nothing for this peer so far
            }
            if was_behind && turn.from_epoch > 0 {
                return;
            }
        }
        let to_epoch = turn.from_epoch + u32::from(!is_empty);
        let head = UpdateHead {
            table_id: turn.table_id,
            current_epoch: to_epoch + u32::from(!is_last),
            from_epoch: turn.from_epoch,
            to_epoch,
            hold_down_ms: HOLD_DOWN_MS,
        };
        let data = builder.finish(&head, own.as_str());
        let flight = self.send_own(id, UPDATE_DESTINATION, &data, RouteRequest::Update(id), out);
        self.peer_mut(id, |peer| {
            peer.updates_out += 1;
            peer.routes_out += routes_out;
            peer.update = flight;
            peer.speaker
                .sent(now_ns, (!is_empty).then_some(position), is_last);
        });
        if flight.is_none() {
            self.update_answered(id, CcpReply::Lost);
        }
    }

    fn peer_mut(&mut self, id: AccountId, change: impl FnOnce(&mut Peer)) {
        if let Some(peer) = self.routes.exchange.peers.get_mut(&id) {
            change(peer);
        }
    }

    /// Messages that were not answered in time.
    fn give_up_flights(&mut self, id: AccountId, now_ns: u64) {
        let Some(peer) = self.routes.exchange.peers.get(&id) else {
            return;
        };
        let is_over = |flight: &Flight| flight.deadline_ns <= now_ns;
        let (control, update) = (peer.control.filter(is_over), peer.update.filter(is_over));
        if let Some(flight) = control {
            self.pending.close_own(flight.link, flight.request);
            self.control_answered(id, CcpReply::Lost);
        }
        if let Some(flight) = update {
            self.pending.close_own(flight.link, flight.request);
            self.update_answered(id, CcpReply::Lost);
        }
    }

    /// Sends a packet of the node itself to a neighbour.
    fn send_own(
        &mut self,
        id: AccountId,
        destination: &str,
        data: &[u8],
        own: RouteRequest,
        out: &mut Effects,
    ) -> Option<Flight> {
        let now = self.routes.now;
        let link = self.link_of(id)?;
        let packet = PrepareBuilder {
            amount: 0,
            expires_at: now.wall.plus_ms(MESSAGE_EXPIRY_MS),
            condition: PEER_CONDITION,
            destination: Addr::new(destination).expect("a valid address"),
            data,
        };
        let packet = packet.encode().expect("messages are kept small enough");
        let request = self.pending.open_own(link, OwnRequest::Route(own));
        let deadline_ns = answer_deadline_ns(now.mono_ns);
        out.now(Action::Forward {
            link,
            request,
            packet: packet.into(),
            deadline_ns,
        });
        Some(Flight {
            link,
            request,
            deadline_ns,
        })
    }

    /// A message of ours was answered, or could not be delivered.
    pub(crate) fn route_answered(&mut self, own: RouteRequest, packet: Option<Bytes>) {
        let reply = match packet.map(Reply::parse) {
            Some(Ok(Reply::Fulfill(fulfill))) if fulfill.fulfillment() == PEER_FULFILLMENT => {
                CcpReply::Fulfilled
            }
            Some(Ok(Reply::Reject(reject))) => match reject.code() {
                ErrorCode::F01_INVALID_PACKET | ErrorCode::F02_UNREACHABLE => CcpReply::NotSpoken,
                code if code.to_string().starts_with('F') => CcpReply::Refused,
                _ => CcpReply::Lost,
            },
            Some(Ok(Reply::Fulfill(_)) | Err(_)) | None => CcpReply::Lost,
        };
        let id = match own {
            RouteRequest::Control(id) => {
                self.control_answered(id, reply);
                id
            }
            RouteRequest::Update(id) => {
                self.update_answered(id, reply);
                id
            }
        };
        self.routes.reschedule(id);
    }

    fn control_answered(&mut self, id: AccountId, reply: CcpReply) {
        let now_ns = self.routes.now.mono_ns;
        self.peer_mut(id, |peer| {
            peer.control = None;
            peer.listener.control_answered(now_ns, reply);
        });
        match reply {
            CcpReply::NotSpoken => self.trouble(id, RouteTrouble::NotSpoken, ""),
            CcpReply::Refused => self.trouble(id, RouteTrouble::NotTold, ""),
            CcpReply::Fulfilled => self.volunteer(id),
            CcpReply::Lost => {}
        }
    }

    fn is_over_http(&self, id: AccountId) -> bool {
        matches!(self.link_of(id), Some(LinkId::Http(_)))
    }

    /// A peer over HTTP that asked us before our last start never learns that it has to ask again.
    fn volunteer(&mut self, id: AccountId) {
        let now_ns = self.routes.now.mono_ns;
        let account = self.ledger.account(id);
        let sends = account.is_some_and(|account| account.settings.sends_routes());
        if sends && self.is_over_http(id) {
            self.peer_mut(id, |peer| peer.speaker.volunteer(now_ns));
            self.routes.count_speakers();
        }
    }

    fn update_answered(&mut self, id: AccountId, reply: CcpReply) {
        let now_ns = self.routes.now.mono_ns;
        self.peer_mut(id, |peer| {
            peer.update = None;
            peer.speaker.answered(now_ns, reply);
        });
        match reply {
            CcpReply::NotSpoken | CcpReply::Refused => {
                self.trouble(id, RouteTrouble::NotTaken, "");
            }
            CcpReply::Fulfilled | CcpReply::Lost => {}
        }
        self.routes.count_speakers();
    }
}

fn not_for_you() -> Refusal {
    Refusal::from(Reason::AddressInvalid).with_code(ErrorCode::F00_BAD_REQUEST)
}
