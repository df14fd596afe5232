//! Names of messages and grants.

use data_encoding::BASE32HEX_NOPAD;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A message's id in queue and vault: 16 bytes in `UUIDv7` order (time first), shown as 26
/// characters of lower-case base32hex (RFC 4648 §7), so that text and bytes sort alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct QueueId([u8; 16]);

/// A grant's id, the one that a recipient sees at the portal; never the queue id. 16 bytes with their
/// time first too, so that new ones lie side by side in a store; shown likewise. It opens nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GrantId([u8; 16]);

impl QueueId {
    /// From a time (milliseconds since 1970) and ten random bytes, laid out as RFC 9562 §5.7 says.
    pub fn new(unix_millis: u64, random: [u8; 10]) -> Self {
        let [_, _, t0, t1, t2, t3, t4, t5] = unix_millis.to_be_bytes();
        let [r0, r1, r2, r3, r4, r5, r6, r7, r8, r9] = random;
        let (version, variant) = ((r0 & 0x0f) | 0x70, (r2 & 0x3f) | 0x80);
        Self([t0, t1, t2, t3, t4, t5, version, r1, variant, r3, r4, r5, r6, r7, r8, r9])
    }
    /// The bytes, as stored.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
    /// From stored bytes.
    pub const fn from_bytes(b: [u8; 16]) -> Self {
        Self(b)
    }
}
impl GrantId {
    /// From stored bytes, or those of an id that is nobody's.
    pub const fn from_bytes(b: [u8; 16]) -> Self {
        Self(b)
    }
    /// The bytes, as stored.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// A text that is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id: 26 characters of 0-9 and a-v are expected")]
pub struct IdError;

/// Strict: one text per id, so that ids can be compared as text (upper case and set spare bits are
/// refused).
fn decode(text: &str) -> Result<[u8; 16], IdError> {
    if text.len() != 26 || text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(IdError);
    }
    let bytes =
        BASE32HEX_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| IdError)?;
    bytes.try_into().map_err(|_| IdError)
}

macro_rules! text {
    ($t:ty) => {
        impl FromStr for $t {
            type Err = IdError;
            fn from_str(s: &str) -> Result<Self, IdError> {
                decode(s).map(Self)
            }
        }
        impl TryFrom<String> for $t {
            type Error = IdError;
            fn try_from(s: String) -> Result<Self, IdError> {
                s.parse()
            }
        }
        impl From<$t> for String {
            fn from(i: $t) -> Self {
                i.to_string()
            }
        }
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&BASE32HEX_NOPAD.encode(&self.0).to_ascii_lowercase())
            }
        }
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}
text!(QueueId);
text!(GrantId);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout_is_uuid_v7() {
        let id = QueueId::new(0x0123_4567_89ab, [0xff; 10]);
        assert_eq!(id.as_bytes()[..6], [0x01, 0x23, 0x45, 0x67, 0x89, 0xab]);
        assert_eq!(id.as_bytes()[6], 0x7f, "version 7");
        assert_eq!(id.as_bytes()[8], 0xbf, "variant 10");
    }

    #[test]
    fn later_sorts_later() {
        let early = QueueId::new(1_000, [0xff; 10]);
        let late = QueueId::new(1_001, [0; 10]);
        assert!(early < late && early.to_string() < late.to_string());
    }

    #[test]
    fn refused() {
        let good = GrantId::from_bytes([7; 16]).to_string();
        assert_eq!(good.len(), 26);
        let cut = |n: usize| good.chars().take(n).collect::<String>();
        for (text, why) in [
            (String::new(), "empty"),
            (cut(25), "one short"),
            (format!("{good}0"), "one long"),
            (good.to_uppercase(), "upper case"),
            (format!("{}w", cut(25)), "w is not in the alphabet"),
            (format!("{}1", cut(25)), "spare bits set"),
            (format!("{}é", cut(24)), "not ASCII"),
        ] {
            assert_eq!(text.parse::<GrantId>(), Err(IdError), "{why}");
        }
    }

    proptest! {
        #[test]
        fn text_and_bytes_agree(a: [u8; 16], b: [u8; 16]) {
            let (x, y) = (QueueId::from_bytes(a), QueueId::from_bytes(b));
            prop_assert_eq!(x.to_string().parse(), Ok(x));
            prop_assert_eq!(x.cmp(&y), x.to_string().cmp(&y.to_string()));
        }
    }
}
