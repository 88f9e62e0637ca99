//! The headers that carry a token instead of a cookie. A transport only reads and writes
//! headers: it doesn't know whether a token opens a session.

use std::{borrow::Cow, fmt};

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};

/// The headers that carry a session's token, for
/// [`PgSessionLayer::transport`](crate::PgSessionLayer::transport).
///
/// The token opens the session, so it belongs in headers that logs and caches don't
/// store. Never read it from a query or a body. The value that [`read`](Self::read)
/// returns is untrusted input: only a token of a stored session opens one, and a new
/// session never gets a token from a request.
///
/// ```
/// use axum_pg_session::Transport;
/// use http::{HeaderMap, HeaderName, HeaderValue};
///
/// /// `X-Session`, both ways.
/// #[derive(Debug)]
/// struct XSession;
///
/// const NAME: HeaderName = HeaderName::from_static("x-session");
///
/// impl Transport for XSession {
///     fn read<'h>(&self, request: &'h HeaderMap) -> Option<&'h [u8]> {
///         Some(request.get(NAME)?.as_bytes())
///     }
///     fn write(&self, token: &HeaderValue, response: &mut HeaderMap) {
///         response.insert(NAME, token.clone());
///     }
///     fn remove(&self, response: &mut HeaderMap) {
///         response.insert(NAME, HeaderValue::from_static(""));
///     }
///     fn varies_by(&self) -> HeaderName {
///         NAME
///     }
/// }
///
/// let mut headers = HeaderMap::new();
/// XSession.write(&HeaderValue::from_static("token"), &mut headers);
/// assert_eq!(XSession.read(&headers), Some(b"token".as_slice()));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say where a session's token travels",
    label = "not a `Transport`",
    note = "a token in a header is `HeaderTransport::new(name)`, or `HeaderTransport::bearer(name)`; \
            without `transport` it is in a cookie, whose name is `cookie_name`'s"
)]
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Returns the token of the request, if there is one. A value that is not a
    /// well-formed token opens no session.
    fn read<'h>(&self, request: &'h HeaderMap) -> Option<&'h [u8]>;

    /// Sends a token to the client. It is marked as sensitive.
    fn write(&self, token: &HeaderValue, response: &mut HeaderMap);

    /// Asks the client to drop its token, because the session was destroyed.
    fn remove(&self, response: &mut HeaderMap);

    /// Returns the request's header that the response depends on, for `Vary`. The token
    /// is bound to it, unless the layer has a
    /// [`cookie_name`](crate::PgSessionLayer::cookie_name).
    fn varies_by(&self) -> HeaderName;
}

/// A token in headers of the application's choice, for clients without cookies.
///
/// ```
/// use axum_pg_session::{HeaderTransport, PgSessionLayer, PgSessionStore};
/// use http::HeaderName;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
/// // `Authorization: Bearer …` in, `X-Session-Token: …` out.
/// let response = HeaderName::from_static("x-session-token");
/// let layer = PgSessionLayer::new(store).transport(HeaderTransport::bearer(response));
/// assert!(layer.check().is_ok());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderTransport {
    request: HeaderName,
    scheme: Option<Cow<'static, str>>,
    response: HeaderName,
}

impl HeaderTransport {
    /// Uses this header for requests and responses. Its value is the token.
    #[must_use]
    pub fn new(name: HeaderName) -> Self {
        Self {
            request: name.clone(),
            scheme: None,
            response: name,
        }
    }

    /// Uses `Authorization: Bearer` for requests, and the header `response` for
    /// responses. If the session was destroyed, that header is empty.
    #[must_use]
    pub fn bearer(response: HeaderName) -> Self {
        Self {
            request: AUTHORIZATION,
            scheme: Some("Bearer".into()),
            response,
        }
    }
}

impl Transport for HeaderTransport {
    fn read<'h>(&self, request: &'h HeaderMap) -> Option<&'h [u8]> {
        let value = request.get(&self.request)?.as_bytes();
        let Some(scheme) = &self.scheme else {
            return Some(value);
        };
        let (found, rest) = value.split_at_checked(scheme.len())?;
        let token = rest.strip_prefix(b" ")?;
        found
            .eq_ignore_ascii_case(scheme.as_bytes())
            .then(|| token.trim_ascii())
    }

    fn write(&self, token: &HeaderValue, response: &mut HeaderMap) {
        response.insert(&self.response, token.clone());
    }

    fn remove(&self, response: &mut HeaderMap) {
        response.insert(&self.response, HeaderValue::from_static(""));
    }

    fn varies_by(&self) -> HeaderName {
        self.request.clone()
    }
}
