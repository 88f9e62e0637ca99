//! Acquires a connection of the pool and releases it, also while the network or the server
//! fails. It doesn't know what the connection is for, nor how many the store may use.
//!
//! How it works: [`ConnectionSource::acquire`] makes attempts until one succeeds or its
//! caller stops waiting. An attempt takes a connection of the pool and probes it. If that
//! takes longer than recent round trips suggest, the connection is presumed dead: all idle
//! connections of the pool are closed, and the next attempt opens a new one. While other
//! users have all connections of the pool, an attempt keeps its position in the pool's
//! queue. If the server can't be reached, the next attempt follows after a pause. If the
//! primary changes, the next attempt begins at once.

use std::{
    future::pending,
    ops::{Deref, DerefMut},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::store::connection::{
    connecting::{explained, fault},
    peer::{Comparisons, Peer},
    primary::Primary,
    probe::{Backend, Probe, ask, probe},
    round_trip::RoundTrip,
};

/// The shortest time that a connection of the pool has to respond.
const TO_RESPOND: Duration = Duration::from_millis(250);
/// The pool pings the connection, and then it is probed. Each response may take twice as
/// long as recently.
const ROUND_TRIPS_TO_RESPOND: u32 = 4;
/// The shortest time that a new connection has before the next attempt. It doubles, so that
/// a server that accepts connections slowly can be reached, and an overloaded server doesn't
/// get more and more attempts.
const TO_CONNECT: Duration = Duration::from_millis(500);
/// TCP, TLS, the password and the probe.
const ROUND_TRIPS_TO_CONNECT: u32 = 8;
/// A network that was slow recently may be dead now.
const LONGEST_ATTEMPT: Duration = Duration::from_secs(2);
/// The pause after the first attempt to connect that failed. It doubles.
const PAUSE: Duration = Duration::from_millis(10);
/// The longest pause, so that a server that is back is soon used again.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// How long the response to a ping may take.
const PING: Duration = Duration::from_secs(1);

type Acquired = Result<(PoolConnection<Postgres>, Backend), sqlx::Error>;

/// The pool, and what is known about the server behind it.
pub(in crate::store) struct ConnectionSource {
    pub(in crate::store) pool: PgPool,
    /// If the pool is the store's own and has several servers to choose from.
    pub(in crate::store) primary: Option<Arc<Primary>>,
    /// If the pool is the store's own.
    pub(in crate::store) own: Option<Arc<Own>>,
    comparisons: Mutex<Comparisons>,
    round_trip: RoundTrip,
    /// Whether the last attempt to connect failed.
    is_unreachable: AtomicBool,
}

/// The limits that the server applies to connections of the store's own pool:
/// `statement_timeout`, `lock_timeout`, `idle_in_transaction_session_timeout`
/// and `client_connection_check_interval`. They end statements of a process that was
/// killed, or that the network separates from the server.
///
/// They are set together with the [`probe`], which costs no round trip. They are no startup
/// parameters, because a pooler refuses those, and they would override the settings of the
/// role. A limit that is already set stays as it is. Behind a pooler none is set, because its
/// connections serve other clients too. The limits that were set here are also stored in
/// parameters with the prefix `axum_pg_session`. So a longer timeout can raise them on open
/// connections.
pub(in crate::store) struct Own {
    /// The longest timeout of the stores that share the pool, in milliseconds.
    longest: AtomicU64,
    /// Whether the server refused the limits. Some systems have no
    /// `client_connection_check_interval`.
    are_refused: AtomicBool,
}

/// The server's limits end later than the store's deadline, whose error has more detail.
const AFTER_THE_DEADLINE: Duration = Duration::from_secs(1);

impl Own {
    pub(in crate::store) fn new(timeout: Duration) -> Arc<Self> {
        let own = Self {
            longest: AtomicU64::new(0),
            are_refused: AtomicBool::new(false),
        };
        own.lasts(timeout);
        Arc::new(own)
    }

    /// Raises the limits to allow at least this timeout. Returns whether they were raised.
    pub(in crate::store) fn lasts(&self, timeout: Duration) -> bool {
        let limit = (timeout + AFTER_THE_DEADLINE).as_millis();
        // The largest that Postgres takes.
        let limit = limit.min(i32::MAX.unsigned_abs().into());
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        self.longest.fetch_max(limit, Relaxed) < limit
    }

    fn probe(&self) -> String {
        let limit = format!("'{}'", self.longest.load(Relaxed));
        include_str!("../sql/probe_own.sql").replace("$1", &limit)
    }
}

impl ConnectionSource {
    pub(in crate::store) fn new(
        pool: PgPool,
        primary: Option<Arc<Primary>>,
        own: Option<Arc<Own>>,
    ) -> Self {
        Self {
            pool,
            primary,
            own,
            comparisons: Mutex::default(),
            round_trip: RoundTrip::default(),
            is_unreachable: AtomicBool::new(false),
        }
    }

    pub(in crate::store) fn comparisons(&self) -> MutexGuard<'_, Comparisons> {
        self.comparisons
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether each connection has a process of the server to itself.
    pub(in crate::store) fn is_direct(&self) -> bool {
        self.comparisons().peer() == Peer::Server
    }

    /// Makes attempts as long as the caller waits, so that no request fails if the server
    /// comes back in time. The pool itself only tries again if connections are refused,
    /// and waits for a dead connection until the operating system gives up.
    ///
    /// If the future is dropped, the attempt is dropped, see [`attempt`](Self::attempt).
    ///
    /// # Errors
    ///
    /// If another attempt would be pointless.
    pub(in crate::store) async fn acquire(&self) -> Acquired {
        let mut moves = self.primary.as_ref().map(|primary| primary.moves());
        let to_respond = patience(TO_RESPOND, ROUND_TRIPS_TO_RESPOND, &self.round_trip);
        let mut to_connect = patience(TO_CONNECT, ROUND_TRIPS_TO_CONNECT, &self.round_trip);
        let mut pause = PAUSE;
        loop {
            let has_idle = self.pool.num_idle() > 0;
            let patience = if has_idle { to_respond } else { to_connect };
            let attempt = tokio::select! {
                attempt = self.attempt(has_idle, patience) => attempt,
                () = moved(moves.as_mut()) => continue,
            };
            match attempt {
                Attempt::Ended(Err(error)) if may_pass(&error) => {
                    self.log_failure(Some(&error));
                    self.suspect_failover();
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = moved(moves.as_mut()) => {}
                    }
                    pause = LONGEST_PAUSE.min(2 * pause);
                }
                Attempt::Ended(acquired) => {
                    if acquired.is_ok() && self.is_unreachable.swap(false, Relaxed) {
                        tracing::info!("the database can be reached again");
                    }
                    return acquired;
                }
                Attempt::Hangs if has_idle => self.give_up_idle(),
                Attempt::Hangs => to_connect *= 2,
            }
        }
    }

    /// The first failure of an outage is a warning, because the errors of the requests only say
    /// that their time is up.
    pub(in crate::store) fn log_failure(&self, error: Option<&sqlx::Error>) {
        let error = error.map(tracing::field::display);
        if self.is_unreachable.swap(true, Relaxed) {
            tracing::debug!(error, "the database still can't be reached; retrying");
            return;
        }
        let options = self.pool.connect_options();
        tracing::warn!(
            error,
            server.address = options.get_host(),
            server.port = options.get_port(),
            "the database can't be reached; retrying"
        );
    }

    /// Makes one attempt. It lasts longer than `patience` if all connections are in use,
    /// because a new attempt would lose its position in the pool's queue. But if one was idle,
    /// this attempt has taken it, and it may be the last one of a small pool.
    ///
    /// If the future is dropped while the pool pings or opens a connection, or during the
    /// probe, that connection is closed.
    async fn attempt(&self, has_idle: bool, patience: Duration) -> Attempt {
        let mut acquired = pin!(self.acquire_once());
        let began = Instant::now();
        loop {
            if let Ok(acquired) = timeout(TO_RESPOND, &mut acquired).await {
                return Attempt::Ended(acquired);
            }
            self.suspect_failover();
            if began.elapsed() >= patience && (has_idle || !self.is_exhausted()) {
                return Attempt::Hangs;
            }
        }
    }

    /// Takes a connection of the pool, and closes it if it was left in a transaction.
    ///
    /// # Errors
    ///
    /// Those of the pool and of the probe.
    pub(in crate::store) async fn acquire_once(&self) -> Acquired {
        loop {
            let acquired = self.pool.acquire().await;
            let acquired = acquired.map_err(|e| explained(e, &self.pool.connect_options()))?;
            let mut connection = Unproven::new(acquired);
            let asked = Instant::now();
            match self.probe(&mut connection).await? {
                Some(probe) if !probe.is_in_a_transaction => {
                    self.round_trip.observe(asked.elapsed());
                    return Ok((connection.proven(), probe.backend));
                }
                _ => {}
            }
            tracing::warn!(
                "a connection came out of the pool in an open transaction, and was closed: \
                 perhaps a future of `begin` was dropped before its end"
            );
        }
    }

    /// Probes the connection. Also sets the limits if the pool is the store's own.
    async fn probe(&self, connection: &mut PgConnection) -> Result<Option<Probe>, sqlx::Error> {
        let own = self.own.as_ref().filter(|_| self.is_direct());
        let Some(own) = own.filter(|own| !own.are_refused.load(Relaxed)) else {
            return probe(connection).await;
        };
        match ask(connection, AssertSqlSafe(own.probe())).await {
            // The error is about a value or a name, not about a server that stops.
            Err(sqlx::Error::Database(error))
                if error
                    .code()
                    .is_some_and(|code| code.starts_with("22") || code.starts_with("42")) =>
            {
                tracing::debug!(%error, "the server does not limit the statements of this pool");
                own.are_refused.store(true, Relaxed);
                probe(connection).await
            }
            asked => asked,
        }
    }

    pub(in crate::store) fn is_exhausted(&self) -> bool {
        let all = self.pool.options().get_max_connections();
        self.pool.size() >= all && self.pool.num_idle() == 0
    }

    /// Closes all idle connections. The pool would ping them one by one, each without a
    /// time limit.
    fn give_up_idle(&self) {
        while let Some(connection) = self.pool.try_acquire() {
            drop(connection.detach());
        }
    }

    /// Starts a search for the primary, if there are several servers.
    pub(in crate::store) fn suspect_failover(&self) {
        if let Some(primary) = &self.primary {
            primary.seek();
        }
    }
}

