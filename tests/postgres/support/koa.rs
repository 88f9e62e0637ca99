//! A table as Koa creates and writes it.

use axum_pg_session::Koa;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

use super::{Browser, Reply, Site, execute};

/// `app.keys` of the site.
pub(crate) const KEYS: [&str; 2] = ["keys", "keykeys"];
pub(crate) const SID: &str = "_KYE9W_e2dVrVIXyzCkc51UEsyguoON-";
/// What koa-generic-session stores for a visitor whom it has counted twice.
pub(crate) const DOCUMENT: &str = r#"{"cookie":{"httpOnly":true,"path":"/","overwrite":true,"signed":true,"maxAge":86400000},"count":2}"#;
pub(crate) const DAY: f64 = 86_400.0;

const TABLE: &str = "CREATE TABLE public.session (
    id text NOT NULL PRIMARY KEY, expiry timestamp NOT NULL, session json)";

pub(crate) fn koa() -> Koa {
    Koa::new(KEYS)
}

pub(crate) fn signature(key: &str, name: &str, value: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(key.as_bytes()).expect("a key of any length");
    mac.update(format!("{name}={value}").as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

impl Site {
    /// On the table of koa-pg-session.
    pub(crate) async fn of_koa() -> Self {
        Self::with_format(koa()).await
    }

    pub(crate) async fn with_format(koa: Koa) -> Self {
        let mut site = Self::without_table().await;
        execute(&site.pool, TABLE).await;
        site.store = site.store.koa(koa);
        site
    }

    /// The blind write of koa-pg-session.
    pub(crate) async fn koa_writes(&self, sid: &str, document: &str, seconds: f64) {
        let sql = "INSERT INTO public.session VALUES ($1, now() + $2 * interval '1 second', $3::json)
                   ON CONFLICT (id) DO UPDATE SET session = excluded.session, expiry = excluded.expiry";
        sqlx::query(sql)
            .bind(format!("koa:sess:{sid}"))
            .bind(seconds)
            .bind(document)
            .execute(&self.pool)
            .await
            .expect("a row");
    }

    /// A visitor whom Koa has counted twice.
    pub(crate) async fn visitor_of_koa(&self) -> Browser {
        self.visitor_with(DOCUMENT, DAY).await
    }

    pub(crate) async fn visitor_with(&self, document: &str, seconds: f64) -> Browser {
        self.koa_writes(SID, document, seconds).await;
        self.browser().signed(SID, KEYS[0])
    }
}

impl Browser {
    pub(crate) fn signed(self, sid: &str, key: &str) -> Self {
        self.with_cookie("koa.sid", sid)
            .with_cookie("koa.sid.sig", &signature(key, "koa.sid", sid))
    }

    pub(crate) fn sid(&self) -> &str {
        self.cookie("koa.sid").expect("a session")
    }
}

impl Reply {
    pub(crate) fn cookie_lines(&self) -> Vec<&str> {
        let lines = self.headers.get_all("set-cookie").iter();
        lines.map(|line| line.to_str().expect("ASCII")).collect()
    }

    /// The removal of both cookies, and nothing else.
    pub(crate) fn removes_the_pair(&self) -> bool {
        let lines = self.cookie_lines();
        let ends = |line: &&str| line.contains("; expires=Thu, 01 Jan 1970 00:00:00 GMT");
        lines.len() == 2
            && lines[0].starts_with("koa.sid=;")
            && lines[1].starts_with("koa.sid.sig=")
            && lines.iter().all(ends)
    }

    /// Both cookies anew, for the session of this visitor.
    pub(crate) fn renews_the_pair(&self, sid: &str) -> bool {
        let lines = self.cookie_lines();
        lines.len() == 2
            && lines[0].starts_with(&format!("koa.sid={sid}; "))
            && lines[1].starts_with(&format!(
                "koa.sid.sig={}; ",
                signature(KEYS[0], "koa.sid", sid)
            ))
    }
}
