use std::{io, ops::Range, path::PathBuf};

use clap::{Parser, builder::PossibleValuesParser};

use crate::{
    candidates,
    load::{Generator, Route},
};

/// Compares the requests per second of sessions in Postgres, with this crate and with others, in
/// turns and in one run
#[derive(Clone, Debug, Parser)]
pub(crate) struct Arguments {
    /// What is compared; benches/README.md describes each
    #[arg(long, value_delimiter = ',', default_values = candidates::names(),
          value_parser = PossibleValuesParser::new(candidates::names()))]
    pub(crate) candidates: Vec<String>,
    /// Another build of this crate's server; can be repeated
    #[arg(long, value_name = "PATH[=NAME]")]
    pub(crate) ours_binary: Vec<String>,
    /// Another checkout of this crate, with which its server is built; can be repeated
    #[arg(long, value_name = "FOLDER[=NAME]")]
    pub(crate) against: Vec<String>,
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Route::MEASURED)]
    pub(crate) routes: Vec<Route>,
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 64, 256])]
    pub(crate) connections: Vec<usize>,
    /// How often each candidate is measured at each point; the result is the median
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// The duration of one measurement
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// The seconds before each measurement
    #[arg(long, default_value_t = 0.4)]
    pub(crate) warm_up: f64,
    /// Microseconds that each flush of commits waits, 0 for a fast disk; each value is one pass
    #[arg(long, value_delimiter = ',', default_values_t = [0])]
    pub(crate) commit_delay: Vec<u32>,
    /// Whether commits wait for the disk
    #[arg(long, default_value = "on", value_parser = ["on", "off"])]
    pub(crate) fsync: String,
    /// Connections of each server to Postgres
    #[arg(long, default_value_t = 32)]
    pub(crate) pool: u32,
    /// Connections of each server to Redis
    #[arg(long, default_value_t = 6)]
    pub(crate) redis_pool: u32,
    /// All sessions; each connection uses its own part of them in turn
    #[arg(long, default_value_t = 20_480)]
    pub(crate) sessions: usize,
    /// What sends the requests
    #[arg(long, value_enum, default_value_t = Generator::Own)]
    pub(crate) generator: Generator,
    /// Microseconds of a round trip between the servers and Postgres, 0 for none
    #[arg(long, default_value_t = 0, conflicts_with = "record")]
    pub(crate) round_trip: u32,
    /// Cores for Postgres or Redis alone, counted from the last; 0: all processes share all cores
    #[arg(long, default_value_t = 0, conflicts_with = "record")]
    pub(crate) database_cores: usize,
    /// All cores of the machine
    #[arg(skip = bench_common::cores())]
    pub(crate) cores: usize,
    /// Where to write each measurement, as a line of JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Measure nothing, but take what runs have written with --json; can be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Vec<PathBuf>,
    /// Write summary.json, SUMMARY.md and the plots
    #[arg(long)]
    pub(crate) record: bool,
    /// Measure nothing, but write SUMMARY.md and the plots from summary.json
    #[arg(long)]
    pub(crate) render: bool,
    /// Check in seconds that the responses are right, with figures that mean nothing
    #[arg(long, conflicts_with = "record")]
    pub(crate) smoke: bool,
}

impl Arguments {
    pub(crate) fn of_process() -> Self {
        let mut arguments = Self::parse();
        if arguments.smoke {
            arguments.candidates = vec![candidates::OURS.to_owned(), "bare".to_owned()];
            arguments.connections = vec![1, 16];
            arguments.sessions = 640;
            arguments.rounds = 1;
            arguments.seconds = 0.2;
            arguments.warm_up = 0.1;
        }
        arguments
    }

    /// The cores of the servers and the load, and those of the databases.
    pub(crate) fn separate_cores(&self) -> io::Result<Option<(Range<usize>, Range<usize>)>> {
        if self.database_cores == 0 {
            return Ok(None);
        }
        match self.cores.checked_sub(self.database_cores) {
            Some(others @ 1..) => Ok(Some((0..others, others..self.cores))),
            _ => Err(io::Error::other(
                "`--database-cores` leaves no core for the servers; use a smaller number",
            )),
        }
    }
}
