//! The Koa servers: a process for each generation, which opens a site on a
//! port of its own for each test.

use std::{
    env,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::OnceLock,
};

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::{Value, json};

use super::http::{Server, send_to};
use crate::node;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Generation {
    /// Generators, on Node 12.
    Koa1,
    /// Async functions, on the Node of the machine.
    Koa2,
}

/// Ends with this process, however that ends: its input closes then.
#[derive(Debug)]
pub(crate) struct Host {
    port: u16,
    _process: Child,
}

impl Generation {
    fn name(self) -> &'static str {
        match self {
            Self::Koa1 => "koa1",
            Self::Koa2 => "koa2",
        }
    }

    /// The process of this generation; `None` where Node can't be had.
    ///
    /// # Panics
    ///
    /// Where it can't be had on CI, whose machine has it.
    pub(crate) fn host(self) -> Option<&'static Host> {
        static HOSTS: [OnceLock<Option<Host>>; 2] = [OnceLock::new(), OnceLock::new()];
        let host = HOSTS[self as usize].get_or_init(|| match Host::start(self.name()) {
            Ok(host) => Some(host),
            Err(error) => {
                skip(self.name(), &error);
                None
            }
        });
        if host.is_none() {
            assert!(!is_ci(), "the tests of {} were skipped", self.name());
        }
        host.as_ref()
    }
}

fn is_ci() -> bool {
    env::var("CI").is_ok_and(|ci| ci == "true")
}

/// Past the capture of the test harness.
fn skip(name: &str, why: &io::Error) {
    let said = format!("SKIPPED: every test with {name}, because it can't be run here: {why}");
    writeln!(io::stderr(), "{said}").expect("stderr is open");
}

impl Host {
    fn start(name: &str) -> io::Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/koa")
            .join(name);
        let mut process = node::Site::install(&folder)?
            .script(&folder.join("server.js"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log(name)?)
            .spawn()?;
        let output = process.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let port = line.trim().parse().map_err(|_| ended(name))?;
        Ok(Self {
            port,
            _process: process,
        })
    }

    /// Carries out an order of `host.js`.
    pub(crate) async fn order(&self, order: Value) -> Value {
        let body = Body::from(order.to_string());
        let request = Request::post("/").header(header::HOST, "localhost");
        let request = request.body(body).expect("a request");
        let response = send_to(self.port, request).await;
        let response: Value = serde_json::from_str(&response.body).expect("JSON");
        assert_eq!(response["error"], Value::Null, "{order}");
        response
    }

    /// A site with these options.
    pub(crate) async fn open(&self, options: Value) -> Server {
        let response = self.order(json!({ "open": options })).await;
        let port = response["port"]
            .as_u64()
            .and_then(|port| port.try_into().ok());
        Server::Koa {
            port: port.expect("a port"),
        }
    }
}

fn log_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.log"))
}

/// What Koa says of errors is for whoever looks for the cause of a failure.
fn log(name: &str) -> io::Result<File> {
    File::create(log_file(name))
}

fn ended(name: &str) -> io::Error {
    let said = fs::read_to_string(log_file(name)).unwrap_or_default();
    io::Error::other(format!("the server ended before it listened: {said}"))
}
