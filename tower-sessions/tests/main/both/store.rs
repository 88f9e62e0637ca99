//! Each call of the trait.

use axum_pg_session_tower_sessions::PostgresStore;
use serde_json::json;
use time::{Duration, OffsetDateTime};

use super::{
    begun, record, session,
    support::site,
    tower_sessions::{ExpiredDeletion as _, SessionStore, session::Id},
};

/// The same methods have two versions of the trait.
async fn load(sessions: &PostgresStore, id: Id) -> Option<super::Record> {
    SessionStore::load(sessions, &id).await.expect("a load")
}

async fn save(sessions: &PostgresStore, record: &super::Record) {
    SessionStore::save(sessions, record).await.expect("a save");
}

async fn create(sessions: &PostgresStore, record: &mut super::Record) {
    SessionStore::create(sessions, record).await.expect("a row");
}

async fn delete(sessions: &PostgresStore, id: Id) {
    SessionStore::delete(sessions, &id)
        .await
        .expect("a deletion");
}

#[tokio::test]
async fn a_created_record_is_loaded_under_its_id() {
    let site = site().await;
    let sessions = site.sessions();
    let mut made = record(&[("cart", json!([1, 2]))]);
    let id = made.id;
    create(&sessions, &mut made).await;
    assert_eq!(made.id, id);

    let loaded = load(&sessions, id).await.expect("a session");
    assert_eq!(loaded.id, id);
    assert_eq!(loaded.data["cart"], json!([1, 2]));
    let moved = (loaded.expiry_date - made.expiry_date).abs();
    assert!(moved < Duration::seconds(5), "{moved}");
    assert!(load(&sessions, Id::default()).await.is_none());
}

#[tokio::test]
async fn an_id_that_exists_is_replaced_and_its_session_stays() {
    let site = site().await;
    let sessions = site.sessions();
    let mut first = record(&[("whose", json!("first"))]);
    create(&sessions, &mut first).await;
    let mut second = record(&[("whose", json!("second"))]);
    second.id = first.id;
    create(&sessions, &mut second).await;
    assert_ne!(second.id, first.id);
    for (id, whose) in [(first.id, "first"), (second.id, "second")] {
        assert_eq!(
            load(&sessions, id).await.expect("a session").data["whose"],
            whose
        );
    }
}

