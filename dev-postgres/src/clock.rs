//! A server whose clock is not the machine's, by libfaketime.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// By distribution; `lib64` where there is no folder for the architecture.
const PLACES: [&str; 4] = [
    "/usr/lib/{}/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/local/lib/faketime/libfaketime.so.1",
];

/// The library that shows a program another time, where the machine has it.
///
/// # Errors
///
/// When it has not.
pub fn libfaketime() -> io::Result<PathBuf> {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    PLACES
        .iter()
        .map(|place| PathBuf::from(place.replace("{}", &triple)))
        .find(|path| path.exists())
        .ok_or_else(|| {
            let message = "no libfaketime is here; Debian has it in the package faketime";
            io::Error::new(io::ErrorKind::NotFound, message)
        })
}

/// What makes a server read its clock from a file of its folder.
pub(crate) fn environment(
    folder: &Path,
    library: PathBuf,
) -> io::Result<Vec<(&'static str, OsString)>> {
    set(folder, 0)?;
    Ok(vec![
        ("LD_PRELOAD", library.into()),
        ("FAKETIME_TIMESTAMP_FILE", file(folder).into()),
        // A change is seen at once.
        ("FAKETIME_NO_CACHE", "1".into()),
        // Postgres measures its waits by it.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        // It would stay behind when the server is killed.
        ("FAKETIME_DISABLE_SHM", "1".into()),
    ])
}

/// How many seconds it is ahead of the machine's.
pub(crate) fn set(folder: &Path, ahead: i64) -> io::Result<()> {
    let written = folder.join("clock.new");
    fs::write(&written, format!("{ahead:+}\n"))?;
    // As root, the server is another user's.
    fs::set_permissions(&written, fs::Permissions::from_mode(0o644))?;
    // The server never reads half of it.
    fs::rename(written, file(folder))
}

fn file(folder: &Path) -> PathBuf {
    folder.join("clock")
}
