//! The end of sealed mail: expired grants, destroyed bodies, purged records, in rounds.

use crate::vault::Vault;
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Sweeps the vault at start, on an interval, and soon after a large message has come to its end.
#[derive(Debug)]
pub struct Sweeper {
    vault: Vault,
    every: Duration,
}

impl Sweeper {
    /// A sweeper of this vault; each minute is a good interval.
    pub fn new(vault: Vault, every: Duration) -> Self {
        Self { vault, every: every.max(Duration::from_millis(1)) }
    }

    /// Sweeps until it is told to stop. A round in progress is finished.
    pub async fn run(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let endings = self.vault.queue.endings();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.rounds(&stop).await,
                () = endings.notified() => self.destroy().await,
            }
        }
    }

    /// Destroys what has come to its end. What fails is left for the next interval.
    async fn destroy(&self) {
        if let Err(error) = self.vault.destroy_ended().await {
            tracing::error!("a message at its end could not be destroyed yet: {error}");
        }
    }

    /// Rounds while there is something to free. A round that fails is left for the next interval.
    async fn rounds(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            match self.vault.sweep().await {
                Ok(0) => return,
                Ok(freed) => tracing::info!("swept: the bodies of {freed} messages are gone"),
                Err(error) => {
                    tracing::error!("sweep did not finish: {error}");
                    return;
                }
            }
        }
    }
}
