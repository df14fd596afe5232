//! Mailed codes: eight digits, for one browser session, a quarter of an hour and ten tries, within the
//! mailbox's budget of wrong ones (`super::budget`).
//!
//! Whether an address has an account shows in no answer and in no answer's time: the answer to a
//! wish for a code is given before the account is looked for.

use super::{
    Begun, Browser, Delay, Identity, IdentityError, SignIn, Way,
    limits::{Kind, Wait},
};
use crate::{
    language::Language,
    mail::{Address, GrantId},
    seal::TokenHash,
    store::{Account, AuditDetail, AuditKind, Code, Purpose, Session, SignedBy},
    vault::CODE_MINUTES,
};
use data_encoding::BASE32_NOPAD;
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use unicode_normalization::UnicodeNormalization;
use zeroize::Zeroizing;

/// A code's tries.
const TRIES: u8 = 10;
/// Digits of a code.
const DIGITS: usize = 8;

/// What became of the wish for a code.
#[derive(Debug)]
pub enum Asked {
    /// The session that may type it has begun.
    Sent(Begun),
    /// Too many were asked for.
    Wait(Delay),
    /// The link that led to the registration leads there no more.
    Gone,
    /// The mailbox has an account by now.
    Registered,
    /// The line to the mailbox is in doubt: a mailed code proves nothing now.
    Doubt,
}

/// Whether a code can still be typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeState {
    /// It can.
    Awaited,
    /// Its tries are used up.
    Spent,
    /// Its time is over.
    Late,
    /// The line that it was mailed over is in doubt.
    Doubt,
}

/// What became of a typed code.
#[derive(Debug)]
pub enum Redeemed {
    /// It is the one; it is used up now.
    Right(Box<(Session, Code)>),
    /// It is not.
    Wrong(CodeState),
    /// The client has made too many tries at too many codes.
    Wait(Delay),
    /// This browser awaits no code.
    None,
}

/// What became of a code at `/verify`.
#[derive(Debug)]
pub enum Verified {
    /// It was right.
    In(SignIn),
    /// It was right, but codes sign in nobody here: the browser may try its password.
    Known(Begun),
    /// It was not.
    Wrong(CodeState),
    /// As [`Redeemed::Wait`].
    Wait(Delay),
    /// This browser awaits no code.
    None,
}

impl CodeState {
    /// Of a code that a session awaits.
    pub fn of(code: &Code, now: Timestamp) -> Self {
        match (code.tries, now >= code.until) {
            (0, _) => Self::Spent,
            (_, true) => Self::Late,
            (_, false) => Self::Awaited,
        }
    }
}

/// A code that was typed: spaces and dashes count for nothing, and full-width or other compatibility
/// forms are what they look like.
pub(super) fn folded(typed: &str) -> Zeroizing<String> {
    let plain = typed.chars().take(200).nfkc().filter_map(|c| match c.to_digit(10) {
        Some(_) => Some(c),
        None => digit_of(c).or_else(|| c.is_ascii_alphabetic().then(|| c.to_ascii_lowercase())),
    });
    Zeroizing::new(plain.collect())
}
/// A digit of the scripts that keyboards of our readers have: Arabic-Indic, Persian, Devanagari.
fn digit_of(c: char) -> Option<char> {
    [0x0660, 0x06F0, 0x0966].iter().find_map(|zero| {
        let value = u32::from(c).checked_sub(*zero).filter(|value| *value < 10)?;
        char::from_digit(value, 10)
    })
}

/// The letters of a code that nothing has to be guessed at: 80 random bits.
fn long_code() -> Zeroizing<String> {
    let bytes = Zeroizing::new(rand::random::<[u8; 10]>());
    Zeroizing::new(BASE32_NOPAD.encode(bytes.as_slice()).to_lowercase())
}
fn short_code() -> Zeroizing<String> {
    Zeroizing::new(format!("{:08}", rand::random_range(0..100_000_000_u32)))
}
const fn is_short(typed: &str) -> bool {
    typed.len() == DIGITS
}

impl Identity {
    /// A new code that this session awaits: a long one where the mailbox's budget is spent.
    pub(super) async fn await_code(
        &self,
        session: &mut Session,
        account: Account,
        purpose: Purpose,
    ) -> Result<Zeroizing<String>, IdentityError> {
        let now = self.now();
        let spent = self.inner.wrong.spent(&account.address.mailbox(), now).await?;
        let code = if spent { long_code() } else { short_code() };
        session.pending = Some(Code {
            hash: TokenHash::of_code(&code, session.id.as_bytes()),
            until: now + SignedDuration::from_mins(CODE_MINUTES.into()),
            tries: TRIES,
            account,
            purpose,
        });
        Ok(code)
    }

