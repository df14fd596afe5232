//! Problems of policy files, as people who edit files want them.
use crate::{
    mail::Domain,
    policy::{Code, Policy, PolicySet},
};
use serde::Serialize;
use std::fmt;

/// A policy file as read.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Name relative to the policy directory.
    pub name: String,
    /// Its text.
    pub text: String,
}
/// How bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The set is refused.
    Error,
    /// Worth a look.
    Warning,
}
/// One problem: `file:line:column: error: text`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// File.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// Severity.
    pub severity: Severity,
    /// Its kind.
    pub code: Code,
    /// What is wrong and what to write instead.
    pub text: String,
}
impl Problem {
    /// A problem at a place; the code says how bad it is.
    pub fn new(
        file: &str,
        (line, column): (u32, u32),
        code: Code,
        text: impl Into<String>,
    ) -> Self {
        let (file, text) = (file.to_owned(), text.into());
        Self { file, line, column, severity: code.severity(), code, text }
    }
}
impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, severity, code: _, text } = self;
        write!(f, "{file}:{line}:{column}: {severity}: {text}")
    }
}

/// Entries that rest on DNSSEC, for a configuration that says `dnssec = "off"`: nobody could tell a
/// forged answer from a true one, so such a set is refused.
pub fn with_dnssec_off(set: &PolicySet) -> Vec<Problem> {
    let all = set.policies.iter().chain(std::iter::once(&set.default));
    let problem = |policy: &Policy| {
        let text = format!(
            "level `{}` rests on DNSSEC, and the configuration says dnssec = \"off\": write \
             dnssec = \"validate\" there, or level = \"secure\" here",
            policy.level
        );
        Problem::new(&policy.at.file, (policy.at.line, 1), Code::DNSSEC_OFF, text)
    };
    all.filter(|policy| policy.level.asks_dane()).map(problem).collect()
}

/// Entries for our own domains (`organization.domains`), whose mail goes inside whatever they say.
pub fn with_own_domains(set: &PolicySet, own: &[Domain]) -> Vec<Problem> {
    let problem = |domain: &Domain| {
        let policy = set.policies.get(*set.names.get(domain.as_str())?)?;
        if policy.accept.contains(&Code::OWN_DOMAIN) {
            return None;
        }
        let text = format!(
            "`{domain}` is one of our own domains (organization.domains): its mail goes to \
             inside.host at inside.tls, and this entry never applies; leave the name out"
        );
        Some(Problem::new(&policy.at.file, (policy.at.line, 1), Code::OWN_DOMAIN, text))
    };
    own.iter().filter_map(problem).collect()
}
