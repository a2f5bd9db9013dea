//! What one peer was told of our routes.

use crate::{ANSWER_NS, HEARTBEAT_MS, MS, Mode, Reply, RouteControl, TableId};

/// Changes are collected for this long before they are told.
const COLLECT_NS: u64 = 150 * MS;

/// An update that was not taken is sent again after this long.
const RETRY_NS: u64 = 5_000 * MS;

/// Updates that fail in a row; then the peer has to ask again.
const FAILURES_MAX: u8 = 3;

/// A peer that asks by itself does so within this time.
const VOLUNTEER_NS: u64 = 5_000 * MS;

/// An update that may be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn<P> {
    /// Our table as this peer knows it.
    pub table_id: TableId,
    /// What the peer has.
    pub from_epoch: u32,
    /// How far it was told.
    pub position: P,
}

#[derive(Debug, Clone)]
struct Flight<P> {
    /// `None` is a heartbeat.
    position: Option<P>,
    /// Nothing is left to tell after it.
    is_last: bool,
}

/// How far one peer was told. `P` is a position in its user's table; each update that carries anything
/// is one epoch, and counts only once the peer has taken it.
///
/// ```text
///            control sync                    update sent
///   idle ────────────────▶ waiting ───────────────────────▶ in flight
///    ▲   (or volunteered)   ▲    ▲                              │
///    │ control idle,        │    └─────── fulfilled ────────────┤
///    │ third failure        └──────── failed: the same again ───┘
/// ```
#[derive(Debug, Clone)]
pub struct Speaker<P> {
    mode: Mode,
    table_id: TableId,
    epoch: u32,
    position: P,
    flight: Option<Flight<P>>,
    /// Sent, and maybe taken: its answer never came.
    unanswered: Option<P>,
    sent_at_ns: u64,
    not_before_ns: u64,
    failures: u8,
    /// It asked not to be told.
    is_declined: bool,
}

impl<P: Clone> Speaker<P> {
    /// Silent until it is asked. `start` is the beginning of the table.
    pub fn new(table_id: TableId, start: P) -> Self {
        Self {
            mode: Mode::Idle,
            table_id,
            epoch: 0,
            position: start,
            flight: None,
            unanswered: None,
            sent_at_ns: 0,
            not_before_ns: 0,
            failures: 0,
            is_declined: false,
        }
    }

    /// Whether the peer wants to be told.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Our table as this peer knows it, and how far.
    pub fn told(&self) -> (TableId, u32) {
        (self.table_id, self.epoch)
    }

    /// How far it was told.
    pub fn position(&self) -> &P {
        &self.position
    }

    /// What lies between here and `position` is nothing to this peer.
    pub fn skip(&mut self, position: P) {
        self.position = position;
    }

    /// The peer asks. Where it does not know what we think it knows, it is told from `start` on, as the
    /// table `fresh`.
    pub fn handle_control(
        &mut self,
        now_ns: u64,
        control: &RouteControl,
        fresh: TableId,
        start: P,
    ) {
        self.mode = control.mode;
        self.is_declined = control.mode == Mode::Idle;
        self.failures = 0;
        self.not_before_ns = now_ns;
        self.sent_at_ns = 0;
        let lost = self.flight.take().and_then(|flight| flight.position);
        let unanswered = lost.or(self.unanswered.take());
        if control.mode == Mode::Idle {
            return;
        }
        let is_known = control.table_id == self.table_id;
        match unanswered {
            Some(position) if is_known && Some(control.epoch) == self.epoch.checked_add(1) => {
                self.epoch = control.epoch;
                self.position = position;
            }
            Some(_) | None if is_known && control.epoch == self.epoch => {}
            Some(_) | None => self.restart(fresh, start),
        }
    }

    /// The peer speaks CCP and may not know that it has to ask: it asked before this node was started, on
    /// a link that does not show it that anything began anew. Unless it asks soon, it is told unasked.
    pub fn volunteer(&mut self, now_ns: u64) {
        if self.mode == Mode::Idle && !self.is_declined {
            self.mode = Mode::Sync;
            self.failures = 0;
            self.not_before_ns = now_ns.saturating_add(VOLUNTEER_NS);
            self.sent_at_ns = 0;
        }
    }

    /// The table can no longer be continued: it is told anew.
    pub fn restart(&mut self, fresh: TableId, start: P) {
        self.table_id = fresh;
        self.epoch = 0;
        self.position = start;
        self.flight = None;
        self.unanswered = None;
    }

    /// Nobody listens any more.
    pub fn stop(&mut self) {
        self.mode = Mode::Idle;
        if let Some(flight) = self.flight.take() {
            self.unanswered = flight.position;
        }
    }

    /// When an update is due; `is_behind` says whether there is anything to tell.
    pub fn poll_timeout(&self, is_behind: bool) -> Option<u64> {
        if self.mode == Mode::Idle {
            return None;
        }
        if self.flight.is_some() {
            return None; // its answer, or the lack of it, goes on from here
        }
        let heartbeat_ns = self.sent_at_ns.saturating_add(u64::from(HEARTBEAT_MS) * MS);
        let due_ns = match is_behind {
            true => self.not_before_ns,
            // Whoever asks hears at once, even if there is nothing to tell.
            false if self.sent_at_ns == 0 => self.not_before_ns,
            false => heartbeat_ns.max(self.not_before_ns),
        };
        Some(due_ns)
    }

    /// The update that may be sent now; [`Self::sent`] follows.
    pub fn poll_update(&self, now_ns: u64, is_behind: bool) -> Option<Turn<P>> {
        if self.poll_timeout(is_behind)? > now_ns {
            return None;
        }
        Some(Turn {
            table_id: self.table_id,
            from_epoch: self.epoch,
            position: self.position.clone(),
        })
    }

