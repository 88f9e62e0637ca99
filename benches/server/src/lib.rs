//! The common part of the servers that `throughput` measures, so that they differ only in their
//! sessions: how they start and end, the runtime, the sockets, and the contents of a session.

use std::{env, fmt, io, thread};

use axum::{
    Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    serve::ListenerExt as _,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};

/// The member that `/read` reads and `/incr` increments.
pub const COUNTER: &str = "counter";

/// The arguments of a server: `URL CONNECTIONS [VARIANT]`.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// A database, or a Redis, for this server alone.
    pub url: String,
    /// The maximum number of connections to it.
    pub connections: u32,
    /// For servers that have several ways to keep sessions.
    pub variant: String,
}

impl Arguments {
    /// Those of this process.
    ///
    /// # Panics
    ///
    /// When they are invalid.
    #[must_use]
    pub fn of_process() -> Self {
        let mut arguments = env::args().skip(1);
        let mut next = || arguments.next().unwrap_or_default();
        Self {
            url: next(),
            connections: next().parse().expect("a number of connections"),
            variant: next(),
        }
    }
}

/// The handlers of a server under the paths that are measured, and `/plain`.
#[macro_export]
macro_rules! pages {
    ($read:path, $increment:path, $new:path, $seed:path) => {
        axum::Router::new()
            .route("/plain", axum::routing::get(async || "plain"))
            .route("/read", axum::routing::get($read))
            .route("/incr", axum::routing::get($increment))
            .route("/new", axum::routing::get($new))
            .route("/seed", axum::routing::get($seed))
    };
}

/// Serves on a free port, prints the address, and ends with the standard input. So no server
/// remains when the benchmark has ended.
///
/// # Errors
///
/// When there is no socket to listen on.
///
/// # Panics
///
/// When a new socket refuses an option.
pub async fn serve(app: Router) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?);
    let listener = listener.tap_io(|stream| {
        stream.set_nodelay(true).expect("a new socket");
    });
    let (ended, end) = oneshot::channel();
    thread::spawn(move || {
        drop(io::copy(&mut io::stdin(), &mut io::sink()));
        ended.send(())
    });
    tokio::select! {
        result = async { axum::serve(listener, app).await } => result,
        _ = end => Ok(()),
    }
}

/// The counter as `/read` and `/incr` return it.
#[must_use]
pub fn text(counter: Option<u64>) -> String {
    counter.map_or_else(|| "none".to_owned(), |n| n.to_string())
}

/// The contents of the sessions that `/seed` creates: the counter, and what applications keep in a
/// session, 700 bytes as JSON.
#[must_use]
pub fn members() -> Vec<(&'static str, Value)> {
    vec![
        (COUNTER, json!(0)),
        (
            "user",
            json!({
                "id": "6f1c1a52-5c0e-4a39-9f0d-2f7b0c3b8d11",
                "name": "Grace Hopper",
                "email": "grace.hopper@example.org",
                "roles": ["author", "editor"],
            }),
        ),
        ("csrf", json!("Zk3p0oVq7m2yJ8hT1cXwL5sNdRbUeAfG")),
        ("locale", json!("en-GB")),
        ("theme", json!("dark")),
        (
            "cart",
            json!([
                {"sku": "B-1042", "title": "The Art of Sailing", "count": 1, "cents": 2495},
                {"sku": "P-0007", "title": "Fountain Pen, fine", "count": 2, "cents": 3900},
            ]),
        ),
        (
            "address",
            json!({
                "street": "1 Navy Yard, Building 42, Third Floor",
                "city": "Philadelphia",
                "state": "Pennsylvania",
                "zip": "19112",
                "country": "United States of America",
                "instructions": "Ring twice or leave it with the neighbor at number 43, left."
            }),
        ),
        ("seen", json!("2026-11-02T08:15:30Z")),
        (
            "flash",
            json!(["Your changes are saved. Your order will be posted."]),
        ),
    ]
}

/// An error as a response, for the load generator to report.
#[derive(Debug)]
pub struct Failure(String);

impl<E: fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seeded_document_has_700_bytes() {
        let document: serde_json::Map<_, _> = members()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let json = serde_json::to_string(&document).expect("JSON");
        assert_eq!(json.len(), 700);
    }
}
