//! The copies of the server: processes that are killed and come back.

use std::{
    collections::HashSet,
    env, io,
    process::Stdio,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::Mutex,
};

use crate::{
    site::{PORT, REAPS, SERVES, TIMEOUT, TOUCHES, WAITS},
    wire::Wire,
};

pub(crate) struct Copies {
    copies: Vec<Copy>,
    manner: Manner,
    /// The ports of those that are, or are about to be, no more.
    killed: Mutex<HashSet<u16>>,
}

/// How a copy serves.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    /// Of its store.
    pub(crate) timeout: Duration,
    pub(crate) reaping: Reaping,
}

impl Manner {
    pub(crate) const fn of_a_history(reaping: Reaping) -> Self {
        let timeout = TIMEOUT;
        Self { timeout, reaping }
    }
}

/// When a copy deletes expired rows.
#[derive(Clone, Copy)]
pub(crate) enum Reaping {
    /// When a visitor requests it.
    OnRequest,
    /// By a spawned reaper, too.
    Every(Duration),
}

struct Copy {
    wire: Wire,
    /// 0 while there is no process.
    port: AtomicU16,
    process: Mutex<Option<Child>>,
}

impl Copies {
    pub(crate) async fn start(url: &str, number: usize, manner: Manner) -> Self {
        let mut copies = Vec::new();
        for _ in 0..number {
            copies.push(Copy::stopped(Wire::to(url).await));
        }
        let copies = Self {
            copies,
            manner,
            killed: Mutex::default(),
        };
        for index in 0..number {
            copies.start_copy(index).await;
        }
        copies
    }

    pub(crate) fn number(&self) -> usize {
        self.copies.len()
    }

    pub(crate) fn port(&self, index: usize) -> Option<u16> {
        let port = self.copies[index].port.load(Ordering::SeqCst);
        (port != 0).then_some(port)
    }

    /// The id of its process, while there is one.
    pub(crate) async fn process(&self, index: usize) -> Option<u32> {
        self.copies[index].process.lock().await.as_ref()?.id()
    }

    /// Whether the copy that listened there was killed.
    pub(crate) async fn was_killed(&self, port: u16) -> bool {
        self.killed.lock().await.contains(&port)
    }

    /// `kill -9`, in the middle of whatever it was doing, and a new process.
    pub(crate) async fn kill_and_start_again(&self, index: usize) {
        self.kill(index).await;
        self.start_copy(index).await;
    }

    pub(crate) async fn kill_all(&self) {
        for index in 0..self.number() {
            self.kill(index).await;
        }
    }

    async fn kill(&self, index: usize) {
        let copy = &self.copies[index];
        let port = copy.port.swap(0, Ordering::SeqCst);
        self.killed.lock().await.insert(port);
        if let Some(mut process) = copy.process.lock().await.take() {
            process.kill().await.expect("it is ours and runs");
        }
    }

    /// The responses of the database to this copy are lost for so long.
    pub(crate) async fn lose_responses(&self, index: usize, length: Duration) {
        self.copies[index].wire.lose_responses(length).await;
    }

    pub(crate) async fn start_copy(&self, index: usize) {
        let copy = &self.copies[index];
        let (process, port) = spawn(copy.wire.url(), index % 2 == 1, self.manner)
            .await
            .expect("this program can be run again");
        *copy.process.lock().await = Some(process);
        copy.port.store(port, Ordering::SeqCst);
    }
}

impl Copy {
    fn stopped(wire: Wire) -> Self {
        Self {
            wire,
            port: AtomicU16::new(0),
            process: Mutex::default(),
        }
    }
}

async fn spawn(url: &str, touches: bool, manner: Manner) -> io::Result<(Child, u16)> {
    let mut command = Command::new(env::current_exe()?);
    command
        .args(["--exact", "site::serves_in_a_child_process", "--nocapture"])
        .env(SERVES, url)
        .env(WAITS, manner.timeout.as_millis().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    if touches {
        command.env(TOUCHES, "1");
    }
    if let Reaping::Every(interval) = manner.reaping {
        command.env(REAPS, interval.as_millis().to_string());
    }
    let mut process = command.spawn()?;
    let output = process.stdout.take().expect("it is piped");
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some((_, port)) = line.split_once(PORT) {
            // Its test harness fails if no program reads its messages about a test that takes
            // longer than a minute.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok((process, port.parse().map_err(io::Error::other)?));
        }
    }
    Err(io::Error::other("the copy ended before it listened"))
}
