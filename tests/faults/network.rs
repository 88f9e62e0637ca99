//! The connection to the server fails.

use std::time::Duration;

use axum_pg_session::PgSessionStore;
use sqlx::{PgPool, Postgres, pool::PoolConnection, postgres::PgPoolOptions};
use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    Condition, Crowd, Place, Site, TIMEOUT, Visitor, comes_true,
    crowd::{Habit, PATIENCE},
    place::{CONNECTIONS, connect},
    visitor::Reply,
};

#[tokio::test(flavor = "multi_thread")]
async fn while_connections_are_refused_requests_for_sessions_are_503_in_time() {
    let place = Place::new().await;
    let crowd = Crowd::enter(&place.app()).await;
    place.network.turn(Condition::Refusing).await;
    crowd.refused(30).await;
    place.network.turn(Condition::Open).await;
    crowd.recovers("refused connections", &place.server).await;
}

/// Each place in the pool retries at growing intervals, whatever the load.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_under_load_is_no_storm_of_connections() {
    let place = Place::new().await;
    let crowd = Crowd::enter(&place.app()).await;
    place.network.turn(Condition::Unserved).await;
    let before = (Instant::now(), place.network.accepted());
    crowd.refused(30).await;
    let seconds = before.0.elapsed().as_secs_f64();
    let attempts = (place.network.accepted() - before.1) as f64;
    place.network.turn(Condition::Open).await;
    crowd
        .recovers("connections closed at once", &place.server)
        .await;
    // Of 10, 20, 40 … ms, seven fit into a second.
    let most = (seconds + 1.0) * 7.0 * f64::from(CONNECTIONS);
    assert!(attempts <= most, "{attempts} attempts in {seconds} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_packets_are_dropped_requests_for_sessions_are_503_in_time() {
    let place = Place::new().await;
    let crowd = Crowd::enter(&place.app()).await;
    place.network.turn(Condition::BlackHole).await;
    for _ in 0..6 {
        crowd.refused(4).await;
        assert!(place.network.hanging() <= CONNECTIONS as usize);
    }
    place.network.turn(Condition::Open).await;
    crowd.recovers("packets dropped", &place.server).await;
}

/// A firewall has forgotten the connections of a site that was quiet for long. A small pool has
/// no other connection while it pings the dead one.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_died_unnoticed_cost_no_request() {
    let mut places = Vec::new();
    for connections in [1, 2, 3, CONNECTIONS] {
        let (place, _site, _, visitors) =
            with_dead_connections(connections, PgPoolOptions::new()).await;
        let mut visits = JoinSet::new();
        for mut visitor in visitors {
            visits.spawn(async move { (visitor.add().await, visitor) });
        }
        let mut visitors = Vec::new();
        for (response, visitor) in visits.join_all().await {
            assert_eq!(response, Reply::Served, "a pool of {connections}");
            visitors.push(visitor);
        }
        places.push((place, visitors));
    }
    let (place, visitors) = places.pop().expect("four of them");
    Crowd::of(visitors, Habit::Count)
        .recovers("idle connections died", &place.server)
        .await;
}

/// The pool does not ping these, so the first to use one finds that its server is silent.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_die_unnoticed_and_are_not_pinged_leave_the_pool_whole() {
    for connections in [1, 8] {
        let options = PgPoolOptions::new().test_before_acquire(false);
        let (_place, _site, pool, visitors) = with_dead_connections(connections, options).await;
        let mut visits = JoinSet::new();
        for mut visitor in visitors {
            visits.spawn(async move { visitor.status_of("/show").await });
        }
        visits.join_all().await;
        drop(take_all(&pool, connections).await);
    }
}

/// A site whose pool has so many connections, all idle and dead without its notice, and as many
/// visitors.
async fn with_dead_connections(
    connections: u32,
    options: PgPoolOptions,
) -> (Place, Site, PgPool, Vec<Visitor>) {
    let place = Place::new().await;
    let pool = options
        .max_connections(connections)
        .connect_lazy_with(place.network.options());
    let site = Site::new(&PgSessionStore::new(pool.clone()).timeout(TIMEOUT), TIMEOUT);
    let mut visitors = Vec::new();
    for number in 0..connections {
        visitors.push(Visitor::enter(&site, format!("visitor-{number}")).await);
    }
    drop(take_all(&pool, connections).await);
    until_idle(&pool, connections).await;
    place.network.turn(Condition::BlackHole).await;
    place.network.turn(Condition::Open).await;
    // The caller keeps the site: a store that is dropped returns no connection.
    (place, site, pool, visitors)
}

