//! Loading and touching a session by its handle, outside of its requests.

use std::time::Duration;

use axum_pg_session::{Error, Expiry, Login, PgSessionLayer, Session, SessionId};

use crate::support::{
    Browser, Site, execute,
    page::{InFlight, app_with},
    visit,
};

const DAY: f64 = 86_400.0;

type Act = fn(&Session) -> Result<(), Error>;

async fn act(site: &Site, browser: &mut Browser, act: Act) {
    visit(site, browser, async move |session: Session| act(&session)).await;
}

async fn visitor(site: &Site) -> (Browser, SessionId) {
    let browser = site.visitor().await;
    let id = browser.handle().await;
    (browser, id)
}

async fn touch(site: &Site, id: &SessionId) -> bool {
    site.layer().touch(id).await.expect("a touch")
}

/// About a day, less what the test took.
fn is_a_day(seconds: f64) -> bool {
    (seconds - DAY).abs() < 60.0
}

#[tokio::test]
async fn a_handle_follows_its_session_to_new_ids() {
    let moves: [&[Act]; 3] = [
        &[Session::cycle_id],
        &[|session| session.login("alice")],
        &[
            Session::cycle_id,
            |session| session.login("alice"),
            |session| session.login("alice"),
        ],
    ];
    for (number, moves) in moves.into_iter().enumerate() {
        let site = Site::new().await;
        let (mut browser, mut id) = visitor(&site).await;
        if number > 0 {
            act(&site, &mut browser, |session| session.login("alice")).await;
            id = browser.handle().await;
        }
        for step in moves {
            act(&site, &mut browser, *step).await;
        }
        let loaded = site.elsewhere().await.load(&id).await;
        let loaded = loaded.expect("a database").expect("alive");
        let now = browser.handle().await;
        assert_eq!(*loaded.id(), now, "{number}");
        assert_ne!(now, id, "{number}");
        assert_eq!(loaded.get("a").expect("text"), Some("1".to_owned()));
        let signed_in = (number > 0).then_some("alice");
        assert_eq!(loaded.user_id(), signed_in, "{number}");

        browser.get("/destroy").await;
        for id in [&id, &now] {
            let loaded = site.store.load(id).await.expect("a database");
            assert!(loaded.is_none(), "{number}");
        }
    }
}

/// An attacker who planted the token may hold it.
#[tokio::test]
async fn a_handle_of_before_a_login_does_not_read_the_session_of_the_user() {
    let site = Site::new().await;
    let (mut browser, id) = visitor(&site).await;
    act(&site, &mut browser, Session::cycle_id).await;
    act(&site, &mut browser, |session| session.login("alice")).await;
    assert!(site.store.load(&id).await.expect("a database").is_none());
    assert!(!touch(&site, &id).await);
    // It opens nothing, and still ends the session.
    assert!(site.store.destroy(&id).await.expect("a database"));
    assert_eq!(browser.get("/keys").await.body, "");
}

#[tokio::test]
async fn a_handle_does_not_follow_to_a_login_that_dropped_the_data() {
    let to_another: [Act; 2] = [
        |session| session.login(Login::new("alice").discard_data()),
        |session| session.login("bob"),
    ];
    for login in to_another {
        let site = Site::new().await;
        let (mut browser, _) = visitor(&site).await;
        act(&site, &mut browser, |session| session.login("alice")).await;
        let id = browser.handle().await;
        act(&site, &mut browser, login).await;
        assert!(site.store.load(&id).await.expect("a database").is_none());
        assert!(!touch(&site, &id).await);
    }
}

#[tokio::test]
async fn a_handle_is_followed_for_a_minute() {
    let site = Site::new().await;
    let (mut browser, id) = visitor(&site).await;
    browser.get("/cycle").await;
    site.rows().age(45.0).await;
    assert!(site.store.load(&id).await.expect("a database").is_some());
    site.rows().age(15.0).await;
    assert!(site.store.load(&id).await.expect("a database").is_none());
}

