//! Everything in memory: for tests, and the contract's second witness. It shares no bookkeeping
//! with the embedded store: plain maps, scanned afresh for every question.

use crate::{
    clock::TrustedTime,
    mail::{Address, Domain, GrantId, QueueId},
    seal::{Prelude, TokenHash, WrappedKey},
    store::{
        Account, AccountChange, AccountMove, Ask, Attempt, AuditChain, AuditEvent, AuditRecord,
        AuditStore, BodyStore, BodyWriter, Claim, Claimed, Doomed, Filter, Grant, GrantKind,
        GrantState, Health, Locator, MessageRow, Moved, NewBody, NewMessage, NoteKind, NoteStore,
        Order, Ordered, Outcome, PeopleStore, ProofChange, QueueStore, RecipientRow,
        RecipientState, Session, Settle, StoreError, Totals,
        audit::AuditAges,
        body::{Aside, BodyReader},
        notes,
        queue::{ATTEMPTS_KEPT, SMALL},
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Bytes handed out at once by a reader: small enough that readers meet piece borders in tests.
const PIECE: usize = 256 * 1024;

/// A store that forgets everything when it is dropped. Clones share one memory.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    book: Arc<Mutex<Book>>,
    arrivals: Arc<Notify>,
    endings: Arc<Notify>,
}
#[derive(Debug)]
struct Book {
    messages: BTreeMap<QueueId, Entry>,
    bodies: HashMap<QueueId, Bytes>,
    leases: HashMap<u64, Lease>,
    last_token: u64,
    grants: HashMap<GrantId, Grant>,
    accounts: BTreeMap<String, Account>,
    vacated: HashMap<String, Timestamp>,
    sessions: HashMap<TokenHash, Session>,
    notes: BTreeMap<(NoteKind, String), Vec<u8>>,
    audit: BTreeMap<u64, AuditRecord>,
    chain: AuditChain,
    health: Health,
}
#[derive(Debug)]
struct Entry {
    row: MessageRow,
    recipients: Vec<RecipientRow>,
    attempts: HashMap<u16, Vec<Attempt>>,
}
#[derive(Debug)]
struct Lease {
    id: QueueId,
    domain: Domain,
    indexes: BTreeSet<u16>,
    until: Timestamp,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}
impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        let book = Book {
            messages: BTreeMap::new(),
            bodies: HashMap::new(),
            leases: HashMap::new(),
            last_token: 0,
            grants: HashMap::new(),
            accounts: BTreeMap::new(),
            vacated: HashMap::new(),
            sessions: HashMap::new(),
            notes: BTreeMap::new(),
            audit: BTreeMap::new(),
            chain: AuditChain::default(),
            health: Health::Ok,
        };
        let (arrivals, endings) = Default::default();
        Self { book: Arc::new(Mutex::new(book)), arrivals, endings }
    }
    /// Feigns trouble: a full store refuses new mail, a broken one everything that writes to the
    /// queue.
    pub fn set_health(&self, health: Health) {
        self.book().health = health;
    }
    /// The sealed bytes of a message as they are kept, to look for what must not be there.
    pub fn sealed_bytes(&self, id: QueueId) -> Option<Bytes> {
        self.book().bodies.get(&id).cloned()
    }
    /// Lays a grant down, as a settle would.
    #[cfg(test)]
    pub(crate) fn put_grant(&self, grant: Grant) {
        self.book().grants.insert(grant.id, grant);
    }
    /// Damages the kept bytes of a message but for the first so many in a hundred.
    #[cfg(test)]
    pub(crate) fn damage(&self, id: QueueId, sound: usize) {
        if let Some(body) = self.book().bodies.get_mut(&id) {
            let mut sealed = body.to_vec();
            let sound = sealed.len() * sound / 100;
            sealed.iter_mut().skip(sound).for_each(|byte| *byte ^= 0x55);
            *body = Bytes::from(sealed);
        }
    }
    /// Changes an audit record past the trail, or cuts it out.
    #[cfg(test)]
    pub(crate) fn tamper(&self, seq: u64, change: impl FnOnce(AuditRecord) -> Option<AuditRecord>) {
        let mut book = self.book();
        if let Some(changed) = book.audit.remove(&seq).and_then(change) {
            book.audit.insert(seq, changed);
        }
    }
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Appends events to the audit trail, within whatever else is changed under this lock.
    fn append_audit(&mut self, events: Vec<AuditEvent>) -> Result<(), StoreError> {
        for event in events {
            let record = self.chain.append(event)?;
            self.audit.insert(record.seq, record);
        }
        Ok(())
    }
    fn move_account(&mut self, change: AccountMove) -> Result<Moved, StoreError> {
        self.writable()?;
        let (old, to) = (&change.account, &change.to);
        if self.accounts.get(&old.address.mailbox()) != Some(old) {
            return Ok(Moved::Changed);
        }
        if self.accounts.contains_key(&to.mailbox()) {
            return Ok(Moved::Taken);
        }
        change.mail.iter().try_for_each(|message| self.acceptable(message))?;
        let held = |grant: &Grant| old.holds(grant);
        let of = |kind| self.grants.values().filter(|g| g.kind == kind && held(g)).count();
        let grants = [of(GrantKind::Received), of(GrantKind::Sent)];
        if grants.iter().any(|count| *count > AccountMove::GRANTS) {
            return Ok(Moved::TooMany);
        }
        for grant in self.grants.values_mut().filter(|grant| old.holds(grant)) {
            grant.moved = Some(Box::new((to.clone(), change.at)));
        }
        let count = self.sessions.len();
        self.sessions.retain(|_, session| !is_of(session, &old.address));
        let sessions = count - self.sessions.len();
        let new = change.moved(self.vacated.get(&to.mailbox()).copied());
        self.accounts.remove(&old.address.mailbox());
        self.vacated.insert(old.address.mailbox(), change.at);
        self.accounts.insert(new.address.mailbox(), new);
        for message in change.mail {
            self.accept(message)?;
        }
        self.append_audit(change.events)?;
        Ok(Moved::Done { grants: grants.iter().sum(), sessions })
    }
    fn writable(&self) -> Result<(), StoreError> {
        match &self.health {
            Health::Ok | Health::Full => Ok(()),
            Health::Broken(why) => Err(StoreError::Fatal(why.clone())),
        }
    }
    fn takes_mail(&self) -> Result<(), StoreError> {
        self.writable()?;
        if self.health == Health::Full {
            return Err(StoreError::Full);
        }
        Ok(())
    }
    fn accept(&mut self, message: NewMessage) -> Result<(), StoreError> {
        let id = message.facts.id;
        if self.messages.contains_key(&id) {
            return Ok(());
        }
        self.acceptable(&message)?;
        let row = MessageRow::accepted(&message, Locator::Memory);
        if let NewBody::Small(bytes) = message.body {
            self.bodies.insert(id, bytes);
        }
        let recipients = (0u16..)
            .zip(message.recipients)
            .map(|(index, address)| RecipientRow::new(index, address, message.due))
            .collect();
        self.messages.insert(id, Entry { row, recipients, attempts: HashMap::new() });
        if let Some(mut copy) = message.copy {
            if let Some(origin) = copy.origin {
                copy.bound_by(self.grants.get(&origin));
            }
            self.grants.insert(copy.id, copy);
        }
        Ok(())
    }
    fn acceptable(&self, message: &NewMessage) -> Result<(), StoreError> {
        match &message.body {
            NewBody::Small(bytes) if bytes.len() > SMALL => {
                Err(StoreError::Corrupt("a small body that is not small".to_owned()))
            }
            NewBody::At(_) if !self.bodies.contains_key(&message.facts.id) => {
                Err(StoreError::NotFound)
            }
            NewBody::Small(_) | NewBody::At(_) => Ok(()),
        }
    }
    /// Units of work by the time at which they can be claimed: due recipients, or the end of the
    /// lease over them.
    fn units(&self) -> BTreeMap<(QueueId, Domain), Timestamp> {
        let mut units: BTreeMap<(QueueId, Domain), Timestamp> = BTreeMap::new();
        for (id, entry) in &self.messages {
            for recipient in &entry.recipients {
                let Some(next) = recipient.state.due() else { continue };
                let at = units.entry((*id, recipient.address.domain().clone())).or_insert(next);
                *at = next.min(*at);
            }
        }
        for lease in self.leases.values() {
            if let Some(at) = units.get_mut(&(lease.id, lease.domain.clone())) {
                *at = lease.until;
            }
        }
        units
    }
    fn claim(&mut self, ask: Ask) -> Claimed {
        let until = ask.until();
        let Ask { now, max, mut room, .. } = ask;
        let mut due: Vec<_> = self.units().into_iter().filter(|(_, at)| *at <= now).collect();
        due.sort_by_key(|(_, at)| *at);
        let mut claims = Vec::new();
        for ((id, domain), _) in due {
            let left = room.of(&domain);
            if left == 0 || claims.len() == max {
                continue;
            }
            room.named.insert(domain.clone(), left - 1);
            claims.extend(self.lease(id, domain, now, until));
        }
        let open = self.units().into_iter().filter(|((_, domain), _)| room.of(domain) > 0);
        Claimed { claims, next: open.map(|(_, at)| at).min() }
    }
    fn lease(
        &mut self,
        id: QueueId,
        domain: Domain,
        now: Timestamp,
        until: Timestamp,
    ) -> Option<Claim> {
        let entry = self.messages.get(&id)?;
        let recipients: Vec<_> = entry
            .recipients
            .iter()
            .filter(|r| *r.address.domain() == domain)
            .filter(|r| r.state.due().is_some_and(|next| next <= now))
            .cloned()
            .collect();
        let message = entry.row.clone();
        self.leases.retain(|_, lease| lease.id != id || lease.domain != domain);
        self.last_token += 1;
        let indexes = recipients.iter().map(|r| r.index).collect();
        let lease = Lease { id, domain: domain.clone(), indexes, until };
        self.leases.insert(self.last_token, lease);
        Some(Claim { token: self.last_token, message, domain, recipients })
    }
    fn settle(&mut self, settle: Settle) -> Result<(), StoreError> {
        self.check(&settle)?;
        let Settle { token, id, outcomes, spawn, recall } = settle;
        for message in spawn {
            self.accept(message)?;
        }
        for outcome in outcomes {
            if let Some(grant) = &outcome.grant {
                self.grants.entry(grant.id).or_insert_with(|| grant.clone());
            }
            let entry = self.messages.get_mut(&id).ok_or(StoreError::NotFound)?;
            entry.take(&outcome);
        }
        let announced = recall.and_then(|id| self.grants.get_mut(&id));
        if let Some(grant) = announced.filter(|grant| grant.can_be_recalled()) {
            grant.state = GrantState::Recalled;
            let recalled = grant.clone();
            self.bind_copies(recalled);
        }
        self.leases.remove(&token);
        self.destroy_doomed();
        Ok(())
    }
    /// Copies of a grant's message, and copies of those, end no later than it.
    fn bind_copies(&mut self, origin: Grant) {
        let mut origins = vec![origin];
        while let Some(origin) = origins.pop() {
            let copies = self.grants.values_mut().filter(|g| g.origin == Some(origin.id));
            let changed = copies.filter_map(|g| g.bound_by(Some(&origin)).then(|| g.clone()));
            origins.extend(changed);
        }
    }
    /// Everything that could refuse a settle, before anything of it is written.
    fn check(&self, settle: &Settle) -> Result<(), StoreError> {
        let lease = self.leases.get(&settle.token).ok_or(StoreError::Fenced)?;
        let entry = self.messages.get(&settle.id).ok_or(StoreError::Fenced)?;
        let mut seen = BTreeSet::new();
        for outcome in &settle.outcomes {
            let waiting = entry
                .recipients
                .iter()
                .any(|r| r.index == outcome.index && r.state.due().is_some());
            let ours = lease.id == settle.id && lease.indexes.contains(&outcome.index);
            if !waiting || !ours || !seen.insert(outcome.index) {
                return Err(StoreError::Fenced);
            }
            let granted = matches!(outcome.state, RecipientState::Granted { .. });
            if granted != outcome.grant.is_some() {
                return Err(StoreError::Corrupt("a grant and its outcome differ".to_owned()));
            }
        }
        settle.spawn.iter().try_for_each(|message| self.acceptable(message))
    }
    fn change_account(&mut self, change: AccountChange) -> Result<bool, StoreError> {
        let AccountChange { old, new, session, ends, mail, events } = change;
        self.writable()?;
        let mailbox = new.address.mailbox();
        if self.accounts.get(&mailbox) != old.as_ref() {
            return Ok(false);
        }
        if old.is_some_and(|old| old.epoch != new.epoch) {
            let stale = |s: &Session| {
                is_of(s, &new.address) && !s.account.as_ref().is_some_and(|named| new.is(named))
            };
            self.sessions.retain(|_, session| !stale(session));
        }
        self.accounts.insert(mailbox, new);
        if let Some(id) = ends {
            self.sessions.remove(&id);
        }
        if let Some(session) = session {
            self.put_session(session);
        }
        mail.into_iter().try_for_each(|message| self.accept(message))?;
        self.append_audit(events)?;
        Ok(true)
    }
    fn change_proof(&mut self, change: ProofChange) -> Result<bool, StoreError> {
        let ProofChange { grant, old, new, mail, events } = change;
        self.writable()?;
        mail.iter().try_for_each(|message| self.acceptable(message))?;
        let kept = self.grants.get_mut(&grant).ok_or(StoreError::NotFound)?;
        if kept.proof != old {
            return Ok(false);
        }
        kept.proof = Some(new);
        mail.into_iter().try_for_each(|message| self.accept(message))?;
        self.append_audit(events)?;
        Ok(true)
    }
    fn put_session(&mut self, session: Session) {
        if let Some(named) = session.account.clone()
            && !self.sessions.contains_key(&session.id)
        {
            let own = self.sessions.values().filter(|other| is_of(other, &named.address));
            let mut own: Vec<_> = own.map(|other| (other.created, other.id)).collect();
            own.sort_unstable();
            let surplus = (own.len() + 1).saturating_sub(Account::SESSIONS);
            for (_, id) in own.iter().take(surplus) {
                self.sessions.remove(id);
            }
        }
        self.sessions.insert(session.id, session);
    }
    fn order(&mut self, order: Order, now: Timestamp) -> Result<Ordered, StoreError> {
        let entry = self.messages.get(&order.id).ok_or(StoreError::NotFound)?;
        let (mut done, mut after) = (Ordered::default(), Vec::new());
        for row in entry.recipients.iter().filter(|r| order.indexes.contains(&r.index)) {
            let Some(changed) = row.ordered(order.kind, now) else { continue };
            let mut leases = self.leases.values().filter(|lease| lease.id == order.id);
            if leases.any(|lease| lease.indexes.contains(&row.index)) {
                done.busy.push(row.index);
            } else {
                done.changed.push(row.index);
                after.push(changed);
            }
        }
        if !order.spawn.is_empty() && after.len() < order.indexes.len() {
            return Ok(Ordered { changed: Vec::new(), ..done });
        }
        order.spawn.iter().try_for_each(|message| self.acceptable(message))?;
        for message in order.spawn {
            self.accept(message)?;
        }
        let entry = self.messages.get_mut(&order.id).ok_or(StoreError::NotFound)?;
        for row in &mut entry.recipients {
            if let Some(changed) = after.iter().find(|changed| changed.index == row.index) {
                row.clone_from(changed);
            }
        }
        entry.end();
        self.destroy_doomed();
        Ok(done)
    }
    /// One page of the grants that `wanted` picks, newest first.
    fn newest(
        &self,
        wanted: impl Fn(&Grant) -> bool,
        after: Option<GrantId>,
        max: usize,
    ) -> Vec<Grant> {
        let mut all: Vec<_> = self.grants.values().filter(|g| wanted(g)).collect();
        all.sort_by_key(|g| Reverse((g.sealed, g.id)));
        let skip = match after {
            None => 0,
            Some(id) => all.iter().position(|g| g.id == id).map_or(all.len(), |at| at + 1),
        };
        all.into_iter().skip(skip).take(max).cloned().collect()
    }
    fn live_grants(&self, id: QueueId) -> usize {
        let of = self.grants.values().filter(|g| g.message == id);
        of.filter(|g| g.state == GrantState::Live).count()
    }
    /// Live grants of recipients: an author's own copy waits for nobody.
    fn waiting_grants(&self, id: QueueId) -> u64 {
        let of = self.grants.values().filter(|g| g.message == id && g.state == GrantState::Live);
        of.filter(|g| g.kind == GrantKind::Received).count() as u64
    }
    fn doomed(&mut self, now: Option<TrustedTime>, max: usize) -> Doomed {
        let over = |grant: &Grant| now.is_some_and(|now| grant.expires <= now.get());
        for grant in self.grants.values_mut() {
            if grant.state == GrantState::Live && over(grant) {
                grant.state = GrantState::Expired;
            }
        }
        let destroyed = self.destroy_doomed();
        let doomed = self.messages.iter().filter(|(_, e)| self.is_doomed(e));
        let large = doomed.map(|(id, e)| (*id, e.row.body.clone())).take(max).collect();
        Doomed { destroyed, left: 0, large }
    }
    fn is_doomed(&self, entry: &Entry) -> bool {
        let MessageRow { facts, body, done, .. } = &entry.row;
        *body != Locator::Gone && done.is_some() && self.live_grants(facts.id) == 0
    }
    /// Destroys doomed messages with a small body; a large one is left for who deletes files.
    fn destroy_doomed(&mut self) -> usize {
        let live = self.grants.values().filter(|grant| grant.state == GrantState::Live);
        let needed: HashSet<QueueId> = live.map(|grant| grant.message).collect();
        let small = |id| self.bodies.get(id).is_some_and(|body| body.len() <= SMALL);
        let over = self.messages.iter().filter(|(_, e)| e.row.done.is_some());
        let doomed = over.filter(|(id, _)| small(*id) && !needed.contains(id));
        let doomed: Vec<QueueId> = doomed.map(|(id, _)| *id).collect();
        for id in &doomed {
            self.bodies.remove(id);
            if let Some(entry) = self.messages.get_mut(id) {
                entry.row.body = Locator::Gone;
            }
        }
        doomed.len()
    }
    fn totals(&self) -> Totals {
        let mut t = Totals::default();
        for (id, entry) in &self.messages {
            for recipient in &entry.recipients {
                match recipient.state {
                    RecipientState::Waiting { .. } if recipient.attempts == 0 => t.active += 1,
                    RecipientState::Waiting { .. } => t.deferred += 1,
                    RecipientState::Held { .. } => t.held += 1,
                    RecipientState::Delivered { .. }
                    | RecipientState::Granted { .. }
                    | RecipientState::Bounced { .. }
                    | RecipientState::Expired { .. }
                    | RecipientState::Removed { .. } => {}
                }
            }
            if entry.recipients.iter().any(|r| r.state.due().is_some()) {
                let arrived = entry.row.facts.arrived;
                t.oldest = Some(t.oldest.map_or(arrived, |o| o.min(arrived)));
            }
            let live = self.live_grants(*id);
            if live > 0 {
                t.vault_messages += 1;
                t.grants += self.waiting_grants(*id);
                t.vault_bytes += self.bodies.get(id).map_or(0, |b| b.len() as u64);
            }
        }
        t
    }
    /// Ids of messages whose record may go: body gone, recipients and grants at an end before that
    /// time.
    fn purgeable(&self, before: Timestamp, max: usize) -> Vec<QueueId> {
        let over = |id: &QueueId| {
            self.grants.values().filter(|g| g.message == *id).all(|g| g.expires < before)
        };
        let gone = self.messages.iter().filter(|(_, e)| e.row.body == Locator::Gone);
        gone.filter(|(id, e)| e.row.done.is_some_and(|d| d < before) && over(id))
            .map(|(id, _)| *id)
            .take(max)
            .collect()
    }
}
impl Entry {
    fn take(&mut self, outcome: &Outcome) {
        let Some(row) = self.recipients.iter_mut().find(|r| r.index == outcome.index) else {
            return;
        };
        row.apply(outcome);
        let attempts = self.attempts.entry(outcome.index).or_default();
        attempts.extend(outcome.attempts.iter().cloned());
        let surplus = attempts.len().saturating_sub(ATTEMPTS_KEPT);
        attempts.drain(..surplus);
        self.end();
    }
    /// Notes the time when the last recipient came to its end.
    fn end(&mut self) {
        let ends: Option<Vec<_>> = self.recipients.iter().map(|r| r.state.ended()).collect();
        self.row.done = ends.and_then(|ends| ends.into_iter().max());
    }
}

