//! The second load generator: wrk, which others use, too. It checks only the status of a response.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    process::{Command, Stdio},
};

use tempfile::NamedTempFile;

use crate::{
    load::{Client, Report, Route},
    processes::cpu_seconds,
};

const SCRIPT: &str = include_str!("wrk.lua");

pub(crate) fn is_installed() -> bool {
    let mut command = Command::new("wrk");
    let command = command.arg("--version").stdout(Stdio::null());
    command.stderr(Stdio::null()).status().is_ok()
}

/// Runs wrk with one thread. Without clients, requests have no cookie. Failed requests and
/// responses with a status other than 2xx count as wrong.
pub(crate) fn run(
    address: SocketAddr,
    route: Route,
    connections: usize,
    seconds: f64,
    clients: &[Client],
) -> io::Result<Report> {
    let mut cookies = NamedTempFile::new()?;
    for client in clients {
        writeln!(cookies, "{}", client.cookie)?;
    }
    if clients.is_empty() {
        writeln!(cookies)?;
    }
    let mut script = NamedTempFile::with_suffix(".lua")?;
    script.write_all(SCRIPT.as_bytes())?;
    let mut command = Command::new("wrk");
    command
        .args(["-t1", &format!("-c{connections}")])
        .arg(format!("-d{}s", seconds.ceil().max(1.0)))
        .arg("-s")
        .args([script.path()])
        .args([&format!("http://{address}{route}"), "--"])
        .args([cookies.path()]);
    // The CPU time of a process includes that of its children that have ended.
    let before = cpu_seconds(std::process::id());
    let output = command.output()?;
    let cpu_micros = (cpu_seconds(std::process::id()) - before) * 1e6;
    let text = String::from_utf8_lossy(&output.stdout);
    let report = parse(&text).ok_or_else(|| {
        let error = String::from_utf8_lossy(&output.stderr);
        io::Error::other(format!("wrk: {text}{error}"))
    })?;
    Ok(Report {
        cpu_micros,
        ..report
    })
}

fn parse(output: &str) -> Option<Report> {
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix("result "))?;
    let figures: Option<Vec<f64>> = line.split(' ').map(|figure| figure.parse().ok()).collect();
    let [requests, microseconds, p50_us, p99_us, wrong] = figures?[..] else {
        return None;
    };
    Some(Report {
        requests,
        seconds: microseconds / 1e6,
        p50_us,
        p99_us,
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is a count"
        )]
        wrong: wrong as usize,
        cpu_micros: 0.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_script_is_found_in_the_output() {
        let report = parse("Running 2s test\nresult 5000 2000000 350 900 3\n").expect("a report");
        let figures = (
            report.requests,
            report.seconds,
            report.p50_us,
            report.p99_us,
        );
        assert_eq!(figures, (5000.0, 2.0, 350.0, 900.0));
        assert_eq!(report.wrong, 3);
        assert_eq!(parse("unable to connect"), None);
    }
}
