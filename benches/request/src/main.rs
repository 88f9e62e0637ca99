//! What does the layer cost in process?
//!
//! ```text
//! cargo run --release --manifest-path benches/Cargo.toml -p request [-- --smoke]
//! ```
//!
//! Each row is driven by calling the router, without a socket between, on one
//! thread, and in turns with the others. A time is the median of the rounds'
//! means; CPU is that of this process alone, so it leaves out what the database
//! does and the wait for it. Allocations are those of the whole process between
//! the call and the dropped response, and come out the same in each run. The
//! counting itself costs each row some nanoseconds for an allocation.
//!
//! | row | what happens | set beside |
//! |---|---|---|
//! | bare | axum finds a handler, which returns a constant | |
//! | idle layer | the same under a layer that does nothing: what `Router::layer` costs by itself | |
//! | plain | our layer, a cookie, and a handler that takes no session; no database listens | idle layer |
//! | stranger | no cookie, and a handler that reads from the session; no database listens | idle layer |
//! | ping by hand | `SELECT 1` through sqlx's pool: what a round trip costs | |
//! | select by hand | the row of a session by its id, not parsed | |
//! | untouched | a cookie, and a handler that takes the session and leaves it alone: one row is loaded | select by hand |
//! | read | the same with a `get` | select by hand |
//! | update by hand | that select, then an update of the document | |
//! | write | a cookie, and an `update` that changes the document: a row is loaded and saved | update by hand |
//! | insert by hand | a new row | |
//! | new | no cookie, and an `insert`: a row and a cookie are made | insert by hand |
//! | …, recorded | the same with the metrics of a Prometheus exporter; the other rows have the feature, and no recorder | the same without |
//! | …, 64 at once | 64 requests are in flight at every moment | the same by hand, one at a time |
//!
//! All rows with a database share its pool. It commits without waiting for the
//! disk, which would hide everything else.
//!
//! The table is printed; allocations and ratios go to `benches/request.json`
//! and a plot to `docs/plots/request.svg`. `--smoke` takes a moment, checks
//! every response and writes nothing.

mod by_hand;
mod cases;
mod cost;
mod pages;
mod report;

use std::{env, error::Error};

use bench_common::median;

use crate::{
    cases::Case,
    cost::Cost,
    report::{Row, Rows},
};

/// How long the benchmark takes, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effort {
    /// To see that every response is right.
    Smoke,
    /// To quote the figures.
    Full,
}

impl Effort {
    fn from_arguments() -> Result<Self, String> {
        let arguments: Vec<_> = env::args().skip(1).collect();
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Ok(Self::Full),
            ["--smoke"] => Ok(Self::Smoke),
            _ => Err(format!("--smoke or nothing, not {arguments:?}")),
        }
    }

    fn rounds(self) -> usize {
        match self {
            Self::Smoke => 2,
            Self::Full => 11,
        }
    }

    /// How often in a round something is done that takes microseconds.
    fn times(self) -> usize {
        match self {
            Self::Smoke => 128,
            Self::Full => 640,
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let effort = Effort::from_arguments()?;
    let server = bench_common::postgres()
        .setting("synchronous_commit", "off")
        .start()?;
    // One thread does everything, so its CPU time is that of the requests.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let rows = runtime.block_on(rows(&server.url(), effort))?;
    println!("{}", rows.table());
    if effort == Effort::Full {
        rows.publish()?;
    }
    Ok(())
}

async fn rows(url: &str, effort: Effort) -> Result<Rows, Box<dyn Error>> {
    let site = pages::Site::new(url).await?;
    let cases = cases::all(&site);
    for case in &cases {
        case.round(effort.times().min(128)).await?;
    }
    let mut costs = vec![Vec::new(); cases.len()];
    for _ in 0..effort.rounds() {
        for (case, costs) in cases.iter().zip(&mut costs) {
            costs.push(case.round(effort.times() * case.repetitions()).await?);
        }
    }
    site.check_visits(cases.iter().map(Case::visits_written).sum())
        .await?;
    let rows = cases.iter().zip(costs);
    Ok(Rows(rows.map(|(case, costs)| row(case, &costs)).collect()))
}

fn row(case: &Case, costs: &[Cost]) -> Row {
    let middle = |part: fn(&Cost) -> f64| median(&mut costs.iter().map(part).collect::<Vec<_>>());
    Row {
        name: case.name,
        beside: case.beside,
        asks_database: case.asks_database(),
        cost: Cost {
            micros: middle(|cost| cost.micros),
            cpu_micros: middle(|cost| cost.cpu_micros),
            allocations: middle(|cost| cost.allocations),
            bytes: middle(|cost| cost.bytes),
        },
    }
}
