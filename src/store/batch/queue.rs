//! Gathers rows into statements. It doesn't know what a statement does with its rows.
//!
//! How it works: [`Batch::submit`] appends the row to a queue. If it is time for another
//! statement, it also starts a task, a [`Lane`]. The lane takes rows from the front of the
//! queue, up to a number of rows and bytes, sorts them by id, runs the statement, and
//! repeats this until [`Queue::dispatches`] returns `false`. There
//! is no timer: a row that meets no statement in flight is sent at once. While statements
//! are in flight, rows wait until the [`Pace`] allows one more. At most one lane at a time
//! is about to take rows, so two lanes never compete for the same ones.
//!
//! Dropped futures: a [`Receipt`] only receives the result. If it is dropped, the row is
//! still sent, unless its deadline passes while it is in the queue. Lanes run in tasks, so
//! only a runtime that stops, or a panic, drops one. Its rows, and all rows that no other
//! lane will send, then get an error.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use crate::{
    Error,
    error::out_of_time,
    id::RowId,
    store::batch::{
        limits::{MAX_BYTES, MAX_ROWS},
        pace::Pace,
    },
    telemetry::Origin,
};

/// A statement that serves many rows at once.
pub(crate) trait Statement: Send + Sync + 'static {
    /// What one request adds to the statement.
    type Row: Send + 'static;
    /// What the request gets back.
    type Output: Send + 'static;

    /// Runs the statement for rows that are sorted by their ids, and sends each
    /// caller its result. Rows and callers are in the same order.
    fn run(
        &self,
        rows: Vec<Self::Row>,
        waiting: Callers<Self::Output>,
    ) -> impl Future<Output = ()> + Send;

    fn id(row: &Self::Row) -> &RowId;

    /// Bytes that the row adds to the statement.
    fn weight(row: &Self::Row) -> usize;

    /// The number of rows that may be in flight at once. One row always may.
    fn room(&self) -> usize {
        usize::MAX
    }

    /// How long a row waits for its result: in the queue, for a connection and for
    /// the statement together.
    fn patience(&self) -> Duration;

    /// Records how long each row of a statement waited before it is sent.
    fn dispatches(&self, waits: impl Iterator<Item = Duration>);
}

/// Gathers the rows that are submitted while earlier statements are in flight.
pub(crate) struct Batch<S: Statement> {
    statement: S,
    queue: Mutex<Queue<S>>,
}

struct Queue<S: Statement> {
    waiting: VecDeque<Waiting<S>>,
    rows_in_flight: usize,
    statements_in_flight: usize,
    next: Next,
    /// Whether the last statement had several rows. Then other requests are likely
    /// to submit rows now, and a lane yields to them once before it takes rows. A
    /// request that is alone would only lose time by that.
    expects_company: bool,
    pace: Pace,
}

/// Whether a lane is about to take rows from the queue.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Next {
    Gathering,
    Departing,
}

struct Waiting<S: Statement> {
    row: S::Row,
    since: Instant,
    /// The request stops waiting at this time, so no statement that is sent later
    /// takes the row.
    deadline: Instant,
    origin: Origin,
    reply: oneshot::Sender<Result<S::Output, Error>>,
}

/// The requests that wait for the rows of one statement, in the order of the rows.
pub(crate) struct Callers<A> {
    origins: Vec<Origin>,
    deadlines: Vec<Instant>,
    /// `None` if the result was sent.
    replies: Vec<Option<oneshot::Sender<Result<A, Error>>>>,
}

impl<A> Callers<A> {
    fn with_capacity(rows: usize) -> Self {
        Self {
            origins: Vec::with_capacity(rows),
            deadlines: Vec::with_capacity(rows),
            replies: Vec::with_capacity(rows),
        }
    }

    pub(in crate::store) fn origins(&self) -> &[Origin] {
        &self.origins
    }

    /// The time when the last of the requests stops waiting.
    pub(in crate::store) fn deadline(&self) -> Option<Instant> {
        self.deadlines.iter().copied().max()
    }

    pub(in crate::store) fn fail(&mut self, error: &Error) {
        (0..self.replies.len()).for_each(|row| self.reply(row, Err(error.clone())));
    }

    pub(in crate::store) fn reply(&mut self, row: usize, outcome: Result<A, Error>) {
        if let Some(reply) = self.replies[row].take() {
            // It fails if the request was canceled.
            drop(reply.send(outcome));
        }
    }

