//! What is known about neighbours beside the books. Soft: gone with the process.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rialto_ledger::AccountId;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit};
use utoipa::ToSchema;

/// Neighbours that are called back at the same time because they asked.
const CALLS_MAX: usize = 8;

/// Why an invitation was not taken, here or by this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InviteRefused {
    /// There is none with its secret.
    Unknown,
    /// It came too late.
    Expired,
    /// Another was quicker.
    Used,
    /// It was cut off or changed on its way.
    Damaged,
    /// No account can be made for who asks.
    Account,
}

impl InviteRefused {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Unknown,
        Self::Expired,
        Self::Used,
        Self::Damaged,
        Self::Account,
    ];

    /// For metrics and logs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Used => "used",
            Self::Damaged => "damaged",
            Self::Account => "account",
        }
    }
}

/// How far a neighbour has come; each has what those before it have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// There is an account.
    Configured,
    /// Its server answers.
    Reachable,
    /// One of us takes the other's token.
    Authenticated,
    /// Both count the same.
    AssetVerified,
    /// Its routes are known as far as it told them (CCP); or, where routes are set by hand, packets for
    /// its address go to it.
    RoutesSynced,
    /// Nothing is wrong.
    Established,
}

impl Stage {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::Configured,
        Self::Reachable,
        Self::Authenticated,
        Self::AssetVerified,
        Self::RoutesSynced,
        Self::Established,
    ];

    /// For metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Configured => "configured",
            Self::Reachable => "reachable",
            Self::Authenticated => "authenticated",
            Self::AssetVerified => "asset_verified",
            Self::RoutesSynced => "routes_synced",
            Self::Established => "established",
        }
    }
}

/// Where a neighbour stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerState {
    pub(crate) stage: Stage,
    /// Since when, milliseconds since 1970.
    pub(crate) since_ms: i64,
    /// The last mistake that was found, and when.
    pub(crate) last_error: Option<(String, i64)>,
    /// The furthest that is known of, while the link stands.
    known: Stage,
    /// What was known when it was examined last and could not be reached, or did not take our token.
    doubt: Option<Doubt>,
}

/// Whoever answered before this may not do so any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Doubt {
    /// Fulfills that had come from it.
    pub(crate) fulfills: u64,
    /// When it was, milliseconds since 1970.
    pub(crate) at_ms: i64,
}

/// What shows by itself of a neighbour's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkSeen {
    /// A session stands, or packets were answered.
    Good,
    /// There is no session.
    Down,
    /// Each packet is a request, and none was answered yet.
    Unknown,
}

/// Kept by the node for as long as it runs.
#[derive(Debug)]
pub struct Peering {
    invites_refused: [AtomicU64; InviteRefused::ALL.len()],
    calls: Semaphore,
    /// Of the accounts that were looked at; as many as there are.
    states: Mutex<BTreeMap<AccountId, PeerState>>,
}

impl Default for Peering {
    fn default() -> Self {
        Self {
            invites_refused: Default::default(),
            calls: Semaphore::new(CALLS_MAX),
            states: Mutex::default(),
        }
    }
}

impl Peering {
    pub(crate) fn refused_invite(&self, reason: InviteRefused) {
        self.invites_refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many were refused for each reason.
    pub(crate) fn invites_refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.invites_refused.iter();
        let counts = counts.map(|count| count.load(Ordering::Relaxed));
        InviteRefused::ALL.iter().map(|of| of.word()).zip(counts)
    }

    /// Room to call a neighbour back, or none.
    pub(crate) fn room_to_call(&self) -> Option<SemaphorePermit<'_>> {
        self.calls.try_acquire().ok()
    }

    fn states(&self) -> MutexGuard<'_, BTreeMap<AccountId, PeerState>> {
        // Whoever panicked while it was locked left a state that is as good as any.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A neighbour was examined: it has come so far, and so many Fulfills came from it until now.
    pub(crate) fn diagnosed(
        &self,
        id: AccountId,
        stage: Stage,
        mistake: Option<String>,
        fulfills: u64,
        now_ms: i64,
    ) {
        let mut states = self.states();
        let state = states.entry(id).or_insert_with(|| PeerState::new(now_ms));
        state.known = stage;
        state.doubt = (stage < Stage::Authenticated).then_some(Doubt {
            fulfills,
            at_ms: now_ms,
        });
        state.enter(stage, now_ms);
        if let Some(mistake) = mistake {
            state.last_error = Some((mistake, now_ms));
        }
    }

    /// Whether a neighbour was in doubt when it was examined last.
    pub(crate) fn doubt(&self, id: AccountId) -> Option<Doubt> {
        self.states().get(&id).and_then(|state| state.doubt)
    }

    /// Both nodes agreed on what the account counts, as they do when an invitation is accepted.
    pub(crate) fn agreed(&self, id: AccountId, now_ms: i64) {
        let mut states = self.states();
        let state = states.entry(id).or_insert_with(|| PeerState::new(now_ms));
        state.known = state.known.max(Stage::AssetVerified);
    }

    /// Where a neighbour stands, given what shows of its link and whether its routes are known.
    pub(crate) fn state(
        &self,
        id: AccountId,
        seen: LinkSeen,
        routes: Result<(), String>,
        now_ms: i64,
    ) -> PeerState {
        let mut states = self.states();
        let state = states.entry(id).or_insert_with(|| PeerState::new(now_ms));
        match seen {
            LinkSeen::Good => {
                let known = state.known.max(Stage::Authenticated);
                let stage = match routes {
                    Ok(()) if known == Stage::AssetVerified => Stage::RoutesSynced,
                    Err(_) if known > Stage::AssetVerified => Stage::AssetVerified,
                    Ok(()) | Err(_) => known,
                };
                if let Err(mistake) = routes
                    && state.stage > Stage::AssetVerified
                    && stage == Stage::AssetVerified
                {
                    state.last_error = Some((mistake, now_ms));
                }
                state.enter(stage, now_ms);
            }
            LinkSeen::Down if state.stage > Stage::Reachable => {
                state.last_error =
                    Some(("session.none: the BTP session is down".to_owned(), now_ms));
                state.enter(Stage::Configured, now_ms);
            }
            LinkSeen::Down | LinkSeen::Unknown => {}
        }
        state.clone()
    }

    /// Accounts that are gone have no state.
    pub(crate) fn retain(&self, exists: impl Fn(AccountId) -> bool) {
        self.states().retain(|id, _| exists(*id));
    }
}

impl PeerState {
    fn new(now_ms: i64) -> Self {
        Self {
            stage: Stage::Configured,
            since_ms: now_ms,
            last_error: None,
            known: Stage::Configured,
            doubt: None,
        }
    }

    fn enter(&mut self, stage: Stage, now_ms: i64) {
        if self.stage != stage {
            self.stage = stage;
            self.since_ms = now_ms;
        }
    }
}
