//! Databases with another default isolation level.
//!
//! The rest of the tests runs under one with
//! `DEV_POSTGRES_SETTINGS=default_transaction_isolation=serializable`.

use std::{num::NonZeroU32, time::Duration};

use axum::Router;
use axum_pg_session::{Login, PgSessionLayer, PgSessionStore, Reaper, Session, SessionLimitPolicy};
use sqlx::{Postgres, Transaction};
use tokio::task::{JoinHandle, JoinSet};

use crate::support::{
    Browser, Site, app, execute,
    page::{PATIENCE, app_with, login_page, minutes_later, patiently, until},
    proxy::Proxy,
    site::pool,
};

const LEVELS: [&str; 2] = ["repeatable read", "serializable"];
const THREE: NonZeroU32 = NonZeroU32::new(3).expect("not zero");

/// A site whose store connects under this level.
struct Under {
    site: Site,
    level: &'static str,
}

impl Under {
    async fn new(level: &'static str) -> Self {
        let site = Site::new().await;
        site.set_isolation(level).await;
        Self { site, level }
    }

    /// Another process.
    async fn store(&self) -> PgSessionStore {
        let pool = pool(self.site.database.url(), 12).await;
        let found: String = sqlx::query_scalar("SHOW transaction_isolation")
            .fetch_one(&pool)
            .await
            .expect("a level");
        assert_eq!(found, self.level);
        // A busy machine needs a while for so many logins at once.
        PgSessionStore::new(pool).timeout(Duration::from_secs(25))
    }

    async fn app(&self) -> Router {
        let login = async |session: Session| session.login(Login::new("alice"));
        app_with(PgSessionLayer::new(self.store().await), login)
    }

    /// A visitor who is signed in.
    async fn visitor(&self) -> Browser {
        let mut browser = Browser::new(&self.app().await);
        assert_eq!(browser.get("/page").await.status, 200, "{}", self.level);
        browser
    }

    /// Another process has written every row, and has not committed yet.
    async fn write_every_row(&self) -> Transaction<'static, Postgres> {
        let write = "UPDATE session SET expiry = expiry + interval '1 second'";
        self.site.open_transaction(write).await
    }

    /// Commits when this task, which has begun before, waits for a row.
    async fn commit_once_blocked<T>(
        &self,
        other: Transaction<'static, Postgres>,
        task: JoinHandle<T>,
    ) -> T {
        self.site.blocked(1).await;
        other.commit().await.expect("a commit");
        patiently(task).await.expect("no panic")
    }
}

#[tokio::test]
async fn a_limit_of_sessions_holds_under_every_isolation_level() {
    for level in LEVELS {
        for (at_limit, signed_in) in [
            (SessionLimitPolicy::EndOldest, 20),
            (SessionLimitPolicy::Refuse, 3),
        ] {
            let under = Under::new(level).await;
            let commits = under.site.hold_commits().await;
            let mut logins = JoinSet::new();
            for _ in 0..2 {
                let store = under.store().await.max_connections(NonZeroU32::MAX);
                let store = store.max_sessions_per_user(THREE, at_limit);
                // No login may time out while it waits for the others.
                let store = store.timeout(PATIENCE);
                let app = login_page(&store);
                for _ in 0..10 {
                    let browser = Browser::new(&app);
                    logins.spawn(async move { browser.peek("/page").await.status.as_u16() });
                }
            }
            // One login waits to commit, and another waits for its lock. The others may be between two
            // attempts.
            under.site.blocked_at_least(2).await;
            commits.commit().await.expect("no changes");
            let statuses = patiently(logins.join_all()).await;
            let succeeded = statuses.iter().filter(|status| **status == 200).count();
            assert_eq!(succeeded, signed_in, "{level}, {at_limit:?}: {statuses:?}");
            let alice = under.site.store.user("alice");
            assert_eq!(alice.count().await.expect("a count"), 3, "{level}");
        }
    }
}

#[tokio::test]
async fn logins_at_once_succeed_under_every_isolation_level() {
    for level in LEVELS {
        let under = Under::new(level).await;
        let mut logins = JoinSet::new();
        for _ in 0..2 {
            let app = under.app().await;
            for _ in 0..20 {
                let browser = Browser::new(&app);
                logins.spawn(async move { browser.peek("/page").await.status.as_u16() });
            }
        }
        let statuses = patiently(logins.join_all()).await;
        assert_eq!(statuses, [200; 40], "{level}");
    }
}

#[tokio::test]
async fn requests_that_meet_another_writer_succeed_under_every_isolation_level() {
    for level in LEVELS {
        for page in ["/increment/n", "/cycle", "/page", "/destroy"] {
            let under = Under::new(level).await;
            let visitor = under.visitor().await;
            let other = under.write_every_row().await;
            let visit = tokio::spawn(async move { visitor.peek(page).await });
            let response = under.commit_once_blocked(other, visit).await;
            assert_eq!(response.status, 200, "{level}, {page}: {}", response.body);
        }
    }
}

