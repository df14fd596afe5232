//! Carries what a sheet of the journal holds into segments and book, on a thread of its own, so that
//! nobody who sends mail waits for sled. And tells the committer now and then to look whether it is
//! idle.

use super::{
    book,
    journal::Carried,
    segments::Carriage,
    snapshot::{Memtable, Published},
    space::{Runway, Watch},
};
use crate::store::StoreError;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

/// After this long without a load the committer is reminded.
const IDLE: Duration = Duration::from_secs(2);

/// How often it is asked whether there is space again.
const PAUSE: Duration = Duration::from_millis(200);

/// What one sheet holds.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) epoch: u64,
    pub(super) rows: Arc<Memtable>,
    pub(super) bodies: Carriage,
    /// The sheet itself, overwritten when all of it has been carried over.
    pub(super) sheet: Carried,
}

/// The committer's end.
#[derive(Debug)]
pub(super) struct Carrier {
    loads: Option<mpsc::SyncSender<Load>>,
    done: mpsc::Receiver<Result<(), StoreError>>,
    busy: bool,
    /// There is no space for what is under way.
    starved: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Carrier {
    /// `remind` is called while there is nothing to carry.
    pub(super) fn start(
        (db, published): (::sled::Db, Arc<Published>),
        runway: Runway,
        watch: Arc<Watch>,
        remind: impl Fn() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (loads, waiting) = mpsc::sync_channel::<Load>(1);
        let (answer, done) = mpsc::channel();
        let starved = Arc::new(AtomicBool::new(false));
        let hungry = Arc::clone(&starved);
        let work = move || loop {
            match waiting.recv_timeout(IDLE) {
                Ok(load) => {
                    let bytes = load.rows.bytes();
                    while !runway.covers(bytes) {
                        hungry.store(true, Ordering::Release);
                        // Nothing else comes while a load is under way.
                        match waiting.recv_timeout(PAUSE) {
                            // The committer is to know, and may give up the reserve.
                            Err(mpsc::RecvTimeoutError::Timeout) => remind(),
                            // It is carried over at the next start.
                            Ok(_) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
                        }
                    }
                    hungry.store(false, Ordering::Release);
                    // sled panics on damage that it finds late.
                    let carried = catch_unwind(AssertUnwindSafe(|| carry(&db, &published, &load)));
                    let panicked =
                        || StoreError::Fatal("the book panicked; it may be damaged".to_owned());
                    let carried = carried.unwrap_or_else(|_| Err(panicked()));
                    if let Err(error) = &carried {
                        watch.break_down(&error.to_string());
                    }
                    if answer.send(carried).is_err() {
                        return;
                    }
                    // Somebody may wait for just this.
                    remind();
                }
                Err(mpsc::RecvTimeoutError::Timeout) => remind(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        };
        let thread = std::thread::Builder::new().name("carrier".to_owned()).spawn(work)?;
        Ok(Self { loads: Some(loads), done, busy: false, starved, thread: Some(thread) })
    }
    /// True while a load is under way.
    pub(super) const fn is_busy(&self) -> bool {
        self.busy
    }
    /// True while there is no space for what is under way.
    pub(super) fn is_starved(&self) -> bool {
        self.starved.load(Ordering::Acquire)
    }
    /// Sends a load on its way; there is only one at a time.
    pub(super) fn send(&mut self, load: Load) -> Result<(), StoreError> {
        self.loads.as_ref().ok_or_else(gone)?.send(load).map_err(|_| gone())?;
        self.busy = true;
        Ok(())
    }
    /// True if a load has arrived meanwhile; waits for it if asked to.
    pub(super) fn arrived(&mut self, wait: bool) -> Result<bool, StoreError> {
        if !self.busy {
            return Ok(false);
        }
        match self.done.try_recv() {
            Err(mpsc::TryRecvError::Empty) if !wait => Ok(false),
            Err(mpsc::TryRecvError::Empty) => {
                let done = self.done.recv().map_err(|_| gone())?;
                self.note(done)
            }
            Err(mpsc::TryRecvError::Disconnected) => Err(gone()),
            Ok(done) => self.note(done),
        }
    }
    /// Waits until the load has arrived or starves; true if it has arrived.
    pub(super) fn arrived_or_starved(&mut self) -> Result<bool, StoreError> {
        while self.busy {
            match self.done.recv_timeout(2 * PAUSE) {
                Ok(done) => return self.note(done),
                Err(mpsc::RecvTimeoutError::Timeout) if self.is_starved() => return Ok(false),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err(gone()),
            }
        }
        Ok(false)
    }
    fn note(&mut self, done: Result<(), StoreError>) -> Result<bool, StoreError> {
        self.busy = false;
        done.map(|()| true)
    }
}
fn gone() -> StoreError {
    StoreError::Fatal("the carrier has ended".to_owned())
}
/// Waits until it has finished.
impl Drop for Carrier {
    fn drop(&mut self) {
        self.loads = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Bodies first: a row of the book never speaks of a body that is in no file.
fn carry(db: &::sled::Db, published: &Published, load: &Load) -> Result<(), StoreError> {
    load.bodies.write()?;
    published.wait_for_readers();
    book::carry(db, &load.rows, Some(load.epoch)).map_err(|e| book::failed(&e))?;
    load.bodies.bury()?;
    load.sheet.overwrite()
}
