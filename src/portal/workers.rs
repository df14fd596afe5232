//! Work on what strangers wrote, away from the threads that serve everybody: so much at one time.
//!
//! Those threads also carry the store's files. Whoever has a message that is long to read, and asks for
//! it again and again, waits for a turn, and after a while is told to come back later.

use super::Fault;
use axum::http::StatusCode;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread::available_parallelism,
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::timeout,
};

/// How long one waits for a turn.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the reading of a message's HTML, or a search, may take.
const READING: Duration = Duration::from_secs(5);

/// Downloads that an account has under way: more would hold files and memory while they are not read.
pub(super) const DOWNLOADS: usize = 4;

/// Turns that each account has for itself.
#[derive(Debug)]
struct OwnTurns {
    each: usize,
    by_account: Mutex<BTreeMap<[u8; 16], Weak<Semaphore>>>,
}
impl OwnTurns {
    const fn new(each: usize) -> Self {
        Self { each, by_account: Mutex::new(BTreeMap::new()) }
    }
    fn of(&self, generation: [u8; 16]) -> Arc<Semaphore> {
        let mut all = self.by_account.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, own| own.strong_count() > 0);
        let own = all.get(&generation).and_then(Weak::upgrade);
        let own = own.unwrap_or_else(|| Arc::new(Semaphore::new(self.each)));
        all.insert(generation, Arc::downgrade(&own));
        own
    }
}

/// Who does the work.
#[derive(Debug)]
pub(super) struct Workers {
    turns: Arc<Semaphore>,
    /// Searches under way.
    searches: OwnTurns,
    /// Downloads under way.
    downloads: OwnTurns,
    /// How long the reading of a message's HTML, or a search, may take.
    pub(super) reading: Duration,
}
impl Default for Workers {
    fn default() -> Self {
        let turns = available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4));
        Self {
            turns: Arc::new(Semaphore::new(turns)),
            searches: OwnTurns::new(1),
            downloads: OwnTurns::new(DOWNLOADS),
            reading: READING,
        }
    }
}

impl Workers {
    /// A turn to work. Taken before what is worked on is fetched, so that none of it waits in memory.
    pub(super) async fn turn(&self) -> Result<Turn, Fault> {
        waited(Arc::clone(&self.turns)).await.map(Turn)
    }
    /// Work on what is at hand already.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        self.turn().await?.run(work).await
    }
    /// Leave to search one's mail: an account makes one search at a time.
    pub(super) async fn search(&self, generation: [u8; 16]) -> Result<OwnedSemaphorePermit, Fault> {
        waited(self.searches.of(generation)).await
    }
    /// Leave to download; `None` if the account has as many under way as it may.
    pub(super) fn download(&self, generation: [u8; 16]) -> Option<OwnedSemaphorePermit> {
        self.downloads.of(generation).try_acquire_owned().ok()
    }
    /// Takes all turns.
    #[cfg(test)]
    pub(super) async fn all_turns(&self) -> Vec<Turn> {
        let mut all = Vec::new();
        while self.turns.available_permits() > 0 {
            all.push(self.turn().await.unwrap());
        }
        all
    }
}

async fn waited(turns: Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Fault> {
    match timeout(PATIENCE, turns.acquire_owned()).await {
        Ok(turn) => turn.map_err(|_| Fault::Work("no work is done any more")),
        Err(_) => Err(Fault::Status(StatusCode::SERVICE_UNAVAILABLE)),
    }
}

/// Leave to work once.
#[derive(Debug)]
pub(super) struct Turn(OwnedSemaphorePermit);
impl Turn {
    /// The turn ends with the work, also where nobody waits for it any longer.
    pub(super) async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let worked = spawn_blocking(move || {
            let done = work();
            drop(self.0);
            done
        });
        worked.await.map_err(|_| Fault::Work("a message could not be shown"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_for_a_turn_is_told_so_and_a_turn_comes_back() {
        let workers = Workers::default();
        let busy = || Err(StatusCode::SERVICE_UNAVAILABLE);
        let status = |done: Result<i32, Fault>| {
            done.map_err(|fault| {
                let Fault::Status(status) = fault else { panic!("{fault}") };
                status
            })
        };
        let all = workers.all_turns().await;
        assert!((2..=4).contains(&all.len()));
        assert_eq!(status(workers.run(|| 1).await), busy());
        drop(all);
        for _ in 0..5 {
            let panicked = workers.run(|| panic!("on purpose")).await;
            assert!(matches!(panicked, Err(Fault::Work(_))));
        }
        assert_eq!(status(workers.run(|| 1).await), Ok(1));
        let search = workers.search([1; 16]).await.unwrap();
        assert_eq!(status(workers.search([1; 16]).await.map(|_| 1)), busy(), "one at a time");
        assert!(workers.search([2; 16]).await.is_ok(), "another account's");
        drop(search);
        assert!(workers.search([1; 16]).await.is_ok());
        assert!(workers.searches.by_account.lock().unwrap().len() <= 2);
    }
}
