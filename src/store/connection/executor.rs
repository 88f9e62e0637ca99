use std::{pin::pin, sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use tokio::time::{Instant, timeout_at};

use crate::{
    Error, ErrorKind,
    error::{OutOfTime, out_of_time},
    store::{
        connection::{
            pool::{Connections, HeldConnection, Purpose},
            probe::Backend,
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
    /// Lends a connection of the pool to `work`, which is no request's; both
    /// waits share one deadline. With a patience, the statement is ended when it
    /// waits longer than that for a row which another transaction has locked.
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

    /// As [`run`](Self::run), for one message of the simple protocol, which no
    /// pooler takes apart, to a server that may not even know our transactions.
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

    /// As [`run`](Self::run), for what is asked before it is known what stands
    /// between this process and Postgres.
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
        let purpose = match call.operation {
            Operation::Load => Purpose::Reading,
            Operation::Manage => Purpose::Managing,
            _ => Purpose::Writing,
        };
        self.with_connection(purpose, deadline, patience, call, work)
            .await
    }

    /// As [`serve`](Self::serve), for what an application asks outside of requests.
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
        self.with_connection(Purpose::Asking, deadline, None, call, work)
            .await
    }

    /// If the future is dropped, the server is to end the statement, see [`HeldConnection`].
    async fn with_connection<T>(
        &self,
        purpose: Purpose,
        deadline: Instant,
        patience: Option<Duration>,
        call: Call<'_>,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let since = Stopwatch::start();
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
        let (outcome, watch) = self.wait(deadline, patience, backend, work).await;
        running.ended(&outcome);
        let outcome = held_up_by_a_lock(patience, outcome);
        let error = outcome.as_ref().err();
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
            // It may be told to cancel what comes next on it.
            _ if watch == Watch::GoesOn => held.close(),
            None if may_be_kept => held.keep(),
            // The server has answered, and the next part of it is about to come.
            Some(error) if error.is_held_up() && may_be_kept && !self.needs_a_transaction() => {
                held.keep();
            }
            Some(error) if error.is_of_an_old_plan() => {
                let clearing = held.connection().clear_cached_statements();
                drop(timeout_at(deadline, clearing).await);
                held.release();
                self.connections.clear_statements().await;
            }
            _ => held.release(),
        }
    }

    /// Has the statement canceled when it waits for too long for a locked row.
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
        match (watched.close().await, outcome) {
            (Ok(true), Err(error)) if error.is_canceled() => (Err(held_up(error)), Watch::Over),
            (Ok(_), outcome) => (outcome, Watch::Over),
            // Nobody but the look can have canceled it by now.
            (Err(_), Err(error)) if error.is_canceled() => (Err(held_up(error)), Watch::GoesOn),
            (Err(_), outcome) => (outcome, Watch::GoesOn),
        }
    }

    /// A pooler keeps a connection of the server for one client as long as a
    /// transaction lasts, and no longer. Nothing else can end a statement there
    /// in time than the server's own limits, which end with the transaction. And
    /// only a transaction can ask for its isolation level.
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

    /// What to say where no connection came free in time.
    fn no_connection(&self) -> Error {
        match self.connections.are_exhausted() {
            true => Error::caused(
                ErrorKind::Unavailable,
                "the application has all connections of the pool; where it keeps one for a whole \
                 request, give the store a pool of its own",
                OutOfTime,
            ),
            false => out_of_time(),
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

/// Whether the backend of a statement may still be told to cancel something.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Watch {
    Over,
    GoesOn,
}

/// A question about the server or the table.
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
    /// For a locked row, where that is shorter.
    patience: Option<Duration>,
}

/// The server's limit comes after the deadline here, which is told in more
/// detail.
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
        // In one message, so it is no round trip more than without limits.
        format!("{READ_COMMITTED}; {limits}")
    }
}

/// In a transaction the server's `lock_timeout` ends the wait for a row.
fn held_up_by_a_lock<T>(patience: Option<Duration>, outcome: Result<T, Error>) -> Result<T, Error> {
    match outcome {
        Err(error) if patience.is_some() && error.is_of_a_lock() && !error.is_held_up() => {
            Err(held_up(error))
        }
        outcome => outcome,
    }
}
