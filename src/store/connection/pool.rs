//! The connections that statements of requests borrow from the application's
//! pool.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use sqlx::{Connection as _, PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use crate::store::connection::{
    acquire::{ConnectionSource, Own, give_back},
    cancellations::{Cancellations, Verdict, Watched},
    peer::{Comparisons, Peer},
    primary::Primary,
    probe::{Backend, probe},
};

/// How long a connection is kept after its last statement. Borrowing one costs
/// three round trips, which a busy store saves in this way; a quiet one gives
/// everything back.
const KEEPING: Duration = Duration::from_millis(250);
/// How long a busy store goes without giving a connection back: the pool
/// closes only what it has when it is too old.
const LONGEST: Duration = Duration::from_secs(60);

/// How long the answer to a statement that was given up may take before the
/// server is told to end it.
const GRACE: Duration = Duration::from_millis(20);
/// How long a statement that was given up keeps its connection where nobody
/// can tell whether it has ended.
const LONGEST_UNKNOWN: Duration = Duration::from_secs(2);
/// For one answer of a connection that is put in order.
const PATIENCE: Duration = Duration::from_secs(1);

/// At most a part of the pool, lent in the order of asking.
#[derive(Clone)]
pub(crate) struct Connections(Arc<Shared>);

struct Shared {
    source: ConnectionSource,
    limit: NonZeroU32,
    permits: Arc<Semaphore>,
    /// Of five or more one less, so that changes that all wait for something
    /// leave a place for loads.
    writing: Arc<Semaphore>,
    /// For statements that wait for one locked row.
    waiting: Semaphore,
    /// How many wait for one of these.
    queued: AtomicUsize,
    /// For what an application changes outside of requests, a part of the writing.
    managing: Arc<Semaphore>,
    /// For its queries there. Separate, so that changes can't block them.
    asking: Arc<Semaphore>,
    cancellations: Arc<Cancellations>,
    kept: Mutex<Kept>,
}

/// Connections between two statements, the last used last.
#[derive(Default)]
struct Kept {
    connections: Vec<IdleConnection>,
    janitor: Janitor,
}

struct IdleConnection {
    connection: PoolConnection<Postgres>,
    backend: Backend,
    since: Instant,
    last_used: Instant,
}

/// Whether a task is there that gives back what is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Janitor {
    #[default]
    Off,
    On,
}

/// What a connection is acquired for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::store) enum Purpose {
    Reading,
    Writing,
    /// Changes that an application makes outside of requests.
    Managing,
    /// Its queries outside of requests.
    Asking,
    /// Work of the store itself, such as a look at the table, which takes no place
    /// of requests.
    Own,
}

/// A part of what the store may use of the pool.
struct Places {
    _any: Option<OwnedSemaphorePermit>,
    _writing: Option<OwnedSemaphorePermit>,
    _outside: Option<OwnedSemaphorePermit>,
}

impl Connections {
    /// Three quarters of the pool, so that the application's own queries find
    /// the rest whatever the sessions do.
    pub(in crate::store) fn most_of(pool: PgPool) -> Self {
        let limit = most_of(&pool);
        Self::build(ConnectionSource::new(pool, None, None), limit)
    }

    /// As [`most_of`](Self::most_of), where the pool is the store's own.
    pub(in crate::store) fn own(pool: PgPool, timeout: Duration) -> Self {
        let limit = most_of(&pool);
        Self::build(
            ConnectionSource::new(pool, None, Some(Own::new(timeout))),
            limit,
        )
    }

    pub(in crate::store) fn to(primary: Arc<Primary>, timeout: Duration) -> Self {
        let pool = primary.pool().clone();
        let limit = most_of(&pool);
        let own = Own::new(timeout);
        Self::build(ConnectionSource::new(pool, Some(primary), Some(own)), limit)
    }

    /// Raises the server's limits to allow this timeout.
    pub(in crate::store) fn last(&self, timeout: Duration) {
        if let Some(own) = &self.0.source.own
            && own.lasts(timeout)
            && Handle::try_current().is_ok()
        {
            // Idle connections still have the former limits.
            self.evict_idle();
        }
    }

    /// As many of the same pool, at the most.
    pub(in crate::store) fn limited_to(&self, limit: NonZeroU32) -> Self {
        let ConnectionSource {
            pool, primary, own, ..
        } = &self.0.source;
        let limit = limit.min(of_pool(pool));
        Self::build(
            ConnectionSource::new(pool.clone(), primary.clone(), own.clone()),
            limit,
        )
    }

