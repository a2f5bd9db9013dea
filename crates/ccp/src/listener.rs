//! What we know of one peer's routes.

use crate::{HOLD_DOWN_MS, MS, Mode, Reply, RouteControl, TableId, UpdateHead};

/// Longest time that routes may hold without another update, whatever the peer says.
const HOLD_DOWN_MS_MAX: u32 = 24 * 3_600_000;

/// Shortest time between two requests.
const CONTROL_PAUSE_NS: u64 = 1_000 * MS;

/// A request that was lost is sent again after this long, and after twice as long each further time.
const CONTROL_RETRY_NS: u64 = 30_000 * MS;

/// A peer that took the request and tells nothing is asked again after this long: it may have given up
/// telling. Three tries of an update take less.
const SILENCE_NS: u64 = 120_000 * MS;

/// A peer that refused, or does not speak CCP, may have learnt better after this long.
const REFUSED_RETRY_NS: u64 = 600_000 * MS;

/// Where a listener stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ListenerState {
    /// No session, or routes are not wanted.
    #[default]
    Off,
    /// It asked, or is about to.
    Asking,
    /// The peer took the request; its table is not complete yet.
    Syncing,
    /// The peer's table is known as far as it went when it last spoke.
    Synced,
    /// The peer answered that there is nobody who would know routes.
    NotSpoken,
    /// The peer answered that it does not tell us.
    Refused,
}

/// What an update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// To be applied.
    Apply {
        /// It begins another table: what was known before goes when this one is complete.
        new_table: bool,
        /// Nothing is missing after it.
        complete: bool,
    },
    /// Known already.
    Old,
    /// Something between it and what we know is missing: not applied, and asked for.
    Gap {
        /// It belongs to a table that we do not know.
        foreign_table: bool,
    },
    /// It ends before it begins.
    Backwards,
}

/// One peer's table as we know it.
///
/// ```text
///          connect              fulfilled            last update of the table
///   Off ───────────▶ Asking ───────────────▶ Syncing ───────────────────────▶ Synced
///    ▲                │ ▲ └─ not spoken, refused ─▶ NotSpoken, Refused ─┐        │
///    │ disconnect     │ └────────── after ten minutes ──────────────────┘        │
///    └── from each    └◀───────────── gap, hold-down over ───────────────────────┘
/// ```
///
/// A peer that asks for ours while it does not tell us is asked at once: neighbours seldom start together.
/// Updates are taken in every state: some peers tell without being asked.
#[derive(Debug, Clone, Default)]
pub struct Listener {
    state: ListenerState,
    table_id: TableId,
    /// The table whose updates were applied last.
    applied: TableId,
    epoch: u32,
    expires_at_ns: Option<u64>,
    control_at_ns: Option<u64>,
    control_sent_ns: Option<u64>,
    in_flight: bool,
    /// The peer asked for ours while our request was on its way.
    is_there: bool,
    /// Requests in a row that were lost.
    lost_count: u32,
}

impl Listener {
    /// Where it stands.
    pub fn state(&self) -> ListenerState {
        self.state
    }

    /// The peer's table, and how far it is known.
    pub fn known(&self) -> (TableId, u32) {
        (self.table_id, self.epoch)
    }

    /// Until when the routes hold without another update.
    pub fn expires_at_ns(&self) -> Option<u64> {
        self.expires_at_ns
    }

    /// A session came up: it asks for what it does not know.
    pub fn connect(&mut self, now_ns: u64) {
        self.state = ListenerState::Asking;
        self.in_flight = false;
        self.ask(now_ns);
    }

    /// An operator wants to know now: a request that was to be repeated later is due.
    pub fn ask_again(&mut self, now_ns: u64) {
        let is_waiting = match self.state {
            ListenerState::Asking | ListenerState::NotSpoken | ListenerState::Refused => true,
            ListenerState::Off | ListenerState::Syncing | ListenerState::Synced => false,
        };
        if is_waiting && !self.in_flight {
            self.lost_count = 0;
            self.ask(now_ns);
        }
    }

    /// Whether a request is on its way, or about to be.
    pub fn is_asking(&self, now_ns: u64) -> bool {
        let soon_ns = now_ns.saturating_add(CONTROL_PAUSE_NS);
        self.in_flight || self.control_at_ns.is_some_and(|at_ns| at_ns <= soon_ns)
    }

