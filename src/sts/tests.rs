//! With a scripted DNS, web and clock.

use super::*;
use crate::{
    dns::Addresses,
    policy::{Dane, MxFacts, StsFault, StsFaultKind, StsMode, StsPolicy},
    store::{NoteKind, StoreError, memory::MemoryStore},
    wire::{Page, WebError, WebPlace},
};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use std::sync::atomic::Ordering;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The world around: what DNS and the web say now, and how often the web was asked.
#[derive(Debug)]
struct World {
    texts: Mutex<Texts>,
    page: Mutex<Result<Page, WebError>>,
    fetches: AtomicUsize,
    /// Fetches wait here, if set.
    gate: Mutex<Option<Arc<Notify>>>,
    now: Mutex<Timestamp>,
}
#[derive(Debug, Clone)]
struct Port(Arc<World>);

#[async_trait]
impl Resolver for Port {
    async fn mx(&self, _: &Domain) -> MxFacts {
        MxFacts::NoDomain
    }
    async fn addresses(&self, _: &str) -> Addresses {
        Addresses::None
    }
    async fn tlsa(&self, _: &str, _: u16) -> Dane {
        Dane::NotAsked
    }
    async fn texts(&self, name: &str) -> Texts {
        assert_eq!(name, "_mta-sts.a.test");
        locked(&self.0.texts).clone()
    }
}
#[async_trait]
impl Web for Port {
    async fn get(&self, host: &str, path: &str) -> Result<Page, WebError> {
        assert_eq!((host, path), ("mta-sts.a.test", "/.well-known/mta-sts.txt"));
        self.0.fetches.fetch_add(1, Ordering::Relaxed);
        let gate = locked(&self.0.gate).clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        locked(&self.0.page).clone()
    }
    async fn post(&self, _: &WebPlace, _: &str, _: Bytes) -> Result<u16, WebError> {
        Err(WebError::Status(404))
    }
}
impl Clock for Port {
    fn now(&self) -> Timestamp {
        *locked(&self.0.now)
    }
}

const DAY: i64 = 86_400;

struct Scene {
    world: Arc<World>,
    notes: MemoryStore,
    sts: Arc<Sts>,
}
impl Scene {
    /// A domain that announces `id` 1 and serves an enforced policy for ten days.
    fn new() -> Self {
        let world = Arc::new(World {
            texts: Mutex::new(Texts::None),
            page: Mutex::new(Err(WebError::Status(404))),
            fetches: AtomicUsize::new(0),
            gate: Mutex::new(None),
            now: Mutex::new("2026-11-22T12:00:00Z".parse().unwrap()),
        });
        let notes = MemoryStore::new();
        let scene = Self { sts: service(&world, &notes), world, notes };
        scene.announces("1");
        scene.serves("enforce", 10 * DAY);
        scene
    }
    fn restart(&mut self) {
        self.sts = service(&self.world, &self.notes);
    }
    fn announces(&self, id: &str) {
        self.dns(Texts::Found(vec![format!("v=STSv1; id={id};")]));
    }
    fn dns(&self, says: Texts) {
        *locked(&self.world.texts) = says;
    }
    fn serves(&self, mode: &str, max_age: i64) {
        let text = format!("version: STSv1\nmode: {mode}\nmx: mx.a.test\nmax_age: {max_age}\n");
        self.web(Ok(page("text/plain", &text)));
    }
    fn web(&self, says: Result<Page, WebError>) {
        *locked(&self.world.page) = says;
    }
    fn fails(&self) {
        self.web(Err(WebError::Unreachable("connection refused".to_owned())));
    }
    fn pass(&self, seconds: i64) {
        let mut now = locked(&self.world.now);
        *now = now.saturating_add(SignedDuration::from_secs(seconds)).unwrap();
    }
    async fn ask(&self) -> StsFacts {
        self.sts.policy(&"a.test".parse().unwrap()).await
    }
    /// The id of the policy in force.
    async fn id(&self) -> String {
        let facts = self.ask().await;
        let StsFacts::Policy(policy) = &facts else { panic!("{facts}") };
        policy.id.clone()
    }
    fn fetches(&self) -> usize {
        self.world.fetches.load(Ordering::Relaxed)
    }
    async fn kept(&self) -> bool {
        self.notes.note(NoteKind::Sts, "a.test").await.unwrap().is_some()
    }
}
fn service(world: &Arc<World>, notes: &MemoryStore) -> Arc<Sts> {
    waiting(world, notes, Waits::PATIENT)
}
fn waiting(world: &Arc<World>, notes: &MemoryStore, waits: Waits) -> Arc<Sts> {
    let port = Arc::new(Port(Arc::clone(world)));
    let ports = StsPorts {
        resolver: port.clone(),
        web: port.clone(),
        notes: Arc::new(notes.clone()),
        clock: port,
    };
    Arc::new(Sts::waiting(ports, waits))
}
fn page(media_type: &str, text: &str) -> Page {
    Page { media_type: media_type.to_owned(), body: Bytes::from(text.to_owned()) }
}
fn servfail() -> Texts {
    Texts::Trouble("SERVFAIL".to_owned())
}

