//! What handlers can do with a session: in ordinary use, in odd orders, when a save fails, and after
//! the response.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::{Router, body::Body, http::StatusCode};
use axum_pg_session::{Error, ErrorKind, Expiry, LazySession, Session};
use futures_core::Stream;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{Browser, Rows, Site, page::polled_once, texts};

type Outcome = Result<(), Error>;

/// A visitor with the values `a` and `b` in a session.
async fn visitor(app: &Router) -> Browser {
    let mut browser = Browser::with_session(app).await;
    browser.get("/insert/b/2").await;
    browser
}

fn kind<T>(outcome: Result<T, Error>) -> Option<ErrorKind> {
    outcome.err().map(|error| error.kind())
}

fn text(session: &Session, key: &str) -> Option<String> {
    session.get(key).expect("a string")
}

/// What a response does with the cookie.
#[derive(Debug, PartialEq)]
enum Cookie {
    Kept,
    /// With the same token.
    Renewed,
    Replaced,
    Removed,
}

/// The documents of all rows; "moved" for one that leads to a new id.
async fn documents(site: &Site) -> Vec<String> {
    let sql = "SELECT CASE WHEN session::jsonb #> '{_session,successor}' IS NULL
                   THEN session::text ELSE 'moved' END
               FROM session ORDER BY 1";
    texts(&site.pool, sql).await
}

/// Visits a page, and compares the cookie and the rows that it leaves.
async fn assert_leaves(
    site: &Site,
    browser: Browser,
    (calls, page, cookie, rows): (&str, Router, Cookie, &[&str]),
) {
    let before = browser.clone();
    let mut browser = browser.at(&page);
    let reply = browser.get("/page").await;
    assert_eq!(reply.status, 200, "{calls}: {}", reply.body);
    let found = match reply.set_cookies().as_slice() {
        [] => Cookie::Kept,
        [_] if reply.removes_the_cookie() => Cookie::Removed,
        [_] if browser.jar == before.jar => Cookie::Renewed,
        [_] => Cookie::Replaced,
        cookies => panic!("{calls}: {cookies:?}"),
    };
    assert_eq!(found, cookie, "{calls}");
    assert_eq!(documents(site).await, rows, "{calls}");
    site.rows().execute("TRUNCATE TABLE").await;
}

fn increment(session: &Session) -> Outcome {
    session
        .update("n", |n: Option<u8>| n.unwrap_or(0) + 1)
        .map(drop)
}

