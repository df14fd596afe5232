//! `restante policy check|explain`: for people who edit files. No server, no network.

use super::{Exit, out};
use crate::{
    clock::Clock,
    mail::Address,
    policy::{self, PolicyRef, PolicySet, Problem, Severity, SourceFile},
};
use jiff::Timestamp;
use std::{io, path::Path};

/// Bytes of one policy file at most.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Reads every `*.toml` of a policy folder, by name. A folder that does not exist holds no
/// policies.
pub fn read_dir(dir: &Path) -> io::Result<Vec<SourceFile>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let hidden = name.starts_with('.');
        if hidden || path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        files.push(SourceFile { text: read(&path)?, name });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn read(path: &Path) -> io::Result<String> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    let size = std::fs::metadata(path).map_err(named)?.len();
    if size > MAX_FILE {
        return Err(named(io::Error::other("larger than 16 MiB")));
    }
    let bytes = std::fs::read(path).map_err(named)?;
    String::from_utf8(bytes)
        .map_err(|error| named(io::Error::other(format!("not UTF-8 text: {}", error.utf8_error()))))
}

/// `restante policy check [DIR]`
pub fn check(dir: &Path, strict: bool, json: bool, clock: &dyn Clock) -> Exit {
    if !dir.is_dir() {
        out::complain(format_args!("{}: no such folder", dir.display()));
        return Exit::No;
    }
    let files = match read_dir(dir) {
        Ok(files) => files,
        Err(error) => {
            unreadable(dir, &error);
            return Exit::No;
        }
    };
    let problems = match PolicySet::parse(&files, clock.now()) {
        Ok((set, mut warnings)) => {
            warnings.extend(missing_files(&set, dir));
            warnings
        }
        Err(problems) => problems,
    };
    report(&problems, json);
    let bad = |p: &Problem| strict || p.severity == Severity::Error;
    if problems.iter().any(bad) { Exit::No } else { Exit::Done }
}

/// Partners whose files can't be read: nothing can be proved to them, so their mail waits.
pub fn missing_files(set: &PolicySet, dir: &Path) -> Vec<Problem> {
    let problem = |(key, file, at): (&str, &str, &PolicyRef)| {
        let error = std::fs::File::open(dir.join(file)).err()?;
        Some(Problem {
            file: at.file.clone(),
            line: at.line,
            column: 1,
            severity: Severity::Warning,
            text: format!("key `{key}`: {file}: {error}: put it there, or no mail goes directly"),
        })
    };
    set.files().filter_map(problem).collect()
}

fn report(problems: &[Problem], json: bool) {
    if json {
        out::json(problems);
    } else {
        problems.iter().for_each(out::line);
    }
}

/// `restante policy explain ADDRESS`
pub fn explain(dir: &Path, address: &str, json: bool, clock: &dyn Clock) -> Exit {
    let address: Address = match address.parse() {
        Ok(address) => address,
        Err(error) => {
            out::complain(format_args!("{address}: {error}"));
            return Exit::Data;
        }
    };
    let set = match load_set(dir, clock.now()) {
        Ok(set) => set,
        Err(exit) => return exit,
    };
    let explanation = policy::explain(&set, &address, clock.now());
    if json {
        out::json(&explanation);
    } else {
        explanation.text.iter().for_each(out::line);
    }
    Exit::Done
}

/// The set of a folder; what is wrong with it is said.
pub(super) fn load_set(dir: &Path, now: Timestamp) -> Result<PolicySet, Exit> {
    let files = read_dir(dir).map_err(|error| unreadable(dir, &error))?;
    PolicySet::parse(&files, now).map(|(set, _)| set).map_err(|problems| {
        problems.iter().for_each(out::complain);
        Exit::Config
    })
}

fn unreadable(dir: &Path, error: &io::Error) -> Exit {
    out::complain(format_args!("{}: {error}", dir.display()));
    Exit::Config
}
