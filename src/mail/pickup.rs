//! The second channel: what a reader must prove beyond the mailbox, and the header field by which a
//! sender asks for it (`X-Restante-Pickup`). The field holds a secret, so it is taken off as the
//! message streams in: neither a next hop nor a reader ever gets it.

use crate::mail::header::{Begins, Fields, begins};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// How a reader proves himself beyond the mailbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pickup {
    /// By the mailbox alone: a mailed code at registration.
    #[default]
    Code,
    /// By a phrase that the sender tells him.
    Phrase,
    /// By a code in a text message.
    Sms,
    /// By a passkey that his account had before the message came, from an owner who had shown a phrase
    /// or such a code.
    Passkey,
}

impl Pickup {
    /// Names in policy files, in the order of the manual.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("code", Self::Code),
        ("phrase", Self::Phrase),
        ("sms", Self::Sms),
        ("passkey", Self::Passkey),
    ];

    /// True for the default, which is not stored.
    pub const fn is_code(&self) -> bool {
        matches!(self, Self::Code)
    }
}

/// What the sender's field names: the channel, and the phrase or the telephone number.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PickupWish {
    /// The channel.
    pub kind: Pickup,
    /// The phrase as it is compared, or the number in the form of E.164.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

impl fmt::Debug for PickupWish {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PickupWish").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Drop for PickupWish {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// The field can't be understood. It says nothing of what stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("X-Restante-Pickup is not understood")]
pub struct NotUnderstood;

/// The field's name.
const NAME: &str = "X-Restante-Pickup";
/// Bytes of the field's value that are read; a longer one is not understood.
const LONGEST: usize = 1024;
/// Letters and digits of a phrase: fewer are guessed too easily, even with ten tries.
const SHORTEST_PHRASE: usize = 8;
/// Digits of a telephone number (ITU-T E.164 §6: fifteen at most).
const NUMBER: std::ops::RangeInclusive<usize> = 7..=15;

impl PickupWish {
    /// Reads the field's raw value.
    fn read(value: &[u8]) -> Result<Self, NotUnderstood> {
        if value.len() > LONGEST {
            return Err(NotUnderstood);
        }
        // Mail programs write words beyond ASCII as encoded words (RFC 2047).
        let field = Zeroizing::new([NAME.as_bytes(), b":", value, b"\r\n\r\n"].concat());
        let value = Zeroizing::new(Fields::parse(&field).first(NAME).ok_or(NotUnderstood)?);
        let (word, secret) = match value.split_once(':') {
            Some((word, secret)) => (word, Some(secret.trim())),
            None => (value.as_str(), None),
        };
        let (kind, secret) = match (word.trim().to_ascii_lowercase().as_str(), secret) {
            ("phrase", None) => (Pickup::Phrase, None),
            ("phrase", Some(words)) => {
                let phrase = comparable(words);
                if phrase.chars().count() < SHORTEST_PHRASE {
                    return Err(NotUnderstood);
                }
                (Pickup::Phrase, Some(phrase.to_string()))
            }
            ("sms", Some(number)) => (Pickup::Sms, Some(e164(number).ok_or(NotUnderstood)?)),
            ("passkey", None) => (Pickup::Passkey, None),
            _ => return Err(NotUnderstood),
        };
        Ok(Self { kind, secret })
    }
}

/// A phrase without what gets lost when it is told by telephone and typed: case, spaces, hyphens and
/// all else that is no letter and no digit.
pub fn comparable(typed: &str) -> Zeroizing<String> {
    let letters = typed.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase);
    Zeroizing::new(letters.collect())
}

/// `+` and digits; spaces, hyphens, dots and brackets between them are left out.
fn e164(text: &str) -> Option<String> {
    let digits: String = text
        .strip_prefix('+')?
        .chars()
        .filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')' | '\u{a0}'))
        .collect();
    let right = NUMBER.contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    right.then(|| format!("+{digits}"))
}

/// Takes the field out of a message that streams by; all other bytes pass unchanged. Sans-I/O: fed
/// in any portions, same result.
#[derive(Default)]
pub struct PickupField {
    at: At,
    /// The start of a line that may become the field, or is the empty line.
    held: Vec<u8>,
    /// The value of the field, line ends included.
    value: Zeroizing<Vec<u8>>,
    /// Fields of this name so far.
    found: usize,
}

#[derive(Debug, Clone, Copy, Default)]
enum At {
    /// In a line of which `held` is the start.
    #[default]
    Start,
    /// In another line, passed on as it comes.
    Line,
    /// In the field.
    Field,
    /// In the field, behind a line end: the next byte tells whether it goes on.
    FieldLineEnd,
    /// Behind the header section.
    Body,
}

impl fmt::Debug for PickupField {
    /// Where it stands; nothing of the message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PickupField").field("at", &self.at).finish_non_exhaustive()
    }
}

impl PickupField {
    /// True once nothing more is looked for: what comes now passes.
    pub fn is_over(&self) -> bool {
        matches!(self.at, At::Body)
    }

