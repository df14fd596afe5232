//! Facts and the route they lead to, as tables.

mod published_tests;

use super::*;
use crate::{
    policy::{Dane, MxHost, PolicySet, RuleVerdict, SourceFile, TlsFacts},
    seal::header::Needs,
};
use jiff::Timestamp;

const NOW: &str = "2026-11-22T12:00:00Z";
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// The facts of a case; each test changes what it is about.
struct Case {
    set: PolicySet,
    rule: RuleVerdict,
    question: Ask,
    mx: Option<MxFacts>,
    sts: Option<StsFacts>,
    host: Option<HostFacts>,
    tried: Vec<HostTrouble>,
    peer: Option<PeerFacts>,
    exhausted: bool,
    needs: Needs,
    size: u64,
    /// How long ago it arrived, and since when the direct way fails.
    age: SignedDuration,
    failing: Option<SignedDuration>,
}
#[derive(Clone, Copy)]
enum Ask {
    Protected,
    Notice(Level),
    Inside(Level),
}

fn set(partner: &str, default: &str) -> PolicySet {
    let mut files = Vec::new();
    if !partner.is_empty() {
        let text = format!("[[partner]]\ndomains = [\"a.example\"]\n{partner}\n");
        files.push(SourceFile { name: "a.toml".into(), text });
    }
    files.push(SourceFile { name: "default.toml".into(), text: default.into() });
    PolicySet::parse(&files, NOW.parse().unwrap()).unwrap().0
}

fn case(partner: &str) -> Case {
    Case {
        set: set(partner, ""),
        rule: RuleVerdict::protected(),
        question: Ask::Protected,
        mx: Some(hosts()),
        sts: None,
        host: Some(known(Dane::NotAsked)),
        tried: Vec::new(),
        peer: None,
        exhausted: false,
        needs: Needs::default(),
        size: 1000,
        age: SignedDuration::ZERO,
        failing: None,
    }
}

fn hosts() -> MxFacts {
    let host = |name: &str, preference| MxHost { name: name.into(), preference };
    MxFacts::Hosts(vec![host("mx1.a.example", 10), host("mx2.a.example", 20)], Dnssec::Insecure)
}

fn known(dane: Dane) -> HostFacts {
    HostFacts { name: "mx1.a.example".into(), dane }
}

fn passing() -> RuleVerdict {
    let rule = Some(("rules.toml".to_owned(), 7));
    RuleVerdict { action: RuleAction::Pass, rule, ..RuleVerdict::protected() }
}

fn tls(names: &[&str]) -> TlsFacts {
    TlsFacts {
        version: "TLSv1.3".into(),
        cipher: "TLS13_AES_256_GCM_SHA384".into(),
        group: None,
        chain_error: None,
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        fingerprint: String::new(),
        key_fingerprint: String::new(),
        not_after: None,
        dane: None,
    }
}

fn peer(tls: StartTls) -> PeerFacts {
    PeerFacts {
        connection: 7,
        host: "mx1.a.example".into(),
        address: "192.0.2.1:25".parse().unwrap(),
        tls,
        eight_bit: true,
        smtputf8: true,
        require_tls: true,
        size: None,
    }
}

fn good_peer() -> PeerFacts {
    peer(StartTls::Done(tls(&["mx1.a.example"])))
}

fn failed(troubles: &[Trouble]) -> Vec<HostTrouble> {
    let host = |(n, trouble): (usize, &Trouble)| HostTrouble {
        host: format!("mx{}.a.example", n + 1),
        trouble: *trouble,
        detail: "secret detail".into(),
    };
    troubles.iter().enumerate().map(host).collect()
}

impl Case {
    fn route(&self) -> Route {
        let hop: NextHop = "[10.0.0.1]:25".parse().unwrap();
        let now: Timestamp = NOW.parse().unwrap();
        decide(&Facts {
            question: match self.question {
                Ask::Protected => Question::Protected(&self.rule),
                Ask::Notice(level) => Question::Notice(level),
                Ask::Inside(level) => Question::Inside(&hop, level),
            },
            set: &self.set,
            domain: &"a.example".parse().unwrap(),
            needs: self.needs,
            size: self.size,
            now,
            first_failed: self.failing.map(|since| now - since),
            overdue: self.age >= HOUR * 120,
            mx: self.mx.as_ref(),
            sts: self.sts.as_ref(),
            host: self.host.as_ref(),
            tried: &self.tried,
            peer: self.peer.as_ref(),
            exhausted: self.exhausted,
        })
    }

