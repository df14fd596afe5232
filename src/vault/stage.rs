//! Staging: files that come ahead of the letter they belong to. Sealed as they stream in, as a message
//! is, and opened only into that letter. Each lies aside of all messages, for as long as it is held:
//! its key is in memory alone, and what a crash leaves of it nobody can open.

use super::{Content, Vault, VaultError, deposit::GATHER, open::Stream, random_secret};
use crate::{
    mail::QueueId,
    seal::{DataKey, Format, Opener, Sealer, stream::CHUNK},
    store::body::Aside,
};
use bytes::Bytes;
use std::{fmt, mem};

/// A file on its way in. Dropped, it is gone.
pub struct Staging {
    lying: Lying,
    sealer: Sealer,
    /// Sealed bytes that are still here.
    sealed: Vec<u8>,
}
/// A file that is here whole. Dropped, it is gone.
#[derive(Debug)]
pub struct Staged {
    lying: Lying,
    size: u64,
}
struct Lying {
    id: QueueId,
    key: DataKey,
    aside: Box<dyn Aside>,
}

impl fmt::Debug for Lying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lying").field("id", &self.id).finish_non_exhaustive()
    }
}
impl fmt::Debug for Staging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.size();
        f.debug_struct("Staging").field("lying", &self.lying).field("size", &size).finish()
    }
}

impl Vault {
    /// Begins a file.
    pub async fn stage(&self) -> Result<Staging, VaultError> {
        let (id, key) = (self.new_id(), DataKey::from_random(random_secret()));
        let sealer = Sealer::bare(self.suite, &key, id);
        let aside = self.bodies.aside(id).await?;
        let lying = Lying { id, key, aside };
        Ok(Staging { lying, sealer, sealed: Vec::new() })
    }

    /// The file again, from its first byte to its authenticated end.
    pub fn read_staged(&self, staged: &Staged) -> Result<Content, VaultError> {
        let Staged { lying: Lying { id, key, aside }, size } = staged;
        let opener = Opener::from_content(Format::V2(self.suite), key, *id, 0);
        Ok(Content::of(Stream::whole(aside.open(0)?, opener, *size)))
    }
}

impl Staging {
    /// The next bytes. After an error it is of no more use.
    pub async fn write(&mut self, content: &[u8]) -> Result<(), VaultError> {
        // In portions: what is held stays bounded whatever the caller brings at once.
        for piece in content.chunks(CHUNK) {
            self.sealer.feed(piece, &mut self.sealed);
            if self.sealed.len() > GATHER {
                self.rest().await?;
            }
        }
        Ok(())
    }

    /// Nothing but an unfinished frame is held in memory while no more comes.
    pub async fn rest(&mut self) -> Result<(), VaultError> {
        if self.sealed.is_empty() {
            return Ok(());
        }
        let sealed = Bytes::from(mem::take(&mut self.sealed));
        Ok(self.lying.aside.write(sealed).await?)
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.sealer.size()
    }

    /// It has come to its end.
    pub async fn end(self) -> Result<Staged, VaultError> {
        let Self { mut lying, sealer, mut sealed } = self;
        let size = sealer.size();
        sealer.finish(&[], &mut sealed);
        lying.aside.write(Bytes::from(sealed)).await?;
        Ok(Staged { lying, size })
    }
}
