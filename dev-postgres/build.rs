//! Unpacks the Postgres of a dependency into `OUT_DIR/postgres`. On targets without such a
//! dependency, the folder is empty.

use std::{
    env,
    error::Error,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use ruzstd::decoding::StreamingDecoder;

/// The version that the manifest pins.
const VERSION: &str = "0.2.7";
const ARCHIVE: &str = "lib/pglite-runtime.tar.zst";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let target = env::var("TARGET")?;
    let unpacked = PathBuf::from(env::var("OUT_DIR")?).join("postgres");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked)?;
    }
    fs::create_dir_all(&unpacked)?;
    match archive(&format!("pglite-rs-lib-{target}")) {
        Some(archive) => unpack(&archive, &unpacked),
        None => Ok(()),
    }
}

fn unpack(archive: &Path, folder: &Path) -> Result<(), Box<dyn Error>> {
    let plain = StreamingDecoder::new(File::open(archive)?)?;
    Ok(tar::Archive::new(plain).unpack(folder)?)
}

/// Finds the archive. Cargo gives a build script no path of its dependencies' files.
fn archive(package: &str) -> Option<PathBuf> {
    in_registry(package).or_else(|| by_metadata(package))
}

fn in_registry(package: &str) -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))?;
    fs::read_dir(home.join("registry/src"))
        .ok()?
        .filter_map(|registry| Some(registry.ok()?.path()))
        .map(|registry| registry.join(format!("{package}-{VERSION}")).join(ARCHIVE))
        .find(|archive| archive.is_file())
}

/// If the dependencies are vendored.
fn by_metadata(package: &str) -> Option<PathBuf> {
    let output = Command::new(env::var_os("CARGO")?)
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform",
        ])
        .arg(env::var_os("TARGET")?)
        .output()
        .ok()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let found = metadata["packages"]
        .as_array()?
        .iter()
        .find(|candidate| candidate["name"] == package)?;
    let manifest = Path::new(found["manifest_path"].as_str()?);
    let archive = manifest.parent()?.join(ARCHIVE);
    archive.is_file().then_some(archive)
}
