//! Migrations: by `migrate`, by the migrator, by the files alone, and beside other applications.

use std::{borrow::Cow, path::Path};

use axum_pg_session::{ErrorKind, MIGRATOR, PgSessionStore, Session};
use sqlx::{
    AssertSqlSafe, PgPool, SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{sync::Barrier, task::JoinSet};

use crate::support::{
    Browser, Life, Role, Site, THREE_COLUMNS, execute, page::app_with, quoted, site::pool, texts,
};

const NOTES: &str = r#""public"."_axum_pg_session_migrations""#;

/// A table in the catalog: its columns and its indexes.
async fn shape(pool: &PgPool, schema: &str, table: &str) -> Vec<String> {
    let columns = format!(
        "SELECT concat_ws(' ', column_name, data_type, is_nullable, column_default)
         FROM information_schema.columns
         WHERE table_schema = '{schema}' AND table_name = '{table}' ORDER BY 1"
    );
    let indexes = format!(
        "SELECT indexdef FROM pg_indexes
         WHERE schemaname = '{schema}' AND tablename = '{table}' ORDER BY 1"
    );
    [texts(pool, &columns).await, texts(pool, &indexes).await].concat()
}

async fn dump(pool: &PgPool, table: &str) -> Vec<String> {
    let sql = format!("SELECT t::text FROM {table} AS t ORDER BY 1");
    texts(pool, &sql).await
}

#[tokio::test]
async fn migrate_makes_the_schema_and_the_table_that_are_missing() {
    let site = Site::without_table().await;
    let store = site.store.clone().schema("web").table("visits");
    store.migrate().await.expect("a new schema");
    let report = store.check().await.expect("a table");
    assert_eq!(report.to_string(), "every feature is on");
    Life::of(&site.pool, "web.visits").is_whole(&store).await;
    assert!(shape(&site.pool, "public", "session").await.is_empty());
}

#[tokio::test]
async fn migrate_in_a_schema_that_exists_leaves_its_tables_alone() {
    let site = Site::with_table("CREATE SCHEMA web; CREATE TABLE web.other AS SELECT 1 AS a").await;
    let store = site.store.clone().schema("web");
    store.migrate().await.expect("a new table");
    assert_eq!(dump(&site.pool, "web.other").await, ["(1)"]);
}

#[tokio::test]
async fn migrate_twice_is_migrate_once() {
    let site = Site::new().await;
    let (shape_before, notes) = (
        shape(&site.pool, "public", "session").await,
        dump(&site.pool, NOTES).await,
    );
    site.store.migrate().await.expect("nothing to do");
    site.elsewhere()
        .await
        .migrate()
        .await
        .expect("nothing to do");
    assert_eq!(shape(&site.pool, "public", "session").await, shape_before);
    assert_eq!(dump(&site.pool, NOTES).await, notes);
}

#[tokio::test]
async fn migrate_restores_what_was_dropped_and_changes_no_note() {
    let site = Site::new().await;
    let (before, notes) = (
        shape(&site.pool, "public", "session").await,
        dump(&site.pool, NOTES).await,
    );
    for dropped in [
        "DROP TABLE session",
        "DROP INDEX session_expiry_idx, session_external_id_idx",
        "ALTER TABLE session DROP COLUMN user_id, DROP COLUMN device",
        "ALTER TABLE session DROP COLUMN external_id",
    ] {
        execute(&site.pool, dropped).await;
        let mut processes = JoinSet::new();
        for _ in 0..4 {
            let store = site.elsewhere().await;
            processes.spawn(async move { store.migrate().await });
        }
        for outcome in processes.join_all().await {
            outcome.expect(dropped);
        }
        let report = site.store.check().await.expect("a table");
        assert_eq!(report.to_string(), "every feature is on", "{dropped}");
        assert_eq!(
            shape(&site.pool, "public", "session").await,
            before,
            "{dropped}"
        );
        assert_eq!(dump(&site.pool, NOTES).await, notes, "{dropped}");
    }
    MIGRATOR.run(&site.pool).await.expect("sqlx's own notes");
    Life::of(&site.pool, "session").is_whole(&site.store).await;
}

#[tokio::test]
async fn migrate_keeps_the_sessions_of_a_table_that_it_completes() {
    let site = Site::with_table(THREE_COLUMNS).await;
    let mut browser = site.visitor().await;
    site.store.migrate().await.expect("columns to add");
    assert_eq!(browser.get("/get/a").await.body, "\"1\"");
    assert_eq!(browser.get("/increment/n").await.body, "1");
    assert!(browser.get("/cycle").await.token().is_some());
    let report = site.store.check().await.expect("a table");
    assert_eq!(report.to_string(), "every feature is on");
}

/// As many processes that start at the same moment.
async fn migrate_at_once(url: &str, name: impl Fn(PgSessionStore) -> PgSessionStore) {
    let barrier = std::sync::Arc::new(Barrier::new(16));
    let mut processes = JoinSet::new();
    for _ in 0..16 {
        let store = name(PgSessionStore::new(pool(url, 1).await));
        let barrier = barrier.clone();
        processes.spawn(async move {
            barrier.wait().await;
            store.migrate().await
        });
    }
    for outcome in processes.join_all().await {
        outcome.expect("each process succeeds");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_may_migrate_a_new_database_at_once() {
    for _ in 0..5 {
        let site = Site::without_table().await;
        migrate_at_once(site.database.url(), |store| store).await;
        assert_eq!(dump(&site.pool, NOTES).await.len(), 7);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_may_migrate_a_new_schema_at_once() {
    for _ in 0..5 {
        let site = Site::without_table().await;
        migrate_at_once(site.database.url(), |store| store.schema("web")).await;
        let report = site.store.clone().schema("web").check().await;
        assert!(report.expect("a table").absolute_timeout);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_may_complete_an_old_table_at_once() {
    for _ in 0..5 {
        let site = Site::with_table(
            "CREATE TABLE session (id text PRIMARY KEY, expiry timestamptz, session jsonb)",
        )
        .await;
        migrate_at_once(site.database.url(), |store| store).await;
    }
}

#[tokio::test]
async fn the_migrator_and_migrate_make_the_same_in_either_order() {
    let (static_first, store_first) = (Site::without_table().await, Site::without_table().await);
    MIGRATOR.run(&static_first.pool).await.expect("a table");
    static_first.store.migrate().await.expect("nothing to do");
    store_first.store.migrate().await.expect("a table");
    MIGRATOR
        .run(&store_first.pool)
        .await
        .expect("nothing to do");
    assert_eq!(
        shape(&static_first.pool, "public", "session").await,
        shape(&store_first.pool, "public", "session").await,
    );
    for site in [static_first, store_first] {
        assert_eq!(dump(&site.pool, NOTES).await.len(), 7);
        let report = site.store.check().await.expect("a table");
        assert_eq!(report.to_string(), "every feature is on");
    }
}

#[tokio::test]
async fn the_files_run_one_by_one_make_the_same_table() {
    let (by_files, by_migrate) = (Site::without_table().await, Site::new().await);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .collect();
    files.sort();
    // Twice, because `migrations/README.md` promises that each can be.
    for file in files.iter().chain(&files) {
        let sql = std::fs::read_to_string(file).expect("a file");
        execute(&by_files.pool, &sql).await;
    }
    assert_eq!(
        shape(&by_files.pool, "public", "session").await,
        shape(&by_migrate.pool, "public", "session").await,
    );
    by_files.store.migrate().await.expect("nothing to do");
    MIGRATOR.run(&by_files.pool).await.expect("nothing to do");
    Life::of(&by_files.pool, "session")
        .is_whole(&by_files.store)
        .await;
}

/// An application with migrations of its own, of the same numbers as ours.
fn host_migrator(versions: i64) -> Migrator {
    let migrations = (1..=versions)
        .map(|version| {
            let sql = format!("CREATE TABLE host_{version} (a int)");
            Migration::new(
                version,
                Cow::Owned(format!("host {version}")),
                MigrationType::Simple,
                AssertSqlSafe(sql).into_sql_str(),
                false,
            )
        })
        .collect();
    Migrator::with_migrations(migrations)
}

#[tokio::test]
async fn a_host_application_that_migrates_first_is_not_disturbed() {
    let site = Site::without_table().await;
    host_migrator(2).run(&site.pool).await.expect("the host's");
    let before = dump(&site.pool, "_sqlx_migrations").await;
    site.store.migrate().await.expect("ours");
    MIGRATOR.run(&site.pool).await.expect("ours");
    assert_eq!(dump(&site.pool, "_sqlx_migrations").await, before);
    host_migrator(6).run(&site.pool).await.expect("the host's");
    site.elsewhere().await.migrate().await.expect("ours");
    assert_eq!(dump(&site.pool, NOTES).await.len(), 7);
}

#[tokio::test]
async fn a_host_application_that_migrates_later_is_not_disturbed() {
    let site = Site::new().await;
    let before = dump(&site.pool, NOTES).await;
    host_migrator(6).run(&site.pool).await.expect("the host's");
    assert_eq!(dump(&site.pool, "_sqlx_migrations").await.len(), 6);
    assert_eq!(dump(&site.pool, NOTES).await, before);
    MIGRATOR.run(&site.pool).await.expect("ours");
    site.elsewhere().await.migrate().await.expect("ours");
    assert_eq!(dump(&site.pool, "_sqlx_migrations").await.len(), 6);
}

#[tokio::test]
async fn two_tables_of_one_schema_each_get_their_indexes() {
    let site = Site::new().await;
    let other = site.store.clone().table("admin");
    other.migrate().await.expect("another table");
    for table in ["session", "admin"] {
        let indexes = texts(
            &site.pool,
            &format!("SELECT indexname::text FROM pg_indexes WHERE tablename = '{table}'"),
        )
        .await;
        for suffix in ["pkey", "expiry_idx", "user_id_idx", "external_id_idx"] {
            assert!(indexes.contains(&format!("{table}_{suffix}")), "{suffix}");
        }
    }
    let report = other.check().await.expect("a table");
    assert_eq!(report.to_string(), "every feature is on");
}

#[tokio::test]
async fn two_tables_whose_long_names_begin_alike_each_get_their_indexes() {
    let site = Site::without_table().await;
    for end in ["1", "2"] {
        let store = site.store.clone().table(format!("{}{end}", "t".repeat(62)));
        store.migrate().await.expect("a long name");
        let report = store.check().await.expect("a table");
        assert_eq!(report.to_string(), "every feature is on");
    }
    let sql = "SELECT indexname::text FROM pg_indexes WHERE schemaname = 'public'
               AND tablename LIKE 'ttt%'";
    assert_eq!(texts(&site.pool, sql).await.len(), 8);
}

async fn lives_under(name: &str) {
    let site = Site::without_table().await;
    let store = site.store.clone().schema(name).table(name);
    store
        .migrate()
        .await
        .unwrap_or_else(|error| panic!("{name}: {error:?}"));
    store.migrate().await.expect("nothing to do");
    let report = store.check().await.expect("a table");
    assert_eq!(report.to_string(), "every feature is on", "{name}");
    let table = format!("{}.{}", quoted(name), quoted(name));
    Life::of(&site.pool, &table).is_whole(&store).await;
}

#[tokio::test]
async fn hostile_table_names_are_quoted() {
    let longest = ["t".repeat(63), format!("{}u", "ü".repeat(31))];
    for name in [
        "a\"b",
        "a'b",
        "a.b",
        "Session",
        "сессия-会话-🍐",
        &longest[0],
        &longest[1],
        "select",
        "a\"; DROP TABLE x; --",
        // Like a part of our statements.
        "session_expiry_idx",
        "t.expiry > now()",
        "session, created, user_id)",
        "\"",
        "\"\".\"",
        "100%",
        "a\nb\t",
        "$1, $2",
        "a\\b",
        "/* -- ",
        "{}{name}",
        " ",
        "TABLE",
        "x.pg_class",
    ] {
        lives_under(name).await;
    }
}

#[tokio::test]
async fn a_name_that_postgres_would_cut_or_refuse_is_an_error() {
    let site = Site::without_table().await;
    let long = "t".repeat(64);
    for name in ["", "a\0b", &long] {
        for store in [
            site.store.clone().table(name),
            site.store.clone().schema(name),
        ] {
            for error in [
                store.migrate().await.expect_err("a bad name"),
                store.check().await.map(drop).expect_err("a bad name"),
            ] {
                assert_eq!(error.kind(), ErrorKind::Setup, "{name:?}");
                assert!(error.to_string().contains("63 bytes"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn without_leave_to_create_migrate_creates_nothing() {
    let site = Site::without_table().await;
    let store = site.store.clone().schema("web").create_table(false);
    let error = store.migrate().await.expect_err("no table");
    assert_eq!(error.kind(), ErrorKind::Setup);
    assert!(error.to_string().contains(r#""web"."session""#), "{error}");
    let sql = "SELECT nspname::text FROM pg_namespace WHERE nspname = 'web'";
    assert!(texts(&site.pool, sql).await.is_empty());
    let sql = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'";
    assert!(texts(&site.pool, sql).await.is_empty());
}

#[tokio::test]
async fn without_leave_to_create_a_table_that_exists_serves_as_it_is() {
    let site = Site::with_table(THREE_COLUMNS).await;
    let before = shape(&site.pool, "public", "session").await;
    let store = site.store.clone().create_table(false);
    store.migrate().await.expect("a table");
    assert_eq!(shape(&site.pool, "public", "session").await, before);
    Life::of(&site.pool, "session").is_whole(&store).await;
}

/// As an application does that copies the files into its own folder, beside
/// its own migrations 1 to 5.
#[tokio::test]
async fn copies_of_the_files_run_under_versions_of_the_applications_own() {
    let site = Site::without_table().await;
    let folder = std::env::temp_dir().join(format!("migrations-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    for own in 1..=5 {
        let file = folder.join(format!("{own:04}_shop.sql"));
        std::fs::write(file, format!("CREATE TABLE shop_{own} (id int)")).expect("a file");
    }
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    for file in std::fs::read_dir(ours).expect("the folder") {
        let path = file.expect("a file").path();
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if name.ends_with(".sql") {
            std::fs::copy(&path, folder.join(format!("2026010100{name}"))).expect("a copy");
        }
    }
    let migrator = Migrator::new(folder.clone());
    let migrator = migrator.await.expect("migrations");
    migrator.run(&site.pool).await.expect("a new schema");
    std::fs::remove_dir_all(folder).expect("a folder");
    let report = site.store.check().await.expect("a table");
    assert_eq!(report.to_string(), "every feature is on");
    site.store.migrate().await.expect("nothing to do");
    migrator.run(&site.pool).await.expect("nothing to do");
}

/// Its pool may have all of the connections that the role is allowed.
#[tokio::test]
async fn a_role_with_as_many_connections_as_its_pool_can_migrate() {
    for connections in [1, 2, 3] {
        let site = Site::without_table().await;
        let role = Role::new(&site.pool).await;
        execute(&site.pool, "GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC").await;
        let limited = format!(
            "ALTER ROLE {0} LOGIN CONNECTION LIMIT {connections}",
            role.name
        );
        execute(&site.pool, &limited).await;
        let options: PgConnectOptions = site.database.url().parse().expect("a URL");
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .connect_with(options.username(&role.name))
            .await
            .expect("a connection");
        let mut all = Vec::new();
        for _ in 0..connections {
            all.push(pool.acquire().await.expect("a connection"));
        }
        drop(all);
        let store = PgSessionStore::new(pool.clone());
        store.migrate().await.expect("a new table");
        let report = store.check().await.expect("a table");
        assert_eq!(report.to_string(), "every feature is on");
        pool.close().await;
        role.drop().await;
    }
}

#[tokio::test]
async fn the_owner_completes_a_table_that_another_role_was_to_migrate_first() {
    let site = Site::with_table("GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC").await;
    let (owner, other) = (Role::new(&site.pool).await, Role::new(&site.pool).await);
    execute(&site.pool, THREE_COLUMNS).await;
    execute(
        &site.pool,
        &format!("ALTER TABLE session OWNER TO {}", owner.name),
    )
    .await;
    execute(
        &site.pool,
        &format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON session TO {}",
            other.name
        ),
    )
    .await;
    let application = other.store(site.database.url()).await;
    application.migrate().await.expect("a table that serves");
    assert!(!application.check().await.expect("a table").absolute_timeout);
    let owners = owner.store(site.database.url()).await;
    owners.migrate().await.expect("columns to add");
    let report = owners.check().await.expect("a table");
    assert_eq!(report.to_string(), "every feature is on");
    owner.drop().await;
    other.drop().await;
}

/// Of an earlier version, or of a program that ran the files itself.
#[tokio::test]
async fn an_owner_who_may_not_write_the_notes_gets_an_error() {
    let site = Site::with_table("GRANT CREATE, USAGE ON SCHEMA public TO PUBLIC").await;
    let owner = Role::new(&site.pool).await;
    execute(&site.pool, THREE_COLUMNS).await;
    execute(
        &site.pool,
        &format!("ALTER TABLE session OWNER TO {}", owner.name),
    )
    .await;
    execute(
        &site.pool,
        &format!(
            "CREATE TABLE {NOTES} (version bigint PRIMARY KEY, description text NOT NULL,
             installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL,
             checksum bytea NOT NULL, execution_time bigint NOT NULL)"
        ),
    )
    .await;
    let store = owner.store(site.database.url()).await;
    let error = store.migrate().await.expect_err("no right to the notes");
    assert_eq!(error.kind(), ErrorKind::Setup);
    assert!(
        error.to_string().contains("_axum_pg_session_migrations"),
        "{error}"
    );
    owner.drop().await;
}

/// Asserts that a table is refused, with this word in the error.
async fn is_refused(table: &str, word: &str) {
    let site = Site::with_table(table).await;
    let before = shape(&site.pool, "public", "session").await;
    for outcome in [
        site.store.check().await.map(drop),
        site.store.migrate().await,
    ] {
        let error = outcome.expect_err(table);
        assert_eq!(error.kind(), ErrorKind::Setup, "{error:?}");
        assert!(error.to_string().contains(word), "{error}");
    }
    assert_eq!(shape(&site.pool, "public", "session").await, before);
}

#[tokio::test]
async fn a_relation_that_is_no_table_is_refused_by_what_it_is() {
    for (view, word) in [
        ("CREATE VIEW session AS SELECT 'a' AS id", "is a view"),
        (
            "CREATE MATERIALIZED VIEW session AS SELECT 'a' AS id",
            "is a materialized view",
        ),
        ("CREATE SEQUENCE session", "is a sequence"),
        ("CREATE TYPE session AS (id text)", "is a type"),
    ] {
        is_refused(view, word).await;
    }
}

/// The three columns, and these.
fn with(columns: &str) -> String {
    THREE_COLUMNS.replace(", session json)", &format!(", session json, {columns})"))
}

#[tokio::test]
async fn an_optional_column_that_lacks_a_default_or_can_not_be_null_is_refused() {
    for (columns, word) in [
        ("created timestamptz", "created without a default"),
        (
            "created timestamptz NOT NULL DEFAULT now(), user_id text NOT NULL DEFAULT ''",
            "NOT NULL",
        ),
        ("device json NOT NULL DEFAULT '{}'", "NOT NULL"),
    ] {
        is_refused(&with(columns), word).await;
    }
}

#[tokio::test]
async fn an_own_column_that_is_unique_is_refused_as_an_id_could_not_change() {
    for columns in [
        "email text UNIQUE",
        "site text, email text, UNIQUE (site, email)",
        "user_id text UNIQUE",
        // With a default, it would pass for a number of the row.
        "user_id text UNIQUE DEFAULT 'none'",
        "created timestamptz NOT NULL DEFAULT now() UNIQUE",
        "last_seen timestamptz DEFAULT now() UNIQUE",
        "email text, EXCLUDE USING hash (email WITH =)",
        "email text, EXCLUDE USING hash (lower(email) WITH =)",
    ] {
        is_refused(&with(columns), "is unique").await;
    }
    for index in [
        "site, lower(email)",
        "(session->>'cart')",
        "site, (session->>'cart')",
    ] {
        let table = with("site text, email text");
        let table = format!("{table}; CREATE UNIQUE INDEX ON session ({index})");
        is_refused(&table, "is unique").await;
    }
}

#[tokio::test]
async fn own_columns_that_an_id_change_can_copy_are_no_obstacle() {
    let site = Site::with_table(
        "CREATE TABLE session (id text PRIMARY KEY, expiry timestamptz NOT NULL, session json,
             created timestamptz NOT NULL DEFAULT now(), user_id text,
             last_seen timestamptz NOT NULL DEFAULT now(), device json,
             number bigint GENERATED ALWAYS AS IDENTITY UNIQUE, serial serial UNIQUE,
             tenant text NOT NULL DEFAULT 'a', note text, UNIQUE (id, note),
             doubled bigint GENERATED ALWAYS AS (length(id)) STORED)",
    )
    .await;
    site.store.migrate().await.expect("indexes to add");
    Life::of(&site.pool, "session").is_whole(&site.store).await;
    let page = async |session: Session| session.login("alice");
    let login = app_with(site.layer(), page);
    let mut browser = Browser::new(&login);
    for page in ["/page", "/page", "/cycle", "/insert/a/1", "/page"] {
        let response = browser.get(page).await;
        assert_eq!(response.status, 200, "{:?}", response.error);
    }
}
