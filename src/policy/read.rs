//! From texts to a [`PolicySet`]: what each key may hold, and what is said when it does not.
use crate::{
    mail::{Domain, Pickup},
    policy::{
        Code, Level, Policy, PolicyRef, PolicySet, Problem, Severity, SourceFile,
        decide::shows_client,
        file::{ClientKey, NamedFile, NextHop, NoRequireTls, Otherwise},
        lint, near_miss,
        pin::pin,
        rules::Rule,
        toml_source::{Document, Entry, Section, choice, duration},
    },
};
use jiff::{SignedDuration, Timestamp, ToSpan, civil::Date, tz::TimeZone};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    path::Path,
};
use toml::de::DeValue;

const TOP: [&str; 4] = ["partner", "default", "rule", "domains"];
pub(super) const PARTNER: [&str; 18] = [
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
    "pickup",
    "mark",
    "contact",
    "note",
    "accept",
    "expires",
];
pub(super) const DEFAULT: [&str; 5] = ["level", "otherwise", "pickup", "never_direct", "accept"];
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
    let (set, problems) = survey(files, now);
    if problems.iter().any(|p| p.severity == Severity::Error) {
        return Err(problems);
    }
    Ok((set, problems))
}

/// Reads all files as far as that goes.
pub(super) fn survey(files: &[SourceFile], now: Timestamp) -> (PolicySet, Vec<Problem>) {
    let mut sorted: Vec<&SourceFile> = files.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let version = version(files);
    let mut reading = Reading::new(version, now);
    for file in sorted {
        reading.file(file);
    }
    reading.never_direct();
    reading.look_over();
    (reading.set, reading.problems)
}

/// Where a name was first written: file, line, column.
pub(super) type Place = (String, u32, u32);

struct Reading {
    set: PolicySet,
    places: BTreeMap<String, Place>,
    /// Files that hold nothing but a list of domains, by name.
    lists: HashMap<String, Vec<String>>,
    /// Lists that `never_direct` names, and where.
    named: Vec<(String, Place)>,
    problems: Vec<Problem>,
    broken: Broken,
    now: Timestamp,
}

/// What has errors: of it is known too little to compare it with others.
#[derive(Debug, Default)]
pub(super) struct Broken {
    /// Entries, as numbered in the set.
    pub(super) entries: HashSet<usize>,
    /// A file that holds rules.
    pub(super) rules: bool,
}

