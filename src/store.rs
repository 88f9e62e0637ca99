//! The store: everything that reads and writes the table of sessions. It knows no HTTP.
//!
//! This file has [`PgSessionStore`] and its settings. Each setting builds a new store with new
//! queues and batches, which shares the pool. See docs/internals/architecture.md for the folders.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio::{sync::watch, time::Instant};

use crate::{
    Counters, Error, Login, SessionLimitPolicy,
    event::{Hook, SessionEvent},
    format::{Format, express::Express, koa::Koa},
    forwarding::FORWARDING,
    id::{RowId, Token, short_digest},
    login::SessionLimit,
    realm::Realm,
    store::connection::{MAX_TIMEOUT, TIMEOUT},
    telemetry::{Meter, counters::Tally},
};

#[doc(hidden)]
pub mod adapter;
pub(crate) mod admin;
mod batch;
mod connection;
mod layers;
mod requests;
mod rows;
mod sql;
mod table;
mod watches;

#[cfg(feature = "testing")]
pub(crate) use admin::time_travel::Shift;
pub use admin::{
    external::ExternalSessions,
    page::ListPosition,
    users::{ListSessions, UserSession, UserSessions},
};
pub use table::migrate::MIGRATOR;
pub use table::report::TableReport;
pub use watches::sweep::SessionEnd;

use connection::{
    connecting::{prepared, why},
    executor::{Executor, Transactions},
    pool::Connections,
    primary::Primary,
    transaction::Isolation,
    url::Hosts,
};
use layers::{Area, LAYERS};
use rows::{Batches, session_queue::SessionQueues};
use sql::Pooling;
use table::handle::TableHandle;

/// The names of UTC. The store treats them as equal, because `SHOW timezone` returns
/// whichever the system uses.
const NAMES_OF_UTC: [&str; 8] = [
    "UTC",
    "UCT",
    "Universal",
    "Zulu",
    "Etc/UTC",
    "Etc/UCT",
    "Etc/Universal",
    "Etc/Zulu",
];

/// The table of sessions, in the application's database.
///
/// It is cheap to clone. Clones share their pool, their batches and what they know
/// about the table. Call [`migrate`](Self::migrate) or [`check`](Self::check) once at
/// startup: if the table can't be used, the error comes there and not in a request.
/// Without either, the first statement inspects the table.
///
/// ```
/// use axum_pg_session::PgSessionStore;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// let pool = sqlx::PgPool::connect(database.url()).await?;
/// let store = PgSessionStore::new(pool).schema("web").table("visits");
/// store.migrate().await?;
///
/// assert_eq!(store.check().await?.to_string(), "every feature is on");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PgSessionStore {
    shared: Arc<Shared>,
    realm: Realm,
    /// Closed when the application has dropped the last clone of the store, and
    /// of all stores that were built from it. That ends the reaper.
    in_use: Arc<watch::Sender<()>>,
}

struct Shared {
    batches: Arc<Batches>,
    queues: Arc<SessionQueues>,
    creation: Creation,
    tally: Tally,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Creation {
    WhenMissing,
    Never,
}

impl PgSessionStore {
    /// Creates a store in `public.session` of the pool's database.
    ///
    /// The application can still use the pool: the store acquires
    /// [some of its connections](Self::max_connections) for statements and releases
    /// them.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self::with_connections(Connections::most_of(pool))
    }

