//! A site with sessions, its visitors, and a view of its table.

pub(crate) mod browser;
pub(crate) mod child;
pub(crate) mod express;
pub(crate) mod kit;
pub(crate) mod koa;
pub(crate) mod life;
pub(crate) mod log;
pub(crate) mod meters;
pub(crate) mod page;
pub(crate) mod parts;
pub(crate) mod proxy;
pub(crate) mod secrets;
pub(crate) mod site;
pub(crate) mod skip;
pub(crate) mod spans;
pub(crate) mod table;
pub(crate) mod timers;
pub(crate) mod zone;

pub(crate) use browser::{Browser, Reply};
pub(crate) use life::{Life, Role, execute, quoted, texts, visit};
pub(crate) use log::Log;
pub(crate) use meters::Meters;
pub(crate) use secrets::Secrets;
pub(crate) use site::{Site, THREE_COLUMNS, app, unreachable_store};
pub(crate) use table::Rows;
