//! Other processes: this program again, which runs one test. The test does its work only if a
//! variable of the environment is set.

use std::{env, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use super::page::{PATIENCE, patiently};

/// Before each line for the parent, because the test harness writes lines, too.
const SAYS: &str = "says ";
/// The longest time between two lines, on a busy machine.
const FOR_A_DEED: Duration = PATIENCE.saturating_mul(4);

pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Runs the test of this path, with a variable of its environment set.
    pub(crate) fn start(test: &str, variable: &str, value: &str) -> Self {
        let program = env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(variable, value)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("this program can be run again");
        let output = child.stdout.take().expect("it is piped");
        Self {
            child,
            lines: BufReader::new(output).lines(),
        }
    }

    /// The next line from the child; `None` when it has ended.
    pub(crate) async fn hear(&mut self) -> Option<String> {
        let said = async {
            while let Some(line) = self.lines.next_line().await.expect("text") {
                if let Some((_, said)) = line.split_once(SAYS) {
                    return Some(said.to_owned());
                }
            }
            None
        };
        tokio::time::timeout(FOR_A_DEED, said)
            .await
            .expect("a line, or the end of the child")
    }

    /// `kill -9`.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("it is ours and runs");
    }

    /// Returns when it has ended. Panics if it failed.
    pub(crate) async fn end(mut self) {
        while self.hear().await.is_some() {}
        let status = patiently(self.child.wait()).await.expect("a child");
        assert!(status.success(), "{status}");
    }
}

/// Runs the test of this path in a process of its own. Panics unless it passes.
pub(crate) fn passes<'v>(test: &str, variables: impl IntoIterator<Item = (&'v str, &'v str)>) {
    let output = std::process::Command::new(env::current_exe().expect("this program"))
        .args(["--exact", test, "--include-ignored"])
        .envs(variables)
        .output()
        .expect("this program can be run again");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("1 passed"), "{printed}");
}

/// For the process that started this one.
pub(crate) fn say(what: &str) {
    println!("{SAYS}{what}");
}
