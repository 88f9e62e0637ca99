//! What an error of the database means: its kind, whether it may be temporary, whether the
//! statement had an effect, and whether the connection can be used again. It knows no
//! statement.

use std::{error::Error as StdError, fmt};

use sqlx::{
    error::DatabaseError,
    postgres::{PgDatabaseError, PgSeverity},
};

use crate::{Error, ErrorKind, store::connection::connecting};

/// The error for rows that are found and stay, though their deletion returns no error.
pub(in crate::store) fn spared() -> Error {
    Error::caused(
        ErrorKind::Database,
        "sessions were not deleted, although the DELETE reported no error; check the triggers of \
         the session table",
        Spared,
    )
}

/// The error for a row that an INSERT or UPDATE should have written, and did not.
pub(in crate::store) fn unwritten() -> Error {
    Error::new(
        ErrorKind::Database,
        "a session was not written, although the statement reported no error; check the triggers \
         of the session table",
    )
}

/// Marks the errors of deletions that left a row without an error.
#[derive(Debug)]
struct Spared;

impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the DELETE left rows that it should have deleted")
    }
}

impl StdError for Spared {}

pub(super) fn held_up(error: Error) -> Error {
    Error::caused(
        ErrorKind::Conflict,
        "another transaction has locked a row of this statement",
        HeldUp(error),
    )
}

/// Marks the errors of statements that were canceled because they waited for a locked
/// row.
#[derive(Debug)]
struct HeldUp(Error);

impl fmt::Display for HeldUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for HeldUp {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

impl From<sqlx::Error> for Error {
    fn from(source: sqlx::Error) -> Self {
        if let Some(message) = connecting::fault(&source) {
            return Self::caused(ErrorKind::Setup, message, source);
        }
        let (kind, message) = match &source {
            sqlx::Error::Database(error)
                if is_of_an_old_plan(&**error) || is_of_the_type_check(&**error) =>
            {
                (ErrorKind::Conflict, "the table was changed")
            }
            sqlx::Error::Database(error) => {
                of_sqlstate(error.code().as_deref().unwrap_or_default())
            }
            // The process stops, and a later request reaches another one.
            sqlx::Error::PoolClosed => (ErrorKind::Unavailable, "the pool is closed"),
            sqlx::Error::Configuration(_) => (ErrorKind::Setup, "the connection is misconfigured"),
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::WorkerCrashed => {
                (ErrorKind::Unavailable, "the database can't be reached")
            }
            _ => (
                ErrorKind::Database,
                "the database returned something unexpected",
            ),
        };
        Self::caused(kind, message, source)
    }
}

/// The classes that this crate acts on. See appendix A of the Postgres documentation.
fn of_sqlstate(code: &str) -> (ErrorKind, &'static str) {
    match code {
        "40001" | "40P01" | "55P03" => (ErrorKind::Conflict, "another writer was in the way"),
        "42501" => (ErrorKind::Setup, "the database role lacks a privilege"),
        "42P01" | "42703" | "42P10" | "0A000" | "3D000" | "3F000" | "28000" | "28P01" | "23502"
        | "22001" | "22P02" => (
            ErrorKind::Setup,
            "the table, its privileges or the login are wrong; call `check`",
        ),
        // Usually a character that the encoding of the database lacks.
        "22P05" | "22021" => (
            ErrorKind::Serialize,
            "the database can't store a character of this text; its encoding should be UTF-8, and \
             its column json rather than jsonb",
        ),
        "57014" | "57P01" | "57P02" | "57P03" | "57P05" | "25P02" | "25P03" | "25P04" | "25006"
        | "53100" | "53200" | "53300" => (
            ErrorKind::Unavailable,
            "the database can't serve at the moment",
        ),
        _ if code.starts_with("08") => (ErrorKind::Unavailable, "the connection was lost"),
        _ => (ErrorKind::Database, "the database refused a statement"),
    }
}

/// Whether the result type of a prepared statement has changed. Postgres has no separate code
/// for it, and translates the message.
fn is_of_an_old_plan(error: &dyn DatabaseError) -> bool {
    let routine = error
        .try_downcast_ref::<PgDatabaseError>()
        .and_then(PgDatabaseError::routine);
    error.code().as_deref() == Some("0A000")
        && routine.is_some_and(|routine| routine.starts_with("RevalidateCached"))
}

/// Whether the check that a statement makes of the types of its columns has failed.
fn is_of_the_type_check(error: &dyn DatabaseError) -> bool {
    let is_of_a_range = || {
        ["tsrange", "tstzrange"]
            .iter()
            .any(|range| error.message().contains(range))
    };
    error.code().as_deref() == Some("42883") && is_of_a_range()
}

impl Error {
    pub(crate) fn sqlstate(&self) -> Option<String> {
        Some(self.sqlx_error()?.as_database_error()?.code()?.into_owned())
    }

