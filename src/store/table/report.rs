//! The report of a check of the table. It only describes what was found.

use std::fmt;

/// The features that a table supports, from [`PgSessionStore::check`].
///
/// Its `Display` has a sentence for each feature that is off, or states that every feature is
/// on.
///
/// [`PgSessionStore::check`]: crate::PgSessionStore::check
///
/// ```
/// use axum_pg_session::PgSessionStore;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let database = dev_postgres::test_database().await?;
/// # let pool = sqlx::PgPool::connect(database.url()).await?;
/// // As koa-pg-session makes it.
/// sqlx::raw_sql("CREATE TABLE session (id text PRIMARY KEY, expiry timestamp NOT NULL, session json)")
///     .execute(&pool)
///     .await?;
/// let store = PgSessionStore::new(pool);
/// assert!(!store.check().await?.absolute_timeout);
/// store.migrate().await?;
/// assert!(store.check().await?.absolute_timeout);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TableReport {
    /// Whether the table has the column `created`, which the absolute timeout needs.
    /// Migration `0002` adds it.
    pub absolute_timeout: bool,
    /// Whether the table has the column `user_id`. Migration `0002` adds it.
    pub per_user_sessions: bool,
    /// Whether the table has the column `last_seen`, for lists of a user's sessions.
    /// Migration `0005` adds it.
    pub last_seen: bool,
    /// Whether the table has the column `device`, which stores the device of a login.
    /// Migration `0005` adds it.
    pub device: bool,
    /// Whether the table has the column `external_id`, which
    /// [`Login::external_id`](crate::Login::external_id) needs. Migration `0006` adds it.
    pub external_id: bool,
    /// Whether an index starts with `expiry`. Without one, each run of the reaper reads the
    /// whole table. Migration `0003` adds it.
    pub expiry_index: bool,
    /// Whether the table itself keeps `id` unique. Partitions on other servers can't.
    pub unique_id: bool,
    /// Whether `expiry` is a `timestamptz`. Otherwise all writers of the table must use the
    /// time zone of [`PgSessionStore::time_zone`]. The table doesn't show which one another
    /// system uses.
    ///
    /// [`PgSessionStore::time_zone`]: crate::PgSessionStore::time_zone
    pub expiry_has_time_zone: bool,
    /// Whether the database can store every character, as with the encoding UTF-8. Otherwise
    /// saving a value with another character, such as an emoji, is an error of kind
    /// [`Serialize`](crate::ErrorKind::Serialize).
    pub encodes_all_text: bool,
    /// Whether the table has the triggers of
    /// [`PgSessionStore::tombstones`](crate::PgSessionStore::tombstones).
    pub tombstones: bool,
}

impl fmt::Display for TableReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let findings = [
            (
                self.absolute_timeout,
                "without the column created the absolute timeout is off (migration 0002)",
            ),
            (
                self.per_user_sessions,
                "without the column user_id, `login` and `PgSessionStore::user` are errors (migration 0002)",
            ),
            (
                self.last_seen,
                "without the column last_seen it is unknown when a session was last used (migration 0005)",
            ),
            (
                self.device,
                "without the column device nothing is remembered of a login (migration 0005)",
            ),
            (
                self.external_id,
                "without the column external_id no session of an identity provider is found (migration 0006)",
            ),
            (
                self.expiry_index,
                "without an index on expiry the reaper reads the whole table (migration 0003)",
            ),
            (self.unique_id, "the table does not keep id unique"),
            (
                self.expiry_has_time_zone,
                "the expiry has no time zone, so each program that writes it must use the one of PgSessionStore::time_zone",
            ),
            (
                self.encodes_all_text,
                "the encoding of the database is not UTF-8, so values with other characters are refused",
            ),
        ];
        let off: Vec<_> = findings
            .iter()
            .filter(|(is_on, _)| !is_on)
            .map(|(_, finding)| *finding)
            .collect();
        match off.as_slice() {
            [] => f.write_str("every feature is on"),
            off => f.write_str(&off.join("; ")),
        }
    }
}
