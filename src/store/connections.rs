//! The connections that statements of requests borrow from the application's
//! pool.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{PgPool, Postgres, pool::PoolConnection};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use crate::store::{
    acquire::{Way, give_back},
    primary::Primary,
};

/// How long a connection is kept after its last statement. Borrowing one costs
/// three round trips, which a busy store saves in this way; a quiet one gives
/// everything back.
const KEEPING: Duration = Duration::from_millis(250);
/// How long a busy store goes without giving a connection back: the pool
/// closes only what it has when it is too old.
const LONGEST: Duration = Duration::from_secs(60);

/// At most a part of the pool, lent in the order of asking.
#[derive(Clone)]
pub(crate) struct Connections(Arc<Shared>);

struct Shared {
    way: Way,
    limit: NonZeroU32,
    permits: Semaphore,
    kept: Mutex<Kept>,
}

/// Connections between two statements, the last used last.
#[derive(Default)]
struct Kept {
    connections: Vec<Borrowed>,
    janitor: Janitor,
}

struct Borrowed {
    connection: PoolConnection<Postgres>,
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

/// A connection on loan; it goes back to the pool unless it is
/// [kept](Self::keep).
pub(super) struct Loan<'s> {
    pub(super) connection: PoolConnection<Postgres>,
    since: Instant,
    shared: &'s Arc<Shared>,
    _permit: SemaphorePermit<'s>,
}

impl Connections {
    /// Three quarters of the pool, so that the application's own queries find
    /// the rest whatever the sessions do.
    pub(super) fn most_of(pool: PgPool) -> Self {
        let limit = most_of(&pool);
        Self::build(pool, None, limit)
    }

    pub(super) fn to(primary: Arc<Primary>) -> Self {
        let pool = primary.pool().clone();
        let limit = most_of(&pool);
        Self::build(pool, Some(primary), limit)
    }

    /// As many of the same pool, at the most.
    pub(super) fn limited_to(&self, limit: NonZeroU32) -> Self {
        let Way { pool, primary, .. } = &self.0.way;
        let limit = limit.min(of_pool(pool));
        Self::build(pool.clone(), primary.clone(), limit)
    }

    fn build(pool: PgPool, primary: Option<Arc<Primary>>, limit: NonZeroU32) -> Self {
        Self(Arc::new(Shared {
            way: Way::new(pool, primary),
            limit,
            permits: Semaphore::new(limit.get() as usize),
            kept: Mutex::default(),
        }))
    }

    pub(super) fn pool(&self) -> &PgPool {
        &self.0.way.pool
    }

    /// For work that is no request's.
    ///
    /// # Errors
    ///
    /// Those of the pool, and of asking the connection.
    pub(super) async fn lend(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        self.0.way.lend().await
    }

    pub(super) fn limit(&self) -> NonZeroU32 {
        self.0.limit
    }

    pub(super) async fn borrow(&self) -> Result<Loan<'_>, sqlx::Error> {
        let permit = self.0.permits.acquire().await;
        let permit = permit.map_err(|_| sqlx::Error::PoolClosed)?;
        let (connection, since) = match self.0.take_kept() {
            Some(kept) => (kept.connection, kept.since),
            None => {
                // Boxed, so that not every statement carries room for it.
                let acquired = Box::pin(self.0.way.acquire());
                (acquired.await?, Instant::now())
            }
        };
        Ok(Loan {
            connection,
            since,
            shared: &self.0,
            _permit: permit,
        })
    }

    /// A connection that was no request's.
    pub(super) fn take_back(connection: PoolConnection<Postgres>) {
        tokio::spawn(give_back(connection));
    }

    /// The server that it has asked may not take the writes any more.
    pub(super) fn doubt(&self) {
        self.0.way.doubt();
    }

    /// Gives back all that is kept: what happened to one may have happened to
    /// the others.
    pub(super) fn forget(&self) {
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

impl Loan<'_> {
    /// For the next statement, which is likely to come at once. Never where
    /// that would leave the application, or another store, without a
    /// connection.
    pub(super) fn keep(self) {
        let pool = &self.shared.way.pool;
        let last_used = Instant::now();
        let is_young = last_used - self.since < LONGEST;
        if self.shared.spares_one() && is_young && !pool.is_closed() {
            self.shared.keep(Borrowed {
                connection: self.connection,
                since: self.since,
                last_used,
            });
        } else {
            tokio::spawn(give_back(self.connection));
        }
    }
}

impl Shared {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the pool can lend another one while all that are lent now are
    /// kept.
    fn spares_one(&self) -> bool {
        let pool = &self.way.pool;
        let all = of_pool(pool);
        let lent = (pool.size() as usize).saturating_sub(pool.num_idle());
        self.limit < all && lent < all.get() as usize
    }

    fn take_kept(&self) -> Option<Borrowed> {
        if self.way.pool.is_closed() {
            return None;
        }
        let kept = self.kept().connections.pop()?;
        match &self.way.primary {
            Some(primary) if !primary.was_known(kept.since) => None,
            _ => Some(kept),
        }
    }

    fn keep(self: &Arc<Self>, borrowed: Borrowed) {
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
        let closed = self.0.way.pool.close_event();
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
