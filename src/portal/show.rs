//! Mail made fit for a page: links in text, sizes and dates in words.
use crate::language::Text;
use jiff::Timestamp;
use minijinja::Value;
use regex::Regex;
use std::sync::LazyLock;

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
}
