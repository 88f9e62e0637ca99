//! Has cargo build the servers.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::candidates::Program;

/// The program of a server, built where it has to be.
pub(crate) fn build(program: &Program) -> io::Result<PathBuf> {
    match program {
        Program::OfWorkspace(name) => cargo(&benches().join("Cargo.toml"), name),
        Program::OfPeer(folder) => cargo(
            &benches().join("peers").join(folder).join("Cargo.toml"),
            &format!("bench-{folder}"),
        ),
        Program::Against(checkout) => cargo(&package_against(checkout)?, "ours"),
        Program::Given(path) => fs::canonicalize(path),
    }
}

/// The folder of this workspace.
pub(crate) fn benches() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("a package of a workspace")
}

/// Builds one program and asks cargo where it is.
fn cargo(manifest: &Path, name: &str) -> io::Result<PathBuf> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--release",
            "--message-format=json-render-diagnostics",
        ])
        .args(["--bin", name, "--manifest-path"])
        .arg(manifest)
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

/// A package like this one, but with the crate of another checkout.
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
    Ok(folder.join("Cargo.toml"))
}
