//! The watch: every partner is looked at on a schedule, so that a certificate that ends, STARTTLS
//! that is gone or another MX set is known before mail waits.

mod observe;
#[cfg(test)]
mod tests;

pub use observe::{Kind, Warning};

use super::Prober;
use crate::{
    clock::Clock,
    mail::Domain,
    policies::Policies,
    store::{NoteKind, NoteStore, StoreError},
};
use jiff::Timestamp;
use observe::{Observation, observe};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// Partners looked at at the same time.
const AT_ONCE: usize = 2;
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Notes read at a time.
const PAGE: usize = 500;

/// How often partners are looked at.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The first round is spread over this time after the start.
    pub first: Duration,
    /// Every other round begins so long after the one before, and is spread over that time.
    pub every: Duration,
}

/// A warning as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warned {
    /// The domain, as its entry names it.
    pub domain: String,
    /// When it began.
    pub since: Timestamp,
    /// What it is about.
    pub kind: Kind,
    /// In words.
    pub text: String,
}

/// Warnings of a domain, by kind.
type Warnings = BTreeMap<Kind, Warning>;

/// The warnings of now, for all who show them.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<RwLock<BTreeMap<String, Warnings>>>);

impl Board {
    /// Every warning, by domain.
    pub fn warnings(&self) -> Vec<Warned> {
        let board = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let all = board.iter().flat_map(|(domain, warnings)| {
            warnings.iter().map(|(kind, warning)| Warned {
                domain: domain.clone(),
                since: warning.since,
                kind: *kind,
                text: warning.text.clone(),
            })
        });
        all.collect()
    }

    /// What a domain has from now on; what it had before is returned.
    fn set(&self, domain: &str, warnings: Warnings) -> Warnings {
        let mut board = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = board.remove(domain).unwrap_or_default();
        if !warnings.is_empty() {
            board.insert(domain.to_owned(), warnings);
        }
        before
    }
}

/// Looks at partners.
#[derive(Debug, Clone)]
pub struct Watch {
    prober: Prober,
    policies: Arc<dyn Policies>,
    notes: Arc<dyn NoteStore>,
    clock: Arc<dyn Clock>,
    board: Board,
}

impl Watch {
    /// A watch that writes its warnings on this board.
    pub fn new(
        prober: Prober,
        policies: Arc<dyn Policies>,
        notes: Arc<dyn NoteStore>,
        clock: Arc<dyn Clock>,
        board: Board,
    ) -> Self {
        Self { prober, policies, notes, clock, board }
    }

    /// Watches until it is told to stop.
    pub async fn run(self, pace: Pace, stop: CancellationToken) {
        if let Err(error) = self.recall().await {
            tracing::warn!(%error, "what the watch saw before the restart is not known");
        }
        let mut ticks = interval(pace.every.max(Duration::from_secs(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut over = pace.first.min(pace.every);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if stop.run_until_cancelled(self.round(over)).await.is_none() {
                return;
            }
            over = pace.every;
        }
    }

    /// Puts the warnings of before the restart on the board, without telling them again.
    async fn recall(&self) -> Result<(), StoreError> {
        for (domain, observation) in self.remembered().await? {
            self.board.set(&domain, observation.warnings);
        }
        Ok(())
    }

    async fn remembered(&self) -> Result<Vec<(String, Observation)>, StoreError> {
        let (mut all, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = self.notes.notes(NoteKind::Watch, after.as_deref(), PAGE).await?;
            after = page.last().map(|(domain, _)| domain.clone());
            if after.is_none() {
                return Ok(all);
            }
            all.extend(page.into_iter().map(|(domain, bytes)| (domain, read(&bytes))));
        }
    }

    /// Looks at every partner once, spread evenly over a time.
    async fn round(&self, over: Duration) {
        let now = self.clock.now();
        let set = self.policies.current();
        let keys: BTreeSet<String> = set.watched(now).into_iter().map(str::to_owned).collect();
        drop(set);
        if let Err(error) = self.forget_all_but(&keys).await {
            tracing::warn!(%error, "the watch could not forget the partners of before");
        }
        let step = over.checked_div(u32::try_from(keys.len()).unwrap_or(u32::MAX));
        let (places, mut at) = (Arc::new(Semaphore::new(AT_ONCE)), Instant::now());
        let mut looks = JoinSet::new();
        for key in keys {
            sleep_until(at).await;
            at += step.unwrap_or_default();
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
            let watch = self.clone();
            looks.spawn(async move {
                watch.look(&key).await;
                drop(place);
            });
            while looks.try_join_next().is_some() {}
        }
        while looks.join_next().await.is_some() {}
    }

    /// Entries that are gone take their warnings with them.
    async fn forget_all_but(&self, keys: &BTreeSet<String>) -> Result<(), StoreError> {
        for (domain, _) in self.remembered().await? {
            if !keys.contains(&domain) {
                self.notes.remove_note(NoteKind::Watch, &domain).await?;
                let before = self.board.set(&domain, Warnings::new());
                tell(&domain, &before, &Warnings::new());
            }
        }
        Ok(())
    }

    /// One partner. An entry that is gone by now, or can't be seen in time, is left as it was.
    async fn look(&self, key: &str) {
        let (Ok(domain), set) =
            (key.trim_start_matches('.').parse::<Domain>(), self.policies.current())
        else {
            return;
        };
        let Some(policy) = set.partner(key, self.clock.now()) else { return };
        let look = Box::pin(self.prober.probe(&domain, Some(policy)));
        let Ok(report) = timeout(PATIENCE, look).await else {
            tracing::info!(domain = key, "watch: the look at its hosts did not end in time");
            return;
        };
        let kept = match self.notes.note(NoteKind::Watch, key).await {
            Ok(kept) => kept.map(|bytes| read(&bytes)).unwrap_or_default(),
            Err(error) => {
                tracing::warn!(domain = key, %error, "watch: the last look can't be read");
                return;
            }
        };
        let seen = observe(&kept, &report, self.clock.now());
        let before = self.board.set(key, seen.warnings.clone());
        tell(key, &before, &seen.warnings);
        if seen == kept {
            return;
        }
        let saved = match serde_json::to_vec(&seen) {
            Ok(bytes) => self.notes.put_note(NoteKind::Watch, key, bytes).await,
            Err(error) => Err(StoreError::Corrupt(error.to_string())),
        };
        if let Err(error) = saved {
            tracing::warn!(domain = key, %error, "watch: this look will be forgotten at a restart");
        }
    }
}

/// What was kept; bytes that make no sense are a first look.
fn read(bytes: &[u8]) -> Observation {
    serde_json::from_slice(bytes).unwrap_or_default()
}

/// A line in the log where a warning begins, and one where it ends.
fn tell(domain: &str, before: &Warnings, after: &Warnings) {
    for (kind, warning) in after.iter().filter(|(kind, _)| !before.contains_key(kind)) {
        tracing::warn!(domain, kind = kind.as_str(), "watch: {domain}: {}", warning.text);
    }
    for kind in before.keys().filter(|kind| !after.contains_key(kind)) {
        tracing::info!(domain, kind = kind.as_str(), "watch: {domain}: {} is over", kind.as_str());
    }
}
