//! The timeouts of a layer: computes when a session expires. It does no I/O and reads no
//! clock: all times come from the database with the row. It doesn't know the store or
//! requests.
//!
//! Two limits apply to a session:
//!
//! - A *ttl*, in seconds from each touch: the session's own idle timeout, or the layer's.
//! - A *deadline*, a fixed time: the session's own expiry, or its creation plus the absolute
//!   timeout of the session or the layer.
//!
//! Together they are an [`Extent`]. Each write that extends the session sets the stored expiry
//! to `now + ttl`, but not past the deadline. When a row is loaded, the limits are checked
//! again, because the layer's timeouts may have changed since.
//!
//! A session of another system, such as Koa or Express, has other rules, see [`ExpiryRules`].

use std::time::Duration;

use crate::{
    Error, ErrorKind,
    expiry::{ExpiryRules, Extent, Meta, Times},
};

/// The default idle timeout.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_hours(24);
/// The default absolute timeout.
pub(crate) const ABSOLUTE_TIMEOUT: Duration = Duration::from_hours(30 * 24);
/// Seconds by which a fixed expiry may differ in the table: the table holds
/// microseconds, and another system writes it by its own clock.
pub(crate) const ROUNDING: f64 = 1.0;
/// The longest lifetime of a cookie (RFC 6265bis, section 5.5).
pub(crate) const COOKIE_LIMIT: Duration = Duration::from_hours(400 * 24);
/// The latest time that is stored in Postgres, in seconds since the epoch. Its calendar
/// ends in the year 294276, many millennia later.
const CALENDAR: f64 = 4e12;

/// The absolute timeout of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Absolute {
    /// The default limit, if the table has the column `created`.
    WherePossible,
    Off,
    After(Duration),
}

/// The timeouts of a layer.
#[derive(Clone, Debug)]
pub(crate) struct Timeouts {
    /// `None` if the application did not choose one.
    pub(crate) idle: Option<Duration>,
    /// The idle timeout if the application chose none.
    pub(crate) default_idle: Duration,
    pub(crate) absolute: Absolute,
    pub(crate) touch_interval: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            idle: None,
            default_idle: IDLE_TIMEOUT,
            absolute: Absolute::WherePossible,
            touch_interval: None,
        }
    }
}

impl Timeouts {
    pub(crate) fn idle(&self) -> Duration {
        self.idle.unwrap_or(self.default_idle)
    }

    /// The session's own idle timeout and fixed expiry, in seconds.
    fn own_terms(&self, meta: &Meta) -> (Option<f64>, Option<f64>) {
        match (meta.rules, self.idle) {
            (ExpiryRules::Foreign, Some(idle)) => (Some(idle.as_secs_f64()), None),
            _ => (meta.idle, meta.until),
        }
    }

    /// Whether the session has a fixed expiry of its own, whatever its
    /// activity.
    pub(crate) fn has_own_end(&self, meta: &Meta) -> bool {
        self.own_terms(meta).1.is_some()
    }

    /// The extent of a session that was created at `created`.
    pub(crate) fn extent(&self, meta: &Meta, created: Option<f64>) -> Extent {
        let ttl = match self.own_terms(meta) {
            (None, Some(_)) => f64::INFINITY,
            (idle, _) => idle.unwrap_or(self.idle().as_secs_f64()),
        };
        Extent {
            ttl: in_calendar(ttl),
            until: self.deadline(meta, created).map(in_calendar),
        }
    }

    fn deadline(&self, meta: &Meta, created: Option<f64>) -> Option<f64> {
        self.own_terms(meta)
            .1
            .or_else(|| Some(created? + self.absolute_seconds(meta)?))
            .filter(|deadline| *deadline < CALENDAR)
    }

    fn absolute_seconds(&self, meta: &Meta) -> Option<f64> {
        if meta.absolute.is_some() {
            return meta.absolute;
        }
        match (self.absolute, meta.rules) {
            (Absolute::WherePossible, ExpiryRules::Ours) => Some(ABSOLUTE_TIMEOUT.as_secs_f64()),
            (Absolute::After(limit), _) => Some(limit.as_secs_f64()),
            (Absolute::Off, _) | (Absolute::WherePossible, ExpiryRules::Foreign) => None,
        }
    }

