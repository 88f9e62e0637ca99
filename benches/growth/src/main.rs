//! How does the cost of a session grow?
//!
//! ```text
//! cargo run --release --manifest-path benches/Cargo.toml -p growth [-- --quick | --smoke]
//! ```
//!
//! Three questions, each asked by requests to a router in process, eight at a
//! time, of visitors chosen at random among all rows:
//!
//! - **rows**: 10,000 to 5,000,000 sessions of 100 bytes;
//! - **size**: documents of 100 bytes to 1 MB, which do not compress;
//! - **reaper**: 1 to 100,000 expired rows deleted by `Reaper::run_once` while
//!   others load and save.
//!
//! A *load* is a request that reads a value, a *touch* one that reads and whose
//! session is extended, a *save* one that reads and changes a value. Times are
//! those of whole requests. Every step has a table of its own, and they are
//! asked in turns, so that what the machine does meanwhile meets all of them:
//! a figure is the median of the rounds' medians, a p99 that of all requests.
//!
//! The tables are those of `migrate()`, in one database that flushes to disk,
//! with the server's default of 128 MB of shared buffers: the larger tables
//! live in the cache of the system.
//!
//! Tables are printed; plots go to `docs/plots/growth-*.svg` and ratios to
//! `benches/growth.json`. `--quick` ends at 100,000 rows after about a minute
//! and writes to `benches/target/growth`; `--smoke` takes seconds and only
//! checks that every response is right. `--reap 1000000` asks only what so many
//! expired rows cost, three times, each after five seconds without the reaper,
//! and writes nothing; fewer are reaped in batches of three sizes in turns.

mod effort;
mod reap;
mod report;
mod rounds;
mod seed;
mod site;
mod steps;

use std::error::Error;

use sqlx::PgPool;

use crate::{effort::Effort, report::Report};

/// What may fail, in a program whose only response is to say so and end.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let effort = Effort::from_arguments()?;
    let server = bench_common::postgres().start()?;
    let pool = PgPool::connect(&server.url()).await?;
    let report = report(&pool, effort).await?;
    println!("{report}");
    report.publish(effort)?;
    Ok(())
}

async fn report(pool: &PgPool, effort: Effort) -> Outcome<Report> {
    Ok(Report {
        rows: steps::over_rows(pool, effort).await?,
        sizes: steps::over_sizes(pool, effort).await?,
        reaped: reap::over_expired(pool, effort).await?,
    })
}
