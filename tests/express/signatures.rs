//! The signature in the cookie's value.

use serde_json::{Value, json};

use crate::support::{Browser, Server, Site, with_every_generation};

with_every_generation![
    known_signatures_open_a_session,
    secrets_are_rotated_on_either_side,
    a_cookie_without_a_valid_signature_opens_no_session,
    other_encodings_of_a_signed_value_open_a_session,
    a_cookie_that_is_no_signed_value_opens_no_session,
];

const SID: &str = "_KYE9W_e2dVrVIXyzCkc51UEsyguoON-";
/// Of [`SID`], by the secrets `keys` and `keykeys`.
const BY_FIRST_SECRET: &str = "h44i7VMTSLc/GhDdSA8OsnaQaLFeB72vCSeZgBOkgJg";
const BY_SECOND_SECRET: &str = "JtQm514ZEm57OSapjOM2fwmOW8nNiJLeMsfWMHk08ng";

/// A browser with this value in its cookie, and a session under [`SID`].
async fn browser_with(site: &Site, value: &str) -> Browser {
    let document = r#"{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"user":"ann"}"#;
    site.rows().insert(SID, document).await;
    let mut browser = Browser::new();
    browser.forge("connect.sid", value);
    browser
}

/// As `encodeURIComponent` writes it.
fn value_of(signature: &str) -> String {
    let signature = signature.replace('+', "%2B").replace('/', "%2F");
    format!("s%3A{SID}.{signature}")
}

async fn user(browser: &mut Browser, server: &Server) -> Value {
    let response = browser.visit(server, json!([])).await;
    response.session()["user"].clone()
}

async fn known_signatures_open_a_session(site: Site) {
    let (express, axum) = site.both().await;
    for server in [&express, &axum] {
        let mut browser = browser_with(&site, &value_of(BY_FIRST_SECRET)).await;
        let response = browser.visit(server, json!([])).await;
        assert_eq!(response.session()["user"], "ann");
        assert!(response.set_cookies().is_empty());
        let mut browser = browser_with(&site, &value_of(BY_SECOND_SECRET)).await;
        assert_eq!(user(&mut browser, server).await, "ann");
        assert_eq!(browser.sid(), SID);
    }
}

/// axum signs a cookie again that a later secret verified. Express does so only if it
/// sends the cookie for another reason.
async fn secrets_are_rotated_on_either_side(site: Site) {
    let old = site.express_with(json!({"secret": "old"})).await;
    let new = site.express_with(json!({"secret": ["new", "old"]})).await;
    let last = site.express_with(json!({"secret": "new"})).await;
    let old_axum = site.axum_with(site.format_with(&["old"]));
    let new_axum = site.axum_with(site.format_with(&["new", "old"]));
    let last_axum = site.axum_with(site.format_with(&["new"]));

    for (old, last) in [(&old, &last), (&old_axum, &last_axum)] {
        let mut browser = Browser::new();
        browser.visit(old, json!([["set", "user", "ann"]])).await;
        assert_eq!(user(&mut browser.clone(), last).await, Value::Null);
        for server in [&new, &new_axum] {
            assert_eq!(user(&mut browser.clone(), server).await, "ann");
        }
        assert_eq!(user(&mut browser, &new_axum).await, "ann");
        assert_eq!(user(&mut browser, last).await, "ann");
        assert_eq!(user(&mut browser.clone(), old).await, Value::Null);
    }

    let mut browser = Browser::new();
    browser.visit(&new, json!([["set", "user", "ann"]])).await;
    assert_eq!(user(&mut browser, &last_axum).await, "ann");
}

async fn a_cookie_without_a_valid_signature_opens_no_session(site: Site) {
    let (express, axum) = site.both().await;
    let tampered = format!("{}h", &BY_FIRST_SECRET[..42]);
    let mut other = Browser::new();
    other.visit(&express, json!([["set", "user", "bob"]])).await;
    let of_other = other.value("connect.sid").rsplit_once('.');
    let of_other = of_other.expect("a signature").1.to_owned();
    other.visit(&express, json!([["destroy"]])).await;
    for signature in [
        &tampered,
        &of_other,
        "short",
        "",
        &format!("{BY_FIRST_SECRET}="),
        &BY_FIRST_SECRET.replace('/', "_"),
    ] {
        let browser = browser_with(&site, &value_of(signature)).await;
        let before = site.rows().dump().await;
        for server in [&express, &axum] {
            let response = browser.peek(server, json!([])).await;
            assert_eq!(response.session()["user"], Value::Null, "{signature}");
        }
        assert_eq!(site.rows().dump().await, before);
    }
}

async fn other_encodings_of_a_signed_value_open_a_session(site: Site) {
    let (express, axum) = site.both().await;
    let plain = format!("s:{SID}.{BY_FIRST_SECRET}");
    let encoded = value_of(BY_FIRST_SECRET);
    for value in [
        plain.clone(),
        encoded.replace("%3A", "%3a").replace("%2F", "%2f"),
        encoded.replacen('s', "%73", 1),
        encoded.replacen('.', "%2E", 1),
        format!("\"{plain}\""),
        format!("\"{encoded}\""),
        format!(" {encoded} "),
    ] {
        let browser = browser_with(&site, &value).await;
        for server in [&express, &axum] {
            let response = browser.peek(server, json!([])).await;
            assert_eq!(response.session()["user"], "ann", "{value}");
        }
    }
}

async fn a_cookie_that_is_no_signed_value_opens_no_session(site: Site) {
    let (express, axum) = site.both().await;
    for value in [
        SID.to_owned(),
        format!("s%3A{SID}"),
        format!("{SID}.{BY_FIRST_SECRET}"),
        format!("S:{SID}.{BY_FIRST_SECRET}"),
        format!("j:{SID}.{BY_FIRST_SECRET}"),
        format!("{}%", value_of(BY_FIRST_SECRET)),
        format!("{}%zz", value_of(BY_FIRST_SECRET)),
        format!("%FF{}", value_of(BY_FIRST_SECRET)),
        "s%3A".to_owned(),
        "s%3A.".to_owned(),
        String::new(),
    ] {
        let browser = browser_with(&site, &value).await;
        for server in [&express, &axum] {
            let response = browser.peek(server, json!([])).await;
            assert_eq!(response.session()["user"], Value::Null, "{value}");
        }
    }
    assert_eq!(site.rows().document().await["user"], "ann");
}
