//! Runs a command beside a Postgres that accepts nothing but TLS:
//! `cargo run -p tls-tests --example encrypting -- COMMAND …`. Its address is in
//! `DATABASE_URL`, which says nothing of TLS.

use std::{
    env,
    error::Error,
    process::{Command, ExitCode},
};

use dev_postgres::Server;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let server = Server::builder()
        .tcp("127.0.0.1")
        .tls(
            &certified.cert.pem(),
            &certified.signing_key.serialize_pem(),
        )
        .file(
            "pg_hba.conf",
            "local all all trust\nhostssl all all all trust\n",
        )
        .start()?;
    let port = server.port().ok_or("it does not listen on TCP")?;
    let mut arguments = env::args_os().skip(1);
    let program = arguments.next().ok_or("which command?")?;
    let status = Command::new(program)
        .args(arguments)
        .env(
            "DATABASE_URL",
            format!("postgres://postgres@127.0.0.1:{port}/postgres"),
        )
        .status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(u8::MAX)))
}
