//! The server restarts, crashes, or has no connection left.

use dev_postgres::{Server, Shutdown};
use sqlx::{Connection as _, PgConnection};

use crate::support::{Crowd, Place, Visitor, crowd::Habit, place::CONNECTIONS};

/// Connections of a small server.
const ALL: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn when_all_backends_are_terminated_visitors_are_served_at_once() {
    let place = Place::new().await;
    let crowd = Crowd::enter(&place.app()).await;
    for _ in 0..10 {
        crowd.served(20).await;
        place
            .execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'",
            )
            .await;
    }
    crowd
        .recovers("all backends terminated", &place.server)
        .await;
}

/// Over the server's own socket, which is not there meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_fast_restart_the_next_request_is_served() {
    let place = Place::beside_the_server().await;
    restarted(&place, Shutdown::Fast, "restart, fast").await;
}

/// Through something that accepts connections also while no server is there.
#[tokio::test(flavor = "multi_thread")]
async fn after_an_immediate_restart_nothing_acknowledged_is_lost() {
    let place = Place::new().await;
    restarted(&place, Shutdown::Immediate, "restart, immediate").await;
}

/// Over the server's own socket, whose file stays.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_of_the_postmaster_nothing_acknowledged_is_lost() {
    let place = Place::beside_the_server().await;
    restarted(&place, Shutdown::Killed, "kill -9 of the postmaster").await;
}

async fn restarted(place: &Place, how: Shutdown, fault: &str) {
    let crowd = Crowd::enter(&place.app()).await;
    crowd.served(50).await;
    place.stop(how);
    crowd.refused(30).await;
    place.start_again();
    crowd.recovers(fault, &place.server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_others_have_all_connections_visitors_wait_in_time() {
    let few = Server::builder()
        .setting("max_connections", &ALL.to_string())
        .setting("superuser_reserved_connections", "0")
        .setting("max_wal_senders", "0");
    let place = Place::with(few, |options| options).await;
    let crowd = Crowd::enter(&place.app()).await;
    let mut others = Vec::new();
    while others.len() < ALL {
        place.network.reset();
        others.extend(PgConnection::connect(&place.server.url()).await);
    }
    crowd.refused(30).await;
    for other in others {
        other.close().await.expect("an end");
    }
    crowd.recovers("too many connections", &place.server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_application_has_the_whole_pool_visitors_wait_in_time() {
    let place = Place::new().await;
    let visitor = Visitor::enter(&place.app(), "visitor-0".into()).await;
    let mut own = Vec::new();
    for _ in 0..CONNECTIONS {
        own.push(place.pool.acquire().await.expect("a connection"));
    }
    let crowd = Crowd::of(vec![visitor], Habit::Count);
    crowd.refused(3).await;
    drop(own);
    crowd.recovers("pool exhausted", &place.server).await;
}
