//! The Postgres that is measured on, and what it did.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use dev_postgres::Prefer;
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgRow},
};
use tokio::runtime::Runtime;

/// How long a connection takes at most to hear of a changed setting.
const SETTLING: Duration = Duration::from_millis(60);
/// Commits of which the median is told.
const COMMITS: usize = 200;

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fsync {
    On,
    Off,
}

impl fmt::Display for Fsync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

pub(crate) struct Postgres {
    server: dev_postgres::Server,
    folder: PathBuf,
    runtime: Runtime,
    connection: PgConnection,
}

impl Postgres {
    /// As durable as Postgres is by default, unless told otherwise.
    pub(crate) fn start(fsync: Fsync, max_connections: u32) -> io::Result<Self> {
        let server = dev_postgres::Server::builder()
            .prefer(Prefer::Machine)
            .setting("max_connections", &max_connections.to_string())
            .setting("fsync", &fsync.to_string())
            .setting("synchronous_commit", "on")
            .setting("full_page_writes", "on")
            // Neither may happen by chance within one measurement of many:
            // the driver does both between them.
            .setting("autovacuum", "off")
            .setting("checkpoint_timeout", "1h")
            .setting("max_wal_size", "4GB")
            .setting("min_wal_size", "1GB")
            .setting("commit_siblings", "0")
            .setting("log_line_prefix", "%d ")
            .setting("log_parameter_max_length", "0")
            .start()?;
        let options: PgConnectOptions = server.url().parse().map_err(io::Error::other)?;
        let folder = options.get_socket().cloned();
        let folder = folder.ok_or_else(|| io::Error::other("the server has no socket"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let connection = runtime
            .block_on(PgConnection::connect_with(&options))
            .map_err(io::Error::other)?;
        Ok(Self {
            server,
            folder,
            runtime,
            connection,
        })
    }

    /// Several statements are one transaction.
    fn execute(&mut self, sql: &str) -> io::Result<()> {
        let execution = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection);
        self.runtime
            .block_on(execution)
            .map(drop)
            .map_err(io::Error::other)
    }

    fn row(&mut self, sql: &str) -> io::Result<PgRow> {
        let row = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut self.connection);
        self.runtime.block_on(row).map_err(io::Error::other)
    }

    /// Whether the data lies in memory, where a commit waits for nothing.
    pub(crate) fn is_in_memory(&self) -> bool {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        matches!(file_system(&mounts, &self.folder), Some("tmpfs" | "ramfs"))
    }

    pub(crate) fn version(&mut self) -> io::Result<String> {
        let row = self.row("SHOW server_version")?;
        row.try_get(0).map_err(io::Error::other)
    }

    /// An empty database, and its URL.
    pub(crate) fn database(&mut self, name: &str) -> io::Result<String> {
        self.execute(&format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"))?;
        self.execute(&format!("CREATE DATABASE \"{name}\""))?;
        Ok(self.server.url_of(name))
    }

    /// The process whose children are the connections and the writers.
    pub(crate) fn process(&self) -> io::Result<u32> {
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid"))?;
        let process = file
            .lines()
            .next()
            .and_then(|line| line.trim().parse().ok());
        process.ok_or_else(|| io::Error::other("postmaster.pid names no process"))
    }

    /// How long the one that flushes waits for others first: a slow disk.
    pub(crate) fn set_commit_delay(&mut self, microseconds: u32) -> io::Result<()> {
        self.set("commit_delay", &microseconds.to_string())
    }

    fn set(&mut self, name: &str, value: &str) -> io::Result<()> {
        self.execute(&format!("ALTER SYSTEM SET {name} = '{value}'"))?;
        self.execute("SELECT pg_reload_conf()")?;
        std::thread::sleep(SETTLING);
        Ok(())
    }

    /// What otherwise happens by chance, now.
    pub(crate) fn checkpoint(&mut self) -> io::Result<()> {
        self.execute("CHECKPOINT")
    }

    /// Transactions that wrote something, since the server was made.
    pub(crate) fn writing_transactions(&mut self) -> io::Result<u64> {
        let row = self.row("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")?;
        let next: i64 = row.try_get(0).map_err(io::Error::other)?;
        u64::try_from(next).map_err(io::Error::other)
    }

    /// The median of commits of one small row, one after the other, in
    /// microseconds.
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
        times.sort_by(f64::total_cmp);
        Ok(times[COMMITS / 2])
    }

    /// The statements that `database` is sent meanwhile. Logging them costs
    /// time, so nothing else is measured then.
    pub(crate) fn statements_of<T>(
        &mut self,
        database: &str,
        meanwhile: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<(u64, T)> {
        let log = fs::OpenOptions::new()
            .write(true)
            .open(self.folder.join("log"))?;
        self.set("log_statement", "all")?;
        log.set_len(0)?;
        let done = meanwhile()?;
        std::thread::sleep(SETTLING);
        let text = fs::read(self.folder.join("log"))?;
        self.set("log_statement", "none")?;
        log.set_len(0)?;
        Ok((
            count_statements(&String::from_utf8_lossy(&text), database),
            done,
        ))
    }
}

/// The kind of the innermost file system that a folder is on.
fn file_system<'a>(mounts: &'a str, folder: &Path) -> Option<&'a str> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((Path::new(fields.next()?), fields.next()?))
    });
    mounts
        .filter(|(point, _)| folder.starts_with(point))
        .max_by_key(|(point, _)| point.components().count())
        .map(|(_, kind)| kind)
}

/// A statement is one line of the log and perhaps more that begin with a tab.
fn count_statements(log: &str, database: &str) -> u64 {
    let lines = log.lines().filter(|line| {
        let message = line
            .strip_prefix(database)
            .and_then(|rest| rest.strip_prefix(" LOG:  "));
        message.is_some_and(|message| {
            message.starts_with("execute ") || message.starts_with("statement: ")
        })
    });
    lines.count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_on_the_innermost_file_system() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\nproc /proc proc rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/tmp/dev")), Some("tmpfs"));
        assert_eq!(file_system(mounts, Path::new("/tmpfile")), Some("ext4"));
    }

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
