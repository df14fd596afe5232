//! What can be wrong with policy files: a stable name each, for pipelines that count, filter and
//! annotate by it.
use crate::policy::{Severity, toml_source::nearest};
use serde::{Serialize, Serializer};
use std::fmt;

/// A kind of problem. The name is a promise: it does not change when the text does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code {
    name: &'static str,
    severity: Severity,
    meaning: &'static str,
}

impl Code {
    pub(crate) const SYNTAX: Self = Self::error("syntax", "The file is not TOML.");
    pub(crate) const UNREADABLE_FILE: Self =
        Self::error("unreadable-file", "A policy file cannot be read or is not UTF-8 text.");
    pub(crate) const UNKNOWN_KEY: Self =
        Self::error("unknown-key", "No such key or table is known here.");
    pub(crate) const MISSING_KEY: Self = Self::error("missing-key", "A key that must stand here.");
    pub(crate) const WRONG_TYPE: Self =
        Self::error("wrong-type", "A value of another TOML type belongs here.");
    pub(crate) const INVALID_VALUE: Self =
        Self::error("invalid-value", "A value that the key cannot hold.");
    pub(crate) const UNKNOWN_LEVEL: Self = Self::error("unknown-level", "No such level is known.");
    pub(crate) const INVALID_DOMAIN: Self = Self::error(
        "invalid-domain",
        "Not a domain: an address, a wildcard, a next hop as Postfix writes it, or a mistake.",
    );
    pub(crate) const INVALID_FINGERPRINT: Self =
        Self::error("invalid-fingerprint", "Not SHA-256 in hex: another hash, length or spelling.");
    pub(crate) const MISSING_FINGERPRINT: Self =
        Self::error("missing-fingerprint", "Level `fingerprint` without a pin can never be met.");
    pub(crate) const HALF_KEY_PAIR: Self =
        Self::error("half-key-pair", "A client certificate without its key, or the reverse.");
    pub(crate) const MISPLACED_TABLE: Self = Self::error(
        "misplaced-table",
        "`[default]` stands in default.toml only, `[[rule]]` in rules.toml only.",
    );
    pub(crate) const DUPLICATE_DOMAIN: Self =
        Self::error("duplicate-domain", "One name in two entries.");
    pub(crate) const MISSING_LIST: Self =
        Self::error("missing-list", "`never_direct` names a file that is no list of domains.");
    pub(crate) const NO_CONDITION: Self =
        Self::error("no-condition", "A rule that would match every message.");
    pub(crate) const DNSSEC_OFF: Self = Self::error(
        "dnssec-off",
        "A level that rests on DNSSEC, while the configuration switches DNSSEC off.",
    );
    pub(crate) const NO_EFFECT: Self =
        Self::warning("no-effect", "A key that does nothing at the entry's level.");
    pub(crate) const WEAK_LEVEL: Self =
        Self::warning("weak-level", "A level at which the host has not proved who it is.");
    pub(crate) const UNSIGNED_MX: Self =
        Self::warning("unsigned-mx", "Level `verify` takes the MX host's name from unsigned DNS.");
    pub(crate) const NEXT_HOP_NAME: Self = Self::warning(
        "next-hop-name",
        "The next hop is another host than the level asks a proof from.",
    );
    pub(crate) const EXPIRED: Self =
        Self::warning("expired", "The entry's last day is over: it no longer counts.");
    pub(crate) const EXPIRES_SOON: Self =
        Self::warning("expires-soon", "The entry's last day is less than 30 days away.");
    pub(crate) const MISSING_FILE: Self = Self::warning(
        "missing-file",
        "A file that an entry names cannot be read: its level cannot be met.",
    );
    pub(crate) const NOT_PEM: Self = Self::warning(
        "not-pem",
        "A file that an entry names holds no PEM certificate, or no key: its level cannot be met.",
    );
    pub(crate) const PARENT_NOT_COVERED: Self =
        Self::warning("parent-not-covered", "`.x` has an entry, x itself has none.");
    pub(crate) const MISSING_DOT: Self = Self::warning(
        "missing-dot",
        "A subdomain stands beside its domain by name, and the others have no entry.",
    );
    pub(crate) const HOST_AS_DOMAIN: Self = Self::warning(
        "host-as-domain",
        "The name looks like a mail host; entries go by the recipient's domain.",
    );
    pub(crate) const TRAILING_DOT: Self =
        Self::warning("trailing-dot", "A name with a dot at its end, which is folded away.");
    pub(crate) const WHOLE_SUFFIX: Self =
        Self::warning("whole-suffix", "A name under which strangers register theirs.");
    pub(crate) const REDUNDANT_NAME: Self =
        Self::warning("redundant-name", "A wider name says the same.");
    pub(crate) const NEVER_DIRECT: Self = Self::warning(
        "never-direct",
        "Level `auto` for a domain that `never_direct` keeps it from: it never applies.",
    );
    pub(crate) const OWN_DOMAIN: Self = Self::warning(
        "own-domain",
        "An entry for one of our own domains, whose mail goes inside: it never applies.",
    );
    pub(crate) const UNREACHABLE_RULE: Self = Self::warning(
        "unreachable-rule",
        "Another rule decides about every message that this one matches.",
    );
    pub(crate) const MIXED_SCRIPTS: Self = Self::warning(
        "mixed-scripts",
        "A label whose letters come from several scripts, as imitations do.",
    );
    pub(crate) const HOMOGRAPH: Self =
        Self::warning("homograph", "A name that looks like another one.");
    pub(crate) const NEAR_MISS: Self =
        Self::warning("near-miss", "Two names that differ by one letter.");
    pub(crate) const UNUSUAL_VALUE: Self =
        Self::warning("unusual-value", "A value that mail programs do not write.");

