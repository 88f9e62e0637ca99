//! The choice of what a request gets when the database fails. The layer applies it.

/// What a request gets when the database fails, for
/// [`PgSessionLayer::on_load_failure`](crate::PgSessionLayer::on_load_failure)
/// and [`PgSessionLayer::on_save_failure`](crate::PgSessionLayer::on_save_failure).
///
/// ```
/// use std::time::Duration;
/// use axum::{Router, body::Body, http::{Request, StatusCode}, routing::get};
/// use axum_pg_session::{FailurePolicy, PgSessionLayer, PgSessionStore, Session};
/// use tower::ServiceExt;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Nothing listens there.
/// let pool = sqlx::PgPool::connect_lazy("postgres://127.0.0.1:1/none")?;
/// let store = PgSessionStore::new(pool).timeout(Duration::from_millis(100));
/// for (policy, status) in [
///     (FailurePolicy::Refuse, StatusCode::SERVICE_UNAVAILABLE),
///     (FailurePolicy::Continue, StatusCode::OK),
/// ] {
///     let layer = PgSessionLayer::new(store.clone()).on_load_failure(policy);
///     let app = Router::new()
///         .route("/", get(async |session: Session| session.keys().join(", ")))
///         .layer(layer);
///     let token = "A".repeat(43);
///     let request = Request::get("/").header("cookie", format!("__Host-id={token}"));
///     let response = app.oneshot(request.body(Body::empty())?).await?;
///     assert_eq!(response.status(), status);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailurePolicy {
    /// The response is an error, usually a 503.
    #[default]
    Refuse,
    /// The handler's response is sent, without the session: the cookie is not
    /// changed or removed, and the row is not overwritten.
    Continue,
}
