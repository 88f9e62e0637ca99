//! What happened to a session, as the application's hook receives it. It does no I/O.

use std::{fmt, sync::Arc};

use crate::{SessionId, ending::Ending, realm::BEFORE_USER};

/// An event of a session, for an audit log or a mail about a new sign-in. The hook of
/// [`PgSessionStore::on_event`](crate::PgSessionStore::on_event) receives it.
///
/// ```
/// use axum_pg_session::{SessionEvent, SessionEventKind};
///
/// fn line(event: &SessionEvent) -> String {
///     let user = event.user_id().unwrap_or("a visitor");
///     match event.kind() {
///         SessionEventKind::SignedIn => format!("{user} signed in"),
///         SessionEventKind::Ended(ending) => format!("the session of {user} ended: {ending}"),
///         _ => format!("another event of {}", event.id()),
///     }
/// }
/// # let _ = line;
/// ```
#[derive(Clone, Debug)]
pub struct SessionEvent {
    pub(crate) id: SessionId,
    pub(crate) previous_id: Option<SessionId>,
    /// With the realm, as it is stored.
    pub(crate) user: Option<Arc<str>>,
    /// Whether the format separates users by realms.
    has_realms: bool,
    pub(crate) kind: SessionEventKind,
}

/// The kind of a [`SessionEvent`].
///
/// ```
/// use axum_pg_session::{Ending, SessionEventKind};
///
/// let kind = SessionEventKind::Ended(Ending::Expired);
/// assert_ne!(kind, SessionEventKind::Began);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionEventKind {
    /// A session was stored for the first time, or was taken over. A login that begins a
    /// session is only [`SignedIn`](Self::SignedIn).
    Began,
    /// A user signed in by [`Session::login`](crate::Session::login), which gives the session a
    /// new id.
    ///
    /// If the user was signed in to this session before, the former id is
    /// [`previous_id`](SessionEvent::previous_id). If the session belonged to an anonymous
    /// visitor or to another user, or if the login dropped its data, the login replaced it: an
    /// event with [`Ending::Replaced`] reports its end first.
    ///
    /// With the store for tower-sessions, a save that writes another user into a stored
    /// session is a login, too. The row keeps its id, so both events have the same id.
    SignedIn,
    /// The session has a new id, by [`Session::cycle_id`](crate::Session::cycle_id).
    GotNewId,
    /// The session no longer exists.
    Ended(Ending),
}

impl SessionEvent {
    pub(crate) fn new(id: SessionId, kind: SessionEventKind, has_realms: bool) -> Self {
        Self {
            id,
            previous_id: None,
            user: None,
            has_realms,
            kind,
        }
    }

    pub(crate) fn of(self, user: Option<Arc<str>>) -> Self {
        Self { user, ..self }
    }

    pub(crate) fn after(self, previous: SessionId) -> Self {
        Self {
            previous_id: Some(previous),
            ..self
        }
    }

    /// Returns the kind of the event.
    #[must_use]
    pub fn kind(&self) -> SessionEventKind {
        self.kind
    }

    /// Returns the public handle of the session.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Returns the public handle that the session had before this event, if it got a new id.
    #[must_use]
    pub fn previous_id(&self) -> Option<&SessionId> {
        self.previous_id.as_ref()
    }

    /// Returns the user who is signed in, or was until the session ended. `None` for an
    /// anonymous session, and if the table has no column `user_id`.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        let user = self.user.as_deref()?;
        Some(self.realm_and_user().map_or(user, |(_, id)| id))
    }

    /// Returns the [realm](crate::PgSessionStore::realm) of the user, if the store has one.
    #[must_use]
    pub fn realm(&self) -> Option<&str> {
        Some(self.realm_and_user()?.0)
    }

    fn realm_and_user(&self) -> Option<(&str, &str)> {
        let user = self.user.as_deref().filter(|_| self.has_realms)?;
        user.split_once(BEFORE_USER)
    }
}

/// The application's hook.
#[derive(Clone)]
pub(crate) struct Hook(Arc<dyn Fn(&SessionEvent) + Send + Sync>);

impl Hook {
    pub(crate) fn new(hook: impl Fn(&SessionEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    pub(crate) fn call(&self, event: &SessionEvent) {
        (self.0)(event);
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}