    /// The route in one line.
    fn short(&self) -> String {
        match self.route() {
            Route::Need(Need::Mx(hop)) => {
                format!("mx {}", hop.map_or_else(|| "domain".into(), |h| h.to_string()))
            }
            Route::Need(Need::Sts(domain)) => format!("sts {domain}"),
            Route::Need(Need::Host { tlsa }) => format!("host tlsa={tlsa}"),
            Route::Need(Need::Peer(r)) => format!("peer {:?}", r.tls),
            Route::Need(Need::NextHost(trouble, _)) => format!("next {trouble:?}"),
            Route::Direct(c) => format!("direct {:?}", c.why.reason),
            Route::Envelope(why) => format!("envelope {:?}", why.reason),
            Route::Defer(why, _) => format!("defer {:?}", why.reason),
            Route::Reject(why, status) => format!("reject {:?} {status}", why.reason),
        }
    }
}

#[test]
fn what_is_sealed_without_asking() {
    for (partner, default, rule, expected) in [
        ("", "", RuleVerdict::protected(), "envelope PolicyEnvelope"),
        (
            "",
            "[default]\nlevel = \"envelope\"",
            RuleVerdict::protected(),
            "envelope PolicyEnvelope",
        ),
        ("level = \"envelope\"", "", RuleVerdict::protected(), "envelope PolicyEnvelope"),
        ("level = \"envelope\"", "", passing(), "envelope PolicyEnvelope"),
        ("", "", passing(), "mx domain"),
        ("", "[default]\nlevel = \"encrypt\"", RuleVerdict::protected(), "mx domain"),
        ("level = \"secure\"", "", RuleVerdict::protected(), "mx domain"),
        (
            "level = \"secure\"\nnext_hop = \"[mx.a.example]:587\"",
            "",
            RuleVerdict::protected(),
            "mx [mx.a.example]:587",
        ),
    ] {
        let case = Case { set: set(partner, default), rule, mx: None, ..case("") };
        assert_eq!(case.short(), expected, "{partner:?} {default:?}");
    }
}

#[test]
fn a_rejected_message_in_the_queue_is_protected() {
    let rule = RuleVerdict { action: RuleAction::Reject, ..passing() };
    assert_eq!(Case { rule, mx: None, ..case("") }.short(), "envelope PolicyEnvelope");
}

#[test]
fn what_connecting_must_do() {
    for (partner, rule, expected) in [
        ("level = \"opportunistic\"", RuleVerdict::protected(), "peer IfOffered"),
        ("level = \"encrypt\"", RuleVerdict::protected(), "peer Always"),
        ("level = \"verify\"", RuleVerdict::protected(), "peer Always"),
        ("level = \"secure\"", passing(), "peer Always"),
        ("", passing(), "peer IfOffered"),
    ] {
        assert_eq!(Case { rule, ..case(partner) }.short(), expected, "{partner:?}");
    }
    let keys = "level = \"secure\"\nmin_tls = \"1.3\"\nca_file = \"ca.pem\"";
    let Route::Need(Need::Peer(requirement)) = case(keys).route() else { panic!("no peer") };
    assert!(requirement.min_tls13);
    assert_eq!(requirement.ca_file.as_deref(), Some("ca.pem"));
}

#[test]
fn files_that_the_level_has_no_use_for_are_not_asked_for() {
    let files = "ca_file = \"ca.pem\"\nclient_certificate = \"c.pem\"\nclient_key = \"k.pem\"";
    let pin = format!("fingerprints = [\"sha256:{}\"]", "0".repeat(64));
    for (level, require_tls, anchors, client, reason) in [
        ("none", false, false, false, "no TLS"),
        ("opportunistic", false, false, true, "TLS where offered"),
        ("encrypt", false, false, true, "any certificate"),
        ("encrypt", true, true, true, "REQUIRETLS wants a proof"),
        ("fingerprint", false, false, true, "the pin is the proof"),
        ("verify", false, true, true, "a chain"),
        ("secure", false, true, true, "a chain"),
    ] {
        let pins = if level == "fingerprint" { pin.as_str() } else { "" };
        let mut case = case(&format!("level = \"{level}\"\n{files}\n{pins}"));
        case.needs.require_tls = require_tls;
        let route = case.route();
        let Route::Need(Need::Peer(requirement)) = route else { panic!("{level}: {route:?}") };
        let found = (requirement.ca_file.is_some(), requirement.client.is_some());
        assert_eq!(found, (anchors, client), "{level}: {reason}");
    }
}

