//! The options for a session's life, and the calls of one request and outside of requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, HeaderName, HeaderValue, Request},
    middleware::{Next, from_fn},
    routing::get,
};
use axum_pg_session::{
    CookiePriority, Error, ErrorKind, Expiry, FailurePolicy, HeaderTransport, PgSessionLayer,
    PgSessionStore, Session, SessionId, Transport,
};
use serde_json::json;

use crate::support::{Browser, Reply, Site, app, page::app_with, unreachable_store, visit};

const DAY: f64 = 86_400.0;

// Connections.

#[tokio::test]
async fn a_store_connects_by_a_url_and_by_parts() {
    let site = Site::new().await;
    let url = site.database.url();
    let parts = url.parse().expect("a URL");
    for store in [
        PgSessionStore::connect(url).await,
        PgSessionStore::connect_with(parts).await,
    ] {
        let store = store.expect("a connection");
        Browser::with_session(&app(PgSessionLayer::new(store))).await;
    }
    assert_eq!(site.rows().count().await, 2);
}

#[tokio::test]
async fn the_longest_timeout_is_no_panic() {
    let site = Site::new().await;
    let store = site.store.clone().timeout(Duration::MAX);
    Browser::with_session(&app(PgSessionLayer::new(store))).await;
    assert_eq!(site.rows().count().await, 1);
}

// Empty sessions.

