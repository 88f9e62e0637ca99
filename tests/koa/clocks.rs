//! The clock of `expiry`, which in Koa's table is that of a time zone, and who
//! deletes what is over.

use axum_pg_session::{PgSessionLayer, Reaper};
use serde_json::{Value, json};

use crate::support::{Browser, SLACK, Server, Site, page, with_both_generations};

with_both_generations![
    both_reckon_in_the_zone_of_koas_connection,
    neither_cleanup_deletes_what_lives_or_keeps_what_is_over,
    ends_after_the_next_changes_of_the_clock_are_the_same_for_both,
    what_is_over_is_over_for_axum_and_lives_in_koa_until_it_is_cleaned_up,
    a_session_without_end_lives_on_both_sides,
];

const ZONES: [&str; 3] = ["Europe/Berlin", "America/New_York", "Asia/Kolkata"];
const DAY: f64 = 86_400.0;

/// A schema for each zone, as a site has one zone only.
fn schema(zone: &str) -> String {
    let name = zone.replace('/', "_").to_lowercase();
    format!("in_{name}")
}

/// Both on a table that Koa makes for this zone.
async fn both_in(site: &Site, zone: &str, cleanup: u32) -> (Server, Server, Reaper) {
    site.set_zone(zone).await;
    let options = json!({"store": {"schema": schema(zone), "cleanupTime": cleanup}});
    let koa = site.koa_with(options).await;
    let store = site.store().schema(schema(zone)).time_zone(zone);
    let axum = page::server(PgSessionLayer::new(store.clone()));
    (koa, axum, Reaper::new(store))
}

async fn both_reckon_in_the_zone_of_koas_connection(site: Site) {
    for zone in ZONES {
        let (koa, axum, _) = both_in(&site, zone, 2_700_000).await;
        let table = format!("{}.session", schema(zone));
        for (here, there) in [(&koa, &axum), (&axum, &koa)] {
            let mut browser = Browser::new();
            browser.visit(here, json!([["set", "a", 1]])).await;
            for server in [there, here] {
                let left = site.rows_of(&table).seconds_left(zone).await;
                assert!((left - DAY).abs() < SLACK, "{zone}: {left} s are left");
                let response = browser.visit(server, json!([["increment", "a"]])).await;
                assert_ne!(response.session()["a"], 1, "{zone}");
            }
            browser.visit(here, json!([["destroy"]])).await;
        }
    }
}

async fn neither_cleanup_deletes_what_lives_or_keeps_what_is_over(site: Site) {
    for zone in ["Europe/Berlin", "America/New_York"] {
        let (koa, axum, reaper) = both_in(&site, zone, 100).await;
        let rows = site.rows_of(&format!("{}.session", schema(zone)));
        let mut living = [Browser::new(), Browser::new()];
        living[0].visit(&koa, json!([["set", "a", 1]])).await;
        living[1].visit(&axum, json!([["set", "a", 1]])).await;
        rows.age(DAY - 60.0).await;
        let reaped = reaper.run_once().await.expect("a run");
        assert_eq!(reaped.deleted, 0, "{zone}");
        let mut over = Browser::new();
        over.visit(&axum, json!([["set", "a", 1]])).await;
        rows.expire(over.sid(), zone, -1.0).await;
        rows.loses(over.sid()).await;
        for browser in &mut living {
            for server in [&koa, &axum] {
                assert_eq!(
                    browser.peek(server, json!([])).await.session()["a"],
                    1,
                    "{zone}"
                );
            }
        }
        our_cleanup_deletes_what_is_over(&site, zone).await;
    }
}

async fn our_cleanup_deletes_what_is_over(site: &Site, zone: &str) {
    let (koa, axum, reaper) = both_in(site, zone, 2_700_000).await;
    let rows = site.rows_of(&format!("{}.session", schema(zone)));
    for server in [&koa, &axum] {
        let mut over = Browser::new();
        over.visit(server, json!([["set", "a", 1]])).await;
        rows.expire(over.sid(), zone, -1.0).await;
    }
    // The clean-up of the Koa before this one may have been quicker.
    reaper.run_once().await.expect("a run");
    assert_eq!(rows.ids().await.len(), 2, "{zone}");
}

