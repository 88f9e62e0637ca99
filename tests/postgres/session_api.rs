//! What handlers can ask of a session, in ordinary use and in odd orders.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, StatusCode},
};
use axum_pg_session::{Error, ErrorKind, Expiry, LazySession, Session};
use futures_core::Stream;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{Browser, Rows, Site, page::polled_once};

type Outcome = Result<(), Error>;

/// A visitor with the values `a` and `b` in a session.
async fn visitor(app: &Router) -> Browser {
    let mut browser = Browser::new(app);
    browser.get("/insert/a/1").await;
    browser.get("/insert/b/2").await;
    browser
}

fn kind<T>(outcome: Result<T, Error>) -> Option<ErrorKind> {
    outcome.err().map(|error| error.kind())
}

fn text(session: &Session, key: &str) -> Option<String> {
    session.get(key).expect("a string")
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Basket {
    fruits: Vec<String>,
    weight: f64,
}

#[tokio::test]
async fn what_is_inserted_is_there_at_once_and_later() {
    let site = Site::new().await;
    let basket = Basket {
        fruits: vec!["pear".into(), "fig".into()],
        weight: 0.25,
    };
    let expected = basket.clone();
    let app = site.app_with(async move |session: Session| {
        session.insert("basket", &basket)?;
        assert_eq!(session.get("basket")?, Some(basket.clone()));
        Outcome::Ok(())
    });
    let mut browser = Browser::new(&app);
    browser.get("/page").await;
    let reader = site.app_with(async move |session: Session| {
        assert_eq!(session.get("basket")?, Some(expected.clone()));
        Outcome::Ok(())
    });
    assert_eq!(browser.at(&reader).get("/page").await.status, 200);
}

#[tokio::test]
async fn a_missing_value_and_a_null_are_none() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.insert("null", Option::<u8>::None)?;
        assert_eq!(session.get::<String>("null")?, None);
        assert_eq!(session.get::<String>("nothing")?, None);
        assert_eq!(session.remove::<String>("nothing")?, None);
        assert!(session.contains_key("null"));
        Outcome::Ok(())
    });
    assert_eq!(Browser::new(&app).get("/page").await.status, 200);
}

#[tokio::test]
async fn a_value_of_another_type_is_an_error_and_stays() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        let wrong = Some(ErrorKind::Deserialize);
        assert_eq!(kind(session.get::<u64>("a")), wrong);
        assert_eq!(kind(session.remove::<u64>("a")), wrong);
        assert_eq!(kind(session.update("a", |n: Option<u64>| n)), wrong);
        assert_eq!(text(&session, "a").as_deref(), Some("1"));
    });
    let mut browser = visitor(&app).await;
    let before = site.rows().dump().await;
    assert_eq!(browser.get("/page").await.status, 200);
    assert_eq!(site.rows().dump().await, before);
}

#[tokio::test]
async fn an_error_about_a_value_does_not_quote_it() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.insert("a", "sesame")?;
        let error = session.get::<u64>("a").expect_err("text is no number");
        assert!(!format!("{error} {error:?}").contains("sesame"));
        Outcome::Ok(())
    });
    assert_eq!(Browser::new(&app).get("/page").await.status, 200);
}

#[tokio::test]
async fn a_value_that_is_no_json_is_an_error_and_changes_nothing() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        let by_pair = std::collections::HashMap::from([((1, 2), 3)]);
        assert_eq!(
            kind(session.insert("a", &by_pair)),
            Some(ErrorKind::Serialize)
        );
        let outcome = session.update("a", move |_: Option<String>| by_pair.clone());
        assert_eq!(kind(outcome), Some(ErrorKind::Serialize));
        assert_eq!(text(&session, "a").as_deref(), Some("1"));
    });
    let mut browser = visitor(&app).await;
    assert_eq!(browser.get("/page").await.status, 200);
    assert_eq!(browser.get("/get/a").await.body, "\"1\"");
}

#[tokio::test]
async fn the_reserved_key_can_be_neither_read_nor_written() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        let reserved = Some(ErrorKind::ReservedKey);
        session.set_expiry(Expiry::Idle(std::time::Duration::from_hours(1)))?;
        assert_eq!(kind(session.insert("_session", 1)), reserved);
        assert_eq!(kind(session.remove::<Value>("_session")), reserved);
        assert_eq!(
            kind(session.update("_session", |n: Option<u8>| n)),
            reserved
        );
        assert_eq!(session.get::<Value>("_session")?, None);
        assert!(!session.contains_key("_session"));
        assert_eq!(session.keys(), ["a", "b"]);
        Outcome::Ok(())
    });
    let mut browser = visitor(&app).await;
    assert_eq!(browser.get("/page").await.status, 200);
}

