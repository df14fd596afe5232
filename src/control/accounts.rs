//! What the help desk does at recipients' accounts.

use super::{
    Answer, Refusal,
    server::{Control, MAX_PAGE, no, ok, page, unavailable},
    view::{AccountDone, AccountLife, AccountMoved, AccountView, SessionView},
};
use crate::{
    mail::Address,
    store::{Account, AccountMove, AuditDetail, AuditKind, Grant, GrantKind, GrantState, Moved},
    vault::{Change, VaultError},
};
use serde::{Deserialize, Serialize};

/// Sessions shown at most.
const SESSIONS: usize = 100;
/// Grants looked at in one piece.
const GRANTS: usize = 500;

/// What is to be done with an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccountOrder {
    /// Only shown.
    Show,
    /// Nobody signs in; sessions end.
    Lock,
    /// The owner may sign in again.
    Unlock,
    /// Password and second factor count no more; sessions end, and the owner is told how to come in
    /// again.
    Reset,
    /// It is no more. What is kept for it ends: who registers the mailbox anew is somebody else.
    Remove,
}

impl Control {
    pub(super) async fn account_list(
        &self,
        after: Option<String>,
        max: usize,
    ) -> Result<Answer, Answer> {
        let after = after.map(|text| text.parse::<Address>()).transpose();
        let after = after.map_err(|error| no(Refusal::Usage, error.to_string()))?;
        let max = max.clamp(1, MAX_PAGE);
        let accounts = self.people.accounts(after.as_ref(), max).await.map_err(unavailable)?;
        let next = accounts.last().filter(|_| accounts.len() == max);
        let next = next.map(|account| account.address.to_string());
        page(accounts.iter().map(AccountView::from), next)
    }

    pub(super) async fn account(
        &self,
        order: AccountOrder,
        address: &str,
    ) -> Result<Answer, Answer> {
        let account = self.account_named(address).await?;
        let who = &account.address;
        let (changed, ends) = match order {
            AccountOrder::Show => return ok(&self.account_life(&account).await?),
            AccountOrder::Lock => (self.set_locked(&account, true).await?, true),
            AccountOrder::Unlock => (self.set_locked(&account, false).await?, false),
            AccountOrder::Reset => (self.clear(&account).await?, true),
            AccountOrder::Remove => {
                // Counted before they go with the account.
                let sessions = self.end_sessions(who).await?;
                let removed = self.people.remove_account(who, self.clock.now()).await;
                let changed = removed.map_err(unavailable)?;
                self.end_grants(&account).await?;
                self.record_order(order, &account).await;
                return done(&account, changed, sessions);
            }
        };
        let sessions = if ends { self.end_sessions(who).await? } else { 0 };
        if order == AccountOrder::Reset {
            self.vault.tell(who, Change::Cleared).await;
        }
        self.record_order(order, &account).await;
        done(&account, changed, sessions)
    }

    /// The account gets another address. Its owner proves the new mailbox on another way.
    pub(super) async fn account_move(&self, address: &str, to: &str) -> Result<Answer, Answer> {
        let account = self.account_named(address).await?;
        let to: Address =
            to.parse().map_err(|error| no(Refusal::Usage, format!("{to}: {error}")))?;
        let event = |whose: &Address, detail| {
            self.audit.event(AuditKind::AccountMoved).account(whose).detail(detail)
        };
        let events = vec![
            event(&account.address, AuditDetail::To(to.clone())),
            event(&to, AuditDetail::From(account.address.clone())),
        ];
        let moved = self.vault.move_account(&account, &to, events.clone()).await;
        let address = account.address;
        match moved.map_err(failed)? {
            Moved::Done { grants, sessions } => {
                events.iter().for_each(|event| self.audit.committed(event));
                ok(&AccountMoved { address, to, messages: grants, sessions })
            }
            Moved::Taken => Err(no(Refusal::NotFound, format!("{to} has an account already"))),
            Moved::Changed => {
                Err(no(Refusal::TryAgain, format!("{address} was changed meanwhile")))
            }
            Moved::TooMany => {
                let most = AccountMove::GRANTS;
                Err(no(Refusal::NotFound, format!("{address} holds more than {most} messages")))
            }
        }
    }