fn patience(least: Duration, round_trips: u32, round_trip: &RoundTrip) -> Duration {
    let enough = round_trip.recent().saturating_mul(round_trips);
    enough.clamp(least, LONGEST_ATTEMPT)
}

enum Attempt {
    Ended(Acquired),
    Hangs,
}

async fn moved(moves: Option<&mut watch::Receiver<Instant>>) {
    let has_moved = match moves {
        Some(moves) => moves.changed().await.is_ok(),
        None => false,
    };
    if !has_moved {
        pending::<()>().await;
    }
}

/// Whether a later attempt may succeed. That includes errors of another program that
/// listens at the server's address meanwhile.
fn may_pass(error: &sqlx::Error) -> bool {
    if fault(error).is_some() {
        return false;
    }
    match error {
        sqlx::Error::Io(_) => true,
        // A pooler reports in class 08 that it can't reach the server.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code.starts_with("57P") || code.starts_with("08") || matches!(&*code, "25P03" | "25P04")
        }),
        _ => false,
    }
}

/// A connection whose server has not responded yet. If it is dropped, it is closed.
///
/// The pool would take it back and ping it without a time limit. As long as a dead
/// connection is pinged, the pool has one connection less: until the operating system gives
/// up, which takes a quarter of an hour if the network drops all packets.
pub(in crate::store) struct Unproven(Option<PoolConnection<Postgres>>);

