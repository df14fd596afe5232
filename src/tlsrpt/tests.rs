//! From sessions to reports, over a store in memory and a scripted network.

use super::*;
use crate::{
    clock::ClockGuard,
    dns::{Addresses, Texts},
    mail::notice::{Letterhead, Templates},
    policy::{
        Dane, MxFacts,
        tlsrpt::{AppliedPolicy, PolicyType, ResultType, TlsFailure},
    },
    seal::{Class, KeyRing},
    store::{Filter, QueueStore, memory::MemoryStore},
    vault::{DkimKey, NoticeSettings},
    wire::{Page, WebError, WebPlace},
};
use async_trait::async_trait;
use bytes::Bytes;
use flate2::read::GzDecoder;
use mail_auth::report::tlsrpt::TlsReport;
use std::{collections::HashMap, io::Read};
use zeroize::Zeroizing;

const RECORD: &str = "v=TLSRPTv1; rua=mailto:tls@a.example,https://r.a.example/post?id=20";

#[derive(Debug)]
struct ManualClock(Mutex<Timestamp>);
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// TXT records and an HTTPS host by script.
#[derive(Debug, Default)]
struct Net {
    texts: Mutex<HashMap<String, Texts>>,
    down: Mutex<bool>,
    posted: Mutex<Vec<(WebPlace, String, Bytes)>>,
}
#[async_trait]
impl Resolver for Net {
    async fn mx(&self, _: &Domain) -> MxFacts {
        unreachable!("a report asks for TXT records alone")
    }
    async fn addresses(&self, _: &str) -> Addresses {
        unreachable!("a report asks for TXT records alone")
    }
    async fn tlsa(&self, _: &str, _: u16) -> Dane {
        unreachable!("a report asks for TXT records alone")
    }
    async fn texts(&self, name: &str) -> Texts {
        self.texts.lock().unwrap().get(name).cloned().unwrap_or(Texts::None)
    }
}
#[async_trait]
impl Web for Net {
    async fn get(&self, _: &str, _: &str) -> Result<Page, WebError> {
        unreachable!("a report fetches nothing")
    }
    async fn post(&self, to: &WebPlace, kind: &str, body: Bytes) -> Result<u16, WebError> {
        if *self.down.lock().unwrap() {
            return Err(WebError::Status(503));
        }
        self.posted.lock().unwrap().push((to.clone(), kind.to_owned(), body));
        Ok(201)
    }
}

/// A store that refuses one note.
#[derive(Debug)]
struct Refusing(MemoryStore, Arc<Mutex<Option<String>>>);
#[async_trait]
impl NoteStore for Refusing {
    async fn put_note(&self, kind: NoteKind, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
        if self.1.lock().unwrap().as_deref() == Some(key) {
            return Err(StoreError::Corrupt("by script".to_owned()));
        }
        self.0.put_note(kind, key, value).await
    }
    async fn note(&self, kind: NoteKind, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.note(kind, key).await
    }
    async fn notes(
        &self,
        kind: NoteKind,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.0.notes(kind, after, max).await
    }
    async fn remove_note(&self, kind: NoteKind, key: &str) -> Result<(), StoreError> {
        self.0.remove_note(kind, key).await
    }
}

struct House {
    store: MemoryStore,
    refused: Arc<Mutex<Option<String>>>,
    net: Arc<Net>,
    clock: Arc<ManualClock>,
    vault: Vault,
    reports: TlsReports,
}

impl House {
    fn new() -> Self {
        Self::with(true, true)
    }

