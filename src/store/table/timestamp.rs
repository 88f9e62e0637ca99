//! A `timestamptz` as the crate computes with it.

use sqlx::{
    Decode, Postgres, Row as _, Type,
    error::BoxDynError,
    postgres::{PgRow, PgTypeInfo, PgValueRef, types::Oid},
};

/// `timestamptz` in the catalog of every Postgres.
const TIMESTAMPTZ: Oid = Oid(1184);
/// From the epoch of Unix to that of Postgres, the beginning of 2000.
const POSTGRES_EPOCH: f64 = 946_684_800.0;
const MICROS: f64 = 1e6;

/// Seconds since the Unix epoch. It can be infinite.
///
/// It is decoded here because arithmetic on the server would be the most expensive part of a
/// load, and because common types for instants have no infinity.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::store) struct Instant(pub(in crate::store) f64);

impl Type<Postgres> for Instant {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }

    fn compatible(found: &PgTypeInfo) -> bool {
        found.oid() == Some(TIMESTAMPTZ)
    }
}

impl<'r> Decode<'r, Postgres> for Instant {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let micros = <i64 as Decode<Postgres>>::decode(value)?;
        Ok(Self::from_micros(micros))
    }
}

impl Instant {
    /// Microseconds since the epoch of Unix, as the database counts them.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the calendar of Postgres fits, and infinity saturates"
    )]
    pub(in crate::store) fn micros(self) -> i64 {
        (self.0 * MICROS).round() as i64
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "the calendar of Postgres in microseconds keeps its milliseconds"
    )]
    fn from_micros(micros: i64) -> Self {
        Self(match micros {
            i64::MAX => f64::INFINITY,
            i64::MIN => f64::NEG_INFINITY,
            _ => micros as f64 / MICROS + POSTGRES_EPOCH,
        })
    }
}

/// The expiry that a write returns. The write is committed by then, so its result is read
/// whatever its type is.
///
/// # Errors
///
/// If the value can't be decoded as an instant.
pub(in crate::store) fn written(row: &PgRow, column: usize) -> Result<Instant, sqlx::Error> {
    row.try_get_unchecked(column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_counts_from_the_epoch_of_unix() {
        assert_eq!(Instant::from_micros(0).0, POSTGRES_EPOCH);
        assert_eq!(Instant::from_micros(-946_684_800_000_000).0, 0.0);
        assert_eq!(Instant::from_micros(1_500_000).0, POSTGRES_EPOCH + 1.5);
    }

    #[test]
    fn infinity_stays_infinite() {
        assert_eq!(Instant::from_micros(i64::MAX).0, f64::INFINITY);
        assert_eq!(Instant::from_micros(i64::MIN).0, f64::NEG_INFINITY);
    }
}
