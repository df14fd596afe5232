//! From texts to a [`PolicySet`]: what each key may hold, and what is said when it does not.
use crate::{
    mail::Domain,
    policy::{
        Level, Policy, PolicyRef, PolicySet, Problem, Severity, SourceFile, TlsUse,
        decide::tls_use,
        file::{ClientKey, NextHop, NoRequireTls, Otherwise},
        rules::Rule,
        toml_source::{Document, Entry, Section, choice, duration},
    },
};
use jiff::{SignedDuration, Timestamp, ToSpan, civil::Date, tz::TimeZone};
use sha2::{Digest, Sha256};
use std::{collections::HashMap, net::IpAddr, path::Path};
use toml::de::DeValue;

const TOP: [&str; 4] = ["partner", "default", "rule", "domains"];
pub(super) const PARTNER: [&str; 16] = [
    "domains",
    "level",
    "match",
    "fingerprints",
    "min_tls",
    "ca_file",
    "client_certificate",
    "client_key",
    "next_hop",
    "otherwise",
    "otherwise_after",
    "requiretls",
    "mark",
    "contact",
    "note",
    "expires",
];
pub(super) const DEFAULT: [&str; 3] = ["level", "otherwise", "never_direct"];
const OTHERWISE: [(&str, Otherwise); 3] =
    [("envelope", Otherwise::Envelope), ("defer", Otherwise::Defer), ("bounce", Otherwise::Bounce)];
const NO_REQUIRE_TLS: [(&str, NoRequireTls); 2] =
    [("bounce", NoRequireTls::Bounce), ("envelope", NoRequireTls::Envelope)];
/// A partner that is broken is retried this long, where the entry says nothing.
const OTHERWISE_AFTER: SignedDuration = SignedDuration::from_hours(1);
/// `policy check` warns this long before an entry ends.
const EXPIRY_NOTICE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Fields that a message has once at most, or that carry its structure: a mark must not be one of
/// them.
const NO_MARKS: [&str; 12] = [
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "subject",
    "date",
    "message-id",
    "mime-version",
    "received",
    "return-path",
];

