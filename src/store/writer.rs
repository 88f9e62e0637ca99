//! The queue of each session: what one process does to one row happens in
//! order, and what waits meanwhile is saved together.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::oneshot, time::Instant};
use tracing::Instrument as _;

use crate::{
    Error,
    expiry::Timeouts,
    id::RowId,
    state::{NewIdWrite, Record, Touch},
    store::{
        batch::Batch,
        entries::{DestroyRow, InsertRow, LoadRow, SaveRow, TouchRow},
        row::Row,
        set_up::SetUp,
        statements::{Entry, Many},
        undo::Undelivered,
    },
    telemetry::{Origin, writing},
};

/// Everything that reads and writes rows, shared by all clones of a store.
pub(crate) struct Writer {
    pub(super) set_up: SetUp,
    pub(super) load: Arc<Batch<Many<LoadRow>>>,
    pub(super) insert: Arc<Batch<Many<InsertRow>>>,
    pub(super) save: Arc<Batch<Many<SaveRow>>>,
    pub(super) touch: Arc<Batch<Many<TouchRow>>>,
    pub(super) destroy: Arc<Batch<Many<DestroyRow>>>,
    /// A session is in here as long as a task works on its row.
    queues: Mutex<HashMap<RowId, Vec<Queued>>>,
    /// Users whose sessions beyond the limit a task is ending.
    surplus: Mutex<HashSet<Arc<str>>>,
    /// One new id at a time is undone.
    pub(super) undoing: tokio::sync::Mutex<()>,
}

type Queued = (Write, Origin);

/// What a request owes its row, and who waits for the outcome.
pub(super) enum Write {
    Save(SaveOrder),
    Destroy(oneshot::Sender<Result<bool, Error>>),
    NewId(NewIdOrder),
}

/// Changes to be replayed on the row; none of them means a mere touch.
pub(super) struct SaveOrder {
    /// The row as the request loaded it.
    pub(super) base: Arc<Row>,
    pub(super) record: Record,
    pub(super) touch: Touch,
    pub(super) timeouts: Arc<Timeouts>,
    /// Until when the request waits.
    pub(super) deadline: Instant,
    /// If the session got a new id since the request loaded it, so that the order
    /// is carried out on a row that the request must not see: what the request
    /// is told if that fails.
    pub(super) forwarded: Option<Error>,
    pub(super) answer: oneshot::Sender<Result<Saved, Error>>,
}

impl SaveOrder {
    /// A request whose token does not open the row learns nothing of it, not even
    /// why its changes do not fit.
    pub(super) fn answer(self, outcome: Result<Saved, Error>) {
        let outcome = match (self.forwarded, outcome) {
            (None, outcome) => outcome,
            (Some(_), Ok(_)) => Ok(Saved::Moved),
            (Some(_), Err(error)) if error.is_of_the_database() => Err(error),
            (Some(moved), Err(_)) => Err(moved),
        };
        // Nobody waits for the answer of a cancelled request.
        drop(self.answer.send(outcome));
    }
}

/// Where the changes of a request were saved.
#[derive(Clone, Debug)]
pub(crate) enum Saved {
    /// In the row that the request's own token opens.
    Here(Arc<Row>),
    /// Nowhere: there was nothing to change, and another writer moved the
    /// expiry or ended the session.
    Untouched(Arc<Row>),
    /// In the successor of that row, which the request must not see.
    Moved,
}

pub(super) struct NewIdOrder {
    pub(super) write: NewIdWrite,
    pub(super) timeouts: Arc<Timeouts>,
    pub(super) new_id: RowId,
    /// Until when the request waits.
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<NewId, Error>>,
}

/// The outcome of a new id, and what undoes it if nobody receives the outcome.
pub(super) type NewId = (Result<Arc<Row>, Error>, Undelivered);

fn batch<E: Entry>(set_up: &SetUp) -> Arc<Batch<Many<E>>> {
    Batch::new(Many::new(set_up.clone()))
}

impl Writer {
    pub(crate) fn new(set_up: SetUp) -> Arc<Self> {
        Arc::new(Self {
            load: batch(&set_up),
            insert: batch(&set_up),
            save: batch(&set_up),
            touch: batch(&set_up),
            destroy: batch(&set_up),
            set_up,
            queues: Mutex::default(),
            surplus: Mutex::default(),
            undoing: tokio::sync::Mutex::default(),
        })
    }

