#![doc = include_str!("../README.md")]

mod changes;
mod cookie;
mod document;
mod error;
mod expiry;
mod extract;
mod future;
mod id;
mod layer;
mod lazy;
mod reaper;
mod service;
mod session;
mod state;
mod store;

pub use ::cookie::SameSite;

pub use crate::{
    cookie::CookieLifetime,
    error::{Error, ErrorKind},
    expiry::Expiry,
    extract::SessionRejection,
    future::ResponseFuture,
    id::SessionId,
    layer::PgSessionLayer,
    lazy::LazySession,
    reaper::{Ending, Reaped, Reaper, ReaperHandle},
    service::{Exchange, PgSessionService},
    session::Session,
    store::{MIGRATOR, PgSessionStore, TableReport},
};
