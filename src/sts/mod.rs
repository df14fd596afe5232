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
    policy::{StsFacts, StsPolicy, sts::record_id},
    store::NoteStore,
    wire::Web,
};
use async_trait::async_trait;
use fetch::{Failures, NotFetched};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use jiff::Timestamp;
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, atomic::AtomicUsize},
    time::Duration,
};
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

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

/// How long who asks waits at most.
#[derive(Debug, Clone, Copy)]
struct Waits {
    /// For an answer. A host that says nothing must not hold up those who carry other domains' mail.
    answer: Duration,
    /// For a turn to fetch.
    turn: Duration,
}

impl Waits {
    /// Mail can be put off, and finds the policy at its next attempt.
    const MAIL: Self = Self { answer: Duration::from_secs(10), turn: Duration::from_secs(5) };
    /// Longer than any fetch takes.
    const PATIENT: Self = Self { answer: Duration::from_mins(3), turn: Duration::from_mins(1) };
}

/// Domains asked about right now; all who ask about one wait for the same answer.
type Flights = Mutex<HashMap<Domain, Flight>>;
type Answer = Shared<BoxFuture<'static, StsFacts>>;
/// The id under which a policy is being fetched, once that is so.
type Announced = Arc<OnceLock<String>>;

/// A question that is out. It ends for itself, whoever waits.
#[derive(Clone)]
struct Flight {
    answer: Answer,
    announced: Announced,
}

/// Knows what domains ask by MTA-STS.
pub struct Sts {
    inner: Arc<Inner>,
    /// Ends the questions that are out.
    _stop: DropGuard,
}

struct Inner {
    ports: StsPorts,
    waits: Waits,
    flights: Flights,
    failures: Mutex<Failures>,
    fetches: Semaphore,
    /// Taken by whoever changes what is kept.
    writing: tokio::sync::Mutex<()>,
    /// Policies kept, as last counted.
    count: AtomicUsize,
    stop: CancellationToken,
}

impl fmt::Debug for Sts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sts").field("ports", &self.inner.ports).finish_non_exhaustive()
    }
}

impl Sts {
    /// Over these ports, for mail: an answer that takes long is a doubt, and there for who asks
    /// later.
    pub fn new(ports: StsPorts) -> Self {
        Self::waiting(ports, Waits::MAIL)
    }

    /// The same for one who has time to wait for a slow host.
    pub fn patient(ports: StsPorts) -> Self {
        Self::waiting(ports, Waits::PATIENT)
    }

    fn waiting(ports: StsPorts, waits: Waits) -> Self {
        let stop = CancellationToken::new();
        let inner = Inner {
            ports,
            waits,
            flights: Mutex::default(),
            failures: Mutex::default(),
            fetches: Semaphore::new(FETCHES),
            writing: tokio::sync::Mutex::default(),
            count: AtomicUsize::new(0),
            stop: stop.clone(),
        };
        Self { inner: Arc::new(inner), _stop: stop.drop_guard() }
    }

    /// Keeps policies fresh until it is told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        self.inner.run(stop).await;
    }
}

impl Inner {
    /// The answer that is out about the domain, or a new one. It runs as a task of its own once it
    /// is waited for: a worker that is broken off, or waits no more, leaves it to the next.
    fn ask(self: &Arc<Self>, domain: &Domain) -> Flight {
        let mut flights = locked(&self.flights);
        if let Some(flight) = flights.get(domain) {
            return flight.clone();
        }
        let announced = Announced::default();
        let place = Place { inner: Arc::clone(self), domain: domain.clone() };
        let known = Arc::clone(&announced);
        let task = async move {
            let asked = place.inner.find_out(&place.domain, &known);
            let ended = "the question was broken off";
            let facts = place.inner.stop.run_until_cancelled(asked).await;
            facts.unwrap_or_else(|| StsFacts::Doubt(ended.to_owned()))
        };
        let answer = async move {
            let answer = tokio::spawn(Box::pin(task)).await;
            answer.unwrap_or_else(|e| StsFacts::Doubt(format!("the question broke off: {e}")))
        };
        let flight = Flight { answer: answer.boxed().shared(), announced };
        flights.insert(domain.clone(), flight.clone());
        flight
    }

    /// What holds while the answer is out.
    async fn meanwhile(&self, domain: &Domain, announced: &Announced) -> StsFacts {
        match self.in_force(domain, self.ports.clock.now()).await {
            Ok(Some(policy)) => return StsFacts::Policy(policy),
            Ok(None) => {}
            Err(why) => return StsFacts::Doubt(why),
        }
        // A host that is always slow and never serves must not keep mail waiting to its end.
        let last = announced.get().and_then(|id| locked(&self.failures).last(domain, id));
        match last {
            Some(why) => StsFacts::Unfetched(why),
            None => StsFacts::Doubt(format!("the MTA-STS policy of {domain} is being fetched")),
        }
    }

    /// The policy that is kept, if it holds. An error: nobody knows.
    async fn in_force(&self, domain: &Domain, now: Timestamp) -> Result<Option<StsPolicy>, String> {
        match self.kept(domain.as_str()).await {
            Ok(kept) => Ok(kept.filter(|kept| kept.holds(now)).map(|kept| kept.policy)),
            Err(error) => Err(format!("kept policies can't be read: {error}")),
        }
    }

    async fn find_out(&self, domain: &Domain, known: &Announced) -> StsFacts {
        let kept = match self.in_force(domain, self.ports.clock.now()).await {
            Ok(kept) => kept,
            Err(why) => return StsFacts::Doubt(why),
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
        known.get_or_init(|| id.clone());
        match (self.fetch(domain, &id).await, kept) {
            (Ok(policy), _) => StsFacts::Policy(policy),
            (Err(NotFetched::Fault(why)), None) => StsFacts::Unfetched(why),
            (Err(NotFetched::Doubt(why)), None) => StsFacts::Doubt(why),
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
        let Flight { answer, announced } = self.inner.ask(domain);
        match timeout(self.inner.waits.answer, answer).await {
            Ok(facts) => facts,
            Err(_) => self.inner.meanwhile(domain, &announced).await,
        }
    }
}

/// The place of a question among those that are out. Its end clears it, so that who comes later
/// asks anew.
struct Place {
    inner: Arc<Inner>,
    domain: Domain,
}

impl Drop for Place {
    fn drop(&mut self) {
        locked(&self.inner.flights).remove(&self.domain);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
