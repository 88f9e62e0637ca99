//! A later version may know more kinds of errors.

use axum_pg_session::ErrorKind;

fn is_ours(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::Unavailable
        | ErrorKind::Database
        | ErrorKind::Setup
        | ErrorKind::Conflict
        | ErrorKind::Ended
        | ErrorKind::Ambiguous
        | ErrorKind::SessionLimit
        | ErrorKind::Random => true,
        ErrorKind::Serialize
        | ErrorKind::Deserialize
        | ErrorKind::TooLarge
        | ErrorKind::ReservedKey
        | ErrorKind::ResponseStarted => false,
        //~ error[E0004]: non-exhaustive patterns
        //~ is marked as non-exhaustive
    }
}

fn main() {
    let _ = is_ours;
}
