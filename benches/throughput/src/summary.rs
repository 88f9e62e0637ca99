//! What is tracked of a run: ratios, which don't depend on the machine as times do.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    candidates::{OURS, benches},
    load::{Generator, Route},
    plots,
    results::{Measured, Results, SetUp, or_dash},
};

/// One candidate at one point: ratios to the reference at the same point, and two counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Point {
    commit_delay: u32,
    route: Route,
    connections: usize,
    candidate: String,
    requests: Option<f64>,
    p50: Option<f64>,
    p99: Option<f64>,
    server_cpu: Option<f64>,
    database_cpu: Option<f64>,
    statements_per_request: Option<f64>,
    commits_per_request: f64,
}

/// A figure, if the point has it.
type Figure = fn(&Point) -> Option<f64>;

/// `summary.json`, from which `SUMMARY.md` and the plots are made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Summary {
    set_up: SetUp,
    points: Vec<Point>,
}

impl Summary {
    /// If there are two load generators, the requests are the lower ratio of both, and the other
    /// figures are of our own generator.
    pub(crate) fn of(results: &Results) -> Self {
        let ratio = |one: &Measured, of: fn(&Measured) -> f64| {
            let ratio = of(one) / of(results.reference(one)?);
            ratio.is_finite().then(|| rounded(ratio))
        };
        let requests = |one: &Measured| {
            let of_both = results.medians.iter().filter(|of| of.is_of_any_load(one));
            let ratios = of_both.filter_map(|of| ratio(of, |of| of.requests_per_second));
            ratios.min_by(f64::total_cmp)
        };
        let point = |one: &Measured| Point {
            commit_delay: one.commit_delay,
            route: one.route,
            connections: one.connections,
            candidate: one.candidate.clone(),
            requests: requests(one),
            p50: ratio(one, |of| of.p50_us),
            p99: ratio(one, |of| of.p99_us),
            server_cpu: ratio(one, |of| of.server_us_per_request),
            database_cpu: ratio(one, |of| of.database_us_per_request),
            statements_per_request: one.statements_per_request.map(rounded),
            commits_per_request: rounded(one.commits_per_request),
        };
        let own = results.medians.iter();
        let own = own.filter(|one| one.generator == Generator::Own);
        Self {
            set_up: results.set_up.clone(),
            points: own.map(point).collect(),
        }
    }

    /// The last recorded run; empty if there is none.
    pub(crate) fn read() -> io::Result<Self> {
        match fs::read_to_string(path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            text => Ok(serde_json::from_str(&text?)?),
        }
    }

    pub(crate) fn write(&self) -> io::Result<()> {
        fs::write(path(), self.json()?)
    }

    /// One line for each point, so that a diff shows what has changed.
    fn json(&self) -> io::Result<String> {
        let points: Result<Vec<_>, _> = self.points.iter().map(serde_json::to_string).collect();
        let set_up = serde_json::to_string(&self.set_up)?;
        let points = points?.join(",\n");
        Ok(format!(
            "{{\"set_up\":{set_up},\n\"points\":[\n{points}\n]}}\n"
        ))
    }

    /// Writes `SUMMARY.md` and the plots.
    pub(crate) fn render(&self) -> io::Result<()> {
        fs::write(benches().join("SUMMARY.md"), self.markdown())?;
        plots::write(self, &Path::new(benches()).join("../docs/plots"))
    }

    /// The ratio of the requests per second in this run.
    pub(crate) fn requests(&self, like: &Measured) -> Option<f64> {
        let is_like = |point: &&Point| {
            (
                point.commit_delay,
                point.route,
                point.connections,
                &point.candidate,
            ) == (
                like.commit_delay,
                like.route,
                like.connections,
                &like.candidate,
            )
        };
        self.points.iter().find(is_like)?.requests
    }

    /// One figure of a candidate for each number of connections.
    fn line(
        &self,
        route: Route,
        commit_delay: u32,
        candidate: &str,
        figure: impl Fn(&Point) -> Option<f64>,
    ) -> Vec<(usize, f64)> {
        let of_line = self.points.iter().filter(|point| {
            (point.route, point.commit_delay, point.candidate.as_str())
                == (route, commit_delay, candidate)
        });
        of_line
            .filter_map(|point| Some((point.connections, figure(point)?)))
            .collect()
    }

    /// The requests per second of a candidate, relative to the reference.
    pub(crate) fn requests_of(
        &self,
        route: Route,
        commit_delay: u32,
        candidate: &str,
    ) -> Vec<(usize, f64)> {
        self.line(route, commit_delay, candidate, |point| point.requests)
    }

    pub(crate) fn connections(&self) -> Vec<usize> {
        sorted(self.points.iter().map(|point| point.connections))
    }

    fn markdown(&self) -> String {
        let mut text = format!(
            "# Throughput\n\nRatios of one run, made by `throughput --record`; \
             [README.md](README.md) has the set-up.\n{}\n",
            self.set_up
        );
        let sections = self
            .points
            .iter()
            .map(|point| (point.route, point.commit_delay));
        for (route, commit_delay) in sorted(sections) {
            self.section(&mut text, route, commit_delay);
        }
        text
    }

