//! The vault over the store in memory: what goes in comes out by the right door, and only there.

mod channel;
mod rewrap;
mod time;

use super::{deposit::GATHER, *};
use crate::{
    mail::{
        Address, GrantId, MailData, ReversePath,
        notice::Templates,
        parts::{Indexer, PartIndex},
    },
    policy::{
        Clearance, Facts, Level, PeerFacts, PolicyRef, PolicySet, Question, Reason, Route,
        RuleVerdict, SourceFile, StartTls, Why, decide,
    },
    seal::{
        Class, DataKey, LinkToken, MessageFacts, Purpose, WrappedKey,
        header::Needs,
        stream::{CHUNK, HEADER_MAX},
    },
    store::{
        Account, AccountChange, Ask, BodyWriter, Grant, GrantKind, GrantState, Locator, MessageRow,
        NewMessage, Outcome, RecipientRow, RecipientState, Room, SessionFacts, Settle,
        body::{Aside, BodyReader},
        memory::MemoryStore,
        queue::NewBody,
        queue::SMALL,
    },
    wire::Source,
};
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

#[derive(Debug)]
struct Hands(Mutex<Timestamp>, Mutex<SignedDuration>);

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
    fn monotonic(&self) -> SignedDuration {
        self.now().duration_since(Timestamp::UNIX_EPOCH) - *self.1.lock().unwrap()
    }
}

impl Hands {
    /// The clock is set; no time passes.
    fn set(&self, by: SignedDuration) {
        *self.1.lock().unwrap() += by;
        *self.0.lock().unwrap() += by;
    }
    fn forward(&self, by: SignedDuration) {
        let mut now = self.0.lock().unwrap();
        *now += by;
    }
}

const DAY: SignedDuration = SignedDuration::from_hours(24);

struct House {
    vault: Vault,
    store: MemoryStore,
    clock: Arc<Hands>,
}

fn house() -> House {
    noting(None)
}

