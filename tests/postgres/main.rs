//! What the crate promises, proved on a real Postgres.

mod bad_rows;
mod cookies_in;
mod costs;
mod doubt;
mod first;
mod hot;
mod koa;
mod koa_life;
mod layer;
mod laziness;
mod migrations;
mod model_defects;
mod nesting;
mod options;
mod plans;
mod races;
mod reaper;
mod request_cycle;
mod responses;
mod rights;
mod session_api;
mod set_up;
mod store;
mod support;
mod timeouts;
mod values;
