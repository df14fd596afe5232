//! Proving: a reader shows the phrase, or the code of a text message, and the grant opens for the
//! identity that did. Each try is charged before it is judged, so that tries at the same time count
//! too.

use super::{Vault, VaultError};
use crate::{
    language::{Language, say},
    mail::{Address, GrantId, Pickup, pickup::comparable},
    seal::TokenHash,
    store::{Account, Grant, GrantState, Need, Proof, Proved, SessionFacts, StoreError, Texted},
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
    /// Too many were wrong; the sender has been told.
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

    /// A signed-in reader shows the phrase, or the code of a text message. A caller that may be
    /// cut off runs it as a task: the try is charged first, and its outcome must follow.
    ///
    /// # Errors
    /// [`VaultError`] from the store; the try is charged if it came so far.
    pub async fn prove(
        &self,
        grant: GrantId,
        account: &Account,
        session: &SessionFacts,
        typed: &str,
    ) -> Result<Tried, VaultError> {
        match self.people.grant(grant).await? {
            Some(grant) if account.holds(&grant) && !account.locked => {
                self.prove_as(&grant, (account.generation, session), typed).await
            }
            Some(_) | None => Ok(Tried::Nothing),
        }
    }

    async fn prove_as(
        &self,
        grant: &Grant,
        (by, session): ([u8; 16], &SessionFacts),
        typed: &str,
    ) -> Result<Tried, VaultError> {
        let alive = grant.state == GrantState::Live && grant.expires > self.clock.now();
        if !alive || grant.proof.as_ref().is_none_or(|proof| !is_typed(proof)) {
            return Ok(Tried::Nothing);
        }
        let charge = |proof: &mut Proof| {
            let free = proof.wrong < Proof::TRIES;
            proof.wrong = proof.wrong.saturating_add(u8::from(free));
            free
        };
        let Some(proof) = self.change_proof(grant.id, charge).await? else {
            return Ok(Tried::Locked);
        };
        let typed: String = typed.chars().take(LONGEST).collect();
        if self.is_right(grant.id, &proof, Zeroizing::new(typed)).await? {
            let (at, by_credentials) = (self.clock.now(), session.by.is_credentials());
            let proved = |proof: &mut Proof| {
                (proof.wrong, proof.texted) = (0, None);
                proof.proved = Some(Proved { by, at, session: session.session, by_credentials });
                true
            };
            self.change_proof(grant.id, proved).await?;
            tracing::info!(grant = %grant.id, "a reader has proved himself beyond the mailbox");
            return Ok(Tried::Proved);
        }
        tracing::warn!(grant = %grant.id, wrong = proof.wrong, "a wrong phrase or code was typed");
        if proof.wrong < Proof::TRIES {
            return Ok(Tried::Wrong { left: Proof::TRIES.saturating_sub(proof.wrong) });
        }
        // One try only is the last; it alone tells the sender.
        self.report_locked(grant).await?;
        Ok(Tried::Locked)
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
            if self.people.change_proof(grant, old.as_ref(), &new).await? {
                return Ok(Some(new));
            }
        }
        Err(StoreError::Busy.into())
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
