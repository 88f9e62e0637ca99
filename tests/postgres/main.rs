//! What the crate promises, proved on a real Postgres.

mod first;
mod layer;
mod support;
mod timeouts;
