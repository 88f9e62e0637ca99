//! One session of one browser, on both sides in turn.

use serde_json::{Value, json};

use crate::support::{Browser, Server, Site, with_both_generations};

with_both_generations![
    a_session_goes_to_and_fro,
    a_login_on_one_side_holds_on_the_other,
    a_session_that_one_side_ended_is_over_on_the_other,
    a_new_id_counts_on_both_sides_and_the_old_one_on_neither,
    what_koa_regenerated_begins_empty_for_both,
    every_value_comes_through_unharmed,
    numbers_that_javascript_cannot_hold_survive_axum,
    members_of_others_keep_their_place,
    reading_in_axum_leaves_the_row_as_it_is,
    a_visitor_who_changes_nothing_has_no_row_on_either_side,
];

/// Each side first.
async fn both_orders(site: &Site) -> [(Server, Server); 2] {
    let (koa, axum) = site.both().await;
    [(koa.clone(), axum.clone()), (axum, koa)]
}

async fn a_session_goes_to_and_fro(site: Site) {
    for (here, there) in both_orders(&site).await {
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
        assert_eq!(site.ids().await, [format!("koa:sess:{sid}")]);
        browser.visit(&here, json!([["destroy"]])).await;
    }
}

async fn a_login_on_one_side_holds_on_the_other(site: Site) {
    for (here, there) in both_orders(&site).await {
        let mut browser = Browser::new();
        browser.visit(&there, json!([["set", "basket", 3]])).await;
        let login = json!([["regenerate"], ["set", "user", "ann"]]);
        browser.visit(&here, login).await;
        let response = browser.visit(&there, json!([])).await;
        assert_eq!(response.session()["user"], "ann");
    }
}

async fn a_session_that_one_side_ended_is_over_on_the_other(site: Site) {
    for (here, there) in both_orders(&site).await {
        let mut browser = Browser::new();
        browser.visit(&here, json!([["set", "user", "ann"]])).await;
        let mut other_tab = browser.clone();
        browser.visit(&there, json!([["destroy"]])).await;
        assert!(site.ids().await.is_empty());
        assert!(browser.cookie("koa.sid").is_none(), "{:?}", browser.jar);
        let response = other_tab.peek(&here, json!([])).await;
        assert_eq!(response.session()["user"], Value::Null);
        let ended = other_tab.sid().to_owned();
        other_tab
            .visit(&here, json!([["set", "user", "bob"]]))
            .await;
        assert_ne!(other_tab.sid(), ended);
        other_tab.visit(&there, json!([["destroy"]])).await;
    }
}

async fn a_new_id_counts_on_both_sides_and_the_old_one_on_neither(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&koa, json!([["set", "basket", 3]])).await;
    let before = browser.clone();
    browser
        .visit(&axum, json!([["cycle"], ["set", "user", "ann"]]))
        .await;
    assert_ne!(browser.sid(), before.sid());
    for server in [&koa, &axum] {
        let session = browser.visit(server, json!([])).await.session();
        assert_eq!(
            (&session["basket"], &session["user"]),
            (&json!(3), &json!("ann"))
        );
        let session = before.peek(server, json!([])).await.session();
        assert_eq!(session["basket"], Value::Null);
    }
}

async fn what_koa_regenerated_begins_empty_for_both(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&axum, json!([["set", "basket", 3]])).await;
    let before = browser.clone();
    let login = json!([["regenerate"], ["set", "user", "ann"]]);
    browser.visit(&koa, login).await;
    for server in [&koa, &axum] {
        let session = browser.visit(server, json!([])).await.session();
        assert_eq!(
            (&session["basket"], &session["user"]),
            (&Value::Null, &json!("ann"))
        );
        let session = before.peek(server, json!([])).await.session();
        assert_eq!(session["basket"], Value::Null);
    }
}

