//! Work that may have to wait for another transaction: it is rolled back and tried again, so
//! that it doesn't keep a connection while it waits. It doesn't know what the work does.
//!
//! How it works: each attempt waits for a lock for a moment only. If it has to wait longer, it
//! is canceled and rolled back, it releases its connection, and the next attempt follows after
//! a pause. The id of the row is remembered in [`Locked`]. Work on such a row first takes one
//! of a few places, so most connections stay free for other rows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::PgConnection;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    Error,
    error::out_of_time,
    random_fraction::random_fraction,
    store::{
        batch::search::{PATIENCE, PATIENCE_IN_SEARCH, PAUSE},
        table::{
            handle::{TableHandle, Work},
            statements::Statements,
        },
    },
    telemetry::Operation,
};

/// How long a row that was locked is treated as locked.
const REMEMBERING: Duration = Duration::from_secs(10);

/// Rows and users that another transaction had locked recently.
///
/// No statement for many rows includes them, and work on them takes one of the
/// places for repeated attempts at once. So a locked row holds up a connection of
/// other sessions once, however many requests need the row.
#[derive(Debug, Default)]
pub(in crate::store) struct Locked(Mutex<HashMap<String, Instant>>);

impl Locked {
    fn keys(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::store) fn insert(&self, key: &str) {
        let mut keys = self.keys();
        keys.retain(|_, since| since.elapsed() < REMEMBERING);
        keys.insert(key.to_owned(), Instant::now());
    }

    fn remove(&self, key: &str) {
        self.keys().remove(key);
    }

    fn contains(&self, key: &str) -> bool {
        self.among([key].into_iter()) == [0]
    }

    pub(in crate::store) fn key<'k>(&'k self, key: &'k str) -> Key<'k> {
        Key { locked: self, key }
    }

    /// The places of those among the keys that were locked.
    pub(in crate::store) fn among<'k>(&self, keys: impl Iterator<Item = &'k str>) -> Vec<usize> {
        let locked = self.keys();
        if locked.is_empty() {
            return Vec::new();
        }
        let is_locked = |key| {
            locked
                .get(key)
                .is_some_and(|since| since.elapsed() < REMEMBERING)
        };
        let keys = keys.enumerate();
        keys.filter_map(|(place, key)| is_locked(key).then_some(place))
            .collect()
    }
}

/// What an attempt may find locked: a row by its id, or a user.
#[derive(Clone, Copy)]
pub(in crate::store) struct Key<'k> {
    locked: &'k Locked,
    key: &'k str,
}

/// Makes one attempt after another until none is held up by another transaction,
/// or until the deadline. Between the attempts it holds no connection, and only a few
/// repeated attempts run at a time, so that many locked rows don't keep the sessions
/// of other rows waiting. While others wait for a place, each attempt waits for a shorter
/// time, so that rows that are free again don't wait long behind rows that are still locked.
///
/// Work that an application asks for outside of requests has no key: it is on any
/// rows, and the places of its connections limit it already.
///
/// If the future is dropped while an attempt runs, that attempt is dropped.
pub(in crate::store) async fn until_free<T, F>(
    table_handle: &TableHandle,
    key: Option<Key<'_>>,
    deadline: Instant,
    attempt: impl Fn(Duration) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let connections = &table_handle.executor.connections;
    let mut was_locked = key.is_some_and(|key| key.locked.contains(key.key));
    loop {
        // A statement that is sent later would change a session after its request
        // got the response that it could not be saved.
        if was_locked && Instant::now() >= deadline {
            return Err(out_of_time());
        }
        // If the future is dropped here, its place in the queue is free.
        let place = match was_locked && key.is_some() {
            true => timeout_at(deadline, connections.wait_for_a_row())
                .await
                .map_err(|_| out_of_time())?,
            false => None,
        };
        let patience = match place.is_some() && connections.are_queued_for_rows() {
            true => PATIENCE_IN_SEARCH,
            false => PATIENCE,
        };
        // If the future is dropped here, so is the attempt, and then its place.
        let outcome = attempt(patience).await;
        drop(place);
        if !outcome.as_ref().is_err_and(Error::is_held_up) {
            if let (true, Some(key)) = (was_locked, key) {
                key.locked.remove(key.key);
            }
            return outcome;
        }
        was_locked = true;
        if let Some(key) = key {
            key.locked.insert(key.key);
        }
        // It holds no connection and no place here.
        sleep(PAUSE.mul_f64(0.5 + random_fraction())).await;
    }
}

/// Carries out `work` in a transaction of its own, such as a new id, see
/// [`until_free`]. Work that is held up for a moment is rolled back.
///
/// If the future is dropped, the store asks the server to cancel the attempt in flight,
/// and either rolls it back or has committed it already.
pub(in crate::store) async fn serve_until_free<T>(
    table_handle: &TableHandle,
    key: Option<Key<'_>>,
    deadline: Instant,
    operation: Operation,
    work: impl for<'c> Fn(Arc<Statements>, &'c mut PgConnection) -> Work<'c, T> + Send + Sync,
) -> Result<T, Error> {
    until_free(table_handle, key, deadline, |patience| {
        let call = table_handle.call(operation);
        table_handle.serve(deadline, Some(patience), call, |table, connection| {
            work(table, connection)
        })
    })
    .await
}
