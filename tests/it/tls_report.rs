//! What is counted of TLS, as an operator reads it and as the RFC's format has it.

use crate::support::{
    dkim::{Keys, verify},
    dns::{Records, Zone},
    free_port,
    gateway::{Gateway, Settings},
    house::{House, PARTNER_FILE},
    nginx::{Nginx, policy_host},
    pki::Pki,
    sink::{Manner, Sink},
    smtp, wait_for,
};
use jiff::{SignedDuration, Timestamp};
use mail_auth::report::tlsrpt::{PolicyType, ResultType, TlsReport};
use restante::{
    clock::{Clock, ClockGuard},
    dns::hickory::HickoryResolver,
    mail::notice::{Letterhead, Templates},
    net::{HttpsClient, HttpsSettings, TrustAnchors},
    policies::TlsSessions,
    policy::tlsrpt::{AppliedPolicy, SessionNote},
    seal::KeyRing,
    store::{Filter, QueueStore, memory::MemoryStore},
    tlsrpt::{ReportPorts, ReportSettings, TlsReports},
    vault::{DkimKey, NoticeSettings, Vault},
};
use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path, sync::Arc};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// The reports, through a parser that is not ours.
fn reports(house: &House, arguments: &[&str]) -> Vec<TlsReport> {
    let mut command = vec!["tls-report"];
    command.extend(arguments);
    let answer = house.gateway.json(&command);
    let all = answer.as_array().expect("an array").iter();
    all.map(|report| TlsReport::parse_json(report.to_string().as_bytes()).expect("RFC 8460"))
        .collect()
}

#[test]
fn sessions_are_counted_shown_and_kept_over_a_restart() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut house = House::open(dir.path(), &[PARTNER_FILE], |_| {});
    assert!(reports(&house, &[]).is_empty());
    let wrong = Some(house.pki.leaf("elsewhere.test"));
    let _partner = Sink::start(house.partner_address(), Manner { tls: wrong, ..Manner::default() });
    let to = ["jane@partner.test", "ann@stranger.test", "bob@example.org"];
    smtp::send(house.gateway.smtp, "bob@example.org", &to, b"From: bob@example.org\r\n\r\nx\r\n");
    let found = wait_for("both domains", || {
        let found = reports(&house, &[]);
        (found.len() == 2).then_some(found)
    });
    // The gateway's own hosts are nobody's business.
    wait_for("mail inside", || house.inside.messages().first().cloned());
    house.gateway.stop();
    house.gateway.run();
    assert_eq!(reports(&house, &[]), found, "after a restart");

    let [partner, stranger] = found.try_into().expect("two");
    let sums = |report: &TlsReport| {
        let policy = &report.policies[0];
        (policy.summary.total_success, policy.summary.total_failure)
    };
    assert_eq!((sums(&partner), sums(&stranger)), ((0, 1), (0, 1)));
    let (theirs, details) = (&partner.policies[0].policy, &partner.policies[0].failure_details[0]);
    assert_eq!(theirs.policy_domain, "partner.test");
    assert_eq!(theirs.policy_type, PolicyType::NoPolicyFound, "the level asks for none");
    assert_eq!(details.result_type, ResultType::CertificateHostMismatch);
    assert_eq!(details.receiving_mx_hostname.as_deref(), Some("mx.partner.test"));
    let details = &stranger.policies[0].failure_details[0];
    assert_eq!(details.result_type, ResultType::StartTlsNotSupported);

    assert_eq!(reports(&house, &["--domain", "partner.test"]), [partner]);
    assert!(reports(&house, &["--day", "2020-01-01"]).is_empty());
    let table = house.gateway.ask(&["tls-report"]);
    let table = String::from_utf8(table.stdout).expect("text");
    assert!(
        table.contains("certificate-host-mismatch") && table.contains("mx.partner.test"),
        "{table}"
    );
}

#[test]
fn a_day_or_domain_that_is_none_is_usage_with_and_without_a_server() {
    let dir = tempfile::tempdir().expect("temp dir");
    let settings = Settings::default();
    let stopped = Gateway::prepare(&dir.path().join("stopped"), &settings, &[]);
    let running = Gateway::start(&dir.path().join("running"), &settings, &[]);
    for (wrong, says) in
        [(["--day", "yesterday"], "write 2026-11-25"), (["--domain", "a b"], "write example.org")]
    {
        for gateway in [&stopped, &running] {
            let output = gateway.ask(&[&["tls-report"][..], &wrong].concat());
            assert_eq!(output.status.code(), Some(64), "{wrong:?}");
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(text.contains(says), "{text}");
        }
    }
    let right = stopped.ask(&["tls-report", "--day", "2026-11-25", "--domain", "a.test"]);
    assert_eq!(right.status.code(), Some(69));
}

/// The day after.
#[derive(Debug)]
struct Tomorrow;
impl Clock for Tomorrow {
    fn now(&self) -> Timestamp {
        "2026-11-26T12:00:00Z".parse().expect("a time")
    }
}