/// A house that takes the sender's own words for the notice from that field.
fn noting(note: Option<&str>) -> House {
    let store = MemoryStore::new();
    let clock =
        Arc::new(Hands(Mutex::new("2026-11-22T12:00:00Z".parse().unwrap()), Mutex::default()));
    let notices = NoticeSettings {
        head: Letterhead {
            organization: "Example Health".to_owned(),
            support: "help@example.org".to_owned(),
            from: address("secure@example.org"),
            subject: Some("You have a secure message from {organization}".to_owned()),
        },
        templates: Templates::new(&BTreeMap::new()).unwrap(),
        portal_url: "https://portal.example.org/".to_owned(),
        retention: DAY * 30,
        note: note.map(str::to_owned),
    };
    let shared = Arc::new(store.clone());
    let ring = KeyRing::generate(random_secret());
    let (queue, bodies) = (shared.clone(), shared.clone());
    let vault = Vault::new(
        queue,
        bodies,
        shared.clone(),
        shared,
        ring,
        Arc::new(ClockGuard::new(clock.clone(), None)),
        notices,
    );
    House { vault, store, clock }
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn account(text: &str) -> Account {
    Account::new(address(text), [1; 16], "2026-11-22T13:00:00Z".parse().unwrap())
}

fn facts(vault: &Vault, class: Class, sender: ReversePath) -> MessageFacts {
    MessageFacts {
        id: vault.new_id(),
        class,
        sender,
        arrived: vault.clock.now(),
        message_id: None,
        client: None,
        needs: Needs::default(),
        envelope_id: None,
        sender_name: Some("Dr. Who".to_owned()),
        grant: None,
        rule: RuleVerdict::protected(),
        references: Vec::new(),
        wishes: crate::mail::Wishes::default(),
    }
}

fn why() -> Why {
    let (file, version) = ("default.toml".to_owned(), String::new());
    let policy = PolicyRef { file, line: 1, level: Level::Envelope, version };
    Why { reason: Reason::PolicyEnvelope, text: "always sealed".to_owned(), policy }
}

/// A message of that many bytes with markers all over it.
fn mail(length: usize) -> Vec<u8> {
    let head = b"Subject: PLAINTEXT-MARKER\r\n\r\n".as_slice();
    let line = b"a line with PLAINTEXT-MARKER in it\r\n";
    let mut text = [head, &line.repeat(length / line.len() + 1)].concat();
    text.truncate(length);
    text
}

fn indexed(content: &[u8]) -> PartIndex {
    let mut indexer = Indexer::default();
    indexer.feed(content);
    indexer.finish()
}

async fn seal(vault: &Vault, content: &[u8], portion: usize) -> NewMessage {
    seal_in_portions(vault, content, "ann@stranger.example", portion).await
}

async fn seal_for(vault: &Vault, content: &[u8], recipient: &str) -> NewMessage {
    seal_in_portions(vault, content, recipient, 50_000).await
}

async fn seal_in_portions(
    vault: &Vault,
    content: &[u8],
    recipient: &str,
    portion: usize,
) -> NewMessage {
    let facts = facts(vault, Class::Protected, Some(address("doctor@example.org")));
    let mut deposit = vault.deposit(facts, vec![address(recipient)]).unwrap();
    for piece in content.chunks(portion) {
        deposit.write(piece).await.unwrap();
    }
    assert_eq!(deposit.size(), content.len() as u64);
    deposit.finish(indexed(content)).await.unwrap().message
}

impl House {
    async fn accept(&self, message: NewMessage) -> MessageRow {
        let id = message.facts.id;
        self.store.accept(message).await.unwrap();
        self.store.message(id).await.unwrap().unwrap().0
    }

    /// Deposits, accepts and grants; the notice is accepted too.
    async fn granted(&self, content: &[u8]) -> (MessageRow, Grant, MessageRow) {
        let row = self.accept(seal(&self.vault, content, 50_000).await).await;
        let to = address("ann@stranger.example");
        let (grant, mail) = self.vault.grant(&row, &to, &why(), Channel::default()).await.unwrap();
        let notice_id = mail[0].facts.id;
        let now = self.vault.clock.now();
        let claim = self
            .store
            .claim(Ask { now, max: 9, lease: DAY, room: Room::endless() })
            .await
            .unwrap()
            .claims
            .remove(0);
        let outcome = Outcome {
            index: 0,
            state: RecipientState::Granted { at: now, grant: grant.id },
            why: Some(why()),
            attempts: Vec::new(),
            first_failed: None,
            warned: false,
            faults: 0,
            grant: Some(grant.clone()),
        };
        let (token, id) = (claim.token, row.facts.id);
        let settle = Settle { token, id, outcomes: vec![outcome], spawn: mail, recall: None };
        self.store.settle(settle).await.unwrap();
        let notice = self.store.message(notice_id).await.unwrap().unwrap().0;
        (row, grant, notice)
    }

    async fn access(&self, grant: &Grant) -> Access {
        let account = account("ann@stranger.example");
        match self.vault.access(grant.id, &account, &SessionFacts::default()).await.unwrap() {
            AccessAnswer::Granted(access) => access,
            AccessAnswer::Unproved(_) | AccessAnswer::Over | AccessAnswer::NotYours => {
                panic!("not granted")
            }
        }
    }
}

async fn all(mut content: Content) -> Result<Vec<u8>, VaultError> {
    let mut text = Vec::new();
    while let Some(piece) = content.next().await? {
        assert!(!piece.is_empty());
        text.extend_from_slice(&piece);
    }
    assert!(content.next().await.unwrap().is_none(), "the end stays");
    Ok(text)
}

#[tokio::test]
async fn what_was_deposited_is_read_by_its_recipient() {
    for length in [0, 1, 5000, CHUNK, CHUNK + 1, SMALL, 1_000_000] {
        let house = house();
        let content = mail(length);
        let (row, grant, _) = house.granted(&content).await;
        assert_eq!(row.size, length as u64);
        let access = house.access(&grant).await;
        let (found, index) = house.vault.index(&access).await.unwrap();
        assert_eq!(found.facts.id, row.facts.id);
        assert_eq!(index, indexed(&content), "{length}");
        let read = all(house.vault.read(&access, 0..length as u64).await.unwrap()).await;
        assert!(read.unwrap() == content, "{length}");
        let sealed = house.store.sealed_bytes(row.facts.id).unwrap();
        for marker in [b"PLAINTEXT".as_slice(), b"MARKER", b"doctor@", b"ann@"] {
            assert!(!sealed.windows(marker.len()).any(|w| w == marker), "{length}");
        }
    }
}

#[tokio::test]
async fn ranges_cross_frames_and_stop_at_the_end() {
    let house = house();
    let content = mail(3 * CHUNK + 100);
    let (_, grant, _) = house.granted(&content).await;
    let access = house.access(&grant).await;
    let (c, size) = (CHUNK as u64, content.len() as u64);
    for (range, why) in [
        (0..1, "the first byte"),
        (0..c, "one frame"),
        (c - 1..c + 1, "across a border"),
        (c..2 * c, "a frame in the middle"),
        (10..3 * c + 10, "four frames"),
        (3 * c..size, "the last frame"),
        (size - 1..size, "the last byte"),
        (5..5, "nothing"),
        (size..size, "nothing, at the end"),
        (size - 3..size + 9, "beyond the end"),
        (size + 5..size + 9, "behind the end"),
        (0..u64::MAX, "all there is"),
    ] {
        let end = range.end.min(size);
        let want = &content[range.start.min(end) as usize..end as usize];
        let read = all(house.vault.read(&access, range.clone()).await.unwrap()).await.unwrap();
        assert!(read == want, "{why}: {range:?}");
    }
    let backwards = std::ops::Range { start: 9, end: 3 };
    assert!(all(house.vault.read(&access, backwards).await.unwrap()).await.unwrap().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn portions_do_not_matter(length in 0..300_000_usize, portion in 1..200_000_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let house = house();
            let content = mail(length);
            // Single bytes by the hundred thousand would only be slow.
            let portion = portion.max(length / 1000);
            let row = house.accept(notice_of(&house.vault, &content, portion).await).await;
            let read = all(house.vault.open_notice(&row, &[]).await.unwrap()).await.unwrap();
            prop_assert!(read == content);
            Ok(())
        })?;
    }
}

