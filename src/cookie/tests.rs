use std::time::Duration;

use cookie::SameSite;
use http::{
    HeaderMap, HeaderValue,
    header::{CACHE_CONTROL, COOKIE, VARY},
};

use super::*;
use crate::{
    ErrorKind,
    format::{Format as _, Native},
    id::Token,
    request_tokens::{Reading, RequestTokens, Signature},
};

fn token() -> Token {
    Native.new_token().expect("random")
}

fn headers(cookies: &[&[u8]]) -> HeaderMap {
    cookies
        .iter()
        .map(|value| (COOKIE, HeaderValue::from_bytes(value).expect("a header")))
        .collect()
}

fn found(cookies: &[&[u8]]) -> RequestTokens {
    let config = CookieConfig::default();
    presented(&Cookies::of(&headers(cookies)), "__Host-id", |value| {
        Native.read(value, &config)
    })
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().expect("ASCII")
}

fn refusal(config: &CookieConfig) -> ErrorKind {
    config.check(43).expect_err("a contradiction").kind()
}

#[test]
fn the_default_cookie_is_secure_and_host_prefixed() {
    let token = token();
    let cookie = CookieConfig::default().set(&token, Duration::from_secs(60), None);
    assert_eq!(
        text(&cookie),
        format!(
            "__Host-id={}; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age=60",
            token.as_str()
        )
    );
}

#[test]
fn the_name_loses_its_prefix_where_the_attributes_forbid_it() {
    let insecure = CookieConfig {
        secure: Some(false),
        ..CookieConfig::default()
    };
    assert_eq!(insecure.name(), "id");
    assert!(insecure.check(43).is_ok());
}

fn named_by(config: CookieConfig, realm: Option<&str>) -> CookieConfig {
    let mut config = config;
    let mark = "3fa9c1e2";
    let header = None;
    config.set_default_name(&NamedBy {
        mark,
        realm,
        header,
    });
    config
}

#[test]
fn on_this_machine_the_mark_follows_the_default_name() {
    let default = CookieConfig::default;
    let domain = CookieConfig {
        domain: Some("shop.localhost".into()),
        ..default()
    };
    let path = CookieConfig {
        path: Some("/shop".into()),
        ..default()
    };
    let digits = crate::id::short_digest("/shop");
    for (config, realm, expected) in [
        (default(), None, "__Host-id-3fa9c1e2".to_owned()),
        (
            default(),
            Some("admin"),
            "__Host-id-admin-3fa9c1e2".to_owned(),
        ),
        (domain, None, "id-3fa9c1e2".to_owned()),
        (path, None, format!("id-{digits}-3fa9c1e2")),
    ] {
        let config = named_by(config, realm);
        let local = config.on_this_machine("3fa9c1e2").expect("another name");
        assert_eq!(local.name(), expected);
        assert!(local.check(43).is_ok(), "{expected}");
        let named = |cookie: HeaderValue| text(&cookie).starts_with(&format!("{expected}="));
        assert!(named(local.set(&token(), Duration::from_secs(60), None)));
        assert!(named(local.removal()));
        // Its attributes are the same.
        let attributes = |config: &CookieConfig| {
            let removal = config.removal();
            text(&removal).split_once('=').expect("a pair").1.to_owned()
        };
        assert_eq!(attributes(&local), attributes(&config));
    }
}

#[test]
fn a_chosen_name_and_one_with_the_mark_are_the_same_on_this_machine() {
    let chosen = CookieConfig {
        name: Some("__Host-id".into()),
        ..CookieConfig::default()
    };
    let insecure = CookieConfig {
        secure: Some(false),
        ..CookieConfig::default()
    };
    for config in [chosen, insecure] {
        let config = named_by(config, None);
        assert!(
            config.on_this_machine("3fa9c1e2").is_none(),
            "{}",
            config.name()
        );
    }
    let koa = crate::Koa::unsigned();
    let config = CookieConfig::default();
    assert!(koa.on_this_machine(&config, "3fa9c1e2").is_none());
}

