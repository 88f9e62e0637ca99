//! The processes of the servers, and their CPU time.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

/// The unit in which the kernel reports CPU time.
const TICKS_PER_SECOND: f64 = 100.0;

/// A server. It ends when the value is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(program: &Path, arguments: &[String]) -> io::Result<Self> {
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let invalid = |_| io::Error::other(format!("{} does not start", program.display()));
        let address = line.trim().parse().map_err(invalid)?;
        Ok(Self { process, address })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        drop(self.process.wait());
    }
}

/// CPU time of a process, and of the children that have ended.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    stat(process).map_or(0.0, |(_, seconds)| seconds)
}

/// CPU time of a process and of all its children.
pub(crate) fn cpu_seconds_with_children(parent: u32) -> f64 {
    let processes = fs::read_dir("/proc").into_iter().flatten();
    let children = processes.filter_map(|entry| {
        let process = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let (parent_of_process, seconds) = stat(process)?;
        (parent_of_process == parent).then_some(seconds)
    });
    children.sum::<f64>() + cpu_seconds(parent)
}

/// The parent and the CPU time of a process that exists.
fn stat(process: u32) -> Option<(u32, f64)> {
    parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// The second field is the name, which can contain anything, and ends with the last bracket. The
/// fields after it are the state and the parent. The times are fields 14 to 17.
fn parse(line: &str) -> Option<(u32, f64)> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter();
    let ticks: f64 = ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Some((fields.get(1)?.parse().ok()?, ticks / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_have_any_name() {
        let line = "42 (a) b (c) S 7 1 1 0 -1 0 0 0 0 0 100 20 3 1 20 0 1 0 5 0";
        assert_eq!(parse(line), Some((7, 1.24)));
    }
}
