//! The queue: what is due, by recipient.
use crate::{
    clock::TrustedTime,
    mail::{Address, Domain, EnhancedStatus, GrantId, QueueId},
    policy::{Dane, Dnssec, StsFacts, TlsFacts, Trouble, Why},
    seal::{KeyRing, MessageFacts},
    store::{Health, Locator, Order, Ordered, StoreError, people::Grant},
};
use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, sync::Arc};

/// Sealed bodies up to this many sealed bytes travel in [`NewBody::Small`] and are laid beside
/// their row in one commit.
pub const SMALL: usize = 256 * 1024;

/// A message to accept.
#[derive(Debug)]
pub struct NewMessage {
    /// What is known of it.
    pub facts: MessageFacts,
    /// Recipients (at most 1,000; without repeats).
    pub recipients: Vec<Address>,
    /// Its sealed body.
    pub body: NewBody,
    /// Content size in bytes (plaintext).
    pub size: u64,
    /// Length of the sealed header's plaintext, to find frames.
    pub header_len: u32,
    /// When its recipients are first due (usually now).
    pub due: Timestamp,
    /// Its author's own copy ([`GrantKind::Sent`](crate::store::GrantKind)), in the same commit.
    pub copy: Option<Grant>,
    /// The ring that wrapped its key: none of the ring's keys is retired until the message is in the
    /// store.
    pub ring: Option<Arc<KeyRing>>,
}
/// Where the sealed body is.
#[derive(Debug)]
pub enum NewBody {
    /// At most [`SMALL`] bytes, laid down by `accept` itself.
    Small(Bytes),
    /// Already durable.
    At(Locator),
}
/// A message in the queue or in the vault. It holds no key: a wrapped key is in the body's prelude
/// and nowhere else.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MessageRow {
    /// What is known of it.
    pub facts: MessageFacts,
    /// Content size.
    pub size: u64,
    /// See [`NewMessage::header_len`].
    pub header_len: u32,
    /// Where its sealed body is.
    pub body: Locator,
    /// When the last recipient came to an end.
    pub done: Option<Timestamp>,
}
/// One recipient.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecipientRow {
    /// Number within the message, from 0.
    pub index: u16,
    /// Address.
    pub address: Address,
    /// State.
    pub state: RecipientState,
    /// Attempts so far.
    pub attempts: u32,
    /// When the direct way first failed.
    pub first_failed: Option<Timestamp>,
    /// True once a delay warning has gone to the sender.
    pub warned: bool,
    /// Attempts in a row that broke off by a fault of the program.
    #[serde(default)]
    pub faults: u32,
    /// The last decision.
    pub why: Option<Why>,
}
/// A recipient's state owns only what is true in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum RecipientState {
    /// Waiting for its time.
    Waiting {
        /// When.
        next: Timestamp,
    },
    /// Held by an operator.
    Held {
        /// When it would be due.
        next: Timestamp,
    },
    /// Handed to the next hop.
    Delivered {
        /// When.
        at: Timestamp,
        /// Its reply.
        reply: String,
    },
    /// Sealed for pickup.
    Granted {
        /// When.
        at: Timestamp,
        /// Grant.
        grant: GrantId,
    },
    /// Reported back to the sender (or dropped, where the sender is null).
    Bounced {
        /// When.
        at: Timestamp,
        /// Status.
        status: EnhancedStatus,
    },
    /// Ran out of time, reported back.
    Expired {
        /// When.
        at: Timestamp,
    },
    /// Removed by an operator.
    Removed {
        /// When.
        at: Timestamp,
    },
}
/// One attempt on one host, for `trace`. Texts are bounded to 512 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When.
    pub at: Timestamp,
    /// MX host.
    pub mx: Option<String>,
    /// Address and port.
    pub address: Option<String>,
    /// TLS as seen.
    pub tls: Option<TlsFacts>,
    /// True if the level's demands on the certificate were met.
    pub verified: bool,
    /// Reply of the peer.
    pub reply: Option<String>,
    /// What kind of trouble kept content from going over this connection, if any did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<Trouble>,
    /// What went wrong.
    pub error: Option<String>,
    /// What DNS said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsRecord>,
}
/// What DNS said before an attempt, for `trace`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRecord {
    /// The MX set in the order to try; at most 20.
    pub mx: Vec<String>,
    /// What that answer is worth.
    pub dnssec: Dnssec,
    /// TLSA records of the host, or why there are none, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dane: Option<Dane>,
    /// The domain's MTA-STS policy, or why there is none, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sts: Option<StsFacts>,
}
/// What a worker asks of the queue.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Now.
    pub now: Timestamp,
    /// Claims at most.
    pub max: usize,
    /// How long they are leased.
    pub lease: SignedDuration,
    /// How many of them may be of one domain. What there is no room for stays in the queue, and in
    /// nobody's way.
    pub room: Room,
}
/// Claims that the worker can take of one domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Of these.
    pub named: HashMap<Domain, usize>,
    /// Of any other.
    pub others: usize,
}
/// What the queue gave.
#[derive(Debug, Clone, Default)]
pub struct Claimed {
    /// Those first that have been due for longest.
    pub claims: Vec<Claim>,
    /// When there is the next to claim, of domains that have room left.
    pub next: Option<Timestamp>,
}
/// Work that is due: recipients of one message in one domain, leased to the caller.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Fencing token; `settle` checks it.
    pub token: u64,
    /// The message.
    pub message: MessageRow,
    /// Domain.
    pub domain: Domain,
    /// Recipients, all waiting and due.
    pub recipients: Vec<RecipientRow>,
}
/// What becomes of one recipient.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Which.
    pub index: u16,
    /// New state.
    pub state: RecipientState,
    /// Decision.
    pub why: Option<Why>,
    /// Attempts made now.
    pub attempts: Vec<Attempt>,
    /// See [`RecipientRow`].
    pub first_failed: Option<Timestamp>,
    /// See [`RecipientRow`].
    pub warned: bool,
    /// See [`RecipientRow`].
    pub faults: u32,
    /// The grant that [`RecipientState::Granted`] speaks of.
    pub grant: Option<Grant>,
}
/// What [`QueueStore::doomed`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doomed {
    /// Messages with a small body that the call destroyed.
    pub destroyed: usize,
    /// Messages with a small body that could not be destroyed now.
    pub left: usize,
    /// Messages whose large body is to be deleted, and where it lies.
    pub large: Vec<(QueueId, Locator)>,
}
/// A message of ours that comes into being with the outcome (notice, report), in the same commit.
/// Always small.
pub type Spawn = NewMessage;
/// All outcomes of a claim and what they bring forth: one commit.
#[derive(Debug)]
pub struct Settle {
    /// The claim's token.
    pub token: u64,
    /// Message.
    pub id: QueueId,
    /// Outcomes of the claim's recipients (each exactly once).
    pub outcomes: Vec<Outcome>,
    /// Notices and reports.
    pub spawn: Vec<Spawn>,
    /// A grant that the message announced in vain: it is recalled, unless somebody has opened it.
    pub recall: Option<GrantId>,
}
/// Which messages.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only with a recipient waiting or held.
    pub open: bool,
    /// Sender, without regard to case.
    pub sender: Option<Address>,
    /// A recipient, without regard to case.
    pub recipient: Option<Address>,
    /// A recipient's domain.
    pub domain: Option<Domain>,
    /// Message-ID.
    pub message_id: Option<String>,
}
/// Counts for `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Recipients due or leased, never tried.
    pub active: u64,
    /// Recipients waiting after an attempt.
    pub deferred: u64,
    /// Recipients held.
    pub held: u64,
    /// Arrival of the oldest message with a recipient waiting.
    pub oldest: Option<Timestamp>,
    /// Messages with a live grant.
    pub vault_messages: u64,
    /// Live grants of recipients.
    pub grants: u64,
    /// Sealed bytes kept for them.
    pub vault_bytes: u64,
    /// What small bodies take of the disk.
    pub segments: SegmentBytes,
    /// Rows that can't be read, and messages whose other rows are missing. They are left as they are.
    pub unreadable: u64,
}
/// What segments of small bodies take of the disk, and how much of it live bodies need. What they
/// waste is bounded by compaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentBytes {
    /// Bytes of the disk.
    pub taken: u64,
    /// Bytes of bodies that messages still have.
    pub live: u64,
}
impl MessageRow {
    /// The row of a message that has just been accepted and whose body lies at `body`.
    pub fn accepted(message: &NewMessage, body: Locator) -> Self {
        Self {
            facts: message.facts.clone(),
            size: message.size,
            header_len: message.header_len,
            body,
            done: None,
        }
    }
}
impl RecipientState {
    /// True until the recipient has come to an end: it waits, or an operator holds it.
    pub const fn is_open(&self) -> bool {
        self.ended().is_none()
    }
    /// When the recipient came to its end, if it has.
    pub const fn ended(&self) -> Option<Timestamp> {
        match self {
            Self::Waiting { .. } | Self::Held { .. } => None,
            Self::Delivered { at, .. }
            | Self::Granted { at, .. }
            | Self::Bounced { at, .. }
            | Self::Expired { at }
            | Self::Removed { at } => Some(*at),
        }
    }
    /// When it is due, if it waits.
    pub const fn due(&self) -> Option<Timestamp> {
        match self {
            Self::Waiting { next } => Some(*next),
            Self::Held { .. }
            | Self::Delivered { .. }
            | Self::Granted { .. }
            | Self::Bounced { .. }
            | Self::Expired { .. }
            | Self::Removed { .. } => None,
        }
    }
}
impl RecipientRow {
    /// A recipient that nobody has tried yet.
    pub const fn new(index: u16, address: Address, next: Timestamp) -> Self {
        Self {
            index,
            address,
            state: RecipientState::Waiting { next },
            attempts: 0,
            first_failed: None,
            warned: false,
            faults: 0,
            why: None,
        }
    }
    /// Takes over what became of it. Each outcome counts as one attempt, however many hosts were
    /// asked.
    pub fn apply(&mut self, outcome: &Outcome) {
        self.state = outcome.state.clone();
        self.attempts = self.attempts.saturating_add(1);
        self.first_failed = outcome.first_failed;
        self.warned = outcome.warned;
        self.faults = outcome.faults;
        if let Some(why) = &outcome.why {
            self.why = Some(why.clone());
        }
    }
}
impl Ask {
    /// When the leases end.
    pub fn until(&self) -> Timestamp {
        self.now.saturating_add(self.lease).unwrap_or(Timestamp::MAX)
    }
}
impl Room {
    /// Room for any number of claims of any domain.
    pub fn endless() -> Self {
        Self { named: HashMap::new(), others: usize::MAX }
    }
    /// How many claims of that domain there is room for.
    pub fn of(&self, domain: &Domain) -> usize {
        self.named.get(domain).copied().unwrap_or(self.others)
    }
}
impl Filter {
    /// True if the message is one of those asked for.
    pub fn matches(&self, row: &MessageRow, recipients: &[RecipientRow]) -> bool {
        let any = |test: &dyn Fn(&RecipientRow) -> bool| recipients.iter().any(test);
        (!self.open || any(&|r| r.state.is_open()))
            && self
                .sender
                .as_ref()
                .is_none_or(|s| row.facts.sender.as_ref().is_some_and(|f| same(f, s)))
            && self.recipient.as_ref().is_none_or(|a| any(&|r| same(&r.address, a)))
            && self.domain.as_ref().is_none_or(|d| any(&|r| r.address.domain() == d))
            && self.message_id.as_ref().is_none_or(|i| row.facts.message_id.as_ref() == Some(i))
    }
}
/// The same mailbox as people type it: only its own host may tell case in a local part apart
/// (RFC 5321 §2.4), and who asks does not know how the sender wrote it.
fn same(one: &Address, other: &Address) -> bool {
    one.domain() == other.domain() && one.local().eq_ignore_ascii_case(other.local())
}
/// A message on its way into the queue: [`QueueStore::announce`].
#[derive(Debug, Clone, Default)]
pub struct Announced(Arc<()>);
impl Announced {
    /// How many are held, this one not.
    pub(super) fn others(&self) -> usize {
        Arc::strong_count(&self.0).saturating_sub(1)
    }
}
/// Attempts kept of one recipient; older ones are dropped.
pub const ATTEMPTS_KEPT: usize = 50;
/// The queue.
#[async_trait]
pub trait QueueStore: Send + Sync + std::fmt::Debug {
    /// Durable when it returns (the commit point of 250). A second `accept` of an id does nothing.
    async fn accept(&self, message: NewMessage) -> Result<(), StoreError>;
    /// A message is on its way, for as long as the answer is held: a store that writes several in
    /// one go may let others wait a moment for its `accept`.
    fn announce(&self) -> Announced {
        Announced::default()
    }
    /// Due work, leased until `now + lease`; a lease that is over is lost once the work has been
    /// claimed anew, and not before: who is late is still heard. A caller that drops this future before it is ready
    /// loses what it would have got until the lease ends.
    async fn claim(&self, ask: Ask) -> Result<Claimed, StoreError>;
    /// Wakes whoever waits for new work.
    fn arrivals(&self) -> Arc<tokio::sync::Notify>;
    /// Writes outcomes, grants and spawned messages in one commit. A message whose recipients all
    /// came to an end and that has no live grant is destroyed: a small body in this commit, a large
    /// one becomes doomed. [`StoreError::Fenced`] if the lease was lost.
    async fn settle(&self, settle: Settle) -> Result<(), StoreError>;
    /// Gives a claim back unchanged (shutdown).
    async fn release(&self, token: u64) -> Result<(), StoreError>;
    /// Carries out an operator's order in one commit. Recipients that somebody works on (under a
    /// lease) are left alone and named; [`StoreError::NotFound`] if there is no such message. A message whose last recipients are removed is doomed as after a settle.
    async fn order(&self, order: Order, now: Timestamp) -> Result<Ordered, StoreError>;
    /// A message and its recipients.
    async fn message(
        &self,
        id: QueueId,
    ) -> Result<Option<(MessageRow, Vec<RecipientRow>)>, StoreError>;
    /// All attempts of a recipient, oldest first.
    async fn attempts(&self, id: QueueId, index: u16) -> Result<Vec<Attempt>, StoreError>;
    /// Messages after that id, in order of arrival: at most `max`, and fewer where they have many
    /// recipients; none only if there are no more.
    async fn list(
        &self,
        filter: &Filter,
        after: Option<QueueId>,
        max: usize,
    ) -> Result<Vec<(MessageRow, Vec<RecipientRow>)>, StoreError>;
    /// Counts.
    async fn totals(&self) -> Result<Totals, StoreError>;
    /// Ends grants that are expired at `now` (none without a time that can be relied on), and names at most `max` messages that are doomed: all
    /// recipients at an end, no live grant, a large body that is still there. Small bodies are
    /// destroyed by the call itself.
    async fn doomed(&self, now: Option<TrustedTime>, max: usize) -> Result<Doomed, StoreError>;
    /// Wakes whoever deletes large bodies: a message has become doomed.
    fn endings(&self) -> Arc<tokio::sync::Notify>;
    /// The body of a doomed message has been deleted: its locator becomes [`Locator::Gone`].
    /// [`StoreError::Fenced`] if the message is still needed.
    async fn forget_body(&self, id: QueueId) -> Result<(), StoreError>;
    /// Returns once nothing that the store keeps opens a message that was destroyed before the call:
    /// what the write-ahead log held of it has been overwritten too.
    async fn checkpoint(&self) -> Result<(), StoreError>;
    /// Drops records of up to `max` messages whose body is gone and that ended longer than `age` ago.
    async fn purge(
        &self,
        now: TrustedTime,
        age: SignedDuration,
        max: usize,
    ) -> Result<usize, StoreError>;
    /// How the store is.
    fn health(&self) -> Health;
}
