//! Sign-in: from a stranger by a first factor, and where there is one a second, to a session.

use super::{
    Begun, Browser, Change, CodeState, Delay, Event, Identity, IdentityError, Redeemed, Way,
    limits::{Kind, Wait},
};
use crate::{
    mail::{Address, GrantId},
    store::{Account, Assurance, AuditDetail, AuditKind, Purpose, SignedBy},
};
use std::fmt;
use zeroize::Zeroizing;

/// Where a sign-in stands.
#[derive(Debug)]
pub enum SignIn {
    /// Signed in.
    In(Begun),
    /// The first factor was right; the second must follow.
    Second(Begun),
    /// What was shown is not right, or no more.
    Wrong,
    /// A budget is spent.
    Wait(Delay),
}

/// What is typed to sign in.
pub struct Typed {
    /// The address, as it was typed.
    pub email: String,
    /// The password.
    pub password: Zeroizing<String>,
    /// The grant whose link led here.
    pub link: Option<GrantId>,
}

/// A new password after a mailed code.
pub struct ResetForm {
    /// The code.
    pub code: Zeroizing<String>,
    /// The new password, judged by [`super::password::fault_of`].
    pub password: Zeroizing<String>,
    /// True if passkeys stay: the owner has said so. They stay anyhow where a second factor is
    /// required.
    pub keep_passkeys: bool,
}
impl fmt::Debug for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Typed(..)")
    }
}
impl fmt::Debug for ResetForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResetForm(..)")
    }
}

impl Identity {
    /// Sign-in by address and password. The same work is done where there is no account.
    pub async fn sign_in(&self, browser: &Browser, typed: Typed) -> Result<SignIn, IdentityError> {
        let address: Option<Address> = typed.email.parse().ok();
        let account = match &address {
            Some(address) => self.people().account(address).await?,
            None => None,
        };
        let link = self.link_to(typed.link, address.as_ref()).await?;
        let standing = Self::standing(browser, account.as_ref(), link);
        let mailbox = address.as_ref().map_or_else(|| typed.email.clone(), Address::mailbox);
        let attempt =
            self.inner.limits.begin(Kind::Password, Some(&mailbox), standing, browser.client);
        let attempt = match attempt {
            Ok(attempt) => attempt,
            Err(Wait(wait)) => {
                let whose = (browser, address.as_ref());
                self.failed(AuditKind::SignInLocked, whose, Some(AuditDetail::Password)).await;
                return Ok(SignIn::Wait(wait));
            }
        };
        let known = account.as_ref().map(|account| account.locked);
        let hash = account.as_ref().map(|account| account.password.clone());
        let same = self.inner.passwords.matches(typed.password, hash).await?;
        let Some(account) = account.filter(|account| same && !account.locked) else {
            attempt.fail();
            let detail = match known {
                None => Some(AuditDetail::NoAccount),
                Some(true) => Some(AuditDetail::Locked),
                Some(false) => None,
            };
            self.failed(AuditKind::WrongPassword, (browser, address.as_ref()), detail).await;
            return Ok(SignIn::Wrong);
        };
        let entered =
            self.first_shown(browser, account, Way::new(SignedBy::Password, typed.link)).await?;
        if !matches!(entered, SignIn::Wrong) {
            attempt.succeed();
        }
        Ok(entered)
    }
    /// A link lends its standing to the mailbox that it was mailed to, and to no other.
    pub(super) async fn link_to(
        &self,
        link: Option<GrantId>,
        address: Option<&Address>,
    ) -> Result<Option<GrantId>, IdentityError> {
        let (Some(link), Some(address)) = (link, address) else { return Ok(None) };
        let grant = self.people().grant(link).await?;
        Ok(grant.filter(|grant| grant.mailbox().same_mailbox(address)).map(|grant| grant.id))
    }
    /// The first factor was right, held against `account` as it is given: signed in, or asked for the
    /// second. [`SignIn::Wrong`] if its credentials have changed meanwhile.
    pub async fn first_shown(
        &self,
        browser: &Browser,
        account: Account,
        way: Way,
    ) -> Result<SignIn, IdentityError> {
        if self.asks_second(&account) {
            let mut fresh = self.fresh(browser);
            fresh.session.half = Some(account.signed_in(way.by));
            fresh.session.wants = way.wants;
            return Ok(SignIn::Second(self.begin(fresh, browser).await?));
        }
        let begun = self.sign_in_as(browser, &account, way, |_| true).await?;
        Ok(begun.map_or(SignIn::Wrong, SignIn::In))
    }

