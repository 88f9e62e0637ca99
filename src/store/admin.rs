//! What an application asks outside of requests.

use std::{sync::Arc, time::Duration};

use sqlx::PgConnection;

use crate::{
    Error,
    store::{
        PgSessionStore,
        batch::until_free::serve_until_free,
        connection::transaction::{despite_a_changed_table, despite_deadlocks},
        table::{handle::Work, statements::Statements},
    },
    telemetry::Operation,
};

mod by_id;
mod everyone;
pub(super) mod page;
pub(crate) mod reaper;
pub(crate) mod stored;
#[cfg(feature = "testing")]
pub(super) mod time_travel;
pub(super) mod users;

impl PgSessionStore {
    /// Lends the table and a connection to a change, which waits until the rows
    /// are free or the time is up. If other writers were in the way, nothing has
    /// changed, and it is made again; such an attempt is no failure.
    pub(super) async fn change<T>(
        &self,
        work: impl for<'c> Fn(Arc<Statements>, &'c mut PgConnection) -> Work<'c, T> + Send + Sync,
    ) -> Result<T, Error> {
        let table_handle = self.table_handle();
        let deadline = table_handle.executor.deadline();
        let attempt = || serve_until_free(table_handle, None, deadline, Operation::Manage, &work);
        let outcome = despite_a_changed_table(|| despite_deadlocks(attempt)).await;
        outcome.inspect_err(|error| self.meter().failed(error))
    }

    /// As [`change`](Self::change), but it waits no longer than this for a locked
    /// row, and it is no failure if it did.
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
        let outcome = despite_a_changed_table(|| despite_deadlocks(attempt)).await;
        outcome.inspect_err(|error| {
            if !error.is_of_a_lock() {
                self.meter().failed(error);
            }
        })
    }

    /// Lends the table and a connection to a question.
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
