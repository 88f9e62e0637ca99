//! A request and its session: its tokens, when they are looked up, the extractors, and
//! the application's hooks. It doesn't know when the response is saved.

pub(crate) mod config;
pub(crate) mod extract;
pub(crate) mod hooks;
pub(crate) mod lazy;
pub(crate) mod transport;
