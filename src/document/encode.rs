//! Serializes Rust values to JSON text. It does no I/O and doesn't know documents.
//!
//! It wraps serde_json's serializer to change two things about floats:
//!
//! - NaN and infinities are errors. JSON has neither, and serde_json writes `null`,
//!   which can't be read as an `f64`. So the value would be lost, and every request
//!   that reads it would fail. [`Finite`] wraps the serializer and, by [`Inner`], each
//!   value inside of the value, so it finds a float at any depth. It forwards
//!   everything else.
//! - Floats are written without an exponent, and with a decimal point, by [`Decimal`].
//!   `jsonb` stores a number as `numeric` and returns `1e300` as 301 digits, which
//!   untyped code would read as an integer. `1000….0` is returned as it was written.

use std::{fmt::Display, io};

use serde::{
    Serialize, Serializer,
    ser::{
        SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant,
    },
};
use serde_json::ser::Formatter;

/// # Errors
///
/// If `value` can't be written as JSON, or holds a float that JSON can't express.
pub(super) fn to_text(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut text = Vec::with_capacity(128);
    let mut json = serde_json::Serializer::with_formatter(&mut text, Decimal);
    value.serialize(Finite(&mut json))?;
    Ok(String::from_utf8(text).expect("JSON is UTF-8"))
}

/// Writes floats without an exponent.
struct Decimal;

impl Formatter for Decimal {
    fn write_f32<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        write_decimal(writer, value, value.fract() == 0.0)
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        write_decimal(writer, value, value.fract() == 0.0)
    }
}

/// `Display` writes the fewest digits that are read as the same float, never an
/// exponent, and no decimal point after a whole number.
fn write_decimal<W: ?Sized + io::Write>(
    writer: &mut W,
    value: impl Display,
    is_whole: bool,
) -> io::Result<()> {
    let point = if is_whole { ".0" } else { "" };
    write!(writer, "{value}{point}")
}

/// A serializer, or a part of one, that refuses NaN and infinities.
struct Finite<S>(S);

/// A value inside of another one. It is serialized through [`Finite`], too.
struct Inner<'v, T: ?Sized>(&'v T);

impl<T: Serialize + ?Sized> Serialize for Inner<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Finite(serializer))
    }
}

fn not_finite<E: serde::ser::Error>() -> E {
    E::custom("JSON has neither NaN nor infinities")
}

macro_rules! pass_on {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.0.$method(value)
        }
    )*};
}

impl<S: Serializer> Serializer for Finite<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Finite<S::SerializeSeq>;
    type SerializeTuple = Finite<S::SerializeTuple>;
    type SerializeTupleStruct = Finite<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Finite<S::SerializeTupleVariant>;
    type SerializeMap = Finite<S::SerializeMap>;
    type SerializeStruct = Finite<S::SerializeStruct>;
    type SerializeStructVariant = Finite<S::SerializeStructVariant>;

    pass_on! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_char: char,
        serialize_str: &str,
        serialize_bytes: &[u8],
        serialize_unit_struct: &'static str,
    }

    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        match value.is_finite() {
            true => self.0.serialize_f32(value),
            false => Err(not_finite()),
        }
    }

    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        match value.is_finite() {
            true => self.0.serialize_f64(value),
            false => Err(not_finite()),
        }
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_some(&Inner(value))
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(name, &Inner(value))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0
            .serialize_newtype_variant(name, index, variant, &Inner(value))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.0.serialize_seq(length).map(Finite)
    }

    fn serialize_tuple(self, length: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.0.serialize_tuple(length).map(Finite)
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.0.serialize_tuple_struct(name, length).map(Finite)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.0
            .serialize_tuple_variant(name, index, variant, length)
            .map(Finite)
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.0.serialize_map(length).map(Finite)
    }

    fn serialize_struct(
        self,
        name: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        self.0.serialize_struct(name, length).map(Finite)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.0
            .serialize_struct_variant(name, index, variant, length)
            .map(Finite)
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! elements {
    ($($part:ident::$method:ident),* $(,)?) => {$(
        impl<S: $part> $part for Finite<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                self.0.$method(&Inner(value))
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.0.end()
            }
        }
    )*};
}

