//! What is read from a session is the reader's own.

use axum_pg_session::{Error, Session};

fn name(session: &Session) -> Result<Option<&str>, Error> {
    session.get("name")
    //~ is not general enough
    //~ `&str` must implement
}

fn main() {
    let _ = name;
}