#[tokio::test]
async fn the_table_has_digests_and_no_ids() {
    let site = site().await;
    let id = begun(&site.sessions(), &[("a", json!(1))]).await;
    let stored: Vec<String> = sqlx::query_scalar("SELECT session.*::text FROM session")
        .fetch_all(&site.pool)
        .await
        .expect("rows");
    assert_eq!(stored.len(), 1);
    assert!(!stored[0].contains(&id.to_string()), "{stored:?}");
    assert_eq!(site.stored().await[0].0, r#"{"a":1}"#);
}

#[tokio::test]
async fn a_saved_record_has_the_new_members_and_the_new_expiry() {
    let site = site().await;
    let sessions = site.sessions();
    let id = begun(&sessions, &[("a", json!(1)), ("b", json!(2))]).await;
    let mut loaded = load(&sessions, id).await.expect("a session");
    loaded.data.remove("a");
    loaded.data.insert("c".to_owned(), json!(3));
    loaded.expiry_date = OffsetDateTime::now_utc() + Duration::days(3);
    save(&sessions, &loaded).await;
    assert_eq!(site.stored().await[0].0, r#"{"b":2,"c":3}"#);
    let loaded = load(&sessions, id).await.expect("a session");
    let days = (loaded.expiry_date - OffsetDateTime::now_utc()).as_seconds_f64() / 86_400.0;
    assert!((2.9..3.1).contains(&days), "{days}");
}

#[tokio::test]
async fn a_save_can_shorten_a_session() {
    let site = site().await;
    let sessions = site.sessions();
    let id = begun(&sessions, &[("a", json!(1))]).await;
    let slow = session(&sessions, Some(id));
    slow.get_value("a").await.expect("a load");
    // Another request moves the expiry after this one has loaded the session.
    let other = session(&sessions, Some(id));
    other.get_value("a").await.expect("a load");
    other.save().await.expect("a save");

    let hour =
        super::tower_sessions::Expiry::AtDateTime(OffsetDateTime::now_utc() + Duration::HOUR);
    slow.set_expiry(Some(hour));
    slow.save().await.expect("a save");
    let left =
        load(&sessions, id).await.expect("a session").expiry_date - OffsetDateTime::now_utc();
    assert!(left <= Duration::HOUR, "{left}");
}

#[tokio::test]
async fn a_record_whose_expiry_has_passed_is_not_loaded() {
    let site = site().await;
    let sessions = site.sessions();
    let mut late = record(&[("a", json!(1))]);
    late.expiry_date = OffsetDateTime::now_utc() - Duration::HOUR;
    create(&sessions, &mut late).await;
    assert!(load(&sessions, late.id).await.is_none());

    let id = begun(&sessions, &[("a", json!(1))]).await;
    let mut ending = load(&sessions, id).await.expect("a session");
    ending.expiry_date = OffsetDateTime::now_utc() - Duration::HOUR;
    save(&sessions, &ending).await;
    assert!(load(&sessions, id).await.is_none());
    // A later save does not begin it again.
    ending.expiry_date = OffsetDateTime::now_utc() + Duration::HOUR;
    save(&sessions, &ending).await;
    assert!(load(&sessions, id).await.is_none());
}

/// `AtDateTime` at the end of the calendar, as for "never".
#[tokio::test]
async fn a_session_can_end_in_the_year_9999() {
    let site = site().await;
    let sessions = site.sessions();
    let mut never = record(&[("a", json!(1))]);
    never.expiry_date = time::macros::datetime!(9999-12-31 23:59:59 UTC);
    create(&sessions, &mut never).await;
    let loaded = load(&sessions, never.id).await.expect("a session");
    assert_eq!(loaded.expiry_date.year(), 9999);
}

#[tokio::test]
async fn only_expired_rows_are_deleted_as_expired() {
    let site = site().await;
    let sessions = site.sessions();
    let kept = begun(&sessions, &[("a", json!(1))]).await;
    for _ in 0..3 {
        let mut late = record(&[("a", json!(1))]);
        late.expiry_date = OffsetDateTime::now_utc() - Duration::HOUR;
        create(&sessions, &mut late).await;
    }
    assert_eq!(site.rows().await, 4);
    sessions.delete_expired().await.expect("a run");
    assert_eq!(site.rows().await, 1);
    assert!(load(&sessions, kept).await.is_some());
}

#[tokio::test]
async fn a_deleted_session_is_not_loaded_and_can_be_deleted_again() {
    let site = site().await;
    let sessions = site.sessions();
    let id = begun(&sessions, &[("a", json!(1))]).await;
    delete(&sessions, id).await;
    assert!(load(&sessions, id).await.is_none());
    delete(&sessions, id).await;
    assert_eq!(site.rows().await, 0);
}

/// tower-sessions keeps the id of a flushed session. The guide says what to call.
#[tokio::test]
async fn a_flushed_session_that_gets_a_new_id_shares_nothing_with_the_old_cookie() {
    let site = site().await;
    let sessions = site.sessions();
    for cycles in [false, true] {
        let old = begun(&sessions, &[("a", json!(1))]).await;
        let flushed = session(&sessions, Some(old));
        flushed.get_value("a").await.expect("a load");
        flushed.flush().await.expect("a deletion");
        if cycles {
            flushed.cycle_id().await.expect("nothing to delete");
        }
        flushed.insert("message", "bye").await.expect("no load");
        flushed.save().await.expect("a row");
        assert_eq!(load(&sessions, old).await.is_none(), cycles);
    }
}

/// The application can't list the keys of a session; it can only ask whether there are any.
#[tokio::test]
async fn an_empty_session_stays_empty_for_the_application() {
    let site = site().await;
    let sessions = site.sessions();
    let id = begun(&sessions, &[]).await;
    let loaded = load(&sessions, id).await.expect("a session");
    assert!(loaded.data.is_empty());
    let empty = session(&sessions, Some(id));
    empty.insert("a", 1).await.expect("a load");
    empty.save().await.expect("a save");
    assert_eq!(site.stored().await[0].0, r#"{"a":1}"#);
}

#[tokio::test]
async fn our_own_layer_and_another_realm_open_no_session_of_the_store() {
    let site = site().await;
    let id = begun(&site.sessions(), &[("a", json!(1))]).await;
    let admin = PostgresStore::new(site.store.clone().realm("admin"));
    assert!(load(&admin, id).await.is_none());
    let layer = axum_pg_session::PgSessionLayer::new(site.store.clone()).cookie_name("id");
    let app = axum::Router::new()
        .route(
            "/",
            axum::routing::get(async |session: axum_pg_session::Session| {
                session.is_new().to_string()
            }),
        )
        .layer(layer);
    let mut ada = super::support::Browser {
        cookie: Some(format!("id={id}")),
    };
    assert_eq!(ada.get(&app, "/").await.text, "true");
}

#[tokio::test]
async fn a_table_that_koa_reads_is_refused() {
    let site = site().await;
    let koa = axum_pg_session::Koa::unsigned();
    let sessions = PostgresStore::new(site.store.clone().koa(koa));
    let error = SessionStore::create(&sessions, &mut record(&[])).await;
    let error = error.expect_err("it would be read as a session of Koa");
    assert!(error.to_string().contains("koa"), "{error}");
    assert_eq!(site.rows().await, 0);
}
