//! Rotation of the key ring: what older keys wrapped is wrapped again by the current one, until the
//! older keys are needed no more.
//!
//! A message that is on its way in may have been wrapped by a ring that is no longer in force. It holds
//! that ring until it is in the store; only what is found after the last holder has gone counts.

use super::{Vault, VaultError};
use crate::{
    seal::{KeyId, KeyRing, Prelude, Purpose, WrappedKey},
    store::{Account, AccountChange, Filter, Locator, MessageRow, NoteKind, StoreError},
};
use arc_swap::ArcSwap;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::futures::Notified;

/// Messages, or accounts, in one question to the store.
const BATCH: usize = 200;
/// Bodies whose keys are wrapped at the same time: a store that writes in groups does so for all.
const AT_ONCE: usize = 32;
/// The note that says how far it went.
const NOTE: &str = "rewrap";

/// The ring in force, and how far a rotation is.
#[derive(Debug)]
pub(super) struct Keys {
    ring: ArcSwap<KeyRing>,
    /// Rings that were in force, as long as anything holds them.
    before: Mutex<Vec<Weak<KeyRing>>>,
    /// Held while the ring is changed.
    changing: Mutex<()>,
    counts: Mutex<Counts>,
    changed: tokio::sync::Notify,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    rewrapped: u64,
    remaining: u64,
    unreadable: u64,
}

/// The keys of the ring, and how far a rotation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyProgress {
    /// Number of the key that wraps what is new.
    pub current: KeyId,
    /// Numbers of all keys, in order. More than one: a rotation is under way.
    pub keys: Vec<KeyId>,
    /// Messages and accounts whose key was wrapped again, in this rotation.
    pub rewrapped: u64,
    /// Messages still to be looked at.
    pub remaining: u64,
    /// Messages and accounts whose key does not open; they keep an older key in the ring.
    pub unreadable: u64,
}

/// How a round of wrapping again ended.
#[derive(Debug, PartialEq, Eq)]
pub enum KeyRound {
    /// The ring has one key: there is nothing to do.
    Idle,
    /// Another round is needed: something was still on its way.
    Again,
    /// So many keys do not open; the older ring keys stay.
    Unreadable(u64),
    /// Nothing in the store is wrapped by these keys any more, nor in what the disk keeps of its log.
    Done(Vec<KeyId>),
}

/// How far the first look at all messages went.
#[derive(Debug, Serialize, Deserialize)]
struct Place {
    /// The current key then.
    to: KeyId,
    after: Option<crate::mail::QueueId>,
    whole: bool,
    rewrapped: u64,
}

