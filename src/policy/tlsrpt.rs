//! TLS reporting (RFC 8460): what a session said of a domain's transport, and the counts of a day.

use crate::{
    mail::Domain,
    policy::{
        Dane, DaneVerdict, HostFacts, Level, Requirement, StartTls, StsFacts, StsFault,
        StsFaultKind, StsMode, StsPolicy, TlsFacts, TlsUse, Tlsa, Trouble,
    },
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Policies of one domain that one day tells apart; a domain changes its policy now and then.
pub const POLICIES_MAX: usize = 4;
/// Kinds of failure kept of one policy and day. What comes beyond is counted, and not told apart.
pub const ROWS_MAX: usize = 30;
/// Strings of a policy that are kept, and bytes of each.
const STRINGS_MAX: usize = 20;
const STRING_MAX: usize = 256;

/// Which kind of policy of the domain a session was held against (RFC 8460 §4.4, `policy-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyType {
    /// TLSA records (RFC 7672).
    Tlsa,
    /// MTA-STS (RFC 8461).
    Sts,
    /// Neither, or the level in force here did not ask.
    NoPolicyFound,
}

/// What went wrong with TLS (RFC 8460 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResultType {
    /// STARTTLS is not offered, or refused.
    StarttlsNotSupported,
    /// The certificate bears no name that is asked for.
    CertificateHostMismatch,
    /// The certificate is out of date.
    CertificateExpired,
    /// No chain to a trust anchor.
    CertificateNotTrusted,
    /// Anything else; the reason code says what.
    ValidationFailure,
    /// TLSA records of which none is usable.
    TlsaInvalid,
    /// DNS gave no valid answer about TLSA records.
    DnssecInvalid,
    /// TLSA records are demanded here, and there are none.
    DaneRequired,
    /// The MTA-STS policy could not be fetched.
    StsPolicyFetchError,
    /// The MTA-STS policy makes no sense.
    StsPolicyInvalid,
    /// The certificate of the MTA-STS host proves nothing.
    StsWebpkiInvalid,
}

/// The domain's policy that a session was held against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppliedPolicy {
    /// Its kind.
    pub kind: PolicyType,
    /// TLSA records, or the lines of the MTA-STS policy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub strings: Vec<String>,
    /// The MTA-STS policy's patterns of hosts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mx: Vec<String>,
}

impl AppliedPolicy {
    /// Nothing was found.
    pub const NONE: Self =
        Self { kind: PolicyType::NoPolicyFound, strings: Vec::new(), mx: Vec::new() };

    /// What stands above the host's connection: TLSA records come before MTA-STS (RFC 8461 §2).
    pub fn of(host: Option<&HostFacts>, sts: Option<&StsFacts>) -> Self {
        match host.map(|host| &host.dane) {
            Some(Dane::Records(set)) => {
                let strings = set.records.iter().take(STRINGS_MAX).map(tlsa_text).collect();
                Self { kind: PolicyType::Tlsa, strings, mx: Vec::new() }
            }
            Some(Dane::Unusable(_) | Dane::Trouble(_)) => {
                Self { kind: PolicyType::Tlsa, ..Self::NONE }
            }
            Some(Dane::NotAsked | Dane::Unchecked | Dane::Absent(_)) | None => match sts {
                Some(StsFacts::Policy(policy)) if policy.mode != StsMode::None => Self::sts(policy),
                Some(
                    StsFacts::Policy(_)
                    | StsFacts::Nothing
                    | StsFacts::Unfetched(_)
                    | StsFacts::Doubt(_),
                )
                | None => Self::NONE,
            },
        }
    }

    /// The lines of the policy as RFC 8461 §3.2 has them.
    fn sts(policy: &StsPolicy) -> Self {
        let mode = match policy.mode {
            StsMode::Enforce => "enforce",
            StsMode::Testing => "testing",
            StsMode::None => "none",
        };
        let mx: Vec<String> = policy.mx.iter().take(STRINGS_MAX).map(|m| cut(m.clone())).collect();
        let mut strings = vec!["version: STSv1".to_owned(), format!("mode: {mode}")];
        strings.extend(mx.iter().map(|pattern| format!("mx: {pattern}")));
        strings.push(format!("max_age: {}", policy.max_age));
        Self { kind: PolicyType::Sts, strings, mx }
    }
}

