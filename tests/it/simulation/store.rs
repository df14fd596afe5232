//! The store under test conditions: every call passes by the faults before it reaches the memory,
//! and again on its way back.

use super::{
    faults::{Faults, Op, Tear},
    ledger::{Ledger, Settled, named},
};
use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use restante::{
    clock::TrustedTime,
    mail::{Address, GrantId, QueueId},
    seal::{TokenHash, WrappedKey},
    store::{
        Account, AccountChange, AccountMove, Ask, Attempt, BodyStore, BodyWriter, Claimed, Doomed,
        Filter, Grant, Health, Locator, MessageRow, Moved, NewMessage, NoteKind, NoteStore, Order,
        Ordered, PeopleStore, ProofChange, QueueStore, RecipientRow, RecipientState, Session,
        Settle, StoreError, Totals,
        body::{Aside, BodyReader},
        memory::MemoryStore,
    },
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};
use tokio::sync::Notify;

/// Faults before a memory.
#[derive(Debug)]
pub struct FaultyStore {
    pub memory: MemoryStore,
    pub faults: Arc<Faults>,
    ledger: Arc<Ledger>,
    /// How long mail is tried, to hold against what expires.
    give_up: SignedDuration,
    /// Leases die with the process that holds them.
    leases: Mutex<BTreeSet<u64>>,
}

impl FaultyStore {
    pub fn new(faults: Arc<Faults>, ledger: Arc<Ledger>, give_up: SignedDuration) -> Self {
        let memory = MemoryStore::new();
        Self { memory, faults, ledger, give_up, leases: Mutex::default() }
    }

    /// The process is gone; another opens the store.
    pub async fn reopen(&self) {
        self.faults.mend();
        let leases = std::mem::take(&mut *self.leases.lock().expect("unbroken"));
        for token in leases {
            self.memory.release(token).await.expect("memory");
        }
    }

    /// Doubt is never an end: nothing expires before its time, by what the clock has ever said.
    async fn look_at(&self, settle: &Settle) {
        let Ok(Some((row, rows))) = self.memory.message(settle.id).await else { return };
        for outcome in &settle.outcomes {
            let RecipientState::Expired { at } = outcome.state else { continue };
            if self.faults.furthest() < row.facts.arrived + self.give_up {
                let to = rows.iter().find(|r| r.index == outcome.index).map(|r| &r.address);
                self.ledger.wrong(format!("{to:?} of {} expired at {at}", settle.id));
            }
        }
    }
}

#[async_trait]
impl QueueStore for FaultyStore {
    async fn accept(&self, message: NewMessage) -> Result<(), StoreError> {
        let call = async {
            let (id, label, to) = named(&message);
            self.memory.accept(message).await?;
            self.ledger.stored(id, label, to);
            Ok(())
        };
        self.faults.through(Op::Accept, call).await
    }
    async fn claim(&self, ask: Ask) -> Result<Claimed, StoreError> {
        let call = async {
            let claimed = self.memory.claim(ask).await?;
            let tokens = claimed.claims.iter().map(|c| c.token);
            self.leases.lock().expect("unbroken").extend(tokens);
            Ok(claimed)
        };
        self.faults.through(Op::Claim, call).await
    }
    fn endings(&self) -> Arc<Notify> {
        self.memory.endings()
    }
    fn arrivals(&self) -> Arc<Notify> {
        self.memory.arrivals()
    }
    async fn settle(&self, settle: Settle) -> Result<(), StoreError> {
        let call = async {
            self.look_at(&settle).await;
            let settled = Settled::of(&settle);
            self.memory.settle(settle).await?;
            self.ledger.settled(&settled);
            Ok(())
        };
        self.faults.through(Op::Settle, call).await
    }
    async fn release(&self, token: u64) -> Result<(), StoreError> {
        self.faults.through(Op::Release, self.memory.release(token)).await
    }
    async fn order(&self, order: Order, now: Timestamp) -> Result<Ordered, StoreError> {
        self.faults.through(Op::Order, self.memory.order(order, now)).await
    }
    async fn message(
        &self,
        id: QueueId,
    ) -> Result<Option<(MessageRow, Vec<RecipientRow>)>, StoreError> {
        self.faults.through(Op::Message, self.memory.message(id)).await
    }
    async fn attempts(&self, id: QueueId, index: u16) -> Result<Vec<Attempt>, StoreError> {
        self.memory.attempts(id, index).await
    }
    async fn list(
        &self,
        filter: &Filter,
        after: Option<QueueId>,
        max: usize,
    ) -> Result<Vec<(MessageRow, Vec<RecipientRow>)>, StoreError> {
        self.memory.list(filter, after, max).await
    }
    async fn totals(&self) -> Result<Totals, StoreError> {
        self.memory.totals().await
    }
    async fn doomed(&self, now: Option<TrustedTime>, max: usize) -> Result<Doomed, StoreError> {
        self.faults.through(Op::Doomed, self.memory.doomed(now, max)).await
    }
    async fn checkpoint(&self) -> Result<(), StoreError> {
        self.faults.through(Op::Checkpoint, self.memory.checkpoint()).await
    }
    async fn forget_body(&self, id: QueueId) -> Result<(), StoreError> {
        self.faults.through(Op::ForgetBody, self.memory.forget_body(id)).await
    }
    async fn purge(
        &self,
        now: TrustedTime,
        age: SignedDuration,
        max: usize,
    ) -> Result<usize, StoreError> {
        self.faults.through(Op::Purge, self.memory.purge(now, age, max)).await
    }
    fn health(&self) -> Health {
        self.memory.health()
    }
}

