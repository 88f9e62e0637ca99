//! The connections that the store uses: at most a part of the pool, with places for each
//! purpose. It doesn't know what a statement does.
//!
//! How it works: [`Connections::acquire`] first takes the places of its purpose, in the order
//! of the calls, and then a connection: one that is kept since the last statement, or one of
//! the pool. After its statement the connection is kept for a moment, or returned to the pool.
//! A task, the [`Round`], returns kept connections that are no longer used.
//!
//! Dropped futures: the future of a statement can be dropped at any time, and then drops its
//! [`HeldConnection`]. The connection must not serve another statement before the server has
//! responded to this one. So a task takes it over, with its places. It waits for the response
//! for a moment, then has the server cancel the statement. When the server has responded, the
//! task probes the connection and returns it to the pool. It closes the connection if it is in
//! a transaction, or if it is unknown whether the statement has ended. Without a runtime there
//! is no task, and the connection is closed at once.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{Connection as _, PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::{
    runtime::Handle,
    sync::SemaphorePermit,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::store::connection::{
    acquire::{ConnectionSource, Own, Unproven, give_back},
    cancellations::{Cancellations, Verdict, Watched},
    peer::{Comparisons, Peer},
    primary::Primary,
    probe::{Backend, probe},
    purpose::{Places, Purpose, TakenPlaces},
};

/// How long a connection is kept after its last statement. To acquire one costs three
/// round trips, which a busy store saves. A quiet store returns all connections.
const KEEPING: Duration = Duration::from_millis(250);
/// How long a busy store keeps a connection at most. Only the pool closes connections that
/// are too old, and only when they are returned.
const LONGEST: Duration = Duration::from_secs(60);

/// How long the response to an abandoned statement may take before the server is asked to
/// cancel the statement.
const GRACE: Duration = Duration::from_millis(20);
/// How long an abandoned statement keeps its connection if it can't be known whether it
/// has ended.
const LONGEST_UNKNOWN: Duration = Duration::from_secs(2);
/// How long one response may take while a connection is put in order.
const PATIENCE: Duration = Duration::from_secs(1);

/// At most a part of the pool. Its connections are acquired in the order of the calls.
#[derive(Clone)]
pub(crate) struct Connections(Arc<Shared>);

struct Shared {
    source: ConnectionSource,
    limit: NonZeroU32,
    places: Places,
    cancellations: Arc<Cancellations>,
    kept: Mutex<Kept>,
}

/// Connections between two statements. The one that was used last is the last one.
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

/// Whether a task runs that returns kept connections.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Janitor {
    #[default]
    Off,
    On,
}

impl Connections {
    /// Uses three quarters of the pool. The rest is always free for the application's own
    /// queries.
    pub(in crate::store) fn most_of(pool: PgPool) -> Self {
        let limit = most_of(&pool);
        Self::build(ConnectionSource::new(pool, None, None), limit)
    }

    /// As [`most_of`](Self::most_of), for a pool of the store's own.
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

