//! Fault points: one fault at every call to the store in a message's life, one after the other; and
//! faults that last. What the store does not do, or does without saying so, costs no message.

use crate::simulation::{
    Chance, Event,
    faults::{Fault, Mode, Op, Tear},
    host::{Act, Script, Stage, Weather, Window},
    world::{HOUR, MINUTE, World, hosts, in_virtual_time, letter, zones},
};
use jiff::SignedDuration;
use restante::policy::Reason;
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

/// What goes wrong at a call, and what the client reads if it is the one that takes the message in:
/// its reply begins so; nothing: the connection is lost.
const FAULTS: &[(Fault, Option<&str>, &str)] = &[
    (Fault::Busy, Some("451 4.3.0"), "not done"),
    (Fault::Full, Some("452 4.3.1"), "not done, for want of space"),
    (Fault::Dead, Some("451 4.3.0"), "not done, nor anything after it"),
    (Fault::Unsure, Some("451 4.3.0"), "done, and said not to be"),
    (Fault::DoneThenDead, Some("451 4.3.0"), "done and said not to be, and nothing after it"),
    (Fault::Slow(Duration::from_secs(240)), Some("250 2.0.0"), "done after four minutes"),
    (Fault::Jump(SignedDuration::from_hours(5)), Some("250 2.0.0"), "the clock goes forward"),
    (Fault::Jump(SignedDuration::from_hours(-5)), Some("250 2.0.0"), "the clock goes back"),
    (Fault::CrashBefore, None, "the process ends before it is done"),
    (Fault::CrashAfter, None, "the process ends, and it is done"),
    (Fault::Torn(Tear::Short), None, "the body ends early"),
    (Fault::Torn(Tear::Flip), None, "one bit of the body is another"),
];

/// A scene that takes a message through everything that can become of it.
#[derive(Debug, Clone, Copy)]
enum Scene {
    /// Delivered, refused and reported, sealed and announced, announced in vain.
    Small,
    /// A body of its own file.
    Large,
    /// Sealed because its level was never met: the line comes into doubt.
    Doubted,
}

impl Scene {
    fn set(self, mode: Mode) -> World {
        let mut hosts = hosts();
        if matches!(self, Self::Doubted) {
            let (from, until) = (Duration::ZERO, Duration::MAX);
            for host in hosts.iter_mut().filter(|host| host.name.ends_with("tls.example")) {
                host.weather = vec![Window { from, until, weather: Weather::NoTls }];
            }
        }
        let world = World::new(Chance::new(1), hosts, zones(), mode);
        match self {
            Self::Doubted => world.send(letter("m", &["tls.example"])),
            Self::Small => {
                let mut everything = letter("m", &["plain.example", "stranger.example"]);
                everything.to.push(("plain.example", true));
                everything.to.push(("stranger.example", true));
                world.send(everything);
            }
            Self::Large => {
                let mut large = letter("m", &["plain.example"]);
                large.size = 300 * 1024;
                world.send(large);
            }
        }
        world
    }

    /// Every call of a run without faults.
    fn calls(self) -> Vec<Op> {
        in_virtual_time(async {
            let world = self.set(Mode::Never);
            world.live(&[]).await;
            assert_eq!(world.check().await, Vec::<String>::new(), "{self:?} without faults");
            world.faults.calls()
        })
    }

    /// What is wrong if that call fails so.
    fn with(self, call: usize, op: Op, number: usize) -> Vec<String> {
        let (fault, reply, what) = &FAULTS[number];
        in_virtual_time(async {
            let world = self.set(Mode::At(call, fault.clone()));
            world.live(&[]).await;
            let struck = world.faults.struck();
            let mut wrong = world.check().await;
            if struck != Some(op) {
                wrong.push(format!("the fault was to strike {op:?}, and struck {struck:?}"));
            }
            if matches!(op, Op::Accept | Op::Create | Op::Write | Op::Seal) && world.taking_in(call)
            {
                wrong.extend(world.client_was_told(fault, *reply));
            }
            if world.faults.was_misled() {
                wrong.extend(world.damage_was_noted().await);
            }
            let place = format!("{self:?}, call {call} ({op:?}), {what}");
            if !wrong.is_empty() {
                wrong.push(world.trace.tail(60));
            }
            wrong.into_iter().map(|wrong| format!("{place}: {wrong}")).collect()
        })
    }
}

