//! Cancels statements on the server that this process no longer waits for. It doesn't know
//! what the statements do.
//!
//! Closing a socket ends no statement: the server notices it only when it writes to the
//! socket, which a statement that waits for a lock does not. So a connection whose statement
//! was abandoned stays in the pool, with its places, until the server has responded.
//! Meanwhile one task for each store finds these statements in `pg_stat_activity`, over a
//! connection of its own, and cancels them. The same task cancels statements for many rows
//! that wait for a row that another transaction has locked, so that the rows can be tried
//! one by one.
//!
//! - A statement that has committed and waits for a standby is not canceled. Otherwise
//!   others would see a change that a failover may still lose.
//! - A backend that is idle while its response is awaited is terminated, because the
//!   response was lost on the network.
//! - Behind a transaction pooler the backend of a statement is unknown, so no statement is
//!   canceled by its process id.
//!
//! How it works: each statement to cancel is a [`Case`]. The task repeats a look: one query
//! that cancels or terminates the backends of all cases and returns what it found. A look
//! may arrive late, and cancel the next statement of the same backend. So each look counts
//! itself in its cases until its result has arrived, and [`Watched::close`] waits for looks
//! in flight. If a look is not over by then, the connection must be closed.
//!
//! Dropped futures: the task ends with its runtime; the next case starts another one. A
//! [`Watched`] that is dropped ends its case. If a look may still be in flight, it marks
//! the backend as unsettled, so that its connection is closed.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicU32,
            Ordering::{AcqRel, Acquire},
        },
    },
    time::Duration,
};

use sqlx::{ConnectOptions as _, Connection as _, PgConnection, PgPool, Row as _};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};

use crate::store::connection::{
    acquire::Unproven,
    probe::{Backend, probe},
};

/// Between two looks at the statements.
const PAUSE: Duration = Duration::from_millis(40);
/// How long the task keeps its connection without cases, because more are likely to follow.
const LINGERING: Duration = Duration::from_millis(500);
/// The pause after a look that failed.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(250);
/// How long the store remembers that it had no connection for a look.
const REMEMBERING: Duration = Duration::from_secs(10);
/// How long a backend may be idle before its response counts as lost.
const RESPONSE: Duration = Duration::from_millis(250);
/// The time limits for a new connection and for one look. A busy server is not out of reach.
const TO_CONNECT: Duration = Duration::from_secs(1);
const TO_LOOK: Duration = Duration::from_secs(2);
/// The most backends of lost connections that are cases at once, and for how long. The
/// server that could report their end may not exist any more.
const MOST_LOST: usize = 512;
const LONGEST_LOST: Duration = Duration::from_secs(600);
/// The most backends that a late look may still cancel, and whose connections were not
/// closed yet.
const MOST_UNSETTLED: usize = 512;

/// The statements of one store that are to be canceled.
pub(in crate::store) struct Cancellations {
    pool: PgPool,
    state: Mutex<State>,
    /// Held during a look.
    looking: tokio::sync::Mutex<()>,
    /// Wakes the task for a new case.
    news: Notify,
    /// The last time that neither the server nor the pool had a connection for a look.
    refused: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct State {
    cases: HashMap<u64, Arc<Case>>,
    /// Backends whose cases were dropped during a look, which may cancel their next
    /// statement.
    unsettled: Vec<(i32, i64)>,
    next: u64,
    task: Task,
}

/// Whether the task runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Task {
    #[default]
    Off,
    On,
}

struct Case {
    backend: Backend,
    why: Why,
    since: Instant,
    /// When its backend was first seen idle.
    idle: OnceLock<Instant>,
    /// The number of looks that may still cancel something on its backend. A look that
    /// timed out counts forever, because it may reach the server later.
    looks: AtomicU32,
    verdict: watch::Sender<Verdict>,
}

impl Case {
    fn is_looked_at(&self) -> bool {
        self.looks.load(Acquire) > 0
    }

