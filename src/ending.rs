//! Why a session ended, as far as this process knows. It does no I/O.

use std::fmt;

/// Why a session ended, as [`Session::ended`](crate::Session::ended) and
/// [`PgSessionStore::watch`](crate::PgSessionStore::watch) report it.
///
/// Only the process that ends a session knows why. In every other process the reason is
/// [`Expired`](Self::Expired), [`Replaced`](Self::Replaced) or [`Unknown`](Self::Unknown).
/// So use it for logs and messages, not for decisions: a socket closes on each of them.
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
    /// It expired, or the layer's timeouts had ended it.
    Expired,
    /// By a login of a visitor who was anonymous or another user, or by one with
    /// [`Login::discard_data`](crate::Login::discard_data). The login began another session
    /// in the browser. With the store for tower-sessions, the session goes on with another user
    /// or without one.
    Replaced,
    /// The layer's [`valid_if`](crate::PgSessionLayer::valid_if) refused it.
    Rejected,
    /// The database could not be queried for longer than
    /// [`watch_outage`](crate::PgSessionStore::watch_outage). The session may still exist.
    Unreachable,
    /// The session no longer exists, and this process doesn't know why: another process
    /// ended it, or the application deleted its row.
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