/// `3 1 1 5FE3…`, whole but for certificates in full.
fn tlsa_text(record: &Tlsa) -> String {
    let data = data_encoding::HEXLOWER.encode(&record.data);
    cut(format!("{} {} {} {data}", record.usage, record.selector, record.matching))
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(STRING_MAX));
    text
}

/// How the TLS of a session failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsFailure {
    /// Its kind.
    pub result: ResultType,
    /// More, in one word of ours (`failure-reason-code`).
    pub code: Option<&'static str>,
}

impl TlsFailure {
    const fn new(result: ResultType) -> Self {
        Self { result, code: None }
    }

    const fn because(code: &'static str) -> Self {
        Self { result: ResultType::ValidationFailure, code: Some(code) }
    }

    /// Of a host that was passed over before any connection, by what it and the domain publish.
    /// Nothing where that was no matter of TLS.
    pub fn of_passed_over(
        trouble: Trouble,
        host: &HostFacts,
        sts: Option<&StsFacts>,
    ) -> Option<Self> {
        match trouble {
            Trouble::NoDane if matches!(host.dane, Dane::Unusable(_)) => {
                Some(Self::new(ResultType::TlsaInvalid))
            }
            Trouble::NoDane => Some(Self::new(ResultType::DaneRequired)),
            Trouble::Dns if matches!(host.dane, Dane::Trouble(_)) => {
                Some(Self::new(ResultType::DnssecInvalid))
            }
            Trouble::NoSts => {
                let enforced =
                    matches!(sts, Some(StsFacts::Policy(p)) if p.mode == StsMode::Enforce);
                enforced.then_some(Self::because("mx-not-in-policy"))
            }
            Trouble::Dns
            | Trouble::NoAddress
            | Trouble::Unreachable
            | Trouble::NoStartTls
            | Trouble::StartTlsRefused
            | Trouble::Handshake
            | Trouble::Unproven
            | Trouble::TooBig
            | Trouble::EightBit
            | Trouble::Utf8
            | Trouble::NoRequireTls
            | Trouble::Ours => None,
        }
    }

    /// Of an announced MTA-STS policy that could not be had (RFC 8460 §4.3.2.2).
    pub fn of_sts(fault: &StsFault) -> Self {
        Self::new(match fault.kind {
            StsFaultKind::Fetch => ResultType::StsPolicyFetchError,
            StsFaultKind::Webpki => ResultType::StsWebpkiInvalid,
            StsFaultKind::Invalid => ResultType::StsPolicyInvalid,
        })
    }

    /// Of a connection that did not come about. One that failed before TLS is not counted
    /// (RFC 8460 §4.3.1 speaks of negotiation), nor what was missing on our side.
    pub fn of_connecting(trouble: Trouble) -> Option<Self> {
        match trouble {
            Trouble::NoStartTls => Some(Self::new(ResultType::StarttlsNotSupported)),
            Trouble::StartTlsRefused => Some(Self {
                result: ResultType::StarttlsNotSupported,
                code: Some("starttls-refused"),
            }),
            Trouble::Handshake => Some(Self::because("handshake-failed")),
            Trouble::Dns
            | Trouble::NoAddress
            | Trouble::Unreachable
            | Trouble::Unproven
            | Trouble::NoDane
            | Trouble::NoSts
            | Trouble::TooBig
            | Trouble::EightBit
            | Trouble::Utf8
            | Trouble::NoRequireTls
            | Trouble::Ours => None,
        }
    }

    /// Of a connection that stands and is good enough: `Err` where it has no TLS at all, `None`
    /// inside where none was wanted.
    pub fn of_cleared(tls: &StartTls, asked: TlsUse) -> Result<(), Option<Self>> {
        match (tls, asked) {
            (StartTls::Done(_), _) => Ok(()),
            (StartTls::NotOffered, _) => Err(Some(Self::new(ResultType::StarttlsNotSupported))),
            (StartTls::NotTried, TlsUse::Never) => Err(None),
            (StartTls::NotTried, TlsUse::IfOffered | TlsUse::Always) => {
                Err(Some(Self::because("fell-back-to-plaintext")))
            }
        }
    }

