//! Sessions of browsers and the cookies that lead to them: random, kept as hashes only.

use super::{Browser, Event, Identity, IdentityError, limits::Standing};
use crate::{
    mail::{Address, GrantId},
    seal::{LinkToken, TokenHash},
    store::{
        Account, AccountChange, AuditDetail, AuditEvent, AuditKind, Device, Session, SessionFacts,
        SignedBy, SignedIn, StoreError,
    },
};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// A session that was not used for so long has ended.
const IDLE: SignedDuration = SignedDuration::from_mins(60);
/// A session ends after this in any case.
const LONGEST: SignedDuration = SignedDuration::from_hours(12);
/// The second factor must follow the first within this time.
const HALF: SignedDuration = SignedDuration::from_mins(15);
/// `seen` is written at most this often.
const SEEN: SignedDuration = SignedDuration::from_mins(1);
/// How long a proof of the owner's presence (the password, a passkey) stands for changes of factors.
const PROVED: SignedDuration = SignedDuration::from_mins(15);
/// Sessions that were not used for so long are removed: what they held (a registration that was never
/// completed) should not outlive them much.
const KEPT: SignedDuration = SignedDuration::from_hours(24);
/// Sessions looked at in one piece by a sweep, so that mail is not held up.
const PIECE: usize = 500;

/// A session to be kept, with the cookie that leads to it.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) token: LinkToken,
    pub(super) session: Session,
}

/// A session that has begun: the cookies that the browser is to keep from now on.
#[derive(Debug)]
pub struct Begun {
    /// Its cookie.
    pub session: LinkToken,
    /// The device cookie, where the browser is to have a new one.
    pub device: Option<LinkToken>,
    /// The message that the way led to.
    pub wants: Option<GrantId>,
}

/// How an account was proved, and where the way leads.
#[derive(Debug, Clone)]
pub struct Way {
    /// The last factor that was shown.
    pub by: SignedBy,
    /// The credential id of the passkey that was shown.
    pub(super) passkey: Option<String>,
    /// The message that the way began at.
    pub wants: Option<GrantId>,
    /// What the owner is told beside it.
    pub(super) told: Option<Event>,
    /// True if a browser that is new to the account is worth a mail.
    pub(super) tells_of_device: bool,
}
impl Way {
    /// By a factor, on to a message.
    pub const fn new(by: SignedBy, wants: Option<GrantId>) -> Self {
        Self { by, passkey: None, wants, told: None, tells_of_device: true }
    }
}

/// A sign-in that is under way to its commit.
struct Entry<'b> {
    browser: &'b Browser,
    way: Way,
    fresh: Fresh,
    /// The device cookie that the browser gets if it is new to the account.
    device: LinkToken,
}
impl Entry<'_> {
    /// The cookies, once the account is written.
    fn begun(self, account: &Account) -> Begun {
        let id = self.device.hash();
        let is_new = account.devices.iter().any(|device| device.id == id);
        let device = is_new.then_some(self.device);
        Begun { session: self.fresh.token, device, wants: self.way.wants }
    }
}

/// Adds a browser to those that an account knows; beyond their bound the one that was not used for the
/// longest time is forgotten.
pub(super) fn remember(account: &mut Account, device: &LinkToken, now: Timestamp) {
    account.devices.push(Device { id: device.hash(), used: now });
    let surplus = account.devices.len().saturating_sub(Account::DEVICES);
    account.devices.drain(..surplus);
}

/// True if a session has not ended by idleness or age.
pub fn runs(session: &Session, now: Timestamp) -> bool {
    now.duration_since(session.seen) <= IDLE && now.duration_since(session.created) <= LONGEST
}

/// 32 bytes that can't be guessed.
pub(super) fn secret() -> Zeroizing<[u8; 32]> {
    let mut secret = Zeroizing::new([0; 32]);
    rand::fill(secret.as_mut_slice());
    secret
}

