//! The reaper in several processes, killed, beside locks, and with rows that can't be deleted.

use std::{env, num::NonZeroU32, time::Duration};

use axum_pg_session::{PgSessionLayer, PgSessionStore, Reaper, StopReason};
use sqlx::{Postgres, Transaction};

use crate::support::{
    Browser, Log, Site, app,
    child::{Process, say},
    execute,
    page::{patiently, until},
    site::pool,
    texts,
};

/// The database that a process of its own is to reap.
const URL: &str = "REAPS_URL";
const BATCH: NonZeroU32 = NonZeroU32::new(20).expect("not zero");
const REAPS: &str = "reaper_faults::reaps_in_a_child_process";

impl Site {
    /// Rows `dead1` to `dead{n}`, the higher the longer expired, three that
    /// live, and a note of each that is deleted.
    async fn cemetery(&self, n: u32) {
        let sql = format!(
            "INSERT INTO session (id, expiry, session)
             SELECT 'dead' || i, now() - i * interval '1 second', '{{}}'::json
             FROM generate_series(1, {n}) AS i
             UNION ALL SELECT 'live' || i, now() + interval '1 hour', '{{}}'::json
             FROM generate_series(1, 3) AS i;
             CREATE TABLE deaths (id text);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN
                 WHILE OLD.id = 'dead50' AND NOT pg_try_advisory_xact_lock_shared(9) LOOP
                     PERFORM pg_sleep(0.01);
                 END LOOP;
                 INSERT INTO deaths VALUES (OLD.id);
                 RETURN NULL;
             END $$;
             CREATE TRIGGER note AFTER DELETE ON session
             FOR EACH ROW EXECUTE FUNCTION note()"
        );
        execute(&self.pool, &sql).await;
    }

    async fn deaths(&self) -> i64 {
        let deaths = sqlx::query_scalar("SELECT count(*) FROM deaths");
        deaths.fetch_one(&self.pool).await.expect("a count")
    }

    /// Each dead row once, and nothing that lives.
    async fn assert_all_died_once(&self, n: i64) {
        let distinct = sqlx::query_scalar("SELECT count(DISTINCT id) FROM deaths");
        let distinct: i64 = distinct.fetch_one(&self.pool).await.expect("a count");
        assert_eq!((self.deaths().await, distinct), (n, n));
        let left = texts(&self.pool, "SELECT id FROM session ORDER BY id").await;
        assert_eq!(left, ["live1", "live2", "live3"]);
    }

    /// From now on, a statement that deletes `dead50` stops in the middle of its batch, until the
    /// transaction ends.
    async fn hold_dead50(&self) -> Transaction<'static, Postgres> {
        self.open_transaction("SELECT pg_advisory_xact_lock(9)")
            .await
    }

    /// Returns when a reaper has come to `dead50`.
    async fn is_in_mid_batch(&self) {
        let sleeping = "SELECT pid::text FROM pg_stat_activity
                        WHERE datname = current_database() AND wait_event = 'PgSleep'";
        until(async || !texts(&self.pool, sleeping).await.is_empty()).await;
    }

    async fn lock_table(&self) -> Transaction<'static, Postgres> {
        self.open_transaction("LOCK TABLE session IN ACCESS EXCLUSIVE MODE")
            .await
    }

    async fn terminate_reapers(&self) {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND query LIKE '%DELETE FROM%'
                     AND wait_event = 'PgSleep'";
        execute(&self.pool, sql).await;
    }

    fn reapers_process(&self) -> Process {
        Process::start(REAPS, URL, self.database.url())
    }
}