    fn build(source: ConnectionSource, limit: NonZeroU32) -> Self {
        let all = limit.get() as usize;
        Self(Arc::new(Shared {
            cancellations: Cancellations::new(source.pool.clone()),
            source,
            limit,
            permits: Arc::new(Semaphore::new(all)),
            writing: Arc::new(Semaphore::new(writing_of(all))),
            waiting: Semaphore::new((all / 4).max(1)),
            queued: AtomicUsize::new(0),
            managing: Arc::new(Semaphore::new((all / 4).max(1))),
            asking: Arc::new(Semaphore::new((all / 4).max(1))),
            kept: Mutex::default(),
        }))
    }

    pub(in crate::store) fn pool(&self) -> &PgPool {
        &self.0.source.pool
    }

    /// What the connections were found to lead to.
    pub(in crate::store) fn comparisons(&self) -> MutexGuard<'_, Comparisons> {
        self.0.source.comparisons()
    }

    pub(in crate::store) fn limit(&self) -> NonZeroU32 {
        self.0.limit
    }

    /// A connection, as soon as its purpose has a place and the pool has one. If
    /// the future is dropped, nothing is taken.
    ///
    /// # Errors
    ///
    /// Those of the pool, and of asking the connection. Requests wait while the
    /// server can't be reached.
    pub(in crate::store) async fn acquire(
        &self,
        purpose: Purpose,
    ) -> Result<HeldConnection, sqlx::Error> {
        let places = self.0.places(purpose).await?;
        // Others ask too rarely for one that may have died meanwhile.
        let kept = match purpose {
            Purpose::Reading | Purpose::Writing => self.0.take_kept(),
            Purpose::Managing | Purpose::Asking | Purpose::Own => None,
        };
        let (connection, backend, since) = match kept {
            Some(kept) => (kept.connection, kept.backend, kept.since),
            // Boxed, so that not every statement carries room for it.
            None => Box::pin(self.0.acquire(purpose)).await?,
        };
        Ok(HeldConnection(Some(Held {
            connection: Some(connection),
            backend,
            since,
            shared: Arc::clone(&self.0),
            _places: places,
        })))
    }

    /// A place for a statement that waits for a locked row: many of those must
    /// not keep the others waiting.
    pub(in crate::store) async fn wait_for_a_row(&self) -> Option<SemaphorePermit<'_>> {
        let _queued = Queued::behind(&self.0.queued);
        self.0.waiting.acquire().await.ok()
    }

    /// Whether others [wait](Self::wait_for_a_row) for a place.
    pub(in crate::store) fn are_queued_for_rows(&self) -> bool {
        self.0.queued.load(Relaxed) > 0
    }

    /// Ends the statement of this backend as soon as it waits for a locked row.
    pub(in crate::store) fn watch(&self, backend: Backend) -> Option<Watched> {
        let is_direct = self.0.source.is_direct();
        is_direct.then(|| self.0.cancellations.watch(backend))
    }

    /// Whether nothing could end a statement in time but the server itself.
    pub(in crate::store) fn can_cancel_nothing(&self) -> bool {
        match self.0.source.comparisons().peer() {
            Peer::Unknown => true,
            Peer::Server => self.0.cancellations.had_no_connection(),
            Peer::Pooler => false,
        }
    }

    /// Whether others have all connections of the pool.
    pub(in crate::store) fn are_exhausted(&self) -> bool {
        let free = self.0.permits.available_permits();
        free > 0 && self.0.source.is_exhausted()
    }

    /// Makes all connections that are not in use prepare their statements anew.
    pub(in crate::store) async fn clear_statements(&self) {
        let mut idle = Vec::new();
        let kept = std::mem::take(&mut self.0.kept().connections);
        idle.extend(kept.into_iter().map(|kept| kept.connection));
        while let Some(connection) = self.0.source.pool.try_acquire() {
            idle.push(connection);
        }
        for mut connection in idle {
            match timeout(PATIENCE, connection.clear_cached_statements()).await {
                Ok(Ok(())) => drop(connection),
                Ok(Err(_)) | Err(_) => drop(connection.detach()),
            }
        }
    }

    /// The server that it has asked may not take the writes any more.
    pub(in crate::store) fn suspect_failover(&self) {
        self.0.source.suspect_failover();
    }

    /// Gives back all that is kept: what happened to one may have happened to
    /// the others.
    pub(in crate::store) fn evict_idle(&self) {
        self.0.give_back(|_| true);
    }
}

/// One that waits for a place, until it is dropped.
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

