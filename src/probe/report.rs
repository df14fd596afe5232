//! What a probe saw, as `policy probe` shows it; the fields are those of `--json`.

use super::{
    look::{Host, Visit},
    suggest::suggest,
};
use crate::{
    mail::Domain,
    policy::{
        Dane, DaneVerdict, Dnssec, Level, MxFacts, MxHost, Policy, StsFacts, TlsFacts, Trouble,
        Wanted,
    },
};
use jiff::Timestamp;
use serde::Serialize;
use std::net::SocketAddr;

/// A domain as it was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The domain.
    pub domain: Domain,
    /// When.
    pub at: Timestamp,
    /// What the look-up of its mail hosts came to.
    pub answer: Answer,
    /// What stands in the way, where no host could be looked at.
    pub error: Option<String>,
    /// What the MX answer is worth.
    pub dnssec: Option<Dnssec>,
    /// The MX set, whole.
    pub mx: Vec<MxHost>,
    /// What the domain says by MTA-STS, in words.
    pub sts: Option<String>,
    /// Its MTA-STS policy, where there is one.
    pub sts_policy: Option<StsFacts>,
    /// Each host that was looked at, in the order of the MX set.
    pub hosts: Vec<HostReport>,
    /// Every level that can deliver directly, in the order of the manual.
    pub levels: Vec<LevelReport>,
    /// The partner entry in force, and whether it would be met.
    pub policy: Option<PolicyVerdict>,
    /// A policy entry to start from.
    pub suggestion: Option<Suggestion>,
}

/// What the look-up of a domain's mail hosts came to (RFC 5321 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Hosts.
    Hosts,
    /// The domain does not exist.
    NoDomain,
    /// It exists, without MX and address.
    NoHost,
    /// It takes no mail (RFC 7505).
    NullMx,
    /// Its hosts lie where none may lie.
    Refused,
    /// Not known now.
    Trouble,
}

/// A mail host as it was seen.
#[derive(Debug, Clone, Serialize)]
pub struct HostReport {
    /// Its name as in the MX record.
    pub name: String,
    /// Preference.
    pub preference: u16,
    /// Why it has no address to look at.
    pub error: Option<String>,
    /// DNS could not say.
    pub dns_trouble: bool,
    /// What it publishes for DANE.
    pub dane: DaneReport,
    /// Whether the domain's MTA-STS policy names it.
    pub sts: Option<bool>,
    /// Each address that was looked at.
    pub addresses: Vec<AddressReport>,
}

/// What a host publishes for DANE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DaneReport {
    /// Which.
    pub state: DaneState,
    /// In words.
    pub text: String,
    /// Usable records, the data cut short.
    pub records: Vec<String>,
}

/// States of DANE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DaneState {
    /// The MX records are not signed, so nobody asks.
    NotAsked,
    /// DNSSEC is not checked here.
    Unchecked,
    /// Proved to have none.
    Absent,
    /// Records, none of them usable.
    Unusable,
    /// Usable records.
    Records,
    /// Not known now.
    Trouble,
}

/// An address of a host as it was seen.
#[derive(Debug, Clone, Serialize)]
pub struct AddressReport {
    /// Address and port.
    pub address: SocketAddr,
    /// Somebody answered.
    pub reachable: bool,
    /// STARTTLS was offered; `null`: nobody was there to ask.
    pub starttls: Option<bool>,
    /// TLS as seen.
    pub tls: Option<TlsFacts>,
    /// What the host's TLSA records say of the certificate shown to who asks by their name.
    pub dane: Option<DaneVerdict>,
    /// What was offered inside TLS.
    pub extensions: Option<Extensions>,
    /// The reply that ended it.
    pub reply: Option<String>,
    /// What went wrong.
    pub error: Option<String>,
}

