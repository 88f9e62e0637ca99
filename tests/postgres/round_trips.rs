//! Every kind of value comes back from a real row as it was stored.

use std::collections::BTreeMap;

use axum::{Router, routing::get};
use axum_pg_session::{
    Error, ErrorKind, Key, Koa, PgSessionLayer, PgSessionStore, Session, TypedSession,
};
use proptest::{
    collection::{btree_map, vec},
    prelude::*,
    strategy::ValueTree as _,
    test_runner::TestRunner,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::support::{Browser, Site, texts as query, visit};

/// How many of each kind travel in one session.
const CASES: usize = 300;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Kinds {
    floats: Vec<f64>,
    singles: Vec<f32>,
    units: Vec<f64>,
    signed: Vec<i64>,
    unsigned: Vec<u64>,
    wide: Vec<(i128, u128)>,
    small: Vec<(i8, u16, bool, char)>,
    texts: Vec<String>,
    bytes: Vec<Vec<u8>>,
    maps: BTreeMap<i32, BTreeMap<String, Option<f64>>>,
    shapes: Vec<Shape>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
enum Shape {
    Point,
    Circle(f64),
    Line(f32, i64),
    Nested { inner: Box<Option<Shape>>, at: u64 },
}

fn finite(float: f64) -> f64 {
    if float.is_finite() { float } else { 1.5 }
}

fn floats() -> impl Strategy<Value = f64> {
    let edges = [
        0.0,
        -0.0,
        1e15,
        1e16,
        1e300,
        -1e22,
        5e-324,
        9_007_199_254_740_993.0,
        f64::MIN_POSITIVE,
        f64::MAX,
        f64::MIN,
    ];
    prop_oneof![
        6 => any::<u64>().prop_map(|bits| finite(f64::from_bits(bits))),
        1 => proptest::sample::select(edges.to_vec()),
        1 => any::<i64>().prop_map(|whole| whole as f64),
    ]
}

fn singles() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(|bits| {
        let single = f32::from_bits(bits);
        if single.is_finite() { single } else { 0.1 }
    })
}

/// `jsonb` refuses U+0000.
fn texts() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..12).prop_map(|text| text.into_iter().filter(|c| *c != '\0').collect())
}

fn shapes() -> impl Strategy<Value = Shape> {
    let leaf = prop_oneof![
        Just(Shape::Point),
        floats().prop_map(Shape::Circle),
        (singles(), any::<i64>()).prop_map(|(x, y)| Shape::Line(x, y)),
    ];
    leaf.prop_recursive(8, 16, 2, |shape| {
        (proptest::option::of(shape), any::<u64>()).prop_map(|(inner, at)| Shape::Nested {
            inner: Box::new(inner),
            at,
        })
    })
}

fn kinds() -> impl Strategy<Value = Kinds> {
    let numbers = (
        vec(floats(), CASES),
        vec(singles(), CASES),
        vec(0.0..1.0_f64, CASES),
        vec(
            prop_oneof![any::<i64>(), Just(i64::MIN), Just(i64::MAX)],
            CASES,
        ),
        vec(
            prop_oneof![any::<u64>(), Just(u64::MAX), Just((1 << 53) + 1)],
            CASES,
        ),
        vec(any::<(i128, u128)>(), CASES),
    );
    let others = (
        vec(
            any::<(i8, u16, bool)>().prop_map(|(a, b, c)| (a, b, c, 'ß')),
            CASES,
        ),
        vec(texts(), CASES),
        vec(vec(any::<u8>(), 0..9), 20),
        btree_map(
            any::<i32>(),
            btree_map(texts(), proptest::option::of(floats()), 0..4),
            30,
        ),
        vec(shapes(), 60),
    );
    (numbers, others).prop_map(|(numbers, others)| {
        let (floats, singles, units, signed, unsigned, wide) = numbers;
        let (small, texts, bytes, maps, shapes) = others;
        Kinds {
            floats,
            singles,
            units,
            signed,
            unsigned,
            wide,
            small,
            texts,
            bytes,
            maps,
            shapes,
        }
    })
}

