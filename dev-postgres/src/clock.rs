//! A server with a clock of its own, by libfaketime.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// The paths of several distributions. `{}` is the architecture.
const PLACES: [&str; 4] = [
    "/usr/lib/{}/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/local/lib/faketime/libfaketime.so.1",
];

/// The path of the machine's libfaketime, which makes a program see another time.
///
/// # Errors
///
/// When it is not installed.
pub fn libfaketime() -> io::Result<PathBuf> {
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    PLACES
        .iter()
        .map(|place| PathBuf::from(place.replace("{}", &triple)))
        .find(|path| path.exists())
        .ok_or_else(|| {
            let message = "libfaketime is not installed; on Debian, it is in the package faketime";
            io::Error::new(io::ErrorKind::NotFound, message)
        })
}

/// The environment in which a server reads its clock from a file in its folder.
pub(crate) fn environment(
    folder: &Path,
    library: PathBuf,
) -> io::Result<Vec<(&'static str, OsString)>> {
    set(folder, 0)?;
    Ok(vec![
        ("LD_PRELOAD", library.into()),
        ("FAKETIME_TIMESTAMP_FILE", file(folder).into()),
        // A change takes effect at once.
        ("FAKETIME_NO_CACHE", "1".into()),
        // Postgres measures waits by the monotonic clock.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        // Shared memory would remain after the server was killed.
        ("FAKETIME_DISABLE_SHM", "1".into()),
    ])
}

/// Sets how many seconds the clock is ahead of the machine's.
pub(crate) fn set(folder: &Path, ahead: i64) -> io::Result<()> {
    let written = folder.join("clock.new");
    fs::write(&written, format!("{ahead:+}\n"))?;
    // As root, the server runs as another user.
    fs::set_permissions(&written, fs::Permissions::from_mode(0o644))?;
    // So the server never reads half of the file.
    fs::rename(written, file(folder))
}

fn file(folder: &Path) -> PathBuf {
    folder.join("clock")
}
