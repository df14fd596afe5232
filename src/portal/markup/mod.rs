//! The HTML of a message made fit to be shown: brought into bounds, sanitised, its links labelled
//! with where they lead.
//!
//! Three passes. [`level()`] rewrites what came as few and well-nested tags: a parser of HTML repeats
//! open formatting in every new paragraph, so that a megabyte written for it can fill the memory;
//! what leaves here can't. Then `ammonia` decides what may stay. Last, [`dress`] labels links and puts
//! pictures in, which nobody but this program has encoded.

mod level;
mod pieces;
mod target;
#[cfg(test)]
mod tests;

use crate::language::{Language, Text, say};
pub(super) use level::level;
use target::Shown;
pub(super) use target::shown_target;

use ammonia::{Builder, UrlRelative};
use minijinja::HtmlEscape;
use pieces::{Piece, Writer, read};
use std::{borrow::Cow, collections::HashSet, io};

/// Characters of a link's text compared with its target; a longer one is none.
const MAX_LINK_TEXT: usize = 300;
/// A target longer than this is told by its host alone.
const MAX_TARGET: usize = 300;
/// Bytes that sanitised HTML may take beyond twice its own: what is added to links.
const MAX_GROWTH: usize = 2 << 20;
/// Tags whose end is the end of a line of text.
const LINES: [&str; 20] = [
    "article",
    "blockquote",
    "center",
    "dd",
    "div",
    "dl",
    "dt",
    "figure",
    "footer",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "li",
    "pre",
    "table",
    "tr",
];

/// Style properties that change looks only. What loads or covers the page is not among them.
const STYLES: [&str; 34] = [
    "background-color",
    "border",
    "border-bottom",
    "border-collapse",
    "border-color",
    "border-left",
    "border-radius",
    "border-right",
    "border-spacing",
    "border-style",
    "border-top",
    "border-width",
    "color",
    "display",
    "font-family",
    "font-size",
    "font-style",
    "font-weight",
    "height",
    "letter-spacing",
    "line-height",
    "margin",
    "margin-bottom",
    "margin-left",
    "margin-right",
    "margin-top",
    "max-width",
    "padding",
    "text-align",
    "text-decoration",
    "text-indent",
    "vertical-align",
    "white-space",
    "width",
];

/// The style of the page in the frame. A link's label takes nothing from the message's own styles,
/// and lies above what would cover it.
const STYLE: &str = "body{font:1rem/1.5 sans-serif;color:#1d2724;background:#fff;margin:1rem;\
     overflow-wrap:anywhere}img,table{max-width:100%}.title{position:absolute;left:-999rem}\
     .target{all:initial!important;position:relative!important;z-index:1!important;\
     font:0.8rem/1.4 monospace!important;color:#1d2724!important;background:#e4ebe7!important;\
     border-radius:0.2rem!important;padding:0 0.25rem!important;margin-left:0.25rem!important;\
     overflow-wrap:anywhere!important}";

/// HTML that came level, without what acts or calls home: no scripts, forms, frames or styles that
/// load; pictures only by `cid:` and with their bytes in place; links open elsewhere and tell nobody
/// where from. `None` if it came out far larger than it went in.
pub(super) fn clean(level: &str) -> Option<String> {
    let mut builder = Builder::default();
    builder
        .tags(level::TAGS.iter().copied().collect())
        .add_generic_attributes(["style", "align", "valign", "bgcolor", "width", "height", "dir"])
        // What a browser shows in a box of its own could name another target than ours.
        .rm_generic_attributes(["title"])
        .add_tag_attributes("font", ["color", "face", "size"])
        .add_tag_attributes("table", ["border", "cellpadding", "cellspacing"])
        .filter_style_properties(HashSet::from(STYLES))
        .url_schemes(HashSet::from(["http", "https", "mailto", "tel", "data", "cid"]))
        .url_relative(UrlRelative::Deny)
        .set_tag_attribute_value("a", "target", "_blank")
        .link_rel(Some("noopener noreferrer"))
        .attribute_filter(kept);
    let mut bounded = Bounded { out: Vec::new(), left: level.len() * 2 + MAX_GROWTH };
    builder.clean(level).write_to(&mut bounded).ok()?;
    String::from_utf8(bounded.out).ok()
}