/// `numeric` has no negative zero, so `jsonb` has none.
fn of_jsonb(value: &Kinds) -> String {
    format!("{value:?}")
        .replace("-0.0,", "0.0,")
        .replace("-0.0)", "0.0)")
        .replace("-0.0]", "0.0]")
}

const KINDS: Key<Kinds> = Key::new("kinds");

fn untyped(kinds: &Kinds) -> Value {
    let kinds = Kinds {
        // A `Value` holds no wider integers.
        wide: Vec::new(),
        ..kinds.clone()
    };
    serde_json::to_value(kinds).expect("JSON")
}

async fn get_once<H, T>(layer: &PgSessionLayer, browser: &mut Browser, handler: H)
where
    H: axum::handler::Handler<T, ()>,
    T: 'static,
{
    let app = Router::new().route("/", get(handler)).layer(layer.clone());
    let mut visitor = browser.at(&app);
    let response = visitor.get("/").await;
    assert_eq!(response.status, 200, "{}", response.body);
    browser.jar = visitor.jar;
}

/// Changes another key of the same session from another request.
async fn interfere(layer: &PgSessionLayer, browser: &Browser) {
    let mut other = browser.at(&Router::new());
    get_once(layer, &mut other, async |session: Session| {
        session
            .update("other", |n: Option<u64>| n.unwrap_or(0) + 1)
            .map(drop)
    })
    .await;
}

async fn assert_all_ways(layer: PgSessionLayer, kinds: Kinds, shown: fn(&Kinds) -> String) {
    let mut browser = Browser::new(&Router::new());
    let stored = kinds.clone();
    get_once(
        &layer,
        &mut browser,
        async move |typed: TypedSession<Kinds>| {
            typed.session().insert(KINDS, stored.clone())?;
            typed.session().insert("untyped", untyped(&stored))?;
            typed.update(move |fields| *fields = stored.clone())
        },
    )
    .await;
    // Both closures are replayed on what another request saved meanwhile.
    let (elsewhere, there) = (layer.clone(), browser.clone());
    let expected = shown(&kinds);
    let value = shown_value(&untyped(&kinds));
    get_once(
        &layer,
        &mut browser,
        async move |typed: TypedSession<Kinds>| {
            let session = typed.session();
            assert!(
                shown(&session.get(KINDS)?.expect("stored")) == expected,
                "get"
            );
            assert!(shown(&typed.get()?) == expected, "typed");
            let found: Value = session.get("untyped")?.expect("stored");
            assert!(shown_value(&found) == value, "untyped");
            session.update(KINDS, |kinds| Kinds {
                signed: vec![7],
                ..kinds.expect("stored")
            })?;
            session.update("untyped", |found: Option<Value>| {
                let mut found = found.expect("stored");
                found["signed"] = Value::from([7]);
                found
            })?;
            typed.update(|kinds| kinds.signed = vec![7])?;
            interfere(&elsewhere, &there).await;
            Ok::<_, Error>(())
        },
    )
    .await;
    let changed = Kinds {
        signed: vec![7],
        ..kinds
    };
    let expected = shown(&changed);
    let value = shown_value(&untyped(&changed));
    get_once(
        &layer,
        &mut browser,
        async move |typed: TypedSession<Kinds>| {
            let session = typed.session();
            assert_eq!(session.get("other")?, Some(1));
            assert!(
                shown(&session.get(KINDS)?.expect("stored")) == expected,
                "get"
            );
            assert!(shown(&typed.get()?) == expected, "typed");
            let found: Value = session.get("untyped")?.expect("stored");
            assert!(shown_value(&found) == value, "untyped");
            Ok::<_, Error>(())
        },
    )
    .await;
}

/// `jsonb` or not: the sign of zero is compared by the typed values.
fn shown_value(value: &Value) -> String {
    sorted(value).replace("-0.0", "0.0")
}

