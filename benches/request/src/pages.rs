use std::error::Error;

use axum::{
    Router,
    body::Body,
    http::{Request, header},
    routing::get,
};
use axum_pg_session::{PgSessionLayer, PgSessionStore, Session};
use metrics_exporter_prometheus::PrometheusBuilder;
use sqlx::PgPool;
use tower::{ServiceExt as _, layer::util::Identity};

use crate::{cases::VISITORS, handwritten};

/// No server listens here, so a statement would fail.
const NOWHERE: &str = "postgres://127.0.0.1:1/none";

/// The same pages with and without our layer, and the cookies of visitors.
pub(crate) struct Site {
    pub(crate) pool: PgPool,
    pub(crate) bare: Router,
    pub(crate) idle: Router,
    pub(crate) without_database: Router,
    pub(crate) with_database: Router,
    /// `with_database`, but its store reports metrics.
    pub(crate) recorded: Router,
    pub(crate) readers: Vec<String>,
    pub(crate) writers: Vec<String>,
}

impl Site {
    pub(crate) async fn new(url: &str) -> Result<Self, Box<dyn Error>> {
        let pool = PgPool::connect(url).await?;
        let store = PgSessionStore::new(pool.clone());
        store.migrate().await?;
        let nowhere = PgSessionStore::new(PgPool::connect_lazy(NOWHERE)?);
        let with_database = pages().layer(PgSessionLayer::new(store));
        let readers = join(&with_database).await?;
        let recorded = recorded(&pool).await?;
        handwritten::insert_rows(&pool).await?;
        Ok(Self {
            pool,
            bare: plain(),
            idle: plain().layer(Identity::new()),
            without_database: pages().layer(PgSessionLayer::new(nowhere)),
            readers,
            writers: join(&with_database).await?,
            with_database,
            recorded,
        })
    }

    /// Fails if the rows don't have exactly the visits that were acknowledged.
    pub(crate) async fn check_visits(&self, written: usize) -> Result<(), Box<dyn Error>> {
        let sql = "SELECT COALESCE(sum((session->>'visits')::int8), 0)::int8 FROM session \
                   WHERE session->>'name' IS NOT NULL";
        let stored: i64 = sqlx::query_scalar(sql).fetch_one(&self.pool).await?;
        if usize::try_from(stored) != Ok(written) {
            return Err(format!("{written} visits were acknowledged, {stored} are stored").into());
        }
        Ok(())
    }
}

/// A store keeps the recorder that it finds at its first request. So the other stores of this
/// process have none.
async fn recorded(pool: &PgPool) -> Result<Router, Box<dyn Error>> {
    let recorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
    let _found = metrics::set_default_local_recorder(recorder);
    let app = pages().layer(PgSessionLayer::new(PgSessionStore::new(pool.clone())));
    let request = Request::get("/read").body(Body::empty())?;
    let response = app.clone().oneshot(request).await?;
    let text = recorder.handle().render();
    match text.contains("axum_pg_session_lookups") {
        true => Ok(app),
        false => Err(format!("no metric was recorded: {response:?}").into()),
    }
}

fn plain() -> Router {
    Router::new().route("/plain", get(async || "ok"))
}

fn pages() -> Router {
    plain()
        .route("/untouched", get(async |_: Session| "ok"))
        .route("/read", get(read))
        .route("/write", get(write))
        .route("/new", get(new))
        .route("/join", get(sign_in))
}

async fn read(session: Session) -> Result<String, axum_pg_session::Error> {
    let visits: Option<u64> = session.get("visits")?;
    Ok(visits.unwrap_or(0).to_string())
}

async fn write(session: Session) -> Result<String, axum_pg_session::Error> {
    let visits = session.update("visits", |visits: Option<u64>| visits.unwrap_or(0) + 1)?;
    Ok(visits.to_string())
}

async fn new(session: Session) -> Result<&'static str, axum_pg_session::Error> {
    session.insert("visits", 1)?;
    Ok("ok")
}

/// Stores half a kilobyte, like a visitor who has signed in.
async fn sign_in(session: Session) -> Result<&'static str, axum_pg_session::Error> {
    session.insert("visits", 0)?;
    session.insert("name", "Ada Lovelace")?;
    session.insert("token", "7d4b45873dd6cc88b90dfe598d93e2f6a003a6637")?;
    session.insert("basket", [17, 4, 1815, 1843, 42])?;
    session.insert(
        "notes",
        "The engine weaves algebraical patterns. ".repeat(8),
    )?;
    Ok("ok")
}

async fn join(app: &Router) -> Result<Vec<String>, Box<dyn Error>> {
    let mut cookies = Vec::with_capacity(VISITORS);
    for _ in 0..VISITORS {
        let request = Request::get("/join").body(Body::empty())?;
        let response = app.clone().oneshot(request).await?;
        let cookie = response.headers().get(header::SET_COOKIE);
        let cookie = cookie.ok_or("no cookie for a new session")?.to_str()?;
        cookies.push(cookie.split(';').next().unwrap_or_default().to_owned());
    }
    Ok(cookies)
}
