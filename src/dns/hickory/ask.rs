//! One question to the name servers, and what its answer is worth: aliases are followed record by
//! record, and an answer is worth as much as the least of its steps.

use super::{MAX_ALIASES, link::Links};
use crate::policy::Dnssec;
use hickory_resolver::{
    Resolver,
    net::{DnsError, NetError, NoRecords},
    proto::{
        dnssec::{Proof, rdata::DNSSECRData},
        op::{Message, ResponseCode},
        rr::{Name, RData, Record, RecordType},
    },
};

/// Who vouches for answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voucher {
    /// Nobody.
    Nobody,
    /// The validating resolver on this host, by its AD bit.
    Resolver,
    /// Signatures, checked here.
    Signatures,
}

/// Asks the name servers.
#[derive(Clone)]
pub(super) struct Asker {
    pub(super) resolver: Resolver<Links>,
    pub(super) voucher: Voucher,
}

/// What one question brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Found(Found),
    /// NOERROR without such a record.
    NoData(Dnssec),
    /// NXDOMAIN.
    NoName(Dnssec),
    Trouble(String),
}

/// Records of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) records: Vec<RData>,
    /// What they are worth, the aliases that led to them included.
    pub(super) worth: Dnssec,
    /// The name that they stand at: another one than asked for, if that is an alias.
    pub(super) at: Name,
}

impl Answer {
    /// Not worth more than the way that led to it.
    fn reached_over(self, way: Dnssec) -> Self {
        match self {
            Self::Found(found) => Self::Found(Found { worth: least(found.worth, way), ..found }),
            Self::NoData(worth) => Self::NoData(least(worth, way)),
            Self::NoName(worth) => Self::NoName(least(worth, way)),
            Self::Trouble(text) => Self::Trouble(text),
        }
    }
}

/// The lesser of two.
pub(super) fn least(a: Dnssec, b: Dnssec) -> Dnssec {
    match (a, b) {
        (Dnssec::Unchecked, _) | (_, Dnssec::Unchecked) => Dnssec::Unchecked,
        (Dnssec::Insecure, _) | (_, Dnssec::Insecure) => Dnssec::Insecure,
        (Dnssec::Secure, Dnssec::Secure) => Dnssec::Secure,
    }
}

/// Where the aliases of a name lead.
enum Trail {
    /// The last name, and what the way is worth.
    Ends(Name, Dnssec),
    /// The name is no alias.
    None,
    Trouble(String),
}

