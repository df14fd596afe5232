//! What domains publish: DANE, MTA-STS, and the best of both; pins; REQUIRETLS.

use super::*;
use crate::policy::{DaneVerdict, StsFault, StsFaultKind, StsPolicy, Tlsa};

fn records() -> Dane {
    let record = Tlsa { usage: 3, selector: 1, matching: 1, data: vec![7; 32] };
    Dane::Records(TlsaSet { base: "mx1.a.example".into(), records: vec![record] })
}

fn absent() -> Dane {
    Dane::Absent("no such records".into())
}

fn with(dnssec: Dnssec) -> Option<MxFacts> {
    let MxFacts::Hosts(hosts, _) = hosts() else { return None };
    Some(MxFacts::Hosts(hosts, dnssec))
}

fn signed() -> Option<MxFacts> {
    with(Dnssec::Secure)
}

fn policy(mode: StsMode, mx: &str) -> StsFacts {
    let mx = vec![mx.to_owned()];
    StsFacts::Policy(StsPolicy { id: "1".into(), mode, mx, max_age: 86_400 })
}

fn enforced() -> Option<StsFacts> {
    Some(policy(StsMode::Enforce, "mx1.a.example"))
}

fn says(verdict: DaneVerdict) -> Option<PeerFacts> {
    let facts =
        TlsFacts { dane: Some(verdict), chain_error: Some("self-signed".into()), ..tls(&[]) };
    Some(peer(StartTls::Done(facts)))
}

fn met(usage: u8) -> DaneVerdict {
    DaneVerdict::Met { record: format!("{usage} 1 1 07…"), usage }
}

#[test]
fn what_is_asked_before_the_first_connection() {
    let unsigned = || Some(hosts());
    let unchecked = || with(Dnssec::Unchecked);
    let testing = || Some(policy(StsMode::Testing, "mx1.a.example"));
    let doubt = || Some(StsFacts::Doubt("SERVFAIL".into()));
    let fault = || StsFault { kind: StsFaultKind::Fetch, text: "404".to_owned() };
    let unfetched = || Some(StsFacts::Unfetched(fault()));
    let nothing = || Some(StsFacts::Nothing);
    for (level, mx, sts, expected, why) in [
        ("secure", unsigned(), None, "host tlsa=false", "no use for either"),
        ("dane", signed(), None, "host tlsa=true", "signed MX: TLSA are asked"),
        ("dane", unsigned(), None, "host tlsa=false", "RFC 7672 2.2.1: unsigned MX, no DANE"),
        ("dane", unchecked(), None, "defer DnsTrouble", "nobody can tell: no guess"),
        ("dane-only", unchecked(), None, "defer DnsTrouble", "the same"),
        ("auto", unchecked(), enforced(), "defer DnsTrouble", "TLSA might be there and win"),
        ("mta-sts", unchecked(), None, "sts a.example", "needs no DNSSEC"),
        ("mta-sts", unsigned(), enforced(), "host tlsa=false", "a host may be named"),
        ("mta-sts", unsigned(), doubt(), "host tlsa=false", "a host's turn decides"),
        ("mta-sts", unsigned(), nothing(), "defer LevelNotMet", "retried first"),
        ("mta-sts", unsigned(), testing(), "defer LevelNotMet", "not enforced"),
        ("mta-sts", unsigned(), unfetched(), "defer LevelNotMet", "not fetched"),
        ("auto", signed(), None, "sts a.example", "both are asked"),
        ("auto", signed(), nothing(), "host tlsa=true", "TLSA alone may do"),
        ("auto", unsigned(), nothing(), "envelope LevelNotMet", "neither can be: at once"),
        ("auto", unsigned(), testing(), "envelope LevelNotMet", "the same"),
        ("auto", unsigned(), enforced(), "host tlsa=false", "the policy may do"),
    ] {
        let host = None;
        let case = Case { mx, sts, host, ..case(&format!("level = \"{level}\"")) };
        assert_eq!(case.short(), expected, "{level}: {why}");
    }
}