/// Not a test of its own: a process that reaps until nothing is left, and says
/// how much it deleted.
#[tokio::test]
async fn reaps_in_a_child_process() {
    let Ok(url) = env::var(URL) else {
        return;
    };
    let pool = pool(&url, 2).await;
    let store = PgSessionStore::new(pool.clone());
    store.check().await.expect("a table");
    let reaper = Reaper::new(store).batch_size(BATCH);
    say("ready");
    execute(
        &pool,
        "BEGIN; SELECT pg_advisory_xact_lock_shared(7); COMMIT",
    )
    .await;
    let mut deleted = 0;
    loop {
        let reaped = reaper.run_once().await.expect("a database");
        deleted += reaped.deleted;
        if (reaped.reason, reaped.deleted) == (StopReason::Drained, 0) {
            break;
        }
    }
    say(&deleted.to_string());
}

#[tokio::test]
async fn four_processes_reap_each_row_once_and_nothing_that_lives() {
    let site = Site::new().await;
    site.cemetery(1_500).await;
    // None begins before all are there.
    let start = site
        .open_transaction("SELECT pg_advisory_xact_lock(7)")
        .await;
    let mut processes: Vec<_> = (0..4).map(|_| site.reapers_process()).collect();
    site.blocked(4).await;
    start.rollback().await.expect("a rollback");
    let mut deleted = 0;
    for process in &mut processes {
        assert_eq!(process.hear().await.as_deref(), Some("ready"));
        let said = process.hear().await.expect("a figure");
        deleted += said.parse::<i64>().expect("a number");
    }
    assert_eq!(deleted, 1_500);
    site.assert_all_died_once(1_500).await;
    for process in processes {
        process.end().await;
    }
}

/// Its batch is carried out as far as its lock, and never committed.
#[tokio::test]
async fn what_a_killed_process_leaves_is_reaped_by_the_next() {
    let site = Site::new().await;
    site.cemetery(100).await;
    // In the third batch.
    let held = site.hold_dead50().await;
    let mut process = site.reapers_process();
    assert_eq!(process.hear().await.as_deref(), Some("ready"));
    site.is_in_mid_batch().await;
    process.kill().await;
    assert_eq!(site.deaths().await, 40);
    // The server does not know yet that its client has stopped waiting.
    let next = Reaper::new(site.store.clone());
    let refused = next.run_once().await.expect("a database");
    assert_eq!(refused.reason, StopReason::OtherReaper);
    held.rollback().await.expect("a rollback");
    site.settled().await;
    assert_eq!(site.deaths().await, 40);
    let reaped = next.run_once().await.expect("a database");
    assert_eq!(reaped.deleted, 60);
    site.assert_all_died_once(100).await;
}

#[tokio::test]
async fn a_run_whose_backend_was_terminated_fails_and_the_next_one_reaps_the_rest() {
    let site = Site::new().await;
    site.cemetery(100).await;
    let held = site.hold_dead50().await;
    let reaper = Reaper::new(site.elsewhere().await).batch_size(BATCH);
    let running = tokio::spawn({
        let reaper = reaper.clone();
        async move { reaper.run_once().await }
    });
    site.is_in_mid_batch().await;
    site.terminate_reapers().await;
    let failed = patiently(running).await.expect("no panic");
    let failed = failed.expect_err("its connection is gone");
    assert_eq!(failed.kind(), axum_pg_session::ErrorKind::Unavailable);
    held.rollback().await.expect("a rollback");
    let reaped = reaper.run_once().await.expect("a database");
    assert_eq!(reaped.deleted, 60);
    site.assert_all_died_once(100).await;
}

