//! Counts in memory, kept with every change and rebuilt at start: for `status`, and to know what
//! may be destroyed.

use crate::{
    mail::{GrantId, QueueId},
    store::{
        Grant, GrantKind, GrantState, Locator, MessageRow, RecipientRow, RecipientState, Totals,
    },
};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    ops::Bound,
};

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Messages whose body is still there.
    kept: HashMap<QueueId, Kept>,
    /// Those of them that have ended and have no live grant, with their body in a segment.
    doomed: BTreeSet<QueueId>,
    /// The same, with a file of their own.
    doomed_files: BTreeSet<QueueId>,
    /// Recipients waiting, by message; ids begin with their time, so the first is the oldest.
    waiting: BTreeMap<QueueId, u32>,
    /// Recipients held, by message.
    held: BTreeMap<QueueId, u32>,
    /// Live grants by the end of their time.
    expiry: BTreeSet<(Timestamp, GrantId)>,
    totals: Totals,
}
#[derive(Debug, Default, Clone, Copy)]
struct Kept {
    open: u32,
    grants: u32,
    bytes: u64,
    /// It has a file of its own.
    file: bool,
    /// Its row says that its last recipient has come to an end.
    done: bool,
    /// It has, or had, a grant.
    granted: bool,
    /// A grant of it can't be read: it may be live.
    doubtful: bool,
}

