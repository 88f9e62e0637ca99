//! A statement, and how the server is to keep it.

use sqlx::{
    FromRow, Postgres, SqlStr,
    postgres::{PgArguments, PgRow},
    query::{Query, QueryAs, QueryScalar},
};

/// What stands between this process and Postgres.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Pooling {
    /// Nothing that would give a connection to somebody else: what was prepared
    /// on it stays there.
    #[default]
    Own,
    /// A pooler that lends a connection of the server for a transaction. What
    /// was prepared in an earlier one may be there or not, or be somebody
    /// else's under the same name.
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

    /// The same for a connection of the application's, which may be a pooler's.
    pub(super) fn for_others(&self) -> Self {
        Self {
            pooling: Pooling::Transaction,
            ..self.clone()
        }
    }

    /// By a name, so that it need not be parsed again.
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
