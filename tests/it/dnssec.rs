//! DNSSEC and TLSA against a signed tree: what is signed, what is not, and what is false.

use crate::support::{
    free_port,
    gateway::{Gateway, Settings},
    pki::Pki,
    signed::{Kind, Signed},
    sink::{Manner, Sink},
    smtp, wait_for,
};
use data_encoding::HEXLOWER;
use futures_util::future::join_all;
use restante::{
    dns::{
        Addresses, Resolver,
        hickory::{Anchors, HickoryResolver, Validation},
    },
    policy::{Dane, MxFacts},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use trust_dns_proto::{
    op::Message,
    serialize::binary::{BinDecodable, BinEncodable},
};

/// SHA-256 of nothing, and of something else.
pub const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
pub const OTHER: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

fn zones() -> Vec<(&'static str, Kind, String)> {
    let partner = format!(
        "@ MX 10 mx\n@ MX 20 mx.insecure.test.\n\
         mx A 127.0.0.2\n_25._tcp.mx TLSA 3 1 1 {HASH}\n_2500._tcp.mx TLSA 3 1 1 {OTHER}\n\
         none A 127.0.0.2\n\
         junk A 127.0.0.2\n_25._tcp.junk TLSA 1 0 1 {HASH}\n_25._tcp.junk TLSA 3 1 2 {HASH}\n\
         mixed A 127.0.0.2\n_25._tcp.mixed TLSA 0 0 1 {HASH}\n_25._tcp.mixed TLSA 2 0 1 {OTHER}\n\
         alias CNAME mx\n\
         own CNAME none\n_25._tcp.own TLSA 3 1 1 {OTHER}\n\
         both CNAME mx\n_25._tcp.both TLSA 3 1 1 {OTHER}\n\
         out CNAME mx.insecure.test.\n_25._tcp.out TLSA 3 1 1 {OTHER}\n\
         bare CNAME mx.insecure.test.\n\
         ref A 127.0.0.2\n_25._tcp.ref CNAME _25._tcp.mx\n\
         lost A 127.0.0.2\n_25._tcp.lost CNAME _25._tcp.mx.insecure.test.\n\
         gone A 127.0.0.2\n_25._tcp.gone CNAME _25._tcp.nowhere\n\
         rotten A 127.0.0.2\n_25._tcp.rotten CNAME _25._tcp.mx.stale.test.\n\
         wild A 127.0.0.2\n*._tcp.wild TLSA 3 1 1 {HASH}\n\
         six AAAA ::2\n_25._tcp.six TLSA 3 1 1 {HASH}\n\
         implicit A 127.0.0.2\n\
         mail CNAME @\n\
         xn--bcher-kva A 127.0.0.2\n_25._tcp.xn--bcher-kva TLSA 3 1 1 {HASH}\n\
         moved DNAME hosts\nmx.hosts A 127.0.0.2\n_25._tcp.mx.hosts TLSA 3 1 1 {HASH}\n"
    );
    vec![
        ("partner.test", Kind::Signed, partner),
        ("insecure.test", Kind::Unsigned, {
            let tlsa = format!("3 1 1 {HASH}");
            let more =
                "implicit A 127.0.0.3\nin CNAME mx.partner.test.\nmail CNAME partner.test.\n";
            Signed::mail("mx", "127.0.0.3", 25, &[&tlsa]) + more
        }),
        ("wrongkey.test", Kind::WrongKey, Signed::mail("mx", "127.0.0.4", 25, &[])),
        (
            "forged.test",
            Kind::Doctored("127.0.0.5", "127.0.0.66"),
            Signed::mail("mx", "127.0.0.5", 25, &[]),
        ),
        (
            "stale.test",
            Kind::Expired,
            Signed::mail("mx", "127.0.0.6", 25, &[&format!("3 1 1 {HASH}")]),
        ),
    ]
}

fn start(dir: &Path) -> Signed {
    let zones = zones();
    let zones: Vec<_> =
        zones.iter().map(|(name, kind, text)| (*name, *kind, text.as_str())).collect();
    Signed::start(dir, &zones)
}

pub fn resolver(server: SocketAddr, how: Validation) -> HickoryResolver {
    HickoryResolver::new(&[server], true).expect("set up").with_dnssec(how)
}

pub fn validate(anchor: &Path) -> Validation {
    Validation::Validate(Anchors::load(Some(anchor)).expect("anchors"))
}

/// Every way to know what is signed.
fn ways(signed: &Signed) -> Vec<(&'static str, HickoryResolver)> {
    vec![
        ("validate", resolver(signed.iterating, validate(&signed.anchor))),
        ("validate, anchored by key", resolver(signed.iterating, validate(&signed.anchor_key))),
        ("validate twice", resolver(signed.validating, validate(&signed.anchor))),
        ("trust-ad", resolver(signed.validating, Validation::TrustAd)),
    ]
}

/// What TLSA look-ups say, in short.
pub fn short(dane: &Dane) -> String {
    match dane {
        Dane::NotAsked => "not asked".to_owned(),
        Dane::Unchecked => "unchecked".to_owned(),
        Dane::Absent(_) => "absent".to_owned(),
        Dane::Unusable(_) => "unusable".to_owned(),
        Dane::Trouble(_) => "trouble".to_owned(),
        Dane::Records(set) => {
            let records: Vec<_> = set.records.iter().map(ToString::to_string).collect();
            format!("{}: {}", set.base, records.join(", "))
        }
    }
}

pub fn mx_in_short(facts: &MxFacts) -> String {
    match facts {
        MxFacts::Hosts(hosts, worth) => {
            let names: Vec<_> = hosts.iter().map(|h| h.name.as_str()).collect();
            format!("{worth:?}: {}", names.join(" "))
        }
        MxFacts::NoDomain => "no domain".to_owned(),
        MxFacts::NoHost => "no host".to_owned(),
        MxFacts::Null => "null".to_owned(),
        MxFacts::Trouble(_) => "trouble".to_owned(),
        MxFacts::Refused(_) => "refused".to_owned(),
    }
}

/// Host, what its TLSA look-up says, and why.
fn tlsa_rows() -> Vec<(&'static str, String, &'static str)> {
    let hash = "3 1 1 e3b0c44298fc1c14…";
    let other = "3 1 1 2c26b46b68ffc68f…";
    vec![
        ("mx.partner.test", format!("mx.partner.test: {hash}"), "records"),
        ("MX.Partner.test", format!("mx.partner.test: {hash}"), "names have no case"),
        ("none.partner.test", "absent".to_owned(), "a proof that there are none"),
        ("junk.partner.test", "unusable".to_owned(), "usage 1; a SHA-512 of 32 bytes"),
        ("mixed.partner.test", format!("mixed.partner.test: 2 0 1 {}", &other[6..]), "one of two"),
        ("alias.partner.test", format!("mx.partner.test: {hash}"), "an alias's end comes first"),
        ("both.partner.test", format!("mx.partner.test: {hash}"), "and has the last word"),
        ("own.partner.test", format!("own.partner.test: {other}"), "its own name comes after that"),
        ("out.partner.test", format!("out.partner.test: {other}"), "leads out of what is signed"),
        ("bare.partner.test", "absent".to_owned(), "the same, without records of its own"),
        ("ref.partner.test", format!("ref.partner.test: {hash}"), "the record's name is an alias"),
        ("lost.partner.test", "absent".to_owned(), "records in an unsigned zone are none"),
        ("gone.partner.test", "absent".to_owned(), "an alias to nothing, proved"),
        ("rotten.partner.test", "trouble".to_owned(), "an alias to expired signatures"),
        ("wild.partner.test", format!("wild.partner.test: {hash}"), "a wildcard"),
        (
            "xn--bcher-kva.partner.test",
            format!("xn--bcher-kva.partner.test: {hash}"),
            "letters beyond ASCII",
        ),
        ("mx.moved.partner.test", format!("mx.hosts.partner.test: {hash}"), "an alias by DNAME"),
        ("six.partner.test", format!("six.partner.test: {hash}"), "IPv6 alone"),
        ("nowhere.partner.test", "absent".to_owned(), "no such host"),
        ("mx.insecure.test", "absent".to_owned(), "not signed: its records do not count"),
        ("in.insecure.test", "absent".to_owned(), "an unsigned alias to a signed host"),
        ("127.0.0.2", "absent".to_owned(), "an address has no records"),
        ("mx.wrongkey.test", "trouble".to_owned(), "the parent vouches for another key"),
        ("mx.forged.test", "trouble".to_owned(), "the address was changed"),
        ("mx.stale.test", "trouble".to_owned(), "the signatures are out of date"),
    ]
}

/// Domain, what its MX look-up says, and why.
const MX: &[(&str, &str, &str)] = &[
    ("partner.test", "Secure: mx.partner.test mx.insecure.test", "signed"),
    ("mail.partner.test", "Secure: mx.partner.test mx.insecure.test", "over a signed alias"),
    ("implicit.partner.test", "Secure: implicit.partner.test", "proved to have no MX"),
    ("nowhere.partner.test", "no domain", "proved not to be"),
    ("insecure.test", "Insecure: mx.insecure.test", "not signed"),
    ("mail.insecure.test", "Insecure: mx.partner.test mx.insecure.test", "unsigned alias"),
    ("implicit.insecure.test", "Insecure: implicit.insecure.test", "not signed, no MX"),
    ("nowhere.insecure.test", "no domain", "not signed, not there"),
    ("wrongkey.test", "trouble", "bogus"),
    ("forged.test", "Secure: mx.forged.test", "only the address is false"),
    ("stale.test", "trouble", "expired"),
];

#[tokio::test]
async fn every_way_gives_the_same_answers() {
    let dir = tempfile::tempdir().expect("folder");
    let signed = start(dir.path());
    let tlsa = tlsa_rows();
    for (way, resolver) in ways(&signed) {
        let health = resolver.check_now().await;
        assert!(health.working, "{way}: {health:?}");
        // Twice: from the name servers, and from memory.
        for _ in 0..2 {
            for (host, expected, why) in &tlsa {
                let dane = resolver.tlsa(host, 25).await;
                assert_eq!(short(&dane), *expected, "{way}: {host} ({why}): {dane:?}");
            }
            for (domain, expected, why) in MX {
                let facts = resolver.mx(&domain.parse().expect("a domain")).await;
                assert_eq!(mx_in_short(&facts), *expected, "{way}: {domain} ({why}): {facts:?}");
            }
        }
        let port = resolver.tlsa("mx.partner.test", 2500).await;
        assert_eq!(short(&port), "mx.partner.test: 3 1 1 2c26b46b68ffc68f…", "{way}: another port");
        for host in ["mx.forged.test", "mx.stale.test", "mx.wrongkey.test"] {
            let found = resolver.addresses(host).await;
            assert!(matches!(found, Addresses::Trouble(_)), "{way}: {host}: {found:?}");
        }
        for (host, ip) in [("alias.partner.test", "127.0.0.2"), ("mx.insecure.test", "127.0.0.3")] {
            let ip = ip.parse().expect("an address");
            assert_eq!(resolver.addresses(host).await, Addresses::Found(vec![ip]), "{way}: {host}");
        }
    }
}

#[tokio::test]
async fn nobody_answers() {
    let dir = tempfile::tempdir().expect("folder");
    let zone = Signed::mail("mx", "127.0.0.2", 25, &[&format!("3 1 1 {HASH}")]);
    let mut signed = Signed::start(dir.path(), &[("partner.test", Kind::Signed, &zone)]);
    let ways = ways(&signed);
    for (way, resolver) in &ways {
        assert!(resolver.check_now().await.working, "{way}");
    }
    signed.stop_servers();
    each(&ways, async |way, resolver| {
        let dane = resolver.tlsa("mx.partner.test", 25).await;
        assert_eq!(short(&dane), "trouble", "{way}: SERVFAIL");
    })
    .await;
    signed.stop_resolvers();
    each(&ways, async |way, resolver| {
        assert_eq!(short(&resolver.tlsa("mx.partner.test", 26).await), "trouble", "{way}");
        // It has worked: what fails is the network, and nothing is believed unchecked meanwhile.
        assert!(resolver.check_now().await.working, "{way}");
        let facts = resolver.mx(&"partner.test".parse().expect("a domain")).await;
        assert_eq!(mx_in_short(&facts), "trouble", "{way}: {facts:?}");
    })
    .await;
}

/// All ways at the same time: each waits for answers that do not come.
async fn each(
    ways: &[(&'static str, HickoryResolver)],
    check: impl AsyncFn(&'static str, &HickoryResolver),
) {
    join_all(ways.iter().map(|(way, resolver)| check(way, resolver))).await;
}

#[tokio::test]
async fn what_was_changed_is_seen() {
    let dir = tempfile::tempdir().expect("folder");
    let signed = Signed::start(
        dir.path(),
        &[("partner.test", Kind::Signed, "@ MX 10 mx\nmx A 127.0.0.2\n")],
    );
    let resolver = resolver(signed.validating, Validation::TrustAd);
    assert_eq!(short(&resolver.tlsa("mx.partner.test", 25).await), "absent");
    let records = Signed::mail("mx", "127.0.0.2", 26, &[&format!("3 1 1 {HASH}")]);
    signed.change("partner.test", &records);
    let dane = resolver.tlsa("mx.partner.test", 26).await;
    assert_eq!(short(&dane), "mx.partner.test: 3 1 1 e3b0c44298fc1c14…");
}

#[tokio::test]
async fn what_cannot_be_checked_is_not_believed_and_mail_goes_on() {
    let dir = tempfile::tempdir().expect("folder");
    let signed = start(dir.path());
    let strips = Stripping::start(signed.iterating);
    let rows = [
        ("off", resolver(signed.validating, Validation::Off)),
        ("a forwarder that drops signatures", resolver(strips.address, validate(&signed.anchor))),
        (
            "anchors of another root",
            resolver(signed.iterating, Validation::Validate(Anchors::default())),
        ),
        ("a resolver that does not validate", resolver(signed.iterating, Validation::TrustAd)),
    ];
    for (why, resolver) in rows {
        for (domain, expected) in [
            ("partner.test", "Unchecked: mx.partner.test mx.insecure.test"),
            ("insecure.test", "Unchecked: mx.insecure.test"),
            ("implicit.partner.test", "Unchecked: implicit.partner.test"),
        ] {
            let facts = resolver.mx(&domain.parse().expect("a domain")).await;
            assert_eq!(mx_in_short(&facts), expected, "{why}: {domain}: {facts:?}");
        }
        let found = resolver.addresses("mx.partner.test").await;
        assert!(matches!(found, Addresses::Found(_)), "{why}: {found:?}");
        assert_eq!(short(&resolver.tlsa("mx.partner.test", 25).await), "unchecked", "{why}");
        let health = resolver.health();
        assert!(!health.working && !health.text.is_empty(), "{why}: {health:?}");
    }
}

/// A gateway with that name server and these lines in `[dns]`.
fn gateway(dir: &Path, server: SocketAddr, dns: String) -> Gateway {
    let settings = Settings { nameserver: Some(server), dns, ..Settings::default() };
    Gateway::prepare(dir, &settings, &[])
}

#[test]
fn status_and_log_say_whether_answers_are_checked() {
    let dir = tempfile::tempdir().expect("folder");
    let signed = Signed::start(dir.path(), &[]);
    let strips = Stripping::start(signed.iterating);
    let nobody = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let validate = format!("dnssec = \"validate\"\ntrust_anchor = \"{}\"", signed.anchor.display());
    let trust_ad = "dnssec = \"trust-ad\"".to_owned();
    let rows = [
        ("validate", signed.iterating, validate.clone(), true),
        ("trust-ad", signed.validating, trust_ad.clone(), true),
        ("validate", strips.address, validate, false),
        ("trust-ad", signed.iterating, trust_ad, false),
        ("validate", nobody.local_addr().expect("bound"), String::new(), false),
    ];
    for (number, (dnssec, server, dns, working)) in rows.into_iter().enumerate() {
        let mut gateway = gateway(&dir.path().join(number.to_string()), server, dns);
        // Ready at once, also where no name server answers.
        gateway.run();
        let status = wait_for("the first trial", || {
            let status = gateway.json(&["status"])["dns"].clone();
            (status["text"] != "not tried yet").then_some(status)
        });
        assert_eq!(status["dnssec"], dnssec, "{number}: {status}");
        assert_eq!(status["working"], working, "{number}: {status}");
        let log = gateway.log_text();
        let told = log.matches("DNSSEC can't be checked").count();
        assert_eq!(told, usize::from(!working), "{number}: told once:\n{log}");
        gateway.stop();
    }
}

#[test]
fn anchors_that_are_none_are_found_before_the_start() {
    let dir = tempfile::tempdir().expect("folder");
    let anchor = dir.path().join("root.ds");
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    let mut gateway = gateway(dir.path(), nowhere, "trust_anchor = \"root.ds\"".to_owned());
    for (text, says) in [
        (None, "root.ds: No such file"),
        (Some("example. DS 1 8 2 00\n"), "root.ds:1: not a record of the root"),
        (Some("; empty\n"), "root.ds:1: no DS or DNSKEY"),
    ] {
        if let Some(text) = text {
            std::fs::write(&anchor, text).expect("write");
        }
        for command in [&["config", "check"][..], &["serve"]] {
            let output = gateway.ask(command);
            let told = [output.stdout, output.stderr].concat();
            let told = String::from_utf8_lossy(&told);
            assert_eq!(output.status.code(), Some(78), "{command:?}: {told}");
            assert!(told.contains(says), "{command:?}: {told}");
        }
    }
    std::fs::write(&anchor, ". DS 20326 8 2 00FF\n").expect("write");
    assert!(gateway.ask(&["config", "check"]).status.success());
    gateway.run();
    gateway.stop();
}

#[test]
fn mail_at_dane_only_moves_where_records_are_proved_and_waits_elsewhere() {
    let dir = tempfile::tempdir().expect("folder");
    let leaf = Pki::new(dir.path()).self_signed("mx.partner.test");
    let certificate = CertificateDer::from_pem_file(&leaf.chain).expect("a certificate");
    let hash = HEXLOWER.encode(&Sha256::digest(&certificate));
    let port = free_port(&["127.0.0.2"]);
    let zone = Signed::mail("mx", "127.0.0.2", port, &[&format!("3 0 1 {hash}")]);
    let signed = Signed::start(dir.path(), &[("partner.test", Kind::Signed, &zone)]);
    let strips = Stripping::start(signed.iterating);
    let host = SocketAddr::from(([127, 0, 0, 2], port));
    let sink = Sink::start(host, Manner { tls: Some(leaf), ..Manner::default() });
    let policy = "[[partner]]\ndomains = [\"partner.test\"]\nlevel = \"dane-only\"\n";
    let anchor = signed.anchor.display();
    let dns = format!("dnssec = \"validate\"\ntrust_anchor = \"{anchor}\"");
    let start = |name: &str, server| {
        let (dns, nameserver) = (dns.clone(), Some(server));
        let settings = Settings { nameserver, dns, mx_port: port, ..Settings::default() };
        Gateway::start(&dir.path().join(name), &settings, &[("partner.toml", policy)])
    };
    let message = b"Subject: x\r\n\r\nx\r\n";
    let outcome = |gateway: &Gateway, wanted: &str| {
        let id = smtp::send(gateway.smtp, "a@example.org", &["b@partner.test"], message);
        wait_for(&format!("{id} to be {wanted}"), || {
            let life = gateway.json(&["trace", &id]);
            (life["recipients"][0]["outcome"] == wanted).then_some(life)
        })
    };
    let unproved = start("unproved", strips.address);
    let life = outcome(&unproved, "deferred");
    assert!(life["recipients"][0]["why"].to_string().contains("DNSSEC"), "{life}");
    assert!(sink.messages().is_empty());
    let proved = start("proved", signed.iterating);
    outcome(&proved, "delivered");
    assert_eq!(sink.messages().len(), 1);
}

/// A forwarder that knows nothing of EDNS, as many a router's: no signature passes it.
#[derive(Debug)]
struct Stripping {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stripping {
    fn start(behind: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let up = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        for socket in [&socket, &up] {
            socket.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
        }
        up.connect(behind).expect("set");
        let address = socket.local_addr().expect("bound");
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !told.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let Ok(mut query) = Message::from_bytes(&buffer[..length]) else { continue };
                *query.extensions_mut() = None;
                query.set_authentic_data(false);
                up.send(&query.to_bytes().expect("bytes")).expect("sent");
                if let Ok(length) = up.recv(&mut buffer) {
                    drop(socket.send_to(&buffer[..length], from));
                }
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

impl Drop for Stripping {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
