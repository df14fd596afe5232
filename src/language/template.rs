//! What templates know of languages: `t("English text", name = value)`, `lang`, and how to print a
//! [`Text`].

use super::{Language, Text, catalogue::filled};
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, State, Value, escape_formatter, value::Kwargs,
};
use std::{borrow::Cow, sync::Arc};

/// Columns of text in a mail.
const COLUMNS: usize = 72;

/// Teaches an environment one language: `t`, the filter `wrap`, and the name `lang`.
pub(crate) fn teach(env: &mut Environment<'static>, language: &Arc<Language>) {
    env.add_global("lang", language.code());
    let own = Arc::clone(language);
    env.add_function("t", move |state: &State<'_, '_>, key: &Value, values: Kwargs| {
        translated(&own, html(state), key, &values)
    });
    let own = Arc::clone(language);
    env.set_formatter(move |out, state, value| match value.downcast_object_ref::<Text>() {
        Some(text) => {
            let said = own.say(text);
            Ok(out.write_str(&as_shown(html(state), &said))?)
        }
        None => escape_formatter(out, state, value),
    });
    env.add_filter("wrap", |text: &str, indent: Option<usize>| wrapped(text, indent));
}

fn html(state: &State<'_, '_>) -> bool {
    matches!(state.auto_escape(), AutoEscape::Html)
}

/// Values that are HTML already stay what they are; message and values else are escaped where the
/// page is HTML.
fn translated(
    language: &Language,
    html: bool,
    key: &Value,
    values: &Kwargs,
) -> Result<Value, Error> {
    let shown = |text: &str| as_shown(html, text).into_owned();
    if let Some(text) = key.downcast_object_ref::<Text>() {
        return Ok(made(html, shown(&language.say(text))));
    }
    let Some(key) = key.as_str() else {
        return Err(Error::new(ErrorKind::InvalidOperation, "t() takes a text"));
    };
    let mut said = Vec::new();
    for name in values.args() {
        let value: Value = values.peek(name)?;
        let text = match value.downcast_object_ref::<Text>() {
            Some(text) => shown(&language.say(text)),
            None if value.is_safe() => value.to_string(),
            None => shown(&value.to_string()),
        };
        said.push((name, text));
    }
    let count = values.peek::<u64>("count").ok();
    let pattern = as_shown(html, language.pattern(key, count));
    let find = |name: &str| said.iter().find(|(n, _)| *n == name).map(|(_, text)| text.as_str());
    Ok(made(html, filled(&pattern, find)))
}

fn made(html: bool, text: String) -> Value {
    if html { Value::from_safe_string(text) } else { Value::from(text) }
}

fn as_shown(html: bool, text: &str) -> Cow<'_, str> {
    if html { escaped(text) } else { Cow::Borrowed(text) }
}

/// As it stands in HTML, but for slashes, so that a link stays readable in the source too.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| matches!(byte, b'&' | b'<' | b'>' | b'"' | b'\'')) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#x27;"),
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// A paragraph in lines that every mail program shows whole; a word that is longer stands alone.
/// Spaces that do not break stay inside their line. Lines but the first are set in by `indent`,
/// which the first has already.
pub(super) fn wrapped(text: &str, indent: Option<usize>) -> String {
    let indent = indent.unwrap_or_default().min(COLUMNS / 2);
    let columns = COLUMNS - indent;
    let mut out = String::with_capacity(text.len() + 8);
    let mut column = 0;
    for word in text.split([' ', '\n']).filter(|word| !word.is_empty()) {
        let width = word.chars().count();
        if column > 0 && column + 1 + width > columns {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += width;
    }
    out
}
