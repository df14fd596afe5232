//! The guard over a clock that tests set.
use super::*;
use proptest::prelude::*;

const MINUTE: SignedDuration = SignedDuration::from_mins(1);
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// A machine: its clock, and its time since boot.
#[derive(Debug)]
struct Machine(Mutex<Reading>);
impl Clock for Machine {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap().clock
    }
    fn monotonic(&self) -> SignedDuration {
        self.0.lock().unwrap().monotonic
    }
}
impl Machine {
    fn new() -> Arc<Self> {
        let clock = "2026-11-22T12:00:00Z".parse().unwrap();
        Arc::new(Self(Mutex::new(Reading { clock, monotonic: DAY })))
    }
    /// Time passes, and the clock shows it.
    fn pass(&self, time: SignedDuration) {
        let mut now = self.0.lock().unwrap();
        now.clock += time;
        now.monotonic += time;
    }
    /// The clock is set, or the machine did not run.
    fn set(&self, by: SignedDuration) {
        self.0.lock().unwrap().clock += by;
    }
    fn boot(&self, off: SignedDuration) {
        let mut now = self.0.lock().unwrap();
        now.clock += off;
        now.monotonic = SignedDuration::ZERO;
    }
    fn guard(self: &Arc<Self>, kept: Option<KeptTime>) -> ClockGuard {
        ClockGuard::new(self.clone(), kept)
    }
    /// Time passes, and the guard looks every minute, as the sweeps do.
    fn run(&self, guard: &ClockGuard, time: SignedDuration) {
        for _ in 0..time.as_mins() {
            self.pass(MINUTE);
            let _ = guard.check();
        }
    }
}
fn relied_on(guard: &ClockGuard) -> bool {
    guard.check().is_ok()
}

#[test]
fn a_clock_that_goes_steadily_is_relied_on() {
    let machine = Machine::new();
    let guard = machine.guard(None);
    for time in [SignedDuration::ZERO, MINUTE, DAY, DAY * 400] {
        machine.pass(time);
        assert_eq!(guard.check().unwrap().get(), machine.now());
    }
}

#[test]
fn a_clock_that_jumps_is_in_doubt_until_it_is_back() {
    for jump in [DAY * 60, -DAY * 60] {
        let machine = Machine::new();
        let guard = machine.guard(None);
        machine.pass(HOUR);
        let expected = machine.now();
        machine.set(jump);
        let doubt = guard.check().unwrap_err();
        assert_eq!(doubt, ClockDoubt { clock: expected + jump, expected, left: DAY });
        machine.pass(HOUR);
        assert!(!relied_on(&guard));
        machine.set(-jump);
        assert!(relied_on(&guard), "{jump}");
    }
}

#[test]
fn a_clock_that_is_put_right_by_less_than_a_day_is_relied_on() {
    let machine = Machine::new();
    let guard = machine.guard(None);
    for set in [HOUR * 23, -HOUR * 40] {
        machine.set(set);
        assert!(relied_on(&guard), "{set}");
    }
}

#[test]
fn what_will_be_over_is_counted_from_the_later_time() {
    let machine = Machine::new();
    let guard = machine.guard(None);
    let expected = machine.now();
    machine.set(-DAY * 60);
    assert_eq!(guard.latest(), expected);
    machine.set(DAY * 120);
    assert_eq!(guard.latest(), expected + DAY * 60);
}

#[test]
fn small_jumps_do_not_add_up() {
    let machine = Machine::new();
    let guard = machine.guard(None);
    machine.set(HOUR * 20);
    machine.run(&guard, HOUR);
    assert!(relied_on(&guard));
    machine.set(HOUR * 20);
    assert!(!relied_on(&guard));
}

#[test]
fn a_clock_in_doubt_is_relied_on_after_a_day_of_running_time() {
    for jump in [DAY * 60, -DAY * 60] {
        let machine = Machine::new();
        let guard = machine.guard(None);
        machine.set(jump);
        assert!(!relied_on(&guard));
        machine.run(&guard, DAY - MINUTE);
        assert_eq!(guard.check().unwrap_err().left, MINUTE);
        machine.run(&guard, MINUTE);
        assert_eq!(guard.check().unwrap().get(), machine.now());
        machine.set(-jump);
        assert!(!relied_on(&guard), "what is believed now is the other time");
    }
}

#[test]
fn the_day_begins_again_when_the_clock_jumps_again() {
    let machine = Machine::new();
    let guard = machine.guard(None);
    machine.set(DAY * 60);
    machine.run(&guard, HOUR * 23);
    machine.set(DAY * 60);
    machine.run(&guard, HOUR * 2);
    let doubt = guard.check().unwrap_err();
    // The first look after a jump begins the day.
    assert_eq!(doubt.left, HOUR * 22 + MINUTE);
    machine.run(&guard, HOUR * 23);
    assert!(relied_on(&guard));
}

#[test]
fn an_operators_word_ends_the_doubt() {
    for jump in [DAY * 60, -DAY * 60] {
        let machine = Machine::new();
        let guard = machine.guard(None);
        assert_eq!(guard.confirm(), None, "nothing is in doubt");
        machine.set(jump);
        assert_eq!(guard.confirm().map(|doubt| doubt.clock), Some(machine.now()));
        assert!(relied_on(&guard));
        assert_eq!(guard.kept(), KeptTime { seen: machine.now(), doubt: None });
    }
}

