//! The clock of the expiry, and who deletes expired rows. connect-pg-simple stores what
//! the clock of its time zone shows. connect-session-knex stores an instant.

use axum_pg_session::{PgSessionLayer, PgSessionStore, Reaper};
use serde_json::{Value, json};

use crate::support::{
    Browser, SLACK, Server, Site, page, with_connect_pg_simple, with_every_generation,
};

with_every_generation![
    both_use_one_clock_in_every_zone,
    neither_cleanup_deletes_living_rows_or_keeps_expired_ones,
    an_expired_session_is_unknown_on_both_sides,
];

with_connect_pg_simple![expiries_after_changes_of_the_clock_are_the_same_for_both];

const ZONES: [&str; 3] = ["Europe/Berlin", "America/New_York", "Asia/Kolkata"];
const DAY: f64 = 86_400.0;

/// The schema for a zone. A site has one zone only.
fn schema(zone: &str) -> String {
    let name = zone.replace('/', "_").to_lowercase();
    format!("in_{name}")
}

/// axum on the table of this zone.
fn store(site: &Site, zone: &str) -> PgSessionStore {
    let store = site.store().schema(schema(zone));
    match site.is_of_knex() {
        true => store,
        false => store.time_zone(zone),
    }
}

/// Both on a table that Express makes for this zone.
async fn both_in(site: &Site, zone: &str, options: Value) -> (Server, Server) {
    site.set_zone(zone).await;
    let schema = schema(zone);
    let rows = site.rows_in(&schema);
    rows.execute(&format!("CREATE SCHEMA IF NOT EXISTS {schema}"))
        .await;
    let mut options = options;
    options["schemaName"] = json!(schema);
    let express = site.express_with(json!({ "store": options })).await;
    let axum = page::server(PgSessionLayer::new(store(site, zone)));
    (express, axum)
}

async fn both_use_one_clock_in_every_zone(site: Site) {
    for zone in ZONES {
        let (express, axum) = both_in(&site, zone, json!({})).await;
        for (here, there) in [(&express, &axum), (&axum, &express)] {
            let mut browser = Browser::new();
            browser.visit(here, json!([["set", "a", 1]])).await;
            for server in [there, here] {
                let left = site.rows_in(&schema(zone)).seconds_left(zone).await;
                assert!((left - DAY).abs() < SLACK, "{zone}: {left} s are left");
                let response = browser.visit(server, json!([["increment", "a"]])).await;
                assert_ne!(response.session()["a"], 1, "{zone}");
            }
            browser.visit(&axum, json!([["destroy"]])).await;
        }
    }
}

async fn neither_cleanup_deletes_living_rows_or_keeps_expired_ones(site: Site) {
    for zone in ["Europe/Berlin", "America/New_York"] {
        let (express, axum) = both_in(&site, zone, site.quick_cleanup()).await;
        let reaper = Reaper::new(store(&site, zone));
        let rows = site.rows_in(&schema(zone));
        let mut living = [Browser::new(), Browser::new()];
        living[0].visit(&express, json!([["set", "a", 1]])).await;
        living[1].visit(&axum, json!([["set", "a", 1]])).await;
        rows.age(DAY - 60.0).await;
        let reaped = reaper.run_once().await.expect("a run");
        assert_eq!(reaped.deleted, 0, "{zone}");
        let mut expired = Browser::new();
        expired.visit(&axum, json!([["set", "a", 1]])).await;
        rows.expire(expired.sid(), zone, -5.0).await;
        rows.loses(expired.sid()).await;
        for browser in &mut living {
            for server in [&express, &axum] {
                let response = browser.peek(server, json!([])).await;
                assert_eq!(response.session()["a"], 1, "{zone}");
            }
        }
    }
}

async fn an_expired_session_is_unknown_on_both_sides(site: Site) {
    let (express, axum) = site.both().await;
    for server in [&express, &axum] {
        let mut browser = Browser::new();
        browser.visit(server, json!([["set", "a", 1]])).await;
        site.rows().age(DAY + 5.0).await;
        for server in [&express, &axum] {
            let response = browser.peek(server, json!([])).await;
            assert_eq!(response.session()["a"], Value::Null);
        }
        Reaper::new(site.store()).run_once().await.expect("a run");
        assert!(site.ids().await.is_empty());
    }
}

/// Before, in and after the hours that a zone leaves out or has twice. No request of a
/// test is so slow that the clock changes meanwhile.
const ENDS: [&str; 11] = [
    "2036-03-09T06:50:00Z",
    "2036-03-09T07:00:00Z",
    "2036-03-30T00:50:00Z",
    "2036-03-30T01:00:00Z",
    "2036-07-01T12:00:00Z",
    "2036-10-26T00:30:00Z",
    "2036-10-26T01:30:00Z",
    "2036-10-26T02:00:00Z",
    "2036-11-02T05:30:00Z",
    "2036-11-02T06:30:00Z",
    "2037-01-01T00:00:00Z",
];

async fn expiries_after_changes_of_the_clock_are_the_same_for_both(site: Site) {
    for zone in ["Europe/Berlin", "America/New_York"] {
        let (express, axum) = both_in(&site, zone, json!({})).await;
        let rows = site.rows_in(&schema(zone));
        for end in ENDS {
            let mut browser = Browser::new();
            let steps = json!([["until", end], ["set", "a", 1]]);
            browser.visit(&express, steps).await;
            let of_express = rows.expiry().await;
            let response = browser
                .visit(&axum, json!([["increment", "a"], ["touch"]]))
                .await;
            assert_eq!(response.session()["a"], 2, "{end} in {zone}");
            let of_axum = rows.expiry().await;
            let later = shown(&of_axum) - shown(&of_express);
            assert!(
                (-1.0..SLACK).contains(&later),
                "{end} in {zone}: {of_express}, {of_axum}"
            );
            let response = browser.visit(&express, json!([["increment", "a"]])).await;
            assert_eq!(response.session()["a"], 3, "{end} in {zone}");
            browser.visit(&axum, json!([["destroy"]])).await;
        }
        let reaper = Reaper::new(store(&site, zone));
        assert_eq!(reaper.run_once().await.expect("a run").deleted, 0);
    }
}

/// The seconds that a clock shows, as if it had no zone.
fn shown(text: &str) -> f64 {
    let (date, time) = text.split_once(' ').expect("a date and a time");
    let instant = page::instant(&format!("{date}T{time}Z"));
    (instant - cookie::time::OffsetDateTime::UNIX_EPOCH).as_seconds_f64()
}
