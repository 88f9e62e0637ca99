use std::{
    env, fs, io,
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

use crate::{Server, programs::User, server::private_folder};

const WATCHDOG: &str = include_str!("pooler.sh");
/// A loaded machine takes seconds, not minutes.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
const PORT: u16 = 6432;
/// From this one on it keeps track of prepared statements, if it is told to.
const FIRST_WITH_PREPARED_STATEMENTS: (u32, u32) = (1, 21);

/// A PgBouncer before a [`Server`], on a socket in a private folder.
///
/// It is the machine's, or the one that `DEV_PGBOUNCER` names. It ends when the
/// value is dropped or the process ends, in whatever way.
#[derive(Debug)]
pub struct Pooler {
    folder: PathBuf,
    program: Program,
    lending: Lending,
    process: Child,
    /// Taken when it is to end.
    life: Option<ChildStdin>,
}

/// How a [`Pooler`] lends the server's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lending {
    /// To one client, until it leaves.
    Session,
    /// For a transaction; what is prepared is the client's to look after.
    Transaction,
    /// For a transaction, with an eye on what each client has prepared.
    TransactionWithPreparedStatements,
}

#[derive(Clone, Debug)]
struct Program {
    file: PathBuf,
    version: (u32, u32),
}

impl Pooler {
    /// One before all databases of this server, with so many connections to
    /// each.
    ///
    /// # Errors
    ///
    /// Of kind `NotFound` where there is no PgBouncer that can do this, and when
    /// it does not start.
    pub fn before(server: &Server, lending: Lending, connections: u32) -> io::Result<Self> {
        let program = Program::find()?;
        program.check(lending)?;
        let folder = private_folder()?;
        let configuration = program.configuration(server, lending, connections, &folder);
        fs::write(folder.join("pgbouncer.ini"), configuration)?;
        let user = User::instead_of_root(&folder)?;
        if let Some(user) = user {
            chown(&folder, Some(user.id), Some(user.group))?;
            // The socket is open to everyone who gets that far.
            fs::set_permissions(server.folder(), fs::Permissions::from_mode(0o711))?;
        }
        let mut process = watchdog(&folder, &program, user).spawn()?;
        let life = process.stdin.take();
        let pooler = Self {
            folder,
            program,
            lending,
            process,
            life,
        };
        pooler.wait_for_its_socket()?;
        Ok(pooler)
    }

    /// The URL of a database behind it. Its name must need no escape in a URL.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        format!(
            "postgres:///{database}?host={}&port={PORT}&user=postgres",
            self.folder.display()
        )
    }

    /// As it was started.
    #[must_use]
    pub fn lending(&self) -> Lending {
        self.lending
    }

    /// Major and minor version of PgBouncer.
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        self.program.version
    }

    fn wait_for_its_socket(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let socket = self.folder.join(format!(".s.PGSQL.{PORT}"));
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
        // It has no error to tell that anybody could still act on.
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
        // Ctrl-C reaches the processes of the foreground only.
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
            not_found("no PgBouncer runs here: install it, or name it in DEV_PGBOUNCER")
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
                "this PgBouncer is older than 1.21 and does not keep track of prepared statements",
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
             pool_mode = {mode}\n\
             default_pool_size = {connections}\n\
             max_client_conn = 1000\n\
             ignore_startup_parameters = extra_float_digits\n"
        );
        // An older one does not know it, and a newer one has it by default.
        if self.keeps_track_of_prepared_statements() {
            lines += &format!("max_prepared_statements = {prepared_statements}\n");
        }
        lines
    }
}

fn not_found(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, why)
}