/// Hash over names and texts in the order of the names. Lengths stand before both, so that nothing
/// can move from one file to the next unseen.
pub(super) fn version(files: &[SourceFile]) -> String {
    let mut sorted: Vec<&SourceFile> = files.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hash = Sha256::new();
    for text in sorted.iter().flat_map(|file| [&file.name, &file.text]) {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    let digest = hash.finalize();
    data_encoding::HEXLOWER.encode(digest.as_slice()).chars().take(16).collect()
}

/// Reads all files; any error refuses the whole set.
pub(super) fn read(
    files: &[SourceFile],
    now: Timestamp,
) -> Result<(PolicySet, Vec<Problem>), Vec<Problem>> {
    let mut sorted: Vec<&SourceFile> = files.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let version = version(files);
    let mut reading = Reading::new(version, now);
    for file in sorted {
        reading.file(file);
    }
    reading.never_direct();
    reading.uncovered_parents();
    if reading.problems.iter().any(|p| p.severity == Severity::Error) {
        return Err(reading.problems);
    }
    Ok((reading.set, reading.problems))
}

/// Where a name was first written: file, line, column.
type Place = (String, u32, u32);

struct Reading {
    set: PolicySet,
    places: HashMap<String, Place>,
    /// Files that hold nothing but a list of domains, by name.
    lists: HashMap<String, Vec<String>>,
    /// Lists that `never_direct` names, and where.
    named: Vec<(String, Place)>,
    problems: Vec<Problem>,
    now: Timestamp,
}

impl Reading {
    fn new(version: String, now: Timestamp) -> Self {
        let default = Policy::built_in(&version);
        let set = PolicySet { version, default, ..PolicySet::default() };
        let (places, lists) = (HashMap::new(), HashMap::new());
        Self { set, places, lists, named: Vec::new(), problems: Vec::new(), now }
    }

    fn file(&mut self, file: &SourceFile) {
        let doc = Document::new(&file.name, &file.text);
        if let Some(table) = doc.parse() {
            let top = Section::new(&doc, &table, 0, &TOP);
            self.default(&top);
            for section in top.sections("partner", &PARTNER) {
                self.partner(&section);
            }
            self.rules(&top);
            if let Some(list) = top.get("domains").and_then(|e| e.list(domain_name)) {
                let domains = list.into_iter().map(|(_, name)| name).collect();
                self.lists.insert(file.name.clone(), domains);
            }
        }
        self.problems.extend(doc.into_problems());
    }

    fn default(&mut self, top: &Section<'_, '_>) {
        let Some(section) = top.section("default", &DEFAULT) else { return };
        if top.doc().name() != "default.toml" {
            top.doc().error(section.at(), "[default] belongs in default.toml: move it there");
        }
        let file_name = |text: &str| Ok::<_, String>(text.to_owned());
        for (at, name) in
            section.get("never_direct").and_then(|e| e.list(file_name)).unwrap_or_default()
        {
            let (line, column) = top.doc().position(at);
            self.named.push((name, (top.doc().name().to_owned(), line, column)));
        }
        let level = section.get("level").and_then(|e| e.parse(Level::read));
        let at = self.place(&section, level.unwrap_or(Level::Envelope));
        self.set.default = Policy { otherwise: otherwise(&section), ..Policy::of(at) };
    }

    fn rules(&mut self, top: &Section<'_, '_>) {
        let sections = top.sections("rule", &Rule::KEYS);
        if let Some(first) = sections.first().filter(|_| top.doc().name() != "rules.toml") {
            top.doc().error(
                first.at(),
                "[[rule]] belongs in rules.toml, where the order of all is seen: move it there",
            );
        }
        self.set.rules.extend(sections.iter().filter_map(Rule::read));
    }

    fn place(&self, section: &Section<'_, '_>, level: Level) -> PolicyRef {
        let (line, _) = section.doc().position(section.at());
        let file = section.doc().name().to_owned();
        PolicyRef { file, line, level, version: self.set.version.clone() }
    }

    fn partner(&mut self, section: &Section<'_, '_>) {
        let domains = domains(section);
        let level = match section.get("level") {
            Some(entry) => entry.parse(Level::read),
            None => {
                section.doc().error(
                    section.at(),
                    "key `level` is missing: write level = \"secure\", or another",
                );
                None
            }
        };
        let policy = partner(section, self.place(section, level.unwrap_or(Level::Envelope)));
        if level.is_some() {
            warn_idle(section, &policy);
            warn_names(section, &policy, &domains);
        }
        self.warn_expiry(section, policy.ends);
        let index = self.set.policies.len();
        self.set.policies.push(policy);
        for (at, name) in domains {
            self.claim(section.doc(), at, name, index);
        }
    }

    /// A name belongs to one entry; the second claim is an error that names both places.
    fn claim(&mut self, doc: &Document<'_>, at: usize, name: String, index: usize) {
        let (line, column) = doc.position(at);
        if let Some((file, line, column)) = self.places.get(&name) {
            let first = format!("{file}:{line}:{column}");
            doc.error(at, format!("`{name}` stands already at {first}: keep one of the two"));
            return;
        }
        self.places.insert(name.clone(), (doc.name().to_owned(), line, column));
        self.set.names.insert(name, index);
    }

    fn warn_expiry(&self, section: &Section<'_, '_>, ends: Option<Timestamp>) {
        let (Some(entry), Some(ends)) = (section.get("expires"), ends) else { return };
        let left = ends.duration_since(self.now);
        if left <= SignedDuration::ZERO {
            entry.warn("this entry has expired and no longer counts");
        } else if left <= EXPIRY_NOTICE {
            let days = left.as_secs().div_euclid(86_400);
            entry.warn(format_args!("this entry expires in {days} days"));
        }
    }

    /// The lists that `never_direct` names, once all files are read.
    fn never_direct(&mut self) {
        for (name, (file, line, column)) in std::mem::take(&mut self.named) {
            if let Some(domains) = self.lists.get(&name) {
                self.set.never_direct.extend(domains.iter().cloned());
                continue;
            }
            let text = format!(
                "`{name}` is no list in this folder: put a file of that name there that says \
                 domains = [\"mail.example\"], or leave it out"
            );
            self.problems.push(Problem { file, line, column, severity: Severity::Error, text });
        }
    }

    /// `.x` does not cover x itself: a frequent surprise, worth a word where no entry covers it.
    fn uncovered_parents(&mut self) {
        let mut warnings = Vec::new();
        for (name, (file, line, column)) in &self.places {
            let Some(parent) = name.strip_prefix('.') else { continue };
            if !self.places.contains_key(parent) {
                let text = format!(
                    "`{name}` covers subdomains only: `{parent}` itself has no entry; add it if it \
                     is meant too"
                );
                let (file, line, column) = (file.clone(), *line, *column);
                warnings.push(Problem { file, line, column, severity: Severity::Warning, text });
            }
        }
        self.problems.extend(warnings);
        let key = |p: &Problem| (p.file.clone(), p.line, p.column);
        self.problems.sort_by_key(key);
    }
}

/// All keys of an entry beyond its domains and its level.
fn partner(section: &Section<'_, '_>, at: PolicyRef) -> Policy {
    let after = section.get("otherwise_after").and_then(|e| e.parse(duration));
    // What does not qualify for `auto` goes to the envelope at once: nothing was agreed with it.
    let patience = if at.level == Level::Auto { SignedDuration::ZERO } else { OTHERWISE_AFTER };
    let names = section.get("match").and_then(|e| e.list(certificate_name)).unwrap_or_default();
    Policy {
        names: names.into_iter().map(|(_, name)| name).collect(),
        min_tls13: min_tls13(section),
        pins: pins(section, at.level),
        ca_file: filled(section, "ca_file").and_then(|e| beside(section, &e)),
        client: client_key(section),
        next_hop: filled(section, "next_hop").and_then(|e| e.parse(|text| text.parse::<NextHop>())),
        otherwise: otherwise(section),
        otherwise_after: after.unwrap_or(patience),
        no_require_tls: no_require_tls(section),
        mark: filled(section, "mark").and_then(|e| e.parse(mark)),
        contact: filled(section, "contact").and_then(|e| e.line().map(str::to_owned)),
        note: filled(section, "note").and_then(|e| e.text().map(str::to_owned)),
        ends: filled(section, "expires").and_then(|e| expires(&e)),
        partner: true,
        ..Policy::of(at)
    }
}

fn filled<'d, 't>(section: &Section<'d, 't>, key: &'static str) -> Option<Entry<'d, 't>> {
    section.get(key).filter(|entry| !entry.is_empty())
}

fn otherwise(section: &Section<'_, '_>) -> Otherwise {
    let entry = section.get("otherwise");
    entry.and_then(|e| e.parse(|t| choice(t, &OTHERWISE))).unwrap_or(Otherwise::Envelope)
}

fn no_require_tls(section: &Section<'_, '_>) -> NoRequireTls {
    let entry = section.get("requiretls");
    entry.and_then(|e| e.parse(|t| choice(t, &NO_REQUIRE_TLS))).unwrap_or(NoRequireTls::Bounce)
}

fn min_tls13(section: &Section<'_, '_>) -> bool {
    let version = |text: &str| match text {
        "1.2" => Ok(false),
        "1.3" => Ok(true),
        _ => Err(format!("`{text}` is no TLS version that can be asked: write \"1.2\" or \"1.3\"")),
    };
    section.get("min_tls").and_then(|e| e.parse(version)).unwrap_or(false)
}

/// Pins, and that level `fingerprint` has some.
fn pins(section: &Section<'_, '_>, level: Level) -> Vec<String> {
    let pins = section.get("fingerprints").and_then(|e| e.list(pin)).unwrap_or_default();
    if level == Level::Fingerprint && section.get("fingerprints").is_none_or(|e| e.is_empty()) {
        section.doc().error(
            section.at(),
            "level `fingerprint` needs pins: write fingerprints = [\"sha256:HEX\"], of the \
             certificate or of its public key",
        );
    }
    pins.into_iter().map(|(_, pin)| pin).collect()
}

/// `sha256:HEX`, the digits in any case, with or without colons between them.
fn pin(text: &str) -> Result<String, String> {
    let example = "write \"sha256:\" and 64 hex digits";
    let digits = text
        .get(..7)
        .filter(|name| name.eq_ignore_ascii_case("sha256:"))
        .and_then(|_| text.get(7..))
        .ok_or_else(|| format!("`{text}` does not say its hash: {example}"))?;
    let hex: String = digits.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase();
    if let Some(odd) = hex.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("`{text}` holds `{odd}`, which is no hex digit: {example}"));
    }
    if hex.len() != 64 {
        return Err(format!("`{text}` has {} hex digits, SHA-256 has 64: {example}", hex.len()));
    }
    Ok(hex)
}

