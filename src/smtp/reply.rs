//! Replies (RFC 5321 §4.2, RFC 2034).

use super::input::Input;
use crate::mail::{EnhancedStatus, StatusClass};
use std::fmt;

/// The longest reply line sent, CRLF included (RFC 5321 §4.5.3.1.5).
const MAX_SENT: usize = 512;
/// The longest reply line taken from a peer, CRLF included; RFC 5321 §4.5.3.1.5 promises 512.
const MAX_TAKEN: usize = 4096;
/// How much of a line's text is kept.
const MAX_KEPT: usize = 1024;
/// The most lines of one reply taken from a peer.
const MAX_LINES: usize = 128;

/// A reply: code, enhanced status where there is one, text lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// Enhanced status.
    pub status: Option<EnhancedStatus>,
    /// Lines without code and status; bounded, printable.
    pub lines: Vec<String>,
}

impl Reply {
    /// One line.
    pub fn new(code: u16, status: EnhancedStatus, text: impl Into<String>) -> Self {
        Self { code, status: Some(status), lines: vec![text.into()] }
    }

    /// Lines without enhanced status: the greeting, EHLO and 3xx have none (RFC 2034 §3).
    pub(super) fn bare(code: u16, lines: Vec<String>) -> Self {
        Self { code, status: None, lines }
    }

    /// 2xx
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3xx
    pub fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// 4xx
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5xx
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// The wire form with CRLFs: code and status on every line (RFC 5321 §4.2.1, RFC 2034 §4),
    /// nothing but printable ASCII in the text, each line within 512 octets (RFC 5321 §4.5.3.1.5).
    pub fn to_wire(&self) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut lines = self.lines.iter().map(String::as_str).peekable();
        let mut line = lines.next().unwrap_or_default();
        loop {
            let dash = if lines.peek().is_some() { '-' } else { ' ' };
            let status = self.status.map(|status| format!("{status} ")).unwrap_or_default();
            let text = format!("{:03}{dash}{status}{line}", self.code);
            let text = text.trim_end().chars().map(|c| if printable(c) { c } else { '?' });
            wire.extend(text.take(MAX_SENT - 2).map(|c| c as u8));
            wire.extend_from_slice(b"\r\n");
            match lines.next() {
                Some(next) => line = next,
                None => return wire,
            }
        }
    }

    /// Takes a status off the text, where it agrees with the code (RFC 2034 §4); one that does not
    /// is left as text.
    fn with_status_parsed(mut self) -> Self {
        let first = self.lines.first().and_then(|line| line.split(' ').next()).unwrap_or_default();
        let Ok(status) = first.parse::<EnhancedStatus>() else { return self };
        let agrees = match status.class() {
            StatusClass::Success => self.is_positive(),
            StatusClass::Transient => self.is_transient(),
            StatusClass::Permanent => self.is_permanent(),
        };
        if agrees {
            let prefix = first.to_owned();
            for line in &mut self.lines {
                if let Some(text) = line.strip_prefix(&prefix) {
                    *line = text.trim_start().to_owned();
                }
            }
            self.status = Some(status);
        }
        self
    }
}

fn printable(character: char) -> bool {
    matches!(character, ' '..='~')
}

/// One line, for log and record: `550 5.1.1 No such user`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.code)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        for line in self.lines.iter().filter(|line| !line.is_empty()) {
            let line: String = line.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            write!(f, " {line}")?;
        }
        Ok(())
    }
}

/// Puts a peer's reply together, line by line.
#[derive(Debug, Default)]
pub(super) struct ReplyReader {
    lines: Vec<(u16, String)>,
}

impl ReplyReader {
    /// The next whole reply; `None`: more bytes are needed; `Err`: this is not SMTP.
    pub(super) fn next(&mut self, input: &mut Input) -> Option<Result<Reply, String>> {
        loop {
            let line = match take_line(input)? {
                Ok(line) => line,
                Err(trouble) => return Some(Err(trouble)),
            };
            match self.add(&line) {
                Ok(None) => {}
                Ok(Some(reply)) => return Some(Ok(reply)),
                Err(trouble) => return Some(Err(trouble)),
            }
        }
    }

    /// True in the middle of a reply.
    pub(super) fn is_within(&self) -> bool {
        !self.lines.is_empty()
    }

    /// RFC 5321 §4.2, Reply-line: every line bears the same code, the last one a space or nothing
    /// after it.
    fn add(&mut self, line: &[u8]) -> Result<Option<Reply>, String> {
        let wrong = |what: &str| Err(format!("{what}: {}", excerpt(line)));
        let Some((code, rest)) = split_code(line) else { return wrong("no reply code") };
        let (last, text) = match rest.split_first() {
            None => (true, rest),
            Some((b' ', text)) => (true, text),
            Some((b'-', text)) => (false, text),
            Some(_) => return wrong("no reply code"),
        };
        if self.lines.first().is_some_and(|(first, _)| *first != code) {
            return wrong("the code changes within a reply");
        }
        if self.lines.len() >= MAX_LINES {
            return Err(format!("a reply of more than {MAX_LINES} lines"));
        }
        self.lines.push((code, kept(text)));
        if !last {
            return Ok(None);
        }
        let lines = std::mem::take(&mut self.lines).into_iter().map(|(_, text)| text).collect();
        Ok(Some(Reply::bare(code, lines).with_status_parsed()))
    }
}

