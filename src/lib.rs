#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

/// The blocks of the guide are tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/recipes.md")]
struct Recipes;

mod changes;
mod config;
mod cookie;
mod counters;
mod document;
mod error;
mod events;
mod expiry;
mod extract;
mod failure;
mod format;
mod future;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod hooks;
mod id;
mod key;
mod koa;
mod layer;
mod lazy;
mod limits;
mod login;
mod presented;
mod realm;
mod reaper;
mod response_body;
mod service;
mod session;
mod shape;
mod signing;
mod site_data;
mod state;
mod store;
mod stored;
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;
mod typed;

#[doc(no_inline)]
pub use ::{http, sqlx, time};
pub use ::cookie::SameSite;

pub use crate::{
    cookie::{CookieLifetime, CookiePriority},
    counters::Counters,
    error::{Error, ErrorKind},
    expiry::Expiry,
    extract::SessionRejection,
    failure::FailurePolicy,
    future::ResponseFuture,
    hooks::Validity,
    id::SessionId,
    key::{Key, SessionKey},
    koa::{KeygripDigest, Koa},
    layer::PgSessionLayer,
    lazy::LazySession,
    login::{AtLimit, Device, Login},
    reaper::{Ending, Reaped, Reaper, ReaperHandle},
    response_body::ResponseBody,
    service::PgSessionService,
    session::Session,
    signing::{SigningKeys, Unsigned},
    site_data::SiteData,
    store::{
        ListPosition, ListSessions, MIGRATOR, PgSessionStore, TableReport, UserSession,
        UserSessions,
    },
    stored::StoredSession,
    transport::{HeaderTransport, Transport},
    typed::TypedSession,
};
