//! The relay as scripted scenarios: what the network does, and what becomes of the mail.

mod reports;
mod reuse;

use super::{log::without_local_parts, outcome, run::Lease, *};
use crate::{
    dns::{Addresses, Texts},
    mail::{
        EnhancedStatus, QueueId, Wishes,
        notice::{Letterhead, Templates},
        parts::PartIndex,
    },
    policy::{
        Dane, Dnssec, HostTrouble, MxFacts, MxHost, PeerFacts, PolicySet, Reason, Requirement,
        RuleVerdict, SourceFile, StartTls, StsFacts, TlsFacts, Trouble,
        decide::TlsUse,
        tlsrpt::{ResultType, SessionNote},
    },
    seal::{
        Class, KeyRing, MessageFacts,
        header::{ClientFacts, Needs},
    },
    smtp::{ClientTransaction, RecipientReply, Reply},
    store::{
        Ask, Attempt, Claim, Claimed, Filter, GrantState, Health, Locator, MessageRow, NewMessage,
        Order, OrderKind, Ordered, RecipientRow, RecipientState, Room, Settle, StoreError, Totals,
        memory::MemoryStore,
    },
    vault::NoticeSettings,
    wire::{Peer, SendError, Source},
};
use async_trait::async_trait;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

const PARTNER: &str = r#"
[[partner]]
domains = ["partner.example"]
level = "encrypt"
otherwise = "envelope"
otherwise_after = "1h"

[[partner]]
domains = ["marked.example"]
level = "encrypt"
mark = "Sensitivity: company-confidential"
"#;
const BODY: &[u8] =
    b"From: Ann <ann@example.org>\r\nSubject: MARKER\r\n\r\n.dots\r\n\x00\xff and no end";

#[derive(Debug)]
struct ManualClock(Mutex<Timestamp>);
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

#[derive(Debug)]
struct FixedPolicies(Arc<PolicySet>);
impl Policies for FixedPolicies {
    fn current(&self) -> Arc<PolicySet> {
        Arc::clone(&self.0)
    }
}

/// DNS by script: every domain has two hosts unless said otherwise. Keeps what is told of sessions.
#[derive(Debug, Default)]
struct ScriptedDns(Mutex<HashMap<String, MxFacts>>, Mutex<Vec<SessionNote>>);
#[async_trait]
impl Resolver for ScriptedDns {
    async fn mx(&self, domain: &Domain) -> MxFacts {
        if let Some(facts) = self.0.lock().unwrap().get(domain.as_str()) {
            return facts.clone();
        }
        let host = |n: u16| MxHost { name: format!("mx{n}.{domain}"), preference: n };
        MxFacts::Hosts(vec![host(1), host(2)], Dnssec::Unchecked)
    }
    async fn addresses(&self, host: &str) -> Addresses {
        match host {
            h if h.starts_with("nowhere") => Addresses::None,
            // Each its own.
            h => {
                let sum =
                    h.bytes().fold(0u32, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
                Addresses::Found(vec![IpAddr::V4(Ipv4Addr::from(0xC612_0000 | (sum & 0x1_FFFF)))])
            }
        }
    }
    async fn tlsa(&self, _host: &str, _port: u16) -> Dane {
        Dane::Unchecked
    }
    async fn texts(&self, _name: &str) -> Texts {
        Texts::None
    }
}
#[async_trait]
impl StsPolicies for ScriptedDns {
    async fn policy(&self, _domain: &Domain) -> StsFacts {
        StsFacts::Nothing
    }
}

impl TlsSessions for ScriptedDns {
    fn note(&self, note: SessionNote) {
        self.1.lock().unwrap().push(note);
    }
}

/// What a host does at one connection.
#[derive(Debug, Clone)]
enum Play {
    /// No connection.
    Trouble(Trouble),
    /// Answers the recipients in order with these codes; the last repeats.
    Answers(Vec<(u16, &'static str)>),
    /// The connection is lost; true: after the final dot.
    Lost(bool),
    /// No TLS: takes everything in the open, if it may.
    Plaintext,
    /// A fault of the program.
    Panic,
    /// Offers DSN, and takes everything.
    Dsn,
    /// Takes everything in the first transaction; in those after it, this.
    Then(Box<Self>),
    /// The connection never comes about.
    Hangs,
    /// No connection, after as long as a connection may take.
    Slow(Trouble),
}

/// What a host took.
#[derive(Debug, Clone)]
struct Taken {
    host: String,
    port: u16,
    transaction: ClientTransaction,
    content: Vec<u8>,
}

/// The network by script: plays by host; a host without any takes everything over TLS.
#[derive(Debug)]
struct ScriptedNet {
    plays: Mutex<HashMap<String, VecDeque<Play>>>,
    taken: Mutex<Vec<Taken>>,
    connections: AtomicU64,
    open: AtomicUsize,
    most_open: AtomicUsize,
    /// Connections that were ended with QUIT.
    quits: AtomicUsize,
    /// Connections stay good for another transaction.
    stays: AtomicBool,
    gate: Semaphore,
}
impl ScriptedNet {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            plays: Mutex::default(),
            taken: Mutex::default(),
            connections: AtomicU64::new(1),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
            quits: AtomicUsize::new(0),
            stays: AtomicBool::new(false),
            gate: Semaphore::new(1_000_000),
        })
    }
    fn play(&self, host: &str) -> Play {
        let mut plays = self.plays.lock().unwrap();
        match plays.get_mut(host) {
            Some(list) if list.len() > 1 => list.pop_front().unwrap(),
            Some(list) => list.front().cloned().unwrap(),
            None => Play::Answers(vec![(250, "2.0.0 Ok")]),
        }
    }
}