#[tokio::test]
async fn sessions_are_ended_from_elsewhere_under_every_isolation_level() {
    for level in LEVELS {
        let under = Under::new(level).await;
        for call in ["destroy", "user", "all", "others", "everyone"] {
            let visitor = under.visitor().await;
            let id = visitor.handle().await;
            let kept = match call {
                "others" => Some(under.visitor().await.peek("/id").await.body),
                _ => None,
            };
            let store = under.store().await;
            store.check().await.expect("a table");
            let other = under.write_every_row().await;
            let ending = tokio::spawn(async move {
                let alice = store.user("alice");
                let kept = kept.map(|kept| kept.parse().expect("a handle"));
                match call {
                    "destroy" => store.destroy(&id).await.map(u64::from),
                    "user" => alice.destroy(&id).await.map(u64::from),
                    "all" => alice.destroy_all().await,
                    "others" => alice.destroy_others(&kept.expect("another")).await,
                    _ => store.destroy_everyone().await,
                }
            });
            let ended = under.commit_once_blocked(other, ending).await;
            assert_eq!(ended.expect(call), 1, "{level}, {call}");
            execute(&under.site.pool, "TRUNCATE session").await;
        }
    }
}

#[tokio::test]
async fn changes_of_two_processes_merge_under_every_isolation_level() {
    for level in LEVELS {
        let under = Under::new(level).await;
        let mut browser = under.visitor().await;
        let mut visits = JoinSet::new();
        for _ in 0..2 {
            let app = app(PgSessionLayer::new(under.store().await));
            for _ in 0..20 {
                let browser = browser.at(&app);
                visits.spawn(async move { browser.peek("/increment/n").await.status.as_u16() });
            }
        }
        assert_eq!(patiently(visits.join_all()).await, [200; 40], "{level}");
        assert_eq!(browser.get("/get/n").await.body, "40", "{level}");
    }
}

#[tokio::test]
async fn the_reaper_meets_other_writers_under_every_isolation_level() {
    for level in LEVELS {
        let under = Under::new(level).await;
        under.visitor().await;
        under.site.rows().age(90_000.0).await;
        let other = under.write_every_row().await;
        let reaper = Reaper::new(under.store().await);
        let run = tokio::spawn(async move { reaper.run_once().await });
        let report = under.commit_once_blocked(other, run).await;
        assert_eq!(report.expect(level).deleted, 1, "{level}");
    }
}

/// The level is not one of the connection alone: the server's configuration is
/// read again while processes run.
#[tokio::test]
async fn a_level_that_changes_while_a_process_runs_costs_no_request() {
    let site = Site::new().await;
    let one = pool(site.database.url(), 3).await;
    let app = app(PgSessionLayer::new(PgSessionStore::new(one.clone())));
    let mut browser = Browser::with_session(&app).await;
    site.set_isolation("serializable").await;
    execute(
        &site.pool,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    .await;
    assert_eq!(browser.get("/increment/n").await.body, "1");
    for page in ["/increment/n", "/increment/n", "/destroy"] {
        let other = site
            .open_transaction("UPDATE session SET expiry = expiry + interval '1 second'")
            .await;
        let visitor = browser.clone();
        let visit = tokio::spawn(async move { visitor.peek(page).await.status });
        site.blocked(1).await;
        other.commit().await.expect("a commit");
        assert_eq!(patiently(visit).await.expect("no panic"), 200, "{page}");
    }
}

/// Under READ COMMITTED, a row that moves to another partition causes it, too.
#[tokio::test]
async fn one_serialization_failure_does_not_give_each_statement_a_transaction_for_good() {
    let site = Site::new().await;
    let proxy = Proxy::before(site.database.url()).await;
    let layer = PgSessionLayer::new(PgSessionStore::new(proxy.pool().await));
    let mut browser = Browser::with_session(&app(layer)).await;
    execute(
        &site.pool,
        "CREATE SEQUENCE failures;
         CREATE FUNCTION fail_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF nextval('failures') = 1 THEN RAISE SQLSTATE '40001'; END IF; RETURN NEW;
         END $$;
         CREATE TRIGGER fail_once BEFORE UPDATE ON session FOR EACH ROW EXECUTE FUNCTION fail_once()",
    )
    .await;
    assert_eq!(browser.get("/increment/n").await.body, "1");
    minutes_later(1).await;
    let is_without = async || {
        proxy.take_texts();
        assert_eq!(browser.peek("/increment/n").await.status, 200);
        let texts = proxy.take_texts();
        !texts.iter().any(|text| text.starts_with("BEGIN"))
    };
    patiently(until(is_without)).await;
}
