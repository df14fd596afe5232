//! Fetching kept policies anew before they end (RFC 8461 §3.3), and forgetting those that ended.

use super::{
    Inner,
    kept::{Kept, later, read},
};
use crate::{
    mail::Domain,
    store::{NoteKind, StoreError},
};
use futures_util::{StreamExt, stream};
use std::{sync::atomic::Ordering, time::Duration};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often kept policies are looked through.
const ROUND: Duration = Duration::from_mins(10);
/// Policies looked through at once.
const PAGE: usize = 100;
/// Policies fetched anew at the same time; mail that waits comes first.
const AT_ONCE: usize = 8;
/// After a fetch that failed the next one comes in one to three hours.
const AGAIN: std::ops::RangeInclusive<u64> = 3_600..=10_800;

impl Inner {
    /// Keeps policies fresh until it is told to stop.
    pub(super) async fn run(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(ROUND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Some(Err(error)) = stop.run_until_cancelled(self.round()).await {
                tracing::error!(%error, "MTA-STS policies were not refreshed");
            }
        }
    }

    /// Looks once through all that is kept.
    pub(super) async fn round(&self) -> Result<(), StoreError> {
        let (mut after, mut count) = (None::<String>, 0);
        loop {
            let page = self.ports.notes.notes(NoteKind::Sts, after.as_deref(), PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            count += page.len();
            let each = stream::iter(page).map(|(domain, note)| async move {
                self.look_at(&domain, read(&domain, &note)).await
            });
            let mut each = std::pin::pin!(each.buffer_unordered(AT_ONCE));
            while let Some(done) = each.next().await {
                done?;
            }
        }
        self.count.store(count, Ordering::Relaxed);
        Ok(())
    }

    async fn look_at(&self, domain: &str, kept: Option<Kept>) -> Result<(), StoreError> {
        let now = self.ports.clock.now();
        let (Some(kept), Ok(name)) = (&kept, domain.parse::<Domain>()) else {
            return self.replace(domain, kept.as_ref(), None).await;
        };
        if !kept.holds(now) {
            return self.replace(domain, Some(kept), None).await;
        }
        if now < kept.refresh {
            return Ok(());
        }
        // Without the record the policy is fetched all the same: to hide a record is easier than to
        // forge what a proven host serves.
        let id = self.announced(&name).await.ok().flatten();
        let id = id.unwrap_or_else(|| kept.policy.id.clone());
        if let Err(error) = self.fetch(&name, &id).await {
            tracing::warn!(domain, %error, expires = %kept.expires,
                "the kept MTA-STS policy was not refreshed");
            let refresh = later(now, rand::random_range(AGAIN));
            let postponed = Kept { refresh, ..kept.clone() };
            return self.replace(domain, Some(kept), Some(&postponed)).await;
        }
        Ok(())
    }
}
