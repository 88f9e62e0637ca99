//! Each kind of work with a session, dropped at each of its polls. Afterwards the session is old or
//! new, and no task, lock or connection is left.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use axum_pg_session::{
    Error, PgSessionLayer, PgSessionStore, Reaper, Session, SessionId, SessionLimitPolicy,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{runtime::Handle, task::JoinSet};

use crate::support::{
    Browser, Site, execute,
    page::{PATIENCE, dropped_after},
    site::{pages, pool},
    texts,
};

/// Connections of the store.
const CONNECTIONS: u32 = 4;
const USER: &str = "ann";

/// A store whose work is dropped, and a site beside it that looks on.
struct Stage {
    site: Site,
    pool: PgPool,
    store: PgSessionStore,
    /// While nothing is in flight.
    tasks: usize,
}

/// What is there while and after something was in flight.
#[derive(Debug, PartialEq)]
struct Left {
    tasks: usize,
    /// Connections of the pool that it has not got back.
    lent: usize,
    /// Locks of any kind, of all connections.
    locks: i64,
    /// Backends that are at work, or in a transaction.
    busy: i64,
}

impl Stage {
    /// Sessions may use the whole pool, so that no connection is kept for the
    /// next request and all can be counted at once.
    async fn new() -> Self {
        let site = Site::new().await;
        let pool = pool(site.database.url(), CONNECTIONS).await;
        let store = PgSessionStore::new(pool.clone()).max_connections(NonZeroU32::MAX);
        store.check().await.expect("a table");
        let tasks = Handle::current().metrics().num_alive_tasks();
        let mut stage = Self {
            site,
            pool,
            store,
            tasks,
        };
        stage.tasks = stage.tasks_at_rest().await;
        stage
    }

