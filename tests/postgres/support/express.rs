//! A table as a site on Express makes and writes it.

use std::time::Duration;

use axum::Router;
use axum_pg_session::{Express, PgSessionLayer, PgSessionStore, testing::TestVisitor};
use http::{HeaderMap, HeaderValue, header};

use super::{Browser, Site, app, execute};

pub(crate) const SID: &str = "_KYE9W_e2dVrVIXyzCkc51UEsyguoON-";
/// The cookie of that session, signed with the secret.
pub(crate) const COOKIE: &str = "connect.sid=\
    s%3A_KYE9W_e2dVrVIXyzCkc51UEsyguoON-.6nEMPyjRGgthsMwpNsVdUdHVOmdQGy3Rdzh5zNuFaS0";
pub(crate) const SECRET: &str = "new";
pub(crate) const SETTINGS: &str =
    r#""cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}"#;

/// The table of connect-pg-simple.
pub(crate) const TABLE: &str = r#"
    CREATE TABLE "session" (
        "sid" varchar NOT NULL COLLATE "default", "sess" json NOT NULL, "expire" timestamp(6) NOT NULL
    );
    ALTER TABLE "session" ADD CONSTRAINT "session_pkey" PRIMARY KEY ("sid");
    CREATE INDEX "IDX_session_expire" ON "session" ("expire")"#;

/// A document of express-session with these members.
pub(crate) fn stored(members: &str) -> String {
    format!("{{{SETTINGS},{members}}}")
}

impl Site {
    pub(crate) async fn of_express(table: &str) -> Self {
        let mut site = Self::without_table().await;
        execute(&site.pool, table).await;
        site.store = site.store.express(Express::new([SECRET]));
        site
    }

    /// On a table of connect-pg-simple that was migrated, too.
    pub(crate) async fn of_migrated_express() -> Self {
        let site = Self::of_express(TABLE).await;
        site.store.migrate().await.expect("the owner");
        site
    }

    /// On such a table with tombstones.
    pub(crate) async fn of_guarded_express() -> Self {
        let mut site = Self::of_express(TABLE).await;
        site.store = site.store.tombstones(true);
        site.store.migrate().await.expect("the owner");
        site
    }

    /// The upsert of connect-pg-simple.
    pub(crate) async fn express_writes(&self, sid: &str, document: &str) {
        let written = self.express_tries_to_write(sid, document).await;
        written.expect("an upsert");
    }

    pub(crate) async fn express_tries_to_write(
        &self,
        sid: &str,
        document: &str,
    ) -> Result<(), sqlx::Error> {
        let sql = "INSERT INTO session (sess, expire, sid)
                   SELECT $1::json, now() AT TIME ZONE 'UTC' + interval '1 day', $2
                   ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess, expire = excluded.expire
                   RETURNING sid";
        sqlx::query(sql)
            .bind(document)
            .bind(sid)
            .fetch_optional(&self.pool)
            .await
            .map(drop)
    }
}

/// A visitor whose browser has this cookie.
pub(crate) fn visitor_with(store: &PgSessionStore, cookie: &'static str) -> TestVisitor {
    let visitor = TestVisitor::new(&PgSessionLayer::new(store.clone()));
    let mut headers = HeaderMap::new();
    headers.insert(header::SET_COOKIE, HeaderValue::from_static(cookie));
    visitor.store_cookies(&headers);
    visitor
}

/// A visitor whom Express knows by [`SID`].
pub(crate) fn visitor_of_express(store: &PgSessionStore) -> TestVisitor {
    visitor_with(store, COOKIE)
}

/// The browser of the same visitor.
pub(crate) fn browser_of_express(app: &Router) -> Browser {
    let (name, value) = COOKIE.split_once('=').expect("a cookie");
    Browser::new(app).with_cookie(name, value)
}

/// A site in our format, or in Express's with tombstones, and a browser with a session in which `a`
/// is "1". Its layer looks up watched sessions at this interval.
pub(crate) async fn site_of(format: &str, interval: Duration) -> (Site, PgSessionStore, Browser) {
    let site = match format {
        "own" => Site::new().await,
        _ => Site::of_guarded_express().await,
    };
    let store = site.store.clone().watch_interval(interval);
    let app = app(PgSessionLayer::new(store.clone()));
    let browser = match format {
        "own" => Browser::with_session(&app).await,
        _ => {
            site.express_writes(SID, &stored(r#""a":"1""#)).await;
            browser_of_express(&app)
        }
    };
    (site, store, browser)
}
