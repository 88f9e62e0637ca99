//! Concurrent requests of one session: what axum guarantees while Express writes too.

use axum::http::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Browser, Reply, Site, with_every_generation};

with_every_generation![
    fifty_changes_in_axum_survive_while_express_reads,
    a_late_save_of_axum_does_not_revive_a_session_that_express_destroyed,
    a_late_save_of_axum_does_not_revive_a_session_that_express_regenerated,
    fifty_requests_of_each_leave_a_session_that_both_read,
];

async fn fifty_changes_in_axum_survive_while_express_reads(site: Site) {
    let (express, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "n", 0]])).await;
    let mut requests = JoinSet::new();
    for number in 0..50 {
        let (browser, axum, express) = (browser.clone(), axum.clone(), express.clone());
        requests.spawn(async move {
            let steps = json!([["set", format!("key {number}"), number], ["increment", "n"]]);
            let response = browser.peek(&axum, steps).await;
            assert_eq!(response.status, 200, "{}", response.body);
            browser.peek(&express, json!([])).await.is_ok();
        });
    }
    requests.join_all().await;
    let document = site.rows().document().await;
    assert_eq!(document["n"], 50);
    for number in 0..50 {
        assert_eq!(document[format!("key {number}")], number);
    }
}

/// Whether the response sets a session's cookie.
fn gives_a_session(response: &Reply) -> bool {
    let lines = response.set_cookies();
    lines.iter().any(|line| line.starts_with("connect.sid=s"))
}

async fn a_late_save_of_axum_does_not_revive_a_session_that_express_destroyed(site: Site) {
    let (express, axum) = site.both().await;
    let mut browser = Browser::new();
    browser
        .visit(&express, json!([["set", "user", "ann"]]))
        .await;
    let logout = async {
        browser.peek(&express, json!([["destroy"]])).await;
    };
    let response = site
        .during(&browser, &axum, json!(["set", "a", 1]), logout)
        .await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!gives_a_session(&response), "{:?}", response.set_cookies());
    assert!(site.ids().await.is_empty());
}

async fn a_late_save_of_axum_does_not_revive_a_session_that_express_regenerated(site: Site) {
    let (express, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "a", 1]])).await;
    let before = browser.clone();
    let login = async {
        browser.visit(&express, json!([["login", "ann"]])).await;
    };
    let response = site
        .during(&before, &axum, json!(["set", "b", 1]), login)
        .await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!gives_a_session(&response), "{:?}", response.set_cookies());
    assert_eq!(site.ids().await, [browser.sid()]);
    let response = browser.peek(&express, json!([])).await;
    assert_eq!(response.user(), Some("ann"));
}

async fn fifty_requests_of_each_leave_a_session_that_both_read(site: Site) {
    let (express, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "n", 0]])).await;
    let mut requests = JoinSet::new();
    for server in [&express, &axum].repeat(50) {
        let (browser, server) = (browser.clone(), server.clone());
        requests.spawn(async move { browser.peek(&server, json!([["increment", "n"]])).await });
    }
    for response in requests.join_all().await {
        assert_eq!(response.status, 200, "{}", response.body);
    }
    let of_express = browser.peek(&express, json!([])).await.session()["n"].clone();
    let of_axum = browser.peek(&axum, json!([])).await.session()["n"].clone();
    assert_eq!(of_express, of_axum);
    assert!(of_axum.as_u64().is_some_and(|n| n >= 1), "{of_axum}");
    assert_eq!(site.ids().await.len(), 1);
}
