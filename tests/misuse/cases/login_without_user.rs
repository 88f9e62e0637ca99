//! A login without a user.

use axum_pg_session::{Error, Session};

fn sign_in(session: &Session) -> Result<(), Error> {
    session.login()
    //~ error[E0061]: this method takes 1 argument but 0 arguments were supplied
}

fn main() {
    let _ = sign_in;
}
