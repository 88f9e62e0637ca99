#![doc = include_str!("../README.md")]

mod database;
mod disk;
mod pooler;
mod programs;
mod server;
mod standby;

pub use database::{TestDatabase, database_url, test_database};
pub use pooler::{Lending, Pooler};
pub use programs::Prefer;
pub use server::{Builder, Server, Shutdown};
