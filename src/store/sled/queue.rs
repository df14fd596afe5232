//! The queue's intents as changes to book, agenda and tally. Each first gathers everything that
//! could fail, and only then takes effect. Changes run on the committer's thread.

use super::{
    book::{self, Changes, LARGEST},
    committer::State,
    snapshot::Snapshot,
    space::Room,
    weight,
};
use crate::{
    clock::TrustedTime,
    mail::{GrantId, QueueId},
    policy::DaneVerdict,
    store::{
        Ask, Attempt, Claim, Claimed, Doomed, Filter, Grant, GrantKind, GrantState, Locator,
        MessageRow, NewBody, NewMessage, Outcome, RecipientRow, RecipientState, Settle, StoreError,
        Totals,
        queue::{ATTEMPTS_KEPT, SMALL},
    },
};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeSet, HashSet};

/// Messages looked at by one request of a listing, so that a long one does not hold up commits.
const SLICE: usize = 256;
/// Recipients after which a slice ends early.
const SLICE_ROWS: usize = 2000;
/// Grants ended by one round.
const ENDED_AT_ONCE: usize = 1000;
/// What the end of a grant or a message takes in the log, about.
const ENDED: usize = 4 * 1024;
/// Messages destroyed with one group of requests.
const DESTROYED_AT_ONCE: usize = 1000;
/// A message that can't be read is tried again after that.
const UNREAD_PAUSE: SignedDuration = SignedDuration::from_mins(15);
/// Longest text kept of a peer's words.
const TEXT: usize = 512;
/// Certificate names kept of an attempt.
const NAMES: usize = 16;
/// Largest attempt as JSON; the rest of the row is its key.
const ATTEMPT: usize = LARGEST - 100;

pub(super) type Listed = (MessageRow, Vec<RecipientRow>);
/// A message whose rows are ready to be taken.
pub(super) struct Ready {
    row: MessageRow,
    recipients: Vec<RecipientRow>,
    copy: Option<Grant>,
}

