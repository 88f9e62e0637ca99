//! Inspects the table in the catalog: its columns, and whether the store can use it. It changes
//! nothing and renders no statement. If a future is dropped, nothing is left.

use std::fmt;

use sqlx::{FromRow, PgConnection, Row as _, postgres::PgRow};

use crate::{
    Error, ErrorKind,
    format::ColumnNames,
    store::table::{
        columns::{Columns, Document, Instant, OPTIONAL},
        name::TableName,
        timestamp, tombstones,
    },
};

/// A table that is neither partitioned nor on another server.
const PLAIN: &str = "r";

/// One row of `inspect.sql`.
struct Column {
    name: String,
    /// Its number in the catalog.
    number: i16,
    r#type: String,
    is_generated: bool,
    /// Whether it is generated from other columns.
    is_computed: bool,
    has_default: bool,
    is_not_null: bool,
    /// Whether it holds fewer characters than an id of the store has.
    is_short: bool,
    /// Whether it has a unique key that is checked at once. `ON CONFLICT` refuses others.
    is_unique: bool,
    /// The numbers of the columns of each unique index or exclusion constraint that contains
    /// this column, by itself or in an expression.
    unique_keys: Vec<String>,
    /// Whether the table has a unique or exclusion constraint that is checked later.
    has_deferrable_key: bool,
    /// The numbers of the columns from which this one is generated.
    computed_from: Vec<i32>,
    is_indexed: bool,
    /// Whether the table has an index on the digests of the ids.
    has_handle_index: bool,
    /// Whether the table of destroyed ids and its index exist.
    has_tombstone_table: bool,
    /// The bodies of the functions of the triggers for tombstones.
    tombstone_functions: Vec<String>,
    /// Whether it is generated from the user of Passport.
    is_of_passport: bool,
    /// The kind of its relation, as the catalog abbreviates it.
    kind: String,
    may_alter: bool,
    has_row_security: bool,
    encoding: String,
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
            number: row.try_get("number")?,
            r#type: row.try_get("type")?,
            is_generated: row.try_get("is_generated")?,
            is_computed: row.try_get("is_computed")?,
            has_default: row.try_get("has_default")?,
            is_not_null: row.try_get("is_not_null")?,
            is_short: row.try_get("is_short")?,
            is_unique: row.try_get("is_unique")?,
            unique_keys: row.try_get("unique_keys")?,
            has_deferrable_key: row.try_get("has_deferrable_key")?,
            computed_from: row.try_get("computed_from")?,
            is_indexed: row.try_get("is_indexed")?,
            has_handle_index: row.try_get("has_handle_index")?,
            has_tombstone_table: row.try_get("has_tombstone_table")?,
            tombstone_functions: row.try_get("tombstone_functions")?,
            is_of_passport: row.try_get("is_of_passport")?,
            kind: row.try_get("kind")?,
            may_alter: row.try_get("may_alter")?,
            has_row_security: row.try_get("has_row_security")?,
            encoding: row.try_get("encoding")?,
            may_use_schema: row.try_get("may_use_schema")?,
            may_select: row.try_get("may_select")?,
            may_insert: row.try_get("may_insert")?,
            may_update: row.try_get("may_update")?,
            may_delete: row.try_get("may_delete")?,
        })
    }
}

/// A table that the statements can read.
pub(crate) struct Inspected {
    pub(crate) columns: Columns,
    /// Why some calls would fail nevertheless, such as those for a new id.
    pub(crate) obstacle: Option<Error>,
}

/// The table as the format and the options of the store need it.
pub(crate) struct Wanted {
    pub(crate) name: TableName,
    /// The time zone of the column `expiry`, if it has none.
    pub(crate) zone: String,
    pub(crate) columns: ColumnNames,
    /// Whether `user_id` is generated from the document.
    pub(crate) stores_user_in_document: bool,
}

/// Inspects the table. `None` if there is none.
///
/// # Errors
///
/// Of kind `Setup` and without a source, if the statements can't read the table, or would not
/// see its rows. Other errors are those of the queries.
pub(crate) async fn inspect(
    connection: &mut PgConnection,
    wanted: Wanted,
) -> Result<Option<Inspected>, Error> {
    let columns: Vec<Column> = sqlx::query_as(include_str!("../sql/inspect.sql"))
        .persistent(false)
        .bind(&wanted.name.schema)
        .bind(&wanted.name.table)
        .bind(tombstones::triggers(&wanted.name))
        .bind(tombstones::relations(&wanted.name))
        .fetch_all(&mut *connection)
        .await?;
    if columns.is_empty() {
        return Ok(None);
    }
    let inspection = Inspection { wanted, columns };
    let columns = inspection.columns()?;
    if let Instant::Local(zone) = &columns.expiry {
        check_zone(connection, zone).await?;
    }
    let obstacle = inspection.check(&columns).err();
    Ok(Some(Inspected { columns, obstacle }))
}