    /// The same pool with at most this many connections.
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
            places: Places::of(all),
            kept: Mutex::default(),
        }))
    }

    pub(in crate::store) fn pool(&self) -> &PgPool {
        &self.0.source.pool
    }

    /// What the checks for a pooler have found.
    pub(in crate::store) fn comparisons(&self) -> MutexGuard<'_, Comparisons> {
        self.0.source.comparisons()
    }

    pub(in crate::store) fn limit(&self) -> NonZeroU32 {
        self.0.limit
    }

    /// Returns a connection, as soon as its purpose has a place and the pool has one.
    /// Requests wait while the server can't be reached.
    ///
    /// # Errors
    ///
    /// Those of the pool and of the probe.
    pub(in crate::store) async fn acquire(
        &self,
        purpose: Purpose,
    ) -> Result<HeldConnection, sqlx::Error> {
        // If the future is dropped here, so are the places that it has taken.
        let taken = self.0.places.take(purpose).await?;
        // Other purposes are too rare for a connection that may have died meanwhile.
        let kept = match purpose {
            Purpose::Reading | Purpose::Writing => self.0.take_kept(),
            Purpose::Changing | Purpose::Asking | Purpose::Watching | Purpose::Own => None,
        };
        let (connection, backend, since) = match kept {
            Some(kept) => (kept.connection, kept.backend, kept.since),
            // Boxed, so that the futures of statements stay small. If the future is dropped
            // here, the places are free, and a connection of the pool returns to it or is
            // closed.
            None => Box::pin(self.0.acquire(purpose)).await?,
        };
        Ok(HeldConnection(Some(Held {
            connection: Some(connection),
            backend,
            since,
            shared: Arc::clone(&self.0),
            _taken: taken,
        })))
    }

    /// Waits for a place for a statement that waits for a locked row. There are few, so
    /// that such statements don't hold up all others.
    ///
    /// If the future is dropped, its position in the queue is free.
    pub(in crate::store) async fn wait_for_a_row(&self) -> Option<SemaphorePermit<'_>> {
        self.0.places.wait_for_a_row().await
    }

    /// Whether others [wait](Self::wait_for_a_row) for a place.
    pub(in crate::store) fn are_queued_for_rows(&self) -> bool {
        self.0.places.are_queued_for_rows()
    }

    /// Has the statement of this backend canceled as soon as it waits for a locked row.
    pub(in crate::store) fn watch(&self, backend: Backend) -> Option<Watched> {
        let is_direct = self.0.source.is_direct();
        is_direct.then(|| self.0.cancellations.watch(backend))
    }

    /// Whether the store can't cancel a statement, so that only limits of the server end
    /// it in time.
    pub(in crate::store) fn can_cancel_nothing(&self) -> bool {
        match self.0.source.comparisons().peer() {
            Peer::Unknown => true,
            Peer::Server => self.0.cancellations.had_no_connection(),
            Peer::Pooler => false,
        }
    }

    /// Whether other users of the pool have all its connections.
    pub(in crate::store) fn are_exhausted(&self) -> bool {
        let free = self.0.places.free();
        free > 0 && self.0.source.is_exhausted()
    }

    /// Logs that no connection was acquired in time. If all of them are in use, by this store or by
    /// others, the server is reachable, and nothing is logged.
    pub(in crate::store) fn log_unreachable(&self) {
        if self.0.places.free() > 0 && !self.0.source.is_exhausted() {
            self.0.source.log_failure(None);
        }
    }

    /// Makes all connections that are not in use prepare their statements again. If the
    /// future is dropped, those that did not respond yet are closed.
    pub(in crate::store) async fn clear_statements(&self) {
        let mut idle = Vec::new();
        let kept = std::mem::take(&mut self.0.kept().connections);
        idle.extend(kept.into_iter().map(|kept| Unproven::new(kept.connection)));
        while let Some(connection) = self.0.source.pool.try_acquire() {
            idle.push(Unproven::new(connection));
        }
        // At the same time, because each may be dead.
        let mut clearing = JoinSet::new();
        for mut connection in idle {
            clearing.spawn(async move {
                if let Ok(Ok(())) = timeout(PATIENCE, connection.clear_cached_statements()).await {
                    drop(connection.proven());
                }
            });
        }
        // If the future is dropped here, the set aborts the rest.
        while clearing.join_next().await.is_some() {}
    }

    /// Starts a search for the primary: the current server may no longer take writes.
    pub(in crate::store) fn suspect_failover(&self) {
        self.0.source.suspect_failover();
    }

    /// Returns all kept connections to the pool, because what happened to one may have
    /// happened to all.
    pub(in crate::store) fn evict_idle(&self) {
        self.0.give_back(|_| true);
    }
}

fn most_of(pool: &PgPool) -> NonZeroU32 {
    let all = of_pool(pool).get();
    NonZeroU32::new(all - all / 4).unwrap_or(NonZeroU32::MIN)
}

