use std::{
    env, fmt, fs, io,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        net::UnixStream,
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Server,
    folder::{Durability, private_folder},
    programs::User,
    server::{free_port, write_for},
};

const WATCHDOG: &str = include_str!("pooler.sh");
/// A loaded machine takes seconds, not minutes.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
const PORT: u16 = 6432;
/// The first version that can track prepared statements.
const FIRST_WITH_PREPARED_STATEMENTS: (u32, u32) = (1, 21);

/// A PgBouncer in front of a [`Server`], on a socket in a private folder.
///
/// It is the machine's PgBouncer, or the one that `DEV_PGBOUNCER` names. It ends when the value is
/// dropped, or when the process ends in any way.
#[derive(Debug)]
pub struct Pooler {
    folder: PathBuf,
    program: Program,
    lending: Lending,
    port: u16,
    process: Child,
    /// Closed to end the process.
    life: Option<ChildStdin>,
}

/// For how long a client of a [`Pooler`] gets a connection of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lending {
    /// Until it disconnects.
    Session,
    /// For a transaction, without tracking of prepared statements.
    Transaction,
    /// For a transaction. The pooler tracks the prepared statements of each client.
    TransactionWithPreparedStatements,
}

/// The certificates of an [`encrypted`](Pooler::encrypted) [`Pooler`], as PEM.
#[derive(Clone, Copy)]
pub struct Tls<'a> {
    /// The certificate for clients.
    pub certificate: &'a str,
    /// The key of that certificate.
    pub key: &'a str,
    /// The authority that signed the server's certificate.
    pub authority: &'a str,
}

impl Tls<'_> {
    fn configuration(&self, server: &Server, port: u16, plain: &str, folder: &Path) -> String {
        let socket = server.folder().display();
        let behind = server.port().unwrap_or_default();
        let folder = folder.display();
        let encrypted = plain
            .replace(
                &format!("host={socket} "),
                &format!("host=127.0.0.1 port={behind} "),
            )
            .replace("listen_addr =\n", "listen_addr = 127.0.0.1\n")
            .replace(
                &format!("listen_port = {PORT}\n"),
                &format!("listen_port = {port}\n"),
            );
        format!(
            "{encrypted}\
             client_tls_sslmode = require\n\
             client_tls_cert_file = {folder}/pooler.crt\n\
             client_tls_key_file = {folder}/pooler.key\n\
             server_tls_sslmode = verify-full\n\
             server_tls_ca_file = {folder}/authority.crt\n"
        )
    }

    fn write(&self, user: Option<User>, folder: &Path) -> io::Result<()> {
        write_for(user, &folder.join("pooler.crt"), self.certificate)?;
        write_for(user, &folder.join("pooler.key"), self.key)?;
        write_for(user, &folder.join("authority.crt"), self.authority)
    }
}

impl fmt::Debug for Tls<'_> {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
struct Program {
    file: PathBuf,
    version: (u32, u32),
}

impl Pooler {
    /// Starts one in front of all databases of this server, with that many connections to each.
    ///
    /// # Errors
    ///
    /// Of kind `NotFound` if no PgBouncer with this feature is installed, and when it does not start.
    pub fn before(server: &Server, lending: Lending, connections: u32) -> io::Result<Self> {
        Self::start(server, lending, connections, None, &[], "")
    }

    /// Like [`before`](Self::before), but clients get the server's connections in turns.
    ///
    /// # Errors
    ///
    /// Like [`before`](Self::before).
    pub fn in_turn(server: &Server, lending: Lending, connections: u32) -> io::Result<Self> {
        let in_turn = "server_round_robin = 1\n";
        Self::start(server, lending, connections, None, &[], in_turn)
    }

    /// Like [`before`](Self::before), but with PgBouncer's default: it refuses unknown startup
    /// parameters.
    ///
    /// # Errors
    ///
    /// Like [`before`](Self::before).
    pub fn strict(server: &Server, lending: Lending, connections: u32) -> io::Result<Self> {
        // If a setting has two lines, the last one wins.
        let nothing = "ignore_startup_parameters =\n";
        Self::start(server, lending, connections, None, &[], nothing)
    }

    /// Like [`before`](Self::before), but only for these users and their passwords, by SCRAM.
    ///
    /// # Errors
    ///
    /// Like [`before`](Self::before).
    pub fn with_passwords(
        server: &Server,
        lending: Lending,
        connections: u32,
        users: &[(&str, &str)],
    ) -> io::Result<Self> {
        Self::start(server, lending, connections, None, users, "")
    }

