//! The database's clock, estimated in this process. It never reads the clock of this machine,
//! only the time that has passed here.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

/// If the database is this many seconds behind an earlier time, its clock was set, or it is
/// another server.
const STEP: f64 = 1.0;

/// The last time that the database returned, plus the time that has passed here since. A
/// statement that writes doesn't return the time, because Citus refuses that. This estimate
/// is precise enough for what is computed with it.
#[derive(Debug)]
pub(in crate::store) struct Clock {
    start: Instant,
    /// Seconds since the epoch at `start`, as the bits of a number.
    epoch: AtomicU64,
}

impl Clock {
    pub(in crate::store) fn at(now: f64) -> Self {
        Self {
            start: Instant::now(),
            epoch: AtomicU64::new(now.to_bits()),
        }
    }

    /// Records a time that the database returned. A response takes a while to arrive, so the
    /// latest epoch is the most precise one.
    pub(in crate::store) fn observe(&self, now: f64) {
        let observed = now - self.passed();
        let known = self.epoch();
        if observed > known || observed < known - STEP {
            self.epoch.store(observed.to_bits(), Relaxed);
        }
    }

    /// The estimate. It is never before a time that was recorded, unless the clock was set.
    pub(in crate::store) fn now(&self) -> f64 {
        self.epoch() + self.passed()
    }

    fn epoch(&self) -> f64 {
        f64::from_bits(self.epoch.load(Relaxed))
    }

    fn passed(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_time_passes_here_as_it_does_there() {
        let clock = Clock::at(1000.0);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.now(), 1005.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_response_does_not_put_the_clock_back() {
        let clock = Clock::at(1000.0);
        clock.observe(999.5);
        assert_eq!(clock.now(), 1000.0);
        clock.observe(1000.5);
        assert_eq!(clock.now(), 1000.5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_set_back_is_followed() {
        let clock = Clock::at(1000.0);
        clock.observe(900.0);
        assert_eq!(clock.now(), 900.0);
    }
}