    /// Begins the session that may type a code, and mails one if the address has an account. The
    /// answer neither knows nor waits for the second. `link` is the grant whose link led here.
    pub async fn ask_code(
        &self,
        browser: &Browser,
        address: Address,
        purpose: Purpose,
        (link, language): (Option<GrantId>, &Arc<Language>),
    ) -> Result<Asked, IdentityError> {
        let link = self.link_to(link, Some(&address)).await?;
        if let Err(Wait(wait)) = self.charge_mail(browser, &address, link).await? {
            return Ok(Asked::Wait(wait));
        }
        if self.in_doubt(&address).await? {
            return Ok(Asked::Doubt);
        }
        let permit = Arc::clone(&self.inner.mailing).try_acquire_owned();
        let permit = permit.map_err(|_| IdentityError::Busy)?;
        let mut fresh = self.fresh(browser);
        fresh.session.wants = link;
        let stand_in = Account::new(address.clone(), rand::random(), self.now());
        let code = self.await_code(&mut fresh.session, stand_in, purpose).await?;
        let begun = self.begin(fresh, browser).await?;
        let (identity, language) = (self.clone(), Arc::clone(language));
        tokio::spawn(async move {
            if let Err(error) = identity.mail_to_owner(&address, &code, &language).await {
                tracing::error!(%error, "portal: a code could not be mailed");
            }
            drop(permit);
        });
        Ok(Asked::Sent(begun))
    }
    /// True while the line to a mailbox's domain is in doubt: whoever stands on it may read what is
    /// mailed, so a mailed code proves nothing. It is a matter of the domain, and tells nothing of
    /// the address.
    pub(super) async fn in_doubt(&self, address: &Address) -> Result<bool, IdentityError> {
        Ok(self.inner.vault.line_doubt(address.domain()).await?.is_some())
    }
    /// Charges a code to be mailed. It stays charged: what counts is the mail, not what becomes of it.
    pub(super) async fn charge_mail(
        &self,
        browser: &Browser,
        address: &Address,
        link: Option<GrantId>,
    ) -> Result<Result<(), Wait>, IdentityError> {
        // A stranger's address is not looked for: the answer's time must not tell whether it is known.
        let account = match browser.device {
            Some(_) => self.people().account(address).await?,
            None => None,
        };
        let standing = Self::standing(browser, account.as_ref(), link);
        let mailbox = address.mailbox();
        let attempt = self.inner.limits.begin(Kind::Mail, Some(&mailbox), standing, browser.client);
        Ok(attempt.map(super::limits::Attempt::fail))
    }
    async fn mail_to_owner(
        &self,
        typed: &Address,
        code: &str,
        language: &Language,
    ) -> Result<(), IdentityError> {
        let account = self.people().account(typed).await?;
        if let Some(account) = account.filter(|account| !account.locked) {
            self.mail_code(&account.address, code, language).await?;
        }
        Ok(())
    }
    pub(super) async fn mail_code(
        &self,
        recipient: &Address,
        code: &str,
        language: &Language,
    ) -> Result<(), IdentityError> {
        let link = (!is_short(code)).then(|| {
            let base = self.inner.settings.url.trim_end_matches('/');
            Zeroizing::new(format!("{base}/verify?code={code}"))
        });
        let link = link.as_ref().map(|link| link.as_str());
        let id = self.inner.vault.mail_code(recipient, (code, link), language).await?;
        tracing::info!(%id, "portal: a code was mailed");
        let event = self.inner.audit.event(AuditKind::CodeMailed).account(recipient).message(id);
        self.inner.audit.record(event).await;
        Ok(())
    }