/// A message of class notice, deposited in portions.
async fn notice_of(vault: &Vault, content: &[u8], portion: usize) -> NewMessage {
    let facts = facts(vault, Class::Notice, None);
    let mut deposit = vault.deposit(facts, vec![address("ann@stranger.example")]).unwrap();
    for piece in content.chunks(portion) {
        deposit.write(piece).await.unwrap();
    }
    deposit.finish(PartIndex::default()).await.unwrap().message
}

/// Body store that counts what is written and fails from a given write on.
#[derive(Debug, Clone, Default)]
struct Counting {
    made: Arc<AtomicUsize>,
    writes: Arc<Mutex<Vec<usize>>>,
    fails_from: Option<usize>,
}

#[async_trait]
impl BodyStore for Counting {
    async fn create(&self, _: QueueId) -> Result<Box<dyn BodyWriter>, StoreError> {
        self.made.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(self.clone()))
    }
    async fn open(
        &self,
        _: QueueId,
        _: &Locator,
        _: std::ops::Range<u64>,
    ) -> Result<Box<dyn BodyReader>, StoreError> {
        Err(StoreError::NotFound)
    }
    async fn aside(&self, _: QueueId) -> Result<Box<dyn Aside>, StoreError> {
        Err(StoreError::Busy)
    }
    async fn rewrap(
        &self,
        _: QueueId,
        _: &Locator,
        _: usize,
        _: &WrappedKey,
    ) -> Result<bool, StoreError> {
        Err(StoreError::Busy)
    }
    async fn delete(&self, _: QueueId, _: &Locator) -> Result<(), StoreError> {
        Err(StoreError::Busy)
    }
}

#[async_trait]
impl BodyWriter for Counting {
    async fn write(&mut self, sealed: Bytes) -> Result<(), StoreError> {
        let mut writes = self.writes.lock().unwrap();
        if self.fails_from.is_some_and(|from| writes.len() >= from) {
            return Err(StoreError::Full);
        }
        writes.push(sealed.len());
        Ok(())
    }
    async fn seal(self: Box<Self>) -> Result<Locator, StoreError> {
        Ok(Locator::File { length: self.writes.lock().unwrap().iter().sum::<usize>() as u64 })
    }
}

#[tokio::test]
async fn large_bodies_are_gathered_and_small_ones_stay_with_their_row() {
    for (length, large) in [(0, false), (SMALL - 2000, false), (SMALL, true), (3_000_000, true)] {
        let bodies = Counting::default();
        let vault = Vault { bodies: Arc::new(bodies.clone()), ..house().vault };
        // The whole content in one call: what is held stays bounded all the same.
        let message = seal(&vault, &mail(length), usize::MAX).await;
        assert_eq!(bodies.made.load(Ordering::SeqCst), usize::from(large), "{length}");
        match message.body {
            NewBody::Small(sealed) => {
                assert!(!large && sealed.len() <= SMALL && sealed.len() > length, "{length}");
            }
            NewBody::At(at) => {
                let writes = bodies.writes.lock().unwrap();
                let (last, rest) = writes.split_last().unwrap();
                assert!(large && *last <= 2 * 1024 * 1024, "{length}: {writes:?}");
                assert!(rest.iter().all(|w| *w <= GATHER + 2 * CHUNK), "{writes:?}");
                assert!(rest.iter().skip(1).all(|w| *w >= GATHER), "{writes:?}");
                let sealed: usize = writes.iter().sum();
                assert_eq!(at, Locator::File { length: sealed as u64 });
                assert!(sealed > length && sealed < length + length / 100 + 2000, "{length}");
            }
        }
    }
}