/// Properties of the server that are read together with the table.
pub(in crate::store) struct Server {
    /// The time of its clock, in seconds since the epoch.
    pub(in crate::store) now: f64,
    /// The isolation level that transactions have by default.
    pub(in crate::store) isolation: String,
}

pub(in crate::store) async fn server(connection: &mut PgConnection) -> Result<Server, Error> {
    let (now, isolation): (timestamp::Instant, String) =
        sqlx::query_as(include_str!("../sql/server.sql"))
            .persistent(false)
            .fetch_one(connection)
            .await?;
    Ok(Server {
        now: now.0,
        isolation,
    })
}

/// Refuses row level security for the role of this connection, such as one of the application.
pub(in crate::store) async fn check_row_security(
    connection: &mut PgConnection,
    name: &TableName,
) -> Result<(), Error> {
    let is_active: Option<bool> = sqlx::query_scalar(include_str!("../sql/row_security.sql"))
        .persistent(false)
        .bind(&name.schema)
        .bind(&name.table)
        .fetch_optional(connection)
        .await?;
    match is_active {
        Some(true) => Err(row_security(name)),
        _ => Ok(()),
    }
}

/// The error for policies that hide rows from this role. They would sign users out, or spare
/// their sessions, without an error.
fn row_security(name: &TableName) -> Error {
    Error::new(
        ErrorKind::Setup,
        format!(
            "the table {name} has row level security that applies to this role; connect as the \
             owner of the table, use ALTER ROLE … BYPASSRLS, or ALTER TABLE … DISABLE ROW LEVEL \
             SECURITY"
        ),
    )
}

/// Checks that Postgres knows the time zone. Otherwise every statement would fail.
async fn check_zone(connection: &mut PgConnection, zone: &str) -> Result<(), Error> {
    let known = sqlx::query(include_str!("../sql/check_zone.sql"))
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
    /// Whether it numbers the rows, such as a serial column. It is not copied, because a
    /// session that gets a new id has two rows, which can't share a number. Columns that the
    /// store writes are no such numbers.
    fn is_a_number_of_its_row(&self) -> bool {
        let is_written = OPTIONAL.iter().any(|(name, _)| *name == self.name);
        self.is_unique && self.has_default && !is_written
    }

    fn is_required(&self) -> bool {
        self.is_not_null && !self.has_default
    }
}

/// The types that an optional column may have. A migration creates it with the first one.
fn types_of(optional: &str) -> &'static [&'static str] {
    match optional {
        "user_id" | "external_id" => &["text", "character varying"],
        "device" => &["json", "jsonb"],
        _ => &["timestamp with time zone"],
    }
}

struct Inspection {
    wanted: Wanted,
    columns: Vec<Column>,
}

impl Inspection {
    fn columns(&self) -> Result<Columns, Error> {
        self.check_kind()?;
        self.check_row_security()?;
        // Without them, users would be signed out, and sessions would have no absolute timeout.
        for column in ["created", "user_id"] {
            self.check_optional(column)?;
        }
        let expiry = self.expiry()?;
        Ok(Columns {
            document: self.document()?,
            expiry: expiry.clone(),
            carried: self.carried(),
            optional: self.optional(),
            has_unique_id: self.id()?.is_unique,
            has_expiry_index: self.is_indexed(self.names().expiry),
            has_user_id_index: self.is_indexed("user_id"),
            has_external_id_index: self.is_indexed("external_id"),
            has_handle_index: self.columns[0].has_handle_index,
            may_read_all: self.columns.iter().all(|column| column.may_select),
            has_tombstones: self.has_tombstones(&expiry),
            may_be_altered: self.columns[0].may_alter,
            encodes_all_text: matches!(&*self.columns[0].encoding, "UTF8" | "SQL_ASCII"),
        })
    }

    /// Refuses what makes only some calls fail.
    fn check(&self, columns: &Columns) -> Result<(), Error> {
        self.check_id()?;
        self.check_deferrable_keys()?;
        self.check_foreign_requirements()?;
        self.check_default_of_created()?;
        self.check_nulls()?;
        self.check_unique_copies(columns)?;
        self.check_rights(columns)
    }

    fn names(&self) -> ColumnNames {
        self.wanted.columns
    }

    fn required_names(&self) -> [&'static str; 3] {
        let ColumnNames {
            id,
            expiry,
            session,
        } = self.names();
        [id, expiry, session]
    }

