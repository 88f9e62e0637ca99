#![doc = include_str!("../README.md")]

mod clock;
mod database;
mod disk;
mod folder;
mod pooler;
mod programs;
mod server;
mod standby;
mod version;

pub use clock::libfaketime;
pub use database::{TestDatabase, database_url, test_database};
pub use pooler::{Lending, Pooler, Tls};
pub use programs::Prefer;
pub use server::{Builder, Server, Shutdown};
