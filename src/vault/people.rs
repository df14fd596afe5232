//! Accounts: changes that never undo each other, and the mail that goes to their owners.

use super::{Vault, VaultError, random_secret};
use crate::{
    language::{Language, Text, say},
    mail::{
        Address, MailData, QueueId,
        notice::{ChangeMail, CodeMail},
    },
    seal::{Class, DataKey, MessageFacts, WrappedKey, header::Needs},
    store::{Account, StoreError},
};
use zeroize::Zeroizing;

/// Minutes for which a mailed code is good.
pub const CODE_MINUTES: u32 = 15;
/// Times that a change is tried anew because another one was faster.
const ROUNDS: usize = 8;

/// What has happened at an account; its owner is told by mail, so that a stranger's hand is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A new password, typed by who is signed in.
    Password,
    /// A new password, after a mailed code.
    Reset,
    /// The second factor is asked for from now on.
    SecondOn,
    /// It no longer is.
    SecondOff,
    /// A recovery code was used in its place.
    Recovered,
    /// A passkey was added.
    PasskeyOn,
    /// A passkey was removed.
    PasskeyOff,
    /// An operator took password and second factor away.
    Cleared,
}
impl Change {
    fn sentence(self) -> Text {
        match self {
            Self::Password => {
                say!("The password was changed. All other devices were signed out.")
            }
            Self::Reset => {
                say!(
                    "A new password was set with a code from this mailbox. All other devices were \
                     signed out."
                )
            }
            Self::SecondOn => say!("Sign-in now asks for a code from an authenticator app."),
            Self::SecondOff => {
                say!("Sign-in no longer asks for a code from an authenticator app.")
            }
            Self::Recovered => {
                say!("Somebody signed in with a recovery code in place of the authenticator app.")
            }
            Self::PasskeyOn => say!("A passkey was added: it lets in without the password."),
            Self::PasskeyOff => say!("A passkey was removed: it no longer lets in."),
            Self::Cleared => {
                say!(
                    "Our helpdesk has reset the account: the old password and the authenticator \
                     app no longer count, and all devices were signed out. To sign in again, \
                     choose “Forgot your password?” on the sign-in page."
                )
            }
        }
    }
}

impl Vault {
    /// What an identity's one-time passwords are made from: random, and sealed like a message's key.
    pub fn new_seed(&self, generation: [u8; 16]) -> WrappedKey {
        let key = DataKey::from_random(random_secret());
        self.ring.wrap(&key, QueueId::from_bytes(generation), rand::random())
    }

    /// The secret behind a seed: 160 bits, as RFC 4226 section 4 recommends.
    pub fn secret_of(
        &self,
        seed: &WrappedKey,
        generation: [u8; 16],
    ) -> Result<Zeroizing<[u8; 20]>, VaultError> {
        let key = self.ring.unwrap(seed, QueueId::from_bytes(generation))?;
        let mut secret = Zeroizing::new([0; 20]);
        for (to, from) in secret.iter_mut().zip(key.bytes()) {
            *to = *from;
        }
        Ok(secret)
    }

    /// Changes an account as long as it is this identity's. `None` if it is not there any more, or
    /// if `change` says that there is nothing to do; `change` may be asked several times.
    pub async fn change_account(
        &self,
        address: &Address,
        generation: Option<[u8; 16]>,
        change: impl Fn(&mut Account) -> bool + Send,
    ) -> Result<Option<Account>, VaultError> {
        for _ in 0..ROUNDS {
            let Some(old) = self.people.account(address).await? else { return Ok(None) };
            let mut new = old.clone();
            if generation.is_some_and(|g| g != old.generation) || !change(&mut new) {
                return Ok(None);
            }
            if self.people.change_account(Some(&old), &new).await? {
                return Ok(Some(new));
            }
        }
        Err(StoreError::Busy.into())
    }

    /// Mails a code to type at the portal, in the language of who asked for it.
    pub async fn mail_code(
        &self,
        recipient: &Address,
        code: &str,
        language: &Language,
    ) -> Result<QueueId, VaultError> {
        let (id, at, settings) = (self.new_id(), self.clock.now(), &self.notices);
        let mail = CodeMail {
            recipient,
            language: Some(language.code()),
            code,
            minutes: CODE_MINUTES,
            at,
            id,
        };
        let text = Zeroizing::new(settings.templates.code(&settings.head, &mail)?);
        self.mail(id, Class::Code, recipient, &text).await
    }

    /// Tells an account's owner what has happened to it. Trouble with the mail is logged only: the
    /// change itself has been made.
    pub async fn tell(&self, recipient: &Address, change: Change) {
        let (id, at, settings) = (self.new_id(), self.clock.now(), &self.notices);
        // Better in the house's language than not at all.
        let language = self.language_of(recipient).await.unwrap_or_default();
        let what = &change.sentence();
        let mail = ChangeMail { recipient, language: language.as_deref(), what, at, id };
        let sent = match settings.templates.changed(&settings.head, &mail) {
            Ok(text) => self.mail(id, Class::Notice, recipient, &text).await,
            Err(error) => Err(error.into()),
        };
        if let Err(error) = sent {
            tracing::error!(%error, "an account's owner could not be told of a change");
        }
    }

    /// The language that somebody chose in the account, if there is one.
    pub(super) async fn language_of(
        &self,
        address: &Address,
    ) -> Result<Option<String>, StoreError> {
        Ok(self.people.account(address).await?.and_then(|account| account.language))
    }

    async fn mail(
        &self,
        id: QueueId,
        class: Class,
        recipient: &Address,
        text: &MailData,
    ) -> Result<QueueId, VaultError> {
        let needs = Needs {
            eight_bit: !text.is_ascii(),
            smtputf8: recipient.needs_smtputf8(),
            require_tls: false,
        };
        let facts = MessageFacts::own(id, class, self.clock.now(), needs);
        let sealed = self.seal_own(facts, vec![recipient.clone()], text)?;
        self.queue.accept(sealed).await?;
        Ok(id)
    }
}
