//! Deposit: a message is sealed while it streams in.

use super::{Vault, VaultError, dkim, random_secret};
use crate::{
    mail::{Address, MailData, parts::PartIndex},
    seal::{
        DataKey, KeyRing, MessageFacts, Purpose, SealedHeader, SealedIndex, Sealer,
        stream::{CHUNK, HEADER_MAX, INDEX_MAX},
    },
    store::{BodyWriter, NewMessage, queue::NewBody, queue::SMALL},
};
use bytes::Bytes;
use serde::Serialize;
use std::{fmt, mem, sync::Arc};
use zeroize::Zeroizing;

/// Sealed bytes gathered for one write of a large body.
pub(super) const GATHER: usize = 4 * CHUNK;

/// A message on its way in: seals as it streams. Dropping it discards what was written.
pub struct Deposit {
    vault: Vault,
    facts: MessageFacts,
    recipients: Vec<Address>,
    envelope: Envelope,
    /// Sealed bytes that are still here.
    sealed: Vec<u8>,
    /// Where they go once they are too many for the row's own commit.
    writer: Option<Box<dyn BodyWriter>>,
    /// False from the moment bytes left for the store until it has taken them: neither an error nor
    /// a call given up half-way leaves a gap that a later call would seal over.
    whole: bool,
}

/// What a finished deposit knows of the message (for rules), before it is committed.
#[derive(Debug)]
pub struct Finished {
    /// Ready for `QueueStore::accept`.
    pub message: NewMessage,
}

/// A begun sealing and what the row must know of it.
struct Envelope {
    sealer: Sealer,
    header_len: u32,
    /// What wrapped its key.
    ring: Arc<KeyRing>,
}

impl fmt::Debug for Deposit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deposit")
            .field("id", &self.facts.id)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

impl Vault {
    /// Opens a deposit. `facts` and `recipients` are sealed before the content as its header.
    pub fn deposit(
        &self,
        facts: MessageFacts,
        recipients: Vec<Address>,
    ) -> Result<Deposit, VaultError> {
        let (header, mut sealed) = (SealedHeader { facts, recipients }, Vec::new());
        let envelope = self.seal_header(&header, &mut sealed)?;
        let SealedHeader { facts, recipients } = header;
        let (vault, writer, whole) = (self.clone(), None, true);
        Ok(Deposit { vault, facts, recipients, envelope, sealed, writer, whole })
    }

    /// A message of ours (report, code), signed where there is a key for its `From`, sealed small,
    /// not yet accepted. One whose sealed form is larger than [`SMALL`] is refused.
    pub fn seal_own(
        &self,
        facts: MessageFacts,
        recipients: Vec<Address>,
        message: &MailData,
    ) -> Result<NewMessage, VaultError> {
        let signatures = dkim::signatures(&self.dkim, message).map_err(|error| {
            tracing::error!(%error, "mail of our own could not be signed (DKIM)");
            VaultError::Refused("a message of our own could not be signed")
        })?;
        let (header, mut sealed) = (SealedHeader { facts, recipients }, Vec::new());
        let mut envelope = self.seal_header(&header, &mut sealed)?;
        // What is sent is what was signed (RFC 6376 §3.7): neither part is repaired any more on its way.
        envelope.sealer.feed(&MailData::repaired(signatures.as_bytes()), &mut sealed);
        envelope.sealer.feed(message, &mut sealed);
        let size = envelope.sealer.size();
        let index = index_text(&header.facts, PartIndex::default())?;
        envelope.sealer.finish(&index, &mut sealed);
        if sealed.len() > SMALL {
            return Err(VaultError::Refused("a message of our own must be small"));
        }
        let SealedHeader { facts, recipients } = header;
        let (body, due) = (NewBody::Small(Bytes::from(sealed)), self.clock.now());
        let (header_len, ring) = (envelope.header_len, Some(envelope.ring));
        Ok(NewMessage { facts, recipients, body, size, header_len, due, copy: None, ring })
    }

