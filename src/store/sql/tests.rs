//! The statements against the types of the default table.
//!
//! The macros compare with `.sqlx` when the tests are compiled, so nothing here queries a
//! database; `.ci/prepare-sqlx` writes that folder. Values marked `as _` are cast by the
//! statement itself, or may be null.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use sha2::{Digest as _, Sha256};
use sqlx::query_file;

use time::OffsetDateTime;

use crate::store::{admin::page::Listed, table::timestamp::Instant};

/// A row that a load returns.
type LoadedRow = (
    String,
    Option<String>,
    Instant,
    Option<Instant>,
    Instant,
    Option<Instant>,
    Option<String>,
);

/// What a statement returns for a row that it wrote.
type Written = (String, OffsetDateTime);

/// And for one that it deleted.
type Destroyed = (String, OffsetDateTime, Option<String>, Option<String>);

/// And for one that had expired.
type Reaped = (String, Option<String>, Option<String>);

const ID: &str = "id";
const DOCUMENT: &str = "{}";
const SECONDS: f64 = 60.0;

/// The crate decodes instants itself. Postgres reports a computed one as possibly null.
fn instant(value: impl Into<Option<OffsetDateTime>>) -> Option<Instant> {
    let value = value.into()?;
    Some(Instant(value.unix_timestamp_nanos() as f64 / 1e9))
}

/// The rows of each statement have a type of their own.
macro_rules! loaded {
    ($row:ident) => {{
        let [expires, now] = [instant($row.expires), instant($row.now)].map(Option::unwrap);
        (
            $row.id,
            $row.session,
            expires,
            instant($row.created),
            now,
            instant($row.seen),
            $row.user_id,
        )
    }};
}

#[test]
fn load_fits_the_table() {
    drop(
        query_file!("src/store/sql/load.sql", &[ID.to_owned()])
            .map(|row| -> LoadedRow { loaded!(row) }),
    );
    drop(query_file!("src/store/sql/load_one.sql", ID).map(|row| -> LoadedRow { loaded!(row) }));
    drop(query_file!("src/store/sql/lock.sql", ID).map(|row| -> LoadedRow { loaded!(row) }));
}

#[test]
fn insert_fits_the_table() {
    drop(
        query_file!(
            "src/store/sql/insert.sql",
            &[ID.to_owned()],
            &[DOCUMENT.to_owned()],
            &[SECONDS],
            [Some(SECONDS)].as_slice() as _,
        )
        .map(|row| -> Written { (row.id, row.expires) }),
    );
}

#[test]
fn the_row_of_another_layers_user_fits_the_table() {
    drop(
        query_file!(
            "src/store/sql/insert_user.sql",
            &[ID.to_owned()],
            &[DOCUMENT.to_owned()],
            &[SECONDS],
            [Some(SECONDS)].as_slice() as _,
            &[ID.to_owned()],
        )
        .map(|row| -> Written { (row.id, row.expires) }),
    );
    drop(
        query_file!(
            "src/store/sql/insert_user_one.sql",
            ID,
            DOCUMENT as _,
            SECONDS,
            Some(SECONDS),
            ID,
        )
        .map(|row| -> Written { (row.id, row.expires) }),
    );
    drop(
        query_file!(
            "src/store/sql/save_user.sql",
            ID,
            DOCUMENT as _,
            SECONDS,
            Some(SECONDS),
            Some(ID),
            true,
        )
        .map(|row| -> OffsetDateTime { row.expires }),
    );
}

