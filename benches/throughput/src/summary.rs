//! What of a run is tracked: ratios, which mean the same on the next machine.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    builds::benches,
    candidates::{OURS, REFERENCE},
    measure::Measured,
    plan::Route,
    report::or_dash,
    results::{Results, SetUp},
};

/// One candidate at one point; ratios to the reference at the same point,
/// where nothing else is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    commit_delay: u32,
    route: Route,
    connections: usize,
    candidate: String,
    requests: Option<f64>,
    p50: Option<f64>,
    p99: Option<f64>,
    server_cpu: Option<f64>,
    database_cpu: Option<f64>,
    /// A count, no ratio to the reference.
    statements_per_request: Option<f64>,
    /// A count, no ratio to the reference.
    commits_per_request: f64,
}

/// The entries of the last run that was recorded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracked(Vec<Entry>);

impl Tracked {
    /// None where there is no file yet.
    pub(crate) fn read() -> io::Result<Self> {
        match fs::read_to_string(json_path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            text => Ok(Self(serde_json::from_str(&text?)?)),
        }
    }

    /// The requests' ratio at that point.
    pub(crate) fn ratio(&self, like: &Measured) -> Option<f64> {
        let entry = self.0.iter().find(|entry| {
            (entry.commit_delay, entry.route, entry.connections)
                == (like.commit_delay, like.route, like.connections)
                && entry.candidate == like.candidate
        });
        entry?.requests
    }
}

fn json_path() -> PathBuf {
    benches().join("summary.json")
}

/// Writes `summary.json` for programs and `SUMMARY.md` for people.
pub(crate) fn write(results: &Results) -> io::Result<()> {
    fs::write(json_path(), json(results)?)?;
    fs::write(benches().join("SUMMARY.md"), markdown(results))
}

/// A line for each entry, so that a change shows what moved.
fn json(results: &Results) -> io::Result<String> {
    let entries: Result<Vec<_>, _> = results
        .medians()
        .iter()
        .map(|one| serde_json::to_string(&entry(one, results)))
        .collect();
    Ok(format!("[\n{}\n]\n", entries?.join(",\n")))
}

fn entry(one: &Measured, results: &Results) -> Entry {
    let reference = results.get(one, REFERENCE);
    let ratio = |of: fn(&Measured) -> f64| {
        let ratio = of(one) / of(reference?);
        ratio.is_finite().then(|| rounded(ratio))
    };
    Entry {
        commit_delay: one.commit_delay,
        route: one.route,
        connections: one.connections,
        candidate: one.candidate.clone(),
        requests: ratio(|of| of.requests_per_second),
        p50: ratio(|of| of.p50_us),
        p99: ratio(|of| of.p99_us),
        server_cpu: ratio(|of| of.server_us_per_request),
        database_cpu: ratio(|of| of.database_us_per_request),
        statements_per_request: one.statements_per_request.map(rounded),
        commits_per_request: rounded(one.commits_per_request),
    }
}

/// More digits than the noise has would only make noise in the history.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn markdown(results: &Results) -> String {
    let mut text = format!(
        "# Throughput\n\nRatios of one run, made by `throughput --record`; [README.md](README.md) \
         has the set-up.\n{}\n",
        set_up(&results.set_up)
    );
    for route in results.routes() {
        for delay in results.commit_delays(route) {
            section(&mut text, results, delay, route);
        }
    }
    text
}

/// A sentence.
pub(crate) fn set_up(set_up: &SetUp) -> String {
    let redis = set_up.redis.as_ref();
    let redis = redis.map_or_else(String::new, |version| format!(", Redis {version}"));
    format!(
        "{} cores for load, servers and databases together; PostgreSQL {}, `fsync={}`{redis}; {} \
         rounds of {} s; pools of {} connections to Postgres, {} to Redis; {} sessions for each \
         connection.\n",
        set_up.cores,
        set_up.postgres_version(),
        set_up.fsync,
        set_up.rounds,
        set_up.seconds,
        set_up.pool,
        set_up.redis_pool,
        set_up.sessions,
    )
}

/// A table, named, of one figure of each candidate.
type Figure = (&'static str, fn(&Results, &Measured) -> Option<f64>);

const FIGURES: [Figure; 4] = [
    (
        "requests per second, as a multiple of tower-sessions'",
        |results, one| results.ratio(one),
    ),
    (
        "99th percentile of the latency, as a multiple of tower-sessions' (less is better)",
        |results, one| Some(one.p99_us / results.get(one, REFERENCE)?.p99_us),
    ),
    ("statements per request", |_, one| {
        one.statements_per_request
    }),
    ("transactions that write per request", |_, one| {
        Some(one.commits_per_request)
    }),
];

fn section(text: &mut String, results: &Results, delay: u32, route: Route) {
    let commits = match delay {
        0 => "commits as fast as the disk".to_owned(),
        delay => format!("each flush of commits waits {delay} µs more"),
    };
    let _ = writeln!(text, "## `{route}`, {commits}\n");
    let ours = results.line(delay, route, OURS);
    let rows = results
        .candidates()
        .into_iter()
        .filter(|name| *name != OURS);
    let rows: String = rows
        .filter_map(|other| row(results, other, &ours, |one| results.ratio_to(one, other)))
        .collect();
    table(
        text,
        results,
        "requests per second of this crate, as a multiple of those of",
        &rows,
    );
    for (name, figure) in FIGURES {
        let rows: String = results
            .candidates()
            .into_iter()
            .filter_map(|candidate| {
                let line = results.line(delay, route, candidate);
                row(results, candidate, &line, |one| figure(results, one))
            })
            .collect();
        table(text, results, name, &rows);
    }
}

fn table(text: &mut String, results: &Results, name: &str, rows: &str) {
    if !rows.is_empty() {
        let _ = writeln!(text, "{name}:\n\n{}{rows}", heading(results));
    }
}

fn heading(results: &Results) -> String {
    let connections = results.connections();
    let columns: String = connections.iter().map(|n| format!(" {n} |")).collect();
    format!(
        "| connections |{columns}\n|-|{}\n",
        "-:|".repeat(connections.len())
    )
}

/// `None` where no cell has a figure.
fn row(
    results: &Results,
    name: &str,
    line: &[&Measured],
    figure: impl Fn(&Measured) -> Option<f64>,
) -> Option<String> {
    let cell = |connections: usize| {
        let one = line.iter().find(|one| one.connections == connections)?;
        figure(one).filter(|value| value.is_finite())
    };
    let cells: Vec<_> = results.connections().into_iter().map(cell).collect();
    cells.iter().any(Option::is_some).then(|| {
        let cells = cells.iter().map(|cell| format!(" {} |", or_dash(*cell, 2)));
        format!("| {name} |{}\n", cells.collect::<String>())
    })
}

/// The plots' folder.
pub(crate) fn plots() -> PathBuf {
    Path::new(benches()).join("../docs/plots")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::measured;

    #[test]
    fn a_summary_holds_ratios_alone() {
        let measured = vec![
            measured("ours", 64, 30_000.0),
            measured(REFERENCE, 64, 10_000.0),
        ];
        let results = Results::new(SetUp::default(), measured);
        let text = json(&results).expect("numbers are JSON");
        assert!(text.contains("\"requests\":3.0"), "{text}");
        assert!(!text.contains("30000"), "{text}");
        let markdown = markdown(&results);
        assert!(markdown.contains("| ours | 3.00 |"), "{markdown}");
        assert!(markdown.contains("| tower-sessions | 3.00 |"), "{markdown}");
    }
}
