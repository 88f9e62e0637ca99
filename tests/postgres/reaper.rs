//! The reaper: what it deletes, when it runs, and when it stops.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use axum_pg_session::{PgSessionStore, ReapSummary, Reaper, ReaperHandle, StopReason};
use sqlx::postgres::PgPoolOptions;
use tokio::{sync::Barrier, task::JoinHandle};

use crate::support::{
    Browser, Site, app,
    page::{patiently, until},
    proxy::Proxy,
    site::pool,
};

const SOON: Duration = Duration::from_millis(5);

impl Site {
    /// Rows `name1` to `name{n}`, the higher the longer expired.
    async fn expired(&self, name: &str, n: u32) {
        self.dated(name, n, "-").await;
    }

    async fn living(&self, name: &str, n: u32) {
        self.dated(name, n, "+").await;
    }

    async fn dated(&self, name: &str, n: u32, sign: &str) {
        let sql = format!(
            "INSERT INTO TABLE (id, expiry, session)
             SELECT '{name}' || i, now() {sign} i * interval '1 minute', '{{}}'
             FROM generate_series(1, {n}) AS i"
        );
        self.rows().execute(&sql).await;
    }

    fn reaper(&self, batch_size: u32) -> Reaper {
        batches_of(self.store.clone(), batch_size)
    }

    async fn ids(&self) -> Vec<String> {
        let ids = sqlx::query_scalar("SELECT id FROM session ORDER BY id");
        ids.fetch_all(&self.pool).await.expect("the rows")
    }
}

fn batches_of(store: PgSessionStore, rows: u32) -> Reaper {
    Reaper::new(store).batch_size(NonZeroU32::new(rows).expect("not zero"))
}

async fn run(reaper: &Reaper) -> ReapSummary {
    reaper.run_once().await.expect("a database")
}

fn spawn_run(reaper: Reaper) -> JoinHandle<ReapSummary> {
    tokio::spawn(async move { run(&reaper).await })
}

fn assert_reaped(reaped: ReapSummary, deleted: u64, batches: u32) {
    assert_eq!((reaped.deleted, reaped.batches), (deleted, batches));
    assert_eq!(reaped.reason, StopReason::Drained);
}

#[tokio::test]
async fn only_expired_rows_are_reaped() {
    let site = Site::new().await;
    assert_reaped(run(&site.reaper(1000)).await, 0, 0);
    site.expired("dead", 5).await;
    site.living("live", 3).await;
    let endless = "UPDATE TABLE SET expiry = 'infinity' WHERE id = 'live1'";
    site.rows().execute(endless).await;
    assert_reaped(run(&site.reaper(1000)).await, 5, 1);
    assert_eq!(site.ids().await, ["live1", "live2", "live3"]);
}

#[tokio::test]
async fn what_a_cycle_leaves_behind_is_reaped() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    browser.get("/cycle").await;
    assert_eq!(site.ids().await.len(), 2);
    site.rows().age(61.0).await;
    assert_reaped(run(&site.reaper(1000)).await, 1, 1);
    assert_eq!(browser.get("/get/a").await.body, "\"1\"");
}

#[tokio::test]
async fn a_run_takes_as_many_batches_as_it_needs() {
    let site = Site::new().await;
    site.expired("a", 7).await;
    assert_reaped(run(&site.reaper(3)).await, 7, 3);
    site.expired("b", 6).await;
    assert_reaped(run(&site.reaper(3)).await, 6, 2);
    site.expired("c", 2).await;
    assert_reaped(run(&site.reaper(3)).await, 2, 1);
}

#[tokio::test]
async fn the_longest_expired_go_first() {
    let site = Site::new().await;
    site.expired("dead", 4).await;
    let notes = "CREATE TABLE deaths (turn serial, id text);
                 CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
                 AS $$ BEGIN INSERT INTO deaths (id) VALUES (OLD.id); RETURN NULL; END $$;
                 CREATE TRIGGER note AFTER DELETE ON session
                 FOR EACH ROW EXECUTE FUNCTION note()";
    let noting = sqlx::raw_sql(notes).execute(&site.pool).await;
    noting.expect("a table of notes");
    assert_reaped(run(&site.reaper(1)).await, 4, 4);
    let deaths = sqlx::query_scalar("SELECT id FROM deaths ORDER BY turn");
    let deaths: Vec<String> = deaths.fetch_all(&site.pool).await.expect("the notes");
    assert_eq!(deaths, ["dead4", "dead3", "dead2", "dead1"]);
}

#[tokio::test]
async fn a_session_touched_meanwhile_is_not_reaped() {
    let site = Site::new().await;
    site.expired("dead", 1).await;
    let mut touch = site.lock_row("dead1").await;
    let running = spawn_run(site.reaper(1000));
    site.blocked(1).await;
    sqlx::query("UPDATE session SET expiry = now() + interval '1 day'")
        .execute(&mut *touch)
        .await
        .expect("an update");
    touch.commit().await.expect("a commit");
    assert_reaped(running.await.expect("a run"), 0, 0);
    assert_eq!(site.ids().await, ["dead1"]);
}

