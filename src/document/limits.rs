//! The limits on the size of a document: bytes, keys and depth. It does no I/O.
//!
//! Each document has an upper bound of its size, so nearly all changes are accepted
//! without a look at the text. Only if the bound exceeds the limit is the document
//! measured.

use crate::{
    Error, ErrorKind,
    document::{Document, Json, member_at_most},
};

/// The layer's `max_document_size`, `max_keys` and `max_depth`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) size: usize,
    pub(crate) keys: Option<usize>,
    pub(crate) depth: usize,
}

impl Default for Limits {
    /// Each request loads the whole session, so the data of a session should be far
    /// below 1 MiB. The depth is half of what serde_json can read, and far above that
    /// of real data.
    fn default() -> Self {
        Self {
            size: 1 << 20,
            keys: None,
            depth: 64,
        }
    }
}

impl Limits {
    /// Checks whether `key` may be set to `value`.
    ///
    /// # Errors
    ///
    /// Of kind `TooLarge`.
    pub(crate) fn check_insert(
        self,
        document: &Document,
        key: &str,
        value: &Json,
    ) -> Result<(), Error> {
        self.check_depth(key, value)?;
        if self.has_room(document, member_at_most(key, value), 1) {
            return Ok(());
        }
        let mut grown = document.clone();
        grown.insert(key, value.clone());
        grown.measure();
        self.check_growth(document, &grown)
    }

    /// Whether so many more bytes and keys fit, by the upper bound.
    pub(crate) fn has_room(self, document: &Document, bytes: usize, keys: usize) -> bool {
        document.size_at_most() + bytes <= self.size
            && self
                .keys
                .is_none_or(|limit| document.keys().count() + keys <= limit)
    }

    /// Checks whether `before` may become `after`. A document that is already too large,
    /// because of another writer or an earlier limit, may still shrink.
    ///
    /// # Errors
    ///
    /// Of kind `TooLarge`.
    pub(crate) fn check_growth(self, before: &Document, after: &Document) -> Result<(), Error> {
        if self.has_room(after, 0, 0) {
            return Ok(());
        }
        let bytes = after.size();
        if bytes > self.size && bytes > before.size() {
            return Err(too_large(format!(
                "the session would have {bytes} bytes; max_document_size is {}",
                self.size
            )));
        }
        let keys = after.keys().count();
        match self.keys {
            Some(limit) if keys > limit && keys > before.keys().count() => Err(too_large(format!(
                "the session would have {keys} keys; max_keys is {limit}"
            ))),
            _ => Ok(()),
        }
    }

    /// # Errors
    ///
    /// Of kind `TooLarge`.
    pub(crate) fn check_depth(self, key: &str, value: &Json) -> Result<(), Error> {
        match is_deeper_than(self.depth, value.get()) {
            true => Err(too_large(format!(
                "the value for {key:?} is nested deeper than max_depth, which is {}",
                self.depth
            ))),
            false => Ok(()),
        }
    }
}

/// A level takes two bytes, so a short text need not be read.
fn is_deeper_than(limit: usize, json: &str) -> bool {
    if json.len() / 2 <= limit || !json.starts_with(['[', '{']) {
        return false;
    }
    let mut depth = 0_usize;
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b'"' => skip_text(&mut bytes),
            _ => {}
        }
        if depth > limit {
            return true;
        }
    }
    false
}

