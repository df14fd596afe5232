//! The whole gateway on virtual time and a network in memory: real intake, vault, relay and SMTP
//! sessions, with partitions, lost replies, greylisting, slow hosts, doubtful DNS, a failing store, a
//! clock that is set, and a process that ends anywhere and is started again. Each run comes from one
//! number, and is judged by what must never happen (`check`).
//!
//! `RESTANTE_SEED=N` runs that one and prints its trace; `RESTANTE_RUNS=N` runs so many.

mod chance;
mod check;
mod client;
pub mod faults;
pub mod gateway;
pub mod host;
mod ledger;
mod network;
mod pki;
mod store;
mod talk;
pub mod world;

pub use chance::Chance;
pub use ledger::Event;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

/// Runs where nothing else is asked.
const RUNS: u64 = 1000;

fn number(name: &str) -> Option<u64> {
    let value = std::env::var_os(name)?;
    Some(value.to_string_lossy().parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What is wrong with a run, and how to see it again.
fn complaint(seed: u64, judgement: &world::Judgement) -> String {
    format!(
        "seed {seed}:\n{}\n{}\nagain with RESTANTE_SEED={seed}\n",
        judgement.tail,
        judgement.wrong.join("\n")
    )
}

#[test]
fn nothing_is_lost_doubled_or_stuck_whatever_happens() {
    if let Some(seed) = number("RESTANTE_SEED") {
        chance::LOUD.store(true, Ordering::Relaxed);
        let judgement = world::run(seed);
        assert!(judgement.wrong.is_empty(), "{}", complaint(seed, &judgement));
        return;
    }
    let runs = number("RESTANTE_RUNS").unwrap_or(RUNS);
    let next = AtomicU64::new(0);
    let work = || {
        let mut wrong = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= runs {
                return wrong;
            }
            let judgement = world::run(seed);
            if !judgement.wrong.is_empty() {
                wrong.push(complaint(seed, &judgement));
            }
        }
    };
    let wrong: Vec<String> = thread::scope(|scope| {
        let hands = thread::available_parallelism().map_or(1, usize::from);
        let hands: Vec<_> = (0..hands).map(|_| scope.spawn(work)).collect();
        hands.into_iter().flat_map(|hand| hand.join().expect("a hand")).collect()
    });
    let some = wrong.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {runs} runs went wrong\n{some}", wrong.len());
}

#[test]
fn a_seed_gives_the_same_run_again() {
    for seed in 0..40 {
        let (one, other) = (world::run(seed), world::run(seed));
        let first = one.lines.iter().zip(&other.lines).find(|(a, b)| a != b);
        assert_eq!(one.hash, other.hash, "seed {seed} differs first at {first:#?}");
    }
    assert_ne!(world::run(1).hash, world::run(2).hash);
}
