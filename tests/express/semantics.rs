//! The counterpart of each behavior of Express. Each test is a row of the table in
//! `docs/moving/from-express.md`.

use std::time::Duration;

use axum_pg_session::PgSessionLayer;
use serde_json::{Value, json};

use crate::support::{Browser, SLACK, Server, Site, page, with_every_generation};

with_every_generation![
    a_read_moves_the_expiry_and_never_the_document,
    save_uninitialized_is_allow_empty,
    rolling_is_a_touch_interval_of_zero,
    a_read_renews_the_cookie_in_axum_only,
    unset_keep_is_discard,
    unset_destroy_is_destroy,
    destroy_removes_the_cookie_in_axum_only,
    regenerate_is_clear_and_cycle_id,
    save_stores_at_once_on_both_sides,
    touch_moves_the_expiry_on_both_sides,
    max_age_is_set_expiry,
    both_sides_make_ids_of_24_random_bytes,
];

const HOUR: f64 = 3600.0;

/// Sessions that live an hour, with these options of Express and a layer of axum.
async fn of_an_hour(site: &Site, options: Value) -> (Server, PgSessionLayer) {
    let mut session = json!({"cookie": {"maxAge": 3_600_000}});
    for (name, value) in options.as_object().expect("options") {
        session[name] = value.clone();
    }
    let express = site.express_with(json!({ "session": session })).await;
    let format = site.format().max_age(Duration::from_secs(3600));
    let layer = PgSessionLayer::new(site.store_with(format));
    (express, layer)
}

async fn assert_lives_an_hour(site: &Site) {
    let left = site.rows().seconds_left("UTC").await;
    assert!((left - HOUR).abs() < SLACK, "{left} s are left");
}

async fn a_read_moves_the_expiry_and_never_the_document(site: Site) {
    let (express, layer) = of_an_hour(&site, json!({})).await;
    let axum = page::server(layer);
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "a", 1]])).await;
    let stored = site.rows().text().await;
    for server in [&express, &axum] {
        site.rows().age(HOUR / 2.0).await;
        browser.visit(server, json!([])).await.is_ok();
        assert_lives_an_hour(&site).await;
        assert_eq!(site.rows().text().await, stored);
    }
    let before = site.rows().dump().await;
    browser.visit(&axum, json!([])).await.is_ok();
    assert_eq!(site.rows().dump().await, before);
}

async fn save_uninitialized_is_allow_empty(site: Site) {
    for save in [true, false] {
        let options = json!({"session": {"saveUninitialized": save}});
        let express = site.express_with(options).await;
        let layer = PgSessionLayer::new(site.store());
        let axum = page::server(layer.allow_empty(save));
        for server in [&express, &axum] {
            let response = Browser::new().visit(server, json!([])).await;
            assert_eq!(response.set_cookies().len(), usize::from(save));
            assert_eq!(site.ids().await.len(), usize::from(save));
            site.rows().execute("DELETE FROM SESSIONS").await;
        }
    }
}

async fn rolling_is_a_touch_interval_of_zero(site: Site) {
    let (express, layer) = of_an_hour(&site, json!({"rolling": true})).await;
    let axum = page::server(layer.touch_interval(Duration::ZERO));
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "a", 1]])).await;
    for server in [&express, &axum, &axum, &express] {
        let response = browser.visit(server, json!([])).await;
        let life = response.cookie_life("connect.sid");
        assert!((life - HOUR).abs() < SLACK, "{life} s");
    }
}

async fn a_read_renews_the_cookie_in_axum_only(site: Site) {
    let (express, layer) = of_an_hour(&site, json!({})).await;
    let axum = page::server(layer);
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "a", 1]])).await;
    let response = browser.visit(&express, json!([])).await;
    assert!(response.set_cookies().is_empty());
    for (server, steps) in [(&axum, json!([])), (&express, json!([["set", "a", 2]]))] {
        site.rows().age(HOUR / 2.0).await;
        let response = browser.visit(server, steps).await;
        let life = response.cookie_life("connect.sid");
        assert!((life - HOUR).abs() < SLACK, "{life} s");
    }
}

async fn unset_keep_is_discard(site: Site) {
    let (express, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "a", 1]])).await;
    let stored = site.rows().text().await;
    for (server, step) in [(&express, json!(["unset"])), (&axum, json!(["discard"]))] {
        let response = browser.visit(server, json!([["set", "a", 2], step])).await;
        response.is_ok();
        assert!(response.set_cookies().is_empty());
        assert_eq!(site.rows().text().await, stored);
    }
}

