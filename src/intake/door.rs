//! The door: every message comes in through it, whether over SMTP or written at the portal. It is
//! sealed, scanned and indexed as it passes; nothing is held whole.

use crate::{
    intake::{
        limits::{Counts, Refused, weight},
        memory::{Memory, POOL, Share},
    },
    mail::{
        Address, MailData, QueueId, ReversePath, Wishes,
        header::HeaderScan,
        parts::{Indexer, PartIndex},
        pickup::PickupField,
    },
    policies::Policies,
    policy::{RuleAction, RuleFacts, RuleVerdict},
    seal::header::{Class, ClientFacts, MessageFacts, Needs},
    store::{Announced, Grant, Health, QueueStore, StoreError, queue::SMALL},
    vault::{Deposit, Vault, VaultError},
};
use std::{mem, sync::Arc};

/// RFC 5321 §6.3: more `Received` fields than this are a loop.
const MAX_HOPS: usize = 50;
/// Content read at once at first: a small message comes whole.
const PORTION: usize = 16 * 1024;
/// Content read at once of a large one.
const LARGE_PORTION: usize = 64 * 1024;
/// A portion is held so many times at most: as it was read, as it waits for whoever reads it, as it
/// comes to the door.
const COPIES: usize = 3;
/// An envelope is held so many times: here, by the deposit, in the sealed header.
const ENVELOPES: usize = 3;

/// The one way in.
#[derive(Debug, Clone)]
pub struct Door {
    pub(super) vault: Vault,
    queue: Arc<dyn QueueStore>,
    policies: Arc<dyn Policies>,
    /// What all messages on their way in may hold together.
    pub(super) memory: Memory,
    pub(super) counts: Arc<Counts>,
}

/// Why a message is not taken. What is ours to mend says no more than "later".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No space.
    #[error("the store is full")]
    Full,
    /// It could not be stored.
    #[error("the message could not be stored")]
    NotStored,
    /// Too much comes in at once.
    #[error("too much mail at once")]
    Busy,
    /// It goes round in circles.
    #[error("the message is in a loop")]
    Loop,
    /// A message rule refuses it.
    #[error("a message rule refuses it")]
    Rule,
    /// Its field that names the second channel is not understood.
    #[error("its field X-Restante-Pickup is not understood")]
    Pickup,
}

/// What is known of a message before its content.
#[derive(Debug)]
pub struct Envelope {
    /// Reverse-path.
    pub sender: ReversePath,
    /// Recipients, without repeats.
    pub recipients: Vec<Address>,
    /// Who hands it in.
    pub client: Option<ClientFacts>,
    /// What was declared of the content.
    pub needs: Needs,
    /// ENVID (RFC 3461).
    pub envelope_id: Option<String>,
    /// What the sender wants to hear of delivery.
    pub wishes: Wishes,
}

/// A message whose content is on its way. Dropped before [`Incoming::commit`] it leaves nothing.
#[derive(Debug)]
pub struct Incoming {
    door: Door,
    facts: MessageFacts,
    recipients: Vec<Address>,
    deposit: Deposit,
    /// Takes off the field that names the second channel.
    pickup: PickupField,
    scan: HeaderScan,
    indexer: Indexer,
    high_bytes: bool,
    /// Content to be read at once.
    portion: usize,
    /// What its recipients weigh.
    envelope: usize,
    _announced: Announced,
    share: Share,
}

impl Door {
    /// A door that seals into `vault` and commits to `queue`.
    pub fn new(vault: Vault, queue: Arc<dyn QueueStore>, policies: Arc<dyn Policies>) -> Self {
        Self { vault, queue, policies, memory: Memory::new(POOL), counts: Arc::default() }
    }

    /// Why no new mail can be taken now.
    pub fn pressure(&self) -> Option<Refusal> {
        match self.queue.health() {
            Health::Ok => None,
            Health::Full => Some(Refusal::Full),
            Health::Broken(_) => Some(Refusal::NotStored),
        }
    }

