//! `axum_pg_session::testing`, the kit for the tests of applications.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    http::Request,
    routing::{any, get},
};
use axum_pg_session::{
    Error, ErrorKind, HeaderTransport, LazySession, PgSessionLayer, Session, SigningKeys,
    Transport, testing::TestVisitor,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{AUTHORIZATION, COOKIE, HOST, SET_COOKIE, USER_AGENT},
};
use tower::Service as _;

use crate::support::{Site, execute, site::app};

const MINUTE: Duration = Duration::from_secs(60);
const RESPONSE: HeaderName = HeaderName::from_static("x-session-token");

fn visit(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

/// A session that the kit made is one to the application, and the other way
/// round.
async fn both_ways(layer: PgSessionLayer) -> Result<(), Error> {
    let app = app(layer.clone());
    let visitor = TestVisitor::new(&layer);
    visitor
        .with_session(|session| session.insert("n", 1))
        .await?;
    let response = visitor.send(&app, visit("/increment/n")).await;
    assert_eq!(response.expect("infallible").status(), 200);
    assert_eq!(visitor.session().await?.get("n")?, Some(2));

    visitor.with_session(Session::cycle_id).await?;
    visitor
        .send(&app, visit("/increment/n"))
        .await
        .expect("infallible");
    assert_eq!(visitor.session().await?.get("n")?, Some(3));

    visitor
        .send(&app, visit("/destroy"))
        .await
        .expect("infallible");
    assert!(visitor.session().await?.is_new());
    assert!(visitor.headers("/").is_empty(), "nothing is kept of it");
    Ok(())
}

#[tokio::test]
async fn a_visitor_has_a_session_by_a_cookie() -> Result<(), Error> {
    both_ways(Site::new().await.layer()).await
}

#[tokio::test]
async fn a_visitor_has_a_session_by_a_signed_cookie_of_another_name() -> Result<(), Error> {
    let keys = SigningKeys::new([[7; 32]]);
    both_ways(
        Site::new()
            .await
            .layer()
            .cookie_name("visit")
            .signing_keys(keys),
    )
    .await
}

#[tokio::test]
async fn a_visitor_has_a_session_by_a_header() -> Result<(), Error> {
    let site = Site::new().await;
    both_ways(site.layer().transport(HeaderTransport::new(RESPONSE))).await?;
    both_ways(site.layer().transport(HeaderTransport::bearer(RESPONSE))).await
}

#[tokio::test]
async fn a_visitor_has_a_session_of_koa() -> Result<(), Error> {
    both_ways(Site::of_koa().await.layer()).await
}

/// Reads from a place that the kit can't guess.
#[derive(Debug)]
struct Own;

impl Transport for Own {
    fn read<'h>(&self, request: &'h HeaderMap) -> Option<&'h [u8]> {
        request
            .get(AUTHORIZATION)?
            .as_bytes()
            .strip_prefix(b"Session id=")
    }
    fn write(&self, token: &HeaderValue, response: &mut HeaderMap) {
        response.insert(RESPONSE, token.clone());
    }
    fn remove(&self, response: &mut HeaderMap) {
        response.insert(RESPONSE, HeaderValue::from_static(""));
    }
    fn varies_by(&self) -> HeaderName {
        AUTHORIZATION
    }
}

#[tokio::test]
async fn a_visitor_carries_a_token_as_configured() -> Result<(), Error> {
    let site = Site::new().await;
    let layer = site.layer().transport(Own);
    let visitor = TestVisitor::new(&layer).send_token_by(|token, request| {
        let token = format!("Session id={}", token.to_str().expect("ASCII"));
        request.insert(AUTHORIZATION, token.parse().expect("ASCII"));
    });
    visitor
        .with_session(|session| session.insert("n", 1))
        .await?;
    assert_eq!(visitor.session().await?.get("n")?, Some(1));
    Ok(())
}

