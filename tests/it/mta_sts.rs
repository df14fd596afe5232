//! MTA-STS (RFC 8461) against a real web server: every way in which a policy can fail to be one, and
//! the mail that waits or goes because of it.

use crate::support::{
    dns::{Records, Zone},
    free_port,
    gateway::{Gateway, Settings},
    house::House,
    nginx::{Nginx, policy_host, text},
    pki::{Leaf, Pki},
    sink::{Manner, Sink},
    smtp, wait_for,
};
use rcgen::{DnType, date_time_ymd};
use restante::{
    clock::SystemClock,
    dns::hickory::HickoryResolver,
    mail::Domain,
    net::{HttpsClient, HttpsSettings, TrustAnchors},
    policies::StsPolicies,
    policy::{StsFacts, StsMode},
    store::memory::MemoryStore,
    sts::{Sts, StsPorts},
};
use serde_json::Value;
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

const GOOD: &str = "version: STSv1\r\nmode: enforce\r\nmx: mx.a.test\r\nmax_age: 86400\r\n";

/// What is made of a domain.
#[derive(Debug)]
enum Is {
    Enforced,
    Testing,
    None,
    /// Not fetched, with these words.
    Not(&'static str),
}

/// The certificate that a host shows.
enum Shows {
    Its,
    SelfSigned,
    Names(&'static [&'static str]),
    From(i32),
    Until(i32),
    OnlyCommonName,
}

impl Shows {
    fn leaf(&self, pki: &Pki, host: &str) -> Leaf {
        match self {
            Self::Its => pki.leaf(host),
            Self::SelfSigned => pki.self_signed(host),
            Self::Names(names) => pki.odd_leaf(host, names, |_| {}),
            Self::From(year) => {
                pki.odd_leaf(host, &[host], |p| p.not_before = date_time_ymd(*year, 1, 1))
            }
            Self::Until(year) => {
                pki.odd_leaf(host, &[host], |p| p.not_after = date_time_ymd(*year, 1, 1))
            }
            Self::OnlyCommonName => {
                pki.odd_leaf(host, &[], |p| p.distinguished_name.push(DnType::CommonName, host))
            }
        }
    }
}

/// A domain that announces a policy, which its host serves at that address.
fn announce(zone: &Zone, domain: &str, at: SocketAddr) {
    zone.text(&format!("_mta-sts.{domain}"), "v=STSv1; id=1;");
    let a = vec![at.ip().to_string().parse::<Ipv4Addr>().expect("IPv4")];
    zone.set(&format!("mta-sts.{domain}"), Records { a, ..Records::default() });
}

fn service(zone: &Zone, settings: HttpsSettings) -> Sts {
    let resolver = Arc::new(HickoryResolver::new(&[zone.address], false).expect("resolver"));
    let clock = Arc::new(SystemClock);
    let web = HttpsClient::new(settings, resolver.clone(), clock.clone()).expect("client");
    let notes = Arc::new(MemoryStore::new());
    Sts::new(StsPorts { resolver, web: Arc::new(web), notes, clock })
}

fn settings(pki: &Pki, port: u16) -> HttpsSettings {
    let anchors = TrustAnchors::load(Some(&pki.anchors)).expect("anchors");
    HttpsSettings { port, ..HttpsSettings::new(anchors, Vec::new()) }
}

async fn assert_is(sts: &Sts, domain: &str, expected: &Is) {
    let facts = sts.policy(&domain.parse::<Domain>().expect("a domain")).await;
    let right = match (&facts, expected) {
        (StsFacts::Policy(policy), Is::Enforced) => policy.mode == StsMode::Enforce,
        (StsFacts::Policy(policy), Is::Testing) => policy.mode == StsMode::Testing,
        (StsFacts::Policy(policy), Is::None) => policy.mode == StsMode::None,
        (StsFacts::Unfetched(why), Is::Not(words)) => why.text.contains(words),
        _ => false,
    };
    assert!(right, "{domain}: {expected:?}, and not {facts:?}");
}

/// A policy of exactly so many bytes, as a file.
fn large(dir: &Path, name: &str, size: usize) -> String {
    let head = "version: STSv1\nmode: enforce\nmx: mx.a.test\nmax_age: 86400\nx: ";
    let file = dir.join(name);
    fs::write(&file, format!("{head}{}", "y".repeat(size - head.len()))).expect("written");
    format!("alias {};", file.display())
}

