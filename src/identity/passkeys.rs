//! Passkeys: sign-in by a key pair whose secret half stays in the reader's device (Web Authentication
//! Level 2). The device asks its owner for a finger, a face or a PIN, so a passkey stands for both
//! factors.

use super::{
    Assertion, Attestation, Browser, Change, Event, Identity, IdentityError, SignIn, Way,
    limits::{Kind, Standing, Wait},
    passkey::{self, Purpose},
};
use crate::store::{Account, Assurance, AuditDetail, AuditKind, Passkey, SignedBy};
use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;

/// Passkeys of an account.
pub const MOST_PASSKEYS: usize = 10;
/// Longest name of a passkey, in characters.
const MAX_NAME: usize = 60;

/// What became of a new passkey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewPasskey {
    /// It is added.
    Added,
    /// What the device said is not right.
    Refused,
    /// The account has it already, or has no room.
    Known,
    /// The owner has not shown to be present, or too long ago.
    NotProved,
}

impl Identity {
    /// The relying party's id: the portal's host.
    pub fn relying_party(&self) -> &str {
        &self.inner.party.id
    }
    /// A challenge for a sign-in.
    pub fn challenge(&self) -> String {
        self.inner.challenges.ask(&Purpose::SignIn, self.now())
    }
    /// A challenge for a new passkey; `None` unless one may be added now.
    pub fn new_passkey_challenge(&self, browser: &Browser) -> Option<String> {
        let (session, account) = (browser.session.as_ref()?, browser.account.as_ref()?);
        let room = account.passkeys.len() < MOST_PASSKEYS && self.proved(browser);
        let purpose = Purpose::Add(session.id);
        room.then(|| self.inner.challenges.ask(&purpose, self.now()))
    }
    /// Keeps a passkey that the device has made; `name` is what it is called if its owner says
    /// nothing.
    pub async fn add_passkey(
        &self,
        browser: &Browser,
        made: &Attestation,
        name: &str,
    ) -> Result<NewPasskey, IdentityError> {
        let (Some(session), Some(account)) = (&browser.session, &browser.account) else {
            return Ok(NewPasskey::NotProved);
        };
        if !self.proved(browser) {
            return Ok(NewPasskey::NotProved);
        }
        let (now, purpose) = (self.now(), Purpose::Add(session.id));
        let (party, challenges) = (&self.inner.party, &self.inner.challenges);
        let fresh = match passkey::made(party, challenges, &purpose, made, now) {
            Ok(fresh) => fresh,
            Err(why) => {
                tracing::info!(why, "portal: a new passkey was not taken");
                return Ok(NewPasskey::Refused);
            }
        };
        let own = passkey_name(&made.name);
        let passkey = Passkey {
            id: BASE64URL_NOPAD.encode(&fresh.id),
            key: BASE64URL_NOPAD.encode(&fresh.key),
            algorithm: fresh.algorithm,
            counter: fresh.counter,
            copyable: Some(fresh.copyable),
            name: if own.is_empty() { name.to_owned() } else { own },
            created: now,
            proved: account.assurance == Assurance::Proved,
            used: None,
        };
        let add = |account: &mut Account| {
            let known = account.passkeys.iter().any(|key| key.id == passkey.id);
            let room = account.passkeys.len() < MOST_PASSKEYS && !known && !account.locked;
            if room {
                account.passkeys.push(passkey.clone());
            }
            room
        };
        let change = Change::by(browser, Event::PasskeyOn);
        let added = self.change_credentials(account, change, add).await?;
        Ok(if added.is_some() { NewPasskey::Added } else { NewPasskey::Known })
    }
    /// A passkey lets in no more. False unless the owner has shown to be present.
    pub async fn remove_passkey(&self, browser: &Browser, id: &str) -> Result<bool, IdentityError> {
        let Some(account) = browser.account.as_ref().filter(|_| self.proved(browser)) else {
            return Ok(false);
        };
        let remove = |account: &mut Account| {
            let before = account.passkeys.len();
            account.passkeys.retain(|passkey| passkey.id != id);
            account.passkeys.len() < before
        };
        let change = Change::by(browser, Event::PasskeyOff);
        self.change_credentials(account, change, remove).await?;
        Ok(true)
    }
    /// Sign-in by a device that has signed.
    pub async fn sign_in_by_passkey(
        &self,
        browser: &Browser,
        said: &Assertion,
    ) -> Result<SignIn, IdentityError> {
        let brake = self.inner.limits.begin(Kind::Proof, None, Standing::Stranger, browser.client);
        let attempt = match brake {
            Ok(attempt) => attempt,
            Err(Wait(wait)) => {
                let detail = Some(AuditDetail::Passkey);
                self.failed(AuditKind::SignInLocked, (browser, None), detail).await;
                return Ok(SignIn::Wait(wait));
            }
        };
        match self.owner_of_passkey(said).await? {
            Ok((account, signed)) => {
                // The way here may have begun at a notice's link.
                let wants = browser.session.as_ref().and_then(|session| session.wants);
                let passkey = Some(said.credential.clone());
                let way = Way { passkey, ..Way::new(SignedBy::Passkey, wants) };
                let counted = |account: &mut Account| signed.counted(account);
                let begun = self.sign_in_as(browser, &account, way, counted).await?;
                attempt.succeed();
                Ok(begun.map_or(SignIn::Wrong, SignIn::In))
            }
            Err(why) => {
                tracing::info!(why, "portal: a passkey did not let in");
                self.failed(AuditKind::WrongPasskey, (browser, None), None).await;
                Ok(SignIn::Wrong)
            }
        }
    }
    /// A signed-in owner has shown to be present by a passkey of the account.
    pub async fn prove_passkey(
        &self,
        browser: &Browser,
        said: &Assertion,
    ) -> Result<bool, IdentityError> {
        let (Some(account), Some(session)) = (&browser.account, &browser.session) else {
            return Ok(false);
        };
        match self.owner_of_passkey(said).await? {
            Ok((owner, signed)) if owner.generation == account.generation => {
                let counted = self.update(&owner, |account| signed.counted(account)).await?;
                Ok(counted.is_some() && self.note_proof(session).await?)
            }
            Ok(_) => Ok(false),
            Err(why) => {
                tracing::info!(why, "portal: a passkey did not prove its owner");
                let whose = (browser, Some(&account.address));
                self.failed(AuditKind::WrongPasskey, whose, None).await;
                Ok(false)
            }
        }
    }
    /// The account that a passkey signs for, and the signature that is still to be counted.
    async fn owner_of_passkey(
        &self,
        said: &Assertion,
    ) -> Result<Result<(Account, Signed), &'static str>, IdentityError> {
        let handle = BASE64URL_NOPAD.decode(said.user_handle.as_bytes()).unwrap_or_default();
        let Ok(generation) = <[u8; 16]>::try_from(handle.as_slice()) else {
            return Ok(Err("no user handle of ours"));
        };
        let account = self.people().account_of(generation).await?;
        let Some(account) = account.filter(|account| !account.locked) else {
            return Ok(Err("no such account, or it is locked"));
        };
        let Some(passkey) = account.passkeys.iter().find(|key| key.id == said.credential) else {
            return Ok(Err("no such passkey at this account"));
        };
        let now = self.now();
        let (party, challenges) = (&self.inner.party, &self.inner.challenges);
        let counter = match passkey::said(party, challenges, passkey, said, now) {
            Ok(counter) => counter,
            Err(why) => return Ok(Err(why)),
        };
        let signed = Signed { id: passkey.id.clone(), counter, at: now };
        let counted = signed.counted(&mut account.clone());
        Ok(if counted { Ok((account, signed)) } else { Err("its count of signatures went back") })
    }
}

/// A right signature of a passkey.
struct Signed {
    /// Credential id.
    id: String,
    /// Signatures that the device has counted.
    counter: u32,
    /// When.
    at: Timestamp,
}
impl Signed {
    /// Counts the signature at its account. Level 2, 7.2 step 21: a device that counts has counted on,
    /// or there are two of it.
    fn counted(&self, account: &mut Account) -> bool {
        let passkey = account.passkeys.iter_mut().find(|passkey| passkey.id == self.id);
        passkey.is_some_and(|passkey| {
            let on = self.counter > passkey.counter || (self.counter, passkey.counter) == (0, 0);
            (passkey.counter, passkey.used) = (self.counter, Some(self.at));
            on
        })
    }
}

fn passkey_name(typed: &str) -> String {
    typed.trim().chars().filter(|c| !c.is_control()).take(MAX_NAME).collect()
}
