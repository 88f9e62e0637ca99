//! Cookies as input: malformed, unknown, duplicate and planted ones, through the whole stack.

use axum::{
    body::Body,
    http::{HeaderValue, Request, header},
};
use axum_pg_session::{Counters, SigningKeys};
use sqlx::AssertSqlSafe;

use crate::support::{Browser, Reply, Site, app, browser::send, texts};

const NAME: &str = "__Host-id";
/// Well-formed, and unknown.
const UNKNOWN: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// Visits with these `Cookie` headers, byte by byte.
async fn visit(site: &Site, path: &str, cookies: &[&[u8]]) -> Reply {
    let mut request = Request::get(path).body(Body::empty()).expect("a request");
    for value in cookies {
        let value = HeaderValue::from_bytes(value).expect("what a server lets through");
        request.headers_mut().append(header::COOKIE, value);
    }
    send(site.app(), request).await
}

fn pair(value: &[u8]) -> Vec<u8> {
    [NAME.as_bytes(), b"=", value].concat()
}

/// The id under which a row would stand if the token were adopted.
async fn row_id(site: &Site, token: &str) -> String {
    let digest = format!("sha256('__Host-id={token}')");
    let sql = format!("SELECT translate(encode({digest}, 'base64'), '+/=', '-_')");
    texts(&site.pool, &sql).await.remove(0)
}

async fn has_row(site: &Site, id: &str) -> bool {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM session WHERE id = $1)")
        .bind(id)
        .fetch_one(&site.pool)
        .await
        .expect("a response")
}

/// The visitor reads nothing and keeps the cookie; what they insert begins a
/// session with a new token.
async fn assert_opens_nothing(site: &Site, cookies: &[&[u8]]) {
    let before = site.rows().dump().await;
    let looked = visit(site, "/keys", cookies).await;
    looked.assert(200, "");
    assert!(looked.sets_no_cookie());
    assert_eq!(site.rows().dump().await, before);

    let begun = visit(site, "/insert/b/2", cookies).await;
    assert_eq!(begun.status, 200);
    let token = begun.token().expect("a new session");
    let presented = cookies.concat();
    let is_presented = presented
        .windows(token.len())
        .any(|w| w == token.as_bytes());
    assert!(!is_presented, "a fresh token");
    let after = site.rows().dump().await;
    assert_eq!(after.len(), before.len() + 1);
    assert!(before.iter().all(|row| after.contains(row)), "others stay");
}

#[tokio::test]
async fn a_malformed_token_is_no_session() {
    let site = Site::new().await;
    let longer = format!("{UNKNOWN}A");
    let long = UNKNOWN.repeat(200);
    for value in [
        b"x".as_slice(),
        b"deleted",
        b"null",
        b"undefined",
        &UNKNOWN.as_bytes()[1..],
        longer.as_bytes(),
        &[b'+'; 43],
        &[b'='; 43],
        // The last character has bits that belong to no byte.
        &[b'B'; 43],
        b"../../etc/passwd",
        b"' OR true --",
        b"{\"$ne\":null}",
        b"s%3Aabc.def",
        // Too long.
        &[b'A'; 8 * 1024],
        long.as_bytes(),
        // Not UTF-8.
        &[0xff; 43],
        b"\xc3\x28",
        &[0x80; 8192],
        // U+0000 in several encodings.
        b"%00",
        b"\\0",
        b"\\u0000",
        b"\xc0\x80",
    ] {
        assert_opens_nothing(&site, &[&pair(value)]).await;
    }
}

#[tokio::test]
async fn an_empty_cookie_is_no_session() {
    let site = Site::new().await;
    for value in [b"".as_slice(), b" ", b"\t", b"\"\"", b"="] {
        assert_opens_nothing(&site, &[&pair(value)]).await;
    }
}

/// A live token in every encoding but its own.
#[tokio::test]
async fn a_live_token_in_another_encoding_is_no_session() {
    let site = Site::new().await;
    let token = site.visitor().await.token().to_owned();
    let percent: String = token.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for value in [
        format!("\"{token}\""),
        percent,
        format!("{token}="),
        format!("{token},"),
        format!("{token} x"),
        format!("{token}\u{a0}"),
        token.replace(['-', '_'], "+") + "=",
        token.chars().rev().collect(),
    ] {
        assert_opens_nothing(&site, &[&pair(value.as_bytes())]).await;
    }
}

#[tokio::test]
async fn blanks_around_a_token_do_no_harm() {
    let site = Site::new().await;
    let token = site.visitor().await.token().to_owned();
    let cookies = format!("a=b ;\t{NAME}={token}\t; c=d");
    let response = visit(&site, "/get/a", &[cookies.as_bytes()]).await;
    assert_eq!(response.body, "\"1\"");
}