/// What one look at all found.
#[derive(Debug, Default)]
struct Found {
    rewrapped: u64,
    unreadable: u64,
}
impl Found {
    /// True if it counts as wrapped again.
    fn note(
        &mut self,
        whose: impl std::fmt::Display,
        done: Result<bool, VaultError>,
    ) -> Result<bool, VaultError> {
        match done {
            Ok(again) => {
                self.rewrapped += u64::from(again);
                Ok(again)
            }
            Err(
                error @ (VaultError::Seal(_)
                | VaultError::Ring(_)
                | VaultError::Store(StoreError::Corrupt(_))),
            ) => {
                tracing::error!(%whose, %error, "a key can't be wrapped again: the older ring keys stay");
                self.unreadable += 1;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl Keys {
    pub(super) fn new(ring: KeyRing) -> Self {
        let (before, changing, counts, changed) = Default::default();
        Self { ring: ArcSwap::from_pointee(ring), before, changing, counts, changed }
    }
    /// The ring in force. What is wrapped by it holds it until it is in the store.
    pub(super) fn ring(&self) -> Arc<KeyRing> {
        self.ring.load_full()
    }
    /// True while something holds a ring that is no longer in force.
    fn is_held(&self) -> bool {
        let mut before = lock(&self.before);
        before.retain(|ring| ring.strong_count() > 0);
        !before.is_empty()
    }
}
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vault {
    /// Puts another ring in force: what `change` makes of the present one, which it has kept durably.
    /// One change at a time.
    ///
    /// # Errors
    /// What `change` says; the ring stays as it was then.
    pub(crate) fn change_ring<E>(
        &self,
        change: impl FnOnce(&KeyRing) -> Result<KeyRing, E>,
    ) -> Result<(), E> {
        let changing = lock(&self.keys.changing);
        let old = self.keys.ring();
        let new = Arc::new(change(&old)?);
        // Before it is in force, so that it is not missed by whoever sees the new one.
        lock(&self.keys.before).push(Arc::downgrade(&old));
        self.keys.ring.store(new);
        drop(changing);
        self.keys.changed.notify_one();
        Ok(())
    }

    /// Ends when the ring has been changed since the last such wait, or is.
    pub fn ring_changed(&self) -> Notified<'_> {
        self.keys.changed.notified()
    }

    /// The keys, and how far a rotation is.
    pub fn key_progress(&self) -> KeyProgress {
        let (ring, counts) = (self.keys.ring(), *lock(&self.keys.counts));
        let (current, mut keys) = (ring.current(), ring.older());
        keys.push(current);
        let Counts { rewrapped, remaining, unreadable } = counts;
        KeyProgress { current, keys, rewrapped, remaining, unreadable }
    }

    /// Wraps again what older keys of the ring wrapped. The first look at all messages goes on where the
    /// last process left it; then all are looked at once more.
    ///
    /// # Errors
    /// [`VaultError::Store`] where the store can't take it now.
    pub async fn rewrap(&self) -> Result<KeyRound, VaultError> {
        let ring = self.keys.ring();
        let (old, current) = (ring.older(), ring.current());
        drop(ring);
        if old.is_empty() {
            return Ok(KeyRound::Idle);
        }
        let mut place = self.place(current).await?;
        if !place.whole {
            self.count(&place).await?;
            self.look(&old, &mut place, true).await?;
            self.look_at_accounts(&old).await?;
            place.whole = true;
            self.keep(&mut place).await?;
        }
        if self.keys.is_held() {
            return Ok(KeyRound::Again);
        }
        // What was on its way when its holder let go of the ring is in the store, and seen, after this.
        self.queue.checkpoint().await?;
        place.after = None;
        let mut found = self.look(&old, &mut place, false).await?;
        let accounts = self.look_at_accounts(&old).await?;
        found.rewrapped += accounts.rewrapped;
        found.unreadable += accounts.unreadable;
        // A message whose rows can't be read is in no list; its body needs its key all the same.
        found.unreadable += self.queue.totals().await?.unreadable;
        lock(&self.keys.counts).unreadable = found.unreadable;
        // What was read may have been memory: only now it is the disk.
        self.queue.checkpoint().await?;
        let Found { rewrapped, unreadable } = found;
        if (rewrapped, unreadable) == (0, 0) {
            self.notes.remove_note(NoteKind::Keys, NOTE).await?;
            return Ok(KeyRound::Done(old));
        }
        self.keep(&mut place).await?;
        Ok(if unreadable == 0 { KeyRound::Again } else { KeyRound::Unreadable(unreadable) })
    }

    /// Where an earlier process left it. A note that does not read is none.
    async fn place(&self, to: KeyId) -> Result<Place, VaultError> {
        let note = self.notes.note(NoteKind::Keys, NOTE).await?;
        let place = note.and_then(|note| serde_json::from_slice::<Place>(&note).ok());
        let begun = || Place { to, after: None, whole: false, rewrapped: 0 };
        let place = place.filter(|place| place.to == to).unwrap_or_else(begun);
        lock(&self.keys.counts).rewrapped = place.rewrapped;
        Ok(place)
    }

    async fn keep(&self, place: &mut Place) -> Result<(), VaultError> {
        place.rewrapped = lock(&self.keys.counts).rewrapped;
        let note = serde_json::to_vec(place)
            .map_err(|_| VaultError::Refused("a note can't be written as JSON"))?;
        Ok(self.notes.put_note(NoteKind::Keys, NOTE, note).await?)
    }

    /// Counts what is still to be looked at.
    async fn count(&self, place: &Place) -> Result<(), VaultError> {
        let (mut after, mut remaining) = (place.after, 0);
        loop {
            let rows = self.queue.list(&Filter::default(), after, BATCH).await?;
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.facts.id);
            remaining += rows.iter().filter(|(row, _)| row.body != Locator::Gone).count() as u64;
        }
        lock(&self.keys.counts).remaining = remaining;
        Ok(())
    }

    /// Looks at all messages from that place on, and keeps the place if asked to.
    async fn look(
        &self,
        old: &[KeyId],
        place: &mut Place,
        keep: bool,
    ) -> Result<Found, VaultError> {
        let mut all = Found::default();
        // A body that compaction moves meanwhile would take its old wrap along.
        let _turn = self.moving.lock().await;
        loop {
            let rows = self.queue.list(&Filter::default(), place.after, BATCH).await?;
            let Some((last, _)) = rows.last() else { return Ok(all) };
            let after = last.facts.id;
            let rows = rows.into_iter().map(|(row, _)| row);
            let bodies = rows.filter(|row| row.body != Locator::Gone);
            let done = stream::iter(bodies)
                .map(|row| async move { (row.facts.id, self.rewrap_body(&row, old).await) });
            let mut done = done.buffer_unordered(AT_ONCE);
            while let Some((id, done)) = done.next().await {
                let again = all.note(id, done)?;
                let mut counts = lock(&self.keys.counts);
                counts.rewrapped += u64::from(again);
                counts.remaining = counts.remaining.saturating_sub(1);
            }
            place.after = Some(after);
            if keep {
                self.keep(place).await?;
            }
        }
    }

    /// True if its key was wrapped by one of these, and is no more.
    async fn rewrap_body(&self, row: &MessageRow, old: &[KeyId]) -> Result<bool, VaultError> {
        let id = row.facts.id;
        match self.rewrap_live(row, old).await {
            // It may have been destroyed meanwhile.
            Err(error) => match self.queue.message(id).await? {
                Some((row, _)) if row.body != Locator::Gone => Err(error),
                Some(_) | None => Ok(false),
            },
            Ok(done) => Ok(done),
        }
    }

    async fn rewrap_live(&self, row: &MessageRow, old: &[KeyId]) -> Result<bool, VaultError> {
        let prelude = self.prelude(row.facts.id, &row.body, Prelude::MAX as u64).await?.0;
        if !prelude.wrapped().any(|wrapped| old.contains(&wrapped.key())) {
            return Ok(false);
        }
        let (slot, key) = wrapped_again(&self.keys.ring(), &prelude)?;
        Ok(self.bodies.rewrap(row.facts.id, &row.body, slot, &key).await?)
    }

    async fn look_at_accounts(&self, old: &[KeyId]) -> Result<Found, VaultError> {
        let (mut all, mut after) = (Found::default(), None);
        loop {
            let accounts = self.people.accounts(after.as_ref(), BATCH).await?;
            let Some(last) = accounts.last() else { return Ok(all) };
            after = Some(last.address.clone());
            for account in accounts {
                let address = account.address.clone();
                let again = all.note(&address, self.rewrap_seed(account, old).await)?;
                lock(&self.keys.counts).rewrapped += u64::from(again);
            }
        }
    }

    /// True if the seed of its second factor was wrapped by one of these keys. An account that is
    /// changed at the same time is left for the next round.
    async fn rewrap_seed(&self, account: Account, old: &[KeyId]) -> Result<bool, VaultError> {
        let mut new = account.clone();
        let Some(second) = new.second.as_mut().filter(|s| old.contains(&s.seed.key())) else {
            return Ok(false);
        };
        let (ring, owner) = (self.keys.ring(), account.generation);
        let owner = crate::mail::QueueId::from_bytes(owner);
        second.seed = ring.rewrap(&second.seed, Purpose::Seed, owner, rand::random())?;
        self.people.change_account(AccountChange::new(Some(account), new)).await?;
        Ok(true)
    }
}

/// The slot that is to hold the key alone, and the key wrapped by the current ring key. What a power cut
/// left half written in another slot is overwritten, and never the wrap that opens, unless there is no
/// other slot.
pub(super) fn wrapped_again(
    ring: &KeyRing,
    prelude: &Prelude,
) -> Result<(usize, WrappedKey), VaultError> {
    let mut source: Option<(usize, WrappedKey)> = None;
    let mut failed = VaultError::Gone;
    for (slot, wrapped) in prelude.slots.iter().enumerate() {
        let Some(wrapped) = wrapped else { continue };
        match ring.rewrap(wrapped, Purpose::Message, prelude.id, rand::random()) {
            Ok(_) if wrapped.key() == ring.current() => return Ok((slot, wrapped.clone())),
            Ok(again) => source = source.or(Some((slot, again))),
            Err(error) => failed = error.into(),
        }
    }
    let (from, again) = source.ok_or(failed)?;
    let others = || (0..prelude.slots.len()).filter(|slot| *slot != from);
    let empty = others().find(|slot| prelude.slots.get(*slot).is_some_and(Option::is_none));
    Ok((empty.or_else(|| others().next()).unwrap_or(from), again))
}