/// Our certificate and its key: both or none.
fn client_key(section: &Section<'_, '_>) -> Option<ClientKey> {
    let keys = ["client_certificate", "client_key"];
    let [certificate, key] = keys.map(|key| filled(section, key));
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(entry), None) => {
            entry.fail("stands without `client_key`: write both");
            return None;
        }
        (None, Some(entry)) => {
            entry.fail("stands without `client_certificate`: write both");
            return None;
        }
        (None, None) => return None,
    };
    Some(ClientKey { certificate: beside(section, &certificate)?, key: beside(section, &key)? })
}

/// The path stands relative to the file that names it; kept relative to the policy directory.
fn beside(section: &Section<'_, '_>, entry: &Entry<'_, '_>) -> Option<String> {
    let folder = Path::new(section.doc().name()).parent().unwrap_or_else(|| Path::new(""));
    Some(folder.join(entry.line()?).to_string_lossy().into_owned())
}

fn domains(section: &Section<'_, '_>) -> Vec<(usize, String)> {
    let Some(entry) = section.get("domains") else {
        let text = "key `domains` is missing: write domains = [\"partner.example\"]";
        section.doc().error(section.at(), text);
        return Vec::new();
    };
    let list = entry.list(domain_name);
    if list.as_ref().is_some_and(Vec::is_empty) {
        entry.fail("an empty list: write domains = [\"partner.example\"]");
    }
    list.unwrap_or_default()
}

