//! Reading TOML that people wrote: every problem with its line and column, and what to write
//! instead.
//!
//! Policy files and `restante.toml` are read by the same hands. A [`Document`] collects problems, a
//! [`Section`] is a table whose keys are all known, an [`Entry`] is a value that knows where it
//! stands. Reading goes on after a problem, so that one run of `check` shows them all.

use crate::policy::{Code, Problem, Severity};
use jiff::SignedDuration;
use std::{
    cell::{Cell, RefCell},
    fmt,
    ops::Range,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Errors kept of one file, and warnings; a file that has more is not read by a person anyway.
const MAX_PROBLEMS: usize = 200;

/// A text with its name, where its lines begin, and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    name: &'a str,
    text: &'a str,
    line_starts: Vec<usize>,
    problems: RefCell<Vec<Problem>>,
    errors: Cell<usize>,
    warnings: Cell<usize>,
    /// Warnings that the entry which is read answers itself.
    accepted: RefCell<Vec<Code>>,
}

impl<'a> Document<'a> {
    /// A document named `name` in its problems.
    pub(crate) fn new(name: &'a str, text: &'a str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1);
        let line_starts = std::iter::once(0).chain(starts).collect();
        Self {
            name,
            text,
            line_starts,
            problems: RefCell::default(),
            errors: Cell::default(),
            warnings: Cell::default(),
            accepted: RefCell::default(),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'a str {
        self.name
    }

    /// The top table. After a syntax error there is none, and only the first is said: what follows
    /// from a guess would only mislead.
    pub(crate) fn parse(&self) -> Option<DeTable<'a>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        let placed = errors.iter().map(|e| (e.span().map_or(0, |span| span.start), e.message()));
        let Some((at, message)) = placed.min_by_key(|(at, _)| *at) else {
            return Some(table.into_inner());
        };
        self.note(Code::SYNTAX, at, format!("not TOML: {}", one_line(message)));
        None
    }

    /// Line and column (in characters) of a byte offset, both from 1.
    pub(crate) fn position(&self, offset: usize) -> (u32, u32) {
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or("");
        (count(line), count(before.chars().count() + 1))
    }

    /// Notes a value that can't stand at an offset.
    pub(crate) fn error(&self, offset: usize, text: impl Into<String>) {
        self.note(Code::INVALID_VALUE, offset, text);
    }

    /// From here on, problems of these kinds are not noted.
    pub(crate) fn accept(&self, codes: &[Code]) {
        codes.clone_into(&mut self.accepted.borrow_mut());
    }

    /// Notes a problem at an offset.
    pub(crate) fn note(&self, code: Code, offset: usize, text: impl Into<String>) {
        if self.accepted.borrow().contains(&code) {
            return;
        }
        let noted = match code.severity() {
            Severity::Error => &self.errors,
            Severity::Warning => &self.warnings,
        };
        // An error counts whatever warnings went before it: it refuses the set.
        if noted.get() < MAX_PROBLEMS {
            let problem = Problem::new(self.name, self.position(offset), code, text);
            self.problems.borrow_mut().push(problem);
        }
        noted.set(noted.get() + 1);
    }

    /// Errors noted so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors.get()
    }

    /// All problems in the order of the text.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        let more = (self.errors.get() + self.warnings.get()) - self.problems.borrow().len();
        let end = self.position(self.text.len());
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|p| (p.line, p.column));
        if more > 0 {
            let text = format!("{more} more problems of this file are not shown");
            problems.push(Problem::new(self.name, end, Code::NOT_SHOWN, text));
        }
        problems
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A table whose keys are known; those that are not have been reported.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Section<'d, 't> {
    doc: &'d Document<'t>,
    /// Where the table begins.
    at: usize,
    table: &'d DeTable<'t>,
    /// Its key; none at the top. No table lies deeper than one of these.
    name: Option<&'static str>,
}

