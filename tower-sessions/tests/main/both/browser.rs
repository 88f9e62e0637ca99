//! What a browser and a handler see, with plain, signed and private cookies: as with any
//! store of tower-sessions.

use axum::{Router, routing::get};
use http::StatusCode;

use super::{
    support::{Browser, Site, site},
    tower_sessions::{
        Expiry, Session, SessionManagerLayer,
        cookie::{Key, time::Duration},
    },
};

#[derive(Clone, Copy, Debug)]
enum Cookies {
    Plain,
    Signed,
    Private,
}

const ALL: [Cookies; 3] = [Cookies::Plain, Cookies::Signed, Cookies::Private];

fn routes() -> Router {
    Router::new()
        .route("/", get(async |_: Session| "home"))
        .route(
            "/insert",
            get(async |session: Session| session.insert("number", 42).await.expect("saved later")),
        )
        .route(
            "/get",
            get(async |session: Session| {
                let number: Option<u32> = session.get("number").await.expect("a load");
                format!("{number:?}")
            }),
        )
        .route(
            "/remove",
            get(
                async |session: Session| match session.remove_value("number").await {
                    Ok(_) => StatusCode::OK,
                    Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
                },
            ),
        )
        .route(
            "/cycle",
            get(async |session: Session| session.cycle_id().await.expect("a deletion")),
        )
        .route(
            "/cycle_and_fail",
            get(async |session: Session| {
                session.cycle_id().await.expect("a deletion");
                StatusCode::INTERNAL_SERVER_ERROR
            }),
        )
        .route(
            "/flush",
            get(async |session: Session| session.flush().await.expect("a deletion")),
        )
        .route(
            "/a_day",
            get(async |session: Session| {
                session.set_expiry(Some(Expiry::OnInactivity(Duration::days(1))));
            }),
        )
        .route(
            "/until_closed",
            get(async |session: Session| session.set_expiry(Some(Expiry::OnSessionEnd))),
        )
}

fn app(site: &Site, cookies: Cookies) -> Router {
    let layer = SessionManagerLayer::new(site.sessions())
        .with_expiry(Expiry::OnInactivity(Duration::hours(1)));
    let key = Key::from(&[7; 64]);
    match cookies {
        Cookies::Plain => routes().layer(layer),
        Cookies::Signed => routes().layer(layer.with_signed(key)),
        Cookies::Private => routes().layer(layer.with_private(key)),
    }
}

/// The site, and a visitor who has inserted a value.
async fn inserted(site: &Site, cookies: Cookies) -> (Router, Browser) {
    let (app, mut ada) = (app(site, cookies), Browser::default());
    ada.get(&app, "/insert").await;
    (app, ada)
}

#[tokio::test]
async fn a_visitor_who_stores_nothing_gets_no_cookie_and_no_row() {
    let site = site().await;
    for cookies in ALL {
        let mut ada = Browser::default();
        let page = ada.get(&app(&site, cookies), "/").await;
        assert_eq!(page.text, "home");
        assert_eq!(page.set_cookie(), None, "{cookies:?}");
    }
    assert_eq!(site.rows().await, 0);
}

#[tokio::test]
async fn what_one_request_stores_the_next_one_reads() {
    let site = site().await;
    for cookies in ALL {
        let app = app(&site, cookies);
        let mut ada = Browser::default();
        let page = ada.get(&app, "/insert").await;
        assert_eq!(page.attribute("path"), Some("/"));
        assert_eq!(page.attribute("samesite"), Some("Strict"));
        assert_eq!(page.attribute("max-age"), Some("3600"));
        assert!(page.attribute("httponly").is_some() && page.attribute("secure").is_some());
        assert_eq!(ada.get(&app, "/get").await.text, "Some(42)", "{cookies:?}");
        assert_eq!(Browser::default().get(&app, "/get").await.text, "None");
    }
}

#[tokio::test]
async fn an_unknown_id_begins_a_session_with_an_id_of_its_own() {
    let site = site().await;
    let app = app(&site, Cookies::Plain);
    for cookie in ["id=AAAAAAAAAAAAAAAAAAAAAA", "id=malformed"] {
        let mut mallory = Browser {
            cookie: Some(cookie.to_owned()),
        };
        assert_eq!(mallory.get(&app, "/get").await.text, "None");
        let page = mallory.get(&app, "/insert").await;
        assert_eq!(page.status, StatusCode::OK);
        assert_ne!(mallory.cookie.as_deref(), Some(cookie));
        assert_eq!(mallory.get(&app, "/get").await.text, "Some(42)");
    }
}

