//! Accounts come into being and end: registration by a notice's link and a code, by a provider, and
//! deletion by the owner.

use super::{
    Asked, Begun, Browser, Change, Event, Identity, IdentityError, SignIn, Way,
    limits::{Kind, Standing, Wait},
    sessions::{remember, secret},
};
use crate::{
    language::Language,
    mail::{Address, GrantId},
    seal::LinkToken,
    store::{
        Account, AccountChange, AccountMove, Assurance, AuditDetail, AuditEvent, AuditKind, Grant,
        GrantKind, GrantState, Moved, Purpose, SignedBy, SignedIn, StoreError,
    },
};
use jiff::Timestamp;
use std::fmt;
use std::sync::{Arc, atomic::Ordering};
use zeroize::Zeroizing;

/// Grants looked at for one that waits.
const LOOKED_AT: usize = 100;
/// Grants ended, and accounts looked at, in one piece.
const PIECE: usize = 500;

/// Whose a grant is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// An account's.
    By(Box<Account>),
    /// The mailbox has no account yet; the time is when its former one was removed.
    Open(Option<Timestamp>),
    /// It was for a former holder of the mailbox.
    Former,
}

/// What registration asks for.
pub struct NewAccount {
    /// First name.
    pub first_name: String,
    /// Last name.
    pub last_name: String,
    /// Password, judged by [`super::password::fault_of`].
    pub password: Zeroizing<String>,
    /// Language that was chosen for the pages, if any.
    pub language: Option<String>,
}
impl fmt::Debug for NewAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewAccount(..)")
    }
}

/// A mailbox that a provider vouches for, and whose it says that it is.
#[derive(Debug, Clone)]
pub struct Vouched {
    /// The mailbox.
    pub address: Address,
    /// First name, for a new account.
    pub first_name: String,
    /// Last name, for a new account.
    pub last_name: String,
}
/// What became of a sign-in by a provider.
#[derive(Debug)]
pub enum ByProvider {
    /// The mailbox has an account, or has one now.
    Entered(SignIn),
    /// Its account is locked.
    Locked,
    /// It has no account, and no message waits for it.
    Nothing,
}

/// Whether a grant still opens.
fn live(grant: &Grant, now: Timestamp) -> bool {
    grant.state == GrantState::Live && now < grant.expires
}

impl Identity {
    /// Whose a grant is.
    pub async fn holder(&self, grant: &Grant) -> Result<Held, StoreError> {
        if let Some(account) = self.people().account(grant.mailbox()).await? {
            return Ok(if account.holds(grant) {
                Held::By(Box::new(account))
            } else {
                Held::Former
            });
        }
        let since = self.people().vacated(grant.mailbox()).await?;
        let held = since.is_none_or(|since| grant.sealed > since);
        Ok(if held { Held::Open(since) } else { Held::Former })
    }

    /// Registers the mailbox of a grant whose link led here: mails the code that completes it. No
    /// account is written before the mailbox has proved itself.
    pub async fn register(
        &self,
        browser: &Browser,
        grant: &Grant,
        form: NewAccount,
        language: &Arc<Language>,
    ) -> Result<Asked, IdentityError> {
        let since = match self.holder(grant).await? {
            Held::Open(since) if live(grant, self.now()) => since,
            Held::Open(_) | Held::Former => return Ok(Asked::Gone),
            Held::By(_) => return Ok(Asked::Registered),
        };
        if let Err(Wait(wait)) = self.charge_mail(browser, grant.mailbox(), Some(grant.id)).await? {
            return Ok(Asked::Wait(wait));
        }
        let account = Account {
            first_name: form.first_name.trim().to_owned(),
            last_name: form.last_name.trim().to_owned(),
            password: self.inner.passwords.hash(form.password).await?,
            since,
            language: form.language,
            ..Account::new(grant.mailbox().clone(), rand::random(), self.now())
        };
        self.mail_registration(browser, grant, account, language).await
    }
    /// Another code for a form of registration that was filled in: as long as the link that led there
    /// would still lead there.
    pub(super) async fn register_again(
        &self,
        browser: &Browser,
        account: &Account,
        (wants, language): (Option<GrantId>, &Arc<Language>),
    ) -> Result<Asked, IdentityError> {
        let grant = match wants {
            Some(id) => self.people().grant(id).await?,
            None => None,
        };
        let now = self.now();
        let mine = |grant: &Grant| live(grant, now) && account.holds(grant);
        let Some(grant) = grant.filter(mine) else { return Ok(Asked::Gone) };
        match self.holder(&grant).await? {
            Held::Former => return Ok(Asked::Gone),
            // Another browser was faster; that account stands.
            Held::By(_) => return Ok(Asked::Registered),
            Held::Open(_) => {}
        }
        if let Err(Wait(wait)) = self.charge_mail(browser, &account.address, wants).await? {
            return Ok(Asked::Wait(wait));
        }
        self.mail_registration(browser, &grant, account.clone(), language).await
    }
    async fn mail_registration(
        &self,
        browser: &Browser,
        grant: &Grant,
        account: Account,
        language: &Language,
    ) -> Result<Asked, IdentityError> {
        let mut fresh = self.fresh(browser);
        fresh.session.wants = Some(grant.id);
        let code = self.await_code(&mut fresh.session, account, Purpose::Register).await?;
        self.mail_code(grant.mailbox(), &code, language).await?;
        Ok(Asked::Sent(self.begin(fresh, browser).await?))
    }
    /// The mailbox has proved itself: the account comes into being and is signed in, in one commit.
    pub(super) async fn admit(
        &self,
        browser: &Browser,
        account: Account,
        wants: Option<GrantId>,
    ) -> Result<SignIn, IdentityError> {
        let rooted = Some(self.now());
        // The code may have been read on its way: what it opens waits for a further proof.
        let doubted = self.in_doubt(&account.address).await?;
        let assurance = if doubted { Assurance::Doubted } else { Assurance::Mailbox };
        let account = Account { rooted, assurance, ..account };
        let domain = account.address.domain().clone();
        let way = Way::new(SignedBy::NewPassword, wants);
        match self.register_as(browser, account, way).await? {
            Some(begun) => {
                tracing::info!(%domain, "portal: an account was registered");
                Ok(SignIn::In(begun))
            }
            // Another browser was faster; that account stands.
            None => Ok(SignIn::Wrong),
        }
    }