impl World {
    /// The call came from the client's session: afterwards all calls are the relay's.
    fn taking_in(&self, call: usize) -> bool {
        let calls = self.faults.calls();
        !calls[..call].contains(&Op::Settle)
    }

    fn client_was_told(&self, fault: &Fault, reply: Option<&str>) -> Vec<String> {
        let offers = self.trace.lines();
        let first: Vec<_> = offers.iter().filter(|line| line.contains(" m-1")).collect();
        let told = |text: &str| first.iter().any(|line| line.contains(text));
        let mut wrong = Vec::new();
        let right = match reply {
            Some(reply) if reply.starts_with('2') => told("acknowledged m-1 "),
            Some(reply) => told(&format!("m-1 was put off: {reply}")),
            None => told("m-1 was lost"),
        };
        if !right {
            wrong.push(format!("the client was not told {reply:?}"));
        }
        if matches!(fault, Fault::Busy | Fault::Full | Fault::Dead) && self.id("m-1").is_some() {
            wrong.push("put off, and in the store nevertheless".to_owned());
        }
        wrong
    }

    /// Who looks a message up reads that its sealed body does not open.
    async fn damage_was_noted(&self) -> Option<String> {
        let noted = self
            .trace
            .lines()
            .iter()
            .any(|line| line.contains("waits until") && line.contains("Ours"));
        (!noted).then(|| "a torn body, and no word of it".to_owned())
    }
}

/// Calls worth a fault each: of those that the idle loop makes again and again, the first.
fn worth_a_fault(calls: &[Op]) -> Vec<(usize, Op)> {
    let count = |at: usize| calls[..at].iter().filter(|op| **op == calls[at]).count();
    let idle = |op: Op| op == Op::Claim;
    let worth = |(at, op): &(usize, Op)| count(*at) < if idle(*op) { 8 } else { 20 };
    calls.iter().copied().enumerate().filter(worth).collect()
}

fn sweep(scene: Scene, only: impl Fn(Op) -> bool) {
    let mut cases = Vec::new();
    for (call, op) in worth_a_fault(&scene.calls()) {
        for (number, (fault, ..)) in FAULTS.iter().enumerate() {
            if only(op) && (op == Op::Open || !matches!(fault, Fault::Torn(_))) {
                cases.push((call, op, number));
            }
        }
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut wrong = Vec::new();
        while let Some((call, op, number)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            wrong.extend(scene.with(*call, *op, *number));
        }
        wrong
    };
    let wrong: Vec<String> = thread::scope(|scope| {
        let hands = thread::available_parallelism().map_or(1, usize::from);
        let hands: Vec<_> = (0..hands).map(|_| scope.spawn(work)).collect();
        hands.into_iter().flat_map(|hand| hand.join().expect("a hand")).collect()
    });
    let some = wrong.iter().take(8).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {} cases:\n{some}", wrong.len(), cases.len());
}

#[test]
fn one_fault_at_any_call_loses_and_doubles_nothing() {
    sweep(Scene::Small, |_| true);
}

#[test]
fn one_fault_at_any_call_of_a_large_body_loses_and_doubles_nothing() {
    let own =
        |op| matches!(op, Op::Create | Op::Write | Op::Seal | Op::Accept | Op::Open | Op::Settle);
    sweep(Scene::Large, own);
}

/// A grant that rests on a level that was not met is never there without the doubt about its line,
/// wherever the process ends: until both are, the message waits.
#[test]
fn one_fault_at_any_call_leaves_no_grant_without_its_doubt() {
    sweep(Scene::Doubted, |op| matches!(op, Op::Note | Op::PutNote | Op::Grant | Op::Settle));
}

/// A run in which calls of one kind fail for a while.
async fn lasting(op: Op, fault: Fault, until: Duration) -> World {
    let world = Scene::Small.set(Mode::Every(op, fault, until));
    world.live(&[]).await;
    let wrong = world.check().await;
    assert!(wrong.is_empty(), "{op:?} fails for {until:?}: {wrong:?}\n{}", world.trace.tail(60));
    world
}