    fn seal_header(
        &self,
        header: &SealedHeader,
        out: &mut Vec<u8>,
    ) -> Result<Envelope, VaultError> {
        let text = to_json(header)?;
        let header_len = u32::try_from(text.len())
            .ok()
            .filter(|_| text.len() <= HEADER_MAX)
            .ok_or(VaultError::Refused("the envelope is too large to be sealed"))?;
        let id = header.facts.id;
        let key = DataKey::from_random(random_secret());
        let ring = self.keys.ring();
        let wrapped = ring.wrap(&key, Purpose::Message, id, rand::random());
        let sealer = Sealer::new(self.suite, &key, id, &wrapped, &text, out);
        Ok(Envelope { sealer, header_len, ring })
    }
}

impl Deposit {
    /// Content as it arrives. After an error, and after a call that was given up, the deposit takes
    /// no more.
    pub async fn write(&mut self, content: &[u8]) -> Result<(), VaultError> {
        self.check()?;
        // In portions: what is held stays bounded whatever the caller brings at once.
        for piece in content.chunks(CHUNK) {
            self.envelope.sealer.feed(piece, &mut self.sealed);
            let room = if self.writer.is_some() { GATHER } else { SMALL };
            if self.sealed.len() > room {
                self.hand_over(GATHER + 2 * CHUNK).await?;
            }
        }
        Ok(())
    }

    /// Sealed bytes held here.
    pub fn held(&self) -> usize {
        self.sealed.len()
    }

    /// Hands over to the store what is held, however little: memory is short.
    pub async fn spill(&mut self) -> Result<(), VaultError> {
        self.check()?;
        if self.sealed.is_empty() {
            return Ok(());
        }
        self.hand_over(0).await
    }

    /// Content bytes so far.
    pub fn size(&self) -> u64 {
        self.envelope.sealer.size()
    }

    /// What is known of the message. What its content told is entered here before
    /// [`Deposit::finish`], which seals it behind the content.
    pub const fn facts(&mut self) -> &mut MessageFacts {
        &mut self.facts
    }

    /// The content has ended: seals the index, makes a large body durable.
    pub async fn finish(mut self, parts: PartIndex) -> Result<Finished, VaultError> {
        self.check()?;
        let size = self.size();
        let text = index_text(&self.facts, parts)?;
        let Envelope { sealer, header_len, ring } = self.envelope;
        sealer.finish(&text, &mut self.sealed);
        let mut writer = self.writer;
        if writer.is_none() && self.sealed.len() > SMALL {
            writer = Some(self.vault.bodies.create(self.facts.id).await?);
        }
        let body = match writer {
            None => NewBody::Small(Bytes::from(self.sealed)),
            Some(mut writer) => {
                writer.write(Bytes::from(self.sealed)).await?;
                NewBody::At(writer.seal().await?)
            }
        };
        let (facts, recipients, due) = (self.facts, self.recipients, self.vault.clock.now());
        let (copy, ring) = (None, Some(ring));
        let message = NewMessage { facts, recipients, body, size, header_len, due, copy, ring };
        Ok(Finished { message })
    }

    fn check(&self) -> Result<(), VaultError> {
        if self.whole {
            return Ok(());
        }
        Err(VaultError::Refused("a part of the message did not reach the store"))
    }

    /// `room`: for what is to come.
    async fn hand_over(&mut self, room: usize) -> Result<(), VaultError> {
        self.whole = false;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(self.vault.bodies.create(self.facts.id).await?),
        };
        let gathered = mem::replace(&mut self.sealed, Vec::with_capacity(room));
        writer.write(Bytes::from(gathered)).await?;
        self.whole = true;
        Ok(())
    }
}

/// The index as it is sealed. One beyond all bounds shrinks to the message itself: it can still be
/// read whole, and nothing is refused for it.
fn index_text(facts: &MessageFacts, parts: PartIndex) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let mut index = SealedIndex { facts: Some(facts.clone()), parts };
    let text = to_json(&index)?;
    if text.len() <= INDEX_MAX {
        return Ok(text);
    }
    index.parts.parts.truncate(1);
    index.parts.truncated = true;
    to_json(&index)
}

fn to_json<T: Serialize>(value: &T) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    serde_json::to_vec(value)
        .map(Zeroizing::new)
        .map_err(|_| VaultError::Refused("the envelope can't be written as JSON"))
}
