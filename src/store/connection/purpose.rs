//! What a connection is for: requests, calls of the application, or the store's own work. Each
//! purpose has places, so that no purpose can take all connections from another one.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::telemetry::Operation;

/// What a connection is acquired for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::store) enum Purpose {
    Reading,
    Writing,
    /// Changes that an application makes outside of requests.
    Changing,
    /// Queries of an application outside of requests.
    Asking,
    /// The lookup of watched sessions.
    Watching,
    /// Work of the store itself, such as an inspection of the table. It takes no place.
    Own,
}

impl Purpose {
    /// The purpose of a statement that a request sends, or that changes rows outside of requests.
    pub(super) fn of_statement(operation: Operation) -> Self {
        match operation {
            Operation::Load => Self::Reading,
            Operation::Manage => Self::Changing,
            _ => Self::Writing,
        }
    }

    /// The purpose of a query outside of requests.
    pub(super) fn of_query(operation: Operation) -> Self {
        match operation {
            Operation::Watch => Self::Watching,
            _ => Self::Asking,
        }
    }
}

/// The places for each purpose. A place is the right to use a connection.
pub(super) struct Places {
    all: Arc<Semaphore>,
    /// Places for writes. If there are five connections or more, it is one less than all,
    /// so that writes that all wait leave a place for loads.
    writing: Arc<Semaphore>,
    /// Places for statements that wait for one locked row.
    waiting: Semaphore,
    /// The number of callers that wait for one of these.
    queued: AtomicUsize,
    /// Places for changes outside of requests. They also need a place for writes.
    changing: Arc<Semaphore>,
    /// Places for queries outside of requests. Separate, so that changes can't block them.
    asking: Arc<Semaphore>,
    /// The place of the lookup of watched sessions, so that queries of an application can't
    /// delay it.
    watching: Arc<Semaphore>,
}

/// The places that a connection occupies until they are dropped.
pub(super) struct TakenPlaces {
    _any: Option<OwnedSemaphorePermit>,
    _writing: Option<OwnedSemaphorePermit>,
    _outside: Option<OwnedSemaphorePermit>,
}

impl Places {
    pub(super) fn of(connections: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(connections)),
            writing: Arc::new(Semaphore::new(writing_of(connections))),
            waiting: Semaphore::new((connections / 4).max(1)),
            queued: AtomicUsize::new(0),
            changing: Arc::new(Semaphore::new((connections / 4).max(1))),
            asking: Arc::new(Semaphore::new((connections / 4).max(1))),
            watching: Arc::new(Semaphore::new(1)),
        }
    }

    /// Takes the places of this purpose, in the order of the calls. If the future is
    /// dropped, so are the places that it has taken.
    pub(super) async fn take(&self, purpose: Purpose) -> Result<TakenPlaces, sqlx::Error> {
        let take = async |places: &Arc<Semaphore>, is_needed: bool| {
            if !is_needed {
                return Ok(None);
            }
            let place = Arc::clone(places).acquire_owned().await;
            place.map(Some).map_err(|_| sqlx::Error::PoolClosed)
        };
        // The scarcest place comes first, so that a caller that waits for it holds no other.
        let outside = match purpose {
            Purpose::Changing => take(&self.changing, true).await?,
            Purpose::Asking => take(&self.asking, true).await?,
            Purpose::Watching => take(&self.watching, true).await?,
            Purpose::Reading | Purpose::Writing | Purpose::Own => None,
        };
        let writes = matches!(purpose, Purpose::Writing | Purpose::Changing);
        let writing = take(&self.writing, writes).await?;
        Ok(TakenPlaces {
            _any: take(&self.all, purpose != Purpose::Own).await?,
            _writing: writing,
            _outside: outside,
        })
    }

    /// Waits for a place for a statement that waits for a locked row. If the future is dropped,
    /// its position in the queue is free.
    pub(super) async fn wait_for_a_row(&self) -> Option<SemaphorePermit<'_>> {
        let _queued = Queued::behind(&self.queued);
        self.waiting.acquire().await.ok()
    }

    /// Whether others wait for such a place.
    pub(super) fn are_queued_for_rows(&self) -> bool {
        self.queued.load(Relaxed) > 0
    }

    /// The number of connections that no statement uses.
    pub(super) fn free(&self) -> usize {
        self.all.available_permits()
    }
}

/// Counts a caller that waits for a place, until it is dropped.
struct Queued<'p>(&'p AtomicUsize);

impl<'p> Queued<'p> {
    fn behind(queued: &'p AtomicUsize) -> Self {
        queued.fetch_add(1, Relaxed);
        Self(queued)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

fn writing_of(all: usize) -> usize {
    if all < 5 { all } else { all - 1 }
}
