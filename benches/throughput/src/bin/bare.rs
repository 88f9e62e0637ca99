//! Sessions by hand, as an application without any session crate would have
//! them: a statement to load, a statement to save.

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, header},
    response::IntoResponse,
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bench_server::{Arguments, COUNTER, Failure};
use cookie::Cookie;
use serde_json::{Map, Value};
use sqlx::{PgPool, postgres::PgPoolOptions};

/// As the default table of this crate.
const TABLE: &str = "
CREATE TABLE session (
    id text PRIMARY KEY,
    expiry timestamptz NOT NULL,
    session json,
    created timestamptz DEFAULT now(),
    user_id text
);
CREATE INDEX ON session (expiry);
CREATE INDEX ON session (user_id) WHERE user_id IS NOT NULL;
";

async fn plain() -> &'static str {
    "plain"
}

fn id(headers: &HeaderMap) -> Option<String> {
    let header = headers.get(header::COOKIE)?.to_str().ok()?;
    let mut cookies = Cookie::split_parse(header).flatten();
    let cookie = cookies.find(|cookie| cookie.name() == "id")?;
    Some(cookie.value().to_owned())
}

async fn load(pool: &PgPool, id: &str) -> Result<Map<String, Value>, Failure> {
    let sql = "SELECT session::text FROM session WHERE id = $1 AND expiry > now()";
    let document: String = sqlx::query_scalar(sql).bind(id).fetch_one(pool).await?;
    Ok(serde_json::from_str(&document)?)
}

async fn save(pool: &PgPool, id: &str, document: &Map<String, Value>) -> Result<(), Failure> {
    let sql = "UPDATE session SET session = $2::json WHERE id = $1 AND expiry > now()";
    let document = serde_json::to_string(document)?;
    sqlx::query(sql)
        .bind(id)
        .bind(document)
        .execute(pool)
        .await?;
    Ok(())
}

async fn read(State(pool): State<PgPool>, headers: HeaderMap) -> Result<String, Failure> {
    let id = id(&headers).ok_or("no cookie")?;
    let document = load(&pool, &id).await?;
    let n = document.get(COUNTER).and_then(Value::as_u64);
    Ok(n.map_or_else(|| "none".to_owned(), |n| n.to_string()))
}

async fn increment(State(pool): State<PgPool>, headers: HeaderMap) -> Result<String, Failure> {
    let id = id(&headers).ok_or("no cookie")?;
    let mut document = load(&pool, &id).await?;
    let n = document.get(COUNTER).and_then(Value::as_u64).unwrap_or(0) + 1;
    document.insert(COUNTER.to_owned(), n.into());
    save(&pool, &id, &document).await?;
    Ok(n.to_string())
}

async fn create(pool: &PgPool, document: &Map<String, Value>) -> Result<String, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    let id = URL_SAFE_NO_PAD.encode(bytes);
    let sql = "INSERT INTO session (id, expiry, session)
        VALUES ($1, now() + interval '1 day', $2::json)";
    let document = serde_json::to_string(document)?;
    sqlx::query(sql)
        .bind(&id)
        .bind(document)
        .execute(pool)
        .await?;
    let cookie = Cookie::build(("id", id))
        .path("/")
        .http_only(true)
        .secure(true);
    Ok(cookie.to_string())
}

async fn new(State(pool): State<PgPool>) -> Result<impl IntoResponse, Failure> {
    let document = Map::from_iter([(COUNTER.to_owned(), Value::from(0))]);
    let cookie = create(&pool, &document).await?;
    Ok(([(header::SET_COOKIE, cookie)], "new"))
}

async fn seed(State(pool): State<PgPool>) -> Result<impl IntoResponse, Failure> {
    let members = bench_server::members().into_iter();
    let document = members
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let cookie = create(&pool, &document).await?;
    Ok(([(header::SET_COOKIE, cookie)], "seeded"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::of_process();
    let pool = PgPoolOptions::new()
        .max_connections(arguments.pool)
        .connect(&arguments.database)
        .await?;
    sqlx::raw_sql(TABLE).execute(&pool).await?;
    let app = Router::new()
        .route("/plain", get(plain))
        .route("/read", get(read))
        .route("/incr", get(increment))
        .route("/new", get(new))
        .route("/seed", get(seed))
        .with_state(pool);
    Ok(bench_server::serve(app).await?)
}