#[test]
fn a_machine_that_was_off_for_days_is_relied_on_and_for_weeks_not() {
    for (off, relied) in [
        (SignedDuration::ZERO, true),
        (DAY * 5, true),
        (DAY * 7, true),
        (DAY * 30, false),
        (DAY * 60, false),
        (-HOUR, true),
        (-DAY * 60, false),
    ] {
        let machine = Machine::new();
        let kept = machine.guard(None).kept();
        machine.boot(off);
        let guard = machine.guard(Some(kept));
        assert_eq!(relied_on(&guard), relied, "{off}");
        machine.run(&guard, DAY);
        assert!(relied_on(&guard), "{off}, a day later");
        assert_eq!(guard.kept(), KeptTime { seen: machine.now(), doubt: None }, "{off}");
    }
}

#[test]
fn a_machine_that_boots_in_the_past_is_relied_on_once_its_clock_is_set() {
    let machine = Machine::new();
    let kept = machine.guard(None).kept();
    machine.boot(-DAY * 2000);
    let guard = machine.guard(Some(kept));
    assert!(!relied_on(&guard));
    machine.pass(MINUTE);
    machine.set(DAY * 2005);
    assert!(relied_on(&guard), "it was off for five days");
    machine.set(DAY * 2);
    assert!(!relied_on(&guard), "at a start alone it may be days ahead");
}

#[test]
fn a_suspended_machine_goes_on() {
    let machine = Machine::new();
    let guard = machine.guard(None);
    // The time since boot goes on in suspension.
    machine.pass(DAY * 30);
    assert!(relied_on(&guard));
    // It does not where a hypervisor paused the machine.
    machine.set(HOUR * 20);
    assert!(relied_on(&guard));
    machine.pass(DAY);
    assert!(relied_on(&guard));
    machine.set(DAY * 5);
    assert!(!relied_on(&guard));
    machine.run(&guard, DAY);
    assert!(relied_on(&guard));
}

#[test]
fn suspended_time_is_no_running_time() {
    let machine = Machine::new();
    let guard = machine.guard(None);
    machine.set(DAY * 60);
    assert!(!relied_on(&guard));
    machine.pass(DAY * 3);
    assert_eq!(guard.check().unwrap_err().left, HOUR * 23);
}

#[test]
fn a_doubt_and_its_running_time_outlive_the_process() {
    let machine = Machine::new();
    let guard = machine.guard(None);
    machine.pass(HOUR);
    let expected = machine.now();
    // Few enough days that they would pass at a start.
    machine.set(DAY * 6);
    machine.run(&guard, HOUR * 20);
    let kept = serde_json::to_vec(&guard.kept()).unwrap();
    let kept: KeptTime = serde_json::from_slice(&kept).unwrap();
    assert_eq!(kept.seen, expected + HOUR * 20);
    machine.boot(MINUTE);
    let guard = machine.guard(Some(kept));
    let doubt = guard.check().unwrap_err();
    assert_eq!(doubt.expected, expected + HOUR * 20);
    assert_eq!(doubt.left, HOUR * 4 + MINUTE);
    machine.run(&guard, doubt.left);
    assert!(relied_on(&guard));

    machine.boot(MINUTE);
    let mended = machine.guard(Some(kept));
    machine.set(-DAY * 6);
    assert!(relied_on(&mended), "the clock was put right meanwhile");
}

#[test]
fn a_kept_time_that_does_not_read_is_as_good_as_none() {
    let machine = Machine::new();
    let guard = machine.guard(Some(KeptTime::UNKNOWN));
    assert!(!relied_on(&guard));
}

#[test]
fn a_doubt_is_told_with_both_times_and_what_to_do() {
    let machine = Machine::new();
    let guard = machine.guard(None);
    machine.set(DAY * 60);
    let _ = guard.check();
    machine.pass(SignedDuration::from_secs(90));
    let text = guard.check().unwrap_err().to_string();
    for part in [
        "says 2027-01-21T12:01:30Z,",
        "should say about 2026-11-22T12:01:30Z:",
        "`restante clock confirm`",
        "after 23 h 59 min",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

proptest! {
    /// Whatever the clock does, it is never relied on more than a day ahead of the time that passed,
    /// for each day that passed, unless it went steadily for a day.
    #[test]
    fn a_jump_is_never_relied_on_at_once(
        jumps in prop::collection::vec((25i64..100_000, 0i64..20), 1..9),
    ) {
        let machine = Machine::new();
        let guard = machine.guard(None);
        let begun = machine.now();
        let (mut passed, mut set) = (SignedDuration::ZERO, SignedDuration::ZERO);
        for (jump, minutes) in jumps {
            machine.set(HOUR * i32::try_from(jump).unwrap());
            set += HOUR * i32::try_from(jump).unwrap();
            let run = MINUTE * i32::try_from(minutes).unwrap();
            machine.run(&guard, run);
            passed += run;
            prop_assert!(!relied_on(&guard));
            prop_assert_eq!(guard.check().unwrap_err().expected, begun + passed);
        }
        machine.set(-set);
        prop_assert!(relied_on(&guard));
    }
}
