//! With any of the TLS libraries.

use std::{
    env,
    error::Error as _,
    io::{Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use axum_pg_session::{ErrorKind, PgSessionStore};
use dev_postgres::{Lending, Pooler, Server, Shutdown, Tls};
use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::{
    log::Log,
    support::{Encrypting, WHILE_IT_MAY_HEAL, encrypting, is_refused, named},
};

const PASSWORD: &str = "correct-horse";

async fn run(server: &Server, sql: &'static str) {
    let pool = PgPool::connect(&server.url()).await.expect("a socket");
    sqlx::raw_sql(sql).execute(&pool).await.expect(sql);
}

/// It serves sessions, and no connection of these stores is in the clear.
async fn serves(store: &PgSessionStore) {
    // The first test creates the table, and the others find it.
    store.migrate().await.expect("a table");
    assert_eq!(store.user("alice").count().await.expect("a count"), 0);
}

async fn connects(url: &str) -> PgSessionStore {
    let store = PgSessionStore::connect(url).await.expect(url);
    serves(&store).await;
    store
}

// What connects.

/// The README's lines, with the server's address.
#[tokio::test]
async fn a_url_that_says_nothing_of_tls_connects() {
    let server = encrypting();
    connects(&server.url("postgres", "localhost", "")).await;
}

#[tokio::test]
async fn every_mode_of_tls_connects() {
    let server = encrypting();
    for (host, parameters) in [
        ("127.0.0.1", "sslmode=require"),
        ("127.0.0.1", "sslmode=verify-ca&sslrootcert=$authority.crt"),
        (
            "localhost",
            "sslmode=verify-full&sslrootcert=$authority.crt",
        ),
        ("[::1]", "sslmode=verify-full&sslrootcert=$authority.crt"),
    ] {
        connects(&server.url("postgres", host, parameters)).await;
    }
}

const BY_ENVIRONMENT: &str = "CONNECTS_BY_ITS_ENVIRONMENT";

/// What the next test runs in a process of its own.
#[tokio::test]
async fn a_child_connects_by_its_environment() {
    let Ok(url) = env::var(BY_ENVIRONMENT) else {
        return;
    };
    match PgSessionStore::connect(&url).await {
        Ok(store) => {
            serves(&store).await;
            println!("it connects");
        }
        Err(error) => println!("{:?}: {error}", error.kind()),
    }
}

#[tokio::test]
async fn the_variables_of_libpq_choose_how_a_certificate_is_verified() {
    let server = encrypting();
    for (host, mode, authority, expected) in [
        ("127.0.0.1", "verify-ca", "authority.crt", "it connects"),
        ("localhost", "verify-full", "authority.crt", "it connects"),
        (
            "127.0.0.1",
            "verify-full",
            "authority.crt",
            "Setup: the server's certificate is for another host name",
        ),
        (
            "127.0.0.1",
            "verify-ca",
            "stranger.crt",
            "Setup: the server's certificate is from an unknown authority",
        ),
        (
            "localhost",
            "verify-full",
            "stranger.crt",
            "Setup: the server's certificate is from an unknown authority",
        ),
        (
            "localhost",
            "disable",
            "authority.crt",
            "Setup: the server refused a connection without TLS",
        ),
    ] {
        let output = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "with::a_child_connects_by_its_environment"])
            .arg("--nocapture")
            .env(BY_ENVIRONMENT, server.url("postgres", host, ""))
            .env("PGSSLMODE", mode)
            .env("PGSSLROOTCERT", server.file(authority))
            .output()
            .expect("this program can be run again");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(expected), "{host}, {mode}: {said}");
    }
}

const DATABASE: &str = "CONNECTS_TO_A_TEST_DATABASE";

/// What the next test runs in a process of its own.
#[tokio::test]
async fn a_child_connects_to_a_test_database() {
    if env::var(DATABASE).is_err() {
        return;
    }
    let database = dev_postgres::test_database().await.expect("a database");
    connects(database.url()).await;
    let pool = PgPool::connect(database.url()).await;
    pool.expect("a connection of the application");
    println!("it connects");
}