    /// Whether the session exceeds a limit that the stored expiry doesn't reflect yet:
    /// the layer's timeouts may have been lowered since the row was written. A stored
    /// expiry may seem to be ahead by `zone_slack` seconds.
    pub(crate) fn has_ended(&self, meta: &Meta, times: Times, zone_slack: f64) -> bool {
        let is_past_deadline = self
            .deadline(meta, times.created)
            .is_some_and(|deadline| deadline <= times.now);
        is_past_deadline || self.has_idled_out(meta, times, zone_slack)
    }

    /// If the table has no `last_seen`, the idle time is unknown. An expiry
    /// further ahead than the idle timeout was written under a longer timeout,
    /// so the session counts as expired. Another system moves the expiry by its own
    /// rules, which don't depend on activity.
    fn has_idled_out(&self, meta: &Meta, times: Times, zone_slack: f64) -> bool {
        let ttl = self.extent(meta, times.created).ttl;
        if meta.rules == ExpiryRules::Foreign || ttl.is_infinite() {
            return false;
        }
        match times.seen {
            Some(seen) => times.now - seen >= ttl,
            None => times.expires - times.now > ttl + ROUNDING + zone_slack,
        }
    }

    /// How long a browser can use the cookie of this session.
    pub(crate) fn cookie_life(&self, meta: &Meta, times: Times) -> Duration {
        self.deadline(meta, times.created)
            .map(|deadline| (deadline - times.now).clamp(0.0, COOKIE_LIMIT.as_secs_f64()))
            .map_or(COOKIE_LIMIT, Duration::from_secs_f64)
    }

    /// Whether a cookie that is set only once can expire before its session.
    pub(crate) fn outlives_cookie(&self, meta: &Meta, times: Times) -> bool {
        meta.rules == ExpiryRules::Foreign || self.cookie_life(meta, times) >= COOKIE_LIMIT
    }

    /// # Errors
    ///
    /// If the timeouts contradict each other.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.idle().is_zero() || self.absolute == Absolute::After(Duration::ZERO) {
            return Err(Error::new(
                ErrorKind::Setup,
                "a timeout of zero ends every session at once; an absolute timeout of `None` is no limit",
            ));
        }
        if self
            .touch_interval
            .is_some_and(|interval| interval >= self.idle())
        {
            return Err(Error::new(
                ErrorKind::Setup,
                "the touch interval must be shorter than the idle timeout, otherwise no session is ever extended",
            ));
        }
        Ok(())
    }

    /// The extent of a row that is inserted. Its creation time is not known yet, so both
    /// limits are seconds from the insert, and the earlier one wins.
    pub(crate) fn extent_of_new(&self, meta: &Meta, has_created: bool) -> Extent {
        let from_now = self.extent(meta, has_created.then_some(0.0));
        match self.has_own_end(meta) {
            true => from_now,
            false => Extent {
                ttl: from_now.from(0.0),
                until: None,
            },
        }
    }
}

