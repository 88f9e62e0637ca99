//! What Express can still overwrite, and the settings under which it doesn't.

use serde_json::{Value, json};

use crate::support::{
    Browser, NOTHING, Server, Site, with_connect_pg_simple, with_every_generation,
};

with_every_generation![
    without_resave_a_read_in_express_keeps_a_change_of_axum,
    with_resave_a_read_in_express_undoes_a_change_of_axum,
    a_change_in_express_undoes_one_of_axum_that_it_has_not_read,
    a_change_in_express_keeps_one_of_axum_that_it_reloaded,
    a_change_in_axum_survives_one_of_express_that_was_saved_meanwhile,
    without_resave_a_read_in_express_revives_no_session,
    with_resave_a_read_in_express_revives_a_session_that_axum_destroyed,
    a_change_in_express_revives_a_session_that_axum_destroyed,
    a_change_in_express_revives_the_old_id_after_a_login_in_axum,
    an_unused_session_of_express_overwrites_nothing_with_or_without_save_uninitialized,
];

with_connect_pg_simple![without_touch_a_read_in_express_leaves_the_whole_row_as_it_is];

/// A session of Express with these options, and axum beside it.
async fn begin(site: &Site, session: Value) -> (Browser, Server, Server) {
    let express = site.express_with(json!({ "session": session })).await;
    let mut browser = Browser::new();
    browser
        .visit(&express, json!([["set", "user", "ann"]]))
        .await;
    (browser, express, site.axum())
}

/// While a request to Express is between its load and its save, axum changes the
/// session. Returns the document afterwards.
async fn after_a_change_in_axum(site: &Site, options: Value, step: Value) -> Value {
    let (browser, express, axum) = begin(site, options).await;
    let change = async {
        let response = browser.peek(&axum, json!([["set", "axum", 1]])).await;
        assert_eq!(response.status, 200);
    };
    site.during(&browser, &express, step, change).await;
    site.rows().document().await
}

async fn without_resave_a_read_in_express_keeps_a_change_of_axum(site: Site) {
    let document = after_a_change_in_axum(&site, json!({"resave": false}), NOTHING).await;
    assert_eq!(document["axum"], 1);
}

async fn with_resave_a_read_in_express_undoes_a_change_of_axum(site: Site) {
    let document = after_a_change_in_axum(&site, json!({"resave": true}), NOTHING).await;
    assert_eq!(document["axum"], Value::Null);
}

async fn a_change_in_express_undoes_one_of_axum_that_it_has_not_read(site: Site) {
    let step = json!(["set", "express", 1]);
    let document = after_a_change_in_axum(&site, json!({"resave": false}), step).await;
    assert_eq!(
        (&document["axum"], &document["express"]),
        (&Value::Null, &json!(1))
    );
}

async fn a_change_in_express_keeps_one_of_axum_that_it_reloaded(site: Site) {
    let (browser, express, axum) = begin(&site, json!({})).await;
    let gate = site.gate();
    let steps = json!([["wait", gate.name], ["reload"], ["set", "express", 1]]);
    let change = async {
        gate.arrived().await;
        browser.peek(&axum, json!([["set", "axum", 1]])).await;
        gate.open().await;
    };
    tokio::join!(browser.peek(&express, steps), change);
    let document = site.rows().document().await;
    assert_eq!(
        (&document["axum"], &document["express"]),
        (&json!(1), &json!(1))
    );
}

async fn a_change_in_axum_survives_one_of_express_that_was_saved_meanwhile(site: Site) {
    let (express, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "n", 1]])).await;
    let change = async {
        let steps = json!([["increment", "n"], ["set", "express", 1]]);
        browser.peek(&express, steps).await;
    };
    let response = site
        .during(&browser, &axum, json!(["increment", "n"]), change)
        .await;
    assert_eq!(response.status, 200);
    let document = site.rows().document().await;
    assert_eq!(
        (&document["n"], &document["express"]),
        (&json!(3), &json!(1))
    );
}

/// While a request to Express is between its load and its save, axum destroys the
/// session. Returns the ids that are stored afterwards.
async fn after_a_logout_in_axum(site: &Site, options: Value, step: Value) -> Vec<String> {
    let (browser, express, axum) = begin(site, options).await;
    let logout = async {
        let response = browser.peek(&axum, json!([["destroy"]])).await;
        assert_eq!(response.status, 200);
        assert!(site.ids().await.is_empty());
    };
    site.during(&browser, &express, step, logout).await;
    site.ids().await
}

async fn without_resave_a_read_in_express_revives_no_session(site: Site) {
    let ids = after_a_logout_in_axum(&site, json!({"resave": false}), NOTHING).await;
    assert!(ids.is_empty(), "{ids:?}");
}

async fn with_resave_a_read_in_express_revives_a_session_that_axum_destroyed(site: Site) {
    let ids = after_a_logout_in_axum(&site, json!({"resave": true}), NOTHING).await;
    assert_eq!(ids.len(), 1);
    assert_eq!(site.rows().document().await["user"], "ann");
}

async fn a_change_in_express_revives_a_session_that_axum_destroyed(site: Site) {
    let step = json!(["set", "a", 1]);
    let ids = after_a_logout_in_axum(&site, json!({"resave": false}), step).await;
    assert_eq!(ids.len(), 1);
    assert_eq!(site.rows().document().await["user"], "ann");
}

async fn a_change_in_express_revives_the_old_id_after_a_login_in_axum(site: Site) {
    let (browser, express, axum) = begin(&site, json!({})).await;
    let mut after = browser.clone();
    let login = async {
        after.visit(&axum, json!([["cycle"]])).await;
        assert_eq!(site.ids().await, [after.sid()]);
    };
    site.during(&browser, &express, json!(["set", "a", 1]), login)
        .await;
    assert_ne!(after.sid(), browser.sid());
    let mut expected = [after.sid().to_owned(), browser.sid().to_owned()];
    expected.sort();
    let mut ids = site.ids().await;
    ids.sort();
    assert_eq!(ids, expected);
}

async fn an_unused_session_of_express_overwrites_nothing_with_or_without_save_uninitialized(
    site: Site,
) {
    for save in [true, false] {
        let options = json!({"resave": false, "saveUninitialized": save});
        let document = after_a_change_in_axum(&site, options, NOTHING).await;
        assert_eq!(document["axum"], 1);
        site.rows().execute("DELETE FROM SESSIONS").await;
    }
}

async fn without_touch_a_read_in_express_leaves_the_whole_row_as_it_is(site: Site) {
    let express = site
        .express_with(json!({"store": {"disableTouch": true}}))
        .await;
    let mut browser = Browser::new();
    browser.visit(&express, json!([["set", "a", 1]])).await;
    site.rows().age(43_200.0).await;
    let before = site.rows().dump().await;
    browser.visit(&express, json!([])).await.is_ok();
    assert_eq!(site.rows().dump().await, before);
    let response = browser.visit(&site.axum(), json!([])).await;
    assert_eq!(response.session()["a"], 1);
    let left = site.rows().seconds_left("UTC").await;
    assert!(left > 86_400.0 - 100.0, "{left} s are left");
}
