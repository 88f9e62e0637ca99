//! Every value that a session can hold is loaded as it was stored, or refused.

use serde_json::{Value, json};

use super::{
    begun, record, session,
    support::site,
    tower_sessions::{SessionStore, session_store::Error},
};

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

#[tokio::test]
async fn values_are_loaded_exactly_as_they_were_stored() {
    let site = site().await;
    let values = [
        ("u64", json!(u64::MAX)),
        ("i64", json!(i64::MIN)),
        ("beyond_53_bits", json!(9_007_199_254_740_993_u64)),
        (
            "floats",
            json!([0.1, -0.0, 1.0, 1e300, 5e-324, f64::MAX, 0.1 + 0.2]),
        ),
        (
            "nested",
            json!({"a": [{"b": null}, [], {}, [[true]]], "": {"": ""}}),
        ),
        ("deep", nested(120)),
        ("text", json!("ä 漢 🦀 \u{202e} \" \\ / \n \u{7f} \u{feff}")),
        ("null", Value::Null),
        ("", json!("an empty key")),
        ("schlüssel \" \\ \n", json!(1)),
        ("_session", json!({"idle": 1.0, "successor": "elsewhere"})),
        ("__session", json!(2)),
        ("session", json!(3)),
    ];
    for column in ["json", "jsonb"] {
        if column == "jsonb" {
            site.execute("ALTER TABLE session ALTER session TYPE jsonb")
                .await;
        }
        let sessions = site.sessions();
        let id = begun(&sessions, &values).await;
        for turn in 0..2 {
            let loaded = session(&sessions, Some(id));
            for (key, value) in &values {
                let found = loaded.get_value(key).await.expect("a load");
                assert_eq!(found.as_ref(), Some(value), "{key:?} in {column}");
            }
            loaded.insert("turn", turn).await.expect("a value");
            loaded.save().await.expect("a save");
        }
        let loaded = session(&sessions, Some(id));
        assert_eq!(loaded.get("turn").await.expect("a load"), Some(1));
    }
}

#[tokio::test]
async fn nul_is_stored_as_json_and_refused_by_jsonb_without_a_loss() {
    let site = site().await;
    let nul = json!({"text": "a\u{0}b"});
    let id = begun(
        &site.sessions(),
        &[("kept", json!(1)), ("nul", nul.clone())],
    )
    .await;
    let loaded = session(&site.sessions(), Some(id));
    assert_eq!(
        loaded.get_value("nul").await.expect("a load"),
        Some(nul.clone())
    );

    site.execute("DELETE FROM session; ALTER TABLE session ALTER session TYPE jsonb")
        .await;
    let sessions = site.sessions();
    let id = begun(&sessions, &[("kept", json!(1))]).await;
    let refused = session(&sessions, Some(id));
    refused.insert("nul", nul.clone()).await.expect("a load");
    let error = refused.save().await.expect_err("jsonb has no U+0000");
    assert!(error.to_string().contains("Unicode"), "{error}");
    let loaded = session(&sessions, Some(id));
    assert_eq!(loaded.get("kept").await.expect("a load"), Some(1));
    let mut new = record(&[("nul", nul)]);
    SessionStore::create(&sessions, &mut new)
        .await
        .expect_err("jsonb has no U+0000");
}

/// serde_json could not read it again, and the session would be an error for ever.
#[tokio::test]
async fn a_value_that_is_too_deep_to_be_read_is_refused() {
    let site = site().await;
    let sessions = site.sessions();
    let id = begun(&sessions, &[("kept", nested(126))]).await;
    let mut loaded = SessionStore::load(&sessions, &id)
        .await
        .expect("a load")
        .expect("a session");
    assert_eq!(loaded.data["kept"], nested(126));
    loaded.data.insert("deep".to_owned(), nested(127));
    let error = SessionStore::save(&sessions, &loaded)
        .await
        .expect_err("too deep");
    assert!(
        matches!(&error, Error::Encode(text) if text.contains("\"deep\"")),
        "{error}"
    );
    let mut new = record(&[("deep", nested(127))]);
    SessionStore::create(&sessions, &mut new)
        .await
        .expect_err("too deep");
    assert!(
        SessionStore::load(&sessions, &id)
            .await
            .expect("a load")
            .is_some()
    );
    assert_eq!(site.rows().await, 1);
}

#[tokio::test]
async fn a_row_that_is_no_object_is_an_error_that_quotes_no_value() {
    let site = site().await;
    let sessions = site.sessions();
    let id = begun(&sessions, &[("a", json!(1))]).await;
    for damaged in [
        r#"UPDATE session SET session = '["secret"]'"#,
        r#"UPDATE session SET session = '"secret"'"#,
        r#"UPDATE session SET session = '{"a":"secret\ud800"}'"#,
    ] {
        site.execute(damaged).await;
        let error = SessionStore::load(&sessions, &id).await.expect_err(damaged);
        assert!(matches!(&error, Error::Decode(_)), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    SessionStore::delete(&sessions, &id)
        .await
        .expect("a deletion");
    assert_eq!(site.rows().await, 0);
}

#[tokio::test]
async fn a_session_of_a_megabyte_is_kept() {
    let site = site().await;
    let sessions = site.sessions();
    let text = "x".repeat(2 << 20);
    let id = begun(&sessions, &[("text", json!(text))]).await;
    let loaded = session(&sessions, Some(id));
    loaded.insert("more", text.clone()).await.expect("a load");
    loaded.save().await.expect("a save");
    let loaded = session(&sessions, Some(id));
    assert_eq!(loaded.get("more").await.expect("a load"), Some(text));
}
