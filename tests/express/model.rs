//! What Express does without axum. The other tests and the guide rely on it.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    Browser, SLACK, Site, in_seconds, with_connect_pg_simple, with_every_generation,
};

with_every_generation![
    a_session_is_a_row_and_a_cookie,
    an_unused_session_has_neither_row_nor_cookie,
    a_destroyed_session_keeps_its_cookie,
    an_expired_session_is_not_loaded,
    its_cleanup_deletes_only_expired_rows,
    names_of_javascript_are_dropped_with_the_next_request,
    a_row_without_cookie_settings_is_an_error_for_each_request,
    of_two_concurrent_changes_the_first_is_lost,
    a_late_save_revives_a_destroyed_session,
    every_request_moves_a_fixed_end,
    a_changed_max_age_alone_is_not_stored,
];

with_connect_pg_simple![the_expiry_is_in_the_zone_of_its_connection];

const DAY: f64 = 86_400.0;

async fn a_session_is_a_row_and_a_cookie(site: Site) {
    let express = site.express().await;
    let mut browser = Browser::new();
    let response = browser.visit(&express, json!([["set", "count", 2]])).await;
    let expected =
        r#"{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"count":2}"#;
    assert_eq!(response.body, expected);
    assert_eq!(site.rows().text().await, expected);
    let value = browser.value("connect.sid");
    assert_eq!(
        response.set_cookies(),
        [format!("connect.sid={value}; Path=/; HttpOnly")]
    );
    assert_eq!(browser.sid().len(), 32);
    assert_eq!(site.ids().await, [browser.sid()]);
    let left = site.rows().seconds_left("UTC").await;
    assert!((left - DAY).abs() < SLACK, "{left} s are left");
}

async fn an_unused_session_has_neither_row_nor_cookie(site: Site) {
    let express = site.express().await;
    let response = Browser::new().visit(&express, json!([])).await;
    assert_eq!(response.status, 200);
    assert!(response.set_cookies().is_empty());
    assert!(site.ids().await.is_empty());
}

async fn a_destroyed_session_keeps_its_cookie(site: Site) {
    let express = site.express().await;
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "a", 1]])).await;
    let response = browser.visit(&express, json!([["destroy"]])).await;
    assert_eq!(response.body, r#""absent""#);
    assert!(response.set_cookies().is_empty());
    assert!(site.ids().await.is_empty());
    let destroyed = browser.sid().to_owned();
    browser.visit(&express, json!([["set", "a", 1]])).await;
    assert_ne!(browser.sid(), destroyed);
}

async fn an_expired_session_is_not_loaded(site: Site) {
    let express = site.express().await;
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "a", 1]])).await;
    site.rows().age(DAY + 5.0).await;
    let response = browser.peek(&express, json!([])).await;
    assert_eq!(response.session()["a"], Value::Null);
}

async fn its_cleanup_deletes_only_expired_rows(site: Site) {
    let express = site
        .express_with(json!({"store": site.quick_cleanup()}))
        .await;
    let mut expired = Browser::new();
    expired.visit(&express, json!([["set", "a", 1]])).await;
    let mut living = Browser::new();
    living.visit(&express, json!([["set", "a", 2]])).await;
    site.rows().expire(expired.sid(), "UTC", -5.0).await;
    site.rows().loses(expired.sid()).await;
    assert_eq!(site.ids().await, [living.sid()]);
}

async fn names_of_javascript_are_dropped_with_the_next_request(site: Site) {
    let express = site.express().await;
    for name in NAMES_OF_JAVASCRIPT {
        let mut browser = Browser::new();
        browser.visit(&express, json!([["set", "a", 1]])).await;
        let cookie =
            r#""cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}"#;
        let document = format!(r#"{{{cookie},"a":1,"{name}":2}}"#);
        site.rows().insert(browser.sid(), &document).await;
        let response = browser.visit(&express, json!([])).await;
        let expected = format!(r#"{{{cookie},"a":1}}"#);
        assert_eq!(response.body, expected, "{name}");
        assert_eq!(site.rows().text().await, expected, "{name}");
        browser.visit(&express, json!([["destroy"]])).await;
    }
}

/// The members of an object that every session has in Express.
pub(crate) const NAMES_OF_JAVASCRIPT: [&str; 20] = [
    "req",
    "id",
    "touch",
    "resetMaxAge",
    "save",
    "reload",
    "destroy",
    "regenerate",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
    "__proto__",
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
];

async fn a_row_without_cookie_settings_is_an_error_for_each_request(site: Site) {
    let express = site.express().await;
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "a", 1]])).await;
    site.rows().insert(browser.sid(), r#"{"a":1}"#).await;
    for _ in 0..2 {
        let response = browser.visit(&express, json!([])).await;
        assert_eq!(response.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
}

async fn of_two_concurrent_changes_the_first_is_lost(site: Site) {
    let express = site.express().await;
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "a", 1]])).await;
    let first = async {
        browser.peek(&express, json!([["set", "first", 1]])).await;
    };
    site.during(&browser, &express, json!(["set", "second", 1]), first)
        .await;
    let document = site.rows().document().await;
    assert_eq!(
        (&document["first"], &document["second"]),
        (&Value::Null, &json!(1))
    );
}

async fn a_late_save_revives_a_destroyed_session(site: Site) {
    let express = site.express().await;
    let mut browser = Browser::new();
    browser
        .visit(&express, json!([["set", "user", "ann"]]))
        .await;
    let logout = async {
        browser.peek(&express, json!([["destroy"]])).await;
        assert!(site.ids().await.is_empty());
    };
    site.during(&browser, &express, json!(["set", "a", 1]), logout)
        .await;
    assert_eq!(site.rows().document().await["user"], "ann");
}

async fn every_request_moves_a_fixed_end(site: Site) {
    let express = site.express().await;
    let mut browser = Browser::new();
    let at = in_seconds(3600.0);
    let steps = json!([["until", at], ["set", "a", 1]]);
    browser.visit(&express, steps).await;
    let first = site.rows().document().await["cookie"].clone();
    assert!(first["originalMaxAge"].is_number(), "{first}");
    site.rows().age(1800.0).await;
    browser.visit(&express, json!([["set", "a", 2]])).await;
    let left = site.rows().seconds_left("UTC").await;
    assert!((left - 3600.0).abs() < SLACK, "{left} s are left");
}

async fn a_changed_max_age_alone_is_not_stored(site: Site) {
    let express = site.express().await;
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "a", 1]])).await;
    let before = site.rows().text().await;
    let steps = json!([["cookie", {"maxAge": 3_600_000}]]);
    let response = browser.visit(&express, steps).await;
    assert!(response.set_cookies().is_empty());
    assert_eq!(site.rows().text().await, before);
}

async fn the_expiry_is_in_the_zone_of_its_connection(site: Site) {
    for (zone, schema) in [("Europe/Berlin", "berlin"), ("America/New_York", "york")] {
        site.set_zone(zone).await;
        let rows = site.rows_in(schema);
        rows.execute(&format!("CREATE SCHEMA {schema}")).await;
        let options = json!({"store": {"schemaName": schema}});
        let express = site.express_with(options).await;
        Browser::new()
            .visit(&express, json!([["set", "a", 1]]))
            .await;
        let left = rows.seconds_left(zone).await;
        assert!((left - DAY).abs() < SLACK, "{zone}: {left} s are left");
    }
}
