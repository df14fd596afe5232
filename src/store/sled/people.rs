//! Grants, accounts and sessions in the book. Changes run on the committer's thread.

use super::{
    book::{self, Changes},
    committer::State,
    queue::{put_grant, remove_grant},
    snapshot::Snapshot,
};
use crate::{
    mail::{Address, GrantId},
    seal::TokenHash,
    store::{
        Account, AccountChange, AccountMove, AuditEvent, Grant, Moved, NewMessage, ProofChange,
        Session, StoreError,
    },
};
use jiff::Timestamp;
use std::ops::Range;

impl Snapshot {
    pub(super) fn grant_by_token(&self, token: &TokenHash) -> Result<Option<Grant>, StoreError> {
        let id = self.raw(&book::token(token))?.and_then(|id| book::grant_at(&id));
        id.map_or(Ok(None), |id| self.grant(id))
    }
    pub(super) fn grants_by_hash(
        &self,
        start: [u8; 6],
        max: usize,
    ) -> Result<Vec<Grant>, StoreError> {
        let found = self.page(book::under(book::tokens(start)), false, max)?;
        let ids = found.iter().filter_map(|(_, id)| book::grant_at(id));
        ids.filter_map(|id| self.grant(id).transpose()).collect()
    }
    pub(super) fn grant(&self, id: GrantId) -> Result<Option<Grant>, StoreError> {
        self.get(&book::grant(id))
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
        let keys = self.page(range, true, max)?;
        let ids = keys.iter().filter_map(|(key, _)| book::grant_at(key));
        ids.filter_map(|id| self.grant(id).transpose()).collect()
    }
    pub(super) fn account(&self, address: &Address) -> Result<Option<Account>, StoreError> {
        self.get(&book::account(address))
    }
    pub(super) fn account_of(&self, generation: [u8; 16]) -> Result<Option<Account>, StoreError> {
        let Some(mailbox) = self.raw(&book::identity(generation))? else { return Ok(None) };
        let account: Option<Account> = self.get(&book::account_named(&mailbox))?;
        Ok(account.filter(|account| account.generation == generation))
    }
    pub(super) fn vacated(&self, address: &Address) -> Result<Option<Timestamp>, StoreError> {
        self.get(&book::vacated(address))
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
        self.page(range, false, max)?.iter().map(|(_, value)| book::decode(value)).collect()
    }
    pub(super) fn session(&self, id: &TokenHash) -> Result<Option<Session>, StoreError> {
        self.get(&book::session(id))
    }
    pub(super) fn sessions(&self, account: &Address) -> Result<Vec<Session>, StoreError> {
        let keys = self.page(book::under(book::sessions_of(account)), false, usize::MAX)?;
        let sessions = keys.iter().filter_map(|(key, _)| book::session_at(key));
        sessions.filter_map(|id| self.session(&id).transpose()).collect()
    }
}
impl State {
    pub(super) fn update_grant(&mut self, new: &Grant) -> Result<(), StoreError> {
        let old = self.book.grant(new.id)?.ok_or(StoreError::NotFound)?;
        let mut grant = old.clone();
        grant.update(new);
        let mut changes = Changes::default();
        changes.put(book::grant(grant.id), &grant)?;
        let bound = self.bind_copies(grant.clone(), &mut changes)?;
        self.book.take(changes);
        self.exchange_grants(&[(old, grant)]);
        self.exchange_grants(&bound);
        Ok(())
    }
    /// Gathers what a change of a grant means for copies that come from it, and for copies of
    /// those: each as it was, and as it will be.
    pub(super) fn bind_copies(
        &self,
        origin: Grant,
        changes: &mut Changes,
    ) -> Result<Vec<(Grant, Grant)>, StoreError> {
        let (mut origins, mut bound) = (vec![origin], Vec::new());
        while let Some(origin) = origins.pop() {
            let keys =
                self.book.page(book::under(book::copies_of(origin.id)), false, usize::MAX)?;
            for id in keys.iter().filter_map(|(key, _)| book::grant_at(key)) {
                let Some(old) = self.book.grant(id)? else { continue };
                let mut copy = old.clone();
                if copy.bound_by(Some(&origin)) {
                    changes.put(book::grant(id), &copy)?;
                    origins.push(copy.clone());
                    bound.push((old, copy));
                }
            }
        }
        Ok(bound)
    }
    /// Counts grants out as they were, and in as they are.
    pub(super) fn exchange_grants(&mut self, changed: &[(Grant, Grant)]) {
        for (old, new) in changed {
            self.tally.ungrant(old);
            self.tally.grant(new);
        }
    }
    pub(super) fn mark_opened(&mut self, id: GrantId, at: Timestamp) -> Result<bool, StoreError> {
        let grant = self.book.grant(id)?.ok_or(StoreError::NotFound)?;
        let first = grant.can_be_recalled();
        if first {
            self.update_grant(&Grant { opened: Some(at), ..grant })?;
        }
        Ok(first)
    }
    pub(super) fn change_proof(&mut self, change: ProofChange) -> Result<bool, StoreError> {
        let ProofChange { grant, old, new, mail, events } = change;
        let mut grant = self.book.grant(grant)?.ok_or(StoreError::NotFound)?;
        if grant.proof != old {
            return Ok(false);
        }
        grant.proof = Some(new);
        let mut changes = Changes::default();
        changes.put(book::grant(grant.id), &grant)?;
        self.commit_with(changes, mail, events)?;
        Ok(true)
    }
    /// Commits changes together with mail and records of them.
    fn commit_with(
        &mut self,
        mut changes: Changes,
        mail: Vec<NewMessage>,
        events: Vec<AuditEvent>,
    ) -> Result<(), StoreError> {
        let audit = self.audit_rows(events, &mut changes)?;
        let mail = self.spawn(mail, &mut changes)?;
        // From here on nothing fails.
        self.book.take(changes);
        self.audit = audit;
        mail.iter().for_each(|ready| self.enter(ready));
        Ok(())
    }

