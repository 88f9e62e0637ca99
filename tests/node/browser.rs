//! A browser: its cookies go to whatever server has the host, path and scheme
//! that they are for, as RFC 6265 says, and ports do not matter.

use axum::{
    body::Body,
    http::{Request, header},
};
use cookie::{
    Cookie,
    time::{Duration, OffsetDateTime},
};

use super::{Reply, Server};

#[derive(Clone, Debug)]
pub(crate) struct Browser {
    pub(crate) host: String,
    pub(crate) scheme: &'static str,
    pub(crate) jar: Vec<Kept>,
}

/// A cookie in the jar.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kept {
    pub(crate) name: String,
    pub(crate) value: String,
    domain: String,
    host_only: bool,
    path: String,
    secure: bool,
    pub(crate) http_only: bool,
    /// None: until the browser ends.
    pub(crate) expires: Option<OffsetDateTime>,
}

impl Browser {
    pub(crate) fn new() -> Self {
        Self {
            host: "site.test".into(),
            scheme: "http",
            jar: Vec::new(),
        }
    }

    /// The browser, at another host of the site.
    pub(crate) fn at_host(mut self, host: &str) -> Self {
        self.host = host.into();
        self
    }

    /// The browser, with the proxy that has the site's certificate.
    pub(crate) fn over_tls(mut self) -> Self {
        self.scheme = "https";
        self
    }

    pub(crate) fn cookie(&self, name: &str) -> Option<&Kept> {
        self.jar.iter().find(|kept| kept.name == name)
    }

    /// The value of a cookie that must be there.
    pub(crate) fn value(&self, name: &str) -> &str {
        let kept = self.cookie(name);
        &kept
            .unwrap_or_else(|| panic!("{name} in {:?}", self.jar))
            .value
    }

    /// Puts a cookie into the jar that no server set.
    pub(crate) fn forge(&mut self, name: &str, value: &str) {
        let cookie = Cookie::new(name.to_owned(), value.to_owned());
        let kept = self.kept(&cookie, "/");
        self.replace(kept);
    }

    /// Asks the page at `/` for these steps, and keeps the cookies.
    pub(crate) async fn visit(&mut self, server: &Server, steps: impl ToString) -> Reply {
        self.visit_at(server, "/", steps).await
    }

    pub(crate) async fn visit_at(
        &mut self,
        server: &Server,
        path: &str,
        steps: impl ToString,
    ) -> Reply {
        let response = self.peek_at(server, path, steps).await;
        self.accept(path, &response);
        response
    }

    /// Visits without keeping the cookies of the response.
    pub(crate) async fn peek(&self, server: &Server, steps: impl ToString) -> Reply {
        self.peek_at(server, "/", steps).await
    }

    pub(crate) async fn peek_at(&self, server: &Server, path: &str, steps: impl ToString) -> Reply {
        server.send(self.request(path, steps.to_string())).await
    }

    fn request(&self, path: &str, steps: String) -> Request<Body> {
        let pairs: Vec<_> = self
            .jar
            .iter()
            .filter(|kept| self.sends(kept, path))
            .map(|kept| format!("{}={}", kept.name, kept.value))
            .collect();
        let mut request = Request::post(path)
            .header(header::HOST, &self.host)
            .header("x-forwarded-proto", self.scheme);
        if !pairs.is_empty() {
            request = request.header(header::COOKIE, pairs.join("; "));
        }
        request.body(Body::from(steps)).expect("a request")
    }

    fn sends(&self, kept: &Kept, path: &str) -> bool {
        let of_host = match kept.host_only {
            true => self.host == kept.domain,
            false => domain_matches(&self.host, &kept.domain),
        };
        of_host && path_matches(path, &kept.path) && (!kept.secure || self.scheme == "https")
    }

    /// Does with the jar what the response to a request for `path` says.
    pub(crate) fn accept(&mut self, path: &str, response: &Reply) {
        for line in response.set_cookies() {
            let cookie = Cookie::parse(line.to_owned()).expect("a cookie");
            let kept = self.kept(&cookie, path);
            let refused =
                kept.secure && self.scheme != "https" || !domain_matches(&self.host, &kept.domain);
            if !refused {
                self.replace(kept);
            }
        }
    }

    fn kept(&self, cookie: &Cookie<'_>, requested: &str) -> Kept {
        let now = OffsetDateTime::now_utc();
        let lives = cookie
            .max_age()
            .map(|age| now + age.min(Duration::days(400)));
        let path = cookie.path().filter(|path| path.starts_with('/'));
        Kept {
            name: cookie.name().to_owned(),
            value: cookie.value().to_owned(),
            domain: cookie.domain().unwrap_or(&self.host).to_owned(),
            host_only: cookie.domain().is_none(),
            path: path.unwrap_or_else(|| default_path(requested)).to_owned(),
            secure: cookie.secure() == Some(true),
            http_only: cookie.http_only() == Some(true),
            expires: lives.or_else(|| cookie.expires_datetime()),
        }
    }

    /// A cookie takes the place of the one of the same name, domain and path.
    fn replace(&mut self, kept: Kept) {
        let is_same = |other: &Kept| {
            (&other.name, &other.domain, &other.path) == (&kept.name, &kept.domain, &kept.path)
        };
        self.jar.retain(|other| !is_same(other));
        let is_over = kept
            .expires
            .is_some_and(|expires| expires <= OffsetDateTime::now_utc());
        if !is_over {
            self.jar.push(kept);
        }
    }
}

fn domain_matches(host: &str, domain: &str) -> bool {
    host == domain
        || host
            .strip_suffix(domain)
            .is_some_and(|rest| rest.ends_with('.'))
}

fn path_matches(requested: &str, path: &str) -> bool {
    requested
        .strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || path.ends_with('/'))
}

fn default_path(requested: &str) -> &str {
    match requested.rfind('/') {
        None | Some(0) => "/",
        Some(end) => &requested[..end],
    }
}