impl Snapshot {
    pub(super) fn message(&self, id: QueueId) -> Result<Option<Listed>, StoreError> {
        let Some(row) = self.get(&book::message(id))? else { return Ok(None) };
        Ok(Some((row, self.rows(book::recipients(id))?)))
    }
    pub(super) fn attempts(&self, id: QueueId, index: u16) -> Result<Vec<Attempt>, StoreError> {
        self.rows(book::attempts(id, index))
    }
    fn grants_of(&self, id: QueueId) -> Result<Vec<Grant>, StoreError> {
        let keys = self.page(book::under(book::grants_of(id)), false, usize::MAX)?;
        let ids: Vec<GrantId> = keys.iter().filter_map(|(key, _)| book::grant_at(key)).collect();
        let grants = ids.iter().filter_map(|id| self.get(&book::grant(*id)).transpose());
        grants.collect()
    }
    fn recipient(&self, id: QueueId, index: u16) -> Result<RecipientRow, StoreError> {
        self.get(&book::recipient(id, index))?.ok_or(StoreError::NotFound)
    }
    fn unit(&self, id: QueueId, indexes: &[u16]) -> Result<Listed, StoreError> {
        let message = self.get(&book::message(id))?.ok_or(StoreError::NotFound)?;
        let rows = indexes.iter().map(|index| self.recipient(id, *index));
        Ok((message, rows.collect::<Result<_, _>>()?))
    }
    /// One slice of a listing, of these messages or of all: what matched, and where to go on, if there
    /// is more.
    pub(super) fn list(
        &self,
        filter: &Filter,
        after: Option<QueueId>,
        max: usize,
        ids: Option<Vec<QueueId>>,
    ) -> Result<(Vec<Listed>, Option<QueueId>), StoreError> {
        let (mut found, mut rows) = (Vec::new(), 0);
        let ids = ids.map_or_else(|| self.slice(after), Ok)?;
        let whole = ids.len() < SLICE;
        let last = ids.last().copied();
        for id in ids {
            let (row, recipients) = match self.message(id) {
                // The log has named it.
                Ok(None) | Err(StoreError::Corrupt(_)) => continue,
                Ok(Some(found)) => found,
                Err(e) => return Err(e),
            };
            rows += recipients.len();
            if filter.matches(&row, &recipients) {
                found.push((row, recipients));
                if found.len() == max {
                    return Ok((found, None));
                }
            }
            if rows >= SLICE_ROWS {
                return Ok((found, Some(id)));
            }
        }
        Ok((found, last.filter(|_| !whole)))
    }
    /// The next messages that a listing of all looks at.
    fn slice(&self, after: Option<QueueId>) -> Result<Vec<QueueId>, StoreError> {
        let all = book::under(vec![book::MESSAGES]);
        let start = after.map_or(all.start, |id| book::after(book::message(id)));
        let pairs = self.page(start..all.end, false, SLICE)?;
        Ok(pairs.iter().filter_map(|(key, _)| book::message_of(key)).collect())
    }
}
impl State {
    /// The next messages of which some recipient is open, known without a look at the history.
    pub(super) fn open_after(&self, after: Option<QueueId>) -> Vec<QueueId> {
        self.tally.open_after(after, SLICE)
    }
    pub(super) fn accept(&mut self, message: NewMessage) -> Result<(), StoreError> {
        if self.book.has(&book::message(message.facts.id))? {
            return Ok(());
        }
        if self.room != Room::Enough {
            if let NewBody::At(at) = &message.body {
                self.discard(message.facts.id, at)?;
            }
            return Err(StoreError::Full);
        }
        let mut changes = Changes::default();
        let ready = self.ready(message, &mut changes)?;
        self.book.take(changes);
        self.enter(&ready);
        Ok(())
    }
    /// Lays down the body and gathers the rows of a new message.
    fn ready(
        &mut self,
        mut message: NewMessage,
        changes: &mut Changes,
    ) -> Result<Ready, StoreError> {
        let id = message.facts.id;
        if message.recipients.len() > usize::from(u16::MAX) {
            return Err(StoreError::Corrupt("too many recipients for one message".to_owned()));
        }
        let body = match &message.body {
            NewBody::Small(sealed) if sealed.len() > SMALL => {
                return Err(StoreError::Corrupt("a small body that is not small".to_owned()));
            }
            NewBody::Small(sealed) => self.segments.append(id, sealed)?,
            // It may have been set aside meanwhile.
            NewBody::At(Locator::File { .. }) if !self.segments.has_file(id) => {
                return Err(StoreError::NotFound);
            }
            NewBody::At(at) => at.clone(),
        };
        let row = MessageRow::accepted(&message, body);
        let mut copy = message.copy.take();
        if let Some(copy) = &mut copy
            && let Some(origin) = copy.origin
        {
            // It may have ended while the copy was written.
            copy.bound_by(self.book.grant(origin)?.as_ref());
        }
        let ready = Ready { recipients: waiting(message), row, copy };
        let mut put = || {
            changes.put(book::message(id), &ready.row)?;
            ready.copy.iter().try_for_each(|copy| put_grant(copy, changes))?;
            let mut rows = ready.recipients.iter();
            rows.try_for_each(|r| changes.put(book::recipient(id, r.index), r))
        };
        if let Err(e) = put() {
            self.discard(id, &ready.row.body)?;
            return Err(e);
        }
        Ok(ready)
    }
    /// Gives up the body of a message that will have no row: what was refused is not kept.
    pub(super) fn discard(&mut self, id: QueueId, body: &Locator) -> Result<(), StoreError> {
        self.destroyed = true;
        match body {
            Locator::Segment { segment, offset, length } => {
                self.segments.erase(*segment, *offset, *length)
            }
            Locator::File { .. } => {
                self.segments.discard_file(id);
                Ok(())
            }
            Locator::Memory | Locator::Gone => Ok(()),
        }
    }
    pub(super) fn enter(&mut self, ready: &Ready) {
        let id = ready.row.facts.id;
        self.tally.keep(&ready.row);
        for row in &ready.recipients {
            self.enter_recipient(id, row);
        }
        ready.copy.iter().for_each(|copy| self.tally.grant(copy));
        self.arrived = true;
    }
    /// Counts a recipient in and, if it waits, puts it on the agenda.
    pub(super) fn enter_recipient(&mut self, id: QueueId, row: &RecipientRow) {
        self.tally.add(id, row);
        if let Some(next) = row.state.due() {
            self.agenda.wait(id, row.address.domain(), row.index, next);
        }
    }

