//! Chromium and its driver: a process of one test, in which each profile is
//! another visitor's browser.

use std::{
    env,
    io::{self, BufRead, BufReader, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Once,
    time::Duration,
};

use thirtyfour::{ChromeCapabilities, ChromiumLikeCapabilities as _, WebDriver};

use super::Profile;

/// The names that distributions give it.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];
const DRIVERS: [&str; 2] = ["chromedriver", "chromium.chromedriver"];
/// No access to the network, and no sandbox, because tests may run as root.
const ARGUMENTS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // It ends with the driver, also when that is killed.
    "--remote-debugging-pipe",
];

/// The driver lets the kernel choose a port for IPv6, and ends if the same port is taken for IPv4.
const ATTEMPTS: usize = 5;
/// Far more than a browser takes to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ends with this value, or with this process, however that ends.
#[derive(Debug)]
pub(crate) struct Chromium {
    browser: PathBuf,
    port: u16,
    process: Child,
    /// The driver may still write.
    _output: BufReader<ChildStdout>,
}

impl Chromium {
    /// `None` if it is not installed.
    ///
    /// # Panics
    ///
    /// If it is missing on CI, whose machine has it.
    pub(crate) fn start() -> Option<Self> {
        match Self::of_machine() {
            Ok(chromium) => Some(chromium),
            Err(why) => {
                assert!(!is_ci(), "the tests in Chromium can't be run: {why}");
                skip(&why);
                None
            }
        }
    }

    fn of_machine() -> io::Result<Self> {
        let browser = on_path(&BROWSERS)?;
        let driver = on_path(&DRIVERS)?;
        let mut attempt = 1;
        loop {
            match Self::of_programs(&browser, &driver) {
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                last => return last,
            }
        }
    }

    fn of_programs(browser: &Path, driver: &Path) -> io::Result<Self> {
        let mut process = Command::new("sh")
            .args(["-c", include_str!("driver.sh"), "driver.sh"])
            .arg(driver)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().expect("it is piped");
        let mut output = BufReader::new(output);
        let port = announced_port(&mut output).or_else(|error| {
            finish(&mut process)?;
            Err(error)
        })?;
        Ok(Self {
            browser: browser.to_owned(),
            port,
            process,
            _output: output,
        })
    }

    /// A browser that was never used.
    pub(crate) async fn profile(&self) -> Profile {
        self.profile_with(&[]).await
    }

    pub(crate) async fn profile_with(&self, arguments: &[&str]) -> Profile {
        let mut wanted = ChromeCapabilities::new();
        let browser = self.browser.to_str().expect("a path in UTF-8");
        wanted.set_binary(browser).expect("a capability");
        for argument in ARGUMENTS.iter().chain(arguments) {
            wanted.add_arg(argument).expect("a capability");
        }
        let url = format!("http://127.0.0.1:{}", self.port);
        let driver = WebDriver::new(url, wanted).await;
        Profile::new(driver.expect("a browser starts"))
    }
}

impl Chromium {
    fn end(&mut self) -> io::Result<()> {
        if shut_down(self.port).is_err() {
            // The script ends the driver.
            drop(self.process.stdin.take());
        }
        finish(&mut self.process)
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // A folder that stays is a nuisance, not a reason to fail a test.
        let _ = self.end();
    }
}

/// Tells the script that the browsers have ended, and waits for its end.
fn finish(keeper: &mut Child) -> io::Result<()> {
    if let Some(mut orders) = keeper.stdin.take() {
        // The script may have ended already.
        let _ = orders.write_all(b"ended\n");
    }
    keeper.wait().map(drop)
}

/// Completed when the browsers have ended.
fn shut_down(port: u16) -> io::Result<()> {
    let mut driver = TcpStream::connect(("127.0.0.1", port))?;
    driver.set_read_timeout(Some(PATIENCE))?;
    driver.write_all(b"GET /shutdown HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    io::copy(&mut driver, &mut io::sink()).map(drop)
}

fn on_path(names: &[&str]) -> io::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = env::split_paths(&path).collect();
    names
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|program| Path::exists(program))
        .ok_or_else(|| io::Error::other(format!("there is no {} on the path", names[0])))
}

/// Read from the sentence with which the driver starts.
fn announced_port(output: &mut impl BufRead) -> io::Result<u16> {
    for line in output.lines() {
        let line = line?;
        let port = line
            .split("successfully on port ")
            .nth(1)
            .unwrap_or_default();
        if let Ok(port) = port.trim_end_matches('.').parse() {
            return Ok(port);
        }
    }
    Err(io::Error::other("the driver did not start"))
}

fn is_ci() -> bool {
    env::var("CI").is_ok_and(|ci| ci == "true")
}

/// Once, and past the capture of the test harness.
fn skip(why: &io::Error) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let said = format!("SKIPPED: every test in Chromium: {why}; .ci/install installs it");
        writeln!(io::stderr(), "{said}").expect("stderr is open");
    });
}
