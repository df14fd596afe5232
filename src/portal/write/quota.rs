//! How much one account may send: letters and bytes in an hour, and forms at one time. In memory and
//! bounded; a restart forgets it.

use crate::mail::Address;
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Letters in an hour.
const LETTERS: u32 = 60;
/// Times the largest letter, in bytes of an hour.
const LARGEST: u64 = 10;
/// Letters on their way in at one time.
const AT_ONCE: u32 = 3;
const WINDOW: SignedDuration = SignedDuration::from_hours(1);
/// Accounts remembered at most.
const ACCOUNTS: usize = 10_000;

/// Counts by account.
#[derive(Debug, Clone, Default)]
pub(in crate::portal) struct Quota(Arc<Mutex<HashMap<Address, Used>>>);
#[derive(Debug, Clone, Copy)]
struct Used {
    since: Timestamp,
    letters: u32,
    bytes: u64,
    running: u32,
}

/// Leave to send one letter; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    quota: Quota,
    account: Address,
}

impl Quota {
    fn used(&self) -> MutexGuard<'_, HashMap<Address, Used>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// Leave to send, or how long to wait. `largest` is the size of the largest letter.
    pub(super) fn turn(
        &self,
        account: &Address,
        now: Timestamp,
        largest: u64,
    ) -> Result<Turn, SignedDuration> {
        let mut used = self.used();
        make_room(&mut used, account, now);
        let new = Used { since: now, letters: 0, bytes: 0, running: 0 };
        let entry = used.entry(account.clone()).or_insert(new);
        if now.duration_since(entry.since) >= WINDOW {
            *entry = Used { running: entry.running, ..new };
        }
        if entry.letters >= LETTERS || entry.bytes >= largest.saturating_mul(LARGEST) {
            return Err(WINDOW - now.duration_since(entry.since));
        }
        if entry.running >= AT_ONCE {
            return Err(SignedDuration::from_mins(1));
        }
        entry.letters += 1;
        entry.running += 1;
        Ok(Turn { quota: self.clone(), account: account.clone() })
    }
}
impl Turn {
    /// So much was sent.
    pub(super) fn count(&self, bytes: u64) {
        if let Some(entry) = self.quota.used().get_mut(&self.account) {
            entry.bytes = entry.bytes.saturating_add(bytes);
        }
    }
}
impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(entry) = self.quota.used().get_mut(&self.account) {
            entry.running = entry.running.saturating_sub(1);
        }
    }
}

fn make_room(used: &mut HashMap<Address, Used>, account: &Address, now: Timestamp) {
    if used.len() < ACCOUNTS || used.contains_key(account) {
        return;
    }
    used.retain(|_, entry| entry.running > 0 || now.duration_since(entry.since) < WINDOW);
    if used.len() >= ACCOUNTS {
        // Those who sent least lose least by being forgotten.
        let least = used.iter().filter(|(_, entry)| entry.running == 0);
        let least = least.min_by_key(|(_, e)| (e.letters, e.since)).map(|(a, _)| a.clone());
        if let Some(least) = least {
            used.remove(&least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }
    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn letters_bytes_and_forms_at_one_time_are_bounded() {
        let (quota, ann) = (Quota::default(), address("ann@a.example"));
        let running: Vec<_> = (0..3).map(|_| quota.turn(&ann, at(0), 100).unwrap()).collect();
        assert_eq!(quota.turn(&ann, at(0), 100).unwrap_err(), SignedDuration::from_mins(1));
        assert!(quota.turn(&address("bob@a.example"), at(0), 100).is_ok(), "another account");
        drop(running);
        for _ in 0..57 {
            quota.turn(&ann, at(10), 100).unwrap();
        }
        let wait = quota.turn(&ann, at(60), 100).unwrap_err();
        assert_eq!(wait, SignedDuration::from_mins(59), "sixty in an hour");
        let large = quota.turn(&ann, at(3600), 100).expect("a new hour");
        large.count(1000);
        drop(large);
        assert!(quota.turn(&ann, at(3601), 100).is_err(), "ten of the largest");
        assert!(quota.turn(&ann, at(3601), 101).is_ok());
    }

    #[test]
    fn accounts_are_bounded() {
        let (quota, busy) = (Quota::default(), address("busy@a.example"));
        for _ in 0..60 {
            quota.turn(&busy, at(0), 1).unwrap();
        }
        for number in 0..ACCOUNTS + 20 {
            quota.turn(&address(&format!("a{number}@a.example")), at(1), 1).unwrap();
        }
        assert!(quota.used().len() <= ACCOUNTS);
        assert!(quota.turn(&busy, at(2), 1).is_err(), "the busiest is remembered");
    }
}
