//! Whether the clock can be relied on. A dead battery, a machine restored with a wrong date or a bad time
//! server set it months ahead, and whatever then expires is lost. So the acts that rest on the time
//! alone and cannot be undone take a [`TrustedTime`], and only a [`ClockGuard`] gives one.
//!
//! The guard holds the clock against the last time seen and the monotonic time since. A clock that is
//! off is in doubt. The doubt ends when the clock is back, by an operator's word, or when the clock has
//! gone steadily for a day of running time. The last time seen outlives the process as a [`KeptTime`].

use super::Clock;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How far the clock may be from where it should be.
const TOLERANCE: SignedDuration = SignedDuration::from_hours(24);
/// How far ahead it may be at start: the machine may have been off for so long.
const OFF: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Running time after which a clock in doubt that goes steadily is relied on. Also how long a line is
/// followed before the next begins, so that small jumps do not add up to more than a day each day.
const WATCH: SignedDuration = SignedDuration::from_hours(24);
/// As much of the time between two looks counts as running time; the machine may have been suspended.
const LOOK: SignedDuration = SignedDuration::from_hours(1);

/// A time that has come, by a clock that could be relied on. Acts that rest on the time alone and cannot
/// be undone take it.
///
/// ```compile_fail,E0423
/// let end_of_time = restante::clock::TrustedTime(jiff::Timestamp::MAX);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrustedTime(Timestamp);
impl TrustedTime {
    /// The time, UTC.
    pub const fn get(self) -> Timestamp {
        self.0
    }
    /// The time that far back; `None` before the first time that there is.
    pub fn ago(self, age: SignedDuration) -> Option<Timestamp> {
        self.0.checked_sub(age).ok()
    }
}

/// The clock is not where it should be, and it is not known which of the two is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct ClockDoubt {
    /// The time of the wall clock.
    pub clock: Timestamp,
    /// The time expected: the last one seen, and the monotonic time since.
    pub expected: Timestamp,
    /// Running time after which it is relied on, if it goes steadily.
    pub left: SignedDuration,
}
impl fmt::Display for ClockDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clock, expected, left } = self;
        // Whole minutes, rounded up.
        let minutes = left.as_secs().saturating_add(59).div_euclid(60);
        let (hours, minutes) = (minutes.div_euclid(60), minutes.rem_euclid(60));
        write!(
            f,
            "the clock says {clock:.0}, but by the last time seen it should say about {expected:.0}: \
             nothing expires and no mail is given up until this is settled. If the clock is wrong, \
             set it; if it is right, run `restante clock confirm`; otherwise it is taken as right after \
             {hours} h {minutes} min of running time"
        )
    }
}

/// The state of the guard, to be kept beyond the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptTime {
    /// The last time seen by a clock that could be relied on, and the monotonic time since.
    pub seen: Timestamp,
    /// The doubt, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubt: Option<KeptDoubt>,
}
impl KeptTime {
    /// A time was kept and cannot be read: it may have been any.
    pub const UNKNOWN: Self = Self { seen: Timestamp::UNIX_EPOCH, doubt: None };
}
/// A clock in doubt, to be kept beyond the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptDoubt {
    /// The time of the wall clock then.
    clock: Timestamp,
    /// Running time for which it had gone steadily.
    watched: SignedDuration,
}

