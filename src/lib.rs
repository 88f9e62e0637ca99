//! Server-side sessions for axum and tower, kept in Postgres.
//!
//! [`PgSessionLayer`] finds the session of a request by its cookie. Handlers take it as the
//! extractor [`Session`]. The layer commits their changes before it sends the response. A
//! [`Reaper`] deletes expired rows.
//!
//! ```
//! use axum::{Router, routing::get};
//! use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Session};
//!
//! async fn visits(session: Session) -> Result<String, Error> {
//!     let n = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
//!     Ok(format!("visit {n}"))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let database = dev_postgres::test_database().await?;
//! # let url = database.url();
//! let store = PgSessionStore::connect(url).await?; // or PgSessionStore::new(pool)
//! store.migrate().await?;
//! let app: Router = Router::new()
//!     .route("/", get(visits))
//!     .layer(PgSessionLayer::new(store));
//! # use axum::{body::{Body, to_bytes}, http::Request};
//! # use tower::ServiceExt;
//! # let response = app.oneshot(Request::new(Body::empty())).await?;
//! # assert_eq!(to_bytes(response.into_body(), 100).await?, "visit 1");
//! # Ok(()) }
//! ```
//!
//! # What to use
//!
//! | to | use |
//! |---|---|
//! | connect, migrate and check the table | [`PgSessionStore`] |
//! | set cookie, timeouts and hooks | [`PgSessionLayer`] |
//! | read and change a session in a handler | [`Session`], or [`TypedSession`] for a struct |
//! | load only if needed, or ask without loading | [`LazySession`] |
//! | sign a user in and out | [`Session::login`], [`Login`], [`Session::logout`] |
//! | list and destroy a user's sessions | [`PgSessionStore::user`] |
//! | close WebSockets and streams when the session ends | [`Session::ended`], [`PgSessionStore::watch`] |
//! | delete expired rows | [`Reaper`] |
//! | render errors | [`Error`], [`ErrorKind`] |
//! | test handlers | [`testing`](guide::testing) |
//!
//! # Behavior
//!
//! ![A request: load, handler, commit, response][request]
//!
//! [request]: https://docs.rs/crate/axum-pg-session/latest/source/docs/pictures/request.svg
//!
//! - **Loading.** Extracting [`Session`] loads it, once for each request. A request that doesn't
//!   use its session runs no query. Concurrent loads share a statement.
//! - **Reading and changing.** [`Session::get`], [`Session::insert`] and [`Session::update`] run no
//!   query. They work on what was loaded, and record each change.
//! - **Saving.** When the handler has returned, the layer replays its changes on the newest row,
//!   commits them, and then sends the response. A response with status 5xx or 408, a panic and a
//!   canceled handler save nothing. [`Session::save`], [`Session::take`] and
//!   [`Session::update_now`] commit at once.
//! - **Merging.** Changes of different keys merge. If two requests [`insert`](Session::insert) the
//!   same key, the last commit wins. [`Session::update`] loses no change.
//! - **Cookies.** A visitor gets a row and a cookie only when something is stored. The cookie is
//!   `__Host-id`: `Secure`, `HttpOnly`, `SameSite=Lax`.
//! - **Expiry.** A session expires after one day without a request, and at the latest after 30 days.
//!   The database's clock decides.
//! - **Failures.** If the session can't be loaded or saved, the response is an error: see
//!   [errors](guide::errors).
//!
//! # Limits
//!
//! - A session is loaded and saved as one document of a few kilobytes. Keep large data elsewhere.
//! - Requests of one session compete for its row. A few dozen writes per second are fine. A counter
//!   of all visitors belongs in a table of its own.
//! - Sessions can't lock across requests.
//!
//! # Features
//!
//! | feature | |
//! |---|---|
//! | `tls-rustls`, `tls-rustls-aws-lc-rs`, `tls-native-tls` | TLS to Postgres, see [connecting](guide::connecting) |
//! | `metrics` | counters and histograms, see [metrics](guide::metrics) |
//! | `takeover` | keeps users of tower-sessions signed in, see [the guide](guide::from_tower_sessions) |
//! | `testing` | a test client with cookies, see [testing](guide::testing) |
//!
//! Each is off by default. The [`guide`] has the rest.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doc)]
pub mod guide;

mod cookie;
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
mod layer;
mod login;
mod random_fraction;
mod realm;
mod request;
mod request_tokens;
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
    format::{
        express::Express,
        koa::{KeygripDigest, Koa},
    },
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
