//! What is due, in memory: rebuilt by one scan at start. A unit of work is one message and one
//! domain.

use crate::{
    mail::{Domain, QueueId},
    store::StoreError,
};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};

type UnitKey = (QueueId, Domain);

/// Units by the time at which they can be claimed.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    due: BTreeSet<(Timestamp, QueueId, Domain)>,
    units: HashMap<UnitKey, Unit>,
    leases: HashMap<u64, UnitKey>,
    last_token: u64,
}
/// Recipients that wait. It stands in `due` at `at`: when the first of them is due or, while
/// somebody works at it, when the lease ends. So a lost worker's unit comes up again by itself, and
/// nothing leased is looked at in vain.
#[derive(Debug, Default)]
struct Unit {
    waiting: BTreeMap<u16, Timestamp>,
    at: Timestamp,
    lease: Option<Lease>,
}
#[derive(Debug)]
struct Lease {
    token: u64,
    until: Timestamp,
    indexes: BTreeSet<u16>,
    /// Nobody works at it yet.
    parked: bool,
}
/// A unit handed out.
#[derive(Debug)]
pub(super) struct Leased {
    pub(super) token: u64,
    pub(super) id: QueueId,
    pub(super) domain: Domain,
    pub(super) indexes: Vec<u16>,
}

impl Agenda {
    /// A recipient waits, from now on until that time.
    pub(super) fn wait(&mut self, id: QueueId, domain: &Domain, index: u16, next: Timestamp) {
        self.change((id, domain.clone()), |unit| {
            unit.waiting.insert(index, next);
        });
    }
    /// A recipient waits no longer.
    pub(super) fn leave(&mut self, id: QueueId, domain: &Domain, index: u16) {
        self.change((id, domain.clone()), |unit| {
            unit.waiting.remove(&index);
        });
    }
    /// Changes a unit and puts it where it then belongs.
    fn change(&mut self, key: UnitKey, change: impl FnOnce(&mut Unit)) {
        let unit = self.units.entry(key.clone()).or_default();
        self.due.remove(&(unit.at, key.0, key.1.clone()));
        change(unit);
        let first = unit.waiting.values().min().copied();
        match unit.lease.as_ref().map(|lease| lease.until).or(first) {
            Some(at) => {
                unit.at = at;
                self.due.insert((at, key.0, key.1));
            }
            None => {
                self.units.remove(&key);
            }
        }
    }
    /// When the next unit can be claimed.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, ..)| *at)
    }
    /// Leases at most `max` units that can be claimed now, those first that have been due for
    /// longest.
    pub(super) fn claim(&mut self, now: Timestamp, max: usize, until: Timestamp) -> Vec<Leased> {
        let due = self.due.iter().take_while(|(at, ..)| *at <= now).take(max);
        let keys: Vec<_> = due.map(|(_, id, domain)| (*id, domain.clone())).collect();
        keys.into_iter().filter_map(|key| self.lease(key, now, until)).collect()
    }
    fn lease(&mut self, key: UnitKey, now: Timestamp, until: Timestamp) -> Option<Leased> {
        self.end_lease(&key);
        let unit = self.units.get(&key)?;
        let due = unit.waiting.iter().filter(|(_, next)| **next <= now);
        let indexes: Vec<_> = due.map(|(index, _)| *index).collect();
        if indexes.is_empty() {
            return None;
        }
        self.last_token += 1;
        let token = self.last_token;
        let lease =
            Lease { token, until, indexes: indexes.iter().copied().collect(), parked: false };
        self.change(key.clone(), |unit| unit.lease = Some(lease));
        self.leases.insert(token, key.clone());
        Some(Leased { token, id: key.0, domain: key.1, indexes })
    }
    fn end_lease(&mut self, key: &UnitKey) {
        if let Some(lease) = self.units.get_mut(key).and_then(|unit| unit.lease.take()) {
            self.leases.remove(&lease.token);
            // `at` is still the old one: `change` finds the entry by it.
            self.change(key.clone(), |_| {});
        }
    }
    /// The recipients under a lease that is still its holder's.
    pub(super) fn held(&self, token: u64, id: QueueId) -> Result<&BTreeSet<u16>, StoreError> {
        let key = self.leases.get(&token).filter(|key| key.0 == id);
        let lease = key.and_then(|key| self.units.get(key)).and_then(|unit| unit.lease.as_ref());
        lease.map(|lease| &lease.indexes).ok_or(StoreError::Fenced)
    }
    /// True if somebody works on the recipient.
    pub(super) fn is_worked_on(&self, id: QueueId, domain: &Domain, index: u16) -> bool {
        let unit = self.units.get(&(id, domain.clone()));
        let lease = unit.and_then(|unit| unit.lease.as_ref());
        lease.is_some_and(|lease| !lease.parked && lease.indexes.contains(&index))
    }
    /// Says whether a lease's holder only waits in line; false if the lease is lost.
    pub(super) fn park(&mut self, token: u64, parked: bool) -> bool {
        let unit = self.leases.get(&token).and_then(|key| self.units.get_mut(key));
        let lease = unit.and_then(|unit| unit.lease.as_mut());
        lease.map(|lease| lease.parked = parked).is_some()
    }
    /// Ends a parked lease over the recipient.
    pub(super) fn unpark(&mut self, id: QueueId, domain: &Domain, index: u16) {
        let key = (id, domain.clone());
        let lease = self.units.get(&key).and_then(|unit| unit.lease.as_ref());
        if lease.is_some_and(|lease| lease.parked && lease.indexes.contains(&index)) {
            self.end_lease(&key);
        }
    }
    /// Ends a lease; true if there was one.
    pub(super) fn release(&mut self, token: u64) -> bool {
        let key = self.leases.get(&token).cloned();
        if let Some(key) = &key {
            self.end_lease(key);
        }
        key.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }
    fn id(n: u8) -> QueueId {
        QueueId::from_bytes([n; 16])
    }
    fn domain(name: &str) -> Domain {
        name.parse().unwrap()
    }
    #[test]
    fn the_longest_due_comes_first_and_leased_ones_do_not_stand_in_its_way() {
        let mut a = Agenda::default();
        for (n, next) in [(1, 30), (2, 10), (3, 20), (4, 99)] {
            a.wait(id(n), &domain("a.example"), 0, at(next));
        }
        assert_eq!(a.next(), Some(at(10)));
        let mut order = Vec::new();
        for _ in 0..4 {
            order.extend(a.claim(at(50), 1, at(80)).into_iter().map(|l| l.id));
        }
        assert_eq!(order, [id(2), id(3), id(1)], "4 is not due");
        assert_eq!(a.next(), Some(at(80)), "the leases end");
    }
    #[test]
    fn a_unit_takes_its_due_recipients_only_and_keeps_the_others_waiting() {
        let mut a = Agenda::default();
        a.wait(id(1), &domain("a.example"), 0, at(10));
        a.wait(id(1), &domain("a.example"), 1, at(90));
        a.wait(id(1), &domain("b.example"), 2, at(10));
        let mut got = a.claim(at(20), 9, at(100));
        got.sort_by_key(|l| l.indexes.clone());
        assert_eq!(got.iter().map(|l| l.indexes.clone()).collect::<Vec<_>>(), [vec![0], vec![2]]);
        assert!(a.claim(at(95), 9, at(200)).is_empty(), "the other is due, but its unit is leased");
        a.leave(id(1), &domain("a.example"), 0);
        assert!(a.release(got[0].token));
        assert!(!a.release(got[0].token), "once");
        assert_eq!(a.claim(at(95), 9, at(200))[0].indexes, [1]);
    }
    #[test]
    fn nothing_is_left_of_a_unit_that_has_ended() {
        let mut a = Agenda::default();
        a.wait(id(1), &domain("a.example"), 0, at(10));
        let lease = a.claim(at(10), 1, at(20)).remove(0);
        a.leave(id(1), &domain("a.example"), 0);
        a.release(lease.token);
        assert!(a.due.is_empty() && a.units.is_empty() && a.leases.is_empty());
        assert!(matches!(a.held(lease.token, id(1)), Err(StoreError::Fenced)));
    }
    #[test]
    fn an_expired_lease_is_fenced_once_another_has_it() {
        let mut a = Agenda::default();
        a.wait(id(1), &domain("a.example"), 0, at(10));
        let first = a.claim(at(10), 1, at(20)).remove(0);
        assert!(a.claim(at(19), 1, at(30)).is_empty());
        assert!(a.held(first.token, id(1)).is_ok());
        let second = a.claim(at(20), 1, at(30)).remove(0);
        assert!(matches!(a.held(first.token, id(1)), Err(StoreError::Fenced)));
        assert!(a.held(second.token, id(1)).is_ok());
        assert!(
            matches!(a.held(second.token, id(2)), Err(StoreError::Fenced)),
            "of another message"
        );
    }
}
