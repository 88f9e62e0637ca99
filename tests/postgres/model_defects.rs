//! The defects that koa-generic-session with koa-pg-session has, and that this
//! crate must not have. Some are tested where their subject is:
//!
//! | defect of the model | test |
//! |---|---|
//! | a change between two values of one checksum is lost | `costs::a_change_with_an_equal_crc32_is_saved` |
//! | the expiry is not checked | `timeouts::an_idle_session_is_dead_before_it_is_reaped`, `timeouts::no_page_revives_an_expired_row`, `koa_life::a_session_that_expired_is_over_here_before_koa_cleans_up` |
//! | the cleanup ends at its first failure, in one statement, without a stop | `reaper::the_reaper_survives_a_dead_database`, `reaper::a_run_takes_as_many_batches_as_it_needs`, `reaper::a_reaper_that_waits_stops_at_once` |
//! | processes that start together fail | `migrations::many_processes_may_migrate_a_new_database_at_once` |
//! | a role without the right to create fails | `rights::the_documented_grants_suffice` |
//! | a store that is down hangs or is a 500 | `laziness::the_timeout_of_the_store_holds_if_no_server_listens_or_responds`, `store::no_connection_leaks_whatever_becomes_of_a_request` |
//! | a missing table or column shows with the first visitor | `set_up::a_missing_table_is_named`, `set_up::a_table_that_can_not_serve_is_refused_with_the_reason` |
//! | a regenerated session comes back under its old id | `koa::a_late_save_under_the_old_id_is_refused_and_leaves_nothing` |
//! | a whole new content loses the cookie's settings | `koa::a_whole_new_content_keeps_the_settings_of_the_cookie` |
//! | the end leaves cookies with a path or domain | `koa::the_end_of_a_session_removes_both_cookies_as_they_were_set` |
//! | a connection that the server closed while it was idle fails a request | `sharing::a_connection_that_died_while_it_was_kept_fails_no_request` |
//! | the hour that comes twice ends a session early | `set_up::expiry_is_right_in_new_york_and_over_dst` |
//! | an equal content under a new id is not saved, an empty one loses the visitor | `request_cycle::a_new_id_after_a_clear_keeps_only_what_is_put_in` |
//! | a reader brings a destroyed session back | `koa::a_late_touch_sets_no_cookie` |
//! | a cleanup in another zone | `koa_life::neither_cleanup_ends_live_rows_or_keeps_dead_ones` |

use std::sync::Arc;

use axum::http::StatusCode;
use axum_pg_session::{ErrorKind, Koa, SameSite, Session};
use tokio::{sync::Barrier, task::JoinSet};

use crate::support::{Browser, Reply, Site, app, texts};

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
async fn fifty_changes_at_once_all_survive_in_koas_format() {
    let site = Site::of_koa().await;
    let browser = site.visitor_of_koa().await;
    let responses = at_once(&site, &browser, 50, |session, visit| {
        session.insert(format!("key{visit}"), visit)?;
        session
            .update("count", |n: Option<u64>| n.unwrap_or(0) + 1)
            .map(drop)
    })
    .await;
    assert_eq!(statuses(&responses), [200]);
    let stored = site.rows().document().await;
    // The settings and the count were there before.
    assert_eq!(stored.as_object().expect("an object").len(), 52);
    assert_eq!(stored["count"], 52);
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
async fn each_of_fifty_first_visits_at_once_gets_the_cookie_of_a_row() {
    let site = Site::of_koa().await;
    let mut visits = JoinSet::new();
    for _ in 0..50 {
        let mut browser = site.browser();
        visits.spawn(async move {
            assert_eq!(browser.get("/insert/a/1").await.status, 200);
            format!("koa:sess:{}", browser.sid())
        });
    }
    let mut ids = visits.join_all().await;
    ids.sort();
    let stored = "SELECT id FROM public.session ORDER BY id COLLATE \"C\"";
    assert_eq!(texts(&site.pool, stored).await, ids);
}

#[tokio::test]
async fn a_secure_cookie_over_plain_http_is_no_failure() {
    let site = Site::of_koa().await;
    let mut browser = Browser::new(&app(site.layer().secure(true)));
    let response = browser.get("/insert/a/1").await;
    assert_eq!(response.status, 200);
    assert!(response.cookie_lines()[0].contains("; secure; httponly"));
    assert_eq!(site.rows().document().await["cookie"]["secure"], true);
}

#[tokio::test]
async fn missing_keys_are_an_error_at_set_up() {
    let site = Site::with_format(Koa::new([""; 0])).await;
    let error = site.layer().check().expect_err("no key");
    assert_eq!(error.kind(), ErrorKind::Setup);
}

#[tokio::test]
async fn new_options_of_the_cookie_reach_old_sessions() {
    let site = Site::new().await;
    let browser = site.visitor().await;
    let strict = app(site.layer().same_site(SameSite::Strict));
    let response = browser.at(&strict).get("/cycle").await;
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
    let strict = app(site.layer().same_site(SameSite::Strict));
    let mut visitor = browser.at(&strict);
    let response = visitor.get("/cycle").await;
    assert!(!response.cookie_lines()[0].contains("samesite"));
    browser.jar.clear();
    let response = browser.at(&strict).get("/insert/a/1").await;
    assert!(response.cookie_lines()[0].contains("; samesite=strict"));
}