#[derive(Debug)]
struct Net(Arc<ScriptedNet>);
#[async_trait]
impl Connector for Net {
    async fn connect(
        &self,
        host: &str,
        address: SocketAddr,
        requirement: &Requirement,
    ) -> Result<Box<dyn Peer>, (HostTrouble, Box<Attempt>)> {
        let play = self.0.play(host);
        if matches!(play, Play::Slow(_)) {
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        let by_script = match &play {
            Play::Trouble(trouble) | Play::Slow(trouble) => Some(*trouble),
            Play::Plaintext => (requirement.tls == TlsUse::Always).then_some(Trouble::NoStartTls),
            Play::Hangs => std::future::pending().await,
            Play::Answers(_) | Play::Lost(_) | Play::Panic | Play::Dsn | Play::Then(_) => None,
        };
        if let Some(trouble) = by_script {
            let detail = "by script".to_owned();
            let attempt = Attempt {
                at: start(),
                mx: Some(host.to_owned()),
                address: Some(address.to_string()),
                tls: None,
                verified: false,
                reply: None,
                trouble: Some(trouble),
                error: Some(detail.clone()),
                dns: None,
            };
            return Err((
                HostTrouble { host: host.to_owned(), trouble, detail },
                Box::new(attempt),
            ));
        }
        let open = self.0.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most_open.fetch_max(open, Ordering::SeqCst);
        let tls = match requirement.tls {
            TlsUse::Never => StartTls::NotTried,
            TlsUse::IfOffered => StartTls::NotOffered,
            TlsUse::Always => StartTls::Done(tls_facts()),
        };
        let facts = PeerFacts {
            connection: self.0.connections.fetch_add(1, Ordering::SeqCst),
            host: host.to_owned(),
            address,
            tls,
            eight_bit: true,
            smtputf8: true,
            require_tls: false,
            size: None,
        };
        Ok(Box::new(ScriptedPeer { net: Arc::clone(&self.0), facts, play }))
    }
}

struct ScriptedPeer {
    net: Arc<ScriptedNet>,
    facts: PeerFacts,
    play: Play,
}
impl Drop for ScriptedPeer {
    fn drop(&mut self) {
        self.net.open.fetch_sub(1, Ordering::SeqCst);
    }
}
#[async_trait]
impl Peer for ScriptedPeer {
    fn facts(&self) -> &PeerFacts {
        &self.facts
    }
    async fn send(
        &mut self,
        transaction: ClientTransaction,
        content: &mut dyn Source,
    ) -> Result<Vec<RecipientReply>, SendError> {
        let _pass = self.net.gate.acquire().await.unwrap();
        let lost = |after_content| SendError { text: "connection reset".to_owned(), after_content };
        let play = self.play.clone();
        if let Play::Then(next) = &play {
            self.play = *next.clone();
        }
        let answers = match &play {
            Play::Panic => panic!("by script"),
            Play::Lost(false) => return Err(lost(false)),
            Play::Lost(true) | Play::Plaintext => vec![(250, "")],
            Play::Answers(list) => list.clone(),
            Play::Dsn | Play::Then(_) => vec![(250, "2.0.0 Ok")],
            Play::Trouble(_) | Play::Hangs | Play::Slow(_) => unreachable!(),
        };
        let replies: Vec<_> = (0..transaction.recipients.len())
            .map(|i| reply(*answers.get(i).or_else(|| answers.last()).unwrap()))
            .map(|one| RecipientReply { dsn: matches!(play, Play::Dsn), ..one })
            .collect();
        if replies.iter().any(|r| r.delivered) {
            let mut bytes = Vec::new();
            while let Some(piece) =
                content.next().await.map_err(|text| SendError { text, after_content: false })?
            {
                bytes.extend_from_slice(&piece);
            }
            let (host, port) = (self.facts.host.clone(), self.facts.address.port());
            let taken = Taken { host, port, transaction, content: bytes };
            self.net.taken.lock().unwrap().push(taken);
        }
        if matches!(play, Play::Lost(true)) { Err(lost(true)) } else { Ok(replies) }
    }
    fn is_ready(&mut self) -> bool {
        self.net.stays.load(Ordering::SeqCst)
    }
    async fn quit(self: Box<Self>) {
        self.net.quits.fetch_add(1, Ordering::SeqCst);
    }
}

fn reply((code, text): (u16, &str)) -> RecipientReply {
    let (status, rest) = match text.split_once(' ') {
        Some((first, rest)) if first.parse::<EnhancedStatus>().is_ok() => {
            (first.parse().ok(), rest)
        }
        _ => (None, text),
    };
    let reply = Reply { code, status, lines: vec![rest.to_owned()] };
    RecipientReply { delivered: reply.is_positive(), reply, dsn: false }
}

fn tls_facts() -> TlsFacts {
    TlsFacts {
        version: "TLSv1.3".to_owned(),
        cipher: "TLS13_AES_256_GCM_SHA384".to_owned(),
        group: None,
        chain_error: Some("self-signed".to_owned()),
        names: vec![],
        fingerprint: "00".repeat(32),
        key_fingerprint: "00".repeat(32),
        not_after: None,
        dane: None,
    }
}

fn start() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

/// A store that is busy for the first settles.
#[derive(Debug)]
struct Busy(MemoryStore, AtomicUsize);
#[async_trait]
impl QueueStore for Busy {
    async fn accept(&self, message: NewMessage) -> Result<(), StoreError> {
        self.0.accept(message).await
    }
    async fn claim(&self, ask: Ask) -> Result<Claimed, StoreError> {
        self.0.claim(ask).await
    }
    fn arrivals(&self) -> Arc<tokio::sync::Notify> {
        self.0.arrivals()
    }
    async fn settle(&self, settle: Settle) -> Result<(), StoreError> {
        let less = |left: usize| left.checked_sub(1);
        match self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less) {
            Ok(_) => Err(StoreError::Busy),
            Err(_) => self.0.settle(settle).await,
        }
    }
    async fn release(&self, token: u64) -> Result<(), StoreError> {
        self.0.release(token).await
    }
    async fn order(&self, order: Order, now: Timestamp) -> Result<Ordered, StoreError> {
        self.0.order(order, now).await
    }
    async fn message(
        &self,
        id: QueueId,
    ) -> Result<Option<(MessageRow, Vec<RecipientRow>)>, StoreError> {
        self.0.message(id).await
    }
    async fn attempts(&self, id: QueueId, index: u16) -> Result<Vec<Attempt>, StoreError> {
        self.0.attempts(id, index).await
    }
    async fn list(
        &self,
        filter: &Filter,
        after: Option<QueueId>,
        max: usize,
    ) -> Result<Vec<(MessageRow, Vec<RecipientRow>)>, StoreError> {
        self.0.list(filter, after, max).await
    }
    async fn totals(&self) -> Result<Totals, StoreError> {
        self.0.totals().await
    }
    async fn doomed(
        &self,
        now: Timestamp,
        max: usize,
    ) -> Result<Vec<(QueueId, Locator)>, StoreError> {
        self.0.doomed(now, max).await
    }
    async fn destroy_key(&self, id: QueueId) -> Result<(), StoreError> {
        self.0.destroy_key(id).await
    }
    async fn forget_body(&self, id: QueueId) -> Result<(), StoreError> {
        self.0.forget_body(id).await
    }
    async fn purge(&self, before: Timestamp, max: usize) -> Result<usize, StoreError> {
        self.0.purge(before, max).await
    }
    fn health(&self) -> Health {
        self.0.health()
    }
}