/// A line up to its CRLF (RFC 5321 §2.3.8).
fn take_line(input: &mut Input) -> Option<Result<Vec<u8>, String>> {
    let rest = input.rest();
    let Some(end) = memchr::memchr(b'\n', rest) else {
        if rest.len() <= MAX_TAKEN {
            return None;
        }
        input.clear();
        return Some(Err(format!("a reply line of more than {MAX_TAKEN} octets")));
    };
    let line = rest.get(..end).unwrap_or_default();
    let taken = match line.strip_suffix(b"\r") {
        _ if end >= MAX_TAKEN => Err(format!("a reply line of more than {MAX_TAKEN} octets")),
        Some(line) if !line.contains(&b'\r') => Ok(line.to_vec()),
        Some(_) | None => Err(format!("a bare CR or LF: {}", excerpt(line))),
    };
    input.consume(end + 1);
    Some(taken)
}

/// RFC 5321 §4.2, Reply-code: first digit 2 to 5, second 0 to 5 (others are met and harmless),
/// third any.
fn split_code(line: &[u8]) -> Option<(u16, &[u8])> {
    let (code, rest) = line.split_at_checked(3)?;
    let digits = code.iter().all(u8::is_ascii_digit) && matches!(code.first(), Some(b'2'..=b'5'));
    let code = std::str::from_utf8(code).ok()?.parse().ok()?;
    digits.then_some((code, rest))
}

fn kept(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text.get(..MAX_KEPT).unwrap_or(text));
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn excerpt(line: &[u8]) -> String {
    format!("\"{}\"", line.get(..60).unwrap_or(line).escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<Result<Reply, String>> {
        let (mut input, mut replies) = (Input::default(), ReplyReader::default());
        input.push(bytes);
        std::iter::from_fn(|| replies.next(&mut input)).collect()
    }

    #[test]
    fn reads_good_replies() {
        let table: &[(&[u8], &str)] = &[
            (b"220 mx.example ESMTP\r\n", "220 mx.example ESMTP"),
            (b"250\r\n", "250"),
            (b"250 \r\n", "250"),
            (b"250-a\r\n250-b\r\n250 c\r\n", "250 a b c"),
            (b"550-5.1.1 No\r\n550 5.1.1 user\r\n", "550 5.1.1 No user"),
            (b"451 4.7.1 Greylisted\r\n", "451 4.7.1 Greylisted"),
            (b"250 \x1b[31mred\0\r\n", "250 ?[31mred?"),
        ];
        for (wire, expected) in table {
            let replies = read(wire);
            assert_eq!(replies.len(), 1, "{expected}");
            assert_eq!(replies[0].as_ref().map(ToString::to_string), Ok((*expected).to_owned()));
        }
    }

    #[test]
    fn a_status_of_another_class_is_text() {
        let reply = read(b"550 4.7.1 Later\r\n").remove(0).expect("a reply");
        assert_eq!((reply.status, reply.lines), (None, vec!["4.7.1 Later".to_owned()]));
    }

    #[test]
    fn refuses_what_is_no_reply() {
        let long = [b"250 ".as_slice(), &vec![b'x'; 5000]].concat();
        let many = b"250-x\r\n".repeat(MAX_LINES + 1);
        let table: &[(&[u8], &str)] = &[
            (b"hello\r\n", "no code"),
            (b"25\r\n", "two digits"),
            (b"199 x\r\n", "no such class"),
            (b"600 x\r\n", "no such class"),
            (b"250x\r\n", "no separator"),
            (b"250-a\r\n251 b\r\n", "two codes"),
            (b"250 a\n", "bare LF"),
            (b"250 a\rb\r\n", "bare CR"),
            (&long, "a line without end"),
            (&many, "a reply without end"),
        ];
        for (wire, why) in table {
            assert!(matches!(read(wire).first(), Some(Err(_))), "{why}");
        }
    }

    #[test]
    fn writes_within_bounds() {
        let status = EnhancedStatus::permanent(1, 1);
        let lines = vec!["No".to_owned(), "such\r\n250 user\u{e9}".to_owned()];
        let reply = Reply { code: 550, status: Some(status), lines };
        assert_eq!(reply.to_wire(), b"550-5.1.1 No\r\n550 5.1.1 such??250 user?\r\n");
        assert_eq!(Reply::new(550, status, "x".repeat(2000)).to_wire().len(), MAX_SENT);
        assert_eq!(Reply::bare(250, vec![]).to_wire(), b"250\r\n");
    }
}
