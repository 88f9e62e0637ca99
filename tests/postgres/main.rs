//! What the crate promises, proved on a real Postgres.

mod costs;
mod first;
mod laziness;
mod plans;
mod support;
