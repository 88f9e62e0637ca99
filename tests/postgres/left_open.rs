//! An application that leaves connections of its pool in a transaction, as a
//! cancelled `begin` of sqlx 0.9.0 does: what is acknowledged is committed.

use axum_pg_session::{PgSessionLayer, PgSessionStore, Session};
use sqlx::{Executor as _, PgPool};

use crate::support::{
    Browser, Site, app,
    page::{app_with, dropped_after},
    site::pool,
};

/// A site whose application and sessions share a pool.
struct Shared {
    site: Site,
    pool: PgPool,
    store: PgSessionStore,
}

impl Shared {
    const CONNECTIONS: u32 = 3;

    async fn new() -> Self {
        Self::with(Self::CONNECTIONS).await
    }

    async fn with(connections: u32) -> Self {
        let site = Site::new().await;
        let pool = pool(site.database.url(), connections).await;
        let store = PgSessionStore::new(pool.clone());
        store.check().await.expect("a table");
        Self { site, pool, store }
    }

    fn browser(&self) -> Browser {
        Browser::new(&app(PgSessionLayer::new(self.store.clone())))
    }

    /// Of each of the pool's connections.
    async fn leaves_open(&self, statement: &'static str) {
        let mut connections = Vec::new();
        for _ in 0..Self::CONNECTIONS {
            connections.push(self.pool.acquire().await.expect("a connection"));
        }
        for connection in &mut connections {
            connection.execute("BEGIN").await.expect("a transaction");
            // Whether it works or not.
            drop(connection.execute(statement).await);
        }
    }

    async fn keeps_what_it_acknowledges(&self) {
        let mut browser = self.browser();
        for n in ["1", "2", "3"] {
            let response = browser.get("/increment/n").await;
            assert_eq!(response.body, n, "{}", response.status);
            // Seen from elsewhere, so it is committed.
            let stored = &self.site.rows().document().await["n"];
            assert_eq!(stored.to_string(), n);
        }
    }
}

#[tokio::test]
async fn what_is_saved_beside_transactions_that_were_left_open_is_committed() {
    let shared = Shared::new().await;
    shared.leaves_open("SELECT 1").await;
    shared.keeps_what_it_acknowledges().await;
}

/// The server refuses everything in such a transaction.
#[tokio::test]
async fn connections_whose_transaction_failed_serve_no_session() {
    let shared = Shared::new().await;
    shared.leaves_open("SELECT 1 / 0").await;
    let mut browser = shared.browser();
    let mut failures = 0;
    while browser.get("/increment/n").await.status == 503 {
        failures += 1;
        assert!(failures <= Shared::CONNECTIONS, "they are given out again");
    }
    let stored = shared.site.rows().document().await;
    assert_eq!(stored["n"], 1);
}

/// What the application's own client or time-out does to it.
#[tokio::test]
async fn a_begin_that_was_dropped_costs_no_session() {
    let shared = Shared::with(1).await;
    let mut dropped = 0;
    for polls in [1, 2, 3, 4, 1, 2, 3, 4] {
        let pool = shared.pool.clone();
        let begin = async move { pool.begin().await.map(drop) };
        dropped += usize::from(dropped_after(begin, polls).await.is_none());
        shared.keeps_what_it_acknowledges().await;
        shared.site.rows().execute("DELETE FROM TABLE").await;
    }
    assert!(dropped > 0, "each had ended before");
}

#[tokio::test]
async fn the_end_of_a_users_sessions_is_committed_beside_open_transactions() {
    let shared = Shared::new().await;
    let sign_in = async |session: Session| session.login("ann");
    let app = app_with(PgSessionLayer::new(shared.store.clone()), sign_in);
    Browser::new(&app).get("/page").await;
    shared.leaves_open("SELECT 1").await;
    let ended = shared.store.user("ann").destroy_all().await;
    assert_eq!(ended.expect("an end"), 1);
    assert_eq!(shared.site.rows().count().await, 0);
}
