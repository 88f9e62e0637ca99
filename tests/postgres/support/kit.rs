//! Shorthands for the crate's own kit for tests.

use axum_pg_session::{Error, Session, SessionId, testing::TestVisitor};

/// A request of this visitor that does this to its session.
pub(crate) async fn act(
    visitor: &TestVisitor,
    act: impl FnOnce(&Session) -> Result<(), Error> + Send,
) {
    visitor.with_session(act).await.expect("a database");
}

/// The handle of the visitor's session.
pub(crate) async fn id(visitor: &TestVisitor) -> SessionId {
    let session = visitor.session().await.expect("a database");
    session.id().expect("it is stored")
}