#[tokio::test]
async fn a_cookie_that_was_changed_opens_nothing() {
    let site = site().await;
    for cookies in [Cookies::Signed, Cookies::Private] {
        let (app, ada) = inserted(&site, cookies).await;
        let cookie = ada.cookie.clone().expect("a cookie");
        let mut mallory = Browser {
            cookie: Some(cookie.replacen("id=", "id=A", 1)),
        };
        assert_eq!(mallory.get(&app, "/get").await.text, "None", "{cookies:?}");
    }
}

#[tokio::test]
async fn a_removed_value_is_not_there_any_more() {
    let site = site().await;
    for cookies in ALL {
        let (app, mut ada) = inserted(&site, cookies).await;
        ada.get(&app, "/remove").await;
        assert_eq!(ada.get(&app, "/get").await.text, "None", "{cookies:?}");
    }
}

#[tokio::test]
async fn a_cycled_session_has_its_data_under_a_new_id_only() {
    let site = site().await;
    for cookies in ALL {
        let (app, mut ada) = inserted(&site, cookies).await;
        let mut old = ada.clone();
        ada.get(&app, "/cycle").await;
        assert_ne!(old.cookie, ada.cookie, "{cookies:?}");
        assert_eq!(ada.get(&app, "/get").await.text, "Some(42)");
        assert_eq!(old.get(&app, "/get").await.text, "None");
    }
    assert_eq!(site.rows().await, 3);
}

/// tower-sessions deletes the old row at once, and a failed request saves no new one. The
/// guide says so.
#[tokio::test]
async fn a_cycled_session_is_lost_if_its_request_fails() {
    let site = site().await;
    let (app, mut ada) = inserted(&site, Cookies::Plain).await;
    ada.get(&app, "/cycle_and_fail").await;
    assert_eq!(ada.get(&app, "/get").await.text, "None");
    assert_eq!(site.rows().await, 0);
}

#[tokio::test]
async fn a_flushed_session_leaves_no_row_and_no_cookie() {
    let site = site().await;
    for cookies in ALL {
        let (app, mut ada) = inserted(&site, cookies).await;
        let mut old = ada.clone();
        ada.get(&app, "/flush").await;
        assert_eq!(ada.cookie, None, "{cookies:?}");
        assert_eq!(old.get(&app, "/get").await.text, "None");
        assert_eq!(site.rows().await, 0);
    }
}

#[tokio::test]
async fn an_expiry_of_its_own_moves_the_end_of_a_session() {
    let site = site().await;
    for cookies in ALL {
        site.execute("DELETE FROM session").await;
        let (app, mut ada) = inserted(&site, cookies).await;
        assert_eq!(hours_left(&site).await, 1);
        let page = ada.get(&app, "/a_day").await;
        assert_eq!(page.attribute("max-age"), Some("86400"), "{cookies:?}");
        assert_eq!(hours_left(&site).await, 24);
        let page = ada.get(&app, "/until_closed").await;
        assert_eq!(page.attribute("max-age"), None);
        assert_eq!(hours_left(&site).await, 14 * 24);
        // tower-sessions doesn't load it back, so the next save has the layer's.
        ada.get(&app, "/remove").await;
        assert_eq!(hours_left(&site).await, 1);
    }
}

async fn hours_left(site: &Site) -> i32 {
    let sql = "SELECT round(extract(epoch FROM expiry - now()) / 3600)::int FROM session";
    sqlx::query_scalar(sql)
        .fetch_one(&site.pool)
        .await
        .expect("one row")
}

#[tokio::test]
async fn a_database_that_is_away_is_an_error_and_not_an_empty_session() {
    let site = site().await;
    let (app, mut ada) = inserted(&site, Cookies::Plain).await;
    site.execute("ALTER TABLE session RENAME TO elsewhere")
        .await;
    let page = ada.get(&app, "/remove").await;
    assert_eq!(page.status, StatusCode::INTERNAL_SERVER_ERROR);
    site.execute("ALTER TABLE elsewhere RENAME TO session")
        .await;
    assert_eq!(ada.get(&app, "/get").await.text, "Some(42)");
}
