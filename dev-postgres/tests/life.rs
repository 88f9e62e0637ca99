//! A server ends with the process that started it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use dev_postgres::{Prefer, Server, Shutdown};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

async fn ask(url: &str, sql: &str) -> Result<String, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(&mut connection)
        .await
}

async fn run(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.expect("a connection");
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .expect("a statement");
}

/// Starts the program of this crate, which prints the URL of its server. Returns the server's folder.
fn program() -> (Child, PathBuf) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dev-postgres"))
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut url = String::new();
    let output = child.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut url).expect("a line");
    let folder = url
        .split("host=")
        .nth(1)
        .and_then(|rest| rest.split('&').next());
    (child, PathBuf::from(folder.expect("a folder in the URL")))
}

fn folder_of(server: &Server) -> PathBuf {
    let url = server.url();
    let folder = url
        .split("host=")
        .nth(1)
        .and_then(|rest| rest.split('&').next());
    PathBuf::from(folder.expect("a folder in the URL"))
}

fn postmaster(folder: &Path) -> String {
    let file = fs::read_to_string(folder.join("data/postmaster.pid")).expect("a running server");
    file.lines().next().expect("a process").to_owned()
}

fn signal(signal: &str, target: &str) {
    let status = Command::new("kill").args([signal, "--", target]).status();
    assert!(status.expect("kill runs").success());
}

