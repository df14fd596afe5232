//! The part index: where each MIME part of a message begins and ends (RFC 2045, RFC 2046), found
//! while the message streams by, so that an attachment is decoded as it streams out and nothing is
//! held whole.

mod decode;
mod facts;
mod indexer;

pub use decode::Decoder;
pub use indexer::Indexer;

use crate::mail::PickupWish;
use mail_parser::decoders::charsets::map::charset_decoder;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Content-Transfer-Encoding (RFC 2045 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferEncoding {
    /// 7bit, 8bit, binary, and anything unknown: bytes as they are.
    Identity,
    /// base64
    Base64,
    /// quoted-printable
    QuotedPrintable,
}
/// What a part is for a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartRole {
    /// multipart/*: holds others.
    Container,
    /// The text/plain body.
    Text,
    /// The text/html body.
    Html,
    /// All else, message/rfc822 included: offered for download.
    Attachment,
}
/// One part. Ranges are offsets into the message's content (the bytes after DATA, dot-unstuffed).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Nesting, 0 for the message itself.
    pub depth: u8,
    /// What it is for.
    pub role: PartRole,
    /// `type/subtype`, lower case; `text/plain` where none is given.
    pub content_type: String,
    /// charset parameter.
    pub charset: Option<String>,
    /// How the body is encoded.
    pub encoding: TransferEncoding,
    /// File name (Content-Disposition filename or Content-Type name; RFC 2231 and RFC 2047
    /// decoded), bounded to 255 characters, no control characters, no path separators.
    pub name: Option<String>,
    /// Content-ID without brackets.
    pub content_id: Option<String>,
    /// The part's header section, without the empty line behind it.
    pub header: Range<u64>,
    /// The part's encoded body, without the CRLF that belongs to the boundary.
    pub body: Range<u64>,
}
/// All parts of a message, kept sealed beside it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PartIndex {
    /// In order of appearance; the first is the message itself.
    pub parts: Vec<Part>,
    /// True if a bound ([`Indexer::MAX_PARTS`], [`Indexer::MAX_DEPTH`]) was met: what lies deeper
    /// is inside its parent.
    pub truncated: bool,
    /// The second channel that the sender's own field asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pickup: Option<PickupWish>,
}
impl PartIndex {
    /// The message's own header section.
    pub fn header(&self) -> Range<u64> {
        self.parts.first().map(|part| part.header.clone()).unwrap_or_default()
    }
    /// The text/plain part to show.
    pub fn text(&self) -> Option<&Part> {
        self.parts.iter().find(|part| part.role == PartRole::Text)
    }
    /// The text/html part to show.
    pub fn html(&self) -> Option<&Part> {
        self.parts.iter().find(|part| part.role == PartRole::Html)
    }
    /// Attachments; at the portal they are numbered from 1 in this order.
    pub fn attachments(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|p| p.role == PartRole::Attachment)
    }
}
/// Text of a decoded text part for display, from its charset (mail-parser's decoders; unknown:
/// UTF-8 lossy). What calls itself ASCII, or nothing, is UTF-8 where it is valid UTF-8.
pub fn decode_charset(charset: Option<&str>, bytes: &[u8]) -> String {
    let charset = charset.map(|c| c.trim().to_ascii_lowercase()).unwrap_or_default();
    if matches!(charset.as_str(), "" | "us-ascii" | "ascii" | "utf-8" | "utf8")
        && let Ok(text) = std::str::from_utf8(bytes)
    {
        return text.to_owned();
    }
    match charset_decoder(charset.as_bytes()) {
        Some(decode) if !charset.is_empty() => decode(bytes),
        Some(_) | None => String::from_utf8_lossy(bytes).into_owned(),
    }
}

#[cfg(test)]
mod tests;
