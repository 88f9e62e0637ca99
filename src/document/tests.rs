use super::*;

fn parse(text: &str) -> Result<Document, serde_json::Error> {
    Document::parse(&NativeLayout, &text.into())
}

fn round_trip(text: &str) -> String {
    parse(text).expect("an object").to_text()
}

#[test]
fn unchanged_members_keep_their_text_and_their_place() {
    for text in [
        r#"{"b":1,"a":{"z":1.50,"y":[ 1 ]}}"#,
        r#"{"big":123456789012345678901234567890,"tiny":1e-400}"#,
        r#"{"nul":"\u0000","lone":"\ud800"}"#,
        r#"{"\u0000":1,"\ud800":2,"x\udfff\"y":3}"#,
    ] {
        assert_eq!(round_trip(text), text);
    }
}

#[test]
fn only_an_object_is_a_document() {
    for text in ["null", "[]", "\"text\"", "1", "{", ""] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn clear_keeps_what_the_row_knows_of_its_own_life() {
    let mut document = parse(r#"{"a":1,"_session":{"idle":5.0}}"#).expect("object");
    document.clear();
    assert!(document.is_empty());
    assert_eq!(document.meta().idle, Some(5.0));
}

#[test]
fn unknown_members_of_the_reserved_part_survive() {
    let mut document = parse(r#"{"_session":{"later":[1]}}"#).expect("object");
    let mut meta = document.meta();
    meta.idle = Some(1.0);
    document.set_meta(&meta);
    assert_eq!(
        document.to_text(),
        r#"{"_session":{"idle":1.0,"later":[1]}}"#
    );
}

#[test]
fn the_encoding_of_a_value_makes_no_difference() {
    let spaced = parse(r#"{"a": {"x": 1, "y": [1, 2]}, "b": 2}"#).expect("object");
    let tight = parse(r#"{"b":2,"a":{"y":[1,2],"x":1}}"#).expect("object");
    assert_eq!(spaced, tight);
    assert_ne!(spaced, Document::default());
}

#[test]
fn values_that_differ_in_their_last_digit_or_kind_differ() {
    let differ = |left: &str, right: &str| {
        let document = |value| parse(&format!(r#"{{"a":{value}}}"#));
        document(left).expect("object") != document(right).expect("object")
    };
    assert!(differ(
        "123456789012345678901234567890",
        "123456789012345678901234567891"
    ));
    assert!(differ("[0.10000000000000000001]", "[0.1]"));
    assert!(differ("1", "1.0"));
    assert!(differ("[1, 2]", "[1]"));
    assert!(differ(r#""\ud800""#, r#""\ud801""#));
    assert!(!differ(r#""\u00e9""#, "\"é\""));
}