#[tokio::test]
#[should_panic(expected = "TestVisitor::send_token_by")]
async fn a_token_that_can_not_be_carried_is_an_error() {
    let site = Site::new().await;
    let visitor = TestVisitor::new(&site.layer().transport(Own));
    drop(visitor.with_session(|session| session.insert("n", 1)).await);
}

#[tokio::test]
async fn a_transport_that_writes_what_opens_nothing_is_an_error() {
    let site = Site::new().await;
    let visitor = TestVisitor::new(&site.layer().transport(Own)).send_token_by(|_, _| {});
    let given = visitor.with_session(|session| session.insert("n", 1)).await;
    let error = given.expect_err("the next request has no session");
    assert!(error.to_string().contains("transport"), "{error}");
}

#[tokio::test]
async fn a_test_that_forgot_to_migrate_gets_an_error() {
    let site = Site::without_table().await;
    let visitor = TestVisitor::new(&site.layer());
    let error = visitor.with_session(|session| session.login("ada")).await;
    let error = error.expect_err("no table");
    assert_eq!(error.kind(), ErrorKind::Setup);
    assert!(error.to_string().contains("migrate"), "{error}");
}

#[tokio::test]
async fn what_a_closure_did_that_failed_is_not_saved() -> Result<(), Error> {
    let site = Site::new().await;
    let visitor = TestVisitor::new(&site.layer());
    visitor
        .with_session(|session| session.insert("n", 1))
        .await?;
    let failed = visitor.with_session(|session| {
        session.insert("n", 2)?;
        session.insert("_session", 3)
    });
    let error = failed.await.expect_err("a reserved key");
    assert_eq!(error.kind(), ErrorKind::ReservedKey);
    assert_eq!(visitor.session().await?.get("n")?, Some(1));
    Ok(())
}

#[tokio::test]
async fn a_closure_that_does_nothing_begins_no_session() -> Result<(), Error> {
    let site = Site::new().await;
    let visitor = TestVisitor::new(&site.layer());
    visitor.with_session(|_| Ok(())).await?;
    assert_eq!(site.rows().count().await, 0);
    visitor.with_session(Session::touch).await?;
    assert_eq!(site.rows().count().await, 1);
    assert!(!visitor.session().await?.is_new());
    Ok(())
}

#[tokio::test]
async fn to_look_at_a_session_writes_nothing_and_changes_nothing() -> Result<(), Error> {
    let site = Site::new().await;
    let layer = site.layer().touch_interval(Duration::ZERO);
    let visitor = TestVisitor::new(&layer);
    visitor
        .with_session(|session| session.insert("n", 1))
        .await?;
    let before = site.rows().dump().await;
    let error = visitor.session().await?.insert("n", 2);
    assert_eq!(
        error.expect_err("too late").kind(),
        ErrorKind::ResponseStarted
    );
    assert_eq!(site.rows().dump().await, before);
    Ok(())
}

#[tokio::test]
async fn the_application_has_its_say_on_a_session_of_the_kit() -> Result<(), Error> {
    let site = Site::new().await;
    let layer = site.layer().valid_if(async |session, request| {
        let agent: Option<String> = session.get("agent").unwrap_or_default();
        let header = request.headers.get(USER_AGENT);
        agent.as_deref() == header.and_then(|value| value.to_str().ok())
    });
    let visitor = TestVisitor::new(&layer).header(USER_AGENT, HeaderValue::from_static("Firefox"));
    visitor
        .with_session(|session| session.insert("agent", "Firefox"))
        .await?;
    assert!(!visitor.session().await?.is_new());
    let elsewhere = visitor.clone_cookies();
    let elsewhere = elsewhere.header(USER_AGENT, HeaderValue::from_static("curl"));
    assert!(elsewhere.session().await?.is_new());
    assert!(!visitor.session().await?.is_new(), "to look ends nothing");
    Ok(())
}

/// A request of another site's page.
fn foreign(method: Method) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri("/cookies")
        .header("sec-fetch-site", "cross-site")
        .body(Body::empty())
        .expect("a request")
}

