use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use futures_core::future::BoxFuture;
use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::time::{Instant, timeout_at};

use crate::{
    Error, ErrorKind,
    store::{
        connecting,
        connections::Connections,
        sql::Pooling,
        transaction::{Isolation, begin},
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
        self.heed(self.lend(call, work).await)
    }

    async fn lend<T>(
        &self,
        call: Call<'_>,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let deadline = self.deadline();
        let connection = timeout_at(deadline, Box::pin(self.connections.lend()))
            .await
            .map_err(|_| out_of_time())??;
        let mut lent = Lent(Some(connection));
        let running = self.begin(&call);
        let work = running.around(self.carry_out(lent.connection(), work));
        let outcome = timeout_at(deadline, work).await;
        let outcome = outcome.unwrap_or_else(|_| Err(out_of_time()));
        running.ended(&outcome);
        if !outcome.as_ref().is_err_and(Error::spoils_the_connection) {
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

    /// Lends one of the connections for requests to `work`.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub(crate) async fn serve<T>(
        &self,
        deadline: Instant,
        call: Call<'_>,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        self.heed(self.lend_until(deadline, call, work).await)
    }

    async fn lend_until<T>(
        &self,
        deadline: Instant,
        call: Call<'_>,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let since = Stopwatch::start();
        let borrowed = timeout_at(deadline, self.connections.borrow()).await;
        self.meter.waited_for_a_connection(since);
        let mut loan = borrowed.map_err(|_| out_of_time())??;
        let running = self.begin(&call);
        let work = running.around(self.carry_out(&mut loan.connection, work));
        let outcome = timeout_at(deadline, work).await;
        let outcome = outcome.unwrap_or_else(|_| Err(out_of_time()));
        running.ended(&outcome);
        match &outcome {
            Ok(_) => loan.keep(),
            Err(error) if error.spoils_the_connection() => {
                abandon(loan.connection);
                self.connections.forget();
            }
            // The pool looks whether the connection is still of use.
            Err(_) => drop(loan),
        }
        outcome
    }

    fn heed<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if outcome.as_ref().is_err_and(Error::is_unavailable) {
            self.connections.doubt();
        }
        outcome
    }

    /// A pooler keeps a connection of the server for one client as long as a
    /// transaction lasts, and no longer. And only a transaction can ask for its
    /// isolation level.
    async fn carry_out<T>(
        &self,
        connection: &mut PgConnection,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        if self.pooling == Pooling::Own && !self.isolation.is_strict() {
            let outcome = work(connection).await;
            self.isolation.observe(&outcome);
            return outcome;
        }
        let mut transaction = begin(connection).await?;
        let outcome = work(&mut transaction).await?;
        transaction.commit().await?;
        Ok(outcome)
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    pub(crate) fn pool(&self) -> &PgPool {
        self.connections.pool()
    }
}

/// A question about the server or the table.
const LOOK: Call<'static> = Call {
    operation: Operation::Inspect,
    table: None,
    rows: 1,
    origins: Origins::Here,
};

/// A connection for work that may be dropped at any moment. Only after its end
/// it goes back to the pool: sqlx forgets a `BEGIN` whose answer nobody waited
/// for, and whoever took the connection next would be in that transaction.
struct Lent(Option<PoolConnection<Postgres>>);

impl Lent {
    fn connection(&mut self) -> &mut PgConnection {
        self.0.as_mut().expect("taken at the end only")
    }

    fn give_back(mut self) {
        if let Some(connection) = self.0.take() {
            Connections::take_back(connection);
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            abandon(connection);
        }
    }
}

/// A connection that must not go back to the pool.
fn abandon(connection: PoolConnection<Postgres>) {
    drop(connection.detach());
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

impl Error {
    pub(crate) fn sqlstate(&self) -> Option<String> {
        let source = StdError::source(self)?;
        let error = source.downcast_ref::<sqlx::Error>()?;
        Some(error.as_database_error()?.code()?.into_owned())
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
    /// the statement may still be under way there, and be carried out later.
    pub(crate) fn is_of_the_server(&self) -> bool {
        self.sqlstate().is_some()
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
    /// exceptions, violated constraints, and locks that were not granted.
    pub(crate) fn blames_a_row(&self) -> bool {
        self.sqlstate()
            .is_some_and(|code| code.starts_with("22") || code.starts_with("23") || code == "55P03")
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