/// The files of a URL, and those of the environment.
#[tokio::test]
async fn a_test_database_is_reached_with_the_certificates_of_the_server() {
    let server = Encrypting::with(&named("server", &["localhost"]));
    run(&server.server, "CREATE ROLE alice LOGIN CREATEDB").await;
    let files = "sslmode=verify-full&sslrootcert=$authority.crt\
                 &sslcert=$alice.crt&sslkey=$alice.key";
    let folder = format!("{}/", server.file("").display()).replace("//", "/");
    let encoded = files.replace('$', &folder.replace('/', "%2F"));
    for (parameters, in_environment) in [(files, false), (&*encoded, false), ("", true)] {
        let mut child = Command::new(env::current_exe().expect("this program"));
        child
            .args(["--exact", "with::a_child_connects_to_a_test_database"])
            .arg("--nocapture")
            .env(DATABASE, "1")
            .env("DATABASE_URL", server.url("alice", "localhost", parameters))
            .env_remove("DEV_POSTGRES_POOLER");
        if in_environment {
            child
                .env("PGSSLMODE", "verify-full")
                .env("PGSSLROOTCERT", server.file("authority.crt"))
                .env("PGSSLCERT", server.file("alice.crt"))
                .env("PGSSLKEY", server.file("alice.key"));
        }
        let output = child.output().expect("this program can be run again");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("it connects"), "{parameters}: {said}");
    }
}

#[tokio::test]
async fn the_server_sees_connections_that_are_encrypted() {
    let server = encrypting();
    let url = server.url("postgres", "localhost", "application_name=encrypted");
    let _store = connects(&url).await;
    let pool = PgPool::connect(&server.server.url()).await;
    let pool = pool.expect("a socket");
    let encrypted: Vec<bool> = sqlx::query_scalar(
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
            WHERE application_name = 'encrypted'",
    )
    .fetch_all(&pool)
    .await
    .expect("what the server sees");
    assert!(!encrypted.is_empty());
    assert!(encrypted.iter().all(|encrypted| *encrypted));
}

/// Neon writes it into every URL. A warning explains its effect.
#[tokio::test]
async fn channel_binding_in_the_url_connects() {
    let server = encrypting();
    run(
        &server.server,
        "DO $$ BEGIN CREATE ROLE bob LOGIN PASSWORD 'correct-horse'; END $$;
         GRANT ALL ON SCHEMA public TO bob",
    )
    .await;
    let log = Log::keep();
    let login = format!("bob:{PASSWORD}");
    let binding = "sslmode=require&channel_binding=require";
    let url = server.url(&login, "localhost", binding);
    PgSessionStore::connect(&url).await.expect("a password");
    assert!(
        log.text()
            .contains("channel_binding=require of the URL has no effect")
    );
    let log = Log::keep();
    let binding = "sslmode=verify-full&sslrootcert=$authority.crt&channel_binding=require";
    let url = server.url(&login, "localhost", binding);
    PgSessionStore::connect(&url).await.expect("a password");
    assert!(!log.text().contains("channel_binding"), "{}", log.text());
}

#[tokio::test]
async fn a_certificate_of_the_client_connects() {
    let server = encrypting();
    run(&server.server, "CREATE ROLE alice LOGIN").await;
    let own = "sslmode=require&sslcert=$alice.crt&sslkey=$alice.key";
    let url = server.url("alice", "localhost", own);
    PgSessionStore::connect(&url)
        .await
        .expect("the certificate");
    let none = server.url("alice", "localhost", "sslmode=require");
    is_refused(&none, "client certificate").await;
    // The server says why in an alert and closes the connection, which can be
    // noticed first; so the kind is a matter of luck.
    let anothers = "sslmode=require&sslcert=$impostor.crt&sslkey=$impostor.key";
    let url = server.url("alice", "localhost", anothers);
    let outcome = PgSessionStore::connect(&url).await;
    outcome
        .map(drop)
        .expect_err("a certificate of another authority");
}

