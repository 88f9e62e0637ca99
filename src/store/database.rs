use std::{error::Error as StdError, fmt, pin::pin, sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, PgPool,
    error::DatabaseError,
    postgres::{PgDatabaseError, PgSeverity},
};
use tokio::time::{Instant, timeout_at};

use crate::{
    Error, ErrorKind,
    store::{
        acquire::Backend,
        connecting,
        connections::{Connections, Use},
        sql::Pooling,
        transaction::{Isolation, READ_COMMITTED},
    },
    telemetry::{Call, Meter, Operation, Origins, Running, Stopwatch},
};

/// The pool, and how long one piece of work with it may take.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(crate) connections: Connections,
    pub(crate) timeout: Duration,
    pub(super) pooling: Pooling,
    pub(super) isolation: Isolation,
    pub(crate) meter: Arc<Meter>,
}

impl Database {
    /// Lends a connection of the pool to `work`, which is no request's; both
    /// waits share one deadline.
    ///
    /// # Errors
    ///
    /// Those of `work`, and `Unavailable` when the time is up.
    pub(crate) async fn run<T>(
        &self,
        call: Call<'_>,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        self.run_patiently(None, call, work).await
    }

    /// As [`run`](Self::run). With a patience, the statement is ended when it
    /// waits longer than that for a row which another transaction has locked.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and one that [is held up](Error::is_held_up).
    pub(crate) async fn run_patiently<T>(
        &self,
        patience: Option<Duration>,
        call: Call<'_>,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        self.heed(self.lend(patience, call, work).await)
    }

    async fn lend<T>(
        &self,
        patience: Option<Duration>,
        call: Call<'_>,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let deadline = self.deadline();
        let mut lent = timeout_at(deadline, Box::pin(self.connections.lend()))
            .await
            .map_err(|_| self.no_connection())??;
        let running = self.begin(&call);
        let limits = Limits {
            patience,
            ..Limits::until(deadline)
        };
        let backend = lent.backend();
        let work = running.around(self.carry_out(lent.connection(), limits, work));
        let (outcome, watch) = self.wait(deadline, patience, backend, work).await;
        running.ended(&outcome);
        let outcome = held_up_by_a_lock(patience, outcome);
        if outcome.as_ref().is_err_and(Error::spoils_the_connection) {
            drop(lent);
        } else if watch == Watch::GoesOn {
            // It may be told to cancel what comes next on it.
            lent.close();
        } else {
            lent.give_back();
        }
        outcome
    }

    /// As [`run`](Self::run), for one message of the simple protocol, which no
    /// pooler takes apart, to a server that may not even know our transactions.
    pub(super) async fn ask_any_server<T>(
        &self,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let alone = Self {
            pooling: Pooling::Own,
            isolation: Isolation::default(),
            ..self.clone()
        };
        alone.run(LOOK, work).await
    }

    /// As [`run`](Self::run), for what is asked before it is known what stands
    /// between this process and Postgres.
    pub(super) async fn look<T>(
        &self,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let careful = Self {
            pooling: Pooling::Transaction,
            ..self.clone()
        };
        careful.run(LOOK, work).await
    }

