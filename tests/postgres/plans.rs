//! The query plan of each statement.

use std::{env, fs, path::Path};

use axum_pg_session::{MIGRATOR, PgSessionStore, Reaper};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::{Site, proxy::Proxy};

/// Live rows, and a few that have expired, as between two runs of the reaper.
const ROWS: &str = r#"
    INSERT INTO "public"."session" (id, expiry, session, user_id)
    SELECT left(translate(encode(sha256(n::text::bytea), 'base64'), '+/', '-_'), 43),
           now() + (n - 1000) * interval '4 seconds',
           json_build_object('n', 0, 'padding', repeat('x', 300)),
           CASE WHEN n % 2 = 0 THEN 'user ' || n / 8 END
    FROM generate_series(1, 20000) AS n
"#;

/// The table of tower-sessions.
const OTHER_TABLE: &str = "
    CREATE SCHEMA IF NOT EXISTS tower_sessions;
    CREATE TABLE IF NOT EXISTS tower_sessions.session (
        id text primary key not null, data bytea not null, expiry_date timestamptz not null
    )";

const OTHER_ROWS: &str = "
    INSERT INTO tower_sessions.session
    SELECT n::text, sha256(n::text::bytea), now() + interval '1 day'
    FROM generate_series(1, 20000) AS n";

/// What a batch binds, as SQL expressions. `IDS` are eight of the live rows.
struct Pinned {
    file: &'static str,
    parameters: &'static [&'static str],
    /// What the plan must show.
    shows: &'static str,
}

const PRIMARY_KEY: &str = "session_pkey";
const WHOLE_TABLE: &str = "Seq Scan on session";
const DIGESTS: &str = "array_fill(sha256('x'), ARRAY[8])";
const DOCUMENTS: &str = "array_fill('{}'::text, ARRAY[8])";
const SECONDS: &str = "array_fill(86400::float8, ARRAY[8])";
const NO_SECONDS: &str = "array_fill(NULL::float8, ARRAY[8])";

