//! How routes are exchanged with a neighbour (CCP), as the doctor and the states of peers see it.

use std::time::Duration;

use rialto_connector::{Connector, ListenerState, PeerRoutes, RouteMode};
use rialto_ledger::{Account, AccountId, Relation};
use tokio::time::sleep;

use crate::{Api, doctor::Check, rfc3339};

/// How often it is looked whether a neighbour told its routes by now, and how many times: together 3 s.
const SYNC_LOOK: Duration = Duration::from_millis(20);
const SYNC_LOOKS: u32 = 150;

/// What a neighbour says of its own settings for us.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Theirs {
    pub(crate) sends: Option<bool>,
    pub(crate) receives: Option<bool>,
}

/// What there is to see at our end.
struct Seen {
    sends: bool,
    receives: bool,
    peer: Option<PeerRoutes>,
}

impl Seen {
    fn of(connector: &Connector, id: AccountId) -> Option<Self> {
        let settings = &connector.ledger().account(id)?.settings;
        Some(Self {
            sends: settings.sends_routes(),
            receives: settings.receives_routes(),
            peer: connector.peer_routes(id),
        })
    }

    fn listening(&self) -> ListenerState {
        self.peer
            .as_ref()
            .map_or(ListenerState::Off, |peer| peer.listening)
    }

    /// Whether the neighbour is to be told our routes, wants to be by its own word, and has not asked.
    fn is_unheard(&self, theirs: Theirs) -> bool {
        let is_idle = |peer: &PeerRoutes| peer.speaking != RouteMode::Sync;
        self.sends && theirs.receives == Some(true) && self.peer.as_ref().is_none_or(is_idle)
    }

    /// What the neighbour told, for whoever looks for what is missing.
    fn told(&self) -> String {
        let Some(peer) = &self.peer else {
            return String::new();
        };
        let at = peer.updated_at.and_then(|at| rfc3339(at.unix_ms()));
        let Some(at) = at else {
            return "; it has told none so far".to_owned();
        };
        let (table, epoch) = peer.their_table;
        let count = peer.learnt_count;
        format!("; {count} are known, table {table} at epoch {epoch}, last update {at}")
    }

    /// Whether there is nothing more to wait for.
    fn is_settled(&self, theirs: Theirs) -> bool {
        if self.is_unheard(theirs) {
            return false;
        }
        let is_asking = self.peer.as_ref().is_some_and(|peer| peer.is_asking);
        match self.listening() {
            ListenerState::Synced => true,
            ListenerState::Syncing => false,
            ListenerState::Off
            | ListenerState::Asking
            | ListenerState::NotSpoken
            | ListenerState::Refused => !is_asking,
        }
    }
}

/// Whether the neighbour's routes are known, or what is in the way.
pub(crate) fn synced(connector: &Connector, account: &Account) -> Result<(), String> {
    if account.settings.receives_routes() {
        let peer = connector.peer_routes(account.id);
        let listening = peer.map_or(ListenerState::Off, |peer| peer.listening);
        return fault(listening).map_or(Ok(()), |(word, detail)| Err(format!("{word}: {detail}")));
    }
    let Some(address) = connector.address_of(account.id) else {
        return match account.settings.relation {
            Relation::Parent => Ok(()),
            Relation::Peer | Relation::Child | Relation::Local => {
                Err("address.missing: the account has no ILP address".to_owned())
            }
        };
    };
    match connector.next_hop(&address) {
        Some(hop) if hop == account.id => Ok(()),
        _ => Err(format!(
            "route.elsewhere: packets for {address} go elsewhere"
        )),
    }
}

/// Why the neighbour's routes are not known.
fn fault(listening: ListenerState) -> Option<(&'static str, &'static str)> {
    match listening {
        ListenerState::Synced => None,
        ListenerState::Off => Some((
            "ccp.down",
            "the link is down, so that the peer cannot be asked for its routes",
        )),
        ListenerState::Asking => Some((
            "ccp.silent",
            "the peer does not answer when it is asked for its routes",
        )),
        ListenerState::Syncing => Some((
            "ccp.incomplete",
            "the peer is to tell its routes, and has not told all of them",
        )),
        ListenerState::NotSpoken => Some((
            "ccp.not_spoken",
            "the peer does not speak CCP: set its routes by hand, and `--receive-routes false`",
        )),
        ListenerState::Refused => Some((
            "ccp.refused",
            "the peer does not tell us its routes: its operator says `--send-routes true` for us, or we `--receive-routes false`",
        )),
    }
}