#[test]
fn one_row_fits_the_table() {
    drop(
        query_file!(
            "src/store/sql/insert_one.sql",
            ID,
            DOCUMENT as _,
            SECONDS,
            Some(SECONDS)
        )
        .map(|row| -> Written { (row.id, row.expires) }),
    );
    drop(
        query_file!(
            "src/store/sql/save_one.sql",
            ID,
            &[],
            DOCUMENT as _,
            Some(SECONDS),
            Some(SECONDS),
        )
        .map(|row| -> Written { (row.id, row.expires) }),
    );
    drop(
        query_file!(
            "src/store/sql/touch_one.sql",
            ID,
            SECONDS,
            SECONDS,
            Some(SECONDS)
        )
        .map(|row| -> Written { (row.id, row.expires) }),
    );
    drop(
        query_file!("src/store/sql/destroy_one.sql", ID, false)
            .map(|row| -> Destroyed { (row.id, row.expires, row.session, row.user_id) }),
    );
}

#[test]
fn save_fits_the_table() {
    drop(
        query_file!(
            "src/store/sql/save.sql",
            &[ID.to_owned()],
            &[Vec::new()],
            &[DOCUMENT.to_owned()],
            [Some(SECONDS)].as_slice() as _,
            [Some(SECONDS)].as_slice() as _,
        )
        .map(|row| -> Written { (row.id, row.expires) }),
    );
}

#[test]
fn touch_fits_the_table() {
    drop(
        query_file!(
            "src/store/sql/touch.sql",
            &[ID.to_owned()],
            &[SECONDS],
            &[SECONDS],
            [Some(SECONDS)].as_slice() as _,
        )
        .map(|row| -> Written { (row.id, row.expires) }),
    );
}

#[test]
fn destroy_fits_the_table() {
    drop(
        query_file!(
            "src/store/sql/destroy.sql",
            &[ID.to_owned()],
            &[ID.to_owned()]
        )
        .map(|row| -> Destroyed { (row.id, row.expires, row.session, row.user_id) }),
    );
}

#[test]
fn cycle_fits_the_table() {
    drop(query_file!("src/store/sql/cycle_lock.sql", ID).map(
        |row| -> (LoadedRow, Option<String>, Option<String>) {
            let extras = (row.device.clone(), row.external_id.clone());
            (loaded!(row), extras.0, extras.1)
        },
    ));
    drop(query_file!(
        "src/store/sql/cycle_copy.sql",
        ID,
        ID,
        DOCUMENT as _,
        SECONDS,
        Some(SECONDS),
    ));
    drop(query_file!(
        "src/store/sql/cycle_forward.sql",
        ID,
        DOCUMENT as _,
        SECONDS
    ));
    drop(query_file!(
        "src/store/sql/undo.sql",
        ID,
        DOCUMENT as _,
        SECONDS,
        Some(ID),
        Some(DOCUMENT) as _,
        Some(SECONDS),
        Some(ID),
    ));
}

#[test]
fn login_fits_the_table() {
    drop(query_file!("src/store/sql/advisory_lock.sql", 1_i64));
    drop(query_file!(
        "src/store/sql/advisory_session_lock.sql",
        1_i64
    ));
    drop(query_file!("src/store/sql/restores.sql", ID));
    drop(query_file!("src/store/sql/row_as_text.sql", ID));
    drop(query_file!(
        "src/store/sql/restore_row.sql",
        ID,
        DOCUMENT as _,
        SECONDS,
        Some(SECONDS),
        ID,
    ));
    drop(query_file!(
        "src/store/sql/login_copy.sql",
        ID,
        ID,
        DOCUMENT as _,
        SECONDS,
        Some(SECONDS),
        ID,
        DOCUMENT as _,
        Some(ID),
    ));
    drop(
        query_file!(
            "src/store/sql/login_insert.sql",
            ID,
            DOCUMENT as _,
            SECONDS,
            Some(SECONDS),
            ID,
            DOCUMENT as _,
            Some(ID),
        )
        .map(|row| -> OffsetDateTime { row.expires }),
    );
}

