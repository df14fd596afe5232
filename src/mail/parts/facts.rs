//! What a part's header section says of it (RFC 2045, RFC 2183, RFC 2231).

use super::{TransferEncoding, decode_charset};
use crate::mail::header::Fields;

/// Longest boundary taken; RFC 2046 §5.1.1 allows 70 octets.
pub(super) const MAX_BOUNDARY: usize = 200;
const MAX_PARAMETERS: usize = 256;
const MAX_NAME: usize = 255;

/// The `Content-*` fields of one part, understood.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) content_type: String,
    pub(super) charset: Option<String>,
    pub(super) encoding: TransferEncoding,
    pub(super) name: Option<String>,
    pub(super) content_id: Option<String>,
    pub(super) boundary: Option<Vec<u8>>,
    /// Content-Disposition is `attachment`, or one that is unknown (RFC 2183 §2.8 has it read so).
    pub(super) attached: bool,
}

impl Facts {
    /// Reads the fields; `default_type` is what stands where there is no Content-Type.
    pub(super) fn read(fields: &Fields, default_type: &str) -> Self {
        let kind = fields.first_raw("Content-Type").map(Structured::parse);
        let disposition = fields.first_raw("Content-Disposition").map(Structured::parse);
        let content_type = match &kind {
            Some(kind) => media_type(&kind.value),
            None => default_type.to_owned(),
        };
        let name = disposition.as_ref().and_then(|d| d.text("filename"));
        let name = name.or_else(|| kind.as_ref().and_then(|k| k.text("name")));
        let boundary = kind.as_ref().filter(|_| content_type.starts_with("multipart/"));
        Self {
            charset: kind.as_ref().and_then(|k| k.word("charset", 64)),
            encoding: fields
                .first_raw("Content-Transfer-Encoding")
                .map_or(TransferEncoding::Identity, encoding),
            name: name.and_then(|name| safe_name(&name)),
            content_id: fields.first_raw("Content-ID").and_then(content_id),
            boundary: boundary.and_then(Structured::boundary),
            attached: disposition.is_some_and(|d| !matches!(d.value.as_str(), "" | "inline")),
            content_type,
        }
    }
}

/// RFC 2045 §5.1. `text` alone is older than MIME; what else is no type is not guessed at.
fn media_type(value: &str) -> String {
    let token = |t: &str| {
        !t.is_empty()
            && t.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b))
    };
    match value.split_once('/') {
        Some((kind, sub)) if token(kind) && token(sub) && value.len() <= 127 => value.to_owned(),
        None if matches!(value, "" | "text") => "text/plain".to_owned(),
        Some(_) | None => "application/octet-stream".to_owned(),
    }
}

fn encoding(raw: &[u8]) -> TransferEncoding {
    match first_word(raw).to_ascii_lowercase().as_slice() {
        b"base64" => TransferEncoding::Base64,
        b"quoted-printable" => TransferEncoding::QuotedPrintable,
        _ => TransferEncoding::Identity,
    }
}

fn content_id(raw: &[u8]) -> Option<String> {
    let raw = raw.trim_ascii();
    let inner = raw.strip_prefix(b"<").and_then(|r| r.strip_suffix(b">")).unwrap_or(raw);
    let sane = matches!(inner.len(), 1..=255) && inner.iter().all(u8::is_ascii_graphic);
    sane.then(|| String::from_utf8_lossy(inner).into_owned())
}

/// Up to white space, a comment or a semicolon.
fn first_word(raw: &[u8]) -> &[u8] {
    let raw = raw.trim_ascii();
    let end = raw.iter().position(|b| matches!(b, b' ' | b'\t' | b'(' | b';' | b'\r' | b'\n'));
    end.and_then(|end| raw.get(..end)).unwrap_or(raw)
}

