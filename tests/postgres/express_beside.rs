//! Express's format beside odd documents, users whom Express signs in, and its late writes.

use std::time::Duration;

use axum_pg_session::{
    CookieLifetime, Expiry, Express, Login, PgSessionLayer, Session, testing::TestVisitor,
};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use crate::support::{
    Browser, Role, Site, execute,
    express::{
        COOKIE, SECRET, SETTINGS, SID, TABLE, browser_of_express, stored, visitor_of_express,
    },
    page::{InFlight, app_with, until},
    texts,
};

async fn one(site: &Site, sql: &str) -> String {
    let found = texts(&site.pool, sql).await;
    assert_eq!(found.len(), 1, "{sql}: {found:?}");
    found[0].clone()
}

#[tokio::test]
async fn an_escaped_backslash_before_a_lone_surrogate_is_written() {
    let site = Site::of_migrated_express().await;
    // JSON.stringify("\\ud83d" + "\ude00")
    site.express_tries_to_write("x", &stored(r#""x":"\\ud83d\ude00""#))
        .await
        .expect("Express can write what it likes");
}

#[tokio::test]
async fn an_escaped_backslash_before_a_lone_surrogate_is_migrated() {
    let site = Site::of_express(TABLE).await;
    site.express_writes("x", &stored(r#""x":"\\ud83d\ude00""#))
        .await;
    site.store.migrate().await.expect("the owner");
}

#[tokio::test]
async fn a_login_drops_the_data_of_a_user_whose_stored_profile_is_long() {
    for user in [
        json!({ "sub": "ada", "bio": "x".repeat(1100) }),
        json!({ "id": "", "sub": "ada" }),
        json!({ "id": "x".repeat(1100) }),
    ] {
        let site = Site::of_migrated_express().await;
        site.express_writes(
            SID,
            &stored(&format!(r#""secret":"ada's","passport":{{"user":{user}}}"#)),
        )
        .await;
        let visitor = visitor_of_express(&site.store);
        let signed_in = visitor.session().await.expect("a session").user_id();
        visitor
            .with_session(|session| session.login("bob"))
            .await
            .expect("a login");
        let secret: Option<String> = visitor
            .session()
            .await
            .expect("a session")
            .get("secret")
            .expect("a value");
        assert_eq!(secret, None, "before: {signed_in:?}");
    }
}

#[tokio::test]
async fn a_user_whose_id_has_a_backslash_is_found() {
    for user in [r"a\u0000", r"a\ud800", r"DOM\udc01"] {
        let site = Site::of_migrated_express().await;
        let visitor = visitor_of_express(&site.store);
        visitor
            .with_session(move |session| session.login(user))
            .await
            .expect("a login");
        let known = visitor.session().await.expect("a session").user_id();
        assert_eq!(known.as_deref(), Some(user));
        assert_eq!(site.store.user(user).count().await.expect("a count"), 1);
    }
}

#[tokio::test]
async fn two_users_are_not_one() {
    let site = Site::of_migrated_express().await;
    for (sid, user) in [("a", r"\\u0000"), ("b", r"\\ud800")] {
        site.express_writes(sid, &stored(&format!(r#""passport":{{"user":"{user}"}}"#)))
            .await;
    }
    let users = texts(&site.pool, "SELECT DISTINCT user_id FROM session").await;
    assert_eq!(users.len(), 2, "{users:?}");
}

#[tokio::test]
async fn a_session_of_express_from_before_the_migration_is_no_fresh_login() {
    let site = Site::of_express(TABLE).await;
    site.express_writes(SID, &stored(r#""passport":{"user":"ada"}"#))
        .await;
    site.store.migrate().await.expect("the owner");
    let session = visitor_of_express(&site.store)
        .session()
        .await
        .expect("a session");
    assert_eq!(session.user_id().as_deref(), Some("ada"));
    assert!(!session.authenticated_within(Duration::from_secs(300)));
}

#[tokio::test]
async fn a_generated_user_of_the_application_is_refused_or_works() {
    let site = Site::of_express(&format!(
        "{TABLE}; ALTER TABLE session ADD COLUMN user_id text GENERATED ALWAYS AS (sess->>'userId') STORED"
    ))
    .await;
    site.store.migrate().await.expect("the owner");
    let visitor = visitor_of_express(&site.store);
    let login = visitor.with_session(|session| session.login("ada")).await;
    if login.is_ok() {
        let known = visitor.session().await.expect("a session").user_id();
        assert_eq!(known.as_deref(), Some("ada"));
    }
}

#[tokio::test]
async fn only_a_login_changes_the_user() {
    let site = Site::of_migrated_express().await;
    let visitor = visitor_of_express(&site.store);
    visitor
        .with_session(|session| session.login("ada"))
        .await
        .expect("a login");
    let changed = visitor
        .with_session(|session| session.insert("passport", json!({ "user": "bob" })))
        .await;
    let known = visitor.session().await.expect("a session").user_id();
    assert_eq!(known.as_deref(), Some("ada"), "{changed:?}");
}

#[tokio::test]
async fn replace_keeps_the_user() {
    let site = Site::of_migrated_express().await;
    let visitor = visitor_of_express(&site.store);
    visitor
        .with_session(|session| session.login("ada"))
        .await
        .expect("a login");
    let changed = visitor
        .with_session(|session| session.replace(json!({ "passport": { "user": "bob" } })))
        .await;
    let known = visitor.session().await.expect("a session").user_id();
    assert_eq!(known.as_deref(), Some("ada"), "{changed:?}");
}

#[tokio::test]
async fn a_late_save_of_ada_does_not_reach_the_session_of_bob() {
    let site = Site::of_migrated_express().await;
    site.express_writes(SID, &stored(r#""passport":{"user":"ada"}"#))
        .await;
    let browser = browser_of_express(&site.app());
    let paused = site
        .late(&browser, async |session: Session| {
            session.insert("iban", "of ada")
        })
        .await;
    site.express_writes(SID, &stored(r#""passport":{"user":"bob"}"#))
        .await;
    let status = paused.finish().await.status;
    let text = one(&site, "SELECT sess::text FROM session").await;
    assert!(!text.contains("iban"), "{status} {text}");
}

#[tokio::test]
async fn numbers_and_objects_as_users_stay_what_they_are_at_a_login() {
    for user in [
        json!(42),
        json!(1e21),
        json!({"id": 7, "n": 1}),
        json!({"id": "a", "x": [1, 2]}),
        json!(0),
    ] {
        let site = Site::of_migrated_express().await;
        site.express_writes(SID, &stored(&format!(r#""passport":{{"user":{user}}}"#)))
            .await;
        let visitor = visitor_of_express(&site.store);
        let id = visitor
            .session()
            .await
            .expect("a session")
            .user_id()
            .expect("a user");
        let again = id.clone();
        visitor
            .with_session(move |session| session.login(again))
            .await
            .expect("a login");
        let passport = one(&site, "SELECT sess->'passport'->>'user' FROM session").await;
        let stored: Value = serde_json::from_str(&passport).unwrap_or(json!(passport));
        assert_eq!(stored, user, "{id}");
        assert_eq!(
            visitor.session().await.expect("a session").user_id(),
            Some(id)
        );
    }
}

#[tokio::test]
async fn a_dropped_table_of_tombstones_is_noticed_or_restored() {
    let site = Site::of_guarded_express().await;
    execute(&site.pool, "DROP TABLE session_tombstones").await;
    let checked = site.store.check().await;
    let migrated = site.store.migrate().await;
    let visitor = TestVisitor::new(&PgSessionLayer::new(site.store.clone()));
    visitor
        .with_session(|session| session.insert("a", 1))
        .await
        .expect("a row");
    visitor
        .with_session(Session::destroy)
        .await
        .unwrap_or_else(|error| panic!("check: {checked:?}, migrate: {migrated:?}, {error:?}"));
}

#[tokio::test]
async fn a_role_without_rights_deletes_no_session() {
    let site = Site::of_guarded_express().await;
    site.express_writes("victim", &format!("{{{SETTINGS}}}"))
        .await;
    let role = Role::new(&site.pool).await;
    let pool = role.pool(site.database.url()).await;
    let mut connection = pool.acquire().await.expect("a connection");
    for sql in [
        "CREATE TEMP TABLE evil (sid varchar, sess json, expire timestamp)",
        "CREATE TRIGGER l AFTER DELETE ON evil FOR EACH ROW EXECUTE FUNCTION public.session_leave_tombstone()",
        "CREATE TRIGGER k AFTER INSERT ON evil FOR EACH ROW EXECUTE FUNCTION public.session_keep_destroyed()",
        "INSERT INTO evil VALUES ('victim', '{}', now() + interval '1 day')",
        "DELETE FROM evil",
        "INSERT INTO evil VALUES ('victim', '{}', now() + interval '1 day')",
    ] {
        drop(
            sqlx::query(AssertSqlSafe(sql))
                .execute(&mut *connection)
                .await,
        );
    }
    // A server process that exits drops its temporary tables only later, perhaps while the owner
    // drops those of the role.
    let done = sqlx::query("DISCARD TEMP").execute(&mut *connection).await;
    done.expect("no temporary tables");
    drop(connection);
    pool.close().await;
    let left = texts(&site.pool, "SELECT sid FROM session").await;
    role.drop().await;
    assert_eq!(left, ["victim"]);
}

#[tokio::test]
async fn another_time_zone_applies_to_tombstones_after_a_migration() {
    let site = Site::of_guarded_express().await;
    let moved = site.store.clone().time_zone("America/New_York");
    moved.migrate().await.expect("the owner");
    let row = "INSERT INTO session VALUES ('x', '{}', now() AT TIME ZONE 'America/New_York' + interval '1 hour')
               ON CONFLICT (sid) DO NOTHING";
    execute(&site.pool, row).await;
    execute(&site.pool, "DELETE FROM session").await;
    execute(&site.pool, row).await;
    assert_eq!(
        texts(&site.pool, "SELECT sid FROM session").await,
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn the_statements_of_the_guide_leave_the_table_as_express_made_it() {
    let objects = "SELECT o::text FROM (
            SELECT relname, attname, atttypid::regtype::text FROM pg_attribute
                JOIN pg_class AS c ON c.oid = attrelid
                WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
            UNION ALL SELECT proname, '', '' FROM pg_proc
                WHERE pronamespace = 'public'::regnamespace
            UNION ALL SELECT tgname, '', '' FROM pg_trigger WHERE NOT tgisinternal
        ) AS o ORDER BY 1";
    let site = Site::of_express(TABLE).await;
    let before = texts(&site.pool, objects).await;
    let store = site.store.clone().tombstones(true);
    store.migrate().await.expect("the owner");
    assert_ne!(texts(&site.pool, objects).await, before);

    let guide = include_str!("../../docs/moving/from-express.md");
    let (_, rest) = guide.split_once("## Rolling back").expect("a section");
    let statements = rest.split("```").nth(1).expect("statements");
    let sql = statements.trim_start_matches("sql");
    execute(&site.pool, sql).await;
    assert_eq!(texts(&site.pool, objects).await, before);
    store.migrate().await.expect("it can be migrated again");
}

#[tokio::test]
async fn each_name_of_utc_is_the_same_time_zone() {
    let site = Site::of_guarded_express().await;
    for zone in ["UTC", "Etc/UTC", "zulu"] {
        let store = site.store.clone().time_zone(zone);
        store.check().await.expect(zone);
    }
    let store = site.store.clone().time_zone("Asia/Tokyo");
    let error = store.check().await.expect_err("triggers in UTC");
    assert!(error.to_string().contains("time_zone"), "{error}");
}

#[tokio::test]
async fn a_touch_that_moves_a_row_to_another_partition_keeps_the_session() {
    let site = Site::of_express(
        "CREATE TABLE session (sid varchar NOT NULL, sess json NOT NULL, expire timestamptz NOT NULL)
             PARTITION BY RANGE (expire);
         CREATE TABLE s1 PARTITION OF session FOR VALUES FROM (MINVALUE) TO (now() + interval '2 days');
         CREATE TABLE s2 PARTITION OF session DEFAULT",
    )
    .await;
    let store = site.store.clone().tombstones(true);
    store.migrate().await.expect("the owner");
    let visitor = TestVisitor::new(&PgSessionLayer::new(store));
    visitor
        .with_session(|session| session.insert("a", 1))
        .await
        .expect("a row");
    visitor
        .with_session(|session| {
            session.set_expiry(Expiry::Idle(Duration::from_secs(5 * 86_400)))?;
            session.insert("a", 2)
        })
        .await
        .expect("a save");
    assert_eq!(texts(&site.pool, "SELECT sid FROM session").await.len(), 1);
}

#[tokio::test]
async fn names_of_every_kind_work_with_tombstones() {
    for name in [
        "t".repeat(63),
        "ü".repeat(31),
        r#"a"b'c.d"#.to_owned(),
        "session_user_in".to_owned(),
        "session_tombstones".to_owned(),
        "OLD.id".to_owned(),
        "NEW.id".to_owned(),
        "OLD.expiry".to_owned(),
        "t.id".to_owned(),
        "x$$y".to_owned(),
        "(expiry)".to_owned(),
    ] {
        let site = Site::without_table().await;
        execute(&site.pool, r#"CREATE SCHEMA "My ""Schema""#).await;
        for store in [
            site.store.clone().table(name.clone()),
            site.store
                .clone()
                .schema(r#"My "Schema"#)
                .table(name.clone()),
        ] {
            let store = store.express(Express::new([SECRET])).tombstones(true);
            let (one, two) = tokio::join!(store.migrate(), store.migrate());
            one.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            two.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            let report = store
                .check()
                .await
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
            assert_eq!(report.to_string(), "every feature is on", "{name}");
            let visitor = TestVisitor::new(&PgSessionLayer::new(store.clone()));
            visitor
                .with_session(|session| session.login("ada"))
                .await
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
            visitor
                .with_session(Session::logout)
                .await
                .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        }
    }
}

#[tokio::test]
async fn a_new_id_that_is_undone_beside_a_late_write_leaves_no_second_session() {
    let site = Site::of_migrated_express().await;
    site.express_writes(SID, &stored(r#""passport":{"user":"ada"},"a":1"#))
        .await;
    let app = crate::support::app(PgSessionLayer::new(site.store.clone()));
    let browser = browser_of_express(&app);
    let held = site.hold_commits().await;
    let given_up = tokio::spawn(async move { browser.peek("/cycle").await });
    until(|| site.is_blocked()).await;
    given_up.abort();
    drop(given_up.await);
    let pool = site.pool.clone();
    let late = tokio::spawn(async move {
        let sql = format!("INSERT INTO session (sess, expire, sid) VALUES
            ('{{{SETTINGS},\"passport\":{{\"user\":\"ada\"}},\"a\":2}}', now() + interval '1 day', '{SID}')
            ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess, expire = excluded.expire");
        execute(&pool, &sql).await;
    });
    until(|| site.is_blocked_twice()).await;
    drop(held);
    late.await.expect("a write");
    // The undo deletes the row that no browser has a token of.
    let sids = async || texts(&site.pool, "SELECT sid FROM session").await;
    until(async || sids().await == [SID]).await;
}

#[tokio::test]
async fn many_destroys_and_inserts_at_once_do_not_deadlock() {
    let site = Site::of_guarded_express().await;
    execute(&site.pool, "INSERT INTO session_tombstones SELECT 'old' || n, now() - interval '1 hour' FROM generate_series(1, 4000) n").await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..8 {
        let pool = site.pool.clone();
        tasks.spawn(async move {
            for round in 0..30 {
                let sql = format!(
                    "INSERT INTO session (sid, sess, expire) SELECT 's' || n, '{{}}', now() + interval '1 day'
                     FROM generate_series(1, 400) n WHERE (n * 7919 + {task} + {round}) % 5 = 0 ORDER BY n
                     ON CONFLICT DO NOTHING"
                );
                let sql = format!("BEGIN ISOLATION LEVEL READ COMMITTED; {sql}; COMMIT");
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await?;
                let sql = format!(
                    "DELETE FROM session WHERE sid IN (SELECT sid FROM session
                     WHERE (substr(sid, 2)::int + {task} * 3 + {round}) % 3 = 0 ORDER BY sid FOR UPDATE)"
                );
                let sql = format!("BEGIN ISOLATION LEVEL READ COMMITTED; {sql}; COMMIT");
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await?;
            }
            Ok::<_, sqlx::Error>(())
        });
    }
    let mut faults = Vec::new();
    while let Some(done) = tasks.join_next().await {
        if let Err(error) = done.expect("no panic") {
            faults.push(error.to_string());
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[tokio::test]
async fn odd_lifetimes_are_readable_and_writable() {
    for age in [
        "1e300",
        "1e17",
        "9007199254740993",
        "-5",
        "0",
        "0.5",
        "false",
        "\"3600\"",
        "[]",
        "{}",
        "1e400",
    ] {
        let site = Site::of_migrated_express().await;
        site.express_writes(
            SID,
            &format!(r#"{{"cookie":{{"originalMaxAge":{age},"expires":null,"path":"/"}},"a":1}}"#),
        )
        .await;
        let visitor = visitor_of_express(&site.store);
        for call in ["insert", "touch", "cycle", "login"] {
            let done: Result<(), axum_pg_session::Error> = visitor
                .with_session(move |session| match call {
                    "insert" => session.insert("a", 2),
                    "touch" => session.touch(),
                    "cycle" => session.cycle_id(),
                    _ => session.login("ada"),
                })
                .await;
            done.unwrap_or_else(|error| panic!("{age} {call}: {error:?}"));
        }
    }
}

#[tokio::test]
async fn odd_documents_do_not_stop_the_migration() {
    for (kind, documents) in [
        (
            "json",
            &[
                "null",
                "1",
                "\"x\"",
                "[]",
                "{}",
                r#"{"passport":null}"#,
                r#"{"passport":[{"user":1}]}"#,
                r#"{"passport":{"user":[1,"\ud800"]}}"#,
                r#"{"a":"\u0000","a":"\udc00\ud800"}"#,
            ][..],
        ),
        (
            "jsonb",
            &[
                "null",
                "1",
                "\"x\"",
                "[]",
                "{}",
                r#"{"passport":{"user":{"id":3}}}"#,
                r#"{"x":"\\u0000"}"#,
            ][..],
        ),
    ] {
        let site =
            Site::of_express(&TABLE.replace("\"sess\" json", &format!("\"sess\" {kind}"))).await;
        for (n, document) in documents.iter().enumerate() {
            let sql = format!(
                "INSERT INTO session VALUES ('{n}', '{document}', now() + interval '1 day')"
            );
            execute(&site.pool, &sql).await;
        }
        let store = site.store.clone().tombstones(true);
        store
            .migrate()
            .await
            .unwrap_or_else(|error| panic!("{kind}: {error:?}"));
        store
            .migrate()
            .await
            .unwrap_or_else(|error| panic!("{kind}: {error:?}"));
        let visitor = TestVisitor::new(&PgSessionLayer::new(store.clone()));
        visitor
            .with_session(|session| session.login("ada"))
            .await
            .expect("a login");
        visitor
            .with_session(|session| session.insert("a", 1))
            .await
            .expect("a save");
        visitor
            .with_session(Session::cycle_id)
            .await
            .expect("an id");
        assert_eq!(store.user("ada").destroy_all().await.expect("an end"), 1);
    }
}

#[tokio::test]
async fn a_login_with_its_settings_kept_keeps_the_lifetime_that_express_stored() {
    let site = Site::of_migrated_express().await;
    site.express_writes(SID, r#"{"cookie":{"originalMaxAge":90000000,"expires":"2030-01-01T00:00:00.000Z","path":"/"},"passport":{"user":"ada"},"cart":1}"#).await;
    let visitor = visitor_of_express(&site.store);
    visitor
        .with_session(|session| session.login(Login::new("ada").keep_settings()))
        .await
        .expect("a login");
    let age = "SELECT sess->'cookie'->>'originalMaxAge' FROM session";
    assert_eq!(one(&site, age).await, "90000000");
    visitor
        .with_session(|session| session.login(Login::new("bob").keep_settings()))
        .await
        .expect("a login");
    let session = visitor.session().await.expect("a session");
    assert_eq!(session.get::<u32>("cart").expect("a value"), None);
    assert_eq!(
        texts(
            &site.pool,
            "SELECT coalesce(sess->'cookie'->>'originalMaxAge', 'none') FROM session"
        )
        .await,
        ["none"]
    );
}

#[tokio::test]
async fn a_lifetime_of_the_cookie_does_not_shorten_an_expiry_of_the_session() {
    let site = Site::of_migrated_express().await;
    let visitor = visitor_of_express(&site.store);
    visitor
        .with_session(|session| {
            session.set_expiry(Expiry::Idle(Duration::from_secs(30 * 86_400)))?;
            session.set_cookie_lifetime(CookieLifetime::Persistent)?;
            session.insert("a", 1)
        })
        .await
        .expect("a save");
    assert_eq!(
        one(
            &site,
            "SELECT sess->'cookie'->>'originalMaxAge' FROM session"
        )
        .await,
        "2592000000"
    );
}

#[tokio::test]
async fn everything_in_one_request_ends_in_one_session() {
    let site = Site::of_guarded_express().await;
    site.express_writes(SID, &stored(r#""passport":{"user":"ada"},"cart":"of ada""#))
        .await;
    site.express_writes("other", &stored(r#""passport":{"user":"bob"}"#))
        .await;
    let visitor = visitor_of_express(&site.store);
    visitor
        .with_session(|session| {
            session.logout()?;
            session.login("eve")?;
            session.destroy()?;
            session.insert("x", 1)?;
            session.login(Login::new("bob").end_others())?;
            session.clear()?;
            session.replace(json!({ "y": 1 }))?;
            session.cycle_id()
        })
        .await
        .expect("a login");
    let session = visitor.session().await.expect("a session");
    assert_eq!(session.user_id().as_deref(), Some("bob"));
    assert_eq!(
        session
            .keys()
            .into_iter()
            .filter(|key| key != "cookie" && key != "passport")
            .collect::<Vec<_>>(),
        ["y"]
    );
    let rows = texts(&site.pool, "SELECT sess->'passport'->>'user' FROM session").await;
    assert_eq!(rows, ["bob"]);
    site.express_writes(SID, &stored(r#""passport":{"user":"ada"}"#))
        .await;
    site.express_writes("other", &stored(r#""passport":{"user":"bob"}"#))
        .await;
    assert_eq!(
        texts(&site.pool, "SELECT sess->'passport'->>'user' FROM session").await,
        ["bob"]
    );
}

#[tokio::test]
async fn cookies_that_express_would_not_open_open_nothing() {
    let site = Site::of_migrated_express().await;
    site.express_writes(SID, &stored(r#""a":1"#)).await;
    let mac = "6nEMPyjRGgthsMwpNsVdUdHVOmdQGy3Rdzh5zNuFaS0";
    let app = crate::support::app(PgSessionLayer::new(site.store.clone()));
    for (value, opens) in [
        (format!("s:{SID}.{mac}"), true),
        (format!("\"s:{SID}.{mac}\""), true),
        (format!("%73%3A{SID}.{mac}"), true),
        (format!("\"s%3A{SID}.{mac}"), false),
        (format!("\"\"s%3A{SID}.{mac}\"\""), false),
        (format!("s%3A{SID}.{mac}="), false),
        (format!("s%3A{SID}.{mac}%3D"), false),
        (format!("s%3A{SID}.{}1", &mac[..42]), false),
        (format!("s%253A{SID}.{mac}"), false),
        (format!("S%3A{SID}.{mac}"), false),
        (format!("s:s:{SID}.{mac}"), false),
        (format!("s:{SID}.{mac}.{mac}"), false),
        (format!("s:.{mac}"), false),
        (format!("s:{SID} .{mac}"), false),
        (format!("s:{SID}%00.{mac}"), false),
        (format!("s%3A{SID}.{mac}%zz"), false),
        (format!("j:\"s:{SID}.{mac}\""), false),
        (SID.to_owned(), false),
    ] {
        let browser = Browser::new(&app).with_cookie("connect.sid", &value);
        let body = browser.peek("/get/a").await.body;
        assert_eq!(body == "1", opens, "{value}: {body}");
    }
    // The first of the name counts.
    let twice =
        Browser::new(&app).with_cookie("connect.sid", &format!("x; connect.sid=s%3A{SID}.{mac}"));
    assert_eq!(twice.peek("/get/a").await.body, "none");
}

#[tokio::test]
async fn a_request_that_loaded_a_row_that_express_destroyed_meanwhile_writes_nothing() {
    for call in [
        "insert",
        "login",
        "cycle",
        "clear",
        "destroy",
        "logout_login",
    ] {
        let site = Site::of_migrated_express().await;
        site.express_writes(SID, &stored(r#""cart":1,"passport":{"user":"ada"}"#))
            .await;
        let browser = browser_of_express(&site.app());
        let paused = InFlight::begin(&browser, "/page", |gate| {
            site.app_with(async move |session: Session| {
                let _ = session.get::<u32>("cart");
                gate.pass().await;
                match call {
                    "insert" => session.insert("a", 1),
                    "login" => session.login("ada"),
                    "cycle" => session.cycle_id(),
                    "clear" => session.clear(),
                    "logout_login" => {
                        session.logout()?;
                        session.login("ada")
                    }
                    _ => session.destroy(),
                }
            })
        })
        .await;
        execute(&site.pool, "DELETE FROM session").await;
        let status = paused.finish().await.status.as_u16();
        let left = texts(&site.pool, "SELECT sess::text FROM session").await;
        match call {
            "logout_login" => assert!(left.iter().all(|text| !text.contains("cart")), "{left:?}"),
            _ => assert_eq!((status, left.len()), (503, 0), "{call}"),
        }
    }
}

#[tokio::test]
async fn a_signed_id_without_a_row_is_not_adopted() {
    let site = Site::of_migrated_express().await;
    let visitor = visitor_of_express(&site.store);
    visitor
        .with_session(|session| session.insert("a", 1))
        .await
        .expect("a row");
    assert_ne!(one(&site, "SELECT sid FROM session").await, SID);
}

#[tokio::test]
async fn an_undone_login_restores_the_anonymous_session_as_it_was() {
    for login in [
        Login::new("ada"),
        Login::new("ada").discard_data(),
        Login::new("ada").end_others(),
    ] {
        let site = Site::of_guarded_express().await;
        site.express_writes(SID, &stored(r#""cart":1,"big":1.10"#))
            .await;
        let before = one(
            &site,
            "SELECT sid || sess::text || expire::text || created::text FROM session",
        )
        .await;
        let page = {
            let login = login.clone();
            async move |session: Session| session.login(login.clone())
        };
        let browser = browser_of_express(&app_with(PgSessionLayer::new(site.store.clone()), page));
        site.gives_up(browser, "/page").await;
        until(async || texts(&site.pool, "SELECT sid FROM session").await == [SID]).await;
        let after = one(
            &site,
            "SELECT sid || sess::text || expire::text || created::text FROM session",
        )
        .await;
        assert_eq!(after, before, "{login:?}");
        assert_eq!(site.store.user("ada").count().await.expect("a count"), 0);
    }
}

#[tokio::test]
async fn discard_restores_the_user_and_the_session() {
    let site = Site::of_migrated_express().await;
    site.express_writes(SID, &stored(r#""cart":1,"passport":{"user":"ada"}"#))
        .await;
    let visitor = visitor_of_express(&site.store);
    visitor
        .with_session(|session| -> Result<(), axum_pg_session::Error> {
            session.login("bob")?;
            session.insert("b", 1)?;
            session.destroy()?;
            session.login("eve")?;
            drop(session.discard());
            assert_eq!(session.user_id().as_deref(), Some("ada"));
            session.insert("c", 1)
        })
        .await
        .expect("a save");
    let text = one(&site, "SELECT sid || sess::text FROM session").await;
    assert_eq!(
        text,
        format!(r#"{SID}{{{SETTINGS},"cart":1,"passport":{{"user":"ada"}},"c":1}}"#)
    );
}

#[tokio::test]
async fn the_limit_of_sessions_counts_those_of_express() {
    let site = Site::of_migrated_express().await;
    for n in 0..4 {
        site.express_writes(&format!("s{n}"), &stored(r#""passport":{"user":"ada"}"#))
            .await;
    }
    let store = site.store.clone().max_sessions_per_user(
        std::num::NonZeroU32::new(2).expect("two"),
        axum_pg_session::SessionLimitPolicy::EndOldest,
    );
    let visitor = TestVisitor::new(&PgSessionLayer::new(store));
    visitor
        .with_session(|session| session.login("ada"))
        .await
        .expect("a login");
    assert_eq!(site.store.user("ada").count().await.expect("a count"), 2);
}

#[tokio::test]
async fn a_cookie_of_a_later_secret_is_signed_again() {
    let site = Site::of_migrated_express().await;
    site.express_writes(SID, &stored(r#""a":1"#)).await;
    let store = site.store.clone().express(Express::new(["newer", SECRET]));
    let app = crate::support::app(PgSessionLayer::new(store.clone()));
    let mut browser = browser_of_express(&app);
    assert_eq!(browser.get("/get/a").await.body, "1");
    let renewed = browser.cookie("connect.sid").expect("a cookie").to_owned();
    assert!(COOKIE != format!("connect.sid={renewed}"), "not renewed");
    let only = crate::support::app(PgSessionLayer::new(
        site.store.clone().express(Express::new(["newer"])),
    ));
    assert_eq!(browser.at(&only).get("/get/a").await.body, "1");
}

#[tokio::test]
async fn ending_everyone_with_tombstones_leaves_no_session_and_no_late_write() {
    let site = Site::of_guarded_express().await;
    for n in 0..300 {
        execute(&site.pool, &format!("INSERT INTO session VALUES ('s{n}', '{{{SETTINGS}}}', now() AT TIME ZONE 'UTC' + interval '1 day')")).await;
    }
    site.store.destroy_everyone().await.expect("an end");
    for n in 0..300 {
        site.express_writes(&format!("s{n}"), "{}").await;
    }
    assert_eq!(
        texts(&site.pool, "SELECT sid FROM session").await,
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn a_long_profile_can_be_ended_like_any_user() {
    let site = Site::of_migrated_express().await;
    let profile = json!({ "sub": "ada", "bio": "x".repeat(1100) });
    site.express_writes(SID, &stored(&format!(r#""passport":{{"user":{profile}}}"#)))
        .await;
    let session = visitor_of_express(&site.store)
        .session()
        .await
        .expect("a session");
    assert!(
        session.user_id().is_some(),
        "Express sees a user, this crate doesn't"
    );
}

// Third round.

#[tokio::test]
async fn a_login_of_a_customer_does_not_keep_the_stored_user_of_an_admin_with_the_same_number() {
    let site = Site::of_migrated_express().await;
    site.express_writes(
        SID,
        &stored(r#""notes":"of the admin","passport":{"user":{"type":"admin","id":5}}"#),
    )
    .await;
    let visitor = visitor_of_express(&site.store);
    visitor
        .with_session(|session| session.login("5"))
        .await
        .expect("a login");
    let text = one(&site, "SELECT sess::text FROM session").await;
    assert!(!text.contains("admin"), "{text}");
}

#[tokio::test]
async fn two_kinds_of_users_with_the_same_number_are_two_users() {
    let site = Site::of_migrated_express().await;
    for (sid, kind) in [("a", "admin"), ("b", "customer")] {
        site.express_writes(
            sid,
            &stored(&format!(
                r#""passport":{{"user":{{"type":"{kind}","id":5}}}}"#
            )),
        )
        .await;
    }
    assert_eq!(
        texts(&site.pool, "SELECT DISTINCT user_id FROM session")
            .await
            .len(),
        2
    );
}

#[tokio::test]
async fn a_user_that_passport_takes_for_none_is_none() {
    for user in ["false", "null", "\"\""] {
        let site = Site::of_migrated_express().await;
        site.express_writes(SID, &stored(&format!(r#""passport":{{"user":{user}}}"#)))
            .await;
        assert_eq!(
            visitor_of_express(&site.store)
                .session()
                .await
                .expect("a session")
                .user_id(),
            None,
            "{user}"
        );
    }
}

#[tokio::test]
async fn a_table_in_hash_partitions_works_with_tombstones() {
    let site = Site::of_express(
        "CREATE TABLE session (sid varchar PRIMARY KEY, sess json NOT NULL, expire timestamp(6) NOT NULL)
             PARTITION BY HASH (sid);
         DO $$ BEGIN FOR part IN 0..3 LOOP EXECUTE format(
             'CREATE TABLE session_%s PARTITION OF session FOR VALUES WITH (MODULUS 4, REMAINDER %s)', part, part);
         END LOOP; END $$",
    )
    .await;
    let store = site.store.clone().tombstones(true);
    store.migrate().await.expect("the owner");
    store.migrate().await.expect("nothing");
    assert!(store.check().await.expect("a table").tombstones);
    for n in 0..8 {
        let visitor = TestVisitor::new(&PgSessionLayer::new(store.clone()));
        visitor
            .with_session(|session| session.login("ada"))
            .await
            .expect("a login");
        let sid = texts(&site.pool, "SELECT sid FROM session").await.remove(0);
        visitor
            .with_session(Session::cycle_id)
            .await
            .expect("an id");
        visitor
            .with_session(Session::logout)
            .await
            .expect("a logout");
        site.express_writes(&sid, "{}").await;
        assert_eq!(
            texts(&site.pool, "SELECT sid FROM session").await.len(),
            0,
            "{n}"
        );
    }
}

#[tokio::test]
async fn a_request_of_ada_reads_nothing_of_bob() {
    let site = Site::of_migrated_express().await;
    site.express_writes(SID, &stored(r#""passport":{"user":"ada"}"#))
        .await;
    let browser = browser_of_express(&site.app());
    let paused = InFlight::begin(&browser, "/page", |gate| {
        site.app_with(
            async move |session: Session| -> Result<String, axum_pg_session::Error> {
                session.insert("x", 1)?;
                gate.pass().await;
                session.save().await?;
                Ok(format!(
                    "{:?} {:?}",
                    session.user_id(),
                    session.get::<String>("iban")?
                ))
            },
        )
    })
    .await;
    site.express_writes(SID, &stored(r#""iban":"of bob","passport":{"user":"bob"}"#))
        .await;
    let reply = paused.finish().await;
    assert!(
        !reply.body.contains("of bob"),
        "{} {}",
        reply.status,
        reply.body
    );
}

#[tokio::test]
async fn an_undo_of_a_login_does_not_bring_back_a_user_whose_sessions_were_all_ended() {
    // The stored profile is too long for the column, which has a digest of it.
    let site = Site::of_migrated_express().await;
    let profile = json!({ "sub": "ada", "bio": "x".repeat(1100) });
    site.express_writes(SID, &stored(&format!(r#""passport":{{"user":{profile}}}"#)))
        .await;
    let page = async move |session: Session| session.login("bob");
    let browser = browser_of_express(&app_with(PgSessionLayer::new(site.store.clone()), page));
    site.gives_up(browser, "/page").await;
    until(async || {
        texts(&site.pool, "SELECT sid FROM session")
            .await
            .is_empty()
    })
    .await;
}

#[tokio::test]
async fn two_stores_migrate_at_once_behind_a_pooler_and_an_undo_works_there() {
    for both_are_pooled in [false, true] {
        let site = Site::of_express(TABLE).await;
        // Behind a pooler, a store without the setting is refused.
        if site.database.pooled().is_some() && !both_are_pooled {
            continue;
        }
        let store = site.store.clone().tombstones(true);
        let pooled = store.clone().behind_transaction_pooler(true);
        let other = store.behind_transaction_pooler(both_are_pooled);
        let (first, second) = tokio::join!(pooled.migrate(), other.migrate());
        first.expect("the owner");
        second.expect("the owner");
        site.express_writes(SID, &stored(r#""cart":1"#)).await;
        let browser = browser_of_express(&crate::support::app(PgSessionLayer::new(pooled)));
        site.gives_up(browser, "/cycle").await;
        until(async || texts(&site.pool, "SELECT sid FROM session").await == [SID]).await;
    }
}

#[tokio::test]
async fn a_store_behind_a_pooler_and_another_migrate_at_once_in_the_own_format() {
    for _ in 0..5 {
        let site = Site::without_table().await;
        let pooled = site.store.clone().behind_transaction_pooler(true);
        let (first, second) = tokio::join!(pooled.migrate(), site.store.migrate());
        first.expect("the owner");
        second.expect("the owner");
    }
}

#[tokio::test]
async fn a_login_drops_the_data_of_another_user_whose_id_looks_like_an_escape() {
    let site = Site::of_migrated_express().await;
    site.express_writes(
        SID,
        &stored(r#""secret":"of 01","passport":{"user":"ACME\\ude01"}"#),
    )
    .await;
    site.express_writes("other", &stored(r#""passport":{"user":"ACME\\ude02"}"#))
        .await;
    // What the store lists for one user are the sessions of both.
    let users = texts(&site.pool, "SELECT DISTINCT user_id FROM session").await;
    let ended = site
        .store
        .user(r"ACME\ude02")
        .destroy_all()
        .await
        .expect("an end");
    assert_eq!((users.len(), ended), (2, 1), "{users:?}");
}

#[tokio::test]
async fn a_removed_member_of_passport_does_not_sign_out_under_the_same_id() {
    let site = Site::of_migrated_express().await;
    let visitor = visitor_of_express(&site.store);
    visitor
        .with_session(|session| session.login("ada"))
        .await
        .expect("a login");
    let done = visitor
        .with_session(|session| session.remove::<Value>("passport").map(drop))
        .await;
    assert!(
        done.is_err() || site.store.user("ada").count().await.expect("a count") == 1,
        "{done:?}"
    );
}

#[tokio::test]
async fn a_user_whom_express_signs_in_under_the_same_id_is_the_user_of_the_session() {
    let site = Site::of_migrated_express().await;
    let visitor = visitor_of_express(&site.store);
    visitor
        .with_session(|session| session.login(Login::new("ada").external_id("sid-1")))
        .await
        .expect("a login");
    let sid = one(&site, "SELECT sid FROM session").await;
    site.express_writes(&sid, &format!("{{{SETTINGS}}}")).await;
    site.express_writes(&sid, &stored(r#""passport":{"user":"bob"}"#))
        .await;
    let session = visitor.session().await.expect("a session");
    assert_eq!(session.user_id().as_deref(), Some("bob"));
}