#[async_trait]
impl QueueStore for MemoryStore {
    async fn accept(&self, message: NewMessage) -> Result<(), StoreError> {
        let mut book = self.book();
        book.takes_mail()?;
        book.accept(message)?;
        self.arrivals.notify_one();
        Ok(())
    }
    async fn claim(&self, ask: Ask) -> Result<Claimed, StoreError> {
        let mut book = self.book();
        book.writable()?;
        Ok(book.claim(ask))
    }
    fn arrivals(&self) -> Arc<Notify> {
        Arc::clone(&self.arrivals)
    }
    async fn settle(&self, settle: Settle) -> Result<(), StoreError> {
        let mut book = self.book();
        book.writable()?;
        book.settle(settle)?;
        self.arrivals.notify_one();
        self.endings.notify_one();
        Ok(())
    }
    async fn release(&self, token: u64) -> Result<(), StoreError> {
        if self.book().leases.remove(&token).is_some() {
            self.arrivals.notify_one();
        }
        Ok(())
    }
    async fn order(&self, order: Order, now: Timestamp) -> Result<Ordered, StoreError> {
        let mut book = self.book();
        book.writable()?;
        let done = book.order(order, now)?;
        self.arrivals.notify_one();
        self.endings.notify_one();
        Ok(done)
    }
    async fn message(
        &self,
        id: QueueId,
    ) -> Result<Option<(MessageRow, Vec<RecipientRow>)>, StoreError> {
        Ok(self.book().messages.get(&id).map(|e| (e.row.clone(), e.recipients.clone())))
    }
    async fn attempts(&self, id: QueueId, index: u16) -> Result<Vec<Attempt>, StoreError> {
        let book = self.book();
        Ok(book.messages.get(&id).and_then(|e| e.attempts.get(&index)).cloned().unwrap_or_default())
    }
    async fn list(
        &self,
        filter: &Filter,
        after: Option<QueueId>,
        max: usize,
    ) -> Result<Vec<(MessageRow, Vec<RecipientRow>)>, StoreError> {
        let book = self.book();
        let rest = book.messages.iter().filter(|(id, _)| after.is_none_or(|after| **id > after));
        Ok(rest
            .filter(|(_, e)| filter.matches(&e.row, &e.recipients))
            .map(|(_, e)| (e.row.clone(), e.recipients.clone()))
            .take(max)
            .collect())
    }
    async fn totals(&self) -> Result<Totals, StoreError> {
        Ok(self.book().totals())
    }
    async fn doomed(&self, now: Option<TrustedTime>, max: usize) -> Result<Doomed, StoreError> {
        Ok(self.book().doomed(now, max))
    }
    async fn forget_body(&self, id: QueueId) -> Result<(), StoreError> {
        let mut book = self.book();
        let entry = book.messages.get(&id).ok_or(StoreError::NotFound)?;
        if entry.row.body != Locator::Gone && !book.is_doomed(entry) {
            return Err(StoreError::Fenced);
        }
        if let Some(entry) = book.messages.get_mut(&id) {
            entry.row.body = Locator::Gone;
        }
        Ok(())
    }
    async fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(())
    }
    fn endings(&self) -> Arc<Notify> {
        Arc::clone(&self.endings)
    }
    async fn purge(
        &self,
        now: TrustedTime,
        age: SignedDuration,
        max: usize,
    ) -> Result<usize, StoreError> {
        let Some(before) = now.ago(age) else { return Ok(0) };
        let mut book = self.book();
        let ids = book.purgeable(before, max);
        for id in &ids {
            book.messages.remove(id);
            book.grants.retain(|_, g| g.message != *id);
        }
        Ok(ids.len())
    }
    fn health(&self) -> Health {
        self.book().health.clone()
    }
}

