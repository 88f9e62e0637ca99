//! Rows of another shape than both write.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    node::scenarios::is_no_session_for_axum,
    support::{Browser, Site, with_both_generations},
};

with_both_generations![
    rows_of_axum_are_whole_for_koa,
    a_row_without_cookie_settings_is_read_and_completed_by_axum,
    what_is_no_object_is_no_session_and_stays,
    a_row_without_a_document_is_no_session_and_stays,
    halves_of_characters_survive_axum,
    the_order_and_the_spelling_of_others_survive_axum,
];

const COOKIE: &str =
    r#"{"httpOnly":true,"path":"/","overwrite":true,"signed":true,"maxAge":86400000}"#;

/// A browser whose session Koa began, so that its cookies are signed.
async fn browser_with(site: &Site, document: &str) -> Browser {
    let koa = site.koa().await;
    let mut browser = Browser::new();
    browser.visit(&koa, json!([["set", "a", 1]])).await;
    let id = format!("koa:sess:{}", browser.sid());
    site.rows().insert(&id, document).await;
    browser
}

async fn rows_of_axum_are_whole_for_koa(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&axum, json!([["set", "a", 1]])).await;
    let expected = format!(r#"{{"cookie":{COOKIE},"a":1}}"#);
    assert_eq!(site.rows().text().await, expected);
    let response = browser.visit(&koa, json!([["set", "a", 2]])).await;
    assert_eq!(
        response.set_cookies().len(),
        2,
        "{:?}",
        response.set_cookies()
    );
    assert_eq!(browser.value("koa.sid.sig").len(), 27);
}

async fn a_row_without_cookie_settings_is_read_and_completed_by_axum(site: Site) {
    for document in [r#"{"user":"ann"}"#, r#"{"user":"ann","cookie":{}}"#] {
        let mut browser = browser_with(&site, document).await;
        let (koa, axum) = site.both().await;
        let response = browser.visit(&axum, json!([["set", "a", 1]])).await;
        assert_eq!(response.session()["user"], "ann", "{document}");
        let response = browser.visit(&koa, json!([["set", "a", 2]])).await;
        assert_eq!(response.session()["user"], "ann", "{document}");
        browser.visit(&axum, json!([["destroy"]])).await;
    }
}

async fn what_is_no_object_is_no_session_and_stays(site: Site) {
    for document in [
        "[1,2]",
        r#""text""#,
        "5",
        "true",
        "null",
        "0",
        "false",
        r#""""#,
    ] {
        let browser = browser_with(&site, document).await;
        is_no_session_for_axum(&site, browser, document).await;
    }
}

async fn a_row_without_a_document_is_no_session_and_stays(site: Site) {
    let browser = browser_with(&site, "{}").await;
    let (koa, axum) = site.both().await;
    site.rows()
        .execute("UPDATE SESSIONS SET session = NULL")
        .await;
    let before = site.rows().dump().await;
    for server in [&koa, &axum] {
        let response = browser.peek(server, json!([])).await;
        assert_eq!(response.session()["a"], Value::Null);
    }
    assert_eq!(site.rows().dump().await, before);
}

async fn halves_of_characters_survive_axum(site: Site) {
    let half = r#""\ud83d""#;
    let document = format!(r#"{{"cookie":{COOKIE},"half":{half},"n":1}}"#);
    let mut browser = browser_with(&site, &document).await;
    let (koa, axum) = site.both().await;
    let response = browser.visit(&axum, json!([["increment", "n"]])).await;
    assert_eq!(response.status, StatusCode::OK);
    let text = site.rows().text().await;
    assert_eq!(text, document.replace(r#""n":1"#, r#""n":2"#));
    let response = browser.visit(&koa, json!([["increment", "n"]])).await;
    assert!(response.body.contains(half), "{}", response.body);
    assert!(site.rows().text().await.contains(half));
}

async fn the_order_and_the_spelling_of_others_survive_axum(site: Site) {
    let document = r#"{"z":1e2,"cookie":{"maxAge":86400000,"path":"/","x":[],"signed":true,"overwrite":true,"httpOnly":true},"b":"\u00e9","n":1,"a":-0.0}"#;
    let mut browser = browser_with(&site, document).await;
    browser
        .visit(&site.axum(), json!([["increment", "n"]]))
        .await;
    let text = site.rows().text().await;
    assert_eq!(text, document.replace(r#""n":1"#, r#""n":2"#));
}