#[tokio::test]
async fn a_policy_is_fetched_once_and_kept_over_a_restart() {
    let mut scene = Scene::new();
    let policy = StsPolicy {
        id: "1".to_owned(),
        mode: StsMode::Enforce,
        mx: vec!["mx.a.test".to_owned()],
        max_age: 864_000,
    };
    assert_eq!(scene.ask().await, StsFacts::Policy(policy.clone()));
    scene.fails();
    for _ in 0..2 {
        assert_eq!(scene.ask().await, StsFacts::Policy(policy.clone()));
        scene.restart();
    }
    assert_eq!(scene.fetches(), 1);
}

#[tokio::test]
async fn nothing_in_the_way_takes_a_kept_policy_before_it_expires() {
    let two = vec!["v=STSv1; id=1".to_owned(), "v=STSv1; id=2".to_owned()];
    let rows: [(&str, Texts, StsFacts); 5] = [
        ("the record is gone", Texts::None, StsFacts::Nothing),
        ("other records stand there", Texts::Found(vec!["x".to_owned()]), StsFacts::Nothing),
        ("two records", Texts::Found(two), StsFacts::Nothing),
        ("SERVFAIL", servfail(), StsFacts::Doubt("SERVFAIL".to_owned())),
        (
            "a changed id, and nothing to fetch",
            Texts::Found(vec!["v=STSv1; id=2".to_owned()]),
            StsFacts::Unfetched(StsFault {
                kind: StsFaultKind::Fetch,
                text: "https://mta-sts.a.test/.well-known/mta-sts.txt: connection refused"
                    .to_owned(),
            }),
        ),
    ];
    for (reason, says, without) in rows {
        let mut scene = Scene::new();
        assert_eq!(scene.id().await, "1", "{reason}");
        scene.dns(says);
        scene.fails();
        assert_eq!(scene.id().await, "1", "{reason}");
        scene.pass(10 * DAY - 1);
        scene.restart();
        assert_eq!(scene.id().await, "1", "{reason}: in its last second");
        scene.pass(1);
        scene.restart();
        assert_eq!(scene.ask().await, without, "{reason}: expired");
    }
}

#[tokio::test]
async fn a_changed_id_brings_the_new_policy() {
    let scene = Scene::new();
    assert_eq!(scene.id().await, "1");
    scene.announces("2");
    scene.serves("testing", DAY);
    let StsFacts::Policy(policy) = scene.ask().await else { panic!("no policy") };
    assert_eq!((policy.id.as_str(), policy.mode), ("2", StsMode::Testing));
    // A bad policy under a third id changes nothing.
    scene.announces("3");
    scene.web(Ok(page("text/plain", "version: STSv1\nmode: none\n")));
    assert_eq!(scene.id().await, "2");
}

