//! The closure of an update is kept, as it may run again.

use axum_pg_session::{Error, Session};

fn add(session: &Session, items: &[String]) -> Result<Vec<String>, Error> {
    session.update("basket", |basket: Option<Vec<String>>| {
        let mut basket = basket.unwrap_or_default();
        basket.extend(items.iter().cloned());
        basket
    })
    //~ error[E0521]: borrowed data escapes outside of function
    //~ argument requires that `'1` must outlive `'static`
}

fn main() {
    let _ = add;
}