#[test]
fn refused_networks_speak_of_mx_hosts_and_not_of_hosts_that_configuration_names() {
    let hop = |hop: &str| case(&format!("level = \"secure\"\nnext_hop = \"{hop}\""));
    let inside = || Case { question: Ask::Inside(Level::Opportunistic), ..case("") };
    for (case, expected, why) in [
        (case("level = \"secure\""), false, "the domain's MX"),
        (hop("b.example"), false, "the MX of a next hop"),
        (hop("[mx.b.example]"), true, "a host by name"),
        (hop("[127.0.0.1]:2525"), true, "a host by address"),
        (inside(), true, "the inside host"),
    ] {
        let Route::Need(Need::Peer(requirement)) = case.route() else { panic!("{why}") };
        assert_eq!(requirement.configured, expected, "{why}");
    }
}

#[test]
fn answers_of_dns() {
    let trouble = || MxFacts::Trouble("SERVFAIL".into());
    let refused = || MxFacts::Refused("loopback".into());
    let late = HOUR * 120;
    let hop = "level = \"secure\"\nnext_hop = \"[mx.a.example]\"";
    let plain = "level = \"secure\"";
    let bounce = "level = \"secure\"\notherwise = \"bounce\"\notherwise_after = \"0s\"";
    for (partner, mx, age, expected) in [
        (plain, MxFacts::NoDomain, SignedDuration::ZERO, "reject NoSuchDomain 5.1.2"),
        (plain, MxFacts::Null, SignedDuration::ZERO, "reject NullMx 5.1.10"),
        (plain, MxFacts::NoHost, SignedDuration::ZERO, "reject NoMailHost 5.4.4"),
        (plain, trouble(), SignedDuration::ZERO, "defer DnsTrouble"),
        (bounce, trouble(), HOUR * 119, "defer DnsTrouble"),
        (plain, trouble(), late, "reject GaveUp 5.4.3"),
        (plain, refused(), SignedDuration::ZERO, "defer RefusedNetwork"),
        (plain, refused(), late, "reject GaveUp 5.4.4"),
        (hop, MxFacts::NoDomain, SignedDuration::ZERO, "defer NoSuchDomain"),
        (hop, MxFacts::NoDomain, late, "reject GaveUp 5.1.2"),
    ] {
        let case = Case { mx: Some(mx.clone()), age, ..case(partner) };
        assert_eq!(case.short(), expected, "{partner:?} {mx:?} {age:?}");
    }
}

#[test]
fn what_a_peer_must_prove() {
    let done = |names: &[&str]| StartTls::Done(tls(names));
    let untrusted = || {
        let error = Some("unknown issuer".to_owned());
        StartTls::Done(TlsFacts { chain_error: error, ..tls(&["mx1.a.example"]) })
    };
    let old = || StartTls::Done(TlsFacts { version: "TLSv1.2".into(), ..tls(&["mx1.a.example"]) });
    for (partner, tls, expected) in [
        ("level = \"opportunistic\"", StartTls::NotOffered, "direct LevelMet"),
        ("level = \"opportunistic\"", untrusted(), "direct LevelMet"),
        ("level = \"encrypt\"", StartTls::NotOffered, "next NoStartTls"),
        ("level = \"encrypt\"", StartTls::NotTried, "next NoStartTls"),
        ("level = \"encrypt\"", untrusted(), "direct LevelMet"),
        ("level = \"encrypt\"\nmin_tls = \"1.3\"", old(), "next Unproven"),
        ("level = \"verify\"", StartTls::NotOffered, "next NoStartTls"),
        ("level = \"verify\"", untrusted(), "next Unproven"),
        ("level = \"verify\"", done(&["mx1.a.example"]), "direct LevelMet"),
        ("level = \"verify\"", done(&["mx2.a.example"]), "next Unproven"),
        ("level = \"verify\"", done(&["a.example"]), "next Unproven"),
        ("level = \"verify\"", done(&[]), "next Unproven"),
        (
            "level = \"verify\"\nmatch = [\"mx.b.example\"]",
            done(&["mx1.a.example"]),
            "next Unproven",
        ),
        (
            "level = \"verify\"\nmatch = [\"mx.b.example\"]",
            done(&["mx.b.example"]),
            "direct LevelMet",
        ),
        ("level = \"secure\"", StartTls::NotOffered, "next NoStartTls"),
        ("level = \"secure\"", untrusted(), "next Unproven"),
        ("level = \"secure\"", old(), "direct LevelMet"),
        ("level = \"secure\"\nmin_tls = \"1.3\"", old(), "next Unproven"),
        ("level = \"secure\"", done(&["a.example"]), "direct LevelMet"),
        ("level = \"secure\"", done(&["other.example", "x.y.a.example"]), "direct LevelMet"),
        ("level = \"secure\"", done(&["*.a.example"]), "direct LevelMet"),
        ("level = \"secure\"", done(&["mx.host.example"]), "next Unproven"),
        (
            "level = \"secure\"\nmatch = [\".host.example\"]",
            done(&["mx.host.example"]),
            "direct LevelMet",
        ),
        ("level = \"secure\"\nmatch = [\".host.example\"]", done(&["a.example"]), "next Unproven"),
    ] {
        let case = Case { peer: Some(peer(tls.clone())), ..case(partner) };
        assert_eq!(case.short(), expected, "{partner:?} {tls:?}");
    }
}

