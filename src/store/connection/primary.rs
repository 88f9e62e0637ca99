//! The primary of several servers, and a pool that follows it. It knows no table and no
//! session.
//!
//! How it works: the pool connects to the server that was last found to take writes. If a
//! statement or a connection fails, a task asks all servers at the same time, until one of
//! them takes writes. If it is another one, the pool gets its address, and connections that
//! were opened earlier are no longer used.
//!
//! Dropped futures: only [`Primary::connect`] runs in its caller. If it is dropped, all
//! attempts to connect are dropped with it. The search is a task, which ends with its
//! runtime or when the pool is closed; the next failure starts another one.

use std::{
    error::Error as StdError,
    fmt,
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
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    Error, ErrorKind,
    random_fraction::random_fraction,
    store::connection::{
        TIMEOUT,
        connecting::{explained, socket},
        encryption::warn_where_there_is_none,
        probe::is_read_only,
    },
};

/// How long one server has to show whether it takes writes.
const PATIENCE: Duration = Duration::from_secs(2);
/// The shortest pause between two attempts at a server, so that processes are no burden for
/// a server that is just starting.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest time of a search. After that, the next failure starts another one.
const LONGEST_SEARCH: Duration = Duration::from_secs(30);

/// The servers of the store's own pool, of which one takes writes.
pub(in crate::store) struct Primary {
    servers: Vec<PgConnectOptions>,
    current: AtomicUsize,
    since: Arc<Since>,
    search: AtomicBool,
    pool: PgPool,
}

/// When the current server was found. Connections that were opened earlier may lead to a
/// server that takes no writes any more and returns old sessions.
type Since = watch::Sender<Instant>;

impl Primary {
    /// # Errors
    ///
    /// If none of the servers takes writes within the time for one statement. At once if
    /// all of them refuse the connection for a reason that stays.
    pub(in crate::store) async fn connect(
        servers: Vec<PgConnectOptions>,
    ) -> Result<Arc<Self>, Error> {
        let since = Arc::new(Since::new(Instant::now()));
        let mut seen = Seen::of(&servers);
        let found = timeout(TIMEOUT, search(&servers, &mut seen, Unless::AllRefuse)).await;
        let Some(current) = found.ok().flatten() else {
            return Err(seen.into());
        };
        let pool = options(&since).connect_lazy_with(servers[current].clone());
        Ok(Arc::new(Self {
            servers,
            current: AtomicUsize::new(current),
            since,
            search: AtomicBool::new(false),
            pool,
        }))
    }

    pub(in crate::store) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Whether a connection that was opened at this time leads to the current server.
    pub(in crate::store) fn was_known(&self, at: Instant) -> bool {
        at >= *self.since.borrow()
    }

    /// Notifies of each change of the primary from now on.
    pub(in crate::store) fn moves(&self) -> watch::Receiver<Instant> {
        self.since.subscribe()
    }

    /// Starts a task that searches for the primary, unless one is running.
    pub(in crate::store) fn seek(self: &Arc<Self>) {
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
                "the primary has changed; sessions now use another server"
            );
        }
    }
}

/// The task that searches for the primary. There is one at a time.
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
        let servers = &self.0.servers;
        let mut seen = Seen::of(servers);
        let search = search(servers, &mut seen, Unless::TimeIsUp);
        match timeout(LONGEST_SEARCH, search).await.ok().flatten() {
            Some(found) => {
                self.0.follow(found);
                // The next search can't start before this ends, after two seconds at most.
                warn_where_there_is_none(&servers[found]).await;
            }
            None => tracing::warn!(%seen, "no server was found that takes writes"),
        }
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.0.search.store(false, Relaxed);
    }
}

/// When a search without a result ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Unless {
    /// As soon as all servers refuse the connection for a reason that stays.
    AllRefuse,
    /// At its time limit, because a server that is being set up may refuse connections
    /// for a while.
    TimeIsUp,
}