#[tokio::test]
async fn a_fetched_none_takes_the_place_of_what_was_enforced() {
    let mut scene = Scene::new();
    assert_eq!(scene.id().await, "1");
    scene.announces("2");
    scene.web(Ok(page("text/plain", "version: STSv1\nmode: none\nmax_age: 86400\n")));
    for says in [Texts::Found(vec!["v=STSv1; id=2".to_owned()]), Texts::None, servfail()] {
        scene.dns(says);
        let StsFacts::Policy(policy) = scene.ask().await else { panic!("no policy") };
        assert_eq!(policy.mode, StsMode::None);
        scene.restart();
    }
    scene.pass(DAY);
    scene.dns(Texts::None);
    assert_eq!(scene.ask().await, StsFacts::Nothing);
}

#[tokio::test]
async fn pages_that_are_no_policy_count_as_not_fetched() {
    let good = "version: STSv1\nmode: enforce\nmx: mx.a.test\nmax_age: 1\n";
    use StsFaultKind::{Fetch, Invalid, Webpki};
    let expired = Err(WebError::Tls("expired".to_owned()));
    let rows: [(&str, Result<Page, WebError>, _, &str); 6] = [
        ("not there", Err(WebError::Status(404)), Fetch, "status 404"),
        ("a certificate that proves nothing", expired, Webpki, "expired"),
        ("HTML", Ok(page("text/html", good)), Invalid, "not text/plain"),
        ("no type", Ok(page("", good)), Invalid, "not text/plain"),
        ("another version", Ok(page("text/plain", "version: STSv2\n")), Invalid, "version"),
        ("nothing", Ok(page("text/plain", "")), Invalid, "no version"),
    ];
    for (reason, says, kind, words) in rows {
        let scene = Scene::new();
        scene.web(says);
        let StsFacts::Unfetched(why) = scene.ask().await else { panic!("{reason}") };
        assert!(why.kind == kind && why.text.contains(words), "{reason}: {why:?}");
        assert!(!scene.kept().await, "{reason}");
    }
}

#[tokio::test]
async fn a_failed_fetch_is_left_alone_for_five_minutes() {
    let scene = Scene::new();
    scene.fails();
    for _ in 0..3 {
        assert!(matches!(scene.ask().await, StsFacts::Unfetched(_)));
    }
    assert_eq!(scene.fetches(), 1);
    scene.pass(299);
    let StsFacts::Unfetched(why) = scene.ask().await else { panic!("no reason") };
    assert!(why.text.contains("refused; the next try comes after 2026-11-22T12:05:00Z"), "{why}");
    assert_eq!(scene.fetches(), 1);
    scene.announces("2");
    scene.ask().await;
    assert_eq!(scene.fetches(), 2, "another id is another policy");
    scene.pass(300);
    scene.serves("enforce", DAY);
    assert_eq!(scene.id().await, "2");
    assert_eq!(scene.fetches(), 3);
}

#[tokio::test]
async fn who_asks_while_it_is_fetched_waits_for_the_same_answer() {
    let scene = Scene::new();
    let gate = Arc::new(Notify::new());
    *locked(&scene.world.gate) = Some(Arc::clone(&gate));
    let ask = || {
        let sts = Arc::clone(&scene.sts);
        tokio::spawn(async move { sts.policy(&"a.test".parse().unwrap()).await })
    };
    let first = ask();
    let rest: Vec<_> = (0..19).map(|_| ask()).collect();
    while scene.fetches() == 0 {
        tokio::task::yield_now().await;
    }
    // Who asked first goes away: the fetch goes on for the others.
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    gate.notify_one();
    for task in rest {
        assert!(matches!(task.await.unwrap(), StsFacts::Policy(policy) if policy.id == "1"));
    }
    assert_eq!(scene.fetches(), 1);
    assert!(locked(&scene.sts.inner.flights).is_empty(), "nothing is left behind");
}

