//! Somebody on the way to the name server, who answers with what is truly signed, but by others or
//! about something else. Nothing of it may pass for "not signed" or "not there".

use crate::{
    dnssec::{HASH, OTHER, mx_in_short, resolver, short, validate},
    support::signed::{Kind, Signed},
};
use hickory_resolver::proto::{
    op::{Edns, Message, Query, ResponseCode},
    rr::{Name, Record, RecordType},
};
use restante::dns::{Resolver, hickory::HickoryResolver};
use std::{
    collections::BTreeSet,
    net::{SocketAddr, UdpSocket},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

fn start(dir: &std::path::Path) -> Signed {
    let partner = format!(
        "@ MX 10 mx\nmx A 127.0.0.2\n_25._tcp.mx TLSA 3 1 1 {HASH}\n\
         wild A 127.0.0.2\n*._tcp.wild TLSA 3 1 1 {HASH}\n\
         out CNAME mx.insecure.test.\n_25._tcp.out TLSA 3 1 1 {OTHER}\n"
    );
    let often = format!(
        "@ MX 10 mx\nmx A 127.0.0.3\n_25._tcp.mx TLSA 3 1 1 {HASH}\nnone A 127.0.0.3\n\
         a.b A 127.0.0.3\n*.any A 127.0.0.3\n*.any MX 10 mx\n"
    );
    Signed::start(
        dir,
        &[
            ("partner.test", Kind::Signed, &partner),
            ("often.test", Kind::Overhashed, &often),
            ("insecure.test", Kind::Unsigned, "@ MX 10 mx\nmx A 127.0.0.4\n"),
        ],
    )
}

/// What a name server says to a question.
type Ask<'a> = &'a dyn Fn(&str, RecordType) -> Message;
/// The false answer to a question; `None`: the true one.
type Forge = fn(&str, RecordType, Ask<'_>) -> Option<Message>;

/// A resolver that validates, with that somebody on its way.
async fn misled(signed: &Signed, forge: Forge) -> (HickoryResolver, Forger) {
    let forger = Forger::start(signed.iterating, forge);
    let resolver = resolver(forger.address, validate(&signed.anchor));
    let health = resolver.check_now().await;
    assert!(health.working, "{health:?}");
    (resolver, forger)
}

#[tokio::test]
async fn names_hashed_too_often_count_as_not_signed_and_no_more() {
    let dir = tempfile::tempdir().expect("folder");
    let signed = start(dir.path());
    let (resolver, _forger) = misled(&signed, |_, _, _| None).await;
    for (host, expected) in [
        ("mx.often.test", "mx.often.test: 3 1 1 e3b0c44298fc1c14…"),
        ("none.often.test", "absent"),
        ("nowhere.often.test", "absent"),
        ("mx.partner.test", "mx.partner.test: 3 1 1 e3b0c44298fc1c14…"),
        ("wild.partner.test", "wild.partner.test: 3 1 1 e3b0c44298fc1c14…"),
        ("out.partner.test", "out.partner.test: 3 1 1 2c26b46b68ffc68f…"),
    ] {
        let dane = resolver.tlsa(host, 25).await;
        assert_eq!(short(&dane), expected, "{host}: {dane:?}");
    }
    for (domain, expected) in [
        ("often.test", "Secure: mx.often.test"),
        ("none.often.test", "Insecure: none.often.test"),
        ("x.any.often.test", "Insecure: mx.often.test"),
        ("nowhere.often.test", "no domain"),
        ("insecure.test", "Insecure: mx.insecure.test"),
    ] {
        let facts = resolver.mx(&domain.parse().expect("a domain")).await;
        assert_eq!(mx_in_short(&facts), expected, "{domain}: {facts:?}");
    }
}

/// Each is a true answer to another question, or most of one.
#[tokio::test]
async fn what_others_signed_denies_nothing() {
    let dir = tempfile::tempdir().expect("folder");
    let signed = start(dir.path());
    let rows: &[(&str, Forge)] = &[
        ("NSEC3 of another zone, hashed too often", |name, kind, ask| {
            let ours =
                name.ends_with("partner.test.") && kind != RecordType::DS && kind != RecordType::A;
            let ours = ours && kind != RecordType::DNSKEY && kind != RecordType::NS;
            ours.then(|| ask("nowhere.often.test.", kind))
        }),
        ("the same without its SOA", |name, kind, ask| {
            let ours = matches!(kind, RecordType::TLSA | RecordType::MX | RecordType::AAAA);
            (name.ends_with("partner.test.") && ours).then(|| {
                let mut message = ask("nowhere.often.test.", kind);
                message.authorities.retain(|r| r.record_type() != RecordType::SOA);
                message
            })
        }),
        ("the same for DS too", |name, kind, ask| {
            let ours = matches!(kind, RecordType::TLSA | RecordType::MX | RecordType::AAAA);
            let ours = name.ends_with("partner.test.") && (ours || kind == RecordType::DS);
            ours.then(|| ask("nowhere.often.test.", kind))
        }),
        ("a record without signature from a zone that has none", |name, kind, ask| {
            let ours = matches!(kind, RecordType::TLSA | RecordType::MX | RecordType::AAAA);
            (name.ends_with("partner.test.") && ours).then(|| {
                let mut message = ask("mx.insecure.test.", RecordType::A);
                message.authorities = std::mem::take(&mut message.answers);
                message.metadata.response_code = ResponseCode::NXDomain;
                message
            })
        }),
        ("the same beside an answer to nothing", |name, kind, ask| {
            let ours = matches!(kind, RecordType::TLSA | RecordType::MX | RecordType::AAAA);
            (name.ends_with("partner.test.") && ours).then(|| {
                let mut message = ask("mx.insecure.test.", RecordType::A);
                message.authorities = message.answers.clone();
                message
            })
        }),
        ("the SOA of a zone that is not signed", |name, kind, ask| {
            let ours = matches!(kind, RecordType::TLSA | RecordType::MX | RecordType::AAAA);
            (name.ends_with("partner.test.") && ours)
                .then(|| ask("nowhere.insecure.test.", RecordType::MX))
        }),
    ];
    for (why, forge) in rows {
        let (resolver, _forger) = misled(&signed, *forge).await;
        let dane = resolver.tlsa("mx.partner.test", 25).await;
        assert_eq!(short(&dane), "trouble", "{why}: {dane:?}");
        let facts = resolver.mx(&"partner.test".parse().expect("a domain")).await;
        assert_eq!(mx_in_short(&facts), "trouble", "{why}: {facts:?}");
    }
}

/// A signed record of another name beside the proof that no closer name than the wildcard's exists.
#[tokio::test]
async fn an_answer_to_nothing_does_not_hide_a_wildcard() {
    let dir = tempfile::tempdir().expect("folder");
    let signed = start(dir.path());
    let (resolver, _forger) = misled(&signed, |name, kind, ask| {
        (name == "_25._tcp.wild.partner.test." && kind == RecordType::TLSA).then(|| {
            let mut message = ask(name, kind);
            message.answers = ask("a.b.often.test.", RecordType::A).answers;
            message.add_authorities(ask("partner.test.", RecordType::TLSA).authorities);
            message
        })
    })
    .await;
    let dane = resolver.tlsa("wild.partner.test", 25).await;
    assert_eq!(short(&dane), "trouble", "{dane:?}");
}

/// RFC 5155 §8.9: the NSEC3 record that covers a name and lets zones without signature be below it
/// speaks of the name right below its own zone, not of one in a signed zone in between.
#[tokio::test]
async fn a_zone_with_opt_out_says_nothing_about_the_inside_of_a_signed_zone() {
    let dir = tempfile::tempdir().expect("folder");
    let signed = start(dir.path());
    let (resolver, _forger) = misled(&signed, |name, kind, ask| {
        let host = "mx.partner.test.";
        match (name == host, kind) {
            (true, RecordType::A) => {
                let mut message = ask(name, kind);
                message.answers.retain(|r| r.record_type() != RecordType::RRSIG);
                message.authorities.clear();
                Some(message)
            }
            (true, RecordType::NS) => {
                let mut message = ask("partner.test.", kind);
                message.answers.retain(|r| r.record_type() != RecordType::RRSIG);
                for record in &mut message.answers {
                    record.name = Name::from_str(host).expect("a name");
                }
                Some(message)
            }
            (true, RecordType::DS) => Some(all_hashes(ask)),
            (true | false, _) => None,
        }
    })
    .await;
    let dane = resolver.tlsa("mx.partner.test", 25).await;
    assert_eq!(short(&dane), "trouble", "{dane:?}");
}

/// An empty answer with every NSEC3 record of `test.`.
fn all_hashes(ask: Ask<'_>) -> Message {
    let mut message = ask("test.", RecordType::MX);
    let mut seen: BTreeSet<_> = message.authorities.iter().map(key).collect();
    for i in 0..20 {
        let more = ask(&format!("n{i}.test."), RecordType::MX);
        for record in &more.authorities {
            if seen.insert(key(record)) {
                message.add_authority(record.clone());
            }
        }
    }
    let hashes =
        message.authorities.iter().filter(|r| r.record_type() == RecordType::NSEC3).count();
    assert!(hashes >= 3, "{hashes}: {message:?}");
    message
}

fn key(record: &Record) -> String {
    format!("{} {}", record.name, record.data)
}

/// The signed alias of a host leads out of what is signed, and its own TLSA records count.
#[tokio::test]
async fn an_alias_that_cannot_be_asked_for_is_not_taken_for_none() {
    let dir = tempfile::tempdir().expect("folder");
    let signed = start(dir.path());
    let rows: &[(&str, Forge)] = &[
        ("no answer", |name, kind, ask| {
            (name == "out.partner.test." && kind == RecordType::CNAME).then(|| {
                let mut message = ask(name, kind);
                message.answers.clear();
                message.authorities.clear();
                message.metadata.response_code = ResponseCode::ServFail;
                message
            })
        }),
        ("a denial of another zone", |name, kind, ask| {
            (name == "out.partner.test." && kind == RecordType::CNAME)
                .then(|| ask("nowhere.often.test.", kind))
        }),
    ];
    for (why, forge) in rows {
        let (resolver, _forger) = misled(&signed, *forge).await;
        let dane = resolver.tlsa("out.partner.test", 25).await;
        assert_eq!(short(&dane), "trouble", "{why}: {dane:?}");
    }
}

/// Hands questions on and answers back, but for the answers it makes itself.
#[derive(Debug)]
struct Forger {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Forger {
    fn start(behind: SocketAddr, forge: Forge) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("set");
        let up = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        up.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        up.connect(behind).expect("set");
        let address = socket.local_addr().expect("bound");
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !told.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
                let query = question.queries[0].clone();
                let ask = |name: &str, kind| true_answer(&up, name, kind);
                let name = query.name().to_lowercase().to_ascii();
                let mut answer = forge(&name, query.query_type(), &ask)
                    .unwrap_or_else(|| ask(&name, query.query_type()));
                answer.metadata.id = question.metadata.id;
                answer.queries = vec![query];
                drop(socket.send_to(&answer.to_vec().expect("bytes"), from));
            }
        });
        Self { address, stop, thread: Some(thread) }
    }
}

fn true_answer(up: &UdpSocket, name: &str, kind: RecordType) -> Message {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.metadata.checking_disabled = true;
    question.add_query(Query::query(Name::from_str(name).expect("a name"), kind));
    let mut edns = Edns::new();
    edns.set_dnssec_ok(true).set_max_payload(4096);
    question.set_edns(edns);
    up.send(&question.to_vec().expect("bytes")).expect("sent");
    let mut buffer = [0; 4096];
    let length = up.recv(&mut buffer).expect("an answer");
    Message::from_vec(&buffer[..length]).expect("a message")
}

impl Drop for Forger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
