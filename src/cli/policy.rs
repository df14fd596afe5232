//! `restante policy check|explain`: for people who edit files. No server, no network.

use super::{Exit, out};
use crate::{
    clock::Clock,
    mail::{Address, Domain},
    policy::{self, Code, NamedFile, PolicySet, Problem, Severity, SourceFile},
};
use jiff::Timestamp;
use std::{
    fs::File,
    io::{self, Read},
    path::{Component, Path},
};
use x509_parser::pem::Pem;

/// Bytes of one policy file at most.
const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Bytes read of a certificate or key.
const MAX_PEM: u64 = 1024 * 1024;

/// How problems are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A line each.
    Text,
    /// An array.
    Json,
    /// SARIF 2.1.0.
    Sarif,
}

/// What the configuration says that policy files are held against.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    /// `dnssec = "off"`
    pub dnssec_off: bool,
    /// `organization.domains`
    pub own_domains: Vec<Domain>,
}

/// Reads every `*.toml` of a policy folder, by name. A folder that does not exist holds no
/// policies.
pub fn read_dir(dir: &Path) -> io::Result<Vec<SourceFile>> {
    let (files, unreadable) = read_each(dir)?;
    match unreadable.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(files),
    }
}

/// Files of a policy folder; those that can't be read, by name and with the reason.
type Each = (Vec<SourceFile>, Vec<(String, io::Error)>);

fn read_each(dir: &Path) -> io::Result<Each> {
    let (mut files, mut unreadable) = Each::default();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((files, unreadable)),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let hidden = name.starts_with('.');
        if hidden || path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        match read(&path) {
            Ok(text) => files.push(SourceFile { text, name }),
            Err(error) => unreadable.push((name, error)),
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    unreadable.sort_by(|a, b| a.0.cmp(&b.0));
    Ok((files, unreadable))
}

/// A text of at most 16 MiB; the error names the file.
pub(super) fn read(path: &Path) -> io::Result<String> {
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
pub fn check(dir: &Path, beside: &Beside, strict: bool, answer: Answer, clock: &dyn Clock) -> Exit {
    if let Err(exit) = there(dir) {
        return exit;
    }
    let problems = match problems(dir, beside, clock) {
        Ok(problems) => problems,
        Err(error) => {
            unreadable(dir, &error);
            return Exit::No;
        }
    };
    match answer {
        Answer::Text => problems.iter().for_each(out::line),
        Answer::Json => out::json(&problems),
        Answer::Sarif => out::json(&policy::sarif::log(&problems, checkout(dir).as_deref())),
    }
    let bad = |p: &Problem| strict || p.severity == Severity::Error;
    if problems.iter().any(bad) { Exit::No } else { Exit::Done }
}

/// A folder that is asked about by name is there. What the server takes for no policies is a slip of
/// the pen here.
pub(super) fn there(dir: &Path) -> Result<(), Exit> {
    if dir.is_dir() {
        return Ok(());
    }
    out::complain(format_args!("{}: no such folder", dir.display()));
    Err(Exit::No)
}

/// A checkout's own folder as it is named relative to it, in plain steps down; `.` is the checkout.
fn checkout(dir: &Path) -> Option<String> {
    let mut steps = Vec::new();
    for step in dir.components() {
        match step {
            Component::Normal(name) => steps.push(name.to_str()?),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(steps.join("/"))
}

fn problems(dir: &Path, beside: &Beside, clock: &dyn Clock) -> io::Result<Vec<Problem>> {
    let (files, unreadable) = read_each(dir)?;
    let unread = |(name, error): (String, io::Error)| {
        let text = format!("{error}: policy files are TOML in UTF-8, and readable");
        Problem::new(&name, (1, 1), Code::UNREADABLE_FILE, text)
    };
    let mut problems: Vec<Problem> = unreadable.into_iter().map(unread).collect();
    let (set, found) = PolicySet::survey(&files, clock.now());
    problems.extend(found);
    problems.extend(missing_files(&set, dir));
    problems.extend(policy::check::with_own_domains(&set, &beside.own_domains));
    if beside.dnssec_off {
        problems.extend(policy::check::with_dnssec_off(&set));
    }
    problems.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    Ok(problems)
}

/// Partners whose files can't be read, or hold no PEM of the right kind: nothing can be proved to
/// them, so their mail waits.
pub fn missing_files(set: &PolicySet, dir: &Path) -> Vec<Problem> {
    let problem = |named: &NamedFile| {
        let NamedFile { key, path: file, at: (source, line, column), accept } = named;
        let (code, text) = match start_of(&dir.join(file)) {
            Err(error) => (
                Code::MISSING_FILE,
                format!("key `{key}`: {file}: {error}: put it there, or no mail goes directly"),
            ),
            Ok(bytes) => (Code::NOT_PEM, no_pem(key, file, &bytes)?),
        };
        let problem = || Problem::new(source, (*line, *column), code, text);
        (!accept.contains(&code)).then(problem)
    };
    set.files().iter().filter_map(problem).collect()
}

/// The first megabyte, in which a chain or key has begun.
fn start_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_PEM).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What is said of a file without a PEM block of the kind that its key wants (RFC 7468).
fn no_pem(key: &str, file: &str, bytes: &[u8]) -> Option<String> {
    let (wanted, ends) = match key {
        "client_key" => ("private key", "PRIVATE KEY"),
        _ => ("certificate", "CERTIFICATE"),
    };
    let found = Pem::iter_from_buffer(bytes).flatten().any(|pem| pem.label.ends_with(ends));
    (!found).then(|| {
        format!(
            "key `{key}`: {file} holds no {wanted} in PEM: write one that begins with \
             -----BEGIN {ends}-----"
        )
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_a_checkout() {
        for (dir, folder) in [
            (".", Some("")),
            ("./", Some("")),
            ("policies", Some("policies")),
            ("./policies/", Some("policies")),
            ("conf/./policies", Some("conf/policies")),
            ("/etc/restante/policies", None),
            ("../policies", None),
        ] {
            assert_eq!(checkout(Path::new(dir)).as_deref(), folder, "{dir}");
        }
    }
}
