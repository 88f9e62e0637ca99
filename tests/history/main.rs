//! Histories of many visitors on several copies of a server, with faults: whether all responses
//! were right.
//!
//! `cargo test --test history` plays a short one under a fresh seed, which it
//! prints. A long one, or one that was played before:
//!
//! ```sh
//! HISTORY_OPERATIONS=200000 HISTORY_SEED=1 cargo test --release --test history -- --nocapture
//! ```
//!
//! The seed determines what each visitor and each fault chooses; who is faster
//! it does not, and so neither what a jar holds by then. A race that is rare
//! may take a few runs to come back. `planted-bugs` shows that the rules find
//! what they are for.
//!
//! Half an hour of it, with restarts of the database among the faults, and a
//! look at what must not grow (`SOAK_MINUTES` for another length):
//!
//! ```sh
//! cargo test --release --test history -- --ignored soak --nocapture
//! ```

mod browser;
mod check;
mod copies;
mod faults;
mod history;
mod hot;
mod line;
mod random;
mod record;
mod report;
mod site;
mod soak;
mod socket;
mod visitor;
mod wire;

use std::{
    fs,
    io::{Write as _, stderr},
    path::Path,
    process::Command,
};

/// Past the capture of the test harness, so that the seed is printed also if the process is killed.
fn tell(text: &str) {
    writeln!(stderr(), "{text}").expect("stderr is open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_with_faults_has_no_violation() {
    let script = history::Script::from_environment();
    tell(&format!("to play this history again: {script}"));
    let report = history::play(script).await;
    tell(&report.to_string());
    assert!(
        report.violations.is_empty(),
        "to play this history again: {script}\n{report}"
    );
    assert!(
        report.says_something(),
        "too little happened: {script}\n{report}"
    );
}

/// A bug that can't be planted any more shows nothing.
#[test]
fn every_bug_can_still_be_planted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bugs = fs::read_dir(root.join("tests/history/bugs")).expect("a folder");
    let bugs: Vec<_> = bugs.map(|bug| bug.expect("an entry").path()).collect();
    assert!(bugs.len() >= 4, "{bugs:?}");
    for bug in bugs {
        let mut git = Command::new("git");
        git.args(["apply", "--check"]).arg(&bug).current_dir(root);
        assert!(
            git.status().expect("git runs").success(),
            "{}",
            bug.display()
        );
    }
}
