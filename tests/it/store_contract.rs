//! What every store promises, tried on each of them; and what only the embedded one promises.

mod audit;
mod damage;
mod orders;
mod rewrap;

use audit::{
    audit_records_are_listed_newest_first_and_by_mailbox, audit_records_end_from_the_oldest_on,
    audit_records_from_the_future_go_with_what_follows,
    the_audit_trail_is_one_chain_whoever_appends,
};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use orders::{
    a_grant_is_none_of_the_queues_business, a_removal_with_a_report_is_whole_or_not_at_all,
    a_retry_is_due_at_once_and_wakes_the_worker, an_order_leaves_alone_who_is_being_delivered,
    faults_are_counted_until_a_release, what_is_held_rests_until_it_is_released,
    what_is_removed_ends_there,
};
use restante::{
    clock::{Clock, ClockGuard, TrustedTime},
    mail::{Address, Domain, GrantId, QueueId},
    policy::{
        Dane, DaneVerdict, Dnssec, RuleVerdict, StsFacts, StsMode, StsPolicy, TlsFacts, Tlsa,
        TlsaSet,
    },
    seal::{
        self, Class, DataKey, KeyRing, MessageFacts, SealedHeader, Sealer, Suite, TokenHash,
        WrappedKey, header::Needs,
    },
    store::{
        Account, AccountChange, AccountMove, Ask, Attempt, AuditEvent, AuditKind, AuditStore,
        BodyStore, Claim, Claimed, Code, Device, DnsRecord, Doomed, Filter, Grant, GrantKind,
        GrantState, Health, Locator, Moved, NewBody, NewMessage, NoteKind, NoteStore, Outcome,
        Passkey, PeopleStore, Proof, ProofChange, Purpose, QueueStore, RecipientState, Room,
        SecondFactor, Session, Settle, SignedBy, StoreError,
        memory::MemoryStore,
        notes::{LARGEST_NOTE, LONGEST_KEY},
        queue::{ATTEMPTS_KEPT, SMALL},
        sled::{OpenError, Options, RebuildError, SledStore, rebuild},
    },
};
use rewrap::{
    a_key_is_wrapped_again_in_place_and_nothing_else_changes,
    a_key_never_comes_back_whoever_is_first, what_is_destroyed_gets_no_key_again,
};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use zeroize::Zeroizing;

trait Store: QueueStore + BodyStore + PeopleStore + NoteStore + AuditStore {}
impl<T: QueueStore + BodyStore + PeopleStore + NoteStore + AuditStore> Store for T {}

/// One test a promise, over both backends.
macro_rules! contract {
    ($($promise:ident),+ $(,)?) => {
        mod in_memory { $(
            #[tokio::test]
            async fn $promise() { super::$promise(&super::MemoryStore::new()).await; }
        )+ }
        mod in_sled { $(
            #[tokio::test]
            async fn $promise() {
                let dir = tempfile::tempdir().unwrap();
                super::$promise(&super::open(dir.path())).await;
            }
        )+ }
    };
}
contract! {
    accepting_again_changes_nothing,
    a_claim_is_one_message_and_one_domain_and_only_what_is_due,
    a_lease_keeps_others_off_until_it_ends,
    what_a_fenced_worker_settles_is_refused,
    who_is_late_is_heard_until_somebody_else_has_the_work,
    no_recipient_ends_twice,
    settling_brings_outcomes_grants_and_messages_at_once,
    a_refused_settle_leaves_nothing_behind,
    a_deferred_recipient_comes_up_at_its_time,
    attempts_are_kept_in_order_and_bounded,
    an_attempt_is_written_whatever_it_holds,
    a_message_is_destroyed_only_when_nobody_needs_it,
    a_small_message_is_destroyed_by_what_ends_it_and_a_large_one_after_it,
    a_grant_that_ended_stays_ended,
    an_opening_is_noted_once_and_never_erased,
    records_are_purged_after_their_time,
    listing_goes_page_by_page_and_filters,
    counts_follow_what_happens,
    bodies_come_back_byte_for_byte,
    large_bodies_are_written_in_pieces_or_not_at_all,
    what_lies_aside_is_read_while_it_is_held,
    grants_are_found_by_token_and_by_recipient,
    a_proof_changes_only_from_what_it_was,
    an_authors_copy_comes_with_its_message,
    a_copy_of_what_was_forwarded_ends_with_it,
    accounts_and_sessions_come_and_go,
    a_use_of_a_session_never_brings_it_back,
    a_mailbox_has_one_account_whatever_the_case,
    an_account_is_changed_only_as_it_was_read,
    a_change_of_an_account_brings_all_that_follows_in_one_commit,
    an_account_has_so_many_sessions_and_no_more,
    a_session_is_changed_only_as_it_was_read,
    an_account_is_found_by_its_identity,
    a_mailbox_remembers_that_its_account_was_removed,
    an_account_moves_with_all_that_it_holds_or_not_at_all,
    sessions_of_an_account_are_listed,
    audit_records_from_the_future_go_with_what_follows,
    nothing_expires_without_a_trusted_time,
    notes_come_back_by_kind_and_key,
    notes_are_listed_page_by_page,
    a_note_is_bounded,
    arrivals_wake_a_waiting_worker,
    concurrent_workers_never_share_a_recipient,
    what_is_held_rests_until_it_is_released,
    a_retry_is_due_at_once_and_wakes_the_worker,
    faults_are_counted_until_a_release,
    what_is_removed_ends_there,
    an_order_leaves_alone_who_is_being_delivered,
    a_domain_without_room_is_in_nobodys_way,
    a_grant_announced_in_vain_ends_with_the_settle_unless_it_was_opened,
    a_removal_with_a_report_is_whole_or_not_at_all,
    a_grant_is_none_of_the_queues_business,
    audit_records_are_listed_newest_first_and_by_mailbox,
    audit_records_end_from_the_oldest_on,
    the_audit_trail_is_one_chain_whoever_appends,
    a_key_is_wrapped_again_in_place_and_nothing_else_changes,
    what_is_destroyed_gets_no_key_again,
    a_key_never_comes_back_whoever_is_first,
}

fn options() -> Options {
    Options {
        segment_size: 256 * 1024,
        reserve: 0,
        min_free: 0,
        min_free_percent: 0,
        ..Options::default()
    }
}
fn open(dir: &Path) -> SledStore {
    SledStore::open(dir, options()).unwrap()
}
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}
/// A clock that stands still.
#[derive(Debug)]
struct Still(Timestamp);
impl Clock for Still {
    fn now(&self) -> Timestamp {
        self.0
    }
}
fn trusted(second: i64) -> TrustedTime {
    ClockGuard::new(Arc::new(Still(at(second))), None).check().unwrap()
}
fn passed(second: i64) -> Option<TrustedTime> {
    Some(trusted(second))
}
fn lease() -> SignedDuration {
    SignedDuration::from_secs(60)
}
/// Ids in order of arrival.
fn id(n: u8) -> QueueId {
    QueueId::new(1_800_000_000_000 + u64::from(n), [n; 10])
}
fn address(text: &str) -> Address {
    text.parse().unwrap()
}
fn ring() -> KeyRing {
    KeyRing::generate(Zeroizing::new([7; 32]))
}
fn data_key() -> DataKey {
    DataKey::from_random(Zeroizing::new([5; 32]))
}
fn key(id: QueueId) -> WrappedKey {
    ring().wrap(&data_key(), seal::Purpose::Message, id, [3; 24])
}
fn facts(n: u8) -> MessageFacts {
    MessageFacts {
        id: id(n),
        class: Class::Protected,
        sender: Some(address("sender@example.org")),
        arrived: at(i64::from(n)),
        message_id: Some(format!("<{n}@example.org>")),
        client: None,
        needs: Needs::default(),
        envelope_id: None,
        sender_name: None,
        grant: None,
        rule: RuleVerdict::protected(),
        references: Vec::new(),
        wishes: restante::mail::Wishes::default(),
    }
}
fn message(n: u8, recipients: &[&str]) -> NewMessage {
    NewMessage {
        facts: facts(n),
        recipients: recipients.iter().map(|r| address(r)).collect(),
        body: NewBody::Small(Bytes::from(vec![n; 500])),
        size: 123,
        header_len: 45,
        due: at(0),
        copy: None,
        ring: None,
    }
}
fn outcome(index: u16, state: RecipientState) -> Outcome {
    Outcome {
        index,
        state,
        why: None,
        attempts: Vec::new(),
        first_failed: None,
        warned: false,
        faults: 0,
        grant: None,
    }
}
fn delivered() -> RecipientState {
    RecipientState::Delivered { at: at(10), reply: "250 2.0.0 Ok".to_owned() }
}
fn grant(n: u8, of: u8, recipient: &str) -> Grant {
    Grant {
        id: GrantId::from_bytes([n; 16]),
        message: id(of),
        recipient: address(recipient),
        token: TokenHash::from_bytes([n; 32]),
        sealed: at(i64::from(n)),
        expires: at(1000),
        opened: None,
        state: GrantState::Live,
        kind: GrantKind::Received,
        origin: None,
        moved: None,
        proof: None,
    }
}
fn granted(index: u16, grant: Grant) -> Outcome {
    let state = RecipientState::Granted { at: at(10), grant: grant.id };
    Outcome { grant: Some(grant), ..outcome(index, state) }
}
fn settle(claim: &Claim, outcomes: Vec<Outcome>) -> Settle {
    Settle {
        token: claim.token,
        id: claim.message.facts.id,
        outcomes,
        spawn: Vec::new(),
        recall: None,
    }
}
async fn claim(s: &impl Store, now: i64) -> Vec<Claim> {
    s.claim(ask(now, 100)).await.unwrap().claims
}
fn ask(now: i64, max: usize) -> Ask {
    Ask { now: at(now), max, lease: lease(), room: Room::endless() }
}
/// When there is the next to claim.
async fn next(s: &impl Store) -> Option<Timestamp> {
    s.claim(ask(0, 0)).await.unwrap().next
}
async fn claim_one(s: &impl Store, now: i64) -> Claim {
    let mut claims = claim(s, now).await;
    assert_eq!(claims.len(), 1, "{claims:?}");
    claims.remove(0)
}
/// A message of one recipient that ends as `outcome` says.
async fn finish(s: &impl Store, n: u8, recipient: &str, outcome: Outcome) {
    finish_message(s, message(n, &[recipient]), outcome).await;
}
async fn finish_message(s: &impl Store, message: NewMessage, outcome: Outcome) {
    s.accept(message).await.unwrap();
    let claim = claim_one(s, 1).await;
    s.settle(settle(&claim, vec![outcome])).await.unwrap();
}
async fn state(s: &impl Store, n: u8, index: usize) -> RecipientState {
    s.message(id(n)).await.unwrap().unwrap().1[index].state.clone()
}
async fn body(s: &impl Store, n: u8, from: u64) -> Result<Vec<u8>, StoreError> {
    let (row, _) = s.message(id(n)).await?.unwrap();
    let mut reader = BodyStore::open(s, id(n), &row.body, from..u64::MAX).await?;
    let mut whole = Vec::new();
    loop {
        let piece = reader.next().await?;
        if piece.is_empty() {
            return Ok(whole);
        }
        whole.extend_from_slice(&piece);
    }
}
/// Ends what is over at that time, as the vault does: the messages whose bodies are gone then.
async fn gone(s: &impl Store, now: i64) -> Vec<u8> {
    for (id, at) in s.doomed(passed(now), 99).await.unwrap().large {
        s.delete(id, &at).await.unwrap();
        s.forget_body(id).await.unwrap();
    }
    let all = s.list(&Filter::default(), None, 999).await.unwrap();
    let gone = all.iter().filter(|(row, _)| row.body == Locator::Gone);
    gone.map(|(row, _)| row.facts.id.as_bytes()[15]).collect()
}
fn is_fenced(result: Result<(), StoreError>) -> bool {
    matches!(result, Err(StoreError::Fenced))
}

