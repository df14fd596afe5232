//! Probing: what a domain's mail hosts show now, and which levels they would pass. Nothing is sent:
//! a connection greets, starts TLS, says QUIT.
//!
//! [`Prober`] looks; [`Report`] says what was seen and holds a policy entry to start from;
//! [`watch`] looks at every partner on a schedule.

mod look;
mod report;
mod suggest;
#[cfg(test)]
mod tests;
pub mod watch;

pub use report::{
    AddressReport, Answer, DaneReport, DaneState, Extensions, HostReport, LevelReport,
    PolicyVerdict, Report, Short, Suggestion,
};

use crate::{
    clock::Clock,
    dns::Resolver,
    mail::Domain,
    policies::StsPolicies,
    policy::{Dnssec, MxFacts, MxHost, Policy},
    wire::Connector,
};
use look::Looking;
use std::sync::Arc;

/// Hosts of one MX set that are looked at.
const HOSTS_MAX: usize = 16;

/// What probing asks of the world.
#[derive(Debug, Clone)]
pub struct ProbePorts {
    /// DNS.
    pub resolver: Arc<dyn Resolver>,
    /// MTA-STS.
    pub sts: Arc<dyn StsPolicies>,
    /// The network.
    pub connector: Arc<dyn Connector>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Looks at domains.
#[derive(Debug, Clone)]
pub struct Prober {
    ports: ProbePorts,
    /// `delivery.port`
    port: u16,
}

impl Prober {
    /// A prober that connects to this port where a policy names none.
    pub const fn new(ports: ProbePorts, port: u16) -> Self {
        Self { ports, port }
    }

    /// Looks at a domain as its entry would have it delivered: with its next hop, its trust anchors
    /// and our certificate for it. Without a partner entry, as MX and the usual anchors have it.
    pub async fn probe(&self, domain: &Domain, policy: Option<&Policy>) -> Report {
        let policy = policy.filter(|policy| policy.partner);
        let hop = policy.and_then(|policy| policy.next_hop.as_ref());
        let place = hop.map_or_else(
            || domain.clone(),
            |hop| hop.host.parse().unwrap_or_else(|_| domain.clone()),
        );
        let mx = match hop {
            // Configuration gave the name: no answer of DNS stands behind it, and none is needed.
            Some(hop) if !hop.mx => {
                let host = MxHost { name: hop.host.clone(), preference: 0 };
                MxFacts::Hosts(vec![host], Dnssec::Secure)
            }
            Some(_) | None => self.ports.resolver.mx(&place).await,
        };
        let (hosts, sts) = match &mx {
            MxFacts::Hosts(hosts, dnssec) => {
                let port = hop.and_then(|hop| hop.port).unwrap_or(self.port);
                let looking = Looking { ports: &self.ports, policy, port, dnssec: *dnssec };
                let sts = self.ports.sts.policy(&place).await;
                (looking.all(hosts).await, Some(sts))
            }
            MxFacts::NoDomain
            | MxFacts::NoHost
            | MxFacts::Null
            | MxFacts::Trouble(_)
            | MxFacts::Refused(_) => (Vec::new(), None),
        };
        let seen = report::Seen { domain, policy, mx: &mx, sts: sts.as_ref(), hosts: &hosts };
        seen.report(self.ports.clock.now())
    }
}
