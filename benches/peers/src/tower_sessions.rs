//! tower-sessions: with its store for Postgres, or, by the variant, with the store of this
//! repository (`ours`) or with its store for Redis (`redis`).

use axum_pg_session::PgSessionStore;
use bench_server::{Arguments, COUNTER, Failure};
use time::Duration;
use tower_sessions::{Expiry, Session, SessionManagerLayer, SessionStore};
use tower_sessions_redis_store::{
    RedisStore,
    fred::prelude::{ClientLike as _, Config, Pool},
};
use tower_sessions_sqlx_store::PostgresStore;

async fn read(session: Session) -> Result<String, Failure> {
    Ok(bench_server::text(session.get(COUNTER).await?))
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

async fn serve(store: impl SessionStore + Clone) -> std::io::Result<()> {
    // The lifetime is this crate's default. As with this crate's touch, requests that change
    // nothing don't extend the session.
    let layer = SessionManagerLayer::new(store).with_expiry(Expiry::OnInactivity(Duration::DAY));
    bench_server::serve(bench_server::pages!(read, increment, new, seed).layer(layer)).await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::of_process();
    match arguments.variant.as_str() {
        "redis" => {
            let config = Config::from_url(&arguments.url)?;
            let connections = usize::try_from(arguments.connections)?;
            let pool = Pool::new(config, None, None, None, connections)?;
            pool.connect();
            pool.wait_for_connect().await?;
            serve(RedisStore::new(pool)).await?;
        }
        "ours" => {
            let pool = sqlx::postgres::PgPoolOptions::new()
                .max_connections(arguments.connections)
                .connect(&arguments.url)
                .await?;
            let store = PgSessionStore::new(pool);
            store.migrate().await?;
            serve(axum_pg_session_tower_sessions::PostgresStore::new(store)).await?;
        }
        _ => {
            let pool = sqlx_08::postgres::PgPoolOptions::new()
                .max_connections(arguments.connections)
                .connect(&arguments.url)
                .await?;
            let store = PostgresStore::new(pool);
            store.migrate().await?;
            serve(store).await?;
        }
    }
    Ok(())
}
