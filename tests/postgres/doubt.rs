//! Connections that are lost while a change is under way.

use std::time::Duration;

use axum::Router;
use axum_pg_session::{PgSessionLayer, PgSessionStore};
use sqlx::{PgPool, Postgres, Transaction, postgres::PgPoolOptions};
use tokio::time::{sleep, timeout};

use crate::support::{Browser, Site, app, proxy::Proxy};

/// A site that reaches its database through a proxy, and a visitor of it.
struct Exposed {
    site: Site,
    proxy: Proxy,
    app: Router,
    browser: Browser,
}

impl Exposed {
    async fn new() -> Self {
        let site = Site::new().await;
        let proxy = Proxy::before(site.database.url()).await;
        let pool = PgPoolOptions::new()
            .connect_with(proxy.options())
            .await
            .expect("a connection");
        let app = app(PgSessionLayer::new(PgSessionStore::new(pool)));
        let mut browser = Browser::new(&app);
        browser.get("/increment/n").await;
        Self {
            site,
            proxy,
            app,
            browser,
        }
    }

    /// Visits `path` while the row is locked. Once its statement waits there,
    /// `meanwhile` happens, and the lock is given back.
    async fn visit_locked(&self, path: &'static str, meanwhile: impl AsyncFnOnce()) -> u16 {
        let lock = lock_row(&self.site.pool).await;
        let browser = self.browser.at(&self.app);
        let visit = tokio::spawn(async move { browser.peek(path).await.status.as_u16() });
        waiters(&self.site.pool, 1).await;
        meanwhile().await;
        lock.commit().await.expect("a lock given back");
        visit.await.expect("no panic")
    }

    async fn n(&self) -> i64 {
        self.site.rows().document().await["n"]
            .as_i64()
            .expect("a number")
    }
}

async fn lock_row(pool: &PgPool) -> Transaction<'static, Postgres> {
    let mut transaction = pool.begin().await.expect("a transaction");
    sqlx::query("SELECT id FROM public.session FOR UPDATE")
        .execute(&mut *transaction)
        .await
        .expect("a lock");
    transaction
}

async fn waiters(pool: &PgPool, wanted: i64) {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let waiting = async {
        while sqlx::query_scalar::<_, i64>(sql)
            .fetch_one(pool)
            .await
            .expect("a count")
            < wanted
        {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), waiting)
        .await
        .expect("statements that wait");
}

/// The server goes on with a statement whose client is gone. The crate sends
/// it again, and both wait for the same lock: only one may count.
#[tokio::test]
async fn a_change_whose_connection_was_cut_is_not_made_twice() {
    let exposed = Exposed::new().await;
    let status = exposed
        .visit_locked("/increment/n", async || {
            exposed.proxy.cut();
            waiters(&exposed.site.pool, 2).await;
        })
        .await;
    assert_eq!((status, exposed.n().await), (503, 2));
}

/// A terminated backend has changed nothing, so the change is made after all.
#[tokio::test]
async fn a_change_whose_backend_was_terminated_is_made_once() {
    let exposed = Exposed::new().await;
    let status = exposed
        .visit_locked("/increment/n", async || {
            terminate_waiters(&exposed.site.pool).await;
            waiters(&exposed.site.pool, 1).await;
        })
        .await;
    assert_eq!((status, exposed.n().await), (200, 2));
}

#[tokio::test]
async fn a_cycle_whose_backend_was_terminated_is_made_once() {
    let exposed = Exposed::new().await;
    let status = exposed
        .visit_locked("/cycle", async || {
            terminate_waiters(&exposed.site.pool).await;
            waiters(&exposed.site.pool, 1).await;
        })
        .await;
    assert_eq!(status, 200);
    assert_eq!(exposed.site.rows().count().await, 1);
}

async fn terminate_waiters(pool: &PgPool) {
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    .execute(pool)
    .await
    .expect("backends terminated");
}

#[tokio::test]
async fn a_client_that_leaves_after_the_handler_loses_nothing() {
    let exposed = Exposed::new().await;
    let lock = lock_row(&exposed.site.pool).await;
    let browser = exposed.browser.at(&exposed.app);
    let visit = tokio::spawn(async move { browser.peek("/increment/n").await });
    waiters(&exposed.site.pool, 1).await;
    visit.abort();
    assert!(visit.await.expect_err("aborted").is_cancelled());
    lock.commit().await.expect("a lock given back");
    let committed = async {
        while exposed.n().await < 2 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(10), committed)
        .await
        .expect("the change is committed");
}
