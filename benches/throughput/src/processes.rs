//! Processes, and their CPU time.

use std::{
    fs,
    io::{self, BufRead as _, BufReader},
    ops::Range,
    process::{Child, Command, Stdio},
};

/// The unit in which the kernel reports CPU time.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process that ends with its standard input, which is closed when the value is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) first_line: String,
}

impl Process {
    /// Starts the process and waits for the first line of its output.
    pub(crate) fn start(command: &mut Command) -> io::Result<Self> {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let first_line = line.trim().to_owned();
        Ok(Self { child, first_line })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

/// CPU time of a process, and of the children that have ended.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    stat(process).map_or(0.0, |(_, seconds)| seconds)
}

/// CPU time of a process and of all its children.
pub(crate) fn cpu_seconds_with_children(parent: u32) -> f64 {
    let children = children(parent).map(|(_, seconds)| seconds);
    children.sum::<f64>() + cpu_seconds(parent)
}

/// Lets a process and its children use only these cores. Processes that they start later inherit
/// them.
pub(crate) fn pin(process: u32, cores: &Range<usize>) -> io::Result<()> {
    let list = format!("{}-{}", cores.start, cores.end - 1);
    for process in children(process).map(|(child, _)| child).chain([process]) {
        let mut command = Command::new("taskset");
        let output = command
            .args(["-apc", &list, &process.to_string()])
            .output()?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("taskset: {error}")));
        }
    }
    Ok(())
}

/// The children that run, and the CPU time of each.
fn children(parent: u32) -> impl Iterator<Item = (u32, f64)> {
    let processes = fs::read_dir("/proc").into_iter().flatten();
    processes.filter_map(move |entry| {
        let process = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let (parent_of_process, seconds) = stat(process)?;
        (parent_of_process == parent).then_some((process, seconds))
    })
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
