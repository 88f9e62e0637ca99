//! One session of one browser, on both sides in turn.

use serde_json::{Value, json};

use crate::{
    node::scenarios::{
        a_date_of_node_is_a_text_for_axum,
        a_new_id_of_axum_counts_on_both_sides_and_the_old_one_on_neither,
        a_session_that_node_regenerated_is_empty_for_both,
        a_visitor_who_changes_nothing_has_no_row_on_either_side, every_value_survives,
        numbers_that_javascript_rounds_survive_axum, reading_in_axum_leaves_the_row_as_it_is,
    },
    support::{Browser, Site, with_every_generation},
};

with_every_generation![
    a_session_moves_to_and_fro,
    a_login_by_passport_is_seen_by_axum,
    a_login_in_axum_is_seen_by_passport,
    a_login_by_passport_survives_axum_on_a_table_without_its_columns,
    a_logout_on_either_side_counts_on_the_other,
    a_session_that_axum_destroyed_is_unknown_to_express,
    a_session_that_express_destroyed_is_unknown_to_axum,
    a_new_id_of_axum_counts_on_both_sides_and_the_old_one_on_neither,
    a_session_that_node_regenerated_is_empty_for_both,
    every_value_survives_both_sides,
    a_date_of_node_is_a_text_for_axum,
    numbers_that_javascript_rounds_survive_axum,
    reading_in_axum_leaves_the_row_as_it_is,
    a_visitor_who_changes_nothing_has_no_row_on_either_side,
    ids_of_another_genid_serve_both,
    an_empty_session_of_express_keeps_its_id,
];

async fn a_session_moves_to_and_fro(site: Site) {
    for (here, there) in site.both_orders().await {
        let mut browser = Browser::new();
        browser.visit(&here, json!([["set", "a", 1]])).await;
        let sid = browser.sid().to_owned();
        let response = browser.visit(&there, json!([["increment", "a"]])).await;
        assert_eq!(response.session()["a"], 2);
        let response = browser.visit(&here, json!([["set", "b", ["x"]]])).await;
        assert_eq!(response.session()["a"], 2);
        let response = browser.visit(&there, json!([["remove", "a"]])).await;
        assert_eq!(response.session()["b"], json!(["x"]));
        assert_eq!(
            browser.visit(&here, json!([])).await.session()["a"],
            Value::Null
        );
        assert_eq!(browser.sid(), sid);
        assert_eq!(site.ids().await, [sid]);
        browser.visit(&here, json!([["destroy"]])).await;
    }
}

async fn a_login_by_passport_is_seen_by_axum(site: Site) {
    let (express, axum) = site.both().await;
    site.store().migrate().await.expect("more columns");
    for (user, text) in [(json!("ann"), "ann"), (json!(7), "7")] {
        let mut browser = Browser::new();
        browser.visit(&axum, json!([["set", "basket", 3]])).await;
        let before = browser.clone();
        browser.visit(&express, json!([["login", user]])).await;
        assert_ne!(browser.sid(), before.sid());
        let response = browser.visit(&axum, json!([["set", "a", 1]])).await;
        assert_eq!(response.user(), Some(text));
        assert_eq!(response.session()["basket"], Value::Null);
        let document = site.rows().document().await;
        assert_eq!(document["passport"], json!({ "user": user }));
        let response = before.peek(&axum, json!([])).await;
        assert_eq!(response.user(), None);
        assert_eq!(response.session()["basket"], Value::Null);
        browser.visit(&axum, json!([["destroy"]])).await.is_ok();
    }
}

async fn a_login_by_passport_survives_axum_on_a_table_without_its_columns(site: Site) {
    let (express, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&express, json!([["login", "ann"]])).await;
    for steps in [
        json!([["set", "a", 1]]),
        json!([["cycle"]]),
        json!([["clear"]]),
    ] {
        browser.visit(&axum, steps).await.is_ok();
        let response = browser.visit(&express, json!([])).await;
        assert_eq!(response.user(), Some("ann"));
    }
}

async fn a_login_in_axum_is_seen_by_passport(site: Site) {
    let (express, axum) = site.both().await;
    site.store().migrate().await.expect("more columns");
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "basket", 3]])).await;
    let before = browser.clone();
    let login = browser.visit(&axum, json!([["login", "ann"]])).await;
    login.is_ok();
    assert_ne!(browser.sid(), before.sid());
    let response = browser.visit(&express, json!([])).await;
    assert_eq!(response.user(), Some("ann"));
    assert_eq!(response.session()["basket"], 3);
}

