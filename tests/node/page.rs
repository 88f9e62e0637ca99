//! The page of the axum servers. Its steps have the names of those in `page.js`.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderValue, StatusCode},
    response::{IntoResponse as _, Response},
    routing::post,
};
use axum_pg_session::{CookieLifetime, Error, Expiry, PgSessionLayer, Session};
use cookie::time::{OffsetDateTime, format_description::well_known::Rfc3339};
use indexmap::IndexMap;
use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};
use tokio::sync::Semaphore;

use super::Server;

pub(crate) fn server(layer: PgSessionLayer) -> Server {
    Server::Axum(Router::new().fallback(post(page)).layer(layer))
}

/// A step and what it is given, unparsed, so that every JSON gets through.
type Step<'b> = Vec<&'b RawValue>;

async fn page(session: Session, body: String) -> Result<Response, Error> {
    let steps: Vec<Step<'_>> = serde_json::from_str(&body).expect("steps");
    let mut status = StatusCode::OK;
    for step in &steps {
        match given::<String>(step, 0).as_str() {
            "wait" => wait_at(&given::<String>(step, 1)).await,
            "save" => session.save().await?,
            "status" => status = StatusCode::from_u16(given(step, 1)).expect("a status"),
            name => perform(&session, name, step)?,
        }
    }
    let mut response = (status, text(&session)?).into_response();
    if let Some(user) = session.user_id() {
        let user = HeaderValue::try_from(user).expect("a name");
        response.headers_mut().insert("x-user", user);
    }
    Ok(response)
}

fn given<T: DeserializeOwned>(step: &Step<'_>, index: usize) -> T {
    serde_json::from_str(step[index].get()).expect("what the step takes")
}

fn perform(session: &Session, name: &str, step: &Step<'_>) -> Result<(), Error> {
    match name {
        "set" => session.insert(given::<String>(step, 1), step[2]),
        "remove" => session
            .remove::<Box<RawValue>>(&given::<String>(step, 1))
            .map(drop),
        "increment" => session
            .update(given::<String>(step, 1), |n: Option<u64>| {
                n.unwrap_or(0) + 1
            })
            .map(drop),
        "cookie" => change_cookie(session, given(step, 1)),
        "destroy" => session.destroy(),
        "discard" => session.discard(),
        "touch" => session.touch(),
        "login" => session.login(given::<String>(step, 1)),
        "logout" => session.logout(),
        "clear" => session.clear(),
        "cycle" => session.cycle_id(),
        // As in Node.
        "regenerate" => session.clear().and_then(|()| session.cycle_id()),
        "persist" => session.set_cookie_lifetime(CookieLifetime::Persistent),
        "idle" => session.set_expiry(Expiry::Idle(Duration::from_secs_f64(given(step, 1)))),
        "until" => session.set_expiry(Expiry::At(instant(&given::<String>(step, 1)))),
        _ => panic!("no step {name}"),
    }
}

/// In their order.
type Members = IndexMap<String, Value>;

fn change_cookie(session: &Session, changes: Members) -> Result<(), Error> {
    let change = move |cookie: Option<Members>| {
        let mut cookie = cookie.unwrap_or_default();
        cookie.extend(changes.clone());
        cookie
    };
    session.update("cookie", change).map(drop)
}

pub(crate) fn instant(text: &str) -> OffsetDateTime {
    OffsetDateTime::parse(text, &Rfc3339).expect("an instant")
}

/// The members in their order, each as it is spelled.
fn text(session: &Session) -> Result<String, Error> {
    let mut members = Vec::new();
    for key in session.keys() {
        let value: Option<Box<RawValue>> = session.get(&key)?;
        let value = value.map_or_else(|| "null".into(), |value| value.get().to_owned());
        members.push(format!("{}:{value}", Value::from(key)));
    }
    Ok(format!("{{{}}}", members.join(",")))
}

/// A gate of a name: how many wait, and how many may go on.
struct Latch {
    arrived: Semaphore,
    released: Semaphore,
}

fn latch(name: &str) -> Arc<Latch> {
    static LATCHES: LazyLock<Mutex<HashMap<String, Arc<Latch>>>> = LazyLock::new(Mutex::default);
    let mut latches = LATCHES.lock().unwrap_or_else(PoisonError::into_inner);
    let latch = latches.entry(name.to_owned()).or_insert_with(|| {
        Arc::new(Latch {
            arrived: Semaphore::new(0),
            released: Semaphore::new(0),
        })
    });
    Arc::clone(latch)
}

async fn wait_at(name: &str) {
    let latch = latch(name);
    latch.arrived.add_permits(1);
    latch
        .released
        .acquire()
        .await
        .expect("it is never closed")
        .forget();
}

/// Returns when a request to axum waits at the gate.
pub(crate) async fn arrived(name: &str) {
    let latch = latch(name);
    latch
        .arrived
        .acquire()
        .await
        .expect("it is never closed")
        .forget();
}

pub(crate) fn release(name: &str) {
    latch(name).released.add_permits(1);
}