#[tokio::test]
async fn a_bad_cookie_changes_nothing_if_the_session_is_not_used() {
    let site = Site::without_table().await;
    for value in [b"".as_slice(), b"x", &[0xff; 43], UNKNOWN.as_bytes()] {
        let response = visit(&site, "/plain", &[&pair(value)]).await;
        assert_eq!(response.status, 200);
        assert!(response.sets_no_cookie() && !response.headers.contains_key("vary"));
    }
}

#[tokio::test]
async fn no_removal_cookie_is_sent_to_a_visitor_without_a_cookie() {
    let site = Site::new().await;
    for cookies in [&[][..], &[b"".as_slice()], &[b"other=1"], &[b"; ;=;"]] {
        assert!(visit(&site, "/keys", cookies).await.sets_no_cookie());
    }
}

#[tokio::test]
async fn a_session_is_found_among_thousands_of_cookies() {
    let site = Site::new().await;
    let token = site.visitor().await.token().to_owned();
    let others: String = (0..5000).map(|n| format!("c{n}=v; ")).collect();
    let cookies = format!("{others}{NAME}={token}; {others}");
    let response = visit(&site, "/get/a", &[cookies.as_bytes()]).await;
    assert_eq!(response.body, "\"1\"");
    assert!(response.sets_no_cookie());
}

#[tokio::test]
async fn thousands_of_malformed_pairs_hide_no_session() {
    let site = Site::new().await;
    let token = site.visitor().await.token().to_owned();
    let bad = format!("{NAME}=bad; ").repeat(3000);
    let cookies = format!("{bad}{NAME}={token}; {bad}");
    let response = visit(&site, "/get/a", &[cookies.as_bytes()]).await;
    assert_eq!(response.body, "\"1\"");
    assert_opens_nothing(&site, &[bad.as_bytes()]).await;
}

#[tokio::test]
async fn all_cookie_headers_count_as_one() {
    let site = Site::new().await;
    let token = site.visitor().await.token().to_owned();
    let ours = pair(token.as_bytes());
    for cookies in [
        [b"a=b".as_slice(), &ours, b"c=d"],
        [&ours, b"\xff\xfe=\x80", b""],
        [b";;;", b"=", &ours],
    ] {
        assert_eq!(visit(&site, "/get/a", &cookies).await.body, "\"1\"");
    }
}

/// A name split over two headers is no name.
#[tokio::test]
async fn a_pair_does_not_span_two_headers() {
    let site = Site::new().await;
    let token = site.visitor().await.token().to_owned();
    let half = format!("id={token}");
    let response = visit(&site, "/get/a", &[b"__Host-", half.as_bytes()]).await;
    assert_eq!(response.body, "none");
    assert!(response.sets_no_cookie());
}

#[tokio::test]
async fn a_name_that_looks_like_ours_is_another_cookie() {
    let site = Site::new().await;
    let token = site.visitor().await.token().to_owned();
    for name in [
        "__host-id",
        "__HOST-ID",
        "__Host-id2",
        "x__Host-id",
        "__Host-i",
        "__Secure-id",
        "id",
        "%5F%5FHost-id",
        "__Host%2Did",
        "__Host-id[]",
        "__Host-id.",
        "\"__Host-id\"",
        "$__Host-id",
        "__Host\u{2011}id",
        "\u{a0}__Host-id",
        "__Host-id\u{feff}",
        "x=__Host-id",
        "=__Host-id",
    ] {
        let cookies = format!("{name}={token}");
        let response = visit(&site, "/get/a", &[cookies.as_bytes()]).await;
        assert_eq!(response.body, "none", "{name}");
        assert!(response.sets_no_cookie(), "{name}");
    }
}

#[tokio::test]
async fn no_unknown_token_is_adopted() {
    let site = Site::new().await;
    let id = row_id(&site, UNKNOWN).await;
    assert_opens_nothing(&site, &[&pair(UNKNOWN.as_bytes())]).await;
    assert!(!has_row(&site, &id).await);
    for path in ["/cycle", "/destroy", "/clear", "/increment/n"] {
        let response = visit(&site, path, &[&pair(UNKNOWN.as_bytes())]).await;
        assert_eq!(response.status, 200, "{path}");
        assert_ne!(response.token().as_deref(), Some(UNKNOWN), "{path}");
        assert!(!has_row(&site, &id).await, "{path}");
    }
}