/// It fails within the store's timeout, says so, and goes on. The backend that
/// waits for the table still has the reapers' lock, so that no other one comes
/// to wait beside it; the connection is no request's.
#[tokio::test]
async fn a_locked_table_costs_the_reaper_its_runs_and_requests_no_connection() {
    let log = Log::keep();
    let site = Site::new().await;
    site.cemetery(10).await;
    let two = pool(site.database.url(), 2).await;
    let store = PgSessionStore::new(two.clone()).timeout(Duration::from_millis(300));
    store.check().await.expect("a table");
    let visits = site.store.clone().table("visit");
    visits.migrate().await.expect("a second table");
    let visits = PgSessionStore::new(two.clone()).table("visit");
    let mut visitor = Browser::new(&app(PgSessionLayer::new(visits)));
    visitor.get("/increment/n").await;

    let table = site.lock_table().await;
    let interval = Duration::from_millis(50);
    let handle = Reaper::new(store.clone()).interval(interval).spawn();
    let failures = || {
        let log = log.text();
        log.matches("expired sessions could not be deleted").count()
    };
    until(async || failures() >= 2).await;
    assert!(!handle.is_finished());
    for n in 2..=20 {
        let response = visitor.get("/increment/n").await;
        assert_eq!(response.body, n.to_string());
    }
    table.rollback().await.expect("a rollback");
    until(async || site.deaths().await == 10).await;
    site.assert_all_died_once(10).await;
    patiently(handle.stop()).await;
    assert!(two.size() <= 2);
}

/// Before and behind it, in one batch with it and in others.
#[tokio::test]
async fn a_row_that_is_locked_keeps_no_other_from_being_reaped() {
    let site = Site::new().await;
    site.cemetery(100).await;
    let rows = [
        site.lock_row("dead100").await,
        site.lock_row("dead30").await,
    ];
    let reaper = Reaper::new(site.elsewhere().await).batch_size(BATCH);
    let reaped = patiently(reaper.run_once()).await.expect("a run");
    assert_eq!((reaped.deleted, reaped.reason), (98, StopReason::Drained));
    for row in rows {
        row.rollback().await.expect("a rollback");
    }
    assert_eq!(reaper.run_once().await.expect("a run").deleted, 2);
    site.assert_all_died_once(100).await;
}

/// Such as an application's table that references the session of an order.
#[tokio::test]
async fn rows_that_can_not_be_deleted_keep_no_other_from_being_reaped() {
    let site = Site::new().await;
    site.cemetery(100).await;
    site.order("VALUES ('dead1'), ('dead30'), ('dead100')")
        .await;
    let reaper = Reaper::new(site.elsewhere().await).batch_size(BATCH);
    let error = reaper.run_once().await.expect_err("three rows are left");
    assert!(error.to_string().contains("can't be deleted"), "{error}");
    let left = texts(
        &site.pool,
        "SELECT id FROM session WHERE id LIKE 'dead%' ORDER BY id",
    )
    .await;
    assert_eq!(left, ["dead1", "dead100", "dead30"]);
    execute(&site.pool, "DROP TABLE orders").await;
    assert_eq!(reaper.run_once().await.expect("a run").deleted, 3);
}

/// One of the first batch, and the oldest of all.
#[tokio::test]
async fn rows_that_a_trigger_keeps_without_an_error_keep_no_other_from_being_reaped() {
    let site = Site::new().await;
    site.cemetery(100).await;
    site.spare("OLD.id IN ('dead100', 'dead90')").await;
    let reaper = Reaper::new(site.elsewhere().await).batch_size(BATCH);
    let error = reaper.run_once().await.expect_err("two rows are left");
    assert!(error.to_string().contains("can't be deleted"), "{error}");
    let left = texts(
        &site.pool,
        "SELECT id FROM session WHERE id LIKE 'dead%' ORDER BY id",
    )
    .await;
    assert_eq!(left, ["dead100", "dead90"]);
    execute(&site.pool, "DROP TRIGGER spare ON session").await;
    assert_eq!(reaper.run_once().await.expect("a run").deleted, 2);
    site.assert_all_died_once(100).await;
}

/// More of them than a batch has.
#[tokio::test]
async fn a_trigger_that_keeps_whole_batches_keeps_no_other_row_from_being_reaped() {
    let site = Site::new().await;
    site.cemetery(100).await;
    site.spare("substr(OLD.id, 5)::int > 50").await;
    let reaper = Reaper::new(site.elsewhere().await).batch_size(BATCH);
    reaper.run_once().await.expect_err("rows are left");
    let left = "SELECT count(*)::text FROM session WHERE id LIKE 'dead%'";
    assert_eq!(texts(&site.pool, left).await, ["50"]);
}
