//! How long the former id of a session forwards to its new id. It does no I/O and reads no
//! clock.

use std::time::Duration;

use crate::expiry::Times;

/// How long the old id of a session forwards late saves to the successor row.
/// It opens no session meanwhile. Longer than any request should run. As long, the key of
/// another system leads to the session that was taken over.
pub(crate) const FORWARDING: Duration = Duration::from_secs(60);
/// How long a request that arrives with the old token can't change anything.
/// The response with the new token is still on its way to the browser, and a
/// second session would replace its cookie. The time is longer than a response
/// takes on a slow network. After it, the response counts as lost, and a write
/// begins a new session.
pub(crate) const MOVED_GRACE: Duration = Duration::from_secs(5);

/// The rest of [`MOVED_GRACE`] for a row that only forwards.
pub(crate) fn moved_grace_left(times: Times) -> Option<Duration> {
    let left = times.expires - times.now - (FORWARDING - MOVED_GRACE).as_secs_f64();
    (left > 0.0).then(|| Duration::from_secs_f64(left.min(MOVED_GRACE.as_secs_f64())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_of_a_moved_session_counts_from_its_move() {
        let after = |passed| moved_grace_left(Times::of(passed, 60.0, 0.0));
        assert_eq!(after(0.0), Some(MOVED_GRACE));
        assert_eq!(after(3.5), Some(Duration::from_millis(1500)));
        assert_eq!(after(5.0), None);
        assert_eq!(after(59.0), None);
    }
}
