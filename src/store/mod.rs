//! What a backend promises. Two narrow traits for queue and bodies, one for people, one for notes on
//! domains, one for the audit trail; they speak of intents, see sealed bytes and hashes only, and every operation is idempotent by id. Body first,
//! row second; orphans are swept.

pub mod audit;
pub mod body;
pub mod memory;
pub mod notes;
pub mod orders;
pub mod people;
pub mod proof;
pub mod queue;
pub mod sled;

pub use audit::{
    AuditChain, AuditCheck, AuditClass, AuditDetail, AuditEvent, AuditFault, AuditKind, AuditLink,
    AuditRecord, AuditStore,
};
pub use body::{BodyStore, BodyWriter, Locator};
pub use notes::{NoteKind, NoteStore};
pub use orders::{Order, OrderKind, Ordered};
pub use people::{
    Account, AccountChange, AccountMove, Assurance, Code, Device, Grant, GrantKind, GrantState,
    Moved, Passkey, PeopleStore, ProofChange, Purpose, SecondFactor, Session, SignedIn,
};
pub use proof::{Need, Proof, Proved, SessionFacts, SignedBy, Texted};
pub use queue::{
    Announced, Ask, Attempt, Claim, Claimed, DnsRecord, Doomed, Filter, MessageRow, NewBody,
    NewMessage, Outcome, QueueStore, RecipientRow, RecipientState, Room, SegmentBytes, Settle,
    Spawn, Totals,
};

/// What a store can answer instead of doing it. SMTP codes are mapped in one place
/// (`relay::outcome`, `intake`).
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No space.
    #[error("the store is full")]
    Full,
    /// Try again.
    #[error("the store is busy")]
    Busy,
    /// No such thing.
    #[error("not found")]
    NotFound,
    /// Stored bytes that make no sense.
    #[error("damaged: {0}")]
    Corrupt(String),
    /// The claim's lease was lost to somebody else.
    #[error("the lease was lost")]
    Fenced,
    /// The handle is of no more use; the process must end (and be started again).
    #[error("the store has failed: {0}")]
    Fatal(String),
}
/// How the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Well.
    Ok,
    /// Space is short: take no new mail (452 4.3.1), go on delivering.
    Full,
    /// Broken: take no new mail (451 4.3.0).
    Broken(String),
}
