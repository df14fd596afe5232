//! The one writer of header fields and bodies of mail that is composed here (RFC 5322, RFC 2045).
//! Text of any origin goes in: no field gets out of its line, and what a receiver decodes is the
//! text that went in.

use crate::mail::{
    Address, MailData,
    header::fold,
    text::{one_line, printable},
};
use data_encoding::BASE64_MIME;
use encodify::{
    hex::PERCENT,
    qp,
    rfc2047::{B, MAX_WORD_LEN, Q_PHRASE, Q_TEXT, WordEncoder},
};
use std::{borrow::Cow, iter};

/// Characters of a line that hold encoded words (RFC 2047 §2), and of a line of text that needs no
/// encoding (RFC 2045 §6.7).
const LINE: usize = 76;
/// `=?utf-8?Q?` and `?=`.
const WORD_FRAME: usize = 12;
/// The most that one character takes in an encoded word: four octets, escaped.
const WIDEST: usize = 12;
/// Characters of one section of a parameter (RFC 2231 §3).
const SECTION: usize = 60;

/// Writes a message, field by field and part by part.
#[derive(Debug, Default)]
pub(crate) struct MessageWriter(MailData);

impl MessageWriter {
    /// What was written.
    pub(crate) fn finish(self) -> MailData {
        self.0
    }

    /// A structured field whose words the program makes: printable ASCII, folded between them.
    pub(crate) fn words(&mut self, name: &str, value: &str) {
        let value = printable(value, usize::MAX);
        self.folded(name, value.split_whitespace().map(Cow::from).collect());
    }

    /// An unstructured field (RFC 5322 §2.2.1).
    pub(crate) fn text(&mut self, name: &str, text: &str) {
        let text = one_line(text, usize::MAX);
        let room = LINE.saturating_sub(name.len() + 2);
        if is_plain(&text) && text.len() <= room {
            self.0.push(format!("{name}: {text}").as_bytes());
            self.0.end_line();
        } else {
            self.folded(name, encoded_words(Q_TEXT, &text, room));
        }
    }

    /// A list of mailboxes, with names or without (RFC 5322 §3.4).
    pub(crate) fn mailboxes<'a>(
        &mut self,
        name: &str,
        list: impl IntoIterator<Item = (&'a str, &'a Address)>,
    ) {
        let mut words: Vec<Cow<'_, str>> = Vec::new();
        for (display_name, address) in list {
            if let Some(last) = words.last_mut() {
                last.to_mut().push(',');
            }
            words.extend(phrase(display_name, LINE.saturating_sub(name.len() + 2)));
            words.push(format!("<{address}>").into());
        }
        self.folded(name, words);
    }

    /// Message ids (RFC 5322 §3.6.4), with angle brackets or without.
    pub(crate) fn ids<'a>(&mut self, name: &str, ids: impl IntoIterator<Item = &'a str>) {
        let bare = ids.into_iter().map(|id| id.trim_matches(['<', '>']));
        let ids: Vec<_> = bare.map(|id| format!("<{id}>")).collect();
        self.words(name, &ids.join(" "));
    }

    /// A field with parameters (RFC 2045 §5.1, RFC 2183, RFC 2231).
    pub(crate) fn parameters(&mut self, name: &str, value: &str, parameters: &[(&str, &str)]) {
        let mut words = vec![Cow::from(printable(value, LINE))];
        for (key, value) in parameters {
            for section in parameter(key, value) {
                if let Some(last) = words.last_mut() {
                    last.to_mut().push(';');
                }
                words.push(section.into());
            }
        }
        self.folded(name, words);
    }

    /// Type and body of a text (RFC 2045 §6): as it is where every receiver takes that, encoded
    /// otherwise. It ends with a line end.
    pub(crate) fn text_body(&mut self, kind: &str, text: &str) {
        self.parameters("Content-Type", kind, &[("charset", "utf-8")]);
        let text = canonical(text);
        if text.split("\r\n").all(needs_no_encoding) {
            self.encoding("7bit");
            self.0.push(text.as_bytes());
        } else if qp::BODY.encoded_len(&text) <= BASE64_MIME.encode_len(text.len()) {
            self.encoding("quoted-printable");
            self.0.push(qp::BODY.encode(&text).as_bytes());
        } else {
            self.encoding("base64");
            base64(text.as_bytes(), &mut self.0);
        }
    }

    /// Type and body of a text for programs, in ASCII, that is not to be encoded (RFC 3464 §2.1).
    pub(crate) fn ascii_body(&mut self, kind: &str, text: &str) {
        self.parameters("Content-Type", kind, &[]);
        self.encoding("7bit");
        let ascii = |c: char| if c.is_ascii() { c } else { '?' };
        self.0.push(canonical(text).chars().map(ascii).collect::<String>().as_bytes());
    }

    /// Type and body of octets that are no text.
    pub(crate) fn file_body(&mut self, kind: &str, name: &str, octets: &[u8]) {
        self.parameters("Content-Type", kind, &[]);
        self.parameters("Content-Disposition", "attachment", &[("filename", name)]);
        self.encoding("base64");
        base64(octets, &mut self.0);
    }

    /// The type of a body with parts, and the border before its first. `=_` occurs in neither base64
    /// nor quoted-printable (RFC 2045 §6.7).
    pub(crate) fn multipart(&mut self, kind: &str, parameters: &[(&str, &str)], boundary: &str) {
        let boundary = format!("=_{boundary}");
        let mut all = parameters.to_vec();
        all.push(("boundary", &boundary));
        self.parameters("Content-Type", kind, &all);
        self.end_header();
        self.border(&boundary, "");
    }

    /// The border before a further part (RFC 2046 §5.1.1).
    pub(crate) fn next_part(&mut self, boundary: &str) {
        self.0.end_line();
        self.border(&format!("=_{boundary}"), "");
    }

    /// The border behind the last part.
    pub(crate) fn last_part(&mut self, boundary: &str) {
        self.0.end_line();
        self.border(&format!("=_{boundary}"), "--");
    }

    /// Content-Transfer-Encoding, the last field of a header, and the empty line.
    pub(crate) fn encoding(&mut self, encoding: &str) {
        self.words("Content-Transfer-Encoding", encoding);
        self.end_header();
    }

    fn end_header(&mut self) {
        self.0.end_line();
    }

    fn border(&mut self, boundary: &str, end: &str) {
        self.0.push(format!("--{boundary}{end}\r\n").as_bytes());
    }

    fn folded(&mut self, name: &str, words: Vec<Cow<'_, str>>) {
        self.0.push(fold(&format!("{name}:"), &words).as_bytes());
    }
}

