//! Where signing ends on the way from the root down to a name (RFC 4035 §5.2). That something is not
//! signed is believed only of a name below such an end, each zone cut on the way proved: hickory is
//! content with less. It takes the opt-out of any zone above for one right above the name, and an
//! answer whose every authority record is from a zone without signatures for one of that zone.

use super::ask::{Asker, bogus, is_denial};
use crate::policy::Dnssec;
use data_encoding::BASE32_DNSSEC;
use hickory_resolver::{
    net::{DnsError, NetError},
    proto::{
        dnssec::{
            Proof,
            rdata::{DNSSECRData, NSEC3},
        },
        op::Message,
        rr::{Name, RData, Record, RecordType, RecordTypeSet},
    },
};

/// What is at a name, as its parent's zone proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// A zone begins here, and the DS record vouches for its keys.
    Signed,
    /// A zone begins or may begin here without signatures, or with none that can be checked.
    Unsigned,
    /// No zone begins here.
    None,
}

impl Asker {
    /// That signing ends above the name, or at it. `Err`: it does not, or that can't be known.
    pub(super) async fn signing_ends(&self, name: &Name) -> Result<(), String> {
        let mut zone = Name::root();
        // At each name in turn: a step left out would let a zone speak for what another one holds.
        for labels in 1..=name.iter().count() {
            let at = name.trim_to(labels);
            match self.cut(&at, &zone).await {
                Some(Cut::Signed) => zone = at,
                Some(Cut::Unsigned) => return Ok(()),
                Some(Cut::None) => {}
                None => return Err(bogus(&at)),
            }
        }
        Err(bogus(name))
    }

    /// `None`: nothing is proved.
    async fn cut(&self, at: &Name, zone: &Name) -> Option<Cut> {
        let cut = match self.resolver.lookup(at.clone(), RecordType::DS).await {
            Ok(lookup) => self.signed(at, lookup.message()),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) if none.query.name() == at => {
                denied(at, zone, none.authorities.as_deref().unwrap_or_default())
            }
            Err(NetError::Dns(DnsError::Nsec {
                query, response, proof: Proof::Insecure, ..
            })) if query.name() == at => overhashed(zone, &response.authorities),
            Err(_) => None,
        };
        if cut.is_some() {
            return cut;
        }
        // An alias has no DS record and no name below it, and hickory answers for where it leads.
        let lookup = self.resolver.lookup(at.clone(), RecordType::CNAME).await.ok()?;
        self.proved(at, RecordType::CNAME, lookup.message()).map(|_| Cut::None)
    }

    fn signed(&self, at: &Name, message: &Message) -> Option<Cut> {
        let set = self.proved(at, RecordType::DS, message)?;
        let mut supported = set.iter().filter_map(|r| {
            let RData::DNSSEC(DNSSECRData::DS(ds)) = &r.data else { return None };
            Some(ds.algorithm().is_supported() && ds.digest_type().is_supported())
        });
        // RFC 4035 §5.2: a zone whose every algorithm is unknown is as good as not signed.
        Some(if supported.any(|known| known) { Cut::Signed } else { Cut::Unsigned })
    }

    fn proved<'a>(
        &self,
        at: &Name,
        kind: RecordType,
        message: &'a Message,
    ) -> Option<Vec<&'a Record>> {
        let here = |r: &&Record| r.name == *at && r.record_type() == kind;
        let set: Vec<&Record> = message.answers.iter().filter(here).collect();
        let worth = self.worth(at, &set, message).ok()?;
        (!set.is_empty() && worth == Dnssec::Secure).then_some(set)
    }
}

/// What the proof that there is no DS record says. hickory has checked that it is one.
fn denied(at: &Name, zone: &Name, records: &[Record]) -> Option<Cut> {
    let mut cut = None;
    for record in records.iter().filter(|r| is_denial(r)) {
        let RData::DNSSEC(data) = &record.data else { continue };
        if let DNSSECRData::NSEC(nsec) = data {
            if record.name == *at {
                return Some(delegation(nsec.type_set()));
            }
        } else if let DNSSECRData::NSEC3(nsec3) = data {
            // Another zone's: the hashes say nothing about this one.
            if record.name.base_name() != *zone {
                return None;
            }
            match Span::of(&record.name, nsec3)?.place(at)? {
                Place::Owner => return Some(delegation(nsec3.type_set())),
                // RFC 5155 §6: what is between may be zones without signatures.
                Place::Between if nsec3.opt_out() => cut = Some(Cut::Unsigned),
                Place::Between | Place::Outside => {}
            }
        }
        cut = cut.or(Some(Cut::None));
    }
    cut
}

/// RFC 6840 §4.4: without NS there is no delegation, with SOA it is the zone's own record.
fn delegation(types: &RecordTypeSet) -> Cut {
    let has = |kind| types.contains(kind);
    if has(RecordType::NS) && !has(RecordType::SOA) && !has(RecordType::DS) {
        Cut::Unsigned
    } else {
        Cut::None
    }
}

/// RFC 9276 §3.2: a zone that hashes too often is as good as not signed, and no other zone is.
fn overhashed(zone: &Name, records: &[Record]) -> Option<Cut> {
    let mut hashed = records.iter().filter(|r| r.record_type() == RecordType::NSEC3).peekable();
    hashed.peek()?;
    hashed.all(|r| is_denial(r) && r.name.base_name() == *zone).then_some(Cut::Unsigned)
}

