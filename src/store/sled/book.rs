//! The book: rows under ordered keys in one sled tree, so that one batch is one commit, whatever it
//! touches.
//!
//! | key | value |
//! |---|---|
//! | `h` | the head: that this is a book, and of which version |
//! | `m` message | [`MessageRow`](crate::store::MessageRow) |
//! | `r` message, index | [`RecipientRow`](crate::store::RecipientRow) |
//! | `a` message, index, number | [`Attempt`](crate::store::Attempt) |
//! | `e` time of its end, message | nothing: a message whose body is gone |
//! | `g` grant | [`Grant`](crate::store::Grant) |
//! | `t` token's hash | grant |
//! | `q` message, grant | nothing |
//! | `c` grant, grant | nothing: copies that come from a grant |
//! | `p` mailbox NUL time grant, `v` time grant | nothing: a recipient's grants, all grants |
//! | `o` mailbox NUL time grant | nothing: an author's own copies |
//! | `u` mailbox | [`Account`](crate::store::Account) |
//! | `k` identity | the mailbox of its account |
//! | `w` mailbox | when its last account was removed |
//! | `s` cookie's hash | [`Session`](crate::store::Session) |
//! | `i` mailbox NUL cookie's hash | nothing: an account's sessions |
//! | `n` kind, key, NUL, number | a piece of a note's value, as it is |
//! | `y` number | [`AuditRecord`](crate::store::AuditRecord) |
//! | `z` address without case, NUL, number | nothing: an account's audit records |
//! | `c` | [`AuditChain`](crate::store::AuditChain) |
//! | `j` | the last epoch of the journal that is in here whole |
//! | `l` | ids that the journal of this book may bear: one, but for a moment at a start |
//!
//! A mailbox is an address without the case of its letters ([`Address::mailbox`]).
//! Numbers and times are big-endian, ids begin with their time: a queue works at few leaves.

use super::{
    journal::{Entries, LogId},
    snapshot::{Latest, Memtable, Published, Snapshot},
};
use crate::{
    mail::{Address, GrantId, QueueId},
    seal::TokenHash,
    store::{NoteKind, StoreError},
};
use jiff::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    ops::{Deref, Range},
    sync::Arc,
};

/// Largest value. A leaf of sled's holds up to 17 of them and must stay below a quarter of its
/// segment (2 MiB), or it becomes a blob, which sled never syncs.
pub(super) const LARGEST: usize = 30_000;
/// What an entry of the journal takes besides key and value: a tag and two lengths.
const ENTRY: usize = 17;
/// First byte of a value that holds a row: its encoding.
const JSON: u8 = 1;

pub(super) type Key = Vec<u8>;
pub(super) type Pair = (Key, Vec<u8>);

/// Rows written to sled at once.
const BATCH: usize = 256;

/// The committer's rows: the latest snapshot, and what is on its way into the journal.
#[derive(Debug)]
pub(super) struct Book {
    latest: Latest,
    /// What the current group is about to write to the journal.
    pub(super) entries: Entries,
}
/// Rows to write or remove together. Nothing of it counts before [`Book::take`].
#[derive(Debug, Default)]
pub(super) struct Changes {
    rows: Vec<(Key, Option<Vec<u8>>)>,
}
impl Changes {
    /// A row.
    pub(super) fn put<T: Serialize>(&mut self, key: Key, row: &T) -> Result<(), StoreError> {
        let mut value = vec![JSON];
        serde_json::to_writer(&mut value, row)
            .map_err(|e| StoreError::Corrupt(format!("a row cannot be written: {e}")))?;
        self.put_raw(key, value)
    }
    /// The only place where a new value comes in: none may be so large that sled would make it a blob.
    pub(super) fn put_raw(&mut self, key: Key, value: Vec<u8>) -> Result<(), StoreError> {
        if key.len() + value.len() > LARGEST {
            let length = value.len();
            return Err(StoreError::Corrupt(format!("a row of {length} bytes; {LARGEST} at most")));
        }
        self.rows.push((key, Some(value)));
        Ok(())
    }
    pub(super) fn remove(&mut self, key: Key) {
        self.rows.push((key, None));
    }
    /// What they take in the journal, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let row = |(key, value): &(Key, Option<Vec<u8>>)| {
            ENTRY + key.len() + value.as_ref().map_or(0, Vec::len)
        };
        self.rows.iter().map(row).sum()
    }
    /// A row out of the journal: it has come in before.
    pub(super) fn again(&mut self, key: Key, value: Option<Vec<u8>>) {
        self.rows.push((key, value));
    }
    pub(super) fn into_rows(self) -> Vec<(Key, Option<Vec<u8>>)> {
        self.rows
    }
}