impl Reading {
    fn new(version: String, now: Timestamp) -> Self {
        let default = Policy::built_in(&version);
        let set = PolicySet { version, default, ..PolicySet::default() };
        let (places, lists) = (BTreeMap::new(), HashMap::new());
        Self {
            set,
            places,
            lists,
            named: Vec::new(),
            problems: Vec::new(),
            broken: Broken::default(),
            now,
        }
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
                near_miss::spelling(&top, "domains");
                let domains = list.into_iter().map(|(_, name)| name).collect();
                self.lists.insert(file.name.clone(), domains);
            }
        }
        self.problems.extend(doc.into_problems());
    }

    fn default(&mut self, top: &Section<'_, '_>) {
        let Some(section) = top.section("default", &DEFAULT) else { return };
        if top.doc().name() != "default.toml" {
            let text = "[default] belongs in default.toml: move it there";
            top.doc().note(Code::MISPLACED_TABLE, section.at(), text);
        }
        let file_name = |text: &str| Ok::<_, String>(text.to_owned());
        for (at, name) in
            section.get("never_direct").and_then(|e| e.list(file_name)).unwrap_or_default()
        {
            let (line, column) = top.doc().position(at);
            self.named.push((name, (top.doc().name().to_owned(), line, column)));
        }
        let level = section.get("level").and_then(|e| e.parse(Level::read));
        top.doc().accept(&accept(&section));
        if let Some(level) = level {
            lint::default(&section, level);
        }
        top.doc().accept(&[]);
        let at = self.place(&section, level.unwrap_or(Level::Envelope));
        let otherwise = otherwise(&section);
        let otherwise_after = patience(false, otherwise);
        let pickup = pickup(&section);
        self.set.default = Policy { otherwise, otherwise_after, pickup, ..Policy::of(at) };
    }

    fn rules(&mut self, top: &Section<'_, '_>) {
        let sections = top.sections("rule", &Rule::KEYS);
        if let Some(first) = sections.first().filter(|_| top.doc().name() != "rules.toml") {
            top.doc().note(
                Code::MISPLACED_TABLE,
                first.at(),
                "[[rule]] belongs in rules.toml, where the order of all is seen: move it there",
            );
        }
        self.set.rules.extend(sections.iter().filter_map(Rule::read));
        self.broken.rules |= !sections.is_empty() && top.doc().errors() > 0;
    }

    fn place(&self, section: &Section<'_, '_>, level: Level) -> PolicyRef {
        let (line, _) = section.doc().position(section.at());
        let file = section.doc().name().to_owned();
        PolicyRef { file, line, level, version: self.set.version.clone() }
    }

    fn partner(&mut self, section: &Section<'_, '_>) {
        let before = section.doc().errors();
        let accept = accept(section);
        section.doc().accept(&accept);
        let domains = domains(section);
        let level = match section.get("level") {
            Some(entry) => entry.parse(Level::read),
            None => {
                section.doc().note(
                    Code::MISSING_KEY,
                    section.at(),
                    "key `level` is missing: write level = \"secure\", or another",
                );
                None
            }
        };
        let at = self.place(section, level.unwrap_or(Level::Envelope));
        let policy = Policy { accept, ..partner(section, at) };
        lint::entry(section, &domains);
        if level.is_some() {
            lint::level(section, &policy, &domains);
        }
        self.files(section, level, &policy.accept);
        self.warn_expiry(section, policy.ends);
        let index = self.set.policies.len();
        if section.doc().errors() > before || !section.knows_all(&PARTNER) {
            self.broken.entries.insert(index);
        }
        self.set.policies.push(policy);
        for (at, name) in domains {
            self.claim(section.doc(), at, name, index);
        }
        section.doc().accept(&[]);
    }

    /// Notes the files that the entry names, without those that do nothing at its level.
    fn files(&mut self, section: &Section<'_, '_>, level: Option<Level>, accept: &[Code]) {
        let anchors = level.is_none_or(Level::checks_chain);
        let client = level.is_none_or(shows_client);
        for (key, used) in
            [("ca_file", anchors), ("client_certificate", client), ("client_key", client)]
        {
            let Some(entry) = filled(section, key).filter(|_| used) else { continue };
            let Some(path) = entry.value().as_str().map(|text| joined(section, text)) else {
                continue;
            };
            let (line, column) = section.doc().position(entry.key_at());
            let at = (section.doc().name().to_owned(), line, column);
            self.set.files.push(NamedFile { key, path, at, accept: accept.to_vec() });
        }
    }

    /// A name belongs to one entry; the second claim is an error that names both places.
    fn claim(&mut self, doc: &Document<'_>, at: usize, name: String, index: usize) {
        let (line, column) = doc.position(at);
        if let Some((file, line, column)) = self.places.get(&name) {
            let first = format!("{file}:{line}:{column}");
            let dotted = format!(".{name}");
            let subdomains = if name.starts_with('.') || self.places.contains_key(&dotted) {
                String::new()
            } else {
                format!(", or write \"{dotted}\" if its subdomains are meant")
            };
            let text =
                format!("`{name}` stands already at {first}: keep one of the two{subdomains}");
            doc.note(Code::DUPLICATE_DOMAIN, at, text);
            return;
        }
        self.places.insert(name.clone(), (doc.name().to_owned(), line, column));
        self.set.names.insert(name, index);
    }

    fn warn_expiry(&self, section: &Section<'_, '_>, ends: Option<Timestamp>) {
        let (Some(entry), Some(ends)) = (section.get("expires"), ends) else { return };
        let left = ends.duration_since(self.now);
        let day = (ends - SignedDuration::from_hours(1)).to_zoned(TimeZone::UTC).date();
        if left <= SignedDuration::ZERO {
            let text = format!(
                "this entry has expired: it held until the end of {day} (UTC), and no longer \
                 counts; write a later date, or take the entry out"
            );
            entry.note(Code::EXPIRED, text);
        } else if left <= EXPIRY_NOTICE {
            let text = format!(
                "this entry expires soon: it holds until the end of {day} (UTC); write a later \
                 date, or take the entry out"
            );
            entry.note(Code::EXPIRES_SOON, text);
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
            self.problems.push(Problem::new(&file, (line, column), Code::MISSING_LIST, text));
        }
    }

    /// What only the whole shows, once all files are read.
    fn look_over(&mut self) {
        self.problems.extend(lint::set(&self.set, &self.places, &self.broken));
        self.problems
            .extend(near_miss::names(&self.places, &|name, code| self.set.accepts(name, code)));
        let key = |p: &Problem| (p.file.clone(), p.line, p.column);
        self.problems.sort_by_key(key);
    }
}

/// All keys of an entry beyond its domains and its level.
fn partner(section: &Section<'_, '_>, at: PolicyRef) -> Policy {
    let after = section.get("otherwise_after").and_then(|e| e.parse(duration));
    let otherwise = otherwise(section);
    let usual = patience(at.level != Level::Auto, otherwise);
    let names = section.get("match").and_then(|e| e.list(certificate_name)).unwrap_or_default();
    Policy {
        names: names.into_iter().map(|(_, name)| name).collect(),
        min_tls13: min_tls13(section),
        pins: pins(section, at.level),
        ca_file: filled(section, "ca_file").and_then(|e| beside(section, &e)),
        client: client_key(section),
        next_hop: filled(section, "next_hop").and_then(|e| e.parse(|text| text.parse::<NextHop>())),
        otherwise,
        otherwise_after: after.unwrap_or(usual),
        no_require_tls: no_require_tls(section),
        pickup: pickup(section),
        mark: filled(section, "mark").and_then(|e| e.parse(mark)),
        contact: filled(section, "contact").and_then(|e| e.line().map(str::to_owned)),
        note: filled(section, "note").and_then(|e| e.text().map(str::to_owned)),
        ends: filled(section, "expires").and_then(|e| expires(&e)),
        partner: true,
        ..Policy::of(at)
    }
}