/// As JavaScript spells them.
const VALUES: [(&str, &str); 7] = [
    (
        r#""nested""#,
        r#"{"list":[1,[2,{"deep":null}]],"empty":{},"none":[]}"#,
    ),
    (r#""text""#, r#""žluťoučký kůň 🐎 \u0000 \" \\ \n""#),
    (r#""""#, "true"),
    (r#""key with \u0000""#, "false"),
    (
        r#""floats""#,
        "[0.1,5e-324,1.7976931348623157e+308,-0.5,1e+21]",
    ),
    (r#""integers""#, "[9007199254740991,-9007199254740991,0]"),
    (r#""date""#, r#""2026-03-29T01:30:00.123Z""#),
];

async fn every_value_comes_through_unharmed(site: Site) {
    let members = VALUES
        .map(|(key, value)| format!("{key}:{value}"))
        .join(",");
    for (here, there) in both_orders(&site).await {
        let mut browser = Browser::new();
        let steps = VALUES.map(|(key, value)| format!(r#"["set",{key},{value}]"#));
        browser.visit(&here, format!("[{}]", steps.join(","))).await;
        for server in [&there, &here, &there] {
            let response = browser.visit(server, json!([["increment", "n"]])).await;
            assert!(response.body.contains(&members), "{}", response.body);
            assert!(site.rows().text().await.contains(&members));
        }
        browser.visit(&here, json!([["destroy"]])).await;
    }
    a_date_of_koa_is_a_text(&site).await;
}

async fn a_date_of_koa_is_a_text(site: &Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    let steps = json!([["date", "at", "2026-03-29T01:30:00.123Z"]]);
    browser.visit(&koa, steps).await;
    let response = browser.visit(&axum, json!([["increment", "n"]])).await;
    assert_eq!(response.session()["at"], "2026-03-29T01:30:00.123Z");
}

async fn numbers_that_javascript_cannot_hold_survive_axum(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    let steps = r#"[["set","big",1152921504606846977],["set","exact",0.10000000000000000001]]"#;
    browser.visit(&axum, steps).await;
    browser.visit(&koa, json!([])).await;
    let response = browser.visit(&axum, json!([["increment", "n"]])).await;
    let expected = r#""big":1152921504606846977,"exact":0.10000000000000000001"#;
    assert!(response.body.contains(expected), "{}", response.body);
    browser.visit(&koa, json!([["increment", "n"]])).await;
    let text = site.rows().text().await;
    assert!(text.contains(r#""big":1152921504606847000"#), "{text}");
}

async fn members_of_others_keep_their_place(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    let steps = json!([["cookie", {"remembered": {"by": "us"}}], ["set", "z", 1], ["set", "a", 2]]);
    browser.visit(&koa, steps).await;
    let cookie = r#"{"httpOnly":true,"path":"/","overwrite":true,"signed":true,"maxAge":86400000,"remembered":{"by":"us"}}"#;
    browser.visit(&axum, json!([["increment", "a"]])).await;
    let expected = format!(r#"{{"cookie":{cookie},"z":1,"a":3}}"#);
    assert_eq!(site.rows().text().await, expected);
    browser
        .visit(&axum, json!([["clear"], ["set", "b", 1]]))
        .await;
    let expected = format!(r#"{{"cookie":{cookie},"b":1}}"#);
    assert_eq!(site.rows().text().await, expected);
}

async fn reading_in_axum_leaves_the_row_as_it_is(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&koa, json!([["set", "a", 1]])).await;
    let before = site.rows().dump().await;
    let response = browser.visit(&axum, json!([])).await;
    assert_eq!(response.session()["a"], 1);
    assert!(
        response.set_cookies().is_empty(),
        "{:?}",
        response.set_cookies()
    );
    assert_eq!(site.rows().dump().await, before);
}

async fn a_visitor_who_changes_nothing_has_no_row_on_either_side(site: Site) {
    for (here, there) in both_orders(&site).await {
        let mut browser = Browser::new();
        for server in [&here, &there] {
            let response = browser.visit(server, json!([])).await;
            assert!(response.set_cookies().is_empty());
        }
        assert!(site.ids().await.is_empty());
    }
}