#[tokio::test]
async fn remove_returns_the_value_and_deletes_it() {
    let site = Site::new().await;
    let mut browser = visitor(&site.app()).await;
    assert_eq!(browser.get("/remove/a").await.body, "\"1\"");
    assert_eq!(browser.get("/remove/a").await.body, "none");
    assert_eq!(browser.get("/keys").await.body, "b");
}

#[tokio::test]
async fn removing_the_last_value_keeps_the_session() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/a/1").await;
    assert!(browser.get("/remove/a").await.sets_no_cookie());
    assert_eq!(browser.get("/is_new").await.body, "false");
    assert_eq!(site.rows().text().await, "{}");
}

#[tokio::test]
async fn update_gets_the_stored_value_and_returns_its_own() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
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
    });
    let mut browser = visitor(&app).await;
    assert_eq!(browser.get("/page").await.status, 200);
    let expected = json!({"a": 17, "b": "2", "new": [1, 2]});
    assert_eq!(site.rows().document().await, expected);
}

#[tokio::test]
async fn an_update_starts_from_what_the_request_did_before() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.insert("n", 10)?;
        session.update("n", |n: Option<u8>| n.unwrap_or(0) + 1)?;
        session.update("n", |n: Option<u8>| n.unwrap_or(0) * 2)?;
        session.remove::<String>("a")?;
        session.update("a", |a: Option<String>| a.is_none())?;
        Outcome::Ok(())
    });
    visitor(&app).await.get("/page").await;
    let expected = json!({"a": true, "b": "2", "n": 22});
    assert_eq!(site.rows().document().await, expected);
}

#[tokio::test]
async fn keys_come_in_the_order_of_their_first_insert() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        for key in ["z", "a", "m", "z"] {
            session.insert(key, key)?;
        }
        Ok::<_, Error>(session.keys().join(","))
    });
    let mut browser = Browser::new(&app);
    assert_eq!(browser.get("/page").await.body, "z,a,m");
    assert_eq!(browser.get("/keys").await.body, "z,a,m");
}

#[tokio::test]
async fn emptiness_counts_the_keys_of_the_application() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        assert!(session.is_empty());
        session.set_expiry(Expiry::Idle(std::time::Duration::from_hours(1)))?;
        assert!(session.is_empty());
        session.insert("a", 1)?;
        assert!(!session.is_empty() && session.contains_key("a"));
        session.clear()?;
        assert!(session.is_empty() && !session.contains_key("a"));
        Outcome::Ok(())
    });
    assert_eq!(Browser::new(&app).get("/page").await.status, 200);
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
async fn clear_then_insert_keeps_only_what_was_inserted() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.insert("c", 3)?;
        session.clear()?;
        session.insert("d", 4)
    });
    visitor(&app).await.get("/page").await;
    assert_eq!(site.rows().text().await, r#"{"d":4}"#);
}

#[tokio::test]
async fn clear_keeps_an_expiry_that_was_set_before_it() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.set_expiry(Expiry::Idle(std::time::Duration::from_hours(1)))?;
        session.clear()
    });
    visitor(&app).await.get("/page").await;
    let left = site.rows().seconds_left().await;
    assert!((left - 3600.0).abs() < 60.0, "{left} s left");
}

#[tokio::test]
async fn clear_in_a_new_session_leaves_nothing() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.insert("a", 1)?;
        session.clear()
    });
    assert!(Browser::new(&app).get("/page").await.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn a_change_that_is_taken_back_is_none() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.insert("a", "other")?;
        session.insert("a", "1")?;
        session.insert("c", 3)?;
        session.remove::<u8>("c").map(drop)
    });
    let mut browser = visitor(&app).await;
    let before = site.rows().dump().await;
    browser.get("/page").await;
    assert_eq!(site.rows().dump().await, before);
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
async fn the_id_is_that_of_the_row_and_never_the_token() {
    let site = Site::new().await;
    let mut browser = visitor(&site.app()).await;
    let id = browser.get("/id").await.body;
    let stored = sqlx::query_scalar("SELECT id FROM session").fetch_one(&site.pool);
    let stored: String = stored.await.expect("one row");
    assert_eq!(id, stored);
    assert_ne!(id, browser.token());
    let thief = site.browser().with_cookie("__Host-id", &id);
    assert_eq!(thief.peek("/get/a").await.body, "none");
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
async fn two_cycles_in_one_request_are_one() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.cycle_id()?;
        session.cycle_id()
    });
    let mut browser = visitor(&app).await;
    assert_eq!(browser.get("/page").await.set_cookies().len(), 1);
    assert_eq!(browser.get("/keys").await.body, "a,b");
}

