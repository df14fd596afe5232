//! Takes a rule's tag out of the Subject as the message streams out.

use super::{Begins, begins};
use std::{fmt, ops::Range};

/// Bytes of white space before the field's colon.
const SPACES: usize = 64;

/// Takes every occurrence of a tag (in any ASCII case) out of the Subject field, together with one
/// space beside it; all other bytes pass unchanged. Sans-I/O: fed in any portions, same result.
///
/// The tag is looked for in the field's raw text, unfolded: one that stands in an encoded word
/// (RFC 2047) is found only where that word shows it as plain text. A Subject longer than
/// [`SubjectTagStrip::LIMIT`] passes unchanged.
pub struct SubjectTagStrip {
    tag: Vec<u8>,
    at: At,
    /// Bytes not passed on yet: the start of a line or a whole Subject field.
    held: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum At {
    /// In a line of which `held` is the start, and may become a Subject or the empty line.
    Start,
    /// In another line, passed on as it comes.
    Line,
    /// In the Subject field.
    Subject,
    /// In the Subject field, behind a line end: the next byte tells whether it goes on.
    SubjectLineEnd,
    /// Behind the header section.
    Body,
}

impl fmt::Debug for SubjectTagStrip {
    /// Where it stands; nothing of the message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectTagStrip").field("at", &self.at).finish_non_exhaustive()
    }
}

impl SubjectTagStrip {
    /// Bytes of a Subject field held at most.
    pub const LIMIT: usize = 64 * 1024;

