//! One table with a site on Express: its columns, its users, and the plan that finds a handle.
//! `tests/express` does the same with the real Express.

use std::time::Duration;

use axum_pg_session::{
    Error, ErrorKind, Expiry, Express, PgSessionLayer, PgSessionStore, Reaper, Session, SessionId,
    testing::TestVisitor,
};
use serde_json::{Value, json};

use crate::support::{
    Role, Site, execute,
    express::{
        SECRET, SETTINGS, SID, TABLE, browser_of_express, stored, visitor_of_express, visitor_with,
    },
    kit::id,
    page::app_with,
    texts,
};

/// The table of connect-session-knex.
const KNEX_TABLE: &str = "
    CREATE TABLE sessions (
        sid varchar(255) PRIMARY KEY, sess json NOT NULL, expired timestamptz NOT NULL
    );
    CREATE INDEX sessions_expired_index ON sessions (expired)";

fn layer(store: &PgSessionStore) -> PgSessionLayer {
    PgSessionLayer::new(store.clone())
}

async fn documents(site: &Site) -> Vec<Value> {
    let texts = texts(&site.pool, "SELECT sess::text FROM session ORDER BY sid").await;
    let parsed = texts.iter().map(|text| serde_json::from_str(text));
    parsed.map(|value| value.expect("JSON")).collect()
}

