use std::fmt;

use sqlx::{FromRow, PgConnection, Row as _, postgres::PgRow};

use crate::{
    Error, ErrorKind,
    store::{instant, render::OPTIONAL, table::TableName},
};

/// How the column `session` is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Document {
    Json,
    Jsonb,
}

/// How the column `expiry` is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Instant {
    /// `timestamptz`
    Zoned,
    /// `timestamp`, on the clock of this zone
    Local(String),
}

/// What a table has that the statements depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) document: Document,
    pub(crate) expiry: Instant,
    /// All but `id`, `expiry` and `session` that go along to a new id.
    pub(crate) carried: Vec<String>,
    /// Those of [`OPTIONAL`] that serve.
    pub(crate) optional: Vec<&'static str>,
    pub(crate) has_unique_id: bool,
    pub(crate) has_expiry_index: bool,
    pub(crate) has_user_id_index: bool,
}

impl Columns {
    pub(crate) fn has_created(&self) -> bool {
        self.has("created")
    }

    pub(crate) fn has_user_id(&self) -> bool {
        self.has("user_id")
    }

    pub(crate) fn has_last_seen(&self) -> bool {
        self.has("last_seen")
    }

    pub(crate) fn has(&self, optional: &str) -> bool {
        self.optional.contains(&optional)
    }

    /// Whether every migration's result is there already.
    pub(crate) fn are_complete(&self) -> bool {
        let has_columns = OPTIONAL.iter().all(|(column, _)| self.has(column));
        has_columns && self.has_expiry_index && self.has_user_id_index
    }

    pub(crate) fn report(&self) -> TableReport {
        TableReport {
            absolute_timeout: self.has_created(),
            sessions_of_a_user: self.has_user_id(),
            last_seen: self.has_last_seen(),
            device: self.has("device"),
            expiry_index: self.has_expiry_index,
            unique_id: self.has_unique_id,
            zoned_expiry: self.expiry == Instant::Zoned,
        }
    }
}

/// What a table that passed [`PgSessionStore::check`] can serve.
///
/// Its `Display` is a sentence for each thing that is off, or says that
/// nothing is.
///
/// [`PgSessionStore::check`]: crate::PgSessionStore::check
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TableReport {
    /// Whether the column `created` is there, which carries the absolute
    /// timeout. Migration `0002` adds it.
    pub absolute_timeout: bool,
    /// Whether the column `user_id` is there. Migration `0002` adds it.
    pub sessions_of_a_user: bool,
    /// Whether the column `last_seen` is there, for lists of a user's
    /// sessions. Migration `0005` adds it.
    pub last_seen: bool,
    /// Whether the column `device` is there, which holds what is remembered
    /// of a login. Migration `0005` adds it.
    pub device: bool,
    /// Whether an index starts with `expiry`, without which each run of the
    /// reaper reads the whole table. Migration `0003` adds it.
    pub expiry_index: bool,
    /// Whether the table itself keeps `id` unique; partitions on other
    /// servers can't.
    pub unique_id: bool,
    /// Whether `expiry` is a `timestamptz`. Otherwise all writers of the table
    /// must keep the clock that [`PgSessionStore::time_zone`] names; which one
    /// another system keeps can't be told from the table.
    ///
    /// [`PgSessionStore::time_zone`]: crate::PgSessionStore::time_zone
    pub zoned_expiry: bool,
}

