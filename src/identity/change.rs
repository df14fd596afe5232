//! Changes of accounts and sessions, and the mail that tells the owner of a change of credentials: one
//! commit, so that a request that is cancelled in between leaves no half of it. Where another commit
//! was faster, what it left is read and changed in its turn: two right requests at one moment are both
//! right.

use super::{Browser, Identity, IdentityError};
use crate::{
    language::{Text, say},
    mail::notice::ChangeMail,
    seal::{Class, TokenHash},
    store::{
        Account, AccountChange, AuditDetail, AuditEvent, AuditKind, NewMessage, Session, SignedIn,
        StoreError,
    },
};

/// Times that a change is tried anew because another one was faster.
const ROUNDS: usize = 8;

/// An event at an account that its owner is told of by mail, so that a stranger's hand is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A new password, typed by a signed-in browser.
    Password,
    /// A new password, after a mailed code.
    Reset {
        /// True if passkeys were removed with it.
        passkeys: bool,
    },
    /// The second factor is asked for from now on.
    SecondOn,
    /// It no longer is.
    SecondOff,
    /// A recovery code was used in its place.
    Recovered,
    /// Several wrong codes came after a right password.
    SecondGuessed,
    /// A passkey was added.
    PasskeyOn,
    /// A passkey was removed.
    PasskeyOff,
    /// All sessions were ended.
    SignedOut,
    /// A browser signed in that had not done so before.
    NewDevice {
        /// Its name.
        browser: String,
    },
    /// A mailed code was typed in such a browser, which may try the password now.
    Remembered {
        /// Its name.
        browser: String,
    },
    /// An operator took password and second factor away.
    Cleared,
    /// The account has another address now.
    MovedAway,
    /// The account has this address now.
    MovedHere,
    /// Its owner has deleted it.
    Deleted,
}
/// A change of credentials: what the owner is told, and which browser asked for it.
#[derive(Debug)]
pub struct Change<'a> {
    /// What the owner is told.
    pub event: Event,
    /// The browser, if it is not an operator's order.
    pub browser: Option<&'a Browser>,
    /// True if the browser's session goes on.
    pub keep: bool,
}
impl<'a> Change<'a> {
    /// By a signed-in browser, whose session goes on.
    pub const fn by(browser: &'a Browser, event: Event) -> Self {
        Self { event, browser: Some(browser), keep: true }
    }
    /// By a browser whose session ends like all others.
    pub const fn ending(browser: &'a Browser, event: Event) -> Self {
        Self { event, browser: Some(browser), keep: false }
    }
    /// By an operator.
    pub const fn by_operator(event: Event) -> Self {
        Self { event, browser: None, keep: false }
    }
}

/// What is to be committed at an account.
type Made = Result<Option<AccountChange>, IdentityError>;

/// A kept session under the new epoch, if it still is of the old one.
fn under(mut session: Session, old: &Account, new: &Account) -> Option<Session> {
    let named = session.account.take().filter(|named| old.is(named))?;
    session.account = Some(SignedIn { passkey: named.passkey, ..new.signed_in(named.by) });
    Some(session)
}

