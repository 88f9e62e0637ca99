use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::oneshot;

use crate::Error;

/// Rows of one statement at the most; Postgres plans thousands as well as
/// hundreds, but one statement's locks and memory should stay small.
const MAX_ROWS: usize = 512;
/// Bytes that one statement carries at the most, so that a large document
/// does not hold up a batch of small ones. One row may exceed it, alone.
const MAX_BYTES: usize = 256 * 1024;

/// A statement that serves many rows at once.
pub(crate) trait Statement: Send + Sync + 'static {
    /// What one request adds to the statement.
    type Row: Send + 'static;
    /// What the request gets back.
    type Answer: Send + 'static;

    /// Runs the statement and answers each row, in the order given.
    fn run(
        &self,
        rows: Vec<Self::Row>,
    ) -> impl Future<Output = Vec<Result<Self::Answer, Error>>> + Send;

    /// Bytes that the row adds to the statement.
    fn weight(row: &Self::Row) -> usize;
}

/// Gathers what waits while earlier batches are in flight.
///
/// There is no timer: whoever comes first goes at once, and whoever comes
/// while all lanes are busy shares the next statement.
pub(crate) struct Batch<S: Statement> {
    statement: S,
    lanes: usize,
    queue: Mutex<Queue<S>>,
}

struct Queue<S: Statement> {
    waiting: VecDeque<Waiting<S>>,
    in_flight: usize,
}

struct Waiting<S: Statement> {
    row: S::Row,
    answer: oneshot::Sender<Result<S::Answer, Error>>,
}

/// The answer to one row, when its statement is through.
pub(crate) struct Receipt<T>(oneshot::Receiver<Result<T, Error>>);

impl<T> Receipt<T> {
    pub(crate) async fn answer(self) -> Result<T, Error> {
        self.0.await.unwrap_or_else(|_| Err(Error::abandoned()))
    }
}

impl<S: Statement> Batch<S> {
    /// `lanes` is the number of statements that may be in flight.
    pub(crate) fn new(statement: S, lanes: usize) -> Arc<Self> {
        Arc::new(Self {
            statement,
            lanes,
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                in_flight: 0,
            }),
        })
    }

    /// Puts the row into the next statement. What was submitted is carried
    /// out also when nobody waits for the answer any more.
    pub(crate) fn submit(self: &Arc<Self>, row: S::Row) -> Receipt<S::Answer> {
        let (answer, receipt) = oneshot::channel();
        let opens_a_lane = {
            let mut queue = self.queue();
            queue.waiting.push_back(Waiting { row, answer });
            let opens = queue.in_flight < self.lanes;
            queue.in_flight += usize::from(opens);
            opens
        };
        if opens_a_lane {
            tokio::spawn(Lane(Some(Arc::clone(self))).drain());
        }
        Receipt(receipt)
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue<S>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One place among the statements in flight. It is given back in the same
/// moment in which the queue is seen empty, so that no row is left behind.
struct Lane<S: Statement>(Option<Arc<Batch<S>>>);

/// What one statement serves.
struct Round<S: Statement> {
    batch: Arc<Batch<S>>,
    waiting: Vec<Waiting<S>>,
}

impl<S: Statement> Lane<S> {
    async fn drain(mut self) {
        while let Some(Round { batch, waiting }) = self.next() {
            batch.send(waiting).await;
        }
    }

    fn next(&mut self) -> Option<Round<S>> {
        let batch = self.0.take()?;
        let waiting = batch.queue().take_or_leave();
        if waiting.is_empty() {
            return None;
        }
        self.0 = Some(Arc::clone(&batch));
        Some(Round { batch, waiting })
    }
}

impl<S: Statement> Drop for Lane<S> {
    /// A runtime that stops drops lanes in mid-flight; what nobody will send
    /// any more gets its answer.
    fn drop(&mut self) {
        if let Some(batch) = self.0.take() {
            batch.queue().leave();
        }
    }
}

impl<S: Statement> Batch<S> {
    async fn send(&self, waiting: Vec<Waiting<S>>) {
        let (rows, answers): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .map(|waiting| (waiting.row, waiting.answer))
            .unzip();
        let outcomes = self.statement.run(rows).await;
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // Nobody waits for the answer of a cancelled request.
            drop(answer.send(outcome));
        }
    }
}

impl<S: Statement> Queue<S> {
    fn take_or_leave(&mut self) -> Vec<Waiting<S>> {
        let waiting = self.take();
        if waiting.is_empty() {
            self.in_flight -= 1;
        }
        waiting
    }

    fn leave(&mut self) {
        self.in_flight -= 1;
        if self.in_flight == 0 {
            self.waiting.clear();
        }
    }

    fn take(&mut self) -> Vec<Waiting<S>> {
        let mut bytes = 0;
        let fitting = self
            .waiting
            .iter()
            .take(MAX_ROWS)
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
            .field("lanes", &self.lanes)
            .field("in_flight", &queue.in_flight)
            .field("waiting", &queue.waiting.len())
            .finish_non_exhaustive()
    }
}