#[test]
fn secure_takes_no_name_that_only_dns_gave() {
    let mut from_dns = peer(StartTls::Done(tls(&["mx.evil.example"])));
    from_dns.host = "mx.evil.example".into();
    let verify = Case { peer: Some(from_dns.clone()), ..case("level = \"verify\"") };
    assert_eq!(verify.short(), "direct LevelMet");
    let secure = Case { peer: Some(from_dns), ..case("level = \"secure\"") };
    assert_eq!(secure.short(), "next Unproven");
}

#[test]
fn what_a_peer_must_carry() {
    let yes = |f: fn(&mut Needs)| {
        let mut needs = Needs::default();
        f(&mut needs);
        needs
    };
    let bare =
        || PeerFacts { eight_bit: false, smtputf8: false, require_tls: false, ..good_peer() };
    let plain = || PeerFacts { tls: StartTls::NotOffered, ..good_peer() };
    for (level, peer, needs, size, expected) in [
        (
            "secure",
            PeerFacts { size: Some(1000), ..good_peer() },
            Needs::default(),
            1000,
            "direct LevelMet",
        ),
        (
            "secure",
            PeerFacts { size: Some(1000), ..good_peer() },
            Needs::default(),
            1001,
            "next TooBig",
        ),
        ("secure", bare(), Needs::default(), 1, "direct LevelMet"),
        ("secure", bare(), yes(|n| n.eight_bit = true), 1, "next EightBit"),
        ("secure", bare(), yes(|n| n.smtputf8 = true), 1, "next Utf8"),
        (
            "secure",
            bare(),
            Needs { eight_bit: true, smtputf8: true, ..Needs::default() },
            1,
            "next Utf8",
        ),
        ("secure", bare(), yes(|n| n.require_tls = true), 1, "next NoRequireTls"),
        ("secure", good_peer(), yes(|n| n.require_tls = true), 1, "direct LevelMet"),
        ("opportunistic", plain(), yes(|n| n.require_tls = true), 1, "next NoRequireTls"),
    ] {
        let case = Case { peer: Some(peer), needs, size, ..case(&format!("level = \"{level}\"")) };
        assert_eq!(case.short(), expected, "{needs:?} {size}");
    }
}

