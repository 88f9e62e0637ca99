//! Why a session ended, as far as this process knows. It does no I/O.

use std::fmt;

/// Why a session ended, as [`Session::ended`](crate::Session::ended) and
/// [`PgSessionStore::watch`](crate::PgSessionStore::watch) report it.
///
/// Only the process that destroys a session knows why. Every other process finds that the row
/// doesn't exist, or that it expired or has another user. There the reason is
/// [`Unknown`](Self::Unknown), [`Expired`](Self::Expired) or [`Replaced`](Self::Replaced).
///
/// Use it for logs and messages. A socket should close on each of them. After
/// [`Unreachable`](Self::Unreachable) and [`Unknown`](Self::Unknown), the client can connect
/// again, and the new request shows whether the user is still signed in.
///
/// ```
/// use axum_pg_session::Ending;
///
/// fn sentence(ending: Ending) -> &'static str {
///     match ending {
///         Ending::SignedOut => "You signed out.",
///         Ending::Expired => "You were away for too long.",
///         Ending::Evicted => "You signed in on another device.",
///         _ => "Please sign in again.",
///     }
/// }
/// assert_eq!(sentence(Ending::Expired), "You were away for too long.");
/// assert_eq!(Ending::Expired.to_string(), "the session expired");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ending {
    /// By [`Session::logout`](crate::Session::logout).
    SignedOut,
    /// By [`Session::destroy`](crate::Session::destroy) or
    /// [`PgSessionStore::destroy`](crate::PgSessionStore::destroy).
    Destroyed,
    /// By a call of [`UserSessions`](crate::UserSessions) or
    /// [`ExternalSessions`](crate::ExternalSessions), by
    /// [`Login::end_others`](crate::Login::end_others) or by
    /// [`PgSessionStore::destroy_everyone`](crate::PgSessionStore::destroy_everyone).
    Revoked,
    /// By a login, because the user had
    /// [too many sessions](crate::PgSessionStore::max_sessions_per_user).
    Evicted,
    /// It expired, by its stored expiry or by the layer's timeouts.
    Expired,
    /// By a login of a visitor who was anonymous or another user, or by one with
    /// [`Login::discard_data`](crate::Login::discard_data). The browser has the session of that
    /// login now. With the store for tower-sessions, the row stays, and its user was set, changed
    /// or removed.
    Replaced,
    /// The layer's [`valid_if`](crate::PgSessionLayer::valid_if) refused it.
    Rejected,
    /// The session could not be looked up for longer than
    /// [`watch_outage`](crate::PgSessionStore::watch_outage): the database or the session's
    /// partition didn't respond, or its row can't be read. The session may still exist.
    Unreachable,
    /// This process doesn't know the reason. In most cases the row doesn't exist, because another
    /// process destroyed the session, or a statement of the application deleted the row. A watch
    /// that begins after its session has ended also has this reason. If the runtime of the
    /// lookups stops, all watches do, although their sessions may still exist.
    Unknown,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SignedOut => "the user signed out",
            Self::Destroyed => "the session was destroyed",
            Self::Revoked => "the sessions of the user were revoked",
            Self::Evicted => "the user has signed in on too many devices",
            Self::Expired => "the session expired",
            Self::Replaced => "a login replaced the session",
            Self::Rejected => "the session was rejected",
            Self::Unreachable => "the session could not be checked for too long",
            Self::Unknown => "the session no longer exists",
        })
    }
}
