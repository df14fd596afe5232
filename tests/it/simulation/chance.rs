//! Chance and time of a run: both come from its seed, and nothing else.

use jiff::{SignedDuration, Timestamp};
use restante::{clock::Clock, mail::QueueId};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Numbers from a seed (`SplitMix64`): the same on every machine and with every version of any crate.
#[derive(Debug)]
pub struct Chance(Mutex<u64>);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
    /// Another source for another matter, so that the one does not shift the other.
    pub fn fork(&self) -> Self {
        Self::new(self.number())
    }
    pub fn number(&self) -> u64 {
        let mut state = self.0.lock().expect("unbroken");
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&self, end: u64) -> u64 {
        self.number() % end.max(1)
    }
    pub fn one_in(&self, n: u64) -> bool {
        self.below(n) == 0
    }
    pub fn of<'a, T>(&self, all: &'a [T]) -> &'a T {
        let at = usize::try_from(self.below(all.len() as u64)).expect("small");
        &all[at]
    }
    /// A time up to that one, in milliseconds.
    pub fn up_to(&self, most: Duration) -> Duration {
        Duration::from_millis(self.below(u64::try_from(most.as_millis()).expect("short") + 1))
    }
}

/// The gateway's clock: follows the virtual time of the run, and may be set.
#[derive(Debug)]
pub struct VirtualClock {
    began: Instant,
    set_by: AtomicI64,
    /// Milliseconds: the latest time at which it was set.
    latest: AtomicI64,
    ids: Chance,
}

impl VirtualClock {
    pub fn new(ids: Chance) -> Self {
        Self { began: Instant::now(), set_by: AtomicI64::new(0), latest: AtomicI64::new(0), ids }
    }
    /// Somebody sets the machine's clock.
    pub fn jump(&self, by: SignedDuration) {
        self.latest.fetch_max(self.now().as_millisecond(), Ordering::Relaxed);
        self.set_by.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
    /// The latest time that it has ever told.
    pub fn furthest(&self) -> Timestamp {
        let latest = self.latest.load(Ordering::Relaxed);
        self.now().max(Timestamp::from_millisecond(latest).expect("a time"))
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        // 2026-11-22T10:00:00Z
        let start = Timestamp::constant(1_795_341_600, 0);
        let run = SignedDuration::try_from(self.began.elapsed()).expect("short");
        start + run + SignedDuration::from_secs(self.set_by.load(Ordering::Relaxed))
    }
    fn monotonic(&self) -> SignedDuration {
        SignedDuration::try_from(self.began.elapsed()).expect("short")
    }
    fn new_id(&self) -> QueueId {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.ids.number().to_be_bytes());
        QueueId::new(u64::try_from(self.now().as_millisecond()).expect("after 1970"), random)
    }
}

/// What happened, line by line, with the virtual time.
#[derive(Debug)]
pub struct Trace {
    began: Instant,
    lines: Mutex<Vec<String>>,
}

/// Lines are printed as they come.
pub static LOUD: AtomicBool = AtomicBool::new(false);

impl Trace {
    pub fn new() -> Self {
        Self { began: Instant::now(), lines: Mutex::default() }
    }
    pub fn age(&self) -> Duration {
        self.began.elapsed()
    }
    pub fn note(&self, text: std::fmt::Arguments<'_>) {
        let line = format!("{:>10.3} {text}", self.age().as_secs_f64());
        if LOUD.load(Ordering::Relaxed) {
            println!("{line}");
        }
        self.lines.lock().expect("unbroken").push(line);
    }
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.lines.lock().expect("unbroken").hash(&mut hasher);
        hasher.finish()
    }
    /// The last lines.
    pub fn tail(&self, most: usize) -> String {
        let lines = self.lines.lock().expect("unbroken");
        lines[lines.len().saturating_sub(most)..].join("\n")
    }
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("unbroken").clone()
    }
}
