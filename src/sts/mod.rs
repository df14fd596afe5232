//! MTA-STS as sender (RFC 8461 §3.3, §5.1): finds out what a domain asks, keeps what it fetched over
//! restarts, and fetches anew before it ends.
//!
//! A policy once fetched holds until it expires or another one is fetched. That the record is gone,
//! that DNS is broken or that the policy can't be fetched again takes nothing from it: whoever
//! stands in the way can do all of that.

mod fetch;
mod kept;
mod refresh;
#[cfg(test)]
mod tests;

use crate::{
    clock::Clock,
    dns::{Resolver, Texts},
    mail::Domain,
    policies::StsPolicies,
    policy::{StsFacts, sts::record_id},
    store::NoteStore,
    wire::Web,
};
use async_trait::async_trait;
use fetch::Failures;
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
};
use tokio::sync::{OnceCell, Semaphore};

/// Policies fetched at the same time.
const FETCHES: usize = 64;

/// What it asks of others.
#[derive(Debug, Clone)]
pub struct StsPorts {
    /// For records.
    pub resolver: Arc<dyn Resolver>,
    /// For policies.
    pub web: Arc<dyn Web>,
    /// Where policies are kept.
    pub notes: Arc<dyn NoteStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Domains asked about right now; all who ask about one wait for the same answer.
type Flights = Mutex<HashMap<Domain, Arc<OnceCell<StsFacts>>>>;

/// Knows what domains ask by MTA-STS.
pub struct Sts {
    ports: StsPorts,
    flights: Flights,
    failures: Mutex<Failures>,
    fetches: Semaphore,
    /// Taken by whoever changes what is kept.
    writing: tokio::sync::Mutex<()>,
    /// Policies kept, as last counted.
    count: AtomicUsize,
}

impl fmt::Debug for Sts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sts").field("ports", &self.ports).finish_non_exhaustive()
    }
}

impl Sts {
    /// Over these ports.
    pub fn new(ports: StsPorts) -> Self {
        Self {
            ports,
            flights: Mutex::default(),
            failures: Mutex::default(),
            fetches: Semaphore::new(FETCHES),
            writing: tokio::sync::Mutex::default(),
            count: AtomicUsize::new(0),
        }
    }

    async fn find_out(&self, domain: &Domain) -> StsFacts {
        let now = self.ports.clock.now();
        let kept = match self.kept(domain.as_str()).await {
            Ok(kept) => kept.filter(|kept| kept.holds(now)).map(|kept| kept.policy),
            Err(error) => return StsFacts::Doubt(format!("kept policies can't be read: {error}")),
        };
        let announced = match self.announced(domain).await {
            Ok(announced) => announced,
            Err(why) => return kept.map_or(StsFacts::Doubt(why), StsFacts::Policy),
        };
        let (kept, id) = match (kept, announced) {
            // §3.3: no live policy is found, but a kept one holds: it applies.
            (kept, None) => return kept.map_or(StsFacts::Nothing, StsFacts::Policy),
            (Some(kept), Some(id)) if kept.id == id => return StsFacts::Policy(kept),
            (kept, Some(id)) => (kept, id),
        };
        match (self.fetch(domain, &id).await, kept) {
            (Ok(policy), _) => StsFacts::Policy(policy),
            (Err(why), None) => StsFacts::Unfetched(why),
            (Err(error), Some(kept)) => {
                let (new, old) = (id, &kept.id);
                tracing::warn!(%domain, %error, new, old,
                    "the changed MTA-STS policy can't be fetched; the kept one stays in force");
                StsFacts::Policy(kept)
            }
        }
    }

    /// The id that the domain's record gives; `None` if it has none (§3.1). An error: DNS can't say.
    async fn announced(&self, domain: &Domain) -> Result<Option<String>, String> {
        match self.ports.resolver.texts(&format!("_mta-sts.{domain}")).await {
            Texts::None => Ok(None),
            Texts::Trouble(why) => Err(why),
            Texts::Found(texts) => {
                let why = |why: &String| tracing::debug!(%domain, why, "no MTA-STS");
                Ok(record_id(&texts).inspect_err(why).ok())
            }
        }
    }
}

#[async_trait]
impl StsPolicies for Sts {
    async fn policy(&self, domain: &Domain) -> StsFacts {
        if domain.literal().is_some() {
            return StsFacts::Nothing;
        }
        let flight = Flight::join(&self.flights, domain);
        flight.answer.get_or_init(|| Box::pin(self.find_out(domain))).await.clone()
    }
}

/// One who waits for an answer about a domain. The last one clears the place, so that who comes
/// later asks anew.
struct Flight<'a> {
    flights: &'a Flights,
    domain: &'a Domain,
    answer: Arc<OnceCell<StsFacts>>,
}

impl<'a> Flight<'a> {
    fn join(flights: &'a Flights, domain: &'a Domain) -> Self {
        let mut all = locked(flights);
        let answer = match all.get(domain) {
            // An answer that is there already is of the past.
            Some(answer) if !answer.initialized() => Arc::clone(answer),
            Some(_) | None => {
                let answer = Arc::default();
                all.insert(domain.clone(), Arc::clone(&answer));
                answer
            }
        };
        Self { flights, domain, answer }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut all = locked(self.flights);
        let ours = std::mem::take(&mut self.answer);
        let here = all.get(self.domain).is_some_and(|answer| Arc::ptr_eq(answer, &ours));
        // Ours and the map's: nobody else waits.
        if here && Arc::strong_count(&ours) == 2 {
            all.remove(self.domain);
        }
        // Under the lock, so that of two who leave at once the second sees that it is the last.
        drop(ours);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
