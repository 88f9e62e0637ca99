//! The user of a session, in the column `user_id`.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum_pg_session::{
    Ending, PgSessionStore,
    SessionEventKind::{Began, Ended, SignedIn},
    SessionLimitPolicy,
};
use axum_pg_session_tower_sessions::PostgresStore;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    begun, session,
    support::{Site, site},
    tower_sessions::{Session, SessionStore, session::Id},
};

/// As axum-login stores it.
const KEY: &str = "axum-login.data";

fn user(id: impl Into<Value>) -> Value {
    json!({"user_id": id.into(), "auth_hash": [1, 2, 3]})
}

async fn signed_in(sessions: &PostgresStore, id: impl Into<Value>) -> Id {
    begun(sessions, &[(KEY, user(id)), ("cart", json!([7]))]).await
}

async fn users(site: &Site) -> Vec<Option<String>> {
    site.stored()
        .await
        .into_iter()
        .map(|(_, user)| user)
        .collect()
}

async fn count(store: &PgSessionStore, user: &str) -> u64 {
    store.user(user).count().await.expect("a number")
}

fn limited(site: &Site, most: u32, policy: SessionLimitPolicy) -> PostgresStore {
    let most = NonZeroU32::new(most).expect("not zero");
    PostgresStore::new(site.store.clone().max_sessions_per_user(most, policy))
}

/// A session that a first request saved, with the login of a second one that is not saved yet.
async fn unsaved_login(sessions: &PostgresStore, user: Value) -> (Session, Id) {
    let id = begun(sessions, &[("a", json!(1))]).await;
    let login = session(sessions, Some(id));
    login.insert(KEY, user).await.expect("a load");
    (login, id)
}

#[tokio::test]
async fn the_user_of_axum_login_is_the_user_of_the_row() {
    let site = site().await;
    let sessions = site.sessions();
    for (id, text) in [
        (json!(7), "7"),
        (json!(u64::MAX), "18446744073709551615"),
        (json!(-1), "-1"),
        (json!("ada"), "ada"),
        (
            json!("0d7a8f4e-0000-4000-8000-000000000001"),
            "0d7a8f4e-0000-4000-8000-000000000001",
        ),
    ] {
        signed_in(&sessions, id).await;
        assert_eq!(count(&site.store, text).await, 1, "{text}");
        assert_eq!(site.store.user(text).list().await.expect("a list").len(), 1);
    }
}

