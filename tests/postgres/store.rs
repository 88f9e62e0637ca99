//! The store: its clones, small pools, locked rows and timeouts.

use std::time::Duration;

use axum_pg_session::{PgSessionLayer, PgSessionStore, Session};
use sqlx::{PgPool, Postgres, Transaction};
use tokio::{task::JoinSet, time::Instant};

use crate::support::{Browser, Reply, Site, THREE_COLUMNS, app, page::patiently, site::pool};

const SHORT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn clones_share_what_they_know_of_the_table() {
    let site = Site::with_table(THREE_COLUMNS).await;
    let layer = || site.layer().absolute_timeout(Duration::from_hours(1));
    assert!(layer().check().is_ok(), "not inspected yet");
    site.store.clone().check().await.expect("a usable table");
    assert!(layer().check().is_err());
}

#[tokio::test]
async fn a_store_says_its_table_and_not_its_password() {
    let url = "postgres://bob:sesame@127.0.0.1:1/none";
    let store = PgSessionStore::new(PgPool::connect_lazy(url).expect("a URL"));
    let text = format!("{:?}", store.schema("web").table("visit"));
    assert!(text.contains("web") && text.contains("visit"), "{text}");
    assert!(!text.contains("sesame"), "{text}");
}

#[tokio::test]
async fn one_connection_serves_twenty_requests_of_one_session() {
    let site = Site::new().await;
    let one = pool(site.database.url(), 1).await;
    let app = app(PgSessionLayer::new(PgSessionStore::new(one)));
    let mut browser = Browser::new(&app);
    browser.get("/increment/n").await;
    let mut visits = JoinSet::new();
    for _ in 0..20 {
        let browser = browser.clone();
        visits.spawn(async move { browser.peek("/increment/n").await.status.as_u16() });
    }
    assert_eq!(patiently(visits.join_all()).await, [200; 20]);
    assert_eq!(site.rows().document().await["n"], 21);
}

#[tokio::test]
async fn one_connection_serves_every_kind_of_request() {
    let site = Site::new().await;
    let one = pool(site.database.url(), 1).await;
    let store = PgSessionStore::new(one.clone());
    store.migrate().await.expect("a table that is there");
    let app = app(PgSessionLayer::new(store));
    let mut visits = JoinSet::new();
    for _ in 0..20 {
        let mut browser = Browser::new(&app);
        visits.spawn(async move {
            for page in ["/insert/a/1", "/cycle", "/insert/a/2", "/clear", "/destroy"] {
                assert_eq!(browser.get(page).await.status, 200, "{page}");
            }
        });
    }
    patiently(visits.join_all()).await;
    assert_eq!((site.rows().count().await, one.size()), (0, 1));
}

/// A site whose rows another transaction holds, seen through a store with a
/// short timeout and a pool of its own.
struct Held {
    site: Site,
    pool: PgPool,
    browser: Browser,
    lock: Transaction<'static, Postgres>,
}

impl Held {
    async fn new(connections: u32) -> Self {
        let site = Site::new().await;
        let pool = pool(site.database.url(), connections).await;
        let store = PgSessionStore::new(pool.clone()).timeout(SHORT);
        store.check().await.expect("a finished table");
        let patient = site.visitor().await;
        let browser = patient.at(&app(PgSessionLayer::new(store)));
        let lock = site.lock_rows().await;
        Self {
            site,
            pool,
            browser,
            lock,
        }
    }

    /// Visits a page that has to wait for the lock.
    async fn visit(&self, page: &str) -> Reply {
        let started = Instant::now();
        let response = self.browser.peek(page).await;
        assert!(started.elapsed() >= SHORT, "it waited");
        assert!(started.elapsed() < SHORT * 10, "it did not wait for long");
        response
    }
}

#[tokio::test]
async fn a_row_that_is_blocked_is_a_503_within_the_timeout() {
    for page in ["/increment/n", "/destroy", "/cycle"] {
        let held = Held::new(2).await;
        let response = held.visit(page).await;
        assert_eq!(response.status, 503, "{page}");
        assert!(response.sets_no_cookie(), "{page}");
    }
}

