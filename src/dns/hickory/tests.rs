//! Against a small name server with another codec than the resolver's own.

use super::*;
use std::{
    net::Ipv6Addr,
    str::FromStr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::net::UdpSocket;
use trust_dns_proto::{
    op::{Message, MessageType, ResponseCode as Code},
    rr::{
        Name as ZoneName, RData as Data, Record, RecordType as Type,
        rdata::{
            A, AAAA, CNAME, MX, NS, SOA, TLSA,
            tlsa::{CertUsage, Matching, Selector},
        },
    },
};

/// What the name server does with a question.
enum Say {
    /// These records of the name (and aliases followed as far as the list says), or none.
    Records(Vec<(&'static str, Data)>),
    Code(Code),
    /// NXDOMAIN or empty NOERROR with SOA.
    NoName,
    Empty,
    /// Name servers instead of an answer.
    Referral,
    Garbage,
    Silence,
}

fn n(text: &str) -> ZoneName {
    ZoneName::from_str(text).unwrap()
}
fn mx(preference: u16, host: &str) -> Data {
    Data::MX(MX::new(preference, n(host)))
}
fn a(last: u8) -> Data {
    Data::A(A(Ipv4Addr::new(192, 0, 2, last)))
}
fn aaaa(last: u16) -> Data {
    Data::AAAA(AAAA(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)))
}
fn alias(target: &str) -> Data {
    Data::CNAME(CNAME(n(target)))
}
fn tlsa(byte: u8) -> Data {
    let hash = vec![byte; 32];
    Data::TLSA(TLSA::new(CertUsage::DomainIssued, Selector::Full, Matching::Sha256, hash))
}
fn soa() -> Record {
    let soa = SOA::new(n("ns.test."), n("hostmaster.test."), 1, 3600, 600, 86400, 1);
    Record::from_rdata(n("test."), 1, Data::SOA(soa))
}

fn zone(name: &str, kind: Type) -> Say {
    use Say::{Code as Rcode, Empty, Garbage, NoName, Records, Referral, Silence};
    match (name, kind) {
        ("plain.test.", Type::MX) => Records(vec![
            ("plain.test.", mx(20, "Backup.Plain.test.")),
            ("plain.test.", mx(10, "mx.plain.test.")),
        ]),
        ("equal.test.", Type::MX) => Records(
            ["a", "b", "c", "d"]
                .iter()
                .map(|h| ("equal.test.", mx(5, &format!("{h}.equal.test."))))
                .collect(),
        ),
        ("many.test.", Type::MX) => {
            Records((0..40).map(|i| ("many.test.", mx(i, &format!("m{i}.many.test.")))).collect())
        }
        ("null.test.", Type::MX) => Records(vec![("null.test.", mx(0, "."))]),
        ("dots.test.", Type::MX) => {
            Records(vec![("dots.test.", mx(0, ".")), ("dots.test.", mx(9, "mx.test."))])
        }
        ("literal.test.", Type::MX) => Records(vec![("literal.test.", mx(0, "192.0.2.1."))]),
        ("address.test.", Type::A) => Records(vec![("address.test.", a(1))]),
        ("six.test.", Type::AAAA) => Records(vec![("six.test.", aaaa(6))]),
        ("both.test.", Type::A) => Records(vec![("both.test.", a(1)), ("both.test.", a(2))]),
        ("both.test.", Type::AAAA) => Records(vec![("both.test.", aaaa(6))]),
        ("half.test.", Type::A) => Records(vec![("half.test.", a(3))]),
        ("half.test.", Type::AAAA) => Rcode(Code::ServFail),
        ("dark.test.", Type::A) => Empty,
        ("dark.test.", Type::AAAA) => Rcode(Code::ServFail),
        ("alias.test.", _) => Records(vec![("alias.test.", alias("plain.test."))]),
        ("mxalias.test.", Type::A) => {
            Records(vec![("mxalias.test.", alias("address.test.")), ("address.test.", a(1))])
        }
        ("dangling.test.", _) => Records(vec![("dangling.test.", alias("nowhere.test."))]),
        ("loop.test.", _) => Records(vec![("loop.test.", alias("pool.test."))]),
        ("pool.test.", _) => Records(vec![("pool.test.", alias("loop.test."))]),
        ("liar.test.", Type::A) => Records(vec![("liar.test.", a(7))]),
        ("liar.test.", _) | ("nowhere.test.", _) => NoName,
        ("bare.test.", _) => Records(vec![]),
        ("lame.test.", _) => Referral,
        ("servfail.test.", _) => Rcode(Code::ServFail),
        ("refused.test.", _) => Rcode(Code::Refused),
        ("notimp.test.", _) => Rcode(Code::NotImp),
        ("garbage.test.", _) => Garbage,
        ("silent.test.", _) => Silence,
        (".", Type::SOA) => Records(vec![(".", soa().into_data().unwrap())]),
        ("mx.plain.test.", Type::A) => Records(vec![("mx.plain.test.", a(4))]),
        ("mx.signed.test.", Type::A) => Records(vec![("mx.signed.test.", a(4))]),
        ("crowd.signed.test.", Type::A) => Records(vec![("crowd.signed.test.", a(4))]),
        ("signed.test.", Type::MX) => Records(vec![("signed.test.", mx(1, "mx.signed.test."))]),
        ("_25._tcp.mx.signed.test.", Type::TLSA) => {
            Records(vec![("_25._tcp.mx.signed.test.", tlsa(1))])
        }
        ("_25._tcp.crowd.signed.test.", Type::TLSA) => {
            // Short ones: they fit into one datagram.
            let key =
                |i| TLSA::new(CertUsage::DomainIssued, Selector::Spki, Matching::Raw, vec![i]);
            let owner = "_25._tcp.crowd.signed.test.";
            Records((0..40).map(|i| (owner, Data::TLSA(key(i)))).collect())
        }
        ("_25._tcp.fails.signed.test.", Type::TLSA) => Rcode(Code::ServFail),
        ("fails.signed.test.", Type::A) => Records(vec![("fails.signed.test.", a(5))]),
        // Answers what nobody asked for.
        ("_25._tcp.stray.signed.test.", Type::TLSA) => {
            Records(vec![("_25._tcp.mx.signed.test.", tlsa(1))])
        }
        ("stray.signed.test.", Type::A) => Records(vec![("stray.signed.test.", a(6))]),
        ("implicit-trouble.test.", Type::MX) => Empty,
        ("implicit-trouble.test.", _) => Rcode(Code::Refused),
        _ => Empty,
    }
}

/// The AD bit: only where it is asked for.
fn is_signed(question: &Message, name: &str, validates: bool) -> bool {
    let signed = name == "." || name.ends_with("signed.test.");
    question.authentic_data() && validates && signed
}

fn answer(question: &Message, validates: bool) -> Option<Vec<u8>> {
    let query = question.queries()[0].clone();
    let mut reply = Message::new();
    reply.set_id(question.id()).set_message_type(MessageType::Response);
    reply.set_recursion_desired(true).set_recursion_available(true);
    let name = query.name().to_lowercase().to_ascii();
    let kind = query.query_type();
    reply.add_query(query);
    reply.set_authentic_data(is_signed(question, &name, validates));
    match zone(&name, kind) {
        Say::Records(records) => {
            for (owner, data) in records {
                reply.add_answer(Record::from_rdata(n(owner), 1, data));
            }
        }
        Say::Code(code) => {
            reply.set_response_code(code);
        }
        Say::NoName => {
            reply.set_response_code(Code::NXDomain).add_name_server(soa());
        }
        Say::Empty => {
            reply.add_name_server(soa());
        }
        Say::Referral => {
            reply.add_name_server(Record::from_rdata(n("test."), 1, Data::NS(NS(n("ns.else.")))));
        }
        Say::Garbage => {
            let id = question.id().to_be_bytes();
            return Some(vec![id[0], id[1], 0x84, 0, 0, 1, 0, 9, 0, 0, 0, 0, 0xc0, 0x0c, 1]);
        }
        Say::Silence => return None,
    }
    Some(reply.to_vec().unwrap())
}

/// A running name server.
#[derive(Clone, Default)]
struct Server {
    /// It validates, and says AD.
    validates: Arc<AtomicBool>,
    /// What it was asked.
    asked: Arc<Mutex<Vec<(String, Type)>>>,
}

impl Server {
    async fn start(&self) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let server = self.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
                let query = &question.queries()[0];
                let asked = (query.name().to_lowercase().to_ascii(), query.query_type());
                server.asked.lock().unwrap().push(asked);
                let validates = server.validates.load(Ordering::Relaxed);
                if let Some(bytes) = answer(&question, validates) {
                    let _ = socket.send_to(&bytes, from).await;
                }
            }
        });
        address
    }

    fn was_asked(&self, kind: Type) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(_, k)| *k == kind).map(|(name, _)| name.clone()).collect()
    }
}