#[tokio::test]
async fn two_cycles_with_a_save_between_leave_the_last_token() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.cycle_id()?;
        session.save().await?;
        session.cycle_id()
    });
    let mut browser = visitor(&app).await;
    assert_eq!(browser.get("/page").await.set_cookies().len(), 1);
    assert_eq!(browser.get("/keys").await.body, "a,b");
    assert_eq!(site.rows().count().await, 1);
}

#[tokio::test]
async fn a_new_session_that_is_cycled_is_stored_once() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.cycle_id()?;
        session.insert("user", 7)
    });
    let mut browser = Browser::new(&app);
    assert_eq!(browser.get("/page").await.set_cookies().len(), 1);
    assert_eq!(site.rows().dump().await.len(), 1);
    assert_eq!(browser.get("/get/user").await.body, "7");
}

#[tokio::test]
async fn a_cycle_of_an_empty_new_session_leaves_nothing() {
    let site = Site::new().await;
    assert!(site.browser().get("/cycle").await.sets_no_cookie());
    assert_eq!(site.rows().dump().await.len(), 0);
}

#[tokio::test]
async fn a_cycle_takes_the_changes_before_and_after_it_along() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.insert("before", 1)?;
        session.cycle_id()?;
        session.insert("after", 2)
    });
    let mut browser = visitor(&app).await;
    browser.get("/page").await;
    assert_eq!(browser.get("/keys").await.body, "a,b,before,after");
}

#[tokio::test]
async fn an_insert_after_destroy_begins_a_new_session() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.destroy()?;
        assert!(session.is_empty() && session.is_new());
        session.insert("farewell", "bye")
    });
    let mut browser = visitor(&app).await;
    let old = browser.clone();
    assert_eq!(browser.get("/page").await.set_cookies().len(), 1);
    assert_ne!(browser.token(), old.token());
    assert_eq!(browser.get("/keys").await.body, "farewell");
    assert_eq!(old.peek("/keys").await.body, "");
    assert_eq!(site.rows().dump().await.len(), 1);
}

#[tokio::test]
async fn destroy_after_an_insert_in_a_new_session_leaves_nothing() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.insert("a", 1)?;
        session.destroy()
    });
    assert!(Browser::new(&app).get("/page").await.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn destroy_drops_what_was_done_before_it() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.insert("c", 3)?;
        session.destroy()?;
        session.insert("d", 4)
    });
    visitor(&app).await.get("/page").await;
    assert_eq!(site.rows().text().await, r#"{"d":4}"#);
}

#[tokio::test]
async fn a_cycle_after_destroy_brings_nothing_back() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.destroy()?;
        session.cycle_id()
    });
    let mut browser = visitor(&app).await;
    assert!(browser.get("/page").await.removes_the_cookie());
    assert_eq!(site.rows().dump().await.len(), 0);
}

#[tokio::test]
async fn destroy_after_a_cycle_ends_the_session() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.cycle_id()?;
        session.destroy()
    });
    let mut browser = visitor(&app).await;
    assert!(browser.get("/page").await.removes_the_cookie());
    assert_eq!(site.rows().dump().await.len(), 0);
}

#[tokio::test]
async fn destroy_after_a_saved_cycle_ends_the_session() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.cycle_id()?;
        session.save().await?;
        session.destroy()
    });
    let mut browser = visitor(&app).await;
    assert!(browser.get("/page").await.removes_the_cookie());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn destroying_twice_is_destroying_once() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.destroy()?;
        session.insert("c", 3)?;
        session.destroy()
    });
    let mut browser = visitor(&app).await;
    assert!(browser.get("/page").await.removes_the_cookie());
    assert_eq!(site.rows().dump().await.len(), 0);
}

#[tokio::test]
async fn a_session_begun_after_destroy_can_be_destroyed_too() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.destroy()?;
        session.insert("c", 3)?;
        session.save().await?;
        session.destroy()
    });
    let mut browser = visitor(&app).await;
    assert!(browser.get("/page").await.removes_the_cookie());
    assert_eq!(site.rows().dump().await.len(), 0);
}

