//! The second factor: codes by time (RFC 6238) from an app, and recovery codes for when the app is
//! lost.

use super::{
    Browser, Change, Event, Identity, IdentityError, SignIn, Way,
    limits::{Attempt, Kind, Standing, Wait},
};
use crate::{
    seal::TokenHash,
    store::{Account, AuditDetail, AuditKind, SecondFactor, SignedBy},
};
use data_encoding::BASE32_NOPAD;
use std::fmt;
use totp_rs::{Builder, Secret, Totp};
use zeroize::Zeroizing;

/// Recovery codes of an account.
const RECOVERY: usize = 10;

/// What an app needs to be set up.
pub struct Enrolment {
    /// `otpauth://` URL, for a picture.
    pub url: Zeroizing<String>,
    /// The secret in base32, to be typed.
    pub secret: Zeroizing<String>,
}

/// What became of the first code of an app.
pub enum Confirmed {
    /// The second factor is asked for from now on. Recovery codes, shown this once.
    On(Vec<Zeroizing<String>>),
    /// The code is not right.
    Wrong,
    /// There is nothing to confirm any more.
    Nothing,
}
impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Enrolment(..)")
    }
}
impl fmt::Debug for Confirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On(_) => "On(..)",
            Self::Wrong => "Wrong",
            Self::Nothing => "Nothing",
        })
    }
}

impl Identity {
    fn totp(&self, factor: &SecondFactor, account: &Account) -> Result<Totp, IdentityError> {
        let secret = self.inner.vault.secret_of(&factor.seed, account.generation)?;
        // A colon parts issuer and account in the URL that apps read.
        let plain = |text: &str| text.replace(':', " ");
        Builder::new()
            .with_secret(Secret::new_stack(*secret))
            .with_issuer(Some(plain(&self.inner.settings.organization)))
            .with_account_name(plain(&account.address.to_string()))
            .build()
            .map_err(|_| IdentityError::Work("a second factor could not be set up"))
    }
    /// What an app needs, while the second factor is being set up by an owner who has shown to be
    /// present.
    pub fn enrolment(&self, browser: &Browser) -> Result<Option<Enrolment>, IdentityError> {
        let Some(account) = browser.account.as_ref().filter(|_| self.proved(browser)) else {
            return Ok(None);
        };
        let Some(factor) = account.second.as_ref().filter(|factor| !factor.on) else {
            return Ok(None);
        };
        let totp = self.totp(factor, account)?;
        let broken = |_| IdentityError::Work("a second factor has no URL");
        let url = Zeroizing::new(totp.to_url().map_err(broken)?);
        let secret = Zeroizing::new(BASE32_NOPAD.encode(totp.secret().as_bytes()));
        Ok(Some(Enrolment { url, secret }))
    }
    /// The time step of a code that is right now.
    fn step_of(
        &self,
        factor: &SecondFactor,
        account: &Account,
        typed: &str,
    ) -> Result<Option<u64>, IdentityError> {
        let seconds = u64::try_from(self.now().as_second()).unwrap_or_default();
        Ok(self.totp(factor, account)?.check(typed, seconds))
    }
    /// A code for the second factor of the account whose first was shown.
    pub async fn second_step(
        &self,
        browser: &Browser,
        account: Account,
        typed: &str,
    ) -> Result<SignIn, IdentityError> {
        // An account whose second factor is a passkey has no code to guess at.
        let Some(factor) = account.second_factor() else { return Ok(SignIn::Wrong) };
        let mailbox = account.address.mailbox();
        let standing = Self::standing(browser, Some(&account), None);
        let typed = super::codes::folded(typed);
        let by_app = self.step_of(factor, &account, &typed)?;
        let begun =
            self.inner.limits.begin(Kind::SecondFactor, Some(&mailbox), standing, browser.client);
        // A recovery code of eighty bits can't be guessed: it is looked at also where the budget of
        // an app's codes is spent.
        let attempt = match begun {
            Ok(attempt) => Some(attempt),
            Err(Wait(wait)) if typed.len() < 16 => {
                let whose = (browser, Some(&account.address));
                let detail = Some(AuditDetail::Authenticator);
                self.failed(AuditKind::SignInLocked, whose, detail).await;
                return Ok(SignIn::Wait(wait));
            }
            Err(_) => None,
        };
        let by_app = by_app.filter(|_| attempt.is_some());
        let wants = browser.session.as_ref().and_then(|session| session.wants);
        let told = by_app.is_none().then_some(Event::Recovered);
        let way = Way { told, ..Way::new(SignedBy::SecondFactor, wants) };
        let shown = |account: &mut Account| second_shown(account, by_app, &typed);
        let Some(begun) = self.sign_in_as(browser, &account, way, shown).await? else {
            // A task of its own: a client that hangs up keeps the owner from no word of it.
            let (identity, browser) = (self.clone(), browser.clone());
            let charged = attempt.map(Attempt::fail).is_some();
            let told = tokio::spawn(async move {
                let whose = (&browser, Some(&account.address));
                identity.failed(AuditKind::WrongSecondFactor, whose, None).await;
                if charged {
                    identity.tell_of_guesses(&account, (standing, &browser)).await?;
                }
                Ok(SignIn::Wrong)
            });
            return told.await.map_err(|_| IdentityError::Work("a wrong try could not be told"))?;
        };
        if let Some(attempt) = attempt {
            attempt.succeed();
        }
        Ok(SignIn::In(begun))
    }
    /// The try that spends the budget brings word to the owner: the password is known to a stranger.
    async fn tell_of_guesses(
        &self,
        account: &Account,
        (standing, browser): (Standing, &Browser),
    ) -> Result<(), IdentityError> {
        let mailbox = account.address.mailbox();
        let next = self.inner.limits.begin(Kind::SecondFactor, Some(&mailbox), standing, None);
        match next {
            Ok(attempt) => attempt.succeed(),
            Err(_) => {
                tracing::warn!(client = ?browser.client, "portal: a second factor is guessed at");
                self.tell(account, &Event::SecondGuessed).await?;
            }
        }
        Ok(())
    }
    /// Mails the owner of an event that changes no credentials.
    pub(super) async fn tell(&self, account: &Account, event: &Event) -> Result<(), IdentityError> {
        let mail = self.told(account, event)?;
        Ok(self.inner.vault.queue.accept(mail).await?)
    }

