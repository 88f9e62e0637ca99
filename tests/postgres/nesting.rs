//! Several session layers around one page, and several applications with one store.

use std::time::Duration;

use axum::{Router, routing::get};
use axum_pg_session::{Error, LazySession, PgSessionLayer, PgSessionStore, Session};

use crate::support::{Browser, Rows, Site, log::Log, site::pages, unreachable_store};

/// `/both/{value}` writes to either session, `/read` returns both, and all
/// other pages are those of the inner layer.
fn nested(outer: PgSessionLayer, inner: PgSessionLayer) -> Router {
    pages()
        .route("/both/{value}", get(both))
        .route("/read", get(read))
        .route("/end_outer", get(end_outer))
        .layer(inner)
        .layer(outer)
}

async fn outer(sessions: &LazySession) -> Result<Session, Error> {
    let outer = sessions.named("outer").expect("the outer layer");
    outer.load().await
}

async fn both(
    sessions: LazySession,
    inner: Session,
    axum::extract::Path(value): axum::extract::Path<String>,
) -> Result<(), Error> {
    inner.insert("v", format!("inner {value}"))?;
    outer(&sessions)
        .await?
        .insert("v", format!("outer {value}"))
}

async fn read(sessions: LazySession, inner: Session) -> Result<String, Error> {
    let outer: Option<String> = outer(&sessions).await?.get("v")?;
    let inner: Option<String> = inner.get("v")?;
    Ok(format!("{outer:?} {inner:?}"))
}

async fn end_outer(sessions: LazySession) -> Result<(), Error> {
    outer(&sessions).await?.destroy()
}

fn layer(store: &PgSessionStore, name: &str) -> PgSessionLayer {
    PgSessionLayer::new(store.clone()).cookie_name(name)
}

fn on_one_table(site: &Site) -> Router {
    nested(layer(&site.store, "outer"), layer(&site.store, "inner"))
}

#[tokio::test]
async fn two_layers_keep_two_sessions() {
    let site = Site::new().await;
    let mut browser = Browser::new(&on_one_table(&site));
    let response = browser.get("/both/1").await;
    assert_eq!(response.set_cookies().len(), 2);
    assert_ne!(browser.cookie("outer"), browser.cookie("inner"));
    let expected = r#"Some("outer 1") Some("inner 1")"#;
    assert_eq!(browser.get("/read").await.body, expected);
    assert_eq!(site.rows().count().await, 2);
}

#[tokio::test]
async fn two_layers_keep_their_sessions_in_two_tables() {
    let site = Site::new().await;
    let other = site.store.clone().table("visit");
    other.migrate().await.expect("a second table");
    let app = nested(layer(&other, "outer"), layer(&site.store, "inner"));
    let mut browser = Browser::new(&app);
    browser.get("/both/1").await;
    assert_eq!(site.rows().document().await["v"], "inner 1");
    let rows = Rows::new(site.pool.clone(), "public.visit");
    assert_eq!(rows.document().await["v"], "outer 1");
    let expected = r#"Some("outer 1") Some("inner 1")"#;
    assert_eq!(browser.get("/read").await.body, expected);
}

#[tokio::test]
async fn the_inner_session_is_the_one_that_handlers_take() {
    let site = Site::new().await;
    let browser = Browser::with_session(&on_one_table(&site)).await;
    assert!(browser.cookie("inner").is_some());
    assert_eq!(browser.cookie("outer"), None);
}

#[tokio::test]
async fn a_layer_that_is_not_there_has_no_session() {
    let site = Site::new().await;
    let page = async |sessions: LazySession| {
        let found = ["inner", "outer", "other"].map(|name| sessions.named(name).is_some());
        format!("{found:?}")
    };
    let app = Router::new()
        .route("/", get(page))
        .layer(layer(&site.store, "inner"))
        .layer(layer(&site.store, "outer"));
    let response = Browser::new(&app).get("/").await;
    assert_eq!(response.body, "[true, true, false]");
    assert!(response.sets_no_cookie());
}

