//! Rows of another shape than both write.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    model::NAMES_OF_JAVASCRIPT,
    node::scenarios::is_no_session_for_axum,
    support::{Browser, Site, with_every_generation},
};

with_every_generation![
    rows_of_axum_are_complete_for_express,
    axum_refuses_keys_that_express_drops,
    a_row_without_cookie_settings_is_completed_by_axum,
    a_document_that_is_no_object_is_no_session_for_axum,
    the_order_and_the_format_of_other_members_survive_axum,
];

const COOKIE: &str = r#"{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}"#;

/// A browser whose session Express began, so that its cookie is signed.
async fn browser_with(site: &Site, document: &str) -> Browser {
    let express = site.express().await;
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "a", 1]])).await;
    site.rows().insert(browser.sid(), document).await;
    browser
}

async fn rows_of_axum_are_complete_for_express(site: Site) {
    let (express, axum) = site.both().await;
    let mut browser = Browser::new();
    for steps in [
        json!([["set", "a", 1]]),
        json!([["clear"], ["set", "a", 1]]),
        json!([["cycle"], ["set", "a", 1]]),
        json!([["regenerate"], ["set", "a", 1]]),
    ] {
        browser.visit(&axum, steps).await.is_ok();
        let expected = format!(r#"{{"cookie":{COOKIE},"a":1}}"#);
        assert_eq!(site.rows().text().await, expected);
        let response = browser.visit(&express, json!([])).await;
        assert_eq!(response.body, expected);
    }
}

async fn axum_refuses_keys_that_express_drops(site: Site) {
    let (express, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "a", 1]])).await;
    let stored = site.rows().text().await;
    for name in NAMES_OF_JAVASCRIPT {
        let response = browser.peek(&axum, json!([["set", name, 1]])).await;
        assert!(!response.status.is_success(), "{name}");
        assert_eq!(site.rows().text().await, stored, "{name}");
    }
    let nested = json!([["set", "a", {"id": 1, "constructor": 2}]]);
    browser.visit(&axum, nested).await.is_ok();
    let response = browser.visit(&express, json!([])).await;
    assert_eq!(response.session()["a"]["id"], 1);
}

/// An object is enough for Express.
async fn a_row_without_cookie_settings_is_completed_by_axum(site: Site) {
    for document in [
        r#"{"user":"ann"}"#,
        r#"{"user":"ann","cookie":null}"#,
        r#"{"user":"ann","cookie":"text"}"#,
        r#"{"user":"ann","cookie":{}}"#,
    ] {
        let mut browser = browser_with(&site, document).await;
        let (express, axum) = site.both().await;
        let response = browser.visit(&axum, json!([["set", "a", 1]])).await;
        assert_eq!(response.session()["user"], "ann", "{document}");
        let response = browser.visit(&express, json!([["set", "a", 2]])).await;
        assert_eq!(response.status, StatusCode::OK, "{document}");
        assert_eq!(response.session()["user"], "ann", "{document}");
        browser.visit(&axum, json!([["destroy"]])).await;
    }
}

async fn a_document_that_is_no_object_is_no_session_for_axum(site: Site) {
    for document in ["[1,2]", r#""text""#, "5", "true", "null"] {
        let browser = browser_with(&site, document).await;
        is_no_session_for_axum(&site, browser, document).await;
    }
}

async fn the_order_and_the_format_of_other_members_survive_axum(site: Site) {
    let document = r#"{"z":1e2,"cookie":{"path":"/","x":[],"originalMaxAge":null,"httpOnly":true,"expires":null},"b":"\u00e9","n":1,"a":-0.0}"#;
    let mut browser = browser_with(&site, document).await;
    let axum = site.axum();
    browser.visit(&axum, json!([["increment", "n"]])).await;
    let text = site.rows().text().await;
    assert_eq!(text, document.replace(r#""n":1"#, r#""n":2"#));
    let response = browser.visit(&axum, json!([["remove", "b"]])).await;
    assert_eq!(response.session()["b"], Value::Null);
}
