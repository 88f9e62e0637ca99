//! What a table must have for what is asked of it.

use std::{sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use sqlx::PgConnection;

use crate::{
    Error, ErrorKind, Expiry, Login,
    expiry::{Absolute, Timeouts},
    login::SessionLimit,
    store::{
        PgSessionStore,
        columns::Columns,
        table::{Table, TableName},
    },
    telemetry::Operation,
};

/// Deadlocks that a call of the application's outlives.
const MAX_ATTEMPTS: u32 = 3;

impl Columns {
    pub(super) fn check_users(&self, name: &TableName) -> Result<(), Error> {
        self.need("the sessions of a user need", "user_id", "0002", name)
    }

    pub(super) fn check_login(&self, login: &Login, name: &TableName) -> Result<(), Error> {
        self.need("a login needs", "user_id", "0002", name)?;
        if login.has_device() {
            self.need("to remember a device needs", "device", "0005", name)?;
        }
        self.check_expiry(login.end(), name)
    }

    /// The oldest sessions end, or are counted, by when they were signed in.
    pub(super) fn check_limit(
        &self,
        limit: Option<SessionLimit>,
        name: &TableName,
    ) -> Result<(), Error> {
        if limit.is_none() {
            return Ok(());
        }
        ["user_id", "created"]
            .into_iter()
            .try_for_each(|column| self.need("a limit of sessions needs", column, "0002", name))
    }

    fn check_expiry(&self, expiry: Expiry, name: &TableName) -> Result<(), Error> {
        match expiry {
            Expiry::Timeouts { .. } => self.check_created(name),
            _ => Ok(()),
        }
    }

    fn check_created(&self, name: &TableName) -> Result<(), Error> {
        self.need("an absolute timeout needs", "created", "0002", name)
    }

    fn need(
        &self,
        what: &str,
        column: &str,
        migration: &str,
        name: &TableName,
    ) -> Result<(), Error> {
        if self.has(column) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Setup,
            format!("{what} the column {column} in the table {name} (migration {migration})"),
        ))
    }
}

/// As far as the table was looked at.
impl PgSessionStore {
    pub(crate) fn check_timeouts(&self, timeouts: &Timeouts) -> Result<(), Error> {
        match timeouts.absolute {
            Absolute::After(_) => self.check_found(Columns::check_created),
            Absolute::WherePossible | Absolute::Off => Ok(()),
        }
    }

    pub(crate) fn check_login(&self, login: &Login) -> Result<(), Error> {
        self.check_found(|columns, name| columns.check_login(login, name))
    }

    pub(crate) fn check_expiry(&self, expiry: Expiry) -> Result<(), Error> {
        self.check_found(|columns, name| columns.check_expiry(expiry, name))
    }

    fn check_found(
        &self,
        check: impl FnOnce(&Columns, &TableName) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let found = self.set_up().found();
        found.map_or(Ok(()), |table| check(&table.columns, &table.name))
    }

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
    /// longer than that for a locked row, and it is no failure if it did.
    pub(super) async fn ask_again_patiently<T>(
        &self,
        patience: Option<Duration>,
        question: impl for<'c> Fn(Arc<Table>, &'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>>
        + Send
        + Sync,
    ) -> Result<T, Error> {
        let mut attempts = 1;
        loop {
            match self
                .set_up()
                .ask(patience, Operation::Manage, &question)
                .await
            {
                Err(error) if patience.is_some() && error.is_of_a_lock() => return Err(error),
                Err(error) if error.kind() == ErrorKind::Conflict && attempts < MAX_ATTEMPTS => {
                    attempts += 1;
                }
                outcome => return outcome.inspect_err(|error| self.meter().failed(error)),
            }
        }
    }

    /// Lends the table and a connection that is no request's.
    pub(super) async fn ask_table<T>(
        &self,
        question: impl for<'c> FnOnce(
            Arc<Table>,
            &'c mut PgConnection,
        ) -> BoxFuture<'c, Result<T, Error>>
        + Send,
    ) -> Result<T, Error> {
        let outcome = self.set_up().ask(None, Operation::Manage, question).await;
        outcome.inspect_err(|error| self.meter().failed(error))
    }
}