#[tokio::test]
async fn other_domains_do_not_wait() {
    let scene = Scene::new();
    *locked(&scene.world.gate) = Some(Arc::new(Notify::new()));
    let sts = Arc::clone(&scene.sts);
    let stuck = tokio::spawn(async move { sts.policy(&"a.test".parse().unwrap()).await });
    while scene.fetches() == 0 {
        tokio::task::yield_now().await;
    }
    let literal: Domain = "[192.0.2.1]".parse().unwrap();
    assert_eq!(scene.sts.policy(&literal).await, StsFacts::Nothing);
    stuck.abort();
    assert!(stuck.await.unwrap_err().is_cancelled());
    let inner = Arc::clone(&scene.sts.inner);
    assert_eq!(locked(&inner.flights).len(), 1, "it goes on");
    drop(scene);
    landed(&inner).await;
}

/// Waits until no question is out.
async fn landed(inner: &Inner) {
    while !locked(&inner.flights).is_empty() {
        tokio::task::yield_now().await;
    }
}

impl Scene {
    /// Who asks does not wait at all, and every fetch waits for the gate.
    fn hurried(&mut self) -> Arc<Notify> {
        let waits = Waits { answer: Duration::ZERO, ..Waits::PATIENT };
        self.sts = waiting(&self.world, &self.notes, waits);
        let gate = Arc::new(Notify::new());
        *locked(&self.world.gate) = Some(Arc::clone(&gate));
        gate
    }
    /// Lets the fetch that is running come to its end.
    async fn let_through(&self, gate: &Notify) {
        gate.notify_one();
        landed(&self.sts.inner).await;
    }
}

