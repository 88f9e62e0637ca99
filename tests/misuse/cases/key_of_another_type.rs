//! A key has one type of values.

use axum_pg_session::{Error, Key, Session};

const CART: Key<Vec<u32>> = Key::new("cart");

fn add(session: &Session) -> Result<(), Error> {
    session.insert(CART, "pear")
    //~ error[E0308]: mismatched types
    //~ expected struct `Vec<u32>`
}

fn main() {
    let _ = add;
}
