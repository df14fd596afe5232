//! From rows to partner entries.
use super::rows::{Row, rows, tokens};
use crate::policy::{
    Level,
    pin::unprefixed,
    read::{certificate_name, domain_name},
};
use std::collections::HashMap;

/// What a table became.
#[derive(Debug, Clone, Default)]
pub struct Import {
    /// Rows that were carried over, in their order.
    pub partners: Vec<Partner>,
    /// What there is to say, in the order of the lines.
    pub remarks: Vec<Remark>,
}

/// A row as a partner entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partner {
    /// Where the row begins, from 1.
    pub line: u32,
    /// Its key: a domain, or with a leading dot all below it.
    pub domain: String,
    /// `level`
    pub level: Level,
    /// `match`
    pub names: Vec<String>,
    /// `fingerprints`, hex digits alone.
    pub pins: Vec<String>,
    /// `min_tls = "1.3"`
    pub min_tls13: bool,
    /// `ca_file`
    pub ca_file: Option<String>,
}

/// What is said of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Its line.
    pub line: u32,
    /// True if something that the row asks is not in the entries.
    pub lost: bool,
    /// What and why.
    pub text: String,
}

/// Reads a whole table.
pub fn import(text: &str) -> Import {
    let (rows, stray) = rows(text);
    let mut import = Import::default();
    let lost = |(line, text)| Remark { line, lost: true, text };
    import.remarks.extend(stray.into_iter().map(lost));
    let mut seen: HashMap<String, u32> = HashMap::new();
    for row in rows {
        let mut reading = Reading { line: row.line, remarks: Vec::new() };
        match reading.partner(&row, &mut seen) {
            Ok(partner) => import.partners.push(partner),
            Err(why) => reading.lost(format!("`{}` is not carried over: {why}", row.key)),
        }
        import.remarks.extend(reading.remarks);
    }
    import.remarks.sort_by_key(|remark| remark.line);
    import
}

impl Import {
    /// True if nothing that the table asks was lost.
    pub fn whole(&self) -> bool {
        self.remarks.iter().all(|remark| !remark.lost)
    }

    /// All entries as one policy file; what is said of rows stands in it as comments.
    pub fn to_toml(&self, source: &str) -> String {
        let mut toml = head(source);
        let mut remarks = self.remarks.iter().peekable();
        for entries in self.entries() {
            let line = entries.first().map_or(0, |p| p.line);
            while let Some(remark) = remarks.next_if(|r| r.line <= line) {
                toml.push_str(&comment(remark));
            }
            toml.push_str(&block(&entries));
        }
        remarks.for_each(|remark| toml.push_str(&comment(remark)));
        toml
    }

    /// A file for each domain, named by it: name and text.
    pub fn files(&self, source: &str) -> Vec<(String, String)> {
        let mut files: Vec<(String, String)> = Vec::new();
        for entries in self.entries() {
            let Some(first) = entries.first() else { continue };
            let name = format!("{}.toml", first.domain.trim_start_matches('.'));
            let at = files.iter().position(|(other, _)| *other == name).unwrap_or(files.len());
            if at == files.len() {
                files.push((name, head(source)));
            }
            let Some((_, text)) = files.get_mut(at) else { continue };
            let of = |remark: &&Remark| entries.iter().any(|p| p.line == remark.line);
            self.remarks.iter().filter(of).for_each(|remark| text.push_str(&comment(remark)));
            text.push_str(&block(&entries));
        }
        files
    }

    /// Rows by entry: a domain and its suffix that ask the same, one after the other, are one.
    fn entries(&self) -> Vec<Vec<&Partner>> {
        let mut entries: Vec<Vec<&Partner>> = Vec::new();
        for partner in &self.partners {
            match entries.last_mut() {
                Some(entry) if entry.iter().all(|other| other.joins(partner)) => {
                    entry.push(partner)
                }
                Some(_) | None => entries.push(vec![partner]),
            }
        }
        entries
    }
}

impl Partner {
    fn joins(&self, other: &Self) -> bool {
        let bare = |partner: &Self| partner.domain.trim_start_matches('.').to_owned();
        let (line, domain) = (self.line, self.domain.clone());
        bare(self) == bare(other) && Self { line, domain, ..other.clone() } == *self
    }
}

