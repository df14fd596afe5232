//! Rows good and bad, what became of them, and the way back.
use super::*;
use crate::policy::{Level, PolicySet, Problem, Severity, SourceFile};
use jiff::Timestamp;

const PIN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The first digits of the pin.
fn cut(digits: usize) -> String {
    PIN.chars().take(digits).collect()
}

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn parse(toml: &str) -> (PolicySet, Vec<Problem>) {
    let file = SourceFile { name: "p.toml".into(), text: toml.into() };
    PolicySet::parse(&[file], now()).unwrap_or_else(|problems| panic!("{toml}\n{problems:?}"))
}

fn one(row: &str) -> Import {
    let import = import(row);
    let (set, _) = parse(&import.to_toml("tls_policy"));
    assert_eq!(set.names.len(), import.partners.len(), "what is printed is read back");
    import
}

#[test]
fn levels() {
    for (row, level) in [
        ("a.example none", Level::None),
        ("a.example may", Level::Opportunistic),
        ("a.example encrypt", Level::Encrypt),
        ("a.example dane", Level::Dane),
        ("a.example dane-only", Level::DaneOnly),
        (&format!("a.example fingerprint match={PIN}"), Level::Fingerprint),
        ("a.example verify", Level::Verify),
        ("a.example secure", Level::Secure),
        ("A.Example SECURE", Level::Secure),
        ("\"a.example\" secure", Level::Secure),
    ] {
        let import = one(row);
        assert!(import.whole(), "{row}: {:?}", import.remarks);
        let [partner] = &import.partners[..] else { panic!("{row}") };
        assert_eq!((partner.domain.as_str(), partner.level), ("a.example", level), "{row}");
    }
}

#[test]
fn attributes_that_have_a_counterpart() {
    let plain = Partner {
        line: 1,
        domain: "a.example".into(),
        level: Level::Secure,
        names: vec![],
        pins: vec![],
        min_tls13: false,
        ca_file: None,
    };
    let names = |level, names: &[&str]| Partner {
        level,
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        ..plain.clone()
    };
    let tls13 = Partner { min_tls13: true, ..plain.clone() };
    for (row, wanted, reason) in [
        ("secure match=nexthop:dot-nexthop", plain.clone(), "the default of secure"),
        ("secure match=dot-nexthop match=nexthop", plain.clone(), "two attributes"),
        ("secure match=nexthop", names(Level::Secure, &["a.example"]), "the domain alone"),
        ("secure match=dot-nexthop", names(Level::Secure, &[".a.example"]), "below it alone"),
        (
            "secure match=MX.b.example:.b.example,ciphers=high",
            names(Level::Secure, &["mx.b.example", ".b.example"]),
            "fixed names",
        ),
        (
            "secure match=nexthop:b.example",
            names(Level::Secure, &["a.example", "b.example"]),
            "the domain and a fixed name",
        ),
        (
            "secure match=nexthop:dot-nexthop:.a.example:b.example:b.example",
            names(Level::Secure, &["a.example", ".a.example", "b.example"]),
            "each name once",
        ),
        ("secure match=hostname", names(Level::Verify, &[]), "trusts DNS"),
        ("verify match=hostname", names(Level::Verify, &[]), "the default of verify"),
        ("verify match=mx.b.example", names(Level::Verify, &["mx.b.example"]), "a fixed name"),
        ("verify match=nexthop:dot-nexthop", plain.clone(), "as secure"),
        ("secure protocols=>=TLSv1.3", tls13.clone(), "a bound"),
        ("secure protocols=>=0304", tls13.clone(), "a bound in hex"),
        ("secure protocols=TLSv1.3", tls13.clone(), "the only one"),
        ("secure protocols=!SSLv2:!SSLv3:!TLSv1:!TLSv1.1:!TLSv1.2", tls13, "all others excluded"),
        ("secure protocols=!SSLv2:!SSLv3", plain.clone(), "old ones excluded"),
        ("secure protocols=>=TLSv1", plain.clone(), "more than is spoken here"),
        ("secure protocols=", plain.clone(), "all allowed"),
        ("secure protocols=TLSv1.2:TLSv1.3", plain.clone(), "those spoken here"),
        ("secure connection_reuse=yes exclude=aNULL:MD5", plain.clone(), "no matter"),
        ("secure servername=hostname", plain.clone(), "as always"),
        (
            "secure tafile=/etc/postfix/partner\\ca.pem",
            Partner { ca_file: Some("/etc/postfix/partner\\ca.pem".into()), ..plain.clone() },
            "own anchors",
        ),
    ] {
        let import = one(&format!("a.example {row}"));
        assert!(import.whole(), "{row}: {:?}", import.remarks);
        assert_eq!(import.partners, [wanted], "{row}: {reason}");
    }
}

