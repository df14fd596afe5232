//! Grants, accounts and sessions in the book. Runs on the committer's thread.

use super::{
    book::{self, Changes},
    committer::State,
};
use crate::{
    mail::{Address, GrantId},
    seal::TokenHash,
    store::{Account, Grant, Proof, Session, StoreError},
};
use jiff::Timestamp;
use std::ops::Range;

/// Sessions looked at in one piece, to bound memory.
const SLICE: usize = 1000;

impl State {
    pub(super) fn grant_by_token(&self, token: &TokenHash) -> Result<Option<Grant>, StoreError> {
        let id = self.book.raw(&book::token(token))?.and_then(|id| book::grant_at(&id));
        id.map_or(Ok(None), |id| self.grant(id))
    }
    pub(super) fn grants_by_hash(
        &self,
        start: [u8; 6],
        max: usize,
    ) -> Result<Vec<Grant>, StoreError> {
        let found = self.book.page(book::under(book::tokens(start)), false, max)?;
        let ids = found.iter().filter_map(|(_, id)| book::grant_at(id));
        ids.filter_map(|id| self.grant(id).transpose()).collect()
    }
    pub(super) fn grant(&self, id: GrantId) -> Result<Option<Grant>, StoreError> {
        self.book.get(&book::grant(id))
    }
    pub(super) fn grants(
        &self,
        recipient: Option<&Address>,
        after: Option<GrantId>,
        max: usize,
    ) -> Result<Vec<Grant>, StoreError> {
        let mut range =
            book::under(recipient.map_or_else(|| vec![book::BY_TIME], book::grants_for));
        if let Some(id) = after {
            let Some(last) = self.grant(id)? else { return Ok(Vec::new()) };
            let end = recipient.map_or_else(
                || book::grant_by_time(last.sealed, id),
                |recipient| book::grant_for(recipient, last.sealed, id),
            );
            range.end = range.end.min(end);
        }
        self.grants_in(range, max)
    }
    pub(super) fn sent(
        &self,
        author: &Address,
        after: Option<GrantId>,
        max: usize,
    ) -> Result<Vec<Grant>, StoreError> {
        let mut range = book::under(book::sent_by(author));
        if let Some(id) = after {
            let Some(last) = self.grant(id)? else { return Ok(Vec::new()) };
            range.end = range.end.min(book::sent_at(author, last.sealed, id));
        }
        self.grants_in(range, max)
    }
    /// The last grants of an index, last first.
    fn grants_in(&self, range: Range<book::Key>, max: usize) -> Result<Vec<Grant>, StoreError> {
        let keys = self.book.page(range, true, max)?;
        let ids = keys.iter().filter_map(|(key, _)| book::grant_at(key));
        ids.filter_map(|id| self.grant(id).transpose()).collect()
    }
    pub(super) fn update_grant(&mut self, new: &Grant) -> Result<(), StoreError> {
        let old = self.grant(new.id)?.ok_or(StoreError::NotFound)?;
        let mut grant = old.clone();
        grant.update(new);
        let mut changes = Changes::default();
        changes.put(book::grant(grant.id), &grant)?;
        self.book.take(changes);
        self.tally.ungrant(&old);
        self.tally.grant(&grant);
        Ok(())
    }
    pub(super) fn change_proof(
        &mut self,
        grant: GrantId,
        old: Option<&Proof>,
        new: Proof,
    ) -> Result<bool, StoreError> {
        let mut grant = self.grant(grant)?.ok_or(StoreError::NotFound)?;
        if grant.proof.as_ref() != old {
            return Ok(false);
        }
        grant.proof = Some(new);
        let mut changes = Changes::default();
        changes.put(book::grant(grant.id), &grant)?;
        self.book.take(changes);
        Ok(true)
    }