    /// Begins to set a second factor up; it counts once a code from the app has proved it. False
    /// unless the owner has shown to be present.
    pub async fn begin_second(&self, browser: &Browser) -> Result<bool, IdentityError> {
        let Some(account) = browser.account.as_ref().filter(|_| self.proved(browser)) else {
            return Ok(false);
        };
        let (seed, _ring) = self.inner.vault.new_seed(account.generation);
        let set = |account: &mut Account| {
            let begun = SecondFactor { seed: seed.clone(), on: false, step: 0, recovery: vec![] };
            let free = account.second_factor().is_none();
            if free {
                account.second = Some(begun);
            }
            free
        };
        self.update(account, set).await?;
        Ok(true)
    }
    /// The app has shown a right code: from now on it is asked for.
    pub async fn confirm_second(
        &self,
        browser: &Browser,
        typed: &str,
    ) -> Result<Confirmed, IdentityError> {
        let Some(account) = browser.account.as_ref().filter(|_| self.proved(browser)) else {
            return Ok(Confirmed::Nothing);
        };
        let Some(factor) = account.second.as_ref().filter(|factor| !factor.on) else {
            return Ok(Confirmed::Nothing);
        };
        let typed = super::codes::folded(typed);
        let Some(step) = self.step_of(factor, account, &typed)? else {
            return Ok(Confirmed::Wrong);
        };
        let codes: Vec<Zeroizing<String>> = (0..RECOVERY).map(|_| recovery_code()).collect();
        let recovery: Vec<_> = codes.iter().map(|code| recovery_hash(code, account)).collect();
        let seed = factor.seed.clone();
        let set = |account: &mut Account| {
            let on =
                SecondFactor { seed: seed.clone(), on: true, step, recovery: recovery.clone() };
            let same = account.second.as_ref().is_some_and(|s| !s.on && s.seed == seed);
            account.second = Some(on);
            same
        };
        let change = Change::by(browser, Event::SecondOn);
        let done = self.change_credentials(account, change, set).await?;
        Ok(done.map_or(Confirmed::Nothing, |_| Confirmed::On(codes)))
    }
    /// The second factor is asked for no more. False unless the owner has shown to be present.
    pub async fn end_second(&self, browser: &Browser) -> Result<bool, IdentityError> {
        let Some(account) = browser.account.as_ref().filter(|_| self.proved(browser)) else {
            return Ok(false);
        };
        let end = |account: &mut Account| account.second.take().is_some();
        if account.second_factor().is_some() {
            let change = Change::by(browser, Event::SecondOff);
            self.change_credentials(account, change, end).await?;
        } else {
            // One that was begun and never confirmed is no credential.
            self.update(account, end).await?;
        }
        Ok(true)
    }
}

/// Uses up a code for the second factor of an account; false if the code is not right, or was used
/// before (RFC 6238 §5.2).
fn second_shown(account: &mut Account, by_app: Option<u64>, typed: &str) -> bool {
    let hash = recovery_hash(typed, account);
    let Some(factor) = account.second.as_mut().filter(|factor| factor.on) else { return false };
    match by_app {
        Some(step) => {
            let fresh = step > factor.step;
            factor.step = step;
            fresh
        }
        None => {
            let before = factor.recovery.len();
            factor.recovery.retain(|kept| !kept.same(&hash));
            factor.recovery.len() < before
        }
    }
}

/// 80 random bits as sixteen letters and digits.
fn recovery_code() -> Zeroizing<String> {
    Zeroizing::new(BASE32_NOPAD.encode(&rand::random::<[u8; 10]>()).to_lowercase())
}
fn recovery_hash(code: &str, account: &Account) -> TokenHash {
    TokenHash::of_code(code, &account.generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_codes_are_long_and_differ() {
        let (one, other) = (recovery_code(), recovery_code());
        assert!(*one != *other && one.len() == 16);
    }
}