/// Octets as lines of base64 (RFC 2045 §6.8). A piece that is not the last is a multiple of 57 octets.
pub(crate) fn base64(octets: &[u8], out: &mut MailData) {
    out.push(BASE64_MIME.encode(octets).as_bytes());
}

/// True for text that a receiver shows as it is: printable ASCII without the marks of an encoded word
/// (RFC 2047 §2). The marks are looked for one by one: a message rule may take out what stands
/// between them.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| (b' '..=b'~').contains(&b)) && !(text.contains('=') && text.contains('?'))
}

/// Text as encoded words. The first has less room: the field's name stands before it.
fn encoded_words<'a>(q: WordEncoder, text: &str, room: usize) -> Vec<Cow<'a, str>> {
    let encoder = if q.payload_len(text) <= B.payload_len(text) { q } else { B };
    let (mut words, mut rest) = (Vec::new(), text);
    let mut budget = room.min(MAX_WORD_LEN).saturating_sub(WORD_FRAME).max(WIDEST);
    while !rest.is_empty() {
        let mut word = format!("=?utf-8?{}?", char::from(encoder.letter()));
        let taken = encoder.encode_payload(rest, budget, &mut word);
        word.push_str("?=");
        words.push(word.into());
        rest = rest.get(taken.max(1)..).unwrap_or_default();
        budget = MAX_WORD_LEN - WORD_FRAME;
    }
    words
}

/// A display name (RFC 5322 §3.2.5): a quoted string, or encoded words (RFC 2047 §5).
fn phrase<'a>(name: &str, room: usize) -> Vec<Cow<'a, str>> {
    let name = one_line(name, usize::MAX);
    if name.is_empty() {
        Vec::new()
    } else if is_plain(&name) {
        vec![quoted_string(&name).into()]
    } else {
        encoded_words(Q_PHRASE, &name, room)
    }
}

/// RFC 5322 §3.2.4
fn quoted_string(text: &str) -> String {
    let escaped = text.chars().flat_map(|c| {
        let escape = matches!(c, '"' | '\\').then_some('\\');
        escape.into_iter().chain(iter::once(c))
    });
    format!("\"{}\"", escaped.collect::<String>())
}

/// A parameter; in sections where it is long and not plain (RFC 2231 §3, §4).
fn parameter(key: &str, value: &str) -> Vec<String> {
    let value = one_line(value, usize::MAX);
    if is_plain(&value) {
        return vec![format!("{key}={}", quoted_string(&value))];
    }
    let mut sections = vec!["UTF-8''".to_owned()];
    for c in value.chars() {
        let escaped = PERCENT.encode(c.encode_utf8(&mut [0; 4]));
        match sections.last_mut() {
            Some(last) if last.len() + escaped.len() <= SECTION => last.push_str(&escaped),
            Some(_) | None => sections.push(escaped),
        }
    }
    match sections.as_slice() {
        [only] => vec![format!("{key}*={only}")],
        _ => (0..).zip(&sections).map(|(n, text)| format!("{key}*{n}*={text}")).collect(),
    }
}

/// Text with CRLF at each line end (RFC 2045 §6.8, canonical form), the last included, and without
/// NUL.
fn canonical(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n").replace('\0', "\u{fffd}");
    let text = text.strip_suffix('\n').unwrap_or(&text);
    text.replace('\n', "\r\n") + "\r\n"
}

