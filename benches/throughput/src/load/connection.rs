//! One connection with one request in flight.

use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    time::Instant,
};

use mio::net::TcpStream;

use super::http::Reply;
use crate::plan::{Route, Seat};

/// No response of the servers is longer.
const BUFFER: usize = 16 * 1024;

pub(super) struct Connection {
    pub(super) stream: TcpStream,
    route: Route,
    turns: Vec<Turn>,
    at: usize,
    buffer: Vec<u8>,
    filled: usize,
    pub(super) sent_at: Instant,
}

/// A session of this connection, and its request, made once.
struct Turn {
    request: Vec<u8>,
    seat: Seat,
}

/// What a response was.
pub(super) enum Judged {
    Right,
    Wrong(String),
}

impl Connection {
    pub(super) fn open(address: SocketAddr, route: Route, seats: Vec<Seat>) -> io::Result<Self> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let turns = match seats.is_empty() {
            true => vec![Turn::without_cookie(route)],
            false => seats
                .into_iter()
                .map(|seat| Turn::of(route, seat))
                .collect(),
        };
        Ok(Self {
            stream: TcpStream::from_std(stream),
            route,
            turns,
            at: 0,
            buffer: vec![0; BUFFER],
            filled: 0,
            sent_at: Instant::now(),
        })
    }

    /// A request fits into the socket's buffer, since it is the only one.
    pub(super) fn send(&mut self, now: Instant) -> io::Result<()> {
        self.sent_at = now;
        self.stream.write_all(&self.turns[self.at].request)
    }

    /// The judgement on the response, once it is there as a whole.
    pub(super) fn receive(&mut self, harvest: &mut Vec<Seat>) -> io::Result<Option<Judged>> {
        loop {
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.filled += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if let Some(response) = Reply::parse(&self.buffer[..self.filled]) {
                if response.length != self.filled {
                    return Err(io::Error::other("a response without a request"));
                }
                let judged = self.turns[self.at].judge(self.route, &response, harvest);
                self.filled = 0;
                self.at = (self.at + 1) % self.turns.len();
                return Ok(Some(judged));
            }
        }
    }

    pub(super) fn into_seats(self) -> impl Iterator<Item = Seat> {
        let seats = self.turns.into_iter().map(|turn| turn.seat);
        seats.filter(|seat| !seat.cookie.is_empty())
    }
}

impl Turn {
    fn without_cookie(route: Route) -> Self {
        let seat = Seat {
            cookie: String::new(),
            count: None,
        };
        let request = format!("GET {route} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
        Self { request, seat }
    }

    fn of(route: Route, seat: Seat) -> Self {
        let request = format!(
            "GET {route} HTTP/1.1\r\nHost: localhost\r\nCookie: {}\r\n\r\n",
            seat.cookie
        );
        Self {
            request: request.into_bytes(),
            seat,
        }
    }

    fn judge(&mut self, route: Route, response: &Reply<'_>, harvest: &mut Vec<Seat>) -> Judged {
        let is_right = response.status == b"200"
            && match route {
                Route::Plain => response.body == b"plain",
                Route::Read => self.counts(response.body, 0),
                Route::Incr => self.counts(response.body, 1),
                Route::New => response.body == b"new" && !response.cookies().is_empty(),
                Route::Seed => response.body == b"seeded" && !response.cookies().is_empty(),
            };
        if !is_right {
            self.seat.count = None;
            return Judged::Wrong(format!(
                "{} {}",
                String::from_utf8_lossy(response.status),
                String::from_utf8_lossy(response.body)
            ));
        }
        if route == Route::Seed {
            harvest.push(Seat {
                cookie: response.cookies(),
                count: Some(0),
            });
        }
        Judged::Right
    }

    /// Whether the body is the count that this session, which nobody else
    /// uses, must have by now.
    fn counts(&mut self, body: &[u8], by: u64) -> bool {
        let Some(found) = number(body) else {
            return false;
        };
        let expected = self.seat.count.map_or(found, |count| count + by);
        self.seat.count = Some(found);
        found == expected
    }
}

fn number(body: &[u8]) -> Option<u64> {
    std::str::from_utf8(body).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(count: Option<u64>) -> Turn {
        let cookie = "id=a".to_owned();
        Turn::of(Route::Incr, Seat { cookie, count })
    }

    #[test]
    fn a_lost_increment_is_noticed() {
        let mut turn = turn(Some(6));
        assert!(turn.counts(b"7", 1));
        assert!(!turn.counts(b"7", 1));
    }

    #[test]
    fn a_count_is_believed_only_after_an_unknown_outcome() {
        let mut turn = turn(None);
        assert!(turn.counts(b"9", 1));
        assert!(!turn.counts(b"11", 1));
        assert!(!turn.counts(b"none", 1));
    }
}
