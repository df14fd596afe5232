//! Proving: a reader shows the phrase, or the code of a text message, and the grant opens for the
//! identity that did. What a try comes to counts once it is written, with the record of it and, where
//! the last try was wrong, the report to the sender: one commit, that is made anew where another try
//! was faster, so that tries at the same time count too.

use super::{Vault, VaultError};
use crate::{
    language::{Language, say},
    mail::{Address, GrantId, Pickup, pickup::comparable},
    seal::TokenHash,
    store::{
        Account, AuditEvent, Grant, GrantState, Need, Proof, ProofChange, Proved, SessionFacts,
        StoreError, Texted,
    },
    wire::WebError,
};
use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

/// How long the code of a text message is good.
const TEXT_LIFE: SignedDuration = SignedDuration::from_mins(15);
/// Times that a change is tried anew because another one was faster.
const ROUNDS: usize = 16;
/// Times that a text message is handed to the service that sends it.
const SENDS: usize = 2;
/// Characters of what is typed that are looked at.
const LONGEST: usize = 1024;

/// What came of a phrase or code that was typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// It was right: the grant opens for this identity.
    Proved,
    /// It was wrong.
    Wrong {
        /// Tries that are left.
        left: u8,
    },
    /// It was wrong, and the last: the message opens no more, and its sender is told.
    Locks,
    /// Too many were wrong before it. It was not looked at, and is not recorded.
    Locked,
    /// There is nothing to type: no such grant, another's, over, or of another kind.
    Nothing,
}

/// What came of a wish for a text message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Texting {
    /// The service has taken it.
    Sent,
    /// None can be sent, or as many as there may be were sent: a phrase takes its place, and this
    /// address inside was told it.
    Replaced(Address),
    /// The same, and no address inside can be told.
    Failed,
    /// This message asks for no text.
    Nothing,
}

impl Vault {
    /// What a session of that account must still show; [`Need::Nothing`] also where there is no
    /// such grant of its own, as [`Vault::access`] says the rest.
    ///
    /// # Errors
    /// [`VaultError`] from the store.
    pub async fn needs(
        &self,
        grant: GrantId,
        account: &Account,
        session: &SessionFacts,
    ) -> Result<Need, VaultError> {
        let grant = self.people.grant(grant).await?.filter(|grant| account.holds(grant));
        Ok(grant.map_or(Need::Nothing, |grant| grant.need(account, session)))
    }

    /// A signed-in reader shows the phrase, or the code of a text message. `record` says what the
    /// audit trail is to have of it, in the same commit. A caller that may be cut off runs it as a
    /// task: each try that is judged must be charged.
    ///
    /// # Errors
    /// [`VaultError`] from the store; nothing has come of the try then.
    pub async fn prove(
        &self,
        grant: GrantId,
        account: &Account,
        session: &SessionFacts,
        (typed, record): (&str, impl Fn(Tried) -> Option<AuditEvent> + Send + Sync),
    ) -> Result<Tried, VaultError> {
        let Some(grant) = self.people.grant(grant).await? else { return Ok(Tried::Nothing) };
        let (now, by) = (self.clock.now(), account.generation);
        let alive = grant.state == GrantState::Live && grant.expires > now && !account.locked;
        let proof = grant.proof.as_ref().filter(|proof| is_typed(proof));
        let Some(proof) = proof.filter(|_| alive && account.holds(&grant)) else {
            return Ok(Tried::Nothing);
        };
        if proof.wrong >= Proof::TRIES {
            return Ok(Tried::Locked);
        }
        let typed: String = typed.chars().take(LONGEST).collect();
        let right = self.is_right(grant.id, proof, Zeroizing::new(typed)).await?;
        let by_credentials = session.by.is_credentials();
        let proved =
            right.then_some(Proved { by, at: now, session: session.session, by_credentials });
        let tried = self.write_try(&grant, proved, record).await?;
        let id = grant.id;
        if right {
            tracing::info!(grant = %id, ?tried, "a right phrase or code was typed");
        } else {
            tracing::warn!(grant = %id, ?tried, "a wrong phrase or code was typed");
        }
        Ok(tried)
    }
    /// Writes what a try comes to.
    async fn write_try(
        &self,
        grant: &Grant,
        proved: Option<Proved>,
        record: impl Fn(Tried) -> Option<AuditEvent> + Send + Sync,
    ) -> Result<Tried, VaultError> {
        for _ in 0..ROUNDS {
            let old = self.people.grant(grant.id).await?.and_then(|grant| grant.proof);
            let mut new = old.clone().unwrap_or_default();
            let tried = new.take_try(proved);
            if tried == Tried::Locked {
                return Ok(tried);
            }
            let report = match tried {
                Tried::Locks => self.locked_report(grant).await?,
                Tried::Proved | Tried::Wrong { .. } | Tried::Locked | Tried::Nothing => None,
            };
            let change = ProofChange {
                mail: report.into_iter().collect(),
                events: record(tried).into_iter().collect(),
                ..ProofChange::new(grant.id, old, new)
            };
            if self.people.change_proof(change).await? {
                return Ok(tried);
            }
        }
        Err(StoreError::Busy.into())
    }

