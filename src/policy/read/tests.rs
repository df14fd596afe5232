//! Policy texts, good and bad, and what is said of them.

use super::*;

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn files(list: &[(&str, &str)]) -> Vec<SourceFile> {
    let file =
        |(name, text): &(&str, &str)| SourceFile { name: (*name).into(), text: (*text).into() };
    list.iter().map(file).collect()
}

fn set(list: &[(&str, &str)]) -> PolicySet {
    read(&files(list), now()).unwrap().0
}

fn problems(list: &[(&str, &str)]) -> Vec<String> {
    let problems = match read(&files(list), now()) {
        Ok((_, warnings)) => warnings,
        Err(problems) => problems,
    };
    problems.iter().map(ToString::to_string).collect()
}

fn partner(keys: &str) -> String {
    format!("[[partner]]\ndomains = [\"a.example\"]\n{keys}\n")
}

fn domain(text: &str) -> Domain {
    text.parse().unwrap()
}

#[test]
fn no_files_seal_everything() {
    for set in
        [set(&[]), set(&[("a.toml", ""), ("default.toml", "# nothing\n")]), PolicySet::default()]
    {
        let domain = domain("a.example");
        let policy = set.lookup(&domain, now());
        assert_eq!((policy.level, policy.partner), (Level::Envelope, false));
        assert_eq!((policy.at.file.as_str(), policy.at.line), ("(built-in)", 0));
        assert_eq!(set.partners(), 0);
        assert_eq!(policy.at.version, set.version());
    }
}

#[test]
fn the_most_specific_name_decides() {
    let text = r#"
[[partner]]
domains = ["a.example"]
level = "secure"
[[partner]]
domains = [".a.example", "Bücher.example"]
level = "encrypt"
[[partner]]
domains = [".deep.a.example"]
level = "verify"
match = [".a.example"]
[[partner]]
domains = ["old.a.example"]
level = "opportunistic"
expires = "2026-11-21"
"#;
    let set = set(&[("p.toml", text), ("default.toml", "[default]\nlevel = \"opportunistic\"\n")]);
    assert_eq!(set.partners(), 4);
    for (name, level, line) in [
        ("a.example", Level::Secure, 2),
        ("A.Example", Level::Secure, 2),
        ("x.a.example", Level::Encrypt, 5),
        ("x.y.a.example", Level::Encrypt, 5),
        ("deep.a.example", Level::Encrypt, 5),
        ("x.deep.a.example", Level::Verify, 8),
        ("xn--bcher-kva.example", Level::Encrypt, 5),
        ("old.a.example", Level::Encrypt, 5),
        ("nota.example", Level::Opportunistic, 1),
        ("example", Level::Opportunistic, 1),
    ] {
        let domain = domain(name);
        let at = &set.lookup(&domain, now()).at;
        assert_eq!((at.level, at.line), (level, line), "{name}");
    }
}

#[test]
fn an_entry_holds_to_the_end_of_its_day() {
    let text = partner("level = \"secure\"\nexpires = 2027-03-01");
    let set = set(&[("p.toml", &text)]);
    let domain = domain("a.example");
    for (at, partner) in [("2027-03-01T23:59:59Z", true), ("2027-03-02T00:00:00Z", false)] {
        assert_eq!(set.lookup(&domain, at.parse().unwrap()).partner, partner, "{at}");
    }
}

#[test]
fn every_key_arrives() {
    let text = partner(
        r#"level = "secure"
match = ["MX.a.example", ".mail.a.example", "192.0.2.1"]
fingerprints = []
min_tls = "1.3"
ca_file = "ca.pem"
client_certificate = ""
next_hop = "[mail.a.example]:587"
otherwise = "bounce"
otherwise_after = "90m"
requiretls = "envelope"
mark = "Sensitivity: company-confidential"
contact = "postmaster@a.example"
note = "agreed""#,
    );
    let set = set(&[("sub/p.toml", &text)]);
    let domain = domain("a.example");
    let policy = set.lookup(&domain, now());
    assert_eq!(policy.names, ["mx.a.example", ".mail.a.example", "192.0.2.1"]);
    assert!(policy.min_tls13 && policy.partner);
    assert_eq!(policy.ca_file.as_deref(), Some("sub/ca.pem"));
    assert_eq!(policy.next_hop, Some("[mail.a.example]:587".parse().unwrap()));
    assert_eq!(policy.otherwise, Otherwise::Bounce);
    assert_eq!(policy.otherwise_after, SignedDuration::from_mins(90));
    assert_eq!(policy.no_require_tls, NoRequireTls::Envelope);
    assert_eq!(policy.mark.as_deref(), Some("Sensitivity: company-confidential"));
    assert_eq!(
        set.files().iter().map(|f| (f.key, f.path.as_str())).collect::<Vec<_>>(),
        [("ca_file", "sub/ca.pem")]
    );
}

