//! A vault in memory with a served portal before it, and browsers that keep cookies.
use super::super::{Desk, Portal, PortalSettings};
use crate::{
    audit::Audit,
    clock::{Clock, ClockGuard},
    identity::{Identity, IdentitySettings, SecondFactorRule},
    intake::{Door, Envelope},
    language::Languages,
    mail::{
        Address, GrantId, MailData, QueueId,
        header::HeaderScan,
        notice::{Letterhead, Templates},
        parts::Indexer,
    },
    net::http::Connection,
    oidc::Provider,
    policies::Policies,
    policy::{Level, PolicyRef, PolicySet, Reason, RuleVerdict, SourceFile, Why},
    seal::{Class, KeyRing, LinkToken, MessageFacts, header::Needs},
    store::{
        Account, AccountChange, Ask, Filter, Grant, GrantKind, GrantState, Outcome, PeopleStore,
        QueueStore, RecipientRow, RecipientState, Room, Settle, memory::MemoryStore,
    },
    vault::{HISTORY, NoticeSettings, Vault},
};
use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
    serve::Listener,
};
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
};
use zeroize::Zeroizing;

/// A clock that tests move. Ids of one moment come in order, so that the newest mail is the newest.
#[derive(Debug)]
pub(super) struct Hands(Mutex<Timestamp>, AtomicU64);
impl Clock for Hands {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
    fn new_id(&self) -> QueueId {
        let millis = u64::try_from(self.now().as_millisecond()).unwrap();
        let mut tail: [u8; 10] = rand::random();
        let serial = self.1.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        tail[..4].copy_from_slice(&serial[4..]);
        QueueId::new(millis, tail)
    }
}
impl Hands {
    pub(super) fn forward(&self, by: SignedDuration) {
        *self.0.lock().unwrap() += by;
    }
}

/// `portal.max_reply_size` here.
pub(super) const MAX_REPLY: u64 = 4 << 20;
const RULES: &str = "[[rule]]\nwhen = { subject = \"forbidden\" }\naction = \"reject\"\n";
/// Rules that never change.
#[derive(Debug)]
struct InForce(Arc<PolicySet>);
impl Policies for InForce {
    fn current(&self) -> Arc<PolicySet> {
        Arc::clone(&self.0)
    }
}

/// Connections made in memory.
struct Pipes(mpsc::Receiver<DuplexStream>);
impl Listener for Pipes {
    type Io = DuplexStream;
    type Addr = ();
    async fn accept(&mut self) -> (DuplexStream, ()) {
        match self.0.recv().await {
            Some(pipe) => (pipe, ()),
            None => std::future::pending().await,
        }
    }
    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) struct World {
    pub(super) clock: Arc<Hands>,
    pub(super) store: MemoryStore,
    pub(super) vault: Vault,
    pub(super) audit: Audit,
    portal: Portal,
    door: Door,
    dial: mpsc::Sender<DuplexStream>,
}
/// A message kept for somebody: the grant and the token of its link.
pub(super) struct Kept {
    pub(super) grant: GrantId,
    pub(super) token: String,
}
impl Kept {
    pub(super) fn link(&self) -> String {
        format!("/m/{}", self.token)
    }
    pub(super) fn page(&self) -> String {
        format!("/inbox/{}", self.grant)
    }
}

pub(super) fn address(text: &str) -> Address {
    text.parse().unwrap()
}