#[tokio::test]
async fn a_foreign_page_causes_requests_without_most_cookies() -> Result<(), Error> {
    let site = Site::new().await;
    let layer = site.layer().cookie_name("__Host-s");
    let echo = async |headers: HeaderMap| {
        let cookies = headers.get(COOKIE).and_then(|value| value.to_str().ok());
        let names = cookies.unwrap_or_default().split("; ");
        let names = names.filter_map(|pair| pair.split('=').next());
        names.collect::<Vec<_>>().join(" ")
    };
    let app = Router::new().route("/cookies", any(echo));
    let ask = async |visitor: &TestVisitor, request| {
        let response = visitor.send(&app, request).await.expect("infallible");
        let body = axum::body::to_bytes(response.into_body(), 1000).await;
        String::from_utf8(body.expect("a body").to_vec()).expect("text")
    };
    let visitor = TestVisitor::new(&layer);
    visitor.with_session(|session| session.login("ada")).await?;
    let mut set = HeaderMap::new();
    for cookie in [
        "strict=1; SameSite=Strict",
        "none=1; SameSite=None; Secure",
        "silent=1",
    ] {
        set.append(SET_COOKIE, HeaderValue::from_static(cookie));
    }
    visitor.store_cookies(&set);

    for method in [Method::GET, Method::POST] {
        let mut own = foreign(method);
        own.headers_mut()
            .insert("sec-fetch-site", HeaderValue::from_static("same-origin"));
        assert_eq!(ask(&visitor, own).await, "__Host-s strict none silent");
    }
    let link = ask(&visitor, foreign(Method::GET)).await;
    assert_eq!(link, "__Host-s none silent");
    for method in [Method::POST, Method::PUT, Method::DELETE] {
        assert_eq!(ask(&visitor, foreign(method)).await, "none");
    }
    let mut script = foreign(Method::GET);
    script
        .headers_mut()
        .insert("sec-fetch-mode", HeaderValue::from_static("cors"));
    assert_eq!(ask(&visitor, script).await, "none");

    // As a header of the visitor; the session is found as before.
    let visitor = visitor.header("sec-fetch-site", HeaderValue::from_static("cross-site"));
    let post = Request::post("/cookies").body(Body::empty());
    assert_eq!(ask(&visitor, post.expect("a request")).await, "none");
    assert_eq!(
        ask(&visitor, visit("/cookies")).await,
        "__Host-s none silent"
    );
    assert_eq!(visitor.session().await?.user_id().as_deref(), Some("ada"));
    Ok(())
}

async fn body(response: http::Response<Body>) -> String {
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await;
    String::from_utf8(body.expect("a body").to_vec()).expect("UTF-8")
}

#[tokio::test]
async fn a_visitor_says_that_a_page_of_the_site_sent_the_request() -> Result<(), Error> {
    let site = Site::new().await;
    let sent = async |headers: HeaderMap, _: LazySession| {
        let site = headers.get("sec-fetch-site").cloned();
        site.map_or("none".into(), |site| {
            site.to_str().expect("ASCII").to_owned()
        })
    };
    let layer = site.layer();
    let page = |layer| Router::new().route("/", get(sent)).layer(layer);
    let (app, browser) = (page(layer.clone()), TestVisitor::new(&layer));
    let said = async |request: http::request::Builder| {
        let request = request.uri("/").body(Body::empty()).expect("a request");
        body(browser.send(&app, request).await.expect("a router")).await
    };
    assert_eq!(said(Request::builder()).await, "same-origin");
    let origin = Request::builder().header("origin", "https://evil.example");
    assert_eq!(said(origin).await, "none");
    let cross_site = Request::builder().header("sec-fetch-site", "cross-site");
    assert_eq!(said(cross_site).await, "cross-site");

    let layer = site.layer().transport(HeaderTransport::bearer(RESPONSE));
    let request = Request::get("/").body(Body::empty()).expect("a request");
    let of_an_app = TestVisitor::new(&layer).send(&page(layer), request).await;
    assert_eq!(body(of_an_app.expect("a router")).await, "none");
    Ok(())
}

