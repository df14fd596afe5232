//! Notes: what the gateway has learned of domains and of the time, small rows by kind and key. Their
//! loss loses no mail: what they say can be asked again, or would have been a report.
use crate::store::StoreError;
use async_trait::async_trait;

/// Largest value of a note.
pub const LARGEST_NOTE: usize = 128 * 1024;
/// Longest key of a note, in bytes.
pub const LONGEST_KEY: usize = 512;

/// What a note is about. Kinds know nothing of each other's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoteKind {
    /// Policies that domains publish by MTA-STS (RFC 8461).
    Sts,
    /// Counts for reports on TLS (RFC 8460).
    TlsReport,
    /// What was last seen of a partner's transport.
    Watch,
    /// Budgets of wrong codes, by mailbox.
    WrongCodes,
    /// Since when the line to a domain is in doubt.
    Doubt,
    /// The last time seen.
    Clock,
    /// How far a rotation of the key ring is.
    Keys,
}

/// Notes by kind and key.
#[async_trait]
pub trait NoteStore: Send + Sync + std::fmt::Debug {
    /// Creates or replaces a note; durable on return. [`StoreError::Corrupt`], and what was there
    /// stays, if the value is larger than [`LARGEST_NOTE`], or the key empty, longer than
    /// [`LONGEST_KEY`] or with a NUL in it.
    async fn put_note(&self, kind: NoteKind, key: &str, value: Vec<u8>) -> Result<(), StoreError>;
    /// A note.
    async fn note(&self, kind: NoteKind, key: &str) -> Result<Option<Vec<u8>>, StoreError>;
    /// Up to `max` notes of a kind after that key, ordered by the bytes of their keys.
    async fn notes(
        &self,
        kind: NoteKind,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError>;
    /// Removes a note, if it is there; durable on return.
    async fn remove_note(&self, kind: NoteKind, key: &str) -> Result<(), StoreError>;
}

/// What no backend takes: a key that is empty, long or holds a NUL, a value that is too large.
///
/// # Errors
/// [`StoreError::Corrupt`] says which.
pub(super) fn check(key: &str, value: &[u8]) -> Result<(), StoreError> {
    let wrong = |text: String| Err(StoreError::Corrupt(text));
    if key.is_empty() || key.len() > LONGEST_KEY || key.contains('\0') {
        return wrong(format!("a note's key of {} bytes; 1 to {LONGEST_KEY}, no NUL", key.len()));
    }
    if value.len() > LARGEST_NOTE {
        return wrong(format!("a note of {} bytes; {LARGEST_NOTE} at most", value.len()));
    }
    Ok(())
}
