//! What the crate promises, proved on a real Postgres.

mod first;
mod migrations;
mod rights;
mod set_up;
mod support;
