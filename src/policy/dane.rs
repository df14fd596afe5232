//! DANE for SMTP (RFC 7672): TLSA records, and what they can say of a host.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One TLSA record (RFC 6698 §2.1).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tlsa {
    /// 3: the certificate itself (DANE-EE); 2: an authority above it (DANE-TA).
    pub usage: u8,
    /// 0: the whole certificate; 1: its public key.
    pub selector: u8,
    /// 0: as it is; 1: its SHA-256; 2: its SHA-512.
    pub matching: u8,
    /// Certificate association data.
    pub data: Vec<u8>,
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
    /// The same with at most so many records, data and texts of at most so many bytes: for the
    /// record. `None` where it was not asked for.
    pub fn bounded(&self, records: usize, bytes: usize) -> Option<Self> {
        let short = |text: &String| {
            text.get(..text.floor_char_boundary(bytes)).unwrap_or_default().to_owned()
        };
        let cut = |record: &Tlsa| {
            let data = record.data.iter().take(bytes).copied().collect();
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
                Self::Records(TlsaSet { base: set.base.clone(), records })
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
