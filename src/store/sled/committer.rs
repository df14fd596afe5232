//! The one thread that calls sled. It takes all requests that wait, lets each prepare its changes,
//! writes small bodies and then rows, each with one sync, and only then answers them all. There is
//! no timer: while one group goes to the disk, the next one gathers.

use super::{
    agenda::Agenda,
    book::Book,
    segments::Segments,
    space::{Room, Runway, Watch},
    tally::Tally,
};
use crate::store::StoreError;
use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Requests in a group, and waiting for the next one.
const MOST: usize = 512;
/// Sealed bytes in a group.
const HEAVY: usize = 4 * 1024 * 1024;
/// Sealed bytes that wait, in KiB; more senders wait before they hand theirs over.
const WAITING_KIB: u32 = 8 * 1024;

/// Everything that the thread owns.
#[derive(Debug)]
pub(super) struct State {
    pub(super) book: Book,
    pub(super) agenda: Agenda,
    pub(super) tally: Tally,
    pub(super) segments: Segments,
    /// What free space allowed when this group began.
    pub(super) room: Room,
    pub(super) runway: Runway,
    /// Set by a request that brings earlier work than was known.
    pub(super) arrived: bool,
    /// Held as long as the book is open.
    pub(super) _lock: File,
}
/// Tells the caller how it went, once the group is on the disk.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Prepares changes, on the committer's thread.
type Job = Box<dyn FnOnce(&mut State) -> Answer + Send>;
struct Request {
    job: Job,
    weight: usize,
    room: OwnedSemaphorePermit,
}

/// The callers' end.
#[derive(Debug)]
pub(super) struct Committer {
    requests: Option<mpsc::Sender<Request>>,
    room: Arc<Semaphore>,
    watch: Arc<Watch>,
    thread: Option<std::thread::JoinHandle<()>>,
}
impl Committer {
    pub(super) fn start(
        state: State,
        watch: Arc<Watch>,
        arrivals: Arc<Notify>,
    ) -> std::io::Result<Self> {
        let (requests, waiting) = mpsc::channel(MOST);
        let room = Arc::new(Semaphore::new(WAITING_KIB as usize));
        let thread = Thread { state, watch: Arc::clone(&watch), arrivals, waiting };
        let thread =
            std::thread::Builder::new().name("committer".to_owned()).spawn(move || thread.run())?;
        Ok(Self { requests: Some(requests), room, watch, thread: Some(thread) })
    }
    /// Has the thread run `work` in its next group; returns when that group is on the disk.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        weight: usize,
        work: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let kib = u32::try_from(weight / 1024).unwrap_or(u32::MAX).saturating_add(1);
        let room = Arc::clone(&self.room).acquire_many_owned(kib.min(WAITING_KIB)).await;
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |state| {
            let result = work(state);
            Box::new(move |commit| {
                // A caller who has gone away needs no answer.
                let _ = answer.send(commit.and(result));
            })
        });
        let (Some(requests), Ok(room)) = (&self.requests, room) else { return Err(self.ended()) };
        let request = Request { job, weight, room };
        requests.send(request).await.map_err(|_| self.ended())?;
        answered.await.map_err(|_| self.ended())?
    }
    /// As [`Committer::run`], for work that writes: refused where the book has no room for it.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        weight: usize,
        work: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let guarded = move |state: &mut State| match state.room {
            Room::Enough | Room::Scarce => work(state),
            Room::Gone => Err(StoreError::Full),
        };
        self.run(weight, guarded).await
    }
    fn ended(&self) -> StoreError {
        let ended = || StoreError::Fatal("the store has been closed".to_owned());
        self.watch.broken().unwrap_or_else(ended)
    }
}
/// Waits until the thread has finished its group and closed the book.
impl Drop for Committer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Thread {
    state: State,
    watch: Arc<Watch>,
    arrivals: Arc<Notify>,
    waiting: mpsc::Receiver<Request>,
}
impl Thread {
    fn run(mut self) {
        while let Some(first) = self.waiting.blocking_recv() {
            let group = self.gather(first);
            if self.watch.broken().is_some() {
                // Dropped requests are answered by `Committer::ended`.
                continue;
            }
            self.state.room = self.watch.room();
            self.state.runway.lay();
            // sled panics on damage that it finds late.
            let done = catch_unwind(AssertUnwindSafe(|| self.commit(group)));
            match done {
                Ok(Ok(())) => {}
                Ok(Err(e)) => self.watch.break_down(&e.to_string()),
                Err(_) => self.watch.break_down("the book panicked; it may be damaged"),
            }
            if self.watch.broken().is_some() {
                // The worker that waits for work is to hear of it now.
                self.arrivals.notify_one();
            }
            self.watch.lay_reserve();
        }
    }
    fn gather(&mut self, first: Request) -> Vec<Request> {
        let mut weight = first.weight;
        let mut group = vec![first];
        while group.len() < MOST && weight < HEAVY {
            let Ok(request) = self.waiting.try_recv() else { break };
            weight += request.weight;
            group.push(request);
        }
        group
    }
    fn commit(&mut self, group: Vec<Request>) -> Result<(), StoreError> {
        let (state, mut answers) = (&mut self.state, Vec::new());
        let mut rooms = Vec::new();
        for Request { job, room, .. } in group {
            answers.push(job(state));
            rooms.push(room);
        }
        // Bodies first: a row never speaks of a body that is not there.
        let done = state.segments.commit().and_then(|()| state.book.commit());
        if let Err(e) = &done {
            self.watch.break_down(&e.to_string());
        }
        for answer in answers {
            answer(done.clone());
        }
        if std::mem::take(&mut state.arrived) {
            self.arrivals.notify_one();
        }
        done
    }
}