#[test]
fn a_full_store_says_452_and_takes_mail_again_by_itself() {
    in_virtual_time(async {
        let world = lasting(Op::Accept, Fault::Full, 2 * HOUR).await;
        let lines = world.trace.lines();
        assert!(lines.iter().filter(|l| l.contains("was put off: 452 4.3.1")).count() > 5);
        assert_eq!(lines.iter().filter(|l| l.contains("acknowledged")).count(), 1);
    });
}

#[test]
fn a_store_that_is_busy_for_minutes_gets_what_was_delivered_written() {
    in_virtual_time(async {
        lasting(Op::Settle, Fault::Busy, 5 * MINUTE).await;
    });
}

#[test]
fn a_store_that_is_slow_at_everything_slows_and_no_more() {
    for op in [Op::Accept, Op::Claim, Op::Settle, Op::Open, Op::Grant] {
        in_virtual_time(async {
            lasting(op, Fault::Slow(MINUTE), HOUR).await;
        });
    }
}

#[test]
fn a_clock_that_is_set_again_and_again_ends_nothing_before_its_time() {
    for op in [Op::Accept, Op::Claim, Op::Open, Op::Settle] {
        in_virtual_time(async {
            let jump = Fault::Jump(SignedDuration::from_hours(-5));
            lasting(op, jump, 3 * MINUTE).await;
        });
    }
}

/// What is damaged at rest is never sent, not even in part, and waits in the hope that it comes
/// back; its sender hears of it.
#[test]
fn a_body_that_does_not_open_is_never_sent_and_its_sender_is_told() {
    for (tear, hours, end) in [
        (Tear::Flip, 3, "delivered"),
        (Tear::Short, 3, "delivered"),
        (Tear::Flip, 9, "expired"),
        (Tear::Short, 9, "expired"),
    ] {
        in_virtual_time(async {
            let until = Duration::from_secs(hours * 3600 - 60);
            let mode = Mode::Every(Op::Open, Fault::Torn(tear), until);
            let world = World::new(Chance::new(1), hosts(), zones(), mode);
            world.send(letter("m", &["plain.example"]));
            world.live(&[]).await;
            let wrong = world.check().await;
            assert!(wrong.is_empty(), "{tear:?}: {wrong:?}\n{}", world.trace.tail(60));
            assert_eq!(world.end_of("m-1", 0).await, end, "{tear:?}");
            if end == "expired" {
                let row = world.row("m-1", 0).await.expect("a recipient");
                assert_eq!(row.why.expect("a reason").reason, Reason::GaveUp);
            }
            let lines = world.trace.lines();
            let told = |what: &str| lines.iter().filter(|l| l.contains(what)).count();
            assert!(told("delayed {\"m-1r0@plain.example\"}") > 0, "{tear:?}");
            let failed = told("failed {\"m-1r0@plain.example\"}");
            assert_eq!(failed > 0, end == "expired", "{tear:?}");
            let taken = world.taken("m-1r0@plain.example");
            assert_eq!(taken, usize::from(end == "delivered"), "{tear:?}");
        });
    }
}

/// A notice is refused, and the report of that can't be made yet; when it is tried again the host
/// takes it. What it announces must still be there.
#[test]
fn a_notice_that_is_taken_at_last_announces_what_can_be_read() {
    in_virtual_time(async {
        let hosts = hosts();
        let refusing = hosts.iter().find(|h| h.name == "mx1.stranger.example").expect("a host");
        let once = Script::at(Stage::Rcpt, Act::Say(550, "5.1.1 No such user"));
        refusing.scripts.lock().expect("unbroken").push_back(once);
        let mode = Mode::Every(Op::Message, Fault::Busy, MINUTE / 2);
        let world = World::new(Chance::new(1), hosts, zones(), mode);
        world.send(letter("m", &["stranger.example"]));
        world.live(&[]).await;
        let wrong = world.check().await;
        assert!(wrong.is_empty(), "{wrong:?}\n{}", world.trace.tail(60));
        assert_eq!(world.end_of("m-1", 0).await, "granted");
        assert_eq!(world.taken("m-1r0@stranger.example"), 1, "the notice");
    });
}

impl World {
    /// How often a host has taken something for that recipient.
    fn taken(&self, recipient: &str) -> usize {
        let book = self.ledger.book();
        let taken = |event: &&Event| matches!(event, Event::Taken { to, .. } if to == recipient);
        book.events.iter().filter(taken).count()
    }
}
