//! The key ring: wraps each message's data key; rotating adds a key and re-wraps data keys, never
//! bodies.

use crate::{mail::QueueId, seal::stream::MAGIC};
use chacha20poly1305::{AeadInOut, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::{self, Write};
use zeroize::Zeroizing;

/// First line of a ring's text that is no comment.
const TITLE: &str = "restante-keys 1";
/// Keys in a ring at most: one a day for eleven years.
const MAX_KEYS: usize = 4096;

/// Number of a ring key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyId(pub u32);

/// A message's data key: 256 random bits, zeroed on drop.
pub struct DataKey(Zeroizing<[u8; 32]>);

/// What a wrapped key is for. It is associated data of the wrap: a key that was wrapped for one
/// purpose opens for no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A message's body, for the gateway itself.
    Message = 1,
    /// The secret of an account's one-time passwords.
    Seed = 2,
}

/// A data key wrapped by a ring key: purpose (1 byte), key number (4, big-endian), nonce (24),
/// ciphertext and tag (48) of XChaCha20-Poly1305. Format version, purpose, id and key number are
/// associated data. A wrap of format 1 has no purpose, neither stored nor authenticated.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct WrappedKey {
    /// `None`: format 1.
    purpose: Option<Purpose>,
    sealed: [u8; Self::LEN_1],
}

/// All keys by number; the highest is current.
#[derive(Clone)]
pub struct KeyRing {
    newest: RingKey,
    older: Vec<RingKey>,
}

#[derive(Clone)]
struct RingKey {
    id: KeyId,
    key: Zeroizing<[u8; 32]>,
}

/// Why a key-ring text is none, or a key does not open.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// Text that is no key ring: line and what is wrong. Never says what stands there: it may be a
    /// key.
    #[error("line {line}: {what}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// What is wrong, and what to write instead.
        what: String,
    },
    /// The ring lacks the key that wrapped this.
    #[error("the key ring has no key {}", .0.0)]
    NoSuchKey(KeyId),
    /// Wrong key or damaged: it does not open.
    #[error("the wrapped key does not open: not the key ring that sealed it, or damaged")]
    DoesNotOpen,
    /// No key can be added.
    #[error("the key ring is full: {MAX_KEYS} keys, or no higher number")]
    Full,
}

impl DataKey {
    /// From 32 random bytes.
    pub fn from_random(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Purpose {
    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Message),
            2 => Some(Self::Seed),
            _ => None,
        }
    }
}

impl WrappedKey {
    /// Length of the stored form.
    pub const LEN: usize = 1 + Self::LEN_1;
    /// Length of the stored form in format 1.
    pub const LEN_1: usize = 4 + 24 + 48;

    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.purpose.map(|purpose| purpose as u8).into_iter().chain(self.sealed).collect()
    }

    /// From the stored form, whose length tells the format; `None` for another length, an unknown
    /// purpose, and the zeroes of a destroyed key.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (purpose, sealed) = match bytes.len() {
            Self::LEN_1 => (None, bytes),
            Self::LEN => {
                let (purpose, sealed) = bytes.split_first()?;
                (Some(Purpose::of(*purpose)?), sealed)
            }
            _ => return None,
        };
        let sealed: [u8; Self::LEN_1] = sealed.try_into().ok()?;
        sealed.iter().any(|b| *b != 0).then_some(Self { purpose, sealed })
    }

    /// The ring key that wrapped it.
    pub fn key(&self) -> KeyId {
        KeyId(self.sealed.first_chunk().map_or(0, |number| u32::from_be_bytes(*number)))
    }

    /// True for a wrap of format 1.
    pub const fn is_format_1(&self) -> bool {
        self.purpose.is_none()
    }
}

impl TryFrom<Vec<u8>> for WrappedKey {
    type Error = &'static str;
    fn try_from(bytes: Vec<u8>) -> Result<Self, Self::Error> {
        Self::from_bytes(&bytes).ok_or("not a wrapped key")
    }
}

impl From<WrappedKey> for Vec<u8> {
    fn from(key: WrappedKey) -> Self {
        key.to_bytes()
    }
}

