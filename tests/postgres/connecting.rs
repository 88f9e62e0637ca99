//! Connecting to a server: by a URL, by parts, by libpq's variables, and the errors if it fails.

use std::{
    env, fs,
    net::UdpSocket,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use axum_pg_session::{Error, ErrorKind, PgSessionStore};
use dev_postgres::{Lending, Pooler, Server, Shutdown};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::OnceCell;

use crate::support::{Log, child::passes, execute, page::until, site::pool, skip::or_skip};

/// The store waits as long for a server that may come back.
const WHILE_IT_MAY_HEAL: Duration = Duration::from_secs(5);
/// Who has a password, one that needs every escape, and who may not everywhere.
const ROLES: [&str; 4] = [
    "CREATE ROLE alice LOGIN PASSWORD 'p#?/@:%+ &ä'",
    "CREATE ROLE barred LOGIN",
    "CREATE DATABASE closed",
    "REVOKE CONNECT ON DATABASE closed FROM PUBLIC",
];
const ENCODED: &str = "p%23%3F%2F%40%3A%25%2B%20%26%C3%A4";

/// A server that asks alice for a password over TCP, and takes mallory in from
/// nowhere. The tests of this file share one.
async fn server() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER.get_or_init(server_of_its_own).await
}

async fn server_of_its_own() -> Server {
    let access = "local all all trust\n\
                  host all mallory all reject\n\
                  host all alice all scram-sha-256\n\
                  host all postgres,barred 127.0.0.1/8 trust\n\
                  host all postgres ::1/128 trust\n";
    let server = Server::builder()
        .tcp("127.0.0.1,::1")
        .file("pg_hba.conf", access)
        .start()
        .expect("a server");
    let pool = pool(&server.url(), 1).await;
    for statement in ROLES {
        execute(&pool, statement).await;
    }
    server
}

fn url(server: &Server, login: &str, rest: &str) -> String {
    let port = server.port().expect("it listens on TCP");
    format!("postgres://{login}@127.0.0.1:{port}/{rest}")
}

/// The error of a URL, which must come long before a server is given up.
async fn refusal(url: &str) -> Error {
    let began = Instant::now();
    let outcome = PgSessionStore::connect(url).await;
    let error = outcome.map(drop).expect_err(url);
    let took = began.elapsed();
    assert!(took < WHILE_IT_MAY_HEAL / 2, "{took:?}: {error:?}");
    error
}

/// As the application has it that starts before its database.
async fn refusal_of_a_pool(url: &str) -> Error {
    let pool = PgPool::connect_lazy(url).expect("a URL");
    let began = Instant::now();
    let outcome = PgSessionStore::new(pool).check().await;
    let error = outcome.map(drop).expect_err(url);
    let took = began.elapsed();
    assert!(took < WHILE_IT_MAY_HEAL / 2, "{took:?}: {error:?}");
    error
}

fn is_set_up_and_says(error: &Error, words: &str) {
    assert_eq!(error.kind(), ErrorKind::Setup, "{error:?}");
    assert_eq!(error.retry_after(), None);
    assert!(error.to_string().contains(words), "{error:?}");
}

