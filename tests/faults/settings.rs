//! The server ends statements, transactions and connections by its settings,
//! or refuses to write.

use std::{
    env,
    io::{self, Write as _, stderr},
    time::Duration,
};

use dev_postgres::Server;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::{
    Condition, Crowd, Place, Site, TIMEOUT, Visitor, comes_true,
    crowd::{Habit, PATIENCE},
    place::{connect, execute},
};

/// The Postgres that cargo brings ends nothing that takes too long. Those that
/// are built as their project builds them have extensions too; `None` where
/// there is none.
///
/// # Panics
///
/// In the same place, where `CI` is set: there it is to be had.
pub(crate) async fn with_setting(setting: &str, value: &str) -> Option<Place> {
    let whole = Server::builder().extension("postgres_fdw");
    let settings = [(setting, value)];
    let place = Place::with(whole, |options| options.options(settings)).await;
    let mut connection = connect(&place.server).await;
    let sleep = "SET statement_timeout = 20; SELECT pg_sleep(0.5)";
    if sqlx::raw_sql(sleep).execute(&mut connection).await.is_err() {
        return Some(place);
    }
    assert!(env::var_os("CI").is_none(), "no Postgres with timeouts");
    writeln!(
        stderr(),
        "{setting} is skipped: this Postgres knows no timeouts"
    )
    .expect("a reader");
    None
}

/// The fault is the one that was meant: others may refuse visitors before it.
async fn logs(place: &Place, message: &str) {
    let log = || place.server.log().expect("a log");
    let is_logged = comes_true(PATIENCE, async || log().contains(message)).await;
    assert!(is_logged, "{}", log());
}

/// Another program has locked the table.
async fn slowed_down(setting: &str, value: &str, message: &str) {
    let Some(place) = with_setting(setting, value).await else {
        return;
    };
    let crowd = Crowd::enter(&place.app()).await;
    let mut other = connect(&place.server).await;
    let lock = "BEGIN; LOCK TABLE session IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock)
        .execute(&mut other)
        .await
        .expect("a lock");
    crowd.refused(30).await;
    logs(&place, message).await;
    sqlx::raw_sql("COMMIT")
        .execute(&mut other)
        .await
        .expect("no lock");
    crowd.recovers(setting, &place.server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_take_longer_than_the_server_allows_lose_nothing() {
    let message = "canceling statement due to statement timeout";
    slowed_down("statement_timeout", "500ms", message).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_that_are_not_granted_lose_nothing() {
    let message = "canceling statement due to lock timeout";
    slowed_down("lock_timeout", "500ms", message).await;
}

/// The network is so slow that a transaction waits between its statements.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_idles_too_long_loses_nothing() {
    let setting = "idle_in_transaction_session_timeout";
    let Some(place) = with_setting(setting, "600ms").await else {
        return;
    };
    let timeout = 3 * TIMEOUT;
    let store = place.store.clone().timeout(timeout);
    let crowd = Crowd::with_habit(&Site::new(&store, timeout), Habit::Cycle).await;
    let slow = Condition::Slow(Duration::from_millis(350));
    place.network.turn(slow).await;
    crowd.refused(1).await;
    logs(&place, "idle-in-transaction timeout").await;
    place.network.turn(Condition::Open).await;
    crowd.recovers(setting, &place.server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_read_only_sessions_can_be_read() {
    let place = Place::new().await;
    let crowd = Crowd::enter(&place.app()).await;
    make_read_only(&place.server, true).await;
    crowd.refused(20).await;
    crowd.served(20).await;
    make_read_only(&place.server, false).await;
    crowd
        .recovers("default_transaction_read_only", &place.server)
        .await;
}

/// For all connections, those that are open included.
pub(crate) async fn make_read_only(server: &Server, read_only: bool) {
    let set = format!("ALTER SYSTEM SET default_transaction_read_only = {read_only}");
    execute_writing(server, &set).await;
    execute(server, "SELECT pg_reload_conf()").await;
    let shown = if read_only { "on" } else { "off" };
    let setting = "SELECT current_setting('default_transaction_read_only')";
    until(server, setting, shown).await;
}

async fn execute_writing(server: &Server, sql: &str) {
    let mut connection = connect(server).await;
    for sql in ["SET default_transaction_read_only = off", sql] {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
            .expect("a statement");
    }
}

pub(crate) async fn until(server: &Server, sql: &str, expected: &str) {
    let is_so = async || text(server, sql).await == expected;
    assert!(
        comes_true(30 * TIMEOUT, is_so).await,
        "{sql} is never {expected}"
    );
}

pub(crate) async fn text(server: &Server, sql: &str) -> String {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
        .fetch_one(&mut connect(server).await)
        .await
        .expect("a response")
}

/// Documents of several pages each, so that every change needs room.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_is_full_sessions_can_be_read() {
    let server = match tokio::task::block_in_place(|| Server::builder().disk(4).start()) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            writeln!(stderr(), "the full disk is skipped: {error}").expect("stderr is open");
            return;
        }
        server => server.expect("a server"),
    };
    let place = Place::at(server).await;
    let disk = place.server.disk().display().to_string();
    place
        .execute(&format!("CREATE TABLESPACE small LOCATION '{disk}'"))
        .await;
    place
        .execute("ALTER TABLE session SET TABLESPACE small")
        .await;
    place
        .execute("CREATE TABLE filler (text text) TABLESPACE small")
        .await;
    let mut visitors = Vec::new();
    for number in 0..12 {
        let mut visitor = Visitor::enter(&place.app(), format!("visitor-{number}")).await;
        visitor.carry_much().await;
        visitors.push(visitor);
    }
    let crowd = Crowd::of(visitors, Habit::Count);
    fill(&place.server).await;
    crowd.refused(20).await;
    crowd.served(20).await;
    place.execute("DROP TABLE filler").await;
    crowd.recovers("disk full", &place.server).await;
}

/// To the last page.
async fn fill(server: &Server) {
    let mut connection = connect(server).await;
    for rows in [1000, 100, 10, 1] {
        let sql =
            format!("INSERT INTO filler SELECT repeat('x', 1500) FROM generate_series(1, {rows})");
        while insert(&mut connection, &sql).await {}
    }
    connection.close().await.expect("an end");
}

/// Whether there was room.
async fn insert(connection: &mut PgConnection, sql: &str) -> bool {
    let sql = AssertSqlSafe(sql.to_owned());
    let Err(error) = sqlx::raw_sql(sql).execute(connection).await else {
        return true;
    };
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    assert_eq!(code.as_deref(), Some("53100"), "{error}");
    false
}
