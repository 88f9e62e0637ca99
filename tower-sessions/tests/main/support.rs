//! A database for each test, and a browser.

use axum::{Router, body::Body};
use axum_pg_session::PgSessionStore;
use axum_pg_session_tower_sessions::PostgresStore;
use dev_postgres::TestDatabase;
use http::{
    HeaderMap, Request, StatusCode,
    header::{COOKIE, SET_COOKIE},
};
use http_body_util::BodyExt as _;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tower::ServiceExt as _;

use crate::proxy::Proxy;

pub(crate) struct Site {
    database: TestDatabase,
    /// For a look at the table.
    pub(crate) pool: PgPool,
    pub(crate) store: PgSessionStore,
}

pub(crate) async fn site() -> Site {
    let database = dev_postgres::test_database().await.expect("a database");
    let pool = pool(&database).await;
    let store = PgSessionStore::new(pool.clone());
    store.migrate().await.expect("a table");
    Site {
        database,
        pool,
        store,
    }
}

async fn pool(database: &TestDatabase) -> PgPool {
    PgPoolOptions::new()
        .max_connections(5)
        .connect(database.url())
        .await
        .expect("a connection")
}

impl Site {
    pub(crate) fn sessions(&self) -> PostgresStore {
        PostgresStore::new(self.store.clone())
    }

    /// The store of another process: with a pool and batches of its own.
    pub(crate) async fn another_process(&self) -> PgSessionStore {
        PgSessionStore::new(pool(&self.database).await)
    }

    /// A proxy before the database.
    pub(crate) async fn proxy(&self) -> Proxy {
        Proxy::before(self.database.url()).await
    }

    pub(crate) async fn rows(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM session")
            .fetch_one(&self.pool)
            .await
            .expect("a number")
    }

    /// The documents and users of all rows.
    pub(crate) async fn stored(&self) -> Vec<(String, Option<String>)> {
        sqlx::query_as("SELECT session::text, user_id FROM session ORDER BY created, id")
            .fetch_all(&self.pool)
            .await
            .expect("rows")
    }

    /// Returns when the condition holds; a test that waits in vain hangs, and is ended by its
    /// runner.
    pub(crate) async fn until(&self, mut condition: impl AsyncFnMut() -> bool) {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    }

    /// Returns when a statement waits for a lock.
    pub(crate) async fn waits_for_a_lock(&self) {
        let sql = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND database = \
                   (SELECT oid FROM pg_database WHERE datname = current_database()))";
        self.until(async || self.is_true(sql).await).await;
    }

    pub(crate) async fn is_true(&self, sql: &'static str) -> bool {
        sqlx::query_scalar(sql)
            .fetch_one(&self.pool)
            .await
            .expect("a truth value")
    }

    pub(crate) async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.pool).await.expect(sql);
    }
}

/// A browser with one cookie.
#[derive(Clone, Default)]
pub(crate) struct Browser {
    pub(crate) cookie: Option<String>,
}

pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Page {
    /// The line that sets the cookie.
    pub(crate) fn set_cookie(&self) -> Option<&str> {
        let line = self.headers.get(SET_COOKIE)?;
        Some(line.to_str().expect("ASCII"))
    }

    /// The value of an attribute of the cookie.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        let mut attributes = self.set_cookie()?.split("; ").skip(1);
        let found = attributes.find(|attribute| {
            let (attribute, _) = attribute.split_once('=').unwrap_or((attribute, ""));
            attribute.eq_ignore_ascii_case(name)
        })?;
        Some(found.split_once('=').map_or("", |(_, value)| value))
    }
}

impl Browser {
    pub(crate) async fn get(&mut self, app: &Router, path: &str) -> Page {
        self.send(app, Request::get(path), Body::empty()).await
    }

    pub(crate) async fn post(&mut self, app: &Router, path: &str, form: &'static str) -> Page {
        let request =
            Request::post(path).header("content-type", "application/x-www-form-urlencoded");
        self.send(app, request, Body::from(form)).await
    }

    async fn send(&mut self, app: &Router, request: http::request::Builder, body: Body) -> Page {
        let request = match &self.cookie {
            Some(cookie) => request.header(COOKIE, cookie),
            None => request,
        };
        let request = request.body(body).expect("a request");
        let response = app.clone().oneshot(request).await.expect("a response");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let page = Page {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8_lossy(&body).into_owned(),
        };
        if let Some(line) = page.set_cookie() {
            let pair = line.split(';').next().expect("a pair").to_owned();
            self.cookie = match page.attribute("max-age") {
                Some("0") => None,
                _ => Some(pair),
            };
        }
        page
    }
}
