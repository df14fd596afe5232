//! The network in memory: DNS, and byte streams to hosts.

use super::{
    host::{Host, Link},
    talk::{Surroundings, Talk},
};
use async_trait::async_trait;
use restante::{
    dns::{Addresses, Resolver, Texts},
    mail::Domain,
    net::Transport,
    policies::{StsPolicies, TlsSessions},
    policy::{Dane, Dnssec, MxFacts, MxHost, StsFacts, tlsrpt::SessionNote},
    wire::Stream,
};
use std::{
    future::pending,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{io::duplex, time::sleep};

/// What DNS says of a domain.
#[derive(Debug, Clone)]
pub struct Zone {
    pub domain: &'static str,
    /// Hosts by preference.
    pub mx: Vec<&'static str>,
    /// There is no such domain.
    pub gone: bool,
    /// When it can't be looked up.
    pub trouble: Vec<(Duration, Duration)>,
}

#[derive(Debug)]
pub struct Network {
    pub around: Arc<Surroundings>,
    pub hosts: Vec<Arc<Host>>,
    pub zones: Vec<Zone>,
    /// From then on no host has trouble by chance.
    pub heal: Duration,
    /// Every connection that was tried.
    pub dialed: Mutex<Vec<IpAddr>>,
}

fn within(age: Duration, windows: &[(Duration, Duration)]) -> bool {
    windows.iter().any(|(from, until)| (*from..*until).contains(&age))
}

impl Network {
    fn age(&self) -> Duration {
        self.around.ledger.trace.age()
    }
    async fn look_up(&self) {
        sleep(self.around.chance.up_to(Duration::from_millis(200))).await;
    }
}

#[async_trait]
impl Transport for Network {
    async fn open(&self, address: SocketAddr) -> io::Result<Box<dyn Stream>> {
        sleep(self.around.chance.up_to(Duration::from_millis(120))).await;
        let host = self.hosts.iter().find(|h| h.addresses.contains(&address.ip()));
        let Some(host) = host else { return Err(io::ErrorKind::HostUnreachable.into()) };
        self.dialed.lock().expect("unbroken").push(address.ip());
        let script = host.script(address.ip(), self.age(), self.heal, &self.around.chance);
        let trace = &self.around.ledger.trace;
        trace.note(format_args!("connection to {} [{}]: {script:?}", host.name, address.ip()));
        match script.link {
            Link::Refused => return Err(io::ErrorKind::ConnectionRefused.into()),
            Link::Dead => pending::<()>().await,
            Link::Up => {}
        }
        let (ours, theirs) = duplex(64 * 1024);
        let (host, around) = (Arc::clone(host), Arc::clone(&self.around));
        tokio::spawn(Talk::new(host, around, Box::new(theirs), script).run());
        Ok(Box::new(ours))
    }
}

#[async_trait]
impl Resolver for Network {
    async fn mx(&self, domain: &Domain) -> MxFacts {
        self.look_up().await;
        let Some(zone) = self.zones.iter().find(|z| z.domain == domain.as_str()) else {
            return MxFacts::NoDomain;
        };
        if within(self.age(), &zone.trouble) {
            sleep(Duration::from_secs(5)).await;
            return MxFacts::Trouble("SERVFAIL".to_owned());
        }
        if zone.gone {
            return MxFacts::NoDomain;
        }
        let hosts = (1..).zip(&zone.mx);
        let hosts = hosts.map(|(n, name)| MxHost { name: (*name).to_owned(), preference: n * 10 });
        MxFacts::Hosts(hosts.collect(), Dnssec::Unchecked)
    }
    async fn addresses(&self, host: &str) -> Addresses {
        self.look_up().await;
        let Some(host) = self.hosts.iter().find(|h| h.name == host) else {
            return Addresses::None;
        };
        if within(self.age(), &host.hidden) {
            sleep(Duration::from_secs(5)).await;
            return Addresses::Trouble("SERVFAIL".to_owned());
        }
        Addresses::Found(host.addresses.clone())
    }
    async fn tlsa(&self, _host: &str, _port: u16) -> Dane {
        Dane::Unchecked
    }
    async fn texts(&self, _name: &str) -> Texts {
        Texts::None
    }
}

#[async_trait]
impl StsPolicies for Network {
    async fn policy(&self, _domain: &Domain) -> StsFacts {
        StsFacts::Nothing
    }
}

impl TlsSessions for Network {
    fn note(&self, _note: SessionNote) {}
}
