//! Runs a command beside a Postgres of its own, or prints the address of one.

use std::{
    env,
    io::{self, Read as _},
    process::{Command, ExitCode},
};

use dev_postgres::Server;

fn main() -> io::Result<ExitCode> {
    let server = Server::start()?;
    let mut arguments = env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        println!("{}", server.url());
        io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(ExitCode::SUCCESS);
    };
    let status = Command::new(program)
        .args(arguments)
        .env("DATABASE_URL", server.url())
        .env("AXUM_PG_SESSION_DATABASE_URL", server.url())
        .status()?;
    Ok(ExitCode::from(if status.success() { 0 } else { 1 }))
}
