//! What a request has of its session: what it presents, when it is loaded, and who gets it.

pub(crate) mod config;
pub(crate) mod extract;
pub(crate) mod hooks;
pub(crate) mod lazy;
pub(crate) mod transport;
