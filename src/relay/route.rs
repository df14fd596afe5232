//! Routing: finds out what [`decide()`] asks for, one fact after another, until it has a route.

mod sessions;

use super::{
    Relay, bounded,
    outcome::{OURS, TEXT_MAX},
    pace::Contact,
    pool::{Pooled, Purpose},
};
use crate::{
    dns::Addresses,
    mail::{Domain, EnhancedStatus},
    policy::{
        Clearance, Dane, Dnssec, Facts, HostFacts, HostTrouble, Level, MxFacts, MxHost, Need,
        PeerFacts, PolicyRef, PolicySet, Question, Reason, Requirement, Route, StartTls, StsFacts,
        Trouble, Why, decide, file::NextHop, line_in_doubt,
    },
    seal::Class,
    store::{Attempt, Claim, DnsRecord},
};
use jiff::Timestamp;
use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tokio::time::Instant;

/// Port where a next hop of configuration names none (RFC 5321 §4.5.4.2).
const SMTP_PORT: u16 = 25;
/// Hosts of one MX set that are tried in one attempt; a set may name any number.
const HOSTS_MAX: usize = 16;
/// Addresses of one host that are tried in one attempt.
const ADDRESSES_MAX: usize = 4;
/// Questions to `decide` in one attempt. Every host and address costs two at most.
const QUESTIONS_MAX: usize = 5 + HOSTS_MAX * (3 + 3 * ADDRESSES_MAX);

/// Where a claim's recipients go, for now.
pub(super) enum Way {
    /// Over this connection.
    Direct(Box<Clearance>, Box<Pooled>),
    /// Sealed for pickup.
    Envelope(Why),
    /// Not now.
    Defer(Why, EnhancedStatus),
    /// Back to the sender.
    Reject(Why, EnhancedStatus),
}

/// One attempt's search for a way. It stays between hosts, so that a connection lost in the
/// transaction leads on to the next.
pub(super) struct Search<'a> {
    relay: &'a Relay,
    claim: &'a Claim,
    set: Arc<PolicySet>,
    /// Bytes that will go over the wire, the added header field included.
    size: u64,
    port: u16,
    mx: Option<MxFacts>,
    sts: Option<StsFacts>,
    /// Hosts not tried yet, in order.
    hosts: VecDeque<MxHost>,
    /// The one that is tried.
    host: Option<HostFacts>,
    /// Its addresses not tried yet.
    addresses: VecDeque<IpAddr>,
    exhausted: bool,
    tried: Vec<HostTrouble>,
    questions: usize,
    /// The next hop is named by configuration.
    configured: bool,
    /// What the last connection was to be.
    asked: Requirement,
    /// Some host published TLSA records.
    dane: bool,
    /// A connection that had been kept was lost: only new ones from here on.
    fresh: bool,
    /// Addresses that could not be reached, and since when they were tried.
    unreachable: Vec<(SocketAddr, Instant, HostTrouble)>,
    /// What was learnt of the domain's hosts.
    pub(super) contact: Contact,
    /// The connection that brought the message.
    pub(super) used: Option<Box<Pooled>>,
    /// What is recorded of this attempt.
    pub(super) attempts: Vec<Attempt>,
}

impl<'a> Search<'a> {
    /// A search with nothing known yet, under the policies now in force.
    pub(super) fn new(relay: &'a Relay, claim: &'a Claim, size: u64) -> Self {
        Self {
            relay,
            claim,
            set: relay.ports().policies.current(),
            size,
            port: relay.settings().port,
            mx: None,
            sts: None,
            hosts: VecDeque::new(),
            host: None,
            addresses: VecDeque::new(),
            exhausted: false,
            tried: Vec::new(),
            questions: 0,
            configured: false,
            asked: Requirement::default(),
            dane: false,
            fresh: false,
            unreachable: Vec::new(),
            contact: Contact::None,
            used: None,
            attempts: Vec::new(),
        }
    }