    pub(super) fn account(&self, address: &Address) -> Result<Option<Account>, StoreError> {
        self.book.get(&book::account(address))
    }
    pub(super) fn accounts_like(&self, address: &Address) -> Result<Vec<Account>, StoreError> {
        let alike = book::under(book::accounts_like(address));
        let keys = self.book.page(alike, false, Account::LIKE)?;
        let accounts = keys.iter().map(|(key, _)| self.book.get(&book::account_at(key)));
        accounts.filter_map(Result::transpose).collect()
    }
    pub(super) fn account_of(&self, generation: [u8; 16]) -> Result<Option<Account>, StoreError> {
        let Some(address) = self.book.raw(&book::identity(generation))? else { return Ok(None) };
        let account: Option<Account> = self.book.get(&book::account_named(&address))?;
        Ok(account.filter(|account| account.generation == generation))
    }
    pub(super) fn put_account(&mut self, account: &Account) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        if let Some(old) = self.account(&account.address)? {
            changes.remove(book::identity(old.generation));
        }
        let address = account.address.to_string().into_bytes();
        changes.put_raw(book::identity(account.generation), address)?;
        changes.put(book::account(&account.address), account)?;
        changes.put_raw(book::account_like(&account.address), Vec::new())?;
        self.book.take(changes);
        Ok(())
    }
    pub(super) fn change_account(
        &mut self,
        old: Option<&Account>,
        new: &Account,
    ) -> Result<bool, StoreError> {
        let same = self.account(&new.address)?.as_ref() == old;
        if same {
            self.put_account(new)?;
        }
        Ok(same)
    }
    pub(super) fn remove_account(
        &mut self,
        address: &Address,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        self.remove_sessions(Some(address), None, None)?;
        let Some(account) = self.account(address)? else { return Ok(false) };
        let mut changes = Changes::default();
        changes.remove(book::identity(account.generation));
        changes.remove(book::account(address));
        changes.remove(book::account_like(address));
        changes.put(book::vacated(address), &at)?;
        self.book.take(changes);
        Ok(true)
    }
    pub(super) fn vacated(&self, address: &Address) -> Result<Option<Timestamp>, StoreError> {
        self.book.get(&book::vacated(address))
    }
    pub(super) fn accounts(
        &self,
        after: Option<&Address>,
        max: usize,
    ) -> Result<Vec<Account>, StoreError> {
        let mut range = book::under(vec![book::ACCOUNTS]);
        if let Some(address) = after {
            range.start = book::after(book::account(address));
        }
        self.book.page(range, false, max)?.iter().map(|(_, value)| book::decode(value)).collect()
    }

    pub(super) fn session(&self, id: &TokenHash) -> Result<Option<Session>, StoreError> {
        self.book.get(&book::session(id))
    }
    pub(super) fn sessions(
        &self,
        account: &Address,
        max: usize,
    ) -> Result<Vec<Session>, StoreError> {
        let keys = self.book.page(book::under(book::sessions_of(account)), false, max)?;
        let sessions = keys.iter().filter_map(|(key, _)| book::session_at(key));
        sessions.filter_map(|id| self.session(&id).transpose()).collect()
    }
    pub(super) fn put_session(&mut self, session: &Session) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        changes.put(book::session(&session.id), session)?;
        if let Some((address, _)) = &session.account {
            changes.put_raw(book::session_of(address, &session.id), Vec::new())?;
        }
        self.book.take(changes);
        Ok(())
    }
    pub(super) fn touch_session(
        &mut self,
        id: &TokenHash,
        seen: Timestamp,
    ) -> Result<(), StoreError> {
        match self.session(id)? {
            Some(session) if session.seen < seen => self.put_session(&Session { seen, ..session }),
            Some(_) | None => Ok(()),
        }
    }
    pub(super) fn remove_session(&mut self, id: &TokenHash) -> Result<(), StoreError> {
        let Some(session) = self.session(id)? else { return Ok(()) };
        let mut changes = Changes::default();
        forget(&mut changes, &session);
        self.book.take(changes);
        Ok(())
    }
    pub(super) fn remove_sessions(
        &mut self,
        account: Option<&Address>,
        keep: Option<&TokenHash>,
        before: Option<Timestamp>,
    ) -> Result<usize, StoreError> {
        let mut range = book::under(vec![book::SESSIONS]);
        let mut removed = 0;
        loop {
            let pairs = self.book.page(range.clone(), false, SLICE)?;
            let Some((last, _)) = pairs.last() else { return Ok(removed) };
            range.start = book::after(last.clone());
            let mut changes = Changes::default();
            for (_, value) in pairs {
                let session: Session = book::decode(&value)?;
                if session.ends_with(account, before) && keep != Some(&session.id) {
                    forget(&mut changes, &session);
                    removed += 1;
                }
            }
            self.book.take(changes);
        }
    }
}

/// A session goes with the row that leads to it.
fn forget(changes: &mut Changes, session: &Session) {
    changes.remove(book::session(&session.id));
    if let Some((address, _)) = &session.account {
        changes.remove(book::session_of(address, &session.id));
    }
}