    /// Opens a deposit for a message.
    ///
    /// # Errors
    /// [`Refusal`] says why it is not taken.
    pub async fn begin(&self, envelope: Envelope) -> Result<Incoming, Refusal> {
        if let Some(refusal) = self.pressure() {
            return Err(refusal);
        }
        let recipients = envelope.recipients.clone();
        let facts = self.facts(envelope);
        let deposit = self.vault.deposit(facts.clone(), recipients.clone());
        let deposit = deposit.map_err(|error| failed(facts.id, &error))?;
        let weight: usize = recipients.iter().map(weight).sum();
        let mut incoming = Incoming {
            door: self.clone(),
            facts,
            recipients,
            deposit,
            pickup: PickupField::default(),
            scan: HeaderScan::default(),
            indexer: Indexer::default(),
            high_bytes: false,
            portion: PORTION,
            envelope: weight.saturating_mul(ENVELOPES),
            _announced: self.queue.announce(),
            share: self.memory.share(),
        };
        incoming.find_room().await?;
        Ok(incoming)
    }

    /// What is known before the content: sealed in front of it. The rules have not spoken yet, so
    /// it is protected.
    fn facts(&self, envelope: Envelope) -> MessageFacts {
        MessageFacts {
            id: self.vault.clock.new_id(),
            class: Class::Protected,
            sender: envelope.sender,
            arrived: self.vault.guard.latest(),
            message_id: None,
            client: envelope.client,
            needs: envelope.needs,
            envelope_id: envelope.envelope_id,
            sender_name: None,
            grant: None,
            rule: RuleVerdict::protected(),
            references: Vec::new(),
            wishes: envelope.wishes,
        }
    }
}

impl Incoming {
    /// Its id.
    pub fn id(&self) -> QueueId {
        self.facts.id
    }

    /// How much content is to be read at once.
    pub(super) fn portion(&self) -> usize {
        self.portion
    }

    /// The next content, which is mail data whoever wrote it: a client of SMTP or a writer at the
    /// portal. More than a portion is taken as several, so that it leaves for its file between them
    /// where memory is short.
    ///
    /// # Errors
    /// [`Refusal`] if it can't be stored; the message is then lost to us.
    pub async fn write(&mut self, content: &MailData) -> Result<(), Refusal> {
        for portion in content.chunks(self.portion) {
            self.take(portion).await?;
        }
        Ok(())
    }

    async fn take(&mut self, content: &[u8]) -> Result<(), Refusal> {
        if self.pickup.is_over() {
            return self.keep(content).await;
        }
        let mut kept = Vec::with_capacity(content.len());
        self.pickup.feed(content, &mut kept);
        self.keep(&kept).await
    }

    async fn keep(&mut self, content: &[u8]) -> Result<(), Refusal> {
        self.scan.feed(content);
        self.indexer.feed(content);
        self.high_bytes |= !content.is_ascii();
        self.deposit.write(content).await.map_err(|error| failed(self.facts.id, &error))?;
        if self.deposit.size() > PORTION as u64 && self.portion < LARGE_PORTION {
            let more = (LARGE_PORTION - PORTION).saturating_mul(COPIES);
            if self.share.fit_easily(self.held().saturating_add(more)) {
                self.portion = LARGE_PORTION;
            }
        }
        self.find_room().await
    }

    /// Bytes that the message takes here.
    fn held(&self) -> usize {
        let buffers = self.portion.saturating_mul(COPIES);
        let read = self.scan.held().saturating_add(self.indexer.held());
        buffers
            .saturating_add(self.envelope)
            .saturating_add(read)
            .saturating_add(self.deposit.held())
    }

