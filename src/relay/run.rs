//! The loop: claims due work as workers are free, holds each domain to its number of connections,
//! and sleeps until something is due, arrives or ends.

use super::{
    Relay,
    deliver::{self, Verdict},
    later,
    outcome::Fate,
};
use crate::{
    mail::{Domain, QueueId},
    store::{Claim, StoreError},
};
use futures_util::FutureExt;
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    panic::AssertUnwindSafe,
    time::Duration,
};
use tokio::{
    task::{Id, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// The longest sleep: a clock that was set, or a lost signal, costs no more.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// The shortest sleep when work is due and none was given: leased elsewhere, or a store in trouble.
const SLEEP_MIN: Duration = Duration::from_secs(1);
/// Recipients of claims that wait in line for a connection to their domain, at most.
const LINE_MAX: usize = 10_000;

impl Relay {
    /// Works the queue until it is told to stop; then lets running attempts finish for `drain`, and
    /// gives the rest back.
    ///
    /// # Errors
    /// [`StoreError::Fatal`] if the store is of no more use: the process is to end.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), StoreError> {
        let mut floor = Floor::new(self.clone());
        let arrivals = self.ports().queue.arrivals();
        let result = loop {
            // Listening begins before the look into the queue, so that no arrival falls in between.
            let arrived = arrivals.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            if let Err(error @ StoreError::Fatal(_)) = floor.fill().await {
                break Err(error);
            }
            let sleep = floor.sleep().await;
            tokio::select! {
                biased;
                () = stop.cancelled() => break Ok(()),
                Some(ended) = floor.tasks.join_next_with_id() => floor.ended(ended),
                () = arrived, if floor.has_room() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        };
        floor.close().await;
        result
    }

    /// One claim from beginning to end. A panic on the way is this message's trouble alone: it
    /// waits, and all others go on.
    pub(super) async fn work(&self, claim: Claim) {
        let most = attempt_max(self.settings().lease);
        let attempt = AssertUnwindSafe(deliver::attempt(self, &claim)).catch_unwind();
        let verdict = match tokio::time::timeout(most, attempt).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_)) => self.given_up(&claim, "the attempt broke off by a fault of the program"),
            Err(_) => self.given_up(&claim, "the attempt took too long and was broken off"),
        };
        if AssertUnwindSafe(self.settle(&claim, verdict)).catch_unwind().await.is_err() {
            let verdict = self.given_up(&claim, "settling broke off by a fault of the program");
            let put_back = AssertUnwindSafe(self.put_back(&claim, verdict)).catch_unwind();
            if put_back.await.is_err() {
                tracing::error!(id = %claim.message.facts.id, "the message is taken up again after its lease");
            }
        }
    }

    fn given_up(&self, claim: &Claim, text: &str) -> Verdict {
        tracing::error!(id = %claim.message.facts.id, "{text}");
        let set = self.ports().policies.current();
        let policy = set.lookup(&claim.domain, self.now()).at.clone();
        Verdict { broke: true, ..Verdict::all(claim, &Fate::ours(policy, text), Vec::new()) }
    }

    /// True if a claim that waited in line is still there to be worked on.
    async fn resume(&self, token: u64) -> bool {
        match self.ports().queue.resume(token).await {
            Ok(()) => true,
            Err(StoreError::Fenced) => false,
            Err(error) => {
                tracing::debug!("a claim was not taken up: {error}");
                self.give_back(token).await;
                false
            }
        }
    }

    async fn give_back(&self, token: u64) {
        if let Err(error) = self.ports().queue.release(token).await {
            tracing::debug!("a claim was not given back: {error}");
        }
    }
}

/// What runs and what waits in line.
struct Floor {
    relay: Relay,
    tasks: JoinSet<()>,
    running: HashMap<Id, Running>,
    connections: HashMap<Domain, usize>,
    line: VecDeque<Waiting>,
    line_recipients: usize,
}

struct Running {
    token: u64,
    message: QueueId,
    domain: Domain,
}

struct Waiting {
    claim: Claim,
    /// After this the rest of the lease is too short for an attempt.
    until: Timestamp,
}

impl Floor {
    fn new(relay: Relay) -> Self {
        Self {
            relay,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            connections: HashMap::new(),
            line: VecDeque::new(),
            line_recipients: 0,
        }
    }

    fn free(&self) -> usize {
        self.relay.settings().workers.max(1).saturating_sub(self.tasks.len())
    }

    fn has_room(&self) -> bool {
        self.free() > 0 && self.line_recipients < LINE_MAX
    }

