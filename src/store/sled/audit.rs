//! The audit trail in the book. Changes run on the committer's thread, where the chain grows in order.

use super::{
    book::{self, Book, Changes},
    committer::State,
    snapshot::Snapshot,
};
use crate::{
    clock::TrustedTime,
    mail::Address,
    store::{
        StoreError,
        audit::{AuditAges, AuditChain, AuditEvent, AuditRecord},
    },
};
use jiff::SignedDuration;

/// The chain as the book has it; called at start. A trail whose end does not fit is gone on with from
/// its head, so that the damage stays where a check finds it.
pub(super) fn load_chain(book: &Book) -> Result<AuditChain, StoreError> {
    let all = || book::under(vec![book::AUDIT]);
    let last = readable(&book.page(all(), true, 1)?).pop();
    if let Some(chain) = book.get::<AuditChain>(book::AUDIT_CHAIN)? {
        if !chain.ends_with(last.as_ref()) {
            tracing::error!("the audit trail is damaged at its end: run `restante audit verify`");
        }
        return Ok(chain);
    }
    let first = readable(&book.page(all(), false, 1)?).pop();
    let (Some(first), Some(last)) = (first, last) else { return Ok(AuditChain::default()) };
    tracing::error!("the head of the audit trail is lost; it goes on from its last record");
    Ok(AuditChain::of(&first, &last))
}

fn readable(pairs: &[book::Pair]) -> Vec<AuditRecord> {
    pairs.iter().filter_map(|(_, value)| book::decode(value).ok()).collect()
}

