//! The text source of a Postfix table: logical lines, keys, and a policy's tokens.

/// A row: key and value of a logical line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Where it begins, from 1.
    pub(super) line: u32,
    /// Key, lower case, without quotes.
    pub(super) key: String,
    /// Value.
    pub(super) value: String,
}

/// Rows, and what is no row: its line and why.
pub(super) fn rows(text: &str) -> (Vec<Row>, Vec<(u32, String)>) {
    let mut logical: Vec<(u32, String)> = Vec::new();
    let mut stray = Vec::new();
    for (line, number) in text.lines().zip(1_u32..) {
        let bare = line.trim();
        // Comments and empty lines also stand between a line and its continuation.
        if bare.is_empty() || bare.starts_with('#') {
            continue;
        }
        if !line.starts_with(|c: char| c.is_ascii_whitespace()) {
            logical.push((number, bare.to_owned()));
        } else if let Some((_, whole)) = logical.last_mut() {
            whole.push(' ');
            whole.push_str(bare);
        } else {
            let text = "the text begins with white space, so that it would continue a line that is \
                        not there: begin it at the line's start";
            stray.push((number, text.to_owned()));
        }
    }
    let mut rows = Vec::new();
    for (line, text) in logical {
        match split(&text) {
            Some((key, value)) => rows.push(Row { line, key: key.to_ascii_lowercase(), value }),
            None => {
                stray.push((line, format!("`{text}` is no row: a key and a level belong there")))
            }
        }
    }
    (rows, stray)
}

/// Key and value; a key in double quotes may hold white space.
fn split(text: &str) -> Option<(String, String)> {
    let (key, value) = match text.strip_prefix('"') {
        Some(quoted) => quoted_key(quoted)?,
        None => {
            let (key, value) = text.split_once(|c: char| c.is_ascii_whitespace())?;
            (key.to_owned(), value)
        }
    };
    let value = value.trim();
    (!key.is_empty() && !value.is_empty()).then(|| (key, value.to_owned()))
}

/// What stands before the closing quote, and what after it; `\` quotes a character.
fn quoted_key(text: &str) -> Option<(String, &str)> {
    let mut key = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((key, text.get(at + 1..)?)),
            '\\' => key.push(chars.next()?.1),
            c => key.push(c),
        }
    }
    None
}

/// The words of a policy: separated by white space and commas; braces keep a word together, as in
/// `{ policy_string = version: STSv1 }`.
pub(super) fn tokens(value: &str) -> Vec<String> {
    let separates = |c: char| c.is_ascii_whitespace() || c == ',';
    let mut tokens = Vec::new();
    let mut rest = value.trim_start_matches(separates);
    while !rest.is_empty() {
        let (token, after) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((inner, after)) => (inner.trim(), after),
            None => rest.split_at(rest.find(separates).unwrap_or(rest.len())),
        };
        tokens.push(token.to_owned());
        rest = after.trim_start_matches(separates);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logical_lines() {
        let text = "# a comment\n\nA.example  secure\nb.example\tfingerprint\n  match=aa:bb\n\
                    # between\n\n\tmatch=cc:dd\n  # also a comment\nc.example may\r\n\
                    \"d \\\"x\" none\nlonely\n";
        let (rows, stray) = rows(text);
        let found: Vec<_> =
            rows.iter().map(|r| (r.line, r.key.as_str(), r.value.as_str())).collect();
        assert_eq!(
            found,
            [
                (3, "a.example", "secure"),
                (4, "b.example", "fingerprint match=aa:bb match=cc:dd"),
                (10, "c.example", "may"),
                (11, "d \"x", "none"),
            ]
        );
        assert_eq!(stray.len(), 1);
        assert_eq!(stray[0].0, 12, "a key without a value");
    }

    #[test]
    fn a_text_can_not_begin_with_a_continuation() {
        let (rows, stray) = rows("  a.example secure\nb.example may\n");
        assert_eq!((rows.len(), rows[0].line, stray.len(), stray[0].0), (1, 2, 1, 1));
    }

    #[test]
    fn words_of_a_policy() {
        for (value, wanted) in [
            ("secure", vec!["secure"]),
            (
                "secure match=a:b,protocols=x ,  ciphers=high",
                vec!["secure", "match=a:b", "protocols=x", "ciphers=high"],
            ),
            (
                "secure { policy_string = a, b } match=c",
                vec!["secure", "policy_string = a, b", "match=c"],
            ),
            ("secure {x", vec!["secure", "{x"]),
            (" , ", vec![]),
        ] {
            assert_eq!(tokens(value), wanted, "{value}");
        }
    }
}