#[tokio::test]
async fn changes_after_a_save_are_saved_too() {
    let site = Site::new().await;
    let rows = site.rows();
    let app = site.app_with(async move |session: Session| {
        session.insert("c", 3)?;
        session.save().await?;
        assert_eq!(rows.document().await["c"], 3);
        session.insert("d", 4)
    });
    visitor(&app).await.get("/page").await;
    let expected = json!({"a": "1", "b": "2", "c": 3, "d": 4});
    assert_eq!(site.rows().document().await, expected);
}

#[tokio::test]
async fn two_saves_store_what_was_done_once() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.update("n", |n: Option<u8>| n.unwrap_or(0) + 1)?;
        session.save().await?;
        session.save().await
    });
    let mut browser = Browser::new(&app);
    assert_eq!(browser.get("/page").await.set_cookies().len(), 1);
    assert_eq!(site.rows().text().await, r#"{"n":1}"#);
}

#[tokio::test]
async fn two_saves_at_once_store_what_was_done_once() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.update("n", |n: Option<u8>| n.unwrap_or(0) + 1)?;
        let (one, two) = tokio::join!(session.save(), session.save());
        one.and(two)
    });
    let mut browser = Browser::new(&app);
    assert_eq!(browser.get("/page").await.set_cookies().len(), 1);
    assert_eq!(site.rows().dump().await.len(), 1);
    assert_eq!(site.rows().text().await, r#"{"n":1}"#);
}

#[tokio::test]
async fn a_change_made_during_a_save_is_saved_after_it() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| {
        session.insert("c", 3)?;
        let meanwhile = async { session.update("n", |n: Option<u8>| n.unwrap_or(0) + 1) };
        let (saved, changed) = tokio::join!(session.save(), meanwhile);
        assert_eq!(session.get("n")?, Some(1));
        saved.and(changed.map(drop))
    });
    visitor(&app).await.get("/page").await;
    assert_eq!(site.rows().document().await["n"], 1);
}

