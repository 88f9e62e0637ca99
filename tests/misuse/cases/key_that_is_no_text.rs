//! A key is text, or has a type.

use axum_pg_session::{Error, Session};

fn add(session: &Session) -> Result<(), Error> {
    session.insert(42, "pear")
    //~ `{integer}` does not name a value of type
    //~ a key is text, or a `Key
}

fn main() {
    let _ = add;
}
