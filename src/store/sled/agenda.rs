//! What is due, in memory: rebuilt by one scan at start. A unit of work is one message and one
//! domain; the units of a domain stand in a lane of their own, so that a domain that nobody has room
//! for is stepped over as one.

use crate::{
    mail::{Domain, QueueId},
    store::{Ask, Room, StoreError},
};
use jiff::Timestamp;
use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeSet, BinaryHeap, HashMap, btree_set},
};

/// Units by the time at which they can be claimed.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    lanes: HashMap<Domain, Lane>,
    /// Each lane at the time of its first unit.
    order: BTreeSet<(Timestamp, Domain)>,
    leases: HashMap<u64, (Domain, QueueId)>,
    last_token: u64,
}
/// The units of one domain.
#[derive(Debug, Default)]
struct Lane {
    due: BTreeSet<(Timestamp, QueueId)>,
    units: HashMap<QueueId, Unit>,
}
/// Recipients that wait. It stands in `due` at `at`: when the first of them is due or, while
/// somebody works at it, when the lease ends. So a lost worker's unit comes up again by itself, and
/// nothing leased is looked at in vain.
#[derive(Debug, Default)]
struct Unit {
    /// By index.
    waiting: Vec<(u16, Timestamp)>,
    at: Timestamp,
    lease: Option<Box<Lease>>,
}
#[derive(Debug)]
struct Lease {
    token: u64,
    until: Timestamp,
    indexes: BTreeSet<u16>,
}
/// A unit handed out.
#[derive(Debug)]
pub(super) struct Leased {
    pub(super) token: u64,
    pub(super) id: QueueId,
    pub(super) domain: Domain,
    pub(super) indexes: Vec<u16>,
}

/// The first unit of a lane, and those after it.
struct Head<'a> {
    at: Timestamp,
    id: QueueId,
    domain: &'a Domain,
    rest: btree_set::Iter<'a, (Timestamp, QueueId)>,
}
impl<'a> Head<'a> {
    fn of(
        domain: &'a Domain,
        mut rest: btree_set::Iter<'a, (Timestamp, QueueId)>,
    ) -> Option<Reverse<Self>> {
        let (at, id) = *rest.next()?;
        Some(Reverse(Self { at, id, domain, rest }))
    }
    const fn key(&self) -> (Timestamp, QueueId, &'a Domain) {
        (self.at, self.id, self.domain)
    }
}
impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for Head<'_> {}
impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Unit {
    fn wait(&mut self, index: u16, next: Timestamp) {
        match self.waiting.binary_search_by_key(&index, |(i, _)| *i) {
            Ok(at) => {
                if let Some(entry) = self.waiting.get_mut(at) {
                    entry.1 = next;
                }
            }
            Err(at) => {
                // Nearly all units are of one recipient, and there may be a million of them.
                if self.waiting.is_empty() {
                    self.waiting.reserve_exact(1);
                }
                self.waiting.insert(at, (index, next));
            }
        }
    }
    fn leave(&mut self, index: u16) {
        if let Ok(at) = self.waiting.binary_search_by_key(&index, |(i, _)| *i) {
            self.waiting.remove(at);
        }
    }
    fn due(&self, now: Timestamp) -> Vec<u16> {
        self.waiting.iter().filter(|(_, next)| *next <= now).map(|(index, _)| *index).collect()
    }
    /// When it can be claimed; `None`: nobody waits.
    fn next(&self) -> Option<Timestamp> {
        let first = || self.waiting.iter().map(|(_, next)| *next).min();
        self.lease.as_ref().map(|lease| lease.until).or_else(first)
    }
}

impl Lane {
    fn first(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }
    fn change(&mut self, id: QueueId, change: impl FnOnce(&mut Unit)) {
        let unit = self.units.entry(id).or_default();
        self.due.remove(&(unit.at, id));
        change(unit);
        match unit.next() {
            Some(at) => {
                unit.at = at;
                self.due.insert((at, id));
            }
            None => {
                self.units.remove(&id);
            }
        }
    }
}