async fn accepting_again_changes_nothing(s: &impl Store) {
    s.accept(message(1, &["a@a.example"])).await.unwrap();
    let claim = claim_one(s, 1).await;
    s.settle(settle(&claim, vec![outcome(0, delivered())])).await.unwrap();
    s.accept(message(1, &["b@b.example", "c@c.example"])).await.unwrap();
    let (row, recipients) = s.message(id(1)).await.unwrap().unwrap();
    assert_eq!((recipients.len(), &recipients[0].state), (1, &delivered()));
    assert_eq!((row.facts, row.size, row.header_len), (facts(1), 123, 45));
    assert!(s.message(id(2)).await.unwrap().is_none());
    assert!(claim_nothing(s, 5000).await);
}
async fn claim_nothing(s: &impl Store, now: i64) -> bool {
    claim(s, now).await.is_empty()
}

async fn a_claim_is_one_message_and_one_domain_and_only_what_is_due(s: &impl Store) {
    s.accept(message(1, &["a@a.example", "b@b.example", "c@a.example"])).await.unwrap();
    s.accept(NewMessage { due: at(50), ..message(2, &["a@a.example"]) }).await.unwrap();
    assert!(claim_nothing(s, -1).await, "nothing is due yet");
    let mut got: Vec<_> = claim(s, 1)
        .await
        .iter()
        .map(|c| {
            let indexes: Vec<_> = c.recipients.iter().map(|r| r.index).collect();
            (c.message.facts.id, c.domain.to_string(), indexes)
        })
        .collect();
    got.sort();
    let want =
        [(id(1), "a.example".to_owned(), vec![0, 2]), (id(1), "b.example".to_owned(), vec![1])];
    assert_eq!(got, want);
    assert_eq!(next(s).await, Some(at(50)), "before the leases end at 61");
    assert_eq!(s.claim(ask(50, 0)).await.unwrap().claims.len(), 0, "no more than asked");
    assert_eq!(claim_one(s, 50).await.message.facts.id, id(2));
}

async fn a_domain_without_room_is_in_nobodys_way(s: &impl Store) {
    for n in 1..=5 {
        s.accept(message(n, &["a@dead.example"])).await.unwrap();
    }
    s.accept(message(6, &["a@live.example", "b@dead.example"])).await.unwrap();
    s.accept(NewMessage { due: at(50), ..message(7, &["a@live.example"]) }).await.unwrap();
    let dead: Domain = "dead.example".parse().unwrap();
    for (room, others, most, want, next, why) in [
        (0, 9, 99, vec!["live.example"], Some(50), "what is due of the full one does not count"),
        (2, 0, 99, vec!["dead.example"; 2], None, "no other has room"),
        (9, 9, 3, vec!["dead.example"; 3], Some(0), "one more is left to claim at once"),
        (9, 9, 9, vec!["dead.example"], Some(50), "and that was all"),
    ] {
        let room = Room { named: [(dead.clone(), room)].into(), others };
        let Claimed { claims, next: then } = s.claim(Ask { room, ..ask(1, most) }).await.unwrap();
        assert_eq!(claims.iter().map(|c| c.domain.as_str()).collect::<Vec<_>>(), want, "{why}");
        assert_eq!(then, next.map(at), "{why}");
    }
}

async fn a_grant_announced_in_vain_ends_with_the_settle_unless_it_was_opened(s: &impl Store) {
    for (n, opened, end) in [(1, None, GrantState::Recalled), (3, Some(at(5)), GrantState::Live)] {
        let mut one = grant(n, n, "a@a.example");
        finish(s, n, "a@a.example", granted(0, one.clone())).await;
        one.opened = opened;
        s.update_grant(&one).await.unwrap();
        s.accept(message(n + 1, &["a@a.example"])).await.unwrap();
        let notice = claim_one(s, 1).await;
        let end_of_notice = settle(&notice, vec![outcome(0, delivered())]);
        s.settle(Settle { recall: Some(one.id), ..end_of_notice }).await.unwrap();
        assert_eq!(s.grant(one.id).await.unwrap().unwrap().state, end, "{n}");
        let gone = gone(s, 30).await;
        assert_eq!(gone.contains(&n), opened.is_none(), "{n}: {gone:?}");
    }
}

async fn a_lease_keeps_others_off_until_it_ends(s: &impl Store) {
    s.accept(message(1, &["a@a.example"])).await.unwrap();
    let first = claim_one(s, 1).await;
    assert!(claim_nothing(s, 60).await);
    assert_eq!(next(s).await, Some(at(61)));
    let second = claim_one(s, 61).await;
    assert_ne!(first.token, second.token);
    s.release(second.token).await.unwrap();
    let third = claim_one(s, 61).await;
    assert_eq!(third.recipients[0].attempts, 0, "a claim given back was no attempt");
    s.release(first.token).await.unwrap();
    assert!(claim_nothing(s, 62).await, "an old token frees nothing");
}

async fn what_a_fenced_worker_settles_is_refused(s: &impl Store) {
    s.accept(message(1, &["a@a.example"])).await.unwrap();
    s.accept(NewMessage { due: at(5000), ..message(2, &["a@a.example"]) }).await.unwrap();
    let slow = claim_one(s, 1).await;
    let quick = claim_one(s, 100).await;
    assert!(is_fenced(s.settle(settle(&slow, vec![outcome(0, delivered())])).await));
    assert_eq!(state(s, 1, 0).await, RecipientState::Waiting { next: at(0) });
    let other = Settle { id: id(2), ..settle(&quick, vec![outcome(0, delivered())]) };
    assert!(is_fenced(s.settle(other).await), "the token is of another message");
    s.settle(settle(&quick, vec![outcome(0, delivered())])).await.unwrap();
    assert_eq!(state(s, 1, 0).await, delivered());
}

async fn who_is_late_is_heard_until_somebody_else_has_the_work(s: &impl Store) {
    s.accept(message(1, &["a@a.example"])).await.unwrap();
    let slow = claim_one(s, 1).await;
    // The lease is over, but there is no room for more of the domain.
    let none = Room { named: [(slow.domain.clone(), 0)].into(), ..Room::endless() };
    let ask = Ask { now: at(100_000), max: 9, lease: lease(), room: none };
    assert!(s.claim(ask).await.unwrap().claims.is_empty());
    s.settle(settle(&slow, vec![outcome(0, delivered())])).await.unwrap();
    assert_eq!(state(s, 1, 0).await, delivered());
}

async fn no_recipient_ends_twice(s: &impl Store) {
    s.accept(message(1, &["a@a.example", "b@a.example", "c@b.example"])).await.unwrap();
    let claims = claim(s, 1).await;
    let a = claims.iter().find(|c| c.recipients.len() == 2).unwrap();
    let b = claims.iter().find(|c| c.recipients.len() == 1).unwrap();
    let bounced = || RecipientState::Expired { at: at(11) };
    let twice = settle(a, vec![outcome(0, delivered()), outcome(0, bounced())]);
    assert!(is_fenced(s.settle(twice).await), "two outcomes in one settle");
    assert!(is_fenced(s.settle(settle(a, vec![outcome(2, delivered())])).await), "another claim's");
    assert!(is_fenced(s.settle(settle(a, vec![outcome(9, delivered())])).await), "nobody's");
    s.settle(settle(a, vec![outcome(0, delivered()), outcome(1, bounced())])).await.unwrap();
    assert!(is_fenced(s.settle(settle(a, vec![outcome(1, delivered())])).await), "once more");
    assert_eq!((state(s, 1, 0).await, state(s, 1, 1).await), (delivered(), bounced()));
    s.settle(settle(b, vec![outcome(2, delivered())])).await.unwrap();
    assert_eq!(s.message(id(1)).await.unwrap().unwrap().0.done, Some(at(11)), "the last end");
}

async fn settling_brings_outcomes_grants_and_messages_at_once(s: &impl Store) {
    s.accept(message(1, &["a@a.example"])).await.unwrap();
    let claim = claim_one(s, 1).await;
    let notice = message(2, &["a@a.example"]);
    let outcomes = vec![granted(0, grant(9, 1, "a@a.example"))];
    s.settle(Settle { spawn: vec![notice], ..settle(&claim, outcomes) }).await.unwrap();
    let found = s.grant_by_token(&TokenHash::from_bytes([9; 32])).await.unwrap();
    assert_eq!(found, Some(grant(9, 1, "a@a.example")));
    assert_eq!(claim_one(s, 1).await.message.facts.id, id(2), "the notice is due");
    assert_eq!(body(s, 2, 0).await.unwrap(), vec![2; 500]);
    assert!(gone(s, 20).await.is_empty(), "the grant needs the body");
}

async fn a_refused_settle_leaves_nothing_behind(s: &impl Store) {
    s.accept(message(1, &["a@a.example"])).await.unwrap();
    let claim = claim_one(s, 1).await;
    let large = || NewBody::Small(Bytes::from(vec![0; SMALL + 1]));
    let cases = [
        (
            "an unreadable notice",
            vec![
                message(2, &["a@a.example"]),
                NewMessage { body: large(), ..message(3, &["a@a.example"]) },
            ],
            Some(9),
        ),
        ("an outcome without its grant", vec![message(2, &["a@a.example"])], None),
    ];
    for (what, spawn, grants) in cases {
        let mut outcome = granted(0, grant(9, 1, "a@a.example"));
        outcome.grant = grants.map(|n| grant(n, 1, "a@a.example"));
        let settle = Settle { spawn, ..settle(&claim, vec![outcome]) };
        assert!(matches!(s.settle(settle).await, Err(StoreError::Corrupt(_))), "{what}");
        assert_eq!(state(s, 1, 0).await, RecipientState::Waiting { next: at(0) }, "{what}");
        assert!(s.message(id(2)).await.unwrap().is_none(), "{what}");
        assert!(s.grants(None, None, 9).await.unwrap().is_empty(), "{what}");
    }
    s.settle(settle(&claim, vec![outcome(0, delivered())])).await.unwrap();
}

async fn a_deferred_recipient_comes_up_at_its_time(s: &impl Store) {
    s.accept(message(1, &["a@a.example", "b@a.example"])).await.unwrap();
    let claimed = claim_one(s, 1).await;
    let waiting = RecipientState::Waiting { next: at(30) };
    let deferred = Outcome { first_failed: Some(at(2)), warned: true, ..outcome(1, waiting) };
    s.settle(settle(&claimed, vec![outcome(0, delivered()), deferred])).await.unwrap();
    assert_eq!(next(s).await, Some(at(30)));
    assert!(claim_nothing(s, 29).await);
    let again = claim_one(s, 30).await;
    let row = &again.recipients[0];
    assert_eq!((again.recipients.len(), row.index, row.attempts), (1, 1, 1));
    assert_eq!((row.first_failed, row.warned), (Some(at(2)), true));
    // A claim settled without an outcome for its recipient gives it back.
    s.settle(settle(&again, Vec::new())).await.unwrap();
    assert_eq!(claim_one(s, 30).await.recipients[0].attempts, 1);
}