#[tokio::test]
async fn a_deposit_with_a_gap_is_never_finished() {
    let bodies = Counting { fails_from: Some(1), ..Counting::default() };
    let vault = Vault { bodies: Arc::new(bodies), ..house().vault };
    let facts = facts(&vault, Class::Protected, None);
    let mut deposit = vault.deposit(facts, vec![address("ann@stranger.example")]).unwrap();
    deposit.write(&mail(SMALL)).await.unwrap();
    let full = deposit.write(&mail(2_000_000)).await;
    assert!(matches!(full, Err(VaultError::Store(StoreError::Full))), "{full:?}");
    assert!(matches!(deposit.write(b"more").await, Err(VaultError::Refused(_))));
    let finished = deposit.finish(PartIndex::default()).await;
    assert!(matches!(finished, Err(VaultError::Refused(_))));
}

#[tokio::test]
async fn only_our_own_mail_goes_over_the_open_channel() {
    let house = house();
    let (row, _, notice) = house.granted(&mail(100)).await;
    let refused = house.vault.open_notice(&row, &[]).await;
    assert!(matches!(refused, Err(VaultError::Refused(_))), "{refused:?}");
    assert!(house.vault.open_notice(&notice, &[]).await.is_ok());

    // Somebody edits the row: the sealed header still says what the message is.
    for class in [Class::Notice, Class::Code, Class::Report, Class::TlsReport] {
        let mut forged = row.clone();
        forged.facts.class = class;
        let read = all(house.vault.open_notice(&forged, &[]).await.unwrap()).await;
        assert!(matches!(read, Err(VaultError::Refused(_))), "{class:?}: {read:?}");
    }
}

#[tokio::test]
async fn no_mail_of_our_own_goes_out_as_another_kind() {
    let house = house();
    let (_, _, notice) = house.granted(&mail(100)).await;
    for (class, goes) in [(Class::Notice, true), (Class::Report, false), (Class::TlsReport, false)]
    {
        let mut row = notice.clone();
        row.facts.class = class;
        let read = all(house.vault.open_notice(&row, &[]).await.unwrap()).await;
        assert_eq!(read.is_ok(), goes, "{class:?}: {read:?}");
    }
}

/// A clearance for that connection, the only way there is: a policy that was met.
fn clearance(connection: u64) -> Clearance {
    let now = "2026-11-22T12:00:00Z".parse().unwrap();
    let text = "[[partner]]\ndomains = [\"stranger.example\"]\nlevel = \"opportunistic\"\n";
    let file = SourceFile { name: "partner.toml".to_owned(), text: text.to_owned() };
    let (set, _) = PolicySet::parse(&[file], now).unwrap();
    let peer = PeerFacts {
        connection,
        host: "mx.stranger.example".to_owned(),
        address: "192.0.2.1:25".parse().unwrap(),
        tls: StartTls::NotOffered,
        eight_bit: true,
        smtputf8: true,
        require_tls: false,
        size: None,
    };
    let to = address("ann@stranger.example");
    let facts = Facts {
        question: Question::Protected(&RuleVerdict::protected()),
        set: &set,
        domain: to.domain(),
        needs: Needs::default(),
        size: 1,
        now,
        first_failed: None,
        overdue: false,
        sts: None,
        host: None,
        mx: None,
        tried: &[],
        peer: Some(&peer),
        exhausted: false,
    };
    let Route::Direct(clearance) = decide(&facts) else { panic!("the level was met") };
    clearance
}

#[tokio::test]
async fn a_clearance_opens_for_its_connection_and_no_other() {
    let house = house();
    let content = mail(600_000);
    let row = house.accept(seal(&house.vault, &content, 5000).await).await;
    let read = all(house.vault.open_cleared(&row, &[], &clearance(7), 7).await.unwrap()).await;
    assert!(read.unwrap() == content);
    for connection in [0, 6, 8] {
        let refused = house.vault.open_cleared(&row, &[], &clearance(7), connection).await;
        assert!(matches!(refused, Err(VaultError::Refused(_))), "{connection}: {refused:?}");
    }
    let destroyed = MessageRow { body: Locator::Gone, ..row };
    let gone = house.vault.open_cleared(&destroyed, &[], &clearance(7), 7).await;
    assert!(matches!(gone, Err(VaultError::Gone)), "{gone:?}");
}

/// A body store whose readers end early: a file cut by a failing disk or by a hand.
#[derive(Debug)]
struct Cut(MemoryStore, usize);

