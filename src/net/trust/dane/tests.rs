//! Every kind of record against real handshakes.

use super::super::tests::{BOTH, OLD, anchors, plain, run, version_1};
use super::*;
use crate::{
    net::{
        testing::{Authority, Leaf, chain_config, self_signed},
        trust::Terms,
    },
    policy::TlsFacts,
};
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyPair, NameConstraints, date_time_ymd,
};
use rustls::SupportedProtocolVersion;
use sha2::{Digest, Sha256, Sha512};
use std::io;

const NAMES: &[&str] = &["mx.partner.test"];

fn record(usage: u8, selector: u8, matching: u8, certificate: &CertificateDer<'_>) -> Tlsa {
    let selected =
        if selector == 0 { certificate.to_vec() } else { public_key(certificate).unwrap() };
    let data = match matching {
        1 => Sha256::digest(&selected).to_vec(),
        2 => Sha512::digest(&selected).to_vec(),
        _ => selected,
    };
    Tlsa { usage, selector, matching, data }
}

/// Root, intermediate, and a leaf under it.
struct House {
    root: Authority,
    middle: Authority,
    leaf: Leaf,
}

impl House {
    fn new() -> Self {
        Self::odd(|_| {})
    }

    fn odd(odd: impl FnOnce(&mut CertificateParams)) -> Self {
        let root = Authority::named("Root");
        let middle = root.below("Middle", |_| {});
        let leaf = middle.issue(NAMES, odd);
        Self { root, middle, leaf }
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.leaf.der.clone(), self.middle.der(), self.root.der()]
    }

    async fn says(&self, chain: Vec<CertificateDer<'static>>, records: &[&Tlsa]) -> DaneVerdict {
        says(chain, &self.leaf.key, records).await
    }
}

async fn shake(
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
    versions: &[&'static SupportedProtocolVersion],
    records: &[&Tlsa],
) -> io::Result<TlsFacts> {
    let set = TlsaSet {
        base: "mx.partner.test".to_owned(),
        records: records.iter().map(|&record| record.clone()).collect(),
    };
    // The common anchors know nobody here: what passes, passes by the records.
    let terms = Terms { tlsa: Some(set), ..plain(&anchors(&Authority::named("Nobody"))) };
    run(terms, chain_config(chain, key, versions).0).await
}

async fn says(
    chain: Vec<CertificateDer<'static>>,
    key: &KeyPair,
    records: &[&Tlsa],
) -> DaneVerdict {
    let facts = shake(chain, key, BOTH, records).await.unwrap();
    assert!(facts.chain_error.is_some());
    facts.dane.unwrap()
}

fn met(record: &Tlsa) -> DaneVerdict {
    DaneVerdict::Met { record: record.to_string(), usage: record.usage }
}

fn why(verdict: DaneVerdict) -> String {
    let DaneVerdict::Unmet(why) = verdict else { panic!("{verdict:?}") };
    why
}

#[tokio::test]
async fn every_usage_selector_and_matching_type_with_the_right_certificate_and_another() {
    let (house, other) = (House::new(), House::new());
    let rows = [
        (3, house.leaf.der.clone(), other.leaf.der.clone()),
        (2, house.middle.der(), other.middle.der()),
        (2, house.root.der(), other.root.der()),
    ];
    for (usage, right, wrong) in rows {
        for (selector, matching) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
            let good = record(usage, selector, matching, &right);
            assert_eq!(house.says(house.chain(), &[&good]).await, met(&good));
            let bad = record(usage, selector, matching, &wrong);
            assert!(!why(house.says(house.chain(), &[&bad]).await).is_empty(), "{bad}");
            // One good among bad ones is enough, in any order.
            assert_eq!(house.says(house.chain(), &[&bad, &good]).await, met(&good));
        }
    }
}

#[tokio::test]
async fn usage_3_asks_for_the_key_and_for_nothing_else() {
    let key = KeyPair::generate().unwrap();
    let ca = |p: &mut CertificateParams| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let client = |p: &mut CertificateParams| {
        p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let rows = [
        ("expired", self_signed(NAMES, |p| p.not_after = date_time_ymd(2026, 1, 2))),
        ("not yet valid", self_signed(NAMES, |p| p.not_before = date_time_ymd(2026, 12, 1))),
        ("another name", self_signed(&["elsewhere.test"], |_| {})),
        ("CA:TRUE", self_signed(NAMES, ca)),
        ("for clients", self_signed(NAMES, client)),
        ("X.509 version 1", Leaf { der: version_1(&key), key }),
    ];
    for (why, leaf) in rows {
        for (selector, matching) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
            let record = record(3, selector, matching, &leaf.der);
            let facts = shake(vec![leaf.der.clone()], &leaf.key, OLD, &[&record]).await;
            assert_eq!(facts.unwrap().dane, Some(met(&record)), "{why}, TLS 1.2");
            let verdict = says(vec![leaf.der.clone()], &leaf.key, &[&record]).await;
            assert_eq!(verdict, met(&record), "{why}");
        }
    }
}

