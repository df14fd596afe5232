//! Reads beside the committer's thread.
//!
//! A [`Snapshot`] is sled with two tables of newer rows over it: the memtable, which the committer
//! writes, and the immutable one, which the flusher carries into sled. Each row of a table bears the
//! sequence number of its group. The committer publishes a snapshot when a group is on the disk and
//! before its answers go out, so that readers see all that was answered and nothing that was not.

use super::{
    book::{self, Changes, Key, Pair},
    files,
    space::Watch,
};
use crate::store::StoreError;
use arc_swap::ArcSwapOption;
use serde::de::DeserializeOwned;
use std::{
    collections::BTreeMap,
    ops::{Bound, Range},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};
use tokio::sync::Semaphore;

/// Reads at a time. Each holds a thread for as long as sled reads from the disk.
const READS: usize = 16;

/// A value, or none where the row was removed.
type Value = Option<Vec<u8>>;
/// The values of a row with the sequence numbers of their groups, oldest first.
type Versions = Vec<(u64, Value)>;
type Table = BTreeMap<Key, Versions>;

/// Rows of the log that sled does not have yet. What is overwritten stays for snapshots from before; a
/// table is as large as the log segment that it repeats, and goes with it.
#[derive(Debug, Default)]
pub(super) struct Memtable(RwLock<Table>);

impl Memtable {
    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn insert(&self, rows: Changes, sequence: u64) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in rows.into_rows() {
            let versions = table.entry(key).or_default();
            match versions.last_mut() {
                Some((last, old)) if *last == sequence => *old = value,
                Some(_) | None => versions.push((sequence, value)),
            }
        }
    }
    /// What the table says of a row at that sequence number; `None`: nothing.
    fn get(&self, key: &[u8], sequence: u64) -> Option<Value> {
        visible(self.table().get(key)?, sequence).cloned()
    }
    fn has(&self, key: &[u8], sequence: u64) -> bool {
        self.table().get(key).is_some_and(|versions| visible(versions, sequence).is_some())
    }
    /// The first (or last) `max` rows of a range that are there, and not among the hidden.
    fn page(
        &self,
        range: &Range<Key>,
        backwards: bool,
        (max, sequence): (usize, u64),
        hidden: impl Fn(&[u8]) -> bool,
    ) -> Vec<Pair> {
        let table = self.table();
        let bounds = (Bound::Included(&range.start), Bound::Excluded(&range.end));
        let rows = table.range::<Key, _>(bounds).filter_map(|(key, versions)| {
            let value = visible(versions, sequence)?.as_ref()?;
            (!hidden(key)).then(|| (key.clone(), value.clone()))
        });
        if backwards { rows.rev().take(max).collect() } else { rows.take(max).collect() }
    }
    /// Calls `row` with each row as it was last.
    pub(super) fn each<E>(
        &self,
        mut row: impl FnMut(&[u8], Option<&[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (key, versions) in &*self.table() {
            if let Some((_, value)) = versions.last() {
                row(key, value.as_deref())?;
            }
        }
        Ok(())
    }
    /// Bytes of keys and values as they were last.
    pub(super) fn bytes(&self) -> u64 {
        let last = |versions: &Versions| {
            versions.last().and_then(|(_, value)| value.as_ref()).map_or(0, Vec::len)
        };
        self.table().iter().map(|(key, versions)| (key.len() + last(versions)) as u64).sum()
    }
}
fn visible(versions: &Versions, sequence: u64) -> Option<&Value> {
    versions.iter().rev().find(|(group, _)| *group <= sequence).map(|(_, value)| value)
}

/// The rows as they were at a sequence number.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    db: ::sled::Db,
    memtable: Arc<Memtable>,
    /// On its way into sled.
    immutable: Arc<Memtable>,
    sequence: u64,
}
impl Snapshot {
    fn laid_over(&self, key: &[u8]) -> Option<Value> {
        let newer = self.memtable.get(key, self.sequence);
        newer.or_else(|| self.immutable.get(key, self.sequence))
    }
    fn is_laid_over(&self, key: &[u8]) -> bool {
        self.memtable.has(key, self.sequence) || self.immutable.has(key, self.sequence)
    }
    pub(super) fn raw(&self, key: &[u8]) -> Result<Value, StoreError> {
        if let Some(value) = self.laid_over(key) {
            return Ok(value);
        }
        let value = self.db.get(key).map_err(|e| book::failed(&e))?;
        Ok(value.map(|v| v.to_vec()))
    }
    pub(super) fn has(&self, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.raw(key)?.is_some())
    }
    pub(super) fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.raw(key)?.map(|value| book::decode(&value)).transpose()
    }
    /// The first `max` pairs of a range; its last ones, last first, if `backwards`.
    pub(super) fn page(
        &self,
        range: Range<Key>,
        backwards: bool,
        max: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        if range.start >= range.end {
            return Ok(Vec::new());
        }
        let mut pairs = Vec::new();
        let mut rows = self.db.range(range.clone());
        while pairs.len() < max {
            let Some(row) = (if backwards { rows.next_back() } else { rows.next() }) else { break };
            let (key, value) = row.map_err(|e| book::failed(&e))?;
            if !self.is_laid_over(&key) {
                pairs.push((key.to_vec(), value.to_vec()));
            }
        }
        let (newer, bound) = (&self.memtable, (max, self.sequence));
        pairs.extend(newer.page(&range, backwards, bound, |_| false));
        let hidden = |key: &[u8]| newer.has(key, self.sequence);
        pairs.extend(self.immutable.page(&range, backwards, bound, hidden));
        pairs.sort();
        if backwards {
            pairs.reverse();
        }
        pairs.truncate(max);
        Ok(pairs)
    }
    /// All rows under a prefix, of which there are few.
    pub(super) fn rows<T: DeserializeOwned>(&self, prefix: Key) -> Result<Vec<T>, StoreError> {
        let pairs = self.page(book::under(prefix), false, usize::MAX)?;
        pairs.iter().map(|(_, value)| book::decode(value)).collect()
    }
}

