//! The effect gate: an action leaves only when the record it depends on is safe.
//!
//! Records are *written* before the actions of their batch are looked at, so only actions that wait
//! for the disk can be held back here. Nothing else in the node decides what may leave when.

use std::collections::BTreeMap;

use rialto_connector::{Action, Durable, Effect};
use rialto_ledger::Lsn;

/// Actions that wait for the disk.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// By record, then by arrival: until when at most, and what.
    waiting: BTreeMap<(Lsn, u64), (Option<u64>, Action)>,
    arrivals: u64,
    /// Actions that left before their record was safe because there was no more time.
    pub(crate) released_early: u64,
}

impl Gate {
    /// Gives the action back if it may leave now, keeps it otherwise.
    pub(crate) fn pass(&mut self, effect: Effect, synced: Lsn, now_ns: u64) -> Option<Action> {
        match effect.after {
            Durable::Nothing | Durable::Written(_) => Some(effect.action),
            Durable::Synced { lsn, .. } | Durable::OnDisk(lsn) if lsn <= synced => {
                Some(effect.action)
            }
            Durable::Synced {
                no_later_than_ns, ..
            } if no_later_than_ns <= now_ns => {
                self.released_early += 1;
                Some(effect.action)
            }
            Durable::Synced {
                lsn,
                no_later_than_ns,
            } => self.keep(lsn, Some(no_later_than_ns), effect.action),
            Durable::OnDisk(lsn) => self.keep(lsn, None, effect.action),
        }
    }

    fn keep(&mut self, lsn: Lsn, until_ns: Option<u64>, action: Action) -> Option<Action> {
        self.arrivals += 1;
        self.waiting
            .insert((lsn, self.arrivals), (until_ns, action));
        None
    }

    /// What may leave once all records up to `synced` are on disk.
    pub(crate) fn synced(&mut self, synced: Lsn) -> Vec<Action> {
        let after = self.waiting.split_off(&(Lsn(synced.0 + 1), 0));
        let ready = std::mem::replace(&mut self.waiting, after);
        ready.into_values().map(|(_, action)| action).collect()
    }

    /// What has to leave although its record is not on disk.
    pub(crate) fn overdue(&mut self, now_ns: u64) -> Vec<Action> {
        let overdue =
            |(until_ns, _): &(Option<u64>, Action)| until_ns.is_some_and(|at| at <= now_ns);
        let keys: Vec<_> = self
            .waiting
            .iter()
            .filter(|(_, w)| overdue(w))
            .map(|(k, _)| *k)
            .collect();
        self.released_early += keys.len() as u64;
        keys.iter()
            .filter_map(|key| self.waiting.remove(key))
            .map(|(_, action)| action)
            .collect()
    }

    /// Whether no answer waits. What waits for the disk alone may wait for the next start.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting
            .values()
            .all(|(until_ns, _)| until_ns.is_none())
    }

    /// When [`Self::overdue`] has something to say.
    pub(crate) fn next_overdue(&self) -> Option<u64> {
        self.waiting
            .values()
            .filter_map(|(until_ns, _)| *until_ns)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use rialto_connector::{Action, Durable, Effect, LinkId};
    use rialto_ledger::Lsn;

    use super::Gate;

    fn effect(after: Durable, worker: u16) -> Effect {
        Effect {
            after,
            action: Action::Disconnect {
                link: LinkId::Waiting { worker },
            },
        }
    }

    fn workers(actions: Vec<Action>) -> Vec<u16> {
        let worker = |action| match action {
            Action::Disconnect {
                link: LinkId::Waiting { worker },
            } => worker,
            Action::Forward { .. }
            | Action::Answer { .. }
            | Action::Disconnect { .. }
            | Action::Engine { .. }
            | Action::Report(_) => unreachable!("the tests make no other"),
        };
        actions.into_iter().map(worker).collect()
    }

    #[test]
    fn an_action_leaves_when_its_record_is_safe_or_its_time_is_over() {
        let mut gate = Gate::default();
        let until = |lsn, no_later_than_ns| Durable::Synced {
            lsn: Lsn(lsn),
            no_later_than_ns,
        };
        assert!(gate.pass(effect(Durable::Nothing, 0), Lsn(0), 0).is_some());
        assert!(
            gate.pass(effect(Durable::Written(Lsn(9)), 0), Lsn(0), 0)
                .is_some()
        );
        assert!(gate.pass(effect(until(5, 100), 0), Lsn(5), 0).is_some());
        assert!(gate.pass(effect(until(6, 100), 1), Lsn(5), 0).is_none());
        assert!(gate.pass(effect(until(6, 100), 2), Lsn(5), 0).is_none());
        assert!(gate.pass(effect(until(7, 50), 3), Lsn(5), 0).is_none());
        assert!(gate.pass(effect(until(8, 100), 4), Lsn(5), 0).is_none());
        assert_eq!(gate.next_overdue(), Some(50));
        assert!(!gate.is_empty());
        assert!(gate.overdue(49).is_empty());
        assert_eq!(workers(gate.synced(Lsn(6))), [1, 2]);
        assert_eq!(workers(gate.overdue(50)), [3]);
        assert_eq!(gate.released_early, 1);
        assert_eq!(workers(gate.synced(Lsn(99))), [4]);
        assert_eq!(gate.next_overdue(), None);
        assert!(gate.is_empty());

        // What must never leave without its record does not, whatever the time and whatever failed.
        assert!(
            gate.pass(effect(Durable::OnDisk(Lsn(99)), 5), Lsn(99), 0)
                .is_some()
        );
        assert!(
            gate.pass(effect(Durable::OnDisk(Lsn(100)), 6), Lsn(99), u64::MAX)
                .is_none()
        );
        assert!(gate.overdue(u64::MAX).is_empty());
        assert_eq!(gate.next_overdue(), None);
        assert_eq!(workers(gate.synced(Lsn(100))), [6]);
    }
}