    /// Sees to it that there is memory for what is held. Where there is none, sealed bytes leave for
    /// their file; what can't leave waits a while, so that many messages at once slow each other
    /// down rather than the machine.
    async fn find_room(&mut self) -> Result<(), Refusal> {
        let large = self.deposit.size() > SMALL as u64;
        let held = self.held();
        let fits = if large { self.share.fit_easily(held) } else { self.share.fit(held) };
        if fits {
            return Ok(());
        }
        if self.deposit.size() > 0 {
            self.deposit.spill().await.map_err(|error| failed(self.facts.id, &error))?;
        }
        if self.share.wait(self.held()).await {
            return Ok(());
        }
        self.door.counts.count(Refused::Memory);
        tracing::warn!(id = %self.facts.id, "no memory is left for a message; it was put off");
        Err(Refusal::Busy)
    }

    /// The content has ended: judged, made durable, committed, and with it its author's own copy
    /// where there is one. Only then is there an id to answer with.
    ///
    /// # Errors
    /// [`Refusal`] says why it is not taken; nothing of it is kept.
    pub async fn commit(mut self, copy: Option<Grant>) -> Result<QueueId, Refusal> {
        let mut rest = Vec::new();
        let wish = mem::take(&mut self.pickup).finish(&mut rest);
        self.keep(&rest).await?;
        let wish = wish.map_err(|error| {
            tracing::info!(id = %self.facts.id, "refused: {error}");
            Refusal::Pickup
        })?;
        // RFC 5321 §6.3
        if self.scan.received_count() > MAX_HOPS {
            return Err(Refusal::Loop);
        }
        let (id, size) = (self.facts.id, self.deposit.size());
        let (mut index, fields) = (self.indexer.finish(), self.scan.finish());
        let mut rule = self.door.policies.current().judge(&RuleFacts {
            sender: &self.facts.sender,
            recipients: &self.recipients,
            fields: &fields,
            size,
            attachments: &attachment_names(&index),
        });
        let client = self.facts.client.as_ref().map(|client| client.address.to_string());
        let client = client.unwrap_or_default();
        if rule.action == RuleAction::Reject {
            let at = rule.rule.map(|(file, line)| format!("{file}:{line}"));
            tracing::info!(%id, client, rule = at, "refused by a message rule");
            return Err(Refusal::Rule);
        }
        if let Some(wish) = &wish {
            // A message that names its channel is not meant to pass in the open.
            (rule.action, rule.pickup) = (RuleAction::Protect, wish.kind);
        }
        index.pickup = wish;
        let facts = self.deposit.facts();
        facts.message_id = fields.message_id();
        facts.sender_name = fields.from_name();
        facts.references = fields.references();
        facts.rule = rule;
        facts.needs.eight_bit |= self.high_bytes;
        let finished = self.deposit.finish(index).await.map_err(|error| failed(id, &error))?;
        let mut message = finished.message;
        message.copy = copy;
        let accepted = self.door.queue.accept(message).await;
        accepted.map_err(|error| failed(id, &VaultError::Store(error)))?;
        let (from, nrcpt) = (domain_only(&self.facts.sender), self.recipients.len());
        tracing::info!("{id}: from=<{from}>, size={size}, nrcpt={nrcpt}, client=[{client}]");
        Ok(id)
    }
}

fn attachment_names(index: &PartIndex) -> Vec<String> {
    index.attachments().filter_map(|part| part.name.clone()).collect()
}

/// A failure of ours: the log says what, who hands it in only that they may try again.
fn failed(id: QueueId, error: &VaultError) -> Refusal {
    tracing::error!(%id, %error, "a message could not be taken");
    match error {
        VaultError::Store(StoreError::Full) => Refusal::Full,
        VaultError::Store(
            StoreError::Busy
            | StoreError::NotFound
            | StoreError::Corrupt(_)
            | StoreError::Fenced
            | StoreError::Fatal(_),
        )
        | VaultError::Seal(_)
        | VaultError::Ring(_)
        | VaultError::Gone
        | VaultError::Ended
        | VaultError::Template(_)
        | VaultError::Busy
        | VaultError::Refused(_) => Refusal::NotStored,
    }
}

/// Local parts are people; the log does without.
fn domain_only(sender: &ReversePath) -> String {
    sender.as_ref().map(|address| format!("…@{}", address.domain())).unwrap_or_default()
}