/// The committer's own end: the rows with those of the group that it gathers.
#[derive(Debug)]
pub(super) struct Latest {
    rows: Snapshot,
    /// The last group that is on the disk.
    committed: u64,
    published: Arc<Published>,
}
impl Latest {
    pub(super) fn new(db: ::sled::Db) -> Self {
        let (memtable, immutable, published) = Default::default();
        let rows = Snapshot { db, memtable, immutable, sequence: 1 };
        let latest = Self { rows, committed: 0, published };
        latest.publish();
        latest
    }
    pub(super) const fn rows(&self) -> &Snapshot {
        &self.rows
    }
    pub(super) const fn db(&self) -> &::sled::Db {
        &self.rows.db
    }
    pub(super) fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published)
    }
    pub(super) fn insert(&self, rows: Changes) {
        self.rows.memtable.insert(rows, self.rows.sequence);
    }
    pub(super) fn memtable(&self) -> &Memtable {
        &self.rows.memtable
    }
    /// The running group is on the disk: readers see it from now on.
    pub(super) fn commit(&mut self) {
        self.committed = self.rows.sequence;
        self.rows.sequence = self.rows.sequence.saturating_add(1);
        self.publish();
    }
    /// Begins a new memtable. The old one may go to the flusher once all of it is committed, and not
    /// before: what is in sled is seen by all.
    pub(super) fn rotate(&mut self) -> Arc<Memtable> {
        self.rows.immutable = std::mem::take(&mut self.rows.memtable);
        Arc::clone(&self.rows.immutable)
    }
    /// The immutable table is in sled.
    pub(super) fn flushed(&mut self) {
        self.rows.immutable = Arc::default();
        self.publish();
    }
    fn publish(&self) {
        let snapshot = Snapshot { sequence: self.committed, ..self.rows.clone() };
        self.published.snapshot.store(Some(Arc::new(snapshot)));
    }
}

/// What readers see.
#[derive(Debug, Default)]
pub(super) struct Published {
    /// `None`: the store has been closed.
    snapshot: ArcSwapOption<Snapshot>,
    /// Held by each read from before it takes the snapshot.
    reading: RwLock<()>,
}
impl Published {
    /// Waits until no snapshot is read that was published before the one of now. The flusher calls it
    /// before it writes to sled: an older snapshot would see what sled gets.
    pub(super) fn wait_for_readers(&self) {
        drop(self.reading.write());
    }
    /// Lets readers end, and no other begin.
    pub(super) fn close(&self) {
        self.snapshot.store(None);
        self.wait_for_readers();
    }
    fn read<T>(&self, work: impl FnOnce(&Snapshot) -> T) -> Option<T> {
        let _reading = self.reading.read();
        let snapshot = self.snapshot.load_full()?;
        Some(work(&snapshot))
    }
}