    pub(crate) const NOT_SHOWN: Self =
        Self::warning("not-shown", "There are more problems than are said.");

    /// Every code, in the order of the manual.
    pub const ALL: [Self; 38] = [
        Self::SYNTAX,
        Self::UNREADABLE_FILE,
        Self::UNKNOWN_KEY,
        Self::MISSING_KEY,
        Self::WRONG_TYPE,
        Self::INVALID_VALUE,
        Self::UNKNOWN_LEVEL,
        Self::INVALID_DOMAIN,
        Self::INVALID_FINGERPRINT,
        Self::MISSING_FINGERPRINT,
        Self::HALF_KEY_PAIR,
        Self::MISPLACED_TABLE,
        Self::DUPLICATE_DOMAIN,
        Self::MISSING_LIST,
        Self::NO_CONDITION,
        Self::DNSSEC_OFF,
        Self::NO_EFFECT,
        Self::WEAK_LEVEL,
        Self::UNSIGNED_MX,
        Self::NEXT_HOP_NAME,
        Self::EXPIRED,
        Self::EXPIRES_SOON,
        Self::MISSING_FILE,
        Self::NOT_PEM,
        Self::PARENT_NOT_COVERED,
        Self::MISSING_DOT,
        Self::HOST_AS_DOMAIN,
        Self::TRAILING_DOT,
        Self::WHOLE_SUFFIX,
        Self::REDUNDANT_NAME,
        Self::NEVER_DIRECT,
        Self::OWN_DOMAIN,
        Self::UNREACHABLE_RULE,
        Self::MIXED_SCRIPTS,
        Self::HOMOGRAPH,
        Self::NEAR_MISS,
        Self::UNUSUAL_VALUE,
        Self::NOT_SHOWN,
    ];

    const fn error(name: &'static str, meaning: &'static str) -> Self {
        Self { name, severity: Severity::Error, meaning }
    }

    const fn warning(name: &'static str, meaning: &'static str) -> Self {
        Self { name, severity: Severity::Warning, meaning }
    }

    /// Reads a code that an entry's `accept` names; the error says what to write instead.
    pub(crate) fn accepted(text: &str) -> Result<Self, String> {
        let warnings = || Self::ALL.iter().filter(|code| code.severity == Severity::Warning);
        if let Some(code) = warnings().find(|code| code.name == text) {
            return Ok(*code);
        }
        if Self::ALL.iter().any(|code| code.name == text) {
            return Err(format!("`{text}` is an error: only warnings can be accepted"));
        }
        let names: Vec<&str> = warnings().map(|code| code.name).collect();
        Err(match nearest(text, &names) {
            Some(near) => format!("unknown code `{text}`; did you mean `{near}`?"),
            None => format!("unknown code `{text}`: write one that `policy check --json` shows"),
        })
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        self.name
    }

    /// How bad it is, always.
    pub const fn severity(self) -> Severity {
        self.severity
    }

    /// What it means, in a sentence.
    pub const fn meaning(self) -> &'static str {
        self.meaning
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_list_is_whole_and_names_are_kebab_case_and_unique() {
        let declared = include_str!("code.rs").matches("pub(crate) const ").count();
        assert_eq!(Code::ALL.len(), declared - 1, "this line counts too");
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for name in names {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name}");
        }
    }

    #[test]
    fn the_manual_explains_every_code() {
        let manual = include_str!("../manual/policies.md");
        for code in Code::ALL {
            let row = format!("| `{code}` | {} |", code.severity());
            assert!(manual.contains(&row), "the manual has no row {row}");
        }
    }
}