#[test]
fn all_hosts_tried() {
    use Trouble::*;
    let zero = SignedDuration::ZERO;
    let (seal, wait, bounce) = (
        "level = \"secure\"",
        "level = \"secure\"\notherwise = \"defer\"",
        "level = \"secure\"\notherwise = \"bounce\"",
    );
    let require = "level = \"secure\"\nrequiretls = \"envelope\"";
    let at_once = "level = \"secure\"\notherwise_after = \"0s\"";
    for (partner, tried, failing, age, expected) in [
        // A level that can't be met: patience, then `otherwise`.
        (seal, &[NoStartTls, Unproven][..], None, zero, "defer LevelNotMet"),
        (seal, &[NoStartTls], Some(HOUR - SignedDuration::from_secs(1)), HOUR, "defer LevelNotMet"),
        (seal, &[NoStartTls], Some(HOUR), HOUR, "envelope LevelNotMet"),
        (at_once, &[Handshake], None, zero, "envelope LevelNotMet"),
        (wait, &[Unproven], Some(HOUR * 100), HOUR * 100, "defer LevelNotMet"),
        (wait, &[Unproven], Some(HOUR * 120), HOUR * 120, "reject GaveUp 5.7.5"),
        (bounce, &[Handshake], None, zero, "defer LevelNotMet"),
        (bounce, &[StartTlsRefused], Some(HOUR), HOUR, "reject LevelNotMet 5.7.4"),
        (seal, &[Unproven], None, HOUR * 200, "envelope LevelNotMet"),
        // One host is away, the other can't meet the level: the level stands in the way.
        (seal, &[Unreachable, NoStartTls], Some(HOUR), HOUR, "envelope LevelNotMet"),
        (seal, &[TooBig, NoStartTls], Some(HOUR), HOUR, "envelope LevelNotMet"),
        // Away: until give_up, whatever `otherwise` says.
        (bounce, &[Unreachable, NoAddress], Some(HOUR * 99), HOUR * 99, "defer Unreachable"),
        (seal, &[Unreachable], Some(HOUR * 120), HOUR * 120, "reject GaveUp 5.4.1"),
        (seal, &[NoAddress], Some(HOUR * 120), HOUR * 120, "reject GaveUp 5.4.4"),
        (seal, &[], None, zero, "defer Unreachable"),
        (seal, &[TooBig, Unreachable], Some(HOUR), HOUR, "defer Unreachable"),
        // Doubt: until give_up, whatever else is known.
        (bounce, &[NoStartTls, Dns], Some(HOUR * 99), HOUR * 99, "defer DnsTrouble"),
        (seal, &[TooBig, Dns], None, zero, "defer DnsTrouble"),
        (seal, &[Dns], Some(HOUR * 120), HOUR * 120, "reject GaveUp 5.4.3"),
        // What can't be carried: at once.
        (seal, &[TooBig, EightBit], None, zero, "envelope CannotCarry"),
        (wait, &[TooBig], None, zero, "defer CannotCarry"),
        (bounce, &[TooBig], None, zero, "reject CannotCarry 5.3.4"),
        (bounce, &[EightBit], None, zero, "reject CannotCarry 5.6.3"),
        (seal, &[Utf8, Utf8], None, zero, "reject CannotCarry 5.6.7"),
        (seal, &[Utf8, TooBig], None, zero, "envelope CannotCarry"),
        (seal, &[NoRequireTls], None, zero, "reject CannotCarry 5.7.30"),
        (require, &[NoRequireTls, TooBig], None, zero, "envelope CannotCarry"),
        (seal, &[NoRequireTls, Unreachable], None, zero, "defer Unreachable"),
    ] {
        let tried = failed(tried);
        let case = Case { tried, failing, age, exhausted: true, ..case(partner) };
        assert_eq!(case.short(), expected, "{partner:?} {:?} {failing:?}", case.tried);
    }
}

#[test]
fn without_an_entry_the_envelope_comes_at_once() {
    let set = set("", "[default]\nlevel = \"secure\"");
    let tried = failed(&[Trouble::NoStartTls]);
    let case = Case { set, tried, exhausted: true, ..case("") };
    assert_eq!(case.short(), "envelope LevelNotMet");
}

#[test]
fn a_rule_lets_pass_and_is_named() {
    let case = Case { rule: passing(), peer: Some(peer(StartTls::NotOffered)), ..case("") };
    let Route::Direct(clearance) = case.route() else { panic!("not direct") };
    let why = clearance.why();
    assert_eq!(why.reason, Reason::RulePass);
    assert_eq!((why.policy.file.as_str(), why.policy.line), ("rules.toml", 7));
    assert_eq!(why.policy.level, Level::Opportunistic);
}

#[test]
fn a_clearance_is_for_one_connection() {
    let keys = "level = \"secure\"\nmark = \"X-Via: gateway\"";
    let case = Case { peer: Some(good_peer()), ..case(keys) };
    let Route::Direct(clearance) = case.route() else { panic!("not direct") };
    assert_eq!(clearance.connection(), 7);
    assert_eq!(clearance.mark(), Some("X-Via: gateway"));
    let at = &clearance.why().policy;
    assert_eq!((at.file.as_str(), at.line, at.level), ("a.toml", 1, Level::Secure));
    assert_eq!(at.version, case.set.version());
}