/// Domain, certificate, what is served, what it is taken for.
type Row = (&'static str, Shows, String, Is);

fn with(from: &str, to: &str) -> String {
    text(&GOOD.replace(from, to))
}

fn policies(dir: &Path) -> Vec<Row> {
    let lax = format!("charset utf-8; {}", text(GOOD));
    vec![
        ("crlf.test", Shows::Its, text(GOOD), Is::Enforced),
        ("lf.test", Shows::Its, with("\r\n", "\n"), Is::Enforced),
        ("parameters.test", Shows::Its, lax, Is::Enforced),
        ("testing.test", Shows::Its, with("enforce", "testing"), Is::Testing),
        ("none.test", Shows::Its, with("enforce", "none"), Is::None),
        ("largest.test", Shows::Its, large(dir, "largest", 65_536), Is::Enforced),
        ("wildcard.test", Shows::Names(&["*.wildcard.test"]), text(GOOD), Is::Enforced),
        ("version.test", Shows::Its, with("STSv1", "STSv2"), Is::Not("version is not STSv1")),
        ("nomode.test", Shows::Its, with("mode: enforce\r\n", ""), Is::Not("no mode")),
        ("mode.test", Shows::Its, with("enforce", "report"), Is::Not("mode is none of")),
        ("noage.test", Shows::Its, with("max_age: 86400\r\n", ""), Is::Not("no max_age")),
        ("nomx.test", Shows::Its, with("mx: mx.a.test\r\n", ""), Is::Not("no mx")),
        ("empty.test", Shows::Its, text(""), Is::Not("no version")),
    ]
}

/// RFC 8461 §3.3: what must not be taken for a policy.
fn answers(dir: &Path) -> Vec<Row> {
    let moved = |code: u16| format!("return {code} https://mta-sts.crlf.test$uri;");
    let status = |code: u16| format!("return {code};");
    let html = format!("default_type text/html; {}", text(GOOD));
    vec![
        ("moved.test", Shows::Its, moved(301), Is::Not("status 301")),
        ("found.test", Shows::Its, moved(302), Is::Not("status 302")),
        ("missing.test", Shows::Its, status(404), Is::Not("status 404")),
        ("broken.test", Shows::Its, status(500), Is::Not("status 500")),
        // nginx's own: hangs up.
        ("closed.test", Shows::Its, status(444), Is::Not("the answer")),
        ("html.test", Shows::Its, html, Is::Not("not text/plain")),
        ("large.test", Shows::Its, large(dir, "large", 65_537), Is::Not("larger than")),
    ]
}

/// RFC 8461 §3.3: certificates that prove nothing.
fn certificates() -> Vec<Row> {
    let rows = [
        ("expired.test", Shows::Until(2020), "expired"),
        ("early.test", Shows::From(2200), "not valid yet"),
        ("selfsigned.test", Shows::SelfSigned, "UnknownIssuer"),
        ("other.test", Shows::Names(&["mta-sts.crlf.test"]), "not valid for name"),
        ("domain.test", Shows::Names(&["domain.test"]), "not valid for name"),
        ("deep.test", Shows::Names(&["*.test"]), "not valid for name"),
        ("cn.test", Shows::OnlyCommonName, "TLS: "),
    ];
    rows.map(|(domain, shows, words)| (domain, shows, text(GOOD), Is::Not(words))).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_policy_served_as_the_rfc_says_counts() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (pki, zone) = (Pki::new(dir.path()), Zone::start());
    let port = free_port(&["127.0.0.1"]);
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let rows: Vec<Row> =
        [policies(dir.path()), answers(dir.path()), certificates()].into_iter().flatten().collect();
    let hosts: Vec<String> = rows
        .iter()
        .map(|(domain, shows, location, _)| {
            announce(&zone, domain, at);
            let host = format!("mta-sts.{domain}");
            policy_host(at, &host, &shows.leaf(&pki, &host), location, "")
        })
        .collect();
    let _nginx = Nginx::start(&dir.path().join("nginx"), &hosts, &[at]);
    let sts = service(&zone, settings(&pki, port));
    for (domain, _, _, expected) in &rows {
        assert_is(&sts, domain, expected).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_https_to_a_place_that_is_not_ours_is_spoken() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (pki, zone) = (Pki::new(dir.path()), Zone::start());
    let addresses = ["127.0.31.1", "127.0.31.2", "127.0.31.3", "127.0.31.4"];
    let port = free_port(&addresses);
    let [good, plain, old, nowhere] =
        addresses.map(|ip| SocketAddr::new(ip.parse().expect("address"), port));
    let http = free_port(&addresses);
    let leaf = |domain: &str| pki.leaf(&format!("mta-sts.{domain}"));
    let slow = format!("{} limit_rate 4;", large(dir.path(), "slow", 1000));
    let served = |at, domain: &str, location: &str, more: &str| {
        announce(&zone, domain, at);
        policy_host(at, &format!("mta-sts.{domain}"), &leaf(domain), location, more)
    };
    let plain_host = |at: SocketAddr| {
        let location = format!("default_type text/plain; {}", text(GOOD));
        format!("server {{ listen {at}; location = /.well-known/mta-sts.txt {{ {location} }} }}")
    };
    let tls11 = "ssl_protocols TLSv1.1; ssl_ciphers ALL:@SECLEVEL=0;";
    let hosts = [
        served(good, "good.test", &text(GOOD), ""),
        served(good, "slow.test", &slow, ""),
        served(old, "old.test", &text(GOOD), tls11),
        plain_host(plain),
        // Plain HTTP where a browser would look for it; nothing listens for HTTPS.
        plain_host(SocketAddr::new(nowhere.ip(), http)),
    ];
    announce(&zone, "plain.test", plain);
    announce(&zone, "http.test", nowhere);
    let _nginx = Nginx::start(&dir.path().join("nginx"), &hosts, &[good, plain, old]);

    let usual = settings(&pki, port);
    let patient = service(&zone, usual.clone());
    assert_is(&patient, "good.test", &Is::Enforced).await;
    assert_is(&patient, "old.test", &Is::Not("TLS handshake: ")).await;
    assert_is(&patient, "plain.test", &Is::Not("TLS handshake: ")).await;
    assert_is(&patient, "http.test", &Is::Not("refused")).await;

    let hasty = HttpsSettings { patience: Duration::from_secs(1), ..usual.clone() };
    let late = Is::Not("no whole answer within 1 seconds");
    assert_is(&service(&zone, hasty), "slow.test", &late).await;

    let refuse_networks = vec!["127.0.0.0/8".parse().expect("a network")];
    let guarded = service(&zone, HttpsSettings { refuse_networks, ..usual });
    assert_is(&guarded, "good.test", &Is::Not("delivery.refuse_networks")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_found_behind_aliases_and_in_pieces() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (pki, zone) = (Pki::new(dir.path()), Zone::start());
    let port = free_port(&["127.0.0.1"]);
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let alias = |name: &str, target: &str| {
        let cname = Some(target.to_owned());
        zone.set(name, Records { cname, ..Records::default() });
    };
    announce(&zone, "provider.test", at);
    alias("_mta-sts.customer.test", "_mta-sts.provider.test");
    alias("mta-sts.customer.test", "mta-sts.provider.test");
    announce(&zone, "pieces.test", at);
    let strings = |strings: &[&str]| strings.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
    let records = |txt| Records { txt, ..Records::default() };
    zone.set(
        "_mta-sts.pieces.test",
        records(vec![strings(&["v=STS", "v1; id", "=1;"]), strings(&["x"])]),
    );
    announce(&zone, "two.test", at);
    let one = strings(&["v=STSv1; id=1;"]);
    zone.set("_mta-sts.two.test", records(vec![one.clone(), one]));
    announce(&zone, "broken.test", at);
    zone.set("_mta-sts.broken.test", Records { broken: true, ..Records::default() });
    let hosts = ["customer", "pieces", "two", "broken"].map(|name| {
        let host = format!("mta-sts.{name}.test");
        policy_host(at, &host, &pki.leaf(&host), &text(GOOD), "")
    });
    let _nginx = Nginx::start(&dir.path().join("nginx"), &hosts, &[at]);
    let sts = service(&zone, settings(&pki, port));
    assert_is(&sts, "customer.test", &Is::Enforced).await;
    assert_is(&sts, "pieces.test", &Is::Enforced).await;
    for (domain, expected) in [("two.test", "no policy"), ("broken.test", "not known")] {
        let facts = sts.policy(&domain.parse().expect("a domain")).await;
        assert!(facts.to_string().starts_with(expected), "{domain}: {facts}");
    }
    let below: Domain = "sub.pieces.test".parse().expect("a domain");
    assert_eq!(
        sts.policy(&below).await,
        StsFacts::Nothing,
        "a domain says nothing for those below"
    );
}

/// An address of loopback whose port 443 is free.
fn https_address() -> SocketAddr {
    let free = |last: u8| {
        let at = SocketAddr::from(([127, 0, 30, last], 443));
        TcpListener::bind(at).is_ok().then_some(at)
    };
    let start = u8::try_from(std::process::id() % 200).expect("small");
    (1..=250).map(|n| 1 + (start + n % 50)).find_map(free).expect("port 443 of some address")
}

const POLICY: &str =
    "[[partner]]\ndomains = [\".test\"]\nlevel = \"mta-sts\"\notherwise = \"defer\"\n";

/// A mail domain with one host, which shows `leaf`.
fn mail_host(house: &House, domain: &str, address: &str, tls: Leaf) -> Sink {
    let host = format!("mx.{domain}");
    house.zone.mail(domain, &[(10, &host, address)]);
    let at = format!("{address}:{}", house.port).parse().expect("address");
    Sink::start(at, Manner { tls: Some(tls), ..Manner::default() })
}

/// The recipient's record, once an attempt was made.
fn traced(house: &House, to: &str) -> Value {
    wait_for("an attempt", || {
        let traced = house.gateway.ask(&["trace", to, "--json"]);
        let traced: Value = serde_json::from_slice(&traced.stdout).ok()?;
        let one = traced.as_array().map_or(&traced, |all| &all[0]);
        let recipient = one["recipients"][0].clone();
        (recipient["outcome"] != "queued").then_some(recipient)
    })
}

/// A recipient's domain: what its policy host serves, the name in its mail host's certificate, the
/// outcome of a first attempt, and words of the record.
struct Case {
    domain: &'static str,
    served: String,
    bears: Option<&'static str>,
    outcome: &'static str,
    words: &'static str,
}

fn cases() -> Vec<Case> {
    let good = |domain, mx: &str| Case {
        domain,
        served: with("mx.a.test", mx),
        bears: None,
        outcome: "delivered",
        words: "\"verified\":true",
    };
    let bad =
        |domain, served, words| Case { domain, served, bears: None, outcome: "deferred", words };
    let not_named = "names mail.unnamed.test, not mx.unnamed.test";
    vec![
        good("right.test", "mx.right.test"),
        good("star.test", "*.star.test"),
        bad("unnamed.test", with("mx.a.test", "mail.unnamed.test"), not_named),
        // §4.2: the certificate must bear the host's name, not one that the pattern covers.
        Case {
            bears: Some("mail.badcert.test"),
            ..bad("badcert.test", with("mx.a.test", "*.badcert.test"), "mail.badcert.test")
        },
        bad("testing.test", with("enforce", "testing"), "not enforced"),
        bad("none.test", with("enforce", "none"), "not enforced"),
        bad("moved.test", "return 301 https://mta-sts.right.test$uri;".to_owned(), "status 301"),
    ]
}

fn send(gateway: &Gateway, to: &str) {
    smtp::send(gateway.smtp, "a@example.org", &[to], b"Subject: x\r\n\r\nsecret words\r\n");
}

/// The domains with their web and mail hosts, and two that publish nothing or can't be asked.
fn set_up(house: &House, cases: &[Case], web: SocketAddr) -> (Vec<String>, Vec<Sink>) {
    for domain in ["silent.test", "doubt.test"] {
        house.zone.mail(domain, &[(10, &format!("mx.{domain}"), "127.0.32.1")]);
    }
    house.zone.set("_mta-sts.doubt.test", Records { broken: true, ..Records::default() });
    let host = |(number, case): (usize, &Case)| {
        announce(&house.zone, case.domain, web);
        let host = format!("mta-sts.{}", case.domain);
        let served = policy_host(web, &host, &house.pki.leaf(&host), &case.served, "");
        let mx = format!("mx.{}", case.domain);
        let leaf = house.pki.odd_leaf(&mx, &[case.bears.unwrap_or(&mx)], |_| {});
        (served, mail_host(house, case.domain, &format!("127.0.32.{}", number + 1), leaf))
    };
    cases.iter().enumerate().map(host).unzip()
}

/// What the domains would be told of it (RFC 8460).
fn assert_reported(gateway: &Gateway) {
    let lines = |domain: &str| {
        let reports = gateway.json(&["tls-report", "--domain", domain]);
        let policies = reports[0]["policies"].as_array().cloned().unwrap_or_default();
        let line = |counted: &Value| {
            let failed = &counted["failure-details"][0];
            format!(
                "{} {} {} {}",
                counted["policy"]["policy-type"].as_str().expect("a type"),
                counted["summary"]["total-successful-session-count"],
                failed["result-type"].as_str().unwrap_or("-"),
                failed["failure-reason-code"].as_str().unwrap_or("-")
            )
        };
        policies.iter().map(line).collect::<Vec<_>>()
    };
    for (domain, told) in [
        ("right.test", "sts 1 - -"),
        ("unnamed.test", "sts 0 validation-failure mx-not-in-policy"),
        ("badcert.test", "sts 0 certificate-host-mismatch -"),
        ("moved.test", "sts 0 sts-policy-fetch-error -"),
    ] {
        assert_eq!(lines(domain), [told], "{domain}");
    }
    let right = gateway.json(&["tls-report", "--domain", "right.test"]);
    let policy = &right[0]["policies"][0]["policy"];
    assert_eq!(policy["mx-host"][0], "mx.right.test");
    assert_eq!(policy["policy-string"][1], "mode: enforce");
}

#[test]
fn mail_goes_only_where_the_domain_said_and_over_tls_that_proves_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (web, cases) = (https_address(), cases());
    let house = House::open(dir.path(), &[("sts.toml", POLICY)], |settings: &mut Settings| {
        settings.delivery = "retry = [\"1h\"]".to_owned();
    });
    let (hosts, sinks) = set_up(&house, &cases, web);
    let nginx = Nginx::start(&dir.path().join("nginx"), &hosts, &[web]);
    let others = [
        ("silent.test", "publishes no MTA-STS policy"),
        ("doubt.test", "what the domain asks by MTA-STS is not known"),
    ];
    for domain in cases.iter().map(|case| case.domain).chain(others.map(|(domain, _)| domain)) {
        send(&house.gateway, &format!("b@{domain}"));
    }
    for (Case { domain, outcome, words, .. }, sink) in cases.iter().zip(&sinks) {
        let recipient = traced(&house, &format!("b@{domain}"));
        let told = recipient.to_string();
        assert_eq!(recipient["outcome"], *outcome, "{domain}: {told}");
        assert!(told.contains(words), "{domain}: {words} is not in {told}");
        let messages = sink.messages();
        assert_eq!(messages.len(), usize::from(*outcome == "delivered"), "{domain}");
        assert!(messages.iter().all(|m| m.over_tls), "{domain}");
        let heard = String::from_utf8_lossy(&sink.bytes()).contains("secret");
        assert_eq!(heard, *outcome == "delivered", "{domain}");
    }
    for (domain, words) in others {
        let told = traced(&house, &format!("b@{domain}"));
        assert_eq!(told["outcome"], "deferred", "{told}");
        assert!(told.to_string().contains(words), "{told}");
    }

    assert_reported(&house.gateway);

    // The web server is gone, DNS is broken, the gateway is another process: the policy holds.
    drop(nginx);
    let House { mut gateway, zone, .. } = house;
    zone.set("_mta-sts.right.test", Records { broken: true, ..Records::default() });
    zone.set("_mta-sts.star.test", Records::default());
    gateway.stop();
    gateway.run();
    for (case, sink) in cases.iter().zip(&sinks).take(2) {
        send(&gateway, &format!("b@{}", case.domain));
        wait_for("the second message", || (sink.messages().len() == 2).then_some(()));
        assert!(sink.messages().iter().all(|m| m.over_tls));
    }
    gateway.stop();
}
