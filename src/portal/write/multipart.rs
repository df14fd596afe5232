//! Forms with files (RFC 7578), read as they stream in: bytes in, parts out. Bounded whatever comes:
//! no part is held whole, and a part's head has its limit.
//!
//! Own code because the parser that axum offers reads ahead all that a connection gives, and has no
//! limit for a part's head.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem::{self, Finder};

/// Bytes of a part's head.
const MAX_HEAD: usize = 8 * 1024;
/// Longest boundary (RFC 2046 §5.1.1).
const MAX_BOUNDARY: usize = 70;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A part begins.
    Part(Head),
    /// A piece of its content.
    Data(Bytes),
    /// It has ended.
    End,
    /// The form has ended.
    Done,
}
/// Whose content follows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// The field's name.
    pub(super) name: String,
    /// The file's name as the browser tells it, if it is a file.
    pub(super) file: Option<String>,
    /// The file's type as the browser tells it.
    pub(super) kind: String,
}
/// No form of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Preamble,
    /// Behind a delimiter.
    Delimiter,
    Head,
    Data,
    Done,
}

/// The parser.
#[derive(Debug)]
pub(super) struct Multipart {
    finder: Finder<'static>,
    buffer: BytesMut,
    at: At,
}

impl Multipart {
    /// For a request of this Content-Type; `None` if it is no form with files.
    pub(super) fn of(content_type: &str) -> Option<Self> {
        let (kind, rest) = content_type.split_once(';')?;
        if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
            return None;
        }
        let boundary = parameters(rest).find(|(name, _)| name == "boundary")?.1;
        if boundary.is_empty() || boundary.len() > MAX_BOUNDARY {
            return None;
        }
        let delimiter = format!("\r\n--{boundary}");
        // The first delimiter has no line before it.
        let buffer = BytesMut::from("\r\n");
        Some(Self { finder: Finder::new(&delimiter).into_owned(), buffer, at: At::Preamble })
    }

    /// More of the body.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// What is to be read of what came; `None`: more is needed.
    pub(super) fn poll(&mut self) -> Result<Option<Event>, Malformed> {
        loop {
            match self.at {
                At::Preamble => match self.finder.find(&self.buffer) {
                    Some(at) => self.delimiter(at),
                    None => {
                        self.buffer.advance(self.settled());
                        return Ok(None);
                    }
                },
                At::Delimiter => match self.buffer.first_chunk::<2>() {
                    None => return Ok(None),
                    Some(b"--") => self.at = At::Done,
                    Some(b"\r\n") => {
                        self.buffer.advance(2);
                        self.at = At::Head;
                    }
                    // RFC 2046 §5.1.1: padding may follow.
                    Some([b' ' | b'\t', _]) => self.buffer.advance(1),
                    Some(_) => return Err(Malformed),
                },
                At::Head => return self.head(),
                At::Data => return Ok(self.data()),
                At::Done => return Ok(Some(Event::Done)),
            }
        }
    }

    /// Bytes that no delimiter can begin in any more.
    fn settled(&self) -> usize {
        self.buffer.len().saturating_sub(self.finder.needle().len() - 1)
    }

    fn delimiter(&mut self, at: usize) {
        self.buffer.advance(at + self.finder.needle().len());
        self.at = At::Delimiter;
    }

    fn head(&mut self) -> Result<Option<Event>, Malformed> {
        let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") else {
            let long = self.buffer.len() > MAX_HEAD;
            return if long { Err(Malformed) } else { Ok(None) };
        };
        if end > MAX_HEAD {
            return Err(Malformed);
        }
        let head = self.buffer.split_to(end);
        self.buffer.advance(4);
        self.at = At::Data;
        Ok(Some(Event::Part(read_head(&String::from_utf8_lossy(&head))?)))
    }

    fn data(&mut self) -> Option<Event> {
        let ready = match self.finder.find(&self.buffer) {
            Some(0) => {
                self.delimiter(0);
                return Some(Event::End);
            }
            Some(at) => at,
            None => self.settled(),
        };
        (ready > 0).then(|| Event::Data(self.buffer.split_to(ready).freeze()))
    }
}

