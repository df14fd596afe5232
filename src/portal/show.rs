//! Mail made fit for a page: links in text, HTML without what acts or calls home, sizes and dates
//! in words.
use crate::language::{Language, Text, say};
use ammonia::Builder;
use jiff::Timestamp;
use minijinja::Value;
use regex::Regex;
use std::{borrow::Cow, collections::HashSet, sync::LazyLock};

/// Links made clickable at most; further ones stay text.
const MAX_LINKS: usize = 2_000;

/// A piece of text; with `href` it is a link.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) text: &'a str,
    pub(super) link: bool,
}

static LINK: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(?i)\bhttps?://[^\s<>"'`|\\^{}\p{Cc}\p{Cf}]+"#).ok());

/// Cuts text into plain pieces and links. A link's text is its whole target.
pub(super) fn segments(text: &str) -> Vec<Segment<'_>> {
    let mut segments = Vec::new();
    let mut rest = text;
    while let Some((before, link, after)) = next_link(rest) {
        if segments.len() / 2 >= MAX_LINKS {
            break;
        }
        segments.push(Segment { text: before, link: false });
        segments.push(Segment { text: link, link: true });
        rest = after;
    }
    segments.push(Segment { text: rest, link: false });
    segments.retain(|segment| !segment.text.is_empty());
    segments
}

fn next_link(text: &str) -> Option<(&str, &str, &str)> {
    let found = LINK.as_ref()?.find(text)?;
    let link = without_tail(found.as_str());
    let (before, from) = text.split_at_checked(found.start())?;
    let (link, after) = from.split_at_checked(link.len())?;
    Some((before, link, after))
}

/// Punctuation that ends the sentence, not the link; a bracket only where the link did not open it.
fn without_tail(link: &str) -> &str {
    let mut link = link;
    loop {
        let unopened = link.ends_with(')') && link.matches('(').count() < link.matches(')').count();
        let shorter = link.strip_suffix(['.', ',', ';', ':', '!', '?', ']', '*', '_', '~']);
        link = match shorter {
            Some(shorter) => shorter,
            None if unopened => link.strip_suffix(')').unwrap_or(link),
            None => return link,
        };
    }
}

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

/// The message's HTML as a page for the sandboxed frame: no scripts, forms, frames or styles that
/// load; pictures only if the message itself carries their bytes in place; links open elsewhere and
/// tell nobody where from.
pub(super) fn sandboxed(html: &str, language: &Language) -> String {
    let mut builder = Builder::default();
    builder
        .add_tags(["font", "center", "u", "big"])
        .add_generic_attributes(["style", "align", "valign", "bgcolor", "width", "height", "dir"])
        .add_tag_attributes("font", ["color", "face", "size"])
        .add_tag_attributes("table", ["border", "cellpadding", "cellspacing"])
        .filter_style_properties(HashSet::from(STYLES))
        .url_schemes(HashSet::from(["http", "https", "mailto", "tel", "data"]))
        .url_relative(ammonia::UrlRelative::Deny)
        .set_tag_attribute_value("a", "target", "_blank")
        .link_rel(Some("noopener noreferrer"))
        .attribute_filter(kept);
    let body = builder.clean(html).to_string();
    // The page has one first heading, its own; what the serializer wrote has no other "<h1" than
    // the tag.
    let body = body.replace("<h1", "<h2").replace("</h1>", "</h2>");
    let (lang, title) = (language.code(), language.say(&say!("The message with its formatting")));
    let title = ammonia::clean_text(&title);
    format!(
        "<!DOCTYPE html>\n<html lang=\"{lang}\"><head><meta charset=\"utf-8\"><title>{title}</title><style>body{{font:1rem/1.5 sans-serif;color:#1d2724;background:#fff;margin:1rem;\
         overflow-wrap:anywhere}}img,table{{max-width:100%}}.title{{position:absolute;left:-999rem}}\
         </style></head><body><h1 class=\"title\">{title}</h1>\n{body}\n</body></html>\n"
    )
}

