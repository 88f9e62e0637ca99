//! The processes of Node: one for each generation of packages. It opens a site on a
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

use super::{
    http::{Server, send_to},
    npm,
};

/// The packages of a folder, and the process that runs them.
#[derive(Debug)]
pub(crate) struct Generation {
    /// From the root of the repository.
    folder: &'static str,
    host: OnceLock<Option<Host>>,
}

/// Ends with this process, even if it is killed, because its input closes then.
#[derive(Debug)]
pub(crate) struct Host {
    name: &'static str,
    port: u16,
    _process: Child,
}

impl Generation {
    pub(crate) const fn new(folder: &'static str) -> Self {
        Self {
            folder,
            host: OnceLock::new(),
        }
    }

    fn name(&self) -> &'static str {
        self.folder.rsplit('/').next().expect("a folder")
    }

    /// The process of this generation, or `None` if Node can't be installed.
    ///
    /// # Panics
    ///
    /// If Node can't be installed on CI.
    pub(crate) fn host(&'static self) -> Option<&'static Host> {
        let host = self.host.get_or_init(|| match Host::start(self) {
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

/// Writes past the capture of the test harness.
fn skip(name: &str, why: &io::Error) {
    let said = format!("SKIPPED: every test with {name}, because it can't be run here: {why}");
    writeln!(io::stderr(), "{said}").expect("stderr is open");
}

impl Host {
    fn start(generation: &Generation) -> io::Result<Self> {
        let name = generation.name();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(generation.folder);
        let mut process = npm::Site::install(&folder)?
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
            name,
            port,
            _process: process,
        })
    }

    /// The last part of the folder's path.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Carries out an order of `host.js`.
    pub(crate) async fn order(&self, order: Value) -> Value {
        let body = Body::from(order.to_string());
        let request = Request::post("/").header(header::HOST, "localhost");
        let request = request.body(body).expect("a request");
        let response = send_to(self.port, request).await;
        let response: Value = serde_json::from_str(&response.body).expect("JSON");
        assert_eq!(response["error"], Value::Null, "{}: {order}", self.name());
        response
    }

    /// A site with these options.
    pub(crate) async fn open(&self, options: Value) -> Server {
        let response = self.order(json!({ "open": options })).await;
        let port = response["port"]
            .as_u64()
            .and_then(|port| port.try_into().ok());
        Server::Node {
            port: port.expect("a port"),
        }
    }
}

fn log_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.log"))
}

/// The errors of the Node site, to find the cause of a failed test.
fn log(name: &str) -> io::Result<File> {
    File::create(log_file(name))
}

fn ended(name: &str) -> io::Error {
    let said = fs::read_to_string(log_file(name)).unwrap_or_default();
    io::Error::other(format!("the server ended before it listened: {said}"))
}
