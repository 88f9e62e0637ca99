use std::{
    env,
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::version;

/// Which Postgres to use if both exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// The machine's, which its users know.
    Machine,
    /// Cargo's, which is the same on every machine.
    Bundled,
}

/// The programs of one Postgres.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) folder: PathBuf,
    pub(crate) refuses_root: bool,
}

/// What the programs must support.
#[derive(Clone, Debug)]
pub(crate) struct Need {
    pub(crate) prefer: Prefer,
    pub(crate) extensions: Vec<String>,
    pub(crate) tls: bool,
}

impl Programs {
    /// # Errors
    ///
    /// When there are none. The error has instructions.
    pub(crate) fn find(need: &Need) -> io::Result<Self> {
        let asked = version::asked_for()?;
        let found = match (variable("DEV_POSTGRES_BIN"), asked) {
            (Some(folder), _) => Self::in_folder(Path::new(&folder)).ok_or_else(not_in_folder)?,
            (None, Some(major)) => Self::of_version(major)?,
            (None, None) => return Self::first(need).ok_or_else(|| nowhere(need)),
        };
        // Another version must not be used by mistake.
        if asked.is_some_and(|major| found.major() != Some(major)) {
            return Err(not_the_version(&found));
        }
        found
            .fit(need)
            .then_some(found)
            .ok_or_else(|| nowhere(need))
    }

    fn first(need: &Need) -> Option<Self> {
        let fit = |programs: &Self| programs.fit(need);
        let (bundled, of_machine) = (Self::bundled, Self::of_machine);
        let found = match need.prefer {
            Prefer::Machine => of_machine().filter(fit).or_else(|| bundled().filter(fit)),
            Prefer::Bundled => bundled().filter(fit).or_else(|| of_machine().filter(fit)),
        };
        // npm comes last, because it downloads.
        let of_npm = || Self::of_npm(version::NEWEST).ok().filter(fit);
        match need.extensions.is_empty() && !need.tls {
            true => found,
            false => found.or_else(of_npm),
        }
    }

    /// The machine's or cargo's, otherwise npm's.
    fn of_version(major: u32) -> io::Result<Self> {
        let mut candidates = Self::all_of_machine().chain(Self::bundled());
        match candidates.find(|programs| programs.major() == Some(major)) {
            Some(programs) => Ok(programs),
            None => Self::of_npm(major),
        }
    }

    fn of_npm(major: u32) -> io::Result<Self> {
        let folder = version::installed(major)?;
        Self::in_folder(&folder).ok_or_else(not_in_folder)
    }

    fn of_machine() -> Option<Self> {
        Self::all_of_machine().next()
    }

    fn all_of_machine() -> impl Iterator<Item = Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders: Vec<_> = env::split_paths(&path).chain(of_distribution()).collect();
        folders
            .into_iter()
            .filter_map(|folder| Self::in_folder(&folder))
    }

    /// Those of cargo, which run from any folder and as root. They don't run if the libc is too old.
    fn bundled() -> Option<Self> {
        let folder = Path::new(env!("OUT_DIR")).join("postgres/bin");
        let programs = Self::in_folder(&folder)?;
        Some(Self {
            refuses_root: false,
            ..programs
        })
    }

    fn fit(&self, need: &Need) -> bool {
        let has = |extension: &String| {
            let control = format!("extension/{extension}.control");
            self.shares()
                .iter()
                .any(|share| share.join(&control).exists())
        };
        need.extensions.iter().all(has) && (!need.tls || self.have_tls())
    }

    /// A build without TLS has no ciphers.
    fn have_tls(&self) -> bool {
        let output = Command::new(self.folder.join("postgres"))
            .arg("--describe-config")
            .output();
        let Ok(output) = output else {
            return false;
        };
        let settings = String::from_utf8_lossy(&output.stdout);
        let mut lines = settings.lines();
        lines
            .find(|line| line.starts_with("ssl_ciphers\t"))
            .is_some_and(|line| !line.contains("\tnone\t"))
    }

    /// The folders that can have the extensions: those beside programs that were moved, those of
    /// Debian, and those that `pg_config` reports.
    fn shares(&self) -> Vec<PathBuf> {
        let prefix = self.folder.parent().unwrap_or(&self.folder);
        let mut shares = vec![prefix.join("share/postgresql"), prefix.join("share")];
        if let Ok(below) = prefix.strip_prefix("/usr/lib") {
            shares.push(Path::new("/usr/share").join(below));
        }
        let config = Command::new(self.folder.join("pg_config"))
            .arg("--sharedir")
            .output();
        if let Ok(config) = config {
            shares.push(String::from_utf8_lossy(&config.stdout).trim().into());
        }
        shares
    }

    /// The major version, from a line such as `postgres (PostgreSQL) 15.20 (Debian …)`.
    fn major(&self) -> Option<u32> {
        let output = Command::new(self.folder.join("postgres"))
            .arg("--version")
            .output();
        version::major_of(&String::from_utf8_lossy(&output.ok()?.stdout))
    }

    fn in_folder(folder: &Path) -> Option<Self> {
        let programs = Self {
            folder: fs::canonicalize(folder.join("initdb"))
                .ok()?
                .parent()?
                .to_owned(),
            refuses_root: true,
        };
        programs.start().then_some(programs)
    }

    fn start(&self) -> bool {
        ["initdb", "postgres"].iter().all(|program| {
            let output = Command::new(self.folder.join(program))
                .arg("--version")
                .output();
            output.is_ok_and(|output| output.status.success())
        })
    }
}