    fn with(send: bool, signed: bool) -> Self {
        let store = MemoryStore::new();
        let net = Arc::new(Net::default());
        let clock = Arc::new(ManualClock(Mutex::new(at("2026-11-25T12:00:00Z"))));
        let mut vault = vault(&Arc::new(store.clone()), clock.clone());
        if signed {
            let pem = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap().serialize_pem();
            let domain = "example.org".parse().unwrap();
            vault = vault.signing(vec![DkimKey::from_pem(domain, "s1", pem.as_bytes()).unwrap()]);
        }
        net.texts
            .lock()
            .unwrap()
            .insert("_smtp._tls.a.example".to_owned(), Texts::Found(vec![RECORD.to_owned()]));
        let refused = Arc::default();
        let notes = Refusing(store.clone(), Arc::clone(&refused));
        let reports = reports(send, (&store, notes), &net, &clock, &vault);
        Self { store, refused, net, clock, vault, reports }
    }

    fn is(&self, time: &str) {
        *self.clock.0.lock().unwrap() = at(time);
    }

    async fn round(&self) {
        self.reports.flush().await;
        self.reports.round(self.clock.now(), &CancellationToken::new()).await.unwrap();
    }

    /// Messages queued, opened.
    async fn mails(&self) -> Vec<Vec<u8>> {
        let mut mails = Vec::new();
        for (row, _) in self.store.list(&Filter::default(), None, 100).await.unwrap() {
            assert_eq!((row.facts.class, &row.facts.sender), (Class::TlsReport, &None));
            let mut content = self.vault.open_notice(&row, &[]).await.unwrap();
            let mut mail = Vec::new();
            while let Some(piece) = content.next().await.unwrap() {
                mail.extend_from_slice(&piece);
            }
            mails.push(mail);
        }
        mails
    }

    fn posted(&self) -> Vec<(WebPlace, String, Bytes)> {
        self.net.posted.lock().unwrap().clone()
    }

    /// Good and failed sessions of each report.
    async fn sums(&self) -> Vec<(String, u64, u64)> {
        let reports = self.reports.reports(None, None, None, 100).await.unwrap();
        let sums = reports.into_iter().map(|(key, report)| {
            let sums = report.policies.iter().map(|policy| &policy.summary);
            let good = sums.clone().map(|s| s.total_successful_session_count).sum();
            (key, good, sums.map(|s| s.total_failure_session_count).sum())
        });
        sums.collect()
    }
}

fn reports(
    send: bool,
    (store, notes): (&MemoryStore, Refusing),
    net: &Arc<Net>,
    clock: &Arc<ManualClock>,
    vault: &Vault,
) -> TlsReports {
    let settings = ReportSettings {
        send,
        hostname: "gw.example.org".parse().unwrap(),
        organization: "Example Health".to_owned(),
        contact: "postmaster@example.org".parse().unwrap(),
        from: "secure@example.org".parse().unwrap(),
        delay: SignedDuration::from_hours(1),
        source: |towards| match towards.to_string().as_str() {
            "192.0.2.1" => "198.51.100.7".parse().ok(),
            _ => "192.168.1.1".parse().ok(),
        },
    };
    let ports = ReportPorts {
        notes: Arc::new(notes),
        queue: Arc::new(store.clone()),
        vault: vault.clone(),
        resolver: net.clone(),
        web: net.clone(),
        clock: clock.clone(),
    };
    TlsReports::new(settings, ports)
}

fn vault(store: &Arc<MemoryStore>, clock: Arc<ManualClock>) -> Vault {
    let notices = NoticeSettings {
        head: Letterhead {
            organization: "Example Health".to_owned(),
            support: "help@example.org".to_owned(),
            from: "secure@example.org".parse().unwrap(),
            subject: Some("A message".to_owned()),
        },
        templates: Templates::new(&BTreeMap::new()).unwrap(),
        portal_url: "http://127.0.0.1:8080".to_owned(),
        retention: SignedDuration::from_hours(720),
        note: None,
    };
    let ring = KeyRing::generate(Zeroizing::new([7; 32]));
    Vault::new(
        store.clone(),
        store.clone(),
        store.clone(),
        store.clone(),
        ring,
        Arc::new(ClockGuard::new(clock, None)),
        notices,
    )
}

fn at(time: &str) -> Timestamp {
    time.parse().unwrap()
}

