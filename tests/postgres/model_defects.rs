//! The defects that koa-generic-session with koa-pg-session has, and that this
//! crate must not have. Some are tested where their subject is:
//!
//! | defect of the model | test |
//! |---|---|
//! | a change between two spellings of one checksum is lost | `costs::a_change_with_an_equal_crc32_is_saved` |
//! | expiry is not looked at | `timeouts::an_idle_session_is_dead_before_it_is_reaped`, `timeouts::no_page_revives_an_expired_row`, `koa_life::a_session_that_expired_is_over_here_before_koa_cleans_up` |
//! | the cleanup ends at its first failure, in one statement, without a stop | `reaper::the_reaper_survives_a_dead_database`, `reaper::a_run_takes_as_many_batches_as_it_needs`, `reaper::a_reaper_that_waits_stops_at_once` |
//! | processes that start together fail | `migrations::many_processes_may_migrate_a_new_database_at_once` |
//! | a role without the right to create fails | `rights::the_documented_grants_suffice` |
//! | a store that is down hangs or is a 500 | `laziness::the_timeout_of_the_store_holds_if_no_server_responds`, `store::no_connection_leaks_whatever_becomes_of_a_request` |
//! | a missing table or column shows with the first visitor | `set_up::a_missing_table_is_named`, `set_up::a_missing_column_is_named` |
//! | a regenerated session comes back under its old id | `koa::a_late_save_under_the_old_id_is_refused_and_leaves_nothing` |
//! | a whole new content loses the cookie's settings | `koa::a_whole_new_content_keeps_the_settings_of_the_cookie` |
//! | the end leaves cookies with a path or domain | `koa::the_end_of_a_session_removes_both_cookies_as_they_were_set` |
//! | a cleanup in another zone | `koa_life::neither_cleanup_ends_live_rows_or_keeps_dead_ones` |

use std::sync::Arc;

use axum::{Router, http::StatusCode, routing::get};
use axum_pg_session::{ErrorKind, Koa, PgSessionLayer, SameSite, Session, SessionId};
use tokio::{sync::Barrier, task::JoinSet};

use crate::support::{
    Browser, Reply, Site, execute,
    koa::{DAY, DOCUMENT, KEYS, SID},
    texts,
};

/// Visits of one session that all have loaded it before the first is saved.
async fn at_once<F>(site: &Site, browser: &Browser, visits: usize, change: F) -> Vec<Reply>
where
    F: Fn(&Session, usize) -> Result<(), axum_pg_session::Error> + Clone + Send + Sync + 'static,
{
    let barrier = Arc::new(Barrier::new(visits));
    let mut set = JoinSet::new();
    for visit in 0..visits {
        let (barrier, change) = (Arc::clone(&barrier), change.clone());
        let page = async move |session: Session| {
            barrier.wait().await;
            change(&session, visit)
        };
        let visitor = browser.at(&site.app_with(page));
        set.spawn(async move { visitor.peek("/page").await });
    }
    set.join_all().await
}

fn statuses(responses: &[Reply]) -> Vec<StatusCode> {
    let mut statuses: Vec<_> = responses.iter().map(|response| response.status).collect();
    statuses.sort();
    statuses.dedup();
    statuses
}

#[tokio::test]
async fn fifty_keys_at_once_all_survive_in_koas_format() {
    let site = Site::of_koa().await;
    let browser = site.visitor_of_koa().await;
    let responses = at_once(&site, &browser, 50, |session, visit| {
        session.insert(format!("key{visit}"), visit)
    })
    .await;
    assert_eq!(statuses(&responses), [200]);
    let stored = site.rows().document().await;
    // The settings and the count were there before.
    assert_eq!(stored.as_object().expect("an object").len(), 52);
}

#[tokio::test]
async fn fifty_increments_at_once_make_fifty_in_koas_format() {
    let site = Site::of_koa().await;
    let browser = site.visitor_of_koa().await;
    let responses = at_once(&site, &browser, 50, |session, _| {
        session
            .update("count", |n: Option<u64>| n.unwrap_or(0) + 1)
            .map(drop)
    })
    .await;
    assert_eq!(statuses(&responses), [200]);
    assert_eq!(site.rows().document().await["count"], 52);
}

#[tokio::test]
async fn a_session_that_is_ended_among_its_writers_stays_ended_without_a_500() {
    let site = Site::of_koa().await;
    let browser = site.visitor_of_koa().await;
    let responses = at_once(&site, &browser, 20, |session, visit| match visit {
        7 => session.destroy(),
        _ => session
            .update("count", |n: Option<u64>| n.unwrap_or(0) + 1)
            .map(drop),
    })
    .await;
    for status in statuses(&responses) {
        assert!([200, 503].contains(&status.as_u16()), "{status}");
    }
    assert_eq!(site.rows().count().await, 0);
    assert_eq!(browser.peek("/get/count").await.body, "none");
}

