//! The measurements of one run or several, and the table that is printed.

use std::{
    fmt, fs,
    io::{self, BufRead as _, BufReader},
    path::Path,
};

use bench_common::{Table, median};
use serde::{Deserialize, Serialize};

use crate::{
    candidates::REFERENCE,
    load::{Generator, Route},
    summary::Summary,
};

/// The options and programs that affect all candidates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SetUp {
    pub(crate) cores: usize,
    pub(crate) postgres: String,
    pub(crate) redis: Option<String>,
    pub(crate) fsync: String,
    pub(crate) pool: u32,
    pub(crate) redis_pool: u32,
    pub(crate) sessions: usize,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
}

impl SetUp {
    /// Without what a distribution adds.
    pub(crate) fn postgres_version(&self) -> &str {
        self.postgres.split(' ').next().unwrap_or_default()
    }
}

impl fmt::Display for SetUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redis = self
            .redis
            .as_ref()
            .map(|version| format!(", Redis {version}"));
        writeln!(
            f,
            "{} cores for load, servers and databases together; PostgreSQL {}, `fsync={}`{}; {} \
             rounds of {} s; pools of {} connections to Postgres, {} to Redis; {} sessions.",
            self.cores,
            self.postgres_version(),
            self.fsync,
            redis.unwrap_or_default(),
            self.rounds,
            self.seconds,
            self.pool,
            self.redis_pool,
            self.sessions,
        )
    }
}

/// One measurement, or the medians of several rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) commit_delay: u32,
    pub(crate) generator: Generator,
    pub(crate) route: Route,
    pub(crate) connections: usize,
    pub(crate) candidate: String,
    pub(crate) round: usize,
    pub(crate) requests_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) statements_per_request: Option<f64>,
    /// Transactions that wrote something.
    pub(crate) commits_per_request: f64,
    pub(crate) server_us_per_request: f64,
    pub(crate) database_us_per_request: f64,
    pub(crate) load_us_per_request: f64,
    pub(crate) wrong: usize,
    pub(crate) example: Option<String>,
}

/// A line of the files that `--json` writes and `--from` reads.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    SetUp(SetUp),
    Measured(Box<Measured>),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Results {
    pub(crate) set_up: SetUp,
    /// Of each candidate at each point, the medians of its rounds.
    pub(crate) medians: Vec<Measured>,
}

impl Results {
    pub(crate) fn new(set_up: SetUp, measured: &[Measured]) -> Self {
        let mut medians: Vec<Measured> = Vec::new();
        for one in measured {
            if !medians.iter().any(|of| of.is_of(one, &one.candidate)) {
                let rounds = measured.iter().filter(|of| of.is_of(one, &one.candidate));
                medians.push(median_of(&rounds.collect::<Vec<_>>()));
            }
        }
        Self { set_up, medians }
    }

    /// Several runs as one, with the set-up of the last one.
    pub(crate) fn read(files: &[impl AsRef<Path>]) -> io::Result<Self> {
        let (mut set_up, mut measured) = (SetUp::default(), Vec::new());
        for file in files {
            for line in BufReader::new(fs::File::open(file)?).lines() {
                match serde_json::from_str(&line?)? {
                    Line::Measured(one) => measured.push(*one),
                    Line::SetUp(later) => {
                        // A later run may have left Redis out.
                        let redis = later.redis.clone().or(set_up.redis);
                        set_up = SetUp { redis, ..later };
                    }
                }
            }
        }
        Ok(Self::new(set_up, &measured))
    }

    /// The reference at the same point.
    pub(crate) fn reference(&self, one: &Measured) -> Option<&Measured> {
        self.medians.iter().find(|of| of.is_of(one, REFERENCE))
    }

