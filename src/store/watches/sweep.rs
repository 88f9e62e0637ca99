//! Looks up the watched rows every few seconds, in a task. It doesn't know sockets or jobs.
//!
//! How it works: the first watch starts the task, which ends when none is left. Each round
//! asks for all watched rows, a thousand with one statement, one statement after the other. A
//! row that is live is noted. A row that forwards moves its watches to the new id, which is
//! looked up in the same round. A row that is not found ends its watches, unless its id is a
//! new one: that may have been undone, so the former id is looked up first. A row with another
//! user ends its watches; only another session layer changes the user of a row. The statements
//! use one connection at a time. They have a place of their own, so the application's queries
//! don't delay them.
//!
//! A statement can fail because of a part of the table: a damaged row, or a server that is
//! down. Then the rows are cut into parts until that part is alone, for at most the timeout of
//! a statement, and the other rows get their results. The next round looks up the missed rows
//! after the others, and those that failed alone last, with few attempts. If a row could not
//! be looked up for too long, its watches end, too. The document of a row is only read if the
//! row expires so soon that it may forward.
//!
//! Dropped futures: a [`SessionEnd`] that is dropped removes its watch. The task is dropped
//! only by a runtime that stops, or by a panic. Then all watches end, because nothing would
//! end them later.

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use sqlx::{PgConnection, Row as _};
use tokio::{
    sync::oneshot,
    time::{Instant, MissedTickBehavior, interval_at},
};

use crate::{
    Error, ErrorKind, SessionId,
    ending::Ending,
    expiry::Times,
    forwarding::FORWARDING,
    id::RowId,
    row::Row,
    store::{
        batch::search::Search,
        connection::transaction::despite_a_changed_table,
        table::{handle::TableHandle, statements::Statements, timestamp},
        watches::{
            former_ids::FormerIds,
            registry::{Added, Due, Key, Registry},
        },
    },
    telemetry::{Call, Operation},
};

/// Rows of one statement. It holds no locks and returns no documents, so it may be larger
/// than those of requests.
const BATCH: usize = 1000;

/// How many statements of a sweep may fail for rows that failed alone before. They are likely to
/// fail again, and each failure may cost a connection.
const FEW: usize = 16;

/// Rounds of one sweep. Each follows the sessions of the round before to their new ids. What
/// is left then is looked up by the next sweep.
const MAX_MOVES: usize = 16;

/// Seconds. A row that expires later is none that forwards. Twice the time, because the clock is
/// an estimate. If it is behind by more, this lookup corrects it for the next one.
const MAY_FORWARD: f64 = 2.0 * FORWARDING.as_secs_f64();

/// The watched rows of a store, and the task that looks them up.
#[derive(Debug)]
pub(in crate::store) struct Watches {
    pub(super) table_handle: TableHandle,
    registry: Mutex<Registry>,
    pub(super) former_ids: FormerIds,
}

impl Watches {
    pub(in crate::store) fn new(table_handle: TableHandle) -> Arc<Self> {
        Arc::new(Self {
            table_handle,
            registry: Mutex::default(),
            former_ids: FormerIds::default(),
        })
    }

    /// Watches the session of this row.
    ///
    /// # Panics
    ///
    /// If it is called outside of a tokio runtime.
    pub(in crate::store) fn watch(self: &Arc<Self>, row: &Row) -> SessionEnd {
        let (id, user, expires) = (row.id.clone(), row.user.clone(), row.times.expires);
        let added = self
            .registry()
            .add(id.clone(), user, expires, Instant::now());
        let Added {
            key,
            ending,
            starts_the_sweep,
        } = added;
        if starts_the_sweep {
            let sweeper = Sweeper {
                watches: Arc::clone(self),
                is_done: false,
            };
            tokio::spawn(sweeper.run());
        }
        let place = Place {
            watches: Arc::clone(self),
            key,
        };
        SessionEnd {
            id: self.table_handle.format.handle(&id),
            state: State::Watching { ending, place },
        }
    }

