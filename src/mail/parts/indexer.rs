//! Finds the parts while the message streams by.

use super::{
    Part, PartIndex, PartRole, TransferEncoding,
    facts::{Facts, MAX_BOUNDARY},
};
use crate::mail::header::{Fields, is_field};
use std::fmt;

/// Header bytes of one part kept for reading.
const MAX_HEADER: usize = 64 * 1024;
/// Bytes of a line kept: a delimiter with its hyphens and a reasonable run of white space fits.
const MAX_LINE: usize = MAX_BOUNDARY + 256;

/// What a part weighs, about.
const PART: usize = size_of::<Part>() + 128;

/// Builds the index. Sans-I/O: fed in any portions, same result; memory bounded whatever the input.
pub struct Indexer {
    index: PartIndex,
    /// The part that is open at each depth.
    levels: Vec<Level>,
    /// The deepest open part is in its header section, of which these are the first bytes.
    pub(super) header: Option<Vec<u8>>,
    /// The first bytes of the line that is being read, and its whole length so far.
    pub(super) line: Vec<u8>,
    line_length: u64,
    /// The last byte before the one that ends a portion, for a CR cut from its LF.
    last: u8,
    /// Bytes read before this line.
    offset: u64,
    /// Where the line end before this line begins: it belongs to a delimiter (RFC 2046 §5.1.1).
    content_end: u64,
    has_text: bool,
    has_html: bool,
}

#[derive(Debug)]
struct Level {
    part: usize,
    /// Set while its parts are read; not behind its closing delimiter.
    boundary: Option<Vec<u8>>,
    /// RFC 2046 §5.1.5: parts without a type are messages.
    digest: bool,
}

impl fmt::Debug for Indexer {
    /// How far it is; nothing of the message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Indexer").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Default for Indexer {
    fn default() -> Self {
        let mut indexer = Self {
            index: PartIndex::default(),
            levels: Vec::new(),
            header: None,
            line: Vec::new(),
            line_length: 0,
            last: 0,
            offset: 0,
            content_end: 0,
            has_text: false,
            has_html: false,
        };
        indexer.open(0, 0);
        indexer
    }
}

impl Indexer {
    /// Parts indexed at most.
    pub const MAX_PARTS: usize = 1000;
    /// Nesting followed at most.
    pub const MAX_DEPTH: u8 = 32;