impl KeyRing {
    /// A new ring with one key of 32 random bytes.
    pub fn generate(random: Zeroizing<[u8; 32]>) -> Self {
        Self { newest: RingKey { id: KeyId(1), key: random }, older: Vec::new() }
    }

    /// Parses the text of a ring file: comments, the line `restante-keys 1`, then a line `NUMBER
    /// HEX` for each key, numbers rising from 1 on, 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, RingError> {
        let mut lines = text
            .lines()
            .enumerate()
            .map(|(at, line)| (at + 1, line.trim()))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        match lines.next() {
            Some((_, TITLE)) => {}
            Some((line, _)) => return syntax(line, &format!("expected \"{TITLE}\"")),
            None => return syntax(1, &format!("empty; expected \"{TITLE}\"")),
        }
        let mut last = 1;
        let mut keys: Vec<RingKey> = Vec::new();
        for (line, entry) in lines {
            let key = parse_key(line, entry)?;
            if keys.last().is_some_and(|before| before.id >= key.id) {
                return syntax(line, "key numbers must rise from line to line");
            }
            if keys.len() == MAX_KEYS {
                return syntax(line, &format!("more than {MAX_KEYS} keys"));
            }
            keys.push(key);
            last = line;
        }
        match keys.pop() {
            Some(newest) => Ok(Self { newest, older: keys }),
            None => syntax(last, "no key; expected a line \"1 HEX\" with 64 hexadecimal digits"),
        }
    }

    /// The text of the ring file.
    pub fn to_text(&self) -> Zeroizing<String> {
        const COMMENT: &str = "\
            # Key ring of Restante. Whoever has this file and the data directory can read every\n\
            # sealed message; without it nobody can. Keep a copy apart from the data, mode 0600.\n";
        // Room for all of it at once: growing would leave copies of keys behind.
        let room = COMMENT.len() + TITLE.len() + 1 + (self.older.len() + 1) * (10 + 1 + 64 + 1);
        let mut text = Zeroizing::new(String::with_capacity(room));
        text.push_str(COMMENT);
        text.push_str(TITLE);
        text.push('\n');
        for RingKey { id, key } in self.keys() {
            let hex = Zeroizing::new(HEX.encode(key.as_slice()));
            // Writing to a String does not fail.
            let _ = writeln!(text, "{} {}", id.0, hex.as_str());
        }
        text
    }

    /// The current key.
    pub fn current(&self) -> KeyId {
        self.newest.id
    }

    /// The other keys, in order.
    pub fn older(&self) -> Vec<KeyId> {
        self.older.iter().map(|key| key.id).collect()
    }

    /// The same ring with one key more, of 32 random bytes and the next number; it is current.
    ///
    /// # Errors
    /// [`RingError::Full`]
    pub fn with_key(&self, random: Zeroizing<[u8; 32]>) -> Result<Self, RingError> {
        let id = self.newest.id.0.checked_add(1).map(KeyId).ok_or(RingError::Full)?;
        if self.older.len() + 1 >= MAX_KEYS {
            return Err(RingError::Full);
        }
        let older = self.keys().cloned().collect();
        Ok(Self { newest: RingKey { id, key: random }, older })
    }

    /// The same ring without those of its older keys.
    #[must_use]
    pub fn without(&self, retired: &[KeyId]) -> Self {
        let stays = |key: &&RingKey| !retired.contains(&key.id);
        let older = self.older.iter().filter(stays).cloned().collect();
        Self { newest: self.newest.clone(), older }
    }

    /// A hash of each key, with its number: it names the key without revealing it.
    pub fn hashes(&self) -> Vec<(KeyId, [u8; 32])> {
        let hash = |RingKey { id, key }: &RingKey| {
            let hash = Sha256::new_with_prefix(b"restante ring key")
                .chain_update(id.0.to_be_bytes())
                .chain_update(key.as_slice());
            (*id, hash.finalize().into())
        };
        self.keys().map(hash).collect()
    }

    /// True if one hash over all keys up to some number is that: how earlier versions named a ring.
    pub fn began_as(&self, fingerprint: &[u8; 32]) -> bool {
        let mut all = Sha256::new_with_prefix(b"restante key ring");
        self.keys().any(|RingKey { id, key }| {
            all.update(id.0.to_be_bytes());
            all.update(Sha256::digest(key.as_slice()));
            all.clone().finalize().as_slice() == fingerprint
        })
    }

    /// Wraps a data key for that purpose. `id` is the message's, or the owner's of a seed.
    pub fn wrap(
        &self,
        key: &DataKey,
        purpose: Purpose,
        id: QueueId,
        nonce: [u8; 24],
    ) -> WrappedKey {
        self.wrap_as(key, Some(purpose), id, nonce)
    }

    /// Wraps again, by the current key and in the same format, what serves that purpose.
    ///
    /// # Errors
    /// As [`KeyRing::unwrap`].
    pub fn rewrap(
        &self,
        wrapped: &WrappedKey,
        purpose: Purpose,
        id: QueueId,
        nonce: [u8; 24],
    ) -> Result<WrappedKey, RingError> {
        let key = self.unwrap(wrapped, purpose, id)?;
        Ok(self.wrap_as(&key, wrapped.purpose, id, nonce))
    }

    #[expect(clippy::expect_used, reason = "32 bytes lie far below the cipher's limit")]
    fn wrap_as(
        &self,
        key: &DataKey,
        purpose: Option<Purpose>,
        id: QueueId,
        nonce: [u8; 24],
    ) -> WrappedKey {
        let number = self.newest.id;
        let mut wrapped = key.0.clone();
        let tag = XChaCha20Poly1305::new((&*self.newest.key).into())
            .encrypt_inout_detached(
                &XNonce::from(nonce),
                &associated(purpose, id, number),
                wrapped.as_mut_slice().into(),
            )
            .expect("shorter than the cipher's limit");
        let mut sealed = [0; WrappedKey::LEN_1];
        let parts = [number.0.to_be_bytes().as_slice(), &nonce, wrapped.as_slice(), &tag].concat();
        sealed.copy_from_slice(&parts);
        WrappedKey { purpose, sealed }
    }

    /// Opens a wrapped key that serves that purpose.
    pub fn unwrap(
        &self,
        wrapped: &WrappedKey,
        purpose: Purpose,
        id: QueueId,
    ) -> Result<DataKey, RingError> {
        if wrapped.purpose.is_some_and(|stored| stored != purpose) {
            return Err(RingError::DoesNotOpen);
        }
        let number = wrapped.key();
        let ring = self.keys().find(|key| key.id == number).ok_or(RingError::NoSuchKey(number))?;
        let (nonce, sealed, tag) = split(wrapped).ok_or(RingError::DoesNotOpen)?;
        let mut key = Zeroizing::new(*sealed);
        XChaCha20Poly1305::new((&*ring.key).into())
            .decrypt_inout_detached(
                &XNonce::from(*nonce),
                &associated(wrapped.purpose, id, number),
                key.as_mut_slice().into(),
                &Tag::from(*tag),
            )
            .map_err(|_| RingError::DoesNotOpen)?;
        Ok(DataKey(key))
    }

    fn keys(&self) -> impl Iterator<Item = &RingKey> {
        self.older.iter().chain([&self.newest])
    }
}