struct House {
    store: MemoryStore,
    net: Arc<ScriptedNet>,
    dns: Arc<ScriptedDns>,
    clock: Arc<ManualClock>,
    relay: Relay,
    serial: AtomicU64,
}

impl House {
    fn new() -> Self {
        Self::busy(0)
    }

    fn busy(settles: usize) -> Self {
        Self::with(settles, settings())
    }

    fn with(settles: usize, settings: RelaySettings) -> Self {
        let store = MemoryStore::new();
        let net = ScriptedNet::new();
        let dns = Arc::new(ScriptedDns::default());
        let clock = Arc::new(ManualClock(Mutex::new(start())));
        let file = SourceFile { name: "partner.toml".to_owned(), text: PARTNER.to_owned() };
        let (set, _) = PolicySet::parse(&[file], start()).unwrap();
        let shared = Arc::new(store.clone());
        let vault = vault(&shared, clock.clone());
        let ports = RelayPorts {
            queue: Arc::new(Busy(store.clone(), AtomicUsize::new(settles))),
            people: shared,
            vault,
            resolver: dns.clone(),
            sts: Arc::new(ScriptedDns::default()),
            connector: Arc::new(Net(net.clone())),
            policies: Arc::new(FixedPolicies(Arc::new(set))),
            sessions: dns.clone(),
            clock: clock.clone(),
        };
        let relay = Relay::new(settings, ports);
        Self { store, net, dns, clock, relay, serial: AtomicU64::new(1) }
    }

    fn script(&self, host: &str, plays: &[Play]) {
        let list = plays.iter().cloned().collect();
        self.net.plays.lock().unwrap().insert(host.to_owned(), list);
    }

    async fn submit(&self, sender: Option<&str>, recipients: &[&str]) -> QueueId {
        self.submit_by(RuleVerdict::protected(), sender, recipients).await
    }

    async fn submit_by(
        &self,
        rule: RuleVerdict,
        sender: Option<&str>,
        recipients: &[&str],
    ) -> QueueId {
        self.submit_asking(rule, Wishes::default(), sender, recipients).await
    }

    async fn submit_asking(
        &self,
        rule: RuleVerdict,
        wishes: Wishes,
        sender: Option<&str>,
        recipients: &[&str],
    ) -> QueueId {
        let serial = self.serial.fetch_add(1, Ordering::SeqCst);
        let now = self.clock.now();
        let millis = u64::try_from(now.as_millisecond()).unwrap();
        let mut random = [0; 10];
        random[2..].copy_from_slice(&serial.to_be_bytes());
        let id = QueueId::new(millis, random);
        let facts = MessageFacts {
            id,
            class: Class::Protected,
            sender: sender.map(address),
            arrived: now,
            message_id: Some("<1@example.org>".to_owned()),
            client: Some(ClientFacts {
                helo: "mta.example.org".to_owned(),
                address: IpAddr::V4(Ipv4Addr::LOCALHOST),
                with: "ESMTP".to_owned(),
                tls: None,
            }),
            needs: Needs::default(),
            envelope_id: Some("QQ314159".to_owned()),
            sender_name: None,
            grant: None,
            rule,
            references: Vec::new(),
            wishes,
        };
        let recipients = recipients.iter().map(|r| address(r)).collect();
        let mut deposit = self.relay.ports().vault.deposit(facts, recipients).unwrap();
        deposit.write(BODY).await.unwrap();
        let finished = deposit.finish(&PartIndex::default()).await.unwrap();
        self.store.accept(finished.message).await.unwrap();
        id
    }

    /// Works everything that is due now, what comes into being excluded.
    async fn pass(&self) -> usize {
        let claims = self.claim(100).await;
        let count = claims.len();
        for claim in claims {
            let lease = Lease::new(claim.token);
            self.relay.work(claim, lease).await;
        }
        count
    }

    async fn claim(&self, max: usize) -> Vec<Claim> {
        let (now, lease) = (self.clock.now(), self.relay.settings().lease);
        let ask = Ask { now, max, lease, room: Room::endless() };
        self.store.claim(ask).await.unwrap().claims
    }

    fn wait(&self, seconds: i64) {
        let mut now = self.clock.0.lock().unwrap();
        *now = later(*now, SignedDuration::from_secs(seconds));
    }

    async fn rows(&self, id: QueueId) -> Vec<RecipientRow> {
        self.store.message(id).await.unwrap().unwrap().1
    }

    async fn row(&self, id: QueueId) -> RecipientRow {
        self.rows(id).await.remove(0)
    }

    async fn reason(&self, id: QueueId) -> Reason {
        self.row(id).await.why.unwrap().reason
    }

    async fn of_class(&self, class: Class) -> Vec<(MessageRow, Vec<RecipientRow>)> {
        let all = self.store.list(&Filter::default(), None, 1000).await.unwrap();
        all.into_iter().filter(|(m, _)| m.facts.class == class).collect()
    }

    fn taken(&self) -> Vec<Taken> {
        self.net.taken.lock().unwrap().clone()
    }
}

