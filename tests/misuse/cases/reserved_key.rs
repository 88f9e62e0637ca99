//! What the session knows of itself is not the application's.

use axum_pg_session::Key;

const OURS: Key<u32> = Key::new("_session");
//~ the key _session is reserved

fn main() {
    let _ = OURS;
}
