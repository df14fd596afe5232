//! What can go wrong with a store: it refuses, it does the work and its answer is lost, it takes its
//! time, it gives back torn bytes, the clock is set meanwhile, or the process ends in the midst.

use super::chance::{Chance, Trace, VirtualClock};
use jiff::{SignedDuration, Timestamp};
use restante::store::StoreError;
use std::{
    future::Future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::sleep};

/// A call to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Accept,
    Claim,
    Settle,
    Release,
    Order,
    Message,
    Doomed,
    Checkpoint,
    ForgetBody,
    Purge,
    Create,
    Write,
    Seal,
    Open,
    Delete,
    Grant,
    UpdateGrant,
    Note,
    PutNote,
    RemoveNote,
}

/// How a body comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tear {
    /// It ends early.
    Short,
    /// It has ended.
    Nothing,
    /// One bit is another.
    Flip,
}

/// What goes wrong with one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Refused, nothing done.
    Busy,
    /// Refused, no space.
    Full,
    /// Refused, and everything after it too, until the process is started again.
    Dead,
    /// Done, but the answer says otherwise.
    Unsure,
    /// Done, and the store is dead from then on.
    DoneThenDead,
    /// It takes its time.
    Slow(Duration),
    /// The clock is set.
    Jump(SignedDuration),
    /// The process ends before it is done.
    CrashBefore,
    /// The process ends when it is done.
    CrashAfter,
    /// The body that is opened is torn.
    Torn(Tear),
}

/// When things go wrong.
#[derive(Debug)]
pub enum Mode {
    Never,
    /// At one call, counted from 0.
    At(usize, Fault),
    /// At every call of a kind, until that age of the run.
    Every(Op, Fault, Duration),
    /// By chance, until that age of the run.
    Storm(Chance, Duration),
}

#[derive(Debug)]
pub struct Faults {
    mode: Mutex<Mode>,
    clock: Arc<VirtualClock>,
    trace: Arc<Trace>,
    dead: AtomicBool,
    calls: Mutex<Vec<Op>>,
    ceased: Mutex<Option<usize>>,
    tear: Mutex<Option<Tear>>,
    misled: AtomicBool,
    /// The fault of [`Mode::At`] and where it struck.
    struck: Mutex<Option<Op>>,
    /// Tells that the process is to end.
    pub crash: Notify,
    jumps: AtomicBool,
}

impl Faults {
    pub fn new(mode: Mode, clock: Arc<VirtualClock>, trace: Arc<Trace>) -> Self {
        Self {
            mode: Mutex::new(mode),
            clock,
            trace,
            dead: AtomicBool::new(false),
            calls: Mutex::default(),
            ceased: Mutex::default(),
            tear: Mutex::default(),
            misled: AtomicBool::new(false),
            struck: Mutex::default(),
            crash: Notify::new(),
            jumps: AtomicBool::new(false),
        }
    }
    /// Storms may also set the clock.
    pub fn allow_jumps(&self) {
        self.jumps.store(true, Ordering::Relaxed);
    }
    /// The latest time that the clock has told.
    pub fn furthest(&self) -> Timestamp {
        self.clock.furthest()
    }
    /// Nothing goes wrong from here on.
    pub fn cease(&self) {
        self.mend();
        *self.ceased.lock().expect("unbroken") = Some(self.calls.lock().expect("unbroken").len());
        *self.mode.lock().expect("unbroken") = Mode::Never;
    }
    /// Every call before that.
    pub fn calls(&self) -> Vec<Op> {
        let mut calls = self.calls.lock().expect("unbroken").clone();
        calls.truncate(self.ceased.lock().expect("unbroken").unwrap_or(usize::MAX));
        calls
    }
    /// Torn bytes were handed out.
    pub fn misled(&self) {
        self.misled.store(true, Ordering::Relaxed);
    }
    /// Whether anybody has read torn bytes.
    pub fn was_misled(&self) -> bool {
        self.misled.load(Ordering::Relaxed)
    }
    /// The call that the one fault struck, if it came to that.
    pub fn struck(&self) -> Option<Op> {
        *self.struck.lock().expect("unbroken")
    }
    /// Another process opens the store.
    pub fn mend(&self) {
        self.dead.store(false, Ordering::Relaxed);
        *self.tear.lock().expect("unbroken") = None;
    }
    /// How the body comes back that was opened just now.
    pub fn tear(&self) -> Option<Tear> {
        self.tear.lock().expect("unbroken").take()
    }