/// Asks all servers, each in a task, until one takes writes. If the future is dropped, so
/// are the tasks.
async fn search(servers: &[PgConnectOptions], seen: &mut Seen, unless: Unless) -> Option<usize> {
    let (report, mut reports) = mpsc::channel(servers.len());
    let mut searches = JoinSet::new();
    for (index, server) in servers.iter().cloned().enumerate() {
        searches.spawn(ask(index, server, report.clone()));
    }
    drop(report);
    while let Some((index, outcome)) = reports.recv().await {
        match outcome {
            Ok(()) => return Some(index),
            Err(error) => seen.errors[index] = Some(error),
        }
        if unless == Unless::AllRefuse && seen.all_refuse() {
            return None;
        }
    }
    None
}

type Report = mpsc::Sender<(usize, Result<(), Error>)>;

async fn ask(index: usize, server: PgConnectOptions, report: Report) {
    loop {
        let outcome = takes_writes(&server).await;
        if report.send((index, outcome)).await.is_err() {
            return;
        }
        tokio::time::sleep(PAUSE.mul_f64(1.0 + random_fraction())).await;
    }
}

/// # Errors
///
/// If the server can't be reached or takes no writes.
async fn takes_writes(server: &PgConnectOptions) -> Result<(), Error> {
    let question = async {
        let mut connection = server.connect().await?;
        let is_read_only = is_read_only(&mut connection).await?;
        connection.close().await?;
        Ok::<_, sqlx::Error>(is_read_only)
    };
    match timeout(PATIENCE, question).await {
        Ok(Ok(false)) => Ok(()),
        Ok(Ok(true)) => Err(Error::new(ErrorKind::Unavailable, "it takes no writes")),
        Ok(Err(error)) => Err(explained(error, server).into()),
        Err(_) => Err(Error::new(
            ErrorKind::Unavailable,
            "it did not respond within 2 seconds",
        )),
    }
}

/// The last error of each server that was asked.
#[derive(Debug)]
struct Seen {
    servers: Vec<String>,
    errors: Vec<Option<Error>>,
}

impl Seen {
    fn of(servers: &[PgConnectOptions]) -> Self {
        let name = |server: &PgConnectOptions| match socket(server) {
            Some(folder) => format!("{}:{}", folder.display(), server.get_port()),
            None => format!("{}:{}", server.get_host(), server.get_port()),
        };
        Self {
            servers: servers.iter().map(name).collect(),
            errors: servers.iter().map(|_| None).collect(),
        }
    }

    fn refusals(&self) -> usize {
        let errors = self.errors.iter().flatten();
        errors
            .filter(|error| error.kind() == ErrorKind::Setup)
            .count()
    }

    fn all_refuse(&self) -> bool {
        self.refusals() == self.servers.len()
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (server, error)) in self.servers.iter().zip(&self.errors).enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            write!(f, "{separator}{server}: ")?;
            match error {
                Some(error) => write!(f, "{error}")?,
                None => f.write_str("it was not reached in time")?,
            }
            if let Some(source) = error.as_ref().and_then(StdError::source) {
                write!(f, " ({source})")?;
            }
        }
        Ok(())
    }
}

impl StdError for Seen {}

impl From<Seen> for Error {
    /// It is of kind `Setup` if a server refused the connection, because that reason stays.
    fn from(seen: Seen) -> Self {
        let kind = match seen.refusals() {
            0 => ErrorKind::Unavailable,
            _ => ErrorKind::Setup,
        };
        Self::caused(kind, NOWHERE, seen)
    }
}

fn options(since: &Arc<Since>) -> PgPoolOptions {
    let since = Arc::clone(since);
    PgPoolOptions::new()
        .acquire_timeout(TIMEOUT)
        .after_connect(|connection, _| {
            Box::pin(async move {
                match is_read_only(connection).await? {
                    true => Err(sqlx::Error::Configuration(NOWHERE.into())),
                    false => Ok(()),
                }
            })
        })
        .before_acquire(move |_, connection| {
            let is_current = connection.age <= since.borrow().elapsed();
            Box::pin(async move { Ok(is_current) })
        })
}

const NOWHERE: &str = "no server was found that takes writes";

impl fmt::Debug for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Primary")
            .field("servers", &self.servers.len())
            .field("current", &self.current)
            .finish_non_exhaustive()
    }
}
