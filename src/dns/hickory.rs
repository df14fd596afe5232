//! Look-ups by hickory-resolver: the machine's or configured name servers, absolute names only.
//!
//! Doubt never becomes an answer: only NXDOMAIN and an empty NOERROR from a server say that
//! something does not exist. SERVFAIL, REFUSED, a time-out, a referral, a loop of aliases, bytes
//! that make no sense and signatures that do not hold are trouble, and trouble defers.

use crate::{
    dns::{Addresses, Resolver, Texts},
    mail::Domain,
    policy::{Dane, Dnssec, MxFacts, MxHost},
};
use ask::{Answer, Asker, Found, Voucher, least};
use async_trait::async_trait;
use checking::{Checking, Verdict};
use hickory_resolver::{
    Resolver as Hickory,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    proto::rr::{Name, RData, RecordType},
    system_conf::read_system_conf,
};
use link::Links;
use rand::seq::SliceRandom;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::time::timeout;

mod anchors;
mod ask;
mod checking;
mod cuts;
mod dane;
mod link;

pub use anchors::{AnchorError, Anchors};
pub use checking::{Health, Validation};

/// Exchangers of a domain that are used; a longer set is cut after sorting.
const MAX_HOSTS: usize = 20;
/// Addresses of a host that are used.
const MAX_ADDRESSES: usize = 8;
/// Aliases followed before a chain counts as a loop.
const MAX_ALIASES: usize = 8;
/// Answers kept in memory.
const CACHED_ANSWERS: u64 = 8192;
/// The longest that an answer is believed, whatever its TTL: changes show within the hour.
const KEEP: Duration = Duration::from_secs(3600);
/// The longest that "does not exist" is believed (RFC 2308 §5 allows hours; fresh domains deserve
/// less).
const KEEP_NEGATIVE: Duration = Duration::from_secs(300);
/// One try at one name server.
const TRY: Duration = Duration::from_secs(3);
/// One whole look-up.
const WHOLE: Duration = Duration::from_secs(10);

/// The name servers could not be set up.
#[derive(Debug, thiserror::Error)]
#[error("name servers: {0}")]
pub struct ResolverError(String);

/// Asks the name servers given, or the system's.
pub struct HickoryResolver {
    plain: Asker,
    /// `None`: nothing is checked.
    checking: Option<Checking>,
    servers: Vec<NameServerConfig>,
    ipv6: bool,
    whole: Duration,
}

impl fmt::Debug for HickoryResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HickoryResolver").field("ipv6", &self.ipv6).finish_non_exhaustive()
    }
}

impl HickoryResolver {
    /// Asks `nameservers`; empty: those of `/etc/resolv.conf`, and as resolv.conf(5) has it the one
    /// on this machine where it names none. Of that file only the servers count: no search list, no
    /// `ndots`, no hosts file. Nothing is checked: see [`Self::with_dnssec`].
    pub fn new(nameservers: &[SocketAddr], ipv6: bool) -> Result<Self, ResolverError> {
        let servers: Vec<NameServerConfig> = if nameservers.is_empty() {
            system_servers()
        } else {
            nameservers.iter().map(|address| server(*address)).collect()
        };
        let builder = Hickory::builder_with_config(config(&servers), Links::new(false));
        let resolver = builder.with_options(options()).build();
        let resolver = resolver.map_err(|e| ResolverError(e.to_string()))?;
        let plain = Asker { resolver, voucher: Voucher::Nobody };
        Ok(Self { plain, checking: None, servers, ipv6, whole: WHOLE })
    }

    /// The same with `dns.dnssec`.
    pub fn with_dnssec(mut self, how: Validation) -> Self {
        let plain = self.plain.clone();
        self.checking = Checking::new(how, self.servers.clone(), plain);
        self
    }

    /// Who answers for now: the one that checks, where it can; the plain one otherwise. The first to
    /// come waits until that is known.
    async fn asker(&self) -> Asker {
        match &self.checking {
            None => self.plain.clone(),
            Some(checking) => match &*checking.verdict().await {
                Verdict::Works(asker) => Asker::clone(asker),
                Verdict::Fails(_) => self.plain.clone(),
            },
        }
    }