    /// Whether the store can use the column as this optional one. It writes all of them, except
    /// for a user that is generated from the document.
    fn serves_as(&self, column: &Column, optional: &str) -> bool {
        let must_be_generated = optional == "user_id" && self.wanted.stores_user_in_document;
        column.is_generated == must_be_generated
            && column.is_of_passport == must_be_generated
            && types_of(optional).contains(&column.r#type.as_str())
    }

    fn has_tombstones(&self, expiry: &Instant) -> bool {
        let (first, wanted) = (&self.columns[0], &self.wanted);
        first.has_tombstone_table
            && first.tombstone_functions
                == tombstones::functions(&wanted.name, wanted.columns, expiry)
    }

    fn find(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    fn required(&self, name: &str) -> Result<&Column, Error> {
        let is_of_express = self.find("sid").is_some() && self.find("sess").is_some();
        self.find(name).ok_or_else(|| match is_of_express {
            true => self.refused(format!(
                "has no column {name}, but those of Express; call PgSessionStore::express, or \
                 choose another table"
            )),
            false => self.refused(format!("has no column {name}")),
        })
    }

    fn document(&self) -> Result<Document, Error> {
        let name = self.names().session;
        match self.required(name)?.r#type.as_str() {
            "json" => Ok(Document::Json),
            "jsonb" => Ok(Document::Jsonb),
            found => Err(self.mistyped(name, found, "json or jsonb")),
        }
    }

    fn expiry(&self) -> Result<Instant, Error> {
        let name = self.names().expiry;
        match self.required(name)?.r#type.as_str() {
            "timestamp with time zone" => Ok(Instant::Zoned),
            "timestamp without time zone" => Ok(Instant::Local(self.wanted.zone.clone())),
            found => Err(self.mistyped(name, found, "timestamptz or timestamp")),
        }
    }

