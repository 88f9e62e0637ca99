//! Databases whose encoding is not UTF-8, and search paths that hide the
//! catalog.

use axum_pg_session::{PgSessionLayer, PgSessionStore, Reaper, Session};
use sqlx::{
    ConnectOptions as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::support::{
    Browser, Life, Site, app, execute,
    page::{app_with, login_page},
    site::pool,
    texts,
};

/// A database beside the site's.
pub(crate) async fn database_in(site: &Site, encoding: &str) -> PgPool {
    let name = texts(&site.pool, "SELECT current_database()::text || '_2'").await;
    let name = &name[0];
    execute(
        &site.pool,
        &format!("CREATE DATABASE {name} ENCODING {encoding} LOCALE 'C' TEMPLATE template0"),
    )
    .await;
    let options: PgConnectOptions = site.database.url().parse().expect("a URL");
    pool(options.database(name).to_url_lossy().as_ref(), 5).await
}

pub(crate) async fn drop_database(site: &Site, pool: PgPool) {
    let options = pool.connect_options();
    let name = options.get_database().expect("a name");
    execute(&site.pool, &format!("DROP DATABASE {name} WITH (FORCE)")).await;
}

#[tokio::test]
async fn a_character_that_the_database_cannot_store_is_an_error_of_its_request_alone() {
    let site = Site::without_table().await;
    let latin = database_in(&site, "LATIN1").await;
    let store = PgSessionStore::new(latin.clone());
    store.migrate().await.expect("a table");
    let page = async |session: Session| session.insert("mood", "🍐");
    let app = app_with(PgSessionLayer::new(store), page);
    let mut browser = Browser::new(&app);
    browser.get("/insert/name/J%C3%B6rg").await;
    for browser in [&browser, &Browser::new(&app)] {
        let refused = browser.peek("/page").await;
        assert_eq!(refused.status, 500, "{}", refused.body);
        assert!(!refused.headers.contains_key("retry-after"));
        let error = refused.error.expect("an error in the extensions");
        assert!(error.to_string().contains("UTF-8"), "{error}");
    }
    assert_eq!(browser.get("/get/name").await.body, "\"Jörg\"");
    drop_database(&site, latin).await;
}

#[tokio::test]
async fn a_database_that_is_not_in_utf8_is_reported_by_check() {
    let site = Site::without_table().await;
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let other = database_in(&site, encoding).await;
        let store = PgSessionStore::new(other.clone());
        store.migrate().await.expect("a table");
        let report = store.check().await.expect("a table");
        assert_eq!(report.encodes_all_text, encoding == "SQL_ASCII");
        let says_so = report.to_string().contains("UTF-8");
        assert_eq!(says_so, encoding == "LATIN1", "{report}");
        Life::of(&other, "session").is_whole(&store).await;
        drop_database(&site, other).await;
    }
    site.store.migrate().await.expect("a table");
    assert!(site.store.check().await.expect("a table").encodes_all_text);
}