/// All connections of the pool.
async fn take_all(pool: &PgPool, connections: u32) -> Vec<PoolConnection<Postgres>> {
    let mut all = Vec::new();
    for _ in 0..connections {
        let acquired = tokio::time::timeout(PATIENCE, pool.acquire()).await;
        all.push(acquired.expect("the pool has it").expect("a connection"));
    }
    all
}

/// Until the pool has them back. Its number of idle connections can be below zero, which is the
/// largest number, while one is returned and taken at once.
async fn until_idle(pool: &PgPool, connections: u32) {
    while pool.num_idle() != connections as usize {
        tokio::task::yield_now().await;
    }
}

/// A server on another continent responds late and counts as alive.
#[tokio::test(flavor = "multi_thread")]
async fn far_from_its_server_a_site_keeps_its_connections() {
    let place = Place::new().await;
    let timeout = 10 * TIMEOUT;
    let store = place.store.clone().timeout(timeout);
    let site = Site::new(&store, timeout);
    let mut visitor = Visitor::enter(&site, "visitor-0".into()).await;
    let far = Condition::Slow(Duration::from_millis(100));
    place.network.turn(far).await;
    let mut accepted = Vec::new();
    for _ in 0..4 {
        all_are_given_back(&place.pool).await;
        assert_eq!(visitor.show().await, Reply::Served);
        accepted.push(place.network.accepted());
    }
    let learnt = accepted[0];
    assert_eq!(accepted, [learnt; 4], "connections that were made");
}

async fn all_are_given_back(pool: &PgPool) {
    let is_given_back = async || pool.size() as usize == pool.num_idle();
    assert!(
        comes_true(10 * TIMEOUT, is_given_back).await,
        "one never comes back"
    );
}

/// The pool asks a connection that is given back whether it still is of use,
/// and has one less until it hears.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_die_while_they_are_kept_leave_the_pool_whole() {
    let place = Place::new().await;
    let mut visitor = Visitor::enter(&place.app(), "visitor-0".into()).await;
    assert!(
        place.pool.size() as usize > place.pool.num_idle(),
        "one is kept"
    );
    place.network.turn(Condition::BlackHole).await;
    all_are_given_back(&place.pool).await;
    place.network.turn(Condition::Open).await;
    assert_eq!(visitor.add().await, Reply::Served);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_without_a_session_ask_for_no_connection() {
    let place = Place::new().await;
    let mut visitor = Visitor::enter(&place.app(), "visitor-0".into()).await;
    place.network.turn(Condition::Unserved).await;
    let before = place.network.accepted();
    for _ in 0..100 {
        visitor.look_at_a_plain_page().await;
    }
    assert_eq!(place.network.accepted(), before);
    assert_eq!(visitor.show().await, Reply::Refused);
    assert!(place.network.accepted() > before);
}

/// The server executes what was sent, and its response is lost. A second attempt would find the
/// row changed, and add once more.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_in_mid_statement_leaves_changes_in_doubt_and_loses_none() {
    let place = Place::new().await;
    let crowd = Crowd::enter(&place.app()).await;
    let mut other = connect(&place.server).await;
    for _ in 0..5 {
        crowd.served(10).await;
        let lock = "BEGIN; LOCK TABLE session IN EXCLUSIVE MODE";
        sqlx::raw_sql(lock)
            .execute(&mut other)
            .await
            .expect("a lock");
        let lost = waiting_besides(&place, &[]).await;
        place.network.reset();
        waiting_besides(&place, &lost).await;
        sqlx::raw_sql("COMMIT")
            .execute(&mut other)
            .await
            .expect("no lock");
    }
    crowd
        .recovers("reset in mid-statement", &place.server)
        .await;
}

/// The backends that wait for a lock, as soon as there are any but these.
async fn waiting_besides(place: &Place, these: &[i32]) -> Vec<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let mut other = connect(&place.server).await;
    let deadline = Instant::now() + 10 * TIMEOUT;
    loop {
        let waiting: Vec<i32> = sqlx::query_scalar(sql)
            .fetch_all(&mut other)
            .await
            .expect("a response");
        if waiting.iter().any(|pid| !these.contains(pid)) {
            return waiting;
        }
        assert!(Instant::now() < deadline, "no statement waits");
    }
}
