//! Dialogues over a pipe in memory, into the store in memory.

use super::*;
use crate::{
    clock::{Clock, ClockGuard, TrustedTime},
    mail::{
        MailData, QueueId, Wishes,
        notice::{Letterhead, Templates},
    },
    policies::Policies,
    policy::{PolicySet, SourceFile},
    seal::{KeyRing, header::Needs},
    store::{
        Ask, Attempt, Claimed, Doomed, Filter, Health, MessageRow, NewBody, NewMessage, Order,
        Ordered, QueueStore, RecipientRow, Settle, StoreError, Totals, memory::MemoryStore,
    },
    vault::{NoticeSettings, Vault},
};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use memory::{Memory, POOL};
use std::{collections::BTreeMap, io, sync::Mutex};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, DuplexStream},
    sync::Notify,
    task::JoinHandle,
};
use zeroize::Zeroizing;

#[derive(Debug)]
struct Fixed;
impl Clock for Fixed {
    fn now(&self) -> Timestamp {
        "2026-11-22T12:00:00Z".parse().unwrap()
    }
}

#[derive(Debug)]
struct InForce(Arc<PolicySet>);
impl Policies for InForce {
    fn current(&self) -> Arc<PolicySet> {
        Arc::clone(&self.0)
    }
}

/// A queue whose `accept` waits for leave, or fails; everything else is not intake's to call.
#[derive(Debug)]
struct Gate {
    store: MemoryStore,
    asked: Notify,
    leave: Semaphore,
    error: Mutex<Option<StoreError>>,
    waiting: Mutex<Waiting>,
}

/// What stands before the gate.
#[derive(Debug, Default, Clone, Copy)]
struct Waiting {
    messages: usize,
    /// Those whose bodies lie in files of their own.
    filed: usize,
    /// Sealed bytes of the others.
    bytes: usize,
}

#[async_trait]
impl QueueStore for Gate {
    async fn accept(&self, message: NewMessage) -> Result<(), StoreError> {
        {
            let mut waiting = self.waiting.lock().unwrap();
            waiting.messages += 1;
            match &message.body {
                NewBody::Small(bytes) => waiting.bytes += bytes.len(),
                NewBody::At(_) => waiting.filed += 1,
            }
        }
        self.asked.notify_one();
        self.leave.acquire().await.unwrap().forget();
        if let Some(error) = self.error.lock().unwrap().take() {
            return Err(error);
        }
        self.store.accept(message).await
    }
    fn health(&self) -> Health {
        self.store.health()
    }
    async fn claim(&self, _: Ask) -> Result<Claimed, StoreError> {
        unreachable!()
    }
    fn endings(&self) -> Arc<Notify> {
        unreachable!()
    }
    fn arrivals(&self) -> Arc<Notify> {
        unreachable!()
    }
    async fn settle(&self, _: Settle) -> Result<(), StoreError> {
        unreachable!()
    }
    async fn release(&self, _: u64) -> Result<(), StoreError> {
        unreachable!()
    }
    async fn order(&self, _: Order, _: Timestamp) -> Result<Ordered, StoreError> {
        unreachable!()
    }
    async fn message(
        &self,
        _: QueueId,
    ) -> Result<Option<(MessageRow, Vec<RecipientRow>)>, StoreError> {
        unreachable!()
    }
    async fn attempts(&self, _: QueueId, _: u16) -> Result<Vec<Attempt>, StoreError> {
        unreachable!()
    }
    async fn list(
        &self,
        _: &Filter,
        _: Option<QueueId>,
        _: usize,
    ) -> Result<Vec<(MessageRow, Vec<RecipientRow>)>, StoreError> {
        unreachable!()
    }
    async fn totals(&self) -> Result<Totals, StoreError> {
        unreachable!()
    }
    async fn doomed(&self, _: Option<TrustedTime>, _: usize) -> Result<Doomed, StoreError> {
        unreachable!()
    }
    async fn checkpoint(&self) -> Result<(), StoreError> {
        unreachable!()
    }
    async fn forget_body(&self, _: QueueId) -> Result<(), StoreError> {
        unreachable!()
    }
    async fn purge(
        &self,
        _: TrustedTime,
        _: SignedDuration,
        _: usize,
    ) -> Result<usize, StoreError> {
        unreachable!()
    }
}

