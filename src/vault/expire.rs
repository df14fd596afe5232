//! Ending: what is over loses its keys and its body, later its record.

use super::{Vault, VaultError};
use crate::{
    clock::TrustedTime,
    mail::QueueId,
    store::{Doomed, Locator, StoreError},
};
use futures_util::{StreamExt, stream};
use jiff::SignedDuration;

/// How long the record of a message that came to its end is kept for `trace`.
pub const HISTORY: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Messages in one question to the store.
const BATCH: usize = 100;
/// Messages that come to their end at the same time.
const AT_ONCE: usize = 50;

impl Vault {
    /// One round of ending: expired grants, destroyed keys, freed bodies, purged
    /// records. Returns how many bodies were freed. One message's trouble does not keep others
    /// from ending; the first trouble is the answer. While the clock is in doubt nothing expires and
    /// no record is purged; what ended otherwise is destroyed all the same.
    pub async fn sweep(&self) -> Result<usize, VaultError> {
        let now = self.guard.check().ok();
        if let Err(error) = self.keep_time().await {
            tracing::warn!("the time could not be kept: {error}");
        }
        let ended = self.destroy_doomed(now).await;
        if let Some(now) = now {
            while self.queue.purge(now, HISTORY, BATCH).await? >= BATCH {}
        }
        self.compact().await?;
        Ok(ended?)
    }

    /// Gives back what segments waste. While keys are wrapped again, it waits for the next round.
    async fn compact(&self) -> Result<(), StoreError> {
        let Ok(_turn) = self.moving.try_lock() else { return Ok(()) };
        let moved = self.bodies.compact().await?;
        if moved > 0 {
            tracing::info!("compacted: {moved} bytes of sealed mail were moved together");
        }
        Ok(())
    }

    /// Destroys messages that nobody may open any more, whatever the time. Returns how many.
    pub async fn destroy_ended(&self) -> Result<usize, StoreError> {
        self.destroy_doomed(None).await
    }

    async fn destroy_doomed(&self, now: Option<TrustedTime>) -> Result<usize, StoreError> {
        let mut freed = 0;
        loop {
            let Doomed { destroyed, left, large } = self.queue.doomed(now, BATCH).await?;
            freed += destroyed;
            let more = destroyed > 0 || large.len() == BATCH;
            let mut trouble = (left > 0 && destroyed == 0).then_some(StoreError::Busy);
            // Several at once: a store that writes in groups does so for all of them.
            let ends = stream::iter(large).map(|(id, at)| async move { self.end(id, &at).await });
            let mut ended = ends.buffer_unordered(AT_ONCE);
            while let Some(end) = ended.next().await {
                match end {
                    Ok(()) => freed += 1,
                    Err(error) => trouble = trouble.or(Some(error)),
                }
            }
            // With trouble the same messages would be named again at once.
            match trouble {
                Some(error) => return Err(error),
                None if !more => return Ok(freed),
                None => {}
            }
        }
    }

    /// The body first, beginning with its keys: from then on the message can't be opened, even if the
    /// rest fails.
    async fn end(&self, id: QueueId, at: &Locator) -> Result<(), StoreError> {
        self.bodies.delete(id, at).await?;
        self.queue.forget_body(id).await
    }
}