#[test]
fn which_hosts_are_connected_to() {
    let trouble = || Dane::Trouble("SERVFAIL".into());
    let unusable = || Dane::Unusable("usage 1".into());
    for (level, dane, sts, expected, why) in [
        ("dane", records(), None, "peer Always", "records"),
        ("dane", absent(), None, "peer Always", "none published: as encrypt"),
        ("dane", Dane::NotAsked, None, "peer Always", "unsigned MX: as encrypt"),
        ("dane", trouble(), None, "next Dns", "never guessed"),
        ("dane", Dane::Unchecked, None, "next Dns", "never guessed"),
        ("dane", unusable(), None, "next NoDane", "published, and nothing can meet them"),
        ("dane-only", records(), None, "peer Always", "records"),
        ("dane-only", absent(), None, "next NoDane", "none"),
        ("dane-only", Dane::NotAsked, None, "next NoDane", "unsigned MX"),
        ("dane-only", trouble(), None, "next Dns", "never guessed"),
        ("mta-sts", Dane::NotAsked, enforced(), "peer Always", "named"),
        (
            "mta-sts",
            Dane::NotAsked,
            Some(policy(StsMode::Enforce, "*.a.example")),
            "peer Always",
            "by a pattern",
        ),
        (
            "mta-sts",
            Dane::NotAsked,
            Some(policy(StsMode::Enforce, "mx9.a.example")),
            "next NoSts",
            "not named",
        ),
        (
            "mta-sts",
            Dane::NotAsked,
            Some(StsFacts::Doubt("SERVFAIL".into())),
            "next Dns",
            "not known",
        ),
        ("auto", records(), enforced(), "peer Always", "records"),
        ("auto", absent(), enforced(), "peer Always", "the policy"),
        ("auto", absent(), Some(StsFacts::Nothing), "next NoSts", "neither"),
        (
            "auto",
            absent(),
            Some(StsFacts::Doubt("SERVFAIL".into())),
            "next Dns",
            "the policy is not known",
        ),
        (
            "auto",
            records(),
            Some(StsFacts::Doubt("SERVFAIL".into())),
            "peer Always",
            "records are enough",
        ),
        ("auto", unusable(), enforced(), "next NoDane", "RFC 8461 2: DANE is not rescued"),
        ("auto", trouble(), enforced(), "next Dns", "nor is doubt about it"),
    ] {
        let mx = signed();
        let host = Some(known(dane));
        let case = Case { mx, sts, host, ..case(&format!("level = \"{level}\"")) };
        assert_eq!(case.short(), expected, "{level}: {why}");
    }
}

