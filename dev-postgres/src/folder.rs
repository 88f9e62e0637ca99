//! The private folders of servers and poolers.

use std::{
    env, fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// The folder in memory that Linux has. Creating and dropping databases is much faster there.
const MEMORY: &str = "/dev/shm";
/// The free space that must exist there. A test server needs about 200 MB, and other programs use
/// the rest.
const SPARE_KILOBYTES: u64 = 2 * 1024 * 1024;

/// Whether the data must be on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// `fsync` is on, and waits for the disk of `TMPDIR`.
    OnDisk,
    /// In memory, if there is enough.
    Any,
}

/// A folder with a short path, because the path of a socket can have at most 107 bytes. It is
/// deleted with the value, until a watchdog takes over.
pub(crate) fn private_folder(durability: Durability) -> io::Result<TempDir> {
    let parent = match durability {
        Durability::Any if has_room(Path::new(MEMORY)) => PathBuf::from(MEMORY),
        _ => env::temp_dir(),
    };
    let mut builder = tempfile::Builder::new();
    let folder = builder.prefix("dev-postgres-").tempdir_in(parent)?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700))?;
    Ok(folder)
}

/// A user who sets `TMPDIR` has chosen another folder. The standard library can't tell how much
/// is free.
fn has_room(memory: &Path) -> bool {
    if env::var_os("TMPDIR").is_some() || !memory.is_dir() {
        return false;
    }
    let mut df = Command::new("df");
    let output = df.arg("-Pk").arg(memory).stderr(Stdio::null()).output();
    output.is_ok_and(|output| {
        let free = free_kilobytes(&String::from_utf8_lossy(&output.stdout));
        free.is_some_and(|free| free >= SPARE_KILOBYTES)
    })
}

/// The fourth column of the second line.
fn free_kilobytes(report: &str) -> Option<u64> {
    let line = report.lines().nth(1)?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_free_kilobytes_are_read_from_the_output_of_df() {
        let report = "Filesystem 1024-blocks Used Available Capacity Mounted on\n\
                      tmpfs 24685680 1664 24684016 1% /dev/shm\n";
        assert_eq!(free_kilobytes(report), Some(24_684_016));
        assert_eq!(free_kilobytes(""), None);
        assert_eq!(free_kilobytes("Filesystem\ntmpfs - - - - /dev/shm\n"), None);
    }

    #[test]
    fn with_fsync_the_data_is_in_the_folder_for_temporary_files() {
        let folder = private_folder(Durability::OnDisk).expect("a folder");
        assert_eq!(folder.path().parent(), Some(&*env::temp_dir()));
    }
}