fn session(time: &str, domain: &str, failure: Option<ResultType>) -> SessionNote {
    SessionNote {
        domain: domain.parse().unwrap(),
        at: at(time),
        policy: AppliedPolicy { kind: PolicyType::Sts, ..AppliedPolicy::NONE },
        mx: Some("mx.a.example".to_owned()),
        address: "192.0.2.1".parse().ok(),
        failure: failure.map(|result| TlsFailure { result, code: None }),
    }
}

#[tokio::test]
async fn sessions_are_counted_by_utc_day_and_outlive_the_process() {
    let house = House::new();
    let good = |time: &str| house.reports.note(session(time, "a.example", None));
    good("2026-11-24T23:59:59Z");
    good("2026-11-25T00:00:00Z");
    house.reports.flush().await;
    good("2026-11-25T00:00:01Z");
    house.reports.note(session("2026-11-25T01:00:00+02:00", "b.example", None));
    let sums = [
        ("2026-11-24/a.example".to_owned(), 1, 0),
        ("2026-11-24/b.example".to_owned(), 1, 0),
        ("2026-11-25/a.example".to_owned(), 2, 0),
    ];
    assert_eq!(house.sums().await, sums, "reading writes down first");
    let notes = Refusing(house.store.clone(), Arc::default());
    let again = reports(true, (&house.store, notes), &house.net, &house.clock, &house.vault);
    again.note(session("2026-11-25T02:00:00Z", "a.example", None));
    again.flush().await;
    assert_eq!(house.sums().await[2].1, 3, "what was there is added to");
    let (day, domain) = ("2026-11-24".parse().unwrap(), "b.example".parse().unwrap());
    let some = |day, domain, max| house.reports.reports(day, domain, None, max);
    assert_eq!(some(Some(day), None, 100).await.unwrap().len(), 2);
    assert_eq!(some(None, Some(&domain), 100).await.unwrap().len(), 1);
    let first = some(None, None, 2).await.unwrap();
    let after = first.last().map(|(key, _)| key.clone());
    let rest = house.reports.reports(None, None, after, 2).await.unwrap();
    assert_eq!((first.len(), rest.len()), (2, 1), "page by page");
}

