//! One language: its catalogue read and checked, and texts said in it.

use super::{ENGLISH, Text, say};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use toml::Value;

/// Keys of a catalogue besides its messages.
const KEYS: [&str; 6] = ["code", "name", "decimal", "one", "first_of_month", "messages"];

/// The text of a catalogue, and the name of its file.
#[derive(Debug, Clone)]
pub struct CatalogueFile {
    /// File, for what is said of it.
    pub name: String,
    /// Text.
    pub text: String,
}

impl CatalogueFile {
    /// Bytes of a catalogue; what is larger is some other file.
    pub const LARGEST: u64 = 1 << 20;
}

/// What is wrong with a catalogue, a line each: file, key, what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CatalogueError(pub String);

/// What a message is in a language.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Phrase {
    /// For one.
    one: Option<String>,
    /// For all else.
    other: String,
}

/// A language.
#[derive(Debug, Clone)]
pub struct Language {
    code: String,
    name: String,
    /// Between whole and parts: `.` or `,`; a point where nothing is said.
    decimal: Option<String>,
    /// Numbers that take the form for one; one alone where nothing is said.
    one: Option<Vec<u64>>,
    /// The first day of a month, where it is not a plain number.
    first_of_month: Option<String>,
    phrases: BTreeMap<String, Phrase>,
}

impl Language {
    /// English without a catalogue: every key is its own text.
    pub(super) fn plain() -> Self {
        Self {
            code: ENGLISH.to_owned(),
            name: "English".to_owned(),
            decimal: None,
            one: None,
            first_of_month: None,
            phrases: BTreeMap::new(),
        }
    }
    /// Reads a catalogue. `english` has every key there is.
    pub(super) fn parse(
        file: &str,
        text: &str,
        english: Option<&Self>,
    ) -> Result<Self, CatalogueError> {
        let mut reading = Reading { file, english, problems: Vec::new() };
        let language = reading.language(text);
        match language {
            Some(language) if reading.problems.is_empty() => Ok(language),
            Some(_) | None => Err(CatalogueError(reading.problems.join("\n"))),
        }
    }
    /// This one, and what it leaves out from `known`: texts, and how numbers and dates are written.
    pub(super) fn before(mut self, known: &Self) -> Self {
        self.decimal = self.decimal.or_else(|| known.decimal.clone());
        self.one = self.one.or_else(|| known.one.clone());
        self.first_of_month = self.first_of_month.or_else(|| known.first_of_month.clone());
        for (key, phrase) in &known.phrases {
            self.phrases.entry(key.clone()).or_insert_with(|| phrase.clone());
        }
        self
    }
    /// Its tag (RFC 5646), as in `<html lang>`.
    pub fn code(&self) -> &str {
        &self.code
    }
    /// What it calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Keys that it has words for.
    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.phrases.keys().map(String::as_str)
    }
    /// A text in this language.
    pub fn say(&self, text: &Text) -> String {
        match text {
            Text::Message(key, values) => {
                let values: Vec<_> =
                    values.iter().map(|(name, value)| (*name, self.say(value), value)).collect();
                let count = values.iter().find(|(name, _, _)| *name == "count");
                let count = count.and_then(|(_, _, value)| value.count());
                let find = |name: &str| {
                    values.iter().find(|(n, _, _)| *n == name).map(|(_, said, _)| said.as_str())
                };
                filled(self.pattern(key, count), find)
            }
            Text::Verbatim(text) => text.clone(),
            Text::Count(count) => count.to_string(),
            Text::Day(at) => self.day(*at),
            Text::Moment(at) => self.moment(*at),
            Text::Size(bytes) => self.size(*bytes),
            Text::Wait(seconds) => self.wait(*seconds),
        }
    }
    /// What a key is here, its places not yet filled.
    pub(super) fn pattern<'a>(&'a self, key: &'a str, count: Option<u64>) -> &'a str {
        let Some(phrase) = self.phrases.get(key) else { return key };
        let ones = self.one.as_deref().unwrap_or(&[1]);
        let one = phrase.one.as_deref().filter(|_| count.is_some_and(|n| ones.contains(&n)));
        one.unwrap_or(&phrase.other)
    }
    fn day(&self, at: Timestamp) -> String {
        let months = [
            say!("January"),
            say!("February"),
            say!("March"),
            say!("April"),
            say!("May"),
            say!("June"),
            say!("July"),
            say!("August"),
            say!("September"),
            say!("October"),
            say!("November"),
            say!("December"),
        ];
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        let month = usize::try_from(date.month()).ok().and_then(|month| months.get(month - 1));
        let first = self.first_of_month.as_ref().filter(|_| date.day() == 1);
        let day = first.cloned().unwrap_or_else(|| date.day().to_string());
        let month = month.cloned().unwrap_or_default();
        self.say(&say!(
            "{day} {month} {year}",
            day = day,
            month = month,
            year = date.year().to_string()
        ))
    }
    fn moment(&self, at: Timestamp) -> String {
        let time = at.strftime("%H:%M").to_string();
        self.say(&say!("{date}, {time} UTC", date = self.day(at), time = time))
    }
    fn size(&self, bytes: u64) -> String {
        let decimal = self.decimal.as_deref().unwrap_or(".");
        let number = |unit: u64| {
            if bytes / unit < 10 {
                format!("{}{}{}", bytes / unit, decimal, bytes % unit * 10 / unit)
            } else {
                (bytes / unit).to_string()
            }
        };
        let text = match bytes {
            0..1_000 => say!("{count} bytes", count = bytes),
            1_000..1_000_000 => say!("{number} kB", number = number(1_000)),
            1_000_000..1_000_000_000 => say!("{number} MB", number = number(1_000_000)),
            1_000_000_000.. => say!("{number} GB", number = number(1_000_000_000)),
        };
        self.say(&text)
    }
    fn wait(&self, seconds: i64) -> String {
        let minutes = u64::try_from(seconds.max(1)).unwrap_or(1).div_ceil(60);
        self.say(&say!("{count} minutes", count = minutes))
    }
}

