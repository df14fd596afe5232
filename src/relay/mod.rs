//! The queue at work: every due claim is routed, carried out and settled.
//!
//! One claim is one message and its recipients in one domain, leased from the queue. The way of a
//! claim:
//!
//! 1. `route`: [`decide`](crate::policy::decide()) is asked with what is known, and says what to
//!    find out next (the MX set, a connection), until it has a route.
//! 2. `deliver`: with a clearance the content is opened and streams out over the connection.
//! 3. `outcome`: what replies, lost connections and our own trouble mean for each recipient.
//! 4. `settle`: outcomes, grants, notices and reports go into the queue in one commit.
//!
//! What may repeat after a crash, or when the connection is lost after the final dot: one SMTP
//! transaction that was never answered (RFC 5321 §4.5.3.2.6 asks the sender to try again then).

mod deliver;
mod log;
mod outcome;
mod pace;
mod pool;
mod report;
mod route;
mod run;
mod settle;
mod sweep;
#[cfg(test)]
mod tests;

pub use sweep::Sweeper;

use pool::Pool;

use crate::{
    clock::{Clock, ClockDoubt, TrustedTime},
    dns::Resolver,
    mail::{Address, Domain},
    policies::{Policies, StsPolicies, TlsSessions},
    policy::{Level, file::NextHop},
    store::{PeopleStore, QueueStore},
    vault::Vault,
    wire::Connector,
};
use jiff::{SignedDuration, Timestamp};
use std::{sync::Arc, time::Duration};

/// What the relay is told by the configuration.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// `hostname`: stands in `Received` and in reports.
    pub hostname: Domain,
    /// `organization.domains`: mail for them goes to the inside host.
    pub organization: Vec<Domain>,
    /// `inside.host`
    pub inside: NextHop,
    /// `inside.tls`
    pub inside_level: Level,
    /// `notification.level`
    pub notification_level: Level,
    /// `delivery.port`
    pub port: u16,
    /// `delivery.retry`; the last repeats.
    pub retry: Vec<SignedDuration>,
    /// `delivery.give_up`
    pub give_up: SignedDuration,
    /// `delivery.warn_after`
    pub warn_after: SignedDuration,
    /// `delivery.connections_per_domain`
    pub connections_per_domain: usize,
    /// Claims worked on at a time.
    pub workers: usize,
    /// `From` of reports: `organization.postmaster`.
    pub report_from: Address,
    /// How long a claim is leased. Four fifths are the most that one attempt may take; the rest is
    /// for settling: so no claim is worked on past its lease. Hours, then.
    pub lease: SignedDuration,
    /// How long running attempts may go on once the relay is told to stop.
    pub drain: Duration,
}

/// What the relay works with.
#[derive(Debug, Clone)]
pub struct RelayPorts {
    /// The queue.
    pub queue: Arc<dyn QueueStore>,
    /// Grants, for notices that can't be delivered.
    pub people: Arc<dyn PeopleStore>,
    /// Opens and grants sealed mail.
    pub vault: Vault,
    /// DNS.
    pub resolver: Arc<dyn Resolver>,
    /// What domains publish by MTA-STS.
    pub sts: Arc<dyn StsPolicies>,
    /// Connections to next hops.
    pub connector: Arc<dyn Connector>,
    /// Policies in force.
    pub policies: Arc<dyn Policies>,
    /// Is told how the TLS of sessions went.
    pub sessions: Arc<dyn TlsSessions>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// The relay. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Relay {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: RelaySettings,
    ports: RelayPorts,
    pool: Pool,
}

impl Relay {
    /// A relay over these ports; [`Relay::run`] sets it to work.
    pub fn new(settings: RelaySettings, ports: RelayPorts) -> Self {
        let retry = settings.retry.first().copied().unwrap_or(settle::NO_SCHEDULE);
        let pool = Pool::new(Duration::try_from(retry).unwrap_or_default());
        Self { shared: Arc::new(Shared { settings, ports, pool }) }
    }

    fn settings(&self) -> &RelaySettings {
        &self.shared.settings
    }

    fn ports(&self) -> &RelayPorts {
        &self.shared.ports
    }

    fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    /// What the operator sends on its way again is really tried, also at hosts that did not answer a
    /// moment ago.
    pub fn forgive(&self) {
        self.pool().forgive();
    }

    fn now(&self) -> Timestamp {
        self.shared.ports.clock.now()
    }

    /// The time at which the time to deliver what arrived then is found to be over, if it is
    /// (`delivery.give_up`).
    fn overdue(&self, arrived: Timestamp) -> Result<Option<TrustedTime>, ClockDoubt> {
        let now = self.ports().vault.guard.check()?;
        Ok(Some(now).filter(|now| now.get() >= later(arrived, self.settings().give_up)))
    }
}

/// `at + by`, at the end of time instead of past it.
fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// At most `max` bytes of a text, cut at a character's border.
fn bounded(mut text: String, max: usize) -> String {
    if text.len() > max {
        let mut end = max;
        while !text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        text.truncate(end);
    }
    text
}
