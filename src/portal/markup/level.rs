//! HTML brought into bounds: known tags alone, so many and no more, well nested, none deep.
//!
//! What leaves here means to a parser just the elements that it names: where a parser would end,
//! move or repeat any by itself, that is written out here, or not let through.

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
const BLOCKS: [&str; 25] = [
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
    "table",
    "ul",
];
/// What ends a heading right around it.
const HEADINGS: [&str; 6] = ["h1", "h2", "h3", "h4", "h5", "h6"];
/// What an open paragraph outside is not ended from.
const SCOPES: [&str; 4] = ["caption", "table", "td", "th"];
/// What a table is made of.
const PARTS: [&str; 9] =
    ["caption", "col", "colgroup", "tbody", "td", "tfoot", "th", "thead", "tr"];
/// Rows together.
const GROUPS: [&str; 3] = ["tbody", "tfoot", "thead"];
/// What only parts of a table may stand in. A parser takes all else out of it, and opens formatting
/// again for each such word (HTML, "foster parenting").
const BARE: [&str; 6] = ["colgroup", "table", "tbody", "tfoot", "thead", "tr"];

/// Elements at most; a long newsletter has a quarter of that.
const MAX_ELEMENTS: usize = 20_000;
/// Elements in one another at most.
const MAX_DEPTH: usize = 100;
/// Formatting in one another at most.
const MAX_FORMATTING: usize = 12;
/// Attributes of an element at most.
const MAX_ATTRIBUTES: usize = 40;
/// Bytes of an element's attributes together; what does not fit is left out.
const MAX_ATTRIBUTE_BYTES: usize = 1024;
/// Bytes of a link's target. Those of a picture's own bytes are bounded where pictures are.
const MAX_HREF: usize = 4 * 1024;

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
            Piece::Text(text) => self.words(&text),
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

    /// White space may stand between the parts of a table; words are put into a cell.
    fn words(&mut self, text: &str) {
        if !text.bytes().all(|b| b.is_ascii_whitespace()) {
            self.need_cell();
        }
        self.out.text(text);
    }

    fn start(&mut self, name: &str, attributes: Vec<(String, String)>) {
        let Some(name) = TAGS.iter().find(|tag| **tag == name) else { return };
        if self.elements >= MAX_ELEMENTS || PARTS.contains(name) && !self.need_place(name) {
            self.apart(name);
            return;
        }
        if !PARTS.contains(name) {
            self.need_cell();
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
        self.begin(name, &fitting(name, attributes));
    }

    fn begin(&mut self, name: &'static str, attributes: &[(String, String)]) {
        self.elements += 1;
        self.out.start(name, attributes);
        if !VOID.contains(&name) {
            self.open.push(name);
        }
    }

    /// The innermost table.
    fn table(&self) -> Option<usize> {
        self.open.iter().rposition(|open| *open == "table")
    }

    /// Ends what a part of a table does not stand in, and begins the row of a cell that has none.
    /// False if there is no table: a parser leaves such a part out.
    fn need_place(&mut self, name: &str) -> bool {
        let Some(table) = self.table() else { return false };
        let is = |at: usize, these: &[&str]| self.open.get(at).is_some_and(|o| these.contains(o));
        let (cell, mut place) = (matches!(name, "td" | "th"), table + 1);
        if name == "col" {
            place += usize::from(is(place, &["colgroup"]));
        }
        if cell || name == "tr" {
            place += usize::from(is(place, &GROUPS));
        }
        if cell {
            place += usize::from(is(place, &["tr"]));
        }
        self.close_to(place);
        if cell && self.open.last() != Some(&"tr") {
            self.begin("tr", &[]);
        }
        true
    }

    /// In a table and in none of its cells, begins one; beyond the bounds the table ends instead.
    fn need_cell(&mut self) {
        let bare = self.open.last().is_some_and(|open| BARE.contains(open));
        let Some(table) = self.table().filter(|_| bare) else { return };
        if self.elements + 2 > MAX_ELEMENTS {
            self.close_to(table);
        } else if self.need_place("td") {
            self.begin("td", &[]);
        }
    }

    /// A tag that is left out still keeps words apart, where its element would.
    fn apart(&mut self, name: &str) {
        if BLOCKS.contains(&name) || matches!(name, "br" | "td" | "th" | "tr") {
            self.out.text("\n");
        }
    }

    fn end(&mut self, name: &str) {
        // Only as far as the cell that it stands in, or the table that it is a part of.
        let scope = self.open.iter().rposition(|open| SCOPES.contains(open));
        let from = match name {
            "table" => None,
            name if PARTS.contains(&name) => self.table(),
            _ => scope,
        };
        let found = self.open.iter().rposition(|open| *open == name);
        if let Some(at) = found.filter(|at| *at >= from.unwrap_or_default()) {
            self.close_to(at);
        }
    }

    /// Ends what the start of an element ends without a word: a paragraph, the item before, a link.
    fn end_before(&mut self, name: &str) {
        match name {
            "li" => self.end_last(&["li"], &["ul", "ol", "table"]),
            "dd" | "dt" => self.end_last(&["dd", "dt"], &["dl", "table"]),
            "a" => self.end_last(&["a"], &SCOPES),
            _ => {}
        }
        if BLOCKS.contains(&name) {
            self.end_last(&["p"], &SCOPES);
        }
        let heading = |name: &&str| HEADINGS.contains(name);
        if heading(&name) && self.open.last().is_some_and(heading) {
            self.close_to(self.open.len() - 1);
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

/// The attributes of an element that lie within bounds.
fn fitting(element: &str, mut attributes: Vec<(String, String)>) -> Vec<(String, String)> {
    let mut left = MAX_ATTRIBUTE_BYTES;
    attributes.truncate(MAX_ATTRIBUTES);
    attributes.retain(|(name, value)| match (element, name.as_str()) {
        ("img", "src") if value.trim_start().starts_with("data:") => true,
        ("a", "href") => value.len() <= MAX_HREF,
        _ => {
            let rest = left.checked_sub(name.len() + value.len());
            left = rest.unwrap_or(left);
            rest.is_some()
        }
    });
    attributes
}