    /// Feeds the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let line_end = memchr::memchr(b'\n', rest);
            let at = line_end.map_or(rest.len(), |at| at + 1);
            let (segment, tail) = rest.split_at_checked(at).unwrap_or((rest, &[]));
            self.take(segment);
            if line_end.is_some() {
                self.end_line(segment);
            }
            self.last = segment.last().copied().unwrap_or_default();
            rest = tail;
        }
    }

    /// Bytes held, about: a part has names of bounded length.
    pub fn held(&self) -> usize {
        let header = self.header.as_ref().map_or(0, Vec::capacity);
        let parts = self.index.parts.len().saturating_mul(PART);
        header.saturating_add(self.line.capacity()).saturating_add(parts)
    }

    /// The message has ended.
    pub fn finish(mut self) -> PartIndex {
        if self.line_length > 0 {
            let end = self.offset.saturating_add(self.line_length);
            self.read_line(end);
            self.offset = end;
        }
        self.end_header(self.offset, self.offset);
        self.close(0, self.offset);
        let holds_parts = |index: &PartIndex, i: usize| {
            let depth = |i: usize| index.parts.get(i).map(|part| part.depth);
            depth(i + 1) > depth(i)
        };
        for i in 0..self.index.parts.len() {
            // A multipart of which no delimiter was found would be lost to the reader.
            let childless = !holds_parts(&self.index, i);
            if let Some(part) = self.index.parts.get_mut(i)
                && part.role == PartRole::Container
                && childless
            {
                part.role = PartRole::Attachment;
            }
        }
        self.index
    }

    fn take(&mut self, segment: &[u8]) {
        let room = MAX_LINE.saturating_sub(self.line.len());
        self.line.extend(segment.iter().take(room));
        self.line_length = self.line_length.saturating_add(segment.len() as u64);
        if let Some(header) = &mut self.header {
            let room = MAX_HEADER.saturating_sub(header.len());
            header.extend(segment.iter().take(room));
        }
    }

    /// A line is whole; `segment` is its last portion.
    fn end_line(&mut self, segment: &[u8]) {
        let before = match segment.len() {
            1 if self.line_length > 1 => Some(self.last),
            length => length.checked_sub(2).and_then(|i| segment.get(i)).copied(),
        };
        let ending = if before == Some(b'\r') { 2 } else { 1 };
        let end = self.offset.saturating_add(self.line_length);
        self.read_line(end);
        self.content_end = end.saturating_sub(ending);
        self.offset = end;
        self.line.clear();
        self.line_length = 0;
    }

    /// Reads the line from `self.offset` to `end`.
    fn read_line(&mut self, end: u64) {
        let line = std::mem::take(&mut self.line);
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if !self.delimiter(text) && self.header.is_some() {
            self.header_line(text, end);
        }
        self.line = line;
    }

    /// A line of a header section. One that is no field begins the body: the empty line before it
    /// is missing.
    fn header_line(&mut self, text: &[u8], end: u64) {
        let line_start = self.offset;
        let first = self.current().is_some_and(|part| part.header.start == line_start);
        let continued = !first && (text.starts_with(b" ") || text.starts_with(b"\t"));
        let mailbox_line = first
            && self.levels.len() == 1
            && (text.starts_with(b"From ") || text.starts_with(b">From "));
        if text.is_empty() {
            self.end_header(self.offset, end);
        } else if !(continued || mailbox_line || is_field(text)) {
            self.end_header(self.offset, self.offset);
            // The header just read may have named this line's delimiter.
            self.delimiter(text);
        }
    }

    fn current(&mut self) -> Option<&mut Part> {
        let part = self.levels.last()?.part;
        self.index.parts.get_mut(part)
    }

    /// Begins a part at `depth` whose header section starts at `start`.
    fn open(&mut self, depth: u8, start: u64) {
        self.levels.push(Level { part: self.index.parts.len(), boundary: None, digest: false });
        self.header = Some(Vec::new());
        self.index.parts.push(Part {
            depth,
            role: PartRole::Attachment,
            content_type: String::new(),
            charset: None,
            encoding: TransferEncoding::Identity,
            name: None,
            content_id: None,
            header: start..start,
            body: start..start,
        });
    }

    /// The header section of the deepest part ends at `end`, its body begins at `body`.
    fn end_header(&mut self, end: u64, body: u64) {
        let Some(mut kept) = self.header.take() else { return };
        let depth = u8::try_from(self.levels.len().saturating_sub(1)).unwrap_or(u8::MAX);
        let above = self.levels.iter().rev().nth(1);
        let default_type =
            if above.is_some_and(|l| l.digest) { "message/rfc822" } else { "text/plain" };
        let Some(start) = self.current().map(|part| part.header.start) else { return };
        kept.truncate(usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX));
        let facts = Facts::read(&Fields::parse(&kept), default_type);
        let role = self.role(&facts, depth);
        if let Some(level) = self.levels.last_mut().filter(|_| role == PartRole::Container) {
            level.digest = facts.content_type == "multipart/digest";
            level.boundary = facts.boundary;
        }
        let Some(part) = self.current() else { return };
        // RFC 2045 §6.4: what holds parts is not encoded itself.
        let container = role == PartRole::Container;
        part.encoding = if container { TransferEncoding::Identity } else { facts.encoding };
        part.role = role;
        part.content_type = facts.content_type;
        part.charset = facts.charset;
        part.name = facts.name;
        part.content_id = facts.content_id;
        part.header = start..end;
        part.body = body..body;
    }

    fn role(&mut self, facts: &Facts, depth: u8) -> PartRole {
        if facts.boundary.is_some() {
            if depth < Self::MAX_DEPTH {
                return PartRole::Container;
            }
            self.index.truncated = true;
            return PartRole::Attachment;
        }
        match facts.content_type.as_str() {
            "text/plain" if !facts.attached && !self.has_text => {
                self.has_text = true;
                PartRole::Text
            }
            "text/html" if !facts.attached && !self.has_html => {
                self.has_html = true;
                PartRole::Html
            }
            _ => PartRole::Attachment,
        }
    }

    /// If the line is a delimiter of an open multipart: ends what it ends, begins what it begins.
    fn delimiter(&mut self, line: &[u8]) -> bool {
        let Some(rest) = line.strip_prefix(b"--").filter(|_| line.len() < MAX_LINE) else {
            return false;
        };
        let found = self.levels.iter().enumerate().rev().find_map(|(depth, level)| {
            let closing = is_delimiter(rest, level.boundary.as_deref()?)?;
            Some((depth, closing))
        });
        let Some((depth, closing)) = found else { return false };
        self.end_header(self.offset, self.offset);
        self.close(depth + 1, self.content_end);
        if let Some(level) = self.levels.last_mut().filter(|_| closing) {
            level.boundary = None;
        }
        if !closing {
            self.next_part(depth);
        }
        true
    }

    fn next_part(&mut self, parent: usize) {
        if self.index.parts.len() >= Self::MAX_PARTS {
            self.index.truncated = true;
            return;
        }
        let start = self.offset.saturating_add(self.line_length);
        self.open(u8::try_from(parent + 1).unwrap_or(u8::MAX), start);
    }

    /// Ends the parts from `depth` on.
    fn close(&mut self, depth: usize, end: u64) {
        while self.levels.len() > depth {
            let Some(level) = self.levels.pop() else { return };
            if let Some(part) = self.index.parts.get_mut(level.part) {
                part.body.end = end.max(part.body.start);
            }
        }
    }
}

/// RFC 2046 §5.1.1: the boundary, two hyphens if it closes, white space. `Some(closing)` if it is
/// one.
fn is_delimiter(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let line = line.trim_ascii_end();
    let rest = line.strip_prefix(boundary)?;
    match rest {
        b"" => Some(false),
        b"--" => Some(true),
        _ => None,
    }
}