impl<'d, 't> Section<'d, 't> {
    /// Reads `table`, which begins at `at`; keys outside `known` are errors that name the nearest
    /// known one.
    pub(crate) fn new(
        doc: &'d Document<'t>,
        table: &'d DeTable<'t>,
        at: usize,
        known: &[&str],
    ) -> Self {
        for (key, _) in table {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let text = format!("unknown key `{name}`{}", hint(name, known));
                doc.note(Code::UNKNOWN_KEY, key.span().start, text);
            }
        }
        Self { doc, at, table, name: None }
    }

    fn below(self, name: &'static str, table: &'d DeTable<'t>, at: usize, known: &[&str]) -> Self {
        Self { name: Some(name), ..Self::new(self.doc, table, at, known) }
    }

    /// How a table is written here: its header in full, or its key and value inside another table.
    fn spelling(&self, key: &str, list: bool) -> String {
        match (self.name, list) {
            (None, false) => format!("[{key}]"),
            (None, true) => format!("[[{key}]]"),
            (Some(name), false) => format!("[{name}.{key}], or {key} = {{ … }}"),
            (Some(name), true) => format!("[[{name}.{key}]], or {key} = [{{ … }}]"),
        }
    }

    /// True if every key is one of these.
    pub(crate) fn knows_all(&self, known: &[&str]) -> bool {
        self.table.keys().all(|key| known.contains(&key.get_ref().as_ref()))
    }

    /// The document.
    pub(crate) fn doc(&self) -> &'d Document<'t> {
        self.doc
    }

    /// Where the table begins.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &'static str) -> Option<Entry<'d, 't>> {
        let (at, value) = self.table.get_key_value(key)?;
        Some(Entry { doc: self.doc, key, key_at: at.span().start, value })
    }

    /// A table below this one.
    pub(crate) fn section(&self, key: &'static str, known: &[&str]) -> Option<Self> {
        let entry = self.get(key)?;
        let value = entry.value.get_ref();
        if let Some(table) = value.as_table() {
            return Some(self.below(key, table, entry.key_at, known));
        }
        let write = self.spelling(key, false);
        entry.fail_key(if value.is_array() {
            format!("`{key}` is one table: write {write}")
        } else {
            format!("`{key}` is a table, not {}: write {write}", kind(value))
        });
        None
    }

    /// The tables of an array of tables.
    pub(crate) fn sections(&self, key: &'static str, known: &[&str]) -> Vec<Self> {
        let Some(entry) = self.get(key) else { return Vec::new() };
        let write = self.spelling(key, true);
        let DeValue::Array(items) = entry.value.get_ref() else {
            entry.fail_key(format!("`{key}` is a list of tables: write {write}"));
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(items.len());
        for item in items {
            let (at, value) = (item.span().start, item.get_ref());
            if let Some(table) = value.as_table() {
                sections.push(self.below(key, table, at, known));
            } else {
                let text = format!("`{key}` holds tables, not {}: write {write}", kind(value));
                self.doc.note(Code::WRONG_TYPE, at, text);
            }
        }
        sections
    }
}

/// A value with its key and its place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'d, 't> {
    doc: &'d Document<'t>,
    key: &'static str,
    key_at: usize,
    value: &'d Spanned<DeValue<'t>>,
}

impl<'d, 't> Entry<'d, 't> {
    /// Where the key stands.
    pub(crate) fn key_at(&self) -> usize {
        self.key_at
    }

    /// Where the value stands.
    pub(crate) fn at(&self) -> usize {
        self.value.span().start
    }

