//! Text from outside, held to what may stand in a field or a report.

/// Printable ASCII (0x20 to 0x7e) of at most `max` characters; everything else, line ends included,
/// becomes `?`.
pub(crate) fn printable(text: &str, max: usize) -> String {
    text.chars().take(max).map(|c| if matches!(c, ' '..='~') { c } else { '?' }).collect()
}

/// At most `bytes` bytes of a text, cut at a character's border.
pub(crate) fn cut_to(text: &str, bytes: usize) -> String {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default().to_owned()
}

/// Characters beyond ASCII in the form of RFC 6533 §3 (`utf-8-addr-xtext`): `\x{FC}`.
pub(crate) fn beyond_ascii_escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c.is_ascii() {
            out.push(c);
        } else {
            out.push_str(&format!("\\x{{{:02X}}}", u32::from(c)));
        }
        out
    })
}

/// For people: one line of at most `max` characters; controls and characters that reorder or hide
/// text become spaces.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let spaced: String = text.chars().map(|c| if breaks(c) { ' ' } else { c }).collect();
    let words: Vec<&str> = spaced.split_whitespace().collect();
    words.join(" ").chars().take(max).collect::<String>().trim_end().to_owned()
}

fn breaks(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_to_one_line() {
        assert_eq!(printable("a\r\nb\u{e9}c", 4), "a??b");
        assert_eq!(one_line(" a\r\n b\u{202e}c ", 9), "a b c");
        assert_eq!(one_line("ab cd", 3), "ab");
    }
}