fn head(source: &str) -> String {
    let source: String = source.chars().filter(|c| !c.is_control()).collect();
    format!("# From {source}, by restante policy import-postfix.\n")
}

fn comment(remark: &Remark) -> String {
    let text: String = remark.text.chars().filter(|c| !c.is_control()).collect();
    format!("\n# line {}: {text}\n", remark.line)
}

/// The keys of one entry.
fn block(rows: &[&Partner]) -> String {
    let Some(first) = rows.first() else { return String::new() };
    let quoted = |text: &str| toml::Value::from(text).to_string();
    let list =
        |texts: Vec<String>| texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", ");
    let domains = list(rows.iter().map(|p| p.domain.clone()).collect());
    let mut block = format!("\n[[partner]]\ndomains = [{domains}]\nlevel = \"{}\"\n", first.level);
    let pins = first.pins.iter().map(|pin| format!("sha256:{pin}")).collect();
    for (key, texts) in [("match", first.names.clone()), ("fingerprints", pins)] {
        if !texts.is_empty() {
            block.push_str(&format!("{key} = [{}]\n", list(texts)));
        }
    }
    if first.min_tls13 {
        block.push_str("min_tls = \"1.3\"\n");
    }
    if let Some(file) = &first.ca_file {
        block.push_str(&format!("ca_file = {}\n", quoted(file)));
    }
    block
}

/// One row being read.
struct Reading {
    line: u32,
    remarks: Vec<Remark>,
}

/// Attributes that matter, as they stand.
#[derive(Debug, Default)]
struct Attributes {
    matches: Vec<String>,
    tafiles: Vec<String>,
    protocols: Option<String>,
    /// Names met, for those that may stand once.
    met: Vec<String>,
}

impl Reading {
    fn lost(&mut self, text: impl Into<String>) {
        self.remarks.push(Remark { line: self.line, lost: true, text: text.into() });
    }

    fn note(&mut self, text: impl Into<String>) {
        self.remarks.push(Remark { line: self.line, lost: false, text: text.into() });
    }

    fn partner(&mut self, row: &Row, seen: &mut HashMap<String, u32>) -> Result<Partner, String> {
        if row.key.starts_with('[') {
            return Err(next_hop(&row.key));
        }
        let domain = domain_name(&row.key).map_err(|why| match row.key.rsplit_once(':') {
            Some(_) => next_hop(&row.key),
            None => why,
        })?;
        if let Some(first) = seen.get(&domain) {
            return Err(format!("the key stands at line {first} already, and Postfix takes that"));
        }
        seen.insert(domain.clone(), self.line);
        let mut tokens = tokens(&row.value).into_iter();
        let word = tokens.next().ok_or("the policy is empty")?;
        let level = level(&word)?;
        let attributes = self.attributes(level, tokens)?;
        let (level, names) = self.names(level, &domain, &attributes.matches)?;
        let min_tls13 = self.min_tls13(level, attributes.protocols.as_deref())?;
        let pins =
            if level == Level::Fingerprint { self.pins(&attributes.matches)? } else { vec![] };
        if level == Level::Dane {
            self.note(
                "Postfix's `dane` falls to `may` where there are no TLSA records; here it is TLS, \
                 the certificate unchecked, or no delivery",
            );
        }
        let mut tafiles = attributes.tafiles.into_iter();
        let ca_file = tafiles.next();
        for more in tafiles {
            self.lost(format!("a second tafile, {more}: put its certificates into the first"));
        }
        Ok(Partner { line: self.line, domain, level, names, pins, min_tls13, ca_file })
    }

    fn attributes(
        &mut self,
        level: Level,
        tokens: impl Iterator<Item = String>,
    ) -> Result<Attributes, String> {
        let mut attributes = Attributes::default();
        for token in tokens {
            if level == Level::None {
                self.note(format!("`{token}` has no effect at level none, also in Postfix"));
                continue;
            }
            let (name, value) =
                token.split_once('=').ok_or_else(|| format!("`{token}` is no attribute"))?;
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            let once = !["match", "tafile"].contains(&name.as_str());
            if once && attributes.met.contains(&name) {
                return Err(format!("attribute `{name}` stands twice"));
            }
            if value.is_empty() && name != "protocols" && name != "exclude" {
                return Err(format!("attribute `{name}` is empty"));
            }
            self.attribute(level, &name, value, &mut attributes)?;
            attributes.met.push(name);
        }
        Ok(attributes)
    }

