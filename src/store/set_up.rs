use std::sync::{Arc, PoisonError, RwLock};

use crate::{
    Error, ErrorKind,
    format::{Format, Native},
    login::SessionLimit,
    store::{
        clock::Clock,
        columns::Columns,
        database::Database,
        inspect::{inspect, is_read_only, server},
        report::TableReport,
        table::{Table, TableName},
    },
    telemetry::{Call, Operation, Origins},
};

/// The table by name, and as it was found when it was looked at.
#[derive(Clone, Debug)]
pub(crate) struct SetUp {
    pub(super) database: Database,
    pub(super) name: TableName,
    pub(super) time_zone: String,
    pub(super) format: Arc<dyn Format>,
    pub(super) limit: Option<SessionLimit>,
    found: Arc<RwLock<Option<Arc<Table>>>>,
}

impl SetUp {
    pub(super) fn new(database: Database) -> Self {
        Self {
            database,
            name: TableName::default(),
            time_zone: "UTC".into(),
            format: Native::shared(),
            limit: None,
            found: Arc::default(),
        }
    }

    /// Another configuration, for which the table was not looked at yet.
    pub(super) fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = Self {
            found: Arc::default(),
            ..self.clone()
        };
        change(&mut changed);
        changed
    }

    /// The table, looked at once: at set-up, or else when first used.
    pub(super) async fn table(&self) -> Result<Arc<Table>, Error> {
        match self.found() {
            Some(table) => Ok(table),
            // Boxed, so that not every request carries room for it.
            None => Box::pin(self.look()).await,
        }
    }

    /// The table, if it was looked at already.
    pub(crate) fn found(&self) -> Option<Arc<Table>> {
        self.found
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What a task is about to ask of the table on its own.
    pub(super) fn call(&self, operation: Operation) -> Call<'_> {
        Call {
            operation,
            table: Some(&self.name),
            rows: 1,
            origins: Origins::Here,
        }
    }

    /// Looks again before the next statement where this one missed something:
    /// an application may change its table while its processes run.
    pub(super) fn learn_from<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        if outcome.as_ref().is_err_and(Error::misses_something) {
            *self.found.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        outcome
    }

    pub(super) async fn check(&self) -> Result<TableReport, Error> {
        self.check_engine().await?;
        self.database.noticed_pooling().await?;
        self.check_table().await
    }

    /// For whoever has looked for a pooler.
    pub(super) async fn check_table(&self) -> Result<TableReport, Error> {
        let report = self.look_at_table().await?.columns.report();
        match self
            .database
            .look(|connection| Box::pin(async move { Ok(is_read_only(connection).await?) }))
            .await?
        {
            true => Err(takes_no_writes()),
            false => Ok(report),
        }
    }

    async fn look(&self) -> Result<Arc<Table>, Error> {
        self.database.noticed_pooling().await?;
        self.look_at_table().await
    }

    async fn look_at_table(&self) -> Result<Arc<Table>, Error> {
        let columns = self.columns().await?.ok_or_else(|| self.no_table())?;
        columns.check_limit(self.limit, &self.name)?;
        let server = self
            .database
            .look(|connection| Box::pin(server(connection)))
            .await?;
        self.database.isolation.found(&server.isolation);
        let clock = Clock::at(server.now);
        let table = Table::new(
            self.name.clone(),
            columns,
            clock,
            &*self.format,
            self.database.pooling,
        );
        let table = Arc::new(table);
        *self.found.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&table));
        Ok(table)
    }

    /// # Errors
    ///
    /// When the table is there but can't serve.
    pub(super) async fn columns(&self) -> Result<Option<Columns>, Error> {
        self.name.check()?;
        let (name, time_zone) = (self.name.clone(), self.time_zone.clone());
        self.database
            .look(|connection| Box::pin(inspect(connection, name, time_zone)))
            .await
    }

    fn no_table(&self) -> Error {
        Error::new(
            ErrorKind::Setup,
            format!(
                "there is no table {}; perhaps you forgot to call PgSessionStore::migrate",
                self.name
            ),
        )
    }
}

fn takes_no_writes() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the server takes no writes; is it a standby, or is default_transaction_read_only set?",
    )
}