    /// An update that leads to `position` was sent, or a heartbeat. Without `is_last`, the next one
    /// follows as soon as this one is taken.
    pub fn sent(&mut self, now_ns: u64, position: Option<P>, is_last: bool) {
        self.sent_at_ns = now_ns.max(1);
        self.flight = Some(Flight { position, is_last });
    }

    /// How the update was answered.
    pub fn answered(&mut self, now_ns: u64, reply: Reply) {
        let Some(flight) = self.flight.take() else {
            return;
        };
        match reply {
            Reply::Fulfilled => {
                if let Some(position) = flight.position {
                    self.position = position;
                    self.epoch += 1;
                }
                self.failures = 0;
                self.unanswered = None;
                if flight.is_last {
                    self.not_before_ns = now_ns.saturating_add(COLLECT_NS);
                }
            }
            Reply::NotSpoken | Reply::Refused | Reply::Lost => {
                self.unanswered = flight.position;
                self.failures += 1;
                self.not_before_ns = now_ns.saturating_add(RETRY_NS);
                if self.failures >= FAILURES_MAX {
                    self.mode = Mode::Idle;
                }
            }
        }
    }
}

/// When an answer to what is sent now counts as lost.
pub fn answer_deadline_ns(now_ns: u64) -> u64 {
    now_ns.saturating_add(ANSWER_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableId = TableId([1; 16]);
    const FRESH: TableId = TableId([2; 16]);

    fn sync(table_id: TableId, epoch: u32) -> RouteControl {
        RouteControl {
            mode: Mode::Sync,
            table_id,
            epoch,
            features: Vec::new(),
        }
    }

    fn asked() -> Speaker<u8> {
        let mut speaker = Speaker::new(TABLE, 0);
        assert_eq!(speaker.poll_timeout(true), None, "nobody asked");
        speaker.handle_control(0, &sync(TABLE, 0), FRESH, 0);
        speaker
    }

    #[test]
    fn only_what_was_taken_counts() {
        let mut speaker = asked();
        let turn = speaker.poll_update(0, true).unwrap();
        assert_eq!(
            (turn.table_id, turn.from_epoch, turn.position),
            (TABLE, 0, 0)
        );
        speaker.sent(0, Some(10), false);
        assert_eq!(speaker.poll_update(u64::MAX, true), None, "one at a time");
        speaker.answered(1, Reply::Refused);
        assert_eq!(speaker.poll_update(RETRY_NS, true), None);
        let again = speaker.poll_update(1 + RETRY_NS, true).unwrap();
        assert_eq!(again, turn);
        speaker.sent(1 + RETRY_NS, Some(10), false);
        speaker.answered(2 + RETRY_NS, Reply::Fulfilled);
        // More at once, as that was not all.
        let next = speaker.poll_update(2 + RETRY_NS, true).unwrap();
        assert_eq!((next.from_epoch, next.position), (1, 10));
    }

    #[test]
    fn changes_are_collected_and_silence_is_told_too() {
        let mut speaker = asked();
        speaker.sent(5, Some(10), true);
        speaker.answered(5, Reply::Fulfilled);
        assert_eq!(speaker.poll_timeout(true), Some(5 + COLLECT_NS));
        let heartbeat_ns = 5 + u64::from(HEARTBEAT_MS) * MS;
        assert_eq!(speaker.poll_timeout(false), Some(heartbeat_ns));
        speaker.sent(heartbeat_ns, None, true);
        speaker.answered(heartbeat_ns, Reply::Fulfilled);
        assert_eq!(speaker.told(), (TABLE, 1));
    }

    #[test]
    fn after_three_failures_the_peer_has_to_ask() {
        let mut speaker = asked();
        for _ in 0..3 {
            let now_ns = speaker.poll_timeout(true).unwrap();
            speaker.sent(now_ns, Some(10), true);
            speaker.answered(now_ns, Reply::Lost);
        }
        assert_eq!(
            (speaker.mode(), speaker.poll_timeout(true)),
            (Mode::Idle, None)
        );
        speaker.handle_control(9, &sync(TABLE, 0), FRESH, 0);
        assert_eq!(speaker.poll_timeout(true), Some(9));
    }

    #[test]
    fn a_peer_that_lost_its_place_is_told_from_the_start() {
        for (table_id, epoch, told, position) in [
            (TABLE, 1, (TABLE, 1), 10),        // it knows what we think
            (TABLE, 2, (TABLE, 2), 20),        // it took what it did not answer
            (TABLE, 3, (FRESH, 0), 0),         // it knows what we never said
            (TABLE, 0, (FRESH, 0), 0),         // it forgot
            (TableId::NONE, 0, (FRESH, 0), 0), // it forgot everything
        ] {
            let mut speaker = asked();
            speaker.sent(0, Some(10), false);
            speaker.answered(0, Reply::Fulfilled);
            speaker.sent(0, Some(20), false);
            speaker.answered(0, Reply::Lost);
            speaker.handle_control(0, &sync(table_id, epoch), FRESH, 0);
            assert_eq!(
                (speaker.told(), *speaker.position()),
                (told, position),
                "{epoch}"
            );
        }
    }

    #[test]
    fn idle_is_heard() {
        let mut speaker = asked();
        let idle = RouteControl {
            mode: Mode::Idle,
            ..sync(TABLE, 0)
        };
        speaker.handle_control(0, &idle, FRESH, 0);
        assert_eq!(speaker.poll_timeout(true), None);
    }
}
