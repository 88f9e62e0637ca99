//! Values and keys: what is stored comes back, and what can't be stored is an error.

use std::collections::BTreeMap;

use axum::{Router, routing::get};
use axum_pg_session::{
    Device, Error, ErrorKind, Expiry, Login, PgSessionLayer, PgSessionStore, Session,
};
use serde::{Deserialize, Serialize, Serializer, ser::Error as _};
use serde_json::{Value, json, value::RawValue};

use crate::support::{Browser, Site, page::app_with, proxy::Proxy, visit};

/// Stores the value in one request and reads it in another.
async fn round_trip<T>(value: T) -> T
where
    T: Serialize + for<'de> Deserialize<'de> + Clone + Send + Sync + 'static,
{
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, async move |session: Session| {
        session.insert("key", value)
    })
    .await;
    let (response, found) = tokio::sync::oneshot::channel();
    let response = std::sync::Arc::new(std::sync::Mutex::new(Some(response)));
    visit(&site, &mut browser, async move |session: Session| {
        let value: T = session.get("key")?.expect("a value");
        let response = response.lock().expect("no panic").take();
        drop(response.expect("one visit").send(value));
        Ok::<_, Error>(())
    })
    .await;
    found.await.expect("a value")
}

/// A value whose own `Serialize` gives up.
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("not today"))
    }
}

fn assert_kind<T>(outcome: Result<T, Error>, kind: ErrorKind, words: &[&str]) {
    let error = outcome.map(drop).expect_err("an error");
    assert_eq!(error.kind(), kind);
    for word in words {
        assert!(error.to_string().contains(word), "{word} in {error}");
    }
}

async fn insert_what_is_no_json(session: Session) {
    let map = BTreeMap::from([((1, 2), 3)]);
    let words = ["\"bad\"", "JSON"];
    assert_kind(session.insert("bad", map), ErrorKind::Serialize, &words);
    assert_kind(
        session.insert("bad", Unwritable),
        ErrorKind::Serialize,
        &words,
    );
    let unwritable = session.update("bad", |_: Option<Value>| Unwritable);
    assert_kind(unwritable, ErrorKind::Serialize, &words);
    assert!(!session.contains_key("bad"));
}

#[tokio::test]
async fn a_value_that_is_no_json_is_an_error_and_no_change() {
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, insert_what_is_no_json).await;
    assert_eq!(site.rows().dump().await, [""; 0]);
    browser.get("/insert/bad/1").await;
    let before = site.rows().dump().await;
    visit(&site, &mut browser, async |session: Session| {
        assert!(session.insert("bad", Unwritable).is_err());
        assert!(
            session
                .update("bad", |_: Option<Value>| Unwritable)
                .is_err()
        );
        assert_eq!(
            session.get::<String>("bad").expect("text"),
            Some("1".into())
        );
    })
    .await;
    assert_eq!(site.rows().dump().await, before);
}

#[tokio::test]
async fn a_value_that_is_no_json_leaves_the_other_changes_of_the_request() {
    let site = Site::new().await;
    let (mut browser, mut other) = (site.browser(), site.browser());
    visit(&site, &mut browser, async |session: Session| {
        session.insert("a", 1)?;
        assert!(session.insert("b", Unwritable).is_err());
        session.insert("c", 3)
    })
    .await;
    other.get("/insert/a/1").await;
    assert_eq!(browser.get("/keys").await.body, "a,c");
    assert_eq!(other.get("/get/a").await.body, "\"1\"");
}

#[tokio::test]
async fn an_error_for_a_value_is_500_and_drops_the_request() {
    let site = Site::new().await;
    let app = Router::new()
        .route(
            "/",
            get(async |session: Session| {
                session.insert("a", 1)?;
                session.insert("b", Unwritable)
            }),
        )
        .layer(site.layer());
    let response = Browser::new(&app).get("/").await;
    response.assert(500, "A value can't be stored in your session.");
    assert!(response.sets_no_cookie());
    assert_eq!(site.rows().dump().await, [""; 0]);
}

/// All texts of an error, down to its last cause.
fn texts_of(error: &Error) -> String {
    let mut texts = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        texts += &format!(" {error} {error:?}");
        cause = error.source();
    }
    texts
}

#[derive(Debug, Deserialize)]
enum Reply {
    Yes,
}