async fn attempts_are_kept_in_order_and_bounded(s: &impl Store) {
    s.accept(message(1, &["a@a.example", "b@b.example"])).await.unwrap();
    let attempt = |n: i64| Attempt {
        at: at(n),
        mx: Some("mx.a.example".to_owned()),
        address: Some("192.0.2.1:25".to_owned()),
        tls: None,
        verified: false,
        reply: None,
        trouble: None,
        dns: None,
        error: Some("connection refused".to_owned()),
    };
    let mut number = 0;
    for round in 0..30 {
        let claims = claim(s, 100 * round).await;
        let claim = claims.iter().find(|c| c.recipients[0].index == 0).unwrap();
        let waiting = RecipientState::Waiting { next: at(100 * round + 1) };
        let attempts = (number..number + 2).map(attempt).collect();
        number += 2;
        let outcome = Outcome { attempts, ..outcome(0, waiting) };
        s.settle(settle(claim, vec![outcome])).await.unwrap();
    }
    let kept = s.attempts(id(1), 0).await.unwrap();
    let want: Vec<_> = (number - ATTEMPTS_KEPT as i64..number).map(attempt).collect();
    assert_eq!(kept, want);
    assert!(s.attempts(id(1), 1).await.unwrap().is_empty());
    assert!(s.attempts(id(7), 0).await.unwrap().is_empty());
}

/// More than any peer and any DNS can say.
fn largest_attempts() -> [Attempt; 3] {
    let text = |length: usize| "\u{1}".repeat(length);
    let texts = |count: usize| vec![text(2_000); count];
    let record = Tlsa { usage: 3, selector: 0, matching: 0, data: vec![255; 65_000] };
    let policy = StsPolicy { id: text(32), mode: StsMode::Enforce, mx: texts(500), max_age: 1 };
    let tls = TlsFacts {
        version: "TLSv1.3".to_owned(),
        cipher: "TLS13_AES_256_GCM_SHA384".to_owned(),
        group: Some("X25519MLKEM768".to_owned()),
        chain_error: Some(text(90_000)),
        names: texts(300),
        fingerprint: "ab".repeat(32),
        key_fingerprint: "cd".repeat(32),
        not_after: None,
        dane: Some(DaneVerdict::Unmet(text(90_000))),
    };
    let dns = DnsRecord {
        mx: vec!["mx.a.example".to_owned()],
        dnssec: Dnssec::Secure,
        dane: Some(Dane::Records(TlsaSet { base: text(255), records: vec![record; 100] })),
        sts: Some(StsFacts::Policy(policy)),
    };
    let least = Attempt {
        at: at(1),
        mx: Some(text(2_000)),
        address: Some(text(2_000)),
        tls: None,
        verified: false,
        reply: Some(text(90_000)),
        trouble: None,
        dns: None,
        error: Some(text(90_000)),
    };
    let with_dns = Attempt { dns: Some(dns.clone()), ..least.clone() };
    let all_of_it = Attempt {
        tls: Some(TlsFacts { version: text(60_000), ..tls.clone() }),
        dns: Some(DnsRecord { mx: texts(100), ..dns.clone() }),
        ..least.clone()
    };
    [with_dns, Attempt { tls: Some(tls), dns: Some(dns), ..least }, all_of_it]
}
/// What can't be written would be done again after each lease.
async fn an_attempt_is_written_whatever_it_holds(s: &impl Store) {
    s.accept(message(1, &["a@a.example"])).await.unwrap();
    let c = claim_one(s, 1).await;
    let attempts = largest_attempts();
    let outcome = Outcome { attempts: attempts.to_vec(), ..outcome(0, delivered()) };
    s.settle(settle(&c, vec![outcome])).await.unwrap();
    assert!(claim_nothing(s, 100_000).await, "it goes out once");
    let kept = s.attempts(id(1), 0).await.unwrap();
    assert_eq!(kept.len(), attempts.len());
    for (kept, attempt) in kept.iter().zip(&attempts) {
        assert!(kept.at == attempt.at && kept.reply.is_some() && kept.error.is_some());
    }
    assert_eq!(kept[0].dns.as_ref().unwrap().mx, ["mx.a.example"], "the most needed stays");
    assert!(kept[1].tls.is_some(), "the most needed stays");
}
async fn a_message_is_destroyed_only_when_nobody_needs_it(s: &impl Store) {
    s.accept(message(1, &["a@a.example", "b@b.example"])).await.unwrap();
    for claim in claim(s, 1).await {
        let index = claim.recipients[0].index;
        assert!(gone(s, 2).await.is_empty(), "a recipient waits");
        let outcome = match index {
            0 => granted(0, grant(9, 1, "a@a.example")),
            _ => outcome(index, delivered()),
        };
        s.settle(settle(&claim, vec![outcome])).await.unwrap();
    }
    assert!(gone(s, 999).await.is_empty(), "the grant lives");
    assert!(is_fenced(s.forget_body(id(1)).await), "somebody needs it");
    assert_eq!(gone(s, 1000).await, [1]);
    let id9 = GrantId::from_bytes([9; 16]);
    assert_eq!(s.grant(id9).await.unwrap().unwrap().state, GrantState::Expired);
    assert!(matches!(body(s, 1, 0).await, Err(StoreError::NotFound)));
    assert!(matches!(s.forget_body(id(5)).await, Err(StoreError::NotFound)));
}

async fn a_small_message_is_destroyed_by_what_ends_it_and_a_large_one_after_it(s: &impl Store) {
    finish(s, 1, "a@a.example", outcome(0, delivered())).await;
    let (row, _) = s.message(id(1)).await.unwrap().unwrap();
    assert_eq!((row.body, row.done), (Locator::Gone, Some(at(10))), "by the settle itself");
    assert!(matches!(body(s, 1, 0).await, Err(StoreError::NotFound)));

    let mut writer = s.create(id(2)).await.unwrap();
    writer.write(Bytes::from(vec![2; SMALL + 1])).await.unwrap();
    let large = NewBody::At(writer.seal().await.unwrap());
    let large = NewMessage { body: large, ..message(2, &["a@a.example"]) };
    finish_message(s, large, outcome(0, delivered())).await;
    let doomed = s.doomed(passed(20), 9).await.unwrap();
    assert_eq!(doomed.large.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id(2)]);
    for _ in 0..2 {
        s.delete(id(2), &doomed.large[0].1).await.unwrap();
    }
    assert_eq!(s.doomed(passed(20), 9).await.unwrap(), doomed, "until it is forgotten");
    for _ in 0..2 {
        s.forget_body(id(2)).await.unwrap();
    }
    assert_eq!(s.doomed(passed(20), 9).await.unwrap(), Doomed::default());
    assert_eq!(s.message(id(2)).await.unwrap().unwrap().0.body, Locator::Gone);
    s.checkpoint().await.unwrap();
}

async fn nothing_expires_without_a_trusted_time(s: &impl Store) {
    finish(s, 1, "a@a.example", granted(0, grant(1, 1, "a@a.example"))).await;
    assert_eq!(s.doomed(None, 9).await.unwrap(), Doomed::default());
    let live = PeopleStore::grant(s, grant(1, 1, "a@a.example").id).await.unwrap().unwrap();
    assert_eq!(live.state, GrantState::Live);
    s.update_grant(&Grant { state: GrantState::Withdrawn, ..live }).await.unwrap();
    s.doomed(None, 9).await.unwrap();
    let (row, _) = s.message(id(1)).await.unwrap().unwrap();
    assert_eq!(row.body, Locator::Gone, "a recall is no matter of time");
}
async fn a_grant_that_ended_stays_ended(s: &impl Store) {
    finish(s, 1, "a@a.example", granted(0, grant(9, 1, "a@a.example"))).await;
    let extended = Grant { expires: at(3000), opened: Some(at(5)), ..grant(9, 1, "a@a.example") };
    s.update_grant(&extended).await.unwrap();
    assert!(gone(s, 2999).await.is_empty(), "it was extended");
    s.update_grant(&Grant { state: GrantState::Recalled, ..extended.clone() }).await.unwrap();
    assert_eq!(gone(s, 20).await, [1], "it was recalled");
    s.update_grant(&extended).await.unwrap();
    let kept = s.grant(extended.id).await.unwrap().unwrap();
    assert_eq!((kept.state, kept.opened), (GrantState::Recalled, Some(at(5))));
    assert_eq!(gone(s, 20).await, [1]);
    let unknown = s.update_grant(&grant(4, 1, "a@a.example")).await;
    assert!(matches!(unknown, Err(StoreError::NotFound)));
}

async fn an_opening_is_noted_once_and_never_erased(s: &impl Store) {
    let stale = grant(9, 1, "a@a.example");
    finish(s, 1, "a@a.example", granted(0, stale.clone())).await;
    assert!(s.mark_opened(stale.id, at(20)).await.unwrap());
    assert!(!s.mark_opened(stale.id, at(30)).await.unwrap());
    s.update_grant(&Grant { expires: at(3000), ..stale.clone() }).await.unwrap();
    let now = s.grant(stale.id).await.unwrap().unwrap();
    assert_eq!((now.opened, now.expires), (Some(at(20)), at(3000)));
    let ended = Grant { state: GrantState::Recalled, ..grant(8, 2, "a@a.example") };
    finish(s, 2, "a@a.example", granted(0, grant(8, 2, "a@a.example"))).await;
    s.update_grant(&ended).await.unwrap();
    assert!(!s.mark_opened(ended.id, at(20)).await.unwrap(), "what has ended is not opened");
    assert_eq!(s.grant(ended.id).await.unwrap().unwrap().opened, None);
    let none = s.mark_opened(GrantId::from_bytes([1; 16]), at(20)).await;
    assert!(matches!(none, Err(StoreError::NotFound)));
}
async fn a_proof_changes_only_from_what_it_was(s: &impl Store) {
    finish(s, 1, "a@a.example", granted(0, grant(9, 1, "a@a.example"))).await;
    let (id, told) = (GrantId::from_bytes([9; 16]), id(7));
    let one = Proof { wrong: 1, ..Proof::default() };
    let two = Proof { wrong: 2, ..Proof::default() };
    let change = |old: Option<&Proof>, new: &Proof| {
        let (old, event) = (old.cloned(), AuditEvent::new(AuditKind::ProofFailed, at(5)));
        let (mail, events) = (vec![message(7, &["b@b.example"])], vec![event]);
        s.change_proof(ProofChange { mail, events, ..ProofChange::new(id, old, new.clone()) })
    };
    assert!(s.change_proof(ProofChange::new(id, None, one.clone())).await.unwrap());
    assert!(!change(None, &two).await.unwrap(), "it is another by now");
    assert!(!change(Some(&two), &two).await.unwrap());
    assert!(s.message(told).await.unwrap().is_none(), "nor is anything else written");
    assert!(s.records(0, 9).await.unwrap().is_empty());
    assert!(change(Some(&one), &two).await.unwrap());
    assert!(s.message(told).await.unwrap().is_some(), "with the mail that tells of it");
    assert_eq!(s.records(0, 9).await.unwrap().len(), 1, "and its record");
    // What else a grant says is written beside it: neither undoes the other.
    let opened = Grant { opened: Some(at(5)), ..grant(9, 1, "a@a.example") };
    s.update_grant(&opened).await.unwrap();
    let kept = s.grant(id).await.unwrap().unwrap();
    assert_eq!((kept.proof, kept.opened), (Some(two), Some(at(5))));
    let none = GrantId::from_bytes([4; 16]);
    let unknown = s.change_proof(ProofChange::new(none, None, one)).await;
    assert!(matches!(unknown, Err(StoreError::NotFound)));
}

