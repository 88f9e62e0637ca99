//! A visitor who records which changes were acknowledged.

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request, Response, StatusCode, header},
};
use tokio::time::Instant;
use tower::ServiceExt as _;

use super::{SLACK, Site};

/// Counts in a session under his own name.
#[derive(Clone, Debug)]
pub(crate) struct Visitor {
    site: Site,
    pub(crate) name: String,
    cookie: String,
    /// Increments that returned success.
    pub(crate) acknowledged: u64,
    /// Increments that returned 503, of which each may be stored.
    pub(crate) doubtful: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reply {
    Served,
    /// 503, in time, with the time to wait before trying again.
    Refused,
}

impl Visitor {
    /// One without a session.
    pub(crate) fn new(site: &Site, name: String) -> Self {
        Self {
            site: site.clone(),
            cookie: String::new(),
            acknowledged: 0,
            doubtful: 0,
            name,
        }
    }

    /// The same one at another site on the same table.
    pub(crate) fn at(&self, site: &Site) -> Self {
        Self {
            site: site.clone(),
            ..self.clone()
        }
    }

    /// Asks for a page that may be refused in any way.
    pub(crate) async fn status_of(&mut self, path: &str) -> u16 {
        self.ask(path).await.0.status().as_u16()
    }

    pub(crate) async fn enter(site: &Site, name: String) -> Self {
        let mut visitor = Self::new(site, name);
        let path = format!("/enter/{}", visitor.name);
        let (response, _) = visitor.ask(&path).await;
        assert_eq!(response.status(), StatusCode::OK, "{}", visitor.name);
        visitor
    }

    /// A session that takes several pages of the disk.
    pub(crate) async fn carry_much(&mut self) {
        let (response, _) = self.ask("/carry").await;
        assert_eq!(response.status(), StatusCode::OK, "{}", self.name);
    }

    /// Waits for no session, and so for nothing.
    pub(crate) async fn look_at_a_plain_page(&mut self) {
        let asked = Instant::now();
        let (response, _) = self.ask("/plain").await;
        assert_eq!(response.status(), StatusCode::OK);
        let took = asked.elapsed();
        assert!(took < SLACK, "a page without a session took {took:?}");
    }

    pub(crate) async fn add(&mut self) -> Reply {
        let reply = self.visit("/add", 1).await;
        match reply {
            Reply::Served => self.acknowledged += 1,
            Reply::Refused => self.doubtful += 1,
        }
        reply
    }

    pub(crate) async fn show(&mut self) -> Reply {
        self.visit("/show", 0).await
    }

    pub(crate) async fn cycle(&mut self) -> Reply {
        self.visit("/cycle", 0).await
    }

    async fn visit(&mut self, path: &str, adds: u64) -> Reply {
        let asked = Instant::now();
        let (response, body) = self.ask(path).await;
        let took = asked.elapsed();
        let waits = if path == "/show" { 1 } else { 2 };
        assert!(
            took < waits * self.site.timeout + SLACK,
            "{path} took {took:?}"
        );
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            let headers = response.headers();
            assert!(says_when_to_try_again(headers), "{path}: {headers:?}");
            return Reply::Refused;
        }
        assert_eq!(response.status(), StatusCode::OK, "{path}: {body}");
        self.believe(&body, adds);
        Reply::Served
    }

    /// The page shows this visitor, with all that was acknowledged.
    fn believe(&self, body: &str, adds: u64) {
        let (name, count) = body.rsplit_once(' ').expect("two words");
        assert_eq!(name, format!("{:?}", Some(&self.name)), "whose session?");
        let count: u64 = count.parse().expect("a number");
        self.check(count.checked_sub(adds).expect("it has added"));
    }

    /// Nothing acknowledged is lost, and nothing is there that was not asked
    /// for.
    pub(crate) fn check(&self, count: u64) {
        let possible = self.acknowledged..=self.acknowledged + self.doubtful;
        assert!(
            possible.contains(&count),
            "{}: {count} of {possible:?}",
            self.name
        );
    }

    async fn ask(&mut self, path: &str) -> (Response<()>, String) {
        let mut request = Request::get(path);
        if !self.cookie.is_empty() {
            request = request.header(header::COOKIE, &self.cookie);
        }
        let request = request.body(Body::empty()).expect("a request");
        let response = self.site.app.clone().oneshot(request).await;
        let (parts, body) = response.expect("a router never fails").into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a whole body");
        let response = Response::from_parts(parts, ());
        self.keep_cookie(response.headers());
        (response, String::from_utf8(body.into()).expect("text"))
    }

    fn keep_cookie(&mut self, headers: &HeaderMap) {
        let Some(cookie) = headers.get(header::SET_COOKIE) else {
            return;
        };
        let cookie = cookie.to_str().expect("ASCII");
        let pair = cookie.split(';').next().unwrap_or_default();
        assert!(!pair.ends_with('='), "{} loses his cookie", self.name);
        self.cookie = pair.to_owned();
    }
}

fn says_when_to_try_again(headers: &HeaderMap) -> bool {
    let seconds = headers.get(header::RETRY_AFTER);
    let seconds = seconds.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    seconds.is_some_and(|seconds| seconds > 0)
}