#[test]
fn takeover_fits_the_table_of_tower_sessions() {
    drop(query_file!("src/store/sql/takeover_read.sql", ID, ID).map(
        |row| -> (Option<Vec<u8>>, Option<OffsetDateTime>, Option<String>) {
            (row.data, row.expires, row.session)
        },
    ));
    drop(
        query_file!(
            "src/store/sql/takeover_delete.sql",
            ID,
            Some([0_u8].as_slice()) as _
        )
        .map(|row| -> OffsetDateTime { row.expires }),
    );
}

#[test]
fn the_statements_of_a_user_fit_the_table() {
    drop(
        query_file!("src/store/sql/user_list.sql", ID, Some(ID), ID, 1000_i64).map(
            |row| -> Listed {
                let expires = instant(row.expires).expect("not null");
                (
                    row.id,
                    expires,
                    instant(row.created),
                    instant(row.seen),
                    row.device,
                )
            },
        ),
    );
    drop(
        query_file!("src/store/sql/user_count.sql", ID, ID)
            .map(|row| -> Option<i64> { row.sessions }),
    );
    drop(
        query_file!("src/store/sql/user_some.sql", ID, ID, 4_i64)
            .map(|row| -> (String, Option<Instant>) { (row.id, instant(row.created)) }),
    );
    drop(
        query_file!("src/store/sql/user_destroy.sql", ID, &[ID.to_owned()])
            .map(|row| -> Written { (row.id, row.expires) }),
    );
    drop(
        query_file!("src/store/sql/everyone.sql", ID, SECONDS, 1000_i64)
            .map(|row| -> String { row.id }),
    );
    drop(
        query_file!("src/store/sql/undated.sql", 60.0_f64)
            .map(|row| -> (String, Option<OffsetDateTime>) { (row.id, row.created) }),
    );
}

#[test]
fn the_statements_of_an_external_id_fit_the_table() {
    drop(query_file!("src/store/sql/external_some.sql", ID, 4_i64).map(|row| -> String { row.id }));
    drop(
        query_file!("src/store/sql/external_destroy.sql", ID, &[ID.to_owned()]).map(
            |row| -> (String, OffsetDateTime, Option<String>) {
                (row.id, row.expires, row.user_id)
            },
        ),
    );
}

#[test]
fn find_fits_the_table() {
    drop(query_file!("src/store/sql/find.sql", &[0_u8]).map(|row| -> String { row.id }));
}

#[test]
fn watch_fits_the_table() {
    drop(
        query_file!("src/store/sql/watch.sql", &[ID.to_owned()], SECONDS).map(
            |row| -> (
                String,
                Option<String>,
                OffsetDateTime,
                Option<OffsetDateTime>,
                Option<String>,
            ) { (row.id, row.session, row.expires, row.now, row.user_id) },
        ),
    );
}

#[test]
fn age_fits_the_table() {
    drop(query_file!(
        "src/store/sql/age.sql",
        ID,
        SECONDS,
        SECONDS,
        SECONDS
    ));
}

#[test]
fn reap_fits_the_table() {
    drop(
        query_file!("src/store/sql/reap.sql", 1000_i64)
            .map(|row| -> Reaped { (row.id, row.user_id, row.session) }),
    );
    drop(query_file!("src/store/sql/reap_find.sql", 1000_i64, &[ID.to_owned()]).map(|row| row.id));
    drop(
        query_file!("src/store/sql/reap_some.sql", &[ID.to_owned()])
            .map(|row| -> Reaped { (row.id, row.user_id, row.session) }),
    );
    drop(
        query_file!("src/store/sql/reap_unread.sql", ID)
            .map(|row| -> Option<String> { row.user_id }),
    );
    drop(query_file!("src/store/sql/reap_lock.sql", 1_i64).map(|row| row.locked == Some(true)));
}

#[test]
fn destroy_unread_fits_the_table() {
    drop(query_file!("src/store/sql/destroy_unread.sql", ID).map(|row| (row.expires, row.user_id)));
}