async fn resolver(ipv6: bool) -> HickoryResolver {
    let mut resolver = HickoryResolver::new(&[Server::default().start().await], ipv6).unwrap();
    resolver.whole = Duration::from_secs(2);
    resolver
}

async fn mx_facts(resolver: &HickoryResolver, domain: &str) -> MxFacts {
    resolver.mx(&domain.parse().unwrap()).await
}

fn names(facts: &MxFacts) -> Vec<&str> {
    match facts {
        MxFacts::Hosts(hosts, _) => hosts.iter().map(|h| h.name.as_str()).collect(),
        MxFacts::NoDomain
        | MxFacts::NoHost
        | MxFacts::Null
        | MxFacts::Trouble(_)
        | MxFacts::Refused(_) => panic!("{facts:?} holds no hosts"),
    }
}

#[tokio::test]
async fn exchangers_come_by_preference_in_lower_case() {
    let resolver = resolver(true).await;
    let rows: &[(&str, &[&str])] = &[
        ("plain.test", &["mx.plain.test", "backup.plain.test"]),
        ("dots.test", &["mx.test"]), // `.` beside others is passed over
        ("alias.test", &["mx.plain.test", "backup.plain.test"]), // the domain itself is an alias
        ("address.test", &["address.test"]), // implicit MX
        ("six.test", &["six.test"]),
        ("liar.test", &["liar.test"]), // NXDOMAIN for MX, yet an address
        ("[192.0.2.9]", &["192.0.2.9"]),
    ];
    for (domain, hosts) in rows {
        assert_eq!(names(&mx_facts(&resolver, domain).await), *hosts, "{domain}");
    }
}