#[async_trait]
impl BodyStore for FaultyStore {
    async fn create(&self, id: QueueId) -> Result<Box<dyn BodyWriter>, StoreError> {
        let writer = self.faults.through(Op::Create, self.memory.create(id)).await?;
        Ok(Box::new(FaultyWriter { writer, faults: Arc::clone(&self.faults) }))
    }
    async fn open(
        &self,
        id: QueueId,
        at: &Locator,
        range: std::ops::Range<u64>,
    ) -> Result<Box<dyn BodyReader>, StoreError> {
        let reader = self.faults.through(Op::Open, self.memory.open(id, at, range)).await?;
        let (tear, faults) = (self.faults.tear(), Arc::clone(&self.faults));
        Ok(Box::new(TornReader { reader, tear, held: None, faults }))
    }
    async fn aside(&self, id: QueueId) -> Result<Box<dyn Aside>, StoreError> {
        self.memory.aside(id).await
    }
    async fn rewrap(
        &self,
        id: QueueId,
        at: &Locator,
        slot: usize,
        key: &WrappedKey,
    ) -> Result<bool, StoreError> {
        self.memory.rewrap(id, at, slot, key).await
    }
    async fn delete(&self, id: QueueId, at: &Locator) -> Result<(), StoreError> {
        self.faults.through(Op::Delete, self.memory.delete(id, at)).await
    }
}

struct FaultyWriter {
    writer: Box<dyn BodyWriter>,
    faults: Arc<Faults>,
}

#[async_trait]
impl BodyWriter for FaultyWriter {
    async fn write(&mut self, sealed: Bytes) -> Result<(), StoreError> {
        self.faults.through(Op::Write, self.writer.write(sealed)).await
    }
    async fn seal(self: Box<Self>) -> Result<Locator, StoreError> {
        let Self { writer, faults } = *self;
        faults.through(Op::Seal, writer.seal()).await
    }
}

/// Sealed bytes that are not as they were laid down. What lies behind the beginning comes as a piece of
/// its own: a reader that goes no further is not misled.
struct TornReader {
    reader: Box<dyn BodyReader>,
    tear: Option<Tear>,
    held: Option<Bytes>,
    faults: Arc<Faults>,
}

#[async_trait]
impl BodyReader for TornReader {
    async fn next(&mut self) -> Result<Bytes, StoreError> {
        let held = self.held.take();
        let begins = held.is_none();
        let mut piece = match held {
            Some(held) => held,
            None => self.reader.next().await?,
        };
        let Some(tear) = self.tear.filter(|_| !piece.is_empty()) else { return Ok(piece) };
        if begins && tear != Tear::Nothing {
            let head = piece.split_to(piece.len() / 2);
            self.held = Some(piece);
            return Ok(head);
        }
        self.faults.misled();
        self.tear = Some(Tear::Nothing).filter(|_| tear != Tear::Flip);
        Ok(match tear {
            Tear::Short => piece.slice(..piece.len() - 1),
            Tear::Nothing => Bytes::new(),
            Tear::Flip => {
                let mut bytes = piece.to_vec();
                let at = bytes.len() / 2;
                bytes[at] ^= 1;
                bytes.into()
            }
        })
    }
}