    fn begin(&self, call: &Call<'_>) -> Running<'_> {
        Running::begin(call, &self.meter, self.pool())
    }

    /// Lends one of the connections for requests to `work`. With a patience, the
    /// statement is ended when it waits longer than that for a row which another
    /// transaction has locked.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and one that [is held up](Error::is_held_up).
    pub(crate) async fn serve<T>(
        &self,
        deadline: Instant,
        patience: Option<Duration>,
        call: Call<'_>,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let outcome = self.lend_until(deadline, patience, call, work).await;
        self.heed(outcome)
    }

    async fn lend_until<T>(
        &self,
        deadline: Instant,
        patience: Option<Duration>,
        call: Call<'_>,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let purpose = match call.operation {
            Operation::Load => Use::Reading,
            _ => Use::Writing,
        };
        let since = Stopwatch::start();
        let borrowed = timeout_at(deadline, self.connections.borrow(purpose)).await;
        self.meter.waited_for_a_connection(since);
        let mut loan = borrowed.map_err(|_| self.no_connection())??;
        let running = self.begin(&call);
        let limits = Limits {
            patience,
            ..Limits::until(deadline)
        };
        let backend = loan.backend;
        let work = running.around(self.carry_out(&mut loan.connection, limits, work));
        let (outcome, watch) = self.wait(deadline, patience, backend, work).await;
        running.ended(&outcome);
        let outcome = held_up_by_a_lock(patience, outcome);
        match &outcome {
            Err(error) if error.is_out_of_time() => {
                loan.abandon();
                self.connections.forget();
            }
            Err(error) if error.spoils_the_connection() => {
                match error.is_of_the_server() {
                    true => loan.close(),
                    false => loan.lose(),
                }
                self.connections.forget();
            }
            // It may be told to cancel what comes next on it.
            _ if watch == Watch::GoesOn => loan.close(),
            Ok(_) => loan.keep(),
            // The server has answered, and the next part of it is about to come.
            Err(error) if error.is_held_up() && !self.needs_a_transaction() => loan.keep(),
            Err(error) if error.is_of_an_old_plan() => {
                drop(timeout_at(deadline, loan.connection.clear_cached_statements()).await);
                drop(loan);
                self.connections.clear_statements().await;
            }
            Err(_) => drop(loan),
        }
        outcome
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

    fn heed<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if outcome.as_ref().is_err_and(Error::is_unavailable) {
            self.connections.doubt();
        }
        outcome
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
        self.pooling != Pooling::Own
            || self.isolation.is_strict()
            || self.connections.can_cancel_nothing()
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
        let limits = include_str!("sql/limits.sql")
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

fn held_up(error: Error) -> Error {
    Error::caused(
        ErrorKind::Conflict,
        "another transaction has locked a row of this statement",
        HeldUp(error),
    )
}

/// Marks the errors of statements that were ended because they waited for a
/// locked row.
#[derive(Debug)]
struct HeldUp(Error);

impl fmt::Display for HeldUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for HeldUp {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

pub(super) fn out_of_time() -> Error {
    Error::caused(
        ErrorKind::Unavailable,
        "the database did not answer in time",
        OutOfTime,
    )
}

/// Marks the errors of our own deadline, after which nothing is tried again.
#[derive(Debug)]
struct OutOfTime;

impl fmt::Display for OutOfTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time for one statement is up")
    }
}

impl StdError for OutOfTime {}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        if let Some(message) = connecting::fault(&source) {
            return Self::caused(ErrorKind::Setup, message, source);
        }
        let (kind, message) = match &source {
            sqlx::Error::Database(error) if is_of_an_old_plan(&**error) => {
                (ErrorKind::Conflict, "the table was changed")
            }
            sqlx::Error::Database(error) => {
                of_sqlstate(error.code().as_deref().unwrap_or_default())
            }
            sqlx::Error::Configuration(_) => (ErrorKind::Setup, "the connection is misconfigured"),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => {
                (ErrorKind::Unavailable, "the database can't be reached")
            }
            _ => (
                ErrorKind::Database,
                "the database answered with something unexpected",
            ),
        };
        Self::caused(kind, message, source)
    }
}

/// The classes that this crate acts on; POSTGRES documentation, appendix A.
fn of_sqlstate(code: &str) -> (ErrorKind, &'static str) {
    match code {
        "40001" | "40P01" | "55P03" => (ErrorKind::Conflict, "another writer was in the way"),
        "42P01" | "42703" | "42501" | "42P10" | "0A000" | "3D000" | "3F000" | "28000" | "28P01"
        | "23502" | "22001" | "22P02" => (
            ErrorKind::Setup,
            "the table, its rights or the login do not fit",
        ),
        // Mostly of a character that the encoding of the database lacks.
        "22P05" | "22021" => (
            ErrorKind::Serialize,
            "the database can't store a character of this text; its encoding should be UTF-8, and \
             its column json rather than jsonb",
        ),
        "57014" | "57P01" | "57P02" | "57P03" | "57P05" | "25P02" | "25P03" | "25P04" | "25006"
        | "53100" | "53200" | "53300" => (
            ErrorKind::Unavailable,
            "the database can't serve at the moment",
        ),
        _ if code.starts_with("08") => (ErrorKind::Unavailable, "the connection was lost"),
        _ => (ErrorKind::Database, "the database refused a statement"),
    }
}

/// What a prepared statement answers would be of another type by now. Postgres
/// has no code of its own for it, and translates the message.
fn is_of_an_old_plan(error: &dyn DatabaseError) -> bool {
    let routine = error
        .try_downcast_ref::<PgDatabaseError>()
        .and_then(PgDatabaseError::routine);
    error.code().as_deref() == Some("0A000")
        && routine.is_some_and(|routine| routine.starts_with("RevalidateCached"))
}

impl Error {
    pub(crate) fn sqlstate(&self) -> Option<String> {
        Some(self.sqlx_error()?.as_database_error()?.code()?.into_owned())
    }

    fn is_canceled(&self) -> bool {
        self.sqlstate().is_some_and(|code| code == "57014")
    }

    /// Whether the statement was ended here, or by the server's `lock_timeout`,
    /// because it waited for a lock.
    pub(crate) fn is_of_a_lock(&self) -> bool {
        self.is_held_up() || self.sqlstate().is_some_and(|code| code == "55P03")
    }

    /// Whether the statement was ended because it waited for a locked row. It
    /// has changed nothing.
    pub(crate) fn is_held_up(&self) -> bool {
        StdError::source(self).is_some_and(<dyn StdError>::is::<HeldUp>)
    }

    /// Whether the connection has prepared its statements for a table that was
    /// changed since.
    pub(crate) fn is_of_an_old_plan(&self) -> bool {
        self.sqlx_error()
            .and_then(sqlx::Error::as_database_error)
            .is_some_and(is_of_an_old_plan)
    }

