//! The header section: what intake counts, what rules read, the trace field that a relay adds.

mod line;
mod strip;
mod thread;

pub(super) use line::{Begins, begins};
pub use strip::SubjectTagStrip;

use crate::mail::{Address, Domain, QueueId, text::printable};
use jiff::Timestamp;
use mail_parser::{HeaderValue, parsers::MessageStream};
use std::{borrow::Cow, fmt, net::IpAddr};

/// Collects the header section of a streamed message (RFC 5322 §2.2), bounded to
/// [`HeaderScan::LIMIT`] bytes; the body passes by unread. Sans-I/O: fed in any portions, same
/// result.
#[derive(Default)]
pub struct HeaderScan {
    kept: Vec<u8>,
    at: At,
    received: usize,
}

/// Where in a header section the last byte stood.
#[derive(Debug, Clone, Copy)]
enum At {
    /// So many bytes of a line, all of them like the start of `received`; 0 is the line's start.
    Name(usize),
    /// Behind the whole name, before its colon (obsolete syntax, RFC 5322 §4.5.8, has spaces
    /// there).
    Colon,
    /// Anywhere else in a line.
    Line,
    /// After a CR at the start of a line: a LF makes it the empty line.
    EmptyLine,
    /// Behind the empty line.
    Body,
}

impl Default for At {
    fn default() -> Self {
        Self::Name(0)
    }
}

/// The fields of a header section, in order, unfolded, raw bytes.
#[derive(Clone, Default)]
pub struct Fields {
    fields: Vec<(String, Vec<u8>)>,
}

impl fmt::Debug for HeaderScan {
    /// Where it stands; nothing of the message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeaderScan").field("at", &self.at).finish_non_exhaustive()
    }
}
impl fmt::Debug for Fields {
    /// How many; nothing of the message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fields({})", self.fields.len())
    }
}

impl HeaderScan {
    /// Bytes of header kept for reading; what is longer is passed through but not looked at.
    pub const LIMIT: usize = 256 * 1024;

    /// Feeds content bytes as they arrive.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut length = 0;
        for &byte in bytes {
            if matches!(self.at, At::Body) {
                break;
            }
            self.step(byte);
            length += 1;
        }
        let room = Self::LIMIT.saturating_sub(self.kept.len());
        self.kept.extend(bytes.iter().take(length.min(room)));
    }

    fn step(&mut self, byte: u8) {
        const NAME: &[u8] = b"received";
        self.at = match (self.at, byte) {
            (At::Body, _) | (At::Name(0) | At::EmptyLine, b'\n') => At::Body,
            (At::Name(_) | At::Colon | At::Line, b'\n') => At::Name(0),
            (At::Name(0), b'\r') => At::EmptyLine,
            (At::Name(n), _) if NAME.get(n).is_some_and(|c| byte.eq_ignore_ascii_case(c)) => {
                if n + 1 == NAME.len() { At::Colon } else { At::Name(n + 1) }
            }
            (At::Colon, b' ' | b'\t') => At::Colon,
            (At::Colon, b':') => {
                self.received = self.received.saturating_add(1);
                At::Line
            }
            (At::Name(_) | At::Colon | At::Line | At::EmptyLine, _) => At::Line,
        };
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.kept.capacity()
    }

    /// `Received` fields so far (RFC 5321 §6.3), also those beyond [`HeaderScan::LIMIT`].
    pub fn received_count(&self) -> usize {
        self.received
    }

    /// True once nothing more is looked at.
    pub fn is_over(&self) -> bool {
        matches!(self.at, At::Body) || self.kept.len() >= Self::LIMIT
    }

    /// The fields seen.
    pub fn finish(self) -> Fields {
        Fields::parse(&self.kept)
    }
}

/// RFC 5322 §2.2: printable ASCII but the colon. Spaces before the colon are the obsolete syntax of
/// §4.5.8.
fn split_field(line: &[u8]) -> Option<(String, &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = line.split_at_checked(colon)?;
    let name = name.trim_ascii_end();
    if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    Some((String::from_utf8_lossy(name).into_owned(), value.get(1..)?))
}

/// True if the line begins a field.
pub(crate) fn is_field(line: &[u8]) -> bool {
    split_field(line).is_some()
}