    /// Holds a typed code against the one that this browser awaits. A right one is used up. Every try
    /// costs one of the code's before it is looked at, and a wrong one is charged to the mailbox.
    pub(super) async fn redeem(
        &self,
        browser: &Browser,
        typed: &str,
        purposes: &[Purpose],
    ) -> Result<Redeemed, IdentityError> {
        let brake = self.inner.limits.begin(
            Kind::Proof,
            None,
            super::limits::Standing::Stranger,
            browser.client,
        );
        let attempt = match brake {
            Ok(attempt) => attempt,
            Err(Wait(wait)) => {
                let detail = Some(AuditDetail::MailedCode);
                self.failed(AuditKind::SignInLocked, (browser, None), detail).await;
                return Ok(Redeemed::Wait(wait));
            }
        };
        let Some((session, code)) = self.spend_try(browser, purposes).await? else {
            return Ok(Redeemed::None);
        };
        let now = self.now();
        // The try that was just spent may have been the last one; it counts.
        if now >= code.until || code.tries == 0 {
            return Ok(Redeemed::Wrong(CodeState::of(&code, now)));
        }
        let typed = folded(typed);
        let right = TokenHash::of_code(&typed, session.id.as_bytes()).same(&code.hash);
        if self.accepts(&code, (&typed, right), now).await? {
            let use_up = |session: &mut Session| {
                let awaited = session.pending.as_ref().is_some_and(|left| left.hash == code.hash);
                awaited.then(|| session.pending = None)
            };
            let Some((used, ())) = self.change_session(&session.id, use_up).await? else {
                return Ok(Redeemed::None);
            };
            attempt.succeed();
            if self.doubted(&code).await? {
                return Ok(Redeemed::Wrong(CodeState::Doubt));
            }
            return Ok(Redeemed::Right(Box::new((used, code))));
        }
        let whose = (browser, Some(&code.account.address));
        self.failed(AuditKind::WrongCode, whose, None).await;
        let left = Code { tries: code.tries - 1, ..code };
        Ok(Redeemed::Wrong(CodeState::of(&left, now)))
    }
    /// Takes a try off the code that a browser awaits, in the store and before it is used: parallel
    /// guesses can't share one. The code is as it was before.
    async fn spend_try(
        &self,
        browser: &Browser,
        purposes: &[Purpose],
    ) -> Result<Option<(Session, Code)>, IdentityError> {
        let Some(id) = browser.session.as_ref().map(|session| session.id) else { return Ok(None) };
        let now = self.now();
        let spend = |session: &mut Session| {
            let pending = session.pending.as_mut();
            let pending = pending.filter(|code| purposes.contains(&code.purpose))?;
            let before = pending.clone();
            if CodeState::of(pending, now) == CodeState::Awaited {
                pending.tries = pending.tries.saturating_sub(1);
            }
            Some(before)
        };
        self.change_session(&id, spend).await
    }
    /// Whether a typed code counts. A short one is looked at within the mailbox's budget alone; a
    /// wrong one is charged to it, if there is anything to be guessed.
    async fn accepts(
        &self,
        code: &Code,
        (typed, right): (&str, bool),
        now: Timestamp,
    ) -> Result<bool, IdentityError> {
        let mailbox = code.account.address.mailbox();
        let budget = self.inner.wrong.of(&mailbox).await?;
        if right {
            return Ok(!is_short(typed) || !budget.spent(now));
        }
        let guessable = match code.purpose {
            Purpose::Register => true,
            Purpose::Reset | Purpose::SignIn => {
                self.people().account(&code.account.address).await?.is_some()
            }
        };
        if guessable {
            budget.charge(now).await?;
        }
        Ok(false)
    }
    /// Whether a right code that was mailed before the line came into doubt still counts: it does not,
    /// save for a registration, whose account is then no older than the doubt.
    async fn doubted(&self, code: &Code) -> Result<bool, IdentityError> {
        Ok(code.purpose != Purpose::Register && self.in_doubt(&code.account.address).await?)
    }
    /// The account that a right code was mailed to. One that was asked for before the account's
    /// present epoch is wrong like any other, and so is one of an address without account.
    pub(super) async fn owner_of(&self, code: &Code) -> Result<Option<Account>, IdentityError> {
        let asked = code.until - SignedDuration::from_mins(CODE_MINUTES.into());
        let account = self.people().account(&code.account.address).await?;
        Ok(account.filter(|account| {
            !account.locked && account.epoch_since.is_none_or(|since| since <= asked)
        }))
    }

    /// A code typed at `/verify`: it registers, or signs in.
    pub async fn verify(&self, browser: &Browser, typed: &str) -> Result<Verified, IdentityError> {
        match self.redeem(browser, typed, &[Purpose::Register, Purpose::SignIn]).await? {
            Redeemed::Right(right) => {
                let (session, code) = *right;
                self.verified(browser, &session, code).await
            }
            Redeemed::Wrong(state) => Ok(Verified::Wrong(state)),
            Redeemed::Wait(wait) => Ok(Verified::Wait(wait)),
            Redeemed::None => Ok(Verified::None),
        }
    }
    async fn verified(
        &self,
        browser: &Browser,
        session: &Session,
        code: Code,
    ) -> Result<Verified, IdentityError> {
        let wants = session.wants;
        if code.purpose == Purpose::Register {
            let admitted = self.admit(browser, code.account, wants).await?;
            return Ok(Verified::In(admitted));
        }
        let Some(account) = self.owner_of(&code).await? else {
            return Ok(Verified::Wrong(CodeState::Awaited));
        };
        if !self.inner.settings.code_sign_in {
            let known = self.remember(browser, &account, wants).await?;
            return Ok(known.map_or(Verified::None, Verified::Known));
        }
        Ok(Verified::In(self.first_shown(browser, account, Way::new(SignedBy::Code, wants)).await?))
    }
    /// Another code in place of the one that this browser awaits, which is void then.
    pub async fn another_code(
        &self,
        browser: &Browser,
        language: &Arc<Language>,
    ) -> Result<Option<Asked>, IdentityError> {
        let Some(session) = &browser.session else { return Ok(None) };
        let Some(code) = &session.pending else { return Ok(None) };
        let (account, wants) = (&code.account, session.wants);
        let asked = match code.purpose {
            Purpose::Register => self.register_again(browser, account, (wants, language)).await?,
            Purpose::SignIn | Purpose::Reset => {
                let address = account.address.clone();
                self.ask_code(browser, address, code.purpose, (wants, language)).await?
            }
        };
        Ok(Some(asked))
    }
}