#[tokio::test]
async fn a_slow_fetch_puts_mail_off_and_serves_the_next_attempt() {
    let mut scene = Scene::new();
    let gate = scene.hurried();
    for _ in 0..3 {
        let StsFacts::Doubt(why) = scene.ask().await else { panic!("an answer") };
        assert_eq!(why, "the MTA-STS policy of a.test is being fetched");
        while scene.fetches() == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(scene.fetches(), 1, "one fetch for all who ask");
    scene.let_through(&gate).await;
    assert!(scene.kept().await);
    scene.sts = service(&scene.world, &scene.notes);
    assert_eq!((scene.id().await.as_str(), scene.fetches()), ("1", 1));
}

#[tokio::test]
async fn a_kept_policy_stays_in_force_while_the_changed_one_is_fetched() {
    let mut scene = Scene::new();
    assert_eq!(scene.id().await, "1");
    scene.announces("2");
    scene.serves("testing", DAY);
    let gate = scene.hurried();
    assert_eq!(scene.id().await, "1");
    while scene.fetches() == 1 {
        tokio::task::yield_now().await;
    }
    scene.let_through(&gate).await;
    scene.sts = service(&scene.world, &scene.notes);
    assert_eq!(scene.id().await, "2");
}

#[tokio::test]
async fn a_host_that_is_always_slow_and_never_serves_is_no_doubt_for_ever() {
    let mut scene = Scene::new();
    scene.fails();
    let gate = scene.hurried();
    let ask = async |scene: &Scene, fetches: usize| {
        scene.ask().await;
        while scene.fetches() < fetches {
            tokio::task::yield_now().await;
        }
        scene.ask().await
    };
    assert!(matches!(ask(&scene, 1).await, StsFacts::Doubt(_)), "nothing is known of it");
    scene.let_through(&gate).await;
    scene.pass(301);
    let StsFacts::Unfetched(why) = ask(&scene, 2).await else { panic!("a doubt") };
    assert!(why.text.contains("connection refused"), "{why}");
    scene.let_through(&gate).await;
    scene.announces("2");
    assert!(matches!(ask(&scene, 3).await, StsFacts::Doubt(_)), "another id is another policy");
    // DNS that does not answer says nothing of the host.
    scene.let_through(&gate).await;
    scene.dns(servfail());
    assert!(matches!(scene.ask().await, StsFacts::Doubt(_)));
}

#[tokio::test]
async fn dns_trouble_about_the_policy_host_is_a_doubt_and_no_missing_policy() {
    let mut scene = Scene::new();
    let trouble = || Err(WebError::Doubt("mta-sts.a.test: SERVFAIL".to_owned()));
    scene.web(trouble());
    for fetches in 1..=2 {
        let StsFacts::Doubt(why) = scene.ask().await else { panic!("an answer") };
        assert!(why.ends_with("mta-sts.a.test: SERVFAIL"), "{why}");
        assert_eq!(scene.fetches(), fetches, "no failure of the host, so nothing rests");
    }
    scene.web(Err(WebError::Dns("mta-sts.a.test has no address".to_owned())));
    assert!(matches!(scene.ask().await, StsFacts::Unfetched(_)), "that is an answer");
    scene.restart();
    scene.serves("enforce", DAY);
    assert_eq!(scene.id().await, "1");
    scene.announces("2");
    scene.web(trouble());
    assert_eq!(scene.id().await, "1", "what is kept holds");
}

#[tokio::test]
async fn who_finds_no_room_to_fetch_does_not_wait_for_long() {
    let mut scene = Scene::new();
    let waits = Waits { turn: Duration::ZERO, ..Waits::PATIENT };
    scene.sts = waiting(&scene.world, &scene.notes, waits);
    let sts = Arc::clone(&scene.sts);
    let all = sts.inner.fetches.acquire_many(u32::try_from(FETCHES).unwrap()).await.unwrap();
    let StsFacts::Doubt(why) = scene.ask().await else { panic!("an answer") };
    assert_eq!(why, "64 other MTA-STS policies are being fetched");
    assert_eq!(scene.fetches(), 0);
    drop(all);
    assert_eq!(scene.id().await, "1");
}

#[tokio::test]
async fn kept_policies_are_refreshed_once_a_day_and_outlive_their_max_age() {
    let scene = Scene::new();
    assert_eq!(scene.id().await, "1");
    scene.sts.inner.round().await.unwrap();
    assert_eq!(scene.fetches(), 1, "not before its time");
    // The record is hidden all the while: the host's own word counts.
    scene.dns(servfail());
    for day in 1..=15 {
        scene.pass(DAY);
        scene.sts.inner.round().await.unwrap();
        assert_eq!(scene.fetches(), 1 + day, "once a day");
        assert_eq!(scene.id().await, "1");
    }
    scene.announces("7");
    scene.serves("testing", 10 * DAY);
    scene.pass(DAY);
    scene.sts.inner.round().await.unwrap();
    let fetches = scene.fetches();
    assert_eq!((scene.id().await.as_str(), scene.fetches()), ("7", fetches), "with the new id");
}

#[tokio::test]
async fn a_refresh_that_fails_is_tried_again_and_the_policy_ends_in_its_time() {
    let scene = Scene::new();
    assert_eq!(scene.id().await, "1");
    scene.fails();
    scene.pass(DAY);
    for _ in 0..3 {
        scene.sts.inner.round().await.unwrap();
    }
    assert_eq!(scene.fetches(), 2, "not at once again");
    assert_eq!(scene.id().await, "1");
    scene.pass(3 * 3600);
    scene.sts.inner.round().await.unwrap();
    assert_eq!(scene.fetches(), 3);
    scene.pass(9 * DAY);
    scene.sts.inner.round().await.unwrap();
    assert_eq!(scene.fetches(), 3, "what has ended is not refreshed");
    assert!(!scene.kept().await, "and forgotten");
}

#[tokio::test]
async fn a_policy_of_no_age_serves_the_mail_at_hand() {
    let scene = Scene::new();
    scene.serves("enforce", 0);
    for fetches in 1..=2 {
        assert_eq!((scene.id().await.as_str(), scene.fetches()), ("1", fetches));
    }
}

#[tokio::test]
async fn a_damaged_note_is_fetched_again() {
    let scene = Scene::new();
    for note in [&b""[..], b"{}", b"\xff"] {
        scene.notes.put_note(NoteKind::Sts, "a.test", note.to_vec()).await.unwrap();
        let fetches = scene.fetches();
        assert_eq!((scene.id().await.as_str(), scene.fetches()), ("1", fetches + 1));
        scene.notes.put_note(NoteKind::Sts, "a.test", note.to_vec()).await.unwrap();
        scene.sts.inner.round().await.unwrap();
        assert!(!scene.kept().await);
    }
}

#[tokio::test]
async fn what_is_kept_and_what_is_fetched_at_once_is_bounded() {
    let mut scene = Scene::new();
    scene.sts.inner.count.store(kept::KEPT_MOST, Ordering::Relaxed);
    assert_eq!(scene.id().await, "1");
    assert!(!scene.kept().await, "used, but not kept");
    scene.restart();
    assert_eq!(scene.id().await, "1");
    assert!(scene.kept().await);
    scene.sts.inner.count.store(kept::KEPT_MOST, Ordering::Relaxed);
    scene.announces("2");
    assert_eq!(scene.id().await, "2");
    scene.dns(Texts::None);
    assert_eq!(scene.id().await, "2", "what is kept already may change");

    scene.announces("3");
    let fetches = scene.fetches();
    let all = scene.sts.inner.fetches.acquire_many(u32::try_from(FETCHES).unwrap()).await.unwrap();
    let sts = Arc::clone(&scene.sts);
    let waits = tokio::spawn(async move { sts.policy(&"a.test".parse().unwrap()).await });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.fetches(), fetches);
    drop(all);
    assert!(matches!(waits.await.unwrap(), StsFacts::Policy(policy) if policy.id == "3"));
}