impl World {
    pub(super) fn new() -> Self {
        Self::at("http://portal.test")
    }
    pub(super) fn at(url: &str) -> Self {
        Self::with_providers(url, Vec::new())
    }
    /// A portal where readers may also sign in elsewhere.
    pub(super) fn with_providers(url: &str, providers: Vec<Arc<Provider>>) -> Self {
        Self::built(url, providers, (SecondFactorRule::Optional, true))
    }
    /// A house that has decided about second factors, and whether a mailed code signs in.
    pub(super) fn of_house(second_factor: SecondFactorRule, code_sign_in: bool) -> Self {
        Self::built("http://portal.test", Vec::new(), (second_factor, code_sign_in))
    }
    fn built(url: &str, providers: Vec<Arc<Provider>>, house: (SecondFactorRule, bool)) -> Self {
        let clock =
            Arc::new(Hands(Mutex::new("2026-11-22T10:00:00Z".parse().unwrap()), AtomicU64::new(1)));
        let store = MemoryStore::new();
        let head = Letterhead {
            organization: "Example Health".into(),
            support: "helpdesk@example.org".into(),
            from: address("secure@example.org"),
            subject: Some("A message from {organization}".into()),
        };
        let notices = NoticeSettings {
            head,
            templates: Templates::new(&BTreeMap::new()).unwrap(),
            portal_url: url.into(),
            retention: SignedDuration::from_hours(30 * 24),
            note: None,
        };
        let shared = Arc::new(store.clone());
        let ring = KeyRing::generate(Zeroizing::new(rand::random()));
        let (queue, bodies) = (shared.clone(), shared.clone());
        let audit = Audit::new(shared.clone(), clock.clone(), HISTORY);
        let vault = Vault::new(
            queue,
            bodies,
            shared.clone(),
            shared,
            ring,
            Arc::new(ClockGuard::new(clock.clone(), None)),
            notices,
        );
        let rules = SourceFile { name: "rules.toml".into(), text: RULES.into() };
        let set = PolicySet::parse(&[rules], clock.now()).unwrap().0;
        let door = Door::new(vault.clone(), vault.queue.clone(), Arc::new(InForce(Arc::new(set))));
        let settings = PortalSettings {
            organization: "Example Health".into(),
            support: "helpdesk@example.org".into(),
            url: url.into(),
            domains: vec!["example.org".parse().unwrap()],
            max_reply_size: MAX_REPLY,
            refuse_files: vec!["*.exe".into()],
            trusted_proxies: vec!["198.51.100.0/24".parse().unwrap()],
            min_rate: 1024,
            brand: super::super::Brand::default(),
            terms_url: String::new(),
            privacy_url: String::new(),
            languages: Arc::new(Languages::new("en", &[]).unwrap()),
            overrides: BTreeMap::new(),
            providers,
        };
        let house = IdentitySettings {
            organization: settings.organization.clone(),
            url: url.into(),
            second_factor: house.0,
            code_sign_in: house.1,
        };
        let identity = Identity::new(house, vault.clone(), Arc::new(store.clone()), audit.clone());
        let portal = Portal::new(settings, vault.clone(), identity, door.clone(), audit.clone());
        let mut portal = portal.unwrap();
        // A slow machine reads no less.
        Arc::get_mut(&mut portal.desk).unwrap().workers.reading = Duration::from_secs(3_600);
        let dial = serve(portal.router());
        Self { clock, store, vault, audit, door, portal, dial }
    }
    /// Writes an account as it is to be, whatever it was.
    pub(super) async fn put_account(&self, new: Account) {
        let old = self.store.account(&new.address).await.unwrap();
        assert!(self.store.change_account(AccountChange::new(old, new)).await.unwrap());
    }
    pub(super) fn desk(&self) -> Arc<Desk> {
        Arc::clone(&self.portal.desk)
    }
    pub(super) fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }
    /// Keeps a message for somebody, as the relay would.
    pub(super) async fn keep(&self, recipient: &str, message: &[u8]) -> Kept {
        self.keep_by(RuleVerdict::protected(), recipient, message).await
    }
    /// Keeps a message that came from that mailbox.
    pub(super) async fn keep_from(&self, sender: &str, recipient: &str, message: &[u8]) -> Kept {
        self.keep_as(RuleVerdict::protected(), sender, recipient, message).await
    }
    /// Keeps a message that came in by the door, with what it says there of others.
    pub(super) async fn keep_through_the_door(&self, recipient: &str, message: &[u8]) -> Kept {
        let recipient = address(recipient);
        let envelope = Envelope {
            sender: Some(address("nurse@example.org")),
            recipients: vec![recipient.clone()],
            client: None,
            needs: Needs::default(),
            envelope_id: None,
            wishes: crate::mail::Wishes::default(),
        };
        let mut incoming = self.door.begin(envelope).await.unwrap();
        incoming.write(&MailData::repaired(message)).await.unwrap();
        let id = incoming.commit(None).await.unwrap();
        self.grant(id, recipient).await
    }
    /// Keeps a message that a rule has spoken of.
    pub(super) async fn keep_by(&self, rule: RuleVerdict, recipient: &str, message: &[u8]) -> Kept {
        self.keep_as(rule, "nurse@example.org", recipient, message).await
    }
    async fn keep_as(
        &self,
        rule: RuleVerdict,
        sender: &str,
        recipient: &str,
        message: &[u8],
    ) -> Kept {
        let id = QueueId::new(1_795_000_000_000, rand::random());
        let facts = MessageFacts {
            id,
            class: Class::Protected,
            sender: Some(address(sender)),
            arrived: self.clock.now(),
            message_id: None,
            client: None,
            needs: Needs::default(),
            envelope_id: None,
            sender_name: None,
            grant: None,
            rule,
            references: Vec::new(),
            wishes: crate::mail::Wishes::default(),
        };
        let recipient = address(recipient);
        let mut deposit = self.vault.deposit(facts, vec![recipient.clone()]).unwrap();
        let (mut indexer, mut scan) = (Indexer::default(), HeaderScan::default());
        for piece in message.chunks(50_000) {
            deposit.write(piece).await.unwrap();
            indexer.feed(piece);
            scan.feed(piece);
        }
        let mut finished = deposit.finish(indexer.finish()).await.unwrap();
        let fields = scan.finish();
        finished.message.facts.message_id = fields.message_id();
        finished.message.facts.references = fields.references();
        self.store.accept(finished.message).await.unwrap();
        self.grant(id, recipient).await
    }
    async fn grant(&self, id: QueueId, recipient: Address) -> Kept {
        let now = self.clock.now();
        let claims = self
            .store
            .claim(Ask {
                now,
                max: 100,
                lease: SignedDuration::from_mins(5),
                room: Room::endless(),
            })
            .await
            .unwrap()
            .claims;
        let claim = claims.into_iter().find(|claim| claim.message.facts.id == id).unwrap();
        let token = LinkToken::from_random(Zeroizing::new(rand::random()));
        let grant = Grant {
            id: GrantId::from_bytes(rand::random()),
            message: id,
            recipient,
            token: token.hash(),
            sealed: now,
            expires: now + SignedDuration::from_hours(30 * 24),
            opened: None,
            state: GrantState::Live,
            kind: GrantKind::Received,
            origin: None,
            moved: None,
            proof: None,
        };
        let kept = Kept { grant: grant.id, token: token.expose().to_owned() };
        let policy =
            PolicyRef { file: "a".into(), line: 1, level: Level::Envelope, version: "v".into() };
        let text = "All mail to this domain is sealed.".to_owned();
        let outcome = Outcome {
            index: 0,
            state: RecipientState::Granted { at: now, grant: grant.id },
            why: Some(Why { reason: Reason::PolicyEnvelope, text, policy }),
            attempts: vec![],
            first_failed: None,
            warned: false,
            faults: 0,
            grant: Some(grant),
        };
        let settle =
            Settle { token: claim.token, id, outcomes: vec![outcome], spawn: vec![], recall: None };
        self.store.settle(settle).await.unwrap();
        kept
    }
    /// Takes the newest code mail out of the queue, and reads the code in it.
    pub(super) async fn mailed_code(&self, recipient: &str) -> Option<String> {
        let filter = Filter { recipient: Some(address(recipient)), ..Filter::default() };
        let all = self.store.list(&filter, None, 1000).await.unwrap();
        // The filter takes an address in any case; the code is this mailbox's own.
        let own = |rows: &[RecipientRow]| rows.iter().any(|r| r.address == address(recipient));
        let codes = all.into_iter().filter(|(row, to)| row.facts.class == Class::Code && own(to));
        let (row, _) = codes.max_by_key(|(row, _)| row.facts.id)?;
        let mut content = self.vault.open_notice(&row, &[]).await.unwrap();
        let mut text = String::new();
        while let Some(piece) = content.next().await.unwrap() {
            text.push_str(std::str::from_utf8(&piece).unwrap());
        }
        assert!(!text.contains("/m/"), "a code mail holds no link");
        // Eight digits, or sixteen letters and digits, alone on a line.
        let of = |line: &&str, length: usize, letters: &str| {
            line.len() == length && line.chars().all(|c| letters.contains(c))
        };
        let mut lines = text.lines().map(str::trim);
        let code = lines.find(|line| {
            of(line, 8, "0123456789") || of(line, 16, "abcdefghijklmnopqrstuvwxyz234567")
        });
        code.map(ToOwned::to_owned)
    }
    /// The mail that was written last, as it stands in the queue.
    pub(super) async fn newest_mail(&self, recipient: &str) -> String {
        let filter = Filter { recipient: Some(address(recipient)), ..Filter::default() };
        let mut all = self.store.list(&filter, None, 1000).await.unwrap();
        all.retain(|(row, _)| row.facts.class != Class::Protected);
        let (row, _) = all.into_iter().max_by_key(|(row, _)| row.facts.id).unwrap();
        let mut content = self.vault.open_notice(&row, &[]).await.unwrap();
        let mut text = String::new();
        while let Some(piece) = content.next().await.unwrap() {
            text.push_str(std::str::from_utf8(&piece).unwrap());
        }
        text.replace("=\r\n", "")
    }
    /// The code that was asked for a moment ago: its mail is written after the answer.
    pub(super) async fn code_after(&self, recipient: &str) -> Option<String> {
        self.written().await;
        self.mailed_code(recipient).await
    }
    /// Waits until no mail is being written any more.
    pub(super) async fn written(&self) {
        self.portal.desk.identity.written().await;
    }
    /// Words to an account's owner, oldest first.
    pub(super) async fn told(&self, recipient: &str) -> Vec<String> {
        let filter = Filter { recipient: Some(address(recipient)), ..Filter::default() };
        let mut all = self.store.list(&filter, None, 1000).await.unwrap();
        all.retain(|(row, _)| row.facts.class == Class::Notice && row.facts.grant.is_none());
        all.sort_by_key(|(row, _)| row.facts.arrived);
        let mut texts = Vec::new();
        for (row, _) in all {
            let mut content = self.vault.open_notice(&row, &[]).await.unwrap();
            let mut text = String::new();
            while let Some(piece) = content.next().await.unwrap() {
                text.push_str(std::str::from_utf8(&piece).unwrap());
            }
            assert!(!text.contains("/m/"), "no link");
            texts.push(text.replace("=\r\n", ""));
        }
        texts
    }
    /// Everything that a request could change.
    pub(super) fn snapshot(&self) -> String {
        format!("{:?}", self.store)
    }
    pub(super) async fn grant_row(&self, kept: &Kept) -> Grant {
        self.store.grant(kept.grant).await.unwrap().unwrap()
    }
    pub(super) fn browser(&self) -> Browser<'_> {
        Browser {
            world: self,
            cookies: BTreeMap::new(),
            client: "192.0.2.1:999".into(),
            agent: String::new(),
        }
    }
    /// A browser that has gone from the link to the message.
    pub(super) async fn registered(&self, who: &str, kept: &Kept) -> Browser<'_> {
        let mut browser = self.browser();
        let sent = browser.post("/register", &registration(&kept.token)).await;
        assert_eq!(
            (sent.status, sent.header("location")),
            (303, Some("/verify")),
            "{}",
            sent.text()
        );
        let code = self.mailed_code(who).await.unwrap();
        let done = browser.post("/verify", &[("code", &code)]).await;
        assert_eq!((done.status, done.header("location")), (303, Some(kept.page().as_str())));
        browser
    }
}

