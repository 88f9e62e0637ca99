//! Has cargo build the servers.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::candidates::Program;

/// Whether cargo is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Builds {
    /// Whatever has changed is built.
    Fresh,
    /// What was built last is taken.
    Last,
}

/// The program of a server, built where it has to be.
pub(crate) fn program_of(program: &Program, builds: Builds) -> io::Result<PathBuf> {
    match program {
        Program::OfWorkspace(name) => cargo(&benches().join("Cargo.toml"), name, builds),
        Program::OfPeer(folder) => {
            let manifest = benches().join("peers").join(folder).join("Cargo.toml");
            cargo(&manifest, &format!("bench-{folder}"), builds)
        }
        Program::Against(checkout) => against(checkout, builds),
        Program::Given(path) => fs::canonicalize(path),
    }
}

/// The folder of this workspace.
pub(crate) fn benches() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("a package of a workspace")
}

fn cargo(manifest: &Path, name: &str, builds: Builds) -> io::Result<PathBuf> {
    if builds == Builds::Fresh {
        return build(manifest, name, &[]);
    }
    let workspace = manifest.parent().expect("a manifest is in a folder");
    fs::canonicalize(workspace.join("target/release").join(name))
        .map_err(|error| io::Error::new(error.kind(), format!("{name} was not built yet: {error}")))
}

/// Builds one program and asks cargo where it is.
fn build(manifest: &Path, name: &str, options: &[&OsStr]) -> io::Result<PathBuf> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--release",
            "--message-format=json-render-diagnostics",
        ])
        .args(["--bin", name, "--manifest-path"])
        .arg(manifest)
        .args(options)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("{name} does not compile")));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    messages
        .filter(|message: &Value| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| io::Error::other(format!("cargo built no {name}")))
}

/// This crate's server with another checkout of the crate. What both have in
/// common is built once, so they share a folder; the next build would
/// overwrite the program there.
fn against(checkout: &Path, builds: Builds) -> io::Result<PathBuf> {
    let package = package_against(checkout)?;
    let program = package.join("ours");
    if builds == Builds::Fresh {
        let target = benches().join("target");
        let options = [OsStr::new("--target-dir"), target.as_os_str()];
        fs::copy(
            build(&package.join("Cargo.toml"), "ours", &options)?,
            &program,
        )?;
    }
    Ok(program)
}

/// The folder of a package like this one, but with another checkout's crate.
fn package_against(checkout: &Path) -> io::Result<PathBuf> {
    let checkout = fs::canonicalize(checkout)?;
    let name: String = checkout
        .to_string_lossy()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let folder = benches().join("target/against").join(name);
    fs::create_dir_all(&folder)?;
    let manifest = include_str!("against.toml")
        .replace("$CHECKOUT", &checkout.to_string_lossy())
        .replace("$BENCHES", &benches().to_string_lossy());
    fs::write(folder.join("Cargo.toml"), manifest)?;
    fs::copy(benches().join("Cargo.lock"), folder.join("Cargo.lock"))?;
    Ok(folder)
}
