//! Scenarios that hold for every site on Node, whichever library keeps its sessions.

use serde_json::{Value, json};

use super::{Browser, Server, Site};

/// Makes each of these scenarios a test with each of these generations of a library.
macro_rules! with_generations {
    (@one $scenario:ident {$($test:ident: $generation:ident),+}) => {
        mod $scenario {
            use crate::support::{Site, $($generation),+};

            $(
                #[tokio::test]
                async fn $test() {
                    if let Some(site) = Site::of(&$generation).await {
                        super::$scenario(site).await;
                    }
                }
            )+
        }
    };
    ($generations:tt; $($scenario:ident),+ $(,)?) => {
        $($crate::node::scenarios::with_generations!(@one $scenario $generations);)+
    };
}
pub(crate) use with_generations;

/// Both sides use one session, axum gives it a new id, and one side destroys it.
pub(crate) async fn serves_both(site: &Site, node: &Server, axum: &Server) {
    for (here, there) in [(node, axum), (axum, node)] {
        let mut browser = Browser::new();
        browser.visit(here, json!([["set", "a", 1]])).await;
        let response = browser.visit(there, json!([["increment", "a"]])).await;
        assert_eq!(response.session()["a"], 2);
        let response = browser.visit(here, json!([["increment", "a"]])).await;
        assert_eq!(response.session()["a"], 3);
        browser.visit(axum, json!([["cycle"]])).await.is_ok();
        let response = browser.visit(node, json!([])).await;
        assert_eq!(response.session()["a"], 3);
        browser.visit(there, json!([["destroy"]])).await.is_ok();
        assert!(site.ids().await.is_empty());
    }
}

pub(crate) async fn a_new_id_of_axum_counts_on_both_sides_and_the_old_one_on_neither(site: Site) {
    let (node, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&node, json!([["set", "basket", 3]])).await;
    let before = browser.clone();
    browser
        .visit(&axum, json!([["cycle"], ["set", "user", "ann"]]))
        .await;
    assert_ne!(browser.sid(), before.sid());
    for server in [&node, &axum] {
        let session = browser.visit(server, json!([])).await.session();
        assert_eq!(
            (&session["basket"], &session["user"]),
            (&json!(3), &json!("ann"))
        );
        let session = before.peek(server, json!([])).await.session();
        assert_eq!(session["basket"], Value::Null);
    }
}

pub(crate) async fn a_session_that_node_regenerated_is_empty_for_both(site: Site) {
    let (node, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&axum, json!([["set", "basket", 3]])).await;
    let before = browser.clone();
    let login = json!([["regenerate"], ["set", "user", "ann"]]);
    browser.visit(&node, login).await;
    for server in [&node, &axum] {
        let session = browser.visit(server, json!([])).await.session();
        assert_eq!(
            (&session["basket"], &session["user"]),
            (&Value::Null, &json!("ann"))
        );
        let session = before.peek(server, json!([])).await.session();
        assert_eq!(session["basket"], Value::Null);
    }
}

/// As JavaScript writes them.
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

/// Writes the values, and `more` of them, on one side, and reads and saves them on both.
pub(crate) async fn every_value_survives(
    site: &Site,
    (here, there): (&Server, &Server),
    more: &[(&str, &str)],
) {
    let values = || VALUES.iter().chain(more);
    let members: Vec<_> = values()
        .map(|(key, value)| format!("{key}:{value}"))
        .collect();
    let members = members.join(",");
    let steps: Vec<_> = values()
        .map(|(key, value)| format!(r#"["set",{key},{value}]"#))
        .collect();
    let mut browser = Browser::new();
    browser.visit(here, format!("[{}]", steps.join(","))).await;
    for server in [there, here, there] {
        let response = browser.visit(server, json!([["increment", "n"]])).await;
        assert!(response.body.contains(&members), "{}", response.body);
        assert!(site.rows().text().await.contains(&members));
    }
    browser.visit(here, json!([["destroy"]])).await;
}

pub(crate) async fn a_date_of_node_is_a_text_for_axum(site: Site) {
    let (node, axum) = site.both().await;
    let mut browser = Browser::new();
    let steps = json!([["date", "at", "2026-03-29T01:30:00.123Z"]]);
    browser.visit(&node, steps).await;
    let response = browser.visit(&axum, json!([["increment", "n"]])).await;
    assert_eq!(response.session()["at"], "2026-03-29T01:30:00.123Z");
}

pub(crate) async fn numbers_that_javascript_rounds_survive_axum(site: Site) {
    let (node, axum) = site.both().await;
    let mut browser = Browser::new();
    let steps = r#"[["set","big",1152921504606846977],["set","exact",0.10000000000000000001]]"#;
    browser.visit(&axum, steps).await;
    browser.visit(&node, json!([])).await;
    let response = browser.visit(&axum, json!([["increment", "n"]])).await;
    let expected = r#""big":1152921504606846977,"exact":0.10000000000000000001"#;
    assert!(response.body.contains(expected), "{}", response.body);
    browser.visit(&node, json!([["increment", "n"]])).await;
    let text = site.rows().text().await;
    assert!(text.contains(r#""big":1152921504606847000"#), "{text}");
}

pub(crate) async fn reading_in_axum_leaves_the_row_as_it_is(site: Site) {
    let (node, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&node, json!([["set", "a", 1]])).await;
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

pub(crate) async fn a_visitor_who_changes_nothing_has_no_row_on_either_side(site: Site) {
    for (here, there) in site.both_orders().await {
        let mut browser = Browser::new();
        for server in [&here, &there] {
            let response = browser.visit(server, json!([])).await;
            assert!(response.set_cookies().is_empty());
        }
        assert!(site.ids().await.is_empty());
    }
}

/// A row of `browser` whose document is no object.
pub(crate) async fn is_no_session_for_axum(site: &Site, mut browser: Browser, document: &str) {
    let axum = site.axum();
    let before = site.rows().dump().await;
    let response = browser.peek(&axum, json!([])).await;
    assert_eq!(response.session(), json!({}), "{document}");
    assert_eq!(site.rows().dump().await, before, "{document}");
    let old = browser.sid().to_owned();
    browser.visit(&axum, json!([["set", "a", 1]])).await;
    assert_ne!(browser.sid(), old, "{document}");
    assert_eq!(site.ids().await.len(), 2, "{document}");
    site.rows().execute("DELETE FROM SESSIONS").await;
}

/// A cookie of a path and a domain, for servers of both sides that set it.
pub(crate) async fn a_cookie_of_a_path_and_a_domain_works(
    site: &Site,
    node: &Server,
    axum: &Server,
) {
    for (here, there) in [(node, axum), (axum, node)] {
        let mut browser = Browser::new().at_host("www.site.test");
        browser
            .visit_at(here, "/app/basket", json!([["set", "a", 1]]))
            .await;
        let mut elsewhere = browser.clone().at_host("shop.site.test");
        let response = elsewhere.visit_at(there, "/app", json!([])).await;
        assert_eq!(response.session()["a"], 1);
        let response = browser
            .visit_at(there, "/app", json!([["increment", "a"]]))
            .await;
        assert_eq!(response.session()["a"], 2);
        browser
            .visit_at(axum, "/app/basket", json!([["destroy"]]))
            .await;
        assert!(browser.jar.is_empty(), "{:?}", browser.jar);
        assert!(site.ids().await.is_empty());
    }
}
