//! Many clients of one session, in several processes.

use std::{sync::Arc, time::Duration};

use axum_pg_session::PgSessionStore;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    copies::{Copies, Manner, Reaping},
    line::{Line, Reply},
    record::{GivenCookie, Outcome},
    site::Deed,
    tell,
};

const CLIENTS: usize = 64;
const INCREMENTS: usize = 50;
/// Longer than any request takes here.
const PATIENCE: Duration = Duration::from_secs(60);

async fn ask(line: &mut Line, deed: Deed, token: Option<&str>) -> Reply {
    let path = format!("/{deed:?}/1/key/0");
    line.get(&path, token, PATIENCE).await.expect("a response")
}

async fn begin(copies: &Copies) -> String {
    let mut line = Line::open(copies.port(0).expect("it runs"))
        .await
        .expect("a line");
    match ask(&mut line, Deed::Begin, None).await.outcome(Deed::Begin) {
        Outcome::Done(_, GivenCookie::Token(token)) => token.to_string(),
        other => panic!("no session was begun: {other:?}"),
    }
}

/// Returns how many of the increments were not acknowledged.
async fn increment(port: u16, token: Arc<str>) -> usize {
    let mut line = Line::open(port).await.expect("a line");
    let mut failures = 0;
    for _ in 0..INCREMENTS {
        let response = ask(&mut line, Deed::Increment, Some(&token)).await;
        failures += usize::from(response.status != 200);
    }
    failures
}

async fn failures_on(processes: usize) -> (usize, Value) {
    let database = dev_postgres::test_database().await.expect("a database");
    let pool = sqlx::PgPool::connect(database.url())
        .await
        .expect("a connection");
    PgSessionStore::new(pool.clone())
        .migrate()
        .await
        .expect("a new table");
    let manner = Manner {
        timeout: PATIENCE,
        reaping: Reaping::OnRequest,
    };
    let copies = Copies::start(database.url(), processes, manner).await;
    let token: Arc<str> = begin(&copies).await.into();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let port = copies.port(client % processes).expect("it runs");
        clients.spawn(increment(port, Arc::clone(&token)));
    }
    let failures = clients.join_all().await.into_iter().sum();
    copies.kill_all().await;
    let text: String = sqlx::query_scalar("SELECT session::text FROM public.session")
        .fetch_one(&pool)
        .await
        .expect("one session");
    let document: Value = serde_json::from_str(&text).expect("JSON");
    (failures, document["count"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn n_increments_in_two_processes_make_n() {
    for processes in [1, 2, 4] {
        let (failures, count) = failures_on(processes).await;
        tell(&format!(
            "{processes} processes: {failures} failures, {count} counted"
        ));
        assert_eq!((failures, count), (0, Value::from(CLIENTS * INCREMENTS)));
    }
}