elements! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

macro_rules! fields {
    ($($part:ident),*) => {$(
        impl<S: $part> $part for Finite<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), S::Error> {
                self.0.serialize_field(key, &Inner(value))
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), S::Error> {
                self.0.skip_field(key)
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.0.end()
            }
        }
    )*};
}

fields!(SerializeStruct, SerializeStructVariant);

impl<S: SerializeMap> SerializeMap for Finite<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        self.0.serialize_key(&Inner(key))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.0.serialize_value(&Inner(value))
    }

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), S::Error> {
        self.0.serialize_entry(&Inner(key), &Inner(value))
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::value::RawValue;

    use super::*;

    #[derive(Serialize)]
    enum Every {
        Newtype(f64),
        Tuple(u8, f32),
        Struct { value: Option<f64> },
    }

    #[derive(Serialize)]
    struct Wrapped(f64);

    #[derive(Serialize)]
    struct Pair(u8, f64);

    #[test]
    fn a_float_that_json_lacks_is_refused_wherever_it_is() {
        for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let single = float as f32;
            for outcome in [
                to_text(&float),
                to_text(&single),
                to_text(&Some(float)),
                to_text(&vec![0.0, float]),
                to_text(&(1, float)),
                to_text(&Wrapped(float)),
                to_text(&Pair(1, float)),
                to_text(&Every::Newtype(float)),
                to_text(&Every::Tuple(1, single)),
                to_text(&Every::Struct { value: Some(float) }),
                to_text(&BTreeMap::from([("a", BTreeMap::from([("b", [float])]))])),
            ] {
                let error = outcome.expect_err("refused");
                assert!(error.to_string().contains("NaN"), "{error}");
            }
        }
    }

    #[test]
    fn what_json_has_is_written_as_serde_json_writes_it() {
        #[derive(Serialize)]
        struct Value {
            raw: Box<RawValue>,
            map: BTreeMap<i32, Option<char>>,
            large: (u128, i128),
            unit: (),
            address: std::net::IpAddr,
        }
        let value = Value {
            raw: RawValue::from_string(r#"{"a" : 1e5}"#.into()).expect("JSON"),
            map: BTreeMap::from([(1, None), (-2, Some('\u{1f350}'))]),
            large: (u128::MAX, i128::MIN),
            unit: (),
            address: [127, 0, 0, 1].into(),
        };
        assert_eq!(
            to_text(&value).expect("JSON"),
            serde_json::to_string(&value).expect("JSON")
        );
    }

    #[test]
    fn a_float_has_a_decimal_point_and_no_exponent() {
        for (float, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e22, "10000000000000000000000.0"),
            (1e-7, "0.0000001"),
        ] {
            assert_eq!(to_text(&float).expect("JSON"), text);
        }
        assert_eq!(
            to_text(&f32::MAX).expect("JSON"),
            "340282350000000000000000000000000000000.0"
        );
    }

    fn read<T: for<'de> Deserialize<'de>>(value: &impl Serialize) -> T {
        serde_json::from_str(&to_text(value).expect("JSON")).expect("a float")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn any_float_is_read_as_it_was_written(bits: u64, single: u32, unit in 0.0..1.0_f64) {
            for float in [f64::from_bits(bits), unit] {
                if float.is_finite() {
                    prop_assert_eq!(read::<f64>(&float).to_bits(), float.to_bits());
                    let value: serde_json::Value = read(&float);
                    prop_assert_eq!(value.as_f64().map(f64::to_bits), Some(float.to_bits()));
                    prop_assert!(value.is_f64());
                }
            }
            let single = f32::from_bits(single);
            if single.is_finite() {
                prop_assert_eq!(read::<f32>(&single).to_bits(), single.to_bits());
            }
        }
    }
}
