//! How the store is: broken for good, short of space, or well.
//!
//! sled cannot go on in the same process once a write found the disk full, so it must never find it
//! so. As free space falls, whoever it falls by:
//!
//! 1. below the limit no new mail is begun (452 at MAIL and DATA); deliveries go on, they free
//!    space;
//! 2. below half of it, bodies that are on their way in are broken off as well (452 after DATA);
//! 3. below the book's margin the reserve is given up for it; where that is not enough, nothing more
//!    is taken and no work is handed out whose outcome could not be written. Reading goes on, and
//!    outcomes of what was under way go into the journal as long as it has room for them (and, where
//!    they bring a notice or a report, as long as a segment has).
//!
//! All of it ends by itself when space is back, and the reserve is laid again. What somebody takes the
//! last block from lies in the journal, which has its blocks from the start; it is carried into the
//! book once there are blocks for it ahead of the book's end ([`Runway`]).

use super::{
    Options,
    layout::{BOOK_SEGMENT, Layout, allocate},
};
use crate::store::{Health, StoreError};
use rustix::fs::FallocateFlags;
use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Free space is asked for at most this often when clients come.
const PERIOD: Duration = Duration::from_secs(1);
/// Room that the book keeps for itself. The largest of groups writes a few MiB.
const MARGIN: u64 = 16 << 20;
/// What is laid out at a time is this part of a small disk.
const PORTION_PART: u64 = 64;
/// What sled writes for each byte it is given, at most.
const BLOAT: u64 = 3;
/// On a small disk the margin is this part of it,
const MARGIN_PART: u64 = 16;
/// and the reserve is that part.
const RESERVE_PART: u64 = 10;

/// What free space allows the book's thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Everything.
    Enough,
    /// No new mail.
    Scarce,
    /// Nothing but reading, and what has happened already.
    Gone,
}

