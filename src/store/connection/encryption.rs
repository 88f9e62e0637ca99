//! A warning where sessions travel in the clear.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use sqlx::{
    ConnectOptions as _, Connection as _,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::net::lookup_host;

use crate::store::connection::connecting::socket;

/// Servers that are warned of already.
static KNOWN: Mutex<BTreeSet<(String, u16)>> = Mutex::new(BTreeSet::new());

/// Logs, once for each server, that connections with these options are not
/// encrypted. This machine's own network is nobody else's.
pub(in crate::store) async fn warn_where_there_is_none(options: &PgConnectOptions) {
    let server = (options.get_host().to_owned(), options.get_port());
    let is_known = || {
        let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&server)
    };
    if socket(options).is_some() || is_known() || is_loopback(options).await {
        return;
    }
    // An encrypted connection says nothing about the next one to the same server,
    // whose `sslmode` may be another.
    if is_encrypted(options).await != Some(false) {
        return;
    }
    let is_new = {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(server)
    };
    if is_new {
        tracing::warn!(
            server.address = options.get_host(),
            server.port = options.get_port(),
            "connections to Postgres are not encrypted: enable the feature `tls-rustls` and set \
             sslmode=verify-full"
        );
    }
}

async fn is_loopback(options: &PgConnectOptions) -> bool {
    let host = options.get_host().trim_matches(['[', ']']);
    if let Ok(address) = host.parse::<IpAddr>() {
        return address.is_loopback();
    }
    match lookup_host((host, options.get_port())).await {
        Ok(mut addresses) => addresses.all(|address| address.ip().is_loopback()),
        Err(_) => false,
    }
}

/// With `prefer` the server decides, and sqlx keeps to itself what it got: a
/// connection that insists is refused where the others are in the clear.
/// `None` if that can't be found out.
async fn is_encrypted(options: &PgConnectOptions) -> Option<bool> {
    match options.get_ssl_mode() {
        PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => Some(true),
        // sqlx takes `allow` for `disable`.
        PgSslMode::Disable | PgSslMode::Allow => Some(false),
        PgSslMode::Prefer => {
            let insisting = options.clone().ssl_mode(PgSslMode::Require);
            match insisting.connect().await {
                Ok(connection) => {
                    // It has served its purpose, whatever becomes of it.
                    drop(connection.close().await);
                    Some(true)
                }
                Err(sqlx::Error::Tls(_)) => Some(false),
                Err(_) => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_encrypted_connection_does_not_hide_one_in_the_clear_to_the_same_server() {
        // An address of documentation; these modes need no connection.
        let options = PgConnectOptions::new_without_pgpass()
            .host("198.51.100.20")
            .port(5432);
        let is_known = || {
            let known = KNOWN.lock().expect("no panic");
            known.contains(&("198.51.100.20".to_owned(), 5432))
        };
        warn_where_there_is_none(&options.clone().ssl_mode(PgSslMode::Require)).await;
        assert!(!is_known());
        warn_where_there_is_none(&options.ssl_mode(PgSslMode::Disable)).await;
        assert!(is_known());
    }
}
