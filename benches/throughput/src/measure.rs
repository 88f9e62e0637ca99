//! Measures the candidates in turns, at one point after the other.

use std::{io, net::SocketAddr, process::Command, time::Duration};

use crate::{
    arguments::Arguments,
    candidates::{Candidate, Storage},
    load::{Client, Extent, Generator, Outcome, Plan, Report, Route, generate},
    postgres::Postgres,
    processes::{Process, cpu_seconds, cpu_seconds_with_children, pin},
    redis::Redis,
    results::Measured,
    wrk,
};

/// Connections that create the sessions before the first measurement.
const SEEDING: usize = 64;
/// How long statements are counted. That is a pass of its own, because logging them takes time.
const COUNTED: Duration = Duration::from_millis(300);

/// A candidate whose server runs.
struct Running {
    name: String,
    server: Process,
    address: SocketAddr,
    database: Database,
    clients: Vec<Client>,
}

enum Database {
    None,
    Postgres { name: String, process: u32 },
    Redis(Redis),
}

/// What was used up to some moment.
#[derive(Clone, Copy, Debug)]
struct Meters {
    server: f64,
    database: f64,
    transactions: f64,
}

/// Measures each point with all candidates, and passes its measurements to `publish`.
pub(crate) fn measure(
    arguments: &Arguments,
    commit_delay: u32,
    candidates: &[&Candidate],
    postgres: &mut Postgres,
    mut publish: impl FnMut(Vec<Measured>) -> io::Result<()>,
) -> io::Result<()> {
    let mut running = Vec::new();
    for candidate in candidates {
        running.push(Running::start(candidate, arguments, postgres)?);
    }
    for route in &arguments.routes {
        for connections in &arguments.connections {
            postgres.execute("CHECKPOINT")?;
            let mut point = Vec::new();
            for round in 0..arguments.rounds {
                for candidate in &mut running {
                    let measured = candidate.measure(arguments, *route, *connections, postgres)?;
                    point.push(Measured {
                        commit_delay,
                        round,
                        ..measured
                    });
                }
            }
            for candidate in &mut running {
                let statements = candidate.statements(*route, *connections, postgres)?;
                let of_candidate = point.iter_mut().filter(|of| of.candidate == candidate.name);
                of_candidate.for_each(|of| of.statements_per_request = statements);
            }
            publish(point)?;
        }
    }
    Ok(())
}

impl Running {
    fn start(
        candidate: &Candidate,
        arguments: &Arguments,
        postgres: &mut Postgres,
    ) -> io::Result<Self> {
        let (database, url, connections) = match candidate.storage {
            Storage::Process => (Database::None, String::new(), 0),
            Storage::Postgres => {
                // A name that needs no escape in a URL.
                let name = candidate
                    .name
                    .replace(|c: char| !c.is_ascii_alphanumeric(), "_");
                let url = postgres.database(&name)?;
                let process = postgres.process()?;
                (Database::Postgres { name, process }, url, arguments.pool)
            }
            Storage::Redis { durable } => {
                let redis = Redis::start(durable)?;
                if let Some((_, databases)) = arguments.separate_cores()? {
                    pin(redis.process, &databases)?;
                }
                let url = redis.url();
                (Database::Redis(redis), url, arguments.redis_pool)
            }
        };
        let mut command = Command::new(&candidate.program);
        command.args([&url, &connections.to_string(), candidate.variant]);
        let server = Process::start(&mut command)?;
        let invalid = |_| io::Error::other(format!("{} does not start", candidate.name));
        let address = server.first_line.parse().map_err(invalid)?;
        let sessions = arguments.sessions;
        let (seeded, _) = generate(
            Plan {
                address,
                route: Route::Seed,
                connections: SEEDING.min(sessions),
                extent: Extent::Requests(sessions),
                clients: Vec::new(),
            },
            || Ok(()),
        )?;
        if seeded.wrong > 0 || seeded.clients.len() != sessions {
            let example = seeded.example.unwrap_or_default();
            let message = format!("{} creates no sessions: {example}", candidate.name);
            return Err(io::Error::other(message));
        }
        Ok(Self {
            name: candidate.name.clone(),
            server,
            address,
            database,
            clients: seeded.clients,
        })
    }

