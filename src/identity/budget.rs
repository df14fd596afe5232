//! The budget of wrong codes of a mailbox, which holds for days and over restarts.
//!
//! A code has eight digits. Ten wrong ones are free, then two a day: 740 a year and mailbox, whoever
//! sends them and from wherever, which is a chance of 7.4 in a million a year. A mailbox whose budget
//! is spent is mailed a code of eighty bits with a link instead: nothing is to be guessed there, so
//! its owner always gets in.

use crate::store::{NoteKind, NoteStore, StoreError};
use jiff::{SignedDuration, Timestamp};
use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};
use tokio::sync::{Mutex, MutexGuard};

/// Wrong codes that are free at first.
pub(super) const FREE: i32 = 10;
/// One more after each of these.
pub(super) const EVERY: SignedDuration = SignedDuration::from_hours(12);
/// Mailboxes that are looked at one after the other share one of so many locks.
const SHARDS: usize = 64;
/// Rows looked at in one piece by a sweep.
const PAGE: usize = 500;

/// Budgets by mailbox: the theoretical arrival time of GCRA, kept as a note.
#[derive(Debug)]
pub(super) struct WrongCodes {
    notes: Arc<dyn NoteStore>,
    locks: Vec<Mutex<()>>,
    hasher: RandomState,
}

/// The budget of one mailbox, which nothing else charges meanwhile.
pub(super) struct Budget<'w> {
    notes: &'w dyn NoteStore,
    mailbox: String,
    /// The theoretical arrival time of the next wrong code.
    at: Option<Timestamp>,
    _turn: MutexGuard<'w, ()>,
}

impl WrongCodes {
    pub(super) fn new(notes: Arc<dyn NoteStore>) -> Self {
        let locks = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Self { notes, locks, hasher: RandomState::new() }
    }
    /// The budget of a mailbox (in lower case).
    pub(super) async fn of(&self, mailbox: &str) -> Result<Budget<'_>, StoreError> {
        let shard = usize::try_from(self.hasher.hash_one(mailbox)).unwrap_or_default() % SHARDS;
        let lock = self.locks.get(shard).ok_or(StoreError::NotFound)?;
        let _turn = lock.lock().await;
        let at = self.read(mailbox).await?;
        Ok(Budget { notes: &*self.notes, mailbox: mailbox.to_owned(), at, _turn })
    }
    /// True if wrong codes of this mailbox are not free any more.
    pub(super) async fn spent(&self, mailbox: &str, now: Timestamp) -> Result<bool, StoreError> {
        Ok(spent(self.read(mailbox).await?, now))
    }
    async fn read(&self, mailbox: &str) -> Result<Option<Timestamp>, StoreError> {
        let note = self.notes.note(NoteKind::WrongCodes, mailbox).await?;
        Ok(note.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok()))
    }
    /// Forgets budgets that are whole again.
    pub(super) async fn sweep(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut after: Option<String> = None;
        loop {
            let page = self.notes.notes(NoteKind::WrongCodes, after.as_deref(), PAGE).await?;
            for (mailbox, _) in &page {
                let budget = self.of(mailbox).await?;
                if budget.at.is_none_or(|at| at <= now) {
                    self.notes.remove_note(NoteKind::WrongCodes, mailbox).await?;
                }
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => after = Some(last.clone()),
                Some(_) | None => return Ok(()),
            }
        }
    }
}

impl Budget<'_> {
    /// True if a short code is not looked at any more.
    pub(super) fn spent(&self, now: Timestamp) -> bool {
        spent(self.at, now)
    }
    /// Charges a wrong code. A budget that is spent gets no worse: its end would move away for years.
    pub(super) async fn charge(self, now: Timestamp) -> Result<(), StoreError> {
        if self.spent(now) {
            return Ok(());
        }
        let from = self.at.unwrap_or(now).max(now);
        let at = from.checked_add(EVERY).unwrap_or(Timestamp::MAX);
        let note = at.to_string().into_bytes();
        self.notes.put_note(NoteKind::WrongCodes, &self.mailbox, note).await
    }
}

/// GCRA: a wrong code is free as long as its arrival time lies no further ahead than the burst.
fn spent(at: Option<Timestamp>, now: Timestamp) -> bool {
    let burst = EVERY.checked_mul(FREE - 1).unwrap_or(EVERY);
    at.is_some_and(|at| at.duration_since(now) > burst)
}
