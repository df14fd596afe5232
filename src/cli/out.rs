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
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        line(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

fn swallow(written: io::Result<()>) {
    // Nobody is left to be told.
    drop(written);
}
