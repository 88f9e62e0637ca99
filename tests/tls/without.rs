//! Without a TLS library, as the crate is built by default.

use crate::support::{encrypting, is_refused};

const FEATURE: &str = "enable the feature `tls-rustls` of axum-pg-session";

#[tokio::test]
async fn tls_that_is_required_is_an_error_at_once_that_names_the_feature() {
    let server = encrypting();
    for mode in ["require", "verify-ca", "verify-full"] {
        let parameters = format!("sslmode={mode}&sslrootcert=$authority.crt");
        let url = server.url("postgres", "localhost", &parameters);
        is_refused(&url, FEATURE).await;
    }
    let several = server.url("postgres", "localhost:1,localhost", "sslmode=require");
    let outcome = axum_pg_session::PgSessionStore::connect(&several).await;
    let error = outcome.map(drop).expect_err("no TLS");
    assert_eq!(error.kind(), axum_pg_session::ErrorKind::Setup, "{error:?}");
    assert!(format!("{error:?}").contains(FEATURE), "{error:?}");
}

#[tokio::test]
async fn a_server_that_requires_tls_is_an_error_at_once_that_names_the_feature() {
    let server = encrypting();
    for parameters in ["", "sslmode=prefer", "sslmode=disable"] {
        let url = server.url("postgres", "localhost", parameters);
        is_refused(&url, FEATURE).await;
    }
}
