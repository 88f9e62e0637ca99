//! How many statements a call takes.

use axum_pg_session::PgSessionStore;
use axum_pg_session_tower_sessions::PostgresStore;
use serde_json::json;
use tokio::task::JoinSet;

use super::{session, support::site};

#[tokio::test]
async fn each_call_of_a_session_is_one_statement() {
    let site = site().await;
    let proxy = site.proxy().await;
    let store = PgSessionStore::new(proxy.pool().await);
    store.check().await.expect("a table");
    let sessions = PostgresStore::new(store);
    for user in [None, Some(7)] {
        let begun = proxy.executed();
        let new = session(&sessions, None);
        new.insert("axum-login.data", json!({"user_id": user}))
            .await
            .expect("no load");
        new.insert("a", 1).await.expect("no load");
        new.save().await.expect("a row");
        let created = proxy.executed();
        assert_eq!(created - begun, 1, "create");

        let session = session(&sessions, new.id());
        assert_eq!(session.get("a").await.expect("a load"), Some(1));
        assert_eq!(session.get("b").await.expect("loaded"), None::<u32>);
        let loaded = proxy.executed();
        assert_eq!(loaded - created, 1, "load");

        session.insert("a", 2).await.expect("loaded");
        session.save().await.expect("a save");
        let saved = proxy.executed();
        assert_eq!(saved - loaded, 1, "save");

        // Only the expiry moves; the base is the one of the load, so the row is read again.
        session.save().await.expect("a save");
        let touched = proxy.executed();
        assert!(touched - saved <= 3, "touch");

        session.flush().await.expect("a deletion");
        let deleted = proxy.executed();
        assert_eq!(deleted - touched, 1, "delete");

        // As a login of axum-login does to a visitor without a session. If nothing was deleted,
        // a second statement makes sure that no trigger has kept the row.
        let unknown = super::session(&sessions, None);
        unknown.cycle_id().await.expect("nothing to delete");
        assert_eq!(proxy.executed() - deleted, 2, "delete nothing");
    }
}

#[tokio::test]
async fn loads_and_saves_that_wait_share_statements() {
    let site = site().await;
    let proxy = site.proxy().await;
    let store = PgSessionStore::new(proxy.pool().await);
    store.check().await.expect("a table");
    let sessions = PostgresStore::new(store);
    let before = proxy.executed();
    let mut visitors = JoinSet::new();
    for n in 0..200 {
        let sessions = sessions.clone();
        visitors.spawn(async move {
            let new = session(&sessions, None);
            new.insert("n", n).await.expect("no load");
            new.save().await.expect("a row");
            let session = session(&sessions, new.id());
            assert_eq!(session.get("n").await.expect("a load"), Some(n));
            session.insert("n", n + 1).await.expect("loaded");
            session.save().await.expect("a save");
        });
    }
    while let Some(done) = visitors.join_next().await {
        done.expect("a visitor");
    }
    let statements = proxy.executed() - before;
    assert!(statements < 200, "{statements} statements for 600 calls");
}
