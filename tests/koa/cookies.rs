//! The cookie's name and attributes, and the settings that a session carries.

use std::time::Duration;

use axum_pg_session::PgSessionLayer;
use cookie::time::{OffsetDateTime, format_description::well_known::Rfc3339};
use serde_json::{Value, json};

use crate::{
    node::scenarios::a_cookie_of_a_path_and_a_domain_works,
    support::{Browser, SLACK, Server, Site, page, with_both_generations},
};

with_both_generations![
    both_send_the_same_lines,
    the_cookie_and_the_row_have_the_names_that_were_chosen,
    a_cookie_of_a_path_and_a_domain_is_set_and_removed_by_axum,
    behind_a_proxy_with_tls_the_cookie_is_secure,
    a_life_that_koa_chose_rules_the_cookie_and_the_row_of_axum,
    a_life_that_axum_chose_rules_the_cookie_and_the_row_of_koa,
    an_end_that_koa_chose_stays_where_it_is,
    an_end_that_axum_chose_stays_where_it_is,
    attributes_that_koa_changed_are_kept_by_axum,
    attributes_that_axum_changed_are_kept_by_koa,
    without_a_life_the_cookie_ends_with_the_browser_and_the_row_after_45_minutes,
    a_fixed_life_of_rows_leaves_the_cookie_alone,
];

const HOUR: f64 = 3600.0;

async fn both_send_the_same_lines(site: Site) {
    let (koa, axum) = site.both().await;
    let mut of_koa = Browser::new();
    let expected = of_koa.visit(&koa, json!([["set", "a", 1]])).await;
    let mut of_axum = Browser::new();
    let response = of_axum.visit(&axum, json!([["set", "a", 1]])).await;
    assert_eq!(
        shapes(&of_axum, &response.dateless_cookies()),
        shapes(&of_koa, &expected.dateless_cookies())
    );
    for name in ["koa.sid", "koa.sid.sig"] {
        let difference = response.cookie_life(name) - expected.cookie_life(name);
        assert!(difference.abs() < SLACK, "{name}: {difference} s");
    }
    // The same session and so the same lines to the letter, where axum sends
    // them: when it moves the expiry.
    site.rows().age(12.0 * HOUR).await;
    let again = of_koa.visit(&axum, json!([["set", "a", 2]])).await;
    assert_eq!(again.dateless_cookies(), expected.dateless_cookies());
}

/// The lines without what differs from session to session.
fn shapes(browser: &Browser, lines: &[String]) -> Vec<String> {
    let (sid, signature) = (browser.sid(), browser.value("koa.sid.sig"));
    lines
        .iter()
        .map(|line| line.replace(sid, "SID").replace(signature, "SIGNATURE"))
        .collect()
}

async fn the_cookie_and_the_row_have_the_names_that_were_chosen(site: Site) {
    let options = json!({"session": {"key": "shop", "prefix": "s:"}});
    let koa = site.koa_with(options).await;
    let store = site.store_with(Site::format().prefix("s:"));
    let axum = page::server(PgSessionLayer::new(store).cookie_name("shop"));
    for (here, there) in [(&koa, &axum), (&axum, &koa)] {
        let mut browser = Browser::new();
        browser.visit(here, json!([["set", "a", 1]])).await;
        let response = browser.visit(there, json!([["increment", "a"]])).await;
        assert_eq!(response.session()["a"], 2);
        let id = format!("s:{}", browser.value("shop"));
        assert_eq!(site.ids().await, [id]);
        browser.visit(here, json!([["destroy"]])).await;
    }
}

async fn a_cookie_of_a_path_and_a_domain_is_set_and_removed_by_axum(site: Site) {
    let cookie = json!({"path": "/app", "domain": "site.test"});
    let koa = site.koa_with(json!({"session": {"cookie": cookie}})).await;
    let layer = PgSessionLayer::new(site.store());
    let axum = page::server(layer.cookie_path("/app").cookie_domain("site.test"));
    a_cookie_of_a_path_and_a_domain_works(&site, &koa, &axum).await;
}

async fn behind_a_proxy_with_tls_the_cookie_is_secure(site: Site) {
    let koa = site.koa().await;
    let store = site.store_with(Site::format().trust_proxy(true));
    let axum = page::server(PgSessionLayer::new(store));
    for server in [&koa, &axum] {
        let mut browser = Browser::new().over_tls();
        let response = browser.visit(server, json!([["set", "a", 1]])).await;
        let lines = response.set_cookies();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines.iter().all(|line| line.contains("; secure; httponly")),
            "{lines:?}"
        );
        let mut browser = Browser::new();
        let response = browser.visit(server, json!([["set", "a", 1]])).await;
        let lines = response.set_cookies();
        assert!(
            lines.iter().all(|line| !line.contains("secure")),
            "{lines:?}"
        );
    }
}

async fn assert_lives(site: &Site, expected: f64) {
    let left = site.rows().seconds_left("UTC").await;
    assert!((left - expected).abs() < SLACK, "{left} s are left");
}

async fn a_life_that_koa_chose_rules_the_cookie_and_the_row_of_axum(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    let steps = json!([["cookie", {"maxAge": 3_600_000}], ["set", "a", 1]]);
    browser.visit(&koa, steps).await;
    assert_lives(&site, HOUR).await;
    site.rows().age(HOUR / 2.0).await;
    let response = browser.visit(&axum, json!([["increment", "a"]])).await;
    assert!((response.cookie_life("koa.sid") - HOUR).abs() < SLACK);
    assert!((response.cookie_life("koa.sid.sig") - HOUR).abs() < SLACK);
    assert_lives(&site, HOUR).await;
}