impl Identity {
    /// The session behind a cookie, if it still runs, and the account that is signed in with it.
    pub async fn recognise(
        &self,
        cookie: &LinkToken,
    ) -> Result<(Option<Session>, Option<Account>), StoreError> {
        let id = cookie.hash();
        let session = self.people().session(&id).await?;
        let session = session.filter(|session| runs(session, self.now()));
        let account = match session.as_ref().and_then(|session| session.account.as_ref()) {
            Some(_) => self.still_in(&id).await?.map(|(account, _)| account),
            None => None,
        };
        Ok((session, account))
    }
    /// Looks again at a session that long work is done for: it is in use as long as that runs. `None`
    /// if it has ended, or the account is not its own any more.
    pub async fn still_in(
        &self,
        session: &TokenHash,
    ) -> Result<Option<(Account, SessionFacts)>, StoreError> {
        let now = self.now();
        let session = self.people().session(session).await?;
        let Some(session) = session.filter(|session| runs(session, now)) else { return Ok(None) };
        let Some(named) = &session.account else { return Ok(None) };
        let account = self.named(Some(named)).await?;
        if account.is_some() && now.duration_since(session.seen) >= SEEN {
            self.people().touch_session(&session.id, now).await?;
        }
        Ok(account.map(|account| {
            let facts = account.session_facts(named, session.id);
            (account, facts)
        }))
    }
    /// The account that a session names: the same identity, in the same epoch, not locked.
    pub async fn named(&self, named: Option<&SignedIn>) -> Result<Option<Account>, StoreError> {
        let Some(named) = named else { return Ok(None) };
        let account = self.people().account(&named.address).await?;
        Ok(account.filter(|account| account.is(named)))
    }
    /// The account whose first factor was shown a moment ago.
    pub async fn half_in(&self, browser: &Browser) -> Result<Option<Account>, StoreError> {
        let now = self.now();
        let recent = |session: &&Session| now.duration_since(session.created) <= HALF;
        let half = browser.session.as_ref().filter(recent).and_then(|s| s.half.as_ref());
        self.named(half).await
    }
    /// True if the owner showed a moment ago to be present: by the password or a passkey typed for
    /// this, or, where the account has neither, by the sign-in itself.
    pub fn proved(&self, browser: &Browser) -> bool {
        let (Some(session), Some(account)) = (&browser.session, &browser.account) else {
            return false;
        };
        let bare = account.password.is_empty() && account.passkeys.is_empty();
        let at = session.proved.or_else(|| bare.then_some(session.created));
        at.is_some_and(|at| self.now().duration_since(at) <= PROVED)
    }
    /// Notes that the owner has shown to be present. False if the session has ended meanwhile.
    pub(super) async fn note_proof(&self, session: &Session) -> Result<bool, IdentityError> {
        let now = self.now();
        let note = |session: &mut Session| {
            session.proved = Some(now);
            Some(())
        };
        Ok(self.change_session(&session.id, note).await?.is_some())
    }
    /// A session with a cookie of its own, not yet kept.
    pub(super) fn fresh(&self, browser: &Browser) -> Fresh {
        let token = LinkToken::from_random(secret());
        let session = Session {
            agent: browser.agent.clone(),
            client: browser.client,
            ..Session::new(token.hash(), self.now())
        };
        Fresh { token, session }
    }
    /// Keeps a session that is signed in nowhere, in place of the one that the browser had. A new
    /// cookie at each step means that one planted before is worth nothing.
    pub(super) async fn begin(&self, fresh: Fresh, browser: &Browser) -> Result<Begun, StoreError> {
        self.people().put_session(&fresh.session).await?;
        if let Some(old) = &browser.session {
            self.people().remove_session(&old.id).await?;
        }
        Ok(Begun { session: fresh.token, device: None, wants: fresh.session.wants })
    }
    /// Signs in, in one commit with the end of the browser's former session. `shown` makes of the
    /// account as it is now what the factors that were shown leave of it: a code is used up, a
    /// signature counted; false if they do not count any more. `None` then, or if the credentials have
    /// changed since the factors were held against `account`. A browser that is new to the account is
    /// remembered, and its owner told.
    pub(super) async fn sign_in_as(
        &self,
        browser: &Browser,
        account: &Account,
        way: Way,
        shown: impl Fn(&mut Account) -> bool + Send,
    ) -> Result<Option<Begun>, IdentityError> {
        let entry = self.entry(browser, account, way).await?;
        let entering = &entry;
        let made = self.commit(account, None, move |old, _| {
            let mut new = old.clone();
            if old.locked || !shown(&mut new) {
                return Ok(None);
            }
            self.entered(entering, Some(old.clone()), new).map(Some)
        });
        Ok(made.await?.map(|account| entry.begun(&account)))
    }
    /// Writes a new account and signs it in: one commit. `None` if the mailbox has one already.
    pub(super) async fn register_as(
        &self,
        browser: &Browser,
        account: Account,
        way: Way,
    ) -> Result<Option<Begun>, IdentityError> {
        let entry = self.entry(browser, &account, way).await?;
        let made = self.entered(&entry, None, account)?;
        Ok(self.write(made).await?.map(|account| entry.begun(&account)))
    }
    async fn entry<'b>(
        &self,
        browser: &'b Browser,
        account: &Account,
        way: Way,
    ) -> Result<Entry<'b>, IdentityError> {
        let wants = self.own_message(account, way.wants).await?;
        let (fresh, device) = (self.fresh(browser), LinkToken::from_random(secret()));
        Ok(Entry { browser, fresh, device, way: Way { wants, ..way } })
    }
    /// A sign-in at an account, as it is committed; without `old` the account is a new one.
    fn entered(
        &self,
        entry: &Entry<'_>,
        old: Option<Account>,
        mut account: Account,
    ) -> Result<AccountChange, IdentityError> {
        let (browser, way, now) = (entry.browser, &entry.way, self.now());
        let known = account.devices.iter_mut().find(|device| Some(device.id) == browser.device);
        let new_device = known.is_none();
        match known {
            Some(known) => {
                known.used = now;
                account.devices.sort_by_key(|device| device.used);
            }
            None => remember(&mut account, &entry.device, now),
        }
        let mut mail = Vec::new();
        if let Some(event) = &way.told {
            mail.push(self.told(&account, event)?);
        }
        if new_device && old.is_some() && way.tells_of_device {
            let browser = browser.described();
            mail.push(self.told(&account, &Event::NewDevice { browser })?);
        }
        let mut session = entry.fresh.session.clone();
        session.account =
            Some(SignedIn { passkey: way.passkey.clone(), ..account.signed_in(way.by) });
        if matches!(way.by, SignedBy::Password | SignedBy::Passkey) {
            session.proved = Some(now);
        }
        let events = self.events_of(browser, &account, (old.is_none(), way.by, new_device));
        let ends = browser.session.as_ref().map(|session| session.id);
        let session = Some(session);
        Ok(AccountChange { session, ends, mail, events, ..AccountChange::new(old, account) })
    }
    /// The message that the way began at, if it is this account's.
    async fn own_message(
        &self,
        account: &Account,
        wants: Option<GrantId>,
    ) -> Result<Option<GrantId>, StoreError> {
        let Some(id) = wants else { return Ok(None) };
        let grant = self.people().grant(id).await?;
        Ok(grant.filter(|grant| account.holds(grant)).map(|grant| grant.id))
    }
    /// Records of a sign-in.
    fn events_of(
        &self,
        browser: &Browser,
        account: &Account,
        (registered, by, new_device): (bool, SignedBy, bool),
    ) -> Vec<AuditEvent> {
        let detail = match by {
            SignedBy::Code | SignedBy::NewPassword => AuditDetail::MailedCode,
            SignedBy::Password => AuditDetail::Password,
            SignedBy::SecondFactor => AuditDetail::Authenticator,
            SignedBy::Passkey => AuditDetail::Passkey,
            SignedBy::Oidc => AuditDetail::Provider,
        };
        let event = |kind| self.event(kind, browser, Some(&account.address));
        let mut events = vec![event(AuditKind::SignIn).detail(detail)];
        if registered {
            events.insert(0, event(AuditKind::Registered));
        }
        if new_device {
            events.push(event(AuditKind::NewDevice));
        }
        events
    }
    /// Ends a browser's session.
    pub async fn sign_out(&self, browser: &Browser) -> Result<(), StoreError> {
        match &browser.session {
            Some(session) => self.end_session(browser, &session.id).await,
            None => Ok(()),
        }
    }
    /// Ends a session of the browser's account, its own or another one.
    pub async fn end_session(&self, browser: &Browser, id: &TokenHash) -> Result<(), StoreError> {
        self.people().remove_session(id).await?;
        if let Some(account) = &browser.account {
            let event = self.event(AuditKind::SessionEnded, browser, Some(&account.address));
            self.inner.audit.record(event.detail(AuditDetail::SignOut)).await;
        }
        Ok(())
    }
    /// Sessions signed in at an account that still run, the latest first.
    pub async fn sessions_of(&self, account: &Account) -> Result<Vec<Session>, StoreError> {
        let now = self.now();
        let mut sessions = self.people().sessions(&account.address).await?;
        sessions.retain(|s| runs(s, now) && s.account.as_ref().is_some_and(|n| account.is(n)));
        sessions.sort_by_key(|session| std::cmp::Reverse(session.created));
        Ok(sessions)
    }
    /// What a browser is to the owner of a mailbox.
    pub(super) fn standing(
        browser: &Browser,
        account: Option<&Account>,
        link: Option<GrantId>,
    ) -> Standing {
        let device = browser.device.filter(|device| {
            account.is_some_and(|account| account.devices.iter().any(|known| known.id == *device))
        });
        match (device, link) {
            (Some(device), _) => Standing::Device(device),
            (None, Some(link)) => Standing::Link(link),
            (None, None) => Standing::Stranger,
        }
    }
    /// Forgets what is over, again and again, until it is told to stop.
    pub async fn sweep_every(&self, every: Duration, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.sweep().await {
                tracing::error!(%error, "sessions that are over could not be removed");
            }
        }
    }
    /// One round of forgetting: sessions long ended, deletions that were cut off, budgets that are whole
    /// again.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        let now = self.now();
        if let Ok(before) = now.checked_sub(KEPT) {
            let mut after: Option<TokenHash> = None;
            loop {
                after = self.people().expire_sessions(before, after, PIECE).await?;
                if after.is_none() {
                    break;
                }
            }
        }
        if let Err(error) = self.finish_deletions().await {
            tracing::error!(%error, "an account that its owner deleted could not be removed yet");
        }
        self.inner.wrong.sweep(now).await
    }
    /// The account of an address, however its letters are typed.
    pub async fn account(&self, address: &Address) -> Result<Option<Account>, StoreError> {
        self.people().account(address).await
    }
}