/// The callers' end: reads by snapshot, on threads that may wait for the disk.
#[derive(Debug)]
pub(super) struct Readers {
    published: Arc<Published>,
    permits: Arc<Semaphore>,
    watch: Arc<Watch>,
}
impl Readers {
    pub(super) fn new(published: Arc<Published>, watch: Arc<Watch>) -> Self {
        Self { published, permits: Arc::new(Semaphore::new(READS)), watch }
    }
    /// Runs `work` on the rows as the last group left them.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Snapshot) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let (published, watch) = (Arc::clone(&self.published), Arc::clone(&self.watch));
        files::off(move || {
            let _permit = permit;
            if let Some(broken) = watch.broken() {
                return Err(broken);
            }
            // sled panics on damage that it finds late.
            match catch_unwind(AssertUnwindSafe(|| published.read(work))) {
                Ok(Some(answer)) => answer,
                Ok(None) => Err(StoreError::Fatal("the store has been closed".to_owned())),
                Err(_) => {
                    let why = "the book panicked; it may be damaged";
                    watch.break_down(why);
                    Err(StoreError::Fatal(why.to_owned()))
                }
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Options, SledStore, book::Book};
    use super::*;
    use crate::store::{NoteKind, NoteStore, StoreError};
    use std::sync::mpsc;

    fn book() -> Book {
        Book::new(::sled::Config::new().temporary(true).open().unwrap())
    }
    fn put(book: &mut Book, key: &str, value: &str) {
        let mut changes = Changes::default();
        changes.put_raw(key.into(), value.into()).unwrap();
        book.take(changes);
    }
    /// All rows, by their listing and one by one.
    fn rows(snapshot: &Snapshot) -> Vec<String> {
        let pairs = snapshot.page(book::under(b"x".to_vec()), false, 9).unwrap();
        for (key, value) in &pairs {
            assert_eq!(snapshot.raw(key).unwrap().as_ref(), Some(value));
        }
        let values = pairs.into_iter().map(|(_, value)| String::from_utf8(value).unwrap());
        values.collect()
    }

    #[test]
    fn readers_see_a_group_once_it_is_committed_and_not_before() {
        let mut book = book();
        let published = book.published();
        let seen = || published.read(rows).unwrap();
        put(&mut book, "x1", "one");
        assert_eq!(rows(&book), ["one"], "the committer sees what it gathers");
        assert!(seen().is_empty());
        book.commit();
        assert_eq!(seen(), ["one"]);
        put(&mut book, "x1", "other");
        put(&mut book, "x2", "two");
        let full = book.freeze();
        assert_eq!(seen(), ["one"], "the log segment had no room for the group");
        put(&mut book, "x3", "three");
        assert_eq!(seen(), ["one"]);
        book.commit();
        assert_eq!(seen(), ["other", "two", "three"]);
        book::carry(&book.db(), &full, Some(1)).unwrap();
        book.thaw();
        assert_eq!(seen(), ["other", "two", "three"]);
    }
    #[test]
    fn a_snapshot_stays_as_it_was() {
        let mut book = book();
        put(&mut book, "x1", "one");
        book.commit();
        let published = book.published();
        published.read(|snapshot| {
            put(&mut book, "x1", "other");
            put(&mut book, "x2", "two");
            book.commit();
            assert_eq!(rows(snapshot), ["one"]);
            book.freeze();
            put(&mut book, "x1", "third");
            book.commit();
            assert_eq!(rows(snapshot), ["one"]);
        });
        assert_eq!(published.read(rows).unwrap(), ["third", "two"]);
    }
    #[test]
    fn sled_gets_nothing_while_an_older_snapshot_is_read() {
        let mut book = book();
        put(&mut book, "x1", "one");
        book.commit();
        let (published, db) = (book.published(), book.db());
        let (begun, begins) = mpsc::channel();
        let flush = |frozen: Arc<Memtable>| {
            begun.send(()).unwrap();
            published.wait_for_readers();
            book::carry(&db, &frozen, Some(1)).unwrap();
        };
        std::thread::scope(|scope| {
            published.read(|snapshot| {
                put(&mut book, "x1", "other");
                let frozen = book.freeze();
                book.commit();
                scope.spawn(|| flush(frozen));
                begins.recv().unwrap();
                for _ in 0..1000 {
                    assert_eq!(rows(snapshot), ["one"]);
                }
                assert!(book.db().is_empty(), "the flush waits");
            });
        });
        assert_eq!(book.db().get("x1").unwrap().unwrap(), "other");
    }
    #[tokio::test]
    async fn reads_wait_for_no_write() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { reserve: 0, min_free: 0, ..Options::default() };
        let store = Arc::new(SledStore::open(dir.path(), options).unwrap());
        store.put_note(NoteKind::Watch, "a", b"written".to_vec()).await.unwrap();
        let (release, held) = mpsc::channel::<()>();
        let (began, begun) = tokio::sync::oneshot::channel();
        let writer = Arc::clone(&store);
        // It brings as many bytes as may wait, and holds the committer's thread.
        let weight = 64 << 20;
        let write = tokio::spawn(async move {
            let job = move |_: &mut super::super::State| {
                began.send(()).unwrap();
                held.recv().map_err(|e| StoreError::Fatal(e.to_string()))
            };
            writer.committer.run(weight, job).await
        });
        begun.await.unwrap();
        let note = store.note(NoteKind::Watch, "a").await.unwrap();
        assert_eq!(note.unwrap(), b"written");
        release.send(()).unwrap();
        write.await.unwrap().unwrap();
    }
    #[tokio::test]
    async fn a_closed_store_can_be_opened_again_though_a_read_was_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let options = || Options { reserve: 0, min_free: 0, ..Options::default() };
        for _ in 0..20 {
            let store = SledStore::open(dir.path(), options()).unwrap();
            let (began, begun) = tokio::sync::oneshot::channel();
            let read = store.readers.read(move |snapshot: &Snapshot| {
                began.send(()).unwrap();
                for _ in 0..1000 {
                    snapshot.raw(b"x")?;
                }
                Ok(())
            });
            tokio::select! {
                biased;
                _ = begun => {}
                _ = read => {}
            }
            drop(store);
        }
    }
}
