//! A small disk of one server's own, which can become full.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Server, programs::User};

/// Mounts, and goes on as a shell.
const MOUNT: &str = r#"mount -t tmpfs -o size="$1" tmpfs "$0" && shift && exec /bin/sh "$@""#;

/// A shell in a mount namespace of its own, which ends with its processes, and
/// with it the disk. Who is not root is root in there, which the Postgres that
/// cargo brought does not mind.
///
/// # Errors
///
/// Of kind `Unsupported` where the machine does not allow that.
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
        format!("no disk of its own for a server: {why}"),
    )
}

impl Server {
    /// Where the server sees the [disk](crate::Builder::disk) that it was given.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }
}
