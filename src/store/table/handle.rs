//! The table by its name and settings, and what was found when it was inspected. Statements get
//! the rendered SQL and a connection here. It knows columns, but no session.
//!
//! How it works: the first call that needs the table starts a task that detects a pooler,
//! inspects the table and renders the statements. All calls that need the table meanwhile wait
//! for the same task. The result is shared by all clones. If a statement fails because the
//! table was changed, the result is dropped, and the next call inspects the table again. Other
//! changes make no statement fail, such as a new column, an optional column that was added, or
//! row level security that hides rows. So a call also starts a new inspection if the last one
//! is older than [`INSPECTION`], and doesn't wait for it.
//!
//! Dropped futures: the inspection runs in a task, so it continues without its callers. If its
//! runtime stops, the callers that still wait start another one.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use futures_core::future::BoxFuture;
use sqlx::PgConnection;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    Error, ErrorKind,
    error::out_of_time,
    event::Hook,
    expiry::FORWARDING,
    format::{Format, Native},
    login::SessionLimit,
    store::{
        connection::{executor::Executor, peer, probe::is_read_only},
        sql::Pooling,
        table::{
            clock::Clock,
            columns::Columns,
            engine::check_engine,
            inspect::{inspect, server},
            name::TableName,
            report::TableReport,
            statements::Statements,
        },
    },
    telemetry::{Call, Operation, Origins},
};

/// The table by name, and as it was found by the last inspection.
#[derive(Clone, Debug)]
pub(crate) struct TableHandle {
    pub(in crate::store) executor: Executor,
    pub(in crate::store) name: TableName,
    pub(in crate::store) time_zone: String,
    pub(in crate::store) format: Arc<dyn Format>,
    pub(in crate::store) limit: Option<SessionLimit>,
    pub(in crate::store) watching: Watching,
    pub(in crate::store) hook: Option<Hook>,
    found: Arc<RwLock<Option<Found>>>,
    /// The inspection in flight, which all calls that need the table wait for.
    looking: Arc<Mutex<Option<Looking>>>,
}

/// How often watched sessions are looked up, and how long a watch outlasts a database that
/// can't be queried.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Watching {
    pub(in crate::store) interval: Duration,
    pub(in crate::store) outage: Duration,
}

impl Default for Watching {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            // After that, an id that was replaced meanwhile leads nowhere.
            outage: FORWARDING,
        }
    }
}

/// How long the result of an inspection is used, while the store is in use.
const INSPECTION: Duration = Duration::from_secs(60);

/// The table, and when it is inspected again.
#[derive(Clone, Debug)]
struct Found {
    table: Arc<Statements>,
    due: Instant,
}

impl Found {
    fn now(table: &Arc<Statements>) -> Self {
        Self {
            table: Arc::clone(table),
            due: Instant::now() + INSPECTION,
        }
    }
}

/// The result of an inspection; `None` while it is in flight.
type Looking = watch::Receiver<Option<Result<Arc<Statements>, Error>>>;

impl TableHandle {
    pub(in crate::store) fn new(executor: Executor) -> Self {
        Self {
            executor,
            name: TableName::default(),
            time_zone: "UTC".into(),
            format: Native::shared(),
            limit: None,
            watching: Watching::default(),
            hook: None,
            found: Arc::default(),
            looking: Arc::default(),
        }
    }

