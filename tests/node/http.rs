//! Requests, to a port of this machine or to a router of this process.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode, header},
};
use cookie::{Cookie, time::OffsetDateTime};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tower::ServiceExt as _;

/// One of the servers of a site.
#[derive(Clone, Debug)]
pub(crate) enum Server {
    /// A Node site, on a port of this machine.
    Node {
        port: u16,
    },
    Axum(Router),
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Server {
    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        match self {
            Self::Node { port } => send_to(*port, request).await,
            Self::Axum(router) => send_in(router.clone(), request).await,
        }
    }
}

async fn send_in(router: Router, request: Request<Body>) -> Reply {
    let response = router.oneshot(request).await.expect("it never fails");
    let (parts, body) = response.into_parts();
    Reply::new(parts.status, parts.headers, body).await
}

pub(crate) async fn send_to(port: u16, request: Request<Body>) -> Reply {
    let stream = TcpStream::connect(("127.0.0.1", port)).await;
    let stream = TokioIo::new(stream.expect("a server that listens"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .expect("a connection");
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.expect("a response");
    let (parts, body) = response.into_parts();
    let reply = Reply::new(parts.status, parts.headers, Body::new(body)).await;
    connection.abort();
    reply
}

impl Reply {
    async fn new(status: StatusCode, headers: HeaderMap, body: Body) -> Self {
        let body = to_bytes(body, usize::MAX).await.expect("a whole body");
        Self {
            status,
            headers,
            body: String::from_utf8(body.to_vec()).expect("text"),
        }
    }

    /// The lines of Set-Cookie.
    pub(crate) fn set_cookies(&self) -> Vec<&str> {
        let lines = self.headers.get_all(header::SET_COOKIE).iter();
        lines.map(|line| line.to_str().expect("ASCII")).collect()
    }

    pub(crate) fn is_ok(&self) {
        assert_eq!(self.status, 200, "{}", self.body);
    }

    /// What the page says that the session is.
    pub(crate) fn session(&self) -> Value {
        self.is_ok();
        serde_json::from_str(&self.body).expect("JSON")
    }

    /// The lines of Set-Cookie without their dates.
    pub(crate) fn dateless_cookies(&self) -> Vec<String> {
        let cookies = self.set_cookies();
        cookies.into_iter().map(without_date).collect()
    }

    /// Seconds until the cookie of this name expires in the browser.
    pub(crate) fn cookie_life(&self, name: &str) -> f64 {
        let cookies = self.set_cookies().into_iter();
        let cookie = cookies
            .map(|line| Cookie::parse(line).expect("a cookie"))
            .find(|cookie| cookie.name() == name)
            .unwrap_or_else(|| panic!("{name} in {:?}", self.set_cookies()));
        let expires = cookie.expires_datetime().expect("a date");
        (expires - OffsetDateTime::now_utc()).as_seconds_f64()
    }
}

fn without_date(line: &str) -> String {
    let Some(start) = line.to_ascii_lowercase().find("expires=") else {
        return line.to_owned();
    };
    let (before, rest) = line.split_at(start + "expires".len());
    let after = rest.split_once(';').map_or("", |(_, after)| after);
    format!("{before};{after}")
}
