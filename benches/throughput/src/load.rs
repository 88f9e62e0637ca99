//! The load generator: one thread with one event loop. It does as little as possible for each
//! request, because it shares the cores with what is measured.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    sync::mpsc::{self, Sender},
    thread,
    time::{Duration, Instant},
};

use bench_common::{percentile, thread_cpu_micros};
use mio::{Events, Interest, Poll, Token, net::TcpStream};
use serde::{Deserialize, Serialize};

/// A server that needs longer for a response hangs.
const PATIENCE: Duration = Duration::from_secs(20);
/// All responses of the servers are shorter.
const BUFFER: usize = 16 * 1024;

/// What a request does.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Route {
    /// Doesn't use the session.
    Plain,
    /// Reads one value of an existing session.
    Read,
    /// Reads a counter and writes it back.
    Incr,
    /// Inserts a value, without a cookie: a new session.
    New,
    /// Creates a session for the other routes; not measured.
    #[value(skip)]
    Seed,
}

impl Route {
    pub(crate) const MEASURED: [Self; 4] = [Self::Plain, Self::Read, Self::Incr, Self::New];

    pub(crate) fn creates_sessions(self) -> bool {
        matches!(self, Self::New | Self::Seed)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "/plain",
            Self::Read => "/read",
            Self::Incr => "/incr",
            Self::New => "/new",
            Self::Seed => "/seed",
        })
    }
}

/// What sends the requests.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Generator {
    /// This module, which checks each response.
    #[default]
    Own,
    /// The program wrk, which checks the status.
    Wrk,
}

impl fmt::Display for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "own",
            Self::Wrk => "wrk",
        })
    }
}

/// A session, as its client knows it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Client {
    pub(crate) cookie: String,
    /// The counter of the last response, if that was right.
    pub(crate) count: Option<u64>,
}

/// When a load ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extent {
    Time {
        warm_up: Duration,
        measured: Duration,
    },
    Requests(usize),
}

/// One load: so many connections, each with one request in flight.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    pub(crate) route: Route,
    pub(crate) connections: usize,
    pub(crate) extent: Extent,
    /// Divided among the connections, so that no two share a session.
    pub(crate) clients: Vec<Client>,
}

/// The result of a load.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// The latencies within the measured time, in microseconds.
    latencies: Vec<f64>,
    pub(crate) seconds: f64,
    pub(crate) cpu_micros: f64,
    /// All responses, including those outside of the measured time.
    pub(crate) responses: usize,
    /// Responses with a wrong status or content.
    pub(crate) wrong: usize,
    /// One of them.
    pub(crate) example: Option<String>,
    /// The sessions after the load, or the new ones of `/seed`.
    pub(crate) clients: Vec<Client>,
}

/// The figures of a load, by whichever generator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Report {
    pub(crate) requests: f64,
    pub(crate) seconds: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Wrong responses.
    pub(crate) wrong: usize,
    pub(crate) cpu_micros: f64,
}

impl Outcome {
    pub(crate) fn report(&self) -> Report {
        let latency = |part| percentile(self.latencies.iter().copied(), part);
        Report {
            requests: self.latencies.len() as f64,
            seconds: self.seconds,
            p50_us: latency(0.5),
            p99_us: latency(0.99),
            wrong: self.wrong,
            cpu_micros: self.cpu_micros,
        }
    }
}

/// Runs the load, and calls `read` when the measured time begins, and when it ends.
pub(crate) fn generate<T>(
    plan: Plan,
    mut read: impl FnMut() -> io::Result<T>,
) -> io::Result<(Outcome, Vec<T>)> {
    let (sender, changes) = mpsc::channel();
    let load = thread::spawn(move || Load::open(plan, sender)?.run());
    let readings: io::Result<Vec<_>> = changes.iter().map(|()| read()).collect();
    let outcome = load.join().expect("the load generator doesn't panic");
    Ok((outcome?, readings?))
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    WarmUp,
    Measured,
    /// No request is sent. Those in flight get their responses.
    Ending,
}

struct Load {
    poll: Poll,
    connections: Vec<Connection>,
    phase: Phase,
    begin: Instant,
    end: Instant,
    /// The number of requests that may still be sent.
    remaining: usize,
    in_flight: usize,
    outcome: Outcome,
    changes: Sender<()>,
}

