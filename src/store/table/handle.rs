//! The table by its name and settings, and what was found when it was inspected. Statements get
//! the rendered SQL and a connection here. It knows columns, but no session.
//!
//! How it works: the first call that needs the table starts a task that detects a pooler,
//! inspects the table and renders the statements. All calls that need the table meanwhile wait
//! for the same task. The result is shared by all clones.
//!
//! The table can change while the store uses it:
//!
//! - If a statement fails because of that, the result is stale: the next call waits for another
//!   inspection, and gets its error if the table can't be used. If only some calls would fail,
//!   the others continue with the new result.
//! - Other changes make no statement fail, such as a new column, or row level security
//!   that hides rows. So a call also starts an inspection if the last one is older than
//!   [`INSPECTION`]. It doesn't wait for it, unless the store was not used for long. If
//!   the statements can't read the table any more, or would not see its rows, the result
//!   is stale. If only some calls would fail, that is logged, and the former result stays
//!   in use. The former result also stays in use if the server can't be queried.
//!
//! Dropped futures: the inspection runs in a task, so it continues without its callers. If its
//! runtime stops, the callers that still wait start another one.

use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
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
    format::{Format, Native},
    forwarding::FORWARDING,
    login::SessionLimit,
    store::{
        connection::{executor::Executor, peer, probe::is_read_only},
        sql::Pooling,
        table::{
            clock::Clock,
            columns::Columns,
            engine::check_engine,
            inspect::{Inspected, Wanted, inspect, server},
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
    /// Whether the table must have tombstones.
    pub(in crate::store) tombstones: bool,
    pub(in crate::store) limit: Option<SessionLimit>,
    pub(in crate::store) watching: Watching,
    pub(in crate::store) hook: Option<Hook>,
    found: Arc<RwLock<Option<Found>>>,
    /// The inspection in flight, which all calls that need the table wait for.
    looking: Arc<Mutex<Option<Looking>>>,
    /// The number of inspections that began.
    inspections: Arc<AtomicU64>,
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

/// How long the result of an inspection is used before the next one, while the store is in use.
const INSPECTION: Duration = Duration::from_secs(60);
/// How old a result may be if no call waits for the next one.
const OLDEST: Duration = Duration::from_secs(120);

/// The table as an inspection found it.
#[derive(Clone, Debug)]
struct Found {
    table: Arc<Statements>,
    /// When the last inspection began that succeeded.
    since: Instant,
    /// When the next one is due.
    due: Instant,
    /// The number of that inspection. Results can arrive in another order.
    number: u64,
    /// Whether the table was changed since, in a way that makes statements fail.
    is_stale: bool,
    /// What the last inspection found that makes some calls fail.
    obstacle: Option<Arc<str>>,
}

/// The result of an inspection that found a table which the statements can read.
struct Look {
    number: u64,
    since: Instant,
    columns: Columns,
    obstacle: Option<Error>,
}

impl Found {
    /// Whether a call must wait for the next inspection.
    fn waits_for_inspection(&self) -> bool {
        let now = Instant::now();
        self.is_stale || self.due <= now && self.since + OLDEST <= now
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
            tombstones: false,
            limit: None,
            watching: Watching::default(),
            hook: None,
            found: Arc::default(),
            looking: Arc::default(),
            inspections: Arc::default(),
        }
    }

    /// Returns another configuration, for which the table was not inspected yet.
    pub(in crate::store) fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = Self {
            found: Arc::default(),
            looking: Arc::default(),
            inspections: Arc::default(),
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
        match self.latest() {
            Some(found) if !found.waits_for_inspection() => {
                self.compare_if_due();
                if found.due <= Instant::now() {
                    drop(self.looking());
                }
                Ok(found.table)
            }
            found => {
                // Boxed, so that the futures of requests stay small.
                let look = timeout_at(deadline, Box::pin(self.await_look())).await;
                let look = look.unwrap_or_else(|_| Err(out_of_time()));
                match found {
                    Some(found) if !found.is_stale && !look.as_ref().is_err_and(is_a_finding) => {
                        Ok(look.unwrap_or(found.table))
                    }
                    _ => look,
                }
            }
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
            self.change_found(|found| found.is_stale = true);
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
            let found = found.unwrap_or_else(|_| Err(out_of_time()));
            if let Err(error) = &found {
                table_handle.note_failed_inspection(error);
            }
            sender.send_replace(Some(found));
        });
        looking.insert(receiver).clone()
    }

    /// The table, if it was inspected already. It may have changed since.
    pub(crate) fn found(&self) -> Option<Arc<Statements>> {
        let found = self.found.read().unwrap_or_else(PoisonError::into_inner);
        found.as_ref().map(|found| Arc::clone(&found.table))
    }

    fn latest(&self) -> Option<Found> {
        let found = self.found.read().unwrap_or_else(PoisonError::into_inner);
        found.clone()
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
        let used = Arc::clone(&table);
        let work = self
            .executor
            .run(patience, self.call(operation), |connection| {
                question(used, connection)
            });
        self.note_changed_table(&table, work.await)
    }

    /// Has the next call inspect the table again if this outcome of a statement for `table`
    /// shows that the table was changed. An application may change it while its processes run.
    pub(in crate::store) fn note_changed_table<T>(
        &self,
        table: &Arc<Statements>,
        outcome: Result<T, Error>,
    ) -> Result<T, Error> {
        if let Err(error) = &outcome
            && error.is_of_a_changed_table()
        {
            self.change_found(|found| {
                // Unless it was inspected meanwhile.
                let is_latest = Arc::ptr_eq(&found.table, table);
                // If the inspection found that a right is missing, another one changes nothing.
                let is_known = found.obstacle.is_some() && error.lacks_a_right();
                found.is_stale |= is_latest && !is_known;
            });
        }
        outcome
    }

    fn note_failed_inspection(&self, error: &Error) {
        self.change_found(|found| {
            found.is_stale |= is_a_finding(error);
            found.due = Instant::now() + INSPECTION;
        });
    }

    /// Does nothing if the table was not inspected yet.
    fn change_found(&self, change: impl FnOnce(&mut Found)) {
        let mut found = self.found.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = found.as_mut() {
            change(found);
        }
    }

    pub(in crate::store) async fn check(&self) -> Result<TableReport, Error> {
        check_engine(&self.executor).await?;
        self.executor.detect_pooling().await?;
        self.check_table().await
    }

    /// Checks the table, after the check for a pooler.
    pub(in crate::store) async fn check_table(&self) -> Result<TableReport, Error> {
        let report = self.look_at_table().await?.columns.report();
        if self.tombstones && !report.tombstones {
            return Err(self.no_tombstones());
        }
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
        match self.latest() {
            None => {
                self.executor.detect_pooling().await?;
                self.look_at_table().await
            }
            Some(found) => self.look_again(found.is_stale).await,
        }
    }

    /// Inspects the table.
    ///
    /// # Errors
    ///
    /// If some calls would fail, or the server can't be asked.
    async fn look_at_table(&self) -> Result<Arc<Statements>, Error> {
        match self.inspect_now().await? {
            Look {
                obstacle: Some(obstacle),
                ..
            } => Err(obstacle),
            look => self.store(look).await,
        }
    }

    /// As [`look_at_table`](Self::look_at_table), for a table that is in use. If only some calls
    /// would fail, it logs that once, and the others continue.
    async fn look_again(&self, is_stale: bool) -> Result<Arc<Statements>, Error> {
        let look = self.inspect_now().await?;
        let Some(obstacle) = look.obstacle.clone() else {
            return self.store(look).await;
        };
        let since = look.since;
        // Statements for the former table make no call fail, if it is not stale.
        let table = match is_stale {
            true => Some(self.store(look).await?),
            false => None,
        };
        let mut found = self.found.write().unwrap_or_else(PoisonError::into_inner);
        let found = found.as_mut().ok_or_else(|| obstacle.clone())?;
        found.since = since;
        found.due = since + INSPECTION;
        let text = obstacle.to_string();
        if found.obstacle.as_deref() != Some(&*text) {
            tracing::error!(
                error = &obstacle as &dyn std::error::Error,
                "the session table was changed, and some calls will fail"
            );
            found.obstacle = Some(text.into());
        }
        Ok(table.unwrap_or_else(|| Arc::clone(&found.table)))
    }

    async fn inspect_now(&self) -> Result<Look, Error> {
        let number = self.inspections.fetch_add(1, Relaxed);
        let since = Instant::now();
        let inspected = self.inspect().await?;
        let Inspected { columns, obstacle } = inspected.ok_or_else(|| self.no_table())?;
        Ok(Look {
            number,
            since,
            columns,
            obstacle,
        })
    }

    /// Renders the statements, unless a later inspection has stored its result.
    async fn store(&self, look: Look) -> Result<Arc<Statements>, Error> {
        let Look {
            number,
            since,
            columns,
            obstacle,
        } = look;
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
        let table = Arc::new(Statements::new(
            self.name.clone(),
            columns,
            clock,
            &*self.format,
            self.executor.pooling_of_statements(),
        ));
        if self.executor.pooling == Pooling::Own {
            self.executor.connections.comparisons().log();
        }
        let mut found = self.found.write().unwrap_or_else(PoisonError::into_inner);
        if found.as_ref().is_none_or(|found| found.number < number) {
            let former = found.take().and_then(|found| found.obstacle);
            *found = Some(Found {
                table: Arc::clone(&table),
                since,
                due: since + INSPECTION,
                number,
                is_stale: false,
                // It is logged once, and kept while it lasts.
                obstacle: former.filter(|_| obstacle.is_some()),
            });
        }
        Ok(table)
    }

    /// # Errors
    ///
    /// If the table exists but can't be used.
    pub(in crate::store) async fn columns(&self) -> Result<Option<Columns>, Error> {
        match self.inspect().await? {
            Some(Inspected {
                obstacle: Some(obstacle),
                ..
            }) => Err(obstacle),
            inspected => Ok(inspected.map(|inspected| inspected.columns)),
        }
    }

    async fn inspect(&self) -> Result<Option<Inspected>, Error> {
        self.name.check()?;
        let wanted = self.wanted();
        self.executor
            .look(|connection| Box::pin(inspect(connection, wanted)))
            .await
    }

    /// The table as the format and the options of the store need it.
    pub(in crate::store) fn wanted(&self) -> Wanted {
        Wanted {
            name: self.name.clone(),
            zone: self.time_zone.clone(),
            columns: self.format.columns(),
            stores_user_in_document: self.format.layout().user().is_some(),
        }
    }

    fn no_tombstones(&self) -> Error {
        Error::new(
            ErrorKind::Setup,
            format!(
                "the table {} has no triggers for the store's tombstones, or those of another \
                 version or time_zone; call PgSessionStore::migrate with the options of this \
                 store, as the owner of the table with CREATE on its schema",
                self.name
            ),
        )
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
        let used = Arc::clone(&table);
        let outcome = self
            .executor
            .serve(deadline, patience, call, |connection| {
                statement(used, connection)
            })
            .await;
        self.note_changed_table(&table, outcome)
    }

    /// As [`serve`](Self::serve), for queries of an application outside of requests.
    pub(in crate::store) async fn ask<T>(
        &self,
        deadline: Instant,
        call: Call<'_>,
        statement: impl for<'c> FnOnce(Arc<Statements>, &'c mut PgConnection) -> Work<'c, T> + Send,
    ) -> Result<T, Error> {
        let table = self.table_until(deadline).await?;
        let used = Arc::clone(&table);
        let outcome = self
            .executor
            .ask(deadline, call, |connection| statement(used, connection))
            .await;
        self.note_changed_table(&table, outcome)
    }
}

/// Whether the table can't be used. Other errors of kind `Setup` have a source, such as a
/// password that was changed, and say nothing about the table.
fn is_a_finding(error: &Error) -> bool {
    error.kind() == ErrorKind::Setup && std::error::Error::source(error).is_none()
}

fn takes_no_writes() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the server takes no writes; is it a standby, or is default_transaction_read_only set?",
    )
}

pub(in crate::store) type Work<'c, T> = BoxFuture<'c, Result<T, Error>>;
