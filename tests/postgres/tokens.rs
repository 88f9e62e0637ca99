//! Tokens: they are unique, appear in `Set-Cookie` only, and open one row.

use std::collections::HashSet;

use axum::http::header;
use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Session};

use crate::support::{Browser, Reply, Site, app, page::app_with, proxy::Proxy, visit};

#[tokio::test]
async fn no_two_sessions_share_a_token() {
    let site = Site::new().await;
    let mut tokens = HashSet::new();
    for _ in 0..100 {
        let mut browser = site.visitor().await;
        assert!(tokens.insert(browser.token().to_owned()));
        browser.get("/cycle").await;
        assert!(tokens.insert(browser.token().to_owned()));
        let login = async |session: Session| session.login("ann");
        visit(&site, &mut browser, login).await;
        assert!(tokens.insert(browser.token().to_owned()));
    }
}

/// Each request queries the table: no process caches sessions.
#[tokio::test]
async fn a_token_without_a_live_row_opens_nothing() {
    let site = Site::new().await;
    for end in [
        "DELETE FROM TABLE",
        "UPDATE TABLE SET expiry = now()",
        "UPDATE TABLE SET created = now() - interval '31 days'",
        "UPDATE TABLE SET id = reverse(id)",
    ] {
        let browser = site.visitor().await;
        assert_eq!(browser.peek("/get/a").await.body, "\"1\"");
        site.rows().execute(end).await;
        let response = browser.peek("/get/a").await;
        assert_eq!(response.body, "none", "{end}");
        assert!(response.sets_no_cookie(), "{end}");
        site.rows().execute("DELETE FROM TABLE").await;
    }
}

#[tokio::test]
async fn a_session_ended_elsewhere_is_dead_at_the_next_request() {
    let site = Site::new().await;
    let elsewhere = app(PgSessionLayer::new(site.elsewhere().await));
    let browser = site.visitor().await;
    for _ in 0..20 {
        assert_eq!(browser.peek("/get/a").await.body, "\"1\"");
    }
    assert_eq!(browser.at(&elsewhere).get("/destroy").await.status, 200);
    assert_eq!(browser.peek("/get/a").await.body, "none");
}

/// A response without its `Set-Cookie`.
fn said(response: &Reply) -> String {
    let mut headers = response.headers.clone();
    headers.remove(header::SET_COOKIE);
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect();
    format!(
        "{}\n{}\n{}",
        response.status,
        headers.join("\n"),
        response.body
    )
}

/// Everything that a handler can read of a session.
async fn tell_all(session: Session) -> Result<String, Error> {
    Ok(format!(
        "{session:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        session.id(),
        session.id().map(|id| id.to_string()),
        session.keys(),
        session.user_id(),
        session.expires_at(),
        session.get::<serde_json::Value>("_session")?,
    ))
}

#[tokio::test]
async fn the_token_is_only_ever_in_set_cookie() {
    let site = Site::new().await;
    let app = app_with(site.layer(), tell_all);
    let mut browser = Browser::new(&app);
    let mut tokens = Vec::new();
    let mut responses = String::new();
    for page in [
        "/insert/a/1",
        "/page",
        "/id",
        "/keys",
        "/cycle",
        "/page",
        "/id",
        "/increment/a",
        "/cycle_and/500",
        "/insert_and/302/b/2",
        "/destroy",
        "/page",
    ] {
        let response = browser.get(page).await;
        tokens.extend(response.token());
        responses.push_str(&said(&response));
        for set_cookie in response.headers.get_all(header::SET_COOKIE) {
            assert!(set_cookie.is_sensitive(), "{page}");
        }
    }
    assert_eq!(tokens.len(), 2);
    assert!(tokens.iter().all(|token| !responses.contains(token)));
}

#[tokio::test]
async fn a_row_that_was_not_asked_for_is_an_error() {
    let site = Site::new().await;
    let proxy = Proxy::before(site.database.url()).await;
    let store = PgSessionStore::new(proxy.pool().await);
    store.check().await.expect("a table");
    let app = app(PgSessionLayer::new(store));
    let (mut mine, mut other) = (Browser::new(&app), Browser::new(&app));
    mine.get("/insert/whose/mine").await;
    other.get("/insert/whose/other").await;
    let id = mine.get("/id").await.body;
    proxy.mix_up(&id, &other.get("/id").await.body);
    for page in ["/get/whose", "/insert/whose/mine", "/cycle", "/destroy"] {
        let response = mine.peek(page).await;
        assert_eq!(response.status, 500, "{page}");
        assert!(response.sets_no_cookie() && !response.body.contains("other"));
    }
    assert_eq!(other.peek("/get/whose").await.body, "\"other\"");
    assert_eq!(site.rows().count().await, 2);
}