struct CutReader(Box<dyn BodyReader>, usize);

#[async_trait]
impl BodyStore for Cut {
    async fn create(&self, id: QueueId) -> Result<Box<dyn BodyWriter>, StoreError> {
        self.0.create(id).await
    }
    async fn open(
        &self,
        id: QueueId,
        at: &Locator,
        range: std::ops::Range<u64>,
    ) -> Result<Box<dyn BodyReader>, StoreError> {
        let left = self.1.saturating_sub(range.start as usize);
        Ok(Box::new(CutReader(self.0.open(id, at, range).await?, left)))
    }
    async fn aside(&self, id: QueueId) -> Result<Box<dyn Aside>, StoreError> {
        self.0.aside(id).await
    }
    async fn rewrap(
        &self,
        id: QueueId,
        at: &Locator,
        slot: usize,
        key: &WrappedKey,
    ) -> Result<bool, StoreError> {
        self.0.rewrap(id, at, slot, key).await
    }
    async fn delete(&self, id: QueueId, at: &Locator) -> Result<(), StoreError> {
        self.0.delete(id, at).await
    }
}

#[async_trait]
impl BodyReader for CutReader {
    async fn next(&mut self) -> Result<Bytes, StoreError> {
        let mut piece = self.0.next().await?;
        piece.truncate(self.1);
        self.1 -= piece.len();
        Ok(piece)
    }
}

#[tokio::test]
async fn a_body_cut_short_is_an_error_at_every_door() {
    let house = house();
    let content = mail(2 * CHUNK);
    let (row, grant, _) = house.granted(&content).await;
    let whole = house.store.sealed_bytes(row.facts.id).unwrap().len();
    let access = house.access(&grant).await;
    let size = row.size;
    // Without its last byte, without the index, in the content, with nothing at all.
    for length in [whole - 1, whole - 400, CHUNK + 5000, 0] {
        let bodies = Arc::new(Cut(house.store.clone(), length));
        let vault = Vault { bodies, ..house.vault.clone() };
        let wire = match vault.open_cleared(&row, &[], &clearance(7), 7).await {
            Ok(content) => all(content).await,
            Err(error) => Err(error),
        };
        assert!(matches!(wire, Err(VaultError::Seal(_))), "{length}: to the wire");
        let read = match vault.read(&access, 0..size).await {
            Ok(content) => all(content).await,
            Err(error) => Err(error),
        };
        assert!(matches!(read, Err(VaultError::Seal(_))), "{length}: to the reader");
        let index = vault.index(&access).await;
        assert!(matches!(index, Err(VaultError::Seal(_))), "{length}: the index");
    }
}

#[tokio::test]
async fn the_notice_carries_the_link_of_its_grant() {
    let house = house();
    let (row, grant, notice) = house.granted(&mail(100)).await;
    let mut content = house.vault.open_notice(&notice, &[]).await.unwrap();
    let mut text = Vec::new();
    while let Some(piece) = Source::next(&mut content).await.unwrap() {
        text.extend_from_slice(&piece);
    }
    let text = String::from_utf8(text).unwrap().replace("=\r\n", "");
    assert!(!text.contains("MARKER"), "{text}");
    let (_, rest) = text.split_once("https://portal.example.org/m/").expect("a link");
    let token = LinkToken::parse(rest.get(..43).unwrap()).expect("a token");
    assert!(token.hash().same(&grant.token));
    assert_eq!(grant.message, row.facts.id);
    assert_eq!(grant.recipient, address("ann@stranger.example"));
    assert_eq!(grant.expires, grant.sealed + DAY * 30);
    assert!(grant.opened.is_none() && grant.state == GrantState::Live);
    assert_eq!(notice.facts.class, Class::Notice);
    assert_eq!(notice.facts.sender, None, "the null reverse-path");
    for said in ["doctor@example.org", "Dr. Who"] {
        assert!(text.contains(said), "{said}");
    }
    let (_, found) = house.store.message(notice.facts.id).await.unwrap().unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].address, grant.recipient);
    assert_eq!(found[0].state, RecipientState::Waiting { next: grant.sealed }, "due now");
}

#[tokio::test]
async fn a_message_without_a_sender_is_announced_by_the_house() {
    let house = house();
    let message = facts(&house.vault, Class::Protected, None);
    let to = vec![address("ann@stranger.example")];
    let new = house.vault.seal_own(message, to.clone(), &MailData::repaired(b"report")).unwrap();
    let row = house.accept(new).await;
    let (_, mut notice) =
        house.vault.grant(&row, &to[0], &why(), Channel::default()).await.unwrap();
    let notice = house.accept(notice.remove(0)).await;
    let text = all(house.vault.open_notice(&notice, &[]).await.unwrap()).await.unwrap();
    assert!(String::from_utf8(text).unwrap().contains("secure@example.org"));
}

