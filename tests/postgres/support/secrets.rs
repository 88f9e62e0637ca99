//! A search for secrets in every encoding.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};

/// Values that only their owner may see.
#[derive(Default)]
pub(crate) struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    pub(crate) fn keep(&mut self, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref().to_vec();
        if !secret.is_empty() && !self.0.contains(&secret) {
            self.0.push(secret);
        }
    }

    /// A cookie's value: the token, and its signature if it has one.
    pub(crate) fn keep_cookie(&mut self, value: &str) {
        self.keep(value);
        value.split('.').for_each(|part| self.keep(part));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The forms of any of the secrets that `text` holds.
    pub(crate) fn found_in(&self, text: &str) -> Vec<String> {
        let forms = self.0.iter().flat_map(|secret| forms(secret));
        forms.filter(|form| text.contains(form.as_str())).collect()
    }
}

/// All encodings of a secret and of the bytes that it encodes.
pub(crate) fn forms(secret: &[u8]) -> Vec<String> {
    let mut forms = spellings(secret);
    if let Ok(text) = std::str::from_utf8(secret) {
        // A part of it is as bad, if it leaves little to guess.
        if text.len() >= 40 {
            forms.extend([text[..20].to_owned(), text[text.len() - 20..].to_owned()]);
        }
        for engine in [&URL_SAFE_NO_PAD, &STANDARD_NO_PAD] {
            forms.extend(
                engine
                    .decode(text)
                    .iter()
                    .flat_map(|bytes| spellings(bytes)),
            );
        }
    }
    forms.sort();
    forms.dedup();
    forms
}

fn spellings(bytes: &[u8]) -> Vec<String> {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|o| format!("{o:02x}")).collect() };
    let numbers = format!("{bytes:?}");
    let mut spellings = vec![
        String::from_utf8_lossy(bytes).into_owned(),
        bytes.iter().map(|byte| format!("%{byte:02X}")).collect(),
        bytes.iter().map(|byte| format!("%{byte:02x}")).collect(),
        hex(bytes),
        hex(bytes).to_uppercase(),
        bytes
            .iter()
            .rev()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
        numbers[1..numbers.len() - 1].to_owned(),
        bytes.escape_ascii().to_string(),
    ];
    for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
        spellings.push(engine.encode(bytes));
    }
    spellings
}
