//! Which of several servers takes the writes, and a pool that follows it.

use std::{
    fmt,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Connection as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    Error, ErrorKind,
    store::{TIMEOUT, inspect::is_read_only, save::random_fraction},
};

/// How long one server may take to say whether it takes writes.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at a server, at the least: a process is to be no
/// burden for a server that is just coming up.
const PAUSE: Duration = Duration::from_millis(250);
/// After that the next request that fails looks again.
const LONGEST_SEARCH: Duration = Duration::from_secs(30);

/// The servers of a pool that is ours, of which one takes the writes.
pub(super) struct Primary {
    servers: Vec<PgConnectOptions>,
    current: AtomicUsize,
    since: Arc<Since>,
    search: AtomicBool,
    pool: PgPool,
}

/// When the current server was found. What was connected before may lead to
/// one that takes no writes any more, and answers with old sessions.
type Since = watch::Sender<Instant>;

impl Primary {
    /// # Errors
    ///
    /// When none of the servers takes writes within the time for one
    /// statement.
    pub(super) async fn connect(servers: Vec<PgConnectOptions>) -> Result<Arc<Self>, Error> {
        let since = Arc::new(Since::new(Instant::now()));
        let current = timeout(TIMEOUT, search(&servers))
            .await
            .map_err(|_| nowhere())?;
        let pool = options(&since).connect_lazy_with(servers[current].clone());
        Ok(Arc::new(Self {
            servers,
            current: AtomicUsize::new(current),
            since,
            search: AtomicBool::new(false),
            pool,
        }))
    }

    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Whether what was connected then leads to the current server.
    pub(super) fn was_known(&self, at: Instant) -> bool {
        at >= *self.since.borrow()
    }

    /// Tells of each move to another server from now on.
    pub(super) fn moves(&self) -> watch::Receiver<Instant> {
        self.since.subscribe()
    }

    /// Looks for the server that takes the writes, unless that is under way.
    pub(super) fn seek(self: &Arc<Self>) {
        if !self.search.swap(true, Relaxed) {
            tokio::spawn(Search(Arc::clone(self)).go());
        }
    }

    fn follow(&self, found: usize) {
        if self.current.swap(found, Relaxed) != found {
            self.pool.set_connect_options(self.servers[found].clone());
            self.since.send_replace(Instant::now());
            tracing::warn!(
                server.address = self.servers[found].get_host(),
                server.port = self.servers[found].get_port(),
                "sessions are kept on another server from now on, which takes the writes"
            );
        }
    }
}

/// The one task that looks for the server, if any does.
struct Search(Arc<Primary>);

impl Search {
    async fn go(self) {
        let closed = self.0.pool.close_event();
        tokio::select! {
            () = closed => {}
            () = self.follow() => tokio::time::sleep(PAUSE).await,
        }
    }

    async fn follow(&self) {
        if let Ok(found) = timeout(LONGEST_SEARCH, search(&self.0.servers)).await {
            self.0.follow(found);
        }
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.0.search.store(false, Relaxed);
    }
}

/// Asks each server until one takes writes; one that is silent keeps no other
/// from being asked.
async fn search(servers: &[PgConnectOptions]) -> usize {
    let mut searches = JoinSet::new();
    for (index, server) in servers.iter().cloned().enumerate() {
        searches.spawn(async move {
            until_it_takes_writes(server).await;
            index
        });
    }
    match searches.join_next().await {
        Some(Ok(found)) => found,
        _ => pending().await,
    }
}

async fn until_it_takes_writes(server: PgConnectOptions) {
    while !takes_writes(server.clone()).await {
        tokio::time::sleep(PAUSE.mul_f64(1.0 + random_fraction())).await;
    }
}

async fn takes_writes(server: PgConnectOptions) -> bool {
    let question = async {
        let mut connection = server.connect().await?;
        let is_read_only = is_read_only(&mut connection).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(!is_read_only)
    };
    matches!(timeout(PATIENCE, question).await, Ok(Ok(true)))
}

fn options(since: &Arc<Since>) -> PgPoolOptions {
    let since = Arc::clone(since);
    PgPoolOptions::new()
        .acquire_timeout(TIMEOUT)
        .after_connect(|connection, _| {
            Box::pin(async move {
                match is_read_only(connection).await? {
                    true => Err(sqlx::Error::Configuration(nowhere().into())),
                    false => Ok(()),
                }
            })
        })
        .before_acquire(move |_, connection| {
            let is_current = connection.age <= since.borrow().elapsed();
            Box::pin(async move { Ok(is_current) })
        })
}

fn nowhere() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "no server was found that takes writes",
    )
}

impl fmt::Debug for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Primary")
            .field("servers", &self.servers.len())
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}
