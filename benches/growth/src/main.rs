//! How does the cost of a session grow?
//!
//! ```text
//! cargo run --release --manifest-path benches/Cargo.toml -p growth [-- --quick | --smoke | --reap ROWS]
//! ```
//!
//! Eight requests at a time go to a router in this process, for visitors that are chosen at random
//! among all rows. Three things grow:
//!
//! - **rows**: 10,000 to 5,000,000 sessions of 100 bytes;
//! - **size**: documents of 100 bytes to 1 MB, which don't compress;
//! - **reaper**: 1 to 100,000 expired rows, which `Reaper::run_once` deletes while requests load and
//!   save.
//!
//! A *load* is a request that reads a value. A *touch* also extends the session. A *save* reads and
//! changes a value. Times are those of whole requests. Each step has a table of its own, and the
//! steps are measured in turns, so that other work of the machine affects all of them. A time is the
//! median of the rounds' medians, a p99 that of all requests.
//!
//! `migrate()` creates the tables, in one database with `fsync` on and the server's default of 128 MB
//! of shared buffers. So the larger tables are in the page cache of the system.
//!
//! The run prints tables, and records ratios in `benches/growth.json`. `--quick` ends at 100,000 rows,
//! takes about a minute and records in `benches/target`. `--smoke` takes seconds, checks every
//! response and records nothing. `--reap 1000000` measures only the reaper, three times, each time
//! after five seconds without it. It records nothing. Below 1,000,000 rows it compares three batch
//! sizes.

mod crowd;
mod growing;
mod reap;
mod site;

use std::{env, error::Error, path::Path, time::Duration};

use bench_common::Summary;
use sqlx::PgPool;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How much is measured.
struct Effort {
    /// Below `benches`.
    summary: Option<&'static str>,
    rows: &'static [u64],
    /// Bytes of the documents.
    sizes: &'static [u64],
    rounds: usize,
    round: Duration,
    expired: Vec<u64>,
    /// Rows that the reaper deletes in one transaction; 1,000 is its default.
    batches: &'static [u32],
    /// Rows that aren't expired, while the reaper runs.
    live: u64,
    /// Rows to delete for each number of expired rows, in several runs.
    reaped: u64,
    /// The time without the reaper before each of its runs.
    alone: Duration,
}

const FULL: Effort = Effort {
    summary: Some("growth.json"),
    rows: &[10_000, 100_000, 1_000_000, 5_000_000],
    sizes: &[100, 1_000, 10_000, 100_000, 1_000_000],
    rounds: 5,
    round: Duration::from_secs(1),
    expired: Vec::new(),
    batches: &[1_000],
    live: 100_000,
    reaped: 300_000,
    alone: Duration::from_millis(300),
};

impl Effort {
    fn from_arguments() -> Result<Self, String> {
        let arguments: Vec<_> = env::args().skip(1).collect();
        let full = Self {
            expired: vec![1, 10, 100, 1_000, 10_000, 100_000],
            ..FULL
        };
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Ok(full),
            ["--quick"] => Ok(Self {
                summary: Some("target/growth.json"),
                rows: &[10_000, 100_000],
                round: Duration::from_millis(250),
                expired: vec![1, 10, 100, 1_000, 10_000],
                live: 10_000,
                reaped: 20_000,
                ..full
            }),
            ["--smoke"] => Ok(Self {
                summary: None,
                rows: &[100, 1_000],
                sizes: &[100, 100_000],
                rounds: 1,
                round: Duration::from_millis(50),
                expired: vec![1, 1_500],
                live: 1_000,
                reaped: 1,
                ..full
            }),
            ["--reap", rows] => {
                let rows = rows.parse().map_err(|error| format!("{rows}: {error}"))?;
                Ok(Self {
                    summary: None,
                    rows: &[],
                    sizes: &[],
                    expired: vec![rows],
                    batches: match rows {
                        1_000_000.. => &[1_000],
                        _ => &[250, 1_000, 4_000],
                    },
                    reaped: 3 * rows,
                    alone: Duration::from_millis(5_500),
                    ..full
                })
            }
            _ => Err(format!(
                "--quick, --smoke, --reap ROWS or nothing, not {arguments:?}"
            )),
        }
    }

    /// How often that many expired rows are deleted. A p99 needs more runs if they are short.
    fn runs(&self, expired: u64) -> u64 {
        let least = self.reaped.min(3);
        (self.reaped / expired).clamp(least, 40)
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let effort = Effort::from_arguments()?;
    let server = bench_common::postgres().start()?;
    let pool = PgPool::connect(&server.url()).await?;
    let mut summary = Summary::default();
    growing::rows(&pool, &effort, &mut summary).await?;
    growing::sizes(&pool, &effort, &mut summary).await?;
    reap::measure(&pool, &effort, &mut summary).await?;
    if let Some(file) = effort.summary {
        summary.record(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file))?;
    }
    Ok(())
}