    /// Whether its statement has ended, but the response has not arrived.
    fn is_silent(&self) -> bool {
        self.idle
            .get()
            .is_some_and(|since| since.elapsed() >= RESPONSE)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Why {
    /// Its future was dropped.
    GivenUp,
    /// Its connection is lost.
    Lost,
    /// It may wait for a row that another transaction has locked.
    Slow,
}

/// The state of a statement, as far as the server could be asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::store) enum Verdict {
    Open,
    /// The server has canceled it.
    Canceled,
    /// The server has no such process, or doesn't show it to this role.
    NoProcess,
    /// No connection to the server can be opened, so no second statement can run beside
    /// this one either.
    OutOfReach,
}

/// The error of a case if a look takes too long, and may still cancel a statement.
#[derive(Debug)]
pub(in crate::store) struct StillLooking;

/// A case that lasts as long as this value.
pub(in crate::store) struct Watched {
    number: u64,
    case: Arc<Case>,
    cancellations: Arc<Cancellations>,
}

impl Watched {
    /// Returns when the statement can't run any more, or when that can't be known. It
    /// only waits, so dropping the future changes nothing.
    pub(in crate::store) async fn settled(&self) -> Verdict {
        let mut verdict = self.case.verdict.subscribe();
        let settled =
            verdict.wait_for(|verdict| matches!(verdict, Verdict::NoProcess | Verdict::OutOfReach));
        settled
            .await
            .map_or(Verdict::OutOfReach, |verdict| *verdict)
    }

    /// Ends the case. Afterwards no look cancels anything on its backend, so the connection
    /// can serve the next statement. Returns whether its statement was canceled here, or an
    /// error if a look may still be in flight. Then the connection must be closed.
    pub(in crate::store) async fn close(self) -> Result<bool, StillLooking> {
        self.cancellations.state().cases.remove(&self.number);
        if self.case.is_looked_at() {
            // If the future is dropped here, `Drop` marks the backend as unsettled.
            drop(timeout(TO_LOOK, self.cancellations.looking.lock()).await);
        }
        match self.case.is_looked_at() {
            false => Ok(*self.case.verdict.borrow() == Verdict::Canceled),
            true => Err(StillLooking),
        }
    }
}

impl Drop for Watched {
    /// Ends the case without [`close`](Self::close). If a look is in flight, the backend is
    /// unsettled, and its connection must be closed.
    fn drop(&mut self) {
        let mut state = self.cancellations.state();
        state.cases.remove(&self.number);
        if self.case.is_looked_at() {
            let Backend { pid, started, .. } = self.case.backend;
            let surplus = state.unsettled.len().saturating_sub(MOST_UNSETTLED);
            drop(state.unsettled.drain(..surplus));
            state.unsettled.push((pid, started));
        }
    }
}

impl Cancellations {
    pub(in crate::store) fn new(pool: PgPool) -> Arc<Self> {
        Arc::new(Self {
            pool,
            state: Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            news: Notify::new(),
            refused: Mutex::default(),
        })
    }

    /// Whether there was recently no connection to cancel statements over.
    pub(in crate::store) fn had_no_connection(&self) -> bool {
        let refused = *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.is_some_and(|since| since.elapsed() < REMEMBERING)
    }