fn read_head(text: &str) -> Result<Head, Malformed> {
    let mut head = Head::default();
    let mut named = false;
    for line in text.split("\r\n") {
        let (name, value) = line.split_once(':').ok_or(Malformed)?;
        if name.eq_ignore_ascii_case("content-type") {
            value.trim().clone_into(&mut head.kind);
        } else if name.eq_ignore_ascii_case("content-disposition") {
            let (kind, rest) = value.split_once(';').ok_or(Malformed)?;
            if !kind.trim().eq_ignore_ascii_case("form-data") {
                return Err(Malformed);
            }
            for (name, value) in parameters(rest) {
                match name.as_str() {
                    "name" => (head.name, named) = (value, true),
                    "filename" => head.file = head.file.or_else(|| Some(unescaped(&value))),
                    // RFC 7578 §4.2 forbids it; some programs send it all the same.
                    "filename*" => head.file = extended(&value).or(head.file),
                    _ => {}
                }
            }
        }
    }
    if named { Ok(head) } else { Err(Malformed) }
}

/// `; name="value"` pairs. A browser writes a quotation mark in a name as `%22`, other programs as
/// `\"`; a backslash before anything else is one of a Windows path.
fn parameters(text: &str) -> impl Iterator<Item = (String, String)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([';', ' ', '\t']);
        let (name, after) = rest.split_once('=')?;
        let name = name.trim().to_ascii_lowercase();
        let Some(quoted) = after.trim_start().strip_prefix('"') else {
            let (value, after) = after.split_once(';').unwrap_or((after, ""));
            rest = after;
            return Some((name, value.trim().to_owned()));
        };
        let (mut value, mut escaped) = (String::new(), false);
        let mut end = quoted.len();
        for (at, c) in quoted.char_indices() {
            match c {
                '"' | '\\' if escaped => value.push(c),
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => {}
                _ if escaped => value.extend(['\\', c]),
                _ => value.push(c),
            }
            escaped = c == '\\' && !escaped;
        }
        rest = quoted.get(end..).unwrap_or_default();
        Some((name, value))
    })
}

/// What browsers escape in a file's name, and nothing else: a `%` may be one.
fn unescaped(name: &str) -> String {
    name.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n")
}

