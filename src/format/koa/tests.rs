use http::header::COOKIE;

use super::*;
use crate::{CookiePriority, Expiry, SameSite, SessionId};

const SID: &str = "_KYE9W_e2dVrVIXyzCkc51UEsyguoON-";
/// 2026-11-23T08:48:45Z
const NOW: f64 = 1_795_423_725.0;

fn koa() -> Koa {
    Koa::new(["keys", "keykeys"])
}

fn raw(json: &str) -> Terms {
    let value = format!(r#"{{"cookie":{json}}}"#);
    stored(&value).terms()
}

fn issued(koa: &Koa, config: &CookieConfig, terms: Terms, line: Line) -> Vec<String> {
    let ticket = Ticket {
        token: Token::new(SID),
        life: Duration::from_secs(1),
        lifetime: None,
        now: NOW,
        terms,
    };
    texts(&koa.set(&ticket, config, line))
}

fn texts(cookies: &[HeaderValue]) -> Vec<String> {
    let texts = cookies.iter().map(|value| value.to_str().expect("ASCII"));
    texts.map(str::to_owned).collect()
}

fn issued_with(terms: &str) -> String {
    issued(&koa(), &CookieConfig::default(), raw(terms), Line::Unknown).remove(0)
}

/// The attributes of a cookie that is set with these settings.
fn encoded(terms: &str) -> String {
    issued_with(terms)
        .split_once("; ")
        .map_or_else(String::new, |(_, rest)| rest.to_owned())
}

fn cookies(headers: &[&[u8]]) -> HeaderMap {
    headers
        .iter()
        .map(|value| (COOKIE, HeaderValue::from_bytes(value).expect("a header")))
        .collect()
}

fn presented(koa: &Koa, headers: &[&[u8]]) -> RequestTokens {
    let cookies = Cookies::of(&cookies(headers));
    koa.presented(&cookies, &CookieConfig::default())
}

fn opens(koa: &Koa, header: &str) -> bool {
    let presented = presented(koa, &[header.as_bytes()]);
    presented.tokens == [Token::new(SID)]
}

#[test]
fn a_new_session_sets_the_two_cookies_of_koa() {
    let config = CookieConfig::default();
    let terms = koa().blank(&config, Line::Unknown).terms();
    assert_eq!(
        issued(&koa(), &config, terms, Line::Unknown),
        [
            "koa.sid=_KYE9W_e2dVrVIXyzCkc51UEsyguoON-; path=/; expires=Tue, 24 Nov 2026 08:48:45 GMT; httponly",
            "koa.sid.sig=Sl6TkLIYrjsXr0gID8WmG2uCFMg; path=/; expires=Tue, 24 Nov 2026 08:48:45 GMT; httponly",
        ]
    );
}

#[test]
fn without_signing_there_is_one_cookie() {
    let config = CookieConfig::default();
    let terms = Koa::unsigned().blank(&config, Line::Unknown).terms();
    let cookies = issued(&Koa::unsigned(), &config, terms, Line::Unknown);
    assert_eq!(cookies.len(), 1);
}

#[test]
fn removal_ends_both_cookies() {
    let removal = koa().removal(&None, &CookieConfig::default(), Line::Unknown);
    assert_eq!(
        texts(&removal),
        [
            "koa.sid=; path=/; expires=Thu, 01 Jan 1970 00:00:00 GMT; httponly",
            "koa.sid.sig=4Q4t-o__7Oasf7VtZqUFKLy4m7A; path=/; expires=Thu, 01 Jan 1970 00:00:00 GMT; httponly",
        ]
    );
}

#[test]
fn removal_has_the_attributes_that_the_cookie_was_set_with() {
    let terms = raw(r#"{"path":"/app","domain":"example.org","secure":true,"sameSite":"None"}"#);
    let removal = koa().removal(&terms, &CookieConfig::default(), Line::Unknown);
    for cookie in texts(&removal) {
        let attributes = "; path=/app; expires=Thu, 01 Jan 1970 00:00:00 GMT; \
                          domain=example.org; samesite=none; secure; httponly";
        assert!(cookie.ends_with(attributes), "{cookie}");
    }
}

#[test]
fn attributes_stand_in_koas_order_and_in_lower_case() {
    let all = r#"{"partitioned":true,"httpOnly":true,"secure":true,"sameSite":"LAX",
        "priority":"High","domain":"example.org","maxAge":1000,"path":"/app"}"#;
    assert_eq!(
        encoded(all),
        "path=/app; expires=Mon, 23 Nov 2026 08:48:46 GMT; domain=example.org; priority=high; \
         samesite=lax; secure; httponly; partitioned"
    );
}

#[test]
fn settings_are_read_by_the_rules_of_javascript() {
    assert_eq!(encoded("{}"), "path=/; httponly");
    assert_eq!(
        encoded(r#"{"sameSite":true}"#),
        "path=/; samesite=strict; httponly"
    );
    assert_eq!(encoded(r#"{"httpOnly":0,"secure":"no"}"#), "path=/; secure");
    assert_eq!(encoded(r#"{"path":null,"httpOnly":false}"#), "");
    assert_eq!(encoded(r#"{"maxAge":0}"#), "path=/; httponly");
    assert_eq!(
        encoded(r#"{"maxage":1000}"#),
        "path=/; expires=Mon, 23 Nov 2026 08:48:46 GMT; httponly"
    );
}

#[test]
fn a_cookie_ends_after_its_age_or_else_at_its_date() {
    let date = r#""expires":"2026-12-01T00:00:00.000Z""#;
    assert_eq!(
        encoded(&format!("{{{date}}}")),
        "path=/; expires=Tue, 01 Dec 2026 00:00:00 GMT; httponly"
    );
    assert_eq!(
        encoded(&format!(r#"{{{date},"maxAge":1000}}"#)),
        "path=/; expires=Mon, 23 Nov 2026 08:48:46 GMT; httponly"
    );
}

#[test]
fn no_setting_breaks_out_of_its_attribute() {
    let broken = r#"{"path":"/; domain=evil","domain":"a\r\nSet-Cookie: b","priority":"x; y",
        "sameSite":"x","expires":"never","maxAge":"soon"}"#;
    assert_eq!(encoded(broken), "httponly");
    assert_eq!(
        issued_with(r#"{"maxAge":1e300}"#)
            .matches("expires")
            .count(),
        1
    );
}

#[test]
fn a_cookie_is_secure_on_a_secure_line_by_default() {
    let config = CookieConfig::default();
    let secure = |terms: &str, line| {
        let cookies = issued(&koa(), &config, raw(terms), line);
        cookies.iter().all(|cookie| cookie.contains("; secure"))
    };
    assert!(secure("{}", Line::Encrypted));
    assert!(!secure("{}", Line::Unknown));
    assert!(!secure(r#"{"secure":false}"#, Line::Encrypted));
    assert!(secure(r#"{"secure":true}"#, Line::Unknown));
}

#[test]
fn the_word_of_a_proxy_counts_where_it_is_trusted() {
    let headers = |proto: &'static str| {
        let name = "x-forwarded-proto".parse().expect("a name");
        HeaderMap::<HeaderValue>::from_iter([(name, HeaderValue::from_static(proto))])
    };
    let uri = Uri::from_static("/");
    let trusting = koa().trust_proxy(true);
    assert_eq!(trusting.line(&uri, &headers("https")), Line::Encrypted);
    assert_eq!(
        trusting.line(&uri, &headers("https , http")),
        Line::Encrypted
    );
    assert_eq!(trusting.line(&uri, &headers("http, https")), Line::Unknown);
    assert_eq!(koa().line(&uri, &headers("https")), Line::Unknown);
    let direct = Uri::from_static("https://example.org/");
    assert_eq!(koa().line(&direct, &HeaderMap::new()), Line::Encrypted);
}

#[test]
fn a_signed_cookie_opens_and_another_does_not() {
    let pair = format!("koa.sid={SID}");
    let signed = |signature: &str| opens(&koa(), &format!("{pair}; koa.sid.sig={signature}"));
    assert!(signed("Sl6TkLIYrjsXr0gID8WmG2uCFMg"));
    assert!(signed("_XIp6MPd5io63mglwrmCFPGBNtI"));
    assert!(!signed("Sl6TkLIYrjsXr0gID8WmG2uCFMG"));
    assert!(!signed("4Q4t-o__7Oasf7VtZqUFKLy4m7A"));
    assert!(!signed(""));
    assert!(!opens(&koa(), &pair));
    assert!(opens(&Koa::unsigned(), &pair));
}

#[test]
fn a_signature_by_a_later_key_is_outdated() {
    let by = |signature: &str| {
        let header = format!("koa.sid={SID}; koa.sid.sig={signature}");
        presented(&koa(), &[header.as_bytes()]).is_outdated(&Token::new(SID))
    };
    assert!(!by("Sl6TkLIYrjsXr0gID8WmG2uCFMg"));
    assert!(by("_XIp6MPd5io63mglwrmCFPGBNtI"));
}

#[test]
fn cookies_are_found_as_koa_finds_them() {
    let unsigned = Koa::unsigned();
    let found = |headers: &[&[u8]]| presented(&unsigned, headers).tokens;
    let sid = |value: &str| vec![Token::new(value)];
    assert_eq!(found(&[b"koa.sid=a; koa.sid=b"]), sid("a"));
    assert_eq!(found(&[b"x=1", b"koa.sid=a"]), sid("a"));
    assert_eq!(found(&[b"x=1;   koa.sid=a"]), sid("a"));
    assert_eq!(found(&[b"koa.sid=\"a\""]), sid("a"));
    assert_eq!(found(&[b"x=\xff; koa.sid=a"]), sid("a"));
    assert_eq!(found(&[b"xkoa.sid=a"]), []);
    assert_eq!(found(&[b"koa_sid=a; KOA.SID=b; koa.sidx=c"]), []);
    assert_eq!(found(&[b"koa.sid=; koa.sid=b"]), []);
    assert_eq!(found(&[b"koa.sid=\""]), []);
    assert_eq!(found(&[b"koa.sid=a b"]), []);
    assert_eq!(found(&[b"koa.sid=\xff"]), []);
    assert_eq!(
        found(&[&[b"koa.sid=".as_slice(), &[b'a'; 256]].concat()]),
        []
    );
}

#[test]
fn the_application_s_choices_precede_the_defaults() {
    let text = |koa: &Koa, config: &CookieConfig| koa.blank(config, Line::Unknown).to_text();
    assert_eq!(
        text(&koa(), &CookieConfig::default()),
        r#"{"cookie":{"httpOnly":true,"path":"/","overwrite":true,"signed":true,"maxAge":86400000}}"#
    );
    let chosen = CookieConfig {
        path: Some("/app".into()),
        domain: Some("example.org".into()),
        same_site: Some(SameSite::Strict),
        secure: Some(true),
        priority: Some(CookiePriority::High),
        ..CookieConfig::default()
    };
    assert_eq!(
        text(&koa().max_age(Duration::from_secs(5)), &chosen),
        r#"{"cookie":{"path":"/app","domain":"example.org","priority":"high","sameSite":"strict","secure":true,"httpOnly":true,"overwrite":true,"signed":true,"maxAge":5000}}"#
    );
    let of_the_browser = CookieConfig {
        lifetime: Some(CookieLifetime::BrowserSession),
        ..CookieConfig::default()
    };
    assert!(text(&koa(), &of_the_browser).contains(r#""maxAge":null"#));
    assert!(text(&koa().max_age(None), &CookieConfig::default()).contains(r#""maxAge":null"#));
    assert!(text(&Koa::unsigned(), &CookieConfig::default()).contains(r#""signed":false"#));
}

fn stored(text: &str) -> Document {
    Document::parse(&KoaLayout, &text.into()).expect("an object")
}

#[test]
fn a_session_lives_as_its_settings_say() {
    let life = |text: &str| {
        let meta = stored(text).meta();
        (meta.idle, meta.until)
    };
    assert_eq!(life(r#"{"cookie":{"maxAge":5000}}"#), (Some(5.0), None));
    assert_eq!(life(r#"{"cookie":{"maxAge":null}}"#), (Some(2700.0), None));
    assert_eq!(life("{}"), (Some(2700.0), None));
    assert_eq!(life(r#"{"cookie":"x"}"#), (Some(2700.0), None));
    let date = r#"{"cookie":{"maxAge":5000,"expires":"2026-11-23T08:48:45.000Z"}}"#;
    assert_eq!(life(date), (None, Some(NOW)));
}

#[test]
fn the_reserved_member_of_this_crate_means_nothing_to_koa() {
    let meta = stored(r#"{"_session":{"successor":"x","idle":1},"cookie":{}}"#).meta();
    assert_eq!((meta.successor, meta.idle), (None, Some(2700.0)));
}

#[test]
fn an_expiry_is_remembered_in_koas_terms_and_leaves_the_rest() {
    let blank = koa().blank(&CookieConfig::default(), Line::Unknown);
    let mut document = stored(r#"{"z":1,"cookie":{"own":1e-400,"maxAge":1,"path":"/"},"a":2}"#);
    KoaLayout.remember(Expiry::Idle(Duration::from_secs(60)), &mut document, &blank);
    let idle = r#"{"z":1,"cookie":{"own":1e-400,"maxAge":60000,"path":"/"},"a":2}"#;
    assert_eq!(document.to_text(), idle);

    let at = time::OffsetDateTime::UNIX_EPOCH + Duration::from_millis(1500);
    KoaLayout.remember(Expiry::At(at), &mut document, &blank);
    assert_eq!(
        document.to_text(),
        r#"{"z":1,"cookie":{"own":1e-400,"maxAge":null,"path":"/","expires":"1970-01-01T00:00:01.500Z"},"a":2}"#
    );

    KoaLayout.remember(Expiry::Default, &mut document, &blank);
    let default = r#"{"z":1,"cookie":{"own":1e-400,"maxAge":86400000,"path":"/"},"a":2}"#;
    assert_eq!(document.to_text(), default);
}

#[test]
fn an_endless_expiry_is_still_a_number_of_javascript() {
    let blank = koa().blank(&CookieConfig::default(), Line::Unknown);
    let mut document = blank.clone();
    KoaLayout.remember(Expiry::Idle(Duration::MAX), &mut document, &blank);
    assert!(document.to_text().contains(r#""maxAge":4000000000000000"#));
}

#[test]
fn clear_keeps_the_cookie_which_is_none_of_the_applications_keys() {
    let mut document = stored(r#"{"a":1,"cookie":{"maxAge":5},"b":2}"#);
    assert_eq!(document.keys().collect::<Vec<_>>(), ["a", "b"]);
    document.clear();
    assert_eq!(document.to_text(), r#"{"cookie":{"maxAge":5}}"#);
    assert!(document.is_empty());
}

#[test]
fn a_token_is_24_random_bytes_under_the_prefix() {
    let token = koa().new_token().expect("random");
    assert_eq!(token.as_str().len(), 32);
    let id = koa().prefix("p:").row_id(&token, &Realm::default());
    assert_eq!(id.as_str(), format!("p:{}", token.as_str()));
    assert_ne!(koa().new_token().expect("random"), token);
}

#[test]
fn the_handle_opens_nothing_and_leads_to_the_row() {
    let id = koa().row_id(&Token::new(SID), &Realm::default());
    let handle = koa().handle(&id);
    assert!(!handle.as_str().contains(SID));
    assert_eq!(koa().row_of(&handle, &Realm::default()), Some(id));
    let from_text: SessionId = handle.as_str().parse().expect("a handle");
    assert_eq!(koa().row_of(&from_text, &Realm::default()), None);
}

#[test]
fn keys_that_sign_nothing_are_refused() {
    let config = CookieConfig::default();
    assert!(koa().check(&config).is_ok());
    assert!(Koa::unsigned().check(&config).is_ok());
    assert!(Koa::new([""; 0]).check(&config).is_err());
    assert!(Koa::new(["key", ""]).check(&config).is_err());
}

#[test]
fn contradictions_of_the_cookie_are_refused() {
    let insecure = CookieConfig {
        same_site: Some(SameSite::None),
        secure: Some(false),
        ..CookieConfig::default()
    };
    assert!(koa().check(&insecure).is_err());
    let nameless = CookieConfig {
        name: Some("a b".into()),
        ..CookieConfig::default()
    };
    assert!(koa().check(&nameless).is_err());
}

#[test]
fn keys_are_not_printed() {
    let printed = format!("{:?}", koa());
    assert!(!printed.contains("keykeys"), "{printed}");
}