async fn records_are_purged_after_their_time(s: &impl Store) {
    finish(s, 1, "a@a.example", outcome(0, delivered())).await;
    finish(s, 2, "a@a.example", granted(0, grant(9, 2, "a@a.example"))).await;
    finish(
        s,
        3,
        "a@a.example",
        granted(0, Grant { expires: at(2000), ..grant(8, 3, "a@a.example") }),
    )
    .await;
    assert_eq!(gone(s, 999).await, [1]);
    assert_eq!(s.purge(trusted(9), SignedDuration::ZERO, 9).await.unwrap(), 0);
    assert_eq!(
        s.purge(trusted(10), SignedDuration::ZERO, 9).await.unwrap(),
        0,
        "1 ended at 10, not before"
    );
    assert_eq!(s.purge(trusted(11), SignedDuration::ZERO, 9).await.unwrap(), 1);
    assert!(s.message(id(1)).await.unwrap().is_none());
    assert_eq!(
        s.purge(trusted(9000), SignedDuration::ZERO, 9).await.unwrap(),
        0,
        "the others' bodies are there"
    );
    assert_eq!(gone(s, 1000).await, [2]);
    assert_eq!(
        s.purge(trusted(1000), SignedDuration::ZERO, 9).await.unwrap(),
        0,
        "the grant of 2 ended at 1000"
    );
    assert_eq!(
        s.purge(trusted(1001), SignedDuration::ZERO, 0).await.unwrap(),
        0,
        "no more than asked"
    );
    assert_eq!(s.purge(trusted(1001), SignedDuration::ZERO, 9).await.unwrap(), 1);
    assert!(s.message(id(2)).await.unwrap().is_none());
    assert_eq!(s.grants(None, None, 9).await.unwrap().len(), 1, "that of 3");
    assert!(s.grant_by_token(&TokenHash::from_bytes([9; 32])).await.unwrap().is_none());
    assert!(s.message(id(3)).await.unwrap().is_some());
}

async fn listing_goes_page_by_page_and_filters(s: &impl Store) {
    let accepts = (0..=255u8).map(|n| {
        let to = if n % 100 == 7 { "rare@rare.example" } else { "a@a.example" };
        let mut message = message(n, &[to, "b@b.example"]);
        if n == 200 {
            message.facts.sender = None;
        }
        s.accept(message)
    });
    for accepted in futures_util::future::join_all(accepts).await {
        accepted.unwrap();
    }
    for c in claim(s, 1).await.iter().filter(|c| c.message.facts.id == id(0)) {
        let ends = c.recipients.iter().map(|r| outcome(r.index, delivered())).collect();
        s.settle(settle(c, ends)).await.unwrap();
    }
    let ids = async |filter: &Filter, after: Option<u8>, max: usize| -> Vec<QueueId> {
        let listed = s.list(filter, after.map(id), max).await.unwrap();
        listed.into_iter().map(|(row, _)| row.facts.id).collect()
    };
    let any = Filter::default();
    assert_eq!(ids(&any, None, 2).await, [id(0), id(1)]);
    assert_eq!(ids(&any, Some(1), 2).await, [id(2), id(3)]);
    assert_eq!(ids(&any, Some(254), 9).await, [id(255)]);
    assert!(ids(&any, Some(255), 9).await.is_empty());
    assert_eq!(ids(&any, None, 1000).await.len(), 256);
    for (what, filter, want) in filters() {
        assert_eq!(ids(&filter, None, 3).await, want, "{what}");
    }
}

