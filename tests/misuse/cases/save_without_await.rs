//! An explicit save must be awaited.

#![deny(unused_must_use)]

use axum_pg_session::Session;

async fn save(session: Session) {
    session.save();
    //~ unused implementer of `Future` that must be used
}

fn main() {
    let _ = save;
}