#[tokio::test]
async fn a_touch_by_a_handle_extends_the_session_when_it_is_due() {
    let site = Site::new().await;
    let (_, id) = visitor(&site).await;
    site.rows().age(600.0).await;
    assert!(touch(&site, &id).await);
    let left = site.rows().seconds_left().await;
    assert!(is_a_day(left + 600.0), "not due: {left}");

    let aged = "UPDATE session SET expiry = expiry - interval '2 hours',
                last_seen = last_seen - interval '2 hours'";
    execute(&site.pool, aged).await;
    assert!(touch(&site, &id).await);
    let left = site.rows().seconds_left().await;
    assert!(is_a_day(left), "{left}");
    let seen: bool =
        sqlx::query_scalar("SELECT last_seen > now() - interval '1 minute' FROM session")
            .fetch_one(&site.pool)
            .await
            .expect("a row");
    assert!(seen);
    assert_eq!(site.rows().text().await, r#"{"a":"1"}"#);
}

#[tokio::test]
async fn a_touch_by_a_handle_keeps_to_the_timeouts_of_layer_and_session() {
    let site = Site::new().await;
    let (mut browser, id) = visitor(&site).await;
    site.rows().age(7200.0).await;
    site.rows().age_creation(29.5 * DAY).await;
    assert!(touch(&site, &id).await);
    let left = site.rows().seconds_left().await;
    assert!(is_a_day(left + DAY / 2.0), "the absolute timeout: {left}");

    let lowered = site.layer().absolute_timeout(Duration::from_hours(24));
    assert!(!lowered.touch(&id).await.expect("a response"), "it ended");
    let left = site.rows().seconds_left().await;
    assert!(is_a_day(left + DAY / 2.0), "untouched: {left}");

    site.rows().age_creation(-29.5 * DAY).await;
    let own: Act = |session| session.set_expiry(Expiry::Idle(Duration::from_hours(1)));
    act(&site, &mut browser, own).await;
    site.rows().age(1800.0).await;
    assert!(touch(&site, &id).await);
    let left = site.rows().seconds_left().await;
    assert!((left - 3600.0).abs() < 60.0, "its own: {left}");
}

#[tokio::test]
async fn a_touch_by_a_handle_follows_a_new_id() {
    let site = Site::new().await;
    let (mut browser, id) = visitor(&site).await;
    browser.get("/cycle").await;
    let aged = "UPDATE session SET expiry = expiry - interval '2 hours'
                WHERE session::text NOT LIKE '%successor%'";
    execute(&site.pool, aged).await;
    assert!(touch(&site, &id).await);
    let left = site.rows().seconds_left().await;
    assert!(is_a_day(left), "{left}");
}

#[tokio::test]
async fn a_touch_by_a_handle_revives_nothing() {
    let site = Site::new().await;
    let (mut browser, id) = visitor(&site).await;
    site.rows().age(7200.0).await;
    let mut lock = site.lock_row(&id).await;
    let (layer, touched) = (site.layer(), id.clone());
    let touching = tokio::spawn(async move { layer.touch(&touched).await });
    site.blocked(1).await;
    sqlx::query("DELETE FROM session")
        .execute(&mut *lock)
        .await
        .expect("an end");
    lock.commit().await.expect("a commit");
    let alive = touching.await.expect("no panic").expect("a response");
    assert!(!alive, "destroyed meanwhile");
    assert!(!touch(&site, &id).await, "destroyed before");

    browser.get("/insert/a/1").await;
    let id = browser.handle().await;
    site.rows().age(DAY).await;
    assert!(!touch(&site, &id).await, "expired");
    assert!(site.rows().seconds_left().await <= 0.0);
}

#[tokio::test]
async fn a_session_that_moves_under_a_touch_by_a_handle_is_alive() {
    let site = Site::new().await;
    let (mut browser, id) = visitor(&site).await;
    site.rows().age(7200.0).await;
    let layer = PgSessionLayer::new(site.elsewhere().await);
    let late = InFlight::begin(&browser, "/page", |gate| {
        app_with(layer, async move |session: Session| {
            gate.pass().await;
            session.cycle_id()
        })
    })
    .await;
    let lock = site.lock_row(&id).await;
    late.go_on();
    site.blocked(1).await;
    let (layer, touched) = (site.layer(), id.clone());
    let touching = tokio::spawn(async move { layer.touch(&touched).await });
    site.blocked(2).await;
    lock.commit().await.expect("no changes");
    browser.accept(&late.response().await);
    assert!(touching.await.expect("no panic").expect("a response"));
    let left = site.rows().seconds_left().await;
    assert!(is_a_day(left), "{left}");
    assert_eq!(browser.peek("/get/a").await.body, "\"1\"");
}

#[tokio::test]
async fn a_touch_by_a_handle_reports_contradictory_options() {
    let site = Site::new().await;
    let (_, id) = visitor(&site).await;
    let layer = site.layer().idle_timeout(Duration::ZERO);
    let error = layer.touch(&id).await.expect_err("no such timeout");
    assert_eq!(error.kind(), axum_pg_session::ErrorKind::Setup);
}
