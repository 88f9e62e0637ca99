//! Rules of this project that a text search can check.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
    {
        if entry.is_dir() {
            found.extend(files(&entry, extension));
        } else if entry.extension().is_some_and(|found| found == extension) {
            found.push(entry);
        }
    }
    found
}

/// The code of a file, without its unit tests.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("text");
    text.split("#[cfg(test)]")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn without_comments(code: &str) -> impl Iterator<Item = &str> {
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
}

/// The files of `src` that hold no tests alone.
fn sources() -> Vec<PathBuf> {
    let mut sources = files(&root().join("src"), "rs");
    sources.retain(|file| !is_test(file));
    sources
}

fn is_test(file: &Path) -> bool {
    file.ends_with("tests.rs")
}

/// The files of `src` whose code has `pattern`, as paths below `src`.
fn users_of(pattern: &str) -> Vec<String> {
    files_where(|code| code.contains(pattern))
}

/// The files of `src` for whose code this holds, as paths below `src`.
fn files_where(holds: impl Fn(&str) -> bool) -> Vec<String> {
    let src = root().join("src");
    let mut users: Vec<_> = sources()
        .iter()
        .filter(|file| holds(&code(file)))
        .map(|file| {
            file.strip_prefix(&src)
                .expect("below src")
                .display()
                .to_string()
        })
        .collect();
    users.sort();
    users
}

#[test]
fn only_the_store_speaks_sql() {
    let users = users_of("sqlx::query");
    assert!(!users.is_empty());
    assert!(
        users.iter().all(|file| file.starts_with("store/")),
        "{users:?}"
    );
}

/// Whether a line starts a task or a thread, by whatever handle, set or builder.
fn spawns(line: &str) -> bool {
    (line.contains("spawn(") && !line.contains("fn spawn(")) || line.contains("spawn_")
}

#[test]
fn tasks_are_spawned_in_a_few_places() {
    assert_eq!(
        files_where(|code| without_comments(code).any(spawns)),
        [
            "request/lazy.rs",
            "session.rs",
            "session/saving.rs",
            "store/admin/reaper.rs",
            "store/batch/execute.rs",
            "store/batch/queue.rs",
            "store/connection/cancellations.rs",
            "store/connection/encryption.rs",
            "store/connection/pool.rs",
            "store/connection/primary.rs",
            "store/requests.rs",
            "store/rows/cycle.rs",
            "store/rows/session_queue.rs",
            "store/rows/undo.rs",
            "store/table/handle.rs",
            "store/watches/sweep.rs"
        ]
    );
}

#[test]
fn each_way_to_spawn_is_found() {
    for line in [
        "tokio::spawn(work);",
        "spawn(work);",
        "Handle::current().spawn(work);",
        "tasks.spawn(work);",
        "tokio::task::spawn_blocking(work);",
        "tasks.spawn_on(work, &runtime);",
        "std::thread::Builder::new().spawn(work);",
    ] {
        assert!(spawns(line), "{line}");
    }
    assert!(!spawns("    pub fn spawn(self) -> ReaperHandle {"));
}

/// The rest calls functions that are empty without the feature.
#[test]
fn one_file_knows_the_facade_of_metrics_and_one_the_feature() {
    assert_eq!(users_of("use metrics::"), ["telemetry/facade.rs"]);
    assert_eq!(users_of("feature = \"metrics\""), ["telemetry.rs"]);
}

#[test]
fn one_file_writes_set_cookie() {
    assert_eq!(users_of("SET_COOKIE"), ["cookie/response.rs"]);
}

#[test]
fn only_the_database_tells_the_time() {
    for clock in ["SystemTime::now", "now_utc", "now_local"] {
        assert!(users_of(clock).is_empty(), "{clock}");
    }
}

#[test]
fn the_pure_files_do_no_input_or_output() {
    for file in [
        "cookie/attributes.rs",
        "cookie/request.rs",
        "cookie/response.rs",
        "request_tokens.rs",
        "document.rs",
        "document/compare.rs",
        "document/json.rs",
        "ending.rs",
        "event.rs",
        "expiry.rs",
        "format.rs",
        "forwarding.rs",
        "format/koa/header.rs",
        "format/koa/keygrip.rs",
        "format/koa/terms.rs",
        "format/native.rs",
        "id.rs",
        "session/shape.rs",
        "state.rs",
        "state/changes.rs",
        "state/pending.rs",
        "takeover.rs",
        "timeouts.rs",
        "touch.rs",
        "takeover/tower_sessions.rs",
    ] {
        let code = code(&root().join("src").join(file));
        // Examples of documents show a whole application.
        let code: String = without_comments(&code).collect();
        for forbidden in ["sqlx", "tokio", "async ", "std::fs", "std::net"] {
            assert!(!code.contains(forbidden), "{file} has {forbidden}");
        }
    }
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    serde_json::from_slice(&output.stdout).expect("cargo speaks JSON")
}