impl Agenda {
    /// Units that somebody works at.
    pub(super) fn claims(&self) -> usize {
        self.leases.len()
    }
    /// A recipient waits, from now on until that time.
    pub(super) fn wait(&mut self, id: QueueId, domain: &Domain, index: u16, next: Timestamp) {
        self.change(domain, id, |unit| unit.wait(index, next));
    }
    /// A recipient waits no longer.
    pub(super) fn leave(&mut self, id: QueueId, domain: &Domain, index: u16) {
        self.change(domain, id, |unit| unit.leave(index));
    }
    /// Changes a unit, and puts it and its lane where they then belong.
    fn change(&mut self, domain: &Domain, id: QueueId, change: impl FnOnce(&mut Unit)) {
        if !self.lanes.contains_key(domain) {
            self.lanes.insert(domain.clone(), Lane::default());
        }
        let Some(lane) = self.lanes.get_mut(domain) else { return };
        let before = lane.first();
        lane.change(id, change);
        let after = lane.first();
        if before == after && after.is_some() {
            return;
        }
        if let Some(at) = before {
            self.order.remove(&(at, domain.clone()));
        }
        match after {
            Some(at) => {
                self.order.insert((at, domain.clone()));
            }
            None => {
                self.lanes.remove(domain);
            }
        }
    }
    /// Leases units that can be claimed now, as many as are asked for and of each domain as many as
    /// there is room for; those first that have been due for longest. Says when there is the next, of
    /// domains with room left.
    pub(super) fn claim(&mut self, ask: Ask) -> (Vec<Leased>, Option<Timestamp>) {
        let until = ask.until();
        let Ask { now, max, mut room, .. } = ask;
        let keys = self.first(now, max, &mut room);
        let leased = keys.into_iter().filter_map(|(d, id)| self.lease(d, id, now, until)).collect();
        let mut open = self.order.iter().filter(|(_, domain)| room.of(domain) > 0);
        (leased, open.next().map(|(at, _)| *at))
    }
    /// The lanes with room, merged: no more of them are looked into than have something to give.
    fn first(&self, now: Timestamp, max: usize, room: &mut Room) -> Vec<(Domain, QueueId)> {
        let open: Vec<_> = {
            let due = self.order.iter().take_while(|(at, _)| *at <= now);
            due.filter(|(_, domain)| room.of(domain) > 0).take(max).collect()
        };
        let mut lanes = open.into_iter().peekable();
        let mut heads = BinaryHeap::new();
        let mut keys = Vec::new();
        while keys.len() < max {
            let first = heads.peek().map(|Reverse(Head { at, .. })| *at);
            if let Some((_, domain)) = lanes.next_if(|(at, _)| first.is_none_or(|f| *at <= f)) {
                heads.extend(self.lanes.get(domain).and_then(|l| Head::of(domain, l.due.iter())));
                continue;
            }
            let Some(Reverse(Head { id, domain, rest, .. })) = heads.pop() else { break };
            keys.push((domain.clone(), id));
            let left = room.of(domain).saturating_sub(1);
            room.named.insert(domain.clone(), left);
            let next = Head::of(domain, rest).filter(|Reverse(h)| left > 0 && h.at <= now);
            heads.extend(next);
        }
        keys
    }
    fn lease(
        &mut self,
        domain: Domain,
        id: QueueId,
        now: Timestamp,
        until: Timestamp,
    ) -> Option<Leased> {
        self.end_lease(&domain, id);
        let indexes = self.lanes.get(&domain)?.units.get(&id)?.due(now);
        if indexes.is_empty() {
            return None;
        }
        self.last_token += 1;
        let token = self.last_token;
        let lease = Box::new(Lease { token, until, indexes: indexes.iter().copied().collect() });
        self.change(&domain, id, |unit| unit.lease = Some(lease));
        self.leases.insert(token, (domain.clone(), id));
        Some(Leased { token, id, domain, indexes })
    }
    fn end_lease(&mut self, domain: &Domain, id: QueueId) {
        let unit = self.lanes.get_mut(domain).and_then(|lane| lane.units.get_mut(&id));
        if let Some(lease) = unit.and_then(|unit| unit.lease.take()) {
            self.leases.remove(&lease.token);
            // `at` is still the old one: `change` finds the entry by it.
            self.change(domain, id, |_| {});
        }
    }
    fn lease_of(&self, domain: &Domain, id: QueueId) -> Option<&Lease> {
        self.lanes.get(domain)?.units.get(&id)?.lease.as_deref()
    }
    /// The recipients under a lease that is still its holder's.
    pub(super) fn held(&self, token: u64, id: QueueId) -> Result<&BTreeSet<u16>, StoreError> {
        let (domain, _) =
            self.leases.get(&token).filter(|(_, of)| *of == id).ok_or(StoreError::Fenced)?;
        self.lease_of(domain, id).map(|lease| &lease.indexes).ok_or(StoreError::Fenced)
    }
    /// True if a recipient of the unit waits.
    pub(super) fn has(&self, domain: &Domain, id: QueueId) -> bool {
        self.lanes.get(domain).is_some_and(|lane| lane.units.contains_key(&id))
    }
    /// True if somebody works on the recipient.
    pub(super) fn is_worked_on(&self, id: QueueId, domain: &Domain, index: u16) -> bool {
        self.lease_of(domain, id).is_some_and(|lease| lease.indexes.contains(&index))
    }
    /// Ends a lease; true if there was one.
    pub(super) fn release(&mut self, token: u64) -> bool {
        let Some((domain, id)) = self.leases.get(&token).cloned() else { return false };
        self.end_lease(&domain, id);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }
    fn id(n: u8) -> QueueId {
        QueueId::from_bytes([n; 16])
    }
    fn domain(name: &str) -> Domain {
        name.parse().unwrap()
    }
    fn next(a: &mut Agenda) -> Option<Timestamp> {
        a.claim(ask(0, 0, 0, Room::endless())).1
    }
    fn ask(now: i64, max: usize, until: i64, room: Room) -> Ask {
        Ask { now: at(now), max, lease: SignedDuration::from_secs(until - now), room }
    }
    fn claim(a: &mut Agenda, now: i64, max: usize, until: i64) -> Vec<Leased> {
        a.claim(ask(now, max, until, Room::endless())).0
    }
    #[test]
    fn the_longest_due_comes_first_and_leased_ones_do_not_stand_in_its_way() {
        let mut a = Agenda::default();
        for (n, next) in [(1, 30), (2, 10), (3, 20), (4, 99)] {
            a.wait(id(n), &domain("a.example"), 0, at(next));
        }
        assert_eq!(next(&mut a), Some(at(10)));
        let mut order = Vec::new();
        for _ in 0..4 {
            order.extend(claim(&mut a, 50, 1, 80).into_iter().map(|l| l.id));
        }
        assert_eq!(order, [id(2), id(3), id(1)], "4 is not due");
        assert_eq!(next(&mut a), Some(at(80)), "the leases end");
    }
    #[test]
    fn a_unit_takes_its_due_recipients_only_and_keeps_the_others_waiting() {
        let mut a = Agenda::default();
        a.wait(id(1), &domain("a.example"), 0, at(10));
        a.wait(id(1), &domain("a.example"), 1, at(90));
        a.wait(id(1), &domain("b.example"), 2, at(10));
        let mut got = claim(&mut a, 20, 9, 100);
        got.sort_by_key(|l| l.indexes.clone());
        assert_eq!(got.iter().map(|l| l.indexes.clone()).collect::<Vec<_>>(), [vec![0], vec![2]]);
        assert!(claim(&mut a, 95, 9, 200).is_empty(), "the other is due, but its unit is leased");
        a.leave(id(1), &domain("a.example"), 0);
        assert!(a.release(got[0].token));
        assert!(!a.release(got[0].token), "once");
        assert_eq!(claim(&mut a, 95, 9, 200)[0].indexes, [1]);
    }
    #[test]
    fn a_domain_without_room_is_in_nobodys_way() {
        let mut a = Agenda::default();
        for n in 1..=9 {
            a.wait(id(n), &domain("dead.example"), 0, at(10));
        }
        a.wait(id(10), &domain("live.example"), 0, at(20));
        a.wait(id(11), &domain("live.example"), 0, at(40));
        let room = |dead| Room { named: [(domain("dead.example"), dead)].into(), others: 5 };
        for (now, max, dead, ids, then, why) in [
            (30, 9, 0, vec![10], Some(40), "none for the dead one: what comes next is the other's"),
            (30, 9, 2, vec![1, 2], Some(40), "as many as there is room for; 10 is leased"),
            (30, 1, 5, vec![3], Some(10), "no more than asked, and there is more at once"),
            (40, 2, 3, vec![4, 5], Some(10), "what has been due for longest"),
            (40, 9, 1, vec![6, 11], Some(99), "only ends of leases are left"),
            (40, 9, 9, vec![7, 8, 9], Some(99), "room for more than there is"),
        ] {
            let (leased, next) = a.claim(ask(now, max, 99, room(dead)));
            let got: Vec<_> = leased.iter().map(|l| l.id).collect();
            assert_eq!(got, ids.into_iter().map(id).collect::<Vec<_>>(), "{why}");
            assert_eq!(next, then.map(at), "{why}");
        }
    }
    #[test]
    fn nothing_is_left_of_a_unit_that_has_ended() {
        let mut a = Agenda::default();
        a.wait(id(1), &domain("a.example"), 0, at(10));
        let lease = claim(&mut a, 10, 1, 20).remove(0);
        a.leave(id(1), &domain("a.example"), 0);
        a.release(lease.token);
        assert!(a.lanes.is_empty() && a.order.is_empty() && a.leases.is_empty());
        assert!(matches!(a.held(lease.token, id(1)), Err(StoreError::Fenced)));
    }
    #[test]
    fn an_expired_lease_is_fenced_once_another_has_it() {
        let mut a = Agenda::default();
        a.wait(id(1), &domain("a.example"), 0, at(10));
        let first = claim(&mut a, 10, 1, 20).remove(0);
        assert!(claim(&mut a, 19, 1, 30).is_empty());
        assert!(a.held(first.token, id(1)).is_ok());
        let second = claim(&mut a, 20, 1, 30).remove(0);
        assert!(matches!(a.held(first.token, id(1)), Err(StoreError::Fenced)));
        assert!(a.held(second.token, id(1)).is_ok());
        assert!(
            matches!(a.held(second.token, id(2)), Err(StoreError::Fenced)),
            "of another message"
        );
    }
}