#[tokio::test]
async fn a_save_of_nothing_is_nothing() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session| session.save().await);
    assert!(Browser::new(&app).get("/page").await.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
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
    let rows = site.rows();
    let app = site.app_with(async move |session: Session| {
        end_elsewhere(&rows).await;
        session.insert("c", 3)?;
        assert_eq!(kind(session.save().await), Some(ErrorKind::Ended));
        assert!(session.is_new() && session.is_empty());
        Outcome::Ok(())
    });
    let mut browser = visitor(&app).await;
    let reply = browser.get("/page").await;
    assert_eq!(reply.status, 200, "the handler knows and has decided");
    assert!(reply.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn a_session_that_ended_is_not_begun_anew_by_the_same_request() {
    let site = Site::new().await;
    let rows = site.rows();
    let app = site.app_with(async move |session: Session| {
        end_elsewhere(&rows).await;
        session.insert("c", 3)?;
        assert_eq!(kind(session.save().await), Some(ErrorKind::Ended));
        session.insert("d", 4)
    });
    let browser = visitor(&app).await;
    assert_eq!(browser.peek("/page").await.status, 503);
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn a_destroy_of_a_session_that_ended_is_as_good() {
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
async fn a_cycle_of_a_session_that_ended_is_a_503() {
    let site = Site::new().await;
    let rows = site.rows();
    let app = site.app_with(async move |session: Session| {
        end_elsewhere(&rows).await;
        session.cycle_id()
    });
    let browser = visitor(&app).await;
    let reply = browser.peek("/page").await;
    assert_eq!(reply.status, 503);
    assert!(reply.sets_no_cookie());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn a_save_that_failed_leaves_the_session_as_it_is_stored() {
    let site = Arc::new(Site::new().await);
    let inside = Arc::clone(&site);
    let app = site.app_with(async move |session: Session| {
        inside.refuse("UPDATE").await;
        session.insert("lost", 1)?;
        assert_eq!(kind(session.save().await), Some(ErrorKind::Database));
        inside.refuse_no_more("UPDATE").await;
        assert_eq!(session.keys(), ["a", "b"]);
        session.insert("c", 3)
    });
    let mut browser = visitor(&app).await;
    assert_eq!(browser.get("/page").await.status, 200);
    assert_eq!(browser.get("/keys").await.body, "a,b,c");
}

#[tokio::test]
async fn a_first_save_that_failed_leaves_the_session_new() {
    let site = Arc::new(Site::new().await);
    let inside = Arc::clone(&site);
    let app = site.app_with(async move |session: Session| {
        inside.refuse("INSERT").await;
        session.insert("lost", 1)?;
        assert_eq!(kind(session.save().await), Some(ErrorKind::Database));
        inside.refuse_no_more("INSERT").await;
        assert!(session.is_new() && session.is_empty());
        session.insert("c", 3)
    });
    let mut browser = Browser::new(&app);
    assert_eq!(browser.get("/page").await.status, 200);
    assert_eq!(browser.get("/keys").await.body, "c");
}

#[tokio::test]
async fn an_end_that_could_not_be_saved_stays_owed() {
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
async fn an_end_that_is_never_saved_is_no_success() {
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

#[tokio::test]
async fn a_logout_under_a_token_that_was_replaced_is_a_503() {
    let site = Site::new().await;
    let mut browser = visitor(&site.app()).await;
    let late = browser.clone();
    browser.get("/cycle").await;
    let reply = late.peek("/destroy").await;
    assert_eq!(reply.status, 503, "the session goes on under its new id");
    assert!(reply.sets_no_cookie());
    assert_eq!(browser.get("/keys").await.body, "a,b");
}

#[tokio::test]
async fn a_request_with_two_sessions_can_neither_change_nor_end_them() {
    let site = Site::new().await;
    let (ann, bob) = (visitor(&site.app()).await, visitor(&site.app()).await);
    let mut both = ann.clone();
    both.jar.extend(bob.jar.clone());
    let before = site.rows().dump().await;
    for page in ["/insert/a/9", "/clear", "/cycle", "/destroy"] {
        let reply = both.peek(page).await;
        assert_eq!(reply.status, 400, "{page}");
        assert!(reply.sets_no_cookie(), "{page}");
    }
    assert_eq!(both.peek("/keys").await.body, "");
    assert_eq!(site.rows().dump().await, before);
}

#[tokio::test]
async fn clones_are_handles_of_one_session() {
    let site = Site::new().await;
    let app = site.app_with(async |session: Session, twin: Session| {
        let clone = session.clone();
        clone.insert("c", 3)?;
        assert_eq!(session.get("c")?, Some(3));
        session.save().await?;
        assert_eq!(clone.id(), session.id());
        twin.clear()?;
        assert!(session.is_empty());
        Outcome::Ok(())
    });
    let mut browser = Browser::new(&app);
    assert_eq!(browser.get("/page").await.set_cookies().len(), 1);
    assert_eq!(site.rows().text().await, "{}");
}

#[tokio::test]
async fn two_extractors_load_the_row_once() {
    let site = Site::new().await;
    let rows = site.rows();
    let app = site.app_with(async move |lazy: LazySession, session: Session| {
        end_elsewhere(&rows).await;
        assert_eq!(lazy.load().await?.keys(), session.keys());
        Outcome::Ok(())
    });
    assert_eq!(visitor(&app).await.get("/page").await.status, 200);
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
async fn a_session_whose_save_failed_is_closed_too() {
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

#[tokio::test]
async fn what_other_writers_stored_survives_letter_by_letter() {
    let site = Site::new().await;
    let mut browser = visitor(&site.app()).await;
    let odd = r#"{ "big":123456789012345678901234567890,"nul":"\u0000","lone":"\ud800"}"#;
    site.rows()
        .execute(&format!("UPDATE TABLE SET session = '{odd}'"))
        .await;
    browser.get("/insert/a/1").await;
    let stored = sqlx::query_scalar("SELECT session::text FROM session").fetch_one(&site.pool);
    let stored: String = stored.await.expect("one row");
    let expected =
        r#"{"big":123456789012345678901234567890,"nul":"\u0000","lone":"\ud800","a":"1"}"#;
    assert_eq!(stored, expected);
}

#[tokio::test]
async fn the_headers_and_the_session_can_be_extracted_in_any_order() {
    let site = Site::new().await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let app = site.app_with(
        async move |session: Session, _: HeaderMap, optional: Option<Session>| {
            let optional = optional.expect("the layer is there");
            log.lock()
                .expect("no panic")
                .push(optional.id() == session.id());
        },
    );
    visitor(&app).await.get("/page").await;
    assert_eq!(*seen.lock().expect("no panic"), [true]);
}

/// A handler may give up on `save` at any moment, say by a timeout.
#[tokio::test]
async fn a_save_that_the_handler_gave_up_on_still_gives_its_cookie() {
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