#[tokio::test]
async fn a_request_executes_its_calls_in_their_order() {
    let site = Site::new().await;
    let rows = site.rows();
    for case in [
        (
            "remove, remove",
            site.app_with(async |session: Session| {
                assert_eq!(session.remove("a")?, Some("1".to_owned()));
                assert_eq!(session.remove::<String>("a")?, None);
                session.remove::<String>("b").map(drop)
            }),
            Cookie::Kept,
            ["{}"].as_slice(),
        ),
        (
            "update, update",
            site.app_with(async |session: Session| {
                let served = session.update("a", |a: Option<String>| {
                    assert_eq!(a.as_deref(), Some("1"));
                    17
                })?;
                assert_eq!(served, 17);
                let fresh = session.update("new", |value: Option<u8>| {
                    assert_eq!(value, None);
                    vec![1, 2]
                })?;
                assert_eq!(fresh, [1, 2]);
                Outcome::Ok(())
            }),
            Cookie::Kept,
            &[r#"{"a":17,"b":"2","new":[1,2]}"#],
        ),
        (
            "insert, update, update, remove, update",
            site.app_with(async |session: Session| {
                session.insert("n", 10)?;
                increment(&session)?;
                session.update("n", |n: Option<u8>| n.unwrap_or(0) * 2)?;
                session.remove::<String>("a")?;
                session.update("a", |a: Option<String>| a.is_none())?;
                Outcome::Ok(())
            }),
            Cookie::Kept,
            &[r#"{"b":"2","n":22,"a":true}"#],
        ),
        (
            "a change, and back",
            site.app_with(async |session: Session| {
                session.insert("a", "other")?;
                session.insert("a", "1")?;
                session.insert("c", 3)?;
                session.remove::<u8>("c").map(drop)
            }),
            Cookie::Kept,
            &[r#"{"a":"1","b":"2"}"#],
        ),
        (
            "insert, clear, insert",
            site.app_with(async |session: Session| {
                session.insert("c", 3)?;
                session.clear()?;
                assert!(session.is_empty() && !session.contains_key("a"));
                session.insert("d", 4)?;
                assert!(!session.is_empty() && session.contains_key("d"));
                Outcome::Ok(())
            }),
            Cookie::Kept,
            &[r#"{"d":4}"#],
        ),
        (
            "set_expiry, clear",
            site.app_with(async |session: Session| {
                session.set_expiry(Expiry::Idle(std::time::Duration::from_hours(1)))?;
                session.clear()
            }),
            Cookie::Renewed,
            &[r#"{"_session":{"idle":3600.0}}"#],
        ),
        (
            "cycle_id, cycle_id",
            site.app_with(async |session: Session| {
                session.cycle_id()?;
                session.cycle_id()
            }),
            Cookie::Replaced,
            &["moved", r#"{"a":"1","b":"2"}"#],
        ),
        (
            "cycle_id, save, cycle_id",
            site.app_with(async |session: Session| {
                session.cycle_id()?;
                session.save().await?;
                session.cycle_id()
            }),
            Cookie::Replaced,
            &["moved", "moved", r#"{"a":"1","b":"2"}"#],
        ),
        (
            "insert, cycle_id, insert",
            site.app_with(async |session: Session| {
                session.insert("before", 1)?;
                session.cycle_id()?;
                session.insert("after", 2)
            }),
            Cookie::Replaced,
            &["moved", r#"{"a":"1","b":"2","before":1,"after":2}"#],
        ),
        (
            "insert, destroy, insert",
            site.app_with(async |session: Session| {
                session.insert("c", 3)?;
                session.destroy()?;
                assert!(session.is_empty() && session.is_new());
                session.insert("farewell", "bye")
            }),
            Cookie::Replaced,
            &[r#"{"farewell":"bye"}"#],
        ),
        (
            "destroy, cycle_id",
            site.app_with(async |session: Session| {
                session.destroy()?;
                session.cycle_id()
            }),
            Cookie::Removed,
            &[],
        ),
        (
            "cycle_id, destroy",
            site.app_with(async |session: Session| {
                session.cycle_id()?;
                session.destroy()
            }),
            Cookie::Removed,
            &[],
        ),
        (
            "cycle_id, save, destroy",
            site.app_with(async |session: Session| {
                session.cycle_id()?;
                session.save().await?;
                session.destroy()
            }),
            Cookie::Removed,
            // It leads to no session, and is reaped.
            &["moved"],
        ),
        (
            "destroy, insert, destroy",
            site.app_with(async |session: Session| {
                session.destroy()?;
                session.insert("c", 3)?;
                session.destroy()
            }),
            Cookie::Removed,
            &[],
        ),
        (
            "destroy, insert, save, destroy",
            site.app_with(async |session: Session| {
                session.destroy()?;
                session.insert("c", 3)?;
                session.save().await?;
                session.destroy()
            }),
            Cookie::Removed,
            &[],
        ),
        (
            "insert, save, insert",
            site.app_with(async move |session: Session| {
                session.insert("c", 3)?;
                session.save().await?;
                assert_eq!(rows.document().await["c"], 3);
                session.insert("d", 4)
            }),
            Cookie::Kept,
            &[r#"{"a":"1","b":"2","c":3,"d":4}"#],
        ),
        (
            "a change during a save",
            site.app_with(async |session: Session| {
                session.insert("c", 3)?;
                let meanwhile = async { increment(&session) };
                let (saved, changed) = tokio::join!(session.save(), meanwhile);
                assert_eq!(session.get("n")?, Some(1));
                saved.and(changed)
            }),
            Cookie::Kept,
            &[r#"{"a":"1","b":"2","c":3,"n":1}"#],
        ),
    ] {
        let browser = visitor(&site.app()).await;
        assert_leaves(&site, browser, case).await;
    }
}

#[tokio::test]
async fn a_request_executes_its_calls_on_a_new_session_in_their_order() {
    let site = Site::new().await;
    for case in [
        (
            "insert",
            site.app_with(async |session: Session| {
                for key in ["z", "a", "m", "z"] {
                    session.insert(key, key)?;
                }
                assert_eq!(session.keys(), ["z", "a", "m"]);
                Outcome::Ok(())
            }),
            Cookie::Replaced,
            [r#"{"z":"z","a":"a","m":"m"}"#].as_slice(),
        ),
        (
            "insert, clear",
            site.app_with(async |session: Session| {
                session.insert("a", 1)?;
                session.clear()
            }),
            Cookie::Kept,
            &[],
        ),
        (
            "insert, destroy",
            site.app_with(async |session: Session| {
                session.insert("a", 1)?;
                session.destroy()
            }),
            Cookie::Kept,
            &[],
        ),
        (
            "cycle_id",
            site.app_with(async |session: Session| session.cycle_id()),
            Cookie::Kept,
            &[],
        ),
        (
            "cycle_id, insert",
            site.app_with(async |session: Session| {
                session.cycle_id()?;
                session.insert("user", 7)
            }),
            Cookie::Replaced,
            &[r#"{"user":7}"#],
        ),
        (
            "save",
            site.app_with(async |session: Session| session.save().await),
            Cookie::Kept,
            &[],
        ),
        (
            "update, save, save",
            site.app_with(async |session: Session| {
                increment(&session)?;
                session.save().await?;
                session.save().await
            }),
            Cookie::Replaced,
            &[r#"{"n":1}"#],
        ),
        (
            "two saves at once",
            site.app_with(async |session: Session| {
                increment(&session)?;
                let (one, two) = tokio::join!(session.save(), session.save());
                one.and(two)
            }),
            Cookie::Replaced,
            &[r#"{"n":1}"#],
        ),
        (
            "calls on clones",
            site.app_with(async |session: Session, twin: Session| {
                let clone = session.clone();
                clone.insert("c", 3)?;
                assert_eq!(session.get("c")?, Some(3));
                session.save().await?;
                assert_eq!(clone.id(), session.id());
                twin.clear()?;
                assert!(session.is_empty());
                Outcome::Ok(())
            }),
            Cookie::Replaced,
            &["{}"],
        ),
    ] {
        assert_leaves(&site, site.browser(), case).await;
    }
}

#[tokio::test]
async fn clear_keeps_the_session_its_id_and_its_expiry() {
    let site = Site::new().await;
    let mut browser = visitor(&site.app()).await;
    let id = browser.get("/id").await.body;
    site.rows().age(600.0).await;
    let left = site.rows().seconds_left().await;
    assert!(browser.get("/clear").await.sets_no_cookie());
    assert_eq!(browser.get("/id").await.body, id);
    assert_eq!(site.rows().text().await, "{}");
    assert!((site.rows().seconds_left().await - left).abs() < 60.0);
}

#[tokio::test]
async fn a_session_is_new_until_it_is_stored() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        assert!(session.is_new() && session.id().is_none());
        session.insert("a", 1)?;
        assert!(session.is_new() && session.id().is_none());
        session.save().await?;
        assert!(!session.is_new() && session.id().is_some());
        Outcome::Ok(())
    });
    let mut browser = Browser::new(&app);
    assert_eq!(browser.get("/page").await.status, 200);
    assert_eq!(browser.get("/is_new").await.body, "false");
}

#[tokio::test]
async fn cycle_id_changes_the_id_once_it_is_saved() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        let old = session.id();
        session.cycle_id()?;
        assert_eq!(session.id(), old);
        session.save().await?;
        assert!(session.id().is_some() && session.id() != old);
        Outcome::Ok(())
    });
    let mut browser = visitor(&app).await;
    let before = browser.clone();
    let reply = browser.get("/page").await;
    assert_eq!(reply.set_cookies().len(), 1);
    assert_ne!(browser.token(), before.token());
    assert_eq!(browser.get("/get/a").await.body, "\"1\"");
}

#[tokio::test]
async fn what_was_saved_stays_when_the_handler_fails_afterwards() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.insert("saved", 1)?;
        session.save().await?;
        session.insert("lost", 2)?;
        Ok::<_, Error>(StatusCode::INTERNAL_SERVER_ERROR)
    });
    let mut browser = Browser::new(&app);
    let reply = browser.get("/page").await;
    assert_eq!(reply.status, 500);
    assert!(reply.token().is_some(), "the cookie travels all the same");
    assert_eq!(browser.get("/keys").await.body, "saved");
}

#[tokio::test]
async fn a_session_that_was_saved_and_destroyed_leaves_nothing() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.insert("a", 1)?;
        session.save().await?;
        session.destroy()
    });
    let mut browser = Browser::new(&app);
    assert_eq!(browser.get("/page").await.token(), None);
    assert!(browser.jar.is_empty());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn a_destroy_can_be_saved_explicitly() {
    let site = Site::new().await;
    let rows = site.rows();
    let app = site.app_with(async move |session: Session| {
        session.destroy()?;
        session.save().await?;
        assert_eq!(rows.count().await, 0);
        Ok::<_, Error>(StatusCode::BAD_GATEWAY)
    });
    let mut browser = visitor(&app).await;
    assert!(browser.get("/page").await.removes_the_cookie());
}

/// What a logout elsewhere does, while the request of a test runs.
async fn end_elsewhere(rows: &Rows) {
    rows.execute("DELETE FROM TABLE").await;
}

#[tokio::test]
async fn a_destroyed_session_is_not_revived_by_a_late_save() {
    let site = Site::new().await;
    for goes_on in [false, true] {
        let rows = site.rows();
        let app = site.app_with(async move |session: Session| {
            end_elsewhere(&rows).await;
            session.insert("c", 3)?;
            assert_eq!(kind(session.save().await), Some(ErrorKind::Ended));
            assert!(session.is_new() && session.is_empty());
            if goes_on {
                session.insert("d", 4)?;
            }
            Outcome::Ok(())
        });
        let reply = visitor(&app).await.get("/page").await;
        // Without another change, the handler knows, and has decided.
        let status = if goes_on { 503 } else { 200 };
        assert_eq!(reply.status, status);
        assert!(reply.sets_no_cookie());
        assert_eq!(site.rows().count().await, 0);
    }
}

#[tokio::test]
async fn a_destroy_of_a_session_that_ended_succeeds() {
    let site = Site::new().await;
    let rows = site.rows();
    let app = site.app_with(async move |session: Session| {
        end_elsewhere(&rows).await;
        session.destroy()
    });
    let mut browser = visitor(&app).await;
    assert!(browser.get("/page").await.removes_the_cookie());
}

#[tokio::test]
async fn a_save_that_failed_leaves_the_session_as_it_is_stored() {
    for (refused, before) in [("UPDATE", ["a", "b"].as_slice()), ("INSERT", &[])] {
        let site = Arc::new(Site::new().await);
        let inside = Arc::clone(&site);
        let app = site.app_with(async move |session: Session| {
            inside.refuse(refused).await;
            session.insert("lost", 1)?;
            assert_eq!(kind(session.save().await), Some(ErrorKind::Database));
            inside.refuse_no_more(refused).await;
            assert_eq!(session.keys(), before);
            assert_eq!(session.is_new(), before.is_empty());
            session.insert("c", 3)
        });
        let mut browser = match before {
            [] => Browser::new(&app),
            _ => visitor(&app).await,
        };
        assert_eq!(browser.get("/page").await.status, 200);
        assert_eq!(
            browser.get("/keys").await.body,
            [before, &["c"]].concat().join(",")
        );
    }
}

#[tokio::test]
async fn a_destroy_that_could_not_be_saved_is_executed_with_the_response() {
    let site = Arc::new(Site::new().await);
    let inside = Arc::clone(&site);
    let app = site.app_with(async move |session: Session| {
        inside.refuse("DELETE").await;
        session.destroy()?;
        session.insert("lost", 1)?;
        assert_eq!(kind(session.save().await), Some(ErrorKind::Database));
        assert!(session.is_new() && session.is_empty());
        inside.refuse_no_more("DELETE").await;
        Outcome::Ok(())
    });
    let mut browser = visitor(&app).await;
    assert!(browser.get("/page").await.removes_the_cookie());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn a_destroy_that_is_never_executed_is_no_success() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.destroy()?;
        assert!(session.save().await.is_err());
        Outcome::Ok(())
    });
    let browser = visitor(&app).await;
    site.refuse("DELETE").await;
    assert_eq!(browser.peek("/page").await.status, 503);
    assert_eq!(browser.peek("/keys").await.body, "a,b");
}

/// A page that leaves its session to the test.
fn leaving(site: &Site) -> (Router, mpsc::UnboundedReceiver<Session>) {
    let (leave, left) = mpsc::unbounded_channel();
    let app = site.app_with(async move |session: Session| {
        leave.send(session).map_err(drop).expect("the test listens");
    });
    (app, left)
}

async fn assert_closed(session: &Session) {
    let late = Some(ErrorKind::ResponseStarted);
    assert_eq!(kind(session.insert("c", 3)), late);
    assert_eq!(kind(session.remove::<String>("a")), late);
    assert_eq!(kind(session.update("a", |a: Option<String>| a)), late);
    assert_eq!(kind(session.clear()), late);
    assert_eq!(kind(session.cycle_id()), late);
    assert_eq!(kind(session.destroy()), late);
    assert_eq!(kind(session.set_expiry(Expiry::Default)), late);
    assert_eq!(kind(session.save().await), late);
}

#[tokio::test]
async fn a_change_after_the_response_started_is_an_error() {
    let site = Site::new().await;
    let (app, mut left) = leaving(&site);
    let mut browser = visitor(&app).await;
    browser.get("/page").await;
    let before = site.rows().dump().await;
    let session = left.recv().await.expect("the page's session");
    assert_closed(&session).await;
    assert_eq!(text(&session, "a").as_deref(), Some("1"));
    assert_eq!(session.keys(), ["a", "b"]);
    assert!(session.id().is_some() && session.expires_at().is_some());
    assert_eq!(site.rows().dump().await, before);
}

/// A body that touches its session when it is read.
struct Late(Option<Session>);

impl Stream for Late {
    type Item = Result<String, Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.take().map(|session| {
            let change = kind(session.insert("late", true));
            Ok(format!("{change:?}, {}", session.keys().join(",")))
        }))
    }
}