fn misfits(session: &Session) -> Vec<Error> {
    vec![
        session.get::<u64>("key").expect_err("no number"),
        session.get::<Reply>("key").expect_err("no response"),
        session.get::<Vec<u8>>("key").expect_err("no list"),
        session
            .get::<BTreeMap<String, u8>>("key")
            .expect_err("no map"),
        session.remove::<u64>("key").expect_err("no number"),
        session
            .update("key", |n: Option<u64>| n)
            .expect_err("no number"),
    ]
}

/// Right after its insert, and as it was stored.
#[tokio::test]
async fn a_value_of_another_type_stays_and_is_an_error_that_does_not_show_it() {
    let site = Site::new().await;
    for secret in [
        json!("hunter2"),
        json!({"hunter2": "hunter2"}),
        json!(["hunter2"]),
    ] {
        let mut browser = site.browser();
        for is_stored in [false, true] {
            let (before, secret) = (site.rows().dump().await, secret.clone());
            visit(&site, &mut browser, async move |session: Session| {
                if !is_stored {
                    session.insert("key", &secret)?;
                }
                for error in misfits(&session) {
                    assert_eq!(error.kind(), ErrorKind::Deserialize);
                    assert!(error.to_string().contains("\"key\""), "{error}");
                    assert!(
                        !texts_of(&error).contains("hunter2"),
                        "{}",
                        texts_of(&error)
                    );
                }
                assert!(!format!("{session:?}").contains("hunter2"));
                assert_eq!(session.get("key")?, Some(secret.clone()));
                Ok::<_, Error>(())
            })
            .await;
            assert!(!is_stored || site.rows().dump().await == before);
        }
    }
}

async fn reach_for_the_reserved_key(session: Session) {
    let (kind, words) = (ErrorKind::ReservedKey, ["_session"]);
    assert_kind(session.insert("_session", 1), kind, &words);
    assert_kind(session.remove::<Value>("_session"), kind, &words);
    assert_kind(
        session.update("_session", |_: Option<Value>| 1),
        kind,
        &words,
    );
    assert_eq!(session.get::<Value>("_session").expect("nothing"), None);
    assert_eq!(session.get::<u8>("_session").expect("nothing"), None);
    assert!(!session.contains_key("_session"));
    assert!(session.keys().is_empty());
    assert!(session.is_empty());
}

#[tokio::test]
async fn the_reserved_key_is_out_of_reach() {
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, reach_for_the_reserved_key).await;
    assert_eq!(site.rows().dump().await, [""; 0]);
    visit(&site, &mut browser, async |session: Session| {
        session.insert("a", 1)?;
        session.set_expiry(Expiry::Idle(std::time::Duration::from_secs(60)))
    })
    .await;
    browser.get("/remove/a").await;
    assert_eq!(
        site.rows().document().await,
        json!({"_session": {"idle": 60.0}})
    );
    visit(&site, &mut browser, reach_for_the_reserved_key).await;
    assert_eq!(
        site.rows().document().await,
        json!({"_session": {"idle": 60.0}})
    );
}

#[tokio::test]
async fn keys_like_the_reserved_one_are_the_applications() {
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, async |session: Session| {
        for key in [
            "_Session",
            "_session ",
            "__session",
            "session",
            "_session\0",
        ] {
            session.insert(key, key)?;
        }
        Ok::<_, Error>(())
    })
    .await;
    let keys = "_Session,_session ,__session,session,_session\0";
    assert_eq!(browser.get("/keys").await.body, keys);
}

#[tokio::test]
async fn null_reads_as_none() {
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, async |session: Session| {
        session.insert("a", Option::<u8>::None)?;
        session.insert("b", ())
    })
    .await;
    visit(&site, &mut browser, async |session: Session| {
        for key in ["a", "b", "c"] {
            assert_eq!(session.get::<u8>(key).expect("nothing"), None);
            assert_eq!(session.get::<Value>(key).expect("nothing"), None);
        }
        assert!(session.contains_key("a") && !session.contains_key("c"));
        assert_eq!(session.remove::<u8>("a").expect("nothing"), None);
        assert!(!session.contains_key("a"));
    })
    .await;
    assert_eq!(site.rows().document().await, json!({"b": null}));
    assert_eq!(browser.get("/increment/b").await.body, "1");
}

#[tokio::test]
async fn any_text_comes_back() {
    for text in [
        "",
        "\0",
        "a\0b",
        "\u{10ffff}\u{1f350}\u{d7ff}\u{e000}\u{feff}\u{fffe}",
        "\"\\/\u{8}\u{c}\n\r\t\u{7f}\u{2028}",
        "'; DROP TABLE session; --",
        "$1 $doc$ {} \\u0000 \\ud800",
        "e\u{301}\u{202e}",
    ] {
        assert_eq!(round_trip(text.to_owned()).await, text);
    }
    let map = BTreeMap::from([("\0".to_owned(), "\0".to_owned())]);
    assert_eq!(round_trip(map.clone()).await, map);
}