/// Skips a string up to its closing quotation mark.
fn skip_text(bytes: &mut impl Iterator<Item = u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

fn too_large(message: String) -> Error {
    Error::new(ErrorKind::TooLarge, message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::document::NativeLayout;

    fn document(text: &str) -> Document {
        Document::parse(&NativeLayout, &text.into()).expect("an object")
    }

    fn json(text: &str) -> Json {
        let raw: Box<serde_json::value::RawValue> = serde_json::from_str(text).expect("JSON");
        Json::of(&raw).expect("JSON")
    }

    fn nested(levels: usize) -> String {
        format!("{}{}", "[".repeat(levels), "]".repeat(levels))
    }

    fn sized(size: usize) -> Limits {
        Limits {
            size,
            ..Limits::default()
        }
    }

    /// Whatever has to be escaped, and wherever the text was read from.
    #[test]
    fn bytes_are_those_of_the_text() {
        for text in [
            "{}",
            r#"{"a":1}"#,
            r#"{"a":1,"b":[ 1 ]}"#,
            r#"{"\u0000":1,"\ud800":2,"x\udfff\"y":3,"ü":"ü"}"#,
        ] {
            let document = document(text);
            assert_eq!(document.size(), document.to_text().len(), "{text}");
            assert!(document.size_at_most() >= document.size(), "{text}");
        }
        let own = document(r#"{"_session":{"idle":1.0},"a":1}"#);
        assert_eq!(own.size(), r#"{"a":1}"#.len());
    }

    #[test]
    fn the_last_byte_fits_and_the_next_one_does_not() {
        for (text, key, value) in [
            ("{}", "a", "1"),
            (r#"{"a":1}"#, "b", "[1]"),
            (r#"{"a":1}"#, "\u{0}", "\"x\""),
            (r#"{"a":1,"b":2}"#, "a", "12345"),
        ] {
            let before = document(text);
            let mut after = before.clone();
            after.insert(key, json(value));
            let length = after.to_text().len();
            let check = |size| sized(size).check_insert(&before, key, &json(value));
            assert!(check(length).is_ok(), "{key:?} in {text}");
            let error = check(length - 1).expect_err("a byte too many");
            assert_eq!(error.kind(), ErrorKind::TooLarge);
        }
    }

    #[test]
    fn what_is_too_large_may_shrink() {
        let large = document(r#"{"a":[1,2,3],"b":1}"#);
        let check = |value| sized(5).check_insert(&large, "a", &json(value));
        assert!(check("[1,2,3]").is_ok());
        assert!(check("[1,2]").is_ok());
        assert!(check("[1,2,3,4]").is_err());
    }

    #[test]
    fn keys_are_counted_without_the_reserved_one() {
        let limits = Limits {
            keys: Some(2),
            ..Limits::default()
        };
        let full = document(r#"{"_session":{"idle":1.0},"a":1,"b":2}"#);
        assert!(limits.check_insert(&full, "a", &json("3")).is_ok());
        assert!(limits.check_insert(&full, "c", &json("3")).is_err());
    }

    #[test]
    fn depth_counts_arrays_and_objects_and_no_text() {
        for (json, depth) in [
            ("1".to_owned(), 0),
            ("[]".to_owned(), 1),
            (r#"[{"a":[]},[1],{}]"#.to_owned(), 3),
            (nested(64), 64),
            (format!(r#"["{}\"[[["]"#, "[".repeat(99)), 1),
            (format!(r#"["{}\\",[]]"#, "[".repeat(99)), 2),
            (format!("[{}]", nested(99)), 100),
        ] {
            assert!(!is_deeper_than(depth, &json), "{json}");
            let padded = format!("[{json},\"{}\"]", " ".repeat(2 * depth));
            assert!(is_deeper_than(depth, &padded), "{json}");
        }
    }

    /// Another writer's document, larger than any of ours: neither deep nor
    /// many members may exhaust the stack or the time.
    #[test]
    fn a_document_of_another_writer_is_read_and_compared_in_any_shape() {
        let wide: Vec<_> = (0..100_000).map(|n| format!("\"k{n}\":{n}")).collect();
        for (text, other) in [
            (nested(100_000), "[".to_owned() + &nested(100_000) + "]"),
            (
                "{\"\":".repeat(20_000) + "1" + &"}".repeat(20_000),
                "{\"\":".repeat(20_000) + "2" + &"}".repeat(20_000),
            ),
            (
                format!("{{{}}}", wide.join(",")),
                format!("{{{}}}", wide[1..].join(",")),
            ),
        ] {
            let one = document(&format!("{{\"x\":{text}}}"));
            let two = document(&format!("{{\"x\":{other}}}"));
            assert_eq!(one, one.clone());
            assert_ne!(one, two);
            let again: Arc<str> = one.to_text().into();
            assert_eq!(Document::parse(&NativeLayout, &again).expect("JSON"), one);
        }
    }
}
