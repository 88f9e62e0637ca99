//! The Koa site: a process of its own, to which axum passes on what it has not
//! taken over yet.

use std::{
    io::{self, BufRead as _, BufReader},
    path::Path,
    process::{Child, Stdio},
};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, StatusCode, Uri, header, uri::PathAndQuery},
    response::{IntoResponse as _, Response},
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

use crate::node;

/// Ends with the value, and with this process, however that ends: its input
/// closes then.
#[derive(Debug)]
pub(crate) struct KoaProcess {
    process: Child,
    port: u16,
}

/// Where requests go that axum has no route for.
#[derive(Clone, Debug)]
pub(crate) struct OldSite {
    client: Client<HttpConnector, Body>,
    port: u16,
}

impl KoaProcess {
    /// Installs Koa, if it is not there yet, and starts it.
    ///
    /// # Errors
    ///
    /// When Node or the packages can't be had, or Koa does not start.
    pub(crate) fn start(connection: &Value, table: &str, keys: &[&str]) -> io::Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let site = node::Site::install(&here.join("tests/koa/koa2"))
            .map_err(|error| io::Error::other(format!("Koa can't be run here: {error}")))?;
        let options = json!({ "connection": connection, "table": table, "keys": keys });
        let mut process = site
            .script(&here.join("examples/koa_migration/koa.js"))
            .env("KOA_SITE", options.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let port = line.trim().parse();
        let port = port.map_err(|_| io::Error::other("Koa ended before it listened"))?;
        Ok(Self { process, port })
    }

    pub(crate) fn site(&self) -> OldSite {
        OldSite {
            client: Client::builder(TokioExecutor::new()).build_http(),
            port: self.port,
        }
    }
}

impl Drop for KoaProcess {
    fn drop(&mut self) {
        // Where it can't be killed it has ended.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl OldSite {
    /// Koa's response to a request of ours.
    pub(crate) async fn forward(&self, mut request: Request) -> Response {
        *request.uri_mut() = self.uri_of(request.uri());
        remove_hop_by_hop(request.headers_mut());
        match self.client.request(request).await {
            Ok(response) => {
                let mut response = response.map(Body::new);
                remove_hop_by_hop(response.headers_mut());
                response
            }
            Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
        }
    }

    fn uri_of(&self, uri: &Uri) -> Uri {
        let page = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        Uri::builder()
            .scheme("http")
            .authority(format!("127.0.0.1:{}", self.port))
            .path_and_query(page)
            .build()
            .expect("parts that are valid")
    }
}

/// What concerns the connection to the browser, and not the request.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in [
        header::CONNECTION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ] {
        headers.remove(name);
    }
}
