//! A site that moves from Koa to axum, proved by running the real Koa beside
//! axum on one table: each scenario with Koa 1 and Koa 2.
//!
//! npm installs the packages of `koa1` and `koa2` into the target folder. If there is
//! no Node, the tests report that they were skipped. On CI that is a failure.

mod clocks;
mod cookies;
mod foreign_rows;
mod model;
mod moving;
#[path = "../node/mod.rs"]
mod node;
mod races;
mod signatures;
mod support;
mod tables;