/// What this file calls the id of a token is the one that the table holds.
#[tokio::test]
async fn the_table_holds_digests_only() {
    let site = Site::new().await;
    let token = site.visitor().await.token().to_owned();
    assert!(has_row(&site, &row_id(&site, &token).await).await);
    assert!(!site.rows().dump().await.concat().contains(&token));
}

#[tokio::test]
async fn the_token_of_an_ended_session_is_not_adopted() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    let token = browser.token().to_owned();
    browser.get("/destroy").await;
    assert_opens_nothing(&site, &[&pair(token.as_bytes())]).await;
    let id = row_id(&site, &token).await;
    assert!(!has_row(&site, &id).await);
}

#[tokio::test]
async fn the_token_of_an_expired_session_is_not_adopted() {
    let site = Site::new().await;
    let token = site.visitor().await.token().to_owned();
    site.rows().age(90_000.0).await;
    assert_opens_nothing(&site, &[&pair(token.as_bytes())]).await;
}

async fn assert_reads(site: &Site, tokens: &[&str]) {
    let pairs: Vec<_> = tokens.iter().map(|token| pair(token.as_bytes())).collect();
    let one_header = pairs.join(b"; ".as_slice());
    let headers: Vec<_> = pairs.iter().map(Vec::as_slice).collect();
    for cookies in [&[one_header.as_slice()], headers.as_slice()] {
        let response = visit(site, "/get/a", cookies).await;
        assert_eq!(response.body, "\"1\"");
        assert!(response.sets_no_cookie());
    }
    let response = visit(site, "/increment/n", &[&one_header]).await;
    assert_eq!(response.status, 200);
    assert!(response.sets_no_cookie());
}

#[tokio::test]
async fn a_planted_duplicate_neither_shadows_nor_ends_the_session() {
    let site = Site::new().await;
    let live = site.visitor().await.token().to_owned();
    for planted in [UNKNOWN, "bad", ""] {
        assert_reads(&site, &[planted, &live]).await;
        assert_reads(&site, &[&live, planted]).await;
        assert_reads(&site, &[planted, &live, planted]).await;
    }
    assert_eq!(site.rows().count().await, 1);
}

#[tokio::test]
async fn the_same_token_twice_is_one_session() {
    let site = Site::new().await;
    let live = site.visitor().await.token().to_owned();
    assert_reads(&site, &[&live, &live]).await;
    assert_reads(&site, &[live.as_str(); 50]).await;
}

#[tokio::test]
async fn an_ended_duplicate_does_not_end_the_live_session() {
    let site = Site::new().await;
    let (mut ended, live) = (site.visitor().await, site.visitor().await);
    let dead = ended.token().to_owned();
    ended.get("/destroy").await;
    assert_reads(&site, &[&dead, live.token()]).await;
    assert_reads(&site, &[live.token(), &dead]).await;
}

#[tokio::test]
async fn a_replaced_duplicate_does_not_shadow_its_successor() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    let old = browser.token().to_owned();
    browser.get("/cycle").await;
    assert_reads(&site, &[&old, browser.token()]).await;
    assert_reads(&site, &[browser.token(), &old]).await;
}

fn unknown_token(n: u8) -> String {
    let letter = char::from(b'a' + n);
    format!("{}A", letter.to_string().repeat(42))
}

fn header_with(tokens: &[String]) -> Vec<u8> {
    let pairs: Vec<_> = tokens.iter().map(|token| pair(token.as_bytes())).collect();
    pairs.join(b"; ".as_slice())
}

#[tokio::test]
async fn a_few_planted_duplicates_do_not_shadow_the_session() {
    let site = Site::new().await;
    let mut tokens: Vec<_> = (0..3).map(unknown_token).collect();
    tokens.push(site.visitor().await.token().to_owned());
    let response = visit(&site, "/get/a", &[&header_with(&tokens)]).await;
    assert_eq!(response.body, "\"1\"");
    assert!(response.sets_no_cookie());
}

/// More than are looked up: the live one may be among the others.
#[tokio::test]
async fn many_planted_duplicates_do_not_end_the_session() {
    let site = Site::new().await;
    let mut tokens: Vec<_> = (0..20).map(unknown_token).collect();
    tokens.push(site.visitor().await.token().to_owned());
    let before = site.rows().dump().await;
    for (path, status) in [("/keys", 200), ("/insert/b/2", 400), ("/destroy", 400)] {
        let response = visit(&site, path, &[&header_with(&tokens)]).await;
        assert_eq!(response.status, status, "{path}");
        assert!(response.sets_no_cookie(), "{path}");
        assert_eq!(site.rows().dump().await, before, "{path}");
    }
}