/// The hashes that one NSEC3 record speaks of (RFC 5155 §1.3).
struct Span<'a> {
    owner: Vec<u8>,
    record: &'a NSEC3,
}

/// Where a name is to a span.
enum Place {
    Owner,
    Between,
    Outside,
}

impl<'a> Span<'a> {
    fn of(owner: &Name, record: &'a NSEC3) -> Option<Self> {
        let owner = BASE32_DNSSEC.decode(owner.iter().next()?).ok()?;
        Some(Self { owner, record })
    }

    fn place(&self, name: &Name) -> Option<Place> {
        let (salt, iterations) = (self.record.salt(), self.record.iterations());
        let hash =
            self.record.hash_algorithm().hash(salt, &name.to_lowercase(), iterations).ok()?;
        let (owner, hash) = (self.owner.as_slice(), hash.as_ref());
        let next = self.record.next_hashed_owner_name();
        let between = if owner < next {
            owner < hash && hash < next
        } else {
            // The last record of the zone leads back to the first.
            hash > owner || hash < next
        };
        if owner == hash {
            return Some(Place::Owner);
        }
        Some(if between { Place::Between } else { Place::Outside })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::dnssec::{Nsec3HashAlgorithm, rdata::NSEC};

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn proved(owner: Name, data: DNSSECRData) -> Record {
        let mut record = Record::from_rdata(owner, 1, RData::DNSSEC(data));
        record.proof = Proof::Secure;
        record
    }

    fn nsec(owner: &str, types: &[RecordType]) -> Record {
        let data = NSEC::new(name("next.test."), types.iter().copied());
        proved(name(owner), DNSSECRData::NSEC(data))
    }

    fn hash(of: &str) -> Vec<u8> {
        Nsec3HashAlgorithm::SHA1.hash(&[], &name(of), 0).unwrap().as_ref().to_vec()
    }

    fn nsec3(zone: &str, owner: &[u8], next: &[u8], opt_out: bool, types: &[RecordType]) -> Record {
        let kind = Nsec3HashAlgorithm::SHA1;
        let types = types.iter().copied();
        let data = NSEC3::new(kind, opt_out, 0, Vec::new(), next.to_vec(), types);
        let owner = name(zone).prepend_label(BASE32_DNSSEC.encode(owner).as_bytes()).unwrap();
        proved(owner, DNSSECRData::NSEC3(data))
    }

    #[test]
    fn only_a_delegation_without_ds_or_an_opt_out_of_the_zone_itself_ends_signing() {
        use RecordType::{A, DS, NS, SOA};
        let (at, low, high) = (hash("a.test."), [0; 20], [0xff; 20]);
        let mut false_nsec = nsec("a.test.", &[NS]);
        false_nsec.proof = Proof::Bogus;
        let rows = [
            ("nothing is proved", vec![], None),
            ("its signature does not hold", vec![false_nsec], None),
            ("a delegation", vec![nsec("a.test.", &[NS])], Some(Cut::Unsigned)),
            ("a host", vec![nsec("a.test.", &[A])], Some(Cut::None)),
            ("the zone's own", vec![nsec("a.test.", &[NS, SOA])], Some(Cut::None)),
            ("signed", vec![nsec("a.test.", &[NS, DS])], Some(Cut::None)),
            ("another's delegation", vec![nsec("0.test.", &[NS])], Some(Cut::None)),
            ("by hash", vec![nsec3("test.", &at, &high, false, &[NS])], Some(Cut::Unsigned)),
            ("a host by hash", vec![nsec3("test.", &at, &high, true, &[A])], Some(Cut::None)),
            ("opt-out", vec![nsec3("test.", &low, &high, true, &[NS])], Some(Cut::Unsigned)),
            (
                "the last one's opt-out",
                vec![nsec3("test.", &low, &low, true, &[])],
                Some(Cut::Unsigned),
            ),
            ("no opt-out", vec![nsec3("test.", &low, &high, false, &[NS])], Some(Cut::None)),
            ("opt-out elsewhere", vec![nsec3("test.", &low, &[1], true, &[])], Some(Cut::None)),
            ("of the zone above", vec![nsec3(".", &low, &high, true, &[NS])], None),
            ("of a zone beside", vec![nsec3("evil.", &at, &high, true, &[NS])], None),
        ];
        for (why, records, expected) in rows {
            assert_eq!(denied(&name("a.test."), &name("test."), &records), expected, "{why}");
        }
    }

    #[test]
    fn hashing_too_often_speaks_for_its_own_zone_alone() {
        let of = |zone| nsec3(zone, &[0; 20], &[1; 20], false, &[]);
        for (why, records, expected) in [
            ("its own", vec![of("test.")], Some(Cut::Unsigned)),
            ("none", vec![nsec("a.test.", &[])], None),
            ("a zone beside", vec![of("evil.")], None),
            ("the zone above", vec![of(".")], None),
            ("both", vec![of("test."), of("evil.")], None),
        ] {
            assert_eq!(overhashed(&name("test."), &records), expected, "{why}");
        }
    }
}
