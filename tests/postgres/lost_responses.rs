//! The client disconnects before it has read the response to a login: what it can do next with the
//! former cookie.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    routing::get,
};
use axum_pg_session::{Error, Session};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use crate::support::{
    Browser, Site,
    page::{patiently, until},
};

/// The head of a response, as far as the tests look at it.
struct Head {
    status: u16,
    retry_after: Option<u64>,
    cookie: Option<String>,
}

/// A site on a port, with a page that signs in.
struct Server {
    port: u16,
    /// Gets a permit at the end of each request, also of one that the client
    /// gave up.
    ended: Arc<Semaphore>,
}

/// Adds a permit when it is dropped.
struct Ends(Arc<Semaphore>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

async fn serve(site: &Site) -> Server {
    let sign_in = async |session: Session| session.login("alice");
    let user = async |session: Session| session.user_id().unwrap_or_default();
    let write = async |session: Session| {
        session.insert("seen", true)?;
        Ok::<_, Error>("written")
    };
    let app = Router::new()
        .route("/sign-in", get(sign_in))
        .route("/user", get(user))
        .route("/write", get(write))
        .layer(site.layer());
    let ended = Arc::new(Semaphore::new(0));
    let ends = Arc::clone(&ended);
    let app = app.layer(from_fn(move |request: Request, next: Next| {
        let ends = Ends(Arc::clone(&ends));
        async move {
            let _ends = ends;
            next.run(request).await
        }
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(axum::serve(listener, app).into_future());
    Server { port, ended }
}

async fn send(port: u16, cookie: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .expect("a connection");
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\ncookie: {cookie}\r\n\r\n"
    );
    let sent = stream.write_all(request.as_bytes()).await;
    sent.expect("the server reads");
    stream
}

async fn visit(port: u16, cookie: &str, path: &str) -> Head {
    let mut text = String::new();
    let mut stream = send(port, cookie, path).await;
    let read = stream.read_to_string(&mut text).await;
    read.expect("a response");
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let header = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    };
    Head {
        status: status
            .and_then(|status| status.parse().ok())
            .expect("a status"),
        retry_after: header("retry-after:").map(|seconds| seconds.parse().expect("seconds")),
        cookie: header("set-cookie:").map(|line| line.split(';').next().expect("one").to_owned()),
    }
}

/// Signs in, and cuts the connection when the response has come, unread.
async fn sign_in_and_cut(port: u16, cookie: &str) {
    let stream = send(port, cookie, "/sign-in").await;
    let first = stream.peek(&mut [0]).await;
    assert_eq!(first.expect("a response"), 1);
}

async fn visitor(site: &Site) -> String {
    let mut browser: Browser = site.browser();
    browser.get("/insert/basket/pear").await;
    let (name, token) = &browser.jar[0];
    format!("{name}={token}")
}

#[tokio::test]
async fn after_a_login_whose_response_is_cut_off_the_next_click_signs_in() {
    let site = Site::new().await;
    let (server, cookie) = (serve(&site).await, visitor(&site).await);
    let port = server.port;
    sign_in_and_cut(port, &cookie).await;
    let again = visit(port, &cookie, "/sign-in").await;
    assert_eq!(again.status, 200);
    let cookie = again.cookie.expect("a token");
    assert_eq!(visit(port, &cookie, "/write").await.status, 200);
}

#[tokio::test]
async fn after_a_login_whose_response_is_cut_off_a_page_writes_when_retry_after_says() {
    let site = Site::new().await;
    let (server, cookie) = (serve(&site).await, visitor(&site).await);
    let port = server.port;
    sign_in_and_cut(port, &cookie).await;
    let cut = Instant::now();
    let refused = visit(port, &cookie, "/write").await;
    assert_eq!(refused.status, 503);
    let seconds = refused.retry_after.expect("Retry-After");
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let written = visit(port, &cookie, "/write").await;
    println!("written after {:?}", cut.elapsed());
    assert_eq!(written.status, 200);
}

#[tokio::test]
async fn after_a_login_whose_connection_is_cut_before_its_commit_the_old_cookie_works_at_once() {
    let site = Site::new().await;
    let (server, cookie) = (serve(&site).await, visitor(&site).await);
    let port = server.port;
    let before = site.rows().dump().await;
    let held = site.hold_commits().await;
    let stream = send(port, &cookie, "/sign-in").await;
    until(|| site.is_blocked()).await;
    drop(stream);
    let ended = patiently(server.ended.acquire()).await;
    ended.expect("never closed").forget();
    drop(held);
    site.settled().await;
    patiently(until(async || site.rows().dump().await == before)).await;
    assert_eq!(visit(port, &cookie, "/write").await.status, 200);
}