/// A body being gathered.
struct MemoryWriter {
    id: QueueId,
    book: Arc<Mutex<Book>>,
    sealed: Vec<u8>,
}
/// A body aside, being written.
struct MemoryAside {
    book: Arc<Mutex<Book>>,
    sealed: Vec<u8>,
}
/// A body being read.
struct MemoryReader {
    rest: Bytes,
}

#[async_trait]
impl BodyStore for MemoryStore {
    async fn create(&self, id: QueueId) -> Result<Box<dyn BodyWriter>, StoreError> {
        self.book().takes_mail()?;
        Ok(Box::new(MemoryWriter { id, book: Arc::clone(&self.book), sealed: Vec::new() }))
    }
    async fn open(
        &self,
        id: QueueId,
        _at: &Locator,
        range: Range<u64>,
    ) -> Result<Box<dyn BodyReader>, StoreError> {
        let whole = self.book().bodies.get(&id).cloned().ok_or(StoreError::NotFound)?;
        let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(whole.len());
        let (from, to) = (within(range.start), within(range.end));
        Ok(Box::new(MemoryReader { rest: whole.slice(from.min(to)..to) }))
    }
    async fn aside(&self, _id: QueueId) -> Result<Box<dyn Aside>, StoreError> {
        self.book().takes_mail()?;
        Ok(Box::new(MemoryAside { book: Arc::clone(&self.book), sealed: Vec::new() }))
    }
    async fn rewrap(
        &self,
        id: QueueId,
        _at: &Locator,
        slot: usize,
        key: &WrappedKey,
    ) -> Result<bool, StoreError> {
        let mut book = self.book();
        let Some(body) = book.bodies.get_mut(&id) else { return Ok(false) };
        let corrupt = |what: &str| StoreError::Corrupt(format!("{id}: {what}"));
        let prelude = Prelude::parse(body).map_err(|e| corrupt(&e.to_string()))?;
        let slots = prelude.keyed_by(slot, key).ok_or_else(|| corrupt("no slot for that key"))?;
        let (before, rest) = body.split_at(prelude.slot_at(0));
        let behind = rest.get(slots.len()..).unwrap_or_default();
        *body = [before, &slots, behind].concat().into();
        Ok(true)
    }
    async fn delete(&self, id: QueueId, _at: &Locator) -> Result<(), StoreError> {
        self.book().bodies.remove(&id);
        Ok(())
    }
}
#[async_trait]
impl BodyWriter for MemoryWriter {
    async fn write(&mut self, sealed: Bytes) -> Result<(), StoreError> {
        self.sealed.extend_from_slice(&sealed);
        Ok(())
    }
    async fn seal(self: Box<Self>) -> Result<Locator, StoreError> {
        let Self { id, book, sealed } = *self;
        let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
        book.bodies.insert(id, Bytes::from(sealed));
        Ok(Locator::Memory)
    }
}
#[async_trait]
impl Aside for MemoryAside {
    async fn write(&mut self, sealed: Bytes) -> Result<(), StoreError> {
        if self.book.lock().unwrap_or_else(PoisonError::into_inner).health == Health::Full {
            return Err(StoreError::Full);
        }
        self.sealed.extend_from_slice(&sealed);
        Ok(())
    }
    fn open(&self, from: u64) -> Result<Box<dyn BodyReader>, StoreError> {
        let whole = Bytes::copy_from_slice(&self.sealed);
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(whole.len());
        Ok(Box::new(MemoryReader { rest: whole.slice(from..) }))
    }
}
#[async_trait]
impl BodyReader for MemoryReader {
    async fn next(&mut self) -> Result<Bytes, StoreError> {
        let length = self.rest.len().min(PIECE);
        Ok(self.rest.split_to(length))
    }
}