    /// Counts a recipient out as it was, and in as it is.
    pub(super) fn exchange(&mut self, id: QueueId, before: &RecipientRow, after: &RecipientRow) {
        self.agenda.leave(id, before.address.domain(), before.index);
        self.tally.remove(id, before);
        self.enter_recipient(id, after);
    }

    pub(super) fn claim(&mut self, ask: Ask) -> Result<Claimed, StoreError> {
        let mut claims = Vec::new();
        if self.room == Room::Gone {
            // What went out now could not be written down, and would go out again.
            return Ok(Claimed { claims: Vec::new(), next: Some(ask.now) });
        }
        let later = ask.now.checked_add(UNREAD_PAUSE).unwrap_or(Timestamp::MAX);
        let (leased, next) = self.agenda.claim(ask);
        for leased in leased {
            let id = leased.id;
            match self.book.unit(id, &leased.indexes) {
                Ok((message, recipients)) => {
                    self.unread.remove(&book::message(id));
                    let (token, domain) = (leased.token, leased.domain);
                    claims.push(Claim { token, message, domain, recipients });
                }
                Err(StoreError::Fatal(why)) => return Err(StoreError::Fatal(why)),
                Err(e) => {
                    // One bad row must not hold up all others.
                    if self.unread.insert(book::message(id)) {
                        tracing::error!(%id, error = %e, "a message can't be read; it is tried again");
                    }
                    for index in &leased.indexes {
                        self.agenda.wait(id, &leased.domain, *index, later);
                    }
                    self.agenda.release(leased.token);
                }
            }
        }
        Ok(Claimed { claims, next })
    }

