//! Creates the table, or adds what it lacks. It doesn't check whether the result can be used:
//! [`handle`](super::handle) does.
//!
//! sqlx runs each migration once, and notes it. If the table, a column or an index was dropped
//! since, the statements of the migrations that added it are executed again. The notes stay as
//! they are.
//!
//! Dropped futures: the connection that runs the migrations is not returned to the pool, so it
//! is closed. A migration whose commit was not sent is rolled back, and the next call runs it
//! again.

use std::{borrow::Cow, sync::LazyLock};

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqlSafeStr as _};
use sqlx_core::migrate::{MigrateError, Migration, MigrationType, Migrator};

use crate::{
    Error, ErrorKind,
    format::{Format, Native},
    store::{
        connection::transaction::begin,
        sql::Pooling,
        table::{
            columns::Columns,
            engine::check_engine,
            handle::TableHandle,
            inspect::inspect,
            name::{TableName, quoted},
            tombstones,
        },
    },
};

/// To build an index of a large table takes longer than the application's statements may. And
/// names in the files, such as `now()`, are those of the catalog.
const SETTINGS: [(&str, &str); 4] = [
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("search_path", "pg_catalog"),
    ("default_transaction_isolation", "'read committed'"),
];

/// The migrations of the default table, `public.session`.
///
/// They are recorded in a table of their own, `_axum_pg_session_migrations`, so they don't
/// conflict with the migrations of your application. [`PgSessionStore::migrate`] does the
/// same, also for other tables. It also restores what was dropped, and needs no privilege to
/// create anything once the table is complete. Behind a pooler in transaction mode, use that
/// method: this migrator holds an advisory lock of its connection, which the pooler would pass
/// on to other clients.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// let pool = sqlx::PgPool::connect(database.url()).await?;
/// axum_pg_session::MIGRATOR.run(&pool).await?;
///
/// let report = axum_pg_session::PgSessionStore::new(pool).check().await?;
/// assert!(report.absolute_timeout);
/// # Ok(()) }
/// ```
///
/// [`PgSessionStore::migrate`]: crate::PgSessionStore::migrate
pub static MIGRATOR: LazyLock<Migrator> =
    LazyLock::new(|| migrator(&TableName::default(), &Native));

/// Version, description, and the statement as it is written for the default
/// table.
const MIGRATIONS: [(i64, &str, &str); 7] = [
    (
        1,
        "session",
        include_str!("../../../migrations/0001_session.sql"),
    ),
    (
        2,
        "created and user id",
        include_str!("../../../migrations/0002_created_and_user_id.sql"),
    ),
    (
        3,
        "expiry index",
        include_str!("../../../migrations/0003_expiry_index.sql"),
    ),
    (
        4,
        "user id index",
        include_str!("../../../migrations/0004_user_id_index.sql"),
    ),
    (
        5,
        "last seen and device",
        include_str!("../../../migrations/0005_last_seen_and_device.sql"),
    ),
    (
        6,
        "external id",
        include_str!("../../../migrations/0006_external_id.sql"),
    ),
    (
        7,
        "external id index",
        include_str!("../../../migrations/0007_external_id_index.sql"),
    ),
];

/// The second migration, for a format that stores the user in the document.
const USER_IN_THE_DOCUMENT: &str =
    include_str!("../../../migrations/shared/0002_created_and_user_id.sql");

/// The statement for the format of another application. It is not noted, but executed if its
/// result is missing. Those for [`tombstones`] are treated in the same way.
const HANDLE_INDEX: &str = include_str!("../../../migrations/shared/0008_handle_index.sql");

/// The migrations of a table in this format.
fn migrations(
    name: &TableName,
    format: &dyn Format,
) -> impl Iterator<Item = (i64, &'static str, String)> {
    let has_user = format.layout().user().is_some();
    let columns = format.columns();
    MIGRATIONS.iter().map(move |&(version, description, sql)| {
        let sql = match version {
            2 if has_user => USER_IN_THE_DOCUMENT,
            _ => sql,
        };
        (version, description, columns.render_migration(name, sql))
    })
}