    /// Signs in at the account of a mailbox that a provider vouches for, or makes one and signs it in
    /// if a message waits there. A new account has no password; a reset gives it one.
    pub async fn sign_in_by_provider(
        &self,
        browser: &Browser,
        person: Vouched,
        wants: Option<GrantId>,
    ) -> Result<ByProvider, IdentityError> {
        let brake = self.inner.limits.begin(Kind::Proof, None, Standing::Stranger, browser.client);
        let attempt = match brake {
            Ok(attempt) => attempt,
            Err(Wait(wait)) => {
                let whose = (browser, Some(&person.address));
                self.failed(AuditKind::SignInLocked, whose, Some(AuditDetail::Provider)).await;
                return Ok(ByProvider::Entered(SignIn::Wait(wait)));
            }
        };
        let (address, way) = (person.address.clone(), Way::new(SignedBy::Oidc, wants));
        let entered = self.entered_by_provider(browser, person, way).await?;
        let refused = match &entered {
            ByProvider::Entered(SignIn::Wrong) => Some(None),
            ByProvider::Entered(SignIn::In(_) | SignIn::Second(_) | SignIn::Wait(_)) => None,
            ByProvider::Locked => Some(Some(AuditDetail::Locked)),
            ByProvider::Nothing => Some(Some(AuditDetail::NoAccount)),
        };
        match refused {
            Some(detail) => {
                attempt.fail();
                self.failed(AuditKind::OidcRefused, (browser, Some(&address)), detail).await;
            }
            None => attempt.succeed(),
        }
        Ok(entered)
    }
    async fn entered_by_provider(
        &self,
        browser: &Browser,
        person: Vouched,
        way: Way,
    ) -> Result<ByProvider, IdentityError> {
        let (people, address) = (self.people(), person.address.clone());
        let mut account = people.account(&address).await?;
        if account.is_none() {
            let since = people.vacated(&address).await?;
            let grants = people.grants(Some(&address), None, LOOKED_AT).await?;
            let held = |grant: &Grant| since.is_none_or(|since| grant.sealed > since);
            let now = self.now();
            if !grants.iter().any(|grant| live(grant, now) && held(grant)) {
                return Ok(ByProvider::Nothing);
            }
            let new = Account {
                first_name: person.first_name,
                last_name: person.last_name,
                since,
                ..Account::new(address.clone(), rand::random(), now)
            };
            if let Some(begun) = self.register_as(browser, new, way.clone()).await? {
                tracing::info!(domain = %address.domain(), "portal: an account was registered");
                return Ok(ByProvider::Entered(SignIn::In(begun)));
            }
            // Another browser was faster; that account stands.
            account = people.account(&address).await?;
        }
        match account {
            Some(account) if account.locked => Ok(ByProvider::Locked),
            Some(account) => self.first_shown(browser, account, way).await.map(ByProvider::Entered),
            None => Ok(ByProvider::Nothing),
        }
    }

