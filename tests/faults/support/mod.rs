//! Visitors, and what they depend on.

pub(crate) mod crowd;
pub(crate) mod network;
pub(crate) mod place;
pub(crate) mod visitor;

use std::time::Duration;

use tokio::time::{sleep, timeout};

pub(crate) use crowd::Crowd;
pub(crate) use network::{Condition, Network};
pub(crate) use place::{Place, Site};
pub(crate) use visitor::Visitor;

/// Of the stores: short, so that many faults fit into a test run.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);
/// What a busy machine may add to a promised time.
pub(crate) const SLACK: Duration = Duration::from_millis(1500);
/// Between two looks at what is waited for.
const LOOKING: Duration = Duration::from_millis(5);

/// Whether the response becomes yes in time.
pub(crate) async fn comes_true(within: Duration, ask: impl AsyncFn() -> bool) -> bool {
    let asking = async {
        while !ask().await {
            sleep(LOOKING).await;
        }
    };
    timeout(within, asking).await.is_ok()
}
