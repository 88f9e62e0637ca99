//! axum_session: with its defaults, or, with the variant `uncached`, without its cache in the
//! process.

use axum_session::{SessionConfig, SessionLayer};
use axum_session_sqlx::{SessionPgSession, SessionPgSessionStore};
use bench_server::{Arguments, COUNTER};
use sqlx::postgres::PgPoolOptions;
use time::Duration;

async fn read(session: SessionPgSession) -> String {
    bench_server::text(session.get(COUNTER))
}

async fn increment(session: SessionPgSession) -> String {
    let n = session.get::<u64>(COUNTER).unwrap_or(0) + 1;
    session.set(COUNTER, n);
    n.to_string()
}

async fn new(session: SessionPgSession) -> &'static str {
    session.set(COUNTER, 0_u64);
    "new"
}

async fn seed(session: SessionPgSession) -> &'static str {
    for (name, value) in bench_server::members() {
        session.set(name, value);
    }
    "seeded"
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::of_process();
    let pool = PgPoolOptions::new()
        .max_connections(arguments.connections)
        .connect(&arguments.url)
        .await?;
    // This crate's default.
    let config = SessionConfig::default().with_lifetime(Duration::DAY);
    let config = match arguments.variant.as_str() {
        "uncached" => config.with_memory_lifetime(Duration::ZERO),
        _ => config,
    };
    let store = SessionPgSessionStore::new(Some(pool.into()), config).await?;
    let app = bench_server::pages!(read, increment, new, seed);
    Ok(bench_server::serve(app.layer(SessionLayer::new(store))).await?)
}
