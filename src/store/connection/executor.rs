//! Executes one piece of work on a connection, with a deadline. It doesn't know the work, nor
//! the table.
//!
//! How it works: [`Executor::with_connection`] acquires a connection and executes the work, in
//! a transaction if one is needed, with one deadline for both. The outcome decides whether the
//! connection is kept, returned to the pool, or closed. Work that has a patience is canceled
//! if it waits for a locked row for longer than that. In a transaction of its own the
//! `lock_timeout` of the server does it, otherwise the [cancellations](super::cancellations).
//!
//! Dropped futures: see [`HeldConnection`]. Work that was sent may still commit, as a whole.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use tokio::time::{Instant, timeout_at};

use crate::{
    Error, ErrorKind,
    error::{OutOfTime, out_of_time},
    store::{
        connection::{
            pool::{Connections, HeldConnection},
            probe::Backend,
            purpose::Purpose,
            sqlstate::held_up,
            transaction::{Isolation, READ_COMMITTED},
        },
        sql::Pooling,
    },
    telemetry::{Call, Meter, Operation, Origins, Running, Stopwatch},
};

/// The pool, and how long one piece of work with it may take.
#[derive(Clone, Debug)]
pub(crate) struct Executor {
    pub(crate) connections: Connections,
    pub(crate) timeout: Duration,
    pub(in crate::store) pooling: Pooling,
    pub(in crate::store) isolation: Isolation,
    pub(in crate::store) transactions: Transactions,
    pub(crate) meter: Arc<Meter>,
}

impl Executor {
    /// Executes `work` of the store itself on a connection of the pool. The wait for the
    /// connection and the work share one deadline. With a patience, the statement is
    /// canceled if it waits longer than that for a row that another transaction has locked.
    ///
    /// # Errors
    ///
    /// Those of `work`, `Unavailable` when the time is up, and one that
    /// [is held up](Error::is_held_up).
    pub(crate) async fn run<T>(
        &self,
        patience: Option<Duration>,
        call: Call<'_>,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        self.with_connection(Purpose::Own, self.deadline(), patience, call, work)
            .await
    }

    /// As [`run`](Self::run), for a server that may be no Postgres and may not support the
    /// store's transactions. `work` must be a single message of the simple protocol, which
    /// every pooler keeps together.
    pub(in crate::store) async fn ask_any_server<T>(
        &self,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let alone = Self {
            transactions: Transactions::Never,
            ..self.clone()
        };
        alone.run(None, LOOK, work).await
    }

    /// As [`run`](Self::run), for queries that run before it is known whether there is a
    /// pooler.
    pub(in crate::store) async fn look<T>(
        &self,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let careful = Self {
            pooling: Pooling::Transaction,
            ..self.clone()
        };
        careful.run(None, LOOK, work).await
    }

    fn begin(&self, call: &Call<'_>) -> Running<'_> {
        Running::begin(call, &self.meter, self.pool())
    }

    /// As [`run`](Self::run), with one of the connections for requests.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub(crate) async fn serve<T>(
        &self,
        deadline: Instant,
        patience: Option<Duration>,
        call: Call<'_>,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let purpose = Purpose::of_statement(call.operation);
        self.with_connection(purpose, deadline, patience, call, work)
            .await
    }

