//! The old site: a process of Node, to which axum forwards the requests that it has no
//! route for.

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
use serde_json::Value;

use super::{Old, npm};

/// The process stops when this value is dropped. It also stops when this process is
/// killed, because its standard input closes.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    process: Child,
    port: u16,
}

/// A client of the old site.
#[derive(Clone, Debug)]
pub(crate) struct OldSite {
    client: Client<HttpConnector, Body>,
    port: u16,
}

impl NodeProcess {
    /// Installs the packages, unless they are installed, and starts the site.
    ///
    /// # Errors
    ///
    /// If Node or the packages can't be installed, or the site doesn't start.
    pub(crate) fn start(old: &Old, options: &Value) -> io::Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let name = old.name;
        let site = npm::Site::install(&here.join(old.packages))
            .map_err(|error| io::Error::other(format!("{name} can't be run here: {error}")))?;
        let mut process = site
            .script(&here.join(old.script))
            .env("SITE", options.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let port = line.trim().parse();
        let port =
            port.map_err(|_| io::Error::other(format!("{name} ended before it listened")))?;
        Ok(Self { process, port })
    }

    pub(crate) fn site(&self) -> OldSite {
        OldSite {
            client: Client::builder(TokioExecutor::new()).build_http(),
            port: self.port,
        }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        // If it can't be killed, it has ended.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl OldSite {
    /// The old site's response to a request.
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

/// Removes the headers that belong to the connection.
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
