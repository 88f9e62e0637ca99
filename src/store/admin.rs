//! What an application asks outside of requests.

use std::{sync::Arc, time::Duration};

use sqlx::PgConnection;

use crate::{
    Error, ErrorKind,
    store::{
        PgSessionStore,
        batch::lone::serve_until_free,
        table::{handle::Work, statements::Table},
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
    /// Lends the table and a connection to a change, which waits until the rows
    /// are free or the time is up. If other writers were in the way, nothing has
    /// changed, and it is made again; such an attempt is no failure.
    pub(super) async fn change<T>(
        &self,
        work: impl for<'c> Fn(Arc<Table>, &'c mut PgConnection) -> Work<'c, T> + Send + Sync,
    ) -> Result<T, Error> {
        let set_up = self.set_up();
        let deadline = set_up.database.deadline();
        let mut attempts = 1;
        loop {
            match serve_until_free(set_up, deadline, Operation::Manage, &work).await {
                Err(error) if error.kind() == ErrorKind::Conflict && attempts < MAX_ATTEMPTS => {
                    attempts += 1;
                }
                outcome => return outcome.inspect_err(|error| self.meter().failed(error)),
            }
        }
    }

    /// As [`change`](Self::change), but it waits no longer than this for a locked
    /// row, and it is no failure if it did.
    pub(super) async fn change_patiently<T>(
        &self,
        patience: Duration,
        work: impl for<'c> Fn(Arc<Table>, &'c mut PgConnection) -> Work<'c, T> + Send + Sync,
    ) -> Result<T, Error> {
        let set_up = self.set_up();
        let deadline = set_up.database.deadline();
        let mut attempts = 1;
        loop {
            let call = set_up.call(Operation::Manage);
            let outcome = set_up.serve(deadline, Some(patience), call, &work);
            match outcome.await {
                Err(error) if error.is_of_a_lock() => return Err(error),
                Err(error) if error.kind() == ErrorKind::Conflict && attempts < MAX_ATTEMPTS => {
                    attempts += 1;
                }
                outcome => return outcome.inspect_err(|error| self.meter().failed(error)),
            }
        }
    }

    /// Lends the table and a connection to a question.
    pub(super) async fn ask<T>(
        &self,
        question: impl for<'c> FnOnce(Arc<Table>, &'c mut PgConnection) -> Work<'c, T> + Send,
    ) -> Result<T, Error> {
        let set_up = self.set_up();
        let (deadline, call) = (set_up.database.deadline(), set_up.call(Operation::Manage));
        let outcome = set_up.ask(deadline, call, question).await;
        outcome.inspect_err(|error| self.meter().failed(error))
    }
}