/// A file name that is safe to show and to save: no controls, nothing that reorders text, no path
/// separators.
fn safe_name(name: &str) -> Option<String> {
    let unsafe_char = |c: &char| {
        c.is_control()
            || matches!(c, '/' | '\\' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let kept: String = name.chars().filter(|c| !unsafe_char(c)).take(MAX_NAME).collect();
    let kept = kept.trim();
    (!kept.trim_matches('.').is_empty()).then(|| kept.to_owned())
}

/// A value with parameters: `value; name=value; name*0*=…`.
#[derive(Debug)]
struct Structured {
    /// What stands before the parameters, lower case.
    value: String,
    /// Names in lower case, values unquoted.
    parameters: Vec<(String, Vec<u8>)>,
}

impl Structured {
    fn parse(raw: &[u8]) -> Self {
        let mut pieces = split(raw).into_iter();
        let value = pieces.next().unwrap_or_default();
        let value = String::from_utf8_lossy(first_word(&value)).to_ascii_lowercase();
        let parameters = pieces.take(MAX_PARAMETERS).filter_map(|piece| {
            let at = memchr::memchr(b'=', &piece)?;
            let (name, rest) = piece.split_at_checked(at)?;
            let name = String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase();
            Some((name, unquote(rest.get(1..)?)))
        });
        Self { value, parameters: parameters.collect() }
    }

    fn get(&self, name: &str) -> Option<&[u8]> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_slice())
    }

    /// The bytes of a parameter and the charset they name: RFC 2231 §4 (`name*`), §3 (`name*0`,
    /// `name*1*`), or plain.
    fn bytes(&self, name: &str) -> Option<(Vec<u8>, Option<String>)> {
        if let Some(extended) = self.get(&format!("{name}*")) {
            return Some(charset_of(extended));
        }
        let mut joined: Option<(Vec<u8>, Option<String>)> = None;
        for n in 0..MAX_PARAMETERS {
            let piece = match (self.get(&format!("{name}*{n}*")), self.get(&format!("{name}*{n}")))
            {
                (Some(first), _) if n == 0 => charset_of(first),
                (Some(encoded), _) => (percent(encoded), None),
                (None, Some(plain)) => (plain.to_vec(), None),
                (None, None) => break,
            };
            match &mut joined {
                Some((bytes, _)) => bytes.extend_from_slice(&piece.0),
                None => joined = Some(piece),
            }
        }
        joined.or_else(|| self.get(name).map(|plain| (plain.to_vec(), None)))
    }

    /// A parameter for people; RFC 2047 words are decoded too, as most mailers do, though §5
    /// forbids them here.
    fn text(&self, name: &str) -> Option<String> {
        let (bytes, charset) = self.bytes(name)?;
        match charset {
            Some(charset) => Some(decode_charset(Some(&charset), &bytes)),
            None => Some(crate::mail::header::decode(&bytes)),
        }
    }

    /// A parameter that is one token.
    fn word(&self, name: &str, max: usize) -> Option<String> {
        let (bytes, _) = self.bytes(name)?;
        let word = first_word(&bytes);
        let sane =
            matches!(word.len(), 1..) && word.len() <= max && word.iter().all(u8::is_ascii_graphic);
        sane.then(|| String::from_utf8_lossy(word).into_owned())
    }

    /// RFC 2046 §5.1.1: a boundary does not end in white space.
    fn boundary(&self) -> Option<Vec<u8>> {
        let (bytes, _) = self.bytes("boundary")?;
        let boundary = bytes.trim_ascii_end();
        matches!(boundary.len(), 1..=MAX_BOUNDARY).then(|| boundary.to_vec())
    }
}

/// Splits at semicolons outside quotes.
fn split(raw: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = vec![Vec::new()];
    let (mut quoted, mut escaped) = (false, false);
    for &byte in raw {
        if byte == b';' && !quoted {
            pieces.push(Vec::new());
            continue;
        }
        match byte {
            b'"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = quoted && byte == b'\\' && !escaped;
        if let Some(last) = pieces.last_mut() {
            last.push(byte);
        }
    }
    pieces
}

/// A quoted string without its quotes, or a token; white space inside a token is kept (names come
/// so).
fn unquote(raw: &[u8]) -> Vec<u8> {
    let raw = raw.trim_ascii();
    let Some(inner) = raw.strip_prefix(b"\"") else {
        return raw.to_vec();
    };
    let mut text = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => break,
            b'\\' => text.extend(bytes.next()),
            _ => text.push(byte),
        }
    }
    text
}

/// RFC 2231 §4: `charset'language'percent-encoded`.
fn charset_of(raw: &[u8]) -> (Vec<u8>, Option<String>) {
    let mut pieces = raw.splitn(3, |&b| b == b'\'');
    match (pieces.next(), pieces.next(), pieces.next()) {
        (Some(charset), Some(_), Some(text)) => {
            let charset = String::from_utf8_lossy(charset).into_owned();
            (percent(text), Some(charset).filter(|c| c.len() <= 45))
        }
        (_, _, _) => (percent(raw), Some(String::new())),
    }
}

fn percent(raw: &[u8]) -> Vec<u8> {
    let digit = |b: Option<&u8>| b.and_then(|b| char::from(*b).to_digit(16));
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%'
            && let (Some(high), Some(low)) = (digit(tail.first()), digit(tail.get(1)))
            && let Ok(decoded) = u8::try_from(high << 4 | low)
        {
            out.push(decoded);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            out.push(byte);
        }
    }
    out
}