    /// Connects to Postgres, and creates a store with a pool of its own, of sqlx's default
    /// size (10 connections).
    ///
    /// The store sets a `statement_timeout`, a `lock_timeout` and an
    /// `idle_in_transaction_session_timeout` on its connections: one second more
    /// than [`timeout`](Self::timeout), and at least 6 seconds. It also sets a
    /// `client_connection_check_interval` of one second. With these limits the
    /// server ends the statements of a killed process. A longer `timeout` also raises them
    /// on open connections. Limits that are already set
    /// on the server, the database or the role take precedence. Behind a pooler in
    /// transaction mode, the store sets none.
    ///
    /// The URL may name several servers, as libpq's may. The sessions are kept
    /// on the one that takes writes, and follow when another one is promoted.
    ///
    /// ```no_run
    /// use axum_pg_session::PgSessionStore;
    ///
    /// # async fn example() -> Result<(), axum_pg_session::Error> {
    /// let url = "postgres://web@db1:5432,db2:5432/site?target_session_attrs=read-write";
    /// let store = PgSessionStore::connect(url).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// Encrypted connections need one of the features `tls-rustls`,
    /// `tls-rustls-aws-lc-rs` and `tls-native-tls`. With one, a connection is encrypted
    /// if the server offers it. `sslmode=verify-full` in the URL requires encryption, and
    /// authenticates the server by its certificate. The store logs a warning, once for
    /// each server, if a connection to another machine is not encrypted. If it can't
    /// detect this within two seconds, it tries four more times within about an hour.
    ///
    /// Parts that the URL omits come from the variables of libpq, such as `PGHOST`,
    /// `PGUSER` and `PGPASSWORD`, and from the password file. Percent-encode `%`,
    /// `#`, `/`, `?` and `@` in a password. sqlx reads some variables in its own way:
    ///
    /// - A list with commas in `PGHOST` is one name. Name several servers in the URL.
    /// - `PGHOSTADDR` takes precedence over `PGHOST`. With `sslmode=verify-full` the
    ///   certificate must then be for the address.
    /// - An invalid `PGSSLMODE` counts as `prefer`.
    ///
    /// # Errors
    ///
    /// Of kind [`Setup`](crate::ErrorKind::Setup) if `url` is not a Postgres URL, or if the
    /// server refuses the connection for a reason that stays: the password, a database that
    /// does not exist, a startup parameter, TLS that one side requires and the other does not
    /// have, or a certificate. Of kind [`Unavailable`](crate::ErrorKind::Unavailable) if the
    /// server doesn't respond within 5 seconds, or none of several servers takes writes. The
    /// source has the last error of each server. If one of several servers refuses the
    /// connection and another one doesn't respond, the error comes after the 5 seconds,
    /// because the other one may come back and take writes.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        match Hosts::parse(url)? {
            Hosts::One(server) => Self::connect_with(*server).await,
            Hosts::Several(servers) => {
                let servers = servers.into_iter().map(prepared).collect();
                let primary = Primary::connect(servers).await?;
                Ok(Self::with_connections(Connections::to(primary, TIMEOUT)))
            }
        }
    }

    /// Connects as [`connect`](Self::connect) does, with connection options instead of a URL.
    ///
    /// ```no_run
    /// use axum_pg_session::PgSessionStore;
    /// use sqlx::postgres::PgConnectOptions;
    ///
    /// # async fn example() -> Result<(), axum_pg_session::Error> {
    /// let options = PgConnectOptions::new().host("db").username("web").database("site");
    /// let store = PgSessionStore::connect_with(options).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`Setup`](crate::ErrorKind::Setup) if the server refuses the connection, as for
    /// [`connect`](Self::connect), and of kind
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the server doesn't respond.
    pub async fn connect_with(options: PgConnectOptions) -> Result<Self, Error> {
        let options = prepared(options);
        let pool = sqlx::postgres::PgPoolOptions::new()
            .acquire_timeout(TIMEOUT)
            .connect_with(options.clone())
            .await;
        match pool {
            Ok(pool) => Ok(Self::with_connections(Connections::own(pool, TIMEOUT))),
            Err(error) => Err(why(error, &options).await),
        }
    }

    fn with_connections(connections: Connections) -> Self {
        let executor = Executor {
            connections,
            timeout: TIMEOUT,
            pooling: Pooling::default(),
            isolation: Isolation::default(),
            transactions: Transactions::default(),
            meter: Arc::default(),
        };
        Self::build(TableHandle::new(executor), Creation::WhenMissing)
    }

    fn build(table_handle: TableHandle, creation: Creation) -> Self {
        let batches = Batches::new(table_handle);
        Self {
            shared: Arc::new(Shared {
                queues: SessionQueues::new(Arc::clone(&batches)),
                batches,
                creation,
                tally: Tally::default(),
            }),
            realm: Realm::default(),
            in_use: Arc::new(watch::Sender::new(())),
        }
    }

    /// This store with other settings.
    fn rebuilt(self, table_handle: TableHandle, creation: Creation) -> Self {
        Self {
            realm: self.realm,
            in_use: self.in_use,
            ..Self::build(table_handle, creation)
        }
    }

    fn table_handle(&self) -> &TableHandle {
        &self.shared.batches.table_handle
    }

    /// The time until which a request that starts now waits for its session.
    pub(crate) fn deadline(&self) -> Instant {
        self.table_handle().executor.deadline()
    }

    pub(crate) fn format(&self) -> &dyn Format {
        &*self.table_handle().format
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.table_handle().executor.meter
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    /// Returns the number of rejected tokens, in this process and for all clones of this
    /// store. A sudden rise suggests token guessing.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.tally.snapshot()
    }

    fn with(self, change: impl FnOnce(&mut TableHandle)) -> Self {
        let table_handle = self.table_handle().with(change);
        let creation = self.shared.creation;
        self.rebuilt(table_handle, creation)
    }

    /// Returns a clone that does not count as a use of the store, and a receiver that is
    /// closed when the application no longer uses the store.
    pub(crate) fn apart(&self) -> (Self, watch::Receiver<()>) {
        let store = Self {
            in_use: Arc::new(watch::Sender::new(())),
            ..self.clone()
        };
        (store, self.in_use.subscribe())
    }

    fn within(self, realm: Realm) -> Self {
        Self { realm, ..self }
    }

    /// Returns the store for the layer with this cookie.
    pub(crate) fn for_cookie(self, name: &str) -> Self {
        let realm = Realm {
            cookie_name: name.into(),
            ..self.realm.clone()
        };
        self.within(realm)
    }

    /// Registers a layer of this store, whose clones share `layer`. Returns whether
    /// it is the first one to share the sessions of another layer.
    pub(crate) fn is_first_to_share(&self, layer: &Arc<AtomicBool>) -> bool {
        LAYERS.is_first_to_share(self.area(), layer)
    }

    /// The same for the sessions of another table that the layer takes over.
    pub(crate) fn is_first_to_share_table(&self, other: String, layer: &Arc<AtomicBool>) -> bool {
        let area = Area {
            cookie_name: other.into(),
            row: RowId::from(String::new()),
            ..self.area()
        };
        LAYERS.is_first_to_share(area, layer)
    }

    fn area(&self) -> Area {
        let options = self.table_handle().executor.pool().connect_options();
        Area {
            server: (
                options.get_socket().cloned(),
                options.get_host().to_owned(),
                options.get_port(),
            ),
            table: format!("{}\0{}", self.database(), self.table_handle().name),
            cookie_name: Arc::clone(&self.realm.cookie_name),
            row: self.row_id(&Token::new("any")),
        }
    }

    pub(crate) fn own_realm(&self) -> &Realm {
        &self.realm
    }

    /// The login with the ids that the table has.
    pub(crate) fn as_stored(&self, login: Login) -> Login {
        login.with_ids(|id| self.stored_user(id), |id| self.realm.user(id))
    }

    /// A user's id as the table has it: with the realm, or as the format of another application
    /// stores it.
    pub(crate) fn stored_user(&self, id: &str) -> String {
        match self.format().layout().user() {
            Some(member) => (member.stored)(id),
            None => self.realm.user(id),
        }
    }

    /// Sets this store's area of the site, if several share the table. Default:
    /// none.
    ///
    /// Sessions and users of one realm do not exist in another one:
    ///
    /// - No token or [`SessionId`](crate::SessionId) of one realm finds a session
    ///   in another.
    /// - [`user`](Self::user) finds the sessions of its own realm, and
    ///   [`max_sessions_per_user`](Self::max_sessions_per_user) counts them. The
    ///   user `1` of the shop is not the user `1` of the admin area.
    ///
    /// A realm is not needed to keep tokens apart: a token opens nothing in a
    /// layer with another [cookie name](crate::PgSessionLayer::cookie_name). Use
    /// it if the areas have different users. The realm is part of the default name
    /// of the cookie, as in `__Host-id-admin`, so that the cookies of two areas don't
    /// replace each other.
    ///
    /// The name stands before the ids in the table, as `admin:…` in `id` and as
    /// `admin`, U+001F and the user's id in `user_id`. So a foreign key from
    /// `user_id` to a table of users needs a [`table`](Self::table) for each
    /// area instead. [`destroy_everyone`](Self::destroy_everyone), the reaper and
    /// [`counters`](Self::counters) are for the whole table or store. The
    /// formats of Koa and Express have no realms.
    ///
    /// ```
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore, testing::TestVisitor};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let admin = store.clone().realm("admin");
    /// let layer = PgSessionLayer::new(admin.clone());
    ///
    /// let ada = TestVisitor::new(&layer);
    /// ada.with_session(|session| session.login("1")).await?;
    /// assert_eq!(admin.user("1").count().await?, 1);
    /// assert_eq!(store.user("1").count().await?, 0);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn realm(self, name: impl Into<String>) -> Self {
        let realm = Realm {
            name: Some(name.into().into()),
            ..self.realm.clone()
        };
        self.within(realm)
    }

    /// Returns eight hexadecimal digits that distinguish this store's site from others on a
    /// developer's machine. They are the same in all processes of the site, so they don't
    /// depend on the server, which can have several names. They don't depend on the table
    /// either: two layers that would replace each other's cookie in production do so here.
    pub(crate) fn mark(&self) -> String {
        short_digest(&self.database())
    }

    /// A connection without a database name uses the database with the name of its user.
    fn database(&self) -> String {
        let options = self.table_handle().executor.pool().connect_options();
        let database = options.get_database();
        database
            .unwrap_or_else(|| options.get_username())
            .to_owned()
    }

    /// Returns the id of the row that the token opens in this store.
    pub(crate) fn row_id(&self, token: &Token) -> RowId {
        self.format().row_id(token, &self.realm)
    }

    /// Sets the schema of the table. Default: `public`. It is always quoted, so its case
    /// is kept.
    #[must_use]
    pub fn schema(self, schema: impl Into<String>) -> Self {
        self.with(|table_handle| table_handle.name.schema = schema.into())
    }

    /// Sets the name of the table. Default: `session`. It is always quoted, so its case
    /// is kept.
    ///
    /// ```
    /// # use axum_pg_session::PgSessionStore;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let pool = sqlx::PgPool::connect(database.url()).await?;
    /// let store = PgSessionStore::new(pool).schema("web").table("visitors");
    /// let missing = store.check().await.unwrap_err();
    /// assert!(missing.to_string().contains("\"web\".\"visitors\""));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn table(self, table: impl Into<String>) -> Self {
        self.with(|table_handle| table_handle.name.table = table.into())
    }

    /// Sets whether [`migrate`](Self::migrate) may create and complete the table.
    /// Default: `true`. With `false` it only checks the table.
    ///
    /// ```
    /// # use axum_pg_session::PgSessionStore;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let pool = sqlx::PgPool::connect(database.url()).await?;
    /// let store = PgSessionStore::new(pool);
    /// let checking = store.clone().create_table(false);
    /// assert!(checking.migrate().await.is_err());
    /// store.migrate().await?;
    /// assert!(checking.migrate().await.is_ok());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn create_table(self, create: bool) -> Self {
        let creation = match create {
            true => Creation::WhenMissing,
            false => Creation::Never,
        };
        let table_handle = self.table_handle().clone();
        self.rebuilt(table_handle, creation)
    }

    /// Sets how long a request waits for a load, and again for a write, before the response
    /// is a 503. The wait for a connection of the pool counts. Default: 5 seconds.
    ///
    /// It bounds the load of a session and the layer's
    /// [`valid_if`](crate::PgSessionLayer::valid_if) check together. A response that deletes one
    /// row and writes another waits for each as long.
    ///
    /// On a direct connection, the store then cancels a statement that is still running.
    /// The statement may still commit, as a whole, if the cancel comes too late. Behind a
    /// transaction pooler the store can't cancel it. A timeout of more than a year counts
    /// as a year.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        let timeout = timeout.min(MAX_TIMEOUT);
        self.with(|table_handle| {
            table_handle.executor.timeout = timeout;
            table_handle.executor.connections.last(timeout);
        })
    }

    /// Sets how many connections of the pool the store may use at once, for requests and
    /// for calls from outside of them, such as
    /// [`destroy_everyone`](Self::destroy_everyone). Default: three quarters of the pool,
    /// so that some are always free for the application's own queries. It is at least one,
    /// and never more than the pool has. The reaper and inspections of the table take one
    /// more.
    ///
    /// A few connections are enough, because a statement serves all requests that wait. As
    /// long as requests come, the store keeps the connections, which saves two round trips
    /// for each statement. Without requests, it returns them to the pool after a quarter of a
    /// second. It keeps none if the store may use the whole pool.
    ///
    /// ```
    /// use std::num::NonZeroU32;
    /// use axum_pg_session::PgSessionStore;
    /// use sqlx::postgres::PgPoolOptions;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = PgPoolOptions::new().max_connections(20).connect_lazy("postgres:///")?;
    /// let store = PgSessionStore::new(pool);
    /// assert_eq!(store.connections().get(), 15);
    ///
    /// let store = store.max_connections(NonZeroU32::new(4).expect("not zero"));
    /// assert_eq!(store.connections().get(), 4);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn max_connections(self, connections: NonZeroU32) -> Self {
        self.with(|table_handle| {
            let database = &mut table_handle.executor;
            database.connections = database.connections.limited_to(connections);
        })
    }

    /// Returns how many connections of the pool the store may use at once.
    #[must_use]
    pub fn connections(&self) -> NonZeroU32 {
        self.table_handle().executor.connections.limit()
    }

    /// Limits the sessions of a user, and sets what a login beyond the limit does (ASVS
    /// 5.0 item 7.1.2). Default: no limit.
    ///
    /// The limit also holds if several processes log a user in at once. Such a login is one
    /// transaction, and logins of one user wait for each other. If a user already has more
    /// sessions, because the limit was lowered, the next login destroys the surplus. If these
    /// are a thousand or more, or their deletion takes long, a task destroys the rest
    /// afterwards.
    ///
    /// The table needs the columns `user_id` and `created`. If one is missing,
    /// [`check`](Self::check) returns an error.
    ///
    /// ```
    /// use std::num::NonZeroU32;
    /// use axum_pg_session::{SessionLimitPolicy, PgSessionStore};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// let five = NonZeroU32::new(5).expect("not zero");
    /// let store = store.max_sessions_per_user(five, SessionLimitPolicy::EndOldest);
    /// store.migrate().await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn max_sessions_per_user(self, sessions: NonZeroU32, at_limit: SessionLimitPolicy) -> Self {
        self.with(|table_handle| table_handle.limit = Some(SessionLimit { sessions, at_limit }))
    }

    /// Sets how often the sessions that are [watched](Self::watch) are looked up, to find those
    /// that another process destroyed, or that expired. Default: 5 seconds. If this process
    /// destroys a session, the watch ends at once.
    ///
    /// So a watch ends at most this interval after its session, plus the time of the
    /// lookup. One statement looks up a thousand watched sessions. Without a watched session,
    /// no statement runs.
    ///
    /// # Panics
    ///
    /// If the interval is zero or longer than 30 seconds. A session that gets a new id is found
    /// under the old one for a minute, and one lookup may fail.
    #[must_use]
    pub fn watch_interval(self, interval: Duration) -> Self {
        assert!(
            !interval.is_zero() && interval <= FORWARDING / 2,
            "`watch_interval` must be longer than zero and at most 30 seconds"
        );
        self.with(|table_handle| table_handle.watching.interval = interval)
    }

    /// Sets how long a [watch](Self::watch) lasts while the database can't be queried.
    /// Default: a minute. Then it ends with [`Ending::Unreachable`](crate::Ending::Unreachable),
    /// although the session may still exist.
    ///
    /// With `Duration::ZERO` a watch ends when the first lookup fails. With `Duration::MAX` it
    /// lasts as long as the outage, and so does the socket of a user whose session was
    /// destroyed. If a session gets a new id during an outage of more than a minute, its watch
    /// ends afterwards, because the row of the old id has expired.
    ///
    /// ```
    /// use std::time::Duration;
    /// use axum_pg_session::PgSessionStore;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let pool = sqlx::PgPool::connect_lazy("postgres:///")?;
    /// let store = PgSessionStore::new(pool)
    ///     .watch_interval(Duration::from_secs(2))
    ///     .watch_outage(Duration::from_secs(20));
    /// # drop(store);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn watch_outage(self, outage: Duration) -> Self {
        self.with(|table_handle| table_handle.watching.outage = outage)
    }

    /// Calls `hook` after each change of a session's life: it began, a user signed in, it got a
    /// new id, it ended or expired. Default: none. A second call replaces the hook.
    ///
    /// Use it for audit logs and mails about new sign-ins.
    ///
    /// It is called for changes by this store and its clones. A store that was cloned before this
    /// call has no hook. So set all options first, then build the layer.
    ///
    /// The hook runs in the process that made the change, after the commit, in the task that
    /// committed it. Later writes of that session, and the request that waits, wait for it. So it
    /// should only send the event to a channel, or spawn a task. It can't change the outcome: if
    /// it panics, that is logged, and the session stays as it was committed. If it keeps a clone of
    /// the store, a spawned [`Reaper`](crate::Reaper) only ends when it is stopped.
    ///
    /// - Each event is reported at most once, across all processes. It is lost if the process
    ///   crashes after the commit, or if the connection is lost during the commit. What must never
    ///   be lost belongs in a transaction of the application.
    /// - An expiry is reported when a [`Reaper`](crate::Reaper) deletes the row. So give the
    ///   reaper a store with the hook. If the layer's timeouts ended a session earlier, it is
    ///   reported when a request with its token begins a new one.
    /// - If the response of a new session or a new id can't be delivered, the store undoes it.
    ///   Its event was reported already.
    /// - Sessions that are destroyed in a transaction of the application
    ///   ([`destroy_all_in`](crate::UserSessions::destroy_all_in)), or by another program, are not
    ///   reported.
    ///
    /// ```
    /// use axum_pg_session::{PgSessionLayer, PgSessionStore, SessionEventKind, testing::TestVisitor};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let store = PgSessionStore::connect(database.url()).await?;
    /// # store.migrate().await?;
    /// let (sender, mut events) = tokio::sync::mpsc::unbounded_channel();
    /// let store = store.on_event(move |event| drop(sender.send(event.clone())));
    ///
    /// let ada = TestVisitor::new(&PgSessionLayer::new(store));
    /// ada.with_session(|session| session.login("ada")).await?;
    /// let event = events.recv().await.expect("a sign-in");
    /// assert_eq!(event.kind(), SessionEventKind::SignedIn);
    /// assert_eq!(event.user_id(), Some("ada"));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn on_event(self, hook: impl Fn(&SessionEvent) + Send + Sync + 'static) -> Self {
        self.with(|table_handle| table_handle.hook = Some(Hook::new(hook)))
    }

    /// Sets whether there is a pooler in transaction mode between the pool and Postgres,
    /// such as PgBouncer with `pool_mode = transaction`. Default: `false`.
    ///
    /// Such a pooler may send the two halves of a statement to two connections of the
    /// server, so that one user's rows reach another. With `true` every statement is sent
    /// unnamed and in a transaction, which the pooler keeps together. That takes two more
    /// round trips for each statement. It is not needed if the pooler keeps track of
    /// prepared statements (PgBouncer 1.21 and later with `max_prepared_statements` above
    /// 0) or is in session mode. Set it anyway if other programs lock rows of the table for
    /// long: behind a pooler, only a transaction can bound the wait for a lock.
    ///
    /// The first inspection of the table ([`migrate`](Self::migrate),
    /// [`check`](Self::check), or the first statement) compares two connections. If that
    /// shows such a pooler and this is not set, it returns an error. If only a repeated
    /// check finds the pooler, the store logs a warning and runs each statement in a
    /// transaction. If PgBouncer reports "unsupported startup parameter", set
    /// `.extra_float_digits(None)` in the options of the pool, as
    /// [`connect`](Self::connect) does.
    ///
    /// ```
    /// use axum_pg_session::PgSessionStore;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// let store = PgSessionStore::connect(database.url()).await?.behind_transaction_pooler(true);
    /// store.migrate().await?;
    /// assert!(store.user("alice").list().await?.is_empty());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn behind_transaction_pooler(self, is_there: bool) -> Self {
        let pooling = match is_there {
            true => Pooling::Transaction,
            false => Pooling::Own,
        };
        self.with(|table_handle| table_handle.executor.pooling = pooling)
    }

    /// Sets the time zone of an `expiry` of type `timestamp`, such as `Europe/Berlin`.
    /// Default: `UTC`. A `timestamptz`, which [`migrate`](Self::migrate) creates, needs
    /// none.
    ///
    /// If the zone is too far east, live sessions look expired, and the reaper deletes
    /// them. If it is too far west, sessions live hours too long.
    ///
    /// A change to or from daylight saving time never ends a session early. A session that
    /// expires in the hour that is repeated in autumn may end an hour late.
    #[must_use]
    pub fn time_zone(self, zone: impl Into<String>) -> Self {
        let zone = zone.into();
        let is_utc = NAMES_OF_UTC
            .iter()
            .any(|name| zone.eq_ignore_ascii_case(name));
        let zone = if is_utc { "UTC".to_owned() } else { zone };
        self.with(|table_handle| table_handle.time_zone = zone)
    }

    /// Keeps sessions in the format of a site on Koa, in the same table. Default: this
    /// crate's own format.
    ///
    /// It also sets Koa's defaults for the cookie of the layer. Settings of the layer
    /// override them.
    #[must_use]
    pub fn koa(self, koa: Koa) -> Self {
        self.with(|table_handle| table_handle.format = Arc::new(koa))
    }

    /// Keeps sessions in the format of a site on Express, in the same table. Default: this
    /// crate's own format.
    ///
    /// The table has the columns `sid`, `sess` and `expire`, as connect-pg-simple creates it. If
    /// `expire` is a `timestamp`, as there, set the [`time_zone`](Self::time_zone) of the
    /// connections of Express. It also sets Express's defaults for the cookie of the layer.
    /// Settings of the layer override them.
    ///
    /// [`migrate`](Self::migrate) adds a column `user_id`, which Postgres generates from Passport's
    /// user. Text and numbers are stored as text, and objects as JSON. Ids of more than 1,024 bytes
    /// become `sha256:` and a digest. Adding the column rewrites the table, and locks it meanwhile.
    /// A [`login`](crate::Session::login) on either side is valid on both, and
    /// [`user`](Self::user) finds the sessions of both.
    #[must_use]
    pub fn express(self, express: Express) -> Self {
        self.with(|table_handle| table_handle.format = Arc::new(express))
    }

    /// Sets whether the table records the ids of destroyed sessions, so that a late write of another
    /// application can't revive them. Default: `false`.
    ///
    /// If a request to Koa or Express saves its session, that application writes the whole document,
    /// and inserts the row if it is missing. So a request that loaded a session before it was
    /// destroyed revives it.
    /// [`migrate`](Self::migrate) creates a table of destroyed ids and two triggers, which work for
    /// every writer of the table, also for its deletions. [`check`](Self::check) is an error if
    /// they are missing.
    ///
    /// An id is kept until its session would have expired, for at least one hour. Sessions that
    /// expire leave none. The cost is one small insert for each destroyed session, and one lookup
    /// for each new one.
    ///
    /// Citus has no such triggers. If `SERIALIZABLE` is the default of the database, writes of the
    /// other application can fail more often, and ids that are no longer needed stay. After a change
    /// of the table's name, drop the triggers of the former name. A table in this crate's own format
    /// needs no tombstones: no writer of this crate inserts the row of a destroyed session.
    ///
    /// ```
    /// use axum_pg_session::{Express, PgSessionStore};
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let pool = sqlx::PgPool::connect(database.url()).await?;
    /// let store = PgSessionStore::new(pool).express(Express::new(["secret"])).tombstones(true);
    /// assert!(store.check().await.is_err());
    /// store.migrate().await?;
    /// assert!(store.check().await?.tombstones);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn tombstones(self, tombstones: bool) -> Self {
        self.with(|table_handle| table_handle.tombstones = tombstones)
    }

    /// Creates the table, or its missing columns and indexes, and
    /// [checks](Self::check) it. It also creates again what was dropped since an earlier call.
    ///
    /// Any number of processes may call it at once. It inspects the table first: if the
    /// table is complete, it needs no privilege to create anything. A table of another system
    /// that this role may not change is used as it is.
    ///
    /// It holds an advisory lock while it creates. Without a pooler, each migration is a
    /// transaction of its own, so that readers of a large table don't wait while an index is
    /// built. Behind a pooler in transaction mode, all migrations are one transaction.
    ///
    /// ```
    /// # use axum_pg_session::PgSessionStore;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let database = dev_postgres::test_database().await?;
    /// # let pool = sqlx::PgPool::connect(database.url()).await?;
    /// let store = PgSessionStore::new(pool);
    /// store.migrate().await?;
    /// store.migrate().await?; // it is complete
    /// assert!(store.check().await?.per_user_sessions);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`Setup`](crate::ErrorKind::Setup), naming the problem, if a privilege is
    /// missing, an existing table can't be used, or a pooler needs
    /// [`behind_transaction_pooler`](Self::behind_transaction_pooler). In the last case,
    /// nothing is created.
    pub async fn migrate(&self) -> Result<(), Error> {
        self.format().check_realm(self.own_realm())?;
        match self.shared.creation {
            Creation::WhenMissing => self.table_handle().migrate().await,
            Creation::Never => self.check().await.map(drop),
        }
    }

    /// Inspects the table and the server, detects a pooler, and reports which features the
    /// table supports.
    ///
    /// # Errors
    ///
    /// Of kind [`Setup`](crate::ErrorKind::Setup), naming the column that is missing
    /// or of the wrong type, the privilege that this role lacks, or a pooler that needs
    /// [`behind_transaction_pooler`](Self::behind_transaction_pooler). Of kind
    /// [`Unavailable`](crate::ErrorKind::Unavailable) if the server doesn't respond, or
    /// takes no writes, such as a standby.
    pub async fn check(&self) -> Result<TableReport, Error> {
        self.format().check_realm(self.own_realm())?;
        self.table_handle().check().await
    }
}

impl fmt::Debug for PgSessionStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgSessionStore")
            .field("table", &self.table_handle().name.to_string())
            .field("timeout", &self.table_handle().executor.timeout)
            .finish_non_exhaustive()
    }
}