    /// Appends to `out` what of the message, `bytes` included, is known to stay.
    pub fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some((&byte, tail)) = rest.split_first() {
            match self.at {
                At::Body => return out.extend_from_slice(rest),
                At::Start => self.start(byte, out),
                At::Line => {
                    out.push(byte);
                    self.at = if byte == b'\n' { At::Start } else { At::Line };
                }
                At::FieldLineEnd if !matches!(byte, b' ' | b'\t') => self.start(byte, out),
                At::Field | At::FieldLineEnd => self.field(byte),
            }
            rest = tail;
        }
    }

    /// The message has ended: appends what was held back, and says what the field asks for.
    ///
    /// # Errors
    /// [`NotUnderstood`], also where the field stands twice.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<Option<PickupWish>, NotUnderstood> {
        out.append(&mut self.held);
        match self.found {
            0 => Ok(None),
            1 => PickupWish::read(&self.value).map(Some),
            _ => Err(NotUnderstood),
        }
    }

    fn start(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.at = At::Start;
        self.held.push(byte);
        match begins(&self.held, NAME, LONGEST) {
            Begins::Unclear => {}
            Begins::Field => {
                self.held.clear();
                self.found = self.found.saturating_add(1);
                self.at = At::Field;
            }
            Begins::EmptyLine => {
                out.append(&mut self.held);
                self.at = At::Body;
            }
            Begins::Other => {
                out.append(&mut self.held);
                self.at = if byte == b'\n' { At::Start } else { At::Line };
            }
        }
    }

    fn field(&mut self, byte: u8) {
        self.at = if byte == b'\n' { At::FieldLineEnd } else { At::Field };
        if self.value.len() <= LONGEST {
            self.value.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn passed(
        message: &[u8],
        portion: usize,
    ) -> (Vec<u8>, Result<Option<PickupWish>, NotUnderstood>) {
        let (mut field, mut out) = (PickupField::default(), Vec::new());
        for piece in message.chunks(portion) {
            field.feed(piece, &mut out);
        }
        let wish = field.finish(&mut out);
        (out, wish)
    }

    #[test]
    fn the_field_is_taken_off_and_nothing_else() {
        for (before, after, why) in [
            (
                "A: b\r\nX-Restante-Pickup: phrase\r\nC: d\r\n\r\nx",
                "A: b\r\nC: d\r\n\r\nx",
                "between",
            ),
            (
                "x-restante-PICKUP : phrase\r\n\r\nx",
                "\r\nx",
                "in any case, spaces before the colon",
            ),
            (
                "X-Restante-Pickup: phrase:\r\n blue\r\n\tsteps seven\r\nC: d\r\n\r\n",
                "C: d\r\n\r\n",
                "folded",
            ),
            (
                "A: b\r\n\r\nX-Restante-Pickup: phrase\r\n",
                "A: b\r\n\r\nX-Restante-Pickup: phrase\r\n",
                "in the body it is text",
            ),
            ("X-Restante-Pickups: a\r\n\r\n", "X-Restante-Pickups: a\r\n\r\n", "another name"),
            ("X-Restante-Pick", "X-Restante-Pick", "a message that ends in the name"),
        ] {
            for portion in [1, 3, 1000] {
                let (out, _) = passed(before.as_bytes(), portion);
                assert_eq!(String::from_utf8(out).unwrap(), after, "{why}");
            }
        }
    }

    #[test]
    fn what_a_sender_may_ask_for() {
        for (value, kind, secret) in [
            ("phrase", Pickup::Phrase, None),
            (" PHRASE: Blue Steps-seven", Pickup::Phrase, Some("bluestepsseven")),
            ("phrase: =?utf-8?q?gr=C3=BCne_B=C3=A4ume?=", Pickup::Phrase, Some("grünebäume")),
            ("sms: +41 (79) 555-01.02", Pickup::Sms, Some("+41795550102")),
            ("passkey", Pickup::Passkey, None),
        ] {
            let message = format!("X-Restante-Pickup: {value}\r\n\r\n");
            let wish = passed(message.as_bytes(), 1000).1.unwrap().unwrap();
            assert_eq!((wish.kind, wish.secret.as_deref()), (kind, secret), "{value}");
            assert!(!format!("{wish:?}").contains("steps"), "{wish:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_no_wish() {
        let long = format!("phrase: {}", "a".repeat(2000));
        for value in [
            "",
            "code",
            "phrase: a b c",
            "phrase:",
            "sms",
            "sms: 079 555 01 02",
            "sms: +41x",
            "sms: +1",
            "passkey: x",
            "fax: +41795550102",
            &long,
        ] {
            let message = format!("X-Restante-Pickup: {value}\r\n\r\n");
            assert_eq!(passed(message.as_bytes(), 1000).1, Err(NotUnderstood), "{value}");
        }
        let twice = b"X-Restante-Pickup: phrase\r\nX-Restante-Pickup: passkey\r\n\r\n";
        assert_eq!(passed(twice, 1000).1, Err(NotUnderstood), "which of the two counts?");
        assert_eq!(passed(b"A: b\r\n\r\n", 1000).1, Ok(None));
    }

    proptest! {
        #[test]
        fn messages_without_the_field_pass_unchanged(
            text in "([A-Zx: \r\n-]|X-Restante-Pick){0,200}", portion in 1..50_usize,
        ) {
            prop_assert_eq!(passed(text.as_bytes(), portion).0, text.as_bytes());
        }
    }
}
