//! Files on their way in: the least rate that a client keeps up, and how many flows of files an account
//! has at one time. No flow waits for another client's octets.

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

/// Octets a second that a client sends at least, on average; what it is waited for without counts
/// against `GRACE`.
pub const LEAST_RATE: u64 = 8 * 1024;
/// How long a client is waited for beyond what its rate takes.
const GRACE: Duration = Duration::from_secs(60);
/// Pieces that are sealed and written at one time. A place is taken for each piece once it has come,
/// and given back when it is written: none is held while a client is waited for.
const WRITING: usize = 16;
/// Flows at one time: of one account, and of all.
const OWN: usize = 3;
const ALL: usize = 256;

/// The client broke off, or did not keep up the least rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client broke off or was too slow")]
pub struct BrokenOff;

/// A client's octets, as long as it keeps up the least rate. Only the time that the client is waited
/// for counts.
#[derive(Debug)]
pub struct Paced<S> {
    stream: S,
    waited: Duration,
    octets: u64,
}

impl<S, E> Paced<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    /// Octets that begin now.
    pub const fn new(stream: S) -> Self {
        Self { stream, waited: Duration::ZERO, octets: 0 }
    }

    /// The next octets; `None` at the end.
    ///
    /// # Errors
    /// [`BrokenOff`], and every time after that.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BrokenOff> {
        let earned = GRACE + Duration::from_secs(self.octets / LEAST_RATE);
        let left = earned.saturating_sub(self.waited).min(GRACE);
        let begun = Instant::now();
        let next = timeout(left, self.stream.next()).await;
        self.waited = self.waited.saturating_add(begun.elapsed());
        match next {
            Ok(Some(Ok(octets))) => {
                self.octets = self.octets.saturating_add(octets.len() as u64);
                Ok(Some(octets))
            }
            Ok(None) => Ok(None),
            Ok(Some(Err(_))) | Err(_) => {
                self.waited = Duration::MAX;
                Err(BrokenOff)
            }
        }
    }
}

/// All flows of files.
#[derive(Debug, Clone)]
pub(super) struct Flows(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    writing: Semaphore,
    /// By the account's generation.
    open: Mutex<HashMap<[u8; 16], usize>>,
}

impl Default for Flows {
    fn default() -> Self {
        Self(Arc::new(Shared { writing: Semaphore::new(WRITING), open: Mutex::default() }))
    }
}

impl Flows {
    fn open_ones(&self) -> MutexGuard<'_, HashMap<[u8; 16], usize>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A flow of that account; `None` if it, or all accounts together, have as many as they may.
    pub(super) fn begin(&self, owner: [u8; 16]) -> Option<Flow> {
        let mut open = self.open_ones();
        if open.values().sum::<usize>() >= ALL {
            return None;
        }
        let own = open.entry(owner).or_default();
        if *own >= OWN {
            return None;
        }
        *own += 1;
        Some(Flow { flows: self.clone(), owner })
    }
}

/// One flow; ends when it is dropped.
#[derive(Debug)]
pub(super) struct Flow {
    flows: Flows,
    owner: [u8; 16],
}

impl Flow {
    /// A place for one piece that has come. Flows get theirs in turn.
    pub(super) async fn place(&self) -> Option<SemaphorePermit<'_>> {
        self.flows.0.writing.acquire().await.ok()
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let mut open = self.flows.open_ones();
        if let Some(own) = open.get_mut(&self.owner) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                open.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    /// A client that sends so many octets each so many seconds.
    fn client(octets: usize, seconds: u64) -> impl Stream<Item = Result<Bytes, ()>> + Unpin {
        Box::pin(stream::unfold((), move |()| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Some((Ok(Bytes::from(vec![0; octets])), ()))
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_keeps_up_a_least_rate() {
        for (octets, seconds, pieces, why) in [
            (1, 1, Some(60), "an octet a second"),
            (8 * 1024, 1, None, "the least rate"),
            (64 * 1024, 8, None, "the least rate, in bursts"),
            (64 * 1024, 61, Some(0), "silence"),
            (7 * 1024, 1, Some(480), "nearly the least rate"),
        ] {
            let (mut paced, mut came) = (Paced::new(client(octets, seconds)), 0_u32);
            while came < 2_000 && paced.next().await.is_ok() {
                came += 1;
            }
            let expected = pieces.unwrap_or(2_000_u32);
            assert!(came.abs_diff(expected) <= 1 + expected / 50, "{why}: {came}");
            if pieces.is_some() {
                assert_eq!(paced.next().await, Err(BrokenOff), "{why}: it stays broken off");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_is_ours_is_not_the_clients() {
        let mut paced = Paced::new(client(1, 1));
        for _ in 0..50 {
            assert!(paced.next().await.is_ok());
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
    }

    #[test]
    fn an_account_and_all_together_have_so_many_flows() {
        let flows = Flows::default();
        let own: Vec<_> = (0..OWN).map(|_| flows.begin([1; 16]).unwrap()).collect();
        assert!(flows.begin([1; 16]).is_none(), "no more of this account");
        assert!(flows.begin([2; 16]).is_some(), "but of another");
        drop(own);
        assert!(flows.begin([1; 16]).is_some() && flows.open_ones().is_empty());
        let number = |n: usize| [u8::try_from(n / OWN).unwrap(); 16];
        let all: Vec<_> = (0..ALL).map(|n| flows.begin(number(n)).unwrap()).collect();
        assert!(flows.begin([255; 16]).is_none(), "all");
        drop(all);
    }
}