impl Asker {
    /// The records of that name; aliases followed.
    pub(super) async fn ask(&self, name: &Name, kind: RecordType) -> Answer {
        let lookup = match self.resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => lookup,
            Err(error) => return self.without_records(name, kind, &error).await,
        };
        match self.read(name, kind, lookup.message()) {
            Some(answer) => answer,
            // The cache keeps a chain's end without the chain.
            None => match self.trail(name).await {
                Trail::Ends(end, way) => self.ask_end(&end, kind).await.reached_over(way),
                Trail::None => Answer::NoData(Dnssec::Unchecked),
                Trail::Trouble(text) => Answer::Trouble(text),
            },
        }
    }

    /// What the alias itself is worth, wherever it leads. Not an alias: `None`.
    pub(super) async fn alias(&self, name: &Name) -> Option<Dnssec> {
        match self.ask(name, RecordType::CNAME).await {
            Answer::Found(found) => Some(found.worth),
            Answer::NoData(_) | Answer::NoName(_) | Answer::Trouble(_) => None,
        }
    }

    async fn ask_end(&self, name: &Name, kind: RecordType) -> Answer {
        match self.resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => {
                self.read(name, kind, lookup.message()).unwrap_or(Answer::NoData(Dnssec::Unchecked))
            }
            Err(error) => self.absent(name, &error),
        }
    }

    /// Follows the answer's own records from the name to what was asked for. `None`: they do not
    /// lead there.
    fn read(&self, name: &Name, kind: RecordType, message: &Message) -> Option<Answer> {
        let (mut at, mut way) = (name.clone(), Dnssec::Secure);
        for _ in 0..=MAX_ALIASES {
            let here = |r: &&Record, kind| r.name == at && r.record_type() == kind;
            let found: Vec<&Record> = message.answers.iter().filter(|r| here(r, kind)).collect();
            let alias = || message.answers.iter().find(|r| here(r, RecordType::CNAME));
            let step = if found.is_empty() { vec![alias()?] } else { found.clone() };
            match self.worth(&at, &step, message) {
                Ok(worth) => way = least(way, worth),
                Err(trouble) => return Some(Answer::Trouble(trouble)),
            }
            if !found.is_empty() {
                let records = found.iter().map(|r| r.data.clone()).collect();
                return Some(Answer::Found(Found { records, worth: way, at }));
            }
            at = step.first().and_then(|r| target(&r.data))?;
        }
        None
    }

    /// What records of one name and kind are worth.
    fn worth(&self, at: &Name, set: &[&Record], message: &Message) -> Result<Dnssec, String> {
        let mut worth = Dnssec::Secure;
        for record in set {
            worth = least(
                worth,
                match (self.voucher, record.proof) {
                    (Voucher::Nobody, _) | (_, Proof::Indeterminate) => Dnssec::Unchecked,
                    (_, Proof::Secure) => Dnssec::Secure,
                    (_, Proof::Insecure) => Dnssec::Insecure,
                    (_, Proof::Bogus) => return Err(bogus(at)),
                },
            );
        }
        // RFC 4035 §5.3.4: what a wildcard gave needs the proof that nothing closer exists.
        let denial = || message.authorities.iter().any(is_denial);
        if self.voucher == Voucher::Signatures
            && worth == Dnssec::Secure
            && from_wildcard(at, message)
            && !denial()
        {
            return Err(bogus(at));
        }
        Ok(worth)
    }

    async fn without_records(&self, name: &Name, kind: RecordType, error: &NetError) -> Answer {
        let absent = self.absent(name, error);
        match (error, &absent) {
            // hickory gives up on a long chain of aliases with an empty answer that has no SOA.
            (
                NetError::Dns(DnsError::NoRecordsFound(none)),
                Answer::NoData(_) | Answer::NoName(_),
            ) if none.soa.is_none() || none.query.name() != name => match self.trail(name).await {
                Trail::Ends(_, way) => absent.reached_over(way),
                Trail::None => absent,
                Trail::Trouble(text) => Answer::Trouble(text),
            },
            // The proof that an alias's end has no such record is judged as the alias's by hickory,
            // and found wanting: the way is walked step by step.
            (NetError::Dns(DnsError::DnssecBogus | DnsError::Nsec { .. }), Answer::Trouble(_))
                if kind != RecordType::CNAME =>
            {
                match self.trail(name).await {
                    Trail::Ends(end, way) => self.ask_end(&end, kind).await.reached_over(way),
                    Trail::None | Trail::Trouble(_) => absent,
                }
            }
            _ => absent,
        }
    }

    /// An empty answer counts only if it is one: no referral, no odd code, and with a proof where
    /// one must be.
    fn absent(&self, name: &Name, error: &NetError) -> Answer {
        let (code, worth) = match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) => match self.judge(name, none) {
                Ok(worth) => (none.response_code, worth),
                Err(trouble) => return Answer::Trouble(trouble),
            },
            // RFC 9276 §3.2: a denial hashed too often is as good as none.
            NetError::Dns(DnsError::Nsec { response, proof: Proof::Insecure, .. }) => {
                (response.metadata.response_code, Dnssec::Insecure)
            }
            NetError::Dns(DnsError::Nsec { .. } | DnsError::DnssecBogus) => {
                return Answer::Trouble(bogus(name));
            }
            other => return Answer::Trouble(describe(name, other)),
        };
        match code {
            ResponseCode::NXDomain => Answer::NoName(worth),
            _ => Answer::NoData(worth),
        }
    }

    fn judge(&self, name: &Name, none: &NoRecords) -> Result<Dnssec, String> {
        if let Some(trouble) = not_an_answer(name, none) {
            return Err(trouble);
        }
        let records = none.authorities.as_deref().unwrap_or_default();
        let signed = |r: &&Record| r.record_type() != RecordType::RRSIG;
        match self.voucher {
            Voucher::Nobody => Ok(Dnssec::Unchecked),
            Voucher::Resolver => match records.iter().filter(signed).map(|r| r.proof).min() {
                Some(Proof::Secure) => Ok(Dnssec::Secure),
                Some(Proof::Insecure) => Ok(Dnssec::Insecure),
                Some(Proof::Bogus) => Err(bogus(name)),
                Some(Proof::Indeterminate) | None => Ok(Dnssec::Unchecked),
            },
            Voucher::Signatures if records.iter().any(is_denial) => Ok(Dnssec::Secure),
            // A zone that is not signed says nothing about names outside it.
            Voucher::Signatures => match &none.soa {
                Some(soa) if !soa.name.zone_of(none.query.name()) => Err(bogus(name)),
                Some(_) => Ok(Dnssec::Insecure),
                None => Ok(Dnssec::Unchecked),
            },
        }
    }

    /// Asks for alias after alias.
    async fn trail(&self, name: &Name) -> Trail {
        let (mut at, mut way) = (name.clone(), Dnssec::Secure);
        for _ in 0..MAX_ALIASES {
            let lookup = match self.resolver.lookup(at.clone(), RecordType::CNAME).await {
                Ok(lookup) => lookup,
                Err(NetError::Dns(DnsError::NoRecordsFound(_))) => return ended(name, at, way),
                Err(error) => return Trail::Trouble(describe(&at, &error)),
            };
            match self.read(&at, RecordType::CNAME, lookup.message()) {
                Some(Answer::Found(found)) => {
                    way = least(way, found.worth);
                    let Some(next) = found.records.first().and_then(target) else { break };
                    at = next;
                }
                Some(Answer::Trouble(text)) => return Trail::Trouble(text),
                Some(Answer::NoData(_) | Answer::NoName(_)) | None => return ended(name, at, way),
            }
        }
        Trail::Trouble(format!("{name}: aliases (CNAME) lead in a circle"))
    }
}