/// Bytes written while there is room for them.
struct Bounded {
    out: Vec<u8>,
    left: usize,
}
impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Style without functions but those of colours: what else there is may load, or run.
fn plain_style(style: &str) -> String {
    let plain = |declaration: &&str| {
        let lower = declaration.to_ascii_lowercase();
        let colour =
            |before: &str| ["rgb", "rgba", "hsl", "hsla"].iter().any(|c| before.ends_with(c));
        let functions = lower.match_indices('(').all(|(at, _)| lower.get(..at).is_some_and(colour));
        functions && !lower.contains(['\\', '@'])
    };
    style.split(';').filter(plain).collect::<Vec<_>>().join(";")
}

/// Pictures by the message's own parts and bytes, links by the schemes that a person follows.
fn kept<'u>(element: &str, attribute: &str, value: &'u str) -> Option<Cow<'u, str>> {
    let start: String = value.trim_start().chars().take(16).collect::<String>().to_lowercase();
    let begins = |schemes: &[&str]| schemes.iter().any(|scheme| start.starts_with(scheme));
    if attribute == "style" {
        return Some(Cow::Owned(plain_style(value)));
    }
    let keep = match (element, attribute) {
        ("img", "src") => begins(&["cid:", "data:image/"]),
        ("a", "href") => begins(&["http:", "https:", "mailto:", "tel:"]),
        (_, "href" | "src" | "cite" | "srcset" | "background" | "longdesc") => false,
        _ => true,
    };
    keep.then_some(Cow::Borrowed(value))
}

/// What the pictures of clean HTML name, each once, `most` at most.
pub(super) fn sources(clean: &str, most: usize) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    read(clean, &|| true, |piece| {
        if let Piece::Start { name, attributes, .. } = piece
            && name == "img"
            && let Some((_, source)) = attributes.iter().find(|(name, _)| name == "src")
            && found.len() < most
            && !found.contains(source)
        {
            found.push(source.clone());
        }
    });
    found
}

/// The page for the sandboxed frame. `picture` says what is shown for a picture's source: bytes that
/// this program encoded, as `data:`, or nothing.
pub(super) fn framed(
    clean: &str,
    cut: bool,
    picture: &dyn Fn(&str) -> Option<String>,
    language: &Language,
) -> String {
    let body = dress(clean, picture);
    let cut = cut.then(|| say!("The message is longer than what is shown here."));
    let more = cut.map(|cut| format!("<p>{}</p>", said(&cut, language))).unwrap_or_default();
    let (lang, title) = (language.code(), said(&title(), language));
    format!(
        "<!DOCTYPE html>\n<html lang=\"{lang}\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>{STYLE}</style></head><body><h1 class=\"title\">{title}</h1>\n{body}{more}\n</body></html>\n"
    )
}

/// A few words in the place of the message, in the frame.
pub(super) fn note(words: &Text, language: &Language) -> String {
    let (lang, words, title) = (language.code(), said(words, language), said(&title(), language));
    format!(
        "<!DOCTYPE html>\n<html lang=\"{lang}\"><head><meta charset=\"utf-8\"><title>{words}</title><style>{STYLE}\
         </style></head><body><h1 class=\"title\">{title}</h1><p>{words}</p></body></html>\n"
    )
}
fn title() -> Text {
    say!("The message with its formatting")
}
/// Words of ours as HTML.
fn said(text: &Text, language: &Language) -> String {
    HtmlEscape(&language.say(text)).to_string()
}