/// `jsonb` keeps no order of keys, and whether `Value` does depends on what else
/// is built.
fn sorted(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members
                .iter()
                .map(|(key, value)| format!("{key:?}:{}", sorted(value)))
                .collect();
            members.sort_unstable();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(values) => {
            let values: Vec<_> = values.iter().map(sorted).collect();
            format!("[{}]", values.join(","))
        }
        value => value.to_string(),
    }
}

fn generated() -> Kinds {
    let mut runner = TestRunner::default();
    kinds().new_tree(&mut runner).expect("values").current()
}

#[tokio::test]
async fn every_value_comes_back_from_json_as_it_was_stored() {
    let site = Site::new().await;
    assert_all_ways(site.layer(), generated(), |kinds| format!("{kinds:?}")).await;
}

#[tokio::test]
async fn every_value_comes_back_from_jsonb_but_for_the_sign_of_zero() {
    let site = Site::with_jsonb().await;
    assert_all_ways(site.layer(), generated(), of_jsonb).await;
}

#[tokio::test]
async fn every_value_comes_back_in_koas_format() {
    let site = Site::new().await;
    let store: PgSessionStore = site.store.clone().koa(Koa::new(["key"]));
    let layer = PgSessionLayer::new(store);
    assert_all_ways(layer, generated(), |kinds| format!("{kinds:?}")).await;
}

#[tokio::test]
async fn an_equal_float_is_no_change_of_a_table_with_jsonb() {
    let site = Site::with_jsonb().await;
    let mut browser = site.browser();
    let mut versions = Vec::new();
    for _ in 0..2 {
        visit(&site, &mut browser, async |session: Session| {
            session.insert("floats", [1e16, 1e300, 5e-324, 0.1])
        })
        .await;
        versions.extend(query(&site.pool, "SELECT xmin::text FROM session").await);
    }
    assert_eq!(versions[0], versions[1], "one version of one row");
}

fn assert_refused(outcome: Result<(), Error>) {
    let error = outcome.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Serialize);
    let source = std::error::Error::source(&error).expect("a cause");
    assert!(source.to_string().contains("NaN"), "{source}");
}

#[derive(Default, Deserialize, Serialize)]
#[serde(default)]
struct Ratio {
    ratio: f64,
}

#[tokio::test]
async fn a_float_that_json_lacks_is_refused_before_it_is_stored() {
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, async |typed: TypedSession<Ratio>| {
        let session = typed.session();
        assert_refused(session.insert("key", f64::NAN));
        assert_refused(session.insert("key", Some(vec![(1, f32::INFINITY)])));
        assert_refused(
            session
                .update("key", |_: Option<f64>| f64::NEG_INFINITY)
                .map(drop),
        );
        assert_refused(session.replace(Ratio { ratio: f64::NAN }));
        assert_refused(typed.update(|ratio| ratio.ratio = f64::NAN));
        assert!(session.is_empty());
    })
    .await;
    assert_eq!(site.rows().count().await, 0);
}

const RATIO: Key<f64> = Key::new("ratio");

/// As an older version of the site, or another writer, may have stored it.
#[tokio::test]
async fn a_value_that_can_not_be_read_is_deleted_without_reading_it() {
    let site = Site::new().await;
    let mut browser = site.browser();
    visit(&site, &mut browser, async |session: Session| {
        session.insert("ratio", "not a number")?;
        session.insert("kept", 1)
    })
    .await;
    visit(&site, &mut browser, async |typed: TypedSession<Ratio>| {
        let session = typed.session();
        assert!(session.remove(RATIO).is_err() && typed.get().is_err());
        assert!(session.delete(RATIO)?);
        assert!(!session.delete(RATIO)?);
        assert_eq!(
            session.delete("_session").expect_err("reserved").kind(),
            ErrorKind::ReservedKey
        );
        assert_eq!(typed.get()?.ratio, 0.0);
        Ok::<_, Error>(())
    })
    .await;
    assert_eq!(browser.get("/keys").await.body, "kept");
}
