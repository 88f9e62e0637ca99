//! Explains why a connection could not be opened, if the reason is permanent, and what to do.
//!
//! Each sentence is for an error of kind `Setup`, so nothing is tried again and no client is
//! asked to retry. An error that is not known here may be temporary. Nothing here opens
//! connections, except [`why`], which makes one attempt to find the reason.

use std::{error::Error as StdError, fmt, io, path::Path, time::Duration};

use sqlx::{
    ConnectOptions as _,
    error::DatabaseError,
    postgres::{PgConnectOptions, PgDatabaseError, PgSeverity, PgSslMode},
};
use tokio::time::timeout;

use crate::Error;

/// The time limit of the attempt that finds out why the pool's attempts failed.
const PATIENCE: Duration = Duration::from_secs(1);

const PASSWORD: &str = "the server refused the password; check the user and the password";
const METHOD: &str = "the server asks for a login that sqlx does not support; use a password with \
                      scram-sha-256, or a client certificate";
const DATABASE: &str = "the database does not exist; create it, or correct its name";
const CONNECT: &str = "the role may not connect to the database, or may not set a startup \
                       parameter; grant CONNECT, or remove the parameter";
const CLOSED: &str = "the database takes no connections; see ALLOW_CONNECTIONS of ALTER DATABASE";
const PARAMETER: &str =
    "the server refused a startup parameter; correct `options` of the URL or of PgConnectOptions";
const PARAMETER_AT_POOLER: &str = "the pooler refused a startup parameter; set `.extra_float_digits(None)` and no `.options(..)` \
     in the pool's options, or add the parameter to PgBouncer's ignore_startup_parameters";

/// Whether a feature of this crate enables TLS. Without one, the application may still have
/// enabled it in sqlx.
pub(in crate::store) const HAS_TLS: bool = cfg!(any(
    feature = "tls-rustls-ring",
    feature = "tls-rustls-aws-lc-rs",
    feature = "tls-native-tls"
));
/// A part of sqlx's error message.
pub(in crate::store) const LACKS_TLS: &str = "without TLS support";
const NO_TLS: &str = "this program is built without TLS; enable the feature `tls-rustls` of \
                      axum-pg-session, or `tls-native-tls`";
/// An entry of pg_hba.conf can also be missing for other reasons, which the server doesn't
/// report.
const WANTS_TLS: &str = match HAS_TLS {
    true => {
        "the server refused a connection without TLS; set `sslmode=verify-full`, or correct its \
         pg_hba.conf if it is to accept one"
    }
    false => {
        "the server refused a connection without TLS; enable the feature `tls-rustls` of \
         axum-pg-session, or `tls-native-tls`, or correct its pg_hba.conf if it is to accept one"
    }
};
/// A server with messages in another language may mean that it requires TLS.
const LOGIN: &str = match HAS_TLS {
    true => {
        "the server refused the login; check the user, the server's pg_hba.conf, and whether the \
         server wants TLS or a client certificate"
    }
    false => {
        "the server refused the login; check the user and the server's pg_hba.conf; if the server \
         wants TLS or a client certificate, enable the feature `tls-rustls` of axum-pg-session"
    }
};
const OFFERS_NO_TLS: &str = "the server does not offer TLS; turn on `ssl` there, or set \
                             `sslmode=disable` if the network is your own";
const AUTHORITY: &str = "the server's certificate is from an unknown authority; name the \
                         authority's certificate in `sslrootcert`";
const HOST_NAME: &str = "the server's certificate is for another host name; connect by a name \
                         that the certificate has";
const VALIDITY: &str = "the server's certificate has expired or is not valid yet; renew it";
const HANDSHAKE: &str = "the TLS handshake failed; check sslmode, sslrootcert, sslcert and sslkey, \
                         and the server's certificate";
const FILES: &str = "a file of sslrootcert, sslcert or sslkey does not exist";
const FORBIDDEN: &str = "this process may not open the server's socket";
const FORBIDDEN_OVER_TCP: &str = "this process may not connect to the server over TCP, or may not read a file of sslrootcert, \
     sslcert or sslkey; check the firewall, the sandbox and the rights of the files";