    /// The session is gone, or routes are no longer wanted. Whatever was known is forgotten.
    pub fn disconnect(&mut self) {
        *self = Self {
            control_sent_ns: self.control_sent_ns,
            ..Self::default()
        };
    }

    /// What was known is forgotten, and asked for again.
    pub fn restart(&mut self, now_ns: u64) {
        self.disconnect();
        self.connect(now_ns);
    }

    /// The request that is due, to be sent now.
    pub fn poll_control(&mut self, now_ns: u64) -> Option<RouteControl> {
        if self.in_flight || self.control_at_ns? > now_ns {
            return None;
        }
        self.in_flight = true;
        self.control_at_ns = None;
        self.control_sent_ns = Some(now_ns);
        Some(RouteControl {
            mode: Mode::Sync,
            table_id: self.table_id,
            epoch: self.epoch,
            features: Vec::new(),
        })
    }

    /// The peer asks for our routes. It is there, then, and speaks CCP: a request that it did not take is
    /// due now. `anew` is whether it lost what it knew, and with it that we want to be told.
    pub fn peer_asked(&mut self, now_ns: u64, anew: bool) {
        let is_due = match self.state {
            ListenerState::Off => false,
            ListenerState::Asking | ListenerState::NotSpoken | ListenerState::Refused => true,
            ListenerState::Syncing | ListenerState::Synced => anew,
        };
        if is_due {
            self.lost_count = 0;
        }
        match is_due {
            true if self.in_flight => self.is_there = true,
            true => self.ask(now_ns),
            false => {}
        }
    }

    /// How the request was answered.
    pub fn control_answered(&mut self, now_ns: u64, reply: Reply) {
        if !std::mem::take(&mut self.in_flight) || self.state == ListenerState::Off {
            return;
        }
        let is_there = std::mem::take(&mut self.is_there);
        let (state, retry_ns) = match reply {
            Reply::Fulfilled => {
                self.lost_count = 0;
                if self.state != ListenerState::Synced {
                    self.state = ListenerState::Syncing;
                    self.control_at_ns = Some(now_ns.saturating_add(SILENCE_NS));
                }
                return;
            }
            Reply::NotSpoken => (ListenerState::NotSpoken, REFUSED_RETRY_NS),
            Reply::Refused => (ListenerState::Refused, REFUSED_RETRY_NS),
            Reply::Lost => {
                let factor = 1_u64.checked_shl(self.lost_count).unwrap_or(u64::MAX);
                self.lost_count += 1;
                let retry_ns = CONTROL_RETRY_NS.saturating_mul(factor);
                (ListenerState::Asking, retry_ns.min(REFUSED_RETRY_NS))
            }
        };
        self.state = state;
        self.control_at_ns = Some(now_ns.saturating_add(retry_ns));
        if is_there {
            self.ask(now_ns); // that was the answer of a peer that was not ready yet
        }
    }

    /// What to do with an update. It counts as applied with this call, and keeps the routes alive.
    pub fn handle_update(&mut self, now_ns: u64, head: &UpdateHead) -> Verdict {
        if head.to_epoch < head.from_epoch {
            return Verdict::Backwards;
        }
        // Some peers say hardly longer than the pause between two of their updates.
        let hold_ms = head.hold_down_ms.clamp(HOLD_DOWN_MS, HOLD_DOWN_MS_MAX);
        let holds_until_ns = now_ns.saturating_add(u64::from(hold_ms) * MS);
        let expires_at_ns = self.expires_at_ns.unwrap_or(0).max(holds_until_ns);

        let foreign_table = head.table_id != self.table_id;
        if foreign_table {
            self.table_id = head.table_id;
            self.epoch = 0;
        }
        if head.from_epoch > self.epoch {
            if self.state != ListenerState::Off {
                self.state = ListenerState::Asking;
            }
            self.ask(now_ns);
            return Verdict::Gap { foreign_table };
        }
        self.expires_at_ns = Some(expires_at_ns);
        if head.to_epoch < self.epoch {
            return Verdict::Old;
        }
        self.epoch = head.to_epoch;
        let new_table = self.applied != head.table_id;
        self.applied = head.table_id;
        let complete = head.to_epoch >= head.current_epoch;
        self.state = match complete {
            true => ListenerState::Synced,
            false => ListenerState::Syncing,
        };
        if !self.in_flight {
            self.control_at_ns = None;
        }
        Verdict::Apply {
            new_table,
            complete,
        }
    }

