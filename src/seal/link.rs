//! Secrets that travel by mail or cookie: kept as hashes only.

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Letters of check codes. No vowels, so that none spells a word; no digits, so that none looks like
/// a mailed code.
const LETTERS: &str = "bcdfghjkmnprstwz";

/// SHA-256 of a token, the only form that is stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenHash([u8; 32]);

/// 256 random bits as 43 characters of base64url (RFC 4648 §5, no padding): a link's TOKEN, or a
/// session's cookie.
pub struct LinkToken(Zeroizing<String>);

impl LinkToken {
    /// From 32 random bytes.
    pub fn from_random(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(Zeroizing::new(BASE64URL_NOPAD.encode(bytes.as_slice())))
    }

    /// From text that came in; `None` unless it has the form of a token.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        // RFC 4648 §3.5: set pad bits are refused, so that a token has one text only.
        let right = text.len() == 43
            && BASE64URL_NOPAD.decode_mut(text.as_bytes(), bytes.as_mut()) == Ok(32);
        right.then(|| Self(Zeroizing::new(text.to_owned())))
    }

    /// The text, for a link or a cookie only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored.
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.0.as_bytes()).into())
    }
}

impl TokenHash {
    /// Hash of a mailed code, salted with what it belongs to (a code of eight digits alone could be
    /// guessed from its hash).
    pub fn of_code(code: &str, salt: &[u8]) -> Self {
        // Each part behind its length: no salt and code can be another salt and code run together.
        let mut hash = Sha256::new_with_prefix(b"restante code");
        for part in [salt, code.as_bytes()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }

    /// A short code by which the reader of a notice can ask whether it is ours: the hash's first 48
    /// bits as twelve letters. It leads to no message, and not back to the token.
    pub fn check_code(&self) -> String {
        let nibbles = self.0.iter().take(6).flat_map(|b| [b >> 4, b & 0x0f]);
        let letters = nibbles.map(|n| LETTERS.as_bytes().get(usize::from(n)).copied());
        let letters: Vec<u8> = letters.flatten().collect();
        let groups = letters.chunks(4).map(|group| String::from_utf8_lossy(group).into_owned());
        groups.collect::<Vec<_>>().join("-")
    }

    /// The first bytes of the hash behind a code as it was typed; `None` if it has not its form.
    pub fn parse_check_code(text: &str) -> Option<[u8; 6]> {
        let typed = text.chars().filter(|c| !c.is_whitespace() && !matches!(c, '-' | '–' | '.'));
        let nibbles: Option<Vec<u8>> = typed
            .take(13)
            .map(|c| u8::try_from(LETTERS.find(c.to_ascii_lowercase())?).ok())
            .collect();
        let nibbles = nibbles.filter(|nibbles| nibbles.len() == 12 && text.len() < 64)?;
        let pairs = nibbles.chunks(2);
        let bytes: Vec<u8> =
            pairs.filter_map(|pair| Some((pair.first()? << 4) | pair.get(1)?)).collect();
        bytes.try_into().ok()
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From stored bytes.
    pub const fn from_bytes(b: [u8; 32]) -> Self {
        Self(b)
    }

    /// Constant-time comparison.
    pub fn same(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

impl fmt::Debug for LinkToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_43_characters_and_comes_back() {
        for bytes in [[0; 32], [0xff; 32], [0x5a; 32]] {
            let token = LinkToken::from_random(Zeroizing::new(bytes));
            let text = token.expose();
            assert_eq!(text.len(), 43);
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            let back = LinkToken::parse(text).unwrap();
            assert!(back.hash().same(&token.hash()));
        }
    }

    #[test]
    fn texts_that_are_no_token_are_none() {
        let a = "A".repeat(42);
        for (text, why) in [
            (String::new(), "empty"),
            (a.clone(), "short"),
            (format!("{a}AA"), "long"),
            (format!("{a}B"), "pad bits set: a second text of the same bytes"),
            (format!("{a}="), "padding"),
            (format!("+{}", "A".repeat(42)), "the other base64"),
            (format!("{} A", "A".repeat(41)), "space"),
            (format!("ä{}", "A".repeat(41)), "43 bytes, 42 characters"),
        ] {
            assert!(LinkToken::parse(&text).is_none(), "{why}");
        }
        assert!(LinkToken::parse(&format!("{a}A")).is_some(), "the good neighbour");
    }

    #[test]
    fn hashes_are_known_and_tell_tokens_apart() {
        // Links in mailboxes outlive releases: the hash must not change.
        let token = LinkToken::parse(&"A".repeat(43)).unwrap();
        let known = "0f007385b6f9d4b7eeb2748605afe1a984a0a3bfa3f014d09e2a784ce9e5cd1a";
        assert_eq!(data_encoding::HEXLOWER.encode(token.hash().as_bytes()), known);
        let other = LinkToken::from_random(Zeroizing::new([1; 32]));
        assert!(!token.hash().same(&other.hash()));
    }

    #[test]
    fn a_check_code_leads_back_to_the_start_of_its_hash() {
        let hash = LinkToken::parse(&"A".repeat(43)).unwrap().hash();
        let code = hash.check_code();
        // Notices in mailboxes outlive releases: the code must not change.
        assert_eq!(code, "bzbb-kfmh-rjzn");
        let start: [u8; 6] = hash.as_bytes()[..6].try_into().unwrap();
        let spoken = code.to_uppercase().replace('-', " ");
        for typed in [code.clone(), spoken, format!("  {code}. "), code.replace('-', "")] {
            assert_eq!(TokenHash::parse_check_code(&typed), Some(start), "{typed}");
        }
        let (short, long) = (code.trim_end_matches('n').to_owned(), format!("{code}b"));
        for typed in ["", "abcd-efgh-jkmn", "bcdf", "1234-5678-9012", &short, &long] {
            assert_eq!(TokenHash::parse_check_code(typed), None, "{typed}");
        }
    }

    #[test]
    fn a_code_is_bound_to_its_salt() {
        let hash = TokenHash::of_code("123456", b"session");
        assert!(hash.same(&TokenHash::of_code("123456", b"session")));
        for (code, salt, why) in [
            ("123457", b"session".as_slice(), "another code"),
            ("123456", b"Session", "another session"),
            ("23456", b"session1", "a border moved"),
            ("", b"session123456", "all in the salt"),
        ] {
            assert!(!hash.same(&TokenHash::of_code(code, salt)), "{why}");
        }
    }

    #[test]
    fn debug_prints_no_token() {
        let token = LinkToken::from_random(Zeroizing::new([1; 32]));
        assert_eq!(format!("{token:?} {:?}", token.hash()), "LinkToken(..) TokenHash(..)");
    }
}
