//! A cookie as the browser itself sees it.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;

const DAY: f64 = 24.0 * 3600.0;

/// Everything but its value and its end.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cookie {
    pub(crate) name: String,
    pub(crate) domain: String,
    pub(crate) path: String,
    pub(crate) http_only: bool,
    pub(crate) secure: bool,
    #[serde(default)]
    pub(crate) same_site: Option<String>,
    pub(crate) priority: String,
    /// The site of the page, if the cookie is partitioned.
    #[serde(default)]
    pub(crate) partition_key: Option<PartitionKey>,
    #[serde(flatten)]
    pub(crate) content: Content,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PartitionKey {
    pub(crate) top_level_site: String,
}

/// A cookie of which only its [`Lifetime`] is promised.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Content {
    pub(crate) value: String,
    session: bool,
    expires: f64,
}

impl PartialEq for Content {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// Until the browser is closed.
    Browser,
    /// From now, rounded.
    Days(i64),
}

impl Cookie {
    pub(crate) const DEFAULT_NAME: &str = "__Host-id-00000000";

    /// On localhost the default name ends in digits that depend on the database.
    pub(crate) fn with_equal_digits(mut self) -> Self {
        for start in ["__Host-id-", "id-"] {
            let digits = self.name.strip_prefix(start).unwrap_or_default();
            if digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                self.name = format!("{start}00000000");
            }
        }
        self
    }

    /// What the crate promises of the cookie of a layer with the defaults.
    pub(crate) fn by_default() -> Self {
        Self {
            name: Self::DEFAULT_NAME.into(),
            domain: "localhost".into(),
            path: "/".into(),
            http_only: true,
            secure: true,
            same_site: Some("Lax".into()),
            priority: "Medium".into(),
            partition_key: None,
            content: Content {
                value: String::new(),
                session: false,
                expires: 0.0,
            },
        }
    }

    pub(crate) fn value(&self) -> &str {
        &self.content.value
    }

    pub(crate) fn lifetime(&self) -> Lifetime {
        if self.content.session {
            return Lifetime::Browser;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("a clock after 1970").as_secs_f64();
        #[expect(clippy::cast_possible_truncation, reason = "days are few")]
        let days = ((self.content.expires - now) / DAY).round() as i64;
        Lifetime::Days(days)
    }
}
