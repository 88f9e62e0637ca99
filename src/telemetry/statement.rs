//! One statement or transaction, as OpenTelemetry's conventions for database
//! clients describe it (version 1.44, `db/postgresql.md`).

use std::fmt;

use sqlx::{PgPool, postgres::PgConnectOptions};
use tracing::{Instrument as _, Span, debug_span, field::Empty, instrument::Instrumented};

use super::{
    Meter, Operation, Origin, Stopwatch,
    spans::{follow, parent},
};
use crate::Error;

/// The description of a statement or transaction.
pub(crate) struct Call<'c> {
    pub(crate) operation: Operation,
    /// The schema and the name of its table, if it concerns one.
    pub(crate) table: Option<(&'c str, &'c str)>,
    pub(crate) rows: usize,
    pub(crate) origins: Origins<'c>,
}

/// The requests that it is sent for.
#[derive(Clone, Copy)]
pub(crate) enum Origins<'o> {
    /// The task that waits for it.
    Here,
    Of(&'o [Origin]),
}

/// A statement that was sent and has not ended.
pub(crate) struct Running<'m> {
    meter: &'m Meter,
    operation: Operation,
    since: Stopwatch,
    span: Span,
}

impl<'m> Running<'m> {
    pub(crate) fn begin(call: &Call<'_>, meter: &'m Meter, pool: &PgPool) -> Self {
        Self {
            meter,
            operation: call.operation,
            since: Stopwatch::start(),
            span: call.span(pool),
        }
    }

    pub(crate) fn around<F: Future>(&self, work: F) -> Instrumented<F> {
        work.instrument(self.span.clone())
    }

    pub(crate) fn ended<T>(self, outcome: &Result<T, Error>) {
        let error = outcome.as_ref().err();
        self.meter.ended(self.operation, self.since, error);
        if let (Some(error), false) = (error, self.span.is_disabled()) {
            self.span.record("error.type", error.kind().name());
            self.span.record("otel.status_code", "ERROR");
            if let Some(code) = error.sqlstate() {
                self.span.record("db.response.status_code", code);
            }
        }
    }
}

impl Call<'_> {
    /// The conventions define a batch as several operations that were submitted
    /// separately. A single one is not a batch.
    fn span(&self, pool: &PgPool) -> Span {
        let origins = match self.origins {
            Origins::Here => &[Origin::current()][..],
            Origins::Of(origins) => origins,
        };
        let is_batch = self.rows > 1;
        let command = self.operation.command();
        let span = debug_span!(
            parent: parent(origins),
            "statement",
            otel.name = %self,
            otel.kind = "client",
            otel.status_code = Empty,
            db.system.name = "postgresql",
            db.query.summary = %self,
            db.operation.name = command.map(|command| display(Batched(is_batch, command))),
            db.operation.batch.size = is_batch.then_some(self.rows),
            db.collection.name = self.table.map(|(schema, table)| display(Collection(schema, table))),
            db.namespace = %Namespace(&pool.connect_options(), self.table.map(|(schema, _)| schema)),
            server.address = %Address(&pool.connect_options()),
            server.port = pool.connect_options().get_port(),
            db.response.status_code = Empty,
            error.type = Empty,
        );
        follow(&span, origins);
        span
    }
}

/// The name of the span, with low cardinality: `load session`.
impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Batched(self.rows > 1, self.operation.name()).fmt(f)?;
        match self.table {
            Some((_, table)) => write!(f, " {table}"),
            None => Ok(()),
        }
    }
}

struct Batched(bool, &'static str);

impl fmt::Display for Batched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(is_batch, name) = self;
        match is_batch {
            true => write!(f, "BATCH {name}"),
            false => f.write_str(name),
        }
    }
}

struct Collection<'c>(&'c str, &'c str);

impl fmt::Display for Collection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The database and the schema of the table. The schema of the connection is not queried.
struct Namespace<'n>(&'n PgConnectOptions, Option<&'n str>);

impl fmt::Display for Namespace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.get_database(), self.1) {
            (Some(database), Some(schema)) => write!(f, "{database}|{schema}"),
            (name, other) => f.write_str(name.or(other).unwrap_or_default()),
        }
    }
}

/// A host, or the directory of a socket.
struct Address<'a>(&'a PgConnectOptions);

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get_socket() {
            Some(socket) => write!(f, "{}", socket.display()),
            None => f.write_str(self.0.get_host()),
        }
    }
}