#[test]
fn bad_partner_keys_are_named_with_their_place() {
    for (keys, place, says) in [
        ("level = \"secur\"", "3:9", "did you mean `secure`"),
        ("level = 3", "3:9", "a number where a text"),
        ("", "1:1", "`level` is missing"),
        ("level = \"secure\"\nmach = []", "4:1", "did you mean `match`"),
        ("level = \"secure\"\nmatch = \"a.example\"", "4:9", "where a list"),
        ("level = \"secure\"\nmatch = [\"*.a.example\"]", "4:10", "write \".a.example\""),
        ("level = \"fingerprint\"", "1:1", "fingerprints = [\"sha256:HEX\"]"),
        ("level = \"fingerprint\"\nfingerprints = []", "1:1", "needs pins"),
        ("level = \"fingerprint\"\nfingerprints = [\"sha256:00\"]", "4:17", "has 2 hex digits"),
        ("level = \"fingerprint\"\nfingerprints = [\"00\"]", "4:17", "does not say its hash"),
        ("level = \"fingerprint\"\nfingerprints = [\"sha256:0g\"]", "4:17", "`g`"),
        ("level = \"secure\"\nclient_key = \"k.pem\"", "4:14", "client_certificate"),
        ("level = \"secure\"\nclient_certificate = \"c.pem\"", "4:22", "client_key"),
        ("level = \"secure\"\nmin_tls = \"1.1\"", "4:11", "\"1.2\" or \"1.3\""),
        ("level = \"secure\"\nmin_tls = 1.3", "4:11", "a fraction where a text"),
        ("level = \"secure\"\nnext_hop = \"[x\"", "4:12", "no next hop"),
        ("level = \"secure\"\notherwise = \"enveloppe\"", "4:13", "did you mean `envelope`"),
        ("level = \"secure\"\notherwise_after = \"1\"", "4:19", "no time"),
        ("level = \"secure\"\nrequiretls = \"defer\"", "4:14", "known here: bounce, envelope"),
        ("level = \"secure\"\nmark = \"nocolon\"", "4:8", "no header"),
        ("level = \"secure\"\nmark = \"X: a\\r\\nBcc: b\"", "4:8", "no header"),
        ("level = \"secure\"\nmark = \"Subject: x\"", "4:8", "belongs to the message"),
        ("level = \"secure\"\nexpires = \"soon\"", "4:11", "no date"),
        ("level = \"secure\"\nexpires = 2027-03-01T10:00:00Z", "4:11", "no date"),
        ("level = \"secure\"\nlevel = \"verify\"", "4:1", "not TOML"),
        ("level = ", "3:9", "not TOML"),
    ] {
        let found = problems(&[("p.toml", &partner(keys))]);
        let start = format!("p.toml:{place}: error: ");
        let hit = found.iter().any(|p| p.starts_with(&start) && p.contains(says));
        assert!(hit, "{keys:?} should say {start}…{says}, says {found:#?}");
    }
}

#[test]
fn bad_domains_and_tables_are_named_with_their_place() {
    for (name, text, says) in [
        (
            "p.toml",
            "[[partner]]\nlevel = \"secure\"\n",
            "p.toml:1:1: error: key `domains` is missing",
        ),
        (
            "p.toml",
            "[[partner]]\nlevel = \"secure\"\ndomains = []\n",
            "p.toml:3:11: error: key `domains`: an empty",
        ),
        (
            "p.toml",
            "[[partner]]\nlevel = \"secure\"\ndomains = [\"u@a.example\"]\n",
            "p.toml:3:12: error: key `domains`: `u@a.example` is an address",
        ),
        (
            "p.toml",
            "[[partner]]\nlevel = \"secure\"\ndomains = [\"a..example\"]\n",
            "p.toml:3:12: error: key `domains`: `a..example` is no domain",
        ),
        (
            "p.toml",
            "[[partner]]\nlevel = \"secure\"\ndomains = [1]\n",
            "p.toml:3:12: error: key `domains`: a number in a list",
        ),
        (
            "p.toml",
            "[partner]\nlevel = \"secure\"\n",
            "p.toml:1:2: error: `partner` is a list of tables: write [[partner]]",
        ),
        (
            "p.toml",
            "[[partners]]\n",
            "p.toml:1:3: error: unknown key `partners`; did you mean `partner`?",
        ),
        (
            "default.toml",
            "[[default]]\n",
            "default.toml:1:3: error: `default` is one table: write [default]",
        ),
        (
            "default.toml",
            "[default]\nnever_direct = [\"x.toml\"]\n",
            "default.toml:2:17: error: `x.toml` is no list in this folder",
        ),
        (
            "x.toml",
            "[default]\nlevel = \"encrypt\"\n",
            "x.toml:1:2: error: [default] belongs in default.toml",
        ),
        (
            "x.toml",
            "[[rule]]\nwhen = { size_over = \"1 MiB\" }\naction = \"protect\"\n",
            "x.toml:1:1: error: [[rule]] belongs in rules.toml",
        ),
    ] {
        let found = problems(&[(name, text)]);
        assert!(found.iter().any(|p| p.starts_with(says)), "{text:?}: {says}\n{found:#?}");
    }
}

