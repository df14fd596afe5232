//! Lines in doubt, second channels, and what a reader must prove before a message opens.

use super::*;
use crate::vault::channel::PHRASES;
use crate::{
    language::{Language, Languages},
    mail::{Pickup, PickupWish},
    store::{
        AccountChange, AuditEvent, AuditKind, AuditStore, Health, Need, NoteKind, NoteStore,
        Passkey, Proof, SessionFacts, SignedBy,
    },
    wire::{Texts, WebError},
};

const NUMBER: &str = "+41795550102";

/// A service that sends texts: keeps them, or fails.
#[derive(Debug, Default)]
struct Telephone {
    sent: Mutex<Vec<(String, String)>>,
    fails: Option<WebError>,
    asked: AtomicUsize,
}
#[async_trait]
impl Texts for Telephone {
    async fn send(&self, to: &str, text: &str) -> Result<(), WebError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if let Some(error) = &self.fails {
            return Err(error.clone());
        }
        self.sent.lock().unwrap().push((to.to_owned(), text.to_owned()));
        Ok(())
    }
}

fn english() -> Arc<Language> {
    Arc::clone(Languages::new("en", &[]).unwrap().usual())
}

fn inside(house: House) -> House {
    let insiders = Insiders {
        domains: vec!["example.org".parse().unwrap()],
        postmaster: address("postmaster@example.org"),
    };
    House { vault: house.vault.telling(insiders), ..house }
}

fn unmet() -> Why {
    let (file, version) = ("partner.toml".to_owned(), String::new());
    let policy = PolicyRef { file, line: 1, level: Level::Secure, version };
    let text = "Level secure can't be met: it does not offer TLS.".to_owned();
    Why { reason: Reason::LevelNotMet, text, policy }
}

/// A message as the door leaves it, with what its sender's field asked for.
async fn wished(house: &House, wish: Option<(Pickup, Option<&str>)>) -> MessageRow {
    let mut facts = facts(&house.vault, Class::Protected, Some(address("doctor@example.org")));
    facts.rule.pickup = wish.map(|(kind, _)| kind).unwrap_or_default();
    let mut index = indexed(&mail(100));
    index.pickup =
        wish.map(|(kind, secret)| PickupWish { kind, secret: secret.map(str::to_owned) });
    let mut deposit = house.vault.deposit(facts, vec![address("ann@stranger.example")]).unwrap();
    deposit.write(&mail(100)).await.unwrap();
    house.accept(deposit.finish(index).await.unwrap().message).await
}

/// Grants it by that channel; the mail that goes out with the grant, opened.
async fn granted_by(house: &House, row: &MessageRow, channel: Channel) -> (Grant, Vec<String>) {
    let to = address("ann@stranger.example");
    let (grant, mail) = house.vault.grant(row, &to, &unmet(), channel).await.unwrap();
    let now = house.vault.clock.now();
    let claims = house.store.claim(Ask { now, max: 9, lease: DAY, room: Room::endless() }).await;
    let claims = claims.unwrap().claims;
    let claim = claims.into_iter().find(|c| c.message.facts.id == row.facts.id).unwrap();
    let outcome = Outcome {
        index: 0,
        state: RecipientState::Granted { at: now, grant: grant.id },
        why: Some(unmet()),
        attempts: Vec::new(),
        first_failed: None,
        warned: false,
        faults: 0,
        grant: Some(grant.clone()),
    };
    let ids: Vec<_> = mail.iter().map(|mail| mail.facts.id).collect();
    let (token, id) = (claim.token, row.facts.id);
    let settle = Settle { token, id, outcomes: vec![outcome], spawn: mail, recall: None };
    house.store.settle(settle).await.unwrap();
    let mut texts = Vec::new();
    for id in ids {
        texts.push(text_of(house, id).await);
    }
    (grant, texts)
}

async fn text_of(house: &House, id: QueueId) -> String {
    let (row, to) = house.store.message(id).await.unwrap().unwrap();
    let bytes = all(house.vault.open_notice(&row, &[]).await.unwrap()).await.unwrap();
    let text = String::from_utf8(bytes).unwrap().replace("=\r\n", "");
    format!("To {}: {:?} {text}", to[0].address, row.facts.class)
}

