//! The time that is kept: what the guard of the clock knows outlives the process as a note.

use super::{Vault, VaultError};
use crate::{
    clock::{Clock, ClockGuard, KeptTime},
    store::{NoteKind, NoteStore, StoreError},
};
use std::sync::Arc;

/// Key of the one note.
const KEY: &str = "seen";

/// A guard of this clock that knows the time that is kept.
///
/// # Errors
/// [`StoreError`] if the store can't say. A note that does not read makes a clock in doubt.
pub async fn clock_guard(
    clock: Arc<dyn Clock>,
    notes: &dyn NoteStore,
) -> Result<ClockGuard, StoreError> {
    let note = notes.note(NoteKind::Clock, KEY).await?;
    let kept = note.map(|note| serde_json::from_slice(&note).unwrap_or(KeptTime::UNKNOWN));
    Ok(ClockGuard::new(clock, kept))
}

impl Vault {
    /// Keeps what the guard of the clock knows, durably.
    pub(super) async fn keep_time(&self) -> Result<(), VaultError> {
        let note = serde_json::to_vec(&self.guard.kept())
            .map_err(|_| VaultError::Refused("a note can't be written as JSON"))?;
        Ok(self.notes.put_note(NoteKind::Clock, KEY, note).await?)
    }

    /// An operator says that the clock is right, and that is kept. False if it was not in doubt.
    ///
    /// # Errors
    /// [`VaultError`] if it can't be kept; it holds for this process all the same.
    pub async fn confirm_clock(&self) -> Result<bool, VaultError> {
        let doubted = self.guard.confirm().is_some();
        self.keep_time().await?;
        Ok(doubted)
    }
}
