//! Mail to readers, and the secrets of their second factors.

use super::{Vault, VaultError, random_secret};
use crate::{
    language::Language,
    mail::{Address, MailData, QueueId, notice::CodeMail},
    seal::{Class, DataKey, KeyRing, MessageFacts, Purpose, WrappedKey, header::Needs},
    store::{NewMessage, StoreError},
};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Minutes for which a mailed code is good.
pub const CODE_MINUTES: u32 = 15;
impl Vault {
    /// What an identity's one-time passwords are made from: random, and sealed like a message's key.
    /// With the ring that sealed it, to be held until the seed is in the store: no key of it is retired
    /// before.
    pub fn new_seed(&self, generation: [u8; 16]) -> (WrappedKey, Arc<KeyRing>) {
        let (key, ring) = (DataKey::from_random(random_secret()), self.keys.ring());
        let owner = QueueId::from_bytes(generation);
        (ring.wrap(&key, Purpose::Seed, owner, rand::random()), ring)
    }

    /// The secret behind a seed: 160 bits, as RFC 4226 section 4 recommends.
    pub fn secret_of(
        &self,
        seed: &WrappedKey,
        generation: [u8; 16],
    ) -> Result<Zeroizing<[u8; 20]>, VaultError> {
        let owner = QueueId::from_bytes(generation);
        let key = self.keys.ring().unwrap(seed, Purpose::Seed, owner)?;
        let mut secret = Zeroizing::new([0; 20]);
        for (to, from) in secret.iter_mut().zip(key.bytes()) {
            *to = *from;
        }
        Ok(secret)
    }

    /// Mails a code to type at the portal, in the language of who asked for it; a long code comes with
    /// the address of the page that it is typed at.
    pub async fn mail_code(
        &self,
        recipient: &Address,
        (code, link): (&str, Option<&str>),
        language: &Language,
    ) -> Result<QueueId, VaultError> {
        let (id, at, settings) = (self.new_id(), self.clock.now(), &self.notices);
        let mail = CodeMail {
            recipient,
            language: Some(language.code()),
            code,
            link,
            minutes: CODE_MINUTES,
            at,
            id,
        };
        let text = Zeroizing::new(settings.templates.code(&settings.head, &mail)?);
        self.queue.accept(self.own_mail(id, Class::Code, recipient, &text)?).await?;
        Ok(id)
    }

    /// The language that was chosen in the account of an address, if there is one.
    pub(super) async fn language_of(
        &self,
        address: &Address,
    ) -> Result<Option<String>, StoreError> {
        Ok(self.people.account(address).await?.and_then(|account| account.language))
    }

    /// Mail of our own to one recipient, sealed and ready to be accepted.
    pub(crate) fn own_mail(
        &self,
        id: QueueId,
        class: Class,
        recipient: &Address,
        text: &MailData,
    ) -> Result<NewMessage, VaultError> {
        let needs = Needs {
            eight_bit: !text.is_ascii(),
            smtputf8: recipient.needs_smtputf8(),
            require_tls: false,
        };
        let facts = MessageFacts::own(id, class, self.guard.latest(), needs);
        self.seal_own(facts, vec![recipient.clone()], text)
    }
}