    async fn record_order(&self, order: AccountOrder, account: &Account) {
        let kind = match order {
            AccountOrder::Show => return,
            AccountOrder::Lock => AuditKind::AccountLocked,
            AccountOrder::Unlock => AuditKind::AccountUnlocked,
            AccountOrder::Reset => AuditKind::AccountReset,
            AccountOrder::Remove => AuditKind::AccountRemoved,
        };
        self.audit.record(self.audit.event(kind).account(&account.address)).await;
    }

    /// As typed, or else the one account that it can mean.
    async fn account_named(&self, text: &str) -> Result<Account, Answer> {
        let none = || no(Refusal::NotFound, format!("no account {text}"));
        let address: Address = text.parse().map_err(|_| none())?;
        if let Some(account) = self.people.account(&address).await.map_err(unavailable)? {
            return Ok(account);
        }
        let mut alike = self.people.accounts_like(&address).await.map_err(unavailable)?;
        alike.pop().filter(|_| alike.is_empty()).ok_or_else(none)
    }

    async fn set_locked(&self, account: &Account, locked: bool) -> Result<bool, Answer> {
        let set = |account: &mut Account| {
            let changed = account.locked != locked;
            account.locked = locked;
            changed
        };
        let generation = Some(account.generation);
        let changed = self.vault.change_account(&account.address, generation, set).await;
        Ok(changed.map_err(failed)?.is_some())
    }

    async fn clear(&self, account: &Account) -> Result<bool, Answer> {
        let clear = |account: &mut Account| {
            account.password.clear();
            account.second = None;
            account.passkeys.clear();
            true
        };
        let generation = Some(account.generation);
        let changed = self.vault.change_account(&account.address, generation, clear).await;
        Ok(changed.map_err(failed)?.is_some())
    }

    async fn end_sessions(&self, address: &Address) -> Result<u64, Answer> {
        let ended = self.people.remove_sessions(Some(address), None, None).await;
        Ok(u64::try_from(ended.map_err(unavailable)?).unwrap_or(u64::MAX))
    }

    /// Nobody may open them any more, nor the copies of what was written: their keys go with the next sweep.
    async fn end_grants(&self, account: &Account) -> Result<(), Answer> {
        let who = &account.address;
        for kind in [GrantKind::Received, GrantKind::Sent] {
            let mut after = None;
            loop {
                let grants = match kind {
                    GrantKind::Received => self.people.grants(Some(who), after, GRANTS).await,
                    GrantKind::Sent => self.people.sent(who, after, GRANTS).await,
                };
                let grants = grants.map_err(unavailable)?;
                let Some(last) = grants.last() else { break };
                after = Some(last.id);
                let own = grants.iter().filter(|grant| account.holds(grant));
                let ids: Vec<_> = own.map(|grant| grant.id).collect();
                self.vault.withdraw(&ids).await.map_err(failed)?;
            }
        }
        Ok(())
    }

    async fn account_life(&self, account: &Account) -> Result<AccountLife, Answer> {
        let sessions = self.people.sessions(&account.address, SESSIONS).await;
        let mut sessions = sessions.map_err(unavailable)?;
        sessions.sort_by_key(|session| session.created);
        let (mut waiting, mut opened, mut after) = (0_u64, 0_u64, None);
        loop {
            let grants = self.people.grants(Some(&account.address), after, GRANTS).await;
            let grants = grants.map_err(unavailable)?;
            let Some(last) = grants.last() else { break };
            after = Some(last.id);
            let live = |grant: &&Grant| grant.state == GrantState::Live && account.holds(grant);
            for grant in grants.iter().filter(live) {
                let count = if grant.opened.is_some() { &mut opened } else { &mut waiting };
                *count = count.saturating_add(1);
            }
        }
        Ok(AccountLife {
            account: AccountView::from(account),
            recovery_codes: account.second_factor().map_or(0, |factor| factor.recovery.len()),
            waiting,
            opened,
            sessions: sessions.iter().map(SessionView::from).collect(),
        })
    }
}

fn done(account: &Account, changed: bool, sessions: u64) -> Result<Answer, Answer> {
    ok(&AccountDone { address: account.address.clone(), changed, sessions })
}

fn failed(error: VaultError) -> Answer {
    match error {
        VaultError::Store(error) => unavailable(error),
        VaultError::Seal(_)
        | VaultError::Ring(_)
        | VaultError::Gone
        | VaultError::Template(_)
        | VaultError::Refused(_) => no(Refusal::TryAgain, error.to_string()),
    }
}
