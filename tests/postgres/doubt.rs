//! Connections that are lost, and responses that are late, while a change is
//! in flight.

use std::{cell::Cell, sync::Arc};

use axum::Router;
use axum_pg_session::{Error, ErrorKind, PgSessionLayer, PgSessionStore, Session};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::Notify;

use crate::support::{
    Browser, Site, app,
    page::{InFlight, app_with, dropped_after, patiently, until},
    proxy::Proxy,
    skip::server_with_timeouts,
    texts,
};

/// A site that reaches its database through a proxy, and a visitor of it.
struct Exposed {
    site: Site,
    proxy: Proxy,
    store: PgSessionStore,
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
        let store = PgSessionStore::new(pool);
        let app = app(PgSessionLayer::new(store.clone()));
        let mut browser = Browser::new(&app);
        browser.get("/increment/n").await;
        Self {
            site,
            proxy,
            store,
            app,
            browser,
        }
    }

    /// Visits `path` while the row is locked. Once its statement waits there,
    /// `meanwhile` happens, and the lock is released.
    async fn visit_locked(&self, path: &'static str, meanwhile: impl AsyncFnOnce()) -> u16 {
        let lock = self.site.lock_rows().await;
        let browser = self.browser.at(&self.app);
        let visit = tokio::spawn(async move { browser.peek(path).await.status.as_u16() });
        self.site.blocked(1).await;
        meanwhile().await;
        lock.commit().await.expect("a lock released");
        visit.await.expect("no panic")
    }

    /// Visits `path`, and cuts the connection as soon as its statement waits
    /// for a lock.
    async fn visit_and_cut(&self, path: &'static str) -> u16 {
        let browser = self.browser.at(&self.app);
        let visit = tokio::spawn(async move { browser.peek(path).await.status.as_u16() });
        self.site.blocked(1).await;
        self.proxy.cut();
        patiently(visit).await.expect("no panic")
    }

    async fn n(&self) -> i64 {
        self.site.rows().document().await["n"]
            .as_i64()
            .expect("a number")
    }
}

/// The server goes on with a statement whose client is gone. Sent again, it
/// could be carried out a second time much later, when the row holds the same
/// text again.
#[tokio::test]
async fn a_change_whose_connection_was_cut_is_not_sent_again() {
    let exposed = Exposed::new().await;
    let lock = exposed.site.lock_rows().await;
    assert_eq!(exposed.visit_and_cut("/increment/n").await, 503);
    lock.commit().await.expect("a lock released");
    until(async || exposed.n().await == 2).await;
}

/// The row holds the change by then.
#[tokio::test]
async fn a_change_in_doubt_that_is_taken_back_is_written() {
    for touches in [false, true] {
        taken_back_in_doubt(touches).await;
    }
}

/// A touch looks at the expiry alone.
async fn taken_back_in_doubt(touches: bool) {
    let exposed = Exposed::new().await;
    let lock = exposed.site.lock_rows().await;
    let visit = InFlight::begin(&exposed.browser, "/page", |gate| {
        let layer = PgSessionLayer::new(exposed.store.clone());
        app_with(layer, async move |session: Session| {
            session.insert("n", 2)?;
            let saving = async {
                let error = session.save().await.expect_err("cut");
                assert_eq!(error.kind(), ErrorKind::Unavailable);
            };
            tokio::join!(saving, gate.pass());
            if touches {
                session.touch()?;
                session.save().await?;
            }
            session.insert("n", 1)
        })
    })
    .await;
    exposed.site.blocked(1).await;
    exposed.proxy.cut();
    lock.commit().await.expect("a lock released");
    until(async || exposed.n().await == 2).await;
    assert_eq!(visit.finish().await.status, 200);
    assert_eq!(exposed.n().await, 1);
}

/// Carried out a second time, it would bring a session back that had ended.
/// Only the task that deletes the row again inserts once more, and nothing of
/// the session.
#[tokio::test]
async fn a_new_session_whose_connection_was_cut_is_not_inserted_again() {
    let mut exposed = Exposed::new().await;
    let old = exposed.browser.get("/id").await.body;
    exposed.browser.jar.clear();
    // Inserts wait while they are executed, after they got their document.
    exposed
        .site
        .rows()
        .execute(
            "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END $$;
             CREATE TRIGGER wait BEFORE INSERT ON TABLE FOR EACH ROW EXECUTE FUNCTION wait()",
        )
        .await;
    let lock = exposed.site.hold_advisory_lock().await;
    assert_eq!(exposed.visit_and_cut("/insert/only_once/1").await, 503);
    lock.rollback().await.expect("a rollback");
    let ids = "SELECT id FROM session";
    until(async || texts(&exposed.site.pool, ids).await == [old.as_str()]).await;
    exposed.site.settled().await;
    assert_eq!(exposed.proxy.times_sent(b"only_once"), 1);
}

/// A terminated backend has changed nothing, so the statement is executed again.
#[tokio::test]
async fn a_change_and_a_cycle_whose_backend_was_terminated_are_made_once() {
    for (page, n) in [("/increment/n", 2), ("/cycle", 1)] {
        let exposed = Exposed::new().await;
        let status = exposed
            .visit_locked(page, async || {
                terminate_waiters(&exposed.site.pool).await;
                exposed.site.blocked(1).await;
            })
            .await;
        assert_eq!((status, exposed.n().await), (200, n), "{page}");
        assert_eq!(exposed.site.rows().count().await, 1, "{page}");
    }
}