/// Looks at it, and waits a little for a neighbour that has yet to tell. One that was given up is asked
/// again.
pub(crate) async fn examine(api: &Api, id: AccountId, theirs: Theirs) -> Check {
    let look = || api.node.read(|connector| Seen::of(connector, id));
    let mut seen = look();
    let is_wanted = seen.as_ref().is_some_and(|seen| seen.receives);
    if is_wanted && theirs.sends != Some(false) {
        // Where the node is stopping, what is known already has to do.
        let _ = api
            .node
            .execute(move |connector, _, _| connector.routes_ask(id))
            .await;
        for _ in 0..SYNC_LOOKS {
            seen = look();
            if seen.as_ref().is_none_or(|seen| seen.is_settled(theirs)) {
                break;
            }
            sleep(SYNC_LOOK).await;
        }
    }
    match seen {
        Some(seen) => judge(&seen, theirs),
        None => Check::skip("ccp", "the account is gone"),
    }
}

fn judge(seen: &Seen, theirs: Theirs) -> Check {
    let name = "ccp";
    if !seen.receives && !seen.sends {
        let detail =
            "routes are set by hand; `--send-routes true --receive-routes true` exchanges them";
        return Check::skip(name, detail);
    }
    let listening = match theirs.sends {
        Some(false) => ListenerState::Refused,
        Some(true) | None => seen.listening(),
    };
    if seen.receives
        && let Some((word, detail)) = fault(listening)
    {
        return Check::fail(name, word, format!("{detail}{}", seen.told()));
    }
    if seen.is_unheard(theirs) {
        let detail = "routes go one way only: the peer is set to ask for ours, and has not; it needs a \
                      link to us to ask on";
        return Check::fail(name, "ccp.one_way", detail);
    }
    let mut parts = Vec::new();
    if let Some(peer) = seen.peer.as_ref().filter(|_| seen.receives) {
        let (table, epoch) = peer.their_table;
        let at = peer.updated_at.and_then(|at| rfc3339(at.unix_ms()));
        parts.push(format!(
            "in: synced, {} of at most {} routes, table {table} at epoch {epoch}, last update {}",
            peer.learnt_count,
            peer.learnt_max,
            at.as_deref().unwrap_or("unknown"),
        ));
    } else {
        parts.push("in: not asked for".to_owned());
    }
    parts.push(match &seen.peer {
        Some(peer) if seen.sends && peer.speaking == RouteMode::Sync => {
            let (table, epoch) = peer.our_table;
            format!(
                "out: sync, {} routes told in {} updates, table {table} at epoch {epoch}",
                peer.routes_out, peer.updates_out,
            )
        }
        Some(_) | None if !seen.sends => "out: not told".to_owned(),
        Some(_) | None if theirs.receives == Some(false) => {
            "out: idle, the peer does not ask for ours".to_owned()
        }
        Some(_) | None => "out: idle, the peer has not asked for ours so far".to_owned(),
    });
    Check::pass(name, parts.join("; "))
}

#[cfg(test)]
mod tests {
    use rialto_connector::TableId;

    use super::*;

    /// A peer with which routes are to go both ways.
    fn seen(listening: ListenerState, speaking: RouteMode) -> Seen {
        Seen {
            sends: true,
            receives: true,
            peer: Some(PeerRoutes {
                listening,
                is_asking: false,
                their_table: (TableId([1; 16]), 7),
                holds_ms: None,
                learnt_count: 3,
                learnt_max: 10,
                speaking,
                our_table: (TableId([2; 16]), 9),
                updates_out: 1,
                routes_out: 2,
                updates_in: 1,
                updated_at: None,
                troubles: Vec::new(),
            }),
        }
    }

    #[test]
    fn every_state_has_its_word() {
        use ListenerState::{Asking, NotSpoken, Off, Refused, Synced, Syncing};
        let nothing = Theirs::default();
        let wants = Theirs {
            sends: Some(true),
            receives: Some(true),
        };
        let (idle, sync) = (RouteMode::Idle, RouteMode::Sync);
        for (listening, speaking, theirs, word) in [
            (Synced, sync, wants, None),
            (Synced, sync, nothing, None),
            (Synced, idle, nothing, None),
            (Synced, idle, wants, Some("ccp.one_way")),
            (Off, idle, nothing, Some("ccp.down")),
            (Off, sync, wants, Some("ccp.down")),
            (Asking, sync, wants, Some("ccp.silent")),
            (Syncing, sync, wants, Some("ccp.incomplete")),
            (NotSpoken, idle, nothing, Some("ccp.not_spoken")),
            (Refused, idle, nothing, Some("ccp.refused")),
        ] {
            let check = judge(&seen(listening, speaking), theirs);
            assert_eq!(check.mistake.as_deref(), word, "{listening:?} {speaking:?}");
        }
        // Only what the operators want is missed.
        let by_hand = Seen {
            sends: false,
            ..seen(Synced, idle)
        };
        assert_eq!(judge(&by_hand, wants).mistake, None);
    }
}