#[tokio::test]
async fn a_session_that_holds_nothing_can_be_stored() {
    let site = Site::new().await;
    let mut browser = Browser::new(&app(site.layer().allow_empty(true)));
    assert!(browser.get("/plain").await.sets_no_cookie());
    browser.get("/keys").await;
    assert_eq!(browser.jar.len(), 1);
    assert_eq!(site.rows().text().await, "{}");
    assert!(browser.get("/keys").await.sets_no_cookie());
    let reply = browser.get("/destroy").await;
    assert!(reply.removes_the_cookie());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn an_empty_session_is_not_stored_for_a_failure() {
    let site = Site::new().await;
    let mut browser = Browser::new(&app(site.layer().allow_empty(true)));
    let reply = browser.get("/destroy_and/500").await;
    assert!(reply.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
}

// A database that fails.

/// A visitor with a session whose database went away.
async fn left_alone(layer: impl FnOnce(PgSessionLayer) -> PgSessionLayer) -> (Site, Browser) {
    let site = Site::new().await;
    let browser = site.visitor().await;
    let away = browser.at(&app(layer(PgSessionLayer::new(unreachable_store()))));
    (site, away)
}

#[tokio::test]
async fn a_session_that_can_not_be_loaded_can_be_done_without() {
    let (site, away) = left_alone(|layer| layer.on_load_failure(FailurePolicy::Continue)).await;
    let before = site.rows().dump().await;
    let reply = away.peek("/get/a").await;
    reply.assert(200, "none");
    assert!(reply.sets_no_cookie());
    for path in ["/insert/a/2", "/clear", "/destroy", "/cycle"] {
        let reply = away.peek(path).await;
        assert_eq!(reply.status, 503, "{path}");
        assert!(reply.sets_no_cookie(), "{path}");
    }
    assert_eq!(site.rows().dump().await, before);
}

fn lenient(layer: PgSessionLayer) -> PgSessionLayer {
    layer
        .on_load_failure(FailurePolicy::Continue)
        .on_save_failure(FailurePolicy::Continue)
}

#[tokio::test]
async fn a_site_can_go_on_without_its_database() {
    let (site, away) = left_alone(lenient).await;
    let before = site.rows().dump().await;
    let reply = away.peek("/insert/a/2").await;
    assert_eq!(reply.status, 200);
    assert!(reply.sets_no_cookie());
    assert_eq!(site.rows().dump().await, before);
    // The policy never conceals that a session still exists.
    for path in ["/destroy", "/cycle"] {
        let reply = away.peek(path).await;
        assert_eq!(reply.status, 503, "{path}");
        assert!(reply.sets_no_cookie(), "{path}");
    }
}

#[tokio::test]
async fn a_change_that_is_not_saved_can_be_done_without() {
    let site = Site::new().await;
    let layer = site.layer().on_save_failure(FailurePolicy::Continue);
    let app = app(layer);
    let mut browser = Browser::with_session(&app).await;
    for statement in ["INSERT", "UPDATE", "DELETE"] {
        site.refuse(statement).await;
    }
    for browser in [&mut browser.clone(), &mut Browser::new(&app)] {
        let reply = browser.get("/insert/a/2").await;
        assert_eq!(reply.status, 200);
        assert!(reply.sets_no_cookie());
    }
    for path in ["/destroy", "/cycle"] {
        assert_eq!(browser.get(path).await.status, 503, "{path}");
    }
    assert_eq!(browser.get("/get/a").await.body, "\"1\"");
}

#[tokio::test]
async fn no_policy_conceals_that_a_session_ended_meanwhile() {
    let site = Site::new().await;
    let browser = site.visitor().await;
    let other = browser.clone();
    let page = async move |session: Session| {
        other.clone().get("/destroy").await;
        session.insert("late", true)
    };
    let slow = browser.at(&app_with(lenient(site.layer()), page));
    assert_eq!(slow.peek("/page").await.status, 503);
    assert_eq!(site.rows().count().await, 0);
}

// A check of what was loaded.

fn without_the_banned(site: &Site) -> PgSessionLayer {
    site.layer().valid_if(async |session, _| {
        tokio::task::yield_now().await;
        !session.contains_key("banned")
    })
}

#[tokio::test]
async fn a_session_that_is_not_accepted_ends_and_another_begins() {
    let site = Site::new().await;
    let mut browser = Browser::with_session(&app(without_the_banned(&site))).await;
    assert_eq!(browser.get("/insert/banned/1").await.status, 200);
    let old = browser.token().to_owned();
    let reply = browser.get("/insert/b/1").await;
    assert_eq!(reply.status, 200);
    assert_ne!(browser.token(), old);
    assert_eq!(site.rows().text().await, r#"{"b":"1"}"#);
    assert_eq!(browser.get("/is_new").await.body, "false");
}

#[tokio::test]
async fn a_session_that_is_not_accepted_is_deleted_also_with_a_failure() {
    let site = Site::new().await;
    let mut browser = Browser::new(&app(without_the_banned(&site)));
    browser.get("/insert/banned/1").await;
    let reply = browser.get("/insert_and/500/b/1").await;
    assert!(reply.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn the_check_sees_the_request_once_and_new_sessions_never() {
    let site = Site::new().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let layer = site.layer().valid_if(move |session, request| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let agent = request.headers.get("user-agent").map(HeaderValue::as_bytes);
            assert!(request.uri.path().starts_with('/'));
            session.insert("seen", true).is_ok() && agent.is_none()
        }
    });
    let app = Router::new()
        .route(
            "/insert",
            get(async |session: Session| session.insert("a", 1)),
        )
        .route(
            "/page",
            get(async |one: Session, two: Session| (one.is_new() == two.is_new()).to_string()),
        )
        .layer(layer);
    let mut browser = Browser::new(&app);
    browser.get("/insert").await;
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    assert_eq!(browser.get("/page").await.body, "true");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(site.rows().text().await, r#"{"a":1,"seen":true}"#);

    let mut request = browser.request("/page");
    request
        .headers_mut()
        .insert("user-agent", HeaderValue::from_static("x"));
    assert!(browser.send(request).await.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
}

// What is done before a save.

/// Counts the saves in the session itself.
fn counting(site: &Site) -> PgSessionLayer {
    site.layer().before_save(|session| {
        session
            .update("saves", |n: Option<u64>| n.unwrap_or(0) + 1)
            .map(drop)
    })
}

#[tokio::test]
async fn what_is_done_before_a_save_is_saved() {
    let site = Site::new().await;
    let mut browser = Browser::with_session(&app(counting(&site))).await;
    browser.get("/get/a").await;
    browser.get("/insert/a/1").await;
    assert_eq!(site.rows().text().await, r#"{"a":"1","saves":1}"#);
    browser.get("/insert/a/2").await;
    browser.get("/insert_and/500/a/3").await;
    assert_eq!(site.rows().text().await, r#"{"a":"2","saves":2}"#);
    browser.get("/cycle").await;
    assert_eq!(site.rows().text().await, r#"{"a":"2","saves":3}"#);
    browser.get("/destroy").await;
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn an_explicit_save_is_prepared_too() {
    let site = Site::new().await;
    let page = async |session: Session| {
        session.insert("a", 1)?;
        session.save().await
    };
    Browser::new(&app_with(counting(&site), page))
        .get("/page")
        .await;
    assert_eq!(site.rows().text().await, r#"{"a":1,"saves":1}"#);
}

#[tokio::test]
async fn a_save_that_can_not_be_prepared_is_none() {
    let site = Site::new().await;
    let layer = site
        .layer()
        .before_save(|session| session.get::<u64>("a").map(drop));
    let mut browser = Browser::new(&app(layer));
    let reply = browser.get("/insert/a/text").await;
    assert_eq!(reply.status, 503);
    assert!(reply.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn a_life_can_be_computed_from_the_session() {
    let site = Site::new().await;
    let layer = site.layer().before_save(|session| {
        let minutes: Option<String> = session.get("minutes")?;
        let minutes = minutes.and_then(|text| text.parse().ok()).unwrap_or(1);
        session.set_expiry(Expiry::Idle(Duration::from_secs(60 * minutes)))
    });
    let mut browser = Browser::new(&app(layer));
    browser.get("/insert/minutes/10").await;
    assert!((site.rows().seconds_left().await - 600.0).abs() < 5.0);
    browser.get("/insert/minutes/20").await;
    assert!((site.rows().seconds_left().await - 1200.0).abs() < 5.0);
}

// Transports of the token.

const X_SESSION: HeaderName = HeaderName::from_static("x-session");

/// A client that keeps no cookies.
struct Client {
    app: Router,
    token: Option<HeaderValue>,
    header: HeaderName,
    scheme: &'static str,
}

impl Client {
    fn new(layer: PgSessionLayer, header: HeaderName, scheme: &'static str) -> Self {
        Self {
            app: app(layer),
            token: None,
            header,
            scheme,
        }
    }

    async fn get(&mut self, path: &str) -> Reply {
        let mut request = Request::get(path)
            .body(axum::body::Body::empty())
            .expect("a request");
        if let Some(token) = &self.token {
            let value = [self.scheme.as_bytes(), token.as_bytes()].concat();
            let value = HeaderValue::from_bytes(&value).expect("a value");
            request.headers_mut().insert(self.header.clone(), value);
        }
        let reply = Browser::new(&self.app).send(request).await;
        assert!(reply.sets_no_cookie(), "{:?}", reply.headers);
        if let Some(token) = reply.headers.get(X_SESSION) {
            self.token = Some(token.clone()).filter(|token| !token.is_empty());
        }
        reply
    }
}

async fn travels(mut client: Client, site: &Site) {
    let reply = client.get("/insert/a/1").await;
    assert_eq!(reply.headers["cache-control"], "no-store");
    assert_eq!(reply.headers["vary"], client.header.as_str());
    let first = client.token.clone().expect("a token");
    assert!(client.get("/get/a").await.headers.get(X_SESSION).is_none());
    client.get("/cycle").await;
    assert_ne!(client.token.as_ref(), Some(&first));
    assert_eq!(client.get("/get/a").await.body, "\"1\"");
    client.get("/destroy").await;
    assert_eq!(client.token, None);
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn the_token_travels_in_a_cookie_by_default() {
    let site = Site::new().await;
    let mut browser = site.browser();
    let reply = browser.get("/insert/a/1").await;
    assert_eq!(reply.headers["vary"], "cookie");
    let mut header = Client::new(site.layer(), X_SESSION, "");
    header.token = Some(HeaderValue::from_str(browser.token()).expect("a value"));
    assert_eq!(header.get("/get/a").await.body, "none");
}

#[tokio::test]
async fn the_token_can_travel_in_a_header_and_as_a_bearer_token() {
    let site = Site::new().await;
    let layer = site.layer().transport(HeaderTransport::new(X_SESSION));
    travels(Client::new(layer, X_SESSION, ""), &site).await;
    let layer = site.layer().transport(HeaderTransport::bearer(X_SESSION));
    let client = Client::new(layer, http::header::AUTHORIZATION, "Bearer ");
    travels(client, &site).await;
}

#[tokio::test]
async fn another_scheme_of_authorization_is_no_session() {
    let site = Site::new().await;
    let layer = site.layer().transport(HeaderTransport::bearer(X_SESSION));
    let mut client = Client::new(layer, http::header::AUTHORIZATION, "Basic ");
    client.get("/insert/a/1").await;
    assert_eq!(client.get("/get/a").await.body, "none");
}

#[tokio::test]
async fn with_another_transport_a_cookie_is_no_session() {
    let site = Site::new().await;
    let browser = site.visitor().await;
    let layer = site.layer().transport(HeaderTransport::new(X_SESSION));
    let header = browser.at(&app(layer));
    let reply = header.peek("/get/a").await;
    assert_eq!(reply.body, "none");
    assert!(reply.sets_no_cookie());
}

#[tokio::test]
async fn no_transport_has_a_token_adopted() {
    let site = Site::new().await;
    let layer = site.layer().transport(HeaderTransport::new(X_SESSION));
    let mut client = Client::new(layer, X_SESSION, "");
    for unknown in ["x", "", "yo3kjqNtsxUxpQFnyVPVYF3pKT1yfnW1GnyDmtdW4qA"] {
        client.token = Some(HeaderValue::from_static(unknown));
        client.get("/insert/a/1").await;
        let token = client.token.clone().expect("a token");
        assert_ne!(token, unknown);
        client.get("/destroy").await;
    }
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn a_token_that_opens_nothing_is_removed_from_the_header_by_a_logout() {
    let site = Site::new().await;
    let layer = site.layer().transport(HeaderTransport::new(X_SESSION));
    let mut client = Client::new(layer, X_SESSION, "");
    client.token = Some(HeaderValue::from_static("x"));
    let reply = client.get("/get/a").await;
    assert!(!reply.headers.contains_key(X_SESSION));
    client.token = Some(HeaderValue::from_static("x"));
    let reply = client.get("/destroy").await;
    assert_eq!(reply.headers[X_SESSION], "");
}

/// Reads what a middleware of the application found out.
#[derive(Debug)]
struct FoundBefore;

const FOUND: HeaderName = HeaderName::from_static("x-found");

impl Transport for FoundBefore {
    fn read<'h>(&self, request: &'h HeaderMap) -> Option<&'h [u8]> {
        Some(request.get(FOUND)?.as_bytes())
    }

    fn write(&self, token: &HeaderValue, response: &mut HeaderMap) {
        assert!(token.is_sensitive());
        response.insert(X_SESSION, token.clone());
    }

    fn remove(&self, response: &mut HeaderMap) {
        response.insert(X_SESSION, HeaderValue::from_static(""));
    }

    fn varies_by(&self) -> HeaderName {
        X_SESSION
    }
}

#[tokio::test]
async fn an_earlier_middleware_can_say_which_session_it_is() {
    let site = Site::new().await;
    let find = async |mut request: axum::extract::Request, next: Next| {
        if let Some(token) = request.headers().get(X_SESSION).cloned() {
            request.headers_mut().insert(FOUND, token);
        }
        next.run(request).await
    };
    let app = app(site.layer().transport(FoundBefore)).layer(from_fn(find));
    let mut client = Client::new(site.layer(), X_SESSION, "");
    client.app = app;
    client.get("/insert/a/1").await;
    assert_eq!(client.get("/get/a").await.body, "\"1\"");
}

// The cookie's other attributes.

#[tokio::test]
async fn priority_and_partition_are_not_said_by_default() {
    let site = Site::new().await;
    let reply = site.browser().get("/insert/a/1").await;
    let line = reply.headers["set-cookie"].to_str().expect("ASCII");
    assert!(!line.contains("Priority") && !line.contains("Partitioned"));
}

#[tokio::test]
async fn priority_and_partition_can_be_chosen() {
    let site = Site::new().await;
    let layer = site
        .layer()
        .cookie_priority(CookiePriority::High)
        .cookie_partitioned(true);
    let mut browser = Browser::new(&app(layer));
    for path in ["/insert/a/1", "/destroy"] {
        let reply = browser.get(path).await;
        let line = reply.headers["set-cookie"].to_str().expect("ASCII");
        assert!(line.contains("; Priority=high"), "{line}");
        assert!(line.contains("; Partitioned"), "{line}");
    }
    let insecure = site.layer().cookie_partitioned(true).secure(false);
    assert_eq!(
        insecure.check().expect_err("refused").kind(),
        ErrorKind::Setup
    );
}

// One request.

#[tokio::test]
async fn a_request_can_extend_its_session() {
    let site = Site::new().await;
    let browser = site.visitor().await;
    site.rows().age(60.0).await;
    let touch = async |session: Session| session.touch();
    let app = app_with(site.layer().touch_if(|_, _| false), touch);
    assert!(site.rows().seconds_left().await < DAY - 50.0);
    browser.at(&app).get("/page").await;
    assert!(site.rows().seconds_left().await > DAY - 50.0);
}

#[tokio::test]
async fn a_request_can_begin_an_empty_session() {
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, async |session: Session| {
        session.touch()
    })
    .await;
    assert_eq!(browser.jar.len(), 1);
    assert_eq!(site.rows().text().await, "{}");
}

#[tokio::test]
async fn a_request_can_drop_what_it_did() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    let before = site.rows().dump().await;
    visit(&site, &mut browser, async |session: Session| {
        session.insert("b", 2)?;
        session.cycle_id()?;
        session.set_expiry(Expiry::Idle(Duration::from_secs(1)))?;
        session.discard()?;
        assert_eq!(session.keys(), ["a"]);
        Ok::<_, Error>(())
    })
    .await;
    assert_eq!(site.rows().dump().await, before);
}

#[tokio::test]
async fn a_request_can_drop_the_end_of_its_session() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    let token = browser.token().to_owned();
    visit(&site, &mut browser, async |session: Session| {
        session.destroy()?;
        session.insert("b", 2)?;
        session.discard()?;
        session.insert("c", 3)
    })
    .await;
    assert_eq!(browser.token(), token);
    assert_eq!(site.rows().text().await, r#"{"a":"1","c":3}"#);
}

#[tokio::test]
async fn an_explicit_save_is_not_dropped() {
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, async |session: Session| {
        session.insert("a", 1)?;
        session.save().await?;
        session.insert("a", 2)?;
        session.discard()
    })
    .await;
    assert_eq!(site.rows().text().await, r#"{"a":1}"#);
}

#[tokio::test]
async fn a_request_can_replace_the_whole_content() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    let token = browser.token().to_owned();
    visit(&site, &mut browser, async |session: Session| {
        session.replace(json!({"b": [1], "c": null}))?;
        assert_eq!(session.keys(), ["b", "c"]);
        Ok::<_, Error>(())
    })
    .await;
    assert_eq!(browser.token(), token);
    assert_eq!(site.rows().text().await, r#"{"b":[1],"c":null}"#);
}

#[tokio::test]
async fn only_an_object_without_reserved_keys_replaces_the_content() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    visit(&site, &mut browser, async |session: Session| {
        let kind = |outcome: Result<(), Error>| outcome.expect_err("refused").kind();
        assert_eq!(kind(session.replace([1])), ErrorKind::Serialize);
        assert_eq!(kind(session.replace("text")), ErrorKind::Serialize);
        let reserved = json!({"b": 1, "_session": {}});
        assert_eq!(kind(session.replace(reserved)), ErrorKind::ReservedKey);
        assert_eq!(session.keys(), ["a"]);
        Ok::<_, Error>(())
    })
    .await;
    assert_eq!(site.rows().text().await, r#"{"a":"1"}"#);
}

// Outside of requests.

#[tokio::test]
async fn a_socket_can_read_its_session_without_extending_it() {
    let site = Site::new().await;
    let browser = site.visitor().await;
    let id = browser.handle().await;
    let before = site.rows().dump().await;
    let stored = site
        .store
        .load(&id)
        .await
        .expect("a database")
        .expect("a session");
    assert_eq!(stored.id(), &id);
    assert_eq!(
        stored.get::<String>("a").expect("text").as_deref(),
        Some("1")
    );
    assert_eq!(stored.get::<String>("b").expect("nothing"), None);
    assert_eq!(
        stored.get::<u64>("a").expect_err("text").kind(),
        ErrorKind::Deserialize
    );
    assert_eq!(stored.keys(), ["a"]);
    assert!(stored.expires_at().is_some());
    assert!(!format!("{stored:?}").contains("\"1\""));
    assert_eq!(site.rows().dump().await, before);
    site.rows().age(2.0 * DAY).await;
    assert!(site.store.load(&id).await.expect("a database").is_none());
}

#[tokio::test]
async fn a_job_can_end_a_session() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    let id = browser.handle().await;
    assert!(site.store.destroy(&id).await.expect("a database"));
    assert!(!site.store.destroy(&id).await.expect("as good as ended"));
    assert_eq!(browser.get("/get/a").await.body, "none");
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn an_outage_is_an_error_for_sockets_and_jobs() {
    let id: SessionId = "yo3kjqNtsxUxpQFnyVPVYF3pKT1yfnW1GnyDmtdW4qA"
        .parse()
        .expect("a handle");
    let store = unreachable_store();
    let kind = |outcome: Result<(), Error>| outcome.expect_err("away").kind();
    assert_eq!(
        kind(store.load(&id).await.map(drop)),
        ErrorKind::Unavailable
    );
    assert_eq!(
        kind(store.destroy(&id).await.map(drop)),
        ErrorKind::Unavailable
    );
}
