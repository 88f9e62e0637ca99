//! The tests for each version of tower-sessions.

use std::sync::Arc;

use axum_pg_session_tower_sessions::PostgresStore;

use super::tower_sessions::{
    self, Session,
    session::{Id, Record},
};
use crate::support;

mod browser;
mod costs;
mod merging;
mod store;
mod users;
mod values;

/// The session that a request with this id has.
fn session(sessions: &PostgresStore, id: Option<Id>) -> Session {
    Session::new(id, Arc::new(sessions.clone()), None)
}

/// A session with these members, as a first request saves it.
async fn begun(sessions: &PostgresStore, members: &[(&str, serde_json::Value)]) -> Id {
    let session = session(sessions, None);
    for (key, value) in members {
        session.insert(key, value).await.expect("a value");
    }
    session.save().await.expect("a row");
    session.id().expect("an id")
}

/// A record that ends in an hour.
fn record(members: &[(&str, serde_json::Value)]) -> Record {
    let members = members.iter();
    Record {
        id: Id::default(),
        data: members
            .map(|(key, value)| ((*key).to_owned(), value.clone()))
            .collect(),
        expiry_date: time::OffsetDateTime::now_utc() + time::Duration::HOUR,
    }
}
