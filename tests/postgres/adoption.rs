//! A token that a client made up is never adopted, in any number and form, and in any order of
//! calls.

use std::collections::HashSet;

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, HeaderValue, Request, StatusCode, header},
    routing::get,
};
use axum_pg_session::{Error, Koa, PgSessionLayer, Session, SigningKeys, UnsignedTokens};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use sha2::{Digest as _, Sha256};
use tokio::runtime::{Builder, Runtime};

use crate::support::{Reply, Site, browser::send, koa, texts};

const CALLS: &str = "x-calls";
const STATUS: &str = "x-status";

/// One call of a handler, by its letter.
const EVERY_CALL: &[u8] = b"lirucydsthvgxo";

/// What a client puts under the cookie's name.
#[derive(Clone, Debug)]
enum Value {
    Unknown(u8),
    /// As the row of it would be called in Koa's format.
    Prefixed(u8),
    /// With a signature of the client's own.
    Signed(u8),
    /// With the signature of a token that the server gave it.
    UnderAnothers(u8),
    /// The id that a row has.
    RowId,
    /// What the server gave it, some responses ago; it may have ended.
    Issued(u8),
}

#[derive(Clone, Debug)]
struct Visit {
    values: Vec<Value>,
    calls: String,
    status: u16,
}

fn visits() -> impl Strategy<Value = Vec<Visit>> {
    let value = prop_oneof![
        4 => (0..4_u8).prop_map(Value::Unknown),
        1 => (0..4_u8).prop_map(Value::Prefixed),
        2 => (0..4_u8).prop_map(Value::Signed),
        1 => (0..4_u8).prop_map(Value::UnderAnothers),
        1 => Just(Value::RowId),
        4 => (0..3_u8).prop_map(Value::Issued),
    ];
    let calls = vec(prop::sample::select(EVERY_CALL), 0..5)
        .prop_map(|calls| String::from_utf8(calls).expect("letters"));
    let status = prop_oneof![6 => Just(200), 1 => Just(404), 1 => Just(500)];
    let visit = (vec(value, 0..4), calls, status).prop_map(|(values, calls, status)| Visit {
        values,
        calls,
        status,
    });
    vec(visit, 1..8)
}

async fn perform(session: Session, headers: HeaderMap) -> Result<StatusCode, Error> {
    let text = |name| headers[name].to_str().expect("ASCII");
    for call in text(CALLS).chars() {
        // A call that is refused is followed by the others all the same.
        let _: Result<(), Error> = call_of(&session, call).await;
    }
    let status: u16 = text(STATUS).parse().expect("a number");
    Ok(StatusCode::from_u16(status).expect("a status"))
}

async fn call_of(session: &Session, call: char) -> Result<(), Error> {
    match call {
        'l' => session.get::<u8>("a").map(drop),
        'i' => session.insert("a", 1),
        'r' => session.remove::<u8>("a").map(drop),
        'u' => session
            .update("n", |n: Option<u64>| n.unwrap_or(0) + 1)
            .map(drop),
        'c' => session.clear(),
        'y' => session.cycle_id(),
        'd' => session.destroy(),
        's' => session.save().await,
        't' => session.touch(),
        'h' => session.discard(),
        'v' => session.replace(serde_json::json!({"b": 2})),
        'g' => session.login("ann"),
        'x' => session.logout(),
        _ => session.set_expiry(axum_pg_session::Expiry::Default),
    }
}

/// A well-formed token that was not generated.
fn unknown_token(n: u8) -> String {
    URL_SAFE_NO_PAD.encode([n + 100; 32])
}

/// A way to keep sessions, and what an unknown token would become in it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    Plain,
    Signed,
    SwitchingOn,
    Koa,
    UnsignedKoa,
}

impl Format {
    async fn site(self) -> (Site, PgSessionLayer) {
        let keys = || SigningKeys::new([[1; 32]]);
        match self {
            Self::Plain => with_layer(Site::new().await, |layer| layer),
            Self::Signed => with_layer(Site::new().await, |layer| layer.signing_keys(keys())),
            Self::SwitchingOn => with_layer(Site::new().await, |layer| {
                layer.signing_keys(keys().unsigned(UnsignedTokens::Accept))
            }),
            Self::Koa => with_layer(Site::of_koa().await, |layer| layer),
            Self::UnsignedKoa => {
                with_layer(Site::with_format(Koa::unsigned()).await, |layer| layer)
            }
        }
    }

    fn is_koa(self) -> bool {
        matches!(self, Self::Koa | Self::UnsignedKoa)
    }

    fn cookie_name(self) -> &'static str {
        match self.is_koa() {
            true => "koa.sid",
            false => "__Host-id",
        }
    }

    fn row_id(self, token: &str) -> String {
        match self.is_koa() {
            true => format!("koa:sess:{token}"),
            false => {
                let pair = format!("{}={token}", self.cookie_name());
                URL_SAFE_NO_PAD.encode(Sha256::digest(pair))
            }
        }
    }
}

fn with_layer(
    site: Site,
    choose: impl FnOnce(PgSessionLayer) -> PgSessionLayer,
) -> (Site, PgSessionLayer) {
    let layer = choose(site.layer());
    (site, layer)
}

/// A client that remembers all that it was given.
struct Client<'s> {
    site: &'s Site,
    app: &'s Router,
    format: Format,
    /// Cookie values, with their signature cookies in Koa's format.
    issued: Vec<(String, Option<String>)>,
    presented: HashSet<String>,
}

