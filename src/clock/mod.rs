//! The port to time. Services take a [`Clock`]; only the root makes the system's. A [`ClockGuard`] says
//! whether the time that it tells can be relied on where an act cannot be undone.

mod guard;

pub use guard::{ClockDoubt, ClockGuard, KeptTime, TrustedTime};

use crate::mail::QueueId;
use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// Tells the time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Now, UTC.
    fn now(&self) -> Timestamp;
    /// Time since some moment in the past that stays the same while the process runs. Setting the clock
    /// does not change it, and it goes on while the machine is suspended. Of a clock that is never set
    /// it is the time itself.
    fn monotonic(&self) -> SignedDuration {
        self.now().duration_since(Timestamp::UNIX_EPOCH)
    }
    /// An id for a message that comes into being now. What follows the time in it is chance, so
    /// that no two are alike; a clock of a simulation draws it from its seed.
    fn new_id(&self) -> QueueId {
        let millis = u64::try_from(self.now().as_millisecond()).unwrap_or_default();
        QueueId::new(millis, rand::random())
    }
}
/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;
impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock all others take")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
    fn monotonic(&self) -> SignedDuration {
        // `std::time::Instant` stops while the machine is suspended.
        let since_boot = clock_gettime(ClockId::Boottime);
        SignedDuration::from_secs(since_boot.tv_sec)
    }
}