/// Each filter, and the first three it finds among the 256 messages of the listing.
fn filters() -> [(&'static str, Filter, Vec<QueueId>); 6] {
    let rare = [id(7), id(107), id(207)];
    [
        ("open", Filter { open: true, ..Filter::default() }, vec![id(1), id(2), id(3)]),
        (
            "recipient",
            Filter { recipient: Some(address("rare@rare.example")), ..Filter::default() },
            rare.to_vec(),
        ),
        (
            "domain",
            Filter { domain: Some("rare.example".parse().unwrap()), ..Filter::default() },
            rare.to_vec(),
        ),
        (
            "Message-ID",
            Filter { message_id: Some("<9@example.org>".to_owned()), ..Filter::default() },
            vec![id(9)],
        ),
        (
            "sender",
            Filter { sender: Some(address("other@example.org")), ..Filter::default() },
            vec![],
        ),
        (
            "both",
            Filter {
                domain: Some("rare.example".parse().unwrap()),
                message_id: Some("<9@example.org>".to_owned()),
                ..Filter::default()
            },
            vec![],
        ),
    ]
}

async fn counts_follow_what_happens(s: &impl Store) {
    assert_eq!(s.totals().await.unwrap(), restante::store::Totals::default());
    s.accept(message(1, &["a@a.example"])).await.unwrap();
    s.accept(message(2, &["b@b.example", "c@b.example"])).await.unwrap();
    let t = s.totals().await.unwrap();
    assert_eq!((t.active, t.deferred, t.held, t.oldest), (3, 0, 0, Some(at(1))));
    for c in claim(s, 1).await {
        let outcomes = match c.recipients.len() {
            1 => vec![granted(0, grant(9, 1, "a@a.example"))],
            _ => vec![
                outcome(0, RecipientState::Waiting { next: at(50) }),
                outcome(1, RecipientState::Held { next: at(50) }),
            ],
        };
        s.settle(settle(&c, outcomes)).await.unwrap();
    }
    let t = s.totals().await.unwrap();
    assert_eq!((t.active, t.deferred, t.held, t.oldest), (0, 1, 1, Some(at(2))));
    assert_eq!((t.vault_messages, t.grants, t.vault_bytes), (1, 1, 500));
    assert_eq!(gone(s, 1000).await, [1]);
    let c = claim_one(s, 50).await;
    s.settle(settle(&c, vec![outcome(0, delivered())])).await.unwrap();
    let t = s.totals().await.unwrap();
    assert_eq!((t.active, t.deferred, t.held, t.oldest), (0, 0, 1, None));
    assert_eq!((t.vault_messages, t.grants, t.vault_bytes), (0, 0, 0));
    assert_eq!(gone(s, 1000).await, [1], "a held recipient keeps its message");
}

async fn bodies_come_back_byte_for_byte(s: &impl Store) {
    for (n, length) in [(1, 0), (2, 1), (3, 65_537), (4, SMALL)] {
        let sealed: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let body_of = NewBody::Small(Bytes::from(sealed.clone()));
        s.accept(NewMessage { body: body_of, ..message(n, &["a@a.example"]) }).await.unwrap();
        assert_eq!(body(s, n, 0).await.unwrap(), sealed, "{length}");
        let from = length.min(40_000);
        assert_eq!(body(s, n, from as u64).await.unwrap(), &sealed[from..], "{length}");
        assert!(body(s, n, u64::MAX).await.unwrap().is_empty(), "{length}");
    }
    let large = NewBody::Small(Bytes::from(vec![0; SMALL + 1]));
    let refused = s.accept(NewMessage { body: large, ..message(5, &["a@a.example"]) }).await;
    assert!(matches!(refused, Err(StoreError::Corrupt(_))));
    assert!(s.message(id(5)).await.unwrap().is_none());
}

async fn large_bodies_are_written_in_pieces_or_not_at_all(s: &impl Store) {
    let sealed: Vec<u8> = (0..3_000_000).map(|i| (i % 251) as u8).collect();
    let mut writer = s.create(id(1)).await.unwrap();
    for piece in sealed.chunks(65_536) {
        writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
    }
    let at = writer.seal().await.unwrap();
    s.accept(NewMessage { body: NewBody::At(at.clone()), ..message(1, &["a@a.example"]) })
        .await
        .unwrap();
    assert!(body(s, 1, 0).await.unwrap() == sealed);
    assert!(body(s, 1, 2_500_000).await.unwrap() == sealed[2_500_000..]);
    let mut dropped = s.create(id(2)).await.unwrap();
    dropped.write(Bytes::from(vec![1; 2_000_000])).await.unwrap();
    drop(dropped);
    assert!(BodyStore::open(s, id(2), &at, 0..9).await.is_err(), "a dropped writer leaves nothing");
    for _ in 0..2 {
        s.delete(id(1), &at).await.unwrap();
    }
    assert!(matches!(BodyStore::open(s, id(1), &at, 0..9).await.err(), Some(StoreError::NotFound)));
}

async fn what_lies_aside_is_read_while_it_is_held(s: &impl Store) {
    let sealed: Vec<u8> = (0..1_000_000).map(|i| (i % 251) as u8).collect();
    let mut aside = s.aside(id(1)).await.unwrap();
    let mut written = 0;
    for piece in sealed.chunks(300_000) {
        aside.write(Bytes::copy_from_slice(piece)).await.unwrap();
        written += piece.len();
        for from in [0, 299_999, written, written + 1] {
            let mut reader = aside.open(from as u64).unwrap();
            let mut read = Vec::new();
            while let Some(bytes) = Some(reader.next().await.unwrap()).filter(|b| !b.is_empty()) {
                read.extend_from_slice(&bytes);
            }
            assert!(read == sealed[from.min(written)..written], "{written} from {from}");
        }
    }
    assert!(s.message(id(1)).await.unwrap().is_none(), "no row tells of it");
}

async fn grants_are_found_by_token_and_by_recipient(s: &impl Store) {
    for n in 1..=6 {
        let to = if n % 2 == 0 { "even@a.example" } else { "odd@a.example" };
        finish(s, n, to, granted(0, grant(n, n, to))).await;
    }
    let ids = async |recipient: Option<&str>, after: Option<u8>, max| -> Vec<u8> {
        let recipient = recipient.map(address);
        let after = after.map(|n| GrantId::from_bytes([n; 16]));
        let found = s.grants(recipient.as_ref(), after, max).await.unwrap();
        found.iter().map(|g| g.id.as_bytes()[0]).collect()
    };
    assert_eq!(ids(None, None, 9).await, [6, 5, 4, 3, 2, 1], "newest first");
    assert_eq!(ids(None, Some(4), 2).await, [3, 2]);
    assert_eq!(ids(Some("even@a.example"), None, 9).await, [6, 4, 2]);
    assert_eq!(ids(Some("even@a.example"), Some(6), 1).await, [4]);
    assert!(ids(Some("even@a.example"), Some(2), 9).await.is_empty());
    assert!(ids(Some("nobody@a.example"), None, 9).await.is_empty());
    assert!(ids(Some("ven@a.example"), None, 9).await.is_empty(), "no part of an address");
    let found = s.grant_by_token(&TokenHash::from_bytes([3; 32])).await.unwrap().unwrap();
    assert_eq!(found, grant(3, 3, "odd@a.example"));
    assert_eq!(s.grant(found.id).await.unwrap(), Some(found));
    assert!(s.grant_by_token(&TokenHash::from_bytes([77; 32])).await.unwrap().is_none());
    assert_eq!(s.grants_by_hash([3; 6], 2).await.unwrap(), [grant(3, 3, "odd@a.example")]);
    for (start, reason) in [([77; 6], "none"), ([3, 3, 3, 3, 3, 4], "the last byte counts")] {
        assert!(s.grants_by_hash(start, 2).await.unwrap().is_empty(), "{reason}");
    }
}

async fn a_copy_of_what_was_forwarded_ends_with_it(s: &impl Store) {
    let who = "ann@b.example";
    finish(s, 1, who, granted(0, grant(1, 1, who))).await;
    let forward = async |n: u8, origin: u8| {
        let origin = Some(GrantId::from_bytes([origin; 16]));
        let copy = Grant { kind: GrantKind::Sent, expires: at(5000), origin, ..grant(n, n, who) };
        let written = NewMessage { copy: Some(copy), ..message(n, &["nurse@a.example"]) };
        finish_message(s, written, outcome(0, delivered())).await;
    };
    let kept = async |n: u8| s.grant(GrantId::from_bytes([n; 16])).await.unwrap().unwrap();
    forward(2, 1).await;
    forward(3, 2).await;
    assert_eq!(kept(2).await.expires, at(1000), "no later than what it holds");
    assert_eq!(kept(3).await.expires, at(1000), "nor a forward of a forward");
    s.update_grant(&Grant { expires: at(3000), ..kept(1).await }).await.unwrap();
    assert_eq!(kept(2).await.expires, at(1000), "more time is for the one that was given it");
    s.update_grant(&Grant { expires: at(900), ..kept(1).await }).await.unwrap();
    assert_eq!((kept(2).await.expires, kept(3).await.expires), (at(900), at(900)));
    assert!(gone(s, 20).await.is_empty());
    s.update_grant(&Grant { state: GrantState::Withdrawn, ..kept(1).await }).await.unwrap();
    for n in [2, 3] {
        assert_eq!(kept(n).await.state, GrantState::Withdrawn);
    }
    assert_eq!(gone(s, 20).await, [1, 2, 3]);
    forward(4, 1).await;
    assert_eq!(kept(4).await.state, GrantState::Withdrawn, "it ended while the copy was written");
    forward(5, 77).await;
    assert_eq!(kept(5).await.state, GrantState::Expired, "its record is gone");
}

async fn an_authors_copy_comes_with_its_message(s: &impl Store) {
    let by = |n: u8, who: &str| {
        let copy = Grant { kind: GrantKind::Sent, ..grant(n, n, who) };
        NewMessage { copy: Some(copy), ..message(n, &["nurse@a.example"]) }
    };
    for n in 1..=3 {
        s.accept(by(n, "ann@b.example")).await.unwrap();
    }
    s.accept(by(4, "bob@b.example")).await.unwrap();
    s.accept(by(4, "eve@b.example")).await.unwrap();
    let ids = async |who: &str, after: Option<u8>, max| -> Vec<u8> {
        let after = after.map(|n| GrantId::from_bytes([n; 16]));
        let found = s.sent(&address(who), after, max).await.unwrap();
        found.iter().map(|g| g.id.as_bytes()[0]).collect()
    };
    assert_eq!(ids("ann@b.example", None, 9).await, [3, 2, 1], "newest first");
    assert_eq!(ids("ann@b.example", Some(3), 1).await, [2]);
    assert_eq!(ids("bob@b.example", None, 9).await, [4]);
    assert!(ids("eve@b.example", None, 9).await.is_empty(), "accepted once only");
    let (ann, bob) = (address("ann@b.example"), address("bob@b.example"));
    assert!(s.grants(Some(&ann), None, 9).await.unwrap().is_empty(), "she received nothing");
    assert!(s.grants(None, None, 9).await.unwrap().is_empty(), "nobody waits for a copy");
    let token = s.sent(&bob, None, 1).await.unwrap()[0].token;
    assert!(s.grant_by_token(&token).await.unwrap().is_none(), "no link leads to a copy");
    let start = token.as_bytes()[..6].try_into().unwrap();
    assert!(s.grants_by_hash(start, 9).await.unwrap().is_empty(), "nor is it found by its hash");
    let totals = s.totals().await.unwrap();
    assert_eq!((totals.grants, totals.vault_messages), (0, 4));
    for claim in claim(s, 1).await {
        s.settle(settle(&claim, vec![outcome(0, delivered())])).await.unwrap();
    }
    assert!(gone(s, 999).await.is_empty(), "the copies keep the bodies");
    assert_eq!(gone(s, 1000).await, [1, 2, 3, 4]);
    s.purge(trusted(1001), SignedDuration::ZERO, 9).await.unwrap();
    assert!(ids("ann@b.example", None, 9).await.is_empty(), "purged with their records");
}

#[test]
fn a_grant_written_before_there_were_copies_was_received() {
    let mut old = serde_json::to_value(grant(1, 1, "ann@b.example")).unwrap();
    old.as_object_mut().unwrap().remove("kind").unwrap();
    let read: Grant = serde_json::from_value(old).unwrap();
    assert_eq!(read, grant(1, 1, "ann@b.example"));
}

fn account(text: &str) -> Account {
    Account {
        first_name: "A".to_owned(),
        last_name: "B".to_owned(),
        password: "$argon2id$…".to_owned(),
        ..Account::new(address(text), [1; 16], at(0))
    }
}
fn session(n: u8, of: Option<&str>, seen: i64) -> Session {
    Session {
        account: of.map(|name| account(name).signed_in(SignedBy::Password)),
        seen: at(seen),
        ..Session::new(TokenHash::from_bytes([n; 32]), at(i64::from(n)))
    }
}
/// Creates an account, or replaces it whatever it was.
async fn put_account(s: &impl Store, new: Account) {
    let old = s.account(&new.address).await.unwrap();
    assert!(s.change_account(AccountChange::new(old, new)).await.unwrap());
}
/// Which of the sessions 1 to 30 are there.
async fn left(s: &impl Store) -> Vec<u8> {
    let mut left = Vec::new();
    for n in 1..=30 {
        if s.session(&TokenHash::from_bytes([n; 32])).await.unwrap().is_some() {
            left.push(n);
        }
    }
    left
}
async fn accounts_and_sessions_come_and_go(s: &impl Store) {
    for name in ["c@a.example", "a@a.example", "b@a.example"] {
        put_account(s, account(name)).await;
    }
    put_account(s, Account { locked: true, ..account("b@a.example") }).await;
    assert!(s.account(&address("b@a.example")).await.unwrap().unwrap().locked);
    assert!(s.account(&address("d@a.example")).await.unwrap().is_none());
    let first = s.accounts(None, 2).await.unwrap();
    let rest = s.accounts(Some(&first[1].address), 2).await.unwrap();
    let mut all: Vec<_> = first.iter().chain(&rest).map(|a| a.address.to_string()).collect();
    all.sort();
    assert_eq!(all, ["a@a.example", "b@a.example", "c@a.example"]);

    let (a, b) = (Some("a@a.example"), Some("b@a.example"));
    let code = Code {
        hash: TokenHash::from_bytes([8; 32]),
        until: at(9),
        tries: 3,
        account: account("a@a.example"),
        purpose: Purpose::Reset,
    };
    let resetting = Session { pending: Some(code), ..session(5, None, 90) };
    for one in [
        session(1, a, 10),
        session(2, a, 90),
        session(3, b, 10),
        session(4, None, 10),
        resetting.clone(),
    ] {
        s.put_session(&one).await.unwrap();
    }
    assert!(s.session(&resetting.id).await.unwrap() == Some(resetting.clone()));
    let mut after = None;
    loop {
        after = s.expire_sessions(at(50), after, 2).await.unwrap();
        if after.is_none() {
            break;
        }
    }
    assert_eq!(left(s).await, [2, 5], "unseen since, in slices of two");
    s.put_session(&session(3, b, 99)).await.unwrap();
    assert!(s.remove_account(&address("A@a.example"), at(100)).await.unwrap());
    assert!(s.account(&address("a@a.example")).await.unwrap().is_none());
    assert_eq!(left(s).await, [3, 5], "its sessions go with it");
    for _ in 0..2 {
        s.remove_session(&TokenHash::from_bytes([3; 32])).await.unwrap();
    }
    assert_eq!(left(s).await, [5]);
}

async fn an_account_is_changed_only_as_it_was_read(s: &impl Store) {
    let change = async |old: Option<&Account>, new: &Account| {
        s.change_account(AccountChange::new(old.cloned(), new.clone())).await.unwrap()
    };
    let mailbox = address("a@a.example");
    let (first, other) =
        (account("a@a.example"), Account { locked: true, ..account("a@a.example") });
    assert!(change(None, &first).await, "there is none yet");
    assert!(!change(None, &other).await, "now there is one");
    assert!(!change(Some(&other), &other).await, "not what it was");
    assert!(s.account(&mailbox).await.unwrap() == Some(first.clone()));
    let second = SecondFactor {
        seed: WrappedKey::from_bytes(&[1; WrappedKey::LEN]).unwrap(),
        on: true,
        step: 9,
        recovery: vec![TokenHash::from_bytes([3; 32])],
    };
    let passkey = Passkey {
        id: "id".to_owned(),
        key: "key".to_owned(),
        algorithm: -7,
        counter: 3,
        copyable: Some(true),
        name: "phone".to_owned(),
        created: at(1),
        proved: true,
        used: None,
    };
    let device = Device { id: TokenHash::from_bytes([4; 32]), used: at(2) };
    let whole = Account {
        second: Some(second),
        passkeys: vec![passkey],
        devices: vec![device],
        since: Some(at(3)),
        rooted: Some(at(4)),
        epoch: 5,
        epoch_since: Some(at(6)),
        ..other
    };
    assert!(change(Some(&first), &whole).await);
    assert!(s.account(&mailbox).await.unwrap() == Some(whole.clone()), "all of it comes back");
    assert!(s.remove_account(&mailbox, at(9)).await.unwrap());
    assert!(!change(Some(&whole), &first).await, "it has gone");
}
/// A store that is short of space takes no mail from outside. A lock, a new password and the word of
/// it to the owner are none.
async fn owners_are_told_though_space_is_short(s: &impl Store) {
    assert_eq!(s.health(), Health::Full);
    let refused = s.accept(message(1, &["a@a.example"])).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    let old = account("a@a.example");
    put_account(s, old.clone()).await;
    let new = Account { epoch: 1, ..old.clone() };
    let mail = vec![message(2, &["a@a.example"])];
    let change = AccountChange { mail, ..AccountChange::new(Some(old), new.clone()) };
    assert!(s.change_account(change).await.unwrap());
    let mail = vec![message(3, &["a@a.example"])];
    let (to, events) = ("b@a.example".parse().unwrap(), Vec::new());
    let order = AccountMove { account: new, to, at: at(9), mail, events };
    assert!(matches!(s.move_account(order).await.unwrap(), Moved::Done { .. }));
    for told in [2, 3] {
        assert!(s.message(id(told)).await.unwrap().is_some(), "{told}");
    }
}
#[tokio::test]
async fn a_store_in_memory_tells_owners_though_space_is_short() {
    let store = MemoryStore::new();
    store.set_health(Health::Full);
    owners_are_told_though_space_is_short(&store).await;
}
async fn a_change_of_an_account_brings_all_that_follows_in_one_commit(s: &impl Store) {
    let old = account("a@a.example");
    put_account(s, old.clone()).await;
    put_account(s, account("b@a.example")).await;
    let a = Some("a@a.example");
    for one in [session(1, a, 1), session(2, a, 2), session(3, Some("b@a.example"), 3)] {
        s.put_session(&one).await.unwrap();
    }
    let new = Account { epoch: 1, epoch_since: Some(at(9)), ..old.clone() };
    let kept = Session { account: Some(new.signed_in(SignedBy::Password)), ..session(2, a, 2) };
    let begun = Session { account: kept.account.clone(), ..session(4, a, 4) };
    let change = |old: &Account, mail| AccountChange {
        old: Some(old.clone()),
        new: new.clone(),
        session: Some(begun.clone()),
        ends: Some(TokenHash::from_bytes([3; 32])),
        mail: vec![mail],
        events: vec![AuditEvent::new(AuditKind::PasswordChanged, at(9))],
    };
    let stale = Account { locked: true, ..old.clone() };
    let refused = s.change_account(change(&stale, message(1, &["a@a.example"]))).await;
    assert!(!refused.unwrap());
    assert_eq!(left(s).await, [1, 2, 3], "nothing of a change that is refused is kept");
    assert!(s.message(id(1)).await.unwrap().is_none());
    assert!(s.change_account(change(&old, message(1, &["a@a.example"]))).await.unwrap());
    assert_eq!(left(s).await, [4], "older epochs have ended; so has the session that it replaces");
    assert!(s.message(id(1)).await.unwrap().is_some(), "the owner is told");
    assert_eq!(s.chain().await.unwrap().head.seq, 1, "and the trail has it");
    let same = AccountChange::new(Some(new.clone()), Account { locked: true, ..new.clone() });
    assert!(s.change_account(same).await.unwrap());
    assert_eq!(left(s).await, [4], "the epoch is the same");
}
async fn an_account_has_so_many_sessions_and_no_more(s: &impl Store) {
    put_account(s, account("a@a.example")).await;
    let most = u8::try_from(Account::SESSIONS).unwrap();
    for n in 1..=most + 2 {
        s.put_session(&session(n, Some("a@a.example"), 1)).await.unwrap();
    }
    s.put_session(&session(30, Some("b@a.example"), 1)).await.unwrap();
    let mut expected: Vec<u8> = (3..=most + 2).collect();
    expected.push(30);
    assert_eq!(left(s).await, expected, "the oldest have ended");
    s.put_session(&session(most + 2, Some("a@a.example"), 9)).await.unwrap();
    assert_eq!(left(s).await, expected, "one that is written again ends no other");
}
async fn a_session_is_changed_only_as_it_was_read(s: &impl Store) {
    let (old, new) = (session(1, None, 1), session(1, None, 2));
    assert!(!s.change_session(&old, &new).await.unwrap(), "there is none");
    s.put_session(&old).await.unwrap();
    assert!(!s.change_session(&new, &old).await.unwrap(), "not what it was");
    assert!(s.change_session(&old, &new).await.unwrap());
    assert!(!s.change_session(&old, &new).await.unwrap(), "two never spend one try");
    assert!(s.session(&old.id).await.unwrap() == Some(new));
}
async fn an_account_is_found_by_its_identity(s: &impl Store) {
    let of = async |n: u8| {
        let found = s.account_of([n; 16]).await.unwrap();
        found.map(|account| account.address.to_string())
    };
    let named = |name: &str, n: u8| Account { generation: [n; 16], ..account(name) };
    put_account(s, named("a@a.example", 1)).await;
    put_account(s, named("b@a.example", 2)).await;
    assert_eq!(of(1).await.as_deref(), Some("a@a.example"));
    assert_eq!((of(2).await.as_deref(), of(3).await), (Some("b@a.example"), None));
    put_account(s, named("a@a.example", 3)).await;
    assert_eq!((of(1).await, of(3).await.as_deref()), (None, Some("a@a.example")));
    s.remove_account(&address("b@a.example"), at(9)).await.unwrap();
    assert_eq!(of(2).await, None);
}
async fn a_mailbox_remembers_that_its_account_was_removed(s: &impl Store) {
    let mailbox = address("a@a.example");
    assert!(!s.remove_account(&mailbox, at(5)).await.unwrap(), "there was none");
    assert_eq!(s.vacated(&mailbox).await.unwrap(), None);
    for time in [7, 9] {
        put_account(s, account("a@a.example")).await;
        assert!(s.remove_account(&mailbox, at(time)).await.unwrap());
        assert_eq!(s.vacated(&mailbox).await.unwrap(), Some(at(time)), "the last time");
    }
    assert_eq!(s.vacated(&address("A@a.example")).await.unwrap(), Some(at(9)), "in any case");
    assert_eq!(s.vacated(&address("b@a.example")).await.unwrap(), None, "another mailbox");
}
async fn an_account_moves_with_all_that_it_holds_or_not_at_all(s: &impl Store) {
    let (old, new) = ("old@a.example", "new@b.example");
    finish(s, 1, old, granted(0, grant(1, 1, old))).await;
    let account = Account { since: Some(at(1)), ..Account::new(address(old), [1; 16], at(2)) };
    put_account(s, account.clone()).await;
    for n in [2, 3] {
        finish(s, n, old, granted(0, grant(n, n, old))).await;
    }
    let copy = Grant { kind: GrantKind::Sent, ..grant(4, 4, old) };
    s.accept(NewMessage { copy: Some(copy), ..message(4, &["x@x.example"]) }).await.unwrap();
    let session = |n: u8| Session {
        account: Some(account.signed_in(SignedBy::Password)),
        ..Session::new(TokenHash::from_bytes([n; 32]), at(3))
    };
    s.put_session(&session(1)).await.unwrap();
    let change = |account: &Account, to: &str| AccountMove {
        account: account.clone(),
        to: address(to),
        at: at(100),
        mail: vec![message(9, &[old])],
        events: vec![AuditEvent::new(AuditKind::AccountMoved, at(100)).account(&address(old))],
    };
    put_account(s, Account::new(address("taken@b.example"), [2; 16], at(2))).await;
    let stale = Account { locked: true, ..account.clone() };
    assert_eq!(s.move_account(change(&stale, new)).await.unwrap(), Moved::Changed);
    assert_eq!(s.move_account(change(&account, "Taken@b.example")).await.unwrap(), Moved::Taken);
    assert!(s.message(id(9)).await.unwrap().is_none() && s.chain().await.unwrap().head.seq == 0);

    let done = s.move_account(change(&account, new)).await.unwrap();
    assert_eq!(done, Moved::Done { grants: 3, sessions: 1 }, "what was sealed before is another's");
    let moved = s.account(&address(new)).await.unwrap().unwrap();
    let (epoch, epoch_since) = (1, Some(at(100)));
    let expected =
        Account { address: address(new), since: None, epoch, epoch_since, ..account.clone() };
    assert_eq!(moved, expected, "and a new epoch");
    assert_eq!(s.account_of([1; 16]).await.unwrap().unwrap().address, address(new));
    assert!(s.account(&address(old)).await.unwrap().is_none());
    assert_eq!(s.vacated(&address(old)).await.unwrap(), Some(at(100)));
    assert!(s.session(&session(1).id).await.unwrap().is_none());
    let ids = |grants: Vec<Grant>| grants.iter().map(|g| g.id.as_bytes()[0]).collect::<Vec<_>>();
    let held = s.grants(Some(&address(new)), None, 9).await.unwrap();
    assert!(held.iter().all(|grant| moved.holds(grant) && grant.recipient == address(old)));
    assert_eq!(ids(held), [3, 2]);
    assert_eq!(ids(s.sent(&address(new), None, 9).await.unwrap()), [4]);
    assert_eq!(ids(s.grants(Some(&address(old)), None, 9).await.unwrap()), [1]);
    assert_eq!(ids(s.grants(None, None, 9).await.unwrap()), [3, 2, 1]);
    let anew = Account { since: Some(at(100)), ..Account::new(address(old), [3; 16], at(101)) };
    let back = Account { since: Some(at(200)), ..moved.clone() };
    for grant in s.grants(Some(&address(new)), None, 9).await.unwrap() {
        assert!(!anew.holds(&grant), "who registers the old address holds nothing of it");
        assert!(!back.holds(&grant), "nor who registers the new one after a removal");
    }
    assert!(s.message(id(9)).await.unwrap().is_some(), "the mail is in the commit");
    assert_eq!(s.chain().await.unwrap().head.seq, 1, "and the record");
    assert_eq!(s.move_account(change(&account, new)).await.unwrap(), Moved::Changed, "once");
}
async fn sessions_of_an_account_are_listed(s: &impl Store) {
    let listed = async |of: &str| {
        let found = s.sessions(&address(of)).await.unwrap();
        let mut ids: Vec<_> = found.iter().map(|one| one.id.as_bytes()[0]).collect();
        ids.sort_unstable();
        ids
    };
    let (a, aa) = (Some("a@a.example"), Some("a@a.example.org"));
    for one in [session(1, a, 1), session(2, aa, 2), session(3, a, 3), session(4, None, 4)] {
        s.put_session(&one).await.unwrap();
    }
    let half = Session { half: session(1, a, 1).account, ..session(5, None, 5) };
    s.put_session(&half).await.unwrap();
    assert_eq!(listed("A@a.example").await, [1, 3], "signed in, and no other's");
    s.remove_session(&TokenHash::from_bytes([1; 32])).await.unwrap();
    assert_eq!(listed("a@a.example").await, [3]);
    assert_eq!(listed("a@a.example.org").await, [2]);
}
async fn a_mailbox_has_one_account_whatever_the_case(s: &impl Store) {
    put_account(s, account("Ann@a.example")).await;
    put_account(s, account("ann@a.example.org")).await;
    for typed in ["ann@a.example", "ANN@A.EXAMPLE", "Ann@a.example"] {
        let found = s.account(&address(typed)).await.unwrap().unwrap();
        assert_eq!(found.address.to_string(), "Ann@a.example", "{typed}: as it was registered");
    }
    assert!(s.account(&address("an@a.example")).await.unwrap().is_none());
    let again = AccountChange::new(None, account("ann@a.example"));
    assert!(!s.change_account(again).await.unwrap(), "the mailbox has one");
    assert_eq!(s.accounts(Some(&address("ANN@a.example")), 9).await.unwrap().len(), 1);
}
/// A value that is no other one's.
fn value(n: u8, length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8 ^ n).collect()
}
async fn notes_come_back_by_kind_and_key(s: &impl Store) {
    let (sts, watch) = (NoteKind::Sts, NoteKind::Watch);
    let read = async |kind, key: &'static str| s.note(kind, key).await.unwrap();
    assert!(read(sts, "a.example").await.is_none());
    // From large to small: nothing of the larger one may stay. The borders of rows, too.
    for length in [LARGEST_NOTE, 24 * 1024 + 1, 24 * 1024, 30_000, 1, 0, 70_000] {
        s.put_note(sts, "a.example", value(1, length)).await.unwrap();
        assert!(read(sts, "a.example").await == Some(value(1, length)), "{length}");
    }
    s.put_note(watch, "a.example", value(2, 3)).await.unwrap();
    s.put_note(sts, "a.example.org", value(3, 3)).await.unwrap();
    assert!(read(sts, "a.example").await == Some(value(1, 70_000)), "kinds and keys are apart");
    assert!(read(sts, "a.exampl").await.is_none(), "half a key is none");
    for _ in 0..2 {
        s.remove_note(sts, "a.example").await.unwrap();
        assert!(read(sts, "a.example").await.is_none());
    }
    assert!(read(sts, "a.example.org").await == Some(value(3, 3)));
    assert!(read(watch, "a.example").await == Some(value(2, 3)));
}
async fn notes_are_listed_page_by_page(s: &impl Store) {
    let kept = [("a", 0), ("a!", 60_000), ("a.b", 5), ("b", LARGEST_NOTE), ("c", 24 * 1024)];
    for (key, length) in kept.iter().rev() {
        s.put_note(NoteKind::TlsReport, key, value(1, *length)).await.unwrap();
    }
    for kind in [NoteKind::Sts, NoteKind::Watch] {
        s.put_note(kind, "a", value(2, 9)).await.unwrap();
    }
    for page in [1, 2, 3, 5, 9] {
        let (mut all, mut after) = (Vec::new(), None::<String>);
        loop {
            let notes = s.notes(NoteKind::TlsReport, after.as_deref(), page).await.unwrap();
            assert!(notes.len() <= page);
            let Some((last, _)) = notes.last() else { break };
            after = Some(last.clone());
            all.extend(notes);
        }
        let expected = kept.map(|(key, length)| (key.to_owned(), value(1, length)));
        assert!(all == expected, "pages of {page}");
    }
    assert!(s.notes(NoteKind::TlsReport, None, 0).await.unwrap().is_empty());
    let after = s.notes(NoteKind::TlsReport, Some("a.a"), 1).await.unwrap();
    assert_eq!(after[0].0, "a.b", "a key that is not there is a place, too");
}
async fn a_note_is_bounded(s: &impl Store) {
    let long = "k".repeat(LONGEST_KEY);
    let rows: [(&str, &str, usize, bool); 6] = [
        ("the largest", "k", LARGEST_NOTE, true),
        ("too large", "k", LARGEST_NOTE + 1, false),
        ("the longest key", &long, LARGEST_NOTE, true),
        ("a key too long", &format!("{long}k"), 1, false),
        ("no key", "", 1, false),
        ("a key with NUL", "a\0b", 1, false),
    ];
    for (reason, key, length, taken) in rows {
        let put = s.put_note(NoteKind::Watch, key, value(7, length)).await;
        assert_eq!(put.is_ok(), taken, "{reason}: {put:?}");
        assert!(taken || matches!(put, Err(StoreError::Corrupt(_))), "{reason}: {put:?}");
    }
    let kept = s.note(NoteKind::Watch, "k").await.unwrap();
    assert!(kept == Some(value(7, LARGEST_NOTE)), "a refused value leaves the old one");
}
async fn a_use_of_a_session_never_brings_it_back(s: &impl Store) {
    let one = session(1, Some("a@a.example"), 10);
    s.put_session(&one).await.unwrap();
    for (seen, kept) in [(20, 20), (15, 20)] {
        s.touch_session(&one.id, at(seen)).await.unwrap();
        let expected = Session { seen: at(kept), ..one.clone() };
        assert!(s.session(&one.id).await.unwrap() == Some(expected));
    }
    s.remove_session(&one.id).await.unwrap();
    s.touch_session(&one.id, at(30)).await.unwrap();
    assert!(s.session(&one.id).await.unwrap().is_none());
}
async fn arrivals_wake_a_waiting_worker(s: &impl Store) {
    let arrivals = s.arrivals();
    s.accept(message(1, &["a@a.example"])).await.unwrap();
    arrivals.notified().await;
    let c = claim_one(s, 1).await;
    s.settle(settle(&c, vec![outcome(0, RecipientState::Waiting { next: at(2) })])).await.unwrap();
    arrivals.notified().await;
    let c = claim_one(s, 2).await;
    s.release(c.token).await.unwrap();
    arrivals.notified().await;
}