fn vault(store: &Arc<MemoryStore>, clock: Arc<ManualClock>) -> Vault {
    let ring = KeyRing::generate(Zeroizing::new([7; 32]));
    let notices = NoticeSettings {
        head: Letterhead {
            organization: "Example Health".to_owned(),
            support: "help@example.org".to_owned(),
            from: address("secure@example.org"),
            subject: Some("You have a secure message from {organization}".to_owned()),
        },
        templates: Templates::new(&BTreeMap::new()).unwrap(),
        portal_url: "http://127.0.0.1:8080".to_owned(),
        retention: SignedDuration::from_hours(720),
    };
    Vault::new(store.clone(), store.clone(), store.clone(), ring, clock, notices)
}

fn settings() -> RelaySettings {
    RelaySettings {
        hostname: "gw.example.org".parse().unwrap(),
        organization: vec!["example.org".parse().unwrap()],
        inside: NextHop { host: "inside.example.org".to_owned(), mx: false, port: Some(2026) },
        inside_level: Level::Opportunistic,
        notification_level: Level::Opportunistic,
        port: 25,
        retry: [1, 5, 15].map(SignedDuration::from_mins).to_vec(),
        give_up: SignedDuration::from_hours(120),
        warn_after: SignedDuration::from_hours(4),
        connections_per_domain: 2,
        workers: 8,
        report_from: address("postmaster@example.org"),
        lease: SignedDuration::from_hours(4),
        drain: Duration::from_secs(10),
    }
}

#[tokio::test]
async fn a_partner_gets_the_message_byte_for_byte_behind_one_received_field() {
    let house = House::new();
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    house.pass().await;
    let taken = house.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].host.as_str(), taken[0].port), ("mx1.partner.example", 25));
    let (head, body) = taken[0].content.split_at(taken[0].content.len() - BODY.len());
    assert_eq!(body, BODY);
    let head = String::from_utf8(head.to_vec()).unwrap();
    assert!(head.starts_with("Received: ") && head.ends_with("\r\n"), "{head}");
    let fields = head.split("\r\n").filter(|l| !l.is_empty() && !l.starts_with([' ', '\t']));
    assert_eq!(fields.count(), 1, "{head}");
    assert_eq!(taken[0].transaction.size, taken[0].content.len() as u64);
    let row = house.row(id).await;
    assert!(matches!(row.state, RecipientState::Delivered { .. }), "{row:?}");
    assert_eq!(row.why.unwrap().reason, Reason::LevelMet);
    let attempts = house.store.attempts(id, 0).await.unwrap();
    assert_eq!(attempts.len(), 1);
    assert!(attempts[0].tls.is_some() && !attempts[0].verified);
}

#[tokio::test]
async fn policy_marks_and_rules_strip_and_nothing_else_changes() {
    let house = House::new();
    let rule = RuleVerdict { strip: Some("marker".to_owned()), ..RuleVerdict::protected() };
    house.submit_by(rule, Some("ann@example.org"), &["bob@marked.example"]).await;
    house.pass().await;
    let content = house.taken().remove(0).content;
    let subject = b"From: Ann <ann@example.org>\r\nSubject:";
    let at = content.windows(subject.len()).position(|w| w == subject).unwrap();
    assert!(content[..at].ends_with(b"\r\nSensitivity: company-confidential\r\n"));
    assert!(!content.windows(6).any(|w| w == b"MARKER"));
    assert!(content.ends_with(b"\r\n\r\n.dots\r\n\x00\xff and no end"));
}

#[tokio::test]
async fn a_store_that_has_failed_ends_the_loop() {
    let house = House::new();
    house.store.set_health(Health::Broken("disk".to_owned()));
    let ended = house.relay.run(CancellationToken::new()).await;
    assert!(matches!(ended, Err(StoreError::Fatal(_))), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_was_lost_settles_nothing() {
    let house = House::new();
    let id = house.submit(Some("ann@example.org"), &["eve@stranger.example"]).await;
    let lost = house.claim(1).await.remove(0);
    house.wait(24 * 3600);
    house.pass().await;
    let lease = Lease::new(lost.token);
    house.relay.work(lost, lease).await;
    assert!(matches!(house.row(id).await.state, RecipientState::Granted { .. }));
    assert_eq!(house.of_class(Class::Notice).await.len(), 1, "one grant, one notice");
}

/// A clock that jumps over the end of a lease makes no second delivery: the work that goes on gets the
/// lease of the claim that came too early.
#[tokio::test]
async fn a_clock_that_jumps_over_the_lease_doubles_nothing() {
    let house = House::new();
    house.net.gate.forget_permits(1_000_000);
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (relay, stop) = (house.relay.clone(), stop.clone());
        async move { relay.run(stop).await }
    });
    until(|| house.net.open.load(Ordering::SeqCst) == 1).await;
    house.wait(24 * 3600);
    // Its arrival has the queue looked through; once it is at work, the first has been claimed again.
    let next = house.submit(Some("ann@example.org"), &["x@example.org"]).await;
    until(|| house.net.open.load(Ordering::SeqCst) == 2).await;
    house.net.gate.add_permits(9);
    until(|| house.taken().len() == 2).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    for id in [id, next] {
        assert!(matches!(house.row(id).await.state, RecipientState::Delivered { .. }));
    }
    assert_eq!(house.taken().len(), 2, "each once");
}

/// What was delivered must not go out again because the store was busy for a moment, and a grant
/// that is written on the second try is the same grant.
#[tokio::test]
async fn a_busy_store_is_asked_again() {
    let house = House::busy(1);
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    house.pass().await;
    assert!(matches!(house.row(id).await.state, RecipientState::Delivered { .. }));
    assert_eq!(house.taken().len(), 1);

    let house = House::busy(1);
    house.submit(Some("ann@example.org"), &["eve@stranger.example"]).await;
    house.pass().await;
    assert_eq!(house.of_class(Class::Notice).await.len(), 1);
}

#[tokio::test]
async fn the_sweeper_sweeps_at_start_and_on_its_interval() {
    let house = House::new();
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    house.pass().await;
    let vault = house.relay.ports().vault.clone();
    let (sweeper, stop) = (Sweeper::new(vault, Duration::from_secs(60)), CancellationToken::new());
    let sweeping = tokio::spawn({
        let stop = stop.clone();
        async move { sweeper.run(stop).await }
    });
    until(|| house.store.sealed_bytes(id).is_none()).await;
    stop.cancel();
    sweeping.await.unwrap();
}

