//! A site that moves from Koa to axum, proved by running the real Koa beside
//! axum on one table: each scenario with Koa 1 and Koa 2.
//!
//! npm installs the packages of `koa1` and `koa2` into the target folder.
//! Where Node can't be had the tests say that they were skipped; on CI that is
//! a failure.

mod connection;
mod model;
mod node;
mod support;