#[test]
fn our_own_mail_is_never_sealed() {
    let notice = |level| Ask::Notice(level);
    let (zero, late) = (SignedDuration::ZERO, HOUR * 120);
    for (question, tried, age, expected) in [
        (notice(Level::Opportunistic), Trouble::Unreachable, zero, "defer Unreachable"),
        (notice(Level::Opportunistic), Trouble::Handshake, zero, "defer Unreachable"),
        (notice(Level::Encrypt), Trouble::NoStartTls, HOUR, "defer LevelNotMet"),
        (notice(Level::Encrypt), Trouble::NoStartTls, late, "reject GaveUp 5.7.4"),
        (notice(Level::Opportunistic), Trouble::TooBig, zero, "reject CannotCarry 5.3.4"),
        (Ask::Inside(Level::Verify), Trouble::Unproven, zero, "defer LevelNotMet"),
        (Ask::Inside(Level::Opportunistic), Trouble::Unreachable, late, "reject GaveUp 5.4.1"),
        (
            Ask::Inside(Level::Opportunistic),
            Trouble::NoRequireTls,
            zero,
            "reject CannotCarry 5.7.30",
        ),
    ] {
        let tried = failed(&[tried]);
        let case = Case { question, tried, age, exhausted: true, ..case("") };
        assert_eq!(case.short(), expected);
    }
    for (question, mx, peer, expected) in [
        (notice(Level::Opportunistic), None, None, "mx domain"),
        (notice(Level::Opportunistic), Some(MxFacts::NoDomain), None, "reject NoSuchDomain 5.1.2"),
        (notice(Level::Opportunistic), Some(hosts()), Some(StartTls::NotOffered), "direct Notice"),
        (notice(Level::Encrypt), Some(hosts()), Some(StartTls::NotOffered), "next NoStartTls"),
        (Ask::Inside(Level::Opportunistic), None, None, "mx [10.0.0.1]:25"),
        (Ask::Inside(Level::Opportunistic), Some(MxFacts::NoDomain), None, "defer NoSuchDomain"),
        (
            Ask::Inside(Level::Opportunistic),
            Some(hosts()),
            Some(StartTls::NotOffered),
            "direct Inside",
        ),
    ] {
        let case = Case { question, mx, peer: peer.map(self::peer), ..case("") };
        assert_eq!(case.short(), expected);
    }
}

#[test]
fn a_file_of_ours_that_cannot_be_used_is_not_the_partners_failure() {
    for (otherwise, age, expected) in [
        ("envelope", HOUR * 3, "defer Ours 4.3.5"),
        ("bounce", HOUR * 3, "defer Ours 4.3.5"),
        ("envelope", HOUR * 120, "reject GaveUp 5.3.5"),
    ] {
        for tried in [&[Trouble::Ours][..], &[Trouble::Unproven, Trouble::Ours]] {
            let (tried, failing) = (failed(tried), Some(HOUR * 2));
            let keys = format!("level = \"secure\"\notherwise = \"{otherwise}\"");
            let case = Case { tried, age, exhausted: true, failing, ..case(&keys) };
            let (Route::Defer(_, status) | Route::Reject(_, status)) = case.route() else {
                panic!("{otherwise}: {}", case.short())
            };
            let short = case.short();
            let head = short.split(' ').take(2).collect::<Vec<_>>().join(" ");
            assert_eq!(format!("{head} {status}"), expected, "{otherwise}");
        }
    }
}

#[test]
fn notices_to_a_partner_take_its_next_hop() {
    let keys = "level = \"envelope\"\nnext_hop = \"[mx.a.example]:587\"";
    let case = Case { question: Ask::Notice(Level::Opportunistic), mx: None, ..case(keys) };
    assert_eq!(case.short(), "mx [mx.a.example]:587");
}

#[test]
fn reasons_hold_no_text_of_the_peer() {
    let troubles = [Trouble::Unproven, Trouble::Unreachable, Trouble::Dns, Trouble::TooBig];
    for trouble in troubles {
        let case =
            Case { tried: failed(&[trouble]), exhausted: true, ..case("level = \"secure\"") };
        let (Route::Envelope(why) | Route::Defer(why, _) | Route::Reject(why, _)) = case.route()
        else {
            panic!("{trouble:?} decides nothing")
        };
        assert!(!why.text.contains("secret detail") && why.text.ends_with('.'), "{}", why.text);
    }
}