async fn a_life_that_axum_chose_rules_the_cookie_and_the_row_of_koa(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    let steps = json!([["idle", HOUR], ["set", "a", 1]]);
    let response = browser.visit(&axum, steps).await;
    assert!((response.cookie_life("koa.sid") - HOUR).abs() < SLACK);
    assert_lives(&site, HOUR).await;
    site.rows().age(HOUR / 2.0).await;
    let response = browser.visit(&koa, json!([["increment", "a"]])).await;
    assert_eq!(response.session()["cookie"]["maxAge"], 3_600_000);
    assert!((response.cookie_life("koa.sid") - HOUR).abs() < SLACK);
    assert_lives(&site, HOUR).await;
}

/// An instant so many seconds from now, as JavaScript spells it.
fn in_seconds(seconds: f64) -> String {
    let at = OffsetDateTime::now_utc() + Duration::from_secs_f64(seconds);
    let at = at.replace_nanosecond(0).expect("a second");
    let text = at.format(&Rfc3339).expect("a text");
    text.replace('Z', ".250Z")
}

async fn an_end_that_koa_chose_stays_where_it_is(site: Site) {
    let (koa, axum) = site.both().await;
    an_end_stays(
        &site,
        &koa,
        &axum,
        |at| json!(["cookie", {"expires": at, "maxAge": null}]),
    )
    .await;
}

async fn an_end_that_axum_chose_stays_where_it_is(site: Site) {
    let (koa, axum) = site.both().await;
    an_end_stays(&site, &axum, &koa, |at| json!(["until", at])).await;
}

async fn an_end_stays(site: &Site, here: &Server, there: &Server, step: fn(&str) -> Value) {
    let at = in_seconds(2.0 * HOUR);
    let mut browser = Browser::new();
    browser
        .visit(here, json!([step(&at), ["set", "a", 1]]))
        .await;
    assert_lives(site, 2.0 * HOUR).await;
    assert_eq!(site.rows().document().await["cookie"]["expires"], at);
    let response = browser.visit(there, json!([["increment", "a"]])).await;
    assert_eq!(response.session()["a"], 2);
    let kept = browser.cookie("koa.sid").and_then(|kept| kept.expires);
    let end = page::instant(&at).replace_nanosecond(0).expect("a second");
    assert_eq!(kept, Some(end));
    assert_lives(site, 2.0 * HOUR).await;
    assert_eq!(site.rows().document().await["cookie"]["expires"], at);
}

async fn attributes_that_koa_changed_are_kept_by_axum(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    let changes =
        json!({"httpOnly": false, "sameSite": "lax", "path": "/a", "domain": "site.test"});
    let steps = json!([["cookie", changes], ["set", "n", 1]]);
    let of_koa = browser.visit_at(&koa, "/a", steps).await;
    site.rows().age(12.0 * HOUR).await;
    let of_axum = browser
        .visit_at(&axum, "/a", json!([["increment", "n"]]))
        .await;
    assert_eq!(of_axum.dateless_cookies(), of_koa.dateless_cookies());
    browser.visit_at(&axum, "/a", json!([["destroy"]])).await;
    assert!(browser.jar.is_empty(), "{:?}", browser.jar);
}

async fn attributes_that_axum_changed_are_kept_by_koa(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    let changes = json!({"httpOnly": false, "sameSite": "lax", "maxAge": 3_600_000});
    let steps = json!([["cookie", changes], ["set", "n", 1]]);
    let of_axum = browser.visit(&axum, steps).await;
    assert_lives(&site, HOUR).await;
    let of_koa = browser.visit(&koa, json!([["increment", "n"]])).await;
    assert_eq!(of_koa.dateless_cookies(), of_axum.dateless_cookies());
    assert!(
        browser
            .cookie("koa.sid")
            .is_some_and(|kept| !kept.http_only)
    );
    assert_lives(&site, HOUR).await;
}

async fn without_a_life_the_cookie_ends_with_the_browser_and_the_row_after_45_minutes(site: Site) {
    let options = json!({"session": {"cookie": {"maxAge": null}}});
    let koa = site.koa_with(options).await;
    let store = site.store_with(Site::format().max_age(None));
    let axum = page::server(PgSessionLayer::new(store));
    for (here, there) in [(&koa, &axum), (&axum, &koa)] {
        let mut browser = Browser::new();
        for server in [here, there] {
            browser
                .visit(server, json!([["increment", "n"]]))
                .await
                .is_ok();
            assert_eq!(
                browser.cookie("koa.sid").and_then(|kept| kept.expires),
                None
            );
            assert_lives(&site, 45.0 * 60.0).await;
        }
        browser.visit(here, json!([["destroy"]])).await.is_ok();
    }
}

async fn a_fixed_life_of_rows_leaves_the_cookie_alone(site: Site) {
    let koa = site.koa_with(json!({"session": {"ttl": 3_600_000}})).await;
    let layer = PgSessionLayer::new(site.store());
    let axum = page::server(layer.idle_timeout(Duration::from_secs(3600)));
    for server in [&koa, &axum] {
        let mut browser = Browser::new();
        let response = browser.visit(server, json!([["set", "a", 1]])).await;
        assert_lives(&site, HOUR).await;
        assert_eq!(site.rows().document().await["cookie"]["maxAge"], 86_400_000);
        assert!((response.cookie_life("koa.sid") - 24.0 * HOUR).abs() < SLACK);
        browser.visit(server, json!([["destroy"]])).await;
    }
}