#[tokio::test]
async fn a_session_deleted_meanwhile_is_not_counted() {
    let site = Site::new().await;
    site.expired("dead", 2).await;
    let mut end = site.lock_row("dead1").await;
    let running = spawn_run(site.reaper(1000));
    site.blocked(1).await;
    sqlx::query("DELETE FROM session WHERE id = 'dead1'")
        .execute(&mut *end)
        .await
        .expect("a delete");
    end.commit().await.expect("a commit");
    assert_reaped(running.await.expect("a run"), 1, 1);
    assert_eq!(site.ids().await, [""; 0]);
}

#[tokio::test]
async fn one_reaper_is_at_work_on_a_table_at_a_time() {
    let site = Site::new().await;
    site.expired("dead", 3).await;
    let other = Reaper::new(site.elsewhere().await);
    let held = site.lock_row("dead1").await;
    let running = spawn_run(site.reaper(1000));
    site.blocked(1).await;
    let refused = run(&other).await;
    assert_eq!((refused.deleted, refused.batches), (0, 0));
    assert_eq!(refused.reason, StopReason::OtherReaper);
    held.rollback().await.expect("a rollback");
    assert_reaped(running.await.expect("a run"), 3, 1);
    assert_eq!(run(&other).await.reason, StopReason::Drained);
}

#[tokio::test]
async fn the_reapers_of_two_tables_do_not_wait_for_each_other() {
    let site = Site::new().await;
    let other = site.store.clone().table("visit");
    other.migrate().await.expect("a second table");
    site.expired("dead", 1).await;
    let held = site.lock_row("dead1").await;
    let running = spawn_run(site.reaper(1000));
    site.blocked(1).await;
    assert_reaped(run(&Reaper::new(other)).await, 0, 0);
    held.rollback().await.expect("a rollback");
    assert_reaped(running.await.expect("a run"), 1, 1);
}

#[tokio::test]
async fn eight_reapers_share_the_work() {
    let site = Site::new().await;
    site.expired("dead", 500).await;
    site.living("live", 7).await;
    let start = Arc::new(Barrier::new(8));
    let mut runs = Vec::new();
    for _ in 0..8 {
        let store = PgSessionStore::new(pool(site.database.url(), 1).await);
        let (reaper, start) = (batches_of(store, 20), Arc::clone(&start));
        runs.push(tokio::spawn(async move {
            start.wait().await;
            run(&reaper).await
        }));
    }
    let mut deleted = 0;
    for running in runs {
        deleted += running.await.expect("a run").deleted;
    }
    assert_eq!(deleted, 500);
    assert_eq!(site.ids().await.len(), 7);
}

#[tokio::test]
async fn a_run_without_a_database_is_an_error() {
    let site = Site::new().await;
    let reaper = Reaper::new(PgSessionStore::new(site.pool.clone()));
    site.pool.close().await;
    assert!(reaper.run_once().await.is_err());
}

#[tokio::test]
async fn what_earlier_batches_deleted_stays_deleted_when_a_later_one_fails() {
    let site = Site::new().await;
    site.expired("dead", 3).await;
    let trap = "CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql
                AS $$ BEGIN RAISE 'refused by the test'; END $$;
                CREATE TRIGGER trap BEFORE DELETE ON TABLE
                FOR EACH ROW WHEN (OLD.id = 'dead1') EXECUTE FUNCTION trap()";
    site.rows().execute(trap).await;
    assert!(site.reaper(1).run_once().await.is_err());
    assert_eq!(site.ids().await, ["dead1"]);
}

/// A reaper that runs all the time.
async fn busy(site: &Site) -> (PgSessionStore, ReaperHandle) {
    let store = site.elsewhere().await;
    let handle = Reaper::new(store.clone()).interval(SOON).spawn();
    (store, handle)
}

async fn drained(site: &Site) {
    until(async || site.ids().await.is_empty()).await;
}

#[tokio::test]
async fn a_spawned_reaper_reaps_again_and_again() {
    let site = Site::new().await;
    let (_store, handle) = busy(&site).await;
    for name in ["a", "b", "c"] {
        site.expired(name, 3).await;
        drained(&site).await;
    }
    assert!(!handle.is_finished());
    patiently(handle.stop()).await;
    // Its handle is not needed.
    let (_store, handle) = busy(&site).await;
    drop(handle);
    for name in ["d", "e"] {
        site.expired(name, 1).await;
        drained(&site).await;
    }
}

