//! What the model does by itself: what the other tests take for granted. Where
//! it is a defect, another test shows that ours has none.

use serde_json::{Value, json};

use crate::support::{Browser, SLACK, Site, with_both_generations};

with_both_generations![
    a_session_is_a_row_and_two_cookies,
    an_untouched_visit_leaves_neither_row_nor_cookie,
    a_read_leaves_the_row_and_sends_no_cookie,
    of_two_changes_at_once_the_first_to_be_saved_is_lost,
    a_save_that_was_in_flight_undoes_a_logout,
    an_expired_session_lives_until_it_is_cleaned_up,
    its_cleanup_deletes_what_is_expired_and_nothing_else,
    a_session_without_cookie_settings_is_lost,
    its_clock_is_the_zone_of_its_connection,
];

async fn a_session_is_a_row_and_two_cookies(site: Site) {
    let koa = site.koa().await;
    let mut browser = Browser::new();
    let response = browser.visit(&koa, json!([["set", "count", 2]])).await;
    let expected = r#"{"cookie":{"httpOnly":true,"path":"/","overwrite":true,"signed":true,"maxAge":86400000},"count":2}"#;
    assert_eq!(response.body, expected);
    assert_eq!(site.rows().text().await, expected);
    assert_eq!(
        response.set_cookies().len(),
        2,
        "{:?}",
        response.set_cookies()
    );
    assert_eq!(browser.sid().len(), 32);
    assert_eq!(browser.value("koa.sid.sig").len(), 27);
    assert_eq!(site.ids().await, [format!("koa:sess:{}", browser.sid())]);
}

async fn an_untouched_visit_leaves_neither_row_nor_cookie(site: Site) {
    let koa = site.koa().await;
    let response = Browser::new().visit(&koa, json!([])).await;
    assert_eq!(response.status, 200);
    assert!(response.set_cookies().is_empty());
    assert!(site.ids().await.is_empty());
}

async fn a_read_leaves_the_row_and_sends_no_cookie(site: Site) {
    let koa = site.koa().await;
    let mut browser = Browser::new();
    browser.visit(&koa, json!([["set", "a", 1]])).await;
    let before = site.rows().dump().await;
    let response = browser.visit(&koa, json!([])).await;
    assert_eq!(response.session()["a"], 1);
    assert!(response.set_cookies().is_empty());
    assert_eq!(site.rows().dump().await, before);
}

async fn of_two_changes_at_once_the_first_to_be_saved_is_lost(site: Site) {
    let koa = site.koa().await;
    let mut browser = Browser::new();
    browser.visit(&koa, json!([["set", "a", 1]])).await;
    let gate = site.gate();
    let slow = json!([["wait", gate.name], ["set", "slow", 1]]);
    let quick = async {
        gate.arrived().await;
        browser.peek(&koa, json!([["set", "quick", 1]])).await;
        gate.open().await;
    };
    tokio::join!(browser.peek(&koa, slow), quick);
    let document = site.rows().document().await;
    assert_eq!(
        (&document["slow"], &document["quick"]),
        (&json!(1), &Value::Null)
    );
}

async fn a_save_that_was_in_flight_undoes_a_logout(site: Site) {
    let koa = site.koa().await;
    let mut browser = Browser::new();
    browser.visit(&koa, json!([["set", "user", "ann"]])).await;
    let gate = site.gate();
    let slow = json!([["wait", gate.name], ["set", "slow", 1]]);
    let logout = async {
        gate.arrived().await;
        browser.peek(&koa, json!([["destroy"]])).await;
        assert!(site.ids().await.is_empty());
        gate.open().await;
    };
    tokio::join!(browser.peek(&koa, slow), logout);
    assert_eq!(site.rows().document().await["user"], "ann");
}

async fn an_expired_session_lives_until_it_is_cleaned_up(site: Site) {
    let koa = site.koa().await;
    let mut browser = Browser::new();
    browser.visit(&koa, json!([["set", "a", 1]])).await;
    site.rows().age(100_000.0).await;
    assert_eq!(browser.visit(&koa, json!([])).await.session()["a"], 1);
}

async fn its_cleanup_deletes_what_is_expired_and_nothing_else(site: Site) {
    let koa = site.koa_with(json!({"store": {"cleanupTime": 100}})).await;
    let mut dead = Browser::new();
    dead.visit(&koa, json!([["set", "is", "dead"]])).await;
    site.rows().age(100_000.0).await;
    let mut alive = Browser::new();
    alive.visit(&koa, json!([["set", "is", "alive"]])).await;
    site.rows().loses(dead.sid()).await;
    assert_eq!(site.rows().document().await["is"], "alive");
}

async fn a_session_without_cookie_settings_is_lost(site: Site) {
    let koa = site.koa().await;
    let mut browser = Browser::new();
    let response = browser.visit(&koa, json!([["replace", {"a": 1}]])).await;
    assert_eq!(
        response.set_cookies().len(),
        1,
        "{:?}",
        response.set_cookies()
    );
    assert_eq!(
        browser.cookie("koa.sid").and_then(|kept| kept.expires),
        None
    );
    assert_eq!(
        browser.visit(&koa, json!([])).await.session()["a"],
        Value::Null
    );
}

async fn its_clock_is_the_zone_of_its_connection(site: Site) {
    for (zone, schema) in [("Europe/Berlin", "berlin"), ("America/New_York", "york")] {
        site.set_zone(zone).await;
        let options = json!({"store": {"schema": schema}, "session": {"ttl": 3_600_000}});
        let koa = site.koa_with(options).await;
        Browser::new().visit(&koa, json!([["set", "a", 1]])).await;
        let left = site
            .rows_of(&format!("{schema}.session"))
            .seconds_left(zone)
            .await;
        assert!((left - 3600.0).abs() < SLACK, "{zone}: {left} s are left");
    }
}
