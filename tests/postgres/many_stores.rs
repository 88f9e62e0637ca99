//! Hundreds of stores on one pool, such as one for each customer of a site.

use std::{env, fs, num::NonZeroU32, process, time::Duration};

use axum_pg_session::{PgSessionLayer, PgSessionStore, Reaper, ReaperHandle};
use sqlx::PgPool;
use tokio::{runtime::Handle, task::JoinSet};

use crate::support::{
    Browser, Site, app,
    child::{Process, say},
    execute,
    page::{PATIENCE, until},
    site::pool,
};

const STORES: usize = 200;
const ROUNDS: usize = 3;
const AT_ONCE: usize = 25;
const CONNECTIONS: u32 = 10;
/// Set for a process of its own, in which nothing else needs memory.
const URL: &str = "MANY_STORES_URL";

impl Site {
    /// As `migrate` would, which takes longer for hundreds.
    async fn tables(&self, number: usize) {
        let sql = format!(
            "DO $$ BEGIN FOR i IN 1..{number} LOOP
                 EXECUTE format('CREATE TABLE s%s (LIKE session INCLUDING ALL)', i);
             END LOOP; END $$"
        );
        execute(&self.pool, &sql).await;
    }
}

/// A visitor of each, many at the same moment.
async fn serve(stores: &[PgSessionStore]) {
    for crowd in stores.chunks(AT_ONCE) {
        let mut visits = JoinSet::new();
        for store in crowd {
            let browser = Browser::new(&app(PgSessionLayer::new(store.clone())));
            visits.spawn(async move { browser.peek("/increment/n").await.status });
        }
        let responses = visits.join_all().await;
        assert!(
            responses.iter().all(http::StatusCode::is_success),
            "{responses:?}"
        );
    }
}

fn stores_on(pool: &PgPool) -> Vec<PgSessionStore> {
    // All look at their tables at once, which takes a while.
    let store = PgSessionStore::new(pool.clone()).timeout(PATIENCE);
    (1..=STORES)
        .map(|i| store.clone().table(format!("s{i}")))
        .collect()
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

/// All connections are idle, and no other task runs.
async fn come_to_rest(pool: &PgPool, tasks_left: usize) {
    until(async || {
        tokio::time::sleep(Duration::from_millis(5)).await;
        pool.size() as usize == pool.num_idle() && tasks() == tasks_left
    })
    .await;
}

fn kilobytes() -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process::id())).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Not a test of its own: prints how much memory is resident after each round.
#[tokio::test]
async fn stores_come_and_go_in_a_child_process() {
    let Ok(url) = env::var(URL) else {
        return;
    };
    let pool = pool(&url, CONNECTIONS).await;
    come_to_rest(&pool, tasks()).await;
    let at_rest = tasks();
    for _ in 0..ROUNDS {
        let stores = stores_on(&pool);
        let reapers: Vec<_> = stores
            .iter()
            .map(|store| Reaper::new(store.clone()).spawn())
            .collect();
        serve(&stores).await;
        come_to_rest(&pool, at_rest + STORES).await;
        drop(stores);
        // The reapers end with their stores, even if their handles still exist.
        come_to_rest(&pool, at_rest).await;
        assert!(reapers.iter().all(ReaperHandle::is_finished));
        assert!(pool.size() <= CONNECTIONS);
        say(&kilobytes().unwrap_or_default().to_string());
    }
}

#[tokio::test]
async fn hundreds_of_stores_that_come_and_go_leave_no_task_connection_or_memory() {
    let site = Site::new().await;
    site.tables(STORES).await;
    let test = "many_stores::stores_come_and_go_in_a_child_process";
    let mut child = Process::start(test, URL, site.database.url());
    let mut resident = Vec::new();
    while let Some(kilobytes) = child.hear().await {
        resident.push(kilobytes.parse::<u64>().expect("a number"));
    }
    child.end().await;
    assert_eq!(resident.len(), ROUNDS, "{resident:?}");
    // A leak grows in each round. What an allocator keeps for the next rounds does not.
    let pairs = resident.windows(2);
    let least = pairs.map(|pair| pair[1].saturating_sub(pair[0])).min();
    assert!(least.is_some_and(|grown| grown < 2_048), "{resident:?}");
}

/// Each may keep most of the pool for its next request: not where that leaves
/// nothing for the others.
#[tokio::test]
async fn a_store_that_rests_leaves_a_connection_to_the_others() {
    let site = Site::new().await;
    site.tables(2).await;
    let pool = pool(site.database.url(), 4).await;
    let most = NonZeroU32::new(3).expect("not zero");
    let stores = [1, 2].map(|i| {
        let store = PgSessionStore::new(pool.clone()).table(format!("s{i}"));
        store.max_connections(most)
    });
    for store in &stores {
        store.check().await.expect("a table");
    }
    let mut visitors = Vec::new();
    for (store, number) in stores.iter().zip([3, 1]) {
        let app = app(PgSessionLayer::new(store.clone()));
        for _ in 0..number {
            let mut browser = Browser::new(&app);
            browser.get("/increment/n").await;
            visitors.push(browser);
        }
    }
    let locks = "LOCK TABLE s1, s2 IN SHARE MODE";
    let lock = site.open_transaction(locks).await;
    let mut visits = JoinSet::new();
    for visitor in visitors {
        visits.spawn(async move { visitor.peek("/cycle").await.status });
    }
    site.blocked(4).await;
    lock.rollback().await.expect("a rollback");
    while let Some(status) = visits.join_next().await {
        assert!(status.expect("no panic").is_success());
    }
    // At once, not when the kept connection is released.
    let kept = pool.size() as usize - pool.num_idle();
    let own = tokio::time::timeout(Duration::from_millis(200), pool.acquire()).await;
    assert!(own.is_ok_and(|own| own.is_ok()), "{kept} are kept");
}
