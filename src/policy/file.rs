//! Policy files: one whole, immutable set per load.
use crate::{
    mail::{Domain, Pickup},
    policy::{Code, Level, Problem, RuleFacts, RuleVerdict, SourceFile, read, rules::Rule},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// What applies when a level can't be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Otherwise {
    /// Back to the sender.
    Bounce,
    /// Wait until `give_up`.
    Defer,
    /// Sealed for pickup.
    Envelope,
}
/// What applies when a message asks REQUIRETLS (RFC 8689) and no next hop offers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoRequireTls {
    /// Back to the sender, 5.7.30.
    Bounce,
    /// Sealed for pickup.
    Envelope,
}
/// Where a policy was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRef {
    /// File name, relative to the policy directory; `(built-in)` for the default that applies
    /// without a file, `restante.toml` for `inside` and `notification`.
    pub file: String,
    /// Line of the `[[partner]]` or `[default]`, from 1; 0 where no line of a policy file decides.
    pub line: u32,
    /// Level it asks.
    pub level: Level,
    /// Hash of the whole set that was in force, 16 hex digits.
    pub version: String,
}
/// A partner entry, or the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Where it stands.
    pub at: PolicyRef,
    /// Level asked.
    pub level: Level,
    /// Names that the certificate must bear; `.x` is any depth under x.
    pub names: Vec<String>,
    /// `min_tls = "1.3"`.
    pub min_tls13: bool,
    /// Pinned certificates and public keys: their SHA-256, 64 lower-case hex digits.
    pub pins: Vec<String>,
    /// Private trust anchors: a path, absolute or relative to the policy directory.
    pub ca_file: Option<String>,
    /// What we show a host that asks for our certificate.
    pub client: Option<ClientKey>,
    /// Instead of MX: host (or bracketed host) and port.
    pub next_hop: Option<NextHop>,
    /// When the level can't be met.
    pub otherwise: Otherwise,
    /// How long it is retried first. Zero for the default.
    pub otherwise_after: SignedDuration,
    /// When REQUIRETLS is asked and not offered.
    pub no_require_tls: NoRequireTls,
    /// What a reader must prove beyond the mailbox.
    pub pickup: Pickup,
    /// Header line added to directly delivered mail.
    pub mark: Option<String>,
    /// Whom to ask.
    pub contact: Option<String>,
    /// What the admin wants to remember.
    pub note: Option<String>,
    /// Warnings that the admin has answered.
    pub accept: Vec<Code>,
    /// First moment at which the entry no longer counts: the end of its `expires` day, UTC.
    pub ends: Option<Timestamp>,
    /// True for a `[[partner]]` entry, false for the default.
    pub partner: bool,
}
impl Policy {
    /// The default that applies without `default.toml`: always sealed.
    pub(crate) fn built_in(version: &str) -> Self {
        let level = Level::Envelope;
        let file = "(built-in)".to_owned();
        Self::of(PolicyRef { file, line: 0, level, version: version.to_owned() })
    }

    /// A default at a place, with nothing said beyond its level.
    pub(crate) fn of(at: PolicyRef) -> Self {
        Self {
            level: at.level,
            at,
            names: Vec::new(),
            pins: Vec::new(),
            min_tls13: false,
            ca_file: None,
            client: None,
            next_hop: None,
            otherwise: Otherwise::Envelope,
            otherwise_after: SignedDuration::ZERO,
            no_require_tls: NoRequireTls::Bounce,
            pickup: Pickup::Code,
            mark: None,
            contact: None,
            note: None,
            accept: Vec::new(),
            ends: None,
            partner: false,
        }
    }

