//! Typed keys. This module doesn't know documents.

use std::{borrow::Cow, fmt, hash, marker::PhantomData};

use crate::document::RESERVED;

/// The name and the type of a value in the session, so that all parts of an
/// application use the same ones.
///
/// Every method that takes a key accepts a `Key`, and then only values of its type.
///
/// ```
/// use axum_pg_session::{Error, Key, Session};
///
/// const CART: Key<Vec<u32>> = Key::new("cart");
///
/// fn add(session: &Session, article: u32) -> Result<usize, Error> {
///     let cart = session.update(CART, move |cart| {
///         let mut cart = cart.unwrap_or_default();
///         cart.push(article);
///         cart
///     })?;
///     Ok(cart.len())
/// }
///
/// fn is_full(session: &Session) -> Result<bool, Error> {
///     Ok(session.get(CART)?.is_some_and(|cart| cart.len() >= 100))
/// }
/// # use axum_pg_session::{PgSessionLayer, PgSessionStore};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let pool = sqlx::PgPool::connect_lazy("postgres://127.0.0.1:1/none")?;
/// # let app = axum::Router::new()
/// #     .route("/", axum::routing::get(async |session: Session| {
/// #         assert!(!is_full(&session)?);
/// #         assert_eq!(add(&session, 7)?, 1);
/// #         session.discard()
/// #     }))
/// #     .layer(PgSessionLayer::new(PgSessionStore::new(pool)));
/// # let response = tower::ServiceExt::oneshot(app, http::Request::new(axum::body::Body::empty())).await?;
/// # assert!(response.status().is_success());
/// # Ok(()) }
/// ```
///
/// A value of another type does not compile:
///
/// ```compile_fail,E0308
/// # use axum_pg_session::{Error, Key, Session};
/// # const CART: Key<Vec<u32>> = Key::new("cart");
/// # fn add(session: &Session) -> Result<(), Error> {
/// session.insert(CART, "pear")
/// # }
/// ```
pub struct Key<T> {
    name: &'static str,
    value: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// Creates a key with this name.
    ///
    /// # Panics
    ///
    /// If the name is `_session`, which is reserved for the crate. In a `const` this is
    /// a compile error.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        assert!(!is_reserved(name), "the key _session is reserved");
        Self {
            name,
            value: PhantomData,
        }
    }

    /// Returns the name under which the value is stored.
    ///
    /// ```
    /// use axum_pg_session::Key;
    ///
    /// const CART: Key<Vec<u32>> = Key::new("cart");
    /// assert_eq!(CART.name(), "cart");
    /// ```
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

/// Whether the name is reserved. A `const fn` can't compare strings by `==`.
const fn is_reserved(name: &str) -> bool {
    let (name, reserved) = (name.as_bytes(), RESERVED.as_bytes());
    if name.len() != reserved.len() {
        return false;
    }
    let mut at = 0;
    while at < name.len() {
        if name[at] != reserved[at] {
            return false;
        }
        at += 1;
    }
    true
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl<T> Eq for Key<T> {}

impl<T> hash::Hash for Key<T> {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.name).finish()
    }
}

impl<T> AsRef<str> for Key<T> {
    fn as_ref(&self) -> &str {
        self.name
    }
}

/// The name of a value of type `T` in a session: a string, or a [`Key`] of that type.
///
/// This trait is sealed.
///
/// ```
/// use axum_pg_session::{Key, AsKey};
///
/// /// Any name of a number.
/// fn name(key: impl AsKey<u32>) -> String {
///     key.as_ref().to_owned()
/// }
///
/// const VISITS: Key<u32> = Key::new("visits");
/// assert_eq!(name(VISITS), name("visits"));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name a value of type `{T}` in a session",
    label = "names values of another type, or none",
    note = "a key is text, or a `Key<{T}>`, which takes and gives `{T}` itself and no reference to it"
)]
pub trait AsKey<T>: AsRef<str> + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

impl<T> sealed::Sealed for Key<T> {}
impl<T> AsKey<T> for Key<T> {}

macro_rules! text {
    ($($text:ty),*) => {$(
        impl sealed::Sealed for $text {}
        impl<T> AsKey<T> for $text {}
    )*};
}

text!(
    &str,
    &&str,
    String,
    &String,
    Cow<'_, str>,
    &Cow<'_, str>,
    Box<str>,
    &Box<str>
);
