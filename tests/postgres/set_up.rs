//! What a table must have, what it may have, and what `check` reports.

use std::time::Duration;

use axum_pg_session::{
    Error, ErrorKind, Expiry, PgSessionLayer, PgSessionStore, Session, SessionId, TableReport,
};

use crate::support::{Browser, Life, Site, THREE_COLUMNS, app, execute, page::app_with, texts};

async fn report(table: &str) -> Result<TableReport, Error> {
    Site::with_table(table).await.store.check().await
}

#[tokio::test]
async fn a_complete_table_has_every_feature_on() {
    let site = Site::new().await;
    let report = site.store.check().await.expect("a table");
    assert_eq!(report.to_string(), "every feature is on");
    assert!(report.absolute_timeout && report.per_user_sessions);
    assert!(report.expiry_index && report.unique_id);
}

#[tokio::test]
async fn a_missing_table_is_named() {
    let site = Site::without_table().await;
    let store = site.store.clone().schema("web").table("visits");
    let error = store.check().await.expect_err("no table");
    assert_eq!(error.kind(), ErrorKind::Setup);
    assert!(error.to_string().contains(r#""web"."visits""#), "{error}");
    assert!(error.to_string().contains("migrate"), "{error}");
}

/// The columns of tables that can't serve: THREE are those that must be there. Behind the arrow
/// are words of the reason.
///
/// A table with any deferrable key is refused by `ON CONFLICT`. A unique column that is generated
/// from others is refused because the rows of the former and the new id are alike for a moment.
const REFUSED: &str = "
    expiry timestamptz, session json -> has no column id
    id text PRIMARY KEY, session json -> has no column expiry
    id text PRIMARY KEY, expiry timestamptz -> has no column session
    sid text PRIMARY KEY, sess json, expire timestamp -> has no column, PgSessionStore::express
    id integer PRIMARY KEY, expiry timestamptz, session json -> column id of type, integer, must be text
    id uuid PRIMARY KEY, expiry timestamptz, session json -> column id of type, uuid, must be text
    id bytea PRIMARY KEY, expiry timestamptz, session json -> column id of type, bytea, must be text
    id varchar(42) PRIMARY KEY, expiry timestamptz, session json -> column id, 43
    id text PRIMARY KEY, expiry text, session json -> column expiry of type, text, timestamptz
    id text PRIMARY KEY, expiry bigint, session json -> column expiry of type, bigint, timestamptz
    id text PRIMARY KEY, expiry date, session json -> column expiry of type, date, timestamptz
    id text PRIMARY KEY, expiry timestamptz, session text -> column session of type, text, json
    id text PRIMARY KEY, expiry timestamptz, session bytea -> column session of type, bytea, json
    THREE, created timestamp -> column created
    THREE, user_id int -> column user_id
    THREE, tenant int NOT NULL -> column tenant, NOT NULL, default
    id text, expiry timestamptz, session json -> unique, id
    id text, expiry timestamptz, session json, a int DEFAULT 1, PRIMARY KEY (id, a) -> unique, id
    id text PRIMARY KEY DEFERRABLE, expiry timestamptz, session json -> unique, id
    THREE, seq bigint GENERATED ALWAYS AS IDENTITY UNIQUE DEFERRABLE -> DEFERRABLE, inserted
    THREE, n int DEFAULT 1, UNIQUE (id, n) DEFERRABLE INITIALLY DEFERRED -> DEFERRABLE, inserted
    THREE, cart text GENERATED ALWAYS AS (session->>'cart') STORED UNIQUE -> unique, two rows
    THREE, note text, loud text GENERATED ALWAYS AS (upper(note)) STORED UNIQUE -> unique, two rows";
const THREE: &str = "id text PRIMARY KEY, expiry timestamptz, session json";

/// Both `check` and `migrate` refuse a table with the same words.
#[tokio::test]
async fn a_table_that_can_not_serve_is_refused_with_the_reason() {
    for case in REFUSED.trim().lines() {
        let (columns, words) = case.split_once(" -> ").expect("an arrow");
        let table = format!("CREATE TABLE session ({})", columns.replace("THREE", THREE));
        let site = Site::with_table(&table).await;
        let error = site.store.check().await.expect_err(case);
        assert_eq!(error.kind(), ErrorKind::Setup, "{case}");
        let message = error.to_string();
        for word in words.split(", ").chain([r#""public"."session""#]) {
            assert!(message.contains(word), "{word} in {message}");
        }
        let error = site.store.migrate().await.expect_err(case);
        assert_eq!(error.to_string(), message);
    }
}

#[tokio::test]
async fn a_partial_unique_index_keeps_no_id_unique() {
    let error = report(
        "CREATE TABLE session (id text, expiry timestamptz, session json);
         CREATE UNIQUE INDEX ON session (id) WHERE expiry IS NULL",
    )
    .await
    .expect_err("not unique");
    assert!(error.to_string().contains("unique"), "{error}");
}

/// Before and after `migrate` adds columns.
#[tokio::test]
async fn sessions_live_in_the_tables_of_other_systems() {
    for columns in [
        THREE,
        "id text PRIMARY KEY, expiry timestamptz, session jsonb",
        "id text PRIMARY KEY, expiry timestamptz(0), session json",
        "id varchar PRIMARY KEY, expiry timestamptz, session json",
        "id varchar(43) PRIMARY KEY, expiry timestamptz, session json",
        "id varchar(255) PRIMARY KEY, expiry timestamptz, session json",
        "THREE, tenant int NOT NULL DEFAULT 1, n int GENERATED ALWAYS AS IDENTITY",
        "THREE, size int GENERATED ALWAYS AS (length(session::text)) STORED",
        "THREE, digest text GENERATED ALWAYS AS (md5(id)) STORED UNIQUE",
        "THREE, n bigserial UNIQUE",
        "THREE, n int GENERATED BY DEFAULT AS IDENTITY UNIQUE",
        "THREE, n uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE",
    ] {
        let table = format!("CREATE TABLE session ({})", columns.replace("THREE", THREE));
        let site = Site::with_table(&table).await;
        site.store.check().await.expect(columns);
        site.layer().check().expect(columns);
        let life = Life::of(&site.pool, "session");
        life.is_whole(&site.store).await;
        site.store.migrate().await.expect(columns);
        life.is_whole(&site.store).await;
    }
}

#[tokio::test]
async fn a_unique_index_is_as_good_as_a_primary_key() {
    let site = Site::with_table(
        "CREATE TABLE session (a serial PRIMARY KEY, id text, expiry timestamptz, session json);
         CREATE UNIQUE INDEX ON session (id)",
    )
    .await;
    assert!(site.store.check().await.expect("a table").unique_id);
}

/// Saves, touches and cycles a session beside whose document stands a note.
async fn assert_keeps_note(site: &Site) {
    let mut browser = site.visitor().await;
    execute(&site.pool, r#"UPDATE session SET "the note" = 'kept'"#).await;
    browser.get("/increment/n").await;
    site.rows().age(7200.0).await;
    browser.get("/keys").await;
    assert!(browser.get("/cycle").await.token().is_some());
    browser.get("/increment/n").await;
    let sql = format!(
        r#"SELECT "the note" FROM session WHERE id = '{}'"#,
        browser.get("/id").await.body
    );
    assert_eq!(texts(&site.pool, &sql).await, ["kept"]);
}

#[tokio::test]
async fn a_column_of_the_application_keeps_its_value() {
    let site = Site::new().await;
    execute(&site.pool, r#"ALTER TABLE session ADD "the note" text"#).await;
    site.store.check().await.expect("a table that serves");
    assert_keeps_note(&site).await;
    let site = Site::with_table(THREE_COLUMNS).await;
    execute(&site.pool, r#"ALTER TABLE session ADD "the note" text"#).await;
    assert_keeps_note(&site).await;
}

#[tokio::test]
async fn a_column_that_reads_like_our_statements_keeps_its_value() {
    let site = Site::with_table(
        r#"CREATE TABLE session (id text PRIMARY KEY, expiry timestamp, session json,
           "t.expiry > now()" int, "the note" text)"#,
    )
    .await;
    assert_keeps_note(&site).await;
}

#[tokio::test]
async fn a_column_that_is_dropped_costs_no_request() {
    for column in ["note", "created", "user_id"] {
        let site = Site::new().await;
        execute(&site.pool, "ALTER TABLE session ADD note text").await;
        site.store.check().await.expect("a table that serves");
        let mut browser = site.visitor().await;
        let sql = format!("ALTER TABLE session DROP COLUMN {column}");
        execute(&site.pool, &sql).await;
        assert_eq!(browser.get("/cycle").await.status, 200, "{column}");
        execute(&site.pool, "TRUNCATE session").await;
        Life::of(&site.pool, "session").is_whole(&site.store).await;
    }
}

#[tokio::test]
async fn a_table_that_becomes_jsonb_costs_no_request() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/increment/n").await;
    execute(&site.pool, "ALTER TABLE session ALTER session TYPE jsonb").await;
    assert_eq!(browser.get("/increment/n").await.body, "2");
}

#[tokio::test]
async fn a_table_without_created_is_reported_to_have_no_absolute_timeout() {
    let report = report(THREE_COLUMNS).await.expect("a table that serves");
    assert!(!report.absolute_timeout && !report.per_user_sessions && !report.expiry_index);
    let told = report.to_string();
    assert!(
        told.contains("created the absolute timeout is off"),
        "{told}"
    );
    assert!(told.contains("user_id"), "{told}");
    assert!(told.contains("index on expiry"), "{told}");
}

/// The layer is added before the first inspection of the table.
#[tokio::test]
async fn an_explicit_absolute_timeout_is_never_silently_off() {
    let site = Site::with_table(THREE_COLUMNS).await;
    let layer = site.layer().absolute_timeout(Duration::from_secs(3600));
    let mut browser = Browser::new(&app(layer));
    let response = browser.get("/insert/a/1").await;
    assert!(response.status.is_server_error());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn timeouts_beyond_the_calendar_of_postgres_are_endless() {
    for site in [Site::new().await, Site::with_table(THREE_COLUMNS).await] {
        let layer = site
            .layer()
            .idle_timeout(Duration::MAX)
            .absolute_timeout(None);
        let mut browser = Browser::new(&app(layer));
        assert_eq!(browser.get("/insert/a/1").await.status, 200);
        assert_eq!(browser.get("/increment/n").await.status, 200);
        assert!(browser.get("/cycle").await.token().is_some());
        assert_eq!(browser.get("/get/a").await.body, "\"1\"");
        let sql = "SELECT DISTINCT expiry::text FROM session ORDER BY 1 DESC LIMIT 1";
        assert_eq!(texts(&site.pool, sql).await, ["infinity"]);
    }
}

#[tokio::test]
async fn a_missing_table_is_an_error_without_detail() {
    let site = Site::without_table().await;
    let token = "A".repeat(43);
    let visitor = site.browser().with_cookie("__Host-id", &token);
    for path in ["/get/a", "/insert/a/1", "/destroy"] {
        let response = visitor.peek(path).await;
        assert_eq!(response.status, 500, "{path}");
        assert_eq!(response.body, "The session store can't be used.");
        assert!(response.sets_no_cookie());
    }
}

#[tokio::test]
async fn a_table_that_comes_later_serves_from_then_on() {
    let site = Site::without_table().await;
    let mut browser = site.browser();
    assert!(browser.get("/insert/a/1").await.status.is_server_error());
    site.elsewhere().await.migrate().await.expect("a table");
    assert_eq!(browser.get("/insert/a/1").await.status, 200);
    assert_eq!(browser.get("/get/a").await.body, "\"1\"");
}

#[tokio::test]
async fn neither_migrate_nor_check_need_be_called() {
    let site = Site::new().await;
    let fresh = site.elsewhere().await;
    Life::of(&site.pool, "session").is_whole(&fresh).await;
}

/// A table without zones on a server that keeps the clock of New York.
async fn site_in_new_york(document: &str) -> Site {
    let site = Site::with_table(&format!(
        "CREATE TABLE session (id text PRIMARY KEY, expiry timestamp NOT NULL, session {document})"
    ))
    .await;
    let name = texts(&site.pool, "SELECT current_database()::text").await;
    let sql = format!(
        "ALTER DATABASE {} SET timezone TO 'America/New_York'",
        name[0]
    );
    execute(&site.pool, &sql).await;
    site
}

async fn lives_in_new_york(document: &str, zone: Option<&str>) {
    let site = site_in_new_york(document).await;
    let store = site.elsewhere().await;
    let store = match zone {
        Some(zone) => store.time_zone(zone),
        None => store,
    };
    let life = Life::of(&site.pool, "session").on_the_clock_of(zone.unwrap_or("UTC"));
    life.is_whole(&store).await;
    store.migrate().await.expect("a table to complete");
    life.is_whole(&store).await;
}

#[tokio::test]
async fn a_timestamp_without_zone_is_utc_whatever_the_servers_zone() {
    lives_in_new_york("json", None).await;
}

#[tokio::test]
async fn a_timestamp_without_zone_keeps_the_clock_that_was_chosen() {
    lives_in_new_york("json", Some("Europe/Berlin")).await;
    lives_in_new_york("jsonb", Some("Asia/Kathmandu")).await;
}

/// A clock that jumps, and that no other test has: three in the morning comes
/// right after two in March, and one comes twice in November.
#[tokio::test]
async fn expiry_is_right_in_new_york_and_over_dst() {
    for kind in ["timestamp", "timestamptz"] {
        let site = Site::without_table().await;
        let zone = "DO $$ BEGIN EXECUTE format($f$ALTER DATABASE %I SET timezone TO
                    'America/New_York'$f$, current_database()); END $$";
        execute(&site.pool, zone).await;
        let table =
            "CREATE TABLE session (id text PRIMARY KEY, expiry KIND NOT NULL, session json)";
        execute(&site.pool, &table.replace("KIND", kind)).await;
        let store = site.store.clone().time_zone("America/New_York");
        store.migrate().await.expect("columns to add");
        let expiry = match kind {
            "timestamp" => "(expiry AT TIME ZONE 'America/New_York')",
            _ => "expiry",
        };
        for end in [
            "2027-03-14T06:59:59Z",
            "2027-03-14T07:00:00Z",
            "2027-03-14T07:30:00Z",
            "2027-11-07T04:30:00Z",
            "2027-11-07T06:30:00Z",
            "2027-11-07T07:30:00Z",
        ] {
            ends_at(&site, &store, expiry, end).await;
        }
    }
}

/// A session that was told when to end ends then, by its row and as it is read.
async fn ends_at(site: &Site, store: &PgSessionStore, expiry: &str, end: &'static str) {
    let format = &time::format_description::well_known::Rfc3339;
    let instant = time::OffsetDateTime::parse(end, format).expect("an instant");
    let layer = PgSessionLayer::new(store.clone());
    let app = app_with(layer, async move |session: Session| {
        session.insert("a", 1)?;
        session.set_expiry(Expiry::At(instant))
    });
    let mut browser = Browser::new(&app);
    assert_eq!(browser.get("/page").await.status, 200);
    let id: SessionId = browser.handle().await;
    let format_of_iso = r#"'YYYY-MM-DD"T"HH24:MI:SS"Z"'"#;
    let sql = format!(
        "SELECT to_char({expiry} AT TIME ZONE 'UTC', {format_of_iso}) FROM session WHERE id = '{id}'"
    );
    assert_eq!(texts(&site.pool, &sql).await, [end]);
    let stored = store.load(&id).await.expect("a database");
    let read = stored.expect("a session").expires_at().expect("an end");
    assert_eq!(read.format(format).expect("a date"), end);
}

#[tokio::test]
async fn a_time_zone_makes_no_difference_to_a_timestamptz() {
    let site = Site::new().await;
    let store = site.store.clone().time_zone("Asia/Kathmandu");
    Life::of(&site.pool, "session").is_whole(&store).await;
}

#[tokio::test]
async fn a_time_zone_that_does_not_exist_is_named() {
    let site = site_in_new_york("json").await;
    for zone in ["Mars/Phobos", "", "' OR true --"] {
        let store = site.store.clone().time_zone(zone);
        let error = store.check().await.expect_err("no such zone");
        assert_eq!(error.kind(), ErrorKind::Setup, "{zone}");
        assert!(error.to_string().contains("time zone"), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_a_url_is_an_error_of_set_up() {
    for url in [
        "",
        "not a URL",
        "localhost",
        "postgres://[",
        "mysql://127.0.0.1:1/a",
    ] {
        let error = PgSessionStore::connect(url).await.expect_err("no URL");
        assert_eq!(error.kind(), ErrorKind::Setup, "{url}");
        assert!(error.to_string().contains("URL"), "{error}");
    }
}
