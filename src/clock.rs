//! The port to time. Services take a [`Clock`]; only the root makes the system's.
use jiff::Timestamp;

/// Tells the time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Now, UTC.
    fn now(&self) -> Timestamp;
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
