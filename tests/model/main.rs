//! Programs of calls, generated and played on real tables, against a
//! reference that was written from the documentation.
//!
//! A program is what two to five requests of up to three cookie jars do to
//! their sessions, one step after the other: any calls of the public API, the
//! ways in which a handler can end, and what an administrator does in between.
//! Hours pass between two requests, and another deployment has other timeouts
//! ([`program`]). Each step is played on a real table through the real layer
//! ([`world`], [`play`]), and predicted by a state machine that does no I/O
//! ([`reference`]). What does not come true is a violation, and so is what
//! breaks one of the [`invariants`], which know nothing of the reference.
//!
//! `cargo test --test model` plays as many as fit into half a minute, always
//! those of the same seed. A long run takes a fresh seed, which it prints:
//!
//! ```sh
//! MODEL_PROGRAMS=1000000 cargo test --release --test model -- --nocapture
//! MODEL_SEED=7 MODEL_PROGRAMS=20000 cargo test --test model -- --nocapture
//! ```
//!
//! One program again, by its number or as it was printed:
//!
//! ```sh
//! MODEL_SEED=7 MODEL_PROGRAM=4711 cargo test --test model -- --nocapture
//! MODEL_PROGRAM='{"options":…}' cargo test --test model -- --nocapture
//! ```
//!
//! `DEV_POSTGRES_SETTINGS=default_transaction_isolation=serializable` plays them
//! under another isolation level, and `DEV_POSTGRES_POOLER=transaction` through a
//! PgBouncer.
//!
//! Other variables: `MODEL_LANES` (programs at a time), `MODEL_SECONDS` (for
//! how long), and `MODEL_VIOLATIONS` (after how many kinds of violations it
//! stops; default 1). `planted-bugs` shows that the test finds what it is for.

mod calls;
mod invariants;
mod play;
mod program;
#[expect(dead_code, reason = "the histories use more of it")]
#[path = "../history/random.rs"]
mod random;
mod reference;
mod run;
mod shrink;
mod world;

use std::{
    fs,
    io::{Write as _, stderr},
    path::Path,
    process::Command,
};

/// Past the capture of the test harness, so that the seed is told also when
/// the process is killed.
fn tell(text: &str) {
    writeln!(stderr(), "{text}").expect("stderr is open");
}

#[test]
fn no_program_of_calls_breaks_a_promise() {
    let settings = run::Settings::from_environment();
    let report = run::run(&settings);
    tell(&report.to_string());
    assert!(report.violations.is_empty(), "{report}");
    assert!(report.played > 0, "no program was played");
}

/// A bug that can't be planted any more shows nothing.
#[test]
fn every_bug_can_still_be_planted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bugs = fs::read_dir(root.join("tests/model/bugs")).expect("a folder");
    let bugs: Vec<_> = bugs.map(|bug| bug.expect("an entry").path()).collect();
    assert!(bugs.len() >= 30, "{bugs:?}");
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
