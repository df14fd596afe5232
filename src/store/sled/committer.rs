//! The one thread that changes the store. It takes all requests that wait, lets each prepare its
//! changes, writes all of them to the journal with one sync, and only then answers. There is no timer:
//! while one group goes to the disk, the next one gathers. When half a sheet of the journal is
//! written, or nobody asks for anything, it is sent on its way into segments and book.

use super::{
    agenda::Agenda,
    book::Book,
    carrier::{Carrier, Load},
    journal::Journal,
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
/// What the last request of a group may write beyond what was reckoned.
const SLACK: usize = 64 * 1024;
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
    /// What the journal's sheet could take when this group began, in bytes.
    pub(super) left: usize,
    /// Set by a request that brings earlier work than was known.
    pub(super) arrived: bool,
    /// Held as long as the book is open.
    pub(super) _lock: File,
}
impl State {
    /// True if what has happened already can be written, in so many bytes: a delivery that is not
    /// written down is done again. Where the book has no room, the journal's sheet may have.
    pub(super) fn takes_outcome(&self, bytes: usize) -> bool {
        match self.room {
            Room::Enough | Room::Scarce => true,
            Room::Gone => {
                let gathered = self.segments.entries.len() + self.book.entries.len();
                gathered.saturating_add(bytes).saturating_add(SLACK) <= self.left
            }
        }
    }
}
/// Tells the caller how it went, once the group is on the disk.
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Prepares changes, on the committer's thread.
type Job = Box<dyn FnOnce(&mut State) -> Answer + Send>;
enum Request {
    Work(Work),
    /// Nothing has been carried for a while.
    Idle,
}
struct Work {
    job: Job,
    weight: usize,
    /// Changes nothing that is kept: done before the group's changes, of what earlier groups wrote,
    /// and answered at once.
    reads: bool,
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
        journal: Journal,
        runway: Runway,
        watch: Arc<Watch>,
        arrivals: Arc<Notify>,
    ) -> std::io::Result<Self> {
        let (requests, waiting) = mpsc::channel(MOST);
        let room = Arc::new(Semaphore::new(WAITING_KIB as usize));
        // Does not keep the committer at work.
        let committer = requests.downgrade();
        let remind = move || {
            if let Some(committer) = committer.upgrade() {
                // One that has no time for it is not idle.
                let _ = committer.try_send(Request::Idle);
            }
        };
        let carrier = Carrier::start(state.book.db(), runway, Arc::clone(&watch), remind)?;
        let watched = Arc::clone(&watch);
        let thread = Thread {
            state,
            journal,
            carrier,
            wipe: false,
            worked: false,
            watch: watched,
            arrivals,
            waiting,
        };
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
        self.ask(weight, false, work).await
    }
    /// Has the thread run `work`, which changes nothing that is kept, before its next group.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask(0, true, work).await
    }
    async fn ask<T: Send + 'static>(
        &self,
        weight: usize,
        reads: bool,
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
        let work = Work { job, weight, reads, room };
        requests.send(Request::Work(work)).await.map_err(|_| self.ended())?;
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
    /// Ends first: it has the book open too, and the lock is in the state.
    carrier: Carrier,
    state: State,
    journal: Journal,
    /// What is under way is the last there was: then its sheet is to be overwritten.
    wipe: bool,
    /// There was work since the last reminder.
    worked: bool,
    watch: Arc<Watch>,
    arrivals: Arc<Notify>,
    waiting: mpsc::Receiver<Request>,
}
impl Thread {
    fn run(mut self) {
        while let Some(first) = self.waiting.blocking_recv() {
            let group = self.gather(first);
            let rests = group.is_empty();
            let idle = rests && !std::mem::replace(&mut self.worked, false);
            self.worked |= !rests;
            if self.watch.broken().is_some() {
                // Dropped requests are answered by `Committer::ended`.
                continue;
            }
            self.state.room = self.watch.room(self.carrier.is_starved());
            self.state.left = self.journal.left();
            self.guarded(|thread| {
                if !group.is_empty() {
                    thread.commit(group)?;
                }
                thread.look(idle)
            });
            if self.watch.broken().is_some() {
                // The worker that waits for work is to hear of it now.
                self.arrivals.notify_one();
            }
            self.watch.lay_reserve();
        }
        if self.watch.broken().is_none() {
            self.guarded(Self::close);
        }
    }
    /// After a failure the store takes nothing more. sled panics on damage that it finds late.
    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> Result<(), StoreError>) {
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => self.watch.break_down(&e.to_string()),
            Err(_) => self.watch.break_down("the book panicked; it may be damaged"),
        }
    }
    /// Takes what waits. Where several ask at once, those who are about to are let go first for as long
    /// as more of them come: on a fast disk a sync is over before the next group has gathered.
    fn gather(&mut self, first: Request) -> Vec<Work> {
        let (mut weight, mut group) = (0, Vec::new());
        let mut next = Some(first);
        let (mut before, heavy) = (1, HEAVY.min(self.journal.portion()));
        loop {
            while let Some(request) = next {
                if let Request::Work(work) = request {
                    weight += work.weight;
                    group.push(work);
                }
                let more = group.len() < MOST && weight < heavy;
                next = if more { self.waiting.try_recv().ok() } else { None };
            }
            if group.len() <= before || group.len() >= MOST || weight >= heavy {
                return group;
            }
            before = group.len();
            std::thread::yield_now();
            next = self.waiting.try_recv().ok();
        }
    }
    fn commit(&mut self, group: Vec<Work>) -> Result<(), StoreError> {
        let (reads, writes): (Vec<_>, Vec<_>) = group.into_iter().partition(|work| work.reads);
        for Work { job, .. } in reads {
            job(&mut self.state)(Ok(()));
        }
        let mut answers = Vec::new();
        let mut rooms = Vec::new();
        for Work { job, room, .. } in writes {
            answers.push(job(&mut self.state));
            rooms.push(room);
        }
        let done = self.write();
        if let Err(e) = &done {
            self.watch.break_down(&e.to_string());
        }
        for answer in answers {
            answer(done.clone());
        }
        if std::mem::take(&mut self.state.arrived) {
            self.arrivals.notify_one();
        }
        done
    }
    fn write(&mut self) -> Result<(), StoreError> {
        let State { book, segments, .. } = &mut self.state;
        if self.journal.is_full(&[&segments.entries, &book.entries]) {
            self.turn()?;
        }
        let State { book, segments, .. } = &mut self.state;
        self.journal.append(&mut [&mut segments.entries, &mut book.entries])
    }
    /// Between groups: takes note of what has been carried over, and sends more on its way.
    fn look(&mut self, idle: bool) -> Result<(), StoreError> {
        self.note_arrival(false)?;
        let due = if idle { !self.journal.is_empty() } else { self.journal.is_half_full() };
        if due && !self.carrier.is_busy() {
            self.turn()?;
            self.wipe = idle;
        }
        Ok(())
    }
    /// Sends what the sheet holds on its way, and goes on with the other; that must have been carried
    /// over, which is waited for.
    fn turn(&mut self) -> Result<(), StoreError> {
        self.note_arrival(true)?;
        let (epoch, State { book, segments, .. }) = (self.journal.epoch(), &mut self.state);
        let load = Load { epoch, rows: book.freeze(), bodies: segments.freeze() };
        self.carrier.send(load)?;
        self.journal.turn();
        Ok(())
    }
    fn note_arrival(&mut self, wait: bool) -> Result<(), StoreError> {
        if self.carrier.arrived(wait)? {
            self.thaw();
        }
        Ok(())
    }
    fn thaw(&mut self) {
        self.state.book.thaw();
        self.state.segments.thaw();
        if std::mem::take(&mut self.wipe) {
            // It holds nothing that is needed: what can't be overwritten now will be later.
            drop(self.journal.wipe());
        }
    }
    /// Leaves an empty journal, if there is space; else the next start carries it over.
    fn close(&mut self) -> Result<(), StoreError> {
        if !self.spaced()? {
            return Ok(());
        }
        if !self.journal.is_empty() {
            self.turn()?;
            self.wipe = true;
        }
        self.spaced().map(drop)
    }
    /// Waits for what is under way; false if there is no space for it, even without the reserve.
    fn spaced(&mut self) -> Result<bool, StoreError> {
        for _ in 0..2 {
            if self.carrier.arrived_or_starved()? {
                self.thaw();
            }
            if !self.carrier.is_busy() {
                return Ok(true);
            }
            self.watch.room(true);
        }
        Ok(false)
    }
}
