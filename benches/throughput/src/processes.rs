//! The processes that are measured, and how much CPU they took.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

/// The kernel counts CPU time for programs in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// A server; it ends with this value.
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
        let address = line.trim().parse().map_err(|_| {
            io::Error::other(format!("{} does not start: {line}", program.display()))
        })?;
        Ok(Self { process, address })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // It has no error to tell that anybody could still act on.
        drop(self.process.wait());
    }
}

/// Seconds of CPU that a process, and the children it waited for, have taken.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    stat(process).map_or(0.0, |stat| stat.cpu_seconds)
}

/// The same of a process and of its children, alive or not.
pub(crate) fn cpu_seconds_of_family(parent: u32) -> f64 {
    let children = fs::read_dir("/proc").into_iter().flatten();
    let children = children.filter_map(|entry| {
        let process = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = stat(process)?;
        (stat.parent == parent).then_some(stat.cpu_seconds)
    });
    children.sum::<f64>() + cpu_seconds(parent)
}

struct Stat {
    parent: u32,
    cpu_seconds: f64,
}

/// `None` for a process that is gone.
fn stat(process: u32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// The name, the second field, may hold anything, but ends with the last
/// bracket. After it come the state and the parent; the times are the fields
/// 14 to 17.
fn parse(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter();
    let ticks: f64 = ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        cpu_seconds: ticks / TICKS_PER_SECOND,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let line = "42 (a) b (c) S 7 1 1 0 -1 0 0 0 0 0 100 20 3 1 20 0 1 0 5 0";
        let stat = parse(line).expect("a line of the kernel's");
        assert_eq!(stat.parent, 7);
        assert!((stat.cpu_seconds - 1.24).abs() < 1e-9);
    }
}
