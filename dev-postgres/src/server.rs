use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::{
    clock::{self, libfaketime},
    disk,
    folder::{Durability, private_folder},
    programs::{Need, Prefer, Programs, User},
    standby,
};

const WATCHDOG: &str = include_str!("watchdog.sh");
/// A loaded machine takes seconds, not minutes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Each attempt fails or succeeds at once.
const ATTEMPTS: u32 = 20;
const POLL: Duration = Duration::from_millis(10);

/// A Postgres on a socket in a private folder.
///
/// It ends, and its data is deleted, when the value is dropped or the process ends, even after
/// Ctrl-C or `kill -9`. Tests that need no separate server share one through
/// [`test_database`](crate::test_database).
///
/// The data is in memory, in `/dev/shm`, if 2 GB are free there, unless `fsync` is on or `TMPDIR`
/// is set. Otherwise it is in the folder for temporary files.
///
/// ```
/// use dev_postgres::Server;
/// use sqlx::{Connection as _, PgConnection};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::builder().setting("work_mem", "5MB").start()?;
/// let mut connection = PgConnection::connect(&server.url()).await?;
/// let setting: String = sqlx::query_scalar("SHOW work_mem").fetch_one(&mut connection).await?;
/// assert_eq!(setting, "5MB");
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Server {
    pub(crate) folder: PathBuf,
    /// If it also listens on TCP.
    port: Option<u16>,
    watchdog: Mutex<Watchdog>,
}

/// The options of a [`Server`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct Builder {
    need: Need,
    settings: Vec<(String, String)>,
    /// Names and contents.
    files: Vec<(String, String)>,
    listens: Listens,
    /// The folder of the primary.
    standby_of: Option<PathBuf>,
    /// In MB.
    disk: Option<u32>,
    clock: Clock,
}

#[derive(Clone, Copy, Debug)]
enum Listens {
    OnSocket,
    OnTcpToo,
}

#[derive(Clone, Copy, Debug)]
enum Clock {
    OfTheMachine,
    OfItsOwn,
}

/// How a server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Ends the connections and writes a checkpoint.
    Fast,
    /// Ends at once. The next start recovers from the log.
    Immediate,
    /// `kill -9` of the postmaster.
    Killed,
}

#[derive(Debug)]
struct Watchdog {
    process: Child,
    /// Closed to end the process.
    orders: Option<ChildStdin>,
    responses: BufReader<ChildStdout>,
}

impl Builder {
    /// Adds a setting of `postgresql.conf`.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a file to the data folder, for a setting that names it, or replaces `pg_hba.conf`.
    pub fn file(mut self, name: &str, contents: &str) -> Self {
        self.files.push((name.to_owned(), contents.to_owned()));
        self
    }

    /// Also listens on TCP, at a free [port](Server::port), on these addresses: `127.0.0.1`, for
    /// example, or `*` for all addresses of the machine.
    pub fn tcp(mut self, addresses: &str) -> Self {
        self.listens = Listens::OnTcpToo;
        self.setting("listen_addresses", addresses)
    }

    /// Offers TLS on TCP, with this certificate and its key, as PEM. Cargo's Postgres has no TLS,
    /// so the server is the machine's or npm's.
    ///
    /// ```no_run
    /// # fn of(certificate: &str, key: &str) -> std::io::Result<dev_postgres::Server> {
    /// let server = dev_postgres::Server::builder()
    ///     .tcp("127.0.0.1")
    ///     .tls(certificate, key)
    ///     .file("pg_hba.conf", "local all all trust\nhostssl all all all trust\n")
    ///     .start()?;
    /// # Ok(server) }
    /// ```
    pub fn tls(mut self, certificate: &str, key: &str) -> Self {
        self.need.tls = true;
        self.file("server.crt", certificate)
            .file("server.key", key)
            .setting("ssl", "on")
    }

    /// Sets which Postgres to prefer. Default: [`Prefer::Bundled`].
    pub fn prefer(mut self, prefer: Prefer) -> Self {
        self.need.prefer = prefer;
        self
    }

    /// Requires an extension, which `CREATE EXTENSION` can then create. Cargo's Postgres has none,
    /// so the server is the machine's, or npm's if the machine's lacks the extension.
    pub fn extension(mut self, name: &str) -> Self {
        self.need.extensions.push(name.to_owned());
        self
    }

    /// Gives the server a clock that [`Server::set_clock`] moves. Needs
    /// [`libfaketime`](crate::libfaketime).
    pub fn own_clock(mut self) -> Self {
        self.clock = Clock::OfItsOwn;
        self
    }

