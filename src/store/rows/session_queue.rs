//! The queue of each session: a process writes each row in order, and saves that wait at the
//! same time share a statement. It doesn't know how a write is executed.
//!
//! How it works: the first write of a session opens its queue and starts a task, the
//! [`Worker`]. The worker takes all writes that wait, joins neighboring saves, executes them
//! one after the other, and takes again. It closes the queue, under the same lock, if no write
//! waits. It passes the row that it wrote last to the next save, which then needs no load. A
//! save whose session got a new id moves to the queue of the new id.
//!
//! Dropped futures: a request that stops waiting drops only the receiver of its result, and
//! its write is still executed. A runtime that stops, or a panic, drops the worker. Then its
//! queue is closed, and all requests that wait in it get an error.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing::Instrument as _;

use crate::{
    id::RowId,
    row::Row,
    state::ToDelete,
    store::rows::{
        Batches,
        orders::{DestroyOrder, NewIdOrder, SaveOrder, Write},
    },
    telemetry::{Origin, writing},
};

type Queued = (Write, Origin);

/// The queues of the sessions whose rows are being written, shared by all clones of
/// a store.
pub(crate) struct SessionQueues {
    pub(in crate::store) batches: Arc<Batches>,
    /// Has an entry for a session as long as a task works on its row.
    open: Mutex<HashMap<RowId, Vec<Queued>>>,
}

impl SessionQueues {
    pub(in crate::store) fn new(batches: Arc<Batches>) -> Arc<Self> {
        Arc::new(Self {
            batches,
            open: Mutex::default(),
        })
    }

    /// Queues the write behind the earlier ones of its session. It is executed even if
    /// the caller stops waiting, except a new id, see [`cycle`](super::cycle).
    pub(in crate::store) fn submit(self: &Arc<Self>, id: RowId, write: Write) {
        let starts = {
            let mut queues = self.open();
            let starts = !queues.contains_key(&id);
            let queue = queues.entry(id.clone()).or_default();
            queue.push((write, Origin::current()));
            starts
        };
        if starts {
            let worker = Worker {
                queues: Arc::clone(self),
                id,
                queue: QueueState::Open,
            };
            tokio::spawn(worker.work());
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<RowId, Vec<Queued>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all writes that wait for this session. Closes its queue if there are none.
    fn take(&self, id: &RowId) -> Option<Vec<Queued>> {
        let mut queues = self.open();
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
    queues: Arc<SessionQueues>,
    id: RowId,
    queue: QueueState,
}

#[derive(PartialEq)]
enum QueueState {
    Open,
    /// Another task may have opened it again.
    Closed,
}

impl Worker {
    async fn work(mut self) {
        let mut latest = None;
        while let Some(writes) = self.take() {
            for (step, origins) in steps(writes) {
                let span = writing(&origins);
                // If the future is dropped here, the callers of this step and of all
                // later ones get an error. A statement that was sent may still commit.
                latest = self.take_step(step, latest).instrument(span).await;
            }
        }
    }

    fn take(&mut self) -> Option<Vec<Queued>> {
        let writes = self.queues.take(&self.id);
        if writes.is_none() {
            self.queue = QueueState::Closed;
        }
        writes
    }

    /// Executes the step. Returns the row as it is now, if that is known.
    async fn take_step(&self, step: Step, latest: Option<Arc<Row>>) -> Option<Arc<Row>> {
        let batches = &self.queues.batches;
        match step {
            Step::Saves(orders) => {
                let (latest, forwarded) = batches.save_all(&self.id, latest, orders).await;
                for (successor, order) in forwarded {
                    self.queues.submit(successor, Write::Save(order));
                }
                latest
            }
            Step::Destroy(order) => {
                let _busy = batches.watches.busy(&self.id);
                let ending = order.ending;
                let destroyed = match order.target {
                    ToDelete::Session { loaded } => {
                        Box::pin(batches.destroy_row(&self.id, ending, loaded)).await
                    }
                    ToDelete::Unchanged(row) => {
                        Box::pin(batches.destroy_unchanged(&row, ending)).await
                    }
                };
                // A canceled request no longer waits for the result.
                drop(order.reply.send(destroyed));
                None
            }
            Step::NewId(order) => {
                let _busy = batches.watches.busy(&self.id);
                Box::pin(batches.cycle_row(order)).await;
                None
            }
        }
    }
}

impl Drop for Worker {
    /// If a runtime stops the task, the writes in the queue are dropped, and with them
    /// the senders of their results. So their callers get an error.
    fn drop(&mut self) {
        if self.queue == QueueState::Open {
            self.queues.open().remove(&self.id);
        }
    }
}

/// Writes that one statement, or one transaction, executes.
enum Step {
    Saves(Vec<SaveOrder>),
    Destroy(DestroyOrder),
    NewId(NewIdOrder),
}

/// Groups the writes into steps, each with the requests that wait for it.
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
            (Write::Destroy(order), _) => Step::Destroy(order),
            (Write::NewId(order), _) => Step::NewId(order),
        };
        steps.push((step, vec![origin]));
    }
    steps
}

#[cfg(test)]
mod tests {
    use sqlx::PgPool;

    use super::*;
    use crate::PgSessionStore;

    /// Spawning moves the future, for each save.
    #[tokio::test]
    async fn the_task_of_a_save_is_small() {
        let pool = PgPool::connect_lazy("postgres:///").expect("a URL");
        let worker = Worker {
            queues: Arc::clone(&PgSessionStore::new(pool).shared.queues),
            id: RowId::from("id".to_owned()),
            queue: QueueState::Closed,
        };
        let bytes = size_of_val(&worker.work());
        assert!(bytes < 4096, "{bytes} bytes");
    }
}