    pub(super) fn holds(&self, now: Timestamp) -> bool {
        self.ends.is_none_or(|ends| now < ends)
    }
}
/// Our certificate for one partner (mutual TLS): paths, absolute or relative to the policy
/// directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientKey {
    /// PEM chain.
    pub certificate: String,
    /// PEM private key.
    pub key: String,
}
/// A next hop given by configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextHop {
    /// Host name or address literal without brackets.
    pub host: String,
    /// True if MX of `host` are looked up (no brackets).
    pub mx: bool,
    /// Port.
    pub port: Option<u16>,
}
/// All policies of one load. Cheap to share (`Arc`).
#[derive(Debug, Clone)]
pub struct PolicySet {
    pub(super) version: String,
    pub(super) policies: Vec<Policy>,
    /// Domain, or leading dot and domain, to its entry.
    pub(super) names: HashMap<String, usize>,
    pub(super) default: Policy,
    pub(super) rules: Vec<Rule>,
    /// Domains, or leading dot and domain, that level `auto` never delivers to.
    pub(super) never_direct: HashSet<String>,
    /// What entries name beside themselves.
    pub(super) files: Vec<NamedFile>,
}
/// A file that an entry names and its level has a use for.
#[derive(Debug, Clone)]
pub struct NamedFile {
    /// The key that names it.
    pub key: &'static str,
    /// Its path, absolute or relative to the policy directory.
    pub path: String,
    /// Where the key stands: file, line, column.
    pub at: (String, u32, u32),
    /// Warnings about it that the entry answers.
    pub accept: Vec<Code>,
}
impl Default for PolicySet {
    /// No file at all: everything is sealed.
    fn default() -> Self {
        let version = read::version(&[]);
        let default = Policy::built_in(&version);
        Self {
            version,
            policies: Vec::new(),
            names: HashMap::new(),
            default,
            rules: Vec::new(),
            never_direct: HashSet::new(),
            files: Vec::new(),
        }
    }
}
impl PolicySet {
    /// Parses all files: the set and its warnings, or every problem (then the whole set is
    /// refused).
    pub fn parse(
        files: &[SourceFile],
        now: Timestamp,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        read::read(files, now)
    }

    /// Every problem at once, and the set as far as it could be read: for looking at only, as an
    /// entry with an error says less than was meant.
    pub fn survey(files: &[SourceFile], now: Timestamp) -> (Self, Vec<Problem>) {
        read::survey(files, now)
    }

    /// True if the entry of this very name answers warnings of this kind.
    pub(super) fn accepts(&self, name: &str, code: Code) -> bool {
        let policy = self.names.get(name).and_then(|index| self.policies.get(*index));
        policy.is_some_and(|policy| policy.accept.contains(&code))
    }

    /// Hash over all files, 16 hex digits.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The policy for a recipient's domain: exact name, then the longest `.suffix`, then the
    /// default. Entries past `expires` do not count.
    pub fn lookup(&self, domain: &Domain, now: Timestamp) -> &Policy {
        let entry = |key: &str| {
            let policy = self.policies.get(*self.names.get(key)?)?;
            policy.holds(now).then_some(policy)
        };
        keys(domain).find_map(entry).unwrap_or(&self.default)
    }

    /// True if level `auto` must not deliver to this domain (`never_direct`).
    pub fn never_direct(&self, domain: &Domain) -> bool {
        keys(domain).any(|key| self.never_direct.contains(key))
    }

    /// The entry of this very name, a domain or `.suffix`, while it counts.
    pub fn partner(&self, name: &str, now: Timestamp) -> Option<&Policy> {
        self.policies.get(*self.names.get(name)?).filter(|policy| policy.holds(now))
    }

    /// The names under which partners can be looked at: each domain that an entry names; of an
    /// entry that names suffixes alone, the first, where a next hop says what to look at. Entries
    /// that never deliver over TLS are left out.
    pub fn watched(&self, now: Timestamp) -> Vec<&str> {
        let is_suffix = |name: &str| name.starts_with('.');
        let exact: HashSet<usize> =
            self.names.iter().filter(|(name, _)| !is_suffix(name)).map(|(_, at)| *at).collect();
        let mut names: Vec<(&str, usize)> =
            self.names.iter().map(|(name, at)| (name.as_str(), *at)).collect();
        names.sort_unstable();
        let mut once = HashSet::new();
        let mut wanted = |(name, at): &(&str, usize)| {
            let Some(policy) = self.partner(name, now) else { return false };
            let sealed = policy.level == Level::Auto
                && keys_of(name).any(|key| self.never_direct.contains(key));
            let seen = !is_suffix(name)
                || policy.next_hop.is_some() && !exact.contains(at) && once.insert(*at);
            seen && !sealed && !matches!(policy.level, Level::Envelope | Level::None)
        };
        names.retain(|name| wanted(name));
        names.into_iter().map(|(name, _)| name).collect()
    }

    /// Number of partner entries.
    pub fn partners(&self) -> usize {
        self.policies.len()
    }

    /// The message rules in order.
    pub fn judge(&self, facts: &RuleFacts<'_>) -> RuleVerdict {
        crate::policy::rules::judge(&self.rules, facts)
    }

    /// The files that entries name and use: whoever loads the set sees that they can be read.
    pub fn files(&self) -> &[NamedFile] {
        &self.files
    }
}

/// What an entry for this domain may be called, most specific first: the name itself, then each
/// `.suffix`.
fn keys(domain: &Domain) -> impl Iterator<Item = &str> {
    keys_of(domain.as_str())
}

fn keys_of(name: &str) -> impl Iterator<Item = &str> {
    let below = name.match_indices('.').filter_map(|(dot, _)| name.get(dot..));
    std::iter::once(name).chain(below)
}
