//! Who creates the table, and what each side may do to it.

use axum_pg_session::{PgSessionLayer, Reaper};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgPool};

use crate::{
    node::scenarios::serves_both,
    support::{Browser, Site, page, with_connect_pg_simple, with_every_generation},
};

with_every_generation![
    a_table_that_express_made_serves_axum_as_it_is,
    a_table_that_axum_completed_still_serves_express,
    a_table_that_axum_made_serves_express,
    rights_on_the_rows_are_enough_for_both,
    columns_of_the_application_are_left_alone,
];

with_connect_pg_simple![a_table_of_jsonb_and_instants_serves_both];

async fn columns(site: &Site) -> Vec<String> {
    let table = site.table_name();
    sqlx::query_scalar(AssertSqlSafe(format!(
        "SELECT column_name::text FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name = '{table}' ORDER BY ordinal_position"
    )))
    .fetch_all(&site.pool)
    .await
    .expect("columns")
}

async fn a_table_that_express_made_serves_axum_as_it_is(site: Site) {
    let express = site.express().await;
    let before = columns(&site).await;
    let store = site.store().create_table(false);
    store.check().await.expect("a table that can serve");
    let axum = page::server(PgSessionLayer::new(store));
    serves_both(&site, &express, &axum).await;
    assert_eq!(columns(&site).await, before);
}

async fn a_table_that_axum_completed_still_serves_express(site: Site) {
    let express = site.express().await;
    let before = columns(&site).await;
    let store = site.store();
    store.migrate().await.expect("more columns");
    let after = columns(&site).await;
    assert_eq!(after[..before.len()], before);
    assert!(after.contains(&"last_seen".to_owned()), "{after:?}");
    let axum = page::server(PgSessionLayer::new(store));
    serves_both(&site, &express, &axum).await;
}

async fn a_table_that_axum_made_serves_express(site: Site) {
    let store = site.store();
    store.migrate().await.expect("a new table");
    let options = json!({"store": site.without_creation()});
    let express = site.express_with(options).await;
    let axum = page::server(PgSessionLayer::new(store));
    serves_both(&site, &express, &axum).await;
}

async fn rights_on_the_rows_are_enough_for_both(site: Site) {
    site.store().migrate().await.expect("a new table");
    let rights = "SELECT, INSERT, UPDATE, DELETE";
    let role = site.role_that_may(rights, site.rows()).await;
    let options = json!({"store": site.without_creation(), "connection": role.connection()});
    let express = site.express_with(options).await;
    let pool = PgPool::connect_lazy_with(role.options());
    let store = site.store_on(pool, site.format()).create_table(false);
    store.migrate().await.expect("a table that can serve");
    let axum = page::server(PgSessionLayer::new(store.clone()));
    serves_both(&site, &express, &axum).await;
    Reaper::new(store).run_once().await.expect("the rights");
    role.drop().await;
}

async fn columns_of_the_application_are_left_alone(site: Site) {
    let (express, axum) = site.both().await;
    site.rows()
        .execute("ALTER TABLE SESSIONS ADD seen int NOT NULL DEFAULT 7, ADD note text")
        .await;
    let mut browser = Browser::new();
    browser.visit(&axum, json!([["set", "a", 1]])).await;
    site.rows()
        .execute("UPDATE SESSIONS SET note = 'ours'")
        .await;
    browser.visit(&express, json!([["increment", "a"]])).await;
    browser.visit(&axum, json!([["increment", "a"]])).await;
    browser.visit(&axum, json!([["cycle"]])).await;
    let sql = format!("SELECT seen, note FROM public.{}", site.table_name());
    let kept: Vec<(i32, String)> = sqlx::query_as(AssertSqlSafe(sql))
        .fetch_all(&site.pool)
        .await
        .expect("rows");
    assert_eq!(kept, [(7, "ours".to_owned())]);
}

async fn a_table_of_jsonb_and_instants_serves_both(site: Site) {
    site.rows()
        .execute(
            "CREATE TABLE SESSIONS (
                 sid text PRIMARY KEY, sess jsonb NOT NULL, expire timestamptz NOT NULL
             )",
        )
        .await;
    site.set_zone("Europe/Berlin").await;
    let (express, axum) = site.both().await;
    serves_both(&site, &express, &axum).await;
}