fn of_pool(pool: &PgPool) -> NonZeroU32 {
    NonZeroU32::new(pool.options().get_max_connections()).unwrap_or(NonZeroU32::MIN)
}

/// A connection in use. The future that uses it may be dropped at any moment. The connection
/// returns to the pool only after its statement has ended: sqlx forgets a `BEGIN` if its
/// future was dropped, and the next user of the connection would run inside of that
/// transaction.
///
/// When it is dropped, the server is asked to cancel its statement. Until the statement has
/// ended, the connection keeps its places.
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

    /// Keeps the connection for the next statement, which is likely to follow soon. Returns
    /// it to the pool if the application, or another store, would have no connection.
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

    /// Closes the connection at once, because it can't be used any more.
    pub(in crate::store) fn close(mut self) {
        drop(self.0.take());
    }

    /// Closes a connection that is lost. Its statement may still run, so its backend is
    /// terminated.
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

/// A connection and its places. When a [`HeldConnection`] is dropped, [`Held::go`] runs in
/// a task until the abandoned statement has ended. If that task is dropped, the connection
/// is closed.
struct Held {
    connection: Option<PoolConnection<Postgres>>,
    backend: Backend,
    since: Instant,
    shared: Arc<Shared>,
    _taken: TakenPlaces,
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
    /// The server has responded, and the connection can be used.
    Responded,
    /// The connection is lost, and the statement may still run.
    Lost,
    /// The statement can't run any more, or it is unknown whether it does.
    Unknown,
}

impl End {
    fn of_use_if(self, is_settled: bool) -> Self {
        match self {
            Self::Responded if !is_settled => Self::Unknown,
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
            End::Responded => self.put_in_order().await,
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
        if let Ok(end) = timeout(GRACE, until_it_responds(connection)).await {
            return end.of_use_if(!self.shared.cancellations.is_unsettled(self.backend));
        }
        if !self.shared.source.is_direct() {
            let end = timeout(LONGEST_UNKNOWN, until_it_responds(connection)).await;
            return end.unwrap_or(End::Unknown);
        }
        let given_up = self.shared.cancellations.give_up(self.backend);
        let end = tokio::select! {
            end = until_it_responds(connection) => end,
            verdict = given_up.settled() => match verdict {
                Verdict::OutOfReach => End::Lost,
                _ => End::Unknown,
            },
        };
        let is_closed = given_up.close().await.is_ok();
        let is_unsettled = self.shared.cancellations.is_unsettled(self.backend);
        end.of_use_if(is_closed && !is_unsettled)
    }

    /// Returns the connection to the pool, or closes it if it is in a transaction.
    async fn put_in_order(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let mut connection = Unproven::new(connection);
        match timeout(PATIENCE, probe(&mut connection)).await {
            Ok(Ok(Some(probe))) if !probe.is_in_a_transaction => drop(connection.proven()),
            Ok(Ok(_)) => drop(timeout(PATIENCE, connection.proven().close()).await),
            Ok(Err(_)) | Err(_) => {}
        }
    }
}

/// Reads the remaining responses of the server, and waits for a ping after them.
async fn until_it_responds(connection: &mut PgConnection) -> End {
    loop {
        match connection.ping().await {
            Ok(()) => return End::Responded,
            // The error of the statement, or of what follows in its transaction.
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

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the pool still has a free connection if all that are in use are kept.
    fn spares_one(&self) -> bool {
        let pool = &self.source.pool;
        let all = of_pool(pool);
        let in_use = (pool.size() as usize).saturating_sub(pool.num_idle());
        self.limit < all && in_use < all.get() as usize
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

    /// Returns the kept connections that `which` selects. It needs a runtime, as the pool
    /// does to take a connection back.
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

/// The task that returns connections that were not used for a while. It ends when none is
/// kept. If its runtime stops, `Drop` releases all kept connections, which belong to that
/// runtime.
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
    /// Takes the connections and the state of the task in one step. Otherwise a connection
    /// could be kept without a task that returns it.
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
