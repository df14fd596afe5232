//! One look at a partner held against the last: which warnings begin, go on, end. Pure.

use crate::{
    policy::Level,
    probe::{Answer, HostReport, LevelReport, Report},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A certificate that ends this soon is a warning.
const SOON: SignedDuration = SignedDuration::from_hours(21 * 24);
/// So long a changed MX set is shown.
const CHANGE_SHOWN: SignedDuration = SignedDuration::from_hours(3 * 24);
/// Characters of a warning's text.
const TEXT_MAX: usize = 400;
/// Hosts of an MX set that are kept, in the order of their names.
const KEPT: usize = 100;
/// Hosts that a text names.
const NAMED: usize = 8;

/// What a warning is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A host's certificate ends within 21 days.
    CertificateEnds,
    /// A host no longer offers STARTTLS.
    StarttlsGone,
    /// The MX set is another one.
    MxChanged,
    /// The entry's level would not be met now.
    LevelNotMet,
    /// DNS could not say.
    DnsTrouble,
    /// No host could be reached.
    Unreachable,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::CertificateEnds,
        Self::StarttlsGone,
        Self::MxChanged,
        Self::LevelNotMet,
        Self::DnsTrouble,
        Self::Unreachable,
    ];

    /// Its name in JSON, log and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CertificateEnds => "certificate-ends",
            Self::StarttlsGone => "starttls-gone",
            Self::MxChanged => "mx-changed",
            Self::LevelNotMet => "level-not-met",
            Self::DnsTrouble => "dns-trouble",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A warning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// When it began.
    pub since: Timestamp,
    /// In words.
    pub text: String,
}

/// What is kept of a domain from one look to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Observation {
    /// Names of the MX set, sorted.
    mx: Vec<String>,
    /// The set before it changed, and when, while that is shown.
    changed: Option<(Vec<String>, Timestamp)>,
    /// Hosts of the set that have offered STARTTLS.
    starttls: BTreeSet<String>,
    /// Warnings.
    pub(super) warnings: BTreeMap<Kind, Warning>,
}

/// What is to be kept after this look. What could not be seen stays as it was.
pub(super) fn observe(before: &Observation, report: &Report, now: Timestamp) -> Observation {
    let mut next = Next { before, now, after: before.clone() };
    match report.answer {
        Answer::Trouble => next.say(Kind::DnsTrouble, report.error.clone()),
        Answer::NoDomain | Answer::NoHost | Answer::NullMx | Answer::Refused => {
            next.say(Kind::DnsTrouble, None);
            next.say(Kind::Unreachable, None);
            next.say(Kind::LevelNotMet, report.error.clone());
        }
        Answer::Hosts => next.hosts(report),
    }
    next.after
}

struct Next<'a> {
    before: &'a Observation,
    now: Timestamp,
    after: Observation,
}

impl Next<'_> {
    /// The warning of that kind, or none. One that goes on keeps its beginning.
    fn say(&mut self, kind: Kind, text: Option<String>) {
        let Some(text) = text else {
            self.after.warnings.remove(&kind);
            return;
        };
        let text = text.chars().take(TEXT_MAX).collect();
        let since = self.before.warnings.get(&kind).map_or(self.now, |warning| warning.since);
        self.after.warnings.insert(kind, Warning { since, text });
    }

    fn hosts(&mut self, report: &Report) {
        self.mx_set(report);
        let trouble = report.hosts.iter().find(|host| host.dns_trouble).map(|host| {
            let why = host.error.as_deref().unwrap_or_default();
            format!("the addresses of {} are not known: {why}", host.name)
        });
        let in_doubt = trouble.is_some();
        self.say(Kind::DnsTrouble, trouble);
        let reached = report.hosts.iter().any(|host| host.addresses.iter().any(|a| a.reachable));
        if !reached {
            if !in_doubt {
                let text = "no mail host could be reached".to_owned();
                self.say(Kind::Unreachable, Some(text));
            }
            return;
        }
        self.say(Kind::Unreachable, None);
        let verdict = report.policy.as_ref().map(|policy| &policy.verdict);
        self.certificates(&report.hosts, verdict.map_or(Level::Encrypt, |v| v.level));
        self.starttls(&report.hosts);
        self.say(Kind::LevelNotMet, verdict.filter(|v| !v.passes).map(level_text));
    }

    fn mx_set(&mut self, report: &Report) {
        let mut mx: Vec<String> = report.mx.iter().map(|host| host.name.clone()).collect();
        mx.sort();
        mx.dedup();
        mx.truncate(KEPT);
        let was = &self.before.mx;
        if !was.is_empty() && *was != mx && self.after.changed.is_none() {
            self.after.changed = Some((was.clone(), self.now));
        }
        let over = |(from, at): &(Vec<String>, Timestamp)| {
            *from == mx || self.now.duration_since(*at) >= CHANGE_SHOWN
        };
        if self.after.changed.as_ref().is_some_and(over) {
            self.after.changed = None;
        }
        let text = self.after.changed.as_ref().map(|(from, _)| {
            format!("the mail hosts were {} and are now {}", some(from), some(&mx))
        });
        self.after.starttls.retain(|host| mx.contains(host));
        self.after.mx = mx;
        self.say(Kind::MxChanged, text);
    }

    /// The first certificate to end. One that has ended is news only where dates matter.
    fn certificates(&mut self, hosts: &[HostReport], level: Level) {
        let ends = hosts.iter().flat_map(|host| {
            let tls = host.addresses.iter().filter_map(|a| a.tls.as_ref());
            tls.filter_map(|tls| Some((tls.not_after?, host.name.as_str())))
        });
        let near = |end: Timestamp| {
            let left = end.duration_since(self.now);
            left < SOON && (left.is_positive() || level.checks_chain())
        };
        let first = ends.filter(|(end, _)| near(*end)).min();
        let text = first.map(|(end, host)| {
            let word = if end > self.now { "ends" } else { "ended" };
            format!("the certificate of {host} {word} {}", end.strftime("%F"))
        });
        self.say(Kind::CertificateEnds, text);
    }

    fn starttls(&mut self, hosts: &[HostReport]) {
        let mut gone = Vec::new();
        for host in hosts {
            let offers: Vec<bool> = host.addresses.iter().filter_map(|a| a.starttls).collect();
            let knew = self.before.starttls.contains(&host.name);
            if offers.contains(&false) {
                if knew {
                    gone.push(host.name.clone());
                }
            } else if offers.contains(&true) {
                self.after.starttls.insert(host.name.clone());
            }
        }
        let text = (!gone.is_empty()).then(|| format!("{} no longer offers STARTTLS", some(&gone)));
        self.say(Kind::StarttlsGone, text);
    }
}

fn level_text(verdict: &LevelReport) -> String {
    let more = match verdict.fails.len() {
        0 | 1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    format!("level {} would not be met: {}{more}", verdict.level, verdict.why)
}

fn some(hosts: &[String]) -> String {
    let shown: Vec<&str> = hosts.iter().take(NAMED).map(String::as_str).collect();
    let more = hosts.len().saturating_sub(NAMED);
    let rest = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{rest}", shown.join(", "))
}