#[tokio::test]
async fn a_stranger_gets_a_grant_and_one_notice_and_no_content() {
    let house = House::new();
    let id = house.submit(Some("ann@example.org"), &["eve@stranger.example"]).await;
    house.pass().await;
    assert!(house.taken().is_empty());
    let row = house.row(id).await;
    assert!(matches!(row.state, RecipientState::Granted { .. }), "{row:?}");
    assert_eq!(house.of_class(Class::Notice).await.len(), 1);
    assert_eq!(house.pass().await, 1);
    let taken = house.taken();
    assert_eq!(taken.len(), 1);
    assert!(taken[0].transaction.envelope_id.is_none());
    let text = String::from_utf8_lossy(&taken[0].content).into_owned();
    assert!(!text.contains("MARKER") && !text.starts_with("Received:"), "{text}");
    assert_eq!(house.pass().await, 0);
}

#[tokio::test]
async fn trouble_with_a_host_leads_to_the_next() {
    let first = [
        Play::Trouble(Trouble::Unreachable),
        Play::Trouble(Trouble::Handshake),
        Play::Trouble(Trouble::NoStartTls),
        Play::Lost(false),
        Play::Answers(vec![(421, "4.3.2 closing")]),
        Play::Answers(vec![(451, "4.7.1 greylisted")]),
    ];
    for play in first {
        let house = House::new();
        house.script("mx1.partner.example", std::slice::from_ref(&play));
        let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
        house.pass().await;
        let row = house.row(id).await;
        assert!(matches!(row.state, RecipientState::Delivered { .. }), "{play:?}: {row:?}");
        assert_eq!(house.taken()[0].host, "mx2.partner.example", "{play:?}");
        let attempts = house.store.attempts(id, 0).await.unwrap();
        assert_eq!(attempts.len(), 2, "{play:?}");
        assert!(attempts[0].error.is_some() && attempts[1].reply.is_some(), "{play:?}");
    }
}

#[tokio::test]
async fn where_no_host_takes_it_the_answer_of_the_last_one_that_spoke_counts() {
    let house = House::new();
    house.script("mx1.partner.example", &[Play::Answers(vec![(451, "4.7.1 greylisted")])]);
    house.script("mx2.partner.example", &[Play::Trouble(Trouble::Unreachable)]);
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    house.pass().await;
    let row = house.row(id).await;
    assert!(matches!(row.state, RecipientState::Waiting { .. }), "{row:?}");
    let why = row.why.unwrap();
    assert_eq!(why.reason, Reason::PeerDeferred);
    assert!(why.text.contains("greylisted"), "{}", why.text);
    let attempts = house.store.attempts(id, 0).await.unwrap();
    let hosts: Vec<_> = attempts.iter().filter_map(|a| a.mx.as_deref()).collect();
    assert_eq!(hosts, ["mx2.partner.example", "mx1.partner.example"]);
    assert!(attempts[1].reply.as_deref().unwrap().contains("greylisted"));
}

#[tokio::test]
async fn when_all_hosts_fail_the_schedule_says_when_again() {
    let house = House::new();
    for host in ["mx1.partner.example", "mx2.partner.example"] {
        house.script(host, &[Play::Trouble(Trouble::Unreachable)]);
    }
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    for minutes in [1, 5, 15, 15] {
        assert_eq!(house.pass().await, 1);
        let row = house.row(id).await;
        let RecipientState::Waiting { next } = row.state else { panic!("{row:?}") };
        let wait = next.duration_since(house.clock.now()).as_secs();
        let asked = minutes * 60;
        assert!((asked * 9 / 10 - 1..=asked * 11 / 10 + 1).contains(&wait), "{minutes}: {wait}");
        assert_eq!(row.first_failed, Some(start()));
        assert_eq!(house.pass().await, 0, "not due yet");
        house.wait(wait + 1);
    }
    assert_eq!(house.reason(id).await, Reason::Unreachable);
}

#[tokio::test]
async fn a_5xx_over_a_cleared_connection_is_reported_to_the_sender_inside() {
    let house = House::new();
    house.script("mx1.partner.example", &[Play::Answers(vec![(550, "5.1.1 no such user")])]);
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    house.pass().await;
    let row = house.row(id).await;
    let expected = EnhancedStatus::permanent(1, 1);
    assert!(
        matches!(row.state, RecipientState::Bounced { status, .. } if status == expected),
        "{row:?}"
    );
    assert!(house.taken().is_empty(), "the second host is not asked");
    house.pass().await;
    let taken = house.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!((taken[0].host.as_str(), taken[0].port), ("inside.example.org", 2026));
    assert_eq!(taken[0].transaction.sender, None);
    assert_eq!(taken[0].transaction.recipients, [address("ann@example.org")]);
    let text = String::from_utf8_lossy(&taken[0].content).into_owned();
    assert!(text.contains("5.1.1") && text.contains("bob@partner.example"), "{text}");
    assert!(!text.contains("MARKER"), "{text}");
}

#[tokio::test]
async fn dns_trouble_is_neither_a_bounce_nor_an_envelope() {
    let house = House::new();
    let trouble = MxFacts::Trouble("SERVFAIL".to_owned());
    house.dns.0.lock().unwrap().insert("partner.example".to_owned(), trouble);
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    for _ in 0..20 {
        house.pass().await;
        house.wait(1000);
    }
    let row = house.row(id).await;
    assert!(matches!(row.state, RecipientState::Waiting { .. }), "{row:?}");
    assert_eq!(row.first_failed, None, "otherwise_after has not begun");
    assert_eq!(row.why.unwrap().reason, Reason::DnsTrouble);
    assert!(!house.store.attempts(id, 0).await.unwrap().is_empty(), "trace shows the look-ups");
}

