//! What is measured, and where the programs of the servers come from.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

/// The candidate for which the benchmark is made.
pub(crate) const OURS: &str = "ours";
/// The candidate that all others are compared with.
pub(crate) const REFERENCE: &str = "tower-sessions";

type Known = (&'static str, Program, &'static str, Storage);
type Program = (&'static str, &'static str);

/// Each program is named by its package and its own name.
const KNOWN: [Known; 9] = {
    use Storage::{Postgres, Process, Redis};
    let (ours, bare) = (("throughput", "ours"), ("throughput", "bare"));
    let tower_sessions = ("bench-peers", "tower-sessions");
    let axum_session = ("bench-peers", "axum-session");
    [
        (OURS, ours, "", Postgres),
        (REFERENCE, tower_sessions, "", Postgres),
        ("tower-sessions-ours", tower_sessions, "ours", Postgres),
        ("bare", bare, "", Postgres),
        ("memory", bare, "memory", Process),
        ("axum-session", axum_session, "", Postgres),
        ("axum-session-uncached", axum_session, "uncached", Postgres),
        ("redis", tower_sessions, "redis", Redis { durable: false }),
        (
            "redis-durable",
            tower_sessions,
            "redis",
            Redis { durable: true },
        ),
    ]
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    Process,
    Postgres,
    /// Durable, if each write is flushed to disk before its response, like a commit.
    Redis {
        durable: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) variant: &'static str,
    pub(crate) storage: Storage,
}

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|(name, ..)| *name)
}

impl Candidate {
    /// One of [`names`], built.
    pub(crate) fn known(known: &str) -> io::Result<Self> {
        let found = KNOWN.iter().find(|(name, ..)| *name == known);
        let (name, (package, program), variant, storage) = *found.expect("one of the names");
        Ok(Self {
            name: name.to_owned(),
            program: build(&benches().join("Cargo.toml"), package, program)?,
            variant,
            storage,
        })
    }

    /// This crate's server, with the crate of the checkout in `FOLDER` or `FOLDER=NAME`.
    pub(crate) fn against(given: &str) -> io::Result<Self> {
        let (folder, name) = given.split_once('=').unwrap_or((given, given));
        Self::ours(name, against(Path::new(folder))?)
    }

    /// This crate's server, already built: `PATH` or `PATH=NAME`.
    pub(crate) fn built(given: &str) -> io::Result<Self> {
        let (path, name) = given.split_once('=').unwrap_or((given, given));
        Self::ours(name, path.into())
    }

    fn ours(name: &str, program: PathBuf) -> io::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            program: fs::canonicalize(program)?,
            variant: "",
            storage: Storage::Postgres,
        })
    }

    pub(crate) fn needs_redis(&self) -> bool {
        matches!(self.storage, Storage::Redis { .. })
    }
}

/// The folder of this workspace.
pub(crate) fn benches() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("a package of a workspace")
}

/// Builds a program, and returns its path, which cargo reports.
fn build(manifest: &Path, package: &str, program: &str) -> io::Result<PathBuf> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--release",
            "--message-format=json-render-diagnostics",
        ])
        .args(["--package", package, "--bin", program, "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(env::var_os("CARGO_TARGET_DIR").map_or_else(|| benches().join("target"), Into::into))
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut messages = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let built = messages.find_map(|message: Value| {
        let is_program = message["target"]["name"] == program;
        let path = message["executable"].as_str().filter(|_| is_program)?;
        Some(PathBuf::from(path))
    });
    built.ok_or_else(|| io::Error::other(format!("cargo built no {program}")))
}

/// Builds the server with another checkout's crate, in a package that differs from this one only in
/// that dependency. All builds share a target folder, so the program is copied out of it.
fn against(checkout: &Path) -> io::Result<PathBuf> {
    let checkout = fs::canonicalize(checkout)?;
    let checkout = checkout.to_string_lossy();
    let name = checkout.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let package = benches().join("target/against").join(name);
    fs::create_dir_all(&package)?;
    let manifest = include_str!("against.toml")
        .replace("$CHECKOUT", &checkout)
        .replace("$BENCHES", &benches().to_string_lossy());
    fs::write(package.join("Cargo.toml"), manifest)?;
    fs::copy(benches().join("Cargo.lock"), package.join("Cargo.lock"))?;
    let program = build(&package.join("Cargo.toml"), "against", "ours")?;
    fs::copy(program, package.join("ours"))?;
    Ok(package.join("ours"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_server_is_named_or_identified_by_its_path() {
        let named = Candidate::built("/bin/sh=new").expect("it exists");
        assert_eq!(named.name, "new");
        assert!(
            named
                .program
                .ends_with(fs::canonicalize("/bin/sh").expect("it exists"))
        );
        assert_eq!(
            Candidate::built("/bin/sh").expect("it exists").name,
            "/bin/sh"
        );
    }
}
