//! A domain by script, and what a probe makes of it. The watch's tests use the same world.

use super::*;
use crate::{
    dns::{Addresses, Texts},
    policy::{
        Dane, DaneVerdict, HostTrouble, PeerFacts, PolicySet, Requirement, SourceFile, StartTls,
        StsFacts, StsMode, StsPolicy, TlsFacts, TlsUse, Tlsa, TlsaSet, Trouble,
    },
    smtp::{ClientTransaction, RecipientReply},
    store::Attempt,
    wire::{Peer, SendError, Source},
};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

pub(super) const DOMAIN: &str = "partner.example";

pub(super) fn start() -> Timestamp {
    "2026-11-25T12:00:00Z".parse().unwrap()
}

/// How a host is found.
#[derive(Debug, Clone)]
pub(super) enum Play {
    /// TLS with this certificate.
    Tls(Box<TlsFacts>),
    /// Not so far.
    Trouble(Trouble),
    /// DNS does not know its addresses now.
    DnsTrouble,
    /// It has none.
    NoAddress,
}

/// DNS, MTA-STS and the network in one.
#[derive(Debug)]
pub(super) struct World {
    pub(super) mx: Mutex<MxFacts>,
    pub(super) hosts: Mutex<BTreeMap<String, Play>>,
    pub(super) dane: Mutex<BTreeMap<String, Dane>>,
    pub(super) sts: Mutex<StsFacts>,
    pub(super) now: Mutex<Timestamp>,
    /// Host and SNI base of each connection made.
    connections: Mutex<Vec<(String, Option<String>)>>,
    quits: Arc<AtomicUsize>,
}

impl World {
    /// One host per name, each with this certificate.
    pub(super) fn new(dnssec: Dnssec, hosts: &[(&str, Play)]) -> Arc<Self> {
        let world = Self {
            mx: Mutex::new(MxFacts::Null),
            hosts: Mutex::default(),
            dane: Mutex::default(),
            sts: Mutex::new(StsFacts::Nothing),
            now: Mutex::new(start()),
            connections: Mutex::default(),
            quits: Arc::default(),
        };
        world.set(dnssec, hosts);
        Arc::new(world)
    }

    pub(super) fn set(&self, dnssec: Dnssec, hosts: &[(&str, Play)]) {
        let mx = (1..).zip(hosts);
        let mx = mx.map(|(preference, (name, _))| MxHost { name: (*name).into(), preference });
        *self.mx.lock().unwrap() = MxFacts::Hosts(mx.collect(), dnssec);
        *self.hosts.lock().unwrap() =
            hosts.iter().map(|(name, play)| ((*name).to_owned(), play.clone())).collect();
    }

    pub(super) fn prober(self: &Arc<Self>) -> Prober {
        let ports = ProbePorts {
            resolver: Arc::clone(self) as _,
            sts: Arc::clone(self) as _,
            connector: Arc::clone(self) as _,
            clock: Arc::clone(self) as _,
        };
        Prober::new(ports, 25)
    }

    fn play(&self, host: &str) -> Play {
        self.hosts.lock().unwrap().get(host).cloned().unwrap_or(Play::NoAddress)
    }
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }
}

#[async_trait]
impl Resolver for World {
    async fn mx(&self, _domain: &Domain) -> MxFacts {
        self.mx.lock().unwrap().clone()
    }
    async fn addresses(&self, host: &str) -> Addresses {
        match self.play(host) {
            Play::DnsTrouble => Addresses::Trouble("SERVFAIL".into()),
            Play::NoAddress => Addresses::None,
            Play::Tls(_) | Play::Trouble(_) => {
                Addresses::Found(vec![IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))])
            }
        }
    }
    async fn tlsa(&self, host: &str, _port: u16) -> Dane {
        let dane = self.dane.lock().unwrap().get(host).cloned();
        dane.unwrap_or_else(|| Dane::Absent("no such records".into()))
    }
    async fn texts(&self, _name: &str) -> Texts {
        Texts::None
    }
}

