use std::{alloc::System, fs, time::Instant};

use stats_alloc::{Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: StatsAlloc<System> = StatsAlloc::system();

/// What one request of a round took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) micros: f64,
    /// Of this thread, which is the only one at work here. Not a number where
    /// the system does not tell.
    pub(crate) cpu_micros: f64,
    /// Growing something that was allocated counts as well.
    pub(crate) allocations: f64,
    pub(crate) bytes: f64,
}

/// Runs from its start to [`stop`](Self::stop).
pub(crate) struct Meter {
    cpu_micros: f64,
    region: Region<'static, System>,
    started: Instant,
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self {
            cpu_micros: cpu_micros(),
            region: Region::new(&ALLOCATOR),
            started: Instant::now(),
        }
    }

    /// The cost of each of `times` equal requests.
    pub(crate) fn stop(self, times: usize) -> Cost {
        let micros = self.started.elapsed().as_secs_f64() * 1e6;
        let used = self.region.change();
        let cpu_micros = cpu_micros() - self.cpu_micros;
        let grown = used.bytes_reallocated.max(0).unsigned_abs();
        let times = times as f64;
        Cost {
            micros: micros / times,
            cpu_micros: cpu_micros / times,
            allocations: (used.allocations + used.reallocations) as f64 / times,
            bytes: (used.bytes_allocated + grown) as f64 / times,
        }
    }
}

/// What this thread has used so far, where Linux tells.
fn cpu_micros() -> f64 {
    let line = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = line.split(' ').next().and_then(|field| field.parse().ok());
    nanos.map_or(f64::NAN, |nanos: f64| nanos / 1e3)
}