#[tokio::test]
async fn a_wrong_password_is_an_error_at_once_with_what_to_do() {
    let server = server().await;
    let url = url(server, "alice:wrong", "postgres");
    is_set_up_and_says(&refusal(&url).await, "check the user and the password");
    is_set_up_and_says(&refusal_of_a_pool(&url).await, "check the user and");
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_an_error_at_once() {
    let server = server().await;
    let url = url(server, "postgres", "nowhere");
    is_set_up_and_says(&refusal(&url).await, "the database does not exist");
    is_set_up_and_says(
        &refusal_of_a_pool(&url).await,
        "the database does not exist",
    );
}

#[tokio::test]
async fn a_role_that_may_not_connect_is_an_error_at_once() {
    let server = server().await;
    let closed = url(server, "barred", "closed");
    is_set_up_and_says(&refusal(&closed).await, "grant CONNECT");
    let unknown = url(server, "mallory", "postgres");
    is_set_up_and_says(&refusal(&unknown).await, "pg_hba.conf");
}

#[tokio::test]
async fn a_startup_parameter_that_the_server_refuses_is_an_error_at_once() {
    let server = server().await;
    for parameter in [
        "options[no_such_thing]=1",
        "options[work_mem]=huge",
        "options=--no-such-option",
    ] {
        let url = url(server, "postgres", &format!("postgres?{parameter}"));
        is_set_up_and_says(&refusal(&url).await, "startup parameter");
    }
}

#[tokio::test]
async fn a_startup_parameter_that_the_pooler_refuses_is_an_error_at_once() {
    let server = Server::start().expect("a server");
    let pooler = Pooler::before(&server, Lending::Session, 2);
    let Some(pooler) = or_skip(pooler) else {
        return;
    };
    let url = format!("{}&options[geqo]=off", pooler.url_of("postgres"));
    is_set_up_and_says(&refusal(&url).await, "the pooler refused a startup");
    is_set_up_and_says(&refusal_of_a_pool(&url).await, "extra_float_digits(None)");
}

/// PgBouncer has an error of its own for it, and the same one for what may heal.
#[tokio::test]
async fn a_wrong_password_at_the_pooler_is_an_error_at_once() {
    let server = Server::start().expect("a server");
    let users = [("alice", "right")];
    let pooler = Pooler::with_passwords(&server, Lending::Session, 2, &users);
    let Some(pooler) = or_skip(pooler) else {
        return;
    };
    let url = |login: &str| pooler.url_of("postgres").replace("user=postgres", login);
    connects(&url("user=alice&password=right")).await;
    for login in ["user=alice&password=wrong", "user=bob&password=right"] {
        let words = "check the user and the password";
        is_set_up_and_says(&refusal(&url(login)).await, words);
        is_set_up_and_says(&refusal_of_a_pool(&url(login)).await, words);
    }
}

/// It says so in the way of every server that wants TLS, with TLS or without.
#[tokio::test]
async fn a_server_that_requires_tls_is_reported_at_once() {
    let server = server().await;
    let url = url(server, "nobody", "postgres");
    is_set_up_and_says(&refusal(&url).await, "refused a connection without TLS");
}

#[tokio::test]
async fn several_servers_that_all_refuse_are_an_error_at_once_that_names_each() {
    let server = server().await;
    let port = server.port().expect("it listens on TCP");
    let url = format!("postgres://alice:wrong@127.0.0.1:{port},[::1]:{port}/postgres");
    let error = refusal(&url).await;
    assert_eq!(error.kind(), ErrorKind::Setup);
    let source = std::error::Error::source(&error).expect("what each server said");
    let source = source.to_string();
    for host in ["127.0.0.1", "::1"] {
        let expected = format!("{host}:{port}: the server refused the password");
        assert!(source.contains(&expected), "{source}");
    }
    assert!(
        source.contains("password authentication failed"),
        "{source}"
    );
}

/// One that is away may come back; the password does not.
#[tokio::test]
async fn several_servers_without_one_that_takes_writes_are_an_error_that_names_each() {
    let server = server_of_its_own().await;
    let port = server.port().expect("it listens on TCP");
    for (login, kind) in [
        ("alice:wrong", ErrorKind::Setup),
        ("postgres", ErrorKind::Unavailable),
    ] {
        if kind == ErrorKind::Unavailable {
            server.stop(Shutdown::Fast).expect("it runs");
        }
        let url = format!("postgres://{login}@127.0.0.1:{port},127.0.0.1:1/postgres");
        let outcome = PgSessionStore::connect(&url).await;
        let error = outcome.map(drop).expect_err("no server");
        assert_eq!(error.kind(), kind, "{error:?}");
        let source = std::error::Error::source(&error).expect("what each server said");
        let source = source.to_string();
        for place in [format!("127.0.0.1:{port}: "), "127.0.0.1:1: ".into()] {
            assert!(source.contains(&place), "{source}");
        }
        assert!(source.contains("refused"), "{source}");
    }
}

/// A pool reports only a timeout.
#[tokio::test]
async fn a_server_that_does_not_listen_is_an_error_with_that_of_the_system() {
    let outcome = PgSessionStore::connect("postgres://127.0.0.1:1/none").await;
    let error = outcome.map(drop).expect_err("no server listens");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let source = std::error::Error::source(&error).expect("a cause");
    assert!(source.to_string().contains("refused"), "{source}");
}

// Ways that are open.

async fn connects(url: &str) {
    let store = PgSessionStore::connect(url).await.expect(url);
    store.migrate().await.expect("a table");
}

#[tokio::test]
async fn an_address_of_ipv6_connects() {
    let server = server().await;
    let port = server.port().expect("it listens on TCP");
    connects(&format!("postgres://postgres@[::1]:{port}/postgres")).await;
    let several = format!("postgres://postgres@127.0.0.1:1,[::1]:{port}/postgres");
    connects(&several).await;
    let options = format!("postgres://postgres@[::1]:{port}/postgres");
    let options = options.parse().expect("a URL");
    let store = PgSessionStore::connect_with(options).await;
    store.expect("a connection by parts");
}

#[tokio::test]
async fn a_password_with_every_escape_connects() {
    let server = server().await;
    let url = url(server, &format!("alice:{ENCODED}"), "postgres");
    let store = PgSessionStore::connect(&url).await;
    store.expect("the password is right");
}

/// A server has no TLS on a socket, and libpq requests none.
#[tokio::test]
async fn a_socket_connects_whatever_sslmode_says() {
    let server = Server::start().expect("a server");
    connects(&format!("{}&sslmode=require", server.url())).await;
}

const BY_ENVIRONMENT: &str = "CONNECTS_BY_ITS_ENVIRONMENT";

/// What the next tests run in a process of its own.
#[tokio::test]
async fn a_child_connects_by_its_environment() {
    if let Ok(url) = env::var(BY_ENVIRONMENT) {
        let store = PgSessionStore::connect(&url).await.expect("a connection");
        let error = store.check().await.expect_err("there is no table yet");
        assert_eq!(error.kind(), ErrorKind::Setup, "{error:?}");
    }
}

fn child(url: &str, variables: &[(&str, &str)]) {
    let variables = variables.iter().copied().chain([(BY_ENVIRONMENT, url)]);
    passes("connecting::a_child_connects_by_its_environment", variables);
}

#[tokio::test]
async fn the_variables_of_libpq_connect() {
    let server = server().await;
    let port = server.port().expect("it listens on TCP").to_string();
    let variables = [
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", &port),
        ("PGUSER", "alice"),
        ("PGPASSWORD", "p#?/@:%+ &ä"),
        ("PGDATABASE", "postgres"),
    ];
    child("postgres://", &variables);
    // With a part in the URL.
    child("postgres://alice@/postgres", &variables[..4]);
}

#[tokio::test]
async fn a_file_of_passwords_connects() {
    let server = server().await;
    let port = server.port().expect("it listens on TCP");
    let file = env::temp_dir().join(format!("passwords-{port}"));
    let lines =
        format!("127.0.0.1:{port}:postgres:alice:p#?/@\\:%+ &ä\n\\:\\:1:*:*:alice:p#?/@\\:%+ &ä\n");
    fs::write(&file, lines).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("ours");
    let variables = [("PGPASSFILE", file.to_str().expect("text"))];
    child(&url(server, "alice", "postgres"), &variables);
    child(
        &format!("postgres://alice@[::1]:{port}/postgres"),
        &variables,
    );
    fs::remove_file(file).expect("ours");
}

// Connections in the clear.

/// An address of this machine that others reach, if it has one.
fn address() -> Result<String, std::io::Error> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // Nothing is sent; the address is one of documentation.
    socket.connect("198.51.100.1:9")?;
    Ok(socket.local_addr()?.ip().to_string())
}

