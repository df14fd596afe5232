//! An account's own messages. Grants are listed here for an account, never for an address: what an
//! earlier holder of the mailbox had is not the present one's.

use super::Vault;
use crate::{
    mail::GrantId,
    store::{Account, Grant, StoreError},
};

impl Vault {
    /// Grants of messages that the account received, newest first, after that one. Fewer than `max` end
    /// the list: what is not the account's own is older than all that is.
    pub async fn received(
        &self,
        account: &Account,
        after: Option<GrantId>,
        max: usize,
    ) -> Result<Vec<Grant>, StoreError> {
        let grants = self.people.grants(Some(&account.address), after, max).await?;
        Ok(own(account, grants))
    }

    /// Grants of messages that the account wrote at the portal, in the same way.
    pub async fn sent(
        &self,
        account: &Account,
        after: Option<GrantId>,
        max: usize,
    ) -> Result<Vec<Grant>, StoreError> {
        let grants = self.people.sent(&account.address, after, max).await?;
        Ok(own(account, grants))
    }
}

fn own(account: &Account, mut grants: Vec<Grant>) -> Vec<Grant> {
    grants.retain(|grant| account.holds(grant));
    grants
}
