//! Work on one row in a transaction of its own, such as a new id.

use std::sync::Arc;

use sqlx::PgConnection;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    Error,
    error::out_of_time,
    jitter::random_fraction,
    store::{
        batch::parts::{PATIENCE, PAUSE},
        table::{
            handle::{SetUp, Work},
            statements::Table,
        },
    },
    telemetry::Operation,
};

/// Carries out `work`, and again while another transaction holds a row that it
/// needs, until the deadline. Work that is held up for a moment is rolled back.
/// Between the attempts it holds no connection, and only a few repeated attempts run
/// at a time, so that many locked rows don't keep the sessions of other rows waiting.
///
/// If the future is dropped, the server is told to cancel the attempt under way,
/// and either rolls it back or has committed it already.
pub(in crate::store) async fn serve_until_free<T>(
    set_up: &SetUp,
    deadline: Instant,
    operation: Operation,
    work: impl for<'c> Fn(Arc<Table>, &'c mut PgConnection) -> Work<'c, T> + Send + Sync,
) -> Result<T, Error> {
    let attempt = || {
        let call = set_up.call(operation);
        set_up.serve(deadline, Some(PATIENCE), call, |table, connection| {
            work(table, connection)
        })
    };
    let mut outcome = attempt().await;
    while outcome.as_ref().is_err_and(Error::is_held_up) {
        sleep(PAUSE.mul_f64(0.5 + random_fraction())).await;
        if Instant::now() >= deadline {
            return Err(out_of_time());
        }
        let _place = match operation {
            // `Purpose::Managing` limits these already.
            Operation::Manage => None,
            _ => {
                let waiting = set_up.database.connections.wait_for_a_row();
                let waited = timeout_at(deadline, waiting).await;
                waited.map_err(|_| out_of_time())?
            }
        };
        outcome = attempt().await;
    }
    outcome
}
