use std::thread::available_parallelism;

use dev_postgres::{Builder, Prefer, Server};

/// The Postgres of a benchmark, still to be started: the machine's where there
/// is one, with `fsync` on, so that a commit waits for the disk as it does in
/// production.
///
/// A later [`setting`](Builder::setting) of the same name wins. `DATABASE_URL`
/// is not asked: who measures somebody else's server does not know its set-up.
///
/// ```no_run
/// let server = bench_common::postgres().setting("commit_delay", "3000").start()?;
/// println!("{}", server.url());
/// # std::io::Result::Ok(())
/// ```
pub fn postgres() -> Builder {
    Server::builder()
        .prefer(Prefer::Machine)
        .setting("fsync", "on")
        // The default of most distributions. A checkpoint in the middle of a
        // round is noise, so it comes by time only.
        .setting("synchronous_commit", "on")
        .setting("max_wal_size", "8GB")
        .setting("checkpoint_timeout", "30min")
}

/// How many cores the benchmark and its database share, for the set-up that is
/// printed beside the figures.
#[must_use]
pub fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}