#[tokio::test]
async fn a_session_ages_in_any_table() -> Result<(), Error> {
    for (table, zone) in [
        (
            "id text PRIMARY KEY, expiry timestamptz NOT NULL, session json",
            "UTC",
        ),
        (
            "id text PRIMARY KEY, expiry timestamp NOT NULL, session jsonb",
            "Asia/Kathmandu",
        ),
    ] {
        let site = Site::without_table().await;
        execute(
            &site.pool,
            &format!("CREATE TABLE public.session ({table})"),
        )
        .await;
        let store = site.store.clone().create_table(false).time_zone(zone);
        let layer = PgSessionLayer::new(store).idle_timeout(30 * MINUTE);
        let visitor = TestVisitor::new(&layer);
        visitor
            .with_session(|session| session.insert("n", 1))
            .await?;
        visitor.idle_for(29 * MINUTE).await?;
        assert!(!visitor.session().await?.is_new(), "{table}");
        let error = visitor.signed_in_ago(MINUTE).await.expect_err("no column");
        assert!(error.to_string().contains("created"), "{error}");
        visitor.idle_for(2 * MINUTE).await?;
        assert!(visitor.session().await?.is_new(), "{table}");
        let error = visitor.idle_for(MINUTE).await.expect_err("it ended");
        assert_eq!(error.kind(), ErrorKind::Ended);
    }
    Ok(())
}

#[tokio::test]
async fn a_session_that_is_idle_is_not_seen_meanwhile() -> Result<(), Error> {
    let site = Site::new().await;
    let visitor = TestVisitor::new(&site.layer());
    visitor.with_session(|session| session.login("ada")).await?;
    visitor.idle_for(10 * MINUTE).await?;
    let listed = site.store.user("ada").list().await?;
    let [session] = listed.as_slice() else {
        panic!("one session in {listed:?}");
    };
    let seen = session.last_seen().expect("a column");
    let created = session.created().expect("a column");
    assert_eq!(seen, created);
    assert!(visitor.session().await?.authenticated_within(11 * MINUTE));
    assert!(!visitor.session().await?.authenticated_within(9 * MINUTE));
    Ok(())
}

#[tokio::test]
async fn a_request_extends_a_session_that_was_made_older() -> Result<(), Error> {
    let site = Site::new().await;
    let layer = site.layer().idle_timeout(30 * MINUTE);
    let app = app(layer.clone());
    let visitor = TestVisitor::new(&layer);
    visitor.with_session(|session| session.login("ada")).await?;
    for _ in 0..3 {
        visitor.idle_for(20 * MINUTE).await?;
        visitor
            .send(&app, visit("/keys"))
            .await
            .expect("infallible");
    }
    let session = visitor.session().await?;
    assert!(!session.is_new() && !session.authenticated_within(59 * MINUTE));
    Ok(())
}

#[tokio::test]
async fn a_cookie_is_sent_to_its_path() -> Result<(), Error> {
    let site = Site::new().await;
    let layer = site.layer().cookie_path("/admin");
    let visitor = TestVisitor::new(&layer);
    visitor.with_session(|session| session.login("ada")).await?;
    assert!(visitor.headers("/administer").is_empty());
    assert_eq!(visitor.headers("/admin/users").len(), 1);
    assert_eq!(visitor.session().await?.user_id().as_deref(), Some("ada"));
    Ok(())
}

