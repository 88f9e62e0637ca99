use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};

use super::carrier::{TokenChange, found_for, token_change};
use crate::{HeaderTransport, Transport};

const RESPONSE: HeaderName = HeaderName::from_static("x-session-token");

fn bearer() -> Arc<dyn Transport> {
    Arc::new(HeaderTransport::bearer(RESPONSE))
}

/// Reads the token from an unpredictable place.
#[derive(Debug)]
struct Hidden;

impl Transport for Hidden {
    fn read<'h>(&self, request: &'h HeaderMap) -> Option<&'h [u8]> {
        request
            .get(AUTHORIZATION)?
            .as_bytes()
            .strip_prefix(b"Session id=")
    }

    fn write(&self, token: &HeaderValue, response: &mut HeaderMap) {
        let token = token.to_str().expect("ASCII");
        let value = HeaderValue::from_str(&format!("id={token};"));
        response.insert(RESPONSE, value.expect("ASCII"));
    }

    fn remove(&self, response: &mut HeaderMap) {
        response.insert(RESPONSE, HeaderValue::from_static("none"));
    }

    fn varies_by(&self) -> HeaderName {
        AUTHORIZATION
    }
}

#[test]
fn how_a_client_sends_a_bare_token_or_a_bearer_is_found_out() {
    let bare: Arc<dyn Transport> = Arc::new(HeaderTransport::new(RESPONSE));
    for (transport, name, sent) in [(bare, RESPONSE, "t"), (bearer(), AUTHORIZATION, "Bearer t")] {
        let carry = found_for(&transport).expect("a client");
        let mut request = HeaderMap::new();
        carry(&HeaderValue::from_static("t"), &mut request);
        assert_eq!(request[name], sent);
    }
}

#[test]
fn a_client_that_can_not_be_guessed_is_none() {
    let hidden: Arc<dyn Transport> = Arc::new(Hidden);
    assert!(found_for(&hidden).is_none());
}

#[test]
fn a_token_is_found_among_what_stands_around_it() {
    let mut response = HeaderMap::new();
    assert_eq!(token_change(&Hidden, &response), TokenChange::None);
    Hidden.write(&HeaderValue::from_static("abc"), &mut response);
    assert_eq!(
        token_change(&Hidden, &response),
        TokenChange::Set("abc".into())
    );
    Hidden.remove(&mut response);
    assert_eq!(token_change(&Hidden, &response), TokenChange::Removed);
}

#[test]
fn an_empty_header_of_the_response_ends_the_token() {
    let mut response = HeaderMap::new();
    bearer().remove(&mut response);
    assert_eq!(token_change(&*bearer(), &response), TokenChange::Removed);
}