    /// Makes the server a standby by streaming replication. It begins with a copy of the primary's
    /// data, so [stop](Server::stop) the primary before you start the standby, and start the
    /// primary again afterwards.
    pub fn standby_of(mut self, primary: &Server) -> Self {
        self.standby_of = Some(primary.folder.clone());
        self
    }

    /// Adds a disk of this many MB at [`Server::disk`], for a tablespace that becomes full.
    pub fn disk(mut self, megabytes: u32) -> Self {
        self.disk = Some(megabytes);
        self
    }

    /// Starts the server and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// When there is no Postgres, or when it does not start; the error has its log. Of kind
    /// [`Unsupported`](io::ErrorKind::Unsupported) if the machine allows no
    /// [`disk`](Self::disk).
    pub fn start(mut self) -> io::Result<Server> {
        let port = match self.listens {
            Listens::OnSocket => None,
            Listens::OnTcpToo => Some(free_port()?),
        };
        if let Some(port) = port {
            self = self.setting("port", &port.to_string());
        }
        let programs = Programs::find(&self.need)?;
        let library = match self.clock {
            Clock::OfTheMachine => None,
            Clock::OfItsOwn => Some(libfaketime()?),
        };
        let private = private_folder(self.durability())?;
        let folder = private.path();
        let user = User::instead_of_owner(&programs, folder)?;
        if let Some(user) = user {
            chown(folder, Some(user.id), Some(user.group))?;
        }
        let mut shell = match self.disk {
            Some(megabytes) => disk::shell(folder, megabytes, user)?,
            None => Command::new("/bin/sh"),
        };
        Watchdog::prepare(&mut shell, folder, &programs, &self);
        if let Some(library) = library {
            shell.envs(clock::environment(folder, library)?);
        }
        let watchdog = Watchdog::spawn(shell, user)?;
        let server = Server {
            folder: private.keep(),
            port,
            watchdog: Mutex::new(watchdog),
        };
        server
            .watchdog()
            .response()
            .map_err(|error| server.with_log(&error))?;
        for (name, contents) in &self.files {
            write_for(user, &server.folder.join("data").join(name), contents)?;
        }
        if let Some(primary) = &self.standby_of {
            standby::follow(&server.folder, primary)?;
        }
        server.start_again()?;
        Ok(server)
    }

    fn durability(&self) -> Durability {
        let mut settings = self.settings.iter().rev();
        match settings.find(|(name, _)| name == "fsync") {
            Some((_, value)) if value != "off" => Durability::OnDisk,
            _ => Durability::Any,
        }
    }

    /// `fsync` is off, because the data is deleted at the end.
    fn arguments(&self) -> Vec<String> {
        let defaults = [
            ("max_connections", "500"),
            ("shared_buffers", "128MB"),
            ("fsync", "off"),
            // The data may be in memory.
            ("max_wal_size", "256MB"),
            // Otherwise a killed server leaves shared memory behind.
            ("dynamic_shared_memory_type", "mmap"),
        ];
        let defaults = defaults.map(|(name, value)| (name.to_owned(), value.to_owned()));
        defaults
            .iter()
            .chain(&self.settings)
            .flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")])
            .collect()
    }
}