async fn a_logout_on_either_side_counts_on_the_other(site: Site) {
    let (express, axum) = site.both().await;
    site.store().migrate().await.expect("more columns");
    for (here, there) in [(&express, &axum), (&axum, &express)] {
        let mut browser = Browser::new();
        browser.visit(&express, json!([["login", "ann"]])).await;
        let before = browser.clone();
        browser.visit(here, json!([["logout"]])).await.is_ok();
        for browser in [&before, &browser] {
            assert_eq!(browser.peek(there, json!([])).await.user(), None);
        }
    }
}

async fn a_session_that_axum_destroyed_is_unknown_to_express(site: Site) {
    let (express, axum) = site.both().await;
    let mut browser = Browser::new();
    browser
        .visit(&express, json!([["set", "user", "ann"]]))
        .await;
    let mut other_tab = browser.clone();
    browser.visit(&axum, json!([["destroy"]])).await;
    assert!(site.ids().await.is_empty());
    assert!(browser.cookie("connect.sid").is_none(), "{:?}", browser.jar);
    let destroyed = other_tab.sid().to_owned();
    let response = other_tab.visit(&express, json!([["set", "a", 1]])).await;
    assert_eq!(response.session()["user"], Value::Null);
    assert_ne!(other_tab.sid(), destroyed);
}

/// Express leaves the cookie in the browser.
async fn a_session_that_express_destroyed_is_unknown_to_axum(site: Site) {
    let (express, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&axum, json!([["set", "user", "ann"]])).await;
    let destroyed = browser.sid().to_owned();
    browser.visit(&express, json!([["destroy"]])).await;
    assert!(site.ids().await.is_empty());
    assert_eq!(browser.sid(), destroyed);
    let response = browser.visit(&axum, json!([["set", "a", 1]])).await;
    assert_eq!(response.session()["user"], Value::Null);
    assert_ne!(browser.sid(), destroyed);
}

async fn ids_of_another_genid_serve_both(site: Site) {
    let axum = site.axum();
    for prefix in ["a.b.", r#"user:7/a+b=%20"';,\#"#] {
        let express = site.express_with(json!({ "idPrefix": prefix })).await;
        let mut browser = Browser::new();
        browser.visit(&express, json!([["set", "n", 1]])).await;
        let ids = site.ids().await;
        assert!(ids[0].starts_with(prefix), "{ids:?}");
        for (server, n) in [(&axum, 2), (&express, 3), (&axum, 4)] {
            let response = browser.visit(server, json!([["increment", "n"]])).await;
            assert_eq!(response.session()["n"], n, "{prefix}");
        }
        assert_eq!(site.ids().await, ids);
        browser.visit(&axum, json!([["destroy"]])).await;
        assert!(site.ids().await.is_empty());
    }
}

/// Express stores it with `saveUninitialized`.
async fn an_empty_session_of_express_keeps_its_id(site: Site) {
    let options = json!({"session": {"saveUninitialized": true}});
    let express = site.express_with(options).await;
    let axum = site.axum();
    let mut browser = Browser::new();
    browser.visit(&express, json!([])).await;
    let before = site.rows().dump().await;
    browser.visit(&axum, json!([])).await.is_ok();
    assert_eq!(site.rows().dump().await, before);
    let sid = browser.sid().to_owned();
    browser.visit(&axum, json!([["set", "a", 1]])).await.is_ok();
    let response = browser.visit(&express, json!([])).await;
    assert_eq!(response.session()["a"], 1);
    assert_eq!(site.ids().await, [sid]);
}

async fn every_value_survives_both_sides(site: Site) {
    // The last one has half of a character.
    let more = [
        (r#""toJSON""#, r#"{"__proto__":1,"constructor":2}"#),
        (r#""half""#, r#""\ud83d""#),
    ];
    for (here, there) in site.both_orders().await {
        every_value_survives(&site, (&here, &there), &more).await;
        // The second time, the table computes Passport's user from each document.
        site.store().migrate().await.expect("more columns");
    }
}