    /// Moves the callers of these rows out, for a statement of their own.
    pub(in crate::store) fn take(&mut self, rows: impl IntoIterator<Item = usize>) -> Self {
        let mut taken = Self::with_capacity(1);
        for row in rows {
            taken.origins.push(self.origins[row].clone());
            taken.deadlines.push(self.deadlines[row]);
            taken.replies.push(self.replies[row].take());
        }
        taken
    }
}

impl<S: Statement> Batch<S> {
    pub(crate) fn new(statement: S) -> Arc<Self> {
        Arc::new(Self {
            statement,
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                rows_in_flight: 0,
                statements_in_flight: 0,
                next: Next::Gathering,
                expects_company: false,
                pace: Pace::default(),
            }),
        })
    }

    /// Adds the row to a statement. The row is sent even if the receipt is dropped,
    /// unless its deadline passes before that.
    pub(crate) fn submit(self: &Arc<Self>, row: S::Row) -> Receipt<S::Output> {
        self.submit_until(Instant::now() + self.statement.patience(), row)
    }

    /// As [`submit`](Self::submit), for a request that waits until `deadline`.
    pub(crate) fn submit_until(
        self: &Arc<Self>,
        deadline: Instant,
        row: S::Row,
    ) -> Receipt<S::Output> {
        let (reply, receipt) = oneshot::channel();
        let origin = Origin::current();
        let room = self.statement.room();
        let dispatches = {
            let mut queue = self.queue();
            queue.waiting.push_back(Waiting {
                row,
                since: Instant::now(),
                deadline,
                origin,
                reply,
            });
            queue.dispatches(room)
        };
        if dispatches {
            self.open_lane();
        }
        Receipt::new(receipt, deadline)
    }

    fn open_lane(self: &Arc<Self>) {
        tokio::spawn(Lane::new(Arc::clone(self)).drain());
    }

    fn queue(&self) -> MutexGuard<'_, Queue<S>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that sends one statement after the other, as long as it is time for another.
struct Lane<S: Statement> {
    batch: Arc<Batch<S>>,
    /// What [`Drop`] must correct in the queue if the task is dropped.
    at: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Departing,
    InFlight(usize),
    Left,
}

impl<S: Statement> Lane<S> {
    fn new(batch: Arc<Batch<S>>) -> Self {
        Self {
            batch,
            at: Stage::Departing,
        }
    }

    async fn drain(mut self) {
        while self.at == Stage::Departing {
            if self.batch.queue().expects_company {
                // If the future is dropped here, no row was taken, and `Drop` resets the
                // queue.
                tokio::task::yield_now().await;
            }
            let waiting = self.take();
            if !waiting.is_empty() {
                let dispatched = Instant::now();
                let waits = waiting.iter().map(|row| dispatched - row.since);
                self.batch.statement.dispatches(waits);
                // If the future is dropped here, the callers of these rows get an error.
                // The statement may still commit.
                self.batch.send(waiting).await;
                self.batch.queue().pace.observe(dispatched.elapsed());
            }
            self.receive();
        }
    }

    fn take(&mut self) -> Vec<Waiting<S>> {
        let (waiting, another_departs) = {
            let room = self.batch.statement.room();
            let mut queue = self.batch.queue();
            let waiting = queue.take(room);
            self.at = Stage::InFlight(waiting.len());
            (waiting, queue.dispatches(room))
        };
        if another_departs {
            self.batch.open_lane();
        }
        waiting
    }

    fn receive(&mut self) {
        let room = self.batch.statement.room();
        let mut queue = self.batch.queue();
        queue.finish(self.at);
        self.at = match queue.dispatches(room) {
            true => Stage::Departing,
            false => Stage::Left,
        };
    }
}

impl<S: Statement> Drop for Lane<S> {
    /// A runtime that stops drops its lanes. If no other lane is left to send the
    /// rows in the queue, their callers get an error.
    fn drop(&mut self) {
        if self.at != Stage::Left {
            let mut queue = self.batch.queue();
            queue.finish(self.at);
            queue.abandon();
        }
    }
}

