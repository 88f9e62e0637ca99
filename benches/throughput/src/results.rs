//! What a run, or several, came to.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{candidates::REFERENCE, measure::Measured, plan::Route};

/// What decides the figures beside the candidates.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
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
    /// Without the packager's own number.
    pub(crate) fn postgres_version(&self) -> &str {
        self.postgres.split(' ').next().unwrap_or_default()
    }

    /// A later run may have left Redis out.
    fn then(self, later: Self) -> Self {
        Self {
            redis: later.redis.or(self.redis),
            ..later
        }
    }
}

/// A line of the file of measurements.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    SetUp(SetUp),
    Measured(Box<Measured>),
}

/// The measurements, and the medians of their rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results {
    pub(crate) set_up: SetUp,
    pub(crate) measured: Vec<Measured>,
    medians: Vec<Measured>,
}

impl Results {
    pub(crate) fn new(set_up: SetUp, measured: Vec<Measured>) -> Self {
        let medians = medians(&measured);
        Self {
            set_up,
            measured,
            medians,
        }
    }

    /// Of files that runs have written; the last set-up is told.
    pub(crate) fn read(files: &[impl AsRef<Path>]) -> io::Result<Self> {
        let (mut set_up, mut measured) = (SetUp::default(), Vec::new());
        for file in files {
            for line in BufReader::new(fs::File::open(file)?).lines() {
                match serde_json::from_str(&line?)? {
                    Line::SetUp(found) => set_up = set_up.then(found),
                    Line::Measured(found) => measured.push(*found),
                }
            }
        }
        Ok(Self::new(set_up, measured))
    }

    pub(crate) fn medians(&self) -> &[Measured] {
        &self.medians
    }

    /// Those with which a route was measured.
    pub(crate) fn commit_delays(&self, route: Route) -> Vec<u32> {
        let of_route = self.medians.iter().filter(|one| one.route == route);
        sorted(of_route.map(|one| one.commit_delay))
    }

    pub(crate) fn routes(&self) -> Vec<Route> {
        sorted(self.medians.iter().map(|one| one.route))
    }

    pub(crate) fn connections(&self) -> Vec<usize> {
        sorted(self.medians.iter().map(|one| one.connections))
    }

    /// In the order in which they were measured.
    pub(crate) fn candidates(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for one in &self.medians {
            if !names.contains(&one.candidate.as_str()) {
                names.push(&one.candidate);
            }
        }
        names
    }

    pub(crate) fn get(&self, like: &Measured, candidate: &str) -> Option<&Measured> {
        self.medians
            .iter()
            .find(|one| is_same_point(one, like) && one.candidate == candidate)
    }

    /// Medians of one candidate's line in a plot or a table.
    pub(crate) fn line(&self, commit_delay: u32, route: Route, candidate: &str) -> Vec<&Measured> {
        let of_line = self.medians.iter().filter(|one| {
            (one.commit_delay, one.route, one.candidate.as_str())
                == (commit_delay, route, candidate)
        });
        of_line.collect()
    }

    /// Requests per second as a multiple of another candidate's at the point.
    pub(crate) fn ratio_to(&self, one: &Measured, other: &str) -> Option<f64> {
        let other = self.get(one, other)?;
        Some(one.requests_per_second / other.requests_per_second)
    }

    pub(crate) fn ratio(&self, one: &Measured) -> Option<f64> {
        self.ratio_to(one, REFERENCE)
    }

    pub(crate) fn wrong(&self) -> u64 {
        self.measured.iter().map(|one| one.wrong).sum()
    }
}

fn sorted<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.sort();
    values.dedup();
    values
}

fn is_same_point(one: &Measured, other: &Measured) -> bool {
    (one.commit_delay, one.route, one.connections)
        == (other.commit_delay, other.route, other.connections)
}

/// The rounds of each point and candidate as one, in their order.
fn medians(measured: &[Measured]) -> Vec<Measured> {
    let mut found: Vec<Measured> = Vec::new();
    let is_same = |one: &Measured, other: &Measured| {
        is_same_point(one, other) && one.candidate == other.candidate
    };
    for one in measured {
        if !found.iter().any(|other| is_same(one, other)) {
            let rounds: Vec<_> = measured
                .iter()
                .filter(|other| is_same(one, other))
                .collect();
            found.push(median_of(one, &rounds));
        }
    }
    found
}

fn median_of(one: &Measured, rounds: &[&Measured]) -> Measured {
    let median_by = |of: fn(&Measured) -> f64| median(rounds.iter().map(|round| of(round)));
    Measured {
        requests_per_second: median_by(|of| of.requests_per_second),
        p50_us: median_by(|of| of.p50_us),
        p99_us: median_by(|of| of.p99_us),
        commits_per_request: median_by(|of| of.commits_per_request),
        server_us_per_request: median_by(|of| of.server_us_per_request),
        database_us_per_request: median_by(|of| of.database_us_per_request),
        load_us_per_request: median_by(|of| of.load_us_per_request),
        wrong: rounds.iter().map(|round| round.wrong).sum(),
        example: rounds.iter().find_map(|round| round.example.clone()),
        ..one.clone()
    }
}

/// Of two in the middle the mean, so that an even number of rounds favours
/// neither.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A measurement of which only the rate matters.
    pub(crate) fn measured(candidate: &str, connections: usize, rate: f64) -> Measured {
        Measured {
            commit_delay: 0,
            route: Route::Read,
            connections,
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
    fn rounds_become_their_median_and_are_set_against_the_reference() {
        let rates = [
            ("ours", 30.0),
            (REFERENCE, 10.0),
            ("ours", 50.0),
            ("ours", 40.0),
        ];
        let rounds = rates.map(|(candidate, rate)| measured(candidate, 8, rate));
        let results = Results::new(SetUp::default(), rounds.to_vec());
        let ours = &results.medians()[0];
        assert!((ours.requests_per_second - 40.0).abs() < 1e-9);
        assert!((results.ratio(ours).expect("both are there") - 4.0).abs() < 1e-9);
        assert_eq!(results.candidates(), ["ours", REFERENCE]);
    }

    #[test]
    fn of_several_runs_the_version_of_redis_stays() {
        let with_redis = SetUp {
            redis: Some("7".to_owned()),
            ..SetUp::default()
        };
        let both = with_redis.then(SetUp::default());
        assert_eq!(both.redis.as_deref(), Some("7"));
    }

    #[test]
    fn the_median_of_two_is_between_them() {
        assert!((median([4.0, 1.0].into_iter()) - 2.5).abs() < 1e-9);
    }
}
