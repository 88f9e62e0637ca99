//! The cookie's name and attributes, and the settings that a session carries.

use std::time::Duration;

use axum_pg_session::{CookiePriority, PgSessionLayer, SameSite};
use serde_json::{Value, json};

use crate::{
    node::scenarios::a_cookie_of_a_path_and_a_domain_works,
    support::{Browser, Reply, SLACK, Server, Site, page, with_every_generation},
};

with_every_generation![
    both_send_the_same_cookie_and_store_the_same_settings,
    the_cookie_has_the_name_that_was_chosen,
    a_cookie_of_a_path_and_a_domain_is_removed_by_axum,
    secure_auto_follows_the_connection_of_the_first_request,
    attributes_that_express_stored_are_kept_by_axum,
    attributes_that_axum_stored_are_kept_by_express,
    a_lifetime_that_express_chose_applies_in_axum,
    without_a_lifetime_the_row_lives_for_the_ttl,
    a_lifetime_that_is_false_is_none,
    a_cookie_that_axum_made_persistent_is_one_for_express,
    a_lifetime_of_centuries_works_on_both_sides,
    the_first_of_several_cookies_counts,
];

const HOUR: f64 = 3600.0;

/// The stored text, with the date of the next request in Express as axum stores it, and
/// without digits, because Express can lose a millisecond.
fn without_times(text: &str) -> String {
    let text = match text.split_once(r#""expires":""#) {
        Some((before, rest)) => {
            let (_, after) = rest.split_once('"').expect("a date");
            format!(r#"{before}"expires":null{after}"#)
        }
        None => text.to_owned(),
    };
    text.replace(|digit: char| digit.is_ascii_digit(), "0")
}

/// The lines without the id, the signature and dates.
fn shapes(browser: &Browser, name: &str, response: &Reply) -> Vec<String> {
    let value = browser.value(name);
    let lines = response.dateless_cookies();
    lines
        .iter()
        .map(|line| line.replace(value, "VALUE"))
        .collect()
}

/// The same settings of a cookie on both sides.
fn settings(site: &Site) -> Vec<(Value, PgSessionLayer)> {
    let layer = || PgSessionLayer::new(site.store());
    let of_an_hour = site.format().max_age(Duration::from_secs(3600));
    let of_an_hour = of_an_hour.trust_proxy(true);
    let of_an_hour = PgSessionLayer::new(site.store_with(of_an_hour));
    let all = of_an_hour.clone();
    vec![
        (json!({}), layer()),
        (json!({"maxAge": 3_600_000}), of_an_hour),
        (
            json!({"secure": false, "sameSite": "lax"}),
            layer().secure(false).same_site(SameSite::Lax),
        ),
        (
            json!({
                "maxAge": 3_600_000, "secure": true, "httpOnly": false, "domain": "site.test",
                "path": "/app", "sameSite": "none", "priority": "high", "partitioned": true,
            }),
            all.secure(true)
                .http_only(false)
                .cookie_domain("site.test")
                .cookie_path("/app")
                .same_site(SameSite::None)
                .cookie_priority(CookiePriority::High)
                .cookie_partitioned(true),
        ),
    ]
}

async fn both_send_the_same_cookie_and_store_the_same_settings(site: Site) {
    for (cookie, layer) in settings(&site) {
        let options = json!({"session": {"cookie": cookie}, "trustProxy": true});
        let express = site.express_with(options).await;
        let axum = page::server(layer);
        let step = json!([["set", "a", 1]]);
        let mut of_express = Browser::new().over_tls();
        let expected = of_express.visit_at(&express, "/app", step.clone()).await;
        let expected_text = site.rows().text().await;
        let expected = shapes(&of_express, "connect.sid", &expected);
        of_express
            .visit_at(&express, "/app", json!([["destroy"]]))
            .await;

        let mut of_axum = Browser::new().over_tls();
        let response = of_axum.visit_at(&axum, "/app", step).await;
        assert_eq!(shapes(&of_axum, "connect.sid", &response), expected);
        let text = site.rows().text().await;
        assert_eq!(without_times(&text), without_times(&expected_text));
        if cookie.get("maxAge").is_some() {
            let life = response.cookie_life("connect.sid");
            assert!((life - HOUR).abs() < SLACK, "{life} s");
        }
        of_axum
            .visit_at(&axum, "/app", json!([["destroy"]]))
            .await
            .is_ok();
    }
}

async fn the_cookie_has_the_name_that_was_chosen(site: Site) {
    let options = json!({"session": {"name": "shop"}});
    let express = site.express_with(options).await;
    let axum = page::server(PgSessionLayer::new(site.store()).cookie_name("shop"));
    for (here, there) in [(&express, &axum), (&axum, &express)] {
        let mut browser = Browser::new();
        browser.visit(here, json!([["set", "a", 1]])).await;
        assert!(browser.cookie("shop").is_some(), "{:?}", browser.jar);
        let response = browser.visit(there, json!([["increment", "a"]])).await;
        assert_eq!(response.session()["a"], 2);
    }
}

async fn a_cookie_of_a_path_and_a_domain_is_removed_by_axum(site: Site) {
    let cookie = json!({"path": "/app", "domain": "site.test"});
    let options = json!({"session": {"cookie": cookie}});
    let express = site.express_with(options).await;
    let layer = PgSessionLayer::new(site.store());
    let axum = page::server(layer.cookie_path("/app").cookie_domain("site.test"));
    a_cookie_of_a_path_and_a_domain_works(&site, &express, &axum).await;
}

async fn secure_auto_follows_the_connection_of_the_first_request(site: Site) {
    let options = json!({"session": {"cookie": {"secure": "auto"}}, "trustProxy": true});
    let express = site.express_with(options).await;
    let format = site.format().secure_auto().trust_proxy(true);
    let axum = site.axum_with(format);
    for is_secure in [true, false] {
        for (here, there) in [(&express, &axum), (&axum, &express)] {
            let mut browser = match is_secure {
                true => Browser::new().over_tls(),
                false => Browser::new(),
            };
            let response = browser.visit(here, json!([["set", "a", 1]])).await;
            let lines = response.set_cookies();
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert_eq!(lines[0].contains("; Secure"), is_secure, "{lines:?}");
            let secure = &site.rows().document().await["cookie"]["secure"];
            assert_eq!(secure, is_secure);
            let response = browser.visit(there, json!([["increment", "a"]])).await;
            assert_eq!(response.session()["a"], 2);
            browser.visit(&axum, json!([["destroy"]])).await.is_ok();
        }
    }
}

async fn attributes_that_express_stored_are_kept_by_axum(site: Site) {
    let cookie = json!({
        "httpOnly": false, "sameSite": "Lax", "path": "/a", "domain": "site.test",
        "priority": "Low", "maxAge": 3_600_000,
    });
    let options = json!({"session": {"cookie": cookie}});
    let express = site.express_with(options).await;
    let axum = site.axum();
    let mut browser = Browser::new();
    let of_express = browser
        .visit_at(&express, "/a", json!([["set", "n", 1]]))
        .await;
    site.rows().age(HOUR / 2.0).await;
    let of_axum = browser
        .visit_at(&axum, "/a", json!([["increment", "n"]]))
        .await;
    assert_eq!(of_axum.dateless_cookies(), of_express.dateless_cookies());
    browser.visit_at(&axum, "/a", json!([["destroy"]])).await;
    assert!(browser.jar.is_empty(), "{:?}", browser.jar);
}

async fn attributes_that_axum_stored_are_kept_by_express(site: Site) {
    let express = site.express().await;
    let format = site.format().max_age(Duration::from_secs(3600));
    let layer = PgSessionLayer::new(site.store_with(format));
    let axum = page::server(layer.http_only(false).same_site(SameSite::Strict));
    let mut browser = Browser::new();
    let of_axum = browser.visit(&axum, json!([["set", "n", 1]])).await;
    let of_express = browser.visit(&express, json!([["increment", "n"]])).await;
    assert_eq!(of_express.dateless_cookies(), of_axum.dateless_cookies());
    let life = of_express.cookie_life("connect.sid");
    assert!((life - HOUR).abs() < SLACK, "{life} s");
}

async fn assert_lives(site: &Site, expected: f64) {
    let left = site.rows().seconds_left("UTC").await;
    assert!((left - expected).abs() < SLACK, "{left} s are left");
}

async fn a_lifetime_that_express_chose_applies_in_axum(site: Site) {
    let options = json!({"session": {"cookie": {"maxAge": 3_600_000}}});
    let express = site.express_with(options).await;
    let axum = site.axum();
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "a", 1]])).await;
    assert_lives(&site, HOUR).await;
    site.rows().age(HOUR / 2.0).await;
    let response = browser.visit(&axum, json!([["increment", "a"]])).await;
    let life = response.cookie_life("connect.sid");
    assert!((life - HOUR).abs() < SLACK, "{life} s");
    assert_lives(&site, HOUR).await;
}

