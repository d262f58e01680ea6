//! One timer of a task, for a deadline that moves with nearly everything the task does.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// Rings at a deadline. To have the runtime ring earlier than it was going to costs a system call, so a
/// deadline that moves to later leaves the ring where it is: it comes too early once, is waited out here,
/// and is set anew.
#[derive(Default)]
pub(crate) struct Alarm {
    ring: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// Waits for a deadline; for ever if there is none. Cancellation-safe.
    pub(crate) async fn at(&mut self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else {
            return std::future::pending().await;
        };
        let ring = self
            .ring
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < ring.deadline() {
            ring.as_mut().reset(deadline);
        }
        ring.as_mut().await;
        if Instant::now() < deadline {
            ring.as_mut().reset(deadline);
            ring.as_mut().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_the_deadline_wherever_that_was_before() {
        let (mut alarm, began) = (Alarm::default(), Instant::now());
        let after = |seconds| Some(began + Duration::from_secs(seconds));
        for seconds in [5, 9, 3, 7] {
            assert!(alarm.at(after(seconds)).now_or_never().is_none());
        }
        assert!(alarm.at(None).now_or_never().is_none());
        alarm.at(after(7)).await;
        assert_eq!(began.elapsed().as_secs(), 7);
        // It is over, and rings for whoever waits for it still.
        alarm.at(after(7)).await;
        alarm.at(after(6)).await;
        assert_eq!(began.elapsed().as_secs(), 7);
        assert!(alarm.at(after(20)).now_or_never().is_none());
        alarm.at(after(11)).await;
        assert_eq!(
            began.elapsed().as_secs(),
            11,
            "it rings earlier if asked to"
        );
        alarm.at(after(15)).await;
        assert_eq!(began.elapsed().as_secs(), 15, "or later, after it rang");
    }
}
