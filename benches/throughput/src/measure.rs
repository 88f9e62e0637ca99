//! The candidates in turns, at one point after the other.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize};

use crate::{
    LOAD,
    arguments::Arguments,
    candidates::{Candidate, Storage},
    plan::{Extent, Outcome, Plan, Report, Route, Seat},
    postgres::Postgres,
    processes::{Server, cpu_seconds, cpu_seconds_of_family},
    redis::Redis,
};

/// Connections that make the sessions before the first measurement.
const SEEDING: usize = 64;
/// Milliseconds during which statements are counted.
const COUNTED: u64 = 300;

/// One measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) commit_delay: u32,
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
    pub(crate) wrong: u64,
    pub(crate) example: Option<String>,
}

/// A candidate that is ready to serve.
struct Contestant {
    name: String,
    server: Server,
    database: Database,
    seats: Vec<Seat>,
}

/// Where a candidate's sessions are.
enum Database {
    None,
    Postgres { name: String, process: u32 },
    Redis(Redis),
}

/// Candidates that are measured in turns.
pub(crate) struct Contest<'a> {
    arguments: &'a Arguments,
    commit_delay: u32,
    contestants: Vec<Contestant>,
    postgres: &'a mut Postgres,
}

/// What was taken and done up to a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Meters {
    server: f64,
    database: f64,
    load: f64,
    transactions: u64,
}

#[derive(Clone, Copy, Debug)]
struct Point {
    route: Route,
    connections: usize,
}

impl<'a> Contest<'a> {
    pub(crate) fn open<'b>(
        arguments: &'a Arguments,
        commit_delay: u32,
        candidates: impl Iterator<Item = &'b (Candidate, PathBuf)>,
        postgres: &'a mut Postgres,
    ) -> io::Result<Self> {
        let mut contestants = Vec::new();
        for (candidate, program) in candidates {
            contestants.push(Contestant::start(candidate, program, arguments, postgres)?);
        }
        Ok(Self {
            arguments,
            commit_delay,
            contestants,
            postgres,
        })
    }

    /// Each point is told when all of its rounds are done.
    pub(crate) fn run(
        &mut self,
        mut tell: impl FnMut(&[Measured]) -> io::Result<()>,
    ) -> io::Result<()> {
        for route in &self.arguments.routes {
            for connections in &self.arguments.connections {
                let point = Point {
                    route: *route,
                    connections: *connections,
                };
                tell(&self.point(point)?)?;
            }
        }
        Ok(())
    }

    fn point(&mut self, point: Point) -> io::Result<Vec<Measured>> {
        self.postgres.checkpoint()?;
        let mut measured = Vec::new();
        for round in 0..self.arguments.rounds {
            for at in 0..self.contestants.len() {
                measured.push(self.turn(point, round, at)?);
            }
        }
        for at in 0..self.contestants.len() {
            let statements = self.statements_per_request(point, at)?;
            let name = &self.contestants[at].name;
            let of_this = measured.iter_mut().filter(|of| of.candidate == *name);
            of_this.for_each(|of| of.statements_per_request = statements);
        }
        Ok(measured)
    }

    fn turn(&mut self, point: Point, round: usize, at: usize) -> io::Result<Measured> {
        let extent = Extent::Milliseconds {
            warm_up: milliseconds(self.arguments.warm_up),
            measured: milliseconds(self.arguments.seconds),
        };
        let plan = self.contestants[at].plan(point, extent, self.arguments.sessions);
        let contestant = &self.contestants[at];
        let postgres = &mut *self.postgres;
        let (outcome, meters) = generate(&plan, |load| contestant.read_meters(load, postgres))?;
        self.contestants[at].keep(&outcome.seats);
        Ok(self.measured(point, round, at, outcome, meters))
    }

    fn measured(
        &self,
        point: Point,
        round: usize,
        at: usize,
        outcome: Outcome,
        meters: Meters,
    ) -> Measured {
        let requests = outcome.requests.max(1) as f64;
        Measured {
            commit_delay: self.commit_delay,
            route: point.route,
            connections: point.connections,
            candidate: self.contestants[at].name.clone(),
            round,
            requests_per_second: outcome.requests as f64 / outcome.seconds,
            p50_us: outcome.p50_us,
            p99_us: outcome.p99_us,
            statements_per_request: None,
            commits_per_request: meters.transactions as f64 / requests,
            server_us_per_request: meters.server * 1e6 / requests,
            database_us_per_request: meters.database * 1e6 / requests,
            load_us_per_request: meters.load * 1e6 / requests,
            wrong: outcome.wrong,
            example: outcome.example,
        }
    }

    /// In a pass of its own, since counting costs time.
    fn statements_per_request(&mut self, point: Point, at: usize) -> io::Result<Option<f64>> {
        let contestant = &mut self.contestants[at];
        let Database::Postgres { name, .. } = &contestant.database else {
            return Ok(None);
        };
        let extent = Extent::Milliseconds {
            warm_up: 0,
            measured: COUNTED,
        };
        let plan = contestant.plan(point, extent, self.arguments.sessions);
        let (statements, (outcome, _)) = self
            .postgres
            .statements_of(name, || generate(&plan, |_| Ok(Meters::default())))?;
        contestant.keep(&outcome.seats);
        Ok(Some(statements as f64 / outcome.responses.max(1) as f64))
    }
}

