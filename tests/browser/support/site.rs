//! A site with sessions that a browser can reach.

use axum::{
    Router,
    extract::RawQuery,
    http::{HeaderName, header},
    response::Html,
    routing::get,
};
use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Session};
use dev_postgres::TestDatabase;
use sqlx::PgPool;
use tokio::{net::TcpListener, task::JoinHandle};

#[derive(Debug)]
pub(crate) struct Site {
    port: u16,
    pool: PgPool,
    serving: JoinHandle<()>,
    _database: TestDatabase,
}

impl Site {
    /// With the default table and a layer with this change.
    pub(crate) async fn new(change: impl FnOnce(PgSessionLayer) -> PgSessionLayer) -> Self {
        Self::with_store(|store| store, change).await
    }

    pub(crate) async fn with_store(
        store: impl FnOnce(PgSessionStore) -> PgSessionStore,
        change: impl FnOnce(PgSessionLayer) -> PgSessionLayer,
    ) -> Self {
        let database = dev_postgres::test_database().await.expect("a database");
        let pool = PgPool::connect(database.url()).await.expect("a connection");
        let store = store(PgSessionStore::new(pool.clone()));
        store.migrate().await.expect("a new table");
        let layer = change(PgSessionLayer::new(store));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let app = app(layer);
        let serving = tokio::spawn(async { axum::serve(listener, app).await.expect("it serves") });
        Self {
            port,
            pool,
            serving,
            _database: database,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        self.url_on("localhost", path)
    }

    /// Browsers take every name below `localhost` for this machine.
    pub(crate) fn url_on(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.port)
    }

    pub(crate) async fn rows(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM public.session")
            .fetch_one(&self.pool)
            .await
            .expect("a count")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn app(layer: PgSessionLayer) -> Router {
    Router::new()
        .nest("/app/pages", pages())
        .merge(pages())
        .layer(layer)
        .route("/set", get(set_cookie))
        .route("/app/set", get(set_cookie))
}

fn pages() -> Router {
    Router::new()
        .route("/keys", get(keys))
        .route("/insert", get(insert))
        .route("/cycle", get(cycle))
        .route("/destroy", get(destroy))
        .route("/login", get(login))
        .route("/logout", get(logout))
}

async fn keys(session: Session) -> String {
    format!("keys: {}", session.keys().join(","))
}

async fn insert(session: Session) -> Result<&'static str, Error> {
    session.insert("a", 1)?;
    Ok("inserted")
}

async fn cycle(session: Session) -> Result<&'static str, Error> {
    session.cycle_id()?;
    Ok("cycled")
}

async fn destroy(session: Session) -> Result<&'static str, Error> {
    session.destroy()?;
    Ok("destroyed")
}

async fn login(session: Session) -> Result<&'static str, Error> {
    session.login("alice")?;
    Ok("signed in")
}

async fn logout(session: Session) -> Result<&'static str, Error> {
    session.logout()?;
    Ok("signed out")
}

/// Sets any cookie, as another application could: the query is the header.
async fn set_cookie(RawQuery(cookie): RawQuery) -> ([(HeaderName, String); 1], Html<&'static str>) {
    let cookie = cookie.unwrap_or_default().replace("%20", " ");
    ([(header::SET_COOKIE, cookie)], Html("set"))
}
