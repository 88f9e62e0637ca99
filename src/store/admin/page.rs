//! A list of a user's sessions, page by page. It doesn't know how a session ends.

use std::{fmt, num::NonZeroU32, str::FromStr, sync::Arc};

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::{
    Error, ErrorKind, SessionId,
    id::RowId,
    store::table::{statements::Statements, timestamp::Instant},
};

/// The columns of `user_list.sql`.
pub(in crate::store) type Listed = (
    String,
    Instant,
    Option<Instant>,
    Option<Instant>,
    Option<String>,
);

/// Later than the beginning of any session.
const INFINITY: &str = "infinity";

/// A position in a list of a user's sessions, from which the next page continues. Returned by
/// [`UserSession::position`](crate::UserSession::position).
///
/// It can be used in a link as text. It holds the session's beginning and its handle, so it
/// stays valid when that session ends.
///
/// ```
/// use axum_pg_session::ListPosition;
///
/// /// The position from a link such as `/devices?after=…`.
/// fn after(query: Option<&str>) -> Option<ListPosition> {
///     query?.parse().ok()
/// }
///
/// assert_eq!(after(None), None);
/// assert_eq!(after(Some("no position")), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListPosition {
    /// In microseconds since the epoch.
    created: Option<i64>,
    id: SessionId,
}

impl ListPosition {
    pub(in crate::store) fn new(created: Option<Instant>, id: SessionId) -> Self {
        Self {
            created: created.map(Instant::micros),
            id,
        }
    }

    pub(in crate::store) fn id(&self) -> &SessionId {
        &self.id
    }

    pub(in crate::store) fn page(&self, row: &RowId) -> Page {
        Page {
            created: self.created.map(text_of),
            row: row.as_str().to_owned(),
        }
    }
}

impl fmt::Display for ListPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.created {
            Some(micros) => write!(f, "{micros}.{}", self.id),
            None => write!(f, ".{}", self.id),
        }
    }
}

/// Reads what `Display` wrote.
impl FromStr for ListPosition {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (created, id) = text.split_once('.').ok_or_else(no_position)?;
        let created = match created {
            "" => None,
            micros => Some(micros.parse().map_err(|_| no_position())?),
        };
        Ok(Self {
            created,
            id: id.parse().map_err(|_| no_position())?,
        })
    }
}

fn no_position() -> Error {
    Error::new(
        ErrorKind::Deserialize,
        "this is not a position in a list of sessions",
    )
}

/// An instant as text that Postgres reads in every time zone. A time outside of the calendar
/// here is no time of a session.
fn text_of(micros: i64) -> String {
    match OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000) {
        Ok(at) if at.year() > 0 => format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:06}+00",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            at.microsecond()
        ),
        _ if micros > 0 => INFINITY.to_owned(),
        _ => format!("-{INFINITY}"),
    }
}

/// The position where a page begins: after this row.
#[derive(Clone, Debug)]
pub(in crate::store) struct Page {
    /// As text, see [`text_of`].
    created: Option<String>,
    row: String,
}

impl Page {
    pub(in crate::store) fn first() -> Self {
        Self {
            created: Some(INFINITY.to_owned()),
            row: String::new(),
        }
    }

    /// The page after these rows.
    pub(in crate::store) fn next(rows: &[Listed]) -> Option<Self> {
        let (id, _, created, ..) = rows.last()?;
        let position = ListPosition::new(*created, SessionId::new(id.as_str()));
        Some(position.page(&RowId::from(id.clone())))
    }
}

pub(in crate::store) async fn list(
    table: Arc<Statements>,
    connection: &mut PgConnection,
    user_id: String,
    page: Page,
    limit: NonZeroU32,
) -> Result<Vec<Listed>, Error> {
    let rows = table
        .users
        .list
        .query_as()
        .bind(user_id)
        .bind(page.created)
        .bind(page.row)
        .bind(i64::from(limit.get()))
        .fetch_all(connection)
        .await?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_is_written_to_the_microsecond() {
        assert_eq!(
            text_of(1_732_781_234_000_456),
            "2024-11-28 08:07:14.000456+00"
        );
        assert_eq!(text_of(-1), "1969-12-31 23:59:59.999999+00");
        assert_eq!(text_of(i64::MAX), "infinity");
        assert_eq!(text_of(i64::MIN), "-infinity");
    }

    #[test]
    fn a_position_is_what_its_text_says() {
        let id: SessionId = "yo3kjqNtsxUxpQFnyVPVYF3pKT1yfnW1GnyDmtdW4qA"
            .parse()
            .expect("a handle");
        for created in [Some(Instant(1_732_781_234.123_456)), None] {
            let position = ListPosition::new(created, id.clone());
            assert_eq!(
                position.to_string().parse::<ListPosition>().ok(),
                Some(position)
            );
        }
        for text in ["", ".", "1", "x.yo3k", "1.yo3k", id.as_str()] {
            assert!(text.parse::<ListPosition>().is_err(), "{text}");
        }
    }
}
