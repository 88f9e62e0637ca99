//! The Postgres of all candidates.

use std::{
    fs, io,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use bench_common::median;
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgRow},
};
use tokio::runtime::Runtime;

use crate::network;

/// All connections apply a changed setting within this time.
const SETTLING: Duration = Duration::from_millis(60);
/// Commits that are timed.
const COMMITS: usize = 200;

pub(crate) struct Postgres {
    server: dev_postgres::Server,
    folder: PathBuf,
    runtime: Runtime,
    connection: PgConnection,
    /// The port of the network in front of the server.
    network: Option<u16>,
}

impl Postgres {
    /// As durable as Postgres is by default, unless `fsync` is off.
    pub(crate) fn start(fsync: &str, max_connections: u32) -> io::Result<Self> {
        let server = bench_common::postgres()
            .setting("max_connections", &max_connections.to_string())
            .setting("fsync", fsync)
            .setting("full_page_writes", "on")
            // It would slow down one measurement of many, by chance.
            .setting("autovacuum", "off")
            .setting("commit_siblings", "0")
            .setting("log_line_prefix", "%d ")
            .setting("log_parameter_max_length", "0")
            .start()?;
        let options: PgConnectOptions = server.url().parse().map_err(io::Error::other)?;
        let folder = options.get_socket().cloned();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let connection = runtime.block_on(PgConnection::connect_with(&options));
        Ok(Self {
            folder: folder.ok_or_else(|| io::Error::other("the server has no socket"))?,
            connection: connection.map_err(io::Error::other)?,
            server,
            runtime,
            network: None,
        })
    }

    pub(crate) fn execute(&mut self, sql: &str) -> io::Result<()> {
        let execution = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection);
        let done = self.runtime.block_on(execution);
        done.map(drop).map_err(io::Error::other)
    }

    fn text(&mut self, sql: &str) -> io::Result<String> {
        let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut self.connection);
        let row: PgRow = self.runtime.block_on(row).map_err(io::Error::other)?;
        row.try_get(0).map_err(io::Error::other)
    }

    /// Whether the data is in memory, so that commits don't wait for a disk.
    pub(crate) fn is_in_memory(&self) -> bool {
        let mut command = Command::new("stat");
        command.args(["-f", "-c", "%T"]).arg(&self.folder);
        let output = command.output().map(|output| output.stdout);
        matches!(output.unwrap_or_default().trim_ascii(), b"tmpfs" | b"ramfs")
    }

    pub(crate) fn version(&mut self) -> io::Result<String> {
        self.text("SHOW server_version")
    }

    /// Creates an empty database, and returns its URL.
    pub(crate) fn database(&mut self, name: &str) -> io::Result<String> {
        self.execute(&format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"))?;
        self.execute(&format!("CREATE DATABASE \"{name}\""))?;
        Ok(match self.network {
            None => self.server.url_of(name),
            Some(port) => format!("postgres://postgres@127.0.0.1:{port}/{name}?sslmode=disable"),
        })
    }

    /// Puts a network in front of the databases that are created later.
    pub(crate) fn move_away(&mut self, round_trip: Duration) -> io::Result<()> {
        let socket = self.folder.join(".s.PGSQL.5432");
        self.network = Some(network::between(socket, round_trip)?);
        Ok(())
    }

    /// The parent of all processes of the server.
    pub(crate) fn process(&self) -> io::Result<u32> {
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid"))?;
        let process = file.lines().next().unwrap_or_default().trim();
        process.parse().map_err(io::Error::other)
    }

    /// How long each flush waits, to act like a slower disk.
    pub(crate) fn set_commit_delay(&mut self, microseconds: u32) -> io::Result<()> {
        self.set("commit_delay", &microseconds.to_string())
    }

    fn set(&mut self, name: &str, value: &str) -> io::Result<()> {
        self.execute(&format!("ALTER SYSTEM SET {name} = '{value}'"))?;
        self.execute("SELECT pg_reload_conf()")?;
        thread::sleep(SETTLING);
        Ok(())
    }

    /// The number of transactions so far that wrote something.
    pub(crate) fn writing_transactions(&mut self) -> io::Result<f64> {
        let next = self.text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")?;
        next.parse().map_err(io::Error::other)
    }

    /// The median duration of the commit of one small row.
    pub(crate) fn commit_microseconds(&mut self) -> io::Result<f64> {
        self.execute("CREATE TABLE IF NOT EXISTS one (n int)")?;
        self.execute("TRUNCATE one")?;
        self.execute("INSERT INTO one VALUES (0)")?;
        let mut times = Vec::with_capacity(COMMITS);
        for _ in 0..COMMITS {
            let begin = Instant::now();
            self.execute("UPDATE one SET n = n + 1")?;
            times.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        Ok(median(times))
    }

    /// The number of statements that a database executes during `work`.
    pub(crate) fn statements_of<T>(
        &mut self,
        database: &str,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<(usize, T)> {
        let log = fs::OpenOptions::new()
            .write(true)
            .open(self.folder.join("log"))?;
        self.set("log_statement", "all")?;
        log.set_len(0)?;
        let done = work()?;
        thread::sleep(SETTLING);
        let text = fs::read(self.folder.join("log"))?;
        self.set("log_statement", "none")?;
        log.set_len(0)?;
        let statements = count_statements(&String::from_utf8_lossy(&text), database);
        Ok((statements, done))
    }
}

/// Further lines of a statement begin with a tab.
fn count_statements(log: &str, database: &str) -> usize {
    let messages = log.lines().filter_map(|line| {
        let message = line.strip_prefix(database)?;
        message.strip_prefix(" LOG:  ")
    });
    let is_statement =
        |message: &&str| message.starts_with("execute ") || message.starts_with("statement: ");
    messages.filter(is_statement).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statements_of_the_database_are_counted() {
        let log = "a LOG:  execute sqlx_s_1: SELECT 1\n\tFROM b\n\
            b LOG:  execute sqlx_s_1: SELECT 1\n\
            a LOG:  statement: BEGIN\n\
            a LOG:  checkpoint starting\n\
            a LOG:  execute <unnamed>: COMMIT\n";
        assert_eq!(count_statements(log, "a"), 3);
    }
}