/// Watches free space, and remembers the first failure for ever.
#[derive(Debug)]
pub(super) struct Watch {
    layout: Layout,
    reserve: u64,
    min_free: u64,
    min_percent: u64,
    most_percent: u64,
    state: Mutex<State>,
}
#[derive(Debug)]
struct State {
    broken: Option<String>,
    full: bool,
    asked: Option<Instant>,
    /// What the book's thread was told last.
    room: Room,
    /// There is a reserve, or there is to be none.
    laid: bool,
}
/// A file system's bytes.
#[derive(Debug, Clone, Copy)]
struct Disk {
    free: u64,
    all: u64,
}
impl Watch {
    pub(super) fn new(layout: &Layout, options: &Options) -> Self {
        let state = State {
            broken: None,
            full: false,
            asked: None,
            room: Room::Enough,
            laid: options.reserve == 0,
        };
        Self {
            layout: layout.clone(),
            reserve: options.reserve,
            min_free: options.min_free,
            min_percent: u64::from(options.min_free_percent),
            most_percent: u64::from(options.min_free_most_percent),
            state: Mutex::new(state),
        }
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn disk(&self) -> Option<Disk> {
        let disk = rustix::fs::statvfs(self.layout.root()).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Some(Disk { free: bytes(disk.f_bavail), all: bytes(disk.f_blocks) })
    }
    pub(super) fn health(&self) -> Health {
        let mut state = self.state();
        if let Some(why) = &state.broken {
            return Health::Broken(why.clone());
        }
        if state.asked.is_none_or(|at| at.elapsed() >= PERIOD) {
            state.asked = Some(Instant::now());
            if let Some(disk) = self.disk() {
                state.full = self.is_full(disk, state.full);
            }
        }
        if state.full { Health::Full } else { Health::Ok }
    }
    /// Free space below which no mail is begun.
    fn limit(&self, disk: Disk) -> u64 {
        let hundredth = disk.all / 100;
        let wanted = self.min_free.max(hundredth.saturating_mul(self.min_percent));
        wanted.min(hundredth.saturating_mul(self.most_percent))
    }
    /// Full below the limit; well again only one hundredth of the disk above it, so that it does
    /// not flutter.
    fn is_full(&self, disk: Disk, was: bool) -> bool {
        let limit = self.limit(disk);
        disk.free < if was { limit.saturating_add(disk.all / 100) } else { limit }
    }
    /// True if `more` bytes can be taken without coming near the limit.
    fn has_room(&self, more: u64) -> bool {
        self.disk().is_some_and(|disk| {
            !self.is_full(Disk { free: disk.free.saturating_sub(more), ..disk }, true)
        })
    }
    /// True if a body that is on its way in may grow by `more` bytes.
    pub(super) fn takes_body(&self, more: u64) -> bool {
        self.disk().is_none_or(|disk| disk.free.saturating_sub(more) >= self.limit(disk) / 2)
    }
    /// What may be done now. `starved`: there are no blocks for what is to be carried into the book.
    /// Near the end of space the reserve is given up for it.
    pub(super) fn room(&self, starved: bool) -> Room {
        let mut state = self.state();
        let disk = self.disk();
        if (starved || disk.is_some_and(|disk| self.is_near_the_end(disk)))
            && fs::remove_file(self.layout.reserve()).is_ok()
        {
            tracing::error!("the disk is full; the reserve is given up for deliveries");
            state.laid = false;
        }
        let now = match disk {
            _ if starved => Room::Gone,
            Some(disk) if disk.free < self.limit(disk) / 2 => Room::Scarce,
            Some(_) | None => Room::Enough,
        };
        if std::mem::replace(&mut state.room, now) != now {
            self.tell(now);
        }
        now
    }
    /// The book's margin is what is free and what lies ahead of its file.
    fn is_near_the_end(&self, disk: Disk) -> bool {
        let ahead = || fs::metadata(self.layout.book()).map_or(0, |meta| laid_ahead(&meta));
        disk.free < margin(disk) && disk.free.saturating_add(ahead()) < margin(disk)
    }
    fn tell(&self, room: Room) {
        match room {
            Room::Enough => tracing::info!("there is space on the disk again"),
            Room::Scarce => tracing::error!("the disk is nearly full: no mail is taken"),
            Room::Gone => tracing::error!(
                "the disk is full: no mail is taken and none delivered until there is space in {}",
                self.layout.root().display()
            ),
        }
    }
    /// How much may be laid out at a time, as a sheet of the journal or a stride of a segment: `most`
    /// where the disk is not small.
    pub(super) fn portion(&self, most: u64) -> u64 {
        self.disk().map_or(most, |disk| most.min(disk.all / PORTION_PART))
    }
    /// Lays blocks aside where there are none and room is plenty.
    pub(super) fn lay_reserve(&self) {
        if self.state().laid {
            return;
        }
        let Some(disk) = self.disk() else { return };
        let size = self.reserve.min(disk.all / RESERVE_PART);
        if !self.layout.has_reserve(size) {
            if !self.has_room(size) {
                return;
            }
            if let Err(e) = self.layout.lay_reserve(size) {
                tracing::warn!(error = %e, "no space could be laid aside");
                return;
            }
        }
        self.state().laid = true;
    }
    /// The disk said so itself: full until it is asked again.
    pub(super) fn ran_full(&self) {
        let mut state = self.state();
        state.full = true;
        state.asked = Some(Instant::now());
    }
    /// The handle is of no more use. The reserve goes, so that the next start has room to open the
    /// book.
    pub(super) fn break_down(&self, why: &str) {
        let mut state = self.state();
        if state.broken.is_none() {
            tracing::error!(error = why, "the store has failed and takes no more mail");
            state.broken = Some(why.to_owned());
            if !self.has_room(0) {
                let _ = fs::remove_file(self.layout.reserve());
                state.laid = false;
            }
        }
    }
    pub(super) fn broken(&self) -> Option<StoreError> {
        self.state().broken.clone().map(StoreError::Fatal)
    }
}
fn margin(disk: Disk) -> u64 {
    MARGIN.min(disk.all / MARGIN_PART)
}

/// Blocks of a file behind its end, in bytes.
fn laid_ahead(meta: &fs::Metadata) -> u64 {
    meta.blocks().saturating_mul(512).saturating_sub(meta.len())
}

/// Blocks ahead of the end of the book's file, so that its next writes need none.
#[derive(Debug)]
pub(super) struct Runway {
    book: Option<File>,
    watch: Arc<Watch>,
}
impl Runway {
    pub(super) fn new(layout: &Layout, watch: Arc<Watch>) -> Self {
        let book = File::options().read(true).write(true).open(layout.book());
        let book = book.inspect_err(|e| tracing::warn!(error = %e, "no blocks ahead of the book"));
        Self { book: book.ok(), watch }
    }
    /// True if rows of so many bytes can be written into the book whatever others do on this disk. sled
    /// writes more than it is given, and takes space by segments.
    pub(super) fn covers(&self, bytes: u64) -> bool {
        let need = bytes.saturating_mul(BLOAT).saturating_add(BOOK_SEGMENT as u64);
        let free = || self.watch.disk().is_none_or(|disk| disk.free >= need);
        let Some((book, meta)) = self.book.as_ref().and_then(|b| Some((b, b.metadata().ok()?)))
        else {
            return free();
        };
        if laid_ahead(&meta) >= need {
            return true;
        }
        match allocate(book, FallocateFlags::KEEP_SIZE, meta.len(), need) {
            Ok(laid) => laid || free(),
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn fills_early_and_empties_late() {
        let options = Options { min_free: 100, min_free_percent: 5, ..Options::default() };
        let watch = Watch::new(&Layout::new(Path::new("/nowhere")), &options);
        // (free, all, full before) -> full now
        let cases = [
            (501, 10_000, false, false, "above 5 %"),
            (499, 10_000, false, true, "below 5 %"),
            (550, 10_000, true, true, "above the limit, but not by 1 %"),
            (600, 10_000, true, false, "above the limit by 1 %"),
            (99, 1_000, false, true, "a small disk: the absolute limit counts"),
            (101, 1_000, false, false, "a small disk, above it"),
            (41, 200, false, false, "a tiny disk: a fifth of it is enough"),
            (39, 200, false, true, "a tiny disk, below a fifth"),
        ];
        for (free, all, was, want, why) in cases {
            assert_eq!(watch.is_full(Disk { free, all }, was), want, "{why}");
        }
    }
    #[test]
    fn the_book_keeps_a_margin_that_suits_the_disk() {
        let of = |all| margin(Disk { free: 0, all });
        assert_eq!(of(1 << 40), MARGIN);
        assert_eq!(of(64 << 20), 4 << 20);
    }
    #[test]
    fn stays_broken() {
        let watch = Watch::new(&Layout::new(Path::new("/")), &Options::default());
        watch.break_down("first");
        watch.break_down("second");
        assert_eq!(watch.health(), Health::Broken("first".to_owned()));
    }
}