#[tokio::test]
async fn a_reader_under_rolling_brings_no_ended_session_back() {
    let site = Site::of_koa().await;
    let browser = site.visitor_of_koa().await;
    let ending = browser.clone();
    let page = async move |_: Session| {
        assert!(ending.clone().get("/destroy").await.removes_the_pair());
    };
    let layer = site.layer().touch_interval(std::time::Duration::ZERO);
    let app = Router::new().route("/", get(page)).layer(layer);
    let response = browser.at(&app).peek("/").await;
    assert_eq!(response.status, 200);
    assert!(response.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn an_equal_content_under_a_new_id_is_saved() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    let page = async |session: Session| {
        session.clear()?;
        session.cycle_id()?;
        session.insert("count", 2)
    };
    let mut visitor = browser.at(&site.app_with(page));
    let response = visitor.get("/page").await;
    assert!(response.renews_the_pair(visitor.sid()));
    assert_ne!(visitor.sid(), SID);
    browser.jar = visitor.jar;
    assert_eq!(browser.get("/get/count").await.body, "2");
}

#[tokio::test]
async fn a_new_id_with_nothing_put_in_keeps_the_visitor() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    let page = async |session: Session| {
        session.clear()?;
        session.cycle_id()
    };
    let mut visitor = browser.at(&site.app_with(page));
    visitor.get("/page").await;
    browser.jar = visitor.jar;
    assert_eq!(browser.jar.len(), 2);
    assert_eq!(browser.get("/is_new").await.body, "false");
}

#[tokio::test]
async fn connections_that_the_server_closed_while_idle_cost_no_request() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    browser.get("/get/count").await;
    let admin = crate::support::site::pool(site.database.url(), 1).await;
    let sql = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    assert!(!texts(&admin, sql).await.is_empty());
    assert_eq!(browser.get("/get/count").await.body, "2");
    assert_eq!(browser.get("/increment/count").await.body, "3");
}

#[tokio::test]
async fn a_response_with_a_cookie_has_a_row() {
    let site = Site::of_koa().await;
    for _ in 0..20 {
        let mut browser = site.browser();
        let response = browser.get("/insert/a/1").await;
        assert_eq!(response.status, 200);
        let sql = format!(
            "SELECT id FROM public.session WHERE id = 'koa:sess:{}'",
            browser.sid()
        );
        assert_eq!(texts(&site.pool, &sql).await.len(), 1);
    }
}

#[tokio::test]
async fn a_secure_cookie_over_plain_http_is_no_failure() {
    let site = Site::of_koa().await;
    let app = crate::support::app(site.layer().secure(true));
    let mut browser = Browser::new(&app);
    let response = browser.get("/insert/a/1").await;
    assert_eq!(response.status, 200);
    assert!(response.cookie_lines()[0].contains("; secure; httponly"));
    assert_eq!(site.rows().document().await["cookie"]["secure"], true);
}

#[tokio::test]
async fn keys_that_are_missing_are_told_at_set_up() {
    let site = Site::with_format(Koa::new([""; 0])).await;
    let error = site.layer().check().expect_err("no key");
    assert_eq!(error.kind(), ErrorKind::Setup);
}

#[tokio::test]
async fn the_hour_that_comes_twice_ends_no_session_early() {
    let site = Site::of_koa().await;
    let store = site.store.clone().time_zone("Europe/Berlin");
    // 00:30Z and 01:30Z are both half past two.
    site.koa_writes(SID, DOCUMENT, DAY).await;
    execute(
        &site.pool,
        "UPDATE public.session SET expiry = timestamp '2026-10-25 02:30' + interval '53 weeks'",
    )
    .await;
    let local = "SELECT expiry::text FROM public.session";
    assert_eq!(texts(&site.pool, local).await, ["2027-10-31 02:30:00"]);
    let layer = PgSessionLayer::new(store.clone()).touch_if(|_, _| false);
    let id: SessionId = Browser::new(&crate::support::app(layer))
        .signed(SID, KEYS[0])
        .get("/id")
        .await
        .body
        .parse()
        .expect("a handle");
    let stored = store
        .load(&id)
        .await
        .expect("a database")
        .expect("a session");
    let later = "2027-10-31T01:30:00Z";
    let format = &time::format_description::well_known::Rfc3339;
    let expires = stored.expires_at().expect("an end").format(format);
    assert_eq!(expires.expect("a date"), later);
}

#[tokio::test]
async fn new_options_of_the_cookie_reach_old_sessions() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/a/1").await;
    let app = crate::support::app(site.layer().same_site(SameSite::Strict));
    let response = browser.at(&app).get("/cycle").await;
    assert_eq!(
        response.set_cookies()[0].same_site(),
        Some(SameSite::Strict)
    );
}

/// The stored object rules the cookie in Koa's format, also when the site's
/// options change.
#[tokio::test]
async fn in_koas_format_a_session_keeps_the_options_that_it_began_with() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    let app = crate::support::app(site.layer().same_site(SameSite::Strict));
    let mut visitor = browser.at(&app);
    let response = visitor.get("/cycle").await;
    assert!(!response.cookie_lines()[0].contains("samesite"));
    browser.jar.clear();
    let response = browser.at(&app).get("/insert/a/1").await;
    assert!(response.cookie_lines()[0].contains("; samesite=strict"));
}