/// Extensions offered inside TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Extensions {
    /// SIZE limit; `null`: not announced or 0.
    pub size: Option<u64>,
    /// 8BITMIME
    pub eight_bit: bool,
    /// SMTPUTF8
    pub smtputf8: bool,
    /// REQUIRETLS
    pub require_tls: bool,
}

/// A level, and whether every host that answers would meet it.
#[derive(Debug, Clone, Serialize)]
pub struct LevelReport {
    /// Level.
    pub level: Level,
    /// Every host that answers meets it.
    pub passes: bool,
    /// By what, or why not.
    pub why: String,
    /// Hosts that do not meet it.
    pub fails: Vec<Short>,
}

/// Where a level is not met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Short {
    /// Host.
    pub host: String,
    /// Address and port.
    pub address: SocketAddr,
    /// Why.
    pub why: String,
}

/// The partner entry in force.
#[derive(Debug, Clone, Serialize)]
pub struct PolicyVerdict {
    /// File.
    pub file: String,
    /// Line.
    pub line: u32,
    /// Whether it would be met now.
    #[serde(flatten)]
    pub verdict: LevelReport,
}

/// A policy entry to start from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    /// The strongest level that passes.
    pub level: Level,
    /// A `[[partner]]` block, with comments.
    pub toml: String,
}

/// All that was seen.
pub(super) struct Seen<'a> {
    pub(super) domain: &'a Domain,
    pub(super) policy: Option<&'a Policy>,
    pub(super) mx: &'a MxFacts,
    pub(super) sts: Option<&'a StsFacts>,
    pub(super) hosts: &'a [Host],
}

impl Seen<'_> {
    pub(super) fn report(&self, at: Timestamp) -> Report {
        let (answer, error) = answer(self.mx);
        let (mx, dnssec) = match self.mx {
            MxFacts::Hosts(hosts, dnssec) => (hosts.clone(), Some(*dnssec)),
            MxFacts::NoDomain
            | MxFacts::NoHost
            | MxFacts::Null
            | MxFacts::Trouble(_)
            | MxFacts::Refused(_) => (Vec::new(), None),
        };
        let pins = self.pins();
        let direct = Level::ALL.into_iter().filter(|level| *level != Level::Envelope);
        let levels = direct.map(|level| {
            let judged = self.judge(&self.wanted(level, &pins));
            if level != Level::Fingerprint || !judged.passes {
                return judged;
            }
            LevelReport { why: format!("with the keys shown as pins: {}", judged.why), ..judged }
        });
        let levels: Vec<LevelReport> =
            if answer == Answer::Hosts { levels.collect() } else { Vec::new() };
        let policy = self.policy.map(|policy| PolicyVerdict {
            file: policy.at.file.clone(),
            line: policy.at.line,
            verdict: self.judge(&Wanted::of(policy, self.domain)),
        });
        Report {
            domain: self.domain.clone(),
            at,
            answer,
            error,
            dnssec,
            mx,
            sts: self.sts.map(ToString::to_string),
            sts_policy: self.sts.filter(|sts| matches!(sts, StsFacts::Policy(_))).cloned(),
            hosts: self.hosts.iter().map(|host| self.host(host)).collect(),
            suggestion: suggest(self, &levels, &pins, at),
            levels,
            policy,
        }
    }

    /// The public keys that were shown, each once: pins, if somebody trusts this look.
    fn pins(&self) -> Vec<String> {
        let tls = self.hosts.iter().flat_map(|host| &host.visits).filter_map(Visit::tls);
        let mut pins: Vec<String> = tls.map(|tls| tls.key_fingerprint.clone()).collect();
        pins.sort();
        pins.dedup();
        pins
    }

    /// A level as the entry would ask it: with its names, and the pins that were shown.
    fn wanted<'w>(&'w self, level: Level, pins: &'w [String]) -> Wanted<'w> {
        match self.policy {
            Some(policy) => Wanted { level, pins, ..Wanted::of(policy, self.domain) },
            None => Wanted { pins, ..Wanted::level(level, self.domain) },
        }
    }

    /// A level passes where every host that answers meets it, and one answers.
    pub(super) fn judge(&self, wanted: &Wanted<'_>) -> LevelReport {
        let (mut by, mut fails) = (None, Vec::new());
        for host in self.hosts {
            for visit in &host.visits {
                match visit.meets(wanted, &host.facts, self.sts) {
                    Some(Ok(text)) => by = by.or(Some(text)),
                    Some(Err(why)) => fails.push(Short {
                        host: host.facts.name.clone(),
                        address: visit.address,
                        why,
                    }),
                    None => {}
                }
            }
        }
        let why = match (fails.first(), &by) {
            (Some(first), _) => format!("{} [{}]: {}", first.host, first.address, first.why),
            (None, Some(by)) => by.clone(),
            (None, None) => "no mail host could be reached".to_owned(),
        };
        let passes = fails.is_empty() && by.is_some();
        LevelReport { level: wanted.level, passes, why, fails }
    }

    fn host(&self, host: &Host) -> HostReport {
        let facts = &host.facts;
        HostReport {
            name: facts.name.clone(),
            preference: host.preference,
            error: host.trouble.as_ref().map(|(_, text)| text.clone()),
            dns_trouble: matches!(host.trouble, Some((Trouble::Dns, _))),
            dane: dane(&facts.dane),
            sts: match self.sts {
                Some(StsFacts::Policy(policy)) => Some(policy.names(&facts.name)),
                Some(StsFacts::Nothing | StsFacts::Unfetched(_) | StsFacts::Doubt(_)) | None => {
                    None
                }
            },
            addresses: host.visits.iter().map(address).collect(),
        }
    }
}