    pub(super) fn settle(&mut self, settle: Settle) -> Result<(), StoreError> {
        let before = self.check(&settle)?;
        let Settle { token, id, outcomes, spawn, recall } = settle;
        let mut changes = Changes::default();
        let recalled = self.recall(recall, &mut changes)?;
        let mut after = Vec::new();
        let mut grants = Vec::new();
        for (row, outcome) in before.iter().zip(outcomes) {
            after.push(self.change(id, row.clone(), &outcome, &mut changes)?);
            if let Some(grant) = outcome.grant
                && !self.book.has(&book::grant(grant.id))?
            {
                put_grant(&grant, &mut changes)?;
                grants.push(grant);
            }
        }
        let over = self.end(id, &after, &mut changes)?;
        let brought: usize = spawn.iter().map(weight).sum();
        if !self.takes_outcome(changes.bytes().saturating_add(brought.saturating_mul(2))) {
            return Err(StoreError::Full);
        }
        let spawned = self.spawn(spawn, &mut changes)?;
        // From here on nothing fails.
        self.book.take(changes);
        self.agenda.release(token);
        for grant in &grants {
            self.tally.grant(grant);
        }
        self.exchange_grants(&recalled);
        for (before, after) in before.iter().zip(&after) {
            self.exchange(id, before, after);
            // It waits again, or others of its unit have become due meanwhile.
            self.arrived |= self.agenda.has(before.address.domain(), id);
        }
        if over {
            self.tally.end(id);
        }
        for ready in &spawned {
            self.enter(ready);
        }
        Ok(())
    }
    /// Gathers the end of a grant that was not opened, and of copies that come from it: each as it
    /// was, and as it will be.
    fn recall(
        &self,
        id: Option<GrantId>,
        changes: &mut Changes,
    ) -> Result<Vec<(Grant, Grant)>, StoreError> {
        let Some(id) = id else { return Ok(Vec::new()) };
        let grant = self.book.grant(id)?.filter(Grant::can_be_recalled);
        let Some(grant) = grant else { return Ok(Vec::new()) };
        let recalled = Grant { state: GrantState::Recalled, ..grant.clone() };
        changes.put(book::grant(id), &recalled)?;
        let mut ended = self.bind_copies(recalled.clone(), changes)?;
        ended.push((grant, recalled));
        Ok(ended)
    }
    /// The rows that the outcomes speak of; an error if anything about them forbids the settle.
    fn check(&self, settle: &Settle) -> Result<Vec<RecipientRow>, StoreError> {
        let ours = self.agenda.held(settle.token, settle.id)?;
        let mut seen = BTreeSet::new();
        let mut rows = Vec::new();
        for outcome in &settle.outcomes {
            if !ours.contains(&outcome.index) || !seen.insert(outcome.index) {
                return Err(StoreError::Fenced);
            }
            let row = self.book.recipient(settle.id, outcome.index)?;
            if row.state.due().is_none() {
                return Err(StoreError::Fenced);
            }
            let granted = matches!(outcome.state, RecipientState::Granted { .. });
            if granted != outcome.grant.is_some() {
                return Err(StoreError::Corrupt("a grant and its outcome differ".to_owned()));
            }
            rows.push(row);
        }
        Ok(rows)
    }
    /// Gathers a recipient's new row and its attempts.
    fn change(
        &self,
        id: QueueId,
        mut row: RecipientRow,
        outcome: &Outcome,
        changes: &mut Changes,
    ) -> Result<RecipientRow, StoreError> {
        let first = row.attempts == 0;
        row.apply(outcome);
        if let RecipientState::Delivered { reply, .. } = &mut row.state {
            clip(reply);
        }
        if let Some(why) = &mut row.why {
            clip(&mut why.text);
        }
        changes.put(book::recipient(id, row.index), &row)?;
        // The first time there is nothing to look for.
        let kept = if first {
            Vec::new()
        } else {
            self.book.page(book::under(book::attempts(id, row.index)), false, usize::MAX)?
        };
        let skip = outcome.attempts.len().saturating_sub(ATTEMPTS_KEPT);
        let surplus = (kept.len() + outcome.attempts.len() - skip).saturating_sub(ATTEMPTS_KEPT);
        let mut number = kept.last().map_or(0, |(key, _)| book::number_of(key).saturating_add(1));
        for (key, _) in kept.into_iter().take(surplus) {
            changes.remove(key);
        }
        for attempt in outcome.attempts.iter().skip(skip) {
            let attempt = bounded(attempt.clone());
            changes.put(book::attempt(id, row.index, number), &attempt)?;
            number = number.saturating_add(1);
        }
        Ok(row)
    }
    /// Notes the time when these were the last recipients to come to an end; true if they were.
    pub(super) fn end(
        &self,
        id: QueueId,
        after: &[RecipientRow],
        changes: &mut Changes,
    ) -> Result<bool, StoreError> {
        let ended: Vec<_> = after.iter().filter_map(|row| row.state.ended()).collect();
        if ended.is_empty() || self.tally.open(id) > ended.len() {
            return Ok(false);
        }
        let mut row: MessageRow = self.book.get(&book::message(id))?.ok_or(StoreError::NotFound)?;
        // A recipient whose row can't be read may not have ended.
        let others: Vec<RecipientRow> = match self.book.rows(book::recipients(id)) {
            Err(StoreError::Corrupt(_)) => return Ok(false),
            rows => rows?,
        };
        row.done = others.iter().filter_map(|r| r.state.ended()).chain(ended).max();
        changes.put(book::message(id), &row)?;
        Ok(true)
    }
    /// Readies spawned messages; if one cannot be, the bodies of those before it are given up.
    pub(super) fn spawn(
        &mut self,
        spawn: Vec<NewMessage>,
        changes: &mut Changes,
    ) -> Result<Vec<Ready>, StoreError> {
        let (mut ready, mut seen) = (Vec::<Ready>::new(), HashSet::new());
        for message in spawn {
            let id = message.facts.id;
            if !seen.insert(id) || self.book.has(&book::message(id))? {
                continue;
            }
            match self.ready(message, changes) {
                Ok(one) => ready.push(one),
                Err(e) => {
                    ready
                        .iter()
                        .try_for_each(|one| self.discard(one.row.facts.id, &one.row.body))?;
                    return Err(e);
                }
            }
        }
        Ok(ready)
    }