const WARNING: &str = "connections to Postgres are not encrypted";

#[tokio::test]
async fn a_connection_over_a_network_in_the_clear_is_logged_once() {
    let Some(address) = or_skip(address()) else {
        return;
    };
    let access = "local all all trust\nhost all all all trust\n";
    let server = Server::builder().tcp("*").file("pg_hba.conf", access);
    let server = server.start().expect("a server");
    let port = server.port().expect("it listens on TCP");
    let log = Log::keep();
    for host in ["127.0.0.1", "localhost", "[::1]"] {
        connects(&format!("postgres://postgres@{host}:{port}/postgres")).await;
    }
    connects(&server.url()).await;
    assert!(!log.text().contains(WARNING), "{}", log.text());
    for mode in ["prefer", "disable", "prefer"] {
        connects(&format!(
            "postgres://postgres@{address}:{port}/postgres?sslmode={mode}"
        ))
        .await;
    }
    let text = log.text();
    let warnings: Vec<_> = text.lines().filter(|line| line.contains(WARNING)).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].starts_with("WARN axum_pg_session"),
        "{warnings:?}"
    );
    assert!(warnings[0].contains(&address), "{warnings:?}");
}

// Other databases.

/// A Postgres that reports the version of another database.
async fn claiming(version: &str) -> Server {
    let server = Server::start().expect("a server");
    let claim = format!(
        "CREATE OR REPLACE FUNCTION pg_catalog.version() RETURNS text
            LANGUAGE sql STABLE AS $$ SELECT '{version}' $$"
    );
    execute(&pool(&server.url(), 1).await, &claim).await;
    server
}