impl Contestant {
    fn start(
        candidate: &Candidate,
        program: &Path,
        arguments: &Arguments,
        postgres: &mut Postgres,
    ) -> io::Result<Self> {
        let mut options = vec!["--variant".to_owned(), candidate.variant.to_owned()];
        let mut tell = |name: &str, value: String| options.extend([name.to_owned(), value]);
        let database = match candidate.storage {
            Storage::Process => Database::None,
            Storage::Postgres => {
                let name = database_name(&candidate.name);
                tell("--database", postgres.database(&name)?);
                tell("--pool", arguments.pool.to_string());
                let process = postgres.process()?;
                Database::Postgres { name, process }
            }
            Storage::Redis(persistence) => {
                let redis = Redis::start(persistence)?;
                tell("--redis", redis.url());
                tell("--pool", arguments.redis_pool.to_string());
                Database::Redis(redis)
            }
        };
        let mut contestant = Self {
            name: candidate.name.clone(),
            database,
            server: Server::start(program, &options)?,
            seats: Vec::new(),
        };
        contestant.seed(arguments.seats())?;
        Ok(contestant)
    }

    fn read_meters(&self, load: u32, postgres: &mut Postgres) -> io::Result<Meters> {
        let database = match &self.database {
            Database::None => 0.0,
            Database::Postgres { process, .. } => cpu_seconds_of_family(*process),
            Database::Redis(redis) => cpu_seconds_of_family(redis.process),
        };
        Ok(Meters {
            server: cpu_seconds(self.server.id()),
            database,
            load: cpu_seconds(load),
            transactions: postgres.writing_transactions()?,
        })
    }

    /// Makes the sessions, through the server itself.
    fn seed(&mut self, sessions: usize) -> io::Result<()> {
        let plan = Plan {
            address: self.server.address,
            route: Route::Seed,
            connections: SEEDING.min(sessions),
            extent: Extent::Requests(sessions as u64),
            seats: Vec::new(),
        };
        let (outcome, _) = generate(&plan, |_| Ok(Meters::default()))?;
        if outcome.seats.len() != sessions {
            let example = outcome.example.unwrap_or_default();
            return Err(io::Error::other(format!(
                "{} makes no sessions: {example}",
                self.name
            )));
        }
        self.seats = outcome.seats;
        Ok(())
    }

    fn plan(&self, point: Point, extent: Extent, sessions: usize) -> Plan {
        let seats = match point.route.makes_a_session() {
            true => &[],
            false => &self.seats[..sessions * point.connections],
        };
        Plan {
            address: self.server.address,
            route: point.route,
            connections: point.connections,
            extent,
            seats: seats.to_vec(),
        }
    }

    /// The load generator returns the sessions in the order it got them.
    fn keep(&mut self, seats: &[Seat]) {
        self.seats[..seats.len()].clone_from_slice(seats);
    }
}

impl Meters {
    fn since(self, before: Self) -> Self {
        Self {
            server: self.server - before.server,
            database: self.database - before.database,
            load: self.load - before.load,
            transactions: self.transactions - before.transactions,
        }
    }
}

/// Needs no escape in a URL.
fn database_name(candidate: &str) -> String {
    candidate.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

/// Has a process of its own carry out the plan, and reads the meters when the
/// measured time begins and when it ends.
fn generate(
    plan: &Plan,
    mut read: impl FnMut(u32) -> io::Result<Meters>,
) -> io::Result<(Outcome, Meters)> {
    let mut process = Command::new(env::current_exe()?)
        .arg(LOAD)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = process.stdin.take().expect("it is piped");
    input.write_all(&serde_json::to_vec(plan)?)?;
    drop(input);
    let output = BufReader::new(process.stdout.take().expect("it is piped"));
    let (mut begin, mut end) = (Meters::default(), Meters::default());
    let mut result = Err(io::Error::other("the load generator ended early"));
    for line in output.lines() {
        match serde_json::from_str(&line?)? {
            Report::Begin => begin = read(process.id())?,
            Report::End => end = read(process.id())?,
            Report::Done(outcome) => result = Ok(*outcome),
            Report::Failed(error) => result = Err(io::Error::other(error)),
        }
    }
    process.wait()?;
    Ok((result?, end.since(begin)))
}
