//! tower-sessions and axum-login on a table of axum-pg-session, on a real Postgres.
//!
//! The tests of `both` run with tower-sessions 0.14 and with 0.15, in one build.

mod axum_login;
#[expect(dead_code, reason = "the tests of axum-pg-session use the rest")]
#[path = "../../../tests/postgres/support/proxy.rs"]
mod proxy;
mod support;

/// With tower-sessions 0.14.
#[path = "."]
mod v014 {
    use tower_sessions_014 as tower_sessions;

    #[path = "both/mod.rs"]
    mod both;
}

/// With tower-sessions 0.15.
#[expect(clippy::duplicate_mod, reason = "the same tests with another version")]
#[path = "."]
mod v015 {
    use tower_sessions_015 as tower_sessions;

    #[path = "both/mod.rs"]
    mod both;
}