#[tokio::test]
async fn equals_are_shuffled_and_the_set_is_bounded() {
    let resolver = resolver(true).await;
    let mut firsts = std::collections::BTreeSet::new();
    for _ in 0..200 {
        firsts.insert(names(&mx_facts(&resolver, "equal.test").await)[0].to_owned());
    }
    assert_eq!(firsts.len(), 4);
    let facts = mx_facts(&resolver, "many.test").await;
    let many = names(&facts);
    assert_eq!((many.len(), many[0], many[19]), (MAX_HOSTS, "m0.many.test", "m19.many.test"));
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_known() {
    let resolver = resolver(true).await;
    let kind = |facts: &MxFacts| match facts {
        MxFacts::Hosts(..) => "hosts",
        MxFacts::NoDomain => "no domain",
        MxFacts::NoHost => "no host",
        MxFacts::Null => "null",
        MxFacts::Trouble(_) => "trouble",
        MxFacts::Refused(_) => "refused",
    };
    for (domain, expected) in [
        ("nowhere.test", "no domain"),
        ("dangling.test", "no domain"), // an alias to a name that does not exist
        ("bare.test", "no host"),       // NOERROR, empty, no SOA
        ("empty.test", "no host"),
        ("null.test", "null"),
        ("literal.test", "refused"), // an address is no host name
        ("servfail.test", "trouble"),
        ("refused.test", "trouble"),
        ("notimp.test", "trouble"),
        ("lame.test", "trouble"),
        ("loop.test", "trouble"),
        ("garbage.test", "trouble"),
        ("silent.test", "trouble"),
        ("implicit-trouble.test", "trouble"),
        ("dark.test", "trouble"), // no A, and AAAA can't be known
    ] {
        let facts = mx_facts(&resolver, domain).await;
        assert_eq!(kind(&facts), expected, "{domain}: {facts:?}");
    }
}

#[tokio::test]
async fn no_name_server_is_trouble() {
    let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut resolver = HickoryResolver::new(&[dead], true).unwrap();
    resolver.whole = Duration::from_secs(2);
    assert!(matches!(mx_facts(&resolver, "plain.test").await, MxFacts::Trouble(_)));
    assert!(matches!(resolver.addresses("plain.test").await, Addresses::Trouble(_)));
}

#[tokio::test]
async fn addresses_of_hosts() {
    let found = |ips: &[&str]| Addresses::Found(ips.iter().map(|ip| ip.parse().unwrap()).collect());
    let six = resolver(true).await;
    let four = resolver(false).await;
    assert_eq!(six.addresses("address.test").await, found(&["192.0.2.1"]));
    assert_eq!(six.addresses("mxalias.test").await, found(&["192.0.2.1"]));
    assert_eq!(six.addresses("192.0.2.77").await, found(&["192.0.2.77"]));
    assert_eq!(six.addresses("[2001:db8::1]").await, found(&["2001:db8::1"]));
    assert_eq!(six.addresses("half.test").await, found(&["192.0.2.3"])); // one family suffices
    assert_eq!(six.addresses("empty.test").await, Addresses::None);
    assert_eq!(six.addresses("nowhere.test").await, Addresses::None);
    assert_eq!(four.addresses("address.test").await, found(&["192.0.2.1"]));
    for host in ["dark.test", "servfail.test", "loop.test", "silent.test"] {
        assert!(matches!(six.addresses(host).await, Addresses::Trouble(_)), "{host}");
    }
    // IPv6 only, and we don't speak it: not gone, so not a bounce.
    assert!(matches!(four.addresses("six.test").await, Addresses::Trouble(_)));
}

#[tokio::test]
async fn families_take_turns() {
    let resolver = resolver(true).await;
    let Addresses::Found(found) = resolver.addresses("both.test").await else { panic!() };
    let v6: Vec<bool> = found.iter().map(IpAddr::is_ipv6).collect();
    assert_eq!(v6, [true, false, false]);
}

fn worth(facts: &MxFacts) -> Dnssec {
    let MxFacts::Hosts(_, worth) = facts else { panic!("{facts:?} holds no hosts") };
    *worth
}

#[tokio::test]
async fn the_ad_bit_of_a_resolver_here_is_asked_for_and_believed() {
    let server = Server::default();
    server.validates.store(true, Ordering::Relaxed);
    let resolver = HickoryResolver::new(&[server.start().await], true).unwrap();
    let resolver = resolver.with_dnssec(Validation::TrustAd);
    assert_eq!(worth(&mx_facts(&resolver, "signed.test").await), Dnssec::Secure);
    assert_eq!(worth(&mx_facts(&resolver, "plain.test").await), Dnssec::Insecure);
    let Dane::Records(set) = resolver.tlsa("mx.signed.test", 25).await else { panic!() };
    assert_eq!((set.base.as_str(), set.records.len()), ("mx.signed.test", 1));
    let dane = resolver.tlsa("crowd.signed.test", 25).await;
    let Dane::Records(set) = dane else { panic!("{dane:?}") };
    assert_eq!(set.records.len(), 32, "bounded");
    for (host, trouble) in [("fails.signed.test", true), ("stray.signed.test", false)] {
        let dane = resolver.tlsa(host, 25).await;
        let as_expected = match &dane {
            Dane::Trouble(_) => trouble,
            Dane::Unchecked => !trouble,
            _ => false,
        };
        assert!(as_expected, "{host}: {dane:?}");
    }
}

#[tokio::test]
async fn hosts_that_are_not_signed_are_not_asked_for_tlsa() {
    let server = Server::default();
    server.validates.store(true, Ordering::Relaxed);
    let resolver = HickoryResolver::new(&[server.start().await], true).unwrap();
    let resolver = resolver.with_dnssec(Validation::TrustAd);
    assert!(matches!(resolver.tlsa("mx.plain.test", 25).await, Dane::Absent(_)));
    assert!(server.was_asked(Type::A).contains(&"mx.plain.test.".to_owned()));
    assert_eq!(server.was_asked(Type::TLSA), Vec::<String>::new());
}

#[tokio::test]
async fn a_resolver_that_does_not_validate_is_tried_again() {
    let server = Server::default();
    let resolver = HickoryResolver::new(&[server.start().await], true).unwrap();
    let resolver = resolver.with_dnssec(Validation::TrustAd);
    assert_eq!(resolver.health().text, "not tried yet");
    assert_eq!(worth(&mx_facts(&resolver, "signed.test").await), Dnssec::Unchecked);
    assert_eq!(resolver.tlsa("mx.signed.test", 25).await, Dane::Unchecked);
    let health = resolver.health();
    assert!(!health.working && health.text.contains("AD bit"), "{health:?}");
    server.validates.store(true, Ordering::Relaxed);
    assert!(resolver.check_now().await.working);
    assert_eq!(worth(&mx_facts(&resolver, "signed.test").await), Dnssec::Secure);
}

#[tokio::test]
async fn ad_from_elsewhere_is_worth_nothing() {
    let server = Server::default();
    let here = server.start().await;
    let elsewhere = SocketAddr::from(([192, 0, 2, 53], 53));
    for servers in [vec![elsewhere], vec![here, elsewhere]] {
        let resolver = HickoryResolver::new(&servers, true).unwrap();
        let health = resolver.with_dnssec(Validation::TrustAd).check_now().await;
        assert!(!health.working && health.text.contains("192.0.2.53 is not"), "{health:?}");
    }
    assert!(server.asked.lock().unwrap().is_empty(), "nobody need be asked");
}

#[tokio::test]
async fn without_signatures_validation_does_not_begin() {
    let server = Server::default();
    let resolver = HickoryResolver::new(&[server.start().await], true).unwrap();
    let resolver = resolver.with_dnssec(Validation::Validate(Anchors::default()));
    assert_eq!(worth(&mx_facts(&resolver, "plain.test").await), Dnssec::Unchecked);
    assert_eq!(
        resolver.addresses("address.test").await,
        Addresses::Found(vec!["192.0.2.1".parse().unwrap()])
    );
    let health = resolver.health();
    assert!(!health.working && health.text.contains("hands on signatures"), "{health:?}");
}