impl Event {
    /// As the audit trail has it; an operator's order is recorded where it is given.
    const fn audited(&self) -> Option<(AuditKind, Option<AuditDetail>)> {
        match self {
            Self::Password => Some((AuditKind::PasswordChanged, None)),
            Self::Reset { .. } => Some((AuditKind::PasswordReset, Some(AuditDetail::MailedCode))),
            Self::SecondOn => Some((AuditKind::FactorAdded, Some(AuditDetail::Authenticator))),
            Self::SecondOff => Some((AuditKind::FactorRemoved, Some(AuditDetail::Authenticator))),
            Self::PasskeyOn => Some((AuditKind::FactorAdded, Some(AuditDetail::Passkey))),
            Self::PasskeyOff => Some((AuditKind::FactorRemoved, Some(AuditDetail::Passkey))),
            Self::SignedOut => Some((AuditKind::SessionEnded, Some(AuditDetail::Everywhere))),
            Self::NewDevice { .. } => Some((AuditKind::NewDevice, None)),
            Self::Remembered { .. } => Some((AuditKind::NewDevice, Some(AuditDetail::MailedCode))),
            Self::Deleted => Some((AuditKind::AccountRemoved, None)),
            Self::Recovered
            | Self::SecondGuessed
            | Self::Cleared
            | Self::MovedAway
            | Self::MovedHere => None,
        }
    }
    fn sentence(&self) -> Text {
        match self {
            Self::Password => say!("The password was changed. All other devices were signed out."),
            Self::Reset { passkeys: false } => say!(
                "A new password was set with a code from this mailbox. All other devices were \
                 signed out."
            ),
            Self::Reset { passkeys: true } => say!(
                "A new password was set with a code from this mailbox. All other devices were \
                 signed out, and all passkeys were removed."
            ),
            Self::SecondOn => say!("Sign-in now asks for a code from an authenticator app."),
            Self::SecondOff => say!("Sign-in no longer asks for a code from an authenticator app."),
            Self::Recovered => {
                say!("Somebody signed in with a recovery code in place of the authenticator app.")
            }
            Self::SecondGuessed => say!(
                "Somebody typed the right password and then several wrong codes. If it was not \
                 you, change your password."
            ),
            Self::PasskeyOn => say!("A passkey was added: it lets in without the password."),
            Self::PasskeyOff => say!("A passkey was removed: it no longer lets in."),
            Self::SignedOut => say!("All devices were signed out."),
            Self::NewDevice { browser } => say!(
                "Somebody signed in with a browser that was not used here before: {browser}.",
                browser = browser.clone()
            ),
            Self::Remembered { browser } => say!(
                "A code from this mailbox was typed in a browser that was not used here before: \
                 {browser}. The password can be tried there now.",
                browser = browser.clone()
            ),
            Self::Cleared => say!(
                "Our helpdesk has reset the account: the old password and the authenticator app no \
                 longer count, and all devices were signed out. To sign in again, choose “Forgot \
                 your password?” on the sign-in page."
            ),
            Self::MovedAway => say!(
                "Our helpdesk has given the account another address. This one no longer lets in, \
                 and all devices were signed out."
            ),
            Self::MovedHere => say!(
                "Our helpdesk has given your account this address. Sign in with it from now on; \
                 all devices were signed out. Nothing else has changed."
            ),
            Self::Deleted => {
                say!("The account was deleted, with all messages that were kept for it.")
            }
        }
    }
}

impl Identity {
    /// Commits what `make` makes of an account as it is now, again as long as another commit was
    /// faster. `make` also gets the session `kept` as it is now. `None` if the account's identity,
    /// credentials or lock have changed since `account` was read, or if `make` says that there is
    /// nothing to do.
    pub(super) async fn commit(
        &self,
        account: &Account,
        kept: Option<&TokenHash>,
        make: impl Fn(&Account, Option<Session>) -> Made + Send,
    ) -> Result<Option<Account>, IdentityError> {
        for _ in 0..ROUNDS {
            let Some(old) = self.present(account).await? else { return Ok(None) };
            let session = match kept {
                Some(id) => self.people().session(id).await?,
                None => None,
            };
            let Some(change) = make(&old, session)? else { return Ok(None) };
            if let Some(new) = self.write(change).await? {
                return Ok(Some(new));
            }
        }
        Err(StoreError::Busy.into())
    }
    /// Writes a change of an account with its records. `None` if the account is not what it was read
    /// as.
    pub(super) async fn write(
        &self,
        change: AccountChange,
    ) -> Result<Option<Account>, IdentityError> {
        let (new, events) = (change.new.clone(), change.events.clone());
        if !self.people().change_account(change).await? {
            return Ok(None);
        }
        events.iter().for_each(|event| self.inner.audit.committed(event));
        Ok(Some(new))
    }
    /// Changes a session as it is now, again as long as another request was faster: the session as it
    /// is then, and what `change` says of it. `None` if it has ended, or if `change` says so.
    pub(super) async fn change_session<T>(
        &self,
        id: &TokenHash,
        change: impl Fn(&mut Session) -> Option<T> + Send,
    ) -> Result<Option<(Session, T)>, IdentityError> {
        for _ in 0..ROUNDS {
            let Some(old) = self.people().session(id).await? else { return Ok(None) };
            let mut new = old.clone();
            let Some(said) = change(&mut new) else { return Ok(None) };
            if new == old || self.people().change_session(&old, &new).await? {
                return Ok(Some((new, said)));
            }
        }
        Err(StoreError::Busy.into())
    }

