//! Staging: files that come ahead of the letter they belong to. Sealed as they stream in, as a message
//! is, and opened only into that letter. No row tells of them: whoever holds them keeps them, and what
//! a crash leaves behind is a sealed body that nobody owns, and is swept.

use super::{Content, Deposit, Finished, Vault, VaultError};
use crate::{
    mail::parts::PartIndex,
    seal::{Class, MessageFacts, header::Needs},
    store::{Locator, MessageRow, queue::NewBody},
};

/// A file on its way in. Dropping it discards what was written.
#[derive(Debug)]
pub struct Staging {
    deposit: Deposit,
}

/// A file that is here whole. It stays until [`Vault::discard`].
#[derive(Debug)]
pub struct Staged {
    row: MessageRow,
}

impl Vault {
    /// Begins a file.
    pub fn stage(&self) -> Result<Staging, VaultError> {
        let (id, now) = (self.new_id(), self.clock.now());
        let facts = MessageFacts::own(id, Class::Protected, now, Needs::default());
        Ok(Staging { deposit: self.deposit(facts, Vec::new())? })
    }

    /// The file again, from its first byte to its authenticated end.
    pub async fn read_staged(&self, staged: &Staged) -> Result<Content, VaultError> {
        self.open_whole(&staged.row, None).await
    }

    /// Destroys it.
    pub async fn discard(&self, staged: Staged) -> Result<(), VaultError> {
        Ok(self.bodies.delete(staged.row.facts.id, &staged.row.body).await?)
    }
}

impl Staging {
    /// The next bytes. After an error, and after a call that was given up, it takes no more.
    pub async fn write(&mut self, content: &[u8]) -> Result<(), VaultError> {
        self.deposit.write(content).await
    }

    /// Nothing is held in memory while no more comes.
    pub async fn rest(&mut self) -> Result<(), VaultError> {
        self.deposit.spill().await
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.deposit.size()
    }

    /// It has come to its end.
    pub async fn end(mut self) -> Result<Staged, VaultError> {
        // In a file of its own, however small: nothing else would keep it.
        self.deposit.spill().await?;
        let Finished { message } = self.deposit.finish(&PartIndex::default()).await?;
        let body = match &message.body {
            NewBody::At(at) => at.clone(),
            NewBody::Small(_) => Locator::Gone,
        };
        Ok(Staged { row: MessageRow::accepted(&message, body) })
    }
}
