//! Who reads: a browser's session, asked again while what it reads is under way.
use super::session::{SEEN, runs};
use crate::{
    seal::TokenHash,
    store::{Account, StoreError},
    vault::{Reader, Vault},
};
use async_trait::async_trait;

/// A session as a reader.
#[derive(Debug)]
pub(super) struct SessionReader {
    pub(super) vault: Vault,
    pub(super) session: TokenHash,
}

#[async_trait]
impl Reader for SessionReader {
    /// While it reads, the session is in use.
    async fn account(&self) -> Result<Option<Account>, StoreError> {
        let (people, now) = (&self.vault.people, self.vault.clock.now());
        let session = people.session(&self.session).await?.filter(|session| runs(session, now));
        let Some(session) = session else { return Ok(None) };
        let Some((address, generation)) = &session.account else { return Ok(None) };
        let account = people.account(address).await?;
        let account = account.filter(|own| own.generation == *generation && !own.locked);
        if account.is_some() && now.duration_since(session.seen) >= SEEN {
            people.touch_session(&session.id, now).await?;
        }
        Ok(account)
    }
}
