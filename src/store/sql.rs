//! A statement as text, and whether the server keeps it prepared. It knows no table and no
//! connection.

use sqlx::{
    FromRow, Postgres, SqlStr,
    postgres::{PgArguments, PgRow},
    query::{Query, QueryAs, QueryScalar},
};

/// Whether there is a pooler between this process and Postgres.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Pooling {
    /// Each connection belongs to this process, so its prepared statements stay.
    #[default]
    Own,
    /// A pooler in transaction mode. A statement that was prepared in an earlier transaction
    /// may be missing, or be one of another client with the same name.
    Transaction,
}

/// A statement for one table.
#[derive(Clone, Debug)]
pub(crate) struct Sql {
    text: SqlStr,
    pooling: Pooling,
}

impl Sql {
    pub(super) fn new(text: SqlStr, pooling: Pooling) -> Self {
        Self { text, pooling }
    }

    pub(super) fn query(&self) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(self.text.clone()).persistent(self.is_kept())
    }

    pub(super) fn query_as<T>(&self) -> QueryAs<'static, Postgres, T, PgArguments>
    where
        T: for<'r> FromRow<'r, PgRow>,
    {
        sqlx::query_as(self.text.clone()).persistent(self.is_kept())
    }

    pub(super) fn query_scalar<T>(&self) -> QueryScalar<'static, Postgres, T, PgArguments>
    where
        (T,): for<'r> FromRow<'r, PgRow>,
    {
        sqlx::query_scalar(self.text.clone()).persistent(self.is_kept())
    }

    /// The same statement for a connection of the application, which may lead to a pooler.
    pub(super) fn for_others(&self) -> Self {
        Self {
            pooling: Pooling::Transaction,
            ..self.clone()
        }
    }

    /// Whether it is prepared under a name, so that it isn't parsed again.
    fn is_kept(&self) -> bool {
        self.pooling == Pooling::Own
    }
}

/// A statement for one row, which is planned once, and for many.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    pub(super) one: Sql,
    pub(super) many: Sql,
}

#[cfg(test)]
mod tests;
