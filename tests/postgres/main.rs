//! What the crate promises, proved on a real Postgres.

mod bad_rows;
mod cookies_in;
mod first;
mod migrations;
mod rights;
mod set_up;
mod support;
mod values;