fn split(wrapped: &WrappedKey) -> Option<(&[u8; 24], &[u8; 32], &[u8; 16])> {
    let (_, rest) = wrapped.sealed.split_first_chunk::<4>()?;
    let (nonce, rest) = rest.split_first_chunk::<24>()?;
    let (sealed, tag) = rest.split_first_chunk::<32>()?;
    Some((nonce, sealed, tag.first_chunk::<16>()?))
}

/// Format 1: magic, version, id, key number. Format 2 has the purpose between version and id.
fn associated(purpose: Option<Purpose>, id: QueueId, key: KeyId) -> Vec<u8> {
    let format: &[u8] = match purpose {
        None => &[1],
        Some(purpose) => &[2, purpose as u8],
    };
    [MAGIC.as_slice(), format, id.as_bytes(), &key.0.to_be_bytes()].concat()
}

fn parse_key(line: usize, entry: &str) -> Result<RingKey, RingError> {
    let form = "expected a key's number and 64 hexadecimal digits";
    let Some((number, hex)) = entry.split_once([' ', '\t']) else { return syntax(line, form) };
    let id = match number.parse() {
        Ok(number) if number > 0 => KeyId(number),
        Ok(_) | Err(_) => return syntax(line, "a key's number is 1 or more"),
    };
    let mut key = Zeroizing::new([0; 32]);
    let hex = hex.trim_start().as_bytes();
    if HEX.decode_len(hex.len()) != Ok(key.len()) || HEX.decode_mut(hex, key.as_mut()).is_err() {
        return syntax(line, form);
    }
    Ok(RingKey { id, key })
}

