//! HTML brought into bounds: known tags alone, so many and no more, well nested, none deep.

use super::pieces::{Piece, VOID, Writer, read};

/// Elements that may be shown.
pub(super) const TAGS: &[&str] = &[
    "a",
    "abbr",
    "acronym",
    "article",
    "aside",
    "b",
    "bdi",
    "bdo",
    "big",
    "blockquote",
    "br",
    "caption",
    "center",
    "cite",
    "code",
    "col",
    "colgroup",
    "dd",
    "del",
    "dfn",
    "div",
    "dl",
    "dt",
    "em",
    "figcaption",
    "figure",
    "font",
    "footer",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "i",
    "img",
    "ins",
    "kbd",
    "li",
    "mark",
    "ol",
    "p",
    "pre",
    "q",
    "s",
    "samp",
    "small",
    "span",
    "strike",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "tr",
    "tt",
    "u",
    "ul",
    "var",
    "wbr",
];
/// Elements that go with all that is in them.
const DROPPED: [&str; 19] = [
    "applet",
    "audio",
    "canvas",
    "iframe",
    "math",
    "noembed",
    "noframes",
    "object",
    "plaintext",
    "script",
    "select",
    "style",
    "svg",
    "template",
    "textarea",
    "title",
    "video",
    "xmp",
    "frameset",
];
/// What a parser opens again in each new paragraph while it is not closed (HTML, "reconstruct the
/// active formatting elements").
const FORMATTING: [&str; 14] = [
    "a", "b", "big", "code", "em", "font", "i", "s", "small", "strike", "strong", "tt", "u", "nobr",
];
/// What ends an open paragraph.
const BLOCKS: [&str; 24] = [
    "article",
    "aside",
    "blockquote",
    "center",
    "dd",
    "div",
    "dl",
    "dt",
    "figcaption",
    "figure",
    "footer",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hr",
    "li",
    "ol",
    "p",
    "pre",
    "ul",
];
/// What an open paragraph outside is not ended from.
const SCOPES: [&str; 4] = ["caption", "table", "td", "th"];

/// Elements at most; a long newsletter has a quarter of that.
const MAX_ELEMENTS: usize = 20_000;
/// Elements in one another at most.
const MAX_DEPTH: usize = 100;
/// Formatting in one another at most.
const MAX_FORMATTING: usize = 12;
/// Attributes of an element at most.
const MAX_ATTRIBUTES: usize = 40;
/// Bytes of an attribute; one that is longer is left out, but for a picture's own bytes.
const MAX_ATTRIBUTE: usize = 8 * 1024;

/// The same HTML within bounds. What lies beyond them loses its tags and keeps its words. `None` if
/// `go_on` ended it.
pub(in crate::portal) fn level(html: &str, go_on: &dyn Fn() -> bool) -> Option<String> {
    let mut leveller = Leveller {
        out: Writer::with_capacity(html.len()),
        open: Vec::new(),
        elements: 0,
        dropping: None,
    };
    let whole = read(html, go_on, |piece| leveller.take(piece));
    leveller.close_to(0);
    whole.then(|| leveller.out.finish())
}

struct Leveller {
    out: Writer,
    /// What has begun and not ended; of the names in [`TAGS`].
    open: Vec<&'static str>,
    elements: usize,
    /// All is left out until so many of this element have ended.
    dropping: Option<(String, usize)>,
}

impl Leveller {
    fn take(&mut self, piece: Piece) {
        if self.dropped(&piece) {
            return;
        }
        match piece {
            Piece::Text(text) => self.out.text(&text),
            Piece::Start { name, attributes, .. } => self.start(&name, attributes),
            Piece::End(name) => self.end(&name),
        }
    }

    /// True for what is left out, its content included.
    fn dropped(&mut self, piece: &Piece) -> bool {
        match (piece, &mut self.dropping) {
            (Piece::Start { name, closed, .. }, Some((dropping, depth))) => {
                *depth += usize::from(name == dropping && !closed);
                true
            }
            (Piece::End(name), Some((dropping, depth))) => {
                *depth -= usize::from(name == dropping);
                if *depth == 0 {
                    self.dropping = None;
                }
                true
            }
            (Piece::Text(_), Some(_)) => true,
            (Piece::Start { name, closed, .. }, None) if DROPPED.contains(&name.as_str()) => {
                // Only foreign elements close themselves.
                let foreign = matches!(name.as_str(), "svg" | "math");
                if !(foreign && *closed) {
                    self.dropping = Some((name.clone(), 1));
                }
                true
            }
            (Piece::Text(_) | Piece::Start { .. } | Piece::End(_), None) => false,
        }
    }

    fn start(&mut self, name: &str, mut attributes: Vec<(String, String)>) {
        let Some(name) = TAGS.iter().find(|tag| **tag == name) else { return };
        if self.elements >= MAX_ELEMENTS {
            self.apart(name);
            return;
        }
        self.end_before(name);
        let formatting = |name: &&'static str| FORMATTING.contains(name);
        let full = self.open.len() >= MAX_DEPTH
            || formatting(name)
                && self.open.iter().filter(|name| formatting(name)).count() >= MAX_FORMATTING;
        if full && !VOID.contains(name) {
            self.apart(name);
            return;
        }
        let bytes =
            |name: &str, value: &str| name == "src" && value.trim_start().starts_with("data:");
        attributes.retain(|(name, value)| value.len() <= MAX_ATTRIBUTE || bytes(name, value));
        attributes.truncate(MAX_ATTRIBUTES);
        self.elements += 1;
        self.out.start(name, &attributes);
        if !VOID.contains(name) {
            self.open.push(name);
        }
    }

    /// A tag that is left out still keeps words apart, where its element would.
    fn apart(&mut self, name: &str) {
        if BLOCKS.contains(&name) || matches!(name, "br" | "td" | "th" | "tr") {
            self.out.text("\n");
        }
    }

    fn end(&mut self, name: &str) {
        // Only as far as the cell that it stands in.
        let cell = self.open.iter().rposition(|open| SCOPES.contains(open));
        let from = if SCOPES.contains(&name) || matches!(name, "tr" | "tbody" | "thead" | "tfoot") {
            0
        } else {
            cell.unwrap_or_default()
        };
        let found = self.open.iter().rposition(|open| *open == name);
        if let Some(at) = found.filter(|at| *at >= from) {
            self.close_to(at);
        }
    }

    /// Ends what the start of an element ends without a word: a paragraph, the item or cell before.
    fn end_before(&mut self, name: &str) {
        match name {
            "li" => self.end_last(&["li"], &["ul", "ol", "table"]),
            "dd" | "dt" => self.end_last(&["dd", "dt"], &["dl", "table"]),
            "td" | "th" => self.end_last(&["td", "th"], &["table"]),
            "tr" => self.end_last(&["tr"], &["table"]),
            "tbody" | "thead" | "tfoot" => self.end_last(&["tbody", "thead", "tfoot"], &["table"]),
            _ => {}
        }
        if BLOCKS.contains(&name) {
            self.end_last(&["p"], &SCOPES);
        }
    }

    /// Ends the innermost of these, unless it lies outside of one of those.
    fn end_last(&mut self, these: &[&str], within: &[&str]) {
        let either = |open: &&str| these.contains(open) || within.contains(open);
        let last = self.open.iter().rposition(either);
        if let Some(at) = last.filter(|at| self.open.get(*at).is_some_and(|o| these.contains(o))) {
            self.close_to(at);
        }
    }

    fn close_to(&mut self, depth: usize) {
        while self.open.len() > depth {
            let Some(name) = self.open.pop() else { return };
            self.out.end(name);
        }
    }
}
