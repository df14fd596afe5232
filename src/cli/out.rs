//! Answers go to stdout, complaints to stderr. A reader that has gone away (`| head`) is no error.

use serde::Serialize;
use std::{
    fmt::Display,
    io::{self, Write},
};

/// One line to stdout.
pub fn line(text: impl Display) {
    swallow(writeln!(io::stdout(), "{text}"));
}

/// Text to stdout as it is.
pub fn raw(text: impl AsRef<[u8]>) {
    let mut out = io::stdout();
    swallow(out.write_all(text.as_ref()).and_then(|()| out.flush()));
}

/// One line to stderr, after the program's name.
pub fn complain(text: impl Display) {
    swallow(writeln!(io::stderr(), "restante: {text}"));
}

/// One line to stderr as it is: it begins with its own place.
pub fn remark(text: impl Display) {
    swallow(writeln!(io::stderr(), "{text}"));
}

/// A value as JSON to stdout.
pub fn json<T: Serialize + ?Sized>(value: &T) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(text),
        Err(error) => complain(error),
    }
}

/// Rows as columns, each as wide as its widest cell; the first row is the heading.
pub fn table(rows: &[Vec<String>]) {
    Table::default().print(rows);
}

/// A table that is printed as its rows come: a column is as wide as its widest cell so far.
#[derive(Debug, Default)]
pub struct Table {
    widths: Vec<usize>,
}

impl Table {
    /// More rows; false once nobody reads them any more.
    pub fn print(&mut self, rows: &[Vec<String>]) -> bool {
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        self.widths.resize(self.widths.len().max(columns), 0);
        for (column, width) in self.widths.iter_mut().enumerate() {
            let cells = rows.iter().filter_map(|row| row.get(column));
            *width = cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(*width);
        }
        let mut text = String::new();
        for row in rows {
            let cells = row.iter().zip(&self.widths).map(|(cell, &width)| format!("{cell:width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        put(&text)
    }
}

/// One JSON array that is printed as its items come.
#[derive(Debug, Default)]
pub struct Array {
    begun: bool,
}

impl Array {
    /// More items; false once nobody reads them any more.
    pub fn print<T: Serialize>(&mut self, items: &[T]) -> bool {
        let mut text = String::new();
        for item in items {
            text.push_str(if std::mem::replace(&mut self.begun, true) { ",\n" } else { "[\n" });
            match serde_json::to_string_pretty(item) {
                Ok(item) => {
                    let lines = item.lines().map(|line| format!("  {line}"));
                    text.push_str(&lines.collect::<Vec<_>>().join("\n"));
                }
                Err(error) => complain(error),
            }
        }
        put(&text)
    }

    /// That was all.
    pub fn end(self) {
        put(if self.begun { "\n]\n" } else { "[]\n" });
    }
}

/// Text to stdout; false if nobody reads it.
fn put(text: &str) -> bool {
    let mut out = io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

fn swallow(written: io::Result<()>) {
    // Nobody is left to be told.
    drop(written);
}
