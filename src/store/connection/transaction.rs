//! The isolation level of the store's statements.
//!
//! They are written for READ COMMITTED, under which a statement that waited for
//! another writer goes on with what that one left. Under a stricter level it
//! fails instead (40001), and a transaction does not see what was committed
//! while it waited for a lock, so a limit of sessions would not hold. Another
//! level can be the default of the server, the database, the role or the
//! application's pool. So:
//!
//! - Each transaction asks for its level, which costs no round trip.
//! - A statement on its own gets a transaction if the default is another level.
//!   The default is looked at together with the table, and assumed to be
//!   another one once a statement failed as it only can then.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

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

/// Whether a statement on its own runs under another level than READ COMMITTED.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Isolation(Arc<AtomicBool>);

impl Isolation {
    pub(in crate::store) fn is_strict(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// What connections of the pool have by default.
    pub(in crate::store) fn found(&self, level: &str) {
        let is_strict = !matches!(level, "read committed" | "read uncommitted");
        self.0.store(is_strict, Relaxed);
    }

    pub(in crate::store) fn observe<T>(&self, outcome: &Result<T, Error>) {
        if outcome.as_ref().is_err_and(Error::is_of_the_isolation) {
            self.0.store(true, Relaxed);
        }
    }
}