/// A domain, or with a leading dot all below it, in A-label form.
pub(super) fn domain_name(text: &str) -> Result<String, String> {
    if let Some((_, domain)) = text.rsplit_once('@') {
        return Err(format!("`{text}` is an address: write its domain, \"{domain}\""));
    }
    if let Some(rest) = text.strip_prefix("*.") {
        return Err(format!("`{text}` has a wildcard: write \".{rest}\" for all its subdomains"));
    }
    let (dot, bare) = text.strip_prefix('.').map_or(("", text), |bare| (".", bare));
    let domain: Domain = bare
        .parse()
        .map_err(|e| format!("`{text}` is no domain ({e}): write \"partner.example\""))?;
    if !dot.is_empty() && domain.literal().is_some() {
        return Err(format!("`{text}`: an address has no subdomains; leave the dot out"));
    }
    Ok(format!("{dot}{domain}"))
}

/// A name that a certificate must bear: as [`domain_name`], or an address.
fn certificate_name(text: &str) -> Result<String, String> {
    text.parse::<IpAddr>().map_or_else(|_| domain_name(text), |address| Ok(address.to_string()))
}

/// A header line to add. RFC 5322 §2.2: printable name, colon, and here one short line of printable
/// text.
fn mark(text: &str) -> Result<String, String> {
    let wrong = || format!("`{text}` is no header: write \"Sensitivity: company-confidential\"");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let value = value.trim();
    let printable = |s: &str| s.bytes().all(|b| (b' '..=b'~').contains(&b));
    let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic());
    if !plain || value.is_empty() || !printable(value) || text.len() > 500 {
        return Err(wrong());
    }
    let lower = name.to_ascii_lowercase();
    if NO_MARKS.contains(&lower.as_str()) || lower.starts_with("content-") {
        return Err(format!("`{name}` belongs to the message itself: write a field of your own"));
    }
    Ok(format!("{name}: {value}"))
}

