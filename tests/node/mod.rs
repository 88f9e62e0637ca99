//! What the tests with Node sites share: Node itself, its processes, a browser, a
//! page on axum's side, and a view of the table.

use std::time::Duration;

mod browser;
mod connection;
mod host;
mod http;
mod npm;
pub(crate) mod page;
mod role;
pub(crate) mod scenarios;
mod site;
mod table;

pub(crate) use browser::Browser;
pub(crate) use host::{Generation, Host};
pub(crate) use http::{Reply, Server};
pub(crate) use site::Site;
pub(crate) use table::{Columns, Table};

/// The limit of every wait. It is far longer than any step of a test takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The seconds that may pass on a busy machine between two looks at the clock. They
/// are far fewer than the lifetimes in the tests.
pub(crate) const SLACK: f64 = 100.0;