/// The phrase in a sender's report: it stands alone in its line, indented.
fn phrase_in(report: &str) -> String {
    let line = report.lines().find(|line| line.starts_with("    ")).expect("a phrase");
    line.trim().to_owned()
}

fn doubtful(kind: Pickup) -> Channel {
    let doubt = Some("2026-11-22T11:00:00Z".parse().unwrap());
    Channel { pickup: kind, doubt }
}

async fn answer(house: &House, grant: &Grant, session: SessionFacts) -> Result<Access, Need> {
    let ann = account("ann@stranger.example");
    match house.vault.access(grant.id, &ann, &session).await.unwrap() {
        AccessAnswer::Granted(access) => Ok(access),
        AccessAnswer::Unproved(need) => Err(need),
        other @ (AccessAnswer::Over | AccessAnswer::NotYours) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_doubt_stands_from_the_first_miss_until_a_later_proof() {
    let house = house();
    let domain = "stranger.example".parse().unwrap();
    let vault = &house.vault;
    assert_eq!(vault.line_doubt(&domain).await.unwrap(), None);
    let begun = vault.clock.now();
    let doubt = vault.note_doubt(&domain, &unmet()).await.unwrap();
    assert_eq!((doubt.since, doubt.level), (begun, Level::Secure));
    house.clock.forward(DAY);
    let again = vault.note_doubt(&domain, &unmet()).await.unwrap();
    assert_eq!((again.since, again.last), (begun, vault.clock.now()), "since the first");
    // What was delivered before the last miss proves nothing about now.
    vault.line_proved(&domain, begun + DAY / 2).await.unwrap();
    vault.line_proved(&domain, again.last).await.unwrap();
    assert_eq!(vault.line_doubt(&domain).await.unwrap(), Some(again.clone()));
    vault.line_proved(&"other.example".parse().unwrap(), again.last + DAY).await.unwrap();
    assert!(vault.line_doubt(&domain).await.unwrap().is_some(), "another's line");
    vault.line_proved(&domain, again.last + DAY).await.unwrap();
    assert_eq!(vault.line_doubt(&domain).await.unwrap(), None);
}

#[tokio::test]
async fn a_note_that_does_not_read_is_a_doubt_of_any_age() {
    let house = house();
    let domain: Domain = "stranger.example".parse().unwrap();
    house.store.put_note(NoteKind::Doubt, domain.as_str(), b"{".to_vec()).await.unwrap();
    assert!(house.vault.line_doubt(&domain).await.is_err(), "in doubt, not free of it");
    let doubt = house.vault.note_doubt(&domain, &unmet()).await.unwrap();
    assert_eq!(doubt.since, Timestamp::UNIX_EPOCH, "no account is older");
}

#[tokio::test]
async fn an_operator_sees_every_doubt_and_ends_one() {
    let house = house();
    let domain: Domain = "stranger.example".parse().unwrap();
    let other: Domain = "other.example".parse().unwrap();
    let doubt = house.vault.note_doubt(&domain, &unmet()).await.unwrap();
    house.store.put_note(NoteKind::Doubt, other.as_str(), b"{".to_vec()).await.unwrap();
    let all = house.vault.doubts(None, 9).await.unwrap();
    let expected = [(other.to_string(), None), (domain.to_string(), Some(doubt))];
    assert_eq!(all, expected, "one that does not read too");
    assert_eq!(house.vault.doubts(Some(other.as_str()), 9).await.unwrap(), expected[1..]);
    for domain in [&domain, &other] {
        assert!(house.vault.end_doubt(domain).await.unwrap());
        assert_eq!(house.vault.line_doubt(domain).await.unwrap(), None);
        assert!(!house.vault.end_doubt(domain).await.unwrap(), "there is none");
    }
    assert!(house.vault.doubts(None, 9).await.unwrap().is_empty());
    house.vault.note_doubt(&domain, &unmet()).await.unwrap();
    assert!(house.vault.line_doubt(&domain).await.unwrap().is_some(), "it comes back");
}

#[tokio::test]
async fn a_grant_in_doubt_opens_by_the_phrase_that_the_sender_alone_is_told() {
    let house = inside(house());
    let row = wished(&house, None).await;
    let (grant, mail) = granted_by(&house, &row, doubtful(Pickup::Code)).await;
    let [notice, report] = mail.as_slice() else { panic!("{mail:?}") };
    assert!(report.starts_with("To doctor@example.org: Report"), "{report}");
    let phrase = phrase_in(report);
    assert_eq!(phrase.split(' ').count(), 5, "{phrase}");
    assert!(notice.starts_with("To ann@stranger.example: Notice"), "{notice}");
    assert!(!notice.contains(&phrase) && notice.contains("asked for a phrase"), "{notice}");
    let kept = serde_json::to_string(&grant).unwrap();
    assert!(phrase.split(' ').all(|word| word.len() < 4 || !kept.contains(word)), "{kept}");

    let unknown = SessionFacts::default();
    assert_eq!(answer(&house, &grant, unknown).await.unwrap_err(), Need::Phrase { account: true });
    let ann = account("ann@stranger.example");
    let bob = Account { generation: [2; 16], ..account("ann@stranger.example") };
    let try_as = async |who: &Account, typed: &str| {
        house.vault.prove(grant.id, who, &SessionFacts::default(), (typed, |_| None)).await.unwrap()
    };
    assert_eq!(try_as(&ann, "no such phrase").await, Tried::Wrong { left: 9 });
    let spoken = phrase.to_uppercase().replace(' ', " - ");
    assert_eq!(try_as(&ann, &spoken).await, Tried::Proved, "however it is typed");
    assert!(answer(&house, &grant, unknown).await.is_ok());
    // Another identity of the mailbox has proved nothing.
    let other = house.vault.access(grant.id, &bob, &unknown).await.unwrap();
    assert!(matches!(other, AccessAnswer::Unproved(_)), "{other:?}");
}

/// A flood of messages whose line is in doubt: those beyond the bound wait in the queue, where they
/// hold neither a worker nor memory, and the next is taken once there is room.
#[tokio::test]
async fn phrases_are_made_for_so_many_grants_at_a_time() {
    let house = inside(house());
    let row = wished(&house, None).await;
    let to = address("ann@stranger.example");
    let why = unmet();
    let grant = || house.vault.grant(&row, &to, &why, doubtful(Pickup::Code));
    let flood = (0..PHRASES * 2).map(|_| grant());
    let granted = futures_util::future::join_all(flood).await;
    let busy = granted.iter().filter(|granted| matches!(granted, Err(VaultError::Busy))).count();
    let made = granted.iter().filter(|granted| granted.is_ok()).count();
    assert!(busy > 0 && made >= PHRASES, "{made} were made, {busy} are to come again");
    assert_eq!(busy + made, PHRASES * 2);
    grant().await.unwrap();
}

#[tokio::test]
async fn an_account_from_before_the_doubt_reads_as_always() {
    let house = inside(house());
    let row = wished(&house, None).await;
    let (grant, _) = granted_by(&house, &row, doubtful(Pickup::Code)).await;
    let since: Timestamp = "2026-11-22T11:00:00Z".parse().unwrap();
    for (by, rooted, opens) in [
        (SignedBy::Password, since - DAY, true),
        (SignedBy::Oidc, since - DAY, false),
        (SignedBy::Code, since - DAY, false),
        (SignedBy::Password, since, false),
    ] {
        let session = SessionFacts { by, rooted: Some(rooted), ..SessionFacts::default() };
        assert_eq!(answer(&house, &grant, session).await.is_ok(), opens, "{by:?}");
    }
}

#[tokio::test]
async fn ten_wrong_phrases_lock_the_grant_and_tell_the_sender_once() {
    let house = inside(house());
    let row = wished(&house, Some((Pickup::Phrase, Some("bluestepsseven")))).await;
    let channel = Channel { pickup: Pickup::Phrase, doubt: None };
    let (grant, mail) = granted_by(&house, &row, channel).await;
    assert_eq!(mail.len(), 1, "who gave the phrase knows it");
    assert!(!mail[0].contains("bluesteps"), "{}", mail[0]);
    let ann = account("ann@stranger.example");
    // At the same time as well as one after the other.
    let tries = (0..20).map(|n| {
        let (vault, ann) = (house.vault.clone(), ann.clone());
        async move {
            vault
                .prove(
                    grant.id,
                    &ann,
                    &SessionFacts::default(),
                    (&format!("guess number {n}"), |_| None),
                )
                .await
                .unwrap()
        }
    });
    let tried = futures_util::future::join_all(tries).await;
    let wrong = tried.iter().filter(|t| matches!(t, Tried::Wrong { .. })).count();
    let locked = tried.iter().filter(|t| **t == Tried::Locked).count();
    let locks = tried.iter().filter(|t| **t == Tried::Locks).count();
    assert_eq!((wrong, locks, locked), (9, 1, 10), "ten tries in all: {tried:?}");
    let right = house
        .vault
        .prove(grant.id, &ann, &SessionFacts::default(), ("blue steps seven", |_| None))
        .await
        .unwrap();
    assert_eq!(right, Tried::Locked, "the right one comes too late");
    let session = SessionFacts::default();
    assert_eq!(answer(&house, &grant, session).await.unwrap_err(), Need::Locked);
    let filter = crate::store::Filter::default();
    let reports = house.store.list(&filter, None, 100).await.unwrap();
    let reports: Vec<_> = reports.iter().filter(|(m, _)| m.facts.class == Class::Report).collect();
    assert_eq!(reports.len(), 1);
    let text = text_of(&house, reports[0].0.facts.id).await;
    assert!(text.starts_with("To doctor@example.org") && text.contains("locked"), "{text}");
}

/// Short of space a store takes no new mail; what follows from a wrong proof is no new mail.
#[tokio::test]
async fn the_wrong_phrase_that_locks_a_grant_brings_report_and_record_in_one_commit() {
    let house = inside(house());
    let row = wished(&house, Some((Pickup::Phrase, Some("bluestepsseven")))).await;
    let channel = Channel { pickup: Pickup::Phrase, doubt: None };
    let (grant, _) = granted_by(&house, &row, channel).await;
    let ann = account("ann@stranger.example");
    house.store.set_health(Health::Full);
    for n in 1..=11 {
        let record = |tried| {
            assert_ne!(tried, Tried::Nothing);
            Some(AuditEvent::new(AuditKind::ProofFailed, house.vault.clock.now()))
        };
        let typed = (&*format!("guess number {n}"), record);
        let tried = house.vault.prove(grant.id, &ann, &SessionFacts::default(), typed).await;
        let expected = match n {
            1..10 => Tried::Wrong { left: 10 - n },
            10 => Tried::Locks,
            _ => Tried::Locked,
        };
        assert_eq!(tried.unwrap(), expected, "{n}");
    }
    let all = house.store.list(&crate::store::Filter::default(), None, 100).await.unwrap();
    let reports = all.iter().filter(|(row, _)| row.facts.class == Class::Report).count();
    assert_eq!(reports, 1, "the sender is told");
    let records = house.store.records(0, 100).await.unwrap();
    assert_eq!(records.len(), 10, "one for each that was judged");
}

#[tokio::test]
async fn a_code_by_text_opens_and_holds_no_link() {
    let telephone = Arc::new(Telephone::default());
    let house = inside(house());
    let house = House { vault: house.vault.texting(Some(telephone.clone())), ..house };
    let row = wished(&house, Some((Pickup::Sms, Some(NUMBER)))).await;
    let channel = Channel { pickup: Pickup::Sms, doubt: None };
    let (grant, mail) = granted_by(&house, &row, channel).await;
    assert!(!serde_json::to_string(&grant).unwrap().contains("4179"), "the number stays sealed");
    assert!(mail.len() == 1 && mail[0].contains("text message") && !mail[0].contains("4179"));
    let (ann, session) = (account("ann@stranger.example"), SessionFacts::default());
    assert_eq!(answer(&house, &grant, session).await.unwrap_err(), Need::Text);
    let english = &english();
    let ask = async || house.vault.send_text_code(grant.id, &ann, english).await.unwrap();
    let code = || {
        let (to, text) = telephone.sent.lock().unwrap().last().cloned().unwrap();
        assert_eq!(to, NUMBER);
        assert!(!text.contains("/m/") && !text.contains("http"), "{text}");
        let code: String = text.chars().take_while(char::is_ascii_digit).collect();
        assert_eq!(code.len(), 8, "{text}");
        code
    };
    assert_eq!(ask().await, Texting::Sent);
    let first = code();
    assert_eq!(ask().await, Texting::Sent);
    let typed = async |code: &str| {
        house.vault.prove(grant.id, &ann, &SessionFacts::default(), (code, |_| None)).await.unwrap()
    };
    if code() != first {
        assert_eq!(typed(&first).await, Tried::Wrong { left: 9 }, "the older code is void");
    }
    house.clock.forward(SignedDuration::from_mins(15));
    assert!(matches!(typed(&code()).await, Tried::Wrong { .. }), "its time is over");
    assert_eq!(ask().await, Texting::Sent);
    let code = code();
    let (first, last) = code.split_at(4);
    let spaced = format!("{first} {last}");
    assert_eq!(typed(&spaced).await, Tried::Proved);
    assert!(answer(&house, &grant, session).await.is_ok());
}

/// A message that asks for a code by text message, its grant, and what the service was asked for.
async fn texted(
    fails: Option<WebError>,
    told: fn(House) -> House,
) -> (House, Grant, Arc<Telephone>) {
    let telephone = Arc::new(Telephone { fails, ..Telephone::default() });
    let house = told(house());
    let house = House { vault: house.vault.texting(Some(telephone.clone())), ..house };
    let row = wished(&house, Some((Pickup::Sms, Some(NUMBER)))).await;
    let channel = Channel { pickup: Pickup::Sms, doubt: None };
    let (grant, _) = granted_by(&house, &row, channel).await;
    (house, grant, telephone)
}

/// Reports that tell a sender of a text message that failed.
async fn told_of_texts(house: &House) -> Vec<String> {
    let all = house.store.list(&crate::store::Filter::default(), None, 100).await.unwrap();
    let mut told = Vec::new();
    for (message, _) in all.iter().filter(|(m, _)| m.facts.class == Class::Report) {
        told.push(text_of(house, message.facts.id).await);
    }
    told.retain(|text| text.contains("could not be sent"));
    told
}

#[tokio::test]
async fn a_text_that_can_not_be_sent_becomes_a_phrase_that_the_sender_is_told_once() {
    for (error, asked) in [
        (Some(WebError::Status(503)), 2),
        (Some(WebError::TimedOut(10)), 2),
        (Some(WebError::Status(403)), 1),
        (Some(WebError::Tls("unknown issuer".to_owned())), 1),
        (None, 0),
    ] {
        let removed = error.is_none();
        let (mut house, grant, telephone) = texted(error, inside).await;
        if removed {
            house.vault = house.vault.texting(None);
        }
        let ann = account("ann@stranger.example");
        let english = english();
        let ask = || house.vault.send_text_code(grant.id, &ann, &english);
        let (first, second) = futures_util::future::join(ask(), ask()).await;
        let doctor = Texting::Replaced(address("doctor@example.org"));
        for texting in [first.unwrap(), second.unwrap()] {
            assert!(texting == doctor || texting == Texting::Nothing, "{texting:?}");
        }
        assert_eq!(telephone.asked.load(Ordering::SeqCst) % asked.max(1), 0);
        assert_eq!(ask().await.unwrap(), Texting::Nothing, "a phrase is asked for from now on");
        let told = told_of_texts(&house).await;
        let [report] = told.as_slice() else { panic!("once: {told:?}") };
        assert!(report.starts_with("To doctor@example.org: Report"), "{report}");
        assert!(!report.contains("4179"), "{report}");
        let session = SessionFacts::default();
        let need = answer(&house, &grant, session).await.unwrap_err();
        assert_eq!(need, Need::Phrase { account: false });
        let typed =
            house.vault.prove(grant.id, &ann, &session, (&phrase_in(report), |_| None)).await;
        assert_eq!(typed.unwrap(), Tried::Proved);
        assert!(answer(&house, &grant, session).await.is_ok(), "the message was kept");
    }
}

/// A service takes texts to a mistyped number too. Asked for on and on, they end in a phrase.
#[tokio::test]
async fn texts_that_do_not_arrive_become_a_phrase() {
    let (house, grant, telephone) = texted(None, inside).await;
    let ann = account("ann@stranger.example");
    let ask = async || house.vault.send_text_code(grant.id, &ann, &english()).await.unwrap();
    for _ in 0..Proof::TEXTS {
        assert_eq!(ask().await, Texting::Sent);
    }
    assert!(told_of_texts(&house).await.is_empty());
    assert_eq!(ask().await, Texting::Replaced(address("doctor@example.org")));
    assert_eq!(telephone.asked.load(Ordering::SeqCst), usize::from(Proof::TEXTS));
    let told = told_of_texts(&house).await;
    let typed = phrase_in(&told[0]);
    let tried =
        house.vault.prove(grant.id, &ann, &SessionFacts::default(), (&typed, |_| None)).await;
    assert_eq!((tried.unwrap(), told.len()), (Tried::Proved, 1));
}

#[tokio::test]
async fn where_no_address_inside_can_be_told_a_text_is_asked_for_again() {
    let (house, grant, _) = texted(Some(WebError::Status(403)), |house| house).await;
    let ann = account("ann@stranger.example");
    let texting = house.vault.send_text_code(grant.id, &ann, &english()).await.unwrap();
    assert_eq!(texting, Texting::Failed);
    let need = answer(&house, &grant, SessionFacts::default()).await.unwrap_err();
    assert_eq!(need, Need::Text, "there is no phrase that no one knows");
}

#[tokio::test]
async fn what_is_asked_and_can_not_be_had_becomes_a_phrase() {
    let passkey = |proved| Passkey {
        id: String::new(),
        key: String::new(),
        algorithm: -7,
        counter: 0,
        copyable: None,
        name: String::new(),
        created: "2026-11-01T00:00:00Z".parse().unwrap(),
        proved,
        used: None,
    };
    let phrase = Need::Phrase { account: false };
    for (wish, proved, need, why) in [
        ((Pickup::Sms, Some(NUMBER)), None, phrase, "no service sends texts"),
        ((Pickup::Passkey, None), None, phrase, "the first message: there is no passkey"),
        (
            (Pickup::Passkey, None),
            Some(false),
            phrase,
            "whoever registered first may have added it",
        ),
        ((Pickup::Passkey, None), Some(true), Need::Passkey, "from the second message on"),
        ((Pickup::Phrase, None), None, phrase, "a phrase is made"),
    ] {
        let house = inside(house());
        if let Some(proved) = proved {
            let mut ann = account("ann@stranger.example");
            ann.passkeys.push(passkey(proved));
            let change =
                AccountChange::new(house.store.account(&ann.address).await.unwrap(), ann.clone());
            assert!(house.store.change_account(change).await.unwrap());
        }
        let row = wished(&house, Some(wish)).await;
        let (grant, mail) = granted_by(&house, &row, Channel { pickup: wish.0, doubt: None }).await;
        let session = SessionFacts::default();
        assert_eq!(answer(&house, &grant, session).await.unwrap_err(), need, "{why}");
        assert_eq!(
            mail.len(),
            if proved == Some(true) { 1 } else { 2 },
            "{why}: the sender is told"
        );
    }
}

#[tokio::test]
async fn where_nobody_inside_can_be_told_only_an_older_account_opens() {
    let house = house();
    let row = wished(&house, None).await;
    let (grant, mail) = granted_by(&house, &row, doubtful(Pickup::Code)).await;
    assert_eq!(mail.len(), 1);
    let session = SessionFacts::default();
    assert_eq!(answer(&house, &grant, session).await.unwrap_err(), Need::Account);
    let ann = account("ann@stranger.example");
    assert_eq!(
        house.vault.prove(grant.id, &ann, &SessionFacts::default(), ("", |_| None)).await.unwrap(),
        Tried::Nothing
    );
}

#[tokio::test]
async fn what_the_sender_asked_for_is_no_part_of_what_a_reader_gets() {
    let house = inside(house());
    let row = wished(&house, Some((Pickup::Phrase, Some("bluestepsseven")))).await;
    let channel = Channel { pickup: Pickup::Phrase, doubt: None };
    let (grant, _) = granted_by(&house, &row, channel).await;
    let ann = account("ann@stranger.example");
    house
        .vault
        .prove(grant.id, &ann, &SessionFacts::default(), ("blue steps seven", |_| None))
        .await
        .unwrap();
    let access = answer(&house, &grant, SessionFacts::default()).await.unwrap();
    let (_, index) = house.vault.index(&access).await.unwrap();
    assert_eq!(index.pickup, None);
    let sealed = house.store.sealed_bytes(row.facts.id).unwrap();
    assert!(!sealed.windows(9).any(|w| w == b"bluesteps"));
    assert!(!serde_json::to_string(&row.facts).unwrap().contains("bluesteps"));
}
