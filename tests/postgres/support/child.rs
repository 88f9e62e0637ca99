//! Other processes: this program again, told to run one test that does
//! something only where it is asked for.

use std::{env, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use super::page::{PATIENCE, patiently};

/// Before what a child has to say: its test harness speaks too.
const SAYS: &str = "says ";
/// Between two things that it says it may do a lot, on a machine that is busy.
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

    /// The next thing that it says; `None` when it has ended.
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
            .expect("it says something, or ends")
    }

    /// `kill -9`.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("it is ours and runs");
    }

    /// Returns when it has ended, which is to be well.
    pub(crate) async fn end(mut self) {
        while self.hear().await.is_some() {}
        let status = patiently(self.child.wait()).await.expect("a child");
        assert!(status.success(), "{status}");
    }
}

/// For whoever started this process.
pub(crate) fn say(what: &str) {
    println!("{SAYS}{what}");
}