/// A pattern with its places filled. What is filled in is not looked at again.
pub(super) fn filled<'v>(pattern: &str, find: impl Fn(&str) -> Option<&'v str>) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((before, name, after)) = next_place(rest) {
        out.push_str(before);
        match find(name) {
            Some(value) => out.push_str(value),
            None => out.extend(["{", name, "}"]),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// What stands before the next `{place}`, its name, and what stands after it.
fn next_place(text: &str) -> Option<(&str, &str, &str)> {
    let (before, from) = text.split_once('{')?;
    let (name, after) = from.split_once('}')?;
    Some((before, name, after))
}

/// The places of a pattern.
fn places(mut text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    while let Some((_, name, after)) = next_place(text) {
        found.insert(name);
        text = after;
    }
    found
}

struct Reading<'a> {
    file: &'a str,
    english: Option<&'a Language>,
    problems: Vec<String>,
}

impl Reading<'_> {
    fn wrong(&mut self, key: &str, what: &str) {
        self.problems.push(format!("{}: {key}: {what}", self.file));
    }
    fn language(&mut self, text: &str) -> Option<Language> {
        if text.len() as u64 > CatalogueFile::LARGEST {
            self.problems.push(format!("{}: larger than 1 MiB: no catalogue", self.file));
            return None;
        }
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(error) => {
                let start = error.span().map_or(0, |span| span.start);
                let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
                self.problems.push(format!("{}:{line}: {}", self.file, error.message()));
                return None;
            }
        };
        for key in table.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            self.wrong(key, &format!("no such key; there are {}", KEYS.join(", ")));
        }
        let code = self.code(table.get("code"))?;
        let name = self.line("name", table.get("name"))?;
        let decimal = match table.get("decimal").map(Value::as_str) {
            None => None,
            Some(Some(text @ ("." | ","))) => Some(text.to_owned()),
            Some(_) => {
                self.wrong("decimal", "write \".\" or \",\"");
                None
            }
        };
        let first = table.get("first_of_month");
        Some(Language {
            decimal,
            one: self.one(table.get("one")),
            first_of_month: first.and_then(|value| self.line("first_of_month", Some(value))),
            phrases: self.messages(table.get("messages")),
            code,
            name,
        })
    }
    /// A tag of RFC 5646 as far as it names a language: letters and digits, apart by hyphens.
    fn code(&mut self, value: Option<&Value>) -> Option<String> {
        let text = value.and_then(Value::as_str).unwrap_or_default();
        let part = |part: &str| {
            (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        let primary = text.split('-').next().unwrap_or_default();
        let fine = text.len() <= 35
            && primary.len() >= 2
            && primary.bytes().all(|b| b.is_ascii_lowercase())
            && text.split('-').all(part);
        if !fine {
            self.wrong("code", "write the tag of the language, as in \"pl\" or \"pt-BR\"");
        }
        fine.then(|| text.to_owned())
    }
    fn line(&mut self, key: &str, value: Option<&Value>) -> Option<String> {
        let text = value.and_then(Value::as_str).unwrap_or_default().trim();
        let fine = (1..=60).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        if !fine {
            self.wrong(key, "write a short text");
        }
        fine.then(|| text.to_owned())
    }
    fn one(&mut self, value: Option<&Value>) -> Option<Vec<u64>> {
        let value = value?;
        let numbers = value.as_array().filter(|numbers| numbers.len() <= 100).map(|numbers| {
            numbers.iter().map(|n| n.as_integer().and_then(|n| u64::try_from(n).ok())).collect()
        });
        let Some(Some(numbers)) = numbers else {
            self.wrong("one", "write the numbers that take the form for one, as in [1]");
            return None;
        };
        Some(numbers)
    }
    fn messages(&mut self, value: Option<&Value>) -> BTreeMap<String, Phrase> {
        let Some(value) = value else { return BTreeMap::new() };
        let Some(table) = value.as_table().cloned() else {
            self.wrong("messages", "write a table: [messages]");
            return BTreeMap::new();
        };
        let mut phrases = BTreeMap::new();
        for (key, value) in table {
            let known = self.english.is_none_or(|english| english.phrases.contains_key(&key));
            if !known {
                self.wrong(&format!("{key:?}"), "no page and no mail says this");
                continue;
            }
            if let Some(phrase) = self.phrase(&key, &value) {
                phrases.insert(key, phrase);
            }
        }
        phrases
    }
    /// An empty text is one not yet translated: the key stands in. For English it is the rule.
    fn phrase(&mut self, key: &str, value: &Value) -> Option<Phrase> {
        let (one, other) = match value {
            Value::String(text) => (None, text.as_str()),
            Value::Table(forms) if forms.keys().all(|form| form == "one" || form == "other") => {
                let form = |name: &str| forms.get(name).and_then(Value::as_str);
                (form("one").filter(|text| !text.is_empty()), form("other").unwrap_or_default())
            }
            Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_)
            | Value::Table(_) => {
                self.wrong(&format!("{key:?}"), "write a text, or { one = …, other = … }");
                return None;
            }
        };
        if other.is_empty() && one.is_none() && self.english.is_some() {
            return None;
        }
        let other = if other.is_empty() { key } else { other };
        if one.is_some() && !places(key).contains("count") {
            self.wrong(&format!("{key:?}"), "nothing is counted here: write one text");
        }
        self.compare(key, other, false);
        if let Some(one) = one {
            self.compare(key, one, true);
        }
        Some(Phrase { one: one.map(str::to_owned), other: other.to_owned() })
    }
    /// The places of key and text are the same; the form for one may leave the number out.
    fn compare(&mut self, key: &str, text: &str, one: bool) {
        let (wanted, given) = (places(key), places(text));
        for name in given.difference(&wanted) {
            self.wrong(&format!("{key:?}"), &format!("{{{name}}} is unknown in this text"));
        }
        for name in wanted.difference(&given).filter(|name| !(one && **name == "count")) {
            self.wrong(&format!("{key:?}"), &format!("{{{name}}} is missing"));
        }
    }
}
