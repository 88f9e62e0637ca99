//! The public API, as rustdoc describes it to `.ci/api`.

use std::{collections::BTreeSet, env, fs};

use axum_pg_session::{
    ClearSiteData, CookieLifetime, CookiePriority, Counters, Device, Ending, Error, ErrorKind,
    Expiry, ExternalSessions, FailurePolicy, HeaderTransport, Key, KeygripDigest, Koa, LazySession,
    Login, PgSessionLayer, PgSessionService, PgSessionStore, ReapSummary, Reaper, ReaperHandle,
    ResponseBody, ResponseFuture, Session, SessionEnd, SessionEvent, SessionEventKind, SessionId,
    SessionLimitPolicy, SessionRejection, SigningKeys, StopReason, StoredSession, TableReport,
    Transport, TypedSession, UnsignedTokens, UserSession, UserSessions, testing::TestVisitor,
};
use serde_json::Value;

/// The compiler proves it: nothing of this need run.
macro_rules! all {
    ($promise:ident: $($type:ty),* $(,)?) => {
        const _: () = { $($promise::<$type>();)* };
    };
}

const fn goes_to_other_threads<T: Send + Sync>() {}
const fn goes_to_another_thread<T: Send>() {}
const fn is_compared<T: Clone + Eq + std::hash::Hash>() {}

/// Whatever the values of the session are, as a key is only its name.
type Local = std::rc::Rc<()>;

all!(goes_to_other_threads:
    SessionLimitPolicy, CookieLifetime, CookiePriority, Counters, Device, StopReason, Error, ErrorKind,
    Expiry, FailurePolicy, HeaderTransport, Key<Local>, KeygripDigest, Koa, LazySession, Login,
    PgSessionLayer, PgSessionService<()>, PgSessionStore, ReapSummary, Reaper, ReaperHandle, ResponseBody<()>,
    Session, SessionId, SessionRejection, SigningKeys, ClearSiteData, StoredSession, TableReport, TestVisitor,
    TypedSession<Local>, UnsignedTokens, UserSession, UserSessions, Box<dyn Transport>,
    Ending, ExternalSessions, SessionEnd, SessionEvent, SessionEventKind,
);

// As a handler's own future is.
all!(goes_to_another_thread: ResponseFuture<std::future::Ready<()>, ()>);

all!(is_compared:
    SessionLimitPolicy, CookieLifetime, CookiePriority, Counters, Device, StopReason, ErrorKind, Expiry,
    FailurePolicy, HeaderTransport, Key<Local>, KeygripDigest, ReapSummary, SessionId, ClearSiteData,
    TableReport, UnsignedTokens, Ending, SessionEventKind,
);

/// What of the dependencies users of this crate see, and must have in the same
/// version. Whatever is not here can change with a minor version of ours.
const CHOSEN: &[&str] = &[
    // The extractors, and errors as responses. axum has the same.
    "axum_core::extract::FromRequestParts",
    "axum_core::extract::option::OptionalFromRequestParts",
    "axum_core::response::Response",
    "axum_core::response::into_response::IntoResponse",
    // The data of a response's body.
    "bytes::bytes::Bytes",
    // Re-exported: an attribute of the layer's cookie.
    "cookie::same_site::SameSite",
    // Requests and responses, of every library of this field. Re-exported.
    "http",
    "http::header::map::HeaderMap",
    "http::header::map::into_header_name::IntoHeaderName",
    "http::header::name::HeaderName",
    "http::header::value::HeaderValue",
    "http::request::Parts",
    "http::request::Request",
    "http::response::Response",
    "http::status::StatusCode",
    // The body of a response.
    "http_body::Body",
    "http_body::frame::Frame",
    "http_body::size_hint::SizeHint",
    // Hidden: how the macro of our future implements Unpin.
    "pin_project_lite::__private::PinnedFieldsOf",
    // Values of a session.
    "serde_core::de::Deserialize",
    "serde_core::de::DeserializeOwned",
    "serde_core::de::Deserializer",
    "serde_core::ser::Serialize",
    "serde_core::ser::Serializer",
    // The database of the application. Re-exported. Its errors are ours by `?`.
    "sqlx",
    "sqlx_core::error::Error",
    "sqlx_core::migrate::error::MigrateError",
    "sqlx_core::migrate::migrator::Migrator",
    "sqlx_postgres::PgPool",
    "sqlx_postgres::connection::PgConnection",
    "sqlx_postgres::options::PgConnectOptions",
    // Instants. Re-exported.
    "time",
    "time::offset_date_time::OffsetDateTime",
    // The middleware.
    "tower_layer::Layer",
    "tower_service::Service",
];

