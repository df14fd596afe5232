//! Paths and parameters of MAIL and RCPT (RFC 5321 §4.1.2).

use super::command::CommandError;

/// What follows `MAIL FROM:` or `RCPT TO:`, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PathLine<'a> {
    /// Between the angle brackets, without a source route.
    pub(super) mailbox: &'a str,
    /// Keyword and value of each parameter, in order.
    pub(super) parameters: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> PathLine<'a> {
    /// Parses `<path> KEY=VALUE …`.
    pub(super) fn parse(text: &'a str) -> Result<Self, CommandError> {
        // A space after the colon is not in the grammar, but many clients send it (RFC 5321
        // §4.1.1.2 says no, Postel yes).
        let text = text.trim_start_matches(' ');
        let inner = text.strip_prefix('<').ok_or(CommandError::NoBrackets)?;
        let end = closing_bracket(inner).ok_or(CommandError::NoBrackets)?;
        let (path, rest) = inner.split_at_checked(end).ok_or(CommandError::NoBrackets)?;
        let rest = rest.strip_prefix('>').unwrap_or(rest);
        if !rest.is_empty() && !rest.starts_with(' ') {
            return Err(CommandError::NoBrackets);
        }
        Ok(Self { mailbox: without_route(path), parameters: parameters(rest)? })
    }
}

/// The index of the `>` that ends the path: not one inside a quoted local part (RFC 5321 §4.1.2,
/// Quoted-string).
fn closing_bracket(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '>' if !quoted => return Some(index),
            _ => {}
        }
    }
    None
}

/// RFC 5321 §4.1.1.3 and appendix C: a source route is accepted and ignored.
fn without_route(path: &str) -> &str {
    match path.split_once(':') {
        Some((route, mailbox)) if route.starts_with('@') => mailbox,
        Some(_) | None => path,
    }
}

/// RFC 5321 §4.1.2, esmtp-param: keyword, and a value without spaces, controls and `=`.
fn parameters(text: &str) -> Result<Vec<(&str, Option<&str>)>, CommandError> {
    let mut parsed: Vec<(&str, Option<&str>)> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (word, None),
        };
        if !is_keyword(keyword) || !value.is_none_or(is_value) {
            return Err(CommandError::Argument("a parameter is KEYWORD or KEYWORD=VALUE"));
        }
        if parsed.iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(keyword)) {
            return Err(CommandError::Argument("a parameter is given twice"));
        }
        parsed.push((keyword, value));
    }
    Ok(parsed)
}

fn is_keyword(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_value(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|character| !character.is_control() && character != '=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(text: &str) -> Option<&str> {
        PathLine::parse(text).ok().map(|line| line.mailbox)
    }

    #[test]
    fn finds_the_mailbox() {
        let table = [
            ("<a@b.example>", Some("a@b.example"), "plain"),
            ("<>", Some(""), "null"),
            (" <a@b>", Some("a@b"), "space after the colon"),
            ("<\"a> SIZE=1\"@c> SIZE=2", Some("\"a> SIZE=1\"@c"), "a quoted bracket ends nothing"),
            ("<\"a\\\">\"@c>", Some("\"a\\\">\"@c"), "a quoted quote neither"),
            ("<@x,@y:a@b>", Some("a@b"), "source route"),
            ("<a@[IPv6:2001:db8::1]>", Some("a@[IPv6:2001:db8::1]"), "colons of a literal"),
            ("a@b", None, "no brackets"),
            ("<a@b", None, "not closed"),
            ("<a@b>x", None, "text behind"),
            ("<\"a>", None, "quote not closed"),
        ];
        for (text, expected, why) in table {
            assert_eq!(mailbox(text), expected, "{why}");
        }
    }

    #[test]
    fn parameters_are_strict() {
        let line = PathLine::parse("<a@b> SIZE=10  body=8BITMIME SMTPUTF8").expect("good");
        let expected = [("SIZE", Some("10")), ("body", Some("8BITMIME")), ("SMTPUTF8", None)];
        assert_eq!(line.parameters, expected);
        for bad in
            ["<a@b> =1", "<a@b> SIZE=", "<a@b> A=b=c", "<a@b> SIZE=1 size=2", "<a@b> A=\u{7f}"]
        {
            assert!(PathLine::parse(bad).is_err(), "{bad}");
        }
    }
}