#[async_trait]
impl StsPolicies for World {
    async fn policy(&self, _domain: &Domain) -> StsFacts {
        self.sts.lock().unwrap().clone()
    }
}

#[async_trait]
impl Connector for World {
    async fn connect(
        &self,
        host: &str,
        address: SocketAddr,
        requirement: &Requirement,
    ) -> Result<Box<dyn Peer>, (HostTrouble, Box<Attempt>)> {
        assert_eq!(requirement.tls, TlsUse::Always);
        let base = requirement.tlsa.as_ref().map(|set| set.base.clone());
        self.connections.lock().unwrap().push((host.to_owned(), base));
        match self.play(host) {
            Play::Tls(mut tls) => {
                if requirement.tlsa.is_none() {
                    tls.dane = None;
                }
                let facts = PeerFacts {
                    connection: 1,
                    host: host.to_owned(),
                    address,
                    tls: StartTls::Done(*tls),
                    eight_bit: true,
                    smtputf8: false,
                    require_tls: true,
                    size: Some(10_000_000),
                };
                Ok(Box::new(Seen(facts, Arc::clone(&self.quits))))
            }
            Play::Trouble(trouble) => {
                let detail = format!("{trouble:?} by script");
                let attempt = Attempt {
                    at: start(),
                    mx: None,
                    address: None,
                    tls: None,
                    verified: false,
                    reply: None,
                    trouble: Some(trouble),
                    error: None,
                    dns: None,
                };
                Err((HostTrouble { host: host.into(), trouble, detail }, Box::new(attempt)))
            }
            Play::DnsTrouble | Play::NoAddress => unreachable!("it has no address"),
        }
    }
}