#[tokio::test]
async fn a_streamed_body_can_read_its_session_and_not_change_it() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| Body::from_stream(Late(Some(session))));
    let mut browser = visitor(&app).await;
    let reply = browser.get("/page").await;
    assert_eq!(reply.body, "Some(ResponseStarted), a,b");
    assert_eq!(browser.get("/keys").await.body, "a,b");
}

#[tokio::test]
async fn a_session_loaded_after_the_response_started_can_only_be_read() {
    let site = Site::new().await;
    let (leave, mut left) = mpsc::unbounded_channel();
    let app = site.app_with(async move |lazy: LazySession| {
        leave.send(lazy).map_err(drop).expect("the test listens");
    });
    let mut browser = visitor(&app).await;
    let reply = browser.get("/page").await;
    assert!(!reply.headers.contains_key("vary"));
    let lazy = left.recv().await.expect("the page's session");
    let session = lazy.load().await.expect("a loaded session");
    assert_eq!(text(&session, "a").as_deref(), Some("1"));
    assert_closed(&session).await;
    assert_eq!(site.rows().text().await, r#"{"a":"1","b":"2"}"#);
}

#[tokio::test]
async fn a_session_whose_save_failed_is_closed() {
    let site = Site::new().await;
    let (leave, mut left) = mpsc::unbounded_channel();
    let app = site.app_with(async move |session: Session| {
        session.insert("c", 3).expect("a number");
        leave.send(session).map_err(drop).expect("the test listens");
    });
    let browser = visitor(&app).await;
    site.refuse("UPDATE").await;
    assert_eq!(browser.peek("/page").await.status, 503);
    assert_closed(&left.recv().await.expect("the page's session")).await;
}

#[tokio::test]
async fn debug_output_of_a_session_shows_no_value_and_no_token() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session, lazy: LazySession| {
        session.insert("word", "sesame")?;
        session.update("word", |_: Option<String>| "sesame")?;
        Ok::<_, Error>(format!("{session:?} {lazy:?} {:?}", session.id()))
    });
    let mut browser = visitor(&app).await;
    let token = browser.token().to_owned();
    let reply = browser.get("/page").await;
    assert!(reply.body.contains("Session"));
    assert!(!reply.body.contains("sesame") && !reply.body.contains(&token));
}