/// What level HTML says, as text. A link has its target behind it, unless its words are that target.
pub(super) fn text(level: &str) -> String {
    let (mut out, mut links) = (Plain::default(), Links::default());
    read(level, &|| true, |piece| match piece {
        Piece::Text(text) => {
            links.text(&text);
            out.words(&text);
        }
        Piece::Start { name, attributes, .. } => {
            links.start(&name, &attributes);
            match name.as_str() {
                "br" => out.line_break(),
                "p" => out.paragraph(),
                name if LINES.contains(&name) => out.line(),
                _ => {}
            }
            if name == "li" {
                out.words("\u{2022} ");
            }
        }
        Piece::End(name) => {
            match links.end(&name) {
                Some(shown) if shown.whole.len() <= MAX_TARGET => {
                    out.words(&format!(" <{}>", shown.whole));
                }
                Some(shown) => out.words(&format!(" [{}]", shown.short)),
                None => {}
            }
            match name.as_str() {
                "p" => out.paragraph(),
                "td" | "th" => out.words(" "),
                name if LINES.contains(&name) => out.line(),
                _ => {}
            }
        }
    });
    out.text
}

/// Text being written: white space in HTML is one space.
#[derive(Debug, Default)]
struct Plain {
    text: String,
    space: bool,
}
impl Plain {
    fn words(&mut self, words: &str) {
        for c in words.chars() {
            if c.is_whitespace() {
                self.space = true;
                continue;
            }
            if self.space && !self.text.is_empty() && !self.text.ends_with('\n') {
                self.text.push(' ');
            }
            self.space = false;
            self.text.push(c);
        }
    }
    fn line_break(&mut self) {
        self.space = false;
        if !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }
    fn line(&mut self) {
        self.space = false;
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
    }
    fn paragraph(&mut self) {
        self.line();
        if !self.text.is_empty() {
            self.line_break();
        }
    }
}

/// A link that has begun.
#[derive(Debug)]
struct Open {
    href: String,
    /// Its words; none once something else than words stands in it, which may hide or replace them.
    words: Option<String>,
}
/// Links that have begun and not ended.
#[derive(Debug, Default)]
struct Links(Vec<Open>);
impl Links {
    fn text(&mut self, text: &str) {
        for link in &mut self.0 {
            link.words = link.words.take().map(|words| words + text);
            link.words.take_if(|words| words.len() > MAX_LINK_TEXT);
        }
    }
    fn start(&mut self, name: &str, attributes: &[(String, String)]) {
        self.0.iter_mut().for_each(|link| link.words = None);
        if name == "a" {
            let href = attributes.iter().find(|(name, _)| name == "href");
            let href = href.map(|(_, href)| href.clone()).unwrap_or_default();
            self.0.push(Open { href, words: Some(String::new()) });
        }
    }
    /// What to tell behind a link that ends here.
    fn end(&mut self, name: &str) -> Option<Shown> {
        let link = if name == "a" { self.0.pop()? } else { return None };
        shown_target(&link.href, link.words.as_deref())
    }
}

fn dress(html: &str, picture: &dyn Fn(&str) -> Option<String>) -> String {
    let (mut out, mut links) = (Writer::with_capacity(html.len()), Links::default());
    read(html, &|| true, |piece| match piece {
        Piece::Text(text) => {
            links.text(&text);
            out.text(&text);
        }
        Piece::Start { name, mut attributes, .. } => {
            links.start(&name, &attributes);
            if name == "img" {
                attributes.retain_mut(|(name, value)| {
                    let shown = if name == "src" { picture(value) } else { Some(value.clone()) };
                    shown.map(|shown| *value = shown).is_some()
                });
            }
            out.start(one_heading(&name), &attributes);
        }
        Piece::End(name) => {
            out.end(one_heading(&name));
            if let Some(shown) = links.end(&name) {
                let attributes = [("class", "target"), ("dir", "ltr")];
                out.start("bdi", &attributes.map(|(n, v)| (n.to_owned(), v.to_owned())));
                out.text(&format!("[{}]", shown.short));
                out.end("bdi");
            }
        }
    });
    out.finish()
}

/// The page has one first heading, its own.
fn one_heading(name: &str) -> &str {
    if name == "h1" { "h2" } else { name }
}