#[tokio::test]
async fn a_database_that_only_speaks_the_protocol_is_refused_by_name() {
    for (version, name) in [
        (
            "CockroachDB CCL v24.1.0 (x86_64-pc-linux-gnu)",
            "CockroachDB",
        ),
        ("PostgreSQL 16", "Aurora DSQL"),
        ("PostgreSQL 14.1", "Cloud Spanner"),
    ] {
        let server = claiming(version).await;
        let store = PgSessionStore::connect(&server.url()).await;
        let store = store.expect("a connection");
        for outcome in [store.migrate().await, store.check().await.map(drop)] {
            is_set_up_and_says(&outcome.expect_err(version), name);
        }
    }
}

/// Another database may lack a function that is called before its version is read.
#[tokio::test]
async fn a_database_is_refused_by_name_if_it_lacks_a_function() {
    for (version, words) in [
        (
            "CockroachDB CCL v24.1.0 (x86_64-pc-linux-gnu)",
            "CockroachDB",
        ),
        (
            "PostgreSQL 16.4 on x86_64-pc-linux-gnu, compiled by gcc",
            "the database role lacks a privilege",
        ),
    ] {
        let server = claiming(version).await;
        let pool = pool(&server.url(), 1).await;
        for statement in [
            "CREATE ROLE web LOGIN",
            "REVOKE EXECUTE ON FUNCTION pg_postmaster_start_time() FROM PUBLIC",
        ] {
            execute(&pool, statement).await;
        }
        let url = server.url().replace("user=postgres", "user=web");
        assert_ne!(url, server.url());
        let store = PgSessionStore::connect(&url).await.expect("a connection");
        for outcome in [store.migrate().await, store.check().await.map(drop)] {
            is_set_up_and_says(&outcome.expect_err(version), words);
        }
    }
}

// PgBouncer as it is installed.

#[tokio::test]
async fn a_pooler_that_ignores_no_parameter_serves_a_url_and_refuses_a_pool_of_sqlx() {
    let server = Server::start().expect("a server");
    let pooler = Pooler::strict(&server, Lending::Session, 3);
    let Some(pooler) = or_skip(pooler) else {
        return;
    };
    let url = pooler.url_of("postgres");
    connects(&url).await;
    let words = "set `.extra_float_digits(None)`";
    is_set_up_and_says(&refusal_of_a_pool(&url).await, words);
    let options: PgConnectOptions = url.parse().expect("a URL");
    let options = options.extra_float_digits(None);
    let pool = PgPoolOptions::new().connect_lazy_with(options);
    let store = PgSessionStore::new(pool);
    store.check().await.expect("what the message says to do");
}

/// It has no TLS, so the server can't want it.
#[tokio::test]
async fn a_login_that_the_server_refuses_on_its_socket_is_no_matter_of_tls() {
    let access = "local all postgres trust\n";
    let server = Server::builder().file("pg_hba.conf", access);
    let server = server.start().expect("a server");
    let url = server.url().replace("user=postgres", "user=mallory");
    is_set_up_and_says(&refusal(&url).await, "the server refused the login");
}

/// A failover may lead to a network that the first connection did not use.
#[tokio::test]
async fn a_connection_in_the_clear_is_logged_of_a_server_that_is_followed_to() {
    let Some(address) = or_skip(address()) else {
        return;
    };
    let access = "local all all trust\nhost all all all trust\n";
    let start = || {
        let server = Server::builder().tcp("*").file("pg_hba.conf", access);
        server.start().expect("a server")
    };
    let (first, second) = (start(), start());
    connects(&second.url()).await;
    let direct = pool(&second.url(), 1).await;
    let standby = "ALTER DATABASE postgres SET default_transaction_read_only = on";
    execute(&direct, standby).await;
    let port = |server: &Server| server.port().expect("it listens on TCP");
    let url = format!(
        "postgres://postgres@127.0.0.1:{},{address}:{}/postgres",
        port(&first),
        port(&second)
    );
    let log = Log::keep();
    let store = PgSessionStore::connect(&url).await.expect(&url);
    store.migrate().await.expect("a table");
    assert!(!log.text().contains(WARNING), "{}", log.text());
    first.stop(Shutdown::Immediate).expect("it runs");
    let promotion = "ALTER DATABASE postgres SET default_transaction_read_only = off";
    execute(&direct, promotion).await;
    until(async || {
        // Not `check`, which looks at the connection itself.
        drop(store.user("alice").count().await);
        log.text().contains(WARNING)
    })
    .await;
    assert!(log.text().contains(&address), "{}", log.text());
}
