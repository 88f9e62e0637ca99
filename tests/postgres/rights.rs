//! Privileges: those that suffice, and the errors if one is missing.

use axum_pg_session::{ErrorKind, PgSessionLayer, PgSessionStore, Session};

use crate::support::{
    Browser, Life, Role, Site, THREE_COLUMNS, execute,
    page::{app_with, patiently, until},
};

const RUN_TIME: &str = "SELECT, INSERT, UPDATE, DELETE ON session";

#[tokio::test]
async fn the_documented_grants_suffice() {
    let site = Site::without_table().await;
    let owner = site.store.clone().schema("web");
    owner.migrate().await.expect("a table");
    let role = Role::new(&site.pool).await;
    role.grant("USAGE ON SCHEMA web").await;
    role.grant("SELECT, INSERT, UPDATE, DELETE ON web.session")
        .await;
    let store = role.store(site.database.url()).await.schema("web");
    store.migrate().await.expect("nothing to do");
    let report = store.check().await.expect("every right");
    assert_eq!(report.to_string(), "every feature is on");
    Life::of(&site.pool, "web.session").is_whole(&store).await;
    signs_in_and_is_ended(&store).await;
    role.drop().await;
}

/// What users, their lists and administrators need of the table.
async fn signs_in_and_is_ended(store: &PgSessionStore) {
    let page = async |session: Session| session.login("ann");
    let app = app_with(PgSessionLayer::new(store.clone()), page);
    for _ in 0..3 {
        assert_eq!(Browser::new(&app).get("/page").await.status, 200);
    }
    let users = store.user("ann");
    let listed = users.list().await.expect("SELECT");
    let first = listed[0].id();
    assert_eq!(users.destroy_others(first).await.expect("DELETE"), 2);
    assert!(users.destroy(first).await.expect("DELETE"));
    assert_eq!(Browser::new(&app).get("/page").await.status, 200);
    assert_eq!(store.destroy_everyone().await.expect("DELETE"), 1);
}

