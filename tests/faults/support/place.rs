//! A server, the network before it, and a site that reaches it through that.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, Request},
    middleware::{Next, from_fn},
    routing::get,
};
use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, Session};
use dev_postgres::{Builder, Server, Shutdown};
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{Network, TIMEOUT};

/// Of the site's pool.
pub(crate) const CONNECTIONS: u32 = 8;

pub(crate) struct Place {
    pub(crate) server: Server,
    pub(crate) network: Network,
    pub(crate) pool: PgPool,
    pub(crate) store: PgSessionStore,
}

impl Place {
    pub(crate) async fn new() -> Self {
        Self::with(Server::builder(), |options| options).await
    }

    /// On a server of its own, which the site reaches over the network.
    pub(crate) async fn with(
        builder: Builder,
        change: impl FnOnce(PgConnectOptions) -> PgConnectOptions,
    ) -> Self {
        let server = start(builder);
        let network = Network::before(&server);
        let options = change(network.options());
        Self::of(server, network, options).await
    }

    /// On a server that was started.
    pub(crate) async fn at(server: Server) -> Self {
        let network = Network::before(&server);
        let options = network.options();
        Self::of(server, network, options).await
    }

    /// As [`new`](Self::new), but that the site uses the server's own socket.
    pub(crate) async fn beside_the_server() -> Self {
        let server = start(Server::builder());
        let network = Network::before(&server);
        let options = server.url().parse().expect("a URL");
        Self::of(server, network, options).await
    }

    async fn of(server: Server, network: Network, options: PgConnectOptions) -> Self {
        let pool = pool(options);
        let store = PgSessionStore::new(pool.clone()).timeout(TIMEOUT);
        store.migrate().await.expect("a new table");
        Self {
            server,
            network,
            pool,
            store,
        }
    }

    /// The same server, and a site in another database of it.
    pub(crate) async fn in_database(self, name: &str) -> Self {
        let options = self.network.options().database(name);
        Self::of(self.server, self.network, options).await
    }

    pub(crate) fn app(&self) -> Site {
        Site::new(&self.store, TIMEOUT)
    }

    /// The same site, which carries out `sql` after the handler and before
    /// anything is saved.
    pub(crate) fn app_with(&self, sql: &'static str) -> Site {
        let url = self.server.url();
        let pages = pages().layer(from_fn(move |request: Request, next: Next| {
            let url = url.clone();
            async move {
                let response = next.run(request).await;
                let mut connection = PgConnection::connect(&url).await.expect("a connection");
                let done = sqlx::raw_sql(sql).execute(&mut connection).await;
                done.expect("a statement");
                response
            }
        }));
        let app = pages.layer(PgSessionLayer::new(self.store.clone()));
        let timeout = TIMEOUT;
        Site { app, timeout }
    }

    /// By way of nothing that fails.
    pub(crate) async fn execute(&self, sql: &str) {
        execute(&self.server, sql).await;
    }

    pub(crate) fn stop(&self, how: Shutdown) {
        tokio::task::block_in_place(|| self.server.stop(how)).expect("it runs");
    }

    pub(crate) fn start_again(&self) {
        tokio::task::block_in_place(|| self.server.start_again()).expect("it starts");
    }
}

pub(crate) fn start(builder: Builder) -> Server {
    tokio::task::block_in_place(|| builder.start()).expect("a server")
}

pub(crate) fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(2 * TIMEOUT)
        .connect_lazy_with(options)
}

pub(crate) async fn connect(server: &Server) -> PgConnection {
    PgConnection::connect(&server.url())
        .await
        .expect("a connection")
}

pub(crate) async fn execute(server: &Server, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connect(server).await)
        .await
        .expect("a statement");
}

/// What visitors come to, and how long its store makes them wait.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) app: Router,
    pub(crate) timeout: Duration,
}

impl Site {
    /// `timeout` is the store's.
    pub(crate) fn new(store: &PgSessionStore, timeout: Duration) -> Self {
        let app = pages().layer(PgSessionLayer::new(store.clone()));
        Self { app, timeout }
    }
}

/// Those that visitors count on say whose session it is and how far it counted.
fn pages() -> Router {
    Router::new()
        .route("/plain", get(async || "plain"))
        .route("/enter/{name}", get(enter))
        .route("/carry", get(carry))
        .route("/show", get(show))
        .route("/add", get(add))
        .route("/cycle", get(cycle))
}

async fn enter(session: Session, Path(name): Path<String>) -> Result<(), Error> {
    session.insert("name", name)?;
    session.insert("count", 0)
}

/// Digits, as Postgres would compress what repeats itself.
async fn carry(session: Session) -> Result<(), Error> {
    let digits = || RandomState::new().hash_one(0);
    let ballast: String = (0..1000).map(|_| format!("{:016x}", digits())).collect();
    session.insert("ballast", ballast)
}

async fn show(session: Session) -> Result<String, Error> {
    let name: Option<String> = session.get("name")?;
    let count: Option<u64> = session.get("count")?;
    Ok(format!("{name:?} {}", count.unwrap_or_default()))
}

async fn add(session: Session) -> Result<String, Error> {
    session.update("count", |count: Option<u64>| count.unwrap_or_default() + 1)?;
    show(session).await
}

async fn cycle(session: Session) -> Result<String, Error> {
    session.cycle_id()?;
    show(session).await
}