    fn measure(
        &mut self,
        arguments: &Arguments,
        route: Route,
        connections: usize,
        postgres: &mut Postgres,
    ) -> io::Result<Measured> {
        let (report, example, [begin, end]) = match arguments.generator {
            Generator::Own => self.load(arguments, route, connections, postgres)?,
            Generator::Wrk => self.load_by_wrk(arguments, route, connections, postgres)?,
        };
        let requests = report.requests.max(1.0);
        Ok(Measured {
            commit_delay: 0,
            generator: arguments.generator,
            route,
            connections,
            candidate: self.name.clone(),
            round: 0,
            requests_per_second: report.requests / report.seconds,
            p50_us: report.p50_us,
            p99_us: report.p99_us,
            statements_per_request: None,
            commits_per_request: (end.transactions - begin.transactions) / requests,
            server_us_per_request: (end.server - begin.server) * 1e6 / requests,
            database_us_per_request: (end.database - begin.database) * 1e6 / requests,
            load_us_per_request: report.cpu_micros / requests,
            wrong: report.wrong,
            example,
        })
    }

    fn load(
        &mut self,
        arguments: &Arguments,
        route: Route,
        connections: usize,
        postgres: &mut Postgres,
    ) -> io::Result<(Report, Option<String>, [Meters; 2])> {
        let extent = Extent::Time {
            warm_up: Duration::from_secs_f64(arguments.warm_up),
            measured: Duration::from_secs_f64(arguments.seconds),
        };
        let plan = self.plan(route, connections, extent);
        let (outcome, meters) = generate(plan, || self.read_meters(postgres))?;
        let [begin, end] = meters[..] else {
            return Err(io::Error::other("the load ended too early"));
        };
        let (report, example) = (outcome.report(), outcome.example.clone());
        self.keep(outcome);
        Ok((report, example, [begin, end]))
    }

    fn load_by_wrk(
        &mut self,
        arguments: &Arguments,
        route: Route,
        connections: usize,
        postgres: &mut Postgres,
    ) -> io::Result<(Report, Option<String>, [Meters; 2])> {
        let clients = match route.creates_sessions() {
            true => &[],
            false => &*self.clients,
        };
        let begin = self.read_meters(postgres)?;
        let report = wrk::run(self.address, route, connections, arguments.seconds, clients)?;
        let end = self.read_meters(postgres)?;
        // wrk doesn't return the counters.
        for client in &mut self.clients {
            client.count = None;
        }
        let example = (report.wrong > 0).then(|| "wrk counted errors".to_owned());
        Ok((report, example, [begin, end]))
    }

    fn statements(
        &mut self,
        route: Route,
        connections: usize,
        postgres: &mut Postgres,
    ) -> io::Result<Option<f64>> {
        let Database::Postgres { name, .. } = &self.database else {
            return Ok(None);
        };
        let extent = Extent::Time {
            warm_up: Duration::ZERO,
            measured: COUNTED,
        };
        let plan = self.plan(route, connections, extent);
        let (statements, (outcome, _)) =
            postgres.statements_of(name, || generate(plan, || Ok(())))?;
        let responses = outcome.responses.max(1) as f64;
        self.keep(outcome);
        Ok(Some(statements as f64 / responses))
    }

    fn plan(&self, route: Route, connections: usize, extent: Extent) -> Plan {
        let clients = match route.creates_sessions() {
            true => 0,
            // The same number for each connection.
            false => self.clients.len() / connections * connections,
        };
        Plan {
            address: self.address,
            route,
            connections,
            extent,
            clients: self.clients[..clients].to_vec(),
        }
    }

    /// The load generator returns the sessions in their order.
    fn keep(&mut self, outcome: Outcome) {
        self.clients
            .splice(..outcome.clients.len(), outcome.clients);
    }

    fn read_meters(&self, postgres: &mut Postgres) -> io::Result<Meters> {
        Ok(Meters {
            server: cpu_seconds(self.server.id()),
            database: match &self.database {
                Database::None => 0.0,
                Database::Postgres { process, .. } => cpu_seconds_with_children(*process),
                Database::Redis(redis) => cpu_seconds_with_children(redis.process),
            },
            transactions: postgres.writing_transactions()?,
        })
    }
}
