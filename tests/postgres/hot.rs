//! Many requests of one session, and of a few.

use axum::Router;
use axum_pg_session::{PgSessionLayer, PgSessionStore};
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;

use crate::support::{Browser, Site, app, page::PATIENCE, proxy::Proxy};

const CLIENTS: usize = 64;
const INCREMENTS: usize = 50;

/// Every client visits `path` so many times, each one in a process of `apps`.
/// Returns how many visits failed.
async fn visit(
    browser: &Browser,
    apps: &[Router],
    clients: usize,
    times: usize,
    path: &'static str,
) -> usize {
    let mut visitors = JoinSet::new();
    for client in 0..clients {
        let browser = browser.at(&apps[client % apps.len()]);
        visitors.spawn(async move {
            let mut failures = 0;
            for _ in 0..times {
                failures += usize::from(!browser.peek(path).await.status.is_success());
            }
            failures
        });
    }
    visitors.join_all().await.into_iter().sum()
}

async fn store_behind(proxy: &Proxy) -> PgSessionStore {
    let pool = PgPoolOptions::new()
        .test_before_acquire(false)
        .max_connections(10)
        .connect_with(proxy.options())
        .await
        .expect("a connection");
    PgSessionStore::new(pool).timeout(PATIENCE)
}

async fn increments_on(processes: usize) {
    let site = Site::new().await;
    let proxy = Proxy::before(site.database.url()).await;
    let mut apps = Vec::new();
    for _ in 0..processes {
        apps.push(app(PgSessionLayer::new(store_behind(&proxy).await)));
    }
    let mut browser = Browser::new(&apps[0]);
    browser.get("/insert/begun/1").await;
    let before = proxy.executed();
    assert_eq!(
        visit(&browser, &apps, CLIENTS, INCREMENTS, "/increment/n").await,
        0
    );
    let statements = proxy.executed() - before;
    let increments = CLIENTS * INCREMENTS;
    println!("{processes} processes: {statements} statements for {increments} increments");
    assert_eq!(site.rows().document().await["n"], increments);
    // Without sharing, each would be a load and a save, and more for each
    // that was lost. How many there are depends on what else the machine does.
    assert!(statements < 2 * increments, "{statements} statements");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n_increments_in_one_process_make_n_with_fewer_statements() {
    increments_on(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n_increments_in_four_processes_make_n_with_fewer_statements() {
    increments_on(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hot_sessions_under_four_thousand_requests_have_no_failure() {
    let site = Site::new().await;
    let stores = [site.store.clone(), site.elsewhere().await];
    let apps = stores.map(|store| app(PgSessionLayer::new(store.timeout(PATIENCE))));
    let mut visits = JoinSet::new();
    for _ in 0..5 {
        let mut browser = Browser::new(&apps[0]);
        browser.get("/insert/begun/1").await;
        let apps = apps.clone();
        visits.spawn(async move { visit(&browser, &apps, 16, 50, "/increment/n").await });
    }
    assert_eq!(visits.join_all().await, [0; 5]);
    let total: i64 =
        sqlx::query_scalar("SELECT sum((session->>'n')::int8)::int8 FROM public.session")
            .fetch_one(&site.pool)
            .await
            .expect("a sum");
    assert_eq!(total, 4000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_keys_at_once_all_survive() {
    let site = Site::new().await;
    let apps = [site.app(), app(PgSessionLayer::new(site.elsewhere().await))];
    let mut browser = Browser::new(&apps[0]);
    browser.get("/insert/begun/1").await;
    let mut visits = JoinSet::new();
    for key in 0..50 {
        let browser = browser.at(&apps[key % 2]);
        visits.spawn(async move {
            browser
                .peek(&format!("/insert/key{key}/{key}"))
                .await
                .status
        });
    }
    assert!(
        visits
            .join_all()
            .await
            .iter()
            .all(axum::http::StatusCode::is_success)
    );
    assert_eq!(
        site.rows()
            .document()
            .await
            .as_object()
            .expect("an object")
            .len(),
        51
    );
}
