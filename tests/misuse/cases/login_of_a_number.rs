//! A user's id is text.

use axum_pg_session::{Error, Session};

fn sign_in(session: &Session, user: i64) -> Result<(), Error> {
    session.login(user)
    //~ the trait bound `Login: From<i64>` is not satisfied
    //~ `Login` implements `From<&str>`
}

fn main() {
    let _ = sign_in;
}
