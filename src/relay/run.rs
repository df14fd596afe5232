//! The loop: claims due work as there is room for it, of each domain as much as its pace allows, and
//! sleeps until something is due, arrives or ends.

use super::{
    Relay,
    deliver::{self, Verdict},
    outcome::Fate,
    pace::{Contact, Paces},
};
use crate::{
    mail::{Domain, QueueId},
    store::{Ask, Claim, Claimed, StoreError},
};
use futures_util::FutureExt;
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::HashMap,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// The longest sleep: a clock that was set, or a lost signal, costs no more.
pub(super) const SLEEP_MAX: Duration = Duration::from_secs(30);
/// The shortest sleep when work is due and none was given: leased elsewhere, or a store in trouble.
const SLEEP_MIN: Duration = Duration::from_secs(1);

impl Relay {
    /// Works the queue until it is told to stop; then lets running attempts finish for `drain`, and
    /// gives the rest back.
    ///
    /// # Errors
    /// [`StoreError::Fatal`] if the store is of no more use: the process is to end.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), StoreError> {
        let mut floor = Floor::new(self.clone());
        let arrivals = self.ports().queue.arrivals();
        // One future over the rounds: an arrival that it has seen while something else was seen to
        // first is still in it.
        let arrived = arrivals.notified();
        tokio::pin!(arrived);
        let result = loop {
            // Listening begins before the look into the queue, so that no arrival falls in between.
            arrived.as_mut().enable();
            if let Err(error @ StoreError::Fatal(_)) = floor.fill().await {
                break Err(error);
            }
            let sleep = floor.sleep();
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                Some(ended) = floor.tasks.join_next_with_id() => floor.ended(&ended),
                () = &mut arrived => {
                    floor.look = true;
                    arrived.set(arrivals.notified());
                }
                () = tokio::time::sleep(sleep) => floor.look = true,
            }
            floor.note_ends();
        };
        floor.close().await;
        self.pool().close().await;
        result
    }

    /// One claim from beginning to end. A panic on the way is this message's trouble alone: it
    /// waits, and all others go on.
    pub(super) async fn work(&self, claim: Claim, lease: Lease) -> Contact {
        let most = attempt_max(self.settings().lease);
        let attempt = AssertUnwindSafe(deliver::attempt(self, &claim)).catch_unwind();
        let mut verdict = match tokio::time::timeout(most, attempt).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_)) => self.given_up(&claim, "the attempt broke off by a fault of the program"),
            Err(_) => self.given_up(&claim, "the attempt took too long and was broken off"),
        };
        let (contact, used) = (verdict.contact, verdict.used.take());
        let written = match AssertUnwindSafe(self.settle(&claim, &lease, verdict))
            .catch_unwind()
            .await
        {
            Ok(written) => written,
            Err(_) => {
                let verdict = self.given_up(&claim, "settling broke off by a fault of the program");
                let put_back =
                    AssertUnwindSafe(self.put_back(&claim, &lease, verdict)).catch_unwind();
                if put_back.await.is_err() {
                    tracing::error!(id = %claim.message.facts.id, "the message is taken up again after its lease");
                }
                false
            }
        };
        match used {
            Some(used) if written => self.pool().keep(*used),
            Some(used) => self.pool().part(*used),
            None => {}
        }
        contact
    }

    fn given_up(&self, claim: &Claim, text: &str) -> Verdict {
        tracing::error!(id = %claim.message.facts.id, "{text}");
        let set = self.ports().policies.current();
        let policy = set.lookup(&claim.domain, self.now()).at.clone();
        Verdict { broke: true, ..Verdict::all(claim, &Fate::ours(policy, text), Vec::new()) }
    }

    async fn give_back(&self, token: u64) {
        if let Err(error) = self.ports().queue.release(token).await {
            tracing::debug!("a claim was not given back: {error}");
        }
    }
}

/// One message and one of its domains.
type Unit = (QueueId, Domain);
type Ended = Result<(Id, Contact), JoinError>;

/// What runs.
struct Floor {
    relay: Relay,
    tasks: JoinSet<Contact>,
    running: HashMap<Id, Running>,
    /// At work, and under which lease.
    units: HashMap<Unit, Lease>,
    paces: Paces,
    /// Claims of units whose work has not been seen to end: to be given back when it has.
    late: HashMap<Unit, u64>,
    back: Vec<u64>,
    /// There may be something to claim.
    look: bool,
    /// When there is the next to claim, as far as is known.
    next: Option<Timestamp>,
}

struct Running {
    lease: Lease,
    unit: Unit,
}

/// The lease under which a claim is worked at: not always the one that it came with.
#[derive(Debug, Clone)]
pub(super) struct Lease(Arc<AtomicU64>);