#[test]
fn a_signature_on_this_machine_covers_the_name_there() {
    let config = CookieConfig {
        signing: Some(crate::SigningKeys::new(["k".repeat(32)]).into()),
        ..CookieConfig::default()
    };
    let config = named_by(config, None);
    let local = config.on_this_machine("3fa9c1e2").expect("another name");
    let token = token();
    let signed = local.encode(&token);
    let read = |config: &CookieConfig| Native.read(signed.as_bytes(), config);
    assert_eq!(read(&local), Reading::Token(token, Signature::UpToDate));
    assert_eq!(read(&config), Reading::Forged);
}

#[test]
fn the_former_scope_of_this_machine_has_the_name_there() {
    let config = CookieConfig {
        domain: Some("shop.localhost".into()),
        former: vec![Scope {
            domain: Some("localhost".into()),
            path: "/".into(),
        }],
        ..CookieConfig::default()
    };
    let local = named_by(config, None).on_this_machine("3fa9c1e2");
    let local = local.expect("another name");
    assert!(local.check(43).is_ok());
    let former = local.former().next().expect("a former scope");
    assert_eq!(former.name(), "id-3fa9c1e2");
}

#[test]
fn the_name_on_this_machine_counts_for_the_size() {
    let config = CookieConfig {
        default_name: Some("n".repeat(4096 - 43)),
        ..CookieConfig::default()
    };
    assert!(config.check(43).is_ok());
    let local = config.on_this_machine("3fa9c1e2").expect("another name");
    assert_eq!(refusal(&local), ErrorKind::Setup);
}

#[test]
fn same_site_is_always_explicit() {
    for (same_site, attribute) in [
        (SameSite::Strict, "SameSite=Strict"),
        (SameSite::Lax, "SameSite=Lax"),
        (SameSite::None, "SameSite=None"),
    ] {
        let config = CookieConfig {
            same_site: Some(same_site),
            ..CookieConfig::default()
        };
        assert!(text(&config.removal()).contains(attribute));
        assert!(text(&config.set(&token(), Duration::ZERO, None)).contains(attribute));
    }
}

#[test]
fn a_browser_session_cookie_has_no_end() {
    let config = CookieConfig {
        lifetime: Some(CookieLifetime::BrowserSession),
        ..CookieConfig::default()
    };
    let cookie = config.set(&token(), Duration::from_secs(60), None);
    assert!(!text(&cookie).contains("Max-Age"));
    assert!(!text(&cookie).contains("Expires"));
}

#[test]
fn a_removal_cookie_mirrors_every_attribute() {
    let config = CookieConfig {
        name: Some("sid".into()),
        path: Some("/shop".into()),
        domain: Some("example.com".into()),
        ..CookieConfig::default()
    };
    assert_eq!(
        text(&config.removal()),
        "sid=; HttpOnly; SameSite=Lax; Secure; Path=/shop; Domain=example.com; \
         Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
    );
}

#[test]
fn a_host_prefix_with_a_domain_is_refused_at_set_up() {
    let config = CookieConfig {
        name: Some("__Host-id".into()),
        domain: Some("example.com".into()),
        ..CookieConfig::default()
    };
    assert_eq!(refusal(&config), ErrorKind::Setup);
}

#[test]
fn same_site_none_without_secure_is_refused() {
    let config = CookieConfig {
        same_site: Some(SameSite::None),
        secure: Some(false),
        ..CookieConfig::default()
    };
    assert_eq!(refusal(&config), ErrorKind::Setup);
}

#[test]
fn an_oversized_cookie_is_refused_at_set_up() {
    let long_name = CookieConfig {
        name: Some("n".repeat(4096 - 43 + 1)),
        ..CookieConfig::default()
    };
    let long_path = CookieConfig {
        path: Some(format!("/{}", "p".repeat(1024))),
        ..CookieConfig::default()
    };
    assert_eq!(refusal(&long_name), ErrorKind::Setup);
    assert_eq!(refusal(&long_path), ErrorKind::Setup);
}

#[test]
fn attributes_that_would_end_the_cookie_early_are_refused() {
    for path in ["", "relative", "/a;Domain=evil", "/a\r\nX: y"] {
        let config = CookieConfig {
            path: Some(path.into()),
            ..CookieConfig::default()
        };
        assert_eq!(refusal(&config), ErrorKind::Setup, "{path:?}");
    }
    for name in ["", "a b", "a=b", "a;b", "naïve"] {
        let config = CookieConfig {
            name: Some(name.into()),
            ..CookieConfig::default()
        };
        assert_eq!(refusal(&config), ErrorKind::Setup, "{name:?}");
    }
}