fn vault(store: &Arc<MemoryStore>, keys: &Keys) -> Vault {
    let notices = NoticeSettings {
        head: Letterhead {
            organization: "Example Health".to_owned(),
            support: "helpdesk@example.org".to_owned(),
            from: "secure@example.org".parse().expect("an address"),
            subject: None,
        },
        templates: Templates::new(&BTreeMap::new()).expect("templates"),
        portal_url: "http://127.0.0.1:8080".to_owned(),
        retention: SignedDuration::from_hours(1),
        note: None,
    };
    let ring = KeyRing::generate(Zeroizing::new([7; 32]));
    let vault = Vault::new(
        store.clone(),
        store.clone(),
        store.clone(),
        store.clone(),
        ring,
        Arc::new(ClockGuard::new(Arc::new(Tomorrow), None)),
        notices,
    );
    let keys = keys.files().map(|(selector, file)| {
        let domain = "example.org".parse().expect("a domain");
        DkimKey::from_pem(domain, selector, &fs::read(file).expect("a key")).expect("a key")
    });
    vault.signing(keys.collect())
}

/// Reports over real DNS and real HTTPS; what goes by mail stays in the store.
fn service(zone: &Zone, pki: &Pki, store: &Arc<MemoryStore>, vault: &Vault) -> TlsReports {
    let resolver = Arc::new(HickoryResolver::new(&[zone.address], false).expect("resolver"));
    let anchors = TrustAnchors::load(Some(&pki.anchors)).expect("anchors");
    let https = HttpsSettings::new(anchors, Vec::new());
    // The certificates are of today.
    let clock = Arc::new(restante::clock::SystemClock);
    let web = HttpsClient::new(https, resolver.clone(), clock).expect("client");
    let settings = ReportSettings {
        send: true,
        hostname: "gw.example.org".parse().expect("a domain"),
        organization: "Example Health".to_owned(),
        contact: "postmaster@example.org".parse().expect("an address"),
        from: "secure@example.org".parse().expect("an address"),
        delay: SignedDuration::from_hours(1),
        source: restante::net::source_address,
    };
    let (notes, queue, web) = (store.clone(), store.clone(), Arc::new(web));
    let (vault, clock) = (vault.clone(), Arc::new(Tomorrow));
    TlsReports::new(settings, ReportPorts { notes, queue, vault, resolver, web, clock })
}

/// The host that takes reports, at its name in the zone.
fn receiver(dir: &Path, zone: &Zone, pki: &Pki) -> (Nginx, SocketAddr) {
    let at: SocketAddr =
        format!("127.0.20.41:{}", free_port(&["127.0.20.41"])).parse().expect("address");
    let a = vec!["127.0.20.41".parse().expect("IPv4")];
    zone.set("reports.a.test", Records { a, ..Records::default() });
    let leaf = pki.leaf("reports.a.test");
    let takes = "location = /tls { return 201; }";
    let server = policy_host(at, "reports.a.test", &leaf, "return 404;", takes);
    (Nginx::start(dir, &[server], &[at]), at)
}

/// Mail of our own that waits, opened.
async fn mail_in(store: &MemoryStore, vault: &Vault) -> Vec<Vec<u8>> {
    let mut mails = Vec::new();
    for (row, _) in store.list(&Filter::default(), None, 10).await.expect("listed") {
        let mut content = vault.open_notice(&row, &[]).await.expect("opens");
        let mut mail = Vec::new();
        while let Some(piece) = content.next().await.expect("opens") {
            mail.extend_from_slice(&piece);
        }
        mails.push(mail);
    }
    mails
}

#[tokio::test]
async fn a_report_goes_where_the_domains_record_says() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (zone, pki) = (Zone::start(), Pki::new(dir.path()));
    let folder = dir.path().join("nginx");
    let (_nginx, at) = receiver(&folder, &zone, &pki);
    let record =
        format!("v=TLSRPTv1; rua=mailto:tls@a.test,https://reports.a.test:{}/tls", at.port());
    zone.text("_smtp._tls.a.test", &record);
    let keys = Keys::new(dir.path(), "example.org");
    let store = Arc::new(MemoryStore::new());
    let vault = vault(&store, &keys);
    let reports = service(&zone, &pki, &store, &vault);
    reports.note(SessionNote {
        domain: "a.test".parse().expect("a domain"),
        at: "2026-11-25T12:00:00Z".parse().expect("a time"),
        policy: AppliedPolicy::NONE,
        mx: None,
        address: None,
        failure: None,
    });
    reports.flush().await;
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (reports, stop) = (reports.clone(), stop.clone());
        async move { reports.run(stop).await }
    });
    let posted = move || fs::read_to_string(folder.join("access.log")).unwrap_or_default();
    let seen = tokio::task::spawn_blocking(move || {
        wait_for("the report at the web server", || {
            let log = posted();
            log.contains("\"POST /tls HTTP/1.1\" 201").then_some(log)
        })
    });
    seen.await.expect("waited");
    stop.cancel();
    running.await.expect("ended");
    let [mail] = mail_in(&store, &vault).await.try_into().expect("one mail");
    assert_eq!(verify(dir.path(), &mail, &keys), ["valid", "valid"]);
    let read = TlsReport::parse_rfc5322(&mail, 1 << 20).expect("RFC 8460");
    assert_eq!(read.policies[0].summary.total_success, 1);
}