    pub(super) fn change_account(&mut self, change: AccountChange) -> Result<bool, StoreError> {
        let AccountChange { old, new, session, ends, mail, events } = change;
        if self.book.account(&new.address)? != old {
            return Ok(false);
        }
        let mut changes = Changes::default();
        put_account(old.as_ref(), &new, &mut changes)?;
        if old.is_some_and(|old| old.epoch != new.epoch) {
            self.end_sessions(&new, &mut changes)?;
        }
        if let Some(id) = ends {
            self.end_session(&id, &mut changes)?;
        }
        if let Some(session) = &session {
            self.gather_session(session, &mut changes)?;
        }
        self.commit_with(changes, mail, events)?;
        Ok(true)
    }
    pub(super) fn move_account(&mut self, change: AccountMove) -> Result<Moved, StoreError> {
        let old = &change.account;
        if self.book.account(&old.address)?.as_ref() != Some(old) {
            return Ok(Moved::Changed);
        }
        if self.book.account(&change.to)?.is_some() {
            return Ok(Moved::Taken);
        }
        let mut grants = Vec::new();
        for index in [book::grants_for(&old.address), book::sent_by(&old.address)] {
            let found = self.book.grants_in(book::under(index), AccountMove::GRANTS + 1)?;
            if found.len() > AccountMove::GRANTS {
                return Ok(Moved::TooMany);
            }
            grants.extend(found.into_iter().filter(|grant| old.holds(grant)));
        }
        let mut changes = Changes::default();
        for grant in &grants {
            remove_grant(grant, &mut changes);
            let moved = Some(Box::new((change.to.clone(), change.at)));
            put_grant(&Grant { moved, ..grant.clone() }, &mut changes)?;
        }
        leave_address(old, change.at, &mut changes)?;
        put_account(None, &change.moved(self.book.vacated(&change.to)?), &mut changes)?;
        let ended = self.book.sessions(&old.address)?;
        ended.iter().for_each(|session| forget(&mut changes, session));
        self.commit_with(changes, change.mail, change.events)?;
        Ok(Moved::Done { grants: grants.len(), sessions: ended.len() })
    }
    pub(super) fn remove_account(
        &mut self,
        address: &Address,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let Some(account) = self.book.account(address)? else { return Ok(false) };
        let mut changes = Changes::default();
        for session in self.book.sessions(address)? {
            forget(&mut changes, &session);
        }
        leave_address(&account, at, &mut changes)?;
        self.book.take(changes);
        Ok(true)
    }