impl<S: Statement> Batch<S> {
    async fn send(&self, mut waiting: Vec<Waiting<S>>) {
        waiting.sort_by(|a, b| S::id(&a.row).cmp(S::id(&b.row)));
        let mut rows = Vec::with_capacity(waiting.len());
        let mut callers = Callers::with_capacity(waiting.len());
        for waiting in waiting {
            rows.push(waiting.row);
            callers.origins.push(waiting.origin);
            callers.deadlines.push(waiting.deadline);
            callers.replies.push(Some(waiting.reply));
        }
        self.statement.run(rows, callers).await;
    }
}

impl<S: Statement> Queue<S> {
    /// Whether it is time for another statement. If so, the caller must start a
    /// lane, or continue with its own.
    fn dispatches(&mut self, room: usize) -> bool {
        let is_time = self.next == Next::Gathering
            && !self.waiting.is_empty()
            && (self.rows_in_flight == 0 || self.rows_in_flight < room)
            && self.pace.allows(self.waiting.len(), self.rows_in_flight);
        if is_time {
            self.next = Next::Departing;
        }
        is_time
    }

    fn take(&mut self, room: usize) -> Vec<Waiting<S>> {
        self.drop_expired();
        let left = room.saturating_sub(self.rows_in_flight);
        let most_rows = left.clamp(1, MAX_ROWS);
        let waiting = self.take_fitting(most_rows);
        self.next = Next::Gathering;
        self.rows_in_flight += waiting.len();
        self.statements_in_flight += 1;
        self.expects_company = waiting.len() > 1;
        waiting
    }

    fn finish(&mut self, stage: Stage) {
        match stage {
            Stage::Departing => self.next = Next::Gathering,
            Stage::InFlight(rows) => {
                self.rows_in_flight -= rows;
                self.statements_in_flight -= 1;
            }
            Stage::Left => {}
        }
    }

    fn abandon(&mut self) {
        if self.statements_in_flight == 0 && self.next == Next::Gathering {
            self.waiting.clear();
        }
    }

    /// Removes the rows whose deadline has passed, and sends their callers an error.
    fn drop_expired(&mut self) {
        let now = Instant::now();
        if self.waiting.iter().all(|row| row.deadline > now) {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        for row in waiting {
            match row.deadline > now {
                true => self.waiting.push_back(row),
                false => drop(row.reply.send(Err(out_of_time()))),
            }
        }
    }

    fn take_fitting(&mut self, most_rows: usize) -> Vec<Waiting<S>> {
        let mut bytes = 0;
        let fitting = self
            .waiting
            .iter()
            .take(most_rows)
            .take_while(|waiting| {
                let first = bytes == 0;
                bytes += S::weight(&waiting.row).max(1);
                first || bytes <= MAX_BYTES
            })
            .count();
        self.waiting.drain(..fitting).collect()
    }
}

impl<S: Statement> fmt::Debug for Batch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.queue();
        f.debug_struct("Batch")
            .field("pace", &queue.pace)
            .field("statements_in_flight", &queue.statements_in_flight)
            .field("rows_in_flight", &queue.rows_in_flight)
            .field("waiting", &queue.waiting.len())
            .finish_non_exhaustive()
    }
}

/// Receives the result of one row. Dropping it doesn't cancel the row.
pub(crate) struct Receipt<T> {
    reply: oneshot::Receiver<Result<T, Error>>,
    deadline: Instant,
}

impl<T> Receipt<T> {
    pub(in crate::store) fn new(
        reply: oneshot::Receiver<Result<T, Error>>,
        deadline: Instant,
    ) -> Self {
        Self { reply, deadline }
    }

    pub(in crate::store) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// # Errors
    ///
    /// Those of the statement, and `Unavailable` if the deadline passes. The
    /// statement may still be executed after that.
    pub(crate) async fn outcome_in_time(self) -> Result<T, Error> {
        timeout_at(self.deadline, self.outcome())
            .await
            .unwrap_or_else(|_| Err(out_of_time()))
    }