/// Takes the stream for what the handshake would make of it.
#[derive(Debug)]
struct FeignedTls;
#[async_trait]
impl TlsAccept for FeignedTls {
    async fn accept(&self, plain: Box<dyn Stream>) -> io::Result<(Box<dyn Stream>, String)> {
        Ok((plain, "TLSv1.3 TLS_AES_128_GCM_SHA256".into()))
    }
}

const RULES: &str = r#"
[[rule]]
when   = { subject = "[blocked]" }
action = "reject"
[[rule]]
when   = { attachment = "*.dcm" }
action = "pass"
"#;

struct House {
    intake: Arc<Intake>,
    store: MemoryStore,
    stop: CancellationToken,
}

const NO_LIMITS: ClientLimits = ClientLimits {
    connections: 0,
    connections_per_client: 0,
    connection_rate: 0,
    message_rate: 0,
    recipient_rate: 0,
};

fn settings() -> IntakeSettings {
    IntakeSettings {
        hostname: "gw.example.org".parse().unwrap(),
        postmaster: "postmaster@example.org".parse().unwrap(),
        clients: vec!["127.0.0.0/8".parse().unwrap()],
        normalize: vec!["127.0.0.7/32".parse().unwrap()],
        require_tls: false,
        max_message_size: 10_000_000,
        max_recipients: 10,
        limits: ClientLimits { connections: 2, ..NO_LIMITS },
        limit_exceptions: Vec::new(),
        max_errors: 20,
        idle_timeout: SignedDuration::from_secs(20),
        max_session_time: SignedDuration::from_hours(1),
    }
}

fn vault(store: &MemoryStore) -> Vault {
    let notices = NoticeSettings {
        head: Letterhead {
            organization: "Example Health".into(),
            support: "help@example.org".into(),
            from: "secure@example.org".parse().unwrap(),
            subject: Some("You have a secure message".into()),
        },
        templates: Templates::new(&BTreeMap::new()).unwrap(),
        portal_url: "https://portal.example.org".into(),
        retention: SignedDuration::from_hours(24),
        note: None,
    };
    let shared = Arc::new(store.clone());
    let ring = KeyRing::generate(Zeroizing::new([7; 32]));
    let (queue, bodies) = (shared.clone(), shared.clone());
    Vault::new(
        queue,
        bodies,
        shared.clone(),
        shared,
        ring,
        Arc::new(ClockGuard::new(Arc::new(Fixed), None)),
        notices,
    )
}

fn house_with(settings: IntakeSettings, queue: Option<Arc<dyn QueueStore>>) -> House {
    house_on(MemoryStore::new(), settings, queue, POOL)
}

fn house_on(
    store: MemoryStore,
    settings: IntakeSettings,
    queue: Option<Arc<dyn QueueStore>>,
    pool: usize,
) -> House {
    let rules = SourceFile { name: "rules.toml".into(), text: RULES.into() };
    let set = PolicySet::parse(&[rules], Fixed.now()).unwrap().0;
    let queue = queue.unwrap_or_else(|| Arc::new(store.clone()));
    let policies = Arc::new(InForce(Arc::new(set)));
    let mut door = Door::new(vault(&store), queue, policies);
    door.memory = Memory::new(pool);
    let intake = Intake::new(settings, door);
    House { intake: Arc::new(intake), store, stop: CancellationToken::new() }
}

fn house() -> House {
    house_with(settings(), None)
}

fn gated(settings: IntakeSettings, pool: usize) -> (House, Arc<Gate>) {
    let store = MemoryStore::new();
    let gate = Arc::new(Gate {
        store: store.clone(),
        asked: Notify::new(),
        leave: Semaphore::new(0),
        error: Mutex::new(None),
        waiting: Mutex::default(),
    });
    (house_on(store, settings, Some(gate.clone()), pool), gate)
}