#[tokio::test]
async fn a_notice_is_in_the_language_of_the_account_if_there_is_one() {
    let house = house();
    let row = house.accept(seal(&house.vault, &mail(10), 10).await).await;
    for (name, language, lang) in
        [("nobody", None, "en"), ("ann", Some("de"), "de"), ("bob", Some("xx"), "en")]
    {
        let to = address(&format!("{name}@stranger.example"));
        if let Some(language) = language {
            let account =
                Account { language: Some(language.to_owned()), ..account(&to.to_string()) };
            assert!(house.store.change_account(AccountChange::new(None, account)).await.unwrap());
        }
        let (_, mut notice) =
            house.vault.grant(&row, &to, &why(), Channel::default()).await.unwrap();
        let notice = house.accept(notice.remove(0)).await;
        let text = all(house.vault.open_notice(&notice, &[]).await.unwrap()).await.unwrap();
        let text = String::from_utf8(text).unwrap().replace("=3D", "=");
        assert!(text.contains(&format!("<html lang=\"{lang}\">")), "{name}: {text}");
    }
}

#[tokio::test]
async fn a_notice_holds_the_words_of_the_one_field_that_is_named() {
    let content = [
        &b"From: Who <doctor@example.org>\r\nX-Secure-Note: Your results are in.\r\n"[..],
        b"X-Other-Note: OTHER-MARKER\r\n",
        &mail(3 * CHUNK),
    ];
    for (field, shown) in [(Some("x-secure-note"), true), (Some("X-Missing"), false), (None, false)]
    {
        let house = noting(field);
        let row = house.accept(seal(&house.vault, &content.concat(), CHUNK).await).await;
        let to = address("ann@stranger.example");
        let (_, mut notice) =
            house.vault.grant(&row, &to, &why(), Channel::default()).await.unwrap();
        let kept = serde_json::to_string(&row.facts).unwrap()
            + &serde_json::to_string(&notice[0].facts).unwrap();
        assert!(!kept.contains("results"), "{kept}");
        let notice = house.accept(notice.remove(0)).await;
        let text = all(house.vault.open_notice(&notice, &[]).await.unwrap()).await.unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.contains("Dr. Who writes: Your results are in."), shown, "{text}");
        assert!(!text.contains("MARKER"), "{text}");
    }
}

#[tokio::test]
async fn two_grants_of_a_message_share_nothing() {
    let house = house();
    let row = house.accept(seal(&house.vault, &mail(10), 10).await).await;
    let to = address("ann@stranger.example");
    let (one, first) = house.vault.grant(&row, &to, &why(), Channel::default()).await.unwrap();
    let (two, second) = house.vault.grant(&row, &to, &why(), Channel::default()).await.unwrap();
    assert!(one.id != two.id && !one.token.same(&two.token));
    assert!(first[0].facts.id != second[0].facts.id);
}

#[tokio::test]
async fn access_is_for_the_recipient_while_the_grant_lives() {
    let house = house();
    let (_, grant, _) = house.granted(&mail(100)).await;
    let ann = account("ann@stranger.example");
    let ask = async |id, account: &Account| match house
        .vault
        .access(id, account, &SessionFacts::default())
        .await
        .unwrap()
    {
        AccessAnswer::Granted(access) => {
            assert_eq!(access.grant().id, id);
            "granted"
        }
        AccessAnswer::Unproved(_) => "unproved",
        AccessAnswer::Over => "over",
        AccessAnswer::NotYours => "not yours",
    };
    assert_eq!(ask(grant.id, &ann).await, "granted");
    assert_eq!(ask(GrantId::from_bytes([9; 16]), &ann).await, "not yours", "no such grant");
    let bob = account("bob@stranger.example");
    assert_eq!(ask(grant.id, &bob).await, "not yours", "another's");
    let locked = Account { locked: true, ..ann.clone() };
    assert_eq!(ask(grant.id, &locked).await, "not yours", "locked");

    house.clock.forward(DAY * 30 - SignedDuration::from_nanos(1));
    assert_eq!(ask(grant.id, &ann).await, "granted", "to the last moment");
    house.clock.forward(SignedDuration::from_nanos(1));
    assert_eq!(ask(grant.id, &ann).await, "over", "expired, though not swept");
    assert_eq!(ask(grant.id, &bob).await, "not yours", "whatever its state");
}

