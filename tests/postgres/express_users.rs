//! The user that Passport stores in the document: the generated column and this crate find the same
//! one, with restricted grants, in other encodings, and near the expiry.

use std::time::Duration;

use axum_pg_session::{
    Error, Expiry, Express, PgSessionLayer, PgSessionStore, Session, testing::TestVisitor,
};
use sqlx::{AssertSqlSafe, PgPool};

use crate::{
    encodings::{database_in, drop_database},
    random::Random,
    support::{
        Browser, Role, Site, execute,
        express::{SECRET, SETTINGS, SID, TABLE, browser_of_express, stored, visitor_of_express},
        page::app_with,
        texts,
    },
};

/// Pieces of JSON strings, most of which are special to SQL, Rust or both.
const PIECES: [&str; 26] = [
    "a",
    "\\\\",
    "\\\"",
    "\\u0000",
    "\\ud83d",
    "\\ude00",
    "\\ud83d\\ude00",
    "\\uD83D\\uDE00",
    "\\u00e9",
    "u0000",
    "ud83d",
    "\\n",
    "\\u005c",
    "\\u0001",
    "\\u0002",
    "é",
    "😀",
    "\\/",
    "\\uDBFF",
    "\\udfff",
    "\\ufffd",
    "0000",
    "\\u005Cu0000",
    "x02d83d",
    "'",
    "passport",
];
/// Other values that are no objects or arrays.
const SCALARS: [&str; 8] = [
    "null",
    "true",
    "false",
    "0",
    "-0.0",
    "12345678901234567890123",
    "1e400",
    "\"\"",
];

fn string(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..random.below(6) {
        // The first three occur more often, so that they follow each other.
        let among = match random.one_in(2) {
            true => &PIECES[..],
            false => &PIECES[..3],
        };
        text += random.pick(among).expect("a piece");
    }
    if random.one_in(40) {
        text += &"é".repeat(600);
    }
    format!("\"{text}\"")
}

fn value(random: &mut Random) -> String {
    match random.below(12) {
        0..6 => string(random),
        6..9 => (*random.pick(&SCALARS).expect("a value")).to_owned(),
        9 => format!("[{} , {}]", string(random), string(random)),
        _ => format!(
            "{{ \"id\" : {},\n{}:{}}}",
            string(random),
            string(random),
            string(random)
        ),
    }
}

async fn generated(pool: &PgPool, document: &str) -> Option<String> {
    let user = sqlx::query_scalar("SELECT session_user_in($1::text::json)").bind(document);
    user.fetch_one(pool).await.expect("a user or none")
}

/// Without the column, the crate reads the document.
#[tokio::test]
async fn the_generated_column_and_the_crate_find_the_same_user_in_every_document() {
    let migrated = Site::of_migrated_express().await;
    let site = Site::of_express(TABLE).await;
    let visitor = visitor_of_express(&site.store);
    let mut random = Random::new(1, 0);
    for _ in 0..500 {
        let earlier = match random.one_in(4) {
            true => format!("\"user\":{},", value(&mut random)),
            false => String::new(),
        };
        let (user, other) = (value(&mut random), value(&mut random));
        let document = stored(&format!(
            "\"x\":{other} , \"passport\": {{{earlier} \"user\" :{user} }}"
        ));
        let written = sqlx::query(
            "INSERT INTO session (sid, sess, expire) VALUES ($1, $2::text::json, now() + interval '1 day')
             ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess",
        );
        let written = written.bind(SID).bind(&document).execute(&site.pool).await;
        written.expect("a row");
        let known = visitor.session().await.expect("a session").user_id();
        let expected = generated(&migrated.pool, &document).await;
        assert_eq!(known, expected, "{document}");
    }
}

