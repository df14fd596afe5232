//! The line in doubt: a level was not met on the way to a domain, so whoever stands in that way may
//! read what is mailed there, codes included.

use super::{Vault, VaultError};
use crate::{
    mail::Domain,
    policy::{Level, Why},
    store::{NoteKind, StoreError},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Since when the line to a domain is in doubt, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// When a message first went to pickup because its level was not met.
    pub since: Timestamp,
    /// When that last happened.
    pub last: Timestamp,
    /// The level that was not met.
    pub level: Level,
    /// The decision in words.
    pub reason: String,
}

impl Vault {
    /// The doubt about the line to a domain, if there is one. While there is, a mailed code proves
    /// nothing: it must neither sign in nor reset.
    ///
    /// # Errors
    /// [`VaultError`] if that can't be known now; then the line is to be taken as in doubt.
    pub async fn line_doubt(&self, domain: &Domain) -> Result<Option<Doubt>, VaultError> {
        let Some(note) = self.notes.note(NoteKind::Doubt, domain.as_str()).await? else {
            return Ok(None);
        };
        let doubt = serde_json::from_slice(&note)
            .map_err(|_| StoreError::Corrupt("a note on a line in doubt".to_owned()))?;
        Ok(Some(doubt))
    }

    /// Notes that a level was not met on the way to a domain, durably: to be called before the grant
    /// that rests on it is written, so that there is no such grant without its note.
    ///
    /// # Errors
    /// [`VaultError`] if it can't be noted; then there must be no grant.
    pub async fn note_doubt(&self, domain: &Domain, why: &Why) -> Result<Doubt, VaultError> {
        let _turn = self.doubts.lock().await;
        let now = self.clock.now();
        let since = match self.line_doubt(domain).await {
            Ok(before) => before.map_or(now, |before| before.since.min(now)),
            // A note that does not read may have been of any age.
            Err(VaultError::Store(StoreError::Corrupt(_))) => Timestamp::UNIX_EPOCH,
            Err(error) => return Err(error),
        };
        let (level, reason) = (why.policy.level, why.text.clone());
        let doubt = Doubt { since, last: now, level, reason };
        let note = serde_json::to_vec(&doubt)
            .map_err(|_| VaultError::Refused("a note can't be written as JSON"))?;
        self.notes.put_note(NoteKind::Doubt, domain.as_str(), note).await?;
        if since == now {
            tracing::warn!(%domain, %level, "the line is in doubt: mailed codes prove nothing there");
        }
        Ok(doubt)
    }

    /// Up to `max` domains after that one whose line is in doubt, ordered by name. `None` stands for
    /// a note that can't be read: that line is in doubt, no one knows since when.
    ///
    /// # Errors
    /// [`VaultError`] from the store.
    pub async fn doubts(
        &self,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Option<Doubt>)>, VaultError> {
        let notes = self.notes.notes(NoteKind::Doubt, after, max).await?;
        let read = |(domain, note): (String, Vec<u8>)| (domain, serde_json::from_slice(&note).ok());
        Ok(notes.into_iter().map(read).collect())
    }

    /// Ends the doubt about the line to a domain because an operator says so; false if there is
    /// none. Grants from the time of the doubt go on asking for more than the mailbox, and so do
    /// accounts that were registered in it.
    ///
    /// # Errors
    /// [`VaultError`] if the note could not be removed; the doubt stays.
    pub async fn end_doubt(&self, domain: &Domain) -> Result<bool, VaultError> {
        let _turn = self.doubts.lock().await;
        if self.notes.note(NoteKind::Doubt, domain.as_str()).await?.is_none() {
            return Ok(false);
        }
        self.notes.remove_note(NoteKind::Doubt, domain.as_str()).await?;
        Ok(true)
    }

    /// A delivery to the domain at that time proved whose host it reached: the line is no longer in
    /// doubt, unless a level was missed later still. Grants from the time of the doubt go on asking
    /// for more than the mailbox.
    ///
    /// # Errors
    /// [`VaultError`] if the note could not be removed; the doubt stays.
    pub async fn line_proved(&self, domain: &Domain, at: Timestamp) -> Result<(), VaultError> {
        if self.notes.note(NoteKind::Doubt, domain.as_str()).await?.is_none() {
            return Ok(());
        }
        let _turn = self.doubts.lock().await;
        if self.line_doubt(domain).await?.is_some_and(|doubt| doubt.last < at) {
            self.notes.remove_note(NoteKind::Doubt, domain.as_str()).await?;
            tracing::info!(%domain, "the line is no longer in doubt: a delivery proved its host");
        }
        Ok(())
    }
}