/// A Rust string has none, but JSON from elsewhere may.
#[tokio::test]
async fn a_lone_surrogate_comes_back_as_it_was_spelled() {
    for text in [r#""\ud800""#, r#"["\uDFFF\ud83c"]"#, r#""\ud83c\udf50""#] {
        let raw = RawValue::from_string(text.to_owned()).expect("JSON");
        assert_eq!(round_trip(raw).await.get(), text);
    }
}

#[tokio::test]
async fn a_megabyte_is_saved_beside_small_sessions() {
    let site = Site::new().await;
    let mut visits = tokio::task::JoinSet::new();
    for n in 0..30 {
        let mut browser = site.visitor().await;
        let app = Router::new()
            .route("/", get(grow).with_state(n * 34_000))
            .layer(site.layer());
        visits.spawn(async move {
            let status = browser.at(&app).get("/").await.status;
            let left = browser.get("/get/grown").await.body.len();
            (n, status.as_u16(), left)
        });
    }
    for (n, status, length) in visits.join_all().await {
        assert_eq!((status, length), (200, n * 34_000 + 2));
    }
}

async fn grow(
    session: Session,
    axum::extract::State(length): axum::extract::State<usize>,
) -> Result<(), Error> {
    session.insert("grown", "x".repeat(length))
}

#[tokio::test]
async fn any_text_is_a_key() {
    const KEYS: [&str; 11] = [
        "",
        " ",
        "ключ",
        "\u{1f350}",
        "a\0b",
        "\"\\\n",
        "a.b[0]{c}",
        "__proto__",
        // These look alike.
        "\u{e9}",
        "e\u{301}",
        "E\u{301}",
    ];
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, async |session: Session| {
        KEYS.iter().try_for_each(|key| session.insert(key, key))
    })
    .await;
    visit(&site, &mut browser, async |session: Session| {
        assert_eq!(session.keys(), KEYS);
        for key in KEYS {
            assert!(session.contains_key(key));
            let value: Option<String> = session.get(key).expect("text");
            assert_eq!(value.as_deref(), Some(key));
        }
        assert_eq!(
            session.remove::<String>("").expect("text"),
            Some(String::new())
        );
    })
    .await;
    visit(&site, &mut browser, async |session: Session| {
        assert_eq!(session.keys(), KEYS[1..]);
    })
    .await;
}

#[tokio::test]
async fn a_key_keeps_its_place_when_its_value_changes() {
    let site = Site::new().await;
    let mut browser = site.browser();
    for path in [
        "/insert/b/1",
        "/insert/a/1",
        "/insert/b/2",
        "/insert/c/1",
        "/remove/a",
    ] {
        browser.get(path).await;
    }
    assert_eq!(browser.get("/keys").await.body, "b,c");
    assert_eq!(site.rows().text().await, r#"{"b":"2","c":"1"}"#);
}

/// Keys, values, users, devices and cookies are bound.
#[tokio::test]
async fn no_string_of_a_visitors_reaches_the_text_of_a_statement() {
    const HOSTILE: &str = "x'; DROP TABLE session; --\"\\$1";
    let site = Site::new().await;
    let proxy = Proxy::before(site.database.url()).await;
    let store = PgSessionStore::new(proxy.pool().await);
    let app = app_with(
        PgSessionLayer::new(store.clone()),
        async |session: Session| {
            session.insert(HOSTILE, HOSTILE)?;
            let device = Device::new().with_label(HOSTILE).with_user_agent(HOSTILE);
            session.login(Login::new(HOSTILE).device(device))
        },
    );
    let mut browser = Browser::new(&app).with_cookie("__Host-id", "' OR true --");
    assert_eq!(browser.get("/page").await.status, 200);
    let users = store.user(HOSTILE);
    let listed = users.list().await.expect("a list");
    assert_eq!(listed.len(), 1);
    assert!(users.destroy(listed[0].id()).await.expect("a database"));
    assert_eq!(site.rows().count().await, 0);
    let texts = proxy.take_texts();
    assert!(texts.len() > 4, "{texts:?}");
    for text in texts {
        assert!(
            !text.contains("DROP") && !text.contains("OR true"),
            "{text}"
        );
    }
    assert!(proxy.has_sent(HOSTILE.as_bytes()), "it was bound");
}