    /// Asks and finds out until there is a way.
    pub(super) async fn way(&mut self) -> Way {
        let mut pooled: Option<Pooled> = None;
        while self.questions < QUESTIONS_MAX {
            self.questions = self.questions.saturating_add(1);
            match decide(&self.facts(pooled.as_ref().map(|p| p.peer.facts()))) {
                Route::Need(Need::Mx(hop)) => self.look_up(hop).await,
                Route::Need(Need::Sts(domain)) => self.ask_sts(&domain).await,
                Route::Need(Need::Host { tlsa }) => self.next_host(tlsa).await,
                Route::Need(Need::Peer(requirement)) => pooled = self.connect(requirement).await,
                Route::Need(Need::NextHost(trouble, detail)) => match pooled.take() {
                    Some(left) => self.turn_away(left, trouble, detail),
                    None => self.pass_over(trouble, detail),
                },
                Route::Direct(clearance) => match pooled.take() {
                    Some(pooled) => {
                        if !pooled.used {
                            self.note_cleared(pooled.peer.facts());
                        }
                        return Way::Direct(Box::new(clearance), Box::new(pooled));
                    }
                    None => break,
                },
                end @ (Route::Envelope(_) | Route::Defer(..) | Route::Reject(..)) => {
                    if let Some(left) = pooled.take() {
                        self.relay.pool().part(left);
                    }
                    return self.ended(end);
                }
            }
        }
        self.lost_thread()
    }

    /// The connection stands, and does not do for this message.
    fn turn_away(&mut self, pooled: Pooled, trouble: Trouble, detail: String) {
        let facts = pooled.peer.facts();
        if !pooled.used {
            self.note_left(facts, trouble);
        }
        self.leave(facts, trouble, detail);
        // One that was good for other mail stays so.
        if pooled.used {
            self.relay.pool().keep(pooled);
        } else {
            self.relay.pool().part(pooled);
        }
    }

    /// A route without a connection; what was decided without any attempt is recorded as one, so
    /// that `trace` shows when DNS was asked.
    fn ended(&mut self, route: Route) -> Way {
        let (way, why) = match route {
            Route::Envelope(why) => return Way::Envelope(why),
            Route::Defer(why, status) => (Way::Defer(why.clone(), status), why),
            Route::Reject(why, status) => (Way::Reject(why.clone(), status), why),
            Route::Direct(_) | Route::Need(_) => return self.lost_thread(),
        };
        if self.attempts.is_empty() {
            let at = self.relay.now();
            self.attempts.push(Attempt { error: Some(bounded(why.text, TEXT_MAX)), ..blank(at) });
        }
        way
    }

    /// The rules did not come to an end: our fault, so the message waits.
    fn lost_thread(&self) -> Way {
        let text = "no route was found within the questions allowed".to_owned();
        Way::Defer(Why { reason: Reason::Ours, text, policy: self.policy() }, OURS)
    }

    /// True if the message is sealed because a level was not met that the domain could have met.
    pub(super) fn doubts_the_line(&self, why: &Why) -> bool {
        let require_tls = self.claim.message.facts.needs.require_tls;
        line_in_doubt(why, self.sts.as_ref(), self.dane, require_tls)
    }

    /// The policy entry for this domain, for reasons that come before a decision.
    pub(super) fn policy(&self) -> PolicyRef {
        self.set.lookup(&self.claim.domain, self.relay.now()).at.clone()
    }

    fn facts<'b>(&'b self, peer: Option<&'b PeerFacts>) -> Facts<'b> {
        let facts = &self.claim.message.facts;
        Facts {
            question: question(self.relay, self.claim),
            set: &self.set,
            domain: &self.claim.domain,
            needs: facts.needs,
            size: self.size,
            now: self.relay.now(),
            first_failed: self.claim.recipients.iter().filter_map(|r| r.first_failed).min(),
            overdue: self.relay.overdue(facts.arrived).is_ok_and(|over| over.is_some()),
            mx: self.mx.as_ref(),
            sts: self.sts.as_ref(),
            host: self.host.as_ref(),
            tried: &self.tried,
            peer,
            exhausted: self.exhausted,
        }
    }

    /// The MX set of the domain, or of a next hop that configuration names. A hop without MX
    /// look-up is a set of one host.
    async fn look_up(&mut self, hop: Option<NextHop>) {
        let inside = is_inside(self.relay, &self.claim.domain);
        self.configured = hop.is_some();
        if let Some(hop) = &hop {
            let otherwise = if inside { SMTP_PORT } else { self.relay.settings().port };
            self.port = hop.port.unwrap_or(otherwise);
        }
        let found = match hop {
            None => self.relay.ports().resolver.mx(&self.claim.domain).await,
            Some(NextHop { host, mx: true, .. }) => match host.parse::<Domain>() {
                Ok(domain) => self.relay.ports().resolver.mx(&domain).await,
                Err(_) => MxFacts::NoDomain,
            },
            Some(NextHop { host, mx: false, .. }) => {
                // Configuration gave the name: no answer of DNS stands behind it.
                MxFacts::Hosts(vec![MxHost { name: host, preference: 0 }], Dnssec::Unchecked)
            }
        };
        if let MxFacts::Hosts(hosts, _) = &found {
            self.hosts = hosts.iter().take(HOSTS_MAX).cloned().collect();
        }
        self.mx = Some(found);
    }