    /// The texts of a list, each with its place; what is no text is left out.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (usize, &'d str)> {
        let items = self.value().as_array().map(|items| items.iter()).into_iter().flatten();
        items.filter_map(|item| Some((item.span().start, item.get_ref().as_str()?)))
    }

    /// The raw value.
    pub(crate) fn value(&self) -> &'d DeValue<'t> {
        self.value.get_ref()
    }

    /// Notes an error at the value, named by its key.
    pub(crate) fn fail(&self, text: impl fmt::Display) {
        self.note_at(self.code(), self.at(), text);
    }

    /// Notes a problem at the key.
    pub(crate) fn note(&self, code: Code, text: impl fmt::Display) {
        self.note_at(code, self.key_at, text);
    }

    /// Notes a problem at an offset, named by the key.
    pub(crate) fn note_at(&self, code: Code, offset: usize, text: impl fmt::Display) {
        self.doc.note(code, offset, format!("key `{}`: {text}", self.key));
    }

    /// What a value is that can't stand here.
    fn code(&self) -> Code {
        match self.key {
            "domains" | "match" => Code::INVALID_DOMAIN,
            "fingerprints" => Code::INVALID_FINGERPRINT,
            "level" => Code::UNKNOWN_LEVEL,
            _ => Code::INVALID_VALUE,
        }
    }

    /// Notes that the key's machinery is not built yet.
    pub(crate) fn not_yet(&self) {
        self.doc.error(
            self.key_at,
            format!("key `{}` is not yet supported: leave it out in this version", self.key),
        );
    }

    fn fail_key(&self, text: String) {
        self.doc.note(Code::WRONG_TYPE, self.key_at, text);
    }

    fn mismatch<T>(&self, expected: &str) -> Option<T> {
        let text = format_args!("{} where {expected} belongs", kind(self.value()));
        self.note_at(Code::WRONG_TYPE, self.at(), text);
        None
    }

    /// A text.
    pub(crate) fn text(&self) -> Option<&'d str> {
        let text = self.value().as_str();
        if text.is_none() {
            return self.mismatch("a text in quotes");
        }
        text
    }

    /// A text on one line, without control characters.
    pub(crate) fn line(&self) -> Option<&'d str> {
        let text = self.text()?;
        if text.chars().any(char::is_control) {
            self.fail("a control character or line break: write it on one line");
            return None;
        }
        Some(text)
    }

    /// true or false.
    pub(crate) fn boolean(&self) -> Option<bool> {
        let value = self.value().as_bool();
        if value.is_none() {
            return self.mismatch("true or false");
        }
        value
    }

    /// A whole number within `range`.
    pub(crate) fn integer(&self, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let Some(number) = self.value().as_integer() else {
            return self.mismatch("a whole number");
        };
        let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
        let value = parsed.and_then(|n| u64::try_from(n).ok()).filter(|n| range.contains(n));
        if value.is_none() {
            self.fail(format_args!(
                "{number} is out of range: write {} to {}",
                range.start(),
                range.end()
            ));
        }
        value
    }

    /// Parses the text; the parser's error says what to write instead.
    pub(crate) fn parse<T>(&self, parser: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        match parser(self.text()?) {
            Ok(value) => Some(value),
            Err(text) => {
                self.fail(text);
                None
            }
        }
    }

    /// Parses each text of a list, each with its place.
    pub(crate) fn list<T>(
        &self,
        parser: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<(usize, T)>> {
        let Some(items) = self.value().as_array() else {
            return self.mismatch("a list [\"…\"]");
        };
        let mut values = Vec::with_capacity(items.len());
        let mut whole = true;
        for item in items {
            match self.item(item, &parser) {
                Some(value) => values.push((item.span().start, value)),
                None => whole = false,
            }
        }
        whole.then_some(values)
    }

    fn item<T>(
        &self,
        item: &Spanned<DeValue<'t>>,
        parser: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let Range { start, .. } = item.span();
        let Some(text) = item.get_ref().as_str() else {
            let found = kind(item.get_ref());
            self.note_at(Code::WRONG_TYPE, start, format_args!("{found} in a list of texts"));
            return None;
        };
        parser(text).map_err(|text| self.note_at(self.code(), start, text)).ok()
    }

    /// True for what stands for "not set": an empty text or list.
    pub(crate) fn is_empty(&self) -> bool {
        match self.value() {
            DeValue::String(text) => text.is_empty(),
            DeValue::Array(items) => items.is_empty(),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Table(_) => false,
        }
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// `; did you mean `x`?`, or the whole choice where nothing is near.
pub(crate) fn hint(wrong: &str, known: &[&str]) -> String {
    nearest(wrong, known).map_or_else(
        || format!("; known here: {}", known.join(", ")),
        |near| format!("; did you mean `{near}`?"),
    )
}

/// The known word nearest to a wrong one, if any is near enough to be meant.
pub(crate) fn nearest<'k>(wrong: &str, known: &[&'k str]) -> Option<&'k str> {
    // The bound keeps the comparison cheap whatever a file holds.
    let wrong: String = wrong.chars().take(64).collect::<String>().to_lowercase();
    let scored = known.iter().map(|word| {
        let prefix = word.starts_with(&wrong) || wrong.starts_with(word);
        let score = strsim::normalized_damerau_levenshtein(&wrong, word);
        (*word, if prefix { score.max(0.6) } else { score })
    });
    scored
        .filter(|(_, score)| *score >= 0.5)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(word, _)| word)
}

/// One word of a fixed choice.
pub(crate) fn choice<T: Copy>(text: &str, choices: &[(&'static str, T)]) -> Result<T, String> {
    choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        format!("`{text}` is not known{}", hint(text, &words))
    })
}

const DURATIONS: [(&str, i64); 5] =
    [("w", 7 * 86_400), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
const SIZES: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1000),
    ("B", 1),
];
/// No time in a configuration is longer than this.
const LONGEST: i64 = 10 * 366 * 86_400;

