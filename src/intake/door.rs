//! The door: every message comes in through it, whether over SMTP or written at the portal. It is
//! sealed, scanned and indexed as it passes; nothing is held whole.

use crate::{
    intake::{BUDGET, LARGE, UNIT, WAIT},
    mail::{
        Address, QueueId, ReversePath, Wishes,
        header::HeaderScan,
        parts::{Indexer, PartIndex},
    },
    policies::Policies,
    policy::{RuleAction, RuleFacts, RuleVerdict},
    seal::header::{Class, ClientFacts, MessageFacts, Needs},
    store::{Grant, Health, QueueStore, StoreError},
    vault::{Deposit, Vault, VaultError},
};
use std::sync::Arc;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// RFC 5321 §6.3: more `Received` fields than this are a loop.
const MAX_HOPS: usize = 50;

/// The one way in.
#[derive(Debug, Clone)]
pub struct Door {
    pub(super) vault: Vault,
    queue: Arc<dyn QueueStore>,
    policies: Arc<dyn Policies>,
    pub(super) budget: Arc<Semaphore>,
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
    /// How large it will be, if that was said.
    pub declared_size: Option<u64>,
}

/// A message whose content is on its way. Dropped before [`Incoming::commit`] it leaves nothing.
#[derive(Debug)]
pub struct Incoming {
    door: Door,
    facts: MessageFacts,
    recipients: Vec<Address>,
    deposit: Deposit,
    scan: HeaderScan,
    indexer: Indexer,
    high_bytes: bool,
    _memory: OwnedSemaphorePermit,
}

impl Door {
    /// A door that seals into `vault` and commits to `queue`.
    pub fn new(vault: Vault, queue: Arc<dyn QueueStore>, policies: Arc<dyn Policies>) -> Self {
        Self { vault, queue, policies, budget: Arc::new(Semaphore::new(BUDGET)) }
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
        let memory = self.reserve(envelope.declared_size).await?;
        let recipients = envelope.recipients.clone();
        let facts = self.facts(envelope);
        let deposit = self.vault.deposit(facts.clone(), recipients.clone());
        let deposit = deposit.map_err(|error| failed(facts.id, &error))?;
        Ok(Incoming {
            door: self.clone(),
            facts,
            recipients,
            deposit,
            scan: HeaderScan::default(),
            indexer: Indexer::default(),
            high_bytes: false,
            _memory: memory,
        })
    }

    /// Waits a while for memory: many messages at once slow each other down rather than the
    /// machine.
    async fn reserve(&self, declared_size: Option<u64>) -> Result<OwnedSemaphorePermit, Refusal> {
        const { assert!(LARGE as usize <= BUDGET) };
        let units = if declared_size.is_some_and(|size| size <= UNIT / 2) { 1 } else { LARGE };
        match timeout(WAIT, Arc::clone(&self.budget).acquire_many_owned(units)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => {
                tracing::warn!("content waits for memory; a message was put off");
                Err(Refusal::Busy)
            }
        }
    }

    /// What is known before the content: sealed in front of it. The rules have not spoken yet, so
    /// it is protected.
    fn facts(&self, envelope: Envelope) -> MessageFacts {
        let now = self.vault.clock.now();
        let millis = u64::try_from(now.as_millisecond()).unwrap_or_default();
        MessageFacts {
            id: QueueId::new(millis, rand::random()),
            class: Class::Protected,
            sender: envelope.sender,
            arrived: now,
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

    /// The next piece of content.
    ///
    /// # Errors
    /// [`Refusal`] if it can't be stored; the message is then lost to us.
    pub async fn write(&mut self, content: &[u8]) -> Result<(), Refusal> {
        self.scan.feed(content);
        self.indexer.feed(content);
        self.high_bytes |= !content.is_ascii();
        self.deposit.write(content).await.map_err(|error| failed(self.facts.id, &error))
    }

    /// The content has ended: judged, made durable, committed, and with it its author's own copy
    /// where there is one. Only then is there an id to answer with.
    ///
    /// # Errors
    /// [`Refusal`] says why it is not taken; nothing of it is kept.
    pub async fn commit(self, copy: Option<Grant>) -> Result<QueueId, Refusal> {
        // RFC 5321 §6.3
        if self.scan.received_count() > MAX_HOPS {
            return Err(Refusal::Loop);
        }
        let (id, size) = (self.facts.id, self.deposit.size());
        let (index, fields) = (self.indexer.finish(), self.scan.finish());
        let rule = self.door.policies.current().judge(&RuleFacts {
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
        let finished = self.deposit.finish(&index).await.map_err(|error| failed(id, &error))?;
        let mut message = finished.message;
        message.facts.message_id = fields.message_id();
        message.facts.sender_name = fields.from_name();
        message.facts.references = fields.references();
        message.facts.rule = rule;
        message.facts.needs.eight_bit |= self.high_bytes;
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
        | VaultError::Template(_)
        | VaultError::Refused(_) => Refusal::NotStored,
    }
}

/// Local parts are people; the log does without.
fn domain_only(sender: &ReversePath) -> String {
    sender.as_ref().map(|address| format!("…@{}", address.domain())).unwrap_or_default()
}