impl Load {
    fn open(plan: Plan, changes: Sender<()>) -> io::Result<Self> {
        let share = plan.clients.len() / plan.connections;
        let mut clients = plan.clients.into_iter();
        let open = |_| {
            let clients = clients.by_ref().take(share).collect();
            Connection::open(plan.address, plan.route, clients)
        };
        let (phase, warm_up, measured, remaining) = match plan.extent {
            Extent::Time { warm_up, measured } => (Phase::WarmUp, warm_up, measured, usize::MAX),
            Extent::Requests(count) => (Phase::Measured, Duration::ZERO, Duration::MAX, count),
        };
        let connections = (0..plan.connections).map(open).collect::<Result<_, _>>()?;
        let begin = Instant::now() + warm_up;
        Ok(Self {
            poll: Poll::new()?,
            connections,
            phase,
            begin,
            end: begin
                .checked_add(measured)
                .unwrap_or(begin + Duration::from_hours(1)),
            remaining,
            in_flight: 0,
            outcome: Outcome::default(),
            changes,
        })
    }

    fn run(mut self) -> io::Result<Outcome> {
        for at in 0..self.connections.len() {
            let stream = &mut self.connections[at].stream;
            let registry = self.poll.registry();
            registry.register(stream, Token(at), Interest::READABLE)?;
            self.send(at, Instant::now())?;
        }
        let mut events = Events::with_capacity(1024);
        while self.in_flight > 0 {
            match self.poll.poll(&mut events, Some(PATIENCE)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            if events.is_empty() {
                return Err(io::Error::other("the server does not respond"));
            }
            for event in &events {
                self.receive(event.token().0)?;
            }
        }
        let connections = self.connections.into_iter();
        let clients = connections.flat_map(|connection| connection.clients);
        let clients = clients.filter(|client| !client.cookie.is_empty());
        self.outcome.clients.extend(clients);
        Ok(self.outcome)
    }

    fn send(&mut self, at: usize, now: Instant) -> io::Result<()> {
        if self.phase == Phase::Ending || self.remaining == 0 {
            return Ok(());
        }
        self.remaining -= 1;
        self.in_flight += 1;
        self.connections[at].send(now)
    }

    fn receive(&mut self, at: usize) -> io::Result<()> {
        let connection = &mut self.connections[at];
        let Some(judgment) = connection.receive(&mut self.outcome.clients)? else {
            return Ok(());
        };
        let sent_at = connection.sent_at;
        let now = Instant::now();
        self.in_flight -= 1;
        self.change_phase(now);
        self.outcome.responses += 1;
        if let Err(response) = judgment {
            self.outcome.wrong += 1;
            self.outcome.example.get_or_insert(response);
        }
        if self.phase == Phase::Measured {
            let latency = (now - sent_at).as_secs_f64() * 1e6;
            self.outcome.latencies.push(latency);
        }
        self.send(at, now)
    }

    fn change_phase(&mut self, now: Instant) {
        let (next, cpu_micros) = match self.phase {
            Phase::WarmUp if now >= self.begin => {
                self.begin = now;
                (Phase::Measured, -thread_cpu_micros())
            }
            Phase::Measured if now >= self.end => {
                self.outcome.seconds = (now - self.begin).as_secs_f64();
                (Phase::Ending, thread_cpu_micros())
            }
            _ => return,
        };
        self.phase = next;
        self.outcome.cpu_micros += cpu_micros;
        // It fails only if a reading has failed, and that error is returned.
        let _ = self.changes.send(());
    }
}

/// One connection with one request in flight, which uses its sessions in turns.
struct Connection {
    stream: TcpStream,
    route: Route,
    clients: Vec<Client>,
    requests: Vec<Vec<u8>>,
    at: usize,
    buffer: Vec<u8>,
    filled: usize,
    sent_at: Instant,
}

impl Connection {
    fn open(address: SocketAddr, route: Route, mut clients: Vec<Client>) -> io::Result<Self> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        if clients.is_empty() {
            clients.push(Client::default());
        }
        let request = |client: &Client| {
            let cookie = match client.cookie.as_str() {
                "" => String::new(),
                cookie => format!("Cookie: {cookie}\r\n"),
            };
            format!("GET {route} HTTP/1.1\r\nHost: localhost\r\n{cookie}\r\n").into_bytes()
        };
        Ok(Self {
            stream: TcpStream::from_std(stream),
            route,
            requests: clients.iter().map(request).collect(),
            clients,
            at: 0,
            buffer: vec![0; BUFFER],
            filled: 0,
            sent_at: Instant::now(),
        })
    }

