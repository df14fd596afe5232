//! Connections kept between transactions, and addresses that did not answer.
//!
//! A connection is used again only for the purpose it was made for: the same policy entry, the same
//! host and address, the same demands on TLS. Whether it may carry the next message is decided anew,
//! from what it proved at its beginning. It is kept for seconds: the other side has few to give.
//!
//! An address that could not be reached is not tried again at once by every message that waits for
//! it: for a while its trouble is theirs too.

use crate::{
    policy::{HostTrouble, PolicyRef, Requirement},
    wire::Peer,
};
use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// How long a connection waits for its next transaction.
pub(super) const IDLE: Duration = Duration::from_secs(5);
/// How old a connection may become: what it proved is to be proved again now and then.
const AGE: Duration = Duration::from_secs(300);
/// Connections that wait, in all.
const WAITING_MAX: usize = 200;
/// How long an address that could not be reached is left alone, at most.
const ABSENT_MAX: Duration = Duration::from_secs(30);
/// Addresses remembered.
const ADDRESSES_MAX: usize = 10_000;

/// What a connection is made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Purpose {
    /// Content under policy, not a notice or a report of our own.
    pub(super) protected: bool,
    /// The entry in force for the recipients' domain, and the version of the whole set.
    pub(super) policy: PolicyRef,
    /// MX host.
    pub(super) host: String,
    /// Its address.
    pub(super) address: SocketAddr,
    /// What was asked of it.
    pub(super) requirement: Requirement,
}

/// A connection with its purpose.
pub(super) struct Pooled {
    purpose: Purpose,
    /// The connection.
    pub(super) peer: Box<dyn Peer>,
    born: Instant,
    /// It has carried a transaction before.
    pub(super) used: bool,
}

impl fmt::Debug for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooled").field("purpose", &self.purpose).finish_non_exhaustive()
    }
}

impl Pooled {
    pub(super) fn new(purpose: Purpose, peer: Box<dyn Peer>) -> Self {
        Self { purpose, peer, born: Instant::now(), used: false }
    }

    /// Where it leads.
    pub(super) const fn address(&self) -> SocketAddr {
        self.purpose.address
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// Each with the time since when it waits; the oldest first.
    waiting: Vec<(Instant, Pooled)>,
    addresses: HashMap<SocketAddr, Seen>,
}

/// What was last seen of an address.
#[derive(Debug)]
enum Seen {
    Answered(Instant),
    Absent(Instant, HostTrouble),
}

/// The connections that wait. Each is in one pair of hands at a time.
#[derive(Debug)]
pub(super) struct Pool {
    inner: Mutex<Inner>,
    farewells: TaskTracker,
    /// How long an address that could not be reached is left alone.
    absent: Duration,
}

impl Pool {
    /// `retry`: when a message is tried again for the first time. By then its own trouble is
    /// forgotten, so that it is really tried.
    pub(super) fn new(retry: Duration) -> Self {
        let (inner, farewells) = (Mutex::default(), TaskTracker::new());
        Self { inner, farewells, absent: (retry / 2).min(ABSENT_MAX) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that was made for just this and is still good; of several the one used last.
    pub(super) fn take(&self, purpose: &Purpose) -> Option<Pooled> {
        let mut spent = Vec::new();
        let found = {
            let mut inner = self.inner();
            loop {
                let Some(at) = inner.waiting.iter().rposition(|(_, p)| p.purpose == *purpose)
                else {
                    // One that waits for another purpose makes way: the host sees no more of us
                    // than it would have.
                    let other =
                        inner.waiting.iter().position(|(_, p)| p.address() == purpose.address);
                    spent.extend(other.map(|at| inner.waiting.remove(at).1));
                    break None;
                };
                let (since, mut pooled) = inner.waiting.remove(at);
                if since.elapsed() < IDLE && pooled.peer.is_ready() {
                    break Some(pooled);
                }
                spent.push(pooled);
            }
        };
        spent.into_iter().for_each(|pooled| self.part(pooled));
        found
    }

    /// Keeps a connection after its transaction, if it may have another.
    pub(super) fn keep(&self, mut pooled: Pooled) {
        let young = pooled.born.elapsed() < AGE;
        if !young || !pooled.peer.is_ready() {
            return self.part(pooled);
        }
        pooled.used = true;
        let surplus = {
            let mut inner = self.inner();
            inner.waiting.push((Instant::now(), pooled));
            (inner.waiting.len() > WAITING_MAX).then(|| inner.waiting.remove(0).1)
        };
        if let Some(surplus) = surplus {
            self.part(surplus);
        }
    }

    /// QUIT, in nobody's way.
    pub(super) fn part(&self, pooled: Pooled) {
        self.farewells.spawn(pooled.peer.quit());
    }

    /// Ends connections that have waited too long; when to look again.
    pub(super) fn sweep(&self) -> Option<Duration> {
        let (spent, next) = {
            let mut inner = self.inner();
            let count = inner.waiting.partition_point(|(since, _)| since.elapsed() >= IDLE);
            let spent: Vec<_> = inner.waiting.drain(..count).collect();
            let oldest =
                inner.waiting.first().map(|(since, _)| IDLE.saturating_sub(since.elapsed()));
            (spent, oldest)
        };
        spent.into_iter().for_each(|(_, pooled)| self.part(pooled));
        next
    }

    /// Ends all of them, and waits for the last words.
    pub(super) async fn close(&self) {
        let all = std::mem::take(&mut self.inner().waiting);
        all.into_iter().for_each(|(_, pooled)| self.part(pooled));
        self.farewells.close();
        self.farewells.wait().await;
        self.farewells.reopen();
    }

    /// The trouble of an address that could not be reached a moment ago.
    pub(super) fn absent(&self, address: SocketAddr) -> Option<HostTrouble> {
        match self.inner().addresses.get(&address)? {
            Seen::Absent(since, trouble) if since.elapsed() < self.absent => Some(trouble.clone()),
            Seen::Absent(..) | Seen::Answered(_) => None,
        }
    }

    /// An address was reached.
    pub(super) fn answered(&self, address: SocketAddr) {
        self.note(address, Seen::Answered(Instant::now()));
    }

    /// An address could not be reached by an attempt begun then. Where another was answered since,
    /// it was not the address.
    pub(super) fn unreachable(&self, address: SocketAddr, begun: Instant, trouble: &HostTrouble) {
        let answered_since = match self.inner().addresses.get(&address) {
            Some(Seen::Answered(at)) => *at >= begun,
            Some(Seen::Absent(..)) | None => false,
        };
        if !answered_since {
            self.note(address, Seen::Absent(Instant::now(), trouble.clone()));
        }
    }

    fn note(&self, address: SocketAddr, seen: Seen) {
        let mut inner = self.inner();
        if inner.addresses.len() >= ADDRESSES_MAX && !inner.addresses.contains_key(&address) {
            inner.addresses.retain(|_, seen| match seen {
                Seen::Answered(at) | Seen::Absent(at, _) => at.elapsed() < self.absent,
            });
            if inner.addresses.len() >= ADDRESSES_MAX {
                return;
            }
        }
        inner.addresses.insert(address, seen);
    }

    /// Every address may be tried at once.
    pub(super) fn forgive(&self) {
        self.inner().addresses.retain(|_, seen| matches!(seen, Seen::Answered(_)));
    }
}