    async fn ask_sts(&mut self, domain: &str) {
        self.sts = Some(match domain.parse::<Domain>() {
            Ok(domain) => self.relay.ports().sts.policy(&domain).await,
            Err(_) => StsFacts::Nothing,
        });
        self.note_sts();
    }

    /// Goes on to the next host: its addresses, and what it publishes for DANE. A host without an
    /// address is on the record, and the one after it is next.
    async fn next_host(&mut self, tlsa: bool) {
        let Some(MxHost { name, .. }) = self.hosts.pop_front() else {
            self.exhausted = true;
            return;
        };
        let resolver = &self.relay.ports().resolver;
        let found = match literal(&name) {
            Some(ip) => Addresses::Found(vec![ip]),
            None => resolver.addresses(&name).await,
        };
        let (trouble, detail) = match found {
            Addresses::Found(list) => {
                self.addresses = list.into_iter().take(ADDRESSES_MAX).collect();
                let dane =
                    if tlsa { resolver.tlsa(&name, self.port).await } else { Dane::NotAsked };
                self.dane |= matches!(dane, Dane::Records(_) | Dane::Unusable(_));
                self.host = Some(HostFacts { name, dane });
                return;
            }
            Addresses::None => (Trouble::NoAddress, "the host has no address".to_owned()),
            Addresses::Trouble(detail) => (Trouble::Dns, detail),
        };
        self.record_host(name, trouble, detail);
    }

    /// The host does not do, as DNS alone says.
    fn pass_over(&mut self, trouble: Trouble, detail: String) {
        self.addresses.clear();
        let Some(host) = self.host.clone() else { return };
        self.note_passed_over(&host, trouble);
        // While it stands as the host, so that the record holds what it publishes.
        self.record_host(host.name, trouble, detail);
        self.host = None;
    }

    /// A connection to the host's next untried address: one that was kept, or a new one. Without
    /// one: the trouble is recorded.
    async fn connect(&mut self, requirement: Requirement) -> Option<Pooled> {
        self.asked = requirement;
        let (Some(host), Some(ip)) = (&self.host, self.addresses.pop_front()) else {
            self.host = None;
            return None;
        };
        let address = SocketAddr::new(ip, self.port);
        let purpose = Purpose {
            protected: self.claim.message.facts.class == Class::Protected,
            policy: self.policy(),
            host: host.name.clone(),
            address,
            requirement: self.asked.clone(),
        };
        let pool = self.relay.pool();
        if !self.fresh
            && let Some(kept) = pool.take(&purpose)
        {
            return Some(kept);
        }
        if let Some(trouble) = pool.absent(address) {
            let host = host.name.clone();
            self.record_absent(HostTrouble { host, ..trouble }, address);
            return None;
        }
        let begun = Instant::now();
        match self.relay.ports().connector.connect(&host.name, address, &self.asked).await {
            Ok(peer) => {
                pool.answered(address);
                Some(Pooled::new(purpose, peer))
            }
            Err((trouble, attempt)) => {
                // With a reply it is there, and has no time for us.
                if trouble.trouble == Trouble::Unreachable && attempt.reply.is_none() {
                    pool.unreachable(address, begun, &trouble);
                    self.unreachable.push((address, begun, trouble.clone()));
                }
                self.note_lost(host, ip, trouble.trouble);
                self.refused();
                self.tried.push(trouble);
                self.attempts.push(Attempt { dns: self.dns(), ..*attempt });
                None
            }
        }
    }

    /// The attempt is over. Where it took its time to find nobody, the first address is remembered as
    /// long as the last: else those who come next would wait for one after the other.
    pub(super) fn leave_alone(&self) {
        if self.contact == Contact::Refused {
            for (address, begun, trouble) in &self.unreachable {
                self.relay.pool().unreachable(*address, *begun, trouble);
            }
        }
    }

    /// A host was spoken to, in vain.
    fn refused(&mut self) {
        if self.contact == Contact::None {
            self.contact = Contact::Refused;
        }
    }