/// Bytes in place only for pictures, other schemes only for links.
fn kept<'u>(element: &str, attribute: &str, value: &'u str) -> Option<Cow<'u, str>> {
    let pictures = ["data:image/png", "data:image/jpeg", "data:image/gif", "data:image/webp"];
    let start: String = value.trim_start().chars().take(16).collect::<String>().to_lowercase();
    let keep = match (element, attribute) {
        ("img", "src") => pictures.iter().any(|kind| start.starts_with(kind)),
        (_, "href") => !start.starts_with("data:"),
        (_, "src" | "cite" | "srcset" | "background" | "longdesc") => false,
        _ => true,
    };
    keep.then_some(Cow::Borrowed(value))
}

/// A size in words.
pub(super) fn size(bytes: u64) -> Value {
    Text::Size(bytes).into()
}
/// A day in words.
pub(super) fn day(at: Timestamp) -> Value {
    Text::Day(at).into()
}
/// A time in words.
pub(super) fn moment(at: Timestamp) -> Value {
    Text::Moment(at).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Languages;

    fn english() -> Language {
        Languages::new("en", &[]).unwrap().usual().as_ref().clone()
    }

    #[test]
    fn links_are_found_and_end_where_they_end() {
        let cases: &[(&str, &[&str])] = &[
            ("no link", &[]),
            ("see https://a.example/x.", &["https://a.example/x"]),
            ("(https://a.example/x)", &["https://a.example/x"]),
            ("https://a.example/x_(y) z", &["https://a.example/x_(y)"]),
            ("HTTP://A.example?q=1&r=2, and", &["HTTP://A.example?q=1&r=2"]),
            ("<https://a.example>\nhttp://b.example!", &["https://a.example", "http://b.example"]),
            ("javascript:alert(1) data:text/html,x", &[]),
            ("https://a.example\"onclick=x", &["https://a.example"]),
            ("https://a.example/\u{202e}gpj.exe", &["https://a.example/"]),
        ];
        for (text, expected) in cases {
            let all = segments(text);
            let links: Vec<_> = all.iter().filter(|s| s.link).map(|s| s.text).collect();
            assert_eq!(&links, expected, "{text}");
            assert_eq!(all.iter().map(|s| s.text).collect::<String>(), *text, "nothing is lost");
        }
    }
    #[test]
    fn html_loses_what_acts_or_calls_home() {
        let bad = [
            "<script>alert(1)</script>",
            "<img src=x onerror=alert(1)>",
            "<img src=https://evil.example/pixel.gif>",
            "<img src='data:image/svg+xml,<svg onload=alert(1)>'>",
            "<a href='javascript:alert(1)'>x</a>",
            "<a href='data:text/html,<script>alert(1)</script>'>x</a>",
            "<iframe src=https://evil.example></iframe>",
            "<form action=https://evil.example><input name=p></form>",
            "<style>@import url(https://evil.example)</style>",
            "<link rel=stylesheet href=https://evil.example>",
            "<meta http-equiv=refresh content='0;https://evil.example'>",
            "<base href=https://evil.example>",
            "<table background=https://evil.example/x></table>",
            "<div style='background-image:url(https://evil.example)'>x</div>",
            "<div style='position:fixed;top:0'>x</div>",
            "<svg><script>alert(1)</script></svg>",
            "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
            "<video src=https://evil.example></video>",
            "<object data=https://evil.example></object>",
        ];
        for text in bad {
            let clean = sandboxed(text, &english());
            let body = clean.split_once("<body>").unwrap().1.to_lowercase();
            for never in [
                "<script",
                "alert(1)",
                "evil.example",
                "onerror",
                "javascript:",
                "<iframe",
                "<form",
                "<input",
                "<svg",
                "data:text",
                "<link",
                "<meta",
                "<base",
                "position",
            ] {
                assert!(!body.contains(never), "{text} → {body}");
            }
        }
    }
    #[test]
    fn html_keeps_looks_links_and_pictures_in_place() {
        let clean = sandboxed(
            "<h1 style='color:red'>Hi</h1><a href=https://a.example/>x</a><img src=data:image/png;base64,AA==>\
             <table border=1><tr><td bgcolor=blue>t",
            &english(),
        );
        for kept in [
            "<h2 style=\"color:red\">Hi</h2>",
            "https://a.example/",
            "data:image/png",
            "bgcolor=\"blue\"",
        ] {
            assert!(clean.contains(kept), "{kept}: {clean}");
        }
        assert!(
            clean.contains("rel=\"noopener noreferrer\"") && clean.contains("target=\"_blank\"")
        );
        assert_eq!(clean.matches("<h1").count(), 1);
    }
}