    /// Starts what can start: first from the line, then from the queue while it gives as much as is
    /// asked.
    async fn fill(&mut self) -> Result<(), StoreError> {
        self.advance().await;
        while self.has_room() {
            while let Some(ended) = self.tasks.try_join_next_with_id() {
                self.ended(ended);
            }
            let max = self.free();
            let (now, lease) = (self.relay.now(), self.relay.settings().lease);
            let claims =
                self.relay.ports().queue.claim(now, max, lease).await.inspect_err(|e| {
                    tracing::error!("no work can be claimed: {e}");
                })?;
            let got = claims.len();
            let mut parked = Vec::new();
            for claim in claims {
                if self.runs(&claim) {
                    // Settled, and due again before its task was seen to end.
                    self.relay.give_back(claim.token).await;
                } else {
                    parked.extend(self.admit(claim, later(now, lease / 2)));
                }
            }
            if !parked.is_empty() {
                // The operator may still take them out of the line.
                self.relay.ports().queue.park(&parked).await?;
            }
            if got < max {
                break;
            }
        }
        Ok(())
    }

    /// True if work at the same recipients has not ended: it is not begun twice.
    fn runs(&self, claim: &Claim) -> bool {
        let id = claim.message.facts.id;
        self.running.values().any(|r| r.message == id && r.domain == claim.domain)
    }

    /// Starts a claim, or puts it in line behind its domain's connections. Gives the token of what
    /// is in line.
    fn admit(&mut self, claim: Claim, until: Timestamp) -> Option<u64> {
        let id = claim.message.facts.id;
        self.forget(id, &claim.domain);
        if self.may_connect(&claim.domain) {
            self.start(claim);
            return None;
        }
        let token = claim.token;
        self.line_recipients = self.line_recipients.saturating_add(claim.recipients.len());
        self.line.push_back(Waiting { claim, until });
        Some(token)
    }

    /// Drops from the line what an order took apart: its recipients have been claimed anew.
    fn forget(&mut self, id: QueueId, domain: &Domain) {
        let same = |w: &Waiting| w.claim.message.facts.id == id && w.claim.domain == *domain;
        let Some(at) = self.line.iter().position(same) else { return };
        let gone = self.line.remove(at).map_or(0, |w| w.claim.recipients.len());
        self.line_recipients = self.line_recipients.saturating_sub(gone);
    }

    fn may_connect(&self, domain: &Domain) -> bool {
        let limit = self.relay.settings().connections_per_domain.max(1);
        self.connections.get(domain).copied().unwrap_or(0) < limit
    }

    fn start(&mut self, claim: Claim) {
        let domain = claim.domain.clone();
        let (token, message) = (claim.token, claim.message.facts.id);
        *self.connections.entry(domain.clone()).or_insert(0) += 1;
        let relay = self.relay.clone();
        let work = Box::pin(async move { relay.work(claim).await });
        let id = self.tasks.spawn(work).id();
        self.running.insert(id, Running { token, message, domain });
    }

    /// Starts from the line what may connect now, in order; gives back whose lease became too
    /// short.
    async fn advance(&mut self) {
        let now = self.relay.now();
        for waiting in std::mem::take(&mut self.line) {
            let recipients = waiting.claim.recipients.len();
            self.line_recipients = self.line_recipients.saturating_sub(recipients);
            if now >= waiting.until {
                self.relay.give_back(waiting.claim.token).await;
            } else if self.free() > 0 && self.may_connect(&waiting.claim.domain) {
                if self.relay.resume(waiting.claim.token).await {
                    self.start(waiting.claim);
                }
            } else {
                self.line_recipients = self.line_recipients.saturating_add(recipients);
                self.line.push_back(waiting);
            }
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => error.id(),
        };
        let Some(Running { domain, .. }) = self.running.remove(&id) else { return };
        if let Some(count) = self.connections.get_mut(&domain) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.connections.remove(&domain);
            }
        }
    }

    /// How long nothing is to be done: until the next is due, within bounds. With no room the next
    /// end of a task wakes us.
    async fn sleep(&self) -> Duration {
        if !self.has_room() {
            return SLEEP_MAX;
        }
        match self.relay.ports().queue.next_due().await {
            Ok(Some(due)) => {
                let wait = due.duration_since(self.relay.now());
                match Duration::try_from(wait) {
                    Ok(wait) if !wait.is_zero() => wait.min(SLEEP_MAX),
                    Ok(_) | Err(_) => SLEEP_MIN,
                }
            }
            Ok(None) => SLEEP_MAX,
            Err(_) => SLEEP_MIN,
        }
    }

    /// Finishes: the line goes back at once, what runs has `drain` to end; what then still runs is
    /// broken off and given back.
    async fn close(mut self) {
        for waiting in std::mem::take(&mut self.line) {
            self.relay.give_back(waiting.claim.token).await;
        }
        let end = Instant::now() + self.relay.settings().drain;
        while let Some(ended) = until(end, self.tasks.join_next_with_id()).await {
            self.ended(ended);
        }
        self.tasks.shutdown().await;
        for running in std::mem::take(&mut self.running).into_values() {
            self.relay.give_back(running.token).await;
        }
    }
}

async fn until<T>(end: Instant, next: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::time::timeout_at(end, next).await.ok().flatten()
}

/// Two fifths of the lease: half of it may be gone in line, and settling needs the rest.
fn attempt_max(lease: SignedDuration) -> Duration {
    Duration::try_from(lease / 5 * 2).unwrap_or_default()
}
