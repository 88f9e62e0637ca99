//! Guides, with code that is compiled and run.
//!
//! | page | topics |
//! |---|---|
//! | [connecting] | [TLS](connecting#tls), [existing pools](connecting#existing-pools-sqlx-seaorm-diesel) of sqlx, SeaORM and Diesel, [Neon, Supabase, RDS](connecting#managed-postgres-neon-supabase-amazon-rds), [poolers](connecting#connection-poolers), [grants](connecting#roles-and-grants), migrations, localhost, proxies |
//! | [signing in](signing_in) | login and logout, "remember me", [device lists](signing_in#the-sessions-of-a-user), limits, typed sessions, anonymous visitors, [subdomains](signing_in#subdomains) |
//! | [layers and errors](layers_and_errors) | [middleware order](layers_and_errors#middleware-order), [error pages](layers_and_errors#error-pages), [guards and `CurrentUser`](layers_and_errors#route-guards-and-a-currentuser-extractor), [JSON APIs and mobile clients](layers_and_errors#json-apis-single-page-apps-and-mobile-clients), [two areas](layers_and_errors#two-areas-on-one-store) |
//! | [recipes] | flash messages, [OAuth and OpenID Connect](recipes#oauth-openid-connect-and-other-one-time-values), [CSRF](recipes#csrf), [WebSockets, SSE and jobs](recipes#websockets-server-sent-events-and-jobs), locked accounts, audit log |
//! | [testing] | a test client with cookies, timeouts, stolen cookies, cross-site requests |
//! | [databases] | Supabase, foreign keys, your own columns, privileges, queries in SQL |
//! | [options], [guarantees], [errors] | reference: each setter, what holds for each call, each kind of error |
//! | [from tower-sessions](from_tower_sessions) | also for axum-login: change the store, take over the sessions, or move route by route |
//! | [from axum_session](from_axum_session), [from Koa](from_koa), [from Express](from_express) | corresponding options and calls |
//! | [metrics], [reliability], [scaling], [shutdown] | operations: alarms and the log, faults, sizing, graceful shutdown |

#[doc = include_str!("../docs/guide/connecting.md")]
#[doc(alias("TLS", "SeaORM", "Diesel", "grants"))]
#[doc(alias("Neon", "Supabase", "RDS", "PgBouncer"))]
pub mod connecting {}

#[doc = include_str!("../docs/guide/signing-in.md")]
#[doc(alias("subdomains", "remember"))]
pub mod signing_in {}

#[doc = include_str!("../docs/guide/layers-and-errors.md")]
#[doc(alias("middleware", "CurrentUser", "guards", "CORS", "htmx"))]
pub mod layers_and_errors {}

#[doc = include_str!("../docs/guide/recipes.md")]
#[doc(alias("WebSocket", "SSE", "OAuth", "OIDC", "CSRF", "flash"))]
pub mod recipes {}

// Its blocks are one program with tests, which `.ci/package` runs.
#[cfg_attr(not(doctest), doc = include_str!("../docs/guide/testing.md"))]
pub mod testing {}

#[doc = include_str!("../docs/guide/databases.md")]
pub mod databases {}

#[doc = include_str!("../docs/reference/options.md")]
pub mod options {}

#[doc = include_str!("../docs/reference/guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("../docs/reference/errors.md")]
pub mod errors {}

// The tests of the crate for tower-sessions have its blocks.
#[cfg_attr(not(doctest), doc = include_str!("../docs/moving/from-tower-sessions.md"))]
#[doc(alias("axum-login", "axum_login", "tower-sessions"))]
pub mod from_tower_sessions {}

#[doc = include_str!("../docs/moving/from-axum-session.md")]
pub mod from_axum_session {}

#[doc = include_str!("../docs/moving/from-koa.md")]
pub mod from_koa {}

#[doc = include_str!("../docs/moving/from-express.md")]
#[doc(alias("express-session", "connect-pg-simple", "connect-session-knex"))]
pub mod from_express {}

#[doc = include_str!("../docs/operations/metrics.md")]
pub mod metrics {}

#[doc = include_str!("../docs/operations/reliability.md")]
pub mod reliability {}

#[doc = include_str!("../docs/operations/scaling.md")]
pub mod scaling {}

#[doc = include_str!("../docs/operations/shutdown.md")]
#[doc(alias("graceful_shutdown"))]
pub mod shutdown {}