/// The server has ended the connection before the statement reached it.
#[tokio::test]
async fn a_change_on_a_connection_that_the_server_ended_as_idle_is_made() {
    let Some(server) = server_with_timeouts().await else {
        return;
    };
    let site = Site::on(server.test_database().await.expect("a database")).await;
    site.store.migrate().await.expect("a table");
    let local: PgConnectOptions = site.database.url().parse().expect("a URL");
    // To a socket that was closed nothing can be written, so its last message is lost.
    let options = PgConnectOptions::new()
        .host("127.0.0.1")
        .port(server.port().expect("it listens on TCP"))
        .username(local.get_username())
        .database(local.get_database().expect("a name"));
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .connect_with(options.options([
            ("idle_session_timeout", "50ms"),
            ("application_name", "idle"),
            ("default_transaction_isolation", "read committed"),
        ]))
        .await
        .expect("a connection");
    let store = PgSessionStore::new(pool);
    let page = |act: fn(&Session) -> Result<(), Error>| {
        let direct = site.pool.clone();
        let page = async move |session: Session| -> Result<(), Error> {
            session.get::<u64>("n")?;
            let open = "SELECT pid::text FROM pg_stat_activity WHERE application_name = 'idle'
                        AND datname = current_database()";
            until(async || texts(&direct, open).await.is_empty()).await;
            act(&session)
        };
        app_with(PgSessionLayer::new(store.clone()), page)
    };
    let mut browser = Browser::new(&page(|session| {
        session
            .update("n", |n: Option<u64>| n.unwrap_or(0) + 1)
            .map(drop)
    }));
    for n in 1..=3 {
        assert_eq!(browser.get("/page").await.status, 200);
        assert_eq!(site.rows().document().await["n"], n);
    }
    let logout = browser.at(&page(Session::destroy));
    assert_eq!(logout.peek("/page").await.status, 200);
    assert_eq!(site.rows().count().await, 0);
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
    let lock = exposed.site.lock_rows().await;
    let browser = exposed.browser.at(&exposed.app);
    let visit = tokio::spawn(async move { browser.peek("/increment/n").await });
    exposed.site.blocked(1).await;
    visit.abort();
    assert!(visit.await.expect_err("aborted").is_cancelled());
    lock.commit().await.expect("a lock released");
    until(async || exposed.n().await == 2).await;
}

/// The worker of a session remembers the row that it wrote last. Another
/// process may have written since, so that a removal which the remembered row
/// has no need of is one all the same.
#[tokio::test]
async fn a_change_that_only_an_older_row_has_no_need_of_is_made() {
    let exposed = Exposed::new().await;
    let elsewhere = exposed.browser.at(&exposed.site.app());
    exposed.proxy.withhold_responses_of_updates(true);
    let here = exposed.browser.at(&exposed.app);
    let first = tokio::spawn(async move { here.peek("/increment/n").await.status });
    until(async || exposed.n().await == 2).await;
    assert!(elsewhere.peek("/insert/b/1").await.status.is_success());
    let removed = Arc::new(Notify::new());
    let tell = Arc::clone(&removed);
    // On one thread nothing else runs between this and the save.
    let page = async move |session: Session| {
        tell.notify_one();
        let removed = session.remove::<String>("b");
        removed.map(Option::unwrap_or_default)
    };
    let here = app_with(PgSessionLayer::new(exposed.store.clone()), page);
    let here = exposed.browser.at(&here);
    let second = tokio::spawn(async move { here.peek("/page").await.body });
    removed.notified().await;
    exposed.proxy.withhold_responses_of_updates(false);
    assert!(patiently(first).await.expect("no panic").is_success());
    assert_eq!(patiently(second).await.expect("no panic"), "1");
    assert_eq!(exposed.browser.peek("/get/b").await.body, "none");
}

/// Wherever the client is lost, there is one session with all its data, and
/// the old token opens it unless the new one is stored.
#[tokio::test]
async fn a_cycle_dropped_at_any_await_leaves_old_or_new() {
    let site = Site::new().await;
    for polls in 0.. {
        site.rows().execute("DELETE FROM TABLE").await;
        let mut browser = site.visitor().await;
        let old = browser.get("/id").await.body;
        let cycle = browser.clone();
        let finished = dropped_after(cycle.peek("/cycle"), polls).await.is_some();
        let live = "SELECT id FROM session WHERE expiry > now() + interval '1 hour'";
        let is_old = Cell::new(false);
        // Until the task that undoes the new id is through, if there is one.
        until(async || {
            site.settled().await;
            let document = site.rows().document().await;
            assert_eq!(document, serde_json::json!({"a": "1"}));
            is_old.set(texts(&site.pool, live).await == [old.as_str()]);
            let expected = if is_old.get() { "\"1\"" } else { "none" };
            browser.peek("/get/a").await.body == expected
        })
        .await;
        if finished {
            assert!(!is_old.get() && polls > 1, "after {polls} polls");
            break;
        }
    }
}
