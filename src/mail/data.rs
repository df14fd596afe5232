//! Mail data: the content of a message as SMTP transmits it (RFC 5321 §2.3.8, §3.3). CR and LF occur
//! together only, and NUL does not occur. A receiver with another idea of line ends finds no end of
//! data in it, and no command behind that (SMTP smuggling, CVE-2023-51764 and its kind).

use std::{fmt, ops::Deref};
use zeroize::Zeroize;

/// Octets of mail data. Whatever is appended, it holds no bare CR, no bare LF and no NUL: line ends
/// are written by [`MailData::end_line`] alone, and text ends before the first octet that is none.
#[derive(Clone, Default, PartialEq, Eq, Zeroize)]
pub struct MailData(Vec<u8>);

impl fmt::Debug for MailData {
    /// Its size; nothing of the message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MailData({} octets)", self.0.len())
    }
}

impl Deref for MailData {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<MailData> for Vec<u8> {
    fn from(data: MailData) -> Self {
        data.0
    }
}

impl MailData {
    /// Empty, with space for so many octets.
    pub fn with_capacity(octets: usize) -> Self {
        Self(Vec::with_capacity(octets))
    }

    /// `octets` with their line ends repaired.
    pub fn repaired(octets: &[u8]) -> Self {
        let mut data = Self::with_capacity(octets.len());
        data.push(octets);
        data
    }

    /// Appends the octets before the first CR, LF or NUL, and returns the others.
    pub fn push_text<'a>(&mut self, octets: &'a [u8]) -> &'a [u8] {
        let length = memchr::memchr3(b'\r', b'\n', 0, octets).unwrap_or(octets.len());
        let (text, rest) = octets.split_at(length);
        self.0.extend_from_slice(text);
        rest
    }

    /// Appends CRLF.
    pub fn end_line(&mut self) {
        self.0.extend_from_slice(b"\r\n");
    }

    /// Appends octets that are whole by themselves, with their line ends repaired.
    pub fn push(&mut self, octets: &[u8]) {
        let mut repair = LineEndRepair::default();
        repair.push(octets, self);
        repair.finish(self);
    }

    /// Removes everything; the space is kept.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// Repairs octets of unknown origin that come in pieces of any size: a CR, LF or CRLF becomes CRLF, a
/// NUL becomes `?`. Mail data passes unchanged.
#[derive(Debug, Default)]
pub struct LineEndRepair {
    /// The last octet was a CR, which is not given out before the next is known.
    cr: bool,
}

impl LineEndRepair {
    /// Appends the next octets to `out`.
    pub fn push(&mut self, octets: &[u8], out: &mut MailData) {
        let mut rest = octets;
        if self.cr && !rest.is_empty() {
            self.cr = false;
            out.end_line();
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        loop {
            rest = match out.push_text(rest) {
                [] => return,
                [b'\r'] => {
                    self.cr = true;
                    return;
                }
                [b'\r', b'\n', after @ ..] | [b'\r' | b'\n', after @ ..] => {
                    out.end_line();
                    after
                }
                [_, after @ ..] => {
                    out.push_text(b"?");
                    after
                }
            };
        }
    }

    /// The octets have ended.
    pub fn finish(self, out: &mut MailData) {
        if self.cr {
            out.end_line();
        }
    }
}

/// True if mail data may hold these octets.
#[cfg(test)]
pub(crate) fn is_mail_data(octets: &[u8]) -> bool {
    let text = String::from_utf8_lossy(octets).replace("\r\n", "");
    !text.contains(['\r', '\n', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn line_ends_are_repaired() {
        for (octets, repaired, why) in [
            ("a\r\nb\r\n", "a\r\nb\r\n", "mail data passes"),
            ("a\rb", "a\r\nb", "a bare CR"),
            ("a\nb", "a\r\nb", "a bare LF"),
            ("a\r\r\nb", "a\r\n\r\nb", "CR CR LF"),
            ("a\n\rb", "a\r\n\r\nb", "LF CR"),
            ("a\r", "a\r\n", "a CR at the end"),
            ("a\0b", "a?b", "a NUL"),
            ("a\r\0\nb", "a\r\n?\r\nb", "a NUL between"),
            ("", "", "nothing"),
        ] {
            assert_eq!(&*MailData::repaired(octets.as_bytes()), repaired.as_bytes(), "{why}");
        }
    }

    #[test]
    fn text_ends_before_what_is_none() {
        let mut data = MailData::default();
        assert_eq!(data.push_text(b"ab\ncd"), b"\ncd");
        assert_eq!(data.push_text(b"\0"), b"\0");
        data.end_line();
        assert_eq!(
            (&*data, format!("{data:?}")),
            (&b"ab\r\n"[..], "MailData(4 octets)".to_owned())
        );
    }

    fn octets() -> impl Strategy<Value = Vec<u8>> {
        let atoms: &[&[u8]] = &[b"\r\n", b"\r", b"\n", b".", b"x", b"\0", b"\xff", b"ab"];
        proptest::collection::vec(proptest::sample::select(atoms.to_vec()), 0..14)
            .prop_map(|atoms| atoms.concat())
    }

    proptest! {
        #[test]
        fn whatever_comes_is_mail_data(octets in octets(), piece in 1_usize..5) {
            let whole = MailData::repaired(&octets);
            prop_assert!(is_mail_data(&whole), "{}", whole.escape_ascii());
            let (mut repair, mut pieces) = (LineEndRepair::default(), MailData::default());
            octets.chunks(piece).for_each(|octets| repair.push(octets, &mut pieces));
            repair.finish(&mut pieces);
            prop_assert_eq!(&pieces, &whole, "in pieces");
            prop_assert_eq!(&MailData::repaired(&whole), &whole, "once is enough");
        }
    }
}