    /// A browser that has shown the mailbox of an account has a budget of its own there from now on.
    /// The owner is told of one that is new to the account.
    pub(super) async fn remember(
        &self,
        browser: &Browser,
        account: &Account,
        wants: Option<GrantId>,
    ) -> Result<Option<Begun>, IdentityError> {
        let mut fresh = self.fresh(browser);
        fresh.session.wants = wants;
        let device = LinkToken::from_random(secret());
        let event = Event::Remembered { browser: browser.described() };
        let made = self.commit(account, None, |old, _| {
            let mut new = old.clone();
            new.devices.retain(|known| Some(known.id) != browser.device);
            let is_new = new.devices.len() == old.devices.len();
            remember(&mut new, &device, self.now());
            let mut change = AccountChange::new(Some(old.clone()), new);
            if is_new {
                change.mail.push(self.told(old, &event)?);
                change.events.extend(self.audited(&event, browser, old));
            }
            change.session = Some(fresh.session.clone());
            change.ends = browser.session.as_ref().map(|session| session.id);
            Ok((!old.locked).then_some(change))
        });
        let done = made.await?.is_some();
        Ok(done.then_some(Begun { session: fresh.token, device: Some(device), wants }))
    }

    /// Deletes an account at its owner's wish: what is kept for it ends with it, and the mailbox is
    /// told. The mail goes first, since afterwards there is no account to tell of.
    pub async fn delete(&self, browser: &Browser) -> Result<bool, IdentityError> {
        // A task of its own: a client that hangs up leaves no half of it.
        let (identity, browser) = (self.clone(), browser.clone());
        let task = tokio::spawn(async move {
            let Some(account) = &browser.account else { return Ok(false) };
            let change = Change::ending(&browser, Event::Deleted);
            let told = identity.change_credentials(account, change, |account| {
                (account.locked, account.deleted) = (true, true);
                true
            });
            match told.await? {
                Some(account) => identity.remove(&account).await,
                None => Ok(false),
            }
        });
        task.await.map_err(|_| IdentityError::Work("an account could not be deleted"))?
    }
    /// Removes an account that its owner has deleted. What fails is left for [`Identity::sweep`].
    async fn remove(&self, account: &Account) -> Result<bool, IdentityError> {
        let removed = async {
            self.end_grants(account).await?;
            Ok(self.people().remove_account(&account.address, self.now()).await?)
        };
        removed.await.inspect_err(|_| self.inner.deleting.store(true, Ordering::Release))
    }
    /// Removes accounts that their owners have deleted, where a crash or an error came between. They are
    /// looked for at the first sweep of a process, and after an error.
    pub(super) async fn finish_deletions(&self) -> Result<(), IdentityError> {
        if !self.inner.deleting.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let found = self.deleted_accounts().await;
        for account in found.inspect_err(|_| self.inner.deleting.store(true, Ordering::Release))? {
            self.remove(&account).await?;
        }
        Ok(())
    }
    async fn deleted_accounts(&self) -> Result<Vec<Account>, StoreError> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let accounts = self.people().accounts(after.as_ref(), PIECE).await?;
            let Some(last) = accounts.last() else { return Ok(found) };
            after = Some(last.address.clone());
            found.extend(accounts.into_iter().filter(|account| account.deleted));
        }
    }
    /// A phrase or a code by text message was typed in a session that is signed in so: the account's
    /// credentials belong to that reader, if they had signed it in, and so does its passkey.
    pub async fn has_proved(
        &self,
        account: &Account,
        named: &SignedIn,
    ) -> Result<(), IdentityError> {
        if !named.by.is_credentials() {
            return Ok(());
        }
        let prove = |account: &mut Account| {
            let key = named.passkey.as_ref();
            let key = account.passkeys.iter_mut().find(|known| key == Some(&known.id));
            let new_key = key.is_some_and(|key| !std::mem::replace(&mut key.proved, true));
            let old = std::mem::replace(&mut account.assurance, Assurance::Proved);
            new_key || old != Assurance::Proved
        };
        self.update(account, prove).await?;
        Ok(())
    }
    /// Gives an account another address, with mail to both mailboxes and these records.
    pub async fn move_account(
        &self,
        account: &Account,
        to: &Address,
        events: Vec<AuditEvent>,
    ) -> Result<Moved, IdentityError> {
        let there = Account { address: to.clone(), ..account.clone() };
        let mail =
            vec![self.told(account, &Event::MovedAway)?, self.told(&there, &Event::MovedHere)?];
        let (account, to, at) = (account.clone(), to.clone(), self.now());
        Ok(self.people().move_account(AccountMove { account, to, at, mail, events }).await?)
    }
    /// Ends everything that is kept for an account, its own copies too: their keys go with the next
    /// sweep.
    pub async fn end_grants(&self, account: &Account) -> Result<(), IdentityError> {
        for kind in [GrantKind::Received, GrantKind::Sent] {
            let mut after = None;
            loop {
                let (people, whose) = (self.people(), &account.address);
                let grants = match kind {
                    GrantKind::Received => people.grants(Some(whose), after, PIECE).await?,
                    GrantKind::Sent => people.sent(whose, after, PIECE).await?,
                };
                let Some(last) = grants.last() else { break };
                after = Some(last.id);
                let own = grants.iter().filter(|grant| account.holds(grant));
                let ids: Vec<_> = own.map(|grant| grant.id).collect();
                self.inner.vault.withdraw(&ids).await?;
            }
        }
        Ok(())
    }
}
