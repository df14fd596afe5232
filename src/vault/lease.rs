//! Leases: what is being read ends when the right to read it does. A recall, an expiry, a locked
//! account and an ended session reach a download that is under way.

use super::{AccessAnswer, Vault, VaultError};
use crate::{
    mail::GrantId,
    store::{Account, SessionFacts, StoreError},
};
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Plaintext that is handed out at most before the right to read is asked for again.
const STRETCH: u64 = 1 << 20;
/// Time after which it is asked for again, however little was read.
const REST: SignedDuration = SignedDuration::from_secs(2);

/// A reader, as it is now. Asked again while content streams.
#[async_trait]
pub trait Reader: Send + Sync + fmt::Debug {
    /// The account and what is known of its session, as long as that lasts; `None` ends what it
    /// reads.
    async fn account(&self) -> Result<Option<(Account, SessionFacts)>, StoreError>;
}

/// A reader whose session is not looked at again: the account as such, as long as it is the same
/// identity's.
#[derive(Debug)]
struct Identity {
    vault: Vault,
    generation: [u8; 16],
    session: SessionFacts,
}
#[async_trait]
impl Reader for Identity {
    async fn account(&self) -> Result<Option<(Account, SessionFacts)>, StoreError> {
        let account = self.vault.people.account_of(self.generation).await?;
        Ok(account.map(|account| (account, self.session)))
    }
}

/// The right of a reader to a grant's message, good until it is asked for again.
pub(super) struct Lease {
    vault: Vault,
    grant: GrantId,
    reader: Arc<dyn Reader>,
    meter: Mutex<Meter>,
}
/// What was read since the right was last asked for.
struct Meter {
    asked: Timestamp,
    read: u64,
}
impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("grant", &self.grant).finish_non_exhaustive()
    }
}

impl Lease {
    /// A lease that begins now.
    pub(super) fn new(
        vault: &Vault,
        grant: GrantId,
        account: &Account,
        session: SessionFacts,
    ) -> Self {
        let generation = account.generation;
        Self::of(vault, grant, Arc::new(Identity { vault: vault.clone(), generation, session }))
    }
    fn of(vault: &Vault, grant: GrantId, reader: Arc<dyn Reader>) -> Self {
        let meter = Mutex::new(Meter { asked: vault.clock.now(), read: 0 });
        Self { vault: vault.clone(), grant, reader, meter }
    }
    /// The same right, for as long as that reader lasts.
    pub(super) fn held_by(&self, reader: Arc<dyn Reader>) -> Self {
        Self::of(&self.vault, self.grant, reader)
    }
    /// So much is about to be handed out.
    pub(super) async fn meter(&self, bytes: usize) -> Result<(), VaultError> {
        if self.due(bytes as u64) { self.renew().await } else { Ok(()) }
    }
    fn due(&self, bytes: u64) -> bool {
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        meter.read = meter.read.saturating_add(bytes);
        // A clock that was set back is no reason to trust longer.
        let rest = self.vault.clock.now().duration_since(meter.asked).abs();
        meter.read >= STRETCH || rest >= REST
    }
    /// Asks again.
    pub(super) async fn renew(&self) -> Result<(), VaultError> {
        let (account, session) = self.reader.account().await?.ok_or(VaultError::Ended)?;
        match self.vault.access(self.grant, &account, &session).await? {
            AccessAnswer::Granted(_) => {
                let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
                *meter = Meter { asked: self.vault.clock.now(), read: 0 };
                Ok(())
            }
            AccessAnswer::Unproved(_) | AccessAnswer::Over | AccessAnswer::NotYours => {
                Err(VaultError::Ended)
            }
        }
    }
}
