//! A growing delay after too many wrong tries. In memory and bounded: a restart forgets it, live
//! sessions never feel it.
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Tries that are free within [`WINDOW`].
const FREE: u32 = 10;
/// How keys begin that count what all clients do to one mailbox, and the tries that are free for
/// such: more than one client's, or a scanner that presses buttons would lock out the mailbox's
/// owner, who comes from somewhere else.
const ALL: &str = "all of ";
const FREE_FOR_ALL: u32 = 30;
/// How long wrong tries are remembered, and the longest delay.
const WINDOW: SignedDuration = SignedDuration::from_mins(15);
/// The first delay in seconds; each further wrong try doubles it.
const FIRST: i64 = 30;
/// Keys remembered at most.
const MAX_KEYS: usize = 10_000;

/// Counts tries by key.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    entries: Mutex<HashMap<String, Entry>>,
}
#[derive(Debug, Clone, Copy)]
struct Entry {
    tries: u32,
    since: Timestamp,
    until: Timestamp,
}
impl Entry {
    fn stale(&self, now: Timestamp) -> bool {
        now.duration_since(self.since.max(self.until)) > WINDOW
    }
}

impl Throttle {
    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
    /// How long these keys must still wait; `None`: try now.
    pub(super) fn wait(&self, keys: &[String], now: Timestamp) -> Option<SignedDuration> {
        let entries = self.entries();
        let waits = keys.iter().filter_map(|key| entries.get(key));
        waits.map(|entry| entry.until.duration_since(now)).filter(|wait| wait.is_positive()).max()
    }
    /// Counts a try before it is made, so that parallel ones can't slip by; a right one is
    /// [forgiven](Self::forgive).
    pub(super) fn count(&self, keys: &[String], now: Timestamp) {
        let mut entries = self.entries();
        for key in keys {
            make_room(&mut entries, key, now);
            let new = Entry { tries: 0, since: now, until: now };
            let entry = entries.entry(key.clone()).or_insert(new);
            if entry.stale(now) {
                *entry = new;
            }
            entry.tries = entry.tries.saturating_add(1);
            let free = free(key);
            if entry.tries >= free {
                let doubled = FIRST << (entry.tries - free).min(10);
                entry.until = now + SignedDuration::from_secs(doubled).min(WINDOW);
            }
        }
    }
    /// The try was right: the account's count ends; the other keys (the client address) get back
    /// only this one try, or one good account would buy any number of guesses at others.
    pub(super) fn forgive(&self, account: &str, others: &[String]) {
        let mut entries = self.entries();
        entries.remove(account);
        for key in others.iter().filter(|key| *key != account) {
            if let Some(entry) = entries.get_mut(key) {
                entry.tries = entry.tries.saturating_sub(1);
                if entry.tries < free(key) {
                    entry.until = entry.since;
                }
            }
        }
    }
}

fn free(key: &str) -> u32 {
    if key.starts_with(ALL) { FREE_FOR_ALL } else { FREE }
}

fn make_room(entries: &mut HashMap<String, Entry>, key: &str, now: Timestamp) {
    if entries.len() < MAX_KEYS || entries.contains_key(key) {
        return;
    }
    entries.retain(|_, entry| !entry.stale(now));
    if entries.len() >= MAX_KEYS {
        // Those with the fewest tries lose least by being forgotten.
        let least = entries.iter().min_by_key(|(_, e)| (e.tries, e.since)).map(|(k, _)| k.clone());
        if let Some(least) = least {
            entries.remove(&least);
        }
    }
}

/// What a try is counted by: whom it is aimed at, and where it comes from.
pub(super) fn keys_of(own: &str, client: Option<IpAddr>) -> Vec<String> {
    std::iter::once(own.to_owned()).chain(client.map(client_key)).collect()
}

/// What a mail to somebody is counted by: who has it sent, and to whom.
pub(super) fn mailbox_keys(own: &str, client: Option<IpAddr>) -> Vec<String> {
    match client {
        Some(client) => vec![format!("{own} by {}", client_key(client)), format!("{ALL}{own}")],
        None => vec![own.to_owned()],
    }
}

/// A client address as a key: one IPv6 customer has at least a /64.
pub(super) fn client_key(client: IpAddr) -> String {
    match client.to_canonical() {
        IpAddr::V4(v4) => format!("client {v4}"),
        IpAddr::V6(v6) => format!("client {:x}", u128::from(v6) >> 64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    #[test]
    fn ten_are_free_then_the_delay_doubles_up_to_a_quarter_of_an_hour() {
        let throttle = Throttle::default();
        let keys = ["account a".to_owned()];
        for _ in 0..10 {
            assert_eq!(throttle.wait(&keys, at(0)), None);
            throttle.count(&keys, at(0));
        }
        let mut now = 0;
        for expected in [30, 60, 120, 240, 480, 900, 900, 900] {
            let wait = throttle.wait(&keys, at(now)).unwrap();
            assert_eq!(wait.as_secs(), expected);
            now += expected;
            assert_eq!(throttle.wait(&keys, at(now)), None, "the delay is over");
            throttle.count(&keys, at(now));
        }
    }
    #[test]
    fn a_quiet_quarter_of_an_hour_forgets() {
        let throttle = Throttle::default();
        let keys = ["account a".to_owned()];
        for _ in 0..9 {
            throttle.count(&keys, at(0));
        }
        throttle.count(&keys, at(16 * 60));
        assert_eq!(throttle.wait(&keys, at(16 * 60)), None);
    }
    #[test]
    fn a_right_one_gives_the_client_back_one_try_only() {
        let throttle = Throttle::default();
        let keys = ["account a".to_owned(), "client b".to_owned()];
        for _ in 0..9 {
            throttle.count(&keys, at(0));
        }
        throttle.count(&keys, at(0));
        throttle.forgive("account a", &keys);
        assert_eq!(throttle.wait(&keys, at(0)), None);
        throttle.count(&keys[1..], at(0));
        assert!(throttle.wait(&keys, at(0)).is_some());
        assert_eq!(throttle.wait(&keys[..1], at(0)), None);
    }
    #[test]
    fn a_mailbox_is_closed_to_the_client_that_asks_too_often_before_it_is_to_all() {
        let throttle = Throttle::default();
        let keys = |client: &str| mailbox_keys("code a", Some(client.parse().unwrap()));
        for client in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            for _ in 0..10 {
                assert_eq!(throttle.wait(&keys(client), at(0)), None, "{client}");
                throttle.count(&keys(client), at(0));
            }
            assert!(throttle.wait(&keys(client), at(0)).is_some(), "{client}");
        }
        assert!(throttle.wait(&keys("192.0.2.4"), at(0)).is_some(), "thirty are enough for all");
        assert_eq!(mailbox_keys("code a", None), ["code a"]);
    }
    #[test]
    fn keys_are_bounded_and_the_busiest_stay() {
        let throttle = Throttle::default();
        let busy = ["busy".to_owned()];
        for _ in 0..10 {
            throttle.count(&busy, at(0));
        }
        for number in 0..MAX_KEYS + 50 {
            throttle.count(&[number.to_string()], at(1));
        }
        assert!(throttle.entries().len() <= MAX_KEYS);
        assert!(throttle.wait(&busy, at(1)).is_some());
    }
    #[test]
    fn one_ipv6_network_is_one_client() {
        let key = |text: &str| client_key(text.parse().unwrap());
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }
}
