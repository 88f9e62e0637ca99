use super::*;
use crate::format::{Format as _, Native};

const NAME: &str = "__Host-id";
const FIRST: [u8; 32] = [1; 32];
const SECOND: [u8; 32] = [2; 32];

fn keys() -> SigningKeys {
    SigningKeys::new([FIRST, SECOND])
}

fn token() -> Token {
    Native.new_token().expect("random")
}

fn read(keys: &SigningKeys, name: &str, value: &str) -> Reading {
    keys.read(name, value.as_bytes(), |value| Native.token(value))
}

/// Against a second computation of RFC 2104, written out.
#[test]
fn the_signature_is_an_hmac_of_purpose_name_and_token() {
    use sha2::Digest as _;
    let token = token();
    let pad = |byte: u8| -> Vec<u8> { (0..64).map(|at| byte ^ u8::from(at < 32)).collect() };
    let signed = format!("axum-pg-session cookie\0__Host-id={}", token.as_str());
    let inner = Sha256::digest([pad(0x36), signed.into_bytes()].concat());
    let outer = Sha256::digest([pad(0x5c), inner.to_vec()].concat());
    let expected = format!("{}.{}", token.as_str(), URL_SAFE_NO_PAD.encode(outer));
    assert_eq!(keys().encode(NAME, &token), expected);
}

#[test]
fn a_token_under_its_own_signature_opens_its_session() {
    let token = token();
    let value = keys().encode(NAME, &token);
    assert_eq!(value.len(), token.as_str().len() + SIGNED_CHARS);
    assert_eq!(
        read(&keys(), NAME, &value),
        Reading::Token(token, Signature::UpToDate)
    );
}

#[test]
fn a_signature_by_a_later_key_is_outdated() {
    let token = token();
    let value = SigningKeys::new([SECOND]).encode(NAME, &token);
    assert_eq!(
        read(&keys(), NAME, &value),
        Reading::Token(token, Signature::Outdated)
    );
}

#[test]
fn a_token_under_anothers_signature_is_refused() {
    let (mine, other) = (token(), token());
    let signature = keys().encode(NAME, &other)[43..].to_owned();
    let value = format!("{}{signature}", mine.as_str());
    assert_eq!(read(&keys(), NAME, &value), Reading::Forged);
}

#[test]
fn a_signature_counts_for_one_name_and_one_set_of_keys_only() {
    let token = token();
    let other_name = keys().encode("__Host-admin", &token);
    let other_key = SigningKeys::new([[3; 32]]).encode(NAME, &token);
    for value in [other_name, other_key, token.as_str().to_owned()] {
        assert_eq!(read(&keys(), NAME, &value), Reading::Forged, "{value}");
    }
}

/// What is not canonical base64url is no signature: neither is a change of the
/// unused bits of its last character.
#[test]
fn a_signature_of_another_form_is_malformed() {
    let value = keys().encode(NAME, &token());
    let last = value.len() - 1;
    for wrong in [
        value[..last].to_owned(),
        format!("{value}="),
        format!("{value}A"),
        value.replace('.', ":"),
        value.replace('.', ".."),
        format!("\"{value}\""),
        format!("{}B", &value[..last]),
        format!("{}.", &value[..43]),
        format!(".{}", &value[44..]),
        String::new(),
    ] {
        assert_eq!(read(&keys(), NAME, &wrong), Reading::Malformed, "{wrong}");
    }
}

#[test]
fn every_bit_of_a_signature_counts() {
    let value = keys().encode(NAME, &token());
    let signature = URL_SAFE_NO_PAD.decode(&value[44..]).expect("base64url");
    for bit in 0..signature.len() * 8 {
        let mut wrong = signature.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let wrong = format!("{}.{}", &value[..43], URL_SAFE_NO_PAD.encode(wrong));
        assert_eq!(read(&keys(), NAME, &wrong), Reading::Forged, "bit {bit}");
    }
}

#[test]
fn signing_can_be_switched_on_in_steps() {
    let token = token();
    let signed = keys().encode(NAME, &token);
    let issues = keys().unsigned(UnsignedTokens::Issue);
    let accepts = keys().unsigned(UnsignedTokens::Accept);
    assert_eq!(issues.encode(NAME, &token), token.as_str());
    assert_eq!(accepts.encode(NAME, &token), signed);
    for (keys, value, expected) in [
        (&issues, token.as_str(), Signature::UpToDate),
        (&issues, signed.as_str(), Signature::UpToDate),
        (&accepts, token.as_str(), Signature::Outdated),
        (&accepts, signed.as_str(), Signature::UpToDate),
    ] {
        let expected = Reading::Token(token.clone(), expected);
        assert_eq!(read(keys, NAME, value), expected, "{keys:?}");
    }
}

#[test]
fn keys_that_could_be_guessed_are_refused() {
    assert!(keys().check().is_ok());
    for weak in [
        SigningKeys::new(Vec::<Vec<u8>>::new()),
        SigningKeys::new([""]),
        SigningKeys::new([[1; 31]]),
        SigningKeys::new([vec![1; 31], vec![1; 32]]),
    ] {
        let error = weak.check().expect_err("a weak key");
        assert_eq!(error.kind(), ErrorKind::Setup);
    }
    let second = SigningKeys::new([vec![1; 32], vec![1; 31], vec![]]);
    let error = second.check().expect_err("a weak key").to_string();
    assert!(error.starts_with("signing key 2 has 31 bytes"), "{error}");
}

#[test]
fn keys_are_never_printed() {
    let printed = format!("{:?}", SigningKeys::new(["secret".repeat(8)]));
    assert_eq!(printed, "SigningKeys { keys: 1, unsigned: Reject }");
}

/// A key is kept as two states of this hash. It compiles only where the
/// features are on that wipe them.
#[test]
fn keys_are_wiped_when_they_are_dropped() {
    use sha2::Digest as _;
    fn is_wiped(_: &impl zeroize::ZeroizeOnDrop) -> bool {
        true
    }
    assert!(is_wiped(&Sha256::new()));
}