/// A store on knex has no `ttl`, and always uses a day.
async fn without_a_lifetime_the_row_lives_for_the_ttl(site: Site) {
    let life = match site.is_of_knex() {
        true => 24.0 * HOUR,
        false => 2.0 * HOUR,
    };
    let express = site.express_with(json!({"store": {"ttl": life}})).await;
    let format = site.format().ttl(Duration::from_secs_f64(life));
    let axum = site.axum_with(format);
    let mut browser = Browser::new();
    for server in [&express, &axum, &express] {
        let response = browser.visit(server, json!([["increment", "a"]])).await;
        response.is_ok();
        let cookie = browser.cookie("connect.sid");
        assert_eq!(cookie.and_then(|kept| kept.expires), None);
        assert_lives(&site, life).await;
        site.rows().age(life / 2.0).await;
    }
}

async fn a_lifetime_that_is_false_is_none(site: Site) {
    let (express, axum) = site.both().await;
    let mut browser = Browser::new();
    let steps = json!([["cookie", {"expires": false}], ["set", "a", 1]]);
    browser.visit(&express, steps).await;
    let cookie = &site.rows().document().await["cookie"];
    assert_eq!(cookie["originalMaxAge"], false);
    for (server, a) in [(&axum, 2), (&express, 3), (&axum, 4)] {
        site.rows().age(12.0 * HOUR).await;
        let response = browser.visit(server, json!([["increment", "a"]])).await;
        assert_eq!(response.session()["a"], a);
        let cookie = browser.cookie("connect.sid");
        assert_eq!(cookie.and_then(|kept| kept.expires), None);
        assert_lives(&site, 24.0 * HOUR).await;
    }
}

