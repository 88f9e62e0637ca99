//! A history of many visitors on several copies of a server, with faults, and
//! whether all that they were told was true.
//!
//! `cargo test --test history` plays a short one under a fresh seed, which it
//! prints. A long one, or one that was played before:
//!
//! ```sh
//! HISTORY_OPERATIONS=200000 HISTORY_SEED=1 cargo test --release --test history -- --nocapture
//! ```
//!
//! The seed determines what each visitor asks, when, after how many requests,
//! something goes wrong, and what; not who is faster. `planted-bugs` shows
//! that the rules find what they are for.

mod browser;
mod check;
mod copies;
mod faults;
mod history;
mod line;
mod random;
mod record;
mod site;
mod visitor;

use std::io::{Write as _, stderr};

/// Past the capture of the test harness, so that the seed is told also when
/// the process is killed.
fn tell(text: &str) {
    writeln!(stderr(), "{text}").expect("somebody reads");
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
