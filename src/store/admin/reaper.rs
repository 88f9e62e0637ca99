//! Deletes expired rows in batches, in a task that runs from time to time. It knows no
//! session: only that a row has expired.
//!
//! How it works: a batch is one transaction, which takes an advisory lock, so that only one
//! reaper works at a time. It deletes the rows that expired first, as many as a short time
//! allows. If it waits for a locked row, it is canceled after a moment. Then the ids of the
//! batch are read, and parts of it are deleted in transactions of their own, which become
//! smaller until the locked row is alone. That row is left to the next run, and this run
//! continues with the rows after it. `SKIP LOCKED` would do the same in one statement, but
//! Citus refuses it. A row that can't be deleted is found in the same way: the run deletes the
//! others, and then fails. A trigger can keep a row without an error. So if a batch deleted
//! fewer rows than it could, and some are left, the rest of the run looks for expired rows
//! before it deletes them. If a row is found again after its deletion, the run leaves it.
//!
//! Dropped futures: a run that is dropped, or stopped, has deleted whole batches. The batch in
//! flight is canceled and rolled back, unless it has committed. The transaction releases the
//! advisory lock in each case.

use std::{collections::HashSet, num::NonZeroU32, sync::Arc, time::Duration};

use sqlx::{PgConnection, Row as _, postgres::PgRow};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use crate::{
    Error, PgSessionStore,
    ending::Ending,
    id::RowId,
    random_fraction::random_fraction,
    row::successor_of,
    store::{
        Shared,
        batch::{deletion_portions::Portions, search},
        connection::{
            sqlstate::spared,
            transaction::{despite_others, in_transaction},
        },
        table::statements::Statements,
        watches::report::EndedRow,
    },
    telemetry::{Operation, Run},
};

/// As in the model system, whose documentation says 45 minutes.
const INTERVAL: Duration = Duration::from_mins(45);
/// Rows of one transaction. It is short enough to hold up no other transaction, and the reaper
/// still deletes a hundred thousand rows within seconds.
const BATCH_SIZE: NonZeroU32 = NonZeroU32::new(1000).expect("not zero");
/// The pause between two batches, for other statements.
const PAUSE: Duration = Duration::from_millis(20);
/// The most rows that a run skips, because each of its searches names them.
const MOST_SKIPPED: usize = 10_000;
/// The longest wait before the first run. It is random, so that processes that start together
/// don't reap together.
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// Deletes expired rows, a batch at a time, oldest first.
///
/// An expired session can't be used even before its row is deleted, because each load checks
/// the expiry. Any number of reapers can run on one table; only one is at work at a time.
///
/// ```
/// use axum_pg_session::{PgSessionStore, Reaper};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// let store = PgSessionStore::connect(database.url()).await?;
/// store.migrate().await?;
///
/// let reaper = Reaper::new(store.clone()).spawn();
/// // … serve …
/// reaper.stop().await;
///
/// assert_eq!(Reaper::new(store).run_once().await?.deleted, 0);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a reaper does nothing until it is spawned or run"]
pub struct Reaper {
    store: PgSessionStore,
    interval: Duration,
    batch_size: NonZeroU32,
}

/// What one run of the reaper did.
///
/// ```
/// use axum_pg_session::{StopReason, PgSessionStore, Reaper};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// # let store = PgSessionStore::connect(database.url()).await?;
/// # store.migrate().await?;
/// let reaped = Reaper::new(store).run_once().await?;
/// assert_eq!((reaped.deleted, reaped.batches), (0, 0));
/// assert_eq!(reaped.reason, StopReason::Drained);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ReapSummary {
    /// Rows deleted.
    pub deleted: u64,
    /// Transactions that deleted something.
    pub batches: u32,
    /// Why the run ended.
    pub reason: StopReason,
}

/// Why a run of the reaper ended.
///
/// ```
/// use axum_pg_session::{StopReason, ReapSummary};
///
/// /// For the log of a job that runs the reaper itself.
/// fn sentence(reaped: ReapSummary) -> String {
///     match reaped.reason {
///         StopReason::OtherReaper => "another reaper was at work".to_owned(),
///         _ => format!("{} rows deleted", reaped.deleted),
///     }
/// }
/// # let _ = sentence;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopReason {
    /// All expired rows were deleted, but for those that another transaction has
    /// locked: the next run deletes them.
    Drained,
    /// Another reaper is at work on the table.
    OtherReaper,
}

