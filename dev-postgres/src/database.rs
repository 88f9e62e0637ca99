use std::{
    env, io, process,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, postgres::PgConnectOptions};

use crate::{Lending, Pooler, Prefer, Server};

/// The server of this process. The first call starts it, and it ends with the process.
fn server(prefer: Prefer) -> io::Result<&'static Server> {
    static STARTING: Mutex<()> = Mutex::new(());
    static SERVER: OnceLock<Server> = OnceLock::new();
    let _guard = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = SERVER.get() {
        return Ok(server);
    }
    let server = Server::builder().prefer(prefer).start()?;
    Ok(SERVER.get_or_init(|| server))
}

/// The pooler in front of the server of this process, if `DEV_POSTGRES_POOLER` names a mode.
fn pooler() -> io::Result<Option<&'static Pooler>> {
    static STARTING: Mutex<()> = Mutex::new(());
    static POOLER: OnceLock<Pooler> = OnceLock::new();
    let lending = match env::var("DEV_POSTGRES_POOLER").unwrap_or_default().as_str() {
        "" => return Ok(None),
        "session" => Lending::Session,
        "transaction" => Lending::Transaction,
        "prepared" => Lending::TransactionWithPreparedStatements,
        other => {
            return Err(io::Error::other(format!(
                "DEV_POSTGRES_POOLER is {other}, not session, transaction or prepared"
            )));
        }
    };
    if given().is_some() {
        let why = "DEV_POSTGRES_POOLER needs the server of dev-postgres: unset DATABASE_URL";
        return Err(io::Error::other(why));
    }
    let _guard = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if POOLER.get().is_none() {
        let pooler = Pooler::before(server(Prefer::Bundled)?, lending, 30)?;
        drop(POOLER.set(pooler));
    }
    Ok(POOLER.get())
}

fn given() -> Option<String> {
    env::var("DATABASE_URL").ok().filter(|url| !url.is_empty())
}

/// Returns the URL of a database for an example: `DATABASE_URL`, or that of a new server, which
/// ends with this process.
///
/// ```
/// let url = dev_postgres::database_url()?;
/// assert!(url.starts_with("postgres:"));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// When no Postgres can be started.
pub fn database_url() -> io::Result<String> {
    match given() {
        Some(url) => Ok(url),
        None => Ok(server(Prefer::Machine)?.url()),
    }
}

/// Creates an empty database, on the server of `DATABASE_URL` or on one that all tests of this
/// process share. It is dropped with the value.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let one = dev_postgres::test_database().await?;
/// let two = dev_postgres::test_database().await?;
/// assert_ne!(one.url(), two.url());
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// When no Postgres can be started, or the role can't create databases.
pub async fn test_database() -> io::Result<TestDatabase> {
    let url = match given() {
        Some(url) => url,
        None => server(Prefer::Bundled)?.url(),
    };
    database_on(&url, pooler()?).await
}

impl Server {
    /// Creates an empty database on this server.
    ///
    /// # Errors
    ///
    /// When the server is stopped.
    pub async fn test_database(&self) -> io::Result<TestDatabase> {
        database_on(&self.url(), None).await
    }
}

async fn database_on(url: &str, pooler: Option<&Pooler>) -> io::Result<TestDatabase> {
    let server: PgConnectOptions = url.parse().map_err(io::Error::other)?;
    let name = unique_name();
    execute(&server, format!("CREATE DATABASE {name}"))
        .await
        .map_err(io::Error::other)?;
    let pooled = pooler.map(|pooler| (pooler.url_of(&name), pooler.lending()));
    Ok(TestDatabase {
        url: url_of(url, &name),
        pooled,
        name,
        server,
    })
}

/// A database for one test. It is dropped with the value, because fewer files make the next
/// `CREATE DATABASE` faster.
#[derive(Debug)]
pub struct TestDatabase {
    url: String,
    pooled: Option<(String, Lending)>,
    name: String,
    server: PgConnectOptions,
}

impl TestDatabase {
    /// The URL, for the superuser or for the role of `DATABASE_URL`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The URL through a PgBouncer, and its mode, if `DEV_POSTGRES_POOLER` is `session`,
    /// `transaction` or `prepared`.
    #[must_use]
    pub fn pooled(&self) -> Option<(&str, Lending)> {
        let (url, lending) = self.pooled.as_ref()?;
        Some((url, *lending))
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let server = self.server.clone();
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // A runtime can't block a thread of another runtime.
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.map(|runtime| runtime.block_on(execute(&server, sql)))
        });
        // A database that remains is no reason to fail a test.
        drop(dropping.join());
    }
}

async fn execute(server: &PgConnectOptions, sql: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect_with(server).await?;
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await?;
    connection.close().await
}

fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("test_{}_{next}", process::id())
}

/// The URL of another database on the same server, with all other parts as they
/// are. sqlx can't write it: its `to_url_lossy` writes `sslrootcert` in a form that
/// it doesn't read, and omits `options` and `application_name`.
fn url_of(server: &str, database: &str) -> String {
    let (place, query) = server.split_once('?').unwrap_or((server, ""));
    let authority = place.find("://").map_or(0, |scheme| scheme + "://".len());
    let path = place[authority..].find('/').map(|path| authority + path);
    let mut url = format!("{}/{database}", &place[..path.unwrap_or(place.len())]);
    // A `dbname` would override the path.
    let is_kept = |parameter: &&str| !parameter.is_empty() && !parameter.starts_with("dbname=");
    for (index, parameter) in query.split('&').filter(is_kept).enumerate() {
        url.push(if index == 0 { '?' } else { '&' });
        url.push_str(parameter);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_of_a_url_changes() {
        for (server, expected) in [
            ("postgres://", "postgres:///test"),
            ("postgres://db", "postgres://db/test"),
            ("postgres:///?host=/run/a", "postgres:///test?host=/run/a"),
            (
                "postgres:///app?host=/run/a&port=5433&user=me",
                "postgres:///test?host=/run/a&port=5433&user=me",
            ),
            (
                "postgres://me:a%2Fb%40c@[::1]:5433/app?sslmode=disable",
                "postgres://me:a%2Fb%40c@[::1]:5433/test?sslmode=disable",
            ),
            (
                "postgres://%2Frun%2Fa/app?dbname=other&options[geqo]=off",
                "postgres://%2Frun%2Fa/test?options[geqo]=off",
            ),
            (
                "postgres://db/app?sslmode=verify-full&sslrootcert=/a/b%20c.crt\
                 &sslcert=%2Fa%2Fme.crt&sslkey=/a/me.key&application_name=app",
                "postgres://db/test?sslmode=verify-full&sslrootcert=/a/b%20c.crt\
                 &sslcert=%2Fa%2Fme.crt&sslkey=/a/me.key&application_name=app",
            ),
        ] {
            assert_eq!(url_of(server, "test"), expected);
        }
    }
}
