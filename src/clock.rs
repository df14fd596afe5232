//! The port to time. Services take a [`Clock`]; only the root makes the system's.
use crate::mail::QueueId;
use jiff::Timestamp;

/// Tells the time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Now, UTC.
    fn now(&self) -> Timestamp;
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
}