impl Deref for Book {
    type Target = Snapshot;
    fn deref(&self) -> &Snapshot {
        self.latest.rows()
    }
}
impl Book {
    pub(super) fn new(db: ::sled::Db) -> Self {
        Self { latest: Latest::new(db), entries: Entries::default() }
    }
    /// A handle for the flusher.
    pub(super) fn db(&self) -> ::sled::Db {
        self.latest.db().clone()
    }
    /// What readers beside the committer see.
    pub(super) fn published(&self) -> Arc<Published> {
        self.latest.published()
    }
    /// Lays changes over the rows, and readies them for the journal.
    pub(super) fn take(&mut self, changes: Changes) {
        for (key, value) in &changes.rows {
            self.entries.row(key, value.as_deref());
        }
        self.latest.insert(changes);
    }
    /// What was taken is on the disk: readers see it from now on.
    pub(super) fn commit(&mut self) {
        self.latest.commit();
    }
    /// The rows laid over since the last turn: who gets them carries them over, once all of them are
    /// committed. Until [`Book::thaw`] they are read from here.
    pub(super) fn freeze(&mut self) -> Arc<Memtable> {
        self.latest.rotate()
    }
    /// Bytes of rows that are in no sled yet.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.latest.memtable().bytes()
    }
    /// What was frozen is in sled.
    pub(super) fn thaw(&mut self) {
        self.latest.flushed();
    }
    /// Goes through all rows of a kind, once, at start. Gives the keys of those that can't be read; the
    /// log names them, and they stay as they are.
    pub(super) fn each<T: DeserializeOwned>(
        &self,
        kind: u8,
        mut visit: impl FnMut(&[u8], T),
    ) -> Result<Vec<Key>, StoreError> {
        let mut unread = Vec::new();
        for row in self.latest.db().scan_prefix([kind]) {
            let (key, value) = row.map_err(|e| failed(&e))?;
            match decode(&value) {
                Ok(row) => visit(&key, row),
                Err(error) => {
                    let row = name(&key);
                    tracing::error!(%row, %error, "a row can't be read; it is left as it is");
                    unread.push(key.to_vec());
                }
            }
        }
        Ok(unread)
    }
    /// Messages with one of these grants.
    pub(super) fn messages_of(&self, grants: &[GrantId]) -> Result<Vec<QueueId>, StoreError> {
        let mut found = Vec::new();
        for row in self.latest.db().scan_prefix(b"q") {
            let (key, _) = row.map_err(|e| failed(&e))?;
            if grant_at(&key).is_some_and(|grant| grants.contains(&grant)) {
                found.extend(message_of(&key));
            }
        }
        Ok(found)
    }
    /// Makes an empty store a book.
    pub(super) fn put_head(&mut self) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        changes.put(HEAD.to_vec(), &VERSION)?;
        self.take(changes);
        self.write_through()
    }
    /// The last epoch of the journal that is in the book whole.
    pub(super) fn epoch(&self) -> Result<u64, StoreError> {
        let value = self.raw(EPOCH)?;
        Ok(value.and_then(|v| v.try_into().ok()).map_or(0, u64::from_be_bytes))
    }
    /// The journal that belongs to this book: while a start gives it a new id, each that it may bear.
    /// None before there is one.
    pub(super) fn logs(&self) -> Result<Vec<LogId>, StoreError> {
        let ids = self.raw(LOG)?.unwrap_or_default();
        Ok(ids.as_chunks().0.to_vec())
    }
    /// The journal that belongs to the book bears one of these from now on.
    pub(super) fn put_logs(&mut self, ids: &[LogId]) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        changes.put_raw(LOG.to_vec(), ids.concat())?;
        self.take(changes);
        self.write_through()
    }
    /// Writes everything pending past the journal, while there is none.
    pub(super) fn write_through(&mut self) -> Result<(), StoreError> {
        self.write_through_as(None)
    }
    /// The same; the journal is in the book whole then, up to that epoch.
    pub(super) fn write_through_as(&mut self, epoch: Option<u64>) -> Result<(), StoreError> {
        self.entries = Entries::default();
        let rows = self.latest.rotate();
        carry(self.latest.db(), &rows, epoch).map_err(|e| failed(&e))?;
        self.latest.flushed();
        Ok(())
    }
}