    async fn is_right(
        &self,
        grant: GrantId,
        proof: &Proof,
        typed: Zeroizing<String>,
    ) -> Result<bool, VaultError> {
        let typed = comparable(&typed);
        if proof.kind == Pickup::Sms && proof.phrase.is_none() {
            let hash = code_hash(grant, &digits(&typed));
            let now = self.clock.now();
            let texted = proof.texted.as_ref().filter(|texted| texted.until > now);
            return Ok(texted.is_some_and(|texted| texted.hash.same(&hash)));
        }
        match &proof.phrase {
            Some(hash) => Ok(self.phrases.matches(typed, hash.clone(), ()).await?),
            None => Ok(false),
        }
    }

    /// Sends a code by text message to the number that the sender gave. It holds no link. A caller
    /// that may be cut off runs it as a task: what is charged must have its outcome.
    ///
    /// # Errors
    /// [`VaultError`] from the store, or where the sealed number does not open.
    pub async fn send_text_code(
        &self,
        grant: GrantId,
        account: &Account,
        language: &Language,
    ) -> Result<Texting, VaultError> {
        let now = self.clock.now();
        let mine = |grant: &Grant| {
            let alive = grant.state == GrantState::Live && grant.expires > now;
            let asked = grant.proof.as_ref().is_some_and(|proof| {
                proof.kind == Pickup::Sms && proof.phrase.is_none() && proof.wrong < Proof::TRIES
            });
            account.holds(grant) && !account.locked && alive && asked
        };
        let Some(grant) = self.people.grant(grant).await?.filter(mine) else {
            return Ok(Texting::Nothing);
        };
        let Some((message, _)) = self.queue.message(grant.message).await? else {
            return Ok(Texting::Nothing);
        };
        let wish = self.wish(&message).await?.filter(|wish| wish.kind == Pickup::Sms);
        let number = wish.and_then(|mut wish| wish.secret.take()).map(Zeroizing::new);
        let (Some(texts), Some(number)) = (&self.texts, number) else {
            return self.replace_text(&message, grant.id).await;
        };
        let code = Zeroizing::new(format!("{:08}", rand::random_range(0..100_000_000_u32)));
        let texted = Texted {
            hash: code_hash(grant.id, &code),
            until: now.checked_add(TEXT_LIFE).unwrap_or(Timestamp::MAX),
        };
        let charge = |proof: &mut Proof| {
            let free = proof.texts < Proof::TEXTS && proof.wrong < Proof::TRIES;
            proof.texts = proof.texts.saturating_add(u8::from(free));
            proof.texted = Some(texted.clone());
            free
        };
        if self.change_proof(grant.id, charge).await?.is_none() {
            return self.replace_text(&message, grant.id).await;
        }
        let organization = self.notices.head.organization.clone();
        let text = Zeroizing::new(language.say(&say!(
            "{code} is your code for the secure message from {organization}. Give it to nobody.",
            code = code.to_string(),
            organization = organization
        )));
        for _ in 0..SENDS {
            match texts.send(&number, &text).await {
                Ok(()) => return Ok(Texting::Sent),
                Err(error) => {
                    tracing::warn!(grant = %grant.id, %error, "a text message could not be sent");
                    if !passing(&error) {
                        break;
                    }
                }
            }
        }
        self.replace_text(&message, grant.id).await
    }

    /// Changes a grant's proof; `None` if `change` says that it must not be. It may be asked several
    /// times.
    pub(super) async fn change_proof(
        &self,
        grant: GrantId,
        change: impl Fn(&mut Proof) -> bool + Send,
    ) -> Result<Option<Proof>, VaultError> {
        for _ in 0..ROUNDS {
            let old = self.people.grant(grant).await?.and_then(|grant| grant.proof);
            let mut new = old.clone().unwrap_or_default();
            if !change(&mut new) {
                return Ok(None);
            }
            let change = ProofChange::new(grant, old, new.clone());
            if self.people.change_proof(change).await? {
                return Ok(Some(new));
            }
        }
        Err(StoreError::Busy.into())
    }
}

impl Proof {
    /// Takes in a try that was right, or wrong: `None`.
    fn take_try(&mut self, proved: Option<Proved>) -> Tried {
        if self.wrong >= Self::TRIES {
            return Tried::Locked;
        }
        if proved.is_some() {
            (self.wrong, self.texted, self.proved) = (0, None, proved);
            return Tried::Proved;
        }
        self.wrong = self.wrong.saturating_add(1);
        match Self::TRIES.saturating_sub(self.wrong) {
            0 => Tried::Locks,
            left => Tried::Wrong { left },
        }
    }
}

/// True if there is something to type.
fn is_typed(proof: &Proof) -> bool {
    proof.phrase.is_some() || proof.kind == Pickup::Sms
}

fn code_hash(grant: GrantId, code: &str) -> TokenHash {
    TokenHash::of_code(code, grant.as_bytes())
}

/// Digits as they are compared: those of other scripts and full-width ones are read too.
fn digits(typed: &str) -> Zeroizing<String> {
    let digit = |c: char| match c {
        '0'..='9' => Some(c),
        '\u{ff10}'..='\u{ff19}' => char::from_digit(u32::from(c).saturating_sub(0xff10), 10),
        _ => None,
    };
    Zeroizing::new(typed.chars().filter_map(digit).collect())
}

/// True if another try at once may help.
fn passing(error: &WebError) -> bool {
    match error {
        WebError::Doubt(_) | WebError::Unreachable(_) | WebError::TimedOut(_) => true,
        WebError::Status(status) => *status >= 500,
        WebError::Dns(_) | WebError::Refused(_) | WebError::Tls(_) | WebError::Answer(_) => false,
    }
}
