//! Koa's format: expiry, cleanup and writes of a Koa process beside ours.

use axum_pg_session::Reaper;

use crate::support::{
    Site, execute,
    koa::{DAY, DOCUMENT, KEYS, SID, koa},
    texts,
};

/// On a table whose `expiry` holds the clock of this zone.
async fn site_in(zone: &str) -> Site {
    let mut site = Site::of_koa().await;
    site.store = site.store.time_zone(zone);
    site
}

/// Koa's write through a connection with this zone.
async fn koa_writes_in(site: &Site, zone: &str, sid: &str, seconds: f64) {
    let sql = format!(
        "INSERT INTO public.session VALUES
         ('koa:sess:{sid}', to_timestamp(extract(epoch FROM now()) + {seconds}) AT TIME ZONE '{zone}', '{DOCUMENT}')"
    );
    execute(&site.pool, &sql).await;
}

/// The cleanup of koa-pg-session through a connection with this zone.
async fn koa_cleans_in(site: &Site, zone: &str) {
    let sql = format!(
        "SET TimeZone = '{zone}'; DELETE FROM public.session WHERE expiry < to_timestamp(extract(epoch FROM now())); RESET TimeZone"
    );
    execute(&site.pool, &sql).await;
}

async fn sids(site: &Site) -> Vec<String> {
    texts(
        &site.pool,
        "SELECT substr(id, 10) FROM public.session ORDER BY 1",
    )
    .await
}

#[tokio::test]
async fn an_expiry_on_koas_clock_is_the_same_instant_here() {
    for zone in ["Europe/Berlin", "America/New_York", "Asia/Kolkata"] {
        let site = site_in(zone).await;
        koa_writes_in(&site, zone, SID, 60.0).await;
        koa_writes_in(&site, zone, "dead", -60.0).await;
        let mut live = site.browser().signed(SID, KEYS[0]);
        assert_eq!(live.get("/get/count").await.body, "2", "{zone}");
        let mut dead = site.browser().signed("dead", KEYS[0]);
        assert_eq!(dead.get("/get/count").await.body, "none", "{zone}");
    }
}

#[tokio::test]
async fn what_is_written_here_is_the_same_instant_to_koa() {
    let zone = "America/New_York";
    let site = site_in(zone).await;
    site.visitor().await;
    let sql = format!(
        "SELECT extract(epoch FROM (expiry AT TIME ZONE '{zone}') - now())::int::text FROM public.session"
    );
    let left: f64 = texts(&site.pool, &sql).await[0].parse().expect("seconds");
    assert!((left - DAY).abs() < 5.0, "{left}");
}

#[tokio::test]
async fn neither_cleanup_ends_live_rows_or_keeps_dead_ones() {
    let zone = "Europe/Berlin";
    let site = site_in(zone).await;
    let reap = async || {
        Reaper::new(site.store.clone())
            .run_once()
            .await
            .expect("rights")
    };
    koa_writes_in(&site, zone, "live", 60.0).await;
    koa_writes_in(&site, zone, "dead", -60.0).await;
    let browser = site.visitor().await;
    let ours = browser.sid().to_owned();
    assert_eq!(reap().await.deleted, 1);
    koa_cleans_in(&site, zone).await;
    let mut expected = vec!["live".to_owned(), ours];
    expected.sort();
    let mut found = sids(&site).await;
    found.sort();
    assert_eq!(found, expected);

    site.rows().age(2.0 * DAY).await;
    koa_cleans_in(&site, zone).await;
    assert_eq!(reap().await.deleted, 0);
    assert_eq!(sids(&site).await, [""; 0]);
}

#[tokio::test]
async fn a_session_that_expired_is_over_here_before_koa_cleans_up() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_with(DOCUMENT, -1.0).await;
    assert_eq!(browser.get("/get/count").await.body, "none");
    browser.get("/insert/a/1").await;
    assert_ne!(browser.sid(), SID);
}

#[tokio::test]
async fn the_later_blind_write_of_koas_wins() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    browser.get("/insert/ours/1").await;
    site.koa_writes(SID, DOCUMENT, DAY).await;
    assert_eq!(browser.get("/keys").await.body, "count");
}

/// What this crate can't prevent: Koa's `set` inserts what it does not find.
#[tokio::test]
async fn a_write_of_koas_that_was_in_flight_brings_an_ended_session_back() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    let mut other = browser.clone();
    browser.get("/destroy").await;
    assert_eq!(other.peek("/get/count").await.body, "none");
    site.koa_writes(SID, DOCUMENT, DAY).await;
    assert_eq!(other.get("/get/count").await.body, "2");
}

#[tokio::test]
async fn a_change_here_is_made_on_what_koa_wrote_meanwhile() {
    let site = Site::of_koa().await;
    let browser = site.visitor_of_koa().await;
    let written = DOCUMENT.replace(r#""count":2"#, r#""count":7,"koa":true"#);
    let pool = site.pool.clone();
    let page = async move |session: axum_pg_session::Session| {
        let sql = "UPDATE public.session SET session = $1::json";
        let write = sqlx::query(sql).bind(written.clone()).execute(&pool).await;
        write.expect("a row");
        session
            .update("count", |n: Option<u64>| n.unwrap_or(0) + 1)
            .map(drop)
    };
    let response = browser.at(&site.app_with(page)).peek("/page").await;
    assert_eq!(response.status, 200);
    let stored = site.rows().document().await;
    assert_eq!(
        (&stored["count"], &stored["koa"]),
        (&8.into(), &true.into())
    );
}

#[tokio::test]
async fn koa_goes_on_with_a_table_that_was_completed_here() {
    let site = Site::of_koa().await;
    site.store
        .migrate()
        .await
        .expect("a table that can be completed");
    let report = site.store.check().await.expect("a table");
    assert!(!report.expiry_has_time_zone && report.to_string().contains("time_zone"));
    assert!(
        report.absolute_timeout && report.per_user_sessions,
        "{report}"
    );
    let sql = format!(
        "INSERT INTO public.session (id, session, expiry) VALUES ('koa:sess:{SID}', '{DOCUMENT}', now() + interval '1 day')"
    );
    execute(&site.pool, &sql).await;
    let mut browser = site.browser().signed(SID, KEYS[0]);
    assert_eq!(browser.get("/increment/count").await.body, "3");
}

#[tokio::test]
async fn a_table_that_was_made_here_serves_koa_too() {
    let mut site = Site::new().await;
    site.store = site.store.koa(koa());
    let mut browser = site.visitor_of_koa().await;
    assert_eq!(browser.get("/increment/count").await.body, "3");
    browser.get("/cycle").await;
    assert_eq!(browser.get("/get/count").await.body, "3");
    browser.get("/destroy").await;
    assert_eq!(sids(&site).await, [""; 0]);
}
