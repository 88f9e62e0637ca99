//! How long the server recently took to respond to a probe. It sends nothing itself.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A slower response counts at once, and a faster one by this fraction. Closing a connection
/// that is only slow costs more than waiting for a dead one.
const FADING: u64 = 8;

/// In microseconds. Zero before the first response.
#[derive(Debug, Default)]
pub(in crate::store) struct RoundTrip(AtomicU64);

impl RoundTrip {
    pub(in crate::store) fn observe(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let next = |before: u64| Some(took.max(before - before.div_ceil(FADING)));
        // It can't fail, because the closure never returns `None`.
        let _ = self.0.fetch_update(Relaxed, Relaxed, next);
    }

    pub(in crate::store) fn recent(&self) -> Duration {
        Duration::from_micros(self.0.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(round_trips: impl IntoIterator<Item = u64>) -> Duration {
        let round_trip = RoundTrip::default();
        for millis in round_trips {
            round_trip.observe(Duration::from_millis(millis));
        }
        round_trip.recent()
    }

    #[test]
    fn a_slow_round_trip_counts_at_once() {
        assert_eq!(after([1, 1, 300]), Duration::from_millis(300));
    }

    #[test]
    fn a_quick_round_trip_after_a_slow_one_changes_little() {
        let after = after([300, 1]);
        assert!(after > Duration::from_millis(250), "{after:?}");
    }

    #[test]
    fn a_way_that_is_quick_again_is_noticed() {
        let after = after([300].into_iter().chain([1; 60]));
        assert_eq!(after, Duration::from_millis(1));
    }
}
