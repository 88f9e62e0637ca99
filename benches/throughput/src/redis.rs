//! A Redis for one candidate.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::processes::Process;

/// Ends the server and deletes its folder when its standard input ends, which happens however this
/// process ends.
const WATCHDOG: &str = r#"
dir=$1
shift
redis-server "$@" >"$dir/log" 2>&1 &
echo $!
read -r _
kill $!
wait $!
rm -rf "$dir"
"#;
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// A Redis that ends when the value is dropped.
#[derive(Debug)]
pub(crate) struct Redis {
    _watchdog: Process,
    pub(crate) process: u32,
    socket: PathBuf,
}

impl Redis {
    /// A durable one flushes each write to disk before its response, like a commit.
    pub(crate) fn start(durable: bool) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("bench-redis-").tempdir()?;
        let folder = folder.keep();
        let socket = folder.join("redis.sock");
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", WATCHDOG, "bench-redis"])
            .arg(&folder)
            // Like Postgres, it listens on a Unix socket, without TCP.
            .args(["--port", "0", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(&folder)
            .args(["--save", "", "--appendfsync", "always"])
            .args(["--appendonly", if durable { "yes" } else { "no" }])
            // A rewrite of the log during a measurement would be noise.
            .args(["--auto-aof-rewrite-percentage", "0"])
            // Ctrl-C is sent to this process group only, so the watchdog can clean up.
            .process_group(0);
        let watchdog = Process::start(&mut command)?;
        let redis = Self {
            process: watchdog.first_line.parse().map_err(io::Error::other)?,
            _watchdog: watchdog,
            socket,
        };
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if is_ready(&redis.socket).unwrap_or(false) {
                return Ok(redis);
            }
            thread::sleep(POLL);
        }
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        Err(io::Error::other(format!("Redis does not start\n{log}")))
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket.display())
    }
}

fn is_ready(socket: &Path) -> io::Result<bool> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"PING\r\n")?;
    let mut response = [0; 5];
    stream.read_exact(&mut response)?;
    Ok(&response == b"+PONG")
}

/// The version of the machine's Redis, if it has one.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("redis-server").arg("--version").output();
    let text = String::from_utf8(output.ok()?.stdout).ok()?;
    let mut words = text.split_whitespace();
    words.find_map(|word| word.strip_prefix("v=").map(str::to_owned))
}