/// Each function that the crate's statements call has a namesake that fails.
#[tokio::test]
async fn functions_that_hide_those_of_the_catalog_are_never_called() {
    let site = Site::with_table("CREATE SCHEMA shadow;
         DO $$ DECLARE f record; BEGIN
             FOR f IN SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments,
                             pg_get_function_result(p.oid) AS result
                      FROM pg_proc p
                      WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f'
                        AND NOT p.proretset
                        AND p.proname ~ '^(now|sha256|to_timestamp|date_part|extract|jsonb?_send|octet_length|convert_to|pg_advisory_.*|pg_try_advisory_.*|current_setting|format_type|has_.*_privilege|pg_has_role|row_security_active|version|pg_backend_pid|timezone|pg_encoding_to_char|pg_get_userbyid|getdatabaseencoding)$'
             LOOP
                 BEGIN
                     EXECUTE format(
                         'CREATE FUNCTION shadow.%I(%s) RETURNS %s LANGUAGE plpgsql AS
                          ''BEGIN RAISE ''''%s is shadowed''''; END''',
                         f.proname, f.arguments, f.result, f.proname);
                 EXCEPTION WHEN OTHERS THEN NULL;
                 END;
             END LOOP;
         END $$;").await;
    let shadows = "SELECT proname::text FROM pg_proc WHERE pronamespace = 'shadow'::regnamespace";
    let shadows = texts(&site.pool, shadows).await;
    for name in ["now", "sha256", "to_timestamp", "date_part", "json_send"] {
        assert!(shadows.iter().any(|shadow| shadow == name), "{name}");
    }
    let options: PgConnectOptions = site.database.url().parse().expect("a URL");
    let options = options.options([("search_path", "shadow,pg_catalog")]);
    let hidden = PgPoolOptions::new().connect_with(options).await;
    let hidden = hidden.expect("a connection");
    let path = texts(&hidden, "SELECT pg_catalog.current_setting('search_path')").await;
    assert_eq!(path, ["shadow,pg_catalog"]);
    let store = PgSessionStore::new(hidden);
    store.migrate().await.expect("a table");
    let report = store.check().await.expect("a table");
    assert_eq!(report.to_string(), "every feature is on");
    Life::of(&site.pool, "session").is_whole(&store).await;
    let login = login_page(&store);
    let mut first = Browser::new(&login);
    for browser in [&mut first, &mut Browser::new(&login)] {
        assert_eq!(browser.get("/page").await.status, 200);
    }
    let alice = store.user("alice");
    assert_eq!(alice.list().await.expect("a list").len(), 2);
    let this = first.handle().await;
    assert_eq!(alice.destroy_others(&this).await.expect("an end"), 1);
    assert_eq!(store.destroy_everyone().await.expect("an end"), 1);
    let app = app(PgSessionLayer::new(store));
    let mut crowd = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let mut browser = Browser::new(&app);
        crowd.spawn(async move {
            for page in ["/insert/a/1", "/insert/b/1", "/cycle", "/destroy"] {
                assert_eq!(browser.get(page).await.status, 200, "{page}");
            }
        });
    }
    crowd.join_all().await;
}

/// Its document is as short as a forwarding, so the reaper reads it.
#[tokio::test]
async fn an_expired_row_that_can_not_be_read_is_reaped() {
    let site = Site::without_table().await;
    let ascii = database_in(&site, "SQL_ASCII").await;
    let store = PgSessionStore::new(ascii.clone());
    store.migrate().await.expect("a table");
    execute(
        &ascii,
        r#"INSERT INTO session (id, expiry, session)
           SELECT 'row ' || n, now() - n * interval '1 minute',
                  (CASE n WHEN 7 THEN E'{"successor":"\xff"}' ELSE '{}' END)::json
           FROM generate_series(1, 20) AS n"#,
    )
    .await;
    let reaped = Reaper::new(store).run_once().await.expect("a run");
    assert_eq!(reaped.deleted, 20);
    let rows = texts(&ascii, "SELECT count(*)::text FROM session").await;
    assert_eq!(rows, ["0"]);
    drop_database(&site, ascii).await;
}

/// Another client wrote the device in another encoding. A load doesn't read it.
#[tokio::test]
async fn a_refused_session_whose_device_can_not_be_read_is_deleted() {
    let site = Site::without_table().await;
    let ascii = database_in(&site, "SQL_ASCII").await;
    let store = PgSessionStore::new(ascii.clone());
    store.migrate().await.expect("a table");
    let browser = Browser::with_session(&app(PgSessionLayer::new(store.clone()))).await;
    execute(&ascii, r#"UPDATE session SET device = E'"\xff"'::json"#).await;
    let layer = PgSessionLayer::new(store.clone());
    let keys = browser.at(&app(layer.clone())).peek("/keys").await;
    keys.assert(200, "a");
    let layer = layer.valid_if(async |_, _| false);
    let reply = browser.at(&app(layer)).peek("/keys").await;
    let rows = texts(&ascii, "SELECT id FROM session").await;
    drop_database(&site, ascii).await;
    assert!(reply.status == 503 || rows.is_empty(), "a {}", reply.status);
}