#[tokio::test]
async fn the_right_certificate_with_another_key_never_connects() {
    let house = House::new();
    let other = KeyPair::generate().unwrap();
    let v1 = version_1(&house.leaf.key);
    for versions in [BOTH, OLD] {
        for (chain, record) in [
            (house.chain(), record(3, 1, 1, &house.leaf.der)),
            (house.chain(), record(3, 0, 1, &house.leaf.der)),
            (house.chain(), record(2, 0, 1, &house.root.der())),
            (vec![v1.clone()], record(3, 1, 1, &v1)),
        ] {
            assert!(shake(chain, &other, versions, &[&record]).await.is_err());
        }
    }
}

#[tokio::test]
async fn a_roll_over_passes_with_either_key() {
    let (old, new) = (self_signed(NAMES, |_| {}), self_signed(NAMES, |_| {}));
    let (first, second) = (record(3, 1, 1, &old.der), record(3, 1, 1, &new.der));
    let both = [&first, &second];
    assert_eq!(says(vec![old.der.clone()], &old.key, &both).await, met(&first));
    assert_eq!(says(vec![new.der.clone()], &new.key, &both).await, met(&second));
    let strange = self_signed(NAMES, |_| {});
    let text = why(says(vec![strange.der.clone()], &strange.key, &both).await);
    let expected =
        format!("{first}: another public key is shown; {second}: another public key is shown");
    assert_eq!(text, expected);
}

#[tokio::test]
async fn usage_3_is_named_where_both_are_met() {
    let house = House::new();
    let (above, own) = (record(2, 0, 1, &house.root.der()), record(3, 1, 1, &house.leaf.der));
    assert_eq!(house.says(house.chain(), &[&above, &own]).await, met(&own));
}