    fn is_refused(&self, since: Option<Instant>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Whether a look may still cancel the next statement of this backend. Then its
    /// connection must be closed. Forgets the backend.
    pub(in crate::store) fn is_unsettled(&self, backend: Backend) -> bool {
        let known = (backend.pid, backend.started);
        let unsettled = &mut self.state().unsettled;
        let place = unsettled.iter().position(|backend| *backend == known);
        place.map(|place| unsettled.swap_remove(place)).is_some()
    }

    /// Has the statement of this backend canceled, until it ends.
    pub(in crate::store) fn give_up(self: &Arc<Self>, backend: Backend) -> Watched {
        self.open(backend, Why::GivenUp)
    }

    /// Has the statement of this backend canceled if it waits for a locked row.
    pub(in crate::store) fn watch(self: &Arc<Self>, backend: Backend) -> Watched {
        self.open(backend, Why::Slow)
    }

    /// Has this backend terminated, because its connection is lost.
    pub(in crate::store) fn lose(self: &Arc<Self>, backend: Backend) {
        if self.state().cases.len() < MOST_LOST {
            self.add(backend, Why::Lost);
        }
    }

    fn open(self: &Arc<Self>, backend: Backend, why: Why) -> Watched {
        let (number, case) = self.add(backend, why);
        Watched {
            number,
            case,
            cancellations: Arc::clone(self),
        }
    }

    fn add(self: &Arc<Self>, backend: Backend, why: Why) -> (u64, Arc<Case>) {
        let case = Arc::new(Case {
            backend,
            why,
            since: Instant::now(),
            idle: OnceLock::new(),
            looks: AtomicU32::new(0),
            verdict: watch::Sender::new(Verdict::Open),
        });
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.cases.insert(number, Arc::clone(&case));
        self.news.notify_one();
        if state.task == Task::Off {
            state.task = Task::On;
            drop(state);
            let round = Round {
                cancellations: Arc::clone(self),
                is_over: false,
            };
            tokio::spawn(round.go());
        }
        (number, case)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are cases. If there is none, the task must end.
    fn has_cases(&self) -> bool {
        let mut state = self.state();
        state
            .cases
            .retain(|_, case| case.why != Why::Lost || case.since.elapsed() < LONGEST_LOST);
        if state.cases.is_empty() {
            state.task = Task::Off;
            return false;
        }
        true
    }

    /// Waits for the next look: not at all for a new case, and longer if there is no case.
    async fn pause(&self) {
        let has_none = self.state().cases.is_empty();
        let longest = if has_none { LINGERING } else { PAUSE };
        drop(timeout(longest, self.news.notified()).await);
    }

    /// Counts a look in all cases and returns them.
    fn begin_look(&self) -> Vec<(u64, Arc<Case>)> {
        let state = self.state();
        let cases = state.cases.iter().map(|(number, case)| {
            case.looks.fetch_add(1, AcqRel);
            (*number, Arc::clone(case))
        });
        cases.collect()
    }

    fn are_out_of_reach(&self) {
        for case in self.state().cases.values() {
            if case.why == Why::GivenUp {
                case.verdict.send_replace(Verdict::OutOfReach);
            }
        }
    }
}

/// Why a look failed.
enum Failure {
    /// The server refused a connection or the query.
    Refused,
    OutOfReach,
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(_) => Self::Refused,
            _ => Self::OutOfReach,
        }
    }
}

async fn in_time<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let outcome = timeout(patience, work).await;
    outcome.unwrap_or(Err(Failure::OutOfReach))
}

/// The connection of the task, and when the server behind it started.
struct Spare {
    connection: PgConnection,
    started: i64,
}

/// The task that cancels statements. It ends when there is no case, when the pool is closed,
/// and with its runtime.
struct Round {
    cancellations: Arc<Cancellations>,
    /// Whether this task found no case. Another one may run since then.
    is_over: bool,
}

impl Round {
    async fn go(mut self) {
        let mut spare = None;
        let closed = self.cancellations.pool.close_event();
        tokio::select! {
            () = closed => {}
            () = self.until_all_have_ended(&mut spare) => {}
        }
        if let Some(Spare { connection, .. }) = spare {
            // If this fails, the server notices that the socket is closed.
            drop(timeout(TO_CONNECT, connection.close()).await);
        }
    }

    async fn until_all_have_ended(&mut self, spare: &mut Option<Spare>) {
        while self.cancellations.has_cases() {
            match self.round(spare).await {
                Ok(()) => self.cancellations.pause().await,
                Err(failure) => {
                    *spare = None;
                    if matches!(failure, Failure::OutOfReach) {
                        self.cancellations.are_out_of_reach();
                    }
                    sleep(PAUSE_AFTER_REFUSAL).await;
                }
            }
        }
        self.is_over = true;
    }

    async fn round(&self, spare: &mut Option<Spare>) -> Result<(), Failure> {
        if spare.is_none() {
            *spare = in_time(TO_CONNECT, self.connect()).await?;
        }
        let looked = match spare {
            Some(spare) => {
                let look = self.look(&mut spare.connection, spare.started);
                in_time(TO_LOOK, look).await
            }
            None => in_time(TO_LOOK, self.borrow()).await,
        };
        match looked {
            Ok(()) => self.cancellations.is_refused(None),
            Err(Failure::Refused) => self.cancellations.is_refused(Some(Instant::now())),
            Err(Failure::OutOfReach) => {}
        }
        looked
    }