    async fn mx_of(&self, asker: &Asker, domain: &str) -> MxFacts {
        let Some(name) = absolute(domain) else {
            return MxFacts::Trouble(format!("{domain} is no name that DNS can be asked for"));
        };
        match asker.ask(&name, RecordType::MX).await {
            Answer::Found(found) => exchangers(domain, &found),
            // Some servers answer NXDOMAIN for a name that has an address: the address is asked in
            // both cases.
            Answer::NoData(no_mx) => implicit(asker, domain, &name, no_mx, false).await,
            Answer::NoName(no_mx) => implicit(asker, domain, &name, no_mx, true).await,
            Answer::Trouble(text) => MxFacts::Trouble(text),
        }
    }

    async fn addresses_of(&self, asker: &Asker, host: &str) -> Addresses {
        let Some(name) = absolute(host) else { return Addresses::None };
        let (v4, v6) =
            tokio::join!(asker.ask(&name, RecordType::A), asker.ask(&name, RecordType::AAAA));
        let (v4, trouble4) = split(v4);
        let (v6, trouble6) = split(v6);
        let hidden = !self.ipv6 && v4.is_empty() && !v6.is_empty();
        let found = interleave(v4, if self.ipv6 { v6 } else { Vec::new() });
        match trouble4.or(trouble6) {
            _ if !found.is_empty() => Addresses::Found(found),
            Some(text) => Addresses::Trouble(text),
            // The host exists; that we do not use IPv6 is no reason to return mail for it.
            None if hidden => Addresses::Trouble(format!(
                "{host} has IPv6 addresses only, and delivery.ipv6 is off"
            )),
            None => Addresses::None,
        }
    }
}

/// RFC 5321 §5.1: without MX, the domain itself is the exchanger, if it has an address. It is worth
/// what the address is, and what the absence of MX is.
async fn implicit(
    asker: &Asker,
    domain: &str,
    name: &Name,
    no_mx: Dnssec,
    no_name: bool,
) -> MxFacts {
    let (v4, v6) = tokio::join!(asker.ask(name, RecordType::A), asker.ask(name, RecordType::AAAA));
    let host = || vec![MxHost { name: domain.to_owned(), preference: 0 }];
    match (v4, v6) {
        (Answer::Found(v4), Answer::Found(v6)) => {
            MxFacts::Hosts(host(), least(no_mx, least(v4.worth, v6.worth)))
        }
        (Answer::Found(found), _) | (_, Answer::Found(found)) => {
            MxFacts::Hosts(host(), least(no_mx, found.worth))
        }
        (Answer::Trouble(text), _) | (_, Answer::Trouble(text)) => MxFacts::Trouble(text),
        (Answer::NoName(_), Answer::NoName(_)) if no_name => MxFacts::NoDomain,
        (Answer::NoData(_) | Answer::NoName(_), Answer::NoData(_) | Answer::NoName(_)) => {
            MxFacts::NoHost
        }
    }
}

#[async_trait]
impl Resolver for HickoryResolver {
    async fn mx(&self, domain: &Domain) -> MxFacts {
        // RFC 5321 §4.1.3: an address literal names its host.
        if let Some(address) = domain.literal() {
            return MxFacts::Hosts(
                vec![MxHost { name: address.to_string(), preference: 0 }],
                Dnssec::Unchecked,
            );
        }
        let asker = self.asker().await;
        match timeout(self.whole, self.mx_of(&asker, domain.as_str())).await {
            Ok(facts) => facts,
            Err(_) => MxFacts::Trouble(format!("{domain} MX: no answer in time")),
        }
    }

    async fn addresses(&self, host: &str) -> Addresses {
        if let Some(address) = literal(host) {
            return Addresses::Found(vec![address]);
        }
        let asker = self.asker().await;
        match timeout(self.whole, self.addresses_of(&asker, host)).await {
            Ok(addresses) => addresses,
            Err(_) => Addresses::Trouble(format!("{host} A/AAAA: no answer in time")),
        }
    }

    async fn tlsa(&self, host: &str, port: u16) -> Dane {
        let asker = self.asker().await;
        if asker.voucher == Voucher::Nobody {
            return Dane::Unchecked;
        }
        match timeout(self.whole, asker.tlsa(host, port)).await {
            Ok(dane) => dane,
            Err(_) => Dane::Trouble(format!("{host} TLSA: no answer in time")),
        }
    }