fn most_of(pool: &PgPool) -> NonZeroU32 {
    let all = of_pool(pool).get();
    NonZeroU32::new(all - all / 4).unwrap_or(NonZeroU32::MIN)
}

fn of_pool(pool: &PgPool) -> NonZeroU32 {
    NonZeroU32::new(pool.options().get_max_connections()).unwrap_or(NonZeroU32::MIN)
}

/// A connection in use. The future that uses it may be dropped at any moment. The connection
/// returns to the pool only after its statement has ended: sqlx forgets a `BEGIN` whose
/// answer nobody waited for, and the next user of the connection would run inside of
/// that transaction.
///
/// When it is dropped, the server is to end its statement, and until it has, the
/// connection keeps its place.
pub(in crate::store) struct HeldConnection(Option<Held>);

impl HeldConnection {
    pub(in crate::store) fn connection(&mut self) -> &mut PgConnection {
        let held = self.0.as_mut();
        held.and_then(|held| held.connection.as_deref_mut())
            .expect("taken at the end only")
    }

    pub(in crate::store) fn backend(&self) -> Backend {
        self.0.as_ref().expect("taken at the end only").backend
    }

    /// For the next statement, which is likely to come at once. Never where
    /// that would leave the application, or another store, without a
    /// connection.
    pub(in crate::store) fn keep(mut self) {
        let Some(mut held) = self.0.take() else {
            return;
        };
        let Some(connection) = held.connection.take() else {
            return;
        };
        let pool = &held.shared.source.pool;
        let last_used = Instant::now();
        let is_young = last_used - held.since < LONGEST;
        if held.shared.spares_one() && is_young && !pool.is_closed() {
            held.shared.keep(IdleConnection {
                connection,
                backend: held.backend,
                since: held.since,
                last_used,
            });
        } else {
            tokio::spawn(give_back(connection));
        }
    }

    pub(in crate::store) fn release(mut self) {
        let connection = self.0.take().and_then(|mut held| held.connection.take());
        if let Some(connection) = connection {
            tokio::spawn(give_back(connection));
        }
    }

    /// The connection is of no use any more.
    pub(in crate::store) fn close(mut self) {
        drop(self.0.take());
    }

    /// The connection is lost; its statement may go on without it.
    pub(in crate::store) fn lose(mut self) {
        if let Some(held) = self.0.take()
            && held.shared.source.is_direct()
        {
            held.shared.cancellations.lose(held.backend);
        }
    }
}

impl Drop for HeldConnection {
    fn drop(&mut self) {
        if let (Some(ending), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(ending.go());
        }
    }
}

/// A connection whose statement nobody waits for any more, and the task that
/// waits for the end of that. The connection is of use again when the server
/// has answered; dropped without that, it is closed.
struct Held {
    connection: Option<PoolConnection<Postgres>>,
    backend: Backend,
    since: Instant,
    shared: Arc<Shared>,
    _places: Places,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

/// How the wait for an abandoned statement ended.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    /// The server has answered, and the connection can be used.
    Answered,
    /// The connection is lost, and the statement may go on.
    Lost,
    /// It can't go on, or nobody can tell.
    Unknown,
}

impl End {
    fn of_use_if(self, is_settled: bool) -> Self {
        match self {
            Self::Answered if !is_settled => Self::Unknown,
            end => end,
        }
    }
}

impl Held {
    async fn go(mut self) {
        let closed = self.shared.source.pool.close_event();
        let end = tokio::select! {
            () = closed => End::Unknown,
            end = self.end() => end,
        };
        match end {
            End::Answered => self.put_in_order().await,
            End::Lost if self.shared.source.is_direct() => {
                self.shared.cancellations.lose(self.backend);
            }
            End::Lost | End::Unknown => {}
        }
    }

    async fn end(&mut self) -> End {
        let Some(connection) = self.connection.as_deref_mut() else {
            return End::Unknown;
        };
        if let Ok(end) = timeout(GRACE, answered(connection)).await {
            return end.of_use_if(!self.shared.cancellations.is_unsettled(self.backend));
        }
        if !self.shared.source.is_direct() {
            let end = timeout(LONGEST_UNKNOWN, answered(connection)).await;
            return end.unwrap_or(End::Unknown);
        }
        let given_up = self.shared.cancellations.give_up(self.backend);
        let end = tokio::select! {
            end = answered(connection) => end,
            verdict = given_up.settled() => match verdict {
                Verdict::OutOfReach => End::Lost,
                _ => End::Unknown,
            },
        };
        let is_closed = given_up.close().await.is_ok();
        let is_unsettled = self.shared.cancellations.is_unsettled(self.backend);
        end.of_use_if(is_closed && !is_unsettled)
    }