impl fmt::Display for TableReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let findings = [
            (
                self.absolute_timeout,
                "without the column created the absolute timeout is off (migration 0002)",
            ),
            (
                self.sessions_of_a_user,
                "without the column user_id there are no sessions of a user (migration 0002)",
            ),
            (
                self.last_seen,
                "without the column last_seen nobody knows when a session was seen (migration 0005)",
            ),
            (
                self.device,
                "without the column device nothing is remembered of a login (migration 0005)",
            ),
            (
                self.expiry_index,
                "without an index on expiry the reaper reads the whole table (migration 0003)",
            ),
            (self.unique_id, "the table does not keep id unique"),
            (
                self.zoned_expiry,
                "expiry has no time zone, so every writer must keep the clock of PgSessionStore::time_zone",
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

/// One row of `inspect.sql`.
struct Column {
    name: String,
    r#type: String,
    is_generated: bool,
    has_default: bool,
    is_required: bool,
    /// Fewer characters than an id of ours has.
    is_short: bool,
    /// By a key that is checked at once: `ON CONFLICT` refuses others.
    is_unique: bool,
    is_indexed: bool,
    is_plain: bool,
    may_use_schema: bool,
    may_select: bool,
    may_insert: bool,
    may_update: bool,
    may_delete: bool,
}

impl FromRow<'_, PgRow> for Column {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            name: row.try_get("name")?,
            r#type: row.try_get("type")?,
            is_generated: row.try_get("is_generated")?,
            has_default: row.try_get("has_default")?,
            is_required: row.try_get("is_required")?,
            is_short: row.try_get("is_short")?,
            is_unique: row.try_get("is_unique")?,
            is_indexed: row.try_get("is_indexed")?,
            is_plain: row.try_get("is_plain")?,
            may_use_schema: row.try_get("may_use_schema")?,
            may_select: row.try_get("may_select")?,
            may_insert: row.try_get("may_insert")?,
            may_update: row.try_get("may_update")?,
            may_delete: row.try_get("may_delete")?,
        })
    }
}

/// Looks at the table; `None` if there is none.
///
/// # Errors
///
/// Of kind `Setup`, naming the column or the right that is missing.
pub(crate) async fn inspect(
    connection: &mut PgConnection,
    name: TableName,
    zone: String,
) -> Result<Option<Columns>, Error> {
    let columns: Vec<Column> = sqlx::query_as(include_str!("sql/inspect.sql"))
        .persistent(false)
        .bind(&name.schema)
        .bind(&name.table)
        .fetch_all(&mut *connection)
        .await?;
    if columns.is_empty() {
        return Ok(None);
    }
    let columns = Inspection { name, columns }.columns(&zone)?;
    if let Instant::Local(zone) = &columns.expiry {
        check_zone(connection, zone).await?;
    }
    Ok(Some(columns))
}

/// By the database's clock, in seconds since the epoch.
pub(super) async fn now(connection: &mut PgConnection) -> Result<f64, Error> {
    let now: instant::Instant = sqlx::query_scalar(include_str!("sql/now.sql"))
        .persistent(false)
        .fetch_one(connection)
        .await?;
    Ok(now.0)
}

/// Whether the server is a standby, or takes no writes for another reason.
pub(super) async fn is_read_only(connection: &mut PgConnection) -> Result<bool, Error> {
    let is_read_only = sqlx::query_scalar(include_str!("sql/read_only.sql"))
        .persistent(false)
        .fetch_one(connection)
        .await?;
    Ok(is_read_only)
}

/// A zone that Postgres does not know would be an error of every statement.
async fn check_zone(connection: &mut PgConnection, zone: &str) -> Result<(), Error> {
    let known = sqlx::query(include_str!("sql/check_zone.sql"))
        .persistent(false)
        .bind(zone)
        .execute(connection)
        .await;
    match known {
        Err(source @ sqlx::Error::Database(_)) => Err(Error::caused(
            ErrorKind::Setup,
            format!("{zone:?} is no time zone that Postgres knows"),
            source,
        )),
        outcome => Ok(outcome.map(drop)?),
    }
}

impl Column {
    /// Such as a serial number, which two rows can't share while a session
    /// gets a new id.
    fn is_a_number_of_its_row(&self) -> bool {
        self.is_unique && self.has_default
    }

    fn serves_as(&self, optional: &str) -> bool {
        !self.is_generated && types_of(optional).contains(&self.r#type.as_str())
    }
}

/// Of a column that a table may lack, the first one as we create it.
fn types_of(optional: &str) -> &'static [&'static str] {
    match optional {
        "user_id" => &["text", "character varying"],
        "device" => &["json", "jsonb"],
        _ => &["timestamp with time zone"],
    }
}

struct Inspection {
    name: TableName,
    columns: Vec<Column>,
}

