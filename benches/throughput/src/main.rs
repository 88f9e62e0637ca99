//! How many requests a second sessions in Postgres serve, with this crate and
//! with others, in one run and in turns. `benches/README.md` has the command.

mod arguments;
mod builds;
mod candidates;
mod load;
mod measure;
mod plan;
mod postgres;
mod processes;
mod redis;
mod report;

use std::{
    env,
    fs::File,
    io::{self, Write as _},
    process::ExitCode,
};

use arguments::Arguments;
use candidates::{Candidate, Program};
use measure::{Contest, Measured};
use postgres::Postgres;

/// The first argument that makes this program the load generator.
const LOAD: &str = "load";

fn main() -> io::Result<ExitCode> {
    if env::args().nth(1).as_deref() == Some(LOAD) {
        return load::run().map(|()| ExitCode::SUCCESS);
    }
    let arguments = Arguments::of_process();
    let measured = measure(&arguments)?;
    println!("\n{}", report::table(&report::medians(&measured)));
    let wrong: u64 = measured.iter().map(|measured| measured.wrong).sum();
    if wrong > 0 {
        eprintln!(
            "{wrong} answers were wrong: {:?}",
            report::examples(&measured)
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn candidates(arguments: &Arguments) -> Vec<Candidate> {
    let known = arguments
        .candidates
        .iter()
        .map(|known| Candidate::from(*known));
    let against = arguments.against.iter();
    let given = arguments.ours_binary.iter();
    known
        .chain(against.map(|given| Candidate::build_of_ours(given, Program::Against)))
        .chain(given.map(|given| Candidate::build_of_ours(given, Program::Given)))
        .collect()
}

fn measure(arguments: &Arguments) -> io::Result<Vec<Measured>> {
    let candidates = candidates(arguments);
    let mut contestants = Vec::new();
    for candidate in candidates {
        let program = builds::program_of(&candidate.program, arguments.builds())?;
        contestants.push((candidate, program));
    }
    let on_postgres = u32::try_from(contestants.len()).map_err(io::Error::other)?;
    let mut postgres = Postgres::start(arguments.fsync, on_postgres * arguments.pool + 20)?;
    println!("PostgreSQL {}", postgres.version()?);
    let mut json = arguments.json.as_ref().map(File::create).transpose()?;
    let mut all = Vec::new();
    for delay in &arguments.commit_delay {
        postgres.set_commit_delay(*delay)?;
        let commit = postgres.commit_microseconds()?;
        println!("commit_delay {delay} us: a commit alone takes {commit:.0} us");
        let mut contest = Contest::open(arguments, *delay, &contestants, &mut postgres)?;
        contest.run(|measured| {
            if let Some(json) = &mut json {
                serde_json::to_writer(&mut *json, measured)?;
                json.write_all(b"\n")?;
            }
            all.push(measured.clone());
            Ok(())
        })?;
    }
    Ok(all)
}