impl Reaper {
    /// Creates a reaper with the default settings.
    pub fn new(store: PgSessionStore) -> Self {
        Self {
            store,
            interval: INTERVAL,
            batch_size: BATCH_SIZE,
        }
    }

    /// Sets the time between two runs. Default: 45 minutes. Each wait is up to a tenth
    /// longer, so that processes don't run at the same time.
    ///
    /// # Panics
    ///
    /// If the interval is zero, because the reaper would never pause.
    pub fn interval(mut self, interval: Duration) -> Self {
        assert!(
            !interval.is_zero(),
            "the interval of a reaper can't be zero"
        );
        self.interval = interval;
        self
    }

    /// Sets how many rows one transaction deletes at most. Default: 1,000.
    pub fn batch_size(mut self, batch_size: NonZeroU32) -> Self {
        self.batch_size = batch_size;
        self
    }

    /// Deletes all rows that are expired now, and returns how many. Rows that another
    /// transaction has locked are left to the next run. If the future is dropped, batches
    /// that were committed stay deleted.
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum_pg_session::Reaper;
    ///
    /// # use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// # let layer = PgSessionLayer::new(store.clone());
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.insert("basket", ["tea"])).await?;
    /// ada.idle_for(Duration::from_secs(25 * 60 * 60)).await?;
    ///
    /// let summary = Reaper::new(store).run_once().await?;
    /// assert_eq!(summary.deleted, 1);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// If a batch failed. The rows of earlier batches stay deleted. If rows can't be
    /// deleted, such as those that another table references, all others are deleted. The run
    /// ends early if there are more than ten thousand such rows.
    pub async fn run_once(&self) -> Result<ReapSummary, Error> {
        let outcome = self.drain().await;
        let meter = self.store.meter();
        let run = match &outcome {
            Ok(reaped) if reaped.reason == StopReason::OtherReaper => Run::OtherReaper,
            Ok(_) => Run::Drained,
            Err(_) => Run::Failed,
        };
        meter.reaper_ran(run);
        outcome.inspect_err(|error| meter.failed(error))
    }

    async fn drain(&self) -> Result<ReapSummary, Error> {
        let (mut deleted, mut batches) = (0, 0);
        let mut skipped = Skipped::default();
        loop {
            let limit = self.batch_size.get();
            // If the future is dropped here, the batch is canceled, unless it has committed.
            let batch = self.store.shared.delete_expired(limit, &mut skipped);
            let ReapedBatch::Deleted { rows, is_last } = batch.await? else {
                return Ok(ReapSummary {
                    deleted,
                    batches,
                    reason: StopReason::OtherReaper,
                });
            };
            self.store.meter().reaped(rows);
            deleted += rows;
            batches += u32::from(rows > 0);
            if is_last {
                skipped.check()?;
                return Ok(ReapSummary {
                    deleted,
                    batches,
                    reason: StopReason::Drained,
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Starts a task that runs soon, and then at every interval.
    ///
    /// A run that fails is logged, and the next one tries again. The task ends with
    /// [`ReaperHandle::stop`], or when the application has dropped the store and everything
    /// that was built from it. Dropping the handle does not end it. Settings that are made
    /// on the store afterwards don't change the reaper.
    ///
    /// # Panics
    ///
    /// If it is called outside of a tokio runtime.
    #[must_use = "the handle stops the reaper when the application shuts down"]
    pub fn spawn(self) -> ReaperHandle {
        let (stop, stopped) = watch::channel(());
        let (store, in_use) = self.store.apart();
        let rounds = Rounds {
            reaper: Self { store, ..self },
            in_use,
            stopped,
        };
        ReaperHandle {
            stop,
            task: tokio::spawn(rounds.run()),
        }
    }
}

/// Stops a spawned [`Reaper`].
///
/// ```
/// use axum_pg_session::{PgSessionStore, Reaper};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// # let store = PgSessionStore::connect(database.url()).await?;
/// # store.migrate().await?;
/// let reaper = Reaper::new(store.clone()).spawn();
/// assert!(!reaper.is_finished());
/// reaper.stop().await; // at the end of the process
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct ReaperHandle {
    stop: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl ReaperHandle {
    /// Stops the reaper, and returns when its task has ended. It does not wait for a batch
    /// in flight: that batch is canceled and rolled back, unless it has committed. The next
    /// run deletes its rows. If the future is dropped, the reaper still stops.
    pub async fn stop(self) {
        self.stop.send_replace(());
        // It only fails if the task has ended, by a panic or with its runtime.
        drop(self.task.await);
    }

    /// Returns whether the reaper has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

/// The spawned task.
struct Rounds {
    reaper: Reaper,
    /// Closed when the application has dropped the store.
    in_use: watch::Receiver<()>,
    stopped: watch::Receiver<()>,
}

impl Rounds {
    async fn run(mut self) {
        let interval = self.reaper.interval;
        let mut wait = FIRST_WAIT.min(interval).mul_f64(random_fraction());
        while self.is_due_after(wait).await {
            self.run_once().await;
            wait = out_of_step(interval);
        }
    }

    /// Waits. Returns whether a run is due; otherwise the task must end.
    async fn is_due_after(&mut self, wait: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            Ok(()) = self.stopped.changed() => false,
            Err(_) = self.in_use.changed() => false,
        }
    }

    /// Makes one run. If the reaper is stopped meanwhile, the run is dropped, and its batch in
    /// flight is canceled.
    async fn run_once(&mut self) {
        let started = Instant::now();
        let outcome = tokio::select! {
            outcome = self.reaper.run_once() => outcome,
            Ok(()) = self.stopped.changed() => return self.stopped.mark_changed(),
        };
        report(outcome, started.elapsed());
    }
}

/// Adds up to a tenth, at random. Can't overflow.
fn out_of_step(interval: Duration) -> Duration {
    interval.saturating_add((interval / 10).mul_f64(random_fraction()))
}

fn report(outcome: Result<ReapSummary, Error>, took: Duration) {
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match outcome {
        Ok(reaped) => tracing::info!(
            reaper.deleted = reaped.deleted,
            reaper.batches = reaped.batches,
            duration_ms,
            "expired sessions deleted"
        ),
        Err(error) => tracing::error!(
            error = &error as &dyn std::error::Error,
            error.type = error.kind().name(),
            duration_ms,
            "expired sessions could not be deleted; the next run tries again"
        ),
    }
}

/// How one batch of the reaper ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReapedBatch {
    Deleted {
        rows: u64,
        /// No row is left, but for the skipped ones.
        is_last: bool,
    },
    /// Another reaper is at work on this table.
    Locked,
}

/// Rows that a run leaves to the next.
#[derive(Debug, Default)]
pub(crate) struct Skipped {
    ids: Vec<String>,
    /// Rows that were not deleted, though there was no error. Another process may have deleted
    /// them.
    doubtful: HashSet<String>,
    /// Whether the run looks for rows before it deletes them.
    is_searching: bool,
    /// Why the first of those rows that are not locked could not be deleted.
    error: Option<Error>,
}

impl Skipped {
    /// Leaves the rows that were found again, though they should have been deleted.
    fn leave_kept(&mut self, ids: &mut Vec<String>) {
        let (kept, others) = ids.drain(..).partition(|id| self.doubtful.contains(id));
        *ids = others;
        if !kept.is_empty() {
            self.doubtful.retain(|id| !kept.contains(id));
            self.ids.extend(kept);
            self.error.get_or_insert_with(spared);
        }
    }

    fn check(&mut self) -> Result<(), Error> {
        match self.error.take() {
            Some(error) => Err(Error::caused(
                error.kind(),
                "an expired row can't be deleted; the reaper continued with the other rows",
                error,
            )),
            None => Ok(()),
        }
    }
}

impl Shared {
    /// Deletes the rows that expired first, at most `limit`, except those that are locked or
    /// can't be deleted.
    async fn delete_expired(
        &self,
        limit: u32,
        skipped: &mut Skipped,
    ) -> Result<ReapedBatch, Error> {
        if !skipped.is_searching {
            let oldest = Rows::Oldest(limit);
            let timeout = self.batches.table_handle.executor.timeout;
            match self.reap(oldest, search::patience_of(timeout)).await {
                Err(error) if error.blames_a_row() => {}
                Err(error) => return Err(error),
                Ok(None) => return Ok(ReapedBatch::Locked),
                Ok(Some(reaped)) => {
                    // A trigger keeps some, or others have expired meanwhile.
                    skipped.is_searching = reaped.leaves_rows;
                    return Ok(ReapedBatch::Deleted {
                        rows: reaped.rows,
                        is_last: reaped.is_last,
                    });
                }
            }
        }
        skipped.is_searching = true;
        self.delete_around(limit, skipped).await
    }

    /// Deletes a batch except for the rows that are locked, or can't be deleted. If the future is
    /// dropped, the parts that were committed stay deleted.
    async fn delete_around(&self, limit: u32, skipped: &mut Skipped) -> Result<ReapedBatch, Error> {
        let deadline = self.batches.table_handle.executor.deadline();
        let mut ids = self.expired(limit, skipped.ids.clone()).await?;
        let is_full = ids.len() >= limit as usize;
        skipped.leave_kept(&mut ids);
        let mut rows = 0;
        let mut search = search::Search::among(ids, deadline);
        while let Some(ids) = search.next() {
            let part = Rows::These(ids.clone());
            let outcome = self.reap(part, search::PATIENCE_IN_SEARCH).await;
            let outcome = match (outcome, &*ids) {
                (Err(error), [id]) if error.is_of_a_document() => {
                    let unread = Rows::Unread(id.clone());
                    let reaped = self.reap(unread, search::PATIENCE_IN_SEARCH).await;
                    reaped.map(|reaped| Some(reaped.unwrap_or_default()))
                }
                (Err(error), _) if !error.blames_a_row() => {
                    self.batches.table_handle.executor.meter.reaped(rows);
                    return Err(error);
                }
                (outcome, _) => outcome,
            };
            match outcome {
                Ok(Some(reaped)) => {
                    rows += reaped.rows;
                    skipped.doubtful.extend(reaped.stayed);
                    search.add(reaped.rest);
                }
                Ok(None) if rows == 0 => return Ok(ReapedBatch::Locked),
                // Another reaper began when this one was between two parts.
                Ok(None) => break,
                Err(error) => search.failed(ids, error),
            }
        }
        let is_last = !is_full && skipped.doubtful.is_empty();
        let left = search.left();
        skipped.ids.extend(left.ids);
        let error = left.error.filter(|error| !error.is_of_a_lock());
        skipped.error = skipped.error.take().or(error);
        if !skipped.ids.is_empty() {
            tracing::debug!(
                reaper.skipped = skipped.ids.len(),
                "rows are left to the next run"
            );
        }
        Ok(ReapedBatch::Deleted {
            rows,
            is_last: is_last || skipped.ids.len() > MOST_SKIPPED,
        })
    }

    async fn expired(&self, limit: u32, skipped: Vec<String>) -> Result<Vec<String>, Error> {
        let table_handle = &self.batches.table_handle;
        despite_others(|| {
            let skipped = skipped.clone();
            table_handle.run(None, Operation::Reap, |table, connection| {
                Box::pin(async move {
                    let ids = table.reap_find.query_scalar().bind(i64::from(limit));
                    Ok(ids.bind(skipped).fetch_all(connection).await?)
                })
            })
        })
        .await
    }

    /// Deletes rows, and reports them. `None` if another reaper is at work.
    async fn reap(&self, rows: Rows, patience: Duration) -> Result<Option<Reaped>, Error> {
        let reaped = despite_others(|| self.reap_once(rows.clone(), patience)).await?;
        if let Some(reaped) = &reaped {
            let watches = &self.batches.watches;
            watches.ended(&reaped.sessions, Ending::Expired);
        }
        Ok(reaped)
    }

    async fn reap_once(&self, rows: Rows, patience: Duration) -> Result<Option<Reaped>, Error> {
        let table_handle = &self.batches.table_handle;
        let question = table_handle.run(Some(patience), Operation::Reap, |table, connection| {
            Box::pin(reap(table, connection, rows))
        });
        question.await
    }
}

#[derive(Clone, Debug)]
enum Rows {
    Oldest(u32),
    These(Vec<String>),
    /// One whose document can't be read.
    Unread(String),
}

/// What one transaction deleted.
#[derive(Default)]
struct Reaped {
    /// Including forwardings.
    rows: u64,
    sessions: Vec<EndedRow>,
    /// Whether no expired row is left.
    is_last: bool,
    /// Whether a statement deleted fewer rows than it should, though some are left.
    leaves_rows: bool,
    /// The rows of these statements that were not deleted.
    stayed: Vec<String>,
    /// The given rows that the transaction did not try to delete, because it took long enough.
    rest: Vec<String>,
}

async fn reap(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    rows: Rows,
) -> Result<Option<Reaped>, Error> {
    // A transaction that fails is rolled back at once. Otherwise the next part of this run
    // could find the lock taken.
    in_transaction(connection, |transaction| {
        Box::pin(async move {
            let is_ours: bool = table
                .reap_lock
                .query_scalar()
                .bind(table.name.lock_key("reaper"))
                .fetch_one(&mut *transaction)
                .await?;
            if !is_ours {
                return Ok(None);
            }
            let reaped = match rows {
                Rows::Oldest(limit) => reap_oldest(&table, transaction, limit as usize).await?,
                Rows::These(ids) => reap_these(&table, transaction, ids).await?,
                Rows::Unread(id) => reap_unread(&table, transaction, id).await?,
            };
            Ok(Some(reaped))
        })
    })
    .await
}

async fn reap_oldest(
    table: &Statements,
    connection: &mut PgConnection,
    limit: usize,
) -> Result<Reaped, Error> {
    let (mut reaped, mut tried, mut portions) = (Reaped::default(), 0, Portions::limited());
    while let Some(rows) = portions.next(limit - tried) {
        let delete = table
            .reap
            .query()
            .bind(i64::try_from(rows).unwrap_or(i64::MAX));
        let deleted = delete.fetch_all(&mut *connection).await?;
        reaped.add(table, &deleted)?;
        tried += rows;
        if deleted.len() < rows {
            let find = table.reap_find.query().bind(1_i64).bind([""; 0]);
            let found = find.fetch_optional(&mut *connection).await?;
            reaped.is_last = found.is_none();
            reaped.leaves_rows = found.is_some();
            break;
        }
    }
    Ok(reaped)
}

async fn reap_these(
    table: &Statements,
    connection: &mut PgConnection,
    mut rest: Vec<String>,
) -> Result<Reaped, Error> {
    let (mut reaped, mut portions) = (Reaped::default(), Portions::limited());
    while let Some(rows) = portions.next(rest.len()) {
        let next = rest.split_off(rows);
        let delete = table.reap_some.query().bind(&rest);
        let deleted = delete.fetch_all(&mut *connection).await?;
        let ids = reaped.add(table, &deleted)?;
        let stayed = rest.into_iter().filter(|id| !ids.contains(id));
        reaped.stayed.extend(stayed);
        rest = next;
    }
    reaped.rest = rest;
    Ok(reaped)
}

/// Deletes a row without reading its document. It is a session, because a forwarding is short
/// ASCII text.
async fn reap_unread(
    table: &Statements,
    connection: &mut PgConnection,
    id: String,
) -> Result<Reaped, Error> {
    let delete = table.reap_unread.query_scalar().bind(id.clone());
    let deleted: Option<Option<String>> = delete.fetch_optional(connection).await?;
    Ok(match deleted {
        Some(user) => Reaped {
            rows: 1,
            sessions: vec![EndedRow::new(RowId::from(id), user)],
            ..Reaped::default()
        },
        None => Reaped {
            stayed: vec![id],
            ..Reaped::default()
        },
    })
}

impl Reaped {
    /// Adds rows that were deleted, and returns their ids.
    fn add(&mut self, table: &Statements, deleted: &[PgRow]) -> Result<HashSet<String>, Error> {
        let mut ids = HashSet::with_capacity(deleted.len());
        for row in deleted {
            let (id, user): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
            let text: Option<String> = row.try_get(2)?;
            if text.is_none_or(|text| successor_of(table.layout, &text).is_none()) {
                self.sessions
                    .push(EndedRow::new(RowId::from(id.clone()), user));
            }
            ids.insert(id);
        }
        self.rows += deleted.len() as u64;
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wait_is_up_to_a_tenth_longer() {
        for _ in 0..1000 {
            let wait = out_of_step(INTERVAL);
            assert!(
                wait >= INTERVAL && wait <= INTERVAL.mul_f64(1.1),
                "{wait:?}"
            );
        }
    }

    #[test]
    fn the_longest_interval_is_no_panic() {
        assert_eq!(out_of_step(Duration::MAX), Duration::MAX);
    }
}
