//! What the crate promises, proved on a real Postgres.

mod costs;
mod doubt;
mod first;
mod hot;
mod laziness;
mod plans;
mod races;
mod support;
