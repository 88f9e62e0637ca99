//! When a session is touched: when a request that doesn't change it moves its expiry. It does
//! no I/O and reads no clock.
//!
//! To save writes, a touch is only due when it would move the expiry, or the time when the
//! session was last seen, by the touch interval.

use crate::{
    expiry::{Extent, Meta, Times},
    timeouts::{ROUNDING, Timeouts},
};

/// Touches per idle timeout, by default. The index on `expiry` makes each touch
/// expensive, so twenty must suffice.
const TOUCHES_PER_IDLE_TIMEOUT: u32 = 20;

/// Whether a save extends its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    Never,
    IfDue,
    Always,
}

/// Whether a touch would move the expiry, or `last_seen`, far enough to be worth a
/// write.
pub(crate) fn is_touch_due(timeouts: &Timeouts, meta: &Meta, times: Times) -> bool {
    let extent = timeouts.extent(meta, times.created);
    let moved = (extent.from(times.now) - times.expires).abs();
    // At the absolute timeout the expiry no longer moves, but `last_seen`
    // does.
    let unseen = times.seen.map_or(0.0, |seen| times.now - seen);
    (moved > 0.0 && moved >= precision(timeouts, extent))
        || (unseen > 0.0 && unseen >= precision_of_seen(timeouts, extent))
}

fn precision_of_seen(timeouts: &Timeouts, extent: Extent) -> f64 {
    precision(
        timeouts,
        Extent {
            ttl: extent.ttl.min(timeouts.idle().as_secs_f64()),
            ..extent
        },
    )
}

/// Seconds by which the stored expiry may lag behind.
fn precision(timeouts: &Timeouts, extent: Extent) -> f64 {
    if extent.ttl.is_infinite() {
        return ROUNDING;
    }
    timeouts.touch_interval.map_or(
        extent.ttl / f64::from(TOUCHES_PER_IDLE_TIMEOUT),
        |interval| interval.as_secs_f64() * share_of_idle(timeouts, extent.ttl),
    )
}

/// A session with a shorter idle timeout than the layer's is touched as
/// often within it. Otherwise it would never be touched.
fn share_of_idle(timeouts: &Timeouts, ttl: f64) -> f64 {
    (ttl / timeouts.idle().as_secs_f64()).min(1.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: f64 = 3600.0;
    const DAY: f64 = 24.0 * HOUR;

    #[test]
    fn a_touch_is_due_after_a_twentieth_of_the_idle_timeout() {
        let timeouts = Timeouts::default();
        let due = |passed| is_touch_due(&timeouts, &Meta::default(), Times::of(passed, DAY, 0.0));
        assert!(!due(0.0));
        assert!(!due(DAY / 20.0 - 1.0));
        assert!(due(DAY / 20.0));
    }

    #[test]
    fn a_touch_interval_of_zero_touches_always() {
        let timeouts = Timeouts {
            touch_interval: Some(Duration::ZERO),
            ..Timeouts::default()
        };
        assert!(is_touch_due(
            &timeouts,
            &Meta::default(),
            Times::of(0.001, DAY, 0.0)
        ));
    }

    #[test]
    fn a_session_at_its_absolute_end_is_not_touched_any_more() {
        let at_the_end = Times::of(29.5 * DAY, 30.0 * DAY, 0.0);
        assert!(!is_touch_due(
            &Timeouts::default(),
            &Meta::default(),
            at_the_end
        ));
    }

    #[test]
    fn at_its_absolute_end_a_session_is_touched_to_say_when_it_was_seen() {
        let seen = |seen| Times {
            seen: Some(seen),
            ..Times::of(29.5 * DAY, 30.0 * DAY, 0.0)
        };
        let due = |times| is_touch_due(&Timeouts::default(), &Meta::default(), times);
        assert!(due(seen(29.0 * DAY)));
        assert!(!due(seen(29.5 * DAY - HOUR)));
    }

    #[test]
    fn an_idle_timeout_that_was_lowered_is_due_at_once() {
        let timeouts = Timeouts {
            idle: Some(Duration::from_mins(5)),
            ..Timeouts::default()
        };
        assert!(is_touch_due(
            &timeouts,
            &Meta::default(),
            Times::of(0.0, DAY, 0.0)
        ));
    }
}