#[tokio::test]
async fn the_refresher_looks_at_once_and_ends_when_told() {
    let scene = Scene::new();
    assert_eq!(scene.id().await, "1");
    scene.pass(DAY);
    let gate = Arc::new(Notify::new());
    *locked(&scene.world.gate) = Some(Arc::clone(&gate));
    let (sts, stop) = (Arc::clone(&scene.sts), CancellationToken::new());
    let told = stop.clone();
    let runs = tokio::spawn(async move { sts.run(told).await });
    while scene.fetches() == 1 {
        tokio::task::yield_now().await;
    }
    // In the midst of a fetch that takes long.
    stop.cancel();
    runs.await.unwrap();
}

/// A store that can't be read.
#[derive(Debug)]
struct Deaf;
#[async_trait]
impl NoteStore for Deaf {
    async fn put_note(&self, _: NoteKind, _: &str, _: Vec<u8>) -> Result<(), StoreError> {
        Err(StoreError::Full)
    }
    async fn note(&self, _: NoteKind, _: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Err(StoreError::Busy)
    }
    async fn notes(
        &self,
        _: NoteKind,
        _: Option<&str>,
        _: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Err(StoreError::Busy)
    }
    async fn remove_note(&self, _: NoteKind, _: &str) -> Result<(), StoreError> {
        Err(StoreError::Busy)
    }
}

#[tokio::test]
async fn a_store_that_fails_is_a_doubt_and_no_answer() {
    let mut scene = Scene::new();
    let ports = StsPorts { notes: Arc::new(Deaf), ..scene.sts.inner.ports.clone() };
    scene.sts = Arc::new(Sts::new(ports));
    let StsFacts::Doubt(why) = scene.ask().await else { panic!("an answer") };
    assert!(why.contains("busy"), "{why}");
    assert!(scene.sts.inner.round().await.is_err());
}
