//! Rotation of the key ring: orders, and the task that brings one to its end.

use super::{StartError, keys::RingKeeper, parts::Parts};
use crate::{
    audit::Audit,
    config::Config,
    control::server::KeyOrders,
    seal::{KeyId, KeyRing},
    store::AuditKind,
    vault::{KeyProgress, KeyRound, Vault},
};
use async_trait::async_trait;
use std::time::Duration;
use tokio::time::timeout;

/// How long what is on its way is waited for, before all is looked at again.
const SOON: Duration = Duration::from_secs(1);
/// When it is tried again after trouble.
const LATER: Duration = Duration::from_secs(60);

/// Rotates the ring of one vault.
#[derive(Debug, Clone)]
pub(super) struct Rotation {
    keeper: RingKeeper,
    vault: Vault,
    audit: Audit,
}

impl Rotation {
    pub(super) fn new(config: &Config, parts: &Parts) -> Self {
        let (vault, audit) = (parts.vault.clone(), parts.audit.clone());
        Self { keeper: RingKeeper::new(config), vault, audit }
    }

    /// Wraps again whatever older keys wrapped, and retires them, each time the ring gets a key. It may
    /// be dropped at any time: the next start goes on.
    pub(super) async fn run(&self) {
        loop {
            let pause = match self.vault.rewrap().await {
                Ok(KeyRound::Idle) => None,
                Ok(KeyRound::Again) => Some(SOON),
                Ok(KeyRound::Unreadable(keys)) => {
                    tracing::error!(keys, "keys that do not open keep older keys in the key ring");
                    Some(LATER)
                }
                Ok(KeyRound::Done(old)) => match self.retire(old).await {
                    Ok(()) => None,
                    Err(error) => {
                        tracing::error!(%error, "older keys are needed no more, and stay");
                        Some(LATER)
                    }
                },
                Err(error) => {
                    tracing::error!(%error, "keys could not be wrapped again yet");
                    Some(LATER)
                }
            };
            let changed = self.vault.ring_changed();
            match pause {
                None => changed.await,
                // An earlier change is as good as the time.
                Some(pause) => drop(timeout(pause, changed).await),
            }
        }
    }

    async fn retire(&self, old: Vec<KeyId>) -> Result<(), StartError> {
        let gone = old.clone();
        self.change(move |keeper, ring| keeper.retire(ring, &gone)).await?;
        let keys: Vec<u32> = old.iter().map(|key| key.0).collect();
        tracing::warn!(?keys, "nothing is wrapped by these keys any more: they left the key ring");
        self.audit.record(self.audit.event(AuditKind::KeysRetired)).await;
        Ok(())
    }

    async fn change(
        &self,
        change: impl FnOnce(&RingKeeper, &KeyRing) -> Result<KeyRing, StartError> + Send + 'static,
    ) -> Result<(), StartError> {
        let (keeper, vault) = (self.keeper.clone(), self.vault.clone());
        let work = move || vault.change_ring(|ring| change(&keeper, ring));
        let changed = tokio::task::spawn_blocking(work).await;
        changed.map_err(|error| StartError::TryAgain(error.to_string()))?
    }

    async fn added(&self) {
        let key = self.vault.key_progress().current.0;
        tracing::warn!(key, "the key ring has a new key, which wraps what is new");
        self.audit.record(self.audit.event(AuditKind::KeyAdded)).await;
    }
}

#[async_trait]
impl KeyOrders for Rotation {
    async fn rotate(&self) -> Result<KeyProgress, String> {
        self.change(RingKeeper::add_key).await.map_err(|error| error.to_string())?;
        self.added().await;
        Ok(self.vault.key_progress())
    }

    async fn reload(&self) -> Result<KeyProgress, String> {
        let before = self.vault.key_progress();
        let read = |keeper: &RingKeeper, _: &KeyRing| {
            let ring = keeper.load_existing()?;
            keeper.mark(&ring)?;
            Ok(ring)
        };
        self.change(read).await.map_err(|error| error.to_string())?;
        let after = self.vault.key_progress();
        if after.current != before.current {
            self.added().await;
        }
        Ok(after)
    }
}