#[test]
fn the_token_is_found_among_other_cookies_and_in_any_header() {
    let token = token();
    let ours = format!("a=1;\t__Host-id={} ; b=2", token.as_str());
    let other_headers: &[&[u8]] = &[b"x=\xff\xfe", ours.as_bytes(), b"y=2"];
    assert_eq!(found(other_headers).tokens, [token]);
}

#[test]
fn a_lookalike_name_is_not_our_cookie() {
    let value = token().as_str().to_owned();
    for name in [
        "__host-id",
        "__HOST-id",
        "_Host-id",
        "__Host-idd",
        "x__Host-id",
        "%5F_Host-id",
        "__Host-id[]",
        "\u{a0}__Host-id",
        "__Host-id\u{a0}",
        "$__Host-id",
        "=__Host-id",
        "",
    ] {
        let pair = format!("{name}={value}");
        let presented = found(&[pair.as_bytes()]);
        assert!(!presented.named && presented.tokens.is_empty(), "{name:?}");
    }
}

#[test]
fn a_malformed_value_is_no_token() {
    let value = token().as_str().to_owned();
    for malformed in [
        String::new(),
        format!("\"{value}\""),
        format!("{value}A"),
        value[1..].to_owned(),
        format!("{}%41", &value[3..]),
        "\u{0}".to_owned() + &value[1..],
    ] {
        let Ok(header) = HeaderValue::from_str(&format!("__Host-id={malformed}")) else {
            continue;
        };
        let presented = presented(
            &Cookies::of(&HeaderMap::from_iter([(COOKIE, header)])),
            "__Host-id",
            |value| Native.read(value, &CookieConfig::default()),
        );
        assert!(
            !presented.named && presented.tokens.is_empty(),
            "{malformed:?}"
        );
    }
}

#[test]
fn duplicates_are_kept_each_once_and_at_most_four() {
    let tokens: Vec<_> = (0..6).map(|_| token()).collect();
    let all: Vec<_> = tokens
        .iter()
        .chain(&tokens)
        .map(|token| format!("__Host-id={}", token.as_str()))
        .collect();
    let presented = found(&[all.join("; ").as_bytes()]);
    assert_eq!(presented.tokens, tokens[..4]);
    assert!(presented.is_cut);
}

#[test]
fn thousands_of_pairs_hide_nothing() {
    let token = token();
    let crowd = "x=y; ".repeat(10_000);
    let header = format!("{crowd}__Host-id={}", token.as_str());
    assert_eq!(found(&[header.as_bytes()]).tokens, [token]);
}

fn cache_control_beside_our_cookie(own: Option<&'static str>) -> String {
    let mut headers = HeaderMap::new();
    if let Some(own) = own {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static(own));
    }
    attach(&mut headers, vec![HeaderValue::from_static("id=x")]);
    text(&headers[CACHE_CONTROL]).to_owned()
}

#[test]
fn a_response_with_our_cookie_is_kept_by_no_shared_cache() {
    assert_eq!(cache_control_beside_our_cookie(None), "no-store");
    for own in ["private", "no-store", "private, max-age=60"] {
        assert_eq!(cache_control_beside_our_cookie(Some(own)), own);
    }
    for own in [
        "public",
        "max-age=60",
        "s-maxage=9, private",
        "no-cache=\"Set-Cookie\"",
        "private=\"x\"",
    ] {
        assert_eq!(cache_control_beside_our_cookie(Some(own)), "no-store");
    }
}

#[test]
fn vary_names_the_cookie_once() {
    let mut headers = HeaderMap::new();
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    vary_by(&COOKIE, &mut headers);
    vary_by(&COOKIE, &mut headers);
    let all: Vec<_> = headers.get_all(VARY).iter().map(text).collect();
    assert_eq!(all, ["Accept-Encoding", "cookie"]);
}

#[test]
fn unread_cookies_print_as_redacted() {
    let cookies = Cookies::of(&headers(&[b"__Host-id=secret"]));
    assert_eq!(format!("{cookies:?}"), "Cookies(REDACTED)");
}
