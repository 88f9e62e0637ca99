//! Helpers for one test alone: pages, triggers, locks and barriers.

use std::{
    fmt::Display,
    future::{Future, poll_fn},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use axum::{Router, handler::Handler, response::IntoResponse, routing::get};
use axum_pg_session::{PgSessionLayer, PgSessionStore, Session};
use sqlx::{AssertSqlSafe, Postgres, Transaction};
use tokio::{sync::Semaphore, task::JoinHandle};

use super::{Browser, Reply, Site, execute, site::pages};

/// Far more than anything takes here; a wait that is this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The store inspects its table again after a minute, and waits for that after two.
pub(crate) async fn minutes_later(minutes: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(60 * minutes + 1)).await;
    tokio::time::resume();
}

/// The pages of a site, and `/page`.
pub(crate) fn app_with<H, T>(layer: PgSessionLayer, page: H) -> Router
where
    H: Handler<T, ()>,
    T: 'static,
{
    pages().route("/page", get(page)).layer(layer)
}

/// The pages of a site, and `/page`, which signs alice in.
pub(crate) fn login_page(store: &PgSessionStore) -> Router {
    let page = async |session: Session| session.login("alice");
    app_with(PgSessionLayer::new(store.clone()), page)
}

/// A request in this layer that has loaded its session, and does this when it goes on.
pub(crate) async fn late_in<F, Fut>(layer: PgSessionLayer, browser: &Browser, act: F) -> InFlight
where
    F: Fn(Session) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output: IntoResponse> + Send + 'static,
{
    InFlight::begin(browser, "/page", |gate| {
        app_with(layer, async move |session: Session| {
            gate.pass().await;
            act(session).await
        })
    })
    .await
}

impl Site {
    pub(crate) fn app_with<H, T>(&self, page: H) -> Router
    where
        H: Handler<T, ()>,
        T: 'static,
    {
        app_with(self.layer(), page)
    }

    /// A request that has loaded its session, and does this when it goes on.
    pub(crate) async fn late<F, Fut>(&self, browser: &Browser, act: F) -> InFlight
    where
        F: Fn(Session) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output: IntoResponse> + Send + 'static,
    {
        late_in(self.layer(), browser, act).await
    }

    /// From now on, the commit of a transaction that inserted a row fails.
    pub(crate) async fn refuse_commits(&self) {
        let trigger = "
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN RAISE 'refused by the test'; END $$;
            CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON TABLE
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()";
        self.rows().execute(trigger).await;
    }

    /// From now on the table refuses this: `INSERT`, `UPDATE` or `DELETE`.
    pub(crate) async fn refuse(&self, what: &str) {
        let function = "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
                        AS $$ BEGIN RAISE 'refused by the test'; END $$";
        let trigger = format!(
            "CREATE TRIGGER refuse_{what} BEFORE {what} ON TABLE
             FOR EACH ROW EXECUTE FUNCTION refuse()"
        );
        self.rows().execute(function).await;
        self.rows().execute(&trigger).await;
    }

    pub(crate) async fn refuse_no_more(&self, what: &str) {
        let sql = format!("DROP TRIGGER refuse_{what} ON TABLE");
        self.rows().execute(&sql).await;
    }

    /// Creates a table `orders` with these rows, as `INSERT` takes them. Each references a session,
    /// which can't be deleted.
    pub(crate) async fn order(&self, rows: &str) {
        let sql = format!(
            "CREATE TABLE orders (session_id text REFERENCES session);
             INSERT INTO orders {rows}"
        );
        execute(&self.pool, &sql).await;
    }

    /// From now on, a trigger keeps the rows that meet the condition from being deleted, without
    /// an error.
    pub(crate) async fn spare(&self, condition: &str) {
        let sql = format!(
            "CREATE FUNCTION spare() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN RETURN CASE WHEN {condition} THEN NULL ELSE OLD END; END $$;
             CREATE TRIGGER spare BEFORE DELETE ON session FOR EACH ROW EXECUTE FUNCTION spare()"
        );
        execute(&self.pool, &sql).await;
    }

    /// Returns when this many statements wait for a lock in the database.
    pub(crate) async fn blocked(&self, statements: i64) {
        until(async || self.backends("wait_event_type = 'Lock'").await == statements).await;
    }

    pub(crate) async fn blocked_at_least(&self, statements: i64) {
        until(async || self.backends("wait_event_type = 'Lock'").await >= statements).await;
    }

    /// Whether two statements wait for a lock in the database.
    pub(crate) async fn is_blocked_twice(&self) -> bool {
        self.backends("wait_event_type = 'Lock'").await == 2
    }

    /// Whether any statement waits for a lock in the database.
    pub(crate) async fn is_blocked(&self) -> bool {
        self.backends("wait_event_type = 'Lock'").await > 0
    }