/// Returns what to do about an error of connecting, if waiting does not help.
pub(in crate::store) fn fault(error: &sqlx::Error) -> Option<&'static str> {
    match error {
        sqlx::Error::Database(error) => of_the_server(&**error),
        sqlx::Error::Tls(error) => of_tls(&**error),
        sqlx::Error::Io(error) => of_io(error),
        sqlx::Error::Protocol(text) if text.contains("unsupported authentication method") => {
            Some(METHOD)
        }
        sqlx::Error::Protocol(text) if text.contains("unsupported SASL") => Some(METHOD),
        sqlx::Error::Configuration(error) => Some(error.downcast_ref::<OverTcp>()?.sentence),
        _ => None,
    }
}

fn of_the_server(error: &(dyn DatabaseError + 'static)) -> Option<&'static str> {
    let code = error.code().unwrap_or_default();
    of_refusal(&code, error.message(), is_fatal(error))
}

/// Whether the error ended the connection. With the codes that are checked here, only a refused
/// connection is `FATAL`. For a statement they mean something else.
fn is_fatal(error: &(dyn DatabaseError + 'static)) -> bool {
    error
        .try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

fn of_refusal(code: &str, text: &str, is_fatal: bool) -> Option<&'static str> {
    match code {
        // A socket has no TLS, so the server can't require it.
        "28000" if text.contains("[local]") => Some(LOGIN),
        // Postgres, and before 14.
        "28000" if text.contains("no encryption") || text.contains("SSL off") => Some(WANTS_TLS),
        // Neon's proxy, and Azure's.
        _ if text.contains("connection is insecure") => Some(WANTS_TLS),
        _ if text.contains("SSL connection is required") => Some(WANTS_TLS),
        // Supabase's pooler.
        "XX000" if text.contains("Tenant or user not found") => Some(LOGIN),
        "28P01" => Some(PASSWORD),
        "28000" => Some(LOGIN),
        "3D000" => Some(DATABASE),
        "42501" if is_fatal => Some(CONNECT),
        "55000" if is_fatal => Some(CLOSED),
        "42704" | "22023" | "42601" | "55P02" | "0A000" if is_fatal => Some(PARAMETER),
        // PgBouncer has one code for all refusals, including those that pass.
        "08P01" if text.contains("SSL required") => Some(WANTS_TLS),
        "08P01" if text.contains("unsupported startup parameter") => Some(PARAMETER_AT_POOLER),
        "08P01" if text.contains("no such database") => Some(DATABASE),
        "08P01" if text.contains("no such user") => Some(LOGIN),
        // "SASL" with SCRAM, "password" with other methods.
        "08P01" if text.contains("authentication failed") => Some(PASSWORD),
        _ => None,
    }
}

/// Explains sqlx's own errors, a file that has no certificate, and all errors of the system's
/// library about a handshake, including a lost connection.
fn of_tls(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    let text = in_full(error);
    if text.contains(LACKS_TLS) {
        return Some(NO_TLS);
    }
    if text.contains("does not support TLS") {
        return Some(OFFERS_NO_TLS);
    }
    match was_interrupted(error, &text) {
        true => None,
        false => Some(of_handshake(&text).unwrap_or(HANDSHAKE)),
    }
}

/// Explains errors of rustls, which have the kind `InvalidData`. A damaged stream also has it,
/// and may pass.
fn of_io(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::InvalidData => of_handshake(&in_full(error)),
        io::ErrorKind::PermissionDenied => Some(FORBIDDEN),
        _ => None,
    }
}

fn of_handshake(text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["not valid for", "hostname mismatch", "ip address mismatch"]) {
        return Some(HOST_NAME);
    }
    if has(&[
        "unknownissuer",
        "self-signed",
        "self signed",
        "issuer certificate",
    ]) {
        return Some(AUTHORITY);
    }
    if has(&[
        "certificate expired",
        "certificate has expired",
        "not yet valid",
    ]) {
        return Some(VALIDITY);
    }
    has(&["certificate", "fatal alert", "incompatible"]).then_some(HANDSHAKE)
}

fn was_interrupted(error: &(dyn StdError + 'static), text: &str) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<io::Error>() {
            return true;
        }
        cause = error.source();
    }
    text.contains("EOF") || text.contains("closed")
}