#[tokio::test]
async fn a_recalled_grant_is_over_and_stays_so() {
    let house = house();
    let (_, grant, _) = house.granted(&mail(100)).await;
    let access = house.access(&grant).await;
    let unknown = GrantId::from_bytes([9; 16]);
    assert_eq!(house.vault.recall(&[grant.id, unknown]).await.unwrap(), 1);
    assert_eq!(house.vault.recall(&[grant.id]).await.unwrap(), 0, "once");
    house.vault.opened(&access).await.unwrap();
    let now = house.store.grant(grant.id).await.unwrap().unwrap();
    assert_eq!((now.state, now.opened), (GrantState::Recalled, None));
    let ann = account("ann@stranger.example");
    let answer = house.vault.access(grant.id, &ann, &SessionFacts::default()).await.unwrap();
    assert!(matches!(answer, AccessAnswer::Over));
    assert_eq!(house.vault.sweep().await.unwrap(), 1);
    let index = house.vault.index(&access).await;
    assert!(matches!(index, Err(VaultError::Gone)), "access from before is of no use");
}

#[tokio::test]
async fn the_first_opening_is_kept() {
    let house = house();
    let (_, grant, _) = house.granted(&mail(100)).await;
    let access = house.access(&grant).await;
    house.clock.forward(DAY);
    let first = house.vault.clock.now();
    house.vault.opened(&access).await.unwrap();
    house.clock.forward(DAY);
    house.vault.opened(&access).await.unwrap();
    assert_eq!(house.store.grant(grant.id).await.unwrap().unwrap().opened, Some(first));
}

#[tokio::test]
async fn after_its_time_key_and_body_are_gone_and_later_the_record() {
    let house = house();
    let (row, grant, _) = house.granted(&mail(500_000)).await;
    let access = house.access(&grant).await;
    assert_eq!(house.vault.sweep().await.unwrap(), 0, "nothing is over yet");

    house.clock.forward(DAY * 30);
    assert_eq!(house.vault.sweep().await.unwrap(), 1);
    assert_eq!(house.vault.sweep().await.unwrap(), 0, "once");
    assert!(house.store.sealed_bytes(row.facts.id).is_none());
    let (now, _) = house.store.message(row.facts.id).await.unwrap().unwrap();
    assert_eq!(now.body, Locator::Gone, "the record remains");
    let range = 0..10;
    for (door, answer) in [
        ("index", house.vault.index(&access).await.map(|_| ())),
        ("read", house.vault.read(&access, range).await.map(|_| ())),
        (
            "grant",
            house.vault.grant(&now, &grant.recipient, &why(), Channel::default()).await.map(|_| ()),
        ),
    ] {
        assert!(matches!(answer, Err(VaultError::Gone)), "{door}: {answer:?}");
    }

    house.clock.forward(DAY * 30);
    house.vault.sweep().await.unwrap();
    house.clock.forward(DAY);
    house.vault.sweep().await.unwrap();
    assert!(house.store.message(row.facts.id).await.unwrap().is_none());
    let index = house.vault.index(&access).await;
    assert!(matches!(index, Err(VaultError::Gone)), "{index:?}");
}

#[tokio::test]
async fn a_body_that_cannot_be_freed_is_tried_again() {
    let house = house();
    let (row, grant, _) = house.granted(&mail(500_000)).await;
    house.vault.recall(&[grant.id]).await.unwrap();
    let broken = Vault { bodies: Arc::new(Counting::default()), ..house.vault.clone() };
    let answer = broken.sweep().await;
    assert!(matches!(answer, Err(VaultError::Store(StoreError::Busy))), "{answer:?}");
    let (now, _) = house.store.message(row.facts.id).await.unwrap().unwrap();
    assert!(now.body != Locator::Gone);
    assert_eq!(house.vault.sweep().await.unwrap(), 1, "the next round frees it");
}