    fn draw(&self, op: Op) -> Option<Fault> {
        let mut calls = self.calls.lock().expect("unbroken");
        let number = calls.len();
        calls.push(op);
        drop(calls);
        let fault = match &*self.mode.lock().expect("unbroken") {
            Mode::At(at, fault) => (*at == number).then(|| fault.clone()),
            Mode::Every(kind, fault, until) if self.trace.age() < *until => {
                (*kind == op).then(|| fault.clone())
            }
            Mode::Storm(chance, until) if self.trace.age() < *until => self.by_chance(op, chance),
            Mode::Never | Mode::Every(..) | Mode::Storm(..) => None,
        };
        if let Some(fault) = &fault {
            self.trace.note(format_args!("fault at {op:?} (call {number}): {fault:?}"));
            *self.struck.lock().expect("unbroken") = Some(op);
        }
        fault
    }

    fn by_chance(&self, op: Op, chance: &Chance) -> Option<Fault> {
        if op == Op::Open && chance.one_in(8) {
            return Some(Fault::Torn(if chance.one_in(2) { Tear::Short } else { Tear::Flip }));
        }
        // What the loop and the sweeper ask all the time would drown the rest.
        let idle = matches!(op, Op::Claim | Op::Doomed | Op::Purge);
        if idle && !chance.one_in(30) {
            return None;
        }
        match chance.below(120) {
            0..12 => Some(Fault::Busy),
            12..15 => Some(Fault::Full),
            15..17 => Some(Fault::Dead),
            17..21 => Some(Fault::Unsure),
            21..22 => Some(Fault::DoneThenDead),
            22..32 => Some(Fault::Slow(chance.up_to(Duration::from_secs(120)))),
            32..35 => Some(Fault::CrashBefore),
            35..38 => Some(Fault::CrashAfter),
            38..41 if self.jumps.load(Ordering::Relaxed) => {
                // Back by as much as six hours; forward by more than a lease is long.
                let minutes = i64::try_from(chance.below(1080)).expect("small") - 360;
                Some(Fault::Jump(SignedDuration::from_mins(minutes)))
            }
            _ => None,
        }
    }

    /// A call, with what goes wrong on its way there and back.
    pub async fn through<T>(
        &self,
        op: Op,
        call: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let dead = || Err(StoreError::Fatal("by the faults".to_owned()));
        if self.dead.load(Ordering::Relaxed) {
            return dead();
        }
        let fault = self.draw(op);
        match &fault {
            Some(Fault::Busy) => return Err(StoreError::Busy),
            Some(Fault::Full) => return Err(StoreError::Full),
            Some(Fault::Dead) => {
                self.dead.store(true, Ordering::Relaxed);
                return dead();
            }
            Some(Fault::CrashBefore) => self.end().await,
            Some(Fault::Slow(time)) => sleep(*time / 2).await,
            Some(Fault::Jump(by)) => self.clock.jump(*by),
            Some(Fault::Torn(tear)) => *self.tear.lock().expect("unbroken") = Some(*tear),
            Some(Fault::Unsure | Fault::DoneThenDead | Fault::CrashAfter) | None => {}
        }
        let done = call.await;
        match fault {
            Some(Fault::Unsure) => Err(StoreError::Busy),
            Some(Fault::DoneThenDead) => {
                self.dead.store(true, Ordering::Relaxed);
                dead()
            }
            Some(Fault::CrashAfter) => {
                self.end().await;
                done
            }
            Some(Fault::Slow(time)) => {
                sleep(time / 2).await;
                done
            }
            Some(
                Fault::Busy
                | Fault::Full
                | Fault::Dead
                | Fault::CrashBefore
                | Fault::Jump(_)
                | Fault::Torn(_),
            )
            | None => done,
        }
    }

    /// The caller learns nothing any more.
    async fn end(&self) {
        self.crash.notify_one();
        std::future::pending::<()>().await;
    }
}
