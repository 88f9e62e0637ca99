//! Sessions in the process and nowhere else: what no database can reach.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, header},
    response::IntoResponse,
    routing::get,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bench_server::{COUNTER, Failure};
use cookie::Cookie;
use dashmap::DashMap;
use serde_json::{Map, Value};

type Sessions = Arc<DashMap<String, Map<String, Value>>>;

async fn plain() -> &'static str {
    "plain"
}

fn id(headers: &HeaderMap) -> Option<String> {
    let header = headers.get(header::COOKIE)?.to_str().ok()?;
    let mut cookies = Cookie::split_parse(header).flatten();
    let cookie = cookies.find(|cookie| cookie.name() == "id")?;
    Some(cookie.value().to_owned())
}

async fn read(State(sessions): State<Sessions>, headers: HeaderMap) -> Result<String, Failure> {
    let id = id(&headers).ok_or("no cookie")?;
    let document = sessions.get(&id).ok_or("no session")?;
    let n = document.get(COUNTER).and_then(Value::as_u64);
    Ok(n.map_or_else(|| "none".to_owned(), |n| n.to_string()))
}

async fn increment(
    State(sessions): State<Sessions>,
    headers: HeaderMap,
) -> Result<String, Failure> {
    let id = id(&headers).ok_or("no cookie")?;
    let mut document = sessions.get_mut(&id).ok_or("no session")?;
    let n = document.get(COUNTER).and_then(Value::as_u64).unwrap_or(0) + 1;
    document.insert(COUNTER.to_owned(), n.into());
    Ok(n.to_string())
}

fn create(sessions: &Sessions, document: Map<String, Value>) -> Result<String, Failure> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    let id = URL_SAFE_NO_PAD.encode(bytes);
    sessions.insert(id.clone(), document);
    let cookie = Cookie::build(("id", id))
        .path("/")
        .http_only(true)
        .secure(true);
    Ok(cookie.to_string())
}

async fn new(State(sessions): State<Sessions>) -> Result<impl IntoResponse, Failure> {
    let document = Map::from_iter([(COUNTER.to_owned(), Value::from(0))]);
    let cookie = create(&sessions, document)?;
    Ok(([(header::SET_COOKIE, cookie)], "new"))
}

async fn seed(State(sessions): State<Sessions>) -> Result<impl IntoResponse, Failure> {
    let members = bench_server::members().into_iter();
    let document = members
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let cookie = create(&sessions, document)?;
    Ok(([(header::SET_COOKIE, cookie)], "seeded"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = Router::new()
        .route("/plain", get(plain))
        .route("/read", get(read))
        .route("/incr", get(increment))
        .route("/new", get(new))
        .route("/seed", get(seed))
        .with_state(Sessions::default());
    Ok(bench_server::serve(app).await?)
}
