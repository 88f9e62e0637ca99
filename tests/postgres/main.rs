//! What the crate promises, proved on a real Postgres.

mod first;
mod layer;
mod nesting;
mod reaper;
mod responses;
mod session_api;
mod store;
mod support;
mod timeouts;