const PINNED: &[Pinned] = &[
    Pinned {
        file: "advisory_lock.sql",
        parameters: &["1"],
        shows: "Result",
    },
    Pinned {
        file: "advisory_session_lock.sql",
        parameters: &["1"],
        shows: "Result",
    },
    Pinned {
        file: "age.sql",
        parameters: &["ID", "86400", "60", "60"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "backend.sql",
        parameters: &[],
        shows: "pg_stat_get_activity",
    },
    Pinned {
        file: "check_zone.sql",
        parameters: &["'UTC'"],
        shows: "Result",
    },
    Pinned {
        file: "cycle_copy.sql",
        parameters: &["ID", "'new'", "'{}'", "86400", "NULL"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "cycle_forward.sql",
        parameters: &["ID", "'{}'", "60"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "cycle_lock.sql",
        parameters: &["ID"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "destroy.sql",
        parameters: &["IDS", "IDS"],
        shows: PRIMARY_KEY,
    },
    // A handle that was stored as text does not contain the partition.
    Pinned {
        file: "destroy_one.sql",
        parameters: &["ID", "false"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "destroy_unread.sql",
        parameters: &["ID"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "end.sql",
        parameters: &["'{1}'", "'{2}'", "'{3}'", "'{1,2,3}'", "'{0,0,0}'"],
        shows: "pg_stat_get_activity",
    },
    Pinned {
        file: "everyone.sql",
        parameters: &["''", "0", "1000"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "external_destroy.sql",
        parameters: &["'sid 1'", "IDS"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "external_some.sql",
        parameters: &["'sid 1'", "1000"],
        shows: "session_external_id_idx",
    },
    Pinned {
        file: "find.sql",
        parameters: &["sha256('x')"],
        shows: "session_handle_idx",
    },
    Pinned {
        file: "has_schema.sql",
        parameters: &["'public'"],
        shows: "pg_namespace",
    },
    Pinned {
        file: "has_table.sql",
        parameters: &["'public'", "'session'"],
        shows: "pg_class_relname_nsp_index",
    },
    Pinned {
        file: "insert.sql",
        parameters: &["IDS", DOCUMENTS, SECONDS, NO_SECONDS],
        shows: "Conflict Resolution: NOTHING",
    },
    Pinned {
        file: "insert_one.sql",
        parameters: &["ID", "'{}'", "86400", "NULL"],
        shows: "Conflict Resolution: NOTHING",
    },
    Pinned {
        file: "insert_user.sql",
        parameters: &[
            "IDS",
            DOCUMENTS,
            SECONDS,
            NO_SECONDS,
            "array_fill('7'::text, ARRAY[8])",
        ],
        shows: "Conflict Resolution: NOTHING",
    },
    Pinned {
        file: "insert_user_one.sql",
        parameters: &["ID", "'{}'", "86400", "NULL", "'7'"],
        shows: "Conflict Resolution: NOTHING",
    },
    Pinned {
        file: "inspect.sql",
        parameters: &["'public'", "'session'", "ARRAY['a']", "ARRAY['b']"],
        shows: "pg_attribute_relid_attnum_index",
    },
    Pinned {
        file: "limits.sql",
        parameters: &["'1000'", "'200'"],
        shows: "Result",
    },
    Pinned {
        file: "load.sql",
        parameters: &["IDS"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "load_one.sql",
        parameters: &["ID"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "lock.sql",
        parameters: &["ID"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "login_copy.sql",
        parameters: &[
            "ID",
            "'new'",
            "'{}'",
            "86400",
            "NULL",
            "'user 1000'",
            "NULL",
            "NULL",
        ],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "login_insert.sql",
        parameters: &[
            "'new'",
            "'{}'",
            "86400",
            "NULL",
            "'user 1000'",
            "NULL",
            "NULL",
        ],
        shows: "Insert on session",
    },
    Pinned {
        file: "prepared.sql",
        parameters: &[],
        shows: "pg_prepared_statement",
    },
    Pinned {
        file: "probe.sql",
        parameters: &[],
        shows: "Result",
    },
    Pinned {
        file: "probe_own.sql",
        parameters: &["'6000'"],
        shows: "Result",
    },
    Pinned {
        file: "read_only.sql",
        parameters: &[],
        shows: "Result",
    },
    Pinned {
        file: "reap.sql",
        parameters: &["1000"],
        shows: "session_expiry_idx",
    },
    Pinned {
        file: "reap_find.sql",
        parameters: &["1000", "IDS"],
        shows: "session_expiry_idx",
    },
    Pinned {
        file: "reap_lock.sql",
        parameters: &["1"],
        shows: "Result",
    },
    Pinned {
        file: "reap_some.sql",
        parameters: &["IDS"],
        shows: "Index Scan",
    },
    Pinned {
        file: "reap_unread.sql",
        parameters: &["ID"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "restore_row.sql",
        parameters: &["'new'", "'{}'", "86400", "NULL", "'(,,,,,,,)'"],
        shows: "Insert on session",
    },
    Pinned {
        file: "restores.sql",
        parameters: &["ID"],
        shows: "Result",
    },
    Pinned {
        file: "row_as_text.sql",
        parameters: &["ID"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "row_security.sql",
        parameters: &["'public'", "'session'"],
        shows: "pg_class_relname_nsp_index",
    },
    Pinned {
        file: "save.sql",
        parameters: &["IDS", DIGESTS, DOCUMENTS, SECONDS, NO_SECONDS],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "save_one.sql",
        parameters: &["ID", "sha256('x')", "'{}'", "86400", "NULL"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "save_user.sql",
        parameters: &["ID", "'{}'", "86400", "NULL", "'7'", "true"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "server.sql",
        parameters: &[],
        shows: "Result",
    },
    Pinned {
        file: "takeover_delete.sql",
        parameters: &["'7'", "sha256('7')"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "takeover_read.sql",
        parameters: &["'7'", "ID"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "touch.sql",
        parameters: &["IDS", SECONDS, SECONDS, NO_SECONDS],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "touch_one.sql",
        parameters: &["ID", "86400", "86400", "NULL"],
        shows: PRIMARY_KEY,
    },
    // Once, before all sessions are ended.
    Pinned {
        file: "undated.sql",
        parameters: &["60"],
        shows: WHOLE_TABLE,
    },
    Pinned {
        file: "undo.sql",
        parameters: &["ID", "'{}'", "60", "NULL", "NULL", "60", "NULL"],
        shows: PRIMARY_KEY,
    },
    Pinned {
        file: "user_count.sql",
        parameters: &["'user 1000'", "''"],
        shows: "session_user_id_idx",
    },
    Pinned {
        file: "user_destroy.sql",
        parameters: &["'user 1000'", "IDS"],
        shows: "Index Scan",
    },
    Pinned {
        file: "user_list.sql",
        parameters: &["'user 8'", "'infinity'", "''", "1000"],
        shows: "session_user_id_idx",
    },
    Pinned {
        file: "user_some.sql",
        parameters: &["'user 8'", "ID", "1000"],
        shows: "session_user_id_idx",
    },
    Pinned {
        file: "version.sql",
        parameters: &[],
        shows: "Result",
    },
    Pinned {
        file: "watch.sql",
        parameters: &["IDS", "60"],
        shows: PRIMARY_KEY,
    },
];

fn pinned(file: &str) -> &'static Pinned {
    let found = PINNED.iter().find(|pinned| pinned.file == file);
    found.expect("a file of the folder")
}

/// The statements of the folder, by file name.
fn statements() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/sql");
    let files = fs::read_dir(folder).expect("the folder of statements");
    let mut statements: Vec<_> = files
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into();
            (name, fs::read_to_string(path).expect("text"))
        })
        .collect();
    statements.sort();
    statements
}

fn statement(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/sql");
    fs::read_to_string(path.join(file)).expect("a statement")
}

/// A connection to a table of many rows that are known to the planner.
async fn crowded() -> (Site, PgConnection) {
    let site = Site::new().await;
    let mut connection = connect(&site).await;
    // As `migrate` creates it in the formats of Koa and Express.
    let handles = include_str!("../../migrations/shared/0008_handle_index.sql");
    for sql in [ROWS, OTHER_TABLE, OTHER_ROWS, handles, "VACUUM ANALYZE"] {
        run(&mut connection, sql).await;
    }
    (site, connection)
}

async fn connect(site: &Site) -> PgConnection {
    PgConnection::connect(site.database.url())
        .await
        .expect("a connection")
}

async fn run(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{error}: {sql}"));
}

/// Eight ids, as literals.
async fn live_ids(connection: &mut PgConnection) -> Vec<String> {
    let sql = r#"SELECT quote_literal(id) FROM "public"."session" WHERE expiry > now() ORDER BY id LIMIT 8"#;
    sqlx::query_scalar(sql)
        .fetch_all(connection)
        .await
        .expect("live rows")
}

impl Pinned {
    fn values(&self, ids: &[String]) -> String {
        let array = format!("ARRAY[{}]", ids.join(","));
        let value = |parameter: &&str| match *parameter {
            "ID" => ids[0].clone(),
            "IDS" => array.clone(),
            other => other.to_owned(),
        };
        let values: Vec<_> = self.parameters.iter().map(value).collect();
        values.join(", ")
    }

    /// Executes the statement and returns its plan; what it wrote is undone.
    async fn plan(&self, connection: &mut PgConnection, sql: &str, ids: &[String]) -> String {
        run(connection, &format!("PREPARE p AS {sql}")).await;
        run(connection, "BEGIN").await;
        let values = match self.values(ids) {
            none if none.is_empty() => none,
            values => format!("({values})"),
        };
        let explain =
            format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE p{values}");
        let lines: Vec<String> = sqlx::query_scalar(AssertSqlSafe(explain))
            .fetch_all(&mut *connection)
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", self.file));
        run(connection, "ROLLBACK; DEALLOCATE p").await;
        lines.join("\n")
    }

    fn check(&self, plan: &str) {
        let file = self.file;
        assert!(plan.contains(self.shows), "{file}:\n{plan}");
        let reads_all = plan.contains(WHOLE_TABLE);
        assert_eq!(reads_all, self.shows == WHOLE_TABLE, "{file}:\n{plan}");
    }
}

async fn every_plan_is_pinned(mode: &str) {
    let (_site, mut connection) = crowded().await;
    run(&mut connection, &format!("SET plan_cache_mode = {mode}")).await;
    let ids = live_ids(&mut connection).await;
    for pinned in PINNED {
        let sql = statement(pinned.file);
        pinned.check(&pinned.plan(&mut connection, &sql, &ids).await);
    }
}

#[tokio::test]
async fn every_statement_finds_its_rows_by_an_index() {
    every_plan_is_pinned("force_custom_plan").await;
}

/// Postgres goes over to a plan without regard for the parameters once it
/// looks no dearer.
#[tokio::test]
async fn every_statement_finds_its_rows_by_an_index_with_a_generic_plan() {
    every_plan_is_pinned("force_generic_plan").await;
}

/// Such as by a script that signs in for each of its runs. Postgres knows from its statistics how
/// common the user is, and expects to find a few of the sessions anywhere.
#[tokio::test]
async fn the_sessions_of_a_user_with_very_many_are_found_by_an_index() {
    let (_site, mut connection) = crowded().await;
    let at_the_end = r#"
        INSERT INTO "public"."session" (id, expiry, session, user_id)
        SELECT 'of the script ' || n, now() + interval '1 day', '{}', 'script'
        FROM generate_series(1, 4000) AS n"#;
    run(&mut connection, at_the_end).await;
    run(&mut connection, "VACUUM ANALYZE").await;
    let common = Pinned {
        file: "user_some.sql",
        parameters: &["'script'", "''", "3"],
        shows: "session_user_id_idx",
    };
    let sql = statement(common.file);
    common.check(&common.plan(&mut connection, &sql, &[]).await);
}

/// The statement of the reaper as it is sent for the table that is there.
async fn sent_by_the_reaper(site: &Site) -> String {
    let proxy = Proxy::before(site.database.url()).await;
    let store = PgSessionStore::new(proxy.pool().await);
    let reaper = Reaper::new(store);
    reaper.run_once().await.expect("rows that may be deleted");
    let texts = proxy.take_texts();
    let sent = texts.into_iter().find(|text| text.contains("DELETE FROM"));
    sent.expect("a statement that deletes")
}

#[tokio::test]
async fn the_reaper_finds_its_rows_by_an_index_on_timestamp_too() {
    let site = Site::new().await;
    let mut connection = connect(&site).await;
    let alter = r#"ALTER TABLE "public"."session" ALTER expiry TYPE timestamp"#;
    run(&mut connection, alter).await;
    let sql = sent_by_the_reaper(&site).await;
    assert!(sql.contains("AT TIME ZONE"), "{sql}");
    run(&mut connection, ROWS).await;
    run(&mut connection, "VACUUM ANALYZE").await;
    let pinned = pinned("reap.sql");
    pinned.check(&pinned.plan(&mut connection, &sql, &[]).await);
}

#[test]
fn every_statement_has_a_pinned_plan() {
    let files: Vec<_> = statements().into_iter().map(|(file, _)| file).collect();
    let pinned: Vec<_> = PINNED.iter().map(|pinned| pinned.file).collect();
    assert_eq!(files, pinned);
}

#[tokio::test]
#[ignore = "a step of .ci/prepare-sqlx, which names the database"]
async fn migrate_the_database_of_prepare_sqlx() {
    let url = env::var("AXUM_PG_SESSION_DATABASE_URL").expect("set by .ci/prepare-sqlx");
    let pool = sqlx::PgPool::connect(&url).await.expect("a database");
    MIGRATOR.run(&pool).await.expect("a default table");
    let other = sqlx::raw_sql(OTHER_TABLE).execute(&pool).await;
    other.expect("a table of tower-sessions");
}
