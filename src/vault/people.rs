//! Accounts: changes that never undo each other, and the mail that goes to their owners.

use super::{Vault, VaultError, random_secret};
use crate::{
    language::{Language, Text, say},
    mail::{
        Address, QueueId,
        notice::{ChangeMail, CodeMail},
    },
    seal::{Class, DataKey, MessageFacts, WrappedKey, header::Needs},
    store::{Account, AccountMove, AuditEvent, Moved, NewMessage, StoreError},
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
    /// The account has another address now.
    MovedAway,
    /// The account has this address now.
    MovedHere,
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
            Self::MovedAway => {
                say!(
                    "Our helpdesk has given the account another address. This one no longer lets \
                     in, and all devices were signed out."
                )
            }
            Self::MovedHere => {
                say!(
                    "Our helpdesk has given your account this address. Sign in with it from now \
                     on; all devices were signed out. Nothing else has changed."
                )
            }
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
        // Better in the house's language than not at all.
        let language = self.language_of(recipient).await.unwrap_or_default();
        let sent = match self.change_mail(recipient, language.as_deref(), change) {
            Ok(mail) => self.queue.accept(mail).await.map_err(VaultError::from),
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::error!(%error, "an account's owner could not be told of a change");
        }
    }

    /// The mail that tells of a change, to go into the commit of that change.
    fn change_mail(
        &self,
        recipient: &Address,
        language: Option<&str>,
        change: Change,
    ) -> Result<NewMessage, VaultError> {
        let (id, at, settings) = (self.new_id(), self.clock.now(), &self.notices);
        let what = &change.sentence();
        let mail = ChangeMail { recipient, language, what, at, id };
        let text = settings.templates.changed(&settings.head, &mail)?;
        self.sealed_mail(id, Class::Notice, recipient, text.as_ref())
    }

    /// Gives an account another address, with mail to both mailboxes and these records.
    pub async fn move_account(
        &self,
        account: &Account,
        to: &Address,
        events: Vec<AuditEvent>,
    ) -> Result<Moved, VaultError> {
        let language = account.language.as_deref();
        let mail = vec![
            self.change_mail(&account.address, language, Change::MovedAway)?,
            self.change_mail(to, language, Change::MovedHere)?,
        ];
        let (account, to, at) = (account.clone(), to.clone(), self.clock.now());
        Ok(self.people.move_account(AccountMove { account, to, at, mail, events }).await?)
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
        text: &[u8],
    ) -> Result<QueueId, VaultError> {
        self.queue.accept(self.sealed_mail(id, class, recipient, text)?).await?;
        Ok(id)
    }

    fn sealed_mail(
        &self,
        id: QueueId,
        class: Class,
        recipient: &Address,
        text: &[u8],
    ) -> Result<NewMessage, VaultError> {
        let needs = Needs {
            eight_bit: !text.is_ascii(),
            smtputf8: recipient.needs_smtputf8(),
            require_tls: false,
        };
        let facts = MessageFacts::own(id, class, self.clock.now(), needs);
        self.seal_own(facts, vec![recipient.clone()], text)
    }
}