struct Talk {
    stream: BufReader<DuplexStream>,
    session: JoinHandle<()>,
}

impl House {
    fn call_from(&self, client: &str, tls: bool) -> Talk {
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        let (intake, stop) = (Arc::clone(&self.intake), self.stop.clone());
        let peer = SocketAddr::new(client.parse().unwrap(), 40_000);
        let tls = tls.then(|| Arc::new(FeignedTls) as Arc<dyn TlsAccept>);
        let session =
            tokio::spawn(async move { intake.serve(Box::new(theirs), peer, tls, stop).await });
        Talk { stream: BufReader::new(ours), session }
    }

    /// A client that may relay and has said EHLO.
    async fn call(&self) -> Talk {
        let mut talk = self.call_from("127.0.0.1", false);
        talk.expect("220 gw.example.org").await;
        talk.say("EHLO mta.example.org", "250").await;
        talk
    }

    async fn queued(&self) -> usize {
        self.store.list(&Filter::default(), None, 100).await.unwrap().len()
    }
}

impl Talk {
    /// The whole reply, which must begin so.
    async fn expect(&mut self, start: &str) -> String {
        let mut reply = String::new();
        loop {
            let from = reply.len();
            let read = timeout(Duration::from_secs(20), self.stream.read_line(&mut reply));
            assert!(read.await.unwrap().unwrap() > 0, "closed instead of {start}: {reply:?}");
            if reply.as_bytes().get(from + 3) == Some(&b' ') {
                break;
            }
        }
        assert!(reply.starts_with(start), "{reply:?} is not {start}");
        reply
    }

    async fn put(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn say(&mut self, line: &str, start: &str) -> String {
        self.put(format!("{line}\r\n")).await;
        self.expect(start).await
    }

    /// MAIL, RCPT and DATA.
    async fn open(&mut self) {
        self.say("MAIL FROM:<ann@example.org>", "250").await;
        self.say("RCPT TO:<bob@partner.test>", "250").await;
        self.say("DATA", "354").await;
    }

    async fn send(&mut self, content: impl AsRef<[u8]>, start: &str) -> String {
        self.open().await;
        self.put(content).await;
        self.put("\r\n.\r\n").await;
        self.expect(start).await
    }

    async fn closed(mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&rest), "");
        self.session.await.unwrap();
    }
}

fn id_in(reply: &str) -> QueueId {
    reply.trim_end().rsplit(' ').next().unwrap().parse().unwrap()
}

const MAIL: &str = "Message-ID: <1@example.org>\r\nSubject: MARKER-SUBJECT\r\n\r\nMARKER-BODY";

#[tokio::test]
async fn a_message_is_sealed_committed_and_answered_with_its_id() {
    let house = house();
    let mut talk = house.call().await;
    let reply = talk.send(MAIL, "250 2.0.0 Ok: queued as ").await;
    let id = id_in(&reply);
    let (row, recipients) = house.store.message(id).await.unwrap().unwrap();
    assert_eq!(row.facts.message_id.as_deref(), Some("<1@example.org>"));
    assert_eq!(row.facts.sender, Some("ann@example.org".parse().unwrap()));
    let client = row.facts.client.unwrap();
    assert_eq!((client.helo.as_str(), client.with.as_str()), ("mta.example.org", "ESMTP"));
    assert_eq!(client.address, "127.0.0.1".parse::<IpAddr>().unwrap());
    assert_eq!(row.size as usize, MAIL.len() + 2);
    assert!(!row.facts.needs.eight_bit);
    assert_eq!(recipients.len(), 1);
    let sealed = house.store.sealed_bytes(id).unwrap();
    assert!(!sealed.windows(6).any(|w| w == b"MARKER"));
    // The session takes another.
    let other = id_in(&talk.send(MAIL, "250").await);
    assert_ne!(id, other);
    talk.say("QUIT", "221").await;
    talk.closed().await;
    assert_eq!(house.queued().await, 2);
}