/// Of deny.toml.
fn allowed_licences() -> Vec<String> {
    let text = fs::read_to_string(root().join("deny.toml")).expect("text");
    let list = text
        .split("allow = [")
        .nth(1)
        .and_then(|rest| rest.split(']').next());
    let quoted = list.expect("a list").split('"').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

fn is_allowed(licence: &str, allowed: &[String]) -> bool {
    let licence = licence.replace(['(', ')'], "").replace('/', " OR ");
    licence.split(" OR ").any(|choice| {
        choice
            .split(" AND ")
            .all(|part| allowed.iter().any(|allowed| allowed == part.trim()))
    })
}

#[test]
fn every_dependency_comes_from_the_registry_under_a_free_licence() {
    let (metadata, allowed) = (metadata(), allowed_licences());
    let packages = metadata["packages"].as_array().expect("packages");
    for package in packages
        .iter()
        .filter(|package| !package["source"].is_null())
    {
        let (name, licence) = (
            &package["name"],
            package["license"].as_str().unwrap_or_default(),
        );
        let source = package["source"].as_str().expect("a source");
        assert!(
            source.starts_with("registry+"),
            "{name} comes from {source}"
        );
        assert!(is_allowed(licence, &allowed), "{name} is under {licence:?}");
    }
}

/// What users of the crate build, each for the reason given in docs/internals/design.md.
#[test]
fn the_dependencies_are_those_that_were_chosen() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    let ours = packages
        .iter()
        .find(|package| package["name"] == "axum-pg-session");
    let dependencies = ours.expect("this package")["dependencies"]
        .as_array()
        .expect("a list");
    let mut names: Vec<_> = dependencies
        .iter()
        .filter(|dependency| dependency["kind"].is_null())
        .map(|dependency| dependency["name"].as_str().expect("a name"))
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "axum",
            "axum-core",
            "base64",
            "bytes",
            "cookie",
            "futures-core",
            "getrandom",
            "hmac",
            "http",
            "http-body",
            "indexmap",
            "metrics",
            "percent-encoding",
            "pin-project-lite",
            "rmp-serde",
            "serde",
            "serde_json",
            "sha1",
            "sha2",
            "sqlx",
            "sqlx-core",
            "sqlx-postgres",
            "time",
            "tokio",
            "tower-layer",
            "tower-service",
            "tracing",
            "zeroize",
        ]
    );
}

#[test]
fn every_sql_keyword_of_a_clause_begins_its_line_in_capitals() {
    for file in files(&root().join("src/store/sql"), "sql") {
        let text = fs::read_to_string(&file).expect("text");
        for keyword in [
            "select ",
            "update ",
            "insert ",
            "delete ",
            "where ",
            "from ",
            "returning ",
        ] {
            let found = text
                .lines()
                .any(|line| line.trim_start().starts_with(keyword));
            assert!(!found, "{}: {keyword}", file.display());
        }
    }
}

/// Each machine has a registry of its own.
#[test]
fn no_lock_file_of_npm_names_a_registry() {
    for folder in [
        "tests/koa/koa1",
        "tests/koa/koa2",
        "tests/express/express4",
        "tests/express/express5",
        "tests/express/knex",
        "dev-postgres/npm/15",
        "dev-postgres/npm/18",
    ] {
        let lock = root().join(folder).join("package-lock.json");
        let text = fs::read_to_string(&lock).expect("text");
        assert!(text.contains("\"integrity\""), "{}", lock.display());
        assert!(!text.contains("\"resolved\""), "{}", lock.display());
    }
}

/// Each function under a test attribute.
fn tests() -> Vec<String> {
    ["src", "tests", "dev-postgres"]
        .iter()
        .flat_map(|folder| files(&root().join(folder), "rs"))
        .flat_map(|file| tests_of(&file))
        .collect()
}

fn tests_of(file: &Path) -> Vec<String> {
    let mut tests = Vec::new();
    let text = fs::read_to_string(file).expect("text");
    let mut lines = text.lines().map(str::trim);
    while lines.any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test")) {
        let name = lines.find_map(|line| line.split_once("fn "));
        let name = name.and_then(|(_, rest)| rest.split('(').next());
        tests.extend(name.map(str::to_owned));
    }
    tests
}

