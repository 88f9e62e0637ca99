//! axum_session, as it is by default or, with `--variant uncached`, without
//! its cache in the process.

use axum::{Router, routing::get};
use axum_session::{SessionConfig, SessionLayer};
use axum_session_sqlx::{SessionPgSession, SessionPgSessionStore};
use bench_server::{Arguments, COUNTER};
use sqlx::postgres::PgPoolOptions;
use time::Duration;

async fn plain() -> &'static str {
    "plain"
}

async fn read(session: SessionPgSession) -> String {
    let n: Option<u64> = session.get(COUNTER);
    n.map_or_else(|| "none".to_owned(), |n| n.to_string())
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

fn config(variant: &str) -> SessionConfig {
    // As long as this crate's default.
    let config = SessionConfig::default().with_lifetime(Duration::DAY);
    match variant {
        "uncached" => config.with_memory_lifetime(Duration::ZERO),
        _ => config,
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::of_process();
    let pool = PgPoolOptions::new()
        .max_connections(arguments.pool)
        .connect(&arguments.database)
        .await?;
    let store = SessionPgSessionStore::new(Some(pool.into()), config(&arguments.variant)).await?;
    let app = Router::new()
        .route("/plain", get(plain))
        .route("/read", get(read))
        .route("/incr", get(increment))
        .route("/new", get(new))
        .route("/seed", get(seed))
        .layer(SessionLayer::new(store));
    Ok(bench_server::serve(app).await?)
}
