//! Half an hour of visitors and faults, with restarts of the database: whether all responses were
//! right, and whether anything grows.
//!
//! It runs in rounds. At the end of each, all visitors stop. The record of the round is checked and
//! dropped, and all sessions expire, so that the reapers of the next round have work. Then the
//! figures are taken that must not grow.

mod blows;
mod figures;
mod stage;
mod totals;

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{history::given, random::fresh_seed, tell};
use figures::Figures;
use stage::Stage;
use totals::Totals;

/// What determines a soak, but for who is faster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    pub(crate) length: Duration,
    /// Between two faults.
    pub(crate) calm: Duration,
    /// Faults of a round.
    pub(crate) blows: u32,
    /// Between two requests of a visitor, on average.
    pub(crate) pause: Duration,
}

impl Script {
    /// `SOAK_MINUTES` and `SOAK_SEED`, or half an hour and a fresh one.
    fn from_environment() -> Self {
        Self {
            seed: given("SOAK_SEED").unwrap_or_else(fresh_seed),
            length: Duration::from_secs(60 * given("SOAK_MINUTES").unwrap_or(30)),
            calm: Duration::from_secs(20),
            blows: 3,
            pause: Duration::from_millis(100),
        }
    }

    /// Each fault once, so soon that the tests of every day can afford it.
    fn short() -> Self {
        Self {
            seed: fresh_seed(),
            length: Duration::ZERO,
            calm: Duration::from_millis(500),
            blows: blows::KINDS,
            pause: Duration::from_millis(30),
        }
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seed, minutes) = (self.seed, self.length.as_secs() / 60);
        write!(
            f,
            "SOAK_SEED={seed} SOAK_MINUTES={minutes} \
             cargo test --release --test history -- --ignored soak --nocapture"
        )
    }
}

struct Report {
    totals: Totals,
    figures: Figures,
}

async fn soak(script: Script) -> Report {
    let began = Instant::now();
    let mut stage = Stage::set(script).await;
    let mut report = Report {
        totals: Totals::default(),
        figures: Figures::default(),
    };
    while report.totals.rounds == 0 || began.elapsed() < script.length {
        let round = stage.round().await;
        report.totals.add(&round);
        report.figures.add(round.sample);
        tell(&format!("{} {round}", minutes(began.elapsed())));
        // What happened after that is of less use the later it happened.
        if !report.totals.violations.is_empty() {
            break;
        }
    }
    stage.clear_away().await;
    report
}

fn minutes(elapsed: Duration) -> String {
    format!("{:5.1} min", elapsed.as_secs_f64() / 60.0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.totals, self.figures)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "half an hour; the module says how"]
async fn a_soak_has_no_violation_and_nothing_grows() {
    let script = Script::from_environment();
    tell(&format!("to soak again: {script}"));
    let report = soak(script).await;
    tell(&report.to_string());
    assert!(report.totals.violations.is_empty(), "{report}");
    assert_eq!(report.totals.missing(), [], "{report}");
    assert_eq!(report.figures.grown(), [""; 0], "{report}");
}

/// The same as the long one, but too short to say what grows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_the_soak_is_outlived_by_all_that_was_acknowledged() {
    let script = Script::short();
    tell(&format!("a short soak: SOAK_SEED={}", script.seed));
    let report = soak(script).await;
    tell(&report.to_string());
    assert!(report.totals.violations.is_empty(), "{report}");
    assert_eq!(report.totals.missing(), [], "{report}");
}