#[test]
fn a_host_s_records_go_with_the_connection() {
    let case = Case { mx: signed(), host: Some(known(records())), ..case("level = \"dane\"") };
    let Route::Need(Need::Peer(requirement)) = case.route() else { panic!("no peer") };
    assert_eq!(requirement.tlsa.map(|set| set.records.len()), Some(1));
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn what_proves_itself_by_what_the_domain_publishes() {
    let unmet = || DaneVerdict::Unmet("another key".into());
    let bears = |names: &[&str], verdict| {
        let facts = TlsFacts { dane: Some(verdict), chain_error: Some("-".into()), ..tls(names) };
        Some(peer(StartTls::Done(facts)))
    };
    let trusted = |names: &[&str]| Some(peer(StartTls::Done(tls(names))));
    let plain = || Some(peer(StartTls::NotOffered));
    for (level, dane, peer, expected, why) in [
        ("dane", records(), says(met(3)), "direct LevelMet", "no chain, no name"),
        ("dane", records(), says(unmet()), "next Unproven", "another certificate"),
        ("dane", records(), trusted(&["mx1.a.example"]), "next Unproven", "a chain is no rescue"),
        ("dane", records(), plain(), "next NoStartTls", "records ask for TLS"),
        ("dane", absent(), says(unmet()), "direct LevelMet", "as encrypt"),
        ("dane", absent(), plain(), "next NoStartTls", "as encrypt"),
        ("dane-only", records(), says(met(3)), "direct LevelMet", "met"),
        (
            "dane-only",
            records(),
            bears(&["mx1.a.example"], met(2)),
            "direct LevelMet",
            "the base domain",
        ),
        (
            "dane-only",
            records(),
            bears(&["a.example"], met(2)),
            "direct LevelMet",
            "the recipients' domain",
        ),
        (
            "dane-only",
            records(),
            bears(&["x.a.example"], met(2)),
            "next Unproven",
            "no name of ours",
        ),
        ("dane-only", absent(), trusted(&["mx1.a.example"]), "next Unproven", "no records"),
        (
            "mta-sts",
            Dane::NotAsked,
            trusted(&["mx1.a.example"]),
            "direct LevelMet",
            "chain and host",
        ),
        (
            "mta-sts",
            Dane::NotAsked,
            trusted(&["a.example"]),
            "next Unproven",
            "not the host's name",
        ),
        ("mta-sts", Dane::NotAsked, says(met(3)), "next Unproven", "no chain"),
        ("mta-sts", Dane::NotAsked, plain(), "next NoStartTls", "no TLS"),
        ("auto", records(), says(met(3)), "direct LevelMet", "DANE"),
        (
            "auto",
            records(),
            trusted(&["mx1.a.example"]),
            "next Unproven",
            "MTA-STS does not rescue DANE",
        ),
        ("auto", absent(), trusted(&["mx1.a.example"]), "direct LevelMet", "MTA-STS"),
        (
            "auto",
            absent(),
            trusted(&["a.example"]),
            "next Unproven",
            "MTA-STS wants the host's name",
        ),
    ] {
        let (mx, sts, host) = (signed(), enforced(), Some(known(dane)));
        let case = Case { mx, sts, host, peer, ..case(&format!("level = \"{level}\"")) };
        assert_eq!(case.short(), expected, "{level}: {why}");
    }
}

#[test]
fn a_pin_is_the_whole_proof() {
    let pins = format!(
        "level = \"fingerprint\"\nfingerprints = [\"sha256:{}\", \"SHA256:{}\"]",
        "ab".repeat(32),
        ["CD"; 32].join(":")
    );
    let shows = |certificate: &str, key: &str| {
        let prints = (certificate.repeat(32), key.repeat(32));
        let chain_error = Some("self-signed CA certificate".into());
        let facts =
            TlsFacts { fingerprint: prints.0, key_fingerprint: prints.1, chain_error, ..tls(&[]) };
        Some(peer(StartTls::Done(facts)))
    };
    for (peer, expected, why) in [
        (shows("ab", "00"), "direct LevelMet", "the certificate"),
        (shows("00", "ab"), "direct LevelMet", "its key"),
        (shows("00", "cd"), "direct LevelMet", "any of the pins, colons and capitals or not"),
        (shows("00", "11"), "next Unproven", "neither"),
        (shows("", ""), "next Unproven", "nothing shown"),
        (Some(good_peer()), "next Unproven", "a good chain is no pin"),
        (Some(peer(StartTls::NotOffered)), "next NoStartTls", "no TLS"),
    ] {
        assert_eq!(Case { peer, ..case(&pins) }.short(), expected, "{why}");
    }
}

#[test]
fn requiretls_asks_for_proof_at_every_level() {
    let bears = |names: &[&str]| Some(peer(StartTls::Done(tls(names))));
    // The host bears a name that only its MX record gives.
    let away = || {
        let host = "mx.b.example".to_owned();
        Some(PeerFacts { host, ..peer(StartTls::Done(tls(&["mx.b.example"]))) })
    };
    let unknown = || {
        let facts = TlsFacts { chain_error: Some("self-signed".into()), ..tls(&["mx1.a.example"]) };
        Some(peer(StartTls::Done(facts)))
    };
    let unsigned = || Some(hosts());
    for (level, mx, peer, expected, why) in [
        ("secure", unsigned(), bears(&["a.example"]), "direct LevelMet", "proved"),
        ("verify", unsigned(), away(), "next NoRequireTls", "a name by unsigned DNS"),
        ("verify", signed(), away(), "direct LevelMet", "the name is signed"),
        (
            "encrypt",
            unsigned(),
            bears(&["a.example"]),
            "direct LevelMet",
            "it proves more than asked",
        ),
        ("encrypt", signed(), away(), "direct LevelMet", "the same"),
        ("encrypt", unsigned(), away(), "next NoRequireTls", "by unsigned DNS"),
        ("encrypt", signed(), unknown(), "next NoRequireTls", "nobody vouches for it"),
        ("opportunistic", unsigned(), unknown(), "next NoRequireTls", "the same"),
        (
            "opportunistic",
            unsigned(),
            Some(peer(StartTls::NotOffered)),
            "next NoRequireTls",
            "no TLS",
        ),
    ] {
        let needs = Needs { require_tls: true, ..Needs::default() };
        let case = Case { mx, peer, needs, ..case(&format!("level = \"{level}\"")) };
        assert_eq!(case.short(), expected, "{level}: {why}");
    }
}

#[test]
fn auto_never_delivers_to_domains_that_nobody_vouches_for() {
    let list = |text: &str| SourceFile { name: "webmail.toml".into(), text: text.into() };
    let default = "[default]\nlevel = \"auto\"\nnever_direct = [\"webmail.toml\"]\n";
    for (domains, partner, expected, why) in [
        ("a.example", "", "envelope PolicyEnvelope", "listed"),
        (".example", "", "envelope PolicyEnvelope", "below a suffix"),
        ("b.example", "", "sts a.example", "another"),
        (
            "a.example",
            "level = \"encrypt\"",
            "host tlsa=false",
            "an entry of its own says otherwise",
        ),
    ] {
        let mut files = vec![
            SourceFile { name: "default.toml".into(), text: default.into() },
            list(&format!("domains = [\"{domains}\"]\n")),
        ];
        if !partner.is_empty() {
            let text = format!("[[partner]]\ndomains = [\"a.example\"]\n{partner}\n");
            files.push(SourceFile { name: "a.toml".into(), text });
        }
        let set = PolicySet::parse(&files, NOW.parse().unwrap()).unwrap().0;
        let case = Case { set, mx: signed(), host: None, ..case("") };
        assert_eq!(case.short(), expected, "{why}");
    }
}

#[test]
fn requiretls_leaves_no_way_without_tls() {
    let needs = Needs { require_tls: true, ..Needs::default() };
    let asks = Case { needs, ..case("level = \"opportunistic\"") };
    assert_eq!(asks.short(), "peer Always", "plaintext would be of no use");
    for (trouble, expected, why) in [
        (Trouble::NoStartTls, "reject CannotCarry 5.7.30", "no TLS at all"),
        (Trouble::StartTlsRefused, "defer Unreachable", "it may work next time"),
        (Trouble::Handshake, "defer Unreachable", "the same"),
        (Trouble::NoRequireTls, "reject CannotCarry 5.7.30", "not offered"),
    ] {
        let tried = failed(&[trouble]);
        let case = Case { needs, tried, exhausted: true, ..case("level = \"opportunistic\"") };
        assert_eq!(case.short(), expected, "{why}");
    }
}

#[test]
fn nobody_is_bounced_at_the_first_hiccup() {
    let set = |keys: &str| set("", &format!("[default]\nlevel = \"encrypt\"\n{keys}"));
    for (keys, failing, expected, why) in [
        ("", None, "envelope LevelNotMet", "nothing was agreed: sealed at once"),
        ("otherwise = \"bounce\"", None, "defer LevelNotMet", "a retry may help"),
        ("otherwise = \"bounce\"", Some(HOUR), "reject LevelNotMet 5.7.5", "it did not"),
    ] {
        let (set, tried) = (set(keys), failed(&[Trouble::Handshake]));
        let case = Case { set, tried, failing, exhausted: true, ..case("") };
        assert_eq!(case.short(), expected, "{why}");
    }
}

#[test]
fn a_mark_counts_for_the_size() {
    let limit = |size| Some(PeerFacts { size: Some(size), ..good_peer() });
    let mark = "level = \"encrypt\"\nmark = \"X-A: b\"";
    for (size, expected) in [(1008, "direct LevelMet"), (1007, "next TooBig")] {
        assert_eq!(Case { peer: limit(size), ..case(mark) }.short(), expected, "{size}");
    }
}

#[test]
fn mail_of_our_own_is_asked_what_the_domain_publishes() {
    let nothing = || Some(StsFacts::Nothing);
    let doubt = || Some(StsFacts::Doubt("SERVFAIL".into()));
    let testing = || Some(policy(StsMode::Testing, "mx1.a.example"));
    let other = || Some(policy(StsMode::Enforce, "mx9.a.example"));
    let fault = || StsFault { kind: StsFaultKind::Fetch, text: "404".to_owned() };
    let unfetched = || Some(StsFacts::Unfetched(fault()));
    let trouble = || Dane::Trouble("SERVFAIL".into());
    let unusable = || Dane::Unusable("usage 1".into());
    for (dane, dnssec, sts, expected, why) in [
        (absent(), Dnssec::Secure, nothing(), "peer IfOffered", "it publishes nothing"),
        (Dane::NotAsked, Dnssec::Insecure, testing(), "peer IfOffered", "not enforced"),
        (Dane::NotAsked, Dnssec::Insecure, unfetched(), "peer IfOffered", "RFC 8461 3.3"),
        (Dane::NotAsked, Dnssec::Unchecked, nothing(), "peer IfOffered", "no DNSSEC here"),
        (Dane::NotAsked, Dnssec::Unchecked, enforced(), "peer Always", "MTA-STS needs none"),
        (records(), Dnssec::Secure, nothing(), "peer Always", "records"),
        (unusable(), Dnssec::Secure, nothing(), "peer Always", "RFC 7672 2.2: TLS at least"),
        (absent(), Dnssec::Secure, enforced(), "peer Always", "the policy"),
        (absent(), Dnssec::Secure, other(), "next NoSts", "the policy names another host"),
        (trouble(), Dnssec::Secure, nothing(), "next Dns", "never guessed"),
        (absent(), Dnssec::Secure, doubt(), "next Dns", "never guessed"),
    ] {
        let (mx, host) = (with(dnssec), Some(known(dane)));
        let question = Ask::Notice(Level::Published);
        let case = Case { mx, sts, host, question, ..case("") };
        assert_eq!(case.short(), expected, "{why}");
    }
}

#[test]
fn mail_of_our_own_waits_where_what_is_published_is_not_met() {
    let nothing = || Some(StsFacts::Nothing);
    let named = || peer(StartTls::Done(tls(&["mx1.a.example"])));
    let other = || peer(StartTls::Done(tls(&["elsewhere.example"])));
    let plain = || peer(StartTls::NotOffered);
    let unmet = DaneVerdict::Unmet("none".into());
    for (dane, sts, seen, expected, why) in [
        (absent(), nothing(), Some(plain()), "direct Notice", "nothing is published"),
        (absent(), nothing(), Some(other()), "direct Notice", "the same"),
        (absent(), enforced(), Some(named()), "direct Notice", "the policy is met"),
        (absent(), enforced(), Some(other()), "next Unproven", "a certificate of his own"),
        (absent(), enforced(), Some(plain()), "next NoStartTls", "STARTTLS is stripped"),
        (records(), nothing(), says(met(3)), "direct Notice", "the record is met"),
        (records(), nothing(), says(unmet), "next Unproven", "another certificate"),
        (records(), nothing(), Some(plain()), "next NoStartTls", "STARTTLS is stripped"),
    ] {
        let (mx, host) = (signed(), Some(known(dane)));
        let question = Ask::Notice(Level::Published);
        let case = Case { mx, sts, host, peer: seen, question, ..case("") };
        assert_eq!(case.short(), expected, "{why}");
    }
    // Left host after host, it waits until the time to deliver is over.
    for (trouble, age, expected) in [
        (Trouble::NoStartTls, HOUR, "defer LevelNotMet"),
        (Trouble::Unproven, HOUR * 119, "defer LevelNotMet"),
        (Trouble::Unproven, HOUR * 120, "reject GaveUp 5.7.5"),
    ] {
        let (tried, exhausted) = (failed(&[trouble]), true);
        let question = Ask::Notice(Level::Published);
        let case = Case { tried, exhausted, age, question, ..case("") };
        assert_eq!(case.short(), expected);
    }
}

#[test]
fn a_partners_notice_goes_at_the_partners_level() {
    let named = || peer(StartTls::Done(tls(&["mx1.a.example"])));
    let plain = || peer(StartTls::NotOffered);
    let pinned = TlsFacts { key_fingerprint: "ab".repeat(32), ..tls(&[]) };
    let pinned = || peer(StartTls::Done(pinned.clone()));
    let pin = format!("level = \"fingerprint\"\nfingerprints = [\"sha256:{}\"]", "ab".repeat(32));
    let names = "level = \"secure\"\nmatch = [\"mx1.a.example\"]";
    for (entry, seen, expected, why) in [
        ("level = \"verify\"", named(), "direct Notice", "the host's name"),
        ("level = \"verify\"", plain(), "next NoStartTls", "stripped"),
        (names, named(), "direct Notice", "the entry's `match`"),
        ("level = \"secure\"", named(), "direct Notice", "a name under the domain"),
        (names, pinned(), "next Unproven", "another certificate"),
        (&pin, pinned(), "direct Notice", "the entry's pin"),
        (&pin, named(), "next Unproven", "not the pin"),
        ("level = \"dane\"", plain(), "next NoStartTls", "as encrypt, where none is published"),
        ("level = \"dane-only\"", named(), "next Unproven", "no record was met"),
        ("level = \"auto\"", plain(), "direct Notice", "nothing is published"),
        ("level = \"encrypt\"", plain(), "direct Notice", "no proof is asked, none is published"),
        ("level = \"envelope\"", plain(), "direct Notice", "the same"),
    ] {
        let (sts, host) = (Some(StsFacts::Nothing), Some(known(absent())));
        let question = Ask::Notice(Level::Published);
        let case = Case { mx: signed(), sts, host, peer: Some(seen), question, ..case(entry) };
        assert_eq!(case.short(), expected, "{entry}: {why}");
        // What the operator asked for by name stays as it is.
        let case = Case { question: Ask::Notice(Level::Opportunistic), ..case };
        assert_eq!(case.short(), "direct Notice", "{entry}: {why}");
    }
    // `otherwise` is no word about our own mail: it never is sealed or sent back.
    for otherwise in ["envelope", "defer", "bounce"] {
        let entry = format!("{names}\notherwise = \"{otherwise}\"\notherwise_after = \"0s\"");
        let (tried, exhausted) = (failed(&[Trouble::NoStartTls]), true);
        let question = Ask::Notice(Level::Published);
        let case = Case { tried, exhausted, age: HOUR, question, ..case(&entry) };
        assert_eq!(case.short(), "defer LevelNotMet", "{otherwise}");
        let Route::Defer(why, _) = case.route() else { panic!("it waits") };
        assert_eq!((why.policy.file.as_str(), why.policy.level), ("a.toml", Level::Secure));
    }
}

#[test]
fn a_line_is_in_doubt_where_a_level_could_have_been_met_and_was_not() {
    let fault = || StsFault { kind: StsFaultKind::Fetch, text: "404".to_owned() };
    let nothing = || Some(StsFacts::Nothing);
    let testing = || Some(policy(StsMode::Testing, "mx1.a.example"));
    let not_met = Reason::LevelNotMet;
    for (level, reason, sts, dane, require_tls, doubt, why) in [
        (Level::Secure, not_met, None, false, false, true, "a partner's level"),
        (Level::MtaSts, not_met, nothing(), false, false, true, "a partner's, by name"),
        (Level::Encrypt, not_met, None, false, false, true, "even one that proves nothing"),
        (Level::Auto, not_met, nothing(), false, false, false, "it publishes nothing"),
        (Level::Auto, not_met, testing(), false, false, false, "not enforced"),
        (Level::Auto, not_met, enforced(), false, false, true, "its policy is not met"),
        (Level::Auto, not_met, nothing(), true, false, true, "its records are not met"),
        (Level::Auto, not_met, Some(StsFacts::Unfetched(fault())), false, false, true, "kept back"),
        (Level::Envelope, Reason::PolicyEnvelope, None, false, false, false, "a plain stranger"),
        (Level::Secure, Reason::CannotCarry, None, false, false, false, "too large"),
        (Level::Secure, Reason::CannotCarry, None, false, true, false, "it proved itself"),
        (Level::Opportunistic, Reason::CannotCarry, None, false, true, true, "nobody did"),
    ] {
        let (file, version, text) = ("a.toml".to_owned(), String::new(), String::new());
        let policy = PolicyRef { file, line: 1, level, version };
        let decided = Why { reason, text, policy };
        let is = line_in_doubt(&decided, sts.as_ref(), dane, require_tls);
        assert_eq!(is, doubt, "{level}: {why}");
    }
}
