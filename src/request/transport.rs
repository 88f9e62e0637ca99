use std::{borrow::Cow, fmt};

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};

/// Where a session's token travels, for
/// [`PgSessionLayer::transport`](crate::PgSessionLayer::transport).
///
/// The token opens the session, so it belongs into headers that no log, cache
/// or address line keeps, and must never be read from a query or a body. What
/// [`read`](Self::read) finds is input: only a token whose session is stored
/// opens anything, and none is ever adopted.
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
    /// What the request says, if anything. A value that can't be a token is
    /// taken for none.
    fn read<'h>(&self, request: &'h HeaderMap) -> Option<&'h [u8]>;

    /// Gives the visitor a token, which is marked as sensitive.
    fn write(&self, token: &HeaderValue, response: &mut HeaderMap);

    /// Tells the visitor that the token opens nothing any more.
    fn remove(&self, response: &mut HeaderMap);

    /// The request's header that the response depends on, for `Vary`. The token is
    /// bound to it, unless the layer has a
    /// [`cookie_name`](crate::PgSessionLayer::cookie_name).
    fn varies_by(&self) -> HeaderName;
}

/// A token in headers of the application's choice, for clients that keep no
/// cookies.
///
/// ```
/// use axum_pg_session::{HeaderTransport, PgSessionLayer, PgSessionStore};
/// use http::HeaderName;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = PgSessionStore::new(sqlx::PgPool::connect_lazy("postgres:///")?);
/// // `Authorization: Bearer …` in, `X-Session-Token: …` out.
/// let answer = HeaderName::from_static("x-session-token");
/// let layer = PgSessionLayer::new(store).transport(HeaderTransport::bearer(answer));
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
    /// The bare token in a header of this name, both ways.
    #[must_use]
    pub fn new(name: HeaderName) -> Self {
        Self {
            request: name.clone(),
            scheme: None,
            response: name,
        }
    }

    /// `Authorization: Bearer` with the request. With the response the token
    /// is in the header `response`, which is empty where the session ended.
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