#[async_trait]
impl PeopleStore for MemoryStore {
    async fn grant_by_token(&self, token: &TokenHash) -> Result<Option<Grant>, StoreError> {
        let linked = |g: &&Grant| g.kind == GrantKind::Received && g.token == *token;
        Ok(self.book().grants.values().find(linked).cloned())
    }
    async fn grants_by_hash(&self, start: [u8; 6], max: usize) -> Result<Vec<Grant>, StoreError> {
        let book = self.book();
        let linked =
            |g: &&Grant| g.kind == GrantKind::Received && g.token.as_bytes().starts_with(&start);
        Ok(book.grants.values().filter(linked).take(max).cloned().collect())
    }
    async fn grant(&self, id: GrantId) -> Result<Option<Grant>, StoreError> {
        Ok(self.book().grants.get(&id).cloned())
    }
    async fn grants(
        &self,
        recipient: Option<&Address>,
        after: Option<GrantId>,
        max: usize,
    ) -> Result<Vec<Grant>, StoreError> {
        let wanted = |g: &Grant| {
            g.kind == GrantKind::Received && recipient.is_none_or(|r| g.mailbox().same_mailbox(r))
        };
        Ok(self.book().newest(wanted, after, max))
    }
    async fn sent(
        &self,
        author: &Address,
        after: Option<GrantId>,
        max: usize,
    ) -> Result<Vec<Grant>, StoreError> {
        let wanted = |g: &Grant| g.kind == GrantKind::Sent && g.mailbox().same_mailbox(author);
        Ok(self.book().newest(wanted, after, max))
    }
    async fn update_grant(&self, grant: &Grant) -> Result<(), StoreError> {
        let mut book = self.book();
        let kept = book.grants.get_mut(&grant.id).ok_or(StoreError::NotFound)?;
        kept.update(grant);
        let kept = kept.clone();
        book.bind_copies(kept);
        Ok(())
    }
    async fn mark_opened(&self, id: GrantId, at: Timestamp) -> Result<bool, StoreError> {
        let mut book = self.book();
        let grant = book.grants.get_mut(&id).ok_or(StoreError::NotFound)?;
        let first = grant.can_be_recalled();
        if first {
            grant.opened = Some(at);
        }
        Ok(first)
    }
    async fn change_proof(&self, change: ProofChange) -> Result<bool, StoreError> {
        let changed = self.book().change_proof(change)?;
        self.arrivals.notify_one();
        Ok(changed)
    }
    async fn account(&self, address: &Address) -> Result<Option<Account>, StoreError> {
        Ok(self.book().accounts.get(&address.mailbox()).cloned())
    }
    async fn account_of(&self, generation: [u8; 16]) -> Result<Option<Account>, StoreError> {
        let book = self.book();
        Ok(book.accounts.values().find(|account| account.generation == generation).cloned())
    }
    async fn change_account(&self, change: AccountChange) -> Result<bool, StoreError> {
        let changed = self.book().change_account(change)?;
        self.arrivals.notify_one();
        Ok(changed)
    }
    async fn move_account(&self, change: AccountMove) -> Result<Moved, StoreError> {
        let moved = self.book().move_account(change)?;
        self.arrivals.notify_one();
        Ok(moved)
    }
    async fn remove_account(&self, address: &Address, at: Timestamp) -> Result<bool, StoreError> {
        let mut book = self.book();
        let removed = book.accounts.remove(&address.mailbox()).is_some();
        if removed {
            book.sessions.retain(|_, s| !is_of(s, address));
            book.vacated.insert(address.mailbox(), at);
        }
        Ok(removed)
    }
    async fn vacated(&self, address: &Address) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.book().vacated.get(&address.mailbox()).copied())
    }
    async fn accounts(
        &self,
        after: Option<&Address>,
        max: usize,
    ) -> Result<Vec<Account>, StoreError> {
        let book = self.book();
        let after = after.map(Address::mailbox);
        let rest = book.accounts.iter().filter(|(a, _)| after.as_ref().is_none_or(|b| *a > b));
        Ok(rest.map(|(_, account)| account.clone()).take(max).collect())
    }
    async fn session(&self, id: &TokenHash) -> Result<Option<Session>, StoreError> {
        Ok(self.book().sessions.get(id).cloned())
    }
    async fn sessions(&self, account: &Address) -> Result<Vec<Session>, StoreError> {
        let book = self.book();
        Ok(book.sessions.values().filter(|s| is_of(s, account)).cloned().collect())
    }
    async fn put_session(&self, session: &Session) -> Result<(), StoreError> {
        self.book().put_session(session.clone());
        Ok(())
    }
    async fn change_session(&self, old: &Session, new: &Session) -> Result<bool, StoreError> {
        let mut book = self.book();
        let same = book.sessions.get(&old.id) == Some(old);
        if same {
            book.put_session(new.clone());
        }
        Ok(same)
    }
    async fn touch_session(&self, id: &TokenHash, seen: Timestamp) -> Result<(), StoreError> {
        if let Some(session) = self.book().sessions.get_mut(id) {
            session.seen = session.seen.max(seen);
        }
        Ok(())
    }
    async fn remove_session(&self, id: &TokenHash) -> Result<(), StoreError> {
        self.book().sessions.remove(id);
        Ok(())
    }
    async fn expire_sessions(
        &self,
        before: Timestamp,
        _after: Option<TokenHash>,
        _max: usize,
    ) -> Result<Option<TokenHash>, StoreError> {
        self.book().sessions.retain(|_, session| session.seen >= before);
        Ok(None)
    }
}

