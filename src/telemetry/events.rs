//! Events of sessions, for the log and for metrics. They have the public handle, and
//! never a token or a user.

use std::num::NonZeroU32;

use crate::{
    SessionId,
    telemetry::{End, Meter},
};

pub(crate) fn began(meter: &Meter, id: &SessionId) {
    meter.session_began();
    tracing::info!(session.id = %id, "a session began");
}

pub(crate) fn got_a_new_id(meter: &Meter, old: &SessionId, id: &SessionId) {
    meter.session_got_a_new_id();
    tracing::info!(session.id = %id, session.previous_id = %old, "a session got a new id");
}

/// A login, which always gives a new id, also to a session that begins with it.
pub(crate) fn signed_in(meter: &Meter, id: &SessionId) {
    meter.user_signed_in();
    tracing::info!(session.id = %id, "a user signed in");
}

pub(crate) fn taken_over(meter: &Meter, id: &SessionId) {
    meter.session_began();
    tracing::info!(session.id = %id, "a session of another system was taken over");
}

pub(crate) fn ended(meter: &Meter, id: &SessionId) {
    meter.sessions_ended(End::Single, 1);
    tracing::info!(session.id = %id, "a session ended");
}

pub(crate) fn ended_at_once(meter: &Meter, sessions: u64) {
    meter.sessions_ended(End::Bulk, sessions);
    tracing::info!(
        session.count = sessions,
        "sessions were ended from outside of their requests"
    );
}

pub(crate) fn ended_by_a_login(meter: &Meter, sessions: u64) {
    meter.sessions_ended(End::Bulk, sessions);
    tracing::info!(
        session.count = sessions,
        "the other sessions of a user were ended by a login"
    );
}

pub(crate) fn ended_at_the_limit(meter: &Meter, sessions: u64, limit: NonZeroU32) {
    meter.sessions_ended(End::Limit, sessions);
    tracing::info!(
        session.count = sessions,
        session.limit = limit,
        "the oldest sessions of a user were ended"
    );
}
