//! What the servers of the throughput benchmark have in common, so that they
//! differ in their sessions alone: how they are started and ended, the runtime,
//! the sockets, and what a session holds.

use std::{env, fmt, io, thread};

use axum::{
    Router,
    http::StatusCode,
    response::{IntoResponse, Response},
    serve::ListenerExt as _,
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};

/// The member that `/read` reads and `/incr` counts.
pub const COUNTER: &str = "counter";

/// What the driver tells a server.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// `--database`: the URL of a Postgres database of its own.
    pub database: String,
    /// `--redis`: the URL of a Redis of its own.
    pub redis: String,
    /// `--pool`: connections to the database at most.
    pub pool: u32,
    /// `--variant`: which of the ways to serve, where a server has several.
    pub variant: String,
}

impl Arguments {
    /// Those of this process.
    ///
    /// # Panics
    ///
    /// When they are none that the driver gives.
    #[must_use]
    pub fn of_process() -> Self {
        let mut found = Self::default();
        let mut given = env::args().skip(1);
        while let Some(name) = given.next() {
            let value = given.next().expect("a value follows each name");
            match name.as_str() {
                "--database" => found.database = value,
                "--redis" => found.redis = value,
                "--pool" => found.pool = value.parse().expect("a number of connections"),
                "--variant" => found.variant = value,
                _ => panic!("no such argument: {name}"),
            }
        }
        found
    }
}

/// Serves on a port of the system's choice, prints its address, and ends with
/// the standard input, so that no server outlives its driver.
///
/// # Errors
///
/// When there is no socket to listen on.
///
/// # Panics
///
/// When a socket that was just accepted takes no option.
pub async fn serve(app: Router) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?);
    let listener = listener.tap_io(|stream| {
        stream
            .set_nodelay(true)
            .expect("a socket that was just accepted");
    });
    let (ended, end) = oneshot::channel();
    thread::spawn(move || {
        // An input that can't be read has ended, too.
        drop(io::copy(&mut io::stdin(), &mut io::sink()));
        ended.send(())
    });
    tokio::select! {
        result = async { axum::serve(listener, app).await } => result,
        _ = end => Ok(()),
    }
}

/// What `/seed` puts into a session: 465 bytes as JSON, of the kind that
/// applications keep, and the counter.
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
        ("seen", json!("2026-11-02T08:15:30Z")),
        (
            "flash",
            json!(["Your changes are saved. Your order will be posted."]),
        ),
    ]
}

/// A failure as a response, so that the load generator sees it.
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
    fn a_seeded_document_has_465_bytes() {
        let document: serde_json::Map<_, _> = members()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let json = serde_json::to_string(&document).expect("JSON");
        assert_eq!(json.len(), 465);
    }
}
