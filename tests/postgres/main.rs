//! What the crate promises, proved on a real Postgres.

mod bad_rows;
mod cookies_in;
mod costs;
mod doubt;
mod first;
mod hot;
mod layer;
mod laziness;
mod migrations;
mod nesting;
mod plans;
mod races;
mod reaper;
mod responses;
mod rights;
mod session_api;
mod set_up;
mod sharing;
mod store;
mod support;
mod timeouts;
mod values;
