//! What the crate promises, proved on a real Postgres.

mod bad_rows;
mod cookies_in;
mod costs;
mod doubt;
mod first;
mod hot;
mod laziness;
mod migrations;
mod plans;
mod races;
mod rights;
mod set_up;
mod support;
mod values;
