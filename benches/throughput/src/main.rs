//! How many requests a second sessions in Postgres serve, with this crate and
//! with others, in one run and in turns. `benches/README.md` has the command.

mod arguments;
mod builds;
mod candidates;
mod load;
mod measure;
mod plan;
mod plots;
mod postgres;
mod processes;
mod redis;
mod report;
mod results;
mod summary;

use std::{
    env,
    fs::File,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use arguments::Arguments;
use candidates::{Candidate, Program, Storage};
use measure::Contest;
use postgres::Postgres;
use results::{Line, Results, SetUp};
use summary::Tracked;

/// The first argument that makes this program the load generator.
const LOAD: &str = "load";

fn main() -> io::Result<ExitCode> {
    if env::args().nth(1).as_deref() == Some(LOAD) {
        return load::run().map(|()| ExitCode::SUCCESS);
    }
    let arguments = Arguments::of_process();
    let tracked = Tracked::read()?;
    let results = match arguments.from.as_slice() {
        [] => measure(&arguments, &tracked)?,
        files => Results::read(files)?,
    };
    println!("\n{}", report::table(&results, &tracked));
    if results.wrong() > 0 {
        let examples = report::examples(&results).join("\n");
        eprintln!("{} responses were wrong:\n{examples}", results.wrong());
        return Ok(ExitCode::FAILURE);
    }
    if arguments.record {
        summary::write(&results)?;
        plots::write(&results)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Where measurements are written as they are made.
struct Journal(Option<File>);

impl Journal {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        let Some(file) = &mut self.0 else {
            return Ok(());
        };
        serde_json::to_writer(&mut *file, line)?;
        file.write_all(b"\n")
    }
}

fn measure(arguments: &Arguments, tracked: &Tracked) -> io::Result<Results> {
    let (candidates, redis) = candidates(arguments)?;
    let built = build(candidates, arguments)?;
    let connections = u32::try_from(built.len()).map_err(io::Error::other)? * arguments.pool;
    let mut postgres = Postgres::start(arguments.fsync, connections + 20)?;
    let set_up = arguments.set_up(postgres.version()?, redis);
    println!("{}", summary::set_up(&set_up));
    if postgres.is_in_memory() {
        eprintln!("WARNING: TMPDIR is in memory, so a commit waits for no disk");
    }
    let mut journal = Journal(arguments.json.as_ref().map(File::create).transpose()?);
    journal.write(&Line::SetUp(set_up.clone()))?;
    let mut all = Vec::new();
    for delay in &arguments.commit_delay {
        postgres.set_commit_delay(*delay)?;
        let commit = postgres.commit_microseconds()?;
        println!("commit_delay {delay} us: a commit alone takes {commit:.0} us\n");
        let candidates = built
            .iter()
            .filter(|(candidate, _)| candidate.heeds(*delay));
        let mut contest = Contest::open(arguments, *delay, candidates, &mut postgres)?;
        contest.run(|point| {
            let of_point = Results::new(set_up.clone(), point.to_vec());
            println!("{}", report::table(&of_point, tracked));
            all.extend_from_slice(point);
            let mut lines = point
                .iter()
                .cloned()
                .map(|one| Line::Measured(Box::new(one)));
            lines.try_for_each(|line| journal.write(&line))
        })?;
    }
    Ok(Results::new(set_up, all))
}

/// What is to be measured and can be, and the version of Redis.
fn candidates(arguments: &Arguments) -> io::Result<(Vec<Candidate>, Option<String>)> {
    let known = arguments.candidates.iter().copied().map(Candidate::from);
    let against = arguments.against.iter();
    let against = against.map(|given| Candidate::build_of_ours(given, Program::Against));
    let given = arguments.ours_binary.iter();
    let given = given.map(|given| Candidate::build_of_ours(given, Program::Given));
    let mut candidates: Vec<_> = known.chain(against).chain(given).collect();
    let on_redis = |candidate: &Candidate| matches!(candidate.storage, Storage::Redis(_));
    let redis = match candidates.iter().any(on_redis) {
        true => redis::version(),
        false => None,
    };
    if redis.is_none() && candidates.iter().any(on_redis) {
        eprintln!("LEFT OUT: Redis, for there is no redis-server and none could be installed");
        candidates.retain(|candidate| !on_redis(candidate));
    }
    let mut names: Vec<_> = candidates.iter().map(|candidate| &candidate.name).collect();
    names.sort();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(io::Error::other("two candidates have the same name"));
    }
    Ok((candidates, redis))
}

fn build(
    candidates: Vec<Candidate>,
    arguments: &Arguments,
) -> io::Result<Vec<(Candidate, PathBuf)>> {
    let with_program = candidates.into_iter().map(|candidate| {
        let program = builds::program_of(&candidate.program, arguments.builds())?;
        Ok((candidate, program))
    });
    with_program.collect()
}

impl Arguments {
    fn set_up(&self, postgres: String, redis: Option<String>) -> SetUp {
        SetUp {
            cores: bench_common::cores(),
            postgres,
            redis,
            fsync: self.fsync.to_string(),
            pool: self.pool,
            redis_pool: self.redis_pool,
            sessions: self.sessions,
            rounds: self.rounds,
            seconds: self.seconds,
        }
    }
}