async fn a_cookie_that_axum_made_persistent_is_one_for_express(site: Site) {
    let (express, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "a", 1]])).await;
    let steps = [json!([["persist"]]), json!([["increment", "a"]])];
    for (server, steps) in [&axum, &express].into_iter().zip(steps) {
        let response = browser.visit(server, steps).await;
        let life = response.cookie_life("connect.sid");
        assert!((life - 24.0 * HOUR).abs() < SLACK, "{life} s");
    }
}

/// Postgres doesn't read JavaScript's format of a date after the year 9999.
async fn a_lifetime_of_centuries_works_on_both_sides(site: Site) {
    let (express, axum) = site.both().await;
    let mut browser = Browser::new();
    let steps = json!([["idle", 1e15], ["set", "a", 1]]);
    browser.visit(&axum, steps).await.is_ok();
    for (server, a) in [(&express, 2), (&axum, 3), (&express, 4)] {
        let response = browser.visit(server, json!([["increment", "a"]])).await;
        assert_eq!(response.session()["a"], a);
        let left = site.rows().seconds_left("UTC").await;
        assert!(left > 100.0 * 365.0 * 24.0 * HOUR, "{left} s are left");
    }
}

/// The value of a cookie with a session of this user.
async fn cookie_of(server: &Server, user: &str) -> String {
    let mut browser = Browser::new();
    browser.visit(server, json!([["set", "user", user]])).await;
    browser.value("connect.sid").to_owned()
}

async fn the_first_of_several_cookies_counts(site: Site) {
    let (express, axum) = site.both().await;
    let ann = cookie_of(&express, "ann").await;
    let bob = cookie_of(&express, "bob").await;
    for (first, second, user) in [
        (&*ann, &*bob, json!("ann")),
        (&bob, &ann, json!("bob")),
        (&ann, "s%3Ainvalid.signature", json!("ann")),
        ("s%3Ainvalid.signature", &ann, Value::Null),
        ("", &ann, Value::Null),
    ] {
        let mut browser = Browser::new();
        let header = format!("{first}; other=1; connect.sid={second}");
        browser.forge("connect.sid", &header);
        for server in [&express, &axum] {
            let response = browser.peek(server, json!([])).await;
            assert_eq!(response.session()["user"], user, "{header}");
        }
    }
}