/// Two live sessions of one browser, in one header.
async fn ambiguous(site: &Site) -> Vec<u8> {
    let (one, two) = (site.visitor().await, site.visitor().await);
    let pairs = [one, two].map(|browser| pair(browser.token().as_bytes()));
    pairs.join(b"; ".as_slice())
}

#[tokio::test]
async fn of_two_live_sessions_none_is_read() {
    let site = Site::new().await;
    let cookies = ambiguous(&site).await;
    let before = site.rows().dump().await;
    for (path, body) in [
        ("/keys", ""),
        ("/get/a", "none"),
        ("/is_new", "true"),
        ("/id", "none"),
    ] {
        let response = visit(&site, path, &[&cookies]).await;
        response.assert(200, body);
        assert!(response.sets_no_cookie());
    }
    assert_eq!(site.rows().dump().await, before);
}

#[tokio::test]
async fn of_two_live_sessions_none_is_changed() {
    let site = Site::new().await;
    let cookies = ambiguous(&site).await;
    let before = site.rows().dump().await;
    for path in [
        "/insert/a/2",
        "/increment/n",
        "/cycle",
        "/clear",
        "/destroy",
    ] {
        let response = visit(&site, path, &[&cookies]).await;
        assert_eq!(response.status, 400, "{path}");
        assert!(
            response.body.contains("clear this site's cookies"),
            "{path}"
        );
        assert!(response.sets_no_cookie(), "{path}");
        assert_eq!(site.rows().dump().await, before, "{path}");
    }
}

#[tokio::test]
async fn each_of_two_live_sessions_goes_on_alone() {
    let site = Site::new().await;
    let (one, two) = (site.visitor().await, site.visitor().await);
    let both = [pair(one.token().as_bytes()), pair(two.token().as_bytes())];
    visit(&site, "/insert/a/2", &[&both.join(b";".as_slice())]).await;
    assert_eq!(one.peek("/get/a").await.body, "\"1\"");
    assert_eq!(two.peek("/get/a").await.body, "\"1\"");
}

#[tokio::test]
async fn a_stored_id_is_no_cookie_in_any_encoding() {
    let site = Site::new().await;
    let mut browser = site.visitor().await;
    browser.get("/cycle").await;
    for value in every_encoding_of_the_dump(&site).await {
        let response = visit(&site, "/get/a", &[&pair(value.as_bytes())]).await;
        assert_eq!(
            (response.status.as_u16(), response.body.as_str()),
            (200, "none"),
            "{value}"
        );
    }
}