    /// Ends the watches of sessions whose end is committed.
    pub(in crate::store) fn end<'r>(
        &self,
        rows: impl IntoIterator<Item = &'r RowId>,
        ending: Ending,
    ) {
        let mut registry = self.registry();
        rows.into_iter().for_each(|row| registry.end(row, ending));
    }

    /// Follows a session to its new id, which is committed.
    pub(super) fn follow(&self, from: &RowId, to: &RowId) {
        self.registry().follow(from, to);
    }

    /// Follows a session back, because its new id was undone.
    pub(super) fn follow_back(&self, from: &RowId, to: &RowId) {
        self.registry().undo(from, to);
    }

    /// Marks the row as one that this process is about to delete or to move, until the result
    /// is dropped. A lookup may find that the row does not exist before the write has reported
    /// why.
    pub(in crate::store) fn busy(&self, row: &RowId) -> Busy<'_> {
        let is_marked = self.registry().mark_busy(row);
        Busy {
            watches: self,
            row: is_marked.then(|| row.clone()),
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks up these rows, and those that they lead to.
    ///
    /// # Errors
    ///
    /// If rows were missed. The others are settled, unless the database can't be reached.
    async fn sweep(&self, due: Due) -> Result<(), Error> {
        let deadline = self.table_handle.executor.deadline();
        let mut outcome = Ok(());
        for (mut rows, failures) in [
            (due.readable, usize::MAX),
            (due.missed, usize::MAX),
            (due.unreadable, FEW),
        ] {
            for _ in 0..MAX_MOVES {
                let (next, missed) = self.look_up_all(&rows, deadline, failures).await?;
                outcome = missed.map_or(outcome, Err);
                if next.is_empty() {
                    break;
                }
                rows = next;
            }
        }
        outcome
    }

    /// Looks up these rows. A statement that fails is cut, until the deadline or until this many
    /// have failed. Returns the rows that must be looked up, too, and an error if rows were
    /// missed.
    ///
    /// # Errors
    ///
    /// If the next statement would wait without a result, too.
    async fn look_up_all(
        &self,
        rows: &[RowId],
        deadline: Instant,
        mut failures: usize,
    ) -> Result<(Vec<RowId>, Option<Error>), Error> {
        let (mut next, mut missed) = (Vec::new(), None);
        for rows in rows.chunks(BATCH) {
            let ids = rows.iter().map(|row| row.as_str().to_owned()).collect();
            let mut search = Search::among(ids, deadline);
            while let Some(ids) = search.next() {
                let rows: Vec<_> = ids.iter().cloned().map(RowId::from).collect();
                let asked = Instant::now();
                // If the future is dropped here, the statement is canceled, and `Sweeper`
                // ends all watches.
                let error = match self.look_up(&ids).await {
                    Ok(found) => {
                        next.extend(self.settle(&rows, &found, asked));
                        continue;
                    }
                    Err(error) => error,
                };
                self.registry().missed(&rows);
                let is_of_a_part = error.may_be_of_a_part();
                if !is_of_a_part && error.kind() == ErrorKind::Unavailable {
                    return Err(error);
                }
                missed = Some(error.clone());
                failures = failures.saturating_sub(1);
                if !is_of_a_part || failures == 0 || Instant::now() >= deadline {
                    // The next round looks up the rest.
                    break;
                }
                search.failed(ids, error);
            }
        }
        Ok((next, missed))
    }

    async fn look_up(&self, ids: &[String]) -> Result<HashMap<RowId, Row>, Error> {
        let attempt = || {
            let deadline = self.table_handle.executor.deadline();
            let call = Call {
                rows: ids.len(),
                ..self.table_handle.call(Operation::Watch)
            };
            self.table_handle.ask(deadline, call, |table, connection| {
                Box::pin(look_up(table, connection, ids.to_vec()))
            })
        };
        despite_a_changed_table(attempt).await
    }

    /// Applies what was found at these rows. Returns the rows that must be looked up, too.
    fn settle(&self, rows: &[RowId], found: &HashMap<RowId, Row>, asked: Instant) -> Vec<RowId> {
        let table = self.table_handle.found();
        // Before `migrate`, Express's user is only in the document, which the lookup doesn't read.
        let reads_user = table.is_none_or(|table| !table.has_user_in_document);
        let mut next = Vec::new();
        let mut registry = self.registry();
        for id in rows {
            let Some(row) = found.get(id) else {
                if registry.is_busy(id) {
                    // That write reports it, or the next lookup finds it.
                } else if let Some(former) = registry.go_back(id) {
                    next.push(former);
                } else if let Some(expires) = registry.expires(id) {
                    registry.end(id, self.why(expires));
                }
                continue;
            };
            match row.successor() {
                Some(to) if to.as_str().is_empty() || row.has_another_user() => {
                    registry.end(id, Ending::Replaced);
                }
                Some(to) if registry.has_lost(id, &to) => registry.end(id, Ending::Unknown),
                Some(to) => {
                    registry.follow(id, &to);
                    next.push(to);
                }
                None if row.times.expires <= row.times.now => registry.end(id, Ending::Expired),
                None if reads_user && registry.has_another_user(id, row.user.as_deref()) => {
                    registry.end(id, Ending::Replaced);
                }
                None => registry.found(id, row.times.expires, asked),
            }
        }
        next
    }

    /// Why a row that expires at this time was not found.
    fn why(&self, expires: f64) -> Ending {
        let table = self.table_handle.found();
        let now = table.map_or(f64::NEG_INFINITY, |table| table.clock.now());
        match expires <= now {
            true => Ending::Expired,
            false => Ending::Unknown,
        }
    }

    /// Ends the watches that could not be checked for too long when a round began that failed.
    fn end_stale(&self, began: Instant, error: &Error) {
        let Some(then) = began.checked_sub(self.table_handle.watching.outage) else {
            return;
        };
        let sessions = self.registry().end_before(then, Ending::Unreachable);
        if sessions > 0 {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                error.type = error.kind().name(),
                session.count = sessions,
                "watched sessions could not be checked for too long; their watches ended"
            );
        }
    }
}

