//! Requests of one session at the same moment: what axum promises while Koa
//! writes too, and what Koa can still overwrite.

use axum::http::StatusCode;
use axum_pg_session::PgSessionLayer;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Browser, Reply, Server, Site, page, with_both_generations};

with_both_generations![
    fifty_changes_in_axum_survive_while_koa_reads,
    a_change_in_axum_survives_one_of_koa_that_was_saved_meanwhile,
    a_change_in_axum_is_lost_to_one_of_koa_that_was_loaded_before_it,
    what_koa_ended_stays_ended_whatever_axum_was_at,
    what_koa_regenerated_is_not_brought_back_by_axum,
    a_save_of_koa_can_undo_a_logout_in_axum,
    with_tombstones_a_save_of_koa_revives_no_session,
    fifty_requests_of_each_end_in_a_session_that_both_read,
];

/// While a request to `server` is between its load and its save, `meanwhile`
/// happens; the response is that of the request.
async fn during(
    site: &Site,
    browser: &Browser,
    server: &Server,
    step: Value,
    meanwhile: impl Future<Output = ()>,
) -> Reply {
    let gate = site.gate();
    let steps = json!([["wait", gate.name], step]);
    let meanwhile = async {
        gate.arrived().await;
        meanwhile.await;
        gate.open().await;
    };
    tokio::join!(browser.peek(server, steps), meanwhile).0
}

async fn fifty_changes_in_axum_survive_while_koa_reads(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&koa, json!([["set", "n", 0]])).await;
    let mut requests = JoinSet::new();
    for number in 0..50 {
        let (browser, axum, koa) = (browser.clone(), axum.clone(), koa.clone());
        requests.spawn(async move {
            let steps = json!([["set", format!("key {number}"), number], ["increment", "n"]]);
            let response = browser.peek(&axum, steps).await;
            assert_eq!(response.status, 200, "{}", response.body);
            browser.peek(&koa, json!([])).await;
        });
    }
    requests.join_all().await;
    let document = site.rows().document().await;
    assert_eq!(document["n"], 50);
    for number in 0..50 {
        assert_eq!(document[format!("key {number}")], number);
    }
}

async fn a_change_in_axum_survives_one_of_koa_that_was_saved_meanwhile(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&koa, json!([["set", "n", 1]])).await;
    let koas = async {
        browser
            .peek(&koa, json!([["increment", "n"], ["set", "koa", 1]]))
            .await;
    };
    let response = during(&site, &browser, &axum, json!(["increment", "n"]), koas).await;
    assert_eq!(response.status, 200);
    let document = site.rows().document().await;
    assert_eq!((&document["n"], &document["koa"]), (&json!(3), &json!(1)));
}

async fn a_change_in_axum_is_lost_to_one_of_koa_that_was_loaded_before_it(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&koa, json!([["set", "n", 1]])).await;
    let ours = async {
        let response = browser.peek(&axum, json!([["set", "axum", 1]])).await;
        assert_eq!(response.status, 200);
    };
    during(&site, &browser, &koa, json!(["set", "koa", 1]), ours).await;
    let document = site.rows().document().await;
    assert_eq!(
        (&document["axum"], &document["koa"]),
        (&Value::Null, &json!(1))
    );
}

async fn what_koa_ended_stays_ended_whatever_axum_was_at(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&koa, json!([["set", "user", "ann"]])).await;
    let logout = async {
        browser.peek(&koa, json!([["destroy"]])).await;
    };
    let response = during(&site, &browser, &axum, json!(["set", "a", 1]), logout).await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!gives_a_session(&response), "{:?}", response.set_cookies());
    assert!(site.ids().await.is_empty());
}

fn gives_a_session(response: &Reply) -> bool {
    let lines = response.set_cookies();
    lines
        .iter()
        .any(|line| line.starts_with("koa.sid=") && !line.starts_with("koa.sid=;"))
}

async fn what_koa_regenerated_is_not_brought_back_by_axum(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&koa, json!([["set", "a", 1]])).await;
    let before = browser.clone();
    let mut after = browser.clone();
    let login = async {
        after
            .visit(&koa, json!([["regenerate"], ["set", "user", "ann"]]))
            .await;
    };
    let response = during(&site, &before, &axum, json!(["set", "b", 1]), login).await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!gives_a_session(&response), "{:?}", response.set_cookies());
    assert_eq!(site.ids().await, [format!("koa:sess:{}", after.sid())]);
    assert_eq!(after.peek(&axum, json!([])).await.session()["user"], "ann");
}

async fn a_save_of_koa_can_undo_a_logout_in_axum(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&koa, json!([["set", "user", "ann"]])).await;
    let logout = async {
        let response = browser.peek(&axum, json!([["destroy"]])).await;
        assert_eq!(response.status, 200);
        assert!(site.ids().await.is_empty());
    };
    during(&site, &browser, &koa, json!(["set", "a", 1]), logout).await;
    assert_eq!(site.rows().document().await["user"], "ann");
}

async fn with_tombstones_a_save_of_koa_revives_no_session(site: Site) {
    let koa = site.koa().await;
    let store = site.store().tombstones(true);
    store.migrate().await.expect("the owner of the table");
    let axum = page::server(PgSessionLayer::new(store));
    for server in [&koa, &axum] {
        let mut browser = Browser::new();
        browser.visit(&koa, json!([["set", "user", "ann"]])).await;
        let logout = async {
            browser.peek(server, json!([["destroy"]])).await.is_ok();
            assert!(site.ids().await.is_empty());
        };
        let late = during(&site, &browser, &koa, json!(["set", "a", 1]), logout).await;
        late.is_ok();
        assert!(site.ids().await.is_empty());
        let response = browser.visit(&koa, json!([["set", "b", 1]])).await;
        assert_eq!(response.session()["user"], Value::Null);
        assert_eq!(site.ids().await.len(), 1);
        browser.visit(&axum, json!([["destroy"]])).await.is_ok();
    }
}

async fn fifty_requests_of_each_end_in_a_session_that_both_read(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&koa, json!([["set", "n", 0]])).await;
    let mut requests = JoinSet::new();
    for server in [&koa, &axum].repeat(50) {
        let (browser, server) = (browser.clone(), server.clone());
        requests.spawn(async move { browser.peek(&server, json!([["increment", "n"]])).await });
    }
    for response in requests.join_all().await {
        assert_eq!(response.status, 200, "{}", response.body);
    }
    let of_koa = browser.peek(&koa, json!([])).await.session()["n"].clone();
    let of_axum = browser.peek(&axum, json!([])).await.session()["n"].clone();
    assert_eq!(of_koa, of_axum);
    assert!(of_axum.as_u64().is_some_and(|n| n >= 1), "{of_axum}");
    assert_eq!(site.ids().await.len(), 1);
}
