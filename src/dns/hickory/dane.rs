//! What a host publishes for DANE (RFC 7672 §2.2), by the questions that RFC has asked, in its order.

use super::{
    absolute,
    ask::{Answer, Asker, Found, least},
};
use crate::policy::{Dane, Dnssec, Tlsa, TlsaSet};
use hickory_resolver::proto::rr::{Name, RData, RecordType};

/// TLSA records of a host that are used; a roll-over needs two or four.
const MAX_RECORDS: usize = 32;

impl Asker {
    /// The TLSA records of a host, if the host's own addresses are signed.
    pub(super) async fn tlsa(&self, host: &str, port: u16) -> Dane {
        let Some(name) = absolute(host).filter(|_| super::literal(host).is_none()) else {
            return Dane::Absent("the host is no name, but an address".to_owned());
        };
        let bases = match self.bases(&name).await {
            Ok(bases) => bases,
            Err(dane) => return dane,
        };
        let mut unsigned = false;
        for base in &bases {
            // A name too long to have records below it has none.
            let Some(owner) = owner(base, port) else { continue };
            match self.ask(&owner, RecordType::TLSA).await {
                Answer::Found(Found { records, worth, .. }) => match worth {
                    Dnssec::Secure => return usable(base, &records),
                    Dnssec::Insecure => unsigned = true,
                    Dnssec::Unchecked => return Dane::Unchecked,
                },
                Answer::NoData(Dnssec::Unchecked) | Answer::NoName(Dnssec::Unchecked) => {
                    return Dane::Unchecked;
                }
                Answer::NoData(_) | Answer::NoName(_) => {}
                Answer::Trouble(text) => return Dane::Trouble(text),
            }
        }
        Dane::Absent(if unsigned {
            "the TLSA records lie in a zone that is not signed".to_owned()
        } else {
            "none are published".to_owned()
        })
    }

    /// The names that may stand behind `_25._tcp.`, in order (RFC 7672 §2.2.2, §2.2.3). Where the
    /// host's addresses are not signed there are none, and its TLSA records are not even asked for:
    /// the name servers of unsigned zones may know nothing of TLSA and fail.
    async fn bases(&self, name: &Name) -> Result<Vec<Name>, Dane> {
        let (v4, v6) =
            tokio::join!(self.ask(name, RecordType::A), self.ask(name, RecordType::AAAA));
        let (end, worth) = match (v4, v6) {
            (Answer::Found(v4), Answer::Found(v6)) => (v4.at, least(v4.worth, v6.worth)),
            (Answer::Found(found), _) | (_, Answer::Found(found)) => (found.at, found.worth),
            (Answer::Trouble(text), _) | (_, Answer::Trouble(text)) => {
                return Err(Dane::Trouble(text));
            }
            (Answer::NoData(_) | Answer::NoName(_), Answer::NoData(_) | Answer::NoName(_)) => {
                return Err(Dane::Absent("the host has no address".to_owned()));
            }
        };
        let alias = end != *name;
        match worth {
            Dnssec::Unchecked => Err(Dane::Unchecked),
            Dnssec::Secure if alias => Ok(vec![end, name.clone()]),
            Dnssec::Secure => Ok(vec![end]),
            // The alias is signed, what it leads to is not: the alias's own name may have records.
            Dnssec::Insecure if alias => match self.alias(name).await {
                Ok(Some(Dnssec::Secure)) => Ok(vec![name.clone()]),
                Ok(Some(Dnssec::Insecure) | None) => Err(unsigned()),
                Ok(Some(Dnssec::Unchecked)) => Err(Dane::Unchecked),
                Err(text) => Err(Dane::Trouble(text)),
            },
            Dnssec::Insecure => Err(unsigned()),
        }
    }
}

fn unsigned() -> Dane {
    Dane::Absent("the host's addresses are not signed".to_owned())
}

/// RFC 6698 §3: `_25._tcp.` before the name.
fn owner(base: &Name, port: u16) -> Option<Name> {
    let port = format!("_{port}");
    base.prepend_label(b"_tcp".as_slice()).ok()?.prepend_label(port.as_bytes()).ok()
}

/// RFC 7672 §3.1: the records that say something; none of them: encryption is still owed, and proof
/// can't be had.
fn usable(base: &Name, records: &[RData]) -> Dane {
    let (mut usable, other): (Vec<Tlsa>, Vec<Tlsa>) =
        records.iter().filter_map(record).partition(Tlsa::usable);
    usable.truncate(MAX_RECORDS);
    if usable.is_empty() {
        let other: Vec<String> = other.iter().take(4).map(ToString::to_string).collect();
        return Dane::Unusable(format!("only {}", other.join(", ")));
    }
    let base = base.to_ascii().to_ascii_lowercase();
    Dane::Records(TlsaSet { base: base.trim_end_matches('.').to_owned(), records: usable })
}

fn record(data: &RData) -> Option<Tlsa> {
    let RData::TLSA(tlsa) = data else { return None };
    Some(Tlsa {
        usage: tlsa.cert_usage.into(),
        selector: tlsa.selector.into(),
        matching: tlsa.matching.into(),
        data: tlsa.cert_data.clone(),
    })
}