#[tokio::test]
async fn nothing_is_answered_before_the_commit() {
    let (house, gate) = gated(settings(), POOL);
    let mut talk = house.call().await;
    talk.open().await;
    talk.put(format!("{MAIL}\r\n.\r\n")).await;
    gate.asked.notified().await;
    let mut byte = [0];
    let early = timeout(Duration::from_millis(50), talk.stream.read(&mut byte)).await;
    assert!(early.is_err(), "answered before the commit");
    gate.leave.add_permits(1);
    talk.expect("250 2.0.0 Ok: queued as ").await;
}

#[tokio::test]
async fn a_commit_that_fails_is_put_off_and_the_session_goes_on() {
    for (error, reply) in [
        (StoreError::Full, "452 4.3.1"),
        (StoreError::Busy, "451 4.3.0"),
        (StoreError::Fatal("poisoned".into()), "451 4.3.0"),
    ] {
        let (house, gate) = gated(settings(), POOL);
        let mut talk = house.call().await;
        *gate.error.lock().unwrap() = Some(error);
        gate.leave.add_permits(1);
        let text = talk.send(MAIL, reply).await;
        assert!(!text.contains("poisoned"), "{text}");
        gate.leave.add_permits(1);
        talk.send(MAIL, "250 2.0.0").await;
    }
}

#[tokio::test]
async fn a_store_in_trouble_takes_no_mail() {
    let house = house();
    let mut talk = house.call().await;
    for (health, reply) in
        [(Health::Full, "452 4.3.1"), (Health::Broken("disk".into()), "451 4.3.0")]
    {
        house.store.set_health(health);
        let text = talk.say("MAIL FROM:<ann@example.org>", reply).await;
        assert!(!text.contains("disk"), "{text}");
    }
    house.store.set_health(Health::Ok);
    talk.say("MAIL FROM:<ann@example.org>", "250").await;
    talk.say("RCPT TO:<bob@partner.test>", "250").await;
    house.store.set_health(Health::Full); // between MAIL and DATA
    talk.say("DATA", "452 4.3.1").await;
    house.store.set_health(Health::Ok);
    talk.send(MAIL, "250 2.0.0").await;
}

#[tokio::test]
async fn strangers_and_the_excess_are_turned_away() {
    let house = house();
    let mut stranger = house.call_from("192.0.2.66", false);
    stranger.expect("220").await;
    stranger.say("EHLO x.test", "250").await;
    stranger.say("MAIL FROM:<a@b.test>", "554 5.7.1").await;
    let second = house.call().await;
    let mut third = house.call_from("127.0.0.1", false);
    third.expect("421 4.7.0").await;
    third.closed().await;
    drop(second.stream);
    second.session.await.unwrap();
    house.call().await;
}

#[tokio::test]
async fn clients_in_ipv6_clothes_are_who_they_are() {
    let house = house();
    let mut talk = house.call_from("::ffff:127.0.0.1", false);
    talk.expect("220").await;
    talk.say("EHLO x.test", "250").await;
    talk.say("MAIL FROM:<a@b.test>", "250").await;
}

#[tokio::test]
async fn refusals_at_the_end_of_content() {
    let house = house();
    let mut talk = house.call().await;
    let hop = "Received: from a by b; Sun, 22 Nov 2026 12:00:00 +0000\r\n";
    let looped = format!("{}{MAIL}", hop.repeat(51));
    talk.send(looped, "554 5.4.6").await;
    talk.send("Subject: a [blocked] thing\r\n\r\nx", "550 5.7.1").await;
    talk.send("Subject: x\r\n\r\na bare\nline feed", "550 5.5.2").await;
    assert_eq!(house.queued().await, 0);
    talk.send(format!("{}{MAIL}", hop.repeat(50)), "250 2.0.0").await;
    assert_eq!(house.queued().await, 1);
}