/// The first moment after the day named, UTC. A date may stand with or without quotes.
fn expires(entry: &Entry<'_, '_>) -> Option<Timestamp> {
    let text = match entry.value() {
        DeValue::Datetime(date) => date.to_string(),
        DeValue::String(text) => text.as_ref().to_owned(),
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => String::new(),
    };
    let ends = day(&text)
        .and_then(|day| day.checked_add(1.day()).ok())
        .and_then(|next| next.to_zoned(TimeZone::UTC).ok())
        .map(|midnight| midnight.timestamp());
    if ends.is_none() {
        entry.fail("no date: write expires = \"2027-03-01\"");
    }
    ends
}

/// A bare date; a time of day beside it would be dropped in silence, so it is refused.
fn day(text: &str) -> Option<Date> {
    (text.len() == 10).then(|| text.parse().ok()).flatten()
}

/// Keys that do nothing at the entry's level.
fn warn_idle(section: &Section<'_, '_>, policy: &Policy) {
    let level = policy.level;
    let encrypted = tls_use(level) == TlsUse::Always && level != Level::Envelope;
    let idle = |key, useful: bool| {
        if let Some(entry) = filled(section, key).filter(|_| !useful) {
            entry.warn(format_args!("has no effect at level `{level}`"));
        }
    };
    idle("match", matches!(level, Level::Secure | Level::Verify));
    idle("fingerprints", level == Level::Fingerprint);
    idle("ca_file", level.checks_chain());
    idle("client_certificate", encrypted);
    idle("min_tls", encrypted);
    idle("next_hop", level != Level::Envelope);
    idle("mark", level != Level::Envelope);
}

/// Levels that trust more than the admin may think.
fn warn_names(section: &Section<'_, '_>, policy: &Policy, domains: &[(usize, String)]) {
    let Some(entry) = section.get("level") else { return };
    let host = policy.next_hop.as_ref().filter(|hop| !hop.mx).map(|hop| hop.host.as_str());
    match policy.level {
        Level::Opportunistic => {
            entry.warn("`opportunistic` sends content in plaintext where TLS is not offered");
        }
        Level::Verify if policy.names.is_empty() && host.is_none() => entry.warn(
            "`verify` trusts unsigned DNS for the MX host's name: add `match`, or use `secure`",
        ),
        Level::Secure if policy.names.is_empty() => {
            let under = |host: &str| {
                let covers = |(_, name): &(usize, String)| {
                    let name = name.trim_start_matches('.');
                    host == name || host.ends_with(&format!(".{name}"))
                };
                domains.iter().any(covers)
            };
            if let Some(host) = host.filter(|host| !under(host)) {
                entry.warn(format_args!(
                    "`secure` without `match` wants the recipient's domain in the certificate of \
                     {host}: add match = [\"{host}\"] if it bears that name"
                ));
            }
        }
        Level::Auto
        | Level::Dane
        | Level::DaneOnly
        | Level::Encrypt
        | Level::Envelope
        | Level::Fingerprint
        | Level::MtaSts
        | Level::None
        | Level::Secure
        | Level::Verify => {}
    }
}

#[cfg(test)]
mod tests;
