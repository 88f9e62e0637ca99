//! The table of a run.

use bench_common::Table;

use crate::{measure::Measured, results::Results, summary::Tracked};

const HEADINGS: [&str; 15] = [
    "candidate",
    "delay",
    "route",
    "conn",
    "req/s",
    "ratio",
    "tracked",
    "p50 us",
    "p99 us",
    "stmt/req",
    "commit/req",
    "server us",
    "db us",
    "load us",
    "wrong",
];

/// All medians, or those of one point.
pub(crate) fn table(results: &Results, tracked: &Tracked) -> String {
    let mut table = Table::new(HEADINGS);
    for one in results.medians() {
        table.row(row(one, results, tracked));
    }
    table.to_string()
}

fn row(one: &Measured, results: &Results, tracked: &Tracked) -> [String; 15] {
    let decimals = |value: f64, decimals: usize| format!("{value:.decimals$}");
    [
        one.candidate.clone(),
        one.commit_delay.to_string(),
        one.route.to_string(),
        one.connections.to_string(),
        decimals(one.requests_per_second, 0),
        or_dash(results.ratio(one), 2),
        or_dash(tracked.ratio(one), 2),
        decimals(one.p50_us, 0),
        decimals(one.p99_us, 0),
        or_dash(one.statements_per_request, 3),
        decimals(one.commits_per_request, 3),
        decimals(one.server_us_per_request, 1),
        decimals(one.database_us_per_request, 1),
        decimals(one.load_us_per_request, 1),
        match one.wrong {
            0 => String::new(),
            wrong => wrong.to_string(),
        },
    ]
}

pub(crate) fn or_dash(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

/// Wrong responses, one of each candidate and point.
pub(crate) fn examples(results: &Results) -> Vec<String> {
    let examples = results.medians().iter().filter_map(|one| {
        let example = one.example.as_ref()?;
        let (candidate, route, connections) = (&one.candidate, one.route, one.connections);
        Some(format!("{candidate} {route} {connections}: {example}"))
    });
    examples.collect()
}