impl Fields {
    /// Parses a whole header section. Lines that are no field are left out.
    pub fn parse(header: &[u8]) -> Self {
        let mut fields: Vec<(String, Vec<u8>)> = Vec::new();
        // A line that continues one that was no field belongs to nothing.
        let mut open = false;
        for line in header.split(|&b| b == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                break;
            }
            if line.starts_with(b" ") || line.starts_with(b"\t") {
                if let Some((_, value)) = fields.last_mut().filter(|_| open) {
                    value.extend_from_slice(line);
                }
                continue;
            }
            let field = split_field(line);
            open = field.is_some();
            fields.extend(field.map(|(name, value)| (name, value.to_vec())));
        }
        Self { fields }
    }

    fn raw<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        let named = move |f: &&(String, Vec<u8>)| f.0.eq_ignore_ascii_case(name);
        self.fields.iter().filter(named).map(|(_, value)| value.as_slice())
    }

    /// The first field of that name, unfolded, as its bytes are.
    pub(crate) fn first_raw(&self, name: &str) -> Option<&[u8]> {
        self.fields
            .iter()
            .find(|f| f.0.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }

    /// Every field of that name (case-insensitive), decoded (RFC 2047) and unfolded for reading.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.raw(name).map(decode).collect()
    }

    /// The first field of that name.
    pub fn first(&self, name: &str) -> Option<String> {
        self.first_raw(name).map(decode)
    }

    /// `(name, decoded value)` of each field.
    pub fn iter(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.fields.iter().map(|(name, value)| (name.clone(), decode(value)))
    }

    /// The display name of the first mailbox in `From` (RFC 5322 §3.4), decoded; `None` if it has
    /// none.
    pub fn from_name(&self) -> Option<String> {
        let mut raw = self.first_raw("From")?.to_vec();
        raw.push(b'\n');
        let HeaderValue::Address(list) = MessageStream::new(&raw).parse_address() else {
            return None;
        };
        let name = without_controls(list.first()?.name.as_deref()?);
        (!name.is_empty()).then_some(name)
    }

    /// Message-ID with its angle brackets, at most 256 bytes, printable ASCII; otherwise `None`.
    pub fn message_id(&self) -> Option<String> {
        let raw = self.first_raw("Message-ID")?.trim_ascii();
        let inner = raw.strip_prefix(b"<")?.strip_suffix(b">")?;
        let sane = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'<' | b'>');
        if raw.len() > 256 || inner.is_empty() || !inner.iter().all(sane) {
            return None;
        }
        String::from_utf8(raw.to_vec()).ok()
    }
}

/// One value for reading: encoded words decoded (RFC 2047), no control characters, whatever they
/// encoded.
pub(crate) fn decode(raw: &[u8]) -> String {
    if memchr::memmem::find(raw, b"=?").is_none() {
        return without_controls(&String::from_utf8_lossy(raw));
    }
    let mut line: Vec<u8> =
        raw.iter().map(|&b| if matches!(b, b'\r' | b'\n') { b' ' } else { b }).collect();
    line.push(b'\n');
    MessageStream::new(&line)
        .parse_unstructured()
        .as_text()
        .map(without_controls)
        .unwrap_or_default()
}

fn without_controls(text: &str) -> String {
    let spaced: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    spaced.trim().to_owned()
}

/// What the one added `Received` field says (RFC 5321 §4.4).
#[derive(Debug, Clone)]
pub struct Received<'a> {
    /// EHLO argument of the client.
    pub helo: &'a str,
    /// Its address.
    pub client: IpAddr,
    /// Our host name.
    pub by: &'a Domain,
    /// `ESMTP`, `ESMTPS`, `UTF8SMTPS`, … (RFC 3848, RFC 6531 §3.7.3).
    pub with: &'a str,
    /// TLS version and cipher of the inbound connection, for the comment.
    pub tls: Option<&'a str>,
    /// Queue id.
    pub id: QueueId,
    /// The recipient, only where the message has exactly one (Bcc stays private).
    pub recipient: Option<&'a Address>,
    /// Time of arrival.
    pub at: Timestamp,
}

impl Received<'_> {
    /// The folded field with its CRLF. What the client said of itself is held to printable ASCII
    /// without the characters that mean something in a structured field.
    pub fn to_field(&self) -> String {
        let client = match self.client.to_canonical() {
            IpAddr::V4(ip) => format!("([{ip}])"),
            IpAddr::V6(ip) => format!("([IPv6:{ip}])"),
        };
        let mut words = vec![Cow::from("from"), token(self.helo, 255).into(), client.into()];
        if let Some(tls) = self.tls {
            let inner: Vec<String> = tls.split_whitespace().map(|word| token(word, 64)).collect();
            words.push(format!("({})", inner.join(" ")).into());
        }
        words.push(format!("by {}", self.by).into());
        words.push(format!("with {}", token(self.with, 20)).into());
        words.push(format!("id {}", self.id).into());
        // RFC 6531 §3.7.3: UTF-8 is for a Received that says UTF8SMTP.
        let recipient =
            self.recipient.filter(|r| !r.needs_smtputf8() || self.with.starts_with("UTF8"));
        if let Some(recipient) = recipient {
            words.push(format!("for <{recipient}>").into());
        }
        if let Some(last) = words.last_mut() {
            last.to_mut().push(';');
        }
        words.push(date(self.at).into());
        fold("Received:", &words)
    }
}