#[tokio::test]
async fn the_user_of_a_stored_object_is_its_json_text() {
    let long = format!(r#"{{"id":7,"bio":"{}"}}"#, "x".repeat(1100));
    for user in [
        r#"{"id":7}"#,
        r#"{"id":7,"bio":"\\ud83d\ud83d\ude00"}"#,
        // JSON.stringify of a text that was cut within an emoji.
        r#"{"id":7,"bio":"abc\ud83d"}"#,
        r#"{"id":7,"bio":"a\u0000b"}"#,
        &long,
    ] {
        let site = Site::of_migrated_express().await;
        let document = stored(&format!(r#""passport":{{"user":{user}}}"#));
        site.express_writes(SID, &document).await;
        let visitor = visitor_of_express(&site.store);
        let known = visitor.session().await.expect("a session").user_id();
        let known = known.expect("a user");
        // Postgres can't store an escape of half an emoji or of U+0000, so the id has another text.
        let is_stored = !user.contains(r"abc\ud83d") && !user.contains(r"\u0000");
        for id in [&known]
            .into_iter()
            .chain(is_stored.then_some(&user.to_owned()))
        {
            let count = site.store.user(id).count().await;
            assert_eq!(count.expect("a count"), 1, "{id}");
        }
        if user.len() < 1000 {
            let login = |session: &Session| session.login(user);
            visitor.with_session(login).await.expect("a login");
            let again = visitor.session().await.expect("a session").user_id();
            assert_eq!(again.as_deref(), Some(user));
        }
        let ended = site.store.user(user).destroy_all().await;
        assert_eq!(ended.expect("an end"), 1, "{user}");
    }
}

#[tokio::test]
async fn a_column_that_is_generated_from_a_part_of_the_stored_user_is_refused_or_works() {
    let site = Site::of_express(&format!(
        "{TABLE}; ALTER TABLE session ADD COLUMN user_id text
         GENERATED ALWAYS AS (sess->'passport'->'user'->>'id') STORED"
    ))
    .await;
    site.store.migrate().await.expect("the owner");
    let report = site.store.check().await.expect("a table");
    let visitor = visitor_of_express(&site.store);
    let login = visitor.with_session(|session| session.login("ada")).await;
    let known = visitor.session().await.expect("a session").user_id();
    let count = site.store.user("ada").count().await;
    assert!(
        login.is_err() || known.as_deref() == Some("ada"),
        "{report}, per user: {}, login: {login:?}, then {known:?}, {count:?} sessions",
        report.per_user_sessions
    );
}

#[tokio::test]
async fn the_four_grants_suffice_if_functions_are_not_public() {
    let site = Site::of_express(TABLE).await;
    execute(
        &site.pool,
        "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    )
    .await;
    let role = Role::new(&site.pool).await;
    role.grant("SELECT, INSERT, UPDATE, DELETE ON session")
        .await;
    let pool = role.pool(site.database.url()).await;
    let write = format!(
        "INSERT INTO session (sess, expire, sid) VALUES ('{{{SETTINGS}}}', now() + interval '1 day', 'x')
         ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess, expire = excluded.expire"
    );
    execute(&pool, &write).await;
    site.store
        .clone()
        .tombstones(true)
        .migrate()
        .await
        .expect("the owner");
    let store = PgSessionStore::new(pool.clone())
        .express(Express::new([SECRET]))
        .tombstones(true)
        .create_table(false);
    let checked = store.check().await;
    let written = sqlx::raw_sql(AssertSqlSafe(write)).execute(&pool).await;
    let visitor = TestVisitor::new(&PgSessionLayer::new(store));
    let saved = visitor.with_session(|session| session.insert("a", 1)).await;
    pool.close().await;
    role.drop().await;
    assert!(
        checked.is_err() || (written.is_ok() && saved.is_ok()),
        "{checked:?}\n{written:?}\n{saved:?}"
    );
}

#[tokio::test]
async fn a_document_that_express_could_write_can_be_written_after_the_migration_in_every_encoding()
{
    let mut faults = Vec::new();
    for encoding in ["UTF8", "SQL_ASCII", "LATIN1"] {
        let site = Site::without_table().await;
        let pool = database_in(&site, encoding).await;
        execute(&pool, TABLE).await;
        for document in [
            r#""x":"\u0000","passport":{"user":"ada"}"#,
            r#""x":"cut \ud83d","passport":{"user":"ada"}"#,
        ] {
            let write = format!(
                "INSERT INTO session (sess, expire, sid) VALUES ('{}', now() + interval '1 day', 'x')
                 ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess",
                stored(document)
            );
            execute(&pool, &write).await;
            execute(&pool, "DELETE FROM session").await;
            let store = PgSessionStore::new(pool.clone()).express(Express::new([SECRET]));
            store.migrate().await.expect("the owner");
            if let Err(error) = sqlx::raw_sql(AssertSqlSafe(write)).execute(&pool).await {
                faults.push(format!("{encoding} {document}: {error}"));
            }
            execute(
                &pool,
                "DELETE FROM session; ALTER TABLE session DROP COLUMN user_id",
            )
            .await;
        }
        drop_database(&site, pool).await;
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[tokio::test]
async fn a_session_that_expires_before_its_logout_is_committed_stays_destroyed() {
    let site = Site::of_guarded_express().await;
    site.express_writes(SID, &stored(r#""passport":{"user":"ada"}"#))
        .await;
    let browser = browser_of_express(&site.app());
    let logout = site
        .late(&browser, async |session: Session| session.logout())
        .await;
    execute(
        &site.pool,
        "UPDATE session SET expire = now() - interval '1 millisecond'",
    )
    .await;
    assert_eq!(logout.finish().await.status, 200);
    assert!(
        texts(&site.pool, "SELECT sid FROM session")
            .await
            .is_empty()
    );
    // A request to Express that loaded the session before.
    site.express_writes(SID, &stored(r#""passport":{"user":"ada"}"#))
        .await;
    assert!(
        texts(&site.pool, "SELECT sid FROM session")
            .await
            .is_empty(),
        "the session is revived"
    );
}

/// Applications store `JSON.stringify(profile)`, too, which can cut an emoji.
#[tokio::test]
async fn the_id_of_a_session_finds_the_sessions_of_its_user() {
    let site = Site::of_migrated_express().await;
    let visitor = visitor_of_express(&site.store);
    for user in [
        r#"{"bio":"whole"}"#,
        r#"{"bio":"cut \ud83d"}"#,
        r#""{\"bio\":\"whole\"}""#,
        r#""{\"bio\":\"cut \\ud83d\"}""#,
    ] {
        let document = stored(&format!(r#""cart":1,"passport":{{"user":{user}}}"#));
        site.express_writes(SID, &document).await;
        let session = visitor.session().await.expect("a session");
        let id = session.user_id().expect("a user");
        let count = site.store.user(&id).count().await;
        assert_eq!(count.expect("a count"), 1, "{user} is {id}");
    }
}

#[tokio::test]
async fn the_store_finds_the_user_whom_express_stored_in_every_encoding() {
    let mut faults = Vec::new();
    for encoding in ["UTF8", "LATIN1"] {
        let site = Site::without_table().await;
        let pool = database_in(&site, encoding).await;
        execute(&pool, TABLE).await;
        let store = PgSessionStore::new(pool.clone()).express(Express::new([SECRET]));
        store.migrate().await.expect("the owner");
        let long = "é".repeat(600);
        for (id, user) in [
            (r#"{"id":7}"#, r#"{"id":7}"#.to_owned()),
            (&*long, format!("\"{long}\"")),
        ] {
            let write = format!(
                "DELETE FROM session; INSERT INTO session (sess, expire, sid)
                 VALUES ('{}', now() + interval '1 day', 'x')",
                stored(&format!(r#""passport":{{"user":{user}}}"#))
            );
            execute(&pool, &write).await;
            let ended = store.user(id).destroy_all().await;
            if !matches!(ended, Ok(1)) {
                let start: String = id.chars().take(30).collect();
                faults.push(format!("{encoding}, {start}: {ended:?}"));
            }
        }
        drop_database(&site, pool).await;
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[tokio::test]
async fn a_login_that_does_not_fit_the_document_changes_nothing() {
    let site = Site::of_express(TABLE).await;
    site.store.migrate().await.expect("the owner");
    let layer = site.layer().max_document_size(400);
    let remembered = async |session: Session| {
        session.insert("a", "x".repeat(220))?;
        session.set_expiry(Expiry::Idle(Duration::from_secs(77_777)))
    };
    let mut browser = Browser::new(&app_with(layer.clone(), remembered));
    assert_eq!(browser.get("/page").await.status, 200);
    let signs_in = async |session: Session| {
        let error = session
            .login("u".repeat(300))
            .expect_err("there is no room");
        assert_eq!(session.user_id(), None);
        Ok::<_, Error>(format!("{:?}", error.kind()))
    };
    let reply = browser.at(&app_with(layer, signs_in)).get("/page").await;
    assert_eq!(reply.body, "TooLarge");
    let stored = texts(&site.pool, "SELECT sess::text FROM session").await;
    assert!(stored[0].contains("77777"), "{stored:?}");
}
