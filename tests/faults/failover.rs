//! A standby is promoted, and other servers take no writes.

use axum_pg_session::{ErrorKind, PgSessionStore};
use dev_postgres::{Server, Shutdown};

use crate::{
    settings::{make_read_only, text, until},
    support::{
        Condition, Crowd, Network, Site, TIMEOUT,
        place::{execute, pool, start},
    },
};

/// Two servers of which the second has all that the first commits, each
/// behind a port.
struct Pair {
    first: Server,
    second: Server,
    networks: [Network; 2],
    store: PgSessionStore,
}

impl Pair {
    async fn new() -> Self {
        let first = start(
            Server::builder()
                .setting("synchronous_standby_names", "*")
                .setting("wal_retrieve_retry_interval", "100ms"),
        );
        stop(&first, Shutdown::Fast);
        let second = start(
            Server::builder()
                .standby_of(&first)
                .setting("wal_retrieve_retry_interval", "100ms"),
        );
        start_again(&first);
        let networks = [Network::before(&first), Network::before(&second)];
        let store = PgSessionStore::connect(&url(&networks))
            .await
            .expect("a primary")
            .timeout(TIMEOUT);
        store.migrate().await.expect("a new table");
        Self {
            first,
            second,
            networks,
            store,
        }
    }

    async fn promote_the_second(&self) {
        execute(&self.second, "SELECT pg_promote()").await;
    }

    /// The second one has all that the first one has.
    async fn is_in_step(&self) {
        let end = text(&self.first, "SELECT pg_current_wal_lsn()::text").await;
        let is_there = format!("SELECT (pg_last_wal_replay_lsn() >= '{end}')::text");
        until(&self.second, &is_there, "true").await;
    }
}

/// In this order.
fn url(networks: &[Network; 2]) -> String {
    let [first, second] = [networks[0].port(), networks[1].port()];
    format!(
        "postgres://postgres@127.0.0.1:{first},127.0.0.1:{second}/postgres\
         ?sslmode=disable&target_session_attrs=read-write"
    )
}

fn stop(server: &Server, how: Shutdown) {
    tokio::task::block_in_place(|| server.stop(how)).expect("it runs");
}

fn start_again(server: &Server) {
    tokio::task::block_in_place(|| server.start_again()).expect("it starts");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_primary_dies_its_promoted_standby_serves_what_was_acknowledged() {
    let pair = Pair::new().await;
    let crowd = Crowd::enter(&Site::new(&pair.store, TIMEOUT)).await;
    crowd.served(50).await;
    stop(&pair.first, Shutdown::Killed);
    crowd.refused(20).await;
    pair.promote_the_second().await;
    crowd.recovers("fail-over to a standby", &pair.second).await;
}

/// The packets of a host without power get no response.
#[tokio::test(flavor = "multi_thread")]
async fn when_the_primary_falls_silent_its_promoted_standby_serves() {
    let pair = Pair::new().await;
    let crowd = Crowd::enter(&Site::new(&pair.store, TIMEOUT)).await;
    crowd.served(50).await;
    pair.networks[0].turn(Condition::BlackHole).await;
    crowd.refused(20).await;
    stop(&pair.first, Shutdown::Killed);
    pair.promote_the_second().await;
    crowd
        .recovers("fail-over from a silent primary", &pair.second)
        .await;
}

/// A switchover makes the old primary read-only first.
#[tokio::test(flavor = "multi_thread")]
async fn connections_to_a_demoted_primary_are_given_up() {
    let pair = Pair::new().await;
    let crowd = Crowd::enter(&Site::new(&pair.store, TIMEOUT)).await;
    crowd.served(50).await;
    make_read_only(&pair.first, true).await;
    crowd.refused(20).await;
    pair.is_in_step().await;
    pair.promote_the_second().await;
    crowd.recovers("primary demoted", &pair.second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_comes_back_as_a_standby_serves_no_session() {
    let pair = Pair::new().await;
    let crowd = Crowd::enter(&Site::new(&pair.store, TIMEOUT)).await;
    crowd.served(50).await;
    stop(&pair.first, Shutdown::Fast);
    pair.promote_the_second().await;
    crowd.served(50).await;
    pair.first.follow(&pair.second).expect("its data is there");
    start_again(&pair.first);
    crowd.served(100).await;
    pair.networks[1].reset();
    crowd.served(100).await;
    crowd.recovers("old primary comes back", &pair.second).await;
}

/// A visitor never sees the state from before their own change.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_is_not_read() {
    let mut pair = Pair::new().await;
    execute(&pair.second, "SELECT pg_wal_replay_pause()").await;
    pair.networks.reverse();
    let store = PgSessionStore::connect(&url(&pair.networks)).await;
    let store = store.expect("a primary").timeout(TIMEOUT);
    let crowd = Crowd::enter(&Site::new(&store, TIMEOUT)).await;
    crowd.served(100).await;
    let entered = "SELECT count(*)::text FROM session WHERE session ->> 'name' IS NOT NULL";
    assert_eq!(text(&pair.second, entered).await, "0");
    crowd.recovers("replica lags", &pair.first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn set_up_on_a_replica_says_that_nothing_can_be_stored_there() {
    let pair = Pair::new().await;
    pair.is_in_step().await;
    let store = PgSessionStore::new(pool(pair.networks[1].options()));
    for outcome in [store.check().await.map(drop), store.migrate().await] {
        let error = outcome.expect_err("a replica");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("standby"), "{error}");
    }
}