fn migrator(name: &TableName, format: &dyn Format) -> Migrator {
    let migrations = migrations(name, format)
        .map(|(version, description, sql)| {
            Migration::new(
                version,
                Cow::Borrowed(description),
                MigrationType::Simple,
                AssertSqlSafe(sql).into_sql_str(),
                false,
            )
        })
        .collect();
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.dangerous_set_table_name(bookkeeping(name));
    // During a rolling deployment, the table may record migrations of a later version.
    migrator.set_ignore_missing(true);
    migrator
}

/// The name of the table that records the migrations. Each session table has its own, so that
/// two in one schema don't share their records.
fn bookkeeping(name: &TableName) -> String {
    format!("{}.{}", quoted(&name.schema), quoted(&notes(name)))
}

fn notes(name: &TableName) -> String {
    name.derived("_axum_pg_", "_migrations")
}

impl TableHandle {
    /// Inspects the table first and creates only what is missing. So a role without CREATE
    /// rights can call it on a complete table, and many processes can call it at once.
    pub(in crate::store) async fn migrate(&self) -> Result<(), Error> {
        check_engine(&self.executor).await?;
        let found = self.columns().await?;
        // This fails before anything is created.
        let pooling = self.executor.detect_pooling().await?;
        match found {
            Some(columns) if self.is_complete(&columns) => {}
            Some(columns) if !columns.may_be_altered => self.warn_of_an_incomplete_table(),
            Some(_) => self.complete(pooling).await?,
            None => self.create(pooling).await?,
        }
        self.check_table().await.map(drop)
    }

    async fn create(&self, pooling: Pooling) -> Result<(), Error> {
        let (name, schema) = (&self.name, quoted(&self.name.schema));
        let created = self.create_schema().await;
        created.map_err(|error| no_right_to(error, &format!("schema {schema}"), "the database"))?;
        let created = self.run_migrations(pooling).await;
        created.map_err(|error| {
            no_right_to(
                error,
                &format!("table {name}"),
                &format!("the schema {schema}"),
            )
        })
    }

    /// Adds what the table lacks. If this role may not do that, a table with the three
    /// required columns is used as it is.
    async fn complete(&self, pooling: Pooling) -> Result<(), Error> {
        match self.run_migrations(pooling).await {
            Err(error) if error.lacks_a_right() => match self.has_notes().await? {
                true => Err(self.no_right_to_the_notes(error)),
                false => {
                    self.warn_of_an_incomplete_table();
                    Ok(())
                }
            },
            outcome => outcome,
        }
    }

    /// Logs that the table is used as it is. No migration is recorded then, so the owner of
    /// the table can still run all of them.
    fn warn_of_an_incomplete_table(&self) {
        tracing::warn!(
            db.collection.name = %self.name,
            "the database role can't add the missing columns of the session table, and their features are \
             off; call migrate as the owner of the table, with CREATE on its schema"
        );
    }

    async fn has_notes(&self) -> Result<bool, Error> {
        let (schema, table) = (self.name.schema.clone(), notes(&self.name));
        self.executor
            .look(|connection| Box::pin(has_table(connection, schema, table)))
            .await
    }

    fn no_right_to_the_notes(&self, source: Error) -> Error {
        let notes = bookkeeping(&self.name);
        Error::caused(
            ErrorKind::Setup,
            format!(
                "this role may complete the table {}, but not write {notes}, where its migrations \
                 are noted; grant it that, or drop {notes}, as the migrations can be run again",
                self.name
            ),
            source,
        )
    }

    /// Creates the schema if it is missing. `CREATE SCHEMA IF NOT EXISTS` would need a right
    /// on the database even if the schema exists, and fails if two connections run it at
    /// once.
    async fn create_schema(&self) -> Result<(), Error> {
        if self.has_schema().await? {
            return Ok(());
        }
        let sql = format!("CREATE SCHEMA {}", quoted(&self.name.schema));
        let created = sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(self.executor.pool())
            .await;
        match created {
            Err(_) if self.has_schema().await? => Ok(()),
            outcome => Ok(outcome.map(drop)?),
        }
    }

