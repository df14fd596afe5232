//! What sessions are counted as, a reason for each row.

use super::*;
use crate::policy::TlsaSet;

fn now() -> Timestamp {
    "2026-11-25T12:00:00Z".parse().unwrap()
}

fn host(dane: Dane) -> HostFacts {
    HostFacts { name: "mx.a.example".to_owned(), dane }
}

fn records() -> Dane {
    Dane::Records(tlsa_set())
}

fn tlsa_set() -> TlsaSet {
    let record = Tlsa { usage: 3, selector: 1, matching: 1, data: vec![0xab; 32] };
    TlsaSet { base: "mx.a.example".to_owned(), records: vec![record] }
}

fn sts(mode: StsMode) -> StsFacts {
    let mx = vec!["*.a.example".to_owned()];
    StsFacts::Policy(StsPolicy { id: "1".to_owned(), mode, mx, max_age: 86400 })
}

fn tls(chain_error: Option<&str>, not_after: &str, dane: Option<DaneVerdict>) -> TlsFacts {
    TlsFacts {
        version: "TLSv1.2".to_owned(),
        cipher: String::new(),
        group: None,
        chain_error: chain_error.map(str::to_owned),
        names: Vec::new(),
        fingerprint: String::new(),
        key_fingerprint: String::new(),
        not_after: not_after.parse().ok(),
        dane,
    }
}

#[test]
fn the_policy_is_what_the_session_was_held_against() {
    let hex = "ab".repeat(32);
    let lines = ["version: STSv1", "mode: enforce", "mx: *.a.example", "max_age: 86400"];
    for (dane, published, kind, strings, reason) in [
        (
            records(),
            Some(sts(StsMode::Enforce)),
            PolicyType::Tlsa,
            vec![format!("3 1 1 {hex}")],
            "TLSA comes first, and whole",
        ),
        (
            Dane::Unusable("x".into()),
            None,
            PolicyType::Tlsa,
            vec![],
            "unusable records are a policy",
        ),
        (
            Dane::Absent("x".into()),
            Some(sts(StsMode::Enforce)),
            PolicyType::Sts,
            lines.map(str::to_owned).to_vec(),
            "the policy's own lines",
        ),
        (
            Dane::NotAsked,
            Some(sts(StsMode::None)),
            PolicyType::NoPolicyFound,
            vec![],
            "mode none is none",
        ),
        (Dane::NotAsked, Some(StsFacts::Nothing), PolicyType::NoPolicyFound, vec![], "nothing"),
        (Dane::Unchecked, None, PolicyType::NoPolicyFound, vec![], "nobody asked"),
    ] {
        let policy = AppliedPolicy::of(Some(&host(dane)), published.as_ref());
        assert_eq!((policy.kind, policy.strings), (kind, strings), "{reason}");
    }
}

#[test]
fn hosts_passed_over() {
    use ResultType as R;
    for (trouble, dane, published, result, reason) in [
        (Trouble::NoDane, Dane::Unusable("x".into()), None, Some(R::TlsaInvalid), "unusable"),
        (Trouble::NoDane, Dane::Absent("x".into()), None, Some(R::DaneRequired), "asked here"),
        (Trouble::Dns, Dane::Trouble("x".into()), None, Some(R::DnssecInvalid), "SERVFAIL, bogus"),
        (Trouble::Dns, Dane::Unchecked, None, None, "our own resolver checks nothing"),
        (
            Trouble::NoSts,
            Dane::NotAsked,
            Some(sts(StsMode::Enforce)),
            Some(R::ValidationFailure),
            "the policy names other hosts",
        ),
        (Trouble::NoSts, Dane::NotAsked, Some(StsFacts::Nothing), None, "nothing to fail at"),
        (Trouble::NoAddress, Dane::NotAsked, None, None, "no matter of TLS"),
    ] {
        let failure = TlsFailure::of_passed_over(trouble, &host(dane), published.as_ref());
        assert_eq!(failure.map(|f| f.result), result, "{reason}");
    }
}

#[test]
fn connections_that_prove_nothing() {
    use ResultType as R;
    let later = "2027-01-01T00:00:00Z";
    let plain = Requirement::default();
    let tls13 = Requirement { min_tls13: true, ..plain.clone() };
    let no_chain = || tls(Some("unknown issuer"), later, None);
    for (level, asked, tls, result, code, reason) in [
        (Level::Secure, &plain, tls(None, later, None), R::CertificateHostMismatch, None, "name"),
        (Level::Secure, &plain, no_chain(), R::CertificateNotTrusted, None, "no chain"),
        (
            Level::Secure,
            &plain,
            tls(Some("expired"), "2026-11-24T00:00:00Z", None),
            R::CertificateExpired,
            None,
            "out of date",
        ),
        (
            Level::Secure,
            &tls13,
            tls(None, later, None),
            R::ValidationFailure,
            Some("tls-version"),
            "TLS 1.3 is asked",
        ),
        (
            Level::Fingerprint,
            &plain,
            no_chain(),
            R::ValidationFailure,
            Some("not-pinned"),
            "the chain says nothing here",
        ),
    ] {
        let failure = TlsFailure::of_unproven(level, asked, &tls, now());
        assert_eq!(failure, TlsFailure { result, code }, "{reason}");
    }
}