impl Tally {
    /// A message whose body is there.
    pub(super) fn keep(&mut self, row: &MessageRow) {
        let (bytes, file) = match row.body {
            Locator::Segment { length, .. } => (length, false),
            Locator::File { length } => (length, true),
            Locator::Memory => (0, false),
            Locator::Gone => return,
        };
        let (id, done) = (row.facts.id, row.done.is_some());
        self.kept.insert(id, Kept { bytes, file, done, ..Kept::default() });
        self.judge(id);
    }
    /// Its row says from now on that its last recipient has come to an end.
    pub(super) fn end(&mut self, id: QueueId) {
        if let Some(kept) = self.kept.get_mut(&id) {
            kept.done = true;
        }
        self.judge(id);
    }
    /// It has a grant that can't be read, which may be live.
    pub(super) fn doubt(&mut self, id: QueueId) {
        if let Some(kept) = self.kept.get_mut(&id) {
            kept.doubtful = true;
        }
        self.judge(id);
    }
    /// Its body is gone.
    pub(super) fn forget(&mut self, id: QueueId) {
        self.kept.remove(&id);
        self.judge(id);
    }
    fn judge(&mut self, id: QueueId) {
        let kept = self.kept.get(&id);
        let ended = |kept: &&Kept| kept.done && kept.open == 0 && kept.grants == 0;
        let doomed = kept.filter(ended).filter(|kept| !kept.doubtful);
        for (set, file) in [(&mut self.doomed, false), (&mut self.doomed_files, true)] {
            if doomed.is_some_and(|kept| kept.file == file) {
                set.insert(id);
            } else {
                set.remove(&id);
            }
        }
    }
    /// Counts a recipient in.
    pub(super) fn add(&mut self, id: QueueId, row: &RecipientRow) {
        if let Some(counter) = self.counter(row) {
            *counter += 1;
        }
        if let Some(of_message) = self.open_ones(row) {
            *of_message.entry(id).or_default() += 1;
        }
        if let Some(kept) = self.kept.get_mut(&id).filter(|_| row.state.is_open()) {
            kept.open += 1;
        }
        self.judge(id);
    }
    /// Counts a recipient out again, as it was when it was counted in.
    pub(super) fn remove(&mut self, id: QueueId, row: &RecipientRow) {
        if let Some(counter) = self.counter(row) {
            *counter = counter.saturating_sub(1);
        }
        if let Some(of_message) = self.open_ones(row)
            && let Entry::Occupied(mut count) = of_message.entry(id)
        {
            *count.get_mut() = count.get().saturating_sub(1);
            if *count.get() == 0 {
                count.remove();
            }
        }
        if let Some(kept) = self.kept.get_mut(&id).filter(|_| row.state.is_open()) {
            kept.open = kept.open.saturating_sub(1);
        }
        self.judge(id);
    }
    /// Where a recipient that has not come to an end is counted by its message.
    const fn open_ones(&mut self, row: &RecipientRow) -> Option<&mut BTreeMap<QueueId, u32>> {
        match row.state {
            RecipientState::Waiting { .. } => Some(&mut self.waiting),
            RecipientState::Held { .. } => Some(&mut self.held),
            RecipientState::Delivered { .. }
            | RecipientState::Granted { .. }
            | RecipientState::Bounced { .. }
            | RecipientState::Expired { .. }
            | RecipientState::Removed { .. } => None,
        }
    }
    const fn counter(&mut self, row: &RecipientRow) -> Option<&mut u64> {
        match row.state {
            RecipientState::Waiting { .. } if row.attempts == 0 => Some(&mut self.totals.active),
            RecipientState::Waiting { .. } => Some(&mut self.totals.deferred),
            RecipientState::Held { .. } => Some(&mut self.totals.held),
            RecipientState::Delivered { .. }
            | RecipientState::Granted { .. }
            | RecipientState::Bounced { .. }
            | RecipientState::Expired { .. }
            | RecipientState::Removed { .. } => None,
        }
    }
    /// Counts a grant in, if it is live. An author's own copy keeps the body, and waits for nobody.
    pub(super) fn grant(&mut self, grant: &Grant) {
        if let Some(kept) = self.kept.get_mut(&grant.message) {
            kept.granted = true;
        }
        if grant.state != GrantState::Live || !self.expiry.insert((grant.expires, grant.id)) {
            return;
        }
        if grant.kind == GrantKind::Received {
            self.totals.grants += 1;
        }
        if let Some(kept) = self.kept.get_mut(&grant.message) {
            kept.grants += 1;
            if kept.grants == 1 {
                self.totals.vault_messages += 1;
                self.totals.vault_bytes += kept.bytes;
            }
        }
        self.judge(grant.message);
    }
    /// Counts a grant out again, as it was when it was counted in.
    pub(super) fn ungrant(&mut self, grant: &Grant) {
        if !self.expiry.remove(&(grant.expires, grant.id)) {
            return;
        }
        if grant.kind == GrantKind::Received {
            self.totals.grants = self.totals.grants.saturating_sub(1);
        }
        if let Some(kept) = self.kept.get_mut(&grant.message) {
            kept.grants = kept.grants.saturating_sub(1);
            if kept.grants == 0 {
                self.totals.vault_messages = self.totals.vault_messages.saturating_sub(1);
                self.totals.vault_bytes = self.totals.vault_bytes.saturating_sub(kept.bytes);
            }
        }
        self.judge(grant.message);
    }
    /// At most `max` live grants whose time is over.
    pub(super) fn over(&self, now: Timestamp, max: usize) -> Vec<GrantId> {
        let over = self.expiry.iter().take_while(|(expires, _)| *expires <= now);
        over.map(|(_, id)| *id).take(max).collect()
    }
    /// At most `max` doomed messages with their body in a segment.
    pub(super) fn doomed(&self, max: usize) -> Vec<QueueId> {
        self.doomed.iter().copied().take(max).collect()
    }
    /// True if there is a doomed message with a file of its own.
    pub(super) fn has_doomed_files(&self) -> bool {
        !self.doomed_files.is_empty()
    }
    /// At most `max` doomed messages with a file of their own.
    pub(super) fn doomed_files(&self, max: usize) -> Vec<QueueId> {
        self.doomed_files.iter().copied().take(max).collect()
    }
    /// True if the message has, or had, a grant.
    pub(super) fn was_granted(&self, id: QueueId) -> bool {
        self.kept.get(&id).is_some_and(|kept| kept.granted)
    }
    /// Messages without an open recipient whose rows don't say that they have ended: rows are missing.
    pub(super) fn stranded(&self) -> impl Iterator<Item = QueueId> {
        let kept = self.kept.iter();
        kept.filter(|(_, kept)| kept.open == 0 && !kept.done).map(|(id, _)| *id)
    }
    /// Recipients of a message that have not come to an end.
    pub(super) fn open(&self, id: QueueId) -> usize {
        self.kept.get(&id).map_or(0, |kept| kept.open as usize)
    }
    /// True if the message is doomed and its file is to be deleted.
    pub(super) fn is_doomed_file(&self, id: QueueId) -> bool {
        self.doomed_files.contains(&id)
    }
    /// At most `max` messages after that one with a recipient that has not come to an end, in order.
    pub(super) fn open_after(&self, after: Option<QueueId>, max: usize) -> Vec<QueueId> {
        let from = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let first = |map: &BTreeMap<QueueId, u32>| {
            map.range(from).map(|(id, _)| *id).take(max).collect::<BTreeSet<_>>()
        };
        let mut open = first(&self.waiting);
        open.append(&mut first(&self.held));
        open.into_iter().take(max).collect()
    }
    /// The oldest message with a recipient waiting.
    pub(super) fn oldest(&self) -> Option<QueueId> {
        self.waiting.first_key_value().map(|(id, _)| *id)
    }
    /// The counts, but for [`Totals::oldest`], which needs its row.
    pub(super) fn totals(&self) -> Totals {
        self.totals.clone()
    }
}
