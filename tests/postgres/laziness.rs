//! Requests that need no database, and requests that need one that is down.

use std::time::{Duration, Instant};

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware::{Next, from_fn},
    response::Response,
    routing::{MethodRouter, get},
};
use axum_pg_session::{Error, LazySession, PgSessionLayer, PgSessionStore, Session};
use sqlx::PgPool;
use tokio::net::TcpListener;

use crate::support::{Browser, Reply, Site, site::NOWHERE, site::pages};

const TIMEOUT: Duration = Duration::from_millis(500);
/// Well above the timeout that is set, well below the default one.
const IN_TIME: Duration = Duration::from_secs(3);

fn layer(url: &str) -> PgSessionLayer {
    let pool = PgPool::connect_lazy(url).expect("a URL");
    PgSessionLayer::new(PgSessionStore::new(pool).timeout(TIMEOUT))
}

fn site_without_database() -> Router {
    all_pages().layer(layer(NOWHERE))
}

fn all_pages() -> Router {
    pages()
        .route("/lazy", get(async |_: LazySession| "unseen"))
        .route("/maybe_lazy", get(async |_: Option<LazySession>| "unseen"))
        .route("/maybe", maybe())
        .route("/stubborn", get(stubborn))
}

fn maybe() -> MethodRouter {
    get(async |session: Option<Session>| session.is_some().to_string())
}

/// Loads again after an error.
async fn stubborn(lazy: LazySession) -> Result<String, Error> {
    let first = lazy.load().await.map_err(|error| error.kind());
    let second = lazy.load().await.map_err(|error| error.kind());
    assert_eq!(first.err(), second.err());
    lazy.load().await?.insert("b", 2)?;
    Ok("saved".into())
}

fn stranger(app: &Router) -> Browser {
    Browser::new(app)
}

/// A browser with a cookie that might open a session.
fn visitor(app: &Router) -> Browser {
    Browser::new(app).with_cookie("__Host-id", &"A".repeat(43))
}

fn is_refused(reply: &Reply) {
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reply.sets_no_cookie());
}

#[tokio::test]
async fn a_route_that_takes_no_session_needs_no_database() {
    let app = site_without_database();
    for browser in [stranger(&app), visitor(&app)] {
        for path in ["/plain", "/lazy", "/maybe_lazy"] {
            let reply = browser.peek(path).await;
            assert_eq!(reply.status, StatusCode::OK, "{path}");
            assert!(reply.sets_no_cookie());
        }
    }
}

#[tokio::test]
async fn an_anonymous_write_without_a_database_is_503_and_sets_no_cookie() {
    let browser = stranger(&site_without_database());
    let reply = browser.peek("/insert/a/1").await;
    is_refused(&reply);
    assert_eq!(
        reply.body,
        "The session store is unavailable. Please try again."
    );
}

#[tokio::test]
async fn a_session_that_can_not_be_loaded_is_503_and_not_an_empty_one() {
    let browser = visitor(&site_without_database());
    for path in [
        "/keys",
        "/insert/a/1",
        "/destroy",
        "/cycle",
        "/maybe",
        "/stubborn",
    ] {
        is_refused(&browser.peek(path).await);
    }
}

#[tokio::test]
async fn the_timeout_of_the_store_holds_if_no_server_listens_or_responds() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address");
    let app = all_pages().layer(layer(&format!("postgres://{address}/none")));
    let started = Instant::now();
    is_refused(&visitor(&app).peek("/keys").await);
    is_refused(&stranger(&app).peek("/insert/a/1").await);
    is_refused(&visitor(&site_without_database()).peek("/keys").await);
    assert!(started.elapsed() < IN_TIME);
}

/// What a middleware can read without loading the session: before the handler and after it.
async fn questions(lazy: LazySession, request: Request, next: Next) -> Response {
    let before = [lazy.has_token(), lazy.is_loaded(), lazy.will_be_created()];
    let mut response = next.run(request).await;
    let after = [lazy.is_loaded(), lazy.will_be_created()];
    let text = format!("{before:?} {after:?}");
    let header = text.parse().expect("a value of a header");
    response.headers_mut().insert("replies", header);
    response
}

fn asking(layer: PgSessionLayer) -> Router {
    pages()
        .route("/login", get(async |session: Session| session.login("ada")))
        .route("/begin_anew", get(begin_anew))
        .layer(from_fn(questions))
        .layer(layer)
}

async fn begin_anew(session: Session) -> Result<(), Error> {
    session.destroy()?;
    session.insert("farewell", true)
}

