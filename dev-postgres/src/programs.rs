use std::{
    env, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Which Postgres to take where both are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefer {
    /// The machine's: what a developer knows and can look into.
    Machine,
    /// The one that cargo brought: the same on every machine.
    Bundled,
}

/// The programs of one Postgres, and who may run them.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) folder: PathBuf,
    pub(crate) refuses_root: bool,
}

impl Programs {
    /// # Errors
    ///
    /// When there are none, saying what to do.
    pub(crate) fn find(prefer: Prefer) -> io::Result<Self> {
        if let Some(folder) = env::var_os("DEV_POSTGRES_BIN").filter(|folder| !folder.is_empty()) {
            return Self::in_folder(Path::new(&folder)).ok_or_else(not_in_folder);
        }
        let found = match prefer {
            Prefer::Machine => Self::of_machine().or_else(Self::bundled),
            Prefer::Bundled => Self::bundled().or_else(Self::of_machine),
        };
        found.ok_or_else(nowhere)
    }

    fn of_machine() -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path)
            .chain(of_distribution())
            .find_map(|folder| Self::in_folder(&folder))
    }

    /// Runs from any folder and as root; needs a libc that is not too old.
    fn bundled() -> Option<Self> {
        let folder = Path::new(env!("OUT_DIR")).join("postgres/bin");
        let programs = Self::in_folder(&folder)?;
        Some(Self {
            refuses_root: false,
            ..programs
        })
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

/// Debian keeps the programs of each version off the path.
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

/// Postgres refuses to run as root; on Unix somebody else is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) id: u32,
    pub(crate) group: u32,
}

impl User {
    /// Who should run the programs, where that is not whoever owns `folder`.
    pub(crate) fn instead_of_owner(programs: &Programs, folder: &Path) -> io::Result<Option<Self>> {
        match programs.refuses_root {
            true => Self::instead_of_root(folder),
            false => Ok(None),
        }
    }

    /// Who should run a program that root may not, where root owns `folder`.
    pub(crate) fn instead_of_root(folder: &Path) -> io::Result<Option<Self>> {
        if fs::metadata(folder)?.uid() != 0 {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd")?;
        let user = ["postgres", "nobody"]
            .iter()
            .find_map(|name| Self::named(name, &users));
        user.map(Some)
            .ok_or_else(|| io::Error::other("root can't run this, and there is no other user"))
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

fn not_in_folder() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        "the folder of DEV_POSTGRES_BIN has no initdb and postgres that run",
    )
}

fn nowhere() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        "no Postgres runs here: set DATABASE_URL, or install the server programs of Postgres and \
         name their folder in DEV_POSTGRES_BIN",
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
    fn a_folder_without_the_programs_is_none() {
        assert!(Programs::in_folder(&env::temp_dir()).is_none());
    }
}