/// A time: a number and one of s, m, h, d, w.
pub(crate) fn duration(text: &str) -> Result<SignedDuration, String> {
    let wrong = || format!("`{text}` is no time: write a number and s, m, h, d or w, as \"21d\"");
    let (number, unit) = quantity(text).ok_or_else(wrong)?;
    let (_, seconds) = DURATIONS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let total = i64::try_from(number).ok().and_then(|n| n.checked_mul(*seconds));
    match total {
        Some(total) if total <= LONGEST => Ok(SignedDuration::from_secs(total)),
        Some(_) | None => Err(format!("`{text}` is too long: at most ten years")),
    }
}

/// A size in bytes: a number and one of B, kB, MB, GB, KiB, MiB, GiB.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "`{text}` is no size: write a number and B, kB, MB, GB, KiB, MiB or GiB, as \"50 MiB\""
        )
    };
    let (number, unit) = quantity(text).ok_or_else(wrong)?;
    let (_, bytes) = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.checked_mul(*bytes).ok_or_else(|| format!("`{text}` is too large"))
}

fn quantity(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(end)?;
    Some((number.parse().ok()?, unit.trim_start()))
}

/// Writes a time in the largest unit that divides it.
pub(crate) fn show_duration(time: SignedDuration) -> String {
    let seconds = time.as_secs();
    let fits = |(_, unit): &&(&str, i64)| seconds != 0 && seconds % unit == 0;
    let (name, unit) = DURATIONS.iter().find(fits).copied().unwrap_or(("s", 1));
    format!("{}{name}", seconds / unit)
}

/// Writes a size in the largest unit that divides it.
pub(crate) fn show_size(bytes: u64) -> String {
    let fits = |(_, unit): &&(&str, u64)| bytes != 0 && bytes.is_multiple_of(*unit);
    let (name, unit) = SIZES.iter().find(fits).copied().unwrap_or(("B", 1));
    format!("{} {name}", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let doc = Document::new("x", "a = 1\nü = 2\n");
        for (offset, expected) in [(0, (1, 1)), (4, (1, 5)), (6, (2, 1)), (8, (2, 2)), (13, (3, 1))]
        {
            assert_eq!(doc.position(offset), expected, "offset {offset}");
        }
    }

    #[test]
    fn tables_are_spelled_in_full() {
        for (text, says) in [
            ("a = 1", "write [a]"),
            ("b = 1", "write [[b]]"),
            ("[a]\nc = { k = 1 }", "write [[a.c]], or c = [{ … }]"),
            ("[a]\nc = [1]", "write [[a.c]], or c = [{ … }]"),
            ("[[b]]\nd = 1", "write [b.d], or d = { … }"),
        ] {
            let doc = Document::new("x", text);
            let table = doc.parse().unwrap();
            let top = Section::new(&doc, &table, 0, &["a", "b"]);
            if let Some(a) = top.section("a", &["c"]) {
                a.sections("c", &["k"]);
            }
            for b in top.sections("b", &["d"]) {
                b.section("d", &["k"]);
            }
            let found = doc.into_problems();
            assert!(found.len() == 1 && found[0].text.ends_with(says), "{text}: {found:?}");
        }
    }

    #[test]
    fn times_and_sizes() {
        for (text, seconds) in [
            ("0s", 0),
            ("90s", 90),
            ("5m", 300),
            ("1h", 3600),
            ("21d", 1_814_400),
            ("2 w", 1_209_600),
        ] {
            assert_eq!(duration(text), Ok(SignedDuration::from_secs(seconds)), "{text}");
        }
        for text in ["", "5", "m", "-5m", "5 min", "1.5h", "99999999999999999999s", "99999w", "5M"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
        for (text, bytes) in [("0B", 0), ("1 kB", 1000), ("50 MiB", 52_428_800), ("2GiB", 2 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "50", "MiB", "50 mib", "50 M", "-1 B", "99999999999999 GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shown_times_and_sizes_read_back() {
        for seconds in [0, 1, 59, 60, 3600, 5400, 86_400, 604_800, 1_814_400] {
            let time = SignedDuration::from_secs(seconds);
            assert_eq!(duration(&show_duration(time)), Ok(time));
        }
        for bytes in [0, 1, 1000, 1024, 52_428_800, 2 << 30, 1_234_567] {
            assert_eq!(size(&show_size(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn nearest_word_is_near_or_none() {
        let known = ["listen", "clients", "certificate", "idle_timeout"];
        for (wrong, near) in [
            ("listn", Some("listen")),
            ("Listen", Some("listen")),
            ("cert", Some("certificate")),
            ("timeout", Some("idle_timeout")),
            ("zzz", None),
        ] {
            assert_eq!(nearest(wrong, &known), near, "{wrong}");
        }
    }
}