impl Snapshot {
    pub(super) fn audit_events(
        &self,
        of: Option<&Address>,
        before: Option<u64>,
        max: usize,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let mut range = book::under(of.map_or_else(|| vec![book::AUDIT], book::audit_of));
        if let Some(seq) = before {
            let end = of.map_or_else(|| book::audit(seq), |of| book::audit_at(of, seq));
            range.end = range.end.min(end);
        }
        let pairs = self.page(range, true, max)?;
        if of.is_none() {
            return Ok(readable(&pairs));
        }
        let mut records = Vec::with_capacity(pairs.len());
        for (key, _) in pairs {
            let value = book::audit_seq(&key).map(|seq| self.raw(&book::audit(seq)));
            let value = value.transpose()?.flatten();
            records.extend(value.and_then(|value| book::decode(&value).ok()));
        }
        Ok(records)
    }
    pub(super) fn audit_records(
        &self,
        after: u64,
        max: usize,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let mut range = book::under(vec![book::AUDIT]);
        range.start = book::audit(after.saturating_add(1));
        let mut records = Vec::new();
        // A page that holds nothing readable is no end.
        while records.is_empty() {
            let pairs = self.page(range.clone(), false, max)?;
            let Some((last, _)) = pairs.last() else { break };
            range.start = book::after(last.clone());
            records = readable(&pairs);
        }
        Ok(records)
    }
}
impl State {
    /// Gathers the records of events beside whatever else a job changes, so that all of it is one
    /// commit. The answer becomes [`State::audit`] once the job takes its changes.
    pub(super) fn audit_rows(
        &self,
        events: Vec<AuditEvent>,
        changes: &mut Changes,
    ) -> Result<AuditChain, StoreError> {
        let mut chain = self.audit;
        if events.is_empty() {
            return Ok(chain);
        }
        for event in events {
            let record = chain.append(event)?;
            if let Some(account) = &record.event.account {
                changes.put_raw(book::audit_at(account, record.seq), Vec::new())?;
            }
            changes.put(book::audit(record.seq), &record)?;
        }
        changes.put(book::AUDIT_CHAIN.to_vec(), &chain)?;
        Ok(chain)
    }
    pub(super) fn append_audit(&mut self, events: Vec<AuditEvent>) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        let chain = self.audit_rows(events, &mut changes)?;
        self.book.take(changes);
        self.audit = chain;
        Ok(())
    }
    pub(super) fn purge_audit(
        &mut self,
        now: TrustedTime,
        age: SignedDuration,
        max: usize,
    ) -> Result<usize, StoreError> {
        let (mut chain, mut changes) = (self.audit, Changes::default());
        let removed = self.over(now, age, max)?;
        for (key, value) in self.book.page(book::under(vec![book::AUDIT]), false, removed)? {
            let record: AuditRecord = book::decode(&value)?;
            if let Some(account) = &record.event.account {
                changes.remove(book::audit_at(account, record.seq));
            }
            changes.remove(key);
            chain.remove(&record);
        }
        if removed > 0 {
            changes.put(book::AUDIT_CHAIN.to_vec(), &chain)?;
            self.book.take(changes);
            self.audit = chain;
        }
        Ok(removed)
    }
    /// How many of the oldest records have had their time, `max` at most.
    fn over(&self, now: TrustedTime, age: SignedDuration, max: usize) -> Result<usize, StoreError> {
        let (mut ages, mut range) = (AuditAges::new(now, age), book::under(vec![book::AUDIT]));
        while ages.over() < max {
            let pairs = self.book.page(range.clone(), false, max)?;
            let Some((last, _)) = pairs.last() else { break };
            range.start = book::after(last.clone());
            for (_, value) in pairs {
                // One that can't be read keeps its place, and all after it: a check must find it.
                match book::decode(&value) {
                    Ok(record) if ages.next(&record) => {}
                    Ok(_) | Err(_) => return Ok(ages.over().min(max)),
                }
            }
        }
        Ok(ages.over().min(max))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Options, SledStore};
    use super::*;
    use crate::{
        clock::{Clock, ClockGuard},
        store::{
            AuditStore,
            audit::{AuditCheck, AuditFault, AuditKind},
        },
    };
    use jiff::Timestamp;
    use std::{path::Path, sync::Arc};

    fn open(dir: &Path) -> SledStore {
        SledStore::open(dir, Options { reserve: 0, min_free: 0, ..Options::default() }).unwrap()
    }
    #[derive(Debug)]
    struct Still(Timestamp);
    impl Clock for Still {
        fn now(&self) -> Timestamp {
            self.0
        }
    }
    /// The time of that event.
    fn trusted(second: i64) -> TrustedTime {
        let clock = Arc::new(Still(event(second).at));
        ClockGuard::new(clock, None).check().unwrap()
    }
    fn event(second: i64) -> AuditEvent {
        let at = Timestamp::from_second(1_800_000_000 + second).unwrap();
        AuditEvent::new(AuditKind::SignIn, at).account(&"a@a.example".parse().unwrap())
    }
    async fn faults(store: &SledStore) -> Vec<AuditFault> {
        let mut check = AuditCheck::new(store.chain().await.unwrap());
        let records = store.records(0, 100).await.unwrap();
        let mut found: Vec<_> = records.iter().filter_map(|r| check.next(r).err()).collect();
        found.extend(check.end().err());
        found
    }
    /// Writes past the store, as somebody with the disk would.
    async fn tamper(store: &SledStore, key: book::Key, value: Option<Vec<u8>>) {
        let change = move |s: &mut State| {
            let mut changes = Changes::default();
            changes.again(key, value);
            s.book.take(changes);
            Ok(())
        };
        store.committer.run(0, change).await.unwrap();
    }

    #[tokio::test]
    async fn a_damaged_record_on_disk_is_located_also_after_a_start() {
        let cut = |_: Vec<u8>| None;
        let unreadable = |_: Vec<u8>| Some(b"\x01{".to_vec());
        let changed = |row: Vec<u8>| {
            let text = String::from_utf8(row).unwrap();
            Some(text.replace("sign-in", "new-device").into_bytes())
        };
        type Change = fn(Vec<u8>) -> Option<Vec<u8>>;
        let missing = |seq| AuditFault::Missing { from: seq, to: seq };
        let cases: [(u64, Change, AuditFault); 4] = [
            (3, cut, missing(3)),
            (3, unreadable, missing(3)),
            (3, changed, AuditFault::Changed { seq: 3 }),
            (5, cut, missing(5)),
        ];
        for (seq, change, fault) in cases {
            let dir = tempfile::tempdir().unwrap();
            let store = open(dir.path());
            store.append((0..5).map(event).collect()).await.unwrap();
            assert_eq!(faults(&store).await, []);
            let row = store.committer.read(move |s| s.book.raw(&book::audit(seq))).await;
            tamper(&store, book::audit(seq), change(row.unwrap().unwrap())).await;
            assert_eq!(faults(&store).await, [fault]);
            drop(store);
            let store = open(dir.path());
            assert_eq!(faults(&store).await, [fault], "after a start");
            store.append(vec![event(6)]).await.unwrap();
            assert_eq!(faults(&store).await, [fault], "what follows does not heal it");
        }
    }

    #[tokio::test]
    async fn a_lost_head_is_made_from_the_records() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        store.append((0..5).map(event).collect()).await.unwrap();
        store.purge_events(trusted(2), SignedDuration::ZERO, 100).await.unwrap();
        let chain = store.chain().await.unwrap();
        tamper(&store, book::AUDIT_CHAIN.to_vec(), None).await;
        drop(store);
        assert_eq!(open(dir.path()).chain().await.unwrap(), chain);
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_is_never_purged() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        store.append((0..5).map(event).collect()).await.unwrap();
        tamper(&store, book::audit(3), Some(b"\x01{".to_vec())).await;
        assert_eq!(store.purge_events(trusted(9), SignedDuration::ZERO, 100).await.unwrap(), 2);
        assert_eq!(store.purge_events(trusted(9), SignedDuration::ZERO, 100).await.unwrap(), 0);
        assert_eq!(faults(&store).await, [AuditFault::Missing { from: 3, to: 3 }]);
    }
}
