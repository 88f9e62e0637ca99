use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};
use serde_json::json;

use super::*;
use crate::document::NativeLayout;

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// A change that can be made again and again, unlike the record of it.
#[derive(Clone, Debug)]
enum Act {
    Insert(usize, u8),
    Remove(usize),
    Clear,
    Increment(usize),
}

impl Act {
    fn change(&self) -> Change {
        match self {
            Self::Insert(key, value) => {
                Change::Insert(KEYS[*key].into(), encode("", value).expect("a number"))
            }
            Self::Remove(key) => Change::Remove(KEYS[*key].into()),
            Self::Clear => Change::Clear,
            Self::Increment(key) => {
                let add = |n: Option<u64>| n.unwrap_or(0) + 1;
                Change::Update(
                    KEYS[*key].into(),
                    erased(KEYS[*key], Limits::default(), add, drop),
                )
            }
        }
    }

    /// What the model of a document, a plain map, makes of it.
    fn model(&self, model: &mut serde_json::Map<String, serde_json::Value>) {
        match self {
            Self::Insert(key, value) => drop(model.insert(KEYS[*key].into(), json!(value))),
            Self::Remove(key) => drop(model.remove(KEYS[*key])),
            Self::Clear => model.clear(),
            Self::Increment(key) => {
                let n = model
                    .get(KEYS[*key])
                    .and_then(serde_json::Value::as_u64)
                    .unwrap_or(0);
                model.insert(KEYS[*key].into(), json!(n + 1));
            }
        }
    }

    fn key(&self) -> Option<usize> {
        match self {
            Self::Insert(key, _) | Self::Remove(key) | Self::Increment(key) => Some(*key),
            Self::Clear => None,
        }
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..KEYS.len(), any::<u8>()).prop_map(|(key, value)| Act::Insert(key, value)),
        2 => (0..KEYS.len()).prop_map(Act::Remove),
        1 => Just(Act::Clear),
        4 => (0..KEYS.len()).prop_map(Act::Increment),
    ];
    vec(act, 0..12)
}

fn documents() -> impl Strategy<Value = Document> {
    vec(proptest::option::of(any::<u8>()), KEYS.len()).prop_map(|values| {
        let mut document = Document::default();
        for (key, value) in KEYS.iter().zip(values) {
            if let Some(value) = value {
                document.insert(key, encode(key, &value).expect("a number"));
            }
        }
        document
    })
}

fn recorded(acts: &[Act]) -> Changes {
    let mut changes = Changes::default();
    for act in acts {
        changes.record(act.change());
    }
    changes
}

fn replayed(acts: &[Act], document: &Document) -> Document {
    let mut document = document.clone();
    recorded(acts).replay(&mut document).expect("numbers fit");
    document
}

fn modelled(acts: &[Act], document: &Document) -> Document {
    let mut model = serde_json::from_str(&document.to_text()).expect("an object");
    for act in acts {
        act.model(&mut model);
    }
    Document::parse(
        &NativeLayout,
        &serde_json::Value::Object(model).to_string().into(),
    )
    .expect("an object")
}

#[test]
fn a_take_of_another_type_makes_no_change_at_all() {
    let mut changes = recorded(&[Act::Insert(0, 1)]);
    let read =
        |stored: Option<&Json>| stored.map_or(Ok(()), |raw| decode::<u64>("b", raw).map(drop));
    changes.record(Change::Take("b".into(), Box::new(read)));
    let mut document = Document::default();
    document.insert("b", encode("b", &"text").expect("text"));
    let before = document.clone();
    assert!(changes.replay(&mut document).is_err());
    assert_eq!(document, before);
}

proptest! {
    #[test]
    fn a_replay_on_the_loaded_document_is_what_the_request_did(acts in acts(), document in documents()) {
        prop_assert_eq!(replayed(&acts, &document), modelled(&acts, &document));
    }

    #[test]
    fn a_replay_can_be_repeated(acts in acts(), one in documents(), other in documents()) {
        let mut changes = recorded(&acts);
        let mut lost = one;
        changes.replay(&mut lost).expect("numbers fit");
        let mut won = other.clone();
        changes.replay(&mut won).expect("numbers fit");
        prop_assert_eq!(won, modelled(&acts, &other));
    }

    #[test]
    fn the_order_of_changes_of_different_keys_does_not_matter(acts in acts(), document in documents()) {
        let keyed: Vec<_> = acts.into_iter().filter(|act| act.key().is_some()).collect();
        let (even, odd): (Vec<_>, Vec<_>) = keyed.into_iter().partition(|act| act.key().is_some_and(|key| key % 2 == 0));
        let even_first = replayed(&odd, &replayed(&even, &document));
        let odd_first = replayed(&even, &replayed(&odd, &document));
        prop_assert_eq!(even_first, odd_first);
    }

    #[test]
    fn increments_commute_and_all_count(mine in 0..20_usize, theirs in 0..20_usize, document in documents()) {
        let increments = |n| vec![Act::Increment(0); n];
        let both = replayed(&increments(theirs), &replayed(&increments(mine), &document));
        prop_assert_eq!(both, modelled(&increments(mine + theirs), &document));
    }

    #[test]
    fn what_was_not_touched_is_not_written(acts in acts(), document in documents()) {
        prop_assume!(acts.iter().all(|act| act.key().is_some()));
        let touched: BTreeSet<_> = acts.iter().filter_map(Act::key).collect();
        let after = replayed(&acts, &document);
        for (index, key) in KEYS.iter().enumerate().filter(|(index, _)| !touched.contains(index)) {
            let raw = |document: &Document| document.get(key).map(|raw| raw.get().to_owned());
            prop_assert_eq!(raw(&after), raw(&document), "{}", index);
        }
    }
}

#[test]
fn a_record_that_fails_leaves_the_document_as_it_was() {
    let mut document =
        Document::parse(&NativeLayout, &r#"{"a":"text"}"#.into()).expect("an object");
    let mut changes = recorded(&[Act::Insert(1, 1), Act::Increment(0)]);
    let error = changes
        .replay(&mut document)
        .expect_err("text is no number");
    assert_eq!(error.kind(), ErrorKind::Deserialize);
    assert_eq!(document.to_text(), r#"{"a":"text"}"#);
}

#[test]
fn clear_forgets_what_was_recorded_before_it_but_not_the_expiry() {
    let mut changes = recorded(&[Act::Insert(0, 1), Act::Increment(1)]);
    changes.record(Change::Expiry(Expiry::Default, Arc::default()));
    changes.record(Change::Clear);
    assert_eq!(changes.list.len(), 2);
    assert!(changes.set_terms());
}

#[test]
fn clear_keeps_changes_whose_callers_wait_for_the_committed_value() {
    let mut calls = 0;
    let (sender, called) = std::sync::mpsc::channel();
    let apply = Box::new(move |_: Option<&Json>| {
        calls += 1;
        sender.send(calls).expect("a test that listens");
        encode("n", &calls)
    });
    let mut changes = Changes::default();
    let change = Change::UpdateNow("n".to_owned(), apply);
    changes.record(Change::Terms(Box::new(change)));
    changes.record(Change::Clear);
    let mut document = Document::default();
    changes.replay(&mut document).expect("numbers");
    assert_eq!(called.try_iter().collect::<Vec<_>>(), [1]);
    assert_eq!(document.get("n").map(Json::get), None);
}