fn answer(mx: &MxFacts) -> (Answer, Option<String>) {
    let said = |text: &str| Some(text.to_owned());
    match mx {
        MxFacts::Hosts(..) => (Answer::Hosts, None),
        MxFacts::NoDomain => (Answer::NoDomain, said("the domain does not exist")),
        MxFacts::NoHost => (Answer::NoHost, said("it has no mail host and no address")),
        MxFacts::Null => (Answer::NullMx, said("it says that it takes no mail (null MX)")),
        MxFacts::Trouble(why) => (Answer::Trouble, Some(format!("DNS could not say: {why}"))),
        MxFacts::Refused(why) => (Answer::Refused, Some(why.clone())),
    }
}

fn dane(dane: &Dane) -> DaneReport {
    let (state, records) = match dane {
        Dane::NotAsked => (DaneState::NotAsked, Vec::new()),
        Dane::Unchecked => (DaneState::Unchecked, Vec::new()),
        Dane::Absent(_) => (DaneState::Absent, Vec::new()),
        Dane::Unusable(_) => (DaneState::Unusable, Vec::new()),
        Dane::Trouble(_) => (DaneState::Trouble, Vec::new()),
        Dane::Records(set) => {
            (DaneState::Records, set.records.iter().map(ToString::to_string).collect())
        }
    };
    DaneReport { state, text: dane.to_string(), records }
}

fn address(visit: &Visit) -> AddressReport {
    let failed = visit.plain.as_ref().err();
    let dane_failed = visit.dane.as_ref().and_then(|dane| dane.as_ref().err());
    AddressReport {
        address: visit.address,
        reachable: visit.reached(),
        starttls: visit.starttls(),
        tls: visit.tls().cloned(),
        dane: visit.dane_tls().and_then(|tls| tls.dane.clone()),
        extensions: visit.plain.as_ref().ok().map(|peer| Extensions {
            size: peer.size,
            eight_bit: peer.eight_bit,
            smtputf8: peer.smtputf8,
            require_tls: peer.require_tls,
        }),
        reply: failed.and_then(|failed| failed.reply.clone()),
        error: failed.or(dane_failed).map(|failed| failed.detail.clone()),
    }
}