    /// A transaction that has executed this statement and stays open.
    pub(crate) async fn open_transaction(&self, sql: &str) -> Transaction<'static, Postgres> {
        let mut transaction = self.pool.begin().await.expect("a transaction");
        sqlx::query(AssertSqlSafe(sql))
            .execute(&mut *transaction)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        transaction
    }

    /// Locks the row of this id until the transaction ends.
    pub(crate) async fn lock_row(&self, id: impl Display) -> Transaction<'static, Postgres> {
        let sql = format!("SELECT id FROM public.session WHERE id = '{id}' FOR UPDATE");
        self.open_transaction(&sql).await
    }

    /// Locks every row until the transaction ends.
    pub(crate) async fn lock_rows(&self) -> Transaction<'static, Postgres> {
        self.open_transaction("SELECT id FROM public.session FOR UPDATE")
            .await
    }

    /// From now on, a transaction that has inserted a row waits before its commit, until the returned
    /// transaction ends.
    pub(crate) async fn hold_commits(&self) -> Transaction<'static, Postgres> {
        let trigger = "
            CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql SET lock_timeout = 0
            AS $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER hold AFTER INSERT ON TABLE
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold()";
        self.rows().execute(trigger).await;
        self.hold_advisory_lock().await
    }

    /// Triggers that take the lock 1 wait until the transaction ends.
    pub(crate) async fn hold_advisory_lock(&self) -> Transaction<'static, Postgres> {
        self.open_transaction("SELECT pg_advisory_xact_lock(1)")
            .await
    }

    /// The visitor requests a page that inserts a row, and disconnects while the commit waits.
    /// Returns when no statement is running any more.
    pub(crate) async fn gives_up(&self, browser: Browser, page: &'static str) {
        let held = self.hold_commits().await;
        let given_up = tokio::spawn(async move { browser.peek(page).await });
        until(|| self.is_blocked()).await;
        given_up.abort();
        assert!(given_up.await.is_err());
        drop(held);
        self.settled().await;
    }

    /// Returns when no statement is at work in the database.
    pub(crate) async fn idle(&self) {
        until(async || self.backends("state = 'active'").await == 0).await;
    }

    /// Returns when nothing is in flight in the database, also not between two
    /// statements of a transaction: seen three times, as a task that has just
    /// begun is seen by its first statement only.
    pub(crate) async fn settled(&self) {
        for _ in 0..3 {
            until(async || self.backends("state <> 'idle'").await == 0).await;
        }
    }

    async fn backends(&self, condition: &str) -> i64 {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND {condition}"
        );
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&self.pool)
            .await
            .expect("a count")
    }
}

/// A gate between loading a session and changing it.
#[derive(Clone)]
pub(crate) struct Gate {
    reached: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn closed() -> Self {
        Self {
            reached: Arc::new(Semaphore::new(0)),
            open: Arc::new(Semaphore::new(0)),
        }
    }

    pub(crate) async fn pass(&self) {
        self.reached.add_permits(1);
        self.open.acquire().await.expect("never closed").forget();
    }

    /// Returns when a handler waits.
    pub(crate) async fn reached(&self) {
        self.reached.acquire().await.expect("never closed").forget();
    }

    /// Lets one handler pass.
    pub(crate) fn open(&self) {
        self.open.add_permits(1);
    }
}

/// A request that has loaded its session and waits to go on.
pub(crate) struct InFlight {
    gate: Gate,
    pub(crate) response: JoinHandle<Reply>,
}

impl InFlight {
    /// Of the pages that `app` makes, whose handler or layer passes the gate.
    pub(crate) async fn begin(
        browser: &Browser,
        path: &str,
        app: impl FnOnce(Gate) -> Router,
    ) -> Self {
        let gate = Gate::closed();
        let browser = browser.at(&app(gate.clone()));
        let path = path.to_owned();
        let response = tokio::spawn(async move { browser.peek(&path).await });
        gate.reached().await;
        Self { gate, response }
    }

    pub(crate) fn go_on(&self) {
        self.gate.open();
    }

    pub(crate) async fn finish(self) -> Reply {
        self.go_on();
        self.response().await
    }

    /// Returns whether it was cancelled before it had a response.
    pub(crate) async fn response_or_cancelled(self) -> bool {
        self.response.await.is_err_and(|error| error.is_cancelled())
    }

    pub(crate) async fn response(self) -> Reply {
        self.response.await.expect("no panic")
    }
}

/// Polls a future once, and drops it unless it is ready.
pub(crate) async fn polled_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Polls a future so often, and drops it when it would be polled once more.
pub(crate) async fn dropped_after<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut polled = 0;
    poll_fn(|context| {
        if polled == polls {
            return Poll::Ready(None);
        }
        polled += 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// Returns when the condition holds.
pub(crate) async fn until<F: Future<Output = bool>>(ask: impl Fn() -> F) {
    let asking = async {
        while !ask().await {
            tokio::task::yield_now().await;
        }
    };
    patiently(asking).await;
}

pub(crate) async fn patiently<F: Future>(awaited: F) -> F::Output {
    tokio::time::timeout(PATIENCE, awaited)
        .await
        .expect("it comes to an end")
}
