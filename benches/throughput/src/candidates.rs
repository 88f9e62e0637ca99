//! What is measured.

use std::{fmt, path::PathBuf};

use crate::redis::Persistence;

/// A candidate that this benchmark brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Known {
    /// This crate
    Ours,
    /// tower-sessions and its store for Postgres
    TowerSessions,
    /// tower-sessions and this repository's store for it
    TowerSessionsOurs,
    /// By hand: a statement for each load and each save
    Bare,
    /// In the process: no database at all
    Memory,
    /// axum_session: a cache in the process, the database behind it
    AxumSession,
    /// axum_session without its cache
    AxumSessionUncached,
    /// tower-sessions on Redis that keeps nothing
    Redis,
    /// tower-sessions on Redis with appendfsync always
    RedisDurable,
}

/// Where the sessions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    Process,
    Postgres,
    Redis(Persistence),
}

/// Where the program of a server comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// A program of this workspace.
    OfWorkspace(&'static str),
    /// A package of `peers/`.
    OfPeer(&'static str),
    /// This crate's server, with another checkout of it.
    Against(PathBuf),
    Given(PathBuf),
}

#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) program: Program,
    pub(crate) storage: Storage,
    pub(crate) variant: &'static str,
}

/// What is measured for.
pub(crate) const OURS: &str = "ours";
/// To which all others are compared.
pub(crate) const REFERENCE: &str = "tower-sessions";

impl Known {
    pub(crate) const ALL: [Self; 9] = [
        Self::Ours,
        Self::TowerSessions,
        Self::TowerSessionsOurs,
        Self::Bare,
        Self::Memory,
        Self::AxumSession,
        Self::AxumSessionUncached,
        Self::Redis,
        Self::RedisDurable,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Ours => OURS,
            Self::TowerSessions => REFERENCE,
            Self::TowerSessionsOurs => "tower-sessions-ours",
            Self::Bare => "bare",
            Self::Memory => "memory",
            Self::AxumSession => "axum-session",
            Self::AxumSessionUncached => "axum-session-uncached",
            Self::Redis => "redis",
            Self::RedisDurable => "redis-durable",
        }
    }

    fn program(self) -> Program {
        match self {
            Self::Ours | Self::TowerSessionsOurs | Self::Bare | Self::Memory => {
                Program::OfWorkspace(self.name())
            }
            Self::TowerSessions | Self::Redis | Self::RedisDurable => {
                Program::OfPeer("tower-sessions")
            }
            Self::AxumSession | Self::AxumSessionUncached => Program::OfPeer("axum-session"),
        }
    }

    fn storage(self) -> Storage {
        match self {
            Self::Memory => Storage::Process,
            Self::Redis => Storage::Redis(Persistence::Nothing),
            Self::RedisDurable => Storage::Redis(Persistence::EachWrite),
            Self::Ours
            | Self::TowerSessions
            | Self::TowerSessionsOurs
            | Self::Bare
            | Self::AxumSession
            | Self::AxumSessionUncached => Storage::Postgres,
        }
    }

    fn variant(self) -> &'static str {
        match self {
            Self::AxumSessionUncached => "uncached",
            _ => "",
        }
    }
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Known> for Candidate {
    fn from(known: Known) -> Self {
        Self {
            name: known.name().to_owned(),
            program: known.program(),
            storage: known.storage(),
            variant: known.variant(),
        }
    }
}

impl Candidate {
    /// `commit_delay` is Postgres' alone: with it, Redis would be another
    /// disk's.
    pub(crate) fn heeds(&self, commit_delay: u32) -> bool {
        commit_delay == 0 || !matches!(self.storage, Storage::Redis(_))
    }

    /// Of `PATH` or `PATH=NAME`.
    pub(crate) fn build_of_ours(given: &str, program: impl Fn(PathBuf) -> Program) -> Self {
        let (path, name) = given.split_once('=').unwrap_or((given, given));
        Self {
            name: name.to_owned(),
            program: program(path.into()),
            storage: Storage::Postgres,
            variant: "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_build_is_named_or_goes_by_its_path() {
        let named = Candidate::build_of_ours("/a/b=new", Program::Given);
        assert_eq!(
            (named.name.as_str(), named.program),
            ("new", Program::Given("/a/b".into()))
        );
        assert_eq!(
            Candidate::build_of_ours("/a/b", Program::Given).name,
            "/a/b"
        );
    }
}
