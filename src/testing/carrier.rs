//! Finds out how a client sends the token of a transport, by calls of the transport with a
//! probe.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use crate::Transport;

/// Puts a token into the headers of a request.
pub(super) type Carry = Arc<dyn Fn(&HeaderValue, &mut HeaderMap) + Send + Sync>;

/// A text in the place of a token.
const PROBE: &str = "token-of-the-testing-kit";
/// The prefixes of a token that are tried, in this order.
const SCHEMES: [&str; 3] = ["", "Bearer ", "Token "];

/// The change of the client's token in a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TokenChange {
    None,
    Removed,
    Set(String),
}

/// How a client sends a token that this transport reads.
pub(super) fn found_for(transport: &Arc<dyn Transport>) -> Option<Carry> {
    let name = transport.varies_by();
    let scheme = SCHEMES.into_iter().find(|scheme| {
        let mut request = HeaderMap::new();
        request.insert(&name, following(scheme, PROBE));
        transport.read(&request) == Some(PROBE.as_bytes())
    })?;
    Some(Arc::new(move |token, request| {
        let token = token.to_str().expect("tokens are ASCII");
        request.insert(&name, following(scheme, token));
    }))
}

fn following(scheme: &str, token: &str) -> HeaderValue {
    let value = HeaderValue::from_str(&format!("{scheme}{token}"));
    value.expect("tokens and schemes are ASCII")
}

/// Compares the response with the headers that the transport writes.
pub(super) fn token_change(transport: &dyn Transport, response: &HeaderMap) -> TokenChange {
    let mut removal = HeaderMap::new();
    transport.remove(&mut removal);
    let mut signs = removal.iter().peekable();
    if signs.peek().is_some() && signs.all(|(name, value)| response.get(name) == Some(value)) {
        return TokenChange::Removed;
    }
    let mut probe = HeaderMap::new();
    transport.write(&HeaderValue::from_static(PROBE), &mut probe);
    let token = probe.iter().find_map(|(name, written)| {
        let (before, after) = written.to_str().ok()?.split_once(PROBE)?;
        let value = response.get(name)?.to_str().ok()?;
        value.strip_prefix(before)?.strip_suffix(after)
    });
    token.map_or(TokenChange::None, |token| {
        TokenChange::Set(token.to_owned())
    })
}
