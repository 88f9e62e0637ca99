//! Calls of an application outside of requests: by handle, by user, for everyone, and the
//! reaper. It knows no request and no layer.
//!
//! Dropped futures: calls for one handle submit their write to the queue of the session, where
//! it is still executed. All other calls run in their caller. If one is dropped, the statement
//! in flight is canceled, and its transaction is rolled back or has committed already. Batches
//! that were committed before stay.

use std::{sync::Arc, time::Duration};

use sqlx::PgConnection;

use crate::{
    Error,
    store::{
        PgSessionStore,
        batch::until_free::serve_until_free,
        connection::transaction::{despite_a_changed_table, despite_others},
        table::{handle::Work, statements::Statements},
    },
    telemetry::Operation,
};

mod by_id;
mod ends;
mod everyone;
pub(super) mod external;
pub(super) mod page;
pub(crate) mod reaper;
pub(crate) mod stored;
#[cfg(feature = "testing")]
pub(super) mod time_travel;
pub(super) mod users;

impl PgSessionStore {
    /// Executes a change, with the table and a connection. It waits until the rows are free
    /// or the deadline passes. If other writers were in the way, nothing has changed, and it
    /// is repeated. Such an attempt does not count as a failure.
    pub(super) async fn change<T>(
        &self,
        work: impl for<'c> Fn(Arc<Statements>, &'c mut PgConnection) -> Work<'c, T> + Send + Sync,
    ) -> Result<T, Error> {
        let table_handle = self.table_handle();
        let deadline = table_handle.executor.deadline();
        let attempt = || serve_until_free(table_handle, None, deadline, Operation::Manage, &work);
        let outcome = despite_others(attempt).await;
        outcome.inspect_err(|error| self.meter().failed(error))
    }

    /// As [`change`](Self::change), but it waits for a locked row for `patience` at most. An
    /// error of that does not count as a failure.
    pub(super) async fn change_patiently<T>(
        &self,
        patience: Duration,
        work: impl for<'c> Fn(Arc<Statements>, &'c mut PgConnection) -> Work<'c, T> + Send + Sync,
    ) -> Result<T, Error> {
        let table_handle = self.table_handle();
        let deadline = table_handle.executor.deadline();
        let attempt = || {
            let call = table_handle.call(Operation::Manage);
            table_handle.serve(deadline, Some(patience), call, &work)
        };
        let outcome = despite_others(attempt).await;
        outcome.inspect_err(|error| {
            if !error.is_of_a_lock() {
                self.meter().failed(error);
            }
        })
    }

    /// Executes a query, with the table and a connection.
    pub(super) async fn ask<T>(
        &self,
        question: impl for<'c> Fn(Arc<Statements>, &'c mut PgConnection) -> Work<'c, T> + Send + Sync,
    ) -> Result<T, Error> {
        let table_handle = self.table_handle();
        let deadline = table_handle.executor.deadline();
        let attempt =
            || table_handle.ask(deadline, table_handle.call(Operation::Manage), &question);
        let outcome = despite_a_changed_table(attempt).await;
        outcome.inspect_err(|error| self.meter().failed(error))
    }
}
