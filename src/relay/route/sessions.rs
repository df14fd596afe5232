//! What the search tells of the TLS it met, for reports (RFC 8460). Sessions inside, to a next hop
//! that configuration names, and those that carry reports are nobody's business but ours.

use super::{Search, is_inside};
use crate::{
    policy::{
        HostFacts, Level, PeerFacts, StartTls, StsFacts, Trouble,
        tlsrpt::{AppliedPolicy, PolicyType, ResultType, SessionNote, TlsFailure},
    },
    seal::Class,
};
use std::net::IpAddr;

impl Search<'_> {
    /// The connection is good enough.
    pub(super) fn note_cleared(&self, peer: &PeerFacts) {
        match TlsFailure::of_cleared(&peer.tls, self.asked.tls) {
            Ok(()) => self.note_peer(peer, None),
            Err(Some(failure)) => self.note_peer(peer, Some(failure)),
            Err(None) => {}
        }
    }

    /// The connection stands and is left. What it lacks beside TLS is no failure of TLS.
    pub(super) fn note_left(&self, peer: &PeerFacts, trouble: Trouble) {
        if let StartTls::Done(tls) = &peer.tls
            && trouble == Trouble::Unproven
        {
            let failure = TlsFailure::of_unproven(self.level(), &self.asked, tls, self.relay.now());
            self.note_peer(peer, Some(failure));
        } else {
            self.note_cleared(peer);
        }
    }

    /// The connection did not come about.
    pub(super) fn note_lost(&self, host: &HostFacts, address: IpAddr, trouble: Trouble) {
        if let Some(failure) = TlsFailure::of_connecting(trouble) {
            let policy = AppliedPolicy::of(Some(host), self.sts.as_ref());
            self.note(policy, Some(&host.name), Some(address), Some(failure));
        }
    }

    /// No connection was tried, for what DNS and the domain's policy say of the host.
    pub(super) fn note_passed_over(&self, host: &HostFacts, trouble: Trouble) {
        let Some(failure) = TlsFailure::of_passed_over(trouble, host, self.sts.as_ref()) else {
            return;
        };
        let mut policy = AppliedPolicy::of(Some(host), self.sts.as_ref());
        if failure.result == ResultType::DaneRequired {
            policy = AppliedPolicy { kind: PolicyType::Tlsa, ..AppliedPolicy::NONE };
        }
        self.note(policy, Some(&host.name), None, Some(failure));
    }

    /// The domain announces a policy by MTA-STS that could not be had.
    pub(super) fn note_sts(&self) {
        if let Some(StsFacts::Unfetched(fault)) = &self.sts {
            let policy = AppliedPolicy { kind: PolicyType::Sts, ..AppliedPolicy::NONE };
            self.note(policy, None, None, Some(TlsFailure::of_sts(fault)));
        }
    }

    fn note_peer(&self, peer: &PeerFacts, failure: Option<TlsFailure>) {
        let policy = AppliedPolicy::of(self.host.as_ref(), self.sts.as_ref());
        self.note(policy, Some(&peer.host), Some(peer.address.ip()), failure);
    }

    fn note(
        &self,
        policy: AppliedPolicy,
        mx: Option<&str>,
        address: Option<IpAddr>,
        failure: Option<TlsFailure>,
    ) {
        let reports = matches!(self.claim.message.facts.class, Class::Report | Class::TlsReport);
        if self.configured || reports || is_inside(self.relay, &self.claim.domain) {
            return;
        }
        self.relay.ports().sessions.note(SessionNote {
            domain: self.claim.domain.clone(),
            at: self.relay.now(),
            policy,
            mx: mx.map(str::to_owned),
            address,
            failure,
        });
    }

    /// The level in force for this mail.
    fn level(&self) -> Level {
        match self.claim.message.facts.class {
            Class::Protected => self.policy().level,
            Class::Notice | Class::Code | Class::Report => {
                match (self.relay.settings().notification_level, self.policy().level) {
                    (Level::Published, entry) if entry.proves() => entry,
                    (level, _) => level,
                }
            }
            Class::TlsReport => Level::Opportunistic,
        }
    }
}