    /// As [`serve`](Self::serve), for queries outside of requests.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub(crate) async fn ask<T>(
        &self,
        deadline: Instant,
        call: Call<'_>,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let purpose = Purpose::of_query(call.operation);
        self.with_connection(purpose, deadline, None, call, work)
            .await
    }

    /// Executes `work` on a connection for this purpose.
    ///
    /// If the future is dropped, the server is asked to cancel the statement, see
    /// [`HeldConnection`].
    async fn with_connection<T>(
        &self,
        purpose: Purpose,
        deadline: Instant,
        patience: Option<Duration>,
        call: Call<'_>,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let since = Stopwatch::start();
        // If the future is dropped here, or times out, nothing of `work` was sent.
        let acquired = timeout_at(deadline, self.connections.acquire(purpose)).await;
        if purpose != Purpose::Own {
            self.meter.waited_for_a_connection(since);
        }
        let mut held = acquired.map_err(|_| self.no_connection())??;
        let running = self.begin(&call);
        let limits = Limits {
            patience,
            ..Limits::until(deadline)
        };
        let backend = held.backend();
        let work = running.around(self.carry_out(held.connection(), limits, work));
        // If the future is dropped here, so is `held`, whose task cancels the statement.
        let (outcome, watch) = self.wait(deadline, patience, backend, work).await;
        running.ended(&outcome);
        let outcome = held_up_by_a_lock(patience, outcome);
        let error = outcome.as_ref().err();
        // The outcome is known here. If the future is dropped, it is lost, and a connection
        // that was not kept or returned yet is closed or put in order by its task.
        self.end(held, purpose, deadline, error, watch).await;
        if outcome.as_ref().is_err_and(Error::is_unavailable) {
            self.connections.suspect_failover();
        }
        outcome
    }

    /// Keeps, releases or closes the connection after its statement.
    async fn end(
        &self,
        mut held: HeldConnection,
        purpose: Purpose,
        deadline: Instant,
        error: Option<&Error>,
        watch: Watch,
    ) {
        let may_be_kept = purpose != Purpose::Own;
        match error {
            Some(error) if error.is_out_of_time() => {
                drop(held);
                self.connections.evict_idle();
            }
            Some(error) if error.spoils_the_connection() => {
                match error.is_of_the_server() {
                    true => held.close(),
                    false => held.lose(),
                }
                self.connections.evict_idle();
            }
            // A look may still cancel the next statement of this connection.
            _ if watch == Watch::GoesOn => held.close(),
            None if may_be_kept => held.keep(),
            // The server has responded, and the next attempt or part follows soon.
            Some(error) if error.is_held_up() && may_be_kept && !self.needs_a_transaction() => {
                held.keep();
            }
            Some(error) if error.is_of_an_old_plan() => {
                let clearing = held.connection().clear_cached_statements();
                drop(timeout_at(deadline, clearing).await);
                held.release();
                // If the time is up, the connections that did not respond are closed.
                drop(timeout_at(deadline, self.connections.clear_statements()).await);
            }
            _ => held.release(),
        }
    }

    /// Waits for `work`. Has the statement canceled if it waits too long for a locked row.
    async fn wait<T>(
        &self,
        deadline: Instant,
        patience: Option<Duration>,
        backend: Backend,
        work: impl Future<Output = Result<T, Error>>,
    ) -> (Result<T, Error>, Watch) {
        let mut work = pin!(work);
        let Some(patience) = patience else {
            let outcome = timeout_at(deadline, work).await;
            return (outcome.unwrap_or_else(|_| Err(out_of_time())), Watch::Over);
        };
        let soon = deadline.min(Instant::now() + patience);
        if let Ok(outcome) = timeout_at(soon, &mut work).await {
            return (outcome, Watch::Over);
        }
        let watched = self.connections.watch(backend);
        let outcome = timeout_at(deadline, work).await;
        let outcome = outcome.unwrap_or_else(|_| Err(out_of_time()));
        let Some(watched) = watched else {
            return (outcome, Watch::Over);
        };
        // If the future is dropped here, the connection is closed if a look is in flight.
        match (watched.close().await, outcome) {
            (Ok(true), Err(error)) if error.is_canceled() => (Err(held_up(error)), Watch::Over),
            (Ok(_), outcome) => (outcome, Watch::Over),
            // Only the look can have canceled it.
            (Err(_), Err(error)) if error.is_canceled() => (Err(held_up(error)), Watch::GoesOn),
            (Err(_), outcome) => (outcome, Watch::GoesOn),
        }
    }

    /// Executes `work`, in a transaction if one is needed.
    ///
    /// A pooler keeps a connection of the server for one client only as long as a
    /// transaction lasts. Behind it, only the server's own limits can end a statement in
    /// time, and they end with the transaction. And only a transaction can set its
    /// isolation level.
    ///
    /// If the future is dropped, the transaction is rolled back, unless its commit was sent.
    async fn carry_out<T>(
        &self,
        connection: &mut PgConnection,
        limits: Limits,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        if !self.needs_a_transaction() {
            let outcome = work(connection).await;
            self.isolation.observe(&outcome);
            return outcome;
        }
        let mut transaction = connection.begin_with(AssertSqlSafe(limits.begin())).await?;
        let outcome = work(&mut transaction).await?;
        transaction.commit().await?;
        Ok(outcome)
    }

    fn needs_a_transaction(&self) -> bool {
        let is_asked_for = self.pooling != Pooling::Own
            || self.isolation.is_strict()
            || self.connections.can_cancel_nothing();
        is_asked_for && self.transactions == Transactions::WhereNeeded
    }

    /// The error if no connection was free in time.
    fn no_connection(&self) -> Error {
        match self.connections.are_exhausted() {
            true => Error::caused(
                ErrorKind::Unavailable,
                "the application has all connections of the pool; where it keeps one for a whole \
                 request, give the store a pool of its own",
                OutOfTime,
            ),
            false => {
                self.connections.log_unreachable();
                out_of_time()
            }
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    pub(crate) fn pool(&self) -> &PgPool {
        self.connections.pool()
    }
}

/// Whether a statement may run in a transaction of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::store) enum Transactions {
    #[default]
    WhereNeeded,
    Never,
}

/// Whether a look may still cancel something on the backend of a statement.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Watch {
    Over,
    GoesOn,
}

/// A query about the server or the table.
const LOOK: Call<'static> = Call {
    operation: Operation::Inspect,
    table: None,
    rows: 1,
    origins: Origins::Here,
};

/// How long the server may work on one transaction.
#[derive(Clone, Copy, Debug)]
struct Limits {
    statement: Duration,
    /// The limit for a locked row, if that is shorter.
    patience: Option<Duration>,
}

/// The server's limit ends later than the store's deadline, whose error has more detail.
const AFTER_THE_DEADLINE: Duration = Duration::from_millis(250);

impl Limits {
    fn until(deadline: Instant) -> Self {
        Self {
            statement: deadline.saturating_duration_since(Instant::now()) + AFTER_THE_DEADLINE,
            patience: None,
        }
    }

    fn begin(self) -> String {
        // The largest that Postgres takes.
        let longest = i32::MAX.unsigned_abs().into();
        let milliseconds = |limit: Duration| format!("'{}'", limit.as_millis().clamp(1, longest));
        let limits = include_str!("../sql/limits.sql")
            .replace("$1", &milliseconds(self.statement))
            .replace("$2", &milliseconds(self.patience.unwrap_or(self.statement)));
        // In one message, so that the limits cost no round trip.
        format!("{READ_COMMITTED}; {limits}")
    }
}

/// Marks an error of the server's `lock_timeout`, which ends the wait for a row in a
/// transaction.
fn held_up_by_a_lock<T>(patience: Option<Duration>, outcome: Result<T, Error>) -> Result<T, Error> {
    match outcome {
        Err(error) if patience.is_some() && error.is_of_a_lock() && !error.is_held_up() => {
            Err(held_up(error))
        }
        outcome => outcome,
    }
}
