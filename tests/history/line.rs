//! A visitor's connection: HTTP over TCP, closed in the middle of a request if the visitor gives
//! up.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};

use crate::record::{Doubt, GivenCookie, Outcome};
use crate::site::Deed;

/// The default name of the layer's cookie.
const COOKIE: &str = "__Host-id";
/// On localhost the cookie has another name.
const HOST: &str = "shop.example";

pub(crate) struct Line {
    pub(crate) port: u16,
    sender: SendRequest<Body>,
    driving: JoinHandle<()>,
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    cookies: Vec<String>,
    body: Vec<u8>,
}

impl Line {
    pub(crate) async fn open(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
        let driving = tokio::spawn(async move {
            // The sender reports the end to the caller.
            drop(connection.await);
        });
        Some(Self {
            port,
            sender,
            driving,
        })
    }

    pub(crate) fn leads_to(&self, port: u16) -> bool {
        self.port == port && !self.sender.is_closed()
    }

    /// # Errors
    ///
    /// When the response did not come: the visitor's patience was up, or the
    /// connection was. The line is of no more use then.
    pub(crate) async fn get(
        &mut self,
        path: &str,
        token: Option<&str>,
        patience: Duration,
    ) -> Result<Reply, Doubt> {
        match timeout(patience, self.exchange(path, token)).await {
            Err(_) => Err(Doubt::Cancelled),
            Ok(None) => Err(Doubt::ConnectionLost),
            Ok(Some(reply)) => Ok(reply),
        }
    }

    /// The frames of a socket. `None` if the page opened none.
    pub(crate) async fn open_socket(&mut self, token: &str) -> Option<Body> {
        let request = Request::get("/socket")
            .header(header::HOST, HOST)
            .header(header::COOKIE, format!("{COOKIE}={token}"))
            .body(Body::empty())
            .expect("a request");
        self.sender.ready().await.ok()?;
        let response = self.sender.send_request(request).await.ok()?;
        let is_open = response.status() == 200;
        is_open.then(|| Body::new(response.into_body()))
    }

    async fn exchange(&mut self, path: &str, token: Option<&str>) -> Option<Reply> {
        let mut request = Request::get(path).header(header::HOST, HOST);
        if let Some(token) = token {
            request = request.header(header::COOKIE, format!("{COOKIE}={token}"));
        }
        let request = request.body(Body::empty()).expect("a request");
        self.sender.ready().await.ok()?;
        Reply::read(self.sender.send_request(request).await.ok()?).await
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

impl Reply {
    async fn read(response: Response<Incoming>) -> Option<Self> {
        let (parts, body) = response.into_parts();
        let body = to_bytes(Body::new(body), usize::MAX).await.ok()?;
        let cookies = parts.headers.get_all(header::SET_COOKIE);
        Some(Self {
            status: parts.status.as_u16(),
            cookies: cookies
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect(),
            body: body.to_vec(),
        })
    }

    pub(crate) fn outcome(&self, deed: Deed) -> Outcome {
        let read = match (self.status, self.cookie()) {
            (200, Some(cookie)) => self.seen().map(|seen| Outcome::Done(seen, cookie)),
            (409, Some(cookie)) if deed == Deed::Begin => {
                self.seen().map(|seen| Outcome::Done(seen, cookie))
            }
            (500, Some(cookie)) if deed == Deed::Fail => {
                self.seen().map(|seen| Outcome::Dropped(seen, cookie))
            }
            (410, Some(cookie)) => Some(Outcome::NoSession(cookie)),
            (503, Some(GivenCookie::None)) => Some(Outcome::InDoubt(Doubt::Unavailable)),
            _ => None,
        };
        read.unwrap_or_else(|| Outcome::Strange(self.text()))
    }

    fn seen<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// What a browser makes of the response; `None` where no response of ours
    /// should look so.
    fn cookie(&self) -> Option<GivenCookie> {
        let [text] = self.cookies.as_slice() else {
            return self.cookies.is_empty().then_some(GivenCookie::None);
        };
        let cookie = cookie::Cookie::parse(text.as_str()).ok()?;
        match (cookie.name(), cookie.value()) {
            (COOKIE, "") => Some(GivenCookie::Removal),
            (COOKIE, token) => Some(GivenCookie::Token(token.into())),
            _ => None,
        }
    }

    fn text(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        format!("{} {:?} {body}", self.status, self.cookies)
    }
}
