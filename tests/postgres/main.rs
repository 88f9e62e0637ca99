//! What the crate promises, proved on a real Postgres.

mod first;
mod races;
mod support;
