//! tower-sessions, on Postgres or, with `--redis`, on Redis.

use axum::{Router, routing::get};
use bench_server::{Arguments, COUNTER, Failure};
use sqlx::postgres::PgPoolOptions;
use time::Duration;
use tower_sessions::{Expiry, Session, SessionManagerLayer, SessionStore};
use tower_sessions_redis_store::{
    RedisStore,
    fred::prelude::{ClientLike as _, Config, Pool},
};
use tower_sessions_sqlx_store::PostgresStore;

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

fn app(store: impl SessionStore + Clone) -> Router {
    // As long as this crate's default. Like this crate's touch, it is not
    // extended by requests that change nothing.
    let layer = SessionManagerLayer::new(store).with_expiry(Expiry::OnInactivity(Duration::DAY));
    Router::new()
        .route("/plain", get(plain))
        .route("/read", get(read))
        .route("/incr", get(increment))
        .route("/new", get(new))
        .route("/seed", get(seed))
        .layer(layer)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::of_process();
    let app = if arguments.redis.is_empty() {
        let pool = PgPoolOptions::new()
            .max_connections(arguments.pool)
            .connect(&arguments.database)
            .await?;
        let store = PostgresStore::new(pool);
        store.migrate().await?;
        app(store)
    } else {
        let config = Config::from_url(&arguments.redis)?;
        let pool = Pool::new(config, None, None, None, arguments.pool as usize)?;
        pool.connect();
        pool.wait_for_connect().await?;
        app(RedisStore::new(pool))
    };
    Ok(bench_server::serve(app).await?)
}
