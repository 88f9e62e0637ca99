//! The request cycle of koa-generic-session, rule by rule, in Koa's format.

use std::time::Duration;

use axum::{Router, http::StatusCode, routing::get};
use axum_pg_session::{PgSessionLayer, PgSessionStore, Session};
use tokio::task::JoinSet;

use crate::support::{
    Browser, Reply, Site, app,
    koa::{DAY, DOCUMENT, KEYS, SID, koa},
    page::app_with,
    texts, visit,
};

async fn act<F>(site: &Site, browser: &mut Browser, act: F) -> Reply
where
    F: Fn(&Session) -> Result<(), axum_pg_session::Error> + Clone + Send + Sync + 'static,
{
    let page = async move |session: Session| act(&session);
    let mut visitor = browser.at(&site.app_with(page));
    let response = visitor.get("/page").await;
    browser.jar = visitor.jar;
    response
}

// Loading.

#[tokio::test]
async fn without_a_cookie_a_session_is_new_and_nothing_is_asked() {
    let pool = sqlx::PgPool::connect_lazy("postgres://127.0.0.1:1/none").expect("a URL");
    let store = PgSessionStore::new(pool)
        .timeout(Duration::from_millis(100))
        .koa(koa());
    let response = Browser::new(&app(PgSessionLayer::new(store)))
        .get("/is_new")
        .await;
    assert_eq!((response.status.as_u16(), &*response.body), (200, "true"));
}

#[tokio::test]
async fn a_database_that_is_away_only_fails_who_asks_for_a_session() {
    let pool = sqlx::PgPool::connect_lazy("postgres://127.0.0.1:1/none").expect("a URL");
    let store = PgSessionStore::new(pool)
        .timeout(Duration::from_millis(100))
        .koa(koa());
    let app = app(PgSessionLayer::new(store));
    let mut browser = Browser::new(&app).signed(SID, KEYS[0]);
    assert_eq!(browser.get("/plain").await.status, 200);
    let response = browser.get("/get/a").await;
    assert_eq!(response.status, 503);
    assert!(response.sets_no_cookie());
}

#[tokio::test]
async fn an_absent_row_is_a_new_session_under_a_new_id() {
    let site = Site::of_koa().await;
    let mut browser = site.browser().signed(SID, KEYS[0]);
    let response = browser.peek("/get/a").await;
    assert!(response.sets_no_cookie());
    browser.get("/insert/a/1").await;
    assert_ne!(browser.sid(), SID);
}

#[tokio::test]
async fn what_is_set_before_anything_is_read_adopts_no_id() {
    let site = Site::of_koa().await;
    let mut browser = site.browser().signed(SID, KEYS[0]);
    act(&site, &mut browser, |session| {
        session.replace(serde_json::json!({"a": 1}))
    })
    .await;
    assert_ne!(browser.sid(), SID);
    let mut browser = site.browser().with_cookie("koa.sid", SID);
    act(&site, &mut browser, |session| session.insert("a", 1)).await;
    assert_ne!(browser.sid(), SID);
    assert_eq!(
        texts(&site.pool, "SELECT id FROM public.session")
            .await
            .len(),
        2
    );
}

// Saving: the first rule that fits.

#[tokio::test]
async fn a_suppressed_save_stores_nothing_not_even_an_end() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    let before = site.rows().dump().await;
    let response = act(&site, &mut browser, |session| {
        session.insert("a", 1)?;
        session.destroy()?;
        session.discard()
    })
    .await;
    assert!(response.sets_no_cookie());
    assert_eq!(site.rows().dump().await, before);
}

