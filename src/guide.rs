//! Guides, with code that is compiled and run.
//!
//! **Guide**: [connecting] · [signing in](signing_in) · [layers and errors](layers_and_errors) ·
//! [recipes] · [testing] · [databases]
//!
//! **Reference**: [options] · [guarantees] · [errors]
//!
//! **Moving**: [from tower-sessions](from_tower_sessions) ·
//! [from axum_session](from_axum_session) · [from Koa](from_koa)
//!
//! **Operations**: [metrics] · [reliability] · [scaling] · [shutdown]

#[doc = include_str!("../docs/guide/connecting.md")]
pub mod connecting {}

#[doc = include_str!("../docs/guide/signing-in.md")]
pub mod signing_in {}

#[doc = include_str!("../docs/guide/layers-and-errors.md")]
pub mod layers_and_errors {}

#[doc = include_str!("../docs/guide/recipes.md")]
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
pub mod from_tower_sessions {}

#[doc = include_str!("../docs/moving/from-axum-session.md")]
pub mod from_axum_session {}

#[doc = include_str!("../docs/moving/from-koa.md")]
pub mod from_koa {}

#[doc = include_str!("../docs/operations/metrics.md")]
pub mod metrics {}

#[doc = include_str!("../docs/operations/reliability.md")]
pub mod reliability {}

#[doc = include_str!("../docs/operations/scaling.md")]
pub mod scaling {}

#[doc = include_str!("../docs/operations/shutdown.md")]
pub mod shutdown {}