#[test]
fn pins_in_all_their_spellings() {
    let other = PIN.replace('0', "f");
    let colons = ["01:23:45:67:89:AB:CD:EF"; 4];
    for (row, pins) in [
        (format!("fingerprint match={}", colons.join(":")), vec![PIN]),
        (format!("fingerprint match={PIN}|{other}"), vec![PIN, &other]),
        (format!("fingerprint\n  match={PIN}\n  # old\n  match={other}"), vec![PIN, &other]),
        (format!("fingerprint match={PIN}|{PIN}"), vec![PIN]),
    ] {
        let import = one(&format!("a.example {row}"));
        assert!(import.whole());
        assert_eq!(import.partners[0].pins, pins, "{row}");
    }
    let mixed = one(&format!("a.example fingerprint match={PIN}|{}", cut(40)));
    assert_eq!((mixed.whole(), mixed.partners[0].pins.len()), (false, 1));
    assert!(mixed.remarks[0].text.contains("SHA-1"), "{:?}", mixed.remarks);
}

#[test]
fn rows_that_can_not_be_carried_over_are_named() {
    let md5 = format!("a.example fingerprint match={}", cut(32));
    let short = format!("a.example fingerprint match={}", cut(62));
    for (row, says) in [
        ("[mail.a.example]:587 secure match=nexthop", "next_hop = \"[mail.a.example]:587\""),
        ("[mail.a.example] secure", "a next hop"),
        ("[192.0.2.1] encrypt", "a next hop"),
        ("mail.a.example:587 secure", "next_hop = \"mail.a.example:587\""),
        ("mail.a.example:smtp secure", "a next hop"),
        ("user@a.example secure", "is an address"),
        ("* secure", "is no domain"),
        ("a.example half-dane", "no counterpart"),
        ("a.example sceure", "no counterpart"),
        ("a.example fingerprint", "no SHA-256 pin is left"),
        (md5.as_str(), "MD5"),
        (short.as_str(), "62 hex digits"),
        ("a.example secure colour=blue", "`colour` is not known"),
        ("a.example secure blue", "`blue` is no attribute"),
        ("a.example secure match=", "`match` is empty"),
        ("a.example encrypt match=a.example", "may not stand at level `encrypt`"),
        ("a.example dane tafile=x.pem", "may not stand at level `dane`"),
        ("a.example secure ciphers=high ciphers=high", "stands twice"),
        ("a.example encrypt ciphers=null", "`null` is not offered"),
        ("a.example secure protocols=TLSv1", "neither TLS 1.2 nor 1.3"),
        ("a.example secure protocols=<=TLSv1.1", "neither TLS 1.2 nor 1.3"),
        ("a.example secure protocols=!TLSv1.2", "takes all above it along"),
        ("a.example secure protocols=SSLv9", "`sslv9` is not known"),
        (".a.example secure match=nexthop", "an entry for each domain"),
        (".a.example secure match=nexthop:b.example", "an entry for each domain"),
        ("a.example secure match=*.b.example", "no name of `match` is left"),
    ] {
        let import = one(row);
        assert!(!import.whole() && import.partners.is_empty(), "{row}");
        let texts: Vec<_> = import.remarks.iter().map(|r| r.text.as_str()).collect();
        assert!(texts.iter().any(|text| text.contains(says)), "{row}: {texts:?}");
        assert!(import.remarks.iter().all(|r| r.line == 1));
        assert!(import.to_toml("x").contains("# line 1: "), "{row}: said in the file too");
    }
}

#[test]
fn what_is_left_out_of_a_row_never_makes_it_weaker() {
    for (row, names, says) in [
        (
            "secure match=hostname:b.example",
            &["b.example"][..],
            "`hostname` of `match` is left out",
        ),
        ("secure match=b.example:*.c.example", &["b.example"], "a name of `match` is left out"),
        ("secure protocols=<=TLSv1.2", &[], "forbids TLS 1.3"),
        ("secure servername=b.example", &[], "SNI is always"),
        ("secure tafile=one.pem tafile=two.pem", &[], "a second tafile, two.pem"),
        ("may protocols=>=TLSv1.3", &[], "plaintext would do as well"),
    ] {
        let import = one(&format!("a.example {row}"));
        assert!(!import.whole(), "{row}");
        let [partner] = &import.partners[..] else { panic!("{row}: {:?}", import.remarks) };
        assert_eq!(partner.names, names, "{row}");
        assert!(import.remarks[0].text.contains(says), "{row}: {:?}", import.remarks);
    }
}

#[test]
fn the_first_of_two_rows_counts_as_in_postfix() {
    let import = one("a.example secure\nA.EXAMPLE may\n");
    assert_eq!((import.partners.len(), import.partners[0].level), (1, Level::Secure));
    assert_eq!((import.remarks[0].line, import.whole()), (2, false));
    assert!(import.remarks[0].text.contains("line 1 already"));
}

#[test]
fn a_domain_and_its_suffix_become_one_entry() {
    let rows = "a.example secure match=b.example\n.a.example secure match=b.example\n\
                .c.example may\nc.example secure\n[d.example] may\n";
    let import = one(rows);
    let toml = import.to_toml("tls_policy");
    assert!(toml.starts_with("# From tls_policy, by restante"), "{toml}");
    assert!(toml.contains("domains = [\"a.example\", \".a.example\"]\n"), "{toml}");
    let (set, _) = parse(&toml);
    assert_eq!(set.partners(), 3);
    let files = import.files("tls_policy");
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a.example.toml", "c.example.toml"]);
    let file =
        |(name, text): &(String, String)| SourceFile { name: name.clone(), text: text.clone() };
    let files: Vec<_> = files.iter().map(file).collect();
    let (set, _) = PolicySet::parse(&files, now()).unwrap();
    assert_eq!(set.partners(), 3);
}