/// A time beyond Postgres's calendar means never; a negative one means now.
fn in_calendar(seconds: f64) -> f64 {
    match seconds > CALENDAR {
        true => f64::INFINITY,
        false => seconds.max(0.0),
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::{Expiry, document::Document, touch::is_touch_due};

    fn remember(expiry: Expiry, document: &mut Document) {
        document
            .layout()
            .remember(expiry, document, &Document::default());
    }

    const HOUR: f64 = 3600.0;
    const DAY: f64 = 24.0 * HOUR;

    #[test]
    fn the_documented_timeouts_are_the_defaults() {
        let extent = Timeouts::default().extent(&Meta::default(), Some(1000.0));
        assert_eq!(extent.ttl, DAY);
        assert_eq!(extent.until, Some(1000.0 + 30.0 * DAY));
    }

    #[test]
    fn the_earlier_timeout_wins() {
        let extent = Timeouts::default().extent(&Meta::default(), Some(0.0));
        assert_eq!(extent.from(HOUR), HOUR + DAY);
        assert_eq!(extent.from(29.5 * DAY), 30.0 * DAY);
    }

    #[test]
    fn without_a_creation_time_only_idleness_ends_a_session() {
        let extent = Timeouts::default().extent(&Meta::default(), None);
        assert_eq!(extent.until, None);
    }

    #[test]
    fn a_session_with_timeouts_of_its_own_knows_no_other() {
        let mut document = Document::default();
        let (idle, absolute) = (Duration::from_hours(48), Duration::from_hours(24 * 90));
        remember(Expiry::Timeouts { idle, absolute }, &mut document);
        let extent = Timeouts::default().extent(&document.meta(), Some(HOUR));
        assert_eq!(extent.ttl, 2.0 * DAY);
        assert_eq!(extent.until, Some(HOUR + 90.0 * DAY));
        remember(Expiry::Default, &mut document);
        assert_eq!(document.to_text(), "{}");
    }

    #[test]
    fn an_absolute_timeout_that_was_lowered_ends_older_sessions() {
        let timeouts = Timeouts {
            absolute: Absolute::After(Duration::from_hours(1)),
            ..Timeouts::default()
        };
        assert!(timeouts.has_ended(&Meta::default(), Times::of(HOUR, DAY, 0.0), 0.0));
        assert!(!timeouts.has_ended(&Meta::default(), Times::of(HOUR - 1.0, DAY, 0.0), 0.0));
    }

    #[test]
    fn an_idle_timeout_that_was_lowered_ends_sessions_that_have_idled_for_longer() {
        let timeouts = Timeouts {
            idle: Some(Duration::from_mins(15)),
            ..Timeouts::default()
        };
        let ended = |times| timeouts.has_ended(&Meta::default(), times, 0.0);
        let seen = |ago| Times {
            seen: Some(20.0 * DAY - ago),
            ..Times::of(20.0 * DAY, 30.0 * DAY, 0.0)
        };
        assert!(ended(seen(15.0 * 60.0)));
        assert!(!ended(seen(14.0 * 60.0)));
        // Without `last_seen` only the expiry shows it.
        assert!(ended(Times::of(0.0, 16.0 * 60.0, 0.0)));
        assert!(!ended(Times::of(0.0, 15.0 * 60.0, 0.0)));
    }

    #[test]
    fn an_idle_timeout_of_its_own_is_not_lowered_by_the_layer() {
        let timeouts = Timeouts {
            idle: Some(Duration::from_mins(15)),
            ..Timeouts::default()
        };
        let mut document = Document::default();
        remember(Expiry::Idle(Duration::from_hours(24)), &mut document);
        assert!(!timeouts.has_ended(&document.meta(), Times::of(0.0, DAY, 0.0), 0.0));
    }

    #[test]
    fn a_session_with_its_own_end_knows_no_other() {
        let mut document = Document::default();
        let end = OffsetDateTime::UNIX_EPOCH + Duration::from_hours(24 * 60);
        remember(Expiry::At(end), &mut document);
        let extent = Timeouts::default().extent(&document.meta(), Some(0.0));
        assert_eq!(extent.from(HOUR), 60.0 * DAY);
        remember(Expiry::Default, &mut document);
        assert_eq!(document.to_text(), "{}");
    }

    #[test]
    fn no_cookie_outlives_400_days() {
        let timeouts = Timeouts {
            absolute: Absolute::After(Duration::from_hours(500 * 24)),
            ..Timeouts::default()
        };
        let life = timeouts.cookie_life(&Meta::default(), Times::of(0.0, DAY, 0.0));
        assert_eq!(life, COOKIE_LIMIT);
        let forever = timeouts.cookie_life(
            &Meta::default(),
            Times {
                created: None,
                ..Times::of(0.0, DAY, 0.0)
            },
        );
        assert_eq!(forever, COOKIE_LIMIT);
    }

    #[test]
    fn timeouts_that_no_calendar_reaches_are_none() {
        let timeouts = Timeouts {
            idle: Some(Duration::MAX),
            absolute: Absolute::After(Duration::MAX),
            ..Timeouts::default()
        };
        let extent = timeouts.extent(&Meta::default(), Some(0.0));
        assert_eq!((extent.ttl, extent.until), (f64::INFINITY, None));
        assert!(!is_touch_due(
            &timeouts,
            &Meta::default(),
            Times::of(HOUR, f64::INFINITY, 0.0)
        ));
    }
}