fn vanish(folder: &Path, postmaster: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let process = Path::new("/proc").join(postmaster);
    while folder.exists() || process.exists() {
        assert!(Instant::now() < deadline, "{} is left", folder.display());
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_killed_process_leaves_no_server_and_no_folder() {
    let (mut child, folder) = program();
    let postmaster = postmaster(&folder);
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    vanish(&folder, &postmaster);
}

#[test]
fn ctrl_c_leaves_no_server_and_no_folder() {
    let (mut child, folder) = program();
    let postmaster = postmaster(&folder);
    signal("-INT", &format!("-{}", child.id()));
    child.wait().expect("it ends");
    vanish(&folder, &postmaster);
}

#[test]
fn a_dropped_server_leaves_no_folder() {
    let server = Server::start().expect("a server");
    let folder = folder_of(&server);
    let postmaster = postmaster(&folder);
    drop(server);
    vanish(&folder, &postmaster);
}

#[tokio::test]
async fn a_killed_server_starts_again_with_its_data() {
    let server = Server::start().expect("a server");
    for how in [Shutdown::Killed, Shutdown::Immediate, Shutdown::Fast] {
        run(
            &server.url(),
            "CREATE TABLE IF NOT EXISTS kept (n int); INSERT INTO kept VALUES (1); CHECKPOINT",
        )
        .await;
        server.stop(how).expect("it runs");
        assert!(ask(&server.url(), "SELECT ''").await.is_err(), "{how:?}");
        server.start_again().expect("it starts");
    }
    let rows = ask(&server.url(), "SELECT count(*)::text FROM kept").await;
    assert_eq!(rows.expect("a count"), "3");
}

#[tokio::test]
async fn settings_are_applied() {
    let server = Server::builder()
        .setting("work_mem", "5MB")
        .start()
        .expect("a server");
    let setting = ask(&server.url(), "SELECT current_setting('work_mem')").await;
    assert_eq!(setting.expect("a setting"), "5MB");
}

#[tokio::test]
async fn a_standby_has_what_its_primary_commits_and_can_take_its_place() {
    let primary = Server::start().expect("a server");
    primary.stop(Shutdown::Fast).expect("it runs");
    let standby = Server::builder()
        .standby_of(&primary)
        .start()
        .expect("a standby");
    primary.start_again().expect("it starts");
    run(&primary.url(), "CREATE TABLE kept (n int)").await;
    until_it_has(&standby, "kept").await;

    primary.stop(Shutdown::Fast).expect("it runs");
    run(&standby.url(), "SELECT pg_promote()").await;
    run(&standby.url(), "CREATE TABLE later (n int)").await;
    primary.follow(&standby).expect("its data is there");
    primary.start_again().expect("it starts");
    until_it_has(&primary, "later").await;
}

/// A standby that can't connect at first tries again a few seconds later.
async fn until_it_has(standby: &Server, table: &str) {
    let sql = format!("SELECT (to_regclass('{table}') IS NOT NULL)::text");
    let deadline = Instant::now() + Duration::from_secs(30);
    while ask(&standby.url(), &sql).await.expect("a response") == "false" {
        let log = || standby.log().expect("a log");
        assert!(Instant::now() < deadline, "{}", log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_disk_of_its_own_becomes_full() {
    let server = match Server::builder().disk(4).start() {
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
            eprintln!("skipped: {error}");
            return;
        }
        server => server.expect("a server"),
    };
    let tablespace = format!(
        "CREATE TABLESPACE small LOCATION '{}'",
        server.disk().display()
    );
    run(&server.url(), &tablespace).await;
    let fill = "CREATE TABLE filler TABLESPACE small AS \
                SELECT repeat('x', 1000) FROM generate_series(1, 10000)";
    let error = ask(&server.url(), fill).await.expect_err("it is full");
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    assert_eq!(code.as_deref(), Some("53100"), "{error}");
    let folder = server.disk().parent().expect("a folder").to_owned();
    drop(server);
    assert!(!folder.exists());
}

#[test]
fn the_error_for_an_invalid_setting_has_the_log() {
    let refused = Server::builder().setting("work_mem", "much").start();
    let error = refused.expect_err("no such amount").to_string();
    assert!(error.contains("work_mem"), "{error}");
}

#[tokio::test]
async fn a_test_database_is_dropped_with_its_value() {
    let one = dev_postgres::test_database().await.expect("a database");
    let two = dev_postgres::test_database().await.expect("a database");
    // The query can contain slashes, too, in the path of a socket.
    let place = one.url().split('?').next().expect("a URL");
    let name = place.rsplit('/').next();
    let sql = format!(
        "SELECT count(*)::text FROM pg_database WHERE datname = '{}'",
        name.expect("a name")
    );
    assert_eq!(ask(two.url(), &sql).await.expect("a count"), "1");
    drop(one);
    assert_eq!(ask(two.url(), &sql).await.expect("a count"), "0");
}

#[tokio::test]
async fn two_test_databases_do_not_see_each_other() {
    let one = dev_postgres::test_database().await.expect("a database");
    let two = dev_postgres::test_database().await.expect("a database");
    run(one.url(), "CREATE TABLE mine (n int)").await;
    let seen = ask(two.url(), "SELECT (to_regclass('mine') IS NULL)::text").await;
    assert_eq!(seen.expect("a response"), "true");
}

/// On a machine without Postgres, this is cargo's.
#[tokio::test]
async fn the_programs_of_the_machine_can_be_used() {
    let server = Server::builder()
        .prefer(Prefer::Machine)
        .start()
        .expect("a server");
    assert_eq!(
        ask(&server.url(), "SELECT 'yes'")
            .await
            .expect("a response"),
        "yes"
    );
}

#[test]
fn a_folder_with_another_version_is_refused() {
    let server = Server::start().expect("a server");
    let major = version_of(&server.url());
    drop(server);
    for (asked, is_there) in [(major, true), (major + 1, false)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dev-postgres"));
        command
            .args(["true"])
            .env("DEV_POSTGRES_VERSION", asked.to_string());
        if !is_there {
            command.env("DEV_POSTGRES_BIN", bundled());
        }
        let output = command.output().expect("the program runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), is_there, "{asked}: {errors}");
        assert!(
            is_there || errors.contains("DEV_POSTGRES_VERSION"),
            "{errors}"
        );
    }
}

fn version_of(url: &str) -> u32 {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let asked = ask(url, "SELECT current_setting('server_version_num')");
    let version = runtime.block_on(asked).expect("a version");
    version.parse::<u32>().expect("a number") / 10_000
}

/// The folder of the programs that the tests use.
fn bundled() -> PathBuf {
    let server = Server::start().expect("a server");
    let folder = folder_of(&server);
    let process = Path::new("/proc").join(postmaster(&folder)).join("exe");
    let program = fs::read_link(process).expect("a program");
    program.parent().expect("a folder").to_owned()
}

#[tokio::test]
async fn a_clock_of_its_own_is_moved_while_the_server_runs() {
    if let Err(error) = dev_postgres::libfaketime() {
        assert!(!is_ci(), "{error}");
        eprintln!("skipped: {error}");
        return;
    }
    let server = Server::builder().own_clock().start().expect("a server");
    let hours = "SELECT round(extract(epoch FROM now() - to_timestamp(0)) / 3600)::text";
    let mut connection = PgConnection::connect(&server.url()).await.expect("one");
    let mut times = Vec::new();
    for ahead in [0, 10 * 3600, -10 * 3600] {
        server.set_clock(ahead).expect("a folder");
        let hours: String = sqlx::query_scalar(hours)
            .fetch_one(&mut connection)
            .await
            .expect("a time");
        times.push(hours.parse::<i64>().expect("a number"));
    }
    assert_eq!([times[1] - times[0], times[2] - times[0]], [10, -10]);
}

fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}