    fn section(&self, text: &mut String, route: Route, commit_delay: u32) {
        let commits = commits(commit_delay);
        let _ = writeln!(text, "## `{route}`, {commits}\n");
        let mut candidates: Vec<&str> = Vec::new();
        for point in &self.points {
            if !candidates.contains(&point.candidate.as_str()) {
                candidates.push(&point.candidate);
            }
        }
        let others = candidates.iter().filter(|name| **name != OURS);
        let ours = self.requests_of(route, commit_delay, OURS);
        let compared = others.map(|other| {
            let line = self.requests_of(route, commit_delay, other);
            let of_ours = |connections| {
                let (_, ours) = *ours.iter().find(|(of_ours, _)| *of_ours == connections)?;
                Some(ours)
            };
            let ratios = line.into_iter().filter_map(|(connections, other)| {
                Some((connections, of_ours(connections)? / other))
            });
            (*other, ratios.collect())
        });
        let title = "requests per second of this crate, as a multiple of those of";
        self.table(text, title, compared.collect());
        let figures: [(&str, Figure); 4] = [
            (
                "requests per second, as a multiple of tower-sessions'",
                |point| point.requests,
            ),
            (
                "99th percentile of the latency, as a multiple of tower-sessions' (less is better)",
                |point| point.p99,
            ),
            ("statements per request", |point| {
                point.statements_per_request
            }),
            ("transactions that write per request", |point| {
                Some(point.commits_per_request)
            }),
        ];
        for (title, figure) in figures {
            let line = |name: &&'_ str| self.line(route, commit_delay, name, figure);
            let rows = candidates.iter().map(|name| (*name, line(name)));
            self.table(text, title, rows.collect());
        }
    }

    fn table(&self, text: &mut String, title: &str, rows: Vec<(&str, Vec<(usize, f64)>)>) {
        if rows.iter().all(|(_, line)| line.is_empty()) {
            return;
        }
        let connections = self.connections();
        let columns: String = connections.iter().map(|n| format!(" {n} |")).collect();
        let aligned = "-:|".repeat(connections.len());
        let _ = writeln!(text, "{title}:\n\n| connections |{columns}\n|-|{aligned}");
        for (name, line) in rows.into_iter().filter(|(_, line)| !line.is_empty()) {
            let cells = connections.iter().map(|connections| {
                let found = line.iter().find(|(of_line, _)| of_line == connections);
                format!(" {} |", or_dash(found.map(|(_, value)| *value), 2))
            });
            let _ = writeln!(text, "| {name} |{}", cells.collect::<String>());
        }
        text.push('\n');
    }

    pub(crate) fn set_up(&self) -> &SetUp {
        &self.set_up
    }
}

fn path() -> PathBuf {
    benches().join("summary.json")
}

pub(crate) fn commits(commit_delay: u32) -> String {
    match commit_delay {
        0 => "commits as fast as the disk".to_owned(),
        delay => format!("each flush of commits waits {delay} µs more"),
    }
}

/// To three decimals, or four significant digits if that is more. More would be noise in a diff.
fn rounded(value: f64) -> f64 {
    let digits = value.abs().log10().floor().clamp(-9.0, 0.0);
    let scale = 10f64.powf(3.0 - digits);
    (value * scale).round() / scale
}

fn sorted<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.sort();
    values.dedup();
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{candidates::REFERENCE, results::tests::measured};

    #[test]
    fn a_summary_has_ratios_only() {
        let measured = [measured(OURS, 30_000.0), measured(REFERENCE, 10_000.0)];
        let summary = Summary::of(&Results::new(SetUp::default(), &measured));
        let json = summary.json().expect("numbers are JSON");
        assert!(json.contains("\"requests\":3.0"), "{json}");
        assert!(!json.contains("30000"), "{json}");
        let markdown = summary.markdown();
        assert!(markdown.contains("| ours | 3.00 |"), "{markdown}");
        assert!(markdown.contains("| tower-sessions | 3.00 |"), "{markdown}");
    }

    #[test]
    fn a_summary_has_the_lower_ratio_of_two_load_generators() {
        let by_wrk = |candidate, rate| Measured {
            generator: Generator::Wrk,
            ..measured(candidate, rate)
        };
        let both = [
            measured(OURS, 30_000.0),
            measured(REFERENCE, 10_000.0),
            by_wrk(OURS, 25_000.0),
            by_wrk(REFERENCE, 10_000.0),
        ];
        let summary = Summary::of(&Results::new(SetUp::default(), &both));
        assert_eq!(summary.points.len(), 2);
        assert_eq!(summary.points[0].requests, Some(2.5));
    }

    #[test]
    fn the_recorded_run_is_rendered() {
        let summary = Summary::read().expect("a recorded run");
        let json = fs::read_to_string(path()).expect("a file");
        assert_eq!(summary.json().expect("numbers are JSON"), json);
        let markdown = fs::read_to_string(benches().join("SUMMARY.md")).expect("a file");
        assert!(summary.markdown() == markdown, "run `throughput --render`");
    }
}
