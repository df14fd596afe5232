//! The relay as scripted scenarios: what the network does, and what becomes of the mail.

mod doubt;
mod fates;
mod reports;
mod reuse;
mod trouble;

use super::{
    log::without_local_parts,
    outcome,
    run::{Lease, SLEEP_MAX},
    *,
};
use crate::{
    clock::ClockGuard,
    dns::{Addresses, Texts},
    mail::{
        EnhancedStatus, MailData, QueueId, Wishes,
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
        Ask, Attempt, Claim, Claimed, Doomed, Filter, GrantState, Health, MessageRow, NewMessage,
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

[[partner]]
domains = ["bounced.example"]
level = "encrypt"
otherwise = "bounce"

[[partner]]
domains = ["pinned.example"]
level = "fingerprint"
fingerprints = ["sha256:abababababababababababababababababababababababababababababababab"]
"#;
const BODY: &[u8] =
    b"From: Ann <ann@example.org>\r\nSubject: MARKER\r\n\r\n.dots\r\n\x00\xff and no end";

#[derive(Debug)]
struct ManualClock(Mutex<Timestamp>, Mutex<SignedDuration>);
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
    fn monotonic(&self) -> SignedDuration {
        self.now().duration_since(Timestamp::UNIX_EPOCH) - *self.1.lock().unwrap()
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
        key_fingerprint: "ab".repeat(32),
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
    fn endings(&self) -> Arc<tokio::sync::Notify> {
        self.0.endings()
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
    async fn doomed(&self, now: Option<TrustedTime>, max: usize) -> Result<Doomed, StoreError> {
        self.0.doomed(now, max).await
    }
    async fn checkpoint(&self) -> Result<(), StoreError> {
        self.0.checkpoint().await
    }
    async fn forget_body(&self, id: QueueId) -> Result<(), StoreError> {
        self.0.forget_body(id).await
    }
    async fn purge(
        &self,
        now: TrustedTime,
        age: SignedDuration,
        max: usize,
    ) -> Result<usize, StoreError> {
        self.0.purge(now, age, max).await
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
        let clock = Arc::new(ManualClock(Mutex::new(start()), Mutex::default()));
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
        let finished = deposit.finish(PartIndex::default()).await.unwrap();
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

    /// The clock is set; no time passes.
    fn set_clock(&self, by: SignedDuration) {
        *self.clock.1.lock().unwrap() += by;
        self.wait(by.as_secs());
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

    /// The relay's own loop, until [`Running::end`].
    fn run(&self) -> Running {
        let (relay, stop) = (self.relay.clone(), CancellationToken::new());
        let stopped = stop.clone();
        Running { stop, task: tokio::spawn(async move { relay.run(stopped).await }) }
    }
}

struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), StoreError>>,
}
impl Running {
    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
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
        note: None,
    };
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