#[tokio::test]
async fn the_session_is_the_same_on_localhost_and_elsewhere() -> Result<(), Error> {
    let site = Site::new().await;
    let keys = SigningKeys::new([b"a key of 32 bytes, or longer than that"]);
    for layer in [site.layer(), site.layer().signing_keys(keys)] {
        let app = app(layer.clone());
        let visitor = TestVisitor::new(&layer);
        visitor
            .with_session(|session| session.insert("n", 0))
            .await?;
        let on = |host: &'static str| {
            let mut request = visit("/increment/n");
            let host = HeaderValue::from_static(host);
            request.headers_mut().insert(HOST, host);
            request
        };
        let uri = visit("http://localhost:3000/increment/n");
        for request in [on("localhost:3000"), on("shop.example"), uri] {
            visitor.send(&app, request).await.expect("infallible");
        }
        // A connection of the test's own.
        let mut request = on("127.0.0.1:3000");
        request.headers_mut().extend(visitor.headers("/"));
        let mut own = app.clone();
        let response = own.call(request).await.expect("infallible");
        visitor.store_cookies(response.headers());
        assert_eq!(visitor.session().await?.get("n")?, Some(4));

        // A new token on one host is known on the other, and so is the end of the session.
        visitor.with_session(Session::cycle_id).await?;
        visitor
            .send(&app, on("localhost"))
            .await
            .expect("infallible");
        let mut cycle = on("localhost");
        *cycle.uri_mut() = "/cycle".parse().expect("a path");
        visitor.send(&app, cycle).await.expect("infallible");
        visitor
            .send(&app, on("shop.example"))
            .await
            .expect("infallible");
        assert_eq!(visitor.session().await?.get("n")?, Some(6));
        let mut end = on("localhost");
        *end.uri_mut() = "/destroy".parse().expect("a path");
        visitor.send(&app, end).await.expect("infallible");
        assert!(visitor.headers("/").is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn a_visitor_sends_the_cookie_of_the_host() -> Result<(), Error> {
    let site = Site::new().await;
    let layer = site.layer();
    let echo = async |headers: HeaderMap| {
        let cookie = headers.get(COOKIE).and_then(|value| value.to_str().ok());
        cookie.unwrap_or_default().to_owned()
    };
    let app = Router::new().route("/", get(echo));
    let visitor = TestVisitor::new(&layer);
    visitor.with_session(|session| session.login("ada")).await?;
    for (host, has_mark) in [("shop.example", false), ("localhost:3000", true)] {
        let mut request = visit("/");
        let value = HeaderValue::from_static(host);
        request.headers_mut().insert(HOST, value.clone());
        let always = visitor.clone_cookies().header(HOST, value);
        for (visitor, request) in [(&visitor, request), (&always, visit("/"))] {
            let response = visitor.send(&app, request).await.expect("infallible");
            let body = axum::body::to_bytes(response.into_body(), 1000).await;
            let cookies = String::from_utf8(body.expect("a body").to_vec()).expect("text");
            assert!(!cookies.contains(';'), "{host}: {cookies}");
            assert_eq!(
                cookies.starts_with("__Host-id-"),
                has_mark,
                "{host}: {cookies}"
            );
        }
        assert_eq!(always.session().await?.user_id().as_deref(), Some("ada"));
    }
    Ok(())
}

#[tokio::test]
async fn a_request_of_two_layers_carries_both_sessions() -> Result<(), Error> {
    let site = Site::new().await;
    let (shop, admin) = (site.layer(), site.layer().cookie_name("__Host-admin"));
    let who = async |session: Session| session.user_id().unwrap_or_default();
    let admins = Router::new().route("/admin", get(who)).layer(admin.clone());
    let app = app(shop.clone()).merge(admins.layer(shop.clone()));

    let visitor = TestVisitor::new(&shop);
    visitor
        .with_session(|session| session.insert("n", 1))
        .await?;
    let as_admin = visitor.on_layer(&admin);
    as_admin
        .with_session(|session| session.login("ada"))
        .await?;
    for (path, found) in [("/get/n", "1"), ("/admin", "ada")] {
        let response = visitor.send(&app, visit(path)).await.expect("infallible");
        let body = axum::body::to_bytes(response.into_body(), 99).await;
        assert_eq!(body.expect("a body"), found, "{path}");
    }
    Ok(())
}
