//! Warns if the connections to Postgres are not encrypted.
//!
//! With `sslmode=prefer` the server decides, and sqlx doesn't expose the result. So this opens
//! a connection that requires TLS. If that attempt proves nothing, because the server doesn't
//! respond, a task repeats it later. It only warns: nothing else depends on the result.
//!
//! Dropped futures: a check that is dropped leaves no entry, so the next call repeats it. The
//! task ends with its runtime, and `Drop` removes its entry.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Connection as _,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::{
    net::lookup_host,
    time::{sleep, timeout},
};

use crate::store::connection::connecting::{HAS_TLS, LACKS_TLS, in_full, socket};

/// The time limit for one check. The caller waits for the first one.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pauses before each further check.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(10 * 60),
    Duration::from_secs(60 * 60),
];

type Server = (String, u16);

/// The state of a server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    /// A task will check it again.
    IsLookedAt,
    IsWarnedOf,
}

static KNOWN: Mutex<BTreeMap<Server, Known>> = Mutex::new(BTreeMap::new());

fn known() -> MutexGuard<'static, BTreeMap<Server, Known>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The result of a check of connections with certain options.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Found {
    /// They are encrypted, or stay on this machine.
    Safe,
    /// They are not encrypted. `has_tls` is whether this program could encrypt them.
    Clear { has_tls: bool },
    /// It is still unknown.
    Nothing,
}

/// Logs, once for each server, that connections with these options are not
/// encrypted. Connections that stay on this machine need no encryption.
///
/// Returns within two seconds. If the result is unknown by then, a task continues.
pub(in crate::store) async fn warn_where_there_is_none(options: &PgConnectOptions) {
    warn_or_look_again(options, &PAUSES).await;
}

async fn warn_or_look_again(options: &PgConnectOptions, pauses: &'static [Duration]) {
    let server = server_of(options);
    if socket(options).is_some() || known().contains_key(&server) {
        return;
    }
    if !has_looked(options).await {
        look_again(options.clone(), pauses);
    }
}

fn server_of(options: &PgConnectOptions) -> Server {
    (options.get_host().to_owned(), options.get_port())
}

/// Checks once, and warns. Returns `false` if a later check is needed.
async fn has_looked(options: &PgConnectOptions) -> bool {
    let found = timeout(PATIENCE, look(options)).await;
    match found.unwrap_or(Found::Nothing) {
        // This is not stored, because the next connection to the same server may have
        // another `sslmode`.
        Found::Safe => true,
        Found::Clear { has_tls } => {
            warn(options, has_tls);
            true
        }
        Found::Nothing => false,
    }
}

fn warn(options: &PgConnectOptions, has_tls: bool) {
    let before = known().insert(server_of(options), Known::IsWarnedOf);
    if before == Some(Known::IsWarnedOf) {
        return;
    }
    let (address, port) = (options.get_host(), options.get_port());
    match has_tls {
        true => tracing::warn!(
            server.address = address,
            server.port = port,
            "connections to Postgres are not encrypted: turn on `ssl` at the server and set \
             sslmode=verify-full"
        ),
        false => tracing::warn!(
            server.address = address,
            server.port = port,
            "connections to Postgres are not encrypted: enable the feature `tls-rustls` and set \
             sslmode=verify-full"
        ),
    }
}

/// Starts a task that checks after each pause until the result is known. The task ends with
/// its runtime, and then another one may be started.
fn look_again(options: PgConnectOptions, pauses: &'static [Duration]) {
    let looking = Looking(server_of(&options));
    known()
        .entry(looking.0.clone())
        .or_insert(Known::IsLookedAt);
    tokio::spawn(async move {
        let _looking = looking;
        for pause in pauses {
            sleep(*pause).await;
            if has_looked(&options).await {
                return;
            }
        }
    });
}

/// The server of a task that checks again.
struct Looking(Server);

impl Drop for Looking {
    fn drop(&mut self) {
        let mut known = known();
        if known.get(&self.0) == Some(&Known::IsLookedAt) {
            known.remove(&self.0);
        }
    }
}

async fn look(options: &PgConnectOptions) -> Found {
    if is_loopback(options).await {
        return Found::Safe;
    }
    look_at_tls(options).await
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

/// With `prefer`, a connection that requires TLS is refused if the others are not encrypted.
async fn look_at_tls(options: &PgConnectOptions) -> Found {
    match options.get_ssl_mode() {
        PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => Found::Safe,
        // sqlx treats `allow` as `disable`.
        PgSslMode::Disable | PgSslMode::Allow => Found::Clear { has_tls: HAS_TLS },
        PgSslMode::Prefer => {
            let insisting = options.clone().ssl_mode(PgSslMode::Require);
            match insisting.connect().await {
                Ok(connection) => {
                    // An error here does not change the result.
                    drop(connection.close().await);
                    Found::Safe
                }
                Err(sqlx::Error::Tls(error)) => Found::Clear {
                    has_tls: !in_full(&*error).contains(LACKS_TLS),
                },
                // The server sent an error after the handshake, for example because it has
                // too many connections.
                Err(sqlx::Error::Database(_)) => Found::Safe,
                Err(_) => Found::Nothing,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread,
    };

    use super::*;

    fn is_warned_of(options: &PgConnectOptions) -> bool {
        known().get(&server_of(options)) == Some(&Known::IsWarnedOf)
    }

    #[tokio::test]
    async fn an_encrypted_connection_does_not_hide_one_in_the_clear_to_the_same_server() {
        // An address of documentation; these modes need no connection.
        let options = PgConnectOptions::new_without_pgpass()
            .host("198.51.100.20")
            .port(5432);
        warn_where_there_is_none(&options.clone().ssl_mode(PgSslMode::Require)).await;
        assert!(!is_warned_of(&options));
        let options = options.ssl_mode(PgSslMode::Disable);
        warn_where_there_is_none(&options).await;
        assert!(is_warned_of(&options));
    }

    /// A server that offers no TLS.
    fn listen(listener: TcpListener) {
        thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, mut request) = (client.expect("a client"), [0; 8]);
                // sqlx without TLS hangs up.
                if client.read_exact(&mut request).is_ok() {
                    client.write_all(b"N").expect("it waits");
                }
            }
        });
    }

    #[tokio::test]
    async fn a_look_that_proves_nothing_is_repeated_later() {
        const PAUSES: [Duration; 10] = [Duration::from_millis(100); 10];
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        drop(listener);
        // This machine, but no address that is known as its own.
        let options = PgConnectOptions::new_without_pgpass()
            .host("0.0.0.0")
            .port(address.port())
            .ssl_mode(PgSslMode::Prefer);
        warn_or_look_again(&options, &PAUSES).await;
        assert!(!is_warned_of(&options));
        listen(TcpListener::bind(address).expect("the same port"));
        timeout(Duration::from_secs(30), async {
            while !is_warned_of(&options) {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("a warning");
    }
}