#[tokio::test]
async fn old_devices_are_repaired_by_network() {
    let house = house();
    let mut talk = house.call_from("127.0.0.7", false);
    talk.expect("220").await;
    talk.say("EHLO scanner.example.org", "250").await;
    talk.send("Subject: x\n\na bare\nline feed", "250 2.0.0").await;
}

#[tokio::test]
async fn rules_read_attachments_and_high_bytes_are_seen() {
    let house = house();
    let mut talk = house.call().await;
    let mail = "Subject: scan\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
                --b\r\nContent-Type: text/plain\r\n\r\nd\u{e9}j\u{e0} vu\r\n\
                --b\r\nContent-Type: application/dicom\r\n\
                Content-Disposition: attachment; filename=\"knee.dcm\"\r\n\r\nxxxx\r\n--b--";
    let id = id_in(&talk.send(mail, "250").await);
    let (row, _) = house.store.message(id).await.unwrap().unwrap();
    assert_eq!(row.facts.rule.action, crate::policy::RuleAction::Pass);
    assert_eq!(row.facts.rule.rule.unwrap().0, "rules.toml");
    assert!(row.facts.needs.eight_bit);
}

#[tokio::test]
async fn tls_is_noted_and_what_was_said_before_is_forgotten() {
    let house = house();
    let mut talk = house.call_from("127.0.0.1", true);
    talk.expect("220").await;
    assert!(talk.say("EHLO before.test", "250").await.contains("STARTTLS"));
    talk.say("STARTTLS", "220").await;
    talk.say("MAIL FROM:<ann@example.org>", "503").await;
    assert!(!talk.say("EHLO after.test", "250").await.contains("STARTTLS"));
    let id = id_in(&talk.send(MAIL, "250").await);
    let client = house.store.message(id).await.unwrap().unwrap().0.facts.client.unwrap();
    assert_eq!((client.helo.as_str(), client.with.as_str()), ("after.test", "ESMTPS"));
    assert_eq!(client.tls.as_deref(), Some("TLSv1.3 TLS_AES_128_GCM_SHA256"));
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_midst_has_sent_nothing() {
    let house = house();
    let mut talk = house.call().await;
    talk.open().await;
    talk.put("Subject: half\r\n\r\n").await;
    talk.put("x".repeat(70).repeat(10_000)).await;
    drop(talk.stream);
    talk.session.await.unwrap();
    assert_eq!(house.queued().await, 0);
    assert_eq!(house.intake.door.memory.taken(), 0);
    assert_eq!(house.intake.counts().connections(), 0);
}

#[tokio::test]
async fn silence_ends_a_session_in_commands_and_in_content() {
    let idle_timeout = SignedDuration::from_millis(60);
    let house = house_with(IntakeSettings { idle_timeout, ..settings() }, None);
    let mut talk = house.call_from("127.0.0.1", false);
    talk.expect("220").await;
    talk.expect("421 4.4.2").await;
    talk.closed().await;
    let mut talk = house.call().await;
    talk.open().await;
    talk.put("Subject: half\r\n").await;
    talk.expect("421 4.4.2").await;
    talk.closed().await;
    assert_eq!(house.queued().await, 0);
}

#[tokio::test]
async fn content_that_never_ends_is_ended() {
    let idle_timeout = SignedDuration::from_millis(30);
    let house = house_with(IntakeSettings { idle_timeout, ..settings() }, None);
    let mut talk = house.call().await;
    talk.open().await;
    let (mut read, mut write) = tokio::io::split(talk.stream);
    let dripping = tokio::spawn(async move {
        while write.write_all(b"x\r\n").await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    let mut reply = String::new();
    timeout(Duration::from_secs(20), read.read_to_string(&mut reply)).await.unwrap().unwrap();
    assert!(reply.starts_with("421 4.4.2") || reply.starts_with("552"), "{reply}");
    dripping.abort();
}

#[tokio::test]
async fn a_stop_lets_the_message_in_transfer_arrive() {
    let house = house();
    let mut waiting = house.call().await;
    let mut busy = house.call().await;
    busy.open().await;
    busy.put("Subject: half\r\n\r\n").await;
    house.stop.cancel();
    waiting.expect("421 4.3.2").await;
    waiting.closed().await;
    busy.put("the rest\r\n.\r\n").await;
    busy.expect("250 2.0.0 Ok: queued as ").await;
    busy.expect("421 4.3.2").await;
    busy.closed().await;
    assert_eq!(house.queued().await, 1);
}

#[tokio::test]
async fn a_stop_does_not_wait_long_for_an_envelope_without_content() {
    let house = house();
    let mut talk = house.call().await;
    talk.say("MAIL FROM:<ann@example.org>", "250").await;
    house.stop.cancel();
    talk.expect("421").await;
    talk.closed().await;
}

#[tokio::test]
async fn a_client_takes_no_more_than_its_own_places() {
    let limits = ClientLimits { connections: 4, connections_per_client: 2, ..NO_LIMITS };
    let limit_exceptions = vec!["127.0.0.9/32".parse().unwrap()];
    let house = house_with(IntakeSettings { limits, limit_exceptions, ..settings() }, None);
    let mut kept = Vec::new();
    // (client, what it hears)
    for (client, hears) in [
        ("127.0.0.1", "220"),
        ("127.0.0.1", "220"),
        ("127.0.0.1", "421 4.7.0 gw.example.org has too many connections from 127.0.0.1"),
        ("127.0.0.2", "220"),
        ("127.0.0.9", "220"),
        ("127.0.0.9", "421 4.7.0 gw.example.org has too many connections, "),
    ] {
        let mut talk = house.call_from(client, false);
        talk.expect(hears).await;
        if hears == "220" { kept.push(talk) } else { talk.closed().await }
    }
    let counts = house.intake.counts();
    assert_eq!(counts.connections(), 4);
    let refused = |kind| counts.refused().iter().find(|(k, _)| *k == kind).map(|(_, n)| *n);
    assert_eq!(refused(Refused::Connections), Some(1));
    assert_eq!(refused(Refused::ClientConnections), Some(1));
    let gone = kept.remove(0);
    drop(gone.stream);
    gone.session.await.unwrap();
    house.call_from("127.0.0.1", false).expect("220").await;
}

#[tokio::test]
async fn what_is_too_much_in_a_minute_is_put_off() {
    let limits =
        ClientLimits { connection_rate: 2, message_rate: 2, recipient_rate: 3, ..NO_LIMITS };
    let limit_exceptions = vec!["127.0.0.9/32".parse().unwrap()];
    let house = house_with(IntakeSettings { limits, limit_exceptions, ..settings() }, None);
    let mut talk = house.call().await;
    talk.say("MAIL FROM:<ann@example.org>", "250").await;
    for (recipient, hears) in [
        ("a@partner.test", "250"),
        ("b@partner.test", "250"),
        ("a@partner.test", "250"), // again: nothing new
        ("c@partner.test", "250"),
        ("d@partner.test", "450 4.7.1 Too many recipients from 127.0.0.1"),
    ] {
        talk.say(&format!("RCPT TO:<{recipient}>"), hears).await;
    }
    talk.say("DATA", "354").await;
    talk.put(format!("{MAIL}\r\n.\r\n")).await;
    let id = id_in(&talk.expect("250 2.0.0").await);
    assert_eq!(house.store.message(id).await.unwrap().unwrap().1.len(), 3);
    talk.say("MAIL FROM:<ann@example.org>", "250").await;
    talk.say("RSET", "250").await;
    talk.say("MAIL FROM:<ann@example.org>", "450 4.7.1 Too much mail from 127.0.0.1").await;
    // Another connection does not help it, and soon there is none.
    let mut second = house.call().await;
    second.say("MAIL FROM:<ann@example.org>", "450 4.7.1").await;
    house.call_from("127.0.0.1", false).expect("421 4.7.0").await;
    let mut other = house.call_from("127.0.0.2", false);
    other.expect("220").await;
    other.say("EHLO x.test", "250").await;
    other.say("MAIL FROM:<ann@example.org>", "250").await;
    for _ in 0..5 {
        let mut exempt = house.call_from("127.0.0.9", false);
        exempt.expect("220").await;
        exempt.say("EHLO x.test", "250").await;
        exempt.send(MAIL, "250 2.0.0").await;
        exempt.say("QUIT", "221").await;
    }
}

#[tokio::test]
async fn a_session_ends_after_its_time_but_not_within_a_transaction() {
    let max_session_time = SignedDuration::from_secs(2);
    let house = house_with(IntakeSettings { max_session_time, ..settings() }, None);
    let mut idle = house.call().await;
    let mut busy = house.call().await;
    busy.open().await;
    idle.expect("421 4.7.0").await;
    idle.closed().await;
    busy.put(format!("{MAIL}\r\n.\r\n")).await;
    busy.expect("250 2.0.0 Ok: queued as ").await;
    busy.expect("421 4.7.0").await;
    busy.closed().await;
}

/// More than the pool holds, and a store that takes nothing: what waits is bounded, nobody is
/// answered, nothing is lost.
#[tokio::test]
async fn a_slow_store_slows_intake_and_memory_does_not_grow() {
    const SESSIONS: usize = 250;
    const POOL: usize = 4 << 20;
    let limits = ClientLimits { connections: SESSIONS, ..NO_LIMITS };
    let (house, gate) = gated(IntakeSettings { limits, ..settings() }, POOL);
    let content = format!("{MAIL}\r\n{}.\r\n", ("x".repeat(70) + "\r\n").repeat(1400));
    let mut talks = Vec::new();
    for _ in 0..SESSIONS {
        let mut talk = house.call().await;
        talk.open().await;
        talk.put(&content).await;
        talks.push(talk);
    }
    while gate.waiting.lock().unwrap().messages < SESSIONS {
        gate.asked.notified().await;
    }
    let waiting = *gate.waiting.lock().unwrap();
    let bound = POOL + SESSIONS * memory::OWN;
    assert!(SESSIONS * content.len() > bound, "or nothing is shown");
    assert!(waiting.bytes < bound, "{waiting:?}");
    assert!(waiting.filed > 0, "what has no room lies in files: {waiting:?}");
    assert!(house.intake.door.memory.taken() <= POOL);
    let mut byte = [0];
    let early = timeout(Duration::from_millis(50), talks[0].stream.read(&mut byte)).await;
    assert!(early.is_err(), "answered before the commit");
    gate.leave.add_permits(SESSIONS);
    for mut talk in talks {
        talk.expect("250 2.0.0 Ok: queued as ").await;
        talk.say("QUIT", "221").await;
    }
    assert_eq!(gate.store.list(&Filter::default(), None, 1000).await.unwrap().len(), SESSIONS);
    assert_eq!(house.intake.door.memory.taken(), 0);
}

#[tokio::test]
async fn without_memory_mail_still_passes_and_many_recipients_come_in_parts() {
    let limits = ClientLimits { connections: 4, ..NO_LIMITS };
    let house = house_with(IntakeSettings { limits, max_recipients: 1000, ..settings() }, None);
    let mut all = house.intake.door.memory.share();
    assert!(all.fit(POOL + memory::OWN));
    let mut talk = house.call().await;
    // Small and large, as long as only bodies are large.
    for lines in [1, 1000, 20_000] {
        let content = format!("{MAIL}\r\n{}", ("x".repeat(70) + "\r\n").repeat(lines));
        let id = id_in(&talk.send(&content, "250 2.0.0").await);
        let (row, _) = house.store.message(id).await.unwrap().unwrap();
        assert_eq!(row.size as usize, content.len() + 2);
    }
    talk.say("MAIL FROM:<ann@example.org>", "250").await;
    let mut taken = 0;
    loop {
        talk.put(format!("RCPT TO:<r{taken}@partner.test>\r\n")).await;
        let reply = talk.expect("").await;
        if !reply.starts_with("250") {
            assert!(reply.starts_with("452 4.5.3"), "{reply}");
            break;
        }
        taken += 1;
    }
    assert!((50..1000).contains(&taken), "{taken}");
    drop(all);
    let reply = talk.say(&format!("RCPT TO:<r{taken}@partner.test>"), "250").await;
    assert!(reply.starts_with("250 2.1.5"), "{reply}");
}

#[tokio::test(start_paused = true)]
async fn what_comes_by_another_way_is_held_to_the_same_memory() {
    const MINE: usize = 1 << 20;
    let (store, rules) = (MemoryStore::new(), Arc::new(InForce(Arc::new(PolicySet::default()))));
    let mut door = Door::new(vault(&store), Arc::new(store.clone()), rules);
    door.memory = Memory::new(MINE);
    let envelope = |recipients: usize| Envelope {
        sender: Some("ann@partner.test".parse().unwrap()),
        recipients: (0..recipients).map(|n| format!("r{n}@example.org").parse().unwrap()).collect(),
        client: None,
        needs: Needs::default(),
        envelope_id: None,
        wishes: Wishes::default(),
    };
    let content = MailData::repaired(
        format!("{MAIL}\r\n{}", ("x".repeat(70) + "\r\n").repeat(40_000)).as_bytes(),
    );
    assert!(content.len() > 2 * MINE);
    let mut large = door.begin(envelope(1)).await.unwrap();
    // All in one piece.
    large.write(&content).await.unwrap();
    assert!(large.portion() > 16 * 1024, "it has grown");
    let taken = door.memory.taken();
    assert!((1..=MINE - MINE / 4).contains(&taken), "{taken}");
    let mut all = door.memory.share();
    assert!(all.fit(memory::OWN + MINE - taken));
    assert_eq!(door.memory.taken(), MINE);
    assert_eq!(door.begin(envelope(1000)).await.unwrap_err(), Refusal::Busy);
    assert!(door.counts.refused().contains(&(Refused::Memory, 1)));
    let mut small = door.begin(envelope(1)).await.unwrap();
    small.write(&content).await.unwrap();
    assert_eq!(small.portion(), 16 * 1024, "as long as there is no room");
    for incoming in [large, small] {
        let id = incoming.commit(None).await.unwrap();
        let (row, _) = store.message(id).await.unwrap().unwrap();
        assert_eq!(row.size as usize, content.len());
    }
    drop(all);
    assert_eq!(door.memory.taken(), 0);
}

#[tokio::test]
async fn the_field_that_names_a_second_channel_is_taken_off_at_the_door() {
    let house = house();
    let mut talk = house.call().await;
    let content = "Subject: x\r\nX-Restante-Pickup: phrase: blue steps seven\r\n\r\nbody";
    let id = id_in(&talk.send(content, "250").await);
    let (row, _) = house.store.message(id).await.unwrap().unwrap();
    assert_eq!(row.facts.rule.pickup, crate::mail::Pickup::Phrase);
    assert!(!serde_json::to_string(&row.facts).unwrap().contains("blue"));
    let mut kept = house.intake.door.vault.export(&row).await.unwrap();
    let mut text = Vec::new();
    while let Some(piece) = kept.next().await.unwrap() {
        text.extend_from_slice(&piece);
    }
    assert_eq!(String::from_utf8(text).unwrap(), "Subject: x\r\n\r\nbody\r\n");
    assert_eq!(row.size, 20, "the size is that of what is kept");

    let content = "X-Restante-Pickup: sms: 079 555 01 02\r\n\r\nbody";
    let refused = talk.send(content, "550 5.6.0").await;
    assert!(!refused.contains("079"), "{refused}");
    assert_eq!(house.queued().await, 1);
}
