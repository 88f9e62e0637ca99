//! The closures that an application gives to a layer, and the copy of the request's head
//! that they receive. This module calls them. It doesn't know what follows.

use std::{error::Error as StdError, fmt, future::Future, sync::Arc};

use axum::extract::OriginalUri;
use futures_core::future::BoxFuture;
use http::{Request, StatusCode, request::Parts};

use crate::{Error, ErrorKind, Session, session::BeforeSave};

type BoxError = Box<dyn StdError + Send + Sync>;
type ValidIf =
    Arc<dyn Fn(Session, Arc<Parts>) -> BoxFuture<'static, Result<bool, BoxError>> + Send + Sync>;
type ByResponse = Arc<dyn Fn(&Parts, StatusCode) -> bool + Send + Sync>;

/// The return type of a [`valid_if`](crate::PgSessionLayer::valid_if) check: a
/// `bool`, or a `Result<bool, E>` if the check can fail. A check that uses a pool is
/// in the example of [`valid_if`](crate::PgSessionLayer::valid_if).
///
/// ```
/// use axum_pg_session::{PgSessionLayer, PgSessionStore, Session};
///
/// /// Asks another service, which may be unavailable.
/// async fn is_banned(user_id: Option<String>) -> Result<bool, std::io::Error> {
///     Ok(user_id.as_deref() == Some("mallory"))
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
/// let layer = PgSessionLayer::new(store).valid_if(async |session: Session, _| {
///     is_banned(session.user_id()).await.map(|banned| !banned)
/// });
/// assert!(layer.check().is_ok());
/// # Ok(()) }
/// ```
pub trait Validity: sealed::Sealed {
    #[doc(hidden)]
    fn into_result(self) -> Result<bool, BoxError>;
}

impl Validity for bool {
    fn into_result(self) -> Result<bool, BoxError> {
        Ok(self)
    }
}

impl<E: Into<BoxError>> Validity for Result<bool, E> {
    fn into_result(self) -> Result<bool, BoxError> {
        self.map_err(Into::into)
    }
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for bool {}

    impl<E> Sealed for Result<bool, E> {}
}

/// The closures of a layer.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    valid_if: Option<ValidIf>,
    before_save: Option<BeforeSave>,
    touch_if: Option<ByResponse>,
    save_if: Option<ByResponse>,
}

tokio::task_local! {
    /// The request whose session the current future checks.
    static CHECKING: usize;
}

/// Whether the check for `request` is loading the session that it checks, which
/// would deadlock.
pub(crate) fn is_checking(request: usize) -> bool {
    CHECKING.try_with(|checking| *checking == request) == Ok(true)
}

impl Hooks {
    pub(crate) fn set_valid_if<F, Fut>(&mut self, check: F)
    where
        F: Fn(Session, Arc<Parts>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Validity> + Send + 'static,
    {
        self.valid_if = Some(Arc::new(move |session, request| {
            let check = check(session, request);
            Box::pin(async move { check.await.into_result() })
        }));
    }

    pub(crate) fn set_before_save(
        &mut self,
        prepare: impl Fn(&Session) -> Result<(), Error> + Send + Sync + 'static,
    ) {
        self.before_save = Some(Arc::new(prepare));
    }

    pub(crate) fn set_touch_if(
        &mut self,
        predicate: impl Fn(&Parts, StatusCode) -> bool + Send + Sync + 'static,
    ) {
        self.touch_if = Some(Arc::new(predicate));
    }

    pub(crate) fn set_save_if(
        &mut self,
        predicate: impl Fn(&Parts, StatusCode) -> bool + Send + Sync + 'static,
    ) {
        self.save_if = Some(Arc::new(predicate));
    }

    /// A copy of the request's head, if a hook uses it. The URI is the one that
    /// the client requested, even if a router has stripped a prefix.
    pub(crate) fn head_of<B>(&self, request: &Request<B>) -> Option<Arc<Parts>> {
        if self.valid_if.is_none() && self.touch_if.is_none() && self.save_if.is_none() {
            return None;
        }
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = request.method().clone();
        parts.uri = match request.extensions().get::<OriginalUri>() {
            Some(OriginalUri(uri)) => uri.clone(),
            None => request.uri().clone(),
        };
        parts.version = request.version();
        parts.headers = request.headers().clone();
        parts.extensions = request.extensions().clone();
        Some(Arc::new(parts))
    }

    /// Runs the check. If the future is dropped, the check is dropped where it waits.
    ///
    /// # Errors
    ///
    /// If the check fails. Then the validity of the session is unknown.
    pub(crate) async fn is_valid(
        &self,
        session: &Session,
        head: Option<&Arc<Parts>>,
        request: usize,
    ) -> Result<bool, Error> {
        let (Some(valid_if), Some(head)) = (&self.valid_if, head) else {
            return Ok(true);
        };
        let check = valid_if(session.clone(), Arc::clone(head));
        CHECKING.scope(request, check).await.map_err(unchecked)
    }

    /// The hook that runs before a save.
    pub(crate) fn before_save(&self) -> Option<BeforeSave> {
        self.before_save.clone()
    }

    /// Whether a response with this status extends the session.
    pub(crate) fn touches(&self, head: Option<&Arc<Parts>>, status: StatusCode) -> bool {
        match (&self.touch_if, head) {
            (Some(touch_if), Some(head)) => touch_if(head, status),
            _ => true,
        }
    }

    /// Whether a response with this status saves the recorded changes. The default
    /// excludes 408, because a timeout layer inside of this one sends it for a handler
    /// that it canceled.
    pub(crate) fn saves(&self, head: Option<&Arc<Parts>>, status: StatusCode) -> bool {
        match (&self.save_if, head) {
            (Some(save_if), Some(head)) => save_if(head, status),
            _ => !status.is_server_error() && status != StatusCode::REQUEST_TIMEOUT,
        }
    }
}

/// Converts the error of a check. An error of this crate keeps its kind, unless it is the
/// application's. If it is the error of a query, its kind decides whether another attempt
/// may succeed.
fn unchecked(source: BoxError) -> Error {
    let source = match source.downcast::<Error>() {
        Ok(error) if error.kind() != ErrorKind::Application => return *error,
        Ok(error) => return Error::unchecked(error),
        Err(source) => source,
    };
    match source.downcast::<sqlx::Error>() {
        Ok(error) => Error::unchecked_for(Error::from(*error)),
        Err(source) => Error::unchecked(source),
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("valid_if", &self.valid_if.is_some())
            .field("before_save", &self.before_save.is_some())
            .field("touch_if", &self.touch_if.is_some())
            .field("save_if", &self.save_if.is_some())
            .finish()
    }
}
