//! What a request says of its session.

use crate::id::Token;

/// Well-formed tokens of one request that go into its lookup; more than a few
/// can only be an attempt to make it expensive.
const MAX_TOKENS: usize = 4;

/// What stands where a token should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Token(Token, Signature),
    /// Nothing of the form of a token.
    Malformed,
    /// A token that nobody signed who has one of the keys.
    Forged,
}

/// How a token is signed, where tokens are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signature {
    UpToDate,
    /// With a key that is about to go, or not yet.
    Outdated,
}

/// What a request's cookies, or another header, say of its session.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestTokens {
    /// The well-formed tokens under our name, each once.
    pub(crate) tokens: Vec<Token>,
    /// Those among them whose signature should be replaced.
    outdated: Vec<Token>,
    /// Whether there were more of them than are looked up.
    pub(crate) is_cut: bool,
    /// Whether a value of our form was there. Others are another program's, such
    /// as of an application on another port of the same host.
    pub(crate) named: bool,
    pub(crate) malformed: u64,
    pub(crate) forged: u64,
}

impl RequestTokens {
    pub(crate) fn add(&mut self, reading: Reading) {
        self.named |= reading != Reading::Malformed;
        match reading {
            Reading::Token(token, signature) => self.add_token(token, signature),
            Reading::Malformed => self.malformed += 1,
            Reading::Forged => self.forged += 1,
        }
    }

    /// The same token twice counts as the better signed one: a stale cookie
    /// of another path, which a response can't reach, would otherwise have
    /// the session written at every request.
    fn add_token(&mut self, token: Token, signature: Signature) {
        let is_known = self.tokens.contains(&token);
        match (is_known, signature) {
            (true, Signature::UpToDate) => self.outdated.retain(|known| *known != token),
            (true, Signature::Outdated) => {}
            (false, _) if self.tokens.len() == MAX_TOKENS => self.is_cut = true,
            (false, signature) => {
                if signature == Signature::Outdated {
                    self.outdated.push(token.clone());
                }
                self.tokens.push(token);
            }
        }
    }

    pub(crate) fn is_outdated(&self, token: &Token) -> bool {
        self.outdated.contains(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presented(signatures: &[Signature]) -> RequestTokens {
        let mut presented = RequestTokens::default();
        for signature in signatures {
            presented.add(Reading::Token(Token::new("token"), *signature));
        }
        presented
    }

    #[test]
    fn of_two_signatures_of_one_token_the_better_one_counts() {
        use Signature::{Outdated, UpToDate};
        for (signatures, is_outdated) in [
            ([Outdated, Outdated], true),
            ([Outdated, UpToDate], false),
            ([UpToDate, Outdated], false),
        ] {
            let presented = presented(&signatures);
            assert_eq!(presented.tokens.len(), 1);
            assert_eq!(presented.is_outdated(&Token::new("token")), is_outdated);
        }
    }

    #[test]
    fn what_is_no_token_is_counted_and_no_cookie_of_ours() {
        let mut presented = RequestTokens::default();
        presented.add(Reading::Malformed);
        assert!(!presented.named);
        presented.add(Reading::Forged);
        presented.add(Reading::Forged);
        assert!(presented.named && presented.tokens.is_empty());
        assert_eq!((presented.malformed, presented.forged), (1, 2));
    }
}