/// Every column of every row, and the row itself, as an attacker may try them.
async fn every_encoding_of_the_dump(site: &Site) -> Vec<String> {
    let texts: Vec<String> = sqlx::query_scalar(AssertSqlSafe(
        "WITH t AS (
             SELECT c FROM session AS s,
             LATERAL unnest(ARRAY[s.id, s.expiry::text, s.session::text, s.created::text,
                                  s.user_id, s::text,
                                  s.session::json #>> '{_session,successor}']) AS c
             WHERE c IS NOT NULL
         )
         SELECT e FROM t, LATERAL unnest(ARRAY[
             c, '\"' || c || '\"', upper(c), lower(c), reverse(c),
             encode(convert_to(c, 'UTF8'), 'hex'),
             translate(encode(convert_to(c, 'UTF8'), 'base64'), E'\\n', ''),
             translate(encode(convert_to(c, 'UTF8'), 'base64'), E'+/=\\n', '-_'),
             translate(encode(sha256(convert_to(c, 'UTF8')), 'base64'), '+/=', '-_'),
             left(translate(encode(convert_to(c, 'UTF8'), 'base64'), E'+/=\\n', '-_'), 43)
         ]) AS e",
    ))
    .fetch_all(&site.pool)
    .await
    .expect("a dump");
    assert!(
        texts.len() > 60,
        "the row and what the cycle left of the old one"
    );
    texts
}

#[tokio::test]
async fn a_thousand_garbage_cookies_leave_no_row() {
    let site = Site::new().await;
    for n in 0..1000_u32 {
        let value = match n % 4 {
            0 => n.to_string().into_bytes(),
            1 => n.to_be_bytes().map(|byte| byte | 0x80).to_vec(),
            2 => format!("{n:0>42}A").into_bytes(),
            _ => format!("{}{n}", "%00".repeat(20)).into_bytes(),
        };
        let response = visit(&site, "/get/a", &[&pair(&value)]).await;
        assert_eq!(response.status, 200, "{n}");
    }
    assert_eq!(site.rows().dump().await, [""; 0]);
}

#[tokio::test]
async fn a_token_in_the_query_or_body_is_ignored() {
    let site = Site::new().await;
    let token = site.visitor().await.token().to_owned();
    let form = format!("{NAME}={token}");
    let mut request = Request::get(format!("/get/a?{form}&id={token}"))
        .body(Body::from(form.clone()))
        .expect("a request");
    let headers = request.headers_mut();
    for name in ["authorization", "x-session-id", "set-cookie", "cookie2"] {
        headers.insert(name, form.parse().expect("a header"));
    }
    headers.insert(
        "content-type",
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    let response = send(site.app(), request).await;
    assert_eq!(response.body, "none");
    assert!(response.sets_no_cookie());
}

/// A stale cookie counts as one. A growing number suggests token guessing.
#[tokio::test]
async fn unknown_tokens_are_counted() {
    let site = Site::new().await;
    let token = site.visitor().await.token().to_owned();
    let other = site.visitor().await.token().to_owned();
    assert_eq!(site.store.counters(), Counters::default());
    let unknown = pair(UNKNOWN.as_bytes());
    let two = [
        unknown.as_slice(),
        b"; ",
        &pair(unknown_token(1).as_bytes()),
    ]
    .concat();
    let ambiguous = format!("{NAME}={token}; {NAME}={other}");
    for (cookies, counts) in [
        (pair(token.as_bytes()).as_slice(), [0, 0, 0, 0]),
        (&unknown, [1, 0, 0, 0]),
        (&two, [3, 0, 0, 0]),
        (&pair(b"malformed"), [3, 1, 0, 0]),
        (&pair(b""), [3, 2, 0, 0]),
        (b"another=cookie", [3, 2, 0, 0]),
        (ambiguous.as_bytes(), [3, 2, 0, 1]),
    ] {
        visit(&site, "/get/a", &[cookies]).await;
        let now = site.store.counters();
        let counted = [now.unknown, now.malformed, now.forged, now.ambiguous];
        assert_eq!(counted, counts, "{}", String::from_utf8_lossy(cookies));
    }
    visit(&site, "/plain", &[&unknown]).await;
    assert_eq!(site.store.counters().unknown, 3, "the session was not used");
    assert_eq!(site.store.clone().counters(), site.store.counters());
}

#[tokio::test]
async fn forged_tokens_are_counted() {
    let site = Site::new().await;
    let signed = app(site.layer().signing_keys(SigningKeys::new([[1; 32]])));
    for value in [UNKNOWN.to_owned(), format!("{UNKNOWN}.{UNKNOWN}")] {
        let forger = Browser::new(&signed).with_cookie(NAME, &value);
        assert_eq!(forger.peek("/get/a").await.body, "none");
    }
    let counted = site.store.counters();
    assert_eq!((counted.forged, counted.unknown), (2, 0));
}

/// Another cookie's bytes above 127, its lack of a name or of a value, hide
/// nothing.
#[tokio::test]
async fn odd_neighbours_hide_no_session() {
    let site = Site::new().await;
    let token = site.visitor().await.token().to_owned();
    let ours = pair(token.as_bytes());
    for odd in [
        b"x=\xff\xfe\x80".as_slice(),
        b"nameless",
        b"=",
        b"==;;; ;\t;",
        b"=__Host-id",
        b"__Host-id",
        b"x=\"a; b",
        b"$Version=1; $Path=/",
    ] {
        for header in [
            [odd, b"; ", &ours].concat(),
            [&ours, b";".as_slice(), odd].concat(),
        ] {
            let response = visit(&site, "/get/a", &[&header]).await;
            let header = String::from_utf8_lossy(&header);
            assert_eq!(response.body, "\"1\"", "{header}");
            assert!(response.sets_no_cookie(), "{header}");
        }
    }
}

/// The header's length decides how long it takes to read, and nothing else.
#[tokio::test]
async fn a_header_is_read_in_a_time_that_grows_with_its_length_only() {
    let site = Site::new().await;
    let token = site.visitor().await.token().to_owned();
    let mut header = format!("{NAME}={};", &token[1..]).repeat(10_000);
    header.push_str(&format!("{NAME}={token}"));
    let started = std::time::Instant::now();
    let response = visit(&site, "/get/a", &[header.as_bytes()]).await;
    assert_eq!(response.body, "\"1\"");
    assert_eq!(site.store.counters().malformed, 10_000);
    // Half a megabyte; a quadratic reading would take minutes.
    assert!(started.elapsed().as_secs() < 10);
}
