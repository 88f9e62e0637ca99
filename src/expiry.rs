//! Computes when a session expires, and when a touch is due. It does no I/O and reads
//! no clock: all times come from the database with the row. It doesn't know the store
//! or requests.
//!
//! Two limits apply to a session:
//!
//! - A *ttl*, in seconds from each touch: the session's own idle timeout, or the
//!   layer's.
//! - A *deadline*, a fixed time: the session's own expiry, or its creation plus the
//!   absolute timeout of the session or the layer.
//!
//! Together they are an [`Extent`]. Each write that extends the session sets the stored
//! expiry to `now + ttl`, but not past the deadline. To save writes, a touch is only due
//! when it would move the expiry by the touch interval. When a row is loaded, the
//! limits are checked again, because the layer's timeouts may have changed since.
//!
//! A session of another system, such as Koa, has other rules, see [`Reckoning`].

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::{CookieLifetime, Error, ErrorKind};

/// The default idle timeout.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_hours(24);
/// The default absolute timeout.
pub(crate) const ABSOLUTE_TIMEOUT: Duration = Duration::from_hours(30 * 24);
/// Touches per idle timeout, by default. The index on `expiry` makes each touch
/// expensive, so twenty must suffice.
pub(crate) const TOUCHES_PER_IDLE_TIMEOUT: u32 = 20;
/// Seconds by which a fixed expiry may differ in the table: the table holds
/// microseconds, and another system writes it by its own clock.
const ROUNDING: f64 = 1.0;
/// The longest lifetime of a cookie (RFC 6265bis, section 5.5).
pub(crate) const COOKIE_LIMIT: Duration = Duration::from_hours(400 * 24);
/// The latest time that is stored in Postgres, in seconds since the epoch. Its calendar
/// ends in the year 294276, many millennia later.
const CALENDAR: f64 = 4e12;

/// How long the old id of a session forwards late saves to the successor row.
/// It opens no session meanwhile. Longer than any request should run.
pub(crate) const FORWARDING: Duration = Duration::from_secs(60);
/// How long a request that arrives with the old token can't change anything.
/// The response with the new token is still on its way to the browser, and a
/// second session would replace its cookie. The time is longer than a response
/// takes on a slow network. After it, the response counts as lost, and a write
/// begins a new session.
pub(crate) const MOVED_GRACE: Duration = Duration::from_secs(5);

/// The rest of [`MOVED_GRACE`] for a row that only forwards.
pub(crate) fn moved_grace_left(times: Times) -> Option<Duration> {
    let left = times.expires - times.now - (FORWARDING - MOVED_GRACE).as_secs_f64();
    (left > 0.0).then(|| Duration::from_secs_f64(left.min(MOVED_GRACE.as_secs_f64())))
}

/// When a session expires, for
/// [`Session::set_expiry`](crate::Session::set_expiry).
///
/// ```
/// use std::time::Duration;
/// use axum_pg_session::{Expiry, PgSessionLayer, PgSessionStore, testing::TestVisitor};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// # let store = PgSessionStore::connect(database.url()).await?;
/// # store.migrate().await?;
/// const HOUR: Duration = Duration::from_secs(60 * 60);
/// let ada = TestVisitor::new(&PgSessionLayer::new(store));
/// ada.with_session(|session| {
///     session.insert("basket", ["tea"])?;
///     session.set_expiry(Expiry::Idle(HOUR))
/// })
/// .await?;
///
/// ada.idle_for(HOUR / 2).await?;
/// assert!(!ada.session().await?.is_new());
/// ada.idle_for(HOUR).await?;
/// assert!(ada.session().await?.is_new());
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Expiry {
    /// By the layer's idle and absolute timeouts.
    Default,
    /// After this long without a request. The layer's absolute timeout also
    /// applies.
    Idle(Duration),
    /// At this instant, whatever the activity and the layer's timeouts are.
    At(OffsetDateTime),
    /// After `idle` without a request, and at the latest `absolute` after the
    /// session began or its user signed in. The layer's timeouts don't apply.
    ///
    /// Needs the column `created`. Koa's format can't store it.
    Timeouts {
        /// The longest time without a request.
        idle: Duration,
        /// The longest time, whatever the activity.
        absolute: Duration,
    },
}

pub(crate) fn epoch_seconds(instant: OffsetDateTime) -> f64 {
    let since = instant - OffsetDateTime::UNIX_EPOCH;
    since.as_seconds_f64()
}

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
    pub(crate) absolute: Absolute,
    pub(crate) touch_interval: Option<Duration>,
}