    async fn texts(&self, name: &str) -> Texts {
        let Some(name) = absolute(name) else { return Texts::None };
        let asker = self.asker().await;
        let answer = match timeout(self.whole, asker.ask(&name, RecordType::TXT)).await {
            Ok(answer) => answer,
            Err(_) => Answer::Trouble(format!("{name} TXT: no answer in time")),
        };
        match answer {
            Answer::Found(found) => Texts::Found(
                found
                    .records
                    .iter()
                    .filter_map(|data| {
                        let RData::TXT(text) = data else { return None };
                        let joined = text.txt_data.concat();
                        Some(String::from_utf8_lossy(&joined).into_owned())
                    })
                    .collect(),
            ),
            Answer::NoData(_) | Answer::NoName(_) => Texts::None,
            Answer::Trouble(text) => Texts::Trouble(text),
        }
    }
}

fn config(servers: &[NameServerConfig]) -> ResolverConfig {
    ResolverConfig::from_name_servers(servers.to_vec())
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.ndots = 0;
    options.timeout = TRY;
    options.attempts = 2;
    options.use_hosts_file = ResolveHosts::Never;
    options.cache_size = CACHED_ANSWERS;
    options.positive_max_ttl = Some(KEEP);
    options.negative_max_ttl = Some(KEEP_NEGATIVE);
    options.max_active_requests = 512;
    options
}

fn server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.to_vec())
}

fn system_servers() -> Vec<NameServerConfig> {
    match read_system_conf() {
        Ok((config, _)) if !config.name_servers.is_empty() => config.name_servers,
        Ok(_) => vec![local_server()],
        Err(error) => {
            tracing::warn!(%error, "no name server in /etc/resolv.conf; asking 127.0.0.1:53");
            vec![local_server()]
        }
    }
}

fn local_server() -> NameServerConfig {
    server((Ipv4Addr::LOCALHOST, 53).into())
}

/// The absolute form, so that no search list is tried.
fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// An address written where a host's name may be, with or without the brackets of RFC 5321 §4.1.3.
fn literal(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}

/// RFC 5321 §5.1: by preference, equals shuffled; RFC 7505: a lone `.` takes no mail.
fn exchangers(domain: &str, found: &Found) -> MxFacts {
    let mut hosts = Vec::new();
    for data in &found.records {
        let RData::MX(mx) = data else { continue };
        if mx.exchange.is_root() && found.records.len() == 1 {
            return MxFacts::Null;
        }
        if let Some(name) = host_name(&mx.exchange) {
            hosts.push(MxHost { name, preference: mx.preference });
        }
    }
    if hosts.is_empty() {
        return MxFacts::Refused(format!("no MX record of {domain} names a host"));
    }
    hosts.shuffle(&mut rand::rng());
    hosts.sort_by_key(|host| host.preference);
    hosts.truncate(MAX_HOSTS);
    MxFacts::Hosts(hosts, found.worth)
}

/// The exchanger's name, lower case, without its dot; `None` for the root, an address written as a
/// name, and what no host is called.
fn host_name(exchange: &Name) -> Option<String> {
    let text = exchange.to_ascii().to_ascii_lowercase();
    let name = text.strip_suffix('.').unwrap_or(&text);
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    let host = !name.is_empty() && plain && name.parse::<IpAddr>().is_err();
    host.then(|| name.to_owned())
}

fn split(answer: Answer) -> (Vec<IpAddr>, Option<String>) {
    match answer {
        Answer::Found(found) => (found.records.iter().filter_map(RData::ip_addr).collect(), None),
        Answer::NoData(_) | Answer::NoName(_) => (Vec::new(), None),
        Answer::Trouble(text) => (Vec::new(), Some(text)),
    }
}

/// RFC 5321 §5.1 leaves the order open: shuffled within a family, families in turn, so that a
/// broken one costs one time-out and not all.
fn interleave(mut v4: Vec<IpAddr>, mut v6: Vec<IpAddr>) -> Vec<IpAddr> {
    v4.shuffle(&mut rand::rng());
    v6.shuffle(&mut rand::rng());
    let (mut v4, mut v6) = (v4.into_iter(), v6.into_iter());
    let mut all = Vec::new();
    while all.len() < MAX_ADDRESSES {
        let pair = [v6.next(), v4.next()];
        if pair.iter().all(Option::is_none) {
            break;
        }
        all.extend(pair.into_iter().flatten());
    }
    all
}

#[cfg(test)]
mod tests;