async fn concurrent_workers_never_share_a_recipient(s: &impl Store) {
    let accepts = (0..60).map(|n| s.accept(message(n, &["a@a.example", "b@b.example"])));
    for accepted in futures_util::future::join_all(accepts).await {
        accepted.unwrap();
    }
    let work = async || {
        let mut done = 0;
        loop {
            let claims = s.claim(ask(1, 7)).await.unwrap().claims;
            if claims.is_empty() {
                return done;
            }
            for c in claims {
                let ends = c.recipients.iter().map(|r| outcome(r.index, delivered())).collect();
                s.settle(settle(&c, ends)).await.unwrap();
                done += c.recipients.len();
            }
        }
    };
    let done = futures_util::future::join_all((0..8).map(|_| work())).await;
    assert_eq!(done.iter().sum::<usize>(), 120);
    assert_eq!(gone(s, 2).await.len(), 60);
}

/// What only the embedded store promises.
mod sled_alone {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt},
    };

    /// Copies a vault as it lies on the disk at this moment: what a power cut would leave, and a
    /// little more.
    pub(super) fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else {
                fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    /// A body that can be opened, of the class given.
    pub(super) fn sealed(n: u8, class: Class, content: &[u8]) -> (NewMessage, Vec<u8>) {
        let mut new = message(n, &["a@a.example", "b@b.example"]);
        new.facts.class = class;
        let header = SealedHeader { facts: new.facts.clone(), recipients: new.recipients.clone() };
        let header = serde_json::to_vec(&header).unwrap();
        let mut out = Vec::new();
        let suite = Suite::default();
        let mut sealer = Sealer::new(suite, &data_key(), id(n), &key(id(n)), &header, &mut out);
        sealer.feed(content, &mut out);
        sealer.finish(b"[]", &mut out);
        (new.size, new.header_len) = (content.len() as u64, header.len() as u32);
        (new, out)
    }
    pub(super) async fn accept(s: &SledStore, n: u8, class: Class, content: &[u8]) {
        let (mut new, out) = sealed(n, class, content);
        new.body = if out.len() <= SMALL {
            NewBody::Small(Bytes::from(out))
        } else {
            let mut writer = s.create(id(n)).await.unwrap();
            writer.write(Bytes::from(out)).await.unwrap();
            NewBody::At(writer.seal().await.unwrap())
        };
        s.accept(new).await.unwrap();
    }
    async fn fill(s: &SledStore) {
        accept(s, 1, Class::Protected, b"small").await;
        accept(s, 2, Class::Protected, &vec![b'x'; 700_000]).await;
        accept(s, 3, Class::Notice, b"notice").await;
        accept(s, 4, Class::Protected, b"sealed for a").await;
        let claims = s.claim(ask(1, 99)).await.unwrap().claims;
        for c in claims.iter().filter(|c| c.message.facts.id == id(4)) {
            let outcome = match c.recipients[0].index {
                0 => granted(0, grant(9, 4, "a@a.example")),
                index => outcome(index, RecipientState::Waiting { next: at(70) }),
            };
            s.settle(settle(c, vec![outcome])).await.unwrap();
        }
        put_account(s, account("a@a.example")).await;
        s.put_session(&session(1, Some("a@a.example"), 5)).await.unwrap();
        s.put_note(NoteKind::Sts, "a.example", value(1, 50_000)).await.unwrap();
    }
    async fn assert_filled(s: &SledStore) {
        let all = s.list(&Filter::default(), None, 99).await.unwrap();
        assert_eq!(all.iter().map(|(r, _)| r.facts.id).collect::<Vec<_>>(), [1, 2, 3, 4].map(id));
        for (n, length) in [(1, 5), (2, 700_000), (3, 6), (4, 12)] {
            let class = if n == 3 { Class::Notice } else { Class::Protected };
            let content = match n {
                1 => b"small".to_vec(),
                2 => vec![b'x'; length],
                3 => b"notice".to_vec(),
                _ => b"sealed for a".to_vec(),
            };
            assert!(body(s, n, 0).await.unwrap() == sealed(n, class, &content).1, "{n}");
        }
        let t = s.totals().await.unwrap();
        assert_eq!((t.active, t.deferred, t.grants, t.vault_messages), (6, 1, 1, 1));
        assert_eq!(t.oldest, Some(at(1)));
        assert_eq!(
            s.claim(ask(69, 99)).await.unwrap().claims.len(),
            6,
            "leases end with the process"
        );
        assert_eq!(next(s).await, Some(at(70)));
        assert!(s.grant_by_token(&TokenHash::from_bytes([9; 32])).await.unwrap().is_some());
        assert!(s.account(&address("a@a.example")).await.unwrap().is_some());
        assert!(s.session(&TokenHash::from_bytes([1; 32])).await.unwrap().is_some());
        let note = s.note(NoteKind::Sts, "a.example").await.unwrap();
        assert!(note == Some(value(1, 50_000)));
        assert_eq!(s.health(), Health::Ok);
    }

    #[tokio::test]
    async fn everything_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        fill(&open(dir.path())).await;
        for _ in 0..2 {
            assert_filled(&open(dir.path())).await;
        }
    }
    #[tokio::test]
    async fn what_was_answered_survives_a_cut() {
        let (dir, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = open(dir.path());
        fill(&store).await;
        copy(dir.path(), cut.path());
        assert_filled(&open(cut.path())).await;
        drop(store);
    }
    #[tokio::test]
    async fn a_start_that_was_cut_off_does_not_damage_the_book() {
        let dir = tempfile::tempdir().unwrap();
        fill(&open(dir.path())).await;
        drop(open(dir.path()));
        // What sled leaves when it is killed, or finds no space, while it opens.
        for (name, content) in [("snap.00000000000F0000", ""), ("snap.7FFFFFFFFFFFFFFF", "half")] {
            let path = dir.path().join(format!("meta/{name}.generating"));
            fs::write(&path, content).unwrap();
            assert_filled(&open(dir.path())).await;
            assert!(!path.exists());
        }
    }
    #[tokio::test]
    async fn a_torn_segment_and_an_unfinished_body_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        fill(&open(dir.path())).await;
        let segment = dir.path().join("body/seg/0000");
        let length = fs::metadata(&segment).unwrap().len();
        fs::OpenOptions::new().write(true).open(&segment).unwrap().set_len(length - 1000).unwrap();
        fs::write(dir.path().join("body/tmp").join(id(9).to_string()), b"half").unwrap();
        let store = open(dir.path());
        assert_filled(&store).await;
        accept(&store, 5, Class::Protected, b"and on").await;
        assert_eq!(fs::read_dir(dir.path().join("body/tmp")).unwrap().count(), 0);
    }
    #[tokio::test]
    async fn nothing_stays_of_what_lay_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let files = || fs::read_dir(dir.path().join("body/tmp")).unwrap().count();
        let mut aside = store.aside(id(1)).await.unwrap();
        aside.write(Bytes::from_static(b"sealed")).await.unwrap();
        assert_eq!(files(), 1);
        drop(aside);
        assert_eq!(files(), 0);
        let mut aside = store.aside(id(2)).await.unwrap();
        aside.write(Bytes::from_static(b"sealed")).await.unwrap();
        // As a process that is killed leaves it.
        let _left = std::mem::ManuallyDrop::new(aside);
        drop(store);
        drop(open(dir.path()));
        assert_eq!(files(), 0);
    }
    #[tokio::test]
    async fn no_other_user_reads_rows_or_bodies() {
        let parent = tempfile::tempdir().unwrap();
        // As an admin may have made it: open to all.
        let dir = parent.path().join("data");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        fill(&open(&dir)).await;
        for name in ["meta", "body", "lock", "FORMAT"] {
            let mode = fs::metadata(dir.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
        }
    }
    #[tokio::test]
    async fn what_was_taken_over_from_the_journal_is_not_taken_over_again() {
        let dir = tempfile::tempdir().unwrap();
        let sheet = dir.path().join("journal/0");
        let store = open(dir.path());
        store.accept(message(1, &["a@a.example"])).await.unwrap();
        // As a crash leaves it.
        let old = fs::read(&sheet).unwrap();
        let claim = claim_one(&store, 1).await;
        store.settle(settle(&claim, vec![outcome(0, delivered())])).await.unwrap();
        let whole = fs::read(&sheet).unwrap();
        drop(store);
        for left in [whole, old] {
            let again = tempfile::tempdir().unwrap();
            copy(dir.path(), again.path());
            // The sheet comes back, all of it or its beginning: the book holds it already.
            fs::write(again.path().join("journal/0"), &left).unwrap();
            let store = open(again.path());
            assert_eq!(state(&store, 1, 0).await, delivered());
        }
    }
    #[tokio::test]
    async fn a_second_process_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let second = SledStore::open(dir.path(), options());
        assert!(matches!(second, Err(OpenError::Locked(_))), "{second:?}");
        let rebuilt = rebuild(dir.path(), &ring(), at(5), &mut |_| {});
        assert!(matches!(rebuilt, Err(RebuildError::Open(OpenError::Locked(_)))), "{rebuilt:?}");
        drop(store);
        open(dir.path());
    }
    #[tokio::test]
    async fn a_lost_or_damaged_book_is_named_and_nothing_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        fill(&open(dir.path())).await;
        let db = dir.path().join("meta/db");
        let whole = fs::read(&db).unwrap();
        fs::write(&db, vec![0x5a; whole.len()]).unwrap();
        let damaged = SledStore::open(dir.path(), options()).unwrap_err();
        assert!(matches!(damaged, OpenError::Damaged(_)), "{damaged:?}");
        assert!(damaged.to_string().contains("restante vault rebuild"));
        for _ in 0..2 {
            // Again: the empty book that looking made must not pass for the lost one.
            let _ = fs::remove_dir_all(dir.path().join("meta"));
            let lost = SledStore::open(dir.path(), options()).unwrap_err();
            assert!(matches!(lost, OpenError::Damaged(_)), "{lost:?}");
            let still = SledStore::open(dir.path(), options()).unwrap_err();
            assert!(matches!(still, OpenError::Damaged(_)), "{still:?}");
        }
        fs::remove_file(dir.path().join("FORMAT")).unwrap();
        let unmarked = SledStore::open(dir.path(), options()).unwrap_err();
        assert!(matches!(unmarked, OpenError::Format(_)), "{unmarked:?}");
        fs::write(dir.path().join("FORMAT"), "restante vault 99\n").unwrap();
        let newer = SledStore::open(dir.path(), options()).unwrap_err();
        assert!(newer.to_string().contains("restante vault 99"), "{newer}");
    }
    #[tokio::test]
    async fn a_rebuild_brings_the_queue_back_from_the_bodies() {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = open(dir.path());
            fill(&store).await;
            accept(&store, 5, Class::Report, b"report").await;
            accept(&store, 6, Class::Protected, b"delivered").await;
            let claims = store.claim(ask(1, 99)).await.unwrap().claims;
            for c in claims.iter().filter(|c| c.message.facts.id == id(6)) {
                let end = outcome(c.recipients[0].index, delivered());
                store.settle(settle(c, vec![end])).await.unwrap();
            }
        }
        let db = dir.path().join("meta/db");
        fs::write(&db, vec![0x5a; 100_000]).unwrap();
        let wrong = KeyRing::generate(Zeroizing::new([8; 32]));
        let refused = rebuild(dir.path(), &wrong, at(5), &mut |_| {});
        assert!(matches!(refused, Err(RebuildError::WrongRing(5))), "{refused:?}");
        assert_eq!(fs::read(&db).unwrap(), vec![0x5a; 100_000], "nothing was touched");

        let mut steps = 0;
        let report = rebuild(dir.path(), &ring(), at(5), &mut |_| steps += 1).unwrap();
        assert_eq!((report.messages, report.recipients, report.own), (4, 8, 1), "{report:?}");
        assert_eq!((report.destroyed, report.unreadable, steps), (1, 0, 6), "{report:?}");
        assert!(report.aside.unwrap().join("db").exists());
        let store = open(dir.path());
        let all = store.list(&Filter::default(), None, 99).await.unwrap();
        assert_eq!(all.iter().map(|(r, _)| r.facts.id).collect::<Vec<_>>(), [1, 2, 4, 5].map(id));
        let (want, sealed) = sealed(2, Class::Protected, &vec![b'x'; 700_000]);
        assert_eq!(all[1].0.facts, want.facts);
        assert_eq!((all[1].0.size, all[1].0.header_len), (want.size, want.header_len));
        assert!(body(&store, 2, 0).await.unwrap() == sealed);
        assert_eq!(store.claim(ask(5, 99)).await.unwrap().claims.len(), 8);
    }
    #[tokio::test]
    async fn a_rebuild_names_what_does_not_open() {
        let dir = tempfile::tempdir().unwrap();
        fill(&open(dir.path())).await;
        let name = id(2).to_string();
        let file = dir.path().join("body/msg").join(&name[name.len() - 2..]).join(&name);
        let mut bytes = fs::read(&file).unwrap();
        bytes[300_000] ^= 1;
        fs::write(&file, bytes).unwrap();
        let report = rebuild(dir.path(), &ring(), at(5), &mut |_| {}).unwrap();
        assert_eq!((report.messages, report.unreadable), (2, 1));
        assert!(report.named[0].0.contains(&name), "{report:?}");
        assert!(file.exists());
    }
    /// Direct mail that has gone holds no disk because some sealed message lies between.
    #[tokio::test]
    async fn segments_waste_no_more_than_they_may() {
        let dir = tempfile::tempdir().unwrap();
        let size = 1 << 20;
        let mixed = Options { segment_size: size, ..options() };
        let store = SledStore::open(dir.path(), mixed.clone()).unwrap();
        let contents: Vec<Vec<u8>> = (1..=240u8).map(|n| vec![n; 6000 + usize::from(n)]).collect();
        for (n, content) in (1..).zip(&contents) {
            accept(&store, n, Class::Protected, content).await;
        }
        for c in store.claim(ask(1, 999)).await.unwrap().claims {
            let (n, index) = (c.message.facts.id.as_bytes()[15], c.recipients[0].index);
            let end = match n % 40 {
                0 => outcome(index, RecipientState::Waiting { next: at(70) }),
                _ => outcome(index, delivered()),
            };
            store.settle(settle(&c, vec![end])).await.unwrap();
        }
        store.checkpoint().await.unwrap();
        let taken = || {
            let files = fs::read_dir(dir.path().join("body/seg")).unwrap();
            files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum::<u64>()
        };
        let before = taken();
        assert!(store.compact().await.unwrap() > 0);
        store.checkpoint().await.unwrap();
        assert_eq!(store.compact().await.unwrap(), 0, "once");
        // The segment that is written now, as far as it is laid out, comes on top.
        assert!(taken() < before && taken() <= size + size / 2 + 200_000, "{before} {}", taken());
        for n in [40u8, 80, 120, 160, 200, 240] {
            let (_, sealed) = sealed(n, Class::Protected, &contents[usize::from(n) - 1]);
            assert!(body(&store, n, 0).await.unwrap() == sealed, "{n}");
        }
        drop(store);
        let store = SledStore::open(dir.path(), mixed).unwrap();
        let (_, sealed) = sealed(120, Class::Protected, &contents[119]);
        assert!(body(&store, 120, 0).await.unwrap() == sealed, "after a restart");
    }
    #[tokio::test]
    async fn deleting_frees_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let big = vec![b'x'; 90_000];
        for n in 1..=12 {
            accept(&store, n, Class::Protected, &big).await;
        }
        accept(&store, 20, Class::Protected, &vec![b'x'; 600_000]).await;
        for c in store.claim(ask(1, 99)).await.unwrap().claims {
            let end = outcome(c.recipients[0].index, delivered());
            store.settle(settle(&c, vec![end])).await.unwrap();
        }
        assert_eq!(gone(&store, 20).await.len(), 13);
        drop(store);
        let segments = fs::read_dir(dir.path().join("body/seg")).unwrap().count();
        assert_eq!(segments, 1, "only the one in use is left");
        let folders = fs::read_dir(dir.path().join("body/msg")).unwrap();
        let files: usize = folders.map(|f| fs::read_dir(f.unwrap().path()).unwrap().count()).sum();
        assert_eq!(files, 0);
    }
    fn short_of_space() -> Options {
        Options { min_free: u64::MAX, min_free_most_percent: 100, ..options() }
    }
    #[tokio::test]
    async fn short_of_space_changes_of_accounts_and_proofs_go_on_with_their_mail() {
        let dir = tempfile::tempdir().unwrap();
        let store = SledStore::open(dir.path(), short_of_space()).unwrap();
        owners_are_told_though_space_is_short(&store).await;
    }
    #[tokio::test]
    async fn a_full_disk_refuses_mail_and_goes_on_delivering() {
        let dir = tempfile::tempdir().unwrap();
        fill(&open(dir.path())).await;
        let store = SledStore::open(dir.path(), short_of_space()).unwrap();
        assert_eq!(store.health(), Health::Full);
        assert!(matches!(store.create(id(9)).await.err(), Some(StoreError::Full)));
        let claims = store.claim(ask(1, 99)).await.unwrap().claims;
        let c = claims.iter().find(|c| c.message.facts.id == id(1)).unwrap();
        let end = outcome(c.recipients[0].index, delivered());
        store.settle(settle(c, vec![end])).await.unwrap();
        assert!(!dir.path().join("reserve").exists());
    }
    #[tokio::test]
    async fn a_reserve_is_laid_aside() {
        let dir = tempfile::tempdir().unwrap();
        drop(SledStore::open(dir.path(), Options { reserve: 1 << 20, ..options() }).unwrap());
        use std::os::unix::fs::MetadataExt;
        let reserve = fs::metadata(dir.path().join("reserve")).unwrap();
        assert_eq!((reserve.len(), reserve.blocks() * 512 >= 1 << 20), (1 << 20, true));
    }
    #[tokio::test]
    async fn no_row_grows_beyond_what_sled_syncs() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let mut new = message(1, &["a@a.example"]);
        new.facts.message_id = Some("x".repeat(40_000));
        assert!(matches!(store.accept(new).await, Err(StoreError::Corrupt(_))));
        assert!(store.message(id(1)).await.unwrap().is_none());
        store.accept(message(1, &["a@a.example"])).await.unwrap();
        let c = claim_one(&store, 1).await;
        let attempt = Attempt {
            at: at(1),
            mx: None,
            address: None,
            tls: None,
            verified: false,
            reply: Some("é".repeat(40_000)),
            trouble: None,
            dns: None,
            error: None,
        };
        let waiting = RecipientState::Waiting { next: at(9) };
        let outcome = Outcome { attempts: vec![attempt], ..outcome(0, waiting) };
        store.settle(settle(&c, vec![outcome])).await.unwrap();
        let kept = store.attempts(id(1), 0).await.unwrap();
        assert_eq!(kept[0].reply.as_ref().unwrap().len(), 512, "a peer's words are cut");
    }
}

/// Readers are answered while a group gathers; it goes all the same, and soon, though one message that
/// was announced never comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_reads_without_a_pause_holds_up_no_message() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(dir.path()));
    let (never, done) = (store.announce(), Arc::new(AtomicBool::new(false)));
    let readers = (0..4).map(|_| {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        tokio::spawn(async move {
            while !done.load(Ordering::SeqCst) {
                store.totals().await.unwrap();
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    for n in 1..=50 {
        let accepted = store.accept(message(n, &["a@a.example"]));
        let accepted = tokio::time::timeout(Duration::from_secs(20), accepted).await;
        accepted.expect("held up by readers").unwrap();
    }
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
    drop(never);
}
