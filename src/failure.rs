/// What a request gets when the database fails, for
/// [`PgSessionLayer::on_load_failure`](crate::PgSessionLayer::on_load_failure)
/// and [`PgSessionLayer::on_save_failure`](crate::PgSessionLayer::on_save_failure).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailurePolicy {
    /// An answer of 503.
    #[default]
    Refuse,
    /// The handler's answer, without the session: no cookie is changed or
    /// removed, and nothing is written over the row.
    Continue,
}
