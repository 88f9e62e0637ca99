//! What can be asked of the benchmark.

use std::path::PathBuf;

use clap::Parser;

use crate::{builds::Builds, candidates::Known, plan::Route, postgres::Fsync};

/// Requests per second of sessions in Postgres, with this crate and with
/// others, in turns and in one run.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Arguments {
    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Known::ALL)]
    pub(crate) candidates: Vec<Known>,
    /// Another build of this crate's server; can be repeated
    #[arg(long, value_name = "PATH[=NAME]")]
    pub(crate) ours_binary: Vec<String>,
    /// Another checkout of this crate, with which its server is built; can be repeated
    #[arg(long, value_name = "FOLDER[=NAME]")]
    pub(crate) against: Vec<String>,
    /// Take the servers as they were built last, without asking cargo
    #[arg(long)]
    pub(crate) no_build: bool,
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Route::MEASURED)]
    pub(crate) routes: Vec<Route>,
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 64, 256])]
    pub(crate) connections: Vec<usize>,
    /// Turns of each candidate at each point; the medians count
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Of one measurement
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Before each measurement
    #[arg(long, default_value_t = 0.4)]
    pub(crate) warm_up: f64,
    /// Microseconds that each commit waits for others, 0 for a fast disk; each is a run of its own
    #[arg(long, value_delimiter = ',', default_values_t = [0])]
    pub(crate) commit_delay: Vec<u32>,
    /// Whether commits wait for the disk
    #[arg(long, value_enum, default_value_t = Fsync::On)]
    pub(crate) fsync: Fsync,
    /// Connections of each server to Postgres
    #[arg(long, default_value_t = 32)]
    pub(crate) pool: u32,
    /// Connections of each server to Redis
    #[arg(long, default_value_t = 6)]
    pub(crate) redis_pool: u32,
    /// Sessions that each connection takes in turns, shared with no other
    #[arg(long, default_value_t = 40)]
    pub(crate) sessions: usize,
    /// Where to write each measurement, as a line of JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Measure nothing: take what runs have written with --json; can be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Vec<PathBuf>,
    /// Write summary.json, SUMMARY.md and the plots
    #[arg(long)]
    pub(crate) record: bool,
    /// Whether the responses are right, in seconds; not how fast they are
    #[arg(long, conflicts_with = "record")]
    pub(crate) smoke: bool,
}

impl Arguments {
    pub(crate) fn of_process() -> Self {
        let mut found = Self::parse();
        if found.smoke {
            found.candidates = vec![Known::Ours, Known::Bare];
            found.connections = vec![1, 16];
            found.rounds = 1;
            found.seconds = 0.2;
            found.warm_up = 0.1;
        }
        found
    }

    pub(crate) fn builds(&self) -> Builds {
        match self.no_build {
            true => Builds::Last,
            false => Builds::Fresh,
        }
    }

    /// Sessions of the connections at the most.
    pub(crate) fn seats(&self) -> usize {
        self.sessions * self.connections.iter().max().copied().unwrap_or(1)
    }
}
