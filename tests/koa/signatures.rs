//! The cookie's signature, as Keygrip makes it.

use axum_pg_session::{KeygripDigest, Koa, PgSessionLayer};
use serde_json::{Value, json};

use crate::support::{Browser, Server, Site, page, with_both_generations};

with_both_generations![
    known_signatures_open_a_session,
    a_signature_by_a_later_key_is_made_anew,
    keys_are_rotated_on_either_side,
    without_its_signature_a_cookie_opens_nothing,
    with_a_wrong_signature_a_cookie_opens_nothing,
    both_sign_with_sha256,
    both_do_without_signatures,
];

const SID: &str = "_KYE9W_e2dVrVIXyzCkc51UEsyguoON-";
/// Of `koa.sid=SID` by the keys `keys` and `keykeys`.
const BY_FIRST_KEY: &str = "Sl6TkLIYrjsXr0gID8WmG2uCFMg";
const BY_SECOND_KEY: &str = "_XIp6MPd5io63mglwrmCFPGBNtI";
const BY_FIRST_KEY_SHA256: &str = "OUIyFVFt_5meCBb6jOXdbLx4scWTZ708HuY_PK_l_YM";

/// A browser with the session of [`SID`], signed like this.
async fn browser_with(site: &Site, signature: &str) -> Browser {
    let document = r#"{"cookie":{"httpOnly":true,"path":"/","overwrite":true,"signed":true,"maxAge":86400000},"user":"ann"}"#;
    let id = format!("koa:sess:{SID}");
    site.rows().insert(&id, document).await;
    let mut browser = Browser::new();
    browser.forge("koa.sid", SID);
    browser.forge("koa.sid.sig", signature);
    browser
}

fn axum_with(site: &Site, format: Koa) -> Server {
    page::server(PgSessionLayer::new(site.store_with(format)))
}

async fn user(browser: &mut Browser, server: &Server) -> Value {
    let response = browser.visit(server, json!([])).await;
    response.session()["user"].clone()
}

async fn known_signatures_open_a_session(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = browser_with(&site, BY_FIRST_KEY).await;
    for server in [&koa, &axum] {
        let response = browser.visit(server, json!([])).await;
        assert_eq!(response.session()["user"], "ann");
        assert!(response.set_cookies().is_empty());
    }
}

async fn a_signature_by_a_later_key_is_made_anew(site: Site) {
    let (koa, axum) = site.both().await;
    for server in [&koa, &axum] {
        let mut browser = browser_with(&site, BY_SECOND_KEY).await;
        let response = browser.visit(server, json!([])).await;
        assert_eq!(response.session()["user"], "ann");
        assert_eq!(browser.value("koa.sid.sig"), BY_FIRST_KEY);
        assert_eq!(browser.sid(), SID);
    }
}

async fn keys_are_rotated_on_either_side(site: Site) {
    let old_koa = site.koa_with(json!({"keys": ["old"]})).await;
    let new_koa = site.koa_with(json!({"keys": ["new", "old"]})).await;
    let last_koa = site.koa_with(json!({"keys": ["new"]})).await;
    let old_axum = axum_with(&site, Koa::new(["old"]));
    let new_axum = axum_with(&site, Koa::new(["new", "old"]));
    let last_axum = axum_with(&site, Koa::new(["new"]));
    for (old, new, last) in [
        (&old_koa, &new_axum, &last_koa),
        (&old_axum, &new_koa, &last_axum),
    ] {
        let mut browser = Browser::new();
        browser.visit(old, json!([["set", "user", "ann"]])).await;
        assert_eq!(user(&mut browser.clone(), last).await, Value::Null);
        assert_eq!(user(&mut browser, new).await, "ann");
        assert_eq!(user(&mut browser, last).await, "ann");
        assert_eq!(user(&mut browser.clone(), old).await, Value::Null);
    }
}

async fn without_its_signature_a_cookie_opens_nothing(site: Site) {
    let (koa, axum) = site.both().await;
    let mut browser = browser_with(&site, BY_FIRST_KEY).await;
    browser.jar.retain(|kept| kept.name != "koa.sid.sig");
    let before = site.rows().dump().await;
    for server in [&koa, &axum] {
        let response = browser.peek(server, json!([])).await;
        assert_eq!(response.session()["user"], Value::Null);
    }
    assert_eq!(site.rows().dump().await, before);
}

async fn with_a_wrong_signature_a_cookie_opens_nothing(site: Site) {
    let (koa, axum) = site.both().await;
    let mut other = Browser::new();
    other.visit(&koa, json!([["set", "user", "bob"]])).await;
    let of_other = other.value("koa.sid.sig").to_owned();
    other.visit(&koa, json!([["destroy"]])).await;
    let tampered = format!("{}x", &BY_FIRST_KEY[..26]);
    for wrong in [tampered, of_other, "short".into()] {
        for server in [&koa, &axum] {
            let browser = browser_with(&site, &wrong).await;
            let response = browser.peek(server, json!([])).await;
            assert_eq!(response.session()["user"], Value::Null);
        }
    }
    assert_eq!(site.rows().document().await["user"], "ann");
}

async fn both_sign_with_sha256(site: Site) {
    let koa = site.koa_with(json!({"algorithm": "sha256"})).await;
    let axum = axum_with(&site, Site::format().digest(KeygripDigest::Sha256));
    let mut browser = browser_with(&site, BY_FIRST_KEY_SHA256).await;
    for server in [&koa, &axum] {
        assert_eq!(user(&mut browser, server).await, "ann");
    }
    for (here, there) in [(&koa, &axum), (&axum, &koa)] {
        let mut browser = Browser::new();
        browser.visit(here, json!([["set", "user", "bob"]])).await;
        assert_eq!(browser.value("koa.sid.sig").len(), 43);
        assert_eq!(user(&mut browser, there).await, "bob");
    }
}

async fn both_do_without_signatures(site: Site) {
    let options = json!({"session": {"cookie": {"signed": false}}});
    let koa = site.koa_with(options).await;
    let axum = axum_with(&site, Koa::unsigned());
    for (here, there) in [(&koa, &axum), (&axum, &koa)] {
        let mut browser = Browser::new();
        browser.visit(here, json!([["set", "user", "bob"]])).await;
        assert!(browser.cookie("koa.sid.sig").is_none());
        let response = browser.visit(there, json!([["increment", "n"]])).await;
        assert_eq!(response.session()["user"], "bob");
        assert!(browser.cookie("koa.sid.sig").is_none());
    }
}