    /// Whether the routes no longer hold. Then they are forgotten and asked for again.
    pub fn expire(&mut self, now_ns: u64) -> bool {
        if self.expires_at_ns.is_none_or(|at_ns| at_ns > now_ns) {
            return false;
        }
        let was_on = self.state != ListenerState::Off;
        self.disconnect();
        if was_on {
            self.connect(now_ns);
        }
        true
    }

    /// When there is something to do.
    pub fn poll_timeout(&self) -> Option<u64> {
        let control = self.control_at_ns.filter(|_| !self.in_flight);
        control.into_iter().chain(self.expires_at_ns).min()
    }

    fn ask(&mut self, now_ns: u64) {
        let earliest_ns = self
            .control_sent_ns
            .map_or(0, |sent_ns| sent_ns.saturating_add(CONTROL_PAUSE_NS));
        self.control_at_ns = Some(now_ns.max(earliest_ns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: TableId = TableId([1; 16]);
    const OTHER: TableId = TableId([2; 16]);

    fn head(table_id: TableId, from_epoch: u32, to_epoch: u32) -> UpdateHead {
        UpdateHead {
            table_id,
            current_epoch: to_epoch,
            from_epoch,
            to_epoch,
            hold_down_ms: 45_000,
        }
    }

    fn synced() -> Listener {
        let mut listener = Listener::default();
        listener.connect(0);
        listener.poll_control(0).unwrap();
        listener.control_answered(0, Reply::Fulfilled);
        let verdict = listener.handle_update(0, &head(TABLE, 0, 5));
        let first = Verdict::Apply {
            new_table: true,
            complete: true,
        };
        assert_eq!(verdict, first);
        listener
    }

    #[test]
    fn updates_apply_on_top_of_each_other() {
        let mut listener = synced();
        let next = Verdict::Apply {
            new_table: false,
            complete: true,
        };
        assert_eq!(listener.handle_update(0, &head(TABLE, 5, 7)), next);
        assert_eq!(listener.handle_update(0, &head(TABLE, 7, 7)), next); // a heartbeat
        assert_eq!(listener.handle_update(0, &head(TABLE, 3, 8)), next); // overlaps
        assert_eq!(listener.handle_update(0, &head(TABLE, 0, 7)), Verdict::Old);
        assert_eq!(
            listener.handle_update(0, &head(TABLE, 9, 8)),
            Verdict::Backwards
        );
        assert_eq!(listener.known(), (TABLE, 8));
        assert_eq!(listener.state(), ListenerState::Synced);
    }

    #[test]
    fn a_gap_is_asked_for_at_a_pace() {
        let mut listener = synced();
        let gap = Verdict::Gap {
            foreign_table: false,
        };
        assert_eq!(listener.handle_update(0, &head(TABLE, 6, 7)), gap);
        assert_eq!(listener.poll_control(0), None);
        let control = listener.poll_control(CONTROL_PAUSE_NS).unwrap();
        assert_eq!((control.table_id, control.epoch), (TABLE, 5));
        assert_eq!(listener.handle_update(0, &head(TABLE, 6, 7)), gap);
        assert_eq!(listener.poll_control(u64::MAX), None, "one is on its way");
    }

    #[test]
    fn a_foreign_table_starts_from_nothing() {
        let mut listener = synced();
        let gap = Verdict::Gap {
            foreign_table: true,
        };
        assert_eq!(listener.handle_update(0, &head(OTHER, 1, 2)), gap);
        let control = listener.poll_control(CONTROL_PAUSE_NS).unwrap();
        assert_eq!((control.table_id, control.epoch), (OTHER, 0));
        let verdict = listener.handle_update(0, &head(OTHER, 0, 2));
        assert!(matches!(
            verdict,
            Verdict::Apply {
                new_table: true,
                ..
            }
        ));
    }

    #[test]
    fn routes_hold_for_their_time_and_are_asked_for_again() {
        let mut listener = synced();
        let end_ns = u64::from(HOLD_DOWN_MS) * MS;
        assert!(!listener.expire(end_ns - 1));
        listener.handle_update(1_000 * MS, &head(TABLE, 5, 5));
        assert!(!listener.expire(end_ns));
        assert!(listener.expire(end_ns + 1_000 * MS));
        assert_eq!(listener.known(), (TableId::NONE, 0));
        let control = listener.poll_control(end_ns + 1_000 * MS).unwrap();
        assert_eq!((control.table_id, control.epoch), (TableId::NONE, 0));
        // A time that would keep them for ever is cut.
        let mut forever = head(TABLE, 0, 1);
        forever.hold_down_ms = u32::MAX;
        listener.handle_update(end_ns, &forever);
        assert!(listener.expire(end_ns + u64::from(HOLD_DOWN_MS_MAX) * MS));
    }

    #[test]
    fn an_unanswered_request_is_repeated_and_a_refused_one_much_later() {
        for (reply, state, wait_ns) in [
            (Reply::Lost, ListenerState::Asking, CONTROL_RETRY_NS),
            (Reply::NotSpoken, ListenerState::NotSpoken, REFUSED_RETRY_NS),
            (Reply::Refused, ListenerState::Refused, REFUSED_RETRY_NS),
        ] {
            let mut listener = Listener::default();
            listener.connect(7);
            assert!(listener.poll_control(7).is_some());
            listener.control_answered(7, reply);
            assert_eq!(listener.state(), state);
            assert_eq!(listener.poll_timeout(), Some(7 + wait_ns));
            assert_eq!(listener.poll_control(6 + wait_ns), None);
            // Whoever asks us does speak, and is there.
            let mut asked = listener.clone();
            asked.peer_asked(7 + CONTROL_PAUSE_NS, false);
            assert!(asked.poll_control(7 + CONTROL_PAUSE_NS).is_some());
            asked.peer_asked(8 + CONTROL_PAUSE_NS, false);
            asked.control_answered(8 + CONTROL_PAUSE_NS, reply);
            assert_eq!(asked.poll_timeout(), Some(7 + 2 * CONTROL_PAUSE_NS));
            assert!(listener.poll_control(7 + wait_ns).is_some());
        }
    }

    #[test]
    fn whoever_never_answers_is_asked_ever_less_until_it_shows_that_it_speaks() {
        let mut listener = Listener::default();
        listener.connect(0);
        let mut now_ns = 0;
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert!(listener.poll_control(now_ns).is_some());
            assert!(listener.is_asking(now_ns));
            listener.control_answered(now_ns, Reply::Lost);
            assert!(!listener.is_asking(now_ns));
            let next_ns = listener.poll_timeout().unwrap();
            waits.push((next_ns - now_ns) / (1_000 * MS));
            now_ns = next_ns;
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 600, 600]);
        // It asks us, or an operator wants to know: that is a new beginning.
        for begin in [
            |listener: &mut Listener, now_ns| listener.peer_asked(now_ns, false),
            Listener::ask_again,
        ] {
            listener.poll_control(now_ns).unwrap();
            listener.control_answered(now_ns, Reply::Lost);
            now_ns += 5_000 * MS;
            begin(&mut listener, now_ns);
            assert!(listener.poll_control(now_ns).is_some());
            listener.control_answered(now_ns, Reply::Lost);
            assert_eq!(listener.poll_timeout(), Some(now_ns + CONTROL_RETRY_NS));
            now_ns += CONTROL_RETRY_NS;
        }
    }

    #[test]
    fn whoever_takes_the_request_and_tells_nothing_is_asked_again() {
        let mut listener = Listener::default();
        listener.connect(0);
        listener.poll_control(0).unwrap();
        listener.control_answered(0, Reply::Fulfilled);
        listener.ask_again(0);
        assert_eq!(listener.poll_timeout(), Some(SILENCE_NS));
        assert!(listener.poll_control(SILENCE_NS).is_some());
        listener.control_answered(SILENCE_NS, Reply::Fulfilled);
        listener.handle_update(SILENCE_NS, &head(TABLE, 0, 1));
        assert_eq!(listener.state(), ListenerState::Synced);
        assert_eq!(listener.poll_timeout(), listener.expires_at_ns());
    }
}
