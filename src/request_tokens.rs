//! The tokens of a request, and how they are signed. It does no I/O and doesn't know
//! which tokens open a session.

use crate::id::Token;

/// The most tokens of one request that are looked up. More of them can only be an
/// attempt to make the lookup expensive.
const MAX_TOKENS: usize = 4;

/// The content of a cookie, or of another header that should carry a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Token(Token, Signature),
    /// No well-formed token.
    Malformed,
    /// A token without a valid signature, if tokens are signed.
    Forged,
}

/// Whether the signature of a token should be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signature {
    UpToDate,
    /// Signed with another key than the first one, or not signed yet.
    Outdated,
}

impl Signature {
    /// Of the key at this position: only the first one signs.
    pub(crate) fn by_key(position: usize) -> Self {
        match position {
            0 => Self::UpToDate,
            _ => Self::Outdated,
        }
    }
}

/// The tokens in a request's cookies, or in another header.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestTokens {
    /// The well-formed tokens of our cookie name, without duplicates.
    pub(crate) tokens: Vec<Token>,
    /// The tokens whose signature should be replaced.
    outdated: Vec<Token>,
    /// Whether there were more tokens than are looked up.
    pub(crate) is_cut: bool,
    /// Whether there was a well-formed value. Other values were set by another program,
    /// such as an application on another port of the same host.
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

    /// If a token is there twice, the better signature counts. Otherwise a stale cookie
    /// of another path, which a response can't replace, would cause a write at every
    /// request.
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
