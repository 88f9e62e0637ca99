//! The life of sessions, for the log: by their public handles, and without the
//! user, whom the application knows.

use crate::SessionId;

pub(crate) fn began(id: &SessionId) {
    tracing::info!(session.id = %id, "a session began");
}

pub(crate) fn got_a_new_id(old: &SessionId, id: &SessionId) {
    tracing::info!(session.id = %id, session.former_id = %old, "a session got a new id");
}

/// Under a new id, whether there was a session before or not.
pub(crate) fn signed_in(id: &SessionId) {
    tracing::info!(session.id = %id, "a user signed in");
}

pub(crate) fn ended(id: &SessionId) {
    tracing::info!(session.id = %id, "a session ended");
}

pub(crate) fn ended_at_once(sessions: u64) {
    tracing::info!(
        sessions,
        "sessions were ended from outside of their requests"
    );
}