#[tokio::test]
async fn lost_after_the_final_dot_waits_and_does_not_go_to_the_next_host() {
    let house = House::new();
    house
        .script("mx1.partner.example", &[Play::Lost(true), Play::Answers(vec![(250, "2.0.0 Ok")])]);
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    house.pass().await;
    let row = house.row(id).await;
    assert!(matches!(row.state, RecipientState::Waiting { .. }), "{row:?}");
    assert!(house.taken().iter().all(|t| t.host == "mx1.partner.example"));
    house.wait(100);
    house.pass().await;
    assert!(matches!(house.row(id).await.state, RecipientState::Delivered { .. }));
}

#[tokio::test]
async fn each_recipient_has_its_own_outcome() {
    let house = House::new();
    let answers = vec![(250, "2.0.0 Ok"), (450, "4.2.0 greylisted"), (550, "5.1.1 unknown")];
    house.script("mx1.partner.example", &[Play::Answers(answers)]);
    let to = ["a@partner.example", "b@partner.example", "c@partner.example"];
    let id = house.submit(Some("ann@example.org"), &to).await;
    house.pass().await;
    let rows = house.rows(id).await;
    assert!(matches!(rows[0].state, RecipientState::Delivered { .. }), "{:?}", rows[0]);
    assert!(matches!(rows[1].state, RecipientState::Waiting { .. }), "{:?}", rows[1]);
    assert!(matches!(rows[2].state, RecipientState::Bounced { .. }), "{:?}", rows[2]);
    assert_eq!(house.of_class(Class::Report).await.len(), 1);
    house.script("mx1.partner.example", &[Play::Answers(vec![(250, "2.0.0 Ok")])]);
    house.wait(100);
    house.pass().await;
    let second = house.taken().into_iter().rfind(|t| t.host == "mx1.partner.example").unwrap();
    assert_eq!(second.transaction.recipients, [address("b@partner.example")]);
}

#[tokio::test]
async fn no_report_goes_to_the_null_sender() {
    let house = House::new();
    house.script("mx1.partner.example", &[Play::Answers(vec![(550, "5.1.1 no such user")])]);
    let id = house.submit(None, &["bob@partner.example"]).await;
    house.pass().await;
    assert!(matches!(house.row(id).await.state, RecipientState::Bounced { .. }));
    assert!(house.of_class(Class::Report).await.is_empty());
}

#[tokio::test]
async fn when_time_is_over_the_sender_hears_of_it() {
    // Unreachable ends by the policy's decision, 4xx by ours.
    let plays = [Play::Trouble(Trouble::Dns), Play::Answers(vec![(451, "4.3.0 later")])];
    for play in plays {
        let house = House::new();
        for host in ["mx1.partner.example", "mx2.partner.example"] {
            house.script(host, std::slice::from_ref(&play));
        }
        let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
        house.pass().await;
        house.wait(120 * 3600 - 60);
        house.pass().await;
        let row = house.row(id).await;
        let RecipientState::Waiting { next } = row.state else { panic!("{play:?}: {row:?}") };
        assert_eq!(next, later(start(), SignedDuration::from_hours(120)), "once more at the end");
        let warnings = house.of_class(Class::Report).await.len();
        assert_eq!(warnings, 1, "{play:?}: late, and said so");
        house.wait(60);
        house.pass().await;
        let row = house.row(id).await;
        assert!(matches!(row.state, RecipientState::Expired { .. }), "{play:?}: {row:?}");
        assert_eq!(house.of_class(Class::Report).await.len(), 2, "{play:?}");
    }
}

#[tokio::test]
async fn a_delay_is_reported_once() {
    let house = House::new();
    for host in ["mx1.partner.example", "mx2.partner.example"] {
        house.script(host, &[Play::Answers(vec![(451, "4.3.0 later")])]);
    }
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    house.pass().await;
    assert!(!house.row(id).await.warned);
    for _ in 0..3 {
        house.wait(4 * 3600);
        house.pass().await;
    }
    assert!(house.row(id).await.warned);
    assert_eq!(house.of_class(Class::Report).await.len(), 1);
}

#[tokio::test]
async fn a_level_that_is_not_met_for_otherwise_after_ends_in_the_envelope() {
    let house = House::new();
    for host in ["mx1.partner.example", "mx2.partner.example"] {
        house.script(host, &[Play::Trouble(Trouble::NoStartTls)]);
    }
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    house.pass().await;
    let row = house.row(id).await;
    assert!(matches!(row.state, RecipientState::Waiting { .. }), "{row:?}");
    house.wait(3700);
    house.pass().await;
    let row = house.row(id).await;
    assert!(matches!(row.state, RecipientState::Granted { .. }), "{row:?}");
    assert_eq!(row.why.unwrap().reason, Reason::LevelNotMet);
    assert!(house.taken().is_empty());
}

#[tokio::test]
async fn a_refused_notice_ends_the_grant_and_is_reported() {
    let house = House::new();
    house.script("mx1.stranger.example", &[Play::Answers(vec![(550, "5.1.1 no such user")])]);
    let id = house.submit(Some("ann@example.org"), &["eve@stranger.example"]).await;
    house.pass().await;
    house.pass().await;
    let RecipientState::Granted { grant, .. } = house.row(id).await.state else { panic!() };
    let grant = house.relay.ports().people.grant(grant).await.unwrap().unwrap();
    assert_eq!(grant.state, GrantState::Recalled);
    let reports = house.of_class(Class::Report).await;
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].1[0].address, address("ann@example.org"));
}

#[tokio::test]
async fn mail_for_our_own_domain_goes_inside() {
    let house = House::new();
    let id = house.submit(Some("eve@stranger.example"), &["ann@example.org"]).await;
    house.pass().await;
    assert!(matches!(house.row(id).await.state, RecipientState::Delivered { .. }));
    assert_eq!(house.reason(id).await, Reason::Inside);
    let taken = house.taken();
    assert_eq!((taken[0].host.as_str(), taken[0].port), ("inside.example.org", 2026));
}

