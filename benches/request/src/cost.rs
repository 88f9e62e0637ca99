use std::{alloc::System, time::Instant};

use bench_common::thread_cpu_micros;
use stats_alloc::{Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: StatsAlloc<System> = StatsAlloc::system();

/// The cost of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) micros: f64,
    /// Of this thread, which is the only one that works. NaN if the system doesn't report it.
    pub(crate) cpu_micros: f64,
    /// Including reallocations.
    pub(crate) allocations: f64,
    pub(crate) bytes: f64,
}

impl Cost {
    /// In the order of the table.
    pub(crate) fn figures(&self) -> [f64; 4] {
        [self.micros, self.cpu_micros, self.allocations, self.bytes]
    }
}

/// Measures from its start to [`stop`](Self::stop).
pub(crate) struct Meter {
    cpu_micros: f64,
    region: Region<'static, System>,
    started: Instant,
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self {
            cpu_micros: thread_cpu_micros(),
            region: Region::new(&ALLOCATOR),
            started: Instant::now(),
        }
    }

    /// The cost of each of `times` equal requests.
    pub(crate) fn stop(self, times: usize) -> Cost {
        let micros = self.started.elapsed().as_secs_f64() * 1e6;
        let used = self.region.change();
        let cpu_micros = thread_cpu_micros() - self.cpu_micros;
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