async fn unset_destroy_is_destroy(site: Site) {
    let options = json!({"session": {"unset": "destroy"}});
    let express = site.express_with(options).await;
    let axum = site.axum();
    for (server, step) in [(&express, json!(["unset"])), (&axum, json!(["destroy"]))] {
        let mut browser = Browser::new();
        browser.visit(&express, json!([["set", "a", 1]])).await;
        browser.visit(server, json!([step])).await.is_ok();
        assert!(site.ids().await.is_empty());
    }
}

async fn destroy_removes_the_cookie_in_axum_only(site: Site) {
    let (express, axum) = site.both().await;
    for (server, keeps) in [(&express, true), (&axum, false)] {
        let mut browser = Browser::new();
        browser.visit(&express, json!([["set", "a", 1]])).await;
        browser.visit(server, json!([["destroy"]])).await.is_ok();
        assert!(site.ids().await.is_empty());
        assert_eq!(browser.cookie("connect.sid").is_some(), keeps);
    }
}

async fn regenerate_is_clear_and_cycle_id(site: Site) {
    let (express, axum) = site.both().await;
    for server in [&express, &axum] {
        let mut browser = Browser::new();
        browser.visit(&express, json!([["set", "a", 1]])).await;
        let before = browser.clone();
        browser.visit(server, json!([["regenerate"]])).await.is_ok();
        assert_ne!(browser.sid(), before.sid());
        assert_eq!(site.ids().await, [browser.sid()]);
        assert_eq!(site.rows().document().await["a"], Value::Null);
        browser.visit(&axum, json!([["destroy"]])).await.is_ok();
    }
}

async fn save_stores_at_once_on_both_sides(site: Site) {
    let (express, axum) = site.both().await;
    for server in [&express, &axum] {
        let mut browser = Browser::new();
        browser.visit(server, json!([["set", "a", 1]])).await;
        let gate = site.gate();
        let steps = json!([["set", "a", 2], ["save"], ["wait", gate.name]]);
        let look = async {
            gate.arrived().await;
            assert_eq!(site.rows().document().await["a"], 2);
            gate.open().await;
        };
        tokio::join!(browser.peek(server, steps), look).0.is_ok();
        browser.visit(&axum, json!([["destroy"]])).await.is_ok();
    }
}

/// Express touches with every request. axum waits for a twentieth of the lifetime,
/// which is three minutes here.
async fn touch_moves_the_expiry_on_both_sides(site: Site) {
    let (express, layer) = of_an_hour(&site, json!({})).await;
    let axum = page::server(layer);
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "a", 1]])).await;
    for (server, steps) in [(&express, json!([])), (&axum, json!([["touch"]]))] {
        site.rows().age(SLACK + 50.0).await;
        browser.visit(server, steps).await.is_ok();
        assert_lives_an_hour(&site).await;
    }
}

async fn max_age_is_set_expiry(site: Site) {
    let (express, axum) = site.both().await;
    for (here, step, there) in [
        (&express, json!(["cookie", {"maxAge": 3_600_000}]), &axum),
        (&axum, json!(["idle", HOUR]), &express),
    ] {
        let mut browser = Browser::new();
        browser.visit(here, json!([step, ["set", "a", 1]])).await;
        for server in [here, there] {
            let cookie = &site.rows().document().await["cookie"];
            let max_age = cookie["originalMaxAge"].as_f64().expect("a number");
            assert!((max_age - 3_600_000.0).abs() < 1000.0, "{max_age} ms");
            assert_lives_an_hour(&site).await;
            site.rows().age(HOUR / 2.0).await;
            let response = browser.visit(server, json!([["increment", "a"]])).await;
            let life = response.cookie_life("connect.sid");
            assert!((life - HOUR).abs() < SLACK, "{life} s");
        }
        browser.visit(&axum, json!([["destroy"]])).await.is_ok();
    }
}

async fn both_sides_make_ids_of_24_random_bytes(site: Site) {
    let (express, axum) = site.both().await;
    for server in [&express, &axum] {
        let mut browser = Browser::new();
        browser.visit(server, json!([["set", "a", 1]])).await;
        let sid = browser.sid();
        let is_of_base64url =
            |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        assert!(sid.len() == 32 && sid.bytes().all(is_of_base64url), "{sid}");
    }
}
