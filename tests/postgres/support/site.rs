//! A database with a migrated table, and a site on it. Each of its pages does one thing to the
//! session.

use std::{num::NonZeroU32, time::Duration};

use axum::{Router, extract::Path, http::StatusCode, routing::get};
use axum_pg_session::{Error, Login, PgSessionLayer, PgSessionStore, Session, SessionLimitPolicy};
use dev_postgres::{Lending, TestDatabase};
use serde_json::Value;
use sqlx::{PgPool, postgres::PgPoolOptions};

use super::{Browser, Rows, execute, visit};

/// Longer than the default, which a busy machine exceeds.
const TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Site {
    pub(crate) database: TestDatabase,
    pub(crate) pool: PgPool,
    pub(crate) store: PgSessionStore,
}

impl Site {
    /// A database of its own with the migrated default table.
    pub(crate) async fn new() -> Self {
        let site = Self::without_table().await;
        site.store.migrate().await.expect("a new table");
        site
    }

    pub(crate) async fn without_table() -> Self {
        Self::on(dev_postgres::test_database().await.expect("a database")).await
    }

    /// On a database of a server of the test's own.
    pub(crate) async fn on(database: TestDatabase) -> Self {
        let pool = pool(database.url(), 10).await;
        let store = match database.pooled() {
            Some((url, lending)) => behind(url, lending).await,
            None => PgSessionStore::new(pool.clone()).timeout(TIMEOUT),
        };
        Self {
            database,
            pool,
            store,
        }
    }

    /// With a table that another system made.
    pub(crate) async fn with_table(sql: &str) -> Self {
        let site = Self::without_table().await;
        execute(&site.pool, sql).await;
        site
    }

    /// With documents in a column of type `jsonb`.
    pub(crate) async fn with_jsonb() -> Self {
        let site = Self::with_table(&THREE_COLUMNS.replace("session json", "session jsonb")).await;
        site.store.migrate().await.expect("columns to add");
        site
    }

    /// The isolation level that connections have by default which are opened
    /// from now on. Those of the site's own pool keep theirs.
    pub(crate) async fn set_isolation(&self, level: &str) {
        let sql = format!(
            "DO $$ BEGIN EXECUTE format(
                 'ALTER DATABASE %I SET default_transaction_isolation TO %L',
                 current_database(), '{level}'
             ); END $$"
        );
        execute(&self.pool, &sql).await;
    }

    pub(crate) fn layer(&self) -> PgSessionLayer {
        PgSessionLayer::new(self.store.clone())
    }

    pub(crate) fn app(&self) -> Router {
        app(self.layer())
    }

    pub(crate) fn browser(&self) -> Browser {
        Browser::new(&self.app())
    }

    /// A visitor whose session holds `a`.
    pub(crate) async fn visitor(&self) -> Browser {
        Browser::with_session(&self.app()).await
    }

    pub(crate) async fn sign_in(&self, browser: &mut Browser, login: impl Into<Login>) {
        let login = login.into();
        visit(self, browser, async move |session: Session| {
            session.login(login.clone())
        })
        .await;
    }

    /// A browser that has just signed in.
    pub(crate) async fn signed_in(&self, login: impl Into<Login>) -> Browser {
        let mut browser = self.browser();
        self.sign_in(&mut browser, login).await;
        browser
    }

    /// Who is signed in; empty without a user.
    pub(crate) async fn user(&self, browser: &Browser) -> String {
        let page = async |session: Session| session.user_id().unwrap_or_default();
        browser.at(&self.app_with(page)).peek("/page").await.body
    }

    /// A store with this limit of sessions per user.
    pub(crate) fn limited(
        &self,
        limit: NonZeroU32,
        at_limit: SessionLimitPolicy,
    ) -> PgSessionStore {
        let store = self.store.clone();
        store.max_sessions_per_user(limit, at_limit)
    }

    /// The number of the user's sessions.
    pub(crate) async fn sessions_of(&self, user: &str) -> u64 {
        self.store.user(user).count().await.expect("a count")
    }

    pub(crate) fn rows(&self) -> Rows {
        Rows::new(self.pool.clone(), r#""public"."session""#)
    }

    /// The same site as another process would run it: no pool, batches or
    /// knowledge shared.
    pub(crate) async fn elsewhere(&self) -> PgSessionStore {
        match self.database.pooled() {
            Some((url, lending)) => behind(url, lending).await,
            None => PgSessionStore::new(pool(self.database.url(), 10).await).timeout(TIMEOUT),
        }
    }
}

