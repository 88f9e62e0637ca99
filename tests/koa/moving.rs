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
    support::{Browser, Site, with_both_generations},
};

with_both_generations![
    a_session_goes_to_and_fro,
    a_login_on_one_side_holds_on_the_other,
    a_session_that_one_side_ended_is_over_on_the_other,
    a_new_id_of_axum_counts_on_both_sides_and_the_old_one_on_neither,
    a_session_that_node_regenerated_is_empty_for_both,
    every_value_survives_both_sides,
    a_date_of_node_is_a_text_for_axum,
    numbers_that_javascript_rounds_survive_axum,
    members_of_others_keep_their_place,
    reading_in_axum_leaves_the_row_as_it_is,
    a_visitor_who_changes_nothing_has_no_row_on_either_side,
];

async fn a_session_goes_to_and_fro(site: Site) {
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
        assert_eq!(site.ids().await, [format!("koa:sess:{sid}")]);
        browser.visit(&here, json!([["destroy"]])).await;
    }
}

async fn a_login_on_one_side_holds_on_the_other(site: Site) {
    for (here, there) in site.both_orders().await {
        let mut browser = Browser::new();
        browser.visit(&there, json!([["set", "basket", 3]])).await;
        let login = json!([["regenerate"], ["set", "user", "ann"]]);
        browser.visit(&here, login).await;
        let response = browser.visit(&there, json!([])).await;
        assert_eq!(response.session()["user"], "ann");
    }
}

async fn a_session_that_one_side_ended_is_over_on_the_other(site: Site) {
    for (here, there) in site.both_orders().await {
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

async fn every_value_survives_both_sides(site: Site) {
    for (here, there) in site.both_orders().await {
        every_value_survives(&site, (&here, &there), &[]).await;
    }
}