/// The times of a row by the database's clock, in seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Times {
    pub(crate) now: f64,
    pub(crate) expires: f64,
    pub(crate) created: Option<f64>,
    /// The last request that extended the session, if the table has the column.
    pub(crate) seen: Option<f64>,
}

/// How far a write moves the expiry: `ttl` seconds from the database's now,
/// but not past `until`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Extent {
    pub(crate) ttl: f64,
    pub(crate) until: Option<f64>,
}

impl Extent {
    pub(crate) fn from(self, now: f64) -> f64 {
        (now + self.ttl).min(self.until.unwrap_or(f64::INFINITY))
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            idle: None,
            absolute: Absolute::WherePossible,
            touch_interval: None,
        }
    }
}

impl Timeouts {
    pub(crate) fn idle(&self) -> Duration {
        self.idle.unwrap_or(IDLE_TIMEOUT)
    }

    /// The session's own idle timeout and fixed expiry, in seconds.
    fn own_terms(&self, meta: &Meta) -> (Option<f64>, Option<f64>) {
        match (meta.reckoning, self.idle) {
            (Reckoning::Foreign, Some(idle)) => (Some(idle.as_secs_f64()), None),
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
        match (self.absolute, meta.reckoning) {
            (Absolute::WherePossible, Reckoning::Ours) => Some(ABSOLUTE_TIMEOUT.as_secs_f64()),
            (Absolute::After(limit), _) => Some(limit.as_secs_f64()),
            (Absolute::Off, _) | (Absolute::WherePossible, Reckoning::Foreign) => None,
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
        if meta.reckoning == Reckoning::Foreign || ttl.is_infinite() {
            return false;
        }
        match times.seen {
            Some(seen) => times.now - seen >= ttl,
            None => times.expires - times.now > ttl + ROUNDING + zone_slack,
        }
    }

    /// Whether a touch would move the expiry, or `last_seen`, far enough to be worth a
    /// write.
    pub(crate) fn is_touch_due(&self, meta: &Meta, times: Times) -> bool {
        let extent = self.extent(meta, times.created);
        let moved = (extent.from(times.now) - times.expires).abs();
        // At the absolute timeout the expiry no longer moves, but `last_seen`
        // does.
        let unseen = times.seen.map_or(0.0, |seen| times.now - seen);
        (moved > 0.0 && moved >= self.precision(extent))
            || (unseen > 0.0 && unseen >= self.precision_of_seen(extent))
    }

    fn precision_of_seen(&self, extent: Extent) -> f64 {
        self.precision(Extent {
            ttl: extent.ttl.min(self.idle().as_secs_f64()),
            ..extent
        })
    }

    /// Seconds by which the stored expiry may lag behind.
    fn precision(&self, extent: Extent) -> f64 {
        if extent.ttl.is_infinite() {
            return ROUNDING;
        }
        self.touch_interval.map_or(
            extent.ttl / f64::from(TOUCHES_PER_IDLE_TIMEOUT),
            |interval| interval.as_secs_f64() * self.share_of_idle(extent.ttl),
        )
    }

    /// A session with a shorter idle timeout than the layer's is touched as
    /// often within it. Otherwise it would never be touched.
    fn share_of_idle(&self, ttl: f64) -> f64 {
        (ttl / self.idle().as_secs_f64()).min(1.0)
    }

    /// How long a browser can use the cookie of this session.
    pub(crate) fn cookie_life(&self, meta: &Meta, times: Times) -> Duration {
        self.deadline(meta, times.created)
            .map(|deadline| (deadline - times.now).clamp(0.0, COOKIE_LIMIT.as_secs_f64()))
            .map_or(COOKIE_LIMIT, Duration::from_secs_f64)
    }

    /// Whether a cookie that is set only once can expire before its session.
    pub(crate) fn outlives_cookie(&self, meta: &Meta, times: Times) -> bool {
        meta.reckoning == Reckoning::Foreign || self.cookie_life(meta, times) >= COOKIE_LIMIT
    }

    /// # Errors
    ///
    /// If the timeouts contradict each other.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.idle().is_zero() || self.absolute == Absolute::After(Duration::ZERO) {
            return Err(Error::new(
                ErrorKind::Setup,
                "a timeout of zero ends every session at once",
            ));
        }
        if self
            .touch_interval
            .is_some_and(|interval| interval >= self.idle())
        {
            return Err(Error::new(
                ErrorKind::Setup,
                "with a touch interval as long as the idle timeout no session is ever extended",
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

/// `None` for an expiry beyond the calendar, such as `infinity`.
pub(crate) fn instant(epoch_seconds: f64) -> Option<OffsetDateTime> {
    if !epoch_seconds.is_finite() {
        return None;
    }
    let since = time::Duration::checked_seconds_f64(epoch_seconds)?;
    OffsetDateTime::UNIX_EPOCH.checked_add(since)
}

/// The session's own lifetime, as it is stored beside the application's values.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Meta {
    /// Seconds of inactivity after which this session ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<f64>,
    /// Seconds after its creation at which this session ends at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) absolute: Option<f64>,
    /// Seconds since the epoch at which this session ends at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<f64>,
    /// The new id of the session, in a row that forwards from the old one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) successor: Option<String>,
    /// Whether the session got another user with that id. Then a handle of the old id
    /// must not lead to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) login: bool,
    /// Whether the old id is that of a session that was taken over, which a request may
    /// still read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) takeover: bool,
    /// How long the browser keeps the cookie: `persistent` or `browser`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cookie: Option<String>,
    /// The rules that apply.
    #[serde(skip)]
    pub(crate) reckoning: Reckoning,
    /// Members of a later version of this crate.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The rules for the lifetime of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reckoning {
    #[default]
    Ours,
    /// The rules of another system. An idle timeout of the layer overrides the session's
    /// own idle timeout and expiry. The absolute timeout applies only if the layer sets
    /// one. A cookie expires with the idle timeout, so each touch sets it again.
    Foreign,
}

impl Meta {
    /// The content of the row that a session leaves under its old id.
    pub(crate) fn forwarding_to(successor: &str, login: bool) -> Self {
        Self {
            successor: Some(successor.to_owned()),
            login,
            ..Self::default()
        }
    }

    /// The content of the row that the first response after a takeover leaves.
    pub(crate) fn taken_over_to(successor: &str) -> Self {
        Self {
            takeover: true,
            ..Self::forwarding_to(successor, false)
        }
    }

    /// A session with a fixed expiry.
    pub(crate) fn ending_at(until: f64) -> Self {
        Self {
            until: Some(until),
            ..Self::default()
        }
    }

    /// Whether the successor is the session of the same user, so that a handle or a watch of the
    /// old id follows it.
    pub(crate) fn leads_to_the_session(&self) -> bool {
        let successor = self.successor.as_deref();
        !self.login && successor.is_some_and(|successor| !successor.is_empty())
    }

    /// The terms of another system's session.
    pub(crate) fn foreign(idle: Option<f64>, until: Option<f64>) -> Self {
        Self {
            idle,
            until,
            reckoning: Reckoning::Foreign,
            ..Self::default()
        }
    }

    /// A choice of a later version of this crate counts as none.
    pub(crate) fn cookie_lifetime(&self) -> Option<CookieLifetime> {
        match self.cookie.as_deref()? {
            PERSISTENT => Some(CookieLifetime::Persistent),
            BROWSER_SESSION => Some(CookieLifetime::BrowserSession),
            _ => None,
        }
    }

    pub(crate) fn set_cookie_lifetime(&mut self, lifetime: Option<CookieLifetime>) {
        self.cookie = lifetime.map(|lifetime| {
            let name = match lifetime {
                CookieLifetime::Persistent => PERSISTENT,
                CookieLifetime::BrowserSession => BROWSER_SESSION,
            };
            name.to_owned()
        });
    }
}

const PERSISTENT: &str = "persistent";

const BROWSER_SESSION: &str = "browser";

/// When a row was written, and when it expires.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) now: f64,
    pub(crate) expires: f64,
}

impl Written {
    pub(crate) fn of(times: Times) -> Self {
        let Times { now, expires, .. } = times;
        Self { now, expires }
    }

    /// For a write at this time with this extent.
    pub(crate) fn at(now: f64, extent: Extent) -> Self {
        let expires = extent.from(now);
        Self { now, expires }
    }
}

impl Times {
    /// The times after a write that moved the expiry.
    pub(crate) fn moved(self, written: Written) -> Self {
        let seen = self.seen.map(|_| written.now);
        Self {
            seen,
            ..self.kept(written)
        }
    }

    /// The times after a write that left the expiry as it was.
    pub(crate) fn kept(self, written: Written) -> Self {
        let Written { now, expires } = written;
        Self {
            now,
            expires,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;

    fn remember(expiry: Expiry, document: &mut Document) {
        document
            .layout()
            .remember(expiry, document, &Document::default());
    }

    const HOUR: f64 = 3600.0;
    const DAY: f64 = 24.0 * HOUR;

    fn times(now: f64, expires: f64, created: f64) -> Times {
        Times {
            now,
            expires,
            created: Some(created),
            seen: None,
        }
    }

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
    fn a_touch_is_due_after_a_twentieth_of_the_idle_timeout() {
        let timeouts = Timeouts::default();
        let due = |passed| timeouts.is_touch_due(&Meta::default(), times(passed, DAY, 0.0));
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
        assert!(timeouts.is_touch_due(&Meta::default(), times(0.001, DAY, 0.0)));
    }

    #[test]
    fn a_session_at_its_absolute_end_is_not_touched_any_more() {
        let at_the_end = times(29.5 * DAY, 30.0 * DAY, 0.0);
        assert!(!Timeouts::default().is_touch_due(&Meta::default(), at_the_end));
    }

    #[test]
    fn at_its_absolute_end_a_session_is_touched_to_say_when_it_was_seen() {
        let seen = |seen| Times {
            seen: Some(seen),
            ..times(29.5 * DAY, 30.0 * DAY, 0.0)
        };
        let due = |times| Timeouts::default().is_touch_due(&Meta::default(), times);
        assert!(due(seen(29.0 * DAY)));
        assert!(!due(seen(29.5 * DAY - HOUR)));
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
    fn an_idle_timeout_that_was_lowered_is_due_at_once() {
        let timeouts = Timeouts {
            idle: Some(Duration::from_mins(5)),
            ..Timeouts::default()
        };
        assert!(timeouts.is_touch_due(&Meta::default(), times(0.0, DAY, 0.0)));
    }

    #[test]
    fn an_absolute_timeout_that_was_lowered_ends_older_sessions() {
        let timeouts = Timeouts {
            absolute: Absolute::After(Duration::from_hours(1)),
            ..Timeouts::default()
        };
        assert!(timeouts.has_ended(&Meta::default(), times(HOUR, DAY, 0.0), 0.0));
        assert!(!timeouts.has_ended(&Meta::default(), times(HOUR - 1.0, DAY, 0.0), 0.0));
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
            ..times(20.0 * DAY, 30.0 * DAY, 0.0)
        };
        assert!(ended(seen(15.0 * 60.0)));
        assert!(!ended(seen(14.0 * 60.0)));
        // Without `last_seen` only the expiry shows it.
        assert!(ended(times(0.0, 16.0 * 60.0, 0.0)));
        assert!(!ended(times(0.0, 15.0 * 60.0, 0.0)));
    }

    #[test]
    fn an_idle_timeout_of_its_own_is_not_lowered_by_the_layer() {
        let timeouts = Timeouts {
            idle: Some(Duration::from_mins(15)),
            ..Timeouts::default()
        };
        let mut document = Document::default();
        remember(Expiry::Idle(Duration::from_hours(24)), &mut document);
        assert!(!timeouts.has_ended(&document.meta(), times(0.0, DAY, 0.0), 0.0));
    }

    #[test]
    fn the_grace_of_a_moved_session_counts_from_its_move() {
        let after = |passed| moved_grace_left(times(passed, 60.0, 0.0));
        assert_eq!(after(0.0), Some(MOVED_GRACE));
        assert_eq!(after(3.5), Some(Duration::from_millis(1500)));
        assert_eq!(after(5.0), None);
        assert_eq!(after(59.0), None);
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
        let life = timeouts.cookie_life(&Meta::default(), times(0.0, DAY, 0.0));
        assert_eq!(life, COOKIE_LIMIT);
        let forever = timeouts.cookie_life(
            &Meta::default(),
            Times {
                created: None,
                ..times(0.0, DAY, 0.0)
            },
        );
        assert_eq!(forever, COOKIE_LIMIT);
    }

    #[test]
    fn timeouts_that_no_calendar_reaches_are_none() {
        let timeouts = Timeouts {
            idle: Some(Duration::MAX),
            absolute: Absolute::After(Duration::MAX),
            touch_interval: None,
        };
        let extent = timeouts.extent(&Meta::default(), Some(0.0));
        assert_eq!((extent.ttl, extent.until), (f64::INFINITY, None));
        assert!(!timeouts.is_touch_due(&Meta::default(), times(HOUR, f64::INFINITY, 0.0)));
    }

    #[test]
    fn an_expiry_beyond_the_calendar_is_none() {
        assert_eq!(instant(f64::INFINITY), None);
        assert_eq!(instant(1e300), None);
        assert_eq!(instant(0.0), Some(OffsetDateTime::UNIX_EPOCH));
    }
}