#[async_trait]
impl NoteStore for FaultyStore {
    async fn put_note(&self, kind: NoteKind, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
        self.faults.through(Op::PutNote, self.memory.put_note(kind, key, value)).await
    }
    async fn note(&self, kind: NoteKind, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.faults.through(Op::Note, self.memory.note(kind, key)).await
    }
    async fn notes(
        &self,
        kind: NoteKind,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.memory.notes(kind, after, max).await
    }
    async fn remove_note(&self, kind: NoteKind, key: &str) -> Result<(), StoreError> {
        self.faults.through(Op::RemoveNote, self.memory.remove_note(kind, key)).await
    }
}

#[async_trait]
impl PeopleStore for FaultyStore {
    async fn grant_by_token(&self, token: &TokenHash) -> Result<Option<Grant>, StoreError> {
        self.memory.grant_by_token(token).await
    }
    async fn grant(&self, id: GrantId) -> Result<Option<Grant>, StoreError> {
        self.faults.through(Op::Grant, self.memory.grant(id)).await
    }
    async fn grants(
        &self,
        recipient: Option<&Address>,
        after: Option<GrantId>,
        max: usize,
    ) -> Result<Vec<Grant>, StoreError> {
        self.memory.grants(recipient, after, max).await
    }
    async fn sent(
        &self,
        author: &Address,
        after: Option<GrantId>,
        max: usize,
    ) -> Result<Vec<Grant>, StoreError> {
        self.memory.sent(author, after, max).await
    }
    async fn update_grant(&self, grant: &Grant) -> Result<(), StoreError> {
        self.faults.through(Op::UpdateGrant, self.memory.update_grant(grant)).await
    }
    async fn mark_opened(&self, id: GrantId, at: Timestamp) -> Result<bool, StoreError> {
        self.faults.through(Op::UpdateGrant, self.memory.mark_opened(id, at)).await
    }
    async fn change_proof(&self, change: ProofChange) -> Result<bool, StoreError> {
        self.memory.change_proof(change).await
    }
    async fn account(&self, address: &Address) -> Result<Option<Account>, StoreError> {
        self.memory.account(address).await
    }
    async fn move_account(&self, change: AccountMove) -> Result<Moved, StoreError> {
        self.memory.move_account(change).await
    }
    async fn remove_account(&self, address: &Address, at: Timestamp) -> Result<bool, StoreError> {
        self.memory.remove_account(address, at).await
    }
    async fn vacated(&self, address: &Address) -> Result<Option<Timestamp>, StoreError> {
        self.memory.vacated(address).await
    }
    async fn grants_by_hash(&self, start: [u8; 6], max: usize) -> Result<Vec<Grant>, StoreError> {
        self.memory.grants_by_hash(start, max).await
    }
    async fn account_of(&self, generation: [u8; 16]) -> Result<Option<Account>, StoreError> {
        self.memory.account_of(generation).await
    }
    async fn change_account(&self, change: AccountChange) -> Result<bool, StoreError> {
        self.memory.change_account(change).await
    }
    async fn sessions(&self, account: &Address) -> Result<Vec<Session>, StoreError> {
        self.memory.sessions(account).await
    }
    async fn change_session(&self, old: &Session, new: &Session) -> Result<bool, StoreError> {
        self.memory.change_session(old, new).await
    }
    async fn accounts(
        &self,
        after: Option<&Address>,
        max: usize,
    ) -> Result<Vec<Account>, StoreError> {
        self.memory.accounts(after, max).await
    }
    async fn session(&self, id: &TokenHash) -> Result<Option<Session>, StoreError> {
        self.memory.session(id).await
    }
    async fn put_session(&self, session: &Session) -> Result<(), StoreError> {
        self.memory.put_session(session).await
    }
    async fn touch_session(&self, id: &TokenHash, seen: Timestamp) -> Result<(), StoreError> {
        self.memory.touch_session(id, seen).await
    }
    async fn remove_session(&self, id: &TokenHash) -> Result<(), StoreError> {
        self.memory.remove_session(id).await
    }
    async fn expire_sessions(
        &self,
        before: Timestamp,
        after: Option<TokenHash>,
        max: usize,
    ) -> Result<Option<TokenHash>, StoreError> {
        self.memory.expire_sessions(before, after, max).await
    }
}