pub(in crate::store) fn in_full(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += ": ";
        text += &error.to_string();
        cause = error.source();
    }
    text
}

/// Explains an error of connecting with these options. Over TCP, only a file of the certificates
/// can be missing. A missing socket may exist soon.
pub(in crate::store) fn explained(error: sqlx::Error, options: &PgConnectOptions) -> sqlx::Error {
    match error {
        sqlx::Error::Io(error) if socket(options).is_none() => match error.kind() {
            io::ErrorKind::NotFound => OverTcp::error(FILES, error),
            io::ErrorKind::PermissionDenied => OverTcp::error(FORBIDDEN_OVER_TCP, error),
            _ => sqlx::Error::Io(error),
        },
        error => error,
    }
}

/// An error of the system over TCP, which would mean something else for a socket.
#[derive(Debug)]
struct OverTcp {
    sentence: &'static str,
    error: io::Error,
}

impl OverTcp {
    fn error(sentence: &'static str, error: io::Error) -> sqlx::Error {
        sqlx::Error::Configuration(Self { sentence, error }.into())
    }
}

impl fmt::Display for OverTcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.sentence, self.error)
    }
}

impl StdError for OverTcp {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.error)
    }
}

/// Finds the reason why a pool could not open its first connection. The pool tries until its
/// timeout, and then its error only says that. If the future is dropped, the attempt is closed.
pub(in crate::store) async fn why(error: sqlx::Error, options: &PgConnectOptions) -> Error {
    let error = match error {
        sqlx::Error::PoolTimedOut => match timeout(PATIENCE, options.connect()).await {
            Ok(Err(cause)) => cause,
            Ok(Ok(_)) | Err(_) => error,
        },
        error => error,
    };
    explained(error, options).into()
}

/// The folder of a socket, if the connection is not over TCP.
pub(in crate::store) fn socket(options: &PgConnectOptions) -> Option<&Path> {
    let host = Path::new(options.get_host());
    match options.get_socket() {
        Some(socket) => Some(socket),
        None => host.has_root().then_some(host),
    }
}