    /// `None` if the server has no connection left. Then the pool may have one.
    async fn connect(&self) -> Result<Option<Spare>, Failure> {
        let connected = self.cancellations.pool.connect_options().connect().await;
        let mut connection = match connected {
            Err(sqlx::Error::Database(_)) => return Ok(None),
            connected => connected?,
        };
        let probe = probe(&mut connection).await?.ok_or(Failure::Refused)?;
        Ok(Some(Spare {
            connection,
            started: probe.backend.started,
        }))
    }

    /// Looks over an idle connection of the pool. If the future is dropped, or the server
    /// is out of reach, the connection is closed.
    async fn borrow(&self) -> Result<(), Failure> {
        let idle = self.cancellations.pool.try_acquire();
        let mut connection = Unproven::new(idle.ok_or(Failure::Refused)?);
        match probe(&mut connection).await? {
            Some(probe) if !probe.is_in_a_transaction => {
                let looked = self.look(&mut connection, probe.backend.started).await;
                if !matches!(looked, Err(Failure::OutOfReach)) {
                    drop(connection.proven());
                }
                looked
            }
            _ => Err(Failure::Refused),
        }
    }

    async fn look(&self, connection: &mut PgConnection, started: i64) -> Result<(), Failure> {
        let _looking = self.cancellations.looking.lock().await;
        let cases = self.cancellations.begin_look();
        // If the future is dropped here, the look may still reach the server, so it counts
        // forever.
        let looked = self.signal(connection, started, &cases).await;
        if !matches!(looked, Err(Failure::OutOfReach)) {
            for (_, case) in &cases {
                case.looks.fetch_sub(1, AcqRel);
            }
        }
        looked
    }

