//! How the store is: broken for good, short of space, or well.

use super::{Options, layout::Layout};
use crate::store::{Health, StoreError};
use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Free space is asked for at most this often.
const PERIOD: Duration = Duration::from_secs(1);

/// Watches free space, and remembers the first failure for ever.
#[derive(Debug)]
pub(super) struct Watch {
    root: PathBuf,
    reserve: PathBuf,
    min_free: u64,
    min_percent: u64,
    state: Mutex<State>,
}
#[derive(Debug)]
struct State {
    broken: Option<String>,
    full: bool,
    asked: Option<Instant>,
}
impl Watch {
    pub(super) fn new(layout: &Layout, options: &Options) -> Self {
        Self {
            root: layout.root().to_owned(),
            reserve: layout.reserve(),
            min_free: options.min_free,
            min_percent: u64::from(options.min_free_percent),
            state: Mutex::new(State { broken: None, full: false, asked: None }),
        }
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub(super) fn health(&self) -> Health {
        let mut state = self.state();
        if let Some(why) = &state.broken {
            return Health::Broken(why.clone());
        }
        if state.asked.is_none_or(|at| at.elapsed() >= PERIOD) {
            state.asked = Some(Instant::now());
            if let Ok(disk) = rustix::fs::statvfs(&self.root) {
                let unit = disk.f_frsize;
                let (free, all) =
                    (disk.f_bavail.saturating_mul(unit), disk.f_blocks.saturating_mul(unit));
                state.full = self.is_full(free, all, state.full);
            }
        }
        if state.full { Health::Full } else { Health::Ok }
    }
    /// Full below the limit; well again only one hundredth of the disk above it, so that it does
    /// not flutter.
    fn is_full(&self, free: u64, all: u64, was: bool) -> bool {
        let limit = self.min_free.max(all / 100 * self.min_percent);
        free < if was { limit.saturating_add(all / 100) } else { limit }
    }
    /// True if `more` bytes can be taken without coming near the limit.
    pub(super) fn has_room(&self, more: u64) -> bool {
        rustix::fs::statvfs(&self.root).is_ok_and(|disk| {
            let (unit, all) = (disk.f_frsize, disk.f_blocks.saturating_mul(disk.f_frsize));
            let free = disk.f_bavail.saturating_mul(unit);
            !self.is_full(free.saturating_sub(more), all, true)
        })
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
                let _ = fs::remove_file(&self.reserve);
            }
        }
    }
    pub(super) fn broken(&self) -> Option<StoreError> {
        self.state().broken.clone().map(StoreError::Fatal)
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
        ];
        for (free, all, was, want, why) in cases {
            assert_eq!(watch.is_full(free, all, was), want, "{why}");
        }
    }
    #[test]
    fn stays_broken() {
        let watch = Watch::new(&Layout::new(Path::new("/")), &Options::default());
        watch.break_down("first");
        watch.break_down("second");
        assert_eq!(watch.health(), Health::Broken("first".to_owned()));
    }
}