#[test]
fn one_name_in_two_places_names_both() {
    let one = partner("level = \"secure\"");
    let two = "[[partner]]\nlevel = \"verify\"\nmatch = [\".b.example\"]\ndomains = [\"b.example\", \"A.example\"]\n";
    let found = problems(&[("two.toml", two), ("one.toml", &one)]);
    assert_eq!(
        found,
        [
            "two.toml:4:25: error: `a.example` stands already at one.toml:2:12: keep one of the two, or write \".a.example\" if its subdomains are meant"
        ]
    );
}

#[test]
fn all_problems_are_shown_at_once() {
    let text = partner("level = \"secur\"\nmin_tls = 1\nzzz = 1");
    assert_eq!(problems(&[("a.toml", &text), ("b.toml", "x = 1")]).len(), 4);
    let text = "[[partner]]\ndomains = [\"a..example\", \"b.example\", \"b.example\"]\nlevel = \"secure\"\n";
    let found = problems(&[("a.toml", text)]);
    assert!(found.len() == 2 && found[1].contains("stands already at a.toml:2:26"), "{found:?}");
}

#[test]
fn near_misses_are_warnings() {
    for (keys, says) in [
        ("level = \"verify\"", "p.toml:3:1: warning: key `level`: `verify` trusts unsigned DNS"),
        ("level = \"opportunistic\"", "plaintext"),
        (
            "level = \"dane-only\"\nmatch = [\"a.example\"]",
            "p.toml:4:1: warning: key `match`: has no effect",
        ),
        ("level = \"envelope\"\nmin_tls = \"1.3\"", "key `min_tls`: has no effect"),
        ("level = \"secure\"\nnext_hop = \"[mx.b.example]\"", "add match = [\"mx.b.example\"]"),
        (
            "level = \"secure\"\nexpires = \"2026-12-10\"",
            "until the end of 2026-12-10 (UTC); write",
        ),
        (
            "level = \"secure\"\nexpires = \"2026-11-22\"",
            "until the end of 2026-11-22 (UTC); write",
        ),
        (
            "level = \"secure\"\nexpires = \"2026-11-21\"",
            "has expired: it held until the end of 2026-11-21",
        ),
    ] {
        let found = problems(&[("p.toml", &partner(keys))]);
        assert_eq!(found.len(), 1, "{keys}: {found:?}");
        assert!(found[0].contains("warning") && found[0].contains(says), "{keys}: {found:?}");
    }
    let text = "[[partner]]\nlevel = \"secure\"\ndomains = [\".a.example\"]\n";
    let found = problems(&[("p.toml", text)]);
    assert!(found[0].starts_with("p.toml:3:12: warning: `.a.example` covers subdomains only"));
}

#[test]
fn clean_entries_say_nothing() {
    for keys in [
        "level = \"secure\"\nexpires = \"2027-11-22\"",
        "level = \"verify\"\nmatch = [\".a.example\"]",
        "level = \"secure\"\nnext_hop = \"[mx.a.example]:25\"",
        "level = \"envelope\"",
        "level = \"dane-only\"\nca_file = \"\"\nmark = \"\"\nexpires = \"\"",
    ] {
        assert_eq!(problems(&[("p.toml", &partner(keys))]), [""; 0], "{keys}");
    }
}

#[test]
fn the_version_knows_every_byte_and_no_order() {
    let one = files(&[("a.toml", "x"), ("b.toml", "y")]);
    let swapped = files(&[("b.toml", "y"), ("a.toml", "x")]);
    assert_eq!(version(&one), version(&swapped));
    assert_eq!(version(&one).len(), 16);
    for other in [
        files(&[("a.toml", "x"), ("b.toml", "z")]),
        files(&[("a.toml", "x"), ("c.toml", "y")]),
        files(&[("a.toml", "xb.toml"), ("", "y")]),
    ] {
        assert_ne!(version(&one), version(&other));
    }
}

#[test]
fn thousands_of_entries_are_looked_up_by_hash() {
    let mut text = String::new();
    for n in 0..5000 {
        text += &format!("[[partner]]\ndomains = [\"d{n}.example\"]\nlevel = \"secure\"\n");
    }
    let set = set(&[("many.toml", &text)]);
    assert_eq!(set.partners(), 5000);
    let domain = domain("d4999.example");
    assert_eq!(set.lookup(&domain, now()).at.line, 4999 * 3 + 1);
}

#[test]
fn of_syntax_errors_the_first_is_said() {
    let entries = partner("level = \"secure\"").repeat(20);
    for (text, place) in [
        (format!("[[partner]]\ndomains = [\"b.example\"\nlevel = \"secure\"\n{entries}"), "3:1"),
        (format!("a={}", "[".repeat(70)), "1:"),
        (format!("[[partner]\ndomains = [\n{entries}"), "1:"),
    ] {
        let found = problems(&[("p.toml", &text), ("q.toml", &partner("level = \"secur\""))]);
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found[0].starts_with(&format!("p.toml:{place}")), "{found:#?}");
        assert!(found[1].contains("did you mean `secure`"), "the other file is read: {found:#?}");
    }
}
