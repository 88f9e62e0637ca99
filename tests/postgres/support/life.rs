//! Helpers for tables of any shape: roles, statements, and the whole life of a session.

use axum::{Router, handler::Handler, routing::get};
use axum_pg_session::{PgSessionLayer, PgSessionStore, Reaper};
use sqlx::{AssertSqlSafe, PgPool, postgres::PgConnectOptions};

use super::{Browser, Rows, Site, app};

const DAY: f64 = 86_400.0;
/// Seconds that a busy machine may take; zones differ by a quarter of an hour.
const SLACK: f64 = 30.0;

/// Runs statements as the owner of the database. Repeats them after a serialization failure, as an
/// application must.
pub(crate) async fn execute(pool: &PgPool, sql: &str) {
    loop {
        match sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await {
            Ok(_) => return,
            Err(error) if is_to_repeat(&error) => {}
            Err(error) => panic!("{sql}: {error}"),
        }
    }
}

fn is_to_repeat(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.as_deref() == Some("40001")
}

pub(crate) async fn texts(pool: &PgPool, sql: &str) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_all(pool)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
}

pub(crate) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A visit to a page that does this to the session; the response must be 200.
pub(crate) async fn visit<H, T>(site: &Site, browser: &mut Browser, handler: H) -> String
where
    H: Handler<T, ()>,
    T: 'static,
{
    let app = Router::new().route("/", get(handler)).layer(site.layer());
    let mut visitor = browser.at(&app);
    let response = visitor.get("/").await;
    assert_eq!(response.status, 200, "{}", response.body);
    browser.jar = visitor.jar;
    response.body
}

/// A role of this test's own, with the rights that it is given.
pub(crate) struct Role {
    pub(crate) name: String,
    owner: PgPool,
}

impl Role {
    pub(crate) async fn new(owner: &PgPool) -> Self {
        let sql = "SELECT 'role_' || replace(gen_random_uuid()::text, '-', '')";
        let name = texts(owner, sql).await.remove(0);
        execute(owner, &format!("CREATE ROLE {name}")).await;
        Self {
            name,
            owner: owner.clone(),
        }
    }

    pub(crate) async fn grant(&self, rights: &str) {
        execute(&self.owner, &format!("GRANT {rights} TO {}", self.name)).await;
    }

    pub(crate) async fn revoke(&self, rights: &str) {
        execute(&self.owner, &format!("REVOKE {rights} FROM {}", self.name)).await;
    }

    /// A store whose connections have this role's rights and no others.
    pub(crate) async fn store(&self, url: &str) -> PgSessionStore {
        PgSessionStore::new(self.pool(url).await)
    }

    pub(crate) async fn pool(&self, url: &str) -> PgPool {
        let options: PgConnectOptions = url.parse().expect("a URL");
        sqlx::postgres::PgPoolOptions::new()
            .max_connections(3)
            .connect_with(options.options([("role", &self.name)]))
            .await
            .expect("a connection")
    }

    /// Roles are the whole server's, so they do not go with the database.
    pub(crate) async fn drop(self) {
        let name = &self.name;
        let sql = format!("REASSIGN OWNED BY {name} TO CURRENT_USER; DROP OWNED BY {name}");
        execute(&self.owner, &sql).await;
        execute(&self.owner, &format!("DROP ROLE {name}")).await;
    }
}

/// A table as its owner sees it, and how its `expiry` reads as an instant.
pub(crate) struct Life {
    pub(crate) rows: Rows,
    owner: PgPool,
    table: String,
    expiry: String,
}

impl Life {
    pub(crate) fn of(owner: &PgPool, table: &str) -> Self {
        Self {
            rows: Rows::new(owner.clone(), table),
            owner: owner.clone(),
            table: table.to_owned(),
            expiry: "expiry".into(),
        }
    }

    /// For an `expiry` on the clock of `zone`.
    pub(crate) fn on_the_clock_of(mut self, zone: &str) -> Self {
        self.expiry = format!("(expiry AT TIME ZONE '{zone}')");
        self
    }

    async fn assert_lives_a_day(&self, what: &str) {
        let sql = format!(
            "SELECT extract(epoch FROM {} - now())::float8 FROM {}
             WHERE coalesce(session::jsonb #> '{{_session,successor}}', 'null') = 'null'",
            self.expiry, self.table
        );
        let left: f64 = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&self.owner)
            .await
            .expect("one session");
        assert!((left - DAY).abs() < SLACK, "{what}: {left} s are left");
    }

    /// Create, read, write, touch, cycle, destroy, reap.
    pub(crate) async fn is_whole(&self, store: &PgSessionStore) {
        let mut browser = Browser::new(&app(PgSessionLayer::new(store.clone())));
        self.begins(&mut browser).await;
        self.goes_on(&mut browser).await;
        self.ends(&mut browser).await;
        self.is_reaped(&mut browser, store).await;
    }

    async fn begins(&self, browser: &mut Browser) {
        assert_eq!(browser.get("/insert/a/1").await.status, 200, "create");
        assert_eq!(browser.get("/get/a").await.body, "\"1\"", "read");
        self.assert_lives_a_day("create").await;
        assert_eq!(browser.get("/increment/n").await.body, "1", "write");
        assert_eq!(browser.get("/increment/n").await.body, "2", "write again");
        self.assert_lives_a_day("write").await;
    }

    async fn goes_on(&self, browser: &mut Browser) {
        self.rows.age(7200.0).await;
        assert_eq!(browser.get("/get/a").await.body, "\"1\"", "touch");
        self.assert_lives_a_day("touch").await;
        let old = browser.token().to_owned();
        assert_eq!(browser.get("/cycle").await.status, 200, "cycle");
        assert_ne!(browser.token(), old);
        assert_eq!(browser.get("/get/n").await.body, "2", "read after cycle");
        self.assert_lives_a_day("cycle").await;
    }

    async fn ends(&self, browser: &mut Browser) {
        assert!(browser.get("/destroy").await.removes_the_cookie());
        assert_eq!(self.rows.count().await, 0, "destroy");
    }

    async fn is_reaped(&self, browser: &mut Browser, store: &PgSessionStore) {
        browser.get("/insert/a/1").await;
        let reaper = Reaper::new(store.clone());
        assert_eq!(reaper.run_once().await.expect("rights").deleted, 0, "reap");
        self.rows.age(86_500.0).await;
        assert_eq!(browser.peek("/get/a").await.body, "none", "expired");
        // The session, and what the cycle left of the earlier one.
        assert_eq!(reaper.run_once().await.expect("rights").deleted, 2, "reap");
    }
}
