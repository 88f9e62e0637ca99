//! A small disk for one server, which can become full.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Server, programs::User};

/// Mounts the disk, and continues as a shell.
const MOUNT: &str = r#"mount -t tmpfs -o size="$1" tmpfs "$0" && shift && exec /bin/sh "$@""#;

/// A shell in a new mount namespace. The namespace and the disk end with its processes. A user who
/// isn't root is root in the namespace, which cargo's Postgres allows.
///
/// # Errors
///
/// Of kind `Unsupported` if the machine doesn't allow it.
pub(crate) fn shell(folder: &Path, megabytes: u32, user: Option<User>) -> io::Result<Command> {
    let disk = folder.join("disk");
    fs::create_dir(&disk)?;
    if user.is_some() {
        return Err(refused("this Postgres refuses to run as root"));
    }
    let is_root = fs::metadata(folder)?.uid() == 0;
    let shell = || {
        let mut command = Command::new("unshare");
        command.arg("--mount");
        if !is_root {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["/bin/sh", "-c", MOUNT]).arg(&disk);
        command.arg(format!("{megabytes}m"));
        command
    };
    let mut trial = shell();
    trial.args(["-c", "true"]).stderr(Stdio::null());
    match trial.status() {
        Ok(status) if status.success() => Ok(shell()),
        Ok(status) => Err(refused(&format!("mounting it ended with {status}"))),
        Err(error) => Err(refused(&error.to_string())),
    }
}

fn refused(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        format!("the server can't have a disk of its own: {why}"),
    )
}

impl Server {
    /// The path of the server's [disk](crate::Builder::disk).
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }
}