pub(super) fn filled<'d, 't>(
    section: &Section<'d, 't>,
    key: &'static str,
) -> Option<Entry<'d, 't>> {
    section.get(key).filter(|entry| !entry.is_empty())
}

/// Warnings that an entry, the default or a rule answers.
pub(super) fn accept(section: &Section<'_, '_>) -> Vec<Code> {
    let codes = section.get("accept").and_then(|e| e.list(Code::accepted)).unwrap_or_default();
    codes.into_iter().map(|(_, code)| code).collect()
}

fn otherwise(section: &Section<'_, '_>) -> Otherwise {
    let entry = section.get("otherwise");
    entry.and_then(|e| e.parse(|t| choice(t, &OTHERWISE))).unwrap_or(Otherwise::Envelope)
}

/// What a reader must prove beyond the mailbox.
pub(super) fn pickup(section: &Section<'_, '_>) -> Pickup {
    let entry = section.get("pickup");
    entry.and_then(|e| e.parse(|text| choice(text, &Pickup::NAMES))).unwrap_or_default()
}

/// How long an unmet level is retried where nothing is said. With whom nothing was agreed (level
/// `auto`, the default) the envelope comes at once; a bounce never does, as a retry may help.
fn patience(agreed: bool, otherwise: Otherwise) -> SignedDuration {
    match otherwise {
        Otherwise::Envelope if !agreed => SignedDuration::ZERO,
        Otherwise::Envelope | Otherwise::Defer | Otherwise::Bounce => OTHERWISE_AFTER,
    }
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
        section.doc().note(
            Code::MISSING_FINGERPRINT,
            section.at(),
            "level `fingerprint` needs pins: write fingerprints = [\"sha256:HEX\"], of the \
             certificate or of its public key",
        );
    }
    pins.into_iter().map(|(_, pin)| pin).collect()
}

/// Our certificate and its key: both or none.
fn client_key(section: &Section<'_, '_>) -> Option<ClientKey> {
    let keys = ["client_certificate", "client_key"];
    let [certificate, key] = keys.map(|key| filled(section, key));
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(entry), None) => {
            entry.note_at(
                Code::HALF_KEY_PAIR,
                entry.at(),
                "stands without `client_key`: write both",
            );
            return None;
        }
        (None, Some(entry)) => {
            let text = "stands without `client_certificate`: write both";
            entry.note_at(Code::HALF_KEY_PAIR, entry.at(), text);
            return None;
        }
        (None, None) => return None,
    };
    Some(ClientKey { certificate: beside(section, &certificate)?, key: beside(section, &key)? })
}

/// The path stands relative to the file that names it; kept relative to the policy directory.
fn beside(section: &Section<'_, '_>, entry: &Entry<'_, '_>) -> Option<String> {
    Some(joined(section, entry.line()?))
}

fn joined(section: &Section<'_, '_>, path: &str) -> String {
    let folder = Path::new(section.doc().name()).parent().unwrap_or_else(|| Path::new(""));
    folder.join(path).to_string_lossy().into_owned()
}

fn domains(section: &Section<'_, '_>) -> Vec<(usize, String)> {
    let Some(entry) = section.get("domains") else {
        let text = "key `domains` is missing: write domains = [\"partner.example\"]";
        section.doc().note(Code::MISSING_KEY, section.at(), text);
        return Vec::new();
    };
    let list = entry.list(domain_name);
    if list.as_ref().is_some_and(Vec::is_empty) {
        entry.fail("an empty list: write domains = [\"partner.example\"]");
    }
    // The others are looked at beside a wrong one, so that all problems are said at once.
    let right = |(at, text): (usize, &str)| Some((at, domain_name(text).ok()?));
    list.unwrap_or_else(|| entry.texts().filter_map(right).collect())
}

/// A domain, or with a leading dot all below it, in A-label form.
pub(super) fn domain_name(text: &str) -> Result<String, String> {
    if let Some((_, domain)) = text.rsplit_once('@') {
        return Err(format!("`{text}` is an address: write its domain, \"{domain}\""));
    }
    if let Some(rest) = text.strip_prefix("*.") {
        return Err(format!("`{text}` has a wildcard: write \".{rest}\" for all its subdomains"));
    }
    if let Some(hop) = postfix_key(text) {
        return Err(format!(
            "`{text}` is a next hop, as Postfix keys its rows: entries go by the recipient's \
             domain; write that, and next_hop = \"{hop}\" beside it"
        ));
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

/// `[host]`, `[host]:port` and `host:port`: keys of `smtp_tls_policy_maps`.
fn postfix_key(text: &str) -> Option<NextHop> {
    let hop: NextHop = text.parse().ok()?;
    let bracketed = text.starts_with('[') && text.parse::<Domain>().is_err();
    (hop.port.is_some() || bracketed).then_some(hop)
}

/// A name that a certificate must bear: as [`domain_name`], or an address.
pub(super) fn certificate_name(text: &str) -> Result<String, String> {
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

#[cfg(test)]
mod tests;