    /// Has the server cancel and terminate, and records the result in each case.
    async fn signal(
        &self,
        connection: &mut PgConnection,
        started: i64,
        cases: &[(u64, Arc<Case>)],
    ) -> Result<(), Failure> {
        let here = || {
            let here = cases.iter().map(|(_, case)| case);
            here.filter(|case| case.backend.started == started)
        };
        let of = |which: &dyn Fn(&Case) -> bool| -> Vec<i32> {
            let here = here().filter(|case| which(case));
            here.map(|case| case.backend.pid).collect()
        };
        let seen: Vec<f64> = here().map(|case| case.backend.seen).collect();
        let rows = sqlx::query(include_str!("../sql/end.sql"))
            .persistent(false)
            .bind(of(&|case| case.why == Why::GivenUp && !case.is_silent()))
            .bind(of(&|case| case.why == Why::Slow))
            .bind(of(&|case| case.why == Why::Lost || case.is_silent()))
            .bind(of(&|_| true))
            .bind(seen)
            .fetch_all(connection)
            .await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            let is_idle: Option<bool> = row.try_get(1)?;
            let is_signaled: Option<bool> = row.try_get(2)?;
            let pid: i32 = row.try_get(0)?;
            found.insert(pid, (is_idle == Some(true), is_signaled == Some(true)));
        }
        for (number, case) in cases {
            let is_here = case.backend.started == started;
            match found.get(&case.backend.pid).filter(|_| is_here) {
                None => self.is_gone(*number, case),
                Some((true, _)) if case.why == Why::GivenUp => {
                    case.idle.get_or_init(Instant::now);
                }
                Some((_, true)) if case.why == Why::Slow => {
                    case.verdict.send_replace(Verdict::Canceled);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn is_gone(&self, number: u64, case: &Case) {
        case.verdict.send_replace(Verdict::NoProcess);
        if case.why == Why::Lost {
            self.cancellations.state().cases.remove(&number);
        }
    }
}

impl Drop for Round {
    /// If a runtime stops the task, the next case starts another one.
    fn drop(&mut self) {
        if !self.is_over {
            self.cancellations.state().task = Task::Off;
        }
    }
}

impl fmt::Debug for Cancellations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancellations")
            .field("cases", &self.state().cases.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use dev_postgres::{Server, TestDatabase};
    use sqlx::{AssertSqlSafe, postgres::PgPoolOptions};
    use tokio::task::JoinHandle;

    use super::*;

    /// On a machine that is busy.
    const PATIENCE: Duration = Duration::from_secs(30);

    struct Place {
        database: TestDatabase,
        pool: PgPool,
        cancellations: Arc<Cancellations>,
    }

    impl Place {
        async fn new() -> Self {
            Self::on(dev_postgres::test_database().await.expect("a database")).await
        }

        /// On a server that no other test uses.
        async fn alone() -> (Server, Self) {
            let server = Server::start().expect("a server");
            let database = server.test_database().await.expect("a database");
            (server, Self::on(database).await)
        }

        /// What ends statements over connections of this new role.
        async fn cancellations_of(&self, role: &str, rights: &str) -> Arc<Cancellations> {
            execute(&self.pool, &format!("CREATE ROLE {role} {rights}")).await;
            let options = (*self.pool.connect_options()).clone().username(role);
            Cancellations::new(PgPoolOptions::new().connect_lazy_with(options))
        }

        async fn on(database: TestDatabase) -> Self {
            let pool = PgPool::connect(database.url()).await.expect("a pool");
            execute(&pool, "CREATE TABLE t (n int); INSERT INTO t VALUES (0)").await;
            let cancellations = Cancellations::new(pool.clone());
            Self {
                database,
                pool,
                cancellations,
            }
        }

        /// A connection with the row locked.
        async fn lock(&self) -> PgConnection {
            let mut connection = self.connect().await;
            sqlx::raw_sql("BEGIN; SELECT FROM t FOR UPDATE")
                .execute(&mut connection)
                .await
                .expect("a lock");
            connection
        }

        async fn connect(&self) -> PgConnection {
            PgConnection::connect(self.database.url())
                .await
                .expect("a connection")
        }

        /// A statement that waits for the row.
        async fn waiting(&self) -> Waiting {
            let mut connection = self.connect().await;
            let probe = probe(&mut connection).await.expect("a probe");
            let backend = probe.expect("no transaction").backend;
            let statement = tokio::spawn(async move {
                sqlx::raw_sql("UPDATE t SET n = n + 1")
                    .execute(&mut connection)
                    .await
                    .map(drop)
            });
            self.waits(backend.pid).await;
            Waiting { backend, statement }
        }

        async fn waits(&self, pid: i32) {
            let waits = format!(
                "SELECT count(*) FROM pg_stat_activity \
                 WHERE pid = {pid} AND wait_event = 'transactionid'"
            );
            until(async || count(&self.pool, &waits).await == 1).await;
        }
    }

    /// A statement, and the process that serves it.
    struct Waiting {
        backend: Backend,
        statement: JoinHandle<Result<(), sqlx::Error>>,
    }

    impl Waiting {
        async fn ends(self) -> Result<(), sqlx::Error> {
            self.statement.await.expect("no panic")
        }
    }

    async fn execute(pool: &PgPool, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(pool)
            .await
            .expect("a statement");
    }

    async fn count(pool: &PgPool, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(pool)
            .await
            .expect("a count")
    }

    async fn until<F: Future<Output = bool>>(is_so: impl Fn() -> F) {
        let asking = async {
            while !is_so().await {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, asking).await.expect("it comes to an end");
    }

    async fn release(mut lock: PgConnection) {
        sqlx::raw_sql("ROLLBACK")
            .execute(&mut lock)
            .await
            .expect("no lock");
    }

    #[tokio::test]
    async fn the_statement_of_a_backend_is_ended() {
        let place = Place::new().await;
        let _lock = place.lock().await;
        let given_up = place.waiting().await;
        let _given_up = place.cancellations.give_up(given_up.backend);
        let slow = place.waiting().await;
        let _slow = place.cancellations.watch(slow.backend);
        let lost = place.waiting().await;
        place.cancellations.lose(lost.backend);
        for (waiting, code) in [(given_up, "57014"), (slow, "57014"), (lost, "57P01")] {
            let error = waiting.ends().await.expect_err("it was ended");
            let error = error.into_database_error().expect("the server says so");
            assert_eq!(error.code().as_deref(), Some(code));
        }
    }

    /// Process ids repeat, after a while, after a restart, and on another server.
    #[tokio::test]
    async fn the_statement_of_another_backend_with_the_same_process_id_is_left_alone() {
        let place = Place::new().await;
        let lock = place.lock().await;
        let other = place.waiting().await;
        let before_it_began = Backend {
            seen: other.backend.seen - 60.0,
            ..other.backend
        };
        let of_another_server = Backend {
            started: other.backend.started + 1,
            ..other.backend
        };
        for backend in [before_it_began, of_another_server] {
            let given_up = place.cancellations.give_up(backend);
            let slow = place.cancellations.watch(backend);
            place.cancellations.lose(backend);
            for watched in [given_up, slow] {
                let settled = timeout(PATIENCE, watched.settled()).await;
                assert_eq!(settled, Ok(Verdict::NoProcess), "{backend:?}");
                let closed = watched.close().await;
                assert!(matches!(closed, Ok(false)), "{backend:?}");
            }
            until(async || place.cancellations.state().cases.is_empty()).await;
        }
        place.waits(other.backend.pid).await;
        release(lock).await;
        other.ends().await.expect("it was left alone");
    }

    /// The server shows a role neither what others do nor since when.
    #[tokio::test]
    async fn a_look_that_may_see_nothing_ends_nothing() {
        let (_server, place) = Place::alone().await;
        let cancellations = place.cancellations_of("weak", "LOGIN").await;
        let lock = place.lock().await;
        let other = place.waiting().await;
        let given_up = cancellations.give_up(other.backend);
        let settled = timeout(PATIENCE, given_up.settled()).await;
        assert_eq!(settled, Ok(Verdict::NoProcess));
        assert!(matches!(given_up.close().await, Ok(false)));
        place.waits(other.backend.pid).await;
        release(lock).await;
        other.ends().await.expect("it was left alone");
    }

    #[tokio::test]
    async fn without_a_connection_to_look_over_nothing_is_ended() {
        let (_server, place) = Place::alone().await;
        let rights = "LOGIN CONNECTION LIMIT 0";
        let cancellations = place.cancellations_of("barred", rights).await;
        let lock = place.lock().await;
        let waiting = place.waiting().await;
        let given_up = cancellations.give_up(waiting.backend);
        until(async || cancellations.had_no_connection()).await;
        assert!(matches!(given_up.close().await, Ok(false)));
        assert!(!cancellations.is_unsettled(waiting.backend));
        place.waits(waiting.backend.pid).await;
        release(lock).await;
        waiting.ends().await.expect("it was left alone");
    }

    /// The look may reach the server later, and cancel what the connection does
    /// then.
    #[tokio::test]
    async fn a_connection_whose_probe_had_no_response_serves_nothing() {
        let (_server, place) = Place::alone().await;
        let mut connection = place.connect().await;
        let probe = probe(&mut connection).await.expect("a probe");
        let backend = probe.expect("no transaction").backend;
        let mut catalog = place.connect().await;
        let responsive = place.cancellations.watch(backend);
        let silent = place.cancellations.watch(backend);
        let looks = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT a.pid AS pid%'";
        until(async || count(&place.pool, looks).await == 1).await;
        assert!(matches!(responsive.close().await, Ok(false)));
        assert!(!place.cancellations.is_unsettled(backend));
        sqlx::raw_sql("BEGIN; LOCK TABLE pg_catalog.pg_authid IN ACCESS EXCLUSIVE MODE")
            .execute(&mut catalog)
            .await
            .expect("a lock");
        loop {
            let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
            let waits: i64 = sqlx::query_scalar(waits)
                .fetch_one(&mut catalog)
                .await
                .expect("a count");
            if waits == 1 {
                break;
            }
        }
        assert!(silent.close().await.is_err());
        assert!(place.cancellations.is_unsettled(backend));
        release(catalog).await;
    }
}