#[test]
fn inspect_fits_the_catalog() {
    drop(query_file!("src/store/sql/has_schema.sql", ID as _).map(|row| row.exists == Some(true)));
    drop(
        query_file!("src/store/sql/has_table.sql", ID as _, ID as _)
            .map(|row| row.exists == Some(true)),
    );
    drop(
        query_file!(
            "src/store/sql/inspect.sql",
            ID as _,
            ID as _,
            &[ID.to_owned()] as _,
            &[ID.to_owned()] as _
        )
        .map(|row| (row.name, row.r#type, row.is_generated, row.may_delete)),
    );
    drop(
        query_file!("src/store/sql/row_security.sql", ID as _, ID as _)
            .map(|row| row.is_active == Some(true)),
    );
}

#[test]
fn what_is_asked_of_the_server_fits_any_database() {
    drop(query_file!("src/store/sql/backend.sql").map(|row| row.backend.is_some()));
    drop(
        query_file!("src/store/sql/server.sql")
            .map(|row| (instant(row.now), row.isolation.is_some())),
    );
    drop(query_file!("src/store/sql/version.sql").map(|row| row.version.is_some()));
    drop(query_file!("src/store/sql/prepared.sql").map(|row| row.name.is_some()));
    drop(query_file!("src/store/sql/read_only.sql").map(|row| row.is_read_only == Some(true)));
    drop(query_file!("src/store/sql/check_zone.sql", ID).map(|row| row.local.is_some()));
    drop(query_file!("src/store/sql/probe.sql").map(|row| {
        let backend = (row.pid.is_some(), row.started.is_some(), row.seen.is_some());
        (backend, row.is_in_a_transaction == Some(true))
    }));
    drop(query_file!("src/store/sql/probe_own.sql", ID).map(|row| (row.pid, row.started)));
    drop(query_file!("src/store/sql/limits.sql", ID, ID));
    drop(
        query_file!("src/store/sql/end.sql", &[1], &[1], &[1], &[1], &[SECONDS])
            .map(|row| (row.pid, row.is_idle, row.is_signaled)),
    );
}

fn files(folder: &str, extension: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    fs::read_dir(folder)
        .expect("a folder of the repository")
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .map(|path| fs::read_to_string(path).expect("text"))
        .collect()
}

/// With a schema of its own before the catalog in its search path, a database
/// could have other functions of these names.
#[test]
fn every_function_is_called_by_its_schema() {
    // Of several arrays, `unnest` is a word of the grammar too.
    const WORDS: [&str; 18] = [
        "all", "any", "as", "array", "and", "d", "exists", "extract", "from", "greatest", "in",
        "least", "null", "or", "values", "where", "cast", "unnest",
    ];
    for sql in files("src/store/sql", "sql") {
        for (at, _) in sql.match_indices('(') {
            let before = &sql[..at];
            let start = before
                .rfind(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '.' | '"'))
                .map_or(0, |place| place + 1);
            let called = &before[start..];
            let is_a_call = !called.is_empty()
                && !called.contains('"')
                && !WORDS.contains(&called.to_lowercase().as_str());
            assert!(
                !is_a_call || called.starts_with("pg_catalog."),
                "{called} in {sql}"
            );
        }
    }
}

/// The name under which sqlx looks for a statement's types.
fn hash(sql: &str) -> String {
    Sha256::digest(sql)
        .iter()
        .fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a String takes everything");
            hex
        })
}

#[test]
fn every_statement_was_checked_as_it_is() {
    let statements: BTreeSet<_> = files("src/store/sql", "sql").into_iter().collect();
    let checked: BTreeSet<_> = files(".sqlx", "json")
        .iter()
        .map(|text| serde_json::from_str::<serde_json::Value>(text).expect("JSON"))
        .map(|entry| {
            let sql = entry["query"].as_str().expect("the statement");
            assert_eq!(entry["hash"], hash(sql));
            sql.to_owned()
        })
        .collect();
    assert_eq!(statements, checked, "run .ci/prepare-sqlx");
}