/// Says whether the clock can be relied on.
#[derive(Debug)]
pub struct ClockGuard {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}
impl ClockGuard {
    /// A guard of this clock. Where no time is kept the clock is relied on as it is.
    pub fn new(clock: Arc<dyn Clock>, kept: Option<KeptTime>) -> Self {
        let now = Reading::of(clock.as_ref());
        let state = match kept {
            None => State { line: Line::new(now), doubt: None },
            Some(KeptTime { seen, doubt: None }) => {
                State { line: Line { clock: seen, ahead: OFF, ..Line::new(now) }, doubt: None }
            }
            // A restart does not end a doubt: the clock is the same.
            Some(KeptTime { seen, doubt: Some(KeptDoubt { clock, watched }) }) => State {
                line: Line { clock: seen, ..Line::new(now) },
                doubt: Some(Doubt {
                    line: Line { clock, ahead: OFF, ..Line::new(now) },
                    looked: now.monotonic,
                    watched,
                    told: false,
                }),
            },
        };
        Self { clock, state: Mutex::new(state) }
    }
    /// The clock.
    pub const fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
    /// The time, if the clock can be relied on.
    ///
    /// # Errors
    /// [`ClockDoubt`] says why not, and what to do.
    pub fn check(&self) -> Result<TrustedTime, ClockDoubt> {
        self.state().look(Reading::of(self.clock.as_ref()))
    }
    /// The later of what the clock says and what it should say. Where a time that will be over is
    /// counted from now, it is counted from here, so that a clock that was behind ends nothing too
    /// early once it is put right.
    pub fn latest(&self) -> Timestamp {
        match self.check() {
            Ok(now) => now.get(),
            Err(doubt) => doubt.clock.max(doubt.expected),
        }
    }
    /// An operator says that the clock is right. Returns the doubt that this ended, if there was one.
    pub fn confirm(&self) -> Option<ClockDoubt> {
        let (now, mut state) = (Reading::of(self.clock.as_ref()), self.state());
        let doubt = state.look(now).err()?;
        tracing::warn!(clock = %now.clock, "an operator has confirmed the clock");
        *state = State { line: Line::new(now), doubt: None };
        Some(doubt)
    }
    /// What is to be kept.
    pub fn kept(&self) -> KeptTime {
        let (now, mut state) = (Reading::of(self.clock.as_ref()), self.state());
        let seen = state.look(now).map_or_else(|doubt| doubt.expected, TrustedTime::get);
        let doubt = state.doubt.as_ref();
        let doubt = doubt.map(|doubt| KeptDoubt { clock: now.clock, watched: doubt.watched });
        KeptTime { seen, doubt }
    }
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the clock says at a moment.
#[derive(Debug, Clone, Copy)]
struct Reading {
    clock: Timestamp,
    monotonic: SignedDuration,
}
impl Reading {
    fn of(clock: &dyn Clock) -> Self {
        Self { clock: clock.now(), monotonic: clock.monotonic() }
    }
}

/// How a clock goes that said that time at that moment, and is not set.
#[derive(Debug, Clone, Copy)]
struct Line {
    clock: Timestamp,
    monotonic: SignedDuration,
    /// How far ahead of it the clock may be.
    ahead: SignedDuration,
}
impl Line {
    const fn new(now: Reading) -> Self {
        Self { clock: now.clock, monotonic: now.monotonic, ahead: TOLERANCE }
    }
    fn age(&self, now: Reading) -> SignedDuration {
        now.monotonic.saturating_sub(self.monotonic)
    }
    fn expected(&self, now: Reading) -> Timestamp {
        self.clock.saturating_add(self.age(now)).unwrap_or(Timestamp::MAX)
    }
    /// True if the clock goes so; the line then begins anew from time to time.
    fn follows(&mut self, now: Reading) -> bool {
        let off = now.clock.duration_since(self.expected(now));
        let follows = -TOLERANCE <= off && off <= self.ahead;
        if follows && (self.ahead > TOLERANCE || self.age(now) >= WATCH) {
            *self = Self::new(now);
        }
        follows
    }
}

#[derive(Debug)]
struct State {
    /// Where the clock should be.
    line: Line,
    doubt: Option<Doubt>,
}
/// A clock in doubt.
#[derive(Debug)]
struct Doubt {
    /// Where it should be if it goes steadily.
    line: Line,
    /// The last look, in monotonic time.
    looked: SignedDuration,
    /// Running time for which it has gone steadily.
    watched: SignedDuration,
    /// It is in the log.
    told: bool,
}
impl State {
    fn look(&mut self, now: Reading) -> Result<TrustedTime, ClockDoubt> {
        let before = self.doubt.take();
        if self.line.follows(now) {
            if before.is_some() {
                tracing::info!(clock = %now.clock, "the clock is back where it should be");
            }
            return Ok(TrustedTime(now.clock));
        }
        let steady = before.and_then(|mut doubt| doubt.line.follows(now).then_some(doubt));
        let mut doubt = steady.unwrap_or_else(|| Doubt {
            line: Line::new(now),
            looked: now.monotonic,
            watched: SignedDuration::ZERO,
            told: false,
        });
        let rest = now.monotonic.saturating_sub(doubt.looked);
        doubt.watched = doubt.watched.saturating_add(rest.clamp(SignedDuration::ZERO, LOOK));
        doubt.looked = now.monotonic;
        if doubt.watched >= WATCH {
            tracing::warn!(clock = %now.clock, "the clock has gone steadily for a day: it is taken as right");
            self.line = Line::new(now);
            return Ok(TrustedTime(now.clock));
        }
        let left = WATCH.saturating_sub(doubt.watched);
        let found = ClockDoubt { clock: now.clock, expected: self.line.expected(now), left };
        if !doubt.told {
            tracing::warn!("{found}");
            doubt.told = true;
        }
        self.doubt = Some(doubt);
        Err(found)
    }
}

#[cfg(test)]
mod tests;