/// The same for the store for tower-sessions.
const CHOSEN_FOR_TOWER_SESSIONS: &[&str] = &[
    // The store that it is created on, and the handles of its calls.
    "axum_pg_session::id::SessionId",
    "axum_pg_session::store::PgSessionStore",
    // The traits that it implements, and what their methods take and return.
    "tower_sessions_core::session::Id",
    "tower_sessions_core::session::Record",
    "tower_sessions_core::session_store::ExpiredDeletion",
    "tower_sessions_core::session_store::Result",
    "tower_sessions_core::session_store::SessionStore",
];

/// Of Rust itself.
const OWN: [&str; 3] = ["alloc", "core", "std"];

fn api() -> Value {
    described("PUBLIC_API")
}

fn api_for_tower_sessions() -> Value {
    described("PUBLIC_API_TOWER_SESSIONS")
}

fn described(variable: &str) -> Value {
    let path = env::var(variable).expect("set by .ci/api");
    let text = fs::read_to_string(path).expect("what rustdoc wrote");
    serde_json::from_str(&text).expect("JSON")
}

/// The items of this crate, without what the compiler or a dependency implements for every type.
fn items(api: &Value) -> impl Iterator<Item = &Value> {
    let index = api["index"].as_object().expect("an index");
    index.values().filter(|item| {
        let implementation = &item["inner"]["impl"];
        item["crate_id"] == 0
            && implementation["is_synthetic"] != true
            && implementation["blanket_impl"].is_null()
    })
}

/// The ids of all types and traits that are named somewhere in this.
fn named(value: &Value, ids: &mut BTreeSet<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| named(value, ids)),
        Value::Object(members) => {
            let is_name = members.contains_key("path") || members.contains_key("source");
            if let (true, Some(id)) = (is_name, members.get("id")) {
                ids.insert(id.to_string());
            }
            members.values().for_each(|value| named(value, ids));
        }
        _ => {}
    }
}

/// The crate of an item, if it is neither this crate nor Rust itself.
fn foreign(api: &Value, id: &str) -> Option<String> {
    let item = &api["paths"][id];
    let of = item["crate_id"].as_u64()?;
    let name = api["external_crates"][of.to_string()]["name"].as_str();
    if of == 0 || name.is_some_and(|name| OWN.contains(&name)) {
        return None;
    }
    let path = item["path"].as_array()?;
    let path: Vec<_> = path.iter().filter_map(Value::as_str).collect();
    Some(path.join("::"))
}

#[test]
#[ignore = "a step of .ci/api, which has rustdoc describe the crate"]
fn no_type_of_a_dependency_is_public_that_was_not_chosen() {
    for (api, chosen) in [
        (api(), CHOSEN),
        (api_for_tower_sessions(), CHOSEN_FOR_TOWER_SESSIONS),
    ] {
        let mut ids = BTreeSet::new();
        for item in items(&api) {
            named(&item["inner"], &mut ids);
        }
        let found: BTreeSet<_> = ids.iter().filter_map(|id| foreign(&api, id)).collect();
        let found: Vec<_> = found.iter().map(String::as_str).collect();
        assert_eq!(
            found, chosen,
            "left is what is public, right what was chosen"
        );
    }
}

/// Kinds of items that stand for themselves; what belongs to one of them is
/// shown with it.
const KINDS: [&str; 6] = ["struct", "enum", "trait", "function", "static", "constant"];

fn kind(item: &Value) -> &str {
    let inner = item["inner"]
        .as_object()
        .and_then(|inner| inner.keys().next());
    inner.map_or("", String::as_str)
}

/// The items that stand for themselves, rather than belong to a type.
fn of_modules(api: &Value) -> impl Iterator<Item = &Value> {
    items(api)
        .filter(|item| kind(item) == "module")
        .flat_map(|module| module["inner"]["module"]["items"].as_array())
        .flatten()
        .map(|id| &api["index"][id.to_string()])
        .map(|item| match item["inner"]["use"]["id"].as_u64() {
            Some(id) => &api["index"][id.to_string()],
            None => item,
        })
        .filter(|item| KINDS.contains(&kind(item)))
}

#[test]
#[ignore = "a step of .ci/api, which has rustdoc describe the crate"]
fn every_public_item_has_an_example() {
    let (api, other) = (api(), api_for_tower_sessions());
    let mut bare: Vec<_> = of_modules(&api)
        .chain(of_modules(&other))
        .filter(|item| !item["docs"].as_str().unwrap_or_default().contains("```"))
        .map(|item| item["name"].as_str().expect("a name"))
        .collect();
    bare.sort_unstable();
    assert!(of_modules(&api).count() > 30, "rustdoc has another format");
    assert_eq!(bare, [""; 0]);
}
