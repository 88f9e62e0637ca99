//! Requests of one session at the same moment, in one process and in two.

use std::sync::Arc;

use axum_pg_session_tower_sessions::PostgresStore;
use serde_json::json;
use tokio::{sync::Barrier, task::JoinSet};

use super::{
    begun, session,
    support::site,
    tower_sessions::{Session, SessionStore, session::Id},
};

/// A request that has loaded its session.
async fn request(sessions: &PostgresStore, id: Id) -> Session {
    let session = session(sessions, Some(id));
    session.get_value("").await.expect("a load");
    session
}

async fn get(sessions: &PostgresStore, id: Id, key: &str) -> Option<u64> {
    session(sessions, Some(id)).get(key).await.expect("a load")
}

#[tokio::test]
async fn different_keys_of_two_requests_both_survive() {
    let site = site().await;
    let sessions = site.sessions();
    let id = begun(
        &sessions,
        &[("a", json!(1)), ("b", json!(1)), ("c", json!(1))],
    )
    .await;
    let (one, two) = (request(&sessions, id).await, request(&sessions, id).await);
    one.insert("a", 2).await.expect("loaded");
    one.insert("new", 1).await.expect("loaded");
    two.remove_value("b").await.expect("loaded");
    two.insert("c", json!({"x": 1})).await.expect("loaded");
    one.save().await.expect("a save");
    two.save().await.expect("a save");
    assert_eq!(site.stored().await[0].0, r#"{"a":2,"c":{"x":1},"new":1}"#);
}

#[tokio::test]
async fn of_two_values_for_one_key_the_later_save_wins() {
    let site = site().await;
    let sessions = site.sessions();
    let id = begun(&sessions, &[("a", json!(1))]).await;
    let (one, two) = (request(&sessions, id).await, request(&sessions, id).await);
    one.insert("a", 2).await.expect("loaded");
    two.insert("a", 3).await.expect("loaded");
    two.save().await.expect("a save");
    one.save().await.expect("a save");
    assert_eq!(get(&sessions, id, "a").await, Some(2));
}

#[tokio::test]
async fn fifty_keys_at_once_all_survive_in_two_processes() {
    let site = site().await;
    let here = site.sessions();
    let there = PostgresStore::new(site.another_process().await);
    let id = begun(&here, &[("first", json!(1))]).await;
    let all_have_loaded = Arc::new(Barrier::new(50));
    let mut requests = JoinSet::new();
    for n in 0..50 {
        let sessions = if n % 2 == 0 {
            here.clone()
        } else {
            there.clone()
        };
        let all_have_loaded = Arc::clone(&all_have_loaded);
        requests.spawn(async move {
            let session = request(&sessions, id).await;
            all_have_loaded.wait().await;
            session
                .insert(&format!("key {n}"), n)
                .await
                .expect("loaded");
            session.save().await.expect("a save");
        });
    }
    while let Some(done) = requests.join_next().await {
        done.expect("a request");
    }
    for n in 0..50 {
        assert_eq!(get(&here, id, &format!("key {n}")).await, Some(n));
    }
    assert_eq!(get(&here, id, "first").await, Some(1));
}

/// The application sees the session as tower-sessions has it: with what the request itself
/// loaded and changed.
#[tokio::test]
async fn a_request_saves_twice_and_keeps_what_others_changed() {
    let site = site().await;
    let sessions = site.sessions();
    // A new session, too: its first save is an insert.
    let one = session(&sessions, None);
    one.insert("a", 1).await.expect("no load");
    one.save().await.expect("a row");
    let id = one.id().expect("an id");
    let two = request(&sessions, id).await;
    two.insert("b", 2).await.expect("loaded");
    two.save().await.expect("a save");
    one.insert("c", 3).await.expect("loaded");
    one.save().await.expect("a save");
    one.insert("d", 4).await.expect("loaded");
    one.save().await.expect("a save");
    assert_eq!(site.stored().await[0].0, r#"{"a":1,"b":2,"c":3,"d":4}"#);
}

/// Such as a mark that lasts for a part of the request.
#[tokio::test]
async fn a_request_saves_twice_and_sets_back_what_it_changed() {
    let site = site().await;
    let sessions = site.sessions();
    let id = begun(
        &sessions,
        &[("a", json!(0)), ("b", json!(1)), ("c", json!(1))],
    )
    .await;
    // A new session, too: its first save is an insert.
    let new = session(&sessions, None);
    new.insert("a", 0).await.expect("no load");
    new.insert("b", 1).await.expect("no load");
    new.insert("c", 1).await.expect("no load");
    new.save().await.expect("a row");
    for one in [request(&sessions, id).await, new] {
        let id = one.id().expect("an id");
        one.insert("busy", true).await.expect("loaded");
        one.insert("a", 1).await.expect("loaded");
        one.remove_value("b").await.expect("loaded");
        one.save().await.expect("a save");
        assert_eq!(get(&sessions, id, "a").await, Some(1));
        let two = request(&sessions, id).await;
        two.insert("c", 2).await.expect("loaded");
        two.save().await.expect("a save");
        one.remove_value("busy").await.expect("loaded");
        one.insert("a", 0).await.expect("loaded");
        one.insert("b", 1).await.expect("loaded");
        one.save().await.expect("a save");
        one.save().await.expect("nothing to save");
    }
    for (stored, _) in site.stored().await {
        let stored: serde_json::Value = serde_json::from_str(&stored).expect("JSON");
        assert_eq!(stored, json!({"a": 0, "b": 1, "c": 2}));
    }
}

#[tokio::test]
async fn a_cleared_session_loses_what_others_added() {
    let site = site().await;
    let sessions = site.sessions();
    let id = begun(&sessions, &[("a", json!(1))]).await;
    for is_loaded in [true, false] {
        let clearing = session(&sessions, Some(id));
        if is_loaded {
            clearing.get_value("a").await.expect("a load");
        }
        let other = request(&sessions, id).await;
        other.insert("b", 2).await.expect("loaded");
        other.save().await.expect("a save");
        clearing.clear().await;
        clearing.insert("c", 3).await.expect("cleared");
        clearing.save().await.expect("a save");
        assert_eq!(site.stored().await[0].0, r#"{"c":3}"#);
    }
}

#[tokio::test]
async fn a_destroyed_session_is_not_revived_by_a_late_save() {
    let site = site().await;
    let here = site.sessions();
    let there = PostgresStore::new(site.another_process().await);
    for (late, destroying) in [(&here, &here), (&here, &there)] {
        let id = begun(&here, &[("a", json!(1))]).await;
        let saves = request(late, id).await;
        let clears = session(late, Some(id));
        let touches = request(late, id).await;
        request(destroying, id)
            .await
            .flush()
            .await
            .expect("a deletion");
        saves.insert("a", 2).await.expect("loaded");
        saves
            .save()
            .await
            .expect("no error for a visitor who signed out");
        clears.clear().await;
        clears.insert("a", 2).await.expect("cleared");
        clears
            .save()
            .await
            .expect("no error for a visitor who signed out");
        touches
            .save()
            .await
            .expect("no error for a visitor who signed out");
        assert_eq!(site.rows().await, 0);
        assert_eq!(get(&here, id, "a").await, None);
    }
}

#[tokio::test]
async fn saves_and_a_logout_at_one_moment_leave_no_row() {
    let site = site().await;
    let here = site.sessions();
    let there = PostgresStore::new(site.another_process().await);
    for _ in 0..10 {
        let id = begun(&here, &[("a", json!(1))]).await;
        let start = Arc::new(Barrier::new(9));
        let mut requests = JoinSet::new();
        for n in 0..8 {
            let sessions = if n % 2 == 0 {
                here.clone()
            } else {
                there.clone()
            };
            let start = Arc::clone(&start);
            requests.spawn(async move {
                let session = request(&sessions, id).await;
                start.wait().await;
                session.insert("a", n).await.expect("loaded");
                session.save().await.expect("a save");
            });
        }
        let (sessions, start) = (there.clone(), Arc::clone(&start));
        requests.spawn(async move {
            let session = request(&sessions, id).await;
            start.wait().await;
            session.flush().await.expect("a deletion");
        });
        while let Some(done) = requests.join_next().await {
            done.expect("a request");
        }
        assert_eq!(site.rows().await, 0);
    }
}

/// tower-sessions drops the future of a request whose client is gone.
#[tokio::test]
async fn a_session_whose_request_is_gone_before_it_has_its_id_leaves_no_row() {
    let site = site().await;
    let sessions = site.sessions();
    site.execute(
        "CREATE TABLE deleted (id text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN INSERT INTO deleted VALUES (OLD.id); RETURN NULL; END';
         CREATE TRIGGER note AFTER DELETE ON session FOR EACH ROW EXECUTE FUNCTION note()",
    )
    .await;
    // Every insert waits for the end of this transaction.
    let mut blocking = site.pool.begin().await.expect("a transaction");
    sqlx::raw_sql("LOCK TABLE session IN SHARE MODE")
        .execute(&mut *blocking)
        .await
        .expect("a lock");
    let mut record = super::record(&[("a", json!(1))]);
    let id = record.id;
    {
        let creating = SessionStore::create(&sessions, &mut record);
        tokio::pin!(creating);
        let waiting = site.waits_for_a_lock();
        tokio::select! {
            _ = &mut creating => panic!("it waits for the lock"),
            () = waiting => {}
        }
    }
    blocking.rollback().await.expect("an unlocked table");
    // The insert is carried out, and then its row is deleted.
    site.until(async || {
        let sql = "SELECT EXISTS (SELECT FROM deleted)";
        site.is_true(sql).await
    })
    .await;
    assert_eq!(site.rows().await, 0);
    assert!(
        SessionStore::load(&sessions, &id)
            .await
            .expect("a load")
            .is_none()
    );
}