pub(super) const PASSWORD: &str = "a heron sleeps upright";
pub(super) fn registration(token: &str) -> [(&'static str, &str); 6] {
    [
        ("token", token),
        ("first_name", "Ann"),
        ("last_name", "Ode"),
        ("password", PASSWORD),
        ("password_confirm", PASSWORD),
        ("accept_terms", "yes"),
    ]
}

fn serve(router: Router) -> mpsc::Sender<DuplexStream> {
    let (dial, pipes) = mpsc::channel(8);
    let router = router.layer(from_fn(from_client));
    tokio::spawn(async move { axum::serve(Pipes(pipes), router).await });
    dial
}
/// The address that a listener would tell.
async fn from_client(mut request: Request, next: Next) -> Response {
    let client = request.headers().get("x-test-client").and_then(|value| value.to_str().ok());
    if let Some(client) = client.and_then(|text| text.parse::<SocketAddr>().ok()) {
        request.extensions_mut().insert(Connection::unlisted(client.ip()));
    }
    next.run(request).await
}

/// Octets that a connection holds.
const PIPE: usize = 64 * 1024;

/// A browser: keeps cookies, follows nothing by itself.
pub(super) struct Browser<'a> {
    world: &'a World,
    pub(super) cookies: BTreeMap<String, String>,
    pub(super) client: String,
    pub(super) agent: String,
}
impl Browser<'_> {
    pub(super) async fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }
    /// Shows by the password that it is the owner.
    pub(super) async fn prove(&mut self) {
        let form = [("action", "prove"), ("proof_password", PASSWORD)];
        let proved = self.post("/account", &form).await;
        assert_eq!(proved.header("location"), Some("/account?done=proved#second"));
    }
    pub(super) async fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.send("POST", path, &[("sec-fetch-site", "same-origin")], &encoded(form)).await
    }
    pub(super) async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let kind = "application/x-www-form-urlencoded";
        self.deliver(method, path, headers, (kind, body.as_bytes())).await
    }
    /// Sends the writing form, typed fields first; an answer may come before all of it is sent.
    pub(super) async fn write(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        files: &[(&str, &[u8])],
    ) -> Answer {
        let fields = fields.iter().map(|(name, value)| (*name, None, value.as_bytes()));
        let files = files.iter().map(|(name, bytes)| ("files", Some(*name), *bytes));
        let parts: Vec<_> = fields.chain(files).collect();
        self.post_parts(path, &parts).await
    }
    /// A stretch of an upload.
    pub(super) async fn stretch(&mut self, path: &str, content: &[u8]) -> Answer {
        let kind = "application/octet-stream";
        self.deliver("POST", path, &[("sec-fetch-site", "same-origin")], (kind, content)).await
    }
    /// A request of any kind.
    pub(super) async fn deliver_as(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: &str,
    ) -> Answer {
        self.deliver(method, path, &[], (kind, body.as_bytes())).await
    }
    pub(super) async fn post_parts(
        &mut self,
        path: &str,
        parts: &[(&str, Option<&str>, &[u8])],
    ) -> Answer {
        let mut body = Vec::new();
        for (name, file, content) in parts {
            body.extend(
                format!("--limit\r\nContent-Disposition: form-data; name=\"{name}\"").bytes(),
            );
            if let Some(file) = file {
                let more = format!("; filename=\"{file}\"\r\nContent-Type: application/pdf");
                body.extend(more.bytes());
            }
            body.extend(b"\r\n\r\n");
            body.extend_from_slice(content);
            body.extend(b"\r\n");
        }
        body.extend(b"--limit--\r\n");
        let kind = "multipart/form-data; boundary=limit";
        let headers = [("sec-fetch-site", "same-origin")];
        self.deliver("POST", path, &headers, (kind, &body)).await
    }
    /// Begins the writing form with a file, and stops in its midst: the connection, once what came of it
    /// has been taken in.
    pub(super) async fn hang(&mut self, path: &str, file: &str) -> DuplexStream {
        let body = format!(
            "--limit\r\nContent-Disposition: form-data; name=\"body\"\r\n\r\nx\r\n--limit\r\n\
             Content-Disposition: form-data; name=\"files\"; filename=\"{file}\"\r\n\r\n"
        );
        // More than the pipe holds: all of it is sent only once the form is being read.
        let body = body + &"x".repeat(2 * PIPE);
        let cookies =
            self.cookies.iter().map(|(name, value)| format!("cookie: {name}={value}\r\n"));
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: portal.test\r\nsec-fetch-site: same-origin\r\n{}\
             x-test-client: {}\r\ncontent-length: 1000000\r\n\
             content-type: multipart/form-data; boundary=limit\r\n\r\n{body}",
            cookies.collect::<String>(),
            self.client
        );
        let (mut ours, theirs) = tokio::io::duplex(PIPE);
        self.world.dial.send(theirs).await.unwrap();
        ours.write_all(head.as_bytes()).await.unwrap();
        ours
    }
    /// Announces a body of that length and sends only its beginning, then waits for the answer.
    pub(super) async fn break_off(&mut self, path: &str, kind: &str, part: &str) -> Answer {
        let head = self.head("POST", path, &[], (kind, part.len() + 1000));
        self.exchange(&head, part.as_bytes()).await
    }
    async fn deliver(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        (kind, body): (&str, &[u8]),
    ) -> Answer {
        let head = self.head(method, path, headers, (kind, body.len()));
        self.exchange(&head, body).await
    }
    fn head(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        (kind, length): (&str, usize),
    ) -> String {
        let mut text =
            format!("{method} {path} HTTP/1.1\r\nhost: portal.test\r\nconnection: close\r\n");
        text += &format!("x-test-client: {}\r\ncontent-length: {length}\r\n", self.client);
        text += &format!("content-type: {kind}\r\n");
        if !self.agent.is_empty() {
            text += &format!("user-agent: {}\r\n", self.agent);
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        for (name, value) in &self.cookies {
            text += &format!("cookie: {name}={value}\r\n");
        }
        text + "\r\n"
    }
    async fn exchange(&mut self, head: &str, body: &[u8]) -> Answer {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        self.world.dial.send(theirs).await.unwrap();
        let (mut from, mut to) = tokio::io::split(ours);
        let mut bytes = Vec::new();
        let sending = async {
            to.write_all(head.as_bytes()).await?;
            to.write_all(body).await
        };
        let (sent, read) = tokio::join!(sending, from.read_to_end(&mut bytes));
        sent.expect("the whole request is taken, whatever the answer");
        read.unwrap();
        let answer = Answer::parse(&bytes);
        self.take_cookies(&answer);
        answer
    }
    fn take_cookies(&mut self, answer: &Answer) {
        for (_, value) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (name, rest) = value.split_once('=').unwrap();
            match rest.split(';').next().unwrap() {
                "" => self.cookies.remove(name),
                value => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
    }
}
fn encoded(form: &[(&str, &str)]) -> String {
    let byte = |b: u8| match b {
        b' ' => "+".to_owned(),
        b if b.is_ascii_alphanumeric() || b == b'_' => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    let pair = |(name, value): &(&str, &str)| {
        format!("{name}={}", value.bytes().map(byte).collect::<String>())
    };
    form.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// False where a chunked body broke off before its end.
    pub(super) whole: bool,
}
impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let body = &bytes[end + 4..];
        let chunked = headers.iter().any(|(name, _)| name == "transfer-encoding");
        let (body, whole) = if chunked { unchunked(body) } else { (body.to_vec(), true) };
        Self { status, headers, body, whole }
    }
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
    /// The text of a page; nothing for what is none.
    pub(super) fn text_if_any(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap_or_default()
    }
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}
fn unchunked(mut body: &[u8]) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    loop {
        let Some(end) = body.windows(2).position(|w| w == b"\r\n") else { return (out, false) };
        let size = std::str::from_utf8(&body[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (out, true);
        }
        out.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
    }
}