/// A word that has no meaning to the parser of a structured field (RFC 5322 §3.2.3 specials), never
/// empty.
fn token(text: &str, max: usize) -> String {
    let plain: String = printable(text, max)
        .chars()
        .map(|c| {
            if matches!(c, ' ' | '(' | ')' | '<' | '>' | '"' | '\\' | ';' | ',') { '?' } else { c }
        })
        .collect();
    if plain.is_empty() { "unknown".to_owned() } else { plain }
}

/// Folds between words (RFC 5322 §2.2.3) so that lines stay below 78 characters where the words
/// allow it.
pub(crate) fn fold(name: &str, words: &[Cow<'_, str>]) -> String {
    let mut field = name.to_owned();
    let mut column = name.len();
    for word in words {
        if column + 1 + word.len() > 77 && column > 1 {
            field.push_str("\r\n\t");
            column = 1;
        } else {
            field.push(' ');
            column += 1;
        }
        field.push_str(word);
        column += word.len();
    }
    field.push_str("\r\n");
    field
}

/// RFC 5322 §3.3 date-time in UTC: `Sun, 22 Nov 2026 01:02:03 +0000`.
pub fn date(at: Timestamp) -> String {
    at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scan(message: &[u8]) -> (usize, Fields) {
        let mut scan = HeaderScan::default();
        scan.feed(message);
        (scan.received_count(), scan.finish())
    }

    #[test]
    fn received_is_counted() {
        for (message, count, why) in [
            ("Received: a\r\nReceived: b\r\n\r\nReceived: c\r\n", 2, "stops at the empty line"),
            ("RECEIVED : a\r\nreceived\t:b\r\n", 2, "case and obsolete space; no separator"),
            ("Received-SPF: a\r\nX-Received: b\r\n\r\n", 0, "other names"),
            ("Subject: a\r\n Received: b\r\n\r\n", 0, "in a continuation line"),
            ("\r\nReceived: a\r\n", 0, "empty header"),
            ("Subject: Received: b\r\n", 0, "in a value"),
            ("Received: a\n\nReceived: b\n", 1, "bare LF"),
            ("\rReceived: a\r\n\r\n", 0, "behind a bare CR"),
            ("Received", 0, "cut short"),
        ] {
            assert_eq!(scan(message.as_bytes()).0, count, "{why}");
        }
    }

    #[test]
    fn received_is_counted_beyond_the_limit() {
        let mut message = b"X: ".to_vec();
        message.resize(HeaderScan::LIMIT + 10, b'x');
        message.extend_from_slice(b"\r\nReceived: a\r\nReceived: b\r\n\r\n");
        let (count, fields) = scan(&message);
        assert_eq!(count, 2);
        assert_eq!(fields.iter().count(), 1, "what is beyond is not read");
    }

    #[test]
    fn fields_are_read() {
        let header = b"From a@b Sun Nov 22 10:10:10 2026\r\n folded nothing\r\nSubject: one\r\n  two\r\n\
            subject : =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?B?IQ==?=\r\nno field\r\n lost\r\n: empty name\r\n\
            X-8bit: caf\xc3\xa9 \xff\r\nX-Evil: =?utf-8?Q?a=0D=0ABcc:_b?=\r\nX-Empty:\r\n\r\nBody: no\r\n";
        let fields = Fields::parse(header);
        assert_eq!(fields.all("SUBJECT"), ["one  two", "Gr\u{fc}\u{df}e!"]);
        assert_eq!(fields.first("x-8bit").unwrap(), "caf\u{e9} \u{fffd}");
        assert_eq!(
            fields.first("x-evil").unwrap(),
            "a  Bcc: b",
            "controls do not survive decoding"
        );
        assert_eq!(fields.first("X-Empty").unwrap(), "");
        assert_eq!(fields.first("Body"), None);
        let names: Vec<String> = fields.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["Subject", "subject", "X-8bit", "X-Evil", "X-Empty"]);
    }

    #[test]
    fn message_ids() {
        for (value, sane, why) in [
            ("<a@b>", true, "plain"),
            ("\r\n <a@b>", true, "folded before it"),
            ("<a b@c>", false, "a space"),
            ("a@b", false, "no brackets"),
            ("<a@b> <c@d>", false, "two"),
            ("<>", false, "nothing"),
            ("<\u{e9}@b>", false, "not ASCII"),
            ("<a@b", false, "open"),
        ] {
            let fields = Fields::parse(format!("Message-Id: {value}\r\n\r\n").as_bytes());
            assert_eq!(fields.message_id().is_some(), sane, "{why}");
        }
        let long = format!("Message-ID: <{}@b>\r\n", "a".repeat(253));
        assert_eq!(Fields::parse(long.as_bytes()).message_id(), None, "257 bytes");
    }

    #[test]
    fn from_names() {
        for (value, name) in [
            ("\"Doe, Jane\" <j@x.org>", Some("Doe, Jane")),
            ("=?utf-8?Q?J=C3=BCrgen?= <j@x.org>", Some("J\u{fc}rgen")),
            ("=?utf-8?Q?J=0D=0AX:?= <j@x.org>", Some("J  X:")),
            ("j@x.org", None),
            ("<j@x.org>", None),
            ("", None),
        ] {
            let fields = Fields::parse(format!("From: {value}\r\n\r\n").as_bytes());
            assert_eq!(fields.from_name().as_deref(), name, "{value}");
        }
    }

    fn at() -> Timestamp {
        "2026-11-22T01:02:03.9Z".parse().unwrap()
    }

    #[test]
    fn trace_field() {
        let (by, id) = ("gw.example.org".parse().unwrap(), QueueId::from_bytes([1; 16]));
        let recipient: Address = "jane@partner.example".parse().unwrap();
        let received = Received {
            helo: "mta.example.org",
            client: "192.0.2.1".parse().unwrap(),
            by: &by,
            with: "ESMTPS",
            tls: Some("TLSv1.3 TLS_AES_256_GCM_SHA384"),
            id,
            recipient: Some(&recipient),
            at: at(),
        };
        assert_eq!(
            received.to_field(),
            format!(
                "Received: from mta.example.org ([192.0.2.1]) (TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n\
                 \tby gw.example.org with ESMTPS id {id}\r\n\
                 \tfor <jane@partner.example>; Sun, 22 Nov 2026 01:02:03 +0000\r\n"
            )
        );
        let bare = Received {
            client: "2001:db8::1".parse().unwrap(),
            tls: None,
            recipient: None,
            ..received
        };
        assert!(bare.to_field().contains("([IPv6:2001:db8::1])"));
        assert!(bare.to_field().contains(&format!("{id};")) && !bare.to_field().contains("for"));
        let mapped = Received { client: "::ffff:192.0.2.7".parse().unwrap(), ..bare };
        assert!(mapped.to_field().contains("([192.0.2.7])"));
        let eight: Address = "\u{e9}@x.org".parse().unwrap();
        let eight = Received { recipient: Some(&eight), ..mapped };
        assert!(eight.to_field().is_ascii(), "UTF-8 only where the field says UTF8SMTP");
        assert!(Received { with: "UTF8SMTPS", ..eight }.to_field().contains("for <\u{e9}@x.org>;"));
    }

    proptest! {
        #[test]
        fn any_value_is_read_as_one_line(value in "((?s:.{0,4})|=\\?utf-8\\?[QBx]\\?|\\?=|=0D=0A|\r\n |[<>,:;\"()]){0,16}") {
            let fields = Fields::parse(format!("From: {value}\r\n\r\n").as_bytes());
            for text in fields.all("From").into_iter().chain(fields.from_name()) {
                prop_assert!(!text.contains(char::is_control), "{text:?}");
            }
        }
        #[test]
        fn portions_do_not_matter(text in "(Received: a\r\n|Subject: b\r\n|\r\n| x\r\n|Rec|\r|\n){0,9}", cuts in prop::collection::vec(0usize..40, 0..5)) {
            let whole = scan(text.as_bytes());
            let mut parts = HeaderScan::default();
            let mut rest = text.as_bytes();
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                parts.feed(head);
                rest = tail;
            }
            rest.iter().for_each(|b| parts.feed(&[*b]));
            prop_assert_eq!(parts.received_count(), whole.0);
            prop_assert_eq!(parts.finish().iter().collect::<Vec<_>>(), whole.1.iter().collect::<Vec<_>>());
        }
        #[test]
        fn trace_field_is_one_field(helo in "(?s:.{0,300})", tls in "(?s:.{0,50})", with in "(?s:.{0,9})") {
            let by = "gw.example.org".parse().unwrap();
            let field = Received {
                helo: &helo, client: "192.0.2.1".parse().unwrap(), by: &by, with: &with, tls: Some(&tls),
                id: QueueId::from_bytes([1; 16]), recipient: None, at: at(),
            }.to_field();
            prop_assert!(field.is_ascii() && field.ends_with("\r\n"));
            for line in field.trim_end().split("\r\n").skip(1) {
                prop_assert!(line.starts_with('\t') && !line.contains(['\r', '\n']) && line.len() < 998);
            }
            prop_assert_eq!(Fields::parse(field.as_bytes()).all("Received").len(), 1);
        }
    }
}
