//! The messages of the compiler for likely mistakes.
//!
//! Each file of `cases` is a program that must not compile, and its comments
//! `//~ …` are in what the compiler says, in this order. Not more is compared:
//! the rest changes with every version of the compiler. With a nightly or beta
//! compiler even these may differ, so the tests are for releases alone.
//!
//! trybuild would check all dependencies once more, in a folder of its own,
//! which takes a minute. The compiler is asked directly here, with what cargo
//! has built for the tests: half a second a case.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use serde_json::Value;

/// Crates that a case may use.
const CRATES: [&str; 5] = [
    "axum",
    "axum_pg_session",
    "http",
    "tower_layer",
    "tower_service",
];

/// The files that cargo has made of these crates for this test.
fn libraries() -> BTreeMap<String, PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--no-run", "--workspace", "--test", "misuse"])
        .args(["--locked", "--quiet", "--message-format=json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let messages = String::from_utf8(output.stdout).expect("text");
    let libraries = messages.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let name = message["target"]["name"].as_str()?.replace('-', "_");
        let files = message["filenames"].as_array()?.iter();
        let library = files
            .filter_map(Value::as_str)
            .find(|file| file.ends_with(".rlib"))?;
        Some((name, PathBuf::from(library)))
    });
    libraries
        .filter(|(name, _)| CRATES.contains(&name.as_str()))
        .collect()
}

/// The compiler's messages for this program; `None` if it compiles.
fn said_of(case: &Path, libraries: &BTreeMap<String, PathBuf>) -> Option<String> {
    let first = libraries.values().next().expect("a library");
    let folder = first.parent().expect("a folder of builds");
    let metadata = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(case.file_stem().expect("a name"))
        .with_extension("rmeta");
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc
        .args(["--edition=2024", "--emit=metadata", "-o"])
        .arg(metadata)
        .arg("-L")
        .arg(format!("dependency={}", folder.display()))
        .arg(case);
    for (name, library) in libraries {
        rustc
            .arg("--extern")
            .arg(format!("{name}={}", library.display()));
    }
    let output = rustc.output().expect("the compiler runs");
    let said = String::from_utf8(output.stderr).expect("text");
    (!output.status.success()).then_some(said)
}

/// What the compiler must say.
fn expected(case: &Path) -> Vec<String> {
    let text = fs::read_to_string(case).expect("text");
    let lines = text.lines().filter_map(|line| line.split_once("//~ "));
    lines.map(|(_, expected)| expected.to_owned()).collect()
}

/// Why the compiler does not say what it should, if so.
fn complaint(case: &Path, libraries: &BTreeMap<String, PathBuf>) -> Option<String> {
    let name = case.file_name().expect("a name").display();
    let Some(said) = said_of(case, libraries) else {
        return Some(format!("{name} compiles"));
    };
    let expected = expected(case);
    if expected.is_empty() {
        return Some(format!("{name} expects nothing of:\n{said}"));
    }
    let mut rest = said.as_str();
    for expected in expected {
        let Some(at) = rest.find(&expected) else {
            return Some(format!("{name} lacks {expected:?}:\n{said}"));
        };
        rest = &rest[at..];
    }
    None
}

fn is_release() -> bool {
    let output = Command::new("rustc").arg("--version").output();
    let version = String::from_utf8(output.expect("rustc runs").stdout).expect("text");
    !version.contains("nightly") && !version.contains("beta")
}

#[test]
fn the_compiler_says_what_is_wrong() {
    if !is_release() {
        eprintln!("skipped: what this compiler says may change until its release");
        return;
    }
    let libraries = libraries();
    assert_eq!(libraries.len(), CRATES.len(), "{libraries:?}");
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/misuse/cases");
    let cases: Vec<_> = fs::read_dir(cases)
        .expect("a folder")
        .map(|case| case.expect("a file").path())
        .collect();
    assert!(!cases.is_empty());
    let check = |half: &[PathBuf]| -> Vec<_> {
        let complaints = half.iter().filter_map(|case| complaint(case, &libraries));
        complaints.collect()
    };
    let (one, other) = cases.split_at(cases.len() / 2);
    let complaints = thread::scope(|scope| {
        let one = scope.spawn(|| check(one));
        [check(other), one.join().expect("no panic")].concat()
    });
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