    /// Queues the write behind the earlier ones of its session. It is carried
    /// out also when nobody waits for the answer any more.
    pub(super) fn submit(self: &Arc<Self>, id: RowId, write: Write) {
        let starts = {
            let mut queues = self.queues();
            let starts = !queues.contains_key(&id);
            let queue = queues.entry(id.clone()).or_default();
            queue.push((write, Origin::current()));
            starts
        };
        if starts {
            let worker = Worker {
                writer: Arc::clone(self),
                id,
                queue: QueueState::Open,
            };
            tokio::spawn(worker.work());
        }
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<RowId, Vec<Queued>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn surplus(&self) -> MutexGuard<'_, HashSet<Arc<str>>> {
        self.surplus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that waits for this session; with nothing left its queue is closed.
    fn take(&self, id: &RowId) -> Option<Vec<Queued>> {
        let mut queues = self.queues();
        let waiting = std::mem::take(queues.get_mut(id)?);
        if waiting.is_empty() {
            queues.remove(id);
            return None;
        }
        Some(waiting)
    }
}

/// The one task that works on a session's row, until its queue is closed.
struct Worker {
    writer: Arc<Writer>,
    id: RowId,
    queue: QueueState,
}

#[derive(PartialEq)]
enum QueueState {
    Open,
    /// Another task may have opened it anew.
    Closed,
}

impl Worker {
    async fn work(mut self) {
        let mut latest = None;
        while let Some(writes) = self.take() {
            for (step, origins) in steps(writes) {
                let span = writing(&origins);
                latest = self.take_step(step, latest).instrument(span).await;
            }
        }
    }

    fn take(&mut self) -> Option<Vec<Queued>> {
        let writes = self.writer.take(&self.id);
        if writes.is_none() {
            self.queue = QueueState::Closed;
        }
        writes
    }

    /// Answers with the row as it is now, where that is known.
    async fn take_step(&self, step: Step, latest: Option<Arc<Row>>) -> Option<Arc<Row>> {
        match step {
            Step::Saves(orders) => self.writer.save_all(&self.id, latest, orders).await,
            Step::Destroy(answer) => {
                let destroyed = Box::pin(self.writer.destroy_row(&self.id)).await;
                // A cancelled request no longer waits for the result.
                drop(answer.send(destroyed));
                None
            }
            Step::NewId(order) => {
                self.writer.reissue_row(order).await;
                None
            }
        }
    }
}

impl Drop for Worker {
    /// When a runtime stops the task, those who wait get their answer by the
    /// drop of their queue.
    fn drop(&mut self) {
        if self.queue == QueueState::Open {
            self.writer.queues().remove(&self.id);
        }
    }
}

/// What can be done with one statement, or one transaction.
enum Step {
    Saves(Vec<SaveOrder>),
    Destroy(oneshot::Sender<Result<bool, Error>>),
    NewId(NewIdOrder),
}

/// Each with those who wait for it.
fn steps(writes: Vec<Queued>) -> Vec<(Step, Vec<Origin>)> {
    let mut steps: Vec<(Step, Vec<Origin>)> = Vec::new();
    for (write, origin) in writes {
        let step = match (write, steps.last_mut()) {
            (Write::Save(order), Some((Step::Saves(orders), origins))) => {
                orders.push(order);
                origins.push(origin);
                continue;
            }
            (Write::Save(order), _) => Step::Saves(vec![order]),
            (Write::Destroy(answer), _) => Step::Destroy(answer),
            (Write::NewId(order), _) => Step::NewId(order),
        };
        steps.push((step, vec![origin]));
    }
    steps
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("table", &self.set_up.name)
            .field("sessions", &self.queues().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use sqlx::PgPool;

    use super::*;
    use crate::PgSessionStore;

    /// It is moved to where it runs, for each save.
    #[tokio::test]
    async fn the_task_of_a_save_is_small() {
        let pool = PgPool::connect_lazy("postgres:///").expect("a URL");
        let worker = Worker {
            writer: Arc::clone(&PgSessionStore::new(pool).shared.writer),
            id: RowId::from("id".to_owned()),
            queue: QueueState::Closed,
        };
        let octets = size_of_val(&worker.work());
        assert!(octets < 4096, "{octets} octets");
    }
}