#[tokio::test]
async fn how_tls_went_is_told_of_outside_hosts_alone() {
    let house = House::new();
    house.script("mx1.partner.example", &[Play::Trouble(Trouble::NoStartTls)]);
    house.script("mx1.lost.example", &[Play::Trouble(Trouble::Unreachable)]);
    let to = ["bob@partner.example", "ann@example.org", "eve@stranger.example"];
    house.submit(Some("ann@example.org"), &to).await;
    house.pass().await;
    // The stranger's notice: no TLS there, and the level does not ask for it.
    house.pass().await;
    let told: Vec<_> = house.dns.1.lock().unwrap().iter().map(summary).collect();
    let mut sorted = told.clone();
    sorted.sort();
    assert_eq!(
        sorted,
        [
            "partner.example mx1.partner.example Some(StarttlsNotSupported)",
            "partner.example mx2.partner.example None",
            "stranger.example mx1.stranger.example Some(StarttlsNotSupported)",
        ],
        "nothing of the inside host"
    );
    house.dns.1.lock().unwrap().clear();
    house.submit(Some("ann@example.org"), &["eve@lost.example"]).await;
    house.pass().await;
    house.pass().await;
    let told: Vec<_> = house.dns.1.lock().unwrap().iter().map(summary).collect();
    assert_eq!(
        told,
        ["lost.example mx2.lost.example Some(StarttlsNotSupported)"],
        "a host that can't be reached says nothing of TLS"
    );
}

#[tokio::test]
async fn the_sessions_of_reports_are_not_told() {
    let house = House::new();
    let sender = "ann@elsewhere.example";
    house.script("mx1.partner.example", &[Play::Answers(vec![(550, "5.1.1 no")])]);
    house.submit(Some(sender), &["bob@partner.example"]).await;
    house.pass().await;
    house.dns.1.lock().unwrap().clear();
    house.pass().await;
    assert_eq!(house.taken().last().map(|t| t.host.as_str()), Some("mx1.elsewhere.example"));
    assert_eq!(house.dns.1.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_report_on_tls_goes_even_where_tls_fails() {
    for (class, goes) in [
        (Class::Notice, false),
        (Class::Code, false),
        (Class::Report, false),
        (Class::TlsReport, true),
    ] {
        let strict = RelaySettings { notification_level: Level::Encrypt, ..settings() };
        let house = House::with(0, strict);
        for host in ["mx1.lost.example", "mx2.lost.example"] {
            house.script(host, &[Play::Plaintext]);
        }
        let id = QueueId::new(1, [1; 10]);
        let facts = MessageFacts::own(id, class, start(), Needs::default());
        let vault = &house.relay.ports().vault;
        let sealed = vault.seal_own(facts, vec![address("tls@lost.example")], b"From: x\r\n\r\n");
        house.store.accept(sealed.unwrap()).await.unwrap();
        house.pass().await;
        assert_eq!(house.taken().len(), usize::from(goes), "{class:?}");
        let told = house.dns.1.lock().unwrap().len();
        assert_eq!(told == 0, matches!(class, Class::Report | Class::TlsReport), "{class:?}");
    }
}

fn summary(note: &SessionNote) -> String {
    let result: Option<ResultType> = note.failure.map(|failure| failure.result);
    format!("{} {} {result:?}", note.domain, note.mx.as_deref().unwrap_or("-"))
}

#[tokio::test]
async fn a_fault_in_one_attempt_defers_that_message_and_no_other() {
    let house = House::new();
    house.script("mx1.partner.example", &[Play::Panic, Play::Answers(vec![(250, "2.0.0 Ok")])]);
    let bad = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    let good = house.submit(Some("ann@example.org"), &["dan@partner.example"]).await;
    house.pass().await;
    assert!(matches!(house.row(bad).await.state, RecipientState::Waiting { .. }));
    assert_eq!(house.reason(bad).await, Reason::Ours);
    assert!(matches!(house.row(good).await.state, RecipientState::Delivered { .. }));
}

#[tokio::test]
async fn a_message_that_breaks_every_attempt_is_set_aside_and_comes_back_when_released() {
    let house = House::new();
    house.script("mx1.partner.example", &[Play::Panic]);
    let poison = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    for round in 1..=5 {
        house.wait(3600);
        let good = house.submit(Some("ann@example.org"), &["dan@other.example"]).await;
        house.pass().await;
        assert!(matches!(house.row(good).await.state, RecipientState::Granted { .. }));
        let row = house.row(poison).await;
        let held = matches!(row.state, RecipientState::Held { .. });
        assert_eq!((row.faults, held), (round, round == 5));
    }
    let why = house.row(poison).await.why.unwrap();
    assert_eq!(why.reason, Reason::Ours);
    assert!(why.text.contains(&format!("restante queue release {poison}")), "{}", why.text);
    let reports = house.of_class(Class::Report).await.len();
    house.wait(200 * 3600);
    house.pass().await;
    assert!(matches!(house.row(poison).await.state, RecipientState::Held { .. }), "for ever");
    assert_eq!(house.of_class(Class::Report).await.len(), reports);

    house.script("mx1.partner.example", &[Play::Answers(vec![(250, "2.0.0 Ok")])]);
    let kind = OrderKind::Release;
    let release = Order { id: poison, indexes: [0].into(), kind, spawn: Vec::new() };
    house.store.order(release, house.clock.now()).await.unwrap();
    house.pass().await;
    let row = house.row(poison).await;
    assert!(matches!(row.state, RecipientState::Delivered { .. }), "{row:?}");
    assert_eq!(row.faults, 0);
}

#[tokio::test]
async fn mail_behind_a_busy_domain_can_be_removed() {
    let house = House::new();
    house.net.gate.forget_permits(1_000_000);
    let mut ids = Vec::new();
    for i in 0..5 {
        let to = format!("r{i}@partner.example");
        ids.push(house.submit(Some("ann@example.org"), &[to.as_str()]).await);
    }
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (relay, stop) = (house.relay.clone(), stop.clone());
        async move { relay.run(stop).await }
    });
    until(|| house.net.open.load(Ordering::SeqCst) == 2).await;
    let mut removed = Vec::new();
    let kind = OrderKind::Remove;
    for id in &ids {
        let order = Order { id: *id, indexes: [0].into(), kind, spawn: Vec::new() };
        if !house.store.order(order, house.clock.now()).await.unwrap().changed.is_empty() {
            removed.push(*id);
        }
    }
    assert_eq!(removed.len(), 3, "who waits for a connection is nobody's yet");
    house.net.gate.add_permits(9);
    until(|| house.net.open.load(Ordering::SeqCst) == 0).await;
    stop.cancel();
    running.await.unwrap().unwrap();
    assert_eq!(house.taken().len(), 2, "who was being delivered, and nobody else");
    for id in ids {
        let state = house.row(id).await.state;
        let gone = matches!(state, RecipientState::Removed { .. });
        assert_eq!(gone, removed.contains(&id), "{state:?}");
        assert!(gone || matches!(state, RecipientState::Delivered { .. }), "{state:?}");
    }
}

