//! [`TypedSession`]: a session as one struct. It records its edits as changes of the
//! [`Session`], and knows neither HTTP nor the store.

use std::{fmt, marker::PhantomData};

use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Session, document::Document, session::shape, state::changes::Change};

/// The session of a request as one struct, as an extractor.
///
/// Its fields are the keys of the [`Session`]. [`update`](Self::update) saves only the
/// fields that it changed. So concurrent requests that change different fields keep each
/// other's changes, and keys that the struct does not have stay, such as those of another
/// part of the site.
///
/// The struct may change from one version of the site to the next:
///
/// - A field that is not stored yet has its value of `T::default()`. It is stored when it
///   changes. An `Option` that is not stored is `None`, unless the struct has
///   `#[serde(default)]`.
/// - A stored key that the struct no longer has stays as it is, also for a version that
///   still has it and runs at the same time.
/// - A field with a `#[serde(alias = "former name")]` is read from the former name, and
///   moved when the field changes. If a version that only has the former name stores it
///   again, it is ignored.
/// - A stored value that is no longer of its field's type is an error that names the
///   field, and nothing is changed. If you change the type, give the field a new name, or
///   a `#[serde(deserialize_with = "…")]` that reads both types.
///
/// ```
/// use axum::{Router, body::Body, http::Request, routing::post};
/// use axum_pg_session::{Error, PgSessionLayer, PgSessionStore, TypedSession};
/// use serde::{Deserialize, Serialize};
/// use tower::ServiceExt;
///
/// #[derive(Default, Deserialize, Serialize)]
/// struct Visitor {
///     name: Option<String>,
///     basket: Vec<u32>,
/// }
///
/// async fn add(visitor: TypedSession<Visitor>) -> Result<String, Error> {
///     let articles = visitor.update(|visitor| {
///         visitor.basket.push(7);
///         visitor.basket.len()
///     })?;
///     let name = visitor.get()?.name.unwrap_or("you".into());
///     Ok(format!("{articles} for {name}"))
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// let store = PgSessionStore::connect(database.url()).await?;
/// store.migrate().await?;
/// let app = Router::new().route("/", post(add)).layer(PgSessionLayer::new(store));
///
/// let response = app.oneshot(Request::post("/").body(Body::empty())?).await?;
/// let body = axum::body::to_bytes(response.into_body(), 100).await?;
/// assert_eq!(body, "1 for you");
/// # Ok(()) }
/// ```
pub struct TypedSession<T> {
    session: Session,
    shape: PhantomData<fn() -> T>,
}

impl<T> TypedSession<T> {
    /// Returns the session itself, to sign in, to destroy it, or for keys that the struct
    /// does not have.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }
}

impl<T> TypedSession<T>
where
    T: Default + Serialize + DeserializeOwned + 'static,
{
    /// Returns a copy of the session as it is now.
    ///
    /// # Errors
    ///
    /// Of kind [`Deserialize`](crate::ErrorKind::Deserialize) if the value of a key is not
    /// of its field's type. The value stays as it is.
    pub fn get(&self) -> Result<T, Error> {
        shape::read(self.session.try_state()?.document())
    }

    /// Changes the session, and returns the result of `update`.
    ///
    /// Like [`Session::update`], it loses no change if requests are concurrent: if
    /// another request is saved first, `update` is called again with the newer session,
    /// and only the fields that it changes are saved. So `update` should depend only on
    /// its argument, and must not use this session. If it changes nothing, nothing is
    /// saved.
    ///
    /// # Errors
    ///
    /// Of kind [`Deserialize`](crate::ErrorKind::Deserialize) if the session can't be read
    /// as a `T`, before or after the change. Of kind
    /// [`Serialize`](crate::ErrorKind::Serialize) if `T` doesn't serialize to a JSON
    /// object, or if a field that it skips would be read with another value. Also those of [`Session::insert`]. On error, nothing is changed.
    pub fn update<R>(
        &self,
        mut update: impl FnMut(&mut T) -> R + Send + 'static,
    ) -> Result<R, Error> {
        let mut state = self.session.open_state()?;
        let limits = state.limits();
        let mut draft = Document::clone(state.document());
        let outcome = shape::edit(&mut draft, limits, &mut update)?;
        let again =
            move |document: &mut Document| shape::edit(document, limits, &mut update).map(drop);
        state.record_edit(Change::Edit(Box::new(again)), draft)?;
        Ok(outcome)
    }
}

impl<T> From<Session> for TypedSession<T> {
    fn from(session: Session) -> Self {
        Self {
            session,
            shape: PhantomData,
        }
    }
}

impl<T> Clone for TypedSession<T> {
    /// Returns another handle to the same session.
    fn clone(&self) -> Self {
        self.session.clone().into()
    }
}

impl<T> fmt::Debug for TypedSession<T> {
    /// Omits the values, because they can be personal data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedSession").field(&self.session).finish()
    }
}