    pub(super) fn totals(&self) -> Result<Totals, StoreError> {
        let mut totals = Totals {
            segments: self.segments.bytes(),
            unreadable: self.unread.len() as u64,
            ..self.tally.totals()
        };
        if let Some(id) = self.tally.oldest() {
            let row = self.book.get(&book::message(id));
            totals.oldest = row.ok().flatten().map(|row: MessageRow| row.facts.arrived);
        }
        Ok(totals)
    }

    pub(super) fn doomed(
        &mut self,
        now: Option<TrustedTime>,
        max: usize,
    ) -> Result<Doomed, StoreError> {
        let over = now.map(|now| self.tally.over(now.get(), ENDED_AT_ONCE));
        for id in over.unwrap_or_default() {
            if !self.takes_outcome(ENDED) {
                break;
            }
            let mut grant: Grant = self.book.get(&book::grant(id))?.ok_or(StoreError::NotFound)?;
            self.tally.ungrant(&grant);
            grant.state = GrantState::Expired;
            let mut changes = Changes::default();
            changes.put(book::grant(id), &grant)?;
            self.book.take(changes);
        }
        let (destroyed, left) = self.destroy_doomed();
        let mut doomed = Doomed { destroyed, left, large: Vec::new() };
        for id in self.tally.doomed_files(max) {
            let row: MessageRow = self.book.get(&book::message(id))?.ok_or(StoreError::NotFound)?;
            doomed.large.push((id, row.body));
        }
        Ok(doomed)
    }
    /// Destroys what is doomed and lies in a segment, in the commit of the change that doomed it. What
    /// can't be destroyed now, for which the log has no room or whose segment does not open, is tried
    /// again with the next group. Returns how many were destroyed, and how many were not.
    pub(super) fn destroy_doomed(&mut self) -> (usize, usize) {
        let doomed = self.tally.doomed(DESTROYED_AT_ONCE);
        let (mut destroyed, all) = (0, doomed.len());
        for id in doomed {
            if !self.takes_outcome(ENDED) {
                break;
            }
            match self.destroy(id) {
                Ok(()) => destroyed += 1,
                Err(error) => {
                    tracing::warn!(%id, %error, "a message at its end could not be destroyed yet");
                }
            }
        }
        (destroyed, all - destroyed)
    }
    fn destroy(&mut self, id: QueueId) -> Result<(), StoreError> {
        let (row, changes) = self.bodiless(id)?;
        if let Locator::Segment { segment, offset, length } = row.body {
            self.segments.erase(segment, offset, length)?;
        }
        self.book.take(changes);
        self.tally.forget(id);
        self.destroyed = true;
        Ok(())
    }
    /// A message's row, and what changes when its body is gone.
    fn bodiless(&self, id: QueueId) -> Result<(MessageRow, Changes), StoreError> {
        let row: MessageRow = self.book.get(&book::message(id))?.ok_or(StoreError::NotFound)?;
        let granted = self.tally.was_granted(id);
        let grants = if granted { self.book.grants_of(id)? } else { Vec::new() };
        let end = grants.iter().map(|grant| grant.expires).chain(row.done).max();
        let mut changes = Changes::default();
        let gone = MessageRow { body: Locator::Gone, ..row.clone() };
        changes.put(book::message(id), &gone)?;
        changes.put_raw(book::ended(end.unwrap_or(row.facts.arrived), id), Vec::new())?;
        Ok((row, changes))
    }
    pub(super) fn forget_body(&mut self, id: QueueId) -> Result<(), StoreError> {
        let (row, changes) = self.bodiless(id)?;
        if row.body == Locator::Gone {
            return Ok(());
        }
        if !self.tally.is_doomed_file(id) {
            return Err(StoreError::Fenced);
        }
        self.book.take(changes);
        self.tally.forget(id);
        Ok(())
    }
    pub(super) fn purge(
        &mut self,
        now: TrustedTime,
        age: SignedDuration,
        max: usize,
    ) -> Result<usize, StoreError> {
        let Some(before) = now.ago(age) else { return Ok(0) };
        let ended = self.book.page(book::ended_before(before), false, max)?;
        let mut changes = Changes::default();
        for (key, _) in &ended {
            if let Some(id) = book::message_of(key) {
                for prefix in [book::recipients(id), book::all_attempts(id), book::grants_of(id)] {
                    let rows = self.book.page(book::under(prefix), false, usize::MAX)?;
                    rows.into_iter().for_each(|(key, _)| changes.remove(key));
                }
                for grant in self.book.grants_of(id)? {
                    remove_grant(&grant, &mut changes);
                }
                changes.remove(book::message(id));
            }
            changes.remove(key.clone());
        }
        self.book.take(changes);
        Ok(ended.len())
    }
}

