//! DANE for SMTP (RFC 7672): TLSA records, and what they can say of a host.

use crate::mail::text::cut_to;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};
use std::fmt;

/// Records whose failure is told of; a host may publish more.
const TOLD: usize = 4;
/// Association data kept for the record: a SHA-512, or enough of a certificate to tell it by.
const DATA_TOLD: usize = 64;

/// One TLSA record (RFC 6698 §2.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tlsa {
    /// 3: the certificate itself (DANE-EE); 2: an authority above it (DANE-TA).
    pub usage: u8,
    /// 0: the whole certificate; 1: its public key.
    pub selector: u8,
    /// 0: as it is; 1: its SHA-256; 2: its SHA-512.
    pub matching: u8,
    /// Certificate association data; hex where it is written down.
    #[serde(with = "hex")]
    pub data: Vec<u8>,
}

/// Bytes as a string of hex digits: a JSON array of numbers takes up to twice the room.
mod hex {
    use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(data: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&HEXLOWER.encode(data))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}

impl Tlsa {
    /// True if RFC 7672 §3.1 gives the record a meaning for SMTP: usage 2 or 3, a selector and a
    /// matching type that are known, and data of the right length.
    pub fn usable(&self) -> bool {
        let length = match self.matching {
            0 => !self.data.is_empty(),
            1 => self.data.len() == 32,
            2 => self.data.len() == 64,
            _ => false,
        };
        matches!(self.usage, 2 | 3) && self.selector <= 1 && length
    }

    /// True if the association data is this certificate, or its key, in the form that selector and
    /// matching type name (RFC 6698 §2.1.2, §2.1.3). The usage is not looked at.
    pub fn matches(&self, shown: Shown<'_>) -> bool {
        let selected = match self.selector {
            0 => shown.certificate,
            1 => shown.key,
            _ => return false,
        };
        let data = self.data.as_slice();
        match self.matching {
            0 => data == selected && !data.is_empty(),
            1 => !selected.is_empty() && data == Sha256::digest(selected).as_slice(),
            2 => !selected.is_empty() && data == Sha512::digest(selected).as_slice(),
            _ => false,
        }
    }
}

/// A certificate that a host shows, as DER.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// All of it.
    pub certificate: &'a [u8],
    /// Its `SubjectPublicKeyInfo`; empty where it cannot be read, and then no record of a key is met.
    pub key: &'a [u8],
}

/// `3 1 1 5fe3…`: as in a zone file, the data cut short.
impl fmt::Display for Tlsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.data.get(..8).unwrap_or(&self.data);
        let start = data_encoding::HEXLOWER.encode(start);
        let more = if self.data.len() > 8 { "…" } else { "" };
        write!(f, "{} {} {} {start}{more}", self.usage, self.selector, self.matching)
    }
}

/// Usable TLSA records of a host, from a signed answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TlsaSet {
    /// The name that stands behind `_25._tcp.` (RFC 7672 §2.2.3): SNI, and for usage 2 a name that
    /// the certificate may bear.
    pub base: String,
    /// At least one.
    pub records: Vec<Tlsa>,
}

impl TlsaSet {
    /// Holds a certificate against the records: one that is met is enough (RFC 7672 §3.1), and of
    /// several that are met one of usage 3 is named, because it asks for nothing more. `chain` says
    /// whether the certificate leads to the authority of a usage 2 record, and if not, why.
    pub fn verdict(
        &self,
        leaf: Shown<'_>,
        chain: impl Fn(&Tlsa) -> Result<(), String>,
    ) -> DaneVerdict {
        let usable = || self.records.iter().filter(|record| record.usable());
        // RFC 7672 §3.1.1: the record is the whole proof; no name, date or chain is asked.
        if let Some(record) = usable().find(|r| r.usage == 3 && r.matches(leaf)) {
            return DaneVerdict::Met { record: record.to_string(), usage: 3 };
        }
        let mut failures = Vec::new();
        for record in usable() {
            let failure = match (record.usage, record.selector) {
                (3, 0) => "another certificate is shown".to_owned(),
                (3, _) => "another public key is shown".to_owned(),
                // RFC 7671 §5.2: an authority stands above the certificate.
                _ if record.matches(leaf) => {
                    "it names the host's own certificate, where usage 2 wants an authority above it"
                        .to_owned()
                }
                _ => match chain(record) {
                    Ok(()) => return DaneVerdict::Met { record: record.to_string(), usage: 2 },
                    Err(why) => why,
                },
            };
            failures.push(format!("{record}: {failure}"));
        }
        let more = failures.len().saturating_sub(TOLD);
        failures.truncate(TOLD);
        if more > 0 {
            failures.push(format!("and {more} more"));
        }
        DaneVerdict::Unmet(failures.join("; "))
    }
}

/// What a host publishes for DANE (RFC 7672 §2.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dane {
    /// Not asked: the level has no use for it, or the MX records are not signed.
    NotAsked,
    /// Nobody here can tell: answers of DNS are not checked.
    Unchecked,
    /// Proved to have none, and why: not signed, or no such records.
    Absent(String),
    /// Records, of which none is usable, and why.
    Unusable(String),
    /// Usable records.
    Records(TlsaSet),
    /// Not known now: SERVFAIL, bogus, no answer.
    Trouble(String),
}

impl Dane {
    /// Usable records, if there are some: then they are the proof, and nothing else is.
    pub fn records(&self) -> Option<&TlsaSet> {
        match self {
            Self::Records(set) => Some(set),
            Self::NotAsked
            | Self::Unchecked
            | Self::Absent(_)
            | Self::Unusable(_)
            | Self::Trouble(_) => None,
        }
    }

    /// The same with at most so many records, their data cut to 64 bytes, and texts of at most
    /// `bytes`: for the record. `None` where it was not asked for.
    pub fn bounded(&self, records: usize, bytes: usize) -> Option<Self> {
        let short = |text: &String| cut_to(text, bytes);
        let cut = |record: &Tlsa| {
            let data = record.data.iter().take(DATA_TOLD).copied().collect();
            Tlsa { data, ..record.clone() }
        };
        Some(match self {
            Self::NotAsked => return None,
            Self::Unchecked => Self::Unchecked,
            Self::Absent(why) => Self::Absent(short(why)),
            Self::Unusable(why) => Self::Unusable(short(why)),
            Self::Trouble(why) => Self::Trouble(short(why)),
            Self::Records(set) => {
                let records = set.records.iter().take(records).map(cut).collect();
                Self::Records(TlsaSet { base: short(&set.base), records })
            }
        })
    }
}

/// For the record.
impl fmt::Display for Dane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => f.write_str("not asked"),
            Self::Unchecked => f.write_str("DNSSEC is not checked"),
            Self::Absent(why) => write!(f, "none: {why}"),
            Self::Unusable(why) => write!(f, "none usable: {why}"),
            Self::Trouble(why) => write!(f, "not known: {why}"),
            Self::Records(set) => {
                let records: Vec<_> = set.records.iter().map(ToString::to_string).collect();
                write!(f, "{}: {}", set.base, records.join(", "))
            }
        }
    }
}

/// What TLSA records say of a certificate that was shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DaneVerdict {
    /// This record is met. With usage 2 the certificate's names are still to be judged.
    Met {
        /// The record.
        record: String,
        /// 2 or 3.
        usage: u8,
    },
    /// None is met, and why.
    Unmet(String),
}

#[cfg(test)]
mod tests;
