use super::*;

const CERTIFICATE: &[u8] = b"a certificate";
const KEY: &[u8] = b"its key";
const LEAF: Shown<'_> = Shown { certificate: CERTIFICATE, key: KEY };

fn form(bytes: &[u8], matching: u8) -> Vec<u8> {
    match matching {
        1 => Sha256::digest(bytes).to_vec(),
        2 => Sha512::digest(bytes).to_vec(),
        _ => bytes.to_vec(),
    }
}

fn record(usage: u8, selector: u8, matching: u8, bytes: &[u8]) -> Tlsa {
    Tlsa { usage, selector, matching, data: form(bytes, matching) }
}

fn set(records: Vec<Tlsa>) -> TlsaSet {
    TlsaSet { base: "mx.partner.test".to_owned(), records }
}

/// No chain leads anywhere.
fn none(_: &Tlsa) -> Result<(), String> {
    Err("no such authority is shown".to_owned())
}

#[test]
fn each_selector_with_each_matching_type() {
    for matching in 0..=2 {
        for (selector, right, wrong) in [(0, CERTIFICATE, KEY), (1, KEY, CERTIFICATE)] {
            let tag = format!("{selector} {matching}");
            let good = record(3, selector, matching, right);
            assert!(good.usable(), "{tag}");
            assert!(good.matches(LEAF), "{tag}");
            assert!(!record(3, selector, matching, wrong).matches(LEAF), "{tag}: the other part");
            assert!(!record(3, selector, matching, b"").matches(LEAF), "{tag}: nothing");
            let mut longer = good.clone();
            longer.data.push(0);
            assert!(!longer.matches(LEAF), "{tag}: more than that");
            let mut cut = good;
            cut.data.pop();
            assert!(!cut.matches(LEAF), "{tag}: less than that");
        }
    }
    assert!(!record(3, 2, 1, CERTIFICATE).matches(LEAF), "unknown selector");
    assert!(!record(3, 0, 3, CERTIFICATE).matches(LEAF), "unknown matching type");
    let unread = Shown { certificate: CERTIFICATE, key: b"" };
    for matching in 0..=2 {
        assert!(!record(3, 1, matching, b"").matches(unread), "a key that cannot be read");
    }
}

#[test]
fn one_good_record_is_enough_and_usage_3_is_preferred() {
    let good = record(3, 1, 1, KEY);
    let met = |record: &Tlsa| DaneVerdict::Met { record: record.to_string(), usage: record.usage };
    let other = record(3, 1, 1, b"the next key");
    let above = record(2, 0, 1, b"an authority");
    let yes = |_: &Tlsa| Ok(());
    for (records, why) in [
        (vec![good.clone()], "alone"),
        (vec![other.clone(), good.clone()], "roll-over, the old key last"),
        (vec![good.clone(), other.clone()], "roll-over, the old key first"),
        (vec![record(3, 0, 2, b"x"), above.clone(), good.clone()], "among bad ones"),
    ] {
        assert_eq!(set(records).verdict(LEAF, none), met(&good), "{why}");
    }
    assert_eq!(set(vec![above.clone(), good.clone()]).verdict(LEAF, yes), met(&good));
    assert_eq!(set(vec![other, above.clone()]).verdict(LEAF, yes), met(&above));
}

#[test]
fn what_is_not_met_says_why() {
    let yes = |_: &Tlsa| Ok(());
    let own = "it names the host's own certificate, where usage 2 wants an authority above it";
    for (found, why) in [
        (record(3, 0, 1, b"x"), "another certificate is shown"),
        (record(3, 1, 2, b"x"), "another public key is shown"),
        (record(2, 0, 1, CERTIFICATE), own),
        (record(2, 1, 0, KEY), own),
    ] {
        let expected = DaneVerdict::Unmet(format!("{found}: {why}"));
        assert_eq!(set(vec![found]).verdict(LEAF, yes), expected);
    }
    let away = record(2, 0, 1, b"x");
    let expected = DaneVerdict::Unmet(format!("{away}: no such authority is shown"));
    assert_eq!(set(vec![away]).verdict(LEAF, none), expected);
    // Records without a meaning for SMTP prove nothing (RFC 7672 §3.1.3).
    for usage in [0, 1, 4, 255] {
        let verdict = set(vec![record(usage, 1, 1, KEY)]).verdict(LEAF, yes);
        assert!(matches!(verdict, DaneVerdict::Unmet(_)), "{usage}");
    }
    let many = set((0..200).map(|n| record(3, 1, 1, &[n])).collect());
    let DaneVerdict::Unmet(text) = many.verdict(LEAF, none) else { panic!("met") };
    assert!(text.ends_with("; and 196 more") && text.len() < 500, "{text}");
}

#[test]
fn association_data_is_written_as_hex() {
    let record = Tlsa { usage: 3, selector: 1, matching: 1, data: vec![0x0a; 32] };
    let json = serde_json::to_string(&record).unwrap();
    let hex = "0a".repeat(32);
    assert_eq!(json, format!(r#"{{"usage":3,"selector":1,"matching":1,"data":"{hex}"}}"#));
    assert_eq!(serde_json::from_str::<Tlsa>(&json).unwrap(), record);
    assert_eq!(serde_json::from_str::<Tlsa>(&json.replace("0a", "0A")).unwrap(), record);
    assert!(serde_json::from_str::<Tlsa>(&json.replace("0a", "0x")).is_err());
}

#[test]
fn the_record_is_small_however_much_a_host_publishes() {
    let full = |data: u8| Tlsa { usage: 3, selector: 0, matching: 0, data: vec![data; 5_000] };
    let hash = Tlsa { usage: 3, selector: 1, matching: 2, data: vec![1; 64] };
    let records = std::iter::once(hash.clone()).chain((0..99).map(full)).collect();
    let base = "b".repeat(5_000);
    let Some(Dane::Records(set)) = Dane::Records(TlsaSet { base, records }).bounded(16, 512) else {
        panic!("no records")
    };
    assert_eq!((set.records.len(), set.base.len(), &set.records[0]), (16, 512, &hash));
    assert!(set.records.iter().all(|record| record.data.len() == DATA_TOLD));
    assert!(serde_json::to_vec(&set).unwrap().len() < 5_000);
}