    /// A connection that had been kept turned out to be lost, before anything could have been taken:
    /// that says nothing of the host. The same address gets a new one.
    pub(super) fn again(&mut self, pooled: &Pooled) {
        self.addresses.push_front(pooled.address().ip());
        self.fresh = true;
    }

    /// An address that was found out of reach a moment ago.
    fn record_absent(&mut self, trouble: HostTrouble, address: SocketAddr) {
        let detail = bounded(format!("not tried again so soon: {}", trouble.detail), TEXT_MAX);
        let at = self.relay.now();
        self.attempts.push(Attempt {
            mx: Some(trouble.host.clone()),
            address: Some(address.to_string()),
            trouble: Some(trouble.trouble),
            error: Some(detail.clone()),
            dns: self.dns(),
            ..blank(at)
        });
        self.tried.push(HostTrouble { detail, ..trouble });
    }

    /// A host that no connection was made to, on the record.
    fn record_host(&mut self, host: String, trouble: Trouble, detail: String) {
        let detail = bounded(detail, TEXT_MAX);
        let at = self.relay.now();
        self.attempts.push(Attempt {
            mx: Some(host.clone()),
            trouble: Some(trouble),
            error: Some(detail.clone()),
            dns: self.dns(),
            ..blank(at)
        });
        self.tried.push(HostTrouble { host, trouble, detail });
    }

    /// What DNS has said so far.
    fn dns(&self) -> Option<DnsRecord> {
        let Some(MxFacts::Hosts(hosts, dnssec)) = &self.mx else { return None };
        Some(DnsRecord {
            mx: hosts.iter().take(HOSTS_MAX).map(|host| host.name.clone()).collect(),
            dnssec: *dnssec,
            dane: self.host.as_ref().and_then(|host| host.dane.bounded(HOSTS_MAX, TEXT_MAX)),
            sts: self.sts.as_ref().map(|sts| sts.bounded(HOSTS_MAX, TEXT_MAX)),
        })
    }

    /// The record of a connection: what DNS led to and what was seen there.
    pub(super) fn record(&self, peer: &PeerFacts, verified: bool) -> Attempt {
        let tls = match &peer.tls {
            StartTls::Done(tls) => Some(tls.clone()),
            StartTls::NotTried | StartTls::NotOffered => None,
        };
        Attempt {
            mx: Some(peer.host.clone()),
            address: Some(peer.address.to_string()),
            verified: verified && tls.is_some(),
            tls,
            dns: self.dns(),
            ..blank(self.relay.now())
        }
    }

    /// This host does not do, or was lost: on the record, and the next may be tried.
    pub(super) fn leave(&mut self, peer: &PeerFacts, trouble: Trouble, detail: String) {
        let detail = bounded(detail, TEXT_MAX);
        let record = self.record(peer, false);
        let (error, trouble_of) = (Some(detail.clone()), Some(trouble));
        self.attempts.push(Attempt { error, trouble: trouble_of, ..record });
        self.tried.push(HostTrouble { host: peer.host.clone(), trouble, detail });
    }
}

/// Whose mail the claim is. Mail for our own domains goes inside whatever its class.
fn question<'a>(relay: &'a Relay, claim: &'a Claim) -> Question<'a> {
    let settings = relay.settings();
    if is_inside(relay, &claim.domain) {
        return Question::Inside(&settings.inside, settings.inside_level);
    }
    match claim.message.facts.class {
        Class::Protected => Question::Protected(&claim.message.facts.rule),
        Class::Notice | Class::Code | Class::Report => {
            Question::Notice(settings.notification_level)
        }
        // RFC 8460 §3: such a report is delivered despite any failure of TLS. That failure may be
        // what it tells of.
        Class::TlsReport => Question::Notice(Level::Opportunistic),
    }
}

fn is_inside(relay: &Relay, domain: &Domain) -> bool {
    relay.settings().organization.contains(domain)
}

/// A host name that is an address, with or without the brackets of RFC 5321 §4.1.3.
fn literal(host: &str) -> Option<IpAddr> {
    host.parse().ok().or_else(|| host.parse::<Domain>().ok()?.literal())
}

fn blank(at: Timestamp) -> Attempt {
    let (mx, address, tls, reply) = (None, None, None, None);
    Attempt { at, mx, address, tls, verified: false, reply, trouble: None, error: None, dns: None }
}
