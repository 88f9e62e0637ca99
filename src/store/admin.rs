//! What an application asks outside of requests.

use std::{sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use sqlx::PgConnection;

use crate::{
    Error, ErrorKind,
    store::{
        PgSessionStore,
        batch::{lone::serve_until_free, parts::patience_of},
        table::statements::Table,
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

/// Deadlocks that a call of the application's outlives.
const MAX_ATTEMPTS: u32 = 3;

impl PgSessionStore {
    /// As [`ask_table`](Self::ask_table), and again if other writers were in the
    /// way, when nothing has changed. An attempt that was made again is no failure.
    pub(super) async fn ask_again<T>(
        &self,
        question: impl for<'c> Fn(Arc<Table>, &'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>>
        + Send
        + Sync,
    ) -> Result<T, Error> {
        self.ask_again_patiently(None, question).await
    }

    /// As [`ask_again`](Self::ask_again). With a patience, the statement waits no
    /// longer than that for a locked row, and it is no failure if it did. Without
    /// one it waits until the row is free, or the time is up.
    pub(super) async fn ask_again_patiently<T>(
        &self,
        patience: Option<Duration>,
        question: impl for<'c> Fn(Arc<Table>, &'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>>
        + Send
        + Sync,
    ) -> Result<T, Error> {
        let (set_up, deadline) = (self.set_up(), self.set_up().database.deadline());
        let mut attempts = 1;
        loop {
            let call = set_up.call(Operation::Manage);
            let outcome = match patience {
                Some(patience) => {
                    set_up
                        .serve_patiently(deadline, Some(patience), call, &question)
                        .await
                }
                None => {
                    let patience = patience_of(set_up.database.timeout);
                    serve_until_free(set_up, deadline, patience, Operation::Manage, &question).await
                }
            };
            match outcome {
                Err(error) if patience.is_some() && error.is_of_a_lock() => return Err(error),
                Err(error) if error.kind() == ErrorKind::Conflict && attempts < MAX_ATTEMPTS => {
                    attempts += 1;
                }
                outcome => return outcome.inspect_err(|error| self.meter().failed(error)),
            }
        }
    }

    /// Lends the table and a connection to one question.
    pub(super) async fn ask_table<T>(
        &self,
        question: impl for<'c> FnOnce(
            Arc<Table>,
            &'c mut PgConnection,
        ) -> BoxFuture<'c, Result<T, Error>>
        + Send,
    ) -> Result<T, Error> {
        let set_up = self.set_up();
        let (deadline, call) = (set_up.database.deadline(), set_up.call(Operation::Manage));
        let outcome = set_up.serve(deadline, call, question).await;
        outcome.inspect_err(|error| self.meter().failed(error))
    }
}
