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
        rr::{
            Name, RData, Record, RecordType,
            domain::usage::{INVALID, LOCALHOST, ONION},
        },
        serialize::binary::BinDecodable,
    },
};
use std::collections::BTreeSet;

/// Names above one that are looked at for a DNAME record.
const MAX_ABOVE: usize = 6;

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
        match self.read(name, kind, lookup.message()).await {
            Some(answer) => answer,
            // The cache keeps a chain's end without the chain.
            None => match self.trail(name).await {
                Trail::Ends(end, way) => self.ask_end(&end, kind).await.reached_over(way),
                Trail::None => self.leads_nowhere(name),
                Trail::Trouble(text) => Answer::Trouble(text),
            },
        }
    }

    /// What the alias itself is worth, wherever it leads. Not an alias: `None`.
    pub(super) async fn alias(&self, name: &Name) -> Result<Option<Dnssec>, String> {
        match self.ask(name, RecordType::CNAME).await {
            Answer::Found(found) => Ok(Some(found.worth)),
            Answer::NoData(_) | Answer::NoName(_) => Ok(None),
            Answer::Trouble(text) => Err(text),
        }
    }

    async fn ask_end(&self, name: &Name, kind: RecordType) -> Answer {
        match self.resolver.lookup(name.clone(), kind).await {
            Ok(lookup) => match self.read(name, kind, lookup.message()).await {
                Some(answer) => answer,
                None => self.leads_nowhere(name),
            },
            Err(error) => self.absent(name, kind, &error).await,
        }
    }

    /// An answer that holds nothing of what was asked for.
    fn leads_nowhere(&self, name: &Name) -> Answer {
        match self.voucher {
            Voucher::Nobody | Voucher::Resolver => Answer::NoData(Dnssec::Unchecked),
            Voucher::Signatures => Answer::Trouble(bogus(name)),
        }
    }

    /// The same as [`Self::follow`]; what is not signed must be proved to be so.
    async fn read(&self, name: &Name, kind: RecordType, message: &Message) -> Option<Answer> {
        let answer = self.follow(name, kind, message)?;
        match self.rightly_unsigned(kind, message).await {
            Ok(()) => Some(answer),
            Err(trouble) => Some(Answer::Trouble(trouble)),
        }
    }

    async fn rightly_unsigned(&self, kind: RecordType, message: &Message) -> Result<(), String> {
        if self.voucher != Voucher::Signatures {
            return Ok(());
        }
        let unsigned = message.answers.iter().filter(|r| {
            r.proof == Proof::Insecure && [kind, RecordType::CNAME].contains(&r.record_type())
        });
        let names: BTreeSet<&Name> = unsigned.map(|r| &r.name).collect();
        if let Some(name) = names.first().filter(|_| names.len() > MAX_ALIASES + 1) {
            return Err(format!("{name}: too many aliases (CNAME)"));
        }
        for name in names {
            self.signing_ends(name).await?;
        }
        Ok(())
    }

    /// Follows the answer's own records from the name to what was asked for. `None`: they do not
    /// lead there.
    fn follow(&self, name: &Name, kind: RecordType, message: &Message) -> Option<Answer> {
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
    pub(super) fn worth(
        &self,
        at: &Name,
        set: &[&Record],
        message: &Message,
    ) -> Result<Dnssec, String> {
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
        let absent = self.absent(name, kind, error).await;
        match (error, &absent) {
            // hickory gives up on a long chain of aliases with an empty answer that has no SOA.
            (
                NetError::Dns(DnsError::NoRecordsFound(none)),
                Answer::NoData(_) | Answer::NoName(_),
            ) if none.soa.is_none() || none.query.name() != name => match self.trail(name).await {
                Trail::Ends(end, way) if end == *none.query.name() => absent.reached_over(way),
                Trail::Ends(end, way) => self.ask_end(&end, kind).await.reached_over(way),
                Trail::None if none.query.name() == name => absent,
                // Aliases led to where nothing is, and now there are none.
                Trail::None => self.leads_nowhere(name),
                Trail::Trouble(text) => Answer::Trouble(text),
            },
            // The proof that an alias's end has no such record is judged as the alias's by hickory,
            // and found wanting: the way is walked step by step.
            (error, Answer::Trouble(_)) if is_bogus(error) && kind != RecordType::CNAME => {
                match self.trail(name).await {
                    Trail::Ends(end, way) => self.ask_end(&end, kind).await.reached_over(way),
                    Trail::None | Trail::Trouble(_) => absent,
                }
            }
            (_, Answer::Found(_) | Answer::NoData(_) | Answer::NoName(_) | Answer::Trouble(_)) => {
                absent
            }
        }
    }

    /// An empty answer counts only if it is one: no referral, no odd code, and with a proof where
    /// one must be.
    async fn absent(&self, name: &Name, kind: RecordType, error: &NetError) -> Answer {
        let (code, worth) = if let NetError::Dns(DnsError::NoRecordsFound(none)) = error {
            (none.response_code, self.judge(name, none).await)
        } else if let NetError::Dns(DnsError::Nsec {
            query, response, proof: Proof::Insecure, ..
        }) = error
            && query.name() == name
        {
            // RFC 9276 §3.2: a denial hashed too often is as good as none, in a zone that does so.
            // hickory has not looked yet whose it is, or whether it denies this.
            let ends = self.signing_ends(name).await;
            if ends.is_ok() && !response.answers.is_empty() {
                return match self.read(name, kind, response).await {
                    Some(answer) => answer.reached_over(Dnssec::Insecure),
                    None => self.leads_nowhere(name),
                };
            }
            (response.metadata.response_code, ends.map(|()| Dnssec::Insecure))
        } else if is_bogus(error) {
            return Answer::Trouble(bogus(name));
        } else {
            return Answer::Trouble(describe(name, error));
        };
        match worth {
            Ok(worth) if code == ResponseCode::NXDomain => Answer::NoName(worth),
            Ok(worth) => Answer::NoData(worth),
            Err(trouble) => Answer::Trouble(trouble),
        }
    }

    async fn judge(&self, name: &Name, none: &NoRecords) -> Result<Dnssec, String> {
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
            // hickory answers for these itself, and nobody else is asked.
            Voucher::Signatures if is_never_asked(name) => Ok(Dnssec::Unchecked),
            Voucher::Signatures => {
                let asked = none.query.name();
                // A zone that is not signed says nothing about names outside it.
                if none.soa.as_ref().is_some_and(|soa| !soa.name.zone_of(asked)) {
                    return Err(bogus(name));
                }
                self.signing_ends(asked).await.map(|()| Dnssec::Insecure)
            }
        }
    }

    /// Asks for alias after alias.
    async fn trail(&self, name: &Name) -> Trail {
        let (mut at, mut way) = (name.clone(), Dnssec::Secure);
        for _ in 0..MAX_ALIASES {
            let lookup = match self.resolver.lookup(at.clone(), RecordType::CNAME).await {
                Ok(lookup) => lookup,
                Err(NetError::Dns(DnsError::NoRecordsFound(_))) => return ended(name, at, way),
                Err(error) => match self.moved(&at, &error).await {
                    Some((next, worth)) => {
                        (at, way) = (next, least(way, worth));
                        continue;
                    }
                    None if is_bogus(&error) => return Trail::Trouble(bogus(&at)),
                    None => return Trail::Trouble(describe(&at, &error)),
                },
            };
            match self.read(&at, RecordType::CNAME, lookup.message()).await {
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

impl Asker {
    /// Where a DNAME record above the name leads it. The alias that a server makes of one has no
    /// signature (RFC 6672 §5.3.1), and hickory takes it for a false one; the DNAME record has its
    /// own.
    async fn moved(&self, name: &Name, error: &NetError) -> Option<(Name, Dnssec)> {
        let false_alias = matches!(
            error,
            NetError::Dns(DnsError::DnssecBogus | DnsError::ResponseCode(ResponseCode::ServFail))
        );
        if self.voucher != Voucher::Signatures || !false_alias {
            return None;
        }
        let mut above = name.base_name();
        for _ in 0..MAX_ABOVE {
            if above.is_root() {
                break;
            }
            if let Ok(lookup) = self.resolver.lookup(above.clone(), RecordType::DNAME).await {
                let answers = lookup.answers().iter();
                let dname = answers
                    .filter(|r| r.name == above && r.proof.is_secure())
                    .find_map(|r| dname(&r.data))?;
                let kept = name.iter().count().checked_sub(above.iter().count())?;
                let kept = Name::from_labels(name.iter().take(kept)).ok()?;
                return Some((kept.append_domain(&dname).ok()?, Dnssec::Secure));
            }
            above = above.base_name();
        }
        None
    }
}

/// The target of a DNAME record, which hickory hands on as bytes.
fn dname(data: &RData) -> Option<Name> {
    let RData::Unknown { code: RecordType::DNAME, rdata } = data else { return None };
    Name::from_bytes(&rdata.anything).ok()
}

fn ended(name: &Name, at: Name, way: Dnssec) -> Trail {
    if *name == at { Trail::None } else { Trail::Ends(at, way) }
}

fn target(data: &RData) -> Option<Name> {
    if let RData::CNAME(target) = data { Some(target.0.clone()) } else { None }
}

/// RFC 6761 §6.3, §6.4, RFC 7686 §2.
fn is_never_asked(name: &Name) -> bool {
    [&*LOCALHOST, &*INVALID, &*ONION].iter().any(|special| special.zone_of(name))
}

/// A signature with fewer labels than its name (RFC 4034 §3.1.3).
fn from_wildcard(at: &Name, message: &Message) -> bool {
    message.answers.iter().filter(|r| r.name == *at).any(|r| {
        let RData::DNSSEC(DNSSECRData::RRSIG(rrsig)) = &r.data else { return false };
        rrsig.input().num_labels < at.num_labels()
    })
}

pub(super) fn is_denial(record: &Record) -> bool {
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

fn is_bogus(error: &NetError) -> bool {
    matches!(error, NetError::Dns(DnsError::DnssecBogus | DnsError::Nsec { .. }))
}

pub(super) fn bogus(name: &Name) -> String {
    format!("{name}: DNSSEC: the answer is bogus, or the chain of signatures could not be fetched")
}

fn describe(name: &Name, error: &impl std::fmt::Display) -> String {
    let mut text = format!("{name}: {error}");
    text.truncate(text.floor_char_boundary(300));
    text
}
