//! Identity without HTTP: attacks and their arithmetic, changes and what follows from them.

use super::{
    Asked, Browser, Change, CodeState, Confirmed, Event, Held, Identity, IdentitySettings,
    NewAccount, Redeemed, ResetForm, SecondFactorRule, SignIn, Typed, Verified,
    limits::{Kind, Limits, Standing, Wait},
};
use crate::{
    audit::Audit,
    clock::{Clock, ClockGuard},
    language::{Language, Languages},
    mail::{
        Address, QueueId,
        notice::{Letterhead, Templates},
    },
    policy::{Level, PolicyRef, Reason, Why},
    seal::{Class, KeyRing, TokenHash},
    store::{
        Account, Assurance, AuditDetail, AuditKind, Filter, Grant, GrantKind, GrantState, Need,
        Passkey, PeopleStore, Purpose, QueueStore, SecondFactor, Session, SignedBy, SignedIn,
        memory::MemoryStore,
    },
    vault::{NoticeSettings, Vault},
};
use data_encoding::BASE32_NOPAD;
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
};
use totp_rs::{Builder, Totp};
use zeroize::Zeroizing;

const ANN: &str = "ann@clinic.example";
const PASSWORD: &str = "a heron sleeps upright";
const NEW: &str = "a stork stands still";

/// A clock that tests move.
#[derive(Debug)]
struct Hands(Mutex<Timestamp>, AtomicU64);
impl Clock for Hands {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
    fn new_id(&self) -> QueueId {
        let millis = u64::try_from(self.now().as_millisecond()).unwrap();
        let serial = self.1.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut tail: [u8; 10] = rand::random();
        tail[..4].copy_from_slice(&serial[4..]);
        QueueId::new(millis, tail)
    }
}
struct House {
    clock: Arc<Hands>,
    store: MemoryStore,
    vault: Vault,
    identity: Identity,
    language: Arc<Language>,
}
fn house() -> House {
    house_of(SecondFactorRule::Optional, true)
}
fn house_of(second_factor: SecondFactorRule, code_sign_in: bool) -> House {
    let start = "2026-12-01T10:00:00Z".parse().unwrap();
    let clock = Arc::new(Hands(Mutex::new(start), AtomicU64::new(1)));
    let store = MemoryStore::new();
    let head = Letterhead {
        organization: "Example Health".into(),
        support: "helpdesk@example.org".into(),
        from: "secure@example.org".parse().unwrap(),
        subject: None,
    };
    let notices = NoticeSettings {
        head,
        templates: Templates::new(&BTreeMap::new()).unwrap(),
        portal_url: "https://portal.example".into(),
        retention: SignedDuration::from_hours(30 * 24),
        note: None,
    };
    let shared = Arc::new(store.clone());
    let ring = KeyRing::generate(Zeroizing::new(rand::random()));
    let vault = Vault::new(
        shared.clone(),
        shared.clone(),
        shared.clone(),
        shared.clone(),
        ring,
        Arc::new(ClockGuard::new(clock.clone(), None)),
        notices,
    );
    let settings = IdentitySettings {
        organization: "Example Health".into(),
        url: "https://portal.example".into(),
        second_factor,
        code_sign_in,
    };
    let audit = Audit::new(shared.clone(), clock.clone(), SignedDuration::from_hours(24));
    let identity = Identity::new(settings, vault.clone(), shared, audit);
    let language = Arc::clone(Languages::new("en", &[]).unwrap().usual());
    House { clock, store, vault, identity, language }
}
fn address(text: &str) -> Address {
    text.parse().unwrap()
}
fn from(client: &str) -> Browser {
    let client = client.parse::<IpAddr>().unwrap();
    Browser { client: Some(client), agent: "Firefox on Linux".into(), ..Browser::default() }
}
fn typed(password: &str) -> Typed {
    Typed { email: ANN.into(), password: Zeroizing::new(password.into()), link: None }
}

