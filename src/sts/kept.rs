//! Policies as they are kept: one note a domain.

use super::Inner;
use crate::{
    policy::StsPolicy,
    store::{NoteKind, StoreError},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

/// Policies kept. More are used when they are fetched, and fetched again for the next mail.
pub(super) const KEPT_MOST: usize = 20_000;
/// A policy is fetched anew about once a day (RFC 8461 §3.3), in seconds.
const DAY: u64 = 24 * 60 * 60;

/// A policy that was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// What was fetched.
    pub(super) policy: StsPolicy,
    /// When.
    pub(super) fetched: Timestamp,
    /// Until when it holds.
    pub(super) expires: Timestamp,
    /// When to fetch it anew.
    pub(super) refresh: Timestamp,
}

impl Kept {
    /// Fetched now. The next fetch comes before the policy ends, at a time that nobody can foresee:
    /// who knew it could stand in the way just then (RFC 8461 §10.2).
    pub(super) fn new(policy: StsPolicy, now: Timestamp) -> Self {
        let span = policy.max_age.min(DAY);
        let refresh = later(now, rand::random_range(span / 2..=span - span / 10));
        Self { fetched: now, expires: later(now, policy.max_age), refresh, policy }
    }

    pub(super) fn holds(&self, now: Timestamp) -> bool {
        now < self.expires
    }
}

/// So many seconds after that time.
pub(super) fn later(time: Timestamp, seconds: u64) -> Timestamp {
    let wait = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    time.saturating_add(wait).unwrap_or(Timestamp::MAX)
}

/// A note that makes no sense counts as none: the policy is fetched again.
pub(super) fn read(domain: &str, note: &[u8]) -> Option<Kept> {
    let damaged = |error: &serde_json::Error| {
        tracing::warn!(domain, %error, "a kept MTA-STS policy can't be read");
    };
    serde_json::from_slice(note).inspect_err(damaged).ok()
}

impl Inner {
    /// What is kept of a domain, expired or not.
    pub(super) async fn kept(&self, domain: &str) -> Result<Option<Kept>, StoreError> {
        let note = self.ports.notes.note(NoteKind::Sts, domain).await?;
        Ok(note.and_then(|note| read(domain, &note)))
    }

    /// Keeps a policy over restarts. One that can't be kept is good for the mail at hand.
    pub(super) async fn keep(&self, domain: &str, kept: &Kept) {
        let _alone = self.writing.lock().await;
        if let Err(error) = self.put(domain, kept).await {
            tracing::error!(domain, %error, "an MTA-STS policy was fetched and can't be kept");
        }
    }

    async fn put(&self, domain: &str, kept: &Kept) -> Result<(), StoreError> {
        let notes = &self.ports.notes;
        if notes.note(NoteKind::Sts, domain).await?.is_none() {
            if self.count.load(Ordering::Relaxed) >= KEPT_MOST {
                tracing::warn!(domain, "{KEPT_MOST} MTA-STS policies are kept; not this one");
                return Ok(());
            }
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        let note = serde_json::to_vec(kept).map_err(|e| StoreError::Corrupt(e.to_string()))?;
        notes.put_note(NoteKind::Sts, domain, note).await
    }

    /// Puts `new` in the place of `old`, or nothing; unless somebody fetched meanwhile.
    pub(super) async fn replace(
        &self,
        domain: &str,
        old: Option<&Kept>,
        new: Option<&Kept>,
    ) -> Result<(), StoreError> {
        let _alone = self.writing.lock().await;
        if self.kept(domain).await?.as_ref() != old {
            return Ok(());
        }
        match new {
            Some(new) => self.put(domain, new).await,
            None => self.ports.notes.remove_note(NoteKind::Sts, domain).await,
        }
    }
}