#[tokio::test]
async fn two_hosts_of_which_one_takes_writes_connect() {
    let server = encrypting();
    let hosts = format!("localhost:1,localhost:{},[::1]", server.port());
    let parameters =
        "sslmode=verify-full&sslrootcert=$authority.crt&target_session_attrs=read-write";
    connects(&server.url("postgres", &hosts, parameters)).await;
}

#[tokio::test]
async fn two_hosts_that_both_have_a_certificate_of_a_stranger_are_refused_at_once() {
    let server = encrypting();
    let hosts = format!("localhost:{},[::1]", server.port());
    let parameters = "sslmode=verify-full&sslrootcert=$stranger.crt";
    let url = server.url("postgres", &hosts, parameters);
    let began = Instant::now();
    let outcome = PgSessionStore::connect(&url).await;
    let error = outcome.map(drop).expect_err("an unknown authority");
    assert!(began.elapsed() < WHILE_IT_MAY_HEAL);
    assert_eq!(error.kind(), ErrorKind::Setup);
    let source = error.source().expect("what each server said").to_string();
    assert_eq!(source.matches("unknown authority").count(), 2, "{source}");
}

#[tokio::test]
async fn a_pool_of_the_application_connects() {
    let server = encrypting();
    let parameters = "sslmode=verify-full&sslrootcert=$authority.crt";
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .connect(&server.url("postgres", "localhost", parameters))
        .await
        .expect("a connection");
    serves(&PgSessionStore::new(pool)).await;
}

#[tokio::test]
async fn a_pooler_with_tls_on_both_sides_connects() {
    let server = Encrypting::with(&named("server", &["127.0.0.1"]));
    let certified = server.authority.certify(&named("pooler", &["localhost"]));
    let tls = Tls {
        certificate: &certified.certificate,
        key: &certified.key,
        authority: &server.authority.0.pem(),
    };
    for lending in [Lending::Session, Lending::Transaction] {
        let pooler = match Pooler::encrypted(&server.server, lending, &tls) {
            Ok(pooler) => pooler,
            Err(error) => {
                assert!(env::var_os("CI").is_none(), "{error}");
                eprintln!("skipped: {error}");
                return;
            }
        };
        let port = pooler.port();
        let authority = server.file("authority.crt");
        let url = |host: &str, mode: &str| {
            let authority = authority.display();
            format!(
                "postgres://postgres@{host}:{port}/postgres?sslmode={mode}&sslrootcert={authority}"
            )
        };
        let verified = url("localhost", "verify-full");
        let store = PgSessionStore::connect(&verified).await;
        let store = store.expect("a connection through the pooler");
        serves(&store.behind_transaction_pooler(lending == Lending::Transaction)).await;
        is_refused(&url("127.0.0.1", "verify-full"), "another host name").await;
        is_refused(&url("localhost", "disable"), "without TLS").await;
    }
}