    /// Returns another configuration, for which the table was not inspected yet.
    pub(in crate::store) fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = Self {
            found: Arc::default(),
            looking: Arc::default(),
            ..self.clone()
        };
        change(&mut changed);
        changed
    }

    /// Returns the table. Inspects it if that was not done at setup or by an earlier call.
    pub(in crate::store) async fn table(&self) -> Result<Arc<Statements>, Error> {
        self.table_until(self.executor.deadline()).await
    }

    /// As [`table`](Self::table), for a request that waits until `deadline`.
    pub(in crate::store) async fn table_until(
        &self,
        deadline: Instant,
    ) -> Result<Arc<Statements>, Error> {
        match self.found() {
            Some(table) => {
                self.compare_if_due();
                self.inspect_if_due();
                Ok(table)
            }
            // Boxed, so that the futures of requests stay small.
            None => timeout_at(deadline, Box::pin(self.await_look()))
                .await
                .unwrap_or_else(|_| Err(out_of_time())),
        }
    }

    /// Waits for the inspection in flight, or starts one. If the future is dropped, the
    /// inspection continues, so that the next call finds its result.
    async fn await_look(&self) -> Result<Arc<Statements>, Error> {
        loop {
            let mut looking = self.looking();
            let found = looking.wait_for(Option::is_some).await;
            // If there is no result, the runtime of its task has stopped.
            if let Ok(Some(found)) = found.map(|found| found.clone()) {
                return found;
            }
        }
    }

    /// Checks for a pooler again, in a task, if the last check failed and the next one is due.
    fn compare_if_due(&self) {
        if self.executor.pooling == Pooling::Own && self.executor.connections.comparisons().is_due()
        {
            let table_handle = self.clone();
            tokio::spawn(async move { table_handle.compare().await });
        }
    }

    /// Repeats the check for a pooler. If the connections turn out to be direct, statements no
    /// longer need a transaction. A transaction pooler that is found this late is only logged:
    /// statements in transactions are safe behind it.
    async fn compare(&self) {
        if let Err(error) = self.executor.detect_pooling().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a transaction pooler was found; each statement runs in a transaction"
            );
        }
        let is_known = self.executor.pooling_of_statements() == Pooling::Own;
        // If the inspection fails, the next statement repeats it and reports the error.
        if is_known && self.look_at_table().await.is_err() {
            self.forget();
        }
    }

    /// Inspects the table again, in a task, if the last inspection is too old. If a runtime
    /// stops meanwhile, the next inspection is due as after one that failed.
    fn inspect_if_due(&self) {
        let is_due = |found: &Option<Found>| {
            let now = Instant::now();
            found.as_ref().is_some_and(|found| found.due <= now)
        };
        if !is_due(&self.found.read().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        let mut found = self.found.write().unwrap_or_else(PoisonError::into_inner);
        // Another call may have been first.
        if let (true, Some(found)) = (is_due(&found), found.as_mut()) {
            *found = Found::now(&found.table);
            let table_handle = self.clone();
            tokio::spawn(async move { table_handle.inspect_again().await });
        }
    }

    /// If the table can't be used any more, the next call inspects it and reports why. If the
    /// server can't be asked, the former result stays.
    async fn inspect_again(&self) {
        if let Err(error) = self.look_at_table().await
            && error.kind() == ErrorKind::Setup
        {
            self.forget();
        }
    }

    fn looking(&self) -> Looking {
        let mut looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(looking) = looking.as_ref()
            && looking.borrow().is_none()
            && looking.has_changed().is_ok()
        {
            return looking.clone();
        }
        let (sender, receiver) = watch::channel(None);
        let table_handle = self.clone();
        tokio::spawn(async move {
            // Callers wait for the timeout at most. The inspection has more time, because
            // the check for a pooler comes first and could use up all of a short timeout.
            let deadline = table_handle.executor.deadline() + peer::PATIENCE;
            let found = timeout_at(deadline, table_handle.look()).await;
            sender.send_replace(Some(found.unwrap_or_else(|_| Err(out_of_time()))));
        });
        looking.insert(receiver).clone()
    }

    /// The table, if it was inspected already.
    pub(crate) fn found(&self) -> Option<Arc<Statements>> {
        self.found
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(|found| Arc::clone(&found.table))
    }

    /// The telemetry of a call for one row, by the current request or task.
    pub(in crate::store) fn call(&self, operation: Operation) -> Call<'_> {
        Call {
            operation,
            table: Some((&self.name.schema, &self.name.table)),
            rows: 1,
            origins: Origins::Here,
        }
    }

    /// Executes work of the store itself, with the table and a connection. With a patience,
    /// it waits no longer than that for a locked row.
    ///
    /// If the future is dropped, the server is asked to cancel the work.
    pub(in crate::store) async fn run<T>(
        &self,
        patience: Option<Duration>,
        operation: Operation,
        question: impl for<'c> FnOnce(
            Arc<Statements>,
            &'c mut PgConnection,
        ) -> BoxFuture<'c, Result<T, Error>>
        + Send,
    ) -> Result<T, Error> {
        let table = self.table().await?;
        let work = self
            .executor
            .run(patience, self.call(operation), |connection| {
                question(table, connection)
            });
        self.note_changed_table(work.await)
    }

    /// Has the next call inspect the table again if this outcome shows that the table was
    /// changed. An application may change it while its processes run.
    pub(in crate::store) fn note_changed_table<T>(
        &self,
        outcome: Result<T, Error>,
    ) -> Result<T, Error> {
        if outcome.as_ref().is_err_and(Error::is_of_a_changed_table) {
            self.forget();
        }
        outcome
    }

    /// Drops the result of the inspection, so that the next call repeats it.
    fn forget(&self) {
        *self.found.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(in crate::store) async fn check(&self) -> Result<TableReport, Error> {
        check_engine(&self.executor).await?;
        self.executor.detect_pooling().await?;
        self.check_table().await
    }

    /// Checks the table, after the check for a pooler.
    pub(in crate::store) async fn check_table(&self) -> Result<TableReport, Error> {
        let report = self.look_at_table().await?.columns.report();
        match self
            .executor
            .look(|connection| Box::pin(async move { Ok(is_read_only(connection).await?) }))
            .await?
        {
            true => Err(takes_no_writes()),
            false => Ok(report),
        }
    }

    async fn look(&self) -> Result<Arc<Statements>, Error> {
        self.executor.detect_pooling().await?;
        self.look_at_table().await
    }

    async fn look_at_table(&self) -> Result<Arc<Statements>, Error> {
        let columns = self.columns().await?.ok_or_else(|| self.no_table())?;
        columns.check_limit(self.limit, &self.name)?;
        let server = self
            .executor
            .look(|connection| Box::pin(server(connection)))
            .await?;
        self.executor.isolation.found(&server.isolation);
        // The same clock as before, so that its time doesn't go back.
        let clock = match self.found() {
            Some(table) => Arc::clone(&table.clock),
            None => Arc::new(Clock::at(server.now)),
        };
        clock.observe(server.now);
        let table = Statements::new(
            self.name.clone(),
            columns,
            clock,
            &*self.format,
            self.executor.pooling_of_statements(),
        );
        if self.executor.pooling == Pooling::Own {
            self.executor.connections.comparisons().log();
        }
        let table = Arc::new(table);
        let found = Some(Found::now(&table));
        *self.found.write().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(table)
    }

    /// # Errors
    ///
    /// If the table exists but can't be used.
    pub(in crate::store) async fn columns(&self) -> Result<Option<Columns>, Error> {
        self.name.check()?;
        let (name, time_zone) = (self.name.clone(), self.time_zone.clone());
        self.executor
            .look(|connection| Box::pin(inspect(connection, name, time_zone)))
            .await
    }

    fn no_table(&self) -> Error {
        Error::new(
            ErrorKind::Setup,
            format!(
                "there is no table {}; perhaps you forgot to call PgSessionStore::migrate",
                self.name
            ),
        )
    }

    /// Executes a statement of requests, with the table and a connection. With a patience, it
    /// waits no longer than that for a locked row.
    ///
    /// If the future is dropped, the server is asked to cancel the statement.
    pub(in crate::store) async fn serve<T>(
        &self,
        deadline: Instant,
        patience: Option<Duration>,
        call: Call<'_>,
        statement: impl for<'c> FnOnce(Arc<Statements>, &'c mut PgConnection) -> Work<'c, T> + Send,
    ) -> Result<T, Error> {
        let table = self.table_until(deadline).await?;
        let outcome = self
            .executor
            .serve(deadline, patience, call, |connection| {
                statement(table, connection)
            })
            .await;
        self.note_changed_table(outcome)
    }

    /// As [`serve`](Self::serve), for queries of an application outside of requests.
    pub(in crate::store) async fn ask<T>(
        &self,
        deadline: Instant,
        call: Call<'_>,
        statement: impl for<'c> FnOnce(Arc<Statements>, &'c mut PgConnection) -> Work<'c, T> + Send,
    ) -> Result<T, Error> {
        let table = self.table_until(deadline).await?;
        let outcome = self
            .executor
            .ask(deadline, call, |connection| statement(table, connection))
            .await;
        self.note_changed_table(outcome)
    }
}

fn takes_no_writes() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the server takes no writes; is it a standby, or is default_transaction_read_only set?",
    )
}

pub(in crate::store) type Work<'c, T> = BoxFuture<'c, Result<T, Error>>;