fn syntax<T>(line: usize, what: &str) -> Result<T, RingError> {
    Err(RingError::Syntax { line, what: what.to_owned() })
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(..)")
    }
}

impl fmt::Debug for WrappedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrappedKey(..)")
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRing(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: QueueId = QueueId::from_bytes([7; 16]);
    const OTHER: QueueId = QueueId::from_bytes([8; 16]);
    const K1: &str = "1111111111111111111111111111111111111111111111111111111111111111";
    const K2: &str = "2222222222222222222222222222222222222222222222222222222222222222";

    fn data_key() -> DataKey {
        DataKey::from_random(Zeroizing::new([0xd5; 32]))
    }

    fn two() -> KeyRing {
        KeyRing::parse(&format!("{TITLE}\n1 {K1}\n7 {K2}\n")).unwrap()
    }

    #[test]
    fn texts_that_are_rings_come_back_the_same() {
        for (text, current, why) in [
            (format!("{TITLE}\n1 {K1}\n"), 1, "one key"),
            (format!("# c\n\n{TITLE}\n1 {K1}\n# old\n7\t{K2}"), 7, "comments, a tab, no last LF"),
            (format!("{TITLE}\r\n 3  {} \r\n", "AB".repeat(32)), 3, "CRLF, spaces, capitals"),
        ] {
            let ring = KeyRing::parse(&text).expect(why);
            assert_eq!(ring.current(), KeyId(current), "{why}");
            let again = KeyRing::parse(&ring.to_text()).expect(why);
            assert_eq!(again.hashes(), ring.hashes(), "{why}");
        }
    }

    #[test]
    fn texts_that_are_none_are_refused_by_line_and_never_quoted() {
        let short = K1.get(1..).unwrap();
        for (text, at, why) in [
            (String::new(), 1, "empty"),
            ("# only\n".to_owned(), 1, "comments only"),
            (format!("1 {K1}\n"), 1, "no title"),
            (format!("restante-keys 2\n1 {K1}\n"), 1, "a later version"),
            (format!("{TITLE}\n"), 1, "no key"),
            (format!("{TITLE}\n{K1}\n"), 2, "no number"),
            (format!("{TITLE}\n0 {K1}\n"), 2, "number 0"),
            (format!("{TITLE}\n-1 {K1}\n"), 2, "negative"),
            (format!("{TITLE}\n4294967296 {K1}\n"), 2, "33 bits"),
            (format!("{TITLE}\n1 {short}\n"), 2, "63 digits"),
            (format!("{TITLE}\n1 {K1}11\n"), 2, "66 digits"),
            (format!("{TITLE}\n1 g{short}\n"), 2, "no digit"),
            (format!("{TITLE}\n1 {K1}\n1 {K2}\n"), 3, "twice"),
            (format!("{TITLE}\n2 {K1}\n# x\n1 {K2}\n"), 4, "falling"),
        ] {
            match KeyRing::parse(&text) {
                Err(RingError::Syntax { line, what }) => {
                    assert_eq!(line, at, "{why}: {what}");
                    assert!(!what.contains("1111") && !what.contains("2222"), "{why}: {what}");
                }
                other => panic!("{why}: {other:?}"),
            }
        }
        let many: String = (1..=MAX_KEYS + 1).map(|n| format!("{n} {K1}\n")).collect();
        assert!(KeyRing::parse(&format!("{TITLE}\n{many}")).is_err(), "too many keys");
    }

    #[test]
    fn a_wrapped_key_opens_for_its_message_under_its_ring_only() {
        let wrapped = two().wrap(&data_key(), Purpose::Message, ID, [9; 24]);
        assert_eq!(wrapped.key(), KeyId(7), "the highest is current");
        assert_eq!(two().unwrap(&wrapped, Purpose::Message, ID).unwrap().bytes(), &[0xd5; 32]);

        assert!(matches!(
            two().unwrap(&wrapped, Purpose::Message, OTHER),
            Err(RingError::DoesNotOpen)
        ));
        let first = KeyRing::parse(&format!("{TITLE}\n1 {K1}\n")).unwrap();
        assert!(matches!(
            first.unwrap(&wrapped, Purpose::Message, ID),
            Err(RingError::NoSuchKey(KeyId(7)))
        ));
        let swapped = KeyRing::parse(&format!("{TITLE}\n1 {K2}\n7 {K1}\n")).unwrap();
        assert!(matches!(
            swapped.unwrap(&wrapped, Purpose::Message, ID),
            Err(RingError::DoesNotOpen)
        ));
        let old = first.wrap(&data_key(), Purpose::Message, ID, [9; 24]);
        assert!(two().unwrap(&old, Purpose::Message, ID).is_ok(), "an older key still opens");
    }

    #[test]
    fn any_flipped_bit_of_a_wrapped_key_is_noticed() {
        let wrapped = two().wrap(&data_key(), Purpose::Message, ID, [9; 24]);
        for at in 0..WrappedKey::LEN * 8 {
            let mut bytes = wrapped.to_bytes();
            bytes[at / 8] ^= 1 << (at % 8);
            let bad = WrappedKey::from_bytes(&bytes);
            let opened = bad.is_some_and(|bad| two().unwrap(&bad, Purpose::Message, ID).is_ok());
            assert!(!opened, "bit {at}");
        }
    }

    #[test]
    fn a_key_wrapped_for_one_purpose_opens_for_no_other() {
        let wrapped = two().wrap(&data_key(), Purpose::Seed, ID, [9; 24]);
        assert!(two().unwrap(&wrapped, Purpose::Seed, ID).is_ok());
        let refused = two().unwrap(&wrapped, Purpose::Message, ID);
        assert!(matches!(refused, Err(RingError::DoesNotOpen)));
        let mut bytes = wrapped.to_bytes();
        bytes[0] = Purpose::Message as u8;
        let moved = WrappedKey::from_bytes(&bytes).unwrap();
        assert!(two().unwrap(&moved, Purpose::Message, ID).is_err(), "relabelled");
        let stripped = WrappedKey::from_bytes(&wrapped.to_bytes()[1..]).unwrap();
        assert!(stripped.is_format_1());
        assert!(two().unwrap(&stripped, Purpose::Seed, ID).is_err(), "as if of format 1");
    }

    #[test]
    fn the_key_number_is_authenticated() {
        // Both numbers hold the same key: only the associated data tells them apart.
        let ring = KeyRing::parse(&format!("{TITLE}\n1 {K1}\n2 {K1}\n")).unwrap();
        let mut bytes = ring.wrap(&data_key(), Purpose::Message, ID, [9; 24]).to_bytes();
        bytes[4] = 1;
        let moved = WrappedKey::from_bytes(&bytes).unwrap();
        assert!(matches!(ring.unwrap(&moved, Purpose::Message, ID), Err(RingError::DoesNotOpen)));
    }

    #[test]
    fn stored_forms_of_another_length_or_destroyed_are_none() {
        for (bytes, why) in [
            (vec![], "empty"),
            (vec![1; WrappedKey::LEN_1 - 1], "short"),
            (vec![1; WrappedKey::LEN + 1], "long"),
            (vec![3; WrappedKey::LEN], "an unknown purpose"),
            (vec![0; WrappedKey::LEN], "destroyed"),
            (vec![0; WrappedKey::LEN_1], "destroyed, of format 1"),
        ] {
            assert!(WrappedKey::from_bytes(&bytes).is_none(), "{why}");
            let json = serde_json::to_string(&bytes).unwrap();
            assert!(serde_json::from_str::<WrappedKey>(&json).is_err(), "{why}");
        }
        let wrapped = two().wrap(&data_key(), Purpose::Message, ID, [9; 24]);
        let json = serde_json::to_string(&wrapped).unwrap();
        assert_eq!(serde_json::from_str::<WrappedKey>(&json).unwrap(), wrapped);
    }

    #[test]
    fn hashes_differ_by_key_and_number_and_reveal_nothing() {
        let one = KeyRing::parse(&format!("{TITLE}\n1 {K1}\n")).unwrap();
        let renumbered = KeyRing::parse(&format!("{TITLE}\n2 {K1}\n")).unwrap();
        let (hash, both) = (one.hashes()[0], two().hashes());
        assert_eq!((hash, both.len()), (both[0], 2));
        assert_ne!(hash.1, both[1].1);
        assert_ne!(hash.1, renumbered.hashes()[0].1);
        assert_ne!(hash.1, [0x11; 32]);
    }

    #[test]
    fn a_ring_is_known_by_the_fingerprint_of_what_it_was() {
        let one = KeyRing::parse(&format!("{TITLE}\n1 {K1}\n")).unwrap();
        // As the version that wrote it hashed key 1.
        let mut was = Sha256::new_with_prefix(b"restante key ring");
        was.update(1_u32.to_be_bytes());
        was.update(Sha256::digest([0x11; 32]));
        let was = was.finalize().into();
        assert!(one.began_as(&was) && two().began_as(&was));
        assert!(!KeyRing::parse(&format!("{TITLE}\n1 {K2}\n")).unwrap().began_as(&was));
        assert!(!two().without(&[KeyId(1)]).began_as(&was));
    }

    #[test]
    fn a_key_is_added_and_taken_away() {
        let ring = two().with_key(Zeroizing::new([3; 32])).unwrap();
        assert_eq!((ring.current(), ring.older()), (KeyId(8), vec![KeyId(1), KeyId(7)]));
        let old = two().wrap(&data_key(), Purpose::Message, ID, [9; 24]);
        let moved = ring.rewrap(&old, Purpose::Message, ID, [8; 24]).unwrap();
        let ring = ring.without(&[KeyId(1), KeyId(7), KeyId(8)]);
        assert_eq!((ring.current(), ring.older()), (KeyId(8), vec![]), "the current one stays");
        assert_eq!(ring.unwrap(&moved, Purpose::Message, ID).unwrap().bytes(), &[0xd5; 32]);
        assert!(matches!(
            ring.unwrap(&old, Purpose::Message, ID),
            Err(RingError::NoSuchKey(KeyId(7)))
        ));
        let last = KeyRing::parse(&format!("{TITLE}\n4294967295 {K1}\n")).unwrap();
        assert!(matches!(last.with_key(Zeroizing::new([3; 32])), Err(RingError::Full)));
    }

    #[test]
    fn what_is_wrapped_again_keeps_its_format() {
        let mut old = two().wrap_as(&data_key(), None, ID, [9; 24]);
        let ring = two().with_key(Zeroizing::new([3; 32])).unwrap();
        old = ring.rewrap(&old, Purpose::Message, ID, [8; 24]).unwrap();
        assert!(old.is_format_1());
        assert_eq!(old.key(), KeyId(8));
        assert_eq!(ring.unwrap(&old, Purpose::Message, ID).unwrap().bytes(), &[0xd5; 32]);
    }

    #[test]
    fn debug_prints_no_key() {
        let wrapped = two().wrap(&data_key(), Purpose::Message, ID, [9; 24]);
        assert_eq!(format!("{:?}", data_key()), "DataKey(..)");
        assert_eq!(format!("{:?} {wrapped:?}", two()), "KeyRing(..) WrappedKey(..)");
        assert_eq!(format!("{:#?}", two()), "KeyRing(..)");
    }
}