/// Just before, in and after the hours that a zone leaves out or has twice.
const ENDS: [&str; 12] = [
    "2036-03-09T06:59:59.5Z",
    "2036-03-09T07:00:00Z",
    "2036-03-30T00:59:59Z",
    "2036-03-30T01:00:00Z",
    "2036-07-01T12:00:00Z",
    "2036-10-26T00:30:00Z",
    "2036-10-26T01:30:00Z",
    "2036-10-26T02:00:00Z",
    "2036-11-02T05:30:00Z",
    "2036-11-02T06:30:00Z",
    "2036-11-02T07:00:00Z",
    "2037-01-01T00:00:00Z",
];

async fn ends_after_the_next_changes_of_the_clock_are_the_same_for_both(site: Site) {
    for zone in ["Europe/Berlin", "America/New_York"] {
        let (koa, axum, reaper) = both_in(&site, zone, 2_700_000).await;
        let rows = site.rows_of(&format!("{}.session", schema(zone)));
        for end in ENDS {
            let mut browser = Browser::new();
            let steps = json!([["cookie", {"expires": end}], ["set", "a", 1]]);
            browser.visit(&koa, steps).await;
            let of_koa = rows.expiry().await;
            let response = browser.visit(&axum, json!([["increment", "a"]])).await;
            assert_eq!(response.session()["a"], 2, "{end} in {zone}");
            assert_same_second(&rows.expiry().await, &of_koa, end, zone);
            browser.visit(&axum, json!([["destroy"]])).await;
            let mut browser = Browser::new();
            browser
                .visit(&axum, json!([["until", end], ["set", "a", 1]]))
                .await;
            assert_same_second(&rows.expiry().await, &of_koa, end, zone);
            let response = browser.visit(&koa, json!([["increment", "a"]])).await;
            assert_eq!(response.session()["a"], 2, "{end} in {zone}");
            browser.visit(&koa, json!([["destroy"]])).await;
        }
        assert_eq!(reaper.run_once().await.expect("a run").deleted, 0);
    }
}

/// Koa reckons to the millisecond that its clock is at.
fn assert_same_second(found: &str, expected: &str, end: &str, zone: &str) {
    let (found, expected) = (seconds(found), seconds(expected));
    let difference = found - expected;
    assert!(
        difference.abs() < 0.1,
        "{end} in {zone}: {found} and {expected}"
    );
}

/// What a clock shows, as if it had no zone.
fn seconds(shown: &str) -> f64 {
    use crate::support::page::instant;
    let (date, time) = shown.split_once(' ').expect("a date and a time");
    let instant = instant(&format!("{date}T{time}Z"));
    (instant - cookie::time::OffsetDateTime::UNIX_EPOCH).as_seconds_f64()
}

async fn what_is_over_is_over_for_axum_and_lives_in_koa_until_it_is_cleaned_up(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&koa, json!([["set", "a", 1]])).await;
    site.rows().age(DAY + 1.0).await;
    let response = browser.peek(&axum, json!([])).await;
    assert_eq!(response.session()["a"], Value::Null);
    let response = browser.peek(&koa, json!([])).await;
    assert_eq!(response.session()["a"], 1);
    let reaped = Reaper::new(site.store()).run_once().await.expect("a run");
    assert_eq!(reaped.deleted, 1);
    let response = browser.peek(&koa, json!([])).await;
    assert_eq!(response.session()["a"], Value::Null);
}

async fn a_session_without_end_lives_on_both_sides(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = Browser::new();
    browser.visit(&koa, json!([["set", "a", 1]])).await;
    site.rows()
        .execute("UPDATE SESSIONS SET expiry = 'infinity'")
        .await;
    for server in [&axum, &koa] {
        assert_eq!(browser.visit(server, json!([])).await.session()["a"], 1);
    }
    let reaped = Reaper::new(site.store()).run_once().await.expect("a run");
    assert_eq!(reaped.deleted, 0);
}