const EXPRESSIBLE: &str = r#"
[[partner]]
domains = ["a.example", ".a.example"]
level = "secure"
otherwise = "defer"
[[partner]]
domains = ["b.example"]
level = "secure"
match = ["mx.provider.example", ".mail.provider.example"]
min_tls = "1.3"
ca_file = "/etc/partner-ca.pem"
[[partner]]
domains = ["c.example"]
level = "verify"
[[partner]]
domains = ["d.example"]
level = "verify"
match = ["mx.d.example"]
[[partner]]
domains = ["e.example"]
level = "fingerprint"
fingerprints = ["sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "sha256:f123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]
[[partner]]
domains = ["f.example"]
level = "dane-only"
[[partner]]
domains = ["g.example"]
level = "encrypt"
[[partner]]
domains = ["h.example"]
level = "opportunistic"
[[partner]]
domains = ["i.example"]
level = "none"
[[partner]]
domains = ["xn--bcher-kva.example"]
level = "secure"
"#;

#[test]
fn what_postfix_can_say_comes_back_as_it_went() {
    let (set, _) = parse(EXPRESSIBLE);
    let table = export(&set, now(), str::to_owned);
    assert_eq!(table.remarks, [""; 0], "{}", table.text);
    let import = import(&table.text);
    assert_eq!(import.remarks, [], "{}", table.text);
    let (back, _) = parse(&import.to_toml("x"));
    assert_eq!(back.names.len(), set.names.len());
    for (name, index) in &set.names {
        let (went, came) = (&set.policies[*index], &back.policies[back.names[name]]);
        assert_eq!(
            (went.level, &went.names, &went.pins, went.min_tls13, &went.ca_file),
            (came.level, &came.names, &came.pins, came.min_tls13, &came.ca_file),
            "{name}: {}",
            table.text
        );
    }
}

#[test]
fn what_postfix_can_not_say_is_named() {
    let pins = format!("fingerprints = [\"sha256:{PIN}\"]");
    for (keys, row, says) in [
        ("level = \"envelope\"", false, "no level `envelope`"),
        ("level = \"mta-sts\"", false, "no level `mta-sts`"),
        ("level = \"auto\"", false, "no level `auto`"),
        ("level = \"dane\"", false, "falls to plaintext"),
        ("level = \"secure\"\nnext_hop = \"[mx.a.example]:587\"", false, "transport_maps"),
        ("level = \"secure\"\nmatch = [\"2001:db8::1\"]", false, "matches no address"),
        ("level = \"secure\"\nca_file = \"my ca.pem\"", false, "can't stand in a row"),
        ("level = \"secure\"\nexpires = \"2026-11-21\"", false, "has expired"),
        ("level = \"secure\"\nexpires = \"2027-11-21\"", true, "does not end by itself"),
        ("level = \"secure\"\nmark = \"X-A: b\"", true, "mark: \"X-A: b\""),
        ("level = \"secure\"\notherwise = \"bounce\"", true, "otherwise = \"bounce\""),
        (
            "level = \"secure\"\nclient_certificate = \"c.pem\"\nclient_key = \"k.pem\"",
            true,
            "smtp_tls_cert_file",
        ),
        (&format!("level = \"fingerprint\"\n{pins}\nmark = \"X-A: b\""), true, "mark"),
    ] {
        let (set, _) = parse(&format!("[[partner]]\ndomains = [\"a.example\"]\n{keys}\n"));
        let table = export(&set, now(), str::to_owned);
        let [remark] = &table.remarks[..] else { panic!("{keys}: {:?}", table.remarks) };
        assert!(remark.starts_with("a.example: ") && remark.contains(says), "{keys}: {remark}");
        assert!(table.text.contains(&format!("# {remark}\n")), "{keys}: {}", table.text);
        assert_eq!(table.text.lines().any(|l| l.starts_with("a.example ")), row, "{keys}");
    }
    let default =
        SourceFile { name: "default.toml".into(), text: "[default]\nlevel = \"encrypt\"\n".into() };
    let (set, _) = PolicySet::parse(&[default], now()).unwrap();
    assert!(export(&set, now(), str::to_owned).remarks[0].contains("smtp_tls_security_level"));
}

#[test]
fn remarks_can_not_break_out_of_their_comment() {
    let import = import("a.example secure x\u{b}y\nb.example may\n");
    let toml = import.to_toml("a\nlevel = 1\n");
    assert_eq!(parse(&toml).0.partners(), 1, "{toml}");
    let clean = parse(&toml).1.iter().all(|p| p.severity == Severity::Warning);
    assert!(clean, "{toml}");
}