#[tokio::test]
async fn faults_count_in_a_row_only() {
    let house = House::new();
    let busy = || Play::Answers(vec![(451, "4.3.2 later")]);
    let plays = [Play::Panic, Play::Panic, busy(), Play::Panic, Play::Answers(vec![(250, "ok")])];
    house.script("mx1.partner.example", &plays);
    house.script("mx2.partner.example", &[busy()]);
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    let mut faults = Vec::new();
    for _ in 0..5 {
        house.pass().await;
        faults.push(house.row(id).await.faults);
        house.wait(1000);
    }
    assert_eq!(faults, [1, 2, 0, 1, 0]);
    assert!(matches!(house.row(id).await.state, RecipientState::Delivered { .. }));
}

#[tokio::test]
async fn a_claim_that_cannot_be_settled_waits_and_counts() {
    let house = House::new();
    let id = house.submit(Some("ann@example.org"), &["bob@partner.example"]).await;
    for round in 1..=5 {
        house.wait(3600);
        let claim = house.claim(9).await.remove(0);
        let set = house.relay.ports().policies.current();
        let policy = set.lookup(&claim.domain, house.clock.now()).at.clone();
        let verdict = deliver::Verdict::all(&claim, &outcome::Fate::ours(policy, "x"), vec![]);
        house.relay.put_back(&claim, &Lease::new(claim.token), verdict).await;
        assert_eq!(house.row(id).await.faults, round);
    }
    assert!(matches!(house.row(id).await.state, RecipientState::Held { .. }));
}

#[tokio::test]
async fn the_loop_holds_each_domain_to_its_connections_and_drains_on_stop() {
    let house = House::new();
    house.net.gate.forget_permits(1_000_000);
    for i in 0..6 {
        let to = format!("r{i}@partner.example");
        house.submit(Some("ann@example.org"), &[to.as_str()]).await;
    }
    let other = house.submit(Some("ann@example.org"), &["x@example.org"]).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (relay, stop) = (house.relay.clone(), stop.clone());
        async move { relay.run(stop).await }
    });
    until(|| house.net.open.load(Ordering::SeqCst) == 3).await;
    for taken in 1..=7 {
        house.net.gate.add_permits(1);
        until(|| house.taken().len() >= taken).await;
    }
    assert!(house.net.most_open.load(Ordering::SeqCst) <= 3, "two for the partner, one inside");
    stop.cancel();
    running.await.unwrap().unwrap();
    assert!(matches!(house.row(other).await.state, RecipientState::Delivered { .. }));
    let totals = house.store.totals().await.unwrap();
    assert_eq!((totals.active, totals.deferred), (0, 0), "what ran at the stop was settled");
}

/// Waits for a condition that other tasks bring about.
async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the condition comes");
}

#[test]
fn replies_mean_what_their_code_says() {
    let policy = crate::policy::PolicyRef {
        file: "p.toml".to_owned(),
        line: 1,
        level: Level::Encrypt,
        version: String::new(),
    };
    let cleared = crate::policy::Why { reason: Reason::LevelMet, text: String::new(), policy };
    let (transient, permanent) = (EnhancedStatus::transient, EnhancedStatus::permanent);
    let cases = [
        ((550, "5.7.1 no"), permanent(7, 1), "the status given"),
        ((550, "no"), permanent(0, 0), "550 says not why"),
        ((552, "full"), permanent(2, 2), "from the code"),
        ((550, "4.7.1 no"), permanent(0, 0), "the code's class wins"),
        ((450, "5.1.1 no"), transient(2, 0), "the code's class wins"),
        ((451, "4.7.1 greylisted"), transient(7, 1), "the status given"),
        ((452, "too many"), transient(3, 1), "from the code"),
        ((354, "go on"), transient(0, 0), "no end of a transaction: no SMTP"),
        ((999, "what"), transient(0, 0), "no code at all"),
    ];
    for (given, expected, why) in cases {
        let fate = outcome::of_reply(&reply(given), "mx", &cleared);
        let (status, reason) = match &fate {
            outcome::Fate::Deferred { status, why } => (*status, why.reason),
            outcome::Fate::Failed { status, why } => (*status, why.reason),
            outcome::Fate::Delivered { .. } | outcome::Fate::Sealed { .. } => panic!("{given:?}"),
        };
        assert_eq!(status, expected, "{given:?}: {why}");
        let refused = status.class() == crate::mail::StatusClass::Permanent;
        let asked = if refused { Reason::PeerRefused } else { Reason::PeerDeferred };
        assert_eq!(reason, asked, "{given:?}");
    }
}

#[test]
fn the_log_holds_no_local_parts_and_no_lines_of_the_peer() {
    let cases = [
        ("550 5.1.1 <bob.lee@x.example>: unknown", "550 5.1.1 <…@x.example>: unknown"),
        ("bob@x and ann@y", "…@x and …@y"),
        ("to=bob@x", "to=…@x"),
        ("@x", "…@x"),
        ("no address", "no address"),
        ("two\r\nlines", "two  lines"),
        ("ü.ö@x", "…@x"),
    ];
    for (given, expected) in cases {
        assert_eq!(without_local_parts(given), expected);
    }
}

#[test]
fn texts_are_cut_at_a_character() {
    assert_eq!(bounded("äää".to_owned(), 3), "ä");
    assert_eq!(bounded("abc".to_owned(), 3), "abc");
}
