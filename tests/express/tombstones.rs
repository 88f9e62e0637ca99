//! Tombstones on Express's table: neither side revives a session that was destroyed, and
//! Express reports no error.

use axum::http::StatusCode;
use axum_pg_session::PgSessionLayer;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Browser, NOTHING, Reply, Server, Site, page, with_every_generation};

with_every_generation![
    a_change_in_express_revives_no_session_that_axum_destroyed,
    with_resave_a_read_in_express_revives_no_session_that_axum_destroyed,
    a_change_in_express_revives_no_session_that_express_destroyed,
    a_change_in_express_revives_no_old_id_after_a_login,
    a_change_in_express_after_a_reload_revives_no_session,
    of_fifty_concurrent_changes_in_express_none_revives_a_session,
    a_whole_visit_works_with_tombstones,
    the_users_of_passport_are_listed_and_signed_out_by_axum,
];

/// Both on a table with tombstones. Express has these options for its sessions.
async fn both_with(site: &Site, session: Value) -> (Server, Server) {
    let express = site.express_with(json!({ "session": session })).await;
    let store = site.store().tombstones(true);
    store.migrate().await.expect("the owner of the table");
    (express, page::server(PgSessionLayer::new(store)))
}

async fn signed_in(express: &Server) -> Browser {
    let mut browser = Browser::new();
    let response = browser.visit(express, json!([["login", "ann"]])).await;
    response.is_ok();
    browser
}

/// While a request to Express is between its load and its save, `server` destroys the
/// session. Returns Express's response.
async fn during_a_logout(
    site: &Site,
    browser: &Browser,
    express: &Server,
    step: Value,
    server: &Server,
) -> Reply {
    let logout = async {
        browser.peek(server, json!([["destroy"]])).await.is_ok();
        assert!(site.ids().await.is_empty());
    };
    site.during(browser, express, step, logout).await
}

async fn assert_is_signed_out(site: &Site, browser: &Browser, servers: [&Server; 2]) {
    assert!(site.ids().await.is_empty());
    for server in servers {
        assert_eq!(browser.peek(server, json!([])).await.user(), None);
    }
}

async fn a_change_in_express_revives_no_session_that_axum_destroyed(site: Site) {
    let (express, axum) = both_with(&site, json!({})).await;
    let browser = signed_in(&express).await;
    let step = json!(["set", "a", 1]);
    let response = during_a_logout(&site, &browser, &express, step, &axum).await;
    response.is_ok();
    assert_is_signed_out(&site, &browser, [&express, &axum]).await;
}

async fn with_resave_a_read_in_express_revives_no_session_that_axum_destroyed(site: Site) {
    let (express, axum) = both_with(&site, json!({"resave": true})).await;
    let browser = signed_in(&express).await;
    let response = during_a_logout(&site, &browser, &express, NOTHING, &axum).await;
    response.is_ok();
    assert_is_signed_out(&site, &browser, [&express, &axum]).await;
}

async fn a_change_in_express_revives_no_session_that_express_destroyed(site: Site) {
    let (express, axum) = both_with(&site, json!({})).await;
    let browser = signed_in(&express).await;
    let step = json!(["set", "a", 1]);
    let response = during_a_logout(&site, &browser, &express, step, &express).await;
    response.is_ok();
    assert_is_signed_out(&site, &browser, [&express, &axum]).await;
}

async fn a_change_in_express_revives_no_old_id_after_a_login(site: Site) {
    let (express, axum) = both_with(&site, json!({})).await;
    for server in [&express, &axum] {
        let mut before = Browser::new();
        before.visit(&express, json!([["set", "a", 1]])).await;
        let mut after = before.clone();
        let login = async {
            after.visit(server, json!([["login", "ann"]])).await.is_ok();
        };
        let response = site
            .during(&before, &express, json!(["set", "b", 1]), login)
            .await;
        response.is_ok();
        assert_eq!(site.ids().await, [after.sid()]);
        let response = after.visit(&express, json!([])).await;
        assert_eq!(response.user(), Some("ann"));
        after.visit(&axum, json!([["destroy"]])).await.is_ok();
    }
}

/// `reload` fails without a row, so the handler ends there.
async fn a_change_in_express_after_a_reload_revives_no_session(site: Site) {
    let (express, axum) = both_with(&site, json!({})).await;
    let browser = signed_in(&express).await;
    let step = json!(["reload"]);
    let response = during_a_logout(&site, &browser, &express, step, &axum).await;
    assert_eq!(response.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_is_signed_out(&site, &browser, [&express, &axum]).await;
}

async fn of_fifty_concurrent_changes_in_express_none_revives_a_session(site: Site) {
    let (express, axum) = both_with(&site, json!({})).await;
    let browser = signed_in(&express).await;
    let mut requests = JoinSet::new();
    for _ in 0..50 {
        let (browser, express) = (browser.clone(), express.clone());
        let steps = json!([["increment", "n"]]);
        requests.spawn(async move { browser.peek(&express, steps).await.is_ok() });
    }
    requests
        .join_next()
        .await
        .expect("a response")
        .expect("it is ok");
    browser.peek(&axum, json!([["destroy"]])).await.is_ok();
    requests.join_all().await;
    // Requests after that begin sessions of other ids.
    let ids = site.ids().await;
    assert!(!ids.contains(&browser.sid().to_owned()), "{ids:?}");
    assert_eq!(browser.peek(&express, json!([])).await.user(), None);
}

async fn a_whole_visit_works_with_tombstones(site: Site) {
    let (express, axum) = both_with(&site, json!({})).await;
    for (here, there) in [(&express, &axum), (&axum, &express)] {
        let mut browser = Browser::new();
        browser.visit(here, json!([["set", "n", 1]])).await.is_ok();
        browser
            .visit(there, json!([["login", "ann"]]))
            .await
            .is_ok();
        let response = browser.visit(here, json!([["increment", "n"]])).await;
        assert_eq!(response.user(), Some("ann"));
        browser
            .visit(there, json!([["increment", "n"]]))
            .await
            .is_ok();
        browser.visit(here, json!([["destroy"]])).await.is_ok();
        assert!(site.ids().await.is_empty());
        browser.visit(there, json!([["set", "n", 1]])).await.is_ok();
        assert_eq!(site.ids().await, [browser.sid()]);
        browser.visit(here, json!([["destroy"]])).await.is_ok();
        assert!(site.ids().await.is_empty());
    }
}

async fn the_users_of_passport_are_listed_and_signed_out_by_axum(site: Site) {
    let (express, axum) = both_with(&site, json!({})).await;
    let phone = signed_in(&express).await;
    let mut laptop = Browser::new();
    laptop.visit(&axum, json!([["login", "ann"]])).await.is_ok();
    let mut other = Browser::new();
    other.visit(&express, json!([["login", "bob"]])).await;
    let ann = site.store().user("ann");
    assert_eq!(ann.count().await.expect("a number"), 2);
    assert_eq!(ann.destroy_all().await.expect("the rows"), 2);
    for browser in [&phone, &laptop] {
        let response = browser.peek(&express, json!([])).await;
        assert_eq!(response.user(), None);
    }
    let response = other.visit(&axum, json!([])).await;
    assert_eq!(response.user(), Some("bob"));
}
