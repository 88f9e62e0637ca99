//! The isolation level of the store's statements.
//!
//! They are written for READ COMMITTED. Under it, a statement that waited for another writer
//! continues with the new row. Under a stricter level it fails instead (40001), and a
//! transaction doesn't see what was committed while it waited for a lock, so a limit of
//! sessions would not hold. Another level can be the default of the server, the database,
//! the role or the application's pool. So:
//!
//! - Each transaction sets its level, which costs no round trip.
//! - A single statement gets a transaction if the default is another level. The default is
//!   read together with the table. After an error that is typical of a stricter level, such a
//!   default is assumed until the table is inspected again. Under READ COMMITTED, a row that
//!   moves to another partition causes the same error.
//!
//! Nothing here knows what a transaction does. If the future of a transaction is dropped, it
//! is rolled back, unless its commit was sent.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use futures_core::future::BoxFuture;
use sqlx::{Connection as _, PgConnection, PgTransaction};

use crate::Error;

pub(in crate::store) const READ_COMMITTED: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// A transaction under READ COMMITTED, or a part of the one that the connection
/// is in.
///
/// # Errors
///
/// Those of the connection.
pub(in crate::store) async fn begin(
    connection: &mut PgConnection,
) -> Result<PgTransaction<'_>, sqlx::Error> {
    match connection.is_in_transaction() {
        true => connection.begin().await,
        false => connection.begin_with(READ_COMMITTED).await,
    }
}

/// Executes `work` in a transaction, as [`begin`] does, and commits it. If it fails, the
/// transaction is rolled back at once, because its locks hold up others.
///
/// # Errors
///
/// Those of `work` and of the connection.
pub(in crate::store) async fn in_transaction<T: Send>(
    connection: &mut PgConnection,
    work: impl for<'t> FnOnce(&'t mut PgConnection) -> BoxFuture<'t, Result<T, Error>> + Send,
) -> Result<T, Error> {
    let mut transaction = begin(connection).await?;
    match work(&mut transaction).await {
        Ok(done) => {
            transaction.commit().await?;
            Ok(done)
        }
        Err(error) => {
            drop(transaction.rollback().await);
            Err(error)
        }
    }
}

/// The number of attempts at work. An attempt that failed must have changed nothing.
const MAX_ATTEMPTS: u32 = 3;
/// The number of attempts if the table was changed. A failed attempt clears the prepared
/// statements of its own connection and of idle ones, but not of those that are in use.
const MAX_ATTEMPTS_AT_A_CHANGED_TABLE: u32 = 4;

/// Makes the attempt again after a deadlock or a serialization failure.
///
/// # Errors
///
/// Those of the last attempt.
pub(in crate::store) async fn despite_deadlocks<T, F>(attempt: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    despite(Error::is_of_other_writers, MAX_ATTEMPTS, attempt).await
}

/// Makes the attempt again if the table was changed since it was looked at. In that case the
/// server refused the statement and rolled back its transaction. If only the result could not
/// be read, the statement may be committed, so it is not repeated.
///
/// # Errors
///
/// Those of the last attempt.
pub(in crate::store) async fn despite_a_changed_table<T, F>(
    attempt: impl Fn() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let was_refused = |error: &Error| error.is_of_a_changed_table() && !error.is_of_another_type();
    despite(was_refused, MAX_ATTEMPTS_AT_A_CHANGED_TABLE, attempt).await
}

/// Makes the attempt again for either reason.
///
/// # Errors
///
/// Those of the last attempt.
pub(in crate::store) async fn despite_others<T, F>(attempt: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    despite_a_changed_table(|| despite_deadlocks(&attempt)).await
}

async fn despite<T, F>(
    is_to_repeat: impl Fn(&Error) -> bool,
    attempts: u32,
    attempt: impl Fn() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    for _ in 1..attempts {
        match attempt().await {
            Err(error) if is_to_repeat(&error) => {}
            outcome => return outcome,
        }
    }
    attempt().await
}

/// How many inspections in a row must find READ COMMITTED before a stricter level is forgotten,
/// because other connections of the pool may still have it.
const LOOKS: u32 = 5;

/// Whether a single statement may run under a stricter level than READ COMMITTED: the number of
/// inspections that must not find one.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Isolation(Arc<AtomicU32>);

impl Isolation {
    pub(in crate::store) fn is_strict(&self) -> bool {
        self.0.load(Relaxed) > 0
    }

    /// Records the default level that an inspection found on one of the pool's connections.
    pub(in crate::store) fn found(&self, level: &str) {
        match level {
            "read committed" | "read uncommitted" => {
                let looks = self.0.load(Relaxed);
                self.0.store(looks.saturating_sub(1), Relaxed);
            }
            _ => self.0.store(LOOKS, Relaxed),
        }
    }

    pub(in crate::store) fn observe<T>(&self, outcome: &Result<T, Error>) {
        if outcome.as_ref().is_err_and(Error::is_of_the_isolation) {
            self.0.fetch_max(1, Relaxed);
        }
    }
}