    /// The pools have a task each; what gives a connection back ends.
    async fn tasks_at_rest(&self) -> usize {
        let mut least = usize::MAX;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            least = least.min(Handle::current().metrics().num_alive_tasks());
        }
        least
    }

    fn layer(&self) -> PgSessionLayer {
        PgSessionLayer::new(self.store.clone())
    }

    fn app(&self) -> Router {
        more_pages().layer(self.layer())
    }

    fn browser(&self) -> Browser {
        Browser::new(&self.app())
    }

    async fn left(&self) -> Left {
        let sql = "
            SELECT (SELECT count(*) FROM pg_locks
                    WHERE pid <> pg_backend_pid()
                      AND database = (SELECT oid FROM pg_database
                                      WHERE datname = current_database())),
                   (SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND pid <> pg_backend_pid()
                      AND state <> 'idle')";
        let mut connection = self.site.pool.acquire().await.expect("a connection");
        let (locks, busy) = sqlx::query_as(sql)
            .fetch_one(&mut *connection)
            .await
            .expect("figures");
        drop(connection);
        // A task releases the connection of the inspection.
        tokio::task::yield_now().await;
        Left {
            tasks: Handle::current().metrics().num_alive_tasks(),
            lent: self.pool.size() as usize - self.pool.num_idle(),
            locks,
            busy,
        }
    }

    /// Returns when all that was begun is over.
    async fn nothing_is_left(&self, after: &str) {
        let nothing = Left {
            tasks: self.tasks,
            lent: 0,
            locks: 0,
            busy: 0,
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.left().await;
            if left == nothing {
                return;
            }
            assert!(Instant::now() < deadline, "{left:?} is left after {after}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Four transactions that wait for a lock each: a permit or a connection
    /// that was lost would leave one of them without.
    async fn all_connections_serve(&self) {
        self.clear().await;
        let mut visitors = Vec::new();
        for _ in 0..CONNECTIONS {
            visitors.push(self.visitor().await);
        }
        let lock = self.site.lock_rows().await;
        let mut visits = JoinSet::new();
        for visitor in visitors {
            visits.spawn(async move { visitor.peek("/cycle").await.status });
        }
        self.site.blocked(CONNECTIONS.into()).await;
        lock.rollback().await.expect("a rollback");
        let responses = visits.join_all().await;
        assert!(responses.iter().all(http::StatusCode::is_success));
    }

    async fn clear(&self) {
        self.site.rows().execute("DELETE FROM TABLE").await;
    }

    /// With a session that holds `n`, of a while ago.
    async fn visitor(&self) -> Browser {
        let mut browser = self.browser();
        browser.get("/increment/n").await;
        browser
    }

    /// Begins the work, drops it at its first poll, begins it anew, drops it at
    /// its second, and so on until it is done. Each time, `check` is called when no task or statement
    /// is running. Its argument is whether the work was done.
    async fn drop_at_every_poll<T>(
        &self,
        what: &str,
        mut prepare: impl AsyncFnMut() -> T,
        work: impl AsyncFn(&T),
        check: impl AsyncFn(&T, bool),
    ) {
        let mut polls = 0;
        loop {
            let prepared = prepare().await;
            self.nothing_is_left("the preparation").await;
            let is_done = dropped_after(work(&prepared), polls).await.is_some();
            self.nothing_is_left(&format!("{what} was polled {polls} times"))
                .await;
            check(&prepared, is_done).await;
            polls = match is_done {
                true if polls > 1 => break,
                // On a busy machine a response can be there at once.
                true => 0,
                false => polls + 1,
            };
        }
        self.all_connections_serve().await;
        self.nothing_is_left(what).await;
    }

    /// The same for a visit to a page, where the table then holds one of these
    /// sessions, and the last of them when the response was there.
    async fn drop_visits(&self, page: &str, allowed: &[&[Value]]) {
        let prepare = async || {
            self.clear().await;
            self.visitor().await
        };
        let visit = async |browser: &Browser| {
            let response = browser.peek(page).await;
            assert_eq!(response.status, 200, "{}", response.body);
        };
        self.drop_at_every_poll(page, prepare, visit, async |_, is_done| {
            self.assert_holds(allowed, is_done).await;
        })
        .await;
    }

    async fn assert_holds(&self, allowed: &[&[Value]], is_done: bool) {
        let documents = self.documents().await;
        match is_done {
            true => assert_eq!(Some(&&documents[..]), allowed.last()),
            false => assert!(allowed.contains(&&documents[..]), "{documents:?}"),
        }
    }

    /// Of the sessions, without the forwardings.
    async fn documents(&self) -> Vec<Value> {
        let sql = "SELECT (session::jsonb - '_session')::text FROM session
                   WHERE session::jsonb #> '{_session,successor}' IS NULL ORDER BY 1";
        let documents = texts(&self.site.pool, sql).await;
        documents
            .iter()
            .map(|text| serde_json::from_str(text).expect("JSON"))
            .collect()
    }
}

fn more_pages() -> Router {
    pages()
        .route("/login", get(async |session: Session| session.login(USER)))
        .route("/logout", get(async |session: Session| session.logout()))
        .route("/touch", get(async |session: Session| session.touch()))
        .route("/save", get(save_twice))
}

async fn save_twice(session: Session) -> Result<(), Error> {
    session.insert("a", 1)?;
    session.save().await?;
    session.insert("b", 2)
}

#[tokio::test]
async fn a_new_session_dropped_at_any_poll_is_there_whole_or_not_at_all() {
    let stage = Stage::new().await;
    let prepare = async || {
        stage.clear().await;
        stage.browser()
    };
    let visit = async |browser: &Browser| drop(browser.peek("/insert/a/1").await);
    stage
        .drop_at_every_poll("a new session", prepare, visit, async |_, is_done| {
            stage
                .assert_holds(&[&[], &[json!({"a": "1"})]], is_done)
                .await;
        })
        .await;
}

/// It looks at the table too.
#[tokio::test]
async fn a_first_request_dropped_at_any_poll_leaves_its_store_usable() {
    let stage = Stage::new().await;
    let prepare = async || {
        stage.clear().await;
        let unused = stage.store.clone().schema("public");
        Browser::new(&more_pages().layer(PgSessionLayer::new(unused)))
    };
    let visit = async |browser: &Browser| drop(browser.peek("/insert/a/1").await);
    stage
        .drop_at_every_poll("a first request", prepare, visit, async |browser, _| {
            assert_eq!(browser.peek("/increment/n").await.body, "1");
        })
        .await;
}

#[tokio::test]
async fn a_read_dropped_at_any_poll_changes_nothing() {
    let stage = Stage::new().await;
    stage.drop_visits("/get/n", &[&[json!({"n": 1})]]).await;
}

#[tokio::test]
async fn a_change_dropped_at_any_poll_is_made_once_or_not_at_all() {
    let stage = Stage::new().await;
    let (old, new) = ([json!({"n": 1})], [json!({"n": 2})]);
    stage.drop_visits("/increment/n", &[&old, &new]).await;
}

#[tokio::test]
async fn an_explicit_save_dropped_at_any_poll_saves_all_before_it_or_nothing() {
    let stage = Stage::new().await;
    let (old, saved) = ([json!({"n": 1})], [json!({"n": 1, "a": 1})]);
    let all = [json!({"n": 1, "a": 1, "b": 2})];
    stage.drop_visits("/save", &[&old, &saved, &all]).await;
}

#[tokio::test]
async fn a_touch_dropped_at_any_poll_extends_the_session_or_not() {
    let stage = Stage::new().await;
    let prepare = async || {
        stage.clear().await;
        let browser = stage.visitor().await;
        stage.site.rows().age(7200.0).await;
        browser
    };
    let visit = async |browser: &Browser| drop(browser.peek("/touch").await);
    stage
        .drop_at_every_poll("a touch", prepare, visit, async |_, is_done| {
            let left = stage.site.rows().seconds_left().await;
            let is_extended = (left - 86_400.0).abs() < 60.0;
            let is_as_before = (left - 79_200.0).abs() < 60.0;
            assert!(is_extended || (is_as_before && !is_done), "{left}");
            stage.assert_holds(&[&[json!({"n": 1})]], true).await;
        })
        .await;
}

#[tokio::test]
async fn an_end_dropped_at_any_poll_leaves_all_of_the_session_or_nothing() {
    let stage = Stage::new().await;
    for page in ["/destroy", "/logout"] {
        stage.drop_visits(page, &[&[json!({"n": 1})], &[]]).await;
    }
}

/// At every moment one of the two tokens opens the session.
#[tokio::test]
async fn a_new_id_dropped_at_any_poll_leaves_one_live_row_and_no_lock() {
    let stage = Stage::new().await;
    stage.drop_visits("/cycle", &[&[json!({"n": 1})]]).await;
}

/// A transaction that locks, ends the oldest, copies and forwards.
#[tokio::test]
async fn a_login_at_the_limit_dropped_at_any_poll_ends_the_oldest_or_nothing() {
    let stage = Stage::new().await;
    let store = stage.store.clone();
    let store = store.max_sessions_per_user(NonZeroU32::MIN, SessionLimitPolicy::EndOldest);
    let app = more_pages().layer(PgSessionLayer::new(store.clone()));
    let prepare = async || {
        stage.clear().await;
        Browser::new(&app).get("/login").await;
        stage.visitor().await.at(&app)
    };
    let visit = async |browser: &Browser| drop(browser.peek("/login").await);
    stage
        .drop_at_every_poll("a login", prepare, visit, async |_, is_done| {
            let (old, new) = ([json!({"n": 1}), json!({})], [json!({"n": 1})]);
            stage.assert_holds(&[&old, &new], is_done).await;
            // A login whose response was dropped is undone, but the deletion of the oldest is not.
            let sessions = store.user(USER).count().await.expect("a count");
            assert!(sessions <= 1 && (sessions == 1 || !is_done), "{sessions}");
        })
        .await;
}

#[tokio::test]
async fn the_end_of_all_sessions_of_a_user_dropped_at_any_poll_ends_all_or_none() {
    let stage = Stage::new().await;
    let prepare = async || {
        stage.clear().await;
        for _ in 0..3 {
            stage.browser().get("/login").await;
        }
        stage.store.user(USER)
    };
    let end = async |sessions: &axum_pg_session::UserSessions| {
        assert_eq!(sessions.destroy_all().await.expect("a database"), 3);
    };
    stage
        .drop_at_every_poll("destroy_all", prepare, end, async |sessions, is_done| {
            let left = sessions.count().await.expect("a count");
            assert!(left == 0 || (left == 3 && !is_done), "{left} are left");
        })
        .await;
}

#[tokio::test]
async fn the_end_of_the_other_sessions_dropped_at_any_poll_spares_this_one() {
    let stage = Stage::new().await;
    let this_one = async || -> SessionId {
        stage.clear().await;
        for _ in 0..3 {
            stage.browser().get("/login").await;
        }
        let sessions = stage.store.user(USER).list().await.expect("a list");
        sessions[1].id().clone()
    };
    let end = async |this: &SessionId| {
        let ended = stage.store.user(USER).destroy_others(this).await;
        assert_eq!(ended.expect("a database"), 2);
    };
    stage
        .drop_at_every_poll("destroy_others", this_one, end, async |this, is_done| {
            let left = stage.store.user(USER).list().await.expect("a list");
            assert!(left.iter().any(|session| session.id() == this));
            assert!(left.len() == 1 || (left.len() == 3 && !is_done));
        })
        .await;
}

#[tokio::test]
async fn looking_at_a_session_by_its_handle_can_be_dropped_at_any_poll() {
    let stage = Stage::new().await;
    let prepare = async || {
        stage.clear().await;
        let id = stage.visitor().await.peek("/id").await.body;
        let handles = texts(&stage.site.pool, "SELECT id FROM session").await;
        assert_eq!(handles, [id]);
        stage.browser().get("/login").await;
        let sessions = stage.store.user(USER).list().await.expect("a list");
        sessions[0].id().clone()
    };
    let look = async |id: &SessionId| {
        assert!(stage.store.load(id).await.expect("a database").is_some());
        stage.store.destroy(id).await.expect("a database");
    };
    stage
        .drop_at_every_poll("a look by handle", prepare, look, async |id, is_done| {
            let found = stage.store.load(id).await.expect("a database");
            assert!(found.is_none() || !is_done);
        })
        .await;
}

/// Batches of two: each is there whole or gone.
#[tokio::test]
async fn a_run_of_the_reaper_dropped_at_any_poll_deletes_whole_batches() {
    let stage = Stage::new().await;
    let reaper = Reaper::new(stage.store.clone()).batch_size(NonZeroU32::new(2).expect("two"));
    let prepare = async || {
        stage.clear().await;
        let sql = "INSERT INTO TABLE (id, expiry, session)
                   SELECT 'dead' || i, now() - i * interval '1 minute', '{}'::json
                   FROM generate_series(1, 5) AS i
                   UNION ALL SELECT 'live', now() + interval '1 minute', '{}'::json";
        stage.site.rows().execute(sql).await;
    };
    let run = async |(): &()| {
        assert_eq!(reaper.run_once().await.expect("a database").deleted, 5);
    };
    stage
        .drop_at_every_poll("the reaper", prepare, run, async |(), is_done| {
            let left = texts(&stage.site.pool, "SELECT id FROM session ORDER BY id").await;
            assert_eq!(left.last().map(String::as_str), Some("live"));
            let dead = left.len() - 1;
            assert!(
                dead == 0 || (!is_done && [1, 3, 5].contains(&dead)),
                "{dead}"
            );
        })
        .await;
}

#[tokio::test]
async fn a_migration_dropped_at_any_poll_can_be_run_again() {
    let stage = Stage::new().await;
    let mut number = 0;
    let prepare = async || {
        number += 1;
        stage.store.clone().table(format!("session{number}"))
    };
    let migrate = async |store: &PgSessionStore| store.migrate().await.expect("a new table");
    stage
        .drop_at_every_poll("migrate", prepare, migrate, async |store, _| {
            store.migrate().await.expect("the rest of the table");
            let report = store.check().await.expect("a table").to_string();
            assert_eq!(report, "every feature is on");
        })
        .await;
}

#[tokio::test]
async fn a_check_dropped_at_any_poll_can_be_run_again() {
    let stage = Stage::new().await;
    let prepare = async || stage.store.clone().schema("public");
    let check = async |store: &PgSessionStore| {
        store.check().await.expect("a table");
    };
    stage
        .drop_at_every_poll("check", prepare, check, async |store, _| {
            store.check().await.expect("a table");
        })
        .await;
}

#[tokio::test]
async fn the_end_of_everyone_dropped_at_any_poll_can_be_gone_on_with() {
    let stage = Stage::new().await;
    let prepare = async || {
        stage.clear().await;
        stage.visitor().await;
        stage.visitor().await;
    };
    let end = async |(): &()| {
        stage.store.destroy_everyone().await.expect("a database");
    };
    stage
        .drop_at_every_poll("destroy_everyone", prepare, end, async |(), is_done| {
            let left = stage.documents().await.len();
            assert!(left == 0 || !is_done, "{left} are left");
            stage.store.destroy_everyone().await.expect("a database");
            assert!(stage.documents().await.is_empty());
        })
        .await;
}

/// With the default part of the pool, connections are kept for a moment.
#[tokio::test]
async fn requests_dropped_at_any_poll_leave_no_connection_kept_for_good() {
    let stage = Stage::new().await;
    let app = more_pages().layer(PgSessionLayer::new(PgSessionStore::new(stage.pool.clone())));
    for page in ["/increment/n", "/cycle", "/login", "/destroy"] {
        for polls in 0.. {
            let mut browser = Browser::new(&app);
            browser.get("/increment/n").await;
            if dropped_after(browser.peek(page), polls).await.is_some() {
                break;
            }
        }
    }
    stage.nothing_is_left("what was kept").await;
    stage.all_connections_serve().await;
    execute(&stage.site.pool, "SELECT").await;
}