fn waiting(message: NewMessage) -> Vec<RecipientRow> {
    let numbered = (0..=u16::MAX).zip(message.recipients);
    numbered.map(|(index, address)| RecipientRow::new(index, address, message.due)).collect()
}
pub(super) fn put_grant(grant: &Grant, changes: &mut Changes) -> Result<(), StoreError> {
    let id = grant.id;
    changes.put(book::grant(id), grant)?;
    changes.put_raw(book::grant_of(grant.message, id), Vec::new())?;
    if let Some(origin) = grant.origin {
        changes.put_raw(book::copy_of(origin, id), Vec::new())?;
    }
    match grant.kind {
        GrantKind::Received => {
            changes.put_raw(book::token(&grant.token), id.as_bytes().to_vec())?;
            changes.put_raw(book::grant_for(grant.mailbox(), grant.sealed, id), Vec::new())?;
            changes.put_raw(book::grant_by_time(grant.sealed, id), Vec::new())
        }
        GrantKind::Sent => {
            changes.put_raw(book::sent_at(grant.mailbox(), grant.sealed, id), Vec::new())
        }
    }
}
pub(super) fn remove_grant(grant: &Grant, changes: &mut Changes) {
    let id = grant.id;
    changes.remove(book::grant(id));
    if let Some(origin) = grant.origin {
        changes.remove(book::copy_of(origin, id));
    }
    changes.remove(book::token(&grant.token));
    changes.remove(book::grant_for(grant.mailbox(), grant.sealed, id));
    changes.remove(book::grant_by_time(grant.sealed, id));
    changes.remove(book::sent_at(grant.mailbox(), grant.sealed, id));
}
/// Cuts a peer's words at [`TEXT`] bytes, on a character's border.
fn clip(text: &mut String) {
    text.truncate(text.floor_char_boundary(TEXT));
}
/// An attempt whose row is written whatever it holds: an outcome that can't be written is an attempt
/// made again, and again. A certificate may bear hundreds of names, a host publish any number of
/// records, and a control character of any text takes six bytes as JSON; what is least needed goes
/// first.
fn bounded(mut attempt: Attempt) -> Attempt {
    for text in [&mut attempt.mx, &mut attempt.address, &mut attempt.reply, &mut attempt.error] {
        text.iter_mut().for_each(clip);
    }
    if let Some(tls) = &mut attempt.tls {
        tls.names.truncate(NAMES);
        tls.names.iter_mut().for_each(clip);
        tls.chain_error.iter_mut().for_each(clip);
        if let Some(DaneVerdict::Unmet(text) | DaneVerdict::Met { record: text, .. }) =
            &mut tls.dane
        {
            clip(text);
        }
    }
    let shed: [fn(&mut Attempt); 4] = [
        |attempt| attempt.dns.iter_mut().for_each(|dns| (dns.dane, dns.sts) = (None, None)),
        |attempt| attempt.dns = None,
        |attempt| attempt.tls.iter_mut().for_each(|tls| tls.names.clear()),
        |attempt| attempt.tls = None,
    ];
    for less in shed {
        if fits(&attempt) {
            break;
        }
        less(&mut attempt);
    }
    attempt
}
fn fits(attempt: &Attempt) -> bool {
    serde_json::to_vec(attempt).is_ok_and(|json| json.len() <= ATTEMPT)
}
