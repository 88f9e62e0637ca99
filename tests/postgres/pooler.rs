//! PgBouncer between the store and Postgres.

use std::{
    env, io,
    time::{Duration, Instant},
};

use axum_pg_session::{ErrorKind, PgSessionLayer, PgSessionStore, SessionId, SessionLimitPolicy};
use dev_postgres::{Lending, Pooler, Server, Shutdown};
use sqlx::{
    Connection as _, PgConnection, PgPool, Postgres, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::{
    Browser, Life, Log, app, execute,
    page::{PATIENCE, patiently, until},
    site::{behind, pool},
    skip::server_with_timeouts,
    texts,
};

/// Connections of the pooler to the server; more clients than that make it
/// hand a connection to one after the other.
const CONNECTIONS: u32 = 3;

/// A server of its own behind a PgBouncer of its own.
struct Behind {
    pooler: Pooler,
    lending: Lending,
    direct: PgPool,
    server: Server,
}

impl Behind {
    /// `None` where there is no such PgBouncer, which on CI there is but for
    /// the newest.
    async fn new(lending: Lending) -> Option<Self> {
        Self::of(Server::start().expect("a server"), lending).await
    }

    async fn of(server: Server, lending: Lending) -> Option<Self> {
        let pooler = match Pooler::before(&server, lending, CONNECTIONS) {
            Ok(pooler) => pooler,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let is_new = lending == Lending::TransactionWithPreparedStatements;
                assert!(is_new || env::var_os("CI").is_none(), "{error}");
                eprintln!("skipped: {error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let direct = pool(&server.url(), 5).await;
        Some(Self {
            pooler,
            lending,
            direct,
            server,
        })
    }

    fn url(&self) -> String {
        self.pooler.url_of("postgres")
    }

    /// As it is documented.
    async fn store(&self) -> PgSessionStore {
        behind(&self.url(), self.lending).await
    }

    async fn store_without_the_setting(&self) -> PgSessionStore {
        PgSessionStore::connect(&self.url())
            .await
            .expect("a connection")
    }

    async fn migrated(&self) -> PgSessionStore {
        let store = self.store().await;
        store.migrate().await.expect("a new table");
        store
    }
}

#[tokio::test]
async fn a_transaction_pooler_without_the_setting_is_refused_at_set_up() {
    let Some(behind) = Behind::new(Lending::Transaction).await else {
        return;
    };
    behind.migrated().await;
    let store = behind.store_without_the_setting().await;
    for outcome in [store.migrate().await, store.check().await.map(drop)] {
        let error = outcome.expect_err("a pooler in transaction mode");
        assert_eq!(error.kind(), ErrorKind::Setup);
        assert!(
            error.to_string().contains("behind_transaction_pooler"),
            "{error}"
        );
    }
}

/// sqlx's lock would stay with a connection of the server that others get.
#[tokio::test]
async fn a_transaction_pooler_without_the_setting_is_refused_before_anything_is_migrated() {
    let Some(behind) = Behind::new(Lending::Transaction).await else {
        return;
    };
    let store = behind.store_without_the_setting().await;
    for store in [store.clone(), store.schema("apart")] {
        let error = store.migrate().await.expect_err("a pooler");
        assert_eq!(error.kind(), ErrorKind::Setup);
    }
    let left = "SELECT relname::text FROM pg_class WHERE relname LIKE '%session%'
            AND relnamespace = 'public'::regnamespace
        UNION ALL SELECT nspname::text FROM pg_namespace WHERE nspname = 'apart'
        UNION ALL SELECT locktype FROM pg_locks WHERE locktype = 'advisory'
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(texts(&behind.direct, left).await, [""; 0]);
}

/// Two clients who ask by turns get the same one of an even number each time.
#[tokio::test]
async fn a_transaction_pooler_that_lends_its_connections_in_turn_is_noticed() {
    let server = Server::start().expect("a server");
    let pooler = match Pooler::in_turn(&server, Lending::Transaction, 2) {
        Ok(pooler) => pooler,
        Err(error) if error.kind() == io::ErrorKind::NotFound && env::var_os("CI").is_none() => {
            eprintln!("skipped: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let url = pooler.url_of("postgres");
    let clients = behind(&url, Lending::Transaction).await;
    clients.migrate().await.expect("a new table");
    let both = pool(&url, 2).await;
    let one = both.begin().await.expect("a transaction");
    let other = both.begin().await.expect("another one");
    one.rollback().await.expect("a rollback");
    other.rollback().await.expect("a rollback");
    let store = PgSessionStore::connect(&url).await.expect("a connection");
    let error = store.check().await.expect_err("a pooler");
    assert!(
        error.to_string().contains("behind_transaction_pooler"),
        "{error}"
    );
}

#[tokio::test]
async fn a_transaction_pooler_with_the_setting_is_accepted() {
    let Some(behind) = Behind::new(Lending::Transaction).await else {
        return;
    };
    let report = behind.migrated().await.check().await.expect("it is set up");
    assert_eq!(report.to_string(), "every feature is on");
}

#[tokio::test]
async fn a_pooler_for_sessions_needs_no_setting() {
    let Some(behind) = Behind::new(Lending::Session).await else {
        return;
    };
    let store = behind.store_without_the_setting().await;
    store.migrate().await.expect("a new table");
    Life::of(&behind.direct, "session").is_whole(&store).await;
}

#[tokio::test]
async fn a_pooler_that_keeps_track_of_prepared_statements_needs_no_setting() {
    let lending = Lending::TransactionWithPreparedStatements;
    let Some(behind) = Behind::new(lending).await else {
        return;
    };
    let store = behind.store_without_the_setting().await;
    store.migrate().await.expect("a new table");
    Life::of(&behind.direct, "session").is_whole(&store).await;
    let crowd = Crowd::of(&behind, CROWD).await;
    let seen = crowd.look(3_200).await;
    let all = Seen {
        own: 3_200,
        ..Seen::default()
    };
    assert_eq!(seen, all);
}

#[tokio::test]
async fn a_session_lives_behind_a_transaction_pooler() {
    let Some(behind) = Behind::new(Lending::Transaction).await else {
        return;
    };
    let store = behind.migrated().await;
    Life::of(&behind.direct, "session").is_whole(&store).await;
}

/// Their lock is the transaction's, as one of the session would stay with a
/// connection that other clients get. One migrates, and the others wait.
async fn migrate_at_once(lending: Lending) {
    let Some(behind) = Behind::new(lending).await else {
        return;
    };
    let mut processes = JoinSet::new();
    for _ in 0..8 {
        let store = behind.store().await;
        processes.spawn(async move { store.migrate().await });
    }
    for outcome in processes.join_all().await {
        outcome.expect("a finished table");
    }
    let locks = "SELECT locktype FROM pg_locks WHERE locktype = 'advisory'
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(texts(&behind.direct, locks).await, [""; 0]);
    let notes = "SELECT version::text FROM _axum_pg_session_migrations ORDER BY version";
    assert_eq!(
        texts(&behind.direct, notes).await,
        ["1", "2", "3", "4", "5", "6", "7"]
    );
}

#[tokio::test]
async fn processes_migrate_at_once_through_a_transaction_pooler() {
    migrate_at_once(Lending::Transaction).await;
}

#[tokio::test]
async fn processes_migrate_at_once_through_a_pooler_that_keeps_track_of_prepared_statements() {
    migrate_at_once(Lending::TransactionWithPreparedStatements).await;
}

#[tokio::test]
async fn processes_behind_a_transaction_pooler_merge_their_changes() {
    let Some(behind) = Behind::new(Lending::Transaction).await else {
        return;
    };
    let store = behind.migrated().await;
    let mut browser = Browser::with_session(&app(PgSessionLayer::new(store))).await;
    let mut visits = JoinSet::new();
    for _ in 0..4 {
        let app = app(PgSessionLayer::new(behind.store().await));
        for _ in 0..25 {
            let browser = browser.at(&app);
            visits.spawn(async move { browser.peek("/increment/n").await.status.as_u16() });
        }
    }
    assert!(visits.join_all().await.iter().all(|status| *status == 200));
    assert_eq!(browser.get("/get/n").await.body, "100");
}

#[tokio::test]
async fn a_limit_of_sessions_holds_behind_a_transaction_pooler() {
    for level in ["read committed", "serializable"] {
        let server = Server::builder().setting("default_transaction_isolation", level);
        let server = server.start().expect("a server");
        if let Some(behind) = Behind::of(server, Lending::Transaction).await {
            limits_sessions(&behind, level).await;
        }
    }
}

async fn limits_sessions(behind: &Behind, level: &str) {
    let three = 3.try_into().expect("not zero");
    let store = behind
        .migrated()
        .await
        .max_sessions_per_user(three, SessionLimitPolicy::EndOldest);
    let login =
        axum::routing::get(async |session: axum_pg_session::Session| session.login("alice"));
    let pages = axum::Router::new().route("/login", login);
    let app = pages.layer(PgSessionLayer::new(store.clone()));
    let mut logins = JoinSet::new();
    for _ in 0..8 {
        let browser = Browser::new(&app);
        logins.spawn(async move { browser.peek("/login").await.status.as_u16() });
    }
    assert_eq!(logins.join_all().await, [200; 8], "{level}");
    let alice = store.user("alice");
    assert_eq!(alice.count().await.expect("a count"), 3, "{level}");
    assert_eq!(alice.destroy_all().await.expect("they end"), 3);
}

/// Processes, and sessions in each.
const CROWD: (usize, usize) = (8, 4);

/// Processes that look at sessions of their own through one pooler.
struct Crowd {
    stores: Vec<PgSessionStore>,
    sessions: Vec<Vec<(SessionId, String)>>,
}

/// What they saw.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    own: usize,
    anothers: usize,
    none: usize,
    errors: usize,
}

impl Crowd {
    async fn of(behind: &Behind, (processes, sessions): (usize, usize)) -> Self {
        let mut crowd = Self {
            stores: Vec::new(),
            sessions: Vec::new(),
        };
        let beginnings = app(PgSessionLayer::new(PgSessionStore::new(
            behind.direct.clone(),
        )));
        for process in 0..processes {
            crowd.stores.push(behind.store().await.timeout(PATIENCE));
            let mut own = Vec::new();
            for session in 0..sessions {
                let name = format!("{process}-{session}");
                let mut browser = Browser::new(&beginnings);
                browser.get(&format!("/insert/name/{name}")).await;
                let id = browser.get("/id").await.body;
                own.push((id.parse().expect("a handle"), name));
            }
            crowd.sessions.push(own);
        }
        crowd
    }

    /// Each visitor reads a session of their own, so many times in all.
    async fn look(self, times: usize) -> Seen {
        let visitors: usize = self.sessions.iter().map(Vec::len).sum();
        let mut looks = JoinSet::new();
        for (store, own) in self.stores.iter().zip(self.sessions) {
            for session in own {
                looks.spawn(look(store.clone(), session, times / visitors));
            }
        }
        let mut all = Seen::default();
        for seen in looks.join_all().await {
            all.own += seen.own;
            all.anothers += seen.anothers;
            all.none += seen.none;
            all.errors += seen.errors;
        }
        all
    }
}

async fn look(store: PgSessionStore, (id, name): (SessionId, String), times: usize) -> Seen {
    let mut seen = Seen::default();
    for _ in 0..times {
        match store.load(&id).await {
            Ok(Some(session)) => match session.get::<String>("name") {
                Ok(Some(found)) if found == name => seen.own += 1,
                _ => seen.anothers += 1,
            },
            Ok(None) => seen.none += 1,
            Err(_) => seen.errors += 1,
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_transaction_pooler_twenty_thousand_looks_see_their_own() {
    let Some(behind) = Behind::new(Lending::Transaction).await else {
        return;
    };
    behind.migrated().await;
    let crowd = Crowd::of(&behind, CROWD).await;
    let seen = crowd.look(20_000).await;
    let all = Seen {
        own: 20_000,
        ..Seen::default()
    };
    assert_eq!(seen, all);
}

/// Not even without a call of `check` or `migrate`.
#[tokio::test]
async fn without_the_setting_nothing_is_served() {
    let Some(behind) = Behind::new(Lending::Transaction).await else {
        return;
    };
    behind.migrated().await;
    let crowd = Crowd::of(&behind, (4, 1)).await;
    for (id, _) in crowd.sessions.iter().flatten() {
        let store = behind.store_without_the_setting().await;
        let error = store.load(id).await.expect_err("a pooler");
        assert_eq!(error.kind(), ErrorKind::Setup);
    }
}

// The connection between the pooler and the server.

impl Behind {
    /// A visitor who has counted to one.
    async fn visitor(&self) -> Browser {
        let mut browser = Browser::new(&app(PgSessionLayer::new(self.migrated().await)));
        assert_eq!(browser.get("/increment/n").await.body, "1");
        browser
    }

    /// Locks the rows, and has the visitor count on. Returns once the statement
    /// waits.
    async fn counts_behind_a_lock(
        &self,
        browser: &Browser,
    ) -> (Transaction<'static, Postgres>, JoinHandle<u16>) {
        let mut lock = self.direct.begin().await.expect("a transaction");
        sqlx::query("SELECT id FROM session FOR UPDATE")
            .execute(&mut *lock)
            .await
            .expect("a lock");
        let browser = browser.clone();
        let visit = tokio::spawn(async move { browser.peek("/increment/n").await.status.as_u16() });
        self.waits(1).await;
        (lock, visit)
    }

    /// Until so many statements wait for a lock.
    async fn waits(&self, statements: usize) {
        let waiting = "SELECT pid::text FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        until(async || texts(&self.direct, waiting).await.len() == statements).await;
    }

    async fn n(&self) -> String {
        texts(&self.direct, "SELECT session ->> 'n' FROM session")
            .await
            .remove(0)
    }

    /// On the console of PgBouncer, which is open to all users if no user needs a password.
    async fn order(&self, command: &'static str) {
        let mut console = PgConnection::connect(&self.pooler.url_of("pgbouncer"))
            .await
            .expect("a console");
        sqlx::raw_sql(command)
            .execute(&mut console)
            .await
            .expect(command);
        console.close().await.expect("an end");
    }
}

/// PgBouncer forwards the server's last message of a connection.
#[tokio::test]
async fn a_change_whose_backend_was_terminated_behind_a_pooler_is_made_once() {
    for lending in [Lending::Session, Lending::Transaction] {
        let Some(behind) = Behind::new(lending).await else {
            return;
        };
        let browser = behind.visitor().await;
        let (lock, visit) = behind.counts_behind_a_lock(&browser).await;
        let terminated = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity \
                          WHERE wait_event_type = 'Lock'";
        assert_eq!(texts(&behind.direct, terminated).await, ["true"]);
        behind.waits(1).await;
        lock.commit().await.expect("a lock released");
        assert_eq!(patiently(visit).await.expect("no panic"), 200);
        assert_eq!(behind.n().await, "2", "{lending:?}");
        assert_eq!(browser.peek("/increment/n").await.body, "3");
    }
}

/// The server goes on with the statement, and commits it if it is a transaction of
/// its own.
#[tokio::test]
async fn a_change_whose_connection_the_pooler_closed_is_not_sent_again() {
    for lending in [Lending::Session, Lending::Transaction] {
        let Some(behind) = Behind::new(lending).await else {
            return;
        };
        let browser = behind.visitor().await;
        let (lock, visit) = behind.counts_behind_a_lock(&browser).await;
        behind.order("KILL postgres").await;
        behind.order("RESUME postgres").await;
        let status = tokio::select! {
            status = visit => status.expect("no panic"),
            () = behind.waits(2) => panic!("it was sent again"),
        };
        assert_eq!(status, 503, "{lending:?}");
        lock.commit().await.expect("a lock released");
        behind.waits(0).await;
        let n: u64 = behind.n().await.parse().expect("a number");
        assert!(n <= 2, "{lending:?}: {n}");
        let next = browser.peek("/increment/n").await.body;
        assert_eq!(next, (n + 1).to_string(), "{lending:?}");
    }
}

/// PgBouncer reports only that the server's connection is lost.
#[tokio::test]
async fn a_change_whose_server_crashed_behind_a_pooler_is_not_sent_again() {
    for how in [Shutdown::Immediate, Shutdown::Killed] {
        for lending in [Lending::Session, Lending::Transaction] {
            let Some(behind) = Behind::new(lending).await else {
                return;
            };
            let browser = behind.visitor().await;
            behind.order("SET server_login_retry = 1").await;
            let (_lock, visit) = behind.counts_behind_a_lock(&browser).await;
            behind.server.stop(how).expect("it runs");
            behind.server.start_again().expect("it starts");
            let status = patiently(visit).await.expect("no panic");
            assert_eq!(status, 503, "{how:?}, {lending:?}");
            until(async || browser.peek("/get/n").await.status == 200).await;
            let next = browser.peek("/increment/n").await.body;
            assert_eq!(next, "2", "{how:?}, {lending:?}");
        }
    }
}

/// PgBouncer refuses connections for as long as it can't log in to the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_in_time_behind_a_pooler_costs_no_request() {
    for lending in [Lending::Session, Lending::Transaction] {
        let Some(behind) = Behind::new(lending).await else {
            return;
        };
        let browser = behind.visitor().await;
        let impatient = behind.store().await.timeout(Duration::from_millis(500));
        let impatient = browser.at(&app(PgSessionLayer::new(impatient)));
        behind.order("SET server_login_retry = 1").await;
        behind.server.stop(Shutdown::Fast).expect("it runs");
        assert_eq!(impatient.peek("/get/n").await.status, 503);
        let visitor = browser.clone();
        let visit = tokio::spawn(async move { visitor.peek("/increment/n").await.body });
        behind.server.start_again().expect("it starts");
        let counted = patiently(visit).await.expect("no panic");
        assert_eq!(counted, "2", "{lending:?}");
        assert_eq!(browser.peek("/increment/n").await.body, "3");
    }
}

/// PgBouncer no longer lets clients wait for a connection of the server.
#[tokio::test]
async fn where_others_have_all_connections_of_the_pooler_visitors_wait_in_time() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let Some(behind) = Behind::new(Lending::Transaction).await else {
        return;
    };
    let browser = behind.visitor().await;
    let store = behind.store().await.timeout(TIMEOUT);
    let browser = browser.at(&app(PgSessionLayer::new(store)));
    assert_eq!(browser.peek("/increment/n").await.body, "2");
    let others = pool(&behind.url(), CONNECTIONS).await;
    let mut transactions = Vec::new();
    for _ in 0..CONNECTIONS {
        transactions.push(others.begin().await.expect("a transaction"));
    }
    behind.order("SET query_wait_timeout = 1").await;
    for _ in 0..3 {
        let asked = Instant::now();
        assert_eq!(browser.peek("/increment/n").await.status, 503);
        assert!(asked.elapsed() < 2 * TIMEOUT, "{:?}", asked.elapsed());
    }
    for transaction in transactions {
        transaction.rollback().await.expect("a rollback");
    }
    assert_eq!(browser.peek("/increment/n").await.body, "3");
}

/// The only connection of the role `site`, so that there is no other one for the
/// check for a pooler.
async fn only_connection(server: &Server, direct: &PgPool) -> PgPool {
    PgSessionStore::new(direct.clone())
        .migrate()
        .await
        .expect("a table");
    execute(direct, "CREATE ROLE site LOGIN CONNECTION LIMIT 1").await;
    execute(direct, "GRANT ALL ON session TO site").await;
    // Under a stricter level each statement is in a transaction anyway.
    execute(
        direct,
        "ALTER ROLE site SET default_transaction_isolation = 'read committed'",
    )
    .await;
    let options: PgConnectOptions = server.url().parse().expect("a URL");
    PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options.username("site"))
        .await
        .expect("the only connection")
}

/// Behind a pooler the process id would be another client's.
#[tokio::test]
async fn a_store_that_could_not_check_for_a_pooler_has_the_server_end_its_statements() {
    let Some(server) = server_with_timeouts().await else {
        return;
    };
    let direct = pool(&server.url(), 3).await;
    let own = only_connection(&server, &direct).await;
    let log = Log::keep();
    let store = PgSessionStore::new(own.clone()).timeout(Duration::from_secs(1));
    let mut browser = Browser::new(&app(PgSessionLayer::new(store)));
    for n in ["1", "2"] {
        assert_eq!(browser.get("/increment/n").await.body, n);
    }
    let warnings = log.text().matches("check for a connection pooler").count();
    assert_eq!(warnings, 1, "{}", log.text());
    let mut lock = direct.begin().await.expect("a transaction");
    sqlx::query("SELECT id FROM session FOR UPDATE")
        .execute(&mut *lock)
        .await
        .expect("a lock");
    assert_eq!(browser.get("/increment/n").await.status, 503);
    let waiting = "SELECT pid::text FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    until(async || texts(&direct, waiting).await.is_empty()).await;
    until(async || own.num_idle() == own.size() as usize).await;
    lock.rollback().await.expect("a lock released");
    assert_eq!(browser.get("/increment/n").await.body, "3");
}

/// Once there is a second connection, the statements are prepared and need no
/// transaction of their own.
#[tokio::test]
async fn a_check_for_a_pooler_that_failed_is_made_again() {
    let server = Server::start().expect("a server");
    let direct = pool(&server.url(), 3).await;
    let own = only_connection(&server, &direct).await;
    let store = PgSessionStore::new(own.clone());
    let browser = Browser::new(&app(PgSessionLayer::new(store.clone())));
    let prepared = "SELECT name FROM pg_prepared_statements WHERE statement LIKE 'INSERT %'";
    let serve = async || {
        assert_eq!(browser.peek("/increment/n").await.status, 200);
        texts(&own, prepared).await.len()
    };
    assert_eq!((serve().await, serve().await), (0, 0));
    execute(&direct, "ALTER ROLE site CONNECTION LIMIT -1").await;
    until(async || serve().await > 0).await;
}