fn replies(reply: &Reply) -> &str {
    reply.headers["replies"].to_str().expect("text")
}

#[tokio::test]
async fn a_middleware_asks_about_the_session_without_a_database() {
    let app = asking(layer(NOWHERE));
    let another_program = Browser::new(&app).with_cookie("__Host-id", "another-program");
    for (browser, path, expected) in [
        (
            stranger(&app),
            "/plain",
            "[false, false, false] [false, false]",
        ),
        (
            another_program,
            "/plain",
            "[false, false, false] [false, false]",
        ),
        (
            visitor(&app),
            "/plain",
            "[true, false, false] [false, false]",
        ),
        (
            stranger(&app),
            "/keys",
            "[false, false, false] [true, false]",
        ),
        (visitor(&app), "/keys", "[true, false, false] [true, false]"),
    ] {
        assert_eq!(replies(&browser.peek(path).await), expected, "{path}");
    }
}

#[tokio::test]
async fn a_session_will_be_created_only_by_a_request_that_begins_one() {
    let site = Site::new().await;
    let app = asking(site.layer());
    for path in ["/insert/a/1", "/login"] {
        let reply = stranger(&app).get(path).await;
        assert_eq!(
            replies(&reply),
            "[false, false, false] [true, true]",
            "{path}"
        );
        assert!(reply.token().is_some());
    }
    // The token was replaced; a login begins a session of its own.
    let mut stored = stranger(&app);
    stored.get("/insert/a/1").await;
    let moved = stored.clone();
    for (path, creates) in [
        ("/get/a", false),
        ("/insert/a/2", false),
        ("/cycle", false),
        ("/login", false),
        ("/begin_anew", true),
    ] {
        let reply = stored.get(path).await;
        let expected = format!("[true, false, false] [true, {creates}]");
        assert_eq!(replies(&reply), expected, "{path}");
    }
    for (path, creates) in [("/insert/a/1", false), ("/login", true)] {
        let reply = moved.peek(path).await;
        let expected = format!("[true, false, false] [true, {creates}]");
        assert_eq!(replies(&reply), expected, "moved, {path}");
    }
    let unknown = visitor(&app).get("/insert/a/1").await;
    assert_eq!(replies(&unknown), "[true, false, false] [true, true]");
}

/// An explicit save begins the session before the middleware reads it.
#[tokio::test]
async fn a_session_that_a_save_began_was_created_by_this_request() {
    let site = Site::new().await;
    let app = Router::new()
        .route("/save", get(begin_and_save))
        .route(
            "/look",
            get(async |session: Session| session.keys().join(",")),
        )
        .route(
            "/insert",
            get(async |session: Session| session.insert("b", 1)),
        )
        .route("/anew", get(end_and_save))
        .route("/end", get(save_and_end))
        .layer(from_fn(was_created))
        .layer(site.layer());
    let mut visitor = Browser::new(&app);
    for (path, expected) in [
        ("/look", "[false, false]"),
        ("/save", "[false, true]"),
        // It was there before.
        ("/save", "[false, false]"),
        ("/look", "[false, false]"),
        ("/insert", "[false, false]"),
        ("/anew", "[false, true]"),
        ("/insert", "[false, false]"),
    ] {
        assert_eq!(replies(&visitor.get(path).await), expected, "{path}");
    }
    let mut stranger = Browser::new(&app);
    assert_eq!(replies(&stranger.get("/insert").await), "[true, false]");
    let ended = Browser::new(&app).get("/end").await;
    assert_eq!(replies(&ended), "[false, false]");
}

async fn begin_and_save(session: Session) -> Result<(), Error> {
    session.insert("a", 1)?;
    session.save().await
}

async fn end_and_save(session: Session) -> Result<(), Error> {
    session.destroy()?;
    session.save().await?;
    session.insert("a", 1)?;
    session.save().await
}

async fn save_and_end(session: Session) -> Result<(), Error> {
    begin_and_save(session.clone()).await?;
    session.destroy()?;
    session.save().await
}

async fn was_created(lazy: LazySession, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let text = format!("{:?}", [lazy.will_be_created(), lazy.was_created()]);
    let header = text.parse().expect("a value of a header");
    response.headers_mut().insert("replies", header);
    response
}

#[tokio::test]
async fn an_empty_session_that_is_allowed_will_be_created() {
    let site = Site::new().await;
    let app = asking(site.layer().allow_empty(true));
    let reply = stranger(&app).get("/keys").await;
    assert_eq!(replies(&reply), "[false, false, false] [true, true]");
    assert!(reply.token().is_some());
}
