//! The one thread that changes the store. It takes all requests that wait, lets each prepare its
//! changes, writes all of them to the journal with one sync, and only then answers. While one group
//! goes to the disk, the next one gathers; and where others are about to ask for the same, it waits a
//! moment for them. When half a sheet of the journal is written, or nobody asks for anything, it is
//! sent on its way into segments and book.

use super::{
    agenda::Agenda,
    book::{Book, Key},
    carrier::{Carrier, Load},
    journal::Journal,
    segments::Segments,
    snapshot::{Published, Readers},
    space::{Room, Runway, Watch},
    tally::Tally,
};
use crate::store::{AuditChain, StoreError, queue::Announced};
use std::{
    collections::BTreeSet,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Requests that a group answers, and that wait for the next one.
const MOST: usize = 512;
/// Sealed bytes in a group.
const HEAVY: usize = 4 * 1024 * 1024;
/// What the last request of a group may write beyond what was reckoned.
const SLACK: usize = 64 * 1024;
/// The longest that a group waits for more, and about how long it sleeps between two looks.
const PATIENCE: Duration = Duration::from_millis(2);
const NAP: Duration = Duration::from_micros(100);
/// What is destroyed stays readable in the log for that long, and as long as a flush takes.
const DESTROYED_FOR: Duration = Duration::from_secs(1);
/// Sealed bytes that wait, in KiB; more senders wait before they hand theirs over.
const WAITING_KIB: u32 = 8 * 1024;

/// Everything that the thread owns.
#[derive(Debug)]
pub(super) struct State {
    pub(super) book: Book,
    pub(super) agenda: Agenda,
    pub(super) tally: Tally,
    /// Keys of rows that can't be read, and of messages whose other rows are missing.
    pub(super) unread: BTreeSet<Key>,
    pub(super) segments: Segments,
    /// Where the audit trail begins and ends.
    pub(super) audit: AuditChain,
    /// What free space allowed when this group began.
    pub(super) room: Room,
    /// What the journal's sheet could take when this group began, in bytes.
    pub(super) left: usize,
    /// Set by a request that brings earlier work than was known.
    pub(super) arrived: bool,
    /// Something was destroyed since the log was last rotated.
    pub(super) destroyed: bool,
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
/// Tells a caller that a checkpoint is done, or why there is none.
type Waiter = oneshot::Sender<Result<(), StoreError>>;
enum Request {
    Work(Work),
    /// To be answered once nothing on the disk opens what is destroyed by now.
    Checkpoint(Waiter),
    /// Nothing has been carried for a while.
    Idle,
}
struct Work {
    job: Job,
    weight: usize,
    kind: Kind,
    /// None for what brings nothing.
    room: Option<OwnedSemaphorePermit>,
}
/// What is asked for, which says whom it may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Changes nothing that is kept: done at once, of what earlier groups wrote.
    Read,
    /// A message is taken: waits for others that were announced.
    Accept,
    /// A claim is settled: waits for the next messages or, where none are on their way, for most of the
    /// other claims.
    Settle,
    /// Anything else: waits for nobody.
    Change,
}
/// Changes that become one record of the journal.
#[derive(Default)]
struct Group {
    works: Vec<Work>,
    checkpoints: Vec<Waiter>,
    weight: usize,
    accepts: usize,
    settles: usize,
}
impl Group {
    fn add(&mut self, work: Work) {
        self.weight = self.weight.saturating_add(work.weight);
        match work.kind {
            Kind::Accept => self.accepts += 1,
            Kind::Settle => self.settles += 1,
            Kind::Read | Kind::Change => {}
        }
        self.works.push(work);
    }
    /// True if nobody is worth waiting for: most of those who may come have, and the rest would keep
    /// them waiting. Outcomes travel along with the next messages, if some are on their way.
    fn has_company(&self, announced: usize, claims: usize) -> bool {
        let Self { works, accepts, settles, .. } = self;
        let most = |here: usize, all: usize| here.saturating_mul(3) >= all.saturating_mul(2);
        match (accepts, settles) {
            (a, s) if a + s < works.len() => true,
            (0, s) => announced == 0 && *s > 1 && most(*s, claims),
            (a, _) => most(*a, announced),
        }
    }
}
/// The callers' end.
#[derive(Debug)]
pub(super) struct Committer {
    requests: Option<mpsc::Sender<Request>>,
    room: Arc<Semaphore>,
    announced: Announced,
    watch: Arc<Watch>,
    published: Arc<Published>,
    thread: Option<std::thread::JoinHandle<()>>,
}
impl Committer {
    pub(super) fn start(
        state: State,
        journal: Journal,
        runway: Runway,
        watch: Arc<Watch>,
        [arrivals, endings]: [&Arc<Notify>; 2],
    ) -> std::io::Result<Self> {
        let (requests, waiting) = mpsc::channel(MOST);
        let room = Arc::new(Semaphore::new(WAITING_KIB as usize));
        let announced = Announced::default();
        // Does not keep the committer at work.
        let committer = requests.downgrade();
        let remind = move || {
            if let Some(committer) = committer.upgrade() {
                // One that has no time for it is not idle.
                let _ = committer.try_send(Request::Idle);
            }
        };
        let published = state.book.published();
        let sled = (state.book.db(), Arc::clone(&published));
        let carrier = Carrier::start(sled, runway, Arc::clone(&watch), remind)?;
        let watched = Arc::clone(&watch);
        let thread = Thread {
            state,
            journal,
            carrier,
            checkpoints: Vec::new(),
            destroyed: None,
            worked: false,
            watch: watched,
            arrivals: Arc::clone(arrivals),
            endings: Arc::clone(endings),
            announced: announced.clone(),
            patience: PATIENCE,
            waiting,
        };
        let thread =
            std::thread::Builder::new().name("committer".to_owned()).spawn(move || thread.run())?;
        let (requests, thread) = (Some(requests), Some(thread));
        Ok(Self { requests, room, announced, watch, published, thread })
    }
    /// Reads beside the thread.
    pub(super) fn readers(&self) -> Readers {
        Readers::new(Arc::clone(&self.published), Arc::clone(&self.watch))
    }
    /// A message is on its way, for as long as the answer is held.
    pub(super) fn announce(&self) -> Announced {
        self.announced.clone()
    }
    /// Has the thread run `work` in its next group; returns when that group is on the disk.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        weight: usize,
        work: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask(Kind::Change, weight, work).await
    }
    /// Has the thread run `work`, which changes nothing that is kept, between two groups. What needs rows
    /// alone is read by [`Readers`].
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask(Kind::Read, 0, work).await
    }
    /// As [`Committer::run`], in a group that may wait for others of its kind.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        kind: Kind,
        weight: usize,
        work: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let room = match kind {
            Kind::Read => None,
            Kind::Accept | Kind::Settle | Kind::Change => {
                let kib = u32::try_from(weight / 1024).unwrap_or(u32::MAX).saturating_add(1);
                let room = Arc::clone(&self.room).acquire_many_owned(kib.min(WAITING_KIB)).await;
                Some(room.map_err(|_| self.ended())?)
            }
        };
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |state| {
            let result = work(state);
            Box::new(move |commit| {
                // A caller who has gone away needs no answer.
                let _ = answer.send(commit.and(result));
            })
        });
        let Some(requests) = &self.requests else { return Err(self.ended()) };
        let work = Work { job, weight, kind, room };
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
    /// As [`Committer::run`], for work that gives space back: it goes on where the index has no room, as
    /// long as the log has.
    pub(super) async fn free<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let guarded = move |state: &mut State| {
            if state.takes_outcome(SLACK) { work(state) } else { Err(StoreError::Full) }
        };
        self.run(0, guarded).await
    }
    /// Returns once nothing on the disk opens what was destroyed before the call.
    pub(super) async fn checkpoint(&self) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        let Some(requests) = &self.requests else { return Err(self.ended()) };
        requests.send(Request::Checkpoint(answer)).await.map_err(|_| self.ended())?;
        answered.await.map_err(|_| self.ended())?
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
        // Before the lock: readers have the book open too.
        self.published.close();
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
    /// Who waits for a checkpoint, and the last epoch that must have been carried over for it.
    checkpoints: Vec<(u64, Waiter)>,
    /// Since when something has been destroyed that is still readable in the log.
    destroyed: Option<Instant>,
    /// There was work since the last reminder.
    worked: bool,
    watch: Arc<Watch>,
    arrivals: Arc<Notify>,
    endings: Arc<Notify>,
    announced: Announced,
    /// How long messages wait for others now.
    patience: Duration,
    waiting: mpsc::Receiver<Request>,
}
impl Thread {
    fn run(mut self) {
        while let Some(first) = self.waiting.blocking_recv() {
            if self.watch.broken().is_some() {
                // Dropped requests are answered by `Committer::ended`.
                continue;
            }
            self.guarded(|thread| thread.round(first));
            if self.watch.broken().is_some() {
                // The worker that waits for work is to hear of it now, and so are those who wait for a
                // checkpoint: they are answered by `Committer::ended`.
                self.arrivals.notify_one();
                self.checkpoints.clear();
            }
            self.watch.lay_reserve();
        }
        if self.watch.broken().is_none() {
            self.guarded(Self::close);
        }
    }
    /// A group from its first request to its answers, and what is due between groups.
    fn round(&mut self, first: Request) -> Result<(), StoreError> {
        self.state.room = self.watch.room(self.carrier.is_starved());
        self.state.left = self.journal.left();
        let reminded = matches!(first, Request::Idle);
        let Group { works, checkpoints, .. } = self.gather(first);
        let rests = reminded && works.is_empty();
        let idle = rests && !std::mem::replace(&mut self.worked, false);
        self.worked |= !rests;
        if !works.is_empty() {
            self.commit(works)?;
        }
        let last = self.journal.last_epoch();
        self.checkpoints.extend(checkpoints.into_iter().map(|answer| (last, answer)));
        self.look(idle)
    }
    /// After a failure the store takes nothing more. sled panics on damage that it finds late.
    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> Result<(), StoreError>) {
        match catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => self.watch.break_down(&e.to_string()),
            Err(_) => self.watch.break_down("the book panicked; it may be damaged"),
        }
    }
    /// Takes what waits, and a little later what has come meanwhile: on a fast disk a sync is over
    /// before the next group has gathered. Who only reads is answered at once.
    #[expect(
        clippy::disallowed_methods,
        reason = "woken by each request it would come to smaller groups (0.11 syncs a message at 50 \
                  sessions, not 0.08) and the waking would cost more than they do"
    )]
    fn gather(&mut self, first: Request) -> Group {
        let (mut group, mut begun) = (Group::default(), None);
        let (mut next, mut requests) = (Some(first), 0);
        let heavy = HEAVY.min(self.journal.portion());
        loop {
            let before = group.works.len();
            while let Some(request) = next {
                match request {
                    Request::Work(Work { job, kind: Kind::Read, .. }) => {
                        job(&mut self.state)(Ok(()));
                    }
                    Request::Work(work) => group.add(work),
                    Request::Checkpoint(answer) => group.checkpoints.push(answer),
                    Request::Idle => {}
                }
                requests += 1;
                let more = requests < MOST && group.weight < heavy;
                next = if more { self.waiting.try_recv().ok() } else { None };
            }
            if group.works.is_empty() || requests >= MOST || group.weight >= heavy {
                return group;
            }
            let waited = begun.get_or_insert_with(Instant::now).elapsed();
            if group.works.len() > before + 1 && waited < PATIENCE {
                std::thread::yield_now();
            } else if self.is_enough(&group, waited) {
                return group;
            } else {
                std::thread::sleep(NAP);
            }
            next = self.waiting.try_recv().ok();
        }
    }
    /// True if the group has waited enough. A message to which nobody came waits less the next time: a
    /// client that stops within its content is not to slow down another.
    fn is_enough(&mut self, group: &Group, waited: Duration) -> bool {
        let company = self.has_company(group);
        if group.accepts == 0 {
            return company || waited >= PATIENCE;
        }
        let over = waited >= self.patience;
        if group.works.len() > 1 {
            self.patience = PATIENCE;
        } else if over && !company {
            self.patience = (self.patience / 2).max(NAP);
        }
        company || over
    }
    fn has_company(&self, group: &Group) -> bool {
        // One of the others is the callers' end.
        let announced = self.announced.others().saturating_sub(1);
        group.has_company(announced, self.state.agenda.claims())
    }
    fn commit(&mut self, group: Vec<Work>) -> Result<(), StoreError> {
        let mut answers = Vec::new();
        let mut rooms = Vec::new();
        for Work { job, room, .. } in group {
            answers.push(job(&mut self.state));
            rooms.push(room);
        }
        self.state.destroy_doomed();
        let done = self.write();
        if let Err(e) = &done {
            self.watch.break_down(&e.to_string());
        }
        if std::mem::take(&mut self.state.destroyed) {
            self.destroyed.get_or_insert_with(Instant::now);
        }
        for answer in answers {
            answer(done.clone());
        }
        if std::mem::take(&mut self.state.arrived) {
            self.arrivals.notify_one();
        }
        if self.state.tally.has_doomed_files() {
            self.endings.notify_one();
        }
        done
    }
    /// Writes the group to the log, and then lets readers see it. Where the log segment has no room for
    /// it, the group's rows leave with those before them, once the next one holds them: what is
    /// flushed is committed.
    fn write(&mut self) -> Result<(), StoreError> {
        let State { book, segments, .. } = &self.state;
        let load = if self.journal.is_full(&[&segments.entries, &book.entries]) {
            Some(self.rotate()?)
        } else {
            None
        };
        let State { book, segments, .. } = &mut self.state;
        self.journal.append(&mut [&mut segments.entries, &mut book.entries])?;
        book.commit();
        load.map_or(Ok(()), |load| self.carrier.send(load))
    }
    /// Between groups: takes note of what has been carried over, and sends more on its way.
    fn look(&mut self, idle: bool) -> Result<(), StoreError> {
        self.note_arrival(false)?;
        let due = if idle { !self.journal.is_empty() } else { self.journal.is_half_full() };
        if (due || self.is_checkpoint_due()) && !self.carrier.is_busy() {
            self.turn()?;
        }
        self.answer_checkpoints();
        Ok(())
    }
    /// True if what was destroyed is to become unreadable in the log now.
    fn is_checkpoint_due(&self) -> bool {
        let now = self.journal.epoch();
        self.checkpoints.iter().any(|(epoch, _)| *epoch == now)
            || self.destroyed.is_some_and(|since| since.elapsed() >= DESTROYED_FOR)
    }
    fn answer_checkpoints(&mut self) {
        let carried = self.journal.carried();
        for (_, answer) in self.checkpoints.extract_if(.., |(epoch, _)| *epoch <= carried) {
            // A caller who has gone away needs no answer.
            let _ = answer.send(Ok(()));
        }
        // Space may come from just those who wait.
        if self.carrier.is_starved() {
            for (_, answer) in self.checkpoints.drain(..) {
                let _ = answer.send(Err(StoreError::Full));
            }
        }
    }
    /// Sends what the sheet holds on its way, between groups.
    fn turn(&mut self) -> Result<(), StoreError> {
        let load = self.rotate()?;
        self.state.book.commit();
        self.carrier.send(load)
    }
    /// Goes on with the other sheet, which must have been carried over: that is waited for.
    fn rotate(&mut self) -> Result<Load, StoreError> {
        self.note_arrival(true)?;
        let (epoch, sheet) = (self.journal.last_epoch(), self.journal.turn()?);
        let State { book, segments, .. } = &mut self.state;
        let (rows, bodies) = (book.freeze(), segments.freeze());
        self.destroyed = None;
        Ok(Load { epoch, rows, bodies, sheet })
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
        self.journal.carried_over();
    }
    /// Leaves an empty journal, if there is space; else the next start carries it over.
    fn close(&mut self) -> Result<(), StoreError> {
        if !self.spaced()? {
            return Ok(());
        }
        if !self.journal.is_empty() {
            self.turn()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_waits_for_its_kind_and_for_nobody_else() {
        let room = Arc::new(Semaphore::new(1000));
        for (kinds, announced, claims, goes, why) in [
            ("a", 1, 0, true, "nobody else is coming"),
            ("a", 1, 50, true, "deliveries under way keep no message waiting"),
            ("a", 0, 0, true, "one that was not announced"),
            ("a", 4, 0, false, "three are to come"),
            ("aaa", 4, 0, true, "most are here"),
            ("as", 1, 50, true, "an outcome travels along"),
            ("s", 0, 1, false, "an outcome alone waits for a message that may come"),
            ("ss", 1, 2, false, "a message comes"),
            ("ss", 0, 2, true, "all outcomes that can come, and no message"),
            ("ss", 0, 50, false, "few of many outcomes"),
            ("c", 50, 50, true, "somebody waits at the portal or the command line"),
            ("sc", 50, 50, true, "the same, with others"),
        ] {
            let mut group = Group::default();
            for kind in kinds.chars() {
                let kind = match kind {
                    'a' => Kind::Accept,
                    's' => Kind::Settle,
                    _ => Kind::Change,
                };
                let room = Some(Arc::clone(&room).try_acquire_owned().unwrap());
                let job: Job = Box::new(|_| Box::new(drop));
                group.add(Work { job, weight: 1, kind, room });
            }
            assert_eq!(group.has_company(announced, claims), goes, "{kinds}: {why}");
        }
    }
}
