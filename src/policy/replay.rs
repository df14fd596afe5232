//! `policy replay`: recorded decisions, made again under another policy set.
//!
//! What is on record is what DNS said and what hosts proved at the time. The judge is the one that
//! deliveries have. Where the record does not hold what the new policy asks about, the answer is
//! "can't be told", never a guess.

use crate::{
    mail::Domain,
    policy::{
        Dane, Dnssec, HostFacts, Level, Otherwise, PeerFacts, Policy, PolicyRef, PolicySet, Reason,
        RuleAction, RuleVerdict, StsFacts,
        forecast::{Wanted, would_pass},
    },
};
use jiff::Timestamp;
use serde::Serialize;
use std::fmt;

/// Where policy sent a recipient's mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// To the partner's host.
    Direct,
    /// Sealed for pickup.
    Envelope,
    /// Still waiting for its level to be met.
    Defer,
    /// Back to the sender.
    Bounce,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Envelope => "envelope",
            Self::Defer => "defer",
            Self::Bounce => "bounce",
        })
    }
}

/// How a recipient stands, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// Waits, or is held.
    Open,
    /// Was delivered.
    Delivered,
    /// Was sealed for pickup.
    Sealed,
    /// Failed.
    Failed,
}

/// Where policy sent the mail, by the reason on record; `None` where something else decided (DNS,
/// a host out of reach or that can't carry the message, an operator, our own trouble).
pub fn place(reason: Reason, stand: Stand) -> Option<Place> {
    match reason {
        Reason::LevelMet | Reason::RulePass | Reason::PeerDeferred | Reason::PeerRefused => {
            Some(Place::Direct)
        }
        Reason::PolicyEnvelope => Some(Place::Envelope),
        Reason::LevelNotMet => Some(match stand {
            Stand::Open => Place::Defer,
            Stand::Sealed => Place::Envelope,
            Stand::Failed => Place::Bounce,
            Stand::Delivered => Place::Direct,
        }),
        Reason::CannotCarry
        | Reason::Notice
        | Reason::Inside
        | Reason::DnsTrouble
        | Reason::NoSuchDomain
        | Reason::NoMailHost
        | Reason::NullMx
        | Reason::RefusedNetwork
        | Reason::Unreachable
        | Reason::GaveUp
        | Reason::Ours => None,
    }
}

/// One connection on record, and what DNS said before it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// What the connection showed.
    pub peer: PeerFacts,
    /// What the MX answer was worth.
    pub dnssec: Dnssec,
    /// What the host published for DANE; `None`: not asked at the time.
    pub dane: Option<Dane>,
    /// What the domain said by MTA-STS; `None`: not asked at the time.
    pub sts: Option<StsFacts>,
}

/// Where the mail would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forecast {
    /// There, and why.
    Goes(Place, String),
    /// The level is not met, and why: there, once `otherwise_after` is over.
    Unmet(Place, String),
    /// The record does not tell, and why.
    Unknown(String),
}

/// The old and the new set.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// In force while the record was made, as far as is known.
    pub old: Option<&'a PolicySet>,
    /// To be tried.
    pub new: &'a PolicySet,
    /// The day that `expires` is held against.
    pub now: Timestamp,
}

impl<'a> Change<'a> {
    /// The entry that would decide.
    pub fn policy(&self, domain: &Domain) -> &'a Policy {
        self.new.lookup(domain, self.now)
    }

    /// True if both sets say the same of a domain: then nothing moves.
    pub fn leaves(&self, domain: &Domain) -> bool {
        self.old.is_some_and(|old| {
            let (before, after) = (old.lookup(domain, self.now), self.policy(domain));
            let listed = old.never_direct(domain) == self.new.never_direct(domain);
            listed && Policy { at: after.at.clone(), ..before.clone() } == *after
        })
    }

    /// Where the mail of a recipient in this domain would go, by what is on record of its hosts.
    pub fn forecast(&self, domain: &Domain, rule: &RuleVerdict, seen: &[Seen]) -> Forecast {
        let policy = self.policy(domain);
        let passes = rule.action == RuleAction::Pass && !policy.partner;
        let level = if passes { Level::Opportunistic } else { policy.level };
        match level {
            Level::Envelope => {
                let text = if policy.partner { "its entry" } else { "the default" };
                Forecast::Goes(Place::Envelope, format!("{text} keeps every message sealed"))
            }
            Level::Auto if self.new.never_direct(domain) => {
                Forecast::Goes(Place::Envelope, "it is on a never_direct list".to_owned())
            }
            Level::None | Level::Opportunistic => {
                Forecast::Goes(Place::Direct, format!("level {level} sends to any host"))
            }
            Level::Auto
            | Level::Dane
            | Level::DaneOnly
            | Level::Encrypt
            | Level::Fingerprint
            | Level::MtaSts
            | Level::Published
            | Level::Secure
            | Level::Verify => self.by_record(domain, policy, seen),
        }
    }

    fn by_record(&self, domain: &Domain, policy: &Policy, seen: &[Seen]) -> Forecast {
        if seen.is_empty() {
            return Forecast::Unknown(format!(
                "no connection to {domain} is on record; `restante policy probe {domain}` tells"
            ));
        }
        if let Some(text) = self.another_way(domain, policy) {
            return Forecast::Unknown(text);
        }
        let mut unmet = None;
        let mut open = None;
        for seen in seen {
            match judge(domain, policy, seen) {
                Ok(Ok(text)) => return Forecast::Goes(Place::Direct, text),
                Ok(Err(text)) => unmet = unmet.or(Some(text)),
                Err(text) => open = open.or(Some(text)),
            }
        }
        if let Some(text) = open {
            return Forecast::Unknown(text);
        }
        let place = match policy.otherwise {
            Otherwise::Envelope => Place::Envelope,
            Otherwise::Defer => Place::Defer,
            Otherwise::Bounce => Place::Bounce,
        };
        Forecast::Unmet(place, unmet.unwrap_or_default())
    }

    /// The record tells of other hosts, or of other anchors, than the new entry names.
    fn another_way(&self, domain: &Domain, policy: &Policy) -> Option<String> {
        let before = self.old?.lookup(domain, self.now);
        let another = if policy.next_hop != before.next_hop {
            "next_hop"
        } else if policy.level.checks_chain() && policy.ca_file != before.ca_file {
            "ca_file"
        } else {
            return None;
        };
        Some(format!("its entry names another {another} than the record tells of"))
    }
}