/// What stands between back-ticks in the column of a table.
fn named_in(column: &str) -> impl Iterator<Item = &str> {
    column.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_that_the_asvs_table_names_exists() {
    let tests = tests();
    let text = fs::read_to_string(root().join("docs/internals/asvs.md")).expect("text");
    let mut named = 0;
    for section in ["## Requirements", "## Classes of bugs"] {
        let section = text.split(section).nth(1).expect("a section");
        let rows = section.lines().skip_while(|line| !line.starts_with("|---"));
        for row in rows.skip(1).take_while(|line| line.starts_with('|')) {
            let columns: Vec<_> = row.split('|').map(str::trim).collect();
            let column = match columns.as_slice() {
                [_, _, _, tests, duty, _] => {
                    assert!(["L", "A", "B"].contains(duty), "{row}");
                    assert!(!tests.is_empty() || *duty != "L", "{row}");
                    *tests
                }
                [_, _, tests, _] => *tests,
                _ => panic!("a row of another table: {row}"),
            };
            for name in named_in(column) {
                assert!(tests.iter().any(|test| test == name), "{name} in {row}");
                named += 1;
            }
        }
    }
    assert!(named > 90, "{named} tests are named");
}

/// The names of a file's methods that take the value and return it.
fn setters_of(file: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join(file)).expect("text");
    let methods = text.split("\n    pub fn ").skip(1);
    let is_setter = |head: &&str| head.contains("self,") && head.trim_end().ends_with("-> Self");
    let heads = methods.filter_map(|method| method.split([';', '{']).next());
    let heads = heads.map(|head| head.split("\n    where").next().unwrap_or(head));
    heads
        .filter(|head| !head.contains("&self"))
        .filter(is_setter)
        .filter_map(|head| head.split(['(', '<']).next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_reference_lists_every_option() {
    let page = fs::read_to_string(root().join("docs/reference/options.md")).expect("text");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let listed: BTreeSet<_> = rows
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(named_in)
        .filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .map(str::to_owned)
        .collect();
    let files = ["src/layer.rs", "src/store.rs", "src/store/admin/reaper.rs"];
    let options: BTreeSet<_> = files.into_iter().flat_map(setters_of).collect();
    assert!(options.len() > 35, "{options:?}");
    assert_eq!(listed, options);
}

#[test]
fn the_reference_lists_every_kind_of_error() {
    let page = fs::read_to_string(root().join("docs/reference/errors.md")).expect("text");
    let errors = fs::read_to_string(root().join("src/error.rs")).expect("text");
    let kinds = errors
        .split("pub enum ErrorKind {")
        .nth(1)
        .expect("the kinds");
    let kinds = kinds.split("\n}").next().expect("their end").lines();
    let kinds = kinds.filter_map(|line| line.strip_prefix("    ")?.strip_suffix(','));
    let mut count = 0;
    for kind in kinds.filter(|kind| kind.chars().all(char::is_alphanumeric)) {
        assert!(page.contains(&format!("`{kind}`")), "{kind}");
        count += 1;
    }
    assert!(count > 10, "{count} kinds");
}

/// Each promise of `docs/operations/reliability.md` has a test.
#[test]
fn every_test_that_reliability_names_exists() {
    let tests = tests();
    let text = fs::read_to_string(root().join("docs/operations/reliability.md")).expect("text");
    let rows = text.lines().filter(|line| line.starts_with('|'));
    let mut named = 0;
    for row in rows {
        let columns: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, fault, _, _, column, _, _] = columns.as_slice() else {
            continue;
        };
        if *fault == "fault" || fault.starts_with("---") {
            continue;
        }
        let names: Vec<_> = named_in(column).collect();
        assert!(!names.is_empty(), "no test in {row}");
        for name in names {
            assert!(tests.iter().any(|test| test == name), "{name} in {row}");
            named += 1;
        }
    }
    assert!(named >= 24, "{named} tests are named");
}

/// `reliability.md` has a row for each test of a fault.
#[test]
fn reliability_lists_every_fault_of_the_database() {
    let text = fs::read_to_string(root().join("docs/operations/reliability.md")).expect("text");
    for file in files(&root().join("tests/faults"), "rs") {
        for test in tests_of(&file) {
            assert!(text.contains(&format!("`{test}`")), "{test}");
        }
    }
}