impl House {
    fn forward(&self, by: SignedDuration) {
        *self.clock.0.lock().unwrap() += by;
    }
    /// An account with a password, as registration leaves it.
    async fn account(&self) -> Account {
        let hash = self.identity.inner.passwords.hash(Zeroizing::new(PASSWORD.into())).await;
        let new = Account::new(address(ANN), [7; 16], self.clock.now());
        let account = Account { password: hash.unwrap(), rooted: Some(self.clock.now()), ..new };
        let change = crate::store::AccountChange::new(None, account.clone());
        assert!(self.store.change_account(change).await.unwrap());
        account
    }
    /// Sets an app up, by an owner who signed in a moment ago: the app, and a recovery code. Its next
    /// code is a new one.
    async fn with_app(&self, owner: &Browser) -> (Totp, Zeroizing<String>) {
        assert!(self.identity.begin_second(owner).await.unwrap());
        let owner = Browser { account: Some(self.now().await), ..owner.clone() };
        let enrolment = self.identity.enrolment(&owner).unwrap().unwrap();
        let secret = BASE32_NOPAD.decode(enrolment.secret.as_bytes()).unwrap();
        let app = Builder::new().with_secret(secret.into_boxed_slice()).build().unwrap();
        let confirmed = self.identity.confirm_second(&owner, &self.shown(&app)).await.unwrap();
        let Confirmed::On(mut codes) = confirmed else { panic!("{confirmed:?}") };
        self.forward(SignedDuration::from_secs(30));
        (app, codes.remove(0))
    }
    fn shown(&self, app: &Totp) -> String {
        app.generate(u64::try_from(self.clock.now().as_second()).unwrap()).to_string()
    }
    async fn half_in(&self, client: &str) -> Browser {
        let step = self.identity.sign_in(&from(client), typed(PASSWORD)).await.unwrap();
        assert!(matches!(step, SignIn::Second(_)), "{step:?}");
        self.carried(&from(client), step).await
    }
    /// Adds a passkey whose device is nowhere.
    async fn add_passkey(&self, account: &Account) {
        let passkey = Passkey {
            id: "id".into(),
            key: "key".into(),
            algorithm: -7,
            counter: 0,
            copyable: None,
            name: "phone".into(),
            created: self.clock.now(),
            proved: false,
            used: None,
        };
        let add = |account: &mut Account| {
            account.passkeys = vec![passkey.clone()];
            true
        };
        self.identity.update(account, add).await.unwrap().unwrap();
    }
    async fn now(&self) -> Account {
        self.store.account(&address(ANN)).await.unwrap().unwrap()
    }
    /// The browser after a step, with the cookies that it was given.
    async fn carried(&self, browser: &Browser, step: SignIn) -> Browser {
        let (SignIn::In(begun) | SignIn::Second(begun)) = step else { panic!("{step:?}") };
        self.with(browser, &begun).await
    }
    async fn with(&self, browser: &Browser, begun: &super::Begun) -> Browser {
        let (session, account) = self.identity.recognise(&begun.session).await.unwrap();
        let device = begun.device.as_ref().map(|token| token.hash()).or(browser.device);
        Browser { session, account, device, ..browser.clone() }
    }
    async fn signed_in(&self, client: &str) -> Browser {
        let browser = from(client);
        let step = self.identity.sign_in(&browser, typed(PASSWORD)).await.unwrap();
        self.carried(&browser, step).await
    }
    /// True if a browser's session is signed in now.
    async fn is_in(&self, browser: &Browser) -> bool {
        let id = browser.session.as_ref().unwrap().id;
        self.identity.still_in(&id).await.unwrap().is_some()
    }
    /// Asks for a code, and reads it in the mail.
    async fn code(&self, browser: &Browser, purpose: Purpose) -> (Browser, String) {
        let way = (None, &self.language);
        let asked = self.identity.ask_code(browser, address(ANN), purpose, way).await.unwrap();
        let Asked::Sent(begun) = asked else { panic!("{asked:?}") };
        self.identity.written().await;
        (self.with(browser, &begun).await, self.mailed().await.unwrap())
    }
    /// A message kept for a mailbox.
    async fn granted(&self, recipient: &str) -> Grant {
        let now = self.clock.now();
        let grant = Grant {
            id: crate::mail::GrantId::from_bytes(rand::random()),
            message: QueueId::from_bytes([1; 16]),
            recipient: address(recipient),
            token: TokenHash::from_bytes(rand::random()),
            sealed: now,
            expires: now + SignedDuration::from_hours(24),
            opened: None,
            state: GrantState::Live,
            kind: GrantKind::Received,
            origin: None,
            moved: None,
            proof: None,
        };
        self.store.put_grant(grant.clone());
        grant
    }
    async fn mailed(&self) -> Option<String> {
        self.mailed_to(ANN).await
    }
    async fn mailed_to(&self, mailbox: &str) -> Option<String> {
        let text = self.mails_to(Class::Code, mailbox).await.pop()?;
        let code = |line: &&str| {
            [8, 16].contains(&line.len()) && line.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        text.lines().map(str::trim).find(code).map(str::to_owned)
    }
    /// Mails of our own, the newest last.
    async fn mails(&self, class: Class) -> Vec<String> {
        self.mails_to(class, ANN).await
    }
    async fn mails_to(&self, class: Class, mailbox: &str) -> Vec<String> {
        let filter = Filter { recipient: Some(address(mailbox)), ..Filter::default() };
        let mut all = self.store.list(&filter, None, 10_000).await.unwrap();
        all.retain(|(row, _)| row.facts.class == class);
        all.sort_by_key(|(row, _)| row.facts.id);
        let mut texts = Vec::new();
        for (row, _) in all {
            let mut content = self.vault.open_notice(&row, &[]).await.unwrap();
            let mut text = String::new();
            while let Some(piece) = content.next().await.unwrap() {
                text.push_str(std::str::from_utf8(&piece).unwrap());
            }
            texts.push(text.replace("=\r\n", ""));
        }
        texts
    }
    async fn told(&self, words: &str) -> bool {
        self.mails(Class::Notice).await.iter().any(|text| text.contains(words))
    }
}

/// Sixteen tries at an account that nobody owns, then honest people alone behind one address (a
/// clinic's, or a proxy's): all of them get in, all day.
#[tokio::test]
async fn one_shared_address_is_not_locked_by_wrong_and_right_passwords() {
    let house = house();
    house.account().await;
    for _ in 0..16 {
        let form = Typed { email: "eve@else.example".into(), ..typed("a wrong password") };
        house.identity.sign_in(&from("192.0.2.1"), form).await.unwrap();
    }
    for minute in 0..60 {
        house.forward(SignedDuration::from_mins(6));
        let step = house.identity.sign_in(&from("192.0.2.1"), typed(PASSWORD)).await.unwrap();
        assert!(matches!(step, SignIn::In(_)), "minute {minute}: {step:?}");
    }
}

#[tokio::test]
async fn strangers_who_know_an_address_do_not_lock_its_owner_out() {
    let house = house();
    house.account().await;
    let owner = house.signed_in("192.0.2.1").await;
    house.identity.sign_out(&owner).await.unwrap();
    for n in 0..40 {
        let stranger = from(&format!("198.51.100.{n}"));
        house.identity.sign_in(&stranger, typed("a wrong password")).await.unwrap();
    }
    let stranger = house.identity.sign_in(&from("198.51.100.99"), typed(PASSWORD)).await.unwrap();
    assert!(matches!(stranger, SignIn::Wait(_)), "strangers wait, with the right one too");
    let step = house.identity.sign_in(&owner, typed(PASSWORD)).await.unwrap();
    assert!(matches!(step, SignIn::In(_)), "a browser that signed in before: {step:?}");
    let owner = house.carried(&owner, step).await;
    let proved = house.identity.prove_password(&owner, Zeroizing::new(PASSWORD.into())).await;
    assert!(proved.unwrap().unwrap(), "a signed-in owner changes credentials meanwhile");
    // A new browser of the owner comes in by a code, whatever was tried.
    let (browser, code) = house.code(&from("203.0.113.9"), Purpose::SignIn).await;
    let verified = house.identity.verify(&browser, &code).await.unwrap();
    assert!(matches!(verified, Verified::In(SignIn::In(_))), "{verified:?}");
}

#[tokio::test]
async fn a_sign_in_under_way_does_not_outlive_a_change_of_credentials() {
    let house = house();
    let before = house.account().await;
    // The thief's factors were held against the account as it was before the reset.
    let thief = house.signed_in("198.51.100.1").await;
    let (owner, code) = house.code(&from("192.0.2.1"), Purpose::Reset).await;
    let (other, late) = house.code(&from("198.51.100.2"), Purpose::SignIn).await;
    house.forward(SignedDuration::from_secs(1));
    let form =
        ResetForm { code: code.into(), password: Zeroizing::new(NEW.into()), keep_passkeys: false };
    let step = house.identity.reset(&owner, form).await.unwrap();
    assert!(matches!(step, Ok(SignIn::In(_))), "{step:?}");
    assert!(!house.is_in(&thief).await, "older sessions have ended");
    let way = super::Way::new(SignedBy::Password, None);
    let step = house.identity.first_shown(&from("198.51.100.1"), before, way).await.unwrap();
    assert!(matches!(step, SignIn::Wrong), "what was in flight does not get in");
    // Even a row that was written afterwards is of an epoch that is over.
    let session = thief.session.clone().unwrap();
    house.store.put_session(&session).await.unwrap();
    assert!(!house.is_in(&thief).await);
    assert!(
        !house.identity.note_proof(&Session { proved: None, ..session }).await.unwrap() || {
            !house.is_in(&thief).await
        }
    );
    let verified = house.identity.verify(&other, &late).await.unwrap();
    assert!(matches!(verified, Verified::Wrong(_)), "nor a code that was asked for before");
}

/// The thief's request began before the reset, and its last byte comes after it.
#[tokio::test]
async fn a_request_that_began_before_a_change_of_credentials_changes_none_after_it() {
    let house = house();
    house.account().await;
    let thief = house.signed_in("198.51.100.1").await;
    let password = Zeroizing::new(PASSWORD.to_owned());
    assert!(house.identity.prove_password(&thief, password).await.unwrap().unwrap());
    let session = house.store.session(&thief.session.as_ref().unwrap().id).await.unwrap();
    let thief = Browser { session, ..thief };
    let (owner, code) = house.code(&from("192.0.2.1"), Purpose::Reset).await;
    let form =
        ResetForm { code: code.into(), password: Zeroizing::new(NEW.into()), keep_passkeys: false };
    house.identity.reset(&owner, form).await.unwrap().unwrap();
    let after = house.now().await;
    house.identity.begin_second(&thief).await.unwrap();
    let again = Zeroizing::new("a thief sits in the tree".to_owned());
    assert!(!house.identity.change_password(&thief, again).await.unwrap());
    assert!(!house.identity.delete(&thief).await.unwrap());
    let stale = thief.account.clone().unwrap();
    let change = Change::by(&thief, Event::PasskeyOn);
    let changed = house.identity.change_credentials(&stale, change, |_| true).await.unwrap();
    assert!(changed.is_none(), "nor is a passkey added");
    assert!(house.now().await == after);
}

#[tokio::test]
async fn factors_from_before_a_mailbox_was_proved_end_with_its_first_reset() {
    let house = house();
    let account = house.account().await;
    let (seed, _ring) = house.vault.new_seed(account.generation);
    let planted = |account: &mut Account| {
        account.assurance = Assurance::Doubted;
        account.second =
            Some(SecondFactor { seed: seed.clone(), on: true, step: 0, recovery: vec![] });
        true
    };
    house.identity.update(&account, planted).await.unwrap();
    let (owner, code) = house.code(&from("192.0.2.1"), Purpose::Reset).await;
    let form =
        ResetForm { code: code.into(), password: Zeroizing::new(NEW.into()), keep_passkeys: true };
    let step = house.identity.reset(&owner, form).await.unwrap().unwrap();
    assert!(matches!(step, SignIn::In(_)), "{step:?}");
    let account = house.now().await;
    assert!(account.second_factor().is_none());
    assert_eq!(account.assurance, Assurance::Mailbox);
}

#[tokio::test]
async fn a_spent_budget_of_wrong_codes_is_whole_again_in_days_whatever_is_tried() {
    let house = house();
    house.account().await;
    for n in 0..60 {
        let (browser, code) = house.code(&from(&format!("198.51.100.{n}")), Purpose::SignIn).await;
        let wrong = if code.starts_with('1') { "20000000" } else { "10000000" };
        for _ in 0..8 {
            house.identity.verify(&browser, wrong).await.unwrap();
        }
        house.forward(SignedDuration::from_mins(46));
    }
    house.forward(SignedDuration::from_hours(24));
    let (_, code) = house.code(&from("192.0.2.1"), Purpose::SignIn).await;
    assert_eq!(code.len(), 8, "one has been earned: a short code is mailed again");
}

#[tokio::test]
async fn a_known_browser_is_not_stopped_by_its_neighbours_behind_one_address() {
    let house = house();
    house.account().await;
    let owner = house.signed_in("192.0.2.1").await;
    house.identity.sign_out(&owner).await.unwrap();
    for n in 0..200 {
        let form = Typed { email: format!("eve{n}@else.example"), ..typed("a wrong password") };
        house.identity.sign_in(&from("192.0.2.1"), form).await.unwrap();
    }
    let stranger = house.identity.sign_in(&from("192.0.2.1"), typed(PASSWORD)).await.unwrap();
    assert!(matches!(stranger, SignIn::Wait(_)), "{stranger:?}");
    let step = house.identity.sign_in(&owner, typed(PASSWORD)).await.unwrap();
    assert!(matches!(step, SignIn::In(_)), "{step:?}");
}

#[tokio::test]
async fn a_reset_removes_passkeys_unless_they_are_kept() {
    for keep in [false, true] {
        let house = house();
        let account = house.account().await;
        house.add_passkey(&account).await;
        let prove = |account: &mut Account| {
            account.assurance = Assurance::Proved;
            true
        };
        house.identity.update(&house.now().await, prove).await.unwrap();
        let (owner, code) = house.code(&from("192.0.2.1"), Purpose::Reset).await;
        let password = Zeroizing::new(NEW.to_owned());
        let form = ResetForm { code: code.into(), password, keep_passkeys: keep };
        house.identity.reset(&owner, form).await.unwrap().unwrap();
        let account = house.now().await;
        assert_eq!(account.passkeys.len(), usize::from(keep));
        assert_eq!(account.assurance, Assurance::Mailbox, "the code proves no more");
        assert!(house.told("A new password was set").await);
        assert_eq!(house.told("all passkeys were removed").await, !keep);
    }
}

#[tokio::test]
async fn where_a_second_factor_is_required_a_passkey_is_asked_for_after_password_and_code() {
    let house = house_of(SecondFactorRule::Required, true);
    let account = house.account().await;
    house.add_passkey(&account).await;
    let step = house.identity.sign_in(&from("192.0.2.1"), typed(PASSWORD)).await.unwrap();
    assert!(matches!(step, SignIn::Second(_)), "{step:?}");
    let half = house.carried(&from("192.0.2.1"), step).await;
    assert!(half.account.is_none() && house.identity.half_in(&half).await.unwrap().is_some());
    let guessed = house.identity.second_step(&half, house.now().await, "123456").await.unwrap();
    assert!(matches!(guessed, SignIn::Wrong), "there is no code to guess: {guessed:?}");
    let (browser, code) = house.code(&from("192.0.2.2"), Purpose::SignIn).await;
    let verified = house.identity.verify(&browser, &code).await.unwrap();
    assert!(matches!(verified, Verified::In(SignIn::Second(_))), "{verified:?}");
    let optional = self::house();
    let account = optional.account().await;
    optional.add_passkey(&account).await;
    let step = optional.identity.sign_in(&from("192.0.2.1"), typed(PASSWORD)).await.unwrap();
    assert!(matches!(step, SignIn::In(_)), "each owner decides there: {step:?}");
}

/// Whoever holds the mailbox alone would set up a second factor of his own after it.
#[tokio::test]
async fn where_a_second_factor_is_required_a_reset_removes_none() {
    let house = house_of(SecondFactorRule::Required, true);
    let account = house.account().await;
    house.add_passkey(&account).await;
    let (thief, code) = house.code(&from("198.51.100.1"), Purpose::Reset).await;
    let form =
        ResetForm { code: code.into(), password: Zeroizing::new(NEW.into()), keep_passkeys: false };
    let step = house.identity.reset(&thief, form).await.unwrap().unwrap();
    assert!(matches!(step, SignIn::Second(_)), "{step:?}");
    assert_eq!(house.now().await.passkeys.len(), 1);
    assert!(!house.told("all passkeys were removed").await);
    let step = house.identity.sign_in(&from("198.51.100.1"), typed(NEW)).await.unwrap();
    assert!(matches!(step, SignIn::Second(_)), "nor does the new password alone: {step:?}");
}

/// Two tabs, or a phone and a desk: each reads the account before the other has written it.
#[tokio::test]
async fn two_right_sign_ins_at_one_moment_are_both_right() {
    let house = house();
    house.account().await;
    let (phone, desk) = (from("192.0.2.1"), from("192.0.2.2"));
    let steps = tokio::join!(
        house.identity.sign_in(&phone, typed(PASSWORD)),
        house.identity.sign_in(&desk, typed(PASSWORD))
    );
    let (SignIn::In(first), SignIn::In(second)) = (steps.0.unwrap(), steps.1.unwrap()) else {
        panic!("one of two was refused")
    };
    assert!(house.is_in(&house.with(&phone, &first).await).await);
    assert!(house.is_in(&house.with(&desk, &second).await).await);
    assert_eq!(house.now().await.devices.len(), 2, "neither browser is forgotten");
}

#[tokio::test]
async fn a_right_second_factor_counts_beside_another_sign_in_and_once() {
    let house = house();
    house.account().await;
    let owner = house.signed_in("192.0.2.1").await;
    let (app, recovery) = house.with_app(&owner).await;
    let (first, other) = (house.half_in("192.0.2.2").await, house.half_in("192.0.2.3").await);
    let read_before = house.now().await;
    let code = house.shown(&app);
    let step = house.identity.second_step(&first, read_before.clone(), &recovery).await.unwrap();
    assert!(matches!(step, SignIn::In(_)), "{step:?}");
    let step = house.identity.second_step(&other, read_before.clone(), &code).await.unwrap();
    assert!(matches!(step, SignIn::In(_)), "{step:?}");
    for used in [recovery.as_str(), code.as_str()] {
        let again = house.half_in("192.0.2.4").await;
        let step = house.identity.second_step(&again, read_before.clone(), used).await.unwrap();
        assert!(matches!(step, SignIn::Wrong), "each is good once: {step:?}");
    }
    let account = house.now().await;
    let lock = house.identity.set_locked(&account, true).await.unwrap();
    assert!(lock.is_some());
    house.forward(SignedDuration::from_secs(30));
    let step = house.identity.second_step(&other, account, &house.shown(&app)).await.unwrap();
    assert!(matches!(step, SignIn::Wrong), "a lock meanwhile wins: {step:?}");
}

/// The caller goes away at each point at which a change waits for something: either nothing has
/// happened, or the change, the end of the other sessions and the mail to the owner all have.
#[tokio::test]
async fn a_request_that_is_cut_off_leaves_no_half_of_a_change() {
    for polls in 1..40 {
        let house = house();
        house.account().await;
        let owner = house.signed_in("192.0.2.1").await;
        let thief = house.signed_in("198.51.100.1").await;
        let mut change =
            Box::pin(house.identity.change_password(&owner, Zeroizing::new(NEW.into())));
        let mut polled = 0;
        let ended = std::future::poll_fn(|context| {
            polled += 1;
            match change.as_mut().poll(context) {
                Poll::Ready(_) => Poll::Ready(true),
                Poll::Pending if polled >= polls => Poll::Ready(false),
                Poll::Pending => Poll::Pending,
            }
        });
        let ended = ended.await;
        drop(change);
        let step = house.identity.sign_in(&from("203.0.113.1"), typed(NEW)).await.unwrap();
        let changed = matches!(step, SignIn::In(_));
        assert_eq!(house.told("The password was changed").await, changed, "{polls}");
        assert_eq!(house.is_in(&thief).await, !changed, "{polls}");
        assert!(house.is_in(&owner).await, "{polls}: the owner's own goes on");
        if ended {
            assert!(changed);
            return;
        }
    }
    panic!("the change never came to its end");
}

#[tokio::test]
async fn every_change_of_factors_wants_a_proof_and_ends_other_sessions() {
    let house = house();
    house.account().await;
    let mut owner = house.signed_in("192.0.2.1").await;
    let other = house.signed_in("192.0.2.2").await;
    house.forward(SignedDuration::from_mins(16));
    assert!(!house.identity.proved(&owner), "the sign-in was too long ago");
    assert!(!house.identity.begin_second(&owner).await.unwrap());
    assert!(!house.identity.remove_passkey(&owner, "x").await.unwrap());
    assert!(!house.identity.end_second(&owner).await.unwrap());
    assert!(house.identity.new_passkey_challenge(&owner).is_none());
    let wrong = house.identity.prove_password(&owner, Zeroizing::new("guess".into())).await;
    assert!(!wrong.unwrap().unwrap());
    let right = house.identity.prove_password(&owner, Zeroizing::new(PASSWORD.into())).await;
    assert!(right.unwrap().unwrap());
    owner.session = house.store.session(&owner.session.unwrap().id).await.unwrap();
    assert!(house.identity.proved(&owner));
    assert!(house.identity.begin_second(&owner).await.unwrap());
    assert!(house.is_in(&other).await, "nothing is changed yet");
    house
        .identity
        .change_credentials(&house.now().await, Change::by(&owner, Event::SecondOn), |_| true)
        .await
        .unwrap();
    assert!(house.is_in(&owner).await && !house.is_in(&other).await);
    assert!(house.told("now asks for a code").await);
}

/// What a year of a campaign against one mailbox comes to: 10,000 clients, each with a share of
/// the tries, who ask for a code whenever they may and type whenever it may count.
#[tokio::test]
async fn ten_thousand_clients_have_a_chance_below_one_in_a_hundred_thousand_a_year() {
    let house = house();
    house.account().await;
    let mailbox = address(ANN).mailbox();
    let (mut looked_at, year) = (0_u32, 365 * 2);
    for _ in 0..year {
        // As many as want to, until the budget is spent for this half day.
        for _ in 0..100 {
            let now = house.clock.now();
            let budget = house.identity.inner.wrong.of(&mailbox).await.unwrap();
            if budget.spent(now) {
                break;
            }
            budget.charge(now).await.unwrap();
            looked_at += 1;
        }
        house.forward(SignedDuration::from_hours(12));
    }
    assert!((700..=750).contains(&looked_at), "{looked_at} codes were looked at");
    let chance = f64::from(looked_at) / 1e8;
    assert!(chance < 1e-5, "{chance}");
}

#[tokio::test]
async fn a_mailbox_whose_budget_is_spent_is_mailed_a_code_that_cannot_be_guessed() {
    for purpose in [Purpose::SignIn, Purpose::Reset] {
        let house = house();
        house.account().await;
        let mut short = Vec::new();
        for n in 0..3 {
            let (browser, code) = house.code(&from(&format!("192.0.2.{n}")), purpose).await;
            assert_eq!(code.len(), 8);
            short.push((browser, code));
        }
        let (first, right) = &short[0];
        for (browser, _) in &short[1..] {
            for _ in 0..5 {
                let redeemed = house.identity.redeem(browser, "no code", &[purpose]).await;
                assert!(matches!(redeemed.unwrap(), Redeemed::Wrong(_)));
            }
        }
        let spent = house.identity.redeem(first, right, &[purpose]).await.unwrap();
        assert!(matches!(spent, Redeemed::Wrong(CodeState::Awaited)), "right, and not looked at");
        house.forward(SignedDuration::from_secs(1));
        let (owner, long) = house.code(&from("192.0.2.9"), purpose).await;
        assert_eq!(long.len(), 16, "eighty bits");
        let spaced: String = long.chars().flat_map(|c| [c.to_ascii_uppercase(), ' ']).collect();
        let redeemed = house.identity.redeem(&owner, &spaced, &[purpose]).await.unwrap();
        assert!(matches!(redeemed, Redeemed::Right(_)), "its owner always gets in");
        house.forward(SignedDuration::from_hours(12));
        let (_, code) = house.code(&from("192.0.2.10"), purpose).await;
        assert_eq!(code.len(), 8, "half a day gives one back");
    }
}

#[tokio::test]
async fn wrong_codes_of_registration_count_too() {
    let house = house();
    let grant = house.granted(ANN).await;
    assert_eq!(house.identity.holder(&grant).await.unwrap(), Held::Open(None));
    let form = || NewAccount {
        first_name: "Ann".into(),
        last_name: "Ode".into(),
        password: Zeroizing::new(PASSWORD.into()),
        language: None,
    };
    let browser = from("192.0.2.1");
    let asked = house.identity.register(&browser, &grant, form(), &house.language).await.unwrap();
    let Asked::Sent(begun) = asked else { panic!("{asked:?}") };
    let guesser = house.with(&browser, &begun).await;
    for _ in 0..10 {
        house.identity.verify(&guesser, "no code").await.unwrap();
    }
    house.forward(SignedDuration::from_secs(1));
    let asked = house.identity.register(&browser, &grant, form(), &house.language).await.unwrap();
    let Asked::Sent(begun) = asked else { panic!("{asked:?}") };
    let owner = house.with(&browser, &begun).await;
    let code = house.mailed().await.unwrap();
    assert_eq!(code.len(), 16);
    let verified = house.identity.verify(&owner, &code).await.unwrap();
    assert!(matches!(verified, Verified::In(SignIn::In(_))), "{verified:?}");
    assert_eq!(house.now().await.rooted, Some(house.clock.now()), "by a mailed code alone");
}

#[tokio::test]
async fn while_the_line_is_in_doubt_a_mailed_code_proves_nothing() {
    let house = house();
    let before = house.account().await;
    // Asked for and mailed before the doubt, typed in it.
    let (early, code) = house.code(&from("192.0.2.1"), Purpose::SignIn).await;
    let (forgetful, reset) = house.code(&from("192.0.2.2"), Purpose::Reset).await;
    house.forward(SignedDuration::from_secs(1));
    let domain = before.address.domain().clone();
    let policy = PolicyRef { file: "a".into(), line: 1, level: Level::Secure, version: "v".into() };
    let why = Why { reason: Reason::LevelNotMet, text: "STARTTLS is gone.".into(), policy };
    house.vault.note_doubt(&domain, &why).await.unwrap();
    let verified = house.identity.verify(&early, &code).await.unwrap();
    assert!(matches!(verified, Verified::Wrong(CodeState::Doubt)), "{verified:?}");
    let form = ResetForm {
        code: reset.into(),
        password: Zeroizing::new(NEW.into()),
        keep_passkeys: false,
    };
    let step = house.identity.reset(&forgetful, form).await.unwrap();
    assert!(matches!(step, Err(CodeState::Doubt)), "{step:?}");
    let mailed = house.mails(Class::Code).await.len();
    for purpose in [Purpose::SignIn, Purpose::Reset] {
        let way = (None, &house.language);
        let asked = house.identity.ask_code(&from("192.0.2.3"), address(ANN), purpose, way).await;
        assert!(matches!(asked.unwrap(), Asked::Doubt));
    }
    house.identity.written().await;
    assert_eq!(house.mails(Class::Code).await.len(), mailed, "none is mailed");
    let owner = house.signed_in("192.0.2.4").await;
    assert!(house.is_in(&owner).await, "the password still signs in");
    // A new account may come into being, and opens nothing by itself.
    let (grant, other) = (house.granted("bob@clinic.example").await, "bob@clinic.example");
    let form = NewAccount {
        first_name: "Bob".into(),
        last_name: "Ode".into(),
        password: Zeroizing::new(PASSWORD.into()),
        language: None,
    };
    let browser = from("198.51.100.1");
    let asked = house.identity.register(&browser, &grant, form, &house.language).await.unwrap();
    let Asked::Sent(begun) = asked else { panic!("{asked:?}") };
    let attacker = house.with(&browser, &begun).await;
    let code = house.mailed_to(other).await.unwrap();
    let verified = house.identity.verify(&attacker, &code).await.unwrap();
    assert!(matches!(verified, Verified::In(SignIn::In(_))), "{verified:?}");
    let new = house.store.account(&address(other)).await.unwrap().unwrap();
    let now = async || house.store.account(&address(other)).await.unwrap().unwrap();
    let facts = new.session_facts(&new.signed_in(SignedBy::Code), TokenHash::from_bytes([7; 32]));
    assert_eq!(grant.need(&new, &facts), Need::Account, "an ordinary message too");
    house.identity.has_proved(&new, &new.signed_in(SignedBy::Code)).await.unwrap();
    assert_eq!(now().await, new, "a code's session says nothing of who has the password");
    house.identity.has_proved(&new, &new.signed_in(SignedBy::NewPassword)).await.unwrap();
    assert_eq!(grant.need(&now().await, &facts), Need::Nothing);
    house
        .vault
        .line_proved(&domain, house.clock.now() + SignedDuration::from_secs(1))
        .await
        .unwrap();
    house.code(&from("192.0.2.5"), Purpose::SignIn).await;
}

/// A passkey stands for more than the mailbox once its owner has proved more, and not before.
#[tokio::test]
async fn a_passkey_counts_from_the_proof_of_its_owner_on() {
    let house = house();
    let account = house.account().await;
    let keys = ["before", "used"].map(|id| Passkey {
        id: id.into(),
        key: "key".into(),
        algorithm: -7,
        counter: 0,
        copyable: None,
        name: "phone".into(),
        created: house.clock.now(),
        proved: false,
        used: None,
    });
    let add = |account: &mut Account| {
        account.passkeys = keys.to_vec();
        true
    };
    house.identity.update(&account, add).await.unwrap();
    let facts = async |id: &str| {
        let account = house.now().await;
        let by = account.signed_in(SignedBy::Passkey);
        let named = SignedIn { passkey: Some(id.to_owned()), ..by };
        (account.session_facts(&named, TokenHash::from_bytes([7; 32])).passkey, named)
    };
    let (counts, named) = facts("used").await;
    assert_eq!(counts, None, "it was added by whoever registered first");
    house.identity.has_proved(&house.now().await, &named).await.unwrap();
    assert_eq!(
        facts("used").await.0,
        Some(keys[1].created),
        "it has signed the proof's session in"
    );
    assert_eq!(facts("before").await.0, None, "of that one nothing is known");
    assert_eq!(facts("gone").await.0, None, "a passkey that was removed");
    assert_eq!(house.now().await.assurance, Assurance::Proved);
}

#[tokio::test]
async fn codes_are_read_as_people_type_them() {
    for (text, read) in [
        ("1234 5678", "12345678"),
        ("12-34-56-78", "12345678"),
        ("１２３４５６７８", "12345678"),
        ("١٢٣٤٥٦٧٨", "12345678"),
        ("۱۲۳۴۵۶۷۸", "12345678"),
        ("१२३४५६७८", "12345678"),
        ("\u{200e}12345678\u{200f}", "12345678"),
        ("ABCD-efgh 2345 67", "abcdefgh234567"),
        ("", ""),
    ] {
        assert_eq!(*super::codes::folded(text), read, "{text}");
    }
}

#[tokio::test]
async fn a_new_browser_is_told_of_once_and_then_known() {
    let house = house();
    house.account().await;
    let browser = house.signed_in("192.0.2.1").await;
    assert!(house.told("Firefox on Linux (192.0.2.1)").await);
    let before = house.mails(Class::Notice).await.len();
    house.identity.sign_in(&browser, typed(PASSWORD)).await.unwrap();
    assert_eq!(house.mails(Class::Notice).await.len(), before, "it is known");
    for n in 0..30 {
        house.forward(SignedDuration::from_mins(1));
        house.signed_in(&format!("192.0.2.{n}")).await;
    }
    let account = house.now().await;
    assert_eq!(account.devices.len(), Account::DEVICES, "bounded");
    assert!(house.store.sessions(&account.address).await.unwrap().len() <= Account::SESSIONS);
}

#[tokio::test]
async fn a_house_decides_about_second_factors_and_codes() {
    let house = house_of(SecondFactorRule::Required, false);
    house.account().await;
    let owner = house.signed_in("192.0.2.1").await;
    assert!(house.identity.must_enrol(&owner), "no way further without one");
    let (browser, code) = house.code(&from("192.0.2.2"), Purpose::SignIn).await;
    let verified = house.identity.verify(&browser, &code).await.unwrap();
    let Verified::Known(begun) = verified else { panic!("{verified:?}") };
    let known = house.with(&browser, &begun).await;
    assert!(known.account.is_none(), "a code alone signs in nobody");
    assert!(
        house.told("browser that was not used here before: Firefox on Linux (192.0.2.2)").await
    );
    let last = house.identity.inner.audit.records(0, 100).await.unwrap().pop().unwrap().event;
    assert_eq!((last.kind, last.detail), (AuditKind::NewDevice, Some(AuditDetail::MailedCode)));
    for n in 0..40 {
        let stranger = from(&format!("198.51.100.{n}"));
        house.identity.sign_in(&stranger, typed("a wrong password")).await.unwrap();
    }
    let step = house.identity.sign_in(&known, typed(PASSWORD)).await.unwrap();
    assert!(matches!(step, SignIn::In(_)), "but it opens the way for the password: {step:?}");
}

#[tokio::test]
async fn the_owner_deletes_the_account_with_all_that_is_kept() {
    let house = house();
    house.account().await;
    let owner = house.signed_in("192.0.2.1").await;
    assert!(house.identity.delete(&owner).await.unwrap());
    assert!(house.store.account(&address(ANN)).await.unwrap().is_none());
    assert!(!house.is_in(&owner).await);
    assert!(house.told("The account was deleted").await);
    assert!(!house.identity.delete(&owner).await.unwrap(), "once");
}

#[tokio::test]
async fn a_deletion_that_is_cut_off_is_finished() {
    for polls in 0..3 {
        let house = house();
        house.account().await;
        let owner = house.signed_in("192.0.2.1").await;
        let mut deletion = Box::pin(house.identity.delete(&owner));
        for _ in 0..polls {
            let _ = futures_util::poll!(&mut deletion);
        }
        // The client hangs up.
        drop(deletion);
        while house.store.account(&address(ANN)).await.unwrap().is_some() && polls > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(house.told("The account was deleted").await, polls > 0, "{polls}");
    }
    // Killed after the commit that told the owner.
    let house = house();
    let account = house.account().await;
    let deleted = |account: &mut Account| {
        (account.locked, account.deleted) = (true, true);
        true
    };
    house.identity.update(&account, deleted).await.unwrap();
    house.identity.sweep().await.unwrap();
    assert!(house.store.account(&address(ANN)).await.unwrap().is_none());
}

#[test]
fn budgets_are_charged_by_failures_alone_and_narrow_ones_first() {
    let clock = Arc::new(Hands(
        Mutex::new(Timestamp::from_second(1_800_000_000).unwrap()),
        AtomicU64::new(1),
    ));
    let as_clock: Arc<dyn Clock> = clock.clone();
    let limits = Limits::new(&as_clock);
    let begin = |n: u32, client: &str| {
        let client = client.parse().unwrap();
        limits.begin(Kind::Password, Some(&n.to_string()), Standing::Stranger, Some(client))
    };
    for _ in 0..1_000 {
        begin(1, "192.0.2.1").unwrap().succeed();
    }
    for _ in 0..10 {
        begin(1, "192.0.2.1").unwrap().fail();
    }
    let Wait(wait) = begin(1, "192.0.2.1").unwrap_err();
    assert!((1..=60).contains(&wait.as_secs()), "{wait:?}");
    for n in 2..92 {
        begin(n, "192.0.2.1").unwrap().fail();
    }
    begin(1_000, "192.0.2.1").unwrap_err();
    begin(1_000, "192.0.2.2").unwrap().succeed();
    // One customer's IPv6 networks are one in the end.
    let mut tries = 0;
    for n in 0..100_000_u32 {
        let client = format!("2001:db8:1:{:x}::1", n % 256);
        match begin(10_000 + n, &client) {
            Ok(attempt) => attempt.fail(),
            Err(_) => break,
        }
        tries += 1;
    }
    assert_eq!(tries, 300, "a /56");
    *clock.0.lock().unwrap() += SignedDuration::from_mins(1);
    begin(1, "192.0.2.1").unwrap().succeed();
}

#[test]
fn many_keys_neither_fill_memory_nor_free_the_busiest() {
    let clock = Arc::new(Hands(
        Mutex::new(Timestamp::from_second(1_800_000_000).unwrap()),
        AtomicU64::new(1),
    ));
    let as_clock: Arc<dyn Clock> = clock;
    let limits = Limits::new(&as_clock);
    let begin = |name: &str| limits.begin(Kind::Password, Some(name), Standing::Stranger, None);
    for _ in 0..10 {
        begin("busy").unwrap().fail();
    }
    for n in 0..150_000 {
        begin(&n.to_string()).unwrap().fail();
    }
    begin("busy").unwrap_err();
}