    async fn has_schema(&self) -> Result<bool, Error> {
        let schema = self.name.schema.clone();
        self.executor
            .look(|connection| Box::pin(has_schema(connection, schema)))
            .await
    }

    /// Runs the migrations on a connection that leaves the pool and is closed at the end. sqlx
    /// keeps its lock if a migration fails or its future is dropped. If the connection stayed
    /// open, every later migration of the database would wait for it. It is not a new
    /// connection, because the role may have none left.
    async fn run_migrations(&self, pooling: Pooling) -> Result<(), Error> {
        let mut connection = self.executor.pool().acquire().await?.detach();
        let outcome = self.run_migrations_on(&mut connection, pooling).await;
        // Even if this fails, dropping the connection closes its socket.
        drop(connection.close().await);
        outcome
    }

    async fn run_migrations_on(
        &self,
        connection: &mut PgConnection,
        pooling: Pooling,
    ) -> Result<(), Error> {
        match pooling {
            Pooling::Own => self.migrate_on(connection).await?,
            Pooling::Transaction => self.migrate_in_one_transaction(connection).await?,
        }
        self.restore_what_was_dropped(connection).await
    }

    async fn migrate_on(&self, connection: &mut PgConnection) -> Result<(), Error> {
        sqlx::raw_sql(AssertSqlSafe(settings("SET")))
            .execute(&mut *connection)
            .await?;
        // A store behind a pooler takes the same lock. It ends with the connection.
        sqlx::query(include_str!("../sql/advisory_session_lock.sql"))
            .persistent(false)
            .bind(self.name.lock_key("migrations"))
            .execute(&mut *connection)
            .await?;
        // `run` calls the same function, but its trait bounds don't hold in a task.
        Ok(migrator(&self.name, &*self.format)
            .run_direct(None, connection, false)
            .await?)
    }

    /// Runs the migrations in one transaction, with a lock that ends with it. A session lock
    /// would stay on the server's connection, which the pooler gives to other clients.
    async fn migrate_in_one_transaction(&self, connection: &mut PgConnection) -> Result<(), Error> {
        let mut transaction = begin(connection).await?;
        self.lock_in(&mut transaction).await?;
        let mut migrator = migrator(&self.name, &*self.format);
        migrator.set_locking(false);
        migrator.run_direct(None, &mut *transaction, false).await?;
        // The migrator's prepared statements have names, and would stay too.
        transaction.clear_cached_statements().await?;
        Ok(transaction.commit().await?)
    }

    async fn lock_in(&self, transaction: &mut PgConnection) -> Result<(), Error> {
        sqlx::raw_sql(AssertSqlSafe(settings("SET LOCAL")))
            .execute(&mut *transaction)
            .await?;
        sqlx::query(include_str!("../sql/advisory_lock.sql"))
            .persistent(false)
            .bind(self.name.lock_key("migrations"))
            .execute(&mut *transaction)
            .await?;
        Ok(())
    }

    /// Executes the migrations again whose results are missing, although they are noted. Each
    /// has a transaction of its own, so that readers don't wait while an index is built.
    async fn restore_what_was_dropped(&self, connection: &mut PgConnection) -> Result<(), Error> {
        for sql in self.missing(connection).await? {
            let mut transaction = begin(connection).await?;
            self.lock_in(&mut transaction).await?;
            sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
        }
        Ok(())
    }

    /// Whether the table has the result of every migration, and of the store's options.
    fn is_complete(&self, columns: &Columns) -> bool {
        let has_handle_index = columns.has_handle_index || !self.format.has_secret_ids();
        let has_tombstones = columns.has_tombstones || !self.tombstones;
        columns.are_complete() && has_handle_index && has_tombstones
    }

