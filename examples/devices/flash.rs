//! A message for the next page, shown once.

use axum_pg_session::{Error, Session};

const KEY: &str = "flash";

pub(crate) fn show(session: &Session, message: impl Into<String>) -> Result<(), Error> {
    session.insert(KEY, message.into())
}

pub(crate) fn take(session: &Session) -> Result<Option<String>, Error> {
    session.remove(KEY)
}