    fn attribute(
        &mut self,
        level: Level,
        name: &str,
        value: &str,
        attributes: &mut Attributes,
    ) -> Result<(), String> {
        let names = matches!(level, Level::Secure | Level::Verify);
        match name {
            "match" if names || level == Level::Fingerprint => {
                attributes.matches.push(value.to_owned());
            }
            "tafile" if names => attributes.tafiles.push(value.to_owned()),
            "match" | "tafile" => {
                return Err(format!("attribute `{name}` may not stand at level `{level}`"));
            }
            "protocols" => attributes.protocols = Some(value.to_owned()),
            "ciphers" => match value.to_ascii_lowercase().as_str() {
                "high" | "medium" | "low" | "export" => {}
                _ => return Err(format!("cipher grade `{value}` is not offered here")),
            },
            "exclude" => self.note(
                "attribute `exclude` is left out: offered are only suites with forward secrecy \
                 and authenticated encryption",
            ),
            "connection_reuse" => {}
            "enable_rpk" if value.eq_ignore_ascii_case("no") => {}
            "enable_rpk" => self.note(
                "attribute `enable_rpk` is left out: raw public keys are not asked for, and a \
                 certificate with the key that is pinned passes",
            ),
            "servername" if value.eq_ignore_ascii_case("hostname") => {}
            "servername" => self.lost(format!(
                "attribute `servername={value}` is left out: SNI is always the mail host's name"
            )),
            "policy_type" | "policy_ttl" | "policy_domain" | "policy_string" | "policy_failure"
            | "mx_host_pattern" => self.note(format!(
                "attribute `{name}` is left out: it tells of an MTA-STS policy that a plug-in \
                 fetched; write level = \"mta-sts\", or \"auto\", to have it fetched here"
            )),
            _ => return Err(format!("attribute `{name}` is not known")),
        }
        Ok(())
    }

    /// Level and names of `match`, a list of names and of the strategies `hostname`, `nexthop` and
    /// `dot-nexthop`.
    fn names(
        &mut self,
        level: Level,
        domain: &str,
        matches: &[String],
    ) -> Result<(Level, Vec<String>), String> {
        if !matches!(level, Level::Secure | Level::Verify) || matches.is_empty() {
            return Ok((level, Vec::new()));
        }
        let words = matches.iter().flat_map(|m| m.split(':')).filter(|word| !word.is_empty());
        let words: Vec<String> = words.map(str::to_ascii_lowercase).collect();
        let has = |strategy: &str| words.iter().any(|word| word == strategy);
        let (hostname, own, below) = (has("hostname"), has("nexthop"), has("dot-nexthop"));
        let fixed = words.iter().filter(|word| !STRATEGIES.contains(&word.as_str()));
        let mut names = Vec::new();
        for word in fixed {
            match certificate_name(word) {
                Ok(name) if names.contains(&name) => {}
                Ok(name) => names.push(name),
                Err(why) => self.lost(format!("a name of `match` is left out: {why}")),
            }
        }
        if hostname && !own && !below && names.is_empty() {
            if level == Level::Secure {
                self.note("`match=hostname` trusts DNS for the name: that is level verify here");
            }
            return Ok((Level::Verify, names));
        }
        if hostname {
            self.lost("`hostname` of `match` is left out: the other names alone count");
        }
        match (own, below, names.is_empty()) {
            (true, true, true) => Ok((Level::Secure, names)),
            (false, false, true) => Err("no name of `match` is left".to_owned()),
            (false, false, false) => Ok((level, names)),
            _ if domain.starts_with('.') => Err(
                "names that follow the recipient's domain stand beside fixed ones or alone here: \
                 write an entry for each domain, with its `match`"
                    .to_owned(),
            ),
            (..) => {
                let follow = [own.then(|| domain.to_owned()), below.then(|| format!(".{domain}"))];
                let follow: Vec<String> = follow.into_iter().flatten().collect();
                names.retain(|name| !follow.contains(name));
                names.splice(0..0, follow);
                Ok((Level::Secure, names))
            }
        }
    }