#[tokio::test]
async fn a_report_goes_once_by_signed_mail_and_by_https() {
    let house = House::new();
    let time = "2026-11-25T12:00:00Z";
    house.reports.note(session(time, "a.example", None));
    let failed = Some(ResultType::CertificateExpired);
    house.reports.note(session(time, "a.example", failed));
    let inside =
        SessionNote { address: "10.0.0.1".parse().ok(), ..session(time, "a.example", failed) };
    house.reports.note(inside);
    for early in ["2026-11-25T23:59:59Z", "2026-11-26T00:59:59Z"] {
        house.is(early);
        house.round().await;
        assert!(house.mails().await.is_empty() && house.posted().is_empty(), "{early}");
    }
    house.is("2026-11-26T01:00:00Z");
    house.round().await;
    house.is("2026-11-26T02:00:00Z");
    house.round().await;

    let [mail] = house.mails().await.try_into().unwrap();
    let text = String::from_utf8(mail.clone()).unwrap();
    assert!(text.starts_with("DKIM-Signature: v=1; a=ed25519-sha256; s=s1; d=example.org; "));
    let fields = crate::mail::header::Fields::parse(&mail);
    for (name, value) in [
        ("From", "<secure@example.org>"),
        ("To", "<tls@a.example>"),
        (
            "Subject",
            "Report Domain: a.example Submitter: gw.example.org Report-ID: \
             <2026-11-25.a.example@gw.example.org>",
        ),
        ("TLS-Report-Domain", "a.example"),
        ("TLS-Report-Submitter", "gw.example.org"),
        ("Auto-Submitted", "auto-generated"),
        ("Date", "Thu, 26 Nov 2026 01:00:00 +0000"),
    ] {
        assert_eq!(fields.all(name), [value], "{name}");
    }
    let kind = fields.first("Content-Type").unwrap();
    assert!(kind.contains("multipart/report") && kind.contains("report-type=\"tlsrpt\""), "{kind}");
    assert!(text.contains("gw.example.org!a.example!1795564800!1795651199.json.gz"), "{text}");
    assert!(text.contains("application/tlsrpt+gzip"));

    // Read by a parser that is not ours.
    let read = TlsReport::parse_rfc5322(&mail, 1 << 20).unwrap();
    assert_eq!(read.date_range.start_datetime.to_rfc3339(), "2026-11-25T00:00:00Z");
    assert_eq!(read.date_range.end_datetime.to_rfc3339(), "2026-11-25T23:59:59Z");
    let policy = &read.policies[0];
    assert_eq!(policy.policy.policy_domain, "a.example");
    assert_eq!((policy.summary.total_success, policy.summary.total_failure), (1, 2));
    let details: Vec<_> = policy
        .failure_details
        .iter()
        .map(|d| (d.sending_mta_ip.map(|ip| ip.to_string()), d.receiving_mx_hostname.as_deref()))
        .collect();
    let public = Some("198.51.100.7".to_owned());
    assert_eq!(details, [(public, Some("mx.a.example")), (None, Some("mx.a.example"))]);

    let [(place, kind, body)] = house.posted().try_into().unwrap();
    assert_eq!((place.host.as_str(), place.path.as_str()), ("r.a.example", "/post?id=20"));
    assert_eq!(kind, "application/tlsrpt+gzip");
    let mut json = String::new();
    GzDecoder::new(&body[..]).read_to_string(&mut json).unwrap();
    assert_eq!(TlsReport::parse_json(json.as_bytes()).unwrap(), read, "the same report");
    assert!(!json.contains("null"), "{json}");
}

#[tokio::test]
async fn what_fails_is_tried_again_by_itself_for_a_day() {
    let house = House::new();
    house.reports.note(session("2026-11-25T12:00:00Z", "a.example", None));
    *house.net.down.lock().unwrap() = true;
    for time in ["2026-11-26T01:00:00Z", "2026-11-26T02:00:00Z"] {
        house.is(time);
        house.round().await;
        assert_eq!(house.mails().await.len(), 1, "{time}: the mail goes once");
    }
    *house.net.down.lock().unwrap() = false;
    house.is("2026-11-26T03:00:00Z");
    house.round().await;
    assert_eq!((house.mails().await.len(), house.posted().len()), (1, 1));

    let lost = House::new();
    lost.reports.note(session("2026-11-25T12:00:00Z", "a.example", None));
    *lost.net.down.lock().unwrap() = true;
    lost.is("2026-11-27T01:00:00Z");
    lost.round().await;
    *lost.net.down.lock().unwrap() = false;
    lost.is("2026-11-27T01:30:00Z");
    lost.round().await;
    assert!(lost.posted().is_empty(), "24 hours are over");
}

#[tokio::test]
async fn who_gets_no_report() {
    let several = Texts::Found(vec![RECORD.to_owned(), RECORD.to_owned()]);
    for (send, signed, texts, mails, posts, reason) in [
        (true, true, Texts::None, 0, 0, "a domain that asks for none"),
        (true, true, several, 0, 0, "two records are none"),
        (true, false, Texts::Found(vec![RECORD.to_owned()]), 0, 1, "mail must be signed"),
        (false, true, Texts::Found(vec![RECORD.to_owned()]), 0, 0, "tls_reports is off"),
    ] {
        let house = House::with(send, signed);
        house.net.texts.lock().unwrap().insert("_smtp._tls.a.example".to_owned(), texts);
        house.reports.note(session("2026-11-25T12:00:00Z", "a.example", None));
        house.is("2026-11-26T12:00:00Z");
        house.round().await;
        let found = (house.mails().await.len(), house.posted().len());
        assert_eq!(found, (mails, posts), "{reason}");
        assert_eq!(house.sums().await.len(), 1, "{reason}: it is read here in any case");
    }
}