    /// Changes an account as long as it is this identity's, without a new epoch and without a word to
    /// its owner: details, counters. `None` where that account is not there any more as it was.
    /// `change` may be asked several times.
    pub async fn update(
        &self,
        account: &Account,
        change: impl Fn(&mut Account) -> bool + Send,
    ) -> Result<Option<Account>, IdentityError> {
        self.commit(account, None, move |old, _| {
            let mut new = old.clone();
            Ok(change(&mut new).then(|| AccountChange::new(Some(old.clone()), new)))
        })
        .await
    }

    /// Changes credentials: in one commit the account, its new epoch, which ends every other session
    /// and every sign-in that is under way, the mail that tells the owner and the record of
    /// it. A session that is kept goes on under the new epoch. `None` as with [`Identity::update`].
    pub async fn change_credentials(
        &self,
        account: &Account,
        asked: Change<'_>,
        change: impl Fn(&mut Account) -> bool + Send,
    ) -> Result<Option<Account>, IdentityError> {
        let browser = asked.browser;
        let kept = browser.and_then(|browser| browser.session.as_ref()).filter(|_| asked.keep);
        let kept = kept.map(|session| &session.id);
        let events = browser.and_then(|browser| self.audited(&asked.event, browser, account));
        let events: Vec<AuditEvent> = events.into_iter().collect();
        self.commit(account, kept, move |old, session| {
            let mut new = old.clone();
            if !change(&mut new) {
                return Ok(None);
            }
            self.next_epoch(&mut new);
            let session = session.and_then(|session| under(session, old, &new));
            // Signed out meanwhile: it changes nothing any more.
            if kept.is_some() && session.is_none() {
                return Ok(None);
            }
            let mail = vec![self.told(&new, &asked.event)?];
            let events = events.clone();
            Ok(Some(AccountChange {
                session,
                mail,
                events,
                ..AccountChange::new(Some(old.clone()), new)
            }))
        })
        .await
    }
    /// The record of an event.
    pub(super) fn audited(
        &self,
        event: &Event,
        browser: &Browser,
        account: &Account,
    ) -> Option<AuditEvent> {
        let (kind, detail) = event.audited()?;
        let event = self.event(kind, browser, Some(&account.address));
        Some(AuditEvent { detail, ..event })
    }

    /// Locks an account, which ends its sessions, or opens it again; an operator's act, of which the
    /// owner hears on the telephone. `None` if it is so already.
    pub async fn set_locked(
        &self,
        account: &Account,
        locked: bool,
    ) -> Result<Option<Account>, IdentityError> {
        self.update(account, |account| {
            let changed = account.locked != locked;
            account.locked = locked;
            if changed {
                self.next_epoch(account);
            }
            changed
        })
        .await
    }

    /// Every session and every code from before has ended.
    pub(super) fn next_epoch(&self, account: &mut Account) {
        account.epoch = account.epoch.saturating_add(1);
        account.epoch_since = Some(self.now());
    }

    /// The account as it is now, if it is the same identity under the same credentials, and locked or
    /// not as it was: a request that began before that changed changes nothing any more.
    async fn present(&self, account: &Account) -> Result<Option<Account>, StoreError> {
        let present = self.people().account(&account.address).await?;
        let named = |account: &Account| (account.generation, account.epoch, account.locked);
        Ok(present.filter(|present| named(present) == named(account)))
    }

    /// Mail that tells the owner, to go into the commit of what it tells.
    pub(super) fn told(
        &self,
        account: &Account,
        event: &Event,
    ) -> Result<NewMessage, IdentityError> {
        let (id, at) = (self.inner.vault.new_id(), self.now());
        let settings = &self.inner.vault.notices;
        let mail = ChangeMail {
            recipient: &account.address,
            language: account.language.as_deref(),
            what: &event.sentence(),
            at,
            id,
        };
        let text = settings.templates.changed(&settings.head, &mail);
        let text = text.map_err(crate::vault::VaultError::from)?;
        Ok(self.inner.vault.own_mail(id, Class::Notice, &account.address, &text)?)
    }
}