pub(super) fn failed(e: &::sled::Error) -> StoreError {
    StoreError::Fatal(format!("the book: {e}"))
}
/// Writes rows into sled and waits until they are on the disk; with them, that `epoch` is in here
/// whole.
pub(super) fn carry(db: &::sled::Db, rows: &Memtable, epoch: Option<u64>) -> ::sled::Result<()> {
    let (mut batch, mut length) = (::sled::Batch::default(), 0);
    rows.each(|key, value| {
        match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        }
        length += 1;
        if length % BATCH == 0 {
            db.apply_batch(std::mem::take(&mut batch))?;
        }
        Ok::<_, ::sled::Error>(())
    })?;
    if let Some(epoch) = epoch {
        batch.insert(EPOCH, epoch.to_be_bytes().as_slice());
    }
    db.apply_batch(batch)?;
    db.flush().map(drop)
}

/// What a key speaks of, for the log.
pub(super) fn name(key: &[u8]) -> String {
    match key.first() {
        Some(&MESSAGES) => message_of(key).map(|id| format!("message {id}")),
        Some(&RECIPIENTS) => message_of(key).map(|id| format!("a recipient of message {id}")),
        Some(&GRANTS) => grant_at(key).map(|id| format!("grant {id}")),
        Some(_) | None => None,
    }
    .unwrap_or_else(|| data_encoding::HEXLOWER.encode(key))
}
/// Reads a row.
pub(super) fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, StoreError> {
    match value.split_first() {
        Some((&JSON, json)) => serde_json::from_slice(json)
            .map_err(|e| StoreError::Corrupt(format!("a row of the book: {e}"))),
        Some(_) | None => Err(StoreError::Corrupt("a row of unknown encoding".to_owned())),
    }
}
/// Keys that begin with `prefix`, which ends in a byte below 255 somewhere (all kinds do).
pub(super) fn under(prefix: Key) -> Range<Key> {
    let mut end = prefix.clone();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            break;
        }
    }
    prefix..end
}
/// The least key after `key`.
pub(super) fn after(mut key: Key) -> Key {
    key.push(0);
    key
}
/// Sorts as the times do.
fn time(at: Timestamp) -> [u8; 16] {
    (at.as_nanosecond() ^ i128::MIN).to_be_bytes()
}
fn key(kind: u8, parts: &[&[u8]]) -> Key {
    let mut key = vec![kind];
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// Key of the head. sled takes a file in which it recognises nothing for an empty one; a book
/// without a head is none.
pub(super) const HEAD: &[u8] = b"h";
const EPOCH: &[u8] = b"j";
const LOG: &[u8] = b"l";
/// What the head says: the version of the rows.
pub(super) const VERSION: u32 = 2;
pub(super) const MESSAGES: u8 = b'm';
pub(super) const RECIPIENTS: u8 = b'r';
pub(super) const ENDED: u8 = b'e';
pub(super) const GRANTS: u8 = b'g';
pub(super) const BY_TIME: u8 = b'v';
pub(super) const ACCOUNTS: u8 = b'u';
pub(super) const SESSIONS: u8 = b's';
pub(super) const NOTES: u8 = b'n';
pub(super) const AUDIT: u8 = b'y';
pub(super) const AUDIT_CHAIN: &[u8] = b"c";

pub(super) fn message(id: QueueId) -> Key {
    key(MESSAGES, &[id.as_bytes()])
}
pub(super) fn recipients(id: QueueId) -> Key {
    key(RECIPIENTS, &[id.as_bytes()])
}
pub(super) fn recipient(id: QueueId, index: u16) -> Key {
    key(RECIPIENTS, &[id.as_bytes(), &index.to_be_bytes()])
}
/// The message that a key of kind `m`, `r`, `e` or `q` speaks of.
pub(super) fn message_of(key: &[u8]) -> Option<QueueId> {
    let id = match key.first()? {
        &ENDED => key.get(17..33)?,
        _ => key.get(1..17)?,
    };
    Some(QueueId::from_bytes(id.try_into().ok()?))
}
pub(super) fn all_attempts(id: QueueId) -> Key {
    key(b'a', &[id.as_bytes()])
}
pub(super) fn attempts(id: QueueId, index: u16) -> Key {
    key(b'a', &[id.as_bytes(), &index.to_be_bytes()])
}
pub(super) fn attempt(id: QueueId, index: u16, number: u32) -> Key {
    key(b'a', &[id.as_bytes(), &index.to_be_bytes(), &number.to_be_bytes()])
}
/// The number at the end of an attempt's key.
pub(super) fn number_of(key: &[u8]) -> u32 {
    key.last_chunk().map_or(0, |b| u32::from_be_bytes(*b))
}
pub(super) fn ended(at: Timestamp, id: QueueId) -> Key {
    key(ENDED, &[&time(at), id.as_bytes()])
}
/// Keys of messages that ended before that time.
pub(super) fn ended_before(at: Timestamp) -> Range<Key> {
    vec![ENDED]..key(ENDED, &[&time(at)])
}
pub(super) fn grant(id: GrantId) -> Key {
    key(GRANTS, &[id.as_bytes()])
}
pub(super) fn token(token: &TokenHash) -> Key {
    key(b't', &[token.as_bytes()])
}
/// Keys of tokens whose hash begins so.
pub(super) fn tokens(start: [u8; 6]) -> Key {
    key(b't', &[&start])
}
pub(super) fn grants_of(id: QueueId) -> Key {
    key(b'q', &[id.as_bytes()])
}
pub(super) fn grant_of(id: QueueId, grant: GrantId) -> Key {
    key(b'q', &[id.as_bytes(), grant.as_bytes()])
}
pub(super) fn copies_of(origin: GrantId) -> Key {
    key(b'c', &[origin.as_bytes()])
}
pub(super) fn copy_of(origin: GrantId, copy: GrantId) -> Key {
    key(b'c', &[origin.as_bytes(), copy.as_bytes()])
}
/// The grant whose id ends a key.
pub(super) fn grant_at(key: &[u8]) -> Option<GrantId> {
    key.last_chunk().map(|id| GrantId::from_bytes(*id))
}
pub(super) fn grants_for(recipient: &Address) -> Key {
    key(b'p', &[recipient.mailbox().as_bytes(), &[0]])
}
pub(super) fn grant_for(recipient: &Address, at: Timestamp, id: GrantId) -> Key {
    let mut key = grants_for(recipient);
    key.extend_from_slice(&time(at));
    key.extend_from_slice(id.as_bytes());
    key
}
pub(super) fn sent_by(author: &Address) -> Key {
    key(b'o', &[author.mailbox().as_bytes(), &[0]])
}
pub(super) fn sent_at(author: &Address, at: Timestamp, id: GrantId) -> Key {
    let mut key = sent_by(author);
    key.extend_from_slice(&time(at));
    key.extend_from_slice(id.as_bytes());
    key
}
pub(super) fn grant_by_time(at: Timestamp, id: GrantId) -> Key {
    key(BY_TIME, &[&time(at), id.as_bytes()])
}
pub(super) fn account(address: &Address) -> Key {
    account_named(address.mailbox().as_bytes())
}
pub(super) fn account_named(mailbox: &[u8]) -> Key {
    key(ACCOUNTS, &[mailbox])
}
pub(super) fn identity(generation: [u8; 16]) -> Key {
    key(b'k', &[&generation])
}
pub(super) fn vacated(address: &Address) -> Key {
    key(b'w', &[address.mailbox().as_bytes()])
}
pub(super) fn session(id: &TokenHash) -> Key {
    key(SESSIONS, &[id.as_bytes()])
}
pub(super) fn sessions_of(account: &Address) -> Key {
    key(b'i', &[account.mailbox().as_bytes(), &[0]])
}
pub(super) fn session_of(account: &Address, id: &TokenHash) -> Key {
    let mut key = sessions_of(account);
    key.extend_from_slice(id.as_bytes());
    key
}
/// The session that ends a key of kind `i`.
pub(super) fn session_at(key: &[u8]) -> Option<TokenHash> {
    key.last_chunk().map(|id| TokenHash::from_bytes(*id))
}
pub(super) fn audit(seq: u64) -> Key {
    key(AUDIT, &[&seq.to_be_bytes()])
}
/// Keys of an account's audit records.
pub(super) fn audit_of(account: &Address) -> Key {
    key(b'z', &[account.mailbox().as_bytes(), &[0]])
}
pub(super) fn audit_at(account: &Address, seq: u64) -> Key {
    let mut key = audit_of(account);
    key.extend_from_slice(&seq.to_be_bytes());
    key
}
/// The number that ends a key of kind `y` or `z`.
pub(super) fn audit_seq(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|seq| u64::from_be_bytes(*seq))
}
/// Keys of a kind of notes.
pub(super) fn notes(kind: NoteKind) -> Key {
    let kind = match kind {
        NoteKind::Sts => b's',
        NoteKind::TlsReport => b't',
        NoteKind::Watch => b'w',
        NoteKind::WrongCodes => b'c',
        NoteKind::Doubt => b'd',
        NoteKind::Clock => b'k',
        NoteKind::Keys => b'r',
    };
    vec![NOTES, kind]
}
/// Keys of a note's pieces. The NUL sorts a key before those that it begins.
pub(super) fn note(kind: NoteKind, name: &str) -> Key {
    let mut key = notes(kind);
    key.extend_from_slice(name.as_bytes());
    key.push(0);
    key
}
pub(super) fn note_piece(kind: NoteKind, name: &str, number: u8) -> Key {
    let mut key = note(kind, name);
    key.push(number);
    key
}
/// The note that a piece is of.
pub(super) fn note_at(piece: &[u8]) -> String {
    let name = piece.get(2..piece.len().saturating_sub(2)).unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book() -> Book {
        Book::new(::sled::Config::new().temporary(true).open().unwrap())
    }
    fn raw(book: &mut Book, key: &[u8], value: Option<&[u8]>) {
        let mut changes = Changes::default();
        match value {
            Some(value) => changes.put_raw(key.to_vec(), value.to_vec()).unwrap(),
            None => changes.remove(key.to_vec()),
        }
        book.take(changes);
    }
    #[test]
    fn what_is_laid_over_is_read_before_it_is_written() {
        let mut book = book();
        for k in [b"x1", b"x2", b"x4", b"x5"] {
            raw(&mut book, k, Some(b"old"));
        }
        book.write_through().unwrap();
        raw(&mut book, b"x2", Some(b"never seen"));
        raw(&mut book, b"x4", Some(b"new"));
        raw(&mut book, b"x5", None);
        let frozen = book.freeze();
        raw(&mut book, b"x2", None);
        raw(&mut book, b"x3", Some(b"new"));
        let read = |book: &Book, backwards, max| {
            let pairs = book.page(under(b"x".to_vec()), backwards, max).unwrap();
            pairs
                .into_iter()
                .map(|(k, v)| format!("{}{}", k[1] as char, v[0] as char))
                .collect::<Vec<_>>()
        };
        for step in ["frozen", "carried", "thawed", "written"] {
            match step {
                "carried" => carry(&book.db(), &frozen, Some(7)).unwrap(),
                "thawed" => book.thaw(),
                "written" => book.write_through().unwrap(),
                _ => {}
            }
            assert_eq!(read(&book, false, 9), ["1o", "3n", "4n"], "{step}");
            assert_eq!(read(&book, false, 2), ["1o", "3n"], "{step}");
            assert_eq!(read(&book, true, 2), ["4n", "3n"], "{step}");
            assert!(!book.has(b"x2").unwrap(), "{step}");
            assert!(!book.has(b"x5").unwrap(), "{step}");
        }
        assert_eq!(book.epoch().unwrap(), 7);
    }
    #[test]
    fn no_value_can_become_a_blob() {
        const { assert!(LARGEST * 17 < super::super::layout::BOOK_SEGMENT / 4) };
        let mut changes = Changes::default();
        assert!(changes.put_raw(vec![1], vec![0; LARGEST - 1]).is_ok());
        assert!(matches!(changes.put_raw(vec![1], vec![0; LARGEST]), Err(StoreError::Corrupt(_))));
        assert!(changes.put(vec![1], &"x".repeat(LARGEST)).is_err());
    }
    #[test]
    fn keys_sort_as_what_they_name() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let id = GrantId::from_bytes([9; 16]);
        assert!(grant_by_time(at(-1), id) < grant_by_time(at(0), id), "before 1970");
        assert!(grant_by_time(at(1), id) < grant_by_time(at(256), id));
        let end = under(vec![b'q', 0xff, 0xff]).end;
        assert_eq!(end, [b'r'], "a prefix that ends in 255");
    }
}
