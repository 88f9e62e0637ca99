//! The server of this crate.

use axum::{Router, routing::get};
use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Session};
use bench_server::{Arguments, COUNTER};
use sqlx::postgres::PgPoolOptions;

async fn plain() -> &'static str {
    "plain"
}

async fn read(session: Session) -> Result<String, Error> {
    let n: Option<u64> = session.get(COUNTER)?;
    Ok(n.map_or_else(|| "none".to_owned(), |n| n.to_string()))
}

async fn increment(session: Session) -> Result<String, Error> {
    let n = session.update(COUNTER, |n: Option<u64>| n.unwrap_or(0) + 1)?;
    Ok(n.to_string())
}

async fn new(session: Session) -> Result<&'static str, Error> {
    session.insert(COUNTER, 0_u64)?;
    Ok("new")
}

async fn seed(session: Session) -> Result<&'static str, Error> {
    for (name, value) in bench_server::members() {
        session.insert(name, value)?;
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
    let app = Router::new()
        .route("/plain", get(plain))
        .route("/read", get(read))
        .route("/incr", get(increment))
        .route("/new", get(new))
        .route("/seed", get(seed))
        .layer(PgSessionLayer::new(store));
    Ok(bench_server::serve(app).await?)
}