    pub(super) fn is_canceled(&self) -> bool {
        self.sqlstate().is_some_and(|code| code == "57014")
    }

    /// Whether the store, or the server's `lock_timeout`, ended the statement because it
    /// waited for a lock.
    pub(crate) fn is_of_a_lock(&self) -> bool {
        self.is_held_up() || self.sqlstate().is_some_and(|code| code == "55P03")
    }

    /// Whether the statement was canceled because it waited for a locked row. It has
    /// changed nothing.
    pub(crate) fn is_held_up(&self) -> bool {
        StdError::source(self).is_some_and(<dyn StdError>::is::<HeldUp>)
    }

    /// Whether the connection has prepared its statements for a table that was
    /// changed since.
    pub(crate) fn is_of_an_old_plan(&self) -> bool {
        self.sqlx_error()
            .and_then(sqlx::Error::as_database_error)
            .is_some_and(is_of_an_old_plan)
    }

    /// Whether a column has another type than when the table was inspected.
    pub(crate) fn is_of_another_type(&self) -> bool {
        match self.sqlx_error() {
            Some(sqlx::Error::ColumnDecode { source, .. }) => {
                source.to_string().starts_with("mismatched types")
            }
            _ => false,
        }
    }

    /// Whether the table was changed, so that it must be inspected again.
    pub(crate) fn is_of_a_changed_table(&self) -> bool {
        self.misses_something() || self.is_of_an_old_plan() || self.is_of_another_type()
    }

    fn sqlx_error(&self) -> Option<&sqlx::Error> {
        StdError::source(self)?.downcast_ref()
    }

    /// Whether other writers made the statement, or the transaction, fail as a whole. It has
    /// changed nothing.
    pub(crate) fn is_of_other_writers(&self) -> bool {
        self.sqlstate()
            .is_some_and(|code| matches!(code.as_str(), "40001" | "40P01"))
    }

    /// Whether the statement failed as is typical of a stricter isolation level than
    /// READ COMMITTED.
    pub(in crate::store) fn is_of_the_isolation(&self) -> bool {
        self.sqlstate().is_some_and(|code| code == "40001")
    }

    /// Whether the server itself reported that the statement failed. Otherwise the statement
    /// may still be in flight there, and be executed later. A pooler reports a lost
    /// connection to the server in class 08.
    pub(crate) fn is_of_the_server(&self) -> bool {
        self.sqlstate().is_some_and(|code| !code.starts_with("08"))
    }

    /// Marks the error of a deletion, so that it isn't mistaken for an error of the row that
    /// a login stores.
    pub(in crate::store) fn of_an_end(self) -> Self {
        match self.sqlstate().is_some_and(|code| code == "23503") {
            true => Self::caused(
                ErrorKind::Database,
                "a session can't be deleted, because another table references it",
                self,
            ),
            false => self,
        }
    }

    /// Explains the error of a login whose user doesn't exist, or was deleted meanwhile, if
    /// there is a foreign key from the column `user_id`.
    pub(in crate::store) fn of_a_login(self, is_login: bool) -> Self {
        let is_of_a_key = self.sqlstate().is_some_and(|code| code == "23503");
        match is_login && is_of_a_key {
            true => Self::caused(
                ErrorKind::UnknownUser,
                "a foreign key of the session table refuses this login; was the user deleted?",
                self,
            ),
            false => self,
        }
    }