    /// A new password with the code that this browser awaits. All sessions end, passkeys go unless
    /// they are kept or a second factor is required, and the mailbox is told: one commit. Then the
    /// sign-in goes on as after a first factor.
    pub async fn reset(
        &self,
        browser: &Browser,
        form: ResetForm,
    ) -> Result<Result<SignIn, CodeState>, IdentityError> {
        let (session, code) = match self.redeem(browser, &form.code, &[Purpose::Reset]).await? {
            Redeemed::Right(right) => *right,
            Redeemed::Wrong(state) => return Ok(Err(state)),
            Redeemed::Wait(wait) => return Ok(Ok(SignIn::Wait(wait))),
            Redeemed::None => return Ok(Ok(SignIn::Wrong)),
        };
        let Some(account) = self.owner_of(&code).await? else {
            return Ok(Err(CodeState::Awaited));
        };
        let hash = self.inner.passwords.hash(form.password).await?;
        let now = self.now();
        let keep = form.keep_passkeys || self.second_required();
        let dropped = !keep && !account.passkeys.is_empty();
        let change = Change::ending(browser, Event::Reset { passkeys: dropped });
        let changed = self.change_credentials(&account, change, |account| {
            account.password.clone_from(&hash);
            account.rooted = Some(now);
            // A reset is refused while the line is in doubt: this code proves the mailbox. Factors from
            // before it prove nothing.
            if std::mem::take(&mut account.assurance) == Assurance::Doubted {
                account.second = None;
                account.passkeys.clear();
            }
            account.devices.clear();
            if dropped {
                account.passkeys.clear();
            }
            !account.locked
        });
        let Some(account) = changed.await? else { return Ok(Ok(SignIn::Wrong)) };
        tracing::info!(domain = %account.address.domain(), "portal: a password was reset");
        // The browser's own session may have ended with the others.
        let browser = Browser { account: None, ..browser.clone() };
        // The mail about the new password says enough.
        let way = Way { tells_of_device: false, ..Way::new(SignedBy::NewPassword, session.wants) };
        self.first_shown(&browser, account, way).await.map(Ok)
    }

    /// A new password of a signed-in owner, who has typed the present one. `None` if it is not the
    /// present one; what is inside says whether the change was made.
    pub async fn change_password(
        &self,
        browser: &Browser,
        password: Zeroizing<String>,
    ) -> Result<bool, IdentityError> {
        let Some(account) = &browser.account else { return Ok(false) };
        let hash = self.inner.passwords.hash(password).await?;
        let change = Change::by(browser, Event::Password);
        let changed = self.change_credentials(account, change, |account| {
            account.password.clone_from(&hash);
            !account.locked
        });
        Ok(changed.await?.is_some())
    }
    /// Whether the present password was typed by a signed-in browser: a session left open must not be
    /// enough to take an account over.
    pub async fn prove_password(
        &self,
        browser: &Browser,
        typed: Zeroizing<String>,
    ) -> Result<Result<bool, Wait>, IdentityError> {
        let (Some(account), Some(session)) = (&browser.account, &browser.session) else {
            return Ok(Ok(false));
        };
        // A signed-in browser has a budget of its own, whatever strangers try meanwhile.
        let standing = super::limits::Standing::Device(session.id);
        let mailbox = account.address.mailbox();
        let attempt =
            self.inner.limits.begin(Kind::Password, Some(&mailbox), standing, browser.client);
        let attempt = match attempt {
            Ok(attempt) => attempt,
            Err(wait) => return Ok(Err(wait)),
        };
        let hash = Some(account.password.clone());
        if !self.inner.passwords.matches(typed, hash).await? {
            attempt.fail();
            let whose = (browser, Some(&account.address));
            self.failed(AuditKind::WrongPassword, whose, None).await;
            return Ok(Ok(false));
        }
        attempt.succeed();
        Ok(Ok(self.note_proof(session).await?))
    }
    /// Ends all sessions of the browser's account, its own too; the owner is told.
    pub async fn sign_out_everywhere(&self, browser: &Browser) -> Result<(), IdentityError> {
        let Some(account) = &browser.account else { return Ok(()) };
        let change = Change::ending(browser, Event::SignedOut);
        self.change_credentials(account, change, |account| {
            account.devices.clear();
            true
        })
        .await?;
        Ok(())
    }
}
