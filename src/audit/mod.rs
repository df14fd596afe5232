//! The audit service: one verb, [`Audit::record`], for all that happens at accounts and with messages
//! kept for pickup. An event becomes a record of the hash-chained trail
//! ([`store::audit`](crate::store::audit)), a line of the log and a count.
//!
//! ```ignore
//! let event = audit.event(AuditKind::WrongPassword).account(&typed).client(client);
//! audit.record(event).await;
//! ```
//!
//! What follows from a change of credentials is in the commit of that change: the store's verb takes
//! the events, and [`Audit::committed`] logs and counts them afterwards.
//!
//! # The line of the log
//!
//! `audit event=wrong-password client=192.0.2.1 domain=clinic.example`, with `detail`, `grant` and
//! `id` where they are known. The order and the names of the fields are a promise: fail2ban reads
//! them. No field holds anything that a client chose freely.

mod bounds;
#[cfg(test)]
mod tests;

use crate::{
    clock::{Clock, ClockGuard, TrustedTime},
    mail::Address,
    store::{
        AuditCheck, AuditClass, AuditEvent, AuditFault, AuditKind, AuditRecord, AuditStore,
        StoreError,
    },
};
use bounds::{Admission, Bounds};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Records read or removed at once.
const PAGE: usize = 1000;
/// Faults that a check names; a trail with more of them is no trail.
const FAULTS: usize = 100;
/// Times that a check begins anew because records ended while it ran.
const ROUNDS: usize = 3;