#[tokio::test]
async fn an_authority_that_is_not_shown_counts_only_where_the_record_holds_it() {
    let house = House::new();
    let (leaf, middle, root) = (house.leaf.der.clone(), house.middle.der(), house.root.der());
    for (selector, matching) in [(0, 1), (0, 2), (1, 1), (1, 2)] {
        let record = record(2, selector, matching, &root);
        let text = why(house.says(vec![leaf.clone(), middle.clone()], &[&record]).await);
        assert_eq!(text, format!("{record}: no such authority is shown"));
    }
    for selector in [0, 1] {
        let (top, next) = (record(2, selector, 0, &root), record(2, selector, 0, &middle));
        let two = vec![leaf.clone(), middle.clone()];
        assert_eq!(house.says(two.clone(), &[&top]).await, met(&top));
        assert_eq!(house.says(two, &[&next]).await, met(&next));
        assert_eq!(house.says(vec![leaf.clone()], &[&next]).await, met(&next));
        // The root did not sign the leaf, and who did is not shown.
        let text = why(house.says(vec![leaf.clone()], &[&top]).await);
        assert!(
            text.ends_with("the certificate does not lead to that authority")
                || text.ends_with("a signature in the chain is wrong"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_chain_may_come_in_any_order_and_with_strangers_in_it() {
    let (house, other) = (House::new(), House::new());
    let record = record(2, 1, 1, &house.root.der());
    let chain = vec![
        house.leaf.der.clone(),
        other.root.der(),
        house.root.der(),
        other.middle.der(),
        house.middle.der(),
    ];
    assert_eq!(house.says(chain, &[&record]).await, met(&record));
    // A stranger who shows the authority's certificate has not got its signature.
    let chain = vec![other.leaf.der.clone(), house.middle.der(), house.root.der()];
    assert!(!why(says(chain, &other.leaf.key, &[&record]).await).is_empty());
}

#[tokio::test]
async fn usage_2_wants_an_authority_above_the_certificate() {
    let leaf = self_signed(NAMES, |_| {});
    let house = House::new();
    for (selector, matching) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)] {
        for (chain, key) in [
            (vec![leaf.der.clone()], &leaf.key),
            (vec![leaf.der.clone(), leaf.der.clone()], &leaf.key), // shown again, above itself
            (house.chain(), &house.leaf.key),
        ] {
            let record = record(2, selector, matching, &chain[0]);
            let text = why(says(chain, key, &[&record]).await);
            assert!(text.contains("it names the host's own certificate"), "{text}");
        }
    }
}

#[tokio::test]
async fn usage_2_asks_all_of_a_chain() {
    let cases: [(&str, House); 6] = [
        (
            "certificate expired on 2026-01-02",
            House::odd(|p| p.not_after = date_time_ymd(2026, 1, 2)),
        ),
        (
            "certificate is not valid before 2026-12-01",
            House::odd(|p| p.not_before = date_time_ymd(2026, 12, 1)),
        ),
        (
            "the certificate is not meant for servers (extended key usage)",
            House::odd(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
        ),
        ("CA certificate used as a leaf", {
            House::odd(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
        }),
        ("certificate expired on 2026-03-04", {
            let root = Authority::named("Root");
            let middle = root.below("Middle", |p| p.not_after = date_time_ymd(2026, 3, 4));
            let leaf = middle.issue(NAMES, |_| {});
            House { root, middle, leaf }
        }),
        ("the authority's certificate expired on 2026-05-06", {
            let root = Authority::odd("Root", |p| p.not_after = date_time_ymd(2026, 5, 6));
            let middle = root.below("Middle", |_| {});
            let leaf = middle.issue(NAMES, |_| {});
            House { root, middle, leaf }
        }),
    ];
    for (reason, house) in cases {
        for (selector, matching) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let record = record(2, selector, matching, &house.root.der());
            let text = why(house.says(house.chain(), &[&record]).await);
            assert_eq!(text, format!("{record}: {reason}"));
        }
    }
}

#[tokio::test]
async fn usage_2_keeps_to_what_the_authority_may_do() {
    let short = Authority::odd("Root", |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let middle = short.below("Middle", |_| {});
    let long = House { leaf: middle.issue(NAMES, |_| {}), middle, root: short };
    let record_of = |house: &House| record(2, 0, 1, &house.root.der());
    assert!(!why(long.says(long.chain(), &[&record_of(&long)]).await).is_empty(), "path length");
    // The intermediate itself may sign the leaf.
    let next = record(2, 0, 1, &long.middle.der());
    assert_eq!(long.says(long.chain(), &[&next]).await, met(&next));

    let root = Authority::odd("Root", |p| {
        p.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("elsewhere.test".into())],
            excluded_subtrees: vec![GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4]))],
        });
    });
    let middle = root.below("Middle", |_| {});
    let kept = House { leaf: middle.issue(NAMES, |_| {}), middle, root };
    assert!(!why(kept.says(kept.chain(), &[&record_of(&kept)]).await).is_empty(), "names");

    // A certificate that is no authority's signs nobody's.
    let house = House::new();
    let plain = record(2, 0, 1, &House::new().leaf.der);
    let stranger = self_signed(&["other.test"], |_| {});
    let named = record(2, 0, 1, &stranger.der);
    let chain = vec![house.leaf.der.clone(), stranger.der.clone()];
    let text = why(house.says(chain, &[&plain, &named]).await);
    assert!(text.ends_with("the certificate it names is no authority's (CA:FALSE)"), "{text}");
}

#[tokio::test]
async fn records_that_are_no_certificate_or_key_prove_nothing() {
    let house = House::new();
    for (selector, data) in [
        (0, vec![0x30]),
        (0, vec![0; 4000]),
        (1, vec![0x30, 0]),
        (1, b"no key".to_vec()),
        (1, house.root.der().to_vec()), // a certificate where a key belongs
    ] {
        let record = Tlsa { usage: 2, selector, matching: 0, data };
        assert!(!why(house.says(house.chain(), &[&record]).await).is_empty(), "{record}");
    }
    // X.509 version 1 has no chain that webpki would judge.
    let key = KeyPair::generate().unwrap();
    let v1 = version_1(&key);
    let record = record(2, 0, 1, &house.root.der());
    let text = why(says(vec![v1, house.root.der()], &key, &[&record]).await);
    assert!(text.ends_with("the certificate is of an X.509 version before 3"), "{text}");
}