    fn start(
        server: &Server,
        lending: Lending,
        connections: u32,
        tls: Option<&Tls<'_>>,
        users: &[(&str, &str)],
        more: &str,
    ) -> io::Result<Self> {
        let program = Program::find()?;
        program.check(lending)?;
        let private = private_folder(Durability::Any)?;
        let folder = private.path();
        let user = User::instead_of_root(folder)?;
        let mut configuration = program.configuration(server, lending, connections, folder);
        configuration += more;
        let mut port = PORT;
        if let Some(tls) = tls {
            port = free_port()?;
            configuration = tls.configuration(server, port, &configuration, folder);
            tls.write(user, folder)?;
        }
        if !users.is_empty() {
            let file = folder.join("users");
            let asks = format!(
                "auth_type = scram-sha-256\nauth_file = {}\n",
                file.display()
            );
            configuration = configuration.replace("auth_type = any\n", &asks);
            let lines: String = users
                .iter()
                .map(|(name, password)| format!("\"{name}\" \"{password}\"\n"))
                .collect();
            write_for(user, &file, &lines)?;
        }
        fs::write(folder.join("pgbouncer.ini"), configuration)?;
        if let Some(user) = user {
            chown(folder, Some(user.id), Some(user.group))?;
            // The socket itself has no restrictions.
            fs::set_permissions(server.folder(), fs::Permissions::from_mode(0o711))?;
        }
        let mut process = watchdog(folder, &program, user).spawn()?;
        let life = process.stdin.take();
        let pooler = Self {
            folder: private.keep(),
            program,
            lending,
            port,
            process,
            life,
        };
        pooler.wait_for_its_socket()?;
        Ok(pooler)
    }

    /// Like [`before`](Self::before), but with TLS. It accepts only encrypted connections, on a
    /// port of its own, and connects to the server with encryption. It verifies the certificate of
    /// the server, which must have [TLS](crate::Builder::tls) and listen on `127.0.0.1`.
    ///
    /// # Errors
    ///
    /// Like [`before`](Self::before).
    pub fn encrypted(server: &Server, lending: Lending, tls: &Tls<'_>) -> io::Result<Self> {
        Self::start(server, lending, 10, Some(tls), &[], "")
    }

    /// The port of an [`encrypted`](Self::encrypted) one.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a database through the pooler, or of the pooler's console, the database
    /// `pgbouncer`. The name must need no escape in a URL.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        format!(
            "postgres:///{database}?host={}&port={}&user=postgres",
            self.folder.display(),
            self.port
        )
    }

    /// The mode that it was started with.
    #[must_use]
    pub fn lending(&self) -> Lending {
        self.lending
    }

    /// The major and minor version of PgBouncer.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        self.program.version
    }

    fn wait_for_its_socket(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let socket = self.folder.join(format!(".s.PGSQL.{}", self.port));
        while Instant::now() < deadline {
            if UnixStream::connect(&socket).is_ok() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        Err(io::Error::other(format!("PgBouncer does not start\n{log}")))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.life.take();
        // There is nothing to do on an error.
        drop(self.process.wait());
    }
}

fn watchdog(folder: &Path, program: &Program, user: Option<User>) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", WATCHDOG, "dev-pgbouncer"])
        .args([folder, &program.file])
        .current_dir("/")
        .env_clear()
        // Ctrl-C is sent to the foreground process group only.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(user) = user {
        command.uid(user.id).gid(user.group);
    }
    command
}

impl Program {
    fn find() -> io::Result<Self> {
        let named = env::var_os("DEV_PGBOUNCER").filter(|file| !file.is_empty());
        let path = env::var_os("PATH").unwrap_or_default();
        let of_machine = env::split_paths(&path)
            .chain([PathBuf::from("/usr/sbin")])
            .map(|folder| folder.join("pgbouncer"));
        let found = match named {
            Some(file) => Self::at(PathBuf::from(file)),
            None => of_machine.into_iter().find_map(Self::at),
        };
        found.ok_or_else(|| {
            not_found(
                "PgBouncer is not installed: install it, or name its program in DEV_PGBOUNCER",
            )
        })
    }

    fn at(file: PathBuf) -> Option<Self> {
        let output = Command::new(&file).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let version = text.split_whitespace().nth(1)?;
        let mut numbers = version.split('.').map(str::parse);
        Some(Self {
            version: (numbers.next()?.ok()?, numbers.next()?.ok()?),
            file,
        })
    }

    fn keeps_track_of_prepared_statements(&self) -> bool {
        self.version >= FIRST_WITH_PREPARED_STATEMENTS
    }

    fn check(&self, lending: Lending) -> io::Result<()> {
        let wants_it = lending == Lending::TransactionWithPreparedStatements;
        match wants_it && !self.keeps_track_of_prepared_statements() {
            true => Err(not_found(
                "this PgBouncer is older than 1.21, which is the first version that tracks prepared statements",
            )),
            false => Ok(()),
        }
    }

    fn configuration(
        &self,
        server: &Server,
        lending: Lending,
        connections: u32,
        folder: &Path,
    ) -> String {
        let (mode, prepared_statements) = match lending {
            Lending::Session => ("session", 0),
            Lending::Transaction => ("transaction", 0),
            Lending::TransactionWithPreparedStatements => ("transaction", 200),
        };
        let server = server.folder().display();
        let folder = folder.display();
        let mut lines = format!(
            "[databases]\n\
             * = host={server} user=postgres\n\
             [pgbouncer]\n\
             listen_addr =\n\
             listen_port = {PORT}\n\
             unix_socket_dir = {folder}\n\
             auth_type = any\n\
             admin_users = postgres\n\
             pool_mode = {mode}\n\
             default_pool_size = {connections}\n\
             max_client_conn = 1000\n\
             ignore_startup_parameters = extra_float_digits\n"
        );
        // Older versions don't know this setting. Newer ones have another default.
        if self.keeps_track_of_prepared_statements() {
            lines += &format!("max_prepared_statements = {prepared_statements}\n");
        }
        lines
    }
}

fn not_found(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, why)
}