    /// A filter for `tag`; an empty one changes nothing.
    pub fn new(tag: &str) -> Self {
        let at = if tag.is_empty() { At::Body } else { At::Start };
        Self { tag: tag.as_bytes().to_ascii_lowercase(), at, held: Vec::new() }
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
                At::SubjectLineEnd if !matches!(byte, b' ' | b'\t') => {
                    self.strip(out);
                    self.start(byte, out);
                }
                At::Subject | At::SubjectLineEnd => self.subject(byte, out),
            }
            rest = tail;
        }
    }

    /// The message has ended: appends what was held back.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        match self.at {
            At::Subject | At::SubjectLineEnd => self.strip(out),
            At::Start | At::Line | At::Body => out.append(&mut self.held),
        }
    }

    fn start(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.at = At::Start;
        self.held.push(byte);
        match begins(&self.held, "Subject", SPACES) {
            Begins::Unclear => {}
            Begins::Field => self.at = At::Subject,
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

    fn subject(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.held.push(byte);
        self.at = if byte == b'\n' { At::SubjectLineEnd } else { At::Subject };
        if self.held.len() > Self::LIMIT {
            out.append(&mut self.held);
            self.at = if byte == b'\n' { At::Start } else { At::Line };
        }
    }

    /// Passes on the held Subject field without the tag.
    fn strip(&mut self, out: &mut Vec<u8>) {
        let field = std::mem::take(&mut self.held);
        self.at = At::Start;
        let found = find(&field, &self.tag);
        if found.is_empty() {
            return out.extend_from_slice(&field);
        }
        let mut stripped = Vec::with_capacity(field.len());
        let mut from = 0;
        for tag in found {
            let (cut, put) = around(&field, &tag);
            stripped.extend_from_slice(field.get(from..cut.start).unwrap_or_default());
            stripped.extend_from_slice(put);
            from = cut.end;
        }
        stripped.extend_from_slice(field.get(from..).unwrap_or_default());
        without_blank_lines(&stripped, out);
    }
}

/// Where the tag stands in the folded value. Only line ends are skipped: a fold stands for the
/// white space behind it (RFC 5322 §2.2.3).
fn find(field: &[u8], tag: &[u8]) -> Vec<Range<usize>> {
    let name = field.iter().position(|&b| b == b':').map_or(0, |colon| colon + 1);
    let shown: Vec<(usize, u8)> = (0..)
        .zip(field.iter().copied())
        .skip(name)
        .filter(|(_, b)| !matches!(b, b'\r' | b'\n'))
        .collect();
    let mut found: Vec<Range<usize>> = Vec::new();
    for window in shown.windows(tag.len()) {
        let same = window.iter().zip(tag).all(|((_, b), t)| b.eq_ignore_ascii_case(t));
        let (Some((first, _)), Some((last, _)), true) = (window.first(), window.last(), same)
        else {
            continue;
        };
        if found.last().is_none_or(|f| f.end <= *first) {
            found.push(*first..last + 1);
        }
    }
    found
}

/// The bytes to cut for one tag, and what stands in their place.
fn around(field: &[u8], tag: &Range<usize>) -> (Range<usize>, &'static [u8]) {
    let before = tag.start.checked_sub(1).and_then(|i| field.get(i));
    let after = field.get(tag.end..).unwrap_or_default();
    let space_before = matches!(before, Some(b' ' | b'\t'));
    if field.get(tag.clone()).is_some_and(|t| t.contains(&b'\n')) {
        // The line stays folded, so that it grows no longer than RFC 5322 §2.1.1 allows.
        return (tag.clone(), b"\r\n ");
    }
    if before == Some(&b'?') && after.starts_with(b"?=") {
        // RFC 2047 §2: an encoded word is not empty. `_` is a space in a Q word.
        return (tag.clone(), b"_");
    }
    if space_before && matches!(after.first(), Some(b' ' | b'\t')) {
        return (tag.start..tag.end + 1, b"");
    }
    (tag.clone(), b"")
}

/// RFC 5322 §3.2.2: a folded line is never white space alone (some readers take it for the end of
/// the header).
fn without_blank_lines(field: &[u8], out: &mut Vec<u8>) {
    for line in field.split_inclusive(|&b| b == b'\n') {
        if !line.trim_ascii().is_empty() {
            out.extend_from_slice(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn strip(message: &[u8], portion: usize) -> String {
        let mut filter = SubjectTagStrip::new("[Secure]");
        let mut out = Vec::new();
        message.chunks(portion).for_each(|chunk| filter.feed(chunk, &mut out));
        filter.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tags() {
        for (before, after, why) in [
            ("Subject: [secure] Hi\r\n\r\n", "Subject: Hi\r\n\r\n", "in front"),
            ("Subject:[SECURE]Hi\r\n\r\n", "Subject:Hi\r\n\r\n", "without spaces, in capitals"),
            ("subject : Hi [secure] you\r\n\r\n", "subject : Hi you\r\n\r\n", "in the middle"),
            ("Subject: Hi [secure]\r\n\r\n", "Subject: Hi \r\n\r\n", "at the end"),
            ("Subject: [secure] [secure] Hi\r\n\r\n", "Subject: Hi\r\n\r\n", "twice"),
            ("Subject: [secure]\r\n Hi\r\n\r\n", "Subject: \r\n Hi\r\n\r\n", "before a fold"),
            (
                "Subject: Hi\r\n [secure]\r\nTo: a\r\n\r\n",
                "Subject: Hi\r\nTo: a\r\n\r\n",
                "alone in a folded line",
            ),
            ("Subject: Hi\r\n [secure]", "Subject: Hi\r\n", "nothing follows"),
            ("Subject: [secure] Hi", "Subject: Hi", "no line end"),
            (
                "To: a\r\nSubject: [secure] Hi\r\nCc: b\r\n\r\n[secure]\r\n",
                "To: a\r\nSubject: Hi\r\nCc: b\r\n\r\n[secure]\r\n",
                "body stays",
            ),
            (
                "X: [secure]\r\n [secure]\r\n\r\n",
                "X: [secure]\r\n [secure]\r\n\r\n",
                "another field stays",
            ),
            ("Subjects: [secure]\r\n\r\n", "Subjects: [secure]\r\n\r\n", "another name stays"),
            (
                "X: a\r\n Subject: [secure]\r\n\r\n",
                "X: a\r\n Subject: [secure]\r\n\r\n",
                "a continuation stays",
            ),
            ("\r\nSubject: [secure]\r\n", "\r\nSubject: [secure]\r\n", "no header at all"),
            (
                "Subject: =?utf-8?Q?[secure]_caf=C3=A9?=\r\n\r\n",
                "Subject: =?utf-8?Q?_caf=C3=A9?=\r\n\r\n",
                "visible in a Q word",
            ),
            (
                "Subject: =?utf-8?Q?[secure]?= Hi\r\n\r\n",
                "Subject: =?utf-8?Q?_?= Hi\r\n\r\n",
                "no empty word",
            ),
            (
                "Subject: =?utf-8?B?W3NlY3VyZV0=?=\r\n\r\n",
                "Subject: =?utf-8?B?W3NlY3VyZV0=?=\r\n\r\n",
                "not visible in a B word",
            ),
            (
                "Subject: [sec\r\n ure] Hi\r\n\r\n",
                "Subject: [sec\r\n ure] Hi\r\n\r\n",
                "a fold is a space",
            ),
            ("Subject", "Subject", "cut short"),
            ("Sub\r\n\r\nSubject: [secure]", "Sub\r\n\r\nSubject: [secure]", "half a name"),
        ] {
            for portion in [1, 2, 7, 4096] {
                assert_eq!(strip(before.as_bytes(), portion), after, "{why}, {portion} at a time");
            }
        }
    }

    #[test]
    fn a_tag_with_a_space_may_be_folded() {
        let mut filter = SubjectTagStrip::new("[my tag]");
        let mut out = Vec::new();
        filter.feed(b"Subject: Hi [my\r\n tag] you\r\n\r\n", &mut out);
        filter.finish(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "Subject: Hi \r\n  you\r\n\r\n");
    }

    #[test]
    fn too_long_and_no_tag() {
        let long = format!("Subject: {}\r\n [secure]\r\n\r\n", "x".repeat(SubjectTagStrip::LIMIT));
        assert_eq!(strip(long.as_bytes(), 1000), long);
        let mut out = Vec::new();
        SubjectTagStrip::new("").feed(b"Subject: a\r\n\r\n", &mut out);
        assert_eq!(out, b"Subject: a\r\n\r\n");
    }

    proptest! {
        #[test]
        fn without_the_tag_nothing_changes(text in "(Subject:|\r\n|\r|\n| |[a-z]{0,3}|\\[secur){0,14}", portion in 1usize..9) {
            prop_assert_eq!(strip(text.as_bytes(), portion), text);
        }
        #[test]
        fn portions_do_not_matter(text in "(Subject: |\r\n|\r|\n| |[a-z]{0,3}|\\[secure\\]){0,14}", portion in 1usize..9) {
            prop_assert_eq!(strip(text.as_bytes(), portion), strip(text.as_bytes(), 4096));
        }
    }
}
