//! A site that moves from Express to axum, proved by running the real Express beside
//! axum on one table: each scenario with Express 4 and Express 5 on connect-pg-simple,
//! and with Express 5 on connect-session-knex.
//!
//! npm installs the packages of `express4`, `express5` and `knex` into the target
//! folder. If there is no Node, the tests report that they were skipped. On CI that is
//! a failure.

mod clocks;
mod cookies;
mod foreign_rows;
mod model;
mod moving;
#[path = "../node/mod.rs"]
mod node;
mod overwrites;
mod races;
mod semantics;
mod signatures;
mod support;
mod tables;
mod tombstones;