impl Lease {
    pub(super) fn new(token: u64) -> Self {
        Self(Arc::new(AtomicU64::new(token)))
    }
    pub(super) fn token(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
    fn renew(&self, token: u64) {
        self.0.store(token, Ordering::Release);
    }
}

impl Floor {
    fn new(relay: Relay) -> Self {
        let paces = Paces::new(relay.settings().connections_per_domain);
        let (tasks, running, units) = (JoinSet::new(), HashMap::new(), HashMap::new());
        let (late, back) = (HashMap::new(), Vec::new());
        Self { relay, tasks, running, units, paces, late, back, look: true, next: None }
    }

    fn free(&self) -> usize {
        self.relay.settings().workers.max(1).saturating_sub(self.tasks.len())
    }

    /// Starts what can start, while the queue gives as much as is asked.
    async fn fill(&mut self) -> Result<(), StoreError> {
        for token in std::mem::take(&mut self.back) {
            self.relay.give_back(token).await;
        }
        while self.look && self.free() > 0 {
            let (now, lease, max) = (self.relay.now(), self.relay.settings().lease, self.free());
            let ask = Ask { now, max, lease, room: self.paces.room() };
            let Claimed { claims, next } =
                self.relay.ports().queue.claim(ask).await.inspect_err(|e| {
                    tracing::error!("no work can be claimed: {e}");
                    (self.look, self.next) = (false, Some(now));
                })?;
            self.look = claims.len() >= max;
            self.next = next;
            claims.into_iter().for_each(|claim| self.begin(claim));
        }
        // Without a free worker nobody knows.
        self.look |= self.free() == 0;
        Ok(())
    }

    /// Starts an attempt. Where work at the same unit has not been seen to end, the claim waits for
    /// that: either it was settled and more of it is due already, or the clock jumped over the end of
    /// its lease. What that work has done is written under the new lease then: it is not done again.
    fn begin(&mut self, claim: Claim) {
        let unit = (claim.message.facts.id, claim.domain.clone());
        match self.units.get(&unit) {
            Some(lease) => {
                lease.renew(claim.token);
                self.late.insert(unit, claim.token);
            }
            None => self.start(claim, unit),
        }
    }

    fn start(&mut self, claim: Claim, unit: Unit) {
        let lease = Lease::new(claim.token);
        self.units.insert(unit.clone(), lease.clone());
        self.paces.begin(&claim.domain);
        let (relay, held) = (self.relay.clone(), lease.clone());
        let id = self.tasks.spawn(Box::pin(async move { relay.work(claim, held).await })).id();
        self.running.insert(id, Running { lease, unit });
    }

    /// All that has ended meanwhile: the queue is asked once for the places of them all.
    fn note_ends(&mut self) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.ended(&ended);
        }
    }

    fn ended(&mut self, ended: &Ended) {
        let (id, contact) = match ended {
            Ok((id, contact)) => (*id, *contact),
            Err(error) => (error.id(), Contact::None),
        };
        let Some(Running { unit, .. }) = self.running.remove(&id) else { return };
        // What was full may have more to claim; what had room had nothing more.
        self.look |= self.paces.end(&unit.1, contact);
        self.units.remove(&unit);
        self.back.extend(self.late.remove(&unit));
    }

    /// How long nothing is to be done: until the next is due or a kept connection has waited enough,
    /// within bounds. With no room the next end of a task wakes us.
    fn sleep(&self) -> Duration {
        let pool = self.relay.pool().sweep().unwrap_or(SLEEP_MAX);
        let due = match self.next.filter(|_| self.free() > 0) {
            Some(next) => match Duration::try_from(next.duration_since(self.relay.now())) {
                Ok(wait) if !wait.is_zero() => wait,
                Ok(_) | Err(_) => SLEEP_MIN,
            },
            None => SLEEP_MAX,
        };
        due.min(pool).min(SLEEP_MAX)
    }

    /// Finishes: what runs has `drain` to end; what then still runs is broken off and given back.
    async fn close(mut self) {
        let end = Instant::now() + self.relay.settings().drain;
        while let Some(ended) = until(end, self.tasks.join_next_with_id()).await {
            self.ended(&ended);
        }
        self.tasks.shutdown().await;
        let running = std::mem::take(&mut self.running).into_values();
        let running = running.map(|running| running.lease.token());
        let late = std::mem::take(&mut self.late).into_values();
        for token in running.chain(late).chain(std::mem::take(&mut self.back)).collect::<Vec<_>>() {
            self.relay.give_back(token).await;
        }
    }
}

async fn until<T>(end: Instant, next: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::time::timeout_at(end, next).await.ok().flatten()
}

/// Four fifths of the lease: settling needs the rest.
fn attempt_max(lease: SignedDuration) -> Duration {
    Duration::try_from(lease / 5 * 4).unwrap_or_default()
}