/// The settings of `DEV_POSTGRES_SETTINGS`, such as `work_mem=5MB;fsync=on`.
fn given_settings() -> Vec<(String, String)> {
    let given = env::var("DEV_POSTGRES_SETTINGS").unwrap_or_default();
    given
        .split(';')
        .filter_map(|setting| setting.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

/// A free port. If another process takes it before the server does, the server does not start.
pub(crate) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Writes a file that only its owner can read, because Postgres refuses other keys.
pub(crate) fn write_for(user: Option<User>, file: &Path, contents: &str) -> io::Result<()> {
    fs::write(file, contents)?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    match user {
        Some(user) => chown(file, Some(user.id), Some(user.group)),
        None => Ok(()),
    }
}

impl Server {
    /// Starts a server with the defaults.
    ///
    /// # Errors
    ///
    /// Like [`Builder::start`].
    pub fn start() -> io::Result<Self> {
        Self::builder().start()
    }

    /// Returns a builder with the defaults: `fsync` is off, `max_connections` is 500, and the
    /// settings of the variable `DEV_POSTGRES_SETTINGS` apply, such as
    /// `default_transaction_isolation=serializable;work_mem=5MB`.
    pub fn builder() -> Builder {
        Builder {
            need: Need {
                prefer: Prefer::Bundled,
                extensions: Vec::new(),
                tls: false,
            },
            settings: given_settings(),
            files: Vec::new(),
            listens: Listens::OnSocket,
            standby_of: None,
            disk: None,
            clock: Clock::OfTheMachine,
        }
    }

    /// The URL of the database `postgres`, for the superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The URL of another database, for the superuser. The name must need no escape in a URL.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        let port = self.port.map(|port| format!("&port={port}"));
        format!(
            "postgres:///{database}?host={}{}&user=postgres",
            self.folder.display(),
            port.unwrap_or_default()
        )
    }

    /// The port on which the server listens, if it was started with [`tcp`](Builder::tcp).
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Stops the server. Its data stays for [`start_again`](Self::start_again).
    ///
    /// # Errors
    ///
    /// When the watchdog process was killed.
    pub fn stop(&self, how: Shutdown) -> io::Result<()> {
        let order = match how {
            Shutdown::Fast => "INT",
            Shutdown::Immediate => "QUIT",
            Shutdown::Killed => "KILL",
        };
        self.watchdog().order(order).map(drop)
    }

    /// Starts the stopped server and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// When it does not start; the error has its log.
    pub fn start_again(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        // Shortly after a kill, the old processes still use its memory, so the new server ends. If
        // it ends for another reason, it does so at each attempt.
        for _ in 0..ATTEMPTS {
            if self.starts_by(deadline)? {
                return Ok(());
            }
            thread::sleep(POLL * 10);
        }
        Err(self.with_log(&io::Error::other("Postgres does not start")))
    }

    fn starts_by(&self, deadline: Instant) -> io::Result<bool> {
        let process = self.watchdog().order("start")?;
        while Instant::now() < deadline && self.watchdog().order("alive")? == process {
            if self.is_ready(&process) {
                return Ok(true);
            }
            thread::sleep(POLL);
        }
        Ok(false)
    }

    /// The file of a killed server remains, so the process id must match, too. The id is the first
    /// line, and the state is the eighth.
    fn is_ready(&self, process: &str) -> bool {
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
        let mut lines = file.lines().map(str::trim);
        lines.next() == Some(process) && lines.nth(6) == Some("ready")
    }

    fn watchdog(&self) -> std::sync::MutexGuard<'_, Watchdog> {
        self.watchdog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the server's clock this many seconds ahead of the machine's, or behind.
    ///
    /// # Errors
    ///
    /// When the folder of the server was deleted.
    pub fn set_clock(&self, ahead: i64) -> io::Result<()> {
        clock::set(&self.folder, ahead)
    }

    /// The log of the server so far.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    pub fn log(&self) -> io::Result<String> {
        let log = fs::read(self.folder.join("log"))?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    fn with_log(&self, error: &io::Error) -> io::Error {
        let log = self.log().unwrap_or_default();
        io::Error::other(format!("{error}\n{log}"))
    }
}

impl Watchdog {
    fn prepare(command: &mut Command, folder: &Path, programs: &Programs, builder: &Builder) {
        let source = builder.standby_of.as_deref().unwrap_or(Path::new(""));
        command
            .args(["-c", WATCHDOG, "dev-postgres"])
            .args([folder, &programs.folder, source])
            .args(builder.arguments())
            .current_dir("/")
            .env_clear()
            // Ctrl-C is sent to the foreground process group only.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
    }

    fn spawn(mut command: Command, user: Option<User>) -> io::Result<Self> {
        if let Some(user) = user {
            command.uid(user.id).gid(user.group);
        }
        let mut process = command.spawn()?;
        let orders = process.stdin.take();
        let responses = process.stdout.take().expect("it is piped");
        Ok(Self {
            process,
            orders,
            responses: BufReader::new(responses),
        })
    }

    fn order(&mut self, order: &str) -> io::Result<String> {
        let orders = self.orders.as_mut().expect("taken at the end only");
        writeln!(orders, "{order}")?;
        self.response()
    }

    /// The process id of the server, if it runs.
    fn response(&mut self) -> io::Result<String> {
        let mut response = String::new();
        self.responses.read_line(&mut response)?;
        match response.trim_end().strip_prefix("ok") {
            Some(process) => Ok(process.trim().to_owned()),
            None => Err(io::Error::other("Postgres could not create its data")),
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.orders.take();
        // There is nothing to do on an error.
        drop(self.process.wait());
    }
}