/// True if a session is signed in at that account.
fn is_of(session: &Session, account: &Address) -> bool {
    session.account.as_ref().is_some_and(|named| named.address.same_mailbox(account))
}

#[async_trait]
impl NoteStore for MemoryStore {
    async fn put_note(&self, kind: NoteKind, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
        notes::check(key, &value)?;
        self.book().notes.insert((kind, key.to_owned()), value);
        Ok(())
    }
    async fn note(&self, kind: NoteKind, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.book().notes.get(&(kind, key.to_owned())).cloned())
    }
    async fn notes(
        &self,
        kind: NoteKind,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let book = self.book();
        let of_kind = book.notes.iter().filter(|((k, _), _)| *k == kind);
        let rest = of_kind.filter(|((_, key), _)| after.is_none_or(|after| key.as_str() > after));
        Ok(rest.map(|((_, key), value)| (key.clone(), value.clone())).take(max).collect())
    }
    async fn remove_note(&self, kind: NoteKind, key: &str) -> Result<(), StoreError> {
        self.book().notes.remove(&(kind, key.to_owned()));
        Ok(())
    }
}

#[async_trait]
impl AuditStore for MemoryStore {
    async fn append(&self, events: Vec<AuditEvent>) -> Result<(), StoreError> {
        let mut book = self.book();
        book.takes_mail()?;
        book.append_audit(events)
    }
    async fn events(
        &self,
        of: Option<&Address>,
        before: Option<u64>,
        max: usize,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        let (book, of) = (self.book(), of.map(Address::mailbox));
        let newest = book.audit.values().rev().filter(|r| before.is_none_or(|seq| r.seq < seq));
        let own = |record: &&AuditRecord| {
            of.is_none() || record.event.account.as_ref().map(Address::mailbox) == of
        };
        Ok(newest.filter(own).take(max).cloned().collect())
    }
    async fn chain(&self) -> Result<AuditChain, StoreError> {
        Ok(self.book().chain)
    }
    async fn records(&self, after: u64, max: usize) -> Result<Vec<AuditRecord>, StoreError> {
        let book = self.book();
        let rest = book.audit.values().filter(|record| record.seq > after);
        Ok(rest.take(max).cloned().collect())
    }
    async fn purge_events(
        &self,
        now: TrustedTime,
        age: SignedDuration,
        max: usize,
    ) -> Result<usize, StoreError> {
        let mut book = self.book();
        let mut ages = AuditAges::new(now, age);
        book.audit.values().take_while(|record| ages.next(record)).for_each(drop);
        let old: Vec<_> = book.audit.values().take(ages.over().min(max)).cloned().collect();
        for record in &old {
            book.audit.remove(&record.seq);
            book.chain.remove(record);
        }
        Ok(old.len())
    }
}
