//! The load generator: one thread, one event loop, as little work for each
//! request as can be, since it runs on the same cores as what is measured.

mod connection;
mod http;

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use mio::{Events, Interest, Poll, Token};

use crate::plan::{Extent, Outcome, Plan, Report, Route, Seat};
use connection::{Connection, Judged};

/// No server is that slow unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reads a plan from the standard input, carries it out, and reports.
pub(crate) fn run() -> io::Result<()> {
    let plan: Plan = serde_json::from_reader(io::stdin().lock())?;
    let outcome = Load::open(&plan).and_then(Load::run);
    report(&match outcome {
        Ok(outcome) => Report::Done(Box::new(outcome)),
        Err(error) => Report::Failed(error.to_string()),
    })
}

fn report(report: &Report) -> io::Result<()> {
    let mut output = io::stdout().lock();
    serde_json::to_writer(&mut output, report)?;
    output.write_all(b"\n")?;
    output.flush()
}

/// What a load is at.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    WarmUp,
    Measured,
    /// No request is sent any more; those in flight get their responses.
    Ending,
}

struct Load {
    poll: Poll,
    connections: Vec<Connection>,
    phase: Phase,
    begin: Instant,
    end: Instant,
    /// Requests still to be sent, where they are counted.
    quota: u64,
    in_flight: usize,
    latencies: Histogram<u64>,
    outcome: Outcome,
}

impl Load {
    fn open(plan: &Plan) -> io::Result<Self> {
        let poll = Poll::new()?;
        let connections = connections(plan)?;
        let now = Instant::now();
        let (phase, warm_up, measured, quota) = match plan.extent {
            Extent::Milliseconds { warm_up, measured } => {
                (Phase::WarmUp, warm_up, measured, u64::MAX)
            }
            Extent::Requests(quota) => (Phase::Measured, 0, 3_600_000, quota),
        };
        let begin = now + Duration::from_millis(warm_up);
        Ok(Self {
            poll,
            connections,
            phase,
            begin,
            end: begin + Duration::from_millis(measured),
            quota,
            in_flight: 0,
            latencies: latencies()?,
            outcome: Outcome::default(),
        })
    }

    fn run(mut self) -> io::Result<Outcome> {
        for at in 0..self.connections.len() {
            let stream = &mut self.connections[at].stream;
            self.poll
                .registry()
                .register(stream, Token(at), Interest::READABLE)?;
            self.send(at, Instant::now())?;
        }
        let mut events = Events::with_capacity(1024);
        while self.in_flight > 0 {
            match self.poll.poll(&mut events, Some(PATIENCE)) {
                // By a signal, such as the one that continues a stopped process.
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
        Ok(self.finish())
    }

    fn send(&mut self, at: usize, now: Instant) -> io::Result<()> {
        if self.phase == Phase::Ending || self.quota == 0 {
            return Ok(());
        }
        self.quota -= 1;
        self.in_flight += 1;
        self.connections[at].send(now)
    }

    fn receive(&mut self, at: usize) -> io::Result<()> {
        let connection = &mut self.connections[at];
        let Some(judged) = connection.receive(&mut self.outcome.seats)? else {
            return Ok(());
        };
        let sent_at = connection.sent_at;
        self.in_flight -= 1;
        let now = Instant::now();
        self.enter(now)?;
        self.outcome.responses += 1;
        if let Judged::Wrong(response) = judged {
            self.outcome.wrong += 1;
            self.outcome.example.get_or_insert(response);
        }
        if self.phase == Phase::Measured {
            self.outcome.requests += 1;
            let nanoseconds = u64::try_from((now - sent_at).as_nanos()).unwrap_or(u64::MAX);
            self.latencies.saturating_record(nanoseconds);
        }
        self.send(at, now)
    }

    /// The phase that this moment belongs to.
    fn enter(&mut self, now: Instant) -> io::Result<()> {
        if self.phase == Phase::WarmUp && now >= self.begin {
            self.phase = Phase::Measured;
            self.begin = now;
            report(&Report::Begin)?;
        }
        if self.phase == Phase::Measured && now >= self.end {
            self.phase = Phase::Ending;
            self.end = now;
            report(&Report::End)?;
        }
        Ok(())
    }

    fn finish(self) -> Outcome {
        let end = self.end.min(Instant::now());
        let mut outcome = self.outcome;
        outcome.seconds = (end - self.begin).as_secs_f64();
        outcome.p50_us = microseconds(self.latencies.value_at_quantile(0.5));
        outcome.p99_us = microseconds(self.latencies.value_at_quantile(0.99));
        let seats = self
            .connections
            .into_iter()
            .flat_map(Connection::into_seats);
        outcome.seats.extend(seats);
        outcome
    }
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

/// In nanoseconds, up to what is waited for a response.
fn latencies() -> io::Result<Histogram<u64>> {
    let longest = u64::try_from(PATIENCE.as_nanos()).unwrap_or(u64::MAX);
    Histogram::new_with_bounds(1, longest, 3).map_err(io::Error::other)
}

/// Each session is dealt to one connection: whoever counts must be alone.
fn connections(plan: &Plan) -> io::Result<Vec<Connection>> {
    let cookies = match plan.route {
        Route::New | Route::Seed => &[],
        Route::Plain | Route::Read | Route::Incr => plan.seats.as_slice(),
    };
    let share = cookies.len() / plan.connections;
    let open = |at: usize| {
        let seats: Vec<Seat> = cookies[at * share..(at + 1) * share].to_vec();
        Connection::open(plan.address, plan.route, seats)
    };
    (0..plan.connections).map(open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_of_all_sizes_are_told_as_they_were() {
        let mut latencies = latencies().expect("the bounds are in order");
        latencies.saturating_record(80_000);
        latencies.saturating_record(5_000_000_000);
        let told = [0.5, 0.99].map(|quantile| microseconds(latencies.value_at_quantile(quantile)));
        assert!((told[0] - 80.0).abs() < 1.0, "{told:?}");
        assert!((told[1] / 5_000_000.0 - 1.0).abs() < 0.01, "{told:?}");
    }
}