/// Debian's programs, newest version first. They are not in `PATH`.
fn of_distribution() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut folders: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            Some((version, path.join("bin")))
        })
        .collect();
    folders.sort_by(|a, b| b.cmp(a));
    folders.into_iter().map(|(_, folder)| folder).collect()
}

/// A user other than root, because Postgres refuses to run as root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: u32,
    pub(crate) group: u32,
}

impl User {
    /// The user who runs the programs, if the owner of `folder` can't.
    pub(crate) fn instead_of_owner(programs: &Programs, folder: &Path) -> io::Result<Option<Self>> {
        match programs.refuses_root {
            true => Self::instead_of_root(folder),
            false => Ok(None),
        }
    }

    /// The user who runs a program that root can't run, if root owns `folder`.
    pub(crate) fn instead_of_root(folder: &Path) -> io::Result<Option<Self>> {
        if fs::metadata(folder)?.uid() != 0 {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd")?;
        let user = ["postgres", "nobody"]
            .iter()
            .find_map(|name| Self::named(name, &users));
        user.map(Some).ok_or_else(|| {
            io::Error::other("root can't run Postgres, and there is no user `postgres` or `nobody`")
        })
    }

    fn named(name: &str, users: &str) -> Option<Self> {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some(Self {
            id: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
        })
    }
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

fn not_in_folder() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        "the folder of DEV_POSTGRES_BIN, or of npm, has no initdb and postgres that run",
    )
}

fn not_the_version(found: &Programs) -> io::Error {
    let folder = found.folder.display();
    let found = found.major().unwrap_or_default();
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{folder} has Postgres {found}, which is not DEV_POSTGRES_VERSION"),
    )
}

fn nowhere(need: &Need) -> io::Error {
    let tls = need.tls.then_some("TLS");
    let needs: Vec<_> = need
        .extensions
        .iter()
        .map(String::as_str)
        .chain(tls)
        .collect();
    let with = match needs.as_slice() {
        [] => String::new(),
        needs => format!(" with {}", needs.join(", ")),
    };
    io::Error::new(
        io::ErrorKind::NotFound,
        format!(
            "no Postgres{with} was found: set DATABASE_URL, or install the server programs of \
             Postgres and name their folder in DEV_POSTGRES_BIN"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let users = "postgresql:x:1:2::/:/bin/sh\npostgres:x:105:113::/var:/bin/bash\n";
        assert_eq!(
            User::named("postgres", users),
            Some(User {
                id: 105,
                group: 113
            })
        );
        assert_eq!(User::named("nobody", users), None);
    }

    #[test]
    fn an_extension_is_found_by_its_control_file() {
        let need = |extension: &str| Need {
            prefer: Prefer::Bundled,
            extensions: vec![extension.to_owned()],
            tls: false,
        };
        if let Some(programs) = Programs::bundled() {
            assert!(programs.fit(&need("plpgsql")));
            assert!(!programs.fit(&need("no_such_thing")));
        }
        let error = nowhere(&need("no_such_thing")).to_string();
        assert!(error.contains("no_such_thing"), "{error}");
    }

    #[test]
    fn a_folder_without_programs_is_skipped() {
        assert!(Programs::in_folder(&env::temp_dir()).is_none());
    }
}
