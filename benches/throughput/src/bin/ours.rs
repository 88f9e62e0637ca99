//! The server of this crate.

use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Session};
use bench_server::{Arguments, COUNTER};
use sqlx::postgres::PgPoolOptions;

async fn read(session: Session) -> Result<String, Error> {
    session.get(COUNTER).map(bench_server::text)
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
        .max_connections(arguments.connections)
        .connect(&arguments.url)
        .await?;
    let store = PgSessionStore::new(pool);
    store.migrate().await?;
    let app = bench_server::pages!(read, increment, new, seed);
    Ok(bench_server::serve(app.layer(PgSessionLayer::new(store))).await?)
}
