use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;
use crate::document::{NativeLayout, RESERVED};

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
struct Visitor {
    name: Option<String>,
    basket: Vec<u32>,
    visits: u64,
}

fn document(text: &str) -> Document {
    Document::parse(&NativeLayout, &text.into()).expect("an object")
}

fn edit_of<T>(text: &str, mut change: impl FnMut(&mut T)) -> Result<String, Error>
where
    T: Default + Serialize + DeserializeOwned,
{
    let mut document = document(text);
    edit(&mut document, Limits::default(), &mut change)?;
    Ok(document.to_text())
}

/// All that an error says.
fn text_of(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[test]
fn a_new_session_is_the_default() {
    let visitor: Visitor = read(&document("{}")).expect("nothing is amiss");
    assert_eq!(visitor, Visitor::default());
}

#[test]
fn what_the_session_knows_of_itself_is_no_field() {
    let all: BTreeMap<String, u32> =
        read(&document(r#"{"_session":{"idle":1.0},"a":1}"#)).expect("numbers");
    assert_eq!(all, BTreeMap::from([("a".to_owned(), 1)]));
}

#[test]
fn only_the_fields_that_an_edit_changed_are_written() {
    let edited = edit_of("{}", |visitor: &mut Visitor| visitor.visits += 1);
    assert_eq!(edited.expect("an edit"), r#"{"visits":1}"#);
    let edited = edit_of(r#"{"name":"Ada"}"#, |visitor: &mut Visitor| {
        visitor.basket.push(7);
    });
    assert_eq!(edited.expect("an edit"), r#"{"name":"Ada","basket":[7]}"#);
}

#[test]
fn an_edit_that_changes_nothing_writes_nothing() {
    let encoded = r#"{"visits" : 1, "name":"\u0041da"}"#;
    let edited = edit_of(encoded, |visitor: &mut Visitor| {
        visitor.name = Some("Ada".into());
    });
    assert_eq!(edited.expect("an edit"), document(encoded).to_text());
}

#[test]
fn an_edit_returns_what_its_closure_returns() {
    let mut visits = document(r#"{"visits":4}"#);
    let outcome = edit(
        &mut visits,
        Limits::default(),
        &mut |visitor: &mut Visitor| {
            visitor.visits += 1;
            visitor.visits
        },
    );
    assert_eq!(outcome.expect("an edit"), 5);
}

#[test]
fn members_that_the_struct_does_not_have_stay_letter_by_letter() {
    let edited = edit_of(
        r#"{"theirs":1.00000000000000000001,"visits":1}"#,
        |visitor: &mut Visitor| visitor.visits = 2,
    );
    let expected = r#"{"theirs":1.00000000000000000001,"visits":2}"#;
    assert_eq!(edited.expect("an edit"), expected);
}

#[test]
fn a_field_that_is_no_longer_written_is_removed() {
    #[derive(Default, Deserialize, Serialize)]
    #[serde(default)]
    struct Flash {
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    }
    let edited = edit_of(r#"{"message":"saved","a":1}"#, |flash: &mut Flash| {
        flash.message = None;
    });
    assert_eq!(edited.expect("an edit"), r#"{"a":1}"#);
}

#[test]
fn a_session_of_before_a_field_was_invented_has_its_default() {
    #[derive(Deserialize, Serialize)]
    struct Settings {
        theme: String,
        rows: u32,
        #[serde(rename = "perPage")]
        per_page: u32,
    }
    impl Default for Settings {
        fn default() -> Self {
            Self {
                theme: "light".into(),
                rows: 20,
                per_page: 50,
            }
        }
    }
    let settings: Settings = read(&document(r#"{"rows":5}"#)).expect("an older shape");
    assert_eq!(
        (settings.theme.as_str(), settings.rows, settings.per_page),
        ("light", 5, 50)
    );
}

#[derive(Debug, Default, Deserialize, Serialize)]
struct Renamed {
    #[serde(alias = "user")]
    name: String,
    visits: u64,
}

#[test]
fn a_field_is_read_from_its_former_name_and_moved_when_it_changes() {
    let stored = r#"{"user":"ada","visits":1,"theirs":2}"#;
    let read: Renamed = read(&document(stored)).expect("the former shape");
    assert_eq!(read.name, "ada");
    let edited = edit_of(stored, |renamed: &mut Renamed| renamed.visits = 2);
    assert_eq!(
        edited.expect("an edit"),
        r#"{"user":"ada","visits":2,"theirs":2}"#
    );
    let edited = edit_of(stored, |renamed: &mut Renamed| renamed.name = "bob".into());
    assert_eq!(
        edited.expect("an edit"),
        r#"{"visits":1,"theirs":2,"name":"bob"}"#
    );
}

#[test]
fn a_value_that_does_not_fit_is_an_error_that_names_the_field_and_not_the_value() {
    let stored = r#"{"visits":"sesame","name":"Ada"}"#;
    let error = read::<Visitor>(&document(stored)).expect_err("text is no number");
    assert_eq!(error.kind(), ErrorKind::Deserialize);
    let text = format!("{} {error:?}", text_of(&error));
    assert!(text.contains("visits"), "{text}");
    assert!(!text.contains("sesame"), "{text}");
    let edited = edit_of(stored, |visitor: &mut Visitor| visitor.name = None);
    assert_eq!(
        edited.expect_err("it can't be read").kind(),
        ErrorKind::Deserialize
    );
}

#[test]
fn a_field_without_a_default_is_an_error_that_names_it() {
    #[derive(Debug, Default, Serialize, Deserialize)]
    struct Unwritten {
        #[serde(skip_serializing)]
        name: String,
    }
    let error = read::<Unwritten>(&document("{}")).expect_err("nothing to take it from");
    assert!(text_of(&error).contains("name"), "{error}");
    let stored = document(r#"{"name":"Ada"}"#);
    assert_eq!(read::<Unwritten>(&stored).expect("it is there").name, "Ada");
}

#[test]
fn a_struct_that_refuses_unknown_members_says_which() {
    #[derive(Debug, Default, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Closed {
        visits: u64,
    }
    let error = read::<Closed>(&document(r#"{"theirs":"sesame"}"#)).expect_err("it is unknown");
    assert!(text_of(&error).contains("theirs"), "{error}");
    assert!(!text_of(&error).contains("sesame"), "{error}");
}

#[test]
fn an_edit_after_which_the_session_could_not_be_read_is_refused() {
    #[derive(Debug, Default, Deserialize, Serialize)]
    #[serde(default)]
    struct Crooked {
        #[serde(serialize_with = "as_text")]
        visits: u64,
    }
    fn as_text<S: serde::Serializer>(visits: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&visits.to_string())
    }
    let mut untouched = document("{}");
    let mut change = |crooked: &mut Crooked| crooked.visits = 1;
    let error = edit(&mut untouched, Limits::default(), &mut change);
    assert_eq!(
        error.expect_err("text is no number").kind(),
        ErrorKind::Deserialize
    );
    assert_eq!(untouched.to_text(), "{}");
}

#[test]
fn a_type_that_is_no_object_is_an_error() {
    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Odd {}
    impl Serialize for Odd {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_u8(1)
        }
    }
    let error = edit_of("{}", |_: &mut Odd| {}).expect_err("a number is no object");
    assert_eq!(error.kind(), ErrorKind::Serialize);
}

#[test]
fn the_sessions_own_member_can_not_be_a_field() {
    let error = edit_of("{}", |all: &mut BTreeMap<String, u32>| {
        all.insert(RESERVED.into(), 1);
    });
    assert_eq!(
        error.expect_err("it is kept").kind(),
        ErrorKind::ReservedKey
    );
}

#[test]
fn an_enum_with_a_tag_can_be_the_session() {
    #[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
    #[serde(tag = "step")]
    enum Checkout {
        #[default]
        Basket,
        Address {
            street: String,
        },
    }
    let here = edit_of(r#"{"step":"Basket"}"#, |checkout: &mut Checkout| {
        *checkout = Checkout::Address {
            street: "High".into(),
        };
    });
    let here = here.expect("an edit");
    assert_eq!(here, r#"{"step":"Address","street":"High"}"#);
    let back = edit_of(&here, |checkout: &mut Checkout| {
        *checkout = Checkout::Basket;
    });
    assert_eq!(back.expect("an edit"), r#"{"step":"Basket"}"#);
}

#[test]
fn what_an_edit_writes_is_no_deeper_than_allowed() {
    let mut nested = serde_json::Value::Null;
    for _ in 0..100 {
        nested = serde_json::json!([nested]);
    }
    let error = edit_of(
        "{}",
        move |all: &mut BTreeMap<String, serde_json::Value>| {
            all.insert("deep".into(), nested.clone());
        },
    );
    assert_eq!(
        error.expect_err("it is too deep").kind(),
        ErrorKind::TooLarge
    );
}

#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
struct Profile {
    #[serde(alias = "user", alias = "nick")]
    name: String,
    #[serde(alias = "colour", skip_serializing_if = "Option::is_none")]
    color: Option<String>,
    #[serde(
        default,
        alias = "is_admin",
        skip_serializing_if = "std::ops::Not::not"
    )]
    admin: bool,
}

#[test]
fn a_removed_field_is_not_read_from_its_former_name() {
    let text = r#"{"user":"Ada","colour":"red","is_admin":true,"other":1}"#;
    let edited = edit_of(text, |visitor: &mut Profile| visitor.admin = false);
    assert_eq!(
        edited.expect("an edit"),
        r#"{"user":"Ada","colour":"red","other":1}"#
    );
    let edited = edit_of(text, |visitor: &mut Profile| {
        (visitor.color, visitor.admin) = (None, false);
    });
    assert_eq!(edited.expect("an edit"), r#"{"user":"Ada","other":1}"#);
}

#[test]
fn a_moved_field_leaves_other_former_names() {
    let text = r#"{"user":"Ada","colour":"red","other":1}"#;
    let edited = edit_of(text, |visitor: &mut Profile| visitor.name.push('!'));
    assert_eq!(
        edited.expect("an edit"),
        r#"{"colour":"red","other":1,"name":"Ada!"}"#
    );
}

/// An older version of the site has stored its names again.
#[test]
fn a_field_under_its_own_name_takes_precedence() {
    let text = r#"{"name":"Ada","user":"Bob","nick":"Eve","other":1}"#;
    let read: Profile = read(&document(text)).expect("a name");
    assert_eq!(read.name, "Ada");
    let edited = edit_of(text, |visitor: &mut Profile| visitor.name.push('!'));
    assert_eq!(edited.expect("an edit"), r#"{"name":"Ada!","other":1}"#);
    let text = r#"{"name":"Ada","color":"red","colour":"blue"}"#;
    let edited = edit_of(text, |visitor: &mut Profile| visitor.color = None);
    assert_eq!(edited.expect("an edit"), r#"{"name":"Ada"}"#);
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(default)]
struct Choice {
    #[serde(skip_serializing_if = "Option::is_none")]
    theme: Option<String>,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            theme: Some("light".into()),
        }
    }
}

#[test]
fn a_value_that_would_be_read_as_another_is_an_error() {
    let error = edit_of("{}", |settings: &mut Choice| settings.theme = None)
        .expect_err("no theme can't be stored");
    assert_eq!(error.kind(), ErrorKind::Serialize);
    assert!(text_of(&error).contains("\"theme\""), "{error}");
}