    pub(crate) fn table(&self, tracked: &Summary) -> Table {
        let mut table = Table::new([
            "candidate",
            "delay",
            "load",
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
        ]);
        for one in &self.medians {
            let reference = self.reference(one);
            let ratio = reference.map(|of| one.requests_per_second / of.requests_per_second);
            table.row([
                one.candidate.clone(),
                one.commit_delay.to_string(),
                one.generator.to_string(),
                one.route.to_string(),
                one.connections.to_string(),
                format!("{:.0}", one.requests_per_second),
                or_dash(ratio, 2),
                or_dash(tracked.requests(one), 2),
                format!("{:.0}", one.p50_us),
                format!("{:.0}", one.p99_us),
                or_dash(one.statements_per_request, 3),
                format!("{:.3}", one.commits_per_request),
                format!("{:.1}", one.server_us_per_request),
                format!("{:.1}", one.database_us_per_request),
                format!("{:.1}", one.load_us_per_request),
                one.wrong.to_string(),
            ]);
        }
        table
    }

    /// One wrong response of each candidate at each point.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let examples = self.medians.iter().filter_map(|one| {
            let (route, connections) = (one.route, one.connections);
            let example = one.example.as_ref()?;
            Some(format!(
                "{} {route} {connections}: {example}",
                one.candidate
            ))
        });
        examples.collect()
    }
}

impl Measured {
    /// Whether this is of the same candidate at the same point, by any load generator.
    pub(crate) fn is_of_any_load(&self, other: &Self) -> bool {
        let same = Self {
            generator: self.generator,
            ..other.clone()
        };
        self.is_of(&same, &other.candidate)
    }

    /// Whether this is of the candidate, at the same point as another measurement.
    fn is_of(&self, point: &Self, candidate: &str) -> bool {
        (
            self.commit_delay,
            self.generator,
            self.route,
            self.connections,
            self.candidate.as_str(),
        ) == (
            point.commit_delay,
            point.generator,
            point.route,
            point.connections,
            candidate,
        )
    }
}

fn median_of(rounds: &[&Measured]) -> Measured {
    let median = |of: fn(&Measured) -> f64| median(rounds.iter().map(|round| of(round)));
    Measured {
        requests_per_second: median(|of| of.requests_per_second),
        p50_us: median(|of| of.p50_us),
        p99_us: median(|of| of.p99_us),
        commits_per_request: median(|of| of.commits_per_request),
        server_us_per_request: median(|of| of.server_us_per_request),
        database_us_per_request: median(|of| of.database_us_per_request),
        load_us_per_request: median(|of| of.load_us_per_request),
        wrong: rounds.iter().map(|round| round.wrong).sum(),
        example: rounds.iter().find_map(|round| round.example.clone()),
        ..rounds[0].clone()
    }
}

pub(crate) fn or_dash(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.decimals$}"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A measurement in which only the rate matters.
    pub(crate) fn measured(candidate: &str, rate: f64) -> Measured {
        Measured {
            commit_delay: 0,
            generator: Generator::Own,
            route: Route::Read,
            connections: 64,
            candidate: candidate.to_owned(),
            round: 0,
            requests_per_second: rate,
            p50_us: 1e6 / rate,
            p99_us: 2e6 / rate,
            statements_per_request: Some(1.0),
            commits_per_request: 0.0,
            server_us_per_request: 10.0,
            database_us_per_request: 20.0,
            load_us_per_request: 5.0,
            wrong: 0,
            example: None,
        }
    }

    #[test]
    fn rounds_become_their_median_and_are_compared_with_the_reference() {
        let rates = [
            ("ours", 30.0),
            (REFERENCE, 10.0),
            ("ours", 50.0),
            ("ours", 40.0),
        ];
        let rounds = rates.map(|(candidate, rate)| measured(candidate, rate));
        let results = Results::new(SetUp::default(), &rounds);
        let table = results.table(&Summary::default()).to_string();
        let row = table.lines().nth(1).expect("a row").split_whitespace();
        let row: Vec<_> = row.collect();
        assert_eq!((row[0], row[5], row[6]), ("ours", "40", "4.00"), "{table}");
    }

    #[test]
    fn several_runs_keep_the_version_of_redis() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = [Some("7".to_owned()), None].map(|redis| {
            let set_up = Line::SetUp(SetUp {
                redis,
                ..SetUp::default()
            });
            let file = folder.path().join(format!("{set_up:?}").len().to_string());
            let line = serde_json::to_string(&set_up).expect("JSON");
            fs::write(&file, line).expect("a file");
            file
        });
        let results = Results::read(&files).expect("two runs");
        assert_eq!(results.set_up.redis.as_deref(), Some("7"));
    }
}