fn ended(name: &Name, at: Name, way: Dnssec) -> Trail {
    if *name == at { Trail::None } else { Trail::Ends(at, way) }
}

fn target(data: &RData) -> Option<Name> {
    if let RData::CNAME(target) = data { Some(target.0.clone()) } else { None }
}

/// A signature with fewer labels than its name (RFC 4034 §3.1.3).
fn from_wildcard(at: &Name, message: &Message) -> bool {
    message.answers.iter().filter(|r| r.name == *at).any(|r| match &r.data {
        RData::DNSSEC(DNSSECRData::RRSIG(rrsig)) => rrsig.input().num_labels < at.num_labels(),
        _ => false,
    })
}

fn is_denial(record: &Record) -> bool {
    record.proof.is_secure() && matches!(record.record_type(), RecordType::NSEC | RecordType::NSEC3)
}

/// Why an empty answer says nothing about the name.
fn not_an_answer(name: &Name, none: &NoRecords) -> Option<String> {
    // RFC 2308 §2.2: name servers without SOA in an empty answer are a referral, not "no data".
    if none.soa.is_none() && none.ns.is_some() {
        return Some(format!("{name}: the name server refers to others instead of answering"));
    }
    let answered = matches!(none.response_code, ResponseCode::NXDomain | ResponseCode::NoError);
    (!answered).then(|| format!("{name}: {}", none.response_code))
}

fn bogus(name: &Name) -> String {
    format!("{name}: DNSSEC: the answer is bogus, or the chain of signatures could not be fetched")
}

fn describe(name: &Name, error: &NetError) -> String {
    let mut text = match error {
        NetError::Dns(DnsError::DnssecBogus) => bogus(name),
        other => format!("{name}: {other}"),
    };
    text.truncate(text.floor_char_boundary(300));
    text
}
