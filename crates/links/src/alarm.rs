//! The time that a connection's task allows its peer.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
};

use tokio::{
    task::coop::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

/// A timer for deadlines that mostly do not come: it is moved when it rings, or would ring too late, and is not
/// even looked at before.
pub(crate) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// When it rings next.
    rings: Instant,
    /// Whether it will wake the task then. There is one task per alarm.
    is_set: bool,
}

impl Alarm {
    pub(crate) fn new(rings: Instant) -> Self {
        Self {
            sleep: Box::pin(sleep_until(rings)),
            rings,
            is_set: false,
        }
    }

    /// Whether the task is woken no later than then.
    pub(crate) fn rings_by(&self, deadline: Instant) -> bool {
        self.is_set && self.rings <= deadline
    }

    /// Ready once the deadline is over. The task is woken then, and perhaps before.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut now: Instant,
        deadline: Instant,
    ) -> Poll<()> {
        while now < deadline {
            if self.rings_by(deadline) && now < self.rings {
                return Poll::Pending;
            }
            if self.rings <= now || deadline < self.rings {
                self.rings = deadline;
                self.sleep.as_mut().reset(deadline);
            }
            // A task that has done enough for one turn would be told to wait for a timer that is not set.
            let mut sleep = pin!(unconstrained(self.sleep.as_mut()));
            self.is_set = sleep.as_mut().poll(cx).is_pending();
            if !self.is_set {
                now = Instant::now();
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, mem, time::Duration};

    use tokio::{
        task::coop::poll_proceed,
        time::{sleep, timeout},
    };

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn over(alarm: &mut Alarm, deadline: Instant) {
        poll_fn(|cx| alarm.poll(cx, Instant::now(), deadline)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_are_met_whenever_the_alarm_rings() {
        let start = Instant::now();
        // Later than, at and before the time that it was made for, and again for a time that it was set beyond.
        for seconds in [7, 5, 2] {
            let mut alarm = Alarm::new(start + 5 * SECOND);
            let begin = Instant::now();
            for deadline in [begin + seconds * SECOND, begin + 8 * SECOND] {
                over(&mut alarm, deadline).await;
                assert_eq!(Instant::now(), deadline);
            }
            let deadline = begin + 30 * SECOND;
            assert!(timeout(SECOND, over(&mut alarm, deadline)).await.is_err());
            let sooner = Instant::now() + SECOND;
            assert!(!alarm.rings_by(sooner) && alarm.rings_by(deadline));
            over(&mut alarm, sooner).await;
            assert_eq!(Instant::now(), sooner);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_has_done_much_sets_it_all_the_same() {
        let deadline = Instant::now() + SECOND;
        let mut alarm = Alarm::new(deadline);
        let mut has_much_to_do = true;
        let late = poll_fn(|cx| {
            if mem::take(&mut has_much_to_do) {
                while let Poll::Ready(spent) = poll_proceed(cx) {
                    spent.made_progress();
                }
            }
            alarm.poll(cx, Instant::now(), deadline)
        });
        assert_eq!(timeout(9 * SECOND, late).await, Ok(()));
        assert_eq!(Instant::now(), deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_rang_unseen_is_no_alarm() {
        let mut alarm = Alarm::new(Instant::now() + SECOND);
        let far = Instant::now() + 9 * SECOND;
        assert!(timeout(SECOND / 2, over(&mut alarm, far)).await.is_err());
        // The task was woken for another reason, and looks only now.
        sleep(3 * SECOND).await;
        over(&mut alarm, far).await;
        assert_eq!(Instant::now(), far);
    }
}