#[tokio::test]
async fn dns_that_cannot_say_is_asked_again() {
    let house = House::new();
    let name = "_smtp._tls.a.example".to_owned();
    let trouble = Texts::Trouble("SERVFAIL".to_owned());
    let record = house.net.texts.lock().unwrap().insert(name.clone(), trouble).unwrap();
    house.reports.note(session("2026-11-25T12:00:00Z", "a.example", None));
    house.is("2026-11-26T02:00:00Z");
    house.round().await;
    assert!(house.mails().await.is_empty());
    house.net.texts.lock().unwrap().insert(name, record);
    house.round().await;
    assert_eq!(house.mails().await.len(), 1);
}

#[tokio::test]
async fn a_record_that_changes_is_not_followed_to_new_places() {
    let house = House::new();
    house.reports.note(session("2026-11-25T12:00:00Z", "a.example", None));
    *house.net.down.lock().unwrap() = true;
    let name = "_smtp._tls.a.example";
    for hour in 1..24 {
        let victims: Vec<String> =
            (0..9).map(|n| format!("mailto:v{n}@victim{hour}.example")).collect();
        let record = format!("v=TLSRPTv1; rua=https://r.a.example,{}", victims.join(","));
        house.net.texts.lock().unwrap().insert(name.to_owned(), Texts::Found(vec![record]));
        house.is(&format!("2026-11-26T{hour:02}:00:00Z"));
        house.round().await;
        assert_eq!(
            house.mails().await.len(),
            3,
            "hour {hour}: four places a day, one of them down"
        );
    }
    let notes = house.store.notes(NoteKind::TlsReport, None, 10).await.unwrap();
    assert!(notes[0].1.len() < 1024, "{}", String::from_utf8_lossy(&notes[0].1));
}

#[tokio::test]
async fn a_note_that_cannot_be_written_costs_nobody_else_a_report() {
    let house = House::new();
    for domain in ["a.example", "b.example"] {
        house.reports.note(session("2026-11-25T12:00:00Z", domain, None));
        let record = Texts::Found(vec!["v=TLSRPTv1; rua=mailto:tls@c.example".to_owned()]);
        house.net.texts.lock().unwrap().insert(format!("_smtp._tls.{domain}"), record);
    }
    house.reports.flush().await;
    *house.refused.lock().unwrap() = Some("2026-11-25/a.example".to_owned());
    house.is("2026-11-26T12:00:00Z");
    for round in 1..4 {
        house.round().await;
        let [mail] = house.mails().await.try_into().unwrap();
        let text = String::from_utf8(mail).unwrap();
        assert!(text.contains("TLS-Report-Domain: b.example\r\n"), "round {round}: {text}");
    }
    *house.refused.lock().unwrap() = None;
    house.round().await;
    assert_eq!(house.mails().await.len(), 2, "its own goes once it can be written down");
}

#[tokio::test]
async fn counts_are_forgotten_after_two_weeks() {
    let house = House::new();
    house.reports.note(session("2026-11-11T12:00:00Z", "a.example", None));
    house.reports.note(session("2026-11-12T12:00:00Z", "a.example", None));
    house.is("2026-11-26T00:00:00Z");
    house.round().await;
    assert_eq!(house.sums().await, [("2026-11-12/a.example".to_owned(), 1, 0)]);
}

#[tokio::test]
async fn a_loop_that_is_stopped_writes_down_what_was_counted() {
    let house = House::new();
    let stop = CancellationToken::new();
    stop.cancel();
    house.reports.note(session("2026-11-25T12:00:00Z", "a.example", None));
    house.reports.run(stop).await;
    let notes = house.store.notes(NoteKind::TlsReport, None, 10).await.unwrap();
    assert_eq!(notes.len(), 1);
}