    /// Of a connection whose TLS stands and does not prove what the level asks.
    pub fn of_unproven(level: Level, asked: &Requirement, tls: &TlsFacts, now: Timestamp) -> Self {
        if asked.min_tls13 && tls.version != "TLSv1.3" {
            return Self::because("tls-version");
        }
        if asked.tlsa.is_some() {
            // RFC 7672 §3.2.3: with usage 2 a record may be met, and the name still be wrong.
            return match tls.dane {
                Some(DaneVerdict::Met { .. }) => Self::new(ResultType::CertificateHostMismatch),
                Some(DaneVerdict::Unmet(_)) | None => Self::because("tlsa-mismatch"),
            };
        }
        if level == Level::Fingerprint {
            return Self::because("not-pinned");
        }
        Self::new(match &tls.chain_error {
            Some(_) if tls.not_after.is_some_and(|end| end < now) => ResultType::CertificateExpired,
            Some(_) => ResultType::CertificateNotTrusted,
            None => ResultType::CertificateHostMismatch,
        })
    }
}

/// One session, as it is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionNote {
    /// The recipients' domain.
    pub domain: Domain,
    /// When.
    pub at: Timestamp,
    /// The policy that it was held against.
    pub policy: AppliedPolicy,
    /// MX host.
    pub mx: Option<String>,
    /// Its address.
    pub address: Option<IpAddr>,
    /// `None`: TLS was up, and proved what was asked.
    pub failure: Option<TlsFailure>,
}

/// The sessions of one domain on one day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// By policy.
    pub policies: Vec<PolicyCounts>,
}

/// The sessions under one policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyCounts {
    /// The policy.
    pub policy: AppliedPolicy,
    /// Sessions whose TLS was good.
    pub success: u64,
    /// All others.
    pub failure: u64,
    /// What failed, and how often.
    pub rows: Vec<FailureRow>,
}

/// Sessions that failed in one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRow {
    /// In which.
    pub result: ResultType,
    /// Our address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sending: Option<IpAddr>,
    /// MX host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mx: Option<String>,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Reason code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// How many.
    pub count: u64,
}

impl FailureRow {
    fn is_like(&self, other: &Self) -> bool {
        let key = |row: &Self| (row.result, row.sending, row.address);
        key(self) == key(other) && self.mx == other.mx && self.code == other.code
    }
}

impl Counts {
    /// Counts a session; `sending` is our address towards the host.
    pub fn add(&mut self, note: SessionNote, sending: Option<IpAddr>) {
        let row = note.failure.map(|failure| FailureRow {
            result: failure.result,
            sending,
            mx: note.mx.map(cut),
            address: note.address,
            code: failure.code.map(str::to_owned),
            count: 1,
        });
        let failure = u64::from(row.is_some());
        self.absorb(PolicyCounts {
            policy: note.policy,
            success: 1 - failure,
            failure,
            rows: row.into_iter().collect(),
        });
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: Self) {
        other.policies.into_iter().for_each(|counted| self.absorb(counted));
    }

    fn absorb(&mut self, counted: PolicyCounts) {
        let known = self.policies.iter_mut().find(|known| known.policy == counted.policy);
        let Some(known) = known else {
            if self.policies.len() < POLICIES_MAX {
                self.policies.push(counted);
            }
            return;
        };
        known.success = known.success.saturating_add(counted.success);
        known.failure = known.failure.saturating_add(counted.failure);
        for row in counted.rows {
            if let Some(like) = known.rows.iter_mut().find(|like| like.is_like(&row)) {
                like.count = like.count.saturating_add(row.count);
            } else if known.rows.len() < ROWS_MAX {
                known.rows.push(row);
            }
        }
    }
}

#[cfg(test)]
mod tests;
