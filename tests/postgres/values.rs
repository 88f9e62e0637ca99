//! What goes into a session comes out of it, or is told.

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
async fn a_value_that_is_no_json_costs_nothing_else_of_the_request() {
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
    assert_eq!(
        (response.status.as_u16(), response.body.as_str()),
        (500, "A value can't be stored in your session.")
    );
    assert!(response.sets_no_cookie());
    assert_eq!(site.rows().dump().await, [""; 0]);
}

/// Everything that an error tells, down to its last cause.
fn told(error: &Error) -> String {
    let mut told = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        told += &format!(" {error} {error:?}");
        cause = error.source();
    }
    told
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

#[tokio::test]
async fn a_value_of_another_type_is_an_error_that_does_not_show_it() {
    let site = Site::new().await;
    let mut browser = site.browser();
    for secret in [
        json!("hunter2"),
        json!({"hunter2": "hunter2"}),
        json!(["hunter2"]),
    ] {
        visit(&site, &mut browser, async move |session: Session| {
            session.insert("key", &secret)?;
            for error in misfits(&session) {
                assert_eq!(error.kind(), ErrorKind::Deserialize);
                assert!(error.to_string().contains("\"key\""), "{error}");
                assert!(!told(&error).contains("hunter2"), "{}", told(&error));
            }
            assert!(!format!("{session:?}").contains("hunter2"));
            Ok::<_, Error>(())
        })
        .await;
    }
    assert!(matches!(round_trip_response().await, Reply::Yes));
}

async fn round_trip_response() -> Reply {
    serde_json::from_value(round_trip(json!("Yes")).await).expect("a response")
}

#[tokio::test]
async fn a_value_of_another_type_stays_as_it_is() {
    let site = Site::new().await;
    let mut browser = site.browser();
    browser.get("/insert/key/hunter2").await;
    let before = site.rows().dump().await;
    visit(&site, &mut browser, async |session: Session| {
        for error in misfits(&session) {
            assert_eq!(error.kind(), ErrorKind::Deserialize);
            assert!(!told(&error).contains("hunter2"), "{}", told(&error));
        }
    })
    .await;
    assert_eq!(site.rows().dump().await, before);
    assert_eq!(browser.get("/get/key").await.body, "\"hunter2\"");
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
async fn clear_keeps_the_reserved_key() {
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, async |session: Session| {
        session.insert("a", 1)?;
        session.set_expiry(Expiry::Idle(std::time::Duration::from_secs(60)))
    })
    .await;
    browser.get("/clear").await;
    assert_eq!(
        site.rows().document().await,
        json!({"_session": {"idle": 60.0}})
    );
    assert!((site.rows().seconds_left().await - 60.0).abs() < 1.0);
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
async fn nul_in_text_comes_back() {
    for text in ["\0", "a\0b", "\0\0\0"] {
        assert_eq!(round_trip(text.to_owned()).await, text);
    }
    let map = BTreeMap::from([("\0".to_owned(), "\0".to_owned())]);
    assert_eq!(round_trip(map.clone()).await, map);
}

#[tokio::test]
async fn any_text_comes_back() {
    for text in [
        "",
        "\u{10ffff}\u{1f350}\u{d7ff}\u{e000}\u{feff}\u{fffe}",
        "\"\\/\u{8}\u{c}\n\r\t\u{7f}\u{2028}",
        "'; DROP TABLE session; --",
        "$1 $doc$ {} \\u0000 \\ud800",
        "e\u{301}\u{202e}",
    ] {
        assert_eq!(round_trip(text.to_owned()).await, text);
    }
}

/// A Rust string has none, but JSON from elsewhere may.
#[tokio::test]
async fn a_lone_surrogate_comes_back_as_it_was_spelled() {
    for spelling in [r#""\ud800""#, r#"["\uDFFF\ud83c"]"#, r#""\ud83c\udf50""#] {
        let raw = RawValue::from_string(spelling.to_owned()).expect("JSON");
        assert_eq!(round_trip(raw).await.get(), spelling);
    }
}

#[tokio::test]
async fn numbers_come_back() {
    assert_eq!(round_trip(u64::MAX).await, u64::MAX);
    assert_eq!(round_trip(i64::MIN).await, i64::MIN);
    assert_eq!(round_trip(u128::MAX).await, u128::MAX);
    for float in [f64::MIN_POSITIVE, f64::MAX, -0.0, 0.1 + 0.2, 5e-324] {
        assert_eq!(round_trip(float).await.to_bits(), float.to_bits());
    }
}

#[tokio::test]
async fn a_megabyte_comes_back() {
    let text: String = ('a'..='z').cycle().take(1_000_000).collect();
    assert!(round_trip(text.clone()).await == text);
}

#[tokio::test]
async fn a_megabyte_is_saved_beside_small_sessions() {
    let site = Site::new().await;
    let mut visits = tokio::task::JoinSet::new();
    for n in 0..30 {
        let mut browser = site.browser();
        browser.get("/insert/a/1").await;
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
    const KEYS: [&str; 8] = [
        "",
        " ",
        "ключ",
        "\u{1f350}",
        "a\0b",
        "\"\\\n",
        "a.b[0]{c}",
        "__proto__",
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
async fn keys_that_look_alike_are_different() {
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, async |session: Session| {
        session.insert("\u{e9}", 1)?;
        session.insert("e\u{301}", 2)?;
        session.insert("E\u{301}", 3)
    })
    .await;
    visit(&site, &mut browser, async |session: Session| {
        assert_eq!(session.keys().len(), 3);
        assert_eq!(session.get("e\u{301}").expect("a number"), Some(2));
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

#[tokio::test]
async fn deep_values_of_rust_come_back() {
    let mut value = json!(1);
    for _ in 0..64 {
        value = json!([value]);
    }
    assert_eq!(round_trip(value.clone()).await, value);
}

/// Whatever a visitor writes is bound: keys, values, users, devices, cookies.
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
