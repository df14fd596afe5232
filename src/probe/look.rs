//! One host of an MX set: its addresses, what it publishes for DANE, and a connection to each
//! address that says QUIT once it has seen enough.

use super::{HOSTS_MAX, ProbePorts};
use crate::{
    dns::Addresses,
    mail::Domain,
    policy::{
        Dane, Dnssec, HostFacts, MxHost, PeerFacts, Policy, Requirement, StartTls, StsFacts,
        TlsFacts, TlsUse, TlsaSet, Trouble, Wanted, would_pass,
    },
};
use futures_util::{FutureExt, StreamExt, stream};
use std::net::{IpAddr, SocketAddr};

/// Addresses of one host that are looked at.
const ADDRESSES_MAX: usize = 4;
/// Hosts looked at at the same time.
const AT_ONCE: usize = 4;

/// How hosts are looked at.
pub(super) struct Looking<'a> {
    pub(super) ports: &'a ProbePorts,
    /// The entry whose next hop, anchors and certificate are used.
    pub(super) policy: Option<&'a Policy>,
    pub(super) port: u16,
    /// What the MX answer is worth.
    pub(super) dnssec: Dnssec,
}

/// A host as it was seen.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) preference: u16,
    pub(super) facts: HostFacts,
    /// Why it has no address to look at.
    pub(super) trouble: Option<(Trouble, String)>,
    pub(super) visits: Vec<Visit>,
}

/// One address of a host. Where the host has TLSA records, a second connection names their base in
/// SNI, as a delivery at a DANE level would; the first does as all other levels do.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) address: SocketAddr,
    pub(super) plain: Result<PeerFacts, Failed>,
    pub(super) dane: Option<Result<PeerFacts, Failed>>,
}

/// A connection that did not come to TLS.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) trouble: Trouble,
    pub(super) detail: String,
    pub(super) reply: Option<String>,
    pub(super) tls: Option<TlsFacts>,
}

impl Looking<'_> {
    /// Looks at every host of a set, in its order.
    pub(super) async fn all(&self, hosts: &[MxHost]) -> Vec<Host> {
        let mut looks = Vec::new();
        for host in hosts.iter().take(HOSTS_MAX) {
            looks.push(self.host(host).boxed());
        }
        stream::iter(looks).buffered(AT_ONCE).collect().await
    }

    async fn host(&self, mx: &MxHost) -> Host {
        let name = mx.name.clone();
        let found = match literal(&name) {
            Some(ip) => Addresses::Found(vec![ip]),
            None => self.ports.resolver.addresses(&name).await,
        };
        let (addresses, trouble) = match found {
            Addresses::Found(list) => (list, None),
            Addresses::None => {
                (Vec::new(), Some((Trouble::NoAddress, "the host has no address".to_owned())))
            }
            Addresses::Trouble(detail) => (Vec::new(), Some((Trouble::Dns, detail))),
        };
        // RFC 7672 §2.2.1: TLSA records count only where a signed MX answer names the host.
        let dane = match self.dnssec {
            Dnssec::Secure if !addresses.is_empty() => {
                self.ports.resolver.tlsa(&name, self.port).await
            }
            Dnssec::Secure | Dnssec::Insecure => Dane::NotAsked,
            Dnssec::Unchecked => Dane::Unchecked,
        };
        let records = dane.records();
        let mut visits = Vec::new();
        for ip in addresses.into_iter().take(ADDRESSES_MAX) {
            visits.push(self.visit(&name, ip, records).await);
        }
        Host { preference: mx.preference, facts: HostFacts { name, dane }, trouble, visits }
    }

    async fn visit(&self, host: &str, ip: IpAddr, records: Option<&TlsaSet>) -> Visit {
        let address = SocketAddr::new(ip, self.port);
        let plain = self.connect(host, address, None).await;
        let dane = match records {
            Some(set) if reached(&plain) => Some(self.connect(host, address, Some(set)).await),
            Some(_) | None => None,
        };
        Visit { address, plain, dane }
    }

    /// TLS 1.2 is allowed here whatever the entry says, so that what is there can be told.
    async fn connect(
        &self,
        host: &str,
        address: SocketAddr,
        tlsa: Option<&TlsaSet>,
    ) -> Result<PeerFacts, Failed> {
        let policy = self.policy;
        let requirement = Requirement {
            tls: TlsUse::Always,
            min_tls13: false,
            ca_file: policy.and_then(|policy| policy.ca_file.clone()),
            client: policy.and_then(|policy| policy.client.clone()),
            tlsa: tlsa.cloned(),
            configured: policy.and_then(|p| p.next_hop.as_ref()).is_some_and(|hop| !hop.mx),
        };
        match self.ports.connector.connect(host, address, &requirement).await {
            Ok(peer) => {
                let facts = peer.facts().clone();
                peer.quit().await;
                Ok(facts)
            }
            Err((trouble, attempt)) => Err(Failed {
                trouble: trouble.trouble,
                detail: trouble.detail,
                reply: attempt.reply,
                tls: attempt.tls,
            }),
        }
    }
}