    fn id(&self) -> Result<&Column, Error> {
        let name = self.names().id;
        let id = self.required(name)?;
        match id.r#type.as_str() {
            "text" | "character varying" => Ok(id),
            found => Err(self.mistyped(name, found, "text")),
        }
    }

    fn check_id(&self) -> Result<(), Error> {
        let id = self.id()?;
        if id.is_short {
            let name = &id.name;
            return Err(self.refused(format!(
                "has a column {name} that holds less than 43 characters"
            )));
        }
        if id.kind == PLAIN && !id.is_unique {
            let name = &id.name;
            return Err(self.refused(format!(
                "has no primary key or unique index on its column {name} that is not deferrable"
            )));
        }
        Ok(())
    }

    /// Refuses constraints that are checked at the commit. `ON CONFLICT` refuses every insert into
    /// a table with one, whichever columns it has.
    fn check_deferrable_keys(&self) -> Result<(), Error> {
        match self.columns[0].has_deferrable_key {
            true => Err(self.refused(
                "has a unique or exclusion constraint that is DEFERRABLE, so no session can be \
                 inserted",
            )),
            false => Ok(()),
        }
    }

    fn carried(&self) -> Vec<String> {
        self.columns
            .iter()
            .filter(|column| !column.is_generated && !column.is_a_number_of_its_row())
            .map(|column| column.name.clone())
            .filter(|name| !self.required_names().contains(&name.as_str()))
            .collect()
    }

    fn is_indexed(&self, name: &str) -> bool {
        self.find(name).is_some_and(|column| column.is_indexed)
    }

    /// The optional columns that the store uses. A column of another type belongs to the
    /// application, even if it has the same name.
    fn optional(&self) -> Vec<&'static str> {
        let serves = |name: &str| {
            self.find(name)
                .is_some_and(|column| self.serves_as(column, name))
        };
        OPTIONAL
            .map(|(name, _)| name)
            .into_iter()
            .filter(|name| serves(name))
            .collect()
    }

    /// Refuses another type for a column whose name was the store's from the first version on.
    fn check_optional(&self, name: &str) -> Result<(), Error> {
        match self.find(name) {
            Some(column) if !types_of(name).contains(&column.r#type.as_str()) => {
                Err(self.mistyped(name, &column.r#type, types_of(name)[0]))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a relation that is no table, such as a view. A table can't be created with its
    /// name either.
    fn check_kind(&self) -> Result<(), Error> {
        let what = match &*self.columns[0].kind {
            PLAIN | "p" | "f" => return Ok(()),
            "v" => "a view",
            "m" => "a materialized view",
            "S" => "a sequence",
            "i" | "I" => "an index",
            "c" => "a type",
            _ => "no table",
        };
        Err(self.named(&format!(
            "{} is {what}, and must be a table",
            self.wanted.name
        )))
    }

    fn check_row_security(&self) -> Result<(), Error> {
        match self.columns[0].has_row_security {
            true => Err(row_security(&self.wanted.name)),
            false => Ok(()),
        }
    }

    /// Refuses a column `created` without a default. The beginning of new rows would be missing,
    /// and the absolute timeout would be off without an error.
    fn check_default_of_created(&self) -> Result<(), Error> {
        match self.find("created") {
            Some(created) if !created.has_default => Err(self.refused(
                "has a column created without a default; use ALTER TABLE … ALTER COLUMN created \
                 SET DEFAULT now()",
            )),
            _ => Ok(()),
        }
    }

    /// Refuses NOT NULL for columns that are NULL in a session without a user or a device.
    fn check_nulls(&self) -> Result<(), Error> {
        for name in ["user_id", "device", "external_id"] {
            match self.find(name) {
                Some(column) if self.serves_as(column, name) && column.is_not_null => {
                    return Err(self.refused(format!(
                        "has a column {name} that is NOT NULL; it must accept NULL, because not every \
                         session has a value for it"
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses unique keys of columns that are copied, or generated from them. A session that gets
    /// a new id has two rows with the same values.
    fn check_unique_copies(&self, columns: &Columns) -> Result<(), Error> {
        let is_carried = |column: &Column| {
            column.name == self.names().session || columns.carried.contains(&column.name)
        };
        let is_computed_from_copies = |column: &Column| {
            column.is_computed
                && column.computed_from.iter().all(|number| {
                    let mut columns = self.columns.iter();
                    columns.any(|from| i32::from(from.number) == *number && is_carried(from))
                })
        };
        let is_copied = |number: &str| {
            self.columns.iter().any(|column| {
                column.number.to_string() == number
                    && (is_carried(column) || is_computed_from_copies(column))
            })
        };
        let is_in_the_way = |key: &String| {
            let mut numbers = key.trim_matches(['{', '}']).split(',');
            numbers.all(is_copied)
        };
        let found = self
            .columns
            .iter()
            .find(|column| column.unique_keys.iter().any(is_in_the_way));
        match found {
            Some(column) => Err(self.refused(format!(
                "has a column {} that is unique, alone or with others; a session that gets a new \
                 id has two rows for a minute, with the same value in it",
                column.name
            ))),
            None => Ok(()),
        }
    }

    /// Refuses required columns of the application, because a new session could not be inserted.
    fn check_foreign_requirements(&self) -> Result<(), Error> {
        let ours = self.required_names();
        match self.columns.iter().find(|column| {
            column.is_required() && !column.is_generated && !ours.contains(&column.name.as_str())
        }) {
            Some(column) => Err(self.refused(format!(
                "has a column {} that is NOT NULL without a default, so no session can be inserted",
                column.name
            ))),
            None => Ok(()),
        }
    }

    /// Checks the rights, which can be granted for the table or for each column that a statement
    /// names.
    fn check_rights(&self, columns: &Columns) -> Result<(), Error> {
        let (first, mut missing) = (&self.columns[0], Vec::new());
        if !first.may_use_schema {
            missing.push("USAGE of its schema".to_owned());
        }
        let copied: Vec<_> = self
            .required_names()
            .into_iter()
            .chain(columns.carried.iter().map(String::as_str))
            .collect();
        let optional = OPTIONAL.map(|(name, _)| name);
        let is_changed = |name: &&str| columns.has(name) && columns.carries(name);
        let changed: Vec<_> = [self.names().expiry, self.names().session]
            .into_iter()
            .chain(optional.into_iter().filter(is_changed))
            .collect();
        missing.extend(self.lacking("SELECT", &copied, |column| column.may_select));
        missing.extend(self.lacking("INSERT", &copied, |column| column.may_insert));
        missing.extend(self.lacking("UPDATE", &changed, |column| column.may_update));
        if !first.may_delete {
            missing.push("DELETE".to_owned());
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(self.refused(format!("does not grant this role {}", missing.join(", "))))
    }

    /// Finds a right that this role lacks for any of these columns.
    fn lacking(
        &self,
        right: &str,
        names: &[&str],
        is_granted: impl Fn(&Column) -> bool,
    ) -> Option<String> {
        let needed = || {
            let is_needed = |column: &&Column| names.contains(&column.name.as_str());
            self.columns.iter().filter(is_needed)
        };
        let lacking: Vec<_> = needed()
            .filter(|column| !is_granted(column))
            .map(|column| column.name.as_str())
            .collect();
        match lacking.len() {
            0 => None,
            all if all == needed().count() => Some(right.to_owned()),
            1 => Some(format!("{right} of the column {}", lacking[0])),
            _ => Some(format!("{right} of the columns {}", lacking.join(" and "))),
        }
    }

    fn mistyped(&self, column: &str, found: &str, wanted: &str) -> Error {
        self.refused(format!(
            "has a column {column} of type {found}; it must be {wanted}"
        ))
    }

    fn refused(&self, finding: impl fmt::Display) -> Error {
        self.named(&format!("the table {} {finding}", self.wanted.name))
    }

    fn named(&self, finding: &str) -> Error {
        Error::new(ErrorKind::Setup, finding.to_owned())
    }
}
