//! HTML as a row of tags and words, as a browser would tell them apart, and back.

use html5ever::{
    LocalName,
    tendril::StrTendril,
    tokenizer::{
        BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
        states::RawKind,
    },
};
use std::cell::RefCell;

/// Bytes read between two looks at whether to go on.
const PORTION: usize = 4096;
/// Elements without an end.
pub(super) const VOID: [&str; 5] = ["br", "col", "hr", "img", "wbr"];

/// A tag, or words between tags.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Start { name: String, attributes: Vec<(String, String)>, closed: bool },
    End(String),
}

struct Sink<F>(RefCell<F>);

impl<F: FnMut(Piece)> TokenSink for Sink<F> {
    type Handle = ();

    fn process_token(&self, token: Token, _: u64) -> TokenSinkResult<()> {
        let mut result = TokenSinkResult::Continue;
        let piece = match token {
            Token::CharacterTokens(text) => Some(Piece::Text(text.to_string())),
            Token::TagToken(tag) => {
                result = content_of(&tag);
                Some(piece_of(tag))
            }
            Token::DoctypeToken(_)
            | Token::CommentToken(_)
            | Token::NullCharacterToken
            | Token::EOFToken
            | Token::ParseError(_) => None,
        };
        if let (Some(piece), Ok(mut each)) = (piece, self.0.try_borrow_mut()) {
            each(piece);
        }
        result
    }
}

/// What follows some tags is no HTML until their end.
fn content_of(tag: &Tag) -> TokenSinkResult<()> {
    if tag.kind == TagKind::EndTag {
        return TokenSinkResult::Continue;
    }
    match tag.name.as_ref() {
        "title" | "textarea" => TokenSinkResult::RawData(RawKind::Rcdata),
        "style" | "xmp" | "iframe" | "noembed" | "noframes" => {
            TokenSinkResult::RawData(RawKind::Rawtext)
        }
        "script" => TokenSinkResult::RawData(RawKind::ScriptData),
        "plaintext" => TokenSinkResult::Plaintext,
        _ => TokenSinkResult::Continue,
    }
}

fn piece_of(tag: Tag) -> Piece {
    let text = |name: &LocalName| name.to_string();
    if tag.kind == TagKind::EndTag {
        return Piece::End(text(&tag.name));
    }
    let attributes = tag.attrs.iter().map(|a| (text(&a.name.local), a.value.to_string())).collect();
    Piece::Start { name: text(&tag.name), attributes, closed: tag.self_closing }
}

/// Gives each piece of `html` to `each`. Asked now and then, `go_on` may end it: false then, and what
/// follows was not read.
pub(super) fn read(html: &str, go_on: &dyn Fn() -> bool, each: impl FnMut(Piece)) -> bool {
    let tokenizer = Tokenizer::new(Sink(RefCell::new(each)), TokenizerOpts::default());
    let queue = BufferQueue::default();
    let mut rest = html;
    while !rest.is_empty() {
        if !go_on() {
            return false;
        }
        let (portion, tail) =
            rest.split_at_checked(rest.floor_char_boundary(PORTION)).unwrap_or((rest, ""));
        queue.push_back(StrTendril::from_slice(portion));
        // Our sink runs no scripts and asks for no encoding, so nothing is waited for.
        let _ = tokenizer.feed(&queue);
        rest = tail;
    }
    tokenizer.end();
    true
}

/// HTML being written. Whatever it is given, tags stay tags and words stay words.
#[derive(Debug)]
pub(super) struct Writer {
    out: String,
}

impl Writer {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { out: String::with_capacity(bytes) }
    }
    pub(super) fn start(&mut self, name: &str, attributes: &[(String, String)]) {
        self.out.push('<');
        self.out.push_str(name);
        for (name, value) in attributes.iter().filter(|(name, _)| is_name(name)) {
            self.out.push(' ');
            self.out.push_str(name);
            self.out.push_str("=\"");
            self.escaped(value);
            self.out.push('"');
        }
        self.out.push('>');
    }
    pub(super) fn end(&mut self, name: &str) {
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
    }
    pub(super) fn text(&mut self, text: &str) {
        self.escaped(text);
    }
    pub(super) fn finish(self) -> String {
        self.out
    }
    fn escaped(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '&' => self.out.push_str("&amp;"),
                '<' => self.out.push_str("&lt;"),
                '>' => self.out.push_str("&gt;"),
                '"' => self.out.push_str("&quot;"),
                c => self.out.push(c),
            }
        }
    }
}

/// A name that can't be taken for anything else.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
