#![doc = include_str!("../README.md")]

mod database;
mod pooler;
mod programs;
mod server;

pub use database::{TestDatabase, database_url, test_database};
pub use pooler::{Lending, Pooler};
pub use programs::Prefer;
pub use server::{Builder, Server, Shutdown};