async fn look_up(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    ids: Vec<String>,
) -> Result<HashMap<RowId, Row>, Error> {
    let may_forward = table.clock.now() + MAY_FORWARD;
    let found = look_up_until(&table, connection, ids.clone(), may_forward).await?;
    // If the estimate of the clock was behind, a row that forwards is returned without its
    // document. The estimate is right by now.
    let is_unread = |row: &Row| {
        let forwards = row.times.now + MAY_FORWARD;
        (may_forward..forwards).contains(&row.times.expires)
    };
    match found.values().any(is_unread) {
        true => {
            let may_forward = table.clock.now() + MAY_FORWARD;
            look_up_until(&table, connection, ids, may_forward).await
        }
        false => Ok(found),
    }
}

/// Reads the documents of the rows that expire before `may_forward`.
async fn look_up_until(
    table: &Statements,
    connection: &mut PgConnection,
    ids: Vec<String>,
    may_forward: f64,
) -> Result<HashMap<RowId, Row>, Error> {
    let query = table.watch.query().bind(ids).bind(may_forward);
    let mut found = HashMap::new();
    for row in query.fetch_all(connection).await? {
        let id = RowId::from(row.try_get::<String, _>(0)?);
        let text: Option<&str> = row.try_get(1)?;
        let times = Times {
            expires: row.try_get::<timestamp::Instant, _>(2)?.0,
            now: row.try_get::<timestamp::Instant, _>(3)?.0,
            created: None,
            seen: None,
        };
        table.clock.observe(times.now);
        let user: Option<&str> = row.try_get(4)?;
        let row = Row::new(id.clone(), text.map(Arc::from), times, table.layout);
        found.insert(id, row.of_column(user, table.has_user_in_document));
    }
    Ok(found)
}

/// See [`Watches::busy`].
pub(in crate::store) struct Busy<'w> {
    watches: &'w Watches,
    row: Option<RowId>,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(row) = &self.row {
            self.watches.registry().unmark(row);
        }
    }
}

/// The task that looks up the watched rows.
struct Sweeper {
    watches: Arc<Watches>,
    is_done: bool,
}