struct Seen(PeerFacts, Arc<AtomicUsize>);
#[async_trait]
impl Peer for Seen {
    fn facts(&self) -> &PeerFacts {
        &self.0
    }
    async fn send(
        &mut self,
        _transaction: ClientTransaction,
        _content: &mut dyn Source,
    ) -> Result<Vec<RecipientReply>, SendError> {
        unreachable!("a probe sends nothing")
    }
    fn is_ready(&mut self) -> bool {
        true
    }
    async fn quit(self: Box<Self>) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

/// A certificate with these names; `days` until it ends.
pub(super) fn certificate(names: &[&str], chain_error: Option<&str>, days: i64) -> Play {
    Play::Tls(Box::new(TlsFacts {
        version: "TLSv1.3".into(),
        cipher: "TLS13_AES_256_GCM_SHA384".into(),
        group: None,
        chain_error: chain_error.map(str::to_owned),
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        fingerprint: "aa".repeat(32),
        key_fingerprint: "bb".repeat(32),
        not_after: Some(start() + SignedDuration::from_hours(24 * days)),
        dane: Some(DaneVerdict::Met { record: "3 1 1 07…".into(), usage: 3 }),
    }))
}

pub(super) fn good(host: &str) -> Play {
    certificate(&[host], None, 90)
}

pub(super) fn set(files: &[(&str, &str)]) -> PolicySet {
    let file =
        |(name, text): &(&str, &str)| SourceFile { name: (*name).into(), text: (*text).into() };
    let files: Vec<SourceFile> = files.iter().map(file).collect();
    PolicySet::parse(&files, start()).unwrap().0
}

async fn look(world: &Arc<World>, policies: &PolicySet) -> Report {
    let domain: Domain = DOMAIN.parse().unwrap();
    world.prober().probe(&domain, Some(policies.lookup(&domain, start()))).await
}

fn passing(report: &Report) -> String {
    let passing = report.levels.iter().filter(|level| level.passes);
    passing.map(|level| level.level.as_str()).collect::<Vec<_>>().join(" ")
}

fn records(base: &str) -> Dane {
    let records = vec![Tlsa { usage: 3, selector: 1, matching: 1, data: vec![7; 32] }];
    Dane::Records(TlsaSet { base: base.into(), records })
}

fn sts(mode: StsMode, mx: &str) -> StsFacts {
    StsFacts::Policy(StsPolicy { id: "1".into(), mode, mx: vec![mx.into()], max_age: 86_400 })
}

const ANY: &str = "none opportunistic";
const TLS: &str = "none opportunistic encrypt fingerprint dane";
const CHAIN: &str = "none opportunistic encrypt fingerprint verify secure dane";

#[tokio::test]
async fn kinds_of_peers_and_the_levels_they_pass() {
    let (mx, other) = ("mx.partner.example", "mail.host.example");
    let trouble = |trouble| Play::Trouble(trouble);
    let private = || certificate(&[mx], Some("unknown issuer"), 90);
    for (host, sts, expected, suggested, reason) in [
        ((mx, good(mx)), StsFacts::Nothing, CHAIN, "secure", "bears a name of the domain"),
        (
            (other, good(other)),
            StsFacts::Nothing,
            "none opportunistic encrypt fingerprint verify dane",
            "secure",
            "bears the host's name, which only `match` may vouch for",
        ),
        (
            (mx, good(mx)),
            sts(StsMode::Enforce, "*.partner.example"),
            "none opportunistic encrypt fingerprint verify secure dane mta-sts auto",
            "secure",
            "enforced by MTA-STS",
        ),
        (
            (mx, good(mx)),
            sts(StsMode::Testing, "*.partner.example"),
            CHAIN,
            "secure",
            "MTA-STS that is not enforced",
        ),
        ((mx, private()), StsFacts::Nothing, TLS, "fingerprint", "private chain"),
        ((mx, trouble(Trouble::NoStartTls)), StsFacts::Nothing, ANY, "", "STARTTLS not offered"),
        ((mx, trouble(Trouble::StartTlsRefused)), StsFacts::Nothing, ANY, "", "STARTTLS refused"),
        ((mx, trouble(Trouble::Handshake)), StsFacts::Nothing, ANY, "", "no common version of TLS"),
    ] {
        assert_passes(&[host], sts, expected, suggested, reason).await;
    }
}

#[tokio::test]
async fn a_set_is_as_good_as_its_weakest_host_that_answers() {
    let (mx, other) = ("mx.partner.example", "mail.host.example");
    let trouble = |trouble| Play::Trouble(trouble);
    for (hosts, expected, suggested, reason) in [
        (
            vec![(mx, good(mx)), (other, trouble(Trouble::NoStartTls))],
            ANY,
            "",
            "half of the set without STARTTLS",
        ),
        (
            vec![(mx, good(mx)), (other, trouble(Trouble::Unreachable))],
            CHAIN,
            "secure",
            "who does not answer is not judged",
        ),
        (
            vec![(mx, good(mx)), (other, Play::NoAddress)],
            CHAIN,
            "secure",
            "nor is who has no address",
        ),
        (vec![(mx, trouble(Trouble::Unreachable))], "", "", "nobody answers"),
    ] {
        assert_passes(&hosts, StsFacts::Nothing, expected, suggested, reason).await;
    }
}

async fn assert_passes(
    hosts: &[(&str, Play)],
    sts: StsFacts,
    expected: &str,
    suggested: &str,
    reason: &str,
) {
    let world = World::new(Dnssec::Insecure, hosts);
    *world.sts.lock().unwrap() = sts;
    let report = look(&world, &PolicySet::default()).await;
    assert_eq!(passing(&report), expected, "{reason}");
    let level = report.suggestion.map_or("", |suggestion| suggestion.level.as_str());
    assert_eq!(level, suggested, "{reason}");
}

#[tokio::test]
async fn dane_is_judged_on_a_connection_that_asks_by_the_base() {
    let mx = "mx.partner.example";
    let shown = certificate(&[], Some("self-signed"), 90);
    for (dnssec, dane, expected, suggested, connections, reason) in [
        (
            Dnssec::Secure,
            records("base.example"),
            "none opportunistic encrypt fingerprint dane dane-only auto",
            "dane-only",
            vec![None, Some("base.example".to_owned())],
            "signed all the way",
        ),
        (Dnssec::Insecure, records(mx), TLS, "fingerprint", vec![None], "MX not signed"),
        (
            Dnssec::Secure,
            Dane::Absent("none".into()),
            TLS,
            "fingerprint",
            vec![None],
            "no records, so `dane` is `encrypt`",
        ),
        (
            Dnssec::Unchecked,
            records(mx),
            "none opportunistic encrypt fingerprint",
            "fingerprint",
            vec![None],
            "nobody here can tell",
        ),
        (
            Dnssec::Secure,
            Dane::Trouble("SERVFAIL".into()),
            "none opportunistic encrypt fingerprint",
            "fingerprint",
            vec![None],
            "doubt is no absence",
        ),
    ] {
        let world = World::new(dnssec, &[(mx, shown.clone())]);
        world.dane.lock().unwrap().insert(mx.into(), dane);
        let report = look(&world, &PolicySet::default()).await;
        assert_eq!(passing(&report), expected, "{reason}");
        assert_eq!(report.suggestion.unwrap().level.as_str(), suggested, "{reason}");
        let made = world.connections.lock().unwrap();
        let made: Vec<_> = made.iter().map(|(_, base)| base.clone()).collect();
        assert_eq!(made, connections, "{reason}");
    }
}

#[tokio::test]
async fn answers_of_dns_that_end_the_look() {
    for (mx, answer) in [
        (MxFacts::NoDomain, Answer::NoDomain),
        (MxFacts::NoHost, Answer::NoHost),
        (MxFacts::Null, Answer::NullMx),
        (MxFacts::Trouble("SERVFAIL".into()), Answer::Trouble),
        (MxFacts::Refused("127.0.0.1".into()), Answer::Refused),
    ] {
        let world = World::new(Dnssec::Insecure, &[]);
        *world.mx.lock().unwrap() = mx;
        let report = look(&world, &PolicySet::default()).await;
        assert_eq!(report.answer, answer);
        assert!(report.error.is_some(), "{answer:?}");
        assert!(report.levels.is_empty() && report.suggestion.is_none(), "{answer:?}");
    }
}

#[tokio::test]
async fn the_entry_in_force_is_judged_as_it_stands() {
    let (mx, other) = ("mx.partner.example", "mail.host.example");
    for (entry, hosts, passes, says) in [
        ("level = \"secure\"", vec![(mx, good(mx))], true, "bears mx.partner.example"),
        ("level = \"secure\"", vec![(other, good(other))], false, "wanted is partner.example"),
        (
            "level = \"secure\"\nmatch = [\".host.example\"]",
            vec![(other, good(other))],
            true,
            "bears mail.host.example",
        ),
        ("level = \"encrypt\"\nmin_tls = \"1.3\"", vec![(mx, good(mx))], true, "TLSv1.3"),
        ("level = \"mta-sts\"", vec![(mx, good(mx))], false, "no MTA-STS policy"),
    ] {
        let text = format!("[[partner]]\ndomains = [\"{DOMAIN}\"]\n{entry}\n");
        let world = World::new(Dnssec::Insecure, &hosts);
        let report = look(&world, &set(&[("p.toml", &text)])).await;
        let policy = report.policy.unwrap();
        assert_eq!((policy.file.as_str(), policy.line), ("p.toml", 1));
        assert_eq!(policy.verdict.passes, passes, "{entry}: {}", policy.verdict.why);
        assert!(policy.verdict.why.contains(says), "{entry}: {}", policy.verdict.why);
    }
}

#[tokio::test]
async fn a_next_hop_is_looked_at_in_place_of_the_mx_set() {
    let text = "[[partner]]\ndomains = [\"partner.example\"]\nlevel = \"encrypt\"\n\
        next_hop = \"[relay.example]:587\"\n";
    let world = World::new(Dnssec::Insecure, &[("relay.example", good("relay.example"))]);
    *world.mx.lock().unwrap() = MxFacts::Null;
    let report = look(&world, &set(&[("p.toml", text)])).await;
    assert_eq!(report.hosts[0].name, "relay.example");
    assert_eq!(report.hosts[0].addresses[0].address.port(), 587);
    let toml = report.suggestion.unwrap().toml;
    assert!(toml.contains("next_hop = \"[relay.example]:587\""), "{toml}");
}

/// Every suggestion is a policy file that the check takes without a word, and is met by what was
/// seen.
#[tokio::test]
async fn suggestions_pass_the_check_and_the_look() {
    let (mx, other) = ("mx.partner.example", "mail.host.example");
    let private = certificate(&["x\"]\n[default]"], Some("unknown issuer"), 90);
    for (hosts, line) in [
        (vec![(mx, good(mx))], "level = \"secure\""),
        (vec![(other, good(other)), (mx, good(mx))], "match = [\"mail.host.example\", \"mx.p"),
        (vec![(mx, private)], "fingerprints = [\"sha256:bb"),
    ] {
        let world = World::new(Dnssec::Insecure, &hosts);
        let toml = look(&world, &PolicySet::default()).await.suggestion.unwrap().toml;
        assert!(toml.contains(line), "{toml}");
        assert!(toml.contains("certificate valid until 2027-02-23"), "{toml}");
        let file = SourceFile { name: "p.toml".into(), text: toml.clone() };
        let (policies, warnings) = PolicySet::parse(&[file], start()).unwrap();
        assert_eq!(warnings, [], "{toml}");
        let report = look(&world, &policies).await;
        assert!(report.policy.unwrap().verdict.passes, "{toml}");
    }
}

#[tokio::test]
async fn names_that_unsigned_dns_gave_are_to_be_asked_for() {
    let (mx, other) = ("mx.partner.example", "mail.host.example");
    let entry = format!(
        "[[partner]]\ndomains = [\"{DOMAIN}\"]\nlevel = \"secure\"\nmatch = [\".host.example\"]\n"
    );
    let (own, hop) = (String::new(), entry.clone() + "next_hop = \"[relay.example]:587\"\n");
    for (dnssec, host, entry, expected, reason) in [
        (Dnssec::Insecure, other, &own, true, "not signed"),
        (Dnssec::Unchecked, other, &own, true, "not known to be signed"),
        (Dnssec::Secure, other, &own, false, "signed"),
        (Dnssec::Insecure, mx, &own, false, "the certificate bears the domain: no names"),
        (Dnssec::Insecure, other, &entry, false, "the names are the entry's"),
        (Dnssec::Insecure, "mx.new.example", &entry, true, "the entry's names no longer do"),
        (Dnssec::Insecure, "relay.example", &hop, false, "configuration named the host"),
    ] {
        let world = World::new(dnssec, &[(host, good(host))]);
        let toml = look(&world, &set(&[("p.toml", entry)])).await.suggestion.unwrap().toml;
        assert!(toml.contains("level = \"secure\""), "{reason}: {toml}");
        let asks = "# Names that DNS gave today, unsigned: ask the partner whether these are its \
            hosts.\n[[partner]]";
        assert_eq!(toml.contains(asks), expected, "{reason}: {toml}");
    }
}

#[tokio::test]
async fn a_set_without_end_is_looked_at_in_part() {
    let names: Vec<String> = (0..100).map(|n| format!("mx{n}.partner.example")).collect();
    let hosts: Vec<(&str, Play)> = names.iter().map(|name| (name.as_str(), good(name))).collect();
    let world = World::new(Dnssec::Insecure, &hosts);
    let report = look(&world, &PolicySet::default()).await;
    assert_eq!(report.hosts.len(), HOSTS_MAX);
    assert_eq!(world.connections.lock().unwrap().len(), HOSTS_MAX);
    assert_eq!(world.quits.load(Ordering::SeqCst), HOSTS_MAX);
    let shown: Vec<_> = report.hosts.iter().map(|host| host.name.clone()).collect();
    assert_eq!(shown, names[..HOSTS_MAX], "in the order of the set");
}
