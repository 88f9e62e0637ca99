//! Statements that the server cancels because of a deadlock are executed again.

use axum_pg_session::Reaper;
use sqlx::{Postgres, Transaction};
use tokio::task::JoinHandle;

use crate::support::{
    Meters, Site, execute,
    page::{PATIENCE, patiently},
    timers::site_with_timers,
};

/// The server looks for a deadlock after a wait that is this long.
const QUICK: [(&str, &str); 1] = [("deadlock_timeout", "100ms")];

/// Another writer that holds what the next statement of the store will wait for
/// once it has locked its row, and waits for that row before it does: a deadlock,
/// of which the store's statement is the victim.
struct Rival {
    rival: Transaction<'static, Postgres>,
    gate: Transaction<'static, Postgres>,
}

impl Rival {
    async fn of(site: &Site) -> Self {
        execute(
            &site.pool,
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM pg_advisory_xact_lock_shared(2);
                 PERFORM pg_advisory_xact_lock_shared(1);
                 RETURN NULL;
             END $$;
             CREATE TRIGGER wait AFTER UPDATE OR DELETE ON session
             FOR EACH ROW EXECUTE FUNCTION wait()",
        )
        .await;
        let mut rival = site.pool.begin().await.expect("a transaction");
        sqlx::raw_sql("SET LOCAL deadlock_timeout = '1min'; SELECT pg_advisory_xact_lock(1)")
            .execute(&mut *rival)
            .await
            .expect("a lock");
        let mut gate = site.pool.begin().await.expect("a transaction");
        sqlx::raw_sql("SELECT pg_advisory_xact_lock(2)")
            .execute(&mut *gate)
            .await
            .expect("a lock");
        Self { rival, gate }
    }

    /// What the task comes to, whose first attempt fails.
    async fn meets<T>(mut self, site: &Site, task: JoinHandle<T>) -> T {
        site.blocked(1).await;
        let rival = tokio::spawn(async move {
            sqlx::query("SELECT FROM session FOR UPDATE")
                .execute(&mut *self.rival)
                .await
                .expect("the other one is the victim");
            self.rival.commit().await.expect("a commit");
        });
        site.blocked(2).await;
        self.gate.commit().await.expect("no changes");
        patiently(rival).await.expect("no panic");
        patiently(task).await.expect("no panic")
    }
}

#[tokio::test]
async fn a_request_that_meets_a_deadlock_is_made_again() {
    for page in ["/destroy", "/increment/n", "/cycle"] {
        let Some((site, _server)) = site_with_timers(&QUICK).await else {
            return;
        };
        let browser = site.signed_in("alice").await;
        let rival = Rival::of(&site).await;
        let visit = tokio::spawn(async move { browser.peek(page).await });
        let response = rival.meets(&site, visit).await;
        assert_eq!(response.status, 200, "{page}: {}", response.body);
    }
}

#[tokio::test]
async fn a_touch_that_meets_a_deadlock_is_made_again() {
    let Some((site, _server)) = site_with_timers(&QUICK).await else {
        return;
    };
    let browser = site.signed_in("alice").await;
    site.rows().age(7200.0).await;
    let rival = Rival::of(&site).await;
    let visit = tokio::spawn(async move { browser.peek("/keys").await.status });
    assert_eq!(rival.meets(&site, visit).await, 200);
    assert!(site.rows().seconds_left().await > 86_000.0);
}

#[tokio::test]
async fn a_reaper_that_meets_a_deadlock_runs_again() {
    let Some((site, _server)) = site_with_timers(&QUICK).await else {
        return;
    };
    site.signed_in("alice").await;
    site.rows().age(90_000.0).await;
    let rival = Rival::of(&site).await;
    let reaper = Reaper::new(site.store.clone());
    let run = tokio::spawn(async move { reaper.run_once().await });
    let report = rival.meets(&site, run).await;
    assert_eq!(report.expect("a second attempt").deleted, 1);
}

#[tokio::test]
async fn a_call_that_meets_a_deadlock_is_made_again_and_counts_as_no_failure() {
    let meters = Meters::install();
    for call in ["destroy", "user", "all", "everyone"] {
        let Some((site, _server)) = site_with_timers(&QUICK).await else {
            return;
        };
        let browser = site.signed_in("alice").await;
        let id = browser.handle().await;
        let rival = Rival::of(&site).await;
        let store = site.store.clone().timeout(PATIENCE);
        store.check().await.expect("a table");
        let ending = tokio::spawn(async move {
            let alice = store.user("alice");
            match call {
                "destroy" => store.destroy(&id).await.map(u64::from),
                "user" => alice.destroy(&id).await.map(u64::from),
                "all" => alice.destroy_all().await,
                _ => store.destroy_everyone().await,
            }
        });
        let ended = rival.meets(&site, ending).await;
        assert_eq!(ended.expect(call), 1, "{call}");
        let moved = meters.moved();
        let failures: Vec<_> = moved
            .iter()
            .filter(|line| line.starts_with("failures"))
            .collect();
        assert!(failures.is_empty(), "{call}: {failures:?}");
    }
}