/// Options as libpq reads them, for the store's own pool.
pub(in crate::store) fn prepared(options: PgConnectOptions) -> PgConnectOptions {
    // Numbers are sent in binary, so the text format of floats doesn't matter. Some poolers
    // refuse the parameter.
    let options = options.extra_float_digits(None);
    // A URL has brackets around an IPv6 address. sqlx would look up the address with them as a
    // name, and compare it with the certificate.
    let bare = options.get_host().strip_prefix('[');
    let bare = bare.and_then(|host| host.strip_suffix(']'));
    let options = match bare.map(str::to_owned) {
        Some(host) => options.host(&host),
        None => options,
    };
    // A server never offers TLS on a socket.
    match socket(&options).is_some() {
        true => options.ssl_mode(PgSslMode::Disable),
        false => options,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_wants_tls_is_known_by_what_servers_and_poolers_say() {
        for (code, text) in [
            (
                "28000",
                "no pg_hba.conf entry for host \"::1\", user \"u\", database \"d\", no encryption",
            ),
            (
                "28000",
                "no pg_hba.conf entry for host \"::1\", user \"u\", database \"d\", SSL off",
            ),
            ("08P01", "SSL required"),
            (
                "XX000",
                "connection is insecure (try using `sslmode=require`)",
            ),
            (
                "28000",
                "SSL connection is required. Please specify SSL options and retry.",
            ),
        ] {
            assert_eq!(of_refusal(code, text, true), Some(WANTS_TLS), "{text}");
        }
    }

    #[test]
    fn a_refusal_on_a_socket_is_no_matter_of_tls() {
        for text in [
            "no pg_hba.conf entry for host \"[local]\", user \"u\", database \"d\", no encryption",
            "no pg_hba.conf entry for host \"[local]\", user \"u\", database \"d\", SSL off",
        ] {
            assert_eq!(of_refusal("28000", text, true), Some(LOGIN), "{text}");
        }
    }

    #[test]
    fn an_unknown_user_at_the_pooler_of_supabase_is_a_refused_login() {
        let text = "Tenant or user not found";
        assert_eq!(of_refusal("XX000", text, true), Some(LOGIN));
        assert_eq!(of_refusal("XX000", "cache lookup failed", true), None);
    }

    /// The server may say in another language that it wants TLS.
    #[test]
    fn a_refused_login_names_the_feature_if_the_program_has_no_tls() {
        let names_the_feature = LOGIN.contains("enable the feature `tls-rustls`");
        assert_eq!(names_the_feature, !HAS_TLS, "{LOGIN}");
    }

    #[test]
    fn a_missing_certificate_has_the_error_of_the_system_as_its_cause() {
        let options = PgConnectOptions::new_without_pgpass().host("db");
        let missing = sqlx::Error::Io(io::ErrorKind::NotFound.into());
        let error = Error::from(explained(missing, &options));
        assert_eq!(error.to_string(), FILES);
        assert_eq!(error.kind(), crate::ErrorKind::Setup);
        let mut cause = error.source();
        while cause.is_some_and(|cause| !cause.is::<io::Error>()) {
            cause = cause.and_then(StdError::source);
        }
        assert!(cause.is_some(), "{error:?}");
    }

    #[test]
    fn a_forbidden_connection_is_explained_by_how_it_is_made() {
        let options = PgConnectOptions::new_without_pgpass();
        for (host, words, other_words) in [
            ("db", "over TCP", "socket"),
            ("/run/postgresql", "socket", "file"),
        ] {
            let forbidden = sqlx::Error::Io(io::ErrorKind::PermissionDenied.into());
            let error = Error::from(explained(forbidden, &options.clone().host(host)));
            assert_eq!(error.kind(), crate::ErrorKind::Setup);
            let text = error.to_string();
            assert!(
                text.contains(words) && !text.contains(other_words),
                "{text}"
            );
        }
    }

    #[test]
    fn a_code_that_a_statement_can_have_is_a_refusal_only_if_it_is_fatal() {
        for code in ["42501", "42704", "22023", "42601", "55P02", "0A000"] {
            assert_eq!(of_refusal(code, "", false), None, "{code}");
            assert!(of_refusal(code, "", true).is_some(), "{code}");
        }
    }

    #[test]
    fn a_wrong_password_at_a_pooler_is_a_refusal_with_each_method() {
        for method in ["SASL", "password"] {
            let text = format!("{method} authentication failed");
            assert_eq!(of_refusal("08P01", &text, true), Some(PASSWORD), "{text}");
        }
    }

    #[test]
    fn what_may_heal_is_no_fault() {
        for code in ["57P03", "53300", "08006", "08P01", "57P01", "40001"] {
            assert_eq!(of_refusal(code, "server closed", true), None, "{code}");
        }
        for kind in [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::NotFound,
            io::ErrorKind::InvalidData,
        ] {
            assert_eq!(fault(&sqlx::Error::Io(kind.into())), None, "{kind}");
        }
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(fault(&sqlx::Error::Tls(reset.into())), None);
    }

    #[test]
    fn the_libraries_of_tls_say_the_same_in_other_words() {
        for (text, expected) in [
            ("invalid peer certificate: UnknownIssuer", AUTHORITY),
            (
                "error:0A000086: certificate verify failed: (self-signed certificate in chain)",
                AUTHORITY,
            ),
            (
                "certificate verify failed: (unable to get local issuer certificate)",
                AUTHORITY,
            ),
            (
                "invalid peer certificate: certificate not valid for name \"db\"",
                HOST_NAME,
            ),
            ("certificate verify failed: (Hostname mismatch)", HOST_NAME),
            (
                "certificate verify failed: (IP address mismatch)",
                HOST_NAME,
            ),
            (
                "invalid peer certificate: certificate expired: verification time …",
                VALIDITY,
            ),
            (
                "certificate verify failed: (certificate has expired)",
                VALIDITY,
            ),
            ("received fatal alert: UnknownCA", HANDSHAKE),
        ] {
            assert_eq!(of_handshake(text), Some(expected), "{text}");
        }
        assert_eq!(of_handshake("received corrupt message"), None);
    }

    #[test]
    fn brackets_are_no_part_of_an_address() {
        let options = PgConnectOptions::new_without_pgpass().host("[::1]");
        assert_eq!(prepared(options).get_host(), "::1");
    }
}