#[test]
fn connections_that_meet_no_tlsa_record_or_bear_no_name_of_one() {
    let asked = Requirement { tlsa: Some(tlsa_set()), ..Requirement::default() };
    let met = DaneVerdict::Met { record: "2 1 1".to_owned(), usage: 2 };
    for (dane, result, code, reason) in [
        (
            DaneVerdict::Unmet("x".into()),
            ResultType::ValidationFailure,
            Some("tlsa-mismatch"),
            "no record is met",
        ),
        (met, ResultType::CertificateHostMismatch, None, "usage 2, another name"),
    ] {
        let tls = tls(Some("x"), "2027-01-01T00:00:00Z", Some(dane));
        let failure = TlsFailure::of_unproven(Level::DaneOnly, &asked, &tls, now());
        assert_eq!(failure, TlsFailure { result, code }, "{reason}");
    }
}

#[test]
fn announced_policies_that_could_not_be_had() {
    for (kind, result) in [
        (StsFaultKind::Fetch, ResultType::StsPolicyFetchError),
        (StsFaultKind::Webpki, ResultType::StsWebpkiInvalid),
        (StsFaultKind::Invalid, ResultType::StsPolicyInvalid),
    ] {
        let fault = StsFault { kind, text: String::new() };
        assert_eq!(TlsFailure::of_sts(&fault).result, result);
    }
}

#[test]
fn connections_that_will_do() {
    let done = StartTls::Done(tls(None, "", None));
    let code = |tls: &StartTls, asked| TlsFailure::of_cleared(tls, asked);
    assert_eq!(code(&done, TlsUse::IfOffered), Ok(()));
    assert_eq!(code(&StartTls::NotTried, TlsUse::Never), Err(None), "level none asks nothing");
    let fell_back = code(&StartTls::NotTried, TlsUse::IfOffered).unwrap_err().unwrap();
    assert_eq!(fell_back.result, ResultType::ValidationFailure);
    let missing = code(&StartTls::NotOffered, TlsUse::IfOffered).unwrap_err().unwrap();
    assert_eq!(missing.result, ResultType::StarttlsNotSupported);
}

fn note(mx: &str, policy: AppliedPolicy, failure: Option<TlsFailure>) -> SessionNote {
    SessionNote {
        domain: "a.example".parse().unwrap(),
        at: now(),
        policy,
        mx: Some(mx.to_owned()),
        address: Some("192.0.2.1".parse().unwrap()),
        failure,
    }
}

#[test]
fn sessions_add_up_by_policy_and_failure_and_counts_merge() {
    let failed = Some(TlsFailure::new(ResultType::CertificateExpired));
    let refused = Some(TlsFailure::because("handshake-failed"));
    let enforced = AppliedPolicy::of(None, Some(&sts(StsMode::Enforce)));
    let mut all = Counts::default();
    let mut halves = [Counts::default(), Counts::default()];
    for (i, (mx, policy, failure)) in [
        ("mx1", AppliedPolicy::NONE, None),
        ("mx1", enforced.clone(), failed),
        ("mx1", enforced.clone(), failed),
        ("mx2", enforced.clone(), failed),
        ("mx2", enforced.clone(), refused),
        ("mx2", enforced, None),
    ]
    .into_iter()
    .enumerate()
    {
        all.add(note(mx, policy.clone(), failure), None);
        halves[i % 2].add(note(mx, policy, failure), None);
    }
    let sums: Vec<_> = all.policies.iter().map(|p| (p.success, p.failure, p.rows.len())).collect();
    assert_eq!(sums, [(1, 0, 0), (1, 4, 3)]);
    let counts: Vec<_> = all.policies[1].rows.iter().map(|row| row.count).collect();
    assert_eq!(counts, [2, 1, 1]);
    let [mut left, right] = halves;
    left.merge(right);
    let sums: Vec<_> = left.policies.iter().map(|p| (p.success, p.failure, p.rows.len())).collect();
    assert_eq!(sums, [(1, 0, 0), (1, 4, 3)], "the same, counted apart");
}

#[test]
fn counts_are_bounded_and_the_largest_fit_a_note() {
    let failed = Some(TlsFailure::because("fell-back-to-plaintext"));
    let mut counts = Counts::default();
    for policy in 0..POLICIES_MAX + 2 {
        let mx = (0..100).map(|i| format!("{policy}-{i}-{}", "x".repeat(300))).collect();
        let policy = StsPolicy { id: "1".to_owned(), mode: StsMode::Testing, mx, max_age: 1 };
        let policy = AppliedPolicy::of(None, Some(&StsFacts::Policy(policy)));
        for host in 0..ROWS_MAX + 5 {
            counts.add(note(&format!("{host}{}", "m".repeat(300)), policy.clone(), failed), None);
        }
    }
    assert_eq!(counts.policies.len(), POLICIES_MAX);
    for policy in &counts.policies {
        assert_eq!(policy.rows.len(), ROWS_MAX);
        assert_eq!(policy.failure, u64::try_from(ROWS_MAX + 5).unwrap(), "none is lost in the sum");
    }
    let bytes = serde_json::to_vec(&counts).unwrap();
    assert!(bytes.len() < crate::store::notes::LARGEST_NOTE, "{}", bytes.len());
    assert_eq!(serde_json::from_slice::<Counts>(&bytes).unwrap(), counts);
}