impl Sweeper {
    async fn run(mut self) {
        let interval = self.watches.table_handle.watching.interval;
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // In a statement of its own, because the guard must not live across an await.
            let due = self.watches.registry().due();
            let Some(due) = due else {
                self.is_done = true;
                return;
            };
            let began = Instant::now();
            // If the future is dropped here, or above, `Drop` ends all watches.
            if let Err(error) = self.watches.sweep(due).await {
                self.watches.table_handle.executor.meter.failed(&error);
                self.watches.end_stale(began, &error);
            }
        }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        if !self.is_done {
            self.watches.registry().stop(Ending::Unknown);
        }
    }
}

/// Waits until a session no longer exists. Returned by
/// [`Session::ended`](crate::Session::ended) and
/// [`PgSessionStore::watch`](crate::PgSessionStore::watch), which say when it is ready.
///
/// It is a future that returns the [`Ending`]. Poll it by `&mut`, such as in a `select!` of a
/// loop; once it is ready, it stays ready. It borrows nothing, can be sent to another task, and
/// keeps nothing of the session but its id. Dropping it stops the watch.
///
/// ```
/// use axum_pg_session::{Ending, PgSessionLayer, PgSessionStore, testing::TestVisitor};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// # let store = PgSessionStore::connect(database.url()).await?;
/// # store.migrate().await?;
/// let ada = TestVisitor::new(&PgSessionLayer::new(store.clone()));
/// ada.with_session(|session| session.login("ada")).await?;
/// let ended = ada.session().await?.ended().expect("it is stored");
///
/// // A socket or a stream, in a task of its own.
/// let socket = tokio::spawn(ended);
/// ada.with_session(|session| session.logout()).await?;
/// assert_eq!(socket.await?, Ending::SignedOut);
/// # Ok(()) }
/// ```
#[must_use = "the watch stops when it is dropped"]
pub struct SessionEnd {
    /// When the watch began.
    id: SessionId,
    state: State,
}

enum State {
    Watching {
        ending: oneshot::Receiver<Ending>,
        place: Place,
    },
    Over(Ending),
}

/// Removes a watch when it is dropped.
struct Place {
    watches: Arc<Watches>,
    key: Key,
}

impl Place {
    fn id(&self) -> Option<SessionId> {
        let row = self.watches.registry().place(self.key)?;
        Some(self.watches.table_handle.format.handle(&row))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.watches.registry().remove(self.key);
    }
}

impl SessionEnd {
    pub(in crate::store) fn over(id: SessionId, ending: Ending) -> Self {
        Self {
            id,
            state: State::Over(ending),
        }
    }

    /// Returns the public handle of the session, as far as this process knows. It is the new
    /// one if the session got a new id since. Use it to extend the session by
    /// [`PgSessionLayer::touch`](crate::PgSessionLayer::touch), when the visitor does
    /// something.
    ///
    /// ```
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let layer = PgSessionLayer::new(store);
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.login("ada")).await?;
    /// let ended = ada.session().await?.ended().expect("it is stored");
    ///
    /// ada.with_session(|session| session.cycle_id()).await?;
    /// assert_eq!(Some(ended.id()), ada.session().await?.id());
    /// // A message arrived at the socket.
    /// assert!(layer.touch(&ended.id()).await?);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn id(&self) -> SessionId {
        let now = match &self.state {
            State::Watching { place, .. } => place.id(),
            State::Over(_) => None,
        };
        now.unwrap_or_else(|| self.id.clone())
    }
}

impl Future for SessionEnd {
    type Output = Ending;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        let ending = match &mut self.state {
            State::Over(ending) => return Poll::Ready(*ending),
            State::Watching { ending, .. } => ready!(Pin::new(ending).poll(cx)),
        };
        let ending = ending.unwrap_or(Ending::Unknown);
        self.id = self.id();
        self.state = State::Over(ending);
        Poll::Ready(ending)
    }
}

impl fmt::Debug for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("SessionEnd");
        f.field("id", &self.id);
        if let State::Over(ending) = &self.state {
            f.field("ending", ending);
        }
        f.finish_non_exhaustive()
    }
}
