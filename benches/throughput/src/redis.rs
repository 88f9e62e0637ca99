//! The Redis that is measured on.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Ends the server and removes its folder when the driver ends, in whatever
/// way. A shell gives its jobs no input, so the server does not read the
/// orders.
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

/// What survives the end of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// Nothing.
    Nothing,
    /// Every write, before its response: as durable as a commit.
    EachWrite,
}

/// A Redis of one's own; it ends with this value.
#[derive(Debug)]
pub(crate) struct Redis {
    watchdog: Child,
    pub(crate) process: u32,
    folder: PathBuf,
}

impl Redis {
    pub(crate) fn start(persistence: Persistence) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("bench-redis-").tempdir()?;
        let folder = folder.keep();
        let mut watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "bench-redis"])
            .arg(&folder)
            .args(settings(persistence, &folder))
            // Ctrl-C reaches the processes of the foreground only.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = watchdog.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line)?;
        let redis = Self {
            watchdog,
            process: line.trim().parse().map_err(io::Error::other)?,
            folder,
        };
        redis.wait()?;
        Ok(redis)
    }

    /// A socket in a folder, as Postgres has: neither pays for TCP.
    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", socket(&self.folder).display())
    }

    fn wait(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if is_ready(&socket(&self.folder)).unwrap_or(false) {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        Err(io::Error::other(format!("Redis does not start\n{log}")))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        // It has no error to tell that anybody could still act on.
        drop(self.watchdog.wait());
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("redis.sock")
}

fn is_ready(socket: &Path) -> io::Result<bool> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"PING\r\n")?;
    let mut response = [0; 5];
    stream.read_exact(&mut response)?;
    Ok(&response == b"+PONG")
}

fn settings(persistence: Persistence, folder: &Path) -> Vec<String> {
    let (folder, socket) = (
        folder.display().to_string(),
        socket(folder).display().to_string(),
    );
    let append = match persistence {
        Persistence::Nothing => "no",
        Persistence::EachWrite => "yes",
    };
    let settings = [
        ("--port", "0"),
        ("--unixsocket", &socket),
        ("--dir", &folder),
        ("--save", ""),
        ("--appendonly", append),
        ("--appendfsync", "always"),
        // As with Postgres, nothing happens by chance within a measurement.
        ("--auto-aof-rewrite-percentage", "0"),
    ];
    let settings = settings.iter().flat_map(|(name, value)| [*name, *value]);
    settings.map(str::to_owned).collect()
}

/// The version of the machine's Redis, which root has installed where there is
/// none. `None` where there is none to be had.
pub(crate) fn version() -> Option<String> {
    installed().or_else(|| {
        install();
        installed()
    })
}

fn installed() -> Option<String> {
    let output = Command::new("redis-server")
        .arg("--version")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let version = text
        .split_whitespace()
        .find_map(|word| word.strip_prefix("v="))?;
    Some(version.to_owned())
}

/// Others than root are refused, which is a response, too.
fn install() {
    eprintln!("redis-server is not installed; asking apt-get for it");
    for arguments in [
        &["update", "-qq"][..],
        &[
            "install",
            "-y",
            "-qq",
            "--no-install-recommends",
            "redis-server",
        ],
    ] {
        let status = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            // It is wanted as a program, not as a service of the machine.
            .env("RUNLEVEL", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        if !status.is_ok_and(|status| status.success()) {
            return;
        }
    }
}
