//! Sessions without a session crate: a handwritten statement for each load and each save, or, with
//! the variant `memory`, a map in the process.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, header},
    response::IntoResponse,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bench_server::{Arguments, COUNTER, Failure};
use cookie::Cookie;
use dashmap::DashMap;
use serde_json::{Map, Value};
use sqlx::{PgPool, postgres::PgPoolOptions};

/// The default table of this crate.
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
const SELECT: &str = "SELECT session::text FROM session WHERE id = $1 AND expiry > now()";
const UPDATE: &str = "UPDATE session SET session = $2::json WHERE id = $1 AND expiry > now()";
const INSERT: &str = "INSERT INTO session (id, expiry, session)
    VALUES ($1, now() + interval '1 day', $2::json)";

type Document = Map<String, Value>;

#[derive(Clone)]
enum Sessions {
    Table(PgPool),
    Map(Arc<DashMap<String, Document>>),
}

impl Sessions {
    /// Loads a document, changes it, and saves it if `is_saved`.
    async fn with<T>(
        &self,
        id: &str,
        is_saved: bool,
        change: impl FnOnce(&mut Document) -> T,
    ) -> Result<T, Failure> {
        match self {
            Self::Table(pool) => {
                let document: String = sqlx::query_scalar(SELECT).bind(id).fetch_one(pool).await?;
                let mut document = serde_json::from_str(&document)?;
                let result = change(&mut document);
                if is_saved {
                    write(pool, UPDATE, id, &document).await?;
                }
                Ok(result)
            }
            Self::Map(map) => Ok(change(&mut *map.get_mut(id).ok_or("no session")?)),
        }
    }

    async fn create(
        &self,
        document: Document,
        body: &'static str,
    ) -> Result<impl IntoResponse + use<>, Failure> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        let id = URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Table(pool) => write(pool, INSERT, &id, &document).await?,
            Self::Map(map) => drop(map.insert(id.clone(), document)),
        }
        let cookie = Cookie::build(("id", id))
            .path("/")
            .http_only(true)
            .secure(true);
        Ok(([(header::SET_COOKIE, cookie.to_string())], body))
    }
}

async fn write(
    pool: &PgPool,
    sql: &'static str,
    id: &str,
    document: &Document,
) -> Result<(), Failure> {
    let query = sqlx::query(sql)
        .bind(id)
        .bind(serde_json::to_string(document)?);
    query.execute(pool).await?;
    Ok(())
}

fn id(headers: &HeaderMap) -> Option<String> {
    let header = headers.get(header::COOKIE)?.to_str().ok()?;
    let mut cookies = Cookie::split_parse(header).flatten();
    let cookie = cookies.find(|cookie| cookie.name() == "id")?;
    Some(cookie.value().to_owned())
}

fn counter(document: &Document) -> Option<u64> {
    document.get(COUNTER).and_then(Value::as_u64)
}

async fn read(State(sessions): State<Sessions>, headers: HeaderMap) -> Result<String, Failure> {
    let id = id(&headers).ok_or("no cookie")?;
    let n = sessions.with(&id, false, |document| counter(document));
    Ok(bench_server::text(n.await?))
}

async fn increment(
    State(sessions): State<Sessions>,
    headers: HeaderMap,
) -> Result<String, Failure> {
    let id = id(&headers).ok_or("no cookie")?;
    let n = sessions.with(&id, true, |document| {
        let n = counter(document).unwrap_or(0) + 1;
        document.insert(COUNTER.to_owned(), n.into());
        n
    });
    Ok(n.await?.to_string())
}

async fn new(State(sessions): State<Sessions>) -> Result<impl IntoResponse, Failure> {
    let document = Map::from_iter([(COUNTER.to_owned(), Value::from(0))]);
    sessions.create(document, "new").await
}

async fn seed(State(sessions): State<Sessions>) -> Result<impl IntoResponse, Failure> {
    let members = bench_server::members().into_iter();
    let document = members.map(|(name, value)| (name.to_owned(), value));
    sessions.create(document.collect(), "seeded").await
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::of_process();
    let sessions = match arguments.variant.as_str() {
        "memory" => Sessions::Map(Arc::default()),
        _ => {
            let pool = PgPoolOptions::new()
                .max_connections(arguments.connections)
                .connect(&arguments.url)
                .await?;
            sqlx::raw_sql(TABLE).execute(&pool).await?;
            Sessions::Table(pool)
        }
    };
    let app = bench_server::pages!(read, increment, new, seed).with_state(sessions);
    Ok(bench_server::serve(app).await?)
}
