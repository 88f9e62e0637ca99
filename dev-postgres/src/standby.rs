//! Streaming replication from one server to another.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, chown},
    path::Path,
};

use crate::Server;

impl Server {
    /// Makes a stopped server the standby of another one. This takes effect with its next start.
    ///
    /// # Errors
    ///
    /// When the server's data can't be written.
    pub fn follow(&self, primary: &Self) -> io::Result<()> {
        follow(&self.folder, &primary.folder)
    }
}

pub(crate) fn follow(standby: &Path, primary: &Path) -> io::Result<()> {
    let data = standby.join("data");
    let conninfo = format!(
        "primary_conninfo = 'host={} user=postgres'\n",
        primary.display()
    );
    // If a setting has several lines, the last one wins.
    OpenOptions::new()
        .append(true)
        .open(data.join("postgresql.auto.conf"))?
        .write_all(conninfo.as_bytes())?;
    let signal = data.join("standby.signal");
    fs::write(&signal, "")?;
    let owner = fs::metadata(&data)?;
    chown(&signal, Some(owner.uid()), Some(owner.gid()))
}
