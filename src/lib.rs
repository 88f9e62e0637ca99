#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

/// The blocks of the guide are tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/recipes.md")]
struct Recipes;

mod cookie;
mod credentials;
mod document;
mod ending;
mod error;
mod event;
mod expiry;
mod format;
mod forwarding;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod id;
mod jitter;
mod layer;
mod login;
mod realm;
mod request;
mod row;
mod session;
mod state;
mod store;
mod takeover;
mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
mod timeouts;
mod touch;

/// For the crates of this workspace that keep the sessions of another session layer. It
/// can change with any version, so they depend on exactly theirs.
#[doc(hidden)]
pub use crate::store::adapter;

#[doc(no_inline)]
pub use ::{http, sqlx, time};
pub use ::cookie::SameSite;

pub use crate::{
    cookie::{
        CookieLifetime, CookiePriority,
        signing::{SigningKeys, UnsignedTokens},
    },
    document::key::{AsKey, Key},
    ending::Ending,
    error::{Error, ErrorKind},
    event::{SessionEvent, SessionEventKind},
    expiry::Expiry,
    format::koa::{KeygripDigest, Koa},
    id::SessionId,
    layer::{
        PgSessionLayer, future::ResponseFuture, response_body::ResponseBody,
        service::PgSessionService, site_data::ClearSiteData,
    },
    login::{Device, Login, SessionLimitPolicy},
    request::{
        extract::SessionRejection,
        hooks::Validity,
        lazy::LazySession,
        transport::{HeaderTransport, Transport},
    },
    session::{Session, failure_policy::FailurePolicy, typed::TypedSession},
    store::{
        ExternalSessions, ListPosition, ListSessions, MIGRATOR, PgSessionStore, SessionEnd,
        TableReport, UserSession, UserSessions,
        admin::{
            reaper::{ReapSummary, Reaper, ReaperHandle, StopReason},
            stored::StoredSession,
        },
    },
    takeover::Takeover,
    telemetry::counters::Counters,
};