    fn pins(&mut self, matches: &[String]) -> Result<Vec<String>, String> {
        let mut pins = Vec::new();
        for text in matches.iter().flat_map(|m| m.split('|')).filter(|text| !text.is_empty()) {
            match unprefixed(text.trim()) {
                Ok(pin) if pins.contains(&pin) => {}
                Ok(pin) => pins.push(pin),
                Err(why) => self.lost(format!("a pin is left out: {why}")),
            }
        }
        if pins.is_empty() {
            let why = "no SHA-256 pin is left: ask the partner for one, or take it from \
                       `restante policy probe`";
            return Err(why.to_owned());
        }
        Ok(pins)
    }

    fn min_tls13(&mut self, level: Level, protocols: Option<&str>) -> Result<bool, String> {
        let Some(text) = protocols else { return Ok(false) };
        let (tls12, tls13) = versions(text)?;
        if !tls12 && !tls13 {
            return Err(format!(
                "protocols `{text}` leaves neither TLS 1.2 nor 1.3 (a version left out takes all \
                 above it along); fewer are not spoken here"
            ));
        }
        if !tls13 {
            self.lost(format!("protocols `{text}` forbids TLS 1.3, which can't be forbidden here"));
        }
        if !tls12 && level == Level::Opportunistic {
            self.lost("TLS 1.3 can't be asked at level opportunistic: plaintext would do as well");
            return Ok(false);
        }
        Ok(!tls12)
    }
}

const STRATEGIES: [&str; 3] = ["hostname", "nexthop", "dot-nexthop"];

fn next_hop(key: &str) -> String {
    format!(
        "it is a next hop, and entries go by the recipient's domain: write an entry for each \
         domain that is routed there, with next_hop = \"{key}\""
    )
}

fn level(word: &str) -> Result<Level, String> {
    Ok(match word.to_ascii_lowercase().as_str() {
        "none" => Level::None,
        "may" => Level::Opportunistic,
        "encrypt" => Level::Encrypt,
        "dane" => Level::Dane,
        "dane-only" => Level::DaneOnly,
        "fingerprint" => Level::Fingerprint,
        "verify" => Level::Verify,
        "secure" => Level::Secure,
        _ => return Err(format!("level `{word}` has no counterpart")),
    })
}

const VERSIONS: [(&str, u32); 4] =
    [("tlsv1", 0x301), ("tlsv1.1", 0x302), ("tlsv1.2", 0x303), ("tlsv1.3", 0x304)];

/// Whether TLS 1.2 and TLS 1.3 are allowed by a `protocols` attribute: bounds (`>=TLSv1.2`),
/// exclusions (`!TLSv1.1`), or a list of what is allowed.
fn versions(text: &str) -> Result<(bool, bool), String> {
    let (mut low, mut high) = (0, u32::MAX);
    let (mut without, mut only): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
    for word in text.split(':').map(str::to_ascii_lowercase).filter(|word| !word.is_empty()) {
        if let Some(name) = word.strip_prefix(">=") {
            low = version(name)?;
        } else if let Some(name) = word.strip_prefix("<=") {
            high = version(name)?;
        } else if let Some(name) = word.strip_prefix('!') {
            without.push(version(name)?);
        } else {
            only.push(version(&word)?);
        }
    }
    let allowed = |version: u32| {
        (low..=high).contains(&version)
            && !without.contains(&version)
            && (only.is_empty() || only.contains(&version))
    };
    // OpenSSL speaks one unbroken range: a version left out ends it for all above.
    let range = VERSIONS.iter().map(|(_, version)| *version).skip_while(|v| !allowed(*v));
    let range: Vec<u32> = range.take_while(|v| allowed(*v)).collect();
    Ok((range.contains(&0x303), range.contains(&0x304)))
}

fn version(name: &str) -> Result<u32, String> {
    let named = VERSIONS.iter().find(|(known, _)| *known == name).map(|(_, version)| *version);
    let old = ["sslv2", "sslv3"].contains(&name).then_some(0x300);
    let hex = || u32::from_str_radix(name.trim_start_matches("0x"), 16).ok().filter(|v| *v > 0x2ff);
    named.or(old).or_else(hex).ok_or_else(|| format!("protocol `{name}` is not known"))
}
