use std::fmt;

use sqlx::{FromRow, PgConnection, Row as _, postgres::PgRow};

use crate::{
    Error, ErrorKind,
    store::{
        columns::{Columns, Document, Instant},
        instant,
        render::OPTIONAL,
        table::TableName,
    },
};

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

/// Whether the server is a standby, or takes no writes for another reason. Asked
/// in a single message, as a pooler may stand before the server.
pub(super) async fn is_read_only(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let row = sqlx::raw_sql(include_str!("sql/read_only.sql"))
        .fetch_one(connection)
        .await?;
    row.try_get(0)
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
