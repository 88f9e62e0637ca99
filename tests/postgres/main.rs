//! What the crate promises, proved on a real Postgres.

mod first;
mod layer;
mod session_api;
mod support;
mod timeouts;
