//! How a client of a transport behaves, found out by trying it.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use crate::Transport;

/// Puts a token into the headers of a request.
pub(super) type Carry = Arc<dyn Fn(&HeaderValue, &mut HeaderMap) + Send + Sync>;

/// Stands where a token does.
const PROBE: &str = "token-of-the-testing-kit";
/// What may precede a token, in the order of trying.
const SCHEMES: [&str; 3] = ["", "Bearer ", "Token "];

/// What a response tells a client of its token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Gone,
    Token(String),
}

/// How a client sends what this transport reads.
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

/// What the response says, by comparison with what the transport writes.
pub(super) fn told(transport: &dyn Transport, response: &HeaderMap) -> Told {
    let mut gone = HeaderMap::new();
    transport.remove(&mut gone);
    let mut signs = gone.iter().peekable();
    if signs.peek().is_some() && signs.all(|(name, value)| response.get(name) == Some(value)) {
        return Told::Gone;
    }
    let mut probe = HeaderMap::new();
    transport.write(&HeaderValue::from_static(PROBE), &mut probe);
    let token = probe.iter().find_map(|(name, written)| {
        let (before, after) = written.to_str().ok()?.split_once(PROBE)?;
        let said = response.get(name)?.to_str().ok()?;
        said.strip_prefix(before)?.strip_suffix(after)
    });
    token.map_or(Told::Nothing, |token| Told::Token(token.to_owned()))
}