    /// The statements that would add something.
    async fn missing(&self, connection: &mut PgConnection) -> Result<Vec<String>, Error> {
        let mut transaction = begin(connection).await?;
        let found = inspect(&mut transaction, self.wanted()).await?;
        let all = migrations(&self.name, &*self.format);
        let Some(columns) = found.map(|found| found.columns) else {
            return Ok(all.map(|(.., sql)| sql).collect());
        };
        // A column of another type has its name, so the migration would not add it.
        let lacks = |column| !columns.carries(column) && !columns.has(column);
        let mut missing = Vec::new();
        for (version, is_missing) in [
            (2, lacks("created") || lacks("user_id")),
            (5, lacks("last_seen") || lacks("device")),
            (6, lacks("external_id")),
        ] {
            missing.extend(is_missing.then_some(version));
        }
        for (version, is_there, suffix) in [
            (3, columns.has_expiry_index, "_expiry_idx"),
            (4, columns.has_user_id_index, "_user_id_idx"),
            (7, columns.has_external_id_index, "_external_id_idx"),
        ] {
            let index = self.name.derived("", suffix);
            // An invalid index has its name, too.
            if !is_there && !has_table(&mut transaction, self.name.schema.clone(), index).await? {
                missing.push(version);
            }
        }
        let mut statements: Vec<_> = all
            .filter(|(version, ..)| missing.contains(version))
            .map(|(.., sql)| sql)
            .collect();
        let names = self.format.columns();
        if self.format.has_secret_ids() && !columns.has_handle_index {
            statements.push(names.render_migration(&self.name, HANDLE_INDEX));
        }
        if self.tombstones && !columns.has_tombstones {
            statements.push(tombstones::render(&self.name, names, &columns.expiry));
        }
        transaction.commit().await?;
        Ok(statements)
    }
}

fn settings(set: &str) -> String {
    let settings = SETTINGS.map(|(name, value)| format!("{set} {name} = {value}"));
    settings.join("; ")
}

async fn has_table(
    connection: &mut PgConnection,
    schema: String,
    table: String,
) -> Result<bool, Error> {
    let found = sqlx::query_scalar(include_str!("../sql/has_table.sql"))
        .persistent(false)
        .bind(schema)
        .bind(table)
        .fetch_one(connection)
        .await?;
    Ok(found)
}

async fn has_schema(connection: &mut PgConnection, schema: String) -> Result<bool, Error> {
    let found = sqlx::query_scalar(include_str!("../sql/has_schema.sql"))
        .persistent(false)
        .bind(schema)
        .fetch_one(connection)
        .await?;
    Ok(found)
}

impl From<MigrateError> for Error {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => {
                source.into()
            }
            other => Self::caused(
                ErrorKind::Setup,
                "the migrations of the session table could not be run",
                other,
            ),
        }
    }
}

/// The error, with what to do if the role may not create `missing`.
fn no_right_to(error: Error, missing: &str, owner: &str) -> Error {
    match error.lacks_a_right() {
        true => Error::caused(
            ErrorKind::Setup,
            format!(
                "the database role can't create the {missing}: run `migrate` once as another role, \
                 or grant it CREATE on {owner}"
            ),
            error,
        ),
        false => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ColumnNames;

    #[test]
    fn the_migrations_of_two_tables_share_no_name() {
        let other = TableName {
            schema: "app".into(),
            table: "a\"b".into(),
        };
        let rendered: Vec<_> = MIGRATIONS
            .iter()
            .map(|(_, _, sql)| ColumnNames::OURS.render_migration(&other, sql))
            .collect();
        assert!(rendered[2].contains(r#""a""b_expiry_idx" ON "app"."a""b""#));
        assert!(rendered[3].contains(r#""a""b_user_id_idx" ON "app"."a""b""#));
        assert!(rendered.iter().all(|sql| !sql.contains("\"session")));
        assert_eq!(bookkeeping(&other), r#""app"."_axum_pg_a""b_migrations""#);
    }

    #[test]
    fn every_file_of_the_folder_is_a_migration() {
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations"))
            .expect("the folder")
            .filter_map(|entry| {
                entry
                    .ok()?
                    .path()
                    .extension()
                    .map(|extension| extension == "sql")
            })
            .filter(|is_sql| *is_sql)
            .count();
        assert_eq!(files, MIGRATIONS.len());
        assert_eq!(MIGRATOR.iter().count(), files);
    }
}