    /// Whether the server closed the connection because it was idle, so that the statement
    /// never arrived.
    pub(crate) fn is_of_an_idle_connection(&self) -> bool {
        self.sqlstate().is_some_and(|code| code == "57P05")
    }

    /// Whether the connection is at fault, so that another one may work.
    pub(crate) fn is_of_the_connection(&self) -> bool {
        self.is_unavailable() && !self.is_out_of_time()
    }

    pub(super) fn is_unavailable(&self) -> bool {
        self.kind() == ErrorKind::Unavailable
    }

    /// Whether the connection can't be used again. In the middle of a statement, the next
    /// user would wait for the rest of the response, or forever. A connection to a primary
    /// that became a standby stays open but is useless. So is one in a failed transaction
    /// that another future left open.
    pub(super) fn spoils_the_connection(&self) -> bool {
        let is_of_use = |code: String| code == "57014" || code.starts_with("53");
        self.is_unavailable() && !self.sqlstate().is_some_and(is_of_use)
    }

    /// Whether the server refused what a statement would have written. Another statement may
    /// succeed.
    pub(crate) fn is_of_a_value(&self) -> bool {
        self.sqlstate().is_some()
            && matches!(self.kind(), ErrorKind::Serialize | ErrorKind::Database)
    }

    pub(crate) fn lacks_a_right(&self) -> bool {
        self.sqlstate().is_some_and(|code| code == "42501")
    }

    /// Whether the table, a column, a function for its type, or a right is missing.
    pub(crate) fn misses_something(&self) -> bool {
        self.sqlstate().is_some_and(|code| {
            matches!(
                code.as_str(),
                "42P01" | "42703" | "42883" | "42804" | "42501"
            )
        })
    }

    /// Whether one row of a statement can be at fault for all of it: data
    /// exceptions, violated constraints, triggers, limits, damaged values and
    /// pages, and locks that were not granted.
    ///
    /// After an error that ends the connection, such as those of a pooler, the outcome of the
    /// statement is unknown.
    pub(crate) fn blames_a_row(&self) -> bool {
        const CLASSES: [&str; 6] = ["22", "23", "44", "54", "P0", "XX"];
        let is_of_a_row = |code: String| {
            matches!(code.as_str(), "55P03" | "58030" | "58P01")
                || CLASSES.iter().any(|class| code.starts_with(class))
        };
        let has_failed = || self.ended_the_statement_only();
        let is_spared = StdError::source(self).is_some_and(<dyn StdError>::is::<Spared>);
        is_spared || self.is_held_up() || self.sqlstate().is_some_and(is_of_a_row) && has_failed()
    }

    /// Whether a document is damaged, or can't be converted to the connection's encoding.
    pub(crate) fn is_of_a_document(&self) -> bool {
        let codes = ["XX001", "XX002", "22021", "22P05"];
        let is_of_a_document = |code: String| codes.contains(&code.as_str());
        self.blames_a_row() && self.sqlstate().is_some_and(is_of_a_document)
    }

    /// Whether rows of a part of the table can be at fault, so that the statement may succeed
    /// for others. A server behind a foreign table reports its lost connections in class 08.
    pub(in crate::store) fn may_be_of_a_part(&self) -> bool {
        self.ended_the_statement_only() && !self.is_canceled() && !self.is_of_a_changed_table()
    }

    /// Whether the server rolled back the statement and keeps the connection open.
    fn ended_the_statement_only(&self) -> bool {
        self.sqlx_error()
            .and_then(sqlx::Error::as_database_error)
            .and_then(|error| error.try_downcast_ref::<PgDatabaseError>())
            .is_some_and(|error| matches!(error.severity(), PgSeverity::Error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_the_server_ended_is_unavailable() {
        for code in [
            "57P01", "57P02", "57P03", "57P05", "25P03", "25P04", "08006",
        ] {
            assert_eq!(of_sqlstate(code).0, ErrorKind::Unavailable, "{code}");
        }
    }
}
