//! Tickets: a few bytes that we hand out inside a link and must know again, sealed so that nobody
//! else can make, read or change one. Nothing of them is stored.

use chacha20poly1305::{AeadInOut, KeyInit, XChaCha20Poly1305, XNonce};
use data_encoding::BASE64URL_NOPAD;
use std::fmt;
use zeroize::Zeroizing;

/// Bytes of the nonce before the sealed content.
const NONCE: usize = 24;
/// Characters of a ticket at most.
const MAX_TEXT: usize = 512;
/// What the tickets of this version are sealed for.
const PURPOSE: &[u8] = b"restante ticket 1";

/// What tickets are sealed with. It lives as long as the process, and so do its tickets.
pub struct TicketKey(Zeroizing<[u8; 32]>);

impl TicketKey {
    /// From 32 random bytes.
    pub fn from_random(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// A ticket that holds `content`, in characters that a URL can carry; `nonce` is random and new.
    /// `None` for more content than a ticket holds.
    pub fn seal(&self, nonce: [u8; NONCE], content: &[u8]) -> Option<String> {
        let mut sealed = content.to_vec();
        let cipher = XChaCha20Poly1305::new((&*self.0).into());
        cipher.encrypt_in_place(&XNonce::from(nonce), PURPOSE, &mut sealed).ok()?;
        let text = BASE64URL_NOPAD.encode(&[nonce.as_slice(), &sealed].concat());
        (text.len() <= MAX_TEXT).then_some(text)
    }

    /// What a ticket holds; `None` for what this key has not sealed.
    pub fn open(&self, text: &str) -> Option<Vec<u8>> {
        let text = Some(text).filter(|text| text.len() <= MAX_TEXT)?;
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>()?;
        let mut content = sealed.to_vec();
        let cipher = XChaCha20Poly1305::new((&*self.0).into());
        cipher.decrypt_in_place(&XNonce::from(*nonce), PURPOSE, &mut content).ok()?;
        Some(content)
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_opens_unchanged_and_under_its_own_key_alone() {
        let key = TicketKey::from_random(Zeroizing::new([7; 32]));
        let other = TicketKey::from_random(Zeroizing::new([8; 32]));
        let text = key.seal([1; NONCE], b"what it is for").unwrap();
        assert_eq!(key.open(&text).as_deref(), Some(b"what it is for".as_slice()));
        assert_eq!(other.open(&text), None);
        assert_ne!(key.seal([2; NONCE], b"what it is for").unwrap(), text);
        assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{text}");
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(key.open(std::str::from_utf8(&changed).unwrap()), None, "character {at}");
            assert_eq!(key.open(text.get(..at).unwrap()), None, "cut at {at}");
        }
        for strange in ["", "A", "ä", &"A".repeat(43), &"A".repeat(100_000)] {
            assert_eq!(key.open(strange), None);
        }
        assert_eq!(key.seal([1; NONCE], &[0; 1000]), None, "more than a link should carry");
        assert_eq!(format!("{key:?}"), "TicketKey");
    }
}
