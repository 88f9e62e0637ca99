//! Whose table it is, and what either side may do to it.

use axum_pg_session::{PgSessionLayer, Reaper};
use serde_json::json;
use sqlx::PgPool;

use crate::{
    node::scenarios::serves_both,
    support::{Browser, Site, page, with_both_generations},
};

with_both_generations![
    a_table_that_koa_made_serves_axum_as_it_is,
    a_table_that_koa_made_is_completed_by_axum_and_still_serves_koa,
    a_table_that_axum_made_serves_koa,
    both_can_make_the_table_at_the_same_moment,
    neither_needs_more_than_the_rights_of_the_rows,
    columns_of_the_application_are_left_alone,
    a_table_of_jsonb_and_instants_serves_both,
];

async fn columns(site: &Site) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT column_name::text FROM information_schema.columns
         WHERE table_schema = 'public' AND table_name = 'session' ORDER BY ordinal_position",
    )
    .fetch_all(&site.pool)
    .await
    .expect("columns")
}

async fn a_table_that_koa_made_serves_axum_as_it_is(site: Site) {
    let koa = site.koa().await;
    let store = site.store().create_table(false);
    store.check().await.expect("a table that can serve");
    serves_both(&site, &koa, &page::server(PgSessionLayer::new(store))).await;
    assert_eq!(columns(&site).await, ["id", "expiry", "session"]);
}

async fn a_table_that_koa_made_is_completed_by_axum_and_still_serves_koa(site: Site) {
    let koa = site.koa().await;
    let store = site.store();
    store.migrate().await.expect("more columns");
    assert_eq!(
        columns(&site).await,
        [
            "id",
            "expiry",
            "session",
            "created",
            "user_id",
            "last_seen",
            "device",
            "external_id"
        ]
    );
    serves_both(&site, &koa, &page::server(PgSessionLayer::new(store))).await;
}

async fn a_table_that_axum_made_serves_koa(site: Site) {
    let store = site.store();
    store.migrate().await.expect("a new table");
    let koa = site.koa_with(json!({"store": {"create": false}})).await;
    serves_both(&site, &koa, &page::server(PgSessionLayer::new(store))).await;
}

async fn both_can_make_the_table_at_the_same_moment(site: Site) {
    let store = site.store();
    let (koa, migrated) = tokio::join!(site.koa(), store.migrate());
    migrated.expect("a table");
    serves_both(&site, &koa, &page::server(PgSessionLayer::new(store))).await;
}

async fn neither_needs_more_than_the_rights_of_the_rows(site: Site) {
    site.store().migrate().await.expect("a new table");
    let role = site
        .role_that_may("SELECT, INSERT, UPDATE, DELETE", site.rows())
        .await;
    let options = json!({"store": {"create": false}, "connection": role.connection()});
    let koa = site.koa_with(options).await;
    let pool = PgPool::connect_lazy_with(role.options());
    let store = Site::store_on(pool, Site::format()).create_table(false);
    store.migrate().await.expect("a table that can serve");
    serves_both(
        &site,
        &koa,
        &page::server(PgSessionLayer::new(store.clone())),
    )
    .await;
    Reaper::new(store).run_once().await.expect("the rights");
    role.drop().await;
}

async fn columns_of_the_application_are_left_alone(site: Site) {
    let (koa, axum) = site.both().await;
    site.rows()
        .execute("ALTER TABLE public.session ADD seen int NOT NULL DEFAULT 7, ADD note text")
        .await;
    let mut browser = Browser::new();
    browser.visit(&axum, json!([["set", "a", 1]])).await;
    site.rows()
        .execute("UPDATE SESSIONS SET note = 'ours'")
        .await;
    browser.visit(&koa, json!([["increment", "a"]])).await;
    browser.visit(&axum, json!([["increment", "a"]])).await;
    browser.visit(&axum, json!([["cycle"]])).await;
    let kept: Vec<(i32, String)> = sqlx::query_as("SELECT seen, note FROM public.session")
        .fetch_all(&site.pool)
        .await
        .expect("rows");
    assert_eq!(kept, [(7, "ours".to_owned())]);
}

async fn a_table_of_jsonb_and_instants_serves_both(site: Site) {
    site.rows()
        .execute(
            "CREATE TABLE public.session (
                 id text PRIMARY KEY, expiry timestamptz NOT NULL, session jsonb
             )",
        )
        .await;
    site.set_zone("Europe/Berlin").await;
    let (koa, axum) = site.both().await;
    serves_both(&site, &koa, &axum).await;
}
