//! What the help desk does at recipients' accounts.

use super::{
    Answer, Refusal,
    server::{Control, MAX_PAGE, no, ok, page, unavailable},
    view::{AccountDone, AccountLife, AccountMoved, AccountView, SessionView},
};
use crate::{
    identity::{Change, Event, IdentityError},
    mail::Address,
    store::{Account, AccountMove, AuditDetail, AuditKind, Grant, GrantState, Moved},
};
use serde::{Deserialize, Serialize};

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
        match order {
            AccountOrder::Show => ok(&self.account_life(&account).await?),
            AccountOrder::Lock | AccountOrder::Unlock | AccountOrder::Reset => {
                self.change(&account, order).await
            }
            AccountOrder::Remove => {
                // Counted before they go with the account.
                let sessions = self.sessions(&account).await?;
                let whose = &account.address;
                // Last: until then the account can be named, and the order given again.
                self.identity.end_grants(&account).await.map_err(failed)?;
                let removed = self.people.remove_account(whose, self.clock.now()).await;
                let removed = removed.map_err(unavailable)?;
                self.record_order(order, &account).await;
                done(&account, removed, sessions)
            }
        }
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
        let moved = self.identity.move_account(&account, &to, events.clone()).await;
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

    async fn account_named(&self, text: &str) -> Result<Account, Answer> {
        let none = || no(Refusal::NotFound, format!("no account {text}"));
        let address: Address = text.parse().map_err(|_| none())?;
        let account = self.people.account(&address).await.map_err(unavailable)?;
        account.ok_or_else(none)
    }

    /// A change that ends sessions, unless there is nothing to change.
    async fn change(&self, account: &Account, order: AccountOrder) -> Result<Answer, Answer> {
        let sessions = self.sessions(account).await?;
        let changed = match order {
            AccountOrder::Reset => {
                let clear = |account: &mut Account| {
                    account.password.clear();
                    account.second = None;
                    account.passkeys.clear();
                    account.devices.clear();
                    true
                };
                self.identity
                    .change_credentials(account, Change::by_operator(Event::Cleared), clear)
                    .await
            }
            AccountOrder::Lock
            | AccountOrder::Unlock
            | AccountOrder::Show
            | AccountOrder::Remove => {
                let locked = order == AccountOrder::Lock;
                self.identity.set_locked(account, locked).await
            }
        };
        let changed = changed.map_err(failed)?.is_some();
        let ended = if changed && order != AccountOrder::Unlock { sessions } else { 0 };
        self.record_order(order, account).await;
        done(account, changed, ended)
    }

    async fn sessions(&self, account: &Account) -> Result<u64, Answer> {
        let sessions = self.people.sessions(&account.address).await.map_err(unavailable)?;
        Ok(u64::try_from(sessions.len()).unwrap_or(u64::MAX))
    }

    async fn account_life(&self, account: &Account) -> Result<AccountLife, Answer> {
        let sessions = self.people.sessions(&account.address).await;
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

fn failed(error: IdentityError) -> Answer {
    match error {
        IdentityError::Store(error) => unavailable(error),
        IdentityError::Vault(_) | IdentityError::Busy | IdentityError::Work(_) => {
            no(Refusal::TryAgain, error.to_string())
        }
    }
}