/// RFC 8187: `UTF-8''na%C3%AFve`
fn extended(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, coded) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    let mut bytes = Vec::new();
    let mut rest = coded.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.first_chunk::<2>().filter(|_| byte == b'%');
        let decoded =
            hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPE: &str = "multipart/form-data; boundary=\"x y\"";

    /// Parts with their content, or where it breaks.
    fn read(body: &[u8], cuts: &[usize]) -> Result<Vec<(Head, Vec<u8>)>, Malformed> {
        let mut form = Multipart::of(TYPE).unwrap();
        let (mut parts, mut rest) = (Vec::new(), body);
        let mut cuts = cuts.iter();
        loop {
            match form.poll()? {
                Some(Event::Part(head)) => parts.push((head, Vec::new())),
                Some(Event::Data(data)) => parts.last_mut().unwrap().1.extend_from_slice(&data),
                Some(Event::End) => {}
                Some(Event::Done) => return Ok(parts),
                None if rest.is_empty() => return Err(Malformed),
                None => {
                    let cut = cuts.next().map_or(rest.len(), |cut| (*cut).clamp(1, rest.len()));
                    form.feed(&rest[..cut]);
                    rest = &rest[cut..];
                }
            }
        }
    }
    fn head(name: &str, file: Option<&str>, kind: &str) -> Head {
        Head { name: name.to_owned(), file: file.map(str::to_owned), kind: kind.to_owned() }
    }

    #[test]
    fn forms_come_apart() {
        let body = b"preamble\r\n--x y\r\nContent-Disposition: form-data; name=\"to\"\r\n\r\na@b\r\n\
            --x y \t\r\ncontent-disposition: form-data; name=files; filename=\"a;%22b%22.txt\"\r\n\
            Content-Type: text/plain\r\n\r\n\r\n--x\r\n--xy\r\n\r\n--x y\r\n\
            Content-Disposition: form-data; name=\"files\"; filename=\"\"\r\n\r\n\r\n--x y--\r\nepilogue";
        let parts = read(body, &[]).unwrap();
        let expected = [
            (head("to", None, ""), b"a@b".to_vec()),
            (head("files", Some("a;\"b\".txt"), "text/plain"), b"\r\n--x\r\n--xy\r\n".to_vec()),
            (head("files", Some(""), ""), Vec::new()),
        ];
        assert_eq!(parts, expected);
    }

    #[test]
    fn names_as_programs_write_them() {
        for (written, name) in [
            ("filename=\"C:\\dir\\a.txt\"", "C:\\dir\\a.txt"),
            ("filename=\"a\\\"b.txt\"", "a\"b.txt"),
            ("filename=\"a\\\\b.txt\"", "a\\b.txt"),
            ("filename=\"a.txt\"; filename*=UTF-8''na%C3%AFve%20x.txt", "naïve x.txt"),
            ("filename*=utf-8'de'100%25.txt", "100%.txt"),
            ("filename*=iso-8859-1''%E9; filename=b", "b"),
            ("filename=\"ü%0D%0A.txt\"", "ü\r\n.txt"),
            ("filename=\"open", "open"),
            ("filename=\"100%.txt\"", "100%.txt"),
        ] {
            let text = format!("Content-Disposition: form-data; name=\"f\"; {written}");
            assert_eq!(read_head(&text).unwrap().file.as_deref(), Some(name), "{written}");
        }
    }

    #[test]
    fn what_is_no_form_is_refused() {
        for (body, why) in [
            (&b"--x y\r\nContent-Disposition: form-data\r\n\r\nx\r\n--x y--"[..], "no name"),
            (
                b"--x y\r\nContent-Disposition: attachment; name=a\r\n\r\nx\r\n--x y--",
                "no form-data",
            ),
            (b"--x y\r\nno field\r\n\r\nx\r\n--x y--", "a head that is none"),
            (b"--x yz\r\nContent-Disposition: form-data; name=a\r\n\r\n", "no end of line"),
            (b"--x y\r\nContent-Disposition: form-data; name=a\r\n\r\nx", "cut off in its content"),
            (b"--x y\r\nContent-Disposition: form-data; name=a", "cut off in its head"),
            (b"", "nothing"),
        ] {
            assert_eq!(read(body, &[]), Err(Malformed), "{why}");
        }
        let long = format!("--x y\r\nX: {}", "a".repeat(MAX_HEAD));
        assert_eq!(read(long.as_bytes(), &[]), Err(Malformed), "an endless head");
        for kind in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/mixed; boundary=a",
            "text/plain; boundary=a",
        ] {
            assert!(Multipart::of(kind).is_none(), "{kind}");
        }
        assert!(
            Multipart::of(&format!("multipart/form-data; boundary={}", "b".repeat(71))).is_none()
        );
    }

    #[test]
    fn nothing_gathers() {
        let mut form = Multipart::of(TYPE).unwrap();
        form.feed(b"--x y\r\nContent-Disposition: form-data; name=a\r\n\r\n");
        while form.poll().unwrap().is_some() {}
        for _ in 0..1000 {
            form.feed(&[b'\r'; 1000]);
            while form.poll().unwrap().is_some() {}
            assert!(form.buffer.len() < 100, "{}", form.buffer.len());
        }
    }

    proptest! {
        #[test]
        fn any_content_in_any_portions(contents in prop::collection::vec("(\r\n|--x y|\r|-|[a-z]){0,20}", 1..4), cuts in prop::collection::vec(1usize..9, 0..60)) {
            // What holds the delimiter is no content of a form with this boundary.
            prop_assume!(contents.iter().all(|c| !format!("\r\n{c}").contains("\r\n--x y")));
            let mut body = String::new();
            for content in &contents {
                body += &format!("--x y\r\nContent-Disposition: form-data; name=a\r\n\r\n{content}\r\n");
            }
            body += "--x y--\r\n";
            let parts = read(body.as_bytes(), &cuts).unwrap();
            let read: Vec<_> = parts.into_iter().map(|(_, c)| String::from_utf8(c).unwrap()).collect();
            prop_assert_eq!(read, contents);
        }
        #[test]
        fn any_bytes_in_any_portions(body in "(\r\n|--x y|--|Content-Disposition: form-data; |name=|filename=|\"|\\\\|%|'|[a-z]){0,60}", cuts in prop::collection::vec(1usize..9, 0..60)) {
            prop_assert_eq!(read(body.as_bytes(), &cuts), read(body.as_bytes(), &[]));
        }
    }
}
