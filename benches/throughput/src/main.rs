//! How many requests per second do sessions in Postgres allow, with this crate and with others?
//! `benches/README.md` has the commands.

mod arguments;
mod candidates;
mod load;
mod measure;
mod network;
mod plots;
mod postgres;
mod processes;
mod redis;
mod results;
mod summary;
mod wrk;

use std::{
    fs::File,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use arguments::Arguments;
use candidates::Candidate;
use load::Generator;
use postgres::Postgres;
use results::{Line, Results, SetUp};
use summary::Summary;

fn main() -> io::Result<ExitCode> {
    let arguments = Arguments::of_process();
    let tracked = Summary::read()?;
    if arguments.render {
        return tracked.render().map(|()| ExitCode::SUCCESS);
    }
    let results = match arguments.from.as_slice() {
        [] => measure(&arguments, &tracked)?,
        files => Results::read(files)?,
    };
    println!("\n{}", results.table(&tracked));
    let wrong = results.wrong();
    if !wrong.is_empty() {
        eprintln!("wrong responses, one for each point:\n{}", wrong.join("\n"));
        return Ok(ExitCode::FAILURE);
    }
    if arguments.record {
        let summary = Summary::of(&results);
        summary.write()?;
        summary.render()?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(arguments: &Arguments, tracked: &Summary) -> io::Result<Results> {
    let mut candidates = candidates(arguments)?;
    let redis = redis::version();
    if redis.is_none() && candidates.iter().any(Candidate::needs_redis) {
        eprintln!("Redis is left out, because redis-server is not installed");
        candidates.retain(|candidate| !candidate.needs_redis());
    }
    let connections = u32::try_from(candidates.len()).map_err(io::Error::other)? * arguments.pool;
    let mut postgres = Postgres::start(&arguments.fsync, connections + 20)?;
    if let Some((others, databases)) = arguments.separate_cores()? {
        processes::pin(std::process::id(), &others)?;
        processes::pin(postgres.process()?, &databases)?;
        println!(
            "cores {} and above are for the databases alone",
            databases.start
        );
    }
    if arguments.round_trip > 0 {
        postgres.move_away(Duration::from_micros(arguments.round_trip.into()))?;
        candidates.retain(|candidate| !candidate.needs_redis());
    }
    if arguments.generator == Generator::Wrk && !wrk::is_installed() {
        return Err(io::Error::other(
            "wrk is not installed; run `.ci/install wrk`, or use `--generator own`",
        ));
    }
    let set_up = SetUp {
        cores: arguments.cores,
        postgres: postgres.version()?,
        redis,
        fsync: arguments.fsync.clone(),
        pool: arguments.pool,
        redis_pool: arguments.redis_pool,
        sessions: arguments.sessions,
        rounds: arguments.rounds,
        seconds: arguments.seconds,
    };
    println!("{set_up}");
    if postgres.is_in_memory() {
        eprintln!("WARNING: TMPDIR is in memory, so commits don't wait for a disk");
    }
    let mut journal = arguments.json.as_ref().map(File::create).transpose()?;
    let mut write = |line: &Line| match &mut journal {
        Some(file) => writeln!(file, "{}", serde_json::to_string(line)?),
        None => Ok(()),
    };
    write(&Line::SetUp(set_up.clone()))?;
    let mut all = Vec::new();
    for delay in &arguments.commit_delay {
        postgres.set_commit_delay(*delay)?;
        let commit = postgres.commit_microseconds()?;
        println!("commit_delay {delay} us: a commit takes {commit:.0} us\n");
        // The delay is Postgres's alone, so Redis would be measured on a faster disk.
        let is_compared = |candidate: &&Candidate| *delay == 0 || !candidate.needs_redis();
        let compared: Vec<_> = candidates.iter().filter(is_compared).collect();
        measure::measure(arguments, *delay, &compared, &mut postgres, |point| {
            println!("{}", Results::new(set_up.clone(), &point).table(tracked));
            for one in &point {
                write(&Line::Measured(Box::new(one.clone())))?;
            }
            all.extend(point);
            Ok(())
        })?;
    }
    Ok(Results::new(set_up, &all))
}

fn candidates(arguments: &Arguments) -> io::Result<Vec<Candidate>> {
    let known = arguments
        .candidates
        .iter()
        .map(|name| Candidate::known(name));
    let against = arguments
        .against
        .iter()
        .map(|given| Candidate::against(given));
    let built = arguments
        .ours_binary
        .iter()
        .map(|given| Candidate::built(given));
    let candidates: Vec<_> = known
        .chain(against)
        .chain(built)
        .collect::<Result<_, _>>()?;
    let mut names: Vec<_> = candidates.iter().map(|candidate| &candidate.name).collect();
    names.sort();
    match names.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(io::Error::other("two candidates have the same name")),
        false => Ok(candidates),
    }
}