    pub(super) fn put_session(&mut self, session: &Session) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        self.gather_session(session, &mut changes)?;
        self.book.take(changes);
        Ok(())
    }
    pub(super) fn change_session(
        &mut self,
        old: &Session,
        new: &Session,
    ) -> Result<bool, StoreError> {
        let same = self.book.session(&old.id)?.as_ref() == Some(old);
        if same {
            self.put_session(new)?;
        }
        Ok(same)
    }
    pub(super) fn touch_session(
        &mut self,
        id: &TokenHash,
        seen: Timestamp,
    ) -> Result<(), StoreError> {
        match self.book.session(id)? {
            Some(session) if session.seen < seen => self.put_session(&Session { seen, ..session }),
            Some(_) | None => Ok(()),
        }
    }
    pub(super) fn remove_session(&mut self, id: &TokenHash) -> Result<(), StoreError> {
        let mut changes = Changes::default();
        self.end_session(id, &mut changes)?;
        self.book.take(changes);
        Ok(())
    }
    pub(super) fn expire_sessions(
        &mut self,
        before: Timestamp,
        after: Option<TokenHash>,
        max: usize,
    ) -> Result<Option<TokenHash>, StoreError> {
        let mut range = book::under(vec![book::SESSIONS]);
        if let Some(id) = after {
            range.start = book::after(book::session(&id));
        }
        let pairs = self.book.page(range, false, max)?;
        let mut changes = Changes::default();
        for (_, value) in &pairs {
            let session: Session = book::decode(value)?;
            if session.seen < before {
                forget(&mut changes, &session);
            }
        }
        self.book.take(changes);
        let last = pairs.last().filter(|_| pairs.len() == max);
        Ok(last.and_then(|(key, _)| book::session_at(key)))
    }

    /// Gathers a session; one more than an account may have ends its oldest.
    fn gather_session(&self, session: &Session, changes: &mut Changes) -> Result<(), StoreError> {
        changes.put(book::session(&session.id), session)?;
        let Some(named) = &session.account else { return Ok(()) };
        changes.put_raw(book::session_of(&named.address, &session.id), Vec::new())?;
        let known = self.book.has(&book::session(&session.id))?;
        if known {
            return Ok(());
        }
        let mut others = self.book.sessions(&named.address)?;
        others.sort_by_key(|other| other.created);
        let surplus = (others.len() + 1).saturating_sub(Account::SESSIONS);
        others.iter().take(surplus).for_each(|oldest| forget(changes, oldest));
        Ok(())
    }
    fn end_session(&self, id: &TokenHash, changes: &mut Changes) -> Result<(), StoreError> {
        if let Some(session) = self.book.session(id)? {
            forget(changes, &session);
        }
        Ok(())
    }
    /// Gathers the end of all sessions that are not of the account's present epoch.
    fn end_sessions(&self, account: &Account, changes: &mut Changes) -> Result<(), StoreError> {
        for session in self.book.sessions(&account.address)? {
            if !session.account.as_ref().is_some_and(|named| account.is(named)) {
                forget(changes, &session);
            }
        }
        Ok(())
    }
}

/// Gathers an account with the row that leads from its identity to it.
fn put_account(
    old: Option<&Account>,
    new: &Account,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    if let Some(old) = old.filter(|old| old.generation != new.generation) {
        changes.remove(book::identity(old.generation));
    }
    changes.put_raw(book::identity(new.generation), new.address.mailbox().into_bytes())?;
    changes.put(book::account(&new.address), new)
}
/// An address has no account any more, since then.
fn leave_address(
    account: &Account,
    at: Timestamp,
    changes: &mut Changes,
) -> Result<(), StoreError> {
    changes.remove(book::identity(account.generation));
    changes.remove(book::account(&account.address));
    changes.put(book::vacated(&account.address), &at)
}
/// A session goes with the row that leads to it.
fn forget(changes: &mut Changes, session: &Session) {
    changes.remove(book::session(&session.id));
    if let Some(named) = &session.account {
        changes.remove(book::session_of(&named.address, &session.id));
    }
}
