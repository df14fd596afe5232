//! How much one account sends in an hour: letters, octets, recipients. In memory and bounded; a
//! restart forgets it.

use crate::mail::Address;
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Letters in an hour.
const LETTERS: u32 = 60;
/// Recipients in an hour, of an author outside: more than a person's correspondence, less than a list
/// of the staff.
const RECIPIENTS_OUTSIDE: usize = 100;
/// And of one inside.
const RECIPIENTS_INSIDE: usize = 3_000;
/// Times the largest letter, in octets of an hour.
const LARGEST: u64 = 10;
const WINDOW: SignedDuration = SignedDuration::from_hours(1);
/// Accounts remembered at most.
const ACCOUNTS: usize = 10_000;

/// Counts by account.
#[derive(Debug, Default)]
pub(super) struct Quota(Mutex<HashMap<Address, Used>>);
#[derive(Debug, Clone, Copy)]
struct Used {
    since: Timestamp,
    letters: u32,
    recipients: usize,
    octets: u64,
}

/// A letter to be counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demand<'a> {
    /// Its author.
    pub(super) account: &'a Address,
    /// The author's address is one of the organisation's own.
    pub(super) inside: bool,
    /// Its recipients.
    pub(super) recipients: usize,
    /// The size of the largest letter.
    pub(super) largest: u64,
}

impl Quota {
    fn used(&self) -> MutexGuard<'_, HashMap<Address, Used>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a letter, or says how long to wait.
    pub(super) fn admit(&self, demand: Demand<'_>, now: Timestamp) -> Result<(), SignedDuration> {
        let mut used = self.used();
        make_room(&mut used, demand.account, now);
        let new = Used { since: now, letters: 0, recipients: 0, octets: 0 };
        let entry = used.entry(demand.account.clone()).or_insert(new);
        if now.duration_since(entry.since) >= WINDOW {
            *entry = new;
        }
        let most = if demand.inside { RECIPIENTS_INSIDE } else { RECIPIENTS_OUTSIDE };
        let recipients = entry.recipients.saturating_add(demand.recipients);
        if entry.letters >= LETTERS
            || recipients > most
            || entry.octets >= demand.largest.saturating_mul(LARGEST)
        {
            return Err(WINDOW - now.duration_since(entry.since));
        }
        entry.letters += 1;
        entry.recipients = recipients;
        Ok(())
    }

    /// Counts octets of an account's letters.
    pub(super) fn count(&self, account: &Address, octets: u64) {
        if let Some(entry) = self.used().get_mut(account) {
            entry.octets = entry.octets.saturating_add(octets);
        }
    }
}

fn make_room(used: &mut HashMap<Address, Used>, account: &Address, now: Timestamp) {
    if used.len() < ACCOUNTS || used.contains_key(account) {
        return;
    }
    used.retain(|_, entry| now.duration_since(entry.since) < WINDOW);
    if used.len() >= ACCOUNTS {
        // Those that sent least lose least by being forgotten.
        let least = used.iter().min_by_key(|(_, e)| (e.letters, e.since)).map(|(a, _)| a.clone());
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
    fn letter(account: &Address, recipients: usize) -> Demand<'_> {
        Demand { account, inside: false, recipients, largest: 100 }
    }

    #[test]
    fn letters_and_octets_of_an_hour_are_bounded() {
        let (quota, ann) = (Quota::default(), address("ann@a.example"));
        for _ in 0..60 {
            quota.admit(letter(&ann, 1), at(10)).unwrap();
        }
        let wait = quota.admit(letter(&ann, 1), at(70)).unwrap_err();
        assert_eq!(wait, SignedDuration::from_mins(59), "sixty in an hour");
        assert!(quota.admit(letter(&address("bob@a.example"), 1), at(70)).is_ok(), "another");
        quota.admit(letter(&ann, 1), at(3610)).expect("a new hour");
        quota.count(&ann, 1000);
        assert!(quota.admit(letter(&ann, 1), at(3611)).is_err(), "ten of the largest");
        let larger = Demand { largest: 101, ..letter(&ann, 1) };
        assert!(quota.admit(larger, at(3611)).is_ok());
    }

    #[test]
    fn an_author_outside_reaches_fewer_recipients_in_an_hour() {
        let (quota, ann) = (Quota::default(), address("ann@a.example"));
        for (recipients, taken) in [(50, true), (51, false), (50, true), (1, false)] {
            assert_eq!(quota.admit(letter(&ann, recipients), at(0)).is_ok(), taken, "{recipients}");
        }
        let nurse = address("nurse@example.org");
        for _ in 0..60 {
            let inside = Demand { inside: true, ..letter(&nurse, 50) };
            quota.admit(inside, at(0)).expect("an author inside");
        }
    }

    #[test]
    fn accounts_are_bounded() {
        let (quota, busy) = (Quota::default(), address("busy@a.example"));
        for _ in 0..60 {
            quota.admit(letter(&busy, 1), at(0)).unwrap();
        }
        for number in 0..ACCOUNTS + 20 {
            let other = address(&format!("a{number}@a.example"));
            quota.admit(letter(&other, 1), at(1)).unwrap();
        }
        assert!(quota.used().len() <= ACCOUNTS);
        assert!(quota.admit(letter(&busy, 1), at(2)).is_err(), "the busiest is remembered");
    }
}
