//! `restante policy import-postfix|export-postfix`: tables of Postfix, there and back.

use super::{
    Exit, out,
    policy::{load_set, read},
};
use crate::{
    clock::Clock,
    policy::postfix::{self, Import},
};
use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Types of tables whose source is the text that postmap reads.
const TYPES: [&str; 6] = ["texthash", "hash", "btree", "cdb", "dbm", "lmdb"];

/// `restante policy import-postfix FILE [--out DIR]`
pub fn import(file: &Path, out_dir: Option<&Path>) -> Exit {
    let file = source(file);
    let text = match read(&file) {
        Ok(text) => text,
        Err(error) => {
            out::complain(error);
            return Exit::Data;
        }
    };
    let import = postfix::import(&text);
    let source = file.display().to_string();
    match out_dir.map(|dir| write(&import, &source, dir)) {
        None => out::raw(import.to_toml(&source)),
        Some(Ok(written)) => written.iter().for_each(|path| out::line(path.display())),
        Some(Err(error)) => {
            out::complain(error);
            return Exit::No;
        }
    }
    for remark in &import.remarks {
        let kind = if remark.lost { "" } else { "note: " };
        out::remark(format_args!("{source}:{}: {kind}{}", remark.line, remark.text));
    }
    if import.whole() { Exit::Done } else { Exit::No }
}

/// The text behind a name as main.cf has it, `hash:/etc/postfix/tls_policy`.
fn source(file: &Path) -> PathBuf {
    let text = file.to_str().and_then(|name| name.split_once(':'));
    let named = text.filter(|(kind, _)| TYPES.contains(kind) && !file.exists());
    named.map_or_else(|| file.to_owned(), |(_, path)| PathBuf::from(path))
}

/// A file for each domain. Nothing is written where one is there already.
fn write(import: &Import, source: &str, dir: &Path) -> io::Result<Vec<PathBuf>> {
    let named =
        |path: &Path, e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    std::fs::create_dir_all(dir).map_err(|e| named(dir, e))?;
    let files = import.files(source);
    let paths: Vec<_> = files.iter().map(|(name, text)| (dir.join(name), text)).collect();
    if let Some((path, _)) = paths.iter().find(|(path, _)| path.symlink_metadata().is_ok()) {
        let there = "it is there already, and nothing was written: move it away, or take another \
                     folder";
        return Err(named(path, io::Error::new(io::ErrorKind::AlreadyExists, there)));
    }
    let mut written = Vec::new();
    for (path, text) in paths {
        let made = File::create_new(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        made.map_err(|e| named(&path, e))?;
        written.push(path);
    }
    Ok(written)
}

/// `restante policy export-postfix [DIR]`
pub fn export(dir: &Path, clock: &dyn Clock) -> Exit {
    if !dir.is_dir() {
        out::complain(format_args!("{}: no such folder", dir.display()));
        return Exit::No;
    }
    let set = match load_set(dir, clock.now()) {
        Ok(set) => set,
        Err(exit) => return exit,
    };
    let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let join = |file: &str| whole.join(file).to_string_lossy().into_owned();
    let table = postfix::export(&set, clock.now(), join);
    out::raw(&table.text);
    table.remarks.iter().for_each(out::remark);
    if table.remarks.is_empty() { Exit::Done } else { Exit::No }
}
