//! What the crate promises, proved on a real Postgres.

mod first;
mod hot;
mod races;
mod support;