    /// Whether a column is of another type than it was when the table was
    /// looked at.
    pub(crate) fn is_of_another_type(&self) -> bool {
        match self.sqlx_error() {
            Some(sqlx::Error::ColumnDecode { source, .. }) => {
                source.to_string().starts_with("mismatched types")
            }
            _ => false,
        }
    }

    /// Whether the table is not as it was found, and is to be looked at again.
    pub(crate) fn is_of_a_changed_table(&self) -> bool {
        self.misses_something() || self.is_of_an_old_plan() || self.is_of_another_type()
    }

    fn sqlx_error(&self) -> Option<&sqlx::Error> {
        StdError::source(self)?.downcast_ref()
    }

    /// Whether others were in the way of the whole statement, or transaction,
    /// which has changed nothing.
    pub(crate) fn is_of_other_writers(&self) -> bool {
        self.sqlstate()
            .is_some_and(|code| matches!(code.as_str(), "40001" | "40P01"))
    }

    /// Whether the server refused to go on under a stricter isolation level than
    /// READ COMMITTED.
    pub(super) fn is_of_the_isolation(&self) -> bool {
        self.sqlstate().is_some_and(|code| code == "40001")
    }

    pub(crate) fn is_out_of_time(&self) -> bool {
        StdError::source(self).is_some_and(<dyn StdError>::is::<OutOfTime>)
    }

    /// Whether the server itself said that the statement failed. Without that
    /// the statement may still be under way there, and be carried out later. A
    /// pooler reports the loss of the server's connection in class 08.
    pub(crate) fn is_of_the_server(&self) -> bool {
        self.sqlstate().is_some_and(|code| !code.starts_with("08"))
    }

    /// With a foreign key from the column `user_id`, the application's users
    /// lack the one of this login: deleted meanwhile, or never there.
    pub(super) fn of_a_login(self, is_login: bool) -> Self {
        let is_of_a_key = self.sqlstate().is_some_and(|code| code == "23503");
        match is_login && is_of_a_key {
            true => Self::caused(
                ErrorKind::UnknownUser,
                "a foreign key of the session table refuses this login; was the user deleted?",
                self,
            ),
            false => self,
        }
    }

    /// Whether the server had ended the connection because it idled, so that the
    /// statement never arrived.
    pub(crate) fn is_of_an_idle_connection(&self) -> bool {
        self.sqlstate().is_some_and(|code| code == "57P05")
    }

    /// Whether the connection is at fault, and another one may do.
    pub(crate) fn is_of_the_connection(&self) -> bool {
        self.is_unavailable() && !self.is_out_of_time()
    }

    fn is_unavailable(&self) -> bool {
        self.kind() == ErrorKind::Unavailable
    }

    /// In the middle of a statement, whoever took the connection next would
    /// wait for the rest of the answer, or for ever. And one to a primary that
    /// became a standby stays open, and of no use, as one in a transaction that
    /// somebody else left and that failed.
    fn spoils_the_connection(&self) -> bool {
        let is_of_use = |code: String| code == "57014" || code.starts_with("53");
        self.is_unavailable() && !self.sqlstate().is_some_and(is_of_use)
    }

    pub(crate) fn lacks_a_right(&self) -> bool {
        self.sqlstate().is_some_and(|code| code == "42501")
    }

    /// Whether the table, a column, or a function for its type is not there.
    pub(crate) fn misses_something(&self) -> bool {
        self.sqlstate()
            .is_some_and(|code| matches!(code.as_str(), "42P01" | "42703" | "42883" | "42804"))
    }

    /// Whether one row of a statement can be at fault for all of it: data
    /// exceptions, violated constraints, triggers, limits, damaged values and
    /// pages, and locks that were not granted.
    ///
    /// An error that ends the connection, such as those that a pooler sends, says
    /// nothing about the outcome of the statement.
    pub(crate) fn blames_a_row(&self) -> bool {
        const CLASSES: [&str; 6] = ["22", "23", "44", "54", "P0", "XX"];
        let is_of_a_row = |code: String| {
            matches!(code.as_str(), "55P03" | "58030" | "58P01")
                || CLASSES.iter().any(|class| code.starts_with(class))
        };
        let has_failed = || self.ended_the_statement_only();
        self.is_held_up() || self.sqlstate().is_some_and(is_of_a_row) && has_failed()
    }

    /// Whether the server reports that it rolled the statement back, and goes on.
    fn ended_the_statement_only(&self) -> bool {
        self.sqlx_error()
            .and_then(sqlx::Error::as_database_error)
            .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
            .is_some_and(|error| matches!(error.severity(), PgSeverity::Error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_the_server_ended_is_unavailable() {
        for code in [
            "57P01", "57P02", "57P03", "57P05", "25P03", "25P04", "08006",
        ] {
            assert_eq!(of_sqlstate(code).0, ErrorKind::Unavailable, "{code}");
        }
    }
}