/// Met or not, by this record; `Err`: it does not tell.
fn judge(domain: &Domain, policy: &Policy, seen: &Seen) -> Result<Result<String, String>, String> {
    let level = policy.level;
    // A host that configuration names needs no signature.
    let named = policy.next_hop.as_ref().is_some_and(|hop| !hop.mx);
    let dnssec = if named { Dnssec::Secure } else { seen.dnssec };
    let dane = match (level.asks_dane(), dnssec, &seen.dane) {
        (false, _, _) | (true, Dnssec::Insecure, _) => Dane::NotAsked,
        (true, Dnssec::Unchecked, _) => return Err("DNSSEC was not checked then".to_owned()),
        (true, Dnssec::Secure, None) => return Err("TLSA records were not asked then".to_owned()),
        (true, Dnssec::Secure, Some(dane)) => dane.clone(),
    };
    if level.asks_sts() && seen.sts.is_none() {
        return Err("the MTA-STS policy was not asked then".to_owned());
    }
    let host = HostFacts { name: seen.peer.host.clone(), dane };
    Ok(would_pass(&Wanted::of(policy, domain), &host, seen.sts.as_ref(), &seen.peer))
}

/// A recipient whose mail would have moved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// From where.
    pub from: Place,
    /// To where.
    pub to: Place,
    /// Why, in words.
    pub why: String,
    /// The policy that would decide.
    pub policy: PolicyRef,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{SourceFile, StartTls, StsMode, StsPolicy, TlsFacts};

    const NOW: &str = "2026-11-22T12:00:00Z";

    fn set(entry: &str) -> PolicySet {
        let text = match entry {
            "" => String::new(),
            _ => format!("[[partner]]\ndomains = [\"a.example\"]\n{entry}\n"),
        };
        let files = [SourceFile { name: "a.toml".into(), text }];
        PolicySet::parse(&files, NOW.parse().unwrap()).unwrap().0
    }

    fn seen(tls: StartTls) -> Seen {
        let (address, host) = ("192.0.2.1:25".parse().unwrap(), "mx.a.example".to_owned());
        let peer = PeerFacts {
            connection: 0,
            host,
            address,
            tls,
            eight_bit: true,
            smtputf8: true,
            require_tls: true,
            size: None,
        };
        Seen { peer, dnssec: Dnssec::Secure, dane: None, sts: None }
    }

    fn tls(names: &[&str], chain_error: Option<&str>) -> Seen {
        seen(StartTls::Done(TlsFacts {
            version: "TLSv1.2".into(),
            cipher: "C".into(),
            group: None,
            chain_error: chain_error.map(str::to_owned),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            fingerprint: "aa".repeat(32),
            key_fingerprint: "bb".repeat(32),
            not_after: None,
            dane: None,
        }))
    }

    fn short(old: Option<&str>, new: &str, rule: RuleAction, seen: &[Seen]) -> String {
        let (old, new) = (old.map(set), set(new));
        let change = Change { old: old.as_ref(), new: &new, now: NOW.parse().unwrap() };
        let domain = "a.example".parse().unwrap();
        if change.leaves(&domain) {
            return "as before".to_owned();
        }
        let rule = RuleVerdict { action: rule, ..RuleVerdict::protected() };
        match change.forecast(&domain, &rule, seen) {
            Forecast::Goes(place, _) | Forecast::Unmet(place, _) => place.to_string(),
            Forecast::Unknown(_) => "unknown".to_owned(),
        }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one table")]
    fn where_mail_on_record_would_go() {
        let good = || vec![tls(&["mx.a.example"], None)];
        let selfsigned = || vec![tls(&["mx.a.example"], Some("self-signed"))];
        let plain = || vec![seen(StartTls::NotOffered)];
        let named = || {
            let policy = StsPolicy {
                id: "1".into(),
                mode: StsMode::Enforce,
                mx: vec!["mx.a.example".into()],
                max_age: 1,
            };
            vec![Seen { sts: Some(StsFacts::Policy(policy)), ..tls(&["mx.a.example"], None) }]
        };
        let absent = || vec![Seen { dane: Some(Dane::Absent("none".into())), ..tls(&[], None) }];
        let unsigned = || vec![Seen { dnssec: Dnssec::Insecure, ..tls(&[], None) }];
        let pin =
            format!("level = \"fingerprint\"\nfingerprints = [\"sha256:{}\"]", "bb".repeat(32));
        for (old, new, seen, expected, reason) in [
            (Some("level = \"secure\""), "level = \"secure\"", good(), "as before", "no change"),
            (
                Some("level = \"secure\""),
                "level = \"secure\"\nnote = \"x\"",
                good(),
                "direct",
                "still met",
            ),
            (None, "", good(), "envelope", "the entry is gone"),
            (None, "level = \"secure\"", good(), "direct", "met"),
            (
                None,
                "level = \"secure\"\nmatch = [\"mx.b.example\"]",
                good(),
                "envelope",
                "another name",
            ),
            (None, "level = \"secure\"\nmin_tls = \"1.3\"", good(), "envelope", "TLS 1.2 then"),
            (None, "level = \"secure\"\notherwise = \"bounce\"", selfsigned(), "bounce", "not met"),
            (None, "level = \"secure\"\notherwise = \"defer\"", selfsigned(), "defer", "not met"),
            (None, "level = \"encrypt\"", selfsigned(), "direct", "any certificate"),
            (None, "level = \"encrypt\"", plain(), "envelope", "no TLS"),
            (None, "level = \"opportunistic\"", plain(), "direct", "any host"),
            (None, "level = \"opportunistic\"", vec![], "direct", "any host, none on record"),
            (None, "level = \"secure\"", vec![], "unknown", "none on record"),
            (None, &pin, selfsigned(), "direct", "the key is pinned"),
            (None, "level = \"mta-sts\"", good(), "unknown", "not asked then"),
            (None, "level = \"mta-sts\"", named(), "direct", "named and trusted"),
            (None, "level = \"dane-only\"", good(), "unknown", "not asked then"),
            (None, "level = \"dane-only\"", absent(), "envelope", "none published then"),
            (None, "level = \"dane-only\"", unsigned(), "envelope", "not signed then"),
            (
                Some(""),
                "level = \"secure\"\nca_file = \"ca.pem\"",
                good(),
                "unknown",
                "other anchors",
            ),
            (
                Some("level = \"verify\"\nca_file = \"ca.pem\""),
                "level = \"secure\"\nca_file = \"ca.pem\"",
                good(),
                "direct",
                "the same anchors",
            ),
            (
                Some(""),
                "level = \"secure\"\nnext_hop = \"[h.example]\"",
                good(),
                "unknown",
                "other hosts",
            ),
        ] {
            let found = short(old, new, RuleAction::Protect, &seen);
            assert_eq!(found, expected, "{old:?} -> {new:?}: {reason}");
        }
    }

    #[test]
    fn a_passing_rule_lifts_the_default_and_no_entry() {
        let plain = [seen(StartTls::NotOffered)];
        assert_eq!(short(None, "", RuleAction::Pass, &plain), "direct");
        assert_eq!(short(None, "level = \"secure\"", RuleAction::Pass, &plain), "envelope");
    }

    #[test]
    fn places_come_from_policy_s_own_reasons_alone() {
        for (reason, stand, expected) in [
            (Reason::LevelMet, Stand::Delivered, Some(Place::Direct)),
            (Reason::PeerRefused, Stand::Failed, Some(Place::Direct)),
            (Reason::PolicyEnvelope, Stand::Sealed, Some(Place::Envelope)),
            (Reason::LevelNotMet, Stand::Sealed, Some(Place::Envelope)),
            (Reason::LevelNotMet, Stand::Open, Some(Place::Defer)),
            (Reason::LevelNotMet, Stand::Failed, Some(Place::Bounce)),
            (Reason::CannotCarry, Stand::Sealed, None),
            (Reason::NoSuchDomain, Stand::Failed, None),
            (Reason::DnsTrouble, Stand::Open, None),
        ] {
            assert_eq!(place(reason, stand), expected, "{reason:?} {stand:?}");
        }
    }
}