/// The columns that a table must have.
pub(crate) const THREE_COLUMNS: &str =
    "CREATE TABLE session (id text PRIMARY KEY, expiry timestamptz NOT NULL, session json)";

/// No server listens on port 1.
pub(crate) const NOWHERE: &str = "postgres://127.0.0.1:1/none";

/// A store whose database is down.
pub(crate) fn unreachable_store() -> PgSessionStore {
    let pool = PgPool::connect_lazy(NOWHERE).expect("a URL");
    PgSessionStore::new(pool).timeout(Duration::from_millis(100))
}

/// A store that reaches its table through a pooler, set up for it.
pub(crate) async fn behind(url: &str, lending: Lending) -> PgSessionStore {
    let store = PgSessionStore::connect(url).await.expect("a connection");
    let store = store.timeout(TIMEOUT);
    store.behind_transaction_pooler(lending == Lending::Transaction)
}

pub(crate) async fn pool(url: &str, connections: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        .connect(url)
        .await
        .expect("a connection")
}

/// The pages of the site.
pub(crate) fn app(layer: PgSessionLayer) -> Router {
    pages().layer(layer)
}

pub(crate) fn pages() -> Router {
    Router::new()
        .route("/plain", get(async || "plain"))
        .route("/keys", get(keys))
        .route("/get/{key}", get(get_value))
        .route("/insert/{key}/{value}", get(insert))
        .route("/insert_and/{status}/{key}/{value}", get(insert_and))
        .route("/remove/{key}", get(remove))
        .route("/increment/{key}", get(increment))
        .route("/clear", get(async |session: Session| session.clear()))
        .route("/cycle", get(async |session: Session| session.cycle_id()))
        .route("/cycle_and/{status}", get(cycle_and))
        .route("/destroy", get(async |session: Session| session.destroy()))
        .route("/destroy_and/{status}", get(destroy_and))
        .route("/id", get(id))
        .route(
            "/is_new",
            get(async |session: Session| session.is_new().to_string()),
        )
}

async fn keys(session: Session) -> String {
    session.keys().join(",")
}

async fn get_value(session: Session, Path(key): Path<String>) -> Result<String, Error> {
    let value: Option<Value> = session.get(&key)?;
    Ok(value.map_or_else(|| "none".into(), |value| value.to_string()))
}

async fn insert(session: Session, Path((key, value)): Path<(String, String)>) -> Result<(), Error> {
    session.insert(&key, value)
}

async fn insert_and(
    session: Session,
    Path((status, key, value)): Path<(u16, String, String)>,
) -> Result<StatusCode, Error> {
    session.insert(&key, value)?;
    Ok(StatusCode::from_u16(status).expect("a status"))
}

async fn remove(session: Session, Path(key): Path<String>) -> Result<String, Error> {
    let value: Option<Value> = session.remove(&key)?;
    Ok(value.map_or_else(|| "none".into(), |value| value.to_string()))
}

async fn increment(session: Session, Path(key): Path<String>) -> Result<String, Error> {
    let n = session.update(&key, |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(n.to_string())
}

async fn cycle_and(session: Session, Path(status): Path<u16>) -> Result<StatusCode, Error> {
    session.cycle_id()?;
    Ok(StatusCode::from_u16(status).expect("a status"))
}

async fn destroy_and(session: Session, Path(status): Path<u16>) -> Result<StatusCode, Error> {
    session.destroy()?;
    Ok(StatusCode::from_u16(status).expect("a status"))
}

async fn id(session: Session) -> String {
    session
        .id()
        .map_or_else(|| "none".into(), |id| id.to_string())
}
