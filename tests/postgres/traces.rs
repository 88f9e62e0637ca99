//! Log events of sessions.

use std::num::NonZeroU32;

use axum_pg_session::{PgSessionLayer, Reaper, Session, SessionLimitPolicy};

use crate::support::{
    Browser, Log, Site, app, execute,
    page::{app_with, until},
    visit,
};

/// The events of the log that are ours.
fn lines(log: &Log) -> Vec<String> {
    let text = log.text();
    let ours = text
        .lines()
        .filter(|line| line.contains(" axum_pg_session") && !line.starts_with("span of"));
    ours.map(str::to_owned).collect()
}

/// Each step of a session's life, by its public handle, and no warning.
#[tokio::test]
async fn the_life_of_a_session_is_traced() {
    let site = Site::new().await;
    let log = Log::keep();
    let said = |what: &str| {
        let lines = lines(&log);
        let found: Vec<_> = lines.iter().filter(|line| line.contains(what)).collect();
        assert!(!found.is_empty(), "{what} in {lines:#?}");
        assert!(
            found.iter().all(|line| line.starts_with("INFO ")),
            "{found:?}"
        );
        found.into_iter().cloned().collect::<String>()
    };

    let mut browser = site.visitor().await;
    let first = browser.get("/id").await.body;
    assert!(said("a session began").contains(&first));
    browser.get("/cycle").await;
    let second = browser.get("/id").await.body;
    let cycled = said("a session got a new id");
    assert!(cycled.contains(&first) && cycled.contains(&second));
    site.sign_in(&mut browser, "ann").await;
    let third = browser.get("/id").await.body;
    assert!(said("a user signed in").contains(&third));
    browser.get("/destroy").await;
    assert!(said("a session ended").contains(&third));

    let users = site.store.user("ann");
    for _ in 0..2 {
        visit(&site, &mut site.browser(), async |session: Session| {
            session.login("ann")
        })
        .await;
    }
    let listed = users.list().await.expect("a list");
    assert!(users.destroy(listed[0].id()).await.expect("a database"));
    assert!(said("a session ended").contains(listed[0].id().as_str()));
    assert_eq!(users.destroy_all().await.expect("a database"), 1);
    assert!(said("sessions were ended from outside").contains("session.count=1"));
    assert!(lines(&log).iter().all(|line| !line.contains("ann")));

    site.rows().age(100_000.0).await;
    let reaper = Reaper::new(site.store.clone()).spawn();
    until(async || log.text().contains("expired sessions deleted")).await;
    reaper.stop().await;
    said("expired sessions deleted");
    for line in lines(&log) {
        assert!(
            line.starts_with("INFO ")
                || line.starts_with("DEBUG ")
                // Each page here is an application of its own.
                || line.contains("layers have the same cookie name and share their sessions"),
            "{line}"
        );
    }
}

#[tokio::test]
async fn the_limit_of_a_user_is_traced_when_it_is_reached() {
    let site = Site::new().await;
    let one = NonZeroU32::MIN;
    let store = site.limited(one, SessionLimitPolicy::EndOldest);
    let app = app_with(PgSessionLayer::new(store), async |session: Session| {
        session.login("ann")
    });
    let log = Log::keep();
    for _ in 0..2 {
        assert_eq!(Browser::new(&app).get("/page").await.status, 200);
    }
    let said = log.text();
    assert!(
        said.contains("the oldest sessions of a user were ended"),
        "{said}"
    );
}

/// A stale cookie is ordinary, so it is no warning. Its value is not logged.
#[tokio::test]
async fn tokens_that_open_nothing_are_logged_at_debug_without_their_value() {
    let site = Site::new().await;
    let log = Log::keep();
    let unknown = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
    for value in [unknown, "malformed"] {
        let app = app(site.layer());
        let stale = Browser::new(&app).with_cookie("__Host-id", value);
        assert_eq!(stale.peek("/keys").await.status, 200);
    }
    let said = lines(&log);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said.iter().all(|line| line.starts_with("DEBUG ")),
        "{said:?}"
    );
    assert!(!log.text().contains(unknown) && !log.text().contains("=malformed"));
}

/// Once, with its kind.
#[tokio::test]
async fn a_session_that_could_not_be_loaded_is_logged_with_the_reason() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    execute(&site.pool, "ALTER TABLE public.session RENAME TO gone").await;
    let log = Log::keep();
    assert_eq!(browser.get("/get/a").await.status, 500);
    let said = lines(&log);
    let [line] = said.as_slice() else {
        panic!("one line: {said:?}");
    };
    assert!(line.starts_with("ERROR "), "{line}");
    assert!(line.contains("a session could not be loaded"), "{line}");
    assert!(line.contains("error.type=\"setup\""), "{line}");
}

#[tokio::test]
async fn a_change_that_could_not_be_saved_is_reported_with_its_response() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    site.refuse("UPDATE").await;
    let log = Log::keep();
    assert_eq!(browser.get("/insert/a/2").await.status, 503);
    let said = lines(&log);
    let [line] = said.as_slice() else {
        panic!("one line: {said:?}");
    };
    assert!(line.starts_with("ERROR "), "{line}");
    assert!(line.contains("error.type=\"database\""), "{line}");
    assert!(line.contains("http.response.status_code=503"), "{line}");
}