impl Client<'_> {
    async fn visit(&mut self, visit: &Visit) {
        let mut pairs = Vec::new();
        for value in &visit.values {
            pairs.extend(self.spelled(value).await);
        }
        let mut request = Request::get("/")
            .header(CALLS, &visit.calls)
            .header(STATUS, visit.status)
            .body(Body::empty())
            .expect("a request");
        if !pairs.is_empty() {
            let cookies = HeaderValue::from_str(&pairs.join("; ")).expect("ASCII");
            request.headers_mut().insert(header::COOKIE, cookies);
        }
        let response = send(self.app.clone(), request).await;
        self.judge(&response);
    }

    /// The pairs of a value, signature cookie included.
    async fn spelled(&mut self, value: &Value) -> Vec<String> {
        let (value, signature) = match value {
            Value::Unknown(n) => (unknown_token(*n), None),
            Value::Prefixed(n) => (format!("koa:sess:{}", unknown_token(*n)), None),
            Value::Signed(n) => self.signed(&unknown_token(*n)),
            Value::UnderAnothers(n) => self.under_anothers(&unknown_token(*n)),
            Value::RowId => (self.row_id().await, None),
            Value::Issued(n) => self.issued_before(*n),
        };
        let name = self.format.cookie_name();
        self.presented.insert(value.clone());
        let mut pairs = vec![format!("{name}={value}")];
        pairs.extend(signature.map(|signature| format!("{name}.sig={signature}")));
        pairs
    }

    fn signed(&self, token: &str) -> (String, Option<String>) {
        match self.format.is_koa() {
            true => {
                let signature = koa::signature("another key", "koa.sid", token);
                (token.to_owned(), Some(signature))
            }
            false => (format!("{token}.{}", unknown_token(9)), None),
        }
    }

    fn under_anothers(&self, token: &str) -> (String, Option<String>) {
        match self.issued.last() {
            Some((_, Some(signature))) => (token.to_owned(), Some(signature.clone())),
            Some((value, None)) if value.len() > 43 => (format!("{token}{}", &value[43..]), None),
            _ => (token.to_owned(), None),
        }
    }

    fn issued_before(&self, responses: u8) -> (String, Option<String>) {
        let at = self.issued.len().checked_sub(1 + usize::from(responses));
        at.map_or((String::new(), None), |at| self.issued[at].clone())
    }

    async fn row_id(&self) -> String {
        let ids = texts(&self.site.pool, "SELECT id FROM public.session LIMIT 1").await;
        ids.into_iter().next().unwrap_or_default()
    }

    /// What the server gives is new, or what it gave before.
    fn judge(&mut self, response: &Reply) {
        let name = self.format.cookie_name();
        let cookies = response.set_cookies();
        let value_of = |name: &str| {
            let found = cookies.iter().find(|cookie| cookie.name() == name);
            found.map(|cookie| cookie.value().to_owned())
        };
        let Some(value) = value_of(name).filter(|value| !value.is_empty()) else {
            return;
        };
        let token = |value: &str| value.split('.').next().unwrap_or_default().to_owned();
        let is_known = |value: &String| token(value) == token(&value_of(name).unwrap_or_default());
        let was_issued = self.issued.iter().any(|(value, _)| is_known(value));
        let was_presented = self.presented.iter().any(is_known);
        assert!(was_issued || !was_presented, "{value} was adopted");
        self.issued.push((value, value_of(&format!("{name}.sig"))));
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

async fn assert_none_is_stored(site: &Site, format: Format) {
    let ids = texts(&site.pool, "SELECT id FROM public.session").await;
    for n in 0..4 {
        let token = unknown_token(n);
        assert!(!ids.contains(&format.row_id(&token)), "{token} has a row");
        assert!(
            !ids.iter().any(|id| id.contains(&token)),
            "{token} is a row"
        );
    }
}

fn no_unknown_id_is_adopted(format: Format, cases: u32) {
    let runtime = runtime();
    let (site, layer) = runtime.block_on(format.site());
    let empty_too = layer.clone().allow_empty(true);
    let apps = [layer, empty_too].map(|layer| Router::new().route("/", get(perform)).layer(layer));
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let sequences = (visits(), 0..apps.len());
    let outcome = TestRunner::new(config).run(&sequences, |(visits, app)| {
        runtime.block_on(async {
            let mut client = Client {
                site: &site,
                app: &apps[app],
                format,
                issued: Vec::new(),
                presented: HashSet::new(),
            };
            for visit in &visits {
                client.visit(visit).await;
                assert_none_is_stored(&site, format).await;
            }
        });
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{format:?}: {failure}");
    }
    runtime.block_on(async move { drop(site) });
}

#[test]
fn no_sequence_of_calls_adopts_an_unknown_id() {
    no_unknown_id_is_adopted(Format::Plain, 96);
}

#[test]
fn no_sequence_of_calls_adopts_an_unknown_id_where_tokens_are_signed() {
    no_unknown_id_is_adopted(Format::Signed, 48);
    no_unknown_id_is_adopted(Format::SwitchingOn, 48);
}

#[test]
fn no_sequence_of_calls_adopts_an_unknown_id_in_koas_format() {
    no_unknown_id_is_adopted(Format::Koa, 48);
    no_unknown_id_is_adopted(Format::UnsignedKoa, 48);
}