    /// As [`outcome_in_time`](Self::outcome_in_time) without a timer, for one of several steps that a
    /// request waits for. The request has a timer, and so has the statement.
    ///
    /// # Errors
    ///
    /// Those of the statement.
    pub(crate) async fn outcome(self) -> Result<T, Error> {
        self.reply.await.unwrap_or_else(|_| Err(Error::abandoned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of which only the id and the length matter.
    #[derive(Default)]
    struct Lengths {
        waits: Mutex<Vec<Duration>>,
    }

    impl Statement for Lengths {
        type Row = (RowId, usize);
        type Output = ();

        async fn run(&self, rows: Vec<Self::Row>, mut callers: Callers<()>) {
            (0..rows.len()).for_each(|row| callers.reply(row, Ok(())));
        }

        fn id(row: &Self::Row) -> &RowId {
            &row.0
        }

        fn weight(row: &Self::Row) -> usize {
            row.1
        }

        fn patience(&self) -> Duration {
            Duration::from_secs(60)
        }

        fn dispatches(&self, waits: impl Iterator<Item = Duration>) {
            self.waits.lock().expect("no panic").extend(waits);
        }
    }

    fn waiting(length: usize) -> Waiting<Lengths> {
        Waiting {
            since: Instant::now(),
            row: (RowId::from("id".to_owned()), length),
            deadline: Instant::now() + Duration::from_secs(60),
            origin: Origin::current(),
            reply: oneshot::channel().0,
        }
    }

    /// Rows of the statements that serve rows of these lengths, one by one.
    fn statements(lengths: &[usize]) -> Vec<usize> {
        let batch = Batch::new(Lengths::default());
        let mut queue = batch.queue();
        queue
            .waiting
            .extend(lengths.iter().map(|length| waiting(*length)));
        let mut statements = Vec::new();
        while !queue.waiting.is_empty() {
            statements.push(queue.take(usize::MAX).len());
        }
        statements
    }

    #[test]
    fn a_large_document_goes_alone() {
        assert_eq!(statements(&[10, 10, 1 << 20, 10, 10]), [2, 1, 2]);
        assert_eq!(statements(&[1 << 20, 1 << 20]), [1, 1]);
    }

    #[test]
    fn a_statement_carries_no_more_than_it_may() {
        assert_eq!(statements(&[MAX_BYTES / 2; 5]), [2, 2, 1]);
        assert_eq!(statements(&[0; MAX_ROWS + 1]), [MAX_ROWS, 1]);
    }

    #[test]
    fn no_statement_departs_beside_as_many_rows_as_there_is_room_for() {
        let batch = Batch::new(Lengths::default());
        let mut queue = batch.queue();
        queue.waiting.extend((0..100).map(|_| waiting(1)));
        assert_eq!(queue.take(40).len(), 40);
        assert!(!queue.dispatches(40));
        queue.finish(Stage::InFlight(30));
        assert!(queue.dispatches(40));
        assert_eq!(queue.take(40).len(), 30);
        assert_eq!(queue.rows_in_flight, 40);
    }

    /// Spawning moves the future, for each statement of a quiet site.
    #[tokio::test]
    async fn the_task_that_sends_statements_is_small() {
        let pool = sqlx::PgPool::connect_lazy("postgres:///").expect("a URL");
        let store = crate::PgSessionStore::new(pool);
        let lane = Lane::new(Arc::clone(&store.shared.batches.save));
        let bytes = size_of_val(&lane.drain());
        assert!(bytes < 4096, "{bytes} bytes");
    }

    #[tokio::test]
    async fn every_row_gets_its_reply_at_any_length_of_the_queue() {
        let batch = Batch::new(Lengths::default());
        let lengths = (0..2000_usize).map(|n| (n % 7) << (n % 20));
        let receipts: Vec<_> = lengths
            .map(|length| batch.submit((RowId::from("id".to_owned()), length)))
            .collect();
        for receipt in receipts {
            assert!(receipt.outcome_in_time().await.is_ok());
        }
        assert_eq!(batch.queue().statements_in_flight, 0);
        assert_eq!(batch.queue().rows_in_flight, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_has_waited_from_its_submission_until_its_statement_departs() {
        let batch = Batch::new(Lengths::default());
        let receipts = [0, 3].map(|later| {
            let batch = Arc::clone(&batch);
            async move {
                tokio::time::sleep(Duration::from_secs(later)).await;
                batch.queue().next = Next::Departing;
                batch.submit((RowId::from(later.to_string()), 1))
            }
        });
        for receipt in receipts {
            drop(receipt.await);
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        Lane::new(Arc::clone(&batch)).drain().await;
        let mut waits = batch.statement.waits.lock().expect("no panic").clone();
        waits.sort();
        assert_eq!(waits, [2, 5].map(Duration::from_secs));
    }
}