#[tokio::test]
async fn the_reaper_survives_a_dead_database() {
    let site = Site::new().await;
    let proxy = Proxy::before(site.database.url()).await;
    // Without the pool's own test, a dead connection is found in mid-run.
    let pool = PgPoolOptions::new().test_before_acquire(false);
    let pool = pool.connect_lazy_with(proxy.options());
    let store = PgSessionStore::new(pool).timeout(Duration::from_millis(500));
    let handle = Reaper::new(store.clone()).interval(SOON).spawn();
    site.expired("a", 3).await;
    drained(&site).await;

    proxy.drop_responses(true);
    let heard = proxy.bytes_sent();
    until(async || proxy.bytes_sent() > heard).await;
    proxy.cut();
    assert!(!handle.is_finished());

    proxy.drop_responses(false);
    site.expired("b", 3).await;
    drained(&site).await;
    patiently(handle.stop()).await;
}

#[tokio::test]
async fn the_reaper_survives_a_table_that_refuses() {
    let site = Site::new().await;
    site.refuse("DELETE").await;
    site.expired("dead", 3).await;
    let attempts = "CREATE SEQUENCE attempts;
                    CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
                    AS $$ BEGIN PERFORM nextval('attempts'); RAISE 'refused'; END $$";
    site.rows().execute(attempts).await;
    let (_store, handle) = busy(&site).await;
    until(async || {
        let tried = sqlx::query_scalar("SELECT last_value FROM attempts");
        let tried: i64 = tried.fetch_one(&site.pool).await.expect("a sequence");
        tried >= 3
    })
    .await;
    site.refuse_no_more("DELETE").await;
    drained(&site).await;
    patiently(handle.stop()).await;
}

#[tokio::test]
async fn a_reaper_that_waits_stops_at_once() {
    let site = Site::new().await;
    let handle = Reaper::new(site.store.clone()).spawn();
    assert!(!handle.is_finished());
    patiently(handle.stop()).await;
}

#[tokio::test]
async fn a_store_that_is_given_another_setting_keeps_its_reaper() {
    let site = Site::new().await;
    let handle = Reaper::new(site.store.clone()).interval(SOON).spawn();
    let (store, clone) = (site.store.clone(), site.store.clone());
    drop(site.store);
    drop(clone);
    let store = store.timeout(Duration::from_secs(1)).create_table(false);
    // As the site's method, which needs the store that is gone.
    let expired = "INSERT INTO session (id, expiry, session)
                   VALUES ('dead', now() - interval '1 minute', '{}')";
    sqlx::query(expired)
        .execute(&site.pool)
        .await
        .expect("a row");
    until(async || {
        let rows = sqlx::query_scalar("SELECT count(*) FROM session");
        rows.fetch_one(&site.pool)
            .await
            .is_ok_and(|rows: i64| rows == 0)
    })
    .await;
    assert!(!handle.is_finished());
    drop(store);
    until(async || handle.is_finished()).await;
}

#[tokio::test]
#[should_panic(expected = "the interval of a reaper can't be zero")]
async fn an_interval_of_zero_is_refused() {
    let site = Site::new().await;
    drop(Reaper::new(site.store).interval(Duration::ZERO));
}

#[tokio::test]
async fn a_reaper_that_is_stopped_reaps_no_more() {
    let site = Site::new().await;
    let (_store, handle) = busy(&site).await;
    site.expired("a", 1).await;
    drained(&site).await;
    patiently(handle.stop()).await;
    site.expired("b", 1).await;
    let again = run(&site.reaper(1000)).await;
    assert_reaped(again, 1, 1);
}

#[tokio::test]
async fn a_reaper_stops_also_in_mid_batch() {
    let site = Site::new().await;
    site.expired("dead", 3).await;
    let held = site.lock_row("dead1").await;
    let (store, handle) = busy(&site).await;
    site.blocked(1).await;
    patiently(handle.stop()).await;
    held.rollback().await.expect("a rollback");
    // Its connections serve on.
    let mut browser = Browser::new(&app(axum_pg_session::PgSessionLayer::new(store)));
    assert_eq!(browser.get("/increment/n").await.body, "1");
}

#[tokio::test]
async fn a_layer_keeps_the_reaper_of_its_store_at_work() {
    let site = Site::new().await;
    let store = site.elsewhere().await;
    let app = app(axum_pg_session::PgSessionLayer::new(store.clone()));
    let handle = Reaper::new(store).interval(SOON).spawn();
    site.expired("dead", 1).await;
    drained(&site).await;
    assert!(!handle.is_finished());
    drop(app);
    until(async || handle.is_finished()).await;
    // Also while it waits for its interval.
    let handle = Reaper::new(site.elsewhere().await).spawn();
    until(async || handle.is_finished()).await;
    patiently(handle.stop()).await;
}

#[tokio::test]
async fn the_documented_interval_and_batch_size_are_the_defaults() {
    let site = Site::without_table().await;
    let reaper = Reaper::new(site.store.clone());
    let text = format!("{reaper:?}");
    assert!(text.contains("interval: 2700s"), "{text}");
    assert!(text.contains("batch_size: 1000"), "{text}");
    let changed = format!("{:?}", site.reaper(7).interval(SOON));
    assert!(changed.contains("interval: 5ms"), "{changed}");
    assert!(changed.contains("batch_size: 7"), "{changed}");
}