#[tokio::test]
async fn the_cookie_of_one_layer_does_not_disturb_the_other() {
    let site = Site::new().await;
    let mut browser = Browser::new(&on_one_table(&site));
    browser.get("/both/1").await;
    let outer = browser.cookie("outer").map(str::to_owned);
    browser.get("/cycle").await;
    assert_eq!(browser.cookie("outer"), outer.as_deref());
    assert!(browser.get("/destroy").await.removes_the_cookie());
    assert_eq!(browser.cookie("inner"), None);
    assert_eq!(browser.get("/read").await.body, r#"Some("outer 1") None"#);
}

#[tokio::test]
async fn the_end_of_the_outer_session_leaves_the_inner_one() {
    let site = Site::new().await;
    let mut browser = Browser::new(&on_one_table(&site));
    browser.get("/both/1").await;
    assert!(browser.get("/end_outer").await.removes_the_cookie());
    assert_eq!(browser.cookie("outer"), None);
    assert_eq!(browser.get("/read").await.body, r#"None Some("inner 1")"#);
}

#[tokio::test]
async fn the_token_of_one_layer_opens_nothing_at_the_other_ones_table() {
    let site = Site::new().await;
    let other = site.store.clone().table("visit");
    other.migrate().await.expect("a second table");
    let app = nested(layer(&other, "outer"), layer(&site.store, "inner"));
    let mut browser = Browser::new(&app);
    browser.get("/both/1").await;
    let inner = browser.cookie("inner").expect("a cookie").to_owned();
    let thief = Browser::new(&app).with_cookie("outer", &inner);
    assert_eq!(thief.peek("/read").await.body, "None None");
}

#[tokio::test]
async fn an_inner_save_that_fails_drops_what_the_outer_one_would_save() {
    let site = Site::new().await;
    let other = site.store.clone().table("visit");
    other.migrate().await.expect("a second table");
    let app = nested(layer(&other, "outer"), layer(&site.store, "inner"));
    site.refuse("INSERT").await;
    let response = Browser::new(&app).get("/both/1").await;
    assert_eq!(response.status, 503);
    assert!(response.sets_no_cookie());
    let rows = Rows::new(site.pool.clone(), "public.visit");
    assert_eq!(rows.count().await, 0);
}

#[tokio::test]
async fn an_unused_outer_session_needs_no_database() {
    let site = Site::new().await;
    let app = nested(
        layer(&unreachable_store(), "outer"),
        layer(&site.store, "inner"),
    );
    let mut browser = Browser::new(&app).with_cookie("outer", &"A".repeat(43));
    assert_eq!(browser.get("/increment/n").await.body, "1");
    assert_eq!(browser.get("/increment/n").await.body, "2");
}

#[tokio::test]
async fn both_layers_are_named_in_vary_once() {
    let site = Site::new().await;
    let response = Browser::new(&on_one_table(&site)).get("/both/1").await;
    let vary: Vec<_> = response.headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["cookie"]);
    let caching: Vec<_> = response.headers.get_all("cache-control").iter().collect();
    assert_eq!(caching, ["no-store"]);
}

#[tokio::test]
async fn of_two_layers_with_one_cookie_the_inner_does_nothing() {
    let site = Site::new().await;
    let app = pages().layer(site.layer()).layer(site.layer());
    let mut browser = Browser::new(&app);
    assert_eq!(browser.get("/insert/a/1").await.set_cookies().len(), 1);
    assert_eq!(browser.get("/get/a").await.body, "\"1\"");
    assert_eq!(browser.get("/destroy").await.set_cookies().len(), 1);
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn a_layer_that_has_no_effect_is_logged_once() {
    let site = Site::new().await;
    let outer = site.layer();
    let changed = outer.clone().idle_timeout(Duration::from_secs(300));
    let warnings = async |inner: PgSessionLayer, requests: usize| {
        let log = Log::keep();
        let app = pages().layer(inner).layer(outer.clone());
        for _ in 0..requests {
            Browser::new(&app).get("/keys").await;
        }
        log.text().matches("has no effect").count()
    };
    assert_eq!(warnings(site.layer(), 2).await, 1);
    assert_eq!(warnings(changed, 2).await, 1);
    // A layer that is added twice is not mistaken for two.
    assert_eq!(warnings(outer.clone(), 1).await, 0);
}