    /// Back to the pool, unless it was left in a transaction.
    async fn put_in_order(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        match timeout(PATIENCE, probe(&mut connection)).await {
            Ok(Ok(Some(probe))) if !probe.is_in_a_transaction => drop(connection),
            Ok(Ok(_)) => drop(timeout(PATIENCE, connection.close()).await),
            Ok(Err(_)) | Err(_) => drop(connection.detach()),
        }
    }
}

/// Waits for what the server still has to say.
async fn answered(connection: &mut PgConnection) -> End {
    loop {
        match connection.ping().await {
            Ok(()) => return End::Answered,
            // That of the statement, or of what follows in its transaction.
            Err(sqlx::Error::Database(_)) => {}
            Err(_) => return End::Lost,
        }
    }
}

impl Shared {
    async fn acquire(
        &self,
        purpose: Purpose,
    ) -> Result<(PoolConnection<Postgres>, Backend, Instant), sqlx::Error> {
        let (connection, backend) = match purpose {
            Purpose::Own => self.source.acquire_once().await?,
            _ => self.source.acquire().await?,
        };
        Ok((connection, backend, Instant::now()))
    }

    /// Those who wait for a place are served in the order of asking.
    async fn places(&self, purpose: Purpose) -> Result<Places, sqlx::Error> {
        let take = async |places: &Arc<Semaphore>, is_needed: bool| {
            if !is_needed {
                return Ok(None);
            }
            let place = Arc::clone(places).acquire_owned().await;
            place.map(Some).map_err(|_| sqlx::Error::PoolClosed)
        };
        // The scarcest first: a caller that waits for it holds no other place.
        let outside = match purpose {
            Purpose::Managing => take(&self.managing, true).await?,
            Purpose::Asking => take(&self.asking, true).await?,
            Purpose::Reading | Purpose::Writing | Purpose::Own => None,
        };
        let writes = matches!(purpose, Purpose::Writing | Purpose::Managing);
        let writing = take(&self.writing, writes).await?;
        Ok(Places {
            _any: take(&self.permits, purpose != Purpose::Own).await?,
            _writing: writing,
            _outside: outside,
        })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the pool can lend another one while all that are lent now are
    /// kept.
    fn spares_one(&self) -> bool {
        let pool = &self.source.pool;
        let all = of_pool(pool);
        let lent = (pool.size() as usize).saturating_sub(pool.num_idle());
        self.limit < all && lent < all.get() as usize
    }

    fn take_kept(&self) -> Option<IdleConnection> {
        if self.source.pool.is_closed() {
            return None;
        }
        let kept = self.kept().connections.pop()?;
        match &self.source.primary {
            Some(primary) if !primary.was_known(kept.since) => None,
            _ => Some(kept),
        }
    }

    fn keep(self: &Arc<Self>, borrowed: IdleConnection) {
        let mut kept = self.kept();
        kept.connections.push(borrowed);
        if kept.janitor == Janitor::Off {
            kept.janitor = Janitor::On;
            drop(kept);
            tokio::spawn(Round(Arc::clone(self)).go());
        }
    }

    /// Where a runtime is at hand, which the pool needs to take something back.
    fn give_back(&self, which: impl Fn(Instant) -> bool) {
        let given: Vec<_> = self
            .kept()
            .connections
            .extract_if(.., |borrowed| which(borrowed.last_used))
            .collect();
        for borrowed in given {
            tokio::spawn(give_back(borrowed.connection));
        }
    }
}

/// The task that gives back what was not used for a while. It ends when
/// nothing is left, and with its runtime, to which the connections belong.
struct Round(Arc<Shared>);

impl Round {
    async fn go(self) {
        let closed = self.0.source.pool.close_event();
        tokio::select! {
            () = closed => {}
            () = self.until_nothing_is_kept() => {}
        }
    }

    async fn until_nothing_is_kept(&self) {
        loop {
            tokio::time::sleep(KEEPING).await;
            let now = Instant::now();
            self.0.give_back(|last_used| now - last_used >= KEEPING);
            let mut kept = self.0.kept();
            if kept.connections.is_empty() {
                kept.janitor = Janitor::Off;
                return;
            }
        }
    }
}

impl Drop for Round {
    /// In one step, or a connection could be kept with nobody to give it back.
    fn drop(&mut self) {
        let kept = std::mem::take(&mut *self.0.kept());
        drop(kept);
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("limit", &self.0.limit)
            .field("kept", &self.0.kept().connections.len())
            .finish_non_exhaustive()
    }
}
