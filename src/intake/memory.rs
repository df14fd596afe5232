//! Memory that all sessions share, and with them letters from the portal. Each has [`OWN`] for
//! itself, so that no slow client can keep another from sending; what it holds beyond that comes out
//! of one pool. Where the pool is empty a
//! body leaves for its file early, and only what cannot leave waits.

use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// What each session may hold, whatever the others do.
pub(super) const OWN: usize = 64 * 1024;
/// What all of them may hold beyond that.
pub(super) const POOL: usize = 64 * 1024 * 1024;
/// What is taken out of the pool at least.
const UNIT: usize = 16 * 1024;
/// How long a session waits for what it cannot do without.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pool.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    pool: Arc<Semaphore>,
    units: usize,
}

/// What one session has taken out of it; dropping it gives all back.
#[derive(Debug)]
pub(super) struct Share {
    pool: Arc<Semaphore>,
    /// Of the whole pool.
    units: usize,
    taken: Option<OwnedSemaphorePermit>,
}

impl Memory {
    /// A pool of so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).min(Semaphore::MAX_PERMITS);
        Self { pool: Arc::new(Semaphore::new(units)), units }
    }

    pub(super) fn share(&self) -> Share {
        Share { pool: Arc::clone(&self.pool), units: self.units, taken: None }
    }

    /// Bytes taken out of the pool.
    #[cfg(test)]
    pub(super) fn taken(&self) -> usize {
        (self.units - self.pool.available_permits()) * UNIT
    }
}

impl Share {
    /// Units still to be taken for so many bytes.
    fn wanting(&self, bytes: usize) -> u32 {
        let taken = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let units = bytes.saturating_sub(OWN).div_ceil(UNIT).min(self.units);
        u32::try_from(units.saturating_sub(taken)).unwrap_or(u32::MAX)
    }

    fn take(&mut self, more: OwnedSemaphorePermit) {
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            none => *none = Some(more),
        }
    }

    /// True if so many bytes may be held now.
    pub(super) fn fit(&mut self, bytes: usize) -> bool {
        let units = self.wanting(bytes);
        if units == 0 {
            return true;
        }
        let more = Arc::clone(&self.pool).try_acquire_many_owned(units);
        more.map(|more| self.take(more)).is_ok()
    }

    /// As [`Share::fit`], for what makes things faster and no more: half of the pool is left to
    /// others.
    pub(super) fn fit_easily(&mut self, bytes: usize) -> bool {
        self.wanting(bytes) == 0
            || (self.pool.available_permits() > self.units / 2 && self.fit(bytes))
    }

    /// Waits until so many bytes may be held; false if that takes too long.
    pub(super) async fn wait(&mut self, bytes: usize) -> bool {
        if self.fit(bytes) {
            return true;
        }
        let more = Arc::clone(&self.pool).acquire_many_owned(self.wanting(bytes));
        match timeout(PATIENCE, more).await {
            Ok(Ok(more)) => {
                self.take(more);
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Gives all back.
    pub(super) fn clear(&mut self) {
        self.taken = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_share_grows_out_of_the_pool_and_goes_back_whole() {
        const POOL: usize = 8 * UNIT;
        let memory = Memory::new(POOL);
        let (mut one, mut other) = (memory.share(), memory.share());
        assert!(one.fit(OWN), "its own");
        assert_eq!(memory.taken(), 0);
        assert!(one.fit(OWN + 1) && one.fit(OWN + UNIT) && one.fit(10));
        assert_eq!(memory.taken(), UNIT, "what was taken is counted once");
        assert!(one.fit_easily(OWN + POOL / 2));
        assert_eq!(memory.taken(), POOL / 2);
        assert!(!other.fit_easily(OWN + UNIT), "half is left to others");
        assert!(other.fit(OWN + POOL / 2));
        assert!(!other.fit(OWN + POOL / 2 + 1), "the pool is empty");
        let (got, ()) = tokio::join!(other.wait(OWN + POOL / 2 + 1), async { one.clear() });
        assert!(got, "who waits gets what comes back");
        drop(other);
        assert_eq!(memory.taken(), 0);
    }
}