    /// A request fits into the socket's buffer, because it is the only one.
    fn send(&mut self, now: Instant) -> io::Result<()> {
        self.sent_at = now;
        self.stream.write_all(&self.requests[self.at])
    }

    /// The judgment of [`Client::judge`], once the response is complete.
    fn receive(&mut self, created: &mut Vec<Client>) -> io::Result<Option<Result<(), String>>> {
        loop {
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.filled += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if let Some(response) = Response::parse(&self.buffer[..self.filled])? {
                let judgment = self.clients[self.at].judge(self.route, &response);
                if self.route == Route::Seed {
                    created.push(Client {
                        cookie: response.cookies,
                        count: Some(0),
                    });
                }
                self.filled = 0;
                self.at = (self.at + 1) % self.clients.len();
                return Ok(Some(judgment));
            }
        }
    }
}

impl Client {
    /// Whether a response is right; if not, the response. Only this client uses its session, so
    /// the counter has exactly one right value.
    fn judge(&mut self, route: Route, response: &Response<'_>) -> Result<(), String> {
        let is_right = response.status == 200
            && match route {
                Route::Plain => response.body == "plain",
                Route::Read => self.counts(response.body, 0),
                Route::Incr => self.counts(response.body, 1),
                Route::New => response.body == "new" && !response.cookies.is_empty(),
                Route::Seed => response.body == "seeded" && !response.cookies.is_empty(),
            };
        if is_right {
            return Ok(());
        }
        self.count = None;
        Err(format!("{} {}", response.status, response.body))
    }

    fn counts(&mut self, body: &str, by: u64) -> bool {
        let Ok(found) = body.parse() else {
            return false;
        };
        let expected = self.count.map_or(found, |count| count + by);
        self.count = Some(found);
        found == expected
    }
}

/// A complete response.
#[derive(Debug, PartialEq)]
struct Response<'a> {
    status: u16,
    body: &'a str,
    /// As a browser would send them with the next request.
    cookies: String,
}

impl<'a> Response<'a> {
    /// `None` if more bytes have to arrive.
    fn parse(bytes: &'a [u8]) -> io::Result<Option<Self>> {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(start) = head.parse(bytes).map_err(io::Error::other)? else {
            return Ok(None);
        };
        let (mut cookies, mut length) = (String::new(), 0);
        for header in head.headers {
            let value = str::from_utf8(header.value).map_err(io::Error::other)?;
            if header.name.eq_ignore_ascii_case("content-length") {
                length = value.parse().map_err(io::Error::other)?;
            } else if header.name.eq_ignore_ascii_case("set-cookie") {
                let pair = value.split(';').next().unwrap_or_default();
                if !pair.ends_with('=') {
                    cookies += if cookies.is_empty() { "" } else { "; " };
                    cookies += pair;
                }
            }
        }
        if bytes.len() > start + length {
            return Err(io::Error::other("a response without a request"));
        }
        let Some(body) = bytes.get(start..start + length) else {
            return Ok(None);
        };
        Ok(Some(Self {
            status: head.code.unwrap_or_default(),
            body: str::from_utf8(body).map_err(io::Error::other)?,
            cookies,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: &[u8] = b"HTTP/1.1 200 OK\r\nSet-Cookie: id=abc; HttpOnly\r\n\
        set-cookie: removed=; Max-Age=0\r\nset-cookie: b=c\r\nContent-Length: 2\r\n\r\n42";

    #[test]
    fn a_response_is_parsed_when_it_is_complete() {
        for length in 0..COMPLETE.len() {
            let parsed = Response::parse(&COMPLETE[..length]).expect("no error");
            assert_eq!(parsed, None);
        }
        let expected = Response {
            status: 200,
            body: "42",
            cookies: "id=abc; b=c".to_owned(),
        };
        assert_eq!(Response::parse(COMPLETE).expect("no error"), Some(expected));
    }

    #[test]
    fn a_lost_increment_is_detected() {
        let mut client = Client {
            count: Some(6),
            ..Client::default()
        };
        assert!(client.counts("7", 1));
        assert!(!client.counts("7", 1));
    }

    #[test]
    fn after_a_wrong_response_any_count_is_right() {
        let mut client = Client::default();
        assert!(client.counts("9", 1));
        assert!(!client.counts("11", 1));
        assert!(!client.counts("none", 1));
    }
}