/// RFC 2045 §2.7, §6.7: a line that every transport keeps.
fn needs_no_encoding(line: &str) -> bool {
    line.len() <= LINE
        && line.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b))
        && !line.ends_with([' ', '\t'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::data::is_mail_data;
    use mail_parser::{MessageParser, MimeHeaders};
    use proptest::prelude::*;

    fn written(write: impl FnOnce(&mut MessageWriter)) -> String {
        let mut writer = MessageWriter::default();
        write(&mut writer);
        String::from_utf8(writer.finish().into()).unwrap()
    }

    #[test]
    fn fields_of_plain_text_stay_readable() {
        let ann = &"ann@a.example".parse().unwrap();
        let long = "a".repeat(90);
        for (field, expected) in [
            (written(|w| w.text("Subject", "Hello there")), "Subject: Hello there\r\n"),
            (written(|w| w.text("Subject", "Grüße")), "Subject: =?utf-8?B?R3LDvMOfZQ==?=\r\n"),
            (
                written(|w| w.mailboxes("From", [("Ann \"A\"", ann)])),
                "From: \"Ann \\\"A\\\"\" <ann@a.example>\r\n",
            ),
            (
                written(|w| w.mailboxes("To", [("", ann), ("", ann)])),
                "To: <ann@a.example>, <ann@a.example>\r\n",
            ),
            (written(|w| w.ids("References", ["<a@b>", "c@d"])), "References: <a@b> <c@d>\r\n"),
            (
                written(|w| {
                    w.parameters("Content-Disposition", "attachment", &[("filename", "Grün.pdf")])
                }),
                "Content-Disposition: attachment; filename*=UTF-8''Gr%C3%BCn.pdf\r\n",
            ),
            (
                written(|w| w.words("Date", &format!("a\r\nb\u{e9} {long}"))),
                &format!("Date: a??b?\r\n\t{long}\r\n"),
            ),
        ] {
            assert_eq!(field, expected);
        }
    }

    /// A typed encoded word is text; so is one that a rule's tag holds apart.
    #[test]
    fn typed_encoded_words_stay_text() {
        for typed in
            ["=?utf-8?q?x=0D=0ABcc:_e?=", "=[tag]?utf-8?q?x?[tag]=", "a =?utf-8?b?eA==?= b"]
        {
            let message = written(|w| {
                w.text("Subject", typed);
                w.mailboxes("From", [(typed, &"ann@a.example".parse().unwrap())]);
                w.parameters("Content-Type", "text/plain", &[("name", typed)]);
                w.encoding("7bit");
            });
            let parsed = MessageParser::new().parse(message.as_bytes()).unwrap();
            assert_eq!(parsed.subject(), Some(typed));
            assert_eq!(parsed.from().unwrap().first().unwrap().name(), Some(typed));
            assert_eq!(parsed.attachment_name(), Some(typed));
            for encoded in message.replace("[tag]", "").split_inclusive(' ') {
                assert!(!encoded.contains("=?utf-8?q?x"), "{message}");
            }
        }
    }

    proptest! {
        #[test]
        fn fields_decode_to_the_very_text(
            text in "(?s:.{0,300})", name in "(?s:.{0,150})", file in "(?s:.{0,200})",
        ) {
            let ann = "ann@a.example".parse().unwrap();
            let message = written(|w| {
                w.text("Subject", &text);
                w.mailboxes("From", [(name.as_str(), &ann)]);
                w.parameters("Content-Disposition", "attachment", &[("filename", &file), ("x", "y")]);
                w.encoding("7bit");
            });
            prop_assert!(is_mail_data(message.as_bytes()) && message.ends_with("\r\n\r\n"));
            prop_assert!(message.is_ascii());
            prop_assert!(message.split("\r\n").all(|line| line.len() < 998));
            let line = |text: &str| one_line(text, usize::MAX);
            let parsed = MessageParser::new().parse(message.as_bytes()).unwrap();
            prop_assert_eq!(parsed.headers().len(), 4, "{}", message);
            prop_assert_eq!(parsed.subject().unwrap_or_default(), line(&text), "{}", message);
            let from = parsed.from().unwrap().first().unwrap().clone();
            prop_assert_eq!(from.name().unwrap_or_default(), line(&name), "{}", message);
            prop_assert_eq!(from.address(), Some("ann@a.example"));
            prop_assert_eq!(parsed.attachment_name().unwrap_or_default(), line(&file), "{}", message);
        }

        #[test]
        fn bodies_decode_to_the_very_text(text in "(?s:.{0,900})", kind in prop::bool::ANY) {
            let kind = if kind { "text/plain" } else { "text/html" };
            let message = written(|w| w.text_body(kind, &text));
            prop_assert!(is_mail_data(message.as_bytes()) && message.ends_with("\r\n"));
            prop_assert!(message.is_ascii());
            prop_assert!(message.split("\r\n").all(|line| line.len() <= 76));
            let parsed = MessageParser::new().parse(message.as_bytes()).unwrap();
            let part = parsed.part(0).unwrap();
            prop_assert_eq!(part.text_contents().unwrap(), canonical(&text), "{}", message);
        }
    }
}
