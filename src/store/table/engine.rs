//! Refuses servers that use the Postgres protocol but are another database. It doesn't look at
//! the table.

use sqlx::{PgConnection, Row as _};
use tokio::time::timeout;

use crate::{
    Error, ErrorKind,
    store::connection::{acquire::Unproven, executor::Executor},
};

/// How the host names of Aurora DSQL end.
const HOSTS_OF_DSQL: &str = ".on.aws";

/// Checks that the server is Postgres.
///
/// # Errors
///
/// Of kind `Setup` if it isn't, with the reason why it can't keep sessions.
pub(super) async fn check_engine(database: &Executor) -> Result<(), Error> {
    let asked = database
        .ask_any_server(|connection| Box::pin(async move { Ok(version(connection).await?) }))
        .await;
    let version = match asked {
        Ok(version) => version,
        Err(error) => return Err(named(error, database).await),
    };
    match refusal(&version, &host(database)) {
        Some(reason) => Err(Error::new(ErrorKind::Setup, reason)),
        None => Ok(()),
    }
}

/// Explains an error of a server that may be another database. The store probes each
/// connection before it uses it, and another database may lack a function of that query. So
/// this queries the version on a connection that comes directly from the pool.
async fn named(error: Error, database: &Executor) -> Error {
    let is_of_a_query = error.sqlstate().is_some_and(|code| {
        let classes = ["0A", "3F", "42", "XX"];
        classes.iter().any(|class| code.starts_with(class))
    });
    if !is_of_a_query {
        return error;
    }
    let asked = async {
        let mut connection = Unproven::new(database.pool().acquire().await?);
        let version = version(&mut connection).await?;
        drop(connection.proven());
        Ok::<_, sqlx::Error>(version)
    };
    match timeout(database.timeout, asked).await {
        Ok(Ok(version)) => match refusal(&version, &host(database)) {
            Some(reason) => Error::caused(ErrorKind::Setup, reason, error),
            None => error,
        },
        Ok(Err(_)) | Err(_) => error,
    }
}

fn host(database: &Executor) -> String {
    database.pool().connect_options().get_host().to_owned()
}

/// The version as text. The query must stay as it is, because Spanner's adapter compares it
/// letter by letter.
async fn version(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    let row = sqlx::raw_sql(include_str!("../sql/version.sql").trim_end())
        .fetch_one(connection)
        .await?;
    row.try_get_unchecked(0)
}

/// Why a server can't keep sessions, by its version and host name. YugabyteDB runs the code of
/// Postgres; it is expected to work, but not tested.
fn refusal(version: &str, host: &str) -> Option<&'static str> {
    if version.contains("CockroachDB") {
        return Some(
            "CockroachDB can't keep sessions: its advisory locks lock nothing, and logins of one \
             user and runs of the reaper exclude each other by them; use PostgreSQL",
        );
    }
    if version.contains("DSQL") || host.contains(".dsql.") && host.ends_with(HOSTS_OF_DSQL) {
        return Some(
            "Aurora DSQL can't keep sessions: it has no advisory locks, and of two writers of one \
             session the second fails at its commit instead of waiting; use PostgreSQL",
        );
    }
    if version.contains("Spanner") {
        return Some(
            "Cloud Spanner can't keep sessions: it has no advisory locks, by which logins of one \
             user and runs of the reaper exclude each other; use PostgreSQL",
        );
    }
    // `PostgreSQL 16` and no more. Postgres and databases that are built from its code also
    // name the machine or the compiler of the build. A build by MSVC only names the compiler.
    let names_a_build = version.contains(" on ") || version.contains("compiled by");
    let names_no_build = version.starts_with("PostgreSQL ") && !names_a_build;
    names_no_build.then_some(
        "the server speaks the protocol of PostgreSQL and is another database, as Aurora DSQL and \
         Cloud Spanner are, which can't keep sessions; use PostgreSQL",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_and_what_is_made_of_it_are_taken() {
        for version in [
            "PostgreSQL 15.14 (Debian 15.14-0+deb12u1) on x86_64-pc-linux-gnu, compiled by gcc \
             (Debian 12.2.0-14) 12.2.0, 64-bit",
            "PostgreSQL 17.5 on aarch64-apple-darwin24.4.0, compiled by Apple clang, 64-bit",
            "PostgreSQL 11.2-YB-2.20.1.0-b0 on x86_64-pc-linux-gnu, compiled by clang, 64-bit",
            "PostgreSQL 16.4 (EnterpriseDB Advanced Server 16.4.1) on x86_64-pc-linux-gnu",
            "PostgreSQL 16.1, compiled by Visual C++ build 1937, 64-bit",
        ] {
            assert_eq!(refusal(version, "db.example"), None, "{version}");
        }
    }

    #[test]
    fn a_database_that_only_speaks_the_protocol_is_refused_by_name() {
        let dsql = "abc.dsql.us-east-1.on.aws";
        for (version, host, name) in [
            (
                "CockroachDB CCL v24.1.0 (x86_64-pc-linux-gnu, built 2024/05/15)",
                "db",
                "CockroachDB",
            ),
            ("PostgreSQL 16", dsql, "Aurora DSQL"),
            ("PostgreSQL 16", "db", "Aurora DSQL"),
            ("PostgreSQL 14.1", "localhost", "Cloud Spanner"),
        ] {
            let reason = refusal(version, host).expect(version);
            assert!(reason.contains(name), "{reason}");
        }
    }
}
