//! What does the layer cost in process?
//!
//! ```text
//! cargo run --release --manifest-path benches/Cargo.toml -p request [-- --smoke]
//! ```
//!
//! Each row is measured by calling the router, without a socket, on one thread, in turns with the
//! other rows. A time is the median of the rounds' means. CPU is the time of this process, so it
//! excludes the database. Allocations are counted between the call and the dropped response, and are
//! the same in each run. Counting them takes some nanoseconds for each.
//!
//! | row | what happens | compared with |
//! |---|---|---|
//! | bare | axum finds a handler, which returns a constant | |
//! | idle layer | the same under a layer that does nothing: the cost of `Router::layer` | |
//! | plain | our layer, a cookie, and a handler that takes no session; no database listens | idle layer |
//! | stranger | no cookie, and a handler that reads from the session; no database listens | idle layer |
//! | handwritten ping | `SELECT 1` through sqlx's pool: the cost of a round trip | |
//! | handwritten select | the row of a session by its id, not parsed | |
//! | untouched | a cookie, and a handler that takes the session and doesn't use it: one row is loaded | handwritten select |
//! | read | the same with a `get` | handwritten select |
//! | handwritten update | that select, then an update of the document | |
//! | write | a cookie, and an `update` that changes the document: a row is loaded and saved | handwritten update |
//! | handwritten insert | a new row | |
//! | new | no cookie, and an `insert`: a new row and a new cookie | handwritten insert |
//! | …, recorded | the same with the metrics of a Prometheus exporter; the other rows have the feature, and no recorder | the same without |
//! | …, 64 at once | 64 requests are in flight at any time | the handwritten statements, one at a time |
//!
//! All rows with a database share its pool. Commits don't wait for the disk, because that wait would
//! hide everything else.
//!
//! The run prints the table, and records allocations and ratios in `benches/request.json`. `--smoke`
//! takes a moment, checks every response and records nothing.

mod cases;
mod cost;
mod handwritten;
mod pages;

use std::{env, error::Error};

use bench_common::{Summary, Table, median, readable};

use crate::{
    cases::{Case, VISITORS},
    cost::Cost,
};

const SUMMARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../request.json");

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let is_smoke = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--smoke"] => true,
        _ => return Err(format!("expected --smoke or nothing, not {arguments:?}").into()),
    };
    let server = bench_common::postgres()
        .setting("synchronous_commit", "off")
        .start()?;
    // One thread, so that its CPU time is that of the requests.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (rounds, times) = if is_smoke { (2, 128) } else { (11, 640) };
    let rows = Rows(runtime.block_on(measure(&server.url(), rounds, times))?);
    println!("{}", rows.table());
    match is_smoke {
        true => Ok(()),
        false => Ok(rows.summary().record(SUMMARY)?),
    }
}

async fn measure(
    url: &str,
    rounds: usize,
    times: usize,
) -> Result<Vec<(Case, Cost)>, Box<dyn Error>> {
    let site = pages::Site::new(url).await?;
    let mut cases = cases::all(&site);
    for case in &mut cases {
        case.round(2 * VISITORS).await?;
    }
    let mut costs = vec![Vec::new(); cases.len()];
    for _ in 0..rounds {
        for (case, costs) in cases.iter_mut().zip(&mut costs) {
            costs.push(case.round(times * case.repetitions).await?);
        }
    }
    site.check_visits(cases.iter().map(Case::visits_written).sum())
        .await?;
    let medians = costs.iter().map(|costs| {
        let median = |part: fn(&Cost) -> f64| median(costs.iter().map(part));
        Cost {
            micros: median(|cost| cost.micros),
            cpu_micros: median(|cost| cost.cpu_micros),
            allocations: median(|cost| cost.allocations),
            bytes: median(|cost| cost.bytes),
        }
    });
    let medians: Vec<_> = medians.collect();
    Ok(cases.into_iter().zip(medians).collect())
}

struct Rows(Vec<(Case, Cost)>);

impl Rows {
    /// The row that another one is compared with.
    fn beside(&self, case: &Case) -> Option<(&'static str, &Cost)> {
        let name = case.beside?;
        let found = self.0.iter().find(|(other, _)| other.name == name);
        found.map(|(_, cost)| (name, cost))
    }

    fn table(&self) -> Table {
        let headings = "us|us of CPU|allocations|bytes".split('|');
        let headings = ["request"]
            .into_iter()
            .chain(headings.clone())
            .chain(["more than"])
            .chain(headings);
        let mut table = Table::new(headings);
        for (case, cost) in &self.0 {
            let mut cells = vec![case.name.to_owned()];
            cells.extend(cost.figures().map(readable));
            if let Some((name, other)) = self.beside(case) {
                let (figures, others) = (cost.figures(), other.figures());
                cells.push(name.to_owned());
                cells.extend((0..4).map(|at| readable(figures[at] - others[at])));
            }
            table.row(cells);
        }
        table
    }

    fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for (case, cost) in &self.0 {
            summary.set(case.name, "allocations", cost.allocations.round());
            summary.set(case.name, "bytes", cost.bytes.round());
            if let Some((name, other)) = self.beside(case) {
                let ratio = cost.cpu_micros / other.cpu_micros;
                summary.set(case.name, format!("CPU relative to {name}"), ratio);
            }
        }
        summary
    }
}