#[tokio::test]
async fn a_login_that_its_own_request_takes_back_leaves_no_user() {
    let site = site().await;
    let sessions = site.sessions();
    let (login, _) = unsaved_login(&sessions, user(7)).await;
    login.save().await.expect("a save");
    assert_eq!(count(&site.store, "7").await, 1);
    login.remove_value(KEY).await.expect("loaded");
    login.save().await.expect("a save");
    assert_eq!(
        site.stored().await,
        [(r#"{"a":1}"#.to_owned(), None)],
        "the session has no user"
    );
}

#[tokio::test]
async fn what_is_no_id_is_no_user() {
    let site = site().await;
    let sessions = site.sessions();
    for id in [
        Value::Null,
        json!(true),
        json!({"a": 1}),
        json!([1]),
        json!(""),
        json!(1.5),
    ] {
        signed_in(&sessions, id).await;
    }
    begun(&sessions, &[(KEY, json!("no object"))]).await;
    begun(&sessions, &[("user_id", json!(7))]).await;
    assert_eq!(users(&site).await, vec![None; 8]);
}

#[tokio::test]
async fn a_user_id_that_cannot_be_stored_is_an_error() {
    let site = site().await;
    let sessions = site.sessions();
    let id = begun(&sessions, &[("kept", json!(1))]).await;
    for bad in [
        "x".repeat(1025),
        "a\u{0}b".to_owned(),
        "admin\u{1f}1".to_owned(),
    ] {
        let session = session(&sessions, Some(id));
        session.insert(KEY, user(bad)).await.expect("a load");
        let error = session.save().await.expect_err("no user");
        assert!(error.to_string().contains("1,024 bytes"), "{error}");
    }
    assert_eq!(site.stored().await, [(r#"{"kept":1}"#.to_owned(), None)]);
}

#[tokio::test]
async fn another_path_names_another_user() {
    let site = site().await;
    for (path, members) in [
        (vec!["who"], json!({"who": 1})),
        (vec!["a", "b", "c"], json!({"a": {"b": {"c": "1"}}})),
        (vec!["_session"], json!({"_session": 1})),
    ] {
        let sessions = site.sessions().user_path(path);
        let members: Vec<_> = members
            .as_object()
            .expect("an object")
            .clone()
            .into_iter()
            .collect();
        let members: Vec<_> = members
            .iter()
            .map(|(key, value)| (&**key, value.clone()))
            .collect();
        begun(&sessions, &members).await;
    }
    begun(&site.sessions().user_path([""; 0]), &[(KEY, user(1))]).await;
    assert_eq!(count(&site.store, "1").await, 3);
    assert_eq!(site.rows().await, 4);
}

#[tokio::test]
async fn the_user_changes_and_leaves_with_the_session() {
    let site = site().await;
    let sessions = site.sessions();
    let id = begun(&sessions, &[("cart", json!([7]))]).await;
    assert_eq!(users(&site).await, [None]);
    for next in [Some("ada"), Some("eve"), None, Some("ada")] {
        let session = session(&sessions, Some(id));
        match next {
            Some(next) => session.insert(KEY, user(next)).await.expect("a load"),
            None => drop(session.remove_value(KEY).await.expect("a load")),
        }
        session.insert("last", next).await.expect("loaded");
        session.save().await.expect("a save");
        assert_eq!(users(&site).await, [next.map(str::to_owned)]);
        let now = super::session(&sessions, Some(id));
        assert_eq!(
            now.get_value("last").await.expect("a load"),
            Some(json!(next))
        );
        assert_eq!(now.get("cart").await.expect("a load"), Some([7]));
    }
    let session = session(&sessions, Some(id));
    session.clear().await;
    session.save().await.expect("a save");
    assert_eq!(site.stored().await, [("{}".to_owned(), None)]);
}

/// Its login is a new moment, as by `Session::login`: the oldest session is found by it.
#[tokio::test]
async fn a_change_of_the_user_is_a_login() {
    let site = site().await;
    let sessions = site.sessions();
    let id = begun(&sessions, &[("cart", json!([7]))]).await;
    site.execute("UPDATE session SET created = now() - interval '1 day'")
        .await;
    let is_new = "SELECT created > now() - interval '1 hour' FROM session";
    let is_new = async || -> bool {
        sqlx::query_scalar(is_new)
            .fetch_one(&site.pool)
            .await
            .expect("one row")
    };
    let first = session(&sessions, Some(id));
    first.insert("cart", [8]).await.expect("a load");
    first.save().await.expect("a save");
    assert!(!is_new().await);
    first.insert(KEY, user("ada")).await.expect("loaded");
    first.save().await.expect("a save");
    assert!(is_new().await);
}

#[tokio::test]
async fn what_others_changed_survives_a_change_of_the_user() {
    let site = site().await;
    let sessions = site.sessions();
    let id = begun(&sessions, &[("a", json!(1))]).await;
    let (login, other) = (session(&sessions, Some(id)), session(&sessions, Some(id)));
    login.insert(KEY, user("ada")).await.expect("a load");
    other.insert("b", 2).await.expect("a load");
    let third = session(&sessions, Some(id));
    third.insert("c", 3).await.expect("a load");
    other.save().await.expect("a save");
    login.save().await.expect("a save");
    third.save().await.expect("a save");
    assert_eq!(users(&site).await, [Some("ada".to_owned())]);
    for (key, value) in [("a", 1), ("b", 2), ("c", 3)] {
        let now = session(&sessions, Some(id));
        assert_eq!(now.get(key).await.expect("a load"), Some(value));
    }
}

/// axum-login writes the hash of a new password beside the user. The last save wins the key,
/// and so it wins the column.
#[tokio::test]
async fn the_user_of_the_row_is_always_the_user_of_the_document() {
    let site = site().await;
    let sessions = site.sessions();
    let id = signed_in(&sessions, "ada").await;
    let (password, other) = (session(&sessions, Some(id)), session(&sessions, Some(id)));
    let new_hash = json!({"user_id": "ada", "auth_hash": [4]});
    password
        .insert(KEY, new_hash.clone())
        .await
        .expect("a load");
    other.insert(KEY, user("eve")).await.expect("a load");
    other.save().await.expect("a save");
    assert_eq!(users(&site).await, [Some("eve".to_owned())]);
    password.save().await.expect("a save");
    let now = session(&sessions, Some(id))
        .get_value(KEY)
        .await
        .expect("a load");
    assert_eq!(now, Some(new_hash));
    assert_eq!(users(&site).await, [Some("ada".to_owned())]);
}

#[tokio::test]
async fn the_other_sessions_of_a_user_are_ended() {
    let site = site().await;
    let sessions = site.sessions();
    let this = signed_in(&sessions, "ada").await;
    let other = signed_in(&sessions, "ada").await;
    let eve = signed_in(&sessions, "eve").await;
    let late = session(&sessions, Some(other));
    late.insert("cart", [8]).await.expect("a load");

    let handle = sessions.handle(this);
    assert_eq!(
        site.store
            .user("ada")
            .destroy_others(&handle)
            .await
            .expect("one"),
        1
    );
    late.save()
        .await
        .expect("no error for a visitor who was signed out");
    for (id, is_there) in [(this, true), (other, false), (eve, true)] {
        let loaded = SessionStore::load(&sessions, &id).await.expect("a load");
        assert_eq!(loaded.is_some(), is_there);
    }
    assert_eq!(site.store.user("ada").destroy_all().await.expect("one"), 1);
    assert!(
        SessionStore::load(&sessions, &this)
            .await
            .expect("a load")
            .is_none()
    );
}

#[tokio::test]
async fn the_limit_of_a_user_ends_the_oldest_session() {
    let site = site().await;
    let sessions = limited(&site, 2, SessionLimitPolicy::EndOldest);
    let ids = [
        signed_in(&sessions, 7).await,
        signed_in(&sessions, 7).await,
        signed_in(&sessions, 7).await,
    ];
    let eve = signed_in(&sessions, 8).await;
    // A session that was there before signs in, without a new id.
    let visitor = begun(&sessions, &[("a", json!(1))]).await;
    let signing_in = session(&sessions, Some(visitor));
    signing_in.insert(KEY, user(7)).await.expect("a load");
    signing_in.save().await.expect("a save");
    let live = [
        (ids[0], false),
        (ids[1], false),
        (ids[2], true),
        (eve, true),
        (visitor, true),
    ];
    for (id, is_there) in live {
        let loaded = SessionStore::load(&sessions, &id).await.expect("a load");
        assert_eq!(loaded.is_some(), is_there);
    }
    // A save of a user who is signed in is no login.
    signing_in.insert("b", 2).await.expect("loaded");
    signing_in.save().await.expect("a save");
    assert_eq!(count(&site.store, "7").await, 2);
}

#[tokio::test]
async fn the_limit_holds_for_logins_at_one_moment_in_two_processes() {
    let site = site().await;
    let most = NonZeroU32::new(3).expect("not zero");
    let limit = |store: PgSessionStore| {
        PostgresStore::new(store.max_sessions_per_user(most, SessionLimitPolicy::EndOldest))
    };
    let here = limit(site.store.clone());
    let there = limit(site.another_process().await);
    let visitors = visitors(&here, 8).await;
    let mut logins = JoinSet::new();
    for (n, visitor) in visitors.into_iter().enumerate() {
        let sessions = if n % 2 == 0 {
            here.clone()
        } else {
            there.clone()
        };
        let new = sessions.clone();
        logins.spawn(async move {
            let session = session(&sessions, Some(visitor));
            session.insert(KEY, user("ada")).await.expect("a load");
            session.save().await.expect("a save");
        });
        logins.spawn(async move {
            signed_in(&new, "ada").await;
        });
    }
    while let Some(done) = logins.join_next().await {
        done.expect("a login");
    }
    assert_eq!(count(&site.store, "ada").await, 3);
}

async fn visitors(sessions: &PostgresStore, visitors: usize) -> Vec<Id> {
    let mut ids = Vec::new();
    for _ in 0..visitors {
        ids.push(begun(sessions, &[("a", json!(1))]).await);
    }
    ids
}

#[tokio::test]
async fn a_login_that_the_limit_refuses_is_an_error_and_changes_nothing() {
    let site = site().await;
    let sessions = limited(&site, 1, SessionLimitPolicy::Refuse);
    signed_in(&sessions, 7).await;
    let visitor = begun(&sessions, &[("a", json!(1))]).await;
    let before = site.stored().await;
    let refused = session(&sessions, Some(visitor));
    refused.insert(KEY, user(7)).await.expect("a load");
    refused.save().await.expect_err("one session is there");
    let new = session(&sessions, None);
    new.insert(KEY, user(7)).await.expect("no load");
    new.save().await.expect_err("one session is there");
    assert_eq!(site.stored().await, before);
}

/// The row stays, but not the socket of the former user.
#[tokio::test]
async fn another_user_of_a_session_ends_its_watches_and_is_reported() {
    let site = site().await;
    let log: Arc<Mutex<Vec<_>>> = Arc::default();
    let events = Arc::clone(&log);
    // Longer than the test, so only this process can report an end.
    let store = site.store.clone().watch_interval(Duration::from_secs(30));
    let store = store.on_event(move |event| {
        let user = event.user_id().map(str::to_owned);
        events.lock().expect("no panic").push((event.kind(), user));
    });
    let take = || std::mem::take(&mut *log.lock().expect("no panic"));
    let sessions = PostgresStore::new(store.clone());
    let (ada, bob) = (Some("7".to_owned()), Some("8".to_owned()));
    let replaced = Ended(Ending::Replaced);

    let id = signed_in(&sessions, 7).await;
    assert_eq!(take(), [(SignedIn, ada.clone())]);
    for next in [Some(8), None] {
        let handle = sessions.handle(id);
        let ended = store.watch(&handle).await.expect("a load");
        let session = session(&sessions, Some(id));
        match next {
            Some(next) => session.insert(KEY, user(next)).await.expect("a load"),
            None => drop(session.remove_value(KEY).await.expect("a load")),
        }
        session.save().await.expect("a save");
        let ended = tokio::time::timeout(Duration::from_secs(20), ended);
        assert_eq!(ended.await.expect("at once"), Ending::Replaced);
    }
    let expected = [(replaced, ada), (SignedIn, bob.clone()), (replaced, bob)];
    assert_eq!(take(), expected);

    begun(&sessions, &[("a", json!(1))]).await;
    assert_eq!(take(), [(Began, None)]);
}

#[tokio::test]
async fn a_user_of_one_realm_is_not_a_user_of_another() {
    let site = site().await;
    let admin = site.store.clone().realm("admin");
    let (shop, admins) = (site.sessions(), PostgresStore::new(admin.clone()));
    let here = signed_in(&shop, 1).await;
    let there = signed_in(&admins, 1).await;
    assert_eq!(
        (count(&site.store, "1").await, count(&admin, "1").await),
        (1, 1)
    );
    // A change of the user stays in its realm, too.
    let session = session(&admins, Some(there));
    session.insert(KEY, user(2)).await.expect("a load");
    session.save().await.expect("a save");
    assert_eq!(
        (count(&site.store, "2").await, count(&admin, "2").await),
        (0, 1)
    );
    assert_eq!(site.store.user("1").destroy_all().await.expect("one"), 1);
    assert!(
        SessionStore::load(&shop, &here)
            .await
            .expect("a load")
            .is_none()
    );
    assert!(
        SessionStore::load(&admins, &there)
            .await
            .expect("a load")
            .is_some()
    );
    let this = admins.handle(there);
    assert_eq!(
        admin.user("2").destroy_others(&this).await.expect("none"),
        0
    );
}

#[tokio::test]
async fn a_table_without_users_keeps_the_sessions_all_the_same() {
    let site = site().await;
    site.execute("ALTER TABLE session DROP user_id, DROP created, DROP last_seen, DROP device")
        .await;
    let sessions = site.sessions();
    let id = signed_in(&sessions, 7).await;
    let changed = session(&sessions, Some(id));
    changed.insert(KEY, user(8)).await.expect("a load");
    changed.save().await.expect("a save");
    let found = session(&sessions, Some(id))
        .get_value(KEY)
        .await
        .expect("a load");
    assert_eq!(found, Some(user(8)));
}

/// A foreign key to the users of the application.
#[tokio::test]
async fn a_user_who_was_deleted_is_not_signed_in() {
    let site = site().await;
    site.execute(
        "CREATE TABLE users (id text PRIMARY KEY); INSERT INTO users VALUES ('7');
         ALTER TABLE session ADD FOREIGN KEY (user_id) REFERENCES users ON DELETE CASCADE",
    )
    .await;
    let sessions = site.sessions();
    let id = signed_in(&sessions, 7).await;
    let gone = session(&sessions, None);
    gone.insert(KEY, user(8)).await.expect("no load");
    gone.save().await.expect_err("no such user");
    let changed = session(&sessions, Some(id));
    changed.insert(KEY, user(8)).await.expect("a load");
    changed.save().await.expect_err("no such user");
    assert_eq!(users(&site).await, [Some("7".to_owned())]);
    site.execute("DELETE FROM users").await;
    assert_eq!(site.rows().await, 0);
}

/// So two logins of a user follow each other, and no two logins can deadlock.
#[tokio::test]
async fn a_login_locks_its_user_before_its_row() {
    let site = site().await;
    let sessions = limited(&site, 1, SessionLimitPolicy::EndOldest);
    let (login, _) = unsaved_login(&sessions, user(7)).await;
    let mut blocking = site.pool.begin().await.expect("a transaction");
    sqlx::raw_sql("SELECT FROM session FOR UPDATE")
        .execute(&mut *blocking)
        .await
        .expect("locks");
    let saving = tokio::spawn(async move { login.save().await });
    let has_locked = "SELECT bool_and(EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = a.pid \
                      AND locktype = 'advisory' AND granted)) FROM pg_stat_activity AS a \
                      WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let has_locked = loop {
        let waiting: Option<bool> = sqlx::query_scalar(has_locked)
            .fetch_one(&mut *blocking)
            .await
            .expect("a truth value");
        if let Some(has_locked) = waiting {
            break has_locked;
        }
    };
    assert!(has_locked);
    blocking.rollback().await.expect("unlocked rows");
    saving.await.expect("a task").expect("a save");
}

/// The commit reaches the server, and its outcome does not come back.
#[tokio::test]
async fn a_login_whose_commit_is_in_doubt_is_made_once() {
    let site = site().await;
    site.execute(
        "CREATE TABLE logins (id text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
             PERFORM pg_advisory_xact_lock_shared(4711);
             INSERT INTO logins VALUES (NEW.id); RETURN NULL; END';
         CREATE CONSTRAINT TRIGGER note AFTER UPDATE ON session
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note()",
    )
    .await;
    let proxy = site.proxy().await;
    let sessions = PostgresStore::new(PgSessionStore::new(proxy.pool().await));
    let (login, _) = unsaved_login(&sessions, user(7)).await;

    let mut blocking = site.pool.acquire().await.expect("a connection");
    sqlx::raw_sql("SELECT pg_advisory_lock(4711)")
        .execute(&mut *blocking)
        .await
        .expect("a lock");
    let saving = tokio::spawn(async move { login.save().await });
    loop {
        let committing = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() \
                          AND wait_event = 'advisory' AND query ILIKE 'commit%'";
        let committing = sqlx::query_scalar::<_, i32>(committing);
        let before = committing
            .fetch_optional(&mut *blocking)
            .await
            .expect("a pid");
        let Some(pid) = before else { continue };
        proxy.cut();
        let is_there = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 \
                        AND wait_event = 'advisory')";
        let is_there = sqlx::query_scalar(is_there)
            .bind(pid)
            .fetch_one(&mut *blocking)
            .await;
        if is_there.expect("a truth value") {
            break;
        }
    }
    sqlx::raw_sql("SELECT pg_advisory_unlock(4711)")
        .execute(&mut *blocking)
        .await
        .expect("an unlock");
    saving.await.expect("a task").expect("a save");
    assert_eq!(users(&site).await, [Some("7".to_owned())]);
    let logins: i64 = sqlx::query_scalar("SELECT count(*) FROM logins")
        .fetch_one(&site.pool)
        .await
        .expect("a number");
    assert_eq!(logins, 1);
}

/// The server closes the connection in the middle of the login's transaction.
#[tokio::test]
async fn a_login_whose_connection_is_lost_is_made_once_and_wholly() {
    let site = site().await;
    let sessions = limited(&site, 2, SessionLimitPolicy::EndOldest);
    let old = signed_in(&sessions, 7).await;
    let (login, id) = unsaved_login(&sessions, user(7)).await;

    let mut blocking = site.pool.begin().await.expect("a transaction");
    sqlx::raw_sql("SELECT FROM session FOR UPDATE")
        .execute(&mut *blocking)
        .await
        .expect("locks");
    let login = Arc::new(login);
    let saving = tokio::spawn({
        let login = Arc::clone(&login);
        async move { login.save().await }
    });
    let mut killed = 0_i64;
    while killed == 0 {
        let kill = "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity \
                    WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let count = sqlx::query_scalar(kill).fetch_one(&mut *blocking).await;
        killed = count.expect("a number");
    }
    blocking.rollback().await.expect("unlocked rows");
    saving
        .await
        .expect("a task")
        .expect("the next attempt saves it");

    assert_eq!(count(&site.store, "7").await, 2);
    let now = session(&sessions, Some(id));
    assert_eq!(now.get("a").await.expect("a load"), Some(1));
    assert_eq!(now.get_value(KEY).await.expect("a load"), Some(user(7)));
    assert!(
        SessionStore::load(&sessions, &old)
            .await
            .expect("a load")
            .is_some()
    );
}