impl Visit {
    /// Somebody answered there.
    pub(super) fn reached(&self) -> bool {
        reached(&self.plain)
    }

    /// TLS as seen, on the connection that most levels would have.
    pub(super) fn tls(&self) -> Option<&TlsFacts> {
        match &self.plain {
            Ok(peer) => done(peer),
            Err(failed) => failed.tls.as_ref(),
        }
    }

    /// TLS as seen on the connection for DANE.
    pub(super) fn dane_tls(&self) -> Option<&TlsFacts> {
        done(self.dane.as_ref()?.as_ref().ok()?)
    }

    /// Whether STARTTLS was offered; `None`: nobody was there to ask.
    pub(super) fn starttls(&self) -> Option<bool> {
        match &self.plain {
            Ok(peer) => Some(done(peer).is_some()),
            Err(failed) => match failed.trouble {
                Trouble::NoStartTls => Some(false),
                Trouble::StartTlsRefused | Trouble::Handshake | Trouble::Unproven => Some(true),
                Trouble::Dns
                | Trouble::NoAddress
                | Trouble::Unreachable
                | Trouble::NoDane
                | Trouble::NoSts
                | Trouble::TooBig
                | Trouble::EightBit
                | Trouble::Utf8
                | Trouble::NoRequireTls
                | Trouble::Ours => None,
            },
        }
    }

    /// By what the level is met here, or why not; `None` where nobody answered.
    pub(super) fn meets(
        &self,
        wanted: &Wanted<'_>,
        host: &HostFacts,
        sts: Option<&StsFacts>,
    ) -> Option<Result<String, String>> {
        let connection = match &self.dane {
            Some(dane) if wanted.level.asks_dane() => dane,
            Some(_) | None => &self.plain,
        };
        match connection {
            Ok(peer) => Some(would_pass(wanted, host, sts, peer)),
            Err(failed) if failed.trouble == Trouble::NoStartTls => {
                Some(would_pass(wanted, host, sts, &self.without_tls(host)))
            }
            Err(_) if !reached(connection) => None,
            Err(failed) if wanted.level.allows_plaintext() => {
                Some(Ok(format!("level {} sends without TLS ({})", wanted.level, failed.detail)))
            }
            Err(failed) => Some(Err(failed.detail.clone())),
        }
    }

    /// A host that offers no STARTTLS, as the judge wants to be told.
    fn without_tls(&self, host: &HostFacts) -> PeerFacts {
        PeerFacts {
            connection: 0,
            host: host.name.clone(),
            address: self.address,
            tls: StartTls::NotOffered,
            eight_bit: false,
            smtputf8: false,
            require_tls: false,
            size: None,
        }
    }
}

fn reached(connection: &Result<PeerFacts, Failed>) -> bool {
    connection.as_ref().err().is_none_or(|failed| {
        !matches!(failed.trouble, Trouble::Dns | Trouble::NoAddress | Trouble::Unreachable)
    })
}

fn done(peer: &PeerFacts) -> Option<&TlsFacts> {
    match &peer.tls {
        StartTls::Done(tls) => Some(tls),
        StartTls::NotTried | StartTls::NotOffered => None,
    }
}

/// A host name that is an address, with or without the brackets of RFC 5321 §4.1.3.
fn literal(host: &str) -> Option<IpAddr> {
    host.parse().ok().or_else(|| host.parse::<Domain>().ok()?.literal())
}