/// How often each kind of event happened since the start.
#[derive(Debug)]
pub struct AuditCounts([AtomicU64; AuditKind::ALL.len()]);
impl Default for AuditCounts {
    fn default() -> Self {
        Self(AuditKind::ALL.map(|_| AtomicU64::new(0)))
    }
}
impl AuditCounts {
    /// Every kind with its count.
    pub fn all(&self) -> [(AuditKind, u64); AuditKind::ALL.len()] {
        AuditKind::ALL.map(|kind| (kind, self.of(kind).map_or(0, |n| n.load(Ordering::Relaxed))))
    }
    fn of(&self, kind: AuditKind) -> Option<&AtomicU64> {
        self.0.get(kind as usize)
    }
    fn count(&self, kind: AuditKind) {
        if let Some(count) = self.of(kind) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The result of a check of the trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Number of the first record.
    pub first: u64,
    /// Number of the newest record.
    pub last: u64,
    /// Hash of the newest record.
    pub head: String,
    /// Faults, oldest first; empty if the trail is sound.
    pub faults: Vec<AuditFault>,
}

/// Records what happens. Clones share everything.
#[derive(Debug, Clone)]
pub struct Audit {
    store: Arc<dyn AuditStore>,
    clock: Arc<dyn Clock>,
    counts: Arc<AuditCounts>,
    bounds: Arc<Mutex<Bounds>>,
    /// How long records are kept.
    history: SignedDuration,
}

impl Audit {
    /// Records go to this store and are kept for `history`.
    pub fn new(store: Arc<dyn AuditStore>, clock: Arc<dyn Clock>, history: SignedDuration) -> Self {
        let bounds = Arc::new(Mutex::new(Bounds::new(clock.now())));
        Self { store, clock, counts: Arc::default(), bounds, history }
    }
    /// An event that happens now.
    pub fn event(&self, kind: AuditKind) -> AuditEvent {
        AuditEvent::new(kind, self.clock.now())
    }
    /// Records an event: counted, logged and, once this returns, in the trail. Where the store takes
    /// nothing the event is in the log alone, and the reader is served all the same: a full disk must
    /// not keep readers from their messages.
    /// A caller that goes away does not keep the record from being written.
    pub async fn record(&self, event: AuditEvent) {
        let now = self.clock.now();
        let (admission, mut records) = {
            let mut bounds = self.bounds();
            let over = bounds.close(now);
            (bounds.admit(&event, now), over)
        };
        match admission {
            Admission::Repeat => {}
            Admission::Recorded => {
                self.committed(&event);
                records.push(event);
            }
            Admission::Logged => self.committed(&event),
            Admission::LeftOut => self.counts.count(event.kind),
        }
        self.append(records).await;
    }
    /// Logs and counts an event that is in the trail already, by the commit that it belongs to.
    pub fn committed(&self, event: &AuditEvent) {
        self.counts.count(event.kind);
        log(event);
    }
    /// How often each kind happened.
    pub fn counts(&self) -> Arc<AuditCounts> {
        Arc::clone(&self.counts)
    }
    /// Records of one mailbox or of all, newest first.
    pub async fn events(
        &self,
        of: Option<&Address>,
        before: Option<u64>,
        max: usize,
    ) -> Result<Vec<AuditRecord>, StoreError> {
        self.store.events(of, before, max).await
    }
    /// Up to `max` records after that number, in their order.
    pub async fn records(&self, after: u64, max: usize) -> Result<Vec<AuditRecord>, StoreError> {
        self.store.records(after, max).await
    }
    /// Checks the whole trail.
    pub async fn verify(&self) -> Result<Verified, StoreError> {
        let mut found = self.check().await?;
        for _ in 1..ROUNDS {
            // Records that ended meanwhile are not missing.
            if found.faults.is_empty() || self.store.chain().await?.anchor.seq < found.first {
                break;
            }
            found = self.check().await?;
        }
        Ok(found)
    }
    async fn check(&self) -> Result<Verified, StoreError> {
        let chain = self.store.chain().await?;
        let (mut check, mut after, mut faults) =
            (AuditCheck::new(chain), chain.anchor.seq, Vec::new());
        'pages: while faults.len() < FAULTS {
            let page = self.store.records(after, PAGE).await?;
            let Some(newest) = page.last() else { break };
            after = newest.seq.max(after.saturating_add(1));
            for record in &page {
                // What was appended since the check began is for the next one.
                if record.seq > chain.head.seq {
                    break 'pages;
                }
                faults.extend(check.next(record).err());
            }
        }
        faults.extend(check.end().err());
        faults.truncate(FAULTS);
        let (first, last) = (chain.anchor.seq.saturating_add(1), chain.head.seq);
        Ok(Verified { first, last, head: chain.head.hash.to_string(), faults })
    }
    /// Writes down what was left out where that time is over, and ends old records where the time can
    /// be relied on.
    pub async fn sweep(&self, now: Option<TrustedTime>) -> Result<(), StoreError> {
        let over = self.bounds().close(self.clock.now());
        self.append(over).await;
        if let Some(now) = now {
            while self.store.purge_events(now, self.history, PAGE).await? >= PAGE {}
        }
        Ok(())
    }
    /// Sweeps until it is told to stop.
    pub async fn run(&self, guard: &ClockGuard, every: Duration, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.sweep(guard.check().ok()).await {
                tracing::error!(%error, "audit: old records did not end");
            }
        }
    }

    async fn append(&self, records: Vec<AuditEvent>) {
        if records.is_empty() {
            return;
        }
        let store = Arc::clone(&self.store);
        let appended = tokio::spawn(async move { store.append(records).await });
        match appended.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "audit: an event is in the log alone"),
            Err(error) => tracing::error!(%error, "audit: an event is in the log alone"),
        }
    }
    fn bounds(&self) -> MutexGuard<'_, Bounds> {
        self.bounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The line of the log.
fn log(event: &AuditEvent) {
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                event = %event.kind,
                client = event.client.map(tracing::field::display),
                domain = event.account.as_ref().map(|a| tracing::field::display(a.domain())),
                detail = event.detail.as_ref().map(|d| tracing::field::display(d.as_str())),
                grant = event.grant.map(tracing::field::display),
                id = event.message.map(tracing::field::display),
                "audit"
            )
        };
    }
    match event.kind.class() {
        AuditClass::Failure => line!(warn),
        AuditClass::Security | AuditClass::Access | AuditClass::Operator => line!(info),
    }
}
