//! A visitor: a cookie jar in front of a router.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode, header},
};
use axum_pg_session::SessionId;
use cookie::Cookie;
use tower::ServiceExt as _;

/// Keeps cookies as a browser of one host does: by name, without regard for
/// paths and domains.
#[derive(Clone, Debug)]
pub(crate) struct Browser {
    app: Router,
    pub(crate) jar: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    /// What the layer, or a handler, put into the response's extensions.
    pub(crate) error: Option<axum_pg_session::Error>,
}

impl Reply {
    #[track_caller]
    pub(crate) fn assert(&self, status: u16, body: &str) {
        assert_eq!((self.status.as_u16(), self.body.as_str()), (status, body));
    }

    pub(crate) fn set_cookies(&self) -> Vec<Cookie<'static>> {
        self.headers
            .get_all(header::SET_COOKIE)
            .iter()
            .map(|value| value.to_str().expect("ASCII").to_owned())
            .map(|value| Cookie::parse(value).expect("a cookie"))
            .collect()
    }

    /// The token that this response gave the browser.
    pub(crate) fn token(&self) -> Option<String> {
        self.set_cookies()
            .into_iter()
            .map(|cookie| cookie.value().to_owned())
            .find(|value| !value.is_empty())
    }

    pub(crate) fn sets_no_cookie(&self) -> bool {
        self.set_cookies().is_empty()
    }

    pub(crate) fn removes_the_cookie(&self) -> bool {
        let cookies = self.set_cookies();
        cookies.len() == 1
            && cookies[0].value().is_empty()
            && cookies[0].max_age() == Some(cookie::time::Duration::ZERO)
    }
}

impl Browser {
    pub(crate) fn new(app: &Router) -> Self {
        Self {
            app: app.clone(),
            jar: Vec::new(),
        }
    }

    /// A visitor whose session holds `a`.
    pub(crate) async fn with_session(app: &Router) -> Self {
        let mut browser = Self::new(app);
        assert!(browser.get("/insert/a/1").await.token().is_some());
        browser
    }

    /// A browser with the same cookies that knows another process.
    pub(crate) fn at(&self, app: &Router) -> Self {
        Self {
            app: app.clone(),
            jar: self.jar.clone(),
        }
    }

    pub(crate) fn with_cookie(mut self, name: &str, value: &str) -> Self {
        self.keep(name, value);
        self
    }

    pub(crate) fn cookie(&self, name: &str) -> Option<&str> {
        let found = self.jar.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The value of the only cookie.
    pub(crate) fn token(&self) -> &str {
        assert_eq!(self.jar.len(), 1, "one cookie in {:?}", self.jar);
        &self.jar[0].1
    }

    fn keep(&mut self, name: &str, value: &str) {
        self.jar.retain(|(known, _)| known != name);
        if !value.is_empty() {
            self.jar.push((name.to_owned(), value.to_owned()));
        }
    }

    pub(crate) fn request(&self, path: &str) -> Request<Body> {
        let mut request = Request::get(path);
        if !self.jar.is_empty() {
            let pairs: Vec<_> = self
                .jar
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            request = request.header(header::COOKIE, pairs.join("; "));
        }
        request.body(Body::empty()).expect("a request")
    }

    /// Visits and keeps the cookies of the response.
    pub(crate) async fn get(&mut self, path: &str) -> Reply {
        let reply = self.peek(path).await;
        self.accept(&reply);
        reply
    }

    /// Visits without keeping the cookies of the response.
    pub(crate) async fn peek(&self, path: &str) -> Reply {
        self.send(self.request(path)).await
    }

    /// The handle of the session.
    pub(crate) async fn handle(&self) -> SessionId {
        let id = self.peek("/id").await.body;
        id.parse().expect("a handle")
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        send(self.app.clone(), request).await
    }

    pub(crate) fn accept(&mut self, reply: &Reply) {
        for cookie in reply.set_cookies() {
            let value = if is_over(&cookie) { "" } else { cookie.value() };
            self.keep(cookie.name(), value);
        }
    }
}

/// Whether the cookie is sent to be removed.
fn is_over(cookie: &Cookie<'_>) -> bool {
    cookie.expires_datetime() == Some(cookie::time::OffsetDateTime::UNIX_EPOCH)
}

pub(crate) async fn send(app: Router, request: Request<Body>) -> Reply {
    let response = app.oneshot(request).await.expect("a router never fails");
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a whole body");
    Reply {
        status: parts.status,
        error: parts.extensions.get().cloned(),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).expect("text"),
    }
}