// What does not.

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused_at_once() {
    let server = encrypting();
    for parameters in [
        "sslmode=verify-full",
        "sslmode=verify-full&sslrootcert=$stranger.crt",
        "sslmode=verify-ca&sslrootcert=$stranger.crt",
    ] {
        let url = server.url("postgres", "localhost", parameters);
        is_refused(&url, "name the authority's certificate in `sslrootcert`").await;
    }
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused_at_once() {
    let server = encrypting();
    let parameters = "sslmode=verify-full&sslrootcert=$authority.crt";
    let url = server.url("postgres", "127.0.0.1", parameters);
    is_refused(&url, "another host name").await;
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_refused_at_once() {
    let mut params = named("server", &["localhost"]);
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let server = Encrypting::with(&params);
    let parameters = "sslmode=verify-full&sslrootcert=$authority.crt";
    let url = server.url("postgres", "localhost", parameters);
    is_refused(&url, "expired").await;
}

#[tokio::test]
async fn a_file_that_is_not_there_or_holds_no_certificate_is_refused_at_once() {
    let server = encrypting();
    let none = "sslmode=verify-full&sslrootcert=$none.crt";
    let url = server.url("postgres", "localhost", none);
    is_refused(
        &url,
        "a file of sslrootcert, sslcert or sslkey does not exist",
    )
    .await;
    server.write("nonsense.crt", "no certificate");
    let nonsense = "sslmode=verify-full&sslrootcert=$nonsense.crt";
    let url = server.url("postgres", "localhost", nonsense);
    let outcome = PgSessionStore::connect(&url).await;
    let error = outcome.map(drop).expect_err("no certificate");
    assert_eq!(error.kind(), ErrorKind::Setup, "{error:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_at_once_where_it_is_required() {
    let access = "local all all trust\nhost all all all trust\n";
    let server = Server::builder()
        .tcp("127.0.0.1")
        .file("pg_hba.conf", access)
        .start()
        .expect("a server");
    let port = server.port().expect("it listens on TCP");
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode={mode}");
        is_refused(&url, "does not offer TLS").await;
    }
}

#[tokio::test]
async fn a_connection_in_the_clear_is_refused_at_once_where_the_server_encrypts() {
    let server = encrypting();
    let url = server.url("postgres", "localhost", "sslmode=disable");
    is_refused(&url, "set `sslmode=verify-full`").await;
}

/// Not a fault of the set-up, whatever the library calls it.
#[tokio::test]
async fn a_connection_that_is_lost_in_the_handshake_may_heal() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = stream;
            let mut request = [0; 8];
            if stream.read_exact(&mut request).is_ok() {
                // Yes to TLS, and then a process that dies.
                drop(stream.write_all(b"S"));
            }
        }
    });
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=require");
    let outcome = PgSessionStore::connect(&url).await;
    let error = outcome.map(drop).expect_err("no server responds");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
}

#[tokio::test]
async fn a_server_that_stops_is_unavailable_and_back_when_it_is() {
    let server = Encrypting::with(&named("server", &["localhost"]));
    let parameters = "sslmode=verify-full&sslrootcert=$authority.crt";
    let store = connects(&server.url("postgres", "localhost", parameters)).await;
    let store = store.timeout(Duration::from_millis(500));
    serves(&store).await;
    server.server.stop(Shutdown::Immediate).expect("it runs");
    let error = store.user("alice").count().await.expect_err("it is away");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    server.server.start_again().expect("it starts");
    let store = store.timeout(WHILE_IT_MAY_HEAL);
    store.user("alice").count().await.expect("it is back");
}

// What is logged.

/// An address of this machine that others reach, if it has one.
fn address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    // Nothing is sent; the address is one of documentation.
    if let Err(error) = socket.connect("198.51.100.1:9") {
        eprintln!("skipped: this machine has no network: {error}");
        return None;
    }
    Some(socket.local_addr().expect("bound").ip().to_string())
}

/// The feature is on, so it is not what to turn on.
#[tokio::test]
async fn the_warning_of_a_connection_in_the_clear_advises_what_is_missing() {
    let Some(address) = address() else {
        return;
    };
    let access = "local all all trust\nhost all all all trust\n";
    for mode in ["prefer", "disable"] {
        let server = Server::builder().tcp("*").file("pg_hba.conf", access);
        let server = server.start().expect("a server");
        let port = server.port().expect("it listens on TCP");
        let log = Log::keep();
        let url = format!("postgres://postgres@{address}:{port}/postgres?sslmode={mode}");
        connects(&url).await;
        let text = log.text();
        assert!(text.contains("not encrypted: turn on `ssl`"), "{text}");
        assert!(!text.contains("tls-rustls"), "{text}");
    }
}

#[tokio::test]
async fn an_encrypted_connection_over_a_network_is_not_warned_of() {
    let Some(address) = address() else {
        return;
    };
    let server = encrypting();
    let log = Log::keep();
    for mode in ["prefer", "require"] {
        connects(&server.url("postgres", &address, &format!("sslmode={mode}"))).await;
    }
    assert!(!log.text().contains("not encrypted"), "{}", log.text());
}
