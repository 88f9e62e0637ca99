use http::header::COOKIE;

use super::*;
use crate::{
    CookiePriority, Expiry, SameSite,
    expiry::ExpiryRules,
    format::express::settings::{passport_of, user_in},
};

const SID: &str = "_KYE9W_e2dVrVIXyzCkc51UEsyguoON-";
/// Signed with "new".
const VALUE: &str =
    "s%3A_KYE9W_e2dVrVIXyzCkc51UEsyguoON-.6nEMPyjRGgthsMwpNsVdUdHVOmdQGy3Rdzh5zNuFaS0";
/// Signed with "old".
const OLD_VALUE: &str =
    "s%3A_KYE9W_e2dVrVIXyzCkc51UEsyguoON-.l8VwfuxOB3laf3tnS14FFVNJcgKce1HJqYKrfwtXmUU";
/// 2026-11-23T08:48:45Z
const NOW: f64 = 1_795_423_725.0;
const HOUR: Duration = Duration::from_hours(1);

fn express() -> Express {
    Express::new(["new", "old"])
}

fn terms(cookie: &str) -> Terms {
    stored(&format!(r#"{{"cookie":{cookie}}}"#)).terms()
}

fn stored(text: &str) -> Document {
    Document::parse(&ExpressLayout, &text.into()).expect("an object")
}

fn blank(express: &Express, config: &CookieConfig) -> String {
    express.blank(config, Line::Unknown).to_text()
}

fn issued(cookie: &str) -> String {
    let ticket = Ticket {
        token: Token::new(SID),
        life: Duration::from_secs(1),
        lifetime: None,
        now: NOW,
        terms: terms(cookie),
    };
    text(&express().set(&ticket, &CookieConfig::default(), Line::Unknown))
}

fn text(cookies: &[HeaderValue]) -> String {
    let [cookie] = cookies else {
        panic!("{} cookies", cookies.len());
    };
    cookie.to_str().expect("ASCII").to_owned()
}

/// The attributes of a cookie that is set with these settings.
fn attributes(cookie: &str) -> String {
    let issued = issued(cookie);
    issued
        .strip_prefix(&format!("connect.sid={VALUE}"))
        .expect("the signed value")
        .to_owned()
}

fn presented(headers: &[&str]) -> RequestTokens {
    let headers: HeaderMap = headers
        .iter()
        .map(|value| (COOKIE, HeaderValue::from_str(value).expect("a header")))
        .collect();
    express().presented(&Cookies::of(&headers), &CookieConfig::default())
}

fn opens(header: &str) -> bool {
    presented(&[header]).tokens == [Token::new(SID)]
}

#[test]
fn a_token_is_encoded_and_signed_as_by_express() {
    let config = CookieConfig::default();
    let encoded = |sid| express().encode(&Token::new(sid), &config);
    assert_eq!(encoded(SID), VALUE);
    assert_eq!(
        encoded("a.b.c"),
        "s%3Aa.b.c.WafMxSpFNbLmIXyi7zwaRUAAl5j5X7RhdPlzdSnKWV4"
    );
    // JavaScript leaves these characters as they are.
    assert!(encoded("-_.!~*'()").starts_with("s%3A-_.!~*'()."));
    assert!(encoded("a+/=%\"").starts_with("s%3Aa%2B%2F%3D%25%22."));
    assert_eq!(express().new_token().expect("random").as_str().len(), 32);
}

#[test]
fn a_cookie_is_read_by_the_rules_of_express() {
    let raw = VALUE.replace("%3A", ":");
    for header in [
        format!("connect.sid={VALUE}"),
        format!("connect.sid={raw}"),
        format!("connect.sid=\"{VALUE}\""),
        format!("a=1;\t connect.sid \t= {VALUE} ; b=2"),
        format!("connect.sid={}", VALUE.replace('s', "%73")),
        // The first one counts.
        format!("connect.sid={VALUE}; connect.sid=other"),
    ] {
        assert!(opens(&header), "{header}");
    }
    for header in [
        format!("connect.sid={SID}"),
        format!("connect.sid=s:{SID}"),
        format!("connect.sid={VALUE}="),
        format!("connect.sid={VALUE}%"),
        format!("Connect.sid={VALUE}"),
        format!("connect.sid=other; connect.sid={VALUE}"),
        format!("connect.sid={}", VALUE.replace("_KYE", "_kye")),
        "connect.sid=s%3A.6nEMPyjRGgthsMwpNsVdUdHVOmdQGy3Rdzh5zNuFaS0".to_owned(),
        "connect.sid=".to_owned(),
        "connect.sid=%ff%3A".to_owned(),
    ] {
        assert!(!opens(&header), "{header}");
    }
    let two = [format!("connect.sid={VALUE}"), "connect.sid=other".into()];
    assert_eq!(presented(&[&two[0], &two[1]]).tokens.len(), 1);
    assert!(presented(&[&two[1], &two[0]]).tokens.is_empty());
}

#[test]
fn a_cookie_of_a_later_secret_is_signed_again() {
    let token = Token::new(SID);
    let by_first = presented(&[&format!("connect.sid={VALUE}")]);
    assert!(!by_first.is_outdated(&token));
    let by_second = presented(&[&format!("connect.sid={OLD_VALUE}")]);
    assert!(by_second.is_outdated(&token));
    let unknown = Express::new(["other"]).read(VALUE.as_bytes(), &CookieConfig::default());
    assert_eq!(unknown, Reading::Forged);
}

#[test]
fn an_id_with_dots_of_a_genid_is_read() {
    let config = CookieConfig::default();
    for sid in ["a.b.c", ".", "a+b/c=", "x%41\"y"] {
        let token = Token::new(sid);
        let encoded = express().encode(&token, &config);
        let read = express().read(encoded.as_bytes(), &config);
        assert_eq!(read, Reading::Token(token, Signature::UpToDate), "{sid}");
    }
    let long = "x".repeat(256);
    for sid in ["a b", "ü", "", &long] {
        let encoded = express().encode(&Token::new(sid), &config);
        let read = express().read(encoded.as_bytes(), &config);
        assert_eq!(read, Reading::Malformed, "{sid}");
    }
}

#[test]
fn the_attributes_have_the_order_and_the_names_of_express() {
    let all = r#"{"originalMaxAge":1000,"partitioned":true,"priority":"high","expires":null,
        "secure":true,"httpOnly":true,"domain":"example.org","path":"/app","sameSite":"lax"}"#;
    assert_eq!(
        attributes(all),
        "; Domain=example.org; Path=/app; Expires=Mon, 23 Nov 2026 08:48:46 GMT; HttpOnly; \
         Secure; Partitioned; Priority=High; SameSite=Lax"
    );
    assert_eq!(attributes("{}"), "; Path=/; HttpOnly");
    assert_eq!(
        attributes(r#"{"originalMaxAge":null,"expires":"2030-01-01T00:00:00.000Z"}"#),
        "; Path=/; HttpOnly"
    );
    assert_eq!(
        attributes(r#"{"originalMaxAge":false}"#),
        "; Path=/; HttpOnly"
    );
    assert_eq!(
        attributes(r#"{"sameSite":true,"httpOnly":0,"path":"/x; Domain=evil"}"#),
        "; SameSite=Strict"
    );
    assert_eq!(
        attributes(r#"{"secure":"auto","sameSite":"NONE"}"#),
        "; Path=/; HttpOnly; Secure; SameSite=None"
    );
    // A browser keeps a cookie for 400 days at most.
    assert!(attributes(r#"{"originalMaxAge":1e300}"#).contains("28 Dec 2027"));
    let removal = express().removal(
        &terms(r#"{"domain":"example.org","path":"/app","secure":true}"#),
        &CookieConfig::default(),
        Line::Unknown,
    );
    assert_eq!(
        text(&removal),
        "connect.sid=; Domain=example.org; Path=/app; Expires=Thu, 01 Jan 1970 00:00:00 GMT; \
         HttpOnly; Secure"
    );
}

#[test]
fn a_new_document_is_one_that_express_would_have_made() {
    let default = CookieConfig::default();
    assert_eq!(
        blank(&express(), &default),
        r#"{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}}"#
    );
    let config = CookieConfig {
        path: Some("/app".into()),
        domain: Some("example.org".into()),
        same_site: Some(SameSite::Strict),
        secure: Some(false),
        http_only: Some(false),
        priority: Some(CookiePriority::Low),
        partitioned: true,
        ..CookieConfig::default()
    };
    assert_eq!(
        blank(&express().max_age(HOUR), &config),
        concat!(
            r#"{"cookie":{"originalMaxAge":3600000,"partitioned":true,"priority":"low","#,
            r#""expires":null,"secure":false,"httpOnly":false,"domain":"example.org","#,
            r#""path":"/app","sameSite":"strict"}}"#
        )
    );
    let until_closed = CookieConfig {
        lifetime: Some(CookieLifetime::BrowserSession),
        ..CookieConfig::default()
    };
    assert_eq!(
        blank(&express().max_age(HOUR), &until_closed),
        blank(&express(), &default)
    );
}

#[test]
fn secure_auto_is_decided_by_the_connection_of_the_first_request() {
    let auto = express().secure_auto();
    let config = CookieConfig::default();
    for (line, secure) in [(Line::Encrypted, "true"), (Line::Unknown, "false")] {
        let blank = auto.blank(&config, line).to_text();
        assert!(blank.contains(&format!(r#""secure":{secure}"#)), "{blank}");
        assert!(!express().blank(&config, line).to_text().contains("secure"));
    }
    let chosen = CookieConfig {
        secure: Some(true),
        ..CookieConfig::default()
    };
    let blank = auto.blank(&chosen, Line::Unknown).to_text();
    assert!(blank.contains(r#""secure":true"#), "{blank}");
}

#[test]
fn only_a_trusted_proxy_decides_about_the_connection() {
    let line = |express: &Express, uri: &'static str, proto: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-proto", HeaderValue::from_static(proto));
        express.line(&Uri::from_static(uri), &headers)
    };
    let trusting = express().trust_proxy(true);
    for (express, uri, proto, expected) in [
        (&express(), "/", "https", Line::Unknown),
        (&express(), "https://a.test/", "http", Line::Encrypted),
        (&trusting, "/", "HTTPS , http", Line::Encrypted),
        (&trusting, "/", "http, https", Line::Unknown),
    ] {
        assert_eq!(line(express, uri, proto), expected, "{uri} {proto}");
    }
}

#[test]
fn the_lifetime_is_the_original_max_age_whatever_expires_says() {
    let meta = |cookie: &str| stored(&format!(r#"{{"cookie":{cookie}}}"#)).meta();
    let with = meta(r#"{"originalMaxAge":90000,"expires":"2000-01-01T00:00:00.000Z"}"#);
    assert_eq!((with.idle, with.until), (Some(90.0), None));
    assert_eq!(with.rules, ExpiryRules::Foreign);
    for without in [
        r#"{"originalMaxAge":null}"#,
        "{}",
        r#"{"originalMaxAge":false}"#,
        "7",
    ] {
        assert_eq!((meta(without).idle, meta(without).until), (None, None));
    }
    assert_eq!(express().ttl(HOUR).idle_timeout(), Some(HOUR));
}

#[test]
fn an_expiry_is_stored_as_the_original_max_age() {
    let layout = &ExpressLayout;
    let blank = express()
        .max_age(HOUR)
        .blank(&CookieConfig::default(), Line::Unknown);
    let mut document =
        stored(r#"{"cookie":{"originalMaxAge":1,"expires":"2000","path":"/x"},"a":1}"#);
    layout.remember(Expiry::Idle(2 * HOUR), &mut document, &blank);
    assert_eq!(
        document.to_text(),
        r#"{"cookie":{"originalMaxAge":7200000,"expires":null,"path":"/x"},"a":1}"#
    );
    layout.remember(Expiry::Default, &mut document, &blank);
    assert!(document.to_text().contains(r#""originalMaxAge":3600000"#));
    let end = time::OffsetDateTime::UNIX_EPOCH;
    for refused in [
        Expiry::At(end),
        Expiry::Timeouts {
            idle: HOUR,
            absolute: HOUR,
        },
    ] {
        let error = layout.check(refused).expect_err("Express can't store it");
        assert_eq!(error.kind(), ErrorKind::Setup);
    }
}

#[test]
fn the_longest_lifetime_ends_before_the_year_10000() {
    let config = CookieConfig::default();
    let blank = express().max_age(Duration::MAX);
    let mut document = blank.blank(&config, Line::Unknown);
    let of_1000_years = Some(31_536_000_000.0);
    assert_eq!(document.meta().idle, of_1000_years);
    let idle = Expiry::Idle(Duration::MAX);
    ExpressLayout.remember(
        idle,
        &mut document,
        &express().blank(&config, Line::Unknown),
    );
    assert_eq!(document.meta().idle, of_1000_years);
}

#[test]
fn a_cookie_can_be_kept_or_dropped_when_the_browser_closes() {
    let layout = &ExpressLayout;
    let set = |document: &mut Document, lifetime, blank: &Document| {
        layout.remember_cookie_lifetime(lifetime, document, blank);
        document.meta().idle
    };
    let config = CookieConfig::default();
    let blank = express().max_age(HOUR).blank(&config, Line::Unknown);
    let without = express().blank(&config, Line::Unknown);
    let mut document = blank.clone();
    let browser = Some(CookieLifetime::BrowserSession);
    let persistent = Some(CookieLifetime::Persistent);
    assert_eq!(set(&mut document, browser, &blank), None);
    assert_eq!(set(&mut document, persistent, &blank), Some(3600.0));
    layout.remember(Expiry::Idle(2 * HOUR), &mut document, &blank);
    assert_eq!(set(&mut document, persistent, &blank), Some(7200.0));
    assert_eq!(set(&mut document, None, &without), None);
    assert_eq!(set(&mut document, persistent, &without), Some(86_400.0));
}

#[test]
fn names_that_express_drops_are_refused() {
    for name in [
        "id",
        "req",
        "save",
        "toString",
        "__proto__",
        "constructor",
        "passport",
    ] {
        let error = ExpressLayout.check_key(name).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::ReservedKey);
    }
    for name in ["ID", "user", "toJSON", "maxAge"] {
        assert!(ExpressLayout.check_key(name).is_ok(), "{name}");
    }
}

#[test]
fn the_user_is_written_as_passport_does_and_a_value_of_the_same_user_stays() {
    let value = |stored: Option<&str>, user| {
        let document =
            stored.map(|passport| self::stored(&format!(r#"{{"passport":{passport}}}"#)));
        let passport = document
            .as_ref()
            .and_then(|document| document.get("passport"));
        passport_of(passport, user).get().to_owned()
    };
    assert_eq!(value(None, "ada"), r#"{"user":"ada"}"#);
    assert_eq!(value(Some(r#"{"user":"bob"}"#), "ada"), r#"{"user":"ada"}"#);
    let object = r#"{"id":42}"#;
    for (kept, user) in [
        (r#"{"user":42}"#, "42"),
        (r#"{"user":"42"}"#, "42"),
        (r#"{"user":{"id":42}}"#, object),
    ] {
        assert_eq!(value(Some(kept), user), kept);
    }
    let long = format!(r#"{{"user":"{}"}}"#, "x".repeat(2000));
    let user_of = |passport: &str| {
        let document = self::stored(&format!(r#"{{"passport":{passport}}}"#));
        user_in(document.get("passport")?)
    };
    let digest = user_of(&long).expect("a user");
    assert_eq!(digest.len(), "sha256:".len() + 64);
    assert_eq!(value(Some(&long), &digest), long);
    for none in [
        r#"{"user":null}"#,
        r#"{"user":false}"#,
        r#"{"user":""}"#,
        "{}",
        "7",
    ] {
        assert_eq!(user_of(none), None, "{none}");
    }
    let mut document = stored(r#"{"cookie":{},"passport":{"user":"ada"},"cart":1}"#);
    document.clear();
    assert_eq!(
        document.to_text(),
        r#"{"cookie":{},"passport":{"user":"ada"}}"#
    );
}

#[test]
fn a_contradiction_is_refused() {
    let default = CookieConfig::default();
    assert!(express().check(&default).is_ok());
    let none: [&str; 0] = [];
    for express in [
        Express::new(none),
        Express::new([""]),
        Express::new(["a", ""]),
    ] {
        assert!(express.check(&default).is_err());
    }
    let realm = Realm {
        name: Some("admin".into()),
        cookie_name: "connect.sid".into(),
    };
    assert!(express().check_realm(&realm).is_err());
    let name = CookieConfig {
        name: Some("a b".into()),
        ..CookieConfig::default()
    };
    assert!(express().check(&name).is_err());
    let path = CookieConfig {
        path: Some("no slash".into()),
        ..CookieConfig::default()
    };
    assert!(express().check(&path).is_err());
}

#[test]
fn secrets_are_never_printed() {
    assert!(!format!("{:?}", Express::new(["secret"])).contains("\"secret\""));
}