#[tokio::test]
async fn a_touch_of_a_blocked_row_costs_the_visitor_only_the_wait() {
    let held = Held::new(2).await;
    held.lock.rollback().await.expect("a rollback");
    held.site.rows().age(7200.0).await;
    let _lock = held.site.lock_rows().await;
    let response = held.browser.peek("/get/a").await;
    response.assert(200, "\"1\"");
}

#[tokio::test]
async fn a_reader_does_not_wait_for_a_blocked_row() {
    let held = Held::new(2).await;
    assert_eq!(held.browser.peek("/get/a").await.body, "\"1\"");
}

#[tokio::test]
async fn a_blocked_row_blocks_no_other_session() {
    let held = Held::new(2).await;
    let blocked = held.browser.clone();
    let waiting = tokio::spawn(async move { blocked.peek("/increment/n").await.status });
    held.site.blocked(1).await;
    let mut other = held.browser.clone();
    other.jar.clear();
    assert_eq!(other.get("/increment/n").await.body, "1");
    assert_eq!(waiting.await.expect("a response"), 503);
}

#[tokio::test]
async fn the_only_connection_serves_again_when_its_statement_is_given_up() {
    let held = Held::new(1).await;
    assert_eq!(held.visit("/increment/n").await.status, 503);
    // The row is still locked; the statement that waited for it has ended.
    assert_eq!(held.browser.peek("/get/a").await.body, "\"1\"");
    assert_eq!(held.pool.size(), 1);
    assert!(!held.site.is_blocked().await);
}

/// A statement that was sent can't be called back. So its 503 says that
/// nothing is sure, and what the row holds by then decides: the comparison of
/// the save is made when the lock is free.
#[tokio::test]
async fn a_save_that_was_given_up_overwrites_nothing_that_came_between() {
    let mut held = Held::new(2).await;
    assert_eq!(held.visit("/increment/n").await.status, 503);
    sqlx::query(r#"UPDATE session SET session = '{"other":1}'"#)
        .execute(&mut *held.lock)
        .await
        .expect("an update");
    held.lock.commit().await.expect("a commit");
    held.site.idle().await;
    assert_eq!(held.site.rows().text().await, r#"{"other":1}"#);
}

#[tokio::test]
async fn a_pool_without_a_free_connection_is_a_503_within_the_timeout() {
    let site = Site::new().await;
    let one = pool(site.database.url(), 1).await;
    let store = PgSessionStore::new(one.clone()).timeout(SHORT);
    let browser = Browser::with_session(&app(PgSessionLayer::new(store))).await;
    let taken = one.acquire().await.expect("the only connection");
    let started = Instant::now();
    assert_eq!(browser.peek("/get/a").await.status, 503);
    assert!(started.elapsed() >= SHORT && started.elapsed() < SHORT * 10);
    drop(taken);
    assert_eq!(browser.peek("/get/a").await.body, "\"1\"");
}

#[tokio::test]
async fn the_documented_timeout_is_the_default() {
    let site = Site::without_table().await;
    let store = PgSessionStore::new(site.pool);
    let default = format!("{store:?}");
    assert!(default.contains("timeout: 5s"), "{default}");
    let changed = format!("{:?}", store.timeout(SHORT));
    assert!(changed.contains("timeout: 1s"), "{changed}");
}

#[tokio::test]
async fn no_connection_leaks_whatever_becomes_of_a_request() {
    let site = Site::new().await;
    let two = pool(site.database.url(), 2).await;
    let layer = PgSessionLayer::new(PgSessionStore::new(two.clone()).timeout(SHORT));
    let app = crate::support::page::app_with(layer, async |session: Session| {
        session
            .update("n", |n: Option<u64>| n.unwrap_or(0) + 1)
            .map(|_| ())
    });
    let browser = Browser::with_session(&app).await;
    for page in ["/page", "/insert_and/500/a/1", "/get/a", "/cycle", "/page"] {
        let visit = browser.clone();
        let visiting = tokio::spawn(async move { visit.peek(page).await.status });
        tokio::task::yield_now().await;
        visiting.abort();
        drop(visiting.await);
    }
    let (one, other) = tokio::join!(two.acquire(), two.acquire());
    assert!(one.is_ok() && other.is_ok());
    assert!(two.size() <= 2);
}
