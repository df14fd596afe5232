//! From texts to a [`PolicySet`]: what each key may hold, and what is said when it does not.
use crate::{
    mail::Domain,
    policy::{
        Level, Policy, PolicyRef, PolicySet, Problem, Severity, SourceFile,
        file::{NextHop, NoRequireTls, Otherwise},
        rules::Rule,
        toml_source::{Document, Entry, Section, choice, duration},
    },
};
use jiff::{SignedDuration, Timestamp, ToSpan, civil::Date, tz::TimeZone};
use sha2::{Digest, Sha256};
use std::{collections::HashMap, net::IpAddr, path::Path};
use toml::de::DeValue;

const TOP: [&str; 3] = ["partner", "default", "rule"];
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
    problems: Vec<Problem>,
    now: Timestamp,
}

impl Reading {
    fn new(version: String, now: Timestamp) -> Self {
        let default = Policy::built_in(&version);
        let set = PolicySet { version, default, ..PolicySet::default() };
        Self { set, places: HashMap::new(), problems: Vec::new(), now }
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
        }
        self.problems.extend(doc.into_problems());
    }

    fn default(&mut self, top: &Section<'_, '_>) {
        let Some(section) = top.section("default", &DEFAULT) else { return };
        if top.doc().name() != "default.toml" {
            top.doc().error(section.at(), "[default] belongs in default.toml: move it there");
        }
        if let Some(entry) = section.get("never_direct").filter(|e| !e.is_empty()) {
            entry.not_yet();
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
        not_yet(section);
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
    let names = section.get("match").and_then(|e| e.list(certificate_name)).unwrap_or_default();
    Policy {
        names: names.into_iter().map(|(_, name)| name).collect(),
        min_tls13: min_tls13(section),
        ca_file: filled(section, "ca_file").and_then(|e| ca_file(section, &e)),
        next_hop: filled(section, "next_hop").and_then(|e| e.parse(|text| text.parse::<NextHop>())),
        otherwise: otherwise(section),
        otherwise_after: after.unwrap_or(OTHERWISE_AFTER),
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

fn not_yet(section: &Section<'_, '_>) {
    for key in ["fingerprints", "client_certificate", "client_key"] {
        if let Some(entry) = filled(section, key) {
            entry.not_yet();
        }
    }
}

/// The path stands relative to the file that names it; kept relative to the policy directory.
fn ca_file(section: &Section<'_, '_>, entry: &Entry<'_, '_>) -> Option<String> {
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
    let encrypted = level == Level::Encrypt || level.checks_certificate();
    let idle = |key, useful: bool| {
        if let Some(entry) = filled(section, key).filter(|_| !useful) {
            entry.warn(format_args!("has no effect at level `{level}`"));
        }
    };
    idle("match", level.checks_certificate());
    idle("ca_file", level.checks_certificate());
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
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }

    fn files(list: &[(&str, &str)]) -> Vec<SourceFile> {
        let file =
            |(name, text): &(&str, &str)| SourceFile { name: (*name).into(), text: (*text).into() };
        list.iter().map(file).collect()
    }

    fn set(list: &[(&str, &str)]) -> PolicySet {
        read(&files(list), now()).unwrap().0
    }

    fn problems(list: &[(&str, &str)]) -> Vec<String> {
        let problems = match read(&files(list), now()) {
            Ok((_, warnings)) => warnings,
            Err(problems) => problems,
        };
        problems.iter().map(ToString::to_string).collect()
    }

    fn partner(keys: &str) -> String {
        format!("[[partner]]\ndomains = [\"a.example\"]\n{keys}\n")
    }

    fn domain(text: &str) -> Domain {
        text.parse().unwrap()
    }

    #[test]
    fn no_files_seal_everything() {
        for set in [
            set(&[]),
            set(&[("a.toml", ""), ("default.toml", "# nothing\n")]),
            PolicySet::default(),
        ] {
            let domain = domain("a.example");
            let policy = set.lookup(&domain, now());
            assert_eq!((policy.level, policy.partner), (Level::Envelope, false));
            assert_eq!((policy.at.file.as_str(), policy.at.line), ("(built-in)", 0));
            assert_eq!(set.partners(), 0);
            assert_eq!(policy.at.version, set.version());
        }
    }

    #[test]
    fn the_most_specific_name_decides() {
        let text = r#"
[[partner]]
domains = ["a.example"]
level = "secure"
[[partner]]
domains = [".a.example", "Bücher.example"]
level = "encrypt"
[[partner]]
domains = [".deep.a.example"]
level = "verify"
match = [".a.example"]
[[partner]]
domains = ["old.a.example"]
level = "opportunistic"
expires = "2026-11-21"
"#;
        let set =
            set(&[("p.toml", text), ("default.toml", "[default]\nlevel = \"opportunistic\"\n")]);
        assert_eq!(set.partners(), 4);
        for (name, level, line) in [
            ("a.example", Level::Secure, 2),
            ("A.Example", Level::Secure, 2),
            ("x.a.example", Level::Encrypt, 5),
            ("x.y.a.example", Level::Encrypt, 5),
            ("deep.a.example", Level::Encrypt, 5),
            ("x.deep.a.example", Level::Verify, 8),
            ("xn--bcher-kva.example", Level::Encrypt, 5),
            ("old.a.example", Level::Encrypt, 5),
            ("nota.example", Level::Opportunistic, 1),
            ("example", Level::Opportunistic, 1),
        ] {
            let domain = domain(name);
            let at = &set.lookup(&domain, now()).at;
            assert_eq!((at.level, at.line), (level, line), "{name}");
        }
    }

    #[test]
    fn an_entry_holds_to_the_end_of_its_day() {
        let text = partner("level = \"secure\"\nexpires = 2027-03-01");
        let set = set(&[("p.toml", &text)]);
        let domain = domain("a.example");
        for (at, partner) in [("2027-03-01T23:59:59Z", true), ("2027-03-02T00:00:00Z", false)] {
            assert_eq!(set.lookup(&domain, at.parse().unwrap()).partner, partner, "{at}");
        }
    }

    #[test]
    fn every_key_arrives() {
        let text = partner(
            r#"level = "secure"
match = ["MX.a.example", ".mail.a.example", "192.0.2.1"]
fingerprints = []
min_tls = "1.3"
ca_file = "ca.pem"
client_certificate = ""
next_hop = "[mail.a.example]:587"
otherwise = "bounce"
otherwise_after = "90m"
requiretls = "envelope"
mark = "Sensitivity: company-confidential"
contact = "postmaster@a.example"
note = "agreed""#,
        );
        let set = set(&[("sub/p.toml", &text)]);
        let domain = domain("a.example");
        let policy = set.lookup(&domain, now());
        assert_eq!(policy.names, ["mx.a.example", ".mail.a.example", "192.0.2.1"]);
        assert!(policy.min_tls13 && policy.partner);
        assert_eq!(policy.ca_file.as_deref(), Some("sub/ca.pem"));
        assert_eq!(policy.next_hop, Some("[mail.a.example]:587".parse().unwrap()));
        assert_eq!(policy.otherwise, Otherwise::Bounce);
        assert_eq!(policy.otherwise_after, SignedDuration::from_mins(90));
        assert_eq!(policy.no_require_tls, NoRequireTls::Envelope);
        assert_eq!(policy.mark.as_deref(), Some("Sensitivity: company-confidential"));
        assert_eq!(set.ca_files().map(|(f, _)| f).collect::<Vec<_>>(), ["sub/ca.pem"]);
    }

    #[test]
    fn bad_partner_keys_are_named_with_their_place() {
        for (keys, place, says) in [
            ("level = \"secur\"", "3:9", "did you mean `secure`"),
            ("level = \"dane\"", "3:9", "not yet"),
            ("level = \"none\"", "3:9", "not yet"),
            ("level = \"auto\"", "3:9", "not yet"),
            ("level = 3", "3:9", "a number where a text"),
            ("", "1:1", "`level` is missing"),
            ("level = \"secure\"\nmach = []", "4:1", "did you mean `match`"),
            ("level = \"secure\"\nmatch = \"a.example\"", "4:9", "where a list"),
            ("level = \"secure\"\nmatch = [\"*.a.example\"]", "4:10", "write \".a.example\""),
            ("level = \"secure\"\nfingerprints = [\"sha256:00\"]", "4:1", "not yet"),
            ("level = \"secure\"\nclient_key = \"k.pem\"", "4:1", "not yet"),
            ("level = \"secure\"\nmin_tls = \"1.1\"", "4:11", "\"1.2\" or \"1.3\""),
            ("level = \"secure\"\nmin_tls = 1.3", "4:11", "a fraction where a text"),
            ("level = \"secure\"\nnext_hop = \"[x\"", "4:12", "no next hop"),
            ("level = \"secure\"\notherwise = \"enveloppe\"", "4:13", "did you mean `envelope`"),
            ("level = \"secure\"\notherwise_after = \"1\"", "4:19", "no time"),
            ("level = \"secure\"\nrequiretls = \"defer\"", "4:14", "known here: bounce, envelope"),
            ("level = \"secure\"\nmark = \"nocolon\"", "4:8", "no header"),
            ("level = \"secure\"\nmark = \"X: a\\r\\nBcc: b\"", "4:8", "no header"),
            ("level = \"secure\"\nmark = \"Subject: x\"", "4:8", "belongs to the message"),
            ("level = \"secure\"\nexpires = \"soon\"", "4:11", "no date"),
            ("level = \"secure\"\nexpires = 2027-03-01T10:00:00Z", "4:11", "no date"),
            ("level = \"secure\"\nlevel = \"verify\"", "4:1", "not TOML"),
            ("level = ", "3:9", "not TOML"),
        ] {
            let found = problems(&[("p.toml", &partner(keys))]);
            let start = format!("p.toml:{place}: error: ");
            let hit = found.iter().any(|p| p.starts_with(&start) && p.contains(says));
            assert!(hit, "{keys:?} should say {start}…{says}, says {found:#?}");
        }
    }

    #[test]
    fn bad_domains_and_tables_are_named_with_their_place() {
        for (name, text, says) in [
            (
                "p.toml",
                "[[partner]]\nlevel = \"secure\"\n",
                "p.toml:1:1: error: key `domains` is missing",
            ),
            (
                "p.toml",
                "[[partner]]\nlevel = \"secure\"\ndomains = []\n",
                "p.toml:3:11: error: key `domains`: an empty",
            ),
            (
                "p.toml",
                "[[partner]]\nlevel = \"secure\"\ndomains = [\"u@a.example\"]\n",
                "p.toml:3:12: error: key `domains`: `u@a.example` is an address",
            ),
            (
                "p.toml",
                "[[partner]]\nlevel = \"secure\"\ndomains = [\"a..example\"]\n",
                "p.toml:3:12: error: key `domains`: `a..example` is no domain",
            ),
            (
                "p.toml",
                "[[partner]]\nlevel = \"secure\"\ndomains = [1]\n",
                "p.toml:3:12: error: key `domains`: a number in a list",
            ),
            (
                "p.toml",
                "[partner]\nlevel = \"secure\"\n",
                "p.toml:1:2: error: `partner` is a list of tables: write [[partner]]",
            ),
            (
                "p.toml",
                "[[partners]]\n",
                "p.toml:1:3: error: unknown key `partners`; did you mean `partner`?",
            ),
            (
                "default.toml",
                "[[default]]\n",
                "default.toml:1:3: error: `default` is one table: write [default]",
            ),
            (
                "default.toml",
                "[default]\nnever_direct = [\"x.toml\"]\n",
                "default.toml:2:1: error: key `never_direct` is not yet",
            ),
            (
                "x.toml",
                "[default]\nlevel = \"encrypt\"\n",
                "x.toml:1:2: error: [default] belongs in default.toml",
            ),
            (
                "x.toml",
                "[[rule]]\nwhen = { size_over = \"1 MiB\" }\naction = \"protect\"\n",
                "x.toml:1:1: error: [[rule]] belongs in rules.toml",
            ),
        ] {
            let found = problems(&[(name, text)]);
            assert!(found.iter().any(|p| p.starts_with(says)), "{text:?}: {says}\n{found:#?}");
        }
    }

    #[test]
    fn one_name_in_two_places_names_both() {
        let one = partner("level = \"secure\"");
        let two = "[[partner]]\nlevel = \"encrypt\"\ndomains = [\"b.example\", \"A.example\"]\n";
        let found = problems(&[("two.toml", two), ("one.toml", &one)]);
        assert_eq!(
            found,
            [
                "two.toml:3:25: error: `a.example` stands already at one.toml:2:12: keep one of the two"
            ]
        );
    }

    #[test]
    fn all_problems_are_shown_at_once() {
        let text = partner("level = \"secur\"\nmin_tls = 1\nzzz = 1");
        assert_eq!(problems(&[("a.toml", &text), ("b.toml", "x = 1")]).len(), 4);
    }

    #[test]
    fn near_misses_are_warnings() {
        for (keys, says) in [
            (
                "level = \"verify\"",
                "p.toml:3:1: warning: key `level`: `verify` trusts unsigned DNS",
            ),
            ("level = \"opportunistic\"", "plaintext"),
            (
                "level = \"encrypt\"\nmatch = [\"a.example\"]",
                "p.toml:4:1: warning: key `match`: has no effect",
            ),
            ("level = \"envelope\"\nmin_tls = \"1.3\"", "key `min_tls`: has no effect"),
            ("level = \"secure\"\nnext_hop = \"[mx.b.example]\"", "add match = [\"mx.b.example\"]"),
            ("level = \"secure\"\nexpires = \"2026-12-10\"", "expires in 18 days"),
            ("level = \"secure\"\nexpires = \"2026-11-21\"", "has expired"),
        ] {
            let found = problems(&[("p.toml", &partner(keys))]);
            assert_eq!(found.len(), 1, "{keys}: {found:?}");
            assert!(found[0].contains("warning") && found[0].contains(says), "{keys}: {found:?}");
        }
        let text = "[[partner]]\nlevel = \"secure\"\ndomains = [\".a.example\"]\n";
        let found = problems(&[("p.toml", text)]);
        assert!(found[0].starts_with("p.toml:3:12: warning: `.a.example` covers subdomains only"));
    }

    #[test]
    fn clean_entries_say_nothing() {
        for keys in [
            "level = \"secure\"\nexpires = \"2027-11-22\"",
            "level = \"verify\"\nmatch = [\".a.example\"]",
            "level = \"secure\"\nnext_hop = \"[mx.a.example]:25\"",
            "level = \"envelope\"",
            "level = \"encrypt\"\nca_file = \"\"\nmark = \"\"\nexpires = \"\"",
        ] {
            assert_eq!(problems(&[("p.toml", &partner(keys))]), [""; 0], "{keys}");
        }
    }

    #[test]
    fn the_version_knows_every_byte_and_no_order() {
        let one = files(&[("a.toml", "x"), ("b.toml", "y")]);
        let swapped = files(&[("b.toml", "y"), ("a.toml", "x")]);
        assert_eq!(version(&one), version(&swapped));
        assert_eq!(version(&one).len(), 16);
        for other in [
            files(&[("a.toml", "x"), ("b.toml", "z")]),
            files(&[("a.toml", "x"), ("c.toml", "y")]),
            files(&[("a.toml", "xb.toml"), ("", "y")]),
        ] {
            assert_ne!(version(&one), version(&other));
        }
    }

    #[test]
    fn thousands_of_entries_are_looked_up_by_hash() {
        let mut text = String::new();
        for n in 0..5000 {
            text += &format!("[[partner]]\ndomains = [\"d{n}.example\"]\nlevel = \"secure\"\n");
        }
        let set = set(&[("many.toml", &text)]);
        assert_eq!(set.partners(), 5000);
        let domain = domain("d4999.example");
        assert_eq!(set.lookup(&domain, now()).at.line, 4999 * 3 + 1);
    }
}