#[tokio::test]
async fn a_right_that_is_missing_is_named() {
    let site = Site::new().await;
    let role = Role::new(&site.pool).await;
    for right in ["SELECT", "INSERT", "UPDATE", "DELETE"] {
        role.grant(RUN_TIME).await;
        role.revoke(&format!("{right} ON session")).await;
        let store = role.store(site.database.url()).await;
        for outcome in [store.check().await.map(drop), store.migrate().await] {
            let error = outcome.expect_err("a right is missing");
            assert_eq!(error.kind(), ErrorKind::Setup);
            let told = error.to_string();
            assert!(told.ends_with(&format!("this role {right}")), "{told}");
            assert!(told.contains(r#""public"."session""#), "{told}");
        }
    }
    role.drop().await;
}

#[tokio::test]
async fn a_right_to_the_schema_that_is_missing_is_named() {
    let site = Site::without_table().await;
    let owner = site.store.clone().schema("web");
    owner.migrate().await.expect("a table");
    let role = Role::new(&site.pool).await;
    role.grant("SELECT, INSERT, UPDATE, DELETE ON web.session")
        .await;
    let store = role.store(site.database.url()).await.schema("web");
    let error = store.check().await.expect_err("no USAGE");
    assert_eq!(error.kind(), ErrorKind::Setup);
    assert!(error.to_string().contains("USAGE of its schema"), "{error}");
    role.drop().await;
}

#[tokio::test]
async fn a_role_that_may_not_create_gets_an_error() {
    let site = Site::with_table("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    let role = Role::new(&site.pool).await;
    let store = role.store(site.database.url()).await;
    for (store, owner) in [
        (store.clone(), r#"the schema "public""#),
        (store.schema("web"), "the database"),
    ] {
        let error = store.migrate().await.expect_err("no CREATE");
        assert_eq!(error.kind(), ErrorKind::Setup);
        let advice = format!("grant it CREATE on {owner}");
        assert!(error.to_string().ends_with(&advice), "{error}");
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        assert!(cause.to_string().contains("permission denied"), "{cause}");
    }
    role.drop().await;
}

/// A role that may use a foreign table, and create others beside it or not.
async fn uses_a_foreign_table_as_it_is(rights: &str) {
    let site = Site::with_table(THREE_COLUMNS).await;
    execute(&site.pool, "REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    let role = Role::new(&site.pool).await;
    role.grant(RUN_TIME).await;
    role.grant(rights).await;
    let store = role.store(site.database.url()).await;
    store.migrate().await.expect("a table that serves");
    let report = store.check().await.expect("a table that serves");
    assert!(!report.absolute_timeout && !report.per_user_sessions);
    Life::of(&site.pool, "session").is_whole(&store).await;
    role.drop().await;
}

#[tokio::test]
async fn a_foreign_table_that_may_not_be_altered_is_used_as_it_is() {
    uses_a_foreign_table_as_it_is("USAGE ON SCHEMA public").await;
}

#[tokio::test]
async fn a_foreign_table_in_a_schema_of_ours_is_used_as_it_is() {
    uses_a_foreign_table_as_it_is("USAGE, CREATE ON SCHEMA public").await;
}

/// sqlx keeps its lock when a migration fails. The next migration would wait as long as the
/// connection lives.
#[tokio::test]
async fn a_migration_that_fails_leaves_no_lock_behind() {
    let site = Site::with_table(THREE_COLUMNS).await;
    execute(&site.pool, "REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    let role = Role::new(&site.pool).await;
    role.grant(RUN_TIME).await;
    let first = role.store(site.database.url()).await;
    let second = role.store(site.database.url()).await;
    first.migrate().await.expect("a table that serves");
    let outcome = tokio::time::timeout(std::time::Duration::from_secs(10), second.migrate()).await;
    outcome
        .expect("the lock is free")
        .expect("a table that serves");
    role.drop().await;
}

/// As on Supabase, where tables get row level security from the dashboard.
#[tokio::test]
async fn row_level_security_that_applies_to_the_role_is_refused_by_name() {
    let site = Site::new().await;
    let role = Role::new(&site.pool).await;
    role.grant(RUN_TIME).await;
    execute(&site.pool, "ALTER TABLE session ENABLE ROW LEVEL SECURITY").await;
    let store = role.store(site.database.url()).await;
    for outcome in [store.check().await.map(drop), store.migrate().await] {
        let error = outcome.expect_err("no row can be seen");
        assert_eq!(error.kind(), ErrorKind::Setup);
        assert!(error.to_string().contains("row level security"), "{error}");
    }
    let page = async |session: Session| session.insert("a", 1);
    let app = app_with(PgSessionLayer::new(store.clone()), page);
    assert_eq!(Browser::new(&app).get("/page").await.status, 503);
    assert!(store.destroy_everyone().await.is_err());
    // It does not apply to the owner, nor to a role that bypasses it.
    site.store.check().await.expect("the owner");
    execute(&site.pool, &format!("ALTER ROLE {} BYPASSRLS", role.name)).await;
    store.check().await.expect("it bypasses the policies");
    Life::of(&site.pool, "session").is_whole(&store).await;
    role.drop().await;
}

/// A visitor who gave up waiting for a new id keeps the session.
async fn undoes_a_new_id(site: &Site, role: &Role) {
    let store = role.store(site.database.url()).await;
    let layer = PgSessionLayer::new(store);
    let mut browser = Browser::new(&app_with(layer.clone(), async |session: Session| {
        session.insert("a", 1)
    }));
    browser.get("/page").await;
    let before = site.rows().dump().await;
    let login = app_with(layer, async |session: Session| session.login("ann"));
    site.gives_up(browser.at(&login), "/page").await;
    patiently(until(async || site.rows().dump().await == before)).await;
}

#[tokio::test]
async fn rights_to_the_columns_suffice() {
    let site = Site::new().await;
    let role = Role::new(&site.pool).await;
    let columns = "id, expiry, session, created, user_id, last_seen, device, external_id";
    role.grant(&format!(
        "SELECT ({columns}), INSERT ({columns}) ON session"
    ))
    .await;
    let changed = "expiry, session, created, user_id, last_seen, device, external_id";
    role.grant(&format!("UPDATE ({changed}), DELETE ON session"))
        .await;
    let store = role.store(site.database.url()).await;
    let report = store.check().await.expect("every right");
    assert_eq!(report.to_string(), "every feature is on");
    Life::of(&site.pool, "session").is_whole(&store).await;
    signs_in_and_is_ended(&store).await;
    undoes_a_new_id(&site, &role).await;
    for (right, column) in [
        ("SELECT", "created"),
        ("INSERT", "device"),
        ("UPDATE", "expiry"),
        // A new id that is undone gives the row its former beginning.
        ("UPDATE", "created"),
    ] {
        role.revoke(&format!("{right} ({column}) ON session")).await;
        let error = store.check().await.expect_err("a right is missing");
        let named = format!("{right} of the column {column}");
        assert!(error.to_string().contains(&named), "{error}");
        role.grant(&format!("{right} ({column}) ON session")).await;
    }
    role.drop().await;
}

/// It hides all rows and says nothing, so visitors with live sessions would seem
/// to be signed out.
#[tokio::test]
async fn row_level_security_that_is_enabled_while_a_site_runs_is_noticed() {
    let site = Site::new().await;
    let role = Role::new(&site.pool).await;
    role.grant(RUN_TIME).await;
    let layer = PgSessionLayer::new(role.store(site.database.url()).await);
    let app = app_with(layer, async |session: Session| session.insert("a", 1));
    let mut visitor = Browser::new(&app);
    visitor.get("/page").await;
    execute(&site.pool, "ALTER TABLE session ENABLE ROW LEVEL SECURITY").await;
    assert_eq!(Browser::new(&app).get("/page").await.status, 503);
    let response = visitor.get("/page").await;
    let error = response.error.expect("no row can be seen");
    assert!(error.to_string().contains("row level security"), "{error}");
    role.drop().await;
}
