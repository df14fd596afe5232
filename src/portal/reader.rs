//! The reader of a stream: a browser's session, asked again while what it reads is under way.
use crate::{
    identity::Identity,
    seal::TokenHash,
    store::{Account, SessionFacts, StoreError},
    vault::Reader,
};
use async_trait::async_trait;

/// A session as a reader.
#[derive(Debug)]
pub(super) struct SessionReader {
    pub(super) identity: Identity,
    pub(super) session: TokenHash,
}

#[async_trait]
impl Reader for SessionReader {
    async fn account(&self) -> Result<Option<(Account, SessionFacts)>, StoreError> {
        self.identity.still_in(&self.session).await
    }
}
