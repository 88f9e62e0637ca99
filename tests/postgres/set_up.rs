//! What a table must have, what it may have, and what is told of it at start.

use std::time::{Duration, Instant};

use axum::{Router, routing::get};
use axum_pg_session::{
    Error, ErrorKind, Expiry, PgSessionLayer, PgSessionStore, Session, SessionId, TableReport,
};

use crate::support::{Browser, Life, Site, app, execute, page::app_with, texts};

const THREE_COLUMNS: &str =
    "CREATE TABLE session (id text PRIMARY KEY, expiry timestamptz NOT NULL, session json)";

/// A site whose table another system made.
async fn site_with(table: &str) -> Site {
    let site = Site::without_table().await;
    execute(&site.pool, table).await;
    site
}

async fn report(table: &str) -> Result<TableReport, Error> {
    site_with(table).await.store.check().await
}

/// Both `check` and `migrate` refuse the table with the same words.
async fn refusal(columns: &str) -> String {
    let site = site_with(&format!("CREATE TABLE session ({columns})")).await;
    let error = site.store.check().await.expect_err("can't serve");
    assert_eq!(error.kind(), ErrorKind::Setup, "{columns}");
    let told = error.to_string();
    assert!(told.contains(r#""public"."session""#), "{told}");
    let error = site.store.migrate().await.expect_err("can't serve");
    assert_eq!(error.to_string(), told);
    told
}

async fn assert_refused(columns: &str, words: &[&str]) {
    let told = refusal(columns).await;
    for word in words {
        assert!(told.contains(word), "{word} in {told}");
    }
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

#[tokio::test]
async fn a_missing_column_is_named() {
    assert_refused("expiry timestamptz, session json", &["has no column id"]).await;
    assert_refused(
        "id text PRIMARY KEY, session json",
        &["has no column expiry"],
    )
    .await;
    assert_refused(
        "id text PRIMARY KEY, expiry timestamptz",
        &["has no column session"],
    )
    .await;
}

#[tokio::test]
async fn an_id_of_another_type_is_named() {
    for found in ["integer", "uuid", "bytea"] {
        assert_refused(
            &format!("id {found} PRIMARY KEY, expiry timestamptz, session json"),
            &["column id of type", found, "must be text"],
        )
        .await;
    }
}

#[tokio::test]
async fn an_expiry_of_another_type_is_named() {
    for found in ["text", "bigint", "date"] {
        assert_refused(
            &format!("id text PRIMARY KEY, expiry {found}, session json"),
            &["column expiry of type", found, "timestamptz"],
        )
        .await;
    }
}

#[tokio::test]
async fn a_session_of_another_type_is_named() {
    for found in ["text", "bytea"] {
        assert_refused(
            &format!("id text PRIMARY KEY, expiry timestamptz, session {found}"),
            &["column session of type", found, "json"],
        )
        .await;
    }
}

#[tokio::test]
async fn an_optional_column_of_another_type_is_named() {
    let three = "id text PRIMARY KEY, expiry timestamptz, session json";
    assert_refused(&format!("{three}, created timestamp"), &["column created"]).await;
    assert_refused(&format!("{three}, user_id int"), &["column user_id"]).await;
}

#[tokio::test]
async fn an_id_that_is_not_unique_is_refused() {
    let rest = "expiry timestamptz, session json";
    assert_refused(&format!("id text, {rest}"), &["unique", "id"]).await;
    assert_refused(
        &format!("id text, {rest}, a int DEFAULT 1, PRIMARY KEY (id, a)"),
        &["unique", "id"],
    )
    .await;
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

/// `ON CONFLICT` refuses such a key, so no session could be inserted.
#[tokio::test]
async fn a_deferrable_key_is_refused() {
    assert_refused(
        "id text PRIMARY KEY DEFERRABLE, expiry timestamptz, session json",
        &["unique", "id"],
    )
    .await;
}

/// `ON CONFLICT` refuses a table with any such key.
#[tokio::test]
async fn a_deferrable_key_of_other_columns_is_refused() {
    for column in [
        "seq bigint GENERATED ALWAYS AS IDENTITY UNIQUE DEFERRABLE",
        "tenant int DEFAULT 1, UNIQUE (id, tenant) DEFERRABLE INITIALLY DEFERRED",
    ] {
        assert_refused(
            &format!("id text PRIMARY KEY, expiry timestamptz, session json, {column}"),
            &["DEFERRABLE", "inserted"],
        )
        .await;
    }
}

/// A new id has the same document as the former one for a moment.
#[tokio::test]
async fn a_unique_column_that_is_generated_from_copies_is_refused() {
    for column in [
        "cart text GENERATED ALWAYS AS (session->>'cart') STORED UNIQUE",
        "note text, loud text GENERATED ALWAYS AS (upper(note)) STORED UNIQUE",
    ] {
        assert_refused(
            &format!("id text PRIMARY KEY, expiry timestamptz, session json, {column}"),
            &["unique", "two rows"],
        )
        .await;
    }
}

#[tokio::test]
async fn a_unique_column_that_is_generated_from_the_id_does_no_harm() {
    let site = site_with(THREE_COLUMNS).await;
    let column = "ALTER TABLE session ADD digest text GENERATED ALWAYS AS (md5(id)) STORED UNIQUE";
    execute(&site.pool, column).await;
    site.store.migrate().await.expect("a table that serves");
    Life::of(&site.pool, "session").is_whole(&site.store).await;
}

#[tokio::test]
async fn a_unique_index_is_as_good_as_a_primary_key() {
    let site = site_with(
        "CREATE TABLE session (a serial PRIMARY KEY, id text, expiry timestamptz, session json);
         CREATE UNIQUE INDEX ON session (id)",
    )
    .await;
    assert!(site.store.check().await.expect("a table").unique_id);
}

#[tokio::test]
async fn an_id_too_short_for_ours_is_named() {
    assert_refused(
        "id varchar(42) PRIMARY KEY, expiry timestamptz, session json",
        &["column id", "43"],
    )
    .await;
}

#[tokio::test]
async fn a_column_of_the_application_without_default_is_named() {
    assert_refused(
        "id text PRIMARY KEY, expiry timestamptz, session json, tenant int NOT NULL",
        &["column tenant", "NOT NULL", "default"],
    )
    .await;
}

#[tokio::test]
async fn a_column_of_the_application_with_a_default_does_no_harm() {
    let site = site_with(
        "CREATE TABLE session (id text PRIMARY KEY, expiry timestamptz, session json,
         tenant int NOT NULL DEFAULT 1, n int GENERATED ALWAYS AS IDENTITY,
         size int GENERATED ALWAYS AS (length(session::text)) STORED)",
    )
    .await;
    site.store.migrate().await.expect("a table that serves");
    Life::of(&site.pool, "session").is_whole(&site.store).await;
}

/// Saves, touches and cycles a session beside whose document stands a note.
async fn assert_keeps_note(site: &Site) {
    let mut browser = site.browser();
    browser.get("/insert/a/1").await;
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
    let site = site_with(THREE_COLUMNS).await;
    execute(&site.pool, r#"ALTER TABLE session ADD "the note" text"#).await;
    assert_keeps_note(&site).await;
}

#[tokio::test]
async fn a_column_that_reads_like_our_statements_keeps_its_value() {
    let site = site_with(
        r#"CREATE TABLE session (id text PRIMARY KEY, expiry timestamp, session json,
           "t.expiry > now()" int, "the note" text)"#,
    )
    .await;
    assert_keeps_note(&site).await;
}

#[tokio::test]
async fn a_serial_number_of_the_application_is_no_hindrance() {
    for column in [
        "n bigserial UNIQUE",
        "n int GENERATED BY DEFAULT AS IDENTITY UNIQUE",
        "n uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE",
    ] {
        let site = site_with(THREE_COLUMNS).await;
        execute(&site.pool, &format!("ALTER TABLE session ADD {column}")).await;
        site.store.migrate().await.expect("a table that serves");
        Life::of(&site.pool, "session").is_whole(&site.store).await;
    }
}

#[tokio::test]
async fn a_column_that_is_dropped_costs_no_request() {
    for column in ["note", "created", "user_id"] {
        let site = Site::new().await;
        execute(&site.pool, "ALTER TABLE session ADD note text").await;
        site.store.check().await.expect("a table that serves");
        let mut browser = site.browser();
        browser.get("/insert/a/1").await;
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
async fn a_table_without_created_is_told_to_have_no_absolute_timeout() {
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

#[tokio::test]
async fn a_table_without_created_serves_without_an_absolute_timeout() {
    let site = site_with(THREE_COLUMNS).await;
    site.store.check().await.expect("a table that serves");
    assert!(site.layer().check().is_ok());
    Life::of(&site.pool, "session").is_whole(&site.store).await;
}

#[tokio::test]
async fn an_explicit_absolute_timeout_without_created_is_an_error_of_the_layer() {
    let site = site_with(THREE_COLUMNS).await;
    site.store.check().await.expect("a table that serves");
    let layer = site.layer().absolute_timeout(Duration::from_secs(3600));
    let error = layer.check().expect_err("no column created");
    assert_eq!(error.kind(), ErrorKind::Setup);
    let told = error.to_string();
    assert!(told.contains("absolute timeout"), "{told}");
    assert!(told.contains("column created"), "{told}");
    assert!(site.layer().absolute_timeout(None).check().is_ok());
}

#[tokio::test]
#[should_panic(expected = "an absolute timeout needs the column created in the table")]
async fn adding_a_layer_that_contradicts_the_table_panics() {
    let site = site_with(THREE_COLUMNS).await;
    site.store.check().await.expect("a table that serves");
    let layer = site.layer().absolute_timeout(Duration::from_secs(3600));
    drop(app(layer));
}

/// A layer that was added before anybody looked at the table.
#[tokio::test]
async fn an_explicit_absolute_timeout_is_never_silently_off() {
    let site = site_with(THREE_COLUMNS).await;
    let layer = site.layer().absolute_timeout(Duration::from_secs(3600));
    let mut browser = Browser::new(&app(layer));
    let response = browser.get("/insert/a/1").await;
    assert!(response.status.is_server_error());
    assert_eq!(site.rows().count().await, 0);
}

#[tokio::test]
async fn timeouts_beyond_the_calendar_of_postgres_are_endless() {
    for site in [Site::new().await, site_with(THREE_COLUMNS).await] {
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
async fn a_missing_table_is_an_error_that_tells_a_visitor_nothing() {
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

/// What can't be stored is told by 503, whatever the reason.
#[tokio::test]
async fn a_missing_table_keeps_nothing_of_a_new_visitor() {
    let site = Site::without_table().await;
    let response = site.browser().peek("/insert/a/1").await;
    assert_eq!(response.status, 503);
    assert_eq!(response.body, "Your changes could not be saved.");
    assert!(response.sets_no_cookie());
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

#[tokio::test]
async fn a_jsonb_table_lives() {
    let site = site_with(
        "CREATE TABLE session (id text PRIMARY KEY, expiry timestamptz NOT NULL, session jsonb)",
    )
    .await;
    Life::of(&site.pool, "session").is_whole(&site.store).await;
    site.store.migrate().await.expect("a table to complete");
    Life::of(&site.pool, "session").is_whole(&site.store).await;
}

#[tokio::test]
async fn a_varchar_id_lives() {
    for id in ["varchar", "varchar(43)", "varchar(255)"] {
        let site = site_with(&format!(
            "CREATE TABLE session (id {id} PRIMARY KEY, expiry timestamptz, session json)"
        ))
        .await;
        Life::of(&site.pool, "session").is_whole(&site.store).await;
    }
}

#[tokio::test]
async fn an_expiry_of_whole_seconds_lives() {
    let site = site_with(
        "CREATE TABLE session (id text PRIMARY KEY, expiry timestamptz(0), session json)",
    )
    .await;
    Life::of(&site.pool, "session").is_whole(&site.store).await;
}

/// A table without zones on a server that keeps the clock of New York.
async fn site_in_new_york(document: &str) -> Site {
    let site = site_with(&format!(
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
    let id: SessionId = browser.get("/id").await.body.parse().expect("a handle");
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

#[tokio::test]
async fn a_server_that_is_not_there_is_told_soon() {
    let start = Instant::now();
    let url = "postgres://127.0.0.1:1/none";
    let error = PgSessionStore::connect(url).await.expect_err("no server");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(start.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn a_database_that_is_not_there_is_an_error_of_set_up() {
    let site = Site::without_table().await;
    let name = texts(&site.pool, "SELECT current_database()::text").await;
    let url = site.database.url().replace(&name[0], "not_there");
    let start = Instant::now();
    let error = PgSessionStore::connect(&url)
        .await
        .expect_err("no database");
    assert_eq!(error.kind(), ErrorKind::Setup);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn an_error_shows_the_cause_to_the_operator_and_not_the_visitor() {
    let site = site_with(THREE_COLUMNS).await;
    site.store.check().await.expect("a table that serves");
    execute(
        &site.pool,
        "ALTER TABLE session RENAME COLUMN session TO gone",
    )
    .await;
    let handler = async |session: Session| session.insert("a", 1);
    let app = Router::new()
        .route("/", get(handler))
        .layer(PgSessionLayer::new(site.store.clone()));
    let response = Browser::new(&app).peek("/").await;
    assert!(response.status.is_server_error());
    assert_eq!(response.body, "Your changes could not be saved.");
    let error = site.store.check().await.expect_err("no column");
    assert!(error.to_string().contains("has no column session"));
}
