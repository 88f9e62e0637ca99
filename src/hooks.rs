//! What an application adds to the life of a session.

use std::{fmt, future::Future, sync::Arc};

use futures_core::future::BoxFuture;
use http::{Request, request::Parts};

use crate::{Error, Session};

type ValidIf = Arc<dyn Fn(Session, Arc<Parts>) -> BoxFuture<'static, bool> + Send + Sync>;
type BeforeSave = Arc<dyn Fn(&Session) -> Result<(), Error> + Send + Sync>;

/// The closures of a layer that see the session itself.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    valid_if: Option<ValidIf>,
    before_save: Option<BeforeSave>,
}

impl Hooks {
    pub(crate) fn check_with<F, Fut>(&mut self, check: F)
    where
        F: Fn(Session, Arc<Parts>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = bool> + Send + 'static,
    {
        self.valid_if = Some(Arc::new(move |session, request| {
            Box::pin(check(session, request))
        }));
    }

    pub(crate) fn prepare_with(
        &mut self,
        prepare: impl Fn(&Session) -> Result<(), Error> + Send + Sync + 'static,
    ) {
        self.before_save = Some(Arc::new(prepare));
    }

    /// A copy of the request, where somebody will look at it.
    pub(crate) fn head_of<B>(&self, request: &Request<B>) -> Option<Arc<Parts>> {
        self.valid_if.as_ref()?;
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = request.method().clone();
        parts.uri = request.uri().clone();
        parts.version = request.version();
        parts.headers = request.headers().clone();
        parts.extensions = request.extensions().clone();
        Some(Arc::new(parts))
    }

    pub(crate) async fn is_valid(&self, session: &Session, head: Option<&Arc<Parts>>) -> bool {
        match (&self.valid_if, head) {
            (Some(valid_if), Some(head)) => valid_if(session.clone(), Arc::clone(head)).await,
            _ => true,
        }
    }

    pub(crate) fn before_save(&self, session: &Session) -> Result<(), Error> {
        match &self.before_save {
            Some(before_save) => before_save(session),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("valid_if", &self.valid_if.is_some())
            .field("before_save", &self.before_save.is_some())
            .finish()
    }
}
