//! MTA-STS (RFC 8461) against a real web server: every way in which a policy can fail to be one, and
//! the mail that waits or goes because of it.

use crate::support::{
    dns::{Records, Zone},
    free_port,
    gateway::Settings,
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
        (StsFacts::Unfetched(why), Is::Not(words)) => why.contains(words),
        _ => false,
    };
    assert!(right, "{domain}: {expected:?}, and not {facts:?}");
}

/// Policies of exactly so many bytes, as a file.
fn large(dir: &Path, name: &str, size: usize) -> String {
    let head = "version: STSv1\nmode: enforce\nmx: mx.a.test\nmax_age: 86400\nx: ";
    let file = dir.join(name);
    fs::write(&file, format!("{head}{}", "y".repeat(size - head.len()))).expect("written");
    format!("alias {};", file.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_policy_served_as_the_rfc_says_counts() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (pki, zone) = (Pki::new(dir.path()), Zone::start());
    let port = free_port(&["127.0.0.1"]);
    let at = SocketAddr::from(([127, 0, 0, 1], port));
    let good = text(GOOD);
    let with = |from: &str, to: &str| text(&GOOD.replace(from, to));
    let rows: Vec<(&str, Shows, String, Is)> = vec![
        ("crlf.test", Shows::Its, good.clone(), Is::Enforced),
        ("lf.test", Shows::Its, with("\r\n", "\n"), Is::Enforced),
        ("parameters.test", Shows::Its, format!("charset utf-8; {good}"), Is::Enforced),
        ("testing.test", Shows::Its, with("enforce", "testing"), Is::Testing),
        ("none.test", Shows::Its, with("enforce", "none"), Is::None),
        ("largest.test", Shows::Its, large(dir.path(), "largest", 65_536), Is::Enforced),
        ("wildcard.test", Shows::Names(&["*.wildcard.test"]), good.clone(), Is::Enforced),
        // §3.3: what must not be taken for a policy.
        (
            "moved.test",
            Shows::Its,
            "return 301 https://mta-sts.crlf.test$uri;".into(),
            Is::Not("status 301"),
        ),
        (
            "found.test",
            Shows::Its,
            "return 302 https://mta-sts.crlf.test$uri;".into(),
            Is::Not("status 302"),
        ),
        ("missing.test", Shows::Its, "return 404;".into(), Is::Not("status 404")),
        ("broken.test", Shows::Its, "return 500;".into(), Is::Not("status 500")),
        ("closed.test", Shows::Its, "return 444;".into(), Is::Not("the answer")),
        (
            "html.test",
            Shows::Its,
            format!("default_type text/html; {good}").replacen("default_type text/plain;", "", 1),
            Is::Not("not text/plain"),
        ),
        ("large.test", Shows::Its, large(dir.path(), "large", 65_537), Is::Not("larger than")),
        ("expired.test", Shows::Until(2020), good.clone(), Is::Not("expired")),
        ("early.test", Shows::From(2200), good.clone(), Is::Not("not valid yet")),
        ("selfsigned.test", Shows::SelfSigned, good.clone(), Is::Not("UnknownIssuer")),
        (
            "othername.test",
            Shows::Names(&["mta-sts.crlf.test"]),
            good.clone(),
            Is::Not("not valid for name"),
        ),
        (
            "domainname.test",
            Shows::Names(&["domainname.test"]),
            good.clone(),
            Is::Not("not valid for name"),
        ),
        ("cn.test", Shows::OnlyCommonName, good.clone(), Is::Not("TLS: ")),
        // §3.2: policies that are none.
        ("version.test", Shows::Its, with("STSv1", "STSv2"), Is::Not("version is not STSv1")),
        ("nomode.test", Shows::Its, with("mode: enforce\r\n", ""), Is::Not("no mode")),
        ("mode.test", Shows::Its, with("enforce", "report"), Is::Not("mode is none of")),
        ("noage.test", Shows::Its, with("max_age: 86400\r\n", ""), Is::Not("no max_age")),
        ("nomx.test", Shows::Its, with("mx: mx.a.test\r\n", ""), Is::Not("no mx")),
        ("empty.test", Shows::Its, text(""), Is::Not("no version")),
    ];
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
    assert_is(&patient, "old.test", &Is::Not("TLS: ")).await;
    assert_is(&patient, "plain.test", &Is::Not("TLS: ")).await;
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

#[test]
fn mail_goes_only_where_the_domain_said_and_over_tls_that_proves_it() {
    let dir = tempfile::tempdir().expect("temp dir");
    let web = https_address();
    let file = [("sts.toml", POLICY)];
    let house = House::open(dir.path(), &file, |settings: &mut Settings| {
        settings.delivery = "retry = [\"1h\"]".to_owned();
    });
    let enforce = |mx: &str| text(&GOOD.replace("mx.a.test", mx));
    let rows: Vec<(&str, String, Option<&str>, &str, &str)> = vec![
        ("right.test", enforce("mx.right.test"), None, "delivered", ""),
        ("star.test", enforce("*.star.test"), None, "delivered", ""),
        (
            "unnamed.test",
            enforce("mail.unnamed.test"),
            None,
            "deferred",
            "names mail.unnamed.test, not mx.unnamed.test",
        ),
        // The pattern is of the host, and the certificate must be too.
        (
            "badcert.test",
            enforce("mx.badcert.test"),
            Some("mail.badcert.test"),
            "deferred",
            "mail.badcert.test",
        ),
        (
            "testing.test",
            text(&GOOD.replace("enforce", "testing")),
            None,
            "deferred",
            "not enforced",
        ),
        ("none.test", text(&GOOD.replace("enforce", "none")), None, "deferred", "not enforced"),
        (
            "moved.test",
            "return 301 https://mta-sts.right.test$uri;".to_owned(),
            None,
            "deferred",
            "status 301",
        ),
    ];
    let mut hosts = Vec::new();
    let mut sinks = Vec::new();
    for (number, (domain, location, bears, ..)) in rows.iter().enumerate() {
        announce(&house.zone, domain, web);
        let host = format!("mta-sts.{domain}");
        hosts.push(policy_host(web, &host, &house.pki.leaf(&host), location, ""));
        let mx = format!("mx.{domain}");
        let leaf = house.pki.odd_leaf(&mx, &[bears.unwrap_or(&mx)], |_| {});
        sinks.push(mail_host(&house, domain, &format!("127.0.32.{}", number + 1), leaf));
    }
    house.zone.mail("silent.test", &[(10, "mx.silent.test", "127.0.32.1")]);
    let nginx = Nginx::start(&dir.path().join("nginx"), &hosts, &[web]);
    let send = |to: &str| {
        smtp::send(
            house.gateway.smtp,
            "a@example.org",
            &[to],
            b"Subject: x\r\n\r\nsecret words\r\n",
        )
    };
    for (domain, ..) in &rows {
        send(&format!("b@{domain}"));
    }
    send("b@silent.test");
    for ((domain, _, _, outcome, words), sink) in rows.iter().zip(&sinks) {
        let recipient = traced(&house, &format!("b@{domain}"));
        let told = recipient.to_string();
        assert_eq!(recipient["outcome"], *outcome, "{domain}: {told}");
        assert!(told.contains(words), "{domain}: {words} is not in {told}");
        let messages = sink.messages();
        assert_eq!(messages.len(), usize::from(*outcome == "delivered"), "{domain}");
        assert!(messages.iter().all(|m| m.over_tls), "{domain}");
        assert!(
            !String::from_utf8_lossy(&sink.bytes()).contains("secret") || *outcome == "delivered"
        );
    }
    let silent = traced(&house, "b@silent.test");
    assert_eq!(silent["outcome"], "deferred");
    assert!(silent.to_string().contains("publishes no MTA-STS policy"), "{silent}");

    // The web server is gone, DNS is broken, the gateway is another process: the policy holds.
    drop(nginx);
    let House { mut gateway, zone, .. } = house;
    zone.set("_mta-sts.right.test", Records { broken: true, ..Records::default() });
    zone.set("_mta-sts.star.test", Records::default());
    gateway.stop();
    gateway.run();
    for to in ["b@right.test", "b@star.test"] {
        smtp::send(gateway.smtp, "a@example.org", &[to], b"Subject: y\r\n\r\nagain\r\n");
    }
    for sink in &sinks[..2] {
        wait_for("the second message", || (sink.messages().len() == 2).then_some(()));
        assert!(sink.messages().iter().all(|m| m.over_tls));
    }
    gateway.stop();
}
