//! One history: copies of the server, visitors, faults, and the check of the record at the end.

use std::{
    collections::{BTreeMap, HashSet},
    env, fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use axum_pg_session::PgSessionStore;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    browser::Browser,
    check::{StoredRow, violations},
    copies::{Copies, Manner, Reaping},
    faults::{Fault, Faults},
    random::{Random, fresh_seed},
    record::{Record, Token},
    report::Report,
    visitor::Visitor,
};

/// What determines a history, but for who is faster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) operations: u64,
    copies: usize,
    browsers: u64,
    tabs: u64,
}

impl Script {
    /// `HISTORY_SEED` and `HISTORY_OPERATIONS`, or a fresh and a short one.
    pub(crate) fn from_environment() -> Self {
        Self {
            seed: given("HISTORY_SEED").unwrap_or_else(fresh_seed),
            operations: given("HISTORY_OPERATIONS").unwrap_or(3_000),
            copies: 4,
            browsers: 8,
            tabs: 4,
        }
    }

    fn visitors(&self) -> u64 {
        self.browsers * self.tabs
    }
}

pub(crate) fn given(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seed, operations) = (self.seed, self.operations);
        write!(
            f,
            "HISTORY_SEED={seed} HISTORY_OPERATIONS={operations} cargo test --test history"
        )
    }
}

/// Plays the script and checks what was recorded.
pub(crate) async fn play(script: Script) -> Report {
    let began = Instant::now();
    let database = dev_postgres::test_database().await.expect("a database");
    let pool = checkers_pool(database.url()).await;
    let store = PgSessionStore::new(pool.clone());
    store.migrate().await.expect("a new table");

    let record = Arc::new(Record::default());
    let copies = Arc::new(start_copies(database.url(), script).await);
    let stage = Stage {
        script,
        record: Arc::clone(&record),
        copies,
        browsers: (0..script.browsers).map(|_| Arc::default()).collect(),
        pool,
    };
    let faults = stage.perform().await;
    stage.look_at_every_jar().await;
    let rows = stored_rows(&stage.pool).await;
    let end = record.now();
    let kept = record.take();
    Report {
        violations: violations(&kept, &rows, stage.held(), end),
        kept,
        faults,
        duration: began.elapsed(),
    }
}

struct Stage {
    script: Script,
    record: Arc<Record>,
    copies: Arc<Copies>,
    browsers: Vec<Arc<Browser>>,
    pool: PgPool,
}

impl Stage {
    async fn perform(&self) -> BTreeMap<Fault, u64> {
        let (done, is_done) = watch::channel(false);
        let faults = Faults {
            random: Random::new(self.script.seed, 0),
            record: Arc::clone(&self.record),
            copies: Arc::clone(&self.copies),
            pool: self.pool.clone(),
        };
        let faults = tokio::spawn(faults.inject(is_done));
        self.visit().await;
        done.send_replace(true);
        faults.await.expect("no fault of the checker's")
    }

    async fn visit(&self) {
        let visitors = self.script.visitors();
        let times = self.script.operations.div_ceil(visitors);
        let mut visits = JoinSet::new();
        for (number, browser) in (1..=visitors).zip(self.browsers.iter().cycle()) {
            let mut visitor = self.visitor(number, browser);
            visits.spawn(async move { visitor.visit(times).await });
        }
        visits.join_all().await;
    }

    fn visitor(&self, number: u64, browser: &Arc<Browser>) -> Visitor {
        Visitor::new(
            Random::new(self.script.seed, number),
            Arc::clone(&self.record),
            Arc::clone(&self.copies),
            Arc::clone(browser),
        )
    }

    /// First whatever still runs is ended, so that nothing is in flight.
    async fn look_at_every_jar(&self) {
        self.copies.kill_all().await;
        self.wait_for_statements().await;
        self.copies.start_copy(0).await;
        for browser in &self.browsers {
            let mut visitor = self.visitor(0, browser);
            visitor.look_once_more().await;
        }
        self.copies.kill_all().await;
        while self.record.has_open_sockets() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What a killed process sent is carried out to its end.
    async fn wait_for_statements(&self) {
        let sql = "
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name <> 'checker'";
        loop {
            let left: i64 = sqlx::query_scalar(sql)
                .fetch_one(&self.pool)
                .await
                .expect("a count");
            if left == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn held(&self) -> HashSet<Token> {
        held_by(&self.browsers)
    }
}

async fn start_copies(url: &str, script: Script) -> Copies {
    Copies::start(url, script.copies, Manner::of_a_history(Reaping::OnRequest)).await
}

/// The whole table.
pub(crate) async fn stored_rows(pool: &PgPool) -> Vec<StoredRow> {
    let sql = "SELECT id, session::text, expiry > now() FROM session ORDER BY id";
    let rows: Vec<(String, String, bool)> =
        sqlx::query_as(sql).fetch_all(pool).await.expect("rows");
    rows.into_iter()
        .map(|(id, document, is_live)| StoredRow {
            id,
            document: serde_json::from_str(&document).expect("an object"),
            is_live,
        })
        .collect()
}

/// The cookies in the jars.
pub(crate) fn held_by(browsers: &[Arc<Browser>]) -> HashSet<Token> {
    let jars = browsers.iter().filter_map(|browser| browser.current());
    jars.map(|(token, _)| token).collect()
}

/// Known by its name, so that the faults spare it.
pub(crate) async fn checkers_pool(url: &str) -> PgPool {
    let options: PgConnectOptions = url.parse().expect("a URL");
    PgPoolOptions::new()
        .max_connections(10)
        .acquire_timeout(Duration::from_secs(60))
        .connect_with(options.application_name("checker"))
        .await
        .expect("a connection")
}
