//! `Login::external_id`: sessions of an identity provider's session, which are destroyed together.

use axum_pg_session::{
    Ending, ErrorKind, Login, PgSessionLayer, PgSessionStore, Session, testing::TestVisitor,
};

use crate::support::{
    Browser, Site, execute,
    kit::act,
    page::{app_with, patiently, until},
    proxy::Proxy,
    texts,
};

async fn signed_in(layer: &PgSessionLayer, user: &str, sid: &str) -> TestVisitor {
    let visitor = TestVisitor::new(layer);
    act(&visitor, |session| {
        session.login(Login::new(user).external_id(sid))
    })
    .await;
    visitor
}

async fn is_signed_in(visitor: &TestVisitor) -> bool {
    let session = visitor.session().await.expect("a database");
    session.user_id().is_some()
}

async fn end(store: &PgSessionStore, sid: &str) -> u64 {
    let ended = store.external(sid).destroy_all().await;
    ended.expect("a database")
}

#[tokio::test]
async fn all_sessions_of_an_external_id_end_and_no_others() {
    let site = Site::new().await;
    let layer = site.layer();
    let desk = signed_in(&layer, "ada", "sid-1").await;
    let tablet = signed_in(&layer, "bob", "sid-1").await;
    let phone = signed_in(&layer, "ada", "sid-2").await;
    let session = desk.session().await.expect("a database");
    let watched = session.ended().expect("it is stored");

    assert_eq!(end(&site.store, "sid-1").await, 2);
    assert_eq!(patiently(watched).await, Ending::Revoked);
    assert!(!is_signed_in(&desk).await && !is_signed_in(&tablet).await);
    assert!(is_signed_in(&phone).await);
    assert_eq!(end(&site.store, "sid-1").await, 0);
    assert_eq!(end(&site.store.clone().realm("admin"), "sid-2").await, 0);
    assert!(is_signed_in(&phone).await);
}

#[tokio::test]
async fn an_external_id_stays_with_its_session_until_the_next_login() {
    let site = Site::new().await;
    let layer = site.layer();
    let ada = signed_in(&layer, "ada", "sid").await;
    act(&ada, Session::cycle_id).await;
    act(&ada, |session| session.insert("basket", 1)).await;
    assert_eq!(end(&site.store, "sid").await, 1);

    let ada = signed_in(&layer, "ada", "sid").await;
    act(&ada, |session| session.login("ada")).await;
    assert_eq!(end(&site.store, "sid").await, 0);
    act(&ada, |session| {
        session.login(Login::new("ada").external_id("new"))
    })
    .await;
    assert_eq!(end(&site.store, "new").await, 1);
    let sids = "SELECT external_id FROM session WHERE external_id IS NOT NULL";
    assert!(texts(&site.pool, sids).await.is_empty());
}

/// The row of the former id had lost it.
#[tokio::test]
async fn a_new_id_that_is_undone_gives_the_external_id_back() {
    let site = Site::new().await;
    let mut ada: Browser = site.browser();
    site.sign_in(&mut ada, Login::new("ada").external_id("sid"))
        .await;
    site.gives_up(ada, "/cycle").await;
    assert_eq!(site.rows().count().await, 1);
    assert_eq!(end(&site.store, "sid").await, 1);
    assert_eq!(site.rows().count().await, 0);
}

/// The provider had the user sign in again, and the user signs out there before the login is
/// undone.
#[tokio::test]
async fn an_undone_login_does_not_revive_a_session_whose_external_id_was_signed_out() {
    let site = Site::new().await;
    let proxy = Proxy::before(site.database.url()).await;
    let slow = PgSessionStore::new(proxy.pool().await);
    slow.check().await.expect("a table");
    let mut ada: Browser = site.browser();
    site.sign_in(&mut ada, Login::new("ada").external_id("sid-1"))
        .await;
    let again = app_with(PgSessionLayer::new(slow), async |session: Session| {
        session.login(Login::new("ada").external_id("sid-2"))
    });
    let ada = ada.at(&again);
    let are = async |sid: &str| {
        let sql = "SELECT external_id FROM session WHERE external_id IS NOT NULL";
        texts(&site.pool, sql).await == [sid]
    };

    let held = site.hold_commits().await;
    let given_up = tokio::spawn(async move { ada.peek("/page").await });
    until(|| site.is_blocked()).await;
    proxy.drop_responses(true);
    drop(held);
    patiently(until(|| are("sid-2"))).await;
    given_up.abort();
    drop(given_up.await);
    assert_eq!(end(&site.store, "sid-1").await, 0);
    proxy.drop_responses(false);
    proxy.cut();

    let signed_in = "SELECT id FROM session WHERE user_id IS NOT NULL";
    patiently(until(async || {
        !are("sid-2").await && texts(&site.pool, signed_in).await.is_empty()
    }))
    .await;
}

#[tokio::test]
async fn a_table_without_the_column_says_which_migration_adds_it() {
    let site = Site::new().await;
    // As an earlier version left it.
    let earlier = "ALTER TABLE session DROP COLUMN external_id;
                   DELETE FROM _axum_pg_session_migrations WHERE version > 5";
    execute(&site.pool, earlier).await;
    let store = site.elsewhere().await;
    let report = store.check().await.expect("a table");
    assert!(!report.external_id);
    assert!(report.to_string().contains("0006"), "{report}");
    let layer = PgSessionLayer::new(store.clone());
    let ada = TestVisitor::new(&layer);
    let login = ada.with_session(|session| session.login(Login::new("ada").external_id("sid")));
    let refused = [
        login.await.expect_err("no column"),
        store
            .external("sid")
            .destroy_all()
            .await
            .expect_err("no column"),
    ];
    for error in refused {
        assert_eq!(error.kind(), ErrorKind::Setup);
        assert!(error.to_string().contains("0006"), "{error}");
    }
    // Other logins need none.
    act(&ada, |session| session.login("ada")).await;
    act(&ada, Session::cycle_id).await;
    assert!(is_signed_in(&ada).await);

    store.migrate().await.expect("the column");
    act(&ada, |session| {
        session.login(Login::new("ada").external_id("sid"))
    })
    .await;
    assert_eq!(end(&store, "sid").await, 1);
}

/// Begins twenty sessions of the external id `sid`. Returns the id of one of them.
async fn twenty(site: &Site) -> String {
    let layer = site.layer();
    let mut visitors = Vec::new();
    for _ in 0..20 {
        visitors.push(signed_in(&layer, "ada", "sid").await);
    }
    let session = visitors[7].session().await.expect("a database");
    session.id().expect("it is stored").to_string()
}

#[tokio::test]
async fn an_external_id_ends_around_a_row_that_another_table_references() {
    let site = Site::new().await;
    let referenced = twenty(&site).await;
    site.order(&format!("VALUES ('{referenced}')")).await;
    let error = site.store.external("sid").destroy_all().await;
    let error = error.expect_err("a row is left");
    assert!(error.to_string().contains("can't be deleted"), "{error}");
    assert_eq!(site.rows().count().await, 1);
}

#[tokio::test]
async fn an_external_id_ends_around_a_row_that_is_locked_for_a_while() {
    let site = Site::new().await;
    let lock = site.lock_row(twenty(&site).await).await;
    let store = site.elsewhere().await;
    let ending = tokio::spawn(async move { store.external("sid").destroy_all().await });
    patiently(until(async || site.rows().count().await == 1)).await;
    lock.rollback().await.expect("a rollback");
    let ended = patiently(ending).await.expect("no panic");
    assert_eq!(ended.expect("an end"), 20);
}
