//! tower-sessions with the store of this crate, and the handlers of its peer, whose store is
//! the released one.

use axum::{Router, routing::get};
use axum_pg_session::PgSessionStore;
use axum_pg_session_tower_sessions::PostgresStore;
use bench_server::{Arguments, COUNTER, Failure};
use sqlx::postgres::PgPoolOptions;
use tower_sessions::{Expiry, Session, SessionManagerLayer, cookie::time::Duration};

async fn plain() -> &'static str {
    "plain"
}

async fn read(session: Session) -> Result<String, Failure> {
    let n: Option<u64> = session.get(COUNTER).await?;
    Ok(n.map_or_else(|| "none".to_owned(), |n| n.to_string()))
}

async fn increment(session: Session) -> Result<String, Failure> {
    let n = session.get::<u64>(COUNTER).await?.unwrap_or(0) + 1;
    session.insert(COUNTER, n).await?;
    Ok(n.to_string())
}

async fn new(session: Session) -> Result<&'static str, Failure> {
    session.insert(COUNTER, 0_u64).await?;
    Ok("new")
}

async fn seed(session: Session) -> Result<&'static str, Failure> {
    for (name, value) in bench_server::members() {
        session.insert(name, value).await?;
    }
    Ok("seeded")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::of_process();
    let pool = PgPoolOptions::new()
        .max_connections(arguments.pool)
        .connect(&arguments.database)
        .await?;
    let store = PgSessionStore::new(pool);
    store.migrate().await?;
    let layer = SessionManagerLayer::new(PostgresStore::new(store))
        .with_expiry(Expiry::OnInactivity(Duration::DAY));
    let app = Router::new()
        .route("/plain", get(plain))
        .route("/read", get(read))
        .route("/incr", get(increment))
        .route("/new", get(new))
        .route("/seed", get(seed))
        .layer(layer);
    Ok(bench_server::serve(app).await?)
}