#[tokio::test]
async fn a_session_of_express_is_read_and_changed_in_its_row() {
    let site = Site::of_express(TABLE).await;
    site.express_writes(SID, &stored(r#""count":2"#)).await;
    let visitor = visitor_of_express(&site.store);
    let changed = visitor.with_session(|session| {
        session.update("count", |count: Option<u32>| count.unwrap_or_default() + 1)
    });
    assert_eq!(changed.await.expect("a save"), 3);
    let text = texts(&site.pool, "SELECT sess::text FROM session").await;
    assert_eq!(text, [stored(r#""count":3"#)]);
}

#[tokio::test]
async fn a_new_session_is_a_row_that_express_can_read() {
    let site = Site::of_express(TABLE).await;
    let visitor = TestVisitor::new(&layer(&site.store));
    let changed = visitor.with_session(|session| session.insert("name", "Ada"));
    changed.await.expect("a save");
    let [sid, text, left] = [
        "sid",
        "sess::text",
        "(expire - now() AT TIME ZONE 'UTC' > '23:59')::text",
    ]
    .map(|column| format!("SELECT {column} FROM session"));
    assert_eq!(texts(&site.pool, &sid).await[0].len(), 32);
    assert_eq!(texts(&site.pool, &text).await, [stored(r#""name":"Ada""#)]);
    assert_eq!(texts(&site.pool, &left).await, ["true"]);
}

#[tokio::test]
async fn the_whole_life_of_a_session_works_on_both_tables() {
    for (table, name, express) in [
        (TABLE, "session", Express::new([SECRET])),
        (KNEX_TABLE, "sessions", Express::new([SECRET]).knex()),
    ] {
        for is_migrated in [false, true] {
            let site = Site::without_table().await;
            execute(&site.pool, table).await;
            let store = site.store.clone().table(name).express(express.clone());
            if is_migrated {
                store.migrate().await.expect("the owner");
            }
            let visitor = TestVisitor::new(&layer(&store));
            let value = async || visitor.session().await?.get::<u32>("a");
            visitor
                .with_session(|session| session.insert("a", 1))
                .await
                .expect("a row");
            visitor
                .with_session(Session::cycle_id)
                .await
                .expect("a new id");
            assert_eq!(value().await.expect("a session"), Some(1));
            let id = id(&visitor).await;
            let parsed: SessionId = id.as_str().parse().expect("a handle");
            assert!(store.load(&parsed).await.expect("a row").is_some());
            assert!(store.destroy(&parsed).await.expect("a deletion"));
            assert_eq!(value().await.expect("no session"), None);
            visitor
                .with_session(|session| session.insert("a", 2))
                .await
                .expect("a row");
            let expiry = if name == "session" {
                "expire"
            } else {
                "expired"
            };
            execute(
                &site.pool,
                &format!("UPDATE {name} SET {expiry} = now() - interval '1 day'"),
            )
            .await;
            let reaped = Reaper::new(store).run_once().await.expect("a deletion");
            assert_eq!(reaped.deleted, 1);
        }
    }
}

#[tokio::test]
async fn a_table_that_migrate_creates_has_the_columns_of_express() {
    let site = Site::without_table().await;
    let store = site.store.clone().express(Express::new([SECRET]));
    store.migrate().await.expect("a table");
    store.migrate().await.expect("nothing to do");
    let columns = "SELECT column_name FROM information_schema.columns
                   WHERE table_name = 'session' ORDER BY ordinal_position LIMIT 3";
    assert_eq!(texts(&site.pool, columns).await, ["sid", "expire", "sess"]);
    let report = store.check().await.expect("a table");
    assert_eq!(report.to_string(), "every feature is on");
}

#[tokio::test]
async fn a_role_that_may_create_nothing_uses_the_table_of_express_as_it_is() {
    let site = Site::of_express(TABLE).await;
    let role = Role::new(&site.pool).await;
    role.grant("SELECT, INSERT, UPDATE, DELETE ON session")
        .await;
    let store = role
        .store(site.database.url())
        .await
        .express(Express::new([SECRET]));
    store.migrate().await.expect("three columns are enough");
    let visitor = TestVisitor::new(&layer(&store));
    visitor
        .with_session(|session| session.insert("a", 1))
        .await
        .expect("a row");
    let guarded = store.clone().tombstones(true);
    let error = guarded
        .migrate()
        .await
        .expect_err("the triggers are missing");
    assert!(error.to_string().contains("tombstones"), "{error}");
    role.drop().await;
}

#[tokio::test]
async fn users_of_both_applications_are_listed_and_ended() {
    let site = Site::of_migrated_express().await;
    site.express_writes("at-express", &stored(r#""passport":{"user":"ada"}"#))
        .await;
    let visitor = TestVisitor::new(&layer(&site.store));
    visitor
        .with_session(|session| session.login("ada"))
        .await
        .expect("a login");
    let ada = site.store.user("ada");
    assert_eq!(ada.list().await.expect("a list").len(), 2);
    let passports: Vec<_> = documents(&site)
        .await
        .iter()
        .map(|row| row["passport"].clone())
        .collect();
    assert_eq!(
        passports,
        [json!({ "user": "ada" }), json!({ "user": "ada" })]
    );
    let id = id(&visitor).await;
    assert_eq!(ada.destroy_others(&id).await.expect("a deletion"), 1);
    visitor
        .with_session(|session| session.login("bob"))
        .await
        .expect("another user");
    assert_eq!(
        visitor
            .session()
            .await
            .expect("a session")
            .user_id()
            .as_deref(),
        Some("bob")
    );
    assert_eq!(ada.count().await.expect("a count"), 0);
    visitor
        .with_session(Session::logout)
        .await
        .expect("a logout");
    assert_eq!(documents(&site).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_user_stays_when_the_session_is_cleared_or_changed() {
    let site = Site::of_migrated_express().await;
    let passport = r#"{"user":42}"#;
    site.express_writes(SID, &stored(&format!(r#""passport":{passport},"cart":1"#)))
        .await;
    let visitor = visitor_of_express(&site.store);
    assert_eq!(
        visitor
            .session()
            .await
            .expect("a session")
            .user_id()
            .as_deref(),
        Some("42")
    );
    visitor.with_session(Session::clear).await.expect("a save");
    visitor
        .with_session(Session::cycle_id)
        .await
        .expect("a new id");
    // The same user signs in again, and the type of the stored id stays.
    let again = |session: &axum_pg_session::Session| -> Result<(), Error> {
        session.login("42")?;
        session.clear()
    };
    visitor.with_session(again).await.expect("a login");
    assert_eq!(documents(&site).await[0]["passport"], json!({ "user": 42 }));
    assert_eq!(site.store.user("42").count().await.expect("a count"), 1);
}

/// Passport before 0.6 writes the user into the row that the visitor has.
#[tokio::test]
async fn a_login_keeps_no_data_of_a_user_whom_express_has_signed_in_meanwhile() {
    let site = Site::of_migrated_express().await;
    site.express_writes(SID, &stored(r#""cart":"empty""#)).await;
    let browser = browser_of_express(&site.app());
    let paused = site
        .late(&browser, async |session: Session| session.login("ada"))
        .await;
    let bobs = stored(r#""cart":"of bob","passport":{"user":"bob"}"#);
    site.express_writes(SID, &bobs).await;
    assert_eq!(paused.finish().await.status, 503);
    assert_eq!(
        texts(&site.pool, "SELECT sess::text FROM session").await,
        [bobs]
    );
}

#[tokio::test]
async fn the_generated_user_accepts_every_document_that_express_writes() {
    let site = Site::of_migrated_express().await;
    let long = format!(r#""{}""#, "x".repeat(5000));
    for (sid, rest) in [
        ("a-text", r#""passport":{"user":"ada"}"#),
        ("b-number", r#""passport":{"user":42}"#),
        ("c-object", r#""passport":{"user":{"id":7,"name":"x"}}"#),
        ("d-none", r#""passport":{}"#),
        ("e-scalar", r#""passport":"x""#),
        ("f-nul", r#""x":"\u0000","passport":{"user":"nul"}"#),
        (
            "g-lone",
            r#""x":"\ud800 \udc00\ud800","passport":{"user":"lone"}"#,
        ),
        ("h-pair", r#""passport":{"user":"\ud83d\ude00"}"#),
        (
            "i-escaped",
            r#""x":"\\u0000","passport":{"user":"caf\u00e9"}"#,
        ),
        ("j-long", &format!(r#""passport":{{"user":{long}}}"#)),
        ("k-empty", r#""passport":{"user":""}"#),
        ("l-false", r#""passport":{"user":false}"#),
        (
            "m-backslash",
            r#""x":"\\ud83d\ude00","passport":{"user":"ACME\\ude01"}"#,
        ),
    ] {
        site.express_writes(sid, &stored(rest)).await;
    }
    let digest = "SELECT 'sha256:' || encode(sha256(repeat('x', 5000)::bytea), 'hex')";
    let digest = texts(&site.pool, digest).await.remove(0);
    let users = "SELECT coalesce(user_id, '-') FROM session ORDER BY sid";
    assert_eq!(
        texts(&site.pool, users).await,
        [
            "ada",
            "42",
            r#"{"id":7,"name":"x"}"#,
            "-",
            "-",
            "nul",
            "lone",
            "😀",
            "café",
            &digest,
            "-",
            "-",
            r"ACME\ude01",
        ]
    );
}

/// The time of the function that finds the user must not grow with the square of the document.
#[tokio::test]
async fn a_document_full_of_escapes_is_written_before_the_timeout_of_a_statement() {
    let site = Site::of_migrated_express().await;
    let mut connection = site.pool.acquire().await.expect("a connection");
    for (number, escape) in [r"\u0000", r"\ud83d\ude00", r"\\", r"\udc00"]
        .iter()
        .enumerate()
    {
        let text = escape.repeat(1_000_000 / escape.len());
        let sql = format!(
            r#"SET statement_timeout = '20s';
               INSERT INTO session VALUES
               ('{number}', '{{"x":"{text}","passport":{{"user":"ada"}}}}', now());
               RESET statement_timeout"#
        );
        let written = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection);
        written.await.expect("a row");
    }
    drop(connection);
    let users = "SELECT user_id FROM session";
    assert_eq!(texts(&site.pool, users).await, ["ada"; 4]);
}

/// Before `migrate`, the table is Express's own.
#[tokio::test]
async fn without_the_generated_column_the_user_is_the_one_of_the_document() {
    for column in [
        "",
        "; ALTER TABLE session ADD COLUMN user_id text DEFAULT 'eve'",
    ] {
        let site = Site::of_express(&format!("{TABLE}{column}")).await;
        let page = async |session: Session| format!("{:?}", session.user_id());
        let mut browser = browser_of_express(&app_with(layer(&site.store), page));
        for (document, user) in [
            (stored(r#""passport":{"user":"ada"}"#), r#"Some("ada")"#),
            (stored(r#""passport":{"user":7}"#), r#"Some("7")"#),
            (stored(r#""passport":{}"#), "None"),
        ] {
            site.express_writes(SID, &document).await;
            assert_eq!(browser.get("/page").await.body, user, "{document}");
        }
    }
}

#[tokio::test]
async fn without_the_generated_column_a_login_is_refused_with_what_it_needs() {
    for column in ["", "; ALTER TABLE session ADD COLUMN user_id text"] {
        let site = Site::of_express(&format!("{TABLE}{column}")).await;
        let visitor = TestVisitor::new(&layer(&site.store));
        let refused = visitor.with_session(|session| session.login("ada"));
        let error = refused.await.expect_err("there is no generated column");
        assert_eq!(error.kind(), ErrorKind::Setup, "{error}");
        assert!(error.to_string().contains("user_id"), "{error}");
    }
}

#[tokio::test]
async fn names_that_express_drops_are_refused_in_every_call() {
    let site = Site::of_express(TABLE).await;
    let visitor = TestVisitor::new(&layer(&site.store));
    let outcome = visitor.with_session(|session| {
        let refused = [
            session.insert("id", 1).map(drop),
            session.update("save", |_: Option<u32>| 1).map(drop),
            session.replace(json!({ "toString": 1 })),
            session.remove::<u32>("touch").map(drop),
        ];
        for outcome in refused {
            let error = outcome.expect_err("Express drops it");
            assert_eq!(error.kind(), ErrorKind::ReservedKey, "{error}");
        }
        session.insert("fine", 1)
    });
    outcome.await.expect("a save");
    assert_eq!(documents(&site).await[0]["fine"], 1);
}

#[tokio::test]
async fn an_expiry_that_express_can_not_keep_is_refused() {
    let site = Site::of_express(TABLE).await;
    let visitor = TestVisitor::new(&layer(&site.store));
    let outcome = visitor.with_session(|session| {
        let end = time::OffsetDateTime::now_utc() + time::Duration::HOUR;
        let refused = session.set_expiry(Expiry::At(end));
        assert_eq!(refused.expect_err("no fixed end").kind(), ErrorKind::Setup);
        session.set_expiry(Expiry::Idle(Duration::from_secs(90)))?;
        session.insert("a", 1)
    });
    outcome.await.expect("a save");
    assert_eq!(
        documents(&site).await[0]["cookie"]["originalMaxAge"],
        90_000
    );
    let left = "SELECT (expire - now() AT TIME ZONE 'UTC' < '00:01:31')::text FROM session";
    assert_eq!(texts(&site.pool, left).await, ["true"]);
}

#[tokio::test]
async fn the_ttl_applies_to_sessions_without_a_max_age_only() {
    let site = Site::of_express(TABLE).await;
    let express = Express::new([SECRET]).ttl(Duration::from_secs(120));
    let store = site.store.clone().express(express);
    let left = "SELECT round(extract(epoch FROM expire - now() AT TIME ZONE 'UTC') / 60)::int::text
                FROM session ORDER BY expire";
    for express in [None, Some(Duration::from_secs(600))] {
        let format = Express::new([SECRET])
            .ttl(Duration::from_secs(120))
            .max_age(express);
        let visitor = TestVisitor::new(&layer(&store.clone().express(format)));
        visitor
            .with_session(|session| session.insert("a", 1))
            .await
            .expect("a row");
    }
    assert_eq!(texts(&site.pool, left).await, ["2", "10"]);
}

#[tokio::test]
async fn a_cookie_without_a_valid_signature_opens_nothing() {
    let site = Site::of_express(TABLE).await;
    site.express_writes(SID, &stored(r#""count":2"#)).await;
    for forged in [
        "connect.sid=_KYE9W_e2dVrVIXyzCkc51UEsyguoON-",
        "connect.sid=s%3A_KYE9W_e2dVrVIXyzCkc51UEsyguoON-",
        "connect.sid=s%3A_KYE9W_e2dVrVIXyzCkc51UEsyguoON-.l8VwfuxOB3laf3tnS14FFVNJcgKce1HJqYKrfwtXmUU",
    ] {
        let visitor = visitor_with(&site.store, forged);
        let session = visitor.session().await.expect("an empty session");
        assert!(session.is_empty(), "{forged}");
    }
}

/// Takes about a minute: the plan depends on the size of the table.
#[tokio::test]
async fn a_handle_is_found_by_an_index_among_a_million_rows() {
    let site = Site::of_migrated_express().await;
    let rows = format!(
        r#"ALTER TABLE session SET (autovacuum_enabled = false);
           INSERT INTO session (sid, sess, expire)
           SELECT md5(n::text), '{{{SETTINGS}}}', now() + interval '1 day' FROM generate_series(1, 1000000) AS n;
           ANALYZE session"#
    );
    execute(&site.pool, &rows).await;
    site.express_writes(SID, &stored(r#""count":2"#)).await;
    let visitor = visitor_of_express(&site.store);
    let id = id(&visitor).await;
    let parsed: SessionId = id.as_str().parse().expect("a handle");
    // The statement of the store, as it is rendered for this table.
    let file = include_str!("../../src/store/sql/find.sql");
    let find = file
        .replace("t.id", "t.sid")
        .replace("t.expiry", "t.expire");
    let explain = format!("EXPLAIN {}", find.replace("$1", "'\\x00'"));
    let plan = texts(&site.pool, &explain).await.join("\n");
    assert!(
        plan.contains("Index Scan using session_handle_idx"),
        "{plan}"
    );
    assert!(site.store.load(&parsed).await.expect("a row").is_some());
    assert!(site.store.destroy(&parsed).await.expect("a deletion"));
}
