//! The request cycle of koa-generic-session, rule by rule, in Koa's format. What this crate does alike
//! in both formats is tested in the other files.

use std::time::Duration;

use axum_pg_session::{Error, PgSessionLayer, Session};
use serde_json::json;

use crate::support::{
    Browser, Reply, Site, app,
    koa::{DAY, DOCUMENT, KEYS, SID, koa},
    page::app_with,
    unreachable_store,
};

type Act = fn(&Session) -> Result<(), Error>;

async fn act(site: &Site, browser: &mut Browser, act: Act) -> Reply {
    let page = async move |session: Session| act(&session);
    let mut visitor = browser.at(&site.app_with(page));
    let response = visitor.get("/page").await;
    browser.jar = visitor.jar;
    response
}

// Loading.

#[tokio::test]
async fn a_database_that_is_down_fails_only_requests_that_load_a_session() {
    let app = app(PgSessionLayer::new(unreachable_store().koa(koa())));
    let stranger = Browser::new(&app);
    let visitor = stranger.clone().signed(SID, KEYS[0]);
    for (browser, page, status) in [
        (&stranger, "/is_new", 200),
        (&visitor, "/plain", 200),
        (&visitor, "/get/a", 503),
    ] {
        let response = browser.peek(page).await;
        assert_eq!(response.status, status, "{page}");
        assert!(response.sets_no_cookie(), "{page}");
    }
}

// Saving: the first rule that fits.

#[tokio::test]
async fn a_suppressed_save_and_an_equal_value_write_nothing() {
    let site = Site::of_koa().await;
    let suppressed: Act = |session| {
        session.insert("a", 1)?;
        session.destroy()?;
        session.discard()
    };
    let mut browser = site.visitor_of_koa().await;
    let before = site.rows().dump().await;
    for writes_nothing in [suppressed, |session| session.insert("count", 2)] {
        let response = act(&site, &mut browser, writes_nothing).await;
        assert!(response.sets_no_cookie());
        assert_eq!(site.rows().dump().await, before);
    }
}

#[tokio::test]
async fn the_end_of_a_new_session_does_nothing() {
    let site = Site::of_koa().await;
    let response = act(&site, &mut site.browser(), |session| {
        session.insert("a", 1)?;
        session.destroy()
    })
    .await;
    assert!(response.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn a_forced_save_extends_a_session_that_did_not_change() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_with(DOCUMENT, DAY - 60.0).await;
    assert!(browser.get("/get/count").await.sets_no_cookie());
    let response = act(&site, &mut browser, Session::touch).await;
    assert!(response.renews_the_pair(SID));
    assert!(site.rows().seconds_left().await > DAY - 30.0);
    assert_eq!(site.rows().text().await, DOCUMENT);
}

#[tokio::test]
async fn a_forced_save_stores_a_new_session_that_holds_nothing() {
    let site = Site::of_koa().await;
    let mut browser = site.browser();
    act(&site, &mut browser, Session::touch).await;
    assert_eq!(browser.jar.len(), 2);
    assert_eq!(
        site.rows().text().await,
        DOCUMENT.replace(r#","count":2"#, "")
    );
}

#[tokio::test]
async fn under_rolling_every_request_renews_row_and_cookies_of_a_stored_session() {
    let site = Site::of_koa().await;
    let app = app(site.layer().touch_interval(Duration::ZERO));
    assert!(Browser::new(&app).get("/keys").await.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
    let mut browser = site.visitor_with(DOCUMENT, DAY - 1.0).await.at(&app);
    for _ in 0..2 {
        assert!(browser.get("/get/count").await.renews_the_pair(SID));
    }
    assert!(site.rows().seconds_left().await > DAY - 0.9);
}

#[tokio::test]
async fn a_response_saves_the_row_with_its_cookie_or_neither() {
    let site = Site::of_koa().await;
    let every_response = app_with(site.layer().save_if(|_, _| true), async || ());
    for (app, status, is_saved) in [
        (site.app(), 404, true),
        (site.app(), 500, false),
        (every_response, 500, true),
    ] {
        let mut browser = Browser::new(&app);
        let response = browser.get(&format!("/insert_and/{status}/a/1")).await;
        assert_eq!(response.status, status);
        match is_saved {
            true => assert!(response.renews_the_pair(browser.sid()), "{status}"),
            false => assert!(response.sets_no_cookie(), "{status}"),
        }
        assert_eq!(site.rows().count().await, i64::from(is_saved), "{status}");
        site.rows().execute("TRUNCATE TABLE").await;
    }
}

/// `regenerate`, and what is put in since, also if it equals what was there.
#[tokio::test]
async fn a_new_id_after_a_clear_keeps_only_what_is_put_in() {
    let cases: [(Act, _); 3] = [
        (|_| Ok(()), json!({})),
        (|session| session.insert("count", 2), json!({"count": 2})),
        (
            |session| session.insert("user", "ada"),
            json!({"user": "ada"}),
        ),
    ];
    for (put_in, expected) in cases {
        let site = Site::of_koa().await;
        let page = async move |session: Session| {
            session.clear()?;
            session.cycle_id()?;
            put_in(&session)
        };
        let mut browser = site.visitor_of_koa().await.at(&site.app_with(page));
        let response = browser.get("/page").await;
        assert!(response.renews_the_pair(browser.sid()), "{expected}");
        assert_ne!(browser.sid(), SID, "{expected}");
        assert_eq!(browser.get("/is_new").await.body, "false", "{expected}");
        let mut stored = site.rows().document().await;
        stored.as_object_mut().expect("an object").remove("cookie");
        assert_eq!(stored, expected);
    }
}
