//! Runs a command with the URL of a new Postgres, or prints the URL.

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
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(u8::MAX)))
}