impl Inspection {
    fn columns(&self, zone: &str) -> Result<Columns, Error> {
        let columns = Columns {
            document: self.document()?,
            expiry: self.expiry(zone)?,
            carried: self.carried(),
            optional: self.optional(),
            has_unique_id: self.has_unique_id()?,
            has_expiry_index: self.is_indexed("expiry"),
            has_user_id_index: self.is_indexed("user_id"),
        };
        for column in ["created", "user_id"] {
            self.check_optional(column)?;
        }
        self.check_foreign_requirements()?;
        self.check_rights()?;
        Ok(columns)
    }

    fn find(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    fn required(&self, name: &str) -> Result<&Column, Error> {
        self.find(name)
            .ok_or_else(|| self.refused(format!("has no column {name}")))
    }

    fn document(&self) -> Result<Document, Error> {
        match self.required("session")?.r#type.as_str() {
            "json" => Ok(Document::Json),
            "jsonb" => Ok(Document::Jsonb),
            found => Err(self.mistyped("session", found, "json or jsonb")),
        }
    }

    fn expiry(&self, zone: &str) -> Result<Instant, Error> {
        match self.required("expiry")?.r#type.as_str() {
            "timestamp with time zone" => Ok(Instant::Zoned),
            "timestamp without time zone" => Ok(Instant::Local(zone.to_owned())),
            found => Err(self.mistyped("expiry", found, "timestamptz or timestamp")),
        }
    }

    fn has_unique_id(&self) -> Result<bool, Error> {
        let id = self.required("id")?;
        if !matches!(id.r#type.as_str(), "text" | "character varying") {
            return Err(self.mistyped("id", &id.r#type, "text"));
        }
        if id.is_short {
            return Err(self.refused("has a column id that holds less than 43 characters"));
        }
        if id.is_plain && !id.is_unique {
            return Err(self.refused(
                "has no primary key or unique index on its column id that is not deferrable",
            ));
        }
        Ok(id.is_unique)
    }

    fn carried(&self) -> Vec<String> {
        self.columns
            .iter()
            .filter(|column| !column.is_generated && !column.is_a_number_of_its_row())
            .map(|column| column.name.clone())
            .filter(|name| !matches!(name.as_str(), "id" | "expiry" | "session"))
            .collect()
    }

    fn is_indexed(&self, name: &str) -> bool {
        self.find(name).is_some_and(|column| column.is_indexed)
    }

    /// A column of another type is the application's own, whatever its name.
    fn optional(&self) -> Vec<&'static str> {
        let serves = |name: &str| self.find(name).is_some_and(|column| column.serves_as(name));
        OPTIONAL
            .map(|(name, _)| name)
            .into_iter()
            .filter(|name| serves(name))
            .collect()
    }

    /// For a column whose name was taken for ours from the beginning.
    fn check_optional(&self, name: &str) -> Result<(), Error> {
        match self.find(name) {
            Some(column) if !types_of(name).contains(&column.r#type.as_str()) => {
                Err(self.mistyped(name, &column.r#type, types_of(name)[0]))
            }
            _ => Ok(()),
        }
    }

    /// A new session could not be inserted beside such a column.
    fn check_foreign_requirements(&self) -> Result<(), Error> {
        let ours = ["id", "expiry", "session"];
        match self.columns.iter().find(|column| {
            column.is_required && !column.is_generated && !ours.contains(&column.name.as_str())
        }) {
            Some(column) => Err(self.refused(format!(
                "has a column {} that is NOT NULL without a default, so no session can be inserted",
                column.name
            ))),
            None => Ok(()),
        }
    }

    fn check_rights(&self) -> Result<(), Error> {
        let column = &self.columns[0];
        let missing: Vec<_> = [
            (column.may_use_schema, "USAGE of its schema"),
            (column.may_select, "SELECT"),
            (column.may_insert, "INSERT"),
            (column.may_update, "UPDATE"),
            (column.may_delete, "DELETE"),
        ]
        .iter()
        .filter(|(is_granted, _)| !is_granted)
        .map(|(_, right)| *right)
        .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(self.refused(format!("does not grant this role {}", missing.join(", "))))
    }

    fn mistyped(&self, column: &str, found: &str, wanted: &str) -> Error {
        self.refused(format!(
            "has a column {column} of type {found}; it must be {wanted}"
        ))
    }

    fn refused(&self, finding: impl fmt::Display) -> Error {
        Error::new(
            ErrorKind::Setup,
            format!("the table {} {finding}", self.name),
        )
    }
}