impl Unproven {
    pub(in crate::store) fn new(connection: PoolConnection<Postgres>) -> Self {
        Self(Some(connection))
    }

    /// The server has responded.
    pub(in crate::store) fn proven(mut self) -> PoolConnection<Postgres> {
        self.0.take().expect(IS_TAKEN_BY_VALUE)
    }
}

const IS_TAKEN_BY_VALUE: &str = "the connection is only taken with the guard";

impl Deref for Unproven {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_deref().expect(IS_TAKEN_BY_VALUE)
    }
}

impl DerefMut for Unproven {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_deref_mut().expect(IS_TAKEN_BY_VALUE)
    }
}

impl Drop for Unproven {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}

/// Returns the connection to the pool if it responds, and closes it otherwise.
pub(in crate::store) async fn give_back(connection: PoolConnection<Postgres>) {
    let mut connection = Unproven::new(connection);
    if let Ok(Ok(())) = timeout(PING, connection.ping()).await {
        drop(connection.proven());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience_if_responses_take(took: Duration) -> [Duration; 2] {
        let round_trip = RoundTrip::default();
        round_trip.observe(took);
        [
            patience(TO_RESPOND, ROUND_TRIPS_TO_RESPOND, &round_trip),
            patience(TO_CONNECT, ROUND_TRIPS_TO_CONNECT, &round_trip),
        ]
    }

    #[test]
    fn a_server_nearby_has_a_quarter_and_half_a_second() {
        for took in [Duration::ZERO, Duration::from_millis(60)] {
            let [to_respond, to_connect] = patience_if_responses_take(took);
            assert_eq!((to_respond, to_connect), (TO_RESPOND, TO_CONNECT));
        }
    }

    #[test]
    fn a_server_that_is_far_has_as_many_round_trips_as_it_needs() {
        let far = Duration::from_millis(150);
        assert_eq!(patience_if_responses_take(far), [4 * far, 8 * far]);
    }

    #[test]
    fn nothing_that_was_slow_once_is_waited_for_longer_than_two_seconds() {
        let stopped = Duration::from_secs(3600);
        assert_eq!(patience_if_responses_take(stopped), [LONGEST_ATTEMPT; 2]);
    }
}
