//! When a session expires: what a session has chosen, and the times of its row. It does no
//! I/O and reads no clock: all times come from the database with the row. What applies to a
//! session is computed by [`Timeouts`](crate::timeouts::Timeouts).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use crate::CookieLifetime;

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
    ///
    /// Express's format can't store it.
    At(OffsetDateTime),
    /// After `idle` without a request, and at the latest `absolute` after the
    /// session began or its user signed in. The layer's timeouts don't apply.
    ///
    /// Needs the column `created`. The formats of Koa and Express can't store it.
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
    /// The token of a session that was taken over, sealed by the key that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sealed: Option<String>,
    /// Whether the session was taken over with its user, so that nothing says when the user
    /// signed in. The next login ends that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) login_is_unknown: bool,
    /// How long the browser keeps the cookie: `persistent` or `browser`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cookie: Option<String>,
    /// The rules that apply.
    #[serde(skip)]
    pub(crate) rules: ExpiryRules,
    /// Members of a later version of this crate.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The rules for the lifetime of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ExpiryRules {
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

    /// The content of the row that leads from another system's key to the session.
    pub(crate) fn taken_over(sealed: String, nowhere: &str) -> Self {
        Self {
            sealed: Some(sealed),
            ..Self::forwarding_to(nowhere, false)
        }
    }

    /// A session that was taken over, with its fixed expiry, if it has one, and its user.
    pub(crate) fn of_takeover(until: Option<f64>, has_user: bool) -> Self {
        Self {
            until,
            login_is_unknown: has_user,
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
            rules: ExpiryRules::Foreign,
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
impl Times {
    pub(crate) fn of(now: f64, expires: f64, created: f64) -> Self {
        Self {
            now,
            expires,
            created: Some(created),
            seen: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_beyond_the_calendar_is_none() {
        assert_eq!(instant(f64::INFINITY), None);
        assert_eq!(instant(1e300), None);
        assert_eq!(instant(0.0), Some(OffsetDateTime::UNIX_EPOCH));
    }
}