#[tokio::test]
async fn the_end_of_a_stored_session_deletes_its_row() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    let response = act(&site, &mut browser, Session::destroy).await;
    assert!(response.removes_the_pair());
    assert_eq!(site.rows().count().await, 0);
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
async fn a_new_session_that_holds_nothing_is_not_stored_not_even_under_rolling() {
    let site = Site::of_koa().await;
    let layer = site.layer().touch_interval(Duration::ZERO);
    let response = Browser::new(&app(layer)).get("/keys").await;
    assert!(response.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn an_unchanged_session_is_not_written() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    let before = site.rows().dump().await;
    let response = act(&site, &mut browser, |session| session.insert("count", 2)).await;
    assert!(response.sets_no_cookie());
    assert_eq!(site.rows().dump().await, before);
}

#[tokio::test]
async fn under_rolling_every_request_renews_row_and_cookies() {
    let site = Site::of_koa().await;
    let layer = site.layer().touch_interval(Duration::ZERO);
    let mut browser = site.visitor_with(DOCUMENT, DAY - 1.0).await.at(&app(layer));
    for _ in 0..2 {
        assert!(browser.get("/get/count").await.renews_the_pair(SID));
    }
    assert!(site.rows().seconds_left().await > DAY - 0.9);
}

#[tokio::test]
async fn a_change_is_prepared_then_written_and_its_cookie_comes_with_the_response() {
    let site = Site::of_koa().await;
    let layer = site
        .layer()
        .before_save(|session| session.insert("prepared", true));
    let mut browser = Browser::new(&app(layer));
    let response = browser.get("/insert/a/1").await;
    assert!(response.renews_the_pair(browser.sid()));
    assert_eq!(site.rows().document().await["prepared"], true);
}

#[tokio::test]
async fn a_response_of_4xx_keeps_its_changes_and_their_cookie() {
    let site = Site::of_koa().await;
    let mut browser = site.browser();
    let response = browser.get("/insert_and/404/a/1").await;
    assert_eq!(response.status, 404);
    assert!(response.renews_the_pair(browser.sid()));
}

#[tokio::test]
async fn a_response_of_5xx_saves_the_row_with_its_cookie_or_neither() {
    let site = Site::of_koa().await;
    let response = site.browser().get("/insert_and/500/a/1").await;
    assert!(response.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
    let mut browser = Browser::new(&app(site.layer().save_if(|_, _| true)));
    let response = browser.get("/insert_and/500/a/1").await;
    assert_eq!(response.status, 500);
    assert!(response.renews_the_pair(browser.sid()));
    assert_eq!(site.rows().count().await, 1);
}

#[tokio::test]
async fn a_write_that_fails_is_a_503_without_a_cookie() {
    let site = Site::of_koa().await;
    site.refuse("INSERT").await;
    let response = site.browser().get("/insert/a/1").await;
    assert_eq!(response.status, 503);
    assert!(response.sets_no_cookie());
}

// The rest.

#[tokio::test]
async fn the_end_of_a_session_whose_row_is_gone_is_as_good() {
    let site = Site::of_koa().await;
    let browser = site.visitor_of_koa().await;
    let other = browser.clone();
    let page = async move |session: Session| {
        other.clone().get("/destroy").await;
        session.destroy()?;
        assert!(session.is_empty() && session.is_new());
        Ok::<_, axum_pg_session::Error>(())
    };
    let response = browser.at(&site.app_with(page)).peek("/page").await;
    assert_eq!(response.status, 200);
    assert!(response.removes_the_pair());
}

#[tokio::test]
async fn a_second_layer_of_the_same_cookie_does_nothing() {
    let site = Site::of_koa().await;
    let page = get(async |session: Session| session.insert("a", 1));
    let app = Router::new()
        .route("/", page)
        .layer(site.layer())
        .layer(site.layer());
    let mut browser = Browser::new(&app);
    let response = browser.get("/").await;
    assert!(response.renews_the_pair(browser.sid()));
    assert_eq!(site.rows().count().await, 1);
}

#[tokio::test]
async fn a_failure_after_a_new_id_was_asked_for_leaves_the_old_one() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    let page = async |session: Session| {
        session.clear()?;
        session.cycle_id()?;
        Ok::<_, axum_pg_session::Error>(StatusCode::INTERNAL_SERVER_ERROR)
    };
    let response = browser
        .at(&app_with(site.layer(), page))
        .peek("/page")
        .await;
    assert!(response.sets_no_cookie());
    assert_eq!(browser.get("/get/count").await.body, "2");
}

#[tokio::test]
async fn a_visitor_who_is_signed_in_anew_keeps_nothing_of_before() {
    let site = Site::of_koa().await;
    let mut browser = site.visitor_of_koa().await;
    visit(&site, &mut browser, async |session: Session| {
        session.clear()?;
        session.cycle_id()?;
        session.insert("user", "ada")
    })
    .await;
    assert_ne!(browser.sid(), SID);
    assert_eq!(browser.get("/keys").await.body, "user");
    assert_eq!(site.rows().count().await, 1);
}

#[tokio::test]
async fn fifty_first_visits_at_once_are_fifty_sessions() {
    let site = Site::of_koa().await;
    let mut visits = JoinSet::new();
    for _ in 0..50 {
        let browser = site.browser();
        visits.spawn(async move { browser.peek("/insert/a/1").await });
    }
    let responses = visits.join_all().await;
    assert!(responses.iter().all(|response| response.status == 200));
    assert_eq!(site.rows().count().await, 50);
}