#[tokio::test]
async fn a_panic_in_an_update_leaves_the_session_usable() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        let panicking = || session.update("a", |_: Option<String>| -> u8 { panic!("by the test") });
        assert!(catch_unwind(AssertUnwindSafe(panicking)).is_err());
        assert_eq!(text(&session, "a").as_deref(), Some("1"));
        session.insert("c", 3)
    });
    let mut browser = visitor(&app).await;
    assert_eq!(browser.get("/page").await.status, 200);
    let expected = json!({"a": "1", "b": "2", "c": 3});
    assert_eq!(site.rows().document().await, expected);
}

#[tokio::test]
async fn a_handler_that_panics_saves_nothing() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.insert("c", 3).expect("a number");
        session.destroy().expect("before the response");
        let panics = !session.is_empty() || session.is_new();
        assert!(!panics, "by the test");
    });
    let browser = visitor(&app).await;
    let before = site.rows().dump().await;
    let visit = browser.clone();
    let visited = tokio::spawn(async move { visit.peek("/page").await }).await;
    assert!(visited.expect_err("a panic").is_panic());
    assert_eq!(site.rows().dump().await, before);
    assert_eq!(browser.peek("/keys").await.body, "a,b");
}

#[tokio::test]
async fn an_update_is_replayed_on_what_another_request_saved() {
    let site = Site::new().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let rows = site.rows();
    let app = site.app_with(async move |session: Session| {
        let seen = Arc::clone(&seen);
        session.update("n", move |n: Option<u64>| {
            seen.fetch_add(1, Ordering::SeqCst);
            n.unwrap_or(0) + 1
        })?;
        rows.execute(r#"UPDATE TABLE SET session = '{"n":41}'"#)
            .await;
        Outcome::Ok(())
    });
    visitor(&app).await.get("/page").await;
    assert_eq!(site.rows().text().await, r#"{"n":42}"#);
    assert!(calls.load(Ordering::SeqCst) >= 2);
}

#[tokio::test]
async fn an_update_that_no_longer_fits_is_a_503_and_saves_nothing() {
    let site = Site::new().await;
    let rows = site.rows();
    let app = site.app_with(async move |session: Session| {
        session.insert("c", 3)?;
        session.update("n", |n: Option<u64>| n.unwrap_or(0) + 1)?;
        rows.execute(r#"UPDATE TABLE SET session = '{"n":"text"}'"#)
            .await;
        Outcome::Ok(())
    });
    let browser = visitor(&app).await;
    assert_eq!(browser.peek("/page").await.status, 503);
    assert_eq!(site.rows().text().await, r#"{"n":"text"}"#);
}

/// A handler may give up on `save` at any moment, say by a timeout.
#[tokio::test]
async fn a_save_that_the_handler_gave_up_on_still_sets_its_cookie() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| -> Outcome {
        session.insert("a", 1)?;
        assert!(polled_once(session.save()).await.is_none());
        Ok(())
    });
    let mut browser = Browser::new(&app);
    assert!(browser.get("/page").await.token().is_some());
    assert_eq!(browser.get("/get/a").await.body, "1");
    assert_eq!(site.rows().count().await, 1);
}

#[tokio::test]
async fn a_last_save_that_fails_keeps_the_cookie_of_an_earlier_one() {
    let site = Arc::new(Site::new().await);
    let refusing = Arc::clone(&site);
    let app = site.app_with(async move |session: Session| -> Outcome {
        session.insert("a", 1)?;
        session.save().await?;
        refusing.refuse("UPDATE").await;
        session.insert("b", 2)
    });
    let mut browser = Browser::new(&app);
    let reply = browser.get("/page").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(reply.token().is_some());
    assert_eq!(browser.get("/keys").await.body, "a");
}