#[tokio::test]
async fn rows_are_not_believed_about_who_may_read() {
    let house = house();
    let content = mail(3 * CHUNK);
    let (row, grant, _) = house.granted(&content).await;
    let at = Timestamp::UNIX_EPOCH;
    let to = |who: &str| [RecipientRow::new(0, address(who), at)];
    for (who, goes) in [("ann@stranger.example", true), ("eve@evil.example", false)] {
        let opened = house.vault.open_cleared(&row, &to(who), &clearance(7), 7).await.unwrap();
        let wire = all(opened).await;
        assert_eq!(wire.is_ok(), goes, "to the wire: {who}");
        assert!(goes || matches!(wire, Err(VaultError::Refused(_))), "{wire:?}");
    }
    let access = house.access(&grant).await;
    assert!(all(house.vault.read(&access, 0..10).await.unwrap()).await.is_ok());
    // A store that is not ours points the reader's grant to a message of others.
    let other = house.accept(seal_for(&house.vault, &content, "bob@stranger.example").await).await;
    for kind in [GrantKind::Received, GrantKind::Sent] {
        let forged = Grant { message: other.facts.id, kind, ..grant.clone() };
        house.store.put_grant(forged.clone());
        let access = house.access(&forged).await;
        let read = house.vault.read(&access, 0..10).await.map(|_| ());
        assert!(matches!(read, Err(VaultError::Refused(_))), "{kind:?}: {read:?}");
        let index = house.vault.index(&access).await.map(|_| ());
        assert!(matches!(index, Err(VaultError::Refused(_))), "{kind:?}: {index:?}");
    }
}

#[tokio::test]
async fn both_suites_seal_and_what_one_sealed_opens_under_the_other() {
    for (one, other) in
        [(Suite::ChaCha20Poly1305, Suite::Aes256Gcm), (Suite::Aes256Gcm, Suite::ChaCha20Poly1305)]
    {
        let house = house();
        let content = mail(200_000);
        let before = house.vault.clone().sealing(one);
        let row = house.accept(seal(&before, &content, 5000).await).await;
        let after = before.sealing(other);
        let read = all(after.open_cleared(&row, &[], &clearance(7), 7).await.unwrap()).await;
        assert!(read.unwrap() == content, "{one:?}");
    }
}

#[tokio::test]
async fn a_row_that_lies_about_the_body_is_found_out() {
    let house = house();
    let content = mail(3 * CHUNK);
    let row = house.accept(notice_of(&house.vault, &content, 9999).await).await;
    assert!(all(house.vault.open_notice(&row, &[]).await.unwrap()).await.is_ok());
    let (size, id) = (row.size, house.vault.new_id());
    for (forged, why) in [
        (MessageRow { size: size - 1, ..row.clone() }, "shorter"),
        (MessageRow { size: size + 1, ..row.clone() }, "longer"),
        (MessageRow { size: CHUNK as u64, ..row.clone() }, "shorter by whole frames"),
        (MessageRow { facts: MessageFacts { id, ..row.facts.clone() }, ..row.clone() }, "id"),
    ] {
        match house.vault.open_notice(&forged, &[]).await {
            Ok(content) => assert!(all(content).await.is_err(), "{why}"),
            Err(error) => assert!(!matches!(error, VaultError::Gone), "{why}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn an_envelope_or_own_message_beyond_bounds_is_refused() {
    let House { vault, .. } = house();
    let huge = Some("x".repeat(HEADER_MAX));
    let message = MessageFacts { envelope_id: huge, ..facts(&vault, Class::Report, None) };
    let refused = vault.deposit(message, vec![]);
    assert!(matches!(refused, Err(VaultError::Refused(_))), "{refused:?}");
    let message = facts(&vault, Class::Report, None);
    let refused = vault.seal_own(message, vec![], &MailData::repaired(&mail(SMALL)));
    assert!(matches!(refused, Err(VaultError::Refused(_))), "{refused:?}");
}

#[tokio::test]
async fn debug_prints_no_content() {
    let House { vault, .. } = house();
    let facts = facts(&vault, Class::Protected, None);
    let mut deposit = vault.deposit(facts, vec![]).unwrap();
    deposit.write(b"PLAINTEXT-MARKER").await.unwrap();
    let seen = format!("{deposit:?} {vault:?}");
    assert!(seen.contains("size: 16") && seen.contains("KeyRing(..)"), "{seen}");
    assert!(!seen.contains("MARKER") && !seen.contains("80, 76"), "{seen}");
}

/// What is staged comes back byte for byte, and nothing of it stays.
#[tokio::test]
async fn a_staged_file_is_read_whole_as_often_as_it_is_held() {
    let house = house();
    for length in [0, 1, CHUNK, CHUNK + 1, 12 * CHUNK + 5] {
        let content: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        let mut staging = house.vault.stage().await.unwrap();
        for piece in content.chunks(100_000) {
            staging.write(piece).await.unwrap();
            staging.rest().await.unwrap();
        }
        assert_eq!(staging.size(), length as u64);
        let staged = staging.end().await.unwrap();
        for _ in 0..2 {
            let mut all = Vec::new();
            let mut read = house.vault.read_staged(&staged).unwrap();
            while let Some(piece) = read.next().await.unwrap() {
                all.extend_from_slice(&piece);
            }
            assert!(all == content, "{length}");
        }
    }
}
