//! Identity: who reads, and how it was proved. Sign-in as a state machine ([`SignIn`]), sessions,
//! credentials, mailed codes, budgets of tries. No HTTP: the portal turns forms into these verbs and
//! their answers into pages.
//!
//! Three rules hold for every verb. A try is charged before it is made and refunded by its success
//! ([`limits`]). A change of credentials, the end of all older sessions and the mail that tells the
//! owner are one commit ([`Identity::change_credentials`]). A sign-in is a commit that fails if the
//! account has changed since its factors were looked at.

mod account;
mod budget;
mod change;
mod codes;
pub mod limits;
mod passkey;
mod passkeys;
pub mod password;
mod second;
mod sessions;
mod sign_in;
#[cfg(test)]
mod tests;

pub use account::{ByProvider, Held, NewAccount, Vouched};
pub use change::{Change, Event};
pub use codes::{Asked, CodeState, Redeemed, Verified};
pub use passkey::{Assertion, Attestation};
pub use passkeys::{MOST_PASSKEYS, NewPasskey};
pub use second::{Confirmed, Enrolment};
pub use sessions::{Begun, Way, runs};
pub use sign_in::{ResetForm, SignIn, Typed};

use crate::{
    audit::Audit,
    mail::Address,
    seal::TokenHash,
    store::{
        Account, AuditDetail, AuditEvent, AuditKind, NoteStore, PeopleStore, Session, StoreError,
    },
    vault::{Vault, VaultError, argon::HashError},
};
use jiff::{SignedDuration, Timestamp};
use limits::Limits;
use passkey::{Challenges, Party};
use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicBool},
};
use tokio::sync::Semaphore;

/// Mails that are being written while their askers have their answer already.
const MAILS_AT_ONCE: usize = 64;

/// Whether accounts have a second factor (`portal.second_factor`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SecondFactorRule {
    /// Each owner decides.
    #[default]
    Optional,
    /// Every account must have one, an authenticator app or a passkey, and every sign-in ends with it.
    Required,
    /// None is offered. One that was set up before is asked for all the same.
    Off,
}

/// What the house has decided about sign-in.
#[derive(Debug, Clone)]
pub struct IdentitySettings {
    /// `organization.name`
    pub organization: String,
    /// `portal.url`
    pub url: String,
    /// `portal.second_factor`
    pub second_factor: SecondFactorRule,
    /// `portal.code_sign_in`: a mailed code alone signs in.
    pub code_sign_in: bool,
}

/// The service. Clones share one state.
#[derive(Debug, Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}
#[derive(Debug)]
struct Inner {
    settings: IdentitySettings,
    vault: Vault,
    limits: Limits,
    wrong: budget::WrongCodes,
    passwords: password::Passwords,
    challenges: Challenges,
    party: Party,
    mailing: Arc<Semaphore>,
    audit: Audit,
    /// There may be accounts whose deletion is not at its end.
    deleting: AtomicBool,
}

/// The browser that makes a request, as far as it is known.
#[derive(Debug, Clone, Default)]
pub struct Browser {
    /// Its session, if it holds one that still runs.
    pub session: Option<Session>,
    /// The account that is signed in.
    pub account: Option<Account>,
    /// Hash of its device cookie.
    pub device: Option<TokenHash>,
    /// Where the connection comes from.
    pub client: Option<IpAddr>,
    /// Its name in a few words: `Firefox on Windows`.
    pub agent: String,
    /// Code of the language of its pages, chosen or not.
    pub language: String,
}
impl Browser {
    fn described(&self) -> String {
        match self.client {
            Some(client) => format!("{} ({client})", self.agent),
            None => self.agent.clone(),
        }
    }
}

/// Why a verb could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The vault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// Too much of it is asked for at once.
    #[error("too many sign-ins at once")]
    Busy,
    /// Work on another thread did not come back.
    #[error("{0}")]
    Work(&'static str),
}

impl From<HashError> for IdentityError {
    fn from(_: HashError) -> Self {
        Self::Work("a password could not be hashed")
    }
}

impl Identity {
    /// A service over the vault's accounts.
    pub fn new(
        settings: IdentitySettings,
        vault: Vault,
        notes: Arc<dyn NoteStore>,
        audit: Audit,
    ) -> Self {
        let limits = Limits::new(&vault.clock);
        let party = Party::new(origin_of(&settings.url));
        let inner = Inner {
            settings,
            vault,
            limits,
            wrong: budget::WrongCodes::new(notes),
            passwords: password::Passwords::default(),
            challenges: Challenges::default(),
            party,
            mailing: Arc::new(Semaphore::new(MAILS_AT_ONCE)),
            deleting: AtomicBool::new(true),
            audit,
        };
        Self { inner: Arc::new(inner) }
    }
    /// What the house has decided.
    pub fn settings(&self) -> &IdentitySettings {
        &self.inner.settings
    }
    /// Budgets of tries.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }
    /// True if a browser is signed in but must set up a second factor before it gets further.
    pub fn must_enrol(&self, browser: &Browser) -> bool {
        let lacks =
            |account: &Account| account.second_factor().is_none() && account.passkeys.is_empty();
        self.second_required() && browser.account.as_ref().is_some_and(lacks)
    }
    /// True if every account must have a second factor. A reset then removes none: the mailbox alone
    /// must not be enough to set up another one.
    pub fn second_required(&self) -> bool {
        self.inner.settings.second_factor == SecondFactorRule::Required
    }
    /// True if a sign-in at the account by password, mailed code or provider goes on to a second
    /// factor: the app or, where one is required, a passkey.
    fn asks_second(&self, account: &Account) -> bool {
        let by_passkey = self.second_required() && !account.passkeys.is_empty();
        account.second_factor().is_some() || by_passkey
    }
    fn people(&self) -> &dyn PeopleStore {
        &*self.inner.vault.people
    }
    fn now(&self) -> Timestamp {
        self.inner.vault.clock.now()
    }
    /// An event that a browser causes now, at that account.
    fn event(&self, kind: AuditKind, browser: &Browser, address: Option<&Address>) -> AuditEvent {
        let event = self.inner.audit.event(kind).client(browser.client).agent(&browser.agent);
        let event = match address {
            Some(address) => event.account(address),
            None => event,
        };
        match &browser.session {
            Some(session) => event.session(&session.id),
            None => event,
        }
    }
    /// Records a try that failed.
    async fn failed(
        &self,
        kind: AuditKind,
        (browser, address): (&Browser, Option<&Address>),
        detail: Option<AuditDetail>,
    ) {
        let event = self.event(kind, browser, address);
        self.inner.audit.record(AuditEvent { detail, ..event }).await;
    }
    /// Waits until no mail is being written any more.
    #[cfg(test)]
    pub(crate) async fn written(&self) {
        let all = u32::try_from(MAILS_AT_ONCE).unwrap();
        drop(self.inner.mailing.acquire_many(all).await.unwrap());
    }
}

/// Scheme and authority of a URL.
fn origin_of(url: &str) -> &str {
    let after = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(after..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| after + at);
    url.get(..end).unwrap_or(url)
}

/// How long to wait, as pages and answers say it.
type Delay = SignedDuration;
